"""Swim-lane pictures say what the lanes say, and nothing in them lies over anything else.

By hand: what must stand in the picture of a known deadlock. Own limits: at every step of many
stories no two texts touch and none is cut off. A planted overlap is noticed. Nothing here is a
statistical test.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import naive
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.text import Text
from solved_cases import scenario_from_case
from test_lanes import abba, drawn

import reservelab as rl
from reservelab.command.show import draw_story
from reservelab.show.lanes import lanes
from reservelab.show.swimlane import CAST, swim_lanes

pytestmark = pytest.mark.filterwarnings("ignore:mounts")


def texts(figure: Figure) -> dict[str, Text]:
    return {text.get_text(): text for text in figure.axes[0].texts}


def clashes(figure: Figure) -> list[str]:
    """Texts that touch another one or reach out of the picture."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    width, height = figure.canvas.get_width_height()
    found = []
    places = [(t.get_text(), t.get_window_extent(renderer)) for t in figure.axes[0].texts]
    for text, box in places:
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
            found.append(f"{text!r} is cut off")
    for (one, a), (other, b) in itertools.combinations(places, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        # A text's box has room for letters below the line that the text may not have.
        if wide > 1 and high > 0.25 * min(a.height, b.height):
            found.append(f"{one!r} lies over {other!r}")
    return found


def stories() -> Iterator[tuple[str, rl.Story]]:
    """Short ones of every scheme, long ones, a stack, many threads, and names too long."""
    for variant in naive.VARIANTS:
        case = drawn(variant, "asleep", 1)
        yield variant, rl.trace(scenario_from_case(case), 1, 0, 60)
    ext3, nfs = rl.filesystems["ext3"], rl.filesystems["nfs"]
    mounts = (rl.Mount(ext3, 4, 1), rl.Mount(nfs, 3))
    yield "mixed", rl.trace(rl.Scenario(rl.Machine(64), mounts, rl.GlobalPool(), 3), 1, 482)
    stacked = rl.stacks["ext3_on_ext3"].mounts(14)
    yield "stack", rl.trace(rl.Scenario(rl.Machine(40), stacked, rl.Tickets(), 3), 1, 0)
    thousands = rl.Scenario(rl.Machine(123_456), mounts, rl.Watermark(4321), 2)
    yield "many pages", rl.trace(thousands, 1, 0)
    name = "a-filesystem-with-a-name-that-nobody-would-give-it"
    odd = rl.Filesystem.from_text(name, ["alloc 2", "lock l", "alloc 2", "unlock l", "submit"])
    yield "long names", rl.trace(rl.Scenario(rl.Machine(6), (rl.Mount(odd, 3),), rl.PerThread(), 2))


@pytest.mark.parametrize(("name", "story"), [pytest.param(*s, id=s[0]) for s in stories()])
def test_nothing_lies_over_anything(name: str, story: rl.Story) -> None:
    shown = lanes(story)
    end = shown.states - 1
    for step in sorted({end // 2, max(end - 13, 0), end}):
        assert clashes(swim_lanes(shown, step)) == [], (name, step)


def test_an_overlap_is_noticed() -> None:
    figure = swim_lanes(rl.prove(abba()))
    first = figure.axes[0].texts[0]
    figure.axes[0].text(*first.get_position(), "planted")
    figure.axes[0].text(510, 20, "cut off at the right")
    assert len(clashes(figure)) == 2


def test_a_known_deadlock() -> None:
    proof = rl.prove(abba())
    figure = swim_lanes(proof)
    written = texts(figure)
    assert "global lazy refill-completion, asleep: a shortest path, 7 steps" in written
    assert f"{len(proof.path)}" in written
    assert {"> fs/0 flusher 0", "> fs/0 flusher 1", "semaphore", "lock journal"} <= set(written)
    (cycle,) = (text for text in written if text.startswith("The cycle, closed since step 7:"))
    assert "the semaphore" in cycle
    heavy = [
        patch
        for patch in figure.axes[0].patches
        if isinstance(patch, FancyArrowPatch) and patch.get_linewidth() == 2.0
    ]
    assert len(heavy) == 4  # a thread, what it waits for, who holds it, and round again
    assert len({patch.get_linestyle() for patch in heavy}) == 2


def test_before_it_is_closed_there_is_no_cycle_and_no_future() -> None:
    proof = rl.prove(abba())
    figure = swim_lanes(proof, 6)
    assert not any(text.startswith(("The cycle", ">")) for text in texts(figure))
    assert ends_of_bars(figure) < ends_of_bars(swim_lanes(proof))


def ends_of_bars(figure: Figure) -> float:
    """The right end of the bars in the lanes, in points."""
    patches = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    return max(p.get_x() + p.get_width() for p in patches if round(p.get_height(), 1) == 9.6)


def test_what_waits_and_sleeps_is_hatched() -> None:
    """Colour alone says nothing: every face has its hatch or its words."""
    figure = swim_lanes(rl.prove(abba()))
    hatched = {
        patch.get_facecolor(): patch.get_hatch()
        for patch in figure.axes[0].patches
        if isinstance(patch, Rectangle) and patch.get_hatch()
    }
    assert set(hatched.values()) == {"xxxx"}
    assert len(hatched) == 1


def test_of_many_threads_those_of_the_cycle_are_shown() -> None:
    stacked = rl.stacks["ext3_on_ext3"].mounts(14)
    story = rl.trace(rl.Scenario(rl.Machine(40), stacked, rl.Tickets(), 3), 1, 0)
    written = texts(swim_lanes(story))
    assert f"{len(story.threads) - CAST} other threads" in written
    assert any(text.startswith(">") and "loop worker" in text for text in written)
    assert "bios" in written


def test_a_window_moves_with_the_step() -> None:
    fs = rl.Filesystem("fs", [rl.alloc(1), rl.submit()])
    story = rl.trace(rl.Scenario(rl.Machine(4), (rl.Mount(fs, 2),), rl.Watermark(1), 10))
    shown = lanes(story)
    assert "0" in texts(swim_lanes(shown, 20, span=24))
    late = texts(swim_lanes(shown, 60, span=24))
    assert "60" in late
    assert "0" not in {t.get_text() for t in swim_lanes(shown, 60, span=24).axes[0].texts[3:5]}


def test_the_same_story_is_the_same_file(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        draw_story(rl.prove(abba()).story, tmp_path / name / "path.svg")  # type: ignore[arg-type]
        written.append((tmp_path / name / "path.svg").read_bytes())
    assert written[0] == written[1]
    assert abba().digest.encode() in written[0]


@pytest.mark.parametrize("step", [-1, 8, 2.5])
def test_a_step_that_is_not_there_is_refused(step: float) -> None:
    with pytest.raises(rl.BadInput, match=r"^step: "):
        swim_lanes(rl.prove(abba()), step)  # type: ignore[arg-type]
