"""What live panels have in common: jobs in the background, a line that tells of them, a figure."""

from __future__ import annotations

import threading

import ipywidgets as widgets

from reservelab.model.errors import BadInput
from reservelab.show import controls
from reservelab.show.background import Background
from reservelab.show.picture import Picture


class Panel:
    """A widget with work behind it.

    Parameters
    ----------
    status, figure : str
        Test ids of the line that says how the work stands, and of the figure.
    alternative : str
        What the figure shows, in words, for those who do not see it.
    """

    widget: controls.Widget

    def __init__(self, status: str, figure: str, alternative: str) -> None:
        self._lock = threading.RLock()
        self._state = "idle"
        self._notes: list[str] = []
        self._jobs: list[Background] = []
        self._status_id = status
        self._status = widgets.HTML()
        self._picture = Picture(figure, alternative, self._failed)
        self.figure = self._picture.widget

    def _job(self, name: str) -> Background:
        """A place for one more job, cancelled and waited for with the others."""
        self._jobs.append(Background(name, self._failed))
        return self._jobs[-1]

    def cancel(self) -> None:
        """Stop what runs; what it found out stays."""
        for job in self._jobs:
            job.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of what runs, and draw the figure.

        Parameters
        ----------
        timeout : float, optional
            Seconds for each of its jobs, at the most.

        Returns
        -------
        bool
            Whether they have ended.
        """
        ended = all(job.wait(timeout) for job in self._jobs)
        self._picture.settle()
        return ended

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._state = "failed"
            self._say(f"failed: {error}" if isinstance(error, BadInput) else f"failed: {error!r}")

    def _say(self, text: str, **data: object) -> None:
        notes = "".join(f"<p>note: {controls.escape(note)}</p>" for note in self._notes)
        self._status.value = controls.words(
            self._status_id, f'<p role="status">{controls.escape(text)}</p>{notes}',
            state=self._state, **data,
        )  # fmt: skip

    def _repr_mimebundle_(self, **options: object) -> object:
        return self.widget._repr_mimebundle_(**options)
