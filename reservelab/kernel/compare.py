"""Holding frequencies of the kernel against what the solvers say.

A scenario that `exact` can solve has one probability; the kernel's count of deadlocks is then
binomial, and the test is the exact two-sided binomial one. Beyond that, `simulate` counts too, and
two counts are compared by Fisher's exact test. Where the prediction is exactly 0 or 1 one
contradicting trial refutes it, and nothing is tested. The others are one family: Holm's method at
1 % [1]_, so that if kernel and model agree everywhere, one comparison in a hundred says otherwise
somewhere. Mean times to the end are a family of their own, by the normal approximation.

.. [1] S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
   Statistics 6 (1979) 65-70.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr
from scipy.stats import binomtest, fisher_exact

from reservelab.kernel.trials import Trials
from reservelab.model.catalogue import data_folder
from reservelab.model.errors import BadInput
from reservelab.model.scenario import RULES_VERSION, Scenario

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.01  # of each family, over all its points
STATES = 3_000_000  # the most that `exact` may store before `simulate` is asked instead
EPISODES = 400_000  # its standard error is then a tenth of that of 4,000 trials


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values.

    Parameters
    ----------
    p_values : sequence of float
        Of one family; nan where nothing was tested, which stays and does not count.

    Returns
    -------
    list of float
        In the same order: below the level where the hypothesis is rejected.

    Examples
    --------
    >>> holm([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.04]
    """
    tested = sorted((p, k) for k, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, k) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        adjusted[k] = highest
    return adjusted


def predict(
    scenario: Scenario, states: int = STATES, episodes: int = EPISODES, seed: int = 1
) -> dict[str, object]:
    """What the model says of a scenario.

    Parameters
    ----------
    scenario : Scenario
        The scenario.
    states : int
        The most that `exact` may store.
    episodes, seed : int
        For `simulate`, where that is not enough.

    Returns
    -------
    dict
        ``by`` (exact or simulate), ``predicted`` probability, ``predicted_deadlocks`` and
        ``predicted_episodes`` (0 if exact), ``predicted_time`` and its ``predicted_time_error``.
    """
    from reservelab.solve.exact import exact
    from reservelab.solve.simulate import simulate

    try:
        solved = exact(scenario, states)
    except BadInput as error:
        if not error.undecided:
            raise
        tally = simulate(scenario, episodes, seed)
        time = tally.duration
        return {
            "by": "simulate",
            "predicted": tally.deadlock_probability.best,
            "predicted_deadlocks": tally.deadlocks,
            "predicted_episodes": tally.episodes,
            "predicted_time": time.best,
            "predicted_time_error": (time.high - time.best) / 1.959964,
        }
    return {
        "by": "exact",
        "predicted": solved.deadlock_probability,
        "predicted_deadlocks": 0,
        "predicted_episodes": 0,
        "predicted_time": math.nan if solved.time is None else solved.time,
        "predicted_time_error": 0.0,
    }


def point(trials: Trials, prediction: dict[str, object]) -> dict[str, object]:
    """One run beside its prediction, each test by itself.

    Parameters
    ----------
    trials : Trials
        What the kernel did.
    prediction : dict
        What `predict` returned.

    Returns
    -------
    dict
        A row of a comparison, but for what belongs to the family.
    """
    scenario = trials.scenario
    measured = trials.deadlock_probability
    row = {
        "label": scenario.label,
        "variant": scenario.scheme.variant,
        "waiting": scenario.waiting,
        "threads": scenario.threads,
        "mounts": len(scenario.mounts),
        "locks": sum(len(mount.filesystem.locks) for mount in scenario.mounts),
        "pages": scenario.machine.pages,
        "reserve": -1 if scenario.reserve is None else scenario.reserve,
        "quota": scenario.quota,
        "rules": RULES_VERSION,
        **trials.row(),
        "measured_low": measured.low,
        "measured": measured.best,
        "measured_high": measured.high,
        **prediction,
    }
    row |= {"certain": prediction["predicted"] in (0.0, 1.0) and prediction["by"] == "exact"}
    return row | tests_of(row)


def tests_of(row: Mapping[str, object]) -> dict[str, object]:
    """The tests of one row, which need its counts, times and predictions only.

    Parameters
    ----------
    row : mapping
        A point, or a row of a stored comparison.

    Returns
    -------
    dict
        ``contradicted`` (where the prediction is certain), the p-values ``p`` and ``p_time``, and
        ``time_z``; nan where nothing was tested.
    """
    dead, trials = int(str(row["deadlocked"])), int(str(row["trials"]))
    predicted = float(str(row["predicted"]))
    others = int(str(row["predicted_episodes"]))
    p_value = math.nan
    if row["certain"]:
        contradicted = dead != trials * predicted
    else:
        contradicted = False
        if others:
            theirs = int(str(row["predicted_deadlocks"]))
            table = np.array([[dead, trials - dead], [theirs, others - theirs]])
            p_value = float(fisher_exact(table).pvalue)
        else:
            p_value = float(binomtest(dead, trials, predicted).pvalue)
    error = math.hypot(float(str(row["time_error"])), float(str(row["predicted_time_error"])))
    gap = float(str(row["time"])) - float(str(row["predicted_time"]))
    z = gap / error if error > 0 else math.nan
    p_time = float(2 * ndtr(-abs(z)))
    return {"contradicted": contradicted, "p": p_value, "time_z": z, "p_time": p_time}


def compare(points: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Put points together and correct their p-values for their number.

    Parameters
    ----------
    points : iterable of dict
        What `point` returned.

    Returns
    -------
    DataFrame
        A row for each, with ``p_holm`` and ``p_time_holm``, and ``agrees``: not contradicted, not
        rejected at `LEVEL` in either family, no trial without a verdict, all pages conserved.
    """
    import pandas as pd

    frame = pd.DataFrame(list(points))
    frame["p_holm"] = holm(frame["p"].tolist())
    frame["p_time_holm"] = holm(frame["p_time"].tolist())
    frame["agrees"] = (
        ~frame["contradicted"]
        & ~(frame["p_holm"] < LEVEL)
        & ~(frame["p_time_holm"] < LEVEL)
        & (frame["stalled"] + frame["not_conserved"] == 0)
    )
    return frame


def recorded() -> pd.DataFrame:
    """The committed comparison.

    Returns
    -------
    DataFrame
        data/kernel/comparison.csv, as `compare` made it; data/kernel/README.md says how.
    """
    import pandas as pd

    with (data_folder() / "kernel" / "comparison.csv").open("r") as file:
        return pd.read_csv(file)


def recorded_lockdep() -> pd.DataFrame:
    """What lockdep said of the same scenarios.

    Returns
    -------
    DataFrame
        data/kernel/lockdep.csv: fewer trials, and two more columns, ``lockdep`` and ``lock``.
    """
    import pandas as pd

    with (data_folder() / "kernel" / "lockdep.csv").open("r") as file:
        return pd.read_csv(file, keep_default_na=False)


def verdict(frame: pd.DataFrame) -> str:
    """What a comparison comes to, in words.

    Parameters
    ----------
    frame : DataFrame
        What `compare` returned.

    Returns
    -------
    str
        A line for each family, 72 columns at most.
    """
    tested, certain = frame[~frame["certain"]], frame[frame["certain"]]
    lines = [
        f"{len(frame)} scenarios, {frame['trials'].sum()} trials",
        f"probabilities  {len(tested)} tested, {(tested['p_holm'] < LEVEL).sum()} rejected"
        f" (Holm, {LEVEL:.0%}); smallest p {tested['p'].min():.2g}",
        f"certainties    {len(certain)} of exactly 0 or 1,"
        f" {certain['contradicted'].sum()} contradicted",
        f"mean times     {frame['p_time'].notna().sum()} tested,"
        f" {(frame['p_time_holm'] < LEVEL).sum()} rejected;"
        f" smallest p {frame['p_time'].min():.2g}",
        f"trials         {frame['stalled'].sum()} without a verdict,"
        f" {frame['not_conserved'].sum()} that lost pages",
    ]
    return "\n".join(lines)


def table(frame: pd.DataFrame) -> str:
    """A comparison as plain text.

    Parameters
    ----------
    frame : DataFrame
        What `compare` returned.

    Returns
    -------
    str
        A line for each scenario, 72 columns at most: the waiting rule by its letter, both
        probabilities, the uncorrected p-value (a star if the point disagrees), both mean times;
        then `verdict`.
    """
    head = f"{'scenario':<32} w {'kernel':>6} {'model':>8} {'p':>7} {'time':>6} {'model':>6}"
    lines = [f"{head}\n"]
    for row in frame.to_dict("records"):
        name = str(row["label"]).removesuffix(f", {row['waiting']}").replace("global ", "")
        p = "certain" if row["certain"] else f"{row['p']:.3f}"
        p = p if row["agrees"] else f"*{p[:6]}"
        lines.append(
            f"{name[:32]:<32} {row['waiting'][0]} {row['measured']:>6.4f} {row['predicted']:>8.6f}"
            f" {p:>7} {row['time']:>6.2f} {row['predicted_time']:>6.2f}"
        )
    return "\n".join([*lines, "", verdict(frame)])
