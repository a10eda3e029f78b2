import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# Pictures are drawn to files here; a test must not look for a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

# Everywhere the same examples, so that a red test is red for everybody; `make verify` draws fresh
# ones. No deadline: the first example pays for compiling.
settings.register_profile("fixed", derandomize=True, max_examples=100, deadline=None, database=None)
settings.register_profile("verify", max_examples=1_000, deadline=None)
# Where only the first failure counts (tests/test_mutants.py).
settings.register_profile("unshrunk", settings.get_profile("fixed"), phases=[Phase.generate])
settings.load_profile("fixed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--table", metavar="DIRECTORY", type=Path, help="write what was verified to files there"
    )
    parser.addoption(
        "--seed", metavar="NUMBER", type=int, default=20041106,
        help="of the scenarios that tests/test_truths.py draws",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "truth(kind, check, source): what a test verifies (verification_table.py)"
    )
    if (directory := config.getoption("--table")) is not None:
        from verification_table import Table  # only where asked for: it imports the package

        command = ["pytest", *config.invocation_params.args]
        config.pluginmanager.register(Table(directory, command), "verification-table")
