"""Work behind a panel: one job at a time, cancelled by the next one, by a button or an interrupt.

A job is a function of an event that tells it to stop. It runs in a thread of its own, so that the
kernel stays free; the compiled code lets go of the interpreter. Every job ends: at its goal, when
it is told to, or with the process (the threads are daemons, and what they write is written under
another name and renamed, so nothing is torn).

An interrupt of a busy kernel raises KeyboardInterrupt in the cell that runs, and an idle kernel
ignores it. Either way the jobs are told to stop, by the loop of the kernel.
"""

from __future__ import annotations

import asyncio
import atexit
import signal
import threading
import weakref
from collections.abc import Callable

from reservelab.solve.simulate import Cancelled

Job = Callable[[threading.Event], object]
_EVERY: weakref.WeakSet[Background] = weakref.WeakSet()
_SECONDS_TO_END = 5.0


class Background:
    """A place for one job at a time.

    Parameters
    ----------
    name : str
        Of its threads, for people.
    failed : callable
        Called, by the job's thread, with the exception of a job that was not told to stop.
    """

    def __init__(self, name: str, failed: Callable[[Exception], object]) -> None:
        self._name = name
        self._failed = failed
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop = running_loop()
        _EVERY.add(self)

    def start(self, job: Job) -> None:
        """Tell the job there is, if any, to stop, and begin another without waiting for it.

        Parameters
        ----------
        job : callable
            Called with the event that tells it to stop. It may raise `Cancelled` then.
        """
        with self._lock:
            self._stop.set()
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(job, self._stop), name=self._name, daemon=True
            )
            self._thread.start()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(_listen, self._loop)

    def _run(self, job: Job, stop: threading.Event) -> None:
        try:
            job(stop)
        except Cancelled:
            pass
        except Exception as error:
            # At the end of the process threads cannot be started any more; nobody looks at it.
            if not stop.is_set() and threading.main_thread().is_alive():
                self._failed(error)

    def cancel(self) -> None:
        """Tell the job to stop; it does so after the batch in hand."""
        self._stop.set()

    @property
    def running(self) -> bool:
        """Whether a job runs, told to stop or not."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the job.

        Parameters
        ----------
        timeout : float, optional
            Seconds, at the most.

        Returns
        -------
        bool
            Whether it has ended.
        """
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.running


def cancel_all() -> None:
    """Tell every job of this process to stop."""
    for each in list(_EVERY):
        each.cancel()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Find the loop of the kernel this is called in.

    Returns
    -------
    AbstractEventLoop or None
        None in a script.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _listen(loop: asyncio.AbstractEventLoop) -> None:
    """Have interrupts cancel the jobs, where they would be ignored, as in an idle kernel."""
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGINT, cancel_all)
    elif handler is signal.default_int_handler:
        # A cell runs, and the kernel will put back what was there before it.
        loop.call_later(0.1, _listen, loop)


@atexit.register
def _end() -> None:
    cancel_all()
    for each in list(_EVERY):
        each.wait(_SECONDS_TO_END)
