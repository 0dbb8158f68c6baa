"""Where rows come from: the files behind a path, a glob or an address, and what identifies their content."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from agpo.problems.prompt import template_digest

if TYPE_CHECKING:
    from agpo.settings import ProblemSource, RowProblems

Compression = Literal["", "gzip", "zstd"]
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_FORMATS: dict[str, Literal["jsonl", "csv", "parquet"]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}


DECISIONS = "problems.decisions"  # the setting


class SourceFile(NamedTuple):
    name: str  # the path below the folder that the setting names, wherever that folder lies
    path: str
    files: Any  # the fsspec file system
    form: Literal["jsonl", "csv", "parquet"]
    compression: Compression
    setting: str  # that names it


class EvaluationFile(NamedTuple):
    """A file of questions that must not be trained on."""

    name: str  # with the place of its setting, as files in different folders may be called the same
    file: SourceFile
    question: str  # path of the field


def source_digests(settings: ProblemSource) -> dict[str, str]:
    """What the problems' content depends on beside the settings, as a digest by name; nothing for generated problems.

    Files, also those of evaluation sets and audit decisions, give the SHA-256 of their bytes, a data set of the hub
    the commit that its revision stands for, a prompt template the SHA-256 of its text. Raises FileNotFoundError for a
    path without a file, ValueError for one that cannot be a source, and ConnectionError where the hub does not answer.
    """
    if settings.source == "countdown":
        return {}
    decided = find_files(settings.decisions, DECISIONS) if settings.decisions else []
    decisions = {f"decisions {file.name}": digest_file(file) for file in decided}
    if settings.source == "shop":
        return decisions
    beside = decisions | {f"prompt {settings.prompt}": template_digest(settings.prompt)}
    beside |= {found.name: digest_file(found.file) for found in find_evaluation_files(settings)}
    if settings.source == "hub":
        from agpo.problems.hub import resolve_revision

        return {settings.dataset: resolve_revision(settings), **beside}
    return {file.name: digest_file(file) for file in find_files(settings.path)} | beside


def row_digests(address: str, prompt: str, setting: str) -> dict[str, str]:
    """As `source_digests` of rows in files that are asked with a prompt template."""
    files = {file.name: digest_file(file) for file in find_files(address, setting)}
    return files | {f"prompt {prompt}": template_digest(prompt)}


def digest_file(file: SourceFile) -> str:
    """SHA-256 of the file's bytes as they are stored."""
    with file.files.open(file.path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_evaluation_files(settings: RowProblems) -> list[EvaluationFile]:
    """All files of the evaluation sets. Raises as `find_files`."""
    usual = settings.pair.query if settings.verifier == "label" else settings.fields.question
    found = []
    for number, address in enumerate(settings.evaluation_sets, 1):
        path, _, question = address.rpartition("#") if "#" in address else (address, "", usual)
        for file in find_files(path, "problems.evaluation_sets"):
            found.append(EvaluationFile(f"evaluation set {number}: {file.name}#{question}", file, question))
    return found


def find_files(address: str, setting: str = "problems.path") -> list[SourceFile]:
    """The file at a path or fsspec address, or all files that match a glob, by name; errors name the setting."""
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{setting} = {address!r}: {error}") from error
    files.invalidate_cache()  # a long-lived process must see files that came since it last looked
    try:  # a path that exists is meant as it is, also with the characters of a glob in it
        infos, fixed = {path: files.info(path)}, path
    except FileNotFoundError:
        infos, fixed = files.glob(path, detail=True), re.split(r"[*?[{]", path, maxsplit=1)[0]
    found = sorted(name for name, info in infos.items() if info["type"] == "file")
    if not found:
        raise FileNotFoundError(f"{setting} = {address!r}: no file is there; accepted: a file, or a glob of files")
    folder, slash, _ = fixed.rpartition("/")
    return [_describe(files, file, file.removeprefix(folder + slash), address, setting) for file in found]


def _describe(files: Any, path: str, name: str, address: str, setting: str) -> SourceFile:
    file = PurePosixPath(name.lower())
    compression = _COMPRESSIONS.get(file.suffix, "")
    form = _FORMATS.get(file.with_suffix("").suffix if compression else file.suffix)
    if form is None:
        raise ValueError(
            f"{setting} = {address!r}: cannot tell the format of {name}; "
            f"accepted: {', '.join(_FORMATS)}, each also with {', '.join(_COMPRESSIONS)}"
        )
    return SourceFile(name, path, files, form, compression, setting)
