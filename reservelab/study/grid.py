"""Grids: scenarios as the product of axes around a base.

Axes
----
scheme       variants as people write them ("global on-entry"), or Scheme objects
reserve      pages; or "need", "2*need", "0.5*need": multiples of the largest nr_pages over the
             mounts, rounded up. A scheme that has no reserve ignores this axis
mix          names of mixes, filesystems or stacks in the catalogue, or Mix, Filesystem and Stack
             objects; in TOML also tables (see `Grid.from_toml`). Gives the scenario its label
threads      flushers in all, spread over the mix, or over the base's mounts in their proportion
dirtiers     dirtiers in all, spread likewise; they come on top of threads
pages, dirty, oom_kills, pages_per_kill
             the machine's
quota, waiting
             the scenario's
max_sections the scheme's; 0 for no limit
device.rate, device.depth, device.completion_pages
             of every mount that stands on a device

What no axis names is the base's. A mix replaces the base's mounts, devices included.

Cells that would be the same scenario stand once. A cell whose scheme sets aside more pages than
the machine has is a finding, not a slip (a standing reserve of every thread does not fit): it is
listed in `Grid.left_out`, a sweep warns of it, and summaries carry it. Any other cell that is no
valid scenario, and any value of an axis with which no cell at all can run, is an error.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, get_args

import tomli_w

from reservelab.model import catalogue
from reservelab.model.catalogue import Stack
from reservelab.model.errors import BadInput, whole_number, within
from reservelab.model.filesystems import Filesystem
from reservelab.model.machine import Device, Machine
from reservelab.model.mixes import Mix
from reservelab.model.scenario import (
    Mount,
    Scenario,
    Waiting,
    check_keys,
    mount_from_table,
    read_toml,
    scheme_from_table,
    scheme_table,
)
from reservelab.model.schemes import Scheme

_MACHINE = ("pages", "dirty", "oom_kills", "pages_per_kill")
_RESERVE = re.compile(r"(?:([0-9]+(?:\.[0-9]+)?) *\* *)?need")
_HUGE = 2**31 - 1


@dataclass(frozen=True)
class LeftOut:
    """A cell of the product that is no scenario: its reserve does not fit into the machine.

    Parameters
    ----------
    cell : mapping of str to (str or int or float)
        The value of each axis.
    reason : str
        How many pages would be set aside, of how many.
    """

    cell: Mapping[str, str | int | float]
    reason: str

    def __str__(self) -> str:
        return f"{_place(self.cell)}: {self.reason}"


@dataclass(frozen=True)
class Grid:
    """Scenarios as the product of axes around a base.

    Parameters
    ----------
    base : Scenario
        Everything that no axis names.
    axes : mapping of str to sequence
        Values by axis (the module's docstring lists the axes); the first axis varies slowest.
    name : str
        For people; not part of the identity.

    Raises
    ------
    BadInput
        If an axis is unknown, empty or not a list, if a value is wrong, if a cell is no scenario
        for another reason than its reserve, or if no cell can run with some value.
    """

    base: Scenario
    axes: Mapping[str, Sequence[Any]]
    name: str = ""
    left_out: tuple[LeftOut, ...] = field(init=False, compare=False, repr=False)
    _cells: tuple[Scenario, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.base, Scenario):
            raise BadInput("base", f"{self.base!r} is not one", "give a Scenario")
        if not isinstance(self.name, str):
            raise BadInput("name", f"{self.name!r} is not text", "give a string")
        if not isinstance(self.axes, Mapping):
            raise BadInput("axes", f"{self.axes!r} is not a table", f"its keys are {_known()}")
        axes = {axis: _values(axis, values) for axis, values in self.axes.items()}
        object.__setattr__(self, "axes", axes)
        cells, left_out = _product(self.base, axes)
        object.__setattr__(self, "_cells", cells)
        object.__setattr__(self, "left_out", left_out)

    def scenarios(self) -> list[Scenario]:
        """The cells that can run.

        Returns
        -------
        list of Scenario
            In the order of the product, none twice.
        """
        return list(self._cells)

    @property
    def digest(self) -> str:
        """SHA-256 of the scenarios' sorted digests: what is run, however it was written down."""
        digests = sorted(scenario.digest for scenario in self._cells)
        return hashlib.sha256("\n".join(digests).encode("ascii")).hexdigest()

    def __str__(self) -> str:
        lines = [f"grid {self.name or 'without a name'}: {len(self._cells)} scenarios"]
        lines += [
            f"  {axis}: {', '.join(str(_shown(value)) for value in values)}"
            for axis, values in self.axes.items()
        ]
        if self.left_out:
            lines.append(f"  left out, since the machine is too small: {len(self.left_out)}")
        return "\n".join(lines)

    def toml(self) -> str:
        """The grid as a file that `from_toml` reads back.

        Returns
        -------
        str
            TOML with the base written out.
        """
        document: dict[str, Any] = {"name": self.name} if self.name else {}
        document["axes"] = {
            axis: [_axis_table(value) for value in values] for axis, values in self.axes.items()
        }
        document["base"] = tomllib.loads(self.base.toml())
        return tomli_w.dumps(document)

    @classmethod
    def from_toml(cls, text: str) -> Grid:
        """Read a grid from TOML.

        Parameters
        ----------
        text : str
            Keys: base (a scenario file's keys; the scheme, the machine and the mounts may be
            missing where axes give them), axes (lists), name. A mix may be a table: ``name`` and
            one of ``weights = { ext3 = 0.5, swap = 0.5 }``; ``filesystems``, a list of mount
            tables with ``share`` and without threads; or ``stack``, such a list from the top down.

        Returns
        -------
        Grid
            The grid.

        Raises
        ------
        BadInput
            One line for the first key that is unknown, missing or wrong.
        """
        table = check_keys("", read_toml(text), {"base"}, {"axes", "name"})
        known = {"machine", "scheme", "mounts", "quota", "waiting", "label"}
        base = dict(check_keys("base", table["base"], set(), known))
        axes: dict[str, Any] = {}
        given = table.get("axes", {})
        if not isinstance(given, Mapping):
            raise BadInput("axes", f"{given!r} is not a table", f"its keys are {_known()}")
        for axis, values in given.items():
            # `device.rate = [...]` is a table in a table to TOML.
            if axis == "device" and isinstance(values, Mapping):
                axes |= {f"device.{key}": inner for key, inner in values.items()}
            else:
                axes[axis] = values
        axes = {axis: _values(axis, values) for axis, values in axes.items()}
        # What axes give to every cell need not be in the file; any value will do as the base's.
        if "scheme" not in base and "scheme" in axes:
            base["scheme"] = {}
        if "machine" not in base and "pages" in axes:
            base["machine"] = {"pages": axes["pages"][0]}
        without_mounts = "mounts" not in base
        if without_mounts:
            if not {"mix", "threads"} <= set(axes):
                raise BadInput("base.mounts", "missing", "give mounts, or the axes mix and threads")
            base["mounts"] = [{"program": ["submit"], "flushers": 1}]
        try:
            scenario = Scenario.from_table(base)
        except BadInput as error:
            raise within("base", error) from None
        if without_mounts:
            mounts = axes["mix"][0].mounts(max(1, axes["threads"][0]))
            scenario = replace(scenario, mounts=mounts)
        return cls(scenario, axes, table.get("name", ""))


# ---- axes -----------------------------------------------------------------------------------


def _values(axis: str, values: object) -> tuple[Any, ...]:
    """Check the values of an axis, each by itself."""
    key = f"axes.{axis}"
    if axis not in _AXES:
        raise BadInput(key, "unknown axis", f"the axes are {_known()}")
    if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
        raise BadInput(key, f"{values!r} is not a list", "write a list, of one value if need be")
    checked = tuple(_AXES[axis](f"{key}[{i}]", value) for i, value in enumerate(values))
    if not checked:
        raise BadInput(key, "empty", "give at least one value, or leave the axis out")
    shown = [_shown(value) for value in checked]
    for i, value in enumerate(checked):
        # The frame knows a mix by its name only.
        if axis == "mix" and checked[shown.index(shown[i])] != value:
            wrong = f"another mix is called {shown[i]!r} too"
            raise BadInput(f"{key}[{i}]", wrong, "give each a name of its own")
    return checked


def _whole(least: int) -> Callable[[str, object], int]:
    return lambda key, value: whole_number(key, value, least)


def _rate(key: str, value: object) -> float:
    try:
        return Device(rate=value).rate  # type: ignore[arg-type]
    except BadInput as error:
        raise BadInput(key, error.wrong, error.right) from None


def _reserve(key: str, value: object) -> int | str:
    if not isinstance(value, str):
        return whole_number(key, value)
    if not _RESERVE.fullmatch(value):
        raise BadInput(key, f"{value!r} is no reserve", 'give pages, "need" or "2*need"')
    return value


def _scheme(key: str, value: object) -> Scheme | str:
    """A scheme with its reserve, or a variant's full name, whose reserve is the cell's business."""
    if isinstance(value, Scheme):
        return value
    try:
        return Scheme.unsized(value).variant if isinstance(value, str) else scheme_from_table(value)
    except BadInput as error:
        raise BadInput(key, error.wrong, error.right) from None


def _choice(key: str, value: object) -> str:
    if value not in get_args(Waiting):
        raise BadInput(key, f"{value!r} is unknown", f"one of {', '.join(get_args(Waiting))}")
    return str(value)


def _mix(key: str, value: object) -> Mix | Stack:
    if isinstance(value, (Mix, Stack)):
        return value
    if isinstance(value, Filesystem):
        return Mix({value: 1.0})
    try:
        if isinstance(value, Mapping):
            return _mix_from_table(value)
        if value in catalogue.mixes:
            return catalogue.mixes[value]
        if value in catalogue.filesystems:
            return Mix({catalogue.filesystems[value]: 1.0})
        if value in catalogue.stacks:
            return catalogue.stacks[value]
    except BadInput as error:
        raise within(key, error) from None
    names = [*catalogue.mixes, *catalogue.filesystems, *catalogue.stacks]
    raise BadInput(key, f"{value!r} is unknown", f"one of {', '.join(names)}")


def _mix_from_table(table: Mapping[str, Any]) -> Mix | Stack:
    check_keys("", table, set(), {"name", "weights", "filesystems", "stack"})
    (kind, *more) = [*(key for key in ("weights", "filesystems", "stack") if key in table), ""]
    name = table.get("name", "")
    if len(more) != 1 or not isinstance(name, str):
        right = "give a name and one of weights, filesystems, stack"
        raise BadInput("mix", f"its keys are {', '.join(table)}", right)
    entries = table[kind]
    if kind == "weights":
        if not isinstance(entries, Mapping):
            raise BadInput(kind, f"{entries!r} is not a table", "write { NAME = share, ... }")
        return Mix(entries, name)
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise BadInput(kind, f"{entries!r} is not a list of tables", "list filesystems")
    built = []
    for index, entry in enumerate(entries):
        rest = {key: entry[key] for key in entry if key != "share"}
        try:
            mount = mount_from_table(rest)
        except BadInput as error:
            raise within(f"{kind}[{index}]", error) from None
        below = mount.filesystem
        built.append(
            Filesystem(
                below.name,
                below.program,
                nr_pages=below.nr_pages,
                backs_out=below.backs_out,
                device=mount.device,
            )
        )
    if kind == "stack":
        return Stack(name, tuple(built))
    return Mix({fs: e.get("share", 0) for fs, e in zip(built, entries, strict=True)}, name)


def _filesystem_table(filesystem: Filesystem) -> dict[str, Any]:
    return {
        "name": filesystem.name,
        "program": [str(step) for step in filesystem.program],
        "nr_pages": filesystem.nr_pages,
        "backs_out": filesystem.backs_out,
        "device": {f.name: getattr(filesystem.device, f.name) for f in fields(Device)},
    }


def _axis_table(value: object) -> object:
    """A value of an axis as TOML."""
    if isinstance(value, Scheme):
        return scheme_table(value)
    if not isinstance(value, (Mix, Stack)):
        return value
    if _known_as(value):
        return value.name
    entries = [_filesystem_table(filesystem) for filesystem in value.filesystems]
    if isinstance(value, Stack):
        return {"name": value.name, "stack": entries}
    shares = [{"share": w, **e} for w, e in zip(value.weights, entries, strict=True)]
    return {"name": value.name, "filesystems": shares}


def _known_as(value: Mix | Stack) -> bool:
    """Whether the catalogue has just this under its name."""
    try:
        return _mix("", value.name) == value
    except BadInput:
        return False


def _shown(value: object) -> str | int | float:
    """A value of an axis in an error, a table or a summary."""
    if isinstance(value, Scheme):
        return value.variant
    if isinstance(value, (Mix, Stack)):
        return value.name
    return value if isinstance(value, (int, float)) else str(value)


def _known() -> str:
    return ", ".join(_AXES)


_AXES: dict[str, Callable[[str, object], Any]] = {
    "scheme": _scheme,
    "reserve": _reserve,
    "mix": _mix,
    "threads": _whole(0),
    "dirtiers": _whole(0),
    **dict.fromkeys(_MACHINE, _whole(0)),
    "quota": _whole(1),
    "waiting": _choice,
    "max_sections": _whole(0),
    "device.rate": _rate,
    "device.depth": _whole(1),
    "device.completion_pages": _whole(0),
}


# ---- cells ----------------------------------------------------------------------------------


def _product(
    base: Scenario, axes: Mapping[str, tuple[Any, ...]]
) -> tuple[tuple[Scenario, ...], tuple[LeftOut, ...]]:
    cells: dict[str, Scenario] = {}
    left_out: dict[str, LeftOut] = {}
    runs: dict[str, set[int]] = {axis: set() for axis in axes}
    places = itertools.product(*(range(len(values)) for values in axes.values()))
    for place in places:
        chosen = {axis: axes[axis][i] for axis, i in zip(axes, place, strict=True)}
        if "reserve" in chosen and not _has_reserve(chosen.get("scheme", base.scheme)):
            del chosen["reserve"]
        shown = {axis: _shown(value) for axis, value in chosen.items()}
        try:
            scenario = _cell(base, chosen)
        except BadInput as error:
            try:
                _cell(base, chosen | {"pages": _HUGE})
            except BadInput:
                raise within(f"cell ({_place(shown)})", error) from None
            # On a larger machine it would be a scenario, so the machine is what is wrong with it.
            left_out.setdefault(_place(shown), LeftOut(shown, error.wrong))
        else:
            cells.setdefault(scenario.digest, scenario)
            for axis, i in zip(axes, place, strict=True):
                if axis in chosen:
                    runs[axis].add(i)
    for axis, values in axes.items():
        for i, value in enumerate(values):
            if i in runs[axis]:
                continue
            if axis == "reserve" and not any(map(_has_reserve, axes.get("scheme", [base.scheme]))):
                raise BadInput("axes.reserve", "no scheme of the grid has one", "leave it out")
            why = next(out for out in left_out.values() if out.cell.get(axis) == _shown(value))
            key, wrong = f"axes.{axis}[{i}]", f"no cell can run with {_shown(value)!r}"
            raise BadInput(key, f"{wrong} ({why})", "give the machine more pages, or leave it out")
    return tuple(cells.values()), tuple(left_out.values())


def _place(shown: Mapping[str, object]) -> str:
    return ", ".join(f"{axis}={value!r}" for axis, value in shown.items())


def _has_reserve(scheme: Scheme | str) -> bool:
    return (Scheme.unsized(scheme) if isinstance(scheme, str) else scheme).has_reserve


def _cell(base: Scenario, chosen: Mapping[str, Any]) -> Scenario:
    """The scenario of one cell; `chosen` has the value of each axis."""
    mounts, label = base.mounts, base.label
    if {"mix", "threads", "dirtiers"} & set(chosen):
        mix = chosen.get("mix")
        mounts = _spread(mounts, mix, chosen.get("threads"), chosen.get("dirtiers"))
        label = label if mix is None else mix.name
    device = {key.removeprefix("device."): chosen[key] for key in chosen if key[:7] == "device."}
    if device:
        mounts = tuple(
            m if m.device is None else replace(m, device=replace(m.device, **device))
            for m in mounts
        )
    machine: Machine = replace(base.machine, **{k: chosen[k] for k in _MACHINE if k in chosen})
    return Scenario(
        machine=machine,
        mounts=mounts,
        scheme=_cell_scheme(base, chosen, max(mount.filesystem.nr_pages for mount in mounts)),
        quota=chosen.get("quota", base.quota),
        waiting=chosen.get("waiting", base.waiting),
        label=label,
    )


def _cell_scheme(base: Scenario, chosen: Mapping[str, Any], need: int) -> Scheme:
    scheme: Scheme | str = chosen.get("scheme", base.scheme)
    reserve = chosen.get("reserve")
    if isinstance(reserve, str) and (multiple := _RESERVE.fullmatch(reserve)):
        reserve = math.ceil(Fraction(multiple[1] or 1) * need)
    if isinstance(scheme, str):
        if reserve is None and _has_reserve(scheme):
            reserve = base.scheme.reserve
        scheme = Scheme.named(scheme, reserve)
    elif reserve is not None:
        scheme = replace(scheme, reserve=reserve)
    if "max_sections" in chosen:
        scheme = replace(scheme, max_sections=chosen["max_sections"] or None)
    return scheme


def _spread(
    mounts: Sequence[Mount], mix: Mix | Stack | None, threads: int | None, dirtiers: int | None
) -> Sequence[Mount]:
    """Spread threads over a mix, or over mounts in the proportion they have; None keeps them."""
    flushers = sum(mount.flushers for mount in mounts)
    others = sum(mount.dirtiers for mount in mounts)
    threads = flushers if threads is None else threads
    dirtiers = others if dirtiers is None else dirtiers
    if mix is not None:
        return tuple(mix.mounts(threads, dirtiers=dirtiers))
    # Where there are none of one kind, the other kind says how the mounts share.
    by_flushers = [mount.flushers if flushers else mount.dirtiers for mount in mounts]
    by_dirtiers = [mount.dirtiers if others else mount.flushers for mount in mounts]
    return tuple(
        replace(mount, flushers=some, dirtiers=more)
        for mount, some, more in zip(
            mounts,
            _apportion(by_flushers, threads),
            _apportion(by_dirtiers, dirtiers),
            strict=True,
        )
    )


def _apportion(parts: list[int], threads: int) -> list[int]:
    """Threads in the proportion of the parts, by largest remainder; ties go to the first."""
    total = sum(parts)
    seats = [threads * part // total for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda i: -(threads * parts[i] % total))
    for i in by_remainder[: threads - sum(seats)]:
        seats[i] += 1
    return seats
