"""The command line: reads what was asked for, calls the package, prints what it returns.

Results go to standard output, everything else to standard error; a progress bar is drawn only
where that is a terminal. Exit codes: 0; 1 from prove if the scenario is unsafe; 2 for bad input,
with one line that says which key is wrong; 3 from prove and rare if the answer is out of reach; 130
after Ctrl-C. The verbs are in reservelab/command.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Sequence

from reservelab.command import kernel, mail, show, solve, study
from reservelab.command.parser import Parser
from reservelab.command.terminal import Bar, Warnings, complain, tell
from reservelab.model.errors import BadInput
from reservelab.model.scenario import RULES_VERSION

# The engine takes seconds to import: each verb imports what it needs, so that help and bad input
# are answered at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after the program's name; those of this process unless given.

    Returns
    -------
    int
        The exit code.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        try:
            return _run(words)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at the end, and would say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader has had enough, which is no error
            return 0
        return complain(f"output: {error.strerror or error}; give a place that can be written to")


def _run(words: Sequence[str]) -> int:
    options = argparse.Namespace()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = held = Warnings(warnings.showwarning)
        try:
            parser().parse_args(words, options)
            code: int | None = options.run(options, Bar(held))
        except BadInput as error:
            complain(f"{_as_typed(error.key, options)}: {error.wrong}; {error.right}")
            return options.undecided if error.undecided else 2
        except OSError as error:
            if error.filename is None:  # it is about what is printed
                raise
            return complain(f"{error.filename}: {error.strerror}; give one that can be used")
        except MemoryError:
            return complain("memory: there is not enough; give fewer threads, mounts or pages")
        except KeyboardInterrupt as stop:
            held.release()
            kept = stop.args[0] if stop.args else "nothing was kept"
            tell(f"reservelab: interrupted; {kept}")
            return 130
        held.release()
    return code or 0


def _as_typed(key: str, options: argparse.Namespace) -> str:
    """The option that a key of a scenario came from, where it came from one."""
    mount = re.match(r"mounts(?:\[(\d+)\])?", key)
    typed = getattr(options, "mount", None)
    if mount and typed:
        return f"--mount {typed[int(mount[1])]}" if mount[1] else "--mount"
    name = key.rpartition(".")[2]
    given = name not in ("scenario", "mount", "store") and getattr(options, name, None) is not None
    return f"--{name.replace('_', '-')}" if given else key


class _Version(argparse.Action):
    """Prints the versions; the package is asked only when somebody wants to know."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from reservelab import __version__

        print(f"reservelab {__version__}, rules {RULES_VERSION}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line.

    Returns
    -------
    ArgumentParser
        With a subparser for each verb, whose default `run` does its work.
    """
    top = Parser(
        prog="reservelab",
        usage="reservelab [-h] [--version] VERB ...",
        description="Reservation schemes for writeback under memory pressure: simulated, solved,\n"
        "compared. `reservelab VERB --help` explains a verb.",
        add_help=False,
    )
    # A group without a title, hence without a heading: more verbs fit one screen.
    group = top.add_argument_group()
    group.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    told = "print the versions of package and rules"
    group.add_argument("--version", action=_Version, nargs=0, help=told)
    verbs = top.add_subparsers(title="verbs", metavar="VERB", prog=top.prog, required=True)
    for room in (solve, study, kernel, show, mail):
        room.add_verbs(verbs)
    return top


if __name__ == "__main__":
    sys.exit(main())
