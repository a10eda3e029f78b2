"""Plots of a sweep's cells in letters and dashes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reservelab.model.errors import BadInput
from reservelab.model.interval import Interval
from reservelab.model.plain_text import WIDTH, plain, wrap
from reservelab.show.cells import (
    AXES,
    QUANTITIES,
    check,
    ends,
    frontier,
    glyphs,
    hold,
    interval,
    mixes,
    ordered,
)
from reservelab.show.text.tables import Column, aligned, caption, in_order, title
from reservelab.show.text.words import joined, key, number, risk

_RISK = "deadlock_probability"
_BLOCK = 6  # variants in a plot, where all of them do not fit into one
_SHADES = " :+#@"


@dataclass(frozen=True)
class _Scale:
    """From values to places 0 .. steps - 1 along an axis."""

    low: float
    high: float
    steps: int
    log: bool

    @classmethod
    def of(cls, values: Iterable[Interval], steps: int, log: bool) -> _Scale:
        """An axis on which every best value and bound has its place, with room for an arrow."""
        if not log:
            tops = [b for v in values for b in (v.best, v.high) if math.isfinite(b) and b > 0]
            return cls(0.0, max(tops, default=1.0), steps, log)
        least = min((v.best or v.high for v in values if v.known), default=0.1)
        decades = -math.floor(math.log10(least if 1e-300 < least < 1 else 0.1))
        scale = cls(10.0**-decades, 1.0, steps, log)
        return scale if scale.place(least) >= 2 else cls(scale.low / 10, 1.0, steps, log)

    def place(self, value: float) -> int:
        """The nearest place; what lies outside the axis is at its end."""
        low, high = self.low, self.high
        inside = min(max(value, low), high)
        if self.log:
            share = math.log(inside / low) / math.log(high / low)
        else:
            share = (inside - low) / (high - low)
        return round(share * (self.steps - 1))

    def ticks(self) -> dict[int, str]:
        """Labels by place."""
        if self.log:
            decades = round(math.log10(self.high / self.low))
            each = max(1, -(-3 * decades // self.steps))
            powers = range(0, -decades - 1, -each)
            return {self.place(10.0**k): "1" if k == 0 else f"1e{k}" for k in powers}
        step = 10.0 ** math.floor(math.log10(self.high))
        step *= next(f for f in (0.2, 0.5, 1, 2) if self.high / (f * step) <= 5.5)
        return {
            self.place(k * step): f"{k * step:.4g}" for k in range(int(self.high / step + 1e-9) + 1)
        }


def curves(frame: pd.DataFrame, x: str = "threads", quantity: str = _RISK, height: int = 17) -> str:
    """Plot a quantity against a setting, a letter for each scheme, a plot for each mix.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns; settings other than x are held (`cells.hold`).
    x : str
        "threads", "reserve", "pages" or "quota". Its values stand evenly spaced, whatever they
        are; schemes without a reserve stand at "none".
    quantity : str
        What to plot: deadlock_probability on a logarithmic axis, all else on a linear one from 0.
    height : int
        Lines of the plot.

    Returns
    -------
    str
        Lines of at most 72 ASCII characters. No two letters share a column, so none hides
        another; what does not fit into one plot stands in several.

    Raises
    ------
    BadInput
        If x or the quantity is unknown, the height below 5, or the frame cannot be shown.
    """
    _check_choice("x", x, AXES)
    _check_choice("quantity", quantity, QUANTITIES)
    _check_height(height)
    check(frame, ends(quantity))
    cells = hold(frame, (x,))
    letters = glyphs(frame["variant"])
    what = QUANTITIES[quantity]
    lines = wrap(title(f"{what[0].upper()}{what[1:]}, against {AXES[x]}", cells))
    lines += wrap("| 95 % interval." + _bound_note(quantity, "A letter over v: "))
    for mix in mixes(cells.frame):
        here = cells.frame[cells.frame["mix"] == mix]
        scale = _Scale.of(_intervals(here, quantity), height, quantity == _RISK)
        lines += ["", *wrap(caption(mix, cells))]
        for variants, values in _portions(here, x):
            part = here[here["variant"].isin(variants) & here[x].isin(values)]
            lines += _plot(part, x, quantity, scale, variants, values, letters)
    return joined([*lines, "", *key(letters, letters)])


def _check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise BadInput(key, f"{value!r} is unknown", f"one of {', '.join(choices)}")


def _bound_note(quantity: str, sign: str) -> str:
    if quantity != _RISK:
        return ""
    return f" {sign}no deadlock seen; the letter is at the upper end of the interval."


def _intervals(part: pd.DataFrame, quantity: str) -> list[Interval]:
    return [interval(row, quantity) for _, row in part.iterrows()]


def _portions(here: pd.DataFrame, x: str) -> Iterator[tuple[list[str], list[int]]]:
    """Variants and values of x that fit into one plot, each pair of them once."""
    room = WIDTH - 9
    values = sorted(set(here[x]), key=lambda v: (v < 0, v))
    variants = ordered(here["variant"])
    most = max(room // len(values) - 1, _BLOCK)
    each = -(-len(variants) // -(-len(variants) // most))  # plots of about the same size
    for k in range(0, len(variants), each):
        members = variants[k : k + each]
        own = [v for v in values if here.loc[here["variant"].isin(members), x].eq(v).any()]
        step = room // (len(members) + 1)
        for start in range(0, len(own), step):
            yield members, own[start : start + step]


def _plot(
    part: pd.DataFrame, x: str, quantity: str, scale: _Scale, variants: Sequence[str],
    values: Sequence[int], letters: dict[str, str],
) -> Iterator[str]:  # fmt: skip
    """One plot in a frame with ticks."""
    inner, height = WIDTH - 9, scale.steps
    slot = min(inner // len(values), 2 * len(variants) + 4)
    inner = slot * len(values)
    step = max(1, (slot - 1) // len(variants))
    start = (slot - 1 - step * (len(variants) - 1)) // 2
    canvas = [[" "] * inner for _ in range(height)]
    for _, row in part.iterrows():
        low, best, high = interval(row, quantity)
        if math.isnan(best):
            continue
        column = slot * values.index(row[x]) + start + step * variants.index(row["variant"])
        if quantity == _RISK and best == 0:
            top = scale.place(high)
            canvas[max(top - 1, 0)][column] = "v"
        else:
            top = scale.place(best)
            for level in range(scale.place(low), scale.place(high) + 1):
                canvas[level][column] = "|"
        canvas[top][column] = letters[row["variant"]]
    yield ""
    yield from _framed(canvas, scale)
    middles = [slot * k + slot // 2 for k in range(len(values))]
    rule = "".join("+" if k in middles else "-" for k in range(inner))
    yield " " * 7 + f"+{rule}+"
    labels = {
        middle: "none" if value < 0 else str(value)
        for middle, value in zip(middles, values, strict=True)
    }
    yield _labels(labels, 8)
    yield " " * 8 + AXES[x].center(inner)


def _labels(labels: dict[int, str], offset: int) -> str:
    """Texts centred at their places, those left out that would touch the one before."""
    line = ""
    for place, text in sorted(labels.items()):
        at = max(0, min(offset + place - len(text) // 2, WIDTH - len(text)))
        if not line or at > len(line):
            line = line.ljust(at) + text
    return line


def bars(frame: pd.DataFrame, quantity: str = _RISK) -> str:
    """Draw an interval bar for each scheme, a plot for each mix.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns; every setting is held (`cells.hold`).
    quantity : str
        What to draw: deadlock_probability on a logarithmic axis, all else on a linear one from 0.

    Returns
    -------
    str
        Lines of at most 72 ASCII characters.

    Raises
    ------
    BadInput
        If the quantity is unknown, or the frame cannot be shown.
    """
    _check_choice("quantity", quantity, QUANTITIES)
    check(frame, ends(quantity))
    cells = hold(frame, ())
    letters = glyphs(frame["variant"])
    what = QUANTITIES[quantity]
    lines = wrap(title(f"{what[0].upper()}{what[1:]}", cells))
    lines += wrap("--- 95 % interval." + _bound_note(quantity, "<--: "))
    for mix in mixes(cells.frame):
        part = in_order(cells.frame[cells.frame["mix"] == mix])
        values = _intervals(part, quantity)
        texts = [" ".join(risk(value)) if quantity == _RISK else number(value) for value in values]
        room = WIDTH - 6 - max(map(len, texts))
        if room < 20:
            texts, room = [""] * len(texts), WIDTH - 6
        scale = _Scale.of(values, room, quantity == _RISK)
        lines += ["", *wrap(caption(mix, cells)), ""]
        for variant, value, text in zip(part["variant"], values, texts, strict=True):
            bar = _bar(value, letters[variant], scale, quantity == _RISK)
            lines.append(f"{letters[variant]} |{bar}|  {text}")
        ticks = scale.ticks()
        rule = "".join("+" if place in ticks else "-" for place in range(room))
        lines += [f"  +{rule}+", _labels(ticks, 3)]
    return joined([*lines, "", *key(letters, letters)])


def _bar(value: Interval, letter: str, scale: _Scale, is_risk: bool) -> str:
    line = [" "] * scale.steps
    low, best, high = value
    if math.isnan(best):
        return "".join(line)
    unseen = is_risk and best == 0
    first = 0 if unseen else scale.place(low)
    for place in range(first, scale.place(high) + 1):
        line[place] = "-"
    if unseen or low < scale.low:
        line[first] = "<"
    line[scale.place(high if unseen else best)] = letter
    return "".join(line)


def front(frame: pd.DataFrame, x: str = "idle_mean", height: int = 17) -> str:
    """Plot risk against what safety costs, and list the cells that no other beats.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns. Threads and what else varies are held, the reserve is not.
    x : str
        "idle_mean", "idle_peak" or "throughput"; beaten is counted by idle_mean and throughput
        whichever is drawn, as in `figures.front`.
    height : int
        Lines of a plot.

    Returns
    -------
    str
        Lines of at most 72 ASCII characters. Cells that another one of the mix beats are dots;
        letters that fall on one place are a star, and the list below tells them apart.

    Raises
    ------
    BadInput
        If x is unknown, the height below 5, or the frame cannot be shown.
    """
    _check_choice("x", x, ("idle_mean", "idle_peak", "throughput"))
    _check_height(height)
    check(frame, [*ends(_RISK), *ends("idle_mean"), *ends("throughput"), *ends(x)])
    cells = hold(frame, ("reserve",))
    letters = glyphs(frame["variant"])
    lines = wrap(title(f"Deadlock probability per episode, against {QUANTITIES[x]}", cells))
    lines += wrap(
        "Letter: no cell of the mix is as good in risk, mean idle pages and throughput and better"
        " in one (best values). Dot: one is. Star: several letters." + _bound_note(_RISK, "v: ")
    )
    for mix in mixes(cells.frame):
        here = cells.frame[cells.frame["mix"] == mix]
        three = here[[f"{name}_best" for name in (_RISK, "idle_mean", "throughput")]]
        best = frontier((three * [1.0, 1.0, -1.0]).to_numpy(dtype=float))
        lines += ["", *wrap(caption(mix, cells)), ""]
        lines += _scatter(here, best, x, height, letters)
        lines += ["", *_front_table(here[best], letters)]
    return joined([*lines, "", *key(letters, letters)])


def _check_height(height: int) -> None:
    if height < 5:
        raise BadInput("height", f"{height} is too low", "give at least 5 lines")


def _scatter(
    here: pd.DataFrame, best: NDArray[np.bool_], x: str, height: int, letters: dict[str, str]
) -> Iterator[str]:
    """Cells at their risk and their cost, in a frame with ticks."""
    inner = WIDTH - 9
    across = _Scale.of(_intervals(here, x), inner, log=False)
    up = _Scale.of(_intervals(here, _RISK), height, log=True)
    canvas = [[" "] * inner for _ in range(height)]
    for on_front in (False, True):  # a letter covers a dot
        for _, row in here[best == on_front].iterrows():
            _, value, high = interval(row, _RISK)
            where = interval(row, x).best
            if math.isnan(value) or math.isnan(where):
                continue
            level, column = up.place(value or high), across.place(where)
            if value == 0 and canvas[max(level - 1, 0)][column] == " ":
                canvas[max(level - 1, 0)][column] = "v"
            sign = letters[row["variant"]] if on_front else "."
            if on_front and canvas[level][column] not in (" ", ".", "v", sign):
                sign = "*"
            canvas[level][column] = sign
    yield from _framed(canvas, up)
    ticks = across.ticks()
    yield " " * 7 + "+" + "".join("+" if k in ticks else "-" for k in range(inner)) + "+"
    yield _labels(ticks, 8)
    yield " " * 8 + QUANTITIES[x].center(inner)


def _framed(canvas: Sequence[Sequence[str]], up: _Scale) -> Iterator[str]:
    """A canvas between its sides, with a rule above and labels to its left."""
    ticks = up.ticks()
    yield " " * 7 + "+" + "-" * len(canvas[0]) + "+"
    for level in reversed(range(up.steps)):
        mark = "+" if level in ticks else "|"
        yield f"{ticks.get(level, ''):>6} {mark}{''.join(canvas[level])}{mark}"


def _front_table(best: pd.DataFrame, letters: dict[str, str]) -> Iterator[str]:
    """The cells of a front, the least risky first."""
    best = best.sort_values([f"{_RISK}_best", "idle_mean_best"], kind="stable")
    rows = [row for _, row in best.iterrows()]
    names = [f"{letters[row['variant']]} {plain(row['variant'])}" for row in rows]
    sizes = ["none" if row["reserve"] < 0 else str(row["reserve"]) for row in rows]
    risks = [" ".join(risk(interval(row, _RISK))) for row in rows]
    columns = [Column(("re-", "serve"), tuple(sizes)), Column(("", "risk"), tuple(risks))]
    for name, head in (("idle_mean", ("idle", "mean")), ("throughput", ("", "thrput"))):
        columns.append(Column(head, tuple(number(interval(row, name)) for row in rows)))
    yield from aligned(names, columns)
    yield "Thrput: writepages per mean step, until the deadlock where there is one."


def heat(frame: pd.DataFrame, x: str = "threads", y: str = "variant", quantity: str = _RISK) -> str:
    """Draw a heat map: shades with the numbers written into them.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns; settings other than x and y are held (`cells.hold`).
    x : str
        "threads", "reserve", "pages" or "quota": the columns.
    y : str
        The rows: "variant", one map for each mix; or another setting, one for each mix and variant.
    quantity : str
        What to show. Probabilities are in per cent, an upper bound where no deadlock was seen.

    Returns
    -------
    str
        Lines of at most 72 ASCII characters; columns that do not fit stand below.

    Raises
    ------
    BadInput
        If x, y or the quantity is unknown, x is y, or the frame cannot be shown.
    """
    _check_choice("x", x, AXES)
    _check_choice("y", y, [name for name in ("variant", *AXES) if name != x])
    _check_choice("quantity", quantity, QUANTITIES)
    check(frame, ends(quantity))
    cells = hold(frame, (x,) if y == "variant" else (x, y))
    letters = glyphs(frame["variant"])
    what = QUANTITIES[quantity]
    per_cent = ", in per cent" if quantity == _RISK else ""
    rows = "schemes" if y == "variant" else AXES[y]
    lines = wrap(title(f"{what[0].upper()}{what[1:]}{per_cent}: {rows} by {AXES[x]}", cells))
    lines += wrap(
        "Shades: "
        + (
            ": from 1 %, + from 10 %, # from 50 %, @ from 90 %. <: no deadlock seen, upper end of"
            " the 95 % interval."
            if quantity == _RISK
            else ": + # @ from each fifth of the map's largest."
        )
    )
    for mix in mixes(cells.frame):
        here = cells.frame[cells.frame["mix"] == mix]
        lines += ["", *wrap(caption(mix, cells))]
        if y == "variant":
            lines += _map(here, x, y, quantity, letters)
            continue
        for variant in ordered(here["variant"]):
            lines += ["", *wrap(f"{letters[variant]} {variant}")]
            lines += _map(here[here["variant"] == variant], x, y, quantity, letters)
    return joined([*lines, "", *key(letters, letters)])


def _map(
    here: pd.DataFrame, x: str, y: str, quantity: str, letters: dict[str, str]
) -> Iterator[str]:
    """One map; what does not fit beside it stands below it."""
    columns = sorted(set(here[x]), key=lambda v: (v < 0, v))
    rows: list[Any] = ordered(here["variant"])
    if y != "variant":
        rows = sorted(set(here[y]), key=lambda v: (v < 0, v))
    most = max((v.best for v in _intervals(here, quantity) if math.isfinite(v.best)), default=0.0)
    found = {
        (row[x], row[y]): _shaded(interval(row, quantity), quantity, most)
        for _, row in here.iterrows()
    }
    heads = ["none" if v < 0 else str(v) for v in columns]
    names = [letters[v] if y == "variant" else "none" if v < 0 else str(v) for v in rows]
    side = max(map(len, names))
    width = max(map(len, (*heads, *(text for _, text in found.values())))) + 2
    each = (WIDTH - side - 3) // width
    for k in range(0, len(columns), each):
        yield ""
        yield " " * (side + 2) + "".join(head.center(width) for head in heads[k : k + each])
        for name, row in zip(names, rows, strict=True):
            line = ""
            for column in columns[k : k + each]:
                shade, text = found.get((column, row), (" ", ""))
                line += text.center(width - 1, shade) + " "
            yield f"{name:>{side}} |{line[:-1]}|"


def _shaded(value: Interval, quantity: str, most: float) -> tuple[str, str]:
    """The shade and the number of one place of a map."""
    if math.isnan(value.best):
        return "?", "?"
    if quantity != _RISK:
        fifth = 0 if most <= 0 else min(4, max(0, math.floor(5 * value.best / most)))
        return _SHADES[fifth], number(value)
    best = value.best
    if best == 0:
        return " ", "<" + _decimal_up(100 * value.high) if value.high < 1 else "?"
    shade = _SHADES[sum(best >= least for least in (0.01, 0.1, 0.5, 0.9))]
    if best >= 0.995:
        return shade, "all" if best == 1 else ">99"
    return shade, f"{100 * best:.0f}" if best >= 0.095 else f"{100 * best:.1g}"


def _decimal_up(share: float) -> str:
    """A bound in per cent, rounded up to one digit."""
    size = 10.0 ** math.floor(math.log10(share)) if share > 0 else 1.0
    up = math.ceil(share / size - 1e-9) * size
    return f"{up:.1g}" if up < 10 else f"{up:.0f}"
