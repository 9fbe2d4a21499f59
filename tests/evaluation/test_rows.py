"""Rows of tables: each differs from its reference only where its table says so, in every profile."""

import json
from fnmatch import fnmatchcase

import pytest

from rossam_core.errors import RossamError
from rossam_core.settings import flatten
from rossam_core.training.recipes import recipe
from rossam_kit.cli import main
from rossam_kit.config import CHANGEABLE, load_profile, profile_names
from rossam_kit.experiments.experiments import Experiments, TableSpec
from rossam_kit.experiments.rows import row_settings, table_rows

PROFILES = profile_names()
METHOD = ("alternate", "hq_decoder", "trained_groups", "augment.rotation", "loss.*", "optimizer", "clip_norm")


@pytest.fixture(params=PROFILES, scope="module")
def experiments(request, tmp_path_factory):
    return Experiments(load_profile(request.param), tmp_path_factory.mktemp("cache"))


def row(experiments, table, label):
    return row_settings(experiments, experiments.specs[table].row(label))


def undeclared(row):
    """Settings in which a row differs from its reference although its table does not vary them."""
    return [key for key in row["differs"] if not any(fnmatchcase(key, pattern) for pattern in row["varies"])]


def test_a_row_differs_from_its_reference_only_in_what_its_table_varies(experiments):
    rows = [row for table in experiments.specs for row in table_rows(experiments, table)]
    assert {(row["table"], row["row"]): broken for row in rows if (broken := undeclared(row))} == {}


def test_a_table_varies_no_setting_that_all_its_rows_share(tmp_path):
    experiments = Experiments(load_profile("demo"), tmp_path)
    for table, spec in experiments.specs.items():
        differing = {key for each in table_rows(experiments, table) for key in each["differs"]}
        assert [p for p in spec.varies if not any(fnmatchcase(key, p) for key in differing)] == [], table


def test_an_undeclared_difference_is_noticed(tmp_path):
    experiments = Experiments(load_profile("demo"), tmp_path)
    spec = experiments.specs["table3"]
    longer = spec.rows[1].model_copy(update={"training": {**spec.rows[1].training, "samples": 9999}})
    experiments.specs["table3"] = spec.model_copy(update={"rows": (spec.rows[0], longer)})
    assert undeclared(table_rows(experiments, "table3")[1]) == ["views", "training.samples"]


def test_a_reference_that_is_no_row_is_refused():
    with pytest.raises(ValueError, match="reference 'b' is no row"):
        TableSpec(title="", notebook="", reference="b", varies=(), rows=({"label": "a"},))


def test_ros_sam_is_the_papers_method_in_every_profile(experiments):
    paper = dict(flatten(recipe("paper").model_dump(mode="json")))
    for table, label in (("table3", "+ LSJ and random rotation"), ("table5", "ROS-SAM"), ("table6", "ROS-SAM")):
        settings = row(experiments, table, label)
        assert settings["training.trained_groups"] == ["lora", "last_block", "sam_decoder", "hq_head"]
        assert settings["training.alternate"] == "masks" and settings["training.adapter"] == "lora"
        assert settings["training.augment.rotation"] and settings["training.augment.scale"] != [1.0, 1.0]
        assert settings["inference.mask_source"] == "hq" and settings["recipe"] == "paper"
        for key, value in paper.items():
            if any(fnmatchcase(key, pattern) for pattern in METHOD):
                assert settings[f"training.{key}"] == value, key


@pytest.mark.parametrize("table", ["table4", "table4_copy", "figure7"])
def test_training_without_augmentation_augments_nothing(experiments, table):
    for each in experiments.specs[table].rows:
        settings = row_settings(experiments, each)
        assert settings["training.augment.scale"] == [1.0, 1.0]
        off = ("rotation", "mirror", "diagonal_flip", "photometric", "box_jitter")
        assert not any(settings[f"training.augment.{key}"] for key in off)


def test_the_bars_of_figure_7_differ_in_trained_groups_alone(experiments):
    bars = [each for each in table_rows(experiments, "figure7") if each["row"].startswith("ROS-SAM")]
    settings = [{k: v for k, v in bar["settings"].items() if k != "training.trained_groups"} for bar in bars]
    assert all(each == settings[0] for each in settings)


def test_sam_with_lora_is_sam_with_lora(tmp_path):
    experiments = Experiments(load_profile("smoke", {"model.checkpoint": None}), tmp_path)
    run = experiments.run_config(experiments.specs["figure7"].row("SAM, LoRA"), 0)
    assert run.method == "sam" and run.training.trained_groups == ("lora",)
    assert [(phase.groups, phase.mask) for phase in run.phases] == [(("lora",), "sam")]


@pytest.mark.parametrize("table", ["table1", "table2", "table5"])
def test_the_papers_tables_have_fixed_windows(experiments, table):
    assert {row_settings(experiments, each)["inference.growth"] for each in experiments.specs[table].rows} == {"none"}


def test_whole_frames_are_resized_as_the_original_does(experiments):
    assert row(experiments, "table1", "SAM")["inference.interpolation"] == "bilinear"
    assert row(experiments, "table1", "SAM + inference pipeline")["inference.interpolation"] == "bicubic"


def test_the_released_recipe_trains_what_the_released_code_trains(tmp_path):
    experiments = Experiments(load_profile("demo"), tmp_path)
    spec = experiments.specs["recipes"].row("ROS-SAM, released code's recipe")
    training = experiments.training_config(spec, 0)
    assert set(training.trained_groups) == set(recipe("released").trained_groups)
    assert (training.hq_decoder, training.fresh_hq_head, training.alternate) == ("copy", True, "groups")
    settings = row_settings(experiments, spec)
    assert (settings["inference.border"], settings["inference.overshoot"]) == ("clamp_and_pad", "wrap")


def test_recipes_see_the_same_number_of_views(experiments):
    rows = [row_settings(experiments, each) for each in experiments.specs["recipes"].rows]
    assert len({row["training.samples"] or row["training.epochs"] for row in rows}) == 1


def test_a_run_is_validated_in_the_windows_that_its_row_is_scored_in(tmp_path):
    experiments = Experiments(load_profile("demo"), tmp_path)
    spec = experiments.specs["recipes"].row("ROS-SAM, released code's recipe")
    inference = experiments.run_config(spec, 0).inference
    assert (inference.border, inference.overshoot) == ("clamp_and_pad", "wrap")
    tables = experiments.specs["table5"]
    whole, windows = (experiments.run_config(tables.row(label), 0) for label in ("ROS-SAM, whole frame", "ROS-SAM"))
    assert whole == windows, "one run serves both"


def test_full_has_three_seeds_and_budgets_that_carry_statistics(tmp_path):
    experiments = Experiments(load_profile("full"), tmp_path)
    assert len(experiments.profile.seeds) >= 3 and experiments.profile.data.synthetic.test_videos >= 48
    for label in ("HQ-SAM", "ROS-SAM"):
        assert row(experiments, "table5", label)["views"] >= 960


def test_a_profile_may_not_change_the_method():
    with pytest.raises(RossamError, match=r"recipe_changes name alternate; only groups\.\*\.learning_rate"):
        load_profile("demo", {"recipe_changes.alternate": "none"})
    assert "augment.scale" in CHANGEABLE


def test_the_command_prints_settings_for_people_and_for_programs(capsys):
    assert main(["rows", "table4", "--profile", "smoke"]) == 0
    text = capsys.readouterr().out
    assert "table4  SAM  (reference)" in text and "inference.mask_source: hq  (reference: sam)" in text
    assert main(["rows", "table4", "--profile", "smoke", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [each["row"] for each in rows][:2] == ["SAM", "Update Mask Decoder"]
    assert set(rows[1]) == {"table", "row", "reference", "varies", "differs", "settings"}
    assert rows[1]["differs"]["training.trained_groups"] == [["sam_decoder"], []]
    for key, (own, reference) in rows[1]["differs"].items():
        assert rows[1]["settings"].get(key) == own and rows[0]["settings"].get(key) == reference
    assert main(["rows", "table9"]) == 2
    assert "use one of table1" in capsys.readouterr().err
