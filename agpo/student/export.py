"""A trained encoder as the folder that `agpo.student.scorer` serves, checked against torch on real pairs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from sentence_transformers import CrossEncoder
from torch import Tensor, nn

from agpo.relevance import Scheme
from agpo.settings.distil import Distilling
from agpo.student.examples import TEMPLATES, Examples, FloatArray, Rendering
from agpo.student.quiet import quiet_libraries
from agpo.student.scorer import VERSION, Scorer
from agpo.student.scores import Export, macro_f1
from agpo.student.training import predict, save_encoder

_FP32, _INT8 = "student.onnx", "student.int8.onnx"
_CLOSE = 1e-3  # in log-probabilities; seen: 1e-5


def export_student(
    model: CrossEncoder, rendering: Rendering, settings: Distilling, scheme: Scheme, selection: Examples, out: Path
) -> Export:
    """Write ``encoder/``, ``tokenizer.json``, ``student.json`` (temperature 1) and the graph to ``out``.

    8-bit weights replace 32-bit ones where they change almost no label (`Distilling.int8_agreement`, ``int8_drop``).
    RuntimeError where the graph does not give what torch gives.
    """
    tokenizer = model.tokenizer
    save_encoder(model, out / "encoder")
    shutil.copy(out / "encoder" / "tokenizer.json", out / "tokenizer.json")
    inputs = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokenizer.model_input_names]
    about = {
        "version": VERSION,
        "scheme": scheme.name,
        "labels": [
            {"letter": label.letter, "name": label.name, "relevant": label.relevant, "gain": label.gain}
            for label in scheme
        ],
        "templates": TEMPLATES[rendering],
        "length": settings.length,
        "pad": tokenizer.pad_token_id,
        "inputs": inputs,
        "temperature": 1.0,
        "model": _FP32,
    }
    write_about(out, about)
    expected = predict(model, selection.render(rendering))
    _write_graph(model, inputs, settings.length, out / _FP32)
    exact = score(out, selection)
    difference = float(np.abs(np.log(exact + 1e-9) - np.log(expected + 1e-9)).max())
    if not difference <= _CLOSE:
        raise RuntimeError(
            f"the exported student's log-probabilities differ by {difference:.2g} from the encoder's on selection "
            f"pairs; accepted: {_CLOSE:g}"
        )
    _quantise(out / _FP32, out / _INT8)
    write_about(out, {**about, "model": _INT8})
    rounded = score(out, selection)
    agreement = float((rounded.argmax(1) == exact.argmax(1)).mean())
    drop = macro_f1(exact, selection, scheme) - macro_f1(rounded, selection, scheme)
    kept = agreement >= settings.int8_agreement and drop <= settings.int8_drop
    (out / (_FP32 if kept else _INT8)).unlink()
    model_file = _INT8 if kept else _FP32
    write_about(out, {**about, "model": model_file})
    return Export(
        largest_difference=difference,
        int8_kept=kept,
        int8_agreement=agreement,
        int8_drop=drop,
        bytes=(out / model_file).stat().st_size,
    )


def score(folder: Path, examples: Examples) -> FloatArray:
    """A student folder's probabilities, as it serves them, [pairs, labels]."""
    texts = {name: examples.pairs[name].to_list() for name in ("query", "title", "attributes")}
    return Scorer(folder).score(texts["query"], texts["title"], texts["attributes"])


def set_temperature(folder: Path, temperature: float) -> None:
    write_about(folder, {**json.loads((folder / "student.json").read_text("utf-8")), "temperature": temperature})


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    (folder / "student.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


class _Logits(nn.Module):
    """The encoder's logits by inputs in a fixed order."""

    def __init__(self, model: Any, inputs: list[str]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *tensors: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.inputs, tensors, strict=True))).logits
        return logits


def _write_graph(model: CrossEncoder, inputs: list[str], length: int, file: Path) -> None:
    encoder = _Logits(model.cpu().eval().transformers_model, inputs)
    # An example of 1 row could be taken for a graph of 1 row.
    example = tuple(torch.ones(3, 8, dtype=torch.long) for _ in inputs)
    shape = {0: torch.export.Dim("batch", min=1, max=4096), 1: torch.export.Dim("sequence", min=2, max=length)}
    with quiet_libraries():
        torch.onnx.export(
            encoder,
            example,
            file,
            dynamo=True,
            input_names=inputs,
            output_names=["logits"],
            dynamic_shapes=(tuple(shape for _ in inputs),),
            external_data=False,
            verbose=False,
        )
        _strip(file)


def _strip(file: Path) -> None:
    """Take out what the exporter notes of this machine and its code: stacks with paths, in every node."""
    model = onnx.load(file)
    parts = [model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.functions]
    parts += [part for function in model.functions for part in (*function.node, *function.value_info)]
    for part in parts:
        del part.metadata_props[:]
        part.ClearField("doc_string")
    onnx.save(model, file)


def _quantise(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet_libraries():
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)
