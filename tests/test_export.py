"""The exported PRISM models: are they well formed, and do they mean the same as the rules?

Independent implementation, twice over: the text was written from the tables of the rules and shares
nothing with the engine, and it is read by somebody else. Storm reads it where stormpy is installed
(`make verify`); everywhere else a small reader of the part of PRISM's language that is used here
builds the chain, so that the words are checked in every run. What they are held against: the solved
cases (tests/solved_cases.py) and `exact`.

Nothing here is a statistical test. The probabilities agree to ten digits, and so does the number of
states: nothing is merged in the text, and it tells bios apart where `exact` does.
"""

import ast
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from types import CodeType
from typing import Any

import drawn_scenarios
import naive
import pytest
import storm_checker
from solved_cases import EXACT, OWN, scenario_from_case

import reservelab as rl
from reservelab.solve import export
from reservelab.solve.export import prism

DIGITS = 1e-10
CASES = [(f"exact-{k}", case) for k, case in enumerate(EXACT)]
CASES += [(f"own-{k}", case) for k, case in enumerate(OWN)]
SMALL = [(name, case) for name, case in CASES if case["unmerged_states"] <= 250]


# --- a reader of what is written -----------------------------------------------------------------

KEYWORDS = """
A bool clock const ctmc C double dtmc E endinit endinvariant endmodule endobservables endrewards
endsystem false formula filter func F global G init invariant I int label max mdp min module X
nondeterministic observable observables of Pmax Pmin P pomdp popta probabilistic prob pta rate
rewards Rmax Rmin R S stochastic system true U W
"""
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"


@dataclass
class Command:
    """A guarded command: the guard, and each rate with what it changes."""

    module: str
    guard: CodeType
    updates: list[tuple[CodeType, dict[str, CodeType]]]


@dataclass
class Model:
    """A model as the reader understands it."""

    names: list[str] = field(default_factory=list)  # of the variables
    first: list[int] = field(default_factory=list)
    bounds: list[tuple[int, int]] = field(default_factory=list)
    constants: dict[str, int] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    labels: dict[str, CodeType] = field(default_factory=dict)
    rewards: dict[str, CodeType] = field(default_factory=dict)


def read(text: str) -> Model:
    """Read a model; whatever the reader does not know raises."""
    model, formulas = Model(), dict[str, str]()
    compiled = partial(expression, formulas=formulas, known=set[str]())
    lines = [line.partition("//")[0].strip() for line in text.splitlines()]
    statements = [line for line in lines if line]
    assert statements.pop(0) == "ctmc"
    module = reward = ""
    for line in statements:
        match re.split(r"\s+", line, maxsplit=1):
            case ["const", rest]:
                name, value = parts(rf"int ({IDENTIFIER}) = (-?\d+);", rest)
                model.constants[name] = int(value)
            case ["global", rest]:
                variable(model, rest)
            case ["formula", rest]:
                name, value = parts(rf"({IDENTIFIER}) = (.*);", rest)
                formulas[name] = f"({inlined(value, formulas)})"
            case ["module", rest]:
                module = rest
                model.modules.append(rest)
            case ["endmodule"]:
                module = ""
            case ["[]", rest]:
                assert module
                guard, updates = parts(r"(.*) -> (.*);", rest)
                outcomes = re.split(r" \+ (?=[^ ]* : )", updates)
                model.commands.append(
                    Command(module, compiled(guard), [outcome(compiled, o) for o in outcomes])
                )
            case ["label", rest]:
                name, value = parts(r'"(\w+)" = (.*);', rest)
                model.labels[name] = compiled(value)
            case ["rewards", rest]:
                (reward,) = parts(r'"(\w+)"', rest)
            case ["true", rest]:
                (value,) = parts(r": (.*);", rest)
                model.rewards[reward] = compiled(value)
            case ["endrewards"]:
                reward = ""
            case _:
                raise ValueError(line)
    declared = [*model.names, *model.constants, *formulas, *model.modules]
    assert len(set(declared)) == len(declared)
    assert not set(declared) & set(KEYWORDS.split())
    assert compiled.keywords["known"] <= {*model.names, *model.constants, "min"}
    return model


def parts(pattern: str, text: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text)
    assert found is not None, text
    return found.groups()


def variable(model: Model, text: str) -> None:
    if found := re.fullmatch(rf"({IDENTIFIER}) : bool init false;", text):
        low, high, first, name = 0, 1, 0, found[1]
    else:
        name, *numbers = parts(rf"({IDENTIFIER}) : \[(-?\d+)\.\.(\d+)\] init (-?\w+);", text)
        low, high = int(numbers[0]), int(numbers[1])
        first = model.constants.get(numbers[2], -2)
        if first == -2:
            first = int(numbers[2])
    assert low <= first <= high
    assert low < high
    model.names.append(name)
    model.first.append(first)
    model.bounds.append((low, high))


def inlined(text: str, formulas: dict[str, str]) -> str:
    return re.sub(IDENTIFIER, lambda name: formulas.get(name[0], name[0]), text)


def expression(text: str, formulas: dict[str, str], known: set[str]) -> CodeType:
    """Compile an expression of PRISM's as one of Python's; `known` collects its names."""
    text = pythonic(inlined(text, formulas))
    text = re.sub(r"(?<![<>!=])=", "==", text)
    text = re.sub(r"!(?!=)", " not ", text).replace("&", " and ").replace("|", " or ")
    text = re.sub(r"\btrue\b", "True", text).strip()
    tree = ast.parse(text, mode="eval")
    known |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return compile(tree, "<model>", "eval")


def pythonic(text: str) -> str:
    """Turn each (condition?yes:no) round."""
    while "?" in text:
        mark = text.rindex("?")
        begin, depth = mark, 0
        while depth >= 0:
            begin -= 1
            depth += (text[begin] == ")") - (text[begin] == "(")
        end, depth = mark, 0
        while depth >= 0:
            end += 1
            depth += (text[end] == "(") - (text[end] == ")")
        condition, (yes, no) = text[begin + 1 : mark], text[mark + 1 : end].split(":")
        text = f"{text[:begin]}({yes} if {condition} else {no}){text[end + 1 :]}"
    return text


def outcome(compiled: Callable[[str], CodeType], text: str) -> tuple[CodeType, dict[str, CodeType]]:
    rate, changes = parts(r"(.*?) : (.*)", text)
    assigned = {}
    for change in re.split(r"&(?=\(\w+'=)", changes):
        name, value = parts(rf"\(({IDENTIFIER})'=(.*)\)", change)
        assert name not in assigned, f"{name} is assigned twice"
        assigned[name] = compiled(value)
    return compiled(rate), assigned


def successors(model: Model, values: tuple[int, ...]) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Rates and states that follow a state; a variable out of its range raises."""
    now: dict[str, Any] = dict(zip(model.names, values, strict=True)) | model.constants
    now |= {"min": min, "__builtins__": {}}
    for command in model.commands:
        if eval(command.guard, now):
            for rate, changes in command.updates:
                after = dict(zip(model.names, values, strict=True))
                after |= {name: int(eval(value, now)) for name, value in changes.items()}
                target = tuple(after.values())
                for name, value, (low, high) in zip(after, target, model.bounds, strict=True):
                    assert low <= value <= high, (name, value)
                yield float(eval(rate, now)), target


def chain_of(model: Model) -> naive.Chain:
    """The whole chain of a model, in the form that tests/naive.py solves."""
    chain: Any = naive.Chain()
    number = {tuple(model.first): 0}
    chain.states.append(tuple(model.first))
    for state in chain.states:  # grows while it is read
        leave: dict[int, float] = {}
        for rate, target in successors(model, state):
            if target not in number:
                number[target] = len(number)
                chain.states.append(target)
            leave[number[target]] = leave.get(number[target], 0.0) + rate
        chain.rates.append(leave)
        names = dict(zip(model.names, state, strict=True)) | model.constants
        ended = eval(model.labels["completed"], {"__builtins__": {}}, names)
        assert not (ended and leave), "an episode that has ended goes on"
        stopped = "completed" if ended else "deadlocked"
        chain.kinds.append("transient" if leave else stopped)
    naive.mark_livelocks(chain)
    found: naive.Chain = chain
    return found


def deadlock_probability(chain: naive.Chain) -> float:
    return float(chain.kinds[0] == "deadlocked") + sum(
        time * rate
        for state, time in naive.times_in_states(chain).items()
        for target, rate in chain.rates[state].items()
        if chain.kinds[target] == "deadlocked"
    )


# --- scenarios -----------------------------------------------------------------------------------


def same_states(scenario: rl.Scenario) -> bool:
    """Whether `exact` tells bios apart by their owners if and only if the text does.

    `exact` does so when a program waits, even that of a mount nobody uses.
    """
    used = {i for i, mount in enumerate(scenario.mounts) if mount.flushers + mount.dirtiers}
    used |= {scenario.mounts[i].on or 0 for i in scenario.stacked}
    waiting = {
        i
        for i, mount in enumerate(scenario.mounts)
        if any(step.verb == "wait" for step in mount.filesystem.program)
    }
    return not waiting or bool(waiting & used)


def composed_schemes() -> list[rl.Scheme]:
    """Every combination of the five choices that the package accepts and has no name for."""
    return [s for s in drawn_scenarios.composed_schemes() if s.family == "custom"]


def scenario_of(scheme: rl.Scheme, waiting: str) -> rl.Scenario:
    """Dirtiers, flushers, a lock between random allocs, and a stack: small, and in danger."""
    program = [rl.alloc(1), rl.lock("a"), rl.alloc({0: 0.25, 1: 0.75}), rl.unlock("a"), rl.submit()]
    lower = rl.Filesystem("lower", program, nr_pages=2, backs_out=True)
    upper = rl.Filesystem("upper", [rl.alloc(1), rl.submit()])
    set_aside = {"mount_pools": 4, "pool": 2, "own": 5}.get(scheme.start, 0)
    return rl.Scenario(
        rl.Machine(set_aside + 2, dirty=1),
        (rl.Mount(lower, flushers=1, dirtiers=1), rl.Mount(upper, flushers=1, on=0)),
        scheme,
        waiting="asleep" if waiting == "asleep" else "racing",
    )


# --- without a model checker ---------------------------------------------------------------------


def test_it_shares_nothing_with_the_engine() -> None:
    assert export.__file__ is not None
    tree = ast.parse(Path(export.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {module for module in modules if module and module.startswith("reservelab")}
    assert ours == {f"reservelab.model.{name}" for name in ("errors", "filesystems", "scenario")}
    assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES])
def test_every_model_is_well_formed(case: dict[str, Any]) -> None:
    scenario = scenario_from_case(case["scenario"])
    text = prism(scenario)
    assert text.isascii()
    model = read(text)
    assert list(model.labels) == ["completed"]  # "deadlock" is a label of PRISM's own
    assert list(model.rewards) == ["time", "idle", "inside"]
    workers = len(scenario.stacked)
    expected = [f"thread{i}" for i in range(scenario.threads + workers)]
    assert [name for name in model.modules if name.startswith("thread")] == expected
    assert ("oom_killer" in model.modules) == (scenario.machine.oom_kills > 0)
    assert {command.module for command in model.commands} == set(model.modules)


def test_commands_do_not_grow_with_pages_and_quota() -> None:
    """They are the rules, then, and not the states."""
    for _, case in CASES[:40]:
        scenario = scenario_from_case(case["scenario"])
        machine = replace(scenario.machine, pages=scenario.machine.pages + 1000)
        larger = replace(scenario, quota=1000, machine=machine)
        few, many = (read(prism(s)).commands for s in (scenario, larger))
        # Bios of more pages than there were may now exist.
        assert len(few) <= len(many) <= 2 * len(few)
        assert len(many) == len(read(prism(replace(larger, quota=2000))).commands)


@pytest.mark.truth(
    "independent implementation",
    "the PRISM text, read by a reader of its own",
    "tests/test_export.py",
)
@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in SMALL])
def test_the_text_means_the_solved_case(case: dict[str, Any]) -> None:
    scenario = scenario_from_case(case["scenario"])
    chain = chain_of(read(prism(scenario)))
    probability = deadlock_probability(chain)
    assert probability == pytest.approx(case["deadlock_probability"], rel=DIGITS, abs=1e-14)
    assert ("livelocked" in chain.kinds) == (case["livelock_probability"] > 0)
    if same_states(scenario):
        assert len(chain.states) == rl.exact(scenario).unmerged_states


def test_too_many_kinds_of_bios_are_refused() -> None:
    upper = rl.Filesystem("upper", [rl.alloc({n: 1 / 40 for n in range(40)}), rl.submit()])
    mounts = (rl.Mount(upper, flushers=1), rl.Mount(upper, flushers=1, on=0))
    prism(rl.Scenario(rl.Machine(100), mounts, rl.Watermark(2)))
    with pytest.raises(rl.BadInput, match="kinds of bios"):
        prism(rl.Scenario(rl.Machine(100), mounts, rl.Tickets(40)))


def test_the_solved_cases_are_enough() -> None:
    def covered(cases: list[tuple[str, dict[str, Any]]], stacks: int) -> None:
        scenarios = [scenario_from_case(case["scenario"]) for _, case in cases]
        seen = {(s.scheme.variant, s.waiting) for s in scenarios}
        assert seen >= set(product(rl.variants(), ("asleep", "racing")))
        assert len(scenarios) >= 30
        stacked = [s for s in scenarios if s.stacked]
        assert len(stacked) >= stacks
        assert {s.scheme.family for s in stacked} >= {"tickets", "global", "mempool", "perthread"}
        assert any(len(s.stacked) > 1 for s in stacked)

    covered(CASES, 30)
    covered(SMALL, 10)


@pytest.mark.parametrize(
    ("rule", "breach"),
    [
        ("free'=free+2", "free'=free+1"),  # a page is lost
        ("(pool'=pool-1)&(drawn0'=drawn0+1)", "(pool'=pool-1)"),  # drawn and not told
        ("queue0'=sleepers_semaphore+1", "queue0'=1"),  # to the head of the queue
        ("semaphore'=nobody", "semaphore'=0"),  # never given up
        ("1.0*min(bios0, 1)", "2.0*min(bios0, 1)"),
    ],
)
def test_a_breach_of_the_rules_is_noticed(rule: str, breach: str) -> None:
    plain = rl.Filesystem("plain", [rl.alloc(2), rl.submit()])
    scenario = rl.Scenario(rl.Machine(3), (rl.Mount(plain, flushers=3),), rl.GlobalPool(3), quota=2)
    text = prism(scenario)
    assert rule in text
    right = deadlock_probability(chain_of(read(text)))
    assert right == pytest.approx(0.509938, abs=5e-7)  # docs/model.md, section 8
    try:
        wrong = deadlock_probability(chain_of(read(text.replace(rule, breach))))
    except AssertionError:  # a variable left its range
        return
    assert abs(wrong - right) > 1e-6


# --- with Storm ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def storm() -> Callable[..., storm_checker.Checked]:
    if not storm_checker.available():
        pytest.skip(storm_checker.MISSING)
    return partial(storm_checker.check, bounds=True)


def compare(
    storm: Callable[..., storm_checker.Checked],
    scenarios: Mapping[str, rl.Scenario],
    record_property: Callable[[str, object], None],
) -> None:
    """Assert that Storm and `exact` agree on all, to ten digits and on the number of states."""
    worst, wrong = 0.0, dict[str, list[tuple[float, float]]]()
    for name, scenario in scenarios.items():
        solved = rl.exact(scenario)
        asked = [storm_checker.DEADLOCK]
        expected: list[float] = [solved.deadlock_probability]
        if solved.time and solved.idle_reserve_mean is not None and solved.inside is not None:
            asked += [storm_checker.reward(name) for name in ("time", "idle", "inside")]
            integrals = (1.0, solved.idle_reserve_mean, solved.inside)
            expected += [solved.time * integral for integral in integrals]
        found = storm(prism(scenario), asked)
        pairs = list(zip(found.values, expected, strict=True))
        off = [pair for pair in pairs if pair[0] != pytest.approx(pair[1], rel=DIGITS, abs=1e-14)]
        if same_states(scenario) and found.states != solved.unmerged_states:
            off.append((found.states, solved.unmerged_states))
        if off:
            wrong[name] = off
        large = [pair for pair in pairs if max(pair) > 1e-12]
        worst = max([worst, *(abs(a - b) / max(a, b) for a, b in large)])
    record_property("scenarios", len(scenarios))
    record_property("deviation", worst)
    assert wrong == {}


@pytest.mark.verify
@pytest.mark.truth(
    "independent implementation", "Storm on every solved case", "Storm, by the PRISM export"
)
def test_storm_agrees_on_every_solved_case(
    storm: Callable[..., storm_checker.Checked], record_property: Callable[[str, object], None]
) -> None:
    scenarios = {name: scenario_from_case(case["scenario"]) for name, case in CASES}
    compare(storm, scenarios, record_property)


@pytest.mark.verify
@pytest.mark.truth(
    "independent implementation", "Storm on every composed scheme", "Storm, by the PRISM export"
)
def test_storm_agrees_on_every_composed_scheme(
    storm: Callable[..., storm_checker.Checked], record_property: Callable[[str, object], None]
) -> None:
    scenarios = {
        f"{scheme.variant}, {waiting}": scenario_of(scheme, waiting)
        for scheme, waiting in product(composed_schemes(), ("asleep", "racing"))
    }
    compare(storm, scenarios, record_property)


@pytest.mark.verify
@pytest.mark.truth(
    "independent implementation", "Storm on fresh scenarios", "Storm, by the PRISM export"
)
def test_storm_agrees_on_scenarios_drawn_at_random(
    storm: Callable[..., storm_checker.Checked],
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    rng = random.Random(request.config.getoption("--seed"))
    drawn = drawn_scenarios.draw_solved(rng, 150, limit=5000)
    assert sum(bool(scenario.stacked) for scenario, _ in drawn) > 10
    compare(storm, {scenario.digest: scenario for scenario, _ in drawn}, record_property)
