from __future__ import annotations

from pathlib import Path

import pytest

from agpo.learner.folder import digest_folder, model_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "chat_template.jinja"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_files_are_those_that_cannot_be_code(folder: Path) -> None:
    for name in ("modeling.py", "pytorch_model.bin", "README.md", "training_args.pt"):
        (folder / name).write_text("")
    (folder / "checkpoints.json").mkdir()
    assert [path.name for path in model_files(folder)] == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "vocab.txt",
    ]


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_configuration_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        model_files(tmp_path / name)
    assert str(caught.value) == (
        f"base.path: {tmp_path / name} is not a Hugging Face model folder (no config.json in it)"
    )


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError) as caught:
        digest_folder(folder)
    assert str(caught.value) == (
        f"base.path: {folder} holds no .safetensors weights; other weight formats are not read"
    )


def test_the_digest_is_of_names_and_contents_wherever_they_lie(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    digest = digest_folder(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for path in model_files(folder):
        (elsewhere / path.name).write_bytes(path.read_bytes())
    assert digest_folder(str(elsewhere)) == digest
    (elsewhere / "README.md").write_text("not a part of the model")
    assert digest_folder(elsewhere) == digest
    (elsewhere / "vocab.txt").write_text("other")
    changed = digest_folder(elsewhere)
    (elsewhere / "vocab.txt").rename(elsewhere / "words.txt")
    assert len({digest, changed, digest_folder(elsewhere)}) == 3
