"""The claims of the mail: quoted right, judged by solvers, and able to come out otherwise.

No test here can fail by chance but the one on a simulation, which is seeded. Truths: the mail
itself, MODEL.md section 8, and the solvers, which have tests of their own.
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import reservelab as rl
from reservelab.__main__ import main
from reservelab.model.errors import BadInput
from reservelab.study.claims import (
    RULES,
    Claim,
    Criterion,
    Finding,
    Verdict,
    Verdicts,
    judge,
    judge_all,
    load,
)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
CLAIMS = load()
OPPOSITE = {"holds": "fails", "fails": "holds", "depends": "depends"}


@pytest.fixture(scope="module")
def verdicts() -> Verdicts:
    return judge_all(CLAIMS)


# --- What was said -------------------------------------------------------------------------------


def said(mail: str) -> dict[str, str]:
    """What each of the two wrote: Arcangeli answers Danilov, who had answered Arcangeli."""
    lines: dict[str, list[str]] = {"Andrea Arcangeli": [], "Nikita Danilov": []}
    for line in mail.splitlines():
        marks, text = re.fullmatch(r"((?:> ?)*)(.*)", line).groups()  # type: ignore[union-attr]
        author = ("Andrea Arcangeli", "Nikita Danilov")[marks.count(">") % 2]
        lines[author].append(text)
    return {author: " ".join(" ".join(texts).split()) for author, texts in lines.items()}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_quotes_stand_in_the_mail(claim: Claim) -> None:
    mails = sorted((SHARED / "thread").glob("2004-11-06-arcangeli.txt"))
    if not mails:
        pytest.skip("the mail is not beside the checkout: quotes cannot be looked up")
    assert claim.quote in said(mails[0].read_text(encoding="utf-8"))[claim.author]
    assert claim.message == "20041107011638.GJ3851@dualathlon.random"


def test_authors_are_told_apart() -> None:
    mail = "> > first\n> > words\n>\n> then ->these\n\nand\nthese\n"
    assert said(mail) == {
        "Andrea Arcangeli": "first words and these",
        "Nikita Danilov": "then ->these",
    }


def test_every_claim_asked_for_is_there() -> None:
    text = " ".join(claim.quote for claim in CLAIMS)
    for words in (
        "watermark is mostly useless", "The only way to make it perfect", "it'll work right",
        "wasting loads of ram", "less efficient", "track each user nr_pages",
        "clear the pre-thread flag", "guaranteed to complete", "guaranteed to be unlocked",
        "freely alloc_pages to refill", "blkdev layer is guaranteed to succeed",
    ):  # fmt: skip
        assert words in text
    assert [claim.place for claim in CLAIMS] == list(range(1, len(CLAIMS) + 1))


# --- What was found ------------------------------------------------------------------------------


def test_readme_shows_the_computed_table(verdicts: Verdicts) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- claims -->\n```text\n")
    table, found, _ = rest.partition("\n```\n<!-- end of claims -->")
    assert found
    assert table == str(verdicts), "paste what `reservelab claims` prints into README.md"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_negating_a_claim_flips_its_verdict(claim: Claim, verdicts: Verdicts) -> None:
    verdict, negated = verdicts[claim.name], judge(claim.negated)
    assert [f.true for f in negated.findings] == [not f.true for f in verdict.findings]
    assert None not in {f.true for f in verdict.findings}
    assert negated.word == OPPOSITE[verdict.word]
    assert [negated.under(rule) for rule in RULES] == [
        OPPOSITE[verdict.under(rule)] for rule in RULES
    ]
    assert [f.trial.name for f in negated.flips] == [f.trial.name for f in verdict.flips]
    assert claim.negated.negated.trials == claim.trials


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_claim_could_come_out_otherwise(claim: Claim, verdicts: Verdicts) -> None:
    """Some trial or condition is true and some is false: no criterion is a foregone conclusion."""
    assert {f.true for f in verdicts[claim.name].findings} == {True, False}


def plain(finding: Finding) -> tuple[int, int, int] | None:
    """Threads, demand and pages, where nothing but flushers of `alloc A, submit` is at work."""
    scenario = finding.scenario
    (mount, *more) = scenario.mounts
    words = [str(step) for step in mount.filesystem.program]
    device = mount.device
    others = more or mount.dirtiers or scenario.machine.oom_kills or scenario.scheme.max_sections
    if others or device is None or device.completion_pages:
        return None
    if len(words) != 2 or mount.filesystem.backs_out:
        return None
    return mount.flushers, mount.filesystem.nr_pages, scenario.machine.pages


def test_proofs_agree_with_what_is_known(verdicts: Verdicts) -> None:
    """MODEL.md section 8, for each proof of a claim that its statements are about."""
    gathering = {"watermark", "mempool", "perthread"}
    safe = {"perthread whole", "tickets draw-last", "global on-entry refill-allocate"}
    checked = 0
    for finding in (f for verdict in verdicts for f in verdict.findings):
        case, variant = plain(finding), finding.scenario.scheme.variant
        if case is None or finding.proof is None:
            continue
        threads, demand, pages = case
        if variant in gathering:
            assert finding.proof.deadlock_free == (threads * (demand - 1) < pages)
        elif variant in safe:
            assert finding.proof.deadlock_free
        else:
            continue
        checked += 1
    assert checked >= 30


def test_the_refill_is_lost_where_others_can_hold_all_that_is_not_in_the_pool() -> None:
    """A closed form of docs/model.md section 8, of the proposal as mailed, for R >= A >= 2.

    N flushers of `alloc(A), submit`, M pages, R of them in the pool: a deadlock is reachable iff
    (N - 1) (A - 1) > M - R. Only if: the pool always has enough for its owner, so the owner is
    stuck in its refill, the pool lacks a page at least, and the others hold all the rest, A - 1
    pages each at most. If: by the proofs here. So a larger pool out of the same pages is worse.
    """
    for demand, threads, pages in itertools.product((2, 3), (1, 2, 3, 4), (2, 3, 4, 5, 6)):
        toy = rl.Filesystem("toy", [rl.alloc(demand), rl.submit()])
        for reserve in range(demand, pages + 1):
            scheme = rl.GlobalPool(reserve)
            for waiting in RULES:
                scenario = rl.Scenario(
                    rl.Machine(pages), [rl.Mount(toy, threads)], scheme, 1, waiting
                )
                known = (threads - 1) * (demand - 1) > pages - reserve
                assert rl.prove(scenario).deadlock_free != known, scenario


def test_waiting_rules_disagree_where_they_are_said_to(verdicts: Verdicts) -> None:
    """Asleep the proposal halves the deadlocks of no reserve at all, racing it adds to them."""
    verdict = verdicts["global-pool"]
    assert verdict.under("asleep") != verdict.under("racing")
    first = [f for f in verdict.findings if f.trial == verdict.claim.trials[0]]
    assert [f.true for f in first] == [True, False]


# --- What is printed -----------------------------------------------------------------------------


def test_text_is_ascii_of_72_columns(verdicts: Verdicts) -> None:
    for text in (str(verdicts), *map(str, verdicts)):
        assert text.isascii()
        assert [line for line in text.splitlines() if len(line) > 72 or line != line.rstrip()] == []


def test_frame_and_json_say_the_same(verdicts: Verdicts) -> None:
    frame = verdicts.frame()
    documents = json.loads(verdicts.to_json())["claims"]
    assert len(frame) == sum(map(len, CLAIMS)) == sum(len(d["findings"]) for d in documents)
    rows = [row for document in documents for row in document["findings"]]
    for column in ("trial", "waiting", "true", "states", "steps", "digest", "best"):
        assert frame[column].tolist() == [row[column] for row in rows]
    assert ((frame.low <= frame.best) & (frame.best <= frame.high)).all()
    assert [d["verdict"] for d in documents] == [verdict.word for verdict in verdicts]


def test_detail_quotes_and_tells_the_way(verdicts: Verdicts) -> None:
    text = str(verdicts["refill"])
    assert "freely alloc_pages" in text
    assert "Andrea Arcangeli, in <20041107011638.GJ3851@dualathlon.random>" in text
    assert "the wait-for cycle" in text
    assert "the wait-for cycle" not in str(verdicts["perthread-slow"])


# --- Verdicts ------------------------------------------------------------------------------------

TRIAL = {"name": "one"}
FILE: dict[str, Any] = {
    "title": "toys never deadlock",
    "author": "nobody",
    "message": "none",
    "quote": "toys never deadlock",
    "reading": "toys",
    "solver": "prove",
    "false_if": "deadlock reachable",
    "scenario": {
        "machine": {"pages": 3},
        "scheme": {"variant": "watermark", "reserve": 3},
        "mounts": [{"program": ["alloc 2", "submit"], "flushers": 3}],
    },
    "trials": [TRIAL],
}
TWO = {"name": "two", "scenario": {"mounts": [{"flushers": 2}]}}


def claim_of(**changes: Any) -> Claim:  # noqa: ANN401
    return Claim.from_toml("toys", tomli_w.dumps({**FILE, **changes}))


def test_words() -> None:
    assert judge(claim_of()).word == "fails"
    assert judge(claim_of(trials=[TWO])).word == "holds"
    assert judge(claim_of(trials=[TRIAL, TWO])).word == "depends"
    found = judge(claim_of(conditions=[TWO]))
    assert found.word == "fails"
    assert [f.trial.name for f in found.flips] == ["two", "two"]
    assert str(Verdicts((found,))).splitlines()[-1] == "    flips with: two"


def test_a_limit_leaves_it_undecided() -> None:
    assert judge(claim_of(trials=[TWO]), limit=5).word == "undecided"
    # What is reached before the limit is reached.
    toys = claim_of(trials=[TRIAL, {**TWO, "scenario": {"mounts": [{"flushers": 9}]}}])
    found = judge(toys, limit=30)
    assert {f.true for f in found.findings} == {False, None}
    assert found.word == "undecided"
    assert "undecided: two" in str(Verdicts((found,)))
    assert found.frame()["best"].isna().sum() == 2
    assert json.loads(found.to_json())["findings"][-1]["best"] is None


def test_one_waiting_rule_can_be_asked_for() -> None:
    found = judge(claim_of(trials=[{**TRIAL, "scenario": {"waiting": "racing"}}]))
    assert [f.waiting for f in found.findings] == ["racing"]
    assert (found.under("asleep"), found.under("racing")) == ("undecided", "fails")
    assert found.word == "fails"


def test_intervals_decide_only_where_they_can() -> None:
    low, high = rl.Interval(0.1, 0.2, 0.3), rl.Interval(0.3, 0.4, 0.5)
    for sign, met in {"<": True, "<=": True, ">": False, ">=": False}.items():
        criterion = Criterion("time", sign, 0.35)
        assert criterion.met(low, None) is met
        assert criterion.met(high, None) is None
        assert criterion.negated.met(low, None) is not met
        assert Criterion("time", sign, 1.0, True).met(low, rl.Interval(0.4, 0.5, 0.6)) is met
        assert Criterion("time", sign, 1.0, True).met(low, rl.Interval(0.2, 0.5, 0.6)) is None
    # On the bound itself a value of no width is decided, one way or the other.
    sharp = rl.Interval(0.35, 0.35, 0.35)
    assert [Criterion("time", sign, 0.35).met(sharp, None) for sign in ("<", "<=", ">", ">=")] == [
        False, True, False, True,
    ]  # fmt: skip
    assert Criterion("time", "<", 1.0).met(None, None) is None


def test_simulate_gives_an_interval() -> None:
    """0.336770 exactly. 0.25 and 0.45 lie 18 standard errors away, so no seed would matter."""
    own = {"scenario": {"quota": 2}, "solver": "simulate", "episodes": 10_000}
    trials = [
        {"name": "below", "false_if": "deadlock_probability < 0.25", **own},
        {"name": "above", "false_if": "deadlock_probability < 0.45", **own},
        {"name": "at", "false_if": "deadlock_probability < 0.33677", **own},
    ]
    found = judge(claim_of(trials=trials))
    assert [f.true for f in found.findings if f.waiting == "asleep"] == [True, False, None]
    assert all(f.value is not None and f.value.low < f.value.high for f in found.findings)


def test_rare_gives_an_interval() -> None:
    own = {"solver": "rare", "false_if": "deadlock_probability > 0.5"}
    found = judge(claim_of(trials=[{**TRIAL, **own, "scenario": {"waiting": "asleep"}}]))
    assert [f.true for f in found.findings] in ([True], [None])


# --- Files ---------------------------------------------------------------------------------------


def test_a_trial_is_laid_over_what_is_shared() -> None:
    over = {
        "machine": {"dirty": 1},
        "mounts": [{"flushers": 1, "on": 1}, {"program": ["alloc 1", "submit"]}],
    }
    against = {"scheme": "perthread"}
    made = claim_of(
        solver="exact",
        false_if="throughput < 2 * against",
        trials=[{"name": "one", "scenario": over, "against": against}],
    ).trials[0]
    assert made.scenario.machine == rl.Machine(pages=3, dirty=1)
    upper, lower = made.scenario.mounts
    assert (upper.flushers, upper.on) == (1, 1)
    assert [str(step) for step in upper.filesystem.program] == ["alloc 2", "submit"]
    assert lower.flushers == 0
    assert made.scenario.scheme == rl.Watermark(3)
    assert made.against == replace(made.scenario, scheme=rl.PerThread())


@pytest.mark.parametrize(
    "text",
    [
        "deadlock reachable", "trouble unreachable", "time < 0.5", "throughput >= against",
        "idle_reserve_mean <= 2 * against",
    ],
)  # fmt: skip
def test_a_criterion_is_written_as_it_is_read(text: str) -> None:
    assert str(Criterion.from_text(text)) == text
    assert str(Criterion.from_text(text).negated) != text


def wrong_files() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"quote": " "}, "quote: ' ' is not text"
    yield {"place": -1}, "place: -1 is too small"
    yield {"verdict": "holds"}, "verdict: unknown key"
    yield {"trials": []}, "trials: none"
    yield {"trials": {"name": "one"}}, "trials: {'name': 'one'} is not a list"
    yield {"trials": [TRIAL, TRIAL]}, "trials: two are named 'one'"
    yield {"trials": [{}]}, "trials[0].name: missing"
    yield {"solver": "guess"}, "trials[0].solver: 'guess' is unknown; one of prove, prove unbounded"
    yield {"conditions": [{**TWO, "solver": 1}]}, "conditions[0].solver: 1 is unknown"
    yield {"false_if": "deadlock"}, "trials[0].false_if: 'deadlock' is no criterion"
    yield {"false_if": "time < x"}, "trials[0].false_if: 'time < x' is no criterion"
    yield {"false_if": "time < nan"}, "trials[0].false_if: 'time < nan' is no criterion"
    yield {"false_if": "time < 2 against"}, "trials[0].false_if: 'time < 2 against' is no criterion"
    yield {"false_if": "time < 1"}, "trials[0].false_if: 'time < 1' is not for 'prove'"
    wrong = "trials[0].false_if: 'deadlock reachable' is not for 'exact'"
    yield {"solver": "exact"}, wrong
    wrong = "trials[0].false_if: 'idle_reserve_peak > 1' is not for 'exact'"
    yield {"solver": "exact", "false_if": "idle_reserve_peak > 1"}, wrong
    yield {"solver": "exact", "false_if": "time > 1 * against"}, "trials[0].against: missing"
    yield {"trials": [{**TRIAL, "against": {}}]}, "trials[0].against: present"
    yield {"trials": [{**TRIAL, "episodes": 5}]}, "trials[0].episodes: beside the solver 'prove'"
    yield {"scenario": {}}, "trials[0].scenario.machine: missing"
    yield {"scenario": 3}, "trials[0].scenario: 3 is not a table"
    over = {"mounts": [{"flushers": -1}]}
    wrong = "trials[0].scenario.mounts[0].flushers: -1 is too small"
    yield {"trials": [{**TRIAL, "scenario": over}]}, wrong


@pytest.mark.parametrize(("change", "line"), list(wrong_files()), ids=lambda p: str(p)[:40])
def test_a_wrong_file_gets_one_line(change: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput) as caught:
        claim_of(**change)
    assert str(caught.value).startswith(line)
    assert str(caught.value).count("\n") == 0
    assert caught.value.right


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "toys.toml").write_text("title = 3")
    with pytest.raises(BadInput, match=r"^claims/toys\.toml\.author: missing"):
        load(tmp_path)


# --- The command line ----------------------------------------------------------------------------


def test_the_verb(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["claims", "refill"]) == 0
    assert capsys.readouterr().out == f"{judge(rl.claims.load()[12])}\n"
    assert main(["claims", "clear-flag", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "holds"
    own = tmp_path / "toys.toml"
    own.write_text(tomli_w.dumps(FILE))
    assert main(["claims", str(own)]) == 0
    assert capsys.readouterr().out.startswith("toys never deadlock: asleep fails, racing fails\n")
    assert main(["claims", "nonsense"]) == 2
    assert "'nonsense' is unknown; a file, or one of block-layer," in capsys.readouterr().err


def test_progress_counts_every_question() -> None:
    told: list[tuple[int, int]] = []
    toys = claim_of(conditions=[TWO])
    judge_all([toys, toys], progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 8) for done in range(1, 9)]


def test_verdicts_are_values() -> None:
    one = judge(claim_of())
    assert isinstance(one, Verdict)
    assert one == judge(claim_of())
    with pytest.raises(AttributeError):
        one.claim = claim_of()  # type: ignore[misc]
