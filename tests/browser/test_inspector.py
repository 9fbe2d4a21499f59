"""Notebook 10 in JupyterLab: it runs from top to bottom, and its slider and its prompt change the pictures."""

import time

import browser
import nbformat
import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By

SETTINGS = {"data.limit_frames": 1}
POINT_CELL = """
from pathlib import Path

import cv2
import numpy as np

from rossam_core.settings import InferenceConfig
from rossam_core.masks import encode
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets.frame_set import FrameSet
from rossam_core.inference.predictor import Predictor
from rossam_core.model.build import build_model
from rossam_kit.inspector.widgets import Inspector, Source

mask = np.zeros((200, 260), bool)
mask[60:120, 80:160] = True
cv2.imwrite("frame.png", np.where(mask, 200, 90).astype(np.uint8))
ship = ObjectAnnotation(0, "ship", (80, 60, 160, 120), encode(mask))
frames = FrameSet("test", [Frame("test", "v", 1, Path("frame.png"), mask.shape, (ship,))])
model = build_model("sam", "vit_t")
model.supports_points = True
predictor = Predictor(model, InferenceConfig(), "cpu")
source = Source({"one frame": lambda: frames}, {"sam": lambda: predictor}, scores=lambda *_: None)
inspector = Inspector(source, order="data")
inspector
"""
"""An inspector whose model takes points, as with official weights."""
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
    """Address of notebook 10 for the smoke profile in its own JupyterLab."""
    parameters = {"profile": "smoke", "overrides": SETTINGS}
    notebook = browser.read_notebook("10_inspect_predictions", parameters)
    with browser.serve_notebook(tmp_path, notebook, ROSSAM_CACHE=str(tmp_path / "cache")) as address:
        yield address


@pytest.fixture
def points_notebook(tmp_path):
    """Address of a notebook with `POINT_CELL`."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(POINT_CELL)], metadata=kernel)
    with browser.serve_notebook(tmp_path, notebook, ROSSAM_CACHE=str(tmp_path / "cache")) as address:
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


def drag(page, start, end, kind: str = "mouse") -> None:
    """Drag the mouse or a finger (`touch`) from start to end, screen pixels of the view; a click where they are one."""
    actions = ActionBuilder(page, mouse=PointerInput(kind, kind), duration=50)
    pointer = actions.pointer_action.move_to_location(*map(round, start)).pointer_down()
    for share in (0.3, 0.6, 1):
        pointer.move_to_location(*(round(a + share * (b - a)) for a, b in zip(start, end, strict=True)))
    pointer.pointer_up()
    actions.perform()


def place_on_stage(page):
    """A function from shares of the picture's width and height to screen pixels of the view."""
    browser.find(page, ".rossam-stage svg")
    sides = "(({left, top, width, height}) => [left, top, width, height])"
    left, top, width, height = page.execute_script(
        f"return {sides}(document.querySelector('.rossam-stage svg').getBoundingClientRect())"
    )
    return lambda x, y: (left + x * width, top + y * height)


@pytest.mark.timeout(500)
def test_the_slider_and_the_prompt_change_the_pictures_without_a_network(page, jupyterlab):
    browser.run_all_cells(page, jupyterlab)
    browser.wait_for(page, f"return document.querySelectorAll('{TILES}').length >= 3", 60)
    first = settled(page)

    slider, handle = (browser.find(page, f".rossam-inspector .noUi-{part}") for part in ("target", "handle"))
    ActionChains(page).drag_and_drop_by_offset(handle, round(0.6 * slider.size["width"]), 0).perform()
    second = settled(page, unlike=first)
    assert "1 of " not in page.find_element(By.CSS_SELECTOR, ".rossam-title").text

    stage, at = browser.find(page, ".rossam-stage svg"), place_on_stage(page)
    drag(page, at(0.1, 0.15), at(0.4, 0.5))
    third = settled(page, unlike=second)
    drawn = box(page)
    assert drawn == pytest.approx([*at(0.1, 0.15), *at(0.4, 0.5)], abs=4)
    assert "0 windows encoded" in page.find_element(By.CSS_SELECTOR, ".rossam-status").text

    drag(page, ((drawn[0] + drawn[2]) / 2, (drawn[1] + drawn[3]) / 2), at(0.6, 0.6))
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


@pytest.mark.timeout(400)
def test_points_are_drawn_moved_and_removed_and_a_wrong_number_freezes_nothing(page, points_notebook):
    browser.run_all_cells(page, points_notebook)
    browser.wait_for(page, f"return document.querySelectorAll('{TILES}').length === 1", 60)
    first, at, circles = settled(page), place_on_stage(page), "return document.querySelectorAll('circle.point').length"
    drag(page, at(0.5, 0.5), at(0.5, 0.5))
    second = settled(page, unlike=first)
    assert page.execute_script(circles) == 1

    page.find_element(By.CSS_SELECTOR, ".rossam-bar button[name=negative]").click()
    drag(page, at(0.2, 0.2), at(0.2, 0.2))
    third = settled(page, unlike=second)
    assert page.execute_script(circles) == 2
    fills = "return [...document.querySelectorAll('circle.point')].map((circle) => circle.getAttribute('fill'))"
    assert len(set(page.execute_script(fills))) == 2
    drag(page, at(0.2, 0.2), at(0.8, 0.3), "touch")
    settled(page, unlike=third)
    browser.find(page, ".rossam-stage svg").send_keys(Keys.DELETE)
    assert settled(page, unlike=third) == second and page.execute_script(circles) == 1

    right = page.find_elements(By.CSS_SELECTOR, ".rossam-inspector input[type=number]")[-2]  # x1, left of x0
    right.send_keys(Keys.CONTROL, "a")
    right.send_keys("3", Keys.TAB)
    browser.wait_for(page, "return document.querySelector('.rossam-error')?.textContent.includes('inverted')")
    page.find_element(By.CSS_SELECTOR, ".rossam-bar button[name=box]").click()
    at = place_on_stage(page)
    drag(page, at(0.05, 0.1), at(0.45, 0.4), "touch")
    settled(page, unlike=second)
    assert page.find_elements(By.CSS_SELECTOR, ".rossam-error") == []
    assert box(page) == pytest.approx([*at(0.05, 0.1), *at(0.45, 0.4)], abs=4)
    assert browser.console_errors(page) == []
