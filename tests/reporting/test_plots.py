"""Plots return figures that belong to nobody, leave matplotlib's settings alone, and draw what they are given."""

from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rossam_core.errors import RossamError
from rossam_core.settings import InferenceConfig
from rossam_kit.experiments.statistics import Interval
from rossam_kit.report import boundary_iou_demo as bands
from rossam_kit.report import pictures, plots, schematics
from rossam_kit.report.labels import LABELS
from rossam_kit.report.objects import cut_object
from rossam_kit.report.style import COLOURS, colour
from rossam_kit.report.tables import ForestRow

SIZE_BINS = (0.0, 256.0, 1024.0, 9216.0)


@pytest.fixture
def views(rng):
    yy, xx = np.mgrid[:64, :80]
    target = (yy - 30) ** 2 + (xx - 40) ** 2 < 90
    masks = {"sam": np.roll(target, 4, axis=1), "ros-sam": target, "box": np.zeros_like(target)}
    image = rng.integers(0, 255, (64, 80, 3), dtype=np.uint8)
    return [cut_object(image, (30, 20, 50, 40), target, masks, key=f"v/{i}", category="ship") for i in range(3)]


@pytest.fixture
def scores(rng):
    parts = [
        pd.DataFrame({"method": m, "video": (np.arange(60) % 6).astype(str), "frame": np.arange(60), "object_id": 1,
                      "category": np.where(np.arange(60) % 3, "ship", "train"), "area": np.geomspace(20, 5000, 60),
                      "gap_in_sides": np.where(np.arange(60) % 9, np.linspace(0, 6, 60), np.nan),
                      "iou": np.where(np.arange(60) == 5, np.nan, rng.random(60))})
        for m in ("ellipse", "sam", "ros-sam")
    ]  # fmt: skip
    return pd.concat(parts)


def interval(mean, half_width=2.0):
    return Interval(mean, (((half_width / 1.959964) ** 2, 10**9),), 9, 3)


FOREST = [
    ForestRow("SAM", interval(40), 37.25, method="sam"),
    ForestRow("SAM2", None, 36.8, method="sam2", reason="no weights"),
]
LEDGER = [
    ForestRow("The pipeline helps", interval(8), verdict="reproduced"),
    ForestRow("Rate 4 helps less", interval(-3), verdict="not reproduced"),
    ForestRow("LoRA helps", interval(1), verdict="inconclusive"),
    ForestRow("Rotation helps", interval(2), verdict="one run"),
    ForestRow("Trains", Interval(np.nan, (), 0, 0), verdict="inconclusive", reason="no scored unit"),
]


def all_figures(views, scores):
    frame = SimpleNamespace(video="v", index=1, size_hw=(64, 80), image=lambda: np.zeros((64, 80, 3), np.uint8),
                            boxes_xyxy=np.array([[9.0, 9, 30, 30], [40, 9, 50, 20]]),
                            objects=[SimpleNamespace(has_mask=False, box_xyxy=(3, 3, 9, 9)),
                                     SimpleNamespace(has_mask=True, mask=lambda s: np.ones(s, bool))])  # fmt: skip
    levels = [scores.assign(disturbance=name, level=level) for name in ("jitter", "noise", "haze") for level in (0, 9)]
    return {
        "contact_sheet": pictures.contact_sheet([frame] * 4),
        "mask_comparison": pictures.mask_comparison(views),
        "filmstrip": pictures.filmstrip(views, titles=["1", "2", "3"]),
        "crop_strategies": pictures.crop_strategies(frame, {"tiled": InferenceConfig(mode="tiled")}, 64),
        "ledger": plots.forest(LEDGER, "points"),
        "overview": schematics.overview(),
        "decoders": schematics.decoders(),
        "encoder": schematics.encoder(),
        "forest": plots.forest(FOREST),
        "score_by_size": plots.score_by_size(scores, SIZE_BINS),
        "score_by_crowding": plots.score_by_crowding(scores),
        "robustness_curves": plots.robustness_curves(pd.concat(levels)),
        "bands": bands.band_figure(0.02),
        "score_by_group": plots.score_by_group(scores),
        "area_histogram": plots.area_histogram({"a": scores["area"]}, size_bins=SIZE_BINS, marks={"paper": 518}),
    }


def test_every_plot_returns_a_figure_and_touches_nothing_global(views, scores):
    settings, open_figures = dict(mpl.rcParams), plt.get_fignums()
    for name, figure in all_figures(views, scores).items():
        assert isinstance(figure, Figure), name
        assert figure._repr_png_().startswith(b"\x89PNG"), name
    assert dict(mpl.rcParams) == settings
    assert plt.get_fignums() == open_figures


def test_no_two_texts_overlap(views, scores):
    for name, figure in all_figures(views, scores).items():
        figure.draw_without_rendering()
        texts = [t for t in figure.findobj(mpl.text.Text) if t.get_visible() and t.get_text().strip()]
        boxes = [(t.get_text(), t.get_window_extent().padded(-1)) for t in texts]
        clashes = [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[i + 1 :] if x.overlaps(y)]
        assert not clashes, (name, clashes)


def test_masks_are_compared_in_rows_with_their_iou_below(views):
    figure = pictures.mask_comparison(views)
    texts = [t.get_text() for t in figure.texts]
    assert len(figure.axes) == 4 * 3, "ground truth and three methods"
    assert texts.count("IoU 100.0") == 3 and texts.count("IoU 0.0") == 3
    assert [t for t in texts if t in LABELS.values()] == ["Ground truth", "SAM", "ROS-SAM", "Filled box"]
    with pytest.raises(RossamError, match="has no mask of sam2"):
        pictures.mask_comparison(views, ["sam2"])


def test_an_outline_lies_on_pixel_edges(views):
    ax = pictures.mask_comparison(views[:1], ["ros-sam"]).axes[0]
    vertices = ax.patches[-1].get_path().vertices
    assert np.array_equal(vertices, vertices.round())
    assert ax.get_xlim() == (0, views[0].image.shape[1])


def test_published_and_reason_are_both_shown():
    ax = plots.forest(FOREST).axes[0]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"] == [37.25, 36.8]
    assert "no weights" in [t.get_text() for t in ax.texts]
    assert ax.get_xlim() == (0, 100) and "one score per frame" in ax.get_xlabel()


def test_a_claims_mark_stands_at_its_difference_and_shows_its_verdict():
    ax = plots.forest(LEDGER, "points").axes[0]
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([8, -3, 1, 2])
    assert [line.get_fillstyle() for line in marks] == ["full", "none", "left", "bottom"]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linewidth() == 2.2] == pytest.approx(
        [6, -5, -1, 0], abs=1e-6
    )


def test_nothing_in_a_drawing_of_the_method_overlaps_or_leaves_the_sheet():
    for figure in (schematics.overview(), schematics.decoders(), schematics.encoder()):
        renderer = FigureCanvasAgg(figure).get_renderer()
        plates = [patch.get_window_extent(renderer) for patch in figure.axes[0].patches]
        assert len(plates) >= 7
        assert not any(a.overlaps(b) for i, a in enumerate(plates) for b in plates[:i])
        bounds = figure.bbox
        for text in figure.axes[0].texts:
            box = text.get_window_extent(renderer)
            assert bounds.x0 <= box.x0 and box.x1 <= bounds.x1 and bounds.y0 <= box.y0 and box.y1 <= bounds.y1


def test_a_method_has_one_colour_and_models_differ_in_lightness_or_hue():
    assert colour("ros-sam") == colour("ROS-SAM, whole frame") == COLOURS["ros-sam"]
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert set(COLOURS) < set(LABELS)


def test_objects_alone_in_their_frame_count_to_the_least_crowded(scores):
    ax = plots.score_by_crowding(scores).axes[0]
    counted = [int(t.get_text().split("n = ")[1].rstrip(")")) for t in ax.get_yticklabels()]
    assert len(counted) == 5 and sum(counted) == 59  # one has no score


def test_made_predictions_are_equally_wrong_by_iou_and_the_fitted_band_alone_tells_them_apart():
    table = bands.band_demonstration(0.02, widths=(24, 40, 58)).set_index(["width", "wrong"])
    assert (table["biou"] == table["iou"]).all()
    for width in (24, 40, 58):
        box, bite = table.loc[(width, "box")], table.loc[(width, "bite")]
        assert abs(box["iou"] - bite["iou"]) < 1.5 and bite["biou_fit"] > box["biou_fit"] + 25
    large = bands.band_demonstration(0.02, widths=(120,)).set_index("wrong")
    assert large.loc["box", "biou"] < large.loc["box", "iou"] - 10


def test_nothing_to_draw_is_told():
    with pytest.raises(RossamError, match="no frames"):
        pictures.contact_sheet([])
    empty = pd.DataFrame({"method": ["sam"], "area": [9.0], "video": ["a"], "iou": [np.nan]})
    with pytest.raises(RossamError, match="no row with a value"):
        plots.score_by_size(empty, SIZE_BINS)
