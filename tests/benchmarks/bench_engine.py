"""Events per second of the engine: beside C and SimPy, per scheme, and with many threads.

    python -m tests.benchmarks.bench_engine [--rounds N] [--seconds S] [--json FILE]

Every round runs every subject once, so that a machine that slows down slows all of them, and every
ratio is taken within a round. What counts is the median of the rounds. Compiling, imports and
starting processes are outside the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import reservelab as rl

from . import c_twin, plain_pool_simpy
from .c_twin import PlainPool

POOL = PlainPool()
FEW, MANY = 16, 4096
LABELS = {"engine": "plain", "C": "c", "C with rates in double": "c doubles", "SimPy": "simpy"}


@dataclass(frozen=True)
class Subject:
    """Something that simulates: episodes and a seed in, events and seconds out."""

    name: str
    run: Callable[[int, int], tuple[int, float]]


@dataclass(frozen=True)
class Row:
    """A line of the table: the speed of one subject over that of another."""

    section: str
    name: str
    subject: str
    over: str


def engine(name: str, scenario: rl.Scenario) -> Subject:
    def run(episodes: int, seed: int) -> tuple[int, float]:
        start = time.perf_counter()
        tally = rl.simulate(scenario, episodes=episodes, seed=seed, workers=1)
        return tally.events, time.perf_counter() - start

    return Subject(name, run)


def c_program(name: str, program: Path, pool: PlainPool) -> Subject:
    def run(episodes: int, seed: int) -> tuple[int, float]:
        sums = c_twin.run(program, pool, episodes, seed)
        return int(sums["events"]), sums["seconds"]

    return Subject(name, run)


def simpy_model(name: str, pool: PlainPool) -> Subject:
    def run(episodes: int, seed: int) -> tuple[int, float]:
        sums = plain_pool_simpy.run(pool, episodes, seed)
        return sums.events, sums.seconds

    return Subject(name, run)


def plain(pool: PlainPool) -> rl.Scenario:
    """The scenario of the C program and of the SimPy model."""
    return rl.Scenario(
        machine=rl.Machine(pages=pool.pages),
        mounts=(
            rl.Mount(
                rl.Filesystem("plain", [rl.alloc(pool.alloc), rl.submit()]),
                flushers=pool.threads,
                device=rl.Device(rate=pool.rate, depth=pool.depth),
            ),
        ),
        scheme=rl.Watermark(pool.reserve),
        quota=pool.quota,
    )


def wide(pool: PlainPool, threads: int) -> PlainPool:
    """The same pages and channels for each thread, and enough writepages for both sizes."""
    factor = threads // pool.threads
    return replace(
        pool,
        threads=threads,
        pages=pool.pages * factor,
        reserve=pool.reserve * factor,
        depth=pool.depth * factor,
        quota=20,
    )


def journaled(scheme: rl.Scheme, threads: int = FEW, quota: int = 100) -> rl.Scenario:
    """A journal's lock between two allocations, on a device slower than the lock.

    So bios pile up and hold pages until none is free: every source of a scheme is asked. 72 pages
    let 16 threads keep four each and leave some. The lazy global pool runs into its ABBA deadlock
    after a thousand events, so its figures contain the start of many episodes.
    """
    factor = threads // FEW
    program = [
        rl.alloc(1), rl.lock("journal"), rl.alloc({1: 0.9, 3: 0.1}), rl.unlock("journal"),
        rl.submit(),
    ]  # fmt: skip
    return rl.Scenario(
        machine=rl.Machine(pages=72 * factor),
        mounts=(
            rl.Mount(
                rl.Filesystem("journaled", program, nr_pages=4),
                flushers=threads,
                device=rl.Device(rate=0.1, depth=4 * factor),
            ),
        ),
        scheme=scheme,
        quota=quota,
    )


def named(variant: str) -> rl.Scheme:
    family = variant.split()[0]
    return rl.Scheme.named(variant, reserve=None if family == "perthread" else 16)


def looped() -> rl.Scenario:
    """A loop stack: each upper bio is carried through a section of the filesystem below.

    The one loop worker is slower than the writers above it, so their bios hold most of the pages.
    """
    fs = rl.Filesystem("plain", [rl.alloc(2), rl.submit()])
    mounts = (
        rl.Mount(fs, flushers=8, device=rl.Device(rate=0.5, depth=16)),
        rl.Mount(fs, flushers=8, on=0),
    )
    return rl.Scenario(
        machine=rl.Machine(pages=2000), mounts=mounts, scheme=rl.Watermark(16), quota=100
    )


def dirtying() -> rl.Scenario:
    """Dirtiers that reclaim directly, beside flushers."""
    fs = rl.Filesystem("plain", [rl.alloc(2), rl.submit()])
    device = rl.Device(rate=0.5, depth=16)
    mounts = (rl.Mount(fs, flushers=8, dirtiers=8, device=device),)
    machine = rl.Machine(pages=72, dirty=200)
    return rl.Scenario(machine=machine, mounts=mounts, scheme=rl.Watermark(16), quota=100)


def line_up(directory: Path) -> tuple[list[Subject], list[Row]]:
    """Everything to be run, and the ratios to be shown of it."""
    subjects = [engine("plain", plain(POOL)), simpy_model("simpy", POOL)]
    rows = []

    beside = "Plain pool of pages: engine's speed over ..."
    if c_twin.compiler() is None:
        print("no C compiler (gcc, clang, cc): no comparison with C", file=sys.stderr)
    else:
        program = c_twin.build(directory)
        subjects.append(c_program("c", program, POOL))
        subjects.append(c_program("c doubles", c_twin.build(directory, doubles=True), POOL))
        rows.append(Row(beside, "scalar C (goal: 0.4)", "plain", "c"))
        rows.append(Row(beside, "scalar C with rates in double", "plain", "c doubles"))
        for threads in (FEW, MANY):
            subjects.append(c_program(f"c {threads}", program, wide(POOL, threads)))
    rows.append(Row(beside, "SimPy", "plain", "simpy"))

    schemes = "Speed over the engine's own plain pool"
    scenarios = {variant: journaled(named(variant)) for variant in rl.variants()}
    scenarios["watermark max-sections=8"] = journaled(rl.Watermark(16, max_sections=8))
    for variant in ("watermark", "global lazy refill-allocate", "global on-entry refill-allocate"):
        scenarios[f"{variant}, racing"] = replace(scenarios[variant], waiting="racing")
    scenarios["loop stack"] = looped()
    scenarios["dirtiers"] = dirtying()
    for name, scenario in scenarios.items():
        subjects.append(engine(name, scenario))
        rows.append(Row(schemes, name, name, "plain"))

    scaling = f"Cost of an event, {MANY} threads over {FEW} (goal: below 2)"
    for name in ("plain pool", "perthread", "global on-entry refill-allocate", "tickets draw-last"):
        for threads in (FEW, MANY):
            scenario = (
                plain(wide(POOL, threads))
                if name == "plain pool"
                else journaled(named(name), threads, quota=20)
            )
            subjects.append(engine(f"{name} {threads}", scenario))
        rows.append(Row(scaling, name, f"{name} {FEW}", f"{name} {MANY}"))
    if c_twin.compiler() is not None:
        rows.append(Row(scaling, "plain pool in C", f"c {FEW}", f"c {MANY}"))
    return subjects, rows


def episodes_for(subject: Subject, seconds: float) -> int:
    """How many episodes fill the time. The first call compiles and does not count."""
    subject.run(1, 0)
    episodes = 1
    while True:
        _, elapsed = subject.run(episodes, 0)
        if elapsed >= seconds / 4:
            return max(1, round(episodes * seconds / elapsed))
        episodes *= 4 if elapsed < seconds / 64 else 2


def measure(subjects: list[Subject], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Events per second of each subject, round by round."""
    on_terminal = sys.stderr.isatty()
    speeds: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    episodes = {}
    for subject in subjects:
        if on_terminal:
            print(f"\rsizing {subject.name:<50}", end="", file=sys.stderr)
        episodes[subject.name] = episodes_for(subject, seconds)
    for number in range(1, rounds + 1):
        if on_terminal:
            print(f"\rround {number} of {rounds}{'':<50}", end="", file=sys.stderr)
        # There and back, so that nobody always runs after the same neighbour.
        for subject in subjects if number % 2 else reversed(subjects):
            events, elapsed = subject.run(episodes[subject.name], number)
            speeds[subject.name].append(events / elapsed)
    if on_terminal:
        print(f"\r{'':<60}\r", end="", file=sys.stderr)
    return speeds


def table(rows: list[Row], speeds: dict[str, list[float]]) -> str:
    """The ratios as text, at most 72 columns of ASCII."""
    rounds = len(next(iter(speeds.values())))
    title = f"Ratios of events per second, {rounds} rounds"
    lines = [f"{title:<48}{'median':>8}{'min':>8}{'max':>8}"]
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            lines += ["", section]
        lines.append(line(row.name, ratios(row, speeds)))
    lines += ["", "Plain pool of pages: million events per second"]
    for label, name in LABELS.items():
        if name in speeds:
            lines.append(line(label, [speed / 1e6 for speed in speeds[name]]))
    return "\n".join(lines) + "\n"


def line(name: str, values: list[float]) -> str:
    numbers = (statistics.median(values), min(values), max(values))
    return f"  {name:<46}" + "".join(f"{number:8.3g}" for number in numbers)


def ratios(row: Row, speeds: dict[str, list[float]]) -> list[float]:
    pairs = zip(speeds[row.subject], speeds[row.over], strict=True)
    return [speed / over for speed, over in pairs]


def record(rows: list[Row], speeds: dict[str, list[float]], seconds: float) -> dict[str, object]:
    """What the table says and what it was measured on."""
    return {
        "python": platform.python_version(),
        "numba": version("numba"),
        "simpy": version("simpy"),
        "c_compiler": c_twin.describe(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "seconds": seconds,
        "events_per_second": speeds,
        "ratios": [
            {"section": row.section, "name": row.name, "rounds": ratios(row, speeds)}
            for row in rows
        ],
    }


def processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description="Events per second, as ratios.")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each run (default 0.3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to a file")
    options = parser.parse_args()
    if options.rounds < 1 or not options.seconds > 0:
        parser.error("rounds and seconds must be positive")
    with tempfile.TemporaryDirectory() as directory:
        subjects, rows = line_up(Path(directory))
        speeds = measure(subjects, options.rounds, options.seconds)
    print(table(rows, speeds), end="")
    if options.json:
        text = json.dumps(record(rows, speeds, options.seconds), indent=1)
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
