"""The deadlock theatre: one episode, or the shortest path into a deadlock, played step by step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import ipywidgets as widgets

from reservelab.model.pack import NOBODY
from reservelab.model.scenario import Scenario
from reservelab.show import controls
from reservelab.show.lanes import Lanes, lanes
from reservelab.show.picture import Picture
from reservelab.show.swimlane import swim_lanes
from reservelab.solve.prove import Proof, prove
from reservelab.solve.states import TooManyStates
from reservelab.solve.trace import Story, next_deadlock, trace

_SHORTEST, _EPISODE = "the shortest path into a deadlock", "one episode"
_MS_A_STEP = 1200
_LOOKED_AT = 10_000


class Theatre:
    """A stage with a slider for the step, buttons, and the state in words beside the picture.

    The figure shows who holds what up to the step, the free list and the pool, and who waits for
    whom; the table below it says the same. Everything is reachable by keyboard.

    Parameters
    ----------
    told : Story or Proof or Lanes or Scenario
        What `trace`, `prove` or `lanes` returned. Of a scenario the shortest path into a deadlock
        is played, or, where there is none or it is too far, an episode; the reader can choose.
    seed : int
        Of a scenario's episodes.
    limit : int
        The most states to store while looking for a scenario's shortest path.

    Attributes
    ----------
    widget : VBox
        All of it, to be displayed.
    step : IntSlider
        The step shown.
    played, episode : Dropdown, BoundedIntText
        What is played of a scenario; hidden for what has been told already.
    lanes : Lanes
        What is played now.

    Raises
    ------
    BadInput
        If a proof is a certificate: there is nothing to play.
    """

    lanes: Lanes

    def __init__(
        self, told: Story | Proof | Lanes | Scenario, seed: int = 1, limit: int = 200_000
    ) -> None:
        self._scenario = told if isinstance(told, Scenario) else None
        self._seed, self._limit = seed, limit
        self._quiet = controls.Quiet()
        self.step = controls.slider("step", 0, 0, 1, "the step whose end is shown; arrow keys move")
        self.step.layout.width = "520px"
        self._play = widgets.Play(
            value=0, min=0, max=1, interval=_MS_A_STEP, show_repeat=False, tooltip="play",
            layout=widgets.Layout(width="auto"),
        )  # fmt: skip
        widgets.link((self._play, "value"), (self.step, "value"))
        self.played = controls.choice("play", [_SHORTEST, _EPISODE], _SHORTEST)
        self.episode = controls.number("episode", 0, 0, 2**31, "the episode's number, from 0")
        self.next_button = controls.button(
            "Next deadlock", "the next episode that ends in a deadlock", self.next_deadlock,
            icon="search",
        )  # fmt: skip
        self.note = widgets.HTML()
        self.state = widgets.HTML(layout=widgets.Layout(width="100%", overflow="auto"))
        self.cycle = widgets.HTML(layout=widgets.Layout(width="100%"))
        self._picture = Picture(
            "theatre-figure",
            "Swim lanes: a lane for each thread up to the step, and who waits for whom. The table"
            " below says the same in words.",
            lambda error: self._say(f"the picture could not be drawn: {error!r}"),
            rest=0,
        )
        self.figure = self._picture.widget
        choices = controls.row(self.played, self.episode, self.next_button)
        choices.layout.display = "none" if self._scenario is None else ""
        self.widget = widgets.VBox([
            choices, self.note,
            controls.row(
                self._play, self.step,
                controls.button("Back", "one step back", lambda: self._move(-1)),
                controls.button("Step", "one step on", lambda: self._move(1)),
                controls.button("To the cycle", "where the wait-for cycle closes, or the end",
                                self.to_the_cycle),
            ),
            self.cycle, self.figure, self.state,
        ])  # fmt: skip
        self.step.observe(self._show, "value")
        self.played.observe(self._choose, "value")
        self.episode.observe(self._choose, "value")
        if isinstance(told, Scenario):
            self._choose()
        else:
            self.play(told)

    # --- what is played --------------------------------------------------------------------------

    def play(self, told: Story | Proof | Lanes) -> None:
        """Put another story on the stage, at its start.

        Parameters
        ----------
        told : Story or Proof or Lanes
            What `trace`, `prove` or `lanes` returned.

        Raises
        ------
        BadInput
            If a proof is a certificate: there is nothing to play.
        """
        self.lanes = told if isinstance(told, Lanes) else lanes(told)
        end = self.lanes.states - 1
        with self._quiet.setting():
            self.step.value = 0
            self.step.max = self._play.max = end
        self._show()

    def to_the_cycle(self) -> None:
        """Go to the state in which the cycle closes; to the end where there is none."""
        closed = self.lanes.closed
        self.step.value = self.lanes.states - 1 if closed == NOBODY else closed

    def next_deadlock(self) -> None:
        """Play the next of a scenario's episodes that ends in a deadlock."""
        if self._scenario is None:
            return
        first = self.episode.value + (self.played.value == _EPISODE)
        episode = next_deadlock(self._scenario, self._seed, first, _LOOKED_AT)
        if episode is None:
            self._say(f"none of the episodes {first} to {first + _LOOKED_AT - 1} deadlocks")
            return
        with self._quiet.setting():
            self.played.value, self.episode.value = _EPISODE, episode
        self._choose()

    def _choose(self, _: object = None) -> None:
        """Play what the controls ask for."""
        if self._quiet or self._scenario is None:
            return
        told: Story | Proof | None = None
        self._say("")
        if self.played.value == _SHORTEST:
            try:
                proof = prove(self._scenario, limit=self._limit)
            except TooManyStates as error:
                self._say(f"{error.wrong}, so no shortest path was looked for: an episode instead")
            else:
                told = proof if proof.story else None
                if told is None:
                    explored = f"all {proof.states:,} states explored"
                    self._say(f"no deadlock is reachable ({explored}): an episode instead")
        if told is None:
            told = trace(self._scenario, self._seed, self.episode.value)
        self.play(told)

    # --- showing ---------------------------------------------------------------------------------

    def _move(self, by: int) -> None:
        self.step.value = min(max(self.step.value + by, 0), self.step.max)

    def _say(self, text: str) -> None:
        body = f'<p role="status">{controls.escape(text)}</p>' if text else ""
        self.note.value = controls.words("theatre-note", body)

    def _show(self, _: object = None) -> None:
        if self._quiet:
            return
        step = self.step.value
        self._picture.draw(partial(swim_lanes, self.lanes, step))
        self._show_cycle(step)
        self._show_state(step)

    def _show_cycle(self, step: int) -> None:
        story, closed = self.lanes.story, self.lanes.closed
        if not story.cycle:
            text = f"No wait-for cycle closes: the story ends {story.ending}."
            if story.waits:
                text = "No cycle, and yet a deadlock: nobody holds what would be enough."
        elif step < closed:
            text = "No cycle is closed yet."
        else:
            links = "".join(f"{wait.waiter} -> {wait.what} -> " for wait in story.cycle)
            text = f"The cycle is closed, since step {closed}: {links}{story.cycle[0].waiter}"
        is_closed = int(bool(story.cycle) and step >= closed)
        self.cycle.value = controls.words(
            "theatre-cycle", f'<p role="status">{controls.escape(text)}</p>', closed=is_closed
        )

    def _show_state(self, step: int) -> None:
        row = self.lanes.steps.iloc[step]
        end = self.lanes.states - 1
        counts = [f"{row['free']} free", f"{row['pool']} in pools"]
        if any(mount.dirtiers for mount in self.lanes.story.scenario.mounts):
            counts.append(f"{row['dirty']} dirty")
        counts.append(f"{row['bios']} bios with {row['bio_pages']} pages")
        if "global_pool" in self.lanes.story.scenario.scheme.grants:
            owner = row["owner"]
            who = "nobody" if owner == NOBODY else self.lanes.story.threads[owner]
            counts.append(f"semaphore: {who}")
        heads = ("thread", "place", "does", "has", "waits for", "held by")
        head = "".join(f'<th scope="col" class="rl-text">{name}</th>' for name in heads)
        edges = self.lanes.waits[self.lanes.waits["step"] == step]
        here = self.lanes.at(step).to_dict("records")
        body = "".join(
            _row(each, edges.loc[edges["waiter"] == each["name"], "holder"].tolist())
            for each in here
        )
        text = controls.escape(f"Step {step} of {end}: {row['text']}.")
        self.state.value = controls.words(
            "theatre-step",
            f'<p role="status"><b>{text}</b></p><p>{controls.escape(", ".join(counts))}</p>'
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
            step=step, steps=end, free=row["free"], ending=self.lanes.story.ending,
        )  # fmt: skip

    def _repr_mimebundle_(self, **options: object) -> object:
        return self.widget._repr_mimebundle_(**options)


def _row(thread: Mapping[Any, Any], holders: list[str]) -> str:
    """One thread's state as a line of the table."""
    counts = {"held": thread["held"], "own": thread["own"], "claimed": thread["claim"]}
    has = [f"{n} {what}" for what, n in counts.items() if n]
    has += [f"lock {name}" for name in thread["locks"].split(", ") if name]
    has += ["the semaphore"] * bool(thread["semaphore"])
    cells = [
        thread["place"], thread["activity"], ", ".join(has), thread["what"],
        ", ".join(filter(None, holders)),
    ]  # fmt: skip
    name = f'<th scope="row" class="rl-text">{controls.escape(thread["name"])}</th>'
    data = "".join(f'<td class="rl-text">{controls.escape(cell)}</td>' for cell in cells)
    return f"<tr>{name}{data}</tr>"
