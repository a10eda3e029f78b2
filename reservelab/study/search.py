"""The search for a scheme: every combination of choices, asked of a set of small scenarios.

A scheme is five choices (docs/model.md section 5). The search walks all combinations of them and
knows no scheme's name, so that whatever a reader can compose is in it. Three things are not among
the five and are fixed here: how many sections there may be at a time (`LIMITS`), how large the
reserve is (`RESERVES`, rules that a kernel could follow at mount time), and the scenarios, files
that a person can edit (data/search).

Vocabulary
----------
combination   five choices and a limit on sections, whether they fit together or not
candidate     a combination that is a scheme, with a rule for the size of its reserve if it has one
verdict       of a candidate in a scenario: ``safe`` (neither deadlock nor livelock can be reached
              with the scenario's own quota), ``unsafe``, ``undecided`` (more states than the
              limit; never taken for safe) or ``no room`` (the machine is smaller than the reserve)
alike         the same verdicts and, to ten digits, the same exact values in every scenario
eligible      safe in every scenario
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reservelab.model import pack as p
from reservelab.model import schemes as ms
from reservelab.model.catalogue import data_folder
from reservelab.model.errors import BadInput, whole_number, within
from reservelab.model.plain_text import wrap
from reservelab.model.scenario import RULES_VERSION, Scenario, Waiting
from reservelab.model.schemes import GlobalPool, Scheme
from reservelab.solve.exact import exact
from reservelab.solve.prove import prove
from reservelab.solve.states import TooManyStates

LIMITS: tuple[int | None, ...] = (None, 1, 2)
RESERVES: Mapping[str, Callable[[Scenario], int]] = {
    "largest": lambda scenario: scenario.need,
    "twice": lambda scenario: 2 * scenario.need,
    "sum": lambda scenario: sum(mount.filesystem.nr_pages for mount in scenario.mounts),
}
SAFE, UNSAFE, UNDECIDED, NO_ROOM = VERDICTS = ("safe", "unsafe", "undecided", "no room")
CHOICES = ("start", "entry", "grants", "exit", "returns")
_VALUES = (
    "deadlock_probability", "livelock_probability", "time", "throughput", "idle_reserve_mean",
    "inside", "waiting_entry", "waiting_pages", "waiting_semaphore", "waiting_locks", "latency",
)  # fmt: skip
QUOTAS = (1, 2)  # with which a stack is asked how many pages it needs
_SHOWN = 20  # behaviours that are listed in full
_Made = TypeVar("_Made")


# ---- the space ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A scheme whose reserve is as large as a rule says.

    Parameters
    ----------
    scheme : Scheme
        Its choices; a reserve in it stands for one of any size.
    reserve : str
        The rule, a key of `RESERVES`; empty where nothing is set aside whose size is free.
    """

    scheme: Scheme
    reserve: str

    def placed(self, scenario: Scenario) -> Scenario:
        """Put the candidate in the place of a scenario's scheme.

        Parameters
        ----------
        scenario : Scenario
            Whose scheme is not looked at.

        Returns
        -------
        Scenario
            The same with this candidate.

        Raises
        ------
        BadInput
            With the key ``reserve`` if the machine has fewer pages than are set aside.
        """
        pages = RESERVES[self.reserve](scenario) if self.reserve else None
        return replace(scenario, scheme=replace(self.scheme, reserve=pages))

    def __str__(self) -> str:
        return _listed(self.scheme, [self.reserve] if self.reserve else [])


@dataclass(frozen=True, eq=False)
class Space:
    """All combinations of choices.

    Parameters
    ----------
    combinations : int
        How many there are.
    misfits : DataFrame
        Of those that are no scheme: ``key`` and ``rule`` of the first rule that each breaks, in
        the order `Scheme` looks at them, and how many ``combinations`` that is.
    schemes : int
        How many are schemes.
    candidates : tuple of Candidate
        These with each rule for their reserve.
    """

    combinations: int
    misfits: pd.DataFrame
    schemes: int
    candidates: tuple[Candidate, ...]


def space(limits: Sequence[int | None] = LIMITS) -> Space:
    """Walk all combinations of choices.

    Every order of every set of sources counts, of one source or more, none named twice. Whether
    choices fit together does not depend on the order of the sources, so each misfit is looked at
    once for all its orders; what fits is composed in each of them.

    Parameters
    ----------
    limits : sequence of int or None
        The limits on sections to combine with the five choices; None is no limit.

    Returns
    -------
    Space
        What there is.
    """
    sources = get_args(ms.Grant)
    rest = [get_args(choices) for choices in (ms.Start, ms.Entry, ms.Exit, ms.Returns)]
    combinations = schemes = 0
    misfits: Counter[tuple[str, str]] = Counter()
    candidates: list[Candidate] = []
    for number in range(1, len(sources) + 1):
        for grants in itertools.combinations(sources, number):
            orders = list(itertools.permutations(grants))
            for limit, start, entry, leave, returns in itertools.product(limits, *rest):
                combinations += len(orders)
                choices = {"start": start, "entry": entry, "exit": leave, "returns": returns}
                choices["max_sections"] = limit
                try:
                    _, sized = _composed(choices | {"grants": grants})
                except BadInput as error:
                    misfits[error.key, error.right] += len(orders)
                    continue
                schemes += len(orders)
                candidates += [
                    Candidate(_composed(choices | {"grants": order})[0], rule)
                    for order in orders
                    for rule in (RESERVES if sized else ("",))
                ]
    rows = [(*rule, count) for rule, count in misfits.most_common()]
    frame = pd.DataFrame(rows, columns=["key", "rule", "combinations"])
    return Space(combinations, frame, schemes, tuple(candidates))


def _composed(choices: Mapping[str, Any]) -> tuple[Scheme, bool]:
    """The scheme of these choices, and whether it sets aside a reserve of a size to choose."""
    try:
        return Scheme(**choices, reserve=0), True
    except BadInput as error:
        if error.key != "reserve":
            raise
        return Scheme(**choices), False


def _choice(scheme: Scheme, key: str) -> str:
    value = getattr(scheme, key)
    return "+".join(value) if key == "grants" else str(value)


def _listed(scheme: Scheme, reserves: Sequence[str]) -> str:
    text = " ".join(_choice(scheme, key) for key in CHOICES)
    if scheme.max_sections is not None:
        text += f", at most {scheme.max_sections} inside"
    return f"{text}, R {' or '.join(reserves)}" if reserves else text


def shipped_scenarios() -> dict[str, Scenario]:
    """Read the scenarios of data/search.

    Returns
    -------
    dict
        Scenarios by the name of their file.
    """
    files = (data_folder() / "search").iterdir()
    return read_scenarios(Path(str(file)) for file in files if file.name.endswith(".toml"))


def read_scenarios(files: Iterable[Path]) -> dict[str, Scenario]:
    """Read scenarios to ask; their schemes and waiting rules are not looked at.

    Parameters
    ----------
    files : iterable of Path
        Scenario files.

    Returns
    -------
    dict
        Scenarios by the name of their file, in alphabetical order.

    Raises
    ------
    BadInput
        If a file is no scenario, or two have one name.
    """
    scenarios: dict[str, Scenario] = {}
    for file in sorted(files, key=lambda path: path.stem):
        if file.stem in scenarios:
            raise BadInput(str(file), f"a second {file.stem}", "give each file a name of its own")
        try:
            scenarios[file.stem] = Scenario.from_toml(file.read_text(encoding="utf-8"))
        except BadInput as error:
            raise within(str(file), error) from None
    return scenarios


# ---- the search -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Search:
    """What all candidates do in all scenarios.

    Parameters
    ----------
    space : Space
        The combinations there are.
    scenarios : mapping of str to Scenario
        The scenarios asked, under both waiting rules.
    limit : int
        The most states that were stored for one of them.
    table : DataFrame
        A row for each candidate, scenario and waiting rule; see `frame`.
    stacks : DataFrame
        Pages that make a stacked scenario safe; see `pages_needed`, whose columns follow those of
        its ``scenario``. Of those who are safe in all other scenarios, and of those who are safe
        there for ever.
    """

    space: Space
    scenarios: Mapping[str, Scenario]
    limit: int
    table: pd.DataFrame
    stacks: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """Every answer, tidy.

        Returns
        -------
        DataFrame
            Columns ``candidate`` (its place in `Space.candidates`), the five choices,
            ``max_sections`` (0: no limit), ``reserve`` (the rule), ``scenario``, ``waiting``,
            ``pages`` and ``set_aside`` (-1: no room); ``verdict``, ``steps`` of the shortest path
            into a deadlock (0: none), ``states``; the exact values of `Exact` in its own names and
            units; and ``forever``, the verdict under an unbounded quota, asked where the one under
            the scenario's own is ``safe`` and empty elsewhere.
        """
        return self.table.copy()

    @property
    def unstacked(self) -> tuple[str, ...]:
        """Names of the scenarios in which no mount stands on another."""
        return tuple(name for name, scenario in self.scenarios.items() if not scenario.stacked)

    @property
    def local(self) -> tuple[str, ...]:
        """Names of the unstacked scenarios in which no completion needs memory."""
        return tuple(
            name
            for name in self.unstacked
            if not any(m.device and m.device.completion_pages for m in self.scenarios[name].mounts)
        )

    def ranking(self, scenarios: Sequence[str] | None = None) -> pd.DataFrame:
        """Count the answers of each candidate, and compare those who are safe in all.

        Parameters
        ----------
        scenarios : sequence of str, optional
            The scenarios to look at; all unless given.

        Returns
        -------
        DataFrame
            A row for each candidate: its choices as in `frame`; how many answers are ``safe``,
            ``unsafe``, ``undecided`` and ``no_room``, and how many are safe ``forever``;
            ``eligible``: all are safe; ``behaviour``, a number that those alike share; ``idle``
            pages and ``throughput``, exact values averaged over scenarios and waiting rules with
            equal weight (NaN unless eligible); ``front``: no eligible candidate is at least as
            good in both averages and better in one; ``undominated``: none is at least as good in
            both in every single scenario and better somewhere, which weighs nothing.
        """
        names = list(self.scenarios if scenarios is None else scenarios)
        table = self.table[self.table.scenario.isin(names)]
        groups = table.groupby("candidate", sort=True)
        ranking = groups[[*CHOICES, "max_sections", "reserve"]].first().reset_index()
        counts = pd.crosstab(table.candidate, table.verdict).reindex(columns=VERDICTS, fill_value=0)
        for verdict in VERDICTS:
            ranking[verdict.replace(" ", "_")] = counts[verdict].to_numpy()
        ranking["forever"] = (table.forever == SAFE).groupby(table.candidate).sum().to_numpy()
        ranking["eligible"] = ranking.safe == 2 * len(names)
        ranking["behaviour"] = _behaviours(table)
        eligible = ranking.eligible.to_numpy()
        for name, column in (("idle", "idle_reserve_mean"), ("throughput", "throughput")):
            ranking[name] = groups[column].mean().where(eligible).to_numpy()
        ranking["front"] = ranking["undominated"] = False
        costs = np.column_stack([ranking.idle, -ranking.throughput])
        ranking.loc[eligible, "front"] = _undominated(costs[eligible])
        each = table[["idle_reserve_mean", "throughput"]].to_numpy() * (1, -1)
        each = each.reshape(len(ranking), -1)
        ranking.loc[eligible, "undominated"] = _undominated(each[eligible])
        return ranking

    def killers(self) -> pd.DataFrame:
        """Count what each scenario does to the candidates.

        Returns
        -------
        DataFrame
            A row for each scenario: of the candidates, under both waiting rules taken together,
            how many are ``safe``, ``unsafe`` under at least one, ``undecided`` or have
            ``no_room``; how many are safe ``forever`` under both; ``alone``: how many are safe
            in every other scenario but not here.
        """
        worst = {verdict: rank for rank, verdict in enumerate((SAFE, NO_ROOM, UNDECIDED, UNSAFE))}
        keys = [self.table.candidate, self.table.scenario]
        ranks = self.table.verdict.map(worst).groupby(keys).max().unstack()
        forever = (self.table.forever == SAFE).groupby(keys).all().unstack()
        kept = (ranks > 0).sum(axis=1) == 1
        rows = []
        for name in self.scenarios:
            row: dict[str, Any] = {"scenario": name}
            for verdict in VERDICTS:
                row[verdict.replace(" ", "_")] = int((ranks[name] == worst[verdict]).sum())
            row["forever"] = int(forever[name].sum())
            rows.append(row | {"alone": int((kept & (ranks[name] > 0)).sum())})
        return pd.DataFrame(rows)

    def nearest(self, scheme: Scheme, scenarios: Sequence[str] | None = None) -> pd.DataFrame:
        """Find the eligible candidates that differ from a scheme in the fewest choices.

        Parameters
        ----------
        scheme : Scheme
            Say, what was proposed.
        scenarios : sequence of str, optional
            The scenarios to look at; all unless given.

        Returns
        -------
        DataFrame
            Rows of `ranking` with ``changes``, how many of the five choices and the limit on
            sections differ; fewest only. The reserve is not a choice here.
        """
        ranking = self.ranking(scenarios)
        chosen = ranking[ranking.eligible].copy()
        chosen["changes"] = (chosen.max_sections != (scheme.max_sections or 0)).astype(int)
        for key in CHOICES:
            chosen["changes"] += chosen[key] != _choice(scheme, key)
        fewest: pd.DataFrame = chosen[chosen.changes == chosen.changes.min()]
        return fewest

    def __str__(self) -> str:
        return "\n".join(_told(self))


def search(
    scenarios: Mapping[str, Scenario] | None = None,
    limits: Sequence[int | None] = LIMITS,
    limit: int = 1_000_000,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Search:
    """Ask every candidate in every scenario, under both waiting rules: `prove`, then `exact`.

    What comes out does not depend on the number of workers. Candidates that are one and the same
    scenario somewhere (two rules that give the same reserve, say) are asked there once.

    Parameters
    ----------
    scenarios : mapping of str to Scenario, optional
        Names and scenarios; those of data/search unless given. Scheme and waiting rule of a
        scenario are not looked at.
    limits : sequence of int or None
        The limits on sections.
    limit : int
        The most states to store for one scenario; beyond it the verdict is ``undecided``.
    workers : int, optional
        Threads to compute with; all processors unless given.
    progress : callable, optional
        Called with how many answers there are and how many there will be; the second number grows
        once, when it is known who is asked with an unbounded quota.

    Returns
    -------
    Search
        The answers.

    Raises
    ------
    BadInput
        If there is no scenario, or a number is out of range.
    """
    asked = shipped_scenarios() if scenarios is None else dict(scenarios)
    if not asked:
        raise BadInput("scenarios", "none", "give at least one scenario")
    limit = whole_number("limit", limit, 1)
    found = space(limits)
    rows: list[dict[str, Any]] = []
    placed: list[Scenario | None] = []
    for number, candidate in enumerate(found.candidates):
        scheme = candidate.scheme
        about = {"candidate": number} | {key: _choice(scheme, key) for key in CHOICES}
        about |= {"max_sections": scheme.max_sections or 0, "reserve": candidate.reserve}
        for name, scenario in asked.items():
            for waiting in get_args(Waiting):
                row = about | {"scenario": name, "waiting": waiting}
                here = _placed_or_none(candidate, replace(scenario, waiting=waiting))
                row |= {"pages": scenario.machine.pages, "set_aside": -1 if here is None else 0}
                if here is not None:
                    row["set_aside"] = here.set_aside
                rows.append(row)
                placed.append(here)
    with _Asking(workers, progress) as asking:
        answers = asking(lambda scenario: _answer(scenario, limit), placed)
        none = {"verdict": NO_ROOM, "steps": 0, "states": 0}
        for row, answer in zip(rows, answers, strict=True):
            row |= answer or none
        safe = [
            here if row["verdict"] == SAFE else None for row, here in zip(rows, placed, strict=True)
        ]
        for row, verdict in zip(
            rows, asking(lambda scenario: _forever(scenario, limit), safe), strict=True
        ):
            row["forever"] = verdict or ""
        columns = ["verdict", "steps", "states", *_VALUES, "forever"]
        head = [key for key in rows[0] if key not in columns]
        table = pd.DataFrame(rows, columns=[*head, *columns])
        made = Search(found, asked, limit, table, pd.DataFrame())
        return replace(made, stacks=_stacks(made, asking))


def _stacks(made: Search, asking: _Asking) -> pd.DataFrame:
    """Pages that make each stacked scenario safe, of those for whom that is a question."""
    parts = [pd.DataFrame(columns=["scenario", "candidate", "quota", "pages"], dtype=int)]
    elsewhere = made.ranking(made.unstacked).eligible if made.unstacked else False
    for name, scenario in made.scenarios.items():
        if not scenario.stacked:
            continue
        here = made.ranking([name])
        wanted = (here.forever == 2) | elsewhere
        asked = {number: made.space.candidates[number] for number in here.candidate[wanted]}
        part = _pages_needed(
            asked, scenario, QUOTAS, 2 * scenario.machine.pages, made.limit, asking
        )
        part.insert(0, "scenario", name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def pages_needed(
    candidates: Mapping[int, Candidate],
    scenario: Scenario,
    quotas: Sequence[int],
    pages_up_to: int,
    limit: int = 1_000_000,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> pd.DataFrame:
    """How many pages make a scenario safe, quota by quota, under both waiting rules.

    Parameters
    ----------
    candidates : mapping of int to Candidate
        Who is asked, by number.
    scenario : Scenario
        Its pages, quota, scheme and waiting rule are not looked at.
    quotas : sequence of int
        Writepages of each thread.
    pages_up_to : int
        The largest machine to try.
    limit : int
        The most states to store for one scenario.
    workers : int, optional
        Threads to compute with; all processors unless given.
    progress : callable, optional
        Called with how many answers there are and how many there will be.

    Returns
    -------
    DataFrame
        Columns ``candidate``, ``quota`` and ``pages``: with so many pages and every larger number
        up to `pages_up_to` it is safe; 0 where it is not even with the most, -1 where the largest
        that is not known to be safe is not known to be unsafe either.
    """
    with _Asking(workers, progress) as asking:
        return _pages_needed(candidates, scenario, quotas, pages_up_to, limit, asking)


def _pages_needed(
    candidates: Mapping[int, Candidate], scenario: Scenario, quotas: Sequence[int],
    pages_up_to: int, limit: int, asking: _Asking,
) -> pd.DataFrame:  # fmt: skip
    sizes = range(1, pages_up_to + 1)
    cells = list(itertools.product(candidates, quotas, sizes, get_args(Waiting)))
    asked = []
    for number, quota, pages, waiting in cells:
        machine = replace(scenario.machine, pages=pages)
        changed = replace(scenario, machine=machine, quota=quota, waiting=waiting, scheme=Scheme())
        asked.append(_placed_or_none(candidates[number], changed))
    verdicts = asking(lambda one: _proved(one, limit)[0], asked)
    failed: dict[tuple[int, int], tuple[int, bool]] = {}
    for (number, quota, pages, _), verdict in zip(cells, verdicts, strict=True):
        if verdict != SAFE:  # sizes come in order, so the last one that fails stays
            before, known = failed.get((number, quota), (0, False))
            # A size is decided if one waiting rule is known to fail, whatever the other does.
            known = verdict != UNDECIDED or (known and before == pages)
            failed[number, quota] = pages, known
    rows = []
    for number, quota in itertools.product(candidates, quotas):
        last, known = failed.get((number, quota), (0, True))
        needed = last + 1 if last < pages_up_to else 0
        rows.append((number, quota, needed if known else -1))
    return pd.DataFrame(rows, columns=["candidate", "quota", "pages"])


class _Asking:
    """Asks scenarios on threads (the compiled code lets go of the interpreter), in any order."""

    def __init__(self, workers: int | None, progress: Callable[[int, int], object] | None) -> None:
        workers = whole_number("workers", workers or os.cpu_count() or 1, 1)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="search")
        self._progress = progress
        self._done = self._total = 0

    def __enter__(self) -> _Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __call__(
        self, ask: Callable[[Scenario], _Made], scenarios: Sequence[Scenario | None]
    ) -> list[_Made | None]:
        """Ask each scenario, equal ones once; nobody asks None."""
        keys = [None if scenario is None else _tables(scenario) for scenario in scenarios]
        different = {
            key: scenario
            for key, scenario in zip(keys, scenarios, strict=True)
            if key is not None and scenario is not None
        }
        self._total += len(different)
        answers: dict[bytes, _Made] = {}
        for key, answer in zip(different, self._pool.map(ask, different.values()), strict=True):
            answers[key] = answer
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)
        return [None if key is None else answers[key] for key in keys]


def _tables(scenario: Scenario) -> bytes:
    """What the rules read of a scenario: where it is the same, everything that can happen is.

    Two rules for the reserve can come to the same number of pages, and the waiting rule is in the
    tables only where somebody can wait for a semaphore or a lock.
    """
    tables = p.pack(scenario)
    head = tables.t.copy()
    head[[p.H_ASLEEP, p.H_RESERVE]] = 0  # for people: no rule reads these two
    return head.tobytes() + tables.f.tobytes()


def _placed_or_none(candidate: Candidate, scenario: Scenario) -> Scenario | None:
    """The candidate in a scenario; None if the machine has no room for its reserve."""
    try:
        return candidate.placed(scenario)
    except BadInput as error:
        if error.key != "reserve":
            raise
        return None


def _proved(scenario: Scenario, limit: int) -> tuple[str, int]:
    try:
        proof = prove(scenario, limit=limit)
    except TooManyStates:
        return UNDECIDED, 0
    return SAFE if proof.safe and proof.livelock_free else UNSAFE, len(proof.path)


def _answer(scenario: Scenario, limit: int) -> dict[str, Any]:
    """The verdict, and the exact values where all states fit below the limit."""
    verdict, steps = _proved(scenario, limit)
    answer: dict[str, Any] = {"verdict": verdict, "steps": steps, "states": 0}
    try:
        value = exact(scenario, limit)
    except TooManyStates:
        return answer
    return answer | {name: getattr(value, name) for name in ("states", *_VALUES)}


def _forever(scenario: Scenario, limit: int) -> str:
    try:
        return SAFE if prove(scenario, "unbounded", limit).safe else UNSAFE
    except TooManyStates:
        return UNDECIDED


def _behaviours(table: pd.DataFrame) -> list[int]:
    """A number for each candidate, the same for those that are alike."""
    cut = ((table.verdict != NO_ROOM) & (table.states == 0)).to_numpy()
    answers = [
        (verdict, *("" if value is None or value != value else f"{value:.10g}" for value in values))
        for verdict, *values in table[["verdict", *_VALUES]].to_numpy(dtype=object)
    ]
    numbers: dict[tuple[object, ...], int] = {}
    each = len(table) // table.candidate.nunique()
    found = []
    for first in range(0, len(table), each):
        key: tuple[object, ...] = tuple(answers[first : first + each])
        if cut[first : first + each].any():  # what was cut off is like nothing else
            key = (*key, first)
        found.append(numbers.setdefault(key, len(numbers)))
    return found


def _undominated(costs: Any) -> NDArray[np.bool_]:  # noqa: ANN401 - an array, one row for each
    """For each row of costs: whether no other is nowhere larger and somewhere smaller.

    Differences in the tenth digit are rounding.
    """
    slack = 1e-10
    costs = np.asarray(costs)
    found = []
    for row in costs:
        dominating = (costs <= row + slack).all(axis=1) & (costs < row - slack).any(axis=1)
        found.append(not dominating.any())
    return np.array(found, dtype=bool)


# ---- the report -----------------------------------------------------------------------------


_BEGIN, _END = "<!-- reservelab search -->", "<!-- end -->"


def document(text: str, found: Search | str) -> str:
    """Put a search's report between the markers of a document.

    Parameters
    ----------
    text : str
        The document, with a line ``<!-- reservelab search -->`` and after it ``<!-- end -->``.
    found : Search or str
        What to report.

    Returns
    -------
    str
        The document; what stood between the markers is replaced by a block of plain text.

    Raises
    ------
    BadInput
        If the markers are not there, once and in this order.
    """
    before, begin, rest = text.partition(f"{_BEGIN}\n")
    _, end, after = rest.partition(f"{_END}\n")
    if not (begin and end) or _BEGIN in after:
        raise BadInput("into", "has no place for the report", f"write lines {_BEGIN} and {_END}")
    return f"{before}{begin}```text\n{found}\n```\n{end}{after}"


def _told(found: Search) -> Iterator[str]:
    where = found.space
    yield f"{where.combinations:,} combinations of five choices and a limit on sections"
    yield f"{where.combinations - where.schemes:,} of them are no scheme, by the first rule broken:"
    for key, rule, count in where.misfits.itertuples(index=False):
        yield from wrap(f"{count:11,}  {key}: {rule}", " " * 13)
    rules = ", ".join(RESERVES)
    behaviours = found.ranking().behaviour.nunique()
    yield (
        f"{where.schemes} are schemes; with the reserves ({rules})"
        f" {len(where.candidates)} candidates"
    )
    yield f"{behaviours} of these behave differently from each other somewhere"
    yield ""
    heads = ("safe", "unsafe", "undecided", "no room", "forever", "alone")
    yield f"{'scenario':12}" + "".join(head.rjust(10) for head in heads)
    for row in found.killers().itertuples(index=False):
        yield f"{row.scenario:12}" + "".join(f"{number:10}" for number in row[1:])
    yield "under both waiting rules; forever: safe with an unbounded quota too;"
    yield "alone: safe in every other scenario but not in this one"
    yield ""
    proposal = GlobalPool()
    yield from _told_proposal(found, proposal)
    for title, names in (
        ("safe in all scenarios", tuple(found.scenarios)),
        ("safe in all but stacks", found.unstacked),
        ("safe in all but stacks and completion memory", found.local),
    ):
        if names and (names == tuple(found.scenarios) or len(names) < len(found.scenarios)):
            yield ""
            yield from _told_eligible(found, title, names, proposal)
    yield ""
    yield "lists: idle pages and writepages per unit of time, means over these"
    yield "scenarios; forever: answers that hold if threads start over for ever;"
    yield "* on the Pareto front of both means; + not dominated scenario by"
    yield "scenario; choices in the order start, entry, grants, exit, returns"
    if not found.stacks.empty:
        yield ""
        yield from _told_stacks(found)
    yield ""
    yield f"limit {found.limit:,} states, rules {RULES_VERSION}"


def _told_proposal(found: Search, proposal: Scheme) -> Iterator[str]:
    """What becomes of one scheme, in the smallest of the reserves."""
    rule = next(iter(RESERVES))
    same = [_choice(proposal, key) for key in CHOICES] + [proposal.max_sections or 0, rule]
    table = found.table
    rows = table[(table[[*CHOICES, "max_sections", "reserve"]] == same).all(axis=1)]
    yield from wrap(f"the proposal is {_listed(proposal, [rule])}:", " " * 16)
    for name, both in rows.groupby("scenario", sort=False):
        cells = []
        for row in both.to_dict("records"):
            told = f"{row['waiting']} {row['verdict']}"
            if row["verdict"] == UNSAFE:
                told += f" {row['steps']:2} {row['deadlock_probability']:.2g}"
            cells.append(told)
        yield f"  {name:12}{cells[0]:28}{cells[-1]}".rstrip()
    yield "with the steps of a shortest path into a deadlock and its probability"


def _told_eligible(
    found: Search, title: str, names: Sequence[str], proposal: Scheme
) -> Iterator[str]:
    ranking = found.ranking(names)
    eligible = ranking[ranking.eligible]
    behaviours = eligible.behaviour.nunique()
    best = eligible[eligible.undominated]
    yield f"{title}:"
    yield (
        f"candidates {len(eligible)}, behaviours {behaviours},"
        f" undominated {best.behaviour.nunique()}"
    )
    if eligible.empty:
        return
    shown = eligible
    if behaviours > _SHOWN:
        shown = best
        yield "only these are listed"
    yield ""
    yield " idle   speed  forever"
    answers = 2 * len(names)
    order = shown.sort_values(["idle", "throughput"], ascending=[True, False], kind="stable")
    for _, alike in order.groupby("behaviour", sort=False):
        row = alike.iloc[0]
        mark = "*" if row.front else "+" if row.undominated else " "
        head = f"{row.idle:5.2f}  {row.throughput:6.4f}  {row.forever:2}/{answers} {mark} "
        yield from _told_candidates(found, alike.candidate, head)
    yield "nearest to the proposal, differing"
    near = found.nearest(proposal, names).candidate
    for scheme in dict.fromkeys(found.space.candidates[number].scheme for number in near):
        changed = [key for key in CHOICES if _choice(scheme, key) != _choice(proposal, key)]
        words = [f"{key} {_choice(scheme, key)}" for key in changed]
        if scheme.max_sections is not None:
            words.append(f"at most {scheme.max_sections} inside")
        rules = [
            found.space.candidates[number].reserve
            for number in near
            if found.space.candidates[number].scheme == scheme
        ]
        text = ", ".join(words) + (f" (R {' or '.join(rules)})" if all(rules) else "")
        head = f"  in {len(words)} choices: "
        yield from wrap(head + text, " " * len(head))


def _told_candidates(found: Search, numbers: Iterable[int], head: str) -> Iterator[str]:
    """Candidates, one for all reserves of the same choices; `head` stands before the first."""
    reserves: dict[Scheme, list[str]] = {}
    for number in numbers:
        candidate = found.space.candidates[number]
        reserves.setdefault(candidate.scheme, []).append(candidate.reserve)
    for scheme, rules in reserves.items():
        text = _listed(scheme, [rule for rule in rules if rule])
        yield from wrap(head + text, " " * len(head))
        head = " " * len(head)


def _told_stacks(found: Search) -> Iterator[str]:
    for name, rows in found.stacks.groupby("scenario"):
        wide = rows.pivot_table(index="candidate", columns="quota", values="pages")
        here = found.table[found.table.scenario == name]
        fails = here.verdict.isin([UNSAFE, NO_ROOM]) | (here.forever == UNSAFE)
        ranks = np.select([fails, here.forever != SAFE], [2, 1], 0)
        wide["forever"] = pd.Series(ranks).groupby(here.candidate.to_numpy()).max()
        columns: list[Any] = ["forever", *QUOTAS]
        order = wide.sort_values(columns)
        yield f"{name}: pages that make it safe, by writepages of each thread"
        yield "".join(f"{quota:4}" for quota in QUOTAS) + "  for ever"
        for _, alike in order.groupby(columns, sort=False):
            cells = [alike.iloc[0][quota] for quota in QUOTAS]
            head = "".join(f"{'?' if n < 0 else int(n) or '-':>4}" for n in cells)
            head += f"  {('yes', '?', 'no')[int(alike.iloc[0].forever)]:3}  "
            yield from _told_candidates(found, alike.index, head)
        most = 2 * found.scenarios[str(name)].machine.pages
        yield f"these and every larger number up to {most}; -: not even {most}; ?: undecided;"
        yield "asked of those safe in all other scenarios and of those safe here for"
        yield "ever"
