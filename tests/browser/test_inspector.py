"""Notebook 09 in JupyterLab: it runs from top to bottom, and its slider and its box change the pictures."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NAME = "09_inspect_predictions.ipynb"
FEW = {"data.limit_frames": 1}
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
NOTEBOOK = "[...jupyterapp.shell.widgets('main')][0]"  # the only tab
KERNEL = f"{NOTEBOOK}?.sessionContext?.session?.kernel?.status"
INSPECTOR = "document.querySelector('.rossam-inspector')"
TILES = f"[...{INSPECTOR}.querySelectorAll('img.widget-image')].filter((image) => image.offsetWidth)"
BYTES = (  # what the pictures hold, so that equal pictures compare equal however often they are sent
    "(async (images) => (await Promise.all(images.map(async (image) => {"
    "  const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());"
    "  return bytes.reduce((hash, byte) => (hash * 31 + byte) | 0, bytes.length);"
    "}))).join())"
)


@pytest.fixture
def jupyterlab(tmp_path):
    """JupyterLab on a free port over a folder that holds notebook 09 for the smoke profile; yields its address."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    notebook = nbformat.read(ROOT / "notebooks" / NAME, as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    cell.source = (
        f'profile = "smoke"\noverrides = {json.dumps(json.dumps(FEW))}\nreport_dir = {str(tmp_path / "report")!r}'
    )
    nbformat.write(notebook, notebooks / NAME)
    for name, values in SETTINGS.items():
        path = tmp_path / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
             "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
             "ROSSAM_CACHE": "cache"}  # fmt: skip
    environment = os.environ | {name: str(tmp_path / folder) for name, folder in homes.items()}
    environment |= {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": str(ROOT)}
    options = [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1", "--no-browser",
               "--IdentityProvider.token=", f"--ServerApp.root_dir={notebooks}", "--allow-root",
               "--LabApp.expose_app_in_browser=True", "--ServerApp.terminals_enabled=False"]  # fmt: skip
    with open(tmp_path / "jupyterlab.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _await_answer(f"{address}/api/status", server, tmp_path / "jupyterlab.log")
        yield address
    finally:
        server.terminate()  # it ends its kernels before itself
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _await_answer(url: str, server: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not answer within {seconds} s:\n{log.read_text()[-3000:]}")


def rectangle(page, element: str) -> tuple[float, float, float, float]:
    """Left, top, width and height of a DOM element, scrolled into view."""
    page.evaluate(f"({element}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
    return page.evaluate(f"((r) => [r.left, r.top, r.width, r.height])(({element}).getBoundingClientRect())")


def settled(page, unlike: str = "") -> str:
    """Fingerprint of the tiles, once they are others than `unlike` and the kernel has nothing left to do."""
    until, last = time.monotonic() + 30, None
    while time.monotonic() < until:
        now = page.evaluate(f"{BYTES}({TILES})")
        if now == last != unlike and page.evaluate(f"{KERNEL} === 'idle'"):
            return now
        last = now
        time.sleep(0.3)
    pytest.fail("the pictures stayed as they were: " + page.evaluate(f"{INSPECTOR}.textContent"))


@pytest.mark.timeout(400)
def test_the_slider_and_a_dragged_box_change_the_pictures(page, jupyterlab):
    page.call("Page.navigate", url=f"{jupyterlab}/lab/tree/{NAME}")
    page.wait(f"window.jupyterapp && {KERNEL} === 'idle'", 90, "a kernel")
    page.evaluate(f"jupyterapp.shell.activateById({NOTEBOOK}.id)")
    page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
    cells = f"{NOTEBOOK}.content.model.sharedModel.cells.filter((cell) => cell.cell_type === 'code')"
    page.wait(f"{cells}.every((cell) => cell.execution_count)", 200, "the end of the notebook")
    problems = f"{cells}.flatMap((cell) => cell.outputs).filter((output) => output.output_type === 'error')"
    assert page.evaluate(f"{problems}.map((output) => output.evalue)") == []
    page.wait(f"{INSPECTOR} && {TILES}.length >= 2 && {TILES}.every((image) => image.naturalWidth)")
    first = settled(page)

    slider = f"{INSPECTOR}.querySelector('.noUi-target')"
    left, top, width, height = rectangle(page, f"{slider}.querySelector('.noUi-handle')")
    handle = left + width / 2, top + height / 2
    page.drag(handle, (handle[0] + 0.6 * rectangle(page, slider)[2], handle[1]))
    second = settled(page, unlike=first)
    assert "1 of " not in page.evaluate(f"{INSPECTOR}.querySelector('.rossam-title').textContent")

    left, top, width, height = rectangle(page, f"{INSPECTOR}.querySelector('.wrapper img')")
    page.drag(*((left + at * width, top + at * height) for at in (0.1, 0.4)))
    settled(page, unlike=second)
    assert "0 windows encoded" in page.evaluate(f"{INSPECTOR}.textContent"), (
        "a box drawn in the window needs no encoder"
    )
    assert page.evaluate(f"{INSPECTOR}.querySelectorAll('.rossam-error').length") == 0
    assert page.errors == []
