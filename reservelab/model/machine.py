"""Machines and devices: the pages there are, and how bios complete."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reservelab.model.errors import BadInput, whole_number


@dataclass(frozen=True)
class Machine:
    """The memory of a scenario (MODEL.md sections 2 and 7).

    Parameters
    ----------
    pages : int
        Free pages at the start, the scheme's reserve included.
    dirty : int
        Dirty page-cache pages that come on top.
    oom_kills : int
        How often the OOM killer may act.
    pages_per_kill : int
        Pages each kill sets free.

    Raises
    ------
    BadInput
        If a number is negative or not whole.
    """

    pages: int
    dirty: int = 0
    oom_kills: int = 0
    pages_per_kill: int = 0

    def __post_init__(self) -> None:
        for name in ("pages", "dirty", "oom_kills", "pages_per_kill"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))


@dataclass(frozen=True)
class Device:
    """A device that completes bios (MODEL.md section 6).

    Parameters
    ----------
    rate : float
        Completions per unit of time and channel; the unit is the mean duration of one step.
    depth : int
        Channels that serve at the same time.
    completion_pages : int
        Free pages without which no bio completes (the reply of a network device).

    Raises
    ------
    BadInput
        If the rate is not positive and finite, or a number is out of range.
    """

    rate: float = 1.0
    depth: int = 1
    completion_pages: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.rate, bool) or not isinstance(self.rate, (int, float)):
            wrong = f"{self.rate!r} is not a number"
            raise BadInput("rate", wrong, "give completions per step time")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise BadInput("rate", f"{self.rate!r} is not positive", "give a rate above 0")
        object.__setattr__(self, "rate", float(self.rate))
        object.__setattr__(self, "depth", whole_number("depth", self.depth, 1))
        object.__setattr__(
            self, "completion_pages", whole_number("completion_pages", self.completion_pages)
        )
