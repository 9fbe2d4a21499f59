"""Dry run: missing data has a remedy, existing data is counted, rows to compute have a reason, nothing is changed."""

import pytest

from rossam_core.files import read_sealed, write_sealed
from rossam_kit import cli
from rossam_kit.config import SyntheticConfig, load_profile
from rossam_kit.datasets.synthetic.video import generate
from rossam_kit.experiments import planning
from rossam_kit.report.dry_run import checklist

from ..fake_datasets import write_twin

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


def listed(profile, **options):
    page = checklist(profile, **options)
    return page, "\n".join(page.lines)


def test_where_nothing_is_there_everything_is_missing_with_a_remedy(cache):
    page, text = listed(load_profile("paper"), command="--profile paper")
    assert not page.is_complete
    assert set(page.to_fetch) == {"sat-mtb", "nwpu-vhr10", "sam_vit_l", "sam_hq_vit_l", "sam2.1_hiera_large"}
    assert page.by_hand == ["isaid", "satsot", "viso", "ootb"]
    for name in DATASETS:
        assert f"[ ] {name} " in text and str(cache / "data" / name) in text
    assert "1. rossam fetch sat-mtb nwpu-vhr10 sam_vit_l" in text
    assert "[ ] sam3 " in text and "accept the licence" in text and "not needed: without it, its row" in text
    assert str(cache / "checkpoints" / "sam3.safetensors") in text
    assert "[ ] 08_static_datasets      waits for nwpu-vhr10" in text
    assert "waits for sat-mtb, one of satsot, viso, ootb" in text
    assert "--two-steps" not in text, "there is nothing to try it with"
    assert not cache.exists() or not any(cache.rglob("*.json"))


def test_runs_and_views_follow_from_the_published_number_of_frames():
    _, text = listed(load_profile("paper", {"notebooks": ["03_training_pipeline"]}))
    # table 3: four runs of 24 epochs over nine tenths of 8,333 frames
    assert "4 runs, 720,000 views in all" in text
    assert "table3: 4 rows to compute: its frames are not here yet" in text


def test_a_run_that_tables_share_is_counted_once():
    three, seven, both = (
        [
            run.label
            for run in planning.planned_runs(planning.Experiments(load_profile("paper", {"notebooks": names})), {})
        ]
        for names in (["03_training_pipeline"], ["05_image_encoder"], ["03_training_pipeline", "05_image_encoder"])
    )
    # table 3's rows without and with augmentation
    shared = {"figure7, ROS-SAM, LoRA and last block", "adapters, LoRA adapters"}
    assert shared < set(seven) and both == three + [where for where in seven if where not in shared]


def test_what_is_there_is_counted_and_what_it_lacks_is_listed(clips, cache, tmp_path):
    data = tmp_path / "data"
    write_twin(clips, "sat-mtb", data / "SAT-MTB", "train")
    write_twin(clips, "sat-mtb", data / "SAT-MTB", "test")
    write_twin(clips, "satsot", data / "satsot")
    overrides = {f"datasets.{name}.root": str(data) for name in DATASETS[1:]} | {"data.root": str(data)}
    page, text = listed(load_profile("paper", overrides))
    assert "[!] sat-mtb" in text and "here, but not as published" in text and "4 of 249 video folders" in text
    assert "train: 1 frames of 1 videos" in text and "test: 2 frames of 2 videos" in text, "the paper's quarter"
    assert "[!] satsot" in text and "[ ] viso" in text and str(data / "viso") in text
    assert "[x] 03_training_pipeline" in text
    assert "[x] 09_zero_shot_tracking   its data is here, but for viso, ootb" in text
    assert "[ ] 08_static_datasets      waits for nwpu-vhr10" in text and "--two-steps" in text
    assert "sat-mtb, 1 frames, 24 views" in text
    assert "viso" in page.by_hand


def test_generated_data_and_shipped_weights_are_complete():
    page, text = listed(load_profile("smoke", {"model.checkpoint": None}))
    assert page.is_complete and text.endswith("Everything is there.")
    assert "generated frames" in text and "8 views" in text
    assert "table1: 4 rows to compute: its frames are not here yet" in text


TINY = {
    "notebooks": ["04_mask_decoder"],
    "data.synthetic": {"train_videos": 2, "val_videos": 1, "test_videos": 1, "frames_per_video": 1, "scenes": ["sea"]},
    "model.checkpoint": None,
    "training": {"samples": 2, "batch": 2, "validation_objects": 1, "lora_rank": 2},
    "device": "cpu",
}


def test_a_cached_row_is_counted_and_each_change_that_computes_it_anew_is_named(cache):
    profile = load_profile("smoke", TINY)
    experiments = planning.Experiments(profile)
    spec = experiments.specs["table4"].row("Alternately Update Two Decoders")
    assert planning.reason_to_compute(experiments, spec) == "no earlier result"
    experiments.result(spec)
    assert planning.reason_to_compute(experiments, spec) == ""
    _, text = listed(profile)
    assert "table4: 1 of 4 rows cached" in text and "\n      Update HQ Mask Decoder: no earlier result" in text

    def reason(changes):
        return planning.reason_to_compute(planning.Experiments(load_profile("smoke", TINY | changes)), spec)

    change = f"inference.rate: {profile.inference.rate} → 3.0"
    assert reason({"inference.rate": 3}) == f"{change}; run.settings.{change}"
    assert reason({"training": TINY["training"] | {"samples": 4}}) == "run.settings.training.samples: 2 → 4"
    assert reason({"seeds": [0, 1]}) == "seeds: 1 → 2"
    data = reason({"data.synthetic": TINY["data.synthetic"] | {"seed": 7}})
    assert [change.split(":")[0] for change in data.split("; ")] == ["data", "run.data"]
    (path,) = experiments.scores_path(spec).parent.glob("*.json")
    content = read_sealed(path)
    content["key"]["versions"]["torch"] = "1.0"
    write_sealed(path, content)
    experiments.scores_path(spec).unlink()
    assert planning.reason_to_compute(experiments, spec).startswith("versions.torch: 1.0 → ")


def test_a_data_folder_that_does_not_exist_is_listed(tmp_path):
    _, text = listed(load_profile("nwpu", {"data.root": str(tmp_path / "nowhere")}))
    assert "no such folder" in text and "rossam fetch nwpu-vhr10" in text


def test_the_command_line_lists_and_exits_with_one(tmp_path, capsys):
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
            if row.trains:
                training = experiments.run_config(row, 0).training
                assert training.total_samples(1000) == 2 * training.batch
    assert small.seeds == (3,) and small.data.limit_frames == 4 and "mean nothing" in small.notice
