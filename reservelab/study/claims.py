"""Claims: sentences of the mail of 6 November 2004, each turned into scenarios and judged.

A file of data/claims/ fixes before anything runs what a sentence is taken to say: scenarios, a
solver for each, and the outcome that would make it false. Its keys:

place     where the claim stands among the others
title     the claim in a few words
author    who wrote the sentence
message   the Message-ID of the mail it was read in
quote     the sentence, word for word; line ends and quotation signs apart
reading   what it is taken to say, and what is left out
solver    of all trials that name none: prove, prove unbounded, exact, rare or simulate
false_if  of all trials that have none: what would count as false
scenario  a scenario's tables, as in data/scenarios; what the trials share
trials    the sentence in its own setting; the verdict follows from them
conditions  the same with something changed; they show what the verdict hangs on

A trial or condition has a name and, if wanted, a solver, a false_if, the number of episodes of
a simulation, and a scenario of its own, which is laid over the shared one: a key replaces that
key, but machine and each of mounts keep what they do not name. `against` is laid over the
trial's scenario in turn, for a comparison. It is solved under both waiting rules unless its
scenario names one.

false_if is one of

    deadlock reachable, livelock unreachable, trouble reachable, ...    for prove
    MEASURE < NUMBER, MEASURE < against, MEASURE < NUMBER * against     for the others

with <, <=, > or >=. Trouble is a deadlock or a livelock, with an unbounded quota of some threads
only, too. The measures are those of `Exact` and `Tally`; `rare` knows deadlock_probability.

A trial is true where it is not false, and undecided where there were too many states, or where
an interval has the bound inside. A claim holds if all its trials are true, fails if all are
false; otherwise it depends.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from reservelab.model.catalogue import data_folder
from reservelab.model.errors import BadInput, whole_number, within
from reservelab.model.interval import Interval
from reservelab.model.plain_text import WIDTH, Preformatted, plain, wrap
from reservelab.model.scenario import RULES_VERSION, Scenario, Waiting, check_keys, read_toml
from reservelab.solve.exact import exact
from reservelab.solve.prove import Proof, prove
from reservelab.solve.rare import rare
from reservelab.solve.simulate import simulate

Solver = Literal["prove", "prove unbounded", "exact", "rare", "simulate"]
Word = Literal["holds", "fails", "depends", "undecided"]
RULES: tuple[Waiting, ...] = get_args(Waiting)

_OPPOSITE = {"<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_REACHED = ("reachable", "unreachable")
_ENDS = ("deadlock", "livelock", "trouble")
_MEASURES = {
    "exact": (
        "deadlock_probability", "livelock_probability", "time", "throughput", "idle_reserve_mean",
        "inside", "waiting_entry", "waiting_pages", "waiting_semaphore", "waiting_locks", "latency",
    ),
    "rare": ("deadlock_probability",),
    "simulate": (
        "deadlock_probability", "throughput", "idle_reserve_mean", "idle_reserve_peak", "latency",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Criterion:
    """What would count as false: a comparison, without its left and right values.

    Parameters
    ----------
    measure : str
        ``deadlock``, ``livelock`` or ``trouble``; or a measure of the solver.
    comparison : str
        ``reachable`` or ``unreachable``; or one of <, <=, > and >=.
    threshold : float
        What the measure is compared with; 0 for the former.
    relative : bool
        Whether the threshold is in units of what is measured in the scenario `against`.
    """

    measure: str
    comparison: str
    threshold: float = 0.0
    relative: bool = False

    @classmethod
    def from_text(cls, text: object) -> Criterion:
        """Read a criterion as it stands in a file.

        Parameters
        ----------
        text : str
            Such as ``deadlock reachable`` or ``throughput >= 0.9 * against``.

        Returns
        -------
        Criterion
            The criterion.

        Raises
        ------
        BadInput
            If it is neither form.
        """
        words = text.split() if isinstance(text, str) else []
        match words:
            case [measure, ("reachable" | "unreachable") as reached]:
                return cls(measure, reached)
            case [measure, sign, "against"] if sign in _OPPOSITE:
                return cls(measure, sign, 1.0, True)
            case [measure, sign, number, *rest] if sign in _OPPOSITE:
                with contextlib.suppress(ValueError):
                    if rest in ([], ["*", "against"]) and math.isfinite(float(number)):
                        return cls(measure, sign, float(number), bool(rest))
        right = "write deadlock reachable, or MEASURE < NUMBER * against"
        raise BadInput("false_if", f"{text!r} is no criterion", right)

    @property
    def negated(self) -> Criterion:
        """True where this one is false."""
        signs = {**_OPPOSITE, "reachable": "unreachable", "unreachable": "reachable"}
        return replace(self, comparison=signs[self.comparison])

    def met(self, value: Interval | None, against: Interval | None) -> bool | None:
        """Whether what was measured meets the criterion.

        Parameters
        ----------
        value : Interval or None
            What was measured; 1 for reachable and 0 for unreachable; None if nothing was.
        against : Interval or None
            The same in the scenario to compare with.

        Returns
        -------
        bool or None
            None where the intervals leave it open.
        """
        if value is None or (self.relative and against is None):
            return None
        if self.comparison in _REACHED:
            return (value.best == 1.0) == (self.comparison == "reachable")
        bound = against if self.relative and against is not None else Interval(1.0, 1.0, 1.0)
        low, high = self.threshold * bound.low, self.threshold * bound.high
        compare: dict[str, tuple[bool, bool]] = {
            "<": (value.high < low, value.low >= high),
            "<=": (value.high <= low, value.low > high),
            ">": (value.low > high, value.high <= low),
            ">=": (value.low >= high, value.high < low),
        }
        surely, surely_not = compare[self.comparison]
        return True if surely else False if surely_not else None

    def __str__(self) -> str:
        if self.comparison in _REACHED:
            return f"{self.measure} {self.comparison}"
        bound = f"{self.threshold:g}"
        if self.relative:
            bound = "against" if self.threshold == 1.0 else f"{bound} * against"
        return f"{self.measure} {self.comparison} {bound}"


@dataclass(frozen=True)
class Trial:
    """One question to a solver, with the answer that would make the claim false.

    Parameters
    ----------
    name : str
        What is special about it, in a few words.
    scenario : Scenario
        What is solved.
    against : Scenario or None
        What it is compared with.
    solver : str
        ``prove``, ``prove unbounded``, ``exact``, ``rare`` or ``simulate``.
    false_if : Criterion
        What would count as false.
    episodes : int
        Of a simulation.
    rules : tuple of str
        The waiting rules it is solved under.
    """

    name: str
    scenario: Scenario
    against: Scenario | None
    solver: Solver
    false_if: Criterion
    episodes: int = 10_000
    rules: tuple[Waiting, ...] = RULES


@dataclass(frozen=True)
class Claim:
    """A sentence and what it is taken to say; its length is the number of questions it asks.

    Parameters
    ----------
    name : str
        The name of its file.
    place : int
        Where it stands among the others.
    title, author, message, quote, reading : str
        As in the file.
    trials : tuple of Trial
        The sentence in its own setting.
    conditions : tuple of Trial
        The same with something changed.
    """

    name: str
    place: int
    title: str
    author: str
    message: str
    quote: str
    reading: str
    trials: tuple[Trial, ...]
    conditions: tuple[Trial, ...]

    @classmethod
    def from_toml(cls, name: str, text: str) -> Claim:
        """Read a claim (the keys are in the head of this module).

        Parameters
        ----------
        name : str
            For people.
        text : str
            A TOML document.

        Returns
        -------
        Claim
            The claim.

        Raises
        ------
        BadInput
            One line for the first key that is unknown, missing or wrong.
        """
        words = {"title", "author", "message", "quote", "reading"}
        more = {"place", "scenario", "trials", "conditions", "solver", "false_if"}
        table = check_keys("", read_toml(text), words | {"trials"}, more)
        given = {key: " ".join(_text(key, table[key]).split()) for key in words}
        trials = _trials("trials", table)
        if not trials:
            raise BadInput("trials", "none", "write at least one [[trials]] table")
        return cls(
            name=name,
            place=whole_number("place", table.get("place", 0)),
            trials=trials,
            conditions=_trials("conditions", table),
            **given,
        )

    @property
    def negated(self) -> Claim:
        """The opposite claim: what counts as false here counts as true there."""
        trials, conditions = (
            tuple(replace(trial, false_if=trial.false_if.negated) for trial in part)
            for part in (self.trials, self.conditions)
        )
        return replace(self, title=f"not so: {self.title}", trials=trials, conditions=conditions)

    def __len__(self) -> int:
        return sum(len(trial.rules) for trial in (*self.trials, *self.conditions))


@dataclass(frozen=True)
class Finding:
    """What a solver found in one trial under one waiting rule.

    Parameters
    ----------
    trial : Trial
        What was asked.
    condition : bool
        Whether it is one of the claim's conditions.
    waiting : str
        The waiting rule.
    value : Interval or None
        What was measured; exact values have no width; 1 is reachable and 0 is not; None if
        there were too many states or nothing to measure.
    against : Interval or None
        The same in the scenario to compare with.
    states : int
        Merged states explored; 0 of an estimate.
    proof : Proof or None
        The certificate, or the path into a deadlock.
    """

    trial: Trial
    condition: bool
    waiting: Waiting
    value: Interval | None
    against: Interval | None
    states: int
    proof: Proof | None

    @property
    def true(self) -> bool | None:
        """Whether the claim is true here; None if that is undecided."""
        met = self.trial.false_if.met(self.value, self.against)
        return None if met is None else not met

    @property
    def scenario(self) -> Scenario:
        """What was solved."""
        return replace(self.trial.scenario, waiting=self.waiting)

    @property
    def measured(self) -> str:
        """What was found, in a few words."""
        measure = self.trial.false_if.measure
        if self.value is None:
            return "nothing"
        if self.proof is not None:
            if self.value.best == 0.0:
                return f"no {measure} in {self.states} states"
            return f"{measure} in {len(self.proof.path)} steps"
        text = f"{measure} {_number(self.value)}"
        return text if self.against is None else f"{text} against {_number(self.against)}"


@dataclass(frozen=True)
class Verdict(Preformatted):
    """A claim and what was found about it.

    Parameters
    ----------
    claim : Claim
        The claim.
    findings : tuple of Finding
        Of its trials, then of its conditions, under each waiting rule.
    """

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def word(self) -> Word:
        """``holds``, ``fails``, ``depends`` or ``undecided``, over both waiting rules."""
        return _word(f.true for f in self.findings if not f.condition)

    def under(self, waiting: Waiting) -> Word:
        """The verdict under one waiting rule.

        Parameters
        ----------
        waiting : str
            ``asleep`` or ``racing``.

        Returns
        -------
        str
            The word.
        """
        found = [f for f in self.findings if f.waiting == waiting and not f.condition]
        return _word(f.true for f in found)

    @property
    def flips(self) -> tuple[Finding, ...]:
        """The conditions in which the opposite of the verdict is true, under the same rule."""
        truth = {"holds": True, "fails": False}
        return tuple(
            f
            for f in self.findings
            if f.condition
            and f.true is not None
            and truth.get(self.under(f.waiting), f.true) != f.true
        )

    def frame(self) -> pd.DataFrame:
        """The findings as a tidy frame.

        Returns
        -------
        DataFrame
            A row for each: claim, title, author, part (``trial`` or ``condition``), trial,
            waiting, solver, false_if, low, best and high of what was measured (1: reachable),
            against, true, states, steps of a shortest path into trouble (-1 without one),
            measured in words, digest, rules.
        """
        nothing = Interval(*[float("nan")] * 3)
        return pd.DataFrame(
            [
                {
                    "claim": self.claim.name,
                    "title": self.claim.title,
                    "author": self.claim.author,
                    "part": "condition" if f.condition else "trial",
                    "trial": f.trial.name,
                    "waiting": f.waiting,
                    "solver": f.trial.solver,
                    "false_if": str(f.trial.false_if),
                    "low": (f.value or nothing).low,
                    "best": (f.value or nothing).best,
                    "high": (f.value or nothing).high,
                    "against": (f.against or nothing).best,
                    "true": f.true,
                    "states": f.states,
                    "steps": len(f.proof.path) if f.proof and f.proof.story else -1,
                    "measured": f.measured,
                    "digest": f.scenario.digest,
                    "rules": RULES_VERSION,
                }
                for f in self.findings
            ]
        ).astype({"true": "object"})

    def document(self) -> dict[str, Any]:
        """The verdict as plain values.

        Returns
        -------
        dict
            What `to_json` writes.
        """
        rows = self.frame().to_dict("records")
        for row, finding in zip(rows, self.findings, strict=True):
            for key in ("claim", "title", "author"):
                del row[key]
            for key in ("low", "best", "high", "against"):
                row[key] = None if row[key] != row[key] else row[key]
            row["path"] = [e.text for e in finding.proof.path] if finding.proof else []
        words = ("name", "title", "author", "message", "quote", "reading")
        return {
            **{key: getattr(self.claim, key) for key in words},
            "verdict": self.word,
            **{rule: self.under(rule) for rule in RULES},
            "flips": _named(self.flips),
            "findings": rows,
        }

    def to_json(self) -> str:
        """The verdict as JSON.

        Returns
        -------
        str
            One object; the paths as text, a line each.
        """
        return json.dumps(self.document())

    @property
    def counterexample(self) -> Finding | None:
        """Of the trials, then the conditions, the first with a path into trouble."""
        return next((f for f in self.findings if f.proof and f.proof.story), None)

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines())

    def _lines(self) -> Iterator[str]:
        rules = ", ".join(f"{rule} {self.under(rule)}" for rule in RULES)
        yield from wrap(f"{self.claim.title}: {rules}")
        yield from wrap(f'  "{self.claim.quote}"', "  ")
        yield from wrap(f"  {self.claim.author}, in <{self.claim.message}>", "  ")
        yield ""
        yield from wrap(self.claim.reading)
        for condition in (False, True):
            found = [f for f in self.findings if f.condition == condition]
            if found:
                yield ""
                yield "conditions:" if condition else "trials:"
            for trial in dict.fromkeys(f.trial for f in found):
                asked = f"- {trial.name}: {trial.solver}, false if {trial.false_if}"
                yield from wrap(asked, "  ")
                for f in found:
                    if f.trial == trial:
                        truth = {True: "true", False: "false", None: "undecided"}[f.true]
                        yield from wrap(f"    {f.waiting}: {truth}: {f.measured}", "    ")
        shown = self.counterexample
        if shown is not None and shown.proof is not None:
            yield ""
            yield from wrap(f"{shown.trial.name}:")
            yield str(shown.proof)


@dataclass(frozen=True)
class Verdicts(Preformatted):
    """Verdicts on several claims, in their order.

    Parameters
    ----------
    verdicts : tuple of Verdict
        One for each claim.
    """

    verdicts: tuple[Verdict, ...]

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __getitem__(self, name: str) -> Verdict:
        return {verdict.claim.name: verdict for verdict in self}[name]

    def frame(self) -> pd.DataFrame:
        """All findings as one tidy frame.

        Returns
        -------
        DataFrame
            The rows of each `Verdict.frame`.
        """
        return pd.concat([verdict.frame() for verdict in self], ignore_index=True)

    def to_json(self) -> str:
        """The verdicts as JSON.

        Returns
        -------
        str
            One object with the version of the rules and a list of claims.
        """
        claims = [verdict.document() for verdict in self]
        return json.dumps({"rules": RULES_VERSION, "claims": claims})

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{'claim':41}{'author':11}{'asleep':10}{'racing':10}"
        yield "-" * WIDTH
        for verdict in self:
            title = wrap(verdict.claim.title, width=40) or [""]
            author = plain(verdict.claim.author).split()[-1][:10]
            rules = (verdict.under("asleep"), verdict.under("racing"))
            yield f"{title[0]:41}{author:11}{rules[0]:10}{rules[1]:10}"
            yield from title[1:]
            for line in _why(verdict):
                yield from wrap(f"    {line}", "    ")


def load(folder: Path | None = None) -> tuple[Claim, ...]:
    """Read the claims that come with the package.

    Parameters
    ----------
    folder : Path, optional
        Where to look instead.

    Returns
    -------
    tuple of Claim
        In the order of their places.

    Raises
    ------
    BadInput
        One line for the first key that is wrong, its file named.
    """
    claims = []
    for file in (folder or data_folder() / "claims").iterdir():
        if file.name.endswith(".toml"):
            name = file.name.removesuffix(".toml")
            try:
                claims.append(Claim.from_toml(name, file.read_text(encoding="utf-8")))
            except BadInput as error:
                raise within(f"claims/{file.name}", error) from None
    return tuple(sorted(claims, key=lambda claim: (claim.place, claim.name)))


def judge(
    claim: Claim,
    limit: int = 2_000_000,
    seed: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> Verdict:
    """Solve a claim's trials and conditions.

    Parameters
    ----------
    claim : Claim
        What to judge.
    limit : int
        The most states to store for one trial; what needs more is undecided.
    seed : int
        Of estimates.
    progress : callable, optional
        Called after each finding with the number done and the number in all.

    Returns
    -------
    Verdict
        The verdict.
    """
    asked = [
        (trial, condition, waiting)
        for condition, part in ((False, claim.trials), (True, claim.conditions))
        for trial in part
        for waiting in trial.rules
    ]
    findings = []
    for trial, condition, waiting in asked:
        findings.append(_find(trial, condition, waiting, limit, seed))
        if progress is not None:
            progress(len(findings), len(asked))
    return Verdict(claim, tuple(findings))


def judge_all(
    claims: Iterable[Claim] | None = None,
    limit: int = 2_000_000,
    seed: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> Verdicts:
    """Judge several claims.

    Parameters
    ----------
    claims : iterable of Claim, optional
        All that come with the package unless given.
    limit : int
        The most states to store for one trial; what needs more is undecided.
    seed : int
        Of estimates.
    progress : callable, optional
        Called after each finding with the number done and the number in all.

    Returns
    -------
    Verdicts
        One for each claim.
    """
    claims = load() if claims is None else tuple(claims)
    total = sum(map(len, claims))
    done = 0

    def count(_: int, __: int) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return Verdicts(tuple(judge(claim, limit, seed, count) for claim in claims))


def _find(trial: Trial, condition: bool, waiting: Waiting, limit: int, seed: int) -> Finding:
    measure = trial.false_if.measure
    value = against = None
    states, proof = 0, None
    try:
        scenario = replace(trial.scenario, waiting=waiting)
        value, states, proof = _measure(
            trial.solver, measure, scenario, trial.episodes, limit, seed
        )
        if trial.against is not None:
            other = replace(trial.against, waiting=waiting)
            against, _, _ = _measure(trial.solver, measure, other, trial.episodes, limit, seed)
    except BadInput as error:
        if not error.undecided:
            raise within(f"{trial.name!r}", error) from None
        value = None
    return Finding(trial, condition, waiting, value, against, states, proof)


# Claims share scenarios, and a negated one has all of them; a solver gives the same each time.
@lru_cache(maxsize=4096)
def _measure(
    solver: Solver, measure: str, scenario: Scenario, episodes: int, limit: int, seed: int
) -> tuple[Interval | None, int, Proof | None]:
    if solver in ("prove", "prove unbounded"):
        proof = _proof(scenario, solver, limit)
        free = {
            "deadlock": proof.deadlock_free,
            "livelock": proof.livelock_free,
            "trouble": proof.safe and proof.livelock_free,
        }
        return _sharp(float(not free[measure])), proof.states, proof
    if solver == "exact":
        solved = _exact(scenario, limit)
        value: float | None = getattr(solved, measure)
        return None if value is None else _sharp(value), solved.states, None
    if solver == "rare":
        return rare(scenario, seed=seed).probability, 0, None
    estimate: Interval = getattr(simulate(scenario, episodes, seed), measure)
    return estimate, 0, None


@lru_cache(maxsize=1024)
def _proof(scenario: Scenario, solver: Solver, limit: int) -> Proof:
    return prove(scenario, "unbounded" if solver == "prove unbounded" else "own", limit)


@lru_cache(maxsize=1024)
def _exact(scenario: Scenario, limit: int) -> Any:  # noqa: ANN401 - mypy sees no type in a cache
    return exact(scenario, limit)


def _sharp(value: float) -> Interval:
    return Interval(value, value, value)


# --- Files ---------------------------------------------------------------------------------------


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadInput(key, f"{value!r} is not text", "give a string")
    return value


def _trials(key: str, table: Mapping[str, Any]) -> tuple[Trial, ...]:
    entries = table.get(key, [])
    if not isinstance(entries, list):
        raise BadInput(key, f"{entries!r} is not a list", f"write [[{key}]] tables")
    made = []
    for index, entry in enumerate(entries):
        try:
            made.append(_trial(entry, table))
        except BadInput as error:
            raise within(f"{key}[{index}]", error) from None
    names = [trial.name for trial in made]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(key, f"two are named {name!r}", "give each a name of its own")
    return tuple(made)


def _trial(entry: object, shared: Mapping[str, Any]) -> Trial:
    own = {"solver", "false_if", "scenario", "against", "episodes"}
    table = check_keys("", entry, {"name"}, own)
    # What all trials share stands once, at the head of the file.
    given = {key: shared[key] for key in ("solver", "false_if") if key in shared} | dict(table)
    for key in ("solver", "false_if"):
        if key not in given:
            raise BadInput(key, "missing", "give it here or at the head of the file")
    if given["solver"] not in get_args(Solver):
        right = f"one of {', '.join(get_args(Solver))}"
        raise BadInput("solver", f"{given['solver']!r} is unknown", right)
    solver: Solver = given["solver"]
    false_if = Criterion.from_text(given["false_if"])
    reached = false_if.comparison in _REACHED
    measures = _MEASURES.get(solver, _ENDS)
    if reached != (measures == _ENDS) or false_if.measure not in measures:
        ends = [f"{end} {word}" for end in _ENDS for word in _REACHED]
        right = f"one of {', '.join(ends if measures == _ENDS else measures)}"
        raise BadInput("false_if", f"{str(false_if)!r} is not for {solver!r}", right)
    if false_if.relative != ("against" in table):
        right = "give against exactly where false_if compares with it"
        raise BadInput("against", "present" if "against" in table else "missing", right)
    episodes = 10_000
    if "episodes" in table:
        if solver != "simulate":
            raise BadInput("episodes", f"beside the solver {solver!r}", "leave it out")
        episodes = whole_number("episodes", table["episodes"], 1)
    tables = _laid_over(shared.get("scenario", {}), table.get("scenario", {}))
    against = None
    if "against" in table:
        against = _scenario("against", _laid_over(tables, table["against"]))
    return Trial(
        name=_text("name", table["name"]),
        scenario=_scenario("scenario", tables),
        against=against,
        solver=solver,
        false_if=false_if,
        episodes=episodes,
        rules=(tables["waiting"],) if "waiting" in tables else RULES,
    )


def _scenario(key: str, tables: Mapping[str, Any]) -> Scenario:
    try:
        return Scenario.from_table(tables)
    except BadInput as error:
        raise within(key, error) from None


def _laid_over(base: object, over: object) -> dict[str, Any]:
    """A scenario's tables with others laid over them; lists of mounts are laid one by one."""
    made: dict[str, Any] = {}
    for tables in (base, over):
        if not isinstance(tables, Mapping):
            raise BadInput("scenario", f"{tables!r} is not a table", "write a scenario's tables")
        for key, value in tables.items():
            below = made.get(key)
            if key == "machine":
                made[key] = _merged(below, value)
            elif key == "mounts" and isinstance(below, list) and isinstance(value, list):
                pairs: Iterable[Any] = itertools.zip_longest(below, value, fillvalue={})
                made[key] = [_merged(old, new) for old, new in pairs]
            else:
                made[key] = value
    return made


def _merged(below: object, value: object) -> object:
    if isinstance(below, Mapping) and isinstance(value, Mapping):
        return {**below, **value}
    return value


# --- Words ---------------------------------------------------------------------------------------


def _word(truths: Iterable[bool | None]) -> Word:
    found = set(truths)
    if {True, False} <= found:
        return "depends"
    if None in found or not found:
        return "undecided"
    return "holds" if True in found else "fails"


def _named(findings: Iterable[Finding]) -> list[str]:
    """Names of trials, each once; with the waiting rule where it is true of one rule only."""
    rules: dict[str, list[str]] = {}
    every: dict[str, tuple[Waiting, ...]] = {}
    for finding in findings:
        rules.setdefault(finding.trial.name, []).append(finding.waiting)
        every[finding.trial.name] = finding.trial.rules
    return [
        name if len(found) == len(every[name]) else f"{name} ({', '.join(found)})"
        for name, found in rules.items()
    ]


def _why(verdict: Verdict) -> Iterator[str]:
    """What a verdict hangs on, for the table."""
    trials = [f for f in verdict.findings if not f.condition]
    parts = {
        "false": [f for f in trials if f.true is False and verdict.word == "depends"],
        "undecided": [f for f in trials if f.true is None],
        "flips with": verdict.flips,
    }
    for what, found in parts.items():
        if found:
            yield f"{what}: {'; '.join(_named(found))}"


def _number(value: Interval) -> str:
    if value.low == value.high:
        return f"{value.best:.6g}"
    return str(value)
