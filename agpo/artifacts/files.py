"""A folder on any fsspec file system, with writes that are whole or absent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from agpo.artifacts import local


class Files:
    """Files below one root: a local folder, ``memory://…``, ``s3://bucket/prefix`` or any other fsspec address.

    A local write goes to a draft beside its target that is synced and renamed, so a reader (or a process that was
    killed) never sees half a file. Object stores give the same guarantee with a single put or a multipart upload.

    S3 takes its endpoint and credentials from the standard AWS settings: ``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``,
    ``AWS_SECRET_ACCESS_KEY``, ``AWS_PROFILE``, …
    """

    def __init__(self, root: str | Path) -> None:
        self.fs, path = fsspec.core.url_to_fs(str(root))
        self.fs.dircache.use_listings_cache = False  # other processes write here too: a memory would hide their files
        self.root: str = path.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)

    @property
    def uri(self) -> str:
        return self.root if self.local else str(self.fs.unstrip_protocol(self.root))

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def child(self, name: str) -> Files:
        below = object.__new__(Files)
        below.fs, below.root, below.local = self.fs, self.path(name), self.local
        return below

    def local_path(self, name: str = "") -> Path:
        """The file or folder as a local path; only a local store has one."""
        if not self.local:
            raise ValueError(f"{self.uri} is not a local folder")
        return Path(self.path(name))

    def write(self, name: str, data: bytes) -> None:
        if self.local:
            local.write_file(self.local_path(name), data)
        else:
            self.fs.pipe_file(self.path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write only if absent; False when the file was there.

        Exclusive among processes on a local folder and on object stores with conditional writes (S3, Google Cloud
        Storage and their like); on other file systems best effort.
        """
        if self.local:
            return local.create_file(self.local_path(name), data)
        try:
            self.fs.pipe_file(self.path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def copy(self, source: Path, name: str, *, link: bool = False) -> None:
        """Copy one local file here without reading it into memory.

        With ``link`` a local folder shares the file's bytes where it can; only for a source that nobody changes.
        """
        if self.local:
            local.copy_file(source, self.local_path(name), link=link)
        else:
            self.fs.put_file(str(source), self.path(name))

    def put(self, folder: Path, below: str = "") -> None:
        """Copy a local folder's files below ``below``."""
        for name in Files(folder).names():
            self.copy(folder / name, f"{below}/{name}".lstrip("/"))

    def get(self, below: str, folder: Path) -> None:
        """Copy every file under ``below`` into a local folder."""
        source = self.child(below)
        for name in source.names():
            source.download(name, folder / name)

    def download(self, name: str, target: Path) -> None:
        """Copy one file to a local path without reading it into memory."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self.fs.get_file(self.path(name), str(target))

    def read(self, name: str) -> bytes:
        return bytes(self.fs.cat_file(self.path(name)))

    def sha256(self, name: str) -> str:
        """The file's SHA-256 in hex, read in pieces."""
        with self.fs.open(self.path(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def exists(self, name: str = "") -> bool:
        return bool(self.fs.exists(self.path(name)))

    def names(self, below: str = "") -> list[str]:
        """Every finished file under ``below``, relative to the root, sorted."""
        return sorted(name for name in self._walk(below) if not local.is_draft(name))

    def _walk(self, below: str) -> Iterator[str]:
        if self.local:
            for file in local.walk_files(self.local_path(below)):
                yield file.relative_to(self.root).as_posix()
        elif self.exists(below):
            for path in self.fs.find(self.path(below)):
                yield path[len(self.root) :].lstrip("/")

    def folders(self, below: str = "") -> list[str]:
        """Names of the folders directly under ``below``, sorted."""
        if not self.exists(below):
            return []
        return sorted(
            entry["name"].rstrip("/").rsplit("/", 1)[-1]
            for entry in self.fs.ls(self.path(below), detail=True)
            if entry["type"] == "directory"
        )

    def remove(self, name: str = "") -> None:
        """Remove a file or a folder with all that is in it; what is absent stays absent."""
        with suppress(FileNotFoundError):
            self.fs.rm(self.path(name), recursive=True)

    @contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Hold a lock on ``name`` for the block; False where there is none: on all but local folders.

        The lock excludes other processes and ends with this one, even when that is killed.
        """
        if self.local:
            with local.lock_file(self.local_path(name)):
                yield True
        else:
            yield False
