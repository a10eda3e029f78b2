"""The decision panel: the risk one can live with goes in, reserves and their price come out."""

from __future__ import annotations

import math
import threading
from functools import partial
from pathlib import Path

import ipywidgets as widgets
import pandas as pd

from reservelab.model.errors import BadInput
from reservelab.model.interval import Interval
from reservelab.show import controls, figures
from reservelab.show.cells import glyphs, mixes
from reservelab.show.panel import Panel
from reservelab.show.sweep_panel import SweepPanel
from reservelab.show.text import number
from reservelab.study.decision import decide
from reservelab.study.fits import Fits, fit
from reservelab.study.results import Store

_HEAD = (
    '<thead><tr><th scope="col" class="rl-text">scheme</th><th scope="col">smallest reserve</th>'
    '<th scope="col">95 %</th><th scope="col">idle pages</th><th scope="col">95 %</th>'
    '<th scope="col">throughput lost, %</th><th scope="col">95 %</th>'
    '<th scope="col" class="rl-text">from</th></tr></thead>'
)


class DecisionPanel(Panel):
    """The smallest reserve of each scheme for a wanted risk, with its costs; shown as a widget.

    Parameters
    ----------
    table : DataFrame or Store or str or Path or SweepPanel
        What was swept; of a panel what it has when "Fit again" is pressed.
    risk : float
        Wanted probability of deadlock per episode, at the start.
    fits : Fits, optional
        What `fit` made of the table; made in the background unless given.

    Raises
    ------
    BadInput
        If the table is not one, or has no rows.
    """

    def __init__(
        self,
        table: pd.DataFrame | Store | str | Path | SweepPanel,
        risk: float = 0.01,
        fits: Fits | None = None,
    ) -> None:
        super().__init__(
            "decision-status", "decision-figure",
            "Deadlock probability against idle pages and against throughput, for every cell of the"
            " mix; filled markers are on the front.",
        )  # fmt: skip
        self._table = table
        self.fits = fits
        self._frame = self._read()
        self._fitter = self._job("decision panel")
        threads = sorted(int(n) for n in self._frame["threads"].unique())
        self.risk = controls.power("wanted risk", risk, -6, -0.1, "of a deadlock, per episode")
        self.mix = controls.choice("mix", mixes(self._frame), mixes(self._frame)[0])
        self.threads = controls.slider(
            "threads", threads[len(threads) // 2], threads[0], threads[-1], "flushers"
        )
        rules = sorted(self._frame["waiting"].unique())
        self.waiting = controls.choice("waiting rule", rules, rules[0])
        self.again_button = controls.button(
            "Fit again", "read the table anew and fit it", self.fit
        )
        self.status = self._status
        self.answers = widgets.HTML(layout=widgets.Layout(width="100%", overflow="auto"))
        self.widget = widgets.VBox([
            controls.row(
                controls.column(self.risk, self.threads), controls.column(self.mix, self.waiting)
            ),
            controls.row(self.again_button), self.status, self.answers, self.figure,
        ])  # fmt: skip
        for control in (self.risk, self.mix, self.threads, self.waiting):
            control.observe(self._changed, "value")
        if fits is None:
            self.fit()
        else:
            self._state = "done"
            self._changed()

    def _read(self) -> pd.DataFrame:
        table = self._table
        if isinstance(table, SweepPanel):
            frame = table.frame()
        elif isinstance(table, pd.DataFrame):
            frame = table
        else:
            frame = (table if isinstance(table, Store) else Store(table)).frame()
        if frame.empty:
            raise BadInput("table", "is empty", "sweep at least one cell")
        return frame

    def fit(self) -> None:
        """Read the table anew and fit it, in the background."""
        try:
            frame = self._read()
        except BadInput as error:
            self._failed(error)
            return
        with self._lock:
            self._frame, self.fits, self._state = frame, None, "fitting"
            self._say("fitting the table: some seconds for each scheme")
            self._fitter.start(partial(self._fit, frame))

    def _fit(self, frame: pd.DataFrame, stop: threading.Event) -> None:
        fits = fit(frame, quantities=("deadlock", "idle_mean", "throughput_lost"))
        if not stop.is_set():
            with self._lock:
                self.fits, self._state = fits, "done"
                self._changed()

    def frame(self) -> pd.DataFrame:
        """Return the answers to what the controls ask.

        Returns
        -------
        DataFrame
            As `decide` makes it.

        Raises
        ------
        BadInput
            If the table is not fitted yet, or does not speak about it.
        """
        with self._lock:
            if self.fits is None:
                raise BadInput("table", "is not fitted yet", "wait for it")
            return decide(
                self._frame, self.fits, self.risk.value, mix=self.mix.value,
                threads=self.threads.value, waiting=self.waiting.value,
            )  # fmt: skip

    # --- showing ---------------------------------------------------------------------------------

    def _changed(self, _: object = None) -> None:
        with self._lock:
            if self.fits is None:
                return
            try:
                answers = self.frame()
            except BadInput as error:
                self._say(str(error))
                return
            letters = glyphs(answers["variant"])
            body = "".join(_row(row, letters[row["variant"]]) for _, row in answers.iterrows())
            found = int((answers["source"] != "").sum())
            self._say(
                f"{found} of {len(answers)} schemes stay below a deadlock in"
                f" {self.risk.value:.3g} of the episodes; idle pages and throughput are at the"
                " upper end of the reserve's interval (from a fit, or from a cell that was swept)"
            )
            self.answers.value = controls.words(
                "decision-answers", f"<table>{_HEAD}<tbody>{body}</tbody></table>",
                risk=f"{self.risk.value:.6g}", threads=self.threads.value,
            )  # fmt: skip
            frame, mix, waiting = self._frame, self.mix.value, self.waiting.value
            shown = frame[(frame["mix"] == mix) & (frame["waiting"] == waiting)]
            self._picture.draw(partial(figures.front, shown), 0.3, of=mix)


def _row(row: pd.Series, letter: str) -> str:
    """A line of the table; a scheme without an answer says why."""
    name = f'<th scope="row" class="rl-text">{letter} {controls.escape(row["variant"])}</th>'
    mark = f'data-scheme="{controls.escape(row["variant"])}" data-source="{row["source"]}"'
    if not row["source"]:
        reason = controls.escape(row["reason"])
        return f'<tr {mark}>{name}<td class="rl-off" colspan="7">{reason}</td></tr>'
    reserve = [f"{row['reserve_best']:.0f}", _bounds(row, "reserve", ".0f")]
    if row["reserve_best"] < 0:
        reserve = ["none to size", ""]
    cells = [*reserve]
    for quantity, scale in (("idle", 1.0), ("lost", 100.0)):
        low, best, high = (scale * row[f"{quantity}_{end}"] for end in ("low", "best", "high"))
        cells += [number(Interval(low, best, high)), _bounds(row, quantity, ".4g", scale)]
    return (
        f"<tr {mark}>{name}"
        + "".join(f"<td>{controls.escape(cell)}</td>" for cell in cells)
        + f'<td class="rl-text">{row["source"]}</td></tr>'
    )


def _bounds(row: pd.Series, quantity: str, form: str, scale: float = 1.0) -> str:
    low, high = scale * row[f"{quantity}_low"], scale * row[f"{quantity}_high"]
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        return ""
    return f"{low:{form}}..{high:{form}}"
