"""A real cluster on this machine: a scheduler and two workers, each a process, over loopback TCP.

What is killed here is killed by SIGKILL, in the middle of the work, and must not change a bit.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from test_sweep import GRID, SIZES, content

from reservelab.solve.simulate import Cancelled
from reservelab.study import sweep as sweeping
from reservelab.study.results import Store
from reservelab.study.sweep import Episodes, Progress, run_batches, sweep

EPISODES = 10 * SIZES[-1]
LOOPBACK = ["--host", "127.0.0.1", "--no-dashboard"]


class Cluster:
    """Processes that are ended by their group, whatever happens to the test."""

    def __init__(self, folder: Path) -> None:
        self.address_file = folder / "scheduler.json"
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", *LOOPBACK, "--port", "0")

    def _start(self, kind: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", kind, *options]
        command += ["--scheduler-file", str(self.address_file)]
        with (self._folder / f"{kind}-{len(self._processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, start_new_session=True
            )
        self._processes.append(process)
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker of one thread; no nanny, so nobody starts it again."""
        scratch = ["--local-directory", str(self._folder)]
        return self._start("worker", *LOOPBACK, *scratch, "--no-nanny", "--nthreads", "1")

    @contextmanager
    def client(self, workers: int) -> Iterator[Client]:
        """Connect, and wait until so many workers are there."""
        deadline = time.monotonic() + 60
        while not self.address_file.exists():
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.05)
        connect: Any = Client
        with connect(scheduler_file=str(self.address_file), timeout=60) as client:
            client.wait_for_workers(workers, timeout=60)
            yield client

    def end(self) -> None:
        """End all processes, each by its own group; there is nothing they should tidy up."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("dask"))
    try:
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("serial") / "store")
    sweep(GRID, Episodes(EPISODES), store, workers=1)
    return store


def test_a_worker_killed_in_the_middle_changes_nothing(
    cluster: Cluster, serial: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tasks of a tenth of a second, so that there are many of them before and after the kill.
    monkeypatch.setattr(sweeping._Cluster, "seconds_per_task", 0.1)
    doomed, _ = cluster.worker(), cluster.worker()
    killed: list[Progress] = []

    def kill(progress: Progress) -> None:
        if not killed and progress.done > progress.total / 4:
            os.killpg(doomed.pid, signal.SIGKILL)
            doomed.wait()
            killed.append(progress)

    path = tmp_path / "store"
    with cluster.client(2) as client:
        assert len(client.nthreads()) == 2  # type: ignore[no-untyped-call]
        frame = sweep(GRID, Episodes(EPISODES), path, client=client, progress=kill)
        assert len(client.nthreads()) == 1  # type: ignore[no-untyped-call]
        modules = client.submit(eval, "list(__import__('sys').modules)").result()
    assert killed[0].done < killed[0].total
    assert content(path) == content(serial)
    assert frame.equals(serial.frame())
    # What a worker loads is what a worker needs.
    heavy = {"seaborn", "matplotlib", "statsmodels", "IPython", "ipywidgets", "jupyter_core"}
    assert "reservelab.study.sweep" in modules
    assert heavy & set(modules) == set()


CHILD = """
import sys
from distributed import Client
from reservelab.study import sweep as sweeping
from reservelab.study.grid import Grid
from reservelab.study.sweep import Episodes, sweep
sweeping._Cluster.seconds_per_task = 0.1
if __name__ == "__main__":
    client = Client(scheduler_file=sys.argv[1])
    sweep(Grid.from_toml(sys.argv[2]), Episodes(int(sys.argv[3])), sys.argv[4], client=client)
"""


def test_a_client_killed_in_the_middle_is_resumed(
    cluster: Cluster, serial: Store, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    cluster.worker()
    with cluster.client(2):
        pass  # both workers are there before the clock of the child runs
    arguments = [str(cluster.address_file), GRID.toml(), str(EPISODES), str(path)]
    with subprocess.Popen([sys.executable, "-c", CHILD, *arguments]) as process:
        try:
            while not list(path.glob("part-*.parquet")):
                assert process.poll() is None, "too fast for this test: make EPISODES larger"
                time.sleep(0.02)
        finally:
            process.kill()
    kept = len(Store(path).rows())
    assert 0 < kept < len(serial.rows())
    seen: list[Progress] = []
    stop = threading.Event()
    with cluster.client(2) as client:
        with pytest.raises(Cancelled):
            sweep(GRID, Episodes(EPISODES), path, client=client, stop=stop,
                  progress=lambda now: stop.set() if now.done > kept + 20 else None)  # fmt: skip
        assert len(Store(path).rows()) > kept + 20
        kept = len(Store(path).rows())
        frame = sweep(GRID, Episodes(EPISODES), path, client=client, progress=seen.append)
    assert seen[0].found == kept
    assert seen[-1].done == seen[-1].total
    assert content(path) == content(serial)
    assert frame.equals(serial.frame())


def test_a_worker_with_other_code_is_refused() -> None:
    scenario = GRID.scenarios()[0]
    ((tally, seconds),) = run_batches([(scenario, [3])], 1, sweeping._CODE)
    assert tally.keys.tolist() == [[1, 3]]
    assert seconds > 0
    with pytest.raises(RuntimeError, match="another version of reservelab than its client"):
        run_batches([(scenario, [3])], 1, "0123456789abcdef")
