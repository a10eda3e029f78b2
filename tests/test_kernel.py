"""The real kernel's side, without a kernel: what goes in, what comes out, and what is made of it.

What needs the built kernel skips where it is not built, in one line. The committed comparison
(data/kernel/comparison.csv) is read again: its scenarios, its counts and its tests are worked out
anew, so it cannot be edited without this noticing.
"""

import json
import math
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from solved_cases import EXACT, scenario_from_case
from statsmodels.stats.multitest import multipletests

import reservelab as rl
from reservelab.__main__ import main
from reservelab.kernel import build, compare, evidence, exhaust, guest, trials
from reservelab.kernel.scenarios import read_set
from reservelab.model.errors import BadInput

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data" / "kernel"
ABBA = rl.Scenario.from_toml((ROOT / "data" / "scenarios" / "abba.toml").read_text())
PLAIN = rl.Scenario.from_toml((ROOT / "data" / "scenarios" / "three_flushers.toml").read_text())

# Written down by the kernel: scenario abba, seed 1, trials 0 and 1; and one with dirtiers.
RECORDED = """\
trial 0 deadlocked time_ns 78403231 steps 20 writepages 2 redirtied 0 free 0 pool 1 conserved 1 \
adjusted 7059 takes 3 sleeps 2 waits semaphore lock lock end
trial 1 completed time_ns 462213419 steps 63 writepages 9 redirtied 0 free 2 pool 2 conserved 1 \
adjusted 0 takes 5 sleeps 4 waits done done done end
trial 2 deadlocked time_ns 91000000 steps 9 writepages 1 redirtied 0 free 0 pool 0 conserved 1 \
adjusted 0 takes 0 sleeps 0 waits pages pages completion end
"""


class TestPacking:
    def test_a_scenario_as_text(self) -> None:
        assert trials.lab_text(ABBA, 7, 100, 50).splitlines() == [
            "machine 4 0", "quota 3", "waiting asleep", "start pool", "entry nothing",
            "grants free,global_pool", "exit wait_full", "returns pool", "reserve 2",
            "max_sections 0", "mount journaled 2 3 0 1000000 1 0 0", "alloc 1:4294967295",
            "lock journal", "alloc 1:4294967295", "unlock journal", "submit",
            f"run {trials._stream(ABBA, 7)} 100 50 {trials.step_limit(ABBA)}",
        ]  # fmt: skip

    def test_scenarios_of_one_seed_have_streams_of_their_own(self) -> None:
        streams = {trials._stream(x, seed) for x in (ABBA, PLAIN) for seed in (1, 2)}
        assert len(streams) == 4
        assert all(0 <= stream < 2**64 for stream in streams)

    def test_a_distribution_is_cumulative(self) -> None:
        filesystem = rl.Filesystem("fs", [rl.alloc({1: 0.25, 2: 0.5, 7: 0.25}), rl.submit()])
        scenario = rl.Scenario(rl.Machine(9), [rl.Mount(filesystem, 1)], rl.PerThread())
        (line,) = (x for x in trials.lab_text(scenario, 1, 0, 1).splitlines() if "alloc" in x)
        assert line == f"alloc 1:{2**30} 2:{3 * 2**30} 7:{2**32 - 1}"

    def test_what_is_not_ported_is_named(self) -> None:
        toy = rl.Filesystem("toy", [rl.alloc(1), rl.submit()])
        stack = rl.Scenario(
            rl.Machine(9), [rl.Mount(toy, 1, on=1), rl.Mount(toy)], rl.Watermark(3)
        )
        own = rl.Scheme(
            start="pool", entry="nothing", grants=("global_pool", "free"), exit="refill"
        )
        for scenario, word in (
            (stack, "stacked"),
            (replace(PLAIN, machine=rl.Machine(3, oom_kills=1, pages_per_kill=1)), "OOM"),
            (replace(ABBA, scheme=own), "order of grants"),
            (replace(PLAIN, machine=rl.Machine(5000)), "pages"),
            (replace(PLAIN, mounts=[rl.Mount(toy, flushers=65)]), "threads"),
            (replace(PLAIN, mounts=[rl.Mount(toy, 1, device=rl.Device(rate=1e-9))]), "rate"),
        ):
            assert word in (trials.not_ported(scenario) or "")
            with pytest.raises(BadInput, match=word):
                trials.lab_text(scenario, 1, 0, 1)

    def test_every_named_scheme_is_ported(self) -> None:
        for variant in rl.variants():
            reserve = None if variant.startswith("perthread") else 2
            scheme = rl.Scheme.named(variant, reserve)
            scenario = replace(ABBA, machine=rl.Machine(8), scheme=scheme)
            assert trials.not_ported(scenario) is None, variant

    def test_solved_cases_pack_or_say_why_not(self) -> None:
        reasons = [trials.not_ported(scenario_from_case(case["scenario"])) for case in EXACT]
        assert sum(reason is None for reason in reasons) == 81
        assert {reason for reason in reasons if reason} == {
            "the OOM killer", "stacked mounts: there is no loop worker"
        }  # fmt: skip


class TestParsing:
    def test_recorded_output(self) -> None:
        (dead, completed, network), torn = trials.parse(RECORDED)
        assert torn == 0
        assert (dead.ending, dead.time, dead.takes, dead.sleeps) == ("deadlocked", 7.8403231, 3, 2)
        assert dead.reasons == ("lock", "semaphore")
        assert (completed.number, completed.reasons, completed.pool) == (1, (), 2)
        assert network.reasons == ("completion", "pages")

    def test_a_line_torn_anywhere_is_none(self) -> None:
        first = RECORDED.splitlines()[0]
        for cut in range(1, len(first)):
            assert trials.parse(first[:cut]) == ((), int(bool(first[:cut].strip()))), cut
            assert trials.parse(first[cut:])[0] == (), cut

    def test_strangers_are_counted(self) -> None:
        found, torn = trials.parse(f"Kernel panic\n{RECORDED}trial 9 comp")
        assert ([trial.number for trial in found], torn) == ([0, 1, 2], 2)
        assert trials.missing(found, 0, 5) == [3, 4]

    def test_a_trial_counts_once(self) -> None:
        found = trials.parse(RECORDED)[0]
        with pytest.raises(ValueError, match="twice"):
            trials.Trials(ABBA, 1, found + found[:1])

    def test_a_run_adds_up(self) -> None:
        found = trials.parse(RECORDED)[0]
        run = trials.Trials(ABBA, 1, (replace(found[2], ending="stalled"), *found[:2]))
        assert [trial.number for trial in run.trials] == [0, 1, 2]
        assert (run.deadlocks, run.count("stalled"), len(run)) == (1, 1, 3)
        assert run.deadlock_probability.high > 0.99  # no verdict may be a deadlock
        assert run.time.best == pytest.approx((7.8403231 + 46.2213419 + 9.1) / 3)
        assert run.dead_by_reasons == {("lock", "semaphore"): 1}
        assert "waiting for    lock, semaphore: 1" in str(run)

    def test_runs_of_numbers(self) -> None:
        numbers = [0, 1, 2, 5, 6, *range(10, 10 + guest.BATCH + 1)]
        assert list(guest._runs(numbers)) == [
            (0, 3), (5, 2), (10, guest.BATCH), (10 + guest.BATCH, 1)
        ]  # fmt: skip
        assert list(guest._runs([])) == []

    def test_evidence(self) -> None:
        """Messages as the kernel writes them, shortened."""
        messages = """\
[    0.1] WARNING: possible circular locking dependency detected
[    0.1] flusher-1/26 is trying to acquire lock:
[    0.1] stack backtrace:
[    0.1] CPU: 0 PID: 26 Comm: flusher-1
[    0.2] reserved_pages_lab: deadlock; 0 pages free, 1 in the pool
[    0.2] reserved_pages_lab: flusher-0 waits for semaphore
[    0.2] task:flusher-0       state:D stack:0     pid:25
[    0.2]  [<60307182>] __schedule+0x562/0x5c8
[    0.2]  [<60306c20>] ? __schedule+0x0/0x5c8
[    0.2]  [<60307182>] down_killable+0x2/0x5
[    0.2]  [<60307182>] alloc_reserved_page+0x2/0x5
[    0.2] reserved_pages_lab: flusher-1 waits for lock; it owns the pool's semaphore
[    0.2]  [<60307182>] __mutex_lock+0x2/0x5
[    0.2] 1 lock held by flusher-1/26:
[    0.2]  #0: 6049 (reserved_pages_sem){+.+.}-{0:0}, at: pool_sem_down+0x99/0x101
[    0.2] reserved_pages_lab: end of deadlock
"""
        answer = guest.Answer({}, {"a": messages}, "", "powered off")
        found = evidence.read_evidence(answer, "a", trials.parse(RECORDED)[0][0])
        assert [thread.name for thread in found.threads] == ["flusher-0", "flusher-1"]
        assert found.threads[0].frames == ("down_killable", "alloc_reserved_page")
        assert found.threads[1].frames == ("__mutex_lock",)
        assert len(found.threads[1].locks) == 2
        assert found.head == "deadlock; 0 pages free, 1 in the pool"
        assert found.lockdep.splitlines()[-1] == "flusher-1/26 is trying to acquire lock:"
        assert guest.lockdep_report(guest.Answer({}, {"a": "quiet\n"}, "", "")) == ""

    def test_lockdep_in_two_words(self) -> None:
        report = """\
WARNING: possible circular locking dependency detected
6.1.192 #1 Not tainted
flusher-1/26 is trying to acquire lock:
0000000061021a98 (journal){+.+.}-{3:3}, at: lab_lock+0x6c/0x97

but task is already holding lock:
000000006049a020 (reserved_pages_sem){+.+.}-{0:0}, at: pool_sem_down+0x99/0x101
"""
        words = {"lockdep": "circular locking dependency", "lock": "journal"}
        assert guest.lockdep_words(report) == words
        assert guest.lockdep_words("") == {"lockdep": "silent", "lock": ""}


def trials_with(scenario: rl.Scenario, deadlocks: int, count: int, time: float) -> trials.Trials:
    """A run made up: `deadlocks` of `count`, times around `time`."""
    whole = trials.parse(RECORDED)[0][1]
    return trials.Trials(
        scenario,
        1,
        tuple(
            replace(
                whole,
                number=k,
                ending="deadlocked" if k < deadlocks else "completed",
                time=time * (0.5 if k % 2 else 1.5),
            )
            for k in range(count)
        ),
    )


class TestStatistics:
    def test_holm_is_statsmodels_holm(self) -> None:
        p = np.random.default_rng(3).uniform(size=25) ** 3
        theirs = multipletests(p, method="holm")[1]
        ours = compare.holm([*p.tolist(), math.nan])
        assert ours[:-1] == pytest.approx(theirs.tolist())
        assert math.isnan(ours[-1])

    def test_a_planted_difference_is_noticed(self) -> None:
        """A step that is left out moves a probability by several per cent; here by four.

        At 4,000 trials and p = 0.337 the standard error is 0.0075, so four per cent are 5.4 of
        them; nothing is drawn, so nothing can fail by chance.
        """
        prediction = compare.predict(PLAIN)
        time = float(str(prediction["predicted_time"]))
        right = trials_with(PLAIN, round(4000 * 0.33677), 4000, time)
        wrong = trials_with(replace(PLAIN, label="wrong"), round(4000 * 0.376), 4000, time)
        frame = compare.compare([compare.point(run, prediction) for run in (right, wrong)])
        assert frame["agrees"].tolist() == [True, False]
        assert "1 rejected" in compare.verdict(frame)
        late = trials_with(PLAIN, round(4000 * 0.33677), 4000, time * 1.04)
        assert not compare.compare([compare.point(late, prediction)])["agrees"][0]

    def test_one_deadlock_contradicts_a_zero(self) -> None:
        safe = replace(PLAIN, scheme=rl.PerThread(whole=True))
        prediction = compare.predict(safe)
        time = float(str(prediction["predicted_time"]))
        none, one = (compare.point(trials_with(safe, k, 1000, time), prediction) for k in (0, 1))
        assert (none["certain"], none["contradicted"]) == (True, False)
        assert (one["certain"], one["contradicted"]) == (True, True)

    def test_counts_against_counts(self) -> None:
        """Where `exact` gives up, `simulate` is asked, and says that it is an estimate."""
        prediction = compare.predict(PLAIN, states=10, episodes=20_000)
        assert prediction["by"] == "simulate"
        time = float(str(prediction["predicted_time"]))
        row = compare.point(trials_with(PLAIN, 1347, 4000, time), prediction)
        assert not row["certain"]
        assert 0.01 < float(str(row["p"])) <= 1


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return compare.recorded()


class TestCommittedComparison:
    def test_its_scenarios_are_those_of_the_file(self, committed: pd.DataFrame) -> None:
        scenarios = read_set((DATA / "comparison.toml").read_text())
        assert len(scenarios) >= 40
        assert committed["digest"].tolist() == [s.digest for s in scenarios]
        assert committed["label"].tolist() == [s.label for s in scenarios]
        assert committed["rules"].unique().tolist() == [rl.RULES_VERSION]
        assert (committed["trials"] >= 4000).all()
        assert set(committed["waiting"]) == {"asleep", "racing"}
        families = {variant.split()[0] for variant in committed["variant"]}
        assert families == {"watermark", "mempool", "perthread", "global", "tickets"}
        assert committed["threads"].max() == 8
        assert {1, 2} <= set(committed["mounts"])
        assert (committed["locks"] > 0).any()

    def test_its_tests_follow_from_its_counts(self, committed: pd.DataFrame) -> None:
        for row in committed.to_dict("records"):
            again = compare.tests_of({str(key): value for key, value in row.items()})
            assert again["contradicted"] == row["contradicted"]
            for key in ("p", "p_time"):
                assert again[key] == pytest.approx(row[key], rel=1e-6, nan_ok=True), row["label"]
            assert sum(row[ending] for ending in trials.ENDINGS) == row["trials"]
        for key in ("p", "p_time"):
            ours = compare.holm(committed[key].tolist())
            stored = committed[f"{key}_holm"].tolist()
            assert ours == pytest.approx(stored, rel=1e-6, nan_ok=True)

    def test_its_predictions_are_the_models(self, committed: pd.DataFrame) -> None:
        scenarios = {s.digest: s for s in read_set((DATA / "comparison.toml").read_text())}
        checked = 0
        for row in committed[committed["by"] == "exact"].to_dict("records"):
            try:
                solved = rl.exact(scenarios[row["digest"]], limit=4000)
            except BadInput:
                continue
            assert solved.deadlock_probability == pytest.approx(row["predicted"], abs=1e-9)
            checked += 1
        assert checked >= 20

    def test_all_that_is_committed_is_of_the_kernel_these_patches_make(self) -> None:
        """After a change of the patches data/kernel has to be made anew: its README says how."""
        for frame in (compare.recorded(), compare.recorded_lockdep(), exhaust.recorded()):
            assert frame["patches"].unique().tolist() == [build.digest()[:16]]
        assert build.digest()[:16] in (DATA / "README.md").read_text()

    def test_kernel_and_model_agree(self, committed: pd.DataFrame) -> None:
        assert committed["agrees"].all(), committed.loc[~committed["agrees"], "label"].tolist()
        assert (committed["not_conserved"] == 0).all()
        assert not committed.loc[committed["certain"], "contradicted"].any()

    def test_lockdep_names_the_abba_and_nothing_else(self) -> None:
        table = compare.recorded_lockdep()
        for row in table.to_dict("records"):
            late, sleeps = "lazy" in row["variant"], row["waiting"] == "asleep"
            said = ("silent", "")
            if "flag-set" in row["variant"]:  # it sleeps on its own semaphore under both rules
                said = ("recursive locking", "")
            elif late and sleeps and row["locks"]:  # what is only tried is no dependency
                said = ("circular locking dependency", "journal")
            assert (row["lockdep"], row["lock"]) == said, row["label"]
        assert (table["lockdep"] == "silent").sum() >= 5


class TestPatches:
    def test_they_apply_to_the_files_they_were_made_for(self) -> None:
        there = set(build.manifest())
        made: set[str] = set()
        for path in build.patches():
            patch = build.read_patch(path)
            assert set(patch.old) <= there | made, path.name
            assert not set(patch.new) & (there | made), path.name
            made |= set(patch.new)
        assert made == {
            "include/linux/reserved_pages.h", "mm/reserved_pages.c", "mm/reserved_pages_hog.c",
            "mm/reserved_pages_lab.c",
        }  # fmt: skip

    def test_they_say_their_licence(self) -> None:
        for path in build.patches():
            text = path.read_text(encoding="ascii")
            head, _, body = text.partition("\ndiff --git")
            assert "SPDX-License-Identifier: GPL-2.0-only" in head
            new = body.count("--- /dev/null")
            assert body.count("SPDX-License-Identifier: GPL-2.0-only") == new

    def test_a_torn_patch_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "torn.patch"
        text = build.patches()[0].read_text(encoding="ascii")
        path.write_text(text)
        assert build.read_patch(path).new
        path.write_text("\n".join(text.splitlines()[:-5]))
        with pytest.raises(ValueError, match="not whole"):
            build.read_patch(path)

    def test_another_source_is_refused_by_name(self, tmp_path: Path) -> None:
        names = sorted(build.manifest())
        with pytest.raises(BadInput, match="is not there"):
            build.check_source(tmp_path)
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("other\n")
        first = next(iter(build.manifest()))
        with pytest.raises(BadInput, match=f"source: {first} is another one"):
            build.check_source(tmp_path)

    def test_the_digest_follows_every_part(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = build.digest()
        room = tmp_path / "uml"
        room.mkdir()
        for path in build._ROOM.iterdir():
            (room / path.name).write_bytes(path.read_bytes())
        monkeypatch.setattr(build, "_ROOM", room)
        assert build.digest() == before
        seen = {before}
        for path in sorted(room.iterdir()):
            kept = path.read_bytes()
            path.write_bytes(kept + b"\n")
            seen.add(build.digest())
            path.write_bytes(kept)
        assert len(seen) == 1 + len(list(room.iterdir()))

    def test_what_boots_is_a_cpio_archive(self) -> None:
        entry = build._newc(3, "init", 0o100755, b"hello")
        assert (entry[:6], len(entry) % 4) == (b"070701", 0)
        assert int(entry[54:62], 16) == 5  # the size
        name = entry[110:115]
        assert name == b"init\0"
        assert entry[116:121] == b"hello"


# Consoles as the patched kernel wrote them, shortened: one that got through, and a look at one that
# did not, where the flusher owns the semaphore and kswapd has the page it wants.
THROUGH = """\
exhaust: start
reserved_pages_hog: 3254 pages
exhaust: task 1 done after 85.1 ms
exhaust: task 0 done after 92.0 ms
exhaust: all done after 95.4 ms
sysrq: Show Memory
 unevictable:926 dirty:17 writeback:0
 free:924 free_pcp:0 free_cma:0
reserved_pages: 28 sections ended, and 1200 of kswapd
reserved_pages: at most 29 asked for in one
reserved_pages: 40 drawn, at most 22 in one, 0 asked for in vain
reserved_pages: semaphore taken 4 times, slept on 2 times
reserved_pages: pool 64 of 64, owner 0
reboot: System halted
"""
LOOK = """\
reserved_pages_hog: look {number}, {written} pages written
task:kworker/u2:0    state:D stack:0     pid:6     ppid:2      flags:0x00000000
Workqueue: writeback wb_workfn (flush-98:0)
Stack:
 82cc1c40 82cc2008 8602b2c0 60022d7f
Call Trace:
 [<60307752>] __schedule+0x562/0x5c8
 [<6030d218>] __folio_lock+0xf6/0x120
 [<60108996>] ? __alloc_pages+0x6ca/0x7df
 [<601b780b>] ext4_writepages+0x9b/0xf79
2 locks held by kworker/u2:0/6:
 #0: 000000006049e020 (reserved_pages_sem){{....}}-{{0:0}}, at: pool_sem_down+0x9c/0x132
 #1: 0000000089190910 (jbd2_handle){{....}}-{{0:0}}, at: start_this_handle+0x5bd/0x658
task:kswapd0         state:D stack:0     pid:16    ppid:2      flags:0x00000000
 [<60307752>] pool_sem_down+0x562/0x5c8
 [<60307752>] reserved_pages_enter+0x562/0x5c8
 [<6030d218>] pageout+0xf6/0x120
1 lock held by kswapd0/16:
 #0: 000000006049e020 (reserved_pages_sem){{....}}-{{0:0}}, at: pool_sem_down+0x9c/0x132
task:ext4lazyinit state:R pid:29
 [<60307752>] {runs}+0x562/0x5c8
 [<60307752>] __alloc_pages+0x562/0x5c8
 free:193 free_pcp:3 free_cma:0
reserved_pages: {sections} sections ended, and {kswapd} of kswapd
reserved_pages: pool 63 of 64, owner 6
reserved_pages_hog: end of look {number}
"""
ON_ENTRY = exhaust.Cell("on_entry", "plain", "once")


def looks(first: dict[str, object], second: dict[str, object]) -> str:
    """A console with two looks; each says what is unusual in it."""
    usual = {"written": 253, "sections": 4, "kswapd": 900, "runs": "shrink_node"}
    return "exhaust: start\n" + "".join(
        LOOK.format(number=k, **(usual | look)) for k, look in ((1, first), (2, second))
    )


class TestExhaust:
    def test_one_that_got_through(self) -> None:
        outcome = exhaust.read_outcome(ON_ENTRY, THROUGH)
        assert (outcome.ending, outcome.milliseconds) == ("done", 95.4)
        row = outcome.row()
        counted = {
            "sections": 28, "by_kswapd": 1200, "asked_most": 29, "drawn": 40, "drawn_most": 22,
            "in_vain": 0, "takes": 4, "sleeps": 2, "pool": 64, "free": 924, "dirty": 17,
            "writeback": 0, "oom_kills": 0,
        }  # fmt: skip
        assert {key: row[key] for key in counted} == counted
        assert row["written"] is None  # nobody looked
        assert row["lockdep"] == "silent"

    def test_a_failed_fsync_is_not_done(self) -> None:
        failed = THROUGH.replace("task 1 done", "task 1 Cannot allocate memory")
        assert exhaust.read_outcome(ON_ENTRY, failed).ending == "failed"

    def test_one_that_hangs_and_who_waits_for_what(self) -> None:
        """Who runs in vain is elsewhere at each look, and hangs all the same; so does kswapd."""
        elsewhere = {"runs": "shrink_lruvec", "kswapd": 950}
        outcome = exhaust.read_outcome(ON_ENTRY, looks({}, elsewhere))
        assert outcome.ending == "hung"
        assert math.isnan(outcome.milliseconds)
        assert [(thread.name, thread.waits) for thread in outcome.stuck] == [
            ("flush-98:0, kworker/u2:0/6", "page lock"), ("kswapd0/16", "semaphore"),
            ("ext4lazyinit/29", "memory"),
        ]  # fmt: skip
        assert outcome.stuck[0].frames == ("__folio_lock", "ext4_writepages")
        assert outcome.owner_waits == "page lock"
        assert outcome.row()["stuck"] == "1 memory, 1 page lock, 1 semaphore"
        assert outcome.row()["written"] == 253
        told = exhaust.tell(outcome)
        assert "hung; 253 pages written, 193 free, 63 in the pool" in told
        assert "flush-98:0, kworker/u2:0/6 waits for page lock\n    __folio_lock\n" in told

    @pytest.mark.parametrize("moved", [{"written": 254}, {"sections": 5}])
    def test_whoever_moved_is_slow(self, moved: dict[str, object]) -> None:
        assert exhaust.read_outcome(ON_ENTRY, looks({}, moved)).ending == "slow"

    def test_endings_without_two_looks(self) -> None:
        one = looks({}, {}).partition("reserved_pages_hog: look 2")[0]
        assert exhaust.read_outcome(ON_ENTRY, one).ending == "silent"
        assert exhaust.read_outcome(ON_ENTRY, "").ending == "silent"
        nobody = re.sub(r"task:.*?(?= free)", "", looks({}, {}), flags=re.S)
        assert exhaust.read_outcome(ON_ENTRY, nobody).ending == "slow"
        panic = one + "Kernel panic - not syncing: System is deadlocked on memory\n"
        assert exhaust.read_outcome(ON_ENTRY, panic).ending == "panic"
        for cut in range(0, len(one), 7):  # torn anywhere
            assert exhaust.read_outcome(ON_ENTRY, one[:cut]).ending == "silent"

    def test_kinds_are_chosen_by_words(self) -> None:
        assert len(exhaust.cells()) == len(exhaust.MARKS) * 6
        assert exhaust.cells(["once", "late", "plain"]) == (exhaust.Cell("late", "plain", "once"),)
        assert len(exhaust.cells(["loop"])) == len(exhaust.MARKS) * 2
        with pytest.raises(BadInput, match="--only: 'lop' is not known; use again"):
            exhaust.cells(["lop"])

    def test_the_patch_knows_the_marks(self) -> None:
        patch = build.patches()[-1].read_text(encoding="ascii")
        for marks in exhaust.MARKS.keys() - {"stock_less"}:
            assert f'strcmp(name, "{marks}")' in patch

    def test_the_committed_boots(self) -> None:
        """What the documentation says of them is counted here."""
        frame = exhaust.recorded()
        ended = frame.groupby(["marks", "disk", "hog"])["ending"].count()
        assert len(ended) == len(exhaust.cells())
        assert (ended >= 5).all()
        assert set(frame["ending"]) <= set(exhaust.ENDINGS)
        assert frame.loc[frame["ending"] == "done", "milliseconds"].notna().all()
        lines = exhaust.table(frame).splitlines()
        assert len(lines) == 1 + len(ended)
        assert max(map(len, lines)) <= 72


def test_what_the_page_says_of_the_boots_is_counted() -> None:
    """Numbers in the prose of docs/kernel.md, beside its table, which test_house.py runs."""
    boots = exhaust.recorded()
    page = " ".join((ROOT / "docs" / "kernel.md").read_text().split())

    def hung(disks: list[str], *marks: str) -> str:
        some = boots[boots["disk"].isin(disks) & boots["marks"].isin(marks)]
        return f"{(some['ending'] == 'hung').sum()} of {len(some)}"

    assert f"got at once {hung(['plain'], 'at_once')}" in page
    assert f"one by one {hung(['plain'], 'by_page')}" in page
    entry = hung(["loop", "loop_1k"], "on_entry", "on_entry_ext4")
    assert f"{entry.replace(' of ', ' boots of ')} hung behind a loop device" in page
    small = boots[boots["disk"] == "loop_1k"]
    late = small[small["marks"] == "late"]
    assert f"used, in {(late['drawn'] > 0).sum()} boots of {len(late)}, and did not help" in page
    assert late["drawn"].max() == 2
    assert "never took more than two pages" in page
    less = hung(["loop_1k"], "stock_less")
    assert f"in {hung(['loop_1k'], 'stock').replace(' of ', ' boots of ')}, and in {less}" in page
    assert f"asked for in one section was {boots['asked_most'].max()})" in page
    assert (boots.loc[(boots["marks"] == "late") & (boots["disk"] == "plain"), "takes"] == 0).all()


# A guest that answers the first batch and then does what its name says.
GUEST = """#!/bin/sh
for word in "$@"; do case $word in hostfs=*) share=${{word#hostfs=}};; esac; done
first=$(ls "$share"/*.in | head -n 1); name=${{first%.in}}
printf '%s' '{answer}' > "$name.part"; mv "$name.part" "$name.out"; : > "$name.dmesg"
echo "last words"
{then}
"""


def fake(tmp_path: Path, then: str, answer: str = RECORDED) -> guest.Kernel:
    path = tmp_path / "linux"
    path.write_text(GUEST.format(answer=answer, then=then))
    path.chmod(0o755)
    return guest.Kernel(path, tmp_path / "initrd", "0", "0" * 64)


class TestGuest:
    def test_one_that_answers(self, tmp_path: Path) -> None:
        heard: list[int] = []
        run = guest.run(fake(tmp_path, "exit 0"), ABBA, 3, progress=heard.append)
        assert (len(run), run.deadlocks, heard) == (3, 2, [3])

    def test_one_that_crashes_is_asked_once_more(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="guest crashed and 7 trials are missing"):
            guest.run(fake(tmp_path, "exit 134"), ABBA, 10)

    def test_one_that_hangs_is_ended_with_its_children(self, tmp_path: Path) -> None:
        then = f"sleep 100 & echo $! > {tmp_path}/child; wait"
        started = time.monotonic()
        with pytest.raises(BadInput, match=r"guest hung .* last words"):
            guest.run(fake(tmp_path, then), ABBA, 10, patience=0.5)
        assert time.monotonic() - started < 30
        child = int((tmp_path / "child").read_text())
        for _ in range(100):  # its new parent may take a moment to notice
            try:
                os.kill(child, 0)
            except ProcessLookupError:
                break
            state = Path(f"/proc/{child}/stat").read_text().split()[2]
            if state == "Z":
                break
            time.sleep(0.05)
        else:
            os.kill(child, signal.SIGKILL)
            pytest.fail("a child of the guest outlived it")

    def test_a_torn_answer_is_not_lost(self, tmp_path: Path) -> None:
        torn = RECORDED[: len(RECORDED) - 40]
        with pytest.raises(BadInput, match="1 trials are missing, the first is 2"):
            guest.run(fake(tmp_path, "exit 1", torn), ABBA, 3)


@pytest.fixture
def bootable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that gets through, but behind a loop device; and a disk that is none."""
    for name, console in (("through", THROUGH), ("hangs", looks({}, {}))):
        (tmp_path / name).write_text(console)
    path = tmp_path / "linux"
    path.write_text(
        f"""#!/bin/sh
case "$*" in *disk=loop*) cat {tmp_path}/hangs;; *) cat {tmp_path}/through;; esac
"""
    )
    path.chmod(0o755)
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(10))
    monkeypatch.setattr(exhaust, "make_disk", lambda *_: disk)
    kernel = guest.Kernel(path, tmp_path / "initrd", "6.1.0", "0" * 64)
    monkeypatch.setattr(build, "built", lambda: kernel)


@pytest.mark.usefixtures("bootable")
class TestExhaustCommand:
    WORDS = ("kernel", "exhaust", "--only", "late,stock,plain,loop,once", "--boots", "2")

    def test_every_kind_is_booted_and_kept(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "boots.csv"
        assert main([*self.WORDS, "--output", str(path)]) == 0
        frame = pd.read_csv(path)
        ended = frame.groupby(["marks", "disk", "ending"]).size().to_dict()
        assert ended == {
            (marks, disk, ending): 2
            for marks in ("late", "stock")
            for disk, ending in (("plain", "done"), ("loop", "hung"))
        }
        out = capsys.readouterr().out
        assert "late          loop    once      -    0       0 2 hung" in out
        told = path.with_suffix(".txt").read_text()
        assert told.startswith("stock, loop, once: hung; 253 pages written")
        assert told.count(": hung; ") == 2

    def test_an_interruption_keeps_what_was_seen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = exhaust.read_outcome

        def interrupted(cell: exhaust.Cell, console: str) -> exhaust.Outcome:
            if cell.marks == "late" and cell.disk == "loop":
                raise KeyboardInterrupt
            return rows(cell, console)

        monkeypatch.setattr(exhaust, "read_outcome", interrupted)
        path = tmp_path / "boots.csv"
        assert main([*self.WORDS, "--jobs", "1", "--output", str(path)]) == 130
        kept = len(pd.read_csv(path))
        assert 1 <= kept <= 6
        assert f"interrupted; {kept} boots are in {path}" in capsys.readouterr().err

    def test_a_table_has_its_own_name(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*self.WORDS, "--output", str(tmp_path / "boots.txt")]) == 2
        assert "--output: boots.txt does not end in .csv" in capsys.readouterr().err
        assert not (tmp_path / "boots.txt").exists()


class TestCommandLine:
    def complaint(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
        assert main(["kernel", *words]) == 2
        got = capsys.readouterr()
        assert got.out == ""
        assert got.err.count("\n") == 1, got.err
        return got.err

    def test_one_line_where_a_part_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        abba = str(ROOT / "data" / "scenarios" / "abba.toml")
        for words in (["run", abba], ["compare"], ["show", abba], ["exhaust"]):
            assert "not built" in self.complaint(words, capsys)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "not installed: make" in self.complaint(["build"], capsys)
        assert not build.cache().exists()

    def test_one_line_where_a_scenario_is_not_ported(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        abba = (ROOT / "data" / "scenarios" / "abba.toml").read_text()
        file = tmp_path / "oom.toml"
        file.write_text(abba.replace("pages = 4", "pages = 4\noom_kills = 1", 1))
        told = self.complaint(["run", str(file)], capsys)
        assert "not ported to the kernel: the OOM killer" in told

    def test_one_line_where_a_set_is_wrong(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = (DATA / "eight.toml").read_text()
        file = tmp_path / "set.toml"
        for old, new, word in (
            ('label = "abba"', 'lable = "abba"', "family[1].lable: unknown key"),
            ("flushers = 3", "flushers = 99", "not ported"),
            ('"perthread"', '"perthread", "perthread"', "a scenario counts once"),
            ('waiting = ["asleep"]', 'waiting = "asleep"', "not a list"),
        ):
            file.write_text(text.replace(old, new, 1))
            assert word in self.complaint(["compare", str(file)], capsys)

    def test_unknown_action(self) -> None:
        with pytest.raises(SystemExit) as stop:
            main(["kernel", "explode"])
        assert stop.value.code == 2


@pytest.fixture
def kernel() -> guest.Kernel:
    try:
        return build.built()
    except BadInput as error:
        pytest.skip(str(error))


class TestInTheKernel:
    """With the kernel, if somebody has built it."""

    def test_the_same_seed_gives_the_same_trials(self, kernel: guest.Kernel) -> None:
        one, two = (guest.run(kernel, ABBA, 200, seed=5) for _ in range(2))
        assert one.trials[1:] == two.trials[1:]  # the first also says how much memory there was
        assert one.trials[0].ending == two.trials[0].ending

    def test_an_abba_is_found_and_told(self, kernel: guest.Kernel) -> None:
        found = evidence.find_deadlock(kernel, ABBA, 20)
        assert found is not None
        frames = {frame for thread in found.threads for frame in thread.frames}
        assert {"down_killable", "alloc_reserved_page", "lab_lock"} <= frames
        assert "circular locking dependency" in found.lockdep
        assert json.dumps(found.document())


    def test_ext4_out_of_memory_comes_to_an_end(self, kernel: guest.Kernel) -> None:
        """One boot of one kind that has always got through."""
        heard: list[exhaust.Outcome] = []
        exhaust.run(kernel, exhaust.cells(["stock", "plain", "once"]), 1, 1, heard.append)
        (outcome,) = heard
        assert outcome.ending == "done"
        assert outcome.counts["asked_most"] > 0
        assert outcome.row()["lockdep"] == "silent"
