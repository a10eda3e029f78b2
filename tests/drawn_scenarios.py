"""Scenarios drawn from the whole space of rules: every scheme that can be composed, named or not.

Mounts, stacks, programs, devices, dirtiers, back-outs, kills and the waiting rule are those of
`naive.draw_scenario`; half of the schemes are its named ones, half any five choices that fit.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from functools import cache
from itertools import permutations, product
from typing import get_args

import naive
from solved_cases import scenario_from_case

import reservelab as rl
from reservelab.model.schemes import Entry, Exit, Grant, Returns, Start


@cache
def composed_schemes() -> tuple[rl.Scheme, ...]:
    """Every combination of the five choices that fits, in every order of its grants; R = 2."""
    found = []
    grants = [g for number in (1, 2, 3) for g in permutations(get_args(Grant), number)]
    choices = (Start, Entry, Exit, Returns)
    for start, entry, leave, returns in product(*map(get_args, choices)):
        reserve = 2 if start in ("mark", "mount_pools", "pool") else None
        for order in grants:
            with contextlib.suppress(rl.BadInput):
                found.append(rl.Scheme(start, entry, order, leave, returns, reserve))
    return tuple(found)


def draw(rng: random.Random) -> rl.Scenario:
    """Return a scenario; it can have more states than anybody wants to solve."""
    if rng.random() < 0.5:
        family = rng.choice(["watermark", "mempool", "perthread", "global", "tickets"])
        variant = rng.choice([name for name in naive.VARIANTS if name.split()[0] == family])
        return scenario_from_case(naive.draw_scenario(rng, variant))
    # This variant leaves to chance who backs out.
    base = scenario_from_case(naive.draw_scenario(rng, "watermark throttle"))
    scheme = rng.choice(composed_schemes())
    if scheme.reserve is not None:
        most = 2 if scheme.start == "mount_pools" else rng.choice([base.need, 4])
        scheme = replace(scheme, reserve=rng.randint(0, most))
    if scheme.entry != "semaphore" and rng.random() < 0.2:
        scheme = replace(scheme, max_sections=rng.choice([1, 2, 2]))
    standing = sum(
        (mount.flushers + mount.dirtiers) * mount.filesystem.nr_pages for mount in base.mounts
    ) + sum(base.mounts[base.mounts[k].on or 0].filesystem.nr_pages for k in base.stacked)
    set_aside = {
        "nothing": 0,
        "mount_pools": (scheme.reserve or 0) * len(base.mounts),
        "own": standing,
    }.get(scheme.start, scheme.reserve or 0)
    pages = max(1, set_aside + rng.randint(0, 1 if scheme.start == "own" else 3))
    return replace(base, machine=replace(base.machine, pages=pages), scheme=scheme)


def draw_solved(
    rng: random.Random, number: int, limit: int, fewest: int = 10
) -> list[tuple[rl.Scenario, rl.Exact]]:
    """Return scenarios of `fewest` to `limit` states, each with its exact values.

    Of those that deadlock always or never two in three are passed over.
    """
    found: list[tuple[rl.Scenario, rl.Exact]] = []
    while len(found) < number:
        scenario = draw(rng)
        with contextlib.suppress(rl.BadInput):  # too many states
            solved = rl.exact(scenario, limit=limit)
            sure = solved.deadlock_probability in (0.0, 1.0)
            if solved.states >= fewest and not (sure and rng.random() < 2 / 3):
                found.append((scenario, solved))
    return found
