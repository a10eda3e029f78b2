"""The swim-lanes of an episode or of a path into a deadlock: a lane for each thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from reservelab.model.errors import BadInput
from reservelab.model.plain_text import WIDTH, plain, wrap
from reservelab.show.lanes import Lanes, lanes
from reservelab.show.text.words import flow, joined
from reservelab.solve.prove import Proof
from reservelab.solve.trace import Story

_FILL = {"running": "-", "waiting": "?", "asleep": "z", "idle": " ", "done": " "}
_WIDEST = 6  # columns of a state


def swim_lanes(told: Story | Proof | Lanes, last: int | None = None) -> str:
    """Draw what every thread has and does, step by step, from left to right.

    Parameters
    ----------
    told : Story, Proof or Lanes
        What `trace`, `prove` or `show.lanes.lanes` returned.
    last : int, optional
        Only so many of the last states.

    Returns
    -------
    str
        Lines of at most 72 ASCII characters; what does not fit beside it stands below.

    Raises
    ------
    BadInput
        If it is a certificate, or `last` is below 1.
    """
    if last is not None and last < 1:
        raise BadInput("last", f"{last} is too few", "give at least 1")
    shown = told if isinstance(told, Lanes) else lanes(told)
    story = shown.story
    first = 0 if last is None else max(0, shown.states - last)
    letters = _lock_letters(shown.intervals)
    labels = [_label(row, letters) for row in shown.intervals.to_dict("records")]
    rows = shown.intervals.assign(label=labels)
    numbers = _numbers(shown)
    side = max(map(len, [*numbers, "step", str(len(story.threads) - 1)])) + 1
    wide = _width(rows, numbers, first, shown.states, WIDTH - side)
    each = (WIDTH - side) // wide
    lines = wrap(f"{story.scenario.scheme.variant}, waiting {story.scenario.waiting}:"
                 f" {story.ending} after {shown.states - 1} steps")  # fmt: skip
    lines += flow(f"{i} {name}" for i, name in enumerate(story.threads))
    signs = ["n pages held", "+n reserved or claimed", "S the semaphore"]
    signs += [f"{letter} lock {name}" for name, letter in letters.items()]
    used = set("".join(labels))
    signs = [text for text in signs if text[0] in used or text[0] == "n"]
    lines += flow([*signs, "= inside", "- outside", "? waits", "z asleep"])
    for start in range(first, shown.states, each):
        lines += ["", *_block(rows, numbers, start, min(start + each, shown.states), side, wide)]
        if start <= shown.closed < start + each:
            lines.append(" " * (side + (shown.closed - start) * wide) + "^")
    if shown.closed >= 0:
        at = {name: str(i) for i, name in enumerate(story.threads)}
        chain = [f"{at.get(w.waiter, w.waiter)} -> {w.what}" for w in story.cycle]
        chain.append(at.get(story.cycle[0].waiter, story.cycle[0].waiter))
        lines += wrap(f"^ the cycle closes: {' -> '.join(chain)}", "  ")
    return joined(lines)


def _lock_letters(intervals: pd.DataFrame) -> dict[str, str]:
    """A letter for each lock that anybody owns: its first one, or else one that is free."""
    names = sorted({n for text in intervals["locks"] for n in text.split(", ") if n})
    letters: dict[str, str] = {}
    for name in names:
        wanted = [c for c in (*plain(name).lower(), *"abcdefghijklmnopqrstuvwxy") if c.isalpha()]
        taken = {*letters.values(), "z"}
        letters[name] = next((c for c in wanted if c not in taken), "*")
    return letters


def _label(row: Mapping[Any, Any], letters: dict[str, str]) -> str:
    """What a thread has: written where an interval begins."""
    aside = row["own"] + row["claim"]
    label = str(row["held"]) if row["held"] or row["inside"] else ""
    label += f"+{aside}" if aside else ""
    label += "S" if row["semaphore"] else ""
    return label + "".join(letters[name] for name in row["locks"].split(", ") if name)


def _numbers(shown: Lanes) -> dict[str, list[int]]:
    """The rows of numbers below the lanes: those that say something in this scenario."""
    names = ["free"]
    if shown.story.scenario.scheme.start in ("pool", "mount_pools"):
        names.append("pool")
    if any(mount.dirtiers for mount in shown.story.scenario.mounts):
        names.append("dirty")
    if shown.steps["bios"].any():
        names.append("bios")
    return {name: shown.steps[name].tolist() for name in names}


def _width(
    rows: pd.DataFrame, numbers: dict[str, list[int]], first: int, end: int, room: int
) -> int:
    """Columns of a state: as many as everything needs, more if all states then fit."""
    needs = [2, len(str(end - 1)) + 1]
    needs += [len(str(value)) + 1 for row in numbers.values() for value in row[first:]]
    shown = rows[rows["end"] > first]
    needs += [
        # One sign of what it does stands behind what it has.
        -(-(len(label) + 1) // (stop - max(start, first)))
        for label, start, stop in zip(shown["label"], shown["start"], shown["end"], strict=True)
    ]
    return min(max(max(needs), min(_WIDEST, room // (end - first))), room)


def _block(
    rows: pd.DataFrame, numbers: dict[str, list[int]], start: int, end: int, side: int, wide: int
) -> Iterator[str]:
    """The states from `start` to `end`."""
    steps = "".join(str(k).ljust(wide) for k in range(start, end))
    yield "step".ljust(side) + steps
    for thread, part in rows.groupby("thread"):
        lane = ""
        for row in part.to_dict("records"):
            states = min(row["end"], end) - max(row["start"], start)
            if states > 0:
                inside = row["inside"] and row["activity"] == "running"
                fill = "=" if inside else _FILL[row["activity"]]
                lane += row["label"].ljust(states * wide, fill)[: states * wide]
        yield str(thread).ljust(side) + lane
    for name, values in numbers.items():
        yield name.ljust(side) + _changes(values[start:end], wide)


def _changes(values: Sequence[int], wide: int) -> str:
    """Numbers where they change."""
    texts = [
        str(value) if k == 0 or value != values[k - 1] else "" for k, value in enumerate(values)
    ]
    return "".join(text.ljust(wide) for text in texts)
