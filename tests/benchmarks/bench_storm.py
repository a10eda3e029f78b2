"""Storm beside `exact`: the same scenarios to the same ten digits, in one run, as ratios.

    python -m tests.benchmarks.bench_storm [--rounds N] [--json FILE]

Storm reads what `prism` exports. Its time is that of parsing, building and solving; that of `exact`
is the whole call. Every round runs every scenario with both, one after the other, and every ratio
is taken within a round; what counts is the median of the rounds. Compiling, imports and writing the
model are outside the clock.

`exact` merges interchangeable threads and Storm does not, which is most of the difference. Two
scenarios have nothing to merge: there each thread has a mount of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import reservelab as rl
from reservelab.solve.export import prism

from .bench_engine import processor

# The tests beside which it lies find each other by this directory; so must a module run from above.
sys.path.insert(0, str(Path(__file__).parents[1]))

import storm_checker

DIGITS = 1e-10
SOLVER = "acyclic"  # the fastest of Storm's that gets ten digits: no episode here can go round


@dataclass(frozen=True)
class Race:
    """One scenario, solved by both in one round; times in seconds."""

    name: str
    states: int  # Storm's
    merged: int  # of `exact`
    parsing: float
    building: float
    solving: float
    exact: float
    difference: float  # of the deadlock probabilities, relative

    @property
    def faster(self) -> float:
        """How many times faster `exact` is, from the scenario to the answer."""
        return (self.parsing + self.building + self.solving) / self.exact

    @property
    def speeds(self) -> tuple[float, float]:
        """Million unmerged states per second: Storm's while it builds, and of the whole `exact`."""
        return self.states / self.building / 1e6, self.states / self.exact / 1e6


def scenarios() -> dict[str, rl.Scenario]:
    """Scenarios of a hundred thousand unmerged states and more, over schemes and waiting rules."""
    plain = rl.Filesystem("plain", [rl.alloc(2), rl.submit()])
    locked = rl.Filesystem(
        "locked",
        [rl.alloc(1), rl.lock("journal"), rl.alloc(1), rl.unlock("journal"), rl.submit()],
    )

    def alike(
        filesystem: rl.Filesystem, threads: int, pages: int, scheme: rl.Scheme, quota: int
    ) -> rl.Scenario:
        mounts = (rl.Mount(filesystem, flushers=threads),)
        return rl.Scenario(rl.Machine(pages), mounts, scheme, quota)

    def apart(
        filesystem: rl.Filesystem, threads: int, pages: int, scheme: rl.Scheme, quota: int
    ) -> rl.Scenario:
        mounts = tuple(rl.Mount(filesystem, flushers=1) for _ in range(threads))
        return rl.Scenario(rl.Machine(pages), mounts, scheme, quota)

    lazy = alike(locked, 4, 4, rl.GlobalPool(2), 2)
    full = rl.GlobalPool(2, refill="completion")
    return {
        "watermark": alike(plain, 4, 4, rl.Watermark(4), 4),
        "perthread": alike(plain, 5, 5, rl.PerThread(), 2),
        "global lazy, lock, asleep": lazy,
        "global lazy, lock, racing": rl.Scenario(
            lazy.machine, lazy.mounts, lazy.scheme, quota=3, waiting="racing"
        ),
        "global on-entry, asleep": alike(plain, 5, 5, rl.GlobalPool(2, on_entry=True), 2),
        "tickets": alike(plain, 5, 6, rl.Tickets(4), 2),
        "mempool, stack": rl.Scenario(
            rl.Machine(4),
            (rl.Mount(plain, flushers=2), rl.Mount(plain, flushers=2, on=0)),
            rl.Mempool(1),
            quota=3,
        ),
        "watermark, dirtiers": rl.Scenario(
            rl.Machine(5, dirty=2), (rl.Mount(plain, 2, dirtiers=2),), rl.Watermark(2), quota=2
        ),
        "watermark, nothing to merge": apart(plain, 4, 4, rl.Watermark(4), 3),
        "global lazy, nothing to merge": apart(plain, 4, 4, full, 2),
    }


def race(name: str, scenario: rl.Scenario, exact_first: bool) -> Race:
    model = prism(scenario)

    def ours() -> tuple[rl.Exact, float]:
        begin = time.perf_counter()
        solved = rl.exact(scenario)
        return solved, time.perf_counter() - begin

    if exact_first:
        solved, seconds = ours()
    checked = storm_checker.check(model, solver=SOLVER)
    if not exact_first:
        solved, seconds = ours()
    (theirs,), mine = checked.values, solved.deadlock_probability
    return Race(
        name=name,
        states=checked.states,
        merged=solved.states,
        parsing=checked.parse_seconds,
        building=checked.build_seconds,
        solving=checked.solve_seconds,
        exact=seconds,
        difference=0.0 if theirs == mine else abs(theirs - mine) / max(theirs, mine),
    )


def measure(rounds: int) -> list[list[Race]]:
    """The races of each round."""
    on_terminal = sys.stderr.isatty()
    entered = scenarios()
    rl.exact(next(iter(entered.values())))  # compiles, or reads what was compiled
    found = []
    for number in range(rounds):
        races = []
        for name, scenario in entered.items():
            if on_terminal:
                print(f"\rround {number + 1} of {rounds}: {name:<40}", end="", file=sys.stderr)
            races.append(race(name, scenario, exact_first=number % 2 == 0))
        found.append(races)
    if on_terminal:
        print(f"\r{'':<60}\r", end="", file=sys.stderr)
    return found


def table(rounds: list[list[Race]]) -> str:
    """The medians over the rounds as text, at most 72 columns of ASCII."""
    lines = [
        f"{date.today()}: {len(rounds)} rounds, {processor()}",
        storm_checker.describe(SOLVER),
        f"exact of reservelab {rl.__version__}, numba {version('numba')}",
        "",
        row("", "states", "merged", "Storm, s", "exact, s", "times"),
    ]
    by_name = list(zip(*rounds, strict=True))
    for races in by_name:
        storm = statistics.median(r.parsing + r.building + r.solving for r in races)
        exact = statistics.median(r.exact for r in races)
        faster = statistics.median(r.faster for r in races)
        counts = (str(races[0].states), str(races[0].merged))
        lines.append(row(races[0].name, *counts, short(storm), short(exact), short(faster)))
    lines += [
        "",
        "Million unmerged states per second, of Storm building and exact solving",
        row("", "", "", "Storm", "exact", "times"),
    ]
    for races in by_name:
        storm, exact = (statistics.median(r.speeds[k] for r in races) for k in (0, 1))
        times = statistics.median(r.speeds[1] / r.speeds[0] for r in races)
        lines.append(row(races[0].name, "", "", short(storm), short(exact), short(times)))
    worst = max(r.difference for races in rounds for r in races)
    lines += ["", f"largest relative difference of a deadlock probability: {worst:.1e}"]
    return "\n".join(lines) + "\n"


def row(name: str, states: str, merged: str, storm: str, exact: str, times: str) -> str:
    return f"{name:30}{states:>8}{merged:>8}{storm:>9}{exact:>9}{times:>8}"


def short(number: float) -> str:
    return f"{float(f'{number:.3g}'):g}"


def record(rounds: list[list[Race]]) -> dict[str, object]:
    """What the table says and what it was measured on."""
    return {
        "date": str(date.today()),
        "python": platform.python_version(),
        "numba": version("numba"),
        "storm": storm_checker.describe(SOLVER),
        "processor": processor(),
        "cores": os.cpu_count(),
        "rounds": [[asdict(race) | {"faster": race.faster} for race in races] for races in rounds],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Storm beside exact, as ratios.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to a file")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("give at least one round")
    if not storm_checker.available():
        print(storm_checker.MISSING, file=sys.stderr)
        return 0
    rounds = measure(options.rounds)
    print(table(rounds), end="")
    if options.json is not None:
        options.json.write_text(json.dumps(record(rounds), indent=1) + "\n")
    worst = max(race.difference for races in rounds for race in races)
    return 0 if worst <= DIGITS and not math.isnan(worst) else 1


if __name__ == "__main__":
    sys.exit(main())
