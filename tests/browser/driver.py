"""A headless Chromium driven over the DevTools protocol, and a JupyterLab for it to open."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
import websocket

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
NOTEBOOK = "[...jupyterapp.shell.widgets('main')][0]"  # the only tab
KERNEL = f"{NOTEBOOK}?.sessionContext?.session?.kernel?.status"


class Page:
    """One tab: navigate, evaluate JavaScript, use the mouse and keys, and see what it asked the network for.

    Attributes:
        requests: URLs the tab has requested.
        errors: console errors and uncaught exceptions, as text.
    """

    def __init__(self, address: str):
        self.requests, self.errors, self._last = [], [], 0
        self._socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # as if the window were in front

    def call(self, method: str, **parameters):
        """Send one command and return its result; events that come in between are noted."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._last:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def _note(self, event) -> None:
        name, values = event.get("method"), event.get("params", {})
        if name == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif name == "Network.webSocketCreated":
            self.requests.append(values["url"])
        elif name == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif name == "Runtime.consoleAPICalled" and values["type"] == "error":
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in values["args"]))
        elif name == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.errors.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")

    def evaluate(self, expression: str):
        """The value of a JavaScript expression; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = 30, why: str = ""):
        """The expression's value as soon as it is true."""
        until = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < until, f"{why or expression} did not come true in {seconds} s; {self.errors}"
            time.sleep(0.1)
        return value

    def drag(self, start, end, steps: int = 6) -> None:
        """Press the left button at `start`, move to `end`, release; page coordinates of the viewport."""
        points = [[a + (b - a) * i / steps for a, b in zip(start, end, strict=True)] for i in range(steps + 1)]
        self._mouse("mouseMoved", points[0], buttons=0)
        self._mouse("mousePressed", points[0])
        for point in points[1:]:
            self._mouse("mouseMoved", point)
        self._mouse("mouseReleased", points[-1], buttons=0)

    def _mouse(self, kind: str, point, buttons: int = 1) -> None:
        button = "none" if kind == "mouseMoved" and not buttons else "left"
        x, y = point
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=buttons, clickCount=1)

    def rectangle(self, element: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of a DOM element, scrolled into view."""
        self.evaluate(f"({element}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        return self.evaluate(f"((r) => [r.left, r.top, r.width, r.height])(({element}).getBoundingClientRect())")

    def screenshot(self, clip: Sequence[float] | None = None) -> bytes:
        """What is in view as PNG, or the part `clip`: left, top, width, height."""
        part = {} if clip is None else {"clip": dict(zip(("x", "y", "width", "height"), clip, strict=True), scale=1)}
        return base64.b64decode(self.call("Page.captureScreenshot", **part)["data"])

    def close(self) -> None:
        self._socket.close()


def find_chromium() -> str | None:
    """Path of the browser, None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def open_tab(folder: Path) -> Iterator[Page]:
    """A fresh tab of a fresh browser, 1600×1400, that keeps its files in `folder`."""
    profile = folder / "chromium"
    switches = [
        *("--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"),
        *("--disable-component-update", "--disable-dev-shm-usage", "--window-size=1600,1400", "--hide-scrollbars"),
        *("--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}"),
    ]
    if os.geteuid() == 0:
        switches.append("--no-sandbox")
    browser = subprocess.Popen(
        [find_chromium(), *switches, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    tab = None
    try:
        tab = Page(_tab_address(profile / "DevToolsActivePort", browser))
        yield tab
    finally:
        if tab is not None:
            tab.close()
        browser.terminate()
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()


@contextmanager
def serve_notebook(folder: Path, name: str, parameters: Mapping[str, str], **variables: str) -> Iterator[str]:
    """JupyterLab on a free port over a copy of one notebook; its files lie in `folder`. Yields the notebook's address.

    Args:
        parameters: what its cell of parameters holds instead of what is in the repository.
        variables: environment variables for server and kernel.
    """
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    cell.source = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    nbformat.write(notebook, notebooks / f"{name}.ipynb")
    for setting, values in SETTINGS.items():
        path = folder / "settings/@jupyterlab" / f"{setting}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
             "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
             "IPYTHONDIR": "ipython"}  # fmt: skip
    environment = os.environ | {home: str(folder / place) for home, place in homes.items()} | variables
    environment |= {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": str(ROOT)}
    options = [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1", "--no-browser",
               "--IdentityProvider.token=", f"--ServerApp.root_dir={notebooks}", "--allow-root",
               "--LabApp.expose_app_in_browser=True", "--ServerApp.terminals_enabled=False"]  # fmt: skip
    with open(folder / "jupyterlab.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await_answer(f"http://127.0.0.1:{port}/api/status", server, folder / "jupyterlab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/{name}.ipynb"
    finally:
        server.terminate()  # it ends its kernels before itself
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def run_all_cells(page: Page, address: str, seconds: float = 200) -> None:
    """Open a notebook in JupyterLab and run it from top to bottom; a failing cell is an AssertionError."""
    page.call("Page.navigate", url=address)
    page.wait(f"window.jupyterapp && {KERNEL} === 'idle'", seconds, "a kernel")
    page.evaluate(f"jupyterapp.shell.activateById({NOTEBOOK}.id)")
    page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
    cells = f"{NOTEBOOK}.content.model.sharedModel.cells.filter((cell) => cell.cell_type === 'code')"
    page.wait(f"{cells}.every((cell) => cell.execution_count)", seconds, "the end of the notebook")
    problems = f"{cells}.flatMap((cell) => cell.outputs).filter((output) => output.output_type === 'error')"
    assert page.evaluate(f"{problems}.map((output) => output.evalue)") == []


def _await_answer(url: str, server: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not answer within {seconds} s:\n{log.read_text()[-3000:]}")


def _tab_address(port_file: Path, browser: subprocess.Popen, seconds: float = 30) -> str:
    """The DevTools address of the browser's first tab, as soon as it has one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and browser.poll() is None:
        if port_file.exists() and (text := port_file.read_text().split()):
            with urllib.request.urlopen(f"http://127.0.0.1:{text[0]}/json/list", timeout=10) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return tabs[0]["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise RuntimeError(f"chromium did not start within {seconds} s (exit status {browser.poll()})")
