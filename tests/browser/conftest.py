import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser.jupyter import Jupyter, open_browser

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser: one line for whoever works here, a failure for CI."""
    if CHROMIUM is None and os.environ.get("CI") != "true":
        skip = pytest.mark.skip(reason="no chromium here: apt-get install chromium")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots go: for people to look at, and kept by CI."""
    directory = Path(os.environ.get("SCREENSHOTS", ROOT / "results" / "browser"))
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """One JupyterLab for all tests, with a private home and a copy of the notebooks."""
    assert CHROMIUM is not None, "CI has no chromium: .ci/run installs it"
    home = tmp_path_factory.mktemp("jupyter")
    with open_browser(CHROMIUM) as browser, Jupyter(home, browser) as server:
        yield server
