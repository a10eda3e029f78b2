"""A story as a swim-lane picture: a lane for each thread, steps to the right.

A lane says where its thread stands, how many pages it has, and which locks and whether the
semaphore are its own; waiting and sleeping are hatched. Beside the lanes stands the wait-for graph
of the last state shown, as a resource-allocation graph [1]: dashed arrows go from a thread to what
it waits for, solid ones from there to who holds it; the edges of the cycle are heavy. Nothing is
said by colour alone. All coordinates are points of paper, so that a label is drawn only where it
fits.

References
----------
.. [1] R. C. Holt, Some deadlock properties of computer systems, ACM Computing Surveys 4 (1972).
"""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.textpath import TextPath

from reservelab.model.errors import BadInput, whole_number
from reservelab.model.pack import NOBODY
from reservelab.show.lanes import Lanes, lanes
from reservelab.solve.prove import Proof
from reservelab.solve.trace import Story

SPAN = 24  # states in a picture
CAST = 10  # threads in a picture
_WIDTH = 518.0  # points: 7.2 inches, an A4 page less its margins
_MARGIN, _NAMES, _GRAPH = 6.0, 78.0, 150.0
_ROW, _GAP = 11.0, 6.0
_FONT = 6.5
# Of seaborn's colour-blind palette; hatches and words say the same.
_BLUE, _GREEN, _ORANGE, _PINK = "#0173b2", "#029e73", "#de8f05", "#cc78bc"
_FACES = {
    "running": ("#e8f0f7", ""),
    "outside": ("white", ""),
    "waiting": ("#fbe6c4", "////"),
    "asleep": ("#f3dff0", "xxxx"),
    "idle": ("white", "...."),
    "done": ("#e4e4e4", ""),
}


def swim_lanes(told: Story | Proof | Lanes, step: int | None = None, span: int = SPAN) -> Figure:
    """Draw what led to a state: who held what, and who waits for whom there.

    Parameters
    ----------
    told : Story or Proof or Lanes
        What `trace`, `prove` or `lanes` returned.
    step : int, optional
        The last state shown; that of the end unless given.
    span : int
        Most states in the picture; a longer story is shown in windows that move on by half.

    Returns
    -------
    Figure
        7.2 inches wide. Of more than `CAST` threads those of the cycle and those that move in the
        window are shown, the others counted.

    Raises
    ------
    BadInput
        If a proof is a certificate, or there is no such step.
    """
    shown = told if isinstance(told, Lanes) else lanes(told)
    step = shown.states - 1 if step is None else whole_number("step", step)
    if step >= shown.states:
        raise BadInput("step", f"{step} is beyond the end", f"give 0 to {shown.states - 1}")
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "hatch.linewidth": 0.4}):
        return _Picture(shown, step, max(4, span)).figure


@functools.cache
def _wide(text: str, size: float) -> float:
    """The width of a text in points."""
    return float(TextPath((0, 0), text.replace("$", r"\$"), size=size).get_extents().width)


_Box = tuple[str, tuple[str, ...]]  # what is waited for, and the names of those who hold it


def _box_lines(box: _Box) -> list[str]:
    what, holders = box
    return textwrap.wrap(what if holders else f"{what} (nobody has it)", 14)


@dataclass(frozen=True)
class _Row:
    """A lane's place on paper: its top and bottom in points, and how to name it."""

    name: str
    top: float
    bottom: float

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


class _Picture:
    """One picture being drawn."""

    def __init__(self, shown: Lanes, step: int, span: int) -> None:
        self.lanes, self.step, self.story = shown, step, shown.story
        half = span // 2
        self.first = max(0, min((step // half - 1) * half, shown.states - span))
        self.last = min(self.first + span, shown.states)  # one after
        edges = shown.waits[shown.waits["step"] == step]
        self.edges = [tuple(row) for row in edges[["waiter", "what", "holder"]].to_numpy()]
        self.boxes = self._boxes()
        self.cast = self._cast()
        right = _WIDTH - _MARGIN - (_GRAPH if len(shown.waits) else 0)
        self.left = _MARGIN + _NAMES
        self.wide = min((right - self.left) / (self.last - self.first), 60.0)
        rows = shown.intervals
        rows = rows[(rows["end"] > self.first) & (rows["start"] < self.last)]
        # Of the whole window, what comes after the step too, so that lanes keep their heights.
        self.window = {i: rows[rows["thread"] == i] for i in self.cast}
        self.under = {i: self._rows_under(i) for i in self.cast}
        self._lay_out()

    # --- layout ----------------------------------------------------------------------------------

    def _cast(self) -> list[int]:
        """The threads that are shown, by number."""
        everyone = range(len(self.story.threads))
        if len(everyone) <= CAST:
            return list(everyone)
        wanted = [self.story.threads.index(n) for n in self._cycle_names() if "bio of" not in n]
        window = self.lanes.steps.iloc[self.first : self.last]
        wanted += [int(i) for i in reversed(window["thread"].tolist()) if i != NOBODY]
        wanted += [int(i) for i in window["owner"].tolist() if i != NOBODY]
        return sorted(list(dict.fromkeys([*wanted, *everyone]))[:CAST])

    def _cycle_names(self) -> list[str]:
        return [wait.waiter for wait in self.story.cycle]

    def _rows_under(self, i: int) -> tuple[int, int]:
        """Rows a lane needs in this window under its first: for pages, and for what is owned."""
        rows = self.window[i]
        locks = rows["locks"].str.count(",") + (rows["locks"] != "")
        pages = rows[["held", "own", "claim"]].to_numpy().any()
        return int(pages), int((locks + rows["semaphore"]).max())

    def _lay_out(self) -> None:
        """Find the place of everything, from the top down, and draw it."""
        title = self._title()
        counts = self._counts()
        heights = [_ROW * max(2, 1 + sum(self.under[i])) + _GAP for i in self.cast]
        extra = [f"{len(self.story.threads) - len(self.cast)} other threads"]
        extra = extra[: int(len(self.cast) < len(self.story.threads))]
        extra += ["bios"] * bool(self.lanes.steps["bios"].any())
        told = self._told()
        height = 10.0 * len(title) + 2 + 9.0 * (1 + len(counts)) + 4
        lanes_high = sum(heights) + (_ROW + _GAP) * len(extra)
        boxes_high = sum(9.0 * len(lines) + 14 for lines in map(_box_lines, self.boxes))
        height += max(lanes_high, boxes_high) + 6
        height += 9.5 * len(told) + 2 + 12
        self.figure = Figure(figsize=(_WIDTH / 72, height / 72))
        self.ax: Axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self.ax.set(xlim=(0, _WIDTH), ylim=(0, height))
        self.ax.set_axis_off()
        y = height - 9.0
        for k, line in enumerate(title):
            self._write(_MARGIN, y, line, size=8.0, weight="bold" if k == 0 else "normal")
            y -= 10.0
        y -= 2.0
        self._steps(y)
        y -= 9.0
        for name, values in counts:
            self._numbers(y, name, values)
            y -= 9.0
        top = y + 3.0
        self.rows: dict[str, _Row] = {}
        for i, lane in zip(self.cast, heights, strict=True):
            name = self.story.threads[i]
            self.rows[name] = _Row(name, top, top - lane + _GAP)
            top -= lane
        self.extra = {}
        for name in extra:
            self.extra[name] = _Row(name, top, top - _ROW)
            top -= _ROW + _GAP
        top -= max(0.0, boxes_high - lanes_high)
        self.bottom = top + _GAP
        for i in self.cast:
            self._lane(i, self.rows[self.story.threads[i]])
        for row in self.extra.values():
            self._extra(row)
        self._events()
        self._hand_overs()
        self._now()
        if len(self.lanes.waits):
            self._graph()
        y = top - 6.0
        for line in told:
            self._write(_MARGIN, y, line, size=7.0)
            y -= 9.5
        self._legend(y - 2.0)

    def _x(self, state: float) -> float:
        return self.left + (state - self.first) * self.wide

    # --- words -----------------------------------------------------------------------------------

    def _title(self) -> list[str]:
        story = self.story
        which = f"seed {story.seed}, episode {story.episode}"
        if story.seed is None:
            which = f"a shortest path, {len(story.events)} steps"
        first = f"{story.scenario.scheme.variant}, {story.scenario.waiting}: {which}"
        event = story.events[self.step - 1] if self.step else story.start
        end = f"; {story.ending}" if self.step == len(story.events) else ""
        lines = textwrap.wrap(f"step {self.step} of {len(story.events)}: {event.text}{end}", 112)
        return [first, *lines]

    def _told(self) -> list[str]:
        """The cycle in words, once it is closed."""
        if not self.lanes.closed <= self.step or not self.story.cycle:
            return []
        parts = [f"{wait.waiter} \u2192 {wait.what} \u2192 " for wait in self.story.cycle]
        text = f"The cycle, closed since step {self.lanes.closed}: {''.join(parts)}"
        return textwrap.wrap(text + self.story.cycle[0].waiter, 124)

    def _counts(self) -> list[tuple[str, list[int]]]:
        """The rows of numbers over the lanes: those that say something in this scenario."""
        scenario = self.story.scenario
        names = ["free"]
        names += ["dirty"] * any(mount.dirtiers for mount in scenario.mounts)
        names += ["pool"] * (scenario.scheme.start in ("pool", "mount_pools"))
        window = self.lanes.steps.iloc[self.first : self.step + 1]
        return [(name, [int(n) for n in window[name]]) for name in names]

    # --- lanes -----------------------------------------------------------------------------------

    def _steps(self, y: float) -> None:
        self._write(self.left - 5, y, "state after step", ha="right", color="0.35")
        apart = math.ceil((_wide(str(self.last), _FONT) + 6) / self.wide)
        for state in range(self.first, self.last):
            if state == self.step:
                self._write(self._x(state + 0.5), y, str(state), ha="center", weight="bold")
            elif state % apart == 0 and abs(state - self.step) >= apart:
                self._write(self._x(state + 0.5), y, str(state), ha="center", color="0.35")

    def _numbers(self, y: float, name: str, values: Sequence[int]) -> None:
        """A number for each state; only where it changes if they are too wide for all."""
        words = {"pool": "pool pages", "free": "free pages", "dirty": "dirty pages"}
        self._write(self.left - 5, y, words[name], ha="right")
        widest = max(_wide(str(value), _FONT) for value in values) + 2
        taken = self.left
        for k, value in enumerate(values):
            x = self._x(self.first + k) + max(widest, self.wide) / 2
            changed = k == 0 or value != values[k - 1]
            if widest <= self.wide or (changed and x - widest / 2 >= taken):
                weight = "bold" if value == 0 else "normal"
                self._write(x, y, str(value), ha="center", weight=weight)
                taken = x + widest / 2

    def _lane(self, i: int, row: _Row) -> None:
        name = row.name
        mark = "> " if self.lanes.closed <= self.step and name in self._cycle_names() else ""
        self._name(mark + name, row, bold=bool(mark))
        parts = self.window[i][self.window[i]["start"] <= self.step].to_dict("records")
        right = min(self.step + 1, self.last)
        for part in parts:
            part["start"], part["end"] = max(part["start"], self.first), min(part["end"], right)
        y = row.top - _ROW
        for part in _joined(parts, ("place", "inside", "activity", "what")):
            self._activity(part, y)
        pages_rows, owned_rows = self.under[i]
        if pages_rows:
            y -= _ROW
            for part in _joined(parts, ("held", "own", "claim")):
                counts = {"held": part["held"], "own": part["own"], "claimed": part["claim"]}
                words = [f"{n} {what}" for what, n in counts.items() if n]
                if words:
                    number = "+".join(str(n) for n in counts.values() if n)
                    pages = ", ".join(words).replace(" held", " page" + "s" * (part["held"] > 1))
                    total = str(sum(counts.values()))
                    self._bar(part, y, "white", "", [pages, number, total], edge="0.2")
        for slot in range(owned_rows):
            y -= _ROW
            for part in _joined(parts, ("locks", "semaphore")):
                owned = ["semaphore"] * bool(part["semaphore"])
                owned += [f"lock {name}" for name in part["locks"].split(", ") if name]
                if slot < len(owned):
                    self._owned(part, y, owned[slot])

    def _activity(self, part: dict[Any, Any], y: float) -> None:
        activity = part["activity"]
        if activity in ("waiting", "asleep"):
            what = part["what"].removeprefix("a ").removeprefix("the ")
            words = [f"{activity}: {what}", what, activity]
        else:
            verb = part["place"].split()[0]
            words = [verb] if ":" in part["place"] else [part["place"], verb]  # no distributions
        if activity == "running" and not part["inside"]:
            activity = "outside"
        face, hatch = _FACES[activity]
        self._bar(part, y, face, hatch, words)

    def _owned(self, part: dict[Any, Any], y: float, name: str) -> None:
        if name == "semaphore":
            self._bar(part, y, _BLUE, "", [name, "sem", "S"], ink="white", edge=_BLUE)
        else:
            self._bar(part, y, "#d5efe6", "", [name, name[5:], "L"], edge=_GREEN, wide=1.2)

    def _bar(
        self, part: dict[Any, Any], y: float, face: str, hatch: str, words: Sequence[str],
        *, ink: str = "black", edge: str = "0.5", wide: float = 0.6,
    ) -> None:  # fmt: skip
        """A bar over an interval, with the longest of the texts that fits into it."""
        x, end = self._x(part["start"]), self._x(part["end"])
        self.ax.add_patch(
            Rectangle(
                (x + 0.5, y + 0.7), end - x - 1.0, _ROW - 1.4, facecolor=face, hatch=hatch,
                edgecolor=edge, linewidth=wide,
            )
        )  # fmt: skip
        for text in words:
            if _wide(text, _FONT) + 3 <= end - x:
                # Neither hatches nor arrows go through the words.
                ground = {"facecolor": face, "edgecolor": "none", "pad": 0.1}
                self._write((x + end) / 2, y + _ROW / 2, text, ha="center", color=ink, bbox=ground)
                return

    def _name(self, name: str, row: _Row, *, bold: bool = False) -> None:
        lines = [name]
        if _wide(name, _FONT) > _NAMES - 14:
            home, _, kind = name.rpartition("/")
            mount, _, kind = kind.partition(" ")
            lines = [*textwrap.wrap(f"{home}/{mount}", 15), *textwrap.wrap(kind, 15)]
        self._write(
            self.left - 5, row.middle, "\n".join(lines), ha="right", linespacing=1.1,
            weight="bold" if bold else "normal",
        )  # fmt: skip
        self.ax.add_line(
            Line2D(
                [_MARGIN, self._x(self.last)], [row.bottom - _GAP / 2] * 2,
                color="0.85", linewidth=0.5,
            )
        )  # fmt: skip

    def _extra(self, row: _Row) -> None:
        self._name(row.name, row)
        if row.name != "bios":
            return
        window = self.lanes.steps.iloc[self.first : self.step + 1]
        parts = [
            {"start": k, "end": k + 1, "bios": bios, "pages": pages}
            for k, bios, pages in zip(
                window["step"], window["bios"], window["bio_pages"], strict=True
            )
        ]
        for part in _joined(parts, ("bios", "pages")):
            if part["bios"]:
                pages = f"{part['pages']} page" + "s" * (part["pages"] != 1)
                words = [f"{part['bios']} with {pages}", str(part["bios"])]
                self._bar(part, row.bottom, "white", "", words, edge="0.2")

    # --- what happens between lanes --------------------------------------------------------------

    def _events(self) -> None:
        """A mark on the lane of whoever fired."""
        for event in self.story.events[self.first : self.step]:
            if event.step == self.first:
                continue
            kind, *rest = event.transition
            row = self._row(self.story.threads[rest[0]]) if kind in ("thread", "pick") else None
            if kind == "complete":
                row = self.extra["bios"]
            if row is not None:
                x, y = self._x(event.step), row.top + 0.8
                self.ax.plot([x], [y], marker="v", color="black", markersize=3.2, zorder=5)
            else:
                x, y = self._x(event.step), self.bottom
                self._write(x, y, "kill", ha="center", color="black")

    def _row(self, name: str) -> _Row:
        """The lane of a thread or bio; of one that is not shown, the row that counts it."""
        if name in self.rows:
            return self.rows[name]
        if name.startswith("bio of"):
            return self.extra["bios"]
        return next(iter(self.extra.values()))

    def _hand_overs(self) -> None:
        """An arrow from whoever released to the sleeper that got it."""
        given = self.lanes.hand_overs
        here = given[(given["step"] > self.first) & (given["step"] <= self.step)]
        for step, giver, taker in here[["step", "giver", "taker"]].to_numpy():
            if giver == NOBODY:
                continue
            one, other = (self._row(self.story.threads[i]) for i in (giver, taker))
            if one is not other:
                down = one.middle > other.middle
                y = (one.bottom, other.top) if down else (one.top, other.bottom)
                self._arrow((self._x(step), y[0]), (self._x(step), y[1]), width=1.1, size=7)

    def _now(self) -> None:
        """The line at which the picture stops."""
        x = self._x(self.step + 1)
        tops = [row.top for row in (*self.rows.values(), *self.extra.values())]
        self.ax.add_line(Line2D([x, x], [self.bottom, max(tops)], color="black", linewidth=0.8))

    # --- the wait-for graph ----------------------------------------------------------------------

    def _graph(self) -> None:
        """Threads at the left, what they wait for at the right."""
        left = self._x(self.first) + self.wide * max(self.last - self.first, 1) + 8
        left = max(left, _WIDTH - _MARGIN - _GRAPH + 8)
        boxes = self._place_boxes()
        cycle = {
            (wait.waiter, wait.what, wait.holders[0])
            for wait in self.story.cycle
            if self.lanes.closed <= self.step
        }
        box = _WIDTH - _MARGIN - 58
        head = max(row.top for row in self.rows.values()) + 6
        self._write(left, head, "waits for  - ->", color="0.2")
        self._write(_WIDTH - _MARGIN, head, "held by  <--", ha="right", color="0.2")
        for (what, holders), (y, waiters) in boxes.items():
            for waiter in waiters:
                heavy = any((waiter, what, holder) in cycle for holder in holders)
                row = self._row(waiter)
                self._arrow(
                    (left, row.middle + 3), (box, y + 3), width=2.0 if heavy else 0.8,
                    dashed=True, colour=_ORANGE if not heavy else "black",
                )  # fmt: skip
            for holder in holders:
                heavy = any((waiter, what, holder) in cycle for waiter in waiters)
                row = self._row(holder)
                self._arrow(
                    (box, y - 3), (left, row.middle - 3), width=2.0 if heavy else 0.8,
                    colour=_BLUE if not heavy else "black",
                )  # fmt: skip
            lines = _box_lines((what, holders))
            self.ax.add_patch(
                Rectangle(
                    (box, y - 4.5 * len(lines) - 2), 58, 9.0 * len(lines) + 4, facecolor="white",
                    edgecolor="black", linewidth=0.8, zorder=6,
                )
            )  # fmt: skip
            self._write(box + 29, y, "\n".join(lines), ha="center", zorder=7, linespacing=1.15)
        if not boxes:
            middle = (head + self.bottom) / 2
            self._write((left + box + 58) / 2, middle, "nobody waits", ha="center", color="0.35")

    def _boxes(self) -> dict[_Box, list[str]]:
        """What is waited for, with its holders, and who waits for it."""
        holders: dict[tuple[str, str], list[str]] = {}
        for waiter, what, holder in dict.fromkeys(self.edges):  # bios may share a name
            holders.setdefault((waiter, what), []).append(holder)
        found: dict[_Box, list[str]] = {}
        for (waiter, what), names in holders.items():
            found.setdefault((what, tuple(filter(None, names))), []).append(waiter)
        return found

    def _place_boxes(self) -> dict[_Box, tuple[float, list[str]]]:
        """Each box's height on paper, near its threads, and who waits."""
        names = {box: (*box[1], *waiters) for box, waiters in self.boxes.items()}
        wanted = [sum(self._row(n).middle for n in each) / len(each) for each in names.values()]
        heights = [9.0 * len(_box_lines(box)) + 14 for box in self.boxes]
        top = max(row.top for row in self.rows.values())
        places = _spread(wanted, heights, self.bottom, top)
        return {
            box: (place, waiters)
            for place, (box, waiters) in zip(places, self.boxes.items(), strict=True)
        }

    def _arrow(
        self, start: tuple[float, float], end: tuple[float, float], *, width: float = 0.8,
        dashed: bool = False, colour: str = "black", size: float = 6,
    ) -> None:  # fmt: skip
        self.ax.add_patch(
            FancyArrowPatch(
                start, end, arrowstyle="-|>", mutation_scale=size + 1.5 * width, linewidth=width,
                linestyle=(0, (3, 1.5)) if dashed else "-", color=colour, shrinkA=0, shrinkB=0,
                zorder=3 + width / 10,
            )
        )  # fmt: skip

    # --- the foot --------------------------------------------------------------------------------

    def _legend(self, y: float) -> None:
        words = {
            "running": "in its section", "outside": "outside", "waiting": "waits",
            "asleep": "asleep", "idle": "idle", "done": "done",
        }  # fmt: skip
        present = set(self.lanes.intervals["activity"]) | {"outside"}
        x = _MARGIN
        for kind, text in words.items():
            if kind not in present:
                continue
            face, hatch = _FACES[kind]
            self.ax.add_patch(
                Rectangle((x, y - 4), 16, 8, facecolor=face, hatch=hatch, edgecolor="0.5",
                          linewidth=0.6)
            )  # fmt: skip
            self._write(x + 19, y, text)
            x += 26 + _wide(text, _FONT)
        self.ax.plot([x + 2], [y + 0.5], marker="v", color="black", markersize=3.2)
        self._write(x + 8, y, "fires this step")
        x += 16 + _wide("fires this step", _FONT)
        if len(self.lanes.hand_overs):
            self._arrow((x + 4, y + 5), (x + 4, y - 5), width=1.1, size=7)
            self._write(x + 10, y, "hands over")

    def _write(
        self, x: float, y: float, text: str, *, size: float = _FONT, ha: str = "left",
        **style: Any,  # noqa: ANN401
    ) -> None:  # fmt: skip
        text = text.replace("$", r"\$")
        self.ax.text(x, y, text, fontsize=size, ha=ha, va="center", **{"zorder": 5, **style})


def _joined(parts: Iterable[dict[Any, Any]], keys: Sequence[str]) -> Iterator[dict[Any, Any]]:
    """Neighbouring intervals that agree in these keys, as one."""
    current: dict[Any, Any] | None = None
    for part in parts:
        if current is not None and all(current[key] == part[key] for key in keys):
            current = current | {"end": part["end"]}
            continue
        if current is not None:
            yield current
        current = part
    if current is not None:
        yield current


def _spread(
    wanted: Sequence[float], heights: Sequence[float], low: float, high: float
) -> list[float]:
    """Places as near to the wanted ones as boxes of these heights stand apart, from the top."""
    order = sorted(range(len(wanted)), key=lambda k: -wanted[k])
    places = list(wanted)
    ceiling = high
    for k in order:
        places[k] = min(wanted[k], ceiling - heights[k] / 2)
        ceiling = places[k] - heights[k] / 2
    floor = low
    for k in reversed(order):
        places[k] = max(places[k], floor + heights[k] / 2)
        floor = places[k] + heights[k] / 2
    return places
