"""The compiled rules, held step by step against the second implementation and against themselves.

Independent implementation: tests/naive.py and `Walk` are in the same state, list the same
transitions at the same rates, are given the same choice and the same drawn numbers, and must be in
the same state again; hypothesis draws the scenarios, the choices and the numbers. Own limits: the
sixteen invariants of solve/walk.py in every state, and a planted breach of each. Others' truth: the
states that can be reached at all, counted in tests/cases/exact.json.

Nothing here is a statistical test. A wrong rule shows as the first state that differs.
"""

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn_scenarios
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import Naive
from solved_cases import EXACT, OWN, scenario_from_case

import reservelab as rl
from reservelab.model import pack as p
from reservelab.model.scenario import Waiting
from reservelab.solve.simulate import weigh
from reservelab.solve.walk import BrokenInvariant, Transition, Walk

MOST_STEPS = 150


class Numbers:
    """Gives both implementations the same numbers, whichever asks first, and notes who asked."""

    def __init__(self, oracle: Naive, rng: random.Random) -> None:
        self.oracle = oracle
        self.rng = rng
        self.given: dict[tuple[int, int], int] = {}
        self.asked: list[tuple[int, int]] = []

    def __call__(self, thread: int, step: int) -> int:
        self.asked.append((thread, step))
        if (thread, step) not in self.given:
            mount = self.oracle.mounts[self.oracle.threads[thread].mount]
            numbers = [number for number, chance in mount["program"][step][1] if chance > 0]
            self.given[thread, step] = self.rng.choice(numbers)
        return self.given[thread, step]

    def next_one(self) -> None:
        self.given, self.asked = {}, []


def waiting(oracle: Naive) -> Counter[str]:
    """Threads that wait, by what the tally counts them under."""
    counted = {"refill": "pages", "own_semaphore": "semaphore"}
    reasons: Counter[str] = Counter()
    for thread in oracle.threads:
        if thread.place not in ("idle", "done") and not oracle.enabled(thread):
            reason = oracle.reason(thread)
            reasons[counted.get(reason, reason)] += 1
    return reasons


def agree(oracle: Naive, walk: Walk) -> list[tuple[Transition, float]]:
    """Assert that two states are the same in every respect; return what may happen next."""
    walk.check()
    assert tuple(oracle.snapshot()) == tuple(walk.snapshot())
    choices = oracle.choices()
    # The same floating-point operations in the same order.
    assert dict(choices) == dict(walk.transitions())
    assert oracle.completed == walk.completed
    if not choices:
        assert oracle.deadlocked == walk.deadlocked
        assert not oracle.deadlocked or oracle.stuck() == walk.stuck()
    s, t = walk.state, walk.tables.t
    assert oracle.inside == s[p.S_INSIDE]
    assert oracle.idle_reserve() == s[p.S_ASIDE] + min(t[p.H_MARK], s[p.S_FREE])
    assert (oracle.writepages, oracle.redirtied) == (s[p.S_WRITEPAGES], s[p.S_REDIRTIED])
    weights = np.full(t[p.H_CONDITIONAL] + t[p.H_MOUNTS], np.nan)
    total, *numbers = weigh(t, walk.tables.f, s, weights)
    assert total == pytest.approx(sum(rate for (kind, *_), rate in choices if kind != "kill"))
    assert weights.sum() == pytest.approx(total)
    reasons = waiting(oracle)
    assert numbers == [reasons[name] for name in ("entry", "pages", "semaphore", "lock")]
    return choices


def step_by_step(case: dict[str, Any], rng: random.Random) -> Naive:
    """Walk one path in both; return where it led."""
    oracle, walk = Naive(case), Walk(scenario_from_case(case))
    numbers = Numbers(oracle, rng)
    for _ in range(MOST_STEPS):
        choices = agree(oracle, walk)
        if not choices:
            break
        transition, _ = rng.choice(choices)
        numbers.next_one()
        oracle.fire(transition, numbers)
        asked, numbers.asked = numbers.asked, []
        walk.fire(transition, numbers)
        assert sorted(asked) == sorted(numbers.asked)
    return oracle


def passes(case: dict[str, Any], rng: random.Random) -> bool:
    try:
        step_by_step(case, rng)
    except AssertionError:
        return False
    return True


def corner(scheme: str, program: list[list[Any]], **given: Any) -> dict[str, Any]:  # noqa: ANN401
    """Three flushers that want two writepages of three pages, but for what is given."""
    mount = {
        "program": program, "flushers": 3, "dirtiers": 0, "nr_pages": 2, "rate": 0.5, "depth": 2,
        "completion_pages": 0, "backs_out": False, "on": -1,
    }  # fmt: skip
    mount |= {key: given.pop(key) for key in mount.keys() & given.keys()}
    return {"scheme": scheme, **naive.PLAIN, "pages": 3, "quota": 2, "mounts": [mount], **given}


SUBMIT: list[list[Any]] = [["submit", None]]
NONE_AT_TIMES: list[list[Any]] = [["alloc", [[0, 0.5], [2, 0.5]]], *SUBMIT]
CORNERS = {
    # A bio of no pages is still out when the reserve is whole again.
    "standing": corner("perthread", NONE_AT_TIMES, standing=True, quota=20, flushers=1),
    "nothing to reserve": corner("perthread", [["alloc", 1], *SUBMIT], nr_pages=0),
    "alloc 0": corner("mempool", [["alloc", 0], ["alloc", 0], ["alloc", 1], *SUBMIT], reserve=1),
    "only alloc 0": corner("tickets", [["alloc", 0], *SUBMIT], reserve=2),
    # With R = 0 a semaphore is handed over that has no page behind it.
    "no pool": corner("global", [["alloc", 2], *SUBMIT], quota=3),
    "no pool, from bios": corner("global", [["alloc", 2], *SUBMIT], refill="completion"),
    "no pool, racing": corner("global", [["alloc", 2], *SUBMIT], waiting="racing"),
    # Two devices lack memory at once.
    "completion": {
        **(two := corner("watermark", [["alloc", 1], *SUBMIT], completion_pages=2)),
        "mounts": two["mounts"] * 2,
    },
    # A bio carries pages of the pool above through the filesystem below.
    "carried": {
        **(above := corner("mempool", [["alloc", 2], *SUBMIT], reserve=1, pages=4, on=1)),
        "mounts": [above["mounts"][0], {**above["mounts"][0], "on": -1, "flushers": 1}],
    },
}


class TestStepByStep:
    @pytest.mark.truth(
        "independent implementation", "the rules, step by step, on drawn paths", "tests/naive.py"
    )
    @pytest.mark.parametrize("variant", naive.VARIANTS)
    @given(rng=st.randoms(use_true_random=False), how=st.sampled_from(["asleep", "racing"]))
    def test_same_states_transitions_ends_and_counters(
        self, variant: str, rng: random.Random, how: str
    ) -> None:
        step_by_step(naive.draw_scenario(rng, variant, how), rng)

    @given(rng=st.randoms(use_true_random=False), number=st.integers(0, len(EXACT + OWN) - 1))
    def test_solved_cases(self, rng: random.Random, number: int) -> None:
        step_by_step((EXACT + OWN)[number]["scenario"], rng)

    @pytest.mark.parametrize("corner", CORNERS)
    def test_corners_that_are_seldom_drawn(self, corner: str) -> None:
        """Mutants of the rules that random scenarios let live led to these."""
        for seed in range(60):
            step_by_step(CORNERS[corner], random.Random(seed))

    def test_the_plain_python_of_the_rules_too(self) -> None:
        """Compiled code alone could hide a bug of the compiler; three variants touch most rules."""
        some = "backs_out or standing or (lazy and allocate and keeps)"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
        done = subprocess.run(
            [*command, "-k", f"test_same_states and ({some})"],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert "3 passed" in done.stdout

    @pytest.mark.parametrize(
        ("name", "broken"),
        [
            ("exiting", lambda state, t: "exit" if state.owner != t.number else "release"),
            ("touching", lambda state: "take" if state.free else "reclaim" * (state.dirty > 0)),
            ("outstanding", lambda state, number: False),  # noqa: ARG005
            ("granting", lambda state, t: "free" if state.free else ""),  # noqa: ARG005
            ("reason", lambda state, t: "pages"),  # noqa: ARG005
            ("release_semaphore", lambda state, draw: setattr(state, "owner", -1)),  # noqa: ARG005
        ],
    )
    def test_a_wrong_rule_is_noticed(
        self, name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Naive, name, broken)
        assert not all(passes(case["scenario"], random.Random(k)) for k, case in enumerate(OWN))

    def test_paths_reach_every_end(self) -> None:
        """What hypothesis is given to draw from leads everywhere; 400 paths, seeded."""
        rng = random.Random(2)
        ends: Counter[str] = Counter()
        for _ in range(400):
            oracle = step_by_step(naive.draw_scenario(rng), rng)
            ends["completed"] += oracle.completed
            ends["deadlocked"] += oracle.deadlocked
            ends["redirtied"] += oracle.redirtied > 0
            ends["killed"] += oracle.kills < oracle.rules["kills"]
            ends["stacked"] += any(mount["on"] >= 0 for mount in oracle.mounts)
            if oracle.deadlocked:
                ends.update(oracle.stuck())
        assert ends.keys() >= {"completed", "deadlocked", "redirtied", "killed", "stacked"}
        assert ends.keys() >= set(p.REASONS)
        assert min(ends.values()) >= 3, ends


class TestWalk:
    @pytest.mark.parametrize(
        "transition",
        [
            ("thread", 4),
            ("kill",),
            ("complete", (0, 0, 1, 0, None)),
            ("pick", 4, None),
            ("thread", 9),
        ],
    )
    def test_what_is_not_enabled_does_not_fire(self, transition: Transition) -> None:
        walk = Walk(machine(rl.Watermark(1)))
        before = walk.state.copy()
        with pytest.raises(ValueError, match="not enabled"):
            walk.fire(transition, lambda *_: 1)
        assert (walk.state == before).all()

    def test_a_copy_is_its_own(self) -> None:
        walk = Walk(machine(rl.Watermark(1)))
        twin = walk.copy()
        twin.fire(("thread", 0), lambda *_: 1)
        assert walk.snapshot() == Walk(walk.scenario).snapshot() != twin.snapshot()
        twin.check()

    def test_no_room_for_a_bio(self) -> None:
        fs = rl.Filesystem.from_text("fs", ["submit"])
        mounts = (rl.Mount(fs, 1, device=rl.Device(1e-9)),)
        walk = Walk(rl.Scenario(rl.Machine(1), mounts, rl.Watermark(0), quota=3), bios=2)
        for _ in range(7):  # two writepages, and the third's enter
            walk.fire(("thread", 0), lambda *_: 1)
        with pytest.raises(RuntimeError, match="no room for more than 2 bios"):
            walk.fire(("thread", 0), lambda *_: 1)


class Undrawn(Exception):
    """A random alloc is reached whose number was not given yet."""


def ways(walk: Walk, transition: Transition) -> Iterator[Walk]:
    """Every state that a transition can lead to."""
    pending: list[dict[tuple[int, int], int]] = [{}]
    while pending:
        draws = pending.pop()
        missing: list[tuple[int, int]] = []

        def draw(
            thread: int,
            step: int,
            draws: dict[tuple[int, int], int] = draws,
            missing: list[tuple[int, int]] = missing,
        ) -> int:
            if (thread, step) not in draws:
                missing.append((thread, step))
                raise Undrawn
            return draws[thread, step]

        after = walk.copy()
        try:
            after.fire(transition, draw)
        except Undrawn:
            ((thread, step),) = missing
            filesystem = walk.scenario.mounts[walk.mount_of[thread]].filesystem
            pending += [{**draws, (thread, step): n} for n, _ in filesystem.program[step].demand]
        else:
            yield after


class TestReachableStates:
    """Section 9's counts: states without merging, deadlocked ones, steps to the nearest."""

    SMALL = tuple(k for k, case in enumerate(EXACT) if case["unmerged_states"] <= 60)

    @pytest.mark.parametrize("number", SMALL)
    def test_counts(self, number: int) -> None:
        case = EXACT[number]
        walk = Walk(scenario_from_case(case["scenario"]))
        steps = {walk.snapshot(): 0}
        dead: list[int] = []
        todo = [walk]
        for here in todo:
            here.check()
            reached = steps[here.snapshot()]
            if here.deadlocked:
                dead.append(reached)
            for transition, _ in here.transitions():
                for after in ways(here, transition):
                    if after.snapshot() not in steps:
                        steps[after.snapshot()] = reached + 1
                        todo.append(after)
        assert len(steps) == case["unmerged_states"]
        assert len(dead) == case["deadlocked_states"]
        assert min(dead, default=None) == case["shortest_path_steps"]


def machine(
    scheme: rl.Scheme,
    how: Waiting = "asleep",
    dirtiers: int = 0,
    backs_out: bool = False,
    pages: int = 6,
) -> rl.Scenario:
    """A stack of two mounts with a lock, random allocs and a wait."""
    program = ["alloc 1", "lock j", "alloc 1:0.5 2:0.5", "unlock j", "submit", "wait"]
    fs = rl.Filesystem.from_text("fs", program, backs_out=backs_out)
    mounts = (rl.Mount(fs, 3, dirtiers), rl.Mount(fs, 1, on=0))
    return rl.Scenario(rl.Machine(pages, dirty=1), mounts, scheme, quota=2, waiting=how)


COMPOSED = drawn_scenarios.composed_schemes()


class TestComposedSchemes:
    """Most have no name and so no second implementation: the invariants, on random paths."""

    def test_there_are_some(self) -> None:
        assert len([scheme for scheme in COMPOSED if scheme.family == "custom"]) > 40
        assert {scheme.variant for scheme in COMPOSED} >= set(rl.variants())

    @given(
        st.sampled_from(COMPOSED),
        st.sampled_from([None, 1, 2]),
        st.sampled_from(["asleep", "racing"]),
        st.booleans(),
        st.randoms(use_true_random=False),
    )
    def test_invariants(
        self,
        scheme: rl.Scheme,
        limit: int | None,
        how: Waiting,
        backs_out: bool,
        rng: random.Random,
    ) -> None:
        if scheme.entry != "semaphore":
            scheme = replace(scheme, max_sections=limit)
        pages = 20 if scheme.start == "own" else 6
        walk = Walk(machine(scheme, how=how, dirtiers=1, backs_out=backs_out, pages=pages))
        for _ in range(MOST_STEPS):
            walk.check()
            choices = walk.transitions()
            if not choices:
                assert walk.completed != bool(walk.stuck())
                break
            walk.fire(rng.choice(choices)[0], lambda *_: rng.choice([1, 2]))


# --- checking mode -------------------------------------------------------------------------------


def busy(scenario: rl.Scenario, wanted: Callable[[Walk], bool], seed: int = 1) -> Walk:
    """A state of the scenario in which something is true, found at random."""
    rng = random.Random(seed)
    for _ in range(200):
        walk = Walk(scenario)
        while choices := walk.transitions():
            walk.fire(
                rng.choice(choices)[0],
                lambda i, step: rng.choice([1, 2]),  # noqa: ARG005
            )
            if wanted(walk):
                walk.check()
                return walk
    raise AssertionError("no such state was found")


def thread_field(i: int, field: int) -> int:
    """Where a field of a thread stands in the state."""
    return p.S_THREAD + i * p.S_THREAD_ROW + field


POOL = rl.GlobalPool(3)


def queued(walk: Walk, number: int) -> bool:
    snapshot = walk.snapshot()
    queues = [snapshot.semaphore_queue, *(queue for _, queue in snapshot.lock_queues)]
    return max(map(len, queues)) >= number


def owned(walk: Walk) -> bool:
    return walk.snapshot().owner >= 0


def sleeping(walk: Walk) -> bool:
    return len(walk.snapshot().semaphore_queue) >= 2


def flying(walk: Walk) -> bool:
    return sum(map(len, walk.snapshot().in_flight)) >= 2


def lock_owned(walk: Walk) -> bool:
    return any(owner >= 0 for _, owner in walk.snapshot().lock_owners)


def set_scalar(place: int, change: int) -> Callable[[Walk], None]:
    def corrupt(walk: Walk) -> None:
        walk.state[place] += change

    return corrupt


def set_thread(field: int, value: int, who: Callable[[Walk], int]) -> Callable[[Walk], None]:
    def corrupt(walk: Walk) -> None:
        walk.state[thread_field(who(walk), field)] = value

    return corrupt


def first(walk: Walk, **wanted: Any) -> int:  # noqa: ANN401
    """The first thread whose state has these values."""
    for i, thread in enumerate(walk.snapshot().threads):
        if all(getattr(thread, key) == value for key, value in wanted.items()):
            return i
    raise AssertionError(f"no thread with {wanted}")


def move_pages(walk: Walk) -> None:
    """A page drawn by the owner is called free: the sum is the same."""
    walk.state[p.S_FREE] += walk.state[p.S_POOL]
    walk.state[p.S_ASIDE] -= walk.state[p.S_POOL]
    walk.state[p.S_POOL] = 0


def lose_lock(walk: Walk) -> None:
    locks = walk.tables.t[p.H_S_LOCK]
    for k in range(walk.tables.t[p.H_LOCKS]):
        walk.state[locks + k * p.S_LOCK_ROW + p.LOCK_OWNER] = p.NOBODY


def swap_sleepers(walk: Walk) -> None:
    """The first two sleepers of the semaphore change places, in a queue that is well formed."""
    s = walk.state
    a, b, *rest = walk.snapshot().semaphore_queue
    s[p.S_HEAD] = b
    s[thread_field(b, p.NEXT)] = a
    s[thread_field(a, p.NEXT)] = rest[0] if rest else p.NOBODY
    s[p.S_TAIL] = rest[-1] if rest else a


def steal_semaphore(walk: Walk) -> None:
    owner = walk.snapshot().owner
    walk.state[p.S_OWNER] = next(i for i in range(4) if i != owner)


def refilling(walk: Walk) -> bool:
    """The owner's bio has taken what was drawn with it, and is not back."""
    drawn = any(bio.drawn for bios in walk.snapshot().in_flight for bio in bios)
    return drawn and not walk.snapshot().semaphore_queue


def disown(walk: Walk) -> None:
    walk.state[p.S_OWNER] = p.NOBODY


def forget_class(walk: Walk) -> None:
    s = walk.state
    for i in range(1, 4):
        if s[thread_field(i, p.CLASS)] != s[thread_field(0, p.CLASS)]:
            for field in (p.CLASS, p.POSITION):
                a, b = thread_field(0, field), thread_field(i, field)
                s[a], s[b] = s[b], s[a]
            return


def same_slot_twice(walk: Walk) -> None:
    bag = walk.tables.t[p.H_S_BAG]
    walk.state[bag] = walk.state[bag + 1]


def carry_nothing(walk: Walk) -> None:
    worker = walk.serves.index(1)
    walk.state[thread_field(worker, p.CARRIES)] = p.NOBODY


def carrying(walk: Walk) -> bool:
    return any(bio is not None for bio in walk.snapshot().carried)


def at_alloc(walk: Walk) -> int:
    return next(i for i, t in enumerate(walk.snapshot().threads) if t.want > 0)


def wants(walk: Walk) -> bool:
    return any(thread.want > 0 for thread in walk.snapshot().threads)


BREACHES: list[tuple[str, rl.Scenario, Callable[[Walk], bool], Callable[[Walk], None]]] = [
    ("I1", machine(POOL), owned, set_scalar(p.S_FREE, 1)),
    ("I1", machine(POOL, dirtiers=1), flying, set_scalar(p.S_DIRTY, 1)),
    ("I1", machine(POOL), wants, set_thread(p.HELD, 5, at_alloc)),
    ("I2", machine(rl.Tickets(3)), wants, set_thread(p.QUOTA, -1, lambda _: 0)),
    ("I3", machine(POOL), lambda w: w.snapshot().pool > 0, move_pages),
    ("I3", machine(rl.Tickets(6)), lambda w: w.snapshot().pool > 0, move_pages),
    ("I4", machine(POOL), wants, set_thread(p.WANT, 0, at_alloc)),
    ("I4", machine(POOL), wants, set_thread(p.QUOTA, 0, lambda _: 0)),
    ("I5", machine(POOL), lock_owned, lose_lock),
    ("I6", machine(POOL), owned, steal_semaphore),
    ("I6", machine(rl.Mempool(1)), wants, set_scalar(p.S_OWNER, 1)),
    ("I7", machine(rl.GlobalPool(3, refill="completion")), refilling, disown),
    ("I8", machine(POOL), sleeping, set_scalar(p.S_TAIL, 1)),
    ("I8", machine(POOL), sleeping, set_scalar(p.S_HEAD, p.NOBODY)),
    ("I8", machine(POOL), lambda w: queued(w, 1), set_thread(p.ASLEEP, p.AWAKE, lambda w: next(
        i for i, t in enumerate(w.snapshot().threads) if t.asleep))),
    ("I9", machine(POOL), sleeping, swap_sleepers),
    ("I10", machine(POOL), owned, forget_class),
    ("I11", machine(rl.Watermark(1, max_sections=2)), flying, set_scalar(p.S_INSIDE, 1)),
    ("I12", machine(rl.PerThread()), flying, set_scalar(p.S_ASIDE, 1)),
    ("I13", machine(rl.Watermark(1)), flying, same_slot_twice),
    ("I14", machine(rl.Watermark(1)), carrying, carry_nothing),
    ("I14", machine(rl.Watermark(1)), flying, set_thread(p.OUT, 7, lambda _: 0)),
    ("I15", machine(rl.Watermark(1)), flying, set_scalar(p.S_MOVED, 1)),
    ("I16", machine(rl.Watermark(1)), flying, set_scalar(p.S_WRITEPAGES, -9)),
]  # fmt: skip


class TestInvariants:
    """`step_by_step` checks them in every state; here each is broken on purpose."""

    @pytest.mark.parametrize(
        ("number", "scenario", "wanted", "corrupt"),
        BREACHES,
        ids=[f"{k}-{number}" for k, (number, *_) in enumerate(BREACHES)],
    )
    def test_a_breach_is_noticed(
        self,
        number: str,
        scenario: rl.Scenario,
        wanted: Callable[[Walk], bool],
        corrupt: Callable[[Walk], None],
    ) -> None:
        walk = busy(scenario, wanted)
        corrupt(walk)
        with pytest.raises(BrokenInvariant) as caught:
            walk.check()
        assert caught.value.number == number, caught.value
        assert str(caught.value).startswith(f"{number}: ")
