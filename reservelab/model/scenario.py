"""Scenarios: everything that is fixed about an episode, and its identity (MODEL.md sections 1, 2).

The identity of a scenario is the SHA-256 of its canonical JSON: what can change a result is in it,
names and labels are not.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

import tomli_w

from reservelab.model.errors import BadInput, whole_number, within
from reservelab.model.filesystems import Filesystem
from reservelab.model.machine import Device, Machine
from reservelab.model.schemes import Scheme

RULES_VERSION = 1
MOST_THREADS = 100_000  # beyond, tables take minutes to make, and nobody's machine writes like that
Waiting = Literal["asleep", "racing"]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Mount:
    """A filesystem on a device or on another mount, with the threads that use it.

    Parameters
    ----------
    filesystem : Filesystem
        What is mounted.
    flushers : int
        Threads that write back ``quota`` pages each.
    dirtiers : int
        Threads that want ``quota`` user pages each, and reclaim when there are none.
    device : Device, optional
        The device; the filesystem's own unless given.
    on : int, optional
        Index of the mount below, instead of a device.

    Raises
    ------
    BadInput
        If a number is negative, or a device is given to a stacked mount.
    """

    filesystem: Filesystem
    flushers: int = 0
    dirtiers: int = 0
    device: Device | None = None
    on: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.filesystem, Filesystem):
            raise BadInput("filesystem", f"{self.filesystem!r} is not one", "give a Filesystem")
        object.__setattr__(self, "flushers", whole_number("flushers", self.flushers))
        object.__setattr__(self, "dirtiers", whole_number("dirtiers", self.dirtiers))
        if self.on is not None:
            object.__setattr__(self, "on", whole_number("on", self.on))
            if self.device is not None:
                wrong = "given to a stacked mount"
                raise BadInput("device", wrong, "its device is the mount below")
        elif self.device is None:
            object.__setattr__(self, "device", self.filesystem.device)
        elif not isinstance(self.device, Device):
            raise BadInput("device", f"{self.device!r} is not one", "give a Device")

    def faster(self, factor: float) -> Mount:
        """Make the device as many times as fast.

        Parameters
        ----------
        factor : float
            On the rate of each channel; below 1 is slower.

        Returns
        -------
        Mount
            With such a device; itself if it stands on another mount.
        """
        if self.device is None:
            return self
        return replace(self, device=replace(self.device, rate=self.device.rate * factor))


@dataclass(frozen=True)
class Scenario:
    """A machine, its mounts and threads, and a scheme.

    Parameters
    ----------
    machine : Machine
        The memory.
    mounts : sequence of Mount
        At least one thread in all.
    scheme : Scheme
        Who may take which page, when, and where it goes back.
    quota : int
        Writepages of each flusher, user pages of each dirtier.
    waiting : str
        ``asleep`` (semaphores and locks queue and are handed over) or ``racing``
        (MODEL.md section 3a).
    label : str
        For people; not part of the identity.

    Raises
    ------
    BadInput
        If the parts do not fit together; the key names the part.
    """

    machine: Machine
    mounts: Sequence[Mount]
    scheme: Scheme
    quota: int = 1
    waiting: Waiting = "asleep"
    label: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.machine, Machine):
            raise BadInput("machine", f"{self.machine!r} is not one", "give a Machine")
        if not isinstance(self.scheme, Scheme):
            raise BadInput("scheme", f"{self.scheme!r} is not one", "give a Scheme")
        if not isinstance(self.mounts, Sequence) or not self.mounts:
            raise BadInput("mounts", "none", "give at least one mount")
        object.__setattr__(self, "mounts", tuple(self.mounts))
        for index, mount in enumerate(self.mounts):
            if not isinstance(mount, Mount):
                raise BadInput(f"mounts[{index}]", f"{mount!r} is not one", "give a Mount")
        object.__setattr__(self, "quota", whole_number("quota", self.quota, 1))
        if self.waiting not in get_args(Waiting):
            raise BadInput("waiting", f"{self.waiting!r} is unknown", "one of asleep, racing")
        if not isinstance(self.label, str):
            raise BadInput("label", f"{self.label!r} is not text", "give a string")
        self._check_stacks()
        if not self.threads:
            raise BadInput("mounts", "no thread", "give a mount flushers or dirtiers")
        if self.threads > MOST_THREADS:
            right = f"give at most {MOST_THREADS} in all"
            raise BadInput("mounts", f"{self.threads} threads", right)
        if self.set_aside > self.machine.pages:
            raise BadInput(
                "reserve",
                f"{self.set_aside} pages set aside of {self.machine.pages}",
                "set aside no more than machine.pages",
            )

    def _check_stacks(self) -> None:
        for index, mount in enumerate(self.mounts):
            seen, below = {index}, mount.on
            while below is not None:
                if below >= len(self.mounts):
                    raise BadInput(
                        f"mounts[{index}].on", f"there is no mount {below}",
                        f"give an index from 0 to {len(self.mounts) - 1}",
                    )  # fmt: skip
                if below in seen:
                    raise BadInput(f"mounts[{index}].on", "the stack is a cycle", "end on a device")
                seen.add(below)
                below = self.mounts[below].on

    @property
    def threads(self) -> int:
        """Flushers and dirtiers in all; loop workers come on top."""
        return sum(mount.flushers + mount.dirtiers for mount in self.mounts)

    @property
    def stacked(self) -> tuple[int, ...]:
        """Indices of the mounts that stand on another; each has one loop worker."""
        return tuple(i for i, mount in enumerate(self.mounts) if mount.on is not None)

    @property
    def need(self) -> int:
        """The largest nr_pages over the mounts: the size the proposal gives its pool."""
        return max(mount.filesystem.nr_pages for mount in self.mounts)

    @property
    def reserve(self) -> int | None:
        """The scheme's reserve in pages, its default filled in; None where it has none."""
        if self.scheme.start == "pool" and self.scheme.reserve is None:
            return self.need
        return self.scheme.reserve

    @property
    def set_aside(self) -> int:
        """Pages taken out of the free pages (or, for a mark, barred) before the first step."""
        match self.scheme.start:
            case "nothing":
                return 0
            case "mount_pools":
                return (self.reserve or 0) * len(self.mounts)
            case "own":
                own = sum(
                    (m.flushers + m.dirtiers) * m.filesystem.nr_pages for m in self.mounts
                )
                workers = (self.mounts[self.mounts[i].on or 0] for i in self.stacked)
                return own + sum(mount.filesystem.nr_pages for mount in workers)
            case _:
                return self.reserve or 0

    @property
    def writepages(self) -> int:
        """Writepages (or user pages) asked for in one episode: threads times quota."""
        return self.threads * self.quota

    @property
    def mean_demand(self) -> float:
        """Expected pages one writepage allocates, averaged over the threads."""
        weighted = [
            (m.flushers + m.dirtiers) * m.filesystem.mean_demand for m in self.mounts
        ]
        return sum(weighted) / self.threads

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is legal here but can never enter, one line each."""
        lines = []
        used = {i for i, m in enumerate(self.mounts) if m.flushers + m.dirtiers}
        used |= {self.mounts[i].on or 0 for i in self.stacked}
        for index in sorted(used):
            filesystem = self.mounts[index].filesystem
            # All the free pages there can ever be; a pool of tickets does not grow.
            machine = self.machine
            limit = machine.pages + machine.dirty + machine.oom_kills * machine.pages_per_kill
            if self.scheme.entry == "tickets":
                limit = self.reserve or 0
            bounded = self.scheme.entry in ("own_by_page", "own_at_once", "tickets")
            if bounded and filesystem.nr_pages > limit:
                lines.append(
                    f"mounts[{index}] ({filesystem.name}): nr_pages {filesystem.nr_pages} is more"
                    f" than the {limit} pages {self.scheme.variant!r} can ever grant;"
                    " no section of it will begin"
                )
            elif self.scheme.start == "pool" and filesystem.nr_pages > (self.reserve or 0):
                lines.append(
                    f"mounts[{index}] ({filesystem.name}): nr_pages {filesystem.nr_pages} is more"
                    f" than the pool of {self.reserve}; one section can drain it"
                )
        return tuple(lines)

    def canonical(self) -> dict[str, Any]:
        """Everything that can change a result, defaults filled in, as plain JSON values.

        Returns
        -------
        dict
            Without names and labels; its JSON with sorted keys is what the digest is made of.
        """
        scheme = {f.name: getattr(self.scheme, f.name) for f in fields(Scheme)}
        scheme["grants"] = list(self.scheme.grants)
        scheme["reserve"] = self.reserve
        return {
            "machine": {f.name: getattr(self.machine, f.name) for f in fields(Machine)},
            "mounts": [_canonical_mount(mount) for mount in self.mounts],
            "scheme": scheme,
            "quota": self.quota,
            "waiting": self.waiting,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def toml(self) -> str:
        """The scenario as a file that `from_toml` reads back.

        Returns
        -------
        str
            TOML with every value written out.
        """
        document: dict[str, Any] = {"label": self.label} if self.label else {}
        document |= {"quota": self.quota, "waiting": self.waiting}
        document["machine"] = {f.name: getattr(self.machine, f.name) for f in fields(Machine)}
        document["scheme"] = scheme_table(self.scheme)
        document["mounts"] = [_mount_table(mount) for mount in self.mounts]
        return tomli_w.dumps(document)

    @classmethod
    def from_toml(cls, text: str) -> Scenario:
        """Read a scenario from TOML.

        Parameters
        ----------
        text : str
            Keys: machine, mounts, scheme, and if wanted quota, waiting, label.

        Returns
        -------
        Scenario
            The scenario.

        Raises
        ------
        BadInput
            One line for the first key that is unknown, missing or wrong.
        """
        return cls.from_table(read_toml(text))

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Scenario:
        """Make a scenario from the tables of a TOML file.

        Parameters
        ----------
        table : mapping
            What `tomllib` reads from a scenario file.

        Returns
        -------
        Scenario
            The scenario.
        """
        check_keys("", table, {"machine", "mounts", "scheme"}, {"quota", "waiting", "label"})
        mounts = table["mounts"]
        if not isinstance(mounts, list):
            raise BadInput("mounts", f"{mounts!r} is not a list", "write [[mounts]] tables")
        return cls(
            machine=machine_from_table(table["machine"]),
            mounts=tuple(
                _in(f"mounts[{i}]", mount_from_table, mount) for i, mount in enumerate(mounts)
            ),
            scheme=_in("scheme", scheme_from_table, _with_mark(table["scheme"], table["machine"])),
            quota=table.get("quota", 1),
            waiting=table.get("waiting", "asleep"),
            label=table.get("label", ""),
        )


def _canonical_mount(mount: Mount) -> dict[str, Any]:
    filesystem = mount.filesystem
    program: list[list[Any]] = []
    for step in filesystem.program:
        detail = [list(pair) for pair in step.demand] if step.verb == "alloc" else step.lock
        program.append([step.verb, detail])
    below: dict[str, Any] = {"on": mount.on}
    if mount.device is not None:
        below = {"device": {f.name: getattr(mount.device, f.name) for f in fields(Device)}}
    return {
        "program": program,
        "nr_pages": filesystem.nr_pages,
        "backs_out": filesystem.backs_out,
        "flushers": mount.flushers,
        "dirtiers": mount.dirtiers,
        **below,
    }


def _mount_table(mount: Mount) -> dict[str, Any]:
    canonical = _canonical_mount(mount)
    canonical["program"] = [str(step) for step in mount.filesystem.program]
    return {"name": mount.filesystem.name, **canonical}


def scheme_table(scheme: Scheme) -> dict[str, Any]:
    """A scheme as the TOML table that `scheme_from_table` reads back.

    Parameters
    ----------
    scheme : Scheme
        The scheme.

    Returns
    -------
    dict
        Its variant where it is a named row, its five choices where it is not.
    """
    numbers = {"reserve": scheme.reserve, "max_sections": scheme.max_sections}
    given = {key: value for key, value in numbers.items() if value is not None}
    if scheme.family != "custom":
        words = [word for word in scheme.variant.split() if "=" not in word]
        return {"variant": " ".join(words), **given}
    choices = {key: getattr(scheme, key) for key in ("start", "entry", "exit", "returns")}
    return {**choices, "grants": list(scheme.grants), **given}


def read_toml(text: str) -> dict[str, Any]:
    """Parse TOML, with the package's error for what does not parse.

    Parameters
    ----------
    text : str
        A TOML document.

    Returns
    -------
    dict
        Its tables.

    Raises
    ------
    BadInput
        If it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput("file", f"not TOML: {error}", "see data/grids/demo.toml") from None


def check_keys(
    where: str, table: object, required: set[str], optional: set[str]
) -> Mapping[str, Any]:
    """Return a table; refuse one with a key that is unknown or missing.

    Parameters
    ----------
    where : str
        The table's own key, empty for the whole file.
    table : object
        What was read.
    required, optional : set of str
        The keys it must and may have.

    Returns
    -------
    mapping
        The table.

    Raises
    ------
    BadInput
        Naming the first such key.
    """
    known = ", ".join(sorted(required | optional))
    if not isinstance(table, Mapping):
        raise BadInput(where or "file", f"{table!r} is not a table", f"its keys are {known}")
    prefix = f"{where}." if where else ""
    for key in table:
        if key not in required | optional:
            raise BadInput(f"{prefix}{key}", "unknown key", f"the keys are {known}")
    for key in sorted(required):
        if key not in table:
            raise BadInput(f"{prefix}{key}", "missing", "it has no default")
    return table


def _in(where: str, read: Callable[[Any], _T], table: object) -> _T:
    """Read a part of a file; an error names the key from the top of the file."""
    try:
        return read(table)
    except BadInput as error:
        raise within(where, error) from None


def _machine(table: object) -> Machine:
    optional = {f.name for f in fields(Machine)} - {"pages"}
    return Machine(**check_keys("", table, {"pages"}, optional))


def _device(table: object) -> Device:
    return Device(**check_keys("", table, set(), {f.name for f in fields(Device)}))


def machine_from_table(table: object) -> Machine:
    """Read a machine: a table of its numbers, or the name of a preset.

    Parameters
    ----------
    table : mapping or str
        Keys pages, dirty, oom_kills, pages_per_kill; or a name of data/machines.toml.

    Returns
    -------
    Machine
        The machine.
    """
    if isinstance(table, str):
        from reservelab.model.catalogue import machines

        return _in("machine", lambda name: machines[name].machine, table)
    return _in("machine", _machine, table)


def mount_from_table(table: object) -> Mount:
    """Read a mount.

    Parameters
    ----------
    table : mapping
        ``filesystem`` (a catalogue name) or ``name`` and ``program``; then flushers, dirtiers,
        device, on, and nr_pages, backs_out to overrule the filesystem's.

    Returns
    -------
    Mount
        The mount.
    """
    own = {"nr_pages", "backs_out"}
    rest = {"flushers", "dirtiers", "device", "on"}
    table = check_keys("", table, set(), {"filesystem", "name", "program"} | own | rest)
    given = {key: table[key] for key in own if key in table}
    if "filesystem" in table:
        from reservelab.model.catalogue import filesystems

        if "program" in table or "name" in table:
            raise BadInput("filesystem", "beside name or program", "give one or the other")
        entry = filesystems[table["filesystem"]]
        settings = {"nr_pages": entry.nr_pages, "backs_out": entry.backs_out} | given
        filesystem = Filesystem(entry.name, entry.program, device=entry.device, **settings)
    elif "program" in table:
        name = table.get("name", "unnamed")
        filesystem = Filesystem.from_text(name, table["program"], **given)
    else:
        raise BadInput("filesystem", "missing", "give a catalogue name, or a program")
    device = table.get("device")
    if device is not None:
        device = _in("device", _device, device)
    return Mount(
        filesystem, table.get("flushers", 0), table.get("dirtiers", 0), device, table.get("on")
    )


def has_mark(table: Mapping[str, Any]) -> bool:
    """Whether a scheme's table is of one that starts with a mark.

    Parameters
    ----------
    table : mapping
        With a variant, or with choices.

    Returns
    -------
    bool
        True too if the rest of it is wrong.
    """
    words = str(table.get("variant", "")).split()
    return words[:1] == ["watermark"] or table.get("start") == "mark"


def _with_mark(scheme: object, machine: object) -> object:
    """A scheme's table; a mark that is not given is that of the machine preset."""
    table = {"variant": scheme} if isinstance(scheme, str) else scheme
    if not isinstance(machine, str) or not isinstance(table, Mapping) or "reserve" in table:
        return scheme
    if not has_mark(table):
        return scheme
    from reservelab.model.catalogue import machines

    return {**table, "reserve": machines[machine].reserve}


def scheme_from_table(table: object) -> Scheme:
    """Read a scheme: a variant's name, a table with one, or the five choices.

    Parameters
    ----------
    table : mapping or str
        ``"global on-entry"``; or keys variant, reserve, max_sections; or start, entry, grants,
        exit, returns, reserve, max_sections.

    Returns
    -------
    Scheme
        The scheme.
    """
    if isinstance(table, str):
        return Scheme.named(table)
    numbers = {"reserve", "max_sections"}
    if isinstance(table, Mapping) and "variant" in table:
        check_keys("", table, {"variant"}, numbers)
        return Scheme.named(table["variant"], table.get("reserve"), table.get("max_sections"))
    choices = {f.name for f in fields(Scheme)} - numbers
    return Scheme(**check_keys("", table, set(), choices | numbers | {"variant"}))
