"""The verbs that ask one scenario."""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reservelab.command.parser import add_figure, add_json, add_number, add_verb
from reservelab.command.scenario import add_scenario, read_scenario
from reservelab.command.show import draw_story, needs_figures
from reservelab.command.terminal import STARTING, Bar, print_json, records
from reservelab.model.errors import BadInput
from reservelab.model.scenario import RULES_VERSION, Scenario

if TYPE_CHECKING:
    from reservelab.solve.prove import Proof


def add_verbs(verbs: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the parsers of these verbs."""
    simulate = add_verb(
        verbs, "simulate", "[SCENARIO.toml]", "run episodes of one scenario and add them up",
        "--scheme global --mount ext3:8 --pages 12", _simulate,
    )  # fmt: skip
    add_scenario(simulate)
    add_number(simulate, "--episodes", 1, "how many", 10_000)
    add_number(simulate, "--seed", 0, "the same seed gives the same result", 1)
    add_number(simulate, "--workers", 1, "threads to compute with (all processors)")
    add_json(simulate)

    trace = add_verb(
        verbs, "trace", "[SCENARIO.toml]", "tell one episode step by step",
        "--scheme global --mount ext3:3 --pages 12 --episode 76", _trace,
    )  # fmt: skip
    add_scenario(trace)
    add_number(trace, "--episode", 0, "which one, counted from 0", 0)
    add_number(trace, "--seed", 0, "that of the simulation the episode is from", 1)
    add_figure(trace)
    add_json(trace)

    exact = add_verb(
        verbs, "exact", "[SCENARIO.toml]", "solve a scenario by enumerating its states",
        "--scheme global --mount ext3:3 --pages 12", _exact,
    )  # fmt: skip
    add_scenario(exact)
    add_number(exact, "--limit", 1, "the most states to store", 20_000_000)
    add_json(exact)

    prove = add_verb(
        verbs, "prove", "[SCENARIO.toml]", "prove that no deadlock is reachable, or show one",
        '--scheme "global on-entry" --mount ext3:3 --pages 12', _prove, undecided=3,
    )  # fmt: skip
    add_scenario(prove)
    told = "threads start over for ever, whatever their quota"
    prove.add_argument("--unbounded", action="store_true", help=told)
    told = "the smallest unsafe one: up to N threads, M pages"
    prove.add_argument("--smallest", type=_bounds, metavar="N,[K-]M", help=told)
    told = "for --smallest: each page more is one more in the reserve"
    prove.add_argument("--reserve-follows", action="store_true", help=told)
    add_number(prove, "--limit", 1, "the most states to store", 20_000_000)
    add_figure(prove)
    add_json(prove)

    rare = add_verb(
        verbs, "rare", "[SCENARIO.toml]", "estimate a deadlock too rare to be counted",
        "--scheme mempool --reserve 8 --mount ext2:8 --pages 20", _rare, undecided=3,
    )  # fmt: skip
    add_scenario(rare)
    add_number(rare, "--trajectories", 10, "of each stage of each replicate", 2_000)
    add_number(rare, "--seed", 0, "the same seed gives the same result", 1)
    add_number(rare, "--workers", 1, "threads to compute with (all processors)")
    add_json(rare)

    export = add_verb(
        verbs, "export", "--prism [SCENARIO.toml]", "write a scenario for a model checker",
        "--prism --scheme tickets --mount ext3:2 --pages 12", _export,
    )  # fmt: skip
    add_scenario(export)
    told = "guarded commands in the language of PRISM, which Storm reads too"
    export.add_argument("--prism", action="store_true", help=told)


def _simulate(options: argparse.Namespace, bar: Bar) -> None:
    scenario = read_scenario(options)
    from reservelab.solve.simulate import simulate

    with bar(STARTING, options.episodes, "episodes"):
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
        print_json(tally.row() | more | {"scenario": scenario.canonical()})
    else:
        print(f"{tally}\n\nseed {options.seed}, scenario {scenario.digest}")


def _trace(options: argparse.Namespace, bar: Bar) -> None:
    scenario = read_scenario(options)
    from reservelab.solve.trace import trace

    if options.figure:
        needs_figures()
    warn(scenario)
    with bar(STARTING):
        story = trace(scenario, options.seed, options.episode)
    if options.json:
        head = {"digest": scenario.digest, "rules": RULES_VERSION}
        names = ["seed", "episode", "ending", "reasons", "threads", "duration"]
        names += ["writepages", "redirtied", "oom_kills"]
        head |= {name: getattr(story, name) for name in names}
        head |= {name: [w._asdict() for w in getattr(story, name)] for name in ("waits", "cycle")}
        print_json(head | {"steps": records(story.frame()), "scenario": scenario.canonical()})
    else:
        print(story)
    if options.figure:
        draw_story(story, options.figure)


def _exact(options: argparse.Namespace, bar: Bar) -> None:
    scenario = read_scenario(options)
    from reservelab.solve.exact import exact

    warn(scenario)
    with bar(STARTING):
        result = exact(scenario, options.limit, bar.explore)
    print(result.to_json() if options.json else result)


def _prove(options: argparse.Namespace, bar: Bar) -> int:
    unsaid = options.scenario is options.machine is options.pages is None
    if options.smallest is not None and unsaid and not options.reserve_follows:
        # So many are tried anyway; only a reserve that follows has to know of how many it is said.
        options.pages = options.smallest[1]
    scenario = read_scenario(options)
    quota: Literal["own", "unbounded"] = "unbounded" if options.unbounded else "own"
    if options.figure:
        needs_figures()
    warn(scenario)
    if options.smallest is not None:
        return _smallest(options, bar, scenario, quota)
    if options.reserve_follows:
        raise BadInput("--reserve-follows", "without --smallest", "give --smallest too")
    from reservelab.solve.prove import prove

    with bar(STARTING):
        result = prove(scenario, quota, options.limit, bar.explore)
    print(result.to_json() if options.json else result)
    _draw(options.figure, result)
    return 0 if result.safe else 1


def _draw(file: Path | None, proof: Proof | None) -> None:
    """Draw the path that a proof has, if somebody wants it."""
    if file and proof and proof.story:
        draw_story(proof.story, file)
    elif file:
        warnings.warn(f"{file}: not made; there is no path to draw", stacklevel=2)


def _rare(options: argparse.Namespace, bar: Bar) -> None:
    scenario = read_scenario(options)
    from reservelab.solve.rare import rare

    warn(scenario)
    with bar("solving siblings, choosing levels", unit="replicates") as progress:
        result = rare(
            scenario, options.seed, options.trajectories, options.workers, progress.count
        )
    print(result.to_json() if options.json else result)


def _bounds(text: str) -> tuple[int, int, int | None]:
    """Read N,M or N,K-M: threads up to N, pages up to M and, if wanted, from K."""
    found = re.fullmatch(r"([1-9][0-9]{0,8}),(?:([0-9]{1,9})-)?([0-9]{1,9})", text)
    if found is None:
        wrong = f"{text!r} is not threads and pages"
        raise argparse.ArgumentTypeError(f"{wrong}; write such as 5,8 or 5,4-8")
    fewest = None if found[2] is None else int(found[2])
    return int(found[1]), int(found[3]), fewest


def _smallest(
    options: argparse.Namespace, bar: Bar, scenario: Scenario, quota: Literal["own", "unbounded"]
) -> int:
    from reservelab.study.smallest import smallest

    with bar(STARTING, total=1, unit="configurations"):
        follows: Literal["fixed", "follows"] = "follows" if options.reserve_follows else "fixed"
        threads, most, fewest = options.smallest
        found = smallest(
            scenario, threads, most, fewest, follows, quota, options.limit, progress=bar.count
        )
    print(found.to_json() if options.json else found)
    _draw(options.figure, found.proof)
    if found.safe is None:
        undecided: int = options.undecided
        return undecided
    return 0 if found.safe else 1


def _export(options: argparse.Namespace, bar: Bar) -> None:  # noqa: ARG001 - nothing takes long
    scenario = read_scenario(options)
    from reservelab.solve.export import prism

    if not options.prism:
        raise BadInput("--prism", "missing", "it is the one form there is to export to")
    warn(scenario)
    print(prism(scenario), end="")


def warn(scenario: Scenario) -> None:
    """Warn of what is legal in a scenario but can never enter."""
    for line in scenario.warnings:
        warnings.warn(line, stacklevel=2)
