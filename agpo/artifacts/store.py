"""The artifact store: content under a key, committed by a manifest that is written last."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agpo.artifacts.files import Files
from agpo.artifacts.reference import ArtifactRef, digest

MANIFEST = "manifest.json"


class ManifestFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    bytes: int


class Manifest(BaseModel):
    """What an artifact is made of and made from. Its presence, and only that, says that the artifact exists."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    kind: str
    stage: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, ArtifactRef]
    environment: dict[str, Any] = Field(default_factory=dict)
    files: list[ManifestFile]
    sha256: str
    rows: int
    bytes: int
    summary: dict[str, Any] = Field(default_factory=dict)
    producer: dict[str, str] = Field(default_factory=dict)
    created: str


class DamagedArtifact(RuntimeError):
    """Bytes in the store are not those that the manifest promises."""


class Store:
    """Artifacts below one root, at ``<kind>/<key>/``; unfinished work at ``partial/<kind>/<key>/``."""

    def __init__(self, root: str | Path) -> None:
        self.files = Files(root)

    def find(self, kind: str, key: str) -> ArtifactRef | None:
        manifest = self._read_manifest(f"{kind}/{key}")
        return None if manifest is None else self._reference(manifest)

    def manifest(self, ref: ArtifactRef) -> Manifest:
        manifest = self._read_manifest(f"{ref.kind}/{ref.key}")
        if manifest is None:
            raise FileNotFoundError(f"no artifact {ref.kind}/{ref.key} in {self.files.uri}")
        return manifest

    def partial(self, kind: str, key: str) -> Files:
        """Durable working space of an artifact that is not finished: shards that survive a kill."""
        return self.files.child(f"partial/{kind}/{key}")

    def publish(
        self,
        folder: Path,
        *,
        kind: str,
        key: str,
        stage: str,
        version: int,
        settings: dict[str, Any],
        inputs: dict[str, ArtifactRef],
        environment: dict[str, Any],
        rows: int,
        summary: dict[str, Any],
        producer: dict[str, str],
    ) -> ArtifactRef:
        """Commit a folder under its key. An artifact that exists is verified and kept, whatever the folder holds."""
        kept = self.find(kind, key)
        if kept is not None:
            self.verify(kept)
            return kept
        entries = [_entry(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]
        base = f"{kind}/{key}"
        self.files.remove(base)  # leftovers of a publish that was killed before its manifest
        self.files.put(folder, base)
        manifest = Manifest(
            key=key,
            kind=kind,
            stage=stage,
            version=version,
            settings=settings,
            inputs=inputs,
            environment=environment,
            files=entries,
            sha256=digest([[entry.name, entry.sha256] for entry in entries]),
            rows=rows,
            bytes=sum(entry.bytes for entry in entries),
            summary=summary,
            producer=producer,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self.files.write(f"{base}/{MANIFEST}", manifest.model_dump_json(indent=1).encode())
        self.files.remove(f"partial/{kind}/{key}")
        return self._reference(manifest)

    def verify(self, ref: ArtifactRef) -> None:
        """Hash every file against the manifest; raise `DamagedArtifact` naming the first that differs."""
        manifest = self.manifest(ref)
        for entry in manifest.files:
            name = f"{ref.kind}/{ref.key}/{entry.name}"
            if not self.files.exists(name):
                raise DamagedArtifact(f"{self.files.uri}/{name} is missing; delete the artifact's folder to remake it")
            found = hashlib.sha256(self.files.read(name)).hexdigest()
            if found != entry.sha256:
                raise DamagedArtifact(
                    f"{self.files.uri}/{name} has sha256 {found[:12]}…, its manifest says {entry.sha256[:12]}…; "
                    "delete the artifact's folder to remake it"
                )

    def fetch(self, ref: ArtifactRef) -> Path:
        """The artifact as a local folder: the store's own when it is local, else a copy in the temporary folder."""
        base = f"{ref.kind}/{ref.key}"
        if self.files.local:
            self.manifest(ref)
            return self.files.local_path(base)
        target = Path(tempfile.gettempdir()) / "agpo-fetched" / ref.sha256
        if not target.exists():
            copy = Path(tempfile.mkdtemp(prefix="agpo-fetch-"))
            self.files.get(base, copy)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                copy.rename(target)
            except OSError:  # another process fetched it first
                shutil.rmtree(copy)
        return target

    def _read_manifest(self, base: str) -> Manifest | None:
        name = f"{base}/{MANIFEST}"
        if not self.files.exists(name):
            return None
        return Manifest.model_validate_json(self.files.read(name))

    def _reference(self, manifest: Manifest) -> ArtifactRef:
        return ArtifactRef(
            uri=f"{self.files.uri}/{manifest.kind}/{manifest.key}",
            key=manifest.key,
            sha256=manifest.sha256,
            kind=manifest.kind,
            rows=manifest.rows,
            bytes=manifest.bytes,
        )


def _entry(folder: Path, path: Path) -> ManifestFile:
    data = path.read_bytes()
    return ManifestFile(
        name=path.relative_to(folder).as_posix(), sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)
    )
