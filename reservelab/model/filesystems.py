"""Filesystems: one writepage as a straight list of steps (MODEL.md section 3).

Vocabulary
----------
program   the steps of one writepage, between the scheme's enter and exit
demand    the number of pages an alloc step wants; fixed, or drawn on arrival at the step
need      nr_pages, the worst case a filesystem declares when it is mounted
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reservelab.model.errors import BadInput, whole_number
from reservelab.model.machine import Device

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
STEP_FORMS = "alloc N | alloc N:P N:P ... | lock NAME | unlock NAME | submit | wait"


@dataclass(frozen=True)
class Step:
    """One step of a program.

    Parameters
    ----------
    verb : str
        ``alloc``, ``lock``, ``unlock``, ``submit`` or ``wait``.
    demand : tuple of (int, float)
        For ``alloc``: the numbers of pages and their probabilities, in rising order.
    lock : str
        For ``lock`` and ``unlock``: the lock's name, one lock per mount and name.
    """

    verb: str
    demand: tuple[tuple[int, float], ...] = ()
    lock: str = ""

    @property
    def worst(self) -> int:
        """The largest number of pages the step can want."""
        return max((number for number, _ in self.demand), default=0)

    @property
    def mean(self) -> float:
        """The expected number of pages the step wants."""
        return sum(number * probability for number, probability in self.demand)

    def __str__(self) -> str:
        if self.verb == "alloc":
            if len(self.demand) == 1:
                return f"alloc {self.demand[0][0]}"
            return "alloc " + " ".join(f"{n}:{p!r}" for n, p in self.demand)
        return f"{self.verb} {self.lock}".rstrip()


def alloc(pages: int | Mapping[int, float]) -> Step:
    """Take pages one by one until the number wanted is held.

    Parameters
    ----------
    pages : int or mapping of int to float
        The number, or a distribution over numbers; 0 skips the step.

    Returns
    -------
    Step
        The step.

    Raises
    ------
    BadInput
        If a number is negative or the probabilities do not sum to 1.
    """
    if not isinstance(pages, Mapping):
        return Step("alloc", ((whole_number("alloc", pages), 1.0),))
    demand = []
    for number, probability in pages.items():
        if not (isinstance(probability, (int, float)) and 0 <= probability <= 1):
            raise BadInput("alloc", f"probability {probability!r}", "give numbers from 0 to 1")
        if probability > 0:
            demand.append((whole_number("alloc", number), float(probability)))
    demand.sort()
    total = math.fsum(probability for _, probability in demand)
    if abs(total - 1) > 1e-9:
        raise BadInput("alloc", f"probabilities sum to {total:.12g}", "make them sum to 1")
    return Step("alloc", tuple(demand))


def lock(name: str) -> Step:
    """Take a lock of the mount, exclusive and not recursive.

    Parameters
    ----------
    name : str
        The lock's name.

    Returns
    -------
    Step
        The step.
    """
    return Step("lock", lock=_lock_name(name))


def unlock(name: str) -> Step:
    """Release a lock of the mount.

    Parameters
    ----------
    name : str
        The lock's name.

    Returns
    -------
    Step
        The step.
    """
    return Step("unlock", lock=_lock_name(name))


def submit() -> Step:
    """Send a bio with all held pages to the device.

    Returns
    -------
    Step
        The step.
    """
    return Step("submit")


def wait() -> Step:
    """Wait until no bio of this thread is outstanding.

    Returns
    -------
    Step
        The step.
    """
    return Step("wait")


def parse_step(text: str) -> Step:
    """Read one step as people write it, for example ``alloc 1:0.9 3:0.1``.

    Parameters
    ----------
    text : str
        One of ``alloc N``, ``alloc N:P N:P ...``, ``lock NAME``, ``unlock NAME``, ``submit``,
        ``wait``.

    Returns
    -------
    Step
        The step.

    Raises
    ------
    BadInput
        If the text is none of these.
    """
    words = text.split() if isinstance(text, str) else []
    unknown = BadInput("program", f"{text!r} is not a step", f"write {STEP_FORMS}")
    match words:
        case ["submit"]:
            return submit()
        case ["wait"]:
            return wait()
        case ["lock", name]:
            return lock(name)
        case ["unlock", name]:
            return unlock(name)
        case ["alloc", *numbers] if numbers:
            try:
                if len(numbers) == 1 and ":" not in numbers[0]:
                    return alloc(int(numbers[0]))
                pairs = [(int(n), float(p)) for n, p in (word.split(":") for word in numbers)]
            except ValueError as error:
                if isinstance(error, BadInput):
                    raise
                raise unknown from None
            if len(dict(pairs)) != len(pairs):
                raise BadInput("program", f"{text!r} names a number twice", "name each once")
            return alloc(dict(pairs))
    raise unknown


def _lock_name(name: str) -> str:
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise BadInput("lock", f"{name!r} is not a name", "use letters, digits, '_', '.' and '-'")
    return name


@dataclass(frozen=True, init=False)
class Filesystem:
    """A filesystem: the program of its writepage and what it declares.

    Parameters
    ----------
    name : str
        For people; two filesystems that differ only in name behave alike.
    program : sequence of Step
        Exactly one submit, no alloc after it, every lock taken is released.
    nr_pages : int, optional
        The declared worst case; the sum of each alloc's largest number unless given.
    backs_out : bool
        Whether writepage gives up and redirties the page when an allocation returns NULL.
    device : Device
        The device of a mount that names none.

    Raises
    ------
    BadInput
        If the program breaks a rule of MODEL.md section 3.
    """

    name: str
    program: tuple[Step, ...]
    nr_pages: int
    backs_out: bool
    device: Device

    def __init__(
        self,
        name: str,
        program: Sequence[Step],
        *,
        nr_pages: int | None = None,
        backs_out: bool = False,
        device: Device | None = None,
    ) -> None:
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise BadInput("name", f"{name!r} is not a name", "use letters, digits, '_', '.', '-'")
        steps = tuple(program)
        _check_program(steps)
        if not isinstance(backs_out, bool):
            raise BadInput("backs_out", f"{backs_out!r} is not true or false", "give one of them")
        if nr_pages is None:
            nr_pages = sum(step.worst for step in steps)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "program", steps)
        object.__setattr__(self, "nr_pages", whole_number("nr_pages", nr_pages))
        object.__setattr__(self, "backs_out", backs_out)
        object.__setattr__(self, "device", Device() if device is None else device)

    @classmethod
    def from_text(
        cls,
        name: str,
        steps: Sequence[str],
        *,
        nr_pages: int | None = None,
        backs_out: bool = False,
        device: Device | None = None,
    ) -> Filesystem:
        """Make a filesystem from steps as people write them (see `parse_step`).

        Parameters
        ----------
        name : str
            For people.
        steps : sequence of str
            The program.
        nr_pages : int, optional
            The declared worst case.
        backs_out : bool
            Whether writepage gives up and redirties when an allocation returns NULL.
        device : Device, optional
            The device of a mount that names none.

        Returns
        -------
        Filesystem
            The filesystem.
        """
        if isinstance(steps, str) or not isinstance(steps, Sequence):
            raise BadInput("program", f"{steps!r} is not a list", f"list steps: {STEP_FORMS}")
        return cls(
            name,
            [parse_step(step) for step in steps],
            nr_pages=nr_pages,
            backs_out=backs_out,
            device=device,
        )

    @property
    def mean_demand(self) -> float:
        """Expected pages one writepage allocates."""
        return sum(step.mean for step in self.program)

    @property
    def worst_demand(self) -> int:
        """The most pages one writepage can allocate, whatever it declares."""
        return sum(step.worst for step in self.program)

    @property
    def locks(self) -> tuple[str, ...]:
        """Names of the locks, in the order of their first use."""
        return tuple(dict.fromkeys(step.lock for step in self.program if step.lock))


def _check_program(steps: tuple[Step, ...]) -> None:
    """Check the five sentences of MODEL.md section 3 about what a program is."""
    held: list[str] = []
    submitted = False
    for index, step in enumerate(steps):
        key = f"program[{index}]"
        if not isinstance(step, Step):
            raise BadInput(key, f"{step!r} is not a step", "use alloc(), lock(), submit(), ...")
        if step.verb == "alloc" and submitted:
            raise BadInput(key, "alloc after submit", "put every alloc before the submit")
        if step.verb == "submit":
            if submitted:
                raise BadInput(key, "a second submit", "a program has exactly one")
            submitted = True
        if step.verb == "lock":
            if step.lock in held:
                raise BadInput(key, f"takes lock {step.lock!r}, which it holds", "take it once")
            held.append(step.lock)
        if step.verb == "unlock":
            if step.lock not in held:
                wrong = f"unlocks {step.lock!r}, which it does not hold"
                raise BadInput(key, wrong, "lock it first")
            held.remove(step.lock)
    if not submitted:
        raise BadInput("program", "no submit", "a program has exactly one")
    if held:
        raise BadInput("program", f"ends holding lock {held[0]!r}", "unlock it before the end")
