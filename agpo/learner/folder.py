"""A model folder that enters from outside: found, and known by its content. Needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

WEIGHTS = ".safetensors"
WANTED = {WEIGHTS, ".json", ".model", ".txt", ".jinja"}  # weights, configuration, tokenizer: nothing that could be code


def model_files(folder: str | Path, setting: str = "base.path") -> list[Path]:
    """The files of a Hugging Face folder that a model is made of; an error names the setting and what is missing."""
    root = Path(folder)
    if not (root / "config.json").is_file():
        raise FileNotFoundError(f"{setting}: {root} is not a Hugging Face model folder (no config.json in it)")
    files = [path for path in sorted(root.iterdir()) if path.suffix in WANTED and path.is_file()]
    if not any(path.suffix == WEIGHTS for path in files):
        raise FileNotFoundError(f"{setting}: {root} holds no {WEIGHTS} weights; other weight formats are not read")
    return files


def digest_folder(folder: str | Path) -> str:
    total = hashlib.sha256()
    for path in model_files(folder):
        with path.open("rb") as file:
            total.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
