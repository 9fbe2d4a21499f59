"""Cached results: computed once, equal each time, rebuilt where damaged, used without where the cache is read-only."""

import json
import os
import threading
import time

import pandas as pd
import pytest

from rossam_core.files import read_json, write_json
from rossam_kit.cache import cached, load_table, save_table


def test_a_value_is_computed_once_and_the_first_call_returns_what_later_ones_do(tmp_path):
    path, computed = tmp_path / "folder" / "value.json", []

    def compute():
        computed.append(1)
        return (1, 2)

    values = [cached(path, compute, load=read_json, save=write_json) for _ in range(2)]
    assert values == [[1, 2], [1, 2]] and len(computed) == 1
    assert json.loads(path.read_text()) == [1, 2]


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-9], lambda content: b"no gzip"])
def test_a_damaged_table_is_computed_again_with_a_warning(tmp_path, damage):
    path, table = tmp_path / "scores.csv.gz", pd.DataFrame({"video": ["01"], "status": ["ok"], "iou": [0.1 + 0.2]})
    whole = cached(path, lambda: table, load=load_table, save=save_table)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"scores\.csv\.gz is damaged and is computed again"):
        again = cached(path, lambda: table, load=load_table, save=save_table)
    pd.testing.assert_frame_equal(again, whole)
    pd.testing.assert_frame_equal(load_table(path), whole)


@pytest.mark.parametrize("name", ["scores.csv.gz", "scores.csv"])
def test_texts_of_a_table_come_back_as_they_were_written(tmp_path, name):
    texts = ["NA", "null", "None", "nan", "007", "n/a"]
    missing = {"category": None, "size_bin": None, "mask": None}
    columns = {key: [*texts, None if key in missing else "b"] for key in ("video", "category", "size_bin", "mask")}
    columns["video"][-1] = "b"
    table = pd.DataFrame({**columns, "status": "NA", "iou": [0.5] * 6 + [None]})
    table.to_csv(tmp_path / name, index=False)
    pd.testing.assert_frame_equal(load_table(tmp_path / name), table)


def test_a_table_keeps_names_that_are_no_utf_8(tmp_path):
    table = pd.DataFrame({"video": ["fl\udcfcss"], "status": ["ok"], "iou": [0.5]})
    again = cached(tmp_path / "scores.csv.gz", lambda: table, load=load_table, save=save_table)
    assert again["video"].tolist() == table["video"].tolist()


def test_those_who_ask_at_the_same_time_wait_for_the_first(tmp_path):
    computed, values = [], []

    def compute():
        computed.append(1)
        time.sleep(0.3)
        return 5

    def ask():
        values.append(cached(tmp_path / "v.json", compute, load=read_json, save=write_json))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [5, 5, 5] and len(computed) == 1


def test_an_error_while_computing_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError):
        cached(tmp_path / "v.json", lambda: 1 / 0, load=read_json, save=write_json)
    assert not (tmp_path / "v.json").exists()


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="not kept for next time"):
        assert cached(tmp_path / "file" / "v.json", lambda: 7, load=read_json, save=write_json) == 7
    assert os.listdir(tmp_path) == ["file"]
