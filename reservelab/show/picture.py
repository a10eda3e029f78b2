"""A figure on a notebook's page that is drawn anew while results arrive.

matplotlib's settings are the whole process's, so a figure that a background thread drew could take
on, or change, the style of a figure drawn in a cell. The kernel's own thread draws, therefore,
between two cells, and never for more than a quarter of the time, so that the kernel stays free.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import ipywidgets as widgets
from matplotlib.figure import Figure

from reservelab.show import figures
from reservelab.show.background import running_loop

_DRAWING = threading.Lock()
_REST = 3.0  # times the last drawing, before the next one


class Picture:
    """An image widget that shows the newest of the figures asked for.

    Parameters
    ----------
    alternative : str
        What is to be seen, in words, for those who do not see it.
    """

    def __init__(self, alternative: str) -> None:
        self.widget = widgets.Image(
            format="png", tooltip=alternative, layout=widgets.Layout(max_width="100%")
        )
        self.widget.layout.display = "none"
        self._lock = threading.Lock()
        self._make: Callable[[], Figure] | None = None
        self._expected = False
        self._free_at = 0.0
        self._loop = running_loop()

    def draw(self, make: Callable[[], Figure], after: float = 0.0) -> None:
        """Draw a figure soon; one asked for before and not drawn yet is forgotten.

        Parameters
        ----------
        make : callable
            Makes the figure.
        after : float
            Seconds to wait. In a script, which has no loop, nothing is drawn before `settle`.
        """
        with self._lock:
            self._make = make
            if self._loop is None or self._loop.is_closed() or self._expected:
                return
            self._expected = True
        delay = max(after, self._free_at - time.monotonic())
        self._loop.call_soon_threadsafe(self._loop.call_later, delay, self._draw)

    def forget(self) -> None:
        """Do not draw what was asked for and is not drawn yet."""
        with self._lock:
            self._make = None

    def settle(self) -> None:
        """Draw now what was asked for; call it from the kernel's own thread only."""
        self._draw()

    def _draw(self) -> None:
        with self._lock:
            make, self._make = self._make, None
            self._expected = False
        if make is None:
            return
        began = time.monotonic()
        with _DRAWING:
            self.widget.value = figures.png(make())
        self.widget.layout.display = ""
        now = time.monotonic()
        self._free_at = now + _REST * (now - began)
