"""The programs that the engine is raced against run the same rules and keep the same metrics.

Every statistical test is seeded. Each compares a mean with an exact value, two-sided at LEVEL; a
right program would fail one of the 46 at another seed with probability below 5e-4. A real bug is
far outside: in C each standard error is below 0.5 % of its value. Tried on purpose and noticed: an
`enter` that takes no time, a channel too many, the last free page always to the same thread, a
thread counted as inside one page late, free pages counted as idle beyond the reserve.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pytest
from scipy import stats

from . import c_twin, plain_pool_simpy
from .c_twin import PlainPool

LEVEL = 1e-5
BATCHES = 40
# MODEL.md section 8: 3 flushers of alloc(2), quota 2, rate 1, depth 1, M = R = 3.
SMALL = PlainPool(threads=3, pages=3, alloc=2, quota=2, reserve=3, rate=1.0, depth=1)
SMALL_EXACT = 0.336770
# Three bios on two channels, a rate that is no binary fraction, a reserve below the pages.
OTHER = PlainPool(threads=7, pages=6, alloc=2, quota=2, reserve=3, rate=0.3, depth=2)

Run = Callable[[PlainPool, int, int], Mapping[str, float]]


@pytest.fixture(scope="module", params=["integers", "doubles"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if c_twin.compiler() is None:
        pytest.skip("no C compiler (gcc, clang or cc) on the PATH")
    return c_twin.build(tmp_path_factory.mktemp("c"), doubles=request.param == "doubles")


def exact(pool: PlainPool) -> dict[str, float]:
    """Expected sums of one episode, solved backwards: every firing brings the end nearer.

    A third writing of the rules, over sorted tuples of (step, writepages left).
    """
    names = ("events", "time", "inside", "waiting_pages", "idle", "completed", "deadlocks")

    @cache
    def value(threads: tuple[tuple[int, int], ...], free: int, bios: int) -> tuple[float, ...]:
        at_alloc = [1 <= step <= pool.alloc for step, _ in threads]
        enabled = [i for i in range(len(threads)) if free > 0 or not at_alloc[i]]
        completion = pool.rate * min(bios, pool.depth)
        total = len(enabled) + completion
        if total == 0:
            return (0, 0, 0, 0, 0, 0, float(bool(threads)))
        time = 1 / total
        inside = sum(step > 0 for step, _ in threads) * time
        waiting = sum(at_alloc) * time if free == 0 else 0
        here = (1, time, inside, waiting, min(free, pool.reserve) * time, 0, 0)
        after = []
        if bios:
            after.append((completion * time, False, value(threads, free + pool.alloc, bios - 1)))
        for i in enabled:
            step, left = threads[i]
            others = threads[:i] + threads[i + 1 :]
            exits = step == pool.alloc + 2
            mine = (0, left - 1) if exits else (step + 1, left)
            then = tuple(sorted((*others, mine) if mine[1] else others))
            submits = step == pool.alloc + 1
            after.append((time, exits, value(then, free - at_alloc[i], bios + submits)))
        sums = [
            now + sum(weight * later[k] for weight, _, later in after) for k, now in enumerate(here)
        ]
        sums[names.index("completed")] += sum(weight * exits for weight, exits, _ in after)
        return tuple(sums)

    start = value(((0, pool.quota),) * pool.threads, pool.pages, 0)
    return dict(zip(names, start, strict=True))


def check(run: Run, pool: PlainPool, episodes: int) -> None:
    """Compare the mean of every metric with its exact value, by the spread over batches."""
    batches = [run(pool, episodes, seed) for seed in range(BATCHES)]
    for name, expected in exact(pool).items():
        means = [batch[name] / batch["episodes"] for batch in batches]
        assert stats.ttest_1samp(means, expected).pvalue > LEVEL, (name, expected, means)
    peak = min(pool.pages, pool.reserve)
    assert all(batch["idle_peak"] == peak * batch["episodes"] for batch in batches)


def simpy(pool: PlainPool, episodes: int, seed: int) -> Mapping[str, float]:
    return asdict(plain_pool_simpy.run(pool, episodes, seed))


def test_the_exact_values_are_those_of_the_model() -> None:
    assert exact(SMALL)["deadlocks"] == pytest.approx(SMALL_EXACT, abs=5e-7)


@pytest.mark.parametrize("pool", [SMALL, OTHER], ids=["section 8", "other"])
def test_c_agrees_with_every_exact_value(program: Path, pool: PlainPool) -> None:
    check(lambda *arguments: c_twin.run(program, *arguments), pool, 10_000)


@pytest.mark.parametrize("pool", [SMALL, OTHER], ids=["section 8", "other"])
def test_simpy_agrees_with_every_exact_value(pool: PlainPool) -> None:
    check(simpy, pool, 200)


def test_the_deadlock_probability_lies_in_the_interval_of_each(program: Path) -> None:
    for sums in (c_twin.run(program, SMALL, 400_000, 1), simpy(SMALL, 4_000, 1)):
        count = stats.binomtest(int(sums["deadlocks"]), int(sums["episodes"]))
        low, high = count.proportion_ci(1 - LEVEL, method="exact")
        assert low < SMALL_EXACT < high


def test_events_without_a_deadlock_are_the_steps_of_the_program(program: Path) -> None:
    # 3 * (2 - 1) < 4, so no deadlock is reachable (MODEL.md section 8); a writepage is enter, two
    # pages, submit, exit and the completion.
    roomy = replace(SMALL, pages=4)
    for sums in (c_twin.run(program, roomy, 100, 1), simpy(roomy, 100, 1)):
        assert sums["deadlocks"] == 0
        assert sums["completed"] == 100 * 3 * 2
        assert sums["events"] == 100 * 3 * 2 * 6


def test_c_refuses_arguments_it_cannot_run(program: Path) -> None:
    for numbers in (["3"], ["0", "3", "2", "2", "3", "1", "1", "10", "1"]):
        done = subprocess.run([program, *numbers], check=False, capture_output=True, timeout=60)
        assert done.returncode == 2
        assert done.stderr.count(b"\n") == 1
