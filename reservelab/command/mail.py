"""The verb that drafts a mail."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reservelab.command.parser import add_number, add_verb
from reservelab.command.scenario import read_text
from reservelab.command.terminal import STARTING, Bar
from reservelab.model.catalogue import data_folder
from reservelab.model.errors import BadInput
from reservelab.model.scenario import read_toml

if TYPE_CHECKING:
    from email.message import EmailMessage

    from reservelab.show.mail import Envelope


def add_verbs(verbs: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the parser of this verb."""
    mail = add_verb(
        verbs, "mail", "[WHAT]", "draft a plain-text mail to the list; nothing is ever sent",
        "refill", _mail,
    )  # fmt: skip
    told = "a stored sweep, a claim's name, or a scenario or claim file"
    what = mail.add_mutually_exclusive_group()
    what.add_argument("what", nargs="?", metavar="WHAT", help=told)
    told = "the answer to the proposal of 2004, all its claims judged"
    what.add_argument("--claims", action="store_true", help=told)
    told = "a scenario's threads start over for ever"
    mail.add_argument("--unbounded", action="store_true", help=told)
    add_number(mail, "--limit", 1, "the most states to store for one question", 2_000_000)
    add_number(mail, "--workers", 1, "threads to compute with (all processors)")
    told = "a template of your own, like those in data/mail"
    mail.add_argument("--template", metavar="FILE", help=told)
    mail.add_argument("--output", metavar="FILE", help="write it there, not to standard output")
    told = "who sends it (unless given, git send-email says)"
    mail.add_argument("--from", dest="sender", default="", metavar="WHO", help=told)
    told = 'such as "Wed, 25 Nov 2026 12:00:00 +0000" (now)'
    mail.add_argument("--date", default="", metavar="DATE", help=told)
    told = "such as <1@example.org> (made of date and text)"
    mail.add_argument("--message-id", default="", metavar="ID", help=told)
    told = "version of reservelab to name (the installed one)"
    mail.add_argument("--release", default="", metavar="V", help=told)


def _mail(options: argparse.Namespace, bar: Bar) -> None:
    from reservelab.show.mail import Envelope

    envelope = Envelope(options.sender, options.date, options.message_id, options.release)
    form = None if options.template is None else Path(options.template).read_text("utf-8")
    if options.output is not None and Path(options.output).is_dir():
        raise BadInput("--output", f"{options.output} is a directory", "give a file")
    draft = str(_draft(options, envelope, form, bar))
    if options.output is None:
        print(draft, end="")
    else:
        Path(options.output).write_text(draft, encoding="ascii")


def _draft(
    options: argparse.Namespace, envelope: Envelope, form: str | None, bar: Bar
) -> EmailMessage:
    """What was asked for, computed and put into words."""
    from reservelab.model.scenario import Scenario
    from reservelab.show import mail
    from reservelab.solve.prove import prove
    from reservelab.study.claims import Claim, judge, load
    from reservelab.study.results import Store

    if options.claims:
        return _answer(options, envelope, form, bar)
    if options.what is None:
        raise BadInput("WHAT", "missing", "give a store, a claim, a scenario file, or --claims")
    if Path(options.what).is_dir():
        return mail.sweep_mail(Store(options.what), envelope, form)
    claims = {claim.name: claim for claim in load()}
    claim = claims.get(options.what)
    if claim is None:
        if not Path(options.what).is_file():
            right = f"a store, a file, or one of {', '.join(claims)}"
            raise BadInput("WHAT", f"{options.what!r} is unknown", right)
        text = read_text(options.what)
        if "quote" not in read_toml(text):
            with bar(STARTING):
                quota: Literal["own", "unbounded"] = "unbounded" if options.unbounded else "own"
                proof = prove(Scenario.from_toml(text), quota, options.limit, bar.explore)
            return mail.proof_mail(proof, envelope, form)
        claim = Claim.from_toml(Path(options.what).stem, text)
    with bar(STARTING, unit="questions"):
        verdict = judge(claim, options.limit, progress=bar.count)
    again = f"reservelab claims {Path(options.what).name}"
    return mail.claim_mail(verdict, again, envelope, form)


def _answer(
    options: argparse.Namespace, envelope: Envelope, form: str | None, bar: Bar
) -> EmailMessage:
    """The answer to the proposal: claims, repairs and rates."""
    from reservelab.show import mail
    from reservelab.study.claims import judge_all
    from reservelab.study.grid import Grid
    from reservelab.study.repairs import repairs
    from reservelab.study.sweep import Episodes, sweep

    grid = Grid.from_toml((data_folder() / "grids" / "mail.toml").read_text(encoding="utf-8"))
    with bar(STARTING, unit="questions"):
        verdicts = judge_all(limit=options.limit, progress=bar.count)
    with bar(STARTING, unit="questions"):
        mended = repairs(options.limit, bar.count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a mix may need more than the pool has
        with bar(STARTING, total=1):
            frame = sweep(grid, Episodes(4_000), workers=options.workers, progress=bar.follow)
    parts = ["mail --claims", "claims", "claims --repairs", "sweep mail --store results/mail"]
    about = {
        "grid": f"{grid.name}, SHA-256 {grid.digest}",
        "command": "\n".join(mail.command_lines(f"reservelab {part}") for part in parts),
    }
    return mail.claims_mail(verdicts, mended, frame, envelope, about, form)
