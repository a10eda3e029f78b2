"""The sweep panel: a grid is put together, swept in the background, fitted, drawn and exported.

What is swept is kept in a store, so a sweep that was cancelled, or whose kernel was shut down, goes
on from there when it is run again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from reservelab.model import catalogue
from reservelab.model.catalogue import Stack
from reservelab.model.errors import BadInput
from reservelab.model.filesystems import Filesystem
from reservelab.model.machine import Machine
from reservelab.model.mixes import Mix
from reservelab.model.scenario import Scenario
from reservelab.model.schemes import Scheme, variants
from reservelab.show import controls, figures
from reservelab.show.panel import Panel
from reservelab.solve.simulate import Cancelled
from reservelab.solve.tally import Tally
from reservelab.study.fits import Fits, fit
from reservelab.study.grid import Grid
from reservelab.study.sweep import Episodes, Progress, sweep

_FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "risk against threads": figures.risk_against_threads,
    "risk against reserve": figures.risk_against_reserve,
    "idle pages against threads": figures.idle_against_threads,
    "risk, waste and speed": figures.front,
    "what the dead waited for": figures.dead,
}
_BOTH = "asleep, racing"


class SweepPanel(Panel):
    """A grid of scenarios with controls for its axes, swept in the background; shown as a widget.

    Parameters
    ----------
    schemes : sequence of (Scheme or str)
        Schemes of one's own, beside the named ones.
    filesystems : sequence of Filesystem
        Filesystems of one's own, beside the catalogue's mixes and stacks.
    only : sequence of str, optional
        Full names of the schemes that are ticked at the start; all unless given.
    mixes : sequence of (str or Mix), optional
        Mixes ticked at the start, or further ones; one's own filesystems, or else
        ``desktop_2004``, unless given.
    threads : sequence of int
        Flushers at the start.
    reserve : sequence of (int or str)
        Reserves at the start: pages, or multiples of the largest section ("need", "2*need").
    machine : str or int
        A machine of the catalogue, or pages.
    quota : int
        Writepages of each thread.
    waiting : str
        ``asleep``, ``racing``, or both with a comma between.
    episodes : int
        Of every scenario.
    store : str or Path
        Directory to keep the results in; empty keeps them in memory only.
    seed : int
        Names the streams.
    workers : int, optional
        Threads of ours; the processors there are unless given.

    Raises
    ------
    BadInput
        If a scheme, mix or machine is unknown.
    """

    def __init__(
        self,
        schemes: Sequence[Scheme | str] = (),
        filesystems: Sequence[Filesystem] = (),
        *,
        only: Sequence[str] | None = None,
        mixes: Sequence[str | Mix] | None = None,
        threads: Sequence[int] = (4, 8, 16, 32),
        reserve: Sequence[int | str] = ("need", 16, 32, 64),
        machine: str | int = "2.6.9-64MB",
        quota: int = 10,
        waiting: str = "asleep",
        episodes: int = 1_000,
        store: str | Path = "results/sweep_panel",
        seed: int = 1,
        workers: int | None = None,
    ) -> None:
        super().__init__(
            "sweep-status", "sweep-figure", "The figure chosen above, of the cells swept so far."
        )
        own = [Scheme.unsized(s) if isinstance(s, str) else s for s in schemes]
        every = [*(Scheme.unsized(name) for name in variants()), *own]
        self._schemes = {scheme.variant: scheme for scheme in every}
        self._mixes: dict[str, Any] = {
            **{name: name for name in (*catalogue.mixes, *catalogue.stacks)},
            **{fs.name: fs for fs in filesystems},
        }
        start = [fs.name for fs in filesystems] or ["desktop_2004"]
        for mix in mixes or ():
            self._mixes[mix if isinstance(mix, str) else mix.name] = mix
        if mixes is not None:
            start = [mix if isinstance(mix, str) else mix.name for mix in mixes]
        self._seed, self._workers = seed, workers
        self._parts: dict[str, list[Tally]] = {}
        self._order: list[str] = []
        self.fits: Fits | None = None
        self._sweeper = self._job("sweep panel")
        self._fitter = self._job("sweep panel, fit")
        pages = machine if isinstance(machine, int) else catalogue.machines[machine].machine.pages

        self.threads = controls.line("threads", _listed(threads), "flushers: 4, 8, 16")
        self.reserve = controls.line("reserve", _listed(reserve), "pages: 16, 32, need, 2*need")
        self.pages = controls.line("pages", str(pages), "free at the start: 128, 256")
        self.quota = controls.line("quota", str(quota), "writepages of each thread: 10")
        self.waiting = controls.choice("waiting rule", ["asleep", "racing", _BOTH], waiting)
        self.episodes = controls.number("episodes", episodes, 1, 10_000_000, "of every scenario")
        self.store = controls.line("store", str(store), "a directory; empty: in memory only")
        self.figure_kind = controls.choice("figure", list(_FIGURES), "risk against threads")
        self.mixes = controls.ticks(self._mixes, start)
        self.schemes = controls.ticks(self._schemes, only)
        self.mix_toggle, mix_box = controls.drawer("Mixes and stacks", list(self.mixes.values()))
        self.scheme_toggle, scheme_box = controls.drawer("Schemes", list(self.schemes.values()))
        self.run_button = controls.button(
            "Run or resume", "sweep what the store has not got yet", self.run, icon="play"
        )
        self.cancel_button = controls.button(
            "Cancel", "stop; what is done is kept", self.cancel, icon="stop", disabled=True
        )
        self.fit_button = controls.button("Fit", "fit what was swept", self.fit)
        self.export_button = controls.button(
            "Export", "write the grid as TOML, for a script", self.export
        )
        self.grid_file = controls.line("grid file", "results/grid.toml", "where Export writes to")
        self.progress = widgets.IntProgress(
            description="progress", layout=widgets.Layout(width="390px"),
            style={"description_width": "130px"},
        )  # fmt: skip
        self.status = self._status
        self.result = widgets.HTML(layout=widgets.Layout(width="100%", overflow="auto"))
        self.widget = widgets.VBox([
            controls.row(
                controls.column(self.threads, self.reserve, self.pages, self.quota),
                controls.column(self.waiting, self.episodes, self.store, self.grid_file),
            ),
            controls.row(self.mix_toggle, self.scheme_toggle),
            mix_box, scheme_box,
            controls.row(self.run_button, self.cancel_button, self.fit_button,
                         self.export_button, self.progress),
            self.status, self.figure_kind, self.figure, self.result,
        ])  # fmt: skip
        self.figure_kind.observe(lambda _: self._draw(), "value")
        self._say("nothing swept yet")

    # --- the grid --------------------------------------------------------------------------------

    def grid(self) -> Grid:
        """Put the grid together that the controls describe.

        Returns
        -------
        Grid
            The grid.

        Raises
        ------
        BadInput
            If something in it is wrong.
        """
        schemes = [s for name, s in self._schemes.items() if self.schemes[name].value]
        mixes = [m for name, m in self._mixes.items() if self.mixes[name].value]
        for key, chosen in (("schemes", schemes), ("mixes", mixes)):
            if not chosen:
                raise BadInput(key, "none is ticked", "tick at least one")
        # Named schemes by name, so that a file says what a person would write.
        named = {name: name for name in variants()}
        axes: dict[str, Sequence[Any]] = {
            "scheme": [named.get(scheme.variant, scheme) for scheme in schemes],
            "mix": mixes,
            "threads": _values("threads", self.threads.value),
            "pages": _values("pages", self.pages.value),
            "quota": _values("quota", self.quota.value),
            "waiting": self.waiting.value.split(", "),
        }
        reserves = _values("reserve", self.reserve.value)
        if reserves and any(scheme.has_reserve for scheme in schemes):
            axes["reserve"] = reserves
        first = axes["mix"][0]
        known: Any = catalogue.mixes if first in catalogue.mixes else catalogue.stacks
        mix: Any = known[first] if isinstance(first, str) else first
        mix = Mix({mix: 1.0}) if isinstance(mix, Filesystem) else mix
        assert isinstance(mix, (Mix, Stack))
        base = Scenario(Machine(pages=2**20), mix.mounts(1), Scheme.unsized("watermark"))
        return Grid(base, axes, "sweep panel")

    def export(self) -> None:
        """Write the grid to a file that `reservelab sweep` reads, and show it."""
        try:
            text = self.grid().toml()
            path = Path(self.grid_file.value)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except (BadInput, OSError) as error:
            self._say(str(error))
            return
        command = f"reservelab sweep {path} --episodes {self.episodes.value}"
        self.result.value = controls.words(
            "sweep-export",
            f"<p>written to {controls.escape(path)}; in a shell:"
            f" <code>{controls.escape(command)}</code></p><pre>{controls.escape(text)}</pre>",
        )

    # --- running ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Sweep the grid in the background; what the store has is not run again."""
        try:
            grid, goal = self.grid(), Episodes(self.episodes.value)
        except BadInput as error:
            self._say(str(error))
            return
        with self._lock:
            if self._sweeper.running:
                self._say("a sweep is running: cancel it first")
                return
            self._parts, self._notes, self.fits = {}, [], None
            self._order = [scenario.digest for scenario in grid.scenarios()]
            self._state = "running"
            self.run_button.disabled, self.cancel_button.disabled = True, False
            self.result.value = ""
            self._say("starting")
            store = self.store.value.strip() or None
            self._sweeper.start(lambda stop: self._sweep(grid, goal, store, stop))

    def _sweep(self, grid: Grid, goal: Episodes, store: str | None, stop: threading.Event) -> None:
        try:
            sweep(
                grid, goal, store, self._seed, self._workers, progress=self._follow, stop=stop,
                arrived=self._take, warn=self._notes.append,
            )  # fmt: skip
        except Cancelled:
            kept = f"; {store} keeps what is done, Run goes on from there" if store else ""
            self._end("cancelled", f"cancelled{kept}")
        else:
            self._end("done", "done")

    def _take(self, tally: Tally) -> None:
        with self._lock:
            self._parts.setdefault(tally.scenario.digest, []).append(tally)

    def _follow(self, progress: Progress) -> None:
        self.progress.max = max(1, progress.total)
        self.progress.value = progress.done
        left = "" if progress.eta is None else f", about {_duration(progress.eta)} left"
        found = f", {progress.found} batches were in the store" if progress.found else ""
        self._say(
            f"{progress.scenarios_done} of {progress.scenarios} scenarios,"
            f" {progress.episodes:,} episodes{left}{found}"
        )
        self._draw()

    def _end(self, state: str, text: str) -> None:
        with self._lock:
            self._state = state
            self.run_button.disabled, self.cancel_button.disabled = False, True
            frame = self.frame()
            self._say(f"{text}: {len(frame)} of {len(self._order)} scenarios have episodes")
            self._draw()

    def frame(self) -> pd.DataFrame:
        """Return what is swept so far.

        Returns
        -------
        DataFrame
            The tidy frame, a row for each scenario of which there are episodes.
        """
        with self._lock:
            for digest, parts in self._parts.items():
                self._parts[digest] = [Tally.merge(parts)]
            known = [self._parts[digest][0] for digest in self._order if digest in self._parts]
        return pd.DataFrame([tally.row() for tally in known])

    # --- fitting and showing ---------------------------------------------------------------------

    def fit(self) -> None:
        """Fit what is swept so far, in the background."""
        frame = self.frame()
        if frame.empty:
            self._say("nothing to fit yet: run a sweep first")
            return
        self.result.value = controls.words("sweep-fits", "<p>fitting ...</p>", state="running")
        self._fitter.start(partial(self._fit, frame))

    def _fit(self, frame: pd.DataFrame, stop: threading.Event) -> None:
        fits = fit(frame)
        if not stop.is_set():
            self.fits = fits
            text = f"<pre>{controls.escape(fits)}</pre>"
            self.result.value = controls.words("sweep-fits", text, state="done")

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self.run_button.disabled, self.cancel_button.disabled = False, True
            super()._failed(error)

    def _say(self, text: str, **data: object) -> None:
        super()._say(text, scenarios=len(self._order), done=self.progress.value, **data)

    def _draw(self) -> None:
        if self._parts:
            kind = self.figure_kind.value
            self._picture.draw(
                lambda: _FIGURES[kind](self.frame()), of=f"{kind}, {self._state}"
            )


def _listed(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)


def _values(key: str, text: str) -> list[int | str]:
    """What is written between commas; whether it is right is the grid's business."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise BadInput(key, "is empty", "write numbers with commas between")
    return [int(word) if word.isdigit() else word for word in words]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
