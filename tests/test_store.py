"""The store: what is kept, what a kill or a broken disk can do to it, and who may write."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reservelab.model import scenario as scenarios
from reservelab.model.errors import BadInput
from reservelab.model.filesystems import Filesystem, alloc, lock, submit, unlock
from reservelab.model.machine import Machine
from reservelab.model.scenario import Mount, Scenario
from reservelab.model.schemes import GlobalPool
from reservelab.solve.simulate import Batches
from reservelab.solve.tally import Tally
from reservelab.study import results
from reservelab.study.grid import Grid
from reservelab.study.results import Store, Writer, summary
from reservelab.study.sweep import Episodes, sweep

TOY = Filesystem("toy", [alloc(1), lock("inode"), alloc(1), unlock("inode"), submit()])
BASE = Scenario(Machine(3), (Mount(TOY, flushers=3),), GlobalPool(3), quota=2, label="toy")
# Many of these episodes deadlock, for several reasons at once.
GRID = Grid(BASE, {"scheme": ["global", "watermark", "perthread"], "threads": [2, 3]}, name="small")
OTHER = Grid(BASE, {"threads": [2, 4]}, name="large")


def tallies(batches: int = 2, seed: int = 1, grid: Grid = GRID) -> list[Tally]:
    return [
        Batches(scenario, seed).run(batch)
        for scenario in grid.scenarios()
        for batch in range(batches)
    ]


@pytest.fixture(scope="module")
def rows() -> list[Tally]:
    return tallies()


def fill(path: Path, rows: list[Tally], parts: int = 3) -> Store:
    """A store with these rows in several parts, in an order that means nothing."""
    store = Store(path)
    order = np.random.default_rng(5).permutation(len(rows))
    with Writer(store, GRID, 1, "1 episodes") as writer:
        for part in np.array_split(order, parts):
            for k in part:
                writer.add(rows[k])
            writer.flush()
        writer.finish()
    return store


def parts_of(store: Store) -> list[Path]:
    return sorted(store.path.glob("part-*.parquet"))


def content(store: Store) -> bytes:
    """All rows as bytes, whatever parts they are in."""
    table = store.rows()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


# --- What is kept --------------------------------------------------------------------------------


def test_rows_come_back_as_the_tallies_they_were(tmp_path: Path, rows: list[Tally]) -> None:
    store = fill(tmp_path / "store", rows)
    wanted = [Tally.merge(rows[k : k + 2]) for k in range(0, len(rows), 2)]
    assert store.tallies() == wanted
    assert any(len(tally.dead_by_reasons) > 1 for tally in wanted)
    frame = pd.DataFrame([tally.row() for tally in wanted])
    pd.testing.assert_frame_equal(store.frame(), frame, check_exact=True)


def test_parts_and_order_mean_nothing(tmp_path: Path, rows: list[Tally]) -> None:
    stores = [fill(tmp_path / str(n), rows, parts=n) for n in (1, 5, 12)]
    assert [len(parts_of(store)) for store in stores] == [1, 5, 12]
    assert len({content(store) for store in stores}) == 1


def test_the_documented_columns_are_the_columns(tmp_path: Path, rows: list[Tally]) -> None:
    """The docstring's table, which the README copies, against a part as another reader sees it."""
    text = inspect.getdoc(results) or ""
    table = text.partition("Columns of a part\n")[2].partition("\nA part's schema")[0]
    entry = re.compile(r"^(\w+)\s+(string|int32|int64|double\[45\]|double|list of int\d+)\s", re.M)
    kinds = {"double[45]": "fixed_size_list<element: double>[45]", "list of int16": "list<element: "
             "int16>", "list of int32": "list<element: int32>"}  # fmt: skip
    documented = {name: kinds.get(kind, kind) for name, kind in entry.findall(table)}
    part = pq.read_schema(parts_of(fill(tmp_path / "store", rows))[0])
    seen = {f.name: str(f.type).replace("item", "element").replace(" not null", "") for f in part}
    assert documented == seen
    assert list(documented) == part.names
    version = part.metadata[b"reservelab.rules"].decode()
    assert version == str(scenarios.RULES_VERSION)
    assert part.metadata[b"reservelab.grid"].decode() == GRID.digest


def test_the_documented_keys_are_the_keys_of_spec_json(tmp_path: Path, rows: list[Tally]) -> None:
    store = fill(tmp_path / "store", rows)
    table = (inspect.getdoc(results) or "").partition("Keys of spec.json\n")[2]
    assert re.findall(r"^(\w+)\s", table, re.M) == list(store.spec)
    assert store.spec["runs"] == [{"seed": 1, "goal": "1 episodes", "finished": True}]
    assert store.grid().digest == GRID.digest == store.spec["digest"]


def test_a_store_outlives_its_catalogue(tmp_path: Path, rows: list[Tally]) -> None:
    """The scenarios are in it in full, so a grid that can no longer be read loses nothing."""
    store = fill(tmp_path / "store", rows)
    before = store.frame()
    spec = json.loads((store.path / "spec.json").read_text())
    spec["grid"] = spec["grid"].replace("threads", "threads_of_yore")
    (store.path / "spec.json").write_text(json.dumps(spec))
    assert store.frame().equals(before)


def test_summary_is_plain_json(tmp_path: Path, rows: list[Tally]) -> None:
    store = fill(tmp_path / "store", rows)
    told = store.summary()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["store"] == str(store.path)
    assert told["episodes"] == sum(tally.episodes for tally in rows)
    assert told["deadlocks"] == sum(tally.deadlocks for tally in rows)
    assert sum(variant["deadlocks"] for variant in told["variants"]) == told["deadlocks"]
    assert [variant["cells"] for variant in told["variants"]] == [2, 2, 2]
    assert len(told["cells"]) == told["scenarios"] == 6
    rest = {key: value for key, value in told.items() if key not in ("store", "runs")}
    assert rest == summary(GRID, store.frame())


def test_summary_names_what_was_left_out_and_has_no_nan() -> None:
    grid = Grid(BASE, {"scheme": ["perthread standing", "tickets"], "threads": [1, 2]})
    with pytest.warns(UserWarning, match="do not fit"):
        told = summary(grid, sweep(grid, Episodes(1)))
    assert told["left_out"] == [
        {"cell": {"scheme": "perthread standing", "threads": 2}, "reason": "4 pages set aside of 3"}
    ]
    never = Grid(BASE, {"scheme": ["perthread whole"], "pages": [1]})  # nobody ever enters
    with pytest.warns(UserWarning, match="no section of it will begin"):
        cell = summary(never, sweep(never, Episodes(1)))["cells"][0]
    assert cell["throughput_best"] is None


def test_two_seeds_share_a_store(tmp_path: Path, rows: list[Tally]) -> None:
    store = fill(tmp_path / "store", rows)
    others = tallies(1, seed=2)
    with Writer(store, GRID, 2, "1 episodes") as writer:
        assert writer.found() == {}
        for tally in others:
            writer.add(tally)
        writer.finish()
    assert store.tallies(seed=2) == others
    assert store.tallies(seed=1) == [Tally.merge(rows[k : k + 2]) for k in range(0, len(rows), 2)]
    assert store.frame()["seed"].unique().tolist() == [-1]
    assert [run["seed"] for run in store.spec["runs"]] == [1, 2]


def test_many_parts_are_merged_on_leaving(
    tmp_path: Path, rows: list[Tally], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fill(tmp_path / "plain", rows, parts=12)
    monkeypatch.setattr(results, "_PARTS_BEFORE_MERGING", 11)
    merged = fill(tmp_path / "merged", rows, parts=12)
    assert [path.name for path in parts_of(merged)] == ["part-000013.parquet"]
    assert content(merged) == content(plain)


# --- What can go wrong ---------------------------------------------------------------------------


def tear(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "flipped":  # one bit, in the middle of the data
        middle = len(whole) // 3
        whole = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    else:
        whole = whole[: {"empty": 0, "short": 100, "without an end": len(whole) - 1}[how]]
    path.write_bytes(whole)


@pytest.mark.parametrize("how", ["empty", "short", "without an end", "flipped"])
def test_a_torn_part_costs_one_line_and_its_batches(
    tmp_path: Path, rows: list[Tally], how: str
) -> None:
    store = fill(tmp_path / "store", rows)
    before = content(store)
    torn = parts_of(store)[1]
    lost = len(pq.read_table(torn))
    tear(torn, how)
    with pytest.warns(UserWarning, match=r"part-000002\.parquet: a torn part, left out") as told:
        assert len(store.rows()) == len(rows) - lost
    assert len(told) == 1
    size = Batches(GRID.scenarios()[0], 1).size
    assert {Batches(scenario, 1).size for scenario in GRID.scenarios()} == {size}
    with pytest.warns(UserWarning, match="a torn part, set aside; its batches run again") as told:
        frame = sweep(GRID, Episodes(2 * size), store)
    assert len(told) == 1
    assert "\n" not in str(told[0].message)
    # Its batches ran again and nothing else, and the next one finds nothing torn.
    assert len(pq.read_table(parts_of(store)[-1])) == lost
    assert content(store) == before
    assert store.frame().equals(frame)


def test_a_row_that_stands_twice_counts_once(tmp_path: Path, rows: list[Tally]) -> None:
    """What a kill between merging parts and removing them leaves behind."""
    store = fill(tmp_path / "store", rows)
    before = content(store)
    copy = store.path / "part-000009.parquet"
    copy.write_bytes(parts_of(store)[0].read_bytes())
    assert content(store) == before


def test_a_row_with_other_counts_is_an_error(tmp_path: Path, rows: list[Tally]) -> None:
    store = fill(tmp_path / "store", rows)
    counts = rows[3].counts.copy()
    counts[0, 3] += 1  # one event more
    with Writer(store, GRID, 1, "") as writer:
        writer.add(replace(rows[3], counts=counts))
    with pytest.raises(BadInput, match=r"batch 1 of seed 1 of scenario .* has other counts in one"):
        store.rows()
    with pytest.raises(BadInput, match="has other counts"), Writer(store, GRID, 1, ""):
        pytest.fail("it opened")


def test_a_store_of_another_grid_is_refused(tmp_path: Path, rows: list[Tally]) -> None:
    store = fill(tmp_path / "store", rows)
    before = (store.path / "spec.json").read_bytes()
    with pytest.raises(BadInput) as caught:
        sweep(OTHER, Episodes(1), store)
    assert str(caught.value) == (
        f"{store.path}: a store of grid 'small' ({GRID.digest[:12]}); "
        f"this is grid 'large' ({OTHER.digest[:12]}): give another directory"
    )
    assert (store.path / "spec.json").read_bytes() == before
    with Writer(store, GRID, 1, ""):
        pass  # the lock was let go


def test_a_store_of_other_rules_is_refused(
    tmp_path: Path, rows: list[Tally], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path / "store", rows)
    monkeypatch.setattr(results, "RULES_VERSION", 7)
    line = "a store of rules version 1; these are rules version 7: give another directory"
    with pytest.raises(BadInput, match=line):
        store.frame()
    with pytest.raises(BadInput, match=line):
        sweep(GRID, Episodes(1), store)


def test_a_part_of_another_grid_is_refused(tmp_path: Path, rows: list[Tally]) -> None:
    store = fill(tmp_path / "store", rows)
    other = Store(tmp_path / "other")
    with Writer(other, OTHER, 1, "") as writer:
        writer.add(tallies(1, grid=OTHER)[0])
    (store.path / "part-000077.parquet").write_bytes(parts_of(other)[0].read_bytes())
    line = f"part-000077.parquet: a part of grid {OTHER.digest[:12]}, rules version 1; this store"
    with pytest.raises(BadInput, match=line):
        store.rows()


def test_batches_cut_otherwise_are_refused(tmp_path: Path, rows: list[Tally]) -> None:
    """Another version of the package may have cut the episodes into other batches."""
    store = Store(tmp_path / "store")
    with Writer(store, GRID, 1, "") as writer:
        writer.add(Batches(GRID.scenarios()[0], 1).run(0, episodes=5))
        writer.add(rows[2])
    with pytest.raises(BadInput, match="cut otherwise; another version made it"):
        sweep(GRID, Episodes(1), store)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: path.write_text("x"), r"cannot be written to \(File exists\); give a direc"),
        (
            lambda path: (path.mkdir(), (path / "thesis.tex").touch()),
            r"not a store, but a directory with thesis.tex in it; give a store, or a new direct",
        ),
    ],
)
def test_what_is_not_a_store_is_left_alone(tmp_path: Path, make: Any, line: str) -> None:  # noqa: ANN401
    path = tmp_path / "store"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput, match=line):
        sweep(GRID, Episodes(1), path)
    assert sorted(tmp_path.rglob("*")) == before


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    for use in (Store(tmp_path / "no").frame, Store(tmp_path).rows):
        with pytest.raises(BadInput, match="not a store; give one that a sweep made"):
            use()
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read"):
        Store(tmp_path).tallies()
    (tmp_path / "spec.json").write_text('{"format": 99}')
    with pytest.raises(BadInput, match="a store of format 99; this version reads format 1"):
        Store(tmp_path).tallies()


def test_an_unfinished_sweep_says_so(tmp_path: Path, rows: list[Tally]) -> None:
    store = Store(tmp_path / "store")
    with Writer(store, GRID, 1, "") as writer:
        writer.add(rows[0])
    with pytest.warns(UserWarning, match="the sweep is not finished") as told:
        assert len(store.frame()) == 1
    assert len(told) == 1


def test_a_part_appears_whole_or_not_at_all(
    tmp_path: Path, rows: list[Tally], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is on the disk under another name before it gets its own; the folder too, after."""
    calls: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def spy_fsync(descriptor: int) -> None:
        kind = "folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "file"
        calls.append(f"fsync {kind}")
        fsync(descriptor)

    def spy_rename(self: Path, target: Path) -> Path:
        assert not target.exists()
        calls.append("rename")
        return rename(self, target)

    store = Store(tmp_path / "store")
    with Writer(store, GRID, 1, "") as writer:
        monkeypatch.setattr(os, "fsync", spy_fsync)
        monkeypatch.setattr(Path, "replace", spy_rename)
        writer.add(rows[0])
        writer.flush()
        monkeypatch.undo()
    assert calls == ["fsync file", "rename", "fsync folder"]


def test_a_kill_before_the_rename_leaves_nothing(
    tmp_path: Path, rows: list[Tally], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> Path:
        raise KeyboardInterrupt

    store = Store(tmp_path / "store")
    with Writer(store, GRID, 1, "") as writer:
        writer.add(rows[0])
        monkeypatch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            writer.flush()
        writer._rows.clear()  # the process is dead: it writes nothing more on the way out
    monkeypatch.undo()
    assert [path.name for path in store.path.glob(".*")] == [".part-000001.parquet.tmp"]
    assert len(store.rows()) == 0
    with Writer(store, GRID, 1, "") as writer:
        assert list(store.path.glob(".*")) == []
        assert writer.found() == {}


# --- Who may write -------------------------------------------------------------------------------

HOLD = """
import sys
from reservelab.study.grid import Grid
from reservelab.study.results import Store, Writer
with Writer(Store(sys.argv[1]), Grid.from_toml(sys.argv[2]), 1, ""):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_one_writer_at_a_time_and_a_dead_one_does_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    command = [sys.executable, "-c", HOLD, str(store.path), GRID.toml()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"open\n"
            line = "another sweep is writing to it; wait for its end, or give another store"
            with pytest.raises(BadInput, match=line):
                sweep(GRID, Episodes(1), store)
            assert len(store.rows()) == 0  # reading is free
        finally:
            other.send_signal(signal.SIGKILL)
    with Writer(store, GRID, 1, ""):
        pass
