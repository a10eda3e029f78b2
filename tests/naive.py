"""The rules of the model, version 1, written a second time: plain, slow, meant to be read.

This is the oracle the package is held against.  It was written from the text of the rules alone
and imports nothing of the package; section numbers below are the text's.  One class holds a state
as ordinary Python objects; a rule is a guard, which names the effect that would follow, and that
effect.

- `Naive(scenario)` is a state: what may happen (`choices`), let it happen (`fire`), and the whole
  of it as plain tuples (`snapshot`).
- `enumerate_chain` and `solve` make and solve the whole Markov chain.
- `draw_scenario` draws a small random scenario over the whole space of rules.
- `generate_cases` draws and solves; tests/cases/own.json was made, from the repository's root, by

      python tests/naive.py --cases 200 --seed 1 --out tests/cases/own.json

A scenario is a dict with the keys of section 9.  Numbering: threads mount by mount, flushers before
dirtiers; after them one loop worker for each stacked mount, in mount order.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

Scenario = dict[str, Any]
Transition = tuple[Any, ...]
"""("thread", i) | ("complete", bio) | ("pick", worker's thread number, bio) | ("kill",)"""
Draw = Callable[[int, int], int]
"""(thread, step index) -> the number a random alloc wants."""


class Bio(NamedTuple):
    """Section 2: how many pages it carries, how many of them were drawn, whose it is."""

    mount: int
    owner: int
    pages: int
    drawn: int
    carries: Bio | None  # the upper bio a loop worker's bio carries (section 6)


class Snapshot(NamedTuple):
    """The whole state as plain tuples, hashable; `lock_*` are keyed by (mount, name), sorted."""

    free: int
    dirty: int
    pool: int
    mount_pools: tuple[int, ...]  # zeros but under mempool
    owner: int  # of the semaphore; -1 is nobody
    lock_owners: tuple[tuple[tuple[int, str], int], ...]
    semaphore_queue: tuple[int, ...]
    lock_queues: tuple[tuple[tuple[int, str], tuple[int, ...]], ...]
    kills: int
    threads: tuple[tuple[Any, ...], ...]  # (place, asleep, want, held, own, drawn, claim, quota)
    in_flight: tuple[tuple[Bio, ...], ...]  # per mount, sorted
    queued: tuple[tuple[Bio, ...], ...]  # per mount, sorted
    carried: tuple[Bio | None, ...]  # per loop worker


@dataclass
class Thread:
    """A flusher, a dirtier or a loop worker, and how far it has come."""

    number: int
    kind: str  # "flusher", "dirtier", "worker"
    mount: int  # whose program it runs, whose locks and pool it uses
    place: str | int  # "touch", "enter", a step's index, "exit", "idle", "done"
    quota: int
    serves: int = -1  # the stacked mount whose queue a loop worker empties
    asleep: str = ""  # "", "semaphore", "lock", "own"
    want: int = 0
    held: int = 0
    own: int = 0
    drawn: int = 0
    claim: int = 0
    carried: Bio | None = None

    @property
    def inside(self) -> bool:
        """Whether it is in a section: after its enter and before its exit (section 3)."""
        return self.place not in ("touch", "enter", "idle", "done")


class Naive:
    """One state of one episode; `fire` changes it in place."""

    def __init__(self, scenario: Scenario) -> None:
        self.rules = scenario
        self.scheme: str = scenario["scheme"]
        self.mounts: list[dict[str, Any]] = scenario["mounts"]
        self.sleepers: bool = scenario["waiting"] == "asleep"
        self.reserve: int = scenario["reserve"]
        self.writepages = 0  # counters, not part of the state: sections ended by an exit, ...
        self.redirtied = 0  # ... and by backing out

        self.free: int = scenario["pages"]
        self.dirty: int = scenario["dirty"]
        self.kills: int = scenario["kills"]
        self.pool = self.reserve if self.scheme in ("global", "tickets") else 0
        each = self.reserve if self.scheme == "mempool" else 0
        self.mount_pools = [each for _ in self.mounts]
        self.free -= self.pool + sum(self.mount_pools)

        self.owner = -1
        self.semaphore_queue: list[int] = []
        locks = sorted(
            (m, name)
            for m, mount in enumerate(self.mounts)
            for name in {value for step, value in mount["program"] if step == "lock"}
        )
        self.lock_owners = dict.fromkeys(locks, -1)
        self.lock_queues: dict[tuple[int, str], list[int]] = {lock: [] for lock in locks}
        self.in_flight: list[list[Bio]] = [[] for _ in self.mounts]
        self.queued: list[list[Bio]] = [[] for _ in self.mounts]

        self.threads: list[Thread] = []
        for m, mount in enumerate(self.mounts):
            for kind, place in (("flusher", "enter"), ("dirtier", "touch")):
                for _ in range(mount[kind + "s"]):
                    number = len(self.threads)
                    self.threads.append(Thread(number, kind, m, place, scenario["quota"]))
        for m, mount in enumerate(self.mounts):
            if mount["on"] >= 0:
                number = len(self.threads)
                self.threads.append(Thread(number, "worker", mount["on"], "idle", 0, serves=m))
        if self.scheme == "perthread" and scenario["standing"]:
            for t in self.threads:
                t.own = self.nr_pages(t)
                self.free -= t.own
        if self.free < 0:
            raise ValueError("the reserves are larger than all pages")

    # ---- looking ----------------------------------------------------------------------------

    def nr_pages(self, t: Thread) -> int:
        """What the filesystem it runs declares as the worst case."""
        return int(self.mounts[t.mount]["nr_pages"])

    def step(self, t: Thread) -> tuple[str, Any]:
        """The program step a thread stands at."""
        assert isinstance(t.place, int)
        name, value = self.mounts[t.mount]["program"][t.place]
        return name, value

    @property
    def inside(self) -> int:
        """How many threads are in a section, loop workers included."""
        return sum(t.inside for t in self.threads)

    @property
    def completed(self) -> bool:
        """Section 7: all quotas met, all workers idle, nothing in flight or queued."""
        resting = all(t.place in ("done", "idle") for t in self.threads)
        return resting and not any(self.in_flight) and not any(self.queued)

    @property
    def deadlocked(self) -> bool:
        """Nothing is enabled (so no kill is left) and the episode has not completed."""
        return not self.completed and not self.choices()

    def idle_reserve(self) -> int:
        """Section 5: the waste a scheme is charged with."""
        if self.scheme == "watermark":
            return min(self.free, self.reserve)
        own_and_claims = sum(t.own + t.claim for t in self.threads)
        return self.pool + sum(self.mount_pools) + own_and_claims

    def outstanding(self, number: int) -> bool:
        """Whether a bio of this thread is in flight, queued or carried, at any depth of a stack."""
        bios: list[Bio | None] = [t.carried for t in self.threads]
        for waiting in self.in_flight + self.queued:
            bios += waiting
        for bio in bios:
            inner = bio
            while inner is not None:
                if inner.owner == number:
                    return True
                inner = inner.carries
        return False

    def snapshot(self) -> Snapshot:
        """The whole state; equal snapshots are the same state."""
        return Snapshot(
            self.free,
            self.dirty,
            self.pool,
            tuple(self.mount_pools),
            self.owner,
            tuple(self.lock_owners.items()),
            tuple(self.semaphore_queue),
            tuple((lock, tuple(queue)) for lock, queue in self.lock_queues.items()),
            self.kills,
            tuple(
                (t.place, t.asleep, t.want, t.held, t.own, t.drawn, t.claim, t.quota)
                for t in self.threads
            ),
            tuple(tuple(sorted(bios)) for bios in self.in_flight),
            tuple(tuple(sorted(bios)) for bios in self.queued),
            tuple(t.carried for t in self.threads if t.kind == "worker"),
        )

    def copy(self) -> Naive:
        """An independent state that may be fired without changing this one."""
        twin = copy.copy(self)
        twin.mount_pools = list(self.mount_pools)
        twin.semaphore_queue = list(self.semaphore_queue)
        twin.lock_owners = dict(self.lock_owners)
        twin.lock_queues = {lock: list(queue) for lock, queue in self.lock_queues.items()}
        twin.in_flight = [list(bios) for bios in self.in_flight]
        twin.queued = [list(bios) for bios in self.queued]
        twin.threads = [copy.copy(t) for t in self.threads]
        return twin

    # ---- guards: each names the effect that would follow, "" is "not enabled" -----------------

    def touching(self) -> str:
        """Section 4: a dirtier takes a user page, or reclaims a dirty one itself."""
        low = self.reserve if self.scheme == "watermark" else 0
        if self.free > low:
            return "take"
        return "reclaim" if self.dirty > 0 else ""

    def entering(self, t: Thread) -> str:
        """Section 5, column enter."""
        rules = self.rules
        if self.scheme == "watermark":
            above = self.free > self.reserve / 2 or not rules["throttle"]
            most = rules["max_sections"]
            return "enter" if above and (most == 0 or self.inside < most) else ""
        if self.scheme == "perthread":
            if rules["standing"]:
                return "enter" if t.own == self.nr_pages(t) else ""
            if self.nr_pages(t) == 0:
                return "enter"  # nothing to take, a step all the same
            if rules["whole"]:
                return "take all" if self.free >= self.nr_pages(t) else ""
            return "take one" if self.free > 0 else ""
        if self.scheme == "global" and rules["on_entry"]:
            if self.owner == -1:
                return "own semaphore"
            return "sleep" if self.sleepers else ""
        if self.scheme == "tickets":
            return "claim" if self.pool >= self.nr_pages(t) else ""
        return "enter"

    def granting(self, t: Thread) -> str:
        """Section 5, column alloc: where the next page comes from."""
        if self.scheme == "perthread" and t.own > 0:
            return "own"
        if self.scheme == "tickets" and self.rules["draw"] == "first" and t.claim > 0:
            return "claim"
        if self.free > 0:
            return "free"
        if self.scheme == "tickets" and t.claim > 0:
            return "claim"
        if self.scheme == "mempool" and self.mount_pools[t.mount] > 0:
            return "mount pool"
        if self.scheme == "global":
            if self.owner not in (-1, t.number):
                return "sleep" if self.sleepers else ""
            if self.pool > 0:
                return "pool"
            if self.owner == -1 and self.sleepers:  # R = 0 only: section 3a
                return "own semaphore"
        if self.scheme == "watermark" and self.mounts[t.mount]["backs_out"] and t.kind != "worker":
            return "back out"
        return ""

    def exiting(self, t: Thread) -> str:
        """Section 5, column exit."""
        if self.owner != t.number:
            return "exit"
        if self.rules["refill"] == "completion":
            return "release" if self.pool == self.reserve else ""
        if t.drawn == 0:
            return "release"
        if self.free > 0:
            return "refill"
        return "" if self.rules["clear_flag"] else "sleep for ever"

    def enabled(self, t: Thread) -> str:
        """What a thread's next step would do now; "" if its guard does not hold."""
        if t.asleep or t.place in ("idle", "done"):
            return ""
        if t.place == "touch":
            return self.touching()
        if t.place == "enter":
            return self.entering(t)
        if t.place == "exit":
            return self.exiting(t)
        name, value = self.step(t)
        if name == "alloc":
            return self.granting(t)
        if name == "lock":
            if self.lock_owners[t.mount, value] == -1:
                return "lock"
            return "sleep" if self.sleepers else ""
        if name == "wait":
            return "" if self.outstanding(t.number) else "go on"
        return name  # unlock, submit: no guard

    def choices(self) -> list[tuple[Transition, float]]:
        """Every transition enabled now and its rate; bios of equal value appear once."""
        found: list[tuple[Transition, float]] = [
            (("thread", t.number), 1.0) for t in self.threads if self.enabled(t)
        ]
        for t in self.threads:
            if t.place == "idle":
                waiting = self.queued[t.serves]
                for bio in sorted(set(waiting)):
                    found.append((("pick", t.number, bio), waiting.count(bio) / len(waiting)))
        for mount, flying in zip(self.mounts, self.in_flight, strict=True):
            if flying and self.free >= mount["completion_pages"]:
                rate = mount["rate"] * min(len(flying), mount["depth"])
                for bio in sorted(set(flying)):
                    found.append((("complete", bio), rate * flying.count(bio) / len(flying)))
        if not found and self.kills > 0 and not self.completed:
            found.append((("kill",), 1.0))
        return found

    # ---- effects ----------------------------------------------------------------------------

    def fire(self, transition: Transition, draw: Draw) -> None:
        """Let one enabled transition happen; `draw` is asked once for each random alloc reached."""
        kind = transition[0]
        if kind == "thread":
            self.fire_thread(self.threads[transition[1]], draw)
        elif kind == "pick":
            worker = self.threads[transition[1]]
            waiting = self.queued[worker.serves]
            worker.carried = waiting.pop(waiting.index(transition[2]))
            worker.place = "enter"
        elif kind == "complete":
            flying = self.in_flight[transition[1][0]]
            self.give_back(flying.pop(flying.index(transition[1])))
        else:
            self.kills -= 1
            self.free += self.rules["pages_per_kill"]

    def fire_thread(self, t: Thread, draw: Draw) -> None:
        """One step of one thread."""
        effect = self.enabled(t)
        if not effect:
            raise ValueError(f"thread {t.number} is not enabled")
        if effect == "sleep":
            if t.place != "enter" and self.step(t)[0] == "lock":
                t.asleep = "lock"
                self.lock_queues[t.mount, self.step(t)[1]].append(t.number)
            else:
                t.asleep = "semaphore"
                self.semaphore_queue.append(t.number)
        elif t.place == "touch":
            self.touch(t, effect)
        elif t.place == "enter":
            self.enter(t, effect, draw)
        elif t.place == "exit":
            self.exit(t, effect, draw)
        else:
            self.run_step(t, effect, draw)

    def touch(self, t: Thread, effect: str) -> None:
        """A dirtier's step outside a section."""
        if effect == "reclaim":
            self.dirty -= 1
            t.place = "enter"
            return
        self.free -= 1
        self.dirty += 1
        t.quota -= 1
        if t.quota == 0:
            t.place = "done"

    def enter(self, t: Thread, effect: str, draw: Draw) -> None:
        """One firing of the enter; the section begins with the last one."""
        if effect in ("take one", "take all"):
            pages = 1 if effect == "take one" else self.nr_pages(t)
            self.free -= pages
            t.own += pages
            if t.own < self.nr_pages(t):
                return
        elif effect == "claim":
            self.pool -= self.nr_pages(t)
            t.claim = self.nr_pages(t)
        elif effect == "own semaphore":
            self.owner = t.number
        self.arrive(t, 0, draw)

    def arrive(self, t: Thread, step: int, draw: Draw) -> None:
        """Go to a step.  An alloc's number is drawn on arrival, and 0 skips it (section 3)."""
        program = self.mounts[t.mount]["program"]
        while step < len(program) and program[step][0] == "alloc":
            number = program[step][1]
            t.want = draw(t.number, step) if isinstance(number, list) else number
            if t.want > 0:
                break
            step += 1
        t.place = step if step < len(program) else "exit"

    def run_step(self, t: Thread, effect: str, draw: Draw) -> None:
        """One firing of a step of the program."""
        assert isinstance(t.place, int)
        name, value = self.step(t)
        if effect == "back out":
            self.back_out(t, draw)
            return
        if effect == "own semaphore":
            self.owner = t.number
            return
        if name == "alloc":
            self.take(t, effect, draw)
            return
        if name == "lock":
            self.lock_owners[t.mount, value] = t.number
        elif name == "unlock":
            self.release_lock((t.mount, value), draw)
        elif name == "submit":
            self.submit(t)
        self.arrive(t, t.place + 1, draw)

    def take(self, t: Thread, source: str, draw: Draw) -> None:
        """One page of an alloc."""
        assert isinstance(t.place, int)
        if source == "free":
            self.free -= 1
        elif source == "own":
            t.own -= 1
            t.drawn += bool(self.rules["standing"])
        elif source == "claim":
            t.claim -= 1
            t.drawn += 1
        elif source == "mount pool":
            self.mount_pools[t.mount] -= 1
        elif source == "pool":
            self.owner = t.number
            self.pool -= 1
            t.drawn += 1
        t.held += 1
        t.want -= 1
        if t.want == 0:
            self.arrive(t, t.place + 1, draw)

    def submit(self, t: Thread) -> None:
        """Send the held pages off; the upper bio of a loop worker goes along."""
        handed = 0 if self.scheme == "global" and self.rules["refill"] == "allocate" else t.drawn
        bio = Bio(t.mount, t.number, t.held, handed, t.carried)
        on_device = self.mounts[t.mount]["on"] == -1
        (self.in_flight if on_device else self.queued)[t.mount].append(bio)
        t.held = 0
        t.drawn -= handed
        t.carried = None

    def give_back(self, bio: Bio) -> None:
        """Section 5, column completion; a carried bio completes with the one that carries it."""
        owner = self.threads[bio.owner]
        if self.scheme == "mempool":
            back = min(bio.pages, self.reserve - self.mount_pools[bio.mount])
            self.mount_pools[bio.mount] += back
        else:
            back = bio.drawn
            if self.scheme == "perthread":
                owner.own += back
            else:
                self.pool += back
        self.free += bio.pages - back
        if owner.kind == "dirtier":
            self.free += 1  # the page it cleaned (section 4)
        if bio.carries is not None:
            self.give_back(bio.carries)

    def exit(self, t: Thread, effect: str, draw: Draw) -> None:
        """One firing of the exit; the section ends with the last one."""
        if effect == "sleep for ever":
            t.asleep = "own"
            return
        if effect == "refill":
            self.free -= 1
            self.pool += 1
            t.drawn -= 1
            if t.drawn > 0:
                return
        if self.scheme == "perthread" and not self.rules["standing"]:
            self.free += t.own
            t.own = 0
        self.pool += t.claim
        t.claim = 0
        self.writepages += 1
        if t.kind == "worker":
            t.place = "idle"
        elif t.kind == "dirtier":
            t.place = "touch"
        else:
            t.quota -= 1
            t.place = "enter" if t.quota > 0 else "done"
        if effect != "exit":
            self.release_semaphore(draw)

    def back_out(self, t: Thread, draw: Draw) -> None:
        """Section 3: abandon the writepage."""
        self.redirtied += 1
        self.free += t.held
        t.held = t.want = 0
        t.place = "enter"
        if t.kind == "dirtier":
            t.place = "touch"
            self.dirty += 1
        for lock, owner in self.lock_owners.items():
            if owner == t.number:
                self.release_lock(lock, draw)

    def release_lock(self, lock: tuple[int, str], draw: Draw) -> None:
        """Hand it to the first sleeper, which has then passed its lock step (section 3a)."""
        self.lock_owners[lock] = -1
        if self.lock_queues[lock]:
            heir = self.threads[self.lock_queues[lock].pop(0)]
            assert isinstance(heir.place, int)
            self.lock_owners[lock] = heir.number
            heir.asleep = ""
            self.arrive(heir, heir.place + 1, draw)

    def release_semaphore(self, draw: Draw) -> None:
        """Hand it to the first sleeper, which enters or takes a page if there is one."""
        self.owner = -1
        if self.semaphore_queue:
            heir = self.threads[self.semaphore_queue.pop(0)]
            self.owner = heir.number
            heir.asleep = ""
            if heir.place == "enter":
                self.arrive(heir, 0, draw)
            elif self.pool > 0:
                self.take(heir, "pool", draw)

    # ---- why it is stuck ----------------------------------------------------------------------

    def stuck(self) -> set[str]:
        """What the threads and bios of a deadlocked state wait for (section 7)."""
        reasons = {self.reason(t) for t in self.threads if t.place not in ("idle", "done")}
        return reasons | ({"completion"} if any(self.in_flight) else set())

    def reason(self, t: Thread) -> str:
        """What one thread that cannot move waits for."""
        if t.asleep:
            return "own_semaphore" if t.asleep == "own" else t.asleep
        owned_by_another = self.owner not in (-1, t.number)
        if t.place == "touch":
            return "pages"
        if t.place == "enter":
            on_entry = self.scheme == "global" and self.rules["on_entry"]
            return "semaphore" if on_entry and owned_by_another else "entry"
        if t.place == "exit":
            return "refill"
        name = self.step(t)[0]
        if name == "alloc":
            return "semaphore" if owned_by_another else "pages"
        return {"lock": "lock", "wait": "io"}[name]


# ---- the whole chain --------------------------------------------------------------------------


class Undrawn(Exception):
    """Raised inside `fire` when a random alloc is reached whose number was not given yet."""

    def __init__(self, thread: int, step: int) -> None:
        super().__init__(thread, step)
        self.key = (thread, step)


class Outcome(NamedTuple):
    """One way a firing can go."""

    probability: float
    draws: dict[tuple[int, int], int]  # (thread, step index) -> number, for each alloc reached
    after: Naive


def outcomes(state: Naive, transition: Transition) -> Iterator[Outcome]:
    """Yield every combination of the numbers a firing can draw, one for each random alloc."""
    pending: list[tuple[float, dict[tuple[int, int], int]]] = [(1.0, {})]
    while pending:
        probability, draws = pending.pop()

        def draw(thread: int, step: int, known: dict[tuple[int, int], int] = draws) -> int:
            if (thread, step) not in known:
                raise Undrawn(thread, step)
            return known[thread, step]

        after = state.copy()
        try:
            after.fire(transition, draw)
        except Undrawn as unknown:
            thread, step = unknown.key
            program = state.mounts[state.threads[thread].mount]["program"]
            for number, p in reversed(program[step][1]):
                if p > 0:
                    pending.append((probability * p, {**draws, unknown.key: number}))
        else:
            yield Outcome(probability, draws, after)


class TooManyStates(Exception):
    """The chain has more states than the caller allowed."""


@dataclass
class Chain:
    """All reachable states, breadth first from the start, which is number 0."""

    states: list[Naive] = field(default_factory=list)
    rates: list[dict[int, float]] = field(default_factory=list)  # state -> {next state: rate}
    writepages: list[float] = field(default_factory=list)  # expected number per unit of time
    redirtied: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)  # fewest steps from the start
    kinds: list[str] = field(default_factory=list)  # completed, deadlocked, livelocked, transient


def enumerate_chain(scenario: Scenario, limit: int = 100_000) -> Chain:
    """Return every reachable state, nothing merged, and the rates between them.

    Raises
    ------
    TooManyStates
        When there are more than `limit`.
    """
    chain = Chain()
    number: dict[Snapshot, int] = {}

    def visit(state: Naive, steps: int) -> int:
        snapshot = state.snapshot()
        if snapshot not in number:
            if len(number) == limit:
                raise TooManyStates(limit)
            number[snapshot] = len(number)
            state.writepages = state.redirtied = 0  # so that a successor's count is one firing's
            chain.states.append(state)
            chain.steps.append(steps)
        return number[snapshot]

    visit(Naive(scenario), 0)
    for here, state in enumerate(chain.states):  # grows while it is read: breadth first
        leave: dict[int, float] = {}
        written = redirtied = 0.0
        choices = state.choices()
        for transition, rate in choices:
            for probability, _, after in outcomes(state, transition):
                written += rate * probability * after.writepages
                redirtied += rate * probability * after.redirtied
                there = visit(after, chain.steps[here] + 1)
                leave[there] = leave.get(there, 0.0) + rate * probability
        chain.rates.append(leave)
        chain.writepages.append(written)
        chain.redirtied.append(redirtied)
        stopped = "completed" if state.completed else "deadlocked"
        chain.kinds.append("transient" if choices else stopped)
    mark_livelocks(chain)
    return chain


def mark_livelocks(chain: Chain) -> None:
    """Section 7: a livelocked state is one from which no end can be reached."""
    before: list[list[int]] = [[] for _ in chain.states]
    for here, leave in enumerate(chain.rates):
        for there in leave:
            before[there].append(here)
    ends = [s for s, kind in enumerate(chain.kinds) if kind != "transient"]
    can_end, todo = set(ends), deque(ends)
    while todo:
        for s in before[todo.popleft()]:
            if s not in can_end:
                can_end.add(s)
                todo.append(s)
    for s in range(len(chain.states)):
        if s not in can_end:
            chain.kinds[s] = "livelocked"


def times_in_states(chain: Chain) -> dict[int, float]:
    """Expected time spent in each transient state before an end or a livelock is reached.

    These times y solve  y[s] * (total rate out of s) - sum over r of y[r] * rate(r, s) = [s is the
    start].  Every estimand is a sum of them with weights of one sign, so nothing cancels.
    """
    live = [s for s, kind in enumerate(chain.kinds) if kind == "transient"]
    if 0 not in live:
        return {}
    row = {s: i for i, s in enumerate(live)}
    entries = [(row[s], row[s], sum(chain.rates[s].values())) for s in live]
    entries += [
        (row[there], row[s], -rate)
        for s in live
        for there, rate in chain.rates[s].items()
        if there in row
    ]
    i, j, value = zip(*entries, strict=True)
    matrix = csc_array((value, (i, j)), shape=(len(live), len(live)))
    start = np.zeros(len(live))
    start[row[0]] = 1.0
    factors = splu(matrix)
    times = factors.solve(start)
    for _ in range(3):
        times += factors.solve(start - matrix @ times)
    return dict(zip(live, times.tolist(), strict=True))


def solve(scenario: Scenario, limit: int = 100_000) -> dict[str, Any]:
    """Return the values of section 9 and the time averages of section 5, exactly.

    Time averages are None where an episode can livelock, or where it has no duration.
    """
    chain = enumerate_chain(scenario, limit)
    times = times_in_states(chain)

    def absorbed(kind: str) -> float:
        return float(chain.kinds[0] == kind) + sum(
            time * rate
            for s, time in times.items()
            for there, rate in chain.rates[s].items()
            if chain.kinds[there] == kind
        )

    dead = [s for s, kind in enumerate(chain.kinds) if kind == "deadlocked"]
    duration = None if "livelocked" in chain.kinds else sum(times.values())

    def integral(weights: list[float]) -> float:
        return sum(time * weights[s] for s, time in times.items())

    def ratio(total: float, base: float | None) -> float | None:
        return total / base if base else None

    inside = integral([state.inside for state in chain.states])
    written = integral(chain.writepages)
    return {
        "deadlock_probability": absorbed("deadlocked"),
        "livelock_probability": absorbed("livelocked"),
        "expected_time": duration,
        "unmerged_states": len(chain.states),
        "deadlocked_states": len(dead),
        "shortest_path_steps": min((chain.steps[s] for s in dead), default=None),
        "idle_reserve": ratio(integral([s.idle_reserve() for s in chain.states]), duration),
        "inside": ratio(inside, duration),
        "throughput": ratio(written, duration),
        "latency": ratio(inside, written if duration else None),
        "redirtied": None if duration is None else integral(chain.redirtied),
    }


# ---- random scenarios -------------------------------------------------------------------------

PLAIN: Scenario = {
    "reserve": 0,
    "quota": 1,
    "dirty": 0,
    "whole": False,
    "standing": False,
    "on_entry": False,
    "refill": "allocate",
    "clear_flag": True,
    "draw": "last",
    "throttle": False,
    "max_sections": 0,
    "kills": 0,
    "pages_per_kill": 0,
    "waiting": "asleep",
}
SIMPLE_VARIANTS: dict[str, Scenario] = {
    "watermark": {},
    "watermark backs_out": {},
    "watermark throttle": {"throttle": True},
    "watermark max_sections": {"max_sections": 1},
    "watermark throttle max_sections": {"throttle": True, "max_sections": 1},
    "mempool": {},
    "perthread": {},
    "perthread whole": {"whole": True},
    "perthread standing": {"standing": True},
    "tickets last": {},
    "tickets first": {"draw": "first"},
}
GLOBAL_VARIANTS: dict[str, Scenario] = {
    f"global {'on_entry' if on_entry else 'lazy'} {refill} {'clears' if clear_flag else 'keeps'}": {
        "on_entry": on_entry,
        "refill": refill,
        "clear_flag": clear_flag,
    }
    for on_entry in (False, True)
    for refill in ("allocate", "completion")
    for clear_flag in (True, False)
}
VARIANTS = SIMPLE_VARIANTS | GLOBAL_VARIANTS
"""Every scheme with every choice it has; the first word is the scheme."""


def variant_of(scenario: Scenario) -> str:
    """Return the name in VARIANTS; with a throttle or a limit, backing out is not named."""
    words: list[str] = [scenario["scheme"]]
    if words == ["watermark"]:
        words += [word for word in ("throttle", "max_sections") if scenario[word]]
        if len(words) == 1 and any(mount["backs_out"] for mount in scenario["mounts"]):
            words.append("backs_out")
    elif words == ["perthread"]:
        words += [word for word in ("whole", "standing") if scenario[word]]
    elif words == ["tickets"]:
        words.append(scenario["draw"])
    elif words == ["global"]:
        words.append("on_entry" if scenario["on_entry"] else "lazy")
        words += [scenario["refill"], "clears" if scenario["clear_flag"] else "keeps"]
    return " ".join(words)


def draw_program(rng: random.Random) -> list[list[Any]]:
    """Return a valid program: some allocs, a submit, now and then a wait and one or two locks."""
    numbers = [1, 1, 2, 2, 3, [[0, 0.5], [2, 0.5]], [[1, 0.75], [2, 0.25]], [[0, 0.25], [1, 0.75]]]
    allocs = rng.choices([0, 1, 2, 3], [1, 8, 8, 1])[0]
    program: list[list[Any]] = [["alloc", rng.choice(numbers)] for _ in range(allocs)]
    program.append(["submit", None])
    if rng.random() < 0.25:
        program.insert(rng.choice([0, len(program), len(program)]), ["wait", None])
    for name in ["a", "b"][: rng.choices([0, 1, 2], [4, 4, 2])[0]]:
        taken, left = sorted(rng.sample(range(len(program) + 1), 2))
        program.insert(left, ["unlock", name])
        program.insert(taken, ["lock", name])
    return program


def draw_mounts(rng: random.Random) -> list[dict[str, Any]]:
    """Return one to three mounts, alone, side by side or stacked up to two levels deep."""
    below = rng.choices([[-1], [-1, -1], [1, -1], [2, 2, -1], [1, 2, -1]], [10, 4, 4, 1, 1])[0]
    order = rng.sample(range(len(below)), len(below))
    mounts: list[dict[str, Any]] = [{} for _ in below]
    for m, on in enumerate(below):
        program = draw_program(rng)
        largest = [
            max(n for n, _ in number) if isinstance(number, list) else number
            for step, number in program
            if step == "alloc"
        ]
        need = sum(largest)
        mounts[order[m]] = {
            "program": program,
            "flushers": 0,
            "nr_pages": need if rng.random() < 0.7 else rng.randint(0, need + 1),
            "dirtiers": 0,
            "rate": rng.choice([0.2, 0.5, 1.0, 1.0, 5.0]),
            "depth": rng.choice([1, 1, 2, 3]),
            "completion_pages": rng.choice([0, 0, 0, 0, 1, 2]),
            "backs_out": rng.random() < 0.3,
            "on": -1 if on == -1 else order[on],
        }
    for _ in range(rng.choices([1, 2, 3, 4], [2, 5, 4, 1])[0]):
        rng.choice(mounts)[rng.choice(["flushers", "flushers", "dirtiers"])] += 1
    return mounts


def draw_scenario(rng: random.Random, variant: str = "", waiting: str = "") -> Scenario:
    """Return a small valid scenario, of a given variant and waiting rule or of any.

    Small does not mean few states: give `enumerate_chain` a limit.
    """
    variant = variant or rng.choice(list(VARIANTS))
    scenario = {"scheme": variant.split()[0], **PLAIN, **VARIANTS[variant]}
    scenario["mounts"] = mounts = draw_mounts(rng)
    scenario["waiting"] = waiting or rng.choice(["asleep", "racing"])
    scenario["quota"] = rng.choice([1, 1, 2])
    if any(mount["dirtiers"] for mount in mounts):
        scenario["dirty"] = rng.choice([0, 1, 1, 2])
    if rng.random() < 0.2:
        scenario["kills"] = rng.choice([1, 1, 2])
        scenario["pages_per_kill"] = rng.choice([0, 1, 1, 2])
    if scenario["max_sections"]:
        scenario["max_sections"] = rng.choice([1, 2, 2])
    if variant == "watermark":
        for mount in mounts:
            mount["backs_out"] = False
    if variant == "watermark backs_out":
        rng.choice(mounts)["backs_out"] = True

    largest = max(mount["nr_pages"] for mount in mounts)
    scenario["reserve"] = rng.choice([largest, rng.randint(0, 4)])
    set_aside = scenario["reserve"]
    if scenario["scheme"] == "mempool":
        scenario["reserve"] = rng.randint(0, 2)
        set_aside = scenario["reserve"] * len(mounts)
    elif scenario["scheme"] == "perthread":
        set_aside = 0
    if scenario["standing"]:
        set_aside = sum(
            (mount["flushers"] + mount["dirtiers"]) * mount["nr_pages"] for mount in mounts
        ) + sum(mounts[mount["on"]]["nr_pages"] for mount in mounts if mount["on"] >= 0)
    scenario["pages"] = set_aside + rng.randint(0, 1 if scenario["standing"] else 3)
    if scenario["pages"] == 0:
        scenario["pages"] = 1
    return scenario


def generate_cases(n: int, seed: int, limit: int = 2000, tries: int = 40) -> list[dict[str, Any]]:
    """Return n solved scenarios of 10 to `limit` states, going round variants and waiting rules.

    Of `tries` draws the first whose deadlock is neither rare nor sure is taken; in one round of
    five, and where there is none (some variants are safe), whatever comes.
    """
    rng = random.Random(seed)
    cells = [(variant, waiting) for variant in VARIANTS for waiting in ("asleep", "racing")]
    cases: list[dict[str, Any]] = []
    while len(cases) < n:
        variant, waiting = cells[len(cases) % len(cells)]
        left = 1 if len(cases) // len(cells) % 5 == 4 else tries
        while left > 0:
            scenario = draw_scenario(rng, variant, waiting)
            try:
                solved = solve(scenario, limit)
            except TooManyStates:
                continue
            if solved["unmerged_states"] >= 10:
                left = 0 if 0.05 < solved["deadlock_probability"] < 0.95 else left - 1
        cases.append({"scenario": scenario, **solved})
    return cases


def main() -> None:
    """Write solved cases, one a line, in the format of tests/cases/exact.json."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    lines = ",\n".join(json.dumps(case) for case in generate_cases(asked.cases, asked.seed))
    asked.out.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
