"""Tables of a sweep's cells, aligned and captioned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from reservelab.model.errors import BadInput
from reservelab.model.interval import Interval
from reservelab.model.pack import REASONS
from reservelab.model.plain_text import WIDTH, plain, wrap
from reservelab.show.cells import (
    QUANTITIES,
    REASON_NAMES,
    Cells,
    check,
    dead_counts,
    ends,
    glyphs,
    hold,
    interval,
    mixes,
    ordered,
)
from reservelab.show.text.words import bracketed, flow, joined, key, number, per_cent, risk

COLUMNS = ("deadlock_probability", "idle_mean", "idle_peak", "throughput", "dead")
_RISK = "deadlock_probability"
_HEADS = {
    "idle_mean": ("idle", "mean"), "idle_peak": ("idle", "peak"), "throughput": ("thrput", "%"),
    "dead": ("dead", "want"), "duration": ("mean", "steps"), "inside": ("threads", "inside"),
    "waiting_entry": ("waiting", "entry"), "waiting_pages": ("waiting", "pages"),
    "waiting_semaphore": ("waiting", "semaph."), "waiting_locks": ("waiting", "locks"),
    "latency": ("section", "steps"),
}  # fmt: skip
_REASON_LETTERS = dict(zip(REASONS, "EPSLROCI", strict=True))


@dataclass(frozen=True)
class Column:
    """A column of a table: two lines of head, and a text for each row.

    Parameters
    ----------
    head : tuple of str
        Its two lines.
    texts : tuple of str
        One for each row.
    left : bool
        Whether they stand to the left.
    """

    head: tuple[str, str]
    texts: tuple[str, ...]
    left: bool = False

    @property
    def width(self) -> int:
        """Columns of the widest."""
        return max(len(text) for text in (*self.head, *self.texts))

    def cell(self, text: str) -> str:
        """Pad a text to the column's width.

        Parameters
        ----------
        text : str
            Of the head or of a row.

        Returns
        -------
        str
            As wide as the column.
        """
        return text.ljust(self.width) if self.left else text.rjust(self.width)


def aligned(names: Sequence[str], columns: Sequence[Column]) -> Iterator[str]:
    """Align columns beside names; more columns than fit stand below, a name too long above.

    Parameters
    ----------
    names : sequence of str
        One for each row.
    columns : sequence of Column
        Each with as many texts.

    Yields
    ------
    str
        The lines of the table.
    """
    blocks: list[list[Column]] = [[]]
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
                yield from wrap(name, "  ")
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
    lines = wrap(title("Schemes compared", cells))
    seen: set[str] = set()
    for mix in mixes(cells.frame):
        part = in_order(cells.frame[cells.frame["mix"] == mix])
        names = [plain(f"{letters[variant]} {variant}") for variant in part["variant"]]
        made: list[Column] = []
        for name in columns:
            made += _made(name, part, seen)
        lines += ["", *wrap(f"{caption(mix, cells)} ({_episodes(part)}):"), ""]
        lines += aligned(names, made)
        missing = ordered(set(letters) - set(part["variant"]))
        if missing:
            lines += flow(f"No cell: {letters[name]} {name}." for name in missing)
        for _, row in part[part["unfinished"] > 0].iterrows():
            lines += wrap(
                f"{letters[row['variant']]}: {row['unfinished']} episodes unfinished; they widen"
                " the interval upwards.",
                "   ",
            )
    lines.append("")
    if _RISK in columns:
        lines += wrap(
            "Risk: share of the episodes that deadlock, with its 95 % interval (Clopper-Pearson,"
            " ends rounded outwards)."
        )
    if {"idle_mean", "idle_peak"} & set(columns):
        lines += wrap("Idle: pages of the reserve that lie idle.")
    if "throughput" in columns:
        lines += wrap(
            "Thrput: writepages per unit of time, until the deadlock where there is one, in per"
            " cent of the mix's largest."
        )
    if seen:
        words = [f"{_REASON_LETTERS[r]} {REASON_NAMES[r]}" for r in REASONS if r in seen]
        lines += wrap(
            "Dead want: what stuck threads waited for, most often first; a small letter: in less"
            f" than half of the deadlocks. {', '.join(words)}."
        )
    return joined(lines)


def in_order(part: pd.DataFrame) -> pd.DataFrame:
    """Sort cells as `cells.ordered` sorts their variants.

    Parameters
    ----------
    part : DataFrame
        Cells of one mix.

    Returns
    -------
    DataFrame
        The same rows.
    """
    place = {variant: k for k, variant in enumerate(ordered(part["variant"]))}
    return part.sort_values("variant", key=lambda names: names.map(place), kind="stable")


def title(what: str, cells: Cells) -> str:
    """Say what is shown and what is held.

    Parameters
    ----------
    what : str
        What is shown.
    cells : Cells
        What `cells.hold` returns.

    Returns
    -------
    str
        A sentence.
    """
    return f"{what}: {cells.held}." if cells.held else f"{what}."


def caption(mix: str, cells: Cells) -> str:
    """Name a mix and what is held in it alone.

    Parameters
    ----------
    mix : str
        Its name.
    cells : Cells
        What `cells.hold` returns.

    Returns
    -------
    str
        Without a full stop.
    """
    return ", ".join((mix, *cells.held_by_mix[mix]))


def _episodes(part: pd.DataFrame) -> str:
    low, high = int(part["episodes"].min()), int(part["episodes"].max())
    return f"{low} episodes each" if low == high else f"{low} to {high} episodes"


def _made(name: str, part: pd.DataFrame, seen: set[str]) -> list[Column]:
    """The columns of one quantity; reasons that occur are added to `seen`."""
    rows = [row for _, row in part.iterrows()]
    if name == _RISK:
        pairs = [risk(interval(row, name)) for row in rows]
        wide = max(len(best) for best, _ in pairs)
        texts = tuple(f"{best:{wide}} {bounds}" for best, bounds in pairs)
        return [Column(("", f"{'risk':{wide}} 95 % interval"), texts, left=True)]
    if name == "dead":
        return [Column(_HEADS[name], tuple(_wants(row, seen) for row in rows), left=True)]
    values = [interval(row, name) for row in rows]
    if name == "throughput":
        most = max((v.best for v in values if math.isfinite(v.best)), default=math.nan)
        scale = 100 / most if most > 0 else math.nan
        values = [Interval(*(scale * bound for bound in value)) for value in values]
    return [Column(_HEADS[name], tuple(number(value) for value in values))]


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
    lines = wrap(
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
        lines += ["", *wrap(f"{mix}:"), ""]
        if len(died):
            columns = [Column(("dead-", "locks"), tuple(str(n) for n in died["deadlocks"]))]
            for reason in reasons:
                shares = 100 * died[f"dead_{reason}"] / died["deadlocks"]
                columns.append(Column(heads[reason], tuple(per_cent(s) for s in shares)))
            lines += aligned([plain(f"{letters[v]} {v}") for v in died["variant"]], columns)
        alive = part[part["deadlocks"] == 0]
        if len(alive):
            lines += wrap("No deadlock seen:") + key(alive["variant"], letters)
    return joined(lines)


def scaling(coefficients: pd.DataFrame) -> str:
    """Tabulate what the fits say about threads and reserve, as `figures.scaling` draws it.

    Parameters
    ----------
    coefficients : DataFrame
        What `Fits.frame` returns: variant, waiting, quantity, term, low, best, high.

    Returns
    -------
    str
        Lines of at most 72 ASCII characters: scaling exponents of the idle pages in the threads,
        and by what one more thread, and one more page of reserve, multiply the hazard of a
        deadlock; each with its 95 % interval, and nothing where there is no fit.

    Raises
    ------
    BadInput
        If the frame is not such a table.
    """
    check(coefficients, ("variant", "waiting", "quantity", "term", "low", "best", "high"))
    rules = list(coefficients["waiting"].unique())
    rule = "asleep" if "asleep" in rules else str(rules[0])
    here = coefficients[coefficients["waiting"] == rule]
    names, letters = ordered(here["variant"]), glyphs(here["variant"])
    lines = wrap(
        f"Fitted scaling, waiting {rule}: idle pages grow as threads to the power of (mean, peak);"
        " one more thread, one more page of reserve multiply the hazard of a deadlock by. In"
        " brackets 95 % intervals, ends rounded outwards."
    )
    columns = []
    for quantity, term, head, factor in (
        ("idle_mean", "log threads", ("", "idle mean"), False),
        ("idle_peak", "log threads", ("", "idle peak"), False),
        ("deadlock", "threads", ("hazard,", "a thread"), True),
        ("deadlock", "reserve", ("hazard,", "a page"), True),
    ):
        part = here[(here["quantity"] == quantity) & (here["term"] == term)].set_index("variant")
        texts = []
        for name in names:
            text = ""
            if name in part.index:
                row = part.loc[[name]].iloc[0]
                value = Interval(*(float(row[end]) for end in ("low", "best", "high")))
                text = bracketed(Interval(*map(_exp, value))) if factor else bracketed(value, 3)
            texts.append(text)
        columns.append(Column(head, tuple(texts)))
    lines += ["", *aligned([letters[name] for name in names], columns), ""]
    return joined([*lines, *key(names, letters)])


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
