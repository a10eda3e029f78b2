"""A figure on a notebook's page that is drawn anew while results arrive.

Drawing takes a third of a second, so a thread does it and the kernel stays free. But matplotlib's
settings are the whole process's: two figures drawn at the same time would change each other's
style, and the settings for good. So one figure is drawn at a time, and none while a cell runs: a
cell that is started waits for the figure in hand.

The figure is in an HTML widget and not in an Image, since that one has no words for those who do
not see it.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable

import ipywidgets as widgets
from IPython.core.getipython import get_ipython
from matplotlib.figure import Figure

from reservelab.show import controls, figures
from reservelab.show.background import Background

_Wanted = tuple[Callable[[], Figure], str]
_DRAWING = threading.RLock()
_CELLS: list[int] = []  # one for each cell that has begun and not ended
_REST_AT_MOST = 2.0  # seconds


class Picture:
    """A widget that shows the newest of the figures asked for.

    Parameters
    ----------
    test_id : str
        Names it for whoever reads the page.
    alternative : str
        What is to be seen, in words, for those who do not see it.
    failed : callable
        Called with the exception of a figure that could not be drawn.
    rest : float
        Between two figures, times what the last one took: what is drawn for is what is computed.
        0 for a figure of something that is not being computed.
    """

    def __init__(
        self,
        test_id: str,
        alternative: str,
        failed: Callable[[Exception], object],
        rest: float = 3.0,
    ) -> None:
        self._rest = rest
        self.widget = widgets.HTML()
        self._words = (controls.escape(test_id), controls.escape(alternative))
        self._lock = threading.Lock()
        self._make: _Wanted | None = None
        self._expected = False
        self._failed = failed
        self._background = Background("figure", failed)
        self._in_kernel = _take_turns_with_cells()

    def draw(self, make: Callable[[], Figure], after: float = 0.0, of: str = "") -> None:
        """Draw a figure soon; one asked for before and not drawn yet is forgotten.

        Parameters
        ----------
        make : callable
            Makes the figure.
        after : float
            Seconds to wait. In a script, which has no cells, nothing is drawn before `settle`.
        of : str
            What it is a figure of, as a ``data-of`` attribute.
        """
        with self._lock:
            self._make = make, of
            if self._expected or not self._in_kernel:
                return
            self._expected = True
        self._background.start(lambda stop: self._draw_all(after, stop))

    def forget(self) -> None:
        """Do not draw what was asked for and is not drawn yet."""
        with self._lock:
            self._make = None

    def settle(self) -> None:
        """Draw what was asked for and is not drawn yet, here and now."""
        with self._lock:
            make, self._make = self._make, None
        if make is not None:
            self._draw(make)

    def _draw_all(self, after: float, stop: threading.Event) -> None:
        rest = after
        while True:
            stopped = stop.wait(rest)
            with self._lock:
                make, self._make = self._make, None
                if stopped or make is None:
                    # Under the lock: whoever asks from now on has to start another thread.
                    self._expected = False
                    return
            began = time.monotonic()
            try:
                self._draw(make)
            except Exception as error:
                self._failed(error)
            rest = min(self._rest * (time.monotonic() - began), _REST_AT_MOST)

    def _draw(self, wanted: _Wanted) -> None:
        make, of = wanted
        with _DRAWING:
            picture = base64.b64encode(figures.png(make())).decode("ascii")
        test_id, alternative = self._words
        self.widget.value = (
            f'<img data-testid="{test_id}" data-of="{controls.escape(of)}" alt="{alternative}"'
            ' style="max-width: 100%"'
            f' src="data:image/png;base64,{picture}">'
        )


def _take_turns_with_cells() -> bool:
    """Keep cells and figures apart; returns whether there are cells at all."""
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return False
    if _begin_cell not in shell.events.callbacks["pre_run_cell"]:
        shell.events.register("pre_run_cell", _begin_cell)
        shell.events.register("post_run_cell", _end_cell)
        # The cell that makes the first picture is running already.
        _begin_cell()
    return True


def _begin_cell(*_: object) -> None:
    _DRAWING.acquire()
    _CELLS.append(1)


def _end_cell(*_: object) -> None:
    # An empty cell ends without having begun; a cell may run another one.
    if _CELLS:
        _CELLS.pop()
        _DRAWING.release()
