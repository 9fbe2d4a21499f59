"""The report: one folder, nothing from outside it, every text as text, parts replaced one at a time."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rossam_core.errors import RossamError
from rossam_kit.config import load_profile
from rossam_kit.report.objects import cut_object
from rossam_kit.report.report import Part, build_report, markdown

EVIL = "<script>alert('x')</script>"
NOTICE = "Measured on generated <video>."


@pytest.fixture
def profile():
    return load_profile("demo", {"notice": NOTICE, "title": f"Title {EVIL}"})


def figure(images=False):
    made = Figure(figsize=(4, 3))
    ax = made.add_subplot()
    ax.imshow(np.eye(9)) if images else ax.plot([0, 1])
    return made


def views(n=3):
    target = np.zeros((40, 50), bool)
    target[10:20, 10:30] = True
    return [
        cut_object(np.full((40, 50, 3), 9 * i, np.uint8), (10, 10, 30, 20), target,
                   {"sam": np.roll(target, i, axis=0), "ros-sam": target}, key=f"v/{i} {EVIL}",
                   category=EVIL if i == 1 else "ship")
        for i in range(n)
    ]  # fmt: skip


def write_parts(folder: Path):
    data = Part(folder, "01_data", f"Data {EVIL}", f"Intro {EVIL} ![remote](http://example.org/x.png)", NOTICE)
    data.table("sizes", pd.DataFrame({EVIL: ["b", "a", "c"], "n": [2, 3, np.nan]}), f"Caption {EVIL}")
    data.figure("sheet", figure(images=True), "Frames", f"alt {EVIL}", hero=True)
    compare = Part(folder, "06_comparison", "Comparison", "", NOTICE)
    compare.text("A [link](https://example.org) in prose, and [a bad one](javascript:alert(1)).")
    compare.viewer("objects", views(), "All objects")
    compare.table("claims", pd.DataFrame({"claim": ["bicubic beats bilinear"], "verdict": ["reproduced"]}))
    compare.provenance({"commit": "abc", "seeds": [0, 1], "versions": {"torch": "2.15"}, "peak memory": None})
    return data, compare


class Page(HTMLParser):
    def __init__(self, path: Path):
        super().__init__()
        self.elements, self.stack = [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def test_the_page_needs_nothing_outside_its_folder(tmp_path, profile):
    write_parts(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_data.html").write_text("executed")
    page = Page(build_report(tmp_path, profile))
    loads = [a[k] for tag, a in page.elements for k in ("src", "href", "poster", "data") if k in a and tag != "a"]
    assert all(path == "data:," or (tmp_path / path).is_file() for path in loads), loads
    links = [a["href"] for tag, a in page.elements if tag == "a"]
    assert "https://example.org" in links and "notebooks/01_data.html" in links
    ids = {a["id"] for _, a in page.elements if "id" in a}
    for link in links:
        assert link.startswith("https:") or link[1:] in ids or (tmp_path / link).is_file() or "harmful" in link, link
    assert not re.search(r"@import|url\(", page.text)


def test_text_from_users_stays_text(tmp_path, profile):
    write_parts(tmp_path)
    page = Page(build_report(tmp_path, profile))
    assert EVIL not in page.text
    assert sum(tag == "script" for tag, _ in page.elements) == 2, "the page's own and the viewer's data"
    assert "javascript:alert" not in page.text and "example.org/x.png" not in page.text
    records = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page.text, re.S).group(1))
    assert records["objects"][1]["category"] == EVIL


def test_every_image_has_an_alternative_text_and_every_item_the_notice(tmp_path, profile):
    write_parts(tmp_path)
    page = Page(build_report(tmp_path, profile))
    images = [a for tag, a in page.elements if tag == "img" and a["src"] != "data:,"]
    assert len(images) == 2 and all(a["alt"] == f"alt {EVIL}" and int(a["width"]) > 100 for a in images)
    items = sum(a.get("class") in ("table", "picture", "viewer") for tag, a in page.elements if tag == "figure")
    assert page.text.count("Measured on generated &lt;video&gt;.") == items + 1 == 6
    with pytest.raises(RossamError, match="no alternative text"):
        Part(tmp_path, "x", "X").figure("f", figure(), "caption", " ")


def test_all_sections_are_in_the_contents_and_what_did_not_run_is_named(tmp_path, profile):
    write_parts(tmp_path)
    page = Page(build_report(tmp_path, profile, {"duration": "13 min"}))
    contents = [a["href"] for tag, a in page.elements if tag == "a" and a.get("href", "").startswith("#")]
    assert contents == ["#main", "#top", "#01_data", "#06_comparison", "#provenance", "#harmful-link"]
    assert "<code>02_inference_pipeline</code>" in page.text
    for expected in ("bicubic beats bilinear", "0, 1", "not recorded", "2.15", "13 min"):
        assert expected in page.text


def test_a_notebook_run_again_replaces_its_part_only_and_leaves_no_old_files(tmp_path, profile):
    write_parts(tmp_path)
    build_report(tmp_path, profile)
    other = {p: p.read_bytes() for p in (tmp_path / "parts/06_comparison").iterdir()}
    again = Part(tmp_path, "01_data", "Data", "", NOTICE)
    shown = figure()
    assert again.figure("curve", shown, "Curve", "a curve") is shown
    again.figure("curve", figure(), "Curve, once more", "a curve")
    text = build_report(tmp_path, profile).read_text()
    assert {p: p.read_bytes() for p in (tmp_path / "parts/06_comparison").iterdir()} == other
    assert {p.name for p in (tmp_path / "parts/01_data").iterdir()} == {"part.json", "curve.png"}
    assert "Curve, once more" in text and text.count("<figcaption") == 2
    assert build_report(tmp_path, profile).read_text() == text, "the same parts give the same page"


def test_names_that_cannot_be_files_and_parts_of_another_version_are_refused(tmp_path, profile):
    with pytest.raises(RossamError, match="becomes a file name"):
        Part(tmp_path, "../x", "X")
    with pytest.raises(RossamError, match="becomes a file name"):
        Part(tmp_path, "ok", "X").table("a/b", pd.DataFrame({"a": [1]}))
    (tmp_path / "parts/ok/part.json").write_text('{"format": 0}')
    with pytest.raises(RossamError, match="run that notebook again"):
        build_report(tmp_path, profile)


def test_an_empty_report_is_still_a_page(tmp_path, profile):
    assert "Not in this report" in build_report(tmp_path / "new", profile).read_text()


def test_markdown_is_made_safe():
    assert markdown("## Head\n**b** <i>") == "<h4>Head</h4>\n<p><strong>b</strong> &lt;i&gt;</p>\n"


def test_a_demo_sized_report_stays_far_below_25_megabytes(tmp_path, profile, rng):
    noise = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
    mask = np.hypot(*(np.mgrid[:96, :96] - 48)) + rng.normal(0, 1, (96, 96)) < 30
    objects = [cut_object(noise, (18, 18, 78, 78), mask, dict.fromkeys("abcdef", mask), key="k", category="c")] * 250
    Part(tmp_path, "06_comparison", "Crops of pure noise, frayed masks").viewer("all", objects)
    build_report(tmp_path, profile)
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 15e6


CHECK = """
<script>
addEventListener("load", () => {
  const out = {};
  const table = document.getElementById("01_data-0");
  const rows = () => [...table.querySelectorAll("tbody tr")].map((r) => r.cells[0].textContent).join("");
  const heading = table.querySelectorAll("th button")[1];
  heading.click(); out.descending = rows();
  heading.click(); out.ascending = rows();
  const viewer = document.querySelector(".viewer");
  const image = () => viewer.querySelector("image").getAttribute("href");
  const slider = viewer.querySelector("input[type=range]");
  viewer.querySelector("[data-role=judge]").value = "sam";
  viewer.querySelector("[data-role=judge]").dispatchEvent(new Event("change"));
  out.worst = image();
  slider.value = 2; slider.dispatchEvent(new Event("input")); out.best = image();
  viewer.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"})); out.middle = image();
  out.lines = viewer.querySelectorAll("path.line").length;
  viewer.querySelector("input[value=sam]").click(); out.more = viewer.querySelectorAll("path.line").length;
  const category = viewer.querySelector("[data-role=category]");
  category.value = "ship"; category.dispatchEvent(new Event("change"));
  out.position = viewer.querySelector(".position").textContent;
  document.querySelector(".enlarge").click();
  out.enlarged = document.querySelector(".lightbox").open;
  document.body.dataset.out = JSON.stringify(out);
});
</script>
"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed: the page's scripts go unchecked")
def test_tables_sort_and_the_viewer_works_from_disk(tmp_path, profile):
    write_parts(tmp_path / "report")
    index = build_report(tmp_path / "report", profile)
    index.write_text(index.read_text().replace("</body>", CHECK + "</body>"))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom",
               f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=3000", index.as_uri()]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.search(r'data-out="([^"]*)"', dom)
    assert found, dom[-2000:]
    out = json.loads(found.group(1).replace("&quot;", '"'))
    assert (out["descending"], out["ascending"]) == ("abc", "bac"), "the missing value stays below"
    assert [out[k][-8:] for k in ("worst", "middle", "best")] == ["0002.png", "0001.png", "0000.png"]
    assert (out["lines"], out["more"]) == (2, 3)
    assert out["position"] == "1 of 2" and out["enlarged"] is True
