from __future__ import annotations

import errno
import json
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agpo.artifacts import ArtifactRef, DamagedArtifact, Files, Store
from tests.agpo.artifacts.publishing import KEY, fill_folder, publish


@pytest.fixture
def store(root: str, tmp_path: Path) -> Store:
    return Store(root, copies=tmp_path / "copies")


def test_what_was_published_is_found_and_fetched(store: Store, tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "made")
    assert store.find("policy", KEY) is None
    ref = publish(store, folder)
    assert store.find("policy", KEY) == ref
    assert store.find("policy", "6" * 64) is None
    assert store.find("problems", KEY) is None
    assert (ref.key, ref.kind, ref.rows, ref.bytes) == (KEY, "policy", 7, 100_000 + 13 + 26)
    fetched = store.fetch(ref)
    assert Files(fetched).names() == ["config.json", "deep/weights.safetensors", "same.txt"]
    assert (fetched / "deep" / "weights.safetensors").read_bytes() == b"x" * 100_000
    assert store.fetch(ref) == fetched
    assert Files(folder).names() == Files(fetched).names(), "the published folder is left as it was"


def test_the_reference_leads_to_the_files(store: Store, tmp_path: Path) -> None:
    ref = publish(store, fill_folder(tmp_path / "made"))
    assert Files(ref.uri).read("config.json") == b'{"mark": "x"}'
    assert store.content(ref).names() == ["config.json", "deep/weights.safetensors", "same.txt"]


def test_the_manifest_says_what_and_from_what(store: Store, tmp_path: Path) -> None:
    ref = publish(store, fill_folder(tmp_path / "made"))
    manifest = store.manifest(ref)
    assert (manifest.stage, manifest.version, manifest.rows) == ("warm_start", 3, 7)
    assert manifest.settings == {"rate": 0.004, "model": {"width": 64}}
    assert manifest.producer == {"flow_run": "f"}
    assert [(file.name, file.bytes) for file in manifest.files] == [
        ("config.json", 13),
        ("deep/weights.safetensors", 100_000),
        ("same.txt", 26),
    ]


def test_an_existing_artifact_is_kept_whatever_is_published(store: Store, tmp_path: Path) -> None:
    ref = publish(store, fill_folder(tmp_path / "first"))
    assert publish(store, fill_folder(tmp_path / "second", b"y")) == ref
    assert store.content(ref).read("config.json") == b'{"mark": "x"}'
    assert len(store.files.names()) == 4


def test_equal_content_has_equal_references_in_every_store(root: str, tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "made")
    one, other = (publish(Store(f"{root}/{name}"), folder) for name in ("one", "other"))
    assert one.sha256 == other.sha256
    assert one.uri.replace("/one/", "/other/") == other.uri


@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
def test_a_damaged_file_is_named(store: Store, tmp_path: Path, damage: str) -> None:
    ref = publish(store, fill_folder(tmp_path / "made"))
    content, name = store.content(ref), "deep/weights.safetensors"
    if damage == "missing":
        content.remove(name)
    else:
        content.write(name, b"z" * 100_000 if damage == "changed" else b"x" * 99_999)
    says = f"{content.uri}/{name} is missing" if damage == "missing" else f"{content.uri}/{name} has sha256"
    checks: list[Callable[[], object]] = [lambda: store.verify(ref), lambda: publish(store, tmp_path / "made")]
    if not store.files.local:
        checks.append(lambda: store.fetch(ref))
    for check in checks:
        with pytest.raises(DamagedArtifact) as raised:
            check()
        assert str(raised.value).startswith(says)
        assert "delete the artifact's folder" in str(raised.value)
    store.files.remove(f"policy/{KEY}")
    assert publish(store, tmp_path / "made") == ref
    store.verify(ref)


def test_an_unreadable_manifest_is_named(store: Store, tmp_path: Path) -> None:
    publish(store, fill_folder(tmp_path / "made"))
    store.files.write(f"policy/{KEY}/manifest.json", b"{")
    with pytest.raises(DamagedArtifact, match=rf"policy/{KEY}/manifest\.json is not a manifest"):
        store.find("policy", KEY)


def test_a_manifest_cannot_lead_out_of_its_folder(store: Store, tmp_path: Path) -> None:
    ref = publish(store, fill_folder(tmp_path / "made"))
    manifest = json.loads(store.files.read(f"policy/{KEY}/manifest.json"))
    manifest["files"][0]["name"] = "../../outside"
    store.files.write(f"policy/{KEY}/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(DamagedArtifact, match="leaves the artifact's folder"):
        store.fetch(ref)


def test_an_artifact_made_again_with_other_bytes_does_not_pass_for_the_old_one(store: Store, tmp_path: Path) -> None:
    old = publish(store, fill_folder(tmp_path / "first"))
    store.files.remove(f"policy/{KEY}")
    with pytest.raises(FileNotFoundError, match=f"no artifact policy/{KEY}"):
        store.fetch(old)
    publish(store, fill_folder(tmp_path / "second", b"y"))
    with pytest.raises(DamagedArtifact, match="made again with other bytes"):
        store.fetch(old)


def test_an_empty_or_absent_folder_is_no_artifact(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        with pytest.raises(FileNotFoundError, match=f"{name} holds no file to publish"):
            publish(store, tmp_path / name)
    assert store.files.names() == []


def test_working_space_survives_until_the_artifact_is_published(store: Store, tmp_path: Path) -> None:
    store.partial("policy", KEY).write("shard-0", b"x")
    store.partial("policy", "6" * 64).write("shard-0", b"y")
    assert Store(store.files.uri).partial("policy", KEY).read("shard-0") == b"x"
    publish(store, fill_folder(tmp_path / "made"))
    assert store.partial("policy", KEY).names() == []
    assert store.partial("policy", "6" * 64).names() == ["shard-0"]


def test_concurrent_publishers_return_the_same_artifact(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four publishers, two different contents; all have seen that the key is free before the first one commits."""
    marks, refs, looked = [b"p", b"q", b"q", b"p"], {}, threading.Barrier(4)
    create = Files.create
    if not store.files.local:  # there, they wait for each other

        def create_together(files: Files, name: str, data: bytes) -> bool:
            looked.wait(timeout=60)
            return create(files, name, data)

        monkeypatch.setattr(Files, "create", create_together)

    def publish_one(number: int) -> None:
        refs[number] = publish(store, fill_folder(tmp_path / str(number), marks[number]))

    threads = [threading.Thread(target=publish_one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refs) == 4
    (ref,) = set(refs.values())
    store.verify(ref)
    assert store.content(ref).read("config.json") in (b'{"mark": "p"}', b'{"mark": "q"}')
    assert len(store.files.names()) == 4, "only the winner's files are left"


@pytest.mark.services
def test_fetches_at_once_share_one_copy(s3_bucket: str, tmp_path: Path) -> None:
    store, fetched = Store(f"s3://{s3_bucket}/fetches", copies=tmp_path / "copies"), []
    ref = publish(store, fill_folder(tmp_path / "made"))
    threads = [threading.Thread(target=lambda: fetched.append(store.fetch(ref))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == [tmp_path / "copies" / ref.sha256] * 4
    assert (fetched[0] / "deep" / "weights.safetensors").stat().st_size == 100_000
    assert os.listdir(store.copies) == [ref.sha256]


@pytest.mark.parametrize("writes", range(4))
def test_a_full_disk_leaves_no_half_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """The disk fills up at the first, second or third file, or at the manifest."""
    store, folder, replace = Store(tmp_path / "store"), fill_folder(tmp_path / "made"), os.replace
    link, left = os.link, [writes]

    def spend(call: Callable[..., None]) -> Callable[..., None]:
        def limited(*args: Any, **kwargs: Any) -> None:
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= 1
            call(*args, **kwargs)

        return limited

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", spend(replace))
        patch.setattr(os, "link", spend(link))
        with pytest.raises(OSError, match=r"No space left on device while writing .*; nothing was kept") as raised:
            publish(store, folder)
    assert raised.value.errno == errno.ENOSPC
    assert store.find("policy", KEY) is None
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    store.verify(publish(store, folder))


def test_large_files_are_not_read_into_memory(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "made").mkdir()
    with (tmp_path / "made" / "model.safetensors").open("wb") as file:
        file.truncate(64 * 2**20)
    tracemalloc.start()
    try:
        publish(store, tmp_path / "made")
        publish(store, tmp_path / "made")  # verifies
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


def test_files_of_the_working_space_are_published_without_a_copy(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    out = fill_folder(store.partial("policy", KEY).local_path("out"))
    inode = (out / "deep" / "weights.safetensors").stat().st_ino
    ref = publish(store, out)
    assert (store.fetch(ref) / "deep" / "weights.safetensors").stat().st_ino == inode
    assert not out.exists()
    store.verify(ref)


def test_drafts_of_a_killed_writer_are_not_published(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = fill_folder(tmp_path / "made")
    (folder / f"weights.{'0' * 32}.draft").write_bytes(b"half")
    ref = publish(store, folder)
    assert store.content(ref).names() == ["config.json", "deep/weights.safetensors", "same.txt"]


def test_a_published_folder_may_hold_links(tmp_path: Path) -> None:
    """A snapshot in the cache of a model hub is a folder of links."""
    store, folder = Store(tmp_path / "store"), fill_folder(tmp_path / "made")
    (folder / "linked.bin").symlink_to(folder / "deep" / "weights.safetensors")
    ref = publish(store, folder)
    assert not (store.fetch(ref) / "linked.bin").is_symlink()
    assert (store.fetch(ref) / "linked.bin").read_bytes() == b"x" * 100_000


def test_references_of_one_store_serve_in_a_moved_one(tmp_path: Path) -> None:
    ref: ArtifactRef = publish(Store(tmp_path / "store"), fill_folder(tmp_path / "made"))
    (tmp_path / "store").rename(tmp_path / "moved")
    assert (Store(tmp_path / "moved").fetch(ref) / "same.txt").exists()
