"""The solved scenarios, and what they are as scenarios of the package.

tests/cases/exact.json: 124 scenarios solved by others (MODEL.md section 9); tests/cases/own.json:
200 solved by tests/naive.py, with time averages.
"""

import json
from pathlib import Path
from typing import Any

import reservelab as rl

CASES = Path(__file__).parent / "cases"
EXACT: list[dict[str, Any]] = json.loads((CASES / "exact.json").read_text())
OWN: list[dict[str, Any]] = json.loads((CASES / "own.json").read_text())


def scenario_from_case(case: dict[str, Any]) -> rl.Scenario:
    """Return the scenario of a case's ``scenario`` table (the keys of MODEL.md section 9)."""
    machine = rl.Machine(case["pages"], case["dirty"], case["kills"], case["pages_per_kill"])
    mounts = []
    for number, mount in enumerate(case["mounts"]):
        stacked = mount["on"] >= 0
        filesystem = rl.Filesystem(
            f"fs{number}",
            [_step(verb, value) for verb, value in mount["program"]],
            nr_pages=mount["nr_pages"],
            backs_out=mount["backs_out"],
        )
        device = rl.Device(mount["rate"], mount["depth"], mount["completion_pages"])
        mounts.append(
            rl.Mount(
                filesystem,
                mount["flushers"],
                mount["dirtiers"],
                None if stacked else device,
                mount["on"] if stacked else None,
            )
        )
    return rl.Scenario(machine, tuple(mounts), _scheme(case), case["quota"], case["waiting"])


def _step(verb: str, value: Any) -> rl.Step:  # noqa: ANN401
    match verb:
        case "alloc":
            return rl.alloc(value if isinstance(value, int) else dict(value))
        case "lock":
            return rl.lock(value)
        case "unlock":
            return rl.unlock(value)
        case "submit":
            return rl.submit()
        case _:
            return rl.wait()


def _scheme(case: dict[str, Any]) -> rl.Scheme:
    reserve = case["reserve"]
    match case["scheme"]:
        case "watermark":
            return rl.Watermark(reserve, case["throttle"], case["max_sections"] or None)
        case "mempool":
            return rl.Mempool(reserve)
        case "perthread":
            return rl.PerThread(case["whole"], case["standing"])
        case "tickets":
            return rl.Tickets(reserve, case["draw"])
    refill = case["refill"]
    # A flag that is not cleared has no meaning where nothing is allocated at exit, and the package
    # refuses it.
    flag = case["clear_flag"] or refill == "completion"
    return rl.GlobalPool(reserve, case["on_entry"], refill, flag)
