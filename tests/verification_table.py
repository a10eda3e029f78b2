"""The tables under data/verification/: what was held against which truth, and how it came out.

A test says what it verifies by the mark `truth(kind, check, source)`, and adds numbers by pytest's
own `record_property`: `scenarios` (one unless given), `deviation` (relative, the largest counts),
`p` (the smallest p-value, corrected for the tests of its family), `note` (a line of text). Tests
with the same kind and check make one line of the table; its verdict is that of the tests, so a
check that failed before it could record anything is in the table, too.

`make verify` writes `data/verification`, `make coverage` (half an hour of rare alone)
`data/verification/rare`. What a coverage test finds, how often an interval held the exact value,
goes into a note for each scenario.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import shlex
import textwrap
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
import storm_checker
from benchmarks.bench_engine import processor
from hypothesis import settings

import reservelab as rl
from reservelab.model.scenario import RULES_VERSION
from reservelab.solve.compiled import sources_digest

KINDS = (
    "closed form", "exact chain", "limit", "independent implementation", "negative control",
)  # fmt: skip
COLUMNS = ("kind", "check", "source", "tests", "scenarios", "deviation", "p", "verdict")


@dataclass
class Check:
    """One line of the table, out of all tests that name it."""

    kind: str
    check: str
    source: str
    outcomes: Counter[str] = field(default_factory=Counter)
    scenarios: int = 0
    deviation: float | None = None
    p: float | None = None
    notes: list[str] = field(default_factory=list)

    def add(self, outcome: str, properties: list[tuple[str, object]]) -> None:
        """Add the outcome of a test and what it recorded."""
        self.outcomes[outcome] += 1
        recorded = dict(properties)
        if outcome != "skipped":
            self.scenarios += int(str(recorded.get("scenarios", 1)))
        if "deviation" in recorded:
            self.deviation = max(self.deviation or 0.0, float(str(recorded["deviation"])))
        if "p" in recorded:
            self.p = min(1.0 if self.p is None else self.p, float(str(recorded["p"])))
        self.notes += [str(value) for name, value in properties if name == "note"]

    @property
    def verdict(self) -> str:
        """FAILED if one test did, skipped if one was, else agrees."""
        for outcome, verdict in (("failed", "FAILED"), ("skipped", "skipped")):
            if self.outcomes[outcome]:
                return verdict
        return "agrees"

    def cells(self) -> list[str]:
        """What stands in `COLUMNS`."""
        deviation = "" if self.deviation is None else f"{self.deviation:.1e}"
        p = "" if self.p is None else f"{self.p:.2g}"
        counts = (str(self.outcomes.total()), str(self.scenarios))
        return [self.kind, self.check, self.source, *counts, deviation, p, self.verdict]


def made_with() -> dict[str, str]:
    """What the run depends on: versions, the state of the sources, the processor."""
    packages = ("numba", "numpy", "scipy", "hypothesis")
    solver = storm_checker.describe("elimination") if storm_checker.available() else "none"
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "rules version": str(RULES_VERSION),
        "reservelab": f"{rl.__version__}, digest {sources_digest()} of what is compiled",
        "python": ", ".join([platform.python_version(), *(f"{n} {version(n)}" for n in packages)]),
        "Storm": " ".join(solver.split()),
        "processor": f"{processor()}, {os.cpu_count()} cores",
    }


def as_csv(head: dict[str, str], checks: list[Check]) -> str:
    """A line for each check; date and versions stand in each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["date", "rules", "reservelab", *COLUMNS])
    for check in checks:
        first = [head["date"], head["rules version"], rl.__version__]
        writer.writerow([*first, *check.cells()])
    return out.getvalue()


def as_text(head: dict[str, str], checks: list[Check]) -> str:
    """The table for reading: ASCII, at most 72 columns."""
    return "\n".join(_lines(head, checks)) + "\n"


def _lines(head: dict[str, str], checks: list[Check]) -> Iterator[str]:
    yield from ("Verification, written by make verify or make coverage", "")
    for name, value in head.items():
        yield from textwrap.wrap(f"{name + ':':15}{value}", 72, subsequent_indent=" " * 15)
    yield from (
        "",
        "deviation: the largest, relative. p: the smallest of a family, times the",
        "number of its comparisons (Bonferroni); right engines seldom show 0.01.",
    )
    for kind in dict.fromkeys(check.kind for check in checks):
        yield from ("", kind.upper())
        yield f"{'':34}{'scenarios':>10}{'deviation':>11}{'p':>8} verdict"
        for check in (check for check in checks if check.kind == kind):
            first, *rest = textwrap.wrap(check.check, 33)
            _, _, _, _, scenarios, deviation, p, verdict = check.cells()
            yield f"{first:34}{scenarios:>10}{deviation:>11}{p:>8} {verdict}"
            yield from rest
            yield from _indented(f"source: {check.source}")
            for note in check.notes:
                yield from _indented(note)


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, 72, initial_indent="  ", subsequent_indent="    ")


class Table:
    """The pytest plugin that fills the table while the tests run."""

    def __init__(self, directory: Path, command: list[str]) -> None:
        self.directory = directory
        self.command = command
        self.checks: dict[tuple[str, str], Check] = {}
        self.outcomes: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add a test when it has run, or when its set-up failed or skipped it."""
        report = yield
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1
            mark = item.get_closest_marker("truth")
            if mark is not None:
                kind, check, source = mark.args
                line = self.checks.setdefault((kind, check), Check(kind, check, source))
                line.add(report.outcome, report.user_properties)
        return report

    def pytest_sessionfinish(self) -> None:
        """Write both files."""
        counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(self.outcomes.items()))
        examples = f"{settings().max_examples} of each test that hypothesis draws for"
        head = made_with() | {
            "command": shlex.join(self.command), "examples": examples, "tests": counts,
        }  # fmt: skip
        checks = sorted(self.checks.values(), key=lambda check: KINDS.index(check.kind))
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "table.csv").write_text(as_csv(head, checks), encoding="ascii")
        (self.directory / "table.txt").write_text(as_text(head, checks), encoding="ascii")
