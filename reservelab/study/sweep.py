"""Sweeps: every scenario of a grid, or of a short list, until a goal is met.

What comes out is a function of grid, goal and seed. A goal says how many batches a scenario needs
and sees only whole batches, the first ones in order, so neither the workers nor the order in which
batches end nor a kill and a resumption can change a bit of the result (on one type of processor:
sums of floating-point numbers are its own). Who does the batches, threads here or the workers of a
Dask cluster, only decides how long it takes; the process that calls `sweep` alone writes the store.
"""

from __future__ import annotations

import heapq
import math
import os
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reservelab.model.errors import BadInput, whole_number
from reservelab.model.scenario import Scenario
from reservelab.solve.compiled import sources_digest
from reservelab.solve.simulate import (
    Batches,
    Cancelled,
    batch_size,
    default_event_limit,
    events_at_most,
)
from reservelab.solve.tally import Tally
from reservelab.study.grid import Grid
from reservelab.study.results import Store, Writer

if TYPE_CHECKING:
    from distributed import Client

_SECONDS_BETWEEN_REPORTS = 0.1
# A task costs a Dask scheduler some milliseconds, so it is given about this much work.
_SECONDS_PER_TASK = 1.0
_BATCHES_PER_TASK = 500
# Until a batch was timed: what an event takes if nobody deadlocks early. Only the size of the first
# tasks and the first guess of the time left depend on it.
_SECONDS_PER_EVENT = 3e-8
# What this process compiled, or will; the files may change while it runs.
_CODE = sources_digest()


# ---- goals ----------------------------------------------------------------------------------


class Goal(ABC):
    """How many batches a scenario needs; its str() names it in the store."""

    @abstractmethod
    def batches(self, size: int, done: Tally | None) -> int:
        """Say how many batches are wanted, now that the first ones are done.

        Parameters
        ----------
        size : int
            Episodes in a batch.
        done : Tally, optional
            The batches wanted so far, all of them; None at the start.

        Returns
        -------
        int
            Batches in all, at least 1; not more than are done if that is enough.
        """

    @abstractmethod
    def forecast(self, size: int, done: Tally | None) -> int:
        """Guess what `batches` will say in the end; only the time left is estimated from it.

        Parameters
        ----------
        size : int
            Episodes in a batch.
        done : Tally, optional
            The batches wanted so far, all of them; None at the start.

        Returns
        -------
        int
            Batches in all.
        """


@dataclass(frozen=True)
class Episodes(Goal):
    """The same number of episodes for every scenario, rounded up to whole batches.

    Parameters
    ----------
    number : int
        At least this many.
    """

    number: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "number", whole_number("episodes", self.number, 1))

    def batches(self, size: int, done: Tally | None) -> int:  # noqa: ARG002 - fixed, whatever came
        """Say how many batches have that many episodes.

        Parameters
        ----------
        size : int
            Episodes in a batch.
        done : Tally, optional
            Not looked at.

        Returns
        -------
        int
            Batches.
        """
        return -(-self.number // size)

    forecast = batches

    def __str__(self) -> str:
        return f"{self.number} episodes"


@dataclass(frozen=True)
class Precision(Goal):
    """As many episodes as it takes to know a scenario's deadlock probability well enough.

    Enough is when half the width of its 95 % interval is at most `relative` times the probability
    or at most `absolute`. That is asked at the end of stages only: the first one is the fewest
    whole batches with 256 episodes, each further one doubles what there is, the last one ends with
    the first whole batch that reaches `at_most`. The stages are fixed before anything runs, so what
    is published comes from one of a few fixed sizes, and never from the moment it looked best.

    Stopping when the numbers look good still favours numbers that look good. What remains of that
    is worked out exactly in tests/test_sweep.py: the estimate is off by less than a fifth of the
    half width asked for (where `relative` decides it is overstated by up to a tenth of it, so by
    1 % at relative=0.1; where `absolute` decides it is understated), and the interval holds the
    truth in at least 92 % of all sweeps instead of 95 %. Use `Episodes` for numbers without that.

    Parameters
    ----------
    relative : float
        Half the width of the interval, as a share of the probability.
    absolute : float
        Half the width that is good enough however small the probability; without it an event that
        never happens would use up `at_most`.
    at_most : int
        Episodes for a scenario, at the most.
    """

    relative: float = 0.1
    absolute: float = 0.001
    at_most: int = 1_000_000

    def __post_init__(self) -> None:
        for name in ("relative", "absolute"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise BadInput(name, f"{value!r} is not a number", "give one from 0 to 1")
            if not 0 <= value < 1:
                raise BadInput(name, f"{value!r} is out of range", "give a number from 0 to 1")
            object.__setattr__(self, name, float(value))
        object.__setattr__(self, "at_most", whole_number("at_most", self.at_most, 1))

    def batches(self, size: int, done: Tally | None) -> int:
        """Say where the next stage ends.

        Parameters
        ----------
        size : int
            Episodes in a batch.
        done : Tally, optional
            The stages so far; None before the first.

        Returns
        -------
        int
            Batches; as many as are done if they are enough.
        """
        last = -(-self.at_most // size)
        if done is None:
            return min(last, -(-256 // size))
        low, best, high = done.deadlock_probability
        enough = (high - low) / 2 <= max(self.relative * best, self.absolute)
        return len(done.keys) if enough else min(last, 2 * len(done.keys))

    def forecast(self, size: int, done: Tally | None) -> int:
        """Guess where the last stage ends, from what the probability looks like.

        Parameters
        ----------
        size : int
            Episodes in a batch.
        done : Tally, optional
            The stages so far; None before the first.

        Returns
        -------
        int
            Batches.
        """
        if done is None:
            return self.batches(size, None)
        low, best, high = done.deadlock_probability
        wanted = max(self.relative * best, self.absolute)
        last, stage = -(-self.at_most // size), len(done.keys)
        # An interval shrinks with the root of the episodes; around 0 and 1 with the episodes.
        power = 1 if best in (0, 1) else 2
        factor = ((high - low) / 2 / wanted) ** power if wanted else math.inf
        while stage < min(last, len(done.keys) * factor):
            stage *= 2
        return min(last, stage)

    def __str__(self) -> str:
        return f"precision {self.relative:g} or {self.absolute:g}, at most {self.at_most} episodes"


# ---- progress -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Parameters
    ----------
    done : int
        Batches done, those found in the store among them.
    total : int
        Batches there will be; under a precision goal a forecast.
    found : int
        Batches that were in the store.
    episodes : int
        Episodes in the batches done.
    scenarios_done, scenarios : int
        Scenarios that have met the goal, and all.
    seconds : float
        Since the sweep began.
    eta : float or None
        Estimate of the seconds left; None before anything was timed.
    """

    done: int
    total: int
    found: int
    episodes: int
    scenarios_done: int
    scenarios: int
    seconds: float
    eta: float | None


# ---- cells ----------------------------------------------------------------------------------


class _Cell:
    """A scenario of the sweep: what it has, what it still wants, and how long its batches take."""

    def __init__(self, place: int, scenario: Scenario, goal: Goal, found: Tally | None) -> None:
        self.place = place
        self.scenario = scenario
        self.size = batch_size(scenario)
        self.events = float(events_at_most(scenario) * self.size)
        self.seconds = 0.0
        self.timed = 0
        self.finished = False
        self._goal = goal
        self._parts = [] if found is None else [found]
        self._have = set() if found is None else {int(batch) for batch in found.keys[:, 1]}
        self.found = len(self._have)
        self.target = self.forecast = 0
        self.todo: deque[int] = deque()
        self._want(goal.batches(self.size, None), goal.forecast(self.size, None))
        self._take_stock()

    @property
    def done(self) -> int:
        """Batches done of those wanted so far."""
        return self.target - self._missing

    @property
    def tally(self) -> Tally:
        """The batches wanted so far; only when there are all of them."""
        tally = Tally.merge(self._parts)
        first = tally.keys[:, 1] < self.target
        self._parts = [tally]
        if first.all():
            return tally
        names = ("keys", "counts", "sums", "products", "reasons")
        return replace(tally, **{name: getattr(tally, name)[first] for name in names})

    def add(self, tally: Tally, seconds: float) -> None:
        """Take in one batch and how long it took."""
        self._parts.append(tally)
        self._have.add(int(tally.keys[0, 1]))
        self.seconds += seconds
        self.timed += 1
        self._missing -= 1
        self._take_stock()

    def _want(self, batches: int, forecast: int) -> None:
        new = [batch for batch in range(self.target, batches) if batch not in self._have]
        self.todo.extend(new)
        self._missing = len(new)
        self.target = batches
        self.forecast = max(batches, forecast)

    def _take_stock(self) -> None:
        while not self._missing and not self.finished:
            tally = self.tally
            batches = self._goal.batches(self.size, tally)
            self.finished = batches <= self.target
            if not self.finished:
                self._want(batches, self._goal.forecast(self.size, tally))
        if self.finished:
            self.forecast = self.target


# ---- who does the work ----------------------------------------------------------------------

Task = list[tuple[_Cell, int]]
Done = tuple[_Cell, Tally, float]


class _Threads:
    """Threads of this process: the compiled code lets go of the interpreter."""

    seconds_per_task = 0.0

    def __init__(self, workers: int, seed: int) -> None:
        self.hands = workers
        self._seed = seed
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="sweep")
        self._packed: dict[_Cell, Batches] = {}
        self._pending: set[Future[Done]] = set()

    @property
    def room(self) -> bool:
        return len(self._pending) < 2 * self.hands

    @property
    def idle(self) -> bool:
        return not self._pending

    def submit(self, task: Task) -> None:
        for cell, batch in task:
            if cell not in self._packed:
                self._packed[cell] = Batches(cell.scenario, self._seed)
            self._pending.add(self._pool.submit(self._run, self._packed[cell], cell, batch))
            if not cell.todo:
                del self._packed[cell]

    @staticmethod
    def _run(batches: Batches, cell: _Cell, batch: int) -> Done:
        began = time.perf_counter()
        tally = batches.run(batch)
        return cell, tally, time.perf_counter() - began

    def collect(self) -> list[Done]:
        done, self._pending = wait(
            self._pending, timeout=_SECONDS_BETWEEN_REPORTS, return_when=FIRST_COMPLETED
        )
        return [future.result() for future in done]

    def close(self) -> list[Done]:
        """Begin nothing more; what runs is waited for and kept."""
        self._pool.shutdown(cancel_futures=True)
        return [
            future.result()
            for future in self._pending
            if not future.cancelled() and future.exception() is None
        ]


class _Cluster:
    """The workers of a Dask cluster; its scheduler runs again what a dead worker had in hand."""

    seconds_per_task = _SECONDS_PER_TASK

    def __init__(self, client: Client, seed: int) -> None:
        import distributed

        as_completed: Any = distributed.as_completed
        self._client: Any = client
        self._seed = seed
        self._completed = as_completed([], loop=client.loop)
        self._tasks: dict[Any, Task] = {}
        self._hands = 0
        self._counted = -math.inf

    @property
    def hands(self) -> int:
        # Workers come and go, but the scheduler need not be asked for every task.
        if time.monotonic() > self._counted + 1:
            self._hands = max(1, sum(self._client.nthreads().values()))
            self._counted = time.monotonic()
        return self._hands

    @property
    def room(self) -> bool:
        return len(self._tasks) < 2 * self.hands

    @property
    def idle(self) -> bool:
        return not self._tasks

    def submit(self, task: Task) -> None:
        numbers: dict[_Cell, list[int]] = {}
        for cell, batch in task:
            numbers.setdefault(cell, []).append(batch)
        work = [(cell.scenario, batches) for cell, batches in numbers.items()]
        # pure=False: Dask would hash the scenarios to find out what it has done before.
        future = self._client.submit(run_batches, work, self._seed, _CODE, pure=False)
        self._tasks[future] = [(cell, batch) for cell, many in numbers.items() for batch in many]
        self._completed.add(future)

    def collect(self) -> list[Done]:
        futures = self._completed.next_batch(block=False)
        if not futures:
            time.sleep(_SECONDS_BETWEEN_REPORTS / 5)
        done = []
        for future in futures:
            for (cell, _), (tally, seconds) in zip(
                self._tasks.pop(future), future.result(), strict=True
            ):
                # One scenario for all rows, instead of the copy that came with each task.
                done.append((cell, replace(tally, scenario=cell.scenario), seconds))
        return done

    def close(self) -> list[Done]:
        """Begin nothing more; what runs on the workers is let go."""
        if self._tasks:
            self._client.cancel(list(self._tasks))
        return []


def run_batches(
    work: Sequence[tuple[Scenario, Sequence[int]]], seed: int, code: str
) -> list[tuple[Tally, float]]:
    """Run batches of several scenarios; what a worker of a cluster does.

    Parameters
    ----------
    work : sequence of (Scenario, sequence of int)
        Scenarios and the numbers of their batches.
    seed : int
        Seed of the streams.
    code : str
        `sources_digest` of the sender, when it was imported.

    Returns
    -------
    list of (Tally, float)
        For each batch its tally and how many seconds it took.

    Raises
    ------
    RuntimeError
        If this process has other compiled code than the sender.
    """
    if code != _CODE:
        raise RuntimeError("this worker has another version of reservelab than its client")
    results = []
    for scenario, numbers in work:
        batches = Batches(scenario, seed)
        for batch in numbers:
            began = time.perf_counter()
            tally = batches.run(batch)
            results.append((tally, time.perf_counter() - began))
    return results


# ---- the sweep ------------------------------------------------------------------------------


def sweep(
    grid: Grid,
    goal: Goal | None = None,
    store: Store | str | Path | None = None,
    seed: int = 1,
    workers: int | None = None,
    client: Client | None = None,
    progress: Callable[[Progress], object] | None = None,
    stop: threading.Event | None = None,
    arrived: Callable[[Tally], object] | None = None,
    warn: Callable[[str], object] | None = None,
) -> pd.DataFrame:
    """Run every scenario of a grid until a goal is met.

    Parameters
    ----------
    grid : Grid
        The scenarios.
    goal : Goal, optional
        `Episodes` or `Precision`; ``Episodes(4_000)`` unless given.
    store : Store or str or Path, optional
        Directory to keep the results in; what it has of this grid and seed is not run again.
    seed : int
        Names the streams.
    workers : int, optional
        Threads of ours; the processors there are unless given. Not beside a client.
    client : distributed.Client, optional
        A Dask cluster to use instead of threads; it needs this version of reservelab on one type of
        processor.
    progress : callable, optional
        Called with a `Progress` at the start, about ten times a second, and at the end, by the
        calling thread.
    stop : threading.Event, optional
        Setting it ends the sweep; what is done is kept in the store.
    arrived : callable, optional
        Called by the calling thread with what the store had of each scenario, then with the tally
        of each batch.
    warn : callable, optional
        Called with what would be a warning; warnings are the whole process's, which a sweep in a
        background thread should leave alone.

    Returns
    -------
    DataFrame
        The tidy frame: one row for each scenario, in the order of the grid.

    Raises
    ------
    BadInput
        If a number is out of range, or the store cannot take this sweep.
    Cancelled
        If `stop` was set before all was done.

    Warns
    -----
    UserWarning
        One line if cells of the grid do not fit into the machine, and one if some can never run.
    """
    seed = whole_number("seed", seed)
    if client is not None and workers is not None:
        raise BadInput("workers", "given beside a cluster", "leave it out: the cluster has its own")
    workers = os.cpu_count() or 1 if workers is None else whole_number("workers", workers, 1)
    goal = Episodes(4_000) if goal is None else goal
    scenarios = grid.scenarios()
    never = [line for each in scenarios for line in each.warnings]
    too_large = "of the grid's cells do not fit into the machine and are left out"
    for line in _summed_up(too_large, grid.left_out), _summed_up("warnings about scenarios", never):
        if line and warn:
            warn(line)
        elif line:
            warnings.warn(line, stacklevel=2)
    with ExitStack() as stack:
        writer = None
        if store is not None:
            store = store if isinstance(store, Store) else Store(store)
            writer = stack.enter_context(Writer(store, grid, seed, str(goal)))
        found = writer.found() if writer else {}
        cells = [_cell(place, each, goal, found) for place, each in enumerate(scenarios)]
        team = _Threads(workers, seed) if client is None else _Cluster(client, seed)
        if arrived:
            for tally in found.values():
                arrived(tally)
        _work(cells, team, writer, progress, stop, arrived)
        if writer:
            writer.finish()
        return pd.DataFrame([cell.tally.row() for cell in cells])


def compare(
    scenarios: Sequence[Scenario],
    goal: Goal | None = None,
    seed: int = 1,
    workers: int | None = None,
    known: Mapping[str, Tally] | None = None,
    arrived: Callable[[Tally], object] | None = None,
    stop: threading.Event | None = None,
) -> list[Tally]:
    """Run a few scenarios side by side until a goal is met, the one least far first.

    Parameters
    ----------
    scenarios : sequence of Scenario
        What to run.
    goal : Goal, optional
        `Episodes` or `Precision`; ``Episodes(4_000)`` unless given.
    seed : int
        Names the streams.
    workers : int, optional
        Threads of ours; the processors there are unless given.
    known : mapping of str to Tally, optional
        By digest, batches of this seed that were run before; they are not run again.
    arrived : callable, optional
        Called by the calling thread with the tally of each batch.
    stop : threading.Event, optional
        Setting it ends the run.

    Returns
    -------
    list of Tally
        One for each scenario: what `sweep` would give it.

    Raises
    ------
    BadInput
        If a number is out of range.
    Cancelled
        If `stop` was set before all was done.
    """
    seed = whole_number("seed", seed)
    workers = os.cpu_count() or 1 if workers is None else whole_number("workers", workers, 1)
    goal = Episodes(4_000) if goal is None else goal
    cells = [_cell(place, each, goal, known or {}) for place, each in enumerate(scenarios)]
    _work(cells, _Threads(workers, seed), None, None, stop, arrived)
    return [cell.tally for cell in cells]


def _summed_up(what: str, each: Sequence[object]) -> str:
    return f"{len(each)} {what}; the first: {each[0]}" if each else ""


def _cell(place: int, scenario: Scenario, goal: Goal, all_found: Mapping[str, Tally]) -> _Cell:
    found = all_found.get(scenario.digest)
    if found is not None:
        limit, size = default_event_limit(scenario), batch_size(scenario)
        if found.event_limit != limit or (found.counts[:, 0] != size).any():
            wrong = f"has batches of scenario {scenario.digest[:12]} that were cut otherwise"
            raise BadInput("store", wrong, "another version made it: give another directory")
    return _Cell(place, scenario, goal, found)


def _work(
    cells: list[_Cell],
    team: _Threads | _Cluster,
    writer: Writer | None,
    progress: Callable[[Progress], object] | None,
    stop: threading.Event | None,
    arrived: Callable[[Tally], object] | None,
) -> None:
    """Have all the batches done that the cells want."""
    began = reported = time.monotonic()
    queue = [(0.0, cell.place) for cell in cells if cell.todo]
    heapq.heapify(queue)

    def take(done: Iterable[Done]) -> None:
        for cell, tally, seconds in done:
            if writer:
                writer.add(tally)
            if arrived:
                arrived(tally)
            waited = not cell.todo
            cell.add(tally, seconds)
            if waited and cell.todo:  # a further stage
                heapq.heappush(queue, (cell.done / cell.forecast, cell.place))

    if progress:
        progress(_progress(cells, team.hands, 0.0))
    try:
        while True:
            while team.room and (task := _next_task(cells, queue, team.seconds_per_task)):
                team.submit(task)
            if team.idle:
                break
            take(team.collect())
            if writer:
                writer.flush(if_due=True)
            now = time.monotonic()
            if progress and now > reported + _SECONDS_BETWEEN_REPORTS:
                reported = now
                progress(_progress(cells, team.hands, now - began))
            if stop is not None and stop.is_set():
                raise Cancelled
    finally:
        take(team.close())
    if progress:
        progress(_progress(cells, team.hands, time.monotonic() - began))


def _next_task(cells: list[_Cell], queue: list[tuple[float, int]], seconds: float) -> Task | None:
    """Take batches worth so many seconds, at least one, from the cells that are least far.

    All cells come first once, then all go forward together, so that the time left is estimated
    from all of them at any time.
    """
    task: Task = []
    pace = _pace(cells) if seconds else 0.0
    worth = 0.0
    while queue and (not task or worth < seconds) and len(task) < _BATCHES_PER_TASK:
        cell = cells[heapq.heappop(queue)[1]]
        batch = cell.todo.popleft()
        task.append((cell, batch))
        worth += _seconds_per_batch(cell, pace)
        if cell.todo:
            heapq.heappush(queue, (cell.todo[0] / cell.forecast, cell.place))
    return task or None


def _pace(cells: list[_Cell]) -> float:
    """Seconds for an event, counting all that a batch could have; 0 before anything was timed."""
    events = sum(cell.events * cell.timed for cell in cells)
    return sum(cell.seconds for cell in cells) / events if events else 0.0


def _seconds_per_batch(cell: _Cell, pace: float) -> float:
    if cell.timed:
        return cell.seconds / cell.timed
    return cell.events * (pace or _SECONDS_PER_EVENT)


def _progress(cells: list[_Cell], hands: int, seconds: float) -> Progress:
    pace = _pace(cells)
    left = sum((cell.forecast - cell.done) * _seconds_per_batch(cell, pace) for cell in cells)
    return Progress(
        done=sum(cell.done for cell in cells),
        total=sum(cell.forecast for cell in cells),
        found=sum(cell.found for cell in cells),
        episodes=sum(cell.done * cell.size for cell in cells),
        scenarios_done=sum(cell.finished for cell in cells),
        scenarios=len(cells),
        seconds=seconds,
        eta=left / hands if pace or not left else None,
    )
