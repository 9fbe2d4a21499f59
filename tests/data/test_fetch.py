"""Fetching: whatever a server, an archive or a disk does, a file is complete and correct, or absent with an error."""

import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from safetensors.numpy import save_file

from rossam_core.errors import RossamError
from rossam_kit import cli
from rossam_kit.cache import exclusive
from rossam_kit.datasets import catalogue, download, fetch, unpack
from rossam_kit.datasets.catalogue import Entry, Rule, Source

BODY = bytes(range(256)) * 400  # 102,400 bytes
SHA256 = hashlib.sha256(BODY).hexdigest()
KNOWN = f"sha256:{SHA256}"


class Server(ThreadingHTTPServer):
    """Serves `BODY` on loopback, each request as the next of `script` says; the last one goes on for ever."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.bodies, self.tag = ["whole"], [], {}, '"v1"'

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the game."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Silence."""

    def do_GET(self):
        script = self.server.script
        manner = script.pop(0) if len(script) > 1 else script[0]
        span = self.headers.get("Range")
        self.server.seen.append((manner, span))
        self.close_connection = True
        body = self.server.bodies.get(self.path, BODY)
        if manner.isdigit():
            self.send_response(int(manner))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span and manner != "ignores range" else 0
        if start and self.headers.get("If-Range") not in (None, self.server.tag):
            start = 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            first = start + 7 if manner == "wrong range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        self.send_header("ETag", self.server.tag)
        announced = {"claims more": len(body) + 50, "claims less": len(body) - 50}.get(manner, len(body)) - start
        if manner == "unannounced":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        sent = body[start:] if manner != "wrong bytes" else bytes(len(body) - start)
        if manner in ("truncates", "stalls", "slow", "garbles and truncates"):
            self.wfile.write(sent[:30_000] if manner[0] != "g" else bytes(30_000))
            self.wfile.flush()
        if manner == "stalls":
            time.sleep(1)
        elif manner == "slow":
            time.sleep(20)
        elif "truncates" not in manner:
            self.wfile.write(sent[:announced])


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path / "cache"))
    for name, value in (("ATTEMPTS", 3), ("CONNECT_SECONDS", 2), ("STALL_SECONDS", 0.3), ("PAUSE_SECONDS", 0.01)):
        monkeypatch.setattr(download, name, value)
    return tmp_path / "cache"


def get(server, target, known_hash=KNOWN, urls=None):
    download.download(urls or [server.url], target, known_hash)
    return target.read_bytes()


def leftovers(target):
    return sorted(path.name for path in target.parent.iterdir() if path != target)


# ---- servers


@pytest.mark.parametrize(
    "script",
    [
        ["whole"],
        ["500", "503", "whole"],
        ["429", "whole"],
        ["truncates", "whole"],
        ["truncates", "truncates", "500", "whole"],
        ["stalls", "whole"],
        ["truncates", "ignores range"],
        ["garbles and truncates", "whole"],
        ["wrong bytes", "whole"],
        ["claims more"],
        ["unannounced"],
    ],
    ids=", ".join,
)
def test_a_file_arrives_whole_through_all_that_servers_do(server, tmp_path, script):
    server.script = list(script)
    # the bytes of "wrong bytes" are wrong from the first address, right from the second
    urls = [server.url, server.url + "?mirror"] if script[0] == "wrong bytes" else None
    assert get(server, tmp_path / "file.bin", urls=urls) == BODY
    assert leftovers(tmp_path / "file.bin") == []


def test_what_arrived_is_not_asked_for_again(server, tmp_path):
    server.script = ["truncates", "truncates", "whole"]
    get(server, tmp_path / "file.bin")
    assert [span for _, span in server.seen] == [None, "bytes=30000-", "bytes=60000-"]


def test_a_server_without_ranges_starts_over_and_the_user_is_told(server, tmp_path, capsys):
    server.script = ["truncates", "ignores range"]
    get(server, tmp_path / "file.bin")
    assert "does not resume" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (["404"], "404 Client Error"),
        (["403"], "403 Client Error"),
        (["500"], "answers 500"),
        (["stalls", "stalls", "stalls", "500"], "answers 500"),
        (["wrong bytes"], f"expected {KNOWN}"),
        (["claims less"], f"expected {KNOWN}"),
        (["truncates", "wrong range"], "bytes from 30000 on were requested"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_had_is_an_error_and_leaves_no_file(server, tmp_path, script, message):
    server.script = list(script)
    with pytest.raises(RossamError, match=message) as error:
        get(server, tmp_path / "file.bin")
    assert server.url in str(error.value) and "--from" in str(error.value)
    assert not (tmp_path / "file.bin").exists()


def test_a_missing_page_is_asked_for_once_and_the_next_address_tried(server, tmp_path):
    server.script = ["404", "whole"]
    get(server, tmp_path / "file.bin", urls=[server.url, server.url])
    assert [manner for manner, _ in server.seen] == ["404", "whole"]


def test_nobody_listening_is_told(tmp_path):
    with pytest.raises(RossamError, match="ConnectionError"):
        get(None, tmp_path / "file.bin", urls=["http://127.0.0.1:9/file.bin"])


def test_a_wrong_beginning_is_thrown_away_and_fetched_anew(server, tmp_path, capsys):
    (tmp_path / "file.bin.part").write_bytes(b"\0" * 5000)
    assert get(server, tmp_path / "file.bin") == BODY and "starting over" in capsys.readouterr().out
    (tmp_path / "other.bin.part").write_bytes(b"\0" * (len(BODY) + 10))  # longer than the file
    assert get(server, tmp_path / "other.bin") == BODY


def test_a_file_that_is_there_is_checked_and_not_fetched_again(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(BODY)
    assert get(server, tmp_path / "file.bin", "md5:" + md5(BODY)) == BODY and server.seen == []
    (tmp_path / "file.bin").write_bytes(BODY[:-1])
    assert get(server, tmp_path / "file.bin") == BODY


def test_a_killed_download_goes_on_where_it_was(server, tmp_path):
    server.script = ["slow", "whole"]
    target = tmp_path / "file.bin"
    code = (
        "import sys; from pathlib import Path; from rossam_kit.datasets.download import *\n"
        f"download([sys.argv[1]], Path(sys.argv[2]), {KNOWN!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code, server.url, str(target)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while download._size(target.with_name("file.bin.part")) < 30_000 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    assert get(server, target) == BODY
    assert server.seen[-1][1] == "bytes=30000-"


def test_file_addresses_are_copied_and_checked(tmp_path):
    source = tmp_path / "with space.bin"
    source.write_bytes(BODY)
    assert get(None, tmp_path / "file.bin", urls=[source.as_uri()]) == BODY
    source.write_bytes(BODY[:-1])
    with pytest.raises(RossamError, match="expected"):
        get(None, tmp_path / "again.bin", urls=[source.as_uri()])


# ---- archives


def write_zip(path, members, kinds=None):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = ((kinds or {}).get(name, stat.S_IFREG) | 0o644) << 16
            archive.writestr(info, data)


def write_tar(path, members, kinds=None):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name in (kinds or {}):
                info.type, info.linkname, info.size = kinds[name], "../../outside", 0
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("write", [write_zip, write_tar], ids=["zip", "tar"])
def test_archives_are_unpacked(tmp_path, write):
    path = tmp_path / ("a.zip" if write is write_zip else "a.tar.gz")
    write(path, {"set/img/1.png": b"one", "./set/2.txt": b"", "__MACOSX/set/._1.png": b"litter"})
    unpack.unpack(path, tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    assert found == {"set/img/1.png": b"one", "set/2.txt": b""}


@pytest.mark.parametrize("write", [write_zip, write_tar], ids=["zip", "tar"])
@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "..\\evil.txt", "C:\\evil.txt"])
def test_members_that_lead_outside_are_refused_before_anything_is_written(tmp_path, write, name):
    path = tmp_path / ("a.zip" if write is write_zip else "a.tar")
    write(path, {"good.txt": b"good", name: b"evil"})
    with pytest.raises(RossamError, match=r"absolute path|leads out") as error:
        unpack.unpack(path, tmp_path / "deep" / "out")
    assert repr(name) in str(error.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [path.name]


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (write_zip, stat.S_IFLNK),
        (write_zip, stat.S_IFCHR),
        (write_tar, tarfile.SYMTYPE),
        (write_tar, tarfile.LNKTYPE),
        (write_tar, tarfile.CHRTYPE),
        (write_tar, tarfile.FIFOTYPE),
    ],
)
def test_links_and_devices_are_refused(tmp_path, write, kind):
    path = tmp_path / ("a.zip" if write is write_zip else "a.tar")
    write(path, {"good.txt": b"good", "odd": b"../../outside"}, {"odd": kind})
    with pytest.raises(RossamError, match=r"link|device"):
        unpack.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no archive", "empty"])
@pytest.mark.parametrize("write", [write_zip, write_tar], ids=["zip", "tar"])
def test_damaged_archives_are_told(tmp_path, write, damage):
    path = tmp_path / ("a.zip" if write is write_zip else "a.tar.gz")
    write(path, {f"{n}.bin": os.urandom(5000) for n in range(4)})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if damage == "flipped":
        data[middle : middle + 50] = bytes(50)
    path.write_bytes({"truncated": data[:middle], "flipped": data, "no archive": b"<html>", "empty": b""}[damage])
    with pytest.raises(RossamError, match="cannot be unpacked"):
        unpack.unpack(path, tmp_path / "out")


@pytest.mark.parametrize("write", [write_zip, write_tar], ids=["zip", "tar"])
def test_archives_that_unpack_to_much_more_than_their_size_are_refused(tmp_path, monkeypatch, write):
    path = tmp_path / ("a.zip" if write is write_zip else "a.tar.gz")
    write(path, {"a.bin": bytes(300_000), "b.bin": bytes(300_000)})
    size = path.stat().st_size
    monkeypatch.setattr(unpack, "MAX_RATIO", 0)
    monkeypatch.setattr(unpack, "MIN_LIMIT", 601_023)  # two members of 300,000 bytes and a header each
    with pytest.raises(RossamError, match=f"more than 601,023 bytes, the limit for its size of {size:,}"):
        unpack.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(unpack, "MIN_LIMIT", 601_024)
    unpack.unpack(path, tmp_path / "out")


def test_archives_that_do_not_fit_the_disk_are_refused(tmp_path, monkeypatch):
    write_zip(tmp_path / "a.zip", {"a.bin": b"0" * 1000})
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 999})())
    with pytest.raises(RossamError, match="1,512 bytes are needed"):
        unpack.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


# ---- the catalogue, and whole entries


def md5(data):
    return hashlib.md5(data).hexdigest()


def zipped(members):
    stream = io.BytesIO()
    write_zip(stream, members)
    return stream.getvalue()


@pytest.fixture
def entries(server, monkeypatch):
    """A small checkpoint, a dataset of an archive and a plain file, a Zenodo record, and one to be placed by hand."""
    archive = zipped({"toy/img/1.png": b"one", "toy/img/2.png": b"two"})
    server.bodies = {"/set.zip": archive, "/notes.json": b"{}", "/api/part%201.zip": archive}
    root = server.url.removesuffix("/file.bin")
    listed = {
        "key": "part 1.zip",
        "size": len(archive),
        "checksum": "md5:" + md5(archive),
        "links": {"self": f"{root}/api/part%201.zip"},
    }
    server.bodies["/api/77"] = json.dumps({"files": [listed]}).encode()
    layout = (
        Rule(what="images", globs=("img/*.png",), count=2),
        Rule(what="notes", globs=("notes.json", "../notes.json"), md5=md5(b"{}")),
    )
    common = {"title": "a toy", "licence": "CC0", "page": "https://example.org/toy", "anchors": ("img/*.png",)}
    made = {
        "weights": Entry(
            kind="checkpoint",
            files=(Source(name="w.pth", urls=(server.url,), bytes=len(BODY), sha256=SHA256),),
            **common,
        ),
        "toy-set": Entry(
            kind="dataset",
            files=(
                Source(name="set.zip", urls=(f"{root}/set.zip",), bytes=300, md5=md5(archive)),
                Source(name="notes.json", urls=(f"{root}/notes.json",), bytes=2, md5=md5(b"{}")),
            ),
            layout=layout,
            **common,
        ),
        "record": Entry(kind="dataset", zenodo="77", layout=layout[:1], **common),
        "by-hand": Entry(kind="dataset", by_hand=("put it at {place}/img",), layout=layout[:1], **common),
    }
    monkeypatch.setattr(catalogue, "catalogue", lambda: made)
    monkeypatch.setattr(fetch, "catalogue", lambda: made)
    monkeypatch.setattr(fetch, "ZENODO_RECORD", f"{root}/api/{{}}")
    return made


def serve_archive(server, entries, data):
    """Let `toy-set` be published with this archive."""
    server.bodies["/set.zip"] = data
    archive, notes = entries["toy-set"].files
    files = (archive.model_copy(update={"md5": md5(data)}), notes)
    entries["toy-set"] = entries["toy-set"].model_copy(update={"files": files})


@pytest.fixture
def bring(capsys):
    def fetched(*names, **options):
        """Whether `fetch` was complete, and what it printed."""
        return fetch.fetch(names, **options), capsys.readouterr().out

    return fetched


def test_size_and_licence_are_told_before_anything_is_fetched(bring, server, entries, cache):
    asked = []
    complete, said = bring("weights", "toy-set", confirm=lambda question: asked.append(question) or False)
    assert not complete and asked == ["Fetch 103kB?"]
    assert "102kB; licence: CC0" in said and "302B; licence: CC0" in said and "Nothing was fetched" in said
    assert server.seen == [] and not cache.exists()


def test_entries_are_fetched_once_and_are_then_here(bring, server, entries, cache):
    complete, said = bring("weights", "toy-set", "record")
    assert complete, said
    assert (cache / "checkpoints" / "w.pth").read_bytes() == BODY
    assert (cache / "data" / "toy-set" / "toy" / "img" / "2.png").read_bytes() == b"two"
    assert (cache / "data" / "record" / "toy" / "img" / "1.png").is_file()
    assert not list(cache.rglob("*.zip")) and not list(cache.rglob("*.part"))
    record = json.loads((cache / "data" / "record" / fetch.RECORD).read_text())
    assert record["files"][0]["name"] == "part 1.zip" and ["toy/img/1.png", 3] in record["members"]
    asked = len(server.seen)
    complete, said = bring("weights", "toy-set", "record")
    assert complete and len(server.seen) == asked and said.count("already here") == 3


def test_a_mirror_folder_or_address_serves_instead(bring, server, entries, cache, tmp_path):
    mirror = tmp_path / "mirror"
    (mirror / "toy-set").mkdir(parents=True)
    (mirror / "w.pth").write_bytes(BODY)
    (mirror / "toy-set" / "set.zip").write_bytes(server.bodies["/set.zip"])
    (mirror / "toy-set" / "notes.json").write_bytes(b"{}")
    (mirror / "record").mkdir()
    (mirror / "record" / "any.zip").write_bytes(server.bodies["/set.zip"])
    (mirror / "record" / "._any.zip").write_bytes(b"what macOS leaves beside it")
    assert bring("weights", "toy-set", "record", mirror=str(mirror))[0] and server.seen == []
    (cache / "checkpoints" / "w.pth").unlink()
    server.script = ["404", "whole"]
    assert bring("weights", mirror=server.url.removesuffix("file.bin"))[0]
    (mirror / "w.pth").write_bytes(b"not it")
    (cache / "checkpoints" / "w.pth").unlink()
    with pytest.raises(RossamError, match=f"expected {KNOWN}"):
        bring("weights", mirror=mirror.as_uri())


def test_one_failure_does_not_keep_the_others_away(bring, server, entries, cache):
    serve_archive(server, entries, b"<html>")
    server.bodies["/api/77"] = b"<html>"
    with pytest.raises(RossamError, match=r"2 problems(.|\n)*not the listing(.|\n)*cannot be unpacked"):
        bring("record", "toy-set", "weights")
    assert (cache / "checkpoints" / "w.pth").is_file()


def test_an_unsafe_archive_leaves_no_dataset(bring, server, entries, cache):
    serve_archive(server, entries, zipped({"toy/img/1.png": b"one", "../../evil": b"evil"}))
    with pytest.raises(RossamError, match="leads out"):
        bring("toy-set")
    assert [path.name for path in (cache / "data").iterdir()] == [".toy-set.lock"]
    assert not list(cache.rglob("evil"))


def test_a_listing_that_names_paths_is_refused(bring, server, entries):
    listing = json.loads(server.bodies["/api/77"])
    listing["files"][0]["key"] = "../../evil.zip"
    server.bodies["/api/77"] = json.dumps(listing).encode()
    with pytest.raises(RossamError, match="no plain file name"):
        bring("record")
    server.bodies["/api/77"] = b"<html>"
    with pytest.raises(RossamError, match="not the listing"):
        bring("record")


def test_too_little_disk_is_told_before_the_download(bring, server, entries, monkeypatch):
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(RossamError, match="102,400 bytes are needed"):
        bring("weights")
    assert server.seen == []


def test_a_folder_made_by_hand_is_not_overwritten(bring, server, entries, cache):
    (cache / "data" / "toy-set").mkdir(parents=True)
    (cache / "data" / "toy-set" / "thesis.tex").write_text("")
    with pytest.raises(RossamError, match="was not made by"):
        bring("toy-set")
    assert (cache / "data" / "toy-set" / "thesis.tex").exists()


def state_of(name, data=None):
    (status,) = fetch.check([name], data)
    return status.state, "; ".join(status.details)


def test_check_tells_what_is_there_missing_or_broken(bring, server, entries, cache, tmp_path):
    assert {status.state for status in fetch.check()} == {"missing"}
    bring("weights", "toy-set")
    assert state_of("weights") == ("ok", "102,400 bytes, hash as stated")
    assert state_of("toy-set")[0] == "ok" and "2 of 2 images" in state_of("toy-set")[1]
    (cache / "checkpoints" / "w.pth").write_bytes(BODY[:-1])
    assert state_of("weights")[0] == "broken" and f"expected {SHA256}" in state_of("weights")[1]
    image = cache / "data" / "toy-set" / "toy" / "img" / "1.png"
    image.write_bytes(b"")
    assert "1 empty" in state_of("toy-set")[1] and "3 were unpacked" in state_of("toy-set")[1]
    image.unlink()
    assert state_of("toy-set")[0] == "broken" and "1 of 2 images" in state_of("toy-set")[1]
    assert bring("toy-set")[0] and state_of("toy-set")[0] == "ok"  # what is broken is fetched anew
    (cache / "data" / "toy-set" / "notes.json").write_text("{ }")
    assert "md5 is" in state_of("toy-set")[1]


def test_what_was_placed_by_hand_is_found_wherever_it_lies(entries, tmp_path):
    assert "missing" in state_of("by-hand", tmp_path)
    with pytest.raises(RossamError, match="no such folder"):
        fetch.check(["by-hand"], tmp_path / "nowhere")
    for place in ("by-hand", "By_Hand/inner", "."):
        folder = tmp_path / place.replace("/", "-") / place / "img"
        folder.mkdir(parents=True)
        for name in ("1.png", "2.png"):
            (folder / name).write_bytes(b"x")
        assert state_of("by-hand", tmp_path / place.replace("/", "-"))[0] == "ok", place


def test_two_processes_fetch_one_entry_once(bring, server, entries, cache):
    with exclusive(cache / "checkpoints" / "w.pth"):
        second = threading.Thread(target=fetch.fetch, args=(["weights"],))
        second.start()
        time.sleep(0.2)
        assert second.is_alive() and server.seen == []
        (cache / "checkpoints" / "w.pth").write_bytes(BODY)
    second.join(10)
    assert not second.is_alive() and server.seen == []


def test_steps_by_hand_name_the_place(bring, entries, cache):
    complete, said = bring("by-hand")
    assert not complete and f"put it at {cache / 'data' / 'by-hand'}/img" in said and "https://example.org/toy" in said


# ---- the command


def test_the_command_asks_fetches_and_checks(server, entries, cache, capsys, monkeypatch):
    assert cli.main(["fetch", "--check", "weights"]) == 1
    assert "missing" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # not a terminal
    assert cli.main(["fetch", "weights"]) == 2 and "add --yes" in capsys.readouterr().err
    monkeypatch.setattr(cli.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert cli.main(["fetch", "weights"]) == 1 and server.seen == []
    assert cli.main(["fetch", "weights", "--yes"]) == 0
    assert cli.main(["fetch", "--check", "weights"]) == 0
    assert cli.main(["fetch", "--check"]) == 1
    out = capsys.readouterr().out
    assert "1 of 4 are there" in out and "to do 2: put it at" in out and "rossam fetch toy-set" in out
    assert cli.main(["fetch"]) == 0 and "102kB" in capsys.readouterr().out
    assert cli.main(["fetch", "--data", "x", "weights"]) == 2


@pytest.mark.parametrize(("name", "near"), [("sam_vitl", "sam_vit_l"), ("nwpu", "nwpu-vhr10"), ("SAT_MTB", "sat-mtb")])
def test_an_unknown_name_gets_the_nearest(name, near, capsys):
    assert cli.main(["fetch", name]) == 2
    assert f"did you mean {near!r}" in capsys.readouterr().err


def test_the_real_catalogue_is_complete():
    entries = catalogue.catalogue()
    assert set(entries) == {
        *(f"sam{hq}_vit_{size}" for hq in ("", "_hq") for size in "blh"),
        *(f"sam2.1_hiera_{size}" for size in ("tiny", "small", "base_plus", "large")),
        *("sam3", "nwpu-vhr10", "sat-mtb", "isaid", "satsot", "ootb", "viso"),
    }
    for name, entry in entries.items():
        is_fetched = any(source.urls for source in entry.files)
        assert is_fetched + bool(entry.zenodo) + bool(entry.by_hand) == 1, name
        assert (entry.kind == "dataset") == bool(entry.anchors and entry.layout), name
        for source in entry.files:
            assert (source.known_hash and source.bytes) or not source.urls, source.name
    checkpoints = {name for name, entry in entries.items() if entry.kind == "checkpoint"}
    assert checkpoints == {name for name, entry in entries.items() if entry.backbone and len(entry.files) == 1}


def test_weights_behind_a_licence_are_never_fetched_and_the_steps_name_their_place(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "download", lambda *_: pytest.fail("downloaded"))
    assert cli.main(["fetch", "sam3", "--yes"]) == 1
    place = tmp_path / "checkpoints" / "sam3.safetensors"
    out = capsys.readouterr().out
    assert "accept the licence" in out and f"put it at {place}" in out
    place.parent.mkdir()
    place.write_text("<html>Access to this file is restricted</html>")
    assert cli.main(["fetch", "--check", "sam3"]) == 1
    assert "sam3.safetensors: is no safetensors file" in capsys.readouterr().out
    save_file({"a": np.zeros(3, np.float32)}, place)
    assert cli.main(["fetch", "--check", "sam3"]) == 0
    assert f"{place.stat().st_size} bytes, its hash is not known" in capsys.readouterr().out


def test_weights_behind_a_licence_come_from_a_mirror_that_has_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mirror").mkdir()
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "mirror/sam3.safetensors")
    assert cli.main(["fetch", "sam3", "--yes", "--from", str(tmp_path / "mirror")]) == 0
    assert (tmp_path / "cache/checkpoints/sam3.safetensors").is_file()


def test_real_data_is_recognised(real_data):
    assert state_of("nwpu-vhr10", real_data) == ("ok", "650 of 650 images; 1 annotations, md5 as stated")
    assert state_of("nwpu-vhr10", real_data / "nwpu-vhr10" / "NWPU VHR-10 dataset")[0] == "ok"
    assert state_of("isaid", real_data)[0] == "broken" and "1 of 1,411 train images" in state_of("isaid", real_data)[1]
