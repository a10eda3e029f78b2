"""Results on disk: what a sweep has done so far, kept so that a kill costs about a second.

A store is a directory:

spec.json        what is swept (below); written once, then only its runs change
part-N.parquet   rows, one for each batch; written under another name, flushed to the disk, renamed
lock             held by the one process that writes (flock: it ends with the process, however)

A row is keyed by (digest, rules, seed, batch). Which part it is in, and in which order, means
nothing; the same row in two parts counts once, other numbers under the same key are an error.

Columns of a part
-----------------
digest               string         SHA-256 of the scenario, 64 hexadecimal digits; its TOML is in
                                    spec.json
rules                int32          version of the rules
seed                 int64          seed of the streams
batch                int64          number of the batch, from 0; a batch of b episodes has the
                                    episodes b * batch to b * batch + b - 1
event_limit          int64          events after which an episode counts as unfinished
episodes             int64          episodes run: b
deadlocks            int64          of them, ended in a deadlock
unfinished           int64          of them, stopped at the event limit
events               int64          events fired, over all episodes
completed            int64          writepages completed (sections ended by exit)
redirtied            int64          tries that backed out and left their page dirty
oom_kills            int64          kills by the OOM killer
sum_duration         double         sum over the episodes of the duration, in mean steps of a thread
sum_inside           double         ... of the integral over time of the threads inside a section
sum_waiting_entry    double         ... of those waiting at entry
sum_waiting_pages    double         ... of those waiting for pages
sum_waiting_semaphore
                     double         ... of those waiting for the semaphore
sum_waiting_locks    double         ... of those waiting for a lock
sum_idle             double         ... of the pages of the reserve that lie idle
sum_idle_peak        double         sum over the episodes of the most such pages at once
sum_completed        double         sum over the episodes of the writepages completed
products             double[45]     sums over the episodes of the products of these nine, in this
                                    order: the upper triangle of the matrix, row by row
dead_sets            list of int16  sets of reasons that occurred: bit k, from 0, for entry, pages,
                                    semaphore, lock, refill, own_semaphore, completion, io
dead_counts          list of int32  deadlocks with that set of what the stuck threads waited for

A part's schema metadata repeat the grid's digest, the version of the rules and of the package.

Keys of spec.json
-----------------
format       1
reservelab   version of the package that made the store
name         the grid's name
digest       the grid's digest
rules        version of the rules
left_out     cells whose reserve does not fit into the machine: their values and why
grid         the grid as a file (TOML)
scenarios    digest to scenario, as TOML: the rows mean something even where a catalogue changed
runs         for each seed and goal swept, the last one last: seed, goal, finished
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import itertools
import json
import math
import os
import re
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reservelab.model.errors import BadInput
from reservelab.model.pack import REASONS
from reservelab.model.scenario import RULES_VERSION, Scenario
from reservelab.solve.tally import COUNTS, MEANS, PRODUCTS, Tally
from reservelab.study.grid import Grid

_KEY = ("digest", "rules", "seed", "batch")
_SUMS = tuple(f"sum_{name}" for name in MEANS)
_SCHEMA = pa.schema(
    [
        pa.field("digest", pa.string(), nullable=False),
        pa.field("rules", pa.int32(), nullable=False),
        *(pa.field(n, pa.int64(), nullable=False) for n in ("seed", "batch", "event_limit")),
        *(pa.field(name, pa.int64(), nullable=False) for name in COUNTS),
        *(pa.field(name, pa.float64(), nullable=False) for name in _SUMS),
        pa.field("products", pa.list_(pa.float64(), PRODUCTS), nullable=False),
        pa.field("dead_sets", pa.list_(pa.int16()), nullable=False),
        pa.field("dead_counts", pa.list_(pa.int32()), nullable=False),
    ]
)
_FORMAT = 1
_PART = re.compile(r"part-([0-9]+)\.(parquet|torn)")
# Rows in hand are written this often; a kill costs them and the batches that run.
_SECONDS_BETWEEN_PARTS = 1.0
_PARTS_BEFORE_MERGING = 64


class Store:
    """A directory with the results of a sweep; nothing is read or made until it is needed.

    Parameters
    ----------
    path : str or Path
        The directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    @property
    def spec(self) -> dict[str, Any]:
        """What is swept: the keys of spec.json, as the module's docstring lists them."""
        path = self.path / "spec.json"
        try:
            spec: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            known = spec["format"] == _FORMAT
        except FileNotFoundError:
            raise BadInput(str(self.path), "not a store", "give one that a sweep made") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(str(path), f"cannot be read ({error})", "give another store") from None
        if not known:
            wrong = f"a store of format {spec['format']}"
            raise BadInput(str(self.path), wrong, f"this version reads format {_FORMAT}")
        if spec["rules"] != RULES_VERSION:
            wrong = f"a store of rules version {spec['rules']}"
            right = f"these are rules version {RULES_VERSION}: give another directory"
            raise BadInput(str(self.path), wrong, right)
        return spec

    def rows(self) -> pa.Table:
        """All rows, each once, sorted by the place of their scenario, seed and batch.

        Returns
        -------
        Table
            The columns that the module's docstring lists.

        Raises
        ------
        BadInput
            If this is no store, if a part is of another grid, or if rows of the same key differ.

        Warns
        -----
        UserWarning
            One line for each part that is torn; its rows are missing.
        """
        while True:
            spec = self.spec
            try:
                parts = {path: _read_part(path, spec["digest"]) for path in self._parts()}
            except FileNotFoundError:  # the writer merged the parts meanwhile
                continue
            break
        for path, part in parts.items():
            if part is None:
                warnings.warn(f"{path}: a torn part, left out", stacklevel=2)
        return self._unite(spec, [part for part in parts.values() if part is not None])

    def tallies(self, seed: int | None = None) -> list[Tally]:
        """The rows as tallies, one for each scenario that has any.

        Parameters
        ----------
        seed : int, optional
            Only the rows of this seed.

        Returns
        -------
        list of Tally
            In the order of the grid.
        """
        return _tallies(self.spec, self.rows(), seed)

    def frame(self, seed: int | None = None) -> pd.DataFrame:
        """The tidy frame of all rows, as `sweep` returns it.

        Parameters
        ----------
        seed : int, optional
            Only the rows of this seed.

        Returns
        -------
        DataFrame
            One row for each scenario that has any episodes.

        Warns
        -----
        UserWarning
            One line if the last sweep into the store was not finished.
        """
        spec = self.spec
        if not spec["runs"][-1]["finished"]:
            warnings.warn(
                f"{self.path}: the sweep is not finished; this is what it has so far", stacklevel=2
            )
        return pd.DataFrame([tally.row() for tally in _tallies(spec, self.rows(), seed)])

    def grid(self) -> Grid:
        """The grid, as it was written when the store was made.

        Returns
        -------
        Grid
            Another than the store's own if a catalogue has changed since.
        """
        return Grid.from_toml(self.spec["grid"])

    def summary(self) -> dict[str, Any]:
        """What is in the store, as plain values that JSON can hold.

        Returns
        -------
        dict
            As `summary` makes it, with the store's path and runs.
        """
        spec = self.spec
        about = {"store": str(self.path), "runs": spec["runs"]}
        return about | _summary(spec, len(spec["scenarios"]), self.frame())

    def _parts(self) -> list[Path]:
        files = {path: _PART.fullmatch(path.name) for path in self.path.iterdir()}
        parts = {int(m[1]): path for path, m in files.items() if m and m[2] == "parquet"}
        return [parts[number] for number in sorted(parts)]

    def _unite(self, spec: Mapping[str, Any], parts: list[pa.Table]) -> pa.Table:
        table = pa.concat_tables([_SCHEMA.empty_table(), *parts])
        places = pc.index_in(table["digest"], value_set=pa.array(list(spec["scenarios"])))
        if places.null_count:
            stranger = table["digest"].filter(places.is_null())[0].as_py()
            wrong = f"has rows of scenario {stranger[:12]}, which is not in its spec.json"
            raise BadInput(str(self.path), wrong, "remove the part that they are in")
        keys = [places.to_numpy(), table["seed"].to_numpy(), table["batch"].to_numpy()]
        order = np.lexsort(keys[::-1])
        again = np.zeros(len(order), dtype=bool)
        again[1:] = np.all([key[order[1:]] == key[order[:-1]] for key in keys], axis=0)
        table = table.take(order)
        for k in np.flatnonzero(again):
            if not table.slice(k, 1).equals(table.slice(k - 1, 1)):
                digest, _, seed, batch = (table[name][int(k)].as_py() for name in _KEY)
                what = f"batch {batch} of seed {seed} of scenario {digest[:12]}"
                raise BadInput(
                    str(self.path),
                    f"{what} has other counts in one part than in another",
                    "other software or another type of processor made one of them: remove that",
                )
        return table.filter(~again).combine_chunks()


class Writer:
    """The one process that may add to a store; a context manager.

    Rows handed in are written about once a second, and on the way out whatever happened. Leaving
    merges the parts when there are many.

    Parameters
    ----------
    store : Store
        Where to; made if there is none.
    grid : Grid
        What is swept.
    seed : int
        Seed of this sweep.
    goal : str
        Its goal, for people.
    """

    def __init__(self, store: Store, grid: Grid, seed: int, goal: str) -> None:
        self._store, self._grid = store, grid
        self._seed = seed
        self._run = {"seed": seed, "goal": goal, "finished": False}
        self._rows: list[Tally] = []
        self._written = time.monotonic()

    def __enter__(self) -> Self:
        path = self._store.path
        spec_file = path / "spec.json"
        try:
            path.mkdir(parents=True, exist_ok=True)
            there = sorted(file.name for file in path.iterdir())
            others = [name for name in there if name not in ("lock", ".spec.json.tmp")]
            if others and not spec_file.exists():
                wrong = f"not a store, but a directory with {others[0]} in it"
                raise BadInput(str(path), wrong, "give a store, or a new directory")
            self._lock = (path / "lock").open("a")
        except OSError as error:
            wrong = f"cannot be written to ({error.strerror})"
            raise BadInput(str(path), wrong, "give a directory") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._open(spec_file)
        except BlockingIOError:
            self._lock.close()
            wrong = "another sweep is writing to it"
            raise BadInput(str(path), wrong, "wait for its end, or give another store") from None
        except BaseException:
            self._lock.close()
            raise
        return self

    def _open(self, spec_file: Path) -> None:
        """Make the store or take stock of it; the lock is held."""
        store, grid = self._store, self._grid
        if spec_file.exists():
            self._spec = store.spec
            if self._spec["digest"] != grid.digest:
                raise BadInput(
                    str(store.path),
                    f"a store of grid {_name(self._spec['name'], self._spec['digest'])}",
                    f"this is grid {_name(grid.name, grid.digest)}: give another directory",
                )
        else:
            self._spec = _spec(grid)
        parts = []
        for path in store._parts():
            part = _read_part(path, grid.digest)
            if part is None:
                path.rename(path.with_suffix(".torn"))
                line = f"{path}: a torn part, set aside; its batches run again"
                warnings.warn(line, stacklevel=4)
            else:
                parts.append(part)
        self._found = store._unite(self._spec, parts)
        # A kill may have left a part that has no name yet; its batches run again.
        for part_file in store.path.glob(".part-*.tmp"):
            part_file.unlink()
        same = {"seed": self._run["seed"], "goal": self._run["goal"]}
        runs = [run for run in self._spec["runs"] if {k: run[k] for k in same} != same]
        self._spec["runs"] = [*runs, self._run]
        _write(spec_file, _json(self._spec))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
            parts = self._store._parts()
            if kind is None and len(parts) > _PARTS_BEFORE_MERGING:
                # If this is cut off between the two, the same rows stand twice, which is harmless.
                self._write_part(self._store.rows())
                for part in parts:
                    part.unlink()
        finally:
            self._lock.close()

    def found(self) -> dict[str, Tally]:
        """What the store had of this seed when it was opened.

        Returns
        -------
        dict of str to Tally
            By digest of the scenario.
        """
        tallies = _tallies(self._spec, self._found, self._seed)
        return {tally.scenario.digest: tally for tally in tallies}

    def add(self, tally: Tally) -> None:
        """Hand in rows; they are on the disk after the next `flush`.

        Parameters
        ----------
        tally : Tally
            Rows of one scenario.
        """
        self._rows.append(tally)

    def flush(self, *, if_due: bool = False) -> None:
        """Write the rows in hand as a part.

        Parameters
        ----------
        if_due : bool
            Only if the last part is a second old.
        """
        if if_due and time.monotonic() < self._written + _SECONDS_BETWEEN_PARTS:
            return
        if self._rows:
            self._write_part(_table(self._rows))
            self._rows = []
        self._written = time.monotonic()

    def finish(self) -> None:
        """Write what is in hand, and down that the goal was reached."""
        self.flush()
        self._run["finished"] = True
        _write(self._store.path / "spec.json", _json(self._spec))

    def _write_part(self, table: pa.Table) -> None:
        files = (_PART.fullmatch(path.name) for path in self._store.path.iterdir())
        number = 1 + max((int(file[1]) for file in files if file), default=0)
        metadata = {
            "reservelab.grid": self._spec["digest"],
            "reservelab.rules": str(RULES_VERSION),
            "reservelab.version": _version(),
        }
        sink = pa.BufferOutputStream()
        pq.write_table(
            table.replace_schema_metadata(metadata),
            sink,
            compression="zstd",
            write_page_checksum=True,
        )
        _write(self._store.path / f"part-{number:06}.parquet", sink.getvalue())


def summary(grid: Grid, table: pd.DataFrame) -> dict[str, Any]:
    """What came out of a sweep, as plain values that JSON can hold.

    Parameters
    ----------
    grid : Grid
        What was swept.
    table : DataFrame
        What `sweep` returned.

    Returns
    -------
    dict
        ``name`` and ``digest`` of the grid, ``rules``, ``left_out`` (the cells that do not fit into
        the machine), ``scenarios`` (how many the grid has), totals ``episodes``, ``deadlocks``,
        ``unfinished``, ``events``; ``variants`` (for each scheme's variant and waiting rule how
        many cells it has, in how many no episode deadlocked and in how many all did, and its
        totals) and ``cells`` (the frame's rows; a number that is not finite is null).
    """
    return _summary(_head(grid), len(grid.scenarios()), table)


def _summary(head: Mapping[str, Any], scenarios: int, table: pd.DataFrame) -> dict[str, Any]:
    totals = ("episodes", "deadlocks", "unfinished", "events")
    variants = []
    if len(table):
        for (variant, waiting), cells in table.groupby(["variant", "waiting"], sort=False):
            dead = cells["deadlocks"]
            variants.append(
                {
                    "variant": variant,
                    "waiting": waiting,
                    "cells": len(cells),
                    "never_deadlocked": int((dead == 0).sum()),
                    "always_deadlocked": int((dead == cells["episodes"]).sum()),
                }
                | {name: int(cells[name].sum()) for name in totals}
            )
    records = table.to_dict("records")
    return {
        **{key: head[key] for key in ("name", "digest", "rules", "left_out")},
        "scenarios": scenarios,
        **{name: sum(int(row[name]) for row in records) for name in totals},
        "variants": variants,
        "cells": [{str(key): _finite(value) for key, value in row.items()} for row in records],
    }


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _head(grid: Grid) -> dict[str, Any]:
    return {
        "name": grid.name,
        "digest": grid.digest,
        "rules": RULES_VERSION,
        "left_out": [{"cell": dict(out.cell), "reason": out.reason} for out in grid.left_out],
    }


def _spec(grid: Grid) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "reservelab": _version(),
        **_head(grid),
        "grid": grid.toml(),
        "scenarios": {scenario.digest: scenario.toml() for scenario in grid.scenarios()},
        "runs": [],
    }


def _version() -> str:
    try:
        return importlib.metadata.version("reservelab")
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return "unknown"


def _name(name: str, digest: str) -> str:
    return f"{name!r} ({digest[:12]})" if name else digest[:12]


def _json(spec: Mapping[str, Any]) -> bytes:
    return (json.dumps(spec, indent=1) + "\n").encode("ascii")


def _write(path: Path, content: bytes | pa.Buffer) -> None:
    """Put a file in place whole or not at all, and onto the disk before anything goes on."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _table(tallies: Iterable[Tally]) -> pa.Table:
    tallies = list(tallies)
    keys, counts, sums, products, reasons = (
        np.concatenate([getattr(tally, name) for tally in tallies])
        for name in ("keys", "counts", "sums", "products", "reasons")
    )
    repeats = [len(tally.keys) for tally in tallies]
    digests = [tally.scenario.digest for tally in tallies]
    limits = [tally.event_limit for tally in tallies]
    row, dead_set = np.nonzero(reasons)
    offsets = np.searchsorted(row, np.arange(len(keys) + 1)).astype(np.int32)
    columns: list[Any] = [
        np.repeat(np.array(digests, dtype=object), repeats),
        np.full(len(keys), RULES_VERSION, dtype=np.int32),
        keys[:, 0],
        keys[:, 1],
        np.repeat(np.array(limits, dtype=np.int64), repeats),
        *counts.T,
        *sums.T,
        pa.FixedSizeListArray.from_arrays(products.reshape(-1), PRODUCTS),
        pa.ListArray.from_arrays(offsets, pa.array(dead_set.astype(np.int16))),
        pa.ListArray.from_arrays(offsets, pa.array(reasons[row, dead_set])),
    ]
    arrays = [
        pa.array(column, type=kind.type) if isinstance(column, np.ndarray) else column
        for column, kind in zip(columns, _SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _read_part(path: Path, grid: str) -> pa.Table | None:
    """The rows of a part; None if it is torn."""
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        table.validate(full=True)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):
        return None
    metadata = table.schema.metadata or {}
    theirs, rules = (
        metadata.get(key, b"unknown").decode() for key in (b"reservelab.grid", b"reservelab.rules")
    )
    if (theirs, rules) != (grid, str(RULES_VERSION)) or not table.schema.equals(_SCHEMA):
        wrong = f"a part of grid {theirs[:12]}, rules version {rules}"
        right = f"this store is of grid {grid[:12]}, rules version {RULES_VERSION}: remove the part"
        raise BadInput(str(path), wrong, right)
    return table.replace_schema_metadata()


def _tallies(spec: Mapping[str, Any], rows: pa.Table, seed: int | None) -> list[Tally]:
    if seed is not None:
        rows = rows.filter(pc.equal(rows["seed"], seed))
    rows = rows.combine_chunks()
    keys = np.column_stack([rows[name].to_numpy() for name in ("seed", "batch")])
    counts = np.column_stack([rows[name].to_numpy() for name in COUNTS])
    sums = np.column_stack([rows[name].to_numpy() for name in _SUMS])
    products = _flat(rows["products"]).reshape(-1, PRODUCTS)
    lengths = pc.list_value_length(rows["dead_sets"]).to_numpy()
    ends = np.concatenate([[0], np.cumsum(lengths)])
    dead_sets, dead_counts = _flat(rows["dead_sets"]), _flat(rows["dead_counts"])
    limits = rows["event_limit"].to_numpy()
    digests = rows["digest"].to_pylist()
    starts = [k for k, digest in enumerate(digests) if k == 0 or digests[k - 1] != digest]
    tallies = []
    for first, last in itertools.pairwise([*starts, len(digests)]):
        if (limits[first:last] != limits[first]).any():
            wrong = f"scenario {digests[first][:12]} was run with several event limits"
            raise BadInput("store", wrong, "they do not add up: keep the parts of one version")
        reasons = np.zeros((last - first, 1 << len(REASONS)), dtype=np.int32)
        which = np.repeat(np.arange(last - first), lengths[first:last])
        inside = slice(ends[first], ends[last])
        reasons[which, dead_sets[inside]] = dead_counts[inside]
        tallies.append(
            Tally(
                scenario=Scenario.from_toml(spec["scenarios"][digests[first]]),
                event_limit=int(limits[first]),
                keys=keys[first:last],
                counts=counts[first:last],
                sums=sums[first:last],
                products=products[first:last],
                reasons=reasons,
            )
        )
    return tallies


def _flat(column: pa.ChunkedArray) -> Any:  # noqa: ANN401 - pyarrow ships no types
    """The values of a list column, one list after the other."""
    return pc.list_flatten(column).to_numpy()
