"""Plain-text drafts for a mailing list, from stored sweeps, proofs and claims; nothing is sent.

A template is itself a mail: header fields, an empty line, a body, with $names for what was
computed (`string.Template`). It is a file that a person can edit: data/mail holds ours. A
paragraph that is only one $name stands as it comes, as do paragraphs that begin with a blank or
with ">"; all others are filled to 72 columns.

What the prose of a template says in words, a number may contradict one day. So a field X-Needs
names what the prose relies on, as `name = value`, one a field; if something else was computed,
there is no draft but an error that says what to rewrite.

The draft is one part of 7-bit plain text that `git send-email` takes. It has no From field unless
somebody says who sends it: git fills that in.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
import re
import shlex
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial
from importlib import metadata

import pandas as pd

from reservelab.kernel import compare, exhaust
from reservelab.model import catalogue
from reservelab.model.catalogue import data_folder
from reservelab.model.errors import BadInput
from reservelab.model.interval import Interval
from reservelab.model.plain_text import WIDTH, plain, wrap
from reservelab.model.scenario import RULES_VERSION, Scenario
from reservelab.show import text
from reservelab.show.cells import glyphs, interval, mixes, ordered
from reservelab.show.text.tables import Column, aligned
from reservelab.solve.prove import Proof
from reservelab.study.claims import Finding, Verdict, Verdicts
from reservelab.study.grid import Grid
from reservelab.study.repairs import Outcome, Repairs
from reservelab.study.results import Store

LORE = "https://lore.kernel.org/all/"
_POLICY = email.policy.EmailPolicy(max_line_length=76)
_BLOCK = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
Values = Mapping[str, str | Callable[[], str]]


@dataclass(frozen=True)
class Envelope:
    """What a draft has that is not computed.

    Parameters
    ----------
    sender : str
        The From field; none if empty.
    date : str
        The Date field, such as "Wed, 25 Nov 2026 12:00:00 +0000"; now if empty.
    message_id : str
        The Message-ID field with its angle brackets; made of date and body if empty.
    release : str
        The version of the package to name; the installed one if empty.

    Raises
    ------
    BadInput
        If the date is none, or the Message-ID has no angle brackets.
    """

    sender: str = ""
    date: str = ""
    message_id: str = ""
    release: str = ""

    def __post_init__(self) -> None:
        if self.date:
            try:
                parsedate_to_datetime(self.date)
            except ValueError:
                right = 'write it as in "Wed, 25 Nov 2026 12:00:00 +0000"'
                raise BadInput("date", f"{self.date!r} is no date of a mail", right) from None
        if self.message_id and not re.fullmatch("<[^<>@ ]+@[^<>@ ]+>", self.message_id):
            raise BadInput("message_id", f"{self.message_id!r} is none", "write <LEFT@RIGHT>")

    @property
    def version(self) -> str:
        """Name and version of the package, as a draft says it."""
        return f"reservelab {self.release or metadata.version('reservelab')}"


def template(name: str) -> str:
    """Read a template that comes with the package.

    Parameters
    ----------
    name : str
        ``sweep``, ``proof``, ``claim`` or ``claims``.

    Returns
    -------
    str
        data/mail/NAME.txt.
    """
    return (data_folder() / "mail" / f"{name}.txt").read_text(encoding="utf-8")


def compose(form: str, values: Values, envelope: Envelope) -> EmailMessage:
    """Fill a template.

    Parameters
    ----------
    form : str
        The template.
    values : mapping of str to (str or callable)
        What its $names stand for; a callable is called if its name occurs.
    envelope : Envelope
        Date, Message-ID, sender.

    Returns
    -------
    EmailMessage
        The draft; ``str`` of it is the file.

    Raises
    ------
    BadInput
        If a $name is unknown, if what an X-Needs field names is not so, or if a line of the body
        is wider than 72 columns or not printable ASCII.
    """
    filled = _Filled(values)
    source = email.message_from_string(form)
    for need in source.get_all("X-Needs", []):
        name, _, wanted = (" ".join(need.split())).partition(" = ")
        found = filled[name]
        if found != wanted:
            wrong = f"its words rely on {name} = {wanted}, but it is {found}"
            raise BadInput("template", wrong, "rewrite what it says about that, then the field")
    body = "\n".join(_body(form.partition("\n\n")[2], filled)) + "\n"
    # Not splitlines: that takes more for the end of a line than a mail may hold, and drops it.
    for number, line in enumerate(body.split("\n"), start=1):
        if len(line) > WIDTH or line != plain(line):
            wrong = f"line {number} of the body is wider than {WIDTH} columns or no plain ASCII"
            raise BadInput("template", wrong, f"change what makes {line[:40]!r}")
    message = EmailMessage(policy=_POLICY)
    if envelope.sender:
        message["From"] = envelope.sender
    for field, content in source.items():
        if field != "X-Needs":
            message[field] = plain(" ".join(filled.inline(content).split()))
    date = envelope.date or format_datetime(datetime.now(UTC))
    message["Date"] = date
    made = hashlib.sha256(f"{date}\n{body}".encode()).hexdigest()[:24]
    message["Message-ID"] = envelope.message_id or f"<{made}@reservelab.invalid>"
    message.set_content(body, charset="us-ascii", cte="7bit")
    return message


class _Filled(Mapping[str, str]):
    """Values by name, each computed when it is first asked for."""

    def __init__(self, values: Values) -> None:
        self._values = dict(values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, name: str) -> str:
        found = self._values.get(name)
        if found is None:
            right = f"one of {', '.join(sorted(self._values))}"
            raise BadInput("template", f"${name} is unknown", right)
        if not isinstance(found, str):
            found = self._values[name] = found()
        return found

    def inline(self, words: str) -> str:
        try:
            return string.Template(words).substitute(self)
        except ValueError as error:
            raise BadInput("template", str(error), "write $$ for a dollar sign") from None


def _body(form: str, filled: _Filled) -> Iterator[str]:
    """The lines of the body."""
    paragraphs = re.split(r"\n\s*\n", form.strip("\n"))
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ""
        block = _BLOCK.fullmatch(paragraph.strip())
        if block is not None:
            lines = filled[block[1] or block[2]].rstrip("\n").split("\n")
            yield from (line.rstrip() for line in lines)
        elif paragraph.startswith((" ", ">")):
            yield from (line.rstrip() for line in filled.inline(paragraph).split("\n"))
        else:
            item = re.match(r"(?:- |\d+\. )", paragraph)
            indent = " " * len(item[0]) if item else ""
            yield from wrap(" ".join(filled.inline(paragraph).split()), indent)


# --- What all drafts share -----------------------------------------------------------------------


def quoted(words: str, depth: int = 1) -> list[str]:
    """Quote what somebody wrote.

    Parameters
    ----------
    words : str
        One paragraph.
    depth : int
        How often.

    Returns
    -------
    list of str
        Lines that begin with "> ".
    """
    sign = "> " * depth
    return [sign + line for line in wrap(words, width=WIDTH - len(sign))]


def command_lines(command: str) -> str:
    """Break a command so that a shell still reads it.

    Parameters
    ----------
    command : str
        On one line.

    Returns
    -------
    str
        Lines of at most 72 columns, indented by two, if its words allow it.
    """
    lines = [" "]
    for word in map(shlex.quote, shlex.split(command)):
        if len(lines[-1]) + 1 + len(word) > WIDTH - 2 and lines[-1].strip():
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}"
    return "\n".join(lines)


def lore(message_id: str) -> str:
    """Link to a mail.

    Parameters
    ----------
    message_id : str
        Without angle brackets.

    Returns
    -------
    str
        Its address in the archive at lore.kernel.org.
    """
    return f"{LORE}{message_id}/"


def sweep_command(store: Store) -> str:
    """Say what a person types to run a stored sweep again.

    Parameters
    ----------
    store : Store
        What a sweep made.

    Returns
    -------
    str
        Where the store lies is nobody else's business: it goes by the grid's name. A grid that does
        not come with the package is named as the file it was read from might be.
    """
    spec = store.spec
    run = spec["runs"][-1]
    shipped = data_folder() / "grids" / f"{spec['name']}.toml"
    known = shipped.is_file() and Grid.from_toml(shipped.read_text()).digest == spec["digest"]
    name = _file_name(spec["name"])
    words = run["goal"].split()
    goal = f"--precision {words[1]}" if words[0] == "precision" else f"--episodes {words[0]}"
    grid = name if known else f"{name}.toml"
    return f"reservelab sweep {grid} {goal} --seed {run['seed']} --store results/{name}"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name)[:40].strip("-") or "grid"


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


# --- A stored sweep ------------------------------------------------------------------------------


def sweep_mail(store: Store, envelope: Envelope, form: str | None = None) -> EmailMessage:
    """Report a stored sweep.

    Parameters
    ----------
    store : Store
        What a sweep made.
    envelope : Envelope
        Date, Message-ID, sender.
    form : str, optional
        A template to use instead of data/mail/sweep.txt.

    Returns
    -------
    EmailMessage
        The draft.
    """
    spec, frame = store.spec, store.frame()
    fewest, most = int(frame["episodes"].min()), int(frame["episodes"].max())
    values: dict[str, str | Callable[[], str]] = {
        "name": plain(spec["name"] or "without a name"),
        "digest": spec["digest"],
        "scenarios": f"{len(frame):,}",
        "episodes": f"{int(frame['episodes'].sum()):,}",
        "each": f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}",
        "schemes": str(frame["variant"].nunique()),
        "mixes": plain(", ".join(mixes(frame))),
        "threads": _listed(frame["threads"]),
        "pages": _listed(frame["pages"]),
        "quota": _listed(frame["quota"]),
        "waiting": _listed(frame["waiting"]),
        "seeds": _listed(frame["seed"]),
        "rules": str(RULES_VERSION),
        "version": envelope.version,
        "left_out": _many(len(spec["left_out"]), "cell"),
        "deadlocked": f"{int((frame['deadlocks'] > 0).sum()):,}",
        "never": f"{int((frame['deadlocks'] == 0).sum()):,}",
        "command": command_lines(sweep_command(store)),
        "mail_command": command_lines(f"reservelab mail results/{_file_name(spec['name'])}"),
        "table": lambda: text.table(frame),
        "map": lambda: text.heat(frame),
        "idle_map": lambda: text.heat(frame, quantity="idle_mean"),
        "dead": lambda: text.dead(frame),
        "front": lambda: text.front(frame),
        "curves": lambda: text.curves(frame),
        "bars": lambda: text.bars(frame),
    }
    return compose(form or template("sweep"), values, envelope)


def _listed(column: pd.Series) -> str:
    values = sorted(set(column.tolist()))
    return plain(", ".join(map(str, values)))


# --- A proof -------------------------------------------------------------------------------------


def proof_mail(proof: Proof, envelope: Envelope, form: str | None = None) -> EmailMessage:
    """Report a proof: a certificate, or a path into trouble.

    Parameters
    ----------
    proof : Proof
        What `prove` returned.
    envelope : Envelope
        Date, Message-ID, sender.
    form : str, optional
        A template to use instead of data/mail/proof.txt.

    Returns
    -------
    EmailMessage
        The draft; the scenario stands in it as a file, so that a reader can run it.
    """
    scenario = proof.scenario
    names = [
        f"{m.filesystem.name} ({m.flushers} flushers, {m.dirtiers} dirtiers)"
        for m in scenario.mounts
    ]
    option = "" if proof.quota is not None else " --unbounded"
    stuck = "get stuck" if proof.deadlock_free else "deadlock"
    answer = f"can {stuck} in {_many(len(proof.path), 'step')}"
    values: dict[str, str | Callable[[], str]] = {
        "variant": plain(scenario.scheme.variant),
        "answer": "is safe" if proof.safe else answer,
        "mounts": plain(", ".join(names)),
        "threads": _many(scenario.threads, "thread"),
        "pages": _many(scenario.machine.pages, "page"),
        "reserve": str(scenario.reserve or 0),
        "quota": "without end" if proof.quota is None else _many(proof.quota, "writepage"),
        "waiting": scenario.waiting,
        "states": f"{proof.processed:,} of {proof.states:,}",
        "rules": str(RULES_VERSION),
        "digest": scenario.digest,
        "version": envelope.version,
        "command": command_lines(f"reservelab prove scenario.toml{option}"),
        "proof": str(proof),
        "lanes": lambda: text.swim_lanes(proof) if proof.story else "There is no such path.",
        "scenario": lambda: _toml(scenario),
    }
    return compose(form or template("proof"), values, envelope)


def _toml(scenario: Scenario) -> str:
    """A scenario as a file in a mail; TOML may break a line inside brackets."""
    lines = []
    for line in scenario.toml().rstrip("\n").split("\n"):
        if len(line) <= WIDTH - 2:
            lines.append(f"  {plain(line)}")
            continue
        lines += [f"  {part}" for part in wrap(line, "    ", WIDTH - 2)]
    return "\n".join(lines)


# --- A claim, and all of them --------------------------------------------------------------------


def claim_mail(
    verdict: Verdict, command: str, envelope: Envelope, form: str | None = None
) -> EmailMessage:
    """Answer one sentence.

    Parameters
    ----------
    verdict : Verdict
        What `judge` returned.
    command : str
        What a person types to judge it again.
    envelope : Envelope
        Date, Message-ID, sender.
    form : str, optional
        A template to use instead of data/mail/claim.txt.

    Returns
    -------
    EmailMessage
        The draft, in reply to the mail that the sentence is from.
    """
    claim = verdict.claim
    names = [trial.solver for trial in dict.fromkeys(f.trial for f in verdict.findings)]
    values = _claim_values(verdict) | {
        "title": plain(claim.title),
        "author": plain(claim.author),
        "message_id": claim.message,
        "lore": lore(claim.message),
        "quote": "\n".join(quoted(claim.quote)),
        "reading": "\n".join(wrap(claim.reading)),
        "verdict": verdict.word,
        "asleep": verdict.under("asleep"),
        "racing": verdict.under("racing"),
        "questions": _many(len(names), "question"),
        "solvers": ", ".join(f"{names.count(n)} by {n}" for n in dict.fromkeys(names)),
        "findings": lambda: "\n".join(_findings(verdict)),
        "rules": str(RULES_VERSION),
        "version": envelope.version,
        "command": command_lines(command),
        "lanes": lambda: _lanes(verdict),
        "proof": lambda: _proof(verdict),
    }
    return compose(form or template("claim"), values, envelope)


def _findings(verdict: Verdict) -> Iterator[str]:
    """Every question of a verdict with its answer under each waiting rule."""
    for condition, head in ((False, "As it was said:"), (True, "With something changed:")):
        found = [f for f in verdict.findings if f.condition == condition]
        if found and condition:
            yield ""
        if found:
            yield head
        for trial in dict.fromkeys(f.trial for f in found):
            yield from wrap(f"- {trial.name} ({trial.solver}; false if {trial.false_if})", "  ")
            for f in found:
                if f.trial == trial:
                    truth = {True: "true", False: "false", None: "undecided"}[f.true]
                    yield from wrap(f"    {f.waiting}: {truth}, {f.measured}", "      ")


def _shown(verdict: Verdict) -> Finding | None:
    """The shortest path into trouble of all trials, asleep; failing that, racing; then others."""
    paths = [f for f in verdict.findings if f.proof is not None and f.proof.story is not None]
    return min(paths, key=lambda f: (f.condition, f.waiting, _steps(f)), default=None)


def _steps(finding: Finding) -> int:
    return 0 if finding.proof is None else len(finding.proof.path)


def _lanes(verdict: Verdict) -> str:
    shown = _shown(verdict)
    if shown is None or shown.proof is None:
        return "No path into trouble was found."
    return text.swim_lanes(shown.proof)


def _proof(verdict: Verdict) -> str:
    shown = _shown(verdict)
    if shown is None or shown.proof is None:
        return "No path into trouble was found."
    return f"{shown.trial.name}, {shown.waiting}:\n\n{shown.proof}"


def _claim_values(verdict: Verdict, prefix: str = "") -> dict[str, str | Callable[[], str]]:
    """What a template may say of a claim: each question by its name, true, false or depends."""
    values: dict[str, str | Callable[[], str]] = {}
    for trial in dict.fromkeys(f.trial for f in verdict.findings):
        truths = {f.true for f in verdict.findings if f.trial == trial}
        word = {True: "true", False: "false", None: "undecided"}[next(iter(truths))]
        values[f"{prefix}is_{_slug(trial.name)}"] = word if len(truths) == 1 else "depends"
    for f in verdict.findings:
        name = _slug(f.trial.name)
        if f.waiting == "asleep" and _steps(f):
            values[f"{prefix}steps_{name}"] = str(_steps(f))
        if f.waiting == "asleep" and f.value is not None:
            values[f"{prefix}value_{name}"] = _short(f.value)
        if f.waiting == "asleep" and f.against is not None:
            values[f"{prefix}against_{name}"] = _short(f.against)
    shown = _shown(verdict)
    if shown is not None:
        values[f"{prefix}steps"] = str(_steps(shown))
    return values


def _short(value: Interval) -> str:
    """A number in a sentence: what is exact to two decimals."""
    return f"{value.best:.2f}" if value.low == value.high else text.number(value)


def claims_mail(
    verdicts: Verdicts, mended: Repairs, frame: pd.DataFrame, envelope: Envelope,
    about: Mapping[str, str], form: str | None = None,
) -> EmailMessage:  # fmt: skip
    """Answer the proposal of 2004: who can deadlock and how, how often, at what cost.

    Parameters
    ----------
    verdicts : Verdicts
        What `judge_all` returned.
    mended : Repairs
        What `repairs` returned.
    frame : DataFrame
        What `sweep` returned for the grid of data/grids/mail.toml.
    envelope : Envelope
        Date, Message-ID, sender.
    about : mapping of str to str
        More to say: ``grid`` (its name and digest), ``command``.
    form : str, optional
        A template to use instead of data/mail/claims.txt.

    Returns
    -------
    EmailMessage
        The draft.
    """
    letters = glyphs(frame["variant"])
    fewest, most = int(frame["episodes"].min()), int(frame["episodes"].max())
    threads = sorted(set(frame["threads"]))
    middle = threads[len(threads) // 2]
    values: dict[str, str | Callable[[], str]] = {
        **{letter: plain(variant) for variant, letter in letters.items()},
        **about,
        "rules": str(RULES_VERSION),
        "version": envelope.version,
        "seeds": _listed(frame["seed"]),
        "each": f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}",
        "cells": str(len(frame)),
        "threads": str(middle),
        "pages": _listed(frame["pages"]),
        "quota": _listed(frame["quota"]),
        "questions": str(sum(len(verdict.findings) for verdict in verdicts)),
        "claims": str(len(verdicts)),
        **_told_of(mended),
        **_kernel_values(),
        "risk_table": lambda: "\n".join(_risk_table(mended)),
        "maps": lambda: "\n".join(_maps(frame)),
        "cost_table": lambda: "\n".join(_cost_table(frame[frame["threads"] == middle], letters)),
    }
    for outcome in mended.outcomes:
        name = f"{_slug(outcome.scheme)}_{outcome.situation}_{outcome.waiting}"
        values |= {name: _chance(outcome), f"{name}_verdict": outcome.verdict}
        if outcome.exact is not None and outcome.exact.throughput is not None:
            values[f"{name}_speed"] = f"{100 * outcome.exact.throughput:.1f}"
    for mix in mixes(frame):
        if mix in catalogue.mixes:
            known = catalogue.mixes[mix]
            shares = zip(known.weights, known.filesystems, strict=True)
            values[f"{mix}_shares"] = ", ".join(f"{100 * w:g} % {fs.name}" for w, fs in shares)
        for _, row in frame[frame["mix"] == mix].iterrows():
            values[f"{mix}_{letters[row['variant']]}_reserve"] = str(row["reserve"])
            where = f"{mix}_{row['threads']}_{letters[row['variant']]}"
            best, bounds = text.risk(interval(row, "deadlock_probability"))
            values |= {f"{where}_risk": best, f"{where}_bounds": bounds}
    for verdict in verdicts:
        name = _slug(verdict.claim.name)
        values |= _claim_values(verdict, f"{name}_")
        values |= {
            f"{name}_verdict": verdict.word,
            f"{name}_asleep": verdict.under("asleep"),
            f"{name}_racing": verdict.under("racing"),
            f"{name}_lanes": partial(_lanes, verdict),
            f"{name}_quote": "\n".join(quoted(verdict.claim.quote)),
            f"{name}_lore": lore(verdict.claim.message),
        }
    return compose(form or template("claims"), values, envelope)


def _kernel_values() -> dict[str, str]:
    """What the committed runs of the patched kernel come to."""
    points, boots = compare.recorded(), exhaust.recorded()
    entry = boots[boots["marks"].isin(["on_entry", "on_entry_ext4"]) & (boots["disk"] != "plain")]
    return {
        "kernel_release": str(points["kernel"].iloc[0]),
        "kernel_trials": f"{points['trials'].sum():,}",
        "kernel_scenarios": str(len(points)),
        "kernel_differ": str((~points["agrees"]).sum() or "none"),
        "kernel_hung": str((entry["ending"] == "hung").sum()),
        "kernel_entry": str(len(entry)),
    }


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")


def _chance(outcome: Outcome) -> str:
    """A probability known exactly; safe only where a proof says so."""
    if outcome.verdict != "unsafe" or outcome.exact is None:
        return outcome.verdict
    stuck = outcome.exact.deadlock_probability + outcome.exact.livelock_probability
    if stuck >= 0.9995:
        return ">0.999" if stuck < 1 else "1"
    return f"{stuck:.3f}" if stuck >= 0.0995 else f"{stuck:.2g}"


def _risk_table(mended: Repairs) -> Iterator[str]:
    """Schemes by situations, exact, under the waiting rule of a semaphore."""
    found = {(o.scheme, o.situation): _chance(o) for o in mended.outcomes if o.waiting == "asleep"}
    names = list(dict.fromkeys(scheme for scheme, _ in found))
    made = [
        Column(("", situation), tuple(found[name, situation] for name in names))
        for situation in dict.fromkeys(situation for _, situation in found)
    ]
    yield from (line.rstrip() for line in aligned(names, made) if line.strip())


def _maps(frame: pd.DataFrame) -> Iterator[str]:
    """The heat maps of all mixes side by side, without what the text says itself."""
    drawn = []
    for mix in mixes(frame):
        lines = text.heat(frame[frame["mix"] == mix]).split("\n")
        start = lines.index(mix)
        drawn.append([mix, *lines[start + 2 : lines.index("", start + 2)]])
    wide = max(len(line) for one in drawn for line in one) + 6
    for row in zip(*drawn, strict=True):
        yield "".join(cell.ljust(wide) for cell in row).rstrip()


def _cost_table(part: pd.DataFrame, letters: dict[str, str]) -> Iterator[str]:
    """Idle pages and throughput of every scheme in each mix; marked where deadlocks were seen."""
    names = ordered(part["variant"])
    made = []
    for mix in mixes(part):
        here = part[part["mix"] == mix].set_index("variant")
        above = mix.partition("_")[0]
        for quantity, head in (("idle_mean", "idle"), ("idle_peak", "peak"), ("throughput", "wp")):
            scale = 100 if quantity == "throughput" else 1
            rows = [here.loc[[name]].iloc[0] for name in names]
            found = [interval(row, quantity) for row in rows]
            texts = [text.number(Interval(*(scale * bound for bound in v))) for v in found]
            dead = [row["deadlocks"] > 0 for row in rows]
            marked = [t + ("*" if d else " ") for t, d in zip(texts, dead, strict=True)]
            made.append(Column((above, head + " "), tuple(marked)))
            above = ""
    yield from (line.rstrip() for line in aligned([letters[name] for name in names], made))


def _told_of(mended: Repairs) -> dict[str, str]:
    """What the situations of the table have in common, and what racing would change."""
    solved = [o.scenario for o in mended.outcomes if o.scenario is not None]
    verdicts = {(o.scheme, o.situation, o.waiting): o.verdict for o in mended.outcomes}
    pairs = {(scheme, situation) for scheme, situation, _ in verdicts}
    changed = [p for p in pairs if verdicts[*p, "asleep"] != verdicts[*p, "racing"]]
    needs, threads, pages = (
        _range(values)
        for values in (
            [s.need for s in solved],
            [sum(m.flushers + m.dirtiers for m in s.mounts) for s in solved],
            [s.machine.pages for s in solved],
        )
    )
    return {
        "situations": str(len({situation for _, situation in pairs})),
        "table_need": needs,
        "table_threads": threads,
        "table_pages": pages,
        "table_entries": str(len(pairs)),
        "racing_changes": str(len(changed)),
    }


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
