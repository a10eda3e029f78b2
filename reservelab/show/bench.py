"""The bench: one setting of machine and writers, every scheme side by side, while it is being run.

A change of any control makes a new run; the one before is dropped, but not what it found out: a
setting that was run before shows its numbers at once. Numbers come first, the figure follows, and
exact values where the states are few enough to be counted.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ipywidgets as widgets
import pandas as pd

from reservelab.model import catalogue
from reservelab.model.errors import BadInput
from reservelab.model.filesystems import Filesystem
from reservelab.model.machine import Machine
from reservelab.model.mixes import Mix
from reservelab.model.scenario import Mount, Scenario
from reservelab.model.schemes import Scheme, variants
from reservelab.show import controls, figures
from reservelab.show.cells import REASON_NAMES, dead_shares, glyphs, interval
from reservelab.show.panel import Panel
from reservelab.show.text import number, per_cent, risk
from reservelab.solve.exact import Exact, exact
from reservelab.solve.simulate import Cancelled
from reservelab.solve.states import TooManyStates
from reservelab.solve.tally import Tally
from reservelab.study.sweep import Goal, Precision, compare

_SECONDS_BETWEEN_NUMBERS = 0.25
_SECONDS_BEFORE_FIGURE = 0.3  # a slider that is moved on at once should not wait for it
_ROWS_REMEMBERED = 60_000  # batches, about 1.5 kB each
_OWN = "other"
_GOALS: dict[str, Goal] = {
    "rough: 20 % or 0.005": Precision(relative=0.2, absolute=0.005, at_most=4_000),
    "good: 10 % or 0.001": Precision(relative=0.1, absolute=0.001, at_most=20_000),
    "fine: 3 % or 0.0003": Precision(relative=0.03, absolute=0.0003, at_most=200_000),
}

_HEAD = (
    '<thead><tr><th scope="col" class="rl-text">scheme</th><th scope="col">deadlock risk'
    '</th><th scope="col">95 %</th><th scope="col">exact</th><th scope="col">idle pages</th>'
    '<th scope="col">through&shy;put</th><th scope="col" class="rl-text">the dead waited for</th>'
    '<th scope="col">episodes</th></tr></thead>'
)


@dataclass(frozen=True)
class _Entry:
    """A scheme on the bench: its scenario, or why there is none."""

    name: str
    scenario: Scenario | None
    problem: str = ""


class _Memory:
    """What was run, by digest; the settings longest not looked at are forgotten first."""

    def __init__(self) -> None:
        self._parts: OrderedDict[str, list[Tally]] = OrderedDict()
        self._lock = threading.Lock()
        self._rows = 0

    def add(self, tally: Tally) -> None:
        with self._lock:
            self._parts.setdefault(tally.scenario.digest, []).append(tally)
            self._rows += len(tally.keys)
            while self._rows > _ROWS_REMEMBERED and len(self._parts) > 1:
                _, oldest = self._parts.popitem(last=False)
                self._rows -= sum(len(part.keys) for part in oldest)

    def get(self, digest: str) -> Tally | None:
        with self._lock:
            if digest not in self._parts:
                return None
            self._parts.move_to_end(digest)
            merged = Tally.merge(self._parts[digest])
            self._rows += len(merged.keys) - sum(len(p.keys) for p in self._parts[digest])
            self._parts[digest] = [merged]
            return merged


class Bench(Panel):
    """Every scheme on one machine under one load, with controls for both; shown as a widget.

    Parameters
    ----------
    schemes : sequence of (Scheme or str)
        Schemes of one's own, or variants with words of their own ("watermark max-sections=2"),
        beside the named ones. Their reserve is the slider's.
    filesystems : sequence of Filesystem
        Filesystems of one's own, beside the catalogue's.
    mix : str, Mix, Filesystem or mapping, optional
        The writers at the start: a mix, a filesystem or a stack of the catalogue, or shares by
        filesystem. Unless given, one's own filesystems in equal parts, or ``desktop_2004``.
    machine : str or int
        A machine of the catalogue, or pages.
    threads, dirtiers : int
        Flushers and dirtiers at the start.
    reserve : int, optional
        Pages at the start; the largest section's unless given.
    quota : int
        Writepages of each thread.
    waiting : str
        ``asleep`` or ``racing``.
    only : sequence of str, optional
        Full names of the schemes that are ticked at the start; all unless given.
    goal : Goal, optional
        Further goal, and the one chosen at the start.
    seed : int
        Names the streams.
    workers : int, optional
        Threads of ours; the processors there are unless given.
    exact_limit : int
        States up to which a scenario is solved exactly too.

    Raises
    ------
    BadInput
        If a scheme, filesystem, mix or machine is unknown.
    """

    def __init__(
        self,
        schemes: Sequence[Scheme | str] = (),
        filesystems: Sequence[Filesystem] = (),
        *,
        mix: str | Mix | Filesystem | Mapping[Filesystem | str, float] | None = None,
        machine: str | int = "2.6.9-64MB",
        threads: int = 16,
        dirtiers: int = 0,
        reserve: int | None = None,
        quota: int = 10,
        waiting: str = "asleep",
        only: Sequence[str] | None = None,
        goal: Goal | None = None,
        seed: int = 1,
        workers: int | None = None,
        exact_limit: int = 100_000,
    ) -> None:
        super().__init__(
            "bench-state", "bench-figure",
            "For each scheme: deadlock probability, idle pages and throughput with their intervals,"
            " and what the dead waited for; the table above has the same numbers.",
        )  # fmt: skip
        own = [Scheme.unsized(s) if isinstance(s, str) else s for s in schemes]
        every = [*(Scheme.unsized(name) for name in variants()), *own]
        self._schemes = {scheme.variant: scheme for scheme in every}
        self._filesystems = _mountable(filesystems)
        self._seed, self._workers, self._limit = seed, workers, exact_limit
        self._memory = _Memory()
        self._exact: dict[str, Exact | None] = {}
        self._quiet = controls.Quiet()
        self._plan: tuple[_Entry, ...] = ()
        self._run = 0
        self._estimator = self._job("bench")
        self._solver = self._job("bench, exact")
        self._make_controls(threads, dirtiers, quota, waiting, machine, only, goal)
        with self._quiet.setting():
            start = filesystems and Mix({fs: 1 / len(filesystems) for fs in filesystems})
            self._choose_mix(mix if mix is not None else start or "desktop_2004")
            self._choose_machine()
            self.reserve.value = self._need() if reserve is None else reserve
        self._observe()
        self._changed()

    # --- controls --------------------------------------------------------------------------------

    def _make_controls(
        self, threads: int, dirtiers: int, quota: int, waiting: str, machine: str | int,
        only: Sequence[str] | None, goal: Goal | None,
    ) -> None:  # fmt: skip
        self.threads = controls.slider("flushers", threads, 0, max(256, threads),
                                       "threads that write back; each does its quota")  # fmt: skip
        self.dirtiers = controls.slider("dirtiers", dirtiers, 0, max(128, dirtiers),
                                        "threads that want pages of their own and reclaim when "
                                        "there are none")  # fmt: skip
        self.quota = controls.slider("quota", quota, 1, max(100, quota),
                                     "writepages asked of each thread")  # fmt: skip
        self.waiting = controls.choice(
            "waiting rule",
            [("asleep: queues, handed over", "asleep"), ("racing: whoever comes first", "racing")],
            waiting,
        )
        own_pages = not isinstance(machine, str)
        self.machine = controls.choice(
            "machine", [*catalogue.machines, _OWN], _OWN if own_pages else machine,
            "a kernel's memory when reclaim begins",
        )  # fmt: skip
        pages = machine if own_pages else 1
        self.pages = controls.number("pages", int(pages), 1, 1_000_000, "free at the start")
        self.reserve = controls.slider("reserve", 0, 0, 1, "pages each scheme sets aside; of a "
                                       "mempool, for each mount")  # fmt: skip
        self.need_button = controls.button(
            "largest section", "set the reserve to the largest nr_pages, as the proposal does",
            lambda: setattr(self.reserve, "value", self._need()),
        )  # fmt: skip
        self.speed = controls.power(
            "device speed", 1.0, -2, 2, "times the speed of the catalogue's devices"
        )
        goals = {**_GOALS, **({str(goal): goal} if goal else {})}
        self.goal = controls.choice(
            "until", list(goals.items()), goal or _GOALS["good: 10 % or 0.001"],
            "a run ends when the risks are known so well",
        )  # fmt: skip
        self.cancel_button = controls.button("Cancel", "stop this run", self.cancel, icon="stop")
        self.preset = controls.choice("mix", [*catalogue.mixes, _OWN], _OWN)
        self.stack = controls.choice(
            "stack", [("none: every mount has a device", ""), *((s, s) for s in catalogue.stacks)],
            "", "filesystems on top of each other, instead of the mix",
        )  # fmt: skip
        self.weights = {name: controls.share(name, 0.0) for name in self._filesystems}
        self.schemes = controls.ticks(self._schemes, only)
        self.mix_toggle, mix_box = controls.drawer("Filesystems", list(self.weights.values()))
        self.scheme_toggle, scheme_box = controls.drawer("Schemes", list(self.schemes.values()))
        self.state = self._status
        self.numbers = widgets.HTML(layout=widgets.Layout(width="100%", overflow="auto"))
        reserve = controls.row(self.reserve)
        self.widget = widgets.VBox([
            controls.row(
                controls.column(self.threads, self.dirtiers, self.quota, self.waiting, self.preset,
                                self.stack),
                controls.column(self.machine, self.pages, reserve, self.speed, self.goal,
                                controls.row(self.need_button, self.cancel_button)),
            ),
            controls.row(self.mix_toggle, self.scheme_toggle),
            mix_box, scheme_box, self.state, self.numbers, self.figure,
        ])  # fmt: skip

    def _observe(self) -> None:
        self.preset.observe(self._preset_chosen, "value")
        self.machine.observe(self._machine_chosen, "value")
        self.pages.observe(self._pages_typed, "value")
        for name, weight in self.weights.items():
            weight.observe(partial(self._weight_moved, name), "value")
        plain = (self.threads, self.dirtiers, self.quota, self.waiting, self.reserve, self.speed,
                 self.goal, self.stack, *self.schemes.values())  # fmt: skip
        for control in plain:
            control.observe(self._changed, "value")

    def _choose_mix(self, mix: object) -> None:
        """Set the controls to a mix, a filesystem or a stack."""
        if isinstance(mix, str) and mix in catalogue.stacks:
            self.stack.value = mix
            mix = "desktop_2004"
        name = mix if isinstance(mix, str) and mix in catalogue.mixes else _OWN
        if isinstance(mix, str) and mix in self._filesystems:
            mix = self._filesystems[mix]
        if isinstance(mix, Filesystem):
            mix = Mix({mix: 1.0})
        if isinstance(mix, Mapping):
            mix = Mix(mix)
        chosen = mix if isinstance(mix, Mix) else catalogue.mixes[mix]
        for filesystem in chosen.filesystems:
            if filesystem.name not in self.weights:
                right = "give it among the filesystems, too"
                raise BadInput("mix", f"{filesystem.name!r} is not on the bench", right)
        shares = dict(zip(chosen.filesystems, chosen.weights, strict=True))
        self._show_mix(Mix({f: shares.get(f, 0.0) for f in self._filesystems.values()}), name)

    def _show_mix(self, mix: Mix, name: str) -> None:
        with self._quiet.setting():
            self._mix = mix
            self.preset.value = name
            for filesystem, weight in zip(mix.filesystems, mix.weights, strict=True):
                self.weights[filesystem.name].value = weight

    def _preset_chosen(self, _: object) -> None:
        if not self._quiet and self.preset.value != _OWN:
            self._choose_mix(self.preset.value)
            self._changed()

    def _weight_moved(self, name: str, change: Mapping[str, Any]) -> None:
        if not self._quiet:
            self._show_mix(self._mix.with_share(name, change["new"]), _OWN)
            self._changed()

    def _machine_chosen(self, _: object) -> None:
        if not self._quiet and self.machine.value != _OWN:
            self._choose_machine()
            self._changed()

    def _choose_machine(self) -> None:
        with self._quiet.setting():
            if self.machine.value != _OWN:
                self.pages.value = catalogue.machines[self.machine.value].machine.pages
            self.reserve.max = self.pages.value

    def _pages_typed(self, _: object) -> None:
        if not self._quiet:
            with self._quiet.setting():
                self.machine.value = _OWN
                self.reserve.max = self.pages.value
            self._changed()

    # --- what is to be run -----------------------------------------------------------------------

    def _mounts(self) -> tuple[list[Mount], str]:
        threads, dirtiers = self.threads.value, self.dirtiers.value
        if self.stack.value:
            stack = catalogue.stacks[self.stack.value]
            mounts, label = stack.mounts(threads, dirtiers=dirtiers), stack.name
        else:
            shares = zip(self._mix.filesystems, self._mix.weights, strict=True)
            used = Mix({filesystem: weight for filesystem, weight in shares if weight > 0})
            label = used.name if self.preset.value == _OWN else self.preset.value
            mounts = used.mounts(threads, dirtiers=dirtiers)
        return [mount.faster(self.speed.value) for mount in mounts], label

    def _need(self) -> int:
        mounts, _ = self._mounts()
        return max(mount.filesystem.nr_pages for mount in mounts)

    def _read(self) -> tuple[_Entry, ...]:
        """The scenarios the controls describe; what does not fit says so."""
        mounts, label = self._mounts()
        entries = []
        for name, scheme in self._schemes.items():
            if self.schemes[name].value:
                try:
                    scenario = Scenario(
                        machine=Machine(pages=self.pages.value),
                        mounts=mounts,
                        scheme=scheme.sized(self.reserve.value),
                        quota=self.quota.value,
                        waiting=self.waiting.value,
                        label=label,
                    )
                except BadInput as error:
                    entries.append(_Entry(name, None, str(error)))
                else:
                    entries.append(_Entry(name, scenario))
        return tuple(entries)

    def scenarios(self) -> list[Scenario]:
        """List what the controls describe.

        Returns
        -------
        list of Scenario
            One for each scheme that is ticked and fits, none twice.
        """
        return _distinct(self._plan)

    def frame(self) -> pd.DataFrame:
        """Return what is known of it so far.

        Returns
        -------
        DataFrame
            The tidy frame, a row for each scenario of which there are episodes.
        """
        tallies = (self._memory.get(scenario.digest) for scenario in self.scenarios())
        return pd.DataFrame([tally.row() for tally in tallies if tally is not None])

    # --- running ---------------------------------------------------------------------------------

    def _changed(self, _: object = None) -> None:
        if self._quiet:
            return
        with self._lock:
            self._run += 1
            self._plan = plan = self._read()
            self._picture.forget()
            self._show(plan, "running")
            self._solver.cancel()
            self._estimator.start(partial(self._estimate, plan, self.goal.value))

    def _estimate(self, plan: tuple[_Entry, ...], goal: Goal, stop: threading.Event) -> None:
        scenarios = _distinct(plan)
        known = {s.digest: tally for s in scenarios if (tally := self._memory.get(s.digest))}
        waited_for = {scenario.digest for scenario in scenarios} - set(known)
        shown = time.monotonic()

        def arrived(tally: Tally) -> None:
            nonlocal shown
            self._memory.add(tally)
            last = waited_for == {tally.scenario.digest}
            waited_for.discard(tally.scenario.digest)
            now = time.monotonic()
            if last or now > shown + _SECONDS_BETWEEN_NUMBERS:
                self._show(plan, "running", stop)
                shown = time.monotonic()
            if last and not stop.is_set():
                self._solver.start(partial(self._solve, plan))

        compare(scenarios, goal, self._seed, self._workers, known, arrived, stop)
        self._show(plan, "done", stop)
        if not stop.is_set() and not self._solver.running:
            self._solver.start(partial(self._solve, plan))

    def _solve(self, plan: tuple[_Entry, ...], stop: threading.Event) -> None:
        def go_on(*_: int) -> None:
            if stop.is_set():
                raise Cancelled

        for scenario in _distinct(plan):
            if scenario.digest not in self._exact:
                go_on()
                try:
                    self._exact[scenario.digest] = exact(scenario, self._limit, go_on)
                except TooManyStates:
                    self._exact[scenario.digest] = None
                else:
                    self._show(plan, None, stop)

    def cancel(self) -> None:
        """Stop the run; what it found out stays."""
        super().cancel()
        self._show(self._plan, "cancelled" if self._state == "running" else None)

    # --- showing ---------------------------------------------------------------------------------

    def _show(
        self,
        plan: tuple[_Entry, ...],
        state: str | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Show what is known of a plan, if it is still the one asked for and was not cancelled."""
        with self._lock:
            if plan is not self._plan or (stop is not None and stop.is_set()):
                return
            self._state = state or self._state
            tallies = {
                scenario.digest: tally
                for scenario in _distinct(plan)
                if (tally := self._memory.get(scenario.digest))
            }
            frame = pd.DataFrame([tally.row() for tally in tallies.values()])
            solved = {
                digest: value.deadlock_probability
                for digest in tallies
                if (value := self._exact.get(digest)) is not None
            }
            self.cancel_button.disabled = self._state != "running"
            self._show_numbers(plan, frame, solved)
            complete = len(tallies) == len(_distinct(plan))
            if len(frame) and (complete or self._state != "running"):
                self._picture.draw(
                    partial(figures.side_by_side, frame, solved), _SECONDS_BEFORE_FIGURE,
                    f"{self.threads.value} flushers, {self._state}",
                )

    def _show_numbers(
        self, plan: tuple[_Entry, ...], frame: pd.DataFrame, solved: Mapping[str, float]
    ) -> None:
        rows = {row["digest"]: row for _, row in frame.iterrows()}
        wanted = {scenario.digest for scenario in _distinct(plan)}
        episodes = int(frame["episodes"].sum()) if len(frame) else 0
        self._say(
            f"{self._state}: {episodes:,} episodes of {len(rows)} schemes; the largest section"
            f" needs {self._need()} pages"
        )
        letters = glyphs(entry.name for entry in plan)
        body = "".join(_row(entry, letters[entry.name], rows, solved) for entry in plan)
        notes = "".join(
            f"<p>{letters[entry.name]}: {controls.escape(note)}</p>"
            for entry in plan
            if entry.scenario is not None
            for note in entry.scenario.warnings
        )
        self.numbers.value = controls.words(
            "bench-numbers",
            f"<table>{_HEAD}<tbody>{body}</tbody></table>{notes}",
            run=self._run, state=self._state, threads=self.threads.value,
            reserve=self.reserve.value, complete=int(wanted <= set(rows)), episodes=episodes,
        )  # fmt: skip


def _mountable(own: Iterable[Filesystem]) -> dict[str, Filesystem]:
    """The filesystems that writers can use directly, one's own last."""
    known = {n: catalogue.filesystems[n] for n in catalogue.filesystems if n[:5] != "loop_"}
    return known | {filesystem.name: filesystem for filesystem in own}


def _distinct(plan: Iterable[_Entry]) -> list[Scenario]:
    scenarios = (entry.scenario for entry in plan if entry.scenario is not None)
    return list({scenario.digest: scenario for scenario in scenarios}.values())


def _row(
    entry: _Entry, letter: str, rows: Mapping[str, pd.Series], solved: Mapping[str, float]
) -> str:
    """A line of the table; a scheme that does not fit says why."""
    name = f'<th scope="row" class="rl-text">{letter} {controls.escape(entry.name)}</th>'
    mark = f'data-scheme="{controls.escape(entry.name)}"'
    if entry.scenario is None:
        problem = controls.escape(entry.problem)
        return f'<tr {mark}>{name}<td class="rl-off" colspan="7">does not fit: {problem}</td></tr>'
    row = rows.get(entry.scenario.digest)
    if row is None:
        return f'<tr {mark}>{name}<td class="rl-off" colspan="7">...</td></tr>'
    best, bounds = risk(interval(row, "deadlock_probability"))
    exactly = solved.get(row["digest"])
    waited = ", ".join(
        f"{REASON_NAMES[r]} {per_cent(s)} %".replace(" ", "\N{NO-BREAK SPACE}")
        for r, s in dead_shares(row).items()
    )
    cells = [
        best, bounds, "" if exactly is None else f"{exactly:.6g}",
        number(interval(row, "idle_mean")), number(interval(row, "throughput")),
    ]  # fmt: skip
    return (
        f'<tr {mark} data-episodes="{row["episodes"]}">{name}'
        + "".join(f"<td>{controls.escape(cell)}</td>" for cell in cells)
        + f'<td class="rl-text">{controls.escape(waited)}</td><td>{row["episodes"]:,}</td></tr>'
    )
