"""The parts every verb's parser is made of."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from reservelab.command.terminal import Bar, complain
from reservelab.model.errors import BadInput, whole_number


class _Format(argparse.RawDescriptionHelpFormatter):
    """Help of one width everywhere, so that what fits one screen in a test does."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=22, width=79)

    def _format_usage(self, *parts: Any) -> str:  # noqa: ANN401
        """Leave the blank line after it out: one more option fits the screen."""
        return f"{super()._format_usage(*parts).rstrip()}\n"


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line and prints no colour."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(allow_abbrev=False, formatter_class=_Format, **settings)
        self.color = False  # Python 3.14 colours help unless told not to

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse strangers here, where the verb is known and the options it has."""
        found, strangers = super().parse_known_args(args, namespace)
        if strangers:
            known = {name.lstrip("-"): name for name in self._option_string_actions}
            near = difflib.get_close_matches(strangers[0].lstrip("-"), known, n=1)
            right = f"did you mean {known[near[0]]}?" if near else f"see {self.prog} --help"
            self.error(f"{strangers[0]}: not understood; {right}")
        return found, []

    def error(self, message: str) -> NoReturn:
        """Say in the form `key: wrong; right` what is wrong, and exit."""
        missing = re.fullmatch("the following arguments are required: (.*)", message)
        line = f"{missing[1]}: missing" if missing else message.removeprefix("argument ")
        self.exit(complain(line if "; " in line else f"{line}; see {self.prog} --help"))


def add_verb(
    verbs: Any,  # noqa: ANN401 - argparse has no public name for it
    name: str, takes: str, does: str, example: str,
    run: Callable[[argparse.Namespace, Bar], int | None],
    undecided: int = 2,
) -> argparse._ArgumentGroup:  # fmt: skip
    """Add a verb that `run` does; it exits with `undecided` if the answer was out of reach."""
    made = verbs.add_parser(
        name,
        help=does,
        usage=f"reservelab {name} [-h] {takes} [options]",
        description=f"{does[0].upper()}{does[1:]}, for example\n  reservelab {name} {example}",
        add_help=False,
    )
    made.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    made.set_defaults(run=run, undecided=undecided)
    # A group without a title, hence without headings: so the options of a scenario fit one screen.
    group: argparse._ArgumentGroup = made.add_argument_group()
    return group


def add_number(
    verb: argparse._ActionsContainer, name: str, least: int, told: str, default: int | None = None
) -> None:
    """Add an option that takes a whole number of at least `least`."""
    told = told if default is None else f"{told} ({default})"
    verb.add_argument(name, type=_number(least), default=default, metavar="N", help=told)


def _number(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            return whole_number("", int(text), least)
        except BadInput as error:
            raise argparse.ArgumentTypeError(f"{error.wrong}; {error.right}") from None
        except ValueError:
            wrong = f"{text!r} is not a whole number; give an integer of at least {least}"
            raise argparse.ArgumentTypeError(wrong) from None

    return read


def share(text: str) -> float:
    """Read a number between 0 and 1, both excluded."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no share; give a number between 0 and 1")


def add_figure(verb: argparse._ArgumentGroup) -> None:
    """Add --figure."""
    told = "draw it as swim lanes, too: a .svg, .png or .pdf"
    verb.add_argument("--figure", type=_figure_file, metavar="FILE", help=told)


def _figure_file(text: str) -> Path:
    """Look at what a run would end with before it begins."""
    path = Path(text)
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no figure; end it in .svg, .png or .pdf")
    if not path.parent.is_dir():
        wrong = f"there is no directory {str(path.parent)!r}"
        raise argparse.ArgumentTypeError(f"{wrong}; give a file in one that is there")
    return path


def add_json(verb: argparse._ArgumentGroup) -> None:
    """Add --json."""
    verb.add_argument("--json", action="store_true", help="print one JSON document instead")
