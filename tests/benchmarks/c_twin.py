"""Compile and run plain_pool.c, the scalar C program that the engine is held against."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import astuple, dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("plain_pool.c")
FLAGS = ("-O3", "-march=native")


@dataclass(frozen=True)
class PlainPool:
    """Flushers of `alloc(n), submit` under Watermark(reserve) on one device, the issue's numbers.

    The fields stand in the order of the C program's arguments.
    """

    threads: int = 16
    pages: int = 40
    alloc: int = 4
    quota: int = 100
    reserve: int = 40
    rate: float = 0.5
    depth: int = 16


def compiler() -> str | None:
    """Name of a C compiler on the PATH."""
    return next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), None)


def describe() -> str | None:
    """The compiler's own first line about itself."""
    name = compiler()
    if name is None:
        return None
    text = subprocess.run([name, "--version"], check=True, capture_output=True, timeout=60).stdout
    return text.decode("ascii", "replace").splitlines()[0]


def build(directory: Path, *, doubles: bool = False) -> Path:
    """Compile the C program into a directory; rates in double if asked, else in integers."""
    name = compiler()
    if name is None:
        raise FileNotFoundError("no C compiler: gcc, clang or cc")
    program = directory / ("plain_pool_doubles" if doubles else "plain_pool")
    define = ["-DDOUBLES"] if doubles else []
    command = [name, *FLAGS, *define, "-o", str(program), str(SOURCE), "-lm"]
    subprocess.run(command, check=True, timeout=60)
    return program


def run(program: Path, pool: PlainPool, episodes: int, seed: int) -> dict[str, float]:
    """Run a compiled program; its line of JSON."""
    numbers = [str(number) for number in (*astuple(pool), episodes, seed)]
    done = subprocess.run([program, *numbers], check=True, capture_output=True, timeout=600)
    sums: dict[str, float] = json.loads(done.stdout)
    return sums
