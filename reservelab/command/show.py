"""The verbs that draw."""

from __future__ import annotations

import argparse
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


def add_verbs(verbs: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the parsers of these verbs."""
    figures = add_verb(
        verbs, "figures", "STORE", "draw a stored sweep, and what was fitted to it",
        "results/demo --output results/figures", _figures,
    )  # fmt: skip
    figures.add_argument("store", metavar="STORE", help="what `reservelab sweep --store` made")
    told = "directory for the figures and the table (STORE/figures)"
    figures.add_argument("--output", metavar="DIR", help=told)
    add_json(figures)


def _figures(options: argparse.Namespace, bar: Bar) -> None:
    needs_figures()
    from reservelab.show.figures import draw_all
    from reservelab.show.text import table
    from reservelab.study.fits import Fits
    from reservelab.study.results import Store

    store = Store(options.store)
    frame = store.frame()
    file = store.path / "fits.json"
    fits = Fits.load(file) if file.exists() else None
    if fits is None:
        line = f"{file}: not there, so no fit is drawn; `reservelab fit` makes it"
        warnings.warn(line, stacklevel=1)
    elif any(part.stat().st_mtime > file.stat().st_mtime for part in store.path.glob("part-*")):
        line = f"{file}: older than the results, but drawn; `reservelab fit` makes it anew"
        warnings.warn(line, stacklevel=1)
    output = Path(options.output or store.path / "figures")
    command = f"reservelab figures {options.store} --output {output}"
    with bar("drawing: about a second for each figure"):
        files = draw_all(frame, fits, output, command=command)
    text = table(frame)
    files.append(output / "table.txt")
    files[-1].write_text(text, encoding="ascii")
    if options.json:
        print_json({"store": options.store, "files": [str(path) for path in files]})
    else:
        print("\n".join([text, *map(str, files)]))


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
        "episode": "a shortest way" if story.seed is None else f"{story.seed}, {story.episode}",
    }
    save(swim_lanes(story), file.with_suffix(""), about, [file.suffix.removeprefix(".")])
