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

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from reservelab.model.plain_text import WIDTH, wrap
from reservelab.show.cells import provenance
from reservelab.show.text.lanes import swim_lanes
from reservelab.show.text.plots import bars, curves, front, heat
from reservelab.show.text.tables import COLUMNS, dead, scaling, table
from reservelab.show.text.words import joined, number, per_cent, risk

if TYPE_CHECKING:
    from reservelab.study.fits import Fits

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
    "scaling",
    "source",
    "swim_lanes",
    "table",
    "write_all",
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
    return "\n\n".join([*parts, source(provenance(frame, command))])


def source(about: dict[str, str]) -> str:
    """Say where the numbers of a text come from.

    Parameters
    ----------
    about : dict of str to str
        What `cells.provenance` returns.

    Returns
    -------
    str
        A paragraph for each key.
    """
    lines = [line for name, value in about.items() for line in wrap(f"{name}: {value}", "  ")]
    return joined(lines)


def write_all(
    frame: pd.DataFrame, fits: Fits | None, directory: str | Path, about: dict[str, str]
) -> list[Path]:
    """Write every table and figure into a directory, each with its provenance below it.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns.
    fits : Fits, optional
        What `fit` makes of it; without it the table of the fits is left out.
    directory : str or Path
        Where to; it is made if it is not there, and files of the same names are replaced.
    about : dict of str to str
        What `cells.provenance` returns.

    Returns
    -------
    list of Path
        The files, in the order they were written.
    """
    texts = {
        "table": table(frame),
        "dead": dead(frame),
        "risk_against_threads": curves(frame, "threads"),
        "risk_against_reserve": curves(frame, "reserve"),
        "risk_map": heat(frame),
        "idle_map": heat(frame, quantity="idle_mean"),
        "front": front(frame),
    }
    if fits is not None and not fits.frame().empty:
        texts["scaling"] = scaling(fits.frame())
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in texts.items():
        written.append(directory / f"{name}.txt")
        written[-1].write_text(f"{text}\n{source(about)}", encoding="ascii")
    return written
