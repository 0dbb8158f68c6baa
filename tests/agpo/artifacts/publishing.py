"""Publishing a folder with everything that a manifest asks for."""

from __future__ import annotations

from pathlib import Path

from agpo.artifacts import ArtifactRef, Store

KEY = "5" * 64


def fill_folder(folder: Path, mark: bytes = b"x") -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_bytes(b'{"mark": "%s"}' % mark)
    (folder / "deep" / "weights.safetensors").write_bytes(mark * 100_000)
    (folder / "same.txt").write_bytes(b"the same whatever the mark")
    return folder


def publish(store: Store, folder: Path, key: str = KEY) -> ArtifactRef:
    return store.publish(
        folder,
        kind="policy",
        key=key,
        stage="warm_start",
        version=3,
        settings={"rate": 0.004, "model": {"width": 64}},
        inputs={},
        environment={"device": "cpu", "threads": 1},
        rows=7,
        summary={"metrics": {"loss": 0.5}},
        producer={"flow_run": "f"},
    )
