"""The verbs that draw."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reservelab.command.parser import add_json, add_verb
from reservelab.command.terminal import Bar, print_json
from reservelab.model.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

    from reservelab.study.results import Store


def add_verbs(verbs: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the parsers of these verbs."""
    figures = add_verb(
        verbs, "figures", "STORE", "draw a stored sweep, and what was fitted to it",
        "results/demo --output results/figures", _figures,
    )  # fmt: skip
    figures.add_argument("store", metavar="STORE", help="what `reservelab sweep --store` made")
    told = "directory for the figures and the table (STORE/figures)"
    figures.add_argument("--output", metavar="DIR", help=told)
    told = "paper: PDF; web: SVG and PNG (the default); list: plain text"
    media = ("paper", "web", "list")
    figures.add_argument("--for", dest="medium", choices=media, default="web", help=told)
    add_json(figures)


def _figures(options: argparse.Namespace, bar: Bar) -> None:
    from reservelab.show.cells import provenance
    from reservelab.show.text import source, table, write_all
    from reservelab.study.results import Store

    store = Store(options.store)
    frame = store.frame()
    output = Path(options.output or store.path / "figures")
    command = f"reservelab figures {options.store} --for {options.medium} --output {output}"
    grid = f"{store.spec['name']}, SHA-256 {store.spec['digest']}"
    text = table(frame)
    about = provenance(frame, command, grid)
    if options.medium == "list":
        files = write_all(frame, output, about)
    else:
        files = _drawn(store, frame, options.medium, output, bar, command=command, grid=grid)
        files.append(output / "table.txt")
        files[-1].write_text(f"{text}\n{source(about)}", encoding="ascii")
    if options.json:
        print_json({"store": options.store, "files": [str(path) for path in files]})
    else:
        print("\n".join([text, *map(str, files)]))


def _drawn(
    store: Store, frame: pd.DataFrame, medium: str, output: Path, bar: Bar, **about: str
) -> list[Path]:
    """Draw with seaborn what its extra is needed for."""
    from reservelab.study.fits import Fits

    try:
        from reservelab.show.figures import MEDIA, draw_all
    except ModuleNotFoundError as error:
        right = "install its extra, reservelab[figures]; --for list needs none"
        raise BadInput("figures", f"{error.name} is not installed", right) from None
    file = store.path / "fits.json"
    fits = Fits.load(file) if file.exists() else None
    if fits is None:
        line = f"{file}: not there, so no fit is drawn; `reservelab fit` makes it"
        warnings.warn(line, stacklevel=1)
    elif any(part.stat().st_mtime > file.stat().st_mtime for part in store.path.glob("part-*")):
        line = f"{file}: older than the results, but drawn; `reservelab fit` makes it anew"
        warnings.warn(line, stacklevel=1)
    with bar("drawing: about a second for each figure"):
        return draw_all(frame, fits, output, formats=MEDIA[medium], **about)
