"""The panels without a browser: what their controls do to what is run, and what they show."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reservelab as rl
from reservelab.model import catalogue
from reservelab.show import figures
from reservelab.show.background import Background, cancel_all
from reservelab.solve.simulate import Cancelled
from reservelab.study.decision import decide
from reservelab.study.fits import DeadlockFit
from reservelab.study.sweep import Progress, compare

ROOT = Path(__file__).parents[1]
TOY = rl.Filesystem("toy", [rl.alloc(2), rl.submit()], device=rl.Device(rate=1.0, depth=1))
# Tickets, but what was drawn comes back to everybody: no named scheme.
OWN = rl.Scheme(
    start="pool", entry="tickets", grants=("claim", "free"), exit="unclaim", returns="free"
)
SECONDS = 120
FEW = rl.Precision(relative=0.2, absolute=0.01, at_most=2_000)


def words(widget: Any) -> str:  # noqa: ANN401 - ipywidgets ships no types
    return str(widget.value).partition("</style>")[2]


def shown(bench: Any) -> dict[str, str]:  # noqa: ANN401
    """What the table of a bench says, by scheme."""
    rows = re.findall(r'<tr data-scheme="([^"]*)"[^>]*>(.*?)</tr>', bench.numbers.value)
    return {name: re.sub(r"<[^>]+>", " ", cells) for name, cells in rows}


def ended(panel: Any) -> Any:  # noqa: ANN401
    assert panel.wait(SECONDS)
    return panel


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"not within {SECONDS} s: {what}"
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def _nothing_runs_on() -> Iterator[None]:
    yield
    cancel_all()


# --- Background ----------------------------------------------------------------------------------


def until_told(stop: threading.Event) -> None:
    if stop.wait(SECONDS):
        raise Cancelled


def test_a_job_is_cancelled_by_the_next_one_and_by_hand() -> None:
    errors: list[Exception] = []
    background = Background("test", errors.append)
    stops: list[threading.Event] = []

    def first(stop: threading.Event) -> None:
        stops.append(stop)
        until_told(stop)

    began = time.monotonic()
    background.start(first)
    until(lambda: stops, "the first job runs")
    background.start(until_told)
    assert stops[0].is_set()
    assert background.running
    background.cancel()
    assert background.wait(10)
    background.start(until_told)
    cancel_all()
    assert background.wait(10)
    assert time.monotonic() < began + 10
    assert errors == []


def test_an_error_is_told_but_not_by_a_job_that_was_told_to_stop() -> None:
    errors: list[Exception] = []
    background = Background("test", errors.append)

    def fails(_: threading.Event) -> None:
        raise ValueError("a bug")

    def fails_late(stop: threading.Event) -> None:
        stop.wait(SECONDS)
        raise ValueError("nobody asks any more")

    background.start(fails)
    assert background.wait(10)
    background.start(fails_late)
    background.cancel()
    assert background.wait(10)
    assert [str(error) for error in errors] == ["a bug"]


# --- The bench -----------------------------------------------------------------------------------


def small(**options: Any) -> Any:  # noqa: ANN401
    """The three flushers of the README."""
    setting: dict[str, Any] = {
        "filesystems": [TOY], "machine": 3, "threads": 3, "quota": 2, "goal": FEW,
        "only": ["watermark", "perthread", "tickets draw-last"],
    }  # fmt: skip
    return rl.Bench(**(setting | options))


def test_the_bench_shows_what_simulate_and_exact_say() -> None:
    bench = ended(small(reserve=3))
    frame = bench.frame()
    assert list(frame["variant"]) == ["watermark", "perthread", "tickets draw-last"]
    for scenario, (_, row) in zip(bench.scenarios(), frame.iterrows(), strict=True):
        tally = rl.simulate(scenario, int(row["episodes"]), seed=1)
        assert tally.row() == row.to_dict()
        exactly = rl.exact(scenario).deadlock_probability
        text = shown(bench)[row["variant"]]
        assert f" {exactly:.6g} " in text
        assert f"{row['episodes']:,}" in text
    # The README's number, on a device of rate 1.
    assert " 0.33677 " in shown(bench)["watermark"]
    assert 'data-state="done"' in bench.numbers.value
    assert 'data-complete="1"' in bench.numbers.value
    assert "data:image/png" in bench.figure.value
    assert re.search(r'alt="[^"]{20,}"', bench.figure.value)


def test_the_figure_of_the_bench_holds_the_numbers_of_its_table() -> None:
    bench = ended(small(only=None, machine=5))
    frame = bench.frame()
    solved = {row["digest"]: k / 10 for k, (_, row) in enumerate(frame.iterrows())}
    figure = figures.side_by_side(frame, solved)
    drawn = {line.get_gid(): line for ax in figure.axes for line in ax.lines if line.get_gid()}
    for place, (_, row) in enumerate(frame.iterrows()):
        for quantity in ("deadlock_probability", "idle_mean", "throughput"):
            unseen = quantity == "deadlock_probability" and row["deadlocks"] == 0
            kind, end = ("bound", "high") if unseen else ("best", "best")
            name = f"{kind}|{row['variant']}|{quantity}"
            ((x, y),) = np.asarray(drawn[name].get_xydata())
            assert y == place
            assert x == pytest.approx(row[f"{quantity}_{end}"], nan_ok=True)
        if place:
            ((x, _),) = np.asarray(drawn[f"exact|{row['variant']}"].get_xydata())
            assert x == place / 10
    assert f"exact|{frame['variant'][0]}" not in drawn  # a zero has no place on that axis
    assert "exactly 0" in [text.get_text() for text in figure.axes[0].texts]


def test_going_back_is_instant_and_the_same() -> None:
    bench = ended(small())
    before = shown(bench)
    bench.threads.value = 4
    assert shown(ended(bench)) != before
    bench.cancel_button.click()
    began = time.monotonic()
    bench.threads.value = 3
    assert 'data-complete="1"' in bench.numbers.value  # before any batch could have run
    assert time.monotonic() < began + 0.5
    assert shown(bench) == before
    assert shown(ended(bench)) == before


def test_a_stale_run_shows_nothing() -> None:
    endless = rl.Precision(relative=0.0001, absolute=0.0, at_most=10**8)
    bench = small(goal=endless, threads=3)
    stale = bench._plan
    bench.threads.value = 5
    bench._show(stale, "done")  # what a batch of the old run does when it ends
    assert 'data-threads="5"' in bench.numbers.value
    assert 'data-state="running"' in bench.numbers.value
    assert all(row["threads"] == 5 for _, row in bench.frame().iterrows())
    bench.cancel()
    assert ended(bench)
    assert 'data-state="cancelled"' in bench.numbers.value


def test_cancel_ends_a_long_run_soon_and_keeps_its_numbers() -> None:
    bench = small(goal=rl.Precision(relative=0.0001, absolute=0.0, at_most=10**8))
    until(lambda: 'data-complete="1"' in bench.numbers.value, "numbers of every scheme")
    assert not bench.cancel_button.disabled
    began = time.monotonic()
    bench.cancel_button.click()
    assert bench.wait(SECONDS)
    assert time.monotonic() < began + 10
    assert bench.cancel_button.disabled
    assert "cancelled" in words(bench.state)
    assert len(bench.frame()) == 3


def test_weights_always_sum_to_one_and_moving_one_rescales_the_others() -> None:
    bench = small(filesystems=[], mix="desktop_2004", machine=64)
    weight = {name: control.value for name, control in bench.weights.items()}
    assert weight["ext3"] == pytest.approx(0.7)
    bench.weights["ext3"].value = 0.4
    values = [control.value for control in bench.weights.values()]
    assert sum(values) == pytest.approx(1)
    assert bench.weights["swap"].value == pytest.approx(0.4)
    assert bench.weights["reiserfs"].value == pytest.approx(0.2)
    assert bench.preset.value == "other"
    bench.preset.value = "server_2004"
    assert bench.weights["xfs_2004"].value == pytest.approx(0.4)
    assert bench.weights["reiserfs"].value == 0
    names = [mount.filesystem.name for mount in bench.scenarios()[0].mounts]
    assert names == ["ext2", "ext3", "xfs_2004", "swap"]


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda w: sum(w) > 1e-3),
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), max_size=8),
)
def test_with_share_keeps_the_sum_and_the_proportion_of_the_others(
    weights: list[float], moves: list[tuple[int, float]]
) -> None:
    files = [rl.Filesystem(f"f{k}", [rl.alloc(1), rl.submit()]) for k in range(len(weights))]
    mix = rl.Mix({fs: w / sum(weights) for fs, w in zip(files, weights, strict=True)})
    for place, share in moves:
        k = place % len(files)
        moved = mix.with_share(f"f{k}", share)
        assert sum(moved.weights) == pytest.approx(1, abs=1e-12)
        assert moved.weights[k] == share
        rest = 1 - mix.weights[k]
        for j in range(len(files)):
            if j != k and rest > 1e-9:
                due = mix.weights[j] / rest * (1 - share)
                assert moved.weights[j] == pytest.approx(due, rel=1e-6, abs=1e-9)
        mix = moved


def test_machine_presets_and_pages_of_ones_own() -> None:
    bench = small(machine="2.6.9-64MB")
    assert bench.pages.value == 128
    bench.machine.value = "2.6.9-256MB"
    assert bench.scenarios()[0].machine.pages == 256
    assert bench.reserve.max == 256
    bench.pages.value = 10
    assert bench.machine.value == "other"
    assert bench.scenarios()[0].machine.pages == 10
    assert bench.reserve.max == 10


def test_every_control_reaches_the_scenario() -> None:
    bench = small(filesystems=[], mix="ext3", machine=64)
    bench.dirtiers.value = 2
    bench.quota.value = 5
    bench.waiting.value = "racing"
    bench.reserve.value = 11
    bench.speed.value = 2.0
    scenario = bench.scenarios()[0]
    assert (scenario.mounts[0].flushers, scenario.mounts[0].dirtiers) == (3, 2)
    assert (scenario.quota, scenario.waiting, scenario.reserve) == (5, "racing", 11)
    ext3 = catalogue.filesystems["ext3"]
    assert scenario.mounts[0].device is not None
    assert scenario.mounts[0].device.rate == 2 * ext3.device.rate
    bench.stack.value = "ext3_on_ext3"
    assert [m.filesystem.name for m in bench.scenarios()[0].mounts] == ["ext3", "loop_ext3"]
    bench.schemes["perthread"].value = False
    assert "perthread" not in shown(bench)
    bench.need_button.click()
    assert bench.reserve.value == bench.scenarios()[0].need


def test_what_does_not_fit_says_so_in_its_row() -> None:
    bench = ended(small(machine=5, only=["perthread standing", "watermark"]))
    assert "does not fit" in shown(bench)["perthread standing"]
    assert "6 pages set aside of 5" in shown(bench)["perthread standing"]
    assert "does not fit" not in shown(bench)["watermark"]
    bench.threads.value = 0
    assert "no thread" in shown(bench)["watermark"]
    assert bench.frame().empty


def test_a_scheme_and_a_filesystem_of_ones_own(tmp_path: Path) -> None:
    assert OWN.family == "custom"
    bench = ended(small(schemes=[OWN, "watermark max-sections=2"], machine=6, only=None))
    assert {"watermark max-sections=2", OWN.variant} <= set(bench.frame()["variant"])
    assert set(bench.frame()["mix"]) == {"toy"}
    panel = rl.SweepPanel(
        [OWN], [TOY], only=[OWN.variant, "tickets draw-last"], threads=(3, 6), reserve=(2, 4),
        machine=6, quota=2, episodes=200, store=tmp_path / "store",
    )  # fmt: skip
    panel.run()
    frame = ended(panel).frame()
    assert set(frame["variant"]) == {OWN.variant, "tickets draw-last"}
    assert len(frame) == 8
    assert rl.Grid.from_toml(panel.grid().toml()).digest == panel.grid().digest
    decision = ended(rl.DecisionPanel(panel, risk=0.05))
    assert OWN.variant in set(decision.frame()["variant"])


def test_wrong_arguments_get_one_line() -> None:
    with pytest.raises(rl.BadInput, match="only: 'nonsense' is unknown"):
        small(only=["nonsense"])
    with pytest.raises(rl.BadInput, match="only: 'nonsense' is unknown"):
        panel_of("", only=["nonsense"])
    with pytest.raises(rl.BadInput, match="'global nonsense' is unknown"):
        small(schemes=["global nonsense"])
    with pytest.raises(rl.BadInput, match="'toy' is not on the bench"):
        small(filesystems=[], mix=TOY)


def test_compare_is_what_a_sweep_says() -> None:
    bench = small(reserve=2)
    bench.cancel()
    goal = rl.Precision(relative=0.1, absolute=0.01, at_most=4_000)
    tallies = compare(bench.scenarios(), goal, seed=3, workers=1)
    arrived: list[rl.Tally] = []
    again = compare(
        bench.scenarios(), goal, seed=3, workers=2,
        known={tallies[0].scenario.digest: tallies[0]}, arrived=arrived.append,
    )  # fmt: skip
    assert again == tallies
    assert {t.scenario.digest for t in arrived} == {t.scenario.digest for t in tallies[1:]}
    grid = rl.Grid(bench.scenarios()[0], {"scheme": [s.scheme for s in bench.scenarios()]})
    pd.testing.assert_frame_equal(
        rl.sweep(grid, goal, seed=3), pd.DataFrame([tally.row() for tally in tallies])
    )


# --- The sweep panel -----------------------------------------------------------------------------


def panel_of(store: Path | str, **options: Any) -> Any:  # noqa: ANN401
    setting: dict[str, Any] = {
        "filesystems": [TOY], "only": ["watermark", "mempool", "perthread"], "threads": (3, 5, 8),
        "reserve": (1, 2, 4), "machine": 8, "quota": 4, "episodes": 400, "store": store,
    }  # fmt: skip
    return rl.SweepPanel(**(setting | options))


def test_a_sweep_in_the_panel_is_the_sweep_of_its_file(tmp_path: Path) -> None:
    panel = panel_of(tmp_path / "store")
    panel.grid_file.value = str(tmp_path / "grid.toml")
    panel.run_button.click()
    frame = ended(panel).frame()
    assert 'data-state="done"' in panel.status.value
    assert panel.progress.value == panel.progress.max
    panel.export_button.click()
    grid = rl.Grid.from_toml((tmp_path / "grid.toml").read_text())
    pd.testing.assert_frame_equal(frame, rl.sweep(grid, rl.Episodes(400)))
    for kind in reversed(panel.figure_kind.options):
        panel.figure.value = ""
        panel.figure_kind.value = kind
        panel.wait(0)
        assert "data:image/png" in panel.figure.value, kind
    panel.fit_button.click()
    assert len(ended(panel).fits) == 4 * 3
    assert "deadlock: watermark" in words(panel.result)


def test_a_cancelled_sweep_is_resumed_from_its_store(tmp_path: Path) -> None:
    panel = panel_of(tmp_path / "store", episodes=40_000, workers=1)
    panel.run()
    until(lambda: len(panel.frame()) > 3, "four scenarios have episodes")
    panel.cancel_button.click()
    assert 'data-state="cancelled"' in ended(panel).status.value
    done = int(panel.frame()["episodes"].sum())
    found: list[int] = []
    follow = panel._follow

    def watch(progress: Progress) -> None:
        found.append(progress.found)
        follow(progress)

    panel._follow = watch
    panel.episodes.value = 4_000
    panel.run()
    frame = ended(panel).frame()
    assert found[0] > 0, f"{done} episodes were done, none of them was found"
    stored = rl.Store(tmp_path / "store").frame()
    assert int(stored["episodes"].sum()) >= max(done, int(frame["episodes"].sum()))
    whole = rl.sweep(panel.grid(), rl.Episodes(4_000))
    counts = ["digest", "deadlocks"]
    common = frame[frame["episodes"] == whole["episodes"].to_numpy()]
    assert len(common)
    merged = common[counts].merge(whole[counts], on="digest")
    assert (merged["deadlocks_x"] == merged["deadlocks_y"]).all()


@pytest.mark.parametrize(
    ("control", "text", "line"),
    [
        ("threads", "3, x", "axes.threads"),
        ("threads", "", "threads: is empty"),
        ("reserve", "3*nonsense", "axes.reserve"),
        ("pages", "0", "no cell can run"),
    ],
)
def test_a_wrong_grid_gets_one_line(tmp_path: Path, control: str, text: str, line: str) -> None:
    panel = panel_of(tmp_path / "store")
    getattr(panel, control).value = text
    panel.run()
    assert line in words(panel.status)
    assert not (tmp_path / "store").exists()
    panel.grid_file.value = str(tmp_path / "grid.toml")
    panel.export()
    assert not (tmp_path / "grid.toml").exists()


def test_a_store_of_another_grid_is_refused_in_one_line(tmp_path: Path) -> None:
    ended_panel = panel_of(tmp_path / "store", threads=(3,), reserve=(1,))
    ended_panel.run()
    ended(ended_panel)
    panel = panel_of(tmp_path / "store")
    panel.run()
    assert "give another directory" in words(ended(panel).status)
    assert not panel.run_button.disabled


# --- The decision panel --------------------------------------------------------------------------


def test_decisions_are_the_fits_or_the_cells() -> None:
    panel = panel_of(
        "", threads=(4, 8), reserve=(0, 2, 4, 6, 8, 10, 12), machine=24, episodes=2_000,
        only=["watermark", "tickets draw-last", "perthread standing"],
    )  # fmt: skip
    panel.run()
    frame = ended(panel).frame()
    decision = ended(rl.DecisionPanel(panel, risk=0.02))
    assert 'data-state="done"' in decision.status.value
    assert decision.fits is not None
    answers = decision.frame().set_index("variant")
    pd.testing.assert_frame_equal(
        answers.reset_index(),
        decide(frame, decision.fits, 0.02, mix="toy", threads=decision.threads.value,
               waiting="asleep")[answers.reset_index().columns],
    )  # fmt: skip
    # A ticket pool of nothing lets nobody in, one of a section's 2 pages never deadlocks. With 24
    # pages for 8 threads of 2 the watermark never does, so there is no curve, but there are cells.
    assert answers.loc["tickets draw-last", "source"] == "fit"
    assert answers.loc["tickets draw-last", "reserve_high"] == 2
    assert answers.loc["watermark", "source"] == "cell"
    assert answers.loc["watermark", "reserve_high"] == 0
    assert answers.loc["perthread standing", "reserve_best"] == -1
    fitted = answers[answers["source"] == "fit"]
    for variant, row in fitted.iterrows():
        place = {"threads": decision.threads.value, "reserve": int(row["reserve_high"])}
        model = decision.fits.get(str(variant))
        assert isinstance(model, DeadlockFit)
        assert model.predict(place).high <= 0.02
    asked = decision.frame()["reserve_high"].tolist()
    decision.risk.value = 0.3
    eased = decision.frame()["reserve_high"].tolist()
    assert all(not b > a for a, b in zip(asked, eased, strict=True) if a == a and b == b)
    assert 'data-risk="0.3"' in decision.answers.value
    assert "data:image/png" in ended(decision).figure.value
    decision.threads.value = 5
    answers = decision.frame().set_index("variant")
    assert answers.loc["watermark", "source"] == ""
    assert "no cell with 5 threads" in words(decision.answers)


def test_a_decision_needs_a_table() -> None:
    with pytest.raises(rl.BadInput, match="table: is empty"):
        rl.DecisionPanel(pd.DataFrame())
    with pytest.raises(rl.BadInput, match="not a store"):
        rl.DecisionPanel("nonsense")


# --- In a kernel ---------------------------------------------------------------------------------

LONG = """
import reservelab as rl
toy = rl.Filesystem("toy", [rl.alloc(2), rl.submit()])
panel = rl.SweepPanel(
    filesystems=[toy], threads=(3, 4, 5), reserve=(2, 3), machine=40, quota=100,
    episodes=2_000_000, store={store!r},
)
panel.run()
bench = rl.Bench(filesystems=[toy], goal=rl.Precision(0.0001, 0.0, 10**8))
"""


# The end of a script that ends while both run.
RUNNING = """
import time
while not (len(panel.frame()) and len(bench.frame())):
    time.sleep(0.05)
assert panel._sweeper.running and bench._estimator.running
"""


class Kernel:
    """A kernel and its client, as a notebook has them."""

    def __init__(self) -> None:
        from jupyter_client.manager import start_new_kernel

        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
        self.pid = self.run("import os; print(os.getpid())").strip()

    def run(self, code: str) -> str:
        output: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            content = message["content"]
            output.append(content.get("text", "") or "\n".join(content.get("traceback", [])))

        reply = self.client.execute_interactive(code, timeout=SECONDS, output_hook=hook)
        assert reply["content"]["status"] == "ok", "\n".join(output)
        return "".join(output)

    def until(self, expression: str) -> None:
        until(lambda: self.run(f"print(bool({expression}))").strip() == "True", expression)

    def listens(self) -> bool:
        """Whether it would heed an interrupt now, when no cell runs."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        caught = re.search(r"^SigCgt:\s*(\w+)", status, re.M)
        assert caught is not None
        return bool(int(caught[1], 16) >> (signal.SIGINT - 1) & 1)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.client.stop_channels()
    if kernel.manager.is_alive():
        kernel.manager.shutdown_kernel(now=True)


def test_an_interrupt_of_an_idle_kernel_cancels_what_runs(kernel: Kernel, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    assert not kernel.listens()
    kernel.run(LONG.format(store=store))
    kernel.until("len(panel.frame()) and len(bench.frame())")
    kernel.run("assert panel._sweeper.running and bench._estimator.running")
    # An idle kernel ignores interrupts, unless a job has it listen: soon after the cell has ended.
    until(kernel.listens, "SIGINT is caught")
    kernel.manager.interrupt_kernel()
    kernel.until("not panel._sweeper.running and not bench._estimator.running")
    assert "cancelled" in kernel.run("print(panel.status.value)")
    # The kernel lives, and the store goes on.
    kernel.run("panel.run()")
    kernel.until("panel._sweeper.running")
    kernel.until("'were in the store' in panel.status.value")


# A kernel of its own each: one that is ended while it speaks can leave its client half a message.
@pytest.mark.parametrize("end", ["restart_kernel", "shutdown_kernel"])
def test_the_end_of_a_kernel_leaves_no_process_and_no_torn_store(
    kernel: Kernel, tmp_path: Path, end: str
) -> None:
    store = tmp_path / "store"
    kernel.run(LONG.format(store=str(store)))
    kernel.until("len(panel.frame()) > 3")
    until(lambda: list(store.glob("part-*")), "a part of the store is written")
    began = time.monotonic()
    getattr(kernel.manager, end)()
    assert time.monotonic() < began + 60
    left = subprocess.run(
        ["ps", "-o", "pid=", "-g", kernel.pid], capture_output=True, text=True, check=False
    )
    assert left.stdout.split() == []
    with pytest.warns(UserWarning, match="not finished"):
        tallies = rl.Store(store).frame()
    assert len(tallies) > 3
    assert not list(store.glob("*.torn"))
    first = rl.Store(store).tallies()[0]
    again = rl.simulate(first.scenario, int(first.counts[0, 0]), seed=1)
    assert (again.counts[0] == first.counts[0]).all()


def test_a_script_that_ends_is_not_held_up() -> None:
    code = LONG.format(store="") + RUNNING
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert time.monotonic() < began + SECONDS / 2
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
