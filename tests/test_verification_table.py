"""The table of `make verify`: it says what happened, and the one in the repository is good."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reservelab.model.scenario import RULES_VERSION

TESTS = Path(__file__).parent
COMMITTED = TESTS.parent / "data" / "verification"
PLANTED = """
import pytest

@pytest.mark.truth("closed form", "all agree", "by hand")
@pytest.mark.parametrize("deviation", [1e-9, 1e-12])
def test_right(deviation, record_property):
    record_property("scenarios", 5)
    record_property("deviation", deviation)

@pytest.mark.truth("exact chain", "one of two fails", "exact")
@pytest.mark.parametrize("p", [0.5, 1e-9])
def test_wrong(p, record_property):
    record_property("p", p)
    record_property("note", f"p was {p}")
    assert p > 1e-3

@pytest.mark.truth("exact chain", "breaks before it can say anything", "exact")
def test_broken(no_such_fixture):
    pass

@pytest.mark.truth("independent implementation", "is not there", "somebody")
def test_missing():
    pytest.skip("not there")

def test_of_no_truth():
    pass
"""


def lines(directory: Path) -> dict[str, dict[str, str]]:
    rows = csv.DictReader((directory / "table.csv").read_text(encoding="ascii").splitlines())
    return {row["check"]: row for row in rows}


def test_it_says_what_happened(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text(PLANTED)
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    paths = {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--table", "out"],
        cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    found = lines(tmp_path / "out")
    assert {check: row["verdict"] for check, row in found.items()} == {
        "all agree": "agrees",
        "one of two fails": "FAILED",
        "breaks before it can say anything": "FAILED",
        "is not there": "skipped",
    }
    right, wrong = found["all agree"], found["one of two fails"]
    assert (right["tests"], right["scenarios"], right["deviation"]) == ("2", "10", "1.0e-09")
    assert (wrong["p"], wrong["rules"]) == ("1e-09", str(RULES_VERSION))
    assert found["is not there"]["scenarios"] == "0"
    text = (tmp_path / "out" / "table.txt").read_text(encoding="ascii")
    assert "p was 1e-09" in text
    assert "--table out" in text
    assert max(map(len, text.splitlines())) <= 72


def test_the_committed_table_is_good(request: pytest.FixtureRequest) -> None:
    """Of these rules, nothing failed, nothing skipped, every kind of truth."""
    if request.config.getoption("--table") is not None:
        pytest.skip("the table is being written")
    rows = lines(COMMITTED)
    assert {row["rules"] for row in rows.values()} == {str(RULES_VERSION)}
    assert {row["verdict"] for row in rows.values()} == {"agrees"}
    assert {row["kind"] for row in rows.values()} == {
        "closed form", "exact chain", "limit", "independent implementation", "negative control",
    }  # fmt: skip
    text = (COMMITTED / "table.txt").read_text(encoding="ascii")
    assert max(map(len, text.splitlines())) <= 72
