"""Decisions survive a kill at any byte; the panel does what its buttons say; the usable share covers the truth."""

import re

import numpy as np
import pandas as pd
import pytest
from tiny_tracks import Notched, make_frames

from rossam_core.errors import RossamError
from rossam_kit.convert.convert import ConversionConfig, convert
from rossam_kit.convert.decisions import FILE, Decisions, Review, keys_of, stratified_sample, usable_share
from rossam_kit.convert.review_panel import ReviewPanel


@pytest.fixture
def done(tmp_path):
    return convert(Notched(), make_frames(tmp_path / "data"), tmp_path / "out", ConversionConfig(jitter=0))


@pytest.fixture
def review(done):
    return Review(done, Notched())


KEY, NEXT, LAST = (("clip 0", frame, 7) for frame in (1, 2, 3))


def test_what_was_decided_is_there_after_a_kill_at_any_byte(done, tmp_path):
    first = Review(done, Notched())
    first.accept(KEY)
    first.correct(NEXT, (9, 6, 23, 14))
    first.reject(LAST)
    lines = (done.folder / FILE).read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    for cut in (0, 1, len(lines[2]) // 2, len(lines[2]) - 1):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(b"".join(lines[:2]) + lines[2][:cut])
        again = Decisions(path)
        assert {key: each["verdict"] for key, each in again.latest.items()} == {KEY: "accepted", NEXT: "corrected"}
        again.add([{"video": "clip 0", "frame": 3, "object_id": 7, "verdict": "rejected"}])
        assert Decisions(path).latest == Decisions(done.folder / FILE).latest
    path.write_bytes(lines[0] + b"{}\n")
    with pytest.raises(RossamError, match="line 2: is no decision"):
        Decisions(path)


def test_two_sessions_lose_no_decision_of_each_other(done):
    first, second = Review(done), Review(done)
    first.accept(KEY)
    with pytest.raises(RossamError, match="changed by another session"):
        second.reject(NEXT)
    assert second.verdict(NEXT) == "" and Review(done).verdict(KEY) == "accepted"
    (done.folder / FILE).unlink()
    with pytest.raises(RossamError, match="changed by another session"):
        first.reject(NEXT)
    assert not Review(done).decisions.latest


def test_a_file_that_cannot_be_written_is_told_and_decides_nothing(done, tmp_path):
    (tmp_path / "file").write_text("")
    review = Review(done, path=tmp_path / "file/decisions.jsonl")
    with pytest.raises(RossamError, match="cannot be written"):
        review.accept(KEY)
    assert review.verdict(KEY) == ""


def test_a_moved_box_gives_another_mask_and_its_fix_is_carried_along_the_track(review):
    box, mask = review.current(KEY)
    assert review.predict(KEY, (5, 6, 19, 14)).sum() != mask.sum() and review.verdict(KEY) == ""
    with pytest.raises(RossamError, match="no fix to carry"):
        review.carry(KEY)
    review.correct(KEY, (box[0] - 6, box[1], box[2], box[3] + 4))  # half a width to the left, half a height down
    assert review.carry(KEY) == [NEXT, LAST]
    old = review.find(LAST)[1].box_xyxy
    assert review.current(LAST)[0] == (old[0] - 6, old[1], old[2], old[3] + 4)
    assert np.array_equal(review.current(LAST)[1], review.predict(LAST, review.current(LAST)[0]))
    assert review.undo() == [NEXT, LAST] and review.verdict(NEXT) == "" and review.verdict(KEY) == "corrected"
    review.accept(NEXT)
    assert review.carry(KEY) == []  # a decision ends it
    for number in range(3):
        assert len(review.undo()) == (number < 2)
    assert Decisions(review.decisions.path).latest == {}
    with pytest.raises(RossamError, match="outside"):
        review.predict(KEY, (90, 6, 99, 14))
    with pytest.raises(RossamError, match="no predictor"):
        Review(review.conversion).predict(KEY, box)


def test_the_panel_shows_the_worst_first_and_its_buttons_decide(review):
    panel = ReviewPanel(review)
    order = keys_of(review.conversion.table.sort_values("review_rank"))
    assert panel.key == order[0] and len(panel.editor.image) > 100
    panel.accept.click()
    assert review.verdict(order[0]) == "accepted" and panel.key == order[1]
    panel.reject.click()
    tracks = [(video, track) for video in ("clip 0", "clip 1") for track in (7, 14)]
    video, track = next(t for t in tracks if t not in [(key[0], key[2]) for key in order[:2]])
    fixed = (video, 1, track)
    panel.slider.value = order.index(fixed)
    x0, y0, x1, y1 = panel.editor.prompt["box"]
    panel.editor.prompt = {"box": [x0 - 3, y0, x1, y1], "points": []}  # as if it were dragged
    assert review.verdict(fixed) == ""
    panel.accept.click()
    assert review.verdict(fixed) == "corrected" and review.current(fixed)[0] == (x0 - 3, y0, x1, y1)
    panel.slider.value = order.index(fixed)
    assert "corrected" in panel.title.value and panel.editor.prompt["box"] == [x0 - 3, y0, x1, y1]
    panel.accept.click()  # the fix stays as it is
    panel.slider.value = order.index(fixed)
    panel.carry.click()
    assert "2 masks" in panel.words.value and panel.summary().startswith("7 undecided, 1 accepted, 1 rejected, 3 corr")
    panel.undo.click()
    panel.undo.click()
    assert panel.key == fixed and review.verdict(fixed) == ""
    panel.editor.prompt = {"box": [300, 0, 310, 9], "points": []}
    assert "outside" in panel.error.value and "<div class='rossam-error'>" in panel.error.value
    assert re.search(r"^\.rossam-error \{", panel.editor._css, re.MULTILINE), "styled in every panel with an editor"
    panel.editor.prompt = {"box": [], "points": []}
    assert panel.error.value == "" and ReviewPanel(Review(review.conversion)).summary() == panel.summary()


def test_a_sample_is_spread_over_the_order_and_its_share_is_shown(review):
    sample = stratified_sample(review.conversion.table, 6, strata=3)
    assert sample["stratum"].value_counts().to_dict() == {0: 2, 1: 2, 2: 2} and set(sample["stratum_size"]) == {4}
    assert sample.equals(stratified_sample(review.conversion.table, 6, strata=3))
    panel = ReviewPanel(review, sample)
    assert "when each stratum has a decision" in panel.summary()
    for _ in range(6):
        panel.accept.click()
    assert "usable 100% of all masks (95% interval 54% to 100%)" in panel.summary()
    everything = stratified_sample(review.conversion.table, 99)
    assert len(everything) == 12
    for key in keys_of(everything):
        review.accept(key)
    assert usable_share(everything, review.decisions.latest)[:3] == pytest.approx((1, 1, 1))


def test_the_interval_holds_the_true_share_about_as_often_as_it_says(rng):
    size, covered = 1000, []
    usable = rng.random(size) < np.linspace(0.2, 1.0, size)  # the worst-looking are usable less often
    places = {"video": ["v"] * size, "frame": np.arange(size), "object_id": [1] * size}
    table = pd.DataFrame(places | {"area": [9] * size, "review_rank": np.arange(1, size + 1)})
    for seed in range(200):
        sample = stratified_sample(table, 100, seed=seed)
        verdicts = {key: {"verdict": "accepted" if usable[key[1]] else "rejected"} for key in keys_of(sample)}
        share = usable_share(sample, verdicts)
        assert share.n == 100 and share.low < share.share < share.high
        covered.append(share.low <= usable.mean() <= share.high)
    assert 0.93 <= np.mean(covered) <= 1.0
    assert share.high - share.low < 0.19
