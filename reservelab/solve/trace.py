"""One episode by its address, told step by step.

The stream, the draws and the rules are those of `simulate`: its compiled functions are called one
event at a time, and what fired is read off the states before and after.
"""

from __future__ import annotations

import bisect
import html
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from reservelab.model import pack as p
from reservelab.model.errors import whole_number
from reservelab.model.plain_text import WIDTH, wrap
from reservelab.model.scenario import RULES_VERSION, Scenario
from reservelab.solve import rules
from reservelab.solve.simulate import (
    Batches,
    default_event_limit,
    draw_pending,
    fire_drawn,
    weigh,
)
from reservelab.solve.stream import next_uniform, open_stream, stream_key
from reservelab.solve.walk import Bio, Snapshot, ThreadState, Transition, Walk

Ending = Literal["completed", "deadlocked", "unfinished"]
_Advance = Callable[[], int]  # fires one event; returns the thread that fired, or NOBODY
_WAITING = ("waiting_entry", "waiting_pages", "waiting_semaphore", "waiting_locks")


@dataclass(frozen=True)
class Event:
    """Something that happened, and the state it left.

    Parameters
    ----------
    step : int
        Its number; 0 is the start.
    time : float
        When: the expected time spent in all the states before it, in mean steps of one thread.
    transition : tuple
        ``("thread", i)``, ``("complete", bio)``, ``("pick", i, bio)`` or ``("kill",)``; empty at
        the start.
    text : str
        What happened, in words.
    free, dirty : int
        Free and dirty pages after it.
    pool : int
        Pages in the scheme's pools after it.
    owner : int
        The thread that owns the semaphore after it, -1 if nobody does.
    inside : int
        Threads inside a section after it.
    idle : int
        Pages of the reserve that lie idle after it.
    waiting_entry, waiting_pages, waiting_semaphore, waiting_locks : int
        Threads waiting after it.
    """

    step: int
    time: float
    transition: Transition
    text: str
    free: int
    dirty: int
    pool: int
    owner: int
    inside: int
    idle: int
    waiting_entry: int
    waiting_pages: int
    waiting_semaphore: int
    waiting_locks: int


class Wait(NamedTuple):
    """A thread or bio that cannot go on: what it has, what it waits for, and who could give it.

    Parameters
    ----------
    waiter : str
        Its name.
    has : str
        What it keeps from others; empty if nothing.
    what : str
        What it waits for.
    holders : tuple of str
        Names; nobody where what there is can never be enough.
    """

    waiter: str
    has: str
    what: str
    holders: tuple[str, ...]


class Moment(NamedTuple):
    """A state of a story, whole.

    Parameters
    ----------
    event : Event
        What led to it; the start's own where nothing did.
    state : Snapshot
        The state.
    waiting : dict
        What each thread whose next step is not enabled waits for: its number, and one of
        `reservelab.model.pack.REASONS`.
    waits : tuple of Wait
        The wait-for graph: these threads, and the bios that cannot move.
    """

    event: Event
    state: Snapshot
    waiting: dict[int, str]
    waits: tuple[Wait, ...]


@dataclass(frozen=True)
class Story:
    """One episode, told.

    Parameters
    ----------
    scenario : Scenario
        What was run.
    seed, episode : int or None
        The address; None for a path that was not drawn by chance.
    event_limit : int
        Events after which it is stopped.
    threads : tuple of str
        Names of the threads, loop workers last.
    start : Event
        The state before the first event.
    events : tuple of Event
        What happened, in order.
    ending : str
        ``completed``, ``deadlocked`` or ``unfinished``.
    reasons : tuple of str
        What the stuck threads and bios of a deadlock wait for, of
        `reservelab.model.pack.REASONS`.
    waits : tuple of Wait
        Who of a deadlock waits for what, held by whom.
    cycle : tuple of Wait
        A shortest cycle of these, one holder each; empty where there is none.
    writepages, redirtied, oom_kills : int
        How many there were.
    again : callable
        Makes a walk at the start, and what advances it by an event; `moments` calls it. Not part of
        the value.
    """

    scenario: Scenario
    seed: int | None
    episode: int | None
    event_limit: int
    threads: tuple[str, ...]
    start: Event
    events: tuple[Event, ...]
    ending: Ending
    reasons: tuple[str, ...]
    waits: tuple[Wait, ...]
    cycle: tuple[Wait, ...]
    writepages: int
    redirtied: int
    oom_kills: int
    again: Callable[[], tuple[Walk, _Advance]] = field(repr=False, compare=False)

    @property
    def duration(self) -> float:
        """Expected time from the start to the end, in mean steps of one thread."""
        return self._states[-1].time

    @property
    def _states(self) -> tuple[Event, ...]:
        return (self.start, *self.events)

    def frame(self) -> pd.DataFrame:
        """The start and the events as a tidy frame.

        Returns
        -------
        DataFrame
            A row for each, the fields of `Event` but for the transition, whose thread's number
            stands in the column ``thread`` (-1 for a completion or a kill).
        """
        columns: dict[str, list[Any]] = {}
        for column in fields(Event):
            if column.name == "transition":
                threads = [_thread_of(event.transition) for event in self._states]
                columns["thread"] = threads
            else:
                columns[column.name] = [getattr(event, column.name) for event in self._states]
        return pd.DataFrame(columns)

    def moments(self) -> Iterator[Moment]:
        """Walk it once more and look at every state whole, the wait-for graph included.

        Yields
        ------
        Moment
            The start, then what each event led to.
        """
        walk, advance = self.again()
        teller = _Teller(walk)
        for event in self._states:
            if event.step:
                advance()
            yield Moment(event, walk.snapshot(), walk.waiting(), tuple(teller.waits(walk)))

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        columns = self._columns()
        heads = "".join(f"<th>{name}</th>" for name, _ in columns)
        rows = []
        for k, event in enumerate(self._states):
            numbers = "".join(f"<td>{cells[k]}</td>" for _, cells in columns)
            text = f'<td style="text-align:left">{html.escape(event.text)}</td>'
            rows.append(f"<tr>{numbers}{text}</tr>")
        end = "<br>".join(html.escape(line) for line in self._end())
        return (
            f"<table><caption>{html.escape(self._title())}</caption>"
            f"<tr>{heads}<th></th></tr>{''.join(rows)}</table><p>{end}</p>"
        )

    def _title(self) -> str:
        which = f": seed {self.seed}, episode {self.episode}" if self.seed is not None else ""
        return f"{self.scenario.scheme.variant}, {self.scenario.waiting}{which}"

    def _columns(self) -> list[tuple[str, list[str]]]:
        """The columns of numbers before the text: those that say something in this scenario."""
        shown = [
            ("step", [str(event.step) for event in self._states]),
            ("time", [f"{event.time:.2f}" for event in self._states]),
            ("free", [str(event.free) for event in self._states]),
        ]
        if any(mount.dirtiers for mount in self.scenario.mounts):
            shown.append(("dirty", [str(event.dirty) for event in self._states]))
        if self.scenario.scheme.start in ("pool", "mount_pools"):
            shown.append(("pool", [str(event.pool) for event in self._states]))
        if "global_pool" in self.scenario.scheme.grants:
            owners = ["-" if event.owner < 0 else str(event.owner) for event in self._states]
            shown.append(("owner", owners))
        return shown

    def _lines(self) -> Iterator[str]:
        scenario = self.scenario
        yield from wrap(self._title(), "  ")
        yield (
            f"{_many(scenario.threads, 'thread')}, {_pages(scenario.machine.pages)}, reserve"
            f" {scenario.reserve}; scenario {scenario.digest[:16]}, rules {RULES_VERSION}"
        )
        yield from wrap(_legend(self.threads), "  ")
        yield ""
        columns = self._columns()
        widths = [max(len(name), *map(len, cells)) for name, cells in columns]
        indent = sum(widths) + len(widths) + 1
        yield " ".join(name.rjust(w) for (name, _), w in zip(columns, widths, strict=True))
        for k, event in enumerate(self._states):
            cells = [cells[k].rjust(w) for (_, cells), w in zip(columns, widths, strict=True)]
            # A machine of a billion pages leaves little room; a word is then cut in two.
            text = f"{' '.join(cells)}  {event.text}"
            yield from wrap(text, " " * indent, max(WIDTH, indent + 20))
        yield ""
        yield from self._end()

    def _end(self) -> Iterator[str]:
        events = _many(len(self.events), "event")
        for_what = f", waiting for {', '.join(self.reasons)}" if self.reasons else ""
        for_what += f"; {_many(self.writepages, 'writepage')}"
        limit = f" (event limit {self.event_limit})" if self.ending == "unfinished" else ""
        told = f"{self.ending} at {self.duration:.2f} after {events}{limit}{for_what}"
        if self.redirtied:
            told += f", {self.redirtied} redirtied"
        if self.oom_kills:
            told += f", {_many(self.oom_kills, 'OOM kill')}"
        yield from wrap(told, "  ")
        if self.waits:
            yield ""
            yield "who is stuck:"
            for wait in self.waits:
                has = f" has {wait.has}," if wait.has else ""
                yield from wrap(f"  {wait.waiter}{has} waits for {wait.what}", "      ")
        if self.cycle:
            yield ""
            yield "the wait-for cycle:"
            for wait in self.cycle:
                yield from wrap(f"  {wait.waiter} -> {wait.what} -> {wait.holders[0]}", "      ")
        elif self.waits:
            yield ""
            yield "no cycle: nobody holds what would be enough"


def trace(
    scenario: Scenario, seed: int = 1, episode: int = 0, event_limit: int | None = None
) -> Story:
    """Replay one episode that `simulate` ran, or would run, and tell it.

    Parameters
    ----------
    scenario : Scenario
        What to run.
    seed : int
        The seed.
    episode : int
        The episode's number, from 0.
    event_limit : int, optional
        Events after which it is stopped as unfinished; `default_event_limit` unless given.

    Returns
    -------
    Story
        What happened.

    Raises
    ------
    BadInput
        If a number is out of range.
    """
    seed, episode = whole_number("seed", seed), whole_number("episode", episode)
    limit = default_event_limit(scenario) if event_limit is None else event_limit
    limit = whole_number("event_limit", limit, 1)
    story, bios = None, None
    while story is None:  # bios of no pages: there can be more than a `Walk` makes room for
        again = partial(_by_chance, scenario, bios, seed, episode)
        try:
            story = _told(again, limit, seed, episode)
        except _NoRoom:
            bios = p.bios_at_most(scenario)
    return story


def next_deadlock(
    scenario: Scenario, seed: int = 1, first: int = 0, episodes: int = 100_000
) -> int | None:
    """Find an episode worth telling: the next that ends in a deadlock.

    Parameters
    ----------
    scenario : Scenario
        What to run.
    seed : int
        The seed.
    first : int
        The first episode looked at.
    episodes : int
        How many to look at.

    Returns
    -------
    int or None
        Its number for `trace`; None if none of them deadlocks.

    Raises
    ------
    BadInput
        If a number is out of range.
    """
    first, episodes = whole_number("first", first), whole_number("episodes", episodes)
    batches = Batches(scenario, seed)
    size, end = batches.size, first + episodes
    for batch in range(first // size, -(-end // size)):
        start, stop = max(first - batch * size, 0), min(end - batch * size, size)
        before = batches.run(batch, start).deadlocks if start else 0
        if batches.run(batch, stop).deadlocks == before:
            continue
        # The fewest episodes of the batch with a deadlock more than those before the first.
        few = bisect.bisect_left(
            range(start, stop + 1), True, key=lambda n: batches.run(batch, n).deadlocks > before
        )
        return batch * size + start + few - 1
    return None


def tell_path(walk: Walk, steps: Sequence[tuple[Transition, Sequence[int]]]) -> Story:
    """Tell a path through the states that somebody else has chosen.

    Parameters
    ----------
    walk : Walk
        At the start; it stays there.
    steps : sequence of (transition, sequence of int)
        What fires, and the numbers drawn on it.

    Returns
    -------
    Story
        Without an address, since no stream was drawn from.
    """
    return _told(partial(_by_script, walk.copy(), tuple(steps)), len(steps), None, None)


def _by_script(
    start: Walk, steps: Sequence[tuple[Transition, Sequence[int]]]
) -> tuple[Walk, _Advance]:
    """A walk along a given path."""
    walk, script = start.copy(), iter(steps)

    def advance() -> int:
        transition, drawn = next(script)
        numbers = iter(drawn)
        walk.fire(transition, lambda i, step: next(numbers))  # noqa: ARG005
        return p.NOBODY if transition[0] in ("complete", "kill") else int(transition[1])

    return walk, advance


def _by_chance(
    scenario: Scenario, bios: int | None, seed: int, episode: int
) -> tuple[Walk, _Advance]:
    """A walk that draws from the stream of an episode."""
    walk = Walk(scenario, bios)
    t, f, s = walk.tables.t, walk.tables.f, walk.state
    weights = np.zeros(int(t[p.H_CONDITIONAL]) + len(scenario.mounts))
    words = np.zeros(4, dtype=np.uint64)
    key: Any = np.uint64(stream_key(RULES_VERSION, scenario.digest, seed))
    open_stream(words, key, episode)

    def advance() -> int:
        total = weigh(t, f, s, weights)[0] or 1.0  # nothing but a kill, which has rate 1
        i = int(fire_drawn(t, s, weights, next_uniform(words) * total))
        if s[p.S_OVERFLOW] != 0:
            raise _NoRoom
        draw_pending(t, f, s, words)
        rules.regroup(t, s, i)
        return i

    return walk, advance


class _NoRoom(Exception):
    """There was no room for a bio."""


def _told(
    again: Callable[[], tuple[Walk, _Advance]],
    limit: int,
    seed: int | None,
    episode: int | None,
) -> Story:
    """Tell what happens from the walk's state on while one event after another fires."""
    walk, advance = again()
    scenario, s = walk.scenario, walk.state
    t, f = walk.tables.t, walk.tables.f
    weights = np.zeros(int(t[p.H_CONDITIONAL]) + len(scenario.mounts))
    teller = _Teller(walk)
    told: list[Event] = []
    time, text = 0.0, "the start"
    ending: Ending
    transition: Transition = ()
    after = walk.snapshot()
    while True:
        total, *waiting = weigh(t, f, s, weights)
        told.append(
            Event(
                step=len(told),
                time=time,
                transition=transition,
                text=text,
                free=after.free,
                dirty=after.dirty,
                pool=after.pool + sum(after.mount_pools),
                owner=after.owner,
                inside=int(s[p.S_INSIDE]),
                idle=int(s[p.S_ASIDE]) + min(int(t[p.H_MARK]), after.free),
                **dict(zip(_WAITING, map(int, waiting), strict=True)),
            )
        )
        if total == 0.0:
            if walk.completed:
                ending = "completed"
                break
            if after.kills == 0:
                ending = "deadlocked"
                break
            total = 1.0
        if len(told) - 1 == limit:
            ending = "unfinished"
            break
        time += 1.0 / total
        before = after
        i = advance()
        after = walk.snapshot()
        transition = _fired(i, before, after)
        text = teller.tell(transition, before, after)
    dead = ending == "deadlocked"
    waits = teller.waits(walk) if dead else []
    stuck = walk.stuck() if dead else set()
    return Story(
        scenario=scenario,
        seed=seed,
        episode=episode,
        event_limit=limit,
        threads=tuple(teller.names),
        start=told[0],
        events=tuple(told[1:]),
        ending=ending,
        reasons=tuple(reason for reason in p.REASONS if reason in stuck),
        waits=tuple(waits),
        cycle=tuple(_shortest_cycle(waits)),
        writepages=int(s[p.S_WRITEPAGES]),
        redirtied=int(s[p.S_REDIRTIED]),
        oom_kills=scenario.machine.oom_kills - after.kills,
        again=again,
    )


def _fired(i: int, before: Snapshot, after: Snapshot) -> Transition:
    """Which transition led from one state to the next, `i` being the thread that fired, if any."""
    if i != p.NOBODY:
        if before.threads[i].place != "idle":
            return ("thread", i)
        ((bio, _),) = _gone(before.queued, after.queued).items()
        return ("pick", i, bio)
    if before.kills != after.kills:
        return ("kill",)
    ((bio, _),) = _gone(before.in_flight, after.in_flight).items()
    return ("complete", bio)


def _gone(before: Sequence[Sequence[Bio]], after: Sequence[Sequence[Bio]]) -> Counter[Bio]:
    return Counter(bio for bios in before for bio in bios) - Counter(
        bio for bios in after for bio in bios
    )


class _Teller:
    """Puts what happened, and what a deadlock waits for, into words."""

    def __init__(self, walk: Walk) -> None:
        self.scenario = walk.scenario
        self.names = walk.names
        self.mount_of = walk.mount_of
        self.serves = walk.serves
        self.cleans = [kind == p.DIRTIER for kind in walk.kinds]

    # --- what happened ---------------------------------------------------------------------------

    def tell(self, transition: Transition, before: Snapshot, after: Snapshot) -> str:
        """One transition, and whom it woke."""
        match transition:
            case ("thread", int(i)):
                text = f"{self.names[i]} {self._step(i, before, after)}"
            case ("pick", int(i), bio):
                text = f"{self.names[i]} takes up {self._bio(bio)}"
            case ("complete", bio):
                gains = {
                    "free": after.free - before.free,
                    "to the pool": after.pool - before.pool,
                    "to mounts' pools": sum(after.mount_pools) - sum(before.mount_pools),
                    "to its reserve": sum(t.own for t in after.threads)
                    - sum(t.own for t in before.threads),
                }
                back = ", ".join(f"{n} {where}" for where, n in gains.items() if n) or "no page"
                text = f"{self._bio(bio)} done: {back}"
            case _:
                text = f"the OOM killer frees {_pages(after.free - before.free)}"
        for j, (old, new) in enumerate(zip(before.threads, after.threads, strict=True)):
            if old.asleep and not new.asleep:
                with_page = " with a pool page" if new.held > old.held else ""
                text += f"; {self.names[j]} wakes{with_page}"
        return text

    def _step(self, i: int, before: Snapshot, after: Snapshot) -> str:
        old, new = before.threads[i], after.threads[i]
        if new.asleep:
            return self._falls_asleep(i, new, after)
        match old.place:
            case "touch":
                if after.dirty > before.dirty:
                    return "dirties a page" + (", its last" if new.place == "done" else "")
                return "reclaims a dirty page"
            case "enter":
                return self._enters(i, new, before, after)
            case "exit":
                return self._exits(i, new, before, after)
            case int(step):
                return self._runs(i, step, before, after)
        raise AssertionError(f"a thread at {old.place} fired")

    def _falls_asleep(self, i: int, new: ThreadState, after: Snapshot) -> str:
        if new.asleep == "own":
            return "sleeps on the semaphore it owns itself"
        if new.asleep == "semaphore":
            return f"sleeps on the semaphore of {self.names[after.owner]}"
        name = self._program(i)[_number(new.place)].lock
        owner = dict(after.lock_owners)[self.mount_of[i], name]
        return f"sleeps on lock {name} of {self.names[owner]}"

    def _enters(self, i: int, new: ThreadState, before: Snapshot, after: Snapshot) -> str:
        old = before.threads[i]
        words = []
        if new.own > old.own:
            need = self.scenario.mounts[self.mount_of[i]].filesystem.nr_pages
            taken = str(new.own) if new.own == old.own + 1 else f"{old.own + 1}-{new.own}"
            words.append(f"reserves page {taken}/{need}")
        if new.claim > old.claim:
            words.append(f"claims {_pages(new.claim)}")
        if after.owner == i:
            words.append("takes the semaphore")
        if new.place != "enter":
            words.append("enters")
        return _and(words)

    def _exits(self, i: int, new: ThreadState, before: Snapshot, after: Snapshot) -> str:
        old = before.threads[i]
        words = []
        if new.drawn < old.drawn:
            left = f" ({new.drawn} to go)" if new.drawn else ""
            words.append(f"refills the pool{left}")
        if new.own < old.own:
            words.append(f"frees {_pages(old.own)}")
        if new.claim < old.claim:
            words.append(f"unclaims {_pages(old.claim)}")
        if new.place != "exit":
            done = {"done": " and is done", "idle": " and is idle"}.get(str(new.place), "")
            words.append("leaves" + done)
        if before.owner == i != after.owner:
            words.append("drops the semaphore")
        return ", ".join(words)

    def _runs(self, i: int, at: int, before: Snapshot, after: Snapshot) -> str:
        old, new = before.threads[i], after.threads[i]
        step = self._program(i)[at]
        match step.verb:
            case "lock":
                return f"takes lock {step.lock}"
            case "unlock":
                return f"drops lock {step.lock}"
            case "wait":
                return "has no bio outstanding and goes on"
            case "submit":
                carried = before.carried[i - len(self.names)] if self.serves[i] >= 0 else None
                text = f"submits {_pages(old.held)}"
                if old.drawn > new.drawn:
                    text += f", {old.drawn} drawn"
                return text + (f", carrying {self._bio(carried)}" if carried else "")
        if new.held > old.held:
            sources = {
                "free": before.free > after.free,
                "pool": before.pool > after.pool,
                "own": old.own > new.own,
                "claimed": old.claim > new.claim,
            }
            source = next((name for name, used in sources.items() if used), "mount's pool")
            semaphore = "the semaphore, " if before.owner != i == after.owner else ""
            # What is wanted now may be what the next alloc wants.
            return f"takes {semaphore}{source} page {new.held}/{old.held + old.want}"
        if after.owner == i != before.owner:
            return "takes the semaphore; the pool is empty"
        return f"backs out, frees {_pages(old.held)}"

    # --- who waits for whom ----------------------------------------------------------------------

    def waits(self, walk: Walk) -> list[Wait]:
        """Every thread and bio of a state that cannot go on; in a deadlock those are all."""
        state = walk.snapshot()
        holders = _Holders(self, state)
        enabled = {transition for transition, _ in walk.transitions()}
        found = []
        for i in walk.waiting():
            thread = state.threads[i]
            what = self._wait(i, thread, state, holders)
            found.append(Wait(self.names[i], self._has(i, thread, state), *what))
        for m, bios in enumerate(state.in_flight):
            device = self.scenario.mounts[m].device
            if device is not None:
                what = f"{_pages(device.completion_pages)} free to complete", holders.pages
                stuck = [bio for bio in bios if ("complete", bio) not in enabled]
                found += [Wait(self._bio(bio), _pages(bio.pages), *what) for bio in stuck]
        workers = {serves: i for i, serves in enumerate(self.serves) if serves >= 0}
        for m, bios in enumerate(state.queued):
            for bio in bios:
                if ("pick", workers[m], bio) not in enabled:
                    what = "a loop worker", (self.names[workers[m]],)
                    found.append(Wait(self._bio(bio), _pages(bio.pages), *what))
        for worker, carried in zip(workers.values(), state.carried, strict=True):
            if carried is not None:
                what = "its loop worker", (self.names[worker],)
                found.append(Wait(self._bio(carried), _pages(carried.pages), *what))
        return list(dict.fromkeys(found))

    def _has(self, i: int, thread: ThreadState, state: Snapshot) -> str:
        """What a waiting thread keeps from others."""
        counts = {"held": thread.held, "own": thread.own, "claimed": thread.claim}
        has = [f"{_pages(number)} {what}" for what, number in counts.items() if number]
        has += ["the page it cleans"] * self.is_cleaning(i, thread.place)
        has += [f"lock {name}" for (_, name), owner in state.lock_owners if owner == i]
        return ", ".join(has + ["the semaphore"] * (state.owner == i))

    def is_cleaning(self, i: int, place: int | str) -> bool:
        """Whether a dirtier has a dirty page in its hands, which no bio carries yet."""
        verbs = [step.verb for step in self._program(i)]
        before_submit = isinstance(place, int) and place <= verbs.index("submit")
        return self.cleans[i] and (before_submit or place == "enter")

    def _wait(
        self, i: int, thread: ThreadState, state: Snapshot, holders: _Holders
    ) -> tuple[str, tuple[str, ...]]:
        """What a waiting thread waits for, and who holds it."""
        scheme = self.scenario.scheme
        owner = () if state.owner == p.NOBODY else (self.names[state.owner],)
        if thread.asleep == "own":
            return "the semaphore it owns itself", owner
        others_own = state.owner not in (p.NOBODY, i)
        need = self.scenario.mounts[self.mount_of[i]].filesystem.nr_pages
        match thread.place:
            case "touch":
                return "a free page", holders.pages
            case "exit" if scheme.exit == "wait_full":
                return "a full pool", holders.drawn
            case "exit":
                return "a free page to refill with", holders.pages
            case "enter" if scheme.max_sections is not None and len(holders.inside) >= (
                scheme.max_sections
            ):
                return f"one of {scheme.max_sections} places inside", holders.inside
            case "enter":
                return {
                    "half_mark": ("pages above half the mark", holders.pages),
                    "own_by_page": ("a free page to reserve", holders.pages),
                    "own_at_once": (f"{_pages(need)} free at once", holders.pages),
                    "own_full": ("its own pages", holders.bios_of(i)),
                    "tickets": (f"a claim of {_pages(need)}", holders.drawn),
                    "semaphore": ("the semaphore", owner),
                }[scheme.entry]
            case int(at):
                step = self._program(i)[at]
                if step.verb == "lock":
                    lock = (self.mount_of[i], step.lock)
                    return f"lock {step.lock}", (self.names[dict(state.lock_owners)[lock]],)
                if step.verb == "wait":
                    return "its own bio", holders.bios_of(i)
                if "global_pool" in scheme.grants and others_own:
                    return "the semaphore", owner
        return "a free page", holders.pages

    # --- words -----------------------------------------------------------------------------------

    def _program(self, i: int) -> tuple[Any, ...]:
        return self.scenario.mounts[self.mount_of[i]].filesystem.program

    def _bio(self, bio: Bio) -> str:
        name = f"bio of {self.names[bio.owner]}"
        return name if bio.carries is None else f"{name} with {self._bio(bio.carries)}"


class _Holders:
    """Who holds what others wait for, in a state."""

    def __init__(self, teller: _Teller, state: Snapshot) -> None:
        threads = list(zip(teller.names, state.threads, strict=True))
        gives_back = teller.scenario.scheme.exit == "give_back"
        self._bios = [bio for bios in state.in_flight + state.queued for bio in bios]
        self._bios += [bio for bio in state.carried if bio is not None]
        self._name = teller._bio
        self.inside = tuple(
            name for name, t in threads if t.place not in ("touch", "enter", "idle", "done")
        )
        # Pages that would become free: those held, own ones that exit gives back, those of bios and
        # those that dirtiers clean.
        self.pages = tuple(
            name
            for i, (name, t) in enumerate(threads)
            if t.held or (gives_back and t.own) or teller.is_cleaning(i, t.place)
        ) + self._named(lambda bio: bio.pages > 0 or teller.cleans[bio.owner])
        self.drawn = tuple(name for name, t in threads if t.claim or t.drawn) + self._named(
            lambda bio: bio.drawn > 0
        )

    def bios_of(self, i: int) -> tuple[str, ...]:
        return self._named(lambda bio: bio.owner == i)

    def _named(self, wanted: Callable[[Bio], bool]) -> tuple[str, ...]:
        """Names of the bios of which one, or one it carries, is wanted."""
        found = []
        for bio in self._bios:
            inner: Bio | None = bio
            while inner is not None and not wanted(inner):
                inner = inner.carries
            if inner is not None:
                found.append(self._name(bio))
        return tuple(dict.fromkeys(found))


def _shortest_cycle(waits: Sequence[Wait]) -> list[Wait]:
    """A shortest cycle of waits, one holder each; that of a waiter with itself only if no other."""
    by_waiter = {wait.waiter: wait for wait in waits}
    best: list[Wait] = []
    for start in waits:
        if start.waiter in start.holders and not best:
            best = [start._replace(holders=(start.waiter,))]
    loops = best
    for start in waits:
        reached: dict[str, Wait] = {}  # a waiter, and the wait that led to it
        todo = deque([start])
        while todo and start.waiter not in reached:
            wait = todo.popleft()
            for holder in wait.holders:
                if holder != wait.waiter and holder not in reached and holder in by_waiter:
                    reached[holder] = wait._replace(holders=(holder,))
                    todo.append(by_waiter[holder])
        if start.waiter not in reached:
            continue
        cycle = [reached[start.waiter]]
        while cycle[0].waiter != start.waiter:
            cycle.insert(0, reached[cycle[0].waiter])
        if best is loops or len(cycle) < len(best):
            best = cycle
        if len(best) == 2:
            break
    return best


def _thread_of(transition: Transition) -> int:
    return transition[1] if transition and transition[0] in ("thread", "pick") else p.NOBODY


def _number(place: int | str) -> int:
    if not isinstance(place, int):
        raise AssertionError(f"{place} is not a step of a program")
    return place


def _pages(number: int) -> str:
    return _many(number, "page")


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


def _legend(names: Sequence[str]) -> str:
    """Which thread has which number: ``threads 0-2 ext3/0 flusher 0-2, 3 ext3/0 dirtier 0``."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for i, name in enumerate(names):
        kind, _, number = name.rpartition(" ")
        kind, number = (kind, number) if number.isdigit() else (name, "")
        groups.setdefault(kind, []).append((i, number))
    parts = []
    for kind, members in groups.items():
        (first, low), (last, high) = members[0], members[-1]
        parts.append(
            f"{first}-{last} {kind} {low}-{high}" if last > first else f"{first} {kind} {low}"
        )
    return "threads " + ", ".join(part.rstrip() for part in parts)
