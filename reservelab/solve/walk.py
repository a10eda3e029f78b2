"""One state of a scenario, driven step by step from Python through the compiled rules.

`Walk` says what may happen, lets one of it happen, and shows the whole state. It knows no rule:
every guard and every effect is asked of solve/rules.py. In checking mode (`Walk.check`) it
recomputes from the state alone, in plain Python, what must hold between any two firings.

Vocabulary
----------
thread      numbered mount by mount, its flushers before its dirtiers; after all mounts one loop
            worker for each stacked mount, in mount order
place       "touch", "enter", the index of a step of the program, "exit", "idle", "done"
asleep      "" | "semaphore" | "lock" | "own"
transition  ("thread", i) | ("complete", bio) | ("pick", loop worker, bio) | ("kill",)

Invariants
----------
I1   Pages are conserved: free, dirty, pools, own, claims, held, those of bios, those under a
     dirtier's reclaim and those of the kills left add up to the same number in every state.
I2   No count is negative and no pool holds more than its reserve.
I3   A reserve whose drawn pages come back is whole: what lies in it, is claimed of it, is drawn
     from it and not yet back makes R (nr_pages for a standing reserve of a thread).
I4   Pages and quotas stand where the place allows: wanted at an alloc and only there, held from
     the first alloc to the submit, claimed and drawn inside a section, at most the worst case.
I5   A lock is owned by the thread between its lock and its unlock, and by nobody if none is.
I6   The semaphore has at most one owner; it is inside a section, or is refilling; nobody else
     has drawn from the pool. Where it is taken at entry, nobody else is inside.
I7   An unowned semaphore means a full pool.
I8   Each sleeper is in exactly one queue, that of the semaphore or lock at whose step it stands,
     which somebody else owns; a queue ends at its tail; nobody sleeps where waiters race.
I9   A firing takes sleepers from the head of a queue and adds at most the one that fired, at the
     tail: the order is kept.
I10  Every thread is in exactly the guard class that `class_of` gives; sizes, members and positions
     say the same.
I11  The number inside is that of the threads in a section, and within max_sections.
I12  The pages set aside are those in pools, claims and own.
I13  Every bio slot is unused, or in exactly one queue or device, or in a loop worker's hands, or
     carried by one of these.
I14  Bios are where their owners' mounts are; a loop worker's bio carries one of the mount above,
     nobody else's carries any; each thread has as many outstanding as it counts.
I15  Nothing is left of the last firing: no alloc without its number, no thread to be regrouped.
I16  Writepages completed are at least those the flushers' quotas lack, and are these where there
     are neither dirtiers nor loop workers.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from reservelab.model import pack as p
from reservelab.model.scenario import Scenario
from reservelab.solve import rules

Transition = tuple[Any, ...]
Draw = Callable[[int, int], int]
_PLACES = ("touch", "idle", "done", "enter")
_ASLEEP = ("", "semaphore", "lock", "own")
_KINDS = ("flusher", "dirtier", "loop worker")


class Bio(NamedTuple):
    """The value of a bio; bios of equal value are interchangeable.

    Parameters
    ----------
    mount : int
        The mount it was sent to.
    owner : int
        The thread whose it is.
    pages : int
        Pages it carries.
    drawn : int
        How many of them go back to a reserve.
    carries : Bio or None
        The bio of the mount above that completes with it.
    """

    mount: int
    owner: int
    pages: int
    drawn: int
    carries: Bio | None


class ThreadState(NamedTuple):
    """Where a thread stands and what it has.

    Parameters
    ----------
    place : int or str
        A place.
    asleep : str
        What it sleeps on, if it does.
    want, held, own, drawn, claim, quota : int
        Pages still wanted by the current alloc, held, in its own reserve, drawn from the scheme's
        reserve, claimed and not used; writepages or user pages left.
    """

    place: int | str
    asleep: str
    want: int
    held: int
    own: int
    drawn: int
    claim: int
    quota: int


class Snapshot(NamedTuple):
    """The whole state as plain values, hashable; equal snapshots are the same state.

    Parameters
    ----------
    free, dirty, pool : int
        Pages.
    mount_pools : tuple of int
        Pages in the pool of each mount.
    owner : int
        The thread that owns the semaphore, or -1.
    lock_owners : tuple of ((mount, name), int)
        The thread that owns each lock, or -1; sorted.
    semaphore_queue : tuple of int
        Its sleepers, in order.
    lock_queues : tuple of ((mount, name), tuple of int)
        Those of each lock; sorted.
    kills : int
        Kills the OOM killer has left.
    threads : tuple of ThreadState
        Every thread, loop workers last.
    in_flight, queued : tuple of tuple of Bio
        Bios on the device, and in the queue, of each mount; sorted.
    carried : tuple of (Bio or None)
        The bio each loop worker has in its hands.
    """

    free: int
    dirty: int
    pool: int
    mount_pools: tuple[int, ...]
    owner: int
    lock_owners: tuple[tuple[tuple[int, str], int], ...]
    semaphore_queue: tuple[int, ...]
    lock_queues: tuple[tuple[tuple[int, str], tuple[int, ...]], ...]
    kills: int
    threads: tuple[ThreadState, ...]
    in_flight: tuple[tuple[Bio, ...], ...]
    queued: tuple[tuple[Bio, ...], ...]
    carried: tuple[Bio | None, ...]


class BrokenInvariant(Exception):
    """A state that the rules cannot lead to.

    Parameters
    ----------
    number : str
        The invariant's, as the module lists them.
    found : str
        What was found.
    """

    def __init__(self, number: str, found: str) -> None:
        super().__init__(number, found)
        self.number = number
        self.found = found

    def __str__(self) -> str:
        return f"{self.number}: {self.found}"


class Walk:
    """One state of one episode; `fire` changes it in place.

    Parameters
    ----------
    scenario : Scenario
        The scenario.
    bios : int, optional
        Room for bios; what `reservelab.model.pack.pack` gives unless given.

    Attributes
    ----------
    tables : Tables
        The packed scenario.
    state : ndarray of int64
        What the rules change.
    mount_of : list of int
        The mount whose filesystem each thread runs.
    kinds : list of int
        ``FLUSHER``, ``DIRTIER`` or ``WORKER`` of reservelab.model.pack, for each thread.
    serves : list of int
        The stacked mount whose queue a loop worker empties, -1 for the others.
    """

    def __init__(self, scenario: Scenario, bios: int | None = None) -> None:
        self.scenario = scenario
        self.tables = p.pack(scenario, bios)
        self.state = self.tables.state()
        self._t: list[int] = self.tables.t.tolist()
        first = self._t[p.H_THREAD]
        self._threads = [
            self._t[first + i * p.T_ROW :][: p.T_ROW] for i in range(self._t[p.H_THREADS])
        ]
        self.mount_of = [row[p.T_MOUNT] for row in self._threads]
        self.kinds = [row[p.T_KIND] for row in self._threads]
        self.serves = [row[p.T_SERVES] for row in self._threads]
        self._places: dict[int, int | str] = {}
        for mount, _, block, _ in self._threads:
            steps = range(len(scenario.mounts[mount].filesystem.program))
            self._places |= {block + k: name for k, name in enumerate((*_PLACES, *steps, "exit"))}
        # In the order in which the packing numbers them.
        self._locks = [
            (index, name)
            for index, mount in enumerate(scenario.mounts)
            for name in mount.filesystem.locks
        ]
        self._queues_before: list[tuple[int, ...]] | None = None
        self._fired = p.NOBODY
        rules.start(self.tables.t, self.state)
        self._pages = self._all_pages(self.state.tolist())

    def copy(self) -> Walk:
        """Return a twin that may be fired without changing this one.

        Returns
        -------
        Walk
            In the same state, of the same tables.
        """
        twin = copy.copy(self)
        twin.state = self.state.copy()
        return twin

    # --- looking ---------------------------------------------------------------------------------

    def transitions(self) -> list[tuple[Transition, float]]:
        """What may happen now.

        Returns
        -------
        list of (transition, float)
            Each with its rate; bios of equal value are one transition, their rates added.
        """
        t, f, s = self.tables.t, self.tables.f, self.state
        listed = s.tolist()
        found: list[tuple[Transition, float]] = []
        for c in range(self._t[p.H_CONDITIONAL]):
            members = self._members(listed, c)
            if not members or not rules.is_enabled(t, s, c):
                continue
            row = self._t[p.H_CLASS] + c * p.C_ROW
            if self._t[row + p.C_KIND] == p.K_PICK:
                queue = self._bag(listed, self._t[row + p.C_ARGUMENT])
                for bio, times in Counter(queue).items():
                    found += [(("pick", i, bio), times / len(queue)) for i in members]
            else:
                found += [(("thread", i), 1.0) for i in members]
        for mount in range(len(self.scenario.mounts)):
            rate = float(f[mount]) * int(rules.device_channels(t, s, mount))
            if rate > 0.0:
                flying = self._bag(listed, mount)
                for bio, times in Counter(flying).items():
                    found.append((("complete", bio), rate * times / len(flying)))
        if not found and s[p.S_KILLS] > 0 and not self.completed:
            found.append((("kill",), 1.0))
        return found

    @property
    def completed(self) -> bool:
        """Whether the episode has completed (MODEL.md section 7)."""
        return bool(rules.is_completed(self.tables.t, self.state))

    @property
    def deadlocked(self) -> bool:
        """Whether nothing is enabled, no kill is left and the episode has not completed."""
        return not self.completed and not self.transitions()

    def waiting(self) -> dict[int, str]:
        """What the threads whose next step is not enabled wait for.

        Returns
        -------
        dict
            Thread numbers, and of `reservelab.model.pack.REASONS`; who rests is not among them.
        """
        t, s = self.tables.t, self.state
        listed = s.tolist()
        found = {}
        for i in range(len(self._threads)):
            c = self._row(listed, i)[p.CLASS]
            reason = int(rules.reason_of(t, s, c))
            if reason != p.R_NONE and not rules.is_enabled(t, s, c):
                found[i] = p.REASONS[reason]
        return found

    def stuck(self) -> set[str]:
        """What the threads and bios of a deadlocked state wait for.

        Returns
        -------
        set of str
            Of `reservelab.model.pack.REASONS`.
        """
        mask = int(rules.stuck_reasons(self.tables.t, self.state))
        return {reason for bit, reason in enumerate(p.REASONS) if mask >> bit & 1}

    def snapshot(self) -> Snapshot:
        """The whole state.

        Returns
        -------
        Snapshot
            As plain values.
        """
        s = self.state.tolist()
        mounts = range(len(self.scenario.mounts))
        stacked = set(self.scenario.stacked)
        bags = [tuple(sorted(self._bag(s, m), key=_order)) for m in mounts]
        locks = sorted(range(len(self._locks)), key=self._locks.__getitem__)
        threads = []
        for i, static in enumerate(self._threads):
            row = self._row(s, i)
            threads.append(
                ThreadState(
                    self._places[row[p.PLACE]],
                    _ASLEEP[row[p.ASLEEP]],
                    row[p.WANT],
                    row[p.HELD],
                    row[p.OWN],
                    row[p.DRAWN],
                    row[p.CLAIM],
                    # A loop worker's quota is never looked at; it has none.
                    0 if static[p.T_KIND] == p.WORKER else row[p.QUOTA],
                )
            )
        return Snapshot(
            free=s[p.S_FREE],
            dirty=s[p.S_DIRTY],
            pool=s[p.S_POOL],
            mount_pools=tuple(self._mount_pool(s, m) for m in mounts),
            owner=s[p.S_OWNER],
            lock_owners=tuple((self._locks[k], self._lock_row(s, k)[0]) for k in locks),
            semaphore_queue=self._queue(s, s[p.S_HEAD], s[p.S_TAIL], "semaphore"),
            lock_queues=tuple((self._locks[k], self._lock_queue(s, k)) for k in locks),
            kills=s[p.S_KILLS],
            threads=tuple(threads),
            in_flight=tuple(() if m in stacked else bags[m] for m in mounts),
            queued=tuple(bags[m] if m in stacked else () for m in mounts),
            carried=tuple(
                None if (bio := self._row(s, i)[p.CARRIES]) == p.NOBODY else self._bio(s, bio)
                for i, static in enumerate(self._threads)
                if static[p.T_KIND] == p.WORKER
            ),
        )

    @property
    def names(self) -> list[str]:
        """A name for each thread, such as ``ext3/0 flusher 2``: mount 0, its third flusher."""
        seen: Counter[tuple[int, int]] = Counter()
        names = []
        for mount, kind, _, serves in self._threads:
            home = mount if kind != p.WORKER else serves
            name = f"{self.scenario.mounts[home].filesystem.name}/{home} {_KINDS[kind]}"
            if kind != p.WORKER:
                name += f" {seen[mount, kind]}"
                seen[mount, kind] += 1
            names.append(name)
        return names

    def numbers(self, i: int, step: int) -> list[int]:
        """The numbers of pages thread `i` can draw at a step of its program.

        Parameters
        ----------
        i : int
            The thread.
        step : int
            Index of an alloc.

        Returns
        -------
        list of int
            In rising order.
        """
        program = self.scenario.mounts[self.mount_of[i]].filesystem.program
        return [number for number, _ in program[step].demand]

    # --- firing ----------------------------------------------------------------------------------

    def fire(self, transition: Transition, draw: Draw) -> None:
        """Let one enabled transition happen.

        Parameters
        ----------
        transition : tuple
            One that `transitions` lists.
        draw : callable
            Called with (thread, step index) for each random alloc that a thread arrives at;
            returns the pages it wants.

        Raises
        ------
        ValueError
            If the transition is not enabled.
        RuntimeError
            If there is no room for a bio; the state is then void.
        """
        if transition not in [enabled for enabled, _ in self.transitions()]:
            raise ValueError(f"{transition} is not enabled")
        t, s = self.tables.t, self.state
        listed = s.tolist()
        self._queues_before = self._queues(listed)
        fired = p.NOBODY
        match transition:
            case ("thread", int(fired)):
                rules.fire(t, s, fired)
            case ("pick", int(fired), bio):
                queue = self._bag(listed, self._threads[fired][p.T_SERVES])
                rules.pick(t, s, fired, queue.index(bio))
            case ("complete", bio):
                rules.complete(t, s, bio[0], self._bag(listed, bio[0]).index(bio))
            case _:
                rules.kill(t, s)
        if s[p.S_OVERFLOW]:
            raise RuntimeError(f"no room for more than {t[p.H_BIOS]} bios; make a Walk with more")
        while s[p.S_PENDING] > 0:
            s[p.S_PENDING] -= 1
            arrived = int(s[t[p.H_S_PENDING] + s[p.S_PENDING]])
            step = self._place(s.tolist(), arrived)
            rules.settle(t, s, arrived, draw(arrived, int(step)))
        rules.regroup(t, s, fired)
        self._fired = fired

    # --- checking mode ---------------------------------------------------------------------------

    def check(self) -> None:
        """Recompute every invariant from the state.

        Raises
        ------
        BrokenInvariant
            Naming the first that does not hold, and what was found.
        """
        s = self.state.tolist()
        for number, found in self._breaches(s):
            raise BrokenInvariant(number, found)

    def _breaches(self, s: list[int]) -> Iterator[tuple[str, str]]:
        # The bios first: other invariants follow their chains.
        yield from self._bio_breaches(s)
        yield from self._page_breaches(s)
        yield from self._thread_breaches(s)
        yield from self._ownership_breaches(s)
        yield from self._queue_breaches(s)
        yield from self._class_breaches(s)

    def _bio_breaches(self, s: list[int]) -> Iterator[tuple[str, str]]:
        slots = self._t[p.H_BIOS]
        chains: list[list[int]] = [self._slots(s, s[p.S_UNUSED_BIO])]
        outstanding: list[tuple[int, list[int]]] = []  # the mount, and the bio with what it carries
        for mount in range(len(self.scenario.mounts)):
            outstanding += [(mount, self._slots(s, bio)) for bio in self._bag_slots(s, mount)]
        for i, static in enumerate(self._threads):
            carries = self._row(s, i)[p.CARRIES]
            place = self._place(s, i)
            serving = static[p.T_KIND] == p.WORKER and place != "idle" and self._before_submit(i, s)
            if (carries != p.NOBODY) != serving:
                yield "I14", f"thread {i} at {place} carries bio {carries}"
            if carries != p.NOBODY:
                outstanding.append((static[p.T_SERVES], self._slots(s, carries)))
        chains += [chain for _, chain in outstanding]
        times = Counter(slot for chain in chains for slot in chain)
        wrong = {slot: times[slot] for slot in range(slots) if times[slot] != 1}
        if wrong or len(times) != slots:
            yield "I13", f"slots found more or less than once: {wrong or dict(times)}"
        count: Counter[int] = Counter()
        keeps = self.scenario.scheme.exit in ("refill", "refill_flag_set")
        for mount, chain in outstanding:
            expected = mount
            for k, slot in enumerate(chain):
                pages, drawn, owner, _ = self._bio_row(s, slot)
                count[owner] += 1
                _, kind, _, serves = self._threads[owner]
                last = k == len(chain) - 1
                if self.mount_of[owner] != expected or (kind == p.WORKER) == last:
                    yield "I14", f"bio {slot} of thread {owner} stands at mount {expected}"
                if not 0 <= drawn <= pages or (keeps and drawn):
                    yield "I14", f"bio {slot} carries {pages} pages, {drawn} of them drawn"
                expected = serves
        out = [self._row(s, i)[p.OUT] for i in range(len(self._threads))]
        if out != [count[i] for i in range(len(out))]:
            yield "I14", f"threads count {out} bios, there are {dict(count)}"

    def _page_breaches(self, s: list[int]) -> Iterator[tuple[str, str]]:
        scenario, scheme = self.scenario, self.scenario.scheme
        if (found := self._all_pages(s)) != self._pages:
            yield "I1", f"{found} pages, {self._pages} at the start"
        pools = [self._mount_pool(s, m) for m in range(len(scenario.mounts))]
        reserve = scenario.reserve or 0
        if min(s[p.S_FREE], s[p.S_DIRTY], s[p.S_POOL], s[p.S_KILLS], *pools) < 0:
            pages = f"free {s[p.S_FREE]}, dirty {s[p.S_DIRTY]}, pool {s[p.S_POOL]}"
            yield "I2", f"{pages}, pools of mounts {pools}, kills {s[p.S_KILLS]}"
        if s[p.S_POOL] > (reserve if scheme.start == "pool" else 0):
            yield "I2", f"{s[p.S_POOL]} pages in the pool"
        if max(pools) > (reserve if scheme.start == "mount_pools" else 0):
            yield "I2", f"{pools} pages in the pools of mounts"
        rows = [self._row(s, i) for i in range(len(self._threads))]
        for i, row in enumerate(rows):
            counts = {name: row[at] for name, at in _COUNTED.items()}
            if min(counts.values()) < 0:
                yield "I2", f"thread {i} has {counts}"
        back = [0] * len(rows)  # drawn pages on their way back, by owner
        for _, row in self._bios(s):
            back[row[p.BIO_OWNER]] += row[p.BIO_DRAWN]
        if scheme.start == "pool":
            whole = s[p.S_POOL] + sum(back) + sum(r[p.CLAIM] + r[p.DRAWN] for r in rows)
            lost = scheme.returns != "pool" and scheme.exit not in ("refill", "refill_flag_set")
            if whole > reserve or (whole < reserve and not lost):
                yield "I3", f"{whole} pages of a pool of {reserve}"
        if scheme.start == "own":
            for i, row in enumerate(rows):
                whole = row[p.OWN] + row[p.DRAWN] + back[i]
                if whole != self._need(i):
                    yield "I3", f"thread {i} has {whole} of its {self._need(i)} own pages"
        aside = s[p.S_POOL] + sum(pools) + sum(row[p.OWN] + row[p.CLAIM] for row in rows)
        if s[p.S_ASIDE] != aside:
            yield "I12", f"{s[p.S_ASIDE]} pages counted as set aside, there are {aside}"

    def _thread_breaches(self, s: list[int]) -> Iterator[tuple[str, str]]:
        scheme = self.scenario.scheme
        keeps = scheme.exit in ("refill", "refill_flag_set")
        written, plain = 0, True
        for i, (mount, kind, _, _) in enumerate(self._threads):
            row, place, need = self._row(s, i), self._place(s, i), self._need(i)
            program = self.scenario.mounts[mount].filesystem.program
            inside = _inside(place)
            at_alloc = isinstance(place, int) and program[place].verb == "alloc"
            before = inside and self._before_submit(i, s)
            worst = sum(step.worst for step in program[: place + 1]) if before else 0  # type: ignore[operator]
            own_at = {"own_full": True, "own_by_page": inside or place == "enter"}
            if kind != p.WORKER:
                written += self.scenario.quota - row[p.QUOTA]
            plain = plain and kind == p.FLUSHER
            for wrong in (
                (row[p.WANT] > 0) != at_alloc,
                row[p.HELD] + row[p.WANT] > worst,
                row[p.CLAIM] > (need if inside else 0),
                row[p.DRAWN] > 0 and not (inside if keeps else before),
                row[p.OWN] > (need if own_at.get(scheme.entry, inside) else 0),
                row[p.OWN] == need > 0 and scheme.entry == "own_by_page" and place == "enter",
                kind != p.WORKER and (row[p.QUOTA] == 0) != (place == "done"),
                row[p.QUOTA] > self.scenario.quota,
                place == "touch" and kind != p.DIRTIER,
                place == "idle" and kind != p.WORKER,
                place == "done" and kind == p.WORKER,
            ):
                if wrong:
                    counts = {name: row[at] for name, at in _COUNTED.items()}
                    yield "I4", f"thread {i} at {place} has {counts}, need {need}"
        number = sum(_inside(self._place(s, i)) for i in range(len(self._threads)))
        limit = scheme.max_sections
        if s[p.S_INSIDE] != number or (limit is not None and number > limit):
            yield "I11", f"{s[p.S_INSIDE]} counted inside, there are {number}, limit {limit}"
        if any(mount.dirtiers for mount in self.scenario.mounts):
            written = 0
        if s[p.S_WRITEPAGES] < written or (plain and s[p.S_WRITEPAGES] != written):
            yield "I16", f"{s[p.S_WRITEPAGES]} writepages counted, quotas say {written}"

    def _ownership_breaches(self, s: list[int]) -> Iterator[tuple[str, str]]:
        scheme, owner = self.scenario.scheme, s[p.S_OWNER]
        held: dict[int, int] = {}
        for i, mount in enumerate(self.mount_of):
            place = self._place(s, i)
            program = self.scenario.mounts[mount].filesystem.program
            names: set[str] = set()
            for step in program[: place if isinstance(place, int) else 0]:
                if step.verb == "lock":
                    names.add(step.lock)
                elif step.verb == "unlock":
                    names.discard(step.lock)
            for name in names:
                k = self._locks.index((mount, name))
                if k in held:
                    yield "I5", f"threads {held[k]} and {i} are both inside lock {self._locks[k]}"
                held[k] = i
        for k, lock in enumerate(self._locks):
            if (found := self._lock_row(s, k)[0]) != held.get(k, p.NOBODY):
                yield "I5", f"lock {lock} is owned by {found}, not {held.get(k, p.NOBODY)}"
        if "global_pool" not in scheme.grants:
            if owner != p.NOBODY:
                yield "I6", f"thread {owner} owns a semaphore where there is none"
            return
        if owner != p.NOBODY and not _inside(self._place(s, owner)):
            yield "I6", f"the owner, thread {owner}, is at {self._place(s, owner)}"
        for i in range(len(self._threads)):
            if i != owner and self._row(s, i)[p.DRAWN] > 0:
                yield "I6", f"thread {i} has drawn from the pool, thread {owner} owns it"
            at_entry = scheme.entry == "semaphore" and _inside(self._place(s, i))
            if at_entry and i != owner:
                yield "I6", f"thread {i} is inside, thread {owner} owns the semaphore"
        if owner == p.NOBODY and s[p.S_POOL] != (self.scenario.reserve or 0):
            yield "I7", f"{s[p.S_POOL]} pages in the pool and nobody owns the semaphore"

    def _queue_breaches(self, s: list[int]) -> Iterator[tuple[str, str]]:
        scenario = self.scenario
        owners = [s[p.S_OWNER], *(self._lock_row(s, k)[0] for k in range(len(self._locks)))]
        try:
            queues = self._queues(s)
        except BrokenInvariant as broken:
            yield broken.number, broken.found
            return
        for k, (owner, queue) in enumerate(zip(owners, queues, strict=True)):
            if queue and (owner == p.NOBODY or owner in queue):
                yield "I8", f"threads {queue} sleep on what thread {owner} owns"
            for i in queue:
                step = self._step(s, i)
                if k > 0:
                    mount, name = self._locks[k - 1]
                    right = step == f"lock {name}" and self.mount_of[i] == mount
                    right = right and self._row(s, i)[p.ASLEEP] == p.ON_LOCK
                else:
                    at_entry = scenario.scheme.entry == "semaphore"
                    right = step == "enter" if at_entry else step.startswith("alloc")
                    right = right and self._row(s, i)[p.ASLEEP] == p.ON_SEMAPHORE
                if not right:
                    yield "I8", f"thread {i} at {step!r} sleeps in queue {k}"
        times = Counter(i for queue in queues for i in queue)
        for i in range(len(self._threads)):
            asleep = self._row(s, i)[p.ASLEEP]
            queued = asleep in (p.ON_SEMAPHORE, p.ON_LOCK)
            if times[i] != queued or (queued and scenario.waiting == "racing"):
                yield "I8", f"thread {i}, asleep on {_ASLEEP[asleep]!r}, is in {times[i]} queues"
            if not queued and self._row(s, i)[p.NEXT] != p.NOBODY:
                yield "I8", f"thread {i} is in no queue and stands before another"
            if asleep == p.ON_OWN and not (
                scenario.scheme.exit == "refill_flag_set"
                and s[p.S_OWNER] == i
                and self._place(s, i) == "exit"
                and self._row(s, i)[p.DRAWN] > 0
            ):
                yield "I8", f"thread {i} at {self._place(s, i)} sleeps on its own semaphore"
        for old, new in zip(self._queues_before or queues, queues, strict=True):
            if new not in [old[k:] + joined for k in (0, 1) for joined in ((), (self._fired,))]:
                yield "I9", f"queue {old} became {new} when thread {self._fired} fired"

    def _class_breaches(self, s: list[int]) -> Iterator[tuple[str, str]]:
        sizes = s[self._t[p.H_S_SIZE] :][: self._t[p.H_CLASSES]]
        if sum(sizes) != len(self._threads) or min(sizes) < 0:
            yield "I10", f"sizes {sizes} of {len(self._threads)} threads"
            return
        for i in range(len(self._threads)):
            c, position = self._row(s, i)[p.CLASS], self._row(s, i)[p.POSITION]
            right = int(rules.class_of(self.tables.t, self.state, i))
            members = self._members(s, c)
            if c != right or not 0 <= position < len(members) or members[position] != i:
                yield "I10", f"thread {i} is number {position} of class {c}, belongs to {right}"
        if s[p.S_PENDING] or s[p.S_MOVED] or s[p.S_OVERFLOW]:
            left = f"{s[p.S_PENDING]} allocs without number, {s[p.S_MOVED]} threads to regroup"
            yield "I15", f"{left}, overflow {s[p.S_OVERFLOW]}"

    # --- reading the state -----------------------------------------------------------------------

    def _place(self, s: list[int], i: int) -> int | str:
        return self._places[s[p.S_THREAD + i * p.S_THREAD_ROW + p.PLACE]]

    def _bio(self, s: list[int], slot: int) -> Bio:
        pages, drawn, owner, upper = self._bio_row(s, slot)
        carried = None if upper == p.NOBODY else self._bio(s, upper)
        return Bio(self.mount_of[owner], owner, pages, drawn, carried)

    def _row(self, s: list[int], i: int) -> list[int]:
        at = p.S_THREAD + i * p.S_THREAD_ROW
        return s[at : at + p.S_THREAD_ROW]

    def _lock_row(self, s: list[int], k: int) -> list[int]:
        at = self._t[p.H_S_LOCK] + k * p.S_LOCK_ROW
        return s[at : at + p.S_LOCK_ROW]

    def _bio_row(self, s: list[int], slot: int) -> list[int]:
        at = self._t[p.H_S_BIO] + slot * p.S_BIO_ROW
        return s[at : at + p.S_BIO_ROW]

    def _mount_pool(self, s: list[int], mount: int) -> int:
        return s[self._t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.MOUNT_POOL]

    def _members(self, s: list[int], c: int) -> list[int]:
        t = self._t
        size = s[t[p.H_S_SIZE] + c]
        return s[t[p.H_S_MEMBER] + c * t[p.H_THREADS] :][:size]

    def _bag_slots(self, s: list[int], mount: int) -> list[int]:
        t = self._t
        size = s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG]
        return s[t[p.H_S_BAG] + mount * t[p.H_BIOS] :][:size]

    def _bag(self, s: list[int], mount: int) -> list[Bio]:
        return [self._bio(s, slot) for slot in self._bag_slots(s, mount)]

    def _slots(self, s: list[int], slot: int) -> list[int]:
        """A chain of slots; one that runs in a circle is cut where it is longer than all slots."""
        chain: list[int] = []
        while slot != p.NOBODY and len(chain) <= self._t[p.H_BIOS]:
            chain.append(slot)
            slot = self._bio_row(s, slot)[p.BIO_UPPER]
        return chain

    def _bios(self, s: list[int]) -> Iterator[tuple[int, list[int]]]:
        """Every outstanding bio, carried ones too: its slot and its row."""
        first = [slot for m in range(len(self.scenario.mounts)) for slot in self._bag_slots(s, m)]
        first += [self._row(s, i)[p.CARRIES] for i in range(len(self._threads))]
        for slot in first:
            for each in self._slots(s, slot):
                yield each, self._bio_row(s, each)

    def _queue(self, s: list[int], head: int, tail: int, what: str) -> tuple[int, ...]:
        queue: list[int] = []
        i = head
        while i != p.NOBODY:
            if len(queue) == len(self._threads):
                raise BrokenInvariant("I8", f"the queue of the {what} runs in a circle: {queue}")
            queue.append(i)
            i = self._row(s, i)[p.NEXT]
        if tail != (queue[-1] if queue else p.NOBODY):
            raise BrokenInvariant("I8", f"the queue of the {what} is {queue}, its tail {tail}")
        return tuple(queue)

    def _lock_queue(self, s: list[int], k: int) -> tuple[int, ...]:
        _, head, tail = self._lock_row(s, k)
        return self._queue(s, head, tail, f"lock {self._locks[k]}")

    def _queues(self, s: list[int]) -> list[tuple[int, ...]]:
        semaphore = self._queue(s, s[p.S_HEAD], s[p.S_TAIL], "semaphore")
        return [semaphore, *(self._lock_queue(s, k) for k in range(len(self._locks)))]

    def _need(self, i: int) -> int:
        return self.scenario.mounts[self.mount_of[i]].filesystem.nr_pages

    def _step(self, s: list[int], i: int) -> str:
        place = self._place(s, i)
        if isinstance(place, str):
            return place
        return str(self.scenario.mounts[self.mount_of[i]].filesystem.program[place])

    def _before_submit(self, i: int, s: list[int]) -> bool:
        """Whether a thread that serves or writes a page has not sent its bio yet."""
        place = self._place(s, i)
        verbs = [step.verb for step in self.scenario.mounts[self.mount_of[i]].filesystem.program]
        return place == "enter" or (isinstance(place, int) and place <= verbs.index("submit"))

    def _all_pages(self, s: list[int]) -> int:
        pages = s[p.S_FREE] + s[p.S_DIRTY] + s[p.S_POOL]
        pages += s[p.S_KILLS] * self.scenario.machine.pages_per_kill
        pages += sum(self._mount_pool(s, m) for m in range(len(self.scenario.mounts)))
        dirtiers = {i for i, row in enumerate(self._threads) if row[p.T_KIND] == p.DIRTIER}
        for i in range(len(self._threads)):
            row = self._row(s, i)
            pages += row[p.HELD] + row[p.OWN] + row[p.CLAIM]
            # A page under reclaim is neither dirty nor in a bio before the submit.
            pages += i in dirtiers and self._before_submit(i, s)
        for _, row in self._bios(s):
            pages += row[p.BIO_PAGES] + (row[p.BIO_OWNER] in dirtiers)
        return pages


_COUNTED = {
    "want": p.WANT, "held": p.HELD, "own": p.OWN, "drawn": p.DRAWN, "claim": p.CLAIM,
    "quota": p.QUOTA, "bios": p.OUT,
}  # fmt: skip


def _inside(place: int | str) -> bool:
    return isinstance(place, int) or place == "exit"


def _order(bio: Bio) -> tuple[Any, ...]:
    """A key under which bios sort, those that carry none before those that do."""
    *numbers, carries = bio
    return (*numbers, () if carries is None else _order(carries))
