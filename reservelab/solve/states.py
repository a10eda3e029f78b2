"""States as values: canonical, bit-packed, stored once, and explored breadth-first.

Threads of one mount and one kind are interchangeable: permuting them changes no rule and no rate,
so the chain can be lumped by that symmetry (Kemeny and Snell 1960, section 6.3), and one state
stands for all its permutations. What makes a thread itself goes into one word, its *record*: its
place, its pages, whether it owns the semaphore, its position in the queue it sleeps in. Lock owners
follow from places. The records of a group are sorted.

An outstanding bio, with the bios it carries, is a *chain*: whose it is, where it is (a device or
queue, or a loop worker's hands), and its pages level by level. Whose it is matters only if somebody
can tell: in a program that waits for its own bios, or where drawn pages return to their owner.
Chains then sort behind the record of their thread; otherwise their owner is only a group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reservelab.model import pack as p
from reservelab.model.errors import BadInput
from reservelab.model.scenario import Scenario
from reservelab.solve import rules
from reservelab.solve.compiled import address, beyond, compiled, outlined
from reservelab.solve.simulate import weigh

Array = Any  # numba specialises, mypy need not know

# The layout table ``b`` (int64): widths in bits, then group of each thread and its first thread.
(
    B_FREE, B_DIRTY, B_POOL, B_KILLS, B_MOUNT_POOL, B_PLACE, B_WANT, B_HELD, B_OWN, B_DRAWN,
    B_CLAIM, B_QUOTA, B_QUEUE, B_OWNS, B_CHAINS, B_WHOSE, B_WHERE, B_PAGES, B_PAGES_DRAWN,
    B_CHAIN, B_LINKED, B_UNBOUNDED, B_RECORD,
) = range(23)  # fmt: skip
B_GROUP = 24

# Rewards of a state, by column.
W_INSIDE, W_ENTRY, W_PAGES, W_SEMAPHORE, W_LOCKS, W_IDLE, W_FINISHING, REWARDS = range(8)
TRANSIENT, COMPLETED, DEADLOCKED = range(3)
(
    X_STATES, X_CURSOR, X_WORDS, X_TRANSITIONS, X_SLOTS, X_ROOM_STATES, X_ROOM_WORDS,
    X_ROOM_TRANSITIONS, X_RECORD, X_STOP, X_TAGGED,
) = range(11)  # fmt: skip
PAUSED, EXHAUSTED, NO_ROOM, FOUND = range(4)
OUTCOMES = 64  # of one firing that can be in hand at once
FIRES, FINISHES = 1, 2  # labels of a transition: what the tagged thread does in it



@compiled
def _put(words: Array, bit: int, value: int, width: int) -> int:
    """Write `value` at `bit` of a zeroed bit string; return the bit after it."""
    if width > 0:
        word, shift = bit >> 6, bit & 63
        words[word] |= value << shift
        if shift + width > 64:
            words[word + 1] |= value >> (64 - shift)
    return bit + width


@compiled
def _get(words: Array, bit: int, width: int) -> int:
    """Read `width` bits, 62 at most, at `bit`."""
    if width == 0:
        return 0
    word, shift = bit >> 6, bit & 63
    value = words[word] >> shift
    if shift > 0:
        value &= (1 << (64 - shift)) - 1  # words are signed: drop what the shift brought in
    if shift + width > 64:
        value |= words[word + 1] << (64 - shift)
    return value & ((1 << width) - 1)


@compiled
def _sort(values: Array, first: int, last: int) -> None:
    """Sort values[first:last] by insertion: a handful of records or chains."""
    for k in range(first + 1, last):
        value = values[k]
        j = k
        while j > first and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value


@compiled
def _record(t: Array, s: Array, b: Array, i: int, position: int) -> int:
    """What makes thread `i` itself, in one word."""
    row = p.S_THREAD + i * p.S_THREAD_ROW
    record = s[row + p.PLACE] - t[t[p.H_THREAD] + i * p.T_ROW + p.T_BLOCK]
    record = record << b[B_WANT] | s[row + p.WANT]
    record = record << b[B_HELD] | s[row + p.HELD]
    record = record << b[B_OWN] | s[row + p.OWN]
    record = record << b[B_DRAWN] | s[row + p.DRAWN]
    record = record << b[B_CLAIM] | s[row + p.CLAIM]
    if not b[B_UNBOUNDED]:
        record = record << b[B_QUOTA] | s[row + p.QUOTA]
    record = record << b[B_QUEUE] | position
    if b[B_OWNS]:
        record = record << 1 | (1 if s[p.S_OWNER] == i else 0)
    return record


@compiled
def _chain(t: Array, s: Array, b: Array, bio: int, where: int) -> tuple[int, int]:
    """The code of a chain without its owner, and the thread at its top."""
    levels = 0
    code = 0
    top = p.NOBODY
    # From the lowest bio to the top one; decoding walks the mounts the other way.
    while bio != p.NOBODY:
        row = t[p.H_S_BIO] + bio * p.S_BIO_ROW
        # Where drawn pages return like all others the width is 0: nobody asks what was drawn.
        drawn = s[row + p.BIO_DRAWN] & ((1 << b[B_PAGES_DRAWN]) - 1)
        entry = s[row + p.BIO_PAGES] << b[B_PAGES_DRAWN] | drawn
        code |= entry << (levels * (b[B_PAGES] + b[B_PAGES_DRAWN]))
        top = s[row + p.BIO_OWNER]
        bio = s[row + p.BIO_UPPER]
        levels += 1
    return code << b[B_WHERE] | where, top


@outlined
def encode(t: Array, s: Array, b: Array, words: Array, scratch: Array) -> int:
    """Write the canonical form of a state to `words`; return how many words it takes.

    `scratch` has `scratch_size` ints.
    """
    threads, mounts = t[p.H_THREADS], t[p.H_MOUNTS]
    record, rank, order = 0, threads, 2 * threads
    begin, position, chains = 3 * threads, 4 * threads + 1, 5 * threads + 1
    for i in range(threads):
        scratch[position + i] = 0
        if s[p.S_THREAD + i * p.S_THREAD_ROW + p.ASLEEP] == p.ON_OWN:
            scratch[position + i] = threads
    for queue in range(-1, t[p.H_LOCKS]):
        head = t[p.H_S_LOCK] + queue * p.S_LOCK_ROW + p.LOCK_HEAD
        sleeper = s[p.S_HEAD] if queue < 0 else s[head]
        place = 1
        while sleeper != p.NOBODY:
            scratch[position + sleeper] = place
            place += 1
            sleeper = s[p.S_THREAD + sleeper * p.S_THREAD_ROW + p.NEXT]
    for i in range(threads):
        scratch[record + i] = _record(t, s, b, i, scratch[position + i])
        scratch[order + i] = i

    # Chains, each with the thread or group it belongs to in front.
    count = 0
    width = b[B_CHAIN] - b[B_WHOSE]
    for mount in range(mounts):
        bios = t[p.H_S_BAG] + mount * t[p.H_BIOS]
        for k in range(s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG]):
            code, top = _chain(t, s, b, s[bios + k], mount)
            whose = top if b[B_LINKED] else b[B_GROUP + top]
            scratch[chains + count] = whose << width | code
            count += 1
    for i in range(threads):
        carries = s[p.S_THREAD + i * p.S_THREAD_ROW + p.CARRIES]
        if carries != p.NOBODY:
            serves = t[t[p.H_THREAD] + i * p.T_ROW + p.T_SERVES]
            code, top = _chain(t, s, b, carries, mounts + serves)
            whose = top if b[B_LINKED] else b[B_GROUP + top]
            scratch[chains + count] = whose << width | code
            count += 1
    _sort(scratch, chains, chains + count)

    if b[B_LINKED]:
        k = 0
        for i in range(threads):
            scratch[begin + i] = k
            while k < count and scratch[chains + k] >> width == i:
                k += 1
        scratch[begin + threads] = k
    for i in range(1, threads):
        j = i
        while (
            j > 0
            and b[B_GROUP + scratch[order + j - 1]] == b[B_GROUP + i]
            and _before(b, scratch, i, scratch[order + j - 1], record, begin, chains, width)
        ):
            scratch[order + j] = scratch[order + j - 1]
            j -= 1
        scratch[order + j] = i

    if b[B_LINKED]:
        for k in range(threads):
            scratch[rank + scratch[order + k]] = k
        for k in range(count):
            code = scratch[chains + k]
            owner = scratch[rank + (code >> width)]
            scratch[chains + k] = owner << width | code & ((1 << width) - 1)
        _sort(scratch, chains, chains + count)

    bits = b[B_FREE] + b[B_DIRTY] + b[B_POOL] + b[B_KILLS] + mounts * b[B_MOUNT_POOL]
    bits += threads * b[B_RECORD] + b[B_CHAINS] + count * b[B_CHAIN]
    length = (bits + 63) >> 6
    for k in range(length):
        words[k] = 0
    bit = _put(words, 0, s[p.S_FREE], b[B_FREE])
    bit = _put(words, bit, s[p.S_DIRTY], b[B_DIRTY])
    bit = _put(words, bit, s[p.S_POOL], b[B_POOL])
    bit = _put(words, bit, s[p.S_KILLS], b[B_KILLS])
    for mount in range(mounts):
        pool = s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.MOUNT_POOL]
        bit = _put(words, bit, pool, b[B_MOUNT_POOL])
    for k in range(threads):
        bit = _put(words, bit, scratch[record + scratch[order + k]], b[B_RECORD])
    bit = _put(words, bit, count, b[B_CHAINS])
    for k in range(count):
        bit = _put(words, bit, scratch[chains + k], b[B_CHAIN])
    return length


@compiled
def _before(
    b: Array, scratch: Array, i: int, j: int, record: int, begin: int, chains: int, width: int
) -> bool:
    """Whether thread `i` sorts before thread `j` of its group."""
    if scratch[record + i] != scratch[record + j]:
        return scratch[record + i] < scratch[record + j]
    if not b[B_LINKED]:
        return False
    first, second = scratch[begin + i], scratch[begin + j]
    ours, theirs = scratch[begin + i + 1] - first, scratch[begin + j + 1] - second
    if ours != theirs:
        return ours < theirs
    mask = (1 << width) - 1
    for k in range(ours):
        one, other = scratch[chains + first + k] & mask, scratch[chains + second + k] & mask
        if one != other:
            return one < other
    return False


@outlined
def decode(t: Array, s: Array, b: Array, words: Array, scratch: Array) -> None:
    """Write the state that `words` stands for to `s`; thread k is the k-th record.

    `scratch` gets the position of each thread in the queue it sleeps in, the number of chains, and
    their codes.
    """
    threads, mounts = t[p.H_THREADS], t[p.H_MOUNTS]
    for k in range(t[p.H_S_SIZE] + t[p.H_CLASSES]):
        s[k] = 0
    bit = b[B_FREE]
    s[p.S_FREE] = _get(words, 0, bit)
    s[p.S_DIRTY] = _get(words, bit, b[B_DIRTY])
    bit += b[B_DIRTY]
    s[p.S_POOL] = _get(words, bit, b[B_POOL])
    bit += b[B_POOL]
    s[p.S_KILLS] = _get(words, bit, b[B_KILLS])
    bit += b[B_KILLS]
    s[p.S_ASIDE] = s[p.S_POOL]
    s[p.S_OWNER] = s[p.S_HEAD] = s[p.S_TAIL] = p.NOBODY
    for mount in range(mounts):
        pool = _get(words, bit, b[B_MOUNT_POOL])
        bit += b[B_MOUNT_POOL]
        s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.MOUNT_POOL] = pool
        s[p.S_ASIDE] += pool
    for lock in range(t[p.H_LOCKS]):
        row = t[p.H_S_LOCK] + lock * p.S_LOCK_ROW
        s[row + p.LOCK_OWNER] = s[row + p.LOCK_HEAD] = s[row + p.LOCK_TAIL] = p.NOBODY
    for bio in range(t[p.H_BIOS]):
        s[t[p.H_S_BIO] + bio * p.S_BIO_ROW + p.BIO_UPPER] = bio + 1
    s[t[p.H_S_BIO] + (t[p.H_BIOS] - 1) * p.S_BIO_ROW + p.BIO_UPPER] = p.NOBODY

    waiting = 0
    for i in range(threads):
        value = _get(words, bit, b[B_RECORD])
        bit += b[B_RECORD]
        row = p.S_THREAD + i * p.S_THREAD_ROW
        if b[B_OWNS]:
            if value & 1:
                s[p.S_OWNER] = i
            value >>= 1
        scratch[i] = value & ((1 << b[B_QUEUE]) - 1)
        waiting += scratch[i]
        value >>= b[B_QUEUE]
        s[row + p.QUOTA] = 2
        if not b[B_UNBOUNDED]:
            s[row + p.QUOTA] = value & ((1 << b[B_QUOTA]) - 1)
            value >>= b[B_QUOTA]
        s[row + p.CLAIM] = value & ((1 << b[B_CLAIM]) - 1)
        value >>= b[B_CLAIM]
        s[row + p.DRAWN] = value & ((1 << b[B_DRAWN]) - 1)
        value >>= b[B_DRAWN]
        s[row + p.OWN] = value & ((1 << b[B_OWN]) - 1)
        value >>= b[B_OWN]
        s[row + p.HELD] = value & ((1 << b[B_HELD]) - 1)
        value >>= b[B_HELD]
        s[row + p.WANT] = value & ((1 << b[B_WANT]) - 1)
        value >>= b[B_WANT]
        static = t[p.H_THREAD] + i * p.T_ROW
        s[row + p.PLACE] = t[static + p.T_BLOCK] + value
        s[row + p.NEXT] = s[row + p.CARRIES] = p.NOBODY
        s[p.S_ASIDE] += s[row + p.OWN] + s[row + p.CLAIM]
        if value >= p.STEPS_AT:
            s[p.S_INSIDE] += 1
            locked = b[B_GROUP + threads + s[row + p.PLACE]]
            lock = t[t[p.H_MOUNT] + t[static + p.T_MOUNT] * p.M_ROW + p.M_LOCK]
            while locked:
                if locked & 1:
                    s[t[p.H_S_LOCK] + lock * p.S_LOCK_ROW + p.LOCK_OWNER] = i
                locked >>= 1
                lock += 1
    position = 1
    while waiting > 0:
        for i in range(threads):
            if scratch[i] == position:
                waiting -= position
                row = p.S_THREAD + i * p.S_THREAD_ROW
                code = p.HEAD + s[row + p.PLACE] * p.CODE_ROW
                opcode = t[code + p.C_OPCODE]
                if opcode == p.EXIT:
                    s[row + p.ASLEEP] = p.ON_OWN
                elif opcode == p.LOCK:
                    lock = t[p.H_S_LOCK] + t[code + p.C_OPERAND] * p.S_LOCK_ROW
                    rules.sleep(s, i, p.ON_LOCK, lock + p.LOCK_HEAD, lock + p.LOCK_TAIL)
                else:
                    rules.sleep(s, i, p.ON_SEMAPHORE, p.S_HEAD, p.S_TAIL)
        position += 1

    chains = _get(words, bit, b[B_CHAINS])
    bit += b[B_CHAINS]
    scratch[threads] = chains
    for k in range(chains):
        code = _get(words, bit, b[B_CHAIN])
        bit += b[B_CHAIN]
        scratch[threads + 1 + k] = code
        _decode_chain(t, s, b, code)
    for i in range(threads):
        rules.join(t, s, i, rules.class_of(t, s, i))


@compiled
def scratch_size(threads: int, bios: int) -> int:
    """Ints that `encode` and `decode` need beside the state, and more than its words take."""
    return 8 * threads + 2 * bios + 64


@compiled
def _twins(t: Array, s: Array, b: Array, scratch: Array, i: int, j: int) -> bool:
    """Whether threads `i` and `j` of a decoded state differ in nothing but their number."""
    if b[B_GROUP + i] != b[B_GROUP + j]:
        return False
    if _record(t, s, b, i, scratch[i]) != _record(t, s, b, j, scratch[j]):
        return False
    if not b[B_LINKED]:
        return True
    width = b[B_CHAIN] - b[B_WHOSE]
    first = second = t[p.H_THREADS] + 1
    last = first + scratch[t[p.H_THREADS]]
    while True:
        while first < last and scratch[first] >> width != i:
            first += 1
        while second < last and scratch[second] >> width != j:
            second += 1
        if first == last or second == last:
            return first == second
        if (scratch[first] ^ scratch[second]) & ((1 << width) - 1):
            return False
        first += 1
        second += 1


@compiled
def _decode_chain(t: Array, s: Array, b: Array, code: int) -> None:
    mounts, threads = t[p.H_MOUNTS], t[p.H_THREADS]
    width = b[B_CHAIN] - b[B_WHOSE]
    whose = code >> width
    code &= (1 << width) - 1
    where = code & ((1 << b[B_WHERE]) - 1)
    code >>= b[B_WHERE]
    owner = whose
    if not b[B_LINKED]:
        owner = 0
        while b[B_GROUP + owner] != whose:
            owner += 1
    lowest = where if where < mounts else where - mounts
    level = b[B_PAGES] + b[B_PAGES_DRAWN]
    levels = 1
    mount = t[t[p.H_THREAD] + owner * p.T_ROW + p.T_MOUNT]
    while mount != lowest:
        mount = t[t[p.H_MOUNT] + mount * p.M_ROW + p.M_ON]
        levels += 1
    upper = p.NOBODY
    mount = t[t[p.H_THREAD] + owner * p.T_ROW + p.T_MOUNT]
    while levels > 0:
        levels -= 1
        entry = code >> (levels * level) & ((1 << level) - 1)
        bio = s[p.S_UNUSED_BIO]
        row = t[p.H_S_BIO] + bio * p.S_BIO_ROW
        s[p.S_UNUSED_BIO] = s[row + p.BIO_UPPER]
        s[row + p.BIO_UPPER] = upper
        s[row + p.BIO_OWNER] = owner
        s[row + p.BIO_PAGES] = entry >> b[B_PAGES_DRAWN]
        s[row + p.BIO_DRAWN] = entry & ((1 << b[B_PAGES_DRAWN]) - 1)
        s[p.S_THREAD + owner * p.S_THREAD_ROW + p.OUT] += 1
        upper = bio
        if levels > 0 or where >= mounts:
            for worker in range(threads):
                if t[t[p.H_THREAD] + worker * p.T_ROW + p.T_SERVES] == mount:
                    owner = worker
            mount = t[t[p.H_MOUNT] + mount * p.M_ROW + p.M_ON]
    if where >= mounts:
        s[p.S_THREAD + owner * p.S_THREAD_ROW + p.CARRIES] = upper
    else:
        bag = t[p.H_S_MOUNT] + where * p.S_MOUNT_ROW + p.BAG
        s[t[p.H_S_BAG] + where * t[p.H_BIOS] + s[bag]] = upper
        s[bag] += 1


@compiled
def _hash(words: Array, first: int, length: int) -> int:
    h = length * 0x5DEECE66D
    for k in range(first, first + length):
        h = (h ^ words[k]) * 0x2545F4914F6CDD1D
        h ^= h >> 29 & 0x7FFFFFFFF
    return h ^ h >> 17


@compiled
def _find(
    words: Array, length: int, arena: Array, offsets: Array, slots: Array, parents: Array, x: Array
) -> int:
    """The number of the state in `words`, a new one if it is not stored yet; -1: no room."""
    mask = x[X_SLOTS] - 1
    slot = _hash(words, 0, length) & mask
    while slots[slot] >= 0:
        number = slots[slot]
        first = offsets[number]
        if offsets[number + 1] - first == length:
            k = 0
            while k < length and arena[first + k] == words[k]:
                k += 1
            if k == length:
                return number
        slot = (slot + 1) & mask
    number, first = x[X_STATES], x[X_WORDS]
    if number == x[X_ROOM_STATES] or first + length > x[X_ROOM_WORDS]:
        return -1
    for k in range(length):
        arena[first + k] = words[k]
    x[X_WORDS] = offsets[number + 1] = first + length
    parents[number] = x[X_CURSOR]
    slots[slot] = number
    x[X_STATES] += 1
    return number


@compiled
def _rehash(arena: Array, offsets: Array, states: int, slots: Array, size: int) -> None:
    """Fill an empty hash table of `size` slots with the first `states` states."""
    for number in range(states):
        first = offsets[number]
        slot = _hash(arena, first, offsets[number + 1] - first) & (size - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        slots[slot] = number


@outlined
def _emit(
    t: Array, b: Array, stack: Array, likely: Array, words: Array, scratch: Array, arena: Array,
    offsets: Array, slots: Array, parents: Array, begin: Array, targets: Array, rates: Array,
    labels: Array, label: int, f: Array, x: Array,
) -> bool:
    """Store every state that a firing leads to, over all numbers drawn; False: no room.

    The state after the firing is the first on `stack` (t[H_STATE] ints each), its rate the first
    of `likely`.
    """  # fmt: skip
    size = t[p.H_STATE]
    depth = 0
    while depth >= 0:
        s = beyond(stack, depth * size)
        if s[p.S_PENDING] > 0:
            s[p.S_PENDING] -= 1
            i = s[t[p.H_S_PENDING] + s[p.S_PENDING]]
            row = t[p.H_DEMAND] - 1 - s[p.S_THREAD + i * p.S_THREAD_ROW + p.WANT]
            rate, last = likely[depth], t[row] - 1
            for k in range(t[row] - 1, -1, -1):
                # The last outcome takes the place of the state itself, so write it last.
                at = depth + k
                target = beyond(stack, at * size)
                if k > 0:
                    for j in range(size):
                        target[j] = s[j]
                below = f[t[row + 1] + k - 1] if k > 0 else 0.0
                likely[at] = rate * (f[t[row + 1] + k] - below)
                rules.settle(t, target, i, t[row + 2 + k])
            depth += last
            continue
        length = encode(t, s, b, words, scratch)
        number = _find(words, length, arena, offsets, slots, parents, x)
        if number < 0:
            return False
        if x[X_RECORD]:
            k = begin[x[X_CURSOR]]
            while k < x[X_TRANSITIONS] and targets[k] != number:
                k += 1
            if k == x[X_TRANSITIONS]:
                if k == x[X_ROOM_TRANSITIONS]:
                    return False
                targets[k] = number
                rates[k] = 0.0
                labels[k] = 0
                x[X_TRANSITIONS] += 1
            rates[k] += likely[depth]
            labels[k] |= label
        depth -= 1
    return True


@compiled
def _explore(
    t_array: Array, f_array: Array, b_array: Array, x_array: Array, work: Array,
    likely_array: Array, arena_array: Array, offsets_array: Array, slots_array: Array,
    parents_array: Array, kinds_array: Array, totals_array: Array, rewards_array: Array,
    begin_array: Array, targets_array: Array, rates_array: Array, labels_array: Array,
    orbits: Array, most: int,
) -> int:
    """Process stored states in the order they were found, `most` of them at most.

    Returns EXHAUSTED when all are processed, PAUSED after `most`, NO_ROOM when an array is full
    (the state in hand is then processed anew after it has grown), FOUND at the first deadlock if
    x[X_STOP] asks for it.
    """  # fmt: skip
    t, f, b, x = address(t_array), address(f_array), address(b_array), address(x_array)
    likely, arena, offsets = address(likely_array), address(arena_array), address(offsets_array)
    slots, parents, kinds = address(slots_array), address(parents_array), address(kinds_array)
    totals, rewards, begin = address(totals_array), address(rewards_array), address(begin_array)
    targets, rates, labels = address(targets_array), address(rates_array), address(labels_array)
    size, threads, mounts = t[p.H_STATE], t[p.H_THREADS], t[p.H_MOUNTS]
    conditional = t[p.H_CONDITIONAL]
    # `work` holds the decoded state, then scratch, then words, then the stack of outcomes.
    s = address(work)
    scratch = beyond(s, size)
    spare = beyond(scratch, scratch_size(threads, t[p.H_BIOS]))
    words = beyond(spare, scratch_size(threads, t[p.H_BIOS]))
    stack = beyond(words, scratch_size(threads, t[p.H_BIOS]))
    weights = beyond(likely, OUTCOMES)
    for _ in range(most):
        now = x[X_CURSOR]
        if now == x[X_STATES]:
            return EXHAUSTED
        begin[now] = x[X_TRANSITIONS]
        decode(t, s, b, beyond(arena, offsets[now]), scratch)
        total, at_entry, for_pages, for_semaphore, for_locks = weigh(t, f, s, weights)
        finishing = 0
        kinds[now] = TRANSIENT
        room = True
        if total == 0.0:
            if rules.is_completed(t, s):
                kinds[now] = COMPLETED
            elif s[p.S_KILLS] == 0:
                kinds[now] = DEADLOCKED
            else:
                total = 1.0
                _copy(stack, s, size)
                likely[0] = 1.0
                rules.kill(t, stack)
                room = _emit(
                    t, b, stack, likely, words, spare, arena, offsets, slots, parents, begin,
                    targets, rates, labels, 0, f, x,
                )  # fmt: skip
        orbit = 1.0
        first = 0  # of the group of thread i
        i = 0
        while i < threads and room:
            # Twins are equal records beside each other: fire one for all of them.
            run = 1
            while i + run < threads and _twins(t, s, b, scratch, i, i + run):
                run += 1
            if i > 0 and b[B_GROUP + i] != b[B_GROUP + i - 1]:
                first = i
            for k in range(run):
                orbit *= (i + k - first + 1) / (k + 1)
            c = s[p.S_THREAD + i * p.S_THREAD_ROW + p.CLASS]
            if c == 0 or (c < conditional and weights[c] > 0.0):
                row = t[p.H_CLASS] + c * p.C_ROW
                tagged = FIRES if i == x[X_TAGGED] else 0
                if t[row + p.C_KIND] == p.K_PICK:
                    mount = t[row + p.C_ARGUMENT]
                    queued = s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG]
                    for position in range(queued):
                        _copy(stack, s, size)
                        likely[0] = 1.0 / queued
                        rules.pick(t, stack, i, position)
                        room = room and _emit(
                            t, b, stack, likely, words, spare, arena, offsets, slots, parents,
                            begin, targets, rates, labels, tagged, f, x,
                        )  # fmt: skip
                else:
                    _copy(stack, s, size)
                    likely[0] = run
                    rules.fire(t, stack, i)
                    finishing += run * stack[p.S_WRITEPAGES]
                    label = tagged
                    touched = t[row + p.C_KIND] == p.K_TOUCH and stack[p.S_FREE] < s[p.S_FREE]
                    if tagged and (stack[p.S_WRITEPAGES] > 0 or touched):
                        label |= FINISHES
                    # Only a capped number of bios without pages can overflow: the thread waits.
                    if stack[p.S_OVERFLOW] == 0:
                        room = _emit(
                            t, b, stack, likely, words, spare, arena, offsets, slots, parents,
                            begin, targets, rates, labels, label, f, x,
                        )  # fmt: skip
            i += run
        for mount in range(mounts):
            rate = weights[conditional + mount]
            if rate > 0.0 and kinds[now] == TRANSIENT:
                flying = s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG]
                for position in range(flying):
                    if room:
                        _copy(stack, s, size)
                        likely[0] = rate / flying
                        rules.complete(t, stack, mount, position)
                        room = _emit(
                            t, b, stack, likely, words, spare, arena, offsets, slots, parents,
                            begin, targets, rates, labels, 0, f, x,
                        )  # fmt: skip
        if not room:
            x[X_TRANSITIONS] = begin[now]
            return NO_ROOM
        totals[now] = total
        row = now * REWARDS
        rewards[row + W_INSIDE] = s[p.S_INSIDE]
        rewards[row + W_ENTRY], rewards[row + W_PAGES] = at_entry, for_pages
        rewards[row + W_SEMAPHORE], rewards[row + W_LOCKS] = for_semaphore, for_locks
        rewards[row + W_IDLE] = s[p.S_ASIDE] + min(t[p.H_MARK], s[p.S_FREE])
        rewards[row + W_FINISHING] = finishing
        orbits[0] += orbit
        x[X_CURSOR] += 1
        begin[now + 1] = x[X_TRANSITIONS]
        if kinds[now] == DEADLOCKED and x[X_STOP]:
            return FOUND
    return PAUSED


@compiled
def _copy(target: Array, source: Array, size: int) -> None:
    for k in range(size):
        target[k] = source[k]


class TooManyStates(BadInput):
    """A scenario with more reachable states than the limit or the memory allows."""

    undecided = True  # and not wrong


@dataclass(frozen=True, eq=False)
class StateSpace:
    """The reachable states of a scenario and the transitions between them.

    Parameters
    ----------
    scenario : Scenario
        What was explored.
    tables : Tables
        Its packed form, with room for every bio there can be.
    layout : ndarray of int64
        How states are packed.
    arena, offsets : ndarray of int64
        State k is arena[offsets[k]:offsets[k + 1]].
    parents : ndarray of int32, shape (states,)
        The state each was first reached from; itself for the first.
    kinds : ndarray of uint8, shape (states,)
        TRANSIENT, COMPLETED or DEADLOCKED.
    totals : ndarray of float64, shape (states,)
        Total rate out of each state.
    rewards : ndarray of int16, shape (states, REWARDS)
        Threads inside, waiting for what, idle pages, and the rate at which writepages complete.
    begin, targets, rates : ndarray of int64, int32, float64
        Transitions of state k are begin[k] to begin[k + 1]; empty if they were not recorded.
    labels : ndarray of uint8
        For each transition, whether the tagged thread FIRES and FINISHES something in it.
    unmerged : float
        States if no two threads were interchangeable; exact below 2^53.
    processed : int
        States whose transitions are known; all unless the exploration stopped at a deadlock.
    """

    scenario: Scenario
    tables: p.Tables
    layout: NDArray[np.int64]
    arena: NDArray[np.int64]
    offsets: NDArray[np.int64]
    parents: NDArray[np.int32]
    kinds: NDArray[np.uint8]
    totals: NDArray[np.float64]
    rewards: NDArray[np.int16]
    begin: NDArray[np.int64]
    targets: NDArray[np.int32]
    rates: NDArray[np.float64]
    labels: NDArray[np.uint8]
    unmerged: float
    processed: int

    @property
    def states(self) -> int:
        """Merged states found."""
        return len(self.kinds)

    @property
    def bios(self) -> int:
        """Room for bios in the packed scenario."""
        return int(self.tables.t[p.H_BIOS])

    def words(self, number: int) -> NDArray[np.int64]:
        """The canonical form of a state.

        Parameters
        ----------
        number : int
            Its number.

        Returns
        -------
        ndarray of int64
            Its words.
        """
        return self.arena[self.offsets[number] : self.offsets[number + 1]]

    def canonical(self, state: NDArray[np.int64]) -> NDArray[np.int64]:
        """The canonical form of any state of the same tables.

        Parameters
        ----------
        state : ndarray of int64
            A state as the rules know it.

        Returns
        -------
        ndarray of int64
            Its words.
        """
        size = scratch_size(int(self.tables.t[p.H_THREADS]), self.bios)
        words, scratch = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        return words[: encode(self.tables.t, state, self.layout, words, scratch)]


def layout_of(
    scenario: Scenario, tables: p.Tables, unbounded: bool = False, tagged: int | None = None
) -> NDArray[np.int64]:
    """How the states of a scenario are packed: the widths of all fields, and the groups.

    Parameters
    ----------
    scenario : Scenario
        The scenario.
    tables : Tables
        Its packed form.
    unbounded : bool
        Whether quotas are not counted.
    tagged : int, optional
        A thread that is not interchangeable with any other.

    Returns
    -------
    ndarray of int64
        ``B_*`` widths, the group of each thread, and a mask of the locks held at each place.

    Raises
    ------
    TooManyStates
        If one thread's record or one bio's chain does not fit into a word.
    """
    t = tables.t
    mounts, scheme = scenario.mounts, scenario.scheme
    threads = int(t[p.H_THREADS])
    machine = scenario.machine
    dirtiers = sum(mount.dirtiers for mount in mounts)
    user_pages = machine.dirty + (machine.pages if unbounded else dirtiers * scenario.quota)
    most_free = machine.pages + user_pages + machine.oom_kills * machine.pages_per_kill
    worst = max(mount.filesystem.worst_demand for mount in mounts)
    places = max(len(mount.filesystem.program) for mount in mounts) + p.STEPS_AT + 1
    b = np.zeros(B_GROUP + threads + (int(t[p.H_MOUNT]) - p.HEAD) // p.CODE_ROW, dtype=np.int64)
    bios = int(t[p.H_BIOS])
    counts = scheme.returns == "own" or "claim" in scheme.grants or "global_pool" in scheme.grants
    with_bio = scheme.returns in ("own", "pool")
    for field, largest in {
        B_FREE: most_free,
        B_DIRTY: user_pages,
        B_POOL: int(t[p.H_POOL]),
        B_KILLS: machine.oom_kills,
        B_MOUNT_POOL: int(t[p.H_MOUNT_POOL]),
        B_PLACE: places - 1,
        B_WANT: worst,
        B_HELD: worst,
        B_OWN: scenario.need if "own" in scheme.grants else 0,
        B_DRAWN: worst if counts else 0,
        B_CLAIM: scenario.need if "claim" in scheme.grants else 0,
        B_QUOTA: 0 if unbounded else scenario.quota,
        B_QUEUE: threads if t[p.H_SLEEPS] else 0,
        B_CHAINS: bios,
        B_WHERE: 2 * len(mounts) - 1 if scenario.stacked else len(mounts) - 1,
        B_PAGES: worst,
        B_PAGES_DRAWN: worst if with_bio else 0,
    }.items():
        b[field] = largest.bit_length()
    b[B_UNBOUNDED] = unbounded
    b[B_OWNS] = "global_pool" in scheme.grants
    waits = any(step.verb == "wait" for mount in mounts for step in mount.filesystem.program)
    b[B_LINKED] = waits or scheme.returns == "own"
    b[B_WHOSE] = (threads - 1).bit_length()
    fields = (B_PLACE, B_WANT, B_HELD, B_OWN, B_DRAWN, B_CLAIM, B_QUOTA, B_QUEUE, B_OWNS)
    b[B_RECORD] = sum(int(b[field]) for field in fields)
    levels = p.levels(scenario)
    b[B_CHAIN] = b[B_WHOSE] + b[B_WHERE] + levels * (b[B_PAGES] + b[B_PAGES_DRAWN])
    if max(b[B_RECORD], b[B_CHAIN]) > 62:
        raise TooManyStates(
            "scenario", "one thread has more states than fit into a word",
            "try simulate or rare, a smaller quota, or a filesystem that needs fewer pages",
        )  # fmt: skip
    group, before = -1, None
    for i in range(threads):
        row = t[p.H_THREAD] + i * p.T_ROW
        key = (t[row + p.T_MOUNT], t[row + p.T_KIND], t[row + p.T_SERVES], i == tagged)
        group += key != before
        before = key
        b[B_GROUP + i] = group
    for i in range(threads):
        row = t[p.H_THREAD] + i * p.T_ROW
        held, place = 0, t[row + p.T_BLOCK] + p.STEPS_AT
        names = mounts[t[row + p.T_MOUNT]].filesystem.locks
        for step in (*mounts[t[row + p.T_MOUNT]].filesystem.program, None):
            b[B_GROUP + threads + place] = held
            if step is not None and step.lock:
                held ^= 1 << names.index(step.lock)
            place += 1
    return b


def explore(
    scenario: Scenario,
    *,
    limit: int = 20_000_000,
    transitions: bool = True,
    stop_at_deadlock: bool = False,
    unbounded: bool = False,
    tagged: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> StateSpace:
    """Find every reachable state of a scenario, breadth-first.

    Parameters
    ----------
    scenario : Scenario
        What to explore.
    limit : int
        The most states to store.
    transitions : bool
        Whether to record transitions and their rates.
    stop_at_deadlock : bool
        Whether to stop at the first deadlocked state; it is then the last one processed.
    unbounded : bool
        Whether threads start over for ever. Bios that carry no page are then capped.
    tagged : int, optional
        A thread that is not interchangeable with any other; it must be the first of its kind.
    progress : callable, optional
        Called with the states processed and found, a few times a second.

    Returns
    -------
    StateSpace
        States in the order they were found.

    Raises
    ------
    TooManyStates
        If there are more states than `limit`, or than half the memory that is available holds.
    """
    tables = p.pack(scenario, _bios(scenario, unbounded))
    t = tables.t
    b = layout_of(scenario, tables, unbounded, tagged)
    threads, bios = int(t[p.H_THREADS]), int(t[p.H_BIOS])
    size = int(t[p.H_STATE])
    work = np.zeros((1 + OUTCOMES) * size + 3 * scratch_size(threads, bios), dtype=np.int64)
    likely = np.zeros(OUTCOMES + int(t[p.H_CONDITIONAL]) + len(scenario.mounts))
    x = np.zeros(X_TAGGED + 1, dtype=np.int64)
    orbits = np.zeros(1)

    rules.start(t, work[:size])
    words = np.zeros(scratch_size(threads, bios), dtype=np.int64)
    scratch = np.zeros(scratch_size(threads, bios), dtype=np.int64)
    length = encode(t, work[:size], b, words, scratch)

    room = {"states": 1 << 12, "words": 1 << 15, "transitions": 1 << 15}
    arrays: dict[str, NDArray[Any]] = {
        "arena": np.zeros(room["words"], dtype=np.int64),
        "offsets": np.zeros(room["states"] + 1, dtype=np.int64),
        "parents": np.zeros(room["states"], dtype=np.int32),
        "kinds": np.zeros(room["states"], dtype=np.uint8),
        "totals": np.zeros(room["states"]),
        "rewards": np.zeros(room["states"] * REWARDS, dtype=np.int16),
        "begin": np.zeros(room["states"] + 1, dtype=np.int64),
        "targets": np.zeros(room["transitions"], dtype=np.int32),
        "rates": np.zeros(room["transitions"]),
        "labels": np.zeros(room["transitions"], dtype=np.uint8),
    }
    arrays["arena"][:length] = words[:length]
    arrays["offsets"][1] = length
    x[X_STATES], x[X_WORDS] = 1, length
    x[X_RECORD], x[X_STOP] = transitions, stop_at_deadlock
    x[X_TAGGED] = p.NOBODY if tagged is None else tagged
    slots = _table(arrays, 1, room["states"])
    while True:
        x[X_ROOM_STATES], x[X_ROOM_WORDS] = min(room["states"], limit + 1), room["words"]
        x[X_ROOM_TRANSITIONS], x[X_SLOTS] = room["transitions"], len(slots)
        status = _explore(
            t, tables.f, b, x, work, likely, arrays["arena"], arrays["offsets"], slots,
            arrays["parents"], arrays["kinds"], arrays["totals"], arrays["rewards"],
            arrays["begin"], arrays["targets"], arrays["rates"], arrays["labels"], orbits,
            _STATES_A_CALL,
        )  # fmt: skip
        if progress is not None:
            progress(int(x[X_CURSOR]), int(x[X_STATES]))
        if status in (EXHAUSTED, FOUND):
            break
        if x[X_STATES] > limit:
            raise _too_many(x, f"more than the limit of {limit} states")
        if status == NO_ROOM:
            used = {"states": X_STATES, "words": X_WORDS, "transitions": X_TRANSITIONS}
            for name, counter in used.items():
                # Half full is full: a state's transitions must fit without asking again at once.
                while 2 * (int(x[counter]) + 64) > room[name]:
                    room[name] *= 2
            if 3 * _bytes(room) > 2 * _available():
                raise _too_many(x, "no memory for more")
            for name, array in arrays.items():
                arrays[name] = _grown(array, _length(name, room))
            slots = _table(arrays, int(x[X_STATES]), room["states"])
    found, processed = int(x[X_STATES]), int(x[X_CURSOR])
    return StateSpace(
        scenario=scenario,
        tables=tables,
        layout=b,
        arena=arrays["arena"][: x[X_WORDS]],
        offsets=arrays["offsets"][: found + 1],
        parents=arrays["parents"][:found],
        kinds=arrays["kinds"][:found],
        totals=arrays["totals"][:found],
        rewards=arrays["rewards"][: found * REWARDS].reshape(-1, REWARDS),
        begin=arrays["begin"][: processed + 1],
        targets=arrays["targets"][: x[X_TRANSITIONS]],
        rates=arrays["rates"][: x[X_TRANSITIONS]],
        labels=arrays["labels"][: x[X_TRANSITIONS]],
        unmerged=float(orbits[0]),
        processed=processed,
    )


_STATES_A_CALL = 50_000


def _bios(scenario: Scenario, unbounded: bool) -> int:
    """Room for every bio there can be: those that carry pages share the pages there are.

    Without a quota those that carry none are capped, at two for each thread.
    """
    programs = [m.filesystem.program for m in scenario.mounts if m.flushers + m.dirtiers]
    least = min(sum(min((n for n, _ in step.demand), default=0) for step in q) for q in programs)
    machine = scenario.machine
    filled = machine.pages + machine.dirty + machine.oom_kills * machine.pages_per_kill
    bound = filled if least > 0 else filled + 2 * scenario.threads
    levels = p.levels(scenario)
    if not unbounded:
        most = p.bios_at_most(scenario) // levels
        bound = min(filled, most) if least > 0 else most
    return max(1, bound * levels)


def _length(name: str, room: dict[str, int]) -> int:
    if name in ("targets", "rates", "labels"):
        return room["transitions"]
    if name == "arena":
        return room["words"]
    if name == "rewards":
        return room["states"] * REWARDS
    return room["states"] + (name in ("offsets", "begin"))


def _bytes(room: dict[str, int]) -> int:
    a_state = 8 + 4 + 1 + 8 + 2 * REWARDS + 8 + 8  # with its hash slots
    return room["states"] * a_state + room["words"] * 8 + room["transitions"] * 13


def _available() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(s.split()[1]) * 1024 for s in lines if s.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 1 << 32


def _grown(array: NDArray[Any], length: int) -> NDArray[Any]:
    if len(array) == length:
        return array
    larger = np.zeros(length, dtype=array.dtype)
    larger[: len(array)] = array
    return larger


def _table(arrays: dict[str, NDArray[Any]], states: int, room: int) -> NDArray[np.int32]:
    slots = np.full(2 * room, -1, dtype=np.int32)
    _rehash(arrays["arena"], arrays["offsets"], states, slots, len(slots))
    return slots


def _too_many(x: NDArray[np.int64], why: str) -> TooManyStates:
    return TooManyStates(
        "scenario",
        f"{why}: {int(x[X_STATES])} found, {int(x[X_CURSOR])} of them processed",
        "try rare or simulate, fewer threads, or a smaller quota",
    )
