"""One step toward reality: ext4 in the patched kernel, out of memory for good reasons.

Here nothing is simulated but the hog. Writeback of ext4 and the pageout of kswapd are marked as the
mail of 2004 wants it; a few tasks have dirtied files, nearly all other memory is taken away, direct
reclaim is on, and the tasks call fsync() together. The disk is an image, or an image in a file on
that image, behind a loop device. Which way of reserving gets them all through, and which hangs?

This is a look at one workload on one machine of one processor, not a measurement of the schemes:
a boot depends on the host's clock and need not repeat. So there are several of each kind, and
what is kept is what was seen.

Vocabulary
----------
marks   what the marks do, as the kernel's parameter ``reserved_pages=`` names it (`MARKS`)
disk    ``plain``: an image; ``loop``: an image in a file on it, both ext4 with blocks of 4 KiB;
        ``loop_1k``: the same with blocks of 1 KiB
hog     ``once``: memory is taken before the fsync(); ``again``: and at every tick
look    the kernel's own account of who waits for what, ten and thirty seconds after the start
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reservelab.kernel.evidence import StuckThread, read_stack
from reservelab.kernel.guest import Kernel, find_report, lockdep_words, process
from reservelab.model.catalogue import data_folder
from reservelab.model.errors import BadInput
from reservelab.model.plain_text import wrap

if TYPE_CHECKING:
    import pandas as pd

MARKS = {
    "stock": "do nothing: Linux as it is",
    "stock_less": "do nothing, with as many pages fewer as the others have in the pool",
    "memalloc": "PF_MEMALLOC: past the watermarks, no reclaim",
    "late": "the proposal: a pool, its semaphore taken when nothing else is left",
    "on_entry": "the same pool, its semaphore taken at every mark",
    "on_entry_ext4": "the same, kswapd's mark left out",
    "by_page": "pages of the task's own, got one by one at the mark",
    "at_once": "pages of the task's own, got all or none at the mark",
}
DISKS = {"plain": 4096, "loop": 4096, "loop_1k": 1024}  # with the size of their blocks
HOGS = {"once": 1, "again": 2}
ENDINGS = ("done", "failed", "hung", "slow", "panic", "silent")

# What a section declares, what the hog leaves above the lowest watermark (the pool included), that
# watermark, and what is dirtied: 2,000 of the guest's 10,000 pages.
SECTION_PAGES = 64
LEAVE = 80
MIN_FREE_KBYTES = 256
TASKS = 4
TASK_PAGES = 500

_RECORDED = ("exhaust", "exhaust_1k")  # tables and tellings in data/kernel

PATIENCE = 120.0  # seconds after which a guest that has not ended is ended
_POLL = 0.1
_MEGABYTE = 1 << 20

# What a task waits for, by the first of these functions that is anywhere on its stack.
_OURS = {
    "pool_sem_down": "semaphore",
    "enable_reserved_pages_pool": "own pages",
    "disable_reserved_pages_pool": "refill",
}
# Else by the innermost of these.
_WAITS = {
    "mempool_alloc": "mempool",
    "alloc_pages": "memory",
    "__alloc_pages": "memory",
    "__folio_lock": "page lock",
    "folio_wait_writeback": "writeback",
    "blk_mq_get_tag": "device",
    "rwsem_down_read_slowpath": "lock",
    "rwsem_down_write_slowpath": "lock",
    "__mutex_lock": "lock",
    "start_this_handle": "journal",
    "jbd2_log_wait_commit": "journal",
    "jbd2_journal_wait_updates": "journal",
    "wait_on_buffer": "buffer",
    "__wait_on_buffer": "buffer",
}


@dataclass(frozen=True)
class Cell:
    """One kind of boot.

    Parameters
    ----------
    marks, disk, hog : str
        Of `MARKS`, `DISKS` and `HOGS`.
    """

    marks: str
    disk: str
    hog: str


@dataclass(frozen=True)
class Outcome:
    """What one boot showed.

    Parameters
    ----------
    cell : Cell
        Its kind.
    ending : str
        ``done``; ``failed``: an fsync() returned an error; ``hung``: between two looks, twenty
        seconds apart, no page was written, no section of anybody but kswapd ended, and none got a
        page out of a reserve; ``slow``: one of these; ``panic``; or ``silent``: the guest ended, or
        was ended, without any of these.
    milliseconds : float
        Until the last fsync() had returned; nan unless done.
    counts : dict of str to int
        What the kernel counted: some of `COUNTS`.
    lockdep : str
        Its report; empty if it was silent.
    stuck : tuple of StuckThread
        Those who waited or ran in vain at the second look.
    """

    cell: Cell
    ending: str
    milliseconds: float
    counts: dict[str, int]
    lockdep: str = ""
    stuck: tuple[StuckThread, ...] = ()

    @property
    def owner_waits(self) -> str:
        """What the owner of the pool's semaphore waits for; empty if nobody stuck owns it."""
        pid = f"/{self.counts.get('owner', 0)}"
        return next((thread.waits for thread in self.stuck if thread.name.endswith(pid)), "")

    def row(self) -> dict[str, object]:
        """The outcome as a row of a table.

        Returns
        -------
        dict
            Of words and numbers.
        """
        waits = Counter(thread.waits for thread in self.stuck)
        return {
            "marks": self.cell.marks,
            "disk": self.cell.disk,
            "hog": self.cell.hog,
            "ending": self.ending,
            "milliseconds": self.milliseconds,
            **{name: self.counts.get(name) for name in COUNTS},
            **lockdep_words(self.lockdep),
            "owner_waits": self.owner_waits,
            "stuck": ", ".join(f"{n} {what}" for what, n in sorted(waits.items())),
        }


# Name, and where the kernel says it (show_mem() in patch 4; the last word counts).
_COUNTED = {
    "sections": r"reserved_pages: (\d+) sections ended",
    "by_kswapd": r"sections ended, and (\d+) of kswapd",
    "asked_most": r"reserved_pages: at most (\d+) asked for in one",
    "drawn": r"reserved_pages: (\d+) drawn",
    "drawn_most": r"drawn, at most (\d+) in one",
    "in_vain": r"(\d+) asked for in vain",
    "takes": r"semaphore taken (\d+) times",
    "sleeps": r"slept on (\d+) times",
    "pool": r"reserved_pages: pool (\d+) of",
    "owner": r"reserved_pages: pool \d+ of \d+, owner (\d+)",
    "free": r" free:(\d+) ",
    "dirty": r" dirty:(\d+) ",
    "writeback": r" writeback:(\d+)$",
}
COUNTS = (*_COUNTED, "written", "oom_kills")


def cells(words: Iterable[str] = ()) -> tuple[Cell, ...]:
    """All kinds of boots, or some.

    Parameters
    ----------
    words : iterable of str
        Marks, disks and hogs; a kind of word of which none is named is not restricted.

    Returns
    -------
    tuple of Cell
        In the order of the vocabulary.

    Raises
    ------
    BadInput
        If a word is none of them.
    """
    words = tuple(words)
    kinds: list[list[str]] = [list(MARKS), list(DISKS), list(HOGS)]
    known = {word for kind in kinds for word in kind}
    for word in words:
        if word not in known:
            raise BadInput("--only", f"{word!r} is not known", f"use {', '.join(sorted(known))}")
    chosen = [[word for word in kind if word in words] or kind for kind in kinds]
    return tuple(
        Cell(marks, disk, hog) for marks in chosen[0] for disk in chosen[1] for hog in chosen[2]
    )


def make_disk(room: Path, block: int) -> Path:
    """Make an image with ext4 on it, and in it a file that is such an image.

    Parameters
    ----------
    room : Path
        A directory.
    block : int
        Size of a block, in bytes.

    Returns
    -------
    Path
        The image, sparse.

    Raises
    ------
    BadInput
        If e2fsprogs is not installed, or fails.
    """
    # Not everybody has the directories of system programs in the path.
    mke2fs = shutil.which("mke2fs") or shutil.which("mke2fs", path="/usr/sbin:/sbin")
    if mke2fs is None:
        raise BadInput("kernel", "not installed: e2fsprogs", "docs/kernel.md lists all")
    inside, disk = room / f"inside-{block}", room / f"disk-{block}"
    inside.mkdir()
    words = [mke2fs, "-q", "-t", "ext4", "-b", str(block), "-E", "lazy_itable_init=0"]
    for path, megabytes, more in (
        (inside / "image", 64, []), (disk, 160, ["-d", str(inside)])
    ):  # fmt: skip
        with open(path, "wb") as file:
            file.truncate(megabytes * _MEGABYTE)
        _run([*words, *more, str(path)])
    return disk


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        wrong = f"{Path(words[0]).name} failed: {done.stderr.strip()}"
        raise BadInput("kernel", wrong, "is there room in the temporary directory?")


def boot(kernel: Kernel, cell: Cell, disk: Path, stop: threading.Event) -> Outcome:
    """Boot once, and see.

    Parameters
    ----------
    kernel : Kernel
        What to boot.
    cell : Cell
        How.
    disk : Path
        Of `make_disk`; it is copied.
    stop : threading.Event
        Ends the guest.

    Returns
    -------
    Outcome
        What was seen.
    """
    with tempfile.TemporaryDirectory(prefix="reservelab-", ignore_cleanup_errors=True) as name:
        room = Path(name)
        copy = room / "disk"
        _run(["cp", "--sparse=always", str(disk), str(copy)])
        less = cell.marks == "stock_less"
        words = [
            f"ubd0={copy}", "lockdep", f"reserved_pages={'stock' if less else cell.marks}",
            f"ext4.reserved_pages={SECTION_PAGES}", f"leave={LEAVE - SECTION_PAGES * less}",
            f"disk={'plain' if cell.disk == 'plain' else 'loop'}", f"hog={HOGS[cell.hog]}",
            f"tasks={TASKS}", f"pages={TASK_PAGES}", f"min_free_kbytes={MIN_FREE_KBYTES}",
        ]  # fmt: skip
        path = room / "console"
        with open(path, "wb") as console, process(kernel, words, room, console) as guest:
            begun = time.monotonic()
            while guest.poll() is None and time.monotonic() - begun < PATIENCE:
                if stop.wait(_POLL):
                    break
        return read_outcome(cell, path.read_bytes().decode("utf-8", errors="replace"))


def read_outcome(cell: Cell, console: str) -> Outcome:
    """Read what a guest said.

    Parameters
    ----------
    cell : Cell
        How it was booted.
    console : str
        All it said; it may end anywhere.

    Returns
    -------
    Outcome
        What was seen.
    """
    console = console.replace("\0", "").replace("\r", "")
    counts = _counts(console) | {"oom_kills": console.count("Out of memory: Killed process")}
    looks = re.findall(
        r"reserved_pages_hog: look \d, (\d+) pages written\n(.*?)reserved_pages_hog: end of look",
        console, re.S,
    )  # fmt: skip
    if looks:
        counts["written"] = int(looks[-1][0])
    stuck = _stuck(looks[-1][1]) if looks else ()
    report = find_report(console)
    ends = re.findall(r"^exhaust: task \d+ (.+) after [\d.]+ ms$", console, re.M)
    done = re.search(r"^exhaust: all done after ([\d.]+) ms$", console, re.M)
    ending = "silent"
    if done and set(ends) == {"done"}:
        return Outcome(cell, "done", float(done[1]), counts, report)
    if set(ends) - {"done"}:
        ending = "failed"
    elif "Kernel panic" in console:
        ending = "panic"
    elif len(looks) == 2:
        (before, first), (after, second) = looks
        moved = before != after or any(
            _counts(first).get(name) != _counts(second).get(name)
            for name in ("sections", "drawn", "takes")
        )
        ending = "hung" if stuck and not moved else "slow"
    return Outcome(cell, ending, float("nan"), counts, report, stuck)


def _counts(text: str) -> dict[str, int]:
    """The last of each count in a text."""
    found = {name: re.findall(pattern, text, re.M) for name, pattern in _COUNTED.items()}
    return {name: int(numbers[-1]) for name, numbers in found.items() if numbers}


def _stuck(look: str) -> tuple[StuckThread, ...]:
    """The tasks of a look, but the hog."""
    threads = []
    for part in re.split(r"^task:", look, flags=re.M)[1:]:
        lines = part.splitlines()
        head = re.match(r"(\S+) .*?\bpid:(\d+)", lines[0])
        if head is None:
            continue
        work = re.search(r"^Workqueue: \S+ (\w+)(?: \((.+)\))?$", part, re.M)
        name = f"{work[2] or work[1]}, {head[1]}" if work else head[1]
        frames, locks = read_stack(lines)
        named = [_OURS[function] for function in _OURS if function in frames]
        named += [_WAITS[frame] for frame in frames if frame in _WAITS]
        threads.append(StuckThread(f"{name}/{head[2]}", [*named, "other"][0], frames, locks))
    return tuple(threads)


def run(
    kernel: Kernel,
    kinds: Iterable[Cell],
    boots: int,
    jobs: int,
    heard: Callable[[Outcome], None],
) -> None:
    """Boot each kind several times.

    Parameters
    ----------
    kernel : Kernel
        What to boot.
    kinds : iterable of Cell
        How.
    boots : int
        How often each.
    jobs : int
        Guests at a time.
    heard : callable
        Told each outcome as it comes, from this thread.

    Raises
    ------
    BadInput
        If there is no disk to be had.
    """
    stop = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="reservelab-") as room,
        ThreadPoolExecutor(jobs) as pool,
    ):
        kinds = tuple(kinds)
        blocks = {DISKS[cell.disk] for cell in kinds}
        disks = {block: make_disk(Path(room), block) for block in blocks}
        # One of each after the other, so that the host's moods fall on all.
        asked = [cell for _ in range(boots) for cell in kinds]
        waiting = [pool.submit(boot, kernel, cell, disks[DISKS[cell.disk]], stop) for cell in asked]
        try:
            for future in as_completed(waiting):
                heard(future.result())
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def recorded() -> pd.DataFrame:
    """The committed boots.

    Returns
    -------
    pandas.DataFrame
        data/kernel/exhaust.csv and exhaust_1k.csv: rows of `Outcome.row`, with the kernel's version
        and digest.
    """
    import pandas as pd

    tables = []
    for name in _RECORDED:
        with (data_folder() / "kernel" / f"{name}.csv").open("r") as file:
            tables.append(pd.read_csv(file))
    return pd.concat(tables, ignore_index=True)


def recorded_hang(marks: str, disk: str) -> str:
    """One of the committed boots that hung, as `tell` told it.

    Parameters
    ----------
    marks, disk : str
        Which; data/kernel/exhaust.txt and exhaust_1k.txt have one of each that has hung.

    Returns
    -------
    str
        Tasks, stacks and locks.

    Raises
    ------
    KeyError
        If none of that kind is there.
    """
    room = data_folder() / "kernel"
    texts = [(room / f"{name}.txt").read_text(encoding="ascii") for name in _RECORDED]
    parts = [part.rstrip() for text in texts for part in text.split("\n\n\n")]
    return {tuple(part.split(", ")[:2]): part for part in parts}[marks, disk]


def table(frame: pd.DataFrame) -> str:
    """The outcomes in 72 columns, a line for each kind.

    Parameters
    ----------
    frame : pandas.DataFrame
        Rows of `Outcome.row`.

    Returns
    -------
    str
        How the boots ended; the median of the milliseconds of those that got through; in how many
        a page was drawn from a reserve; in how many lockdep reported something.
    """
    lines = [f"{'marks':13} {'disk':7} {'hog':5} {'ms':>5} {'drew':>4} {'lockdep':>7} boots"]
    for (marks, disk, hog), part in frame.groupby(["marks", "disk", "hog"], sort=False):
        count = part["ending"].value_counts()
        ended = ", ".join(f"{count[x]} {x}" for x in ENDINGS if x in count)
        middle = "-" if part["milliseconds"].isna().all() else round(part["milliseconds"].median())
        line = (
            f"{marks:13} {disk:7} {hog:5} {middle:>5} {(part['drawn'] > 0).sum():4}"
            f" {(part['lockdep'] != 'silent').sum():7} {ended}"
        )
        lines += wrap(line, indent=" " * lines[0].index("boots"))
    return "\n".join(lines)


def tell(outcome: Outcome) -> str:
    """One boot that did not get through, by the kernel's own words.

    Parameters
    ----------
    outcome : Outcome
        With those who were stuck.

    Returns
    -------
    str
        Each task with what it waits for, its stack and its locks; lines may be long.
    """
    cell, counts = outcome.cell, outcome.counts
    head = (
        f"{cell.marks}, {cell.disk}, {cell.hog}: {outcome.ending};"
        f" {counts.get('written')} pages written, {counts.get('free')} free,"
        f" {counts.get('pool')} in the pool, whose semaphore's owner is {counts.get('owner')}"
    )
    return "\n\n".join([head, *map(str, outcome.stuck)])
