"""The profile `paper` from data to table, on a generated twin of SAT-MTB and a ViT-B of two blocks."""

import json

import pytest

from rossam_core.errors import RossamError
from rossam_kit.config import SyntheticConfig, load_profile
from rossam_kit.datasets.loading import keep_manifests, load_frames
from rossam_kit.datasets.synthetic.video import generate
from rossam_kit.experiments.experiments import Experiments
from rossam_kit.report import fine_tuning as runs
from rossam_kit.report import tables

from .fake_datasets import write_twin

SMALL = {
    "model.backbone": "vit_b",
    "model.checkpoint": None,
    "model.architecture": {"depth": 2, "global_attention": [1], "input_size": 256},
    "training.samples": 2,
    "training.batch": 2,
    "training.micro_batch": 1,
    "training.workers": 0,
    "training.lora_rank": 4,
    "training.validation_objects": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """SAT-MTB's layout with two generated videos to train on and one to test on, four frames each."""
    folder = tmp_path_factory.mktemp("twin")
    for split, scenes in (("train", ("airport", "sea")), ("test", ("airport",))):
        count = {f"{split}_videos": len(scenes)}
        made = SyntheticConfig(**count, frames_per_video=4, frame_stride=1, scenes=scenes)
        write_twin(generate(made, split, folder / "made"), "sat-mtb", folder / "sat-mtb", split)
    return folder


def test_the_profile_is_the_papers():
    profile = load_profile("paper")
    assert (profile.data.source, profile.model.backbone, profile.model.sam2_backbone) == (
        "sat-mtb", "vit_l", "hiera_large",
    )  # fmt: skip
    assert (profile.model.recipe, profile.training["epochs"], profile.data.sample.fraction) == ("paper", 24, 0.25)
    assert set(profile.datasets) == {"isaid", "nwpu-vhr10", "satsot", "viso", "ootb"}


def test_a_dataset_without_a_root_is_looked_for_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path))
    with pytest.raises(RossamError, match=r"(?s)data.sat-mtb.*rossam fetch sat-mtb.*--data"):
        load_frames(load_profile("paper").data, "test")


def test_a_quarter_of_the_frames_is_drawn_the_same_each_time_and_kept(twin, tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path))
    data = load_profile("paper", {"data.root": str(twin)}).data
    whole = load_frames(data.model_copy(update={"sample": None}), "test", tmp_path)
    first, again = (load_frames(data, "test", tmp_path) for _ in range(2))
    assert len(whole) == 4 and len(first) == 1
    assert first.fingerprint() == again.fingerprint()
    assert sum("not in the sample" in drop.reason for drop in first.drops) == 3
    other = data.model_copy(update={"sample": data.sample.model_copy(update={"fraction": 0.75})})
    assert len(load_frames(other, "test", tmp_path)) == 3
    load_frames(data, "train", tmp_path)
    kept = keep_manifests(data, tmp_path / "report")
    assert [path.name for path in kept] == ["train.json", "test.json"]
    listed = json.loads(kept[1].read_text())
    assert [frame["key"] for frame in listed["frames"]] == [first[0].key]


@pytest.mark.timeout(300)
def test_table_3_is_trained_and_scored_on_the_twin(twin, tmp_path):
    profile = load_profile("paper", SMALL | {"data.root": str(twin)})
    experiments = Experiments(profile, tmp_path)
    measured = experiments.results("table3")
    assert experiments.model("ros-sam").arch.depth == 2
    rows = tables.comparison_rows("table3", measured)
    assert [row.published.iou for row in rows] == [49.19, 49.43, 50.03, 50.54]
    assert all(0 <= row.iou.mean <= 1 for row in rows)
    log = runs.log(experiments, measured[-1].spec)
    assert log.loc[log["kind"] == "step", "samples"].tolist() == [2]
    assert len([path for path in (tmp_path / "runs").iterdir() if path.is_dir()]) == 4
