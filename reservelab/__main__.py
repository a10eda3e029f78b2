"""The command line: reads what was asked for, calls the package, prints what it returns.

Results go to standard output, everything else to standard error; a progress bar is drawn only
where that is a terminal. Exit codes: 0; 2 for bad input, with one line that says which key is
wrong; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from reservelab.model.catalogue import data_folder, machines, mixes, stacks
from reservelab.model.errors import BadInput, whole_number
from reservelab.model.machine import Machine
from reservelab.model.scenario import RULES_VERSION, Scenario, has_mark, read_toml
from reservelab.model.schemes import Scheme

if TYPE_CHECKING:
    import pandas as pd

    from reservelab.study.sweep import Goal, Progress

# The engine takes seconds to import: each verb imports what it needs, so that help and bad input
# are answered at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after the program's name; those of this process unless given.

    Returns
    -------
    int
        The exit code.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        try:
            return _run(words)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at the end, and would say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader has had enough, which is no error
            return 0
        return _complain(f"output: {error.strerror or error}; give a place that can be written to")


def _run(words: Sequence[str]) -> int:
    options = argparse.Namespace()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = held = _Warnings(warnings.showwarning)
        try:
            parser().parse_args(words, options)
            code: int | None = options.run(options, _Bar(held))
        except BadInput as error:
            _complain(f"{_as_typed(error.key, options)}: {error.wrong}; {error.right}")
            return 3 if error.undecided and options.run is _prove else 2
        except OSError as error:
            if error.filename is None:  # it is about what is printed
                raise
            return _complain(f"{error.filename}: {error.strerror}; give one that can be used")
        except MemoryError:
            return _complain("memory: there is not enough; give fewer threads, mounts or pages")
        except KeyboardInterrupt as stop:
            held.release()
            kept = stop.args[0] if stop.args else "nothing was kept"
            _tell(f"reservelab: interrupted; {kept}")
            return 130
        held.release()
    return code or 0


def _complain(line: str) -> int:
    _tell(f"reservelab: {' '.join(line.split())}")
    return 2


def _tell(line: str) -> None:
    if sys.stderr is not None:  # print would take None for standard output
        print(line, file=sys.stderr)


class _Warnings:
    """Shows each of the package's warnings once, in one line; none if all ends as bad input."""

    def __init__(self, usual: Callable[..., None]) -> None:
        self._usual = usual
        self._held: dict[str, bool] = {}  # whether a line was shown

    def __call__(
        self, message: Warning | str, category: type[Warning], *where: Any, **more: Any  # noqa: ANN401
    ) -> None:  # fmt: skip
        if issubclass(category, UserWarning):
            self._held.setdefault(" ".join(str(message).split()), False)
        else:
            self._usual(message, category, *where, **more)

    def release(self) -> None:
        for line, shown in self._held.items():
            if not shown:
                _tell(f"warning: {line}")
        self._held = dict.fromkeys(self._held, True)


class _Bar:
    """Progress with the time left, drawn on standard error if that is a terminal.

    A context manager; the first call of `add` or `follow` lets go the warnings held back.
    """

    def __init__(self, held: _Warnings) -> None:
        self._held = held
        self._tqdm: Any = None

    def __call__(self, words: str, total: int | None = None, unit: str = "") -> _Bar:
        """Set what is said before the first progress, what is counted and how many there are."""
        from tqdm import tqdm

        shape = None  # tqdm's own, which counts and guesses the time left
        if not unit:
            shape = "{desc}" if total is None else "{percentage:3.0f}%|{bar:20}| {desc}"
        terminal = sys.stderr is not None and sys.stderr.isatty()
        # A terminal that does not know its size says 0, and tqdm would fit the bar into that.
        columns, lines = os.get_terminal_size(sys.stderr.fileno()) if terminal else (0, 0)
        self._tqdm = tqdm(
            desc=words,
            total=total,
            unit=f" {unit}",
            bar_format=shape,
            ncols=columns or 80,
            nrows=lines or 24,
            leave=False,
            disable=not terminal,
        )
        return self

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._tqdm.close()

    def add(self, done: int) -> None:
        """Count on."""
        self._release()
        if not self._tqdm.n:
            self._tqdm.set_description_str("", refresh=False)
            self._tqdm.unpause()  # the time left is guessed without the time for compiling
        self._tqdm.update(done)

    def follow(self, progress: Progress) -> None:
        """Show how far a sweep is, by its own estimate of the time left."""
        self._release()
        self._tqdm.n, self._tqdm.total = progress.done, progress.total
        if progress.eta is not None:
            minutes, seconds = divmod(round(progress.eta), 60)
            self._tqdm.set_description_str(
                f"{progress.scenarios_done} of {progress.scenarios} scenarios,"
                f" {progress.done} of {progress.total} batches, {minutes}:{seconds:02} left",
                refresh=False,
            )
        self._tqdm.refresh()

    def explore(self, processed: int, found: int) -> None:
        """Show how many states there are so far; nobody knows how many there will be."""
        self._release()
        self._tqdm.set_description_str(f"{processed} of {found} states so far")

    def _release(self) -> None:
        self._tqdm.clear()
        self._held.release()


def _as_typed(key: str, options: argparse.Namespace) -> str:
    """The option that a key of a scenario came from, where it came from one."""
    mount = re.match(r"mounts(?:\[(\d+)\])?", key)
    typed = getattr(options, "mount", None)
    if mount and typed:
        return f"--mount {typed[int(mount[1])]}" if mount[1] else "--mount"
    name = key.rpartition(".")[2]
    given = name not in ("scenario", "mount", "store") and getattr(options, name, None) is not None
    return f"--{name.replace('_', '-')}" if given else key


# --- The parser ----------------------------------------------------------------------------------


class _Format(argparse.RawDescriptionHelpFormatter):
    """Help of one width everywhere, so that what fits one screen in a test does."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=22, width=79)


class _Parser(argparse.ArgumentParser):
    """A parser that complains in one line and prints no colour."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(allow_abbrev=False, formatter_class=_Format, **settings)
        self.color = False  # Python 3.14 colours help unless told not to

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse strangers here, where the verb is known and the options it has."""
        found, strangers = super().parse_known_args(args, namespace)
        if strangers:
            known = {name.lstrip("-"): name for name in self._option_string_actions}
            near = difflib.get_close_matches(strangers[0].lstrip("-"), known, n=1)
            right = f"did you mean {known[near[0]]}?" if near else f"see {self.prog} --help"
            self.error(f"{strangers[0]}: not understood; {right}")
        return found, []

    def error(self, message: str) -> NoReturn:
        """Say in the form `key: wrong; right` what is wrong, and exit."""
        missing = re.fullmatch("the following arguments are required: (.*)", message)
        line = f"{missing[1]}: missing" if missing else message.removeprefix("argument ")
        self.exit(_complain(line if "; " in line else f"{line}; see {self.prog} --help"))


class _Version(argparse.Action):
    """Prints the versions; the package is asked only when somebody wants to know."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from reservelab import __version__

        print(f"reservelab {__version__}, rules {RULES_VERSION}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line.

    Returns
    -------
    ArgumentParser
        With a subparser for each verb, whose default `run` does its work.
    """
    top = _Parser(
        prog="reservelab",
        usage="reservelab [-h] [--version] VERB ...",
        description="Reservation schemes for writeback under memory pressure: simulated, solved,\n"
        "compared. `reservelab VERB --help` explains a verb.",
    )
    told = "print the versions of package and rules"
    top.add_argument("--version", action=_Version, nargs=0, help=told)
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)

    simulate = _verb(
        verbs, "simulate", "[SCENARIO.toml]", "run episodes of one scenario and add them up",
        "--scheme global --mount ext3:8 --pages 12", _simulate,
    )  # fmt: skip
    _add_scenario(simulate)
    _add_number(simulate, "--episodes", 1, "how many", 10_000)
    _add_number(simulate, "--seed", 0, "the same seed gives the same result", 1)
    _add_number(simulate, "--workers", 1, "threads to compute with (all processors)")
    _add_json(simulate)

    trace = _verb(
        verbs, "trace", "[SCENARIO.toml]", "tell one episode step by step",
        "--scheme global --mount ext3:3 --pages 12 --episode 76", _trace,
    )  # fmt: skip
    _add_scenario(trace)
    _add_number(trace, "--episode", 0, "which one, counted from 0", 0)
    _add_number(trace, "--seed", 0, "that of the simulation the episode is from", 1)
    _add_json(trace)

    exact = _verb(
        verbs, "exact", "[SCENARIO.toml]", "solve a scenario by enumerating its states",
        "--scheme global --mount ext3:3 --pages 12", _exact,
    )  # fmt: skip
    _add_scenario(exact)
    _add_number(exact, "--limit", 1, "the most states to store", 20_000_000)
    _add_json(exact)

    prove = _verb(
        verbs, "prove", "[SCENARIO.toml]", "prove that no deadlock is reachable, or show one",
        '--scheme "global on-entry" --mount ext3:3 --pages 12', _prove,
    )  # fmt: skip
    _add_scenario(prove)
    told = "threads start over for ever, whatever their quota"
    prove.add_argument("--unbounded", action="store_true", help=told)
    _add_number(prove, "--limit", 1, "the most states to store", 20_000_000)
    _add_json(prove)

    export = _verb(
        verbs, "export", "--prism [SCENARIO.toml]", "write a scenario for a model checker",
        "--prism --scheme tickets --mount ext3:2 --pages 12", _export,
    )  # fmt: skip
    _add_scenario(export)
    told = "guarded commands in the language of PRISM, which Storm reads too"
    export.add_argument("--prism", action="store_true", help=told)

    sweep = _verb(
        verbs, "sweep", "GRID.toml", "run every scenario of a grid, stored as it runs",
        "demo --store results/demo", _sweep,
    )  # fmt: skip
    told = "a file, or the name of one in data/grids, such as demo"
    sweep.add_argument("grid", metavar="GRID.toml", help=told)
    told = "where results are kept, and a sweep goes on (results/NAME)"
    sweep.add_argument("--store", metavar="DIR", help=told)
    goals = sweep.add_mutually_exclusive_group()
    _add_number(goals, "--episodes", 1, "of each scenario", 4_000)
    told = "until the risk is known to this share of it, such as 0.1"
    goals.add_argument("--precision", type=_share, metavar="X", help=told)
    _add_number(sweep, "--seed", 0, "the same seed gives the same results", 1)
    _add_number(sweep, "--workers", 1, "threads to compute with (all processors)")
    told = "a Dask cluster to use instead, such as tcp://host:8786"
    sweep.add_argument("--scheduler", metavar="WHERE", help=told)
    _add_json(sweep)

    fit = _verb(
        verbs, "fit", "STORE", "fit risk, idle pages and throughput to a stored sweep",
        "results/demo", _fit,
    )  # fmt: skip
    fit.add_argument("store", metavar="STORE", help="what `reservelab sweep --store` made")
    _add_json(fit)

    figures = _verb(
        verbs, "figures", "STORE", "draw a stored sweep, and what was fitted to it",
        "results/demo --output results/figures", _figures,
    )  # fmt: skip
    figures.add_argument("store", metavar="STORE", help="what `reservelab sweep --store` made")
    told = "directory for the figures and the table (STORE/figures)"
    figures.add_argument("--output", metavar="DIR", help=told)
    _add_json(figures)
    return top


def _verb(
    verbs: Any,  # noqa: ANN401 - argparse has no public name for it
    name: str, takes: str, does: str, example: str,
    run: Callable[[argparse.Namespace, _Bar], int | None],
) -> argparse._ArgumentGroup:  # fmt: skip
    made = verbs.add_parser(
        name,
        help=does,
        usage=f"reservelab {name} [-h] {takes} [options]",
        description=f"{does[0].upper()}{does[1:]}, for example\n  reservelab {name} {example}",
        add_help=False,
    )
    made.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    made.set_defaults(run=run)
    # A group without a title, hence without headings: so the options of a scenario fit one screen.
    group: argparse._ArgumentGroup = made.add_argument_group()
    return group


def _add_number(
    verb: argparse._ActionsContainer, name: str, least: int, told: str, default: int | None = None
) -> None:
    told = told if default is None else f"{told} ({default})"
    verb.add_argument(name, type=_number(least), default=default, metavar="N", help=told)


def _number(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            return whole_number("", int(text), least)
        except BadInput as error:
            raise argparse.ArgumentTypeError(f"{error.wrong}; {error.right}") from None
        except ValueError:
            wrong = f"{text!r} is not a whole number; give an integer of at least {least}"
            raise argparse.ArgumentTypeError(wrong) from None

    return read


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no share; give a number between 0 and 1")


def _add_json(verb: argparse._ArgumentGroup) -> None:
    verb.add_argument("--json", action="store_true", help="print one JSON document instead")


# --- A scenario, from a file, from options, or from both -----------------------------------------


def _add_scenario(verb: argparse._ArgumentGroup) -> None:
    told = "a file; options beside it overrule what it says"
    verb.add_argument("scenario", nargs="?", metavar="SCENARIO.toml", help=told)
    told = 'such as mempool, "perthread whole", "global on-entry"'
    verb.add_argument("--scheme", metavar="NAME", help=told)
    _add_number(verb, "--reserve", 0, "pages the scheme sets aside")
    _add_number(verb, "--max-sections", 1, "enter only while fewer threads are inside")
    told = "FS:FLUSHERS[:DIRTIERS][,on=I], again for each mount; on I"
    verb.add_argument("--mount", action="append", metavar="MOUNT", help=told)
    told = "a mix or stack of the catalogue, such as desktop_2004"
    verb.add_argument("--mix", metavar="NAME", help=told)
    _add_number(verb, "--threads", 1, "flushers to spread over the mix")
    _add_number(verb, "--pages", 0, "free pages at the start, the reserve among them")
    told = "pages and watermark of a real machine, such as 2.6.9-64MB"
    verb.add_argument("--machine", metavar="NAME", help=told)
    _add_number(verb, "--dirty", 0, "dirty page-cache pages that come on top")
    _add_number(verb, "--oom-kills", 0, "how often the OOM killer may act")
    _add_number(verb, "--pages-per-kill", 0, "pages it sets free each time")
    _add_number(verb, "--quota", 1, "writepages of each thread")
    verb.add_argument("--waiting", metavar="RULE", help="asleep (in queues) or racing")


def _scenario(options: argparse.Namespace) -> Scenario:
    """Lay the options over the tables of the file and read them like one."""
    table = {} if options.scenario is None else read_toml(_read_text(options.scenario))
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


def _read_text(name: str) -> str:
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


# --- The verbs -----------------------------------------------------------------------------------

_STARTING = "starting (the first time: compiling)"


def _simulate(options: argparse.Namespace, bar: _Bar) -> None:
    scenario = _scenario(options)
    from reservelab.solve.simulate import simulate

    with bar(_STARTING, options.episodes, "episodes"):
        tally = simulate(
            scenario,
            options.episodes,
            options.seed,
            options.workers,
            progress=lambda part: bar.add(part.episodes),
        )
    if options.json:
        sets = tally.dead_by_reasons.items()
        dead = [{"waiting_for": names, "deadlocks": number} for names, number in sets]
        more = {"event_limit": tally.event_limit, "dead_by_reasons": dead}
        _print_json(tally.row() | more | {"scenario": scenario.canonical()})
    else:
        print(f"{tally}\n\nseed {options.seed}, scenario {scenario.digest}")


def _trace(options: argparse.Namespace, bar: _Bar) -> None:
    scenario = _scenario(options)
    from reservelab.solve.trace import trace

    _warn(scenario)
    with bar(_STARTING):
        story = trace(scenario, options.seed, options.episode)
    if options.json:
        head = {"digest": scenario.digest, "rules": RULES_VERSION}
        names = ["seed", "episode", "ending", "reasons", "threads", "duration"]
        names += ["writepages", "redirtied", "oom_kills"]
        head |= {name: getattr(story, name) for name in names}
        head |= {name: [w._asdict() for w in getattr(story, name)] for name in ("waits", "cycle")}
        _print_json(head | {"steps": _records(story.frame()), "scenario": scenario.canonical()})
    else:
        print(story)


def _exact(options: argparse.Namespace, bar: _Bar) -> None:
    scenario = _scenario(options)
    from reservelab.solve.exact import exact

    _warn(scenario)
    with bar(_STARTING):
        result = exact(scenario, options.limit, bar.explore)
    print(result.to_json() if options.json else result)


def _prove(options: argparse.Namespace, bar: _Bar) -> int:
    scenario = _scenario(options)
    from reservelab.solve.prove import prove

    _warn(scenario)
    with bar(_STARTING):
        quota: Literal["own", "unbounded"] = "unbounded" if options.unbounded else "own"
        result = prove(scenario, quota, options.limit, bar.explore)
    print(result.to_json() if options.json else result)
    return 0 if result.safe else 1


def _export(options: argparse.Namespace, bar: _Bar) -> None:  # noqa: ARG001 - nothing takes long
    scenario = _scenario(options)
    from reservelab.solve.export import prism

    if not options.prism:
        raise BadInput("--prism", "missing", "it is the one form there is to export to")
    _warn(scenario)
    print(prism(scenario), end="")


def _warn(scenario: Scenario) -> None:
    for line in scenario.warnings:
        warnings.warn(line, stacklevel=2)


def _sweep(options: argparse.Namespace, bar: _Bar) -> None:
    from reservelab.study.grid import Grid
    from reservelab.study.results import summary
    from reservelab.study.sweep import Episodes, Precision, sweep

    grid = Grid.from_toml(_grid_text(options.grid))
    store = Path(options.store or Path("results") / Path(options.grid).stem)
    goal: Goal = Episodes(options.episodes)
    if options.precision is not None:
        goal = Precision(options.precision)
    last: list[Progress] = []

    def show(progress: Progress) -> None:
        last[:] = [progress]
        bar.follow(progress)

    try:
        with contextlib.ExitStack() as stack:
            client = options.scheduler and stack.enter_context(_client(options.scheduler))
            stack.enter_context(bar(_STARTING, total=1))
            table = sweep(grid, goal, store, options.seed, options.workers, client, show)
    except KeyboardInterrupt:
        if not last:
            raise KeyboardInterrupt(f"nothing was added to {store}") from None
        share = 100 * last[0].done // max(1, last[0].total)
        kept = f"what is done, {share} %, is kept in {store}; the same command goes on from there"
        raise KeyboardInterrupt(kept) from None
    about = {"store": str(store), "seed": options.seed, "goal": str(goal)} | summary(grid, table)
    if options.json:
        _print_json(about)
    else:
        print(_swept(about))


def _grid_text(name: str) -> str:
    """The text of a grid file, or of one that comes with the package by its bare name."""
    path = Path(name)
    shipped = data_folder() / "grids" / f"{name}.toml"
    if not path.exists() and path.name == name and shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    return _read_text(name)


def _client(address: str) -> Any:  # noqa: ANN401 - dask ships no types
    try:
        from distributed import Client
    except ModuleNotFoundError:
        right = "install reservelab with its extra: reservelab[cluster]"
        raise BadInput("--scheduler", "Dask is not installed", right) from None
    try:
        client = Client(address, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        wrong = f"no scheduler answers at {address} ({error})"
        raise BadInput("--scheduler", wrong, "give one such as tcp://host:8786") from None
    if not client.nthreads():  # type: ignore[no-untyped-call]
        _tell(f"{address}: no worker yet; waiting for one")
    return client


def _swept(about: Mapping[str, Any]) -> str:
    head = f"{'cells':>6}{'never':>7}{'always':>7}{'deadlocks':>10}"
    lines = [f"{'':41}{'waiting':8}{head}"]
    for row in about["variants"]:
        numbers = f"{row['cells']:6}{row['never_deadlocked']:7}{row['always_deadlocked']:7}"
        lines.append(f"{row['variant']:41}{row['waiting']:8}{numbers}{row['deadlocks']:10}")
    lines.append("never, always: cells in which no episode, every episode deadlocked")
    lines += ["", f"{about['scenarios']} scenarios, {about['episodes']} episodes"]
    if about["left_out"]:
        lines[-1] += f"; {len(about['left_out'])} cells left out: the machine is too small"
    lines.append(f"seed {about['seed']}, rules {about['rules']}, {about['goal']}")
    lines += [f"grid {about['digest']}", f"results are in {about['store']}"]
    return "\n".join(lines)


def _fit(options: argparse.Namespace, bar: _Bar) -> None:
    from reservelab.study.fits import fit
    from reservelab.study.results import Store

    store = Store(options.store)
    frame = store.frame()
    with bar("fitting: some seconds for each scheme"):
        fits = fit(frame)
    file = store.path / "fits.json"
    fits.save(file)
    if options.json:
        tables = {"coefficients": _records(fits.frame()), "goodness": _records(fits.goodness())}
        _print_json({"store": options.store, "file": str(file)} | tables)
    else:
        print(f"{fits}\n\nthe fits are in {file}")


def _figures(options: argparse.Namespace, bar: _Bar) -> None:
    from reservelab.show.text import table
    from reservelab.study.fits import Fits
    from reservelab.study.results import Store

    store = Store(options.store)
    frame = store.frame()
    try:
        from reservelab.show.figures import draw_all
    except ModuleNotFoundError as error:
        right = "install reservelab with its extra: reservelab[figures]"
        raise BadInput("figures", f"{error.name} is not installed", right) from None
    file = store.path / "fits.json"
    fits = Fits.load(file) if file.exists() else None
    if fits is None:
        line = f"{file}: not there, so no fit is drawn; `reservelab fit` makes it"
        warnings.warn(line, stacklevel=1)
    elif any(part.stat().st_mtime > file.stat().st_mtime for part in store.path.glob("part-*")):
        line = f"{file}: older than the results, but drawn; `reservelab fit` makes it anew"
        warnings.warn(line, stacklevel=1)
    output = Path(options.output or store.path / "figures")
    command = f"reservelab figures {options.store} --output {output}"
    with bar("drawing: about a second for each figure"):
        files = draw_all(frame, fits, output, command=command)
    text = table(frame)
    files.append(output / "table.txt")
    files[-1].write_text(text, encoding="ascii")
    if options.json:
        _print_json({"store": options.store, "files": [str(path) for path in files]})
    else:
        print("\n".join([text, *map(str, files)]))


# --- What is printed -----------------------------------------------------------------------------


def _print_json(document: Mapping[str, Any]) -> None:
    print(json.dumps(_plain(document), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever stands in a result
    """A result as JSON can hold it; a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # numpy's numbers
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _records(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    return frame.to_dict("records")


if __name__ == "__main__":
    sys.exit(main())
