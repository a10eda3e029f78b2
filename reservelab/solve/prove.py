"""Proofs: that no deadlock is reachable, or the shortest path into one.

Rates do not matter here. States are explored breadth-first, so the first deadlocked state found is
one of those nearest to the start, and the states it was reached through are a shortest path. The
path is told by letting the engine walk it, from the real start, with real threads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from reservelab.model.errors import BadInput
from reservelab.model.plain_text import Preformatted
from reservelab.model.scenario import RULES_VERSION, Scenario
from reservelab.solve import states as st
from reservelab.solve.trace import Event, Story, tell_path
from reservelab.solve.walk import Transition, Walk


@dataclass(frozen=True)
class Proof(Preformatted):
    """A certificate of safety, or a counterexample.

    With the scenario's own quota it is about deadlock: a state that is not the end of the episode
    and in which nothing is enabled. With an unbounded quota it is about every single thread: can it
    always finish another writepage (or, a dirtier, take another page)? Neither implies the other.

    Parameters
    ----------
    scenario : Scenario
        What was explored.
    quota : int or None
        The scenario's own; None if threads start over for ever.
    deadlock_free : bool
        No deadlock of all threads is reachable.
    livelock_free : bool
        No state is reachable from which there is no end, though something happens for ever; with
        an unbounded quota: in which some thread runs for ever and finishes nothing.
    partial_deadlock_free : bool or None
        No state is reachable from which some thread never moves again while others do; None with
        the scenario's own quota, where every thread has an end.
    states : int
        Merged states found.
    processed : int
        Those whose transitions are known; with a certificate all of them.
    bios : int
        Room for bios; reached only by bios that carry no page, with an unbounded quota.
    story : Story or None
        With the scenario's own quota the shortest path into a deadlock, with an unbounded one the
        shortest into any of the three; None if there is none.
    """

    scenario: Scenario
    quota: int | None
    deadlock_free: bool
    livelock_free: bool
    partial_deadlock_free: bool | None
    states: int
    processed: int
    bios: int
    story: Story | None

    @property
    def safe(self) -> bool:
        """With the scenario's own quota: no deadlock; with an unbounded one: none of the three."""
        if self.quota is not None:
            return self.deadlock_free
        return self.deadlock_free and self.livelock_free and bool(self.partial_deadlock_free)

    @property
    def path(self) -> tuple[Event, ...]:
        """The steps of a shortest path into trouble; empty if there is none."""
        return self.story.events if self.story else ()

    def to_json(self) -> str:
        """The proof as JSON.

        Returns
        -------
        str
            One object; the path as text, a line each.
        """
        return json.dumps(
            {
                "digest": self.scenario.digest,
                "rules": RULES_VERSION,
                "quota": self.quota,
                "safe": self.safe,
                "deadlock_free": self.deadlock_free,
                "partial_deadlock_free": self.partial_deadlock_free,
                "livelock_free": self.livelock_free,
                "states": self.states,
                "processed": self.processed,
                "path": [event.text for event in self.path],
                "reasons": list(self.story.reasons) if self.story else [],
            }
        )

    def _findings(self) -> Iterator[str]:
        for name, free in (
            ("deadlock", self.deadlock_free),
            ("deadlock of some threads only", self.partial_deadlock_free),
            ("livelock", self.livelock_free),
        ):
            if free is not None:
                yield f"{name + ':':32}{'unreachable' if free else 'REACHABLE'}"

    def __str__(self) -> str:
        quota = "unbounded quota" if self.quota is None else f"its own quota of {self.quota}"
        explored = f"{self.processed} of {self.states} states explored"
        if self.processed == self.states:
            explored = f"all {self.states} states explored"
        lines = [
            f"{'SAFE' if self.safe else 'UNSAFE'}, with {quota}",
            *self._findings(),
            f"{explored}, interchangeable threads merged",
        ]
        if self.quota is None:
            lines.append(f"at most {self.bios} bios in flight")
        if self.story is None:
            lines.append(f"scenario {self.scenario.digest[:16]}, rules {RULES_VERSION}")
        else:
            lines += [f"the way there, in {len(self.path)} steps and no fewer:", ""]
            lines.append(str(self.story))
        return "\n".join(lines)


def prove(
    scenario: Scenario,
    quota: Literal["own", "unbounded"] = "own",
    limit: int = 20_000_000,
    progress: Callable[[int, int], object] | None = None,
) -> Proof:
    """Prove that a scenario is safe, or find a shortest path into trouble.

    Parameters
    ----------
    scenario : Scenario
        What to explore.
    quota : str
        ``own``: each thread stops after the scenario's quota; ``unbounded``: it never stops.
    limit : int
        The most states to store, interchangeable threads merged.
    progress : callable, optional
        Called with the states processed and found so far.

    Returns
    -------
    Proof
        The certificate or the counterexample.

    Raises
    ------
    BadInput
        If the quota is neither.
    TooManyStates
        If there are more states than the limit or the memory allows: undecided.
    """
    if quota == "unbounded":
        return _prove_unbounded(scenario, limit, progress)
    if quota != "own":
        raise BadInput("quota", f"{quota!r} is unknown", "one of own, unbounded")
    # Only backing out leads back to where a thread has been; without it every episode ends.
    retries = "memalloc" in scenario.scheme.grants and any(
        mount.filesystem.backs_out and mount.flushers + mount.dirtiers
        for mount in scenario.mounts
    )
    space = st.explore(
        scenario, limit=limit, transitions=retries, stop_at_deadlock=not retries, progress=progress
    )
    dead = np.flatnonzero(space.kinds[: space.processed] == st.DEADLOCKED)
    trapped = _never_reach(space, space.kinds != st.TRANSIENT) if retries else dead[:0]
    return Proof(
        scenario=scenario,
        quota=scenario.quota,
        deadlock_free=len(dead) == 0,
        livelock_free=len(trapped) == 0,
        partial_deadlock_free=None,
        states=space.states,
        processed=space.processed,
        bios=space.bios,
        story=_shortest_path(space, int(dead[0])) if len(dead) else None,
    )


def _prove_unbounded(
    scenario: Scenario, limit: int, progress: Callable[[int, int], object] | None
) -> Proof:
    """Look, for one thread of each kind, for states from which it can never finish again."""
    walk = Walk(scenario)
    kinds = list(zip(walk.mount_of, walk.kinds, walk.serves, strict=True))
    free = {"deadlock": True, "partial": True, "livelock": True}
    found: list[tuple[int, st.StateSpace, int]] = []
    states = bios = 0
    for tagged in sorted({kinds.index(kind) for kind in kinds}):
        space = st.explore(scenario, limit=limit, unbounded=True, tagged=tagged, progress=progress)
        states, bios = states + space.states, space.bios
        source = np.repeat(np.arange(space.states), np.diff(space.begin))
        finishing = np.zeros(space.states, dtype=bool)
        finishing[source[(space.labels & st.FINISHES) > 0]] = True
        stuck = _never_reach(space, finishing)
        if not len(stuck):
            continue
        for state, kind in _ends_of(space, stuck, source):
            free[kind] = False
            found.append((_depth(space, state), space, state))
    story = None
    if found:
        _, space, state = min(found, key=lambda item: item[0])
        story = _shortest_path(space, state)
    return Proof(
        scenario=scenario,
        quota=None,
        deadlock_free=free["deadlock"],
        livelock_free=free["livelock"],
        partial_deadlock_free=free["partial"],
        states=states,
        processed=states,
        bios=bios,
        story=story,
    )


def _ends_of(
    space: st.StateSpace, stuck: NDArray[np.int64], source: NDArray[np.int64]
) -> Iterator[tuple[int, str]]:
    """The first state of each kind of end that the stuck states lead to.

    They lead to each other only. What they end in are strongly connected components without a
    way out: one state without transitions is a deadlock of all threads; one in which the tagged
    thread still fires is a livelock; the rest leaves it behind.
    """
    inside = np.zeros(space.states, dtype=bool)
    inside[stuck] = True
    edges = inside[source]
    graph = sparse.csr_matrix(
        (np.ones(edges.sum(), dtype=np.int8), (source[edges], space.targets[edges])),
        (space.states, space.states),
    )
    parts, label = csgraph.connected_components(graph, directed=True, connection="strong")
    crossing = edges & (label[source] != label[space.targets])
    final = np.ones(parts, dtype=bool)
    final[label[source[crossing]]] = False
    fires = np.zeros(parts, dtype=bool)
    fires[label[source[edges & ((space.labels & st.FIRES) > 0)]]] = True
    dead = space.kinds == st.DEADLOCKED
    for kind, states in {
        "deadlock": stuck[dead[stuck]],
        "livelock": stuck[final[label[stuck]] & fires[label[stuck]] & ~dead[stuck]],
        "partial": stuck[final[label[stuck]] & ~fires[label[stuck]] & ~dead[stuck]],
    }.items():
        if len(states):
            yield int(states[0]), kind


def _depth(space: st.StateSpace, state: int) -> int:
    steps = 0
    while state != 0:
        state, steps = int(space.parents[state]), steps + 1
    return steps


def _never_reach(space: st.StateSpace, goal: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The states from which no state of the goal is reachable: one search back from all of it."""
    n = space.states
    goals = np.flatnonzero(goal)
    # A node beyond the last one leads to the whole goal, against the direction of time.
    source = np.repeat(np.arange(n), np.diff(space.begin))
    rows = np.concatenate([space.targets, np.full(len(goals), n)])
    columns = np.concatenate([source, goals])
    back = sparse.csr_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), (n + 1, n + 1))
    reached = csgraph.breadth_first_order(back, n, return_predecessors=False)
    missed = np.ones(n + 1, dtype=bool)
    missed[reached] = False
    return np.flatnonzero(missed)


def _shortest_path(space: st.StateSpace, dead: int) -> Story:
    """Walk the states that led to `dead` with the engine and tell the path."""
    chain = [dead]
    while chain[-1] != 0:
        chain.append(int(space.parents[chain[-1]]))
    # Who never stops must not run out of quota on the way.
    endless = bool(space.layout[st.B_UNBOUNDED])
    walked = replace(space.scenario, quota=2**30) if endless else space.scenario
    start = walk = Walk(walked, space.bios)
    steps: list[tuple[Transition, list[int]]] = []
    for number in reversed(chain[:-1]):
        words = space.words(number)
        transition, drawn, walk = next(
            successor
            for successor in _successors(walk)
            if np.array_equal(space.canonical(successor[2].state), words)
        )
        steps.append((transition, drawn))
    return replace(tell_path(start, steps), scenario=space.scenario)


def _successors(walk: Walk) -> Iterator[tuple[Transition, list[int], Walk]]:
    """Every state one firing leads to, over all numbers that can be drawn on the way."""
    for transition, _ in walk.transitions():
        scripts: list[list[int]] = [[]]
        while scripts:
            after = walk.copy()
            script = _Script(after, scripts.pop(), scripts)
            after.fire(transition, script.draw)
            yield transition, script.drawn, after


class _Script:
    """Draws what is written; where nothing is, the first number, and notes the others for later."""

    def __init__(self, walk: Walk, written: list[int], later: list[list[int]]) -> None:
        self.walk, self.written, self.later = walk, written, later
        self.drawn: list[int] = []

    def draw(self, i: int, step: int) -> int:
        if len(self.drawn) == len(self.written):
            first, *others = self.walk.numbers(i, step)
            self.later += [[*self.drawn, other] for other in others]
            self.written = [*self.drawn, first]
        self.drawn.append(self.written[len(self.drawn)])
        return self.drawn[-1]
