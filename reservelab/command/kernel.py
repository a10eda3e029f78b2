"""The verb that asks a real kernel."""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reservelab.command.parser import add_json, add_number, add_verb
from reservelab.command.scenario import read_text
from reservelab.command.solve import warn
from reservelab.command.terminal import STARTING, Bar, print_json, records
from reservelab.model.catalogue import data_folder
from reservelab.model.errors import BadInput
from reservelab.model.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

_ACTIONS = ("build", "run", "compare", "show", "exhaust")


def add_verbs(verbs: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the parser of this verb."""
    kernel = add_verb(
        verbs, "kernel", "ACTION [FILE.toml]",
        "run the proposal in a real Linux, held against the model",
        "run data/scenarios/abba.toml --trials 1000", _kernel, undecided=3,
    )  # fmt: skip
    told = "build the patched kernel; run a scenario in it; compare a set; show one deadlock twice;"
    told += " exhaust the memory of ext4 under each scheme"
    kernel.add_argument("action", choices=_ACTIONS, metavar="ACTION", help=told)
    told = "run, show: a scenario; compare: a set of them (data/kernel/eight.toml)"
    kernel.add_argument("file", nargs="?", metavar="FILE.toml", help=told)
    add_number(kernel, "--trials", 1, "how many, of each scenario", 1000)
    add_number(kernel, "--seed", 0, "the same seed gives the same trials", 1)
    told = "run, compare: ask lockdep too, and say what it reports"
    kernel.add_argument("--lockdep", action="store_true", help=told)
    told = "compare, exhaust: the table as CSV, too"
    kernel.add_argument("--output", metavar="CSV", help=told)
    add_number(kernel, "--boots", 1, "exhaust: how many of each kind", 5)
    told = "exhaust: marks, disks and hogs to try, as late,loop (all)"
    kernel.add_argument("--only", metavar="WORD,...", help=told)
    told = "build: Debian's archive of the source (that of the package)"
    kernel.add_argument("--source", metavar="TAR", help=told)
    add_number(kernel, "--jobs", 1, "build, exhaust: how many at a time (all processors)")
    add_json(kernel)


def _kernel(options: argparse.Namespace, bar: Bar) -> int | None:
    actions = {
        "build": _build, "run": _run, "compare": _compare, "show": _show, "exhaust": _exhaust
    }  # fmt: skip
    return actions[options.action](options, bar)


def _build(options: argparse.Namespace, bar: Bar) -> None:
    from reservelab.kernel.build import build

    archive = None if options.source is None else Path(options.source)
    with bar("unpacking the source", 1):
        kernel = build(archive, options.jobs, bar.stage)
    if options.json:
        print_json({"linux": str(kernel.linux), "release": kernel.release, "digest": kernel.digest})
    else:
        print(f"{kernel.linux}\nLinux {kernel.release}, patches and all {kernel.digest}")


def _scenario(options: argparse.Namespace) -> Scenario:
    if options.file is None:
        raise BadInput("FILE.toml", "missing", "give a scenario such as data/scenarios/abba.toml")
    return Scenario.from_toml(read_text(options.file))


def _run(options: argparse.Namespace, bar: Bar) -> None:
    scenario = _scenario(options)
    from reservelab.kernel.build import built
    from reservelab.kernel.guest import run
    from reservelab.kernel.trials import require_ported

    require_ported(scenario)
    kernel = built()
    warn(scenario)
    with bar("booting", options.trials, "trials"):
        trials = run(
            kernel, scenario, options.trials, options.seed, options.lockdep, progress=bar.add
        )
    if options.json:
        more = {"kernel": kernel.release, "patches": kernel.digest, "lockdep": trials.lockdep}
        print_json(trials.row() | more | {"scenario": scenario.canonical()})
        return
    print(trials)
    print(f"kernel           {kernel.release}, patches {kernel.digest[:16]}")
    if options.lockdep:
        print(f"lockdep          {trials.lockdep or 'silent'}")


def _compare(options: argparse.Namespace, bar: Bar) -> int:
    from reservelab.kernel.build import built
    from reservelab.kernel.compare import compare, point, predict, table
    from reservelab.kernel.guest import lockdep_words, run
    from reservelab.kernel.scenarios import read_set

    name = options.file or str(data_folder() / "kernel" / "eight.toml")
    scenarios = read_set(read_text(name))
    kernel = built()
    points: list[dict[str, object]] = []
    try:
        with bar(STARTING, len(scenarios) * options.trials, "trials"):
            for scenario in scenarios:
                prediction = predict(scenario)
                trials = run(
                    kernel, scenario, options.trials, options.seed, options.lockdep, bar.add
                )
                said = lockdep_words(trials.lockdep) if options.lockdep else {}
                points.append(point(trials, prediction) | said)
    except KeyboardInterrupt:
        kept = f"{len(points)} of {len(scenarios)} scenarios are in {options.output}"
        raise KeyboardInterrupt(kept if options.output else "nothing was kept") from None
    finally:  # a guest that dies late must not take the others' answers with it
        if points:
            frame = compare(points)
            frame["kernel"], frame["patches"] = kernel.release, kernel.digest[:16]
            if options.output is not None:
                _write(frame, Path(options.output))
    if options.json:
        print_json({"points": records(frame)})
    else:
        print(table(frame))
    if not frame["agrees"].all():
        warnings.warn("kernel and model disagree where a star stands", stacklevel=1)
        return 1
    return 0


def _write(frame: pd.DataFrame, path: Path) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")
    frame.to_csv(part, index=False, float_format="%.10g", lineterminator="\n")
    os.replace(part, path)


def _show(options: argparse.Namespace, bar: Bar) -> None:
    scenario = _scenario(options)
    from reservelab.kernel.build import built
    from reservelab.kernel.evidence import find_deadlock
    from reservelab.kernel.trials import require_ported
    from reservelab.solve.prove import prove

    require_ported(scenario)
    kernel = built()
    with bar(STARTING):
        proof = prove(scenario)
        evidence = find_deadlock(kernel, scenario, options.trials, options.seed)
    if evidence is None:
        wrong = f"none of {options.trials} trials deadlocked"
        right = "it is safe" if proof.safe else "give more --trials"
        raise BadInput("kernel", wrong, right)
    if options.json:
        print_json({"kernel": evidence.document(), "proof": str(proof)})
    else:
        print(f"{proof}\n\nThe same in Linux {kernel.release}\n\n{evidence}")


def _exhaust(options: argparse.Namespace, bar: Bar) -> None:
    import pandas as pd

    from reservelab.kernel.build import built
    from reservelab.kernel.exhaust import Outcome, cells, run, table, tell

    kinds = cells(options.only.split(",") if options.only else ())
    path = None if options.output is None else Path(options.output)
    if path is not None and path.suffix != ".csv":
        raise BadInput(
            "--output", f"{path.name} does not end in .csv", "beside it a .txt is written"
        )
    kernel = built()
    jobs = options.jobs or os.cpu_count() or 1
    outcomes: list[Outcome] = []

    def heard(outcome: Outcome) -> None:
        outcomes.append(outcome)
        bar.add(1)

    try:
        with bar("booting", len(kinds) * options.boots, "boots"):
            run(kernel, kinds, options.boots, jobs, heard)
    except KeyboardInterrupt:
        kept = "nothing was kept" if path is None else f"{len(outcomes)} boots are in {path}"
        raise KeyboardInterrupt(kept) from None
    finally:  # whatever ends it early must not take what was seen with it
        if outcomes:
            outcomes.sort(key=lambda outcome: kinds.index(outcome.cell))
            frame = pd.DataFrame([outcome.row() for outcome in outcomes])
            frame["kernel"], frame["patches"] = kernel.release, kernel.digest[:16]
            # One of each marks and disk tells enough.
            stuck: dict[tuple[str, str], Outcome] = {}
            for outcome in outcomes:
                if outcome.ending == "hung":
                    stuck.setdefault((outcome.cell.marks, outcome.cell.disk), outcome)
            told = "\n\n\n".join(tell(outcome) for outcome in stuck.values())
            if path is not None:
                _write(frame, path)
                path.with_suffix(".txt").write_text(f"{told}\n", encoding="ascii", errors="replace")
    if options.json:
        print_json({"boots": records(frame)})
    else:
        print(table(frame))
        if options.only and told:
            print(f"\n{told}")
