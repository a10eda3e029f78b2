"""docs/model.md says what the code has: its sections, names, lists and numbers, and its links."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from solved_cases import EXACT, OWN

import reservelab as rl
from reservelab.model import schemes
from reservelab.model.pack import REASONS
from reservelab.solve.simulate import default_event_limit, events_at_most
from reservelab.solve.tally import MEANS

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "docs" / "model.md"
TEXT = MODEL.read_text()
SOURCES = sorted(p for room in ("reservelab", "tests") for p in (ROOT / room).rglob("*.py"))
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "data").rglob("*.md")})


def sections(text: str) -> dict[str, str]:
    """Each section's text by its number."""
    parts = re.split(r"^## (\d+[a-z]?)\. .*\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


SECTIONS = sections(TEXT)

# A decimal number is a section of somebody's book, and KERNEL_FACTS.md has sections of its own. A
# line may end before the number; the name of a test is a citation too.
CITATION = re.compile(
    r"(?<!max_)(?<!KERNEL_FACTS\.md )[Ss]ections?(?:[\s#]+|_|(?=\d))"
    r"(\d+[a-z]?(?:(?:, | and )\d+[a-z]?)*)(?![\d.]*\d)"
)


def cited(text: str) -> set[str]:
    """Numbers of the sections that a text cites."""
    return {number for found in CITATION.findall(text) for number in re.split(", | and ", found)}


def table(text: str, head: str) -> list[list[str]]:
    """Cells of the rows under the table head whose first cell is `head`, without backticks."""
    lines = iter(text.splitlines())
    for line in lines:
        if cells(line)[:1] == [head]:
            next(lines)
            rows = []
            for row in lines:
                if not cells(row):
                    break
                rows.append(cells(row))
            return rows
    raise AssertionError(f"no table begins with {head!r}")


def cells(line: str) -> list[str]:
    if not line.startswith("|"):
        return []
    return [cell.strip().strip("`") for cell in line.strip("|").split("|")]


def vocabulary(text: str, column: str) -> tuple[str, ...]:
    """What stands in backticks in the item of a column of the scheme table."""
    item = re.search(rf"^- \*\*{column}\*\*: (.*(?:\n  .*)*)", text, re.M)
    assert item is not None, column
    return tuple(re.findall(r"`([^`]*)`", item[1]))


def dead_links(page: Path) -> list[str]:
    """Relative links of a page to what is not in the checkout."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    targets = {link: (page.parent / link).resolve() for link in links if ":" not in link}
    return [
        link
        for link, target in targets.items()
        if not (target.exists() and target.is_relative_to(ROOT))
    ]


def test_sections() -> None:
    assert list(SECTIONS) == ["1", "2", "3", "3a", *(str(n) for n in range(4, 11))]
    assert len(SECTIONS) == len(re.findall(r"^##+ ", TEXT, re.M))


@pytest.mark.parametrize("path", [*SOURCES, MODEL], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_cited_sections_exist(path: Path) -> None:
    assert cited(path.read_text()) <= set(SECTIONS)


def test_some_sections_are_cited() -> None:
    """Else the test above would be blind; these are where the most is decided."""
    everywhere = set().union(*(cited(path.read_text()) for path in SOURCES))
    assert everywhere >= {"2", "3", "3a", "4", "5", "6", "7", "8", "9", "10"}


# "@" is the word, so that this file does not itself cite what it plants.
@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("(@ 3a)", {"3a"}),
        ("@ 8's numbers, @s 1, 2 and 11.", {"8", "1", "2", "11"}),
        ("(MODEL.md\n# @ 5); docs/model.md @\n    7", {"5", "7"}),
        ("class Test@8Numbers: def test_@_10(self)", {"8", "10"}),
        ("Cochran 1977, @ 6.3; @ 10.25; KERNEL_FACTS.md @ 99; max_@s 2", set()),
    ],
)
def test_citations_are_read_as_a_person_would(text: str, numbers: set[str]) -> None:
    assert cited(text.replace("@", "section")) == numbers
    assert cited(text.replace("@", "Section")) == numbers


def test_rules_version() -> None:
    assert re.findall(r"^# The rules, version (\d+)$", TEXT, re.M) == [str(rl.RULES_VERSION)]


@pytest.mark.parametrize("column", ["start", "entry", "grants", "exit", "returns"])
def test_vocabulary(column: str) -> None:
    choices = getattr(schemes, {"grants": "Grant"}.get(column, column.title()))
    assert vocabulary(SECTIONS["5"], column) == get_args(choices)


def test_variants() -> None:
    rows = table(SECTIONS["5"], "variant")
    assert tuple(row[0] for row in rows) == rl.variants()
    for variant, start, *others in rows:
        reserve = 1 if start in ("mark", "mount_pools", "pool") else None
        scheme = rl.Scheme.named(variant, reserve)
        columns = (scheme.entry, ", ".join(scheme.grants), scheme.exit, scheme.returns)
        assert (variant, scheme.start, *columns) == (variant, start, *others)


def test_reasons() -> None:
    rows = table(SECTIONS["7"], "reason")
    assert tuple(row[0] for row in rows) == REASONS
    averages = {name.removeprefix("waiting_") for name in MEANS if name.startswith("waiting_")}
    assert {row[2] for row in rows} == averages | {"none"}


def test_numbers() -> None:
    fs = rl.Filesystem("fs", [rl.alloc(1), rl.submit()])
    scenario = rl.Scenario(rl.Machine(2), (rl.Mount(fs, 2),), rl.Watermark(1))
    limit = re.search(r"is (\d+) times a bound[^.]*plus\s([\d,]+) events", SECTIONS["7"])
    assert limit is not None
    times, plus = (int(number.replace(",", "")) for number in limit.groups())
    assert default_event_limit(scenario) == times * events_at_most(scenario) + plus
    assert re.findall(r"\b\d{3}\b", SECTIONS["9"]) == [str(len(EXACT)), str(len(OWN))]
    # tests/test_naive.py works these out anew.
    exact = re.findall(r"\b0\.\d{6}\b", SECTIONS["8"])
    assert len(exact) == 10
    anew = (ROOT / "tests" / "test_naive.py").read_text()
    assert [number for number in exact if number not in anew] == []


def test_width() -> None:
    assert [line for line in TEXT.splitlines() if len(line) > 100] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    assert dead_links(page) == []


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("[a](page.md) [b](page.md#there) [c](https://example.org/x) [d](#here)", 0),
        ("[a](nowhere.md)", 1),
        ("[a](nowhere.md#there)\n![b](nothing.png 'title')", 2),
        ("[a](../outside.md)", 1),
    ],
)
def test_a_dead_link_is_noticed(
    text: str, dead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path / "checkout")
    (tmp_path / "outside.md").touch()
    page = tmp_path / "checkout" / "page.md"
    page.parent.mkdir()
    page.write_text(text)
    assert len(dead_links(page)) == dead


def test_a_wrong_word_is_noticed() -> None:
    text = SECTIONS["5"]
    assert vocabulary(text.replace("`own_full`", "`own_whole`"), "entry") != get_args(schemes.Entry)
    rows = table(text.replace("|mempool|", "|mempools|"), "variant")
    assert tuple(row[0] for row in rows) != rl.variants()
    with pytest.raises(AssertionError):
        table(text, "nothing of the kind")


# --- Pages that are made, and pages that must know all of another ---------------------------------


def test_the_api_page_is_made_of_the_docstrings() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import make_api; print(make_api.page(), end='')"],
        cwd=ROOT / "docs", env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (ROOT / "docs" / "api.md").read_text() == done.stdout, "run: python docs/make_api.py"


def test_every_variant_has_a_place_among_the_schemes() -> None:
    page = (ROOT / "docs" / "schemes.md").read_text()
    assert [name for name in re.findall(r"^## (S\d+)\. ", page, re.M)] == [
        f"S{k}" for k in range(1, 11)
    ]
    families = {variant.split()[0] for variant in rl.variants()}
    rows = " ".join(row[2] for row in table(page, ""))
    assert {name for name in families if name not in rows} == set()
    for words in {word for variant in rl.variants() for word in variant.split()[1:]}:
        assert words in page, words


# Decimal numbers of the README that are no result: versions, a licence, an example's.
NO_RESULTS = {"2.0", "3.11", "6.1", "6.18", "0.9", "0.1", "0.5"}


def test_every_decimal_number_of_the_readme_has_a_command() -> None:
    """Numbers without a point are too many to tell from years and names."""
    found = set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", (ROOT / "README.md").read_text()))
    page = (ROOT / "docs" / "reproduce.md").read_text()
    assert "0.336770314088" in found
    missing = {number for number in found - NO_RESULTS if number not in page}
    assert missing == set(), "add a row to the table of docs/reproduce.md, with the command"
