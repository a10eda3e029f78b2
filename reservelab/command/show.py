"""The verbs that draw, and the one that opens the notebooks."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reservelab.command.parser import add_json, add_verb
from reservelab.command.terminal import Bar, print_json
from reservelab.model.errors import BadInput
from reservelab.model.scenario import RULES_VERSION

if TYPE_CHECKING:
    from reservelab.solve.trace import Story
    from reservelab.study.fits import Fits
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

    lab = add_verb(
        verbs, "lab", "[DIR]", "open the notebooks in JupyterLab",
        "notebooks --no-browser", _lab,
    )  # fmt: skip
    told = "where they are (notebooks, as in a checkout)"
    lab.add_argument("notebooks", nargs="?", default="notebooks", metavar="DIR", help=told)
    told = "print an address to open instead of opening it"
    lab.add_argument("--no-browser", action="store_true", help=told)


def _figures(options: argparse.Namespace, bar: Bar) -> None:
    if options.medium != "list":
        needs_figures()
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
    fits = _fits(store)
    if options.medium == "list":
        files = write_all(frame, fits, output, about)
    else:
        from reservelab.show.figures import MEDIA, draw_all

        formats = MEDIA[options.medium]
        with bar("drawing: about a second for each figure"):
            files = draw_all(frame, fits, output, formats=formats, command=command, grid=grid)
        files.append(output / "table.txt")
        files[-1].write_text(f"{text}\n{source(about)}", encoding="ascii")
    if options.json:
        print_json({"store": options.store, "files": [str(path) for path in files]})
    else:
        print("\n".join([text, *map(str, files)]))


def _fits(store: Store) -> Fits | None:
    """The fits of a store, with a warning if there are none or old ones."""
    from reservelab.study.fits import Fits

    file = store.path / "fits.json"
    if not file.exists():
        line = f"{file}: not there, so no fit is drawn; `reservelab fit` makes it"
        warnings.warn(line, stacklevel=1)
        return None
    if any(part.stat().st_mtime > file.stat().st_mtime for part in store.path.glob("part-*")):
        line = f"{file}: older than the results, but drawn; `reservelab fit` makes it anew"
        warnings.warn(line, stacklevel=1)
    return Fits.load(file)


def _lab(options: argparse.Namespace, bar: Bar) -> None:  # noqa: ARG001 - Lab shows its own progress
    if importlib.util.find_spec("jupyterlab") is None:
        right = "install reservelab with its extra: reservelab[notebook]"
        raise BadInput("lab", "JupyterLab is not installed", right)
    folder = Path(options.notebooks)
    if not folder.is_dir():
        raise BadInput("DIR", f"there is no directory {str(folder)!r}", "give where notebooks are")
    words = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}"]
    # In place of this process, so that Ctrl-C and signals go to Lab alone.
    os.execv(sys.executable, words + ["--no-browser"] * options.no_browser)


def needs_figures() -> None:
    """Refuse, before anything runs, what cannot be drawn here."""
    try:
        import matplotlib  # noqa: F401 - asked for, not used
        import seaborn  # noqa: F401
    except ModuleNotFoundError as error:
        right = "install reservelab with its extra: reservelab[figures]"
        raise BadInput("figures", f"{error.name} is not installed", right) from None


def draw_story(story: Story, file: Path) -> None:
    """Draw a story as swim lanes into a file."""
    from reservelab.show.figures import save
    from reservelab.show.swimlane import swim_lanes

    about = {
        "scenario": story.scenario.digest,
        "rules": str(RULES_VERSION),
        "package": f"reservelab {metadata.version('reservelab')}",
        "episode": "a shortest path" if story.seed is None else f"{story.seed}, {story.episode}",
    }
    save(swim_lanes(story), file.with_suffix(""), about, [file.suffix.removeprefix(".")])
