"""Figures and text: what is drawn is what the frame holds, and it can be read."""

import itertools
import math
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

import reservelab as rl
from reservelab.model.errors import BadInput
from reservelab.model.interval import Interval
from reservelab.model.pack import REASONS
from reservelab.show import cells, figures, text
from reservelab.solve.tally import clopper_pearson
from reservelab.study.fits import fit

ESTIMATES = list(cells.QUANTITIES)
FIGURES = [
    figures.risk_against_reserve, figures.risk_against_threads, figures.idle_against_threads,
    figures.front, figures.dead,
]  # fmt: skip


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Every named variant, two mixes, three thread counts, three reserves, simulated."""
    journal = [rl.alloc(1), rl.lock("journal"), rl.alloc({1: 0.8, 2: 0.2}), rl.unlock("journal")]
    small = rl.Filesystem("small", [rl.alloc(2), rl.submit()])
    large = rl.Filesystem("large", [*journal, rl.submit(), rl.wait()])
    rows = []
    for label, filesystems in (("plain", [small]), ("both", [small, large])):
        for threads in (2, 4, 8):
            share = threads // len(filesystems)
            mounts = tuple(rl.Mount(filesystem, flushers=share) for filesystem in filesystems)
            for variant in rl.variants():
                sizes: tuple[int | None, ...] = (1, 3, 6)
                for reserve in (None,) if variant.startswith("perthread") else sizes:
                    try:
                        scenario = rl.Scenario(
                            machine=rl.Machine(pages=9), mounts=mounts, quota=3, label=label,
                            scheme=rl.Scheme.named(variant, reserve=reserve),
                        )  # fmt: skip
                    except BadInput:  # more set aside than there is
                        continue
                    with pytest.warns() if scenario.warnings else nullcontext():
                        rows.append(rl.simulate(scenario, episodes=150, seed=5).row())
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def drawings(frame: pd.DataFrame) -> dict[str, Figure]:
    """Every figure of the whole frame; tests only look at them."""
    return {draw.__name__: draw(frame) for draw in FIGURES}


def test_the_frame_is_worth_drawing(frame: pd.DataFrame) -> None:
    """Zeros, ones and values between, and cells that a scheme cannot have."""
    risk = frame["deadlock_probability_best"]
    assert (risk == 0).any()
    assert (risk == 1).any()
    assert ((risk > 0) & (risk < 1)).sum() > 20
    assert len(frame) < 2 * 3 * (11 * 3 + 3)


# --- What is drawn -------------------------------------------------------------------------------

Point = tuple[float, ...]


def panels(figure: Figure) -> Iterator[tuple[str, Axes]]:
    for ax in figure.axes:
        if ax.get_gid() is not None:
            yield str(ax.get_gid()), ax


def drawn(figure: Figure, kind: str) -> set[tuple[str, str, str, Point]]:
    """Mix, variant, quantity and coordinates of everything of a kind, as the axes hold it."""
    found = set()
    for mix, ax in panels(figure):
        for artist in ax.get_children():
            first, *names = str(artist.get_gid()).split("|")
            if first != kind:
                continue
            points: list[Point]
            if isinstance(artist, Line2D):
                xy = np.asarray(artist.get_xydata(), dtype=float)
                points = [(float(x), float(y)) for x, y in xy]
            else:
                assert isinstance(artist, LineCollection)
                points = [tuple(map(float, np.ravel(s))) for s in artist.get_segments()]
            assert artist.get_visible()
            found |= {
                (mix, *names, point)
                for point in points
                if not any(math.isnan(value) for value in point)
            }
    return found  # type: ignore[return-value]


def expected(part: pd.DataFrame, kind: str, x: str, y: str) -> set[tuple[str, str, str, Point]]:
    found = set()
    for row in part.to_dict("records"):
        low, best, high = (row[f"{y}_{end}"] for end in ("low", "best", "high"))
        at, zero = row[x], y == "deadlock_probability" and best == 0
        point = {"best": (at, best), "bound": (at, high), "bars": (at, low, at, high)}[kind]
        if zero == (kind == "bound") and np.isfinite(point).all():
            found.add((row["mix"], row["variant"], y, tuple(map(float, point))))
    return found


@pytest.mark.parametrize("kind", ["best", "bound", "bars"])
def test_risk_against_threads_draws_the_frame(frame: pd.DataFrame, kind: str) -> None:
    part = frame[frame["reserve"].isin([-1, 3])]
    part = part[(part["variant"] != "mempool") | (part["mix"] == "plain")]
    figure = figures.risk_against_threads(part)
    wanted = expected(part, kind, "threads", "deadlock_probability")
    assert len(wanted) >= 10
    assert drawn(figure, kind) == wanted


@pytest.mark.parametrize("kind", ["best", "bound", "bars"])
def test_risk_against_reserve_draws_the_frame(frame: pd.DataFrame, kind: str) -> None:
    part = frame[frame["threads"] == 4]
    figure = figures.risk_against_reserve(part)
    sized = part[part["reserve"] >= 0]
    wanted = expected(sized, kind, "reserve", "deadlock_probability")
    got = drawn(figure, kind)
    level = {(m, v, p[1::2]) for m, v, _, p in got if v.startswith("perthread")}
    assert {item for item in got if not item[1].startswith("perthread")} == wanted
    # Schemes without a reserve have no x; their probabilities must be the frame's all the same.
    unsized = expected(part[part["reserve"] < 0], kind, "threads", "deadlock_probability")
    assert level == {(m, v, p[1::2]) for m, v, _, p in unsized}


def test_level_lines_stand_at_the_frame_s_values(frame: pd.DataFrame) -> None:
    part = frame[(frame["threads"] == 4) & (frame["reserve"] < 0)]
    figure = figures.risk_against_reserve(part)
    for mix, ax in panels(figure):
        here = part[part["mix"] == mix]
        best, high = here["deadlock_probability_best"], here["deadlock_probability_high"]
        lines = [
            line for line in ax.get_lines() if np.array_equal(np.asarray(line.get_xdata()), [0, 1])
        ]
        across = {float(np.asarray(line.get_ydata())[0]) for line in lines}
        assert across >= set(best.where(best > 0, high))


@pytest.mark.parametrize("kind", ["best", "bars"])
def test_idle_against_threads_draws_the_frame(frame: pd.DataFrame, kind: str) -> None:
    part = frame[frame["reserve"].isin([-1, 3])]
    figure = figures.idle_against_threads(part)
    wanted = expected(part, kind, "threads", "idle_mean")
    wanted |= expected(part, kind, "threads", "idle_peak")
    assert len(wanted) > 50
    assert drawn(figure, kind) == wanted


@pytest.mark.parametrize("kind", ["best", "bound"])
def test_front_draws_the_frame(frame: pd.DataFrame, kind: str) -> None:
    part = frame[frame["threads"] == 4]
    wanted = set()
    for x in ("idle_mean", "throughput"):
        for mix, variant, _, point in expected(part, kind, f"{x}_best", "deadlock_probability"):
            wanted.add((mix, variant, x, point))
    assert drawn(figures.front(part), kind) == wanted


def test_front_fills_what_nothing_beats(frame: pd.DataFrame) -> None:
    """The front is found again by comparing all pairs."""
    part = frame[frame["threads"] == 8]
    figure = figures.front(part)
    for mix, ax in panels(figure):
        rows = part[part["mix"] == mix].to_dict("records")
        three = [
            (r["deadlock_probability_best"], r["idle_mean_best"], -r["throughput_best"])
            for r in rows
        ]
        front = {r["variant"]: 0 for r in rows}
        for row, own in zip(rows, three, strict=True):
            beaten = any(
                all(a <= b for a, b in zip(other, own, strict=True)) and other != own
                for other in three
            )
            # What never ran has no throughput and is on no front.
            front[row["variant"]] += not beaten and not any(map(math.isnan, own))
        filled = dict.fromkeys(front, 0)
        for line in ax.get_lines():
            if str(line.get_gid()).startswith(("best|", "bound|")):
                variant = str(line.get_gid()).split("|")[1]
                if line.get_markerfacecolor() != "white":
                    filled[variant] += len(np.asarray(line.get_xdata()))
        assert filled == front
        assert 0 < sum(front.values()) < len(rows)


def test_dead_draws_the_frame(frame: pd.DataFrame) -> None:
    figure = figures.dead(frame)
    for mix, ax in panels(figure):
        mesh = next(child for child in ax.get_children() if isinstance(child, QuadMesh))
        names = [label.get_text().rpartition("  ")[0] for label in ax.get_yticklabels()]
        grid: np.ndarray = np.ma.filled(np.ma.asarray(mesh.get_array(), dtype=float), math.nan)
        grid = grid.reshape(len(names), -1)
        here = frame[frame["mix"] == mix]
        reasons = [r for r in REASONS if frame[f"dead_{r}"].any()]
        for name, got in zip(names, grid, strict=True):
            part = here[here["variant"] == name]
            wanted = [part[f"dead_{r}"].sum() for r in reasons]
            dead = part["deadlocks"].sum()
            if dead:
                np.testing.assert_allclose(got, 100 * np.array(wanted) / dead)
            else:
                assert np.isnan(got).all()
            texts = {str(t.get_text()) for t in ax.texts}
            assert f"{dead:,} of {part['episodes'].sum():,}" in texts


def test_scaling_draws_the_fits() -> None:
    coefficients = pd.DataFrame(
        [
            ("tickets draw-last", "asleep", "idle_mean", "log threads", -0.1, 0.0, 0.1),
            ("perthread", "asleep", "idle_mean", "log threads", 0.8, 0.9, 1.1),
            ("perthread", "asleep", "idle_peak", "log threads", 0.9, 1.0, 1.2),
            ("perthread", "asleep", "deadlock", "threads", 0.1, 0.5, 0.7),
            ("tickets draw-last", "asleep", "deadlock", "reserve", -3.0, -2.0, -1.0),
            ("tickets draw-last", "racing", "deadlock", "reserve", -5.0, -4.0, -3.0),
        ],
        columns=["variant", "waiting", "quantity", "term", "low", "best", "high"],
    )
    figure = figures.scaling(coefficients)
    found: list[tuple[str, float]] = []
    for ax in figure.axes:
        for line in ax.get_lines():
            if str(line.get_gid()).startswith("best|"):
                xs = np.asarray(line.get_xdata(), dtype=float)
                found += [(str(line.get_gid()).split("|")[1], float(x)) for x in xs]
    wanted = [
        ("idle_mean", 0.0), ("idle_mean", 0.9), ("idle_peak", 1.0),
        ("deadlock", math.exp(0.5)), ("deadlock", math.exp(-2.0)),
    ]  # fmt: skip
    assert [name for name, _ in sorted(found)] == [name for name, _ in sorted(wanted)]
    assert [x for _, x in sorted(found)] == pytest.approx([x for _, x in sorted(wanted)])


# --- Whether it can be read ----------------------------------------------------------------------


@pytest.mark.parametrize("draw", FIGURES[:4], ids=lambda f: f.__name__)
def test_nothing_is_told_by_colour_alone(
    draw: Callable[[pd.DataFrame], Figure], frame: pd.DataFrame
) -> None:
    figure = draw(frame[frame["threads"] <= 4])  # at 8 one variant has no cell
    markers: dict[str, set[str]] = {}
    for _, ax in panels(figure):
        for line in ax.get_lines():
            if str(line.get_gid()).startswith(("best|", "bound|")):
                markers.setdefault(str(line.get_gid()).split("|")[1], set()).add(
                    str(line.get_marker())
                )
    assert len(markers) == 14
    assert all(len(own) == 1 for own in markers.values())
    assert len({own.pop() for own in markers.values()}) == 14


@pytest.mark.parametrize("name", ["risk_against_reserve", "risk_against_threads", "front"])
def test_a_zero_never_stands_on_a_logarithmic_axis(name: str, drawings: dict[str, Figure]) -> None:
    for _, ax in panels(drawings[name]):
        assert ax.get_yscale() == "log"
        bottom, top = ax.get_ylim()
        for line in ax.get_lines():
            if str(line.get_gid()).startswith(("best|", "bound|")):
                y = np.asarray(line.get_ydata(), dtype=float)
                y = y[~np.isnan(y)]
                assert ((y > bottom) & (y < top)).all()


@pytest.mark.parametrize("name", [draw.__name__ for draw in FIGURES])
def test_words_are_on_the_paper_and_apart(name: str, drawings: dict[str, Figure]) -> None:
    """Nothing is cut off, and no title or tick covers another."""
    figure = drawings[name]
    figure.draw_without_rendering()
    inked, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert inked.x0 >= -0.01
    assert inked.y0 >= -0.01
    assert inked.x1 <= width + 0.01
    assert inked.y1 <= height + 0.01
    for _, ax in panels(figure):
        labels = [t for t in ax.get_xticklabels() if t.get_text() and t.get_visible()]
        row = sorted((t.get_window_extent() for t in labels), key=lambda b: b.x0)
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(row))
    titles = [ax.title for _, ax in panels(figure) if ax.title.get_text()]
    for k, one in enumerate(titles):
        for other in titles[:k]:
            assert not one.get_window_extent().overlaps(other.get_window_extent())


def test_axes_are_named_with_units(drawings: dict[str, Figure]) -> None:
    names = {
        "risk_against_reserve": ["reserve (pages)", "probability per episode"],
        "risk_against_threads": ["threads", "probability per episode"],
        "idle_against_threads": ["threads", "idle reserve (pages)"],
        "front": ["(pages)", "writepages per mean step", "probability per episode"],
        "dead": ["per cent", "semaphore", "a lock"],
    }
    for figure, wanted in names.items():
        words = [word.get_text() for word in drawings[figure].findobj(Text)]
        for name in wanted:
            assert any(name in word for word in words), (figure, name)


def test_figures_are_1280_wide_and_fit_a4(drawings: dict[str, Figure]) -> None:
    for figure in drawings.values():
        width, height = figure.get_size_inches()
        assert abs(width * figures.DPI - 1280) < 2
        assert width <= 8.27 - 1
        assert height <= 11.69 - 1


def test_a_mix_in_which_everything_dies_at_once_is_drawn(frame: pd.DataFrame) -> None:
    """Nothing is completed in no time, so throughput and idle pages are unknown."""
    part = frame[frame["threads"] == 4].copy()
    risk = cells.ends("deadlock_probability")
    part[risk] = [0.98, 1.0, 1.0]
    for name in ("throughput", "idle_mean"):
        part[cells.ends(name)] = [0.0, math.nan, math.inf]
    for draw in FIGURES:
        draw(part).draw_without_rendering()
    check_text(text.report(part, "x"))


# --- Files ---------------------------------------------------------------------------------------


def carried(path: Path) -> str:
    """What a file says of its origin, read back as a program that looks for it would."""
    if path.suffix == ".svg":
        kind = "{http://purl.org/dc/elements/1.1/}description"
        return " ".join(str(e.text) for e in ElementTree.parse(path).iter(kind))
    data = path.read_bytes()
    if path.suffix == ".png":  # chunks of a length, a name, so many bytes and a checksum
        place, texts = 8, {}
        while place < len(data):
            (size,) = struct.unpack(">I", data[place : place + 4])
            if data[place + 4 : place + 8] in (b"tEXt", b"iTXt"):
                name, _, value = data[place + 8 : place + 8 + size].partition(b"\0")
                texts[name] = value.decode("latin-1")
            place += 12 + size
        return texts[b"Description"]
    if path.suffix == ".pdf":
        subject = re.search(rb"/Subject \((.*?)(?<!\\)\)", data, re.S)
        assert subject is not None
        return subject[1].replace(b"\\", b"").decode("latin-1")
    return " ".join(path.read_text(encoding="ascii").split())


def test_files_carry_their_provenance(frame: pd.DataFrame, tmp_path: Path) -> None:
    fits = fit(frame[frame["variant"].isin(["perthread", "watermark"])])
    told = {"command": "reservelab figures results/demo", "grid": "demo, SHA-256 0123abcd"}
    paths = figures.draw_all(frame, fits, tmp_path, ("svg", "png", "pdf"), **told)
    assert [p.name for p in paths] == [
        f"{name}.{suffix}"
        for name in [*(f.__name__ for f in FIGURES), "scaling"]
        for suffix in ("svg", "png", "pdf")
    ]
    about = cells.provenance(frame, told["command"], told["grid"])
    assert about["grid"] == told["grid"]
    assert about["scenarios"].startswith(f"{len(frame)}, SHA-256")
    assert about["seeds"] == "5"
    assert about["rules"] == str(rl.RULES_VERSION)
    assert about["package"] == f"reservelab {rl.__version__}"
    texts = text.write_all(frame, fits, tmp_path / "list", about)
    assert len(texts) == 8
    for path in [*paths, *texts]:
        written = carried(path)
        for key, value in about.items():
            assert f"{key}: {value}" in written, (path.name, key)
    for path in texts:
        check_text(path.read_text())


def test_a_paper_gets_fonts_that_publishers_take(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Embedded TrueType, no Type 3; sizes in print are those of the figure, 7 inches wide."""
    figure = figures.risk_against_threads(frame[frame["mix"] == "plain"])
    figures.save(figure, tmp_path / "figure", cells.provenance(frame, "x"), ("pdf",))
    data = (tmp_path / "figure.pdf").read_bytes()
    assert b"/FontFile2" in data
    assert b"/Type3" not in data
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", data)
    assert box is not None
    assert float(box[1]) == pytest.approx(72 * 7.0)
    sizes = {float(word.get_fontsize()) for word in figure.findobj(Text) if word.get_text()}
    assert min(sizes) >= 6.5


def test_the_same_frame_gives_the_same_bytes(frame: pd.DataFrame, tmp_path: Path) -> None:
    about = cells.provenance(frame, "x")
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        figure = figures.risk_against_threads(frame[frame["mix"] == "plain"])
        figures.save(figure, directory / "figure", about, ("svg", "png", "pdf"))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_many_mixes_give_several_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    many = pd.concat([frame[frame["mix"] == "plain"].assign(mix=f"mix {k}") for k in range(4)])
    many = many[many["variant"].isin(["watermark", "tickets draw-last"])]
    paths = figures.draw_all(many, None, tmp_path, ("svg",))
    assert [p.stem for p in paths][:2] == ["risk_against_reserve_1", "risk_against_reserve_2"]


def test_bad_requests_get_one_line(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="formats: 'bmp' is unknown; one of svg, png, pdf"):
        figures.draw_all(frame, None, tmp_path, ("bmp",))
    with pytest.raises(BadInput, match="table: has no column"):
        figures.risk_against_threads(frame.drop(columns="deadlock_probability_high"))
    with pytest.raises(BadInput, match="table: is empty"):
        text.table(frame.iloc[:0])
    with pytest.raises(BadInput, match="columns: 'risk' is unknown"):
        text.table(frame, ["risk"])
    with pytest.raises(BadInput, match="x: 'mix' is unknown"):
        text.curves(frame, "mix")


def test_reservelab_and_text_need_no_drawing_library() -> None:
    code = (
        "import sys, reservelab, reservelab.show.text;"
        "print([m for m in ('matplotlib', 'seaborn', 'statsmodels') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_drawing_leaves_the_settings_alone(frame: pd.DataFrame) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.dead(frame)
    assert dict(matplotlib.rcParams) == before


# --- Which cells ---------------------------------------------------------------------------------


def test_what_is_held(frame: pd.DataFrame) -> None:
    held = cells.hold(frame, ("reserve",))
    assert set(held.frame["threads"]) == {4}
    assert "4 threads (of 2, 4, 8)" in held.held
    plain = held.frame[held.frame["mix"] == "plain"]
    assert set(plain["reserve"]) == {-1, 1, 3, 6}
    held = cells.hold(frame, ("threads",))
    # `plain` needs 2 pages, `both` needs 3, so 3 is the first that covers each; two mempools of 3
    # go into 9 pages, two of 6 do not.
    assert set(held.frame["reserve"]) == {-1, 3}
    # A row of the result is a row of the frame.
    pd.testing.assert_frame_equal(held.frame, frame.loc[held.frame.index])


def test_a_variant_without_the_held_reserve_is_shown_at_its_own(frame: pd.DataFrame) -> None:
    part = frame[(frame["variant"] != "mempool") | (frame["reserve"] == 1)]
    held = cells.hold(part, ("threads",))
    assert set(held.frame.loc[held.frame["variant"] == "mempool", "reserve"]) == {1}
    assert "reserve 3 (C: 1)" in held.held


def test_cells_that_the_frame_cannot_tell_apart_are_refused(frame: pd.DataFrame) -> None:
    twice = pd.concat([frame, frame.assign(digest="other")])
    with pytest.raises(BadInput, match="more than one cell at mix plain, variant watermark"):
        cells.hold(twice, ("threads",))
    told = pd.concat([frame.assign(rate=1.0), frame.assign(rate=0.5)])
    held = cells.hold(told, ("threads",))
    assert "rate 1.0 (of 0.5, 1.0)" in held.held


def test_letters_depend_on_nothing_else() -> None:
    alone = cells.glyphs(["tickets draw-first"])
    assert alone == {"tickets draw-first": cells.glyphs(rl.variants())["tickets draw-first"]}
    many = cells.glyphs([*rl.variants(), *(f"custom {k}" for k in range(100))])
    letters = list(many.values())
    assert len(set(letters[: len(cells.GLYPHS)])) == len(cells.GLYPHS)
    assert set(letters[len(cells.GLYPHS) :]) == {"*"}
    assert not set(cells.GLYPHS) & set("|-+v<>Il1oO0")


@given(
    st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12),
)
def test_the_frontier_is_what_no_point_beats(points: list[tuple[int, ...]]) -> None:
    got = cells.frontier(np.array(points, dtype=float))
    for point, on_front in zip(points, got, strict=True):
        beaten = any(
            all(a <= b for a, b in zip(p, point, strict=True)) and p != point for p in points
        )
        assert on_front == (not beaten)


# --- Numbers in text -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ((0.3314, 0.33677, 0.3422), ("0.337", "0.331..0.343")),
        ((0.0, 0.0, 0.001843), ("none", "< 0.0019")),
        ((0.998157, 1.0, 1.0), ("all", "> 0.9981")),
        ((1.27e-5, 0.0005, 0.002783), ("0.0005", "0.0000..0.0028")),
        ((0.9e-7, 1.2e-7, 1.6e-7), ("1.2e-7", "0.9e-7..1.6e-7")),
        ((0.0, 0.0, 3.7e-8), ("none", "< 3.7e-8")),
        ((0.9999924339, 0.9999974110, 0.9999994661), ("0.9999974", "0.9999924..0.9999995")),
        ((0.99982, 0.9999692, 0.9999993), ("0.99997", "0.99982..1.00000")),
        ((0.0998889, 0.0999078, 0.0999261), ("0.099908", "0.099888..0.099927")),
        ((0.9999999963, 1.0, 1.0), ("all", "> 0.9999999963")),
        ((1 - 2.6e-7,) * 3, ("0.999999740000", "0.999999740000..0.999999740000")),
        ((0.0, math.nan, 1.0), ("?", "unknown")),
    ],
)
def test_risks_are_printed_to_the_digits_they_have(
    value: tuple[float, float, float], printed: tuple[str, str]
) -> None:
    assert text.risk(Interval(*value)) == printed


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ((12.31, 12.34567, 12.38), "12.3"), ((1234.0, 1300.0, 1400.0), "1300"),
        ((55.0, 55.0, 55.0), "55"), ((0.0, 0.0, 0.0), "0"), ((-math.inf, 3.0, math.inf), "3.00"),
        ((9.98, 9.997, 10.01), "10.0"), ((0.0, math.nan, math.inf), "?"),
        ((1.4e-7, 1.5e-7, 1.6e-7), "1.50e-7"),
    ],
)  # fmt: skip
def test_numbers_are_printed_to_the_digits_they_have(
    value: tuple[float, float, float], printed: str
) -> None:
    assert text.number(Interval(*value)) == printed


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    """Deadlocks and episodes, often with few episodes that deadlocked or few that did not."""
    episodes = draw(st.integers(1, 10**9))
    few = st.integers(0, min(episodes, 1000))
    others = few.map(lambda completed: episodes - completed)
    return draw(st.one_of(st.integers(0, episodes), few, others)), episodes


@given(counts())
@example((1_158_753, 1_158_756))
@example((1_089_864, 1_089_868))
@example((978_849, 978_851))
@example((32_489, 32_490))
@example((999_999_999, 1_000_000_000))
def test_a_printed_interval_contains_the_real_one(counted: tuple[int, int]) -> None:
    deadlocks, episodes = counted
    value = clopper_pearson(deadlocks, deadlocks, episodes)
    best, bounds = text.risk(value)
    slack = 1e-6  # of what the digits are counted from
    if best == "none":
        assert value.best == 0
        assert float(bounds.removeprefix("< ")) >= value.high * (1 - slack)
        assert float(bounds.removeprefix("< ")) <= value.high * 1.12
    elif best == "all":
        assert value.best == 1
        assert 1 - float(bounds.removeprefix("> ")) >= (1 - value.low) * (1 - slack)
        assert 1 - float(bounds.removeprefix("> ")) <= (1 - value.low) * 1.12
    else:
        low, high = map(float, bounds.split(".."))
        arm = min(value.best - value.low, value.high - value.best)
        assert low <= value.low + arm * slack
        assert high >= value.high - arm * slack
        # Rounding moves nothing by more than a third of the interval's shorter arm.
        assert abs(float(best) - value.best) <= arm / 5
        assert value.low - low <= arm / 2.9
        assert high - value.high <= arm / 2.9
        # Nor is a digit printed that the interval does not support.
        assert 10.0 ** int(Decimal(best).as_tuple().exponent) >= arm / 31
    # No exponent shortens what is near 1: a billion episodes tell 0.9999999990 from it. Beside its
    # best value and bounds, 39 columns together, a bar still has its 20.
    near_one = value.best > 0.9999
    assert len(best) <= (12 if near_one else 9)
    assert len(bounds) <= (26 if near_one else 22)


# --- Text ----------------------------------------------------------------------------------------

NAMES = [*rl.variants(), "custom mark/half_mark/free/nothing/free", "watermark max-sections=12",
         "custom " + "very/long/choices/" * 6, "gro\u00df \u2013 Gr\u00f6\u00dfe"]  # fmt: skip
MIXES = ["ext3", "server_2004", "\u00fcber alles \u2603", "a mix with a name " * 6]


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """Random cells, with bounds, unknowns and infinities where a sweep may have them."""
    places = draw(
        st.lists(
            st.tuples(
                st.sampled_from(MIXES), st.sampled_from(NAMES),
                st.sampled_from([1, 2, 3, 64, 4096]), st.sampled_from([-1, 0, 1, 7, 29, 100_000]),
                st.sampled_from([64, 10**6]), st.sampled_from(["asleep", "racing"]),
            ),
            min_size=1, max_size=25, unique=True,
        )
    )  # fmt: skip
    rows = []
    for k, (mix, variant, threads, reserve, pages, waiting) in enumerate(places):
        episodes = draw(st.sampled_from([0, 1, 2, 150, 10**7]))
        deadlocks = draw(st.integers(0, episodes))
        unfinished = draw(st.integers(0, min(2, episodes - deadlocks)))
        row: dict[str, Any] = {
            "digest": f"{k:064x}", "rules": 1, "scheme": variant.split()[0], "variant": variant,
            "waiting": waiting, "mix": mix, "seed": 1, "threads": threads, "pages": pages,
            "reserve": reserve, "need": 29, "mean_demand": 2.0, "quota": 4,
            "writepages": 4 * threads, "episodes": episodes, "deadlocks": deadlocks,
            "unfinished": unfinished,
        }  # fmt: skip
        for reason in REASONS:
            row[f"dead_{reason}"] = draw(st.integers(0, deadlocks))
        for name in ESTIMATES:
            if name == "deadlock_probability":
                value = clopper_pearson(deadlocks, deadlocks + unfinished, episodes)
            else:
                best = draw(st.one_of(st.just(0.0), st.floats(1e-9, 1e9), st.just(math.nan)))
                half = draw(st.one_of(st.just(0.0), st.floats(1e-9, 1e9), st.just(math.inf)))
                value = Interval(best - half, best, best + half)
            row |= dict(zip(cells.ends(name), value, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def check_text(printed: str) -> None:
    lines = printed.split("\n")
    assert lines.pop() == ""
    for line in lines:
        assert len(line) <= 72, line
        assert line == line.rstrip(), line
        assert all(" " <= c <= "~" for c in line), line


@settings(max_examples=40)
@given(frames())
def test_tables_are_plain_narrow_and_clean(frame: pd.DataFrame) -> None:
    check_text(text.table(frame))
    check_text(text.table(frame, [*ESTIMATES, "dead"]))
    check_text(text.dead(frame))
    check_text(text.report(frame, "reservelab figures " + "results/" * 20))


@settings(max_examples=40)
@given(frames(), st.sampled_from(list(cells.AXES)), st.sampled_from(ESTIMATES))
def test_plots_are_plain_narrow_and_clean(frame: pd.DataFrame, x: str, quantity: str) -> None:
    check_text(text.curves(frame, x, quantity))
    check_text(text.curves(frame, x, quantity, height=5))
    check_text(text.bars(frame, quantity))
    check_text(text.heat(frame, x, "variant", quantity))
    check_text(text.heat(frame, x, "pages" if x != "pages" else "quota", quantity))
    for cost in ("idle_mean", "throughput"):
        check_text(text.front(frame, cost))


def test_a_table_has_every_cell_and_its_numbers(frame: pd.DataFrame) -> None:
    part = frame[(frame["threads"] == 4) & frame["reserve"].isin([-1, 3])]
    lines = text.table(part).splitlines()
    letters = cells.glyphs(part["variant"])
    for mix in ("plain", "both"):
        here = part[part["mix"] == mix]
        start = next(k for k, line in enumerate(lines) if line.startswith(mix))
        for _, row in here.iterrows():
            name = f"{letters[row['variant']]} {row['variant']}"
            at = next(k for k in range(start, len(lines)) if lines[k].startswith(name))
            numbers = lines[at].removeprefix(name) or lines[at + 1]
            best, bounds = text.risk(cells.interval(row, "deadlock_probability"))
            assert numbers.split()[0] == best
            assert bounds in numbers
            idle = text.number(cells.interval(row, "idle_mean"))
            peak = text.number(cells.interval(row, "idle_peak"))
            match = re.search(rf"  {re.escape(idle)} +{re.escape(peak)} +(\S+)", numbers)
            assert match
            share = 100 * row["throughput_best"] / here["throughput_best"].max()
            assert float(match[1]) == pytest.approx(share, abs=1)


def test_a_plot_is_at_the_frame_s_places(frame: pd.DataFrame) -> None:
    """Each letter's row and column, read back, are the cell's value and setting."""
    part = frame[frame["reserve"].isin([-1, 3]) & (frame["mix"] == "plain")]
    part = part[part["variant"] != "mempool"]
    height = 25
    lines = text.curves(part, "threads", height=height).splitlines()
    top = next(k for k, line in enumerate(lines) if line.startswith("       +-"))
    plot = lines[top + 1 : top + 1 + height]
    decades = {k: float(line[:7]) for k, line in enumerate(plot) if line[:7].strip()}
    (first, high), *_, (last, low) = decades.items()
    letters = cells.glyphs(part["variant"])
    variants = cells.ordered(part["variant"])
    threads = sorted(part["threads"].unique())
    slot = (len(plot[0]) - 9) // len(threads)
    found = 0
    for column in range(8, len(plot[0]) - 1):
        down = [line[column] for line in plot]
        marks = [(k, sign) for k, sign in enumerate(down) if sign in letters.values()]
        if not marks:
            continue
        ((k, letter),) = marks  # no two letters in a column
        variant = next(v for v in variants if letters[v] == letter)
        count = threads[(column - 8) // slot]
        row = part[(part["variant"] == variant) & (part["threads"] == count)].iloc[0]
        best, upper = row["deadlock_probability_best"], row["deadlock_probability_high"]
        below = down[k + 1] if k + 1 < height else ""
        assert (below == "v") == (best == 0)
        share = math.log(high / (best or upper)) / math.log(high / low)
        assert abs(first + share * (last - first) - k) <= 1.01
        found += 1
    assert found == len(part)


def test_bars_of_a_zero_are_bounds(frame: pd.DataFrame) -> None:
    part = frame[
        (frame["threads"] == 4) & (frame["mix"] == "plain") & frame["reserve"].isin([-1, 3])
    ]
    lines = text.bars(part).splitlines()
    letters = cells.glyphs(part["variant"])
    for _, row in part.iterrows():
        letter = letters[row["variant"]]
        line = next(x for x in lines if x.startswith(f"{letter} |"))
        zero = row["deadlock_probability_best"] == 0
        assert ("none <" in line) == zero
        assert (line[3] == "<") == zero
        assert line[2:].count(letter) == 1


def test_a_heat_map_has_the_frame_s_numbers(frame: pd.DataFrame) -> None:
    """Each place, read back, is its cell's per cent, or a bound above its interval."""
    part = frame[frame["reserve"].isin([-1, 3]) & (frame["mix"] == "plain")]
    lines = text.heat(part).splitlines()
    heads = next(k for k, line in enumerate(lines) if line.split() == ["2", "4", "8"])
    letters = cells.glyphs(part["variant"])
    kinds = set()
    for variant in part["variant"].unique():
        line = next(x for x in lines[heads:] if x.startswith(f"{letters[variant]} |"))
        width = len(line[3:-1]) // 3
        for k, threads in enumerate((2, 4, 8)):
            printed = line[3 + k * (width + 1) :][:width]
            here = part[(part["variant"] == variant) & (part["threads"] == threads)]
            if here.empty:
                assert not printed.strip()
                continue
            best, high = here.iloc[0][["deadlock_probability_best", "deadlock_probability_high"]]
            shade, number = printed[0], printed.strip(" :+#@")
            if best == 0:
                assert shade == " "
                assert 100 * high <= float(number.removeprefix("<")) <= 110 * high + 1
            elif best >= 0.995:
                assert number == ("all" if best == 1 else ">99")
            else:
                assert float(number) == pytest.approx(100 * best, rel=0.5, abs=0.51)
            assert shade == " :+#@"[sum(best >= level for level in (0.01, 0.1, 0.5, 0.9))]
            kinds.add(shade)
    assert len(kinds) >= 4


def test_a_front_lists_what_nothing_beats(frame: pd.DataFrame) -> None:
    """The list is found again by comparing all pairs; dots are the rest."""
    part = frame[(frame["threads"] == 4) & (frame["mix"] == "plain")]
    lines = text.front(part).splitlines()
    three = part[["deadlock_probability_best", "idle_mean_best", "throughput_best"]].to_numpy()
    three = three * [1.0, 1.0, -1.0]
    variant, wanted = "", set()
    for (_, row), own in zip(part.iterrows(), three, strict=True):
        beaten = any((other <= own).all() and (other < own).any() for other in three)
        if not beaten and not np.isnan(own).any():
            reserve = "none" if row["reserve"] < 0 else str(row["reserve"])
            wanted.add((str(row["variant"]), reserve))
    rule = next(k for k, line in enumerate(lines) if line.startswith("-----"))
    variant_of = {letter: variant for variant, letter in cells.glyphs(part["variant"]).items()}
    listed = set()
    for line in lines[rule + 1 : lines.index("", rule)]:
        variant = variant_of[line[0]] if line[1] == " " and line[0] != " " else variant
        if found := re.search(r"  (none|\d+) +(?:none|all|[\d.]+) ", line):
            listed.add((variant, found[1]))
    assert listed == wanted
    assert 1 < len(wanted) < len(part)
    plot = "".join(line[8:-1] for line in lines if re.match("[ 1e\\d-]{6} [|+].*[|+]$", line))
    letters = cells.glyphs(part["variant"])
    shown = {sign for sign in plot if sign in letters.values()}
    on_front = {letters[variant] for variant, _ in wanted}
    assert shown <= on_front
    assert on_front - shown == set() or "*" in plot
    assert "." in plot


COEFFICIENTS = st.lists(
    st.tuples(
        st.sampled_from(NAMES), st.sampled_from(["asleep", "racing"]),
        st.sampled_from([("idle_mean", "log threads"), ("idle_peak", "log threads"),
                         ("deadlock", "threads"), ("deadlock", "reserve"), ("deadlock", "mix")]),
        st.floats(-1e3, 1e3), st.floats(0, 1e3) | st.just(math.inf),
    ),
    min_size=1, max_size=20, unique_by=lambda row: row[:3],
)  # fmt: skip


@settings(max_examples=40)
@given(COEFFICIENTS)
def test_a_table_of_fits_is_plain_narrow_and_clean(rows: list[tuple[Any, ...]]) -> None:
    frame = pd.DataFrame(
        [(v, w, q, t, best - half, best, best + half) for v, w, (q, t), best, half in rows],
        columns=["variant", "waiting", "quantity", "term", "low", "best", "high"],
    )
    check_text(text.scaling(frame))


def test_a_table_of_fits_has_their_numbers() -> None:
    rows = [
        ("perthread", "asleep", "idle_mean", "log threads", 0.812, 0.9, 1.101),
        ("perthread", "asleep", "deadlock", "threads", math.log(1.5), math.log(2), math.log(3)),
        ("perthread", "racing", "deadlock", "threads", 0.0, 5.0, 6.0),
        ("tickets draw-last", "asleep", "deadlock", "reserve", -math.inf, -2.0, -1.0),
    ]
    frame = pd.DataFrame(
        rows, columns=["variant", "waiting", "quantity", "term", "low", "best", "high"]
    )
    printed = text.scaling(frame)
    (row, _) = (line for line in printed.splitlines() if line.startswith("D "))
    assert row.split()[1:] == ["0.90", "[0.81,", "1.11]", "2.0", "[1.5,", "3.0]"]
    (row,) = (line for line in printed.splitlines() if line.startswith("N "))
    assert row.split()[1:] == ["0.14", "[0.00,", "0.37]"]
