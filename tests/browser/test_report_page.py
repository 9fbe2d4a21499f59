"""The book opened from disk: tables sort, the viewer works, search finds pages, and no request leaves the machine."""

import browser
import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from tests import sample_report

SHOWN = "return document.querySelector('rossam-viewer svg image')?.getAttribute('href')"


@pytest.fixture
def report(built_sample):
    return built_sample[0]


def test_the_viewer_and_the_tables_work_and_no_request_leaves_the_machine(page, report):
    page.get((report / f"notebooks/{sample_report.NAME}.html").as_uri())
    first = browser.wait_for(page, SHOWN)
    assert page.execute_script("return [...document.images].every((image) => image.complete)")

    slider = browser.find(page, "rossam-viewer input[type=range]")
    half = slider.size["width"] // 2
    drag = ActionChains(page).move_to_element_with_offset(slider, 8 - half, 0).click_and_hold()
    drag.move_to_element_with_offset(slider, half // 2, 0).release().perform()
    assert browser.wait_for(page, SHOWN + f" !== {first!r}", 5)
    assert page.find_element(By.CSS_SELECTOR, "rossam-viewer output").text != "1 of 5"

    outlines = len(page.find_elements(By.CSS_SELECTOR, "rossam-viewer path.line"))
    browser.find(page, "rossam-viewer tbody input[value=sam]").click()
    assert len(page.find_elements(By.CSS_SELECTOR, "rossam-viewer path.line")) == outlines + 1
    browser.find(page, "rossam-viewer select[name=Class] option[value=ship]").click()
    assert page.find_element(By.CSS_SELECTOR, "rossam-viewer output").text == "1 of 3"

    first_cells = "[...document.querySelectorAll('.rossam-table tbody tr')].map((row) => row.cells[0].textContent)"
    rows = f"return {first_cells}.join('')"
    heading = browser.find(page, ".rossam-table th.number")
    heading.click()
    assert page.execute_script(rows) == "abc"
    heading.click()
    assert page.execute_script(rows) == "bac", "the missing value stays below"

    assert browser.console_errors(page) == []
    requests = browser.requested_urls(page)
    assert requests and all(url.startswith(("file:", "data:", "blob:")) for url in requests), requests


def test_search_finds_a_page(page, report):
    page.get((report / "search.html").as_uri() + "?q=clusters")
    found = "return [...document.querySelectorAll('#search-results a')].map((link) => link.textContent)"
    assert any(
        "GPUs" in title
        for title in browser.wait_for(page, f"const titles = (() => {{ {found} }})(); return titles.length && titles")
    )
    assert not [url for url in browser.requested_urls(page) if not url.startswith(("file:", "data:", "blob:"))]


def test_a_phone_shows_the_page_without_scrolling_sideways(page, report):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for name in ("index.html", f"notebooks/{sample_report.NAME}.html"):
        page.get((report / name).as_uri())
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390
