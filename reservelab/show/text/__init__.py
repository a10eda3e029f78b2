"""Tables and figures in plain ASCII, at most 72 columns wide, for a terminal and a mailing list.

The same cells as in `figures`, under the same letters. Every function returns lines without
trailing blanks; names that are not ASCII are shown with question marks. Numbers are printed to the
digits that their interval supports, bounds rounded outwards, so that what is printed contains what
is meant. Needs nothing but the core install.

Signs of a plot
---------------
A         the best value of scheme A
|         its 95 % interval (- in bars)
A over v  no deadlock was seen; A stands at the upper end of the interval (bars: <---A)
"""

from __future__ import annotations

import pandas as pd

from reservelab.show.cells import provenance
from reservelab.show.text.plots import bars, curves, front, heat
from reservelab.show.text.tables import COLUMNS, dead, table
from reservelab.show.text.words import WIDTH, joined, number, per_cent, risk, wrap

__all__ = [
    "COLUMNS",
    "WIDTH",
    "bars",
    "curves",
    "dead",
    "front",
    "heat",
    "number",
    "per_cent",
    "report",
    "risk",
    "table",
]


def report(frame: pd.DataFrame, command: str) -> str:
    """Put the tables and plots of a sweep into one text, with where its numbers come from.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns.
    command : str
        What a person types to make it again.

    Returns
    -------
    str
        Lines of at most 72 ASCII characters.
    """
    parts = [table(frame), dead(frame), curves(frame, "threads"), curves(frame, "reserve")]
    about = [
        line
        for key, value in provenance(frame, command).items()
        for line in wrap(f"{key}: {value}", "  ")
    ]
    return "\n\n".join([*parts, joined(about)])
