"""Fits of a sweep's table: who deadlocks how often, what it costs, and how much reserve is enough.

Vocabulary
----------
cell        one row of the tidy frame that `sweep` returns: one scenario
variant     a scheme with its choices; every variant (and waiting rule) is fitted on its own
term        what a fit may depend on, written as text: "threads", "log threads", "reserve/need",
            "mix" (see `designs`)
scatter     how far cells lie from the model beyond their own simulation error, as a standard
            deviation on the fit's logarithmic scale: 0.1 is "off by about 10 %"

Three questions, per variant:

deadlock    log hazard per writepage = X b, so cloglog(p) = log(writepages) + X b. The default
            terms are linear in pages: each further page divides the hazard by about the same
            factor, as the tail of a random walk's maximum is geometric, and the factor depends on
            how many pages a section needs. They are logarithmic in threads. (Deviances: watermark
            with ext3 and XFS, 48 cells: 2,825 with the logarithm of reserve + 1, 840 with
            "reserve", 322 with "reserve" and "reserve/need"; on three mixes and 4 to 48 threads,
            96 cells: 175 with "threads", 43 with "log threads".) Estimates by Jeffreys' penalised
            likelihood with profile intervals: finite on separated tables too.
idle_mean,  log idle pages = X b, by meta-regression on the cells' own intervals. The coefficient
idle_peak   of "log threads" is the scaling exponent: 1 grows with the threads, 0 does not.
throughput_lost
            log(throughput / baseline) = X b, likewise; 1 - exp of it is the share lost.

The methods and their references are in `regression`. What the intervals mean: 95 % for a table made
by the model, with scatter where the cells ask for it. Coefficients' intervals are about the model's
line; predictions are about one such scenario, so they contain the scatter.

Honesty about separation: where the data separate, the outer end of an interval (how steep the curve
may be at most) is set by Jeffreys' penalty, not by the data, which would allow any steepness.
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import itertools
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from reservelab.model.errors import BadInput
from reservelab.model.interval import Interval
from reservelab.model.plain_text import WIDTH, wrap
from reservelab.solve.tally import clopper_pearson
from reservelab.study.designs import Column, Design
from reservelab.study.regression import (
    LINKS,
    Array,
    Counts,
    Errors,
    Estimate,
    Line,
    allow_scatter,
    estimate,
    meta_regression,
    profile,
    profile_bound,
    separated,
)

QUANTITIES = ("deadlock", "idle_mean", "idle_peak", "throughput_lost")
DEADLOCK_TERMS = ("mix", "log threads", "reserve", "pages", "need", "reserve/need")
IDLE_TERMS = ("mix", "log threads", "log reserve", "log pages", "log need")
THROUGHPUT_TERMS = ("mix", "log threads", "reserve", "pages", "need")

_NORMAL = float(stats.norm.ppf(0.975))
_UNKNOWN = Interval(math.nan, math.nan, math.nan)


# ---- saving and showing ---------------------------------------------------------------------


def _plain(value: Any) -> Any:  # noqa: ANN401 - any field of any fit
    """Turn a fit into what JSON can hold; numbers keep all their digits."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _revive(hint: Any, value: Any) -> Any:  # noqa: ANN401 - the way back
    """Turn it back, led by the type annotation of the field."""
    if isinstance(value, dict):
        kind = _KINDS[value["kind"]]
        hints = typing.get_type_hints(kind)
        return kind(
            **{f.name: _revive(hints[f.name], value[f.name]) for f in dataclasses.fields(kind)}
        )
    if value == "nan":
        return math.nan  # the very object, so that unknown equals unknown
    if hint is Interval:
        return Interval(*(_revive(float, bound) for bound in value))
    if isinstance(value, list):
        inner = typing.get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            inner = (inner[0],) * len(value)
        return tuple(_revive(h, item) for h, item in zip(inner, value, strict=True))
    if isinstance(hint, types.UnionType):  # float | str: what str() wrote for inf and nan
        return float(value) if value in ("inf", "-inf") else value
    return float(value) if hint is float else value


class _Saved:
    """What every fit can do: be saved, be loaded, be shown."""

    def frame(self) -> pd.DataFrame:
        """Return the fit's numbers as a tidy frame.

        Returns
        -------
        DataFrame
            One row per number, with low, best and high.
        """
        raise NotImplementedError

    def to_json(self) -> str:
        """Return everything, data included, as JSON text.

        Returns
        -------
        str
            What `from_json` reads back to an equal value.
        """
        return json.dumps({"reservelab_fits": 1, "value": _plain(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back what `to_json` wrote.

        Parameters
        ----------
        text : str
            JSON text.

        Returns
        -------
        Self
            An equal value.

        Raises
        ------
        BadInput
            If the text is not a saved fit of this kind.
        """
        try:
            outer = json.loads(text)
            if outer["reservelab_fits"] != 1:
                raise ValueError
            value = _revive(None, outer["value"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput("json", "not a saved fit", "give what to_json wrote") from error
        if not isinstance(value, cls):
            kind = type(value).__name__
            raise BadInput("json", f"holds a {kind}", f"read it with {kind}.from_json")
        return value

    def _repr_html_(self) -> str:
        head, *rest = str(self).splitlines()
        # Lines of the table have two blanks before them, the rest of a long line has four.
        said = (line for line in rest if line[:2] != "  " or line[:4] == "    ")
        notes = "<br>".join(map(html.escape, said))
        table = self.frame().to_html(index=False, float_format=lambda x: f"{x:.4g}")
        return f"<p><b>{html.escape(head)}</b></p>{table}<p>{notes}</p>"


def _table(head: str, rows: Sequence[tuple[str, Interval]]) -> list[str]:
    """Three numeric columns behind a label; labels too long are cut, never the numbers."""
    width = WIDTH - 2 - 3 * 12
    lines = [f"  {head:<{width}.{width}}{'low':>12}{'best':>12}{'high':>12}"]
    for label, value in rows:
        numbers = "".join(f"{bound:>12.4g}" for bound in value)
        lines.append(f"  {label:<{width}.{width}}{numbers}")
    return lines


# ---- goodness -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """Predictions of cells by fits that never saw them, against what those cells did.

    Parameters
    ----------
    columns : tuple of str
        Names of the columns of `rows`.
    rows : tuple of tuple of (float or str)
        One per class of predictions.
    slope : Interval
        Of what was seen on what was predicted, both on the scale of the predictor (Cox 1958,
        Biometrika 45, 562-565); 1 is right, below 1 the predictions are too bold. Not known if
        there are too few cells, or the predictions are too far off for a line.
    folds : int
        How many parts the cells were dealt into.
    seed : int
        Of the dealing.
    held_out : int
        Cells predicted.
    skipped : int
        Cells not predicted, as without them there would be no fit (the only ones of a level, say).
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[float | str, ...], ...]
    slope: Interval
    folds: int
    seed: int
    held_out: int
    skipped: int

    def frame(self) -> pd.DataFrame:
        """Return the calibration table.

        Returns
        -------
        DataFrame
            One row per class of predictions.
        """
        return pd.DataFrame(list(self.rows), columns=list(self.columns))

    def describe(self) -> list[str]:
        """Return the slope in words.

        Returns
        -------
        list of str
            Lines of at most 72 columns.
        """
        skipped = f", {self.skipped} not predictable" if self.skipped else ""
        if not self.slope.known:
            return wrap(
                f"calibration: no slope ({self.held_out} held-out cells predicted{skipped}: too "
                "few, too much alike, or the predictions too far off)",
                "    ",
            )
        return wrap(
            f"calibration on held-out cells: slope {self.slope}, "
            f"{self.held_out} cells in {self.folds} folds{skipped}",
            "    ",
        )


def _deal(digests: NDArray[np.object_], folds: int, seed: int) -> NDArray[np.intp]:
    """Fold of every row; rows of one scenario stay together, or it would predict itself."""
    unique, which = np.unique(digests.astype(str), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(unique))
    return (order % min(folds, len(unique)))[which]


_CLASSES = (0.0, 1e-3, 1e-2, 1e-1, 0.5, 0.9, 0.99, 1.0)


def _calibrate_counts(
    top: Estimate, digests: NDArray[np.object_], folds: int, seed: int
) -> Calibration:
    fold = _deal(digests, folds, seed)
    counts = top.counts
    p = counts.design.shape[1]
    eta = np.full(len(fold), np.nan)
    for k in range(fold.max() + 1):
        here, away = fold == k, fold != k
        seen = _select(counts, away)
        if np.linalg.matrix_rank(seen.design) < p or seen.events.sum() in (0, seen.trials.sum()):
            continue
        eta[here] = _select(counts, here).predictor(estimate(seen, top.beta).beta)
    known = np.isfinite(eta)
    slope = _UNKNOWN
    if known.sum() >= 3 and np.ptp(eta[known]) > 1e-6:
        middle = float(eta[known].mean())
        line = np.column_stack([np.ones(int(known.sum())), eta[known] - middle])
        again = replace(_select(counts, known), design=line, offset=np.zeros(len(line)))
        with contextlib.suppress(ArithmeticError):
            slope = profile(allow_scatter(estimate(again)), np.array([0.0, 1.0]))
    # A cell of the line's predictor has, with its own deviation averaged over, this probability.
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    around = np.where(known, eta, 0.0)[:, None] + counts.scatter * nodes
    risk = (
        np.exp(LINKS[counts.link](np.clip(around, -300.0, 300.0)).log_p) @ weights / weights.sum()
    )
    rows: list[tuple[float | str, ...]] = []
    for low, high in itertools.pairwise(_CLASSES):
        cells = known & (risk >= low) & ((risk < high) | (high == 1.0))
        if not cells.any():
            continue
        y, n = int(counts.events[cells].sum()), int(counts.trials[cells].sum())
        seen_low, share, seen_high = clopper_pearson(y, y, n)
        expected = float((risk * counts.trials)[cells].sum())
        rows.append(
            (f"{low:g} .. {high:g}", int(cells.sum()), n, expected / n, seen_low, share, seen_high)
        )
    names = ("class", "cells", "episodes", "predicted", "seen_low", "seen_best", "seen_high")
    return Calibration(
        names, tuple(rows), slope, int(fold.max() + 1), seed, int(known.sum()), int((~known).sum())
    )


def _calibrate_line(
    values: Array,
    design: Array,
    errors: Errors,
    digests: NDArray[np.object_],
    folds: int,
    seed: int,
) -> Calibration:
    fold = _deal(digests, folds, seed)
    predicted = np.full(len(values), np.nan)
    for k in range(fold.max() + 1):
        here, away = fold == k, fold != k
        if np.linalg.matrix_rank(design[away]) < design.shape[1]:
            continue
        line = meta_regression(values[away], design[away], errors.select(away))
        predicted[here] = design[here] @ line.beta
    known = np.flatnonzero(np.isfinite(predicted))
    slope = _UNKNOWN
    if len(known) >= 3 and np.ptp(predicted[known]) > 1e-6:
        x = np.column_stack([np.ones(len(known)), predicted[known]])
        line = meta_regression(values[known], x, errors.select(known))
        slope = line.along(np.array([0.0, 1.0]))
    order = known[np.argsort(predicted[known], kind="stable")]
    rows: list[tuple[float | str, ...]] = []
    for part in np.array_split(order, 4):
        if len(part):
            miss = values[part] - predicted[part]
            rows.append((
                len(part),
                float(predicted[part].mean()),
                float(values[part].mean()),
                float(np.sqrt(np.mean(miss**2))),
            ))  # fmt: skip
    names = ("cells", "predicted_log", "seen_log", "root_mean_square_miss")
    return Calibration(
        names, tuple(rows), slope, int(fold.max() + 1), seed, len(known), len(values) - len(known)
    )


def _select(counts: Counts, cells: NDArray[np.bool_]) -> Counts:
    return replace(
        counts,
        design=counts.design[cells],
        events=counts.events[cells],
        trials=counts.trials[cells],
        offset=counts.offset[cells],
    )


# ---- the fits -------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoFit(_Saved):
    """A question that the table cannot answer, and why.

    Parameters
    ----------
    variant, waiting, quantity : str
        What was asked.
    reason : str
        Why there is no fit.
    """

    variant: str
    waiting: str
    quantity: str
    reason: str

    def frame(self) -> pd.DataFrame:
        """Return the reason as a frame.

        Returns
        -------
        DataFrame
            One row.
        """
        return pd.DataFrame([dataclasses.asdict(self)])

    def __str__(self) -> str:
        name = f"{self.quantity}: {self.variant}, {self.waiting}"
        return "\n".join(wrap(f"{name}: no fit: {self.reason}", "    "))


@dataclass(frozen=True)
class DeadlockFit(_Saved):
    """Risk of deadlock of one variant: a binomial regression with exposure.

    Parameters
    ----------
    variant, waiting : str
        Which scheme, under which waiting rule.
    link : str
        "cloglog": log hazard per writepage is linear in the terms; "logit": log odds less
        log(writepages) is.
    design : Design
        Terms and ranges.
    coefficients : tuple of Interval
        One per name of the design; per page, per thread, or against the reference level.
    deviance : float
        Of the plain binomial model.
    freedom : int
        Its degrees of freedom: cells less coefficients.
    scatter : float
        What the cells show beyond binomial noise, on the scale of the log hazard.
    separated : bool
        Whether the likelihood alone has no maximum.
    episodes, deadlocks, unfinished : int
        Of the cells in the fit; unfinished ones are left out of the fit.
    calibration : Calibration
        On held-out cells.
    notes : tuple of str
        What a reader has to know.
    cells : tuple of tuple of float
        The data: per cell the design row, deadlocks, episodes, log exposure.
    beta : tuple of float
        The estimate.
    """

    variant: str
    waiting: str
    link: str
    design: Design
    coefficients: tuple[Interval, ...]
    deviance: float
    freedom: int
    scatter: float
    separated: bool
    episodes: int
    deadlocks: int
    unfinished: int
    calibration: Calibration
    notes: tuple[str, ...]
    cells: tuple[tuple[float, ...], ...]
    beta: tuple[float, ...]

    quantity: typing.ClassVar[str] = "deadlock"

    @cached_property
    def _top(self) -> Estimate:
        data, p = np.array(self.cells), len(self.beta)
        counts = Counts(
            data[:, :p], data[:, p], data[:, p + 1], data[:, p + 2], self.link, self.scatter
        )
        beta = np.array(self.beta)
        freedom = float(self.freedom) if self.scatter > 0 else math.inf
        return Estimate(counts, beta, counts.surface(beta).value, freedom)

    def _place(self, at: Mapping[str, object], extrapolate: bool) -> tuple[Array, float]:
        """Row and log exposure of a scenario; quota and threads give the writepages."""
        full = dict(at)
        fixed = {name: low for name, low, high in self.design.ranges if low == high}
        if "writepages" not in full:
            threads, quota = (full.get(name, fixed.get(name)) for name in ("threads", "quota"))
            if isinstance(threads, (int, float)) and isinstance(quota, (int, float)):
                full["writepages"] = threads * quota
            elif "writepages" in fixed:
                full["writepages"] = fixed["writepages"]
            else:
                self.design.row(full, extrapolate=extrapolate)  # may know better what is missing
                raise BadInput("writepages", "missing", "say how many an episode has")
        row = self.design.row(full, extrapolate=extrapolate)
        writepages = float(str(full["writepages"]))
        if not writepages > 0:
            raise BadInput("writepages", f"{writepages:g} is too few", "give at least 1")
        return row, math.log(writepages)

    def _bound(self, row: Array, offset: float, side: int) -> float:
        """One end of the interval for the risk of one scenario, scatter included."""
        best = float(row @ self.beta)
        line = profile_bound(self._top, row, side) - best
        own = float(stats.t.ppf(0.975, self._top.freedom)) * self.scatter
        return self._risk(best + side * math.hypot(line, own) + offset)

    def _risk(self, eta: float) -> float:
        return float(np.exp(LINKS[self.link](np.array([min(max(eta, -300.0), 300.0)])).log_p[0]))

    def predict(self, at: Mapping[str, object], *, extrapolate: bool = False) -> Interval:
        """Return the probability that an episode of a scenario deadlocks.

        Parameters
        ----------
        at : mapping
            The scenario: threads, reserve and what else the fit's terms name; writepages of one
            episode, or the quota if the table had more than one.
        extrapolate : bool
            Allow numbers outside the table's ranges.

        Returns
        -------
        Interval
            The line's value, with its profile interval and the cells' scatter added in quadrature.

        Raises
        ------
        BadInput
            If something is missing, or outside what was fitted.
        """
        row, offset = self._place(at, extrapolate)
        best = self._risk(float(row @ self.beta) + offset)
        return Interval(self._bound(row, offset, -1), best, self._bound(row, offset, +1))

    def frame(self) -> pd.DataFrame:
        """Return the coefficients.

        Returns
        -------
        DataFrame
            Columns variant, waiting, quantity, term, low, best, high.
        """
        return _coefficients(self)

    def __str__(self) -> str:
        lines = wrap(f"{self.quantity}: {self.variant}, {self.waiting}", "    ")
        unit = "log hazard per writepage" if self.link == "cloglog" else "log odds per writepage"
        lines += _table(unit, list(zip(self.design.names, self.coefficients, strict=True)))
        lines += wrap(
            f"{len(self.cells)} cells, {self.episodes} episodes, {self.deadlocks} deadlocks; "
            f"deviance {self.deviance:.4g} on {self.freedom} degrees of freedom; "
            f"scatter {self.scatter:.3g}",
            "    ",
        )
        lines += self.calibration.describe() + self.design.describe()
        for note in self.notes:
            lines += wrap(note, "    ")
        return "\n".join(lines)


@dataclass(frozen=True)
class ScalingFit(_Saved):
    """How a cost of one variant scales: a meta-regression on the log scale.

    Parameters
    ----------
    variant, waiting : str
        Which scheme, under which waiting rule.
    quantity : str
        "idle_mean" or "idle_peak" (pages), or "throughput_lost" (a share of the baseline).
    baseline : str
        What throughput is compared with, else "".
    design : Design
        Terms and ranges.
    coefficients : tuple of Interval
        One per name of the design, on the log scale.
    average : Interval
        In the middle of the table's cells: pages, or the share lost.
    deviance : float
        Cochran's Q, weighted squares with the cells' own errors alone.
    freedom : int
        Its degrees of freedom.
    scatter : float
        What the cells show beyond their own errors, on the log scale.
    cells : int
        Cells in the fit.
    calibration : Calibration
        On held-out cells.
    notes : tuple of str
        What a reader has to know.
    beta : tuple of float
        The estimate.
    covariance : tuple of tuple of float
        Of the estimate.
    quantile : float
        From a standard error to half an interval.
    """

    variant: str
    waiting: str
    quantity: str
    baseline: str
    design: Design
    coefficients: tuple[Interval, ...]
    average: Interval
    deviance: float
    freedom: int
    scatter: float
    cells: int
    calibration: Calibration
    notes: tuple[str, ...]
    beta: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    quantile: float

    @property
    def exponent(self) -> Interval:
        """Scaling exponent in threads: twice the threads, 2 ** exponent times the pages.

        Raises
        ------
        BadInput
            If the threads did not vary.
        """
        for name, value in zip(self.design.names, self.coefficients, strict=True):
            if name == "log threads":
                return value
        why = dict(self.design.dropped).get("log threads", "it was not asked for")
        raise BadInput("exponent", "log threads is not in the fit", why)

    def predict(self, at: Mapping[str, object], *, extrapolate: bool = False) -> Interval:
        """Return the cost of one scenario.

        Parameters
        ----------
        at : mapping
            The scenario: threads, reserve and what else the fit's terms name.
        extrapolate : bool
            Allow numbers outside the table's ranges.

        Returns
        -------
        Interval
            Pages, or the share of throughput lost; with the cells' scatter.

        Raises
        ------
        BadInput
            If something is missing, or outside what was fitted.
        """
        row = self.design.row(at, extrapolate=extrapolate)
        line = Line(
            np.array(self.beta),
            np.array(self.covariance),
            self.scatter,
            self.quantile,
            self.deviance,
            self.freedom,
        )
        low, best, high = line.along(row)
        half = math.hypot(0.5 * (high - low), self.quantile * self.scatter)
        return _unlog(self.quantity, Interval(best - half, best, best + half))

    def frame(self) -> pd.DataFrame:
        """Return the coefficients.

        Returns
        -------
        DataFrame
            Columns variant, waiting, quantity, term, low, best, high.
        """
        return _coefficients(self)

    def __str__(self) -> str:
        lines = wrap(f"{self.quantity}: {self.variant}, {self.waiting}", "    ")
        lost = self.quantity == "throughput_lost"
        unit = "log of throughput kept" if lost else "log of idle pages"
        lines += _table(unit, list(zip(self.design.names, self.coefficients, strict=True)))
        what = f"share lost against {self.baseline}" if lost else "pages"
        lines += wrap(f"{what}, in the middle of the table: {self.average}", "    ")
        lines += wrap(
            f"{self.cells} cells; Q {self.deviance:.4g} on {self.freedom} degrees of freedom; "
            f"scatter {self.scatter:.3g}",
            "    ",
        )
        lines += self.calibration.describe() + self.design.describe()
        for note in self.notes:
            lines += wrap(note, "    ")
        return "\n".join(lines)


AnyFit = DeadlockFit | ScalingFit | NoFit


def _coefficients(fit: DeadlockFit | ScalingFit) -> pd.DataFrame:
    table = pd.DataFrame(list(fit.coefficients), columns=["low", "best", "high"])
    table.insert(0, "term", list(fit.design.names))
    for name in ("quantity", "waiting", "variant"):
        table.insert(0, name, getattr(fit, name))
    return table


def _unlog(quantity: str, value: Interval) -> Interval:
    low, best, high = (math.exp(min(bound, 700.0)) for bound in value)
    if quantity == "throughput_lost":
        return Interval(1.0 - high, 1.0 - best, 1.0 - low)
    return Interval(low, best, high)


@dataclass(frozen=True)
class Fits(_Saved):
    """All fits of a table.

    Parameters
    ----------
    fits : tuple of DeadlockFit, ScalingFit or NoFit
        One per variant, waiting rule and question.
    """

    fits: tuple[AnyFit, ...]

    def __iter__(self) -> Iterator[AnyFit]:
        return iter(self.fits)

    def __len__(self) -> int:
        return len(self.fits)

    def get(self, variant: str, quantity: str = "deadlock", waiting: str | None = None) -> AnyFit:
        """Return one fit.

        Parameters
        ----------
        variant : str
            As in the table.
        quantity : str
            "deadlock", "idle_mean", "idle_peak" or "throughput_lost".
        waiting : str, optional
            The waiting rule; needed where the table has both.

        Returns
        -------
        DeadlockFit, ScalingFit or NoFit
            The fit.

        Raises
        ------
        BadInput
            If there is none, or more than one.
        """
        found = [
            fit
            for fit in self.fits
            if fit.variant == variant
            and fit.quantity == quantity
            and waiting in (None, fit.waiting)
        ]
        if not found:
            names = sorted({fit.variant for fit in self.fits})
            raise BadInput("variant", f"no {quantity} fit of {variant!r}", f"one of {names}")
        if len(found) > 1:
            raise BadInput("waiting", f"{variant!r} has both rules", "say asleep or racing")
        return found[0]

    def frame(self) -> pd.DataFrame:
        """Return all coefficients.

        Returns
        -------
        DataFrame
            Columns variant, waiting, quantity, term, low, best, high.
        """
        names = ["variant", "waiting", "quantity", "term", "low", "best", "high"]
        parts = [fit.frame() for fit in self.fits if not isinstance(fit, NoFit)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)

    def goodness(self) -> pd.DataFrame:
        """Return how well each fit fits, and why there is none.

        Returns
        -------
        DataFrame
            One row per fit: variant, waiting, quantity, cells, deviance, freedom, scatter,
            calibration slope (slope_low, slope_best, slope_high) and, where there is no fit, the
            reason.
        """
        rows = []
        for fit in self.fits:
            row: dict[str, object] = {
                "variant": fit.variant, "waiting": fit.waiting, "quantity": fit.quantity
            }  # fmt: skip
            if isinstance(fit, NoFit):
                row["reason"] = fit.reason
            else:
                slope = fit.calibration.slope
                row |= {
                    "cells": len(fit.cells) if isinstance(fit, DeadlockFit) else fit.cells,
                    "deviance": fit.deviance,
                    "freedom": fit.freedom,
                    "scatter": fit.scatter,
                    "slope_low": slope.low,
                    "slope_best": slope.best,
                    "slope_high": slope.high,
                    "reason": "",
                }
            rows.append(row)
        names = ["variant", "waiting", "quantity", "cells", "deviance", "freedom", "scatter"]
        names += ["slope_low", "slope_best", "slope_high", "reason"]
        return pd.DataFrame(rows, columns=names)

    def save(self, path: str | Path) -> None:
        """Write the fits to a file.

        Parameters
        ----------
        path : str or Path
            Where to.
        """
        Path(path).write_text(self.to_json(), encoding="ascii")

    @classmethod
    def load(cls, path: str | Path) -> Fits:
        """Read the fits from a file.

        Parameters
        ----------
        path : str or Path
            What `save` wrote.

        Returns
        -------
        Fits
            Equal to what was saved.

        Raises
        ------
        BadInput
            If the file does not hold fits.
        """
        return cls.from_json(Path(path).read_text(encoding="ascii"))

    def __str__(self) -> str:
        return "\n\n".join(str(fit) for fit in self.fits)


_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Column, Design, Calibration, NoFit, DeadlockFit, ScalingFit, Fits)
}


# ---- fitting --------------------------------------------------------------------------------


def fit(
    frame: pd.DataFrame,
    *,
    quantities: Sequence[str] = QUANTITIES,
    terms: Sequence[str] = DEADLOCK_TERMS,
    link: str = "cloglog",
    baseline: str | None = None,
    folds: int = 5,
    seed: int = 1,
) -> Fits:
    """Fit deadlock, idle pages and throughput lost for every variant of a sweep's table.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns, one row per cell.
    quantities : sequence of str
        Which of `QUANTITIES` to fit.
    terms : sequence of str
        What the risk of deadlock may depend on, the most important first (the module explains how
        terms are written). What does not vary, or follows from the others, is left out and named.
    link : str
        "cloglog" (hazards) or "logit".
    baseline : str, optional
        What throughput is compared with, as for `throughput_lost`.
    folds : int
        Parts that the cells are dealt into for calibration.
    seed : int
        Of that dealing; nothing else is random.

    Returns
    -------
    Fits
        Per variant and waiting rule; where a table cannot answer, a `NoFit` with the reason.

    Raises
    ------
    BadInput
        If the frame is not such a table, or a term is not one.
    """
    if link not in LINKS:
        raise BadInput("link", f"{link!r} is unknown", f"one of {', '.join(LINKS)}")
    if folds < 2:
        raise BadInput("folds", f"{folds} is too few", "give at least 2")
    for quantity in quantities:
        if quantity not in QUANTITIES:
            raise BadInput("quantities", f"{quantity!r} is unknown", f"one of {QUANTITIES}")
    needed = ["digest", "variant", "waiting", "mix", "scheme", "threads", "reserve", "pages"]
    needed += ["need", "quota", "writepages", "episodes", "deadlocks", "unfinished"]
    for quantity in ("idle_mean", "idle_peak", "throughput"):
        needed += [f"{quantity}_{end}" for end in ("low", "best", "high")]
    for name in needed:
        if name not in frame.columns:
            raise BadInput("table", f"has no column {name!r}", "give the frame that sweep returns")
    if frame.empty:
        raise BadInput("table", "is empty", "give at least one cell")
    lost, against = _lost(frame, baseline)
    found: list[AnyFit] = []
    keys = frame[["variant", "waiting"]].astype(str).agg(tuple, axis=1)
    for name in sorted(set(keys)):
        part = frame[keys == name]
        for quantity in quantities:
            if quantity == "deadlock":
                found.append(_fit_deadlock(name, part, terms, link, folds, seed))
            elif quantity == "throughput_lost":
                found.append(_fit_lost(name, lost[keys == name], part, against, folds, seed))
            else:
                found.append(_fit_idle(name, quantity, part, folds, seed))
    return Fits(tuple(found))


def _fit_deadlock(
    name: tuple[str, str],
    part: pd.DataFrame,
    terms: Sequence[str],
    link: str,
    folds: int,
    seed: int,
) -> DeadlockFit | NoFit:
    notes = []
    unfinished = int(part["unfinished"].sum())
    trials = (part["episodes"] - part["unfinished"]).to_numpy(dtype=float)
    exposed = (trials > 0) & (part["writepages"].to_numpy(dtype=float) > 0)
    part, trials = part[exposed], trials[exposed]
    events = part["deadlocks"].to_numpy(dtype=float)
    dead, all_ = int(events.sum()), int(trials.sum())
    bound = 1.0 - 0.025 ** (1.0 / max(all_, 1))

    reason = ""
    if part["digest"].nunique() < 2:
        reason = f"{part['digest'].nunique()} cell with finished episodes: nothing to compare"
    elif dead == 0:
        reason = (
            f"no deadlock in {all_} episodes of {len(part)} cells "
            f"(were all cells alike: a risk below {bound:.2g} at 97.5 %)"
        )
    elif dead == all_:
        reason = (
            f"all {all_} episodes of {len(part)} cells deadlocked "
            f"(were all cells alike: a risk above {1 - bound:.6g} at 97.5 %)"
        )
    if reason:
        return NoFit(*name, "deadlock", reason)
    if unfinished:
        notes.append(
            f"{unfinished} unfinished episodes are left out: the risk is that of episodes that end"
        )

    known = ("threads", "pages", "need", "quota", "writepages")
    design = Design.of(part, terms, also=known)
    offset = np.log(part["writepages"].to_numpy(dtype=float))
    counts = Counts(design.rows(part), events, trials, offset, link)
    try:
        plain = estimate(counts)
        top = allow_scatter(plain)
        coefficients = tuple(profile(top, unit) for unit in np.eye(len(top.beta)))
    except ArithmeticError as error:
        return NoFit(*name, "deadlock", str(error))
    size, apart = top.counts.scatter, separated(counts)
    freedom = len(events) - len(plain.beta)
    if apart:
        notes.append(
            "separated: the likelihood alone has no maximum; how steep the curve may be at most is "
            "set by Jeffreys' penalty, not by the data"
        )
    if size > 0:
        notes.append(
            "the cells lie further from the model than chance allows: coefficients and intervals "
            f"allow for a scatter of {size:.2g} (a factor {math.exp(size):.2g} in the hazard)"
        )
    if freedom == 0:
        notes.append("as many coefficients as cells: nothing is left to judge the fit by")
    data = np.column_stack([counts.design, events, trials, offset])
    return DeadlockFit(
        variant=name[0],
        waiting=name[1],
        link=link,
        design=design,
        coefficients=coefficients,
        deviance=float(counts.deviance(plain.beta).sum()),
        freedom=freedom,
        scatter=size,
        separated=apart,
        episodes=all_,
        deadlocks=dead,
        unfinished=unfinished,
        calibration=_calibrate_counts(top, part["digest"].to_numpy(), folds, seed),
        notes=tuple(notes),
        cells=tuple(tuple(float(x) for x in row) for row in data),
        beta=tuple(float(b) for b in top.beta),
    )


def _log_errors(part: pd.DataFrame, quantity: str) -> Array:
    """Standard errors of log(best) from the cells' own 95 % intervals."""
    low, best, high = (
        part[f"{quantity}_{end}"].to_numpy(dtype=float) for end in ("low", "best", "high")
    )
    up = np.log(high / best)
    down = np.where(low > 0, np.log(best / np.where(low > 0, low, best)), up)
    # Cells known exactly would have infinite weight: nothing is taken as known to a millionth.
    return np.asarray(np.hypot(0.5 * (up + down) / _NORMAL, 1e-6))


def _measured(part: pd.DataFrame, quantity: str) -> NDArray[np.bool_]:
    columns = [f"{quantity}_{end}" for end in ("low", "best", "high")]
    return np.asarray(np.isfinite(part[columns].to_numpy(dtype=float)).all(axis=1))


def _fit_idle(
    name: tuple[str, str], quantity: str, part: pd.DataFrame, folds: int, seed: int
) -> ScalingFit | NoFit:
    notes = []
    known = part[_measured(part, quantity)]
    if known["digest"].nunique() < 2:
        reason = f"{known['digest'].nunique()} cell with a measured value: nothing to compare"
        return NoFit(*name, quantity, reason)
    some = known[known[f"{quantity}_best"] > 0]
    if some.empty:
        return NoFit(*name, quantity, f"no reserve: no page idle in any of {len(known)} cells")
    if some["digest"].nunique() < 2:
        return NoFit(*name, quantity, "only one cell has idle pages: nothing to compare")
    if len(some) < len(known):
        notes.append(
            f"{len(known) - len(some)} of {len(known)} cells without an idle page are left out "
            "(zero has no logarithm)"
        )
    values = np.log(some[f"{quantity}_best"].to_numpy(dtype=float))
    errors = Errors.independent(_log_errors(some, quantity))
    return _fit_line(name, quantity, "", IDLE_TERMS, some, values, errors, notes, folds, seed)


def _fit_line(
    name: tuple[str, str],
    quantity: str,
    baseline: str,
    terms: Sequence[str],
    part: pd.DataFrame,
    values: Array,
    errors: Errors,
    notes: list[str],
    folds: int,
    seed: int,
) -> ScalingFit:
    design = Design.of(part, terms, also=("threads",))
    x = design.rows(part)
    line = meta_regression(values, x, errors)
    if line.freedom == 0:
        notes.append("as many coefficients as cells: nothing is left to judge the fit by")
    return ScalingFit(
        variant=name[0],
        waiting=name[1],
        quantity=quantity,
        baseline=baseline,
        design=design,
        coefficients=tuple(line.along(unit) for unit in np.eye(x.shape[1])),
        average=_unlog(quantity, line.along(x.mean(axis=0))),
        deviance=line.deviance,
        freedom=line.freedom,
        scatter=line.scatter,
        cells=len(values),
        calibration=_calibrate_line(values, x, errors, part["digest"].to_numpy(), folds, seed),
        notes=tuple(notes),
        beta=tuple(float(b) for b in line.beta),
        covariance=tuple(tuple(float(c) for c in row) for row in line.covariance),
        quantile=line.quantile,
    )


# ---- throughput lost ------------------------------------------------------------------------

_SAME = ["mix", "threads", "pages", "need", "quota", "waiting"]


def throughput_lost(frame: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Return what share of a baseline's throughput every cell loses.

    Compared are cells with the same mix, threads, pages, need, quota and waiting rule.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns.
    baseline : str, optional
        "unreserved": the watermark scheme with reserve 0 (the fastest, where there are several); it
        may deadlock, and its throughput is the one up to then. "fastest": the fastest cell; the
        fastest of several measured ones is a little lucky, so losses come out a little too large.
        Unless given, "unreserved" if every cell has one to be compared with.

    Returns
    -------
    DataFrame
        The frame with lost_low, lost_best, lost_high (95 % interval by the delta method on the log
        scale, the two cells being independent runs) and baseline_digest; NaN where nothing was
        measured or compared. A cell that is its own baseline has lost nothing, with the error of
        its own throughput.

    Raises
    ------
    BadInput
        If the baseline is unknown or not in the table.
    """
    lost, _ = _lost(frame, baseline)
    table = frame.copy()
    half = _NORMAL * np.hypot(lost["error"], lost["shared"])
    table["lost_low"] = 1.0 - np.exp(lost["log_kept"] + half)
    table["lost_best"] = 1.0 - np.exp(lost["log_kept"])
    table["lost_high"] = 1.0 - np.exp(lost["log_kept"] - half)
    table["baseline_digest"] = lost["baseline"]
    return table


def _lost(frame: pd.DataFrame, wanted: str | None) -> tuple[pd.DataFrame, str]:
    """Per row log(throughput / baseline), its own error, the baseline's, and which it is."""
    if wanted not in (None, "unreserved", "fastest"):
        raise BadInput("baseline", f"{wanted!r} is unknown", "say 'unreserved' or 'fastest'")
    n = len(frame)
    kept, own, shared = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    baseline = np.full(n, "", dtype=object)
    best = frame["throughput_best"].to_numpy(dtype=float)
    ran = np.flatnonzero(_measured(frame, "throughput") & (best > 0))
    bare = ((frame["scheme"] == "watermark") & (frame["reserve"] == 0)).to_numpy(dtype=bool)
    # Rows of one thing done by different schemes.
    group = frame.groupby(_SAME, dropna=False).ngroup().to_numpy()
    own[ran] = _log_errors(frame.iloc[ran], "throughput")
    covered = set(group[ran][bare[ran]])
    unreserved = wanted == "unreserved" or (wanted is None and set(group[ran]) == covered)
    if wanted == "unreserved" and not covered:
        raise BadInput("baseline", "no watermark cell with reserve 0 has run", "sweep one")
    digest = frame["digest"].astype(str).to_numpy()
    for k in np.unique(group[ran]):
        rows = ran[group[ran] == k]
        choice = rows[bare[rows]] if unreserved else rows
        if len(choice) == 0:
            continue
        base = choice[np.argmax(best[choice])]
        kept[rows] = np.log(best[rows] / best[base])
        shared[rows] = own[base]
        shared[base] = 0.0
        baseline[rows] = digest[base]
    table = {"log_kept": kept, "error": own, "shared": shared, "baseline": baseline}
    name = "no reserve" if unreserved else "the fastest cell"
    return pd.DataFrame(table, index=frame.index), name


def _fit_lost(
    name: tuple[str, str],
    lost: pd.DataFrame,
    part: pd.DataFrame,
    baseline: str,
    folds: int,
    seed: int,
) -> ScalingFit | NoFit:
    known = np.isfinite(lost["log_kept"].to_numpy(dtype=float))
    quantity, notes = "throughput_lost", []
    if not known.all():
        notes.append(
            f"{int((~known).sum())} of {len(known)} cells are left out: nothing completed, or no "
            "baseline to compare with"
        )
    lost, part = lost[known], part[known]
    if part["digest"].nunique() < 2:
        reason = f"{part['digest'].nunique()} cell with a throughput: nothing to compare"
        return NoFit(*name, quantity, reason)
    if (lost["shared"] == 0.0).all():
        return NoFit(*name, quantity, "it is itself the baseline in every cell")
    # Cells compared with the same baseline share its error.
    _, group = np.unique(lost["baseline"].to_numpy(dtype=str), return_inverse=True)
    own, shared = (lost[name].to_numpy(dtype=float) for name in ("error", "shared"))
    errors = Errors(own, shared, group)
    values = lost["log_kept"].to_numpy(dtype=float)
    return _fit_line(
        name, quantity, baseline, THROUGHPUT_TERMS, part, values, errors, notes, folds, seed
    )


# ---- the inverse ----------------------------------------------------------------------------


def smallest_reserve(
    fit: DeadlockFit | NoFit, risk: float, at: Mapping[str, object], *, extrapolate: bool = False
) -> Interval:
    """Return the smallest reserve with which an episode deadlocks with at most a wanted risk.

    Parameters
    ----------
    fit : DeadlockFit
        A fit with the reserve among its terms.
    risk : float
        Wanted probability of deadlock per episode.
    at : mapping
        The scenario but for its reserve, as for `DeadlockFit.predict`.
    extrapolate : bool
        Look beyond the table's reserves too, and for risks the table is too small to have seen.

    Returns
    -------
    Interval
        Whole pages: the smallest reserve at which the lower end, the best value and the upper end
        of `fit.predict` is at most `risk`. To be safe take the high one: were the model true, it
        would miss the risk in one of 40 tables. A low end at the edge of the table means "or less".

    Raises
    ------
    BadInput
        If the answer is not inside the table's reserves, if more reserve does not help, or if the
        risk is smaller than three deadlocks in all the table's episodes together.
    """
    if isinstance(fit, NoFit):
        raise BadInput("reserve", f"there is no fit for {fit.variant}", fit.reason)
    if not 0.0 < risk < 1.0:
        raise BadInput("risk", f"{risk:g} is not a probability", "give a number between 0 and 1")
    if "reserve" in at:
        raise BadInput("at", "names the reserve", "leave it out: it is what is asked for")
    if "reserve" not in fit.design.needs:
        reasons = [why for term, why in fit.design.dropped if term == "reserve"]
        raise BadInput("reserve", "is not in the fit", *(reasons or ["fit with it as a term"])[:1])
    floor = 3.0 / fit.episodes
    if risk < floor and not extrapolate:
        raise BadInput(
            "risk",
            f"{risk:g} is below what {fit.episodes} episodes can show ({floor:.2g})",
            "sweep more episodes, or pass extrapolate=True",
        )
    span = fit.design.span("reserve", at)
    low, high = math.ceil(span[0]), math.floor(span[1])
    edge = f"the table's {low} .. {high} pages"
    if extrapolate:
        low, high = 0, max(16 * high, 1024)

    def place(reserve: int) -> tuple[Array, float]:
        return fit._place({**at, "reserve": reserve}, extrapolate)

    def best(reserve: int) -> float:
        row, offset = place(reserve)
        return fit._risk(float(row @ fit.beta) + offset)

    def end(side: int) -> typing.Callable[[int], float]:
        return lambda reserve: fit._bound(*place(reserve), side)

    if not best(high) < best(low):
        raise BadInput("reserve", "more of it does not lower the risk in this fit", "see its terms")
    if best(low) <= risk and low > 0:
        raise BadInput(
            "risk", f"already met by the smallest of {edge}", "sweep smaller ones, or ask for less"
        )
    if best(high) > risk:
        raise BadInput(
            "risk", f"not met within {edge}", "sweep larger ones, or pass extrapolate=True"
        )
    top = _first(end(+1), risk, low, high)
    if top is None:
        raise BadInput(
            "risk",
            f"met at {_first(best, risk, low, high)} pages at best, but not surely within {edge}",
            "sweep larger ones or more episodes, or pass extrapolate=True",
        )
    bottom = _first(end(-1), risk, low, high)
    middle = _first(best, risk, low, high)
    return Interval(float(bottom or low), float(middle or low), float(top))


def _first(curve: typing.Callable[[int], float], level: float, low: int, high: int) -> int | None:
    """Smallest whole number in low .. high at which a curve that falls first is at most level."""
    if curve(low) <= level:
        return low
    if curve(high) > level:
        # The upper end of an interval falls and, far out, may rise again: look between.
        inner = np.unique(np.linspace(low, high, 33).round().astype(int))
        below = [int(k) for k in inner if curve(int(k)) <= level]
        if not below:
            return None
        high = below[0]
    while high - low > 1:
        middle = (low + high) // 2
        if curve(middle) <= level:
            high = middle
        else:
            low = middle
    return high
