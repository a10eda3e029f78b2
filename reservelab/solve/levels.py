"""How near a state is to a deadlock: a level function, learnt from small siblings of a scenario.

Importance splitting climbs a function of the state towards a rare event. The best one is the
probability itself that the event still comes, the committor h, or any rising function of it (Dean
and Dupuis 2009, Stochastic Processes and their Applications 119(2), 562). It is unknown where the
scenario is large, and known exactly where it is small. A *sibling* is the scenario with fewer
threads, fewer pages and a short quota: the same programs, scheme, devices, stacks and rules. Its
chain is solved, and log h is fitted by a sum over what every state consists of: each thread
contributes by its place, by what it holds, wants and owns there and whether it sleeps; each queue
of bios, the free pages and the pools by theirs. What these are worth depends on who owns the
semaphore, so each place of its owner has a sum of its own. Such sums can be evaluated for any
number of threads and pages. No scheme is known here, and no kind of deadlock.

A poor fit costs time, never truth: splitting is unbiased whatever it climbs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from reservelab.model import pack as p
from reservelab.model.errors import BadInput
from reservelab.model.scenario import Scenario
from reservelab.solve import states as st
from reservelab.solve.compiled import address, beyond, compiled, outlined
from reservelab.solve.exact import expected_stays

Array = Any  # numba specialises, mypy need not know

# Features: a row for each place of the code, then one for each mount, then those of the machine.
(
    P_AWAKE, P_ASLEEP, P_HELD, P_WANT, P_OWN, P_CLAIM, P_DRAWN, P_OWNER, PLACE_ROW,
) = range(9)  # fmt: skip
M_BIOS, M_PAGES, M_DRAWN, M_POOL, M_EMPTY, MOUNT_ROW = range(6)
(
    G_FREE, G_FREE_1, G_FREE_2, G_FREE_4, G_FREE_8, G_POOL, G_POOL_EMPTY, G_DIRTY, G_CLEAN, G_KILLS,
    G_QUOTA, G_ONE, MACHINE_ROW,
) = range(13)  # fmt: skip

_THREADS = 7  # the most threads of a sibling
_STATES = 60_000  # the most merged states of a sibling
_SIBLINGS = 5
_BUDGET = 1_500_000  # states looked at in search of siblings
_LIKELY = 0.3  # a sibling that dies more often than that teaches nothing about rare ways
_FLOOR = 0.05  # of a sibling's probability: what a state from which no deadlock comes counts as
_BINS = 14
_RIDGE = 1e-3


def dimension(t: NDArray[np.int64]) -> int:
    """How many features a state of these tables has.

    Parameters
    ----------
    t : ndarray of int64
        The integer table of a packed scenario.

    Returns
    -------
    int
        The same for all siblings.
    """
    return places(t) * PLACE_ROW + int(t[p.H_MOUNTS]) * MOUNT_ROW + MACHINE_ROW


def places(t: NDArray[np.int64]) -> int:
    """How many places there are at which a thread can be.

    Parameters
    ----------
    t : ndarray of int64
        The integer table of a packed scenario.

    Returns
    -------
    int
        Those of all programs.
    """
    return (int(t[p.H_MOUNT]) - p.HEAD) // p.CODE_ROW


@compiled
def level_of(t: Array, s: Array, weights: Array, features: Array, size: int) -> float:
    """The level of a state: its `size` features, written to `features`, weighted."""
    for k in range(size):
        features[k] = 0.0
    _describe(t, s, features)
    first = _situation(s) * size
    level = 0.0
    for k in range(size):
        level += features[k] * weights[first + k]
    return level


@compiled
def _situation(s: Array) -> int:
    """Which set of weights applies: the first if nobody owns the semaphore, else its place's."""
    owner = s[p.S_OWNER]
    if owner == p.NOBODY:
        return 0
    return 1 + s[p.S_THREAD + owner * p.S_THREAD_ROW + p.PLACE]


@compiled
def _describe(t: Array, s: Array, features: Array) -> None:
    """Add up the features of a state; `features` is zero before."""
    free, pool, dirty = s[p.S_FREE], s[p.S_POOL], s[p.S_DIRTY]
    at = (t[p.H_MOUNT] - p.HEAD) // p.CODE_ROW * PLACE_ROW + t[p.H_MOUNTS] * MOUNT_ROW
    features[at + G_ONE] = 1.0
    features[at + G_FREE] = free
    # A page less is nothing among many and everything among few.
    features[at + G_FREE_1] = min(free, 1)
    features[at + G_FREE_2] = min(free, 2)
    features[at + G_FREE_4] = min(free, 4)
    features[at + G_FREE_8] = min(free, 8)
    features[at + G_POOL] = pool
    features[at + G_POOL_EMPTY] = 1.0 if pool == 0 else 0.0
    features[at + G_DIRTY] = dirty
    features[at + G_CLEAN] = 1.0 if dirty == 0 else 0.0
    features[at + G_KILLS] = s[p.S_KILLS]
    for i in range(t[p.H_THREADS]):
        row = p.S_THREAD + i * p.S_THREAD_ROW
        features[at + G_QUOTA] += s[row + p.QUOTA]
        place = s[row + p.PLACE] * PLACE_ROW
        features[place + (P_AWAKE if s[row + p.ASLEEP] == p.AWAKE else P_ASLEEP)] += 1.0
        features[place + P_HELD] += s[row + p.HELD]
        features[place + P_WANT] += s[row + p.WANT]
        features[place + P_OWN] += s[row + p.OWN]
        features[place + P_CLAIM] += s[row + p.CLAIM]
        features[place + P_DRAWN] += s[row + p.DRAWN]
        if s[p.S_OWNER] == i:
            features[place + P_OWNER] += 1.0
        if s[row + p.CARRIES] != p.NOBODY:
            pages, _ = _carried(t, s, s[row + p.CARRIES])
            features[place + P_HELD] += pages
    at = (t[p.H_MOUNT] - p.HEAD) // p.CODE_ROW * PLACE_ROW
    for mount in range(t[p.H_MOUNTS]):
        bag = t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG
        features[at + M_BIOS] = s[bag]
        for k in range(s[bag]):
            pages, drawn = _carried(t, s, s[t[p.H_S_BAG] + mount * t[p.H_BIOS] + k])
            features[at + M_PAGES] += pages
            features[at + M_DRAWN] += drawn
        left = s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.MOUNT_POOL]
        features[at + M_POOL] = left
        features[at + M_EMPTY] = 1.0 if left == 0 else 0.0
        at += MOUNT_ROW


@compiled
def _carried(t: Array, s: Array, bio: int) -> tuple[int, int]:
    """Pages of a bio and of those it carries, and how many of them were drawn."""
    pages = drawn = 0
    while bio != p.NOBODY:
        row = t[p.H_S_BIO] + bio * p.S_BIO_ROW
        pages += s[row + p.BIO_PAGES]
        drawn += s[row + p.BIO_DRAWN]
        bio = s[row + p.BIO_UPPER]
    return pages, drawn


@outlined
def _describe_all(
    t_array: Array, s_array: Array, layout_array: Array, arena_array: Array, offsets_array: Array,
    scratch_array: Array, features_array: Array, situations_array: Array, states: int, size: int,
) -> None:  # fmt: skip
    t, s, layout = address(t_array), address(s_array), address(layout_array)
    arena, offsets, scratch = address(arena_array), address(offsets_array), address(scratch_array)
    features, situations = address(features_array), address(situations_array)
    for k in range(states):
        st.decode(t, s, layout, beyond(arena, offsets[k]), scratch)
        _describe(t, s, beyond(features, k * size))
        situations[k] = _situation(s)


@dataclass(frozen=True)
class Level:
    """A level function.

    Parameters
    ----------
    weights : tuple of float
        A set for each situation: that nobody owns the semaphore, or the place of who does; in each
        set one for each feature.
    origin : str
        Where they come from, in words.
    """

    weights: tuple[float, ...]
    origin: str


def needy_pages(scenario: Scenario) -> Level:
    """Pages held by threads that still need pages: the level of a plain pool of pages.

    Parameters
    ----------
    scenario : Scenario
        The scenario.

    Returns
    -------
    Level
        To fall back on where no sibling teaches anything.
    """
    t = p.pack(scenario).t
    weights = np.zeros(dimension(t))
    block = 0
    below = [scenario.mounts[index].on or 0 for index in scenario.stacked]
    for index in [*range(len(scenario.mounts)), *below]:
        program = scenario.mounts[index].filesystem.program
        for place in range(p.ENTER_AT, p.STEPS_AT + len(program)):
            if any(step.verb == "alloc" for step in program[max(0, place - p.STEPS_AT) :]):
                row = (block + place) * PLACE_ROW
                weights[row + P_HELD] = weights[row + P_OWN] = 1.0
                weights[row + P_WANT] = 0.5  # will be held, unless the thread is fast
        block += p.STEPS_AT + len(program) + 1
    for index in scenario.stacked:
        weights[block * PLACE_ROW + index * MOUNT_ROW + M_PAGES] = 1.0
    weights = np.tile(weights, 1 + places(t))
    return Level(tuple(weights.tolist()), "pages held by threads that still need pages")


@lru_cache(maxsize=64)
def learnt(scenario: Scenario) -> Level | None:
    """The level function that a scenario's small siblings teach.

    Parameters
    ----------
    scenario : Scenario
        The scenario.

    Returns
    -------
    Level or None
        None if no sibling deadlocks, or all of them are too large to solve.
    """
    t = p.pack(scenario).t
    size = dimension(t)
    grams: dict[int, NDArray[np.float64]] = defaultdict(lambda: np.zeros((size, size)))
    slopes: dict[int, NDArray[np.float64]] = defaultdict(lambda: np.zeros(size))
    names = []
    for space, stays, probability in _siblings(scenario):
        features, situations, target, weight = _lesson(space, stays, probability)
        # Siblings differ in how rare a deadlock is in all: only differences within one count.
        target -= weight @ target
        for situation in np.unique(situations):
            here = situations == situation
            weighted = features[here] * weight[here, None]
            grams[situation] += weighted.T @ features[here]
            slopes[situation] += weighted.T @ target[here]
        sibling = space.scenario
        names.append(f"{sibling.threads} on {sibling.machine.pages}")
    if not names:
        return None
    # One fit to all, from which each situation's own departs as far as there is reason to.
    ridge = _RIDGE * len(names) * np.eye(size)
    common = np.linalg.solve(sum(grams.values()) + ridge, sum(slopes.values()))
    weights = np.tile(common, (1 + places(t), 1))
    for situation, gram in grams.items():
        weights[situation] += np.linalg.solve(gram + ridge, slopes[situation] - gram @ common)
    origin = f"learnt from siblings (threads on pages): {', '.join(names)}"
    return Level(tuple(weights.ravel().tolist()), origin)


def _lesson(
    space: st.StateSpace, stays: NDArray[np.float64], probability: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Features, situation, logarithm of the committor, and weight of each state in the fit.

    Every stretch of log h weighs the same, from the start's to a deadlock's, since each is a stage
    to climb; and so do the states from which no deadlock comes, or they would be climbed too.
    Within a stretch a state weighs by how often it is visited, though not quite as much.
    """
    transient = space.kinds == st.TRANSIENT
    visits = (stays * space.totals)[transient]
    t = space.tables.t
    size = dimension(t)
    features = np.zeros(space.states * size)
    situations = np.zeros(space.states, dtype=np.int64)
    scratch = np.zeros(st.scratch_size(int(t[p.H_THREADS]), space.bios), dtype=np.int64)
    _describe_all(
        t, space.tables.state(), space.layout, space.arena, space.offsets, scratch, features,
        situations, space.states, size,
    )  # fmt: skip
    least = _FLOOR * probability
    target = np.log(np.maximum(_committor(space)[transient], least))
    edges = np.linspace(np.log(least), 0.0, _BINS + 1)
    bins = np.clip(np.digitize(target, edges) - 1, 0, _BINS - 1)
    weight = np.zeros(len(target))
    for k in range(_BINS):
        inside = bins == k
        if inside.any():
            often, evenly = visits[inside], np.sqrt(visits[inside])
            weight[inside] = 0.7 * often / often.sum() + 0.3 * evenly / evenly.sum()
    features = features.reshape(-1, size)[transient]
    return features, situations[transient], target, weight / weight.sum()


def _committor(space: st.StateSpace) -> NDArray[np.float64]:
    """Probability that a deadlock comes, from every state; as exactly as a level needs it."""
    n = space.states
    rates = sparse.csr_matrix((space.rates, space.targets, space.begin), shape=(n, n))
    out = np.asarray(rates.sum(axis=1)).ravel()
    jump = sparse.diags(1.0 / np.where(out > 0, out, 1.0)) @ rates
    dead = (space.kinds == st.DEADLOCKED).astype(np.float64)
    committor = dead
    # Value iteration: exact after as many rounds as the longest path has steps, where there is one.
    for _ in range(2_000):
        better = jump @ committor + dead
        if np.abs(better - committor).max() <= 1e-12 * better[0]:
            break
        committor = better
    return committor


_Solved = tuple[st.StateSpace, NDArray[np.float64], float]


def _siblings(scenario: Scenario) -> Iterator[_Solved]:
    """Solved siblings in which a deadlock can come and is no matter of course.

    First those that start over once, then those that do not; of each the largest.
    """
    budget, left = _BUDGET, _SIBLINGS
    busy = sum(1 for mount in scenario.mounts if mount.flushers + mount.dirtiers)
    for quota in range(min(scenario.quota, 2), 0, -1):
        wanted = (left + 1) // 2 if quota == 2 else left
        for threads in range(min(scenario.threads, _THREADS), max(busy, 2) - 1, -1):
            # As many pages for each thread as the scenario has; or as many as still allow a
            # deadlock, since fewer make it likelier; or more, where it is a matter of course.
            pages = enough = -(-scenario.machine.pages * threads // scenario.threads)
            least, most = 0, 2 * pages + 1
            found: _Solved | None = None
            while least + 1 < most and budget > 0 and wanted > 0:
                sibling = _smaller(scenario, threads, pages, quota)
                probability = 1.0  # of one whose reserve does not fit: it needs more pages
                if sibling is not None:
                    try:
                        space = st.explore(sibling, limit=_STATES)
                    except st.TooManyStates:
                        budget -= _STATES
                        break
                    budget -= space.states
                    stays, _, _ = expected_stays(space)
                    probability = float(stays[space.kinds == st.DEADLOCKED].sum())
                    if 0.0 < probability <= _LIKELY:
                        found = space, stays, probability
                        if pages >= enough:
                            break
                least, most = (pages, most) if probability > 0.0 else (least, pages)
                pages = (least + most) // 2
            if found is not None:
                yield found
                wanted, left = wanted - 1, left - 1


def _smaller(scenario: Scenario, threads: int, pages: int, quota: int) -> Scenario | None:
    """The sibling with about so many threads, or None if its reserve does not fit."""
    share = threads / scenario.threads
    scheme, machine = scenario.scheme, scenario.machine
    mounts = [
        replace(
            mount,
            flushers=int(np.ceil(mount.flushers * share)),
            dirtiers=int(np.ceil(mount.dirtiers * share)),
        )
        for mount in scenario.mounts
    ]
    if scheme.reserve is not None:
        # In proportion, but large enough for whom it was large enough.
        least = min(scheme.reserve, scenario.need) if scheme.start != "mark" else 0
        scheme = replace(scheme, reserve=max(least, int(np.ceil(scheme.reserve * share))))
    dirty = int(np.ceil(machine.dirty * share))
    try:
        return replace(
            scenario,
            machine=replace(machine, pages=pages, dirty=dirty),
            mounts=mounts,
            scheme=scheme,
            quota=quota,
        )
    except BadInput:
        return None
