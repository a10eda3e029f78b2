"""Designs: the terms of a fit as columns of numbers, and what a table can speak about.

A term is written as text: a column ("threads", "mix"), its logarithm ("log threads"), or a ratio,
product or square of columns ("reserve/need", "threads*reserve", "reserve^2"), the logarithm of
those too. A column of text is a factor; its first level in alphabetical order is the one that the
others are compared with.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from reservelab.model.errors import BadInput
from reservelab.study.regression import Array

_TERM = re.compile(r"(?P<log>log )?(?P<one>\w+)(?:(?P<op>[/*])(?P<two>\w+)|(?P<square>\^2))?")


def wrap(text: str) -> list[str]:
    """Break a text into lines of plain ASCII, at most 72 columns.

    Parameters
    ----------
    text : str
        Any text; what is not ASCII becomes a question mark.

    Returns
    -------
    list of str
        Lines; all but the first are indented.
    """
    plain = text.encode("ascii", "replace").decode("ascii")
    return textwrap.wrap(plain, 72, subsequent_indent="    ")


def _parse(term: str) -> re.Match[str]:
    match = _TERM.fullmatch(term)
    if match is None:
        raise BadInput(
            "terms", f"{term!r} is not a term", "write a column, 'log threads' or 'reserve/need'"
        )
    return match


def columns_of(term: str) -> tuple[str, ...]:
    """Return the columns that a term is made of.

    Parameters
    ----------
    term : str
        As the module says.

    Returns
    -------
    tuple of str
        One or two names.

    Raises
    ------
    BadInput
        If it is not a term.
    """
    match = _parse(term)
    return (match["one"],) if match["two"] is None else (match["one"], match["two"])


def _value_of(term: str, columns: Mapping[str, Array]) -> Array:
    """Numbers of a term; not finite where it is not defined."""
    match = _parse(term)
    value = columns[match["one"]]
    with np.errstate(divide="ignore", invalid="ignore"):
        if match["op"] == "/":
            value = value / columns[match["two"]]
        elif match["op"] == "*":
            value = value * columns[match["two"]]
        elif match["square"]:
            value = value * value
        return np.log(value) if match["log"] else value


@dataclass(frozen=True)
class Design:
    """How a scenario becomes a row of numbers, and which scenarios the table speaks about.

    Parameters
    ----------
    terms : tuple of str
        Numeric terms in the fit.
    centres : tuple of float
        Subtracted from them (middle of the table), so that the intercept speaks about the middle.
    levels : tuple of (str, tuple of str)
        Factors in the fit with their levels, the reference first.
    ranges : tuple of (str, float, float)
        Smallest and largest value of every numeric column the fit was offered.
    tied : tuple of (str, tuple of float)
        Terms left out because the others tell them: their coefficients on `names`.
    dropped : tuple of (str, str)
        Every term left out, with the reason.
    """

    terms: tuple[str, ...]
    centres: tuple[float, ...]
    levels: tuple[tuple[str, tuple[str, ...]], ...]
    ranges: tuple[tuple[str, float, float], ...]
    tied: tuple[tuple[str, tuple[float, ...]], ...]
    dropped: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of a row."""
        factors = [f"{name}={level}" for name, levels in self.levels for level in levels[1:]]
        return ("intercept", *factors, *self.terms)

    @classmethod
    def of(cls, frame: pd.DataFrame, terms: Sequence[str], also: Sequence[str] = ()) -> Design:
        """Choose among the terms those that the table can tell apart.

        Parameters
        ----------
        frame : DataFrame
            The cells.
        terms : sequence of str
            In order of importance: of terms that say the same, the first stays.
        also : sequence of str
            Numeric columns whose range is to be kept though they are no terms.

        Returns
        -------
        Design
            With the reasons for everything left out.

        Raises
        ------
        BadInput
            If a term is not one, or names no column of the table.
        """
        wanted = {name for term in terms for name in columns_of(term)}
        for name in sorted(wanted | set(also)):
            if name not in frame.columns:
                raise BadInput("terms", f"{name!r} is no column of the table", "name one that is")
        factors = [t for t in terms if not pd.api.types.is_numeric_dtype(frame[columns_of(t)[0]])]
        levels, dropped = [], []
        for name in factors:
            seen = tuple(sorted(str(level) for level in frame[name].unique()))
            levels.append((name, seen))
            if len(seen) == 1:
                dropped.append((name, f"always {seen[0]}"))
        numeric = {
            name: frame[name].to_numpy(dtype=float)
            for name in sorted((wanted | set(also)) - set(factors))
        }
        # A reserve of -1 means that the scheme has none to choose.
        without = {n for n, v in numeric.items() if n == "reserve" and bool((v < 0).any())}
        ranges = [
            (n, float(v.min()), float(v.max())) for n, v in numeric.items() if n not in without
        ]
        bare = cls((), (), tuple(levels), tuple(ranges), (), ())

        kept: list[str] = []
        centres: list[float] = []
        tied: list[tuple[str, tuple[float, ...]]] = []
        columns = list(bare.rows(frame).T)
        for term in terms:
            if term in factors:
                continue
            value = _value_of(term, numeric)
            if without & set(columns_of(term)):
                dropped.append((term, "the scheme has no reserve to choose"))
            elif not np.isfinite(value).all():
                dropped.append((term, "not defined for every cell (log or ratio of 0)"))
            elif np.ptp(value) <= 1e-9 * float(np.abs(value).max()):
                dropped.append((term, f"always {value[0]:.6g}"))
            else:
                centre = 0.5 * float(value.min() + value.max())
                basis = np.column_stack(columns)
                told, *_ = np.linalg.lstsq(basis, value - centre, rcond=None)
                if np.abs(value - centre - basis @ told).max() <= 1e-7 * np.ptp(value):
                    names = replace(bare, terms=tuple(kept), centres=tuple(centres)).names
                    parts = [n for n, part in zip(names, told, strict=True) if abs(part) > 1e-7]
                    by = ", ".join(n for n in parts if n != "intercept")
                    dropped.append((term, f"told by {by}"))
                    tied.append((term, (centre, *(float(part) for part in told))))
                else:
                    kept.append(term)
                    centres.append(centre)
                    columns.append(value - centre)
        return replace(
            bare,
            terms=tuple(kept),
            centres=tuple(centres),
            tied=tuple(tied),
            dropped=tuple(dropped),
        )

    def rows(self, frame: pd.DataFrame) -> Array:
        """Return the matrix of the frame's cells, with no check of ranges.

        Parameters
        ----------
        frame : DataFrame
            Cells.

        Returns
        -------
        ndarray, shape (cells, len(names))
            The design matrix.
        """
        columns = [np.ones(len(frame))]
        for name, levels in self.levels:
            text = frame[name].astype(str).to_numpy()
            columns += [(text == level).astype(float) for level in levels[1:]]
        used = {name for term in self.terms for name in columns_of(term)}
        numeric = {name: frame[name].to_numpy(dtype=float) for name in used}
        for term, centre in zip(self.terms, self.centres, strict=True):
            columns.append(_value_of(term, numeric) - centre)
        return np.column_stack(columns)

    def row(self, at: Mapping[str, object], *, extrapolate: bool = False) -> Array:
        """Return the row of one scenario, or say why the table does not speak about it.

        Parameters
        ----------
        at : mapping
            Column names and values. What never varied in the table may be left out.
        extrapolate : bool
            Allow numbers outside the table's ranges. A level never seen stays refused.

        Returns
        -------
        ndarray, shape (len(names),)
            The row.

        Raises
        ------
        BadInput
            If something is missing, unknown, or outside the table.
        """
        ranges = {name: (low, high) for name, low, high in self.ranges}
        levels = dict(self.levels)
        for key in at:
            if key not in ranges and key not in levels:
                known = ", ".join([*levels, *ranges])
                raise BadInput(key, "is not known to this fit", f"it knows {known}")
        place: dict[str, object] = {}
        for name, seen in levels.items():
            if name not in at and len(seen) > 1:
                raise BadInput(name, "missing", f"one of {', '.join(seen)}")
            place[name] = str(at.get(name, seen[0]))
            if place[name] not in seen:
                raise BadInput(
                    name, f"{place[name]!r} is not in the table", f"one of {', '.join(seen)}"
                )
        needed = {name for term in self.terms for name in columns_of(term)}
        for name, (low, high) in ranges.items():
            if name not in at:
                if low == high:
                    place[name] = low
                continue
            value = at[name]
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise BadInput(name, f"{value!r} is not a number", f"give {low:g} .. {high:g}")
            number = float(value)
            slack = 1e-9 * max(abs(low), abs(high))
            if not low - slack <= number <= high + slack and not extrapolate:
                raise BadInput(
                    name,
                    f"{number:g} is outside the table's {low:g} .. {high:g}",
                    "sweep it, or pass extrapolate=True",
                )
            place[name] = number
        self._follow(place)
        for name in sorted(needed - set(place)):
            low, high = ranges[name]
            raise BadInput(name, "missing", f"a number in {low:g} .. {high:g}")
        row: Array = self.rows(pd.DataFrame([place]))[0]
        if not np.isfinite(row).all():
            raise BadInput("at", "a term of the fit is not defined there", "stay above 0")
        for term, _ in self.tied:
            if extrapolate or not all(name in place for name in columns_of(term)):
                continue
            one = {name: np.array([float(str(place[name]))]) for name in columns_of(term)}
            given, due = float(_value_of(term, one)[0]), self._due(term, place)
            if due is not None and abs(given - due) > 1e-6 * (1.0 + abs(due)):
                raise BadInput(
                    term,
                    f"{given:g}, but in the table it follows from the others and would be {due:g}",
                    "leave it out, or sweep it",
                )
        return row

    def _due(self, term: str, place: Mapping[str, object]) -> float | None:
        """What a tied term follows to be, if the columns that tell it are in place."""
        centre, *told = dict(self.tied)[term]
        kept = len(told) - len(replace(self, terms=(), centres=()).names)
        before = replace(self, terms=self.terms[:kept], centres=self.centres[:kept])
        if any(name not in place for t in before.terms for name in columns_of(t)):
            return None
        return centre + float(np.dot(told, before.rows(pd.DataFrame([place]))[0]))

    def _follow(self, place: dict[str, object]) -> None:
        """Fill in the columns that the table's other columns tell, as a mix tells its need."""
        for term, _ in self.tied:
            log, name = term.startswith("log "), term.removeprefix("log ")
            if name in place or columns_of(term) != (name,):
                continue
            due = self._due(term, place)
            if due is not None:
                place[name] = float(np.exp(due)) if log else due

    def describe(self) -> list[str]:
        """Return what the table covers and what was left out, as lines of plain text.

        Returns
        -------
        list of str
            Lines of at most 72 columns.
        """
        spans = [
            f"{name} {low:g}" if low == high else f"{name} {low:g} .. {high:g}"
            for name, low, high in self.ranges
        ]
        spans += [f"{name} {'|'.join(levels)}" for name, levels in self.levels]
        lines = wrap("fitted range (no prediction outside): " + ", ".join(spans))
        middles = [f"{t} {c:.4g}" for t, c in zip(self.terms, self.centres, strict=True)]
        middles += [f"{name} {levels[0]}" for name, levels in self.levels if len(levels) > 1]
        if middles:
            lines += wrap("intercept at: " + ", ".join(middles))
        if self.dropped:
            lines += wrap("left out: " + "; ".join(f"{t} ({why})" for t, why in self.dropped))
        return lines
