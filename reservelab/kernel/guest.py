"""Booting the patched kernel as an ordinary process, and getting its answers out of it.

No rights are needed. The guest is one process with children, all in a session of its own, and that
session is what is ended, by its id, when the guest is done, hangs, or the caller stops. Batches of
trials go in, and answers come out, through a directory of the host that the guest mounts; so what
was answered before a crash is not lost.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from reservelab.kernel.trials import Trial, Trials, lab_text, missing, parse
from reservelab.model.errors import BadInput
from reservelab.model.scenario import Scenario

BATCH = 500  # trials between two signs of life
MEMORY = "64M"
PATIENCE = 120.0  # seconds of silence after which a guest counts as hung
_POLL = 0.05
_ALIVE = 0.5


@dataclass(frozen=True)
class Kernel:
    """A built kernel.

    Parameters
    ----------
    linux : Path
        The user-mode kernel, an executable.
    initrd : Path
        What it boots from.
    release : str
        Version of the source it was built from.
    digest : str
        Of its patches, configuration and source; 64 hexadecimal digits.
    """

    linux: Path
    initrd: Path
    release: str
    digest: str


@dataclass(frozen=True)
class Answer:
    """What one boot left behind.

    Parameters
    ----------
    outputs : dict of str to str
        The driver's answer to each batch that was answered.
    messages : dict of str to str
        The kernel's messages during each of them.
    console : str
        Everything else it said.
    ended : str
        ``powered off``, ``crashed`` or ``hung``.
    """

    outputs: Mapping[str, str]
    messages: Mapping[str, str]
    console: str
    ended: str


def boot(
    kernel: Kernel,
    batches: Mapping[str, str],
    lockdep: bool = False,
    patience: float = PATIENCE,
    answered: Callable[[str, str], None] | None = None,
) -> Answer:
    """Boot a guest, let it run batches, and end it.

    Parameters
    ----------
    kernel : Kernel
        What to boot.
    batches : mapping of str to str
        Names and texts (`lab_text`), in the order of the names.
    lockdep : bool
        Leave lockdep on; it stops after its first report, so one question for each boot.
    patience : float
        Seconds without an answer after which the guest is ended.
    answered : callable, optional
        Told each batch's name and answer as it comes.

    Returns
    -------
    Answer
        Of the batches that were answered; the others are for the caller to miss.

    Raises
    ------
    BadInput
        If the driver refuses a batch.
    """
    with tempfile.TemporaryDirectory(prefix="reservelab-", ignore_cleanup_errors=True) as name:
        room = Path(name)
        share = room / "share"
        share.mkdir()
        for batch, text in batches.items():
            (share / f"{batch}.in").write_text(text, encoding="ascii")
        words = ["time-travel=inf-cpu", f"hostfs={share}", *(["lockdep"] if lockdep else [])]
        with (
            open(room / "console", "wb") as console,
            process(kernel, words, room, console) as guest,
        ):
            ended = _watch(guest, share, patience, answered)
        outputs = {path.stem: path.read_text() for path in share.glob("*.out")}
        # A batch that was being read when the guest died: whole lines are as good as any.
        outputs |= {path.stem: path.read_text() for path in share.glob("*.part")}
        messages = {path.stem: path.read_text() for path in share.glob("*.dmesg")}
        for refused in share.glob("*.refused"):
            lines = messages.get(refused.stem, "").strip().splitlines() or ["it does not say why"]
            right = "is it the kernel `reservelab kernel build` makes from these patches?"
            raise BadInput("kernel", f"the driver refused a scenario: {lines[-1]}", right)
        text = (room / "console").read_bytes().decode("utf-8", errors="replace")
    return Answer(outputs, messages, text, ended)


@contextlib.contextmanager
def process(
    kernel: Kernel, words: list[str], room: Path, console: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A guest in a session of its own, of which nothing is left afterwards.

    Parameters
    ----------
    kernel : Kernel
        What to boot.
    words : list of str
        What its command line has beside what every guest's has.
    room : Path
        The directory it runs in, and knows as its home.
    console : file
        Where its words go.

    Yields
    ------
    subprocess.Popen
        The running guest.
    """
    every = [
        str(kernel.linux), f"mem={MEMORY}", f"initrd={kernel.initrd}", "rdinit=/init",
        f"uml_dir={room}", "con=null", "con0=null,fd:1", "quiet",
    ]  # fmt: skip
    guest = subprocess.Popen(
        [*every, *words], cwd=room,
        env={"PATH": os.defpath, "HOME": str(room), "TMPDIR": str(room)},
        stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,  # type: ignore[call-overload]
        start_new_session=True,
    )  # fmt: skip
    try:
        yield guest
    finally:
        # The children trace each other and may outlive their parent: the session is ended too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(guest.pid, signal.SIGKILL)
        guest.wait()


def _watch(
    guest: subprocess.Popen[bytes],
    share: Path,
    patience: float,
    answered: Callable[[str, str], None] | None,
) -> str:
    """Wait for the guest's end; return what it was."""
    seen: set[Path] = set()
    heard = time.monotonic()
    while True:
        code = guest.poll()
        new = sorted(set(share.glob("*.out")) - seen)
        for path in new:
            seen.add(path)
            heard = time.monotonic()
            if answered is not None:
                answered(path.stem, path.read_text())
        if code is not None:
            return "powered off" if code == 0 else "crashed"
        if time.monotonic() - heard > patience:
            return "hung"
        time.sleep(_POLL)


def run(
    kernel: Kernel,
    scenario: Scenario,
    trials: int,
    seed: int = 1,
    lockdep: bool = False,
    progress: Callable[[int], None] | None = None,
    patience: float = PATIENCE,
) -> Trials:
    """Run trials of a scenario in the kernel.

    A guest that crashes or hangs is booted once more for the trials that are missing. They have
    addresses, so asking again does not choose among results.

    Parameters
    ----------
    kernel : Kernel
        What to boot.
    scenario : Scenario
        All of it ported.
    trials : int
        How many.
    seed : int
        The same seed gives the same trials.
    lockdep : bool
        Ask lockdep too.
    progress : callable, optional
        Told the trials of each batch as it comes.
    patience : float
        Seconds without an answer after which a guest counts as hung.

    Returns
    -------
    Trials
        All of them.

    Raises
    ------
    BadInput
        If the scenario is not ported, or two guests in a row died of the same trials.
    """
    heard: dict[int, Trial] = {}
    report = ""
    for _ in range(2):
        batches = {}
        for first, count in _runs(missing(heard.values(), 0, trials)):
            batches[f"{first:09}"] = lab_text(scenario, seed, first, count)

        def answered(_: str, text: str) -> None:
            if progress is not None:
                progress(len(parse(text)[0]))

        answer = boot(kernel, batches, lockdep, patience, answered)
        for text in answer.outputs.values():
            heard |= {trial.number: trial for trial in parse(text)[0]}
        report = report or lockdep_report(answer)
        lost = missing(heard.values(), 0, trials)
        if not lost:
            return Trials(scenario, seed, tuple(heard.values()), report)
    last = "\n".join(answer.console.strip().splitlines()[-1:])
    wrong = f"the guest {answer.ended} and {len(lost)} trials are missing, the first is {lost[0]}"
    raise BadInput("kernel", f"{wrong}; its last words: {last or 'none'}", "try that trial alone")


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Split rising numbers into runs without a gap of at most BATCH: the first and how many."""
    start = 0
    for k in range(1, len(numbers) + 1):
        if k == len(numbers) or numbers[k] != numbers[k - 1] + 1 or k - start == BATCH:
            yield numbers[start], k - start
            start = k


def lockdep_report(answer: Answer) -> str:
    """Lockdep's report among the kernel's messages.

    Parameters
    ----------
    answer : Answer
        What a boot left behind.

    Returns
    -------
    str
        From its WARNING on, without the stack at its end; empty if lockdep was silent.
    """
    reports = (find_report(answer.messages[name]) for name in sorted(answer.messages))
    return next(filter(None, reports), "")


def find_report(text: str) -> str:
    """Lockdep's report in what a kernel said.

    Parameters
    ----------
    text : str
        Messages, with or without time stamps.

    Returns
    -------
    str
        As `lockdep_report`.
    """
    lines = [bare(line) for line in text.splitlines()]
    for k, line in enumerate(lines):
        if line.startswith("WARNING: possible "):
            report = itertools.takewhile(lambda line: line != "stack backtrace:", lines[k:])
            return "\n".join(report).strip()
    return ""


def lockdep_words(report: str) -> dict[str, str]:
    """What a report comes to.

    Parameters
    ----------
    report : str
        Of lockdep; empty if it was silent.

    Returns
    -------
    dict
        ``lockdep``: ``silent``, or what it calls possible; ``lock``: the locks it names beside the
        pool's semaphore, which is in every report here.
    """
    found = re.match(r"WARNING: possible (.*?)(?: detected)?\n", report)
    if found is None:
        return {"lockdep": "silent", "lock": ""}
    named = re.findall(r"^[0-9a-f]{8,} \(([^)]+)\)\{", report, re.M)
    return {"lockdep": found[1], "lock": " ".join(sorted(set(named) - {"reserved_pages_sem"}))}


def bare(line: str) -> str:
    """A kernel message without its time stamp.

    Parameters
    ----------
    line : str
        As dmesg prints it.

    Returns
    -------
    str
        The message.
    """
    return line.partition("] ")[2] if line.startswith("[") and "] " in line else line
