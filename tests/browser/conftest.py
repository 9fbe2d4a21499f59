"""A headless Chromium that tests drive over the DevTools protocol; without one they skip and say so."""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import websocket


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

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def page(tmp_path):
    """A fresh tab of a fresh browser, 1600×1400."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("chromium is not installed (Debian: apt install chromium): pages go unchecked in a browser")
    profile = tmp_path / "chromium"
    switches = [
        *("--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"),
        *("--disable-component-update", "--disable-dev-shm-usage", "--window-size=1600,1400"),
        *("--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}"),
    ]
    if os.geteuid() == 0:
        switches.append("--no-sandbox")
    browser = subprocess.Popen(
        [chromium, *switches, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
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
    pytest.fail(f"chromium is installed but did not start within {seconds} s (exit status {browser.poll()})")
