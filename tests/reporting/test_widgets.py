"""The inspector without a browser: orders, filters, windows that stay, pictures that follow, errors that show."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from rossam_core.errors import RossamError
from rossam_core.inference.predictor import Predictor
from rossam_core.masks import encode
from rossam_core.metrics import boundary_iou
from rossam_core.model.build import build_model, load_run
from rossam_core.model.lora import merge_adapters
from rossam_core.records import Frame, ObjectAnnotation
from rossam_core.settings import InferenceConfig
from rossam_kit.config import EvaluationConfig, load_profile
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.experiments.experiments import Experiments
from rossam_kit.experiments.scoring import evaluate, score
from rossam_kit.inspector import tiles
from rossam_kit.inspector.widgets import Focus, Inspector, Source, arrange, experiments_source, list_objects
from rossam_kit.report.objects import square_around

SIZE = (200, 260)
BINS = EvaluationConfig().size_bins


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


def source(sets, predictors, **options):
    """A source over existing frames and predictors."""
    return Source(
        {name: lambda frames=frames: frames for name, frames in sets.items()},
        {name: lambda predictor=predictor: predictor for name, predictor in predictors.items()},
        lambda name, method: evaluate(predictors[method], sets[name]),
        **options,
    )


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
    made = Inspector(source({"few": frames, "none": FrameSet("none", [])}, predictors), order="data")
    assert made.error.value == ""
    return made


@pytest.mark.parametrize(
    ("box", "tile"), [((60, 60, 90, 90), 300), ((5, 5, 250, 100), round(300 * SIZE[0] / SIZE[1]))],
    ids=["square", "whole frame"],
)  # fmt: skip
def test_each_ticked_method_has_a_column_with_its_pictures_one_below_the_other(inspector, box, tile):
    inspector.prompt(box)
    assert [column.children for column in inspector.columns.children] == [
        (inspector.heads[method], inspector.images[method]) for method in inspector.ticks
    ]
    for method, image in inspector.images.items():
        drawn = cv2.imdecode(np.frombuffer(image.value, np.uint8), cv2.IMREAD_COLOR)
        assert drawn.shape == (3 * tile + 12, 300, 3)
        assert np.array_equal(drawn[..., ::-1], inspector.pictures[method])


# --- which objects, in which order ----------------------------------------------------------------------------------


def listed(frames):
    return list_objects(score(((frame, [None] * len(frame.objects)) for frame in frames), ("object",), size_bins=BINS))


def scored(frames):
    return listed(frames).assign(iou=[0.5, 0.9, np.nan, 0.5])


def test_objects_are_listed_with_area_and_size_also_where_they_have_no_mask(frames):
    objects = listed([*frames, dataclasses.replace(frames[0], index=3, objects=())])
    assert objects["category"].tolist() == ["ship", "ship", "car", "plane"]
    assert objects["key"].tolist() == ["v/000001"] * 3 + ["v/000002"]
    assert objects["area"].fillna(-1).tolist() == [144, 1600, -1, 576]
    assert objects["size_bin"].fillna("-").tolist() == ["0–256", "1024–9216", "-", "256–1024"]


def test_orders_are_those_of_the_scores_with_ties_as_in_the_data_and_unscored_last(frames):
    table = scored(frames)
    places = {order: arrange(table, order).index.tolist() for order in ("worst", "best", "data")}
    assert places == {"worst": [0, 3, 1, 2], "best": [1, 0, 3, 2], "data": [0, 1, 2, 3]}
    shuffles = {tuple(arrange(table, "random", seed=seed).index) for seed in range(8)}
    assert len(shuffles) > 1 and all(sorted(shuffle) == [0, 1, 2, 3] for shuffle in shuffles)
    assert arrange(table, "random", seed=3).index.tolist() == arrange(table, "random", seed=3).index.tolist()


def test_filters_combine_and_an_empty_choice_is_named(frames):
    table = scored(frames)
    assert arrange(table, category="ship", size_bin="0–256").index.tolist() == [0]
    assert arrange(table, key="v/000002").index.tolist() == [3]
    with pytest.raises(RossamError, match="plane and 0–256: no object there"):
        arrange(table, category="plane", size_bin="0–256")


# --- what must be encoded again -------------------------------------------------------------------------------------


def test_a_window_stays_while_it_holds_the_box_and_follows_settings(frames, predictors):
    model, config, focus = predictors["sam"].model, InferenceConfig(), Focus(frames[0], 1)
    before = focus.window(model, config)
    moved = focus.with_prompt((118, 95, 150, 139.5))
    assert moved.window(model, config) is before
    away = moved.with_prompt((0, 0, 30, 30))
    assert away.window(model, config) != before
    assert away.with_prompt(focus.own_box).window(model, config).holds((120, 100, 160, 140))
    assert moved.with_prompt(moved.box_xyxy, recentre=True).window(model, config) != before
    for change in ({"rate": 4.0}, {"mode": "direct"}):
        assert focus.window(model, InferenceConfig(**change)) != before
    with pytest.raises(RossamError, match="inverted"):
        focus.with_prompt((9, 9, 3, 3))
    assert focus.box_xyxy == focus.own_box


def test_shared_windows_are_planned_among_all_prompts_of_the_frame(frames, predictors):
    model, focus = predictors["sam"].model, Focus(frames[0], 0)
    shared = focus.window(model, InferenceConfig(mode="shared", rate=1.28))  # 200 px windows hold both ships
    assert shared.holds((120, 100, 160, 140))
    assert not focus.window(model, InferenceConfig(rate=4)).holds((120, 100, 160, 140))


# --- the widget -----------------------------------------------------------------------------------------------------


def shown(inspector):
    return [image.value for image in inspector.images.values()]


def window_of(inspector):
    """The window of the pictures, for a model of 256 px."""
    return inspector.focus.window(inspector.source.methods["sam"]().model, inspector._config)


def draw(inspector, box=(), points=()):
    """What the browser sends when the prompt is edited in the picture."""
    inspector.editor.prompt = {"box": list(box), "points": [list(point) for point in points]}


def test_a_threshold_or_a_box_in_the_window_needs_no_encoder_and_changes_every_picture(inspector, encoder):
    inspector.slider.value = 1
    calls, first = encoder.calls, shown(inspector)
    inspector.threshold.value = 0.7
    second = shown(inspector)
    inspector.sides[0].value -= 9
    third = shown(inspector)
    window = window_of(inspector)
    assert inspector.editor.region == list(window.window_xyxy)
    box = (window.x0 + 11.5, window.y0 + 14, window.x0 + 45, window.y0 + 39)
    draw(inspector, box)
    assert encoder.calls == calls
    assert all(len(set(pictures)) == 4 for pictures in zip(first, second, third, shown(inspector), strict=True))
    assert inspector.focus.box_xyxy == tuple(side.value for side in inspector.sides) == box
    draw(inspector)  # the box was deleted
    assert inspector.focus.box_xyxy == inspector.focus.own_box == tuple(inspector.editor.prompt["box"])
    inspector.sides[0].value = 1  # beyond the window
    assert encoder.calls == calls + 2 and inspector.error.value == ""


@pytest.mark.parametrize("mode", ["object", "direct"])
def test_what_is_shown_is_what_the_predictor_gives(frames, predictors, mode):
    config = InferenceConfig(mode=mode)
    sam2 = build_model("sam2", "hiera_t", checkpoint=None, seed=1)
    made = {name: Predictor(p.model, config, "cpu") for name, p in predictors.items()}
    made["sam2"] = Predictor(sam2, config, "cpu")
    inspector = Inspector(source({"few": frames}, made, inference=config), order="data")
    for place in (0, 1):
        inspector.slider.value = place
        for name, predictor in made.items():
            (expected,) = predictor.predict(frames[0].image(), [frames[0].objects[place].box_xyxy])
            assert np.array_equal(inspector.answers[name].full(), expected.full()), name


def test_points_are_off_for_models_trained_with_boxes_and_the_widget_says_so(inspector):
    assert "weights of vit_t were trained with boxes only" in inspector.editor.points_off
    before = shown(inspector)
    draw(inspector, inspector.focus.own_box, [(25, 25, 1)])
    assert inspector.error.value == "" and "box only" in inspector.heads["sam"].value
    assert inspector.answers["sam"].box_xyxy == inspector.focus.own_box and shown(inspector) == before


def test_points_reach_the_models_that_were_trained_with_them(inspector, predictors, encoder, frames, monkeypatch):
    model = predictors["hq-sam"].model
    monkeypatch.setattr(model, "supports_points", True)
    inspector.ticks["sam"].value = False
    assert inspector.editor.points_off == ""
    inspector.ticks["sam"].value = True
    box, calls, sent = inspector.focus.own_box, encoder.calls, []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda *given: sent.append(given[2]) or decode(*given))
    before = inspector.answers["hq-sam"].logit_crop, inspector.answers["sam"].logit_crop
    draw(inspector, box, [(24.5, 26, 1), (40, 30, 0)])
    assert encoder.calls == calls and inspector.error.value == ""
    assert not np.array_equal(inspector.answers["hq-sam"].logit_crop, before[0])
    assert np.array_equal(inspector.answers["sam"].logit_crop, before[1])
    window = window_of(inspector)
    [(coords, labels)] = sent[0]
    assert coords[0].tolist() == [[2 * (x - window.x0), 2 * (y - window.y0)] for x, y in ((24.5, 26), (40, 30))]
    assert labels.tolist() == [[1, 0]]
    (x, y, side) = (window.x0 + window.width + 5, 30, 1)
    draw(inspector, box, [(24.5, 26, 1), (x, y, side)])
    assert "a point lies outside the window" in inspector.error.value
    assert inspector.editor.prompt["points"] == [[24.5, 26, 1], [40, 30, 0]]  # as before the error
    draw(inspector, box)
    assert inspector.error.value == "" and np.array_equal(inspector.answers["hq-sam"].logit_crop, before[0])


def test_an_object_seen_before_is_not_encoded_again(inspector, encoder):
    inspector.step(1)
    calls = encoder.calls
    inspector.step(-1)
    inspector.step(-1)
    assert encoder.calls == calls and inspector.slider.value == 0


def test_the_window_follows_the_rate_and_its_size_is_shown(inspector):
    inspector.rate.value = 4
    assert window_of(inspector).width == 64 and "64 × 64 px" in inspector.status.value
    inspector.mode.value = "direct"
    assert window_of(inspector).width == SIZE[1]


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
    assert inspector.dataset.value == "none"
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
    assert inspector.error.value == "" and "no true mask" in inspector.heads["hq-sam"].value
    assert inspector.pictures["hq-sam"].shape[0] == 2 * 300 + 6  # without a target there are no boundary errors


def test_an_unexpected_error_is_shown_and_every_action_is_answered(inspector, predictors, monkeypatch):
    answered = inspector.editor.answered
    monkeypatch.setattr(predictors["sam"].model, "decode", lambda *_: 1 / 0)
    good = inspector.focus.box_xyxy
    draw(inspector, (10, 10, 40, 40))
    assert "ZeroDivisionError" in inspector.error.value and "Remedy" in inspector.error.value
    assert inspector.editor.answered == answered + 1 and inspector.focus.box_xyxy == good
    assert inspector.editor.prompt["box"] == list(good)
    monkeypatch.undo()
    draw(inspector, (10, 10, 40, 40))
    assert inspector.error.value == "" and inspector.focus.box_xyxy == (10, 10, 40, 40)


def test_worst_first_is_judged_by_the_method_chosen(frames, predictors):
    inspector = Inspector(source({"few": frames}, predictors))
    assert inspector.error.value == ""
    ious = inspector.objects["iou"].tolist()
    assert ious[:3] == sorted(ious[:3]) and np.isnan(ious[3])
    assert inspector.scores["sam"].iou == pytest.approx(ious[0])
    inspector.judge.value = "hq-sam"
    assert inspector.scores["hq-sam"].iou == pytest.approx(inspector.objects["iou"].iloc[0])


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
    folder = experiments.run_dir(experiments.specs["table5"].row("ROS-SAM"))
    after = experiments_source(Experiments(experiments.profile, tmp_path))
    trained = load_run(folder)
    merge_adapters(trained)  # as the tables are scored
    trained = trained.state_dict()
    found = after.methods["ros-sam"]().model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in trained.items()) and not after.notes
    other = Experiments(load_profile("smoke", TINY | {"training.samples": 4}), tmp_path)
    assert list(experiments_source(other).methods) == ["sam", "sam2", "hq-sam"]
    inspector = Inspector(after)
    assert inspector.error.value == "" and list(inspector.scores) == ["sam", "sam2", "hq-sam", "ros-sam"]


# --- pictures -------------------------------------------------------------------------------------------------------


def test_the_error_map_counts_what_boundary_iou_divides(rng):
    pred, target = np.zeros((2, 60, 80), bool)
    target[10:40, 20:60], pred[14:44, 18:52] = True, True
    pred[rng.random(pred.shape) < 0.02] = True
    errors = tiles.boundary_errors(pred, target, 3)
    counts = np.bincount(errors.ravel(), minlength=4)
    assert counts[1] / counts[1:].sum() == boundary_iou(pred, target, band_px=3)
    assert not tiles.boundary_errors(pred & False, target & False, 3).any()


def test_tiles_keep_pixels_as_squares_and_mark_what_no_window_covers():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    assert np.array_equal(tiles.outlined(image, (1, 1, 3, 3), 20, {})[::10, ::10], image[1:3, 1:3])
    heat = tiles.heat_map(np.array([[-99.0, 99.0], [0.0, np.nan]], np.float32), 50, 40)
    assert heat[2, 2, 2] > heat[2, 2, 0] and heat[2, 36, 0] > heat[2, 36, 2]
    assert tuple(heat[36, 36]) == tiles.rgb(tiles.BEYOND)
    assert square_around([(250, 190, 262, 199)], SIZE) == (212, 152, 260, 200)
