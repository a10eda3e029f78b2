"""Plain text: printable ASCII, at most 72 columns wide, as a mailing list wants it."""

from __future__ import annotations

import textwrap

WIDTH = 72


def plain(text: object) -> str:
    """Show what is not printable ASCII with question marks.

    Parameters
    ----------
    text : object
        A name that somebody gave.

    Returns
    -------
    str
        As long as its text.
    """
    return "".join(c if " " <= c <= "~" else "?" for c in str(text))


def wrap(text: str, indent: str = "", width: int = WIDTH) -> list[str]:
    """Break a text into lines.

    Parameters
    ----------
    text : str
        One paragraph; blanks before its first word stay.
    indent : str
        Before all lines but the first.
    width : int
        The most columns of a line.

    Returns
    -------
    list of str
        Its lines.
    """
    return textwrap.wrap(plain(text), width, subsequent_indent=indent, break_on_hyphens=False)
