"""Profiles: what ships loads, a misspelt key is an error that names the nearest one, all at once."""

import pytest

from rossam_core.errors import RossamError
from rossam_kit.config import ImageOptions, load_profile, profile_names


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_loads(name):
    profile = load_profile(name, {"data.root": "somewhere"})
    assert profile.name == name
    assert profile.notice


def test_an_override_takes_effect_and_leaves_its_neighbours():
    plain, changed = load_profile("demo"), load_profile("demo", {"inference.rate": 4})
    assert changed.inference.rate == 4
    assert changed.inference.context == plain.inference.context


def test_all_problems_are_told_at_once_with_the_nearest_key():
    with pytest.raises(RossamError) as caught:
        load_profile("demo", {"inference.rat": 3, "data.synthetic.seeds": 1, "inference.batch_size": 0})
    message = str(caught.value)
    assert "3 problems" in message
    assert "did you mean 'rate'" in message and "did you mean 'seed'" in message
    assert "inference.batch_size" in message


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(RossamError, match="demo"):
        load_profile("dmo")


def test_data_of_ones_own_without_a_folder_says_how_to_name_one():
    with pytest.raises(RossamError, match="--data"):
        load_profile("nwpu", {"data.source": "coco"})
    with pytest.raises(RossamError, match=r"--set datasets\.mine\.root"):
        load_profile("nwpu", {"datasets.mine.source": "authors"})


@pytest.mark.parametrize("text", ["a: [1,", "- a list", ""])
def test_a_broken_profile_file_is_named(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RossamError, match=r"mine\.yaml"):
        load_profile(path)


def test_a_profile_extends_another_by_name_or_by_path(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: demo\nname: mine\nseeds: [3]\ntraining: {samples: 8}\n")
    (tmp_path / "more.yaml").write_text("extends: mine.yaml\nname: more\nskip_tables: []\n")
    demo, more = load_profile("demo"), load_profile(tmp_path / "more.yaml")
    assert (more.name, more.seeds, more.skip_tables) == ("more", (3,), ())
    assert more.training == {**demo.training, "samples": 8} and more.datasets == demo.datasets


@pytest.mark.parametrize(("base", "message"), [("mine.yaml", "extends itself"), ("dmo", "demo"), ("[demo]", "extends")])
def test_a_profile_that_cannot_be_extended_is_named(tmp_path, base, message):
    (tmp_path / "mine.yaml").write_text(f"extends: {base}\nname: mine\n")
    with pytest.raises(RossamError, match=message):
        load_profile(tmp_path / "mine.yaml")


def test_settings_do_not_change_after_loading():
    profile = load_profile("demo")
    with pytest.raises(ValueError, match="frozen"):
        profile.seed = 3


def test_paths_in_a_profile_start_at_its_file_and_those_of_overrides_here(tmp_path, monkeypatch):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntitle: t\nnotice: n\ndata: {source: nwpu-vhr10, root: images}\n")
    assert load_profile(path).data.root == tmp_path / "images"
    monkeypatch.chdir(tmp_path / "..")
    assert load_profile(path, {"data.root": "elsewhere"}).data.root == (tmp_path / ".." / "elsewhere").resolve()
    path.write_text("name: mine\ntitle: t\nnotice: n\ndatasets: {viso: {source: viso, root: clips}}\n")
    assert load_profile(path).datasets["viso"].root == tmp_path / "clips"


def test_a_profile_cannot_name_a_folder_outside_reports():
    with pytest.raises(RossamError, match="name"):
        load_profile("demo", {"name": "../.."})


@pytest.mark.parametrize(
    ("stretch", "kind", "values"),
    [
        ("percentiles", "percentiles", (2, 98)),
        ("percentiles:0.5,99.5", "percentiles", (0.5, 99.5)),
        ("0, 3000", "limits", (0, 3000)),
        ([-10, 0.5], "limits", (-10, 0.5)),
    ],
)
def test_a_stretch_is_percentiles_or_limits(stretch, kind, values):
    data = load_profile("demo", {"data.stretch": stretch}).data
    assert (data.stretch_kind, data.stretch_values) == (kind, values)
    assert ImageOptions(stretch=data.stretch) == ImageOptions(stretch=stretch)


@pytest.mark.parametrize(
    "stretch", ["ful", "percentile", "percentiles:98,2", "percentiles:2,101", "5", "9,9", "0,inf", 7]
)
def test_a_stretch_of_another_kind_is_refused(stretch):
    with pytest.raises(RossamError, match=r"data\.stretch: .*expected"):
        load_profile("demo", {"data.stretch": stretch})


@pytest.mark.parametrize(("bands", "numbers"), [("4,3,2", (4, 3, 2)), ([4, 3, 2], (4, 3, 2)), (5, (5,)), (None, None)])
def test_bands_are_three_or_one(bands, numbers):
    assert load_profile("demo", {"data.bands": bands}).data.bands == numbers
    for wrong in ("1,2", "0,1,2", "r,g,b", 0):
        with pytest.raises(RossamError, match=r"data\.bands: .*expected three numbers"):
            load_profile("demo", {"data.bands": wrong})


def test_an_override_of_a_group_that_the_file_uses_twice_changes_one_place():
    full = load_profile("full", {"budgets.table3.samples": 3000})
    assert full.budgets["table3"]["samples"] == 3000 and full.budgets["table4"]["samples"] == 320


def test_budgets_in_a_file_do_not_change_the_method(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: demo\ntraining: {alternate: none}\nbudgets: {table3: {loss: {sampling: dense}}}\n")
    with pytest.raises(RossamError, match=r"(?s)training\.alternate.*budgets\.table3\.loss\.sampling.*--set"):
        load_profile(path)
    assert load_profile("demo", {"training.alternate": "none"}).training["alternate"] == "none"
