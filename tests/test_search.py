"""The search for a scheme: its space, its verdicts, and what docs/search.md says of them.

Nothing here fails by chance: verdicts and exact values are deterministic, draws are seeded.
"""

import itertools
import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

import reservelab as rl
from reservelab.__main__ import main
from reservelab.model import schemes as ms
from reservelab.model.scenario import Waiting
from reservelab.study import search as study
from reservelab.study.search import (
    CHOICES,
    LIMITS,
    RESERVES,
    Search,
    document,
    read_scenarios,
    search,
    shipped_scenarios,
    space,
)

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "search.md"
ALL = space()


PLAIN = rl.Filesystem("plain", [rl.alloc(2), rl.submit()])


def scenario_of(threads: int, pages: int, **device: int) -> rl.Scenario:
    mount = rl.Mount(PLAIN, threads, device=rl.Device(**device))
    return rl.Scenario(rl.Machine(pages), [mount], rl.Watermark(0))


@pytest.fixture(scope="module")
def small() -> Search:
    """Three scenarios that are solved in a moment."""
    stack = rl.Scenario(
        rl.Machine(4), [rl.Mount(PLAIN, 1, on=1), rl.Mount(PLAIN)], rl.Watermark(0), quota=2
    )
    completion = scenario_of(2, 5, completion_pages=1)
    asked = {"plain": scenario_of(3, 3), "completion": completion, "stack": stack}
    return search(asked, limits=(None, 1))


# --- The space -----------------------------------------------------------------------------------


def test_combinations_are_counted() -> None:
    sources = len(get_args(ms.Grant))
    orders = sum(math.perm(sources, k) for k in range(1, sources + 1))
    others = (ms.Start, ms.Entry, ms.Exit, ms.Returns)
    combinations = orders * len(LIMITS) * math.prod(len(get_args(c)) for c in others)
    assert ALL.combinations == combinations
    assert ALL.misfits.combinations.sum() + ALL.schemes == combinations
    assert len({candidate.scheme for candidate in ALL.candidates}) == ALL.schemes
    sized = {c.scheme for c in ALL.candidates if c.reserve}
    assert len(ALL.candidates) == ALL.schemes + (len(RESERVES) - 1) * len(sized)


def test_a_combination_is_in_the_space_if_and_only_if_it_is_a_scheme() -> None:
    """In any order of its sources: 20,000 draws, and each scheme with one choice changed."""
    known = {_row(candidate.scheme) for candidate in ALL.candidates}
    draw = random.Random(1)
    columns = [get_args(c) for c in (ms.Start, ms.Entry, ms.Exit, ms.Returns)]
    sources = get_args(ms.Grant)
    asked = set()
    for _ in range(20_000):
        start, entry, leave, returns = (draw.choice(column) for column in columns)
        grants = tuple(draw.sample(sources, draw.randint(1, 3)))
        asked.add((start, entry, grants, leave, returns, draw.choice(LIMITS)))
    for row in known:
        for place, column in zip((0, 1, 3, 4), columns, strict=True):
            asked |= {(*row[:place], choice, *row[place + 1 :]) for choice in column}
        asked |= {(*row[:2], g, *row[3:]) for g in itertools.permutations(row[2])}
    assert len(asked & known) == len(known)
    for row in asked:
        assert (row in known) == _is_scheme(row), row


def _row(scheme: rl.Scheme) -> tuple[Any, ...]:
    return (*(getattr(scheme, key) for key in CHOICES), scheme.max_sections)


def _is_scheme(row: tuple[Any, ...]) -> bool:
    for reserve in (None, 1):
        try:
            choices = dict(zip(CHOICES, row, strict=False))
            rl.Scheme(**choices, reserve=reserve, max_sections=row[5])
        except rl.BadInput:
            continue
        return True
    return False


@pytest.mark.parametrize("variant", rl.variants())
def test_every_named_scheme_is_in_it(variant: str) -> None:
    start = dict.fromkeys(("watermark", "mempool"), 1).get(variant.split()[0])
    assert _row(rl.Scheme.named(variant, start)) in {_row(c.scheme) for c in ALL.candidates}


@pytest.mark.parametrize("name", shipped_scenarios())
def test_no_reserve_is_all_the_memory_there_is(name: str) -> None:
    """Else a late semaphore is safe because nobody but its owner has any page (section 8)."""
    scenario = shipped_scenarios()[name]
    assert scenario.machine.pages not in {rule(scenario) for rule in RESERVES.values()}


def test_a_candidate_is_placed_with_its_reserve() -> None:
    scenario = shipped_scenarios()["mounts"]
    sizes = {"largest": 3, "twice": 6, "sum": 4}
    for candidate in ALL.candidates:
        if candidate.reserve and candidate.scheme.start != "mount_pools":
            assert candidate.placed(scenario).reserve == sizes[candidate.reserve]
        elif not candidate.reserve and candidate.scheme.start == "nothing":
            assert candidate.placed(scenario).reserve is None


# --- Verdicts ------------------------------------------------------------------------------------


def test_verdicts_are_those_of_prove_and_values_those_of_exact(small: Search) -> None:
    """Every twelfth answer is asked again, one by one."""
    table = small.frame()
    assert len(table) == 2 * len(small.scenarios) * len(small.space.candidates)
    seen = set()
    row: dict[Any, Any]
    for row in table[::12].to_dict("records"):
        scenario = replace(small.scenarios[row["scenario"]], waiting=row["waiting"])
        seen.add(row["verdict"])
        try:
            here = small.space.candidates[row["candidate"]].placed(scenario)
        except rl.BadInput:
            assert row["verdict"] == "no room"
            continue
        proof, value = rl.prove(here), rl.exact(here)
        assert row["verdict"] == ("safe" if proof.safe and proof.livelock_free else "unsafe")
        assert row["steps"] == len(proof.path)
        assert (value.deadlocked_states == 0) == proof.deadlock_free
        for name in ("deadlock_probability", "idle_reserve_mean", "throughput"):
            expected = getattr(value, name)  # None in an episode of no duration
            if expected is None:
                assert row[name] != row[name]
            else:
                assert row[name] == pytest.approx(expected, rel=1e-10)
        if row["verdict"] == "safe":
            assert (row["forever"] == "safe") == rl.prove(here, "unbounded").safe
        else:
            assert row["forever"] == ""
    assert seen == {"safe", "unsafe", "no room"}


def test_both_kinds_of_answers_are_there(small: Search) -> None:
    ranking = small.ranking()
    assert 0 < ranking.eligible.sum() < len(ranking)
    assert ranking.behaviour.nunique() < len(ranking)
    assert ranking.idle.notna().equals(ranking.eligible)
    killers = small.killers().set_index("scenario")
    counts = killers[["safe", "unsafe", "undecided", "no_room"]].sum(axis=1)
    assert (counts == len(small.space.candidates)).all()


def test_workers_change_nothing() -> None:
    scenarios = {"plain": scenario_of(3, 3)}
    one, two = (search(scenarios, (None,), workers=n) for n in (1, 2))
    assert one.frame().equals(two.frame())
    assert str(one) == str(two)


def test_what_is_cut_off_is_undecided_and_not_eligible() -> None:
    found = search({"plain": scenario_of(3, 3)}, (None,), limit=40)
    table, ranking = found.frame(), found.ranking()
    assert {"undecided", "unsafe"} <= set(table.verdict)
    cut = set(table.candidate[table.verdict == "undecided"])
    assert not ranking.eligible[ranking.candidate.isin(cut)].any()
    # Neither is one like another.
    numbers = ranking.behaviour[ranking.candidate.isin(cut)]
    assert numbers.nunique() == len(cut)


def test_a_scenario_in_which_nobody_is_eligible() -> None:
    found = search({"never": scenario_of(3, 1)}, limits=(None,))
    assert not found.ranking().eligible.any()
    assert "candidates 0, " in str(found)


def test_alike_means_equal_values(small: Search) -> None:
    """In every answer; and some who differ in a choice are alike, as bios that drew nothing are."""
    ranking, table = small.ranking(), small.frame()
    values = table[["verdict", "throughput", "idle_reserve_mean", "time", "deadlock_probability"]]
    for _, alike in ranking.groupby("behaviour"):
        first, *others = (
            values[table.candidate == number].reset_index(drop=True) for number in alike.candidate
        )
        for other in others:
            assert first.verdict.equals(other.verdict)
            numbers = first.columns[1:]
            assert first[numbers].sub(other[numbers]).abs().max().max() < 1e-8
    assert (ranking.groupby("behaviour").returns.nunique() > 1).any()


def test_front_by_hand() -> None:
    costs = [[1, 3], [2, 2], [3, 1], [3, 3], [2, 2], [2, 2 + 1e-12]]
    import numpy as np

    found = study._undominated(np.array(costs, dtype=float)).tolist()
    assert found == [True, True, True, False, True, True]


def test_pages_needed_by_hand(small: Search) -> None:
    """Four flushers of alloc(2): without any rule safe iff N (A - 1) < M (MODEL.md section 8)."""
    fs = rl.Filesystem("fs", [rl.alloc(2), rl.submit()])
    scenario = rl.Scenario(rl.Machine(1), [rl.Mount(fs, 4)], rl.Watermark(0))
    free = next(
        number
        for number, c in enumerate(small.space.candidates)
        if str(c) == "nothing nothing free nothing free"
    )
    asked = {free: small.space.candidates[free]}
    found = study.pages_needed(asked, scenario, (1, 2), 6)
    assert found.pages.tolist() == [5, 5]
    assert study.pages_needed(asked, scenario, (1,), 4).pages.tolist() == [0]
    assert study.pages_needed(asked, scenario, (2,), 6, limit=40).pages.tolist() == [-1]


def test_one_waiting_rule_known_to_fail_decides_a_size(small: Search) -> None:
    """With 5 pages and 280 states: asleep unsafe (257), racing undecided (safe, with 303)."""
    program = [rl.alloc(1), rl.lock("a"), rl.alloc(1), rl.unlock("a"), rl.submit()]
    mount = rl.Mount(rl.Filesystem("abba", program), 3)
    scenario = rl.Scenario(rl.Machine(5), [mount], rl.GlobalPool(2), quota=1)
    verdicts = {
        waiting: study._proved(replace(scenario, waiting=waiting), 280)[0]
        for waiting in get_args(Waiting)
    }
    assert verdicts == {"asleep": "unsafe", "racing": "undecided"}
    mailed = next(
        number
        for number, c in enumerate(small.space.candidates)
        if str(c) == "pool nothing free+global_pool refill free, R largest"
    )
    asked = {mailed: small.space.candidates[mailed]}
    for pages, limit, needed in ((5, 1_000, 0), (5, 280, 0), (6, 280, -1), (5, 100, -1)):
        found = study.pages_needed(asked, scenario, (1,), pages, limit)
        assert found.pages.tolist() == [needed], (pages, limit)


@pytest.mark.parametrize(("limit", "word"), [(1_000, "no"), (60, "?")])
def test_what_is_undecided_for_ever_is_not_told_as_unsafe(
    small: Search, limit: int, word: str
) -> None:
    """Own pools whose bios go to free: unsafe for ever on a stack, which takes over 60 states."""
    asked = {"stack": small.scenarios["stack"], "one": scenario_of(1, 4)}
    found = search(asked, (None,), limit)
    rows = found.table[(found.table.scenario == "stack") & (found.table.forever != "")]
    assert set(rows.forever) == {"safe", "unsafe" if word == "no" else "undecided"}
    lines = str(found).partition("stack: pages")[2]
    ours = "mount_pools nothing free+mount_pool nothing free, R"
    assert re.search(rf"^ +4 +[4?]  {re.escape(word):4} +{re.escape(ours)}$", lines, re.M)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(rl.BadInput, match="at least one scenario"):
        search({})
    with pytest.raises(rl.BadInput, match="limit"):
        search(limit=0)
    twice = [tmp_path / "a" / "x.toml", tmp_path / "b" / "x.toml"]
    for path in twice:
        path.parent.mkdir()
        path.write_text((ROOT / "data" / "search" / "plain.toml").read_text())
    with pytest.raises(rl.BadInput, match="a second x"):
        read_scenarios(twice)
    with pytest.raises(rl.BadInput, match="no place"):
        document("nothing\n", "")


def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(scenario_of(2, 2).toml())
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n<!-- reservelab search -->\nold\n<!-- end -->\n\nmore\n")
    assert main(["search", str(file), "--into", str(page)]) == 0
    told = capsys.readouterr().out
    assert told.isascii()
    assert all(len(line) <= 72 and line == line.rstrip() for line in told.splitlines())
    assert page.read_text() == (
        f"# A page\n\n<!-- reservelab search -->\n```text\n{told}```\n<!-- end -->\n\nmore\n"
    )
    assert main(["search", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schemes"] == ALL.schemes
    monkeypatch.setattr(study, "search", lambda *_, **__: pytest.fail("not refused before"))
    for text in ("no markers\n", ""):
        page.write_text(text)
        assert main(["search", str(file), "--into", str(page)]) == 2
        assert page.read_text() == text


# --- The page ------------------------------------------------------------------------------------


def report() -> str:
    """What stands between the markers."""
    found = re.search(r"<!-- reservelab search -->\n```text\n(.*)```\n", DOCUMENT.read_text(), re.S)
    assert found is not None
    return found[1]


def test_the_page_is_of_today_as_far_as_a_moment_can_tell() -> None:
    """The space, and the row of one scenario; the whole page is made anew by `make verify`."""
    text = report()
    assert f"{ALL.combinations:,} combinations" in text
    assert f"{ALL.schemes} are schemes" in text
    some = {name: shipped_scenarios()[name] for name in ("commit",)}
    rows = search(some).killers()
    for row in rows.itertuples(index=False):
        line = f"{row.scenario:12}" + "".join(f"{number:10}" for number in row[1:6])
        assert line in text


@pytest.mark.parametrize("waiting", get_args(Waiting))
@pytest.mark.parametrize("name", [n for n, s in shipped_scenarios().items() if not s.stacked])
def test_the_answer_of_the_page(name: str, waiting: Waiting) -> None:
    """Its three schemes, proved anew: as proposed, repaired, repaired for replies too."""
    scenario = replace(shipped_scenarios()[name], waiting=waiting)
    proposed = rl.GlobalPool()
    repaired = replace(proposed, entry="semaphore", exit="wait_full", returns="pool")
    drawn_first = replace(repaired, grants=("global_pool", "free"))
    safe = [
        rl.prove(replace(scenario, scheme=scheme)).safe
        for scheme in (proposed, repaired, drawn_first)
    ]
    assert safe == [False, name != "completion", True]


def test_the_answer_is_in_the_tables() -> None:
    words = " ".join(report().split())
    assert "in 3 choices: entry semaphore, exit wait_full, returns pool (R largest" in words
    wider = "in 4 choices: entry semaphore, grants global_pool+free, exit wait_full, returns pool"
    assert wider in words


@pytest.mark.slow
@pytest.mark.verify
def test_the_page_is_what_the_command_writes() -> None:
    assert str(search()) + "\n" == report()
