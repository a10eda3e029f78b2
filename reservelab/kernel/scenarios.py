"""Sets of scenarios, for comparisons: families of which each is a product of schemes and rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reservelab.kernel.trials import require_ported
from reservelab.model.errors import BadInput, within
from reservelab.model.scenario import Scenario, check_keys, read_toml, scheme_from_table


def read_set(text: str) -> tuple[Scenario, ...]:
    """Read a set of scenarios from TOML.

    Parameters
    ----------
    text : str
        ``[[family]]`` tables: those of a scenario, but ``schemes`` and ``waiting`` are lists, and
        each scheme meets each waiting rule; ``waiting`` may be left out for both.

    Returns
    -------
    tuple of Scenario
        In the order of the file, labelled with family, scheme and waiting rule.

    Raises
    ------
    BadInput
        One line for the first thing that is wrong, not ported, or there twice.
    """
    table = read_toml(text)
    families = check_keys("", table, {"family"}, set())["family"]
    if not isinstance(families, list):
        raise BadInput("family", f"{families!r} is not a list", "write [[family]] tables")
    scenarios: list[Scenario] = []
    for index, family in enumerate(families):
        try:
            scenarios += _family(family)
        except BadInput as error:
            raise within(f"family[{index}]", error) from None
    seen: dict[str, Scenario] = {}
    for scenario in scenarios:
        first = seen.setdefault(scenario.digest, scenario)
        if first is not scenario:
            wrong = f"{scenario.label!r} is the same as {first.label!r}"
            raise BadInput("family", wrong, "a scenario counts once")
    return tuple(scenarios)


def _family(family: Mapping[str, Any]) -> list[Scenario]:
    required, optional = {"label", "machine", "mounts", "schemes"}, {"quota", "waiting"}
    check_keys("", family, required, optional)
    shared = {key: family[key] for key in ("machine", "mounts", "quota") if key in family}
    made = []
    for key in ("schemes", "waiting"):
        if not isinstance(family.get(key, []), list):
            raise BadInput(key, f"{family[key]!r} is not a list", "put it in brackets")
    for scheme in family["schemes"]:
        for waiting in family.get("waiting", ["asleep", "racing"]):
            short = scheme_from_table(scheme).variant.replace("refill-", "")
            label = f"{family['label']}, {short}, {waiting}"
            table = shared | {"scheme": scheme, "waiting": waiting, "label": label}
            scenario = Scenario.from_table(table)
            require_ported(scenario)
            made.append(scenario)
    return made
