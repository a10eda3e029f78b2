"""The verbs that run and compare many scenarios."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reservelab.command.parser import add_json, add_number, add_verb, share
from reservelab.command.scenario import read_text
from reservelab.command.terminal import STARTING, Bar, print_json, records, tell
from reservelab.model.catalogue import data_folder
from reservelab.model.errors import BadInput

if TYPE_CHECKING:
    from reservelab.study.claims import Verdict, Verdicts
    from reservelab.study.sweep import Goal, Progress


def add_verbs(verbs: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the parsers of these verbs."""
    sweep = add_verb(
        verbs, "sweep", "GRID.toml", "run every scenario of a grid, stored as it runs",
        "demo --store results/demo", _sweep,
    )  # fmt: skip
    told = "a file, or the name of one in data/grids, such as demo"
    sweep.add_argument("grid", metavar="GRID.toml", help=told)
    told = "where results are kept, and a sweep goes on (results/NAME)"
    sweep.add_argument("--store", metavar="DIR", help=told)
    goals = sweep.add_mutually_exclusive_group()
    add_number(goals, "--episodes", 1, "of each scenario", 4_000)
    told = "until the risk is known to this share of it, such as 0.1"
    goals.add_argument("--precision", type=share, metavar="X", help=told)
    add_number(sweep, "--seed", 0, "the same seed gives the same results", 1)
    add_number(sweep, "--workers", 1, "threads to compute with (all processors)")
    told = "a Dask cluster to use instead, such as tcp://host:8786"
    sweep.add_argument("--scheduler", metavar="WHERE", help=told)
    add_json(sweep)

    fit = add_verb(
        verbs, "fit", "STORE", "fit risk, idle pages and throughput to a stored sweep",
        "results/demo", _fit,
    )  # fmt: skip
    fit.add_argument("store", metavar="STORE", help="what `reservelab sweep --store` made")
    add_json(fit)

    claims = add_verb(
        verbs, "claims", "[CLAIM]", "judge what the mail of 2004 says, by proof and exact value",
        "refill", _claims,
    )  # fmt: skip
    told = "one of them in detail, by its name in data/claims, or a file of your own"
    which = claims.add_mutually_exclusive_group()
    which.add_argument("claim", nargs="?", metavar="CLAIM", help=told)
    told = "what would mend the proposal instead, and what each repair costs"
    which.add_argument("--repairs", action="store_true", help=told)
    add_number(claims, "--limit", 1, "the most states to store for one question", 2_000_000)
    add_json(claims)

    search = add_verb(
        verbs, "search", "[SCENARIO.toml ...]", "walk the space of schemes: who is safe everywhere",
        "commit", _search,
    )  # fmt: skip
    told = "files, or names of files in data/search (all of these)"
    search.add_argument("scenarios", nargs="*", metavar="SCENARIO.toml", help=told)
    add_number(search, "--limit", 1, "the most states to store for one scenario", 1_000_000)
    add_number(search, "--workers", 1, "threads to compute with (all processors)")
    told = "write the report between the markers of this file too"
    search.add_argument("--into", metavar="FILE", help=told)
    add_json(search)


def _sweep(options: argparse.Namespace, bar: Bar) -> None:
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
            stack.enter_context(bar(STARTING, total=1))
            table = sweep(grid, goal, store, options.seed, options.workers, client, show)
    except KeyboardInterrupt:
        if not last:
            raise KeyboardInterrupt(f"nothing was added to {store}") from None
        share = 100 * last[0].done // max(1, last[0].total)
        kept = f"what is done, {share} %, is kept in {store}; the same command goes on from there"
        raise KeyboardInterrupt(kept) from None
    about = {"store": str(store), "seed": options.seed, "goal": str(goal)} | summary(grid, table)
    if options.json:
        print_json(about)
    else:
        print(_swept(about))


def _grid_text(name: str) -> str:
    """The text of a grid file, or of one that comes with the package by its bare name."""
    path = Path(name)
    shipped = data_folder() / "grids" / f"{name}.toml"
    if not path.exists() and path.name == name and shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    return read_text(name)


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
        tell(f"{address}: no worker yet; waiting for one")
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


def _fit(options: argparse.Namespace, bar: Bar) -> None:
    from reservelab.study.fits import fit
    from reservelab.study.results import Store

    store = Store(options.store)
    frame = store.frame()
    with bar("fitting: some seconds for each scheme"):
        fits = fit(frame)
    file = store.path / "fits.json"
    fits.save(file)
    if options.json:
        tables = {"coefficients": records(fits.frame()), "goodness": records(fits.goodness())}
        print_json({"store": options.store, "file": str(file)} | tables)
    else:
        print(f"{fits}\n\nthe fits are in {file}")


def _claims(options: argparse.Namespace, bar: Bar) -> None:
    from reservelab.study.claims import Claim, judge, judge_all, load

    if options.repairs:
        from reservelab.study.repairs import repairs

        with bar(STARTING, unit="questions"):
            mended = repairs(options.limit, bar.count)
        print(mended.to_json() if options.json else mended)
        return
    shipped = load()
    chosen = [claim for claim in shipped if options.claim in (None, claim.name)]
    if not chosen:
        names = ", ".join(claim.name for claim in shipped)
        if not Path(options.claim).is_file():
            raise BadInput("CLAIM", f"{options.claim!r} is unknown", f"a file, or one of {names}")
        chosen = [Claim.from_toml(Path(options.claim).stem, read_text(options.claim))]
    with bar(STARTING, unit="questions"):
        if options.claim is None:
            result: Verdict | Verdicts = judge_all(chosen, options.limit, progress=bar.count)
        else:
            result = judge(chosen[0], options.limit, progress=bar.count)
    print(result.to_json() if options.json else result)


def _search(options: argparse.Namespace, bar: Bar) -> None:
    from reservelab.study.search import document, read_scenarios, search, shipped_scenarios

    into = None if options.into is None else Path(options.into).read_text(encoding="utf-8")
    if into is not None:
        document(into, "")  # refused before the minutes that a search takes
    asked = shipped_scenarios()
    if options.scenarios:
        files = [name for name in options.scenarios if name not in asked or Path(name).exists()]
        for name in files:
            read_text(name)
        named = {name: asked[name] for name in options.scenarios if name not in files}
        asked = named | read_scenarios(map(Path, files))
    with bar(STARTING, total=1, unit="scenarios"):
        found = search(asked, limit=options.limit, workers=options.workers, progress=bar.count)
    if into is not None:
        Path(options.into).write_text(document(into, found), encoding="utf-8")
    if options.json:
        space = found.space
        tables = {"misfits": space.misfits, "ranking": found.ranking()}
        tables |= {"unstacked": found.ranking(found.unstacked), "stacks": found.stacks}
        tables |= {"answers": found.frame()}
        about = {"combinations": space.combinations, "schemes": space.schemes, "limit": found.limit}
        print_json(about | {name: records(table) for name, table in tables.items()})
    else:
        print(found)
