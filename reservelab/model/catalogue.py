"""Catalogues: what the files in data/ say, read once and on first use.

Each catalogue is a mapping from names to values, in the order of its file; a name that is a Python
name also works as an attribute. Where every number comes from is asked of `provenance`.

>>> filesystems.ext3.nr_pages
10
>>> machines["2.6.9-1GB"].reserve
256
>>> provenance("filesystems", "ext3").origins["nr_pages"].formula
'2 * (1 + 3) + 2'
"""

from __future__ import annotations

import difflib
import importlib.resources
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from reservelab.model.errors import BadInput, whole_number, within
from reservelab.model.filesystems import Filesystem
from reservelab.model.machine import Device, Machine
from reservelab.model.mixes import Mix
from reservelab.model.scenario import Mount, check_keys

Value = TypeVar("Value")

TAGS = ("source-backed", "calculated", "estimate", "measured")

# Where each kind stands: the file, and the table in it ("" for the whole file).
_PLACES = {
    "filesystems": ("filesystems.toml", ""),
    "devices": ("devices.toml", "devices"),
    "machines": ("machines.toml", "machines"),
    "pools": ("pools.toml", ""),
    "mixes": ("mixes.toml", "mixes"),
    "stacks": ("mixes.toml", "stacks"),
}


class UnknownName(BadInput, KeyError):
    """A name that a catalogue does not have; it is bad input, and a KeyError to a mapping."""


@dataclass(frozen=True)
class Origin:
    """Where one number comes from.

    Parameters
    ----------
    tag : str
        ``source-backed``, ``calculated``, ``estimate`` or ``measured``.
    source : str
        A source path, a Message-ID, a cell of data/measured/; for an estimate why that number.
    formula : str
        For a calculated number the arithmetic, in the numbers of its own entry.
    note : str
        What a reader should know before using the number.
    """

    tag: str
    source: str
    formula: str = ""
    note: str = ""


@dataclass(frozen=True)
class Provenance:
    """Everything a catalogue says about an entry beside its numbers.

    Parameters
    ----------
    title : str
        One line.
    note : str
        What a reader should know before using the entry.
    origins : mapping of str to Origin
        For each number where it comes from; a device's are named ``device.rate`` and so on.
    measured : mapping of str to mapping
        Figures carried from data/measured/: for each row the file, what selects the row, and cells
        by the name of their column.
    """

    title: str
    note: str
    origins: Mapping[str, Origin]
    measured: Mapping[str, Mapping[str, str | float]]

    def __str__(self) -> str:
        lines = [self.title, *([self.note] if self.note else [])]
        for field, origin in self.origins.items():
            words = f"{origin.formula} -- {origin.source}" if origin.formula else origin.source
            note = f" ({origin.note})" if origin.note else ""
            lines.append(f"{field} [{origin.tag}]: {words}{note}")
        return "\n".join(lines)


@dataclass(frozen=True)
class MachinePreset:
    """A real kernel's memory when it runs short.

    Parameters
    ----------
    name : str
        For people.
    machine : Machine
        Its pages are those on the free list when reclaim begins, pages_low.
    reserve : int
        The watermark scheme's reserve, pages_min.
    pages_low : int
        Below it the kernel's own daemon reclaims.
    pages_high : int
        At it that daemon sleeps again.
    lowmem_pages : int
        All of low memory.
    """

    name: str
    machine: Machine
    reserve: int
    pages_low: int
    pages_high: int
    lowmem_pages: int


@dataclass(frozen=True)
class Pool:
    """The size of a mempool in two kernels.

    Parameters
    ----------
    name : str
        For people.
    elements : str
        What it holds.
    linux_2_6_9 : int or None
        Elements in Linux 2.6.9; None where there is no such pool, or none was looked up.
    linux_6_18 : int or None
        Elements in Linux 6.18.2.
    pages_2_6_9 : int or None
        Pages it pins in 2.6.9, where that was worked out.
    """

    name: str
    elements: str
    linux_2_6_9: int | None
    linux_6_18: int | None
    pages_2_6_9: int | None


@dataclass(frozen=True)
class Stack:
    """Filesystems on top of each other through loop devices.

    Parameters
    ----------
    name : str
        For people.
    filesystems : tuple of Filesystem
        From the top down.
    """

    name: str
    filesystems: tuple[Filesystem, ...]

    def mounts(self, flushers: int, *, dirtiers: int = 0) -> list[Mount]:
        """Mount the stack; the threads use its top.

        Parameters
        ----------
        flushers : int
            Flushers of the top.
        dirtiers : int
            Dirtiers of the top.

        Returns
        -------
        list of Mount
            From the top down, each on the next, the last on its device.
        """
        top, *lower = self.filesystems
        last = len(lower)
        return [
            Mount(top, flushers=flushers, dirtiers=dirtiers, on=1 if lower else None),
            *(Mount(f, on=i + 1 if i < last else None) for i, f in enumerate(lower, 1)),
        ]


class Catalogue(Mapping[str, Value], Generic[Value]):
    """The entries of one kind, by name, in the order of their file.

    Parameters
    ----------
    kind : str
        The kind, for example ``filesystems``.
    build : callable
        Makes the value of an entry from its name and table; called once for each name asked for.
    """

    def __init__(self, kind: str, build: Callable[[str, Mapping[str, Any]], Value]) -> None:
        self._kind = kind
        self._build = build
        self._values: dict[str, Value] = {}

    def __getitem__(self, name: object) -> Value:
        # A file or a command line may ask for anything, a list too.
        if not isinstance(name, str):
            raise UnknownName(self._kind, f"{name!r} is not a name", f"one of {', '.join(self)}")
        if name not in self._values:
            table = _entry(self._kind, name)
            try:
                self._values[name] = self._build(name, table)
            except BadInput as error:
                raise within(f"{self._kind}.{name}", error) from None
        return self._values[name]

    def __getattr__(self, name: str) -> Value:
        # Python itself asks for names such as __deepcopy__, which no file has.
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except UnknownName as error:
            raise AttributeError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(_entries(self._kind))

    def __len__(self) -> int:
        return len(_entries(self._kind))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self if name.isidentifier())]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        return f"{self._kind}: {', '.join(self)}"


def provenance(kind: str, name: str) -> Provenance:
    """Say where the numbers of an entry come from.

    Parameters
    ----------
    kind : str
        ``filesystems``, ``devices``, ``machines``, ``pools``, ``mixes`` or ``stacks``.
    name : str
        The entry.

    Returns
    -------
    Provenance
        Its title, note, origins and measured figures; a filesystem's with those of its device, a
        machine's with those of its kernel.

    Raises
    ------
    BadInput
        If there is no such kind or entry, or an origin is wrong.
    """
    if kind not in _PLACES:
        raise UnknownName("kind", f"{kind!r} is unknown", _nearest(kind, _PLACES))
    table = _entry(kind, name)
    origins = _origins(f"{kind}.{name}", table)
    note, measured = table.get("note", ""), dict(table.get("measured", {}))
    if kind == "filesystems":
        device = provenance("devices", table["device"])
        origins |= {f"device.{field}": origin for field, origin in device.origins.items()}
        measured |= {f"device.{row}": cells for row, cells in device.measured.items()}
    if kind == "machines":
        kernel = _kernel(table["kernel"])
        origins = _origins(f"kernels.{table['kernel']}", kernel) | origins
        note = note or kernel.get("note", "")
    frozen = {row: MappingProxyType(cells) for row, cells in measured.items()}
    title = table.get("title", name)
    return Provenance(title, note, MappingProxyType(origins), MappingProxyType(frozen))


def step_us() -> float:
    """Say how long the unit of model time is assumed to be.

    Returns
    -------
    float
        Mean duration of one step of one thread, in microseconds (data/devices.toml).
    """
    clock = check_keys("time", _read("devices.toml").get("time"), {"step_us"}, {"provenance"})
    return _positive("time.step_us", clock["step_us"])


def data_folder() -> Traversable:
    """Find data/: inside the package when installed from a wheel, beside it in a checkout.

    Returns
    -------
    Traversable
        The folder.
    """
    packaged = importlib.resources.files("reservelab") / "data"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "data"


@cache
def _read(file: str) -> dict[str, Any]:
    try:
        text = (data_folder() / file).read_text(encoding="utf-8")
    except OSError:
        raise BadInput(f"data/{file}", "cannot be read", "install the package again") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"data/{file}", f"not TOML: {error}", "mend that line") from None


def _entries(kind: str) -> Mapping[str, Any]:
    file, table = _PLACES[kind]
    entries: object = _read(file).get(table, {}) if table else _read(file)
    if not isinstance(entries, Mapping):
        raise BadInput(table, f"{entries!r} is not a table", f"write [{table}.NAME] tables")
    return entries


def _entry(kind: str, name: str) -> Mapping[str, Any]:
    entries = _entries(kind)
    if name not in entries:
        raise UnknownName(kind, f"{name!r} is unknown", _nearest(name, entries))
    entry: object = entries[name]
    if not isinstance(entry, Mapping):
        raise BadInput(f"{kind}.{name}", f"{entry!r} is not a table", "see its neighbours")
    return entry


def _kernel(name: str) -> Mapping[str, Any]:
    kernels: Mapping[str, Mapping[str, Any]] = _read("machines.toml")["kernels"]
    if name not in kernels:
        raise UnknownName("kernel", f"{name!r} is unknown", _nearest(name, kernels))
    return kernels[name]


def _nearest(name: str, names: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"one of {', '.join(names)}"


def _origins(where: str, table: Mapping[str, Any]) -> dict[str, Origin]:
    origins = {}
    for field, words in table.get("provenance", {}).items():
        key = f"{where}.provenance.{field}"
        words = check_keys(key, words, {"tag", "source"}, {"formula", "note"})
        if words["tag"] not in TAGS:
            right = f"one of {', '.join(TAGS)}"
            raise BadInput(f"{key}.tag", f"{words['tag']!r} is unknown", right)
        origins[field] = Origin(**words)
    return origins


def _positive(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise BadInput(key, f"{value!r} is not a number above 0", "give microseconds")
    return float(value)


_ABOUT = {"title", "note", "provenance", "measured"}


def _filesystem(name: str, table: Mapping[str, Any]) -> Filesystem:
    known = {"program", "nr_pages", "typical_pages", "backs_out", "device"}
    check_keys("", table, known, _ABOUT)
    return Filesystem.from_text(
        name,
        table["program"],
        nr_pages=table["nr_pages"],
        backs_out=table["backs_out"],
        device=devices[table["device"]],
    )


def _device(_: str, table: Mapping[str, Any]) -> Device:
    check_keys("", table, {"latency_us", "depth", "completion_pages"}, _ABOUT)
    return Device(
        rate=step_us() / _positive("latency_us", table["latency_us"]),
        depth=table["depth"],
        completion_pages=table["completion_pages"],
    )


def _machine(name: str, table: Mapping[str, Any]) -> MachinePreset:
    pages = {"pages", "pages_min", "pages_low", "pages_high", "lowmem_pages"}
    check_keys("", table, {"kernel", "lowmem_mb", "min_free_kbytes"} | pages, _ABOUT)
    _kernel(table["kernel"])
    number = {key: whole_number(key, table[key]) for key in pages}
    return MachinePreset(
        name,
        Machine(number["pages"]),
        reserve=number["pages_min"],
        pages_low=number["pages_low"],
        pages_high=number["pages_high"],
        lowmem_pages=number["lowmem_pages"],
    )


def _pool(name: str, table: Mapping[str, Any]) -> Pool:
    columns = ("linux_2_6_9", "linux_6_18", "pages_2_6_9")
    check_keys("", table, {"elements"}, _ABOUT | set(columns))
    sizes = [whole_number(key, table[key]) if key in table else None for key in columns]
    return Pool(name, table["elements"], *sizes)


def _mix(name: str, table: Mapping[str, Any]) -> Mix:
    check_keys("", table, {"weights"}, _ABOUT)
    weights = table["weights"]
    if not isinstance(weights, Mapping):
        raise BadInput("weights", f"{weights!r} is not a table", "write { NAME = share, ... }")
    return Mix(weights, name=name)


def _stack(name: str, table: Mapping[str, Any]) -> Stack:
    check_keys("", table, {"filesystems"}, _ABOUT)
    names = table["filesystems"]
    if not isinstance(names, list) or len(names) < 2:
        raise BadInput("filesystems", f"{names!r} is no stack", "list two or more, top first")
    return Stack(name, tuple(filesystems[each] for each in names))


filesystems: Catalogue[Filesystem] = Catalogue("filesystems", _filesystem)
devices: Catalogue[Device] = Catalogue("devices", _device)
machines: Catalogue[MachinePreset] = Catalogue("machines", _machine)
pools: Catalogue[Pool] = Catalogue("pools", _pool)
mixes: Catalogue[Mix] = Catalogue("mixes", _mix)
stacks: Catalogue[Stack] = Catalogue("stacks", _stack)
