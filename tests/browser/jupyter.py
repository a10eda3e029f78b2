"""A private Jupyter server and a browser in front of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
SECONDS = 90
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
]  # fmt: skip


@contextlib.contextmanager
def open_browser(executable: str) -> Iterator[Browser]:
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process in a group of its own, which is ended by its id."""

    def __init__(self, home: Path, words: Sequence[str], ready: str) -> None:
        self.home = home
        self.port = free_port()
        self.token = secrets.token_hex(16)
        folders = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
        # A private home, but the compiled code is taken from the cache there is.
        cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        self.environment = {
            **os.environ,
            **{f"JUPYTER_{name}": str(home / name.lower()) for name in folders},
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "IPYTHONDIR": str(home / "ipython"),
            "XDG_CACHE_HOME": cache,
            "HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        self.write_settings()
        self._log = (home / "server.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", *words, f"--port={self.port}"],
            cwd=home / "work",
            env=self.environment | {"JUPYTER_TOKEN": self.token},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._await(f"http://127.0.0.1:{self.port}{ready}")
        except BaseException:
            self.close()
            raise

    def write_settings(self, theme: str = "JupyterLab Light") -> None:
        (self.home / "work").mkdir(exist_ok=True)
        folder = self.home / "settings" / "@jupyterlab" / "apputils-extension"
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in (("notification", {"fetchNews": "false"}), ("themes", {"theme": theme})):
            (folder / f"{name}.jupyterlab-settings").write_text(json.dumps(value))

    def _await(self, url: str) -> None:
        """Until it answers: only then is it worth looking at a page."""
        end = time.monotonic() + SECONDS
        request = urllib.request.Request(url, headers={"Authorization": f"token {self.token}"})
        while True:
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    assert answer.status == 200
                return
            except OSError:
                log = (self.home / "server.log").read_text()
                assert self._process.poll() is None, f"the server ended:\n{log}"
                assert time.monotonic() < end, f"no answer in {SECONDS} s:\n{log}"
                time.sleep(0.1)

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Jupyter(Server):
    """JupyterLab over a directory of its own."""

    def __init__(self, home: Path, browser: Browser) -> None:
        self.browser = browser
        super().__init__(home, ["jupyterlab", "--no-browser", "--allow-root"], "/api/status")

    @contextlib.contextmanager
    def open(self, notebook: Path, *, dark: bool = False) -> Iterator[LabPage]:
        """Open a copy of a notebook; the page must be without errors when it is left."""
        self.write_settings("JupyterLab Dark" if dark else "JupyterLab Light")
        target = self.home / "work" / notebook.name
        target.write_bytes(notebook.read_bytes())
        context = self.browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(SECONDS * 1000)
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        try:
            url = f"http://127.0.0.1:{self.port}/lab/tree/{notebook.name}?reset&token={self.token}"
            page.goto(url)
            # The page calls a kernel idle that has not begun yet; the server knows better.
            end = time.monotonic() + SECONDS
            while not any(s["kernel"]["execution_state"] == "idle" for s in self._sessions()):
                assert time.monotonic() < end, "no kernel"
                page.wait_for_timeout(100)
            yield LabPage(page)
        finally:
            self._end_kernels()
            context.close()
        assert errors == []

    def _ask(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/sessions{path}",
            headers={"Authorization": f"token {self.token}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            body: bytes = answer.read()
        return body

    def _sessions(self) -> list[dict[str, Any]]:
        sessions: list[dict[str, Any]] = json.loads(self._ask(""))
        return sessions

    def _end_kernels(self) -> None:
        for session in self._sessions():
            self._ask(f"/{session['id']}", "DELETE")


class PanelPage:
    """A page with panels on it, used as a reader uses it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def part(self, test_id: str) -> Locator:
        """The first thing on the page with this test id."""
        return self.page.get_by_test_id(test_id).first

    def slider(self, label: str) -> Locator:
        return self.page.locator(".widget-slider").filter(
            has=self.page.get_by_text(label, exact=True)
        ).first  # fmt: skip

    def handle(self, label: str) -> Locator:
        return self.slider(label).locator(".noUi-handle")

    def key(self, label: str, key: str) -> None:
        """Press a key on a slider, once it is there to be seen."""
        expect(self.handle(label)).to_be_visible()
        self.handle(label).press(key)

    def press(self, name: str) -> None:
        # By its text: an icon is a character of its accessible name.
        button = self.page.locator("button.jupyter-button")
        button.filter(has_text=re.compile(rf"^\s*{name}\s*$")).first.click()

    def type_into_slider(self, label: str, value: object) -> None:
        readout = self.slider(label).locator(".widget-readout")
        readout.click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(str(value))
        self.page.keyboard.press("Enter")

    def drag(self, label: str, by: int) -> None:
        """Drag a slider's handle by so many pixels and let it go."""
        box = self.handle(label).bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + by / 2, y, steps=3)
        self.page.mouse.move(x + by, y, steps=3)
        self.page.mouse.up()

    def choose(self, label: str, option: str) -> None:
        box = self.page.locator(".widget-dropdown").filter(
            has=self.page.get_by_text(label, exact=True)
        ).first  # fmt: skip
        box.locator("select").select_option(label=option)

    def until(self, test_id: str, **data: object) -> Locator:
        """Wait until a status widget says so in its data attributes."""
        marks = "".join(f'[data-{name}="{value}"]' for name, value in data.items())
        self.page.locator(f'[data-testid="{test_id}"]{marks}').first.wait_for(state="attached")
        return self.part(test_id)

    def figure_changes(self, test_id: str, before: str | None) -> str:
        """Wait for a figure other than that, and return it."""
        self.page.wait_for_function(
            """([id, before]) => {
                const figure = document.querySelector(`[data-testid="${id}"]`);
                return figure !== null && figure.src !== before && figure.complete
                    && figure.naturalWidth > 0;
            }""",
            arg=[test_id, before],
        )
        return self.figure(test_id)

    def figure(self, test_id: str) -> str:
        source = self.part(test_id).get_attribute("src")
        assert source is not None
        return source

    def show(self, test_id: str) -> None:
        """Scroll a widget into view; one that is replaced meanwhile has the same place."""
        self.part(test_id).wait_for(state="attached")
        self.page.evaluate(
            """async id => {
                const part = document.querySelector(`[data-testid="${id}"]`);
                part.scrollIntoView({block: "center"});
                for (let k = 0; k < 3; k++) await new Promise(requestAnimationFrame);
            }""",
            test_id,
        )

    def picture(self, test_id: str, path: Path) -> None:
        """A screenshot with that widget in the middle."""
        self.show(test_id)
        self.page.mouse.move(2, 2)  # no tooltip
        self.page.screenshot(path=path)


class LabPage(PanelPage):
    """A notebook in JupyterLab."""

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self.idle()

    def idle(self) -> None:
        """Wait until the kernel has nothing to do."""
        self.page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()

    def menu(self, bar: str, *names: str) -> None:
        self.page.get_by_role("menuitem", name=bar, exact=True).click()
        for name in names:
            self.page.locator(".lm-Menu-itemLabel").get_by_text(name, exact=True).click()

    def theme(self, name: str) -> None:
        self.menu("Settings", "Theme", name)
        light = "true" if name == "JupyterLab Light" else "false"
        self.page.locator(f"body[data-jp-theme-light={light}]").wait_for(state="attached")

    def run_all(self) -> None:
        """Run every cell, as a reader would; there must be no error among the outputs."""
        self.menu("Run", "Run All Cells")
        last = self.page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").last
        expect(last).to_have_text(re.compile(r"\[\d+\]:"))
        self.idle()
        self.no_error_output()

    def no_error_output(self) -> None:
        kinds = "[data-mime-type*=stderr], [data-mime-type*=error]"
        expect(self.page.locator(kinds)).to_have_count(0)
        expect(self.page.locator(".jupyter-widgets-error-widget")).to_have_count(0)
