"""Chromium under Selenium, and a JupyterLab for it to open; used by the tests and by `docs/make_screenshots.py`."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).parents[2]
PROGRAMS = {"chromium": "chromium", "chromedriver": "chromium-driver"}
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
NOTEBOOK = "[...jupyterapp.shell.widgets('main')][0]"  # the only tab
KERNEL_IDLE = f"return window.jupyterapp && {NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle'"


def missing_programs() -> str:
    """What is not installed, with the remedy; empty where nothing is missing."""
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    return f"not installed: {', '.join(missing)} (Debian: apt install {' '.join(missing)})" if missing else ""


@contextmanager
def open_browser(folder: Path) -> Iterator[webdriver.Chrome]:
    """A fresh headless browser, 1600×1400, that keeps its files in `folder` and logs console and network."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    switches = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    switches += ["--window-size=1600,1400", "--disable-background-networking", f"--user-data-dir={folder / 'chromium'}"]
    switches += ["--no-sandbox"] if os.geteuid() == 0 else []
    for switch in switches:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def console_errors(driver: webdriver.Chrome) -> list[str]:
    """Errors on the console since the last call."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requested_urls(driver: webdriver.Chrome) -> list[str]:
    """URLs requested since the last call, web sockets included, without the browser's own pages."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    sent += [e["params"]["url"] for e in events if e["method"] == "Network.webSocketCreated"]
    return [url for url in sent if not url.startswith("chrome")]


def wait_for(driver: webdriver.Chrome, script: str, seconds: float = 30, message: str = ""):
    """The result of JavaScript that returns a value, as soon as it is true."""
    return WebDriverWait(driver, seconds, 0.2).until(lambda d: d.execute_script(script), message or script)


def run_all_cells(driver: webdriver.Chrome, address: str, seconds: float = 240) -> None:
    """Open a notebook in JupyterLab and run it from top to bottom; a failing cell is an AssertionError."""
    driver.get(address)
    wait_for(driver, KERNEL_IDLE, seconds, "no kernel")
    driver.execute_script(f"jupyterapp.shell.activateById({NOTEBOOK}.id)")
    driver.execute_script("void jupyterapp.commands.execute('notebook:run-all-cells')")
    cells = f"{NOTEBOOK}.content.model.sharedModel.cells.filter((cell) => cell.cell_type === 'code')"
    errors = f"{cells}.flatMap((cell) => cell.outputs).filter((output) => output.output_type === 'error')"
    wait_for(
        driver, f"return {cells}.every((cell) => cell.execution_count) || {errors}.length", seconds, "cells run on"
    )
    assert driver.execute_script(f"return {errors}.map((output) => output.evalue)") == []


def find(driver: webdriver.Chrome, selector: str):
    """The first element of a CSS selector, scrolled into view."""
    element = driver.find_element(By.CSS_SELECTOR, selector)
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    return element


def read_notebook(name: str, parameters: Mapping[str, Any]) -> nbformat.NotebookNode:
    """A notebook of the repository with other parameters."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    cell.source = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    return notebook


@contextmanager
def serve_notebook(folder: Path, notebook: nbformat.NotebookNode, **variables: str) -> Iterator[str]:
    """JupyterLab on a free port over one notebook; its files lie in `folder`. Yields the notebook's address.

    Args:
        variables: environment variables for server and kernel.
    """
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    nbformat.write(notebook, notebooks / "notebook.ipynb")
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
    log = folder / "jupyterlab.log"
    command = [sys.executable, "-m", "jupyterlab", *options]
    with open(log, "w") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        _await_answer(f"http://127.0.0.1:{port}/api/status", server, log)
        yield f"http://127.0.0.1:{port}/lab/tree/notebook.ipynb"
    finally:
        server.terminate()  # it stops its kernels first
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _await_answer(url: str, server: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not answer within {seconds} s:\n{log.read_text()[-3000:]}")
