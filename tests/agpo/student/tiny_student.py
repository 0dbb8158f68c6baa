"""A student of a few words, made by hand: its logits are sums of known numbers, so every figure can be told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from agpo.relevance import Scheme, find_scheme

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "shoe", "lamp", "case", "for")
PAIR = ("{query}", "{title}{attributes}")
PAD = 0


def make_values(scheme: Scheme, seed: int = 0) -> NDArray[np.float32]:
    """What each word adds to each logit, as a text of the query (0) or of the ad (1): [2, words, labels]."""
    random = np.random.default_rng(seed)
    return random.normal(size=(2, len(WORDS), len(scheme.labels))).astype(np.float32)


def write_student(
    folder: Path,
    values: NDArray[np.float32],
    scheme: str = "esci4",
    templates: Sequence[str] = PAIR,
    **other: Any,
) -> Path:
    """A student's folder; ``other`` replaces fields of ``student.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    about: Mapping[str, Any] = {
        "version": 1,
        "scheme": scheme,
        "labels": [
            {"letter": label.letter, "name": label.name, "relevant": label.relevant, "gain": label.gain}
            for label in find_scheme(scheme)
        ],
        "templates": list(templates),
        "length": 16,
        "pad": PAD,
        "inputs": ["input_ids", "attention_mask", "token_type_ids"],
        "temperature": 1.0,
        "model": "student.onnx",
    }
    (folder / "student.json").write_text(json.dumps({**about, **other}))
    onnx.save(_graph(values), folder / "student.onnx")
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _graph(values: NDArray[np.float32]) -> onnx.ModelProto:
    """``logits`` = the sum of ``values`` at (side, word) over the words that are no padding."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    nodes = [
        helper.make_node("Unsqueeze", ["token_type_ids", "last"], ["side"]),
        helper.make_node("Unsqueeze", ["input_ids", "last"], ["word"]),
        helper.make_node("Concat", ["side", "word"], ["place"], axis=-1),
        helper.make_node("GatherND", ["values", "place"], ["read"]),
        helper.make_node("Cast", ["attention_mask"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "last"], ["weight"]),
        helper.make_node("Mul", ["read", "weight"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "sequence"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", values.shape[-1]])],
        [
            numpy_helper.from_array(values, "values"),
            numpy_helper.from_array(np.array([-1]), "last"),
            numpy_helper.from_array(np.array([1]), "sequence"),
        ],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
