"""Drafts of mails: what a list and its tools take, and that their prose cannot contradict a number.

Nothing here is a statistical test: what is simulated has a seed.
"""

import contextlib
import email
import email.policy
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_show import check_text, frames

import reservelab as rl
from reservelab.__main__ import main
from reservelab.model.errors import BadInput
from reservelab.show import mail
from reservelab.study import claims
from reservelab.study.repairs import repairs
from reservelab.study.results import Store

ROOT = Path(__file__).parents[1]
ANSWER = ROOT / "docs" / "answer.eml"
SEED_MAIL = "<20041107011638.GJ3851@dualathlon.random>"
FIXED = mail.Envelope(
    date="Wed, 25 Nov 2026 12:00:00 +0000", message_id="<1@example.org>", release="0.0"
)
SCENARIOS = list((ROOT / "data" / "search").glob("*.toml"))
TOY = rl.Filesystem("toy", [rl.alloc(2), rl.submit()])
DEADLY = rl.Scenario(rl.Machine(3), (rl.Mount(TOY, 3),), rl.Watermark(3), quota=2)
SAFE = replace(DEADLY, scheme=rl.Tickets())


def read_back(draft: EmailMessage | str) -> EmailMessage:
    """Parse a draft as any program would, and check what every draft must be."""
    source = str(draft)
    message = email.message_from_bytes(source.encode("ascii"), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    assert not message.is_multipart()
    assert message.get_content_type() == "text/plain"
    assert message.get_content_charset() == "us-ascii"
    assert message["Content-Transfer-Encoding"] == "7bit"
    assert message["In-Reply-To"] == SEED_MAIL
    assert str(message["References"]).split()[-1] == SEED_MAIL
    assert str(message["Subject"]).startswith(("Re: [PATCH] ", "mm: "))
    assert "[PATCH] Remove OOM killer from try_to_free_pages" in message["Subject"]
    assert message["To"] == "linux-mm@kvack.org"
    assert message["Date"].datetime.tzinfo is not None
    assert re.fullmatch("<[^<>@ ]+@[^<>@ ]+>", message["Message-ID"])
    head, _, body = source.partition("\n\n")
    assert max(map(len, head.splitlines())) <= 78
    check_text(body)
    assert message.get_content() == body
    text = " ".join(body.split())
    assert f"https://lore.kernel.org/all/{SEED_MAIL.strip('<>')}/" in text
    assert "What this does not show." in text
    assert f"rules version {rl.RULES_VERSION}" in text
    assert re.search(r"^  reservelab \w+", body, re.M), "no command to run it again"
    return message


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    directory = tmp_path_factory.mktemp("mail") / "store"
    axes: dict[str, list[Any]] = {
        "scheme": ["watermark", "global"],
        "threads": [2, 4],
        "reserve": [3, 5],
    }
    grid = rl.Grid(replace(DEADLY, machine=rl.Machine(6)), axes, "small")
    rl.sweep(grid, rl.Episodes(300), directory)
    return Store(directory)


@pytest.fixture(scope="module")
def verdicts() -> claims.Verdicts:
    return claims.judge_all()


@pytest.fixture(scope="module")
def answered() -> dict[str, Any]:
    """What the answer is made of, but for the verdicts."""
    grid = rl.Grid.from_toml((ROOT / "data" / "grids" / "mail.toml").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        frame = rl.sweep(grid, rl.Episodes(1))
    about = {"grid": "mail", "command": "  reservelab mail --claims"}
    return {"mended": repairs(), "frame": frame, "envelope": FIXED, "about": about}


# --- What is drafted -----------------------------------------------------------------------------


def test_a_sweep(store: Store) -> None:
    message = read_back(mail.sweep_mail(store, FIXED))
    body = message.get_content()
    flat = " ".join(body.split())
    frame = store.frame()
    assert store.spec["digest"] in body
    assert f"{len(frame)} scenarios" in message["Subject"]
    assert f"{frame['episodes'].sum():,} in all" in flat
    assert "Seed 1;" in flat
    assert "reservelab sweep small.toml --episodes 300 --seed 1 --store results/small" in (
        flat.replace(" \\ ", " ")
    )
    died = (frame["deadlocks"] > 0).sum()
    assert f"{len(frame) - died} scenarios had no deadlock, {died} had some." in body


def test_the_command_of_a_shipped_grid_names_it() -> None:
    text = (ROOT / "data" / "grids" / "demo.toml").read_text()
    spec: dict[str, Any] = {"name": "demo", "digest": rl.Grid.from_toml(text).digest}
    spec["runs"] = [{"seed": 7, "goal": "precision 0.1 or 0.001, at most 10 episodes"}]
    command = mail.sweep_command(SimpleNamespace(spec=spec))  # type: ignore[arg-type]
    assert command == "reservelab sweep demo --precision 0.1 --seed 7 --store results/demo"
    other: Any = SimpleNamespace(spec=spec | {"digest": "other"})
    assert " demo.toml " in mail.sweep_command(other)


@settings(max_examples=8)
@given(frames())
def test_any_sweep(frame: pd.DataFrame) -> None:
    spec: dict[str, Any] = {"name": "gr\u00f6\u00dfer", "digest": "0" * 64, "left_out": [1]}
    spec["runs"] = [{"seed": 1, "goal": "10 episodes"}]
    fake: Any = SimpleNamespace(spec=spec, frame=lambda: frame)
    read_back(mail.sweep_mail(fake, FIXED))


def test_a_proof() -> None:
    proof = rl.prove(DEADLY)
    message = read_back(mail.proof_mail(proof, FIXED))
    body = message.get_content()
    assert f"mm: watermark can deadlock in {len(proof.path)} steps" in message["Subject"]
    assert str(proof) in body
    assert DEADLY.digest in body
    # The scenario that stands in the mail is the one that was explored.
    indented = body.partition("\nThe scenario:\n\n")[2].partition("\nWhat this")[0]
    told = "\n".join(line.removeprefix("  ") for line in indented.splitlines())
    assert rl.Scenario.from_toml(told).digest == DEADLY.digest


@pytest.mark.parametrize("quota", ["own", "unbounded"])
def test_a_certificate(quota: Any) -> None:  # noqa: ANN401
    proof = rl.prove(SAFE, quota)
    message = read_back(mail.proof_mail(proof, FIXED))
    assert "mm: tickets draw-last is safe" in message["Subject"]
    assert "There is no such path." in message.get_content()
    assert ("--unbounded" in message.get_content()) == (quota == "unbounded")


def test_a_proof_with_names_no_list_would_take() -> None:
    program = [rl.alloc({k: 0.05 for k in range(20)}), rl.submit()]
    odd = rl.Filesystem("name" * 20, program)
    scenario = rl.Scenario(rl.Machine(40), (rl.Mount(odd, 1),), rl.Tickets(), quota=1)
    read_back(mail.proof_mail(rl.prove(scenario), FIXED))


def test_every_claim(verdicts: claims.Verdicts) -> None:
    for verdict in verdicts:
        name = verdict.claim.name
        message = read_back(mail.claim_mail(verdict, f"reservelab claims {name}", FIXED))
        body = message.get_content()
        assert f"  reservelab claims {name}" in body
        flat = " ".join(body.replace("\n> ", "\n").split())
        for words in (verdict.claim.quote, verdict.claim.author, verdict.claim.reading):
            assert " ".join(words.split()) in flat
        assert f'"{verdict.claim.title}" {verdict.word}.' in flat
        for finding in verdict.findings:
            assert finding.measured in flat
        paths = [f.proof for f in verdict.findings if f.proof is not None and f.proof.story]
        assert ("No path into trouble was found." in body) == (not paths)
        assert bool(re.search(r"^step +\d", body, re.M)) == bool(paths)


# --- The answer ----------------------------------------------------------------------------------


def test_the_answer_regenerates_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command that docs/reproduce.md gives for it."""
    pages = (ROOT / "docs" / "reproduce.md").read_text()
    (command,) = re.findall(r"^reservelab mail --claims [^`]*?docs/answer.eml$", pages, re.M)
    words = shlex.split(command.replace("\\\n", " "))[1:]
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    assert main(words) == 0
    assert capsys.readouterr().out == ""
    made, committed = Path("docs/answer.eml").read_text(), ANSWER.read_text()
    assert made == committed
    message = read_back(made)
    assert len(made.splitlines()) < 200
    assert message["Subject"].startswith("Re: [PATCH] Remove OOM killer")


def test_readme_and_mail_have_the_same_verdicts(verdicts: claims.Verdicts) -> None:
    """The README's table is these verdicts as printed, and what the mail's words rely on is too."""
    readme = (ROOT / "README.md").read_text()
    assert str(verdicts) in readme
    needs = re.findall(r"^X-Needs: (\w+)_verdict = (\w+)$", mail.template("claims"), re.M)
    words = {v.claim.name.replace("-", "_"): v.word for v in verdicts}
    relied = {name: word for name, word in needs if name in words}
    assert len(relied) >= 6
    assert relied == {name: words[name] for name in relied}


def test_what_the_answer_says_of_the_search_stands_on_its_page() -> None:
    """The search takes minutes: its page is made by its own command, and read here."""
    page = " ".join((ROOT / "docs" / "search.md").read_text().partition("<!--")[2].split())
    told = " ".join(mail.template("claims").split())
    counts = re.search(r"(\d+) are schemes; with the reserves .*? (\d+) candidates", page)
    assert counts is not None
    schemes, candidates = counts.groups()
    assert f"all {schemes} schemes that five choices can make, with three sizes" in told
    assert "(largest, twice, sum)" in page
    assert f"in {len(SCENARIOS)} small scenarios".replace(" 8 ", " eight ") in told
    head = r"safe in all (scenarios|but [^:]*): candidates (\d+),(.*?)(?=safe in all|$)"
    parts = re.findall(head, page)
    safe = {where: number for where, number, _ in parts}
    local = safe["but stacks and completion memory"]
    assert f"{local} of {candidates} are safe without stacks and replies" in told
    assert f"{safe['but stacks']} are safe with replies, and {safe['scenarios']} in all" in told
    nearest = next(text for where, _, text in parts if "completion" in where)
    changes = re.findall(
        r"in (\d+) choices: entry semaphore, exit wait_full, returns pool", nearest
    )
    assert changes == ["3"]  # these three changes make the proposal M
    assert "as near to the proposal as any, in three choices" in told


def test_a_verdict_that_turns_round_leaves_no_draft(
    verdicts: claims.Verdicts, answered: dict[str, Any]
) -> None:
    turned = [
        claims.judge(v.claim.negated) if v.claim.name == "clear-flag" else v for v in verdicts
    ]
    wrong = "rely on clear_flag_verdict = holds, but it is fails; rewrite"
    with pytest.raises(BadInput, match=wrong):
        mail.claims_mail(claims.Verdicts(tuple(turned)), **answered)


# --- Templates -----------------------------------------------------------------------------------

HEAD = "Subject: mm: about $a\nTo: x@example.org\n"


def test_a_template_is_filled_and_wrapped() -> None:
    form = f"{HEAD}\n{'word ' * 30}$a\n\n$block\n\n- item {'more ' * 20}\n\n> quoted $a\n> $$5\n"
    block = "  as it is\n\n    kept"
    message = mail.compose(form, {"a": "A", "block": lambda: block}, FIXED)
    lines = message.get_content().splitlines()
    assert lines[0] == " ".join(["word"] * 14)
    assert lines[2] == "word word A"
    assert lines[4:7] == ["  as it is", "", "    kept"]
    assert lines[9].startswith("  more")
    assert lines[-2:] == ["> quoted A", "> $5"]
    assert message["Subject"] == "mm: about A"
    assert message["From"] is None
    assert mail.compose(form, {"a": "", "block": ""}, replace(FIXED, sender="A <a@b.org>"))["From"]


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        (f"{HEAD}\n$b\n", r"\$b is unknown; one of a"),
        (f"{HEAD}X-Needs: a = B\n\nx\n", "its words rely on a = B, but it is A; rewrite"),
        (f"{HEAD}X-Needs: c = B\n\nx\n", r"\$c is unknown"),
        (f"{HEAD}\n5 $ each\n", "write \\$\\$ for a dollar sign"),
        (f"{HEAD}\n> {'x' * 71}\n", "line 1 of the body is wider than 72 columns"),
        (f"{HEAD}\n> x\n> \x1b[1m\n", r"line 2 .* no plain ASCII; change what makes '> \\x1b\[1m'"),
        (f"{HEAD}\n  a\x85b\n", r"line 1 .* no plain ASCII; change what makes '  a\\x85b'"),
    ],
)
def test_a_template_that_cannot_be_filled(form: str, wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        mail.compose(form, {"a": "A"}, FIXED)


def test_a_name_is_computed_only_where_it_stands() -> None:
    asked: list[str] = []

    def found(name: str) -> str:
        asked.append(name)
        return name

    values = {name: partial(found, name) for name in ("a", "b")}
    mail.compose(f"{HEAD}\n$a and $a\n", values, FIXED)
    assert asked == ["a"]


@given(st.lists(st.text(), max_size=6), st.text())
@example([], "\x850")
@example([], "\x1b")
@example([" \x1c0", "> \u20280"], "a\tb\rc")
def test_whatever_stands_in_it_a_draft_is_plain_or_refused(words: list[str], value: str) -> None:
    form = HEAD + "\n" + "\n\n".join(word.replace("$", "") for word in words) + "\n\n$a\n"
    with contextlib.suppress(BadInput):
        made = str(mail.compose(form, {"a": value}, FIXED))
        made.encode("ascii")
        check_text(made.partition("\n\n")[2])


def test_date_and_message_id() -> None:
    form, values = f"{HEAD}\n$a\n", {"a": "A"}
    fixed = replace(FIXED, message_id="")
    one, same = (mail.compose(form, values, fixed)["Message-ID"] for _ in range(2))
    other = mail.compose(form, {"a": "B"}, fixed)["Message-ID"]
    assert one == same != other
    assert mail.compose(form, values, mail.Envelope())["Date"]
    assert mail.Envelope().version == f"reservelab {rl.__version__}"
    with pytest.raises(BadInput, match="date: 'today' is no date"):
        mail.Envelope(date="today")
    with pytest.raises(BadInput, match="message_id: '1@b' is none"):
        mail.Envelope(message_id="1@b")


def test_a_long_command_is_one_that_a_shell_reads() -> None:
    words = ["reservelab", "sweep", *(f"--option-{k}" for k in range(12)), "a b"]
    printed = mail.command_lines(shlex.join(words))
    assert len(printed.splitlines()) > 2
    assert max(map(len, printed.splitlines())) <= 72
    shown = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {printed.strip()}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown.splitlines() == words


# --- The list's tools ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drafts(store: Store, verdicts: claims.Verdicts) -> list[str]:
    return [
        str(mail.sweep_mail(store, FIXED)),
        str(mail.proof_mail(rl.prove(DEADLY), FIXED)),
        str(mail.claim_mail(verdicts["refill"], "reservelab claims refill", FIXED)),
        ANSWER.read_text(),
    ]


def test_git_send_email_takes_it(drafts: list[str], tmp_path: Path) -> None:
    """A dry run: nothing is sent, and there is no server to send to."""
    exec_path = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True)
    if not (Path(exec_path.stdout.strip()) / "git-send-email").exists():
        assert os.environ.get("CI") != "true", "CI has to install git-email"
        pytest.skip("git send-email is not installed (Debian: git-email)")
    for number, draft in enumerate(drafts):
        file = tmp_path / f"{number}.eml"
        file.write_text(draft)
        done = subprocess.run(
            [
                "git", "send-email", "--dry-run", "--confirm=never", "--suppress-cc=all",
                "--from=A Reader <reader@example.org>", "--smtp-server=/bin/false", str(file),
            ],
            cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path),
                 "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull},
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Dry-OK" in done.stdout
        assert f"In-Reply-To: {SEED_MAIL}" in done.stdout
        assert "To: linux-mm@kvack.org" in done.stdout
        subject = email.message_from_string(draft, policy=email.policy.default)["Subject"]
        assert subject[:40] in " ".join(done.stdout.split())


# --- The verb ------------------------------------------------------------------------------------


def test_the_verb_writes_what_was_asked_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(DEADLY.toml())
    shutil.copy(ROOT / "data" / "claims" / "refill.toml", "mine.toml")
    Path("form.txt").write_text("Subject: mm: mine\n\n$variant\n")
    fixed = ["--date", FIXED.date, "--message-id", FIXED.message_id, "--release", "0.0"]
    for what in (str(store.path), "s.toml", "refill", "mine.toml"):
        assert main(["mail", what, *fixed]) == 0
        outcome = capsys.readouterr()
        assert outcome.err == ""
        read_back(outcome.out)
    assert main(["mail", "s.toml", "--unbounded", "--output", "draft"]) == 0
    read_back(Path("draft").read_text())
    assert main(["mail", "s.toml", "--template", "form.txt", "--from", "A <a@b.org>", *fixed]) == 0
    assert capsys.readouterr().out.endswith("\nwatermark\n")


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ([], "WHAT"),
        (["nothing"], "WHAT"),
        (["refill", "--date", "today"], "--date"),
        (["refill", "--message-id", "x"], "--message-id"),
        (["refill", "--template", "none"], "none"),
        (["refill", "--output", "."], "--output"),
        (["."], "."),
        (["refill", "--claims"], "--claims"),
    ],
)
def test_bad_input_gets_one_line(
    words: list[str], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["mail", *words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    outcome = capsys.readouterr()
    assert code == 2
    assert outcome.out == ""
    assert re.fullmatch(f"reservelab: {re.escape(key)}: [^\n]+; [^\n]+\n", outcome.err)
    assert list(tmp_path.iterdir()) == []


def test_drafting_needs_no_drawing_library() -> None:
    code = (
        "import sys, reservelab.show.mail;"
        "print([m for m in ('matplotlib', 'seaborn', 'IPython') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
