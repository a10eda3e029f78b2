"""The wheel, built from the checkout and used where the checkout is not."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", directory, ROOT, cwd=directory)
    (path,) = directory.glob("reservelab-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, "--target", target, wheel, cwd=target)
    return target


def test_carries_catalogues_demo_grid_types_and_licenses(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    catalogues = {
        f"reservelab/data/{path.relative_to(ROOT / 'data')}"
        for folder in (ROOT / "data", ROOT / "data" / "claims")
        for path in folder.glob("*.toml")
    }
    assert catalogues
    assert catalogues <= names
    assert {"reservelab/data/grids/demo.toml", "reservelab/py.typed"} <= names
    texts = {name.rsplit("/", 1)[-1] for name in names if ".dist-info/licenses/" in name}
    assert texts == {"LICENSE", "MIT.txt", "GPL-2.0-only.txt"}
    strangers = [
        name
        for name in names
        if not name.startswith(("reservelab/", "reservelab-")) or "/verification/" in name
    ]
    assert not strangers
    large = {name: size for name, size in sizes.items() if size > 1_000_000}
    assert not large


def test_simulates_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    # PYTHONPATH stands before the checkout's editable install; the first command proves it.
    where = run(
        sys.executable,
        "-c",
        "import reservelab; print(reservelab.__file__)",
        cwd=tmp_path,
        PYTHONPATH=str(installed),
    )
    assert Path(where.strip()).is_relative_to(installed)
    command = (
        "simulate --scheme global --mount ext3:8 --pages 64 --reserve 10 --episodes 1000 --seed 1"
    )
    output = run(
        sys.executable,
        *["-m", "reservelab", *command.split(), "--json"],
        cwd=tmp_path,
        PYTHONPATH=str(installed),
    )
    assert json.loads(output)["episodes"] == 1000
