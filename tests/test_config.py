"""Profiles: what ships loads, what is misspelt is told with the nearest key, all at once."""

import pytest

from rossam_core.config import load_profile, profile_names
from rossam_core.errors import RossamError


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
