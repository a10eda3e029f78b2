"""How far a tally is from what is known: two-sided p-values, from the estimators' own errors."""

from __future__ import annotations

from scipy import stats

from reservelab.model.interval import Interval

Z95 = 1.959963984540054


def of_probability(successes: int, trials: int, expected: float) -> float:
    """The exact binomial p-value; 0 where something certain did not happen each time."""
    if 1e-12 < expected < 1 - 1e-12:
        return float(stats.binomtest(successes, trials, expected).pvalue)
    return float(successes == round(expected) * trials)


def z_of_mean(interval: Interval, expected: float) -> float:
    """Standard errors a mean or ratio is off, from its 95 % interval; without spread 0 or inf."""
    error = (interval.high - interval.low) / 2 / Z95
    if error <= 1e-9 * abs(expected):
        agrees = abs(interval.best - expected) <= 1e-9 * abs(expected)
        return 0.0 if agrees else float("inf")
    return (interval.best - expected) / error


def of_mean(interval: Interval, expected: float) -> float:
    """The p-value of a mean or ratio, by the normal distribution."""
    return float(2 * stats.norm.sf(abs(z_of_mean(interval, expected))))
