"""The tally: what came out of a run, as a value that adds up.

A tally is a set of rows, one for each batch: its address (seed, batch), counts, and sums over its
episodes. Adding two tallies unites their rows; a row both have must be the same in both. Sums are
taken over the rows in the order of their addresses, so the order of additions does not matter.

Averages over time are E[integral over an episode] / E[duration], ratios of expectations (MODEL.md
section 5); their intervals follow from the episodes' first and second moments by the delta method
(Cochran 1977, section 6.3).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaincc

from reservelab.model.errors import BadInput
from reservelab.model.interval import Interval
from reservelab.model.pack import REASONS
from reservelab.model.scenario import RULES_VERSION, Scenario

COUNTS = (
    "episodes", "deadlocks", "unfinished", "events", "completed", "redirtied", "oom_kills"
)  # fmt: skip
MEANS = (
    "duration", "inside", "waiting_entry", "waiting_pages", "waiting_semaphore", "waiting_locks",
    "idle", "idle_peak", "completed",
)  # fmt: skip
PRODUCTS = len(MEANS) * (len(MEANS) + 1) // 2
_Z95 = 1.959963984540054
ESTIMATES = (
    "deadlock_probability", "throughput", "duration", "idle_mean", "idle_peak", "inside",
    "waiting_entry", "waiting_pages", "waiting_semaphore", "waiting_locks", "latency",
)  # fmt: skip


def clopper_pearson(successes: int, certain: int, trials: int) -> Interval:
    """The 95 % Clopper-Pearson interval of a probability.

    Parameters
    ----------
    successes : int
        Trials that succeeded.
    certain : int
        Trials that did not fail: the successes and those of unknown outcome.
    trials : int
        All trials.

    Returns
    -------
    Interval
        The lower bound takes the unknown ones for failures, the upper bound for successes.
    """
    if trials == 0:
        return Interval(0.0, math.nan, 1.0)
    low, best, high = 0.0, successes / trials, 1.0
    # Not betaincinv: of a thousand successes in a billion it says 1903 as the lower bound (SciPy
    # 1.17, Boost's inverse at a shape of exactly 1000). Nor binomtest: it searches to 2e-12 only.
    search = partial(brentq, xtol=1e-300, rtol=1e-14)
    if successes > 0:
        shape = successes, trials - successes + 1
        low = search(lambda p: betainc(*shape, p) - 0.025, 0.0, best)
    if certain < trials:
        other = certain + 1, trials - certain
        high = search(lambda p: betaincc(*other, p) - 0.025, certain / trials, 1.0)
    return Interval(low, best, high)


@dataclass(frozen=True, eq=False)
class Tally:
    """What came out of episodes of one scenario.

    Parameters
    ----------
    scenario : Scenario
        What was run.
    event_limit : int
        Events after which an episode was stopped and counted as unfinished.
    keys : ndarray of int64, shape (rows, 2)
        Seed and batch of each row.
    counts : ndarray of int64, shape (rows, 7)
        `COUNTS` of each row.
    sums : ndarray of float64, shape (rows, 9)
        Sums of `MEANS` over the row's episodes: duration, integrals over time, peak, writepages.
    products : ndarray of float64, shape (rows, 45)
        Sums of their products, the upper triangle row by row.
    reasons : ndarray of int32, shape (rows, 256)
        Deadlocks by the set of what the stuck threads waited for, bit k for ``REASONS[k]``.
    """

    scenario: Scenario
    event_limit: int
    keys: NDArray[np.int64]
    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    products: NDArray[np.float64]
    reasons: NDArray[np.int32]

    def __post_init__(self) -> None:
        rows = len(self.keys)
        shapes = [part.shape for part in self._parts()]
        right = [(rows, 2), (rows, len(COUNTS)), (rows, len(MEANS)), (rows, PRODUCTS), (rows, 256)]
        if shapes != right:
            raise ValueError(f"a tally's parts have shapes {shapes}, expected {right}")
        if (self.counts[:, 1] + self.counts[:, 2] > self.counts[:, 0]).any():
            raise ValueError("more deadlocked and unfinished episodes than episodes")
        if (self.reasons.sum(axis=1) != self.counts[:, 1]).any():
            raise ValueError("the reasons of the deadlocks do not add up to the deadlocks")

    def _parts(self) -> tuple[NDArray[Any], ...]:
        return self.keys, self.counts, self.sums, self.products, self.reasons

    @classmethod
    def merge(cls, tallies: Iterable[Tally]) -> Tally:
        """Unite the rows of tallies of the same scenario.

        Parameters
        ----------
        tallies : iterable of Tally
            At least one.

        Returns
        -------
        Tally
            Rows sorted by address; a row that several have stands once.

        Raises
        ------
        ValueError
            If they are not of the same scenario, event limit and rules, or if the same batch has
            other counts in one than in another.
        """
        parts = list(tallies)
        if not parts:
            raise ValueError("no tally to merge")
        first = parts[0]
        for other in parts[1:]:
            if other.scenario.digest != first.scenario.digest:
                raise ValueError(
                    f"tallies of two scenarios ({first.scenario.digest[:12]} and"
                    f" {other.scenario.digest[:12]}) do not add up; was a field changed?"
                )
            if other.event_limit != first.event_limit:
                raise ValueError(
                    f"tallies with event limits {first.event_limit} and {other.event_limit} do"
                    " not add up; unfinished means something else in each"
                )
        columns = [np.concatenate(part) for part in zip(*(x._parts() for x in parts), strict=True)]
        keys = columns[0]
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        columns = [column[order] for column in columns]
        again = np.zeros(len(keys), dtype=bool)
        again[1:] = (np.diff(columns[0], axis=0) == 0).all(axis=1)
        for k in np.flatnonzero(again):
            if any((column[k] != column[k - 1]).any() for column in columns):
                seed, batch = columns[0][k]
                raise ValueError(
                    f"batch {batch} of seed {seed} has other counts in one tally than in another;"
                    " it was cut short, or made by other software"
                )
        return cls(first.scenario, first.event_limit, *(column[~again] for column in columns))

    def __add__(self, other: Tally) -> Tally:
        return Tally.merge([self, other])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Tally)
            and self.scenario.digest == other.scenario.digest
            and self.event_limit == other.event_limit
            and all(map(np.array_equal, self._parts(), other._parts()))
        )

    __hash__ = None  # type: ignore[assignment]

    # --- counts ----------------------------------------------------------------------------------

    def _count(self, name: str) -> int:
        return int(self.counts[:, COUNTS.index(name)].sum())

    @property
    def episodes(self) -> int:
        """Episodes run."""
        return self._count("episodes")

    @property
    def deadlocks(self) -> int:
        """Episodes that ended in a deadlock."""
        return self._count("deadlocks")

    @property
    def unfinished(self) -> int:
        """Episodes stopped at the event limit."""
        return self._count("unfinished")

    @property
    def events(self) -> int:
        """Events fired."""
        return self._count("events")

    @property
    def completed(self) -> int:
        """Writepages completed: sections that ended by exit, loop workers' too."""
        return self._count("completed")

    @property
    def redirtied(self) -> int:
        """Tries that backed out and left their page dirty."""
        return self._count("redirtied")

    @property
    def oom_kills(self) -> int:
        """Kills by the OOM killer."""
        return self._count("oom_kills")

    @property
    def dead_by_reasons(self) -> dict[tuple[str, ...], int]:
        """Deadlocks by the set of what their stuck threads waited for, most frequent first."""
        counts = self.reasons.sum(axis=0, dtype=np.int64)
        named = {
            tuple(name for bit, name in enumerate(REASONS) if mask >> bit & 1): int(counts[mask])
            for mask in np.flatnonzero(counts)
        }
        return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))

    def dead_waiting_for(self, reason: str) -> int:
        """Deadlocks in which at least one stuck thread waited for `reason`.

        Parameters
        ----------
        reason : str
            One of ``REASONS``.

        Returns
        -------
        int
            Episodes.
        """
        return sum(n for names, n in self.dead_by_reasons.items() if reason in names)

    # --- estimates -------------------------------------------------------------------------------

    @property
    def deadlock_probability(self) -> Interval:
        """Of an episode; Clopper-Pearson, unfinished episodes counted against both bounds."""
        return clopper_pearson(self.deadlocks, self.deadlocks + self.unfinished, self.episodes)

    @cached_property
    def _moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sums and the symmetric matrix of sums of products over all episodes."""
        square = np.zeros((len(MEANS), len(MEANS)))
        square[np.triu_indices(len(MEANS))] = self.products.sum(axis=0)
        return self.sums.sum(axis=0), square + np.triu(square, 1).T

    def _mean(self, name: str) -> Interval:
        sums, square = self._moments
        k, n = MEANS.index(name), self.episodes
        best = sums[k] / n
        spread = max(square[k, k] - n * best * best, 0.0)
        return _normal(best, spread, n)

    def _ratio(self, name: str, over: str = "duration") -> Interval:
        sums, square = self._moments
        k, j, n = MEANS.index(name), MEANS.index(over), self.episodes
        if sums[j] <= 0:
            return Interval(0.0, math.nan, math.inf)
        best = sums[k] / sums[j]
        spread = max(square[k, k] - 2 * best * square[k, j] + best * best * square[j, j], 0.0)
        return _normal(best, spread, n, scale=n / sums[j])

    @property
    def duration(self) -> Interval:
        """Mean duration of an episode, in mean steps of one thread."""
        return self._mean("duration")

    @property
    def throughput(self) -> Interval:
        """Writepages completed per unit of time."""
        return self._ratio("completed")

    @property
    def idle_reserve_mean(self) -> Interval:
        """Pages of the reserve that lie idle, averaged over time."""
        return self._ratio("idle")

    @property
    def idle_reserve_peak(self) -> Interval:
        """Mean over episodes of the most pages that lay idle at once."""
        return self._mean("idle_peak")

    @property
    def inside(self) -> Interval:
        """Threads inside a section, averaged over time."""
        return self._ratio("inside")

    @property
    def waiting_entry(self) -> Interval:
        """Threads waiting at entry (not for the semaphore), averaged over time."""
        return self._ratio("waiting_entry")

    @property
    def waiting_pages(self) -> Interval:
        """Threads waiting for pages, a refilling owner among them, averaged over time."""
        return self._ratio("waiting_pages")

    @property
    def waiting_semaphore(self) -> Interval:
        """Threads waiting for the semaphore, averaged over time."""
        return self._ratio("waiting_semaphore")

    @property
    def waiting_locks(self) -> Interval:
        """Threads waiting for a lock, averaged over time."""
        return self._ratio("waiting_locks")

    @property
    def latency(self) -> Interval:
        """Mean time inside a section, by Little's law; waiting at entry is not in it."""
        return self._ratio("inside", "completed")

    def estimates(self) -> dict[str, Interval]:
        """All estimates by name, in the order of `ESTIMATES`.

        Returns
        -------
        dict of str to Interval
            Pages, threads, and mean steps of one thread.
        """
        attributes = {"idle_mean": "idle_reserve_mean", "idle_peak": "idle_reserve_peak"}
        return {name: getattr(self, attributes.get(name, name)) for name in ESTIMATES}

    # --- ways out --------------------------------------------------------------------------------

    def row(self) -> dict[str, Any]:
        """The tally as one row of the tidy frame (README, "The frame").

        Returns
        -------
        dict
            Column names and values.
        """
        scenario, scheme = self.scenario, self.scenario.scheme
        seeds = np.unique(self.keys[:, 0])
        row: dict[str, Any] = {
            "digest": scenario.digest,
            "rules": RULES_VERSION,
            "scheme": scheme.family,
            "variant": scheme.variant,
            "waiting": scenario.waiting,
            "mix": scenario.label or "+".join(m.filesystem.name for m in scenario.mounts),
            "seed": int(seeds[0]) if len(seeds) == 1 else -1,
            "threads": scenario.threads,
            "pages": scenario.machine.pages,
            "reserve": -1 if scenario.reserve is None else scenario.reserve,
            "need": scenario.need,
            "mean_demand": scenario.mean_demand,
            "quota": scenario.quota,
            "writepages": scenario.writepages,
        }
        row |= {name: self._count(name) for name in COUNTS}
        row |= {f"dead_{reason}": self.dead_waiting_for(reason) for reason in REASONS}
        for name, interval in self.estimates().items():
            row |= {f"{name}_{end}": getattr(interval, end) for end in ("low", "best", "high")}
        return row

    def frame(self) -> pd.DataFrame:
        """The tally as a tidy frame of one row.

        Returns
        -------
        DataFrame
            The columns of `row`.
        """
        return pd.DataFrame([self.row()])

    def __str__(self) -> str:
        scenario = self.scenario
        lines = [
            f"{scenario.scheme.variant}, {scenario.waiting}: {scenario.threads} threads,"
            f" {scenario.machine.pages} pages, reserve {scenario.reserve}",
            f"scenario {scenario.digest[:16]}, rules {RULES_VERSION}",
            "",
            f"{'episodes':24}{self.episodes}",
            f"{'deadlocks':24}{self.deadlocks}",
        ]
        for names, number in self.dead_by_reasons.items():
            lines.append(f"  {'waiting for ' + ', '.join(names):40} {number}")
        if self.unfinished:
            lines.append(f"{'unfinished':24}{self.unfinished} (event limit {self.event_limit})")
        if self.redirtied:
            lines.append(f"{'redirtied':24}{self.redirtied}")
        if self.oom_kills:
            lines.append(f"{'OOM kills':24}{self.oom_kills}")
        lines += ["", f"{'':24}{'best':>12}{'low':>12}{'high':>12}   95 %"]
        for name, interval in self.estimates().items():
            low, best, high = interval
            lines.append(f"{name.replace('_', ' '):24}{best:12.5g}{low:12.5g}{high:12.5g}")
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{name.replace('_', ' ')}</th><td>{i.best:.5g}</td>"
            f"<td>{i.low:.5g} .. {i.high:.5g}</td></tr>"
            for name, i in self.estimates().items()
        )
        return (
            f"<table><caption>{self.scenario.scheme.variant}: {self.deadlocks} deadlocks in"
            f" {self.episodes} episodes</caption><tr><th></th><th>best</th><th>95 %</th></tr>"
            f"{rows}</table>"
        )

    def save(self, path: str | Path) -> None:
        """Write the tally to a JSON file.

        Parameters
        ----------
        path : str or Path
            The file; an existing one is replaced.
        """
        text = json.dumps(
            {
                "rules": RULES_VERSION,
                "scenario": self.scenario.toml(),
                "digest": self.scenario.digest,
                "event_limit": self.event_limit,
                "keys": self.keys.tolist(),
                "counts": self.counts.tolist(),
                "sums": self.sums.tolist(),
                "products": self.products.tolist(),
                "reasons": [
                    {str(mask): int(row[mask]) for mask in np.flatnonzero(row)}
                    for row in self.reasons
                ],
            }
        )
        Path(path).write_text(text + "\n", encoding="ascii")

    @classmethod
    def load(cls, path: str | Path) -> Tally:
        """Read a tally that `save` wrote.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        Tally
            Equal to the one saved.

        Raises
        ------
        BadInput
            If the file is no tally, or one of other rules.
        """
        try:
            saved = json.loads(Path(path).read_text(encoding="ascii"))
            rules, scenario = saved["rules"], Scenario.from_toml(saved["scenario"])
            digest = saved["digest"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            wrong = f"not a tally ({error})"
            raise BadInput(str(path), wrong, "give a file Tally.save wrote") from None
        if rules != RULES_VERSION or digest != scenario.digest:
            raise BadInput(
                str(path), f"made by rules version {rules}, scenario {digest[:12]}",
                f"these are rules version {RULES_VERSION}, scenario {scenario.digest[:12]}",
            )  # fmt: skip
        reasons = np.zeros((len(saved["keys"]), 1 << len(REASONS)), dtype=np.int32)
        for row, counted in zip(reasons, saved["reasons"], strict=True):
            for mask, number in counted.items():
                row[int(mask)] = number
        return cls(
            scenario,
            saved["event_limit"],
            np.array(saved["keys"], dtype=np.int64).reshape(-1, 2),
            np.array(saved["counts"], dtype=np.int64).reshape(-1, len(COUNTS)),
            np.array(saved["sums"]).reshape(-1, len(MEANS)),
            np.array(saved["products"]).reshape(-1, PRODUCTS),
            reasons,
        )


def _normal(best: float, spread: float, episodes: int, scale: float = 1.0) -> Interval:
    """Normal 95 % interval of a mean of residuals whose squares sum to `spread`."""
    if episodes < 2:
        return Interval(-math.inf, float(best), math.inf)
    error = scale * math.sqrt(spread / (episodes - 1) / episodes)
    return Interval(float(best - _Z95 * error), float(best), float(best + _Z95 * error))
