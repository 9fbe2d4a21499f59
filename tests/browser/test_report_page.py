"""The report opened from disk: its viewer works, and nothing is asked of any network."""

import numpy as np
import pandas as pd
import pytest

from rossam_core.config import load_profile
from rossam_core.reporting.objects import cut_object
from rossam_core.reporting.report import Part, build_report

SHOWN = "document.querySelector('.viewer svg image').getAttribute('href')"
OUTLINES = "document.querySelectorAll('.viewer path.line').length"


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
    page.call("Page.navigate", url=index.as_uri())
    page.wait("document.readyState === 'complete' && !!document.querySelector('.viewer svg image')")
    first = page.evaluate(SHOWN)
    assert page.evaluate("[...document.images].every((image) => image.complete)")

    page.evaluate("document.querySelector('.viewer').scrollIntoView({block: 'center', behavior: 'instant'})")
    left, top, width, height = page.evaluate(
        "(({left, top, width, height}) => [left, top, width, height])"
        "(document.querySelector('.viewer input[type=range]').getBoundingClientRect())"
    )
    page.drag((left + 8, top + height / 2), (left + 0.75 * width, top + height / 2))
    assert page.wait(f"{SHOWN} !== {first!r}", 5)
    assert page.evaluate("document.querySelector('.viewer .position').textContent") != "1 of 5"

    outlines = page.evaluate(OUTLINES)
    page.evaluate("document.querySelector('.viewer .scores input[value=sam]').click()")
    assert page.evaluate(OUTLINES) == outlines + 1
    assert page.errors == []
    assert page.requests and all(url.startswith(("file:", "data:", "blob:")) for url in page.requests), page.requests
