"""Importance splitting beside plain Monte Carlo: events for the same interval, and time.

    python -m tests.benchmarks.bench_rare

Plain Monte Carlo cannot be run to the end here, at 1e-8 it would take days: the events it needs
follow from the probability and from how many an episode has, the time from what its events take.
Both loops run on one core in this process, so other load falls on both.
"""

import math
import sys
import time
from pathlib import Path

import reservelab as rl
from reservelab.solve.levels import learnt
from reservelab.solve.rare import N_EVENTS, _Splitter

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_rare import NEAR_1E8

TRAJECTORIES, EPISODES = 20_000, 100_000


def nanoseconds_split(scenario: rl.Scenario) -> float:
    """Process time of an event of the first stage, level and all."""
    level = learnt(scenario)
    assert level is not None
    splitter = _Splitter(scenario, 1, None)
    splitter.stage(level, splitter.key("bench"), 0, 10, None, math.inf)
    start = time.process_time_ns()
    counts, _, _ = splitter.stage(level, splitter.key("bench"), 0, TRAJECTORIES, None, math.inf)
    return (time.process_time_ns() - start) / int(counts[N_EVENTS])


def nanoseconds_plain(scenario: rl.Scenario) -> float:
    """Process time of an event of simulate."""
    rl.simulate(scenario, 10, workers=1)
    start = time.process_time_ns()
    tally = rl.simulate(scenario, EPISODES, workers=1)
    return (time.process_time_ns() - start) / tally.events


def main() -> None:
    print(f"{'':38}{'probability':>12}{'events':>9}{'an event':>10}{'time':>9}")
    print(f"{'':38}{'':>12}{'saved':>9}{'costs':>10}{'saved':>9}")
    for name, scenario in NEAR_1E8.items():
        found = rl.rare(scenario)
        dearer = nanoseconds_split(scenario) / nanoseconds_plain(scenario)
        numbers = f"{found.gain:9.2g}{dearer:10.1f}{found.gain / dearer:9.2g}"
        print(f"{name:38}{found.probability.best:12.2g}{numbers}")


if __name__ == "__main__":
    main()
