"""The bench as a page of its own, by Voila."""

from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest

from browser.jupyter import Jupyter, PanelPage, Server

SCRIPT = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %%
import reservelab as rl

rl.Bench(mix="network_2004", threads=6)
"""


@pytest.fixture
def voila(tmp_path: Path) -> Iterator[Server]:
    work = tmp_path / "work"
    work.mkdir()
    jupytext.write(jupytext.reads(SCRIPT, fmt="py:percent"), work / "bench.ipynb")
    with Server(tmp_path, ["voila", ".", "--no-browser"], "/") as server:
        yield server


def test_the_bench_is_a_page(voila: Server, jupyter: Jupyter, pictures: Path) -> None:
    context = jupyter.browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://127.0.0.1:{voila.port}/voila/render/bench.ipynb")
    bench = PanelPage(page)
    before = bench.until("bench-numbers", threads=6, complete=1, state="done").text_content()
    figure = bench.figure_changes("bench-figure", None)
    bench.handle("flushers").focus()
    page.keyboard.press("ArrowRight")
    numbers = bench.until("bench-numbers", threads=7, complete=1, state="done")
    assert numbers.text_content() != before
    bench.until("bench-figure", of="7 flushers, done")
    bench.figure_changes("bench-figure", figure)
    page.screenshot(path=pictures / "voila.png", full_page=True)
    assert errors == []
    context.close()
