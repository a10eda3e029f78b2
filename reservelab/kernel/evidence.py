"""One deadlock as the kernel itself tells it: backtraces, held locks, lockdep's report."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from reservelab.kernel.guest import BATCH, Answer, Kernel, bare, boot, lockdep_report
from reservelab.kernel.trials import Trial, lab_text, parse
from reservelab.model.catalogue import data_folder
from reservelab.model.errors import BadInput
from reservelab.model.scenario import Scenario

_FEW = 20
_BEGIN, _END = "reserved_pages_lab: deadlock;", "reserved_pages_lab: end of deadlock"
# Frames of the scheduler's and of the stack's own making say nothing about who waits for what.
_BORING = re.compile(
    r"(_*schedule\w*|_*switch_to|show_stack|sched_show_task|new_thread_handler|kthread|_*printk"
    r"|worker_thread|process_one_work|userspace|fork_handler|handle_syscall"
    r"|ret_from_fork|hrtimer_\w+|lock_(acquire|release)|[a-z_]*_thread_handler"
    r"|preempt_\w+|arch_\w+|to_\w+|set_\w+)$"
)


@dataclass(frozen=True)
class StuckThread:
    """One thread of a deadlock.

    Parameters
    ----------
    name : str
        Its task's name.
    waits : str
        What the driver says it waits for.
    frames : tuple of str
        Functions on its stack, the innermost first.
    locks : tuple of str
        What lockdep says it holds, and the lock it waits for.
    """

    name: str
    waits: str
    frames: tuple[str, ...]
    locks: tuple[str, ...]

    def __str__(self) -> str:
        frames = [f"    {frame}" for frame in self.frames]
        locks = [f"  {lock}" for lock in self.locks]
        return "\n".join([f"{self.name} waits for {self.waits}", *frames, *locks])


@dataclass(frozen=True)
class Evidence:
    """A deadlock found in the kernel.

    Parameters
    ----------
    trial : Trial
        Which one.
    head : str
        What was left of the memory.
    threads : tuple of StuckThread
        All threads, those too that were done.
    lockdep : str
        Its report up to here; empty if it was silent.
    """

    trial: Trial
    head: str
    threads: tuple[StuckThread, ...]
    lockdep: str

    def document(self) -> dict[str, object]:
        """The evidence as plain values.

        Returns
        -------
        dict
            For JSON.
        """
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"trial {self.trial.number}: {self.head}"]
        for thread in self.threads:
            lines += ["", str(thread)]
        lines += ["", f"lockdep: {self.lockdep or 'silent'}"]
        return "\n".join(lines)


def find_deadlock(
    kernel: Kernel, scenario: Scenario, trials: int, seed: int = 1
) -> Evidence | None:
    """Run trials until one deadlocks, and keep what the kernel says about it.

    Parameters
    ----------
    kernel : Kernel
        What to boot, with lockdep on.
    scenario : Scenario
        All of it ported.
    trials : int
        How many to look at.
    seed : int
        Their seed.

    Returns
    -------
    Evidence or None
        Of the first deadlocked trial; None if none deadlocked.

    Raises
    ------
    BadInput
        If the guest died before it had an answer.
    """
    first = 0
    while first < trials:
        # Few at first, since one in few may do, and a boot is cheap.
        count = min(BATCH if first else _FEW, trials - first)
        text = lab_text(scenario, seed, first, count, backtrace=True)
        answer = boot(kernel, {"trials": text}, lockdep=True)
        if "trials" not in answer.outputs:
            raise BadInput("kernel", f"the guest {answer.ended} before it answered", "try again")
        dead = [t for t in parse(answer.outputs["trials"])[0] if t.ending == "deadlocked"]
        if dead:
            return read_evidence(answer, "trials", dead[0])
        first += count
    return None


def recorded() -> str:
    """The committed evidence: the ABBA of data/scenarios/abba.toml.

    Returns
    -------
    str
        data/kernel/abba.txt, which `reservelab kernel show` printed, without the proof before it.
    """
    text = (data_folder() / "kernel" / "abba.txt").read_text(encoding="ascii")
    return text[text.index("The same in Linux") :]


def read_evidence(answer: Answer, name: str, trial: Trial) -> Evidence:
    """Read the backtraces among the messages of a batch.

    Parameters
    ----------
    answer : Answer
        What a boot left behind.
    name : str
        The batch.
    trial : Trial
        Its first deadlocked trial.

    Returns
    -------
    Evidence
        What the driver printed, by thread.
    """
    lines = [bare(line) for line in answer.messages[name].splitlines()]
    start = next((k for k, line in enumerate(lines) if line.startswith(_BEGIN)), len(lines))
    end = next((k for k, line in enumerate(lines) if line.startswith(_END)), len(lines))
    threads: list[StuckThread] = []
    told = [
        (k, found)
        for k, line in enumerate(lines[:end])
        if k > start and (found := re.fullmatch(r"reserved_pages_lab: (\S+) waits for (.*)", line))
    ]
    for (k, found), after in zip(told, [*(k for k, _ in told[1:]), end], strict=True):
        threads.append(StuckThread(found[1], found[2], *read_stack(lines[k + 1 : after])))
    head = lines[start].removeprefix("reserved_pages_lab: ") if start < len(lines) else ""
    return Evidence(trial, head, tuple(threads), lockdep_report(answer))


def read_stack(lines: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read what the kernel says of one task.

    Parameters
    ----------
    lines : iterable of str
        A call trace and the locks held, among other lines.

    Returns
    -------
    tuple of str
        Functions that are surely on the stack, the innermost first, without the scheduler's.
    tuple of str
        What lockdep says it holds, and the lock it waits for.
    """
    frames: list[str] = []
    locks: list[str] = []
    for line in lines:
        frame = re.fullmatch(r" (?:\[<\w+>\] )?([\w.]+)\+0x\w+/0x\w+", line.rstrip())
        if frame and not _BORING.fullmatch(frame[1]):
            frames.append(frame[1])
        elif re.match(r"\s*#\d+: |.* locks? held by ", line):
            locks.append(" ".join(line.split()))
    return tuple(frames), tuple(locks)
