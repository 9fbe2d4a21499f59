"""The dry run: what is missing is told with its remedy, what is there is counted, looking changes nothing."""

import pytest

from rossam_core.errors import RossamError
from rossam_kit import cli
from rossam_kit.config import SyntheticConfig, load_profile
from rossam_kit.datasets.synthetic.video import generate
from rossam_kit.experiments import planning
from rossam_kit.experiments.probe import Probe
from rossam_kit.report.dry_run import checklist

from ..fake_datasets import write_twin

GPU = Probe("a GPU, bfloat16", (0.2, 0.3), (0.02, 0.03), 8, 1.0, 20.0, 70_000_000)
DATASETS = ("sat-mtb", "isaid", "nwpu-vhr10", "satsot", "viso", "ootb")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two generated videos of two frames."""
    made = SyntheticConfig(test_videos=2, frames_per_video=2, frame_stride=1, scenes=("airport", "sea"))
    return generate(made, "test", tmp_path_factory.mktemp("clips"))


def told(profile, **options):
    found = checklist(profile, measure=lambda *_: GPU, **options)
    return found, "\n".join(found.lines)


def test_where_nothing_is_there_everything_is_missing_with_a_remedy(cache):
    found, text = told(load_profile("paper"), command="--profile paper")
    assert not found.is_complete
    assert set(found.to_fetch) == {"sat-mtb", "nwpu-vhr10", "sam_vit_l", "sam_hq_vit_l", "sam2.1_hiera_large"}
    assert found.by_hand == ["isaid", "satsot", "viso", "ootb"]
    for name in DATASETS:
        assert f"[ ] {name} " in text and str(cache / "data" / name) in text
    assert "1. rossam fetch sat-mtb nwpu-vhr10 sam_vit_l" in text
    assert "[ ] 07_static_datasets      waits for nwpu-vhr10" in text
    assert "waits for sat-mtb, one of satsot, viso, ootb" in text
    assert "--two-steps" not in text, "there is nothing to try it with"
    assert not cache.exists() or not any(cache.rglob("*.json"))


def test_hours_follow_from_the_probe_and_the_published_numbers_of_frames():
    profile = load_profile("paper", {"notebooks": ["03_training_pipeline"]})
    _, text = told(profile)
    # table 3: four runs of 24 epochs over nine tenths of 8,333 frames, 0.2 to 0.3 s a view
    assert "4 runs, 720,000 views in all" in text
    assert "fine-tuning: about 40 to 60 hours" in text


def test_a_run_that_tables_share_is_counted_once():
    three, seven, both = (
        [
            where
            for _, where, *_ in planning.work(
                planning.Experiments(load_profile("paper", {"notebooks": names})), {}
            ).runs
        ]
        for names in (["03_training_pipeline"], ["05_image_encoder"], ["03_training_pipeline", "05_image_encoder"])
    )
    shared = "figure7, ROS-SAM, LoRA and last block"  # is table 3's row without augmentation
    assert shared in seven and both == three + [where for where in seven if where != shared]


def test_what_is_there_is_counted_and_what_it_lacks_is_told(clips, cache, tmp_path):
    data = tmp_path / "data"
    write_twin(clips, "sat-mtb", data / "SAT-MTB", "train")
    write_twin(clips, "sat-mtb", data / "SAT-MTB", "test")
    write_twin(clips, "satsot", data / "satsot")
    overrides = {f"datasets.{name}.root": str(data) for name in DATASETS[1:]} | {"data.root": str(data)}
    found, text = told(load_profile("paper", overrides))
    assert "[!] sat-mtb" in text and "here, but not as published" in text and "4 of 249 video folders" in text
    assert "train: 1 frames of 1 videos" in text and "test: 2 frames of 2 videos" in text, "the paper's quarter"
    assert "[!] satsot" in text and "[ ] viso" in text and str(data / "viso") in text
    assert "[x] 03_training_pipeline" in text
    assert "[x] 08_zero_shot_tracking   its data is here, but for viso, ootb" in text
    assert "[ ] 07_static_datasets      waits for nwpu-vhr10" in text and "--two-steps" in text
    assert "sat-mtb, 1 frames, 24 views" in text
    assert "viso" in found.by_hand


def test_generated_data_and_shipped_weights_are_complete():
    found, text = told(load_profile("smoke", {"model.checkpoint": None}))
    assert found.is_complete and text.endswith("Everything is there.")
    assert "generated frames" in text and "8 views" in text


def test_hours_of_a_processor_that_others_held_are_told_as_such():
    slow = Probe("x86_64 processor, 2 cores, float32", (9.0, 9.5), (1.0, 1.0), 1, 0.25, 5.0, 1000, busy=3.0)
    text = " ".join(" ".join(checklist(load_profile("smoke"), measure=lambda *_: slow).lines).split())
    assert "25% of its blocks, all times multiplied by 4" in text
    assert "hours of this processor, not of a GPU" in text and "(3.0 processes a core)" in text
    assert "not of a GPU" not in told(load_profile("smoke"))[1]


def test_a_probe_that_fails_is_told_and_stops_nothing():
    def measure(*_):
        raise RossamError("probe", "its network does not fit", "free some memory")

    found = checklist(load_profile("smoke"), measure=measure)
    assert any("not measured: its network does not fit; free some memory" in line for line in found.lines)


def test_a_data_folder_that_does_not_exist_is_told(tmp_path):
    _, text = told(load_profile("nwpu", {"data.root": str(tmp_path / "nowhere")}))
    assert "no such folder" in text and "rossam fetch nwpu-vhr10" in text


def test_the_command_line_lists_and_exits_with_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rossam_kit.report.dry_run.probe", lambda *_: GPU)
    arguments = ["run", "--profile", "nwpu", "--dry-run", "--report", str(tmp_path / "report")]
    assert cli.main(arguments) == 1
    assert "look again: ./run_all.sh --profile nwpu --dry-run" in capsys.readouterr().out
    assert not (tmp_path / "report").exists()


def test_two_steps_are_two_steps_everywhere():
    given = {"budgets.table3.samples": 999, "seeds": [3, 4]}
    profile = load_profile("smoke", given)
    small = load_profile("smoke", given | planning.two_steps(profile))
    experiments = planning.Experiments(small)
    for table in experiments.tables:
        for row in experiments.specs[table].rows:
            if row.training is not None:
                training = experiments.run_config(row, 0).training
                assert training.total_samples(1000) == 2 * training.batch
    assert small.seeds == (3,) and small.data.limit_frames == 4 and "mean nothing" in small.notice
