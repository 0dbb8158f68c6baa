from __future__ import annotations

import hashlib
from pathlib import Path

import fsspec
import pytest

from agpo.problems import source_digests, template_digest
from agpo.problems.source import find_files
from agpo.settings import CountdownProblems, TableProblems

PROMPT = {"prompt math-boxed-v1": template_digest("math-boxed-v1")}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_generated_problems_have_no_source() -> None:
    assert source_digests(CountdownProblems()) == {}


def test_a_file_enters_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_bytes(b"{}\n")
    first, second = (source_digests(TableProblems(path=str(tmp_path / folder / "rows.jsonl"))) for folder in "ab")
    assert first == second == {"rows.jsonl": sha256(b"{}\n"), **PROMPT}
    (tmp_path / "a" / "rows.jsonl").write_bytes(b"{}\n{}\n")
    assert source_digests(TableProblems(path=str(tmp_path / "a" / "rows.jsonl"))) != first


def test_a_glob_names_its_files_below_the_fixed_folder(tmp_path: Path) -> None:
    for name in ("2025/b.csv", "2025/a.csv", "2024/a.csv", "2024/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    found = source_digests(TableProblems(path=f"{tmp_path}/20*/*.csv"))
    assert list(found) == ["2024/a.csv", "2025/a.csv", "2025/b.csv", *PROMPT]
    assert found["2025/a.csv"] == sha256(b"2025/a.csv")


def test_a_file_may_have_the_characters_of_a_glob_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "rows[1].csv").write_bytes(b"")
    assert [file.name for file in find_files(f"{tmp_path}/rows[1].csv")] == ["rows[1].csv"]


def test_any_file_system_is_an_address() -> None:
    with fsspec.open("memory://source-test/rows.jsonl", "wb") as file:
        file.write(b"{}")
    assert source_digests(TableProblems(path="memory://source-test/rows.jsonl"))["rows.jsonl"] == sha256(b"{}")
    assert source_digests(TableProblems(path="memory://source-test/*.jsonl"))["rows.jsonl"] == sha256(b"{}")


@pytest.mark.parametrize("name", ["missing.jsonl", "missing/*.jsonl", "."])
def test_what_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    address = f"{tmp_path}/{name}"
    with pytest.raises(FileNotFoundError) as caught:
        source_digests(TableProblems(path=address))
    assert str(caught.value).startswith(f"problems.path = {address!r}: no file is there")


def test_what_is_no_address_is_named() -> None:
    with pytest.raises(ValueError, match=r"problems.path = 'nowhere://x.csv': Protocol not known"):
        find_files("nowhere://x.csv")


@pytest.mark.parametrize(
    ("name", "form", "compression"),
    [
        ("rows.jsonl", "jsonl", ""),
        ("rows.ndjson.gz", "jsonl", "gzip"),
        ("rows.v2.csv.zst", "csv", "zstd"),
        ("ROWS.PARQUET", "parquet", ""),
        ("rows.jsonl.zstd", "jsonl", "zstd"),
    ],
)
def test_names_say_the_format(tmp_path: Path, name: str, form: str, compression: str) -> None:
    (tmp_path / name).touch()
    (file,) = find_files(str(tmp_path / name))
    assert (file.form, file.compression) == (form, compression)


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.gz", "rows.jsonl.bz2"])
def test_an_unknown_format_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(
        ValueError, match=rf"cannot tell the format of {name}; accepted: .jsonl, .ndjson, .csv, .parquet"
    ):
        find_files(str(tmp_path / name))
