"""Sweeps: the same rows whoever does the work and whatever happens to them; goals; progress."""

import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom

from reservelab.model.errors import BadInput
from reservelab.model.filesystems import Filesystem, alloc, submit
from reservelab.model.machine import Machine
from reservelab.model.scenario import Mount, Scenario
from reservelab.model.schemes import GlobalPool
from reservelab.solve.simulate import Cancelled, batch_size, simulate
from reservelab.solve.tally import Tally, clopper_pearson
from reservelab.study import sweep as sweeping
from reservelab.study.grid import Grid
from reservelab.study.results import Store, Writer
from reservelab.study.sweep import Episodes, Precision, Progress, sweep

TOY = Filesystem("toy", [alloc(2), submit()])
BASE = Scenario(Machine(4), (Mount(TOY, flushers=3),), GlobalPool(4), quota=2)
# Deadlock probabilities from 0 to nearly 1, and batches of two sizes.
GRID = Grid(
    BASE,
    {
        "scheme": ["watermark", "perthread", "global", "tickets"],
        "quota": [2, 40],
        "threads": [3, 5],
    },
    name="small",
)
SIZES = sorted({batch_size(scenario) for scenario in GRID.scenarios()})


def content(store: Store | Path) -> bytes:
    """All rows of a store as bytes, sorted by their key, whatever parts they are in."""
    table = (store if isinstance(store, Store) else Store(store)).rows()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


# --- Who does the work ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("one") / "store")
    sweep(GRID, Episodes(2 * SIZES[-1] + 1), store, workers=1)
    return store


def test_the_grid_tries_what_it_should(one_worker: Store) -> None:
    frame = one_worker.frame()
    best = frame["deadlock_probability_best"]
    assert ((best > 0.05) & (best < 0.95)).sum() >= 4
    assert (best == 0).any()
    assert len(SIZES) > 2
    assert len(one_worker.rows()) > 100


@pytest.mark.parametrize("workers", [2, 8])
def test_any_number_of_workers(one_worker: Store, tmp_path: Path, workers: int) -> None:
    frame = sweep(GRID, Episodes(2 * SIZES[-1] + 1), tmp_path / "store", workers=workers)
    assert content(tmp_path / "store") == content(one_worker)
    assert frame.equals(one_worker.frame())


def test_any_order(one_worker: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches handed out in a random order, and the grid written down the other way round."""
    dice = random.Random(3)
    hand_out = sweeping._next_task

    def shuffled(cells: list[Any], queue: list[Any], seconds: float) -> Any:  # noqa: ANN401
        dice.shuffle(queue)
        for cell in cells:
            dice.shuffle(cell.todo)
        return hand_out(cells, queue, seconds)

    monkeypatch.setattr(sweeping, "_next_task", shuffled)
    other = Grid(BASE, {axis: values[::-1] for axis, values in reversed(list(GRID.axes.items()))})
    frame = sweep(other, Episodes(2 * SIZES[-1] + 1), tmp_path / "store", workers=3)
    assert [s.digest for s in other.scenarios()] == frame["digest"].tolist()
    key = ["digest", "seed", "batch"]
    theirs, ours = (
        pa.Table.sort_by(store.rows(), [(name, "ascending") for name in key])
        for store in (Store(tmp_path / "store"), one_worker)
    )
    assert theirs.equals(ours)


def test_a_sweep_is_what_simulate_says(one_worker: Store) -> None:
    for scenario, tally in zip(GRID.scenarios(), one_worker.tallies(), strict=True):
        assert tally == simulate(scenario, tally.episodes, seed=1)
        assert tally.episodes >= 2 * SIZES[-1] + 1 > tally.episodes - batch_size(scenario)


def test_no_store_and_another_seed(one_worker: Store) -> None:
    without = sweep(GRID, Episodes(2 * SIZES[-1] + 1))
    assert without.equals(one_worker.frame())
    other = sweep(GRID, Episodes(1), seed=2)
    assert set(other["seed"]) == {2}
    assert not other["events"].equals(sweep(GRID, Episodes(1))["events"])


def test_the_table_is_of_what_was_asked_whatever_the_store_has(
    one_worker: Store, tmp_path: Path
) -> None:
    """A store full of episodes must not slip more of them into a smaller sweep."""
    path = tmp_path / "store"
    sweep(GRID, Episodes(2 * SIZES[-1] + 1), path)
    before = content(path)
    assert sweep(GRID, Episodes(1), path).equals(sweep(GRID, Episodes(1)))
    precision = Precision(0.5, 0.1)
    assert sweep(GRID, precision, path).equals(sweep(GRID, precision))
    assert content(path) == before == content(one_worker)


# --- Stopping and going on -----------------------------------------------------------------------


def stop_after(batches: int, stop: threading.Event) -> Callable[[Progress], None]:
    def look(progress: Progress) -> None:
        if progress.done >= batches:
            stop.set()

    return look


def test_stopping_keeps_what_is_done(one_worker: Store, tmp_path: Path) -> None:
    path, stop = tmp_path / "store", threading.Event()
    with pytest.raises(Cancelled):
        sweep(GRID, Episodes(2 * SIZES[-1] + 1), path, progress=stop_after(20, stop), stop=stop)
    kept = len(Store(path).rows())
    assert 20 <= kept < len(one_worker.rows())
    seen: list[Progress] = []
    frame = sweep(GRID, Episodes(2 * SIZES[-1] + 1), path, progress=seen.append)
    assert seen[0].done == seen[0].found == kept
    assert content(path) == content(one_worker)
    assert frame.equals(one_worker.frame())


# A sweep in a process of its own, which tells how many batches are done and when.
CHILD = """
import sys, time
from reservelab.study.grid import Grid
from reservelab.study.sweep import Episodes, sweep
def tell(progress):
    print(progress.done, progress.total, progress.found, flush=True)
grid = Grid.from_toml(sys.argv[1])
sweep(grid, Episodes(int(sys.argv[2])), sys.argv[3], workers=int(sys.argv[4]), progress=tell)
"""


def child(grid: Grid, episodes: int, path: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, grid.toml(), str(episodes), str(path), str(workers)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def reports(process: subprocess.Popen[str]) -> Iterator[tuple[float, int, int, int]]:
    """When each report came, and the batches done, in all, and found in the store."""
    assert process.stdout is not None
    for line in process.stdout:
        done, total, found = map(int, line.split())
        yield time.monotonic(), done, total, found


LONG = 30 * SIZES[-1]


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("whole") / "store")
    sweep(GRID, Episodes(LONG), store)
    return store


def parts(path: Path) -> int:
    return len(list(path.glob("part-*.parquet")))


def test_killed_twice_and_resumed(never_killed: Store, tmp_path: Path) -> None:
    """SIGKILL, with other numbers of workers each time: at most about a second of work is lost."""
    path = tmp_path / "store"
    kept = 0
    for workers, wanted in ((1, 2), (2, 1)):
        before = parts(path)
        told = []
        with child(GRID, LONG, path, workers) as process:
            try:
                for report in reports(process):
                    told.append(report)
                    assert report[3] == kept  # what it found in the store
                    if parts(path) >= before + wanted:
                        break
            finally:
                process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        _, done, total, _ = told[-1]
        assert process.returncode == -signal.SIGKILL
        assert done < total, "too fast for this test: make LONG longer"
        with pytest.warns(UserWarning, match="not finished"):
            Store(path).frame()
        # Parts are a second apart; two more are for a machine that has other things to do.
        safe = max((done for at, done, *_ in told if at < killed - 3), default=0)
        before, kept = kept, len(Store(path).rows())
        assert kept > before
        assert safe <= kept <= done + 50
    frame = sweep(GRID, Episodes(LONG), path, workers=8)
    assert content(path) == content(never_killed)
    assert frame.equals(never_killed.frame())


def test_control_c_keeps_all_that_was_done(never_killed: Store, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with child(GRID, LONG, path, 2) as process:
        try:
            for report in reports(process):
                if report[1] > 20:
                    process.send_signal(signal.SIGINT)
                    break
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode != 0
    assert error.splitlines()[-1] == "KeyboardInterrupt"
    kept = len(Store(path).rows())
    assert report[1] <= kept < report[2]
    # What it kept are rows of the whole sweep; that the rest can follow is shown above.
    whole = {row["digest"] + str(row["batch"]): row for row in never_killed.rows().to_pylist()}
    for row in Store(path).rows().to_pylist():
        assert row == whole[row["digest"] + str(row["batch"])]


def test_an_error_in_the_watcher_loses_nothing(tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        if progress.done:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sweep(GRID, Episodes(LONG), tmp_path / "store", progress=fail)
    assert len(Store(tmp_path / "store").rows()) > 0


def test_rows_are_written_about_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    tally = simulate(BASE, batch_size(BASE))
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Writer(store, Grid(BASE, {}), 1, "") as writer:
        counts = []
        for clock[0] in (100.5, 101.1, 101.9, 102.2):
            writer.add(tally)
            writer.flush(if_due=True)
            counts.append(len(list(store.path.glob("part-*"))))
    assert counts == [0, 1, 1, 2]


# --- Goals ---------------------------------------------------------------------------------------


def outcome(episodes: int, deadlocks: int, size: int = 256) -> Tally:
    """As much of a tally as a goal may look at: how many batches, and the interval."""
    interval = clopper_pearson(deadlocks, deadlocks, episodes)
    return cast(Tally, SimpleNamespace(keys=range(episodes // size), deadlock_probability=interval))


def test_episodes_are_rounded_up_to_whole_batches() -> None:
    assert [Episodes(n).batches(256, None) for n in (1, 256, 257, 1000)] == [1, 1, 2, 4]
    assert Episodes(1000).batches(256, outcome(1024, 5)) == 4


def test_precision_doubles_until_it_is_enough() -> None:
    goal = Precision(relative=0.1, absolute=0.01, at_most=5000)
    # Fewest whole batches with 256 episodes, whatever a batch is.
    assert [goal.batches(size, None) for size in (1, 64, 100, 256, 4096)] == [256, 4, 3, 1, 1]
    assert goal.batches(256, outcome(256, 128)) == 2  # 0.5 +- 0.063
    assert goal.batches(256, outcome(512, 256)) == 2  # 0.5 +- 0.044, within a tenth
    # Nothing happened: half of [0, 3.7 / n] is within 0.01 at 256 episodes, within 0.005 at 512.
    assert goal.batches(256, outcome(256, 0)) == 1
    assert replace(goal, absolute=0.005).batches(256, outcome(256, 0)) == 2
    assert replace(goal, absolute=0.005).batches(256, outcome(512, 0)) == 2
    # The last stage ends with the first whole batch that reaches at_most, and there it ends.
    assert goal.batches(256, outcome(4096, 410)) == 16
    hard = replace(goal, relative=0.001, absolute=0.0)
    assert hard.batches(256, outcome(4096, 410)) == 20
    assert hard.batches(256, outcome(5120, 410)) == 20
    assert replace(hard, at_most=100).batches(256, None) == 1


def test_forecasts_are_stages() -> None:
    goal = Precision(relative=0.1, absolute=0.0, at_most=100_000)
    # 0.02 to a tenth takes 384 * 49 episodes: the stage of 32768.
    assert goal.forecast(256, outcome(512, 10)) == 128
    assert goal.forecast(256, outcome(512, 0)) == 391  # for ever, so at_most
    assert goal.forecast(256, outcome(1024, 512)) == 4


def test_the_store_names_the_goals(tmp_path: Path) -> None:
    for goal in (Episodes(7), Precision(0.5, 0.25, 100), Episodes(7)):
        sweep(Grid(BASE, {}), goal, tmp_path / "store")
    assert Store(tmp_path / "store").spec["runs"] == [
        {"seed": 1, "goal": "precision 0.5 or 0.25, at most 100 episodes", "finished": True},
        {"seed": 1, "goal": "7 episodes", "finished": True},
    ]


@pytest.mark.parametrize("workers", [1, 4])
def test_precision_is_the_same_for_all_and_after_a_stop(tmp_path: Path, workers: int) -> None:
    goal = Precision(relative=0.01, absolute=0.001, at_most=3 * SIZES[-1])
    wanted = sweep(GRID, goal, tmp_path / "whole", workers=2)
    assert wanted["episodes"].nunique() > 3
    stop = threading.Event()
    with pytest.raises(Cancelled):
        sweep(GRID, goal, tmp_path / "cut", 1, workers, None, stop_after(9, stop), stop)
    assert sweep(GRID, goal, tmp_path / "cut", workers=workers).equals(wanted)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    low, best, high = (
        wanted[f"deadlock_probability_{end}"].to_numpy() for end in ("low", "best", "high")
    )
    enough = (high - low) / 2 <= np.maximum(0.01 * best, 0.001)
    assert (enough | (wanted["episodes"] >= 3 * SIZES[-1]).to_numpy()).all()
    assert enough.any()
    assert not enough.all()


def exact_law(goal: Precision, p: float, size: int) -> tuple[float, float]:
    """Expected error of the estimate in half widths asked for, and how often the interval holds p.

    What is published depends on the deadlocks at the end of each stage only, so its law follows
    from binomial laws, carrying along those that go on. Counts rarer than 1e-8 are dropped.
    """
    episodes = goal.batches(size, None) * size
    going = binom.pmf(np.arange(episodes + 1), episodes, p)
    error = held = 0.0
    while going.any():
        further = episodes
        for k in np.flatnonzero(going):
            batches = goal.batches(size, outcome(episodes, int(k), size))
            if batches * size > episodes:
                further = batches * size
                continue
            low, best, high = clopper_pearson(int(k), int(k), episodes)
            error += going[k] * (best - p)
            held += going[k] * (low <= p <= high)
            going[k] = 0.0
        added = binom.pmf(np.arange(further - episodes + 1), further - episodes, p)
        going = np.convolve(going, added)
        going[going < 1e-8] = 0.0
        episodes = further
    return error / max(goal.relative * p, goal.absolute), held


@pytest.mark.parametrize(
    ("relative", "absolute", "p"),
    [
        (0.1, 0.0, 0.1465), (0.1, 0.0, 0.61), (0.2, 0.0, 0.28), (0.5, 0.0, 0.0174),
        (0.05, 0.0, 0.16), (0.1, 0.001, 0.000825), (0.0, 0.003, 0.00403), (0.2, 0.01, 0.01),
        (0.2, 0.001, 0.0051), (0.5, 0.01, 0.0206),
    ],
)  # fmt: skip
def test_what_bias_remains_is_what_the_docstring_says(
    relative: float, absolute: float, p: float
) -> None:
    """Exact, no chance in it. The p are the worst ones of a fine search over (0.0005, 0.996).

    A rule that looked after every batch would be far outside: it stops at the first fluctuation.
    """
    bias, held = exact_law(Precision(relative, absolute, at_most=2**17), p, 256)
    assert -0.18 < bias < (0.18 if relative * p < absolute else 0.11)
    assert held > 0.92


def test_the_law_of_a_fixed_number_has_no_bias() -> None:
    """The check of the check: one stage is a plain binomial experiment."""
    bias, held = exact_law(Precision(0.1, 0.0, at_most=256), 0.3, 256)
    assert abs(bias) < 1e-5
    assert held > 0.95


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Episodes(0), "episodes: 0 is too small; "),
        (lambda: Episodes(1.5), "episodes: 1.5 is not a whole number; "),  # type: ignore[arg-type]
        (lambda: Precision("x"), "relative: 'x' is not a number; "),  # type: ignore[arg-type]
        (lambda: Precision(1.0), "relative: 1.0 is out of range; "),
        (lambda: Precision(absolute=-0.1), "absolute: -0.1 is out of range; "),
        (lambda: Precision(at_most=0), "at_most: 0 is too small; "),
        (lambda: sweep(GRID, seed=-1), "seed: -1 is too small; "),
        (lambda: sweep(GRID, workers=0), "workers: 0 is too small; "),
        (lambda: sweep(GRID, workers=2, client=cast(Any, 0)), "workers: given beside a cluster; "),
    ],
)
def test_bad_numbers_get_one_line(make: Callable[[], object], line: str) -> None:
    with pytest.raises(BadInput) as caught:
        make()
    assert str(caught.value).startswith(line)


# --- Who watches ---------------------------------------------------------------------------------


def test_progress_is_honest(tmp_path: Path) -> None:
    seen: list[Progress] = []
    episodes = 5 * SIZES[-1]
    frame = sweep(GRID, Episodes(episodes), tmp_path / "store", workers=2, progress=seen.append)
    first, last = seen[0], seen[-1]
    assert (first.done, first.found, first.eta, first.scenarios_done) == (0, 0, None, 0)
    assert last.done == last.total == len(Store(tmp_path / "store").rows())
    assert last.scenarios_done == last.scenarios == len(frame)
    assert last.episodes == frame["episodes"].sum()
    assert last.eta == 0
    assert len({progress.total for progress in seen}) == 1
    assert all(a.done <= b.done and a.seconds <= b.seconds for a, b in itertools.pairwise(seen))
    known = [progress.eta for progress in seen if progress.done > last.scenarios]
    assert all(eta is not None and 0 <= eta < 1000 for eta in known)
    json.dumps([vars(progress) for progress in seen])


def test_all_scenarios_go_forward_together() -> None:
    cells = [
        sweeping._Cell(place, scenario, Episodes(10 * SIZES[-1]), None)
        for place, scenario in enumerate(GRID.scenarios())
    ]
    queue = [(0.0, cell.place) for cell in cells]
    handed: list[sweeping._Cell] = []
    while task := sweeping._next_task(cells, queue, 0.0):
        handed += [cell for cell, _ in task]
        if len(handed) >= len(cells):
            shares = [(cell.target - len(cell.todo)) / cell.target for cell in cells]
            steps = [1 / cell.target for cell in cells]
            assert max(shares) - min(shares) <= max(steps) + 1e-9
    assert set(handed[: len(cells)]) == set(cells)
    assert len(handed) == sum(cell.target for cell in cells)


def timed_cells(episodes: int) -> tuple[list[sweeping._Cell], dict[sweeping._Cell, float]]:
    """Cells whose batches take a known time, very different from one to the next."""
    cells = [
        sweeping._Cell(place, scenario, Episodes(episodes), None)
        for place, scenario in enumerate(GRID.scenarios())
    ]
    speed = {cell: 0.003 * (1 + cell.place) for cell in cells}
    for cell in cells:
        cell.seconds, cell.timed = 7 * speed[cell], 7
    return cells, speed


def test_the_time_left_is_each_scenarios_own() -> None:
    """Not batches left times the mean: those that are left may be the slow ones."""
    cells, speed = timed_cells(40 * SIZES[-1])
    left = sum(cell.target * speed[cell] for cell in cells)
    assert sweeping._progress(cells, 4, 9.0).eta == pytest.approx(left / 4)
    cells[0]._missing = 0
    left -= cells[0].target * speed[cells[0]]
    assert sweeping._progress(cells, 4, 9.0).eta == pytest.approx(left / 4)
    # What was not timed yet is taken to run at the pace of the others.
    pace = sum(cell.seconds for cell in cells[:-1]) / sum(7 * cell.events for cell in cells[:-1])
    last = cells[-1]
    left += last.target * (last.events * pace - speed[last])
    last.seconds, last.timed = 0.0, 0
    assert sweeping._progress(cells, 4, 9.0).eta == pytest.approx(left / 4)


def test_cluster_tasks_are_worth_a_second() -> None:
    """Grouped by measured speed, over scenarios if need be; the last task takes what is left."""
    cells, speed = timed_cells(40 * SIZES[-1])
    queue = [(0.0, cell.place) for cell in cells]
    tasks = []
    while task := sweeping._next_task(cells, queue, 1.0):
        tasks.append(task)
    worth = [sum(speed[cell] for cell, _ in task) for task in tasks]
    assert len(tasks) > 3
    assert all(1 <= seconds < 1.1 for seconds in worth[:-1])
    assert sum(map(len, tasks)) == sum(cell.target for cell in cells)
    assert all(len({cell for cell, _ in task}) > 1 for task in tasks[:-1])


def test_findings_about_the_grid_get_one_line_each() -> None:
    schemes = ["perthread standing", "global"]
    grid = Grid(BASE, {"scheme": schemes, "threads": [2, 3, 4], "reserve": [1]})
    with pytest.warns(UserWarning, match="the first: ") as told:
        frame = sweep(grid, Episodes(1))
    assert [str(warning.message) for warning in told] == [
        "2 of the grid's cells do not fit into the machine and are left out; the first: "
        "scheme='perthread standing', threads=3: 6 pages set aside of 4",
        "3 warnings about scenarios; the first: mounts[0] (toy): nr_pages 2 is more than the pool "
        "of 1; one section can drain it",
    ]
    assert len(frame) == 4


# --- Weight --------------------------------------------------------------------------------------


def test_a_sweep_without_a_cluster_imports_no_dask() -> None:
    code = (
        "import sys\n"
        "from reservelab.study.grid import Grid\n"
        "from reservelab.study.sweep import Episodes, sweep\n"
        "sweep(Grid.from_toml(sys.argv[1]), Episodes(1))\n"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, GRID.toml()]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    heavy = {"dask", "distributed", "seaborn", "matplotlib", "IPython", "jupyter_core"}
    assert "reservelab.study.sweep" in loaded
    assert heavy & set(loaded) == set()
