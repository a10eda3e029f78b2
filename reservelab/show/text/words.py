"""Words and numbers as a line of plain text has them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from reservelab.model.interval import Interval
from reservelab.model.plain_text import WIDTH, plain, wrap
from reservelab.show.cells import digits

_HUGE = 1e9


def flow(items: Iterable[str]) -> list[str]:
    """Put items side by side, three blanks apart, none broken unless wider than a line.

    Parameters
    ----------
    items : iterable of str
        Such as the entries of a key.

    Returns
    -------
    list of str
        Lines.
    """
    lines = [""]
    for item in map(plain, items):
        if lines[-1] and len(lines[-1]) + 3 + len(item) <= WIDTH:
            lines[-1] += "   " + item
        else:
            lines += wrap(item, "  ")
    return [line.rstrip() for line in lines if line]


def key(variants: Iterable[str], letters: dict[str, str]) -> list[str]:
    """List variants with their letters.

    Parameters
    ----------
    variants : iterable of str
        Which.
    letters : dict of str to str
        What `cells.glyphs` returns.

    Returns
    -------
    list of str
        Lines.
    """
    return flow(f"{letters[variant]} {variant}" for variant in variants)


def joined(lines: Iterable[str]) -> str:
    """Make one text of lines, none with trailing blanks.

    Parameters
    ----------
    lines : iterable of str
        Without their ends.

    Returns
    -------
    str
        It ends with a line end.
    """
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _decimal(value: float, decimals: int, power: int, towards: int = 0) -> str:
    """Print value / 10**power to so many decimals; rounded down or up where `towards` says so."""
    scaled = value / 10.0**power
    decimals = min(max(decimals, 0), 15)
    step = 10.0**decimals
    # What is within a part in a million of a step is that step, not the next one.
    inner = {-1: math.floor(scaled * step + 1e-6), 1: math.ceil(scaled * step - 1e-6)}
    rounded = inner[towards] / step if towards else scaled
    return f"{rounded:.{decimals}f}" + (f"e{power}" if power else "")


def _power(value: float, decimals: int) -> int:
    """The power of ten to print with: none where five decimals and six digits do, or as few."""
    if value == 0 or not math.isfinite(value):
        return 0
    size = math.floor(math.log10(abs(value)))
    return size if (decimals > 5 and size < -3) or size > 6 else 0


def number(value: Interval) -> str:
    """Print a best value to the digits that its interval supports, at most three.

    Parameters
    ----------
    value : Interval
        Of any quantity.

    Returns
    -------
    str
        Such as "12.3"; "?" where nothing is known.
    """
    best = value.best
    if not math.isfinite(best):
        return "?"
    if best == 0:
        return "0"
    size = math.floor(math.log10(abs(float(f"{best:.2e}"))))  # of 9.999 that of 10.0
    decimals = min(digits(value), 2 - size)
    power = _power(best, decimals)
    text = _decimal(best, decimals + power, power)
    exact = value.low == value.high and "." in text and not power
    return text.rstrip("0").rstrip(".") if exact else text


def risk(value: Interval) -> tuple[str, str]:
    """Print a probability and its interval to the digits that the interval supports.

    Parameters
    ----------
    value : Interval
        Of a deadlock probability.

    Returns
    -------
    tuple of str
        The best value ("none" and "all" where no episode and every episode deadlocked) and the
        interval, rounded outwards ("< 0.0019", "> 0.9981" or "0.331..0.343").
    """
    low, best, high = value
    if not all(map(math.isfinite, value)):
        return "?", "unknown"
    if best == 0:
        if high <= 0:
            return "none", "exactly"
        decimals = 1 - math.floor(math.log10(high))
        power = _power(high, decimals)
        return "none", "< " + _decimal(high, decimals + power, power, +1)
    if best == 1:
        if low >= 1:
            return "all", "exactly"
        decimals = 1 - math.floor(math.log10(1 - low))
        return "all", "> " + _decimal(low, decimals, 0, -1)
    # Near 1 it is what is missing that needs digits: 0.9999974 and 0.9999924 are not both 1.
    near = value if best <= 0.5 else Interval(1 - high, 1 - best, 1 - low)
    decimals = min(digits(near), 5 - math.floor(math.log10(near.best)))
    power = _power(best, decimals)
    lower = _decimal(low, decimals + power, power, -1)
    upper = _decimal(high, decimals + power, power, +1)
    return _decimal(best, decimals + power, power), f"{lower}..{upper}"


def per_cent(share: float) -> str:
    """Print a share that is neither none nor all so that it looks like neither.

    Parameters
    ----------
    share : float
        In per cent.

    Returns
    -------
    str
        Such as "0", "<1", "37", ">99" or "100".
    """
    if 0 < share < 0.5:
        return "<1"
    return ">99" if 99.5 <= share < 100 else f"{share:.0f}"


def bracketed(value: Interval, places: int | None = None) -> str:
    """Print a best value with its interval behind it.

    Parameters
    ----------
    value : Interval
        Of any quantity.
    places : int, optional
        The most decimals.

    Returns
    -------
    str
        Such as "0.91 [0.85, 0.97]", ends rounded outwards; "?" where nothing is known, or too
        large to be of use.
    """
    best = value.best
    if not math.isfinite(best):
        return "?"
    if abs(best) >= _HUGE:
        return f"{best:.0e} [?, ?]"
    size = math.floor(math.log10(abs(best))) if abs(best) > 1 / _HUGE else 0
    decimals = min(digits(value), 2 - size, 9 if places is None else places)
    texts = [
        _decimal(end, decimals, 0, towards) if abs(end) < _HUGE else "?"
        for end, towards in ((value.low, -1), (best, 0), (value.high, +1))
    ]
    # Half a unit below zero is printed as zero.
    low, middle, high = (t[1:] if re.fullmatch(r"-0(\.0*)?", t) else t for t in texts)
    return f"{middle} [{low}, {high}]"
