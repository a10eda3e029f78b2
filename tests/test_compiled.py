"""The cache of compiled code sees an edit in another file, and can be done without.

Each check runs in its own process on a copy of the package: caller in solve/simulate.py, callee in
solve/rules.py. numba alone would keep the old callee (it looks at the caller's file only).
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reservelab.solve import compiled

ROOT = Path(__file__).parents[1]
RUN = """
import json
import reservelab as rl
from reservelab.model import pack as p
from reservelab.solve import compiled, simulate
import numpy as np
fs = rl.Filesystem.from_text("fs", ["alloc 1", "submit"])
mounts = (rl.Mount(fs, 1, device=rl.Device(3.0)),)
scenario = rl.Scenario(rl.Machine(1), mounts, rl.Watermark(0))
tables = p.pack(scenario)
weights = np.zeros(int(tables.t[p.H_CONDITIONAL]) + 1)
total = simulate.weigh(tables.t, tables.f, tables.state(), weights)[0]
stats = simulate.weigh.stats
print(json.dumps({
    "file": rl.__file__, "total": total, "directory": compiled._DIRECTORY,
    "hits": sum(stats.cache_hits.values()), "misses": sum(stats.cache_misses.values()),
}))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a checkout has of the package."""
    for name in ("reservelab", "data"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / "site" / name, ignore=ignored)
    return tmp_path / "site"


def run(checkout: Path, **environment: str) -> dict[str, Any]:
    """Weigh a state without threads that has one bio's worth of device: total is its rate."""
    ours = {"HOME", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "NUMBA_DISABLE_JIT"}
    kept = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN],
        cwd=checkout.parent,
        env=kept | {"PYTHONPATH": str(checkout)} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert Path(found["file"]).is_relative_to(checkout)
    return found


def test_an_edit_of_a_callee_in_another_file_is_seen(checkout: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    before = run(checkout, NUMBA_CACHE_DIR=cache)
    again = run(checkout, NUMBA_CACHE_DIR=cache)
    assert (before["total"], before["hits"], before["misses"]) == (0.0, 0, 1)
    assert (again["total"], again["hits"], again["misses"]) == (0.0, 1, 0)

    rules = checkout / "reservelab" / "solve" / "rules.py"
    text = rules.read_text()
    head = "def device_channels(t: Table, s: Table, mount: int) -> int:\n"
    assert text.count(head) == 1
    rules.write_text(text.replace(head, head + "    return 2\n"))
    edited = run(checkout, NUMBA_CACHE_DIR=cache)
    assert (edited["total"], edited["hits"], edited["misses"]) == (2 * 3.0, 0, 1)

    # What was compiled before the edit is still there, and good again once it is undone.
    rules.write_text(text)
    undone = run(checkout, NUMBA_CACHE_DIR=cache)
    assert (undone["total"], undone["hits"]) == (0.0, 1)


def test_a_read_only_install_without_a_home_works(checkout: Path) -> None:
    directories = [checkout, *(path for path in checkout.rglob("*") if path.is_dir())]
    for directory in directories:
        directory.chmod(0o555)
    try:
        found = run(checkout, HOME="/dev/null", PYTHONDONTWRITEBYTECODE="1")
    finally:
        for directory in directories:
            directory.chmod(0o755)
    assert found["directory"] is None
    assert (found["total"], found["hits"]) == (0.0, 0)
    assert not list(checkout.rglob("*.nb[ci]"))


def test_nobody_has_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without an entry in the system's list: Python raises RuntimeError."""

    def homeless() -> Path:
        raise RuntimeError("could not determine home directory")

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert compiled._cache_directory() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory = compiled._cache_directory()
    assert directory is not None
    assert Path(directory).is_relative_to(tmp_path)


def test_the_digest_sees_every_source_that_is_compiled_in(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "reservelab", tmp_path / "reservelab")
    solve = tmp_path / "reservelab" / "solve"
    seen = {compiled.sources_digest(solve)}
    assert seen == {compiled.sources_digest()}
    # Every file that a compiled function comes from, as the running package has it.
    modules = [
        importlib.import_module(f"reservelab.solve.{path.stem}") for path in solve.glob("*.py")
    ]
    used = {
        function.__module__.rpartition(".")[2] + ".py"
        for module in modules
        for function in vars(module).values()
        if hasattr(function, "py_func")
    }
    assert {"rules.py", "simulate.py", "states.py", "stream.py", "exact.py"} <= used
    sources = [*(solve / name for name in sorted(used)), solve.parent / "model" / "pack.py"]
    for path in sources:
        path.write_text(path.read_text() + "\n# edited\n")
        seen.add(compiled.sources_digest(solve))
    (solve / "new.py").write_text("from reservelab.solve.compiled import compiled\n")
    seen.add(compiled.sources_digest(solve))
    assert len(seen) == len(sources) + 2
    (solve / "walk.py").write_text("# nothing of it is compiled\n")
    assert compiled.sources_digest(solve) in seen
