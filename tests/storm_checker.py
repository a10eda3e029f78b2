"""Storm, a model checker that knows nothing of this package, solving what `prism` exports.

stormpy is no requirement of the project: its wheel is large, there is none for many systems, and
its licence is the GPL, version 3. `make storm` installs tests/storm.lock beside the project, in
.venv-storm, from where it is imported here; `make verify` and `make bench` do so first.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

MISSING = "stormpy is not installed (make storm), so nothing is compared with Storm"
DEADLOCK = 'P=? [ F "deadlock" & !"completed" ]'


def reward(name: str) -> str:
    """The property that integrates a reward from the start to the end of an episode."""
    return f'R{{"{name}"}}=? [ F "deadlock" ]'


@dataclass(frozen=True)
class Checked:
    """What Storm found, and how long each of its stages took."""

    values: tuple[float, ...]
    states: int
    transitions: int
    parse_seconds: float
    build_seconds: float
    solve_seconds: float

    @property
    def seconds(self) -> float:
        return self.parse_seconds + self.build_seconds + self.solve_seconds


def available() -> bool:
    beside = Path(__file__).parents[1] / ".venv-storm"
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = str(beside / "lib" / python / "site-packages")
    if packages not in sys.path:
        sys.path.append(packages)  # last, so that what both environments have is the project's
    return importlib.util.find_spec("stormpy") is not None


def describe(solver: str) -> str:
    """Storm's version, engine, solver and precision, for the head of a table."""
    stormpy = _stormpy()
    return (
        f"Storm {stormpy.info.storm_version()} (stormpy {version('stormpy')}), sparse engine,\n"
        f"{solver} solver: direct, in double precision"
    )


def check(
    model: str, properties: Sequence[str] = (DEADLOCK,), solver: str = "elimination",
    bounds: bool = False,
) -> Checked:  # fmt: skip
    """Build a model from its text and solve for every property.

    The solvers are direct, for an iteration's precision is not that of its result: ``acyclic``
    substitutes, where no state can be reached twice, and ``elimination`` takes any chain. With
    `bounds` a variable that leaves its range is an error, which Storm does not look for otherwise.
    """
    stormpy = _stormpy()
    environment = stormpy.Environment()
    kind = stormpy.environments.EquationSolverType[solver.upper()]
    environment.solver().set_linear_equation_solver_type(kind)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.prism"
        path.write_text(model, encoding="ascii")
        begin = time.perf_counter()
        # PRISM writes [] where Storm's own dialect writes <> in a continuous-time chain.
        program = stormpy.parse_prism_program(str(path), prism_compatibility=True)
    asked = stormpy.parse_properties("; ".join(properties), program)
    parsed = time.perf_counter()
    options = stormpy.BuilderOptions(asked)
    if bounds:
        options.set_exploration_checks()
    chain = stormpy.build_model(program, options=options)
    built = time.perf_counter()
    results = [stormpy.model_checking(chain, p, environment=environment) for p in asked]
    solved = time.perf_counter()
    (start,) = chain.initial_states
    return Checked(
        values=tuple(float(str(result.get_value(start))) for result in results),
        states=chain.nr_states,
        transitions=chain.nr_transitions,
        parse_seconds=parsed - begin,
        build_seconds=built - parsed,
        solve_seconds=solved - built,
    )


def _stormpy() -> Any:  # noqa: ANN401
    if not available():
        raise RuntimeError(MISSING)
    stormpy = importlib.import_module("stormpy")
    for part in ("environments", "info"):
        importlib.import_module(f"stormpy.{part}")
    developer = importlib.import_module("stormpy.developer")
    developer.set_log_level(developer.LogLevel.ERR)  # it warns of PRISM's own notation
    return stormpy
