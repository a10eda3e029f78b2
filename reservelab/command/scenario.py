"""A scenario from a file, from options, or from both."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reservelab.command.parser import add_number
from reservelab.model.catalogue import machines, mixes, stacks
from reservelab.model.errors import BadInput
from reservelab.model.machine import Machine
from reservelab.model.scenario import Scenario, has_mark, read_toml
from reservelab.model.schemes import Scheme


def add_scenario(verb: argparse._ArgumentGroup) -> None:
    """Add a scenario file and the options that overrule it."""
    told = "a file; options beside it overrule what it says"
    verb.add_argument("scenario", nargs="?", metavar="SCENARIO.toml", help=told)
    told = 'such as mempool, "perthread whole", "global on-entry"'
    verb.add_argument("--scheme", metavar="NAME", help=told)
    add_number(verb, "--reserve", 0, "pages the scheme sets aside")
    add_number(verb, "--max-sections", 1, "enter only while fewer threads are inside")
    told = "FS:FLUSHERS[:DIRTIERS][,on=I], again for each mount; on I"
    verb.add_argument("--mount", action="append", metavar="MOUNT", help=told)
    told = "a mix or stack of the catalogue, such as desktop_2004"
    verb.add_argument("--mix", metavar="NAME", help=told)
    add_number(verb, "--threads", 1, "flushers to spread over the mix")
    add_number(verb, "--pages", 0, "free pages at the start, the reserve among them")
    told = "pages and watermark of a real machine, such as 2.6.9-64MB"
    verb.add_argument("--machine", metavar="NAME", help=told)
    add_number(verb, "--dirty", 0, "dirty page-cache pages that come on top")
    add_number(verb, "--oom-kills", 0, "how often the OOM killer may act")
    add_number(verb, "--pages-per-kill", 0, "pages it sets free each time")
    add_number(verb, "--quota", 1, "writepages of each thread")
    verb.add_argument("--waiting", metavar="RULE", help="asleep (in queues) or racing")


def read_scenario(options: argparse.Namespace) -> Scenario:
    """Lay the options over the tables of the file and read them like one."""
    table = {} if options.scenario is None else read_toml(read_text(options.scenario))
    mounts = _mounts(options)
    if mounts is not None:
        table["mounts"] = mounts
        table["label"] = options.mix or ""
    table |= _given(quota=options.quota, waiting=options.waiting)
    preset = None if options.machine is None else _named("--machine", machines, options.machine)
    if preset is not None and options.pages is not None:
        raise BadInput("--pages", "beside --machine, which says how many", "give one of them")
    numbers = _given(
        pages=options.pages if preset is None else preset.machine.pages,
        dirty=options.dirty,
        oom_kills=options.oom_kills,
        pages_per_kill=options.pages_per_kill,
    )
    if numbers:
        table["machine"] = _overlaid_machine(table.get("machine", {}), numbers)
    scheme = _overlaid_scheme(table.get("scheme"), options)
    if preset is not None and isinstance(scheme, dict) and has_mark(scheme):
        scheme = {"reserve": preset.reserve} | scheme
    table |= _given(scheme=scheme)
    if options.scenario is None:
        for key, option, example in (
            ("scheme", "--scheme", "perthread"),
            ("mounts", "--mount", "ext3:8"),
            ("machine", "--pages", "64"),
        ):
            if key not in table:
                raise BadInput(option, "missing", f"give {option} {example}, or a scenario file")
    return Scenario.from_table(table)


def _given(**values: Any) -> dict[str, Any]:  # noqa: ANN401
    return {key: value for key, value in values.items() if value is not None}


def read_text(name: str) -> str:
    """The text of a TOML file that a user named."""
    try:
        text = Path(name).read_text(encoding="utf-8")
        read_toml(text)
    except BadInput as error:
        raise BadInput(name, error.wrong, error.right) from None
    except (UnicodeDecodeError, RecursionError):
        raise BadInput(name, "is not TOML", "see data/grids/demo.toml") from None
    return text


def _named(option: str, catalogue: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401
    try:
        return catalogue[name]
    except BadInput as error:
        raise BadInput(option, error.wrong, error.right) from None


def _mounts(options: argparse.Namespace) -> list[dict[str, Any]] | None:
    if options.mix is None:
        if options.threads is not None:
            raise BadInput("--threads", "without --mix", "give --mix NAME, or --mount FS:FLUSHERS")
        return None if options.mount is None else [_mount(text) for text in options.mount]
    if options.mount is not None:
        raise BadInput("--mount", "beside --mix", "give one of them")
    if options.threads is None:
        raise BadInput("--threads", "missing beside --mix", "say how many flushers to spread")
    catalogue = stacks if options.mix in stacks else mixes
    return [
        {"filesystem": mount.filesystem.name} | _given(flushers=mount.flushers, on=mount.on)
        for mount in _named("--mix", catalogue, options.mix).mounts(options.threads)
    ]


def _mount(text: str) -> dict[str, Any]:
    """Read a mount as people type it: ext3:8, ext3:8:2, loop_ext3:8,on=1."""
    found = re.fullmatch(r"([^:,]+)(?::([0-9]+))?(?::([0-9]+))?(?:,on=([0-9]+))?", text)
    if found is None:
        right = "write FS:FLUSHERS[:DIRTIERS][,on=I], such as ext3:8"
        raise BadInput("--mount", f"{text!r} is not a mount", right)
    flushers, dirtiers, on = (None if n is None else int(n[:20]) for n in found.groups()[1:])
    return {"filesystem": found[1]} | _given(flushers=flushers, dirtiers=dirtiers, on=on)


def _overlaid_machine(machine: object, numbers: dict[str, int]) -> object:
    if isinstance(machine, str):
        preset: Machine = machines[machine].machine
        machine = vars(preset)
    # What is neither a name nor a table is for the reader of the whole to refuse.
    return machine | numbers if isinstance(machine, dict) else machine


def _overlaid_scheme(scheme: object, options: argparse.Namespace) -> object:
    numbers = _given(reserve=options.reserve, max_sections=options.max_sections)
    limited = "max-sections="
    if options.scheme is not None:
        if options.max_sections is not None and limited in options.scheme:
            raise BadInput("--max-sections", f"beside {options.scheme!r}", "say it once")
        # An option overrules what it names and nothing else: the numbers stay, if they have a use.
        old = scheme if isinstance(scheme, dict) else {}
        kept = {key: old[key] for key in ("reserve", "max_sections") if key in old}
        if limited in options.scheme:
            kept.pop("max_sections", None)
        numbers = {key: kept[key] for key in kept if _takes(options.scheme, key)} | numbers
        scheme = options.scheme
    if isinstance(scheme, str):
        scheme = {"variant": scheme}
    if not isinstance(scheme, dict):
        return scheme
    if "max_sections" in numbers and isinstance(variant := scheme.get("variant"), str):
        words = (word for word in variant.split() if not word.startswith(limited))
        scheme = scheme | {"variant": " ".join(words)}
    return scheme | numbers


def _takes(variant: str, key: str) -> bool:
    """Whether a scheme has a number; it may lack another one."""
    try:
        Scheme.named(variant, **{key: 1})
    except BadInput as error:
        if error.key == "scheme":
            raise
        return error.key != key
    return True
