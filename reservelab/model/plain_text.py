"""Plain text: printable ASCII, at most 72 columns wide, as a mailing list wants it."""

from __future__ import annotations

import html
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


class Preformatted:
    """A value whose text stands in columns, so that a notebook shows it as it is."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
