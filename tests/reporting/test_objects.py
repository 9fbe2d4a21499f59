"""Views are cut, scored and chosen by rule."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.metrics import mask_iou
from rossam_kit.report.objects import cut_object, quantile_rows, view_objects


def test_a_view_at_the_border_is_shifted_inside_and_scored_on_the_whole_mask(rng):
    image = rng.integers(0, 255, (100, 120, 3), dtype=np.uint8)
    target, mask = np.zeros((2, 100, 120), bool)
    target[0:10, 110:120] = mask[0:10, 105:120] = True
    mask[90, 5] = True  # far outside the crop
    view = cut_object(image, (110, 0, 120, 10), target, {"sam": mask}, key="v/1 #1", category="ship")
    assert view.image.shape == (48, 48, 3)
    assert view.box_xyxy == (38, 0, 48, 10) and view.area == 100
    assert np.array_equal(view.image, image[:48, 72:])
    assert view.iou["sam"] == mask_iou(mask, target) == pytest.approx(100 / 151)
    small = cut_object(image[:20, :30], (0, 0, 5, 5), None, {"sam": mask[:20, :30]}, key="k", category="c")
    assert small.image.shape == (20, 30, 3) and small.iou == {}


def test_a_mask_of_another_size_is_named():
    with pytest.raises(RossamError, match=r"mask 'sam' is \(5, 5\), the image \(9, 9\)"):
        cut_object(
            np.zeros((9, 9, 3), np.uint8), (0, 0, 3, 3), None, {"sam": np.zeros((5, 5), bool)}, key="k", category="c"
        )


def test_quantile_rows_are_best_to_worst_without_repeats():
    table = pd.DataFrame({"iou": [0.1, np.nan, 0.9, 0.5, 0.3], "category": list("aabba")})
    assert quantile_rows(table, quantiles=(1, 0.3, 0))["iou"].tolist() == [0.9, 0.3, 0.1]
    assert len(quantile_rows(table, quantiles=(0.5, 0.5, 0.51))) == 1
    assert quantile_rows(table, quantiles=(1,), by="category")["iou"].tolist() == [0.3, 0.9]


def test_view_objects_predicts_each_frame_once_and_keeps_the_order_of_rows():
    calls = []

    class Fake:
        def predict(self, image, boxes):
            calls.append(len(boxes))
            return [SimpleNamespace(full=lambda i=i: np.full((20, 20), i == 1)) for i in range(len(boxes))]

    objects = [
        SimpleNamespace(object_id=i, category="ship", box_xyxy=(0, 0, 4, 4), has_mask=True,
                        mask=lambda size: np.ones(size, bool)) for i in (7, 9)
    ]  # fmt: skip
    frame = SimpleNamespace(video="a", index=3, key="a/000003", objects=objects, size_hw=(20, 20),
                            boxes_xyxy=np.zeros((2, 4)), image=lambda: np.zeros((20, 20, 3), np.uint8))  # fmt: skip
    rows = pd.DataFrame({"video": ["a", "a"], "frame": [3, 3], "object_id": [9, 7]})
    stored = rows.assign(mask=[masks.encode(np.full((20, 20), i == 9))["counts"] for i in rows["object_id"]])
    views = view_objects(rows, [frame], {"sam": Fake(), "stored": stored})
    assert calls == [2]
    assert [v.key for v in views] == ["a/000003 #9", "a/000003 #7"]
    assert [v.iou["sam"] for v in views] == [v.iou["stored"] for v in views] == [1.0, 0.0]
    with pytest.raises(RossamError, match="has no object 8"):
        view_objects(rows.assign(object_id=8), [frame], {"sam": Fake()})
