"""Decisions: the smallest reserve of every scheme for a wanted risk, and what it costs.

The fits answer where they can; where they cannot (a scheme that never deadlocked has no curve to
read a reserve off), the cells of the table do: the smallest reserve that was swept and whose risk
is below the wanted one with its whole interval.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from reservelab.model.errors import BadInput
from reservelab.model.interval import Interval
from reservelab.study.fits import (
    DeadlockFit,
    Fits,
    NoFit,
    ScalingFit,
    smallest_reserve,
    throughput_lost,
)

_UNKNOWN = Interval(math.nan, math.nan, math.nan)
# What a fit may have to be told about a scenario beside its reserve.
_SCENARIO = ("mix", "threads", "pages", "need", "quota")


def decide(
    frame: pd.DataFrame, fits: Fits, risk: float, *, mix: str, threads: int, waiting: str
) -> pd.DataFrame:
    """Find the smallest reserve of every variant with which an episode deadlocks seldom enough.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns.
    fits : Fits
        What `fit` makes of it.
    risk : float
        Wanted probability of deadlock per episode.
    mix : str
        One of the table's.
    threads : int
        Inside the table's.
    waiting : str
        One of the table's.

    Returns
    -------
    DataFrame
        A row for each variant: scheme, variant, source, reason, and low, best and high of reserve
        (pages; -1 for a scheme without one), idle (pages) and lost (share of the baseline's
        throughput). The source is "fit", "cell" (the table's own cells with these threads) or ""
        where there is no answer; the reason says why it is not "fit". To be safe take the high
        reserve; idle and lost are of that.

    Raises
    ------
    BadInput
        If the risk is no probability, or the table has no cell of this mix and waiting rule.
    """
    if not 0.0 < risk < 1.0:
        raise BadInput("risk", f"{risk:g} is not a probability", "give a number between 0 and 1")
    table = throughput_lost(frame)
    table = table[(table["mix"] == mix) & (table["waiting"] == waiting)]
    if table.empty:
        raise BadInput("mix", f"no cell of {mix!r}, {waiting}", "give one that was swept")
    rows = []
    for variant in dict.fromkeys(table["variant"]):
        cells = table[table["variant"] == variant]
        (first, *_) = cells[list(_SCENARIO)].to_dict("records")
        place = {str(name): value for name, value in first.items()} | {"threads": threads}
        row = {"scheme": cells.iloc[0]["scheme"], "variant": variant}
        try:
            found = _from_fit(fits, variant, waiting, risk, place)
        except BadInput as error:
            here = cells[cells["threads"] == threads]
            why = str(error) + ("" if len(here) else f"; and no cell with {threads} threads")
            found = _from_cells(here, risk) | {"reason": why}
        rows.append(row | found)
    return pd.DataFrame(rows)


def _ends(name: str, value: Interval) -> dict[str, float]:
    return dict(zip((f"{name}_low", f"{name}_best", f"{name}_high"), value, strict=True))


def _from_fit(
    fits: Fits, variant: str, waiting: str, risk: float, place: dict[str, Any]
) -> dict[str, Any]:
    fit = fits.get(variant, "deadlock", waiting)
    if isinstance(fit, ScalingFit):
        raise TypeError("the fit of the risk is of another kind")
    reserve = smallest_reserve(fit, risk, _known(fit, place))
    found: dict[str, Any] = {"source": "fit", "reason": "", **_ends("reserve", reserve)}
    for name, quantity in (("idle", "idle_mean"), ("lost", "throughput_lost")):
        cost = fits.get(variant, quantity, waiting)
        value = _UNKNOWN
        if isinstance(cost, ScalingFit):
            value = cost.predict(_known(cost, place | {"reserve": reserve.high}))
        found |= _ends(name, value)
    return found


def _known(fit: DeadlockFit | ScalingFit | NoFit, place: dict[str, Any]) -> dict[str, Any]:
    """What of the place the fit has heard of."""
    if isinstance(fit, NoFit):
        return place
    names = {name for name, _, _ in fit.design.ranges} | {name for name, _ in fit.design.levels}
    return {name: value for name, value in place.items() if name in names}


def _from_cells(cells: pd.DataFrame, risk: float) -> dict[str, Any]:
    safe = cells[cells["deadlock_probability_high"] <= risk].sort_values("reserve")
    if safe.empty:
        nothing = (_ends(name, _UNKNOWN) for name in ("reserve", "idle", "lost"))
        return {"source": "", **{k: v for ends in nothing for k, v in ends.items()}}
    cell = safe.iloc[0]
    reserve = float(cell["reserve"])
    found: dict[str, Any] = {"source": "cell", **_ends("reserve", Interval(*[reserve] * 3))}
    for name, columns in (("idle", "idle_mean"), ("lost", "lost")):
        found |= _ends(
            name, Interval(*(float(cell[f"{columns}_{end}"]) for end in ("low", "best", "high")))
        )
    return found
