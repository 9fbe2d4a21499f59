"""Every source a profile may name leads to frames, and only to splits it has."""

import json
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from rossam_core.errors import RossamError
from rossam_kit.config import DataConfig
from rossam_kit.datasets.images import ImageConversionWarning
from rossam_kit.datasets.loading import SPLITS, boxes_only, load_frames, scored_split

from ..fake_datasets import WRITERS, write_twin
from .scenes import made_frames


def test_every_source_has_splits_and_a_scored_one():
    sources = get_args(DataConfig.model_fields["source"].annotation)
    assert set(sources) == set(SPLITS)
    assert all(scored_split(DataConfig(source=source)) in SPLITS[source] for source in sources)


@pytest.mark.parametrize("source", sorted(set(WRITERS) - {"nwpu-vhr10"}))
def test_a_twin_is_loaded_as_the_scored_split(tmp_path, source):
    write_twin(made_frames(tmp_path / "source"), source, tmp_path / "twin")
    data = DataConfig(source=source, root=tmp_path / "twin")
    assert load_frames(data, scored_split(data), tmp_path / "cache").object_count >= 12


@pytest.mark.parametrize("source", sorted(set(WRITERS) - {"nwpu-vhr10"}))
def test_bands_and_stretch_reach_the_images_of_every_source(tmp_path, source):
    write_twin(made_frames(tmp_path / "source"), source, tmp_path / "twin")
    data = DataConfig(source=source, root=tmp_path / "twin")
    split = scored_split(data)
    plain = load_frames(data, split, tmp_path / "cache")
    shown = load_frames(data.model_copy(update={"bands": (3, 2, 1), "stretch": "50,200"}), split, tmp_path / "cache")
    with pytest.warns(ImageConversionWarning, match="bands 3, 2, 1 of 3"):
        image = shown[0].image()
    expected = np.rint((plain[0].image()[..., ::-1].clip(50, 200) - 50.0) * 255 / 150)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("source", ["sat-mtb", "authors"])
def test_val_is_held_out_of_train_by_video(tmp_path, source):
    write_twin(made_frames(tmp_path / "source"), source, tmp_path / "twin", "train")
    data = DataConfig(source=source, root=tmp_path / "twin")
    train, val = (load_frames(data, split, tmp_path / "cache") for split in ("train", "val"))
    assert len(train.videos) == len(val.videos) == 1 and not set(train.videos) & set(val.videos)


def test_a_split_that_a_source_lacks_is_an_error(tmp_path):
    with pytest.raises(RossamError, match=r"satsot: has no split 'train'(?s:.)*it offers test"):
        load_frames(DataConfig(source="satsot", root=tmp_path), "train")


@pytest.mark.parametrize("segmentation", [None, [], [[2, 2, 6, 2, 6, 5, 2, 5]]])
def test_data_of_boxes_alone_is_seen(tmp_path, segmentation):
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 3], "iscrowd": 0}
    box |= {} if segmentation is None else {"segmentation": segmentation}
    images = [{"id": 1, "file_name": "a.png", "width": 16, "height": 12}]
    content = {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "ship"}]}
    (tmp_path / "images").mkdir()
    Image.new("RGB", (16, 12)).save(tmp_path / "images/a.png")
    (tmp_path / "test.json").write_text(json.dumps(content))
    assert boxes_only(DataConfig(source="coco", root=tmp_path)) == (not segmentation)
    assert not boxes_only(DataConfig(source="synthetic"))
