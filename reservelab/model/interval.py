"""An estimate with its uncertainty."""

from __future__ import annotations

import math
from typing import NamedTuple


class Interval(NamedTuple):
    """A best value and the bounds of its interval (95 % unless its maker says otherwise).

    Parameters
    ----------
    low : float
        Lower bound.
    best : float
        Point estimate.
    high : float
        Upper bound.
    """

    low: float
    best: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an estimate at all (nothing was observed otherwise)."""
        return not math.isnan(self.best)

    def __str__(self) -> str:
        if not self.known:
            return "unknown"
        return f"{self.best:.4g} ({self.low:.4g} .. {self.high:.4g})"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high
