"""Where rows come from: the files behind a path, a glob or an address, and what identifies their content."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from agpo.problems.prompt import template_digest

if TYPE_CHECKING:
    from agpo.settings import ProblemSource

Compression = Literal["", "gzip", "zstd"]
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_FORMATS: dict[str, Literal["jsonl", "csv", "parquet"]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}


class SourceFile(NamedTuple):
    name: str  # the path below the folder that the setting names, wherever that folder lies
    path: str
    files: Any  # the fsspec file system
    form: Literal["jsonl", "csv", "parquet"]
    compression: Compression


def source_digests(settings: ProblemSource) -> dict[str, str]:
    """What the problems' content depends on beside the settings, as a digest by name; nothing for generated problems.

    Files give the SHA-256 of their bytes, a data set of the hub the commit that its revision stands for, a prompt
    template the SHA-256 of its text. Raises FileNotFoundError for a path without a file, ValueError for one that
    cannot be a source, and ConnectionError where the hub does not answer.
    """
    if settings.source == "countdown" or settings.source == "shop":
        return {}
    prompt = {f"prompt {settings.prompt}": template_digest(settings.prompt)}
    if settings.source == "hub":
        from agpo.problems.hub import resolve_revision

        return {settings.dataset: resolve_revision(settings), **prompt}
    return {file.name: digest_file(file) for file in find_files(settings.path)} | prompt


def digest_file(file: SourceFile) -> str:
    """SHA-256 of the file's bytes as they are stored."""
    with file.files.open(file.path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_files(address: str) -> list[SourceFile]:
    """The file at a path or fsspec address, or all files that match a glob, by name."""
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ValueError(f"problems.path = {address!r}: {error}") from error
    files.invalidate_cache()  # a long-lived process must see files that came since it last looked
    try:  # a path that exists is meant as it is, also with the characters of a glob in it
        infos, fixed = {path: files.info(path)}, path
    except FileNotFoundError:
        infos, fixed = files.glob(path, detail=True), re.split(r"[*?[{]", path, maxsplit=1)[0]
    found = sorted(name for name, info in infos.items() if info["type"] == "file")
    if not found:
        raise FileNotFoundError(f"problems.path = {address!r}: no file is there; accepted: a file, or a glob of files")
    folder, slash, _ = fixed.rpartition("/")
    return [_describe(files, file, file.removeprefix(folder + slash), address) for file in found]


def _describe(files: Any, path: str, name: str, address: str) -> SourceFile:
    file = PurePosixPath(name.lower())
    compression = _COMPRESSIONS.get(file.suffix, "")
    form = _FORMATS.get(file.with_suffix("").suffix if compression else file.suffix)
    if form is None:
        raise ValueError(
            f"problems.path = {address!r}: cannot tell the format of {name}; "
            f"accepted: {', '.join(_FORMATS)}, each also with {', '.join(_COMPRESSIONS)}"
        )
    return SourceFile(name, path, files, form, compression)
