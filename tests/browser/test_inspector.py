"""Notebook 09 in JupyterLab: it runs from top to bottom, and its slider and its box change the pictures."""

import json
import time

import driver
import pytest

NAME = "09_inspect_predictions"
FEW = {"data.limit_frames": 1}
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
    """Address of notebook 09 for the smoke profile in a JupyterLab of its own."""
    parameters = {"profile": "smoke", "overrides": json.dumps(FEW), "report_dir": str(tmp_path / "report")}
    with driver.serve_notebook(tmp_path, NAME, parameters, ROSSAM_CACHE=str(tmp_path / "cache")) as address:
        yield address


def settled(page, unlike: str = "") -> str:
    """Fingerprint of the tiles, once they are others than `unlike` and the kernel has nothing left to do."""
    until, last = time.monotonic() + 30, None
    while time.monotonic() < until:
        now = page.evaluate(f"{BYTES}({TILES})")
        if now == last != unlike and page.evaluate(f"{driver.KERNEL} === 'idle'"):
            return now
        last = now
        time.sleep(0.3)
    pytest.fail("the pictures stayed as they were: " + page.evaluate(f"{INSPECTOR}.textContent"))


@pytest.mark.timeout(400)
def test_the_slider_and_a_dragged_box_change_the_pictures(page, jupyterlab):
    driver.run_all_cells(page, jupyterlab)
    page.wait(f"{INSPECTOR} && {TILES}.length >= 2 && {TILES}.every((image) => image.naturalWidth)")
    first = settled(page)

    slider = f"{INSPECTOR}.querySelector('.noUi-target')"
    left, top, width, height = page.rectangle(f"{slider}.querySelector('.noUi-handle')")
    handle = left + width / 2, top + height / 2
    page.drag(handle, (handle[0] + 0.6 * page.rectangle(slider)[2], handle[1]))
    second = settled(page, unlike=first)
    assert "1 of " not in page.evaluate(f"{INSPECTOR}.querySelector('.rossam-title').textContent")

    left, top, width, height = page.rectangle(f"{INSPECTOR}.querySelector('.wrapper img')")
    page.drag(*((left + at * width, top + at * height) for at in (0.1, 0.4)))
    settled(page, unlike=second)
    assert "0 windows encoded" in page.evaluate(f"{INSPECTOR}.textContent"), (
        "a box drawn in the window needs no encoder"
    )
    assert page.evaluate(f"{INSPECTOR}.querySelectorAll('.rossam-error').length") == 0
    assert page.errors == []
