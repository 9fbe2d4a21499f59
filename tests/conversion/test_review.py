"""The review page: complete in itself, the worst first, safe with any text, no larger than asked."""

import json
import re
import shutil
import subprocess

import pytest
from tiny_tracks import Notched, make_frames

from rossam_core.records import ObjectAnnotation
from rossam_kit.convert.convert import ConversionConfig, convert
from rossam_kit.convert.review import write_review


@pytest.fixture
def done(tmp_path):
    frames = make_frames(tmp_path / "data")
    evil = ObjectAnnotation(9, "</script><script>alert(1)</script>", (1.0, 1.0, 9.0, 9.0))
    first = frames[0].with_objects([*frames[0].objects, evil, ObjectAnnotation(11, "ship", (90.0, 0.0, 99.0, 9.0))])
    frames[5].image_path.unlink()
    frames = frames.subset([first, *frames[1:]])
    return convert(Notched(empty_id=10.0), frames, tmp_path / "out", ConversionConfig(shard_frames=2, jitter=2))


def cards(page):
    return json.loads(re.search(r"^const cards = (.*);$", page.read_text(), re.MULTILINE).group(1))


def test_the_page_needs_nothing_from_outside(done):
    page = write_review(done).page.read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", page), re.IGNORECASE)
    sources = re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'\s>]+)", page)
    assert all(source.startswith("data:") for source in sources)
    assert page.count("<script>") == page.count("</script>") == 1


def test_every_box_is_shown_worst_first_with_its_reasons(done):
    review = write_review(done)
    shown = cards(review.page)
    assert review.shown == review.boxes == len(done.table) == 14
    assert [card["rank"] for card in shown] == list(range(1, 15))
    without = [card for card in shown if card["status"] in ("empty", "failed")]
    assert without == shown[:5] and all(card["score"] == 1 and card["looks"] for card in without)
    assert {card["status"] for card in without if "image" in card} == {"empty"}
    good = shown[-1]
    assert good["outline"].startswith("M") and good["image"].startswith("data:image/jpeg;base64,")
    assert all(card["expected"] == ", expected IoU 0.00" for card in without) and good["expected"] == ""  # no logits
    order = done.table.sort_values("review_rank")
    named = [f"{row.video}/{row.frame:06d} #{row.object_id}" for row in order.itertuples()]
    assert named == [card["name"] for card in shown]


def test_the_page_stays_below_its_bound_and_says_what_it_leaves_out(done):
    whole = write_review(done).page.stat().st_size
    review = write_review(done, max_bytes=whole - 3000)
    assert review.page.stat().st_size <= whole - 3000 and 0 < review.shown < 14
    assert f"shows the {review.shown} worst-looking" in review.page.read_text()
    assert write_review(done, most=3).shown == 3


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed: the page's scripts go unchecked")
def test_a_browser_draws_the_cards(done, tmp_path):
    page = write_review(done).page
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom",
               f"--user-data-dir={tmp_path / 'browser'}", page.as_uri()]  # fmt: skip
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert drawn.count('class="words"') == 14 and drawn.count('class="outline"') == 9
    assert "14 boxes, page 1 of 1" in drawn
