"""The notebooks run from top to bottom with small parameters, and are the scripts beside them.

The cell tagged ``parameters`` has the real values, and in its metadata the small ones, under
``small``. Each notebook's last cell asserts what the notebook found, on a fixed seed. `make
notebooks` runs them as they stand.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
SECONDS = 240  # on a machine that does four other things; alone a tenth of that
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def parameters(notebook: Any) -> Any:  # noqa: ANN401 - nbformat ships no types
    """The one cell of parameters."""
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    return cell


def assigned(source: str) -> list[str]:
    """The names a cell of parameters sets."""
    return [ast.unparse(node.targets[0]) for node in ast.parse(source).body]  # type: ignore[attr-defined]


def test_they_are_the_nine() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"0{k}" for k in range(1, 10)]
    assert [path.stem for path in SCRIPTS] == [path.stem for path in NOTEBOOKS]


@each_notebook
def test_a_notebook_is_its_script(path: Path) -> None:
    """Otherwise run .venv/bin/jupytext --sync notebooks/*.py."""
    notebook, script = jupytext.read(path), jupytext.read(path.with_suffix(".py"))
    for one, other in zip(notebook.cells, script.cells, strict=True):
        assert (one.cell_type, one.source) == (other.cell_type, other.source)
        assert one.metadata == other.metadata
    for read in (notebook, script):
        assert read.metadata["kernelspec"]["name"] == "python3"
    assert notebook.metadata["jupytext"]["formats"] == "ipynb,py:percent"


@each_notebook
def test_a_notebook_asks_cites_and_asserts(path: Path) -> None:
    notebook = jupytext.read(path)
    first, last = notebook.cells[0], notebook.cells[-1]
    assert first.source.startswith(f"# {path.stem[:2]} ")
    assert re.search(r"\*\*[^*]+\?\*\*", first.source), "no question"
    assert "lore.kernel.org/all/" in first.source, "no citation"
    assert "assert " in last.source
    assert "seed" in assigned(parameters(notebook).source)


@each_notebook
def test_small_parameters_are_parameters(path: Path) -> None:
    cell = parameters(jupytext.read(path))
    assert cell.metadata["small"].keys() <= set(assigned(cell.source))


@each_notebook
def test_links_of_a_notebook_lead_somewhere(path: Path) -> None:
    for cell in jupytext.read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#]+)", cell.source):
                assert target.startswith("https://") or (path.parent / target).exists(), target


def run(path: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a notebook with its small parameters where it may leave what it likes."""
    notebook = jupytext.read(path)
    cell = parameters(notebook)
    for name, value in cell.metadata["small"].items():
        cell.source += f"\n{name} = {value!r}"
    jupytext.write(notebook, directory / path.name)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbmake", f"--nbmake-timeout={SECONDS}",
         "--overwrite", "-p", "no:cacheprovider", path.name],
        cwd=directory, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=SECONDS + 60, check=False,
    )  # fmt: skip


@each_notebook
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    done = run(path, tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    outputs = [o for c in jupytext.read(tmp_path / path.name).cells for o in c.get("outputs", ())]
    assert outputs
    assert not [o for o in outputs if o.get("name") == "stderr"], "a warning or a complaint"
    if path.stem.startswith("07"):  # it, README and mail quote the same verdicts
        printed = "".join(o["text"] for o in outputs if o.get("name") == "stdout")
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        table = re.search(r"<!-- claims -->\n```text\n(.*?)```", readme, re.S)
        assert table is not None
        assert table[1] in printed


def test_a_finding_that_is_false_is_noticed(tmp_path: Path) -> None:
    notebook = jupytext.read(NOTEBOOKS[0])
    notebook.cells = [parameters(notebook)]
    notebook.cells.append(jupytext.read(NOTEBOOKS[0]).cells[-1])
    notebook.cells[-1].source = "assert seed == 'planted'"
    jupytext.write(notebook, tmp_path / "false.ipynb")
    done = run(tmp_path / "false.ipynb", tmp_path)
    assert done.returncode == 1
    assert "planted" in done.stdout
