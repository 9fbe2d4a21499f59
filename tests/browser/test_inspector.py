"""Notebook 09 in JupyterLab: it runs from top to bottom, and its slider and its prompt change the pictures."""

import json
import time

import browser
import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

NAME = "09_inspect_predictions"
SETTINGS = {"data.limit_frames": 1}
TILES = ".rossam-inspector img.widget-image"
CONTENT = """
const images = [...document.querySelectorAll(arguments[0])].filter((image) => image.offsetWidth);
const done = arguments[1];
Promise.all(images.map(async (image) => {
  const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
  return bytes.reduce((hash, byte) => (hash * 31 + byte) | 0, bytes.length);
})).then((hashes) => done(hashes.join()));
"""
"""A hash of what the pictures hold, so that equal pictures compare equal however often they are sent."""


@pytest.fixture
def jupyterlab(tmp_path):
    """Address of notebook 09 for the smoke profile in its own JupyterLab."""
    parameters = {"profile": "smoke", "overrides": json.dumps(SETTINGS), "report_dir": str(tmp_path / "report")}
    with browser.serve_notebook(tmp_path, NAME, parameters, ROSSAM_CACHE=str(tmp_path / "cache")) as address:
        yield address


def settled(page, unlike: str = "") -> str:
    """Hash of the tiles, once they differ from `unlike` and the kernel is idle."""
    until, last = time.monotonic() + 60, None
    while time.monotonic() < until:
        now = page.execute_async_script(CONTENT, TILES)
        if now == last != unlike and page.execute_script(browser.KERNEL_IDLE):
            return now
        last = now
        time.sleep(0.3)
    pytest.fail("the pictures stayed as they were: " + browser.find(page, ".rossam-inspector").text)


def box(page) -> list[float]:
    """Left, top, right and bottom of the drawn box in screen pixels."""
    sides = "(({left, top, right, bottom}) => [left, top, right, bottom])"
    return page.execute_script(
        f"return {sides}(document.querySelector('.rossam-stage rect.box').getBoundingClientRect())"
    )


def drag(page, start, end) -> None:
    """Drag the mouse from start to end, screen pixels of the view."""
    actions = ActionChains(page, duration=50)
    actions.w3c_actions.pointer_action.move_to_location(*map(round, start))
    actions.w3c_actions.pointer_action.pointer_down()
    for share in (0.3, 0.6, 1):
        middle = [a + share * (b - a) for a, b in zip(start, end, strict=True)]
        actions.w3c_actions.pointer_action.move_to_location(*map(round, middle))
    actions.w3c_actions.pointer_action.pointer_up()
    actions.perform()


@pytest.mark.timeout(500)
def test_the_slider_and_the_prompt_change_the_pictures_without_a_network(page, jupyterlab):
    browser.run_all_cells(page, jupyterlab)
    browser.wait_for(page, f"return document.querySelectorAll('{TILES}').length >= 6", 60)
    first = settled(page)

    slider, handle = (browser.find(page, f".rossam-inspector .noUi-{part}") for part in ("target", "handle"))
    ActionChains(page).drag_and_drop_by_offset(handle, round(0.6 * slider.size["width"]), 0).perform()
    second = settled(page, unlike=first)
    assert "1 of " not in page.find_element(By.CSS_SELECTOR, ".rossam-title").text

    stage = browser.find(page, ".rossam-stage svg")
    left, top, width, height = (stage.rect[side] for side in ("x", "y", "width", "height"))
    top -= page.execute_script("return window.scrollY")
    drag(page, (left + 0.1 * width, top + 0.15 * height), (left + 0.4 * width, top + 0.5 * height))
    third = settled(page, unlike=second)
    drawn = box(page)
    expected = [left + 0.1 * width, top + 0.15 * height, left + 0.4 * width, top + 0.5 * height]
    assert drawn == pytest.approx(expected, abs=4)
    assert "0 windows encoded" in page.find_element(By.CSS_SELECTOR, ".rossam-status").text

    drag(page, ((drawn[0] + drawn[2]) / 2, (drawn[1] + drawn[3]) / 2), (left + 0.6 * width, top + 0.6 * height))
    fourth = settled(page, unlike=third)
    moved = box(page)
    assert moved[0] > drawn[0] + 50 and moved[2] - moved[0] == pytest.approx(drawn[2] - drawn[0], abs=1)

    drag(page, moved[2:], (moved[2] + 40, moved[3] + 20))
    fifth = settled(page, unlike=fourth)
    assert box(page) == pytest.approx([*moved[:2], moved[2] + 40, moved[3] + 20], abs=3)

    stage.send_keys(Keys.ARROW_LEFT)
    sixth = settled(page, unlike=fifth)
    stage.send_keys(Keys.DELETE)  # the annotated box again
    assert settled(page, unlike=sixth) == second

    point = page.find_element(By.CSS_SELECTOR, ".rossam-bar button[name=positive]")
    assert (
        not point.is_enabled() and "trained with boxes only" in page.find_element(By.CSS_SELECTOR, ".rossam-hint").text
    )
    assert page.find_elements(By.CSS_SELECTOR, ".rossam-error") == []
    assert browser.console_errors(page) == []
    host = jupyterlab.split("/lab")[0].removeprefix("http://")
    away = [url for url in browser.requested_urls(page) if host not in url and not url.startswith(("data:", "blob:"))]
    assert away == []
