"""Repairs of the proposal: verdicts against MODEL.md section 8. No test here can fail by chance."""

import json
import tomllib
from typing import Any

import pytest
import tomli_w

import reservelab as rl
from reservelab.__main__ import main
from reservelab.model.catalogue import data_folder
from reservelab.model.errors import BadInput
from reservelab.study.repairs import Outcome, Repairs, read_repairs

FILE = tomllib.loads((data_folder() / "repairs.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found() -> Repairs:
    return rl.repairs()


def one(found: Repairs, scheme: str, situation: str, waiting: str = "asleep") -> Outcome:
    (outcome,) = (
        o
        for o in found.outcomes
        if (o.scheme, o.situation, o.waiting) == (scheme, situation, waiting)
    )
    return outcome


def test_every_scheme_is_in_every_situation_under_both_rules(found: Repairs) -> None:
    assert len(found.outcomes) == 2 * len(FILE["schemes"]) * len(FILE["situations"])
    assert len(found.frame().drop_duplicates(["scheme", "situation", "waiting"])) == len(
        found.outcomes
    )


@pytest.mark.parametrize("waiting", ["asleep", "racing"])
def test_verdicts_are_those_of_section_8(found: Repairs, waiting: str) -> None:
    known = {
        ("no reserve at all", "plain"): "unsafe",
        ("own pages, one by one", "plain"): "unsafe",
        ("own pages, all at once", "plain"): "safe",
        ("semaphore on entry", "plain"): "safe",
        ("tickets, free pages first", "plain"): "safe",
        ("tickets, claimed pages first", "plain"): "safe",
        ("refill on completion", "lock"): "unsafe",  # the ABBA
        ("semaphore on entry", "lock"): "safe",
        ("semaphore on entry", "stack"): "unsafe",
        ("tickets, free pages first", "stack"): "unsafe",
    }
    assert {key: one(found, *key, waiting).verdict for key in known} == known


def test_proof_and_probability_agree(found: Repairs) -> None:
    frame = found.frame()
    decided = frame[frame.verdict != "no room"]
    assert ((decided.deadlock_probability == 0) == (decided.verdict == "safe")).all()
    assert ((decided.steps >= 0) == (decided.verdict == "unsafe")).all()


def test_the_proposal_kills_where_nothing_did(found: Repairs) -> None:
    """With a lock and no reserve there is no deadlock; the pool brings one."""
    assert one(found, "no reserve at all", "lock").verdict == "safe"
    assert one(found, "the proposal as mailed", "lock").verdict == "unsafe"


def test_what_the_readme_says(found: Repairs) -> None:
    """Tickets that draw on their claim first are safe but on a stack, and no other repair is."""
    frame = found.frame()
    repairs = frame[frame.variant.str.match("global|tickets")]
    safe = repairs[repairs.verdict == "safe"].groupby("variant").situation.nunique()
    assert safe.max() == safe["tickets draw-first"] == len(FILE["situations"]) - 1
    assert (safe == safe.max()).sum() == 1
    assert set(repairs[repairs.situation == "stack"].verdict) == {"unsafe"}


def test_text_is_ascii_of_72_columns(found: Repairs) -> None:
    lines = str(found).splitlines()
    assert str(found).isascii()
    assert [line for line in lines if len(line) > 72 or line != line.rstrip()] == []
    (row,) = (line for line in lines if line.startswith("the proposal as mailed  ") and "/" in line)
    proof = one(found, "the proposal as mailed", "plain").proof
    assert proof is not None
    assert row.split()[4].startswith(f"{len(proof.path)}/")


def test_json_is_the_frame(found: Repairs) -> None:
    rows = json.loads(found.to_json())["outcomes"]
    assert [row["digest"] for row in rows] == found.frame().digest.tolist()
    assert None in {row["throughput"] for row in rows}  # where there is no room


def test_a_limit_leaves_it_undecided() -> None:
    scheme, situation = FILE["schemes"][3], FILE["situations"]["plain"]
    text = tomli_w.dumps({"schemes": [scheme], "situations": {"plain": situation}})
    told: list[tuple[int, int]] = []
    small = read_repairs(text, 10, lambda done, total: told.append((done, total)))
    assert [o.verdict for o in small.outcomes] == ["undecided", "undecided"]
    assert str(small).splitlines()[2].split()[-1] == "?"
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"scheme": 1}, "scheme: unknown key"),
        ({"schemes": []}, "schemes: [] is no list"),
        ({"situations": 1}, "situations: 1 is no table"),
        ({"schemes": [{"name": "x"}]}, "schemes[0].scheme: missing"),
        ({"schemes": [{"name": "x", "scheme": "y"}]}, "schemes[0].scheme: 'y' is unknown"),
        ({"situations": {"a": {"machine": {}}}}, "situations.a.mounts: missing"),
        (
            {"situations": {"a": {"machine": {"pages": 1}, "mounts": [{"program": []}]}}},
            "situations.a.mounts[0].program: no submit",
        ),
    ],
)
def test_a_wrong_file_gets_one_line(change: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_repairs(tomli_w.dumps({**FILE, **change}))
    assert str(caught.value).startswith(line)


def test_the_verb(found: Repairs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "--repairs"]) == 0
    assert capsys.readouterr().out == f"{found}\n"
    assert main(["claims", "--repairs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(found.to_json())
