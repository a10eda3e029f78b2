"""Designs: the terms of a fit as columns of numbers, and what a table can speak about.

A term is written as text: a column ("threads", "mix"), its logarithm ("log threads"), or a ratio,
product or square of columns ("reserve/need", "threads*reserve", "reserve^2"), the logarithm of
those too. A column of text is a factor; its first level in alphabetical order is the one that the
others are compared with. A factor times a term ("mix*reserve") lets the term's slope differ between
its levels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reservelab.model.errors import BadInput
from reservelab.model.plain_text import wrap
from reservelab.study.regression import Array

_TERM = re.compile(r"(?P<log>log )?(?P<one>\w+)(?:(?P<op>[/*])(?P<two>\w+)|(?P<square>\^2))?")


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


def _single(place: Mapping[str, object]) -> dict[str, NDArray[Any]]:
    return {name: np.array([value]) for name, value in place.items()}


def _range(values: pd.Series) -> tuple[float, float]:
    return float(values.min()), float(values.max())


@dataclass(frozen=True)
class Column:
    """One numeric column of a design: a term less its centre, perhaps at one level of a factor.

    Parameters
    ----------
    term : str
        What it is made of, as the module says.
    centre : float
        Subtracted (the middle of the table), so that the intercept speaks about the middle.
    factor, level : str
        Where it is not 0; "" for everywhere.
    """

    term: str
    centre: float
    factor: str = ""
    level: str = ""

    @property
    def name(self) -> str:
        """How it is called in results."""
        return f"{self.factor}={self.level} * {self.term}" if self.factor else self.term

    def of(self, table: Mapping[str, NDArray[Any]]) -> Array:
        """Return its values for the cells of a table.

        Parameters
        ----------
        table : mapping of str to ndarray, shape (cells,)
            Columns by name.

        Returns
        -------
        ndarray, shape (cells,)
            Numbers; not finite where the term is not defined.
        """
        numeric = {name: table[name].astype(float) for name in columns_of(self.term)}
        value = _value_of(self.term, numeric) - self.centre
        if not self.factor:
            return value
        return np.asarray(np.where(table[self.factor].astype(str) == self.level, value, 0.0))


@dataclass(frozen=True)
class Design:
    """How a scenario becomes a row of numbers, and which scenarios the table speaks about.

    Parameters
    ----------
    columns : tuple of Column
        Numeric columns in the fit.
    levels : tuple of (str, tuple of str)
        Factors in the fit with their levels, the reference first.
    ranges : tuple of (str, float, float)
        Smallest and largest value of every numeric column the fit was offered.
    narrower : tuple of (str, str, str, float, float)
        Where a level of a factor has seen less: factor, level, column, smallest, largest.
    tied : tuple of (str, tuple of float)
        Terms left out because the others tell them: the value where the others are 0, and their
        coefficients on the first of `names`.
    dropped : tuple of (str, str)
        Every term left out, with the reason.
    """

    columns: tuple[Column, ...]
    levels: tuple[tuple[str, tuple[str, ...]], ...]
    ranges: tuple[tuple[str, float, float], ...]
    narrower: tuple[tuple[str, str, str, float, float], ...]
    tied: tuple[tuple[str, tuple[float, ...]], ...]
    dropped: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of a row."""
        factors = [f"{name}={level}" for name, levels in self.levels for level in levels[1:]]
        return ("intercept", *factors, *(column.name for column in self.columns))

    @property
    def needs(self) -> set[str]:
        """Columns of the table that a row is made of, factors aside."""
        return {name for column in self.columns for name in columns_of(column.term)}

    @classmethod
    def of(cls, frame: pd.DataFrame, terms: Sequence[str], also: Sequence[str] = ()) -> Design:
        """Choose among the terms those that the table can tell apart.

        Parameters
        ----------
        frame : DataFrame
            The cells.
        terms : sequence of str
            In order of importance: of terms that say the same, the first stays, and where there are
            fewer than two cells for each column, the first are all.
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
        text = {c for c in frame.columns if not pd.api.types.is_numeric_dtype(frame[c])}
        levels: list[tuple[str, tuple[str, ...]]] = []
        numeric: list[tuple[str, str]] = []  # factor or "", and a term
        dropped: list[tuple[str, str]] = []
        for term in terms:
            factor, _, rest = term.partition("*")
            if term in text:
                seen = tuple(sorted(str(level) for level in frame[term].unique()))
                levels.append((term, seen))
                if len(seen) == 1:
                    dropped.append((term, f"always {seen[0]}"))
            elif factor in text and rest:
                numeric.append((factor, rest))
            else:
                numeric.append(("", term))
        wanted = {name for _, term in numeric for name in columns_of(term)} | set(also)
        for name in sorted(wanted):
            if name not in frame.columns or name in text:
                raise BadInput("terms", f"{name!r} is no column of numbers", "name one that is")
        for factor, term in numeric:
            if factor and factor not in dict(levels):
                raise BadInput("terms", f"{factor}*{term} without {factor}", f"name {factor} first")
        # A reserve of -1 means that the scheme has none to choose.
        without = {"reserve"} & {n for n in wanted if bool((frame[n] < 0).any())}
        ranges = {n: _range(frame[n]) for n in sorted(wanted - without)}
        narrower = [
            (factor, level, name, *_range(some))
            for factor, seen in levels
            for level in seen
            for name, span in ranges.items()
            if _range(some := frame.loc[frame[factor].astype(str) == level, name]) != span
        ]
        design = cls(
            (), tuple(levels), tuple((n, *r) for n, r in ranges.items()), tuple(narrower), (), ()
        )
        table = {name: frame[name].to_numpy() for name in wanted | set(dict(levels))}
        tied: list[tuple[str, tuple[float, ...]]] = []
        for factor, term in numeric:
            whole = f"{factor}*{term}" if factor else term
            if without & set(columns_of(term)):
                dropped.append((whole, "the scheme has no reserve to choose"))
                continue
            value = Column(term, 0.0).of(table)
            if not np.isfinite(value).all():
                dropped.append((whole, "not defined for every cell (log or ratio of 0)"))
                continue
            centre = 0.5 * float(value.min() + value.max())
            spread = float(np.ptp(value))
            if spread <= 1e-9 * float(np.abs(value).max()):
                dropped.append((whole, f"always {value[0]:.6g}"))
                continue
            for level in dict(levels)[factor][1:] if factor else ("",):
                column = Column(term, centre, factor, level)
                matrix, values = design.rows(frame), column.of(table)
                told, *_ = np.linalg.lstsq(matrix, values, rcond=None)
                if np.abs(values - matrix @ told).max() <= 1e-7 * spread:
                    pairs = zip(design.names[1:], told[1:], strict=True)
                    by = [name for name, part in pairs if abs(part) > 1e-7]
                    reason = f"told by {', '.join(by)}" if by else "nothing varies there"
                    dropped.append((column.name, reason))
                    if not factor:
                        tied.append((term, (centre, *(float(part) for part in told))))
                elif len(frame) < 2 * (matrix.shape[1] + 1):
                    dropped.append((column.name, "too few cells"))
                else:
                    design = replace(design, columns=(*design.columns, column))
        return replace(design, tied=tuple(tied), dropped=tuple(dropped))

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
        names = self.needs | {name for name, _ in self.levels}
        return self._matrix({name: frame[name].to_numpy() for name in names}, len(frame))

    def _matrix(self, table: Mapping[str, NDArray[Any]], cells: int) -> Array:
        columns = [np.ones(cells)]
        for name, levels in self.levels:
            text = table[name].astype(str)
            columns += [(text == level).astype(float) for level in levels[1:]]
        return np.column_stack([*columns, *(column.of(table) for column in self.columns)])

    def span(self, name: str, at: Mapping[str, object]) -> tuple[float, float]:
        """Return the range in which the table speaks about a column.

        Parameters
        ----------
        name : str
            A numeric column of the table.
        at : mapping
            A scenario, of which only the factors matter.

        Returns
        -------
        tuple of float
            Smallest and largest value seen, with all of these levels.
        """
        low, high = next((a, b) for n, a, b in self.ranges if n == name)
        for factor, level, column, a, b in self.narrower:
            if column == name and str(at.get(factor)) == level:
                low, high = max(low, a), min(high, b)
        return low, high

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
        known, levels = [name for name, _, _ in self.ranges], dict(self.levels)
        for key in at:
            if key not in known and key not in levels:
                names = ", ".join([*levels, *known])
                raise BadInput(key, "is not known to this fit", f"it knows {names}")
        place: dict[str, object] = {}
        for name, seen in levels.items():
            if name not in at and len(seen) > 1:
                raise BadInput(name, "missing", f"one of {', '.join(seen)}")
            place[name] = str(at.get(name, seen[0]))
            if place[name] not in seen:
                raise BadInput(
                    name, f"{place[name]!r} is not in the table", f"one of {', '.join(seen)}"
                )
        spans = {name: self.span(name, place) for name in known}
        for name, (low, high) in spans.items():
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
        for name in sorted(self.needs - set(place)):
            raise BadInput(name, "missing", "a number in {:g} .. {:g}".format(*spans[name]))
        row: Array = self._matrix(_single(place), 1)[0]
        if not np.isfinite(row).all():
            raise BadInput("at", "a term of the fit is not defined there", "stay above 0")
        for term, _ in self.tied:
            if extrapolate or not all(name in place for name in columns_of(term)):
                continue
            given = float(Column(term, 0.0).of(_single(place))[0])
            due = self._due(term, place)
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
        kept = len(told) - len(replace(self, columns=()).names)
        before = replace(self, columns=self.columns[:kept])
        if not before.needs <= set(place):
            return None
        return centre + float(np.dot(told, before._matrix(_single(place), 1)[0]))

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
        spans += [
            f"with {factor} {level} only {name} {low:g} .. {high:g}"
            for factor, level, name, low, high in self.narrower
            if name in self.needs - {term.removeprefix("log ") for term, _ in self.tied}
        ]
        lines = wrap("fitted range (no prediction outside): " + ", ".join(spans), "    ")
        middles = [f"{c.term} {c.centre:.4g}" for c in self.columns if not c.factor]
        middles += [f"{name} {levels[0]}" for name, levels in self.levels if len(levels) > 1]
        if middles:
            lines += wrap("intercept at: " + ", ".join(middles), "    ")
        if self.dropped:
            dropped = "; ".join(f"{term} ({why})" for term, why in self.dropped)
            lines += wrap(f"left out: {dropped}", "    ")
        return lines
