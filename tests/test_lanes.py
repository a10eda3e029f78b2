"""Lanes show what every thread does and has.

Independent implementation: every state of the lanes is the one tests/naive.py is in after the
same steps, and who runs, waits or sleeps there is what its guards say. By hand: lanes, hand-overs
and the closing of the cycle of short paths known by heart. Nothing here is a statistical test.
"""

import random
from typing import Any

import naive
import pandas as pd
import pytest
from naive import Naive
from solved_cases import scenario_from_case

import reservelab as rl
from reservelab.show.lanes import Lanes, lanes

CELLS = [(variant, waiting) for variant in naive.VARIANTS for waiting in ("asleep", "racing")]
LIMIT = 80
pytestmark = pytest.mark.filterwarnings("ignore:mounts")


def abba(waiting: str = "asleep", **scheme: Any) -> rl.Scenario:  # noqa: ANN401
    """A page taken inside a lock needs the semaphore, whose owner may want the lock."""
    program = [rl.alloc(1), rl.lock("journal"), rl.alloc(1), rl.unlock("journal"), rl.submit()]
    mounts = (rl.Mount(rl.Filesystem("fs", program), 2),)
    scheme = {"reserve": 2, "refill": "completion"} | scheme
    return rl.Scenario(rl.Machine(3), mounts, rl.GlobalPool(**scheme), 2, waiting)  # type: ignore[arg-type]


def fixed(case: dict[str, Any]) -> dict[str, Any]:
    """The case with a number for every distribution, since an oracle cannot know what was drawn."""
    for mount in case["mounts"]:
        for step in mount["program"]:
            if isinstance(step[1], list):
                step[1] = step[1][-1][0]
    return case


def drawn(variant: str, waiting: str, seed: int) -> dict[str, Any]:
    """A random case of numbers that the oracle can know."""
    rng = random.Random(f"{variant} {waiting} {seed}")
    return fixed(naive.draw_scenario(rng, variant, waiting))


class TestAgainstTheOracle:
    @pytest.mark.parametrize(("variant", "waiting"), CELLS)
    def test_every_state_is_the_oracles(self, variant: str, waiting: str) -> None:
        for seed in range(2):
            case = drawn(variant, waiting, seed)
            story = rl.trace(scenario_from_case(case), seed, 0, LIMIT)
            self.follow(lanes(story), Naive(case))

    def follow(self, shown: Lanes, oracle: Naive) -> None:
        states = [shown.story.start, *shown.story.events]
        assert shown.states == len(states)
        for event in states:
            if event.step:
                oracle.fire(event.transition, lambda i, step: pytest.fail(f"drew at {i, step}"))
            here = shown.at(event.step)
            assert list(here["thread"]) == list(range(len(oracle.threads)))
            for row, thread in zip(here.to_dict("records"), oracle.threads, strict=True):
                self.check(row, thread, oracle)
            step = shown.steps.iloc[event.step]
            assert (step["free"], step["owner"]) == (oracle.free, oracle.owner)
            assert step["pool"] == oracle.pool + sum(oracle.mount_pools)
            edges = shown.waits[shown.waits["step"] == event.step]
            threads = {shown.story.threads.index(w) for w in edges["waiter"] if "bio of" not in w}
            assert threads == set(here.loc[here["reason"] != "", "thread"])

    def check(self, row: dict[Any, Any], thread: naive.Thread, oracle: Naive) -> None:
        has = {name: row[name] for name in ("want", "held", "own", "drawn", "claim")}
        assert has == {name: getattr(thread, name) for name in has}
        owned = [name for (_, name), who in oracle.lock_owners.items() if who == thread.number]
        assert row["locks"] == ", ".join(owned)
        assert row["semaphore"] == (oracle.owner == thread.number)
        assert row["inside"] == thread.inside
        if isinstance(thread.place, int):
            verb, value = oracle.step(thread)
            assert row["place"] == (f"{verb} {value}" if value is not None else verb)
        else:
            assert row["place"] == thread.place
        if thread.place in ("idle", "done"):
            assert row["activity"] == thread.place
        elif thread.asleep:
            assert row["activity"] == "asleep"
        else:
            assert row["activity"] == ("running" if oracle.enabled(thread) else "waiting")
        stuck = row["activity"] in ("waiting", "asleep")
        assert (row["reason"] != "") == stuck == (row["what"] != "")
        if stuck:
            assert row["reason"] == oracle.reason(thread)

    def test_intervals_cover_every_lane_and_do_not_repeat(self) -> None:
        shown = lanes(rl.trace(abba(), 1, 0))
        for _, lane in shown.intervals.groupby("thread"):
            assert lane["start"].iloc[0] == 0
            assert lane["end"].iloc[-1] == shown.states
            assert (lane["start"].iloc[1:].array == lane["end"].iloc[:-1].array).all()
            rest = lane.drop(columns=["start", "end"])
            assert not (rest.shift() == rest).all(axis=1).any()


class TestByHand:
    @pytest.mark.parametrize("waiting", ["asleep", "racing"])
    def test_the_abba(self, waiting: str) -> None:
        proof = rl.prove(abba(waiting))
        shown = lanes(proof)
        assert proof.story is not None
        last = shown.at(shown.states - 1)
        assert sorted(last["reason"]) == ["lock", "semaphore"]
        assert set(last["activity"]) == {"asleep" if waiting == "asleep" else "waiting"}
        assert list(last["held"]) == [1, 1]
        owner = last[last["semaphore"]]
        assert list(owner["what"]) == ["lock journal"]
        assert list(last.loc[last["locks"] == "journal", "what"]) == ["the semaphore"]
        assert shown.closed == shown.states - 1
        assert set(shown.waits.loc[shown.waits["step"] == shown.closed, "waiter"]) == set(
            shown.story.threads
        )

    def test_the_cycle_closes_when_its_last_edge_stands(self) -> None:
        """It ends later: others go on until they stand behind it."""
        program = [rl.alloc(1), rl.lock("a"), rl.alloc(1), rl.unlock("a"), rl.submit()]
        fs = rl.Filesystem("fs", program)
        other = rl.Filesystem("other", [rl.submit()])
        mounts = (rl.Mount(fs, 2), rl.Mount(other, 1))
        scheme = rl.GlobalPool(2, refill="completion")
        scenario = rl.Scenario(rl.Machine(3), mounts, scheme, 2)
        stories = (rl.trace(scenario, 1, episode) for episode in range(200))
        story = next(
            s for s in stories
            if s.ending == "deadlocked" and lanes(s).closed < len(s.events)
        )  # fmt: skip
        shown = lanes(story)
        after = shown.steps.loc[shown.closed + 1 :, "thread"]
        assert set(after) <= {2, -1}  # the other mount's thread, and completions
        before, closed = (shown.waits[shown.waits["step"] == shown.closed - k] for k in (1, 0))
        names = {wait.waiter for wait in story.cycle}
        assert names <= set(closed["waiter"])
        assert not names <= set(before["waiter"])

    def test_hand_overs(self) -> None:
        fs = rl.Filesystem("fs", [rl.lock("l"), rl.unlock("l"), rl.submit()])
        scenario = rl.Scenario(rl.Machine(0), (rl.Mount(fs, 2),), rl.Watermark(0), 4)
        shown = lanes(rl.trace(scenario, 1, 0))
        assert len(shown.hand_overs) > 0
        for row in shown.hand_overs.to_dict("records"):
            assert row["what"] == "lock l"
            assert {row["giver"], row["taker"]} == {0, 1}
            before, after = shown.at(row["step"] - 1), shown.at(row["step"])
            assert before.loc[row["giver"], "locks"] == after.loc[row["taker"], "locks"] == "l"
            assert before.loc[row["taker"], "activity"] == "asleep"

    def test_drawn_numbers_are_drawn_again(self) -> None:
        fs = rl.Filesystem("fs", [rl.alloc({0: 0.3, 1: 0.3, 3: 0.4}), rl.submit()])
        scenario = rl.Scenario(rl.Machine(4), (rl.Mount(fs, 3),), rl.Watermark(2), 3)
        for told in (rl.trace(scenario, 2, 5), rl.prove(scenario)):
            shown = lanes(told)
            frame = shown.story.frame()
            pd.testing.assert_frame_equal(shown.steps[frame.columns], frame)
            for event in shown.story.events:
                held = sum(shown.at(event.step)["held"])
                assert event.free + held + shown.steps["bio_pages"].iloc[event.step] == 4

    def test_an_unbounded_way(self) -> None:
        proof = rl.prove(abba(), quota="unbounded")
        shown = lanes(proof)
        assert shown.states == len(proof.path) + 1
        assert set(shown.at(shown.states - 1)["activity"]) == {"asleep"}

    def test_bios_of_a_stack_are_counted_at_every_depth(self) -> None:
        fs = rl.Filesystem("fs", [rl.alloc(1), rl.submit()])
        mounts = (rl.Mount(fs), rl.Mount(fs, 1, on=0))
        shown = lanes(rl.trace(rl.Scenario(rl.Machine(4), mounts, rl.Watermark(0), 1), 1, 0))
        assert shown.steps["bios"].max() == shown.steps["bio_pages"].max() == 2
        assert shown.steps["bios"].iloc[-1] == 0

    def test_what_a_dirtier_cleans_is_a_page_that_can_come_free(self) -> None:
        fs = rl.Filesystem("fs", [rl.alloc(2), rl.submit()])
        mounts = (rl.Mount(fs, 0, dirtiers=1),)
        story = rl.trace(rl.Scenario(rl.Machine(1), mounts, rl.Watermark(0), 4), 1, 0)
        assert story.ending == "deadlocked"
        assert any("the page it cleans" in wait.has for wait in story.waits)
        assert len(story.cycle) == 1

    def test_a_certificate_has_no_lanes(self) -> None:
        with pytest.raises(rl.BadInput, match=r"^proof: is a certificate"):
            lanes(rl.prove(abba(on_entry=True)))
