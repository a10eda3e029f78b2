"""The tally as a value: it adds up, refuses strangers, survives a file, and its intervals cover.

Closed forms: Clopper-Pearson's coverage is summed exactly, and its bounds are scipy's. Exact
chains: the intervals of means and ratios must cover the exact values of tests/cases/own.json in
400 batches; how many miss is binomial with 5 %, two-sided at LEVEL, six scenarios with five
intervals each, so a right tally fails at another seed with probability below 3e-3. An interval
that forgot the covariance of a ratio misses far more often or far less.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from solved_cases import OWN, scenario_from_case

import reservelab as rl
from reservelab.model.interval import Interval
from reservelab.model.pack import REASONS
from reservelab.solve.simulate import Batches
from reservelab.solve.tally import COUNTS, ESTIMATES, MEANS, Tally, clopper_pearson

LEVEL = 1e-4
SCENARIO = scenario_from_case(OWN[0]["scenario"])
OTHER = scenario_from_case(OWN[1]["scenario"])
BATCHES = Batches(SCENARIO, 1, 1_000)
PARTS = [BATCHES.run(batch, 50) for batch in range(6)]
WHOLE = Tally.merge(PARTS)


def changed(tally: Tally, **fields: Any) -> Tally:  # noqa: ANN401
    names = ("scenario", "event_limit", "keys", "counts", "sums", "products", "reasons")
    return Tally(**{name: fields.get(name, getattr(tally, name)) for name in names})


class TestMerge:
    @given(st.lists(st.sampled_from(range(6)), min_size=1), st.randoms(use_true_random=False))
    def test_any_grouping_and_order_is_the_union(self, chosen: list[int], rng: Any) -> None:  # noqa: ANN401
        tallies = [PARTS[k] for k in chosen]
        while len(tallies) > 1:
            rng.shuffle(tallies)
            tallies.append(tallies.pop() + tallies.pop())
        assert tallies[0] == Tally.merge(PARTS[k] for k in set(chosen))

    def test_adding_it_again_changes_nothing(self) -> None:
        assert WHOLE + WHOLE == WHOLE
        assert WHOLE + PARTS[3] == WHOLE

    def test_counts_add_up(self) -> None:
        for name in ("episodes", "deadlocks", "unfinished", "events", "completed", "redirtied"):
            assert getattr(WHOLE, name) == sum(getattr(part, name) for part in PARTS), name
        assert WHOLE.episodes == 300
        assert sum(WHOLE.dead_by_reasons.values()) == WHOLE.deadlocks > 0

    def test_seeds_add_up(self) -> None:
        both = WHOLE + Batches(SCENARIO, 2, 1_000).run(0, 50)
        assert both.episodes == 350
        assert both.row()["seed"] == -1
        assert WHOLE.row()["seed"] == 1

    @pytest.mark.parametrize(
        ("other", "says"),
        [
            (lambda: Batches(OTHER, 1, 1_000).run(0, 50), "two scenarios"),
            (lambda: Batches(SCENARIO, 1, 999).run(0, 50), "event limits"),
            (lambda: BATCHES.run(0, 49), "batch 0 of seed 1 has other counts"),
        ],
    )
    def test_strangers_are_refused(self, other: Callable[[], Tally], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            _ = WHOLE + other()

    def test_nothing_is_no_tally(self) -> None:
        with pytest.raises(ValueError, match="no tally"):
            Tally.merge([])

    def test_equality_is_of_all_parts(self) -> None:
        assert changed(WHOLE) == WHOLE
        assert changed(WHOLE, sums=WHOLE.sums + 1) != WHOLE
        assert changed(WHOLE, event_limit=5) != WHOLE
        assert WHOLE != "a tally"


class TestInvariants:
    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"keys": WHOLE.keys[:-1]}, "shapes"),
            ({"sums": WHOLE.sums[:, :-1]}, "shapes"),
            (
                {"counts": WHOLE.counts + 99 * np.eye(7, dtype=int)[1]},
                "more deadlocked and unfinished",
            ),
            ({"reasons": WHOLE.reasons * 2}, "do not add up"),
        ],
    )
    def test_broken_ones_are_refused(self, fields: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            changed(WHOLE, **fields)

    def test_frozen(self) -> None:
        with pytest.raises(AttributeError):
            WHOLE.event_limit = 3  # type: ignore[misc]


class TestWaysOut:
    def test_saved_and_loaded(self, tmp_path: Path) -> None:
        WHOLE.save(tmp_path / "tally.json")
        loaded = Tally.load(tmp_path / "tally.json")
        assert loaded == WHOLE
        assert loaded.row() == WHOLE.row()
        assert loaded + PARTS[0] == WHOLE

    @pytest.mark.parametrize(
        ("edit", "says"),
        [
            (lambda _: "not JSON", "not a tally"),
            (lambda _: "[]", "not a tally"),
            (lambda text: text.replace('"digest"', '"other"', 1), "not a tally"),
            (lambda text: text.replace('"rules": 1', '"rules": 2', 1), "rules version 2"),
            (lambda text: text.replace("pages = 5", "pages = 6", 1), "scenario"),
        ],
    )
    def test_bad_files(self, edit: Callable[[str], str], says: str, tmp_path: Path) -> None:
        path = tmp_path / "tally.json"
        WHOLE.save(path)
        text = path.read_text()
        assert edit(text) != text
        path.write_text(edit(text))
        with pytest.raises(rl.BadInput, match=says) as caught:
            Tally.load(path)
        assert "\n" not in str(caught.value)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(rl.BadInput, match="not a tally"):
            Tally.load(tmp_path / "nowhere.json")

    def test_row_and_frame(self) -> None:
        row = WHOLE.row()
        assert {f"{name}_{end}" for name in ESTIMATES for end in ("low", "best", "high")} <= set(
            row
        )
        assert {*COUNTS, *(f"dead_{reason}" for reason in REASONS)} <= set(row)
        assert row["deadlocks"] == WHOLE.deadlocks
        assert row["deadlock_probability_best"] == WHOLE.deadlocks / WHOLE.episodes
        assert max(row[f"dead_{reason}"] for reason in REASONS) <= WHOLE.deadlocks
        pd.testing.assert_frame_equal(WHOLE.frame(), pd.DataFrame([row]))
        json.dumps(row)

    def test_text(self) -> None:
        text = str(WHOLE)
        assert text.isascii()
        assert all(len(line) <= 72 for line in text.splitlines())
        assert f"deadlocks               {WHOLE.deadlocks}" in text
        assert "<table>" in WHOLE._repr_html_()


class TestProbabilityInterval:
    @pytest.mark.parametrize("n", [1, 7, 40])
    def test_bounds_are_those_of_scipy(self, n: int) -> None:
        for k in range(n + 1):
            low, best, high = clopper_pearson(k, k, n)
            exact = stats.binomtest(k, n).proportion_ci(0.95, "exact")
            assert (low, high) == pytest.approx((exact.low, exact.high), rel=1e-12)
            assert best == k / n

    @pytest.mark.parametrize("n", [10**6, 132_579_327, 10**9, 3 * 10**9])
    def test_a_bound_is_where_its_tail_is_2_5_percent(self, n: int) -> None:
        """Where inverses of the incomplete beta function have been wrong, at 1000 above all."""
        for k in (1, 2, 10, 999, 1000, 1001, 10**5, n // 2, n - 1000, n - 999, n - 1):
            low, best, high = clopper_pearson(k, k, n)
            assert low < best < high
            # P(X >= k) and P(X <= k), which do not invert anything.
            tails = stats.binom.sf(k - 1, n, low), stats.binom.cdf(k, n, high)
            assert tails == pytest.approx((0.025, 0.025), rel=1e-5)

    @pytest.mark.parametrize("n", [5, 30])
    def test_covers_at_least_95_percent(self, n: int) -> None:
        """Summed, not sampled."""
        intervals = [clopper_pearson(k, k, n) for k in range(n + 1)]
        for probability in np.linspace(0, 1, 201):
            chances = np.array([stats.binom.pmf(k, n, probability) for k in range(n + 1)])
            covering = [float(probability) in interval for interval in intervals]
            assert chances[covering].sum() >= 0.95 - 1e-12

    def test_unknown_episodes_count_against_both_bounds(self) -> None:
        low, best, high = clopper_pearson(3, 5, 10)
        assert low == clopper_pearson(3, 3, 10).low
        assert high == clopper_pearson(5, 5, 10).high
        assert best == 0.3

    def test_nothing_seen_is_no_zero(self) -> None:
        assert clopper_pearson(0, 0, 100).high == pytest.approx(1 - 0.025**0.01)
        low, best, high = clopper_pearson(0, 0, 0)
        assert (low, high) == (0.0, 1.0)
        assert math.isnan(best)

    def test_unfinished_episodes_widen_a_tally(self) -> None:
        short = Batches(SCENARIO, 1, 12).run(0, 50)
        assert 0 < short.unfinished < 50
        assert short.deadlock_probability == clopper_pearson(
            short.deadlocks, short.deadlocks + short.unfinished, 50
        )


VALUES: dict[str, Callable[[Tally], Interval]] = {
    "expected_time": lambda tally: tally.duration,
    "inside": lambda tally: tally.inside,
    "idle_reserve": lambda tally: tally.idle_reserve_mean,
    "throughput": lambda tally: tally.throughput,
    "latency": lambda tally: tally.latency,
}
# Scenarios in which each of the five varies; their schemes differ.
RICH = [k for k, c in enumerate(OWN) if c["latency"] and 0.1 < c["idle_reserve"] < 2][::12][:6]


class TestMeansAndRatios:
    @pytest.mark.parametrize("number", RICH)
    def test_intervals_cover(self, number: int) -> None:
        batches = Batches(scenario_from_case(OWN[number]["scenario"]), 1)
        tallies = [batches.run(batch, 500) for batch in range(400)]
        assert len(RICH) == 6
        for name, estimate in VALUES.items():
            missed = sum(OWN[number][name] not in estimate(tally) for tally in tallies)
            assert stats.binomtest(missed, 400, 0.05).pvalue > LEVEL, (name, missed)

    def test_by_hand(self) -> None:
        """Two episodes of 1 and 3 units with 2 and 2 threads-inside units: ratio 4/4."""
        products = np.zeros((len(MEANS), len(MEANS)))
        episodes = np.zeros((2, len(MEANS)))
        episodes[:, MEANS.index("duration")] = 1, 3
        episodes[:, MEANS.index("inside")] = 2, 2
        for episode in episodes:
            products += np.outer(episode, episode)
        tally = changed(
            PARTS[0],
            counts=np.array([[2, 0, 0, 0, 0, 0, 0]]),
            sums=episodes.sum(axis=0)[np.newaxis],
            products=products[np.triu_indices(len(MEANS))][np.newaxis],
            reasons=np.zeros_like(PARTS[0].reasons),
        )
        # Mean 2, sample deviation sqrt 2. Residuals 2 - 1 and 2 - 3 have sample variance 2, too.
        assert tally.duration == pytest.approx((2 - 1.959964, 2, 2 + 1.959964), rel=1e-6)
        assert tally.inside == pytest.approx((1 - 0.979982, 1, 1 + 0.979982), rel=1e-6)
        assert tally.throughput == (0, 0, 0)
        assert not tally.latency.known

    def test_one_episode_has_no_spread(self) -> None:
        one = BATCHES.run(0, 1)
        assert (one.duration.low, one.duration.high) == (-math.inf, math.inf)
