"""Reservation schemes for writeback under memory pressure: simulated, solved, compared."""

import importlib
from typing import TYPE_CHECKING

from reservelab.model.catalogue import filesystems, machines, mixes, pools, stacks
from reservelab.model.errors import BadInput
from reservelab.model.filesystems import Filesystem, Step, alloc, lock, submit, unlock, wait
from reservelab.model.interval import Interval
from reservelab.model.machine import Device, Machine
from reservelab.model.mixes import Mix
from reservelab.model.scenario import RULES_VERSION, Mount, Scenario
from reservelab.model.schemes import (
    GlobalPool,
    Mempool,
    PerThread,
    Scheme,
    Tickets,
    Watermark,
    variants,
)

if TYPE_CHECKING:
    from reservelab.show.bench import Bench as Bench
    from reservelab.show.decision_panel import DecisionPanel as DecisionPanel
    from reservelab.show.sweep_panel import SweepPanel as SweepPanel
    from reservelab.show.swimlane import swim_lanes as swim_lanes
    from reservelab.show.theatre import Theatre as Theatre
    from reservelab.solve.exact import Exact, exact
    from reservelab.solve.prove import Proof, prove
    from reservelab.solve.rare import Rare, TooFewSurvivors, rare
    from reservelab.solve.simulate import Cancelled, simulate
    from reservelab.solve.tally import Tally
    from reservelab.solve.trace import Story, next_deadlock, trace
    from reservelab.study import claims
    from reservelab.study.fits import Fits, fit, smallest_reserve, throughput_lost
    from reservelab.study.grid import Grid
    from reservelab.study.repairs import repairs
    from reservelab.study.results import Store
    from reservelab.study.search import Search, search
    from reservelab.study.smallest import Smallest, smallest
    from reservelab.study.sweep import Episodes, Precision, sweep

__version__ = "0.1.0"

# The engine takes two seconds to import, most of it numba's and pandas', so that help and a wrong
# scenario should not wait for it: these names are looked up when they are first asked for.
_MODULES = {
    # Not in __all__: these need the notebook extra.
    "show.bench": ("Bench",),
    "show.decision_panel": ("DecisionPanel",),
    "show.sweep_panel": ("SweepPanel",),
    "show.swimlane": ("swim_lanes",),
    "show.theatre": ("Theatre",),
    "solve.exact": ("Exact", "exact"),
    "solve.prove": ("Proof", "prove"),
    "solve.rare": ("Rare", "TooFewSurvivors", "rare"),
    "solve.simulate": ("Cancelled", "simulate"),
    "solve.tally": ("Tally",),
    "solve.trace": ("Story", "next_deadlock", "trace"),
    "study.claims": ("claims",),
    "study.fits": ("Fits", "fit", "smallest_reserve", "throughput_lost"),
    "study.grid": ("Grid",),
    "study.repairs": ("repairs",),
    "study.results": ("Store",),
    "study.search": ("Search", "search"),
    "study.smallest": ("Smallest", "smallest"),
    "study.sweep": ("Episodes", "Precision", "sweep"),
}
_LATER = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "RULES_VERSION",
    "BadInput",
    "Cancelled",
    "Device",
    "Episodes",
    "Exact",
    "Filesystem",
    "Fits",
    "GlobalPool",
    "Grid",
    "Interval",
    "Machine",
    "Mempool",
    "Mix",
    "Mount",
    "PerThread",
    "Precision",
    "Proof",
    "Rare",
    "Scenario",
    "Scheme",
    "Search",
    "Smallest",
    "Step",
    "Store",
    "Story",
    "Tally",
    "Tickets",
    "TooFewSurvivors",
    "Watermark",
    "alloc",
    "claims",
    "exact",
    "filesystems",
    "fit",
    "lock",
    "machines",
    "mixes",
    "next_deadlock",
    "pools",
    "prove",
    "rare",
    "repairs",
    "search",
    "simulate",
    "smallest",
    "smallest_reserve",
    "stacks",
    "submit",
    "sweep",
    "throughput_lost",
    "trace",
    "unlock",
    "variants",
    "wait",
]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_LATER[name]}")
    value: object = getattr(module, name, module)  # claims is a module itself
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
