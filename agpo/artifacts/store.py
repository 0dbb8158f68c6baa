"""The artifact store: content under a key, committed by a manifest that is written last."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agpo.artifacts.files import Files
from agpo.artifacts.reference import ArtifactRef, digest

MANIFEST = "manifest.json"
_REMAKE = "delete the artifact's folder to remake it"


class ManifestFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    bytes: int

    @field_validator("name")
    @classmethod
    def _stays_in_folder(cls, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} leaves the artifact's folder")
        return name


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
    """Artifacts below one root; unfinished work at ``partial/<kind>/<key>/``.

    An artifact is ``<kind>/<key>/manifest.json`` and, beside it, a folder of content that is named by the content's
    digest: two publishers that made different bytes under one key never write to the same file. A store that is not a
    local folder has copies of what was fetched in ``copies``.
    """

    def __init__(self, root: str | Path, copies: Path = Path(".agpo/fetched")) -> None:
        self.files = Files(root)
        self.copies = copies

    def find(self, kind: str, key: str) -> ArtifactRef | None:
        """The artifact under a key, or None; a look at the manifest only."""
        manifest = self._read_manifest(kind, key)
        return None if manifest is None else self._reference(manifest)

    def manifest(self, ref: ArtifactRef) -> Manifest:
        manifest = self._read_manifest(ref.kind, ref.key)
        if manifest is None:
            raise FileNotFoundError(f"no artifact {ref.kind}/{ref.key} in {self.files.uri}")
        if manifest.sha256 != ref.sha256:
            raise DamagedArtifact(
                f"{self.files.uri}/{ref.kind}/{ref.key} was made again with other bytes: its sha256 is "
                f"{manifest.sha256[:12]}…, the reference says {ref.sha256[:12]}…"
            )
        return manifest

    def content(self, ref: ArtifactRef) -> Files:
        """The artifact's files where they lie."""
        return self.files.child(_content(ref))

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
        """Commit a folder under its key. An artifact that exists is verified and kept, whatever the folder holds.

        The folder is left as it is, except that the artifact's own working space (`partial`) is gone afterwards; from
        there files are linked, not copied, where the file system can. Raises `OSError` when the disk is full (nothing
        is kept) and `DamagedArtifact` when the artifact exists with other bytes than its manifest says.

        Publishers of one key on a local store wait for each other. Elsewhere the first manifest wins; the content of a
        publisher that was killed stays there, unreferenced, until the same bytes are published again.
        """
        with self.files.hold(f"partial/{kind}/{key}.lock") as alone:
            kept = self.find(kind, key)
            if kept is not None:
                self.verify(kept)
            else:
                entries = _describe(folder)
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
                kept = self._commit(folder, manifest, alone)
            self.files.remove(f"partial/{kind}/{key}")
        return kept

    def verify(self, ref: ArtifactRef) -> None:
        """Hash every file against the manifest; raise `DamagedArtifact` naming the first that differs."""
        content = self.content(ref)
        _check(self.manifest(ref), content, content.uri)

    def fetch(self, ref: ArtifactRef) -> Path:
        """The artifact as a local folder: the store's own when it is local, else a verified copy. Not to be changed."""
        manifest = self.manifest(ref)
        if self.files.local:
            return self.content(ref).local_path()
        target = self.copies / ref.sha256
        if not target.exists():
            self.copies.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.copies, ignore_cleanup_errors=True) as temporary:
                copy, content = Path(temporary, "content"), self.content(ref)
                for entry in manifest.files:
                    with suppress(FileNotFoundError):  # named by the check
                        content.download(entry.name, copy / entry.name)
                _check(manifest, Files(copy), content.uri)
                try:
                    copy.rename(target)
                except OSError:
                    if not target.exists():  # else another process fetched it first
                        raise
        return target

    def _commit(self, folder: Path, manifest: Manifest, alone: bool) -> ArtifactRef:
        base, ref = f"{manifest.kind}/{manifest.key}", self._reference(manifest)
        linked = self.files.local and folder.resolve().is_relative_to(self.files.local_path("partial").resolve())
        if alone:
            self.files.remove(base)  # leftovers of a publisher that was killed before its manifest
        try:
            for entry in manifest.files:
                self.files.copy(folder / entry.name, f"{_content(ref)}/{entry.name}", link=linked)
            committed = self.files.create(f"{base}/{MANIFEST}", manifest.model_dump_json(indent=1).encode())
        except OSError:
            if alone:
                self.files.remove(base)
            raise
        return ref if committed else self._give_way(ref)

    def _give_way(self, ref: ArtifactRef) -> ArtifactRef:
        """Keep the artifact of a publisher that was faster."""
        winner = self.find(ref.kind, ref.key)
        if winner is None:
            raise FileNotFoundError(f"{self.files.uri}/{ref.kind}/{ref.key} was removed while it was published")
        if winner.sha256 != ref.sha256:
            self.files.remove(_content(ref))
        self.verify(winner)
        return winner

    def _read_manifest(self, kind: str, key: str) -> Manifest | None:
        name = f"{kind}/{key}/{MANIFEST}"
        try:
            data = self.files.read(name)
        except FileNotFoundError:
            return None
        try:
            return Manifest.model_validate_json(data)
        except ValidationError as error:
            raise DamagedArtifact(f"{self.files.uri}/{name} is not a manifest; {_REMAKE}: {error}") from error

    def _reference(self, manifest: Manifest) -> ArtifactRef:
        return ArtifactRef(
            uri=self.files.child(_content(manifest)).uri,
            key=manifest.key,
            sha256=manifest.sha256,
            kind=manifest.kind,
            rows=manifest.rows,
            bytes=manifest.bytes,
        )


def _content(of: ArtifactRef | Manifest) -> str:
    return f"{of.kind}/{of.key}/{of.sha256[:16]}"


def _describe(folder: Path) -> list[ManifestFile]:
    files = Files(folder)
    names = files.names()
    if not names:
        raise FileNotFoundError(f"{folder} holds no file to publish")
    return [ManifestFile(name=name, sha256=files.sha256(name), bytes=(folder / name).stat().st_size) for name in names]


def _check(manifest: Manifest, files: Files, uri: str) -> None:
    """Compare the content, or a copy of it, with the manifest; errors name it by ``uri``."""
    for entry in manifest.files:
        try:
            found = files.sha256(entry.name)
        except FileNotFoundError:
            raise DamagedArtifact(f"{uri}/{entry.name} is missing; {_REMAKE}") from None
        if found != entry.sha256:
            raise DamagedArtifact(
                f"{uri}/{entry.name} has sha256 {found[:12]}…, its manifest says {entry.sha256[:12]}…; {_REMAKE}"
            )
