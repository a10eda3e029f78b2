"""The oracle is held against what is known without it.

Four kinds of truth: 124 cases solved by others (tests/cases/exact.json), the numbers and
statements of section 8, closed forms worked by hand, and invariants recomputed in every state of
random scenarios. Nothing here is random but the scenarios, and they are seeded: no test can fail
by chance.
"""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive
import pytest
from naive import Bio, Chain, Naive, Scenario, Thread, TooManyStates

CASES = Path(__file__).parent / "cases"
EXACT = json.loads((CASES / "exact.json").read_text())
OWN = json.loads((CASES / "own.json").read_text())
OWN_SLICE = OWN[::4]
VALUES = ("deadlock_probability", "livelock_probability", "expected_time")
AVERAGES = ("idle_reserve", "inside", "throughput", "latency", "redirtied")
COUNTS = ("unmerged_states", "deadlocked_states", "shortest_path_steps")


def scenario(
    scheme: str,
    program: list[tuple[str, Any]],
    flushers: int = 3,
    **given: Any,  # noqa: ANN401
) -> Scenario:
    """One mount on a plain device; mount keys and scenario keys both go by name."""
    numbers = [number for step, number in program if step == "alloc"]
    mount: dict[str, Any] = {
        "program": program,
        "flushers": flushers,
        "dirtiers": 0,
        "nr_pages": given["nr_pages"] if "nr_pages" in given else sum(numbers),
        "rate": 1.0,
        "depth": 1,
        "completion_pages": 0,
        "backs_out": False,
        "on": -1,
    }
    for key in mount.keys() & given.keys():
        mount[key] = given.pop(key)
    return {"scheme": scheme, **naive.PLAIN, "pages": 3, "mounts": [mount], **given}


def plain(pages: int) -> list[tuple[str, Any]]:
    return [("alloc", pages), ("submit", None)]


LOCKED: list[tuple[str, Any]] = [
    ("alloc", 1),
    ("lock", "a"),
    ("alloc", 1),
    ("unlock", "a"),
    ("submit", None),
]


def reaches_deadlock(scenario: Scenario) -> bool:
    return "deadlocked" in naive.enumerate_chain(scenario).kinds


def agrees(case: dict[str, Any], keys: tuple[str, ...]) -> bool:
    """To ten digits, and None only where None is expected."""
    solved = naive.solve(case["scenario"])
    return all(
        solved[key] is None
        if case[key] is None
        else solved[key] == pytest.approx(case[key], rel=1e-10, abs=1e-10)
        for key in keys
    )


class TestCasesSolvedByOthers:
    # State counts are "informative" in section 9; they agree too, so they are pinned.
    @pytest.mark.parametrize("number", range(len(EXACT)))
    def test_agrees(self, number: int) -> None:
        assert agrees(EXACT[number], VALUES + COUNTS)


class TestSection8:
    """Its statements, for every small N, A and M, and its six-digit numbers."""

    SMALL = tuple((n, a, m) for n in (1, 2, 3) for a in (1, 2, 3) for m in (1, 2, 3, 4))

    @pytest.mark.parametrize(("n", "a", "m"), SMALL)
    def test_who_deadlocks_iff_the_pages_can_be_spread(self, n: int, a: int, m: int) -> None:
        spread = n * (a - 1) >= m
        for waiting in ("asleep", "racing"):
            for scheme in ("watermark", "mempool", "perthread"):
                case = scenario(scheme, plain(a), n, pages=m, reserve=m, waiting=waiting)
                assert reaches_deadlock(case) == spread, scheme

    @pytest.mark.parametrize(("n", "a", "m"), [nam for nam in SMALL if nam[2] >= nam[1]])
    def test_who_never_deadlocks(self, n: int, a: int, m: int) -> None:
        for waiting in ("asleep", "racing"):
            given: dict[str, Any] = {"pages": m, "quota": 2 if n < 3 else 1, "waiting": waiting}
            assert not reaches_deadlock(scenario("perthread", plain(a), n, whole=True, **given))
            for r in range(a, m + 1):
                given["reserve"] = r
                for draw in ("last", "first"):
                    assert not reaches_deadlock(
                        scenario("tickets", plain(a), n, draw=draw, **given)
                    )
                for refill in ("allocate", "completion"):
                    given["refill"] = refill
                    assert not reaches_deadlock(
                        scenario("global", plain(a), n, on_entry=True, **given)
                    )
                    del given["refill"]

    @pytest.mark.parametrize("waiting", ["asleep", "racing"])
    @pytest.mark.parametrize(("n", "a"), [(2, 2), (3, 2), (2, 3), (3, 3)])
    def test_lazy_pool(self, n: int, a: int, waiting: str) -> None:
        for r in range(a, 7):
            given: dict[str, Any] = {"pages": r, "reserve": r, "waiting": waiting}
            assert reaches_deadlock(scenario("global", plain(a), n, **given))
            given["refill"] = "completion"
            assert not reaches_deadlock(scenario("global", plain(a), n, **given))
            assert not reaches_deadlock(scenario("global", LOCKED, n, **given))
        given = {"pages": 3, "reserve": 2, "waiting": waiting, "refill": "completion"}
        assert reaches_deadlock(scenario("global", LOCKED, n, **given))

    @pytest.mark.parametrize("waiting", ["asleep", "racing"])
    @pytest.mark.parametrize(
        ("scheme", "choices"),
        [
            ("tickets", {}),
            ("tickets", {"draw": "first"}),
            ("global", {"on_entry": True}),
            ("global", {"on_entry": True, "refill": "completion"}),
        ],
    )
    def test_stacks_deadlock(self, scheme: str, choices: dict[str, Any], waiting: str) -> None:
        case = scenario(scheme, plain(2), 1, pages=2, reserve=2, waiting=waiting, **choices)
        assert not reaches_deadlock(case)
        (mount,) = case["mounts"]
        case["mounts"] = [{**mount, "on": 1}, {**mount, "flushers": 0}]
        assert reaches_deadlock(case)

    @pytest.mark.parametrize(
        ("scheme", "choices", "asleep", "racing"),
        [
            ("watermark", {}, 0.336770, 0.336770),
            ("perthread", {}, 0.495873, 0.495873),
            ("global", {}, 0.509938, 0.982863),
            ("global", {"clear_flag": False}, 0.994954, 0.999944),
            ("global", {"refill": "completion"}, 0.0, 0.0),
            ("global", {"on_entry": True}, 0.0, 0.0),
            ("tickets", {}, 0.0, 0.0),
        ],
    )
    def test_numbers(
        self, scheme: str, choices: dict[str, Any], asleep: float, racing: float
    ) -> None:
        for waiting, expected in (("asleep", asleep), ("racing", racing)):
            case = scenario(scheme, plain(2), reserve=3, quota=2, waiting=waiting, **choices)
            assert naive.solve(case)["deadlock_probability"] == pytest.approx(expected, abs=5.1e-7)

    @pytest.mark.parametrize(
        ("choices", "asleep", "racing"),
        [
            ({}, 0.936008, 0.955627),
            ({"refill": "completion"}, 0.976267, 0.969136),
            ({"on_entry": True}, 0.0, 0.0),
        ],
    )
    def test_numbers_with_a_lock(
        self, choices: dict[str, Any], asleep: float, racing: float
    ) -> None:
        for waiting, expected in (("asleep", asleep), ("racing", racing)):
            case = scenario("global", LOCKED, reserve=2, quota=2, waiting=waiting, **choices)
            assert naive.solve(case)["deadlock_probability"] == pytest.approx(expected, abs=5.1e-7)

    @pytest.mark.slow
    def test_section_10(self) -> None:
        for waiting, expected in (("asleep", 0.880), ("racing", 0.732)):
            given: dict[str, Any] = {"pages": 4, "reserve": 2, "quota": 3, "waiting": waiting}
            case = scenario("global", LOCKED, refill="completion", **given)
            assert naive.solve(case)["deadlock_probability"] == pytest.approx(expected, abs=5.1e-4)


class TestByHand:
    def test_time_averages(self) -> None:
        # One page, one writepage. Enter, alloc and submit take 1 each. Then exit and completion
        # race (1/2); with the exit first, the bio flies alone for 1; otherwise the exit takes 1,
        # page free. Time 3 + 1/2 + 1 = 9/2; the page is free during enter, alloc and half of the
        # last 1; inside are alloc, submit, the race, and half of the last 1.
        solved = naive.solve(scenario("watermark", plain(1), 1, pages=1, reserve=1))
        values = {key: solved[key] for key in (*VALUES, *AVERAGES)}
        assert values == pytest.approx(
            {
                "deadlock_probability": 0.0,
                "livelock_probability": 0.0,
                "expected_time": 4.5,
                "idle_reserve": 2.5 / 4.5,
                "inside": 3.0 / 4.5,
                "throughput": 1.0 / 4.5,
                "latency": 3.0,
                "redirtied": 0.0,
            },
            rel=1e-14,
        )

    def test_backing_out(self) -> None:
        # Two flushers want 2 of 2 pages. Both inside with 1 page each, one backs out; the other may
        # take the page before it is back (it needs enter and alloc). Redirtied tries are counted,
        # and the one that starts over is still to be done: exactly 2 writepages.
        case = scenario("watermark", plain(2), 2, pages=2, backs_out=True)
        solved = naive.solve(case)
        assert solved["throughput"] * solved["expected_time"] == pytest.approx(2.0, rel=1e-12)
        assert solved["redirtied"] > 0.25

    def test_no_duration(self) -> None:
        solved = naive.solve(scenario("perthread", plain(2), pages=1, whole=True))
        assert (solved["deadlock_probability"], solved["expected_time"]) == (1.0, 0.0)
        assert (solved["idle_reserve"], solved["throughput"], solved["latency"]) == (None,) * 3

    def test_draws_of_one_firing_are_independent(self) -> None:
        # Thread 1 backs out of an alloc and hands over both its locks. Thread 0 gets b and arrives
        # at a random alloc, where 0 would skip to a second one; thread 2 gets a and draws nothing.
        some: Any = [[0, 0.5], [1, 0.5]]
        program: list[tuple[str, Any]] = [
            ("lock", "a"),
            ("lock", "b"),
            ("alloc", some),
            ("alloc", some),
        ]
        program += [("unlock", "b"), ("unlock", "a"), ("submit", None)]
        case = scenario("watermark", program, pages=1, nr_pages=2, backs_out=True)
        state = Naive(case)
        state.threads[1].place, state.threads[1].want = 2, 1
        state.lock_owners = {(0, "a"): 1, (0, "b"): 1}
        for sleeper, lock in ((0, (0, "b")), (2, (0, "a"))):
            state.threads[sleeper].place = "ab".index(lock[1])
            state.threads[sleeper].asleep = "lock"
            state.lock_queues[lock].append(sleeper)
        state.free = 0
        ways = list(naive.outcomes(state, ("thread", 1)))
        assert [(way.probability, way.draws) for way in ways] == [
            (0.25, {(0, 2): 0, (0, 3): 0}),
            (0.25, {(0, 2): 0, (0, 3): 1}),
            (0.5, {(0, 2): 1}),
        ]
        assert [way.after.threads[0].place for way in ways] == [4, 3, 2]
        assert all(way.after.lock_owners == {(0, "a"): 2, (0, "b"): 0} for way in ways)
        assert state.lock_owners == {(0, "a"): 1, (0, "b"): 1}

    def test_equal_bios_are_one_choice(self) -> None:
        state = Naive(scenario("watermark", plain(1), 2, depth=2, rate=3.0))
        mine, yours = Bio(0, 0, 1, 0, None), Bio(0, 1, 1, 0, None)
        state.in_flight[0] = [mine, yours, mine]
        rates = {choice: rate for choice, rate in state.choices() if choice[0] == "complete"}
        assert rates == {("complete", mine): 4.0, ("complete", yours): 2.0}

    @pytest.mark.parametrize(
        ("expected", "case"),
        [
            ({"entry"}, scenario("tickets", plain(2), 1, reserve=1)),
            ({"entry"}, scenario("perthread", plain(4), 1, whole=True)),
            ({"pages"}, scenario("watermark", plain(4), 1)),
            ({"pages"}, scenario("global", plain(1), 0, dirtiers=1, reserve=3)),
            (
                {"semaphore", "refill"},
                scenario("global", plain(2), 2, pages=2, reserve=2, waiting="racing"),
            ),
            (
                {"own_semaphore"},
                scenario("global", plain(1), 1, pages=1, reserve=1, clear_flag=False, rate=1e-9),
            ),
            ({"completion"}, scenario("watermark", plain(3), 1, completion_pages=1)),
            (
                {"completion", "io"},
                scenario("watermark", [*plain(3), ("wait", None)], 1, completion_pages=1),
            ),
            (
                {"lock", "pages"},
                scenario(
                    "watermark", [("lock", "a"), *plain(4)[:1], ("unlock", "a"), *plain(4)[1:]]
                ),
            ),
        ],
    )
    def test_stuck(self, expected: set[str], case: Scenario) -> None:
        chain = naive.enumerate_chain(case)
        dead = [
            s for s, kind in zip(chain.states, chain.kinds, strict=True) if kind == "deadlocked"
        ]
        assert dead
        assert all(state.deadlocked for state in dead)
        assert expected in [state.stuck() for state in dead]


def random_chains(n: int, seed: int, limit: int) -> list[Chain]:
    """The chains of n random scenarios that are small enough."""
    rng = random.Random(seed)
    chains: list[Chain] = []
    while len(chains) < n:
        try:
            chains.append(naive.enumerate_chain(naive.draw_scenario(rng), limit))
        except TooManyStates:
            continue
    return chains


def pages_in_all(state: Naive) -> int:
    """Every page there is, wherever it is; kills and dirtiers' pages accounted for."""
    total: int

    def bio_pages(bio: Bio | None) -> int:
        if bio is None:
            return 0
        # A dirtier's bio stands for the page it cleans, too.
        cleans = state.threads[bio.owner].kind == "dirtier"
        return bio.pages + cleans + bio_pages(bio.carries)

    def under_reclaim(t: Thread) -> bool:
        """A dirtier's page is off the dirty list and its bio is not on its way yet."""
        program = state.mounts[t.mount]["program"]
        submit = [step for step, _ in program].index("submit")
        before = t.place == "enter" or (isinstance(t.place, int) and t.place <= submit)
        return t.kind == "dirtier" and before

    bios: list[Bio | None] = [t.carried for t in state.threads]
    for waiting in state.in_flight + state.queued:
        bios += waiting
    total = (
        state.free
        + state.dirty
        + state.pool
        + sum(state.mount_pools)
        + sum(t.own + t.claim + t.held + under_reclaim(t) for t in state.threads)
        + sum(bio_pages(bio) for bio in bios)
        + state.kills * state.rules["pages_per_kill"]
    )
    return total


@pytest.fixture(scope="module")
def chains() -> list[Chain]:
    return random_chains(150, seed=2, limit=500)


class TestInvariants:
    """In every state of 150 random chains of up to 500 states, every rule of the space."""

    def test_pages_are_conserved(self, chains: list[Chain]) -> None:
        for chain in chains:
            total = pages_in_all(chain.states[0])
            assert all(pages_in_all(state) == total for state in chain.states)

    def test_an_unowned_semaphore_means_a_full_pool(self, chains: list[Chain]) -> None:
        owned = 0
        for chain in chains:
            for state in chain.states:
                if state.scheme == "global" and state.owner == -1:
                    assert state.pool == state.reserve
                    assert not state.semaphore_queue
                owned += state.owner >= 0
        assert owned > 1000

    def test_nothing_is_negative_and_sleepers_sleep_on_what_is_owned(
        self, chains: list[Chain]
    ) -> None:
        for chain in chains:
            for state in chain.states:
                counts = [state.free, state.dirty, state.pool, state.kills, *state.mount_pools]
                for t in state.threads:
                    counts += [t.want, t.held, t.own, t.drawn, t.claim, t.quota]
                assert min(counts) >= 0
                assert max([0, *state.mount_pools]) <= state.reserve
                queues = [*state.lock_queues.values(), state.semaphore_queue]
                owners = [*state.lock_owners.values(), state.owner]
                assert all(o >= 0 for o, q in zip(owners, queues, strict=True) if q)
                asleep = [t.number for t in state.threads if t.asleep not in ("", "own")]
                assert sorted(sum(queues, [])) == asleep  # noqa: RUF017

    def test_ends(self, chains: list[Chain]) -> None:
        kinds: Counter[str] = Counter()
        for chain in chains:
            kinds.update(chain.kinds)
            for state, kind in zip(chain.states, chain.kinds, strict=True):
                assert state.completed == (kind == "completed")
                assert state.deadlocked == (kind == "deadlocked")
                if state.completed:
                    assert state.choices() == []
                    assert all(t.held + t.drawn + t.claim == 0 for t in state.threads)
        assert min(kinds[kind] for kind in ("completed", "deadlocked", "livelocked")) > 0


class TestOwnCases:
    """tests/cases/own.json: what it promises, and a quarter of it solved again."""

    def test_counts(self) -> None:
        assert len(OWN) == 200
        assert sum(0.05 < case["deadlock_probability"] < 0.95 for case in OWN) >= 100
        cells = Counter(
            (naive.variant_of(case["scenario"]), case["scenario"]["waiting"]) for case in OWN
        )
        assert cells.keys() == {(v, w) for v in naive.VARIANTS for w in ("asleep", "racing")}
        assert min(cells.values()) >= 3

    def test_a_quarter_again(self) -> None:
        assert all(agrees(case, VALUES + AVERAGES + COUNTS) for case in OWN_SLICE)

    def test_the_seed_makes_the_file(self) -> None:
        assert [case["scenario"] for case in naive.generate_cases(3, seed=1)] == [
            case["scenario"] for case in OWN[:3]
        ]


class TestNegativeControls:
    """One rule broken on purpose: the slice of own cases must notice each."""

    @pytest.mark.parametrize(
        ("name", "broken"),
        [
            ("exiting", lambda state, t: "exit" if state.owner != t.number else "release"),
            ("touching", lambda state: "take" if state.free else "reclaim" * (state.dirty > 0)),
            ("outstanding", lambda state, number: False),  # noqa: ARG005
            ("inside", property(lambda state: sum(t.inside for t in state.threads[:1]))),
        ],
    )
    def test_noticed(
        self, name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Naive, name, broken)
        assert not all(agrees(case, VALUES) for case in OWN_SLICE)
