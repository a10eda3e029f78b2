"""Packing: a scenario as integer and float tables, the only thing the compiled rules read.

The integer table ``t`` (int64) has a head of scalars at the offsets ``H_*``, then the code, then
sections whose beginnings the head gives. The float table ``f`` (float64) has the device rate of
each mount, then the cumulative probabilities of the demand distributions.

========  ==================================================================================
section   its rows
========  ==================================================================================
code      CODE_ROW ints for each place a thread can be at: opcode, argument, guard class
          (-1 where the thread's own state decides) and the class when it has nothing of
          its own. Each mount has a block of places, and each loop worker another of the
          mount below: touch, idle, done, enter, steps, exit
mount     M_ROW ints: nr_pages, mount below (-1: a device), depth, completion pages, first
          lock, locks
thread    T_ROW ints: mount whose program it runs, kind, first place of its block, the
          stacked mount a loop worker serves (-1)
class     C_ROW ints: kind, argument, reason (what its threads wait for)
demand    for each distribution: how many numbers, where they stand in ``f``, the numbers
========  ==================================================================================

The state ``s`` (int64) has the scalars at ``S_*``, then a row of ``S_THREAD_ROW`` ints for each
thread, then sections that the head of ``t`` places (``H_S_*``).

A guard class groups the threads whose next step waits for the same thing. Class 0 is always
enabled; the next ``H_CONDITIONAL - 1`` are looked at in each state; the rest is never enabled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reservelab.model.filesystems import Step
from reservelab.model.scenario import Scenario

# What a thread at a place does next.
TOUCH, IDLE, DONE, ENTER, ALLOC, LOCK, UNLOCK, SUBMIT, WAIT, EXIT = range(10)
C_OPCODE, C_OPERAND, C_STATIC, C_OTHERWISE, CODE_ROW = range(5)
# Places of a block; the steps of the program follow ENTER, and EXIT follows them.
TOUCH_AT, IDLE_AT, DONE_AT, ENTER_AT, STEPS_AT = range(5)

(
    ENTRY_NOTHING, ENTRY_HALF_MARK, ENTRY_OWN_BY_PAGE, ENTRY_OWN_AT_ONCE, ENTRY_OWN_FULL,
    ENTRY_CLAIM, ENTRY_SEMAPHORE,
) = range(7)  # fmt: skip
GRANT_NONE, GRANT_FREE, GRANT_MEMALLOC, GRANT_OWN, GRANT_CLAIM, GRANT_MOUNT, GRANT_POOL = range(7)
EXIT_NOTHING, EXIT_GIVE_BACK, EXIT_UNCLAIM, EXIT_REFILL, EXIT_REFILL_FLAG_SET, EXIT_FULL = range(6)
RETURN_FREE, RETURN_MOUNT, RETURN_OWN, RETURN_POOL = range(4)
_ENTRY = ("nothing", "half_mark", "own_by_page", "own_at_once", "own_full", "tickets", "semaphore")
_GRANT = ("", "free", "memalloc", "own", "claim", "mount_pool", "global_pool")
_EXIT = ("nothing", "give_back", "unclaim", "refill", "refill_flag_set", "wait_full")
_RETURN = ("free", "mount_pool", "own", "pool")

# What a stuck thread waits for; the reasons of a deadlock are a set of these, as bits.
REASONS = ("entry", "pages", "semaphore", "lock", "refill", "own_semaphore", "completion", "io")
(
    R_ENTRY, R_PAGES, R_SEMAPHORE, R_LOCK, R_REFILL, R_OWN_SEMAPHORE, R_COMPLETION, R_IO,
) = range(8)  # fmt: skip
R_NONE = 8

# Kinds of guard classes: always enabled; conditional; never enabled.
K_READY = 0
K_TOUCH, K_ENTER, K_ALLOC, K_ALLOC_OWNER, K_LOCK, K_REFILL, K_FULL, K_PICK = range(1, 9)
K_OWN, K_ASLEEP_SEMAPHORE, K_ASLEEP_LOCK, K_ASLEEP_OWN, K_IO, K_DONE = range(9, 15)
C_KIND, C_ARGUMENT, C_REASON, C_ROW = range(4)
_REASON = {
    K_READY: R_NONE, K_TOUCH: R_PAGES, K_ENTER: R_ENTRY, K_ALLOC: R_PAGES, K_ALLOC_OWNER: R_PAGES,
    K_LOCK: R_LOCK, K_REFILL: R_REFILL, K_FULL: R_REFILL, K_PICK: R_NONE, K_OWN: R_ENTRY,
    K_ASLEEP_SEMAPHORE: R_SEMAPHORE, K_ASLEEP_LOCK: R_LOCK, K_ASLEEP_OWN: R_OWN_SEMAPHORE,
    K_IO: R_IO, K_DONE: R_NONE,
}  # fmt: skip

M_NEED, M_ON, M_DEPTH, M_COMPLETION, M_LOCK, M_LOCKS, M_ROW = range(7)
T_MOUNT, T_KIND, T_BLOCK, T_SERVES, T_ROW = range(5)
FLUSHER, DIRTIER, WORKER = range(3)

(
    H_MOUNTS, H_THREADS, H_CLASSES, H_CONDITIONAL, H_LOCKS, H_BIOS, H_QUOTA, H_PAGES, H_DIRTY,
    H_KILLS, H_PAGES_PER_KILL, H_RESERVE, H_MARK, H_POOL, H_MOUNT_POOL, H_STANDING, H_ASLEEP,
    H_ENTRY, H_LIMIT, H_EXIT, H_RETURNS, H_COUNTS_OWN, H_COUNTS_CLAIM, H_COUNTS_POOL,
    H_KEEPS_DRAWN, H_HAS_POOL, H_SLEEPS, H_MOUNT, H_THREAD, H_CLASS, H_DEMAND,
    H_S_MOUNT, H_S_LOCK, H_S_SIZE, H_S_MEMBER, H_S_PENDING, H_S_MOVED, H_S_BIO, H_S_BAG,
    H_STATE,
) = range(40)  # fmt: skip
H_GRANTS = 40  # five places: an order over at most five sources
H_NEVER = 45  # the classes that are never enabled, in the order K_OWN .. K_DONE
H_ALLOC_OWNER, H_REFILL, H_FULL = 51, 52, 53
HEAD = 54

(
    S_FREE, S_DIRTY, S_POOL, S_OWNER, S_KILLS, S_INSIDE, S_ASIDE, S_HEAD, S_TAIL, S_PENDING,
    S_MOVED, S_WRITEPAGES, S_REDIRTIED, S_UNUSED_BIO, S_OVERFLOW,
) = range(15)  # fmt: skip
S_THREAD = 16
(
    PLACE, WANT, HELD, OWN, DRAWN, CLAIM, QUOTA, OUT, ASLEEP, NEXT, CARRIES, CLASS, POSITION,
) = range(13)  # fmt: skip
S_THREAD_ROW = 16
AWAKE, ON_SEMAPHORE, ON_LOCK, ON_OWN = range(4)
MOUNT_POOL, BAG, S_MOUNT_ROW = range(3)
LOCK_OWNER, LOCK_HEAD, LOCK_TAIL, S_LOCK_ROW = range(4)
BIO_PAGES, BIO_DRAWN, BIO_OWNER, BIO_UPPER, S_BIO_ROW = range(5)
NOBODY = -1


@dataclass(frozen=True)
class Tables:
    """A packed scenario.

    Parameters
    ----------
    t : ndarray of int64
        The integer table.
    f : ndarray of float64
        The float table.
    """

    t: NDArray[np.int64]
    f: NDArray[np.float64]

    def state(self) -> NDArray[np.int64]:
        """Room for one state, not yet started; int64, ``t[H_STATE]`` long."""
        return np.zeros(int(self.t[H_STATE]), dtype=np.int64)


def bios_at_most(scenario: Scenario) -> int:
    """The most bios that can be outstanding in a scenario.

    Parameters
    ----------
    scenario : Scenario
        The scenario.

    Returns
    -------
    int
        Every bio comes from one writepage of a flusher, one dirty page of a dirtier, or from a
        loop worker for one bio of a mount above.
    """
    flushers = sum(mount.flushers for mount in scenario.mounts) * scenario.quota
    dirtiers = sum(mount.dirtiers for mount in scenario.mounts)
    cleaned = scenario.machine.dirty + dirtiers * scenario.quota if dirtiers else 0
    return (flushers + cleaned) * levels(scenario)


def pack(scenario: Scenario, bios: int | None = None) -> Tables:
    """Pack a scenario into tables.

    Parameters
    ----------
    scenario : Scenario
        The scenario.
    bios : int, optional
        Room for bios. The default is what pages can fill and one for each thread; bios of no
        pages can need more, up to `bios_at_most`, and the run loop then says so.

    Returns
    -------
    Tables
        The tables.
    """
    machine, scheme, mounts = scenario.machine, scenario.scheme, scenario.mounts
    if bios is None:
        filled = machine.pages + machine.oom_kills * machine.pages_per_kill
        bios = (filled + scenario.threads + 16) * levels(scenario)
    classes = _Classes(scenario)
    code: list[tuple[int, ...]] = []
    demands: list[int] = []
    probabilities: list[float] = []
    locks = 0
    mount_rows: list[tuple[int, ...]] = []
    lock_ids: list[dict[str, int]] = []
    for mount in mounts:
        names = mount.filesystem.locks
        lock_ids.append({name: locks + k for k, name in enumerate(names)})
        on, device = mount.on, mount.device
        depth, completion = (device.depth, device.completion_pages) if device else (0, 0)
        need = mount.filesystem.nr_pages
        mount_rows.append(
            (need, NOBODY if on is None else on, depth, completion, locks, len(names))
        )
        locks += len(names)

    def block(index: int, worker: bool, serves: int) -> int:
        """Append the places of one mount's threads, or of one loop worker; return the first."""
        filesystem = mounts[index].filesystem
        first = len(code)
        code.append((TOUCH, 0, classes.of(K_TOUCH) if mounts[index].dirtiers else 0, 0))
        code.append((IDLE, serves, classes.of(K_PICK, serves) if worker else 0, 0))
        code.append((DONE, 0, classes.never(K_DONE), 0))
        code.append((ENTER, filesystem.nr_pages, *classes.enter(filesystem.nr_pages)))
        for step in filesystem.program:
            match step.verb:
                case "alloc":
                    waits = classes.alloc(index, filesystem.backs_out and not worker)
                    code.append((ALLOC, demand(step), *waits))
                case "lock":
                    lock = lock_ids[index][step.lock]
                    code.append((LOCK, lock, classes.lock(lock), 0))
                case "unlock":
                    code.append((UNLOCK, lock_ids[index][step.lock], 0, 0))
                case "submit":
                    code.append((SUBMIT, 0, 0, 0))
                case _:
                    code.append((WAIT, 0, -1, 0))
        code.append((EXIT, 0, classes.exit(), 0))
        return first

    def demand(step: Step) -> int:
        """A fixed number as itself, a distribution as -1 - (its offset in the demand section)."""
        if len(step.demand) == 1:
            return step.demand[0][0]
        offset = len(demands)
        demands.extend((len(step.demand), len(mounts) + len(probabilities)))
        demands.extend(number for number, _ in step.demand)
        cumulative = np.cumsum([probability for _, probability in step.demand])
        probabilities.extend((cumulative / cumulative[-1]).tolist())
        return -1 - offset

    threads: list[tuple[int, int, int, int]] = []
    for index, mount in enumerate(mounts):
        first = block(index, False, NOBODY)
        threads += [(index, FLUSHER, first, NOBODY)] * mount.flushers
        threads += [(index, DIRTIER, first, NOBODY)] * mount.dirtiers
    for index in scenario.stacked:
        below = mounts[index].on
        assert below is not None  # `stacked` lists exactly the mounts that have one
        threads.append((below, WORKER, block(below, True, index), index))

    head = np.zeros(HEAD, dtype=np.int64)
    order = [_GRANT.index(grant) for grant in scheme.grants]
    head[H_GRANTS : H_GRANTS + len(order)] = order
    rows = classes.rows()
    sizes = {"code": len(code) * CODE_ROW, "mount": len(mounts) * M_ROW}
    sizes |= {"thread": len(threads) * T_ROW, "class": len(rows) * C_ROW}
    at_mount = HEAD + sizes["code"]
    at_thread = at_mount + sizes["mount"]
    at_class = at_thread + sizes["thread"]
    at_demand = at_class + sizes["class"]
    s_mount = S_THREAD + len(threads) * S_THREAD_ROW
    s_lock = s_mount + len(mounts) * S_MOUNT_ROW
    s_size = s_lock + locks * S_LOCK_ROW
    s_member = s_size + len(rows)
    s_pending = s_member + len(rows) * len(threads)
    s_moved = s_pending + len(threads)
    # A firing moves the firing thread, each lock's and the semaphore's next owner, and the owners
    # of a completed bio and of those it carries.
    s_bio = s_moved + 2 + locks + len(mounts)
    s_bag = s_bio + bios * S_BIO_ROW
    reserve = scenario.reserve or 0
    for place, value in {
        H_MOUNTS: len(mounts), H_THREADS: len(threads), H_CLASSES: len(rows),
        H_CONDITIONAL: classes.conditional, H_LOCKS: locks, H_BIOS: bios, H_QUOTA: scenario.quota,
        H_PAGES: machine.pages, H_DIRTY: machine.dirty, H_KILLS: machine.oom_kills,
        H_PAGES_PER_KILL: machine.pages_per_kill, H_RESERVE: reserve,
        H_MARK: reserve if scheme.start == "mark" else 0,
        H_POOL: reserve if scheme.start == "pool" else 0,
        H_MOUNT_POOL: reserve if scheme.start == "mount_pools" else 0,
        H_STANDING: scheme.start == "own", H_ASLEEP: scenario.waiting == "asleep",
        H_ENTRY: _ENTRY.index(scheme.entry), H_LIMIT: scheme.max_sections or 0,
        H_EXIT: _EXIT.index(scheme.exit), H_RETURNS: _RETURN.index(scheme.returns),
        H_COUNTS_OWN: scheme.returns == "own", H_COUNTS_CLAIM: scheme.entry == "tickets",
        H_COUNTS_POOL: "global_pool" in scheme.grants,
        H_KEEPS_DRAWN: scheme.exit in ("refill", "refill_flag_set"),
        H_HAS_POOL: "global_pool" in scheme.grants,
        # Whether a thread can be in a class that waits and is never enabled.
        H_SLEEPS: (scenario.waiting == "asleep" and (locks > 0 or "global_pool" in scheme.grants))
        or scheme.exit == "refill_flag_set" or scheme.entry == "own_full",
        H_MOUNT: at_mount, H_THREAD: at_thread, H_CLASS: at_class, H_DEMAND: at_demand,
        H_S_MOUNT: s_mount, H_S_LOCK: s_lock, H_S_SIZE: s_size, H_S_MEMBER: s_member,
        H_S_PENDING: s_pending, H_S_MOVED: s_moved, H_S_BIO: s_bio, H_S_BAG: s_bag,
        H_STATE: s_bag + len(mounts) * bios,
        H_ALLOC_OWNER: classes.find(K_ALLOC_OWNER), H_REFILL: classes.find(K_REFILL),
        H_FULL: classes.find(K_FULL),
    }.items():  # fmt: skip
        head[place] = value
    for offset, kind in enumerate(range(K_OWN, K_DONE + 1)):
        head[H_NEVER + offset] = classes.never(kind)
    parts = [code, mount_rows, threads, rows, demands]
    body = [np.asarray(part, dtype=np.int64).reshape(-1) for part in parts]
    rates = [mount.device.rate if mount.device else 0.0 for mount in mounts]
    return Tables(
        np.concatenate([head, *body]), np.asarray(rates + probabilities, dtype=np.float64)
    )


def levels(scenario: Scenario) -> int:
    """How many bios one writepage can turn into: the depth of the deepest stack.

    Parameters
    ----------
    scenario : Scenario
        The scenario.

    Returns
    -------
    int
        1 without stacks.
    """
    deepest = 1
    for mount in scenario.mounts:
        depth, below = 1, mount.on
        while below is not None:
            depth, below = depth + 1, scenario.mounts[below].on
        deepest = max(deepest, depth)
    return deepest


class _Classes:
    """Numbers the guard classes a scenario can use."""

    def __init__(self, scenario: Scenario) -> None:
        self._scheme = scheme = scenario.scheme
        self._asleep = scenario.waiting == "asleep"
        self._numbers: dict[tuple[int, int], int] = {(K_READY, 0): 0}
        self.conditional = 0
        if "global_pool" in scheme.grants:
            self.of(K_ALLOC_OWNER)
        if scheme.exit == "refill":
            self.of(K_REFILL)
        if scheme.exit == "wait_full":
            self.of(K_FULL)
        if any(mount.dirtiers for mount in scenario.mounts):
            self.of(K_TOUCH)
        for index, mount in enumerate(scenario.mounts):
            self.enter(mount.filesystem.nr_pages)
            self.alloc(index, mount.filesystem.backs_out)
            if mount.on is not None:
                self.of(K_PICK, index)
                self.alloc(mount.on, False)  # a loop worker never backs out
        if not self._asleep:
            for lock in range(sum(len(mount.filesystem.locks) for mount in scenario.mounts)):
                self.lock(lock)
        self.conditional = len(self._numbers)

    def of(self, kind: int, argument: int = 0) -> int:
        if self.conditional:  # all are numbered: only look one up
            return self._numbers[kind, argument]
        return self._numbers.setdefault((kind, argument), len(self._numbers))

    def find(self, kind: int) -> int:
        return next((number for (k, _), number in self._numbers.items() if k == kind), -1)

    def never(self, kind: int) -> int:
        return self.conditional + kind - K_OWN

    def enter(self, need: int) -> tuple[int, int]:
        """The classes at enter; the argument of theirs is the pages the guard asks for."""
        entry, limited = self._scheme.entry, self._scheme.max_sections is not None
        if entry == "own_full":
            return -1, self.of(K_ENTER, 0) if limited else 0
        asks = {"own_by_page": min(need, 1), "own_at_once": need, "tickets": need}.get(entry, 0)
        guarded = asks or entry == "half_mark" or (entry == "semaphore" and not self._asleep)
        return (self.of(K_ENTER, asks) if guarded or limited else 0), 0

    def alloc(self, mount: int, backs_out: bool) -> tuple[int, int]:
        grants = set(self._scheme.grants)
        if "memalloc" in grants and backs_out:
            return 0, 0
        number = 0
        if "global_pool" not in grants or not self._asleep:
            number = self.of(K_ALLOC, mount if "mount_pool" in grants else 0)
        return (-1 if grants & {"own", "claim", "global_pool"} else number), number

    def lock(self, lock: int) -> int:
        return 0 if self._asleep else self.of(K_LOCK, lock)

    def exit(self) -> int:
        return 0 if self._scheme.exit in ("nothing", "give_back", "unclaim") else -1

    def rows(self) -> list[tuple[int, int, int]]:
        by_semaphore = self._scheme.entry == "semaphore"
        rows = []
        for kind, argument in self._numbers:
            reason = R_SEMAPHORE if kind == K_ENTER and by_semaphore else _REASON[kind]
            rows.append((kind, argument, reason))
        return rows + [(kind, 0, _REASON[kind]) for kind in range(K_OWN, K_DONE + 1)]
