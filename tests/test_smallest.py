"""The smallest unsafe configuration, against MODEL.md section 8. Nothing here fails by chance."""

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any, Literal

import pytest

import reservelab as rl
from reservelab.__main__ import main

ROOT = Path(__file__).parents[1]
Quota = Literal["own", "unbounded"]


def pool(scheme: rl.Scheme, needs: int, threads: int = 4, pages: int = 6) -> rl.Scenario:
    filesystem = rl.Filesystem("fs", [rl.alloc(needs), rl.submit()])
    return rl.Scenario(rl.Machine(pages), [rl.Mount(filesystem, threads)], scheme, quota=2)


def verdicts(found: rl.Smallest) -> dict[tuple[int, int], str]:
    table = found.frame()
    cells = zip(table.threads, table.pages, table.verdict, strict=True)
    return {(int(threads), int(pages)): str(verdict) for threads, pages, verdict in cells}


@pytest.mark.parametrize("needs", [1, 2, 3])
@pytest.mark.parametrize("scheme", [rl.Watermark(6), rl.Mempool(6), rl.PerThread()])
def test_boundary_of_section_8(scheme: rl.Scheme, needs: int) -> None:
    """Reachable iff N (A - 1) >= M, where the whole machine is the reserve, in every cell."""
    follows = "fixed" if scheme.reserve is None else "follows"
    found = rl.smallest(pool(scheme, needs), reserve=follows)  # type: ignore[arg-type]
    cells = {(n, m) for n in range(1, 5) for m in range(needs, 7)}
    unsafe = {(n, m) for n, m in cells if n * (needs - 1) >= m}
    got = verdicts(found)
    assert set(got) == cells
    assert {cell for cell, verdict in got.items() if verdict == "unsafe"} == unsafe
    assert set(got.values()) <= {"safe", "unsafe"}
    assert found.smallest == (min(unsafe) if unsafe else None)
    assert found.safe == (not unsafe)


@pytest.mark.parametrize(
    "scheme", [rl.PerThread(whole=True), rl.Tickets(), rl.GlobalPool(on_entry=True)]
)
def test_never_of_section_8(scheme: rl.Scheme) -> None:
    found = rl.smallest(pool(scheme, 2))
    assert found.safe
    assert found.smallest is None
    assert set(verdicts(found).values()) == {"safe"}


@pytest.mark.parametrize("quota", ["own", "unbounded"])
def test_the_proof_is_that_of_the_configuration(quota: Quota) -> None:
    found = rl.smallest(pool(rl.GlobalPool(2), 2), pages_up_to=3, quota=quota)
    assert found.smallest is not None
    assert found.proof is not None
    threads, pages = found.smallest
    proof = rl.prove(pool(rl.GlobalPool(2), 2, threads, pages), quota)
    assert str(found.proof) == str(proof)
    assert str(proof) in str(found)
    row = found.frame().query("verdict == 'unsafe'").iloc[0]
    assert (row.digest, row.steps) == (proof.scenario.digest, len(proof.path))
    # Nothing that comes before it is unsafe: asked again, one by one.
    for (n, m), verdict in verdicts(found).items():
        if (n, m) < found.smallest:
            assert verdict == "safe"
            assert rl.prove(pool(rl.GlobalPool(2), 2, n, m), quota).safe


def test_threads_are_added_in_the_scenarios_shares() -> None:
    one = rl.Filesystem("one", [rl.alloc(1), rl.submit()])
    mounts = [rl.Mount(one, 4, 2), rl.Mount(one, on=0), rl.Mount(one, 1)]
    scenario = rl.Scenario(rl.Machine(2), mounts, rl.Watermark(0))
    from reservelab.study import smallest

    spread = [smallest._scaled(scenario, number, 2, "fixed") for number in range(1, 15)]
    counts = [
        tuple(n for mount in one.mounts for n in (mount.flushers, mount.dirtiers))
        for one in spread
        if one is not None
    ]
    assert [sum(c) for c in counts] == list(range(1, 15))
    assert counts[6] == (4, 2, 0, 0, 1, 0)
    assert counts[13] == (8, 4, 0, 0, 2, 0)
    assert spread[6] is not None
    assert spread[6].digest == scenario.digest
    for fewer, more in itertools.pairwise(counts):
        assert all(a <= b for a, b in zip(fewer, more, strict=True))


def test_too_few_pages_for_the_reserve_are_not_valid() -> None:
    found = rl.smallest(pool(rl.Tickets(4), 2), threads_up_to=1, pages_from=1)
    assert [v for _, v in sorted(verdicts(found).items())] == ["no room"] * 3 + ["safe"] * 3
    assert found.safe


def test_undecided_is_not_safe() -> None:
    scenario = pool(rl.Tickets(), 2)
    found = rl.smallest(scenario, limit=30)
    assert found.safe is None
    assert found.undecided_below > 0
    assert "UNDECIDED" in str(found)
    # What is unsafe is so whatever else is undecided; what comes before it is told.
    found = rl.smallest(pool(rl.Watermark(6), 2), limit=60, reserve="follows")
    assert found.safe is False
    assert found.undecided_below == 0
    table = found.frame()
    assert (table.verdict == "undecided").any()


def test_workers_change_nothing() -> None:
    scenario = pool(rl.Watermark(6), 2)
    one, two = (rl.smallest(scenario, workers=n, reserve="follows") for n in (1, 2))
    assert one.to_json() == two.to_json()


def test_configurations_are_made_as_they_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten million, whoever stops at the fifth answer has waited for about as many."""
    from reservelab.study import smallest

    made: list[int] = []
    scaled = smallest._scaled

    def count(*about: Any) -> rl.Scenario | None:  # noqa: ANN401
        made.append(about[2])
        return scaled(*about)

    def stop(done: int, total: int) -> None:
        assert total == 1_000 * 9_999
        if done == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(smallest, "_scaled", count)
    scenario = pool(rl.Tickets(), 2)
    with pytest.raises(KeyboardInterrupt):
        rl.smallest(scenario, 1_000, 10_000, limit=20, workers=2, progress=stop)
    assert 5 < len(made) <= 1 + 5 + 2 * smallest._AHEAD


def test_told_in_72_columns() -> None:
    found = rl.smallest(pool(rl.Watermark(0), 1, threads=2, pages=60))
    text = str(found)
    assert text.isascii()
    assert all(len(line) <= 72 and line == line.rstrip() for line in text.splitlines())
    assert text.count("threads") >= 3


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"threads_up_to": 0}, "threads_up_to"),
        ({"pages_up_to": 1, "pages_from": 2}, "pages_up_to"),
        ({"pages_up_to": 1}, "pages_up_to"),  # nothing valid is nothing safe
        ({"reserve": "some"}, "reserve"),
        ({"quota": "some"}, "quota"),
        ({"workers": 0}, "workers"),
    ],
)
def test_wrong_bounds_are_refused(wrong: dict[str, Any], key: str) -> None:
    with pytest.raises(rl.BadInput) as refused:
        rl.smallest(pool(rl.Watermark(2), 2), **wrong)
    assert refused.value.key == key
    with pytest.raises(rl.BadInput, match="none to follow"):
        rl.smallest(pool(rl.PerThread(), 2), reserve="follows")


def test_too_large_a_configuration_is_refused_before_any_is_asked() -> None:
    def asked(*_: int) -> None:
        pytest.fail("asked")

    with pytest.raises(rl.BadInput, match="too large"):
        rl.smallest(pool(rl.Watermark(0), 2), 2, 2**31, 2, progress=asked)


ABBA = str(ROOT / "data" / "scenarios" / "abba.toml")


def test_the_bounds_say_how_many_pages_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """So --smallest needs no --pages, unless a reserve follows, and answers as with them."""
    writers = ["prove", "--scheme", "watermark", "--reserve", "0", "--mount", "swap:3"]
    bounds = ["--smallest", "3,2-5"]
    assert main([*writers, *bounds]) == 0
    told = capsys.readouterr().out
    assert main([*writers, *bounds, "--pages", "5"]) == 0
    assert capsys.readouterr().out == told
    for more in ([], [*bounds, "--reserve-follows"]):
        assert main([*writers, *more]) == 2
        assert "--pages: missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--scheme", "global on-entry", "--smallest", "3,5"], 0),
        (["--smallest", "3,3-4"], 1),
        (["--smallest", "3,9-4"], 2),
        (["--smallest", "3"], 2),
        (["--smallest", "0,5"], 2),
        (["--reserve-follows"], 2),
        (["--scheme", "global on-entry", "--smallest", "3,4", "--limit", "50"], 3),
    ],
)
def test_command_line(more: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):  # the parser's own way out
        assert main(["prove", ABBA, *more]) == code
    told = capsys.readouterr()
    assert bool(told.out) == (code != 2)
    if code == 2:
        assert told.err.count("\n") == 1
        return
    assert main(["prove", ABBA, *more, "--json"]) == code
    plain = json.loads(capsys.readouterr().out)
    assert plain["safe"] == {0: True, 1: False, 3: None}[code]
    assert plain["smallest"] == ([2, 3] if code == 1 else None)
