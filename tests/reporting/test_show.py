"""What notebooks display: text is text, every output says what made it, and no file is written."""

import base64
import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rossam_core.errors import RossamError
from rossam_kit.config import load_profile
from rossam_kit.report import show
from rossam_kit.report.objects import cut_object

EVIL = "<script>alert('x')</script>"
NOTICE = "Measured on generated <video>."


@pytest.fixture
def displayed(monkeypatch):
    """HTML and metadata of what is displayed, in order."""
    outputs = []
    monkeypatch.setattr(show, "display", lambda data, metadata=None, raw=False: outputs.append((data, metadata)))
    monkeypatch.setattr(show, "_context", show.Context())
    show.begin("02_inference_pipeline", load_profile("demo", {"notice": NOTICE}), {"inference.rate": 4})
    outputs.clear()
    return outputs


def drawing(images=False):
    figure = Figure(figsize=(4, 3))
    ax = figure.add_subplot()
    ax.imshow(np.eye(9)) if images else ax.plot([0, 1])
    return figure


def views():
    target = np.zeros((40, 50), bool)
    target[10:20, 10:30] = True
    masks = {"sam": np.roll(target, 2, axis=0), "ros-sam": target}
    return [cut_object(np.zeros((40, 50, 3), np.uint8), (10, 10, 30, 20), target, masks, key=EVIL, category=EVIL)]


def display_everything():
    show.figure(drawing(), f"Caption {EVIL}", alt=f"alt {EVIL}", front="hero")
    show.table(pd.DataFrame({EVIL: ["b", "a"], "n": [2, np.nan]}), f"Caption {EVIL}")
    show.viewer(views(), f"Caption {EVIL}")


def test_every_output_has_caption_notice_and_what_made_it_and_text_stays_text(displayed):
    display_everything()
    for data, _ in displayed:
        html = data["text/html"]
        assert "Caption &lt;script&gt;" in html and EVIL not in html
        assert "Measured on generated &lt;video&gt;." in html
        assert "Notebook 02_inference_pipeline; profile demo; changed settings: inference.rate = 4; commit " in html
    records = re.search(r'<script type="application/json">(.*?)</script>', displayed[2][0]["text/html"]).group(1)
    assert json.loads(records)["objects"][0]["category"] == EVIL
    assert displayed[0][1] == {"rossam": {"front": "hero"}}


def test_displaying_opens_no_file_for_writing(displayed):
    written, active = [], True

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if active and (writes or event in ("os.mkdir", "os.rename", "shutil.copyfile")):
            written.append((event, arguments))

    sys.addaudithook(hook)
    try:
        display_everything()
        show.text("**words**")
    finally:
        active = False
    assert len(displayed) == 4 and written == []


def test_charts_are_png_photographs_jpeg_with_their_size_and_alternative_text(displayed):
    show.figure(drawing(), "Chart", alt="a line")
    show.figure(drawing(images=True), "Photograph", alt="nine pixels")
    chart, photograph = (data["text/html"] for data, _ in displayed)
    assert 'src="data:image/png;base64' in chart and 'alt="a line"' in chart
    assert 'src="data:image/jpeg;base64' in photograph and int(re.search(r'width="(\d+)"', photograph).group(1)) > 300
    with pytest.raises(RossamError, match="no alternative text"):
        show.figure(drawing(), "Chart", alt=" ")


def test_a_table_downloads_as_csv_with_exact_numbers_and_the_notice(displayed):
    show.table(
        pd.DataFrame({"setting": ["a", "b"], "iou": [1 / 3, None]}), "Scores, *each* object", missing="no weights"
    )
    html = displayed[0][0]["text/html"]
    name, content = re.search(r'download="([^"]+)" href="data:text/csv;base64,([^"]+)"', html).groups()
    assert name == "scores-each-object.csv" and "0.33" in html and "<em>each</em>" in html
    assert base64.b64decode(content).decode() == f"setting,iou\na,0.3333333333\nb,no weights\n# {NOTICE}\n"


def test_wrong_calls_are_answered():
    with pytest.raises(RossamError, match="given no objects"):
        show.viewer([], "Objects")
    with pytest.raises(RossamError, match="use one of hero, ledger, table"):
        show.figure(drawing(), "Chart", alt="a line", front="cover")


def test_without_begin_outputs_have_a_caption_only(displayed, monkeypatch):
    monkeypatch.setattr(show, "_context", show.Context())
    show.viewer(views(), "Objects")
    html = displayed[0][0]["text/html"]
    assert "<figcaption>Objects</figcaption>" in html and "rossam-notice" not in html and "rossam-source" not in html
