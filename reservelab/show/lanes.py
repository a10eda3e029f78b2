"""What every thread of a story does and has, as tidy frames: the data of swim-lane pictures.

State k is what step k led to; state 0 is the start. A lane is cut into intervals of states in
which a thread's part of the state does not change. Nothing is decided here: places, what is held
and what is waited for are read off the engine's own states (`Story.moments`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reservelab.model.errors import BadInput
from reservelab.model.pack import NOBODY
from reservelab.model.scenario import Scenario
from reservelab.solve.prove import Proof
from reservelab.solve.trace import Moment, Story, Wait
from reservelab.solve.walk import Snapshot, ThreadState, Walk

_LANE = (
    "place", "inside", "activity", "reason", "what", "want", "held", "own", "drawn", "claim",
    "locks", "semaphore",
)  # fmt: skip


@dataclass(frozen=True)
class Lanes:
    """The lanes of a story, and what lies between them.

    Parameters
    ----------
    story : Story
        What is shown.
    intervals : DataFrame
        A row for each thread and interval, sorted: ``thread`` (number), ``name``, ``start`` and
        ``end`` (first state, and the one after the last), ``place`` (``touch``, ``enter``, a step
        of the program such as ``lock journal``, ``exit``, ``idle``, ``done``), ``inside`` (in a
        section), ``activity`` (``running``: its next step may fire, ``waiting``: it may not,
        ``asleep``, ``idle``, ``done``), ``reason`` (of `reservelab.model.pack.REASONS`, empty
        unless it waits or sleeps), ``what`` (the same in words), ``want`` (pages still wanted by
        its alloc), ``held``, ``own``, ``drawn`` and ``claim`` (pages), ``locks`` (owned, joined by
        commas), ``semaphore`` (owned).
    steps : DataFrame
        A row for each state: what `Story.frame` has, and ``bios`` and ``bio_pages`` (outstanding:
        in flight, queued or in a loop worker's hands, and the pages they carry).
    hand_overs : DataFrame
        A row for each sleeper that was handed what it slept on: ``step``, ``giver``, ``taker``
        (numbers), ``what`` (``the semaphore``, ``lock journal``).
    waits : DataFrame
        The wait-for graph of every state, a row for each edge: ``step``, ``waiter``, ``has``,
        ``what``, ``holder`` (names of threads and bios; no holder where nobody has what would be
        enough).
    closed : int
        The first state from which every edge of the cycle stands to the end; -1 where there is no
        cycle.
    """

    story: Story
    intervals: pd.DataFrame
    steps: pd.DataFrame
    hand_overs: pd.DataFrame
    waits: pd.DataFrame
    closed: int

    @property
    def states(self) -> int:
        """Number of states, the start among them."""
        return len(self.steps)

    def at(self, step: int) -> pd.DataFrame:
        """What every thread does and has in one state.

        Parameters
        ----------
        step : int
            The state's number.

        Returns
        -------
        DataFrame
            The rows of `intervals` that hold it, one for each thread.
        """
        here = (self.intervals["start"] <= step) & (step < self.intervals["end"])
        return self.intervals[here].reset_index(drop=True)


def lanes(told: Story | Proof) -> Lanes:
    """Cut a story, or the shortest path into trouble that a proof found, into lanes.

    Parameters
    ----------
    told : Story or Proof
        What `trace` or `prove` returned.

    Returns
    -------
    Lanes
        Tidy frames.

    Raises
    ------
    BadInput
        If it is a certificate: there is no path to show.
    """
    if isinstance(told, Proof):
        if told.story is None:
            wrong, right = "is a certificate: it has no path into a deadlock", "give another one"
            raise BadInput("proof", wrong, right)
        told = told.story
    reader = _Reader(told.scenario)
    cut: list[dict[str, Any]] = []
    current: list[dict[str, Any]] = []
    bios: list[tuple[int, int]] = []
    handed: list[dict[str, Any]] = []
    waits: list[dict[str, Any]] = []
    standing: list[bool] = []
    before: Snapshot | None = None
    for moment in told.moments():
        step, state = moment.event.step, moment.state
        for i, row in enumerate(reader.rows(moment)):
            if step and all(current[i][key] == row[key] for key in _LANE):
                continue
            if step:
                cut.append(current[i] | {"end": step})
                current[i] = {"start": step} | row
            else:
                current.append({"start": 0} | row)
        if before is not None:
            handed += reader.hand_overs(moment, before)
        outstanding = reader.bios(state)
        bios.append((len(outstanding), sum(outstanding)))
        waits += [
            {"step": step, "waiter": w.waiter, "has": w.has, "what": w.what, "holder": holder}
            for w in moment.waits
            for holder in w.holders or ("",)
        ]
        standing.append(_stands(told.cycle, moment.waits))
        before = state
    cut += [row | {"end": len(standing)} for row in current]
    columns = ["thread", "name", "start", "end", *_LANE]
    intervals = pd.DataFrame(cut)[columns].sort_values(["thread", "start"], ignore_index=True)
    steps = told.frame().assign(
        bios=[number for number, _ in bios], bio_pages=[pages for _, pages in bios]
    )
    closed = NOBODY
    if told.cycle:
        closed = max((k + 1 for k, stands in enumerate(standing) if not stands), default=0)
    return Lanes(
        story=told,
        intervals=intervals,
        steps=steps,
        hand_overs=pd.DataFrame(handed, columns=["step", "giver", "taker", "what"]),
        waits=pd.DataFrame(waits, columns=["step", "waiter", "has", "what", "holder"]),
        closed=closed,
    )


def _stands(cycle: Sequence[Wait], waits: Sequence[Wait]) -> bool:
    """Whether every edge of a cycle is one of the waits."""
    edges = {(wait.waiter, wait.what, holder) for wait in waits for holder in wait.holders}
    return all((wait.waiter, wait.what, wait.holders[0]) in edges for wait in cycle)


class _Reader:
    """Reads the parts of a state that belong to one thread."""

    def __init__(self, scenario: Scenario) -> None:
        walk = Walk(scenario)
        self.names, self.mount_of = walk.names, walk.mount_of
        self.programs = [scenario.mounts[m].filesystem.program for m in walk.mount_of]

    def rows(self, moment: Moment) -> Iterator[dict[str, Any]]:
        """What each thread does and has."""
        waits = {wait.waiter: wait for wait in moment.waits}
        state = moment.state
        for i, thread in enumerate(state.threads):
            wait = waits.get(self.names[i])
            yield {
                "thread": i,
                "name": self.names[i],
                "place": self.place(i, thread),
                "inside": isinstance(thread.place, int) or thread.place == "exit",
                "activity": _activity(thread, i in moment.waiting),
                "reason": moment.waiting.get(i, ""),
                "what": wait.what if wait else "",
                "want": thread.want,
                "held": thread.held,
                "own": thread.own,
                "drawn": thread.drawn,
                "claim": thread.claim,
                "locks": ", ".join(name for (_, name), owner in state.lock_owners if owner == i),
                "semaphore": state.owner == i,
            }

    def place(self, i: int, thread: ThreadState) -> str:
        """Where a thread stands, in words."""
        at = thread.place
        return at if isinstance(at, str) else str(self.programs[i][at])

    def hand_overs(self, moment: Moment, before: Snapshot) -> Iterator[dict[str, Any]]:
        """Who was woken, by whom, with what."""
        transition = moment.event.transition
        giver = int(transition[1]) if transition[0] == "thread" else NOBODY
        for i, (old, new) in enumerate(zip(before.threads, moment.state.threads, strict=True)):
            if old.asleep and not new.asleep:
                what = "the semaphore" if old.asleep == "semaphore" else self.place(i, old)
                yield {"step": moment.event.step, "giver": giver, "taker": i, "what": what}

    def bios(self, state: Snapshot) -> list[int]:
        """The pages of every outstanding bio, carried ones too."""
        todo = [bio for bios in state.in_flight + state.queued for bio in bios]
        todo += [bio for bio in state.carried if bio is not None]
        found = []
        while todo:
            bio = todo.pop()
            found.append(bio.pages)
            if bio.carries is not None:
                todo.append(bio.carries)
        return found


def _activity(thread: ThreadState, waits: bool) -> str:
    if thread.place in ("idle", "done"):
        return str(thread.place)
    if thread.asleep:
        return "asleep"
    return "waiting" if waits else "running"
