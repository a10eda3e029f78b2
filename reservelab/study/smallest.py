"""The smallest unsafe configuration of a scenario, over threads and pages.

A counterexample of two threads and three pages is read by more people than one of eight and forty,
and where it ends says what a scheme costs: `prove` is asked of every number of threads and pages in
a rectangle.

Threads are added one by one to the kinds of threads that a scenario has (the flushers and the
dirtiers of each mount), each to the kind that is furthest behind its share (Sainte-Lague's divisors
1, 3, 5, ...): a larger configuration has all the threads of a smaller one, and the scenario's own
number of threads gives the scenario itself. Loop workers are as many as there are stacked mounts.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from reservelab.model.errors import BadInput, whole_number
from reservelab.model.plain_text import WIDTH, Preformatted
from reservelab.model.scenario import RULES_VERSION, Scenario
from reservelab.solve.prove import Proof, prove
from reservelab.solve.states import TooManyStates

_SIGNS = {"safe": ".", "unsafe": "X", "undecided": "?", "no room": "-"}
_AHEAD = 8  # configurations for each worker, so that a long one in front stops nobody
_Answer = tuple[dict[str, object], Proof | None]


@dataclass(frozen=True, eq=False)
class Smallest(Preformatted):
    """What was found out about each number of threads and pages.

    Parameters
    ----------
    scenario : Scenario
        What was scaled.
    quota : int or None
        The scenario's own; None if threads start over for ever.
    table : DataFrame
        A row for each configuration, fewest threads first, then fewest pages: ``threads``,
        ``pages``, ``reserve`` (-1: the scheme has none), ``digest``, ``verdict`` (``safe``,
        ``unsafe``, ``undecided``: more states than the limit, or ``no room``: fewer pages than
        the scheme sets aside), ``states`` stored and ``steps`` of the shortest path into trouble.
    proof : Proof or None
        Of the smallest unsafe configuration: the one of fewest threads, and among these of fewest
        pages; None if none is known to be unsafe.
    """

    scenario: Scenario
    quota: int | None
    table: pd.DataFrame
    proof: Proof | None

    @property
    def safe(self) -> bool | None:
        """False if a configuration is unsafe, True if all valid ones are safe, else None."""
        if self.proof is not None:
            return False
        return None if (self.table.verdict == "undecided").any() else True

    @property
    def smallest(self) -> tuple[int, int] | None:
        """Threads and pages of the smallest unsafe configuration; None if none is known."""
        if self.proof is None:
            return None
        return self.proof.scenario.threads, self.proof.scenario.machine.pages

    @property
    def undecided_below(self) -> int:
        """How many configurations that come before the smallest unsafe one are undecided."""
        undecided = (self.table.verdict == "undecided").to_numpy()
        if self.proof is not None:
            undecided = undecided[: int((self.table.verdict == "unsafe").to_numpy().argmax())]
        return int(undecided.sum())

    def frame(self) -> pd.DataFrame:
        """The table, tidy.

        Returns
        -------
        DataFrame
            A copy.
        """
        return self.table.copy()

    def to_json(self) -> str:
        """The answer as JSON.

        Returns
        -------
        str
            One object: ``safe`` (null: undecided), ``smallest``, ``undecided_below``, the table,
            and the proof.
        """
        return json.dumps(
            {
                "digest": self.scenario.digest,
                "rules": RULES_VERSION,
                "quota": self.quota,
                "safe": self.safe,
                "smallest": self.smallest,
                "undecided_below": self.undecided_below,
                "configurations": self.table.to_dict("records"),
                "proof": json.loads(self.proof.to_json()) if self.proof else None,
            }
        )

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if self.smallest is not None:
            threads, pages = self.smallest
            yield f"UNSAFE, the smallest with {threads} threads and {pages} pages"
            if self.undecided_below:
                yield f"the smallest known: {self.undecided_below} before it are undecided"
        elif self.safe:
            yield "SAFE in every valid configuration tried"
        else:
            yield f"UNDECIDED: none known to be unsafe, {self.undecided_below} not decided"
        quota = "an unbounded quota" if self.quota is None else f"a quota of {self.quota}"
        yield f"{self.scenario.scheme.variant}, {self.scenario.waiting}, with {quota}"
        yield ""
        yield from self._grid()
        if self.proof is not None:
            yield ""
            yield f"the smallest, scenario {self.proof.scenario.digest[:16]}:"
            yield str(self.proof)
        else:
            yield f"scaled from scenario {self.scenario.digest[:16]}, rules {RULES_VERSION}"

    def _grid(self) -> Iterator[str]:
        """A line for each number of threads, a sign for each number of pages."""
        wide = self.table.pivot_table(
            index="threads", columns="pages", values="verdict", aggfunc="first"
        )
        sizes = [int(pages) for pages in wide.columns]
        cell = len(str(sizes[-1])) + 1
        a_row = (WIDTH - 8) // cell
        for first in range(0, len(sizes), a_row):
            shown = sizes[first : first + a_row]
            yield (
                "threads "
                + "".join(f"{pages:{cell}}" for pages in shown)
                + ("  pages" if 15 + cell * len(shown) <= WIDTH else "")
            )
            for threads, row in wide.iterrows():
                yield f"{threads:7} " + "".join(f"{_SIGNS[row[n]]:>{cell}}" for n in shown)
        yield "X unsafe, . proved safe, ? undecided, - fewer pages than set aside"


def smallest(
    scenario: Scenario,
    threads_up_to: int | None = None,
    pages_up_to: int | None = None,
    pages_from: int | None = None,
    reserve: Literal["fixed", "follows"] = "fixed",
    quota: Literal["own", "unbounded"] = "own",
    limit: int = 1_000_000,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Smallest:
    """Find the smallest unsafe configuration of a scenario over threads and pages.

    The order is: fewest threads, then fewest pages. Every configuration in the bounds is asked, so
    the table shows where the danger ends too; the answer does not depend on the number of workers.

    Parameters
    ----------
    scenario : Scenario
        What to scale; its threads and pages are only shares and default bounds.
    threads_up_to : int, optional
        The most threads; the scenario's own number unless given.
    pages_up_to : int, optional
        The most pages; the scenario's own number unless given.
    pages_from : int, optional
        The fewest pages; unless given the largest nr_pages of a mount, for with fewer one writepage
        alone may not fit, and no scheme can help that.
    reserve : str
        ``fixed``: as many pages as the scenario's scheme sets aside; ``follows``: with every page
        more or less the reserve has one more or less, and what is outside of it stays.
    quota : str
        ``own`` or ``unbounded``, as in `prove`.
    limit : int
        The most states to store for one configuration; beyond it, it is undecided.
    workers : int, optional
        Threads to compute with; all processors unless given.
    progress : callable, optional
        Called with how many configurations are decided and how many there are.

    Returns
    -------
    Smallest
        The table, and the proof of the smallest unsafe configuration.

    Raises
    ------
    BadInput
        If a bound is out of range, no configuration in the bounds is valid, or the reserve is to
        follow where there is none.
    """
    if reserve not in ("fixed", "follows"):
        raise BadInput("reserve", f"{reserve!r} is unknown", "one of fixed, follows")
    if quota not in ("own", "unbounded"):
        raise BadInput("quota", f"{quota!r} is unknown", "one of own, unbounded")
    if reserve == "follows" and scenario.reserve is None:
        variant = scenario.scheme.variant
        raise BadInput("reserve", f"there is none to follow with {variant!r}", "leave it fixed")
    threads = whole_number("threads_up_to", _given(threads_up_to, scenario.threads), 1)
    most = whole_number("pages_up_to", _given(pages_up_to, scenario.machine.pages))
    fewest = whole_number("pages_from", _given(pages_from, min(scenario.need, most)))
    if most < fewest:
        raise BadInput("pages_up_to", f"{most} is below the {fewest} to start from", "give more")
    count = whole_number("workers", _given(workers, os.cpu_count() or 1), 1)
    _scaled(scenario, threads, most, reserve)  # what is too large is so before anything is asked

    def ask(number: int, pages: int) -> _Answer:
        one = _scaled(scenario, number, pages, reserve)
        size = None if one is None else one.reserve
        row: dict[str, object] = {
            "threads": number, "pages": pages, "reserve": -1 if size is None else size,
            "digest": "" if one is None else one.digest,
            "verdict": "no room", "states": 0, "steps": 0,
        }  # fmt: skip
        if one is None:
            return row, None
        try:
            proof = prove(one, quota, limit)
        except TooManyStates:
            return row | {"verdict": "undecided"}, None
        verdict = "safe" if proof.safe else "unsafe"
        return row | {"verdict": verdict, "states": proof.states, "steps": len(proof.path)}, proof

    rows: list[dict[str, object]] = []
    found: Proof | None = None
    cells = ((n, m) for n in range(1, threads + 1) for m in range(fewest, most + 1))
    pool = ThreadPoolExecutor(count, thread_name_prefix="smallest")
    try:
        for row, proof in _answers(pool, ask, cells, _AHEAD * count):
            rows.append(row)
            if found is None and row["verdict"] == "unsafe":
                found = proof
            if progress is not None:
                progress(len(rows), threads * (most - fewest + 1))
    finally:
        pool.shutdown(cancel_futures=True)
    if all(row["verdict"] == "no room" for row in rows):
        wrong = f"{most} is fewer than the scheme sets aside, whatever the threads"
        raise BadInput("pages_up_to", wrong, "give more")
    own = scenario.quota if quota == "own" else None
    return Smallest(scenario, own, pd.DataFrame(rows), found)


def _answers(
    pool: ThreadPoolExecutor,
    ask: Callable[[int, int], _Answer],
    cells: Iterable[tuple[int, int]],
    ahead: int,
) -> Iterator[_Answer]:
    """Answers in the order of the cells, of which no more than so many are ahead of the reader."""
    asked: deque[Future[_Answer]] = deque()
    for cell in cells:
        asked.append(pool.submit(ask, *cell))
        if len(asked) == ahead:
            yield asked.popleft().result()
    while asked:
        yield asked.popleft().result()


def _given(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _scaled(scenario: Scenario, threads: int, pages: int, reserve: str) -> Scenario | None:
    """The scenario with so many threads and pages; None if the scheme sets more pages aside."""
    shares = [n for mount in scenario.mounts for n in (mount.flushers, mount.dirtiers)]
    counts = [0] * len(shares)
    for _ in range(threads):
        # The largest quotient is next; of equal ones the first.
        quotients = [share / (2 * count + 1) for share, count in zip(shares, counts, strict=True)]
        counts[quotients.index(max(quotients))] += 1
    mounts = tuple(
        replace(mount, flushers=counts[2 * k], dirtiers=counts[2 * k + 1])
        for k, mount in enumerate(scenario.mounts)
    )
    scheme = scenario.scheme
    size = scenario.reserve
    if reserve == "follows" and size is not None:
        size += pages - scenario.machine.pages
        if size < 0:
            return None
        scheme = replace(scheme, reserve=size)
    machine = replace(scenario.machine, pages=pages)
    try:
        return replace(scenario, machine=machine, mounts=mounts, scheme=scheme)
    except BadInput as error:
        if error.key != "reserve":
            raise
        return None
