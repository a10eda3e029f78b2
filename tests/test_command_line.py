"""The command line as a person meets it: what it prints where, and with which exit code."""

import copy
import io
import json
import math
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

import reservelab as rl
from reservelab.__main__ import main, parser
from reservelab.model.catalogue import machines

PROGRAM = [sys.executable, "-m", "reservelab"]
VERBS = (
    "simulate", "trace", "exact", "prove", "rare", "export", "sweep", "fit", "claims", "search",
    "kernel", "figures", "lab", "mail",
)  # fmt: skip

SCENARIO: dict[str, Any] = {
    "machine": {"pages": 12},
    "scheme": {"variant": "global", "reserve": 10},
    "mounts": [{"filesystem": "ext3", "flushers": 3}],
}
ON_THE_COMMAND_LINE = ["--scheme", "global", "--reserve", "10", "--mount", "ext3:3"]
ON_THE_COMMAND_LINE += ["--pages", "12"]
GRID: dict[str, Any] = {
    "name": "small",
    "axes": {
        "scheme": ["watermark", "perthread", "global"],
        "mix": ["ext2", "ext3"],
        "threads": [2, 4, 8],
        "reserve": ["need", 14],
    },
    "base": {"machine": {"pages": 30}},
}


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run a command line in this process, in a directory of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Outcome:
        try:
            code = main(words)
        except SystemExit as stop:  # argparse leaves this way
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


def write(path: Path, table: dict[str, Any]) -> str:
    path.write_text(tomli_w.dumps(table))
    return str(path)


def changed(table: dict[str, Any], place: str, value: object) -> dict[str, Any]:
    """A copy with one value set, or with ``value=...`` left out."""
    result = copy.deepcopy(table)
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    inner: Any = result
    for key in path:
        inner = inner[key]
    if isinstance(inner, dict) != isinstance(last, str):
        raise KeyError(place)
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return result


def refused(outcome: Outcome, key: str) -> None:
    """Exit code 2, nothing printed, and one line of the form `reservelab: key: wrong; right`."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    line = rf"reservelab: {re.escape(key)}: [^\n]+; [^\n]+\n"
    assert re.fullmatch(line, outcome.err), outcome.err


# --- Help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], *([verb] for verb in VERBS)], ids=" ".join)
def test_help_fits_one_screen(command: Command, words: list[str]) -> None:
    lines = command(*words, "--help").out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) < 80


def test_help_and_bad_input_do_not_wait_for_the_engine() -> None:
    code = (
        "import sys; from reservelab.__main__ import main\n"
        "words = 'simulate --scheme nonsense --mount ext3:1 --pages 9'.split()\n"
        "assert main(words) == 2\n"
        "print(sorted({'numba', 'pandas', 'scipy', 'pyarrow', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def examples() -> Iterator[tuple[str, list[str]]]:
    choices: Any = next(a for a in parser()._actions if a.dest == "==SUPPRESS==" and a.choices)
    for verb, inner in choices.choices.items():
        (line,) = re.findall("^  (reservelab .*)$", inner.description, re.M)
        program, *words = shlex.split(line)
        assert (program, words[0]) == ("reservelab", verb)
        yield verb, words


def test_every_verb_shows_an_example_that_works(command: Command) -> None:
    """`demo` is a small grid here: a file of that name comes before the grid in data/."""
    write(Path("demo"), GRID)
    shown = dict(examples())
    assert tuple(shown) == VERBS
    del shown["lab"]  # becomes another program, which does not end; tested by itself
    del shown["kernel"]  # needs one that is built; tests/test_kernel.py
    for words in shown.values():
        outcome = command(*words)
        assert outcome.code == 0, (words, outcome.err)
        assert outcome.out
        assert outcome.err == ""


def test_the_example_of_trace_is_a_deadlock(command: Command) -> None:
    assert "the wait-for cycle:" in command(*dict(examples())["trace"]).out


# --- A scenario from a file, from options, from both ---------------------------------------------


def digest(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome.err
    found: str = json.loads(outcome.out)["digest"]
    return found


def simulated(command: Command, *words: str) -> str:
    return digest(command("simulate", *words, "--episodes", "1", "--json"))


def test_options_say_what_a_file_says(command: Command) -> None:
    file = write(Path("scenario.toml"), SCENARIO)
    wanted = rl.Scenario(
        rl.Machine(12), (rl.Mount(rl.filesystems.ext3, flushers=3),), rl.GlobalPool(10)
    ).digest
    assert simulated(command, file) == wanted
    assert simulated(command, *ON_THE_COMMAND_LINE) == wanted


@pytest.mark.parametrize(
    ("words", "place", "value"),
    [
        ("--pages 40", "machine.pages", 40),
        ("--dirty 3", "machine.dirty", 3),
        ("--oom-kills 2", "machine.oom_kills", 2),
        ("--pages-per-kill 4", "machine.pages_per_kill", 4),
        ("--quota 5", "quota", 5),
        ("--waiting racing", "waiting", "racing"),
        ("--reserve 8", "scheme.reserve", 8),
        ("--max-sections 2", "scheme.max_sections", 2),
        ("--scheme perthread", "scheme", "perthread"),
        ("--scheme tickets", "scheme.variant", "tickets"),
        ("--scheme tickets --reserve 11", "scheme", {"variant": "tickets", "reserve": 11}),
        ("--scheme 'watermark max-sections=2' --reserve 3", "scheme",
         {"variant": "watermark", "reserve": 3, "max_sections": 2}),
        ("--machine 2.6.9-64MB", "machine", "2.6.9-64MB"),
        ("--mount ext2:4:1", "mounts", [{"filesystem": "ext2", "flushers": 4, "dirtiers": 1}]),
        ("--mount loop_ext3:2,on=1 --mount ext3", "mounts",
         [{"filesystem": "loop_ext3", "flushers": 2, "on": 1}, {"filesystem": "ext3"}]),
    ],
)  # fmt: skip
def test_an_option_overrules_the_file(
    command: Command, words: str, place: str, value: object
) -> None:
    file = write(Path("scenario.toml"), SCENARIO)
    other = write(Path("other.toml"), changed(SCENARIO, place, value))
    assert simulated(command, file, *shlex.split(words)) == simulated(command, other)


def test_an_option_overrules_a_number_of_a_named_machine(command: Command) -> None:
    preset = machines["2.6.9-64MB"].machine
    file = write(Path("scenario.toml"), changed(SCENARIO, "machine", "2.6.9-64MB"))
    same = {"pages": preset.pages, "dirty": 7}
    other = write(Path("other.toml"), changed(SCENARIO, "machine", same))
    assert simulated(command, file, "--dirty", "7") == simulated(command, other)


def test_a_real_machine_brings_its_watermark(command: Command) -> None:
    preset = machines["2.6.9-64MB"]
    wanted = rl.Scenario(
        preset.machine, (rl.Mount(rl.filesystems.ext2, 2),), rl.Watermark(preset.reserve)
    ).digest
    words = ["--machine", "2.6.9-64MB", "--scheme", "watermark", "--mount", "ext2:2"]
    assert simulated(command, *words) == wanted
    assert simulated(command, *words, "--reserve", "7") != wanted


@pytest.mark.parametrize("name", ["desktop_2004", "ext4_on_xfs"])
def test_a_mix_or_a_stack_gives_the_mounts(command: Command, name: str) -> None:
    mounts = (rl.mixes[name] if name in rl.mixes else rl.stacks[name]).mounts(8)
    wanted = rl.Scenario(rl.Machine(90), tuple(mounts), rl.PerThread(), label=name)
    words = ["--mix", name, "--threads", "8", "--pages", "90", "--scheme", "perthread"]
    outcome = command("simulate", *words, "--episodes", "1", "--json")
    assert digest(outcome) == wanted.digest
    assert json.loads(outcome.out)["mix"] == name


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("", "--scheme"),
        ("--scheme perthread --pages 9", "--mount"),
        ("--scheme perthread --mount ext3:8", "--pages"),
        ("--scheme perthread --mount ext3:8 --pages -1", "--pages"),
        ("--scheme perthread --mount ext3:8 --pages many", "--pages"),
        ("--scheme perthread --mount ext3:8 --pages 99999999999", "--pages"),
        ("--scheme perthread --mount ext3:8 --pages", "--pages"),
        ("--scheme perthread --mount ext3:8 --page 4", "--page"),
        ("--scheme perthread --mount ext3:8 --pages 64 --episodes 0", "--episodes"),
        ("--scheme perthread --mount ext3:8 --pages 64 --seed -1", "--seed"),
        ("--scheme perthread --mount ext3:8 --pages 64 --workers 0", "--workers"),
        ("--scheme perthread --mount ext3:8 --pages 64 --quota 0", "--quota"),
        ("--scheme perthread --mount ext3:8 --pages 64 --waiting long", "--waiting"),
        ("--scheme perthread --mount ext3:8 --pages 64 --reserve 4", "--reserve"),
        ("--scheme watermark --mount ext3:8 --pages 64", "scheme.reserve"),
        ("--scheme global --mount ext3:8 --pages 64 --reserve 65", "--reserve"),
        ("--scheme globe --mount ext3:8 --pages 64", "--scheme"),
        ("--scheme 'global on-entry' --mount ext3:8 --pages 64 --max-sections 2", "--max-sections"),
        ("--scheme 'mempool max-sections=2' --max-sections 3 --mount ext3:8 --pages 64 --reserve 2",
         "--max-sections"),
        ("--scheme global --mount ext9:8 --pages 64", "--mount ext9:8"),
        ("--scheme global --mount ext3:99999999 --pages 64", "--mount"),
        ("--scheme global --mount ext3:eight --pages 64", "--mount"),
        ("--scheme global --mount ext3 --pages 64", "--mount"),
        ("--scheme global --mount ext3:1,on=1 --mount ext3:1,on=0 --pages 64",
         "--mount ext3:1,on=1"),
        ("--scheme global --mount ext3:1,on=2 --pages 64", "--mount ext3:1,on=2"),
        ("--scheme global --mount ext3:8 --mix today --threads 8 --pages 64", "--mount"),
        ("--scheme global --mix today --pages 64", "--threads"),
        ("--scheme global --mix today --threads 0 --pages 64", "--threads"),
        ("--scheme global --mix tomorrow --threads 8 --pages 64", "--mix"),
        ("--scheme global --mount ext3:8 --threads 8 --pages 64", "--threads"),
        ("--scheme global --mount ext3:8 --machine 2.6.9-63MB", "--machine"),
        ("--scheme global --mount ext3:8 --machine 2.6.9-64MB --pages 64", "--pages"),
        ("scenario.toml --threads 8", "--threads"),
        ("scenario.toml --reserve 13", "--reserve"),
        ("nowhere.toml", "nowhere.toml"),
        ("one.toml two.toml", "two.toml"),
        (".", "."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["simulate", "trace"])
def test_options_that_are_wrong(command: Command, verb: str, words: str, key: str) -> None:
    write(Path("scenario.toml"), SCENARIO)
    if verb == "trace" and re.search("--(episodes|workers)", words):
        key = f"--{re.findall('--(episodes|workers)', words)[0]}"
    outcome = command(verb, *shlex.split(words))
    refused(outcome, key)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("", "VERB"),
        ("simulation", "VERB"),
        ("--verbose", "VERB"),
        ("sweep", "GRID.toml"),
        ("sweep nowhere", "nowhere"),
        ("sweep demo --episodes 5 --precision 0.1", "--precision"),
        ("sweep demo --precision 2", "--precision"),
        ("sweep demo --precision nan", "--precision"),
        ("fit", "STORE"),
        ("fit nowhere", "nowhere"),
        ("fit .", "."),
        ("figures nowhere", "nowhere"),
    ],
)
def test_words_that_are_wrong(command: Command, words: str, key: str) -> None:
    outcome = command(*words.split())
    if words != "--verbose":
        refused(outcome, key)
    assert outcome.code == 2
    assert "[" not in outcome.err  # the verb's help is named, not the program's usage
    assert list(Path().iterdir()) == []


# --- Files that are wrong ------------------------------------------------------------------------

PROGRAM_PLACE = "mounts.0"
WRONG: list[tuple[str, object, str]] = [
    ("machine.page", 3, "machine.page"),
    ("colour", "red", "colour"),
    ("mounts.0.writers", 3, "mounts[0].writers"),
    ("scheme.size", 3, "scheme.size"),
    ("machine", ..., "machine"),
    ("scheme", ..., "scheme"),
    ("mounts", ..., "mounts"),
    ("mounts", [], "mounts"),
    ("machine.pages", ..., "machine.pages"),
    ("machine.pages", -1, "machine.pages"),
    ("machine.pages", 1.5, "machine.pages"),
    ("machine.pages", True, "machine.pages"),
    ("scheme.reserve", 13, "reserve"),
    ("waiting", "hoping", "waiting"),
    ("quota", 0, "quota"),
    ("mounts.0.flushers", 0, "mounts"),
    ("mounts.0.on", 0, "mounts[0].on"),
    ("mounts.0.on", 7, "mounts[0].on"),
    ("mounts.0.device", {"rate": 0}, "mounts[0].device.rate"),
]
PROGRAMS: list[tuple[list[str], str]] = [
    (["alloc 1"], "program"),
    (["submit", "submit"], "program[1]"),
    (["submit", "alloc 1"], "program[1]"),
    (["lock a", "lock a", "unlock a", "submit"], "program[1]"),
    (["unlock a", "submit"], "program[0]"),
    (["lock a", "submit"], "program"),
    (["alloc 1:0.5 2:0.4", "submit"], "alloc"),
    (["alloc one", "submit"], "program"),
    (["sing", "submit"], "program"),
]
WRONG += [
    ("mounts.0", {"flushers": 1, "program": program}, f"mounts[0].{key}")
    for program, key in PROGRAMS
]


@pytest.mark.parametrize(("place", "value", "key"), WRONG)
@pytest.mark.parametrize("verb", ["simulate", "trace", "sweep"])
def test_files_that_are_wrong(
    command: Command, verb: str, place: str, value: object, key: str
) -> None:
    """Each breaks one rule; a grid's base is read by the same rules."""
    table = changed(SCENARIO, place, value)
    if verb == "sweep":
        table, key = {"base": table}, f"base.{key}"
    file = write(Path("wrong.toml"), table)
    refused(command(verb, file), key)
    assert [str(path) for path in Path().iterdir()] == [file]


def test_a_cycle_of_mounts_is_refused(command: Command) -> None:
    mounts = [{"filesystem": "loop_ext3", "flushers": 1, "on": on} for on in (1, 2, 0)]
    refused(command("simulate", write(Path("a.toml"), changed(SCENARIO, "mounts", mounts))),
            "mounts[0].on")  # fmt: skip


@pytest.mark.parametrize(
    "content", [b"pages = ", b"\xff\xfe", b"a = 1\na = 2\n", b"a = " + b"[" * 5000], ids=range(4)
)
@pytest.mark.parametrize("verb", ["simulate", "trace", "sweep"])
def test_what_is_not_toml_is_refused(command: Command, verb: str, content: bytes) -> None:
    Path("a.toml").write_bytes(content)
    refused(command(verb, "a.toml"), "a.toml")
    assert [path.name for path in Path().iterdir()] == ["a.toml"]


PLACES = [
    "machine", "machine.pages", "machine.dirty", "machine.oom_kills", "machine.pages_per_kill",
    "scheme", "scheme.variant", "scheme.reserve", "scheme.max_sections", "scheme.grants", "mounts",
    "mounts.0", "mounts.0.filesystem", "mounts.0.flushers", "mounts.0.dirtiers", "mounts.0.program",
    "mounts.0.nr_pages", "mounts.0.backs_out", "mounts.0.device", "mounts.0.on", "quota", "waiting",
    "label",
]  # fmt: skip
# Numbers up to 50 run in no time, and those from 2^31 on are refused; between them lie machines
# that take memory and time, which is no fault.
NUMBERS = st.integers(-3, 50) | st.integers(2**31, 2**80)
SCALARS = (
    NUMBERS
    | st.floats()
    | st.booleans()
    | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8)
    | st.sampled_from(["global", "ext3", "tickets", "submit", "alloc 1:.5 2:.5", "racing"])
    | st.datetimes()
    | st.dates()
)
KEYS = st.sampled_from(["pages", "rate", "depth", "variant", "start", "entry", "filesystem", "x"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=2))
def test_no_value_in_a_file_makes_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, object]]
) -> None:
    table = SCENARIO
    for place, value in changes:
        try:
            table = changed(table, place, value)
        except (KeyError, TypeError, IndexError):
            continue  # the first change took away the place of the second
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(tomli_w.dumps(table).encode())
    assert one_line_or_none(["simulate", str(path), "--episodes", "1"])


@given(
    st.text(max_size=8) | st.sampled_from(rl.variants()),
    st.text(max_size=8) | st.from_regex(r"ext[23]:[0-4](:[0-2])?(,on=[01])?", fullmatch=True),
    st.text(max_size=5) | st.integers(-2, 30).map(str),
)
def test_no_word_makes_a_traceback(scheme: str, mount: str, number: str) -> None:
    words = [f"--scheme={scheme}", f"--mount={mount}", "--pages=20", f"--reserve={number}"]
    assert one_line_or_none(["simulate", *words, "--episodes=1"])


def one_line_or_none(words: list[str]) -> bool:
    """Whether a command line ran, or was refused in one line."""
    out, err = io.StringIO(), io.StringIO()
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        code = main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stdout, sys.stderr = streams
    lines = err.getvalue().splitlines()
    if code == 0:
        return out.getvalue() != "" and all(line.startswith("warning: ") for line in lines)
    return code == 2 and out.getvalue() == "" and len(lines) == 1


# --- Warnings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["simulate", "trace", "exact", "prove"])
@pytest.mark.parametrize(
    ("scheme", "pages"), [("tickets", "30"), ("global", "30"), ("perthread whole", "9")]
)
def test_a_section_larger_than_the_scheme_can_grant_is_warned_of_and_runs(
    command: Command, verb: str, scheme: str, pages: str
) -> None:
    words = ["--mount", "ext3:2", "--pages", pages, "--scheme", scheme]
    words += [] if scheme == "perthread whole" else ["--reserve", "4"]
    outcome = command(verb, *words, *(["--episodes", "100"] if verb == "simulate" else []))
    # What can never enter is unsafe; a pool that one section can drain need not be.
    assert outcome.code == (1 if verb == "prove" and scheme != "global" else 0)
    assert re.fullmatch(r"warning: mounts\[0\] \(ext3\): nr_pages 10 [^\n]*\n", outcome.err)
    assert outcome.out


def test_bad_input_is_one_line_even_beside_a_warning(command: Command) -> None:
    words = "simulate --mount ext3:2 --pages 30 --scheme tickets --reserve 4 --workers 0"
    refused(command(*words.split(), "--episodes", "10"), "--workers")


# --- What is printed -----------------------------------------------------------------------------


def test_simulate_says_what_it_takes_to_get_the_same_again(command: Command) -> None:
    words = ["simulate", *ON_THE_COMMAND_LINE, "--episodes", "3000", "--seed", "5"]
    first = command(*words, "--workers", "1")
    again = command(*words, "--workers", "2")
    assert (first.code, first.err) == (0, "")
    assert first == again
    scenario = rl.Scenario.from_toml(tomli_w.dumps(SCENARIO))
    assert f"seed 5, scenario {scenario.digest}\n" in first.out
    tally = rl.simulate(scenario, 3000, seed=5)
    assert str(tally) in first.out
    assert command(*words[:-1], "6").out != first.out


def test_simulate_as_json(command: Command) -> None:
    outcome = command("simulate", *ON_THE_COMMAND_LINE, "--episodes", "3000", "--json")
    found = json.loads(outcome.out)
    row = rl.simulate(rl.Scenario.from_toml(tomli_w.dumps(SCENARIO)), 3000).row()
    for name, value in row.items():
        known = not isinstance(value, float) or math.isfinite(value)
        assert found[name] == (value if known else None), name
    assert sum(entry["deadlocks"] for entry in found["dead_by_reasons"]) == row["deadlocks"] > 0
    assert outcome.err == ""


def test_numbers_that_json_cannot_hold_are_null(command: Command) -> None:
    words = ["--scheme", "perthread whole", "--mount", "ext3:1", "--pages", "4"]
    outcome = command("simulate", *words, "--episodes", "1", "--json")
    assert json.loads(outcome.out)["latency_best"] is None


def test_trace_tells_the_episode_that_was_simulated(command: Command) -> None:
    words = [*ON_THE_COMMAND_LINE, "--pages", "11", "--seed", "3"]
    dead = json.loads(command("simulate", *words, "--episodes", "20", "--json").out)["deadlocks"]
    endings = [
        json.loads(command("trace", *words, "--episode", str(k), "--json").out)["ending"]
        for k in range(20)
    ]
    assert endings.count("deadlocked") == dead > 0
    told = command("trace", *words, "--episode", str(endings.index("deadlocked")))
    assert told.err == ""
    assert "deadlocked" in told.out
    smaller = tomli_w.dumps(changed(SCENARIO, "machine.pages", 11))
    assert rl.Scenario.from_toml(smaller).digest[:16] in told.out


def test_exact_and_prove_answer_what_the_package_answers(command: Command) -> None:
    mount = {"program": ["alloc 2", "submit"], "flushers": 3}
    file = write(Path("scenario.toml"), changed(SCENARIO, "mounts.0", mount))
    scenario = rl.Scenario.from_toml(Path(file).read_text())
    solved, proof = rl.exact(scenario), rl.prove(scenario)
    forever = rl.prove(scenario, "unbounded")
    for verb, more, result in (
        ("exact", [], solved), ("prove", [], proof), ("prove", ["--unbounded"], forever)
    ):  # fmt: skip
        told = command(verb, file, *more)
        unsafe = isinstance(result, rl.Proof) and not result.safe
        assert (told.code, told.err) == (int(unsafe), "")
        assert told.out == f"{result}\n"
        plain = command(verb, file, *more, "--json")
        assert json.loads(plain.out) == json.loads(result.to_json())


def test_export_needs_its_form(command: Command) -> None:
    words = ["export", "--scheme", "tickets", "--mount", "ext3:2", "--pages", "12"]
    refused(command(*words), "--prism")
    outcome = command(*words, "--prism")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0]
    assert "ctmc" in outcome.out.split()


@pytest.mark.parametrize("verb", ["exact", "prove"])
def test_more_states_than_allowed_are_refused(command: Command, verb: str) -> None:
    words = ["--scheme", "global on-entry", "--mount", "ext3:6", "--pages", "30", "--quota", "9"]
    outcome = command(verb, *words, "--limit", "20000")
    assert outcome.code == (3 if verb == "prove" else 2)
    assert outcome.out == ""
    assert re.fullmatch("reservelab: [^\n]+: [^\n]+; [^\n]+\n", outcome.err)


# --- A store -------------------------------------------------------------------------------------


def swept(command: Command, *more: str, grid: dict[str, Any] = GRID) -> Outcome:
    file = write(Path("grid.toml"), grid)
    return command("sweep", file, "--store", "store", "--episodes", "500", *more)


def test_sweep_fit_and_figures(command: Command) -> None:
    outcome = swept(command)
    assert (outcome.code, outcome.err) == (0, "")
    grid = rl.Grid.from_toml(tomli_w.dumps(GRID))
    assert grid.digest in outcome.out
    assert "seed 1, rules 1" in outcome.out
    assert outcome.out.endswith("results are in store\n")
    assert max(map(len, outcome.out.splitlines())) < 80
    # Once more: nothing is left to run, and the same comes out.
    assert swept(command).out == outcome.out
    table = json.loads(swept(command, "--json").out)
    assert [cell["digest"] for cell in table["cells"]] == [s.digest for s in grid.scenarios()]

    fitted = command("fit", "store")
    assert (fitted.code, fitted.err) == (0, "")
    fits = rl.Fits.load("store/fits.json")
    assert fitted.out == f"{fits}\n\nthe fits are in store/fits.json\n"
    found = json.loads(command("fit", "store", "--json").out)
    assert len(found["coefficients"]) == len(fits.frame())
    assert len(found["goodness"]) == len(fits)

    drawn = command("figures", "store", "--output", "drawn")
    assert (drawn.code, drawn.err) == (0, "")
    files = {str(path) for path in Path("drawn").iterdir()}
    assert files == {line for line in drawn.out.splitlines() if line.startswith("drawn/")}
    assert any(name.endswith(".svg") for name in files)
    printed = drawn.out.partition("\n\ndrawn/")[0]
    assert Path("drawn/table.txt").read_text().startswith(printed)
    assert f"grid: small, SHA-256\n  {grid.digest}\n" in Path("drawn/table.txt").read_text()

    for medium, suffixes in (("paper", {".pdf", ".txt"}), ("list", {".txt"})):
        drawn = command("figures", "store", "--for", medium, "--output", medium)
        assert (drawn.code, drawn.err) == (0, "")
        assert {path.suffix for path in Path(medium).iterdir()} == suffixes
    for path in Path("list").iterdir():
        told = " ".join(path.read_text().split())
        assert "command: reservelab figures store --for list --output list" in told


def test_figures_without_fits_and_with_old_ones(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[rl.Fits | None] = []

    def draw_nothing(_: object, fits: rl.Fits | None, directory: Path, **__: object) -> list[Path]:
        given.append(fits)
        directory.mkdir(exist_ok=True)
        return []

    monkeypatch.setattr("reservelab.show.figures.draw_all", draw_nothing)
    swept(command)
    first = command("figures", "store", "--json")
    assert first.code == 0
    assert re.fullmatch("warning: store/fits.json: not there[^\n]*\n", first.err)
    table = Path("store/figures/table.txt")
    assert json.loads(first.out) == {"store": "store", "files": [str(table)]}
    fits = rl.Fits(())
    fits.save("store/fits.json")
    assert command("figures", "store").err == ""
    os.utime("store/fits.json", (1, 1))
    assert re.fullmatch("warning: store/fits.json: older [^\n]*\n", command("figures", "store").err)
    assert given == [None, fits, fits]


def test_the_store_is_named_after_the_grid_unless_given(command: Command) -> None:
    grid = changed(changed(GRID, "axes.mix", ["ext2"]), "axes.reserve", ["need"])
    outcome = command("sweep", write(Path("mine.toml"), grid), "--precision", "0.5")
    assert outcome.out.endswith("results are in results/mine\n")
    assert str(rl.Precision(0.5)) in outcome.out


def test_the_demo_comes_with_the_package() -> None:
    from reservelab.command.study import _grid_text

    assert rl.Grid.from_toml(_grid_text("demo")).name == "demo"


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_store_of_another_grid_is_refused(command: Command) -> None:
    swept(command)
    before = files_of(Path("store"))
    refused(swept(command, grid=changed(GRID, "base.quota", 2)), "store")
    assert files_of(Path("store")) == before


@pytest.mark.parametrize("verb", ["sweep", "fit", "figures"])
def test_a_store_of_other_rules_is_refused(command: Command, verb: str) -> None:
    swept(command)
    spec = json.loads(Path("store/spec.json").read_text())
    Path("store/spec.json").write_text(json.dumps(spec | {"rules": rl.RULES_VERSION + 1}))
    before = files_of(Path("store"))
    refused(swept(command) if verb == "sweep" else command(verb, "store"), "store")
    assert files_of(Path("store")) == before


def test_a_directory_of_something_else_is_refused(command: Command) -> None:
    Path("store").mkdir()
    Path("store/precious").write_text("mine")
    refused(swept(command), "store")
    assert files_of(Path("store")) == {"precious": b"mine"}


def test_a_store_that_cannot_be_written_is_refused(command: Command) -> None:
    Path("file").write_text("")
    file = write(Path("grid.toml"), GRID)
    refused(command("sweep", file, "--store", "file/store"), "file/store")
    swept(command)
    refused(command("figures", "store", "--output", "file"), "file")


def test_a_torn_part_is_warned_of_and_runs_again(command: Command) -> None:
    whole = swept(command)
    part = next(Path("store").glob("part-*"))
    part.write_bytes(part.read_bytes()[:-200])
    fitted = command("fit", "store")
    again = swept(command)
    assert again.code == 0
    assert again.out == whole.out
    assert re.fullmatch("warning: [^\n]*torn[^\n]*\n", again.err)
    # With its only part torn there is nothing left to fit.
    assert fitted.code == 2
    assert swept(command).err == ""


# --- Lab -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("browser", [True, False])
def test_lab_becomes_jupyterlab_on_the_notebooks(
    command: Command, monkeypatch: pytest.MonkeyPatch, browser: bool
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: called.append([program, *words]))
    Path("mine").mkdir()
    assert command("lab", "mine", *([] if browser else ["--no-browser"])).code == 0
    ((program, *words),) = called
    assert program == words[0] == sys.executable
    assert words[1:4] == ["-m", "jupyterlab", "--notebook-dir=mine"]
    assert words[4:] == ([] if browser else ["--no-browser"])


def test_lab_needs_notebooks_and_an_extra(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(command("lab"), "DIR")
    Path("notebooks").mkdir()
    forget(monkeypatch, "jupyterlab")
    outcome = command("lab")
    refused(outcome, "lab")
    assert "reservelab[notebook]" in outcome.err


# --- Swim lanes ----------------------------------------------------------------------------------


SMALL = ["--scheme", "watermark", "--reserve", "3", "--mount", "ext2:3", "--pages", "7"]


@pytest.mark.parametrize("verb", ["prove", "trace"])
@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_a_path_is_drawn(command: Command, verb: str, suffix: str) -> None:
    plain = command(verb, *SMALL)
    drawn = command(verb, *SMALL, "--figure", f"path.{suffix}")
    assert drawn == plain
    magic = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix]
    assert Path(f"path.{suffix}").read_bytes().startswith(magic)


def test_the_smallest_unsafe_one_is_drawn(command: Command) -> None:
    outcome = command("prove", *SMALL, "--smallest", "3,7", "--figure", "path.svg")
    assert outcome.code == 1
    assert Path("path.svg").read_bytes().startswith(b"<?xml")


def test_a_certificate_has_no_path_to_draw(command: Command) -> None:
    outcome = command("prove", *SMALL[4:], "--scheme", "perthread whole", "--figure", "path.svg")
    assert outcome.code == 0
    assert outcome.out.startswith("SAFE")
    assert outcome.err == "warning: path.svg: not made; there is no path to draw\n"
    assert not Path("path.svg").exists()


@pytest.mark.parametrize("file", ["path", "path.jpg", "nowhere/path.svg"])
def test_a_figure_that_cannot_be_made_is_refused_before_anything_runs(
    command: Command, file: str
) -> None:
    refused(command("prove", *SMALL, "--figure", file), "--figure")


def test_swim_lanes_need_an_extra(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "matplotlib")
    outcome = command("trace", *SMALL, "--figure", "path.svg")
    refused(outcome, "figures")
    assert "reservelab[figures]" in outcome.err


# --- Extras that are not installed ---------------------------------------------------------------


def forget(monkeypatch: pytest.MonkeyPatch, missing: str, *importers: str) -> None:
    """As if a package were not installed."""
    monkeypatch.setitem(sys.modules, missing, None)
    for name in importers:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("missing", ["matplotlib", "seaborn"])
def test_figures_need_an_extra(
    command: Command, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    swept(command)
    forget(monkeypatch, missing, "reservelab.show.figures")
    outcome = command("figures", "store")
    refused(outcome, "figures")
    assert "reservelab[figures]" in outcome.err
    assert command("figures", "store", "--for", "list").code == 0


def test_a_cluster_needs_an_extra(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "distributed")
    outcome = swept(command, "--scheduler", "tcp://127.0.0.1:1")
    refused(outcome, "--scheduler")
    assert "reservelab[cluster]" in outcome.err
    assert not Path("store").exists()


@pytest.mark.parametrize("address", ["nonsense", "carrier://pigeon:1"])
def test_a_scheduler_that_is_none_is_refused(command: Command, address: str) -> None:
    refused(swept(command, "--scheduler", address), "--scheduler")
    assert not Path("store").exists()


def test_a_cluster_does_the_same_sweep(command: Command) -> None:
    import distributed

    cluster_of: Any = distributed.LocalCluster
    grid = changed(GRID, "axes.mix", ["ext2"])
    here = swept(command, grid=grid)
    with cluster_of(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        words = ["sweep", "grid.toml", "--store", "elsewhere", "--episodes", "500"]
        there = command(*words, "--scheduler", cluster.scheduler_address)
    assert (there.code, there.err) == (0, "")
    assert there.out.replace("elsewhere", "store") == here.out


# --- Terminals, pipes and Ctrl-C -----------------------------------------------------------------


def at_a_terminal(
    words: list[str], directory: Path, interrupt_at: bytes | None = None
) -> tuple[int, str]:
    """Run with standard error at a terminal; return the exit code and what it showed."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(
        [*PROGRAM, *words], cwd=directory, stdout=subprocess.DEVNULL, stderr=theirs
    ) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # so says Linux when nobody holds the other end
                break
            if interrupt_at and interrupt_at in shown:
                interrupt_at = None
                child.send_signal(signal.SIGINT)
    os.close(ours)
    return child.returncode, shown.decode()


@pytest.mark.parametrize("verb", ["simulate", "trace", "exact", "sweep"])
def test_progress_is_shown_at_a_terminal_only(verb: str, tmp_path: Path) -> None:
    words = [verb, *ON_THE_COMMAND_LINE]
    if verb == "sweep":
        words = [verb, write(tmp_path / "grid.toml", GRID)]
    code, shown = at_a_terminal(words, tmp_path)
    assert code == 0
    assert "compiling" in shown
    assert verb != "sweep" or "100%" in shown
    assert max(len(piece) for piece in re.split(r"[\r\n]", shown)) <= 80
    done = subprocess.run([*PROGRAM, *words], cwd=tmp_path, capture_output=True, check=False)
    assert done.stderr == b""


def test_an_interrupted_simulation_says_that_nothing_was_kept(tmp_path: Path) -> None:
    words = ["simulate", *ON_THE_COMMAND_LINE, "--episodes", "2000000000", "--workers", "1"]
    code, shown = at_a_terminal(words, tmp_path, interrupt_at=b"compiling")
    assert code == 130
    assert shown.endswith("reservelab: interrupted; nothing was kept\r\n")


def interrupted(words: list[str], directory: Path, ready: Callable[[], bool]) -> Outcome:
    with subprocess.Popen(
        [*PROGRAM, *words], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        until = time.monotonic() + 300
        while not ready() and time.monotonic() < until:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=300)
    return Outcome(child.returncode, out, err)


def test_an_interrupted_sweep_says_what_was_kept_and_goes_on(tmp_path: Path) -> None:
    file = write(tmp_path / "grid.toml", GRID)
    words = ["sweep", file, "--store", "store"]
    store = tmp_path / "store"
    endless = [*words, "--episodes", "2000000000", "--workers", "1"]
    outcome = interrupted(endless, tmp_path, lambda: any(store.glob("part-*.parquet")))
    assert (outcome.code, outcome.out) == (130, "")
    line = r"reservelab: interrupted; [^\n]* %, is kept in store; [^\n]* goes on [^\n]*\n"
    assert re.fullmatch(line, outcome.err)
    kept = {path.name for path in store.glob("part-*.parquet")}
    done = subprocess.run([*PROGRAM, *words, "--episodes", "500"], cwd=tmp_path,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert kept <= {path.name for path in store.glob("part-*.parquet")}
    fresh = subprocess.run([*PROGRAM, *words[:2], "--store", "other", "--episodes", "500"],
                           cwd=tmp_path, capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.replace("in store", "in other") == fresh.stdout


def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    words = shlex.join([*PROGRAM, "trace", *ON_THE_COMMAND_LINE, "--quota", "60", "--json"])
    done = subprocess.run(
        ["bash", "-c", f"{words} | head -1; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_output_that_is_full_is_said() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert re.fullmatch("reservelab: output: [^\n]*; [^\n]*\n", done.stderr)


def test_the_scenarios_used_here_are_read_as_written() -> None:
    assert tomllib.loads(tomli_w.dumps(SCENARIO)) == SCENARIO
