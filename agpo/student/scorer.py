"""The student where it serves: texts in, calibrated probabilities out, on numpy, onnxruntime and tokenizers alone.

The file imports nothing of `agpo`, because MLflow ships it beside the model. A student's folder, as `distil` writes it:

- ``student.json``, with these fields:

  - ``version``: 1
  - ``scheme``: name of the label scheme
  - ``labels``: ``{"letter", "name", "relevant", "gain"}``, from least to most relevant
  - ``templates``: one text that is encoded, or two that are encoded as a pair. In them ``{query}`` and ``{title}``
    stand for the texts, ``{attributes}`` for a line break and the ad's attributes, or for nothing where it has none:
    ``["{query}", "{title}{attributes}"]`` for a pair; for a policy's text
    ``[Pair("{query}", "{title}").render() + "{attributes}"]``, so that `agpo.problems.pair` alone has its rule
  - ``length``: the most tokens; longer ones are cut at the right, of a pair the longer text first
  - ``pad``: id of the padding token; the padding is at the right
  - ``inputs``: names of the graph's inputs: input_ids, attention_mask and, if wanted, token_type_ids
  - ``temperature``: what the logits are divided by
  - ``model``: file of the graph, such as ``student.onnx``

- the graph: int64 inputs [batch, sequence] → ``logits`` float32 [batch, labels]
- ``tokenizer.json``: a file of the library `tokenizers`, with its special tokens in the post-processor
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

FloatArray = NDArray[np.float64]

VERSION = 1
_PART = re.compile(r"\{(query|title|attributes)\}")
_INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


class StudentLabel(NamedTuple):
    letter: str
    name: str
    relevant: bool
    gain: float


class Scorer:
    """A student's folder, loaded. ``scheme`` and ``labels`` (from least to most relevant) say what it tells apart.

    Raises:
        ValueError: the folder is of another version, or its graph wants an input that there is none for.
        FileNotFoundError: a file of it is missing.
    """

    def __init__(self, folder: Path | str, threads: int = 1) -> None:
        root = Path(folder)
        about = json.loads((root / "student.json").read_text(encoding="utf-8"))
        if about["version"] != VERSION:
            raise ValueError(f"{root}/student.json is of version {about['version']}; accepted: {VERSION}")
        unknown = [name for name in about["inputs"] if name not in _INPUTS]
        if unknown:
            raise ValueError(f"{root}/student.json names inputs {unknown}; accepted: {', '.join(_INPUTS)}")
        self.scheme: str = about["scheme"]
        self.labels = tuple(StudentLabel(**label) for label in about["labels"])
        self._templates: list[str] = about["templates"]
        self._inputs: list[str] = about["inputs"]
        self._pad: int = about["pad"]
        self._temperature: float = about["temperature"]
        self._tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(about["length"], strategy="longest_first")
        self._session = _open_session(root / about["model"], threads)

    def score(
        self,
        queries: Sequence[str],
        titles: Sequence[str],
        attributes: Sequence[str | None] | None = None,
        batch: int = 32,
    ) -> FloatArray:
        """Probabilities of the labels, [pairs, labels], in the order of the pairs.

        Blanks are joined as in the pairs that the student learned from. A batch has pairs of like length.

        Raises:
            ValueError: a query or title that is missing, no text or blank, or attributes that are no text; the message
                names the row, from 1. Also texts whose numbers differ.
        """
        texts = self._render(queries, titles, attributes)
        encodings = self._encode(texts)
        logits = np.empty((len(encodings), len(self.labels)))
        order = sorted(range(len(encodings)), key=lambda row: len(encodings[row]))
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            logits[rows] = self._session.run(["logits"], self._pack([encodings[row] for row in rows]))[0]
        return _softmax(logits / self._temperature)

    def _render(
        self, queries: Sequence[str], titles: Sequence[str], attributes: Sequence[str | None] | None
    ) -> list[tuple[str, ...]]:
        if attributes is None:
            attributes = [None] * len(queries)
        if not len(queries) == len(titles) == len(attributes):
            raise ValueError(
                f"{len(queries)} queries, {len(titles)} titles and {len(attributes)} attributes: not one each"
            )
        texts = []
        for row, (query, title, lines) in enumerate(zip(queries, titles, attributes, strict=True), 1):
            parts = {
                "query": _read_line(query, "query", row),
                "title": _read_line(title, "title", row),
                "attributes": _read_attributes(lines, row),
            }
            texts.append(tuple(_fill(template, parts) for template in self._templates))
        return texts

    def _encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        pair = len(self._templates) == 2
        return self._tokenizer.encode_batch_fast(list(texts) if pair else [text for (text,) in texts])

    def _pack(self, encodings: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
        """The graph's inputs, [batch, longest]."""
        longest = max(len(encoding) for encoding in encodings)
        packed = {}
        for name in self._inputs:
            values = np.full((len(encodings), longest), self._pad if name == "input_ids" else 0, dtype=np.int64)
            for row, encoding in enumerate(encodings):
                values[row, : len(encoding)] = getattr(encoding, _INPUTS[name])
            packed[name] = values
        return packed


def _open_session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    if not model.is_file():
        raise FileNotFoundError(f"{model}: the student's graph is missing")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _fill(template: str, parts: Mapping[str, str]) -> str:
    # In one pass: a query may hold the text "{title}".
    return _PART.sub(lambda part: parts[part[1]], template)


def _read_line(text: object, what: str, row: int) -> str:
    line = " ".join(_read_text(text, what, row).split())
    if not line:
        raise ValueError(f"row {row}: {what} is {text!r}; accepted: a text that is not blank")
    return line


def _read_attributes(text: object, row: int) -> str:
    """A line break and the attributes, a line each; empty where there are none."""
    if text is None:
        return ""
    lines = [" ".join(line.split()) for line in _read_text(text, "attributes", row).splitlines()]
    return "".join(f"\n{line}" for line in lines if line)


def _read_text(text: object, what: str, row: int) -> str:
    if text is None:
        raise ValueError(f"row {row}: {what} is missing")
    if not isinstance(text, str):
        raise ValueError(f"row {row}: {what} is {text!r}, of type {type(text).__name__}; accepted: a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"row {row}: {what} is {text!r}; accepted: a text without lone surrogates") from None
    return text


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return shares
