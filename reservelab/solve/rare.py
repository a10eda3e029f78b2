"""Probabilities far below what counting can see, by multilevel importance splitting.

Episodes that come nearer to a deadlock are split, the others end as they would: the rules and
their rates are untouched. A level function (solve/levels.py) says what nearer means. Stage k runs
n_k trajectories from the states in which those of the stage before first reached level k, until
they reach level k + 1 or end; the product of the shares that survive, times the share that dies,
is an unbiased estimate whatever the levels are, if these are chosen beforehand (L'Ecuyer, Le Gland,
Lezaud and Tuffin 2009, in Rubino and Tuffin, Rare Event Simulation, chapter 3; fixed effort).

A pilot, which is not reused, chooses the level function, the levels and the effort of each stage.
Then independent replicates run, each with streams of its own, and their spread gives the interval.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from reservelab.model import pack as p
from reservelab.model.errors import BadInput, whole_number
from reservelab.model.interval import Interval
from reservelab.model.plain_text import Preformatted, wrap
from reservelab.model.scenario import RULES_VERSION, Scenario
from reservelab.solve import rules
from reservelab.solve.compiled import address, beyond, outlined
from reservelab.solve.levels import Level, dimension, learnt, level_of, needy_pages
from reservelab.solve.simulate import (
    Cancelled,
    default_event_limit,
    draw_pending,
    fire_drawn,
    weigh,
)
from reservelab.solve.stream import next_uniform, open_stream, stream_key
from reservelab.solve.tally import clopper_pearson

Array = Any  # numba specialises, mypy need not know

N_REACHED, N_DEAD, N_UNFINISHED, N_EVENTS, N_NO_ROOM, NUMBERS = range(6)
_REPLICATES = 32
_PILOT = 1_000  # trajectories of a stage of the pilot, at first
_PILOTS = 3
_SURVIVE = 0.25  # the share of trajectories that a stage should let through
_SEEN = 50  # trajectories that must rise, or die, before the pilot believes that they can
_STAGES = 80
_ROOM = 1 << 30  # bytes for the states that a pilot's trajectories reach
_WIDEST = 0.35  # standard error of the mean, as a share of it, above which nothing is returned


class TooFewSurvivors(BadInput):
    """Too few trajectories came through a level for the estimate to be trusted."""

    undecided = True  # and not wrong


@dataclass(frozen=True, eq=False)
class Rare(Preformatted):
    """The probability of a deadlock, by importance splitting.

    Parameters
    ----------
    scenario : Scenario
        What was run.
    seed : int
        The seed.
    probability : Interval
        Of a deadlock in an episode. Best: the mean of the replicates, unbiased. 95 %: Student's t
        on the logarithm, since the replicates' distribution leans to the right; where there was
        nothing to climb, the replicates are plain episodes, and it is Clopper and Pearson's.
        Trajectories that reached the event limit widen it upwards.
    replicates : tuple of float
        The estimates of the independent replicates.
    level : Level
        What was climbed.
    thresholds : tuple of float
        The levels between the start and a deadlock.
    started, survived : tuple of int
        Trajectories of each stage over all replicates, and how many reached the next level; those
        of the last stage that survived are the deadlocked ones.
    events, pilot_events : int
        Events of the replicates, and of the pilot before them.
    plain_events : float
        Events that plain Monte Carlo needs on average for an interval as narrow: an estimate.
    unfinished : float
        Estimated probability that an episode reaches the event limit.
    """

    scenario: Scenario
    seed: int
    probability: Interval
    replicates: tuple[float, ...]
    level: Level
    thresholds: tuple[float, ...]
    started: tuple[int, ...]
    survived: tuple[int, ...]
    events: int
    pilot_events: int
    plain_events: float
    unfinished: float

    @property
    def gain(self) -> float:
        """How many times the events plain Monte Carlo would need for the same interval."""
        return self.plain_events / (self.events + self.pilot_events)

    @property
    def _method(self) -> str:
        if not self.thresholds:
            return "95 %: Clopper-Pearson"
        return "95 %: Student's t on their logarithm"

    def frame(self) -> pd.DataFrame:
        """The stages as a tidy frame.

        Returns
        -------
        DataFrame
            A row for each: the level to reach (NaN for the last, whose goal is a deadlock),
            trajectories started, survived, and the share.
        """
        started, survived = np.array(self.started), np.array(self.survived)
        return pd.DataFrame(
            {
                "stage": np.arange(len(started)),
                "level": [*self.thresholds, math.nan],
                "started": started,
                "survived": survived,
                "share": survived / started,
            }
        )

    def to_json(self) -> str:
        """The result as JSON.

        Returns
        -------
        str
            One object.
        """
        return json.dumps(
            {
                "digest": self.scenario.digest,
                "rules": RULES_VERSION,
                "seed": self.seed,
                "probability": self.probability._asdict(),
                "replicates": list(self.replicates),
                "level": self.level.origin,
                "thresholds": list(self.thresholds),
                "started": list(self.started),
                "survived": list(self.survived),
                "events": self.events,
                "pilot_events": self.pilot_events,
                "plain_events": self.plain_events,
                "unfinished": self.unfinished,
            }
        )

    def __str__(self) -> str:
        lines = [
            f"deadlock probability  {self.probability}",
            f"mean of {len(self.replicates)} independent replicates; {self._method}",
            *wrap(f"level: {self.level.origin}", "    "),
            "",
            f"{'stage':>5} {'started':>9} {'survived':>9} {'share':>9}",
        ]
        for row in self.frame().itertuples():
            lines.append(f"{row.stage:5} {row.started:9} {row.survived:9} {row.share:9.3g}")
        lines += [
            "",
            f"{self.events:.3g} events after {self.pilot_events:.3g} of a pilot that is not reused",
            f"plain Monte Carlo: about {self.plain_events:.2g}, {self.gain:.2g} times as many",
        ]
        if self.unfinished:
            lines.append(f"reached the event limit: {self.unfinished:.2g} of the episodes")
        lines.append(
            f"scenario {self.scenario.digest[:16]}, seed {self.seed}, rules {RULES_VERSION}"
        )
        return "\n".join(lines)


@outlined
def run_stage(
    t_array: Array, f_array: Array, s_array: Array, rates_array: Array, words_array: Array,
    features_array: Array, level_array: Array, size: int, key: int, first: int, trajectories: int,
    entrances_array: Array, entrances: int, goal: float, limit: int,
    counts_array: Array, reached_array: Array, highest_array: Array,
) -> None:  # fmt: skip
    """Run the trajectories of one stage.

    They start at the `entrances` states in equal shares and end at the level `goal`, where
    `reached` gets their state, or as an episode ends. `counts` gets N_*, `highest` the highest
    level of each, infinite for one that deadlocked before it got to the goal.
    """
    t, f, s, rates = address(t_array), address(f_array), address(s_array), address(rates_array)
    words, features = address(words_array), address(features_array)
    weights, start, counts = address(level_array), address(entrances_array), address(counts_array)
    reached, highest = address(reached_array), address(highest_array)
    state = t[p.H_STATE]
    open_stream(words, key, first + trajectories)
    # Systematic resampling: every entrance starts as many trajectories as any other, give or take
    # one, and in expectation exactly as many.
    offset = next_uniform(words)
    for k in range(trajectories):
        entrance = min(int((k + offset) * entrances / trajectories), entrances - 1)
        _copy(s, beyond(start, entrance * state), state)
        open_stream(words, key, first + k)
        events, high = 0, -np.inf
        while True:
            total, _, _, _, _ = weigh(t, f, s, rates)
            if total == 0.0:
                if rules.is_completed(t, s):
                    break
                if s[p.S_KILLS] == 0:
                    counts[N_DEAD] += 1
                    high = np.inf
                    break
                total = 1.0
            level = level_of(t, s, weights, features, size)
            high = max(high, level)
            if level >= goal:
                _copy(beyond(reached, counts[N_REACHED] * state), s, state)
                counts[N_REACHED] += 1
                break
            if events == limit:
                counts[N_UNFINISHED] += 1
                break
            i = fire_drawn(t, s, rates, next_uniform(words) * total)
            if s[p.S_OVERFLOW] != 0:
                counts[N_NO_ROOM] = 1
                return
            draw_pending(t, f, s, words)
            rules.regroup(t, s, i)
            events += 1
        counts[N_EVENTS] += events
        highest[k] = high


@outlined
def _copy(target: Array, source: Array, size: int) -> None:
    for k in range(size):
        target[k] = source[k]


@dataclass(frozen=True)
class _Plan:
    """What the pilot found: levels, trajectories of each stage, and what it cost."""

    level: Level
    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    probability: float
    events: int
    episode_events: float

    @property
    def cost(self) -> float:
        """Events for a given precision, up to a factor."""
        return self.events * sum((1 - share) / share for share in self.shares)


class _NoRoom(Exception):
    """There was no room for a bio."""


class _Splitter:
    """A scenario packed for splitting; safe to share between worker threads."""

    def __init__(self, scenario: Scenario, seed: int, bios: int | None) -> None:
        self._scenario, self._seed = scenario, seed
        self._tables = p.pack(scenario, bios)
        self._limit = default_event_limit(scenario)
        self._start = self._tables.state()
        rules.start(self._tables.t, self._start)

    @property
    def bios(self) -> int:
        return int(self._tables.t[p.H_BIOS])

    def key(self, purpose: str) -> Any:  # noqa: ANN401 - an unsigned word
        """The streams of one purpose; no two share any, nor does `simulate` any of them."""
        digest = f"{self._scenario.digest} rare {purpose}"
        return np.uint64(stream_key(RULES_VERSION, digest, self._seed))

    def stage(
        self, level: Level, key: Any, first: int, trajectories: int,  # noqa: ANN401
        entrances: NDArray[np.int64] | None, goal: float,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:  # fmt: skip
        """Counts, highest level of each trajectory, and the states in which they reached the goal.

        The first stage has no entrances: it starts where episodes do.
        """
        tables = self._tables
        state = int(tables.t[p.H_STATE])
        start = self._start if entrances is None else entrances
        counts = np.zeros(NUMBERS, dtype=np.int64)
        highest = np.zeros(trajectories)
        reached = np.zeros(state * trajectories if goal < math.inf else 0, dtype=np.int64)
        weights, size = np.array(level.weights), dimension(tables.t)
        run_stage(
            tables.t, tables.f, tables.state(),
            np.zeros(int(tables.t[p.H_CONDITIONAL]) + len(self._scenario.mounts)),
            np.zeros(4, dtype=np.uint64), np.zeros(size), weights, size,
            key, first, trajectories, start, len(start) // state, goal, self._limit,
            counts, reached, highest,
        )  # fmt: skip
        if counts[N_NO_ROOM]:
            raise _NoRoom
        return counts, highest, reached[: state * counts[N_REACHED]]

    def plan(self, level: Level, purpose: str, stop: threading.Event | None = None) -> _Plan:
        """Find levels that let through about a quarter of the trajectories each."""
        key = self.key(purpose)
        most = max(_PILOT, min(64 * _PILOT, _ROOM // (8 * len(self._start))))
        entrances: NDArray[np.int64] | None = None
        thresholds: list[float] = []
        shares: list[float] = []
        probability, events, first, episode_events = 1.0, 0, 0, 0.0
        counts = np.zeros(NUMBERS, dtype=np.int64)
        while True:
            if len(thresholds) == _STAGES:
                raise TooFewSurvivors(
                    "scenario", f"no deadlock behind {_STAGES} levels",
                    "try a scenario whose deadlocks are less rare",
                )  # fmt: skip
            trajectories = _PILOT
            while True:
                if stop is not None and stop.is_set():
                    raise Cancelled
                counts, highest, _ = self.stage(
                    level, key, first, trajectories, entrances, math.inf
                )
                events += int(counts[N_EVENTS])
                # Some must rise above the level they start from, which is their lowest.
                floor = thresholds[-1] if thresholds else float(np.median(highest))
                rising = np.sort(highest[highest > floor])[::-1]
                if len(rising) >= _SEEN or trajectories == most:
                    break
                first += trajectories + 1
                trajectories = min(4 * trajectories, most)
            if not thresholds:
                episode_events = counts[N_EVENTS] / trajectories
            if len(rising) == 0:
                break
            goal = float(rising[min(len(rising), int(_SURVIVE * trajectories)) - 1])
            if goal == math.inf:
                break
            counts, _, entrances = self.stage(level, key, first, trajectories, entrances, goal)
            events += int(counts[N_EVENTS])
            first += trajectories + 1
            shares.append(counts[N_REACHED] / trajectories)
            probability *= shares[-1]
            thresholds.append(goal)
        # A few deaths at the end are luck, and may be of one trajectory's making.
        died = counts[N_DEAD] / trajectories if counts[N_DEAD] >= _SEEN else 0.0
        shares.append(max(died, 1 / trajectories))
        return _Plan(
            level, tuple(thresholds), tuple(shares), probability * died, events, episode_events
        )

    def replicate(
        self, plan: _Plan, efforts: list[int], number: int
    ) -> tuple[float, float, list[int], int]:
        """Estimates of dying and of not ending, survivors of each stage, and events."""
        key = self.key("replicate")
        first = number * (sum(efforts) + len(efforts))
        entrances: NDArray[np.int64] | None = None
        weight, dying, endless, events = 1.0, 0.0, 0.0, 0
        survivors = []
        for goal, effort in zip((*plan.thresholds, math.inf), efforts, strict=True):
            counts, _, entrances = self.stage(plan.level, key, first, effort, entrances, goal)
            first += effort + 1
            events += int(counts[N_EVENTS])
            dying += weight * counts[N_DEAD] / effort
            endless += weight * counts[N_UNFINISHED] / effort
            last = goal == math.inf
            survivors.append(int(counts[N_DEAD if last else N_REACHED]))
            if survivors[-1] == 0:
                break
            weight *= counts[N_REACHED] / effort
        survivors += [0] * (len(efforts) - len(survivors))
        return dying, endless, survivors, events


def rare(
    scenario: Scenario,
    seed: int = 1,
    trajectories: int = 2_000,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
    stop: threading.Event | None = None,
) -> Rare:
    """Estimate the probability of a deadlock where it is too small to count deadlocks.

    Unbiased is the mean over seeds. One run knows the deadlocks that it reached: where another kind
    is likelier and what was climbed leads away from it, all replicates miss it alike, and neither
    interval nor refusal shows that. Where it matters, ask `exact` of a smaller scenario too.

    Parameters
    ----------
    scenario : Scenario
        What to run.
    seed : int
        Names the streams; the same seed gives the same result on any number of workers. On another
        processor or numpy the fitted level can differ in its last digits, and all that follows.
    trajectories : int
        Of each stage of each replicate; stages that few survive get more.
    workers : int, optional
        Threads of ours; the processors there are unless given.
    progress : callable, optional
        Called with the replicates done and their number; (0, their number) after the pilot.
    stop : threading.Event, optional
        Setting it cancels the run between two replicates.

    Returns
    -------
    Rare
        The estimate.

    Raises
    ------
    BadInput
        If a number is out of range.
    TooFewSurvivors
        If too few came through a level, or the replicates disagree too much, to trust the answer.
    Cancelled
        If `stop` was set before all was done.
    """
    seed = whole_number("seed", seed)
    trajectories = whole_number("trajectories", trajectories, 10)
    workers = os.cpu_count() or 1 if workers is None else whole_number("workers", workers, 1)
    bios: int | None = None
    while True:
        splitter = _Splitter(scenario, seed, bios)
        try:
            return _rare(splitter, scenario, seed, trajectories, workers, progress, stop)
        except _NoRoom:
            # Bios of no pages need no page to exist; the same streams run again with more room.
            bios = min(2 * splitter.bios, p.bios_at_most(scenario))


def _rare(
    splitter: _Splitter, scenario: Scenario, seed: int, trajectories: int, workers: int,
    progress: Callable[[int, int], object] | None, stop: threading.Event | None,
) -> Rare:  # fmt: skip
    with ThreadPoolExecutor(workers) as pool:
        # The names are part of the streams' addresses.
        levels = {"learnt": learnt(scenario), "needy": needy_pages(scenario)}
        pilot_events = 0
        # A pilot can follow a few trajectories to where a level leads nowhere; another does not.
        for attempt in range(_PILOTS):
            pilots = [
                pool.submit(splitter.plan, level, f"pilot {attempt} {name}", stop)
                for name, level in levels.items()
                if level is not None
            ]
            plans = [pilot.result() for pilot in pilots]
            pilot_events += sum(plan.events for plan in plans)
            plan = _better(plans)
            if plan.probability > 0.0:
                break
        else:
            stage = len(plan.thresholds)
            raise TooFewSurvivors(
                "scenario", f"{_PILOTS} pilots saw no deadlock; the last rose by {stage} levels",
                "try prove (perhaps none is reachable), or a less safe scenario first",
            )  # fmt: skip
        # Variance adds up over the stages as (1 - share) / (share * effort).
        usual = (1 - _SURVIVE) / _SURVIVE
        efforts = [
            round(trajectories * min(16.0, max(0.5, math.sqrt((1 - share) / share / usual))))
            for share in plan.shares
        ]
        if progress is not None:
            progress(0, _REPLICATES)
        futures = [
            pool.submit(splitter.replicate, plan, efforts, number) for number in range(_REPLICATES)
        ]
        pending: set[Future[Any]] = set(futures)
        try:
            while pending:
                done, pending = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
                if stop is not None and stop.is_set():
                    raise Cancelled
                if progress is not None and done:
                    progress(_REPLICATES - len(pending), _REPLICATES)
        finally:
            for future in pending:
                future.cancel()
    dying, endless, survivors, events = zip(*(future.result() for future in futures), strict=True)
    survived = np.sum(survivors, axis=0)
    estimates = np.array(dying)
    best = float(estimates.mean())
    spread = float(estimates.std(ddof=1)) / math.sqrt(_REPLICATES)
    unfinished = float(np.mean(endless))
    if not plan.thresholds:
        run = _REPLICATES * efforts[0]
        certain = round(run * (best + unfinished))
        probability = clopper_pearson(int(survived[0]), certain, run)
        episodes = float(run)
    elif best == 0.0 or spread > _WIDEST * best:
        weakest = int(np.argmin(survived))
        raise TooFewSurvivors(
            "trajectories",
            f"{trajectories} are too few: {survived[weakest]} survived stage {weakest} of"
            f" {len(efforts)}, and the {_REPLICATES} replicates disagree",
            f"give {4 * trajectories}, or a scenario whose deadlocks are less rare",
        )
    else:
        ratio = math.exp(float(stats.t.ppf(0.975, _REPLICATES - 1)) * spread / best)
        probability = Interval(best / ratio, best, min(1.0, best * ratio + unfinished))
        episodes = (1 - best) * best / spread**2
    return Rare(
        scenario=scenario,
        seed=seed,
        probability=probability,
        replicates=tuple(estimates.tolist()),
        level=plan.level,
        thresholds=plan.thresholds,
        started=tuple(_REPLICATES * effort for effort in efforts),
        survived=tuple(survived.tolist()),
        events=sum(events),
        pilot_events=pilot_events,
        plain_events=episodes * plan.episode_events,
        unfinished=unfinished,
    )


def _better(plans: list[_Plan]) -> _Plan:
    """The plan to follow: splitting that misses a path into deadlock estimates too little."""
    most = max(plan.probability for plan in plans)
    candidates = [plan for plan in plans if plan.probability >= most / 4]
    return min(candidates, key=lambda plan: plan.cost)
