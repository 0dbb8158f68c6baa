"""A folder on any fsspec file system, with writes that are whole or absent."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Files:
    """Files below one root: a local folder, ``memory://…``, ``s3://bucket/prefix`` or any other fsspec address.

    A local write goes to a temporary neighbour that is synced and renamed, so a reader (or a process that was killed)
    never sees half a file. Object stores give the same guarantee with a single put.
    """

    def __init__(self, root: str | Path) -> None:
        self.fs, path = fsspec.core.url_to_fs(str(root))
        self.root = path.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)

    @property
    def uri(self) -> str:
        return self.root if self.local else self.fs.unstrip_protocol(self.root)

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
        target = self.path(name)
        if not self.local:
            with self.fs.open(target, "wb") as file:
                file.write(data)
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary = f"{target}.{uuid.uuid4().hex}.tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def create(self, name: str, data: bytes) -> bool:
        """Write only if absent; False when the file was there. Exclusive on local folders, best effort elsewhere."""
        if not self.local:
            if self.exists(name):
                return False
            self.write(name, data)
            return self.read(name) == data
        target = self.path(name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary = f"{target}.{uuid.uuid4().hex}.tmp"
        Path(temporary).write_bytes(data)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        return True

    def read(self, name: str) -> bytes:
        return bytes(self.fs.cat_file(self.path(name)))

    def exists(self, name: str = "") -> bool:
        return bool(self.fs.exists(self.path(name)))

    def names(self, below: str = "") -> list[str]:
        """Every finished file under ``below``, relative to the root, sorted."""
        return sorted(self._walk(below))

    def _walk(self, below: str) -> Iterator[str]:
        if not self.fs.exists(self.path(below)):
            return
        for path in self.fs.find(self.path(below)):
            name = path[len(self.root) :].lstrip("/")
            if not name.endswith(".tmp"):
                yield name

    def folders(self, below: str = "") -> list[str]:
        """Names of the folders directly under ``below``, sorted."""
        if not self.fs.exists(self.path(below)):
            return []
        return sorted(
            entry["name"].rstrip("/").rsplit("/", 1)[-1]
            for entry in self.fs.ls(self.path(below), detail=True)
            if entry["type"] == "directory"
        )

    def put(self, folder: Path, below: str = "") -> None:
        """Copy a local folder's files below ``below``."""
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.write("/".join(filter(None, [below, file.relative_to(folder).as_posix()])), file.read_bytes())

    def get(self, below: str, folder: Path) -> None:
        """Copy every file under ``below`` into a local folder."""
        for name in self.names(below):
            target = folder / name[len(below) :].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(self.path(name), str(target))

    def remove(self, name: str = "") -> None:
        if self.exists(name):
            self.fs.rm(self.path(name), recursive=True)
