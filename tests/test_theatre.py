"""The theatre's logic, without a browser.

By hand: what the status widgets say at known steps of known deadlocks. Own limits: at every step
the words are those of the lanes. Nothing here is a statistical test.
"""

import base64
import re

import pytest
from test_lanes import abba

import reservelab as rl
from reservelab.show.lanes import lanes
from reservelab.show.theatre import Theatre
from reservelab.solve.trace import next_deadlock


def picture(theatre: Theatre) -> bytes:
    """What the figure shows; there is no kernel here to draw it by itself."""
    theatre._picture.settle()
    found = re.search(r'<img data-testid="theatre-figure" .*base64,([^"]*)"', theatre.figure.value)
    assert found, theatre.figure.value
    return base64.b64decode(found[1])


def data(value: str, test_id: str) -> dict[str, str]:
    """The data attributes of a status widget."""
    found = re.search(rf'data-testid="{test_id}"([^>]*)>', value)
    assert found, value
    return dict(re.findall(r'data-([a-z-]+)="([^"]*)"', found[1]))


def cycle_closed(theatre: Theatre) -> str:
    return data(theatre.cycle.value, "theatre-cycle")["closed"]


def test_a_proof_is_played_to_its_cycle() -> None:
    proof = rl.prove(abba())
    theatre = Theatre(proof)
    end = len(proof.path)
    assert theatre.step.value == 0
    assert theatre.step.max == end
    assert cycle_closed(theatre) == "0"
    assert "No cycle is closed yet" in theatre.cycle.value
    for step in range(1, end + 1):
        before = picture(theatre)
        theatre.step.value = step
        said = data(theatre.state.value, "theatre-step")
        assert said["step"] == str(step)
        assert said["steps"] == str(end)
        assert said["free"] == str(proof.path[step - 1].free)
        assert picture(theatre) != before
    assert cycle_closed(theatre) == "1"
    assert "fs/0 flusher 0 -&gt; " in theatre.cycle.value


def test_who_has_what_stands_in_words_too() -> None:
    theatre = Theatre(rl.prove(abba()))
    theatre.to_the_cycle()
    shown = theatre.lanes.at(theatre.step.value)
    text = theatre.state.value
    for name in shown["name"]:
        assert f'<th scope="row" class="rl-text">{name}</th>' in text
    assert "lock journal" in text
    assert "the semaphore" in text
    assert "semaphore: fs/0 flusher" in text


def test_the_buttons_stop_at_both_ends() -> None:
    theatre = Theatre(rl.prove(abba()))
    theatre._move(-1)
    assert theatre.step.value == 0
    theatre._move(1)
    assert theatre.step.value == 1
    theatre.to_the_cycle()
    assert theatre.step.value == theatre.lanes.closed
    theatre._move(99)
    assert theatre.step.value == theatre.step.max


def test_playing_moves_the_slider() -> None:
    theatre = Theatre(rl.prove(abba()))
    theatre._play.value = 3
    assert theatre.step.value == 3
    assert theatre._play.max == theatre.step.max


class TestOfAScenario:
    def test_its_shortest_path_then_its_episodes(self) -> None:
        theatre = Theatre(abba(), seed=1)
        proof = rl.prove(abba())
        assert len(proof.path) == theatre.step.max
        assert theatre.lanes.story.seed is None
        first = next_deadlock(abba(), 1)
        theatre.next_deadlock()
        assert theatre.episode.value == first
        assert theatre.lanes.story == rl.trace(abba(), 1, first or 0)
        theatre.next_deadlock()
        assert theatre.episode.value > (first or 0)
        assert theatre.step.value == 0
        theatre.played.value = theatre.played.options[0]
        assert theatre.lanes.story.seed is None
        theatre.to_the_cycle()
        assert cycle_closed(theatre) == "1"

    def test_a_safe_one_plays_an_episode_and_says_why(self) -> None:
        theatre = Theatre(abba(on_entry=True))
        assert "no deadlock is reachable" in theatre.note.value
        assert theatre.lanes.story.ending == "completed"
        assert "the story ends completed" in theatre.cycle.value
        theatre.to_the_cycle()
        assert theatre.step.value == theatre.step.max
        assert cycle_closed(theatre) == "0"
        theatre.next_deadlock()
        assert "none of the episodes 0 to " in theatre.note.value

    def test_one_too_large_to_search_plays_an_episode_and_says_so(self) -> None:
        theatre = Theatre(abba(), limit=3)
        assert "an episode instead" in theatre.note.value
        assert theatre.lanes.story.seed == 1

    def test_choosing_an_episode(self) -> None:
        theatre = Theatre(abba(), seed=3)
        theatre.played.value = theatre.played.options[1]
        theatre.episode.value = 5
        assert theatre.lanes.story == rl.trace(abba(), 3, 5)


def test_a_composed_scheme_and_an_own_filesystem_play_too() -> None:
    fs = rl.Filesystem("mine", [rl.alloc({1: 0.5, 2: 0.5}), rl.lock("l"), rl.alloc(1),
                                rl.unlock("l"), rl.submit(), rl.wait()])  # fmt: skip
    scheme = rl.Scheme("pool", "nothing", ("global_pool", "free"), "wait_full", "pool", 3)
    scenario = rl.Scenario(rl.Machine(4), (rl.Mount(fs, 3, 1),), scheme, 2)
    theatre = Theatre(scenario)
    theatre.to_the_cycle()
    assert "mine/0 dirtier 0" in theatre.state.value
    assert "dirty" in theatre.state.value


def test_a_deadlock_without_a_cycle_says_so() -> None:
    fs = rl.Filesystem("fs", [rl.alloc(2), rl.submit()])
    story = rl.trace(rl.Scenario(rl.Machine(3), (rl.Mount(fs, 1),), rl.Tickets(1), 1))
    theatre = Theatre(lanes(story))
    assert "nobody holds what would be enough" in theatre.cycle.value


def test_a_certificate_cannot_be_played() -> None:
    with pytest.raises(rl.BadInput, match=r"^proof: "):
        Theatre(rl.prove(abba(on_entry=True)))
