"""The catalogues of data/: every number has a source that can be looked up, and agrees with it."""

import ast
import csv
import functools
import itertools
import keyword
import math
import operator
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reservelab.model import catalogue
from reservelab.model.catalogue import TAGS, Catalogue, Provenance, UnknownName, provenance
from reservelab.model.errors import BadInput
from reservelab.model.filesystems import Filesystem

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data"
SHARED = ROOT.parent / "shared"
KINDS = ("filesystems", "devices", "machines", "pools", "mixes", "stacks")


def tables() -> dict[tuple[str, str], dict[str, Any]]:
    """Every entry as it stands in its file, read without the package."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for kind, (file, table) in catalogue._PLACES.items():
        document = tomllib.loads((DATA / file).read_text(encoding="utf-8"))
        for name, entry in (document[table] if table else document).items():
            found[kind, name] = entry
    return found


TABLES = tables()
ENTRIES = [pytest.param(kind, name, id=f"{kind}.{name}") for kind, name in TABLES]
FILESYSTEMS = [name for kind, name in TABLES if kind == "filesystems"]
MEASURED = [
    name for name in FILESYSTEMS if "section" in TABLES["filesystems", name].get("measured", {})
]


def of(kind: str) -> Catalogue[Any]:
    found = getattr(catalogue, kind)
    assert isinstance(found, Catalogue)
    return found


def test_the_files_hold_what_was_asked_for() -> None:
    assert set(FILESYSTEMS) >= {
        "ext2", "ext3", "ext4", "xfs", "btrfs", "reiserfs", "reiser4", "nfs", "swap",
    }  # fmt: skip
    sizes = {
        f"{kernel}-{size}" for kernel in ("2.6.9", "6.18") for size in ("64MB", "256MB", "1GB")
    }
    assert set(of("machines")) >= sizes
    assert {kind for kind, _ in TABLES} == set(KINDS)


# --- Every number has an origin -------------------------------------------------------------------


def numbers(kind: str, table: Mapping[str, Any]) -> set[str]:
    """The numbers an entry must account for."""
    match kind:
        case "filesystems":
            device = {"device.latency_us", "device.rate", "device.depth", "device.completion_pages"}
            return {"nr_pages", "typical_pages", "demand", "locks", "backs_out"} | device
        case "devices":
            return {"latency_us", "rate", "depth", "completion_pages"}
        case "mixes":
            return {"weights"}
        case _:  # lowmem_mb is the question a machine answers
            return {key for key, value in table.items() if isinstance(value, int)} - {"lowmem_mb"}


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_number_has_an_origin(kind: str, name: str) -> None:
    origins = provenance(kind, name).origins
    assert set(origins) == numbers(kind, TABLES[kind, name])
    for field, origin in origins.items():
        assert origin.tag in TAGS, field
        assert len(origin.source) > 5, field
        assert (origin.tag != "calculated") or origin.formula, f"{field}: calculated how?"


# --- Every citation can be looked up --------------------------------------------------------------

CITATION = re.compile(
    r"(?:L269|L618|R4):[\w./-]*\w|M:[^\s;,)]*\w|measured/[^\s;]+[\w)]|KERNEL_FACTS\.md section \d+"
)


def texts(kind: str, name: str) -> Iterator[tuple[str, str]]:
    """Every text of an entry in which a citation may stand."""
    found = provenance(kind, name)
    yield "note", found.note
    for field, origin in found.origins.items():
        yield f"{field}.source", origin.source
        yield f"{field}.note", origin.note


def known(citation: str, facts: str, beyond: str) -> bool:
    """Whether KERNEL_FACTS.md or the list in data/README.md has it.

    KERNEL_FACTS.md often gives a path once and then, or inside a sentence about its tree, only the
    path's end ("xfs_trans_resv.c", "extents.c"). So the last component is enough there.
    """
    kind, _, what = citation.partition(":")
    if citation.startswith("KERNEL_FACTS.md section"):
        return f"\n## {citation.rsplit(' ', 1)[1]}. " in facts
    if kind == "M":
        return what in facts
    end = what.rsplit("/", 1)[-1]
    return citation in beyond or re.search(rf"(?<![\w-]){re.escape(end)}", facts) is not None


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_backed_and_calculated_numbers_cite(kind: str, name: str) -> None:
    for field, origin in provenance(kind, name).origins.items():
        if origin.tag != "estimate":
            for source in origin.source.split("; "):
                assert CITATION.fullmatch(source), f"{field}: {source!r} is no citation"


def cited(kind: str, name: str) -> Iterator[tuple[str, str]]:
    """Every citation of an entry, after the text it stands in."""
    for where, text in texts(kind, name):
        for citation in CITATION.findall(text):
            yield f"{kind}.{name}.{where}", citation


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_cited_measurements_are_rows_of_their_table(kind: str, name: str) -> None:
    for where, citation in cited(kind, name):
        if citation.startswith("measured/"):
            file, _, place = citation.removeprefix("measured/").partition(":")
            assert place in {place_of(row) for row in rows(file)}, f"{where}: {citation}"


def test_citations_are_known() -> None:
    path = SHARED / "KERNEL_FACTS.md"
    if not path.exists():
        pytest.skip("no KERNEL_FACTS.md beside the checkout: citations cannot be looked up")
    facts = path.read_text(encoding="utf-8")
    beyond = (DATA / "README.md").read_text(encoding="utf-8")
    found = [pair for entry in TABLES for pair in cited(*entry)]
    assert [
        (where, citation)
        for where, citation in found
        if not citation.startswith("measured/") and not known(citation, facts, beyond)
    ] == []


def test_an_unknown_citation_is_noticed() -> None:
    assert not known("L269:fs/ext3/nonsense.c", "L269:fs/ext3/inode.c", "")
    assert not known("M:someone@example", "M:1105118217.3616.171.camel@tribesman", "")
    assert not known("KERNEL_FACTS.md section 99", "\n## 9. Suggested", "")
    assert CITATION.findall("see M:a.b@c.d. And L269:mm/x.c, R4:y.c.") == [
        "M:a.b@c.d", "L269:mm/x.c", "R4:y.c",
    ]  # fmt: skip


def test_what_2004_corrected_stands_at_reiser4() -> None:
    found = provenance("filesystems", "reiser4")
    assert "in tree balancing, not in ->writepage" in found.note
    assert "M:m1d5wgrir7.fsf@clusterfs.com" in found.note
    assert "M:m1d5wgrir7.fsf@clusterfs.com" in found.origins["nr_pages"].source
    assert "not by ->writepage" in found.origins["nr_pages"].note


# --- Every formula gives its number ---------------------------------------------------------------

OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min, "max": max, "isqrt": math.isqrt, "sqrt": math.sqrt, "log": math.log,
    "ceil": math.ceil, "clamp": lambda value, low, high: min(max(value, low), high),
}  # fmt: skip


def evaluate(formula: str, names: Mapping[str, Any]) -> float:
    """Work out arithmetic over numbers and names; anything else is an error."""

    def value(node: ast.AST) -> Any:  # noqa: ANN401
        match node:
            case ast.Expression(body=body):
                return value(body)
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.Name(id=name):
                return names[name]
            case ast.Attribute(value=of, attr=name):
                return getattr(value(of), name)
            case ast.BinOp(left=left, op=op, right=right):
                return OPERATORS[type(op)](value(left), value(right))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return FUNCTIONS[name](*map(value, arguments))
        raise ValueError(f"{ast.dump(node)} is not arithmetic")

    result = value(ast.parse(formula, mode="eval"))
    assert isinstance(result, (int, float))
    return result


def stated(kind: str, name: str, field: str) -> float:
    """The number an origin is about."""
    value = of("devices")[name].rate if field == "rate" else TABLES[kind, name][field]
    assert isinstance(value, (int, float))
    return value


def formula_faults(kind: str, name: str, found: Provenance) -> list[str]:
    faults = []
    measured = {row: SimpleNamespace(**cells) for row, cells in found.measured.items()}
    own = {
        key: value for key, value in TABLES[kind, name].items() if isinstance(value, (int, float))
    }
    names = own | {"step_us": catalogue.step_us(), "measured": SimpleNamespace(**measured)}
    for field, origin in found.origins.items():
        # A filesystem's device.* are the device's own, checked there.
        if origin.formula and not field.startswith("device."):
            number, result = stated(kind, name, field), evaluate(origin.formula, names)
            # Whole numbers exactly; measured ratios are rounded to three digits in the file.
            exact = isinstance(number, int) and isinstance(result, int)
            if not (number == result if exact else math.isclose(number, result, rel_tol=2e-3)):
                faults.append(f"{field}: {origin.formula} is {result}, the file says {number}")
    return faults


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_formulas_give_their_numbers(kind: str, name: str) -> None:
    assert formula_faults(kind, name, provenance(kind, name)) == []


def test_the_unit_of_time_is_accounted_for() -> None:
    clock = tomllib.loads((DATA / "devices.toml").read_text(encoding="utf-8"))["time"]
    origin = clock["provenance"]["step_us"]
    assert origin["tag"] == "estimate"
    assert origin["source"]
    assert evaluate(origin["formula"], {}) == pytest.approx(catalogue.step_us())
    assert list(clock["provenance"]) == ["step_us"]


def test_a_wrong_formula_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**TABLES["filesystems", "ext3"], "nr_pages": 11}
    monkeypatch.setitem(TABLES, ("filesystems", "ext3"), wrong)
    assert len(formula_faults("filesystems", "ext3", provenance("filesystems", "ext3"))) == 1


@pytest.mark.parametrize("formula", ["__import__('os')", "2 ** 9", "'a' * 3", "[1][0]"])
def test_only_arithmetic_is_evaluated(formula: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        evaluate(formula, {})


# --- Every measured figure is a cell of its table -------------------------------------------------

SELECT = ("file", "fs", "dev", "kind", "section")


@functools.cache
def rows(file: str) -> tuple[dict[str, str], ...]:
    with (DATA / "measured" / file).open(encoding="utf-8", newline="") as stream:
        return tuple(csv.DictReader(stream))


def place_of(row: Mapping[str, str]) -> str:
    return "/".join(row[key] for key in SELECT if row.get(key))


def cell_faults(carried: Mapping[str, Any]) -> list[str]:
    """Where the figures of one carried row differ from the table."""
    place = "/".join(carried[key] for key in SELECT[1:] if key in carried)
    found = [row for row in rows(carried["file"]) if place_of(row) == place]
    if len(found) != 1:
        return [f"{len(found)} rows are {place!r}"]
    figures = {key: value for key, value in carried.items() if key not in SELECT}
    return [
        f"{place}: {key} is {value}, the table says {found[0].get(key)}"
        for key, value in figures.items()
        if key not in found[0] or float(found[0][key]) != value
    ] + ([] if figures else [f"{place}: no figure"])


CARRIED = [
    pytest.param(cells, id=f"{kind}.{name}.{row}")
    for (kind, name), entry in TABLES.items()
    for row, cells in entry.get("measured", {}).items()
]


@pytest.mark.parametrize("carried", CARRIED)
def test_measured_figures_are_cells_of_their_table(carried: dict[str, Any]) -> None:
    assert cell_faults(carried) == []


def test_a_wrong_cell_is_noticed() -> None:
    row = TABLES["filesystems", "ext4"]["measured"]["section"]
    assert len(cell_faults({**row, "peak_p99": 9})) == 1
    assert len(cell_faults({**row, "no_such_column": 1})) == 1
    assert len(cell_faults({**row, "section": "nowhere"})) == 1


@pytest.mark.parametrize(
    "path", sorted((DATA / "measured").glob("*.csv")), ids=lambda path: path.name
)
def test_tables_are_unchanged_copies(path: Path) -> None:
    original = SHARED / "measured" / path.name
    if not original.exists():
        pytest.skip("no measured tables beside the checkout to compare with")
    assert path.read_bytes() == original.read_bytes()


@pytest.mark.parametrize("name", ["ext2", "ext4", "xfs", "btrfs"])
def test_what_was_measured_is_carried(name: str) -> None:
    carried = set(provenance("filesystems", name).measured)
    assert "section" in carried
    assert {"latency", "device.latency"} & carried
    # Completing a bio allocates in a worker; ext2 has none.
    assert name == "ext2" or "device.completion" in carried


# --- Demand ---------------------------------------------------------------------------------------


def total_demand(filesystem: Filesystem) -> dict[int, float]:
    """Distribution of the pages one writepage takes: the sum over its independent allocs."""
    total = {0: 1.0}
    for step in filesystem.program:
        if step.verb == "alloc":
            wider: dict[int, float] = {}
            for (a, p), (b, q) in itertools.product(total.items(), step.demand):
                wider[a + b] = wider.get(a + b, 0.0) + p * q
            total = wider
    return total


@pytest.mark.parametrize("name", FILESYSTEMS)
def test_mean_demand_lies_between_typical_and_worst(name: str) -> None:
    filesystem = of("filesystems")[name]
    assert TABLES["filesystems", name]["typical_pages"] <= filesystem.mean_demand
    assert filesystem.mean_demand <= filesystem.nr_pages


@pytest.mark.parametrize("name", FILESYSTEMS)
def test_declared_need_is_the_programs_worst(name: str) -> None:
    filesystem = of("filesystems")[name]
    # An entry may declare something else; then its provenance must speak of the program.
    explained = "program" in provenance("filesystems", name).origins["nr_pages"].note
    assert filesystem.nr_pages == filesystem.worst_demand or explained


@pytest.mark.parametrize("name", MEASURED)
def test_demand_has_the_measured_quantiles(name: str) -> None:
    section = TABLES["filesystems", name]["measured"]["section"]
    total = total_demand(of("filesystems")[name])
    assert math.fsum(total.values()) == pytest.approx(1)
    upto_median = sum(p for pages, p in total.items() if pages <= section["peak_p50"])
    below_median = sum(p for pages, p in total.items() if pages < section["peak_p50"])
    assert below_median <= 0.5 <= upto_median
    assert sum(p for pages, p in total.items() if pages > section["peak_p99"]) <= 0.01


@pytest.mark.parametrize("name", [name for name in FILESYSTEMS if name.startswith("loop_")])
def test_below_a_loop_a_filesystem_takes_one_page_more(name: str) -> None:
    below, plain = of("filesystems")[name], of("filesystems")[name.removeprefix("loop_")]
    first, *rest = below.program
    assert (first.verb, first.worst) == ("alloc", 1)
    assert tuple(rest) == plain.program
    assert below.nr_pages == plain.nr_pages + 1
    assert below.device == plain.device
    assert not below.backs_out  # MODEL.md section 6: it does not apply to loop workers


def test_locks_are_those_that_writers_share() -> None:
    locks = {name: of("filesystems")[name].locks for name in FILESYSTEMS}
    assert {name for name, held in locks.items() if not held} == {"ext2", "nfs", "swap"}
    for name, held in locks.items():
        program = [str(step) for step in of("filesystems")[name].program]
        for lock in held:  # a lock under which nothing is allocated has no business here
            inside = program[program.index(f"lock {lock}") : program.index(f"unlock {lock}")]
            assert any(step.startswith("alloc") for step in inside), name


# --- Machines, mixes and stacks -------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for kind, name in TABLES if kind == "machines"])
def test_a_preset_gives_the_pages_and_the_reserve(name: str) -> None:
    preset, table = of("machines")[name], TABLES["machines", name]
    assert preset.reserve == table["pages_min"]
    assert preset.machine.pages == table["pages"] == preset.pages_low
    assert preset.reserve < preset.pages_low < preset.pages_high < preset.lowmem_pages


@pytest.mark.parametrize("name", [name for kind, name in TABLES if kind == "mixes"])
def test_mixes_sum_to_one_over_entries(name: str) -> None:
    weights = TABLES["mixes", name]["weights"]
    assert math.fsum(weights.values()) == pytest.approx(1, abs=1e-12)
    assert set(weights) <= set(FILESYSTEMS)
    mix = of("mixes")[name]
    assert mix.name == name
    # 20 threads give every share of a twentieth or more whole threads.
    mounts = mix.mounts(20)
    assert {m.filesystem.name: m.flushers for m in mounts} == {
        fs: round(20 * share) for fs, share in weights.items()
    }


@pytest.mark.parametrize("name", [name for kind, name in TABLES if kind == "stacks"])
def test_stacks_end_on_a_device(name: str) -> None:
    mounts = of("stacks")[name].mounts(3, dirtiers=1)
    assert [m.filesystem.name for m in mounts] == TABLES["stacks", name]["filesystems"]
    assert [m.on for m in mounts] == [*range(1, len(mounts)), None]
    assert [m.flushers + m.dirtiers for m in mounts] == [4] + [0] * (len(mounts) - 1)
    assert all(m.filesystem.name.startswith("loop_") for m in mounts[1:])


# --- Access ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_catalogue_is_a_mapping_in_file_order(kind: str) -> None:
    found = of(kind)
    names = [name for each, name in TABLES if each == kind]
    assert list(found) == names
    assert len(found) == len(names)
    assert repr(found) == f"{kind}: {', '.join(names)}"
    assert found._ipython_key_completions_() == names
    for name in names:
        assert found[name] is found[name]
        if name.isidentifier():
            assert getattr(found, name) is found[name]
            assert name in dir(found)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "machines"])
def test_names_work_as_attributes(kind: str) -> None:
    taken = set(dir(Catalogue))
    for name in of(kind):
        assert name.isidentifier(), name
        assert not keyword.iskeyword(name), name
        assert name not in taken, name


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    filesystems = of("filesystems")
    with pytest.raises(
        UnknownName, match=r"^filesystems: 'ext33' is unknown; did you mean 'ext3'\?$"
    ):
        filesystems["ext33"]
    with pytest.raises(AttributeError, match=r"'ext33' is unknown; did you mean 'ext3'\?$"):
        filesystems.ext33  # noqa: B018
    with pytest.raises(KeyError):
        filesystems["zzzzz"]
    with pytest.raises(BadInput, match=r"one of ext2, ext3,"):
        filesystems["zzzzz"]
    with pytest.raises(BadInput, match=r"\['ext3'\] is not a name"):
        filesystems[["ext3"]]
    with pytest.raises(BadInput, match=r"kind: 'filesystem' is unknown; did you mean 'files"):
        provenance("filesystem", "ext3")
    assert "ext33" not in filesystems
    assert filesystems.get("ext33") is None
    assert not hasattr(filesystems, "__deepcopy__")


def test_provenance_reads_as_text() -> None:
    lines = str(provenance("filesystems", "swap")).splitlines()
    assert lines[0] == "swap to a block device, Linux 2.6.9"
    assert any(line.startswith("backs_out [source-backed]: L269:mm/page_io.c") for line in lines)


# --- What a person may get wrong ------------------------------------------------------------------

GOOD = (DATA / "filesystems.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("nr_pages = 7\n", "", "filesystems.ext2.nr_pages: missing"),
        ("nr_pages = 7\n", "nr_pages = -7\n", "filesystems.ext2.nr_pages: -7 is too small"),
        ("nr_pages = 7\n", "nr_page = 7\n", "filesystems.ext2.nr_page: unknown key"),
        ("alloc 0:0.7 ", "alloc 0:0.8 ", "filesystems.ext2.alloc: probabilities sum to 1.1"),
        ('"submit"', '"send"', "filesystems.ext2.program: 'send' is not a step"),
        ('"disk_2004"', '"disk_2005"', "filesystems.ext2.devices: 'disk_2005' is unknown; did you"),
        ("[ext2]", "[ext2", "data/filesystems.toml: not TOML"),
    ],
)
def test_a_slip_in_a_file_is_one_clear_line(
    right: str, wrong: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in DATA.glob("*.toml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert right in GOOD
    edited = GOOD.replace(right, wrong, 1)
    (tmp_path / "filesystems.toml").write_text(edited, encoding="utf-8")
    monkeypatch.setattr(catalogue, "data_folder", lambda: tmp_path)
    catalogue._read.cache_clear()
    try:
        with pytest.raises(BadInput) as caught:
            Catalogue("filesystems", catalogue._filesystem)["ext2"]
    finally:
        catalogue._read.cache_clear()
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ('nr_pages.tag = "calculated"', 'nr_pages.tag = "guess"', "filesystems.ext2.provenance."),
        ("provenance.nr_pages.formula", "provenance.nr_pages.sum", "filesystems.ext2.provenance."),
    ],
)
def test_a_slip_in_a_provenance_is_one_clear_line(
    right: str, wrong: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in DATA.glob("*.toml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "filesystems.toml").write_text(GOOD.replace(right, wrong, 1), encoding="utf-8")
    monkeypatch.setattr(catalogue, "data_folder", lambda: tmp_path)
    catalogue._read.cache_clear()
    try:
        with pytest.raises(BadInput) as caught:
            provenance("filesystems", "ext2")
    finally:
        catalogue._read.cache_clear()
    assert str(caught.value).startswith(line)


def test_an_entry_that_is_no_table_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_entries", lambda _: {"ext2": 3})
    with pytest.raises(BadInput, match=r"^filesystems\.ext2: 3 is not a table"):
        Catalogue("filesystems", catalogue._filesystem)["ext2"]


def test_a_missing_file_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "data_folder", lambda: tmp_path)
    catalogue._read.cache_clear()
    try:
        with pytest.raises(BadInput, match=r"^data/pools\.toml: cannot be read; install"):
            list(Catalogue("pools", catalogue._pool))
    finally:
        catalogue._read.cache_clear()
