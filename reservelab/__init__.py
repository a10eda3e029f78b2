"""Reservation schemes for writeback under memory pressure: simulated, solved, compared."""

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
from reservelab.solve.simulate import Cancelled, simulate
from reservelab.solve.tally import Tally

__version__ = "0.1.0"

__all__ = [
    "RULES_VERSION",
    "BadInput",
    "Cancelled",
    "Device",
    "Filesystem",
    "GlobalPool",
    "Interval",
    "Machine",
    "Mempool",
    "Mix",
    "Mount",
    "PerThread",
    "Scenario",
    "Scheme",
    "Step",
    "Tally",
    "Tickets",
    "Watermark",
    "alloc",
    "filesystems",
    "lock",
    "machines",
    "mixes",
    "pools",
    "simulate",
    "stacks",
    "submit",
    "unlock",
    "variants",
    "wait",
]
