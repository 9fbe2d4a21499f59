"""The report opened from disk: its viewer works, and nothing is asked of any network."""

import browser
import numpy as np
import pandas as pd
import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from rossam_kit.config import load_profile
from rossam_kit.report.objects import cut_object
from rossam_kit.report.report import Part, build_report

SHOWN = "return document.querySelector('.viewer svg image')?.getAttribute('href')"


@pytest.fixture
def index(tmp_path, rng):
    target = np.zeros((60, 60), bool)
    target[20:40, 15:45] = True
    views = [
        cut_object(rng.integers(0, 255, (60, 60, 3), dtype=np.uint8), (15, 20, 45, 40), target,
                   {"sam": np.roll(target, i, axis=0), "hq-sam": target}, key=f"v/{i} #1", category="ship")
        for i in range(5)
    ]  # fmt: skip
    part = Part(tmp_path, "09_inspect_predictions", "Inspect", "", "A notice.")
    part.table("scores", pd.DataFrame({"method": ["SAM", "HQ-SAM"], "IoU": [40.0, 60.0]}))
    part.viewer("objects", views, "Objects")
    return build_report(tmp_path, load_profile("demo"))


def test_the_slider_changes_the_picture_and_no_request_leaves_the_machine(page, index):
    page.get(index.as_uri())
    first = browser.wait_for(page, SHOWN)
    assert page.execute_script("return [...document.images].every((image) => image.complete)")

    slider = browser.find(page, ".viewer input[type=range]")
    half = slider.size["width"] // 2
    drag = ActionChains(page).move_to_element_with_offset(slider, 8 - half, 0).click_and_hold()
    drag.move_to_element_with_offset(slider, half // 2, 0).release().perform()
    assert browser.wait_for(page, SHOWN + f" !== {first!r}", 5)
    assert page.find_element(By.CSS_SELECTOR, ".viewer .position").text != "1 of 5"

    outlines = len(page.find_elements(By.CSS_SELECTOR, ".viewer path.line"))
    browser.find(page, ".viewer .scores input[value=sam]").click()
    assert len(page.find_elements(By.CSS_SELECTOR, ".viewer path.line")) == outlines + 1
    assert browser.console_errors(page) == []
    requests = browser.requested_urls(page)
    assert requests and all(url.startswith(("file:", "data:", "blob:")) for url in requests), requests
