"""Golden vectors: what TRL and verl say about one batch, for tests that run without them.

``python -m tests.parity.golden``, in the environment of ``make parity``, writes them again and prints how far this
library is from each peer.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity.batch import TokenBatch, draw_batch
from tests.parity.mappings import ADVANTAGES, LOSSES, value_and_gradient

FILE = Path(__file__).parents[1] / "agpo" / "objectives" / "golden.json"
SEEDS = range(5)


@dataclass(frozen=True)
class Golden:
    versions: dict[str, str]  # of the peers
    batch: TokenBatch
    advantages: dict[str, Tensor]  # [rows] by the name of the mapping
    losses: dict[str, tuple[Tensor, Tensor]]  # value and gradient [tokens]


def ask_peers(batch: TokenBatch) -> Golden:
    """Raises ImportError where TRL or verl is not installed."""
    return Golden(
        versions={package: version(package) for package in ("trl", "verl", "torch")},
        batch=batch,
        advantages={name: mapping.peer(batch) for name, mapping in ADVANTAGES.items()},
        losses={name: value_and_gradient(mapping.peer, batch) for name, mapping in LOSSES.items()},
    )


def read_golden(file: Path = FILE) -> Golden:
    found = json.loads(file.read_text())
    batch = TokenBatch(**{name: _tensor(values) for name, values in found["batch"].items()})
    batch.new.requires_grad_()
    return Golden(
        versions=found["versions"],
        batch=batch,
        advantages={name: _tensor(values) for name, values in found["advantages"].items()},
        losses={name: (_tensor(value), _tensor(gradient)) for name, (value, gradient) in found["losses"].items()},
    )


def write_golden(golden: Golden, file: Path = FILE) -> None:
    """One line a vector, so that a change can be read."""
    parts: dict[str, dict[str, Any]] = {
        "versions": golden.versions,
        "batch": {field.name: getattr(golden.batch, field.name).tolist() for field in fields(golden.batch)},
        "advantages": {name: values.tolist() for name, values in golden.advantages.items()},
        "losses": {name: [value.item(), gradient.tolist()] for name, (value, gradient) in golden.losses.items()},
    }
    lines = [
        f"{json.dumps(part)}: {{\n"
        + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in entries.items())
        + "\n}"
        for part, entries in parts.items()
    ]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def largest_differences() -> dict[str, float]:
    """Of each mapping, over the rows, or over the loss and its gradient, and over `SEEDS`."""
    found: dict[str, float] = {}
    for batch in map(draw_batch, SEEDS):
        pairs = {f"advantages, {name}": (each.ours(batch), each.peer(batch)) for name, each in ADVANTAGES.items()}
        for name, each in LOSSES.items():
            of_ours, of_peer = (
                torch.cat([value[None], gradient])
                for value, gradient in (value_and_gradient(each.ours, batch), value_and_gradient(each.peer, batch))
            )
            pairs[f"loss, {name}"] = (of_ours, of_peer)
        for name, (mine, theirs) in pairs.items():
            found[name] = max(found.get(name, 0.0), float((mine - theirs).abs().max()))
    return found


def _tensor(values: Any) -> Tensor:
    """Numbers in fp64, whole numbers in int64: NumPy's defaults."""
    return torch.as_tensor(np.array(values))


if __name__ == "__main__":
    write_golden(ask_peers(draw_batch(0)))
    for name, difference in largest_differences().items():
        sys.stdout.write(f"{difference:.1e}  {name}\n")
