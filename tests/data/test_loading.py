"""Every source a profile may name leads to frames, and only to splits it has."""

from typing import get_args

import numpy as np
import pytest

from rossam_core.config import DataConfig
from rossam_core.data.images import ImageConversionWarning
from rossam_core.data.loading import SPLITS, load_frames, scored_split
from rossam_core.errors import RossamError

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
