"""Tables and figures in plain ASCII, at most 72 columns wide, for a terminal and a mailing list.

The same cells as in `figures`, under the same letters. Every function returns lines without
trailing blanks; names that are not ASCII are shown with question marks. Numbers are printed to the
digits that their interval supports, bounds rounded outwards, so that what is printed contains what
is meant. Needs nothing but the core install.

Signs of a plot
---------------
A         the best value of scheme A
|         its 95 % interval (- in bars)
A over v  no deadlock was seen; A stands at the upper end of the interval (bars: <---A)
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from reservelab.model.errors import BadInput
from reservelab.model.interval import Interval
from reservelab.model.pack import REASONS
from reservelab.show.cells import (
    AXES,
    QUANTITIES,
    REASON_NAMES,
    Cells,
    check,
    dead_counts,
    digits,
    ends,
    glyphs,
    hold,
    interval,
    mixes,
    ordered,
    provenance,
)

WIDTH = 72
COLUMNS = ("deadlock_probability", "idle_mean", "idle_peak", "throughput", "dead")
_RISK = "deadlock_probability"
_BLOCK = 6  # variants in a plot, where all of them do not fit into one
_HEADS = {
    "idle_mean": ("idle", "mean"), "idle_peak": ("idle", "peak"), "throughput": ("thrput", "%"),
    "dead": ("dead", "want"), "duration": ("mean", "steps"), "inside": ("threads", "inside"),
    "waiting_entry": ("waiting", "entry"), "waiting_pages": ("waiting", "pages"),
    "waiting_semaphore": ("waiting", "semaph."), "waiting_locks": ("waiting", "locks"),
    "latency": ("section", "steps"),
}  # fmt: skip
_REASON_LETTERS = dict(zip(REASONS, "EPSLROCI", strict=True))


# --- Words and numbers ---------------------------------------------------------------------------


def _plain(text: object) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in str(text))


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(_plain(text), WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _flow(items: Iterable[str]) -> list[str]:
    """Items side by side, three blanks apart, none broken unless it is wider than a line."""
    lines = [""]
    for item in map(_plain, items):
        if lines[-1] and len(lines[-1]) + 3 + len(item) <= WIDTH:
            lines[-1] += "   " + item
        else:
            lines += _wrap(item, "  ")
    return [line.rstrip() for line in lines if line]


def _key(variants: Iterable[str], letters: dict[str, str]) -> list[str]:
    return _flow(f"{letters[variant]} {variant}" for variant in variants)


def _text(lines: Iterable[str]) -> str:
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _decimal(value: float, decimals: int, power: int, towards: int = 0) -> str:
    """Print value / 10**power to so many decimals; rounded down or up where `towards` says so."""
    scaled = value / 10.0**power
    step = 10.0 ** min(max(decimals, 0), 15)
    # What is within a part in a million of a step is that step, not the next one.
    inner = {-1: math.floor(scaled * step + 1e-6), 1: math.ceil(scaled * step - 1e-6)}
    rounded = inner[towards] / step if towards else scaled
    return f"{rounded:.{max(decimals, 0)}f}" + (f"e{power}" if power else "")


def _power(value: float, decimals: int) -> int:
    """The power of ten to print with: none where at most five decimals and six digits do."""
    if value == 0 or not math.isfinite(value):
        return 0
    size = math.floor(math.log10(abs(value)))
    return size if decimals > 5 or size > 6 else 0


def number(value: Interval) -> str:
    """Print a best value to the digits that its interval supports, at most three.

    Parameters
    ----------
    value : Interval
        Of any quantity.

    Returns
    -------
    str
        Such as "12.3"; "?" where nothing is known.
    """
    best = value.best
    if not math.isfinite(best):
        return "?"
    if best == 0:
        return "0"
    size = math.floor(math.log10(abs(best)))
    decimals = min(digits(value), 2 - size)
    power = _power(best, decimals)
    text = _decimal(best, decimals + power, power)
    exact = value.low == value.high and "." in text and not power
    return text.rstrip("0").rstrip(".") if exact else text


def risk(value: Interval) -> tuple[str, str]:
    """Print a probability and its interval to the digits that the interval supports.

    Parameters
    ----------
    value : Interval
        Of a deadlock probability.

    Returns
    -------
    tuple of str
        The best value ("none" and "all" where no episode and every episode deadlocked) and the
        interval, rounded outwards ("< 0.0019", "> 0.9981" or "0.331..0.343").
    """
    low, best, high = value
    if not all(map(math.isfinite, value)):
        return "?", "unknown"
    if best == 0:
        if high <= 0:
            return "none", "exactly"
        decimals = 1 - math.floor(math.log10(high))
        power = _power(high, decimals)
        return "none", "< " + _decimal(high, decimals + power, power, +1)
    if best == 1:
        if low >= 1:
            return "all", "exactly"
        decimals = min(15, 1 - math.floor(math.log10(1 - low)))
        return "all", "> " + _decimal(low, decimals, 0, -1)
    decimals = min(digits(value), 5 - math.floor(math.log10(best)))
    power = _power(best, decimals)
    lower = _decimal(low, decimals + power, power, -1)
    upper = _decimal(high, decimals + power, power, +1)
    return _decimal(best, decimals + power, power), f"{lower}..{upper}"


# --- Tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column of a table: two lines of head, and a text for each row."""

    head: tuple[str, str]
    texts: tuple[str, ...]
    left: bool = False

    @property
    def width(self) -> int:
        return max(len(text) for text in (*self.head, *self.texts))

    def cell(self, text: str) -> str:
        return text.ljust(self.width) if self.left else text.rjust(self.width)


def _lines(names: Sequence[str], columns: Sequence[_Column]) -> Iterator[str]:
    """Align columns beside names; more columns than fit stand below, a name too long above."""
    blocks: list[list[_Column]] = [[]]
    for column in columns:
        room = WIDTH - 16 - sum(2 + c.width for c in blocks[-1])
        if blocks[-1] and column.width + 2 > room:
            blocks.append([])
        blocks[-1].append(column)
    for k, block in enumerate(blocks):
        if k:
            yield ""
        rest = sum(2 + column.width for column in block)
        side = min(max(map(len, names), default=0), WIDTH - rest)
        for line in range(2):
            yield " " * side + "".join("  " + c.cell(c.head[line]) for c in block)
        yield "-" * (side + rest)
        for row, name in enumerate(names):
            cells = "".join("  " + c.cell(c.texts[row]) for c in block)
            if len(name) > side:
                yield from _wrap(name, "  ")
                name = ""
            yield name.ljust(side) + cells


def table(frame: pd.DataFrame, columns: Sequence[str] = COLUMNS) -> str:
    """Compare all schemes: a captioned table for each mix.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns; every setting is held (`cells.hold`).
    columns : sequence of str
        Quantities, and "dead" for what the dead waited for. Throughput is in per cent of the
        largest of the mix.

    Returns
    -------
    str
        Lines of at most 72 ASCII characters.

    Raises
    ------
    BadInput
        If a column is unknown, or the frame cannot be shown.
    """
    for name in columns:
        if name not in (*QUANTITIES, "dead"):
            raise BadInput("columns", f"{name!r} is unknown", f"one of {[*QUANTITIES, 'dead']}")
    wanted = [end for name in columns if name != "dead" for end in ends(name)]
    check(frame, [*wanted, "episodes", "deadlocks", "unfinished"])
    cells = hold(frame, ())
    letters = glyphs(frame["variant"])
    lines = _wrap(_title("Schemes compared", cells))
    seen: set[str] = set()
    for mix in mixes(cells.frame):
        part = _sorted(cells.frame[cells.frame["mix"] == mix])
        names = [_plain(f"{letters[variant]} {variant}") for variant in part["variant"]]
        made: list[_Column] = []
        for name in columns:
            made += _made(name, part, seen)
        lines += ["", *_wrap(f"{_caption(mix, cells)} ({_episodes(part)}):"), ""]
        lines += _lines(names, made)
        missing = ordered(set(letters) - set(part["variant"]))
        if missing:
            lines += _flow(f"No cell: {letters[name]} {name}." for name in missing)
        for _, row in part[part["unfinished"] > 0].iterrows():
            lines += _wrap(
                f"{letters[row['variant']]}: {row['unfinished']} episodes unfinished; they widen"
                " the interval upwards.",
                "   ",
            )
    lines.append("")
    if _RISK in columns:
        lines += _wrap(
            "Risk: share of the episodes that deadlock, with its 95 % interval (Clopper-Pearson,"
            " ends rounded outwards)."
        )
    if {"idle_mean", "idle_peak"} & set(columns):
        lines += _wrap("Idle: pages of the reserve that lie idle.")
    if "throughput" in columns:
        lines += _wrap(
            "Thrput: writepages per unit of time, until the deadlock where there is one, in per"
            " cent of the mix's largest."
        )
    if seen:
        words = [f"{_REASON_LETTERS[r]} {REASON_NAMES[r]}" for r in REASONS if r in seen]
        lines += _wrap(
            "Dead want: what stuck threads waited for, most often first; a small letter: in less"
            f" than half of the deadlocks. {', '.join(words)}."
        )
    return _text(lines)


def _sorted(part: pd.DataFrame) -> pd.DataFrame:
    place = {variant: k for k, variant in enumerate(ordered(part["variant"]))}
    return part.sort_values("variant", key=lambda names: names.map(place))


def _title(what: str, cells: Cells) -> str:
    return f"{what}: {cells.held}." if cells.held else f"{what}."


def _caption(mix: str, cells: Cells) -> str:
    return ", ".join((mix, *cells.held_by_mix[mix]))


def _episodes(part: pd.DataFrame) -> str:
    low, high = int(part["episodes"].min()), int(part["episodes"].max())
    return f"{low} episodes each" if low == high else f"{low} to {high} episodes"


def _made(name: str, part: pd.DataFrame, seen: set[str]) -> list[_Column]:
    """The columns of one quantity; reasons that occur are added to `seen`."""
    rows = [row for _, row in part.iterrows()]
    if name == _RISK:
        pairs = [risk(interval(row, name)) for row in rows]
        wide = max(len(best) for best, _ in pairs)
        texts = tuple(f"{best:{wide}} {bounds}" for best, bounds in pairs)
        return [_Column(("", f"{'risk':{wide}} 95 % interval"), texts, left=True)]
    if name == "dead":
        return [_Column(_HEADS[name], tuple(_wants(row, seen) for row in rows), left=True)]
    values = [interval(row, name) for row in rows]
    if name == "throughput":
        most = max((v.best for v in values if math.isfinite(v.best)), default=math.nan)
        scale = 100 / most if most > 0 else math.nan
        values = [Interval(*(scale * bound for bound in value)) for value in values]
    return [_Column(_HEADS[name], tuple(number(value) for value in values))]


def _wants(row: pd.Series, seen: set[str]) -> str:
    """The letters of what the dead of one cell waited for."""
    counts = {reason: int(row[f"dead_{reason}"]) for reason in REASONS}
    here = sorted((r for r in REASONS if counts[r]), key=lambda r: -counts[r])
    seen.update(here)
    half = int(row["deadlocks"]) / 2
    letters = (_REASON_LETTERS[r] for r in here)
    return "".join(
        x if counts[r] >= half else x.lower() for x, r in zip(letters, here, strict=True)
    )


def dead(frame: pd.DataFrame) -> str:
    """Tabulate what the dead waited for, over all cells of each mix and scheme.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns.

    Returns
    -------
    str
        Lines of at most 72 ASCII characters: per cent of the deadlocked episodes in which a stuck
        thread waited for it. Schemes that never deadlocked are listed below.
    """
    counts = dead_counts(frame)
    letters = glyphs(frame["variant"])
    lines = _wrap(
        "What the dead waited for: per cent of the deadlocked episodes in which a stuck thread"
        " waited for it, all cells together. Threads of one deadlock wait for several things."
    )
    heads = {
        "entry": ("", "entry"), "pages": ("", "pages"), "semaphore": ("sema-", "phore"),
        "lock": ("a", "lock"), "refill": ("", "refill"), "own_semaphore": ("own", "sem."),
        "completion": ("compl.", "memory"), "io": ("own", "I/O"),
    }  # fmt: skip
    reasons = [reason for reason in REASONS if counts[f"dead_{reason}"].any()]
    for mix in mixes(frame):
        part = counts[counts["mix"] == mix]
        died = part[part["deadlocks"] > 0]
        lines += ["", *_wrap(f"{mix}:"), ""]
        if len(died):
            columns = [_Column(("dead-", "locks"), tuple(str(n) for n in died["deadlocks"]))]
            for reason in reasons:
                shares = 100 * died[f"dead_{reason}"] / died["deadlocks"]
                columns.append(_Column(heads[reason], tuple(per_cent(s) for s in shares)))
            lines += _lines([_plain(f"{letters[v]} {v}") for v in died["variant"]], columns)
        alive = part[part["deadlocks"] == 0]
        if len(alive):
            lines += _wrap("No deadlock seen:") + _key(alive["variant"], letters)
    return _text(lines)


def per_cent(share: float) -> str:
    """Print a share that is neither none nor all so that it looks like neither.

    Parameters
    ----------
    share : float
        In per cent.

    Returns
    -------
    str
        Such as "0", "<1", "37", ">99" or "100".
    """
    if 0 < share < 0.5:
        return "<1"
    return ">99" if 99.5 <= share < 100 else f"{share:.0f}"


# --- Plots ---------------------------------------------------------------------------------------


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
    if height < 5:
        raise BadInput("height", f"{height} is too low", "give at least 5 lines")
    check(frame, ends(quantity))
    cells = hold(frame, (x,))
    letters = glyphs(frame["variant"])
    what = QUANTITIES[quantity]
    lines = _wrap(_title(f"{what[0].upper()}{what[1:]}, against {AXES[x]}", cells))
    lines += _wrap("| 95 % interval." + _bound_note(quantity, "A letter over v: "))
    for mix in mixes(cells.frame):
        here = cells.frame[cells.frame["mix"] == mix]
        scale = _Scale.of(_intervals(here, quantity), height, quantity == _RISK)
        lines += ["", *_wrap(_caption(mix, cells))]
        for variants, values in _portions(here, x):
            part = here[here["variant"].isin(variants) & here[x].isin(values)]
            lines += _plot(part, x, quantity, scale, variants, values, letters)
    return _text([*lines, "", *_key(letters, letters)])


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
    ticks = scale.ticks()
    yield ""
    yield " " * 7 + "+" + "-" * inner + "+"
    for level in reversed(range(height)):
        mark = "+" if level in ticks else "|"
        yield f"{ticks.get(level, ''):>6} {mark}{''.join(canvas[level])}{mark}"
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
    lines = _wrap(_title(f"{what[0].upper()}{what[1:]}", cells))
    lines += _wrap("--- 95 % interval." + _bound_note(quantity, "<--: "))
    for mix in mixes(cells.frame):
        part = _sorted(cells.frame[cells.frame["mix"] == mix])
        values = _intervals(part, quantity)
        texts = [" ".join(risk(value)) if quantity == _RISK else number(value) for value in values]
        room = WIDTH - 6 - max(map(len, texts))
        if room < 20:
            texts, room = [""] * len(texts), WIDTH - 6
        scale = _Scale.of(values, room, quantity == _RISK)
        lines += ["", *_wrap(_caption(mix, cells)), ""]
        for variant, value, text in zip(part["variant"], values, texts, strict=True):
            bar = _bar(value, letters[variant], scale, quantity == _RISK)
            lines.append(f"{letters[variant]} |{bar}|  {text}")
        ticks = scale.ticks()
        rule = "".join("+" if place in ticks else "-" for place in range(room))
        lines += [f"  +{rule}+", _labels(ticks, 3)]
    return _text([*lines, "", *_key(letters, letters)])


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


def report(frame: pd.DataFrame, command: str) -> str:
    """Put the tables and plots of a sweep into one text, with where its numbers come from.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns.
    command : str
        What a person types to make it again.

    Returns
    -------
    str
        Lines of at most 72 ASCII characters.
    """
    parts = [table(frame), dead(frame), curves(frame, "threads"), curves(frame, "reserve")]
    about = [
        line
        for key, value in provenance(frame, command).items()
        for line in _wrap(f"{key}: {value}", "  ")
    ]
    return "\n\n".join([*parts, _text(about)])
