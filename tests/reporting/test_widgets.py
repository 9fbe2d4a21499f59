"""The inspector without a browser: orders, filters, windows that stay, pictures that follow, errors that show."""

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from rossam_core.config import InferenceConfig, load_profile
from rossam_core.data.masks import encode
from rossam_core.data.records import Frame, FrameSet, ObjectAnnotation
from rossam_core.errors import RossamError
from rossam_core.evaluation.experiments import Experiments
from rossam_core.evaluation.metrics import boundary_iou
from rossam_core.inference.predictor import Predictor
from rossam_core.model.rossam import build_model
from rossam_core.reporting import widget_pictures as pictures
from rossam_core.reporting.widget_source import ROS_SAM, experiments_source, frames_source
from rossam_core.reporting.widget_state import Encodings, Focus, arrange, list_objects, with_scores
from rossam_core.reporting.widgets import inspect
from rossam_core.training.runs import load_run

SIZE = (200, 260)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Two frames: two ships and a car without mask; one plane."""
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    made = []
    for index, things in enumerate([[("ship", 20, 20, 12), ("ship", 120, 100, 40), ("car", 30, 150, 8)],
                                    [("plane", 200, 60, 24)]], start=1):  # fmt: skip
        image = rng.integers(60, 120, (*SIZE, 3), dtype=np.uint8)
        objects = []
        for number, (category, x, y, side) in enumerate(things):
            mask = np.zeros(SIZE, bool)
            mask[y : y + side, x : x + side] = True
            image[mask] += 100
            seen = encode(mask) if category != "car" else None
            objects.append(ObjectAnnotation(number, category, (x, y, x + side, y + side), seen))
        path = folder / f"{index}.png"
        cv2.imwrite(str(path), image[..., ::-1])
        made.append(Frame("test", "v", index, path, SIZE, tuple(objects)))
    return FrameSet("test", made)


@pytest.fixture(scope="module")
def predictors():
    config = InferenceConfig()
    return {m: Predictor(build_model(m, "vit_t", checkpoint=None, seed=1), config, "cpu") for m in ("sam", "hq-sam")}


class Encoder:
    """Counts what the image encoders of some predictors are asked."""

    def __init__(self, predictors, monkeypatch):
        self.calls = 0
        for predictor in predictors.values():
            monkeypatch.setattr(predictor.model, "encode", self._counted(predictor.model.encode))

    def _counted(self, encode):
        def counted(images):
            self.calls += 1
            return encode(images)

        return counted


@pytest.fixture
def encoder(predictors, monkeypatch):
    return Encoder(predictors, monkeypatch)


@pytest.fixture
def inspector(frames, predictors, encoder):
    made = inspect(frames_source({"few": frames, "none": FrameSet("none", [])}, predictors), order="data")
    assert made.error.value == ""
    return made


@pytest.mark.parametrize(
    ("box", "tile"), [((60, 60, 90, 90), 200), ((5, 5, 250, 100), round(200 * SIZE[0] / SIZE[1]))],
    ids=["square", "whole frame"],
)  # fmt: skip
def test_the_legend_is_level_with_the_tiles(inspector, box, tile):
    inspector.prompt(box)
    _, picture = inspector.columns["sam"]
    height = cv2.imdecode(np.frombuffer(picture.value, np.uint8), cv2.IMREAD_COLOR).shape[0]
    assert height == 3 * tile + 2 * pictures.GAP
    assert inspector.legend.value.count(f"height:{tile + pictures.GAP}px;") == 3


# --- which objects, in which order ----------------------------------------------------------------------------------


def scored(frames):
    scores = pd.DataFrame({"video": "v", "frame": [1, 1, 2], "object_id": [0, 1, 0], "iou": [0.5, 0.9, 0.5]})
    return with_scores(list_objects(frames), "sam", scores)


def test_objects_are_listed_with_area_and_size_also_where_they_have_no_mask(frames):
    objects = list_objects(frames)
    assert objects["category"].tolist() == ["ship", "ship", "car", "plane"]
    assert objects["area"].fillna(-1).tolist() == [144, 1600, -1, 576]
    assert objects["size_bin"].fillna("-").tolist() == ["0–256", "1024–9216", "-", "256–1024"]


def test_orders_are_those_of_the_judge_with_ties_as_in_the_data_and_unscored_last(frames):
    table = scored(frames)
    places = {order: arrange(table, order, "sam").index.tolist() for order in ("worst", "best", "data")}
    assert places == {"worst": [0, 3, 1, 2], "best": [1, 0, 3, 2], "data": [0, 1, 2, 3]}
    shuffles = {tuple(arrange(table, "random", seed=seed).index) for seed in range(8)}
    assert len(shuffles) > 1 and all(sorted(shuffle) == [0, 1, 2, 3] for shuffle in shuffles)
    assert arrange(table, "random", seed=3).index.tolist() == arrange(table, "random", seed=3).index.tolist()


def test_filters_combine_and_an_empty_choice_is_named(frames):
    table = scored(frames)
    assert arrange(table, category="ship", size_bin="0–256").index.tolist() == [0]
    assert arrange(table, row=1).index.tolist() == [3]
    with pytest.raises(RossamError, match="plane and 0–256: no object there"):
        arrange(table, category="plane", size_bin="0–256")


# --- what must be encoded again -------------------------------------------------------------------------------------


def test_a_window_stays_while_it_holds_the_box_and_follows_settings(frames):
    focus = Focus(frames[0], 1, InferenceConfig())
    before = focus.encoding_key("sam", 256)
    focus.set_box((118, 95, 150, 139.5))
    assert focus.encoding_key("sam", 256) == before
    assert focus.encoding_key("hq-sam", 256) != before
    focus.set_box((0, 0, 30, 30))
    assert focus.encoding_key("sam", 256) != before
    focus.set_box(focus.own_box)
    assert focus.window(256).holds((120, 100, 160, 140))
    for change in ({"rate": 4.0}, {"mode": "direct"}, {"interpolation": "bilinear"}):
        focus.set_config(InferenceConfig(**change))
        assert focus.encoding_key("sam", 256) != before
    with pytest.raises(RossamError, match="inverted"):
        focus.set_box((9, 9, 3, 3))
    assert focus.box_xyxy == focus.own_box


def test_shared_windows_are_planned_among_all_prompts_of_the_frame(frames):
    small = Focus(frames[0], 0, InferenceConfig(mode="shared", rate=1.28))  # 200 px windows hold both ships
    assert small.window(256).holds((120, 100, 160, 140))
    assert not Focus(frames[0], 0, InferenceConfig(rate=4)).window(256).holds((120, 100, 160, 140))


def test_encodings_forget_the_least_recently_used_first():
    kept, made = Encodings(limit=20), []
    for key in ("a", "b", "a", "c", "a", "b"):
        kept.get(key, lambda key=key: made.append(key) or key, lambda _: 10)
    assert made == ["a", "b", "c", "b"]
    assert kept.get("huge", lambda: "huge", lambda _: 99) == kept.get("huge", lambda: "new", lambda _: 99) == "huge"


# --- the widget -----------------------------------------------------------------------------------------------------


def shown(inspector):
    return [picture.value for _, picture in inspector.columns.values()]


def test_a_threshold_or_a_box_in_the_window_needs_no_encoder_and_changes_every_picture(inspector, encoder):
    inspector.slider.value = 1
    calls, first = encoder.calls, shown(inspector)
    inspector.threshold.value = 0.7
    second = shown(inspector)
    inspector.sides[0].value -= 9
    third = shown(inspector)
    drawn = inspector.editor.bboxes[0] | {"x": 40.0, "y": 50.0, "width": 120.0, "height": 90.0}
    inspector.editor.bboxes = [*inspector.editor.bboxes, drawn]  # as the browser sends a box that was drawn
    assert encoder.calls == calls
    assert all(len(set(pictures)) == 4 for pictures in zip(first, second, third, shown(inspector), strict=True))
    x0, y0, x1, y1 = (side.value for side in inspector.sides)
    zoom = 460 / 128
    window = inspector.focus.window(256)
    assert (x0, x1 - x0) == pytest.approx((window.x0 + 40 / zoom, 120 / zoom), abs=0.01)
    assert (y0, y1 - y0) == pytest.approx((window.y0 + 50 / zoom, 90 / zoom), abs=0.01)
    inspector.sides[0].value = 1  # beyond the window
    assert encoder.calls == calls + 2 and inspector.error.value == ""


def test_what_is_shown_is_what_the_predictor_gives(inspector, frames, predictors):
    for place in (0, 1):
        inspector.slider.value = place
        (expected,) = predictors["sam"].predict(frames[0].image(), [frames[0].objects[place].box_xyxy])
        assert np.array_equal(inspector.answers["sam"].full(), expected.full())


def test_a_box_under_way_is_no_error_and_an_object_seen_before_is_not_encoded_again(inspector, encoder):
    inspector.editor.bboxes = [*inspector.editor.bboxes, {"x": 3, "y": 3, "width": 0, "height": 0, "label": "box"}]
    assert inspector.error.value == "" and inspector.focus.box_xyxy == inspector.focus.own_box
    inspector.step(1)
    calls = encoder.calls
    inspector.step(-1)
    inspector.step(-1)
    assert encoder.calls == calls and inspector.slider.value == 0


def test_rate_and_crop_size_are_one_setting(inspector):
    inspector.rate.value = 4
    assert inspector.crop.value == 64 and inspector.focus.window(256).width == 64
    inspector.crop.value = 100
    assert inspector.rate.value == pytest.approx(2.56) and inspector.focus.window(256).width == 100
    inspector.mode.value = "direct"
    assert inspector.focus.window(256).width == SIZE[1]


def test_errors_show_what_and_remedy_and_the_controls_stay_alive(inspector, frames, tmp_path):
    inspector.sides[2].value = 0
    assert "inverted" in inspector.error.value and "Remedy" in inspector.error.value
    inspector.slider.value = 1
    assert inspector.error.value == "" and "2 of 4" in inspector.title.value
    inspector.category.value, inspector.size.value = "plane", "0–256"
    assert "plane and 0–256" in inspector.error.value
    inspector.size.value = "all"
    assert inspector.error.value == "" and "1 of 1" in inspector.title.value
    inspector.dataset.value = "none"
    assert "no object there" in inspector.error.value
    inspector.dataset.value = "few"
    for tick in inspector.ticks.values():
        tick.value = False
    assert "none is ticked" in inspector.error.value
    inspector.ticks["hq-sam"].value = True
    assert inspector.error.value == "" and list(inspector.answers) == ["hq-sam"]
    path = frames[1].image_path
    path.rename(tmp_path / "away.png")
    inspector.slider.value = 3
    assert path.name in inspector.error.value
    (tmp_path / "away.png").rename(path)
    inspector.slider.value = 2
    assert inspector.error.value == "" and "no true mask" in inspector.columns["hq-sam"][0].value


def test_worst_first_is_judged_by_the_method_chosen(frames, predictors):
    inspector = inspect(frames_source({"few": frames}, predictors))
    ious = inspector.objects["sam"].tolist()
    assert ious[:3] == sorted(ious[:3]) and np.isnan(ious[3])
    assert inspector.scores["sam"].iou == pytest.approx(ious[0])
    inspector.judge.value = "hq-sam"
    assert inspector.scores["hq-sam"].iou == pytest.approx(inspector.objects["hq-sam"].iloc[0])


TINY = {
    "data.synthetic.train_videos": 2,
    "data.synthetic.val_videos": 1,
    "data.synthetic.test_videos": 1,
    "data.synthetic.frames_per_video": 1,
    "data.synthetic.scenes": ["sea"],
    "model.checkpoint": None,
    "training.samples": 2,
    "training.batch": 2,
    "training.validation_objects": 2,
    "training.lora_rank": 2,
}


def test_ros_sam_is_among_the_methods_once_its_run_is_finished_and_nothing_is_trained_to_find_out(tmp_path):
    experiments = Experiments(load_profile("smoke", TINY), tmp_path)
    before = experiments_source(experiments)
    assert list(before.methods) == ["sam", "sam2", "hq-sam"] and "ROS-SAM" in before.notes[0]
    assert not (tmp_path / "runs").exists()
    folder = experiments.run_dir(ROS_SAM)
    after = experiments_source(Experiments(experiments.profile, tmp_path))
    trained = load_run(folder).state_dict()
    found = after.methods["ros-sam"]().model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in trained.items()) and not after.notes
    other = Experiments(load_profile("smoke", TINY | {"training.samples": 4}), tmp_path)
    assert list(experiments_source(other).methods) == ["sam", "sam2", "hq-sam"]
    inspector = inspect(after)
    assert inspector.error.value == "" and list(inspector.scores) == ["sam", "sam2", "hq-sam", "ros-sam"]


# --- pictures -------------------------------------------------------------------------------------------------------


def test_the_error_map_counts_what_boundary_iou_divides(rng):
    pred, target = np.zeros((2, 60, 80), bool)
    target[10:40, 20:60], pred[14:44, 18:52] = True, True
    pred[rng.random(pred.shape) < 0.02] = True
    errors = pictures.boundary_errors(pred, target, 3)
    counts = np.bincount(errors.ravel(), minlength=4)
    assert counts[1] / counts[1:].sum() == boundary_iou(pred, target, band_px=3)
    assert not pictures.boundary_errors(pred & False, target & False, 3).any()


def test_tiles_keep_pixels_as_squares_and_mark_what_no_window_covers():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    assert np.array_equal(pictures.outlined(image, (1, 1, 3, 3), (20, 20), {})[::10, ::10], image[1:3, 1:3])
    heat = pictures.heat_map(np.array([[-99.0, 99.0], [0.0, np.nan]], np.float32), 50, (40, 40))
    assert heat[2, 2, 2] > heat[2, 2, 0] and heat[2, 36, 0] > heat[2, 36, 2]
    assert tuple(heat[36, 36]) == pictures.rgb(pictures.BEYOND)
    assert pictures.square_around([(250, 190, 262, 199)], SIZE) == (212, 152, 260, 200)
