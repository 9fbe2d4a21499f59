"""Files appear whole or not at all."""

import errno
import shutil
import subprocess
import sys

import pytest

from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import atomic_path, read_json, remove_partial, stable_hash, write_json
from rossam_kit.cache import exclusive


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path):
    path = tmp_path / "table.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("power cut")
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["table.json"]


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RossamError, match="cannot be written"):
        write_json(tmp_path / "file" / "below.json", {})


def test_a_full_disk_is_told_as_such_and_leaves_nothing(tmp_path):
    with pytest.raises(RossamError, match="No space left"), atomic_path(tmp_path / "big.bin") as temporary:
        temporary.write_bytes(b"begun")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_that_another_process_removed_is_not_explained_as_a_full_disk(tmp_path):
    with (
        pytest.raises(RossamError, match="another program removed") as caught,
        atomic_path(tmp_path / "a") as temporary,
    ):
        temporary.unlink()
    assert "disk" not in str(caught.value)


def test_an_error_about_another_file_is_not_laid_to_the_one_that_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), atomic_path(tmp_path / "copy.bin") as temporary:
        temporary.write_bytes((tmp_path / "elsewhere/absent.bin").read_bytes())
    assert list(tmp_path.iterdir()) == []


HOLD = """
import sys, time
from rossam_kit.cache import exclusive
with exclusive(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_what_one_process_has_another_waits_for_until_it_lets_go_or_dies(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    start = lambda: subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "cache/run")], **pipes)  # noqa: E731
    first = start()
    assert first.stdout.readline() == "held\n"
    second = start()
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(3)
    first.kill()
    assert second.stdout.readline() == "held\n"
    third = start()
    second.communicate("\n")
    assert third.stdout.readline() == "held\n"
    third.communicate("\n")


def test_nobody_waits_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with exclusive(tmp_path / "file" / "below"), exclusive(tmp_path / "file" / "below"):
        pass


def test_truncated_json_names_file_and_place(tmp_path):
    path = tmp_path / "index.json"
    path.write_text('{"a": [1, 2')
    with pytest.raises(RossamError, match=r"index\.json.*line 1"):
        read_json(path)


def test_hash_ignores_key_order_but_not_values():
    assert stable_hash({"a": 1, "b": 2}) == stable_hash({"b": 2, "a": 1})
    assert stable_hash({"a": 1}) != stable_hash({"a": 2})


def test_a_problem_list_counts_what_it_does_not_print():
    problems = ProblemList("boxes.csv", limit=2)
    problems.extend((f"line {i}", "is empty") for i in range(5))
    with pytest.raises(RossamError, match=r"5 problems(.|\n)*line 0(.|\n)*and 3 more"):
        problems.raise_if_any("fill them")


def test_a_copy_that_does_not_fit_on_the_disk_is_an_error_of_the_copy(tmp_path):
    (tmp_path / "source.png").write_bytes(b"pixels")
    target = tmp_path / "out/copy.png"
    with pytest.raises(RossamError, match=r"copy\.png: cannot be written: No space left"), atomic_path(target) as there:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "source.png"), None, str(there))
    assert not list(target.parent.iterdir())


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "below").mkdir()
    for folder in (tmp_path, tmp_path / "below"):
        (folder / ".kept.json").write_text("{}")
        with pytest.raises(KeyboardInterrupt), atomic_path(folder / "a.json") as temporary:
            shutil.copy(folder / ".kept.json", folder / temporary.name.replace("partial-", "partial-old"))  # as SIGKILL
            raise KeyboardInterrupt
    remove_partial(tmp_path)
    assert len(list((tmp_path / "below").iterdir())) == 2
    remove_partial(tmp_path, recursive=True)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".kept.json", ".kept.json"]
