"""Monte Carlo: clocks and chance added to the rules.

Only the jump chain is drawn. Each state is charged its expected holding time 1 / (total rate)
instead of a random one: the same expectations, less variance, and no logarithm.

Work is cut into batches, whose size depends on the scenario alone. An episode's stream depends on
its address alone, and a batch adds its episodes in order, so neither the number of workers nor
the order of the batches can change a bit of the result.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from reservelab.model import pack as p
from reservelab.model.errors import whole_number
from reservelab.model.scenario import RULES_VERSION, Scenario
from reservelab.solve import rules
from reservelab.solve.compiled import address, compiled
from reservelab.solve.stream import next_uniform, open_stream, stream_key
from reservelab.solve.tally import COUNTS, MEANS, PRODUCTS, Tally

Array = Any  # numba specialises, mypy need not know

N_EPISODES, N_DEADLOCKS, N_UNFINISHED, N_EVENTS, N_WRITEPAGES, N_REDIRTIED, N_KILLS = range(7)
(
    M_TIME, M_INSIDE, M_ENTRY, M_PAGES, M_SEMAPHORE, M_LOCKS, M_IDLE, M_PEAK, M_WRITEPAGES,
) = range(9)  # fmt: skip
_EVENTS_PER_BATCH = 1_000_000


class Cancelled(Exception):
    """The caller asked to stop; nothing of the batches in hand is kept."""


@compiled
def draw_pending(t: Array, f: Array, s: Array, words: Array) -> None:
    """Give every thread that has arrived at a random alloc its number."""
    while s[p.S_PENDING] > 0:
        s[p.S_PENDING] -= 1
        i = s[t[p.H_S_PENDING] + s[p.S_PENDING]]
        row = t[p.H_DEMAND] - 1 - s[p.S_THREAD + i * p.S_THREAD_ROW + p.WANT]
        cumulative = t[row + 1]
        u = next_uniform(words)
        k = 0
        while u >= f[cumulative + k]:
            k += 1
        rules.settle(t, s, i, t[row + 2 + k])


@compiled
def weigh(t: Array, f: Array, s: Array, weights: Array) -> tuple[float, int, int, int, int]:
    """Write the rate of every guard class and device and return their sum and who waits.

    `weights` has a place for each class that can be enabled, then one for each mount. The numbers
    are of threads waiting at entry, for pages, for the semaphore and for locks.
    """
    sizes, conditional = t[p.H_S_SIZE], t[p.H_CONDITIONAL]
    entry = pages = semaphore = locks = 0
    weights[0] = total = float(s[sizes])
    for c in range(1, conditional):
        weights[c] = 0.0
        threads = s[sizes + c]
        if threads > 0:
            if rules.is_enabled(t, s, c):
                weights[c] = threads
                total += threads
            else:
                reason = rules.reason_of(t, s, c)
                # A refilling owner waits for pages like anybody else.
                if reason == p.R_PAGES or reason == p.R_REFILL:
                    pages += threads
                elif reason == p.R_ENTRY:
                    entry += threads
                elif reason == p.R_SEMAPHORE:
                    semaphore += threads
                elif reason == p.R_LOCK:
                    locks += threads
    if t[p.H_SLEEPS]:
        never = sizes + conditional - p.K_OWN
        entry += s[never + p.K_OWN]
        semaphore += s[never + p.K_ASLEEP_SEMAPHORE] + s[never + p.K_ASLEEP_OWN]
        locks += s[never + p.K_ASLEEP_LOCK]
    for mount in range(t[p.H_MOUNTS]):
        rate = f[mount] * rules.device_channels(t, s, mount)
        weights[conditional + mount] = rate
        total += rate
    return total, entry, pages, semaphore, locks


@compiled
def fire_drawn(t: Array, s: Array, weights: Array, u: float) -> int:
    """Fire the event that `u`, uniform below the sum of the weights, falls on.

    Returns the thread that fired, or NOBODY for a completion or a kill.
    """
    if u < weights[0]:
        i = s[t[p.H_S_MEMBER] + int(u)]
        rules.fire(t, s, i)
        return i
    conditional = t[p.H_CONDITIONAL]
    chosen, offset = p.NOBODY, 0.0
    for c in range(conditional + t[p.H_MOUNTS]):
        if weights[c] > 0.0:
            # Rounding can leave u a hair above the last weight: it then falls on its first member.
            chosen, offset = c, u if u < weights[c] else 0.0
            if u < weights[c]:
                break
            u -= weights[c]
    if chosen == p.NOBODY:
        rules.kill(t, s)
        return p.NOBODY
    if chosen < conditional:
        i = s[t[p.H_S_MEMBER] + chosen * t[p.H_THREADS] + int(offset)]
        row = t[p.H_CLASS] + chosen * p.C_ROW
        if t[row + p.C_KIND] == p.K_PICK:
            queued = s[t[p.H_S_MOUNT] + t[row + p.C_ARGUMENT] * p.S_MOUNT_ROW + p.BAG]
            rules.pick(t, s, i, int(offset * queued))
        else:
            rules.fire(t, s, i)
        return i
    mount = chosen - conditional
    flying = s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG]
    rules.complete(t, s, mount, min(int(offset / weights[chosen] * flying), flying - 1))
    return p.NOBODY


@compiled
def run_episode(
    t: Array, f: Array, s: Array, weights: Array, words: Array, means: Array, limit: int
) -> tuple[int, int]:
    """Run one episode from the start; return its events and its end.

    The end is the set of a deadlock's reasons (0 if it completed), -1 at the event limit and -2
    if there is no room for a bio. `means` gets the integrals over time, the duration, the peak of
    the idle reserve and the writepages completed.
    """  # fmt: skip
    rules.start(t, s)
    mark = t[p.H_MARK]
    time = inside = entry = pages = semaphore = locks = idle = 0.0
    peak = events = 0
    while True:
        total, at_entry, for_pages, for_semaphore, for_locks = weigh(t, f, s, weights)
        aside = s[p.S_ASIDE] + min(mark, s[p.S_FREE])
        peak = max(peak, aside)
        if total == 0.0:
            if rules.is_completed(t, s):
                end = 0
                break
            if s[p.S_KILLS] == 0:
                end = rules.stuck_reasons(t, s)
                break
            total = 1.0
        if events == limit:
            end = -1
            break
        holding = 1.0 / total
        time += holding
        inside += holding * s[p.S_INSIDE]
        entry += holding * at_entry
        pages += holding * for_pages
        semaphore += holding * for_semaphore
        locks += holding * for_locks
        idle += holding * aside
        i = fire_drawn(t, s, weights, next_uniform(words) * total)
        if s[p.S_OVERFLOW] != 0:
            end = -2
            break
        draw_pending(t, f, s, words)
        rules.regroup(t, s, i)
        events += 1
    means[M_TIME], means[M_INSIDE], means[M_ENTRY], means[M_PAGES] = time, inside, entry, pages
    means[M_SEMAPHORE], means[M_LOCKS], means[M_IDLE], means[M_PEAK] = semaphore, locks, idle, peak
    means[M_WRITEPAGES] = s[p.S_WRITEPAGES]
    return events, end


@compiled
def run_batch(
    t_array: Array, f_array: Array, s_array: Array, weights_array: Array, words_array: Array,
    means_array: Array,
    key: int, first: int, episodes: int, limit: int,
    counts: Array, sums: Array, products: Array, reasons: Array,
) -> bool:
    """Run the episodes `first` to `first + episodes - 1` and add them up.

    `counts` (int64, N_*), `sums` (float64, M_*), `products` (float64, the upper triangle of the
    sum of the episodes' outer products) and `reasons` (int32, deadlocks by their set of reasons)
    are added to. Returns False if there was no room for a bio; the sums are then void.
    """  # fmt: skip
    t, f, s, weights = address(t_array), address(f_array), address(s_array), address(weights_array)
    words, means = address(words_array), address(means_array)
    for episode in range(first, first + episodes):
        open_stream(words, key, episode)
        events, end = run_episode(t, f, s, weights, words, means, limit)
        if end == -2:
            return False
        counts[N_EPISODES] += 1
        counts[N_EVENTS] += events
        counts[N_WRITEPAGES] += s[p.S_WRITEPAGES]
        counts[N_REDIRTIED] += s[p.S_REDIRTIED]
        counts[N_KILLS] += t[p.H_KILLS] - s[p.S_KILLS]
        if end > 0:
            counts[N_DEADLOCKS] += 1
            reasons[end] += 1
        elif end < 0:
            counts[N_UNFINISHED] += 1
        k = 0
        for a in range(M_WRITEPAGES + 1):
            sums[a] += means[a]
            for b in range(a, M_WRITEPAGES + 1):
                products[k] += means[a] * means[b]
                k += 1
    return True


def events_at_most(scenario: Scenario) -> int:
    """A bound on the events of an episode in which nobody backs out.

    Parameters
    ----------
    scenario : Scenario
        The scenario.

    Returns
    -------
    int
        Events; every step of every writepage, each with a falling asleep before it.
    """
    own_by_page = scenario.scheme.entry == "own_by_page"
    below: dict[int | None, int] = {None: 1}  # the completion

    def one_writepage(index: int) -> int:
        mount = scenario.mounts[index]
        filesystem = mount.filesystem
        takes = filesystem.nr_pages if own_by_page else 1
        # enter and exit, the latter with a refill of each page; every step can sleep once.
        events = 2 * (takes + filesystem.worst_demand + len(filesystem.program) + 2)
        if mount.on is not None and mount.on not in below:
            below[mount.on] = 1 + one_writepage(mount.on)
        return events + below[mount.on]

    total = scenario.machine.oom_kills
    dirtiers = sum(mount.dirtiers for mount in scenario.mounts)
    for index, mount in enumerate(scenario.mounts):
        total += mount.flushers * scenario.quota * one_writepage(index)
        if mount.dirtiers:
            cleaned = scenario.machine.dirty + dirtiers * scenario.quota
            total += mount.dirtiers * scenario.quota + cleaned * (1 + one_writepage(index))
    return total


def batch_size(scenario: Scenario) -> int:
    """Episodes in a batch: a power of two, a fraction of a second's work, the scenario's alone.

    Parameters
    ----------
    scenario : Scenario
        The scenario.

    Returns
    -------
    int
        From 1 to 4096.
    """
    fits = max(1, _EVENTS_PER_BATCH // events_at_most(scenario))
    return int(min(4096, 1 << (fits.bit_length() - 1)))


def default_event_limit(scenario: Scenario) -> int:
    """The event limit of an episode unless given: 20 times what an episode without back-outs takes.

    Parameters
    ----------
    scenario : Scenario
        The scenario.

    Returns
    -------
    int
        Events.
    """
    return 20 * events_at_most(scenario) + 1000


class Batches:
    """A scenario packed for its batches; safe to share between worker threads.

    Parameters
    ----------
    scenario : Scenario
        The scenario.
    seed : int
        The seed, not negative.
    event_limit : int, optional
        Events after which an episode counts as unfinished.
    """

    def __init__(self, scenario: Scenario, seed: int, event_limit: int | None = None) -> None:
        self.scenario = scenario
        self.seed = whole_number("seed", seed)
        self.size = batch_size(scenario)
        if event_limit is None:
            self.event_limit = default_event_limit(scenario)
        else:
            self.event_limit = whole_number("event_limit", event_limit, 1)
        self._key: Any = np.uint64(stream_key(RULES_VERSION, scenario.digest, self.seed))
        self._tables = p.pack(scenario)

    def run(self, batch: int, episodes: int | None = None) -> Tally:
        """Run one batch.

        Parameters
        ----------
        batch : int
            Its number.
        episodes : int, optional
            Run only this many of its episodes.

        Returns
        -------
        Tally
            Of one row.
        """
        episodes = self.size if episodes is None else episodes
        while True:
            tables = self._tables
            mounts = len(self.scenario.mounts)
            counts = np.zeros((1, len(COUNTS)), dtype=np.int64)
            sums = np.zeros((1, len(MEANS)))
            products = np.zeros((1, PRODUCTS))
            reasons = np.zeros((1, 1 << len(p.REASONS)), dtype=np.int32)
            room = run_batch(
                tables.t, tables.f, tables.state(),
                np.zeros(int(tables.t[p.H_CONDITIONAL]) + mounts),
                np.zeros(4, dtype=np.uint64), np.zeros(len(MEANS)),
                self._key, batch * self.size, episodes, self.event_limit,
                counts[0], sums[0], products[0], reasons[0],
            )  # fmt: skip
            if room:
                break
            # Bios of no pages need no page to exist; the same episodes run again with more room.
            bios = min(2 * int(tables.t[p.H_BIOS]), p.bios_at_most(self.scenario))
            self._tables = p.pack(self.scenario, bios)
        return Tally(
            scenario=self.scenario,
            event_limit=self.event_limit,
            keys=np.array([[self.seed, batch]], dtype=np.int64),
            counts=counts,
            sums=sums,
            products=products,
            reasons=reasons,
        )


def simulate(
    scenario: Scenario,
    episodes: int = 10_000,
    seed: int = 1,
    workers: int | None = None,
    event_limit: int | None = None,
    progress: Callable[[Tally], object] | None = None,
    stop: threading.Event | None = None,
) -> Tally:
    """Run episodes of a scenario and add them up.

    Parameters
    ----------
    scenario : Scenario
        What to run.
    episodes : int
        How many.
    seed : int
        Names the streams; the same seed gives the same result on any number of workers.
    workers : int, optional
        Threads of ours; the processors there are unless given.
    event_limit : int, optional
        Events after which an episode counts as unfinished; `default_event_limit` unless given.
    progress : callable, optional
        Called with the tally of each finished batch, in no fixed order, by the calling thread.
    stop : threading.Event, optional
        Setting it cancels the run between two batches.

    Returns
    -------
    Tally
        What happened.

    Raises
    ------
    BadInput
        If a number is out of range.
    Cancelled
        If `stop` was set before all was done.
    """
    episodes = whole_number("episodes", episodes, 1)
    workers = os.cpu_count() or 1 if workers is None else whole_number("workers", workers, 1)
    for line in scenario.warnings:
        warnings.warn(line, stacklevel=2)
    batches = Batches(scenario, seed, event_limit)
    whole, rest = divmod(episodes, batches.size)
    work: Iterator[tuple[int, int]] = iter(
        [(b, batches.size) for b in range(whole)] + ([(whole, rest)] if rest else [])
    )
    parts: list[Tally] = []
    with ThreadPoolExecutor(workers) as pool:
        pending: set[Future[Tally]] = set()
        try:
            while True:
                while len(pending) < 2 * workers and (item := next(work, None)) is not None:
                    pending.add(pool.submit(batches.run, *item))
                if not pending:
                    break
                done, pending = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
                for future in done:
                    parts.append(future.result())
                    if progress is not None:
                        progress(parts[-1])
                if stop is not None and stop.is_set():
                    raise Cancelled
        finally:
            for future in pending:
                future.cancel()
    return Tally.merge(parts)
