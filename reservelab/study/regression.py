"""Two estimators on plain arrays: penalised binomial regression and meta-regression.

Nothing here knows what a scheme or a page is; `fits` asks the questions. What is estimated:

- `Counts`: binomial counts with any link and an offset, by maximum penalised likelihood with
  Jeffreys' prior as the penalty, l(b) + 1/2 log|I(b)|, I the expected information. The estimate
  exists and is finite for every table of counts whose design has full rank, separated or not.
  With the logit link this is Firth's bias-reduced estimate [1]; with any other link it is not
  (bias reduction then is no penalised likelihood [2]), but finiteness and shrinkage hold all the
  same, for the complementary log-log link too [3]. Intervals are profile penalised-likelihood
  intervals [4, 5]: Wald intervals are useless where the data separate.
  Cells that scatter around the model by more than binomial noise get a normal deviation of their
  own on the scale of the predictor (a binomial-normal model): its likelihood is integrated cell by
  cell [8], its size estimated by adjusted profile likelihood [10], and a t quantile takes the place
  of the normal one.
- `meta_regression`: a linear model for estimates that come with known errors, plus an unknown
  scatter between them (what the model misses), by REML [6] with the Knapp-Hartung interval [7].

References
----------
1. Firth (1993), Bias reduction of maximum likelihood estimates. Biometrika 80, 27-38.
2. Kosmidis and Firth (2009), Bias reduction in exponential family nonlinear models.
   Biometrika 96, 793-804.
3. Kosmidis and Firth (2021), Jeffreys-prior penalty, finiteness and shrinkage in
   binomial-response generalized linear models. Biometrika 108, 71-82.
4. Heinze and Schemper (2002), A solution to the problem of separation in logistic regression.
   Statistics in Medicine 21, 2409-2419.
5. Venzon and Moolgavkar (1988), A method for computing profile-likelihood-based confidence
   intervals. Applied Statistics 37, 87-94.
6. Raudenbush (2009), Analyzing effect sizes: random-effects models. In: Handbook of Research
   Synthesis and Meta-Analysis, 2nd ed., 295-315.
7. Knapp and Hartung (2003), Improved tests for a random effects meta-regression with a single
   covariate. Statistics in Medicine 22, 2693-2710.
8. Williams (1982), Extra-binomial variation in logistic linear models. Applied Statistics 31,
   144-148 (model III, here with its likelihood rather than its first two moments).
9. Konis (2007), Linear programming algorithms for detecting separated data in binary logistic
   regression models. DPhil thesis, University of Oxford.
10. Cox and Reid (1987), Parameter orthogonality and approximate conditional inference. Journal of
   the Royal Statistical Society B 49, 1-39.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, special, stats

from reservelab.model.interval import Interval

Array = NDArray[np.float64]


class LinkTerms(NamedTuple):
    """What a link has to say about predictors eta.

    Parameters
    ----------
    log_p, log_q : ndarray
        log p and log (1 - p), of eta's shape as all the others.
    p1, p2, q1, q2 : ndarray
        Their first and second derivatives in eta.
    log_w : ndarray
        Log of the information that one trial carries about eta, (dp/deta)^2 / (p q).
    w1, w2 : ndarray
        Its derivatives.
    """

    log_p: Array
    log_q: Array
    p1: Array
    p2: Array
    q1: Array
    q2: Array
    log_w: Array
    w1: Array
    w2: Array


Link = Callable[[Array], LinkTerms]


def cloglog(eta: Array) -> LinkTerms:
    """Complementary log-log: p = 1 - exp(-mu), mu = exp(eta) the cumulative hazard.

    Parameters
    ----------
    eta : ndarray
        Predictors.

    Returns
    -------
    LinkTerms
        Closed forms; nothing is clipped, since log (1 - p) = -mu is exact.
    """
    mu = np.exp(eta)
    log_p = np.log(-np.expm1(-mu))
    odds = np.exp(eta - mu - log_p)  # mu q / p
    slope = np.exp(eta - log_p)  # mu / p
    return LinkTerms(
        log_p=log_p,
        log_q=-mu,
        p1=odds,
        p2=odds * (1.0 - mu - odds),
        q1=-mu,
        q2=-mu,
        log_w=2.0 * eta - mu - log_p,
        w1=2.0 - slope,
        w2=-slope * (1.0 - odds),
    )


def logit(eta: Array) -> LinkTerms:
    """Logistic link: p = 1 / (1 + exp(-eta)).

    Parameters
    ----------
    eta : ndarray
        Predictors.

    Returns
    -------
    LinkTerms
        Closed forms.
    """
    p, q = special.expit(eta), special.expit(-eta)
    log_p, log_q = special.log_expit(eta), special.log_expit(-eta)
    return LinkTerms(
        log_p=log_p,
        log_q=log_q,
        p1=q,
        p2=-p * q,
        q1=-p,
        q2=-p * q,
        log_w=log_p + log_q,
        w1=q - p,
        w2=-2.0 * p * q,
    )


# Gauss-Legendre on 0 .. 1.
_NODES, _WEIGHTS = (0.5 * part for part in np.polynomial.legendre.leggauss(32))
_NODES = _NODES + 0.5

LINKS: dict[str, Link] = {"cloglog": cloglog, "logit": logit}


class Surface(NamedTuple):
    """The penalised log-likelihood at a point.

    Parameters
    ----------
    value : float
        l(b) + 1/2 log|I(b)|.
    gradient : ndarray, shape (p,)
        Its first derivatives.
    hessian : ndarray, shape (p, p)
        Its second derivatives.
    log_det : float
        log|I(b)|.
    """

    value: float
    gradient: Array
    hessian: Array
    log_det: float


@dataclass(frozen=True, eq=False)
class Counts:
    """Binomial counts with a design: everything an estimate is made from.

    Parameters
    ----------
    design : ndarray, shape (cells, p)
        Full column rank.
    events, trials : ndarray, shape (cells,)
        Counts; at least one trial each.
    offset : ndarray, shape (cells,)
        Added to the predictor (log exposure).
    link : str
        A key of `LINKS`.
    scatter : float
        Standard deviation of the cells' own normal deviations from X b + offset.
    """

    design: Array
    events: Array
    trials: Array
    offset: Array
    link: str = "cloglog"
    scatter: float = 0.0

    def predictor(self, beta: Array) -> Array:
        """Return eta = X b + offset, kept where its exponential and the square of it are finite.

        Parameters
        ----------
        beta : ndarray, shape (p,)
            Coefficients.

        Returns
        -------
        ndarray, shape (cells,)
            Predictors.
        """
        return np.clip(self.design @ beta + self.offset, -300.0, 300.0)

    def probability(self, beta: Array) -> Array:
        """Return the fitted probability of each cell.

        Parameters
        ----------
        beta : ndarray, shape (p,)
            Coefficients.

        Returns
        -------
        ndarray, shape (cells,)
            Probabilities.
        """
        return np.exp(LINKS[self.link](self.predictor(beta)).log_p)

    def weight(self, beta: Array) -> Array:
        """Return the information each cell carries about its own predictor.

        Parameters
        ----------
        beta : ndarray, shape (p,)
            Coefficients.

        Returns
        -------
        ndarray, shape (cells,)
            trials (dp/deta)^2 / (p q).
        """
        return self.trials * np.exp(LINKS[self.link](self.predictor(beta)).log_w)

    def deviance(self, beta: Array) -> Array:
        """Return each cell's deviance: twice what the saturated likelihood is better by.

        Parameters
        ----------
        beta : ndarray, shape (p,)
            Coefficients.

        Returns
        -------
        ndarray, shape (cells,)
            Deviances, at least 0.
        """
        terms = LINKS[self.link](self.predictor(beta))
        y, n = self.events, self.trials
        best = special.xlogy(y, y / n) + special.xlogy(n - y, (n - y) / n)
        return np.maximum(2.0 * (best - y * terms.log_p - (n - y) * terms.log_q), 0.0)

    def surface(self, beta: Array) -> Surface:
        """Return l(b) + 1/2 log|I(b)| with its exact gradient and Hessian.

        Parameters
        ----------
        beta : ndarray, shape (p,)
            Coefficients.

        Returns
        -------
        Surface
            Value minus infinity where the information is singular to machine precision.
        """
        nowhere = Surface(-math.inf, np.zeros(beta.size), -np.eye(beta.size), -math.inf)
        with np.errstate(over="ignore", invalid="ignore"):
            here = self._surface(beta)
        if here is None or not np.isfinite(here.hessian).all():
            return nowhere
        return here

    def _surface(self, beta: Array) -> Surface | None:
        x = self.design
        p = x.shape[1]
        eta = self.predictor(beta)
        t = LINKS[self.link](eta)
        fit, slope, bend = self._marginal(eta) if self.scatter > 0 else self._binomial(t)
        # A cell of weight w knows its own predictor to 1 / w, and the line through it to that plus
        # the scatter's variance v: its weight is w / (1 + v w), and the derivatives follow.
        log_w = t.log_w + np.log(self.trials)
        shrink = self.scatter**2 * np.exp(log_w)
        keep = 1.0 / (1.0 + shrink)
        log_w, w1, w2 = (
            log_w - np.log1p(shrink),
            t.w1 * keep,
            t.w2 * keep - shrink * (t.w1 * keep) ** 2,
        )
        scale = log_w.max()
        # Separated data spread the weights over many orders of magnitude, so log|I| comes from a
        # QR of W^1/2 X, heaviest rows first and columns pivoted: that is accurate row by row.
        # X'WX would square the condition number and leave nothing.
        half = np.exp(0.5 * (log_w - scale))[:, None] * x
        r, pivot = linalg.qr(half[np.argsort(-log_w)], mode="r", pivoting=True, check_finite=False)
        r = r[:p]
        diagonal = np.abs(np.diag(r))
        # 1e-100 of the largest is no information at all, and its inverse would not be finite.
        if not diagonal.min() > 1e-100 * diagonal.max() > 0.0:
            return None
        # Not a triangular solve: OpenBLAS starts threads for it whatever its size, which costs 50
        # times the work on a busy machine.
        q = half[:, pivot] @ np.linalg.inv(r)
        log_det = p * scale + 2.0 * float(np.log(diagonal).sum())

        # d log|I| / db_j = sum_i h_i w1_i x_ij with the leverages h = rows of Q squared; its
        # derivative brings the traces tr(I^-1 I_j I^-1 I_k), I_j = X' diag(w w1 x_j) X.
        leverage = (q * q).sum(axis=1)
        gradient = x.T @ (slope + 0.5 * leverage * w1)
        pairs = (q[:, :, None] * q[:, None, :]).reshape(-1, p * p)
        traces = pairs.T @ (w1[:, None] * x)
        curve = bend + 0.5 * leverage * (w1 * w1 + w2)
        hessian = x.T @ (curve[:, None] * x) - 0.5 * traces.T @ traces
        return Surface(float(fit.sum()) + 0.5 * log_det, gradient, hessian, log_det)

    def _binomial(self, t: LinkTerms) -> tuple[Array, Array, Array]:
        """Log-likelihoods of the cells, (cells,) or (..., cells), and their two derivatives."""
        y, n = self.events, self.trials
        return (
            y * t.log_p + (n - y) * t.log_q,
            y * t.p1 + (n - y) * t.q1,
            y * t.p2 + (n - y) * t.q2,
        )

    def _marginal(self, eta: Array) -> tuple[Array, Array, Array]:
        """The same with each cell's own deviation integrated out."""
        link, variance = LINKS[self.link], self.scatter**2

        def height(z: Array) -> tuple[Array, Array, Array]:
            inside, slope, bend = self._binomial(link(np.clip(z, -300.0, 300.0)))
            away = z - eta
            return inside - 0.5 * away**2 / variance, slope - away / variance, bend - 1 / variance

        # The integrand is log-concave. Its mode lies roughly where the predictor and what the cell
        # alone would say meet, weighed by their precision.
        alone = self._alone()
        weight = self.trials * np.exp(link(alone).log_w) * variance
        mode = (weight * alone + eta) / (weight + 1.0)
        for _ in range(200):
            top, slope, curve = height(mode)
            step = np.clip(-slope / curve, -1.0, 1.0)
            if np.all(np.abs(step) * np.sqrt(-curve) < 1e-3):
                break
            mode = mode + step
        # It need not look normal: where a cell saw nothing it is a bell cut off by a cliff. So each
        # side is integrated for itself, out to where the integrand has fallen by exp(-25) or a
        # little more. It has at 8 standard deviations of the scatter: it is at least that narrow.
        sides = np.array([[-1.0], [1.0]])
        near = np.broadcast_to(1e-3 / np.sqrt(-curve), (2, len(eta)))
        far = np.full((2, len(eta)), 8.0 * self.scatter)
        while np.any(far > 1.3 * near):
            middle = np.sqrt(near * far)
            enough = top - height(mode + sides * middle)[0] >= 25.0
            near, far = np.where(enough, near, middle), np.where(enough, middle, far)
        where = (mode + (sides * far)[:, None, :] * _NODES[:, None]).reshape(-1, len(eta))
        width = (far[:, None, :] * _WEIGHTS[:, None]).reshape(-1, len(eta))
        inside, slope, bend = self._binomial(link(np.clip(where, -300.0, 300.0)))
        away = where - eta
        mass = width * np.exp(inside - 0.5 * away**2 / variance - top)
        total = mass.sum(axis=0)
        mass = mass / total

        # The derivatives in two forms, both exact: as moments of the binomial score, which cancel
        # where the cell knows itself well, and as moments of the deviation, which cancel elsewhere.
        score, mean = (mass * slope).sum(axis=0), (mass * away).sum(axis=0)
        spread = (mass * (away - mean) ** 2).sum(axis=0)
        by_score = (mass * (bend + (slope - score) ** 2)).sum(axis=0)
        knows = spread < 0.5 * variance
        return (
            top + np.log(total) - math.log(self.scatter * math.sqrt(2.0 * math.pi)),
            np.where(knows, mean / variance, score),
            np.where(knows, (spread / variance - 1.0) / variance, by_score),
        )

    def _alone(self) -> Array:
        """Predictor of each cell by its own counts, kept finite."""
        share = (self.events + 0.5) / (self.trials + 1.0)
        return special.logit(share) if self.link == "logit" else np.log(-np.log1p(-share))

    def start(self) -> Array:
        """Return a first guess: weighted least squares on the empirical predictor.

        Returns
        -------
        ndarray, shape (p,)
            Coefficients near the estimate.
        """
        eta = self._alone()
        weight = np.sqrt(self.trials * np.exp(LINKS[self.link](eta).log_w))
        x = weight[:, None] * self.design
        return np.asarray(np.linalg.lstsq(x, weight * (eta - self.offset), rcond=None)[0])


@dataclass(frozen=True, eq=False)
class Estimate:
    """The maximum of the penalised likelihood of `counts`.

    Parameters
    ----------
    counts : Counts
        What was fitted.
    beta : ndarray, shape (p,)
        Coefficients.
    value : float
        Penalised log-likelihood there.
    freedom : float
        Degrees of freedom that the scatter was estimated with; infinite where none was.
    """

    counts: Counts
    beta: Array
    value: float
    freedom: float = math.inf

    @cached_property
    def covariance(self) -> Array:
        """Inverse of minus the Hessian: the curvature at the top, (p, p)."""
        inverse = np.linalg.inv(-self.counts.surface(self.beta).hessian)
        return np.asarray(0.5 * (inverse + inverse.T))


def _climb(counts: Counts, start: Array, basis: Array) -> tuple[Array, Surface]:
    """Maximise over start + basis u; `basis` should make u about one standard error long."""
    if basis.shape[1] == 0:
        return start, counts.surface(start)

    def newton(beta: Array, here: Surface) -> tuple[Array, float]:
        gradient = basis.T @ here.gradient
        try:
            root = linalg.cho_factor(-(basis.T @ here.hessian @ basis), check_finite=False)
        except linalg.LinAlgError:
            return beta, math.inf
        step = linalg.cho_solve(root, gradient, check_finite=False)
        return beta + basis @ step, float(gradient @ step)

    # Plain Newton from a warm start; whatever does not go straight uphill is left to scipy's
    # trust region, which needs neither a concave surface nor a good start.
    # Below a decrement of 1e-6 rounding hides whether the value still rises, and Newton is
    # quadratic there anyway.
    beta, here, globalised = start, counts.surface(start), False
    for _ in range(60 if here.value > -math.inf else 0):
        ahead, decrement = newton(beta, here)
        if decrement < math.inf:
            there = counts.surface(ahead)
            if decrement < 1e-12:
                return ahead, there
            if there.value >= here.value or decrement < 1e-6:
                beta, here = ahead, there
                continue
        if globalised:
            break
        globalised = True
        beta = _trust_region(counts, beta, basis)
        here = counts.surface(beta)
    # With many episodes rounding of the value and its gradient can keep the decrement, which is the
    # squared distance in standard errors, from ever getting smaller; that is a top all the same.
    if newton(beta, here)[1] < 1e-6:
        return beta, here
    raise ArithmeticError("the penalised likelihood found no maximum")


def _trust_region(counts: Counts, start: Array, basis: Array) -> Array:
    """Return a point near the maximum over start + basis u, by scipy's trust-exact."""
    last: list[tuple[Array, Surface]] = []

    def at(u: Array) -> Surface:
        if not last or not np.array_equal(last[0][0], u):
            last[:] = [(u.copy(), counts.surface(start + basis @ u))]
        return last[0][1]

    def value(u: Array) -> float:
        return -at(u).value

    def jac(u: Array) -> Array:
        return -(basis.T @ at(u).gradient)

    def hess(u: Array) -> Array:
        return -(basis.T @ at(u).hessian @ basis)

    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found = optimize.minimize(
                value,
                np.zeros(basis.shape[1]),
                jac=jac,
                hess=hess,
                method="trust-exact",
                options={"gtol": 1e-5, "maxiter": 500},
            )
    except (ValueError, linalg.LinAlgError) as error:  # a start beyond all floating-point range
        raise ArithmeticError("no way up from here") from error
    return np.asarray(start + basis @ found.x)


def estimate(counts: Counts, start: Array | None = None) -> Estimate:
    """Maximise the Jeffreys-penalised likelihood.

    Parameters
    ----------
    counts : Counts
        Design of full column rank, at least as many cells as columns.
    start : ndarray, shape (p,), optional
        Where to begin (the estimate of a similar table).

    Returns
    -------
    Estimate
        Finite for every table, separated or not [3].

    Raises
    ------
    ArithmeticError
        If no climb converges (not seen with a design of full rank).
    """
    for begin in (start, counts.start(), np.zeros(counts.design.shape[1])):
        if begin is None or counts.surface(begin).value == -math.inf:
            continue
        w = counts.weight(begin)
        info = counts.design.T @ (w[:, None] * counts.design)
        basis: Array = np.eye(begin.size)
        with contextlib.suppress(linalg.LinAlgError):
            basis = np.asarray(np.linalg.inv(linalg.cholesky(info, lower=False)), dtype=float)
        with contextlib.suppress(ArithmeticError):
            beta, top = _climb(counts, begin, basis)
            return Estimate(counts, beta, top.value)
    raise ArithmeticError("the penalised likelihood found no maximum from any start")


def profile(top: Estimate, direction: Array, level: float = 0.95) -> Interval:
    """Return the profile interval of a linear combination of the coefficients.

    Parameters
    ----------
    top : Estimate
        The maximum.
    direction : ndarray, shape (p,)
        The combination c; its value is c'b. A unit vector asks for one coefficient.
    level : float
        Confidence.

    Returns
    -------
    Interval
        All values v for which the largest penalised likelihood under c'b = v is within half a
        chi-squared quantile of the maximum [4, 5]; or half a squared t quantile, where a scatter
        was estimated. An end that is not found is infinite.
    """
    return Interval(
        profile_bound(top, direction, -1, level),
        float(direction @ top.beta),
        profile_bound(top, direction, +1, level),
    )


def _ridge(hessian: Array, direction: Array) -> tuple[Array, Array]:
    """Where the profile of c'b goes next: its tangent, and what is across it one deviation long."""
    # V^1/2 times an orthonormal basis of what is orthogonal to V^1/2 c leaves c'b alone.
    half = np.linalg.inv(linalg.cholesky(-hessian, lower=False))
    whitened = half.T @ direction
    across = linalg.qr(whitened[:, None])[0][:, 1:]
    return half @ whitened / float(whitened @ whitened), half @ across


def profile_bound(top: Estimate, direction: Array, side: int, level: float = 0.95) -> float:
    """Return one end of the profile interval of c'b.

    Parameters
    ----------
    top : Estimate
        The maximum.
    direction : ndarray, shape (p,)
        The combination c.
    side : int
        -1 for the lower end, +1 for the upper.
    level : float
        Confidence of the two-sided interval.

    Returns
    -------
    float
        The bound; infinite where the profile never falls far enough.
    """
    counts = top.counts
    goal = float(stats.t.ppf(0.5 + 0.5 * level, top.freedom)) ** 2
    tangent, basis = _ridge(counts.surface(top.beta).hessian, direction)
    unit = side * math.sqrt(float(direction @ top.covariance @ direction))
    beta, at = top.beta, 0.0

    def root(s: float) -> tuple[float, float]:
        """Signed root of the likelihood ratio at s standard errors, minus its goal; and slope."""
        nonlocal beta, at, tangent, basis
        beta, here = _climb(counts, beta + (s - at) * unit * tangent, basis)
        at = s
        with contextlib.suppress(linalg.LinAlgError):
            tangent, basis = _ridge(here.hessian, direction)
        drop = max(2.0 * (top.value - here.value), 1e-300)
        # By the envelope theorem the profile's slope is the gradient along the tangent.
        slope = -float(here.gradient @ tangent) * unit / math.sqrt(drop)
        return math.sqrt(drop) - math.sqrt(goal), slope

    # The signed root is nearly straight in s: Newton from the Wald bound, kept inside a bracket.
    s, low, high = math.sqrt(goal), 0.0, math.inf
    for _ in range(60):
        try:
            value, slope = root(s)
        except ArithmeticError:  # too far in one step for a warm start
            s = 0.5 * (at + s)
            continue
        if abs(value) < 1e-9:
            break
        if value < 0:
            low = s
        else:
            high = s
        ahead = s - value / slope if slope > 0 else math.inf
        limit = 2.0 * s if high == math.inf else high
        if not low < ahead < limit:
            ahead = 0.5 * (low + high) if high < math.inf else limit
        if ahead > 1e6:
            return side * math.inf
        if abs(ahead - s) < 1e-10 * (1.0 + abs(s)):
            break
        s = ahead
    return float(direction @ beta)


def separated(counts: Counts) -> bool:
    """Whether some direction orders the outcomes perfectly, so that no likelihood maximum exists.

    Parameters
    ----------
    counts : Counts
        The table.

    Returns
    -------
    bool
        True if a combination of the columns is never positive where nothing happened, never
        negative where it always did, zero where both were seen, and not zero everywhere: found by
        linear programming [9].
    """
    y, n, x = counts.events, counts.trials, counts.design
    signed = np.concatenate([x[y == n], -x[y == 0]])
    mixed = x[(y > 0) & (y < n)]
    if len(signed) == 0:
        return False
    found = optimize.linprog(
        -signed.sum(axis=0),
        A_ub=-signed,
        b_ub=np.zeros(len(signed)),
        A_eq=mixed if len(mixed) else None,
        b_eq=np.zeros(len(mixed)) if len(mixed) else None,
        bounds=(-1.0, 1.0),
        method="highs",
    )
    return found.fun is not None and float(found.fun) < -1e-7


def allow_scatter(plain: Estimate, level: float = 0.01) -> Estimate:
    """Let cells lie further from the model than binomial noise puts them, if they do.

    Parameters
    ----------
    plain : Estimate
        The estimate with binomial noise only.
    level : float
        It is returned as it is unless its deviance would be exceeded with a smaller probability
        than this were the model true; so the intervals of a true model are left alone.

    Returns
    -------
    Estimate
        With the scatter of largest adjusted profile likelihood [10] in its counts.

    Raises
    ------
    ArithmeticError
        If it is 5 or more: predictors that are off by that much are no description of the cells.
    """
    counts = plain.counts
    freedom = len(counts.trials) - counts.design.shape[1]
    excess = float(counts.deviance(plain.beta).sum())
    if freedom < 1 or stats.chi2.sf(excess, freedom) >= level:
        return plain
    best = [(-math.inf, plain)]

    def adjusted(log_scatter: float) -> float:
        """The penalty's half log-determinant taken off again, and as much once more [10]."""
        start = best[0][1].beta
        top = estimate(replace(counts, scatter=math.exp(float(log_scatter))), start)
        value = top.value - top.counts.surface(top.beta).log_det
        if value > best[0][0]:
            best[0] = (value, replace(top, freedom=float(freedom)))
        return -value

    # Uphill from no scatter, so that every estimate starts near its end.
    steps = np.linspace(math.log(1e-2), math.log(5.0), 13)
    falls = itertools.takewhile(lambda k: adjusted(steps[k]) == -best[0][0], range(len(steps)))
    top = max(falls, default=0)
    if top == len(steps) - 1:
        raise ArithmeticError(
            "the cells lie too far from any model with these terms (a scatter of 5 or more)"
        )
    bounds = (steps[max(top - 1, 0)], steps[top + 1])
    optimize.minimize_scalar(adjusted, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return best[0][1]


class Line(NamedTuple):
    """A fitted linear model for estimates with errors.

    Parameters
    ----------
    beta : ndarray, shape (p,)
        Coefficients.
    covariance : ndarray, shape (p, p)
        Of the coefficients.
    scatter : float
        Standard deviation between estimates that their errors do not explain.
    quantile : float
        What turns a standard error into half a 95 % interval.
    deviance : float
        Cochran's Q: squares about the line, weighted by the known errors alone.
    freedom : int
        Its degrees of freedom.
    """

    beta: Array
    covariance: Array
    scatter: float
    quantile: float
    deviance: float
    freedom: int

    def along(self, direction: Array) -> Interval:
        """Return the 95 % interval of a linear combination of the coefficients.

        Parameters
        ----------
        direction : ndarray, shape (p,)
            The combination.

        Returns
        -------
        Interval
            For the line itself; a new estimate scatters around it.
        """
        best = float(direction @ self.beta)
        half = self.quantile * math.sqrt(max(float(direction @ self.covariance @ direction), 0.0))
        return Interval(best - half, best, best + half)


class Errors(NamedTuple):
    """Known errors of estimates, some of which share a part.

    Parameters
    ----------
    own : ndarray, shape (cells,)
        Standard deviation of each estimate's own error; above 0.
    shared : ndarray, shape (cells,)
        Standard deviation of the error it shares with all others of its group (0: none).
    group : ndarray of int, shape (cells,)
        Which group.
    """

    own: Array
    shared: Array
    group: NDArray[np.intp]

    @classmethod
    def independent(cls, own: Array) -> Errors:
        """Return errors that share nothing.

        Parameters
        ----------
        own : ndarray, shape (cells,)
            Standard deviations.

        Returns
        -------
        Errors
            With no shared part.
        """
        return cls(own, np.zeros(len(own)), np.zeros(len(own), dtype=np.intp))

    def select(self, cells: NDArray[np.bool_] | NDArray[np.intp]) -> Errors:
        """Return the errors of some of the cells.

        Parameters
        ----------
        cells : ndarray
            Which, as an index or a mask.

        Returns
        -------
        Errors
            Of those.
        """
        return Errors(self.own[cells], self.shared[cells], self.group[cells])

    def whiten(self, columns: Array, variance: float) -> tuple[Array, float]:
        """Turn columns into ones with errors of covariance 1, and say at what log-determinant.

        Parameters
        ----------
        columns : ndarray, shape (cells, k)
            Values in columns.
        variance : float
            Of the scatter that comes on top of the own errors.

        Returns
        -------
        tuple of ndarray and float
            V^-1/2 times the columns, and log|V|.
        """
        # Divided by the own deviations the covariance is 1 + u u' within each group, whose inverse
        # root is 1 - (1 - 1 / sqrt(1 + |u|^2)) u u' / |u|^2.
        total = self.own**2 + variance
        scaled = columns / np.sqrt(total)[:, None]
        u = self.shared / np.sqrt(total)
        square = np.bincount(self.group, u * u)
        shrink = (1.0 - 1.0 / np.sqrt(1.0 + square)) / np.where(square > 0, square, 1.0)
        along = np.column_stack([np.bincount(self.group, u * column) for column in scaled.T])
        scaled = scaled - u[:, None] * (shrink[:, None] * along)[self.group]
        return scaled, float(np.log(total).sum() + np.log1p(square).sum())


def meta_regression(values: Array, design: Array, errors: Errors) -> Line:
    """Fit a line to estimates with known errors and an unknown scatter about it.

    Parameters
    ----------
    values : ndarray, shape (cells,)
        The estimates.
    design : ndarray, shape (cells, p)
        Full column rank.
    errors : Errors
        Of the estimates.

    Returns
    -------
    Line
        Scatter by REML [6]; interval by Knapp and Hartung [7] with a t quantile, never narrower
        than the errors and the scatter make it. With no degrees of freedom left the scatter is
        unknown, is taken as 0, and the errors alone make the interval.
    """
    n, p = design.shape
    columns = np.column_stack([design, values])

    def solve(variance: float) -> tuple[Array, Array, float, float]:
        white, log_det = errors.whiten(columns, variance)
        q, r = np.linalg.qr(white[:, :p])
        inverse = np.linalg.inv(r)
        beta = inverse @ (q.T @ white[:, p])
        squares = float(((white[:, p] - white[:, :p] @ beta) ** 2).sum())
        log_det += 2.0 * float(np.log(np.abs(np.diag(r))).sum())
        return beta, inverse @ inverse.T, squares, -0.5 * (log_det + squares)

    beta, covariance, deviance, reml = solve(0.0)
    freedom = n - p
    if freedom == 0:
        return Line(beta, covariance, 0.0, float(stats.norm.ppf(0.975)), deviance, 0)
    variance, squares = 0.0, deviance
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    spread = float(rest @ rest) / freedom
    if spread > 0.0:
        found = optimize.minimize_scalar(
            lambda log_variance: -solve(math.exp(log_variance))[3],
            bounds=(math.log(spread * 1e-6), math.log(spread * 10.0)),
            method="bounded",
            options={"xatol": 1e-6},
        )
        if -found.fun > reml:
            variance = math.exp(found.x)
            beta, covariance, squares, _ = solve(variance)
    covariance = covariance * max(1.0, squares / freedom)
    quantile = float(stats.t.ppf(0.975, freedom))
    return Line(beta, covariance, math.sqrt(variance), quantile, deviance, freedom)
