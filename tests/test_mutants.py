"""Negative controls: the rules broken in one place on purpose, and the suite must notice.

Each mutant is one edit of reservelab/solve/rules.py in a copy of the checkout. In a process of its
own, in plain Python (a mutant would compile for half a minute), the copy is walked step by step
beside tests/naive.py, as tests/test_rules.py does: solved cases first, then corners, then scenarios
drawn for each variant. The first test that fails has killed the mutant; one that lives fails here,
and so does one whose text is no longer in the rules. Nothing here can fail by chance: examples are
fixed, and the untouched rules pass the same tests.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RULES = Path("reservelab/solve/rules.py")
SUITE = "tests/test_rules.py::TestStepByStep"
FIRST_FAILURE = [
    sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
    "--hypothesis-profile=unshrunk", "--no-header", "--tb=no",
    f"{SUITE}::test_solved_cases",
    f"{SUITE}::test_corners_that_are_seldom_drawn",
    f"{SUITE}::test_same_states_transitions_ends_and_counters",
]  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One edit of the rules, by the part of a scheme or of MODEL.md it breaks."""

    part: str
    name: str
    text: str  # stands once in the rules; what comes before the edited line makes it so
    instead: str


MUTANTS = [
    # --- the five choices of a scheme ------------------------------------------------------------
    Mutant(
        "start", "the pool is not taken out of the free pages",
        "t[p.H_PAGES] - t[p.H_POOL] - mounts", "t[p.H_PAGES] - mounts",
    ),
    Mutant(
        "start", "a standing reserve is not taken out of the free pages",
        "s[p.S_FREE] -= need\n", "s[p.S_FREE] -= 0\n",
    ),
    Mutant(
        "entry", "throttle rounds up",
        "2 * s[p.S_FREE] > t[p.H_MARK]", "s[p.S_FREE] > (t[p.H_MARK] + 1) // 2",
    ),
    Mutant(
        "entry", "one more inside than max_sections",
        "s[p.S_INSIDE] >= t[p.H_LIMIT]", "s[p.S_INSIDE] > t[p.H_LIMIT]",
    ),
    Mutant(
        "entry", "a section begins before its last own page",
        "if s[row + p.OWN] < need:", "if s[row + p.OWN] < need - 1:",
    ),
    Mutant(
        "entry", "enters with a standing reserve that is not whole",
        "elif s[row + p.OWN] < t[code + p.C_OPERAND]:",
        "elif s[row + p.OWN] < t[code + p.C_OPERAND] - 1:",
    ),
    Mutant("entry", "a claim leaves the tickets there", "s[p.S_POOL] -= need", "s[p.S_POOL] -= 0"),
    Mutant(
        "entry", "enters without taking the semaphore",
        "        s[p.S_OWNER] = i\n    s[p.S_INSIDE] += 1", "        pass\n    s[p.S_INSIDE] += 1",
    ),
    Mutant(
        "grants", "takes from the pool before the semaphore is looked at",
        "if s[p.S_POOL] > 0 and (s[p.S_OWNER] == p.NOBODY or s[p.S_OWNER] == i):",
        "if s[p.S_POOL] > 0:",
    ),
    Mutant(
        "grants", "looks at the semaphore before taking a free page",
        "if s[p.S_FREE] > 0:\n                s[p.S_FREE] -= 1\n                break",
        "if s[p.S_FREE] > 0 and (s[p.S_OWNER] == p.NOBODY or s[p.S_OWNER] == i):\n"
        "                s[p.S_FREE] -= 1\n                break",
    ),
    Mutant(
        "grants", "draws from the pool without becoming its owner",
        "s[p.S_OWNER] = i\n                _draw_pool", "_draw_pool",
    ),
    Mutant(
        "grants", "a page of the mount's pool stays there",
        "s[pool] -= 1\n", "s[pool] -= 0\n",
    ),
    Mutant(
        "grants", "pages drawn from the pool are not counted",
        "s[row + p.DRAWN] += t[p.H_COUNTS_POOL]", "s[row + p.DRAWN] += 0",
    ),
    Mutant(
        "grants", "pages drawn from a standing reserve are not counted",
        "s[row + p.DRAWN] += t[p.H_COUNTS_OWN]", "s[row + p.DRAWN] += 0",
    ),
    Mutant(
        "exit", "skips the flag",
        "if s[p.S_FREE] == 0:  # never with EXIT_REFILL", "if False:  # never with EXIT_REFILL",
    ),
    Mutant("exit", "refills twice", "s[p.S_POOL] += 1\n", "s[p.S_POOL] += 2\n"),
    Mutant(
        "exit", "gives the semaphore up with one page still to refill",
        "if s[row + p.DRAWN] > 0:\n                return",
        "if s[row + p.DRAWN] > 1:\n                return",
    ),
    Mutant(
        "exit", "does not wait until the pool is full",
        "return s[p.S_POOL] == t[p.H_POOL]", "return True",
    ),
    Mutant(
        "exit", "keeps its own pages",
        "_to_own(s, row, -s[row + p.OWN])", "_to_own(s, row, 0)",
    ),
    Mutant(
        "exit", "an unused claim is lost",
        "s[p.S_POOL] += s[row + p.CLAIM]", "s[p.S_POOL] += 0",
    ),
    Mutant(
        "exit", "never gives the semaphore up",
        "        _release_semaphore(t, s)\n    s[p.S_INSIDE] -= 1", "    s[p.S_INSIDE] -= 1",
    ),
    Mutant(
        "returns", "forgets to return a page",
        "s[p.S_FREE] += pages\n", "s[p.S_FREE] += max(pages - 1, 0)\n",
    ),
    Mutant(
        "returns", "drawn pages return to the free ones",
        "s[p.S_POOL] += drawn", "s[p.S_FREE] += drawn",
    ),
    Mutant(
        "returns", "the mount's pool is filled beyond R",
        "fits = min(pages, t[p.H_MOUNT_POOL] - s[pool])", "fits = pages",
    ),
    Mutant(
        "returns", "a carried bio fills the pool of the mount below",
        "_refill_mount(t, s, t[t[p.H_THREAD] + owner * p.T_ROW + p.T_MOUNT], pages)",
        "_refill_mount(t, s, mount, pages)",
    ),
    # --- waiting, both rules ---------------------------------------------------------------------
    Mutant(
        "asleep", "hands over to the wrong sleeper",
        "    first = s[head]\n", "    first = s[tail]\n",
    ),
    Mutant(
        "asleep", "wakes without moving the class",
        "        _moved(t, s, first)\n", "",
    ),
    Mutant(
        "asleep", "a lock's heir has not passed its lock step",
        "_arrive(t, s, heir, s[p.S_THREAD + heir * p.S_THREAD_ROW + p.PLACE] + 1)",
        "_arrive(t, s, heir, s[p.S_THREAD + heir * p.S_THREAD_ROW + p.PLACE])",
    ),
    Mutant(
        "asleep", "a lock is dropped and not handed over",
        "s[row + p.LOCK_OWNER] = heir", "s[row + p.LOCK_OWNER] = p.NOBODY",
    ),
    Mutant(
        "asleep", "the semaphore's heir gets no page",
        "    elif s[p.S_POOL] > 0:\n        _draw_pool", "    elif False:\n        _draw_pool",
    ),
    Mutant(
        "asleep", "the semaphore's heir is not counted inside",
        "        s[p.S_INSIDE] += 1\n        _arrive(t, s, heir", "        _arrive(t, s, heir",
    ),
    Mutant(
        "racing", "a lock that is owned looks free",
        "return s[lock + p.LOCK_OWNER] == p.NOBODY", "return True",
    ),
    Mutant(
        "racing", "a semaphore that is owned looks free at entry",
        "return s[p.S_OWNER] == p.NOBODY\n        return True", "return True",
    ),
    # --- programs and threads --------------------------------------------------------------------
    Mutant(
        "submit", "loses the drawn count",
        "s[place + p.BIO_DRAWN] = s[row + p.DRAWN]", "s[place + p.BIO_DRAWN] = 0",
    ),
    Mutant(
        "submit", "hands on what the exit has to refill",
        "if not t[p.H_KEEPS_DRAWN]:", "if True:",
    ),
    Mutant("wait", "does not wait for its bios", "if s[row + p.OUT] > 0:", "if False:"),
    Mutant("alloc", "an alloc that draws 0 is not skipped", "if number == 0:", "if number < 0:"),
    Mutant(
        "back-out", "does not drop its locks",
        "            _release_lock(t, s, lock)\n", "            pass\n",
    ),
    Mutant(
        "back-out", "loses the pages it held",
        "s[p.S_FREE] += s[row + p.HELD]", "s[p.S_FREE] += 0",
    ),
    Mutant(
        "back-out", "a dirtier's page is called clean",
        "        s[p.S_DIRTY] += 1\n        s[row + p.PLACE] = t[static",
        "        s[row + p.PLACE] = t[static",
    ),
    Mutant(
        "dirtier", "takes user pages below the mark",
        "elif s[p.S_FREE] > t[p.H_MARK]:  # touch", "elif s[p.S_FREE] > 0:  # touch",
    ),
    Mutant(
        "dirtier", "the cleaned page does not return",
        "            s[p.S_FREE] += 1\n        s[thread", "            pass\n        s[thread",
    ),
    # --- devices, stacks, the end ----------------------------------------------------------------
    Mutant(
        "device", "completes without its memory",
        "    if s[p.S_FREE] < t[row + p.M_COMPLETION]:\n", "    if False:\n",
    ),
    Mutant(
        "device", "has a channel for every bio",
        "return min(s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG], t[row + p.M_DEPTH])",
        "return s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG]",
    ),
    Mutant(
        "stack", "a bio's owner is that of the bio it carries",
        "s[place + p.BIO_OWNER] = i",
        "s[place + p.BIO_OWNER] = i if s[row + p.CARRIES] == p.NOBODY else "
        "s[t[p.H_S_BIO] + s[row + p.CARRIES] * p.S_BIO_ROW + p.BIO_OWNER]",
    ),
    Mutant("stack", "the carried bio never completes", "bio = carried", "bio = p.NOBODY"),
    Mutant(
        "stack", "a loop worker takes another bio than the one drawn",
        "_take_bio(t, s, mount, position)\n    s[row", "_take_bio(t, s, mount, 0)\n    s[row",
    ),
    Mutant("end", "kills twice", "s[p.S_KILLS] -= 1", "s[p.S_KILLS] -= 0"),
    Mutant(
        "end", "is complete with bios still on their way",
        "if s[t[p.H_S_MOUNT] + mount * p.S_MOUNT_ROW + p.BAG] > 0:\n            return False",
        "if False:\n            return False",
    ),
]  # fmt: skip


def mutated(mutant: Mutant) -> str:
    """The rules with the mutant's edit; its text must stand there exactly once."""
    rules = (ROOT / RULES).read_text()
    assert rules.count(mutant.text) == 1, f"{mutant.name}: its text is not in the rules"
    return rules.replace(mutant.text, mutant.instead)


def run(directory: Path, rules: str) -> tuple[int, str]:
    """Run the suite on a copy with these rules; the exit code and what failed first."""
    ignored = shutil.ignore_patterns("__pycache__", "benchmarks")
    for name in ("reservelab", "tests", "data"):
        shutil.copytree(ROOT / name, directory / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", directory)
    (directory / RULES).write_text(rules)
    # What the environment says of paths would lead back to the checkout.
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        FIRST_FAILURE,
        cwd=directory,
        env=kept | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    shutil.rmtree(directory)
    failed = re.search(rf"^FAILED {SUITE}::(.+?)( - |$)", done.stdout, re.M)
    assert done.returncode == 0 or failed is not None, done.stdout + done.stderr
    return done.returncode, failed[1] if failed else ""


def test_every_mutant_is_one_edit_of_the_rules() -> None:
    names = {mutant.name for mutant in MUTANTS}
    assert len(names) == len(MUTANTS) >= 16
    assert {mutant.part for mutant in MUTANTS} >= {
        "start", "entry", "grants", "exit", "returns", "asleep", "racing",
    }  # fmt: skip
    rules = (ROOT / RULES).read_text()
    for mutant in MUTANTS:
        assert mutated(mutant) != rules
        compile(mutated(mutant), mutant.name, "exec")


def test_a_mutant_dies(tmp_path: Path) -> None:
    """One in every run of the tests; the others under `make verify`."""
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == "refills twice")
    assert run(tmp_path / "copy", mutated(mutant))[0] == 1


def test_a_text_that_is_not_in_the_rules_is_noticed() -> None:
    with pytest.raises(AssertionError, match="gone: its text is not in the rules"):
        mutated(Mutant("exit", "gone", "s[p.S_POOL] += 7", ""))


@pytest.fixture(scope="module")
def verdicts(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[tuple[int, str]]]]:
    """All of them, as many at a time as there are processors."""
    directory = tmp_path_factory.mktemp("mutants")
    pool = ThreadPoolExecutor(os.cpu_count())
    rules = {"": (ROOT / RULES).read_text()} | {m.name: mutated(m) for m in MUTANTS}
    yield {
        name: pool.submit(run, directory / str(number), text)
        for number, (name, text) in enumerate(rules.items())
    }
    pool.shutdown(cancel_futures=True)


@pytest.mark.verify
@pytest.mark.truth("negative control", "the rules as they are pass", "tests/naive.py")
def test_the_untouched_rules_live(verdicts: dict[str, Future[tuple[int, str]]]) -> None:
    assert verdicts[""].result() == (0, "")


@pytest.mark.verify
@pytest.mark.truth("negative control", "every mutant of the rules dies", "tests/naive.py")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.part}: {m.name}")
def test_every_mutant_dies(
    mutant: Mutant,
    verdicts: dict[str, Future[tuple[int, str]]],
    record_property: Callable[[str, object], None],
) -> None:
    code, killer = verdicts[mutant.name].result()
    record_property("note", f"{mutant.part}: {mutant.name}; by {killer or 'nobody'}")
    assert code == 1, f"{mutant.name}: nobody noticed"
