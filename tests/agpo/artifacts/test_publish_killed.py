"""A publisher that is killed, wherever that happens, leaves an artifact or none, and the next one succeeds."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from agpo.artifacts import Files, Store
from tests.agpo.artifacts.forked import kill_before, run_forked
from tests.agpo.artifacts.publishing import KEY, fill_folder, publish


@pytest.mark.parametrize("linked", [False, True])
def test_killed_publisher_on_a_local_folder(tmp_path: Path, linked: bool) -> None:
    calls = [(os, "fsync"), (os, "replace"), (os, "link"), (shutil, "rmtree"), (fcntl, "flock")]
    for call in range(100):
        store = Store(tmp_path / f"store-{call}")
        source = store.partial("policy", KEY).local_path("out") if linked else tmp_path / f"made-{call}"
        fill_folder(source)

        def publish_and_die(call: int = call, store: Store = store, source: Path = source) -> None:
            kill_before(call, calls)
            publish(store, source)

        died = run_forked(publish_and_die)
        found = store.find("policy", KEY)
        if found is not None:
            store.verify(found)
        else:
            assert died
            assert source.exists(), "what is to be published is there until it has been"
        again = source if source.exists() else fill_folder(tmp_path / f"again-{call}")
        ref = publish(store, again)
        store.verify(ref)
        assert found in (None, ref)
        content = f"policy/{KEY}/{ref.sha256[:16]}"
        assert store.files.names() == [
            f"{content}/config.json",
            f"{content}/deep/weights.safetensors",
            f"{content}/same.txt",
            f"policy/{KEY}/manifest.json",
        ]
        assert {path.name.split(".")[0] for path in Path(store.files.root).rglob("*.draft")} <= {"manifest"}
        if not died:
            break
    assert call > 8


@pytest.mark.services
def test_killed_publisher_on_an_object_store(s3_bucket: str, tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "made")
    for call in range(5):
        root = f"s3://{s3_bucket}/killed-{call}"

        def publish_and_die(call: int = call, root: str = root) -> None:
            kill_before(call, [(Files, "copy"), (Files, "create")])
            publish(Store(root), folder)

        died = run_forked(publish_and_die)
        store = Store(root)
        found = store.find("policy", KEY)
        assert (found is None) == bool(died)
        ref = publish(store, folder)
        store.verify(ref)
        assert found in (None, ref)
        assert len(store.files.names()) == 4
    assert not died
