"""What the command line says: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from reservelab.study.sweep import Progress

STARTING = "starting (the first time: compiling)"


def complain(line: str) -> int:
    """Say in one line what is wrong; return the exit code for that."""
    tell(f"reservelab: {' '.join(line.split())}")
    return 2


def tell(line: str) -> None:
    """Print a line on standard error, where there is one."""
    if sys.stderr is not None:  # print would take None for standard output
        print(line, file=sys.stderr)


class Warnings:
    """Shows each of the package's warnings once, in one line; none if all ends as bad input."""

    def __init__(self, usual: Callable[..., None]) -> None:
        self._usual = usual
        self._held: dict[str, bool] = {}  # whether a line was shown

    def __call__(
        self, message: Warning | str, category: type[Warning], *where: Any, **more: Any  # noqa: ANN401
    ) -> None:  # fmt: skip
        """Hold a warning of the package back; show others as usual."""
        if issubclass(category, UserWarning):
            self._held.setdefault(" ".join(str(message).split()), False)
        else:
            self._usual(message, category, *where, **more)

    def release(self) -> None:
        """Show what was held back and not shown before."""
        for line, shown in self._held.items():
            if not shown:
                tell(f"warning: {line}")
        self._held = dict.fromkeys(self._held, True)


class Bar:
    """Progress with the time left, drawn on standard error if that is a terminal.

    A context manager; the first call of `add` or `follow` lets go the warnings held back.
    """

    def __init__(self, held: Warnings) -> None:
        self._held = held
        self._tqdm: Any = None

    def __call__(self, words: str, total: int | None = None, unit: str = "") -> Bar:
        """Set what is said before the first progress, what is counted and how many there are."""
        from tqdm import tqdm

        shape = None  # tqdm's own, which counts and guesses the time left
        if not unit:
            shape = "{desc}" if total is None else "{percentage:3.0f}%|{bar:20}| {desc}"
        terminal = sys.stderr is not None and sys.stderr.isatty()
        # A terminal that does not know its size says 0, and tqdm would fit the bar into that.
        columns, lines = os.get_terminal_size(sys.stderr.fileno()) if terminal else (0, 0)
        self._tqdm = tqdm(
            desc=words,
            total=total,
            unit=f" {unit}",
            bar_format=shape,
            ncols=columns or 80,
            nrows=lines or 24,
            leave=False,
            disable=not terminal,
        )
        return self

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._tqdm.close()

    def add(self, done: int) -> None:
        """Count on."""
        self._release()
        if not self._tqdm.n:
            self._tqdm.set_description_str("", refresh=False)
            self._tqdm.unpause()  # the time left is guessed without the time for compiling
        self._tqdm.update(done)

    def count(self, done: int, total: int) -> None:
        """Count up to what is done, of what there is."""
        self._tqdm.total = total
        self.add(done - self._tqdm.n)

    def follow(self, progress: Progress) -> None:
        """Show how far a sweep is, by its own estimate of the time left."""
        self._release()
        self._tqdm.n, self._tqdm.total = progress.done, progress.total
        if progress.eta is not None:
            minutes, seconds = divmod(round(progress.eta), 60)
            self._tqdm.set_description_str(
                f"{progress.scenarios_done} of {progress.scenarios} scenarios,"
                f" {progress.done} of {progress.total} batches, {minutes}:{seconds:02} left",
                refresh=False,
            )
        self._tqdm.refresh()

    def stage(self, words: str, done: int, total: int) -> None:
        """Show what is being done, and how much of it is done."""
        self._tqdm.set_description_str(words, refresh=False)
        self._tqdm.n, self._tqdm.total = done, total
        self._tqdm.refresh()

    def explore(self, processed: int, found: int) -> None:
        """Show how many states there are so far; nobody knows how many there will be."""
        self._release()
        self._tqdm.set_description_str(f"{processed} of {found} states so far")

    def _release(self) -> None:
        self._tqdm.clear()
        self._held.release()


def print_json(document: Mapping[str, Any]) -> None:
    """Print a result as one JSON document."""
    print(json.dumps(_plain(document), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever stands in a result
    """A result as JSON can hold it; a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # numpy's numbers
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def records(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    """The rows of a frame as dictionaries."""
    return frame.to_dict("records")
