"""Stories are what `simulate` ran, told truly.

Own limits: the stories of a batch's episodes add up to the batch's tally. Independent
implementation: every event is a transition of tests/naive.py and leaves its state. By hand: what
stuck threads of known deadlocks wait for. Nothing here is a statistical test.
"""

import random
import re
from typing import Any

import naive
import numpy as np
import pytest
from naive import Naive
from solved_cases import scenario_from_case

import reservelab as rl
from reservelab.model.pack import REASONS
from reservelab.model.scenario import Waiting
from reservelab.solve.simulate import Batches
from reservelab.solve.tally import MEANS
from reservelab.solve.trace import Story, trace

LIMIT = 300
EPISODES = 12
CELLS = [(variant, waiting) for variant in naive.VARIANTS for waiting in ("asleep", "racing")]
pytestmark = pytest.mark.filterwarnings("ignore:mounts")


def integrals(story: Story) -> dict[str, float]:
    """What the engine adds up over an episode, from the story's states and times."""
    states = [story.start, *story.events]
    held = np.diff([state.time for state in states], append=story.duration)
    sums = {
        name: float(held @ [getattr(state, name) for state in states])
        for name in ("inside", "idle", *(name for name in MEANS if name.startswith("waiting")))
    }
    peak = max(state.idle for state in states)
    return sums | {
        "duration": story.duration, "idle_peak": peak, "completed": story.writepages
    }  # fmt: skip


def drawn(variant: str, waiting: str, seed: int) -> dict[str, Any]:
    """A random scenario in which something happens."""
    rng = random.Random(f"{variant} {waiting} {seed}")
    while True:
        case = naive.draw_scenario(rng, variant, waiting)
        if Naive(case).choices():
            return case


class TestIsWhatSimulateRan:
    @pytest.mark.parametrize(("variant", "waiting"), CELLS)
    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_the_stories_of_a_batch_are_its_tally(
        self, variant: str, waiting: str, seed: int
    ) -> None:
        scenario = scenario_from_case(drawn(variant, waiting, seed))
        tally = Batches(scenario, seed, LIMIT).run(0, EPISODES)
        stories = [trace(scenario, seed, episode, LIMIT) for episode in range(EPISODES)]
        endings = [story.ending for story in stories]
        assert tally.events == sum(len(story.events) for story in stories)
        assert tally.deadlocks == endings.count("deadlocked")
        assert tally.unfinished == endings.count("unfinished")
        assert tally.completed == sum(story.writepages for story in stories)
        assert tally.redirtied == sum(story.redirtied for story in stories)
        assert tally.oom_kills == sum(story.oom_kills for story in stories)
        for reason in REASONS:
            assert tally.dead_waiting_for(reason) == sum(reason in s.reasons for s in stories)
        added = [integrals(story) for story in stories]
        sums = {name: sum(each[name] for each in added) for name in MEANS}
        # The story multiplies by differences of times, the engine by the times themselves.
        assert sums == pytest.approx(dict(zip(MEANS, tally.sums[0], strict=True)), rel=1e-9)

    def test_later_batches(self) -> None:
        scenario = scenario_from_case(drawn("global lazy allocate clears", "asleep", 1))
        batches = Batches(scenario, 5)
        batches.size = 8
        tally = batches.run(123)
        stories = [trace(scenario, 5, episode) for episode in range(123 * 8, 124 * 8)]
        assert tally.events == sum(len(story.events) for story in stories)
        assert tally.sums[0][0] == pytest.approx(sum(story.duration for story in stories))

    def test_bios_of_no_pages(self) -> None:
        """More of them than a `Walk` makes room for."""
        empty = rl.Filesystem.from_text("fs", ["submit"])
        mounts = (rl.Mount(empty, 1, device=rl.Device(0.01)),)
        scenario = rl.Scenario(rl.Machine(0), mounts, rl.Watermark(0), quota=60)
        story = trace(scenario, 1, 0)
        assert Batches(scenario, 1).run(0, 1).events == len(story.events) == 4 * 60

    def test_defaults(self) -> None:
        scenario = scenario_from_case(drawn("mempool", "asleep", 1))
        assert trace(scenario) == trace(scenario, seed=1, episode=0)
        assert trace(scenario).event_limit == Batches(scenario, 1).event_limit

    @pytest.mark.parametrize(
        ("key", "given"),
        [("seed", {"seed": -1}), ("episode", {"episode": -1}), ("event_limit", {"event_limit": 0})],
    )
    def test_bad_addresses(self, key: str, given: dict[str, int]) -> None:
        scenario = scenario_from_case(drawn("mempool", "asleep", 1))
        with pytest.raises(rl.BadInput, match=f"^{key}: "):
            trace(scenario, **given)


class TestNextDeadlock:
    @pytest.mark.parametrize("first", [0, 1, 5, 63, 64, 65, 1000])
    def test_it_is_the_next(self, first: int) -> None:
        fs = rl.Filesystem("fs", [rl.alloc(2), rl.submit()])
        scenario = rl.Scenario(rl.Machine(4), (rl.Mount(fs, 4),), rl.Watermark(2), 1)
        found = rl.next_deadlock(scenario, 7, first)
        assert found is not None
        endings = [trace(scenario, 7, episode).ending for episode in range(first, found + 1)]
        assert endings.index("deadlocked") == found - first

    def test_there_may_be_none(self) -> None:
        fs = rl.Filesystem("fs", [rl.alloc(2), rl.submit()])
        scenario = rl.Scenario(rl.Machine(4), (rl.Mount(fs, 4),), rl.Tickets(), 1)
        assert rl.next_deadlock(scenario, 1, 3, 5000) is None
        assert rl.next_deadlock(scenario, 1, 3, 0) is None


WORDS = {
    r"takes (the semaphore, )?free page": {"free": -1},
    r"takes (the semaphore, )?pool page": {"pool": -1},
    r"takes mount's pool page": {"pool": -1},
    r"takes (own|claimed) page": {"free": 0, "pool": 0},
    r"dirties a page": {"free": -1, "dirty": 1},
    r"reclaims a dirty page": {"free": 0, "dirty": -1},
    r"reserves page": {},
    r"claims \d+ pages?": {"free": 0},
    r"refills the pool": {"free": -1, "pool": 1},
    r"(takes|drops) lock|submits|sleeps|has no bio|takes up": {"free": 0},
    r"enters|leaves|unclaims|backs out|frees|done: |takes the semaphore; the pool": {},
}


class TestIsTrue:
    @pytest.mark.parametrize(("variant", "waiting"), CELLS)
    def test_every_event_is_one_of_the_oracle_and_leaves_its_state(
        self, variant: str, waiting: str
    ) -> None:
        for seed in range(8):
            case = drawn(variant, waiting, seed)
            for mount in case["mounts"]:  # numbers that are drawn are not in a story
                for step in mount["program"]:
                    if isinstance(step[1], list):
                        step[1] = step[1][-1][0]
            self.follow(case, trace(scenario_from_case(case), seed, 0, LIMIT))

    def follow(self, case: dict[str, Any], story: Story) -> None:
        oracle, before = Naive(case), story.start
        states = [story.start, *story.events]
        for event in states:
            if event is not story.start:
                choices = dict(oracle.choices())
                held = 1 / sum(choices.values())
                assert event.time == pytest.approx(before.time + held, rel=1e-9)
                assert event.transition in choices
                oracle.fire(event.transition, lambda i, step: pytest.fail(f"drew at {i, step}"))
                changes = [value for key, value in WORDS.items() if re.search(key, event.text)]
                assert changes or event.transition[0] == "kill", event.text
                for name, change in changes[0].items() if changes else ():
                    change -= self.woken_with_page(event.text) * (name == "pool")
                    assert getattr(event, name) - getattr(before, name) == change, event.text
            assert (event.free, event.dirty, event.owner) == (
                oracle.free, oracle.dirty, oracle.owner
            )  # fmt: skip
            assert event.pool == oracle.pool + sum(oracle.mount_pools)
            assert (event.inside, event.idle) == (oracle.inside, oracle.idle_reserve())
            before = event
        assert [event.step for event in states] == list(range(len(states)))
        assert (story.ending == "completed") == oracle.completed
        assert (story.ending == "deadlocked") == oracle.deadlocked
        if oracle.deadlocked:
            assert set(story.reasons) == oracle.stuck()
            self.check_waits(story, oracle)

    def woken_with_page(self, text: str) -> int:
        return text.count("wakes with a pool page")

    def check_waits(self, story: Story, oracle: Naive) -> None:
        stuck = [t.number for t in oracle.threads if t.place not in ("idle", "done")]
        names = {wait.waiter for wait in story.waits}
        assert {story.threads[i] for i in stuck} <= names
        assert names <= {*story.threads, *(n for n in names if n.startswith("bio of "))}
        for wait, then in zip(story.cycle, [*story.cycle[1:], *story.cycle[:1]], strict=True):
            assert wait.holders == (then.waiter,)
            assert wait.what in {w.what for w in story.waits if w.waiter == wait.waiter}
        lines = str(story).splitlines()
        assert all(len(line) <= 72 for line in lines)
        assert ("the wait-for cycle:" in lines) == bool(story.cycle)


def dead(scheme: rl.Scheme, program: list[str], waiting: Waiting = "asleep", **given: Any) -> Story:  # noqa: ANN401
    """The first story of three flushers, or of the mounts given, that deadlocks."""
    fs = rl.Filesystem.from_text("fs", program)
    mounts = given.get("mounts", (rl.Mount(fs, given.get("flushers", 3)),))
    scenario = rl.Scenario(rl.Machine(given.get("pages", 3)), mounts, scheme, 2, waiting)
    stories = (trace(scenario, 1, episode) for episode in range(200))
    return next(story for story in stories if story.ending == "deadlocked")


class TestWhoWaitsForWhom:
    def cycle(self, story: Story) -> set[str]:
        return {wait.what for wait in story.cycle}

    def test_pages(self) -> None:
        story = dead(rl.Watermark(3), ["alloc 2", "submit"])
        assert len(story.cycle) == 2
        assert self.cycle(story) == {"a free page"}
        assert story.reasons == ("pages",)
        assert all(wait.has == "1 page held" for wait in story.waits)

    def test_alone(self) -> None:
        story = dead(rl.Watermark(3), ["alloc 4", "submit"], flushers=1)
        assert [(w.waiter, w.holders) for w in story.cycle] == [
            ("fs/0 flusher 0", ("fs/0 flusher 0",))
        ]

    @pytest.mark.parametrize("waiting", ["asleep", "racing"])
    def test_the_abba(self, waiting: Waiting) -> None:
        program = ["alloc 1", "lock a", "alloc 1", "unlock a", "submit"]
        story = dead(rl.GlobalPool(2, refill="completion"), program, waiting, flushers=2)
        assert self.cycle(story) == {"the semaphore", "lock a"}
        assert {wait.has for wait in story.waits} == {
            "1 page held, the semaphore", "1 page held, lock a"
        }  # fmt: skip
        assert set(story.reasons) == {"semaphore", "lock"}

    def test_a_refill_without_pages(self) -> None:
        story = dead(rl.GlobalPool(3), ["alloc 2", "submit"], "racing")
        assert "a free page to refill with" in self.cycle(story)

    def test_its_own_semaphore(self) -> None:
        story = dead(rl.GlobalPool(3, clear_flag=False), ["alloc 2", "submit"])
        waits = {wait.waiter: wait for wait in story.waits}
        assert "own_semaphore" in story.reasons
        owner = next(w for w in waits.values() if w.what == "the semaphore it owns itself")
        assert owner.holders == (owner.waiter,)

    def test_a_stack(self) -> None:
        fs = rl.Filesystem.from_text("fs", ["alloc 2", "submit", "wait"])
        mounts = (rl.Mount(fs), rl.Mount(fs, 1, on=0))
        story = dead(rl.Tickets(2), ["submit"], mounts=mounts, pages=2)
        assert story.threads == ("fs/1 flusher 0", "fs/1 loop worker")
        assert self.cycle(story) == {"a claim of 2 pages", "its loop worker"}
        assert any("bio of fs/1 flusher 0" in event.text for event in story.events)

    def test_completion_memory(self) -> None:
        fs = rl.Filesystem.from_text("fs", ["alloc 1", "submit"])
        mounts = (rl.Mount(fs, 3, device=rl.Device(completion_pages=1)),)
        story = dead(rl.Watermark(0), ["submit"], mounts=mounts)
        assert "completion" in story.reasons
        assert any(wait.waiter.startswith("bio of") for wait in story.cycle)

    def test_never_enough(self) -> None:
        story = dead(rl.Tickets(1), ["alloc 2", "submit"])
        assert story.cycle == ()
        assert all(wait.holders == () for wait in story.waits)
        assert str(story).endswith("no cycle: nobody holds what would be enough")


class TestText:
    @pytest.mark.parametrize(("variant", "waiting"), CELLS)
    def test_ascii_of_at_most_72_columns_one_number_a_step(
        self, variant: str, waiting: str
    ) -> None:
        for seed in range(4):
            story = trace(scenario_from_case(drawn(variant, waiting, seed)), seed, 0, LIMIT)
            text = str(story)
            lines = text.splitlines()
            assert text.isascii()
            assert max(map(len, lines)) <= 72
            assert all(line == line.rstrip() for line in lines)
            first = lines.index(next(line for line in lines if line.lstrip().startswith("step")))
            steps = [
                m[1] for line in lines[first:] if (m := re.match(r" *(\d+) +\d+\.\d\d ", line))
            ]
            assert [int(step) for step in steps] == list(range(len(story.events) + 1))
            assert f"seed {seed}, episode 0" in lines[0]
            assert any(line.startswith(story.ending) for line in lines)
            assert all(name.isascii() and name for name in story.threads)

    def test_long_names_are_wrapped_not_cut(self) -> None:
        name = "a-filesystem-with-a-name-that-nobody-would-give-it-in-earnest"
        fs = rl.Filesystem.from_text(name, ["alloc 2", "lock l", "unlock l", "submit"])
        scenario = rl.Scenario(rl.Machine(3), (rl.Mount(fs, 2),), rl.GlobalPool(2), 2)
        text = str(trace(scenario, 1, 0))
        assert max(map(len, text.splitlines())) <= 72
        assert "".join(text.split()).count(f"{name}/0flusher") > 10

    def test_names(self) -> None:
        ext3 = rl.Filesystem.from_text("ext3", ["alloc 1", "submit"])
        loop = rl.Filesystem.from_text("loop", ["alloc 1", "submit"])
        mounts = (rl.Mount(ext3, 2, 1), rl.Mount(loop, 1, on=0))
        story = trace(rl.Scenario(rl.Machine(9), mounts, rl.Watermark(1)))
        assert story.threads == (
            "ext3/0 flusher 0", "ext3/0 flusher 1", "ext3/0 dirtier 0", "loop/1 flusher 0",
            "loop/1 loop worker",
        )  # fmt: skip
        legend = "threads 0-1 ext3/0 flusher 0-1, 2 ext3/0 dirtier 0, 3 loop/1 flusher 0, 4"
        assert legend in " ".join(str(story).split())

    def test_frame(self) -> None:
        story = dead(rl.GlobalPool(3), ["alloc 2", "submit"])
        frame = story.frame()
        assert len(frame) == len(story.events) + 1
        assert list(frame["step"]) == list(range(len(frame)))
        assert frame["time"].is_monotonic_increasing
        assert frame["thread"].between(-1, len(story.threads) - 1).all()
        assert list(frame.columns[:4]) == ["step", "time", "thread", "text"]
        assert frame["owner"].dtype == frame["free"].dtype == np.int64

    def test_html(self) -> None:
        html = dead(rl.GlobalPool(3), ["alloc 2", "submit"])._repr_html_()
        assert html.count("<tr>") == html.count("</tr>") > 5
        assert "-&gt; the semaphore -&gt;" in html

    def test_one_story_word_by_word(self) -> None:
        """One flusher and a device that takes a thousand million steps: no other path is likely."""
        fs = rl.Filesystem.from_text("ext2", ["alloc 2", "lock a", "unlock a", "submit"])
        mounts = (rl.Mount(fs, 1, device=rl.Device(1e-9)),)
        scheme = rl.GlobalPool(2, refill="completion")
        scenario = rl.Scenario(rl.Machine(3), mounts, scheme)
        head, legend, numbers, *lines = str(trace(scenario, 2, 3)).splitlines()
        assert head == "global lazy refill-completion, asleep: seed 2, episode 3"
        assert legend.startswith("1 thread, 3 pages, reserve 2; scenario ")
        assert numbers == "threads 0 ext2/0 flusher 0"
        assert "\n".join(lines) == TOLD

    def test_one_deadlock_word_by_word(self) -> None:
        fs = rl.Filesystem.from_text("ext2", ["alloc 2", "submit"])
        scenario = rl.Scenario(rl.Machine(1), (rl.Mount(fs, 1),), rl.Watermark(1))
        assert "\n".join(str(trace(scenario)).splitlines()[3:]) == DEAD


TOLD = """
step          time free pool owner
   0          0.00    1    2     -  the start
   1          1.00    1    2     -  ext2/0 flusher 0 enters
   2          2.00    0    2     -  ext2/0 flusher 0 takes free page 1/2
   3          3.00    0    1     0  ext2/0 flusher 0 takes the
                                    semaphore, pool page 2/2
   4          4.00    0    1     0  ext2/0 flusher 0 takes lock a
   5          5.00    0    1     0  ext2/0 flusher 0 drops lock a
   6          6.00    0    1     0  ext2/0 flusher 0 submits 2 pages, 1
                                    drawn
   7 1000000006.00    1    2     0  bio of ext2/0 flusher 0 done: 1
                                    free, 1 to the pool
   8 1000000007.00    1    2     -  ext2/0 flusher 0 leaves and is done,
                                    drops the semaphore

completed at 1000000007.00 after 8 events; 1 writepage"""
DEAD = """
step time free
   0 0.00    1  the start
   1 1.00    1  ext2/0 flusher 0 enters
   2 2.00    0  ext2/0 flusher 0 takes free page 1/2

deadlocked at 2.00 after 2 events, waiting for pages; 0 writepages

who is stuck:
  ext2/0 flusher 0 has 1 page held, waits for a free page

the wait-for cycle:
  ext2/0 flusher 0 -> a free page -> ext2/0 flusher 0"""
