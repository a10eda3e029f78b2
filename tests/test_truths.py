"""`exact`, `prove` and `simulate` by four kinds of truth, one class each.

Closed forms are worked by hand or stated in MODEL.md section 8. The exact chain is what Monte Carlo
is held against, over scenarios drawn from the whole space of rules. Limits are what a scenario must
become at the ends of its range. Independent implementations are tests/naive.py here, and Storm in
tests/test_export.py. Negative controls: tests/test_mutants.py.

`TestExactChain` is the one class with chance in it, and says how often it errs; the rest cannot
fail by chance. Each test's mark says its source and stands in data/verification/table.txt.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import drawn_scenarios
import naive
import numpy as np
import p_values
import pytest
from scipy import stats
from solved_cases import EXACT, OWN, scenario_from_case

import reservelab as rl
from reservelab.model.scenario import Waiting
from reservelab.solve import states
from reservelab.solve.walk import Walk

pytestmark = pytest.mark.filterwarnings("ignore:mounts")  # a pool that can never be enough

Record = Callable[[str, object], None]
WAITING: tuple[Waiting, ...] = ("asleep", "racing")
SECTION_8 = "MODEL.md section 8"
BY_HAND = "worked by hand in the test"
LOCKED = rl.Filesystem.from_text("locked", ["alloc 1", "lock a", "alloc 1", "unlock a", "submit"])


def plain(pages: int) -> rl.Filesystem:
    return rl.Filesystem("plain", [rl.alloc(pages), rl.submit()])


def flushers(
    scheme: rl.Scheme,
    number: int,
    pages: int,
    filesystem: rl.Filesystem | None = None,
    quota: int = 2,
    waiting: Waiting = "asleep",
    rate: float = 1.0,
) -> rl.Scenario:
    mounts = [rl.Mount(filesystem or plain(2), number, device=rl.Device(rate))]
    return rl.Scenario(rl.Machine(pages), mounts, scheme, quota, waiting)


def stack(scheme: rl.Scheme, pages: int, waiting: Waiting = "asleep") -> rl.Scenario:
    """One flusher on a mount that stands on another of the same kind; two pages each."""
    mounts = [rl.Mount(plain(2), 1, on=1), rl.Mount(plain(2))]
    return rl.Scenario(rl.Machine(pages), mounts, scheme, 1, waiting)


def deviation(found: float | None, expected: float | None) -> float:
    """Relative; infinite where one of the two is not there."""
    if found is None or expected is None:
        return 0.0 if found is expected else float("inf")
    return abs(found - expected) / max(abs(found), abs(expected), 1e-300)


def is_safe(scenario: rl.Scenario) -> bool:
    """What `prove` says, once its certificate is complete or its path has led to a deadlock."""
    proof = rl.prove(scenario)
    if proof.safe:
        assert proof.processed == proof.states
        assert proof.path == ()
        return True
    replay(proof)
    return False


def replay(proof: rl.Proof) -> None:
    """Every step of the path is one the engine lists, up to a state where it lists none."""
    walk = Walk(proof.scenario)
    for event in proof.path:
        assert event.transition in [transition for transition, _ in walk.transitions()]
        walk.fire(event.transition, lambda _, __: 1)
    assert walk.deadlocked
    assert walk.stuck() == set(proof.story.reasons if proof.story else ())


class TestClosedForms:
    """Statements and numbers of MODEL.md section 8, and values worked by hand."""

    @pytest.mark.truth("closed form", "plain pools: reachable iff N (A - 1) >= M", SECTION_8)
    @pytest.mark.parametrize("waiting", WAITING)
    def test_reachable_iff_the_pages_can_be_spread(
        self, waiting: Waiting, record_property: Record
    ) -> None:
        number = 0
        for n, a, m in product((1, 2, 3, 4), (1, 2, 3), (1, 2, 3, 4, 5)):
            for scheme in (rl.Watermark(m), rl.Mempool(m), rl.PerThread()):
                if scheme == rl.PerThread() and a > m:
                    continue  # nobody can ever enter
                case = flushers(scheme, n, m, plain(a), waiting=waiting)
                assert is_safe(case) == (n * (a - 1) < m), (scheme, n, a, m)
                if n * (a - 1) >= m:
                    # Everybody must have entered and every page be taken; to take own pages is to
                    # enter, so nobody else can then.
                    shortest = m if scheme == rl.PerThread() else n + m
                    assert len(rl.prove(case).path) == shortest
                number += 1
        record_property("scenarios", number)

    @pytest.mark.truth("closed form", "whole, tickets, on entry: never", SECTION_8)
    @pytest.mark.parametrize("waiting", WAITING)
    def test_never(self, waiting: Waiting, record_property: Record) -> None:
        number = 0
        for n, a, m in product((1, 2, 3, 4), (1, 2, 3), (1, 2, 3, 4)):
            if a > m:
                continue
            schemes = [rl.PerThread(whole=True)]
            for r in range(a, m + 1):
                schemes += [rl.Tickets(r), rl.Tickets(r, draw="first")]
                schemes += [rl.GlobalPool(r, on_entry=True)]
                schemes += [rl.GlobalPool(r, on_entry=True, refill="completion")]
            for scheme in schemes:
                assert is_safe(flushers(scheme, n, m, plain(a), waiting=waiting))
            number += len(schemes)
        record_property("scenarios", number)

    @pytest.mark.truth("closed form", "the lazy pool, alone and with a lock", SECTION_8)
    @pytest.mark.parametrize("waiting", WAITING)
    def test_lazy_pool(self, waiting: Waiting, record_property: Record) -> None:
        number = 0
        for n, a, r in product((2, 3, 4), (2, 3), (2, 3, 4, 5)):
            if r < a:
                continue
            # Others take the pages the owner waits for, whatever R is; refilled by its own bios the
            # pool has nobody else to lose pages to.
            lazy = flushers(rl.GlobalPool(r), n, r, plain(a), quota=3, waiting=waiting)
            assert not is_safe(lazy)
            completion = rl.GlobalPool(r, refill="completion")
            assert is_safe(flushers(completion, n, r, plain(a), waiting=waiting))
            assert is_safe(flushers(completion, n, r, LOCKED, waiting=waiting))
            number += 3
        # The ABBA, which needs pages beyond the pool, and no more than the threads can hold.
        for n, m in ((2, 3), (3, 3), (3, 4), (4, 5)):
            completion = rl.GlobalPool(2, refill="completion")
            assert not is_safe(flushers(completion, n, m, LOCKED, waiting=waiting))
            number += 1
        record_property("scenarios", number)

    @pytest.mark.truth("closed form", "stacks undo what is safe without them", SECTION_8)
    @pytest.mark.parametrize("waiting", WAITING)
    @pytest.mark.parametrize(
        "scheme",
        [
            rl.Tickets(2),
            rl.Tickets(2, draw="first"),
            rl.GlobalPool(2, on_entry=True),
            rl.GlobalPool(2, on_entry=True, refill="completion"),
        ],
        ids=lambda scheme: scheme.variant,
    )
    def test_stacks(self, scheme: rl.Scheme, waiting: Waiting, record_property: Record) -> None:
        assert is_safe(flushers(scheme, 1, 2, waiting=waiting))
        # The upper section keeps all there is until its bio completes, which needs a lower section.
        assert not is_safe(stack(scheme, 2, waiting))
        assert rl.exact(stack(scheme, 2, waiting)).deadlock_probability == 1.0
        assert is_safe(stack(replace(scheme, reserve=4), 8, waiting))
        record_property("scenarios", 3)

    @pytest.mark.truth("closed form", "the six-digit probabilities", SECTION_8)
    @pytest.mark.parametrize("waiting", WAITING)
    @pytest.mark.parametrize(
        ("scheme", "filesystem", "asleep", "racing"),
        [
            (rl.Watermark(3), plain(2), 0.336770, 0.336770),
            (rl.PerThread(), plain(2), 0.495873, 0.495873),
            (rl.GlobalPool(3), plain(2), 0.509938, 0.982863),
            (rl.GlobalPool(3, clear_flag=False), plain(2), 0.994954, 0.999944),
            (rl.GlobalPool(3, refill="completion"), plain(2), 0, 0),
            (rl.GlobalPool(3, on_entry=True), plain(2), 0, 0),
            (rl.Tickets(3), plain(2), 0, 0),
            (rl.GlobalPool(2), LOCKED, 0.936008, 0.955627),
            (rl.GlobalPool(2, refill="completion"), LOCKED, 0.976267, 0.969136),
            (rl.GlobalPool(2, on_entry=True), LOCKED, 0, 0),
        ],
        ids=lambda value: getattr(value, "variant", getattr(value, "name", "")),
    )
    def test_numbers(
        self,
        scheme: rl.Scheme,
        filesystem: rl.Filesystem,
        asleep: float,
        racing: float,
        waiting: Waiting,
        record_property: Record,
    ) -> None:
        expected = asleep if waiting == "asleep" else racing
        value = rl.exact(flushers(scheme, 3, 3, filesystem, waiting=waiting)).deadlock_probability
        assert value == pytest.approx(expected, abs=5e-7)
        record_property("deviation", deviation(round(value, 6), expected))

    @pytest.mark.truth("closed form", "the pages of the real kernel's ABBA", "MODEL.md section 10")
    @pytest.mark.parametrize(("waiting", "expected"), [("asleep", 0.880), ("racing", 0.732)])
    def test_section_10(self, waiting: Waiting, expected: float) -> None:
        scheme = rl.GlobalPool(2, refill="completion")
        value = rl.exact(flushers(scheme, 3, 4, LOCKED, quota=3, waiting=waiting))
        assert value.deadlock_probability == pytest.approx(expected, abs=5e-4)

    # One thread, one writepage of A pages, a device of rate r, M = R = A. Enter, A allocs and
    # submit are A + 2 steps one after the other; then exit (rate 1) and completion (rate r) race.
    LATER = "the later of exit and completion: 1 + 1/r - 1/(1 + r)"

    @pytest.mark.truth("closed form", "one thread: the time of a writepage", BY_HAND)
    @pytest.mark.parametrize("waiting", WAITING)
    @pytest.mark.parametrize("rate", [0.25, 1.0, 3.0])
    @pytest.mark.parametrize("pages", [1, 2, 5])
    def test_one_thread(
        self, pages: int, rate: float, waiting: Waiting, record_property: Record
    ) -> None:
        a, r = pages, rate
        later = 1 + 1 / r - 1 / (1 + r)
        worst = 0.0
        for scheme, time in {
            rl.Watermark(a): a + 2 + later,
            rl.Mempool(a): a + 2 + later,
            rl.PerThread(): a + (a + 1) + later,  # A steps to enter
            rl.PerThread(whole=True): a + 2 + later,
            rl.Tickets(a): a + 2 + later,
            rl.Tickets(a, draw="first"): a + 2 + later,
            # All A pages come from the pool, the exit waits for the bio: then it refills page by
            # page, or finds the pool full.
            rl.GlobalPool(a): a + 2 + 1 / r + a,
            rl.GlobalPool(a, on_entry=True): a + 2 + 1 / r + a,
            rl.GlobalPool(a, refill="completion"): a + 2 + 1 / r + 1,
            rl.GlobalPool(a, on_entry=True, refill="completion"): a + 2 + 1 / r + 1,
        }.items():
            value = rl.exact(flushers(scheme, 1, a, plain(a), 1, waiting, rate))
            assert value.deadlock_probability == 0.0
            worst = max(worst, deviation(value.time, time))
        assert worst < 1e-13
        record_property("scenarios", 10)
        record_property("deviation", worst)

    @pytest.mark.truth("closed form", "one thread: its idle reserve", BY_HAND)
    def test_one_thread_idles(self, record_property: Record) -> None:
        """Both pages are free for 2 steps, one for 1, none until the bio completes; then both."""
        value = rl.exact(flushers(rl.Watermark(2), 1, 2, quota=1))
        worst = deviation(value.idle_reserve_mean, (2 * 2 + 1 + 0.5 * 2) / 5.5)
        assert worst < 1e-14
        record_property("deviation", worst)

    @pytest.mark.truth("closed form", "one thread that keeps the flag set", BY_HAND)
    @pytest.mark.parametrize("waiting", WAITING)
    def test_the_flag(self, waiting: Waiting, record_property: Record) -> None:
        """It survives a writepage if the completion (r) overtakes its exit (1)."""
        worst = 0.0
        for a, r, quota in product((1, 3), (0.5, 1.0, 4.0), (1, 2, 3)):
            scheme = rl.GlobalPool(a, clear_flag=False)
            value = rl.exact(flushers(scheme, 1, a, plain(a), quota, waiting, r))
            expected = 1 - (r / (1 + r)) ** quota
            worst = max(worst, deviation(value.deadlock_probability, expected))
        assert worst < 1e-13
        record_property("scenarios", 18)
        record_property("deviation", worst)

    @pytest.mark.truth("closed form", "two threads race for two pages: 3/8 and 1/2", BY_HAND)
    def test_two_threads(self, record_property: Record) -> None:
        """Two pages each of two, one writepage: dead iff both have one.

        One enters first. With 1/2 it takes a page before the other has entered, which then needs
        two steps before its one (1/4); with 1/2 the other has entered too, and needs one step
        before its one, whoever took the page (1/2): 1/8 + 1/4. PerThread takes pages to enter: who
        has one needs one more, before the other's one: 1/2.
        """
        worst = 0.0
        for scheme, expected in {
            rl.Watermark(2): 3 / 8,
            rl.Mempool(2): 3 / 8,
            rl.PerThread(): 1 / 2,
            rl.PerThread(whole=True): 0.0,
        }.items():
            value = rl.exact(flushers(scheme, 2, 2, quota=1))
            worst = max(worst, deviation(value.deadlock_probability, expected))
        assert worst < 1e-14
        record_property("scenarios", 4)
        record_property("deviation", worst)

    @pytest.mark.truth("closed form", "a pure death chain of bios", "birth-death chain, by hand")
    @pytest.mark.parametrize("depth", [1, 2, 3, 9])
    def test_a_pure_death_chain(self, depth: int, record_property: Record) -> None:
        """n bios die at rate min(n, depth), 1e9 times slower than the thread that sends them."""
        swap = rl.Filesystem("swap", [rl.submit()])
        mounts = [rl.Mount(swap, 1, 0, rl.Device(1e-9, depth))]
        value = rl.exact(rl.Scenario(rl.Machine(1), mounts, rl.Watermark(0), 5))
        expected = sum(1e9 / min(n, depth) for n in range(1, 6))
        # The first may die while the thread still sends, with a probability of some 1e-8.
        assert deviation(value.time, expected) < 1e-7
        record_property("deviation", deviation(value.time, expected))

    @pytest.mark.truth(
        "closed form", "a pure birth chain of OOM kills", "birth-death chain, by hand"
    )
    def test_a_pure_birth_chain(self, record_property: Record) -> None:
        """A thread wants n pages and has one; each kill (rate 1) brings one more."""
        worst = 0.0
        for n, kills in product((2, 3, 5), (0, 1, 2, 4, 6)):
            case = flushers(rl.Watermark(1), 1, 1, plain(n), quota=1)
            value = rl.exact(replace(case, machine=rl.Machine(1, 0, kills, 1)))
            dead = kills < n - 1
            # Enter and alloc; kill and alloc, alternating; submit, then exit and completion.
            time = 2 + 2 * min(kills, n - 1) + (0 if dead else 1 + 1.5)
            assert value.deadlock_probability == dead
            worst = max(worst, deviation(value.time, time))
        assert worst < 1e-14
        record_property("scenarios", 15)
        record_property("deviation", worst)

    @pytest.mark.truth("closed form", "backing out until the first bio completes", BY_HAND)
    def test_backing_out(self, record_property: Record) -> None:
        """One thread, two writepages of two of two pages: a cyclic chain.

        After the first submit its exit, then enter and back-out in turn, race with the completion
        (r). With V the time to the second submit while the bio flies: V_alloc = (1 + 3 r + V_enter)
        / (1 + r), V_enter = (1 + 4 r + V_alloc) / (1 + r), V_exit = (1 + 5 r + V_enter) / (1 + r).
        """
        retries = rl.Filesystem("retries", [rl.alloc(2), rl.submit()], backs_out=True)
        worst = 0.0
        for r in (0.1, 1.0, 5.0):
            matrix = [[1 + r, -1, 0], [-1, 1 + r, 0], [0, -1, 1 + r]]
            _, _, v_exit = np.linalg.solve(matrix, [1 + 3 * r, 1 + 4 * r, 1 + 5 * r])
            expected = 4 + v_exit + 1 + 1 / r - 1 / (1 + r)
            value = rl.exact(flushers(rl.Watermark(2), 1, 2, retries, 2, rate=r))
            assert value.deadlock_probability == value.livelock_probability == 0.0
            worst = max(worst, deviation(value.time, expected))
        assert worst < 1e-13
        record_property("scenarios", 3)
        record_property("deviation", worst)


# The joint error rate of `TestExactChain`. It is tested at a tenth of it: six standard errors out
# the tail of an estimate is heavier than normal if few episodes contribute (MOST_SKEWED of them
# give a skewness of 0.1 or so, and several times the normal tail).
FAMILY = 1e-4
MOST_SKEWED = 300
RARE = 0.05


def comparisons(
    scenario: rl.Scenario, exact: rl.Exact, tally: rl.Tally
) -> Iterator[tuple[str, float]]:
    """Names and p-values of all that both solvers say of a scenario."""
    for name, count in (("deadlock", tally.deadlocks), ("livelock", tally.unfinished)):
        expected = getattr(exact, f"{name}_probability")
        yield name, p_values.of_probability(count, tally.episodes, expected)
    if not exact.time:
        return  # no end, or none needed
    for name, interval in {
        "time": tally.duration,
        "throughput": tally.throughput,
        "latency": tally.latency,
        **{
            name: getattr(tally, name)
            for name in ("idle_reserve_mean", "inside", "waiting_entry", "waiting_pages",
                         "waiting_semaphore", "waiting_locks")
        },
    }.items():  # fmt: skip
        expected = getattr(exact, name)
        if expected is None:
            continue
        # n episodes of which m contribute estimate a mean with a relative error of about m^-1/2.
        error = (interval.high - interval.low) / 2 / p_values.Z95
        if expected > 0 and error**2 * MOST_SKEWED >= interval.best**2:
            # A latency is a ratio to the throughput, which is looked at itself.
            assert name == "latency" or expected < RARE, (name, expected, interval, scenario)
            continue
        yield name, p_values.of_mean(interval, expected)


class TestExactChain:
    """Monte Carlo against the exact chain, over scenarios from the whole space of rules.

    Right solvers fail at a new seed with probability below FAMILY, by Bonferroni over every
    comparison of every scenario: deadlock and livelock probability exactly binomial, the others
    normal with the tally's own delta-method error. Quantities seen in fewer than some 300 episodes
    are not tested, but must then be rare by the exact value, too. A real bug (a rate of one half
    for one step in ten) moves a probability by several per cent, which is ten standard errors here.
    """

    def compare(self, seed: int, number: int, episodes: int, record_property: Record) -> None:
        rng = random.Random(seed)
        found: dict[tuple[str, str], float] = {}
        deadlocks, times = [], []
        for scenario, exact in drawn_scenarios.draw_solved(rng, number, limit=3000):
            tally = rl.simulate(scenario, episodes, seed=seed)
            for name, p in comparisons(scenario, exact, tally):
                found[scenario.digest, name] = p
            expected = exact.deadlock_probability
            if 0.01 < expected < 0.99:
                error = np.sqrt(expected * (1 - expected) / episodes)
                deadlocks.append((tally.deadlocks / episodes - expected) / error)
            if exact.time and tally.duration.high > tally.duration.low:
                times.append(p_values.z_of_mean(tally.duration, exact.time))
        # Together they must be standard normal: what all of them miss by a little shows here.
        for name, z in (("deadlocks", deadlocks), ("times", times)):
            found["all", f"{name}: their z are normal"] = float(stats.kstest(z, "norm").pvalue)
            total = abs(sum(z)) / len(z) ** 0.5
            found["all", f"{name}: the sum of their z"] = float(2 * stats.norm.sf(total))
        worst = min(found, key=lambda key: found[key])
        corrected = min(1.0, found[worst] * len(found))
        record_property("scenarios", number)
        record_property("p", corrected)
        record_property(
            "note",
            f"{len(found)} comparisons, {episodes} episodes each, seed {seed}; smallest p "
            f"{found[worst]:.2g}: {worst[1]} of {worst[0][:12]}; family-wise error {FAMILY:g}",
        )
        assert corrected > FAMILY / 10, (worst, found[worst], len(found))

    @pytest.mark.truth("exact chain", "simulate agrees on 40 drawn scenarios", "exact")
    def test_forty_scenarios(self, request: pytest.FixtureRequest, record_property: Record) -> None:
        seed = request.config.getoption("--seed")
        self.compare(seed, 40, 10_000, record_property)

    @pytest.mark.verify
    @pytest.mark.truth("exact chain", "simulate agrees on 1,000 drawn scenarios", "exact")
    def test_a_thousand_scenarios(
        self, request: pytest.FixtureRequest, record_property: Record
    ) -> None:
        seed = request.config.getoption("--seed")
        self.compare(seed + 1, 1_000, 40_000, record_property)

    def test_the_draw_covers_the_space(self) -> None:
        """Every choice, both waiting rules, and everything else that is drawn."""
        rng = random.Random(1)
        drawn = [drawn_scenarios.draw(rng) for _ in range(1_000)]
        schemes = [scenario.scheme for scenario in drawn]
        for key in ("start", "entry", "exit", "returns"):
            every = {getattr(s, key) for s in drawn_scenarios.composed_schemes()}
            assert {getattr(s, key) for s in schemes} == every
        named = {scheme.variant for scheme in schemes if scheme.max_sections is None}
        assert named >= set(rl.variants())
        assert {scenario.waiting for scenario in drawn} == set(WAITING)
        assert {len(scenario.stacked) for scenario in drawn} == {0, 1, 2}
        mounts = [mount for scenario in drawn for mount in scenario.mounts]
        verbs = {step.verb for mount in mounts for step in mount.filesystem.program}
        assert verbs == {"alloc", "lock", "unlock", "submit", "wait"}
        for seen in (
            [scheme.family == "custom" for scheme in schemes],
            [scheme.max_sections is not None for scheme in schemes],
            [scenario.machine.oom_kills > 0 for scenario in drawn],
            [mount.dirtiers > 0 for mount in mounts],
            [mount.filesystem.backs_out for mount in mounts],
            [mount.device is not None and mount.device.completion_pages > 0 for mount in mounts],
            [mount.device is not None and mount.device.depth > 1 for mount in mounts],
        ):
            assert sum(seen) > 50

    @pytest.mark.parametrize("broken", ["deadlocks", "rate", "one step"])
    def test_a_difference_is_noticed(self, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The comparison's own negative controls: one scenario in forty, or all by a little."""
        simulate = rl.simulate
        number = 0

        def wrong(scenario: rl.Scenario, episodes: int, seed: int) -> rl.Tally:
            nonlocal number
            number += 1
            if broken == "deadlocks" and number == 17:  # of another machine
                pages = scenario.machine.pages + 1
                scenario = replace(scenario, machine=replace(scenario.machine, pages=pages))
            if broken == "one step":  # a writepage less
                scenario = replace(scenario, quota=max(1, scenario.quota - 1))
            if broken == "rate":  # each device slower by 3 per cent
                scenario = replace(
                    scenario,
                    mounts=[
                        m if m.device is None
                        else replace(m, device=replace(m.device, rate=m.device.rate * 0.97))
                        for m in scenario.mounts
                    ],
                )  # fmt: skip
            return simulate(scenario, episodes, seed=seed)

        monkeypatch.setattr(rl, "simulate", wrong)
        with pytest.raises(AssertionError):
            self.compare(20041106, 40, 10_000, lambda _, __: None)


class TestLimits:
    """Ends of the range, where schemes and rules must become each other."""

    # Schemes in which nobody waits or takes a step more when there are pages enough. PerThread page
    # by page needs a step for each, and a standing reserve waits for its own bios.
    ALIKE = (
        rl.Watermark(1000), rl.Watermark(1000, throttle=True), rl.Mempool(1000),
        rl.PerThread(whole=True), rl.GlobalPool(1000), rl.GlobalPool(1000, clear_flag=False),
        rl.GlobalPool(1000, refill="completion"), rl.Tickets(1000), rl.Tickets(1000, draw="first"),
    )  # fmt: skip

    @pytest.mark.truth("limit", "reserve without end: no deadlock, one throughput", "own limit")
    @pytest.mark.parametrize("waiting", WAITING)
    @pytest.mark.parametrize("filesystem", [plain(2), LOCKED], ids=["plain", "locked"])
    def test_pages_without_end(
        self, filesystem: rl.Filesystem, waiting: Waiting, record_property: Record
    ) -> None:
        values = [
            rl.exact(flushers(scheme, 3, 4000, filesystem, 2, waiting, 0.5))
            for scheme in self.ALIKE
        ]
        assert all(value.deadlock_probability == 0.0 for value in values)
        worst = max(
            deviation(getattr(value, name), getattr(values[0], name))
            for value in values
            for name in ("throughput", "time", "inside", "latency", "waiting_locks")
        )
        assert worst < 1e-13
        for variant in rl.variants():
            reserve = None if variant.startswith("perthread") else 1000
            scheme = rl.Scheme.named(variant, reserve)
            value = rl.exact(flushers(scheme, 3, 4000, filesystem, 2, waiting, 0.5))
            assert value.deadlock_probability == 0.0
        record_property("scenarios", len(self.ALIKE) + len(rl.variants()))
        record_property("deviation", worst)

    @pytest.mark.truth("limit", "a reserve grows: probability falls to 0", "own limit")
    def test_a_growing_reserve(self, record_property: Record) -> None:
        """Three flushers of two pages can hold three with one still wanted: none beyond that."""
        found = [
            rl.exact(flushers(rl.Watermark(m), 3, m)).deadlock_probability for m in range(2, 7)
        ]
        assert found[0] > found[1] > found[2] == found[3] == found[4] == 0.0
        record_property("scenarios", len(found))

    @pytest.mark.truth("limit", "without lock and semaphore both waiting rules agree", "own limit")
    def test_nothing_to_sleep_on(self, record_property: Record) -> None:
        rng = random.Random(5)
        worst, number = 0.0, 0
        while number < 40:
            asleep = drawn_scenarios.draw(rng)
            programs = [mount.filesystem.program for mount in asleep.mounts]
            locks = any(step.verb == "lock" for program in programs for step in program)
            if locks or "global_pool" in asleep.scheme.grants:
                continue
            try:
                values = [
                    rl.exact(replace(asleep, waiting=waiting), limit=2000) for waiting in WAITING
                ]
            except rl.BadInput:
                continue
            worst = max(worst, *(deviation(*pair) for pair in pairs(*values)))
            assert values[0].states == values[1].states
            number += 1
        assert worst < 1e-13
        record_property("scenarios", number)
        record_property("deviation", worst)

    @pytest.mark.truth("limit", "one thread never waits: both waiting rules agree", "own limit")
    @pytest.mark.parametrize("variant", rl.variants())
    def test_one_thread(self, variant: str, record_property: Record) -> None:
        reserve = None if variant.startswith("perthread") else 2
        scheme = rl.Scheme.named(variant, reserve)
        asleep, racing = (
            rl.exact(flushers(scheme, 1, 3, LOCKED, 3, waiting)) for waiting in WAITING
        )
        worst = max(deviation(*pair) for pair in pairs(asleep, racing))
        assert worst < 1e-13
        record_property("scenarios", 2)
        record_property("deviation", worst)

    @pytest.mark.truth("limit", "8 flushers: a hundredth of the unmerged states", "own limit")
    @pytest.mark.parametrize("waiting", WAITING)
    @pytest.mark.parametrize(
        "scheme",
        [rl.Watermark(6), rl.Mempool(2), rl.PerThread(whole=True), rl.Tickets(4),
         rl.GlobalPool(2, on_entry=True), rl.GlobalPool(2)],
        ids=lambda scheme: scheme.variant,
    )  # fmt: skip
    def test_interchangeable_threads(
        self, scheme: rl.Scheme, waiting: Waiting, record_property: Record
    ) -> None:
        """Those of the unmerged chain are counted, not built: by the permutations of each state."""
        space = states.explore(flushers(scheme, 8, 6, quota=1, waiting=waiting), transitions=False)
        counts = f"{space.states} of {space.unmerged:.0f}"
        record_property("note", f"{scheme.variant}, {waiting}: {counts}")
        assert space.states * 100 <= space.unmerged


def pairs(one: rl.Exact, other: rl.Exact) -> Iterator[tuple[float | None, float | None]]:
    """The values of two solutions that must be the same."""
    for name in (
        "deadlock_probability", "livelock_probability", "time", "throughput", "idle_reserve_mean",
        "inside", "latency", "waiting_entry", "waiting_pages",
    ):  # fmt: skip
        yield getattr(one, name), getattr(other, name)


class TestIndependentImplementations:
    """Solvers that share no code with the package. Storm: tests/test_export.py."""

    @pytest.mark.truth(
        "independent implementation", "124 scenarios solved by others", "tests/cases/exact.json"
    )
    @pytest.mark.parametrize("number", range(len(EXACT)))
    def test_solved_by_others(self, number: int, record_property: Record) -> None:
        record_property("deviation", self.differ(EXACT[number]))

    @pytest.mark.truth(
        "independent implementation", "200 scenarios enumerated naively", "tests/naive.py, own.json"
    )
    @pytest.mark.parametrize("number", range(len(OWN)))
    def test_solved_naively(self, number: int, record_property: Record) -> None:
        record_property("deviation", self.differ(OWN[number]))

    @pytest.mark.verify
    @pytest.mark.truth(
        "independent implementation", "fresh scenarios enumerated naively", "tests/naive.py"
    )
    def test_solved_naively_just_now(
        self, request: pytest.FixtureRequest, record_property: Record
    ) -> None:
        """Ten of every variant and waiting rule."""
        rng = random.Random(request.config.getoption("--seed"))
        worst, number = 0.0, 0
        for variant, waiting in product(naive.VARIANTS, WAITING):
            solved = 0
            while solved < 10:
                drawn = naive.draw_scenario(rng, variant, waiting)
                try:
                    case = {"scenario": drawn, **naive.solve(drawn, limit=600)}
                except naive.TooManyStates:
                    continue
                worst = max(worst, self.differ(case))
                solved += 1
            number += solved
        record_property("scenarios", number)
        record_property("deviation", worst)

    def differ(self, case: dict[str, Any]) -> float:
        """The largest deviation of `exact` from a case, once `prove` agrees with it, too."""
        scenario = scenario_from_case(case["scenario"])
        value = rl.exact(scenario)
        # A bio whose owner nobody can tell is nobody's here, so there can be fewer states.
        assert value.states <= value.unmerged_states <= case["unmerged_states"]
        found = {
            "deadlock_probability": value.deadlock_probability,
            "livelock_probability": value.livelock_probability,
            "expected_time": value.time,
            "idle_reserve": value.idle_reserve_mean,
            "inside": value.inside,
            "throughput": value.throughput,
            "latency": value.latency,
        }
        found = {name: ours for name, ours in found.items() if name in case}
        for name, ours in found.items():
            assert (ours is None) == (case[name] is None), name
            assert ours is None or ours == pytest.approx(case[name], rel=1e-10, abs=1e-10), name
        proof = rl.prove(scenario)
        steps = case["shortest_path_steps"]
        assert proof.safe == (steps is None)
        assert len(proof.path) == (steps or 0)
        assert proof.livelock_free == (case["livelock_probability"] == 0)
        if proof.story:
            assert proof.story.ending == "deadlocked"
        return max(
            deviation(ours, case[name])
            for name, ours in found.items()
            if ours is not None and max(ours, case[name]) > 1e-12
        )
