"""Which cells of a tidy frame are drawn, in which order and under which glyph.

A figure shows two or three of the columns that vary; the others are held at one value, and the
figure says which. Nothing is averaged over cells: a point that is drawn is a row of the frame.

Vocabulary
----------
cell      a row of the frame that `sweep` returns: one scenario
setting   a column that says what was run, not what came out
bound     what is drawn where no deadlock was seen: the upper end of the interval, marked as one
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd

from reservelab.model.errors import BadInput
from reservelab.model.interval import Interval
from reservelab.model.pack import REASONS
from reservelab.model.schemes import variants

# Without I, O, V, i, l, o, v, 0 and 1, which look like bars, arrows or each other in a text figure.
GLYPHS = "ABCDEFGHJKLMNPQRSTUWXYZabcdefghjkmnpqrstuwxyz23456789"
AXES = {
    "threads": "threads",
    "reserve": "reserve (pages)",
    "pages": "pages in all",
    "quota": "writepages asked of each thread",
}
QUANTITIES = {
    "deadlock_probability": "deadlock probability per episode",
    "throughput": "throughput (writepages per mean step)",
    "duration": "duration of an episode (mean steps)",
    "idle_mean": "idle reserve, mean over time (pages)",
    "idle_peak": "idle reserve, mean peak of an episode (pages)",
    "inside": "inside a section, mean over time (threads)",
    "waiting_entry": "waiting at entry, mean over time (threads)",
    "waiting_pages": "waiting for pages, mean over time (threads)",
    "waiting_semaphore": "waiting for the semaphore, mean over time (threads)",
    "waiting_locks": "waiting for locks, mean over time (threads)",
    "latency": "time inside a section (mean steps)",
}
REASON_NAMES = {
    "entry": "entry", "pages": "pages", "semaphore": "semaphore", "lock": "a lock",
    "refill": "refill", "own_semaphore": "its own semaphore", "completion": "completion memory",
    "io": "its own I/O",
}  # fmt: skip
# What is held, in the order it is chosen.
_HELD = ("waiting", "quota", "pages", "reserve", "threads")
_RESULTS = (
    *QUANTITIES,
    "episodes", "deadlocks", "unfinished", "events", "completed", "redirtied", "oom_kills",
)  # fmt: skip
_KNOWN = {
    "digest", "rules", "scheme", "variant", "waiting", "mix", "seed", "threads", "pages", "reserve",
    "need", "mean_demand", "quota", "writepages", *_RESULTS,
    *(f"{name}_{end}" for name in QUANTITIES for end in ("low", "best", "high")),
    *(f"dead_{reason}" for reason in REASONS),
}  # fmt: skip


@dataclass(frozen=True)
class Cells:
    """The cells one figure draws.

    Parameters
    ----------
    frame : DataFrame
        Rows of the frame given, unchanged.
    held : str
        What is held at one value over all mixes, in words.
    held_by_mix : dict of str to tuple of str
        What is held at another value in each mix, in words, and the letters of the variants that
        have no cell there.
    """

    frame: pd.DataFrame
    held: str
    held_by_mix: dict[str, tuple[str, ...]]


def check(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuse a frame that cannot be drawn.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns.
    columns : iterable of str
        What the figure needs.

    Raises
    ------
    BadInput
        If a column is missing, or there is no row.
    """
    for name in columns:
        if name not in frame.columns:
            raise BadInput("table", f"has no column {name!r}", "give the frame that sweep returns")
    if frame.empty:
        raise BadInput("table", "is empty", "give at least one cell")


def ends(quantity: str) -> list[str]:
    """Name the three columns of a quantity.

    Parameters
    ----------
    quantity : str
        Such as "idle_mean".

    Returns
    -------
    list of str
        Its low, best and high.
    """
    return [f"{quantity}_{end}" for end in ("low", "best", "high")]


def interval(row: pd.Series, quantity: str) -> Interval:
    """Read a quantity of one cell.

    Parameters
    ----------
    row : Series
        A row of the frame.
    quantity : str
        Such as "idle_mean".

    Returns
    -------
    Interval
        Its low, best and high.
    """
    return Interval(*(float(row[name]) for name in ends(quantity)))


def ordered(names: Iterable[str]) -> list[str]:
    """Sort variants: the named ones as MODEL.md section 5 lists them, then the others by name.

    Parameters
    ----------
    names : iterable of str
        Display names of variants, with repetitions or without.

    Returns
    -------
    list of str
        Each once.
    """
    place = {name: k for k, name in enumerate(variants())}
    return sorted(set(names), key=lambda name: (place.get(name, len(place)), name))


def glyphs(names: Iterable[str]) -> dict[str, str]:
    """Give each variant a letter, the same in every figure and every text.

    Parameters
    ----------
    names : iterable of str
        Variants of the frame.

    Returns
    -------
    dict of str to str
        A named variant's letter depends on nothing else; the others get the letters after theirs.
        More variants than letters share "*".
    """
    here, named = ordered(names), variants()
    others = [name for name in here if name not in named]
    letters = dict(zip([*named, *others], GLYPHS, strict=False))
    return {name: letters.get(name, "*") for name in here}


def mixes(frame: pd.DataFrame) -> list[str]:
    """List the mixes of a frame.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns.

    Returns
    -------
    list of str
        In the order of the frame's rows.
    """
    return [str(mix) for mix in frame["mix"].unique()]


def hold(frame: pd.DataFrame, shown: Collection[str]) -> Cells:
    """Hold every setting that a figure does not show at one value.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns. To hold something else than the default, give only those rows.
    shown : collection of str
        Columns that the figure shows, besides mix and variant.

    Returns
    -------
    Cells
        Held are, where they vary: waiting at asleep; quota, threads and pages at the middle one of
        their values (the larger of two); reserve at the first that covers the largest section (the
        largest there is, if none does); a column that this module does not know at its first
        value. None of this depends on what came out. A variant that has
        no cell at the reserve held is shown at its own, and the words say so; a scheme without a
        reserve is in every choice of it.

    Raises
    ------
    BadInput
        If two cells would stand at the same place.
    """
    check(frame, ("digest", "mix", "variant", "need", *_HELD))
    strange = [str(name) for name in frame.columns if name not in _KNOWN]
    letters = glyphs(frame["variant"])
    parts: list[pd.DataFrame] = []
    words: dict[str, dict[str, str]] = {}
    for mix in mixes(frame):
        part = frame[frame["mix"] == mix]
        need = int(part["need"].max())
        words[mix] = {}
        for setting in (*_HELD, *strange):
            values = [v for v in part[setting].unique() if setting != "reserve" or v >= 0]
            if setting in shown or not values:
                continue
            value = _default(setting, values, need)
            keep = part[setting] == value
            text = _in_words(setting, value)
            if setting == "reserve":
                keep |= part["reserve"] < 0
                others = []
                for variant in ordered(set(part["variant"]) - set(part.loc[keep, "variant"])):
                    own = part["variant"] == variant
                    other = _default("reserve", list(part.loc[own, "reserve"].unique()), need)
                    keep |= own & (part["reserve"] == other)
                    others.append(f"{letters[variant]}: {other}")
                text += f" ({', '.join(others)})" if others else ""
            part = part[keep]
            words[mix][setting] = text
        missing = ordered(set(frame["variant"]) - set(part["variant"]))
        if missing:
            words[mix]["missing"] = "no cell: " + " ".join(letters[name] for name in missing)
        parts.append(part)
    chosen = pd.concat(parts)
    axes = ["mix", "variant", *shown]
    twice = chosen[chosen.duplicated(axes, keep=False)]
    if not twice.empty:
        place = ", ".join(f"{name} {twice.iloc[0][name]}" for name in axes)
        raise BadInput(
            "table", f"has more than one cell at {place}",
            "add a column that tells them apart, or give only the rows to draw",
        )  # fmt: skip
    first, *rest = words.values()
    common = [s for s in first if all(first[s] == some.get(s) for some in rest)]
    held = []
    for setting in common:
        values = sorted(set(frame[setting]) - {-1}) if setting in frame.columns else []
        of = f" (of {', '.join(str(v) for v in values)})" if 1 < len(values) < 9 else ""
        held.append(first[setting] + of)
    own_words = {
        mix: tuple(text for setting, text in some.items() if setting not in common)
        for mix, some in words.items()
    }
    return Cells(chosen, ", ".join(held), own_words)


def _default(setting: str, values: Sequence[Any], need: int) -> Any:  # noqa: ANN401 - any column
    if setting == "waiting":
        return "asleep" if "asleep" in values else values[0]
    if setting == "reserve":
        return min((v for v in values if v >= need), default=max(values))
    if setting in ("quota", "threads", "pages"):
        return sorted(values)[len(values) // 2]
    return values[0]


def _in_words(setting: str, value: object) -> str:
    return f"{value} {setting}" if setting in ("threads", "pages") else f"{setting} {value}"


def frontier(points: np.ndarray) -> np.ndarray:
    """Mark the points that no other point beats.

    Parameters
    ----------
    points : ndarray of float, shape (cells, quantities)
        The smaller the better.

    Returns
    -------
    ndarray of bool, shape (cells,)
        False where another point is as good in every quantity and better in one. A point with an
        unknown quantity is on no front and beats none.
    """
    best = np.ones(len(points), dtype=bool)
    for k, point in enumerate(points):
        beaten = (points <= point).all(axis=1) & (points < point).any(axis=1)
        best[k] = not beaten.any() and not np.isnan(point).any()
    return best


def dead_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Count what the dead waited for, over all cells of each mix and variant.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns.

    Returns
    -------
    DataFrame
        Columns mix, variant, episodes, deadlocks and dead_*, in the order of the figures.

    Raises
    ------
    BadInput
        If the frame is not such a table.
    """
    names = ["episodes", "deadlocks", *(f"dead_{reason}" for reason in REASONS)]
    check(frame, ["mix", "variant", *names])
    counts = frame.groupby(["mix", "variant"], sort=False)[names].sum()
    here = [
        (mix, variant)
        for mix in mixes(frame)
        for variant in ordered(frame.loc[frame["mix"] == mix, "variant"])
    ]
    return counts.loc[here].reset_index()


def dead_shares(row: pd.Series) -> dict[str, float]:
    """What the dead of one cell waited for.

    Parameters
    ----------
    row : Series
        A row of the frame.

    Returns
    -------
    dict of str to float
        Reasons of which there is any, the most frequent first, in per cent of the deadlocks. They
        may add up to more than 100: threads of one deadlock wait for several things.
    """
    counts = {reason: int(row[f"dead_{reason}"]) for reason in REASONS}
    here = sorted((reason for reason in REASONS if counts[reason]), key=lambda r: -counts[r])
    return {reason: 100 * counts[reason] / int(row["deadlocks"]) for reason in here}


def provenance(frame: pd.DataFrame, command: str, grid: str = "") -> dict[str, str]:
    """State where the numbers of a figure come from.

    Parameters
    ----------
    frame : DataFrame
        The cells behind the figure.
    command : str
        What a person types to make it again.
    grid : str
        Name and digest of the grid they are of, if they are of one.

    Returns
    -------
    dict of str to str
        Grid, scenarios (how many, and the SHA-256 of their sorted digests, one a line), seeds,
        rules, episodes, package, command.
    """
    digests = sorted(set(frame["digest"].astype(str)))
    listed = hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()
    return ({"grid": grid} if grid else {}) | {
        "scenarios": f"{len(digests)}, SHA-256 of their digests {listed}",
        "seeds": _listed(frame["seed"]),
        "rules": _listed(frame["rules"]) if "rules" in frame.columns else "unknown",
        "episodes": str(int(frame["episodes"].sum())),
        "package": f"reservelab {metadata.version('reservelab')}",
        "command": command,
    }


def _listed(column: pd.Series) -> str:
    return ", ".join(str(value) for value in sorted(set(column.tolist())))


def digits(value: Interval) -> int:
    """Say how many decimals of an estimate its interval supports.

    Parameters
    ----------
    value : Interval
        The estimate.

    Returns
    -------
    int
        As many as make the shorter arm of the interval 3 to 30 units of the last place; negative
        left of the point. An estimate without error supports six significant digits.
    """
    low, best, high = value
    arms = [arm for arm in (best - low, high - best) if math.isfinite(arm) and arm > 0]
    if not arms:
        return 5 - math.floor(math.log10(abs(best))) if math.isfinite(best) and best else 0
    return -math.floor(math.log10(min(arms) / 3))
