from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import boto3
import pytest

from agpo.artifacts import Files
from tests.agpo.artifacts.forked import kill_before, run_forked


def test_what_was_written_is_read(root: str) -> None:
    files = Files(root)
    files.write("a/b.json", b"one")
    files.write("a/b.json", b"two")
    assert files.read("a/b.json") == b"two"
    assert files.exists("a/b.json")
    assert files.exists("a")
    assert not files.exists("a/c.json")
    with pytest.raises(FileNotFoundError):
        files.read("a/c.json")


def test_the_address_leads_back(root: str) -> None:
    Files(root).child("a").write("b", b"x")
    assert Files(Files(root).child("a").uri).read("b") == b"x"


def test_names_are_relative_to_the_root_and_below_a_folder(root: str) -> None:
    files = Files(root)
    assert files.names() == []
    for name in ("b/2", "b/c/1", "bb/1", "a"):
        files.write(name, b"x")
    assert files.names() == ["a", "b/2", "b/c/1", "bb/1"]
    assert files.names("b") == ["b/2", "b/c/1"]
    assert files.names("a") == ["a"]
    assert files.names("absent") == []
    assert files.child("b").names() == ["2", "c/1"]


def test_folders_are_those_directly_below(root: str) -> None:
    files = Files(root)
    for name in ("b/2", "b/c/1", "a"):
        files.write(name, b"x")
    assert files.folders() == ["b"]
    assert files.folders("b") == ["c"]
    assert files.folders("absent") == []


def test_files_of_other_writers_are_seen_at_once(root: str) -> None:
    one, other = Files(root), Files(root)
    assert one.names("a") == []
    other.write("a/1", b"x")
    assert one.names("a") == ["a/1"]
    assert one.exists("a/1")
    other.remove("a/1")
    assert one.names("a") == []


def test_create_keeps_what_is_there(root: str) -> None:
    files = Files(root)
    assert files.create("lease", b"first")
    assert not files.create("lease", b"second")
    assert files.read("lease") == b"first"


def test_only_one_of_many_creates(root: str) -> None:
    files, start, created = Files(root), threading.Barrier(8), []

    def create(number: int) -> None:
        start.wait()
        if files.create("lease", b"%d" % number):
            created.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [files.read("lease")] == [b"%d" % number for number in created]


def test_a_folder_is_put_and_got_back(root: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep").mkdir(parents=True)
    (source / "config.json").write_bytes(b"{}")
    (source / "deep" / "weights").write_bytes(bytes(range(256)) * 300)
    files = Files(root)
    files.put(source, "model")
    assert files.names() == ["model/config.json", "model/deep/weights"]
    files.get("model", target)
    assert (target / "config.json").read_bytes() == b"{}"
    assert (target / "deep" / "weights").read_bytes() == bytes(range(256)) * 300
    assert files.sha256("model/config.json") == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_remove_takes_the_folder_and_not_its_neighbour(root: str) -> None:
    files = Files(root)
    for name in ("a/1", "a/b/2", "ab/1"):
        files.write(name, b"x")
    files.remove("a")
    files.remove("absent")
    assert files.names() == ["ab/1"]


def test_only_a_local_folder_has_a_lock_and_a_path(root: str) -> None:
    files = Files(root)
    with files.hold("lock") as alone:
        assert alone == files.local
    if files.local:
        assert files.local_path("a") == Path(root, "a")
    else:
        with pytest.raises(ValueError, match="not a local folder"):
            files.local_path("a")


@pytest.mark.services
def test_objects_of_other_processes_are_seen_at_once(s3_bucket: str) -> None:
    files, elsewhere = Files(f"s3://{s3_bucket}/shared"), boto3.client("s3")
    files.write("a/1", b"x")
    assert (files.names(), files.folders()) == (["a/1"], ["a"])
    elsewhere.put_object(Bucket=s3_bucket, Key="shared/a/1", Body=b"longer")
    elsewhere.put_object(Bucket=s3_bucket, Key="shared/b/1", Body=b"x")
    assert (files.names(), files.folders()) == (["a/1", "b/1"], ["a", "b"])
    assert files.sha256("a/1") == hashlib.sha256(b"longer").hexdigest()
    elsewhere.delete_object(Bucket=s3_bucket, Key="shared/a/1")
    assert (files.exists("a/1"), files.names(), files.folders()) == (False, ["b/1"], ["b"])


@pytest.mark.services
def test_a_missing_bucket_is_named(s3_bucket: str) -> None:
    files = Files("s3://no-such-bucket/runs")
    assert not files.exists("a")
    with pytest.raises(FileNotFoundError, match="bucket"):
        files.write("a", b"x")


def test_a_file_is_whole_or_absent_wherever_its_writer_is_killed(tmp_path: Path) -> None:
    files, calls = Files(tmp_path), [(os, "fsync"), (os, "replace"), (Path, "write_bytes")]
    for call in range(100):
        files.write("table", b"old" * 1000)

        def write(call: int = call) -> None:
            kill_before(call, calls)
            files.write("table", b"new" * 2000)

        died = run_forked(write)
        assert files.names() == ["table"], "the draft that a killed writer leaves is no file"
        assert files.read("table") in ((b"old" * 1000, b"new" * 2000) if died else (b"new" * 2000,))
        if not died:
            break
    assert call == 4  # writing, syncing, renaming, syncing the folder; then it ran to its end


def test_a_full_disk_keeps_the_old_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path)
    files.write("table", b"old")
    monkeypatch.setattr(os, "fsync", fill_disk)
    with pytest.raises(OSError, match=r"No space left on device while writing .*/table; nothing was kept") as raised:
        files.write("table", b"new")
    assert raised.value.errno == errno.ENOSPC
    assert files.read("table") == b"old"
    assert os.listdir(tmp_path) == ["table"]


def fill_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_ends_like_a_temporary_one_is_a_file(tmp_path: Path) -> None:
    files = Files(tmp_path)
    for name in ("notes.tmp", "table.draft"):
        files.write(name, b"x")
    assert files.names() == ["notes.tmp", "table.draft"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path)
    files.write("closed/1", b"x")

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="closed"):
        files.names("closed")


def test_a_listing_survives_files_that_come_and_go(tmp_path: Path) -> None:
    files, ended = Files(tmp_path), threading.Event()
    for number in range(20):
        files.write(f"fixed/{number:02d}", b"x")

    def disturb() -> None:
        while not ended.is_set():
            files.write("fixed/moving", b"x")
            files.remove("fixed/moving")

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(200):
            assert [name for name in files.names() if "moving" not in name] == [f"fixed/{n:02d}" for n in range(20)]
    finally:
        ended.set()
        thread.join()


def test_a_linked_copy_shares_its_bytes_and_a_copy_does_not(tmp_path: Path) -> None:
    files, source = Files(tmp_path / "store"), tmp_path / "source"
    source.write_bytes(b"x")
    files.copy(source, "copied")
    files.copy(source, "linked", link=True)
    files.copy(source, "linked", link=True)
    assert not files.local_path("copied").samefile(source)
    assert files.local_path("linked").samefile(source)
    assert files.names() == ["copied", "linked"]
    assert sorted(os.listdir(tmp_path / "store")) == ["copied", "linked"]


def test_a_lock_excludes_others_until_it_is_released(tmp_path: Path) -> None:
    files, inside, most = Files(tmp_path), [0], [0]

    def work() -> None:
        for _ in range(20):
            with files.hold("deep/lock"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                threading.Event().wait(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert files.names() == []


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    files = Files(tmp_path)

    def hold_and_die() -> None:
        with files.hold("lock"):
            os.kill(os.getpid(), 9)

    assert run_forked(hold_and_die) == 9
    with files.hold("lock") as alone:
        assert alone
