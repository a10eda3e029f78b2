"""Figures from tidy frames, by seaborn and matplotlib; nothing is estimated here.

Every figure is small multiples: a column for each mix, a row for each family of schemes, at most
`ROWS_OF` variants in a panel, told apart by marker and line style as well as by colour. A
probability of which nothing is known but an upper bound is an open marker at that bound with an
arrow down, so the logarithmic axis holds no zero. Markers that would cover each other are moved
aside by a few points of paper; their data coordinates are the frame's own.

Artists that carry data have a gid: `best`, `bars` or `bound`, then the variant and the quantity,
with bars between them.
"""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)
from matplotlib.transforms import ScaledTranslation, Transform, blended_transform_factory

from reservelab.model.errors import BadInput
from reservelab.model.pack import REASONS
from reservelab.model.schemes import variants
from reservelab.show.cells import (
    AXES,
    QUANTITIES,
    REASON_NAMES,
    Cells,
    check,
    dead_counts,
    dead_shares,
    ends,
    frontier,
    glyphs,
    hold,
    interval,
    mixes,
    ordered,
    provenance,
)
from reservelab.show.text import per_cent
from reservelab.study.fits import Fits

WIDTH = 7.0  # inches: both columns of a paper, and an A4 page less its margins
DPI = 183  # of a PNG, so that it is 1281 px wide
ROWS_OF = 6  # variants in a panel
FORMATS = ("svg", "png", "pdf")
MEDIA = {"paper": ("pdf",), "web": ("svg", "png")}
COLUMNS_OF = 3  # mixes in a figure that `draw_all` makes
# One for each named variant, the same in every figure; those of one family differ most.
_MARKERS: tuple[Any, ...] = (
    "o", "s", "D", "^", "v", ">", "P", "X", "*", "<", "d", "p", (4, 1, 0), "h"
)  # fmt: skip
_LINES: tuple[Any, ...] = (
    "-", (0, (5, 2)), (0, (1, 1)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (8, 2))
)  # fmt: skip
_ARROW = Outline([(0, 0), (0, -5), (-0.9, -3.7), (0, -5), (0.9, -3.7)], [1, 2, 2, 1, 2])
_GREY = "0.55"
_SIDE = 1.75  # inches for a legend
# Of `side_by_side`: titles, and widths in inches; the whole is this wide.
_BENCH = 10.0
_PANELS = {
    "deadlock_probability": ("deadlock probability\nper episode", 2.1),
    "idle_mean": ("idle reserve\n(pages, mean over time)", 1.4),
    "throughput": ("throughput\n(writepages a mean step)", 1.4),
    "dead": ("the dead waited for\n(% of deadlocks)", 1.5),
}
_RISK = ends("deadlock_probability")
_BOUND = (
    "Bars: 95 % intervals. Open marker with arrow: no deadlock seen, upper end of the interval."
)
Look = tuple[Any, Any, Any]  # colour, marker, line style


def _style() -> AbstractContextManager[None]:
    """Seaborn's look inside a `with`; nothing outside it changes."""
    return matplotlib.rc_context(
        {
            **sns.axes_style("whitegrid"),
            **sns.plotting_context("paper", font_scale=0.85),
            "font.family": "DejaVu Sans",  # comes with matplotlib
            "grid.linewidth": 0.4,
            "lines.linewidth": 1.0,
            "lines.markersize": 4.5,
            "axes.labelsize": 8.0,
            "axes.titlesize": 8.0,
            "legend.title_fontsize": 8.0,
            "svg.hashsalt": "reservelab",  # the same figure is the same file
            "pdf.fonttype": 42,  # TrueType, embedded: publishers refuse Type 3
        }
    )


def _colours(number: int) -> list[Any]:
    """Colours of seaborn's colour-blind palette, those of strong contrast first."""
    palette = sns.color_palette("colorblind")
    order = (0, 3, 2, 4, 1, 9, 5, 7, 6, 8)
    return [palette[order[k % len(order)]] for k in range(number)]


def _rows(frame: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Variants by family, in rows of at most `ROWS_OF`."""
    family = dict(zip(frame["variant"], frame["scheme"], strict=True))
    rows: dict[str, list[str]] = {}
    for variant in ordered(family):
        rows.setdefault(str(family[variant]), []).append(variant)
    return [
        (name, members[k : k + ROWS_OF])
        for name, members in rows.items()
        for k in range(0, len(members), ROWS_OF)
    ]


def _looks(frame: pd.DataFrame) -> dict[str, Look]:
    """Colour by the place in its row, a marker of its own, and a line style, for each variant."""
    markers: dict[str, Any] = dict(zip(variants(), _MARKERS, strict=False))
    here = ordered(frame["variant"])
    free = [m for m in _MARKERS if m not in [markers[v] for v in here if v in markers]]
    others = [variant for variant in here if variant not in markers]
    markers |= dict(zip(others, itertools.cycle([*free, *_MARKERS]), strict=False))
    return {
        variant: (colour, markers[variant], line)
        for _, members in _rows(frame)
        for variant, colour, line in zip(members, _colours(len(members)), _LINES, strict=False)
    }


def _size(marker: Any, base: float = 4.5) -> float:  # noqa: ANN401
    """Stars cover less paper than discs of the same diameter."""
    return base * (1.5 if marker in ("*", (4, 1, 0)) else 1.0)


def _literal(text: str) -> str:
    """A name as it is: matplotlib would read dollar signs as formulas."""
    return text.replace("$", r"\$")


def _folded(lines: Sequence[str], inches: float) -> str:
    """Lines of 8 points that are not wider than that."""
    width = max(6, int(inches * 72 / 5))
    return _literal("\n".join(part for line in lines for part in textwrap.wrap(line, width)))


def _row_name(variant: str, letters: dict[str, str]) -> str:
    """A variant as the name of a row, which has one line; its letter stays."""
    name = variant if len(variant) <= 44 else f"{variant[:41]}..."
    return _literal(f"{name}  {letters[variant]}")


def _legend(
    side: Axes, members: Sequence[tuple[str, str]], looks: dict[str, Look],
    letters: dict[str, str], **place: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Variants with their families beside the panels; a name without a variant is a heading."""
    side.set_axis_off()
    handles, labels = [], []
    for family, variant in members:
        colour, marker, line = looks.get(variant, ("none", "", "none"))
        handles.append(
            Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=_size(marker))
        )
        words = variant.removeprefix(family).strip() or family
        # A composed scheme has slashes for blanks.
        text = f"{letters[variant]}  {words}".replace("/", "/ ") if variant else family
        lines = textwrap.wrap(text, 27, subsequent_indent="    ", break_on_hyphens=False)
        labels.append(_literal("\n".join(lines).replace("/ ", "/")))
    legend = side.legend(
        handles, labels, frameon=False, alignment="left", borderaxespad=0.0, handlelength=2.4,
        **place,
    )  # fmt: skip
    for text_artist, (_, variant) in zip(legend.get_texts(), members, strict=True):
        text_artist.set_fontweight("normal" if variant else "bold")


def _entitle(figure: Figure, title: str, held: str, note: str) -> None:
    lines = [title, *textwrap.wrap(held, 110), *textwrap.wrap(note, 110)]
    figure.suptitle(_literal("\n".join(lines)), x=0.01, ha="left", fontsize=8.0)


@dataclass(frozen=True)
class _Panel:
    """One panel of the small multiples: what it shows and where markers may go."""

    ax: Axes
    mix: str
    cells: pd.DataFrame  # of the mix and the family
    looks: dict[str, Look]  # of the family's variants, in their order
    apart: float  # points of paper between markers at the same place

    def aside(self, variant: str) -> Transform:
        """Data coordinates moved sideways on paper: variants at one place stand side by side."""
        k = list(self.looks).index(variant) - (len(self.looks) - 1) / 2
        return self.ax.transData + ScaledTranslation(
            k * self.apart / 72, 0, _figure(self.ax).dpi_scale_trans
        )


def _multiples(
    frame: pd.DataFrame, x: str, quantity: str, title: str, note: str
) -> tuple[Figure, Cells, list[_Panel]]:
    """Empty panels: a row for each family, a column for each mix, legends to the right."""
    cells = hold(frame, (x,))
    rows, looks, letters = _rows(frame), _looks(frame), glyphs(frame["variant"])
    names = mixes(cells.frame)
    wide = (WIDTH - 0.6 - _SIDE) / len(names)
    heights = [max(1.25, 0.35 + 0.29 * len(members)) for _, members in rows]
    figure = Figure(figsize=(WIDTH, max(3.2, sum(heights) + 1.1)), layout="constrained")
    grid = figure.add_gridspec(
        len(rows), len(names) + 1, width_ratios=[wide] * len(names) + [_SIDE],
        height_ratios=heights,
    )  # fmt: skip
    axes: dict[tuple[int, int], Axes] = {}
    panels: list[_Panel] = []
    for i, (family, members) in enumerate(rows):
        for j, mix in enumerate(names):
            ax = figure.add_subplot(grid[i, j], sharex=axes.get((0, j)), sharey=axes.get((0, 0)))
            ax.set_gid(mix)
            axes[i, j] = ax
            ax.tick_params(labelbottom=i == len(rows) - 1, labelleft=j == 0)
            if i == 0:
                ax.set_title(_folded((mix, *cells.held_by_mix[mix]), wide))
            here = cells.frame[cells.frame["mix"] == mix]
            values = here.loc[here[x] >= 0, x] if x == "reserve" else cells.frame[x]
            gap = _ticks_at(ax, values, wide)
            apart = min(3.8, 62 * wide * gap / (len(members) + 1))
            own = {variant: looks[variant] for variant in members}
            part = here[here["variant"].isin(members)]
            panels.append(_Panel(ax, mix, part, own, apart))
        _legend(
            figure.add_subplot(grid[i, -1]), [(family, ""), *((family, v) for v in members)],
            looks, letters, loc="center left", bbox_to_anchor=(-0.1, 0.5),
        )  # fmt: skip
    _entitle(figure, title, cells.held, note)
    figure.supxlabel(AXES[x], fontsize=8)
    figure.supylabel(quantity, fontsize=8)
    return figure, cells, panels


def _figure(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("these axes belong to no figure")
    return figure


def _ticks_at(ax: Axes, values: Iterable[float], wide: float) -> float:
    """Put ticks where the cells are, logarithmically where they span a factor of 4.

    The axis is `wide` inches long; returned is the least distance of two values as a share of it.
    """
    marks = np.array(sorted({float(value) for value in values}))
    if not len(marks):
        ax.set_xticks([])
        return 1.0
    if marks[0] > 0 and marks[-1] >= 4 * marks[0]:
        ax.set_xscale("log", base=2)
        low, high = marks[0] / 1.5, marks[-1] * 1.5
        places = np.log(marks / low) / np.log(high / low)
    else:
        margin = 0.12 * (marks[-1] - marks[0]) or 1.0
        low, high = marks[0] - margin, marks[-1] + margin
        places = (marks - low) / (high - low)
    ax.set_xlim(low, high)
    room = (4.8 * len(f"{marks[-1]:g}") + 3) / (72 * wide)  # a label of 7.5 points and a gap
    shown = [len(marks) - 1]  # the last always; of the others what has room, from the right
    for k in reversed(range(len(marks) - 1)):
        if places[shown[-1]] - places[k] >= room:
            shown.append(k)
    ax.xaxis.set_major_locator(FixedLocator(marks[shown].tolist()))
    ax.xaxis.set_minor_locator(FixedLocator(marks.tolist()))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    return float(np.diff(places).min(initial=1.0))


def _risk_axis(axis: XAxis | YAxis, frame: pd.DataFrame) -> None:
    """A logarithmic axis that holds every estimate and bound; an interval may run out below."""
    best, high = frame["deadlock_probability_best"], frame["deadlock_probability_high"]
    drawn = pd.concat([best[best > 0], high[(best == 0) & (high > 0)]])
    name = axis.axis_name
    getattr(axis.axes, f"set_{name}scale")("log")
    getattr(axis.axes, f"set_{name}lim")((float(drawn.min()) if len(drawn) else 0.1) / 8, 2.0)
    axis.set_major_locator(LogLocator(numticks=5))
    axis.set_minor_formatter(NullFormatter())


def _page_axis(axis: XAxis | YAxis, values: np.ndarray) -> None:
    """Pages: linear up to 1, so that a zero stands as a zero, logarithmic above."""
    known = values[np.isfinite(values)]
    top = float(known.max(initial=1.0)) * 1.5
    least = float(known.min(initial=top)) / 1.5
    name = axis.axis_name
    getattr(axis.axes, f"set_{name}scale")("symlog", linthresh=1, linscale=0.4)
    getattr(axis.axes, f"set_{name}lim")(least if least > 1 else -0.2, top)
    marks = [0.0, 1.0]
    while marks[-1] * 2 <= top:
        marks.append(marks[-1] * 2)
    marks = [mark for mark in marks if mark >= least or least <= 1]
    axis.set_major_locator(FixedLocator(marks[:: -(-len(marks) // 6)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _points(
    ax: Axes, part: pd.DataFrame, x: str, quantity: str, look: Look, shift: Transform,
    *, hollow: bool = False,
) -> None:  # fmt: skip
    """Best estimates with their intervals, joined in the order of x; a zero risk as its bound."""
    colour, marker, line = look
    name = f"{part['variant'].iloc[0]}|{quantity}"
    part = part.sort_values(x)
    low, best, high = (part[column].to_numpy(dtype=float) for column in ends(quantity))
    where = part[x].to_numpy(dtype=float)
    unseen = (best == 0) & (quantity == "deadlock_probability")
    ax.plot(
        where, np.where(unseen, np.nan, best), color=colour, marker=marker, linestyle=line,
        transform=shift, markersize=_size(marker), markerfacecolor="white" if hollow else colour,
        markeredgecolor=colour if hollow else "white", markeredgewidth=0.9 if hollow else 0.4,
        gid=f"best|{name}",
    )  # fmt: skip
    some = ~unseen & np.isfinite(low) & np.isfinite(high)
    bars = ax.vlines(where[some], low[some], high[some], color=colour, linewidth=0.9)
    bars.set_transform(shift)
    bars.set_gid(f"bars|{name}")
    _bounds(ax, where[unseen], high[unseen], look, shift, name)


def _bounds(
    ax: Axes, where: np.ndarray, high: np.ndarray, look: Look, shift: Transform, name: str
) -> None:
    """Open markers at the upper ends of intervals, with arrows down."""
    colour, marker, _ = look
    ax.plot(
        where, high, color=colour, marker=_ARROW, linestyle="none", markersize=22,
        markerfacecolor="none", markeredgewidth=0.7, transform=shift,
    )  # fmt: skip
    ax.plot(
        where, high, color=colour, marker=marker, linestyle="none", markersize=_size(marker, 4),
        markerfacecolor="white", markeredgewidth=0.8, transform=shift, gid=f"bound|{name}",
    )  # fmt: skip


def risk_against_reserve(frame: pd.DataFrame) -> Figure:
    """Draw the deadlock probability against the reserve, per variant and mix.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns. Threads and what else varies are held (`cells.hold`).

    Returns
    -------
    Figure
        A scheme without a reserve is a level line.
    """
    check(frame, _RISK)
    with _style():
        figure, cells, panels = _multiples(
            frame, "reserve", QUANTITIES["deadlock_probability"],
            "Deadlock probability against reserve",
            f"{_BOUND} Dotted: pages the largest section needs. Level line: the scheme has no"
            " reserve to size.",
        )  # fmt: skip
        for panel in panels:
            ax, part = panel.ax, panel.cells
            _risk_axis(ax.yaxis, cells.frame)
            here = cells.frame[cells.frame["mix"] == panel.mix]
            ax.axvline(float(here["need"].max()), color=_GREY, linestyle=":", linewidth=0.8)
            for k, (variant, look) in enumerate(panel.looks.items(), start=1):
                own = part[part["variant"] == variant]
                sized = own[own["reserve"] >= 0]
                if len(sized):
                    shift = panel.aside(variant)
                    _points(ax, sized, "reserve", "deadlock_probability", look, shift)
                elif len(own):
                    _level(ax, own, k / (len(panel.looks) + 1), look)
        return figure


def _level(ax: Axes, own: pd.DataFrame, at: float, look: Look) -> None:
    """A scheme without a reserve: a line across, its marker at a fraction of the axis."""
    _, best, high = interval(own.iloc[0], "deadlock_probability")
    across = blended_transform_factory(ax.transAxes, ax.transData)
    level = best if best > 0 else high
    ax.axhline(level, color=look[0], linestyle=look[2], linewidth=0.8, alpha=0.7)
    _points(ax, own.assign(_at=at), "_at", "deadlock_probability", look, across)


def risk_against_threads(frame: pd.DataFrame) -> Figure:
    """Draw the deadlock probability against the threads, per variant and mix.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns. The reserve and what else varies are held (`cells.hold`).

    Returns
    -------
    Figure
        Small multiples with a logarithmic axis of probability.
    """
    check(frame, _RISK)
    with _style():
        figure, cells, panels = _multiples(
            frame, "threads", QUANTITIES["deadlock_probability"],
            "Deadlock probability against threads", _BOUND,
        )  # fmt: skip
        for panel in panels:
            _risk_axis(panel.ax.yaxis, cells.frame)
            for variant, part in panel.cells.groupby("variant", sort=False):
                _points(
                    panel.ax, part, "threads", "deadlock_probability",
                    panel.looks[str(variant)], panel.aside(str(variant)),
                )  # fmt: skip
        return figure


def idle_against_threads(frame: pd.DataFrame) -> Figure:
    """Draw the idle pages, mean and peak, against the threads, per variant and mix.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns. The reserve and what else varies are held (`cells.hold`).

    Returns
    -------
    Figure
        Small multiples; pages on an axis that is linear up to 1 page and logarithmic above.
    """
    check(frame, [*ends("idle_mean"), *ends("idle_peak")])
    with _style():
        figure, cells, panels = _multiples(
            frame, "threads", "idle reserve (pages)", "Idle reserve against threads",
            "Filled: mean over time. Open: mean of the episodes' peaks. Bars: 95 % intervals.",
        )  # fmt: skip
        for panel in panels:
            both = cells.frame[["idle_mean_best", "idle_peak_best"]].to_numpy(dtype=float)
            _page_axis(panel.ax.yaxis, both)
            for variant, part in panel.cells.groupby("variant", sort=False):
                look, shift = panel.looks[str(variant)], panel.aside(str(variant))
                light = (look[0], look[1], (0, (1, 2)))
                _points(panel.ax, part, "threads", "idle_peak", light, shift, hollow=True)
                _points(panel.ax, part, "threads", "idle_mean", look, shift)
        return figure


def front(frame: pd.DataFrame) -> Figure:
    """Draw risk against idle pages and against throughput: what each cell buys and what it costs.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns. Threads and what else varies are held, the reserve is not.

    Returns
    -------
    Figure
        A row for each mix; both panels of a row show the same cells. A filled marker: no cell of
        the mix is as good in risk, mean idle pages and throughput and better in one of them,
        counting best values.
    """
    check(frame, [*_RISK, *ends("idle_mean"), *ends("throughput")])
    cells = hold(frame, ("reserve",))
    note = (
        "A marker for each size of the reserve, joined by size. Filled: no other cell of the mix is"
        " as good in all three and better in one (best values). Bars: 95 % intervals. Arrow: no"
        " deadlock seen, marker at the upper end of the interval."
    )
    names, letters = mixes(cells.frame), glyphs(frame["variant"])
    with _style():
        families = list(dict.fromkeys(family for family, _ in _rows(frame)))
        shade = dict(zip(families, _colours(len(families)), strict=True))
        family_of = dict(zip(frame["variant"], frame["scheme"], strict=True))
        looks = {v: (shade[family_of[v]], *look[1:]) for v, look in _looks(frame).items()}
        listed = [(f, v) for f, members in _rows(frame) for v in ("", *members)]
        high = max(2.6 * len(names) + 1.2, 0.2 * len(listed) + 1.5)
        figure = Figure(figsize=(WIDTH, high), layout="constrained")
        grid = figure.add_gridspec(len(names), 3, width_ratios=[1.0, 1.0, 0.66])
        drawn: list[tuple[Axes, str, pd.DataFrame]] = []
        for i, mix in enumerate(names):
            here = cells.frame[cells.frame["mix"] == mix]
            three = here[["deadlock_probability_best", "idle_mean_best", "throughput_best"]]
            here = here.assign(_front=frontier((three * [1.0, 1.0, -1.0]).to_numpy(dtype=float)))
            axes = [figure.add_subplot(grid[i, 0])]
            axes.append(figure.add_subplot(grid[i, 1], sharey=axes[0]))
            title = _folded((", ".join((mix, *cells.held_by_mix[mix])),), 0.7 * WIDTH)
            axes[0].set_title(title, loc="left")
            axes[1].tick_params(labelleft=False)
            for ax, x in zip(axes, ("idle_mean", "throughput"), strict=True):
                ax.set_xlabel(QUANTITIES[x] if i == len(names) - 1 else "")
                ax.set_gid(mix)
                drawn.append((ax, x, here))
                _risk_axis(ax.yaxis, cells.frame)
            _page_axis(axes[0].xaxis, cells.frame["idle_mean_best"].to_numpy())
            fast = float(here["throughput_best"].max())  # unknown where every cell dies at once
            fast = fast if fast > 0 else 1.0
            axes[1].set_xlim(-0.03 * fast, 1.1 * fast)
            axes[1].xaxis.set_major_locator(MaxNLocator(5))
        figure.supylabel(QUANTITIES["deadlock_probability"], fontsize=8)
        _entitle(figure, "Risk against idle pages and throughput", cells.held, note)
        _legend(
            figure.add_subplot(grid[:, 2]), listed, looks, letters,
            loc="upper left", bbox_to_anchor=(-0.1, 1.0),
        )  # fmt: skip
        for ax, x, here in drawn:
            for variant in ordered(here["variant"]):
                _path(ax, x, here[here["variant"] == variant], looks[variant])
        # Letters keep clear of each other on paper, so the paper has to be laid out first.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for ax, x, here in drawn:
            _letters(ax, x, here, looks, letters)
        return figure


def _path(ax: Axes, x: str, part: pd.DataFrame, look: Look) -> None:
    """The cells of one variant, joined in the order of the reserve; filled where on the front."""
    colour, marker, line = look
    variant = str(part["variant"].iloc[0])
    part = part.sort_values("reserve")
    low, best, high = (part[name].to_numpy(dtype=float) for name in ends("deadlock_probability"))
    left, where, right = (part[name].to_numpy(dtype=float) for name in ends(x))
    unseen = best == 0
    y = np.where(unseen, high, best)
    ax.plot(where, y, color=colour, linestyle=line, linewidth=0.5, alpha=0.7)
    sure = np.isfinite(left) & np.isfinite(right)
    ax.hlines(y[sure], left[sure], right[sure], color=colour, linewidth=0.6)
    bars = ax.vlines(where[~unseen], low[~unseen], high[~unseen], color=colour, linewidth=0.6)
    bars.set_gid(f"bars|{variant}|{x}")
    ax.plot(where[unseen], high[unseen], color=colour, marker=_ARROW, linestyle="none",
            markersize=22, markerfacecolor="none", markeredgewidth=0.6)  # fmt: skip
    for kind, here in (("best", ~unseen), ("bound", unseen)):
        for on_front in (False, True):
            some = here & (part["_front"].to_numpy(dtype=bool) == on_front)
            ax.plot(where[some], y[some], color=colour, marker=marker, linestyle="none",
                    markersize=_size(marker), markerfacecolor=colour if on_front else "white",
                    markeredgewidth=0.8, gid=f"{kind}|{variant}|{x}")  # fmt: skip


def _letters(
    ax: Axes, x: str, here: pd.DataFrame, looks: dict[str, Look], letters: dict[str, str]
) -> None:
    """A letter beside one cell of each variant: one on the front, or else its largest reserve."""
    paper = 72 / _figure(ax).dpi
    risk = here["deadlock_probability_best"]
    y = risk.where(risk > 0, here["deadlock_probability_high"])
    known = here[f"{x}_best"].notna() & y.notna()
    here, y = here[known], y[known]
    places = np.column_stack([here[f"{x}_best"].to_numpy(dtype=float), y.to_numpy(dtype=float)])
    spots = [(float(u), float(v)) for u, v in ax.transData.transform(places) * paper]
    box = ax.get_window_extent()
    edges = (box.x0 * paper, box.x1 * paper, box.y0 * paper, box.y1 * paper)
    taken: list[tuple[float, float]] = []
    for variant in ordered(here["variant"]):
        own = np.flatnonzero(here["variant"].to_numpy() == variant)
        k = max(own, key=lambda k: (here["_front"].iloc[k], here["reserve"].iloc[k]))
        dx, dy = _room(spots[k], spots, taken, edges)
        taken.append((spots[k][0] + dx, spots[k][1] + dy))
        colour = looks[variant][0]
        ax.annotate(
            letters[variant], tuple(places[k]), (dx, dy), textcoords="offset points",
            ha="center", va="center", fontsize=7, color=colour,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.4, "shrinkA": 2,
                        "shrinkB": 3},
        )  # fmt: skip


def _room(
    spot: tuple[float, float], spots: Sequence[tuple[float, float]],
    taken: Sequence[tuple[float, float]], edges: tuple[float, float, float, float],
) -> tuple[float, float]:  # fmt: skip
    """Where beside a point its letter covers no other letter and no point, in points of paper."""
    tries = [
        (radius * np.cos(angle), radius * np.sin(angle))
        for radius in range(8, 60, 5)
        for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ]
    for dx, dy in tries:
        at = (spot[0] + dx, spot[1] + dy)
        inside = edges[0] + 4 < at[0] < edges[1] - 4 and edges[2] + 4 < at[1] < edges[3] - 4
        free = all(np.hypot(at[0] - u, at[1] - v) > 8.5 for u, v in taken)
        if inside and free and all(np.hypot(at[0] - u, at[1] - v) > 5.5 for u, v in spots):
            return float(dx), float(dy)
    return tries[0]


def dead(frame: pd.DataFrame) -> Figure:
    """Draw what the dead were waiting for, as a share of the deadlocked episodes.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns; all its cells count.

    Returns
    -------
    Figure
        A heat map for each mix, a row for each variant, a column for each reason, the shares in
        per cent written out. An episode counts for every reason that any of its stuck threads
        had, so a row may add up to more than 100 %.
    """
    counts = dead_counts(frame)
    reasons = [reason for reason in REASONS if counts[f"dead_{reason}"].any()] or ["pages"]
    letters = glyphs(frame["variant"])
    names = mixes(frame)
    with _style():
        heights = [max(1, int((counts["mix"] == mix).sum())) for mix in names]
        figure = Figure(figsize=(WIDTH, 0.165 * sum(heights) + 0.2 * len(names) + 0.9),
                        layout="constrained")  # fmt: skip
        grid = figure.add_gridspec(len(names), 1, height_ratios=heights)
        for i, mix in enumerate(names):
            part = counts[counts["mix"] == mix]
            ax = figure.add_subplot(grid[i])
            number = part["deadlocks"].to_numpy(dtype=float)[:, None]
            found = part[[f"dead_{reason}" for reason in reasons]].to_numpy(dtype=float)
            share = 100 * found / np.where(number > 0, number, np.nan)
            text = [["" if np.isnan(v) else per_cent(v) for v in row] for row in share]
            sns.heatmap(
                share, ax=ax, vmin=0, vmax=100, cbar=False, annot=np.array(text), fmt="",
                cmap=sns.color_palette("light:#0173b2", as_cmap=True), linewidths=0.6,
                annot_kws={"fontsize": 6.5},
                xticklabels=[textwrap.fill(REASON_NAMES[r], 10) for r in reasons],
                yticklabels=[_row_name(variant, letters) for variant in part["variant"]],
            )  # fmt: skip
            ax.set_gid(mix)
            ax.grid(visible=False)
            ax.tick_params(axis="both", length=0, labelrotation=0)
            ax.tick_params(axis="x", labeltop=i == 0, labelbottom=False)
            ax.set_ylabel(_folded((mix,), 0.18 * len(part)), fontweight="bold")
            for k, (_, row) in enumerate(part.iterrows()):
                ax.annotate(
                    f"{row['deadlocks']:,} of {row['episodes']:,}", (1.01, k + 0.5),
                    xycoords=("axes fraction", "data"), va="center", fontsize=6.5,
                    annotation_clip=False,
                )  # fmt: skip
        note = (
            "Of the deadlocked episodes of all cells: per cent in which a stuck thread waited for"
            " it; threads of one deadlock wait for several things. Right: deadlocks of episodes."
        )
        _entitle(figure, "What the dead were waiting for", "", note)
        return figure


def side_by_side(frame: pd.DataFrame, exact: Mapping[str, float] | None = None) -> Figure:
    """Draw cells that differ in their schemes only: a row for each, a panel for each quantity.

    Parameters
    ----------
    frame : DataFrame
        One row for each scheme, in the order to be drawn.
    exact : mapping of str to float, optional
        Exact deadlock probabilities by digest.

    Returns
    -------
    Figure
        Risk, idle pages, throughput, and what the dead waited for.
    """
    check(frame, [*_RISK, *ends("idle_mean"), *ends("throughput"), "deadlocks", "digest"])
    looks, letters = _looks(frame), glyphs(frame["variant"])
    high = 0.2 * len(frame) + 1.6
    with _style():
        figure = Figure(figsize=(_BENCH, high))
        # Places in inches: laying out by measuring would take as long as drawing.
        axes: dict[str, Axes] = {}
        left = 2.2
        for name, (title, wide) in _PANELS.items():
            across, up = (left / _BENCH, wide / _BENCH), (0.5 / high, (high - 1.58) / high)
            axes[name] = figure.add_axes((across[0], up[0], across[1], up[1]))
            figure.text((left + wide / 2) / _BENCH, 1 - 0.06 / high, title, ha="center", va="top")
            left += wide + 0.25
        rows = [row for _, row in frame.iterrows()]
        for name in ("deadlock_probability", "idle_mean", "throughput"):
            ax = axes[name]
            ax.set_ylim(len(rows) - 0.5, -0.5)
            ax.set_yticks(range(len(rows)), [""] * len(rows))
            for k, row in enumerate(rows):
                _mark(ax, k, row, name, looks[row["variant"]])
        first, idle, fast = (axes[n] for n in ("deadlock_probability", "idle_mean", "throughput"))
        first.set_yticklabels([_row_name(row["variant"], letters) for row in rows])
        _risk_axis(first.xaxis, frame)
        _exact_values(first, rows, exact or {})
        _page_axis(idle.xaxis, frame["idle_mean_best"].to_numpy(dtype=float))
        known = frame["throughput_best"][np.isfinite(frame["throughput_best"])]
        fast.set_xlim(0, 1.15 * (float(known.max()) if len(known) else 0.0) or 1.0)
        fast.xaxis.set_major_locator(MaxNLocator(4))
        _waited_for(axes["dead"], rows)
        figure.text(
            0.008, 0.1 / high,
            f"{_BOUND}{' Black cross: exact value.' if exact else ''}", fontsize=7.5, va="bottom",
        )  # fmt: skip
        return figure


def _mark(ax: Axes, place: int, row: pd.Series, quantity: str, look: Look) -> None:
    """One estimate in its row, with its interval; a risk of which none was seen as its bound."""
    colour, marker, _ = look
    low, best, high = interval(row, quantity)
    unseen = quantity == "deadlock_probability" and best == 0
    if unseen:
        ax.annotate(
            "", (high / 2.5, place), (high, place),
            arrowprops={"arrowstyle": "->", "color": colour, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    elif np.isfinite(low) and np.isfinite(high):
        ax.hlines(place, low, high, color=colour, linewidth=1.4)
    ax.plot(
        [high if unseen else best], [place], marker=marker, markersize=_size(marker, 5.0),
        color=colour, markerfacecolor="white" if unseen else colour, linestyle="none",
        gid=f"{'bound' if unseen else 'best'}|{row['variant']}|{quantity}",
    )  # fmt: skip


def _exact_values(ax: Axes, rows: Sequence[pd.Series], exact: Mapping[str, float]) -> None:
    """Crosses at the exact values; a zero has no place on the axis and is written at its edge."""
    if any(exact.get(row["digest"]) == 0 for row in rows):
        ax.set_xlim(ax.get_xlim()[0] / 20)
    for place, row in enumerate(rows):
        value = exact.get(row["digest"])
        if value == 0:
            ax.annotate(
                "exactly 0", (0.02, place), xycoords=("axes fraction", "data"), va="center",
                fontsize=7,
            )  # fmt: skip
        elif value is not None:
            ax.plot([value], [place], marker="x", markersize=6.5, color="black", linestyle="none",
                    markeredgewidth=1.1, gid=f"exact|{row['variant']}")  # fmt: skip


def _waited_for(ax: Axes, rows: Sequence[pd.Series]) -> None:
    """A heat map of what the dead waited for, the shares written out."""
    shares = [dead_shares(row) for row in rows]
    reasons = [reason for reason in REASONS if any(reason in share for share in shares)]
    ax.grid(visible=False)
    if not reasons:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.text(0.5, 0.5, "no deadlock seen", ha="center", transform=ax.transAxes, color="0.35")
        return
    table = np.array([[share.get(reason, np.nan) for reason in reasons] for share in shares])
    ax.imshow(table, vmin=0, vmax=160, cmap="Blues", aspect="auto")
    for (k, j), value in np.ndenumerate(table):
        if np.isfinite(value):
            ax.text(j, k, per_cent(value), ha="center", va="center", fontsize=7, color="black")
    names = [REASON_NAMES[reason] for reason in reasons]
    ax.set_xticks(
        range(len(reasons)), names, fontsize=7, rotation=50, ha="left", rotation_mode="anchor"
    )
    ax.tick_params(axis="x", labeltop=True, labelbottom=False, length=0, pad=0)
    ax.set_yticks([])


def scaling(coefficients: pd.DataFrame) -> Figure:
    """Draw what the fits say about threads and reserve, per variant.

    Parameters
    ----------
    coefficients : DataFrame
        What `Fits.frame` returns: variant, waiting, quantity, term, low, best, high.

    Returns
    -------
    Figure
        Three panels over the same variants: scaling exponents of the idle pages in the threads,
        and by what one more thread, and one more page of reserve, multiply the hazard of a
        deadlock.
    """
    check(coefficients, ("variant", "waiting", "quantity", "term", "low", "best", "high"))
    rules = list(coefficients["waiting"].unique())
    rule = "asleep" if "asleep" in rules else rules[0]
    coefficients = coefficients[coefficients["waiting"] == rule]
    names = ordered(coefficients["variant"])
    letters = glyphs(names)
    asked = [
        ("idle pages grow as threads\nto the power of", 0.0,
         [("idle_mean", "log threads", "o", False), ("idle_peak", "log threads", "s", True)]),
        ("one more thread multiplies\nthe hazard by", 1.0, [("deadlock", "threads", "^", False)]),
        ("one more page of reserve\nmultiplies the hazard by", 1.0,
         [("deadlock", "reserve", "D", False)]),
    ]  # fmt: skip
    with _style():
        figure = Figure(figsize=(WIDTH, 0.21 * len(names) + 1.5), layout="constrained")
        axes = figure.subplots(1, 3, sharey=True)
        colours = _colours(2)
        for ax, (label, neutral, shown) in zip(axes, asked, strict=True):
            ax.axvline(neutral, color=_GREY, linestyle=":", linewidth=0.8)
            if neutral == 0.0:
                ax.axvline(1.0, color=_GREY, linestyle=":", linewidth=0.8)
            for k, (quantity, term, marker, hollow) in enumerate(shown):
                part = coefficients[
                    (coefficients["quantity"] == quantity) & (coefficients["term"] == term)
                ]
                low, best, high = part[["low", "best", "high"]].to_numpy(dtype=float).T
                if neutral == 1.0:  # log hazard per thread or page: drawn as the factor
                    low, best, high = np.exp(low), np.exp(best), np.exp(high)
                y = np.array([names.index(name) for name in part["variant"]]) + 0.2 * k
                ax.hlines(y, low, high, color=colours[k], linewidth=1.0).set_gid(f"bars|{quantity}")
                ax.plot(best, y, color=colours[k], marker=marker, linestyle="none",
                        markerfacecolor="white" if hollow else colours[k],
                        gid=f"best|{quantity}",
                        label={"idle_mean": "mean", "idle_peak": "peak"}.get(quantity))  # fmt: skip
            ax.set_xlabel(label)
            if neutral == 1.0:
                _factor_axis(ax)
        axes[0].legend(loc="best", fontsize=6.5)
        axes[0].set_yticks(
            range(len(names)), [_literal(f"{name}  {letters[name]}") for name in names]
        )
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        note = "Bars: 95 % intervals of the fits. No marker: no fit. Dotted: no dependence, and in"
        _entitle(figure, "Fitted scaling", f"waiting {rule}", note + " proportion.")
        return figure


def _factor_axis(ax: Axes) -> None:
    """Factors: twice as far from 1 to the right as half to the left."""
    low, high = ax.dataLim.intervalx
    low, high = min(low, 1 / 1.1), max(high, 1.1)
    ax.set_xscale("log")
    ax.set_xlim(low / 1.15, high * 1.15)
    marks = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    if high / low < 3:
        marks = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0]
    if high / low > 50:
        marks = [10.0**k for k in range(-300, 301)]
    marks = [mark for mark in marks if low / 1.15 < mark < high * 1.15]
    ax.xaxis.set_major_locator(FixedLocator(marks[:: -(-len(marks) // 6)]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def png(figure: Figure, dpi: int = 120) -> bytes:
    """Draw a figure as a picture for a screen.

    Parameters
    ----------
    figure : Figure
        What to draw.
    dpi : int
        Pixels for an inch of the figure.

    Returns
    -------
    bytes
        A PNG.
    """
    file = io.BytesIO()
    with _style():
        figure.savefig(file, dpi=dpi, format="png")
    return file.getvalue()


def save(
    figure: Figure, path: Path, about: dict[str, str], formats: Sequence[str] = ("svg", "png")
) -> list[Path]:
    """Write a figure in each format, with its provenance in the file's metadata.

    Parameters
    ----------
    figure : Figure
        What to write.
    path : Path
        Where to, without suffix.
    about : dict of str to str
        What `cells.provenance` returns.
    formats : sequence of str
        Of "svg", "png" and "pdf".

    Returns
    -------
    list of Path
        The files. The same figure gives the same bytes: no file carries the date.
    """
    text = "; ".join(f"{key}: {value}" for key, value in about.items())
    title = path.name.replace("_", " ")
    metadata: dict[str, dict[str, Any]] = {
        "svg": {"Title": title, "Description": text, "Creator": about["package"], "Date": None},
        "pdf": {"Title": title, "Subject": text, "Creator": about["package"], "CreationDate": None},
        "png": {"Title": title, "Description": text, "Software": about["package"]},
    }
    written = []
    with _style():
        for suffix in formats:
            target = path.with_name(f"{path.name}.{suffix}")
            figure.savefig(target, dpi=DPI, metadata=metadata[suffix])
            written.append(target)
    return written


def draw_all(
    frame: pd.DataFrame,
    fits: Fits | None,
    directory: str | Path,
    formats: Sequence[str] = ("svg", "png"),
    *,
    command: str = "reservelab.show.figures.draw_all(frame, fits, directory)",
    grid: str = "",
) -> list[Path]:
    """Draw every figure into a directory.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns.
    fits : Fits, optional
        What `fit` makes of it; without it the figure of the fits is left out.
    directory : str or Path
        Where to; it is made if it is not there, and files of the same names are replaced.
    formats : sequence of str
        Of "svg", "png" and "pdf".
    command, grid : str
        What a person types to make the files again, and the grid's name and digest, for their
        metadata.

    Returns
    -------
    list of Path
        The files, in the order they were written. A frame of more than `COLUMNS_OF` mixes gives
        several files of each kind, numbered.

    Raises
    ------
    BadInput
        If a format is unknown, or the frame cannot be drawn.
    """
    for suffix in formats:
        if suffix not in FORMATS:
            raise BadInput("formats", f"{suffix!r} is unknown", f"one of {', '.join(FORMATS)}")
    check(frame, ("mix", "digest", "seed", "episodes"))
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    names = mixes(frame)
    sheets = [names[k : k + COLUMNS_OF] for k in range(0, len(names), COLUMNS_OF)]
    written: list[Path] = []
    for draw in (risk_against_reserve, risk_against_threads, idle_against_threads, front, dead):
        for number, sheet in enumerate(sheets, start=1):
            part = frame[frame["mix"].isin(sheet)]
            name = draw.__name__ + (f"_{number}" if len(sheets) > 1 else "")
            written += save(draw(part), directory / name, provenance(part, command, grid), formats)
    if fits is not None and not fits.frame().empty:
        about = provenance(frame, command, grid)
        written += save(scaling(fits.frame()), directory / "scaling", about, formats)
    return written
