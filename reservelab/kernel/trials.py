"""Scenarios as the text a patched kernel reads, and the lines it answers with.

Vocabulary
----------
trial    one run of a scenario in the kernel: what an episode is to the solvers
ported   what mm/reserved_pages.c and its driver (reservelab/kernel/uml) can do

A trial has an address: scenario, seed and number, and all its random numbers come from that.
Its answer is one line of words that ends with ``end``. A line that is not whole was torn when
the guest died, and is counted, never guessed at.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reservelab.model.errors import BadInput
from reservelab.model.filesystems import Step
from reservelab.model.interval import Interval
from reservelab.model.pack import bios_at_most
from reservelab.model.scenario import Scenario
from reservelab.solve.tally import clopper_pearson

if TYPE_CHECKING:
    import pandas as pd

STEP_NS = 10_000_000  # the mean time of a step, LAB_STEP in mm/reserved_pages_lab.c
ENDINGS = ("completed", "deadlocked", "unfinished", "stalled")

# The driver's own limits, and how a rate stands in its text.
_MOST = {"mounts": 8, "threads": 64, "locks": 8, "steps": 24, "choices": 8, "pages": 4096}
_MOST_BIOS = 65536
_NAME = 23
_MICRO = 1_000_000
_GRANTS = {
    "free", "memalloc", "free,mount_pool", "own,free", "free,own", "claim,free", "free,claim",
    "free,global_pool",
}  # fmt: skip

_LINE = re.compile(
    r"trial (?P<number>\d+) (?P<ending>completed|deadlocked|unfinished|stalled)"
    r" time_ns (?P<time>-?\d+) steps (?P<steps>\d+) writepages (?P<writepages>\d+)"
    r" redirtied (?P<redirtied>\d+) free (?P<free>-?\d+) pool (?P<pool>\d+)"
    r" conserved (?P<conserved>[01]) adjusted (?P<adjusted>\d+) takes (?P<takes>\d+)"
    r" sleeps (?P<sleeps>\d+) waits(?P<waits>(?: [a-z_]+)*) end"
)


def not_ported(scenario: Scenario) -> str | None:
    """What of a scenario the kernel's patches cannot do.

    Parameters
    ----------
    scenario : Scenario
        The scenario.

    Returns
    -------
    str or None
        The first thing found; None if all of it is ported.
    """
    scheme, mounts = scenario.scheme, scenario.mounts
    if scenario.stacked:
        return "stacked mounts: there is no loop worker"
    if scenario.machine.oom_kills:
        return "the OOM killer"
    if ",".join(scheme.grants) not in _GRANTS:
        return f"the order of grants {', '.join(scheme.grants)}"
    if scheme.start == "mark" and scheme.grants != ("memalloc",):
        return "a mark that allocations inside a section do not pass by PF_MEMALLOC"
    if scheme.max_sections is not None and scheme.entry == "own_by_page":
        return "max_sections over pages taken one by one"
    if scheme.returns != {
        "refill": "free", "refill_flag_set": "free", "wait_full": "pool", "unclaim": "pool",
    }.get(scheme.exit, scheme.returns):  # fmt: skip
        return f"exit {scheme.exit!r} with pages that return to {scheme.returns!r}"
    if scheme.start == "mount_pools" and scheme.returns != "mount_pool":
        return "mempools that are not refilled"
    sizes = {
        "mounts": len(mounts),
        "threads": scenario.threads,
        "locks": sum(len(mount.filesystem.locks) for mount in mounts),
        "steps": max(len(mount.filesystem.program) for mount in mounts),
        "choices": max(len(s.demand) for m in mounts for s in m.filesystem.program),
        "pages": scenario.machine.pages + scenario.machine.dirty,
    }
    for name, size in sizes.items():
        if size > _MOST[name]:
            return f"{size} {name}: {_MOST[name]} at most"
    if bios_at_most(scenario) > _MOST_BIOS:
        return f"{bios_at_most(scenario)} bios: {_MOST_BIOS} at most"
    for mount in mounts:
        assert mount.device is not None  # nothing is stacked
        if not 0 < round(mount.device.rate * _MICRO) < 2**32:
            return f"a device of rate {mount.device.rate}"
        if any(len(name) > _NAME for name in (mount.filesystem.name, *mount.filesystem.locks)):
            return f"names of more than {_NAME} characters"
    return None


def require_ported(scenario: Scenario) -> None:
    """Refuse a scenario that the kernel cannot run.

    Parameters
    ----------
    scenario : Scenario
        The scenario.

    Raises
    ------
    BadInput
        Naming what is not ported.
    """
    missing = not_ported(scenario)
    if missing is not None:
        right = "docs/kernel.md lists what is; the solvers take it all"
        raise BadInput("scenario", f"not ported to the kernel: {missing}", right)


def step_limit(scenario: Scenario) -> int:
    """Steps after which a trial is called unfinished: back-outs can repeat for ever.

    Parameters
    ----------
    scenario : Scenario
        The scenario.

    Returns
    -------
    int
        Twenty times what the program can take without back-outs, and 1,000 more.
    """
    longest = max(
        2 * sum(step.worst or 1 for step in m.filesystem.program) + m.filesystem.nr_pages + 8
        for m in scenario.mounts
    )
    return 20 * longest * (scenario.writepages + scenario.machine.dirty) + 1000


def lab_text(
    scenario: Scenario, seed: int, first: int, trials: int, backtrace: bool = False
) -> str:
    """Pack a scenario and a run of trials into the text the driver reads.

    Parameters
    ----------
    scenario : Scenario
        The scenario; all of it ported.
    seed : int
        Seed of the run.
    first : int
        Number of the first trial.
    trials : int
        How many.
    backtrace : bool
        Print backtraces of the threads in the first deadlock.

    Returns
    -------
    str
        A line for each part of the scenario and each step of each program.

    Raises
    ------
    BadInput
        If part of the scenario is not ported.
    """
    require_ported(scenario)
    machine, scheme = scenario.machine, scenario.scheme
    lines = [
        f"machine {machine.pages} {machine.dirty}",
        f"quota {scenario.quota}",
        f"waiting {scenario.waiting}",
        f"start {scheme.start}",
        f"entry {scheme.entry}",
        f"grants {','.join(scheme.grants)}",
        f"exit {scheme.exit}",
        f"returns {scheme.returns}",
        f"reserve {scenario.reserve or 0}",
        f"max_sections {scheme.max_sections or 0}",
    ]
    for mount in scenario.mounts:
        filesystem, device = mount.filesystem, mount.device
        assert device is not None  # nothing is stacked
        lines.append(
            f"mount {filesystem.name} {filesystem.nr_pages} {mount.flushers} {mount.dirtiers}"
            f" {round(device.rate * _MICRO)} {device.depth} {device.completion_pages}"
            f" {int(filesystem.backs_out)}"
        )
        lines += [_step(step) for step in filesystem.program]
    lines += ["backtrace"] * backtrace
    lines.append(f"run {_stream(scenario, seed)} {first} {trials} {step_limit(scenario)}")
    return "\n".join(lines) + "\n"


def _stream(scenario: Scenario, seed: int) -> int:
    """What the kernel's seed is, so that scenarios with the same seed do not walk the same path."""
    address = hashlib.sha256(f"{scenario.digest} {seed}".encode("ascii")).digest()
    return int.from_bytes(address[:8], "big")


def _step(step: Step) -> str:
    """A step; numbers of pages with their cumulative probabilities in units of 2**-32."""
    if step.verb != "alloc":
        return f"{step.verb} {step.lock}".rstrip()
    sums = [math.fsum(p for _, p in step.demand[: k + 1]) for k in range(len(step.demand))]
    return "alloc " + " ".join(
        f"{pages}:{min(round(total * 2**32), 2**32 - 1)}"
        for (pages, _), total in zip(step.demand, sums, strict=True)
    )


@dataclass(frozen=True)
class Trial:
    """One trial, as the kernel told it.

    Parameters
    ----------
    number : int
        Its place in the run.
    ending : str
        ``completed``, ``deadlocked``, ``unfinished`` (the step limit), or ``stalled``: the driver
        saw neither progress nor a reason for it, which is an error of ours.
    time : float
        From the start to the last thing that happened, in mean steps.
    steps : int
        Steps of threads; completions and hand-overs are none.
    writepages, redirtied : int
        Sections that ended by their exit, and by backing out.
    free, pool : int
        Pages on the free list and in the pool at the end.
    conserved : bool
        Whether all pages were accounted for after it.
    adjusted : int
        Pages the driver had to add or take away before it: other people's doing.
    takes, sleeps : int
        How often the pool's semaphore was taken, and slept on.
    waits : tuple of str
        What each thread waited for at the end, ``done`` if for nothing more; then ``completion``
        if bios were in flight.
    """

    number: int
    ending: str
    time: float
    steps: int
    writepages: int
    redirtied: int
    free: int
    pool: int
    conserved: bool
    adjusted: int
    takes: int
    sleeps: int
    waits: tuple[str, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The set of what the threads waited for, as `Tally.dead_by_reasons` names it."""
        return tuple(sorted(set(self.waits) - {"done", "nothing"}))


def parse(text: str) -> tuple[tuple[Trial, ...], int]:
    """Read the driver's answer.

    Parameters
    ----------
    text : str
        Lines of trials; torn ones may be among them.

    Returns
    -------
    tuple of Trial
        In the order they stand in.
    int
        How many lines were none: torn, or something else's output.
    """
    trials, torn = [], 0
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            torn += bool(line.strip())
            continue
        numbers = {
            name: int(value)
            for name, value in found.groupdict().items()
            if name not in ("ending", "waits", "time", "conserved")
        }
        trials.append(
            Trial(
                ending=found["ending"],
                time=int(found["time"]) / STEP_NS,
                conserved=found["conserved"] == "1",
                waits=tuple(found["waits"].split()),
                **numbers,
            )
        )
    return tuple(trials), torn


@dataclass(frozen=True)
class Trials:
    """The trials of one scenario and seed, each number once.

    Parameters
    ----------
    scenario : Scenario
        The scenario.
    seed : int
        The seed.
    trials : tuple of Trial
        In the order of their numbers.
    lockdep : str
        What lockdep reported, if it was asked; empty if it was silent.

    Raises
    ------
    ValueError
        If a number stands twice.
    """

    scenario: Scenario
    seed: int
    trials: tuple[Trial, ...]
    lockdep: str = ""

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.trials, key=lambda trial: trial.number))
        if len({trial.number for trial in ordered}) < len(ordered):
            raise ValueError("a trial stands twice: were two runs merged?")
        object.__setattr__(self, "trials", ordered)

    def __len__(self) -> int:
        return len(self.trials)

    def count(self, ending: str) -> int:
        """How many trials ended so.

        Parameters
        ----------
        ending : str
            One of `ENDINGS`.

        Returns
        -------
        int
            The count.
        """
        return sum(trial.ending == ending for trial in self.trials)

    @property
    def deadlocks(self) -> int:
        """Trials that ended in a deadlock."""
        return self.count("deadlocked")

    @property
    def deadlock_probability(self) -> Interval:
        """Clopper-Pearson, 95 %; trials with no verdict widen it upwards."""
        open_ended = self.count("unfinished") + self.count("stalled")
        return clopper_pearson(self.deadlocks, self.deadlocks + open_ended, len(self))

    @property
    def time(self) -> Interval:
        """Mean time to the end in steps, with its normal 95 % interval."""
        times = [trial.time for trial in self.trials]
        mean = math.fsum(times) / len(times)
        square = math.fsum((time - mean) ** 2 for time in times)
        error = math.sqrt(square / max(len(times) - 1, 1) / len(times))
        return Interval(mean - 1.959964 * error, mean, mean + 1.959964 * error)

    @property
    def dead_by_reasons(self) -> dict[tuple[str, ...], int]:
        """Deadlocks by the set of what was waited for."""
        dead = (trial.reasons for trial in self.trials if trial.ending == "deadlocked")
        return dict(sorted(Counter(dead).items()))

    def frame(self) -> pd.DataFrame:
        """A row for each trial.

        Returns
        -------
        DataFrame
            The fields of `Trial`; `waits` as one string.
        """
        import pandas as pd

        rows = [vars(trial) | {"waits": " ".join(trial.waits)} for trial in self.trials]
        return pd.DataFrame(rows)

    def row(self) -> dict[str, object]:
        """What a comparison needs of a run.

        Returns
        -------
        dict
            Identity, counts and the mean time.
        """
        time = self.time
        return {
            "digest": self.scenario.digest,
            "seed": self.seed,
            "trials": len(self),
            **{ending: self.count(ending) for ending in ENDINGS},
            "time": time.best,
            "time_error": (time.high - time.best) / 1.959964,
            "takes": sum(trial.takes for trial in self.trials),
            "sleeps": sum(trial.sleeps for trial in self.trials),
            "not_conserved": sum(not trial.conserved for trial in self.trials),
            "adjusted": sum(trial.adjusted > 0 for trial in self.trials[1:]),
            "dead_by_reasons": json.dumps(
                {"+".join(names): count for names, count in self.dead_by_reasons.items()}
            ),
        }

    def __str__(self) -> str:
        scenario = self.scenario
        lines = [
            f"{scenario.scheme.variant}, {scenario.waiting}: {scenario.threads} threads,"
            f" {scenario.machine.pages} pages, in a real kernel",
            f"trials           {len(self)} (seed {self.seed})",
            f"deadlocked       {self.deadlocks}: {self.deadlock_probability}",
        ]
        for names, count in self.dead_by_reasons.items():
            lines.append(f"  waiting for    {', '.join(names)}: {count}")
        for ending in ("unfinished", "stalled"):
            if self.count(ending):
                lines.append(f"{ending:<17}{self.count(ending)}")
        row = self.row()
        lines += [
            f"steps to the end {self.time}",
            f"semaphore        taken {row['takes']} times, slept on {row['sleeps']} times",
            f"pages            not conserved in {row['not_conserved']} trials",
            f"scenario         {scenario.digest}",
        ]
        return "\n".join(lines)


def missing(trials: Iterable[Trial], first: int, count: int) -> list[int]:
    """The numbers of a run that nothing was heard of.

    Parameters
    ----------
    trials : iterable of Trial
        What was heard.
    first, count : int
        The run's first number, and how many it asked for.

    Returns
    -------
    list of int
        In rising order.
    """
    heard = {trial.number for trial in trials}
    return [number for number in range(first, first + count) if number not in heard]
