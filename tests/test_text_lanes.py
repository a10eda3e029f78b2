"""Swim-lanes in plain text: what stands in a lane, read back, is what the thread has and does.

Stories are drawn as in tests/test_naive.py, over every scheme and both waiting rules; nothing here
is a statistical test.
"""

import random
import re

import naive
import pytest
from solved_cases import scenario_from_case
from test_show import check_text

import reservelab as rl
from reservelab.model.errors import BadInput
from reservelab.show.lanes import lanes
from reservelab.show.text import swim_lanes

CELLS = [(variant, waiting) for variant in naive.VARIANTS for waiting in ("asleep", "racing")]
pytestmark = pytest.mark.filterwarnings("ignore:mounts")
ABBA = rl.Scenario(
    rl.Machine(3),
    (
        rl.Mount(
            rl.Filesystem(
                "fs",
                [rl.alloc(1), rl.lock("lock"), rl.alloc(1), rl.unlock("lock"), rl.submit()],
            ),
            flushers=2,
        ),
    ),
    rl.GlobalPool(2, refill="completion"),
    quota=2,
)


def read_back(printed: str) -> dict[str, dict[int, str]]:
    """Text of every lane from each state's column to the next one's, by lane and state."""
    found: dict[str, dict[int, str]] = {}
    columns: list[tuple[int, int]] = []
    for line in printed.splitlines():
        name = line.split(" ", 1)[0]
        if name == "step":
            columns = [(int(m[0]), m.start()) for m in re.finditer(r"\d+", line)]
            width = columns[1][1] - columns[0][1] if len(columns) > 1 else 0
        elif not line or line.startswith(("^", " ")):
            columns = [] if not line else columns
        elif columns:
            for state, at in columns:
                text = line[at : at + width] if width else line[at:]
                found.setdefault(name, {})[state] = text
    return found


@pytest.mark.parametrize(("variant", "waiting"), CELLS)
def test_lanes_read_back_are_the_story(variant: str, waiting: str) -> None:
    for seed in range(3):
        rng = random.Random(f"text lanes {variant} {waiting} {seed}")
        scenario = scenario_from_case(naive.draw_scenario(rng, variant, waiting))
        shown = lanes(rl.trace(scenario, seed, 0, 70))
        printed = swim_lanes(shown)
        check_text(printed)
        check_text(swim_lanes(shown, last=7))
        lane_of = read_back(printed)
        assert set(lane_of["free"]) == set(range(shown.states))
        value = ""
        for state, free in enumerate(shown.steps["free"]):
            value = lane_of["free"][state].strip() or value
            assert int(value) == free
        for row in shown.intervals.to_dict("records"):
            lane = lane_of.get(str(row["thread"]), {})
            head = lane.get(row["start"], "")
            held = row["held"] if row["held"] or row["inside"] else ""
            aside = row["own"] + row["claim"]
            wanted = f"{held}{f'+{aside}' if aside else ''}{'S' if row['semaphore'] else ''}"
            written = "".join(lane.get(k, "") for k in range(row["start"], row["end"]))
            assert head.startswith(wanted[: len(head)]), (row, head)
            locks = len([name for name in row["locks"].split(", ") if name])
            rest = written[len(wanted) :]
            assert len(re.match("[a-y*]*", rest)[0]) == locks  # type: ignore[index]
            fill = {"running": "=" if row["inside"] else "-", "waiting": "?", "asleep": "z"}
            last = lane.get(row["end"] - 1, "").rstrip()[-1:]
            assert last == fill.get(row["activity"], last), (row, written)
            assert row["activity"] in fill or last not in set("=-?z")


def test_the_shortest_path_into_the_abba() -> None:
    lines = swim_lanes(rl.prove(ABBA)).splitlines()
    assert lines[0] == "global lazy refill-completion, waiting asleep: deadlocked after 7 steps"
    assert lines[-1] == "^ the cycle closes: 0 -> the semaphore -> 1 -> lock lock -> 0"
    at = next(line for line in lines if line.startswith("step")).index("7")
    assert lines[-2].index("^") == at


def test_what_has_no_lanes_is_refused() -> None:
    with pytest.raises(BadInput, match="certificate"):
        swim_lanes(
            rl.prove(rl.Scenario(ABBA.machine, ABBA.mounts, rl.GlobalPool(2, on_entry=True)))
        )
    with pytest.raises(BadInput, match="last: 0 is too few; give at least 1"):
        swim_lanes(rl.trace(ABBA), last=0)
