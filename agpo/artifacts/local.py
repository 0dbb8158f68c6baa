"""Writes on a local file system that are whole or absent, however the process ends."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DRAFT = re.compile(r"\.[0-9a-f]{32}\.draft$")


def is_draft(name: str) -> bool:
    """Whether a file is the unfinished copy of another one: being written, or left by a process that was killed."""
    return _DRAFT.search(name) is not None


def write_file(target: Path, data: bytes) -> None:
    with _draft(target) as draft:
        draft.write_bytes(data)
        _sync(draft)
        os.replace(draft, target)
        _sync(target.parent)


def create_file(target: Path, data: bytes) -> bool:
    """Write only if absent, exclusively among all processes; False when the file was there."""
    with _draft(target) as draft:
        draft.write_bytes(data)
        _sync(draft)
        try:
            os.link(draft, target)
        except FileExistsError:
            return False
        _sync(target.parent)
        return True


def copy_file(source: Path, target: Path, *, link: bool = False) -> None:
    """Copy without reading the file into memory; with ``link``, share its bytes where the file system can."""
    with _draft(target) as draft:
        if not (link and _link(source, draft)):
            shutil.copyfile(source, draft)
        _sync(draft)
        os.replace(draft, target)
        _sync(target.parent)


def walk_files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, or the file itself. A folder that cannot be read is an error, not an empty one."""
    if folder.is_file():
        yield folder
        return
    for parent, _, names in os.walk(folder, onerror=_raise_unless_gone):
        yield from (Path(parent, name) for name in names)


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Wait for, then hold a lock that the kernel releases when its process ends; its file is gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_open_at(handle, path):
            break
        os.close(handle)  # the holder before us removed the file: a lock on it excludes nobody
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """An unused neighbour of ``target`` to write to; whatever is left of it afterwards is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}.draft")
    try:
        yield draft
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"{os.strerror(error.errno)} while writing {target}; nothing was kept: free space and run again"
            raise OSError(error.errno, message) from error
        raise
    finally:
        draft.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_open_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
