"""Grids: the product of the axes, what is left out of it, and what is refused."""

import itertools
import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reservelab.model import catalogue
from reservelab.model.errors import BadInput
from reservelab.model.filesystems import Filesystem, alloc, lock, submit, unlock
from reservelab.model.machine import Device, Machine
from reservelab.model.mixes import Mix
from reservelab.model.scenario import Mount, Scenario
from reservelab.model.schemes import (
    GlobalPool,
    PerThread,
    Scheme,
    Tickets,
    Watermark,
    variants,
)
from reservelab.study.grid import Grid

DEMO = Path(__file__).parents[1] / "data" / "grids" / "demo.toml"
TOY = Filesystem("toy", [alloc(2), submit()])
JOURNAL = Filesystem(
    "journal",
    [alloc({1: 0.75, 3: 0.25}), lock("j"), alloc(1), unlock("j"), submit()],
    nr_pages=5,
    backs_out=True,
    device=Device(rate=0.25, depth=3, completion_pages=1),
)
BASE = Scenario(Machine(64), (Mount(TOY, flushers=4),), Watermark(8), quota=3, label="base")


def cells(base: Scenario = BASE, **axes: Any) -> list[Scenario]:  # noqa: ANN401 - any axis
    return Grid(
        base, {axis.replace("device_", "device."): v for axis, v in axes.items()}
    ).scenarios()


# --- The product ---------------------------------------------------------------------------------


def test_no_axes_is_the_base() -> None:
    assert cells() == [BASE]


def test_first_axis_varies_slowest() -> None:
    found = [(s.quota, s.machine.pages) for s in cells(quota=[1, 2], pages=[32, 64, 96])]
    assert found == list(itertools.product([1, 2], [32, 64, 96]))


@pytest.mark.parametrize(
    ("axis", "values", "read"),
    [
        ("pages", [8, 9], lambda s: s.machine.pages),
        ("dirty", [0, 7], lambda s: s.machine.dirty),
        ("oom_kills", [0, 2], lambda s: s.machine.oom_kills),
        ("pages_per_kill", [1, 3], lambda s: s.machine.pages_per_kill),
        ("quota", [1, 100], lambda s: s.quota),
        ("waiting", ["racing", "asleep"], lambda s: s.waiting),
        ("reserve", [0, 8], lambda s: s.scheme.reserve),
        ("max_sections", [2, 5], lambda s: s.scheme.max_sections),
        ("threads", [1, 9], lambda s: s.threads),
        ("device.rate", [0.25, 2.0], lambda s: s.mounts[0].device.rate),
        ("device.depth", [1, 4], lambda s: s.mounts[0].device.depth),
        ("device.completion_pages", [0, 2], lambda s: s.mounts[0].device.completion_pages),
    ],
)
def test_an_axis_sets_its_field_and_no_other(axis: str, values: list[Any], read: Any) -> None:  # noqa: ANN401
    base = Scenario(Machine(64, 1, 1, 2), BASE.mounts, Watermark(8, max_sections=9), 7, "asleep")
    found = Grid(base, {axis: values}).scenarios()
    assert [read(scenario) for scenario in found] == values
    # Put back what the axis changed: nothing else may differ. The base's own value is among the
    # fields, so an axis that did nothing would fail the line above.
    again = [Grid(scenario, {axis: [read(base)]}).scenarios()[0] for scenario in found]
    assert [scenario.digest for scenario in again] == [base.digest] * len(values)


def test_max_sections_zero_is_no_limit() -> None:
    base = Scenario(Machine(64), BASE.mounts, Watermark(8, max_sections=2))
    assert [s.scheme.max_sections for s in cells(base, max_sections=[0, 3])] == [None, 3]


def test_a_scheme_without_reserve_ignores_the_reserve_axis() -> None:
    found = cells(scheme=["perthread", "watermark", "tickets"], reserve=[2, 4, 8])
    assert Counter(s.scheme.family for s in found) == {"perthread": 1, "watermark": 3, "tickets": 3}
    assert [s.scheme.reserve for s in found if s.scheme.family == "watermark"] == [2, 4, 8]


def test_without_a_reserve_axis_the_base_has_it() -> None:
    found = {s.scheme.family: s.scheme.reserve for s in cells(scheme=["mempool", "global"])}
    assert found == {"mempool": 8, "global": 8}
    unset = Scenario(Machine(64), BASE.mounts, GlobalPool())
    assert [s.reserve for s in cells(unset, scheme=["tickets"])] == [2]  # the default: need
    with pytest.raises(BadInput, match=r"^cell \(scheme='mempool'\)\.reserve: missing; "):
        cells(unset, scheme=["mempool"])


def test_schemes_as_objects_keep_their_own_reserve() -> None:
    schemes = [Watermark(3), Watermark(5), PerThread(whole=True), Scheme()]
    assert [s.scheme for s in cells(scheme=schemes)] == schemes
    assert [s.scheme for s in cells(scheme=schemes[:2], reserve=[4])] == [Watermark(4)]


def test_reserve_as_a_multiple_of_need_is_rounded_up() -> None:
    mix = ["ext2", "xfs_2004"]  # need 7 and 29
    base = Scenario(Machine(512), BASE.mounts, Tickets())
    found = cells(base, mix=mix, reserve=["need", "2*need", "0.1 * need", 9])
    assert [s.reserve for s in found] == [7, 14, 1, 9, 29, 58, 3, 9]


def test_the_same_scenario_stands_once() -> None:
    assert len(cells(reserve=["need", 2, 3], threads=[4, 4])) == 2
    assert len(cells(scheme=["global", "global lazy refill-allocate"])) == 1


# --- Threads and mixes ---------------------------------------------------------------------------


def threads_of(scenario: Scenario) -> list[tuple[str, int, int]]:
    return [(m.filesystem.name, m.flushers, m.dirtiers) for m in scenario.mounts]


def test_threads_are_spread_over_a_mix() -> None:
    found = cells(mix=["desktop_2004"], threads=[4, 10], dirtiers=[0, 3])
    assert [s.label for s in found] == ["desktop_2004"] * 4
    assert threads_of(found[0]) == [("ext3", 3, 0), ("reiserfs", 0, 0), ("swap", 1, 0)]
    assert threads_of(found[3]) == [("ext3", 7, 2), ("reiserfs", 1, 0), ("swap", 2, 1)]
    for scenario in found:
        mix = catalogue.mixes["desktop_2004"]
        flushers = sum(mount.flushers for mount in scenario.mounts)
        dirtiers = sum(mount.dirtiers for mount in scenario.mounts)
        assert list(scenario.mounts) == mix.mounts(flushers, dirtiers=dirtiers)


def test_a_mix_alone_keeps_the_numbers_of_threads() -> None:
    base = Scenario(Machine(64), (Mount(TOY, flushers=5, dirtiers=2),), Watermark(8))
    (found,) = cells(base, mix=["ext3"])
    assert threads_of(found) == [("ext3", 5, 2)]
    assert found.mounts[0].device == catalogue.filesystems["ext3"].device


def test_threads_alone_keep_the_mounts_and_their_proportion() -> None:
    below = Mount(JOURNAL, device=Device(rate=3.0))
    base = Scenario(
        Machine(64), (Mount(TOY, flushers=3, on=2), Mount(TOY, flushers=1), below), Watermark(8)
    )
    assert [[m.flushers for m in s.mounts] for s in cells(base, threads=[1, 2, 6, 8])] == [
        [1, 0, 0], [2, 0, 0], [5, 1, 0], [6, 2, 0],
    ]  # fmt: skip
    (found,) = cells(base, threads=[8])
    assert [(m.on, m.device) for m in found.mounts] == [(m.on, m.device) for m in base.mounts]
    assert found.label == base.label


def test_dirtiers_alone_share_as_the_flushers_do() -> None:
    base = Scenario(Machine(64), (Mount(TOY, flushers=2), Mount(JOURNAL, flushers=1)), Watermark(8))
    (found,) = cells(base, dirtiers=[6])
    assert threads_of(found) == [("toy", 2, 4), ("journal", 1, 2)]


def test_device_axes_leave_stacked_mounts_alone() -> None:
    (found,) = cells(mix=["ext3_on_ext3"], device_rate=[0.5], device_depth=[7])
    assert [m.on for m in found.mounts] == [1, None]
    assert found.mounts[0].device is None
    assert found.mounts[1].device is not None
    assert (found.mounts[1].device.rate, found.mounts[1].device.depth) == (0.5, 7)


def test_a_mix_may_be_anything_that_mounts() -> None:
    own = Mix({TOY: 0.5, JOURNAL: 0.5}, name="own")
    table = {"name": "half", "weights": {"ext2": 0.5, "swap": 0.5}}
    found = cells(mix=["today", "ext2", "ext3_on_ext3", own, JOURNAL, table], threads=[4])
    names = ["today", "ext2", "ext3_on_ext3", "own", "journal", "half"]
    assert [scenario.label for scenario in found] == names


# --- Files ---------------------------------------------------------------------------------------

EVERYTHING = Grid(
    Scenario(Machine(640), (Mount(JOURNAL, flushers=1, dirtiers=1),), Watermark(8), label="x"),
    {
        "scheme": [*variants(), Watermark(7), Scheme(), "watermark max-sections=2"],
        "reserve": [np.int64(56), "1.5*need"],
        "mix": ["today", "ext2", "ext3_on_ext3", Mix({TOY: 0.5, JOURNAL: 0.5}), JOURNAL],
        "threads": list(np.array([4, 8])),
        "dirtiers": range(2),
        "waiting": ("asleep", "racing"),
        "device.rate": [1, 0.1],
    },
    name="everything",
)


def test_toml_comes_back() -> None:
    again = Grid.from_toml(EVERYTHING.toml())
    assert again.name == "everything"
    assert again.digest == EVERYTHING.digest
    assert [s.digest for s in again.scenarios()] == [s.digest for s in EVERYTHING.scenarios()]
    assert [s.label for s in again.scenarios()] == [s.label for s in EVERYTHING.scenarios()]
    assert Grid.from_toml(again.toml()).toml() == again.toml()


def test_a_stack_of_ones_own_comes_back() -> None:
    stack = catalogue.Stack("mine", (JOURNAL, TOY))
    grid = Grid(BASE, {"mix": [stack]})
    assert Grid.from_toml(grid.toml()).digest == grid.digest


def test_the_base_may_leave_out_what_axes_give() -> None:
    text = """
    [base]
    quota = 5
    [axes]
    scheme = ["watermark", "perthread"]
    reserve = [4]
    pages = [32, 64]
    mix = ["ext2"]
    threads = [2]
    device.rate = [0.5]
    """
    found = Grid.from_toml(text).scenarios()
    assert [(s.machine.pages, s.threads, s.quota) for s in found] == [(32, 2, 5), (64, 2, 5)] * 2
    assert all(m.device is not None and m.device.rate == 0.5 for s in found for m in s.mounts)


def test_digest_is_of_what_runs() -> None:
    axes = {"quota": [1, 2], "threads": [2, 3]}
    grid = Grid(BASE, axes)
    same = [
        Grid(BASE, axes, name="other"),
        Grid(BASE, dict(reversed(axes.items()))),
        Grid(BASE, {"quota": [2, 1, 2], "threads": [3, 2]}),
        Grid(Scenario(BASE.machine, BASE.mounts, BASE.scheme, 9, label="other"), axes),
    ]
    assert {other.digest for other in same} == {grid.digest}
    assert Grid(BASE, axes | {"quota": [1, 3]}).digest != grid.digest
    assert Grid(BASE, {"quota": [1], "threads": [2, 3]}).digest != grid.digest


# --- What does not fit ---------------------------------------------------------------------------


def test_what_does_not_fit_is_listed_and_all_else_is_there() -> None:
    axes: dict[str, list[Any]] = {
        "scheme": ["perthread standing", "mempool", "watermark"],
        "threads": [4, 40],
        "reserve": [16, 40],
        "mix": [Mix({TOY: 0.5, JOURNAL: 0.5}, name="both")],
    }
    grid = Grid(BASE, axes)
    assert [str(out) for out in grid.left_out] == [
        "scheme='perthread standing', threads=40, mix='both': 140 pages set aside of 64",
        "scheme='mempool', threads=4, reserve=40, mix='both': 80 pages set aside of 64",
        "scheme='mempool', threads=40, reserve=40, mix='both': 80 pages set aside of 64",
    ]
    # 4 cells each with a reserve, 2 without: nothing is lost between the two lists.
    assert len(grid.scenarios()) + len(grid.left_out) == 4 + 4 + 2
    assert json.loads(json.dumps([dict(out.cell) for out in grid.left_out]))[0]["threads"] == 40
    assert "left out, since the machine is too small: 3" in str(grid)


@pytest.mark.parametrize(
    ("axes", "line"),
    [
        (
            {"reserve": [8, 65]},
            "axes.reserve[1]: no cell can run with 65 (reserve=65: 65 pages set aside of 64); "
            "give the machine more pages, or leave it out",
        ),
        (
            {"scheme": ["watermark", "perthread standing"], "threads": [33, 99]},
            "axes.scheme[1]: no cell can run with 'perthread standing' (scheme='perthread "
            "standing', threads=33: 66 pages set aside of 64); give the machine more pages, or "
            "leave it out",
        ),
        (
            {"scheme": ["perthread", "perthread whole"], "reserve": [1, 2]},
            "axes.reserve: no scheme of the grid has one; leave it out",
        ),
        (
            {"scheme": ["global on-entry"], "max_sections": [0, 2]},
            "cell (scheme='global on-entry refill-allocate', max_sections=2).max_sections: "
            "has no meaning with entry='semaphore'; leave it out",
        ),
        (
            {"threads": [4, 0]},
            "cell (threads=0).mounts: no thread; give a mount flushers or dirtiers",
        ),
        ({"mix": [TOY, Filesystem("toy", [alloc(3), submit()])]}, "axes.mix[1]: another mix"),
        ({"mix": [{"name": "x"}]}, "axes.mix[0].mix: its keys are name; give a name and one of"),
        ({"scheme": ["watermark", 3]}, "axes.scheme[1]: 3 is not a table"),
        ({"scheme": ["global eager"]}, "axes.scheme[0]: 'global eager' is unknown; "),
        ({"mix": ["ext5"]}, "axes.mix[0]: 'ext5' is unknown; one of desktop_2004"),
        ({"mix": [["ext2"]]}, "axes.mix[0]: ['ext2'] is unknown; one of "),
        ({"treads": [4]}, "axes.treads: unknown axis; the axes are scheme, reserve, "),
        ({"threads": []}, "axes.threads: empty; give at least one value"),
        ({"threads": 4}, "axes.threads: 4 is not a list; write a list"),
        ({"scheme": "watermark"}, "axes.scheme: 'watermark' is not a list; "),
        ({"threads": [4, -1]}, "axes.threads[1]: -1 is too small; "),
        ({"threads": [True]}, "axes.threads[0]: True is not a whole number; "),
        ({"quota": [0]}, "axes.quota[0]: 0 is too small; "),
        ({"reserve": ["twice"]}, "axes.reserve[0]: 'twice' is no reserve; "),
        ({"reserve": [-1]}, "axes.reserve[0]: -1 is too small; "),
        ({"reserve": [1.5]}, "axes.reserve[0]: 1.5 is not a whole number; "),
        ({"waiting": ["polling"]}, "axes.waiting[0]: 'polling' is unknown; one of asleep, racing"),
        ({"device.rate": [0]}, "axes.device.rate[0]: 0 is not positive; "),
        ({"device.depth": [0]}, "axes.device.depth[0]: 0 is too small; "),
    ],
)
def test_bad_axes_get_one_line(axes: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput) as caught:
        Grid(BASE, axes)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = ", "file: not TOML: "),
        ("name = 'x'", "base: missing; "),
        ("base = 3", "base: 3 is not a table; "),
        ("[base]\nmachine = 'x'\n[axes]\nscheme = ['perthread']", "base.mounts: missing; "),
        ("[base]\nmounts = []", "base.machine: missing; "),
        ("[base]\nqota = 3", "base.qota: unknown key; "),
        ("axis = 3\n[base]", "axis: unknown key; the keys are axes, base, name"),
        ("axes = [3]\n[base]", "axes: [3] is not a table; its keys are scheme, "),
        (
            "name = 3\n[base]\nmachine = '6.18-1GB'\nscheme = 'perthread'\n"
            "[[base.mounts]]\nfilesystem = 'ext2'\nflushers = 1",
            "name: 3 is not text; ",
        ),
        (
            "[base]\nmachine = '6.18-1G'\n[axes]\nscheme = ['perthread']\nmix = ['ext2']\n"
            "threads = [2]",
            "base.machine.machines: '6.18-1G' is unknown; ",
        ),
        ("[axes]\nmix = ['ext2']\n[base]\nmachine = '6.18-1GB'", "base.mounts: missing; "),
        ("[axes.device]\nsize = [3]\n[base]", "axes.device.size: unknown axis; "),
        (
            "[axes]\nthreads = [2]\n[[axes.mix]]\nname = 'x'\nstack = [{ program = ['submt'] }]\n"
            "[base]",
            "axes.mix[0].stack[0].program: 'submt' is not a step; ",
        ),
    ],
)
def test_bad_files_get_one_line(text: str, line: str) -> None:
    with pytest.raises(BadInput) as caught:
        Grid.from_toml(text)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


# --- The demo ------------------------------------------------------------------------------------


def test_the_demo_compares_like_with_like() -> None:
    grid = Grid.from_toml(DEMO.read_text(encoding="utf-8"))
    found = grid.scenarios()
    table = tomllib.loads(DEMO.read_text(encoding="utf-8"))
    assert {s.scheme.family for s in found} == {
        "watermark", "mempool", "perthread", "global", "tickets",
    }  # fmt: skip
    assert {s.scheme.variant for s in found} <= set(variants())
    assert len({s.label for s in found}) == 3
    # The same machine for everybody, and the same writers for every scheme.
    assert {s.machine for s in found} == {catalogue.machines[table["base"]["machine"]].machine}
    assert len({(s.quota, s.waiting) for s in found}) == 1
    writers = {(s.label, s.threads): s.mounts for s in found}
    assert all(s.mounts == writers[s.label, s.threads] for s in found)
    axes = table["axes"]
    per_scheme = len(axes["mix"]) * len(axes["threads"])
    for variant in {s.scheme.variant for s in found}:
        here = [s for s in found if s.scheme.variant == variant]
        out = [o for o in grid.left_out if o.cell["scheme"] == variant]
        reserves = len(axes["reserve"]) if here[0].scheme.reserve is not None else 1
        assert len(here) + len(out) == per_scheme * reserves
        assert not out or variant in ("perthread standing", "mempool")
