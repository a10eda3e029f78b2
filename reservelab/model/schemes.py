"""Schemes: who may take which page, when, and where it goes back (MODEL.md section 5).

A scheme is five choices; the named ones are rows of a table and the engine knows choices only.

Vocabulary
----------
start     what is set aside before the first step
            nothing | mark (a low-water mark on the free list) | mount_pools | pool | own
entry     what a thread needs to begin a section
            nothing | half_mark (free above half the mark) | own_by_page | own_at_once |
            own_full (its standing reserve is whole) | tickets | semaphore
grants    in which order an alloc looks for its page
            free | memalloc (a free page or NULL, at which a filesystem that can backs out) |
            own | claim | mount_pool | global_pool (through its semaphore)
exit      what a thread does to end its section
            nothing | give_back | unclaim | refill | refill_flag_set (the flag was not cleared) |
            wait_full
returns   where the pages of a completed bio go first; the rest is free
            free | mount_pool | own | pool
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from reservelab.model.errors import BadInput, whole_number

Start = Literal["nothing", "mark", "mount_pools", "pool", "own"]
Entry = Literal[
    "nothing", "half_mark", "own_by_page", "own_at_once", "own_full", "tickets", "semaphore"
]
Grant = Literal["free", "memalloc", "own", "claim", "mount_pool", "global_pool"]
Exit = Literal["nothing", "give_back", "unclaim", "refill", "refill_flag_set", "wait_full"]
Returns = Literal["free", "mount_pool", "own", "pool"]


@dataclass(frozen=True)
class Scheme:
    """A reservation scheme, composed of its five choices.

    Parameters
    ----------
    start, entry, grants, exit, returns : str (grants: tuple of str)
        The choices; the module's vocabulary lists them.
    reserve : int, optional
        Pages set aside: the mark, the pool, or the pool of each mount. For a pool the largest
        nr_pages over the mounts unless given; none where nothing shared is set aside.
    max_sections : int, optional
        Enter only while fewer threads than this are inside, over all mounts.

    Raises
    ------
    BadInput
        If a choice does not exist, or the choices do not fit together.
    """

    start: Start = "nothing"
    entry: Entry = "nothing"
    grants: tuple[Grant, ...] = ("free",)
    exit: Exit = "nothing"
    returns: Returns = "free"
    reserve: int | None = None
    max_sections: int | None = None

    def __post_init__(self) -> None:
        for key, choices in (
            ("start", Start), ("entry", Entry), ("exit", Exit), ("returns", Returns)
        ):  # fmt: skip
            if getattr(self, key) not in get_args(choices):
                raise BadInput(key, f"{getattr(self, key)!r} is unknown", _one_of(choices))
        if isinstance(self.grants, str) or not self.grants:
            raise BadInput("grants", f"{self.grants!r} is not a list", _one_of(Grant))
        object.__setattr__(self, "grants", tuple(self.grants))
        for grant in self.grants:
            if grant not in get_args(Grant):
                raise BadInput("grants", f"{grant!r} is unknown", _one_of(Grant))
        if self.reserve is not None:
            object.__setattr__(self, "reserve", whole_number("reserve", self.reserve))
        if self.max_sections is not None:
            limit = whole_number("max_sections", self.max_sections, 1)
            object.__setattr__(self, "max_sections", limit)
        for broken, key, wrong, right in self._misfits():
            if broken:
                raise BadInput(key, wrong, right)

    def _misfits(self) -> list[tuple[bool, str, str, str]]:
        """What does not fit together: whether, the key, what is wrong, what would be right."""
        grants, entry = set(self.grants), self.entry
        draws_pool = "global_pool" in grants
        per_section = entry in ("own_by_page", "own_at_once")
        gates = (draws_pool, entry == "tickets")
        return [
            (len(grants) < len(self.grants), "grants", "a source is named twice", "name it once"),
            ({"free", "memalloc"} <= grants, "grants", "both free and memalloc", "name only one"),
            (not grants & {"free", "memalloc"}, "grants", "no free pages", "name free or memalloc"),
            (
                self.start in ("mark", "mount_pools") and self.reserve is None,
                "reserve", "missing", f"say how many pages start={self.start!r} sets aside",
            ),
            (
                not self.has_reserve and self.reserve is not None,
                "reserve", f"has no meaning with start={self.start!r}", "leave it out",
            ),
            (
                (self.start == "own") != (entry == "own_full"),
                "start", f"{self.start!r} with entry={entry!r}", "own and own_full go together",
            ),
            (
                ("own" in grants) != (entry in ("own_by_page", "own_at_once", "own_full")),
                "grants", f"own pages with entry={entry!r}",
                "grant own where entry takes own pages",
            ),
            (
                (self.exit == "give_back") != per_section,
                "exit", f"{self.exit!r} with entry={entry!r}",
                "give_back goes with own pages taken at entry",
            ),
            (
                (self.returns == "own") != (self.start == "own"),
                "returns", f"{self.returns!r} with start={self.start!r}",
                "own pages return to a standing reserve, and only there",
            ),
            (
                ("claim" in grants) != (entry == "tickets"),
                "grants", f"claim with entry={entry!r}", "claims and tickets go together",
            ),
            (
                (self.exit == "unclaim") != (entry == "tickets"),
                "exit", f"{self.exit!r} with entry={entry!r}", "unclaim goes with tickets",
            ),
            (
                (self.start == "pool") != any(gates),
                "start", f"{self.start!r} with grants={self.grants!r} and entry={entry!r}",
                "a pool is drawn by tickets or by the grant global_pool",
            ),
            (all(gates), "grants", "global_pool with tickets", "one pool has one discipline"),
            (
                entry == "semaphore" and not draws_pool,
                "entry", "a semaphore with no pool behind it", "grant global_pool",
            ),
            (
                draws_pool != (self.exit in ("refill", "refill_flag_set", "wait_full")),
                "exit", f"{self.exit!r} with grants={self.grants!r}",
                "the pool's owner refills or waits until it is full",
            ),
            (
                ("mount_pool" in grants) != (self.start == "mount_pools"),
                "grants", f"mount_pool with start={self.start!r}", "start with mount_pools",
            ),
            (
                self.returns == "mount_pool" and self.start != "mount_pools",
                "returns", f"mount_pool with start={self.start!r}", "start with mount_pools",
            ),
            (
                self.returns == "pool" and self.start != "pool",
                "returns", f"pool with start={self.start!r}", "start with a pool",
            ),
            (
                entry == "half_mark" and self.start != "mark",
                "entry", f"half_mark with start={self.start!r}", "start with a mark",
            ),
            # A thread that backs out abandons its section, so it must hold nothing but pages.
            (
                "memalloc" in grants and bool(grants & {"own", "claim", "global_pool"}),
                "grants", "memalloc beside pages held in trust",
                "a thread that backs out can hold no own pages, claim or semaphore",
            ),
            # A semaphore handed over would enter without looking at the limit.
            (
                entry == "semaphore" and self.max_sections is not None,
                "max_sections", "has no meaning with entry='semaphore'", "leave it out",
            ),
        ]  # fmt: skip

    @classmethod
    def named(
        cls, variant: str, reserve: int | None = None, max_sections: int | None = None
    ) -> Scheme:
        """Make the named scheme that people write as ``global on-entry`` or ``perthread``.

        Parameters
        ----------
        variant : str
            A family and words of one of its rows; words left out take the first row that fits,
            so ``global`` is ``global lazy refill-allocate``. ``max-sections=K`` is a word too.
        reserve : int, optional
            Pages set aside.
        max_sections : int, optional
            Enter only while fewer threads than this are inside.

        Returns
        -------
        Scheme
            The scheme.

        Raises
        ------
        BadInput
            If no row has these words.
        """
        words = variant.split() if isinstance(variant, str) else []
        for word in [word for word in words if word.startswith("max-sections=")]:
            words.remove(word)
            digits = word.removeprefix("max-sections=")
            if not re.fullmatch("[0-9]+", digits):
                raise BadInput("scheme", f"{word!r} has no number", "write max-sections=2")
            if max_sections is not None:
                raise BadInput("max_sections", f"given beside {word!r}", "give it once")
            max_sections = int(digits)
        for (family, row_words), row in _ROWS.items():
            if words and words[0] == family and set(words[1:]) <= set(row_words.split()):
                return cls(**row, reserve=reserve, max_sections=max_sections)  # type: ignore[arg-type]
        families = {word: family for family, word in _ROWS if word and words[:1] == [family]}
        known = sorted({w for row_words in families for w in row_words.split()})
        if known or words[:1] in ([family] for family, _ in _ROWS):
            raise BadInput("scheme", f"{variant!r} is unknown", f"{words[0]} takes {known}")
        raise BadInput("scheme", f"{variant!r} is unknown", f"one of {', '.join(variants())}")

    @classmethod
    def unsized(cls, variant: str) -> Scheme:
        """Make a named scheme whose reserve is somebody else's business: `sized` gives it one.

        Parameters
        ----------
        variant : str
            As for `named`.

        Returns
        -------
        Scheme
            With a reserve of no pages, if it can have one.

        Raises
        ------
        BadInput
            If no row has these words.
        """
        try:
            return cls.named(variant, reserve=0)
        except BadInput as error:
            if error.key != "reserve":
                raise
            return cls.named(variant)

    def sized(self, reserve: int | None) -> Scheme:
        """Give the scheme another reserve.

        Parameters
        ----------
        reserve : int or None
            Pages; None for a pool's default.

        Returns
        -------
        Scheme
            The scheme with that reserve; itself if it sets nothing shared aside.
        """
        return replace(self, reserve=reserve) if self.has_reserve else self

    @property
    def has_reserve(self) -> bool:
        """Whether the scheme sets something shared aside, whose size can be chosen."""
        return self.start in ("mark", "mount_pools", "pool")

    @property
    def family(self) -> str:
        """The named scheme this is a variant of, or ``custom``."""
        return self._row[0]

    @property
    def variant(self) -> str:
        """A display name: the named row, or the five choices; the reserve is left out."""
        family, words = self._row
        if self.max_sections is not None:
            words += f" max-sections={self.max_sections}"
        return f"{family} {words.strip()}".rstrip()

    @property
    def _row(self) -> tuple[str, str]:
        for (family, words), row in _ROWS.items():
            if all(getattr(self, key) == value for key, value in row.items()):
                return family, words
        parts = (self.start, self.entry, "+".join(self.grants), self.exit, self.returns)
        return "custom", "/".join(parts)


def _one_of(choices: object) -> str:
    return "one of " + ", ".join(get_args(choices))


def _row(
    start: Start, entry: Entry, grants: tuple[Grant, ...], exit: Exit, returns: Returns
) -> dict[str, object]:
    return {"start": start, "entry": entry, "grants": grants, "exit": exit, "returns": returns}


# MODEL.md section 5, a row for each named scheme and variant; the numbers are the scheme's own.
_ROWS: dict[tuple[str, str], dict[str, object]] = {
    ("watermark", ""): _row("mark", "nothing", ("memalloc",), "nothing", "free"),
    ("watermark", "throttle"): _row("mark", "half_mark", ("memalloc",), "nothing", "free"),
    ("mempool", ""): _row(
        "mount_pools", "nothing", ("free", "mount_pool"), "nothing", "mount_pool"
    ),
    ("perthread", ""): _row("nothing", "own_by_page", ("own", "free"), "give_back", "free"),
    ("perthread", "whole"): _row("nothing", "own_at_once", ("own", "free"), "give_back", "free"),
    ("perthread", "standing"): _row("own", "own_full", ("own", "free"), "nothing", "own"),
    ("global", "lazy refill-allocate"): _row(
        "pool", "nothing", ("free", "global_pool"), "refill", "free"
    ),
    ("global", "lazy refill-allocate flag-set"): _row(
        "pool", "nothing", ("free", "global_pool"), "refill_flag_set", "free"
    ),
    ("global", "lazy refill-completion"): _row(
        "pool", "nothing", ("free", "global_pool"), "wait_full", "pool"
    ),
    ("global", "on-entry refill-allocate"): _row(
        "pool", "semaphore", ("free", "global_pool"), "refill", "free"
    ),
    ("global", "on-entry refill-allocate flag-set"): _row(
        "pool", "semaphore", ("free", "global_pool"), "refill_flag_set", "free"
    ),
    ("global", "on-entry refill-completion"): _row(
        "pool", "semaphore", ("free", "global_pool"), "wait_full", "pool"
    ),
    ("tickets", "draw-last"): _row("pool", "tickets", ("free", "claim"), "unclaim", "pool"),
    ("tickets", "draw-first"): _row("pool", "tickets", ("claim", "free"), "unclaim", "pool"),
}


def variants() -> tuple[str, ...]:
    """Display names of all named schemes and their variants, in the order of MODEL.md section 5.

    Returns
    -------
    tuple of str
        The names; `Scheme.named` reads them.
    """
    return tuple(f"{family} {words}".rstrip() for family, words in _ROWS)


def _named(family: str, words: list[str], **numbers: int | None) -> Scheme:
    return Scheme(**_ROWS[family, " ".join(words)], **numbers)  # type: ignore[arg-type]


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadInput(key, f"{value!r} is not true or false", "give one of them")
    return value


def Watermark(  # noqa: N802
    reserve: int, throttle: bool = False, max_sections: int | None = None
) -> Scheme:
    """PF_MEMALLOC: writers inside a section may go below a watermark, down to no page at all.

    Parameters
    ----------
    reserve : int
        The watermark, in pages; outside a section a page is taken only above it.
    throttle : bool
        Enter only while more than half the watermark is free.
    max_sections : int, optional
        Enter only while fewer threads than this are inside.

    Returns
    -------
    Scheme
        The scheme.

    Source: MODEL.md section 5; Linux 2.6.9 mm/page_alloc.c; throttle: mm/vmscan.c since 3.6.
    """
    words = ["throttle"] if _flag("throttle", throttle) else []
    return _named("watermark", words, reserve=reserve, max_sections=max_sections)


def Mempool(reserve: int) -> Scheme:  # noqa: N802
    """A mempool for each mount, taken from only when no page is free.

    Parameters
    ----------
    reserve : int
        Pages in the pool of each mount.

    Returns
    -------
    Scheme
        The scheme.

    Source: MODEL.md section 5; Linux mm/mempool.c.
    """
    return _named("mempool", [], reserve=reserve)


def PerThread(whole: bool = False, standing: bool = False) -> Scheme:  # noqa: N802
    """Pages reserved by each thread before its section (reiser4-perthread-pages.patch).

    Parameters
    ----------
    whole : bool
        Take all nr_pages in one step instead of one by one.
    standing : bool
        Every thread keeps nr_pages for ever, from the start.

    Returns
    -------
    Scheme
        The scheme.

    Raises
    ------
    BadInput
        If it is both whole and standing.

    Source: MODEL.md section 5; M:1105118217.3616.171.camel@tribesman.namesys.com.
    """
    if _flag("whole", whole) and _flag("standing", standing):
        raise BadInput("standing", "together with whole", "choose one: a standing reserve is kept")
    words = ["whole"] if whole else ["standing"] if _flag("standing", standing) else []
    return _named("perthread", words)


def GlobalPool(  # noqa: N802
    reserve: int | None = None,
    on_entry: bool = False,
    refill: Literal["allocate", "completion"] = "allocate",
    clear_flag: bool = True,
) -> Scheme:
    """One global pool behind a global semaphore: the proposal of 6 November 2004.

    Parameters
    ----------
    reserve : int, optional
        Pages in the pool; the largest nr_pages over the mounts unless given.
    on_entry : bool
        Take the semaphore at entry, not only when memory is out.
    refill : str
        ``allocate``: the owner allocates what it drew before it leaves; ``completion``: drawn
        pages return to the pool with their bio, and the owner waits until it is full.
    clear_flag : bool
        Whether the owner clears its flag before it refills; if not, a refill that finds no page
        sleeps on the semaphore it owns.

    Returns
    -------
    Scheme
        The scheme.

    Raises
    ------
    BadInput
        If refill is neither, or the flag is kept where nothing is allocated at exit.

    Source: MODEL.md section 5; M:20041107011638.GJ3851@dualathlon.random.
    """
    if refill not in ("allocate", "completion"):
        raise BadInput("refill", f"{refill!r} is unknown", "one of allocate, completion")
    if not _flag("clear_flag", clear_flag) and refill == "completion":
        raise BadInput(
            "clear_flag", "false with refill='completion'", "nothing is allocated at that exit"
        )
    words = ["on-entry" if _flag("on_entry", on_entry) else "lazy", f"refill-{refill}"]
    if not clear_flag:
        words.append("flag-set")
    return _named("global", words, reserve=reserve)


def Tickets(  # noqa: N802
    reserve: int | None = None, draw: Literal["last", "first"] = "last"
) -> Scheme:
    """Reservation by accounting: a section begins when its worst case fits into a pool.

    Parameters
    ----------
    reserve : int, optional
        Pages in the pool; the largest nr_pages over the mounts unless given.
    draw : str
        ``last``: free pages first; ``first``: the claim first.

    Returns
    -------
    Scheme
        The scheme.

    Raises
    ------
    BadInput
        If draw is neither.

    Source: MODEL.md section 5; KERNEL_FACTS.md S7 (Chinner 2015).
    """
    if draw not in ("last", "first"):
        raise BadInput("draw", f"{draw!r} is unknown", "one of last, first")
    return _named("tickets", [f"draw-{draw}"], reserve=reserve)
