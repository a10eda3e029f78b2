"""The rules of MODEL.md, written once, compiled, over the tables and states of model/pack.py.

What can happen is here; when it happens is the caller's business. A solver asks `is_enabled` about
the guard classes, fires a thread (`fire`), a loop worker's choice (`pick`), a completion
(`complete`) or the OOM killer (`kill`), gives every thread that has arrived at a random alloc its
number (`settle`), and calls `regroup`. The choices of a scheme are branches here, each in one
place; its name is not known.
"""

from __future__ import annotations

from typing import Any

from reservelab.model import pack as p
from reservelab.solve.compiled import compiled

Table = Any  # int64[:]; numba specialises, mypy need not know


@compiled
def start(t: Table, s: Table) -> None:
    """Write the first state into `s`: the reserve set aside, every thread at its beginning."""
    threads, mounts = t[p.H_THREADS], t[p.H_MOUNTS]
    for k in range(t[p.H_S_SIZE] + t[p.H_CLASSES]):
        s[k] = 0
    s[p.S_POOL] = t[p.H_POOL]
    s[p.S_FREE] = t[p.H_PAGES] - t[p.H_POOL] - mounts * t[p.H_MOUNT_POOL]
    s[p.S_ASIDE] = t[p.H_PAGES] - s[p.S_FREE]
    s[p.S_DIRTY] = t[p.H_DIRTY]
    s[p.S_KILLS] = t[p.H_KILLS]
    s[p.S_OWNER] = s[p.S_HEAD] = s[p.S_TAIL] = p.NOBODY
    for mount in range(mounts):
        s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.MOUNT_POOL] = t[p.H_MOUNT_POOL]
    for lock in range(t[p.H_LOCKS]):
        row = t[p.H_S_LOCK] + lock * p.S_LOCK_ROW
        s[row + p.LOCK_OWNER] = s[row + p.LOCK_HEAD] = s[row + p.LOCK_TAIL] = p.NOBODY
    bios = t[p.H_S_BIO]
    for bio in range(t[p.H_BIOS]):
        s[bios + bio * p.S_BIO_ROW + p.BIO_UPPER] = bio + 1
    s[bios + (t[p.H_BIOS] - 1) * p.S_BIO_ROW + p.BIO_UPPER] = p.NOBODY
    s[p.S_UNUSED_BIO] = 0
    for i in range(threads):
        row = p.S_THREAD + i * p.S_THREAD_ROW
        static = t[p.H_THREAD] + i * p.T_ROW
        s[row + p.QUOTA] = t[p.H_QUOTA]
        s[row + p.NEXT] = s[row + p.CARRIES] = p.NOBODY
        kind = t[static + p.T_KIND]
        at = p.ENTER_AT
        if kind == p.DIRTIER:
            at = p.TOUCH_AT
        elif kind == p.WORKER:
            at = p.IDLE_AT
        s[row + p.PLACE] = t[static + p.T_BLOCK] + at
        if t[p.H_STANDING]:
            need = t[t[p.H_MOUNT] + t[static + p.T_MOUNT] * p.M_ROW + p.M_NEED]
            s[row + p.OWN] = need
            s[p.S_FREE] -= need
            s[p.S_ASIDE] += need
    for i in range(threads):
        join(t, s, i, class_of(t, s, i))


@compiled
def class_of(t: Table, s: Table, i: int) -> int:
    """The guard class of thread `i`: what its next step waits for."""
    row = p.S_THREAD + i * p.S_THREAD_ROW
    asleep = s[row + p.ASLEEP]
    if asleep != p.AWAKE:
        return t[p.H_NEVER + p.K_ASLEEP_SEMAPHORE - p.K_OWN + asleep - p.ON_SEMAPHORE]
    code = p.HEAD + s[row + p.PLACE] * p.CODE_ROW
    known = t[code + p.C_STATIC]
    if known >= 0:
        return known
    opcode = t[code + p.C_OPCODE]
    if opcode == p.ALLOC:
        if s[row + p.OWN] > 0 or s[row + p.CLAIM] > 0:
            return 0
        if t[p.H_HAS_POOL] and s[p.S_OWNER] == i:
            return t[p.H_ALLOC_OWNER]
    elif opcode == p.WAIT:
        if s[row + p.OUT] > 0:
            return t[p.H_NEVER + p.K_IO - p.K_OWN]
    elif opcode == p.EXIT:
        if s[p.S_OWNER] != i:
            return 0
        if t[p.H_EXIT] == p.EXIT_FULL:
            return t[p.H_FULL]
        if t[p.H_EXIT] == p.EXIT_REFILL and s[row + p.DRAWN] > 0:
            return t[p.H_REFILL]
    elif s[row + p.OWN] < t[code + p.C_OPERAND]:  # enter with a standing reserve
        return t[p.H_NEVER + p.K_OWN - p.K_OWN]
    return t[code + p.C_OTHERWISE]


@compiled
def is_enabled(t: Table, s: Table, c: int) -> bool:
    """Whether the guard of class `c` holds."""
    row = t[p.H_CLASS] + c * p.C_ROW
    kind = t[row + p.C_KIND]
    if kind == p.K_ALLOC:
        if s[p.S_FREE] > 0:
            return True
        if t[p.H_MOUNT_POOL] > 0:
            pool = t[p.H_S_MOUNT] + t[row + p.C_ARGUMENT] * p.S_MOUNT_ROW + p.MOUNT_POOL
            return s[pool] > 0
        return t[p.H_HAS_POOL] and s[p.S_OWNER] == p.NOBODY and s[p.S_POOL] > 0
    if kind == p.K_ENTER:
        if t[p.H_LIMIT] > 0 and s[p.S_INSIDE] >= t[p.H_LIMIT]:
            return False
        entry = t[p.H_ENTRY]
        if entry == p.ENTRY_OWN_BY_PAGE or entry == p.ENTRY_OWN_AT_ONCE:
            return s[p.S_FREE] >= t[row + p.C_ARGUMENT]
        if entry == p.ENTRY_CLAIM:
            return s[p.S_POOL] >= t[row + p.C_ARGUMENT]
        if entry == p.ENTRY_HALF_MARK:
            return 2 * s[p.S_FREE] > t[p.H_MARK]
        if entry == p.ENTRY_SEMAPHORE:
            return s[p.S_OWNER] == p.NOBODY
        return True
    if kind == p.K_TOUCH:
        return s[p.S_FREE] > t[p.H_MARK] or s[p.S_DIRTY] > 0
    if kind == p.K_LOCK:
        lock = t[p.H_S_LOCK] + t[row + p.C_ARGUMENT] * p.S_LOCK_ROW
        return s[lock + p.LOCK_OWNER] == p.NOBODY
    if kind == p.K_ALLOC_OWNER:
        return s[p.S_FREE] > 0 or s[p.S_POOL] > 0
    if kind == p.K_REFILL:
        return s[p.S_FREE] > 0
    if kind == p.K_FULL:
        return s[p.S_POOL] == t[p.H_POOL]
    if kind == p.K_PICK:
        return s[t[p.H_S_MOUNT] + t[row + p.C_ARGUMENT] * p.S_MOUNT_ROW + p.BAG] > 0
    return kind == p.K_READY


@compiled
def reason_of(t: Table, s: Table, c: int) -> int:
    """What the threads of class `c` wait for while its guard does not hold (p.R_*)."""
    row = t[p.H_CLASS] + c * p.C_ROW
    reason = t[row + p.C_REASON]
    if t[row + p.C_KIND] == p.K_ALLOC and t[p.H_HAS_POOL] and s[p.S_OWNER] != p.NOBODY:
        return p.R_SEMAPHORE
    return reason


@compiled
def device_channels(t: Table, s: Table, mount: int) -> int:
    """Channels of the mount's device that are completing bios now; 0 for a stacked mount."""
    row = t[p.H_MOUNT] + mount * p.M_ROW
    if s[p.S_FREE] < t[row + p.M_COMPLETION]:
        return 0
    return min(s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG], t[row + p.M_DEPTH])


@compiled
def fire(t: Table, s: Table, i: int) -> None:
    """Fire the next step of thread `i`, whose guard holds."""
    row = p.S_THREAD + i * p.S_THREAD_ROW
    code = p.HEAD + s[row + p.PLACE] * p.CODE_ROW
    opcode = t[code + p.C_OPCODE]
    if opcode == p.ALLOC:
        _alloc(t, s, i)
    elif opcode == p.ENTER:
        _enter(t, s, i, t[code + p.C_OPERAND])
    elif opcode == p.SUBMIT:
        _submit(t, s, i)
    elif opcode == p.EXIT:
        _exit(t, s, i)
    elif opcode == p.LOCK:
        lock = t[p.H_S_LOCK] + t[code + p.C_OPERAND] * p.S_LOCK_ROW
        if s[lock + p.LOCK_OWNER] == p.NOBODY:
            s[lock + p.LOCK_OWNER] = i
            _arrive(t, s, i, s[row + p.PLACE] + 1)
        else:
            sleep(s, i, p.ON_LOCK, lock + p.LOCK_HEAD, lock + p.LOCK_TAIL)
    elif opcode == p.UNLOCK:
        _release_lock(t, s, t[code + p.C_OPERAND])
        _arrive(t, s, i, s[row + p.PLACE] + 1)
    elif opcode == p.WAIT:
        _arrive(t, s, i, s[row + p.PLACE] + 1)
    elif s[p.S_FREE] > t[p.H_MARK]:  # touch
        s[p.S_FREE] -= 1
        s[p.S_DIRTY] += 1
        s[row + p.QUOTA] -= 1
        if s[row + p.QUOTA] == 0:
            s[row + p.PLACE] += p.DONE_AT - p.TOUCH_AT
    else:
        s[p.S_DIRTY] -= 1
        s[row + p.PLACE] += p.ENTER_AT - p.TOUCH_AT


@compiled
def pick(t: Table, s: Table, i: int, position: int) -> None:
    """Let idle loop worker `i` take the bio at `position` of its mount's queue."""
    row = p.S_THREAD + i * p.S_THREAD_ROW
    mount = t[t[p.H_THREAD] + i * p.T_ROW + p.T_SERVES]
    s[row + p.CARRIES] = _take_bio(t, s, mount, position)
    s[row + p.PLACE] += p.ENTER_AT - p.IDLE_AT


@compiled
def complete(t: Table, s: Table, mount: int, position: int) -> None:
    """Complete the bio at `position` in flight on the mount's device, and those it carries."""
    bio = _take_bio(t, s, mount, position)
    while bio != p.NOBODY:
        row = t[p.H_S_BIO] + bio * p.S_BIO_ROW
        pages, drawn, owner = s[row + p.BIO_PAGES], s[row + p.BIO_DRAWN], s[row + p.BIO_OWNER]
        thread = p.S_THREAD + owner * p.S_THREAD_ROW
        returns = t[p.H_RETURNS]
        if returns == p.RETURN_FREE:
            s[p.S_FREE] += pages
        elif returns == p.RETURN_MOUNT:
            _refill_mount(t, s, t[t[p.H_THREAD] + owner * p.T_ROW + p.T_MOUNT], pages)
        else:
            if returns == p.RETURN_OWN:
                s[thread + p.OWN] += drawn
            else:
                s[p.S_POOL] += drawn
            s[p.S_ASIDE] += drawn
            s[p.S_FREE] += pages - drawn
        if t[t[p.H_THREAD] + owner * p.T_ROW + p.T_KIND] == p.DIRTIER:
            s[p.S_FREE] += 1
        s[thread + p.OUT] -= 1
        if s[thread + p.OUT] == 0 or returns == p.RETURN_OWN:
            _moved(t, s, owner)
        carried = s[row + p.BIO_UPPER]
        s[row + p.BIO_UPPER] = s[p.S_UNUSED_BIO]
        s[p.S_UNUSED_BIO] = bio
        bio = carried


@compiled
def kill(t: Table, s: Table) -> None:
    """Let the OOM killer free its pages."""
    s[p.S_FREE] += t[p.H_PAGES_PER_KILL]
    s[p.S_KILLS] -= 1


@compiled
def settle(t: Table, s: Table, i: int, number: int) -> None:
    """Give thread `i`, which has arrived at a random alloc, the number it wants."""
    row = p.S_THREAD + i * p.S_THREAD_ROW
    s[row + p.WANT] = number
    if number == 0:
        _arrive(t, s, i, s[row + p.PLACE] + 1)


@compiled
def regroup(t: Table, s: Table, i: int) -> None:
    """Put thread `i` and all others that the last firing moved into their guard classes."""
    if i != p.NOBODY:
        _change_class(t, s, i)
    while s[p.S_MOVED] > 0:
        s[p.S_MOVED] -= 1
        _change_class(t, s, s[t[p.H_S_MOVED] + s[p.S_MOVED]])


@compiled
def is_completed(t: Table, s: Table) -> bool:
    """Whether every thread is done or an idle loop worker and no bio is outstanding."""
    for mount in range(t[p.H_MOUNTS]):
        if s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG] > 0:
            return False
    resting = 0
    for c in range(t[p.H_CLASSES]):
        kind = t[t[p.H_CLASS] + c * p.C_ROW + p.C_KIND]
        if kind == p.K_PICK or kind == p.K_DONE:
            resting += s[t[p.H_S_SIZE] + c]
    return resting == t[p.H_THREADS]


@compiled
def stuck_reasons(t: Table, s: Table) -> int:
    """In a deadlocked state: the set of what threads and bios wait for, as bits of p.R_*."""
    reasons = 0
    for c in range(t[p.H_CLASSES]):
        if s[t[p.H_S_SIZE] + c] > 0:
            reason = reason_of(t, s, c)
            if reason != p.R_NONE:
                reasons |= 1 << reason
    for mount in range(t[p.H_MOUNTS]):
        row = t[p.H_MOUNT] + mount * p.M_ROW
        lacking = s[p.S_FREE] < t[row + p.M_COMPLETION]
        if lacking and s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG] > 0:
            reasons |= 1 << p.R_COMPLETION
    return reasons


# --- effects of single steps ---------------------------------------------------------------------


@compiled
def _enter(t: Table, s: Table, i: int, need: int) -> None:
    row = p.S_THREAD + i * p.S_THREAD_ROW
    entry = t[p.H_ENTRY]
    if entry == p.ENTRY_OWN_BY_PAGE and need > 0:
        _to_own(s, row, 1)
        if s[row + p.OWN] < need:
            return
    elif entry == p.ENTRY_OWN_AT_ONCE:
        _to_own(s, row, need)
    elif entry == p.ENTRY_CLAIM:
        s[p.S_POOL] -= need
        s[row + p.CLAIM] = need
    elif entry == p.ENTRY_SEMAPHORE:
        if s[p.S_OWNER] != p.NOBODY:
            sleep(s, i, p.ON_SEMAPHORE, p.S_HEAD, p.S_TAIL)
            return
        s[p.S_OWNER] = i
    s[p.S_INSIDE] += 1
    _arrive(t, s, i, s[row + p.PLACE] + 1)


@compiled
def _to_own(s: Table, row: int, pages: int) -> None:
    s[p.S_FREE] -= pages
    s[row + p.OWN] += pages
    s[p.S_ASIDE] += pages


@compiled
def _alloc(t: Table, s: Table, i: int) -> None:
    """Take one page from the first source that grants one; else sleep, or back out."""
    row = p.S_THREAD + i * p.S_THREAD_ROW
    k = p.H_GRANTS
    while True:
        grant = t[k]
        k += 1
        if grant == p.GRANT_FREE or grant == p.GRANT_MEMALLOC:
            if s[p.S_FREE] > 0:
                s[p.S_FREE] -= 1
                break
        elif grant == p.GRANT_OWN:
            if s[row + p.OWN] > 0:
                s[row + p.OWN] -= 1
                s[row + p.DRAWN] += t[p.H_COUNTS_OWN]
                s[p.S_ASIDE] -= 1
                break
        elif grant == p.GRANT_CLAIM:
            if s[row + p.CLAIM] > 0:
                s[row + p.CLAIM] -= 1
                s[row + p.DRAWN] += t[p.H_COUNTS_CLAIM]
                s[p.S_ASIDE] -= 1
                break
        elif grant == p.GRANT_MOUNT:
            mount = t[t[p.H_THREAD] + i * p.T_ROW + p.T_MOUNT]
            pool = t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.MOUNT_POOL
            if s[pool] > 0:
                s[pool] -= 1
                s[p.S_ASIDE] -= 1
                break
        elif grant == p.GRANT_POOL:
            if s[p.S_POOL] > 0 and (s[p.S_OWNER] == p.NOBODY or s[p.S_OWNER] == i):
                s[p.S_OWNER] = i
                _draw_pool(t, s, row)
                break
        elif t[p.H_HAS_POOL]:
            # No source grants and the guard held: the semaphore is free over an empty pool, or
            # another thread owns it.
            if s[p.S_OWNER] == p.NOBODY:
                s[p.S_OWNER] = i
            else:
                sleep(s, i, p.ON_SEMAPHORE, p.S_HEAD, p.S_TAIL)
            return
        else:
            _back_out(t, s, i)
            return
    _hold(t, s, i)


@compiled
def _hold(t: Table, s: Table, i: int) -> None:
    row = p.S_THREAD + i * p.S_THREAD_ROW
    s[row + p.HELD] += 1
    s[row + p.WANT] -= 1
    if s[row + p.WANT] == 0:
        _arrive(t, s, i, s[row + p.PLACE] + 1)


@compiled
def _draw_pool(t: Table, s: Table, row: int) -> None:
    s[p.S_POOL] -= 1
    s[p.S_ASIDE] -= 1
    s[row + p.DRAWN] += t[p.H_COUNTS_POOL]


@compiled
def _back_out(t: Table, s: Table, i: int) -> None:
    row = p.S_THREAD + i * p.S_THREAD_ROW
    static = t[p.H_THREAD] + i * p.T_ROW
    mount = t[static + p.T_MOUNT]
    first = t[t[p.H_MOUNT] + mount * p.M_ROW + p.M_LOCK]
    for lock in range(first, first + t[t[p.H_MOUNT] + mount * p.M_ROW + p.M_LOCKS]):
        if s[t[p.H_S_LOCK] + lock * p.S_LOCK_ROW + p.LOCK_OWNER] == i:
            _release_lock(t, s, lock)
    if t[p.H_RETURNS] == p.RETURN_MOUNT:
        _refill_mount(t, s, mount, s[row + p.HELD])
    else:
        s[p.S_FREE] += s[row + p.HELD]
    s[row + p.HELD] = s[row + p.WANT] = 0
    s[p.S_INSIDE] -= 1
    s[p.S_REDIRTIED] += 1
    if t[static + p.T_KIND] == p.DIRTIER:
        s[p.S_DIRTY] += 1
        s[row + p.PLACE] = t[static + p.T_BLOCK] + p.TOUCH_AT
    else:
        s[row + p.PLACE] = t[static + p.T_BLOCK] + p.ENTER_AT


@compiled
def _submit(t: Table, s: Table, i: int) -> None:
    row = p.S_THREAD + i * p.S_THREAD_ROW
    bio = s[p.S_UNUSED_BIO]
    if bio == p.NOBODY:
        s[p.S_OVERFLOW] = 1
        return
    place = t[p.H_S_BIO] + bio * p.S_BIO_ROW
    s[p.S_UNUSED_BIO] = s[place + p.BIO_UPPER]
    s[place + p.BIO_PAGES] = s[row + p.HELD]
    s[place + p.BIO_OWNER] = i
    s[place + p.BIO_UPPER] = s[row + p.CARRIES]
    s[place + p.BIO_DRAWN] = 0
    if not t[p.H_KEEPS_DRAWN]:
        s[place + p.BIO_DRAWN] = s[row + p.DRAWN]
        s[row + p.DRAWN] = 0
    s[row + p.HELD] = 0
    s[row + p.CARRIES] = p.NOBODY
    s[row + p.OUT] += 1
    mount = t[t[p.H_THREAD] + i * p.T_ROW + p.T_MOUNT]
    bag = t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG
    s[t[p.H_S_BAG] + mount * t[p.H_BIOS] + s[bag]] = bio
    s[bag] += 1
    _arrive(t, s, i, s[row + p.PLACE] + 1)


@compiled
def _take_bio(t: Table, s: Table, mount: int, position: int) -> int:
    bag = t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG
    bios = t[p.H_S_BAG] + mount * t[p.H_BIOS]
    s[bag] -= 1
    bio = s[bios + position]
    s[bios + position] = s[bios + s[bag]]
    return bio


@compiled
def _refill_mount(t: Table, s: Table, mount: int, pages: int) -> None:
    pool = t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.MOUNT_POOL
    fits = min(pages, t[p.H_MOUNT_POOL] - s[pool])
    s[pool] += fits
    s[p.S_ASIDE] += fits
    s[p.S_FREE] += pages - fits


@compiled
def _exit(t: Table, s: Table, i: int) -> None:
    row = p.S_THREAD + i * p.S_THREAD_ROW
    static = t[p.H_THREAD] + i * p.T_ROW
    leaves = t[p.H_EXIT]
    if leaves == p.EXIT_GIVE_BACK:
        _to_own(s, row, -s[row + p.OWN])
    elif leaves == p.EXIT_UNCLAIM:
        s[p.S_POOL] += s[row + p.CLAIM]
        s[row + p.CLAIM] = 0
    elif leaves != p.EXIT_NOTHING and s[p.S_OWNER] == i:
        if s[row + p.DRAWN] > 0:  # never with EXIT_FULL: its bio took what was drawn
            if s[p.S_FREE] == 0:  # never with EXIT_REFILL: its guard
                s[row + p.ASLEEP] = p.ON_OWN
                return
            s[p.S_FREE] -= 1
            s[p.S_POOL] += 1
            s[p.S_ASIDE] += 1
            s[row + p.DRAWN] -= 1
            if s[row + p.DRAWN] > 0:
                return
        _release_semaphore(t, s)
    s[p.S_INSIDE] -= 1
    s[p.S_WRITEPAGES] += 1
    kind = t[static + p.T_KIND]
    at = p.IDLE_AT
    if kind == p.FLUSHER:
        s[row + p.QUOTA] -= 1
        at = p.ENTER_AT if s[row + p.QUOTA] > 0 else p.DONE_AT
    elif kind == p.DIRTIER:
        at = p.TOUCH_AT
    s[row + p.PLACE] = t[static + p.T_BLOCK] + at


@compiled
def _arrive(t: Table, s: Table, i: int, place: int) -> None:
    """Bring thread `i` to `place`; an alloc of no pages is skipped, a random one is pending."""
    row = p.S_THREAD + i * p.S_THREAD_ROW
    code = p.HEAD + place * p.CODE_ROW
    while t[code + p.C_OPCODE] == p.ALLOC:
        number = t[code + p.C_OPERAND]
        if number != 0:
            s[row + p.WANT] = number
            if number < 0:
                s[t[p.H_S_PENDING] + s[p.S_PENDING]] = i
                s[p.S_PENDING] += 1
            break
        place += 1
        code += p.CODE_ROW
    s[row + p.PLACE] = place


@compiled
def sleep(s: Table, i: int, kind: int, head: int, tail: int) -> None:
    """Put thread `i` to sleep at the end of the queue with these ends."""
    s[p.S_THREAD + i * p.S_THREAD_ROW + p.ASLEEP] = kind
    if s[head] == p.NOBODY:
        s[head] = i
    else:
        s[p.S_THREAD + s[tail] * p.S_THREAD_ROW + p.NEXT] = i
    s[tail] = i


@compiled
def _wake_first(t: Table, s: Table, head: int, tail: int) -> int:
    """Wake the first sleeper of a queue and return it, or NOBODY."""
    first = s[head]
    if first != p.NOBODY:
        row = p.S_THREAD + first * p.S_THREAD_ROW
        s[head] = s[row + p.NEXT]
        if s[head] == p.NOBODY:
            s[tail] = p.NOBODY
        s[row + p.NEXT] = p.NOBODY
        s[row + p.ASLEEP] = p.AWAKE
        _moved(t, s, first)
    return first


@compiled
def _release_lock(t: Table, s: Table, lock: int) -> None:
    row = t[p.H_S_LOCK] + lock * p.S_LOCK_ROW
    heir = _wake_first(t, s, row + p.LOCK_HEAD, row + p.LOCK_TAIL)
    s[row + p.LOCK_OWNER] = heir
    if heir != p.NOBODY:
        _arrive(t, s, heir, s[p.S_THREAD + heir * p.S_THREAD_ROW + p.PLACE] + 1)


@compiled
def _release_semaphore(t: Table, s: Table) -> None:
    heir = _wake_first(t, s, p.S_HEAD, p.S_TAIL)
    s[p.S_OWNER] = heir
    if heir == p.NOBODY:
        return
    row = p.S_THREAD + heir * p.S_THREAD_ROW
    place = s[row + p.PLACE]
    if t[p.HEAD + place * p.CODE_ROW + p.C_OPCODE] == p.ENTER:
        s[p.S_INSIDE] += 1
        _arrive(t, s, heir, place + 1)
    elif s[p.S_POOL] > 0:
        _draw_pool(t, s, row)
        _hold(t, s, heir)


# --- guard classes -------------------------------------------------------------------------------


@compiled
def _moved(t: Table, s: Table, i: int) -> None:
    s[t[p.H_S_MOVED] + s[p.S_MOVED]] = i
    s[p.S_MOVED] += 1


@compiled
def join(t: Table, s: Table, i: int, c: int) -> None:
    """Put thread `i`, which is in no guard class, into class `c`."""
    row = p.S_THREAD + i * p.S_THREAD_ROW
    size = t[p.H_S_SIZE] + c
    s[t[p.H_S_MEMBER] + c * t[p.H_THREADS] + s[size]] = i
    s[row + p.CLASS] = c
    s[row + p.POSITION] = s[size]
    s[size] += 1


@compiled
def _change_class(t: Table, s: Table, i: int) -> None:
    row = p.S_THREAD + i * p.S_THREAD_ROW
    old, new = s[row + p.CLASS], class_of(t, s, i)
    if old == new:
        return
    members = t[p.H_S_MEMBER] + old * t[p.H_THREADS]
    size = t[p.H_S_SIZE] + old
    s[size] -= 1
    last, position = s[members + s[size]], s[row + p.POSITION]
    s[members + position] = last
    s[p.S_THREAD + last * p.S_THREAD_ROW + p.POSITION] = position
    join(t, s, i, new)
