"""Experiments: every row names what exists, is computed once, and is computed anew when anything that matters moves."""

import re

import pandas as pd
import pytest

from rossam_core.errors import RossamError
from rossam_core.files import read_sealed
from rossam_core.model.build import build_model
from rossam_core.model.weights import SHIPPED, save_weights
from rossam_kit import parallel
from rossam_kit.config import load_profile
from rossam_kit.experiments.experiments import Experiments, RowSpec, _workers, prepare, table_specs
from rossam_kit.experiments.planning import rows_of
from rossam_kit.report.tables import comparison_rows, comparison_table, published

TINY = {
    "data.limit_frames": 2,
    "data.synthetic.train_videos": 2,
    "data.synthetic.val_videos": 1,
    "data.synthetic.test_videos": 2,
    "data.synthetic.frames_per_video": 1,
    "data.synthetic.scenes": ["airport", "sea"],
    "model.checkpoint": None,
    "training.samples": 2,
    "training.batch": 2,
    "training.validation_objects": 2,
    "training.lora_rank": 2,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def experiments(cache):
    return Experiments(load_profile("smoke", TINY), cache)


@pytest.mark.parametrize("table", ["table1", "table2", "table3", "table4", "table5", "table6", "table6_isaid"])
def test_every_row_the_paper_prints_is_there_in_its_order(table):
    spec = table_specs()[table]
    ours = [row.published for row in spec.rows if row.published]
    assert ours == [row for table, row, dataset in published() if (table, dataset) == (spec.published, spec.dataset)]


def test_a_row_shared_by_two_tables_has_one_key(experiments):
    specs = table_specs()
    one, other = specs["table1"].row("SAM + inference pipeline"), specs["table2"].row("rate 2, bicubic, only one")
    assert experiments.key(one) == experiments.key(other)


def test_a_sam2_row_is_answered_by_a_network_of_its_own(experiments):
    spec = RowSpec(label="SAM2", method="sam2")
    assert experiments.model("sam2").backbone == "hiera_t" and experiments.model("sam").backbone == "vit_t"
    assert experiments.key(spec) != experiments.key(RowSpec(label="SAM", method="sam"))
    assert experiments.result(spec).units()["iou"].between(0, 1).all()


def test_sam2_is_fine_tuned_from_its_own_network(experiments):
    spec = RowSpec(label="SAM2, fine-tuned", method="sam2", trains=("last_block", "sam_decoder"))
    run = experiments.run_config(spec, 0)
    assert (run.backbone, run.architecture) == ("hiera_t", {})
    assert experiments.result(spec).units()["iou"].between(0, 1).all()
    audit = read_sealed(experiments.run_dir(spec) / "gradient_audit.json")
    moved = {name for name, group in audit.items() if group["changed"]}
    assert moved == {"last_block", "sam_decoder"}
    assert experiments.predictor(spec).model.method == "sam2"


def test_sam2_has_no_adapters_and_no_hq_head_to_train(experiments):
    spec = RowSpec(label="SAM2+", method="sam2", trains=("lora", "last_block", "hq_head"))
    with pytest.raises(RossamError, match=r"row 'SAM2\+'.*\n.*name lora, hq_head, which sam2 does not have"):
        experiments.result(spec)


def test_a_table_whose_data_is_not_there_says_so_in_every_cell(cache):
    experiments = Experiments(load_profile("nwpu"), cache)
    assert "table6" in experiments.tables and "table6_isaid" not in experiments.tables
    assert experiments.results("table6_isaid") == []
    missing = experiments.left_out("table6_isaid")
    rows = comparison_rows("table6_isaid", [], left_out=missing)
    assert [row.published.iou for row in rows if row.published] == [53.19, 55.79, 63.96, 73.22]
    assert {row.reason for row in rows} == {"the profile nwpu has no isaid"}
    assert all(cell.text for row in comparison_table(rows).rows for cell in row)


def test_a_row_without_a_prior_keeps_its_place_with_the_reason(experiments, monkeypatch, tmp_path):
    monkeypatch.setitem(SHIPPED, "hiera_t", tmp_path / "hiera_t.safetensors")
    waiting = Experiments(load_profile("smoke"), experiments.cache)
    missing = waiting.left_out("table1")
    assert list(missing) == ["SAM2", "SAM2 + inference pipeline"]
    measured = [experiments.result(spec) for spec in experiments.specs["table1"].rows[:2]]
    rows = comparison_rows("table1", measured, left_out=missing)
    assert [row.setting for row in rows] == [row.label for row in experiments.specs["table1"].rows]
    assert [row.iou is None for row in rows] == [False, False, True, True] and "hiera_t" in rows[2].reason
    (tmp_path / "hiera_t.safetensors").touch()
    assert waiting.left_out("table1") == {}


def test_sam3_has_a_row_only_where_the_profile_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path))
    without, with_it = (Experiments(load_profile(name), tmp_path) for name in ("smoke", "paper"))
    rows = [row.label for row in with_it.specs["table5"].rows]
    assert rows.index("SAM 3") == rows.index("SAM2") + 1
    assert [row.label for row in without.specs["table5"].rows] == [label for label in rows if label != "SAM 3"]
    assert "SAM 3" not in without.left_out("table5")
    assert with_it.left_out("table5") == {"SAM 3": "its weights are not there: rossam fetch sam3"}
    (row,) = comparison_rows("table5", [], left_out=with_it.left_out("table5"))
    assert row.published is None and row.reason and row.method == "sam3"


def test_a_sam3_row_is_scored_and_shown_in_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path))
    network = {"dim": 32, "depth": 2, "heads": 2, "mlp_dim": 32, "global_attention": [1], "window": 4}
    network |= {"position_size": 56, "input_size": 112, "decoder_mlp_dim": 32}
    wanted = TINY | {"extra_methods": ["sam3"], "model.sam3_architecture": network, "model.checkpoint": "default"}
    weights = tmp_path / "checkpoints" / "sam3.safetensors"
    save_weights(build_model("sam3", "sam3", None, **network), weights)
    experiments = Experiments(load_profile("smoke", wanted), tmp_path)
    assert experiments.left_out("table5") == {}
    specs = experiments.specs["table5"].rows[:5]
    assert [spec.label for spec in specs][3:] == ["SAM2", "SAM 3"]
    results = [experiments.result(spec) for spec in specs[:1] + specs[4:]]
    rows = comparison_rows("table5", results)
    assert [row.setting for row in rows] == ["SAM, whole frame", "SAM 3"] and rows[1].difference is not None
    assert results[1].units()["iou"].between(0, 1).all()
    key = experiments.key(specs[4])
    save_weights(build_model("sam3", "sam3", None, seed=1, **network), weights)
    assert Experiments(experiments.profile, tmp_path).key(specs[4]) != key


def test_a_result_is_computed_once_and_comes_back_the_same(experiments, cache, monkeypatch):
    spec = RowSpec(label="ellipse", baseline="ellipse")
    first = experiments.result(spec)
    again = Experiments(experiments.profile, cache)
    monkeypatch.setattr(again, "_compute", lambda spec: pytest.fail("computed twice"))
    pd.testing.assert_frame_equal(first.scores, again.result(spec).scores)


def test_what_notebooks_show_is_computed_for_all_their_datasets_at_once(tmp_path):
    experiments = Experiments(load_profile("smoke", TINY), tmp_path)
    rows = rows_of(experiments, ["08_static_datasets"])
    assert {place.profile.data.synthetic.variant for place, _ in rows} == {"static", "aerial"}
    assert {spec.label for _, spec in rows} == {
        row.label for table in ("table6", "table6_isaid") for row in table_specs()[table].rows
    }
    quick = [(place, spec) for place, spec in rows if spec.baseline == "box"]
    prepare(quick)
    assert len(quick) == 2 and all(place.scores_path(spec).exists() for place, spec in quick)


def test_the_key_follows_settings_but_not_batch_sizes(experiments, cache):
    spec = RowSpec(label="SAM", method="sam")
    changed = {
        key: Experiments(load_profile("smoke", TINY | {key: value}), cache).key(spec)
        for key, value in {"inference.rate": 4, "inference.batch_size": 3, "data.synthetic.seed": 7}.items()
    }
    key = experiments.key(spec)
    assert changed["inference.batch_size"] == key
    assert changed["inference.rate"] != key
    assert changed["data.synthetic.seed"] != key


def test_a_fine_tuned_row_trains_on_no_scored_frame_and_keeps_its_run(experiments):
    spec = RowSpec(label="ROS-SAM", method="ros-sam", trains=("lora", "last_block", "sam_decoder", "hq_head"))
    result = experiments.result(spec)
    assert result.units()["iou"].between(0, 1).all()
    scored = {frame.key for frame in experiments.frames}
    assert all(frame.key not in scored for frames in experiments.training_frames for frame in frames)
    assert (experiments.run_dir(spec) / "gradient_audit.json").exists()


def test_a_key_trains_nothing_and_every_seeds_prompts_are_counted(cache, monkeypatch):
    experiments = Experiments(load_profile("smoke", TINY | {"seeds": [0, 1]}), cache)
    spec = RowSpec(label="HQ head", method="hq-sam", trains=("hq_head",))
    with monkeypatch.context() as patch:
        patch.setattr("rossam_kit.experiments.experiments.train", lambda _: pytest.fail("trained"))
        key = experiments.key(spec)
    result = experiments.result(spec)
    assert result.key == key == experiments.key(spec)
    assert result.objects == len(result.units()) == 2 * len(result.units().query("seed == 0"))


def test_an_unknown_table_names_the_known_ones(experiments):
    with pytest.raises(RossamError, match="table1"):
        experiments.results("table9")


@pytest.mark.parametrize("profile", ["smoke", "demo", "full", "nwpu", "paper"])
def test_a_row_that_names_its_rate_or_filter_has_it_whatever_the_profile_prefers(profile, tmp_path):
    settings = load_profile(profile).model_copy(update={"data": load_profile("smoke").data})
    experiments, named = Experiments(settings, tmp_path), 0
    for spec in table_specs().values():
        for row in spec.rows:
            inference = experiments.inference(row)
            for rate in re.findall(r"rate (\d)", row.label):
                assert inference.rate == int(rate), (profile, row.label)
                named += 1
            for how in re.findall("bilinear|bicubic", row.label):
                assert inference.interpolation == how, (profile, row.label)
            if "only one" in row.label:
                assert inference.mode == "object", (profile, row.label)
            if re.search("whole (frame|image)", row.label):
                assert inference.mode == "direct", (profile, row.label)
    assert named >= 6


def test_processes_are_as_many_as_memory_holds_networks(monkeypatch, tmp_path):
    monkeypatch.setattr(parallel, "core_count", lambda: 8)
    monkeypatch.setattr(parallel, "free_memory", lambda: 40 << 30)
    places = {name: Experiments(load_profile(name, {"device": "cpu"}), tmp_path) for name in ("smoke", "paper")}
    row, large = (RowSpec(label=method, method=method) for method in ("sam", "sam3"))
    assert {name: _workers([(place, row)] * 20) for name, place in places.items()} == {"smoke": 8, "paper": 1}
    assert _workers([(places["smoke"], row)] * 19 + [(places["smoke"], large)]) == 1
    assert _workers([(places["smoke"], RowSpec(label="box", baseline="box"))] * 20) == 8
    assert _workers([]) == 1
