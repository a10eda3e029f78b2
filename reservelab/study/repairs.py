"""Repairs of the proposal of 6 November 2004, and what each costs.

Schemes and situations stand in data/repairs.toml. Each scheme is put into each situation, proved
there or led into a deadlock by a shortest path, and solved: idle pages and throughput are exact.
Where a deadlock is reachable both are averages until the episode ends, in a deadlock or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reservelab.model.catalogue import data_folder
from reservelab.model.errors import BadInput, within
from reservelab.model.plain_text import Preformatted
from reservelab.model.scenario import RULES_VERSION, Scenario, Waiting, check_keys, read_toml
from reservelab.solve.exact import Exact, exact
from reservelab.solve.prove import Proof, prove
from reservelab.solve.states import TooManyStates
from reservelab.study.claims import RULES

_FILE = "repairs.toml"


@dataclass(frozen=True)
class Outcome:
    """A scheme in a situation under one waiting rule.

    Parameters
    ----------
    scheme, situation : str
        Their names.
    waiting : str
        The waiting rule.
    scenario : Scenario or None
        What was solved; None if the machine has no room for what the scheme sets aside.
    proof : Proof or None
        None without room, or with too many states.
    exact : Exact or None
        The same.
    """

    scheme: str
    situation: str
    waiting: Waiting
    scenario: Scenario | None
    proof: Proof | None
    exact: Exact | None

    @property
    def verdict(self) -> str:
        """``safe``, ``unsafe``, ``undecided`` or ``no room``."""
        if self.scenario is None:
            return "no room"
        if self.proof is None:
            return "undecided"
        return "safe" if self.proof.safe and self.proof.livelock_free else "unsafe"


@dataclass(frozen=True)
class Repairs(Preformatted):
    """Every scheme in every situation.

    Parameters
    ----------
    outcomes : tuple of Outcome
        Scheme by scheme, in the order of the file.
    """

    outcomes: tuple[Outcome, ...]

    def frame(self) -> pd.DataFrame:
        """The outcomes as a tidy frame.

        Returns
        -------
        DataFrame
            A row for each: scheme, variant, situation, waiting, verdict, steps of a shortest path
            into a deadlock (-1 without one), states, and of the exact values deadlock_probability,
            idle_reserve_mean and throughput; digest and rules.
        """
        values = ("deadlock_probability", "idle_reserve_mean", "throughput")
        return pd.DataFrame(
            [
                {
                    "scheme": o.scheme,
                    "variant": o.scenario.scheme.variant if o.scenario else "",
                    "situation": o.situation,
                    "waiting": o.waiting,
                    "verdict": o.verdict,
                    "steps": len(o.proof.path) if o.proof and o.proof.story else -1,
                    "states": o.proof.states if o.proof else 0,
                    **{name: getattr(o.exact, name, None) for name in values},
                    "digest": o.scenario.digest if o.scenario else "",
                    "rules": RULES_VERSION,
                }
                for o in self.outcomes
            ]
        ).astype(dict.fromkeys(values, float))

    def to_json(self) -> str:
        """The outcomes as JSON.

        Returns
        -------
        str
            One object with a list of rows.
        """
        frame = self.frame().astype(object)
        rows = frame.where(frame.notna(), None).to_dict("records")
        return json.dumps({"rules": RULES_VERSION, "outcomes": rows})

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines())

    def _lines(self) -> Iterator[str]:
        # A value of an episode that may die is marked.
        yield from self._block("steps of a shortest path into a deadlock, asleep/racing", _steps)
        for rule in RULES:
            for what, name, scale in (
                ("idle pages", "idle_reserve_mean", 1),
                ("writepages in 100 steps of a thread", "throughput", 100),
            ):
                yield ""
                yield from self._block(f"{what}, {rule}", _value(name, scale, rule))
        yield ""
        yield "safe: no deadlock is reachable. *: until the episode ends, which a"
        yield "deadlock may do. no room: more pages set aside than there are."

    def _block(self, title: str, cell: Callable[[list[Outcome]], str]) -> Iterator[str]:
        situations = dict.fromkeys(o.situation for o in self.outcomes)
        yield title
        yield f"{'':32}" + "".join(f"{name[:7]:>8}" for name in situations)
        for scheme in dict.fromkeys(o.scheme for o in self.outcomes):
            cells = [
                cell([o for o in self.outcomes if (o.scheme, o.situation) == (scheme, situation)])
                for situation in situations
            ]
            yield f"{scheme[:31]:32}" + "".join(f"{text:>8}" for text in cells)


def repairs(
    limit: int = 2_000_000, progress: Callable[[int, int], object] | None = None
) -> Repairs:
    """Put every scheme of data/repairs.toml into every situation, under both waiting rules.

    Parameters
    ----------
    limit : int
        The most states to store for one question; what needs more is undecided.
    progress : callable, optional
        Called after each outcome with the number done and the number in all.

    Returns
    -------
    Repairs
        The outcomes.

    Raises
    ------
    BadInput
        If the file is wrong; one line names the key.
    """
    return read_repairs((data_folder() / _FILE).read_text(encoding="utf-8"), limit, progress)


def read_repairs(
    text: str, limit: int = 2_000_000, progress: Callable[[int, int], object] | None = None
) -> Repairs:
    """Compare the schemes of a file like data/repairs.toml.

    Parameters
    ----------
    text : str
        A TOML document.
    limit : int
        The most states to store for one question.
    progress : callable, optional
        Called after each outcome with the number done and the number in all.

    Returns
    -------
    Repairs
        The outcomes.
    """
    cells = list(_cells(text))
    outcomes = []
    for scheme, situation, waiting, scenario in cells:
        proof = solved = None
        if scenario is not None:
            try:
                proof = prove(scenario, limit=limit)
                solved = exact(scenario, limit=limit)
            except TooManyStates:
                pass
        outcomes.append(Outcome(scheme, situation, waiting, scenario, proof, solved))
        if progress is not None:
            progress(len(outcomes), len(cells))
    return Repairs(tuple(outcomes))


def _cells(text: str) -> Iterator[tuple[str, str, Waiting, Scenario | None]]:
    table = check_keys("", read_toml(text), {"schemes", "situations"}, set())
    schemes, situations = table["schemes"], table["situations"]
    if not isinstance(schemes, list) or not schemes:
        raise BadInput("schemes", f"{schemes!r} is no list", "write [[schemes]] tables")
    if not isinstance(situations, Mapping) or not situations:
        right = "write [situations.NAME] tables"
        raise BadInput("situations", f"{situations!r} is no table", right)
    for i, entry in enumerate(schemes):
        scheme = check_keys(f"schemes[{i}]", entry, {"name", "scheme"}, set())
        for name, tables in situations.items():
            given = check_keys(f"situations.{name}", tables, {"machine", "mounts"}, {"quota"})
            for waiting in RULES:
                whole = {**given, "scheme": scheme["scheme"], "waiting": waiting}
                made: Scenario | None = None
                try:
                    made = Scenario.from_table(whole)
                except BadInput as error:
                    # What is wrong with the scheme itself has a key inside it.
                    if error.key != "reserve":
                        inside = error.key.partition(".")[0] == "scheme"
                        place = f"schemes[{i}]" if inside else f"situations.{name}"
                        raise within(place, error) from None
                yield str(scheme["name"]), name, waiting, made


def _steps(outcomes: Iterable[Outcome]) -> str:
    """Of both rules; one word where it is the same."""
    words = []
    for o in outcomes:
        steps = str(len(o.proof.path)) if o.proof else "?"
        words.append(steps if o.verdict in ("unsafe", "undecided") else o.verdict)
    return words[0] if len(set(words)) == 1 else "/".join(words)


def _value(name: str, scale: int, rule: Waiting) -> Callable[[list[Outcome]], str]:
    def cell(outcomes: list[Outcome]) -> str:
        (outcome,) = (o for o in outcomes if o.waiting == rule)
        value: Any = getattr(outcome.exact, name, None)
        if value is None:
            return "" if outcome.scenario is None else "?"
        return f"{scale * value:.2f}" + ("*" if outcome.verdict == "unsafe" else " ")

    return cell
