"""Pairs per CPU-second of a served student against its encoder in sentence-transformers: batch 32, one thread.

Both score the same pairs in this process, in turn, tokenising included, and both sort them by length. The student has
the default shape and random weights.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agpo.artifacts.table import write_table
from agpo.problems.shop import generate_shop
from agpo.records import Pairs
from agpo.relevance import find_scheme
from agpo.settings import ShopProblems
from agpo.settings.distil import Distilling
from agpo.student.encoder import rendering_of, start_encoder
from agpo.student.examples import read_judged
from agpo.student.export import export_student
from agpo.student.scorer import Scorer
from agpo.student.training import load_encoder
from tests.cpu_time import least_times

BATCH, REPEATS = 32, 5


@pytest.mark.bench
@pytest.mark.usefixtures("one_thread")
def test_scorer_against_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    scheme = find_scheme("esci4")
    write_table(tmp_path, "pairs.parquet", generate_shop(ShopProblems(), 0).pairs, Pairs)
    judged = read_judged(tmp_path, scheme)
    pairs = judged["confirmation"]
    texts = [pairs.pairs[name].to_list() for name in ("query", "title", "attributes")]
    print(f"\n{'weights':8} {'pairs':>6} {'tokens':>7} {'pairs per CPU-second':>27} {'ratio':>6} {'difference':>11}")
    print(f"{'':23} {'onnxruntime':>18} {'torch':>8}")
    for drop, agreement in ((0.0, 1.0), (1.0, 0.0)):
        settings = Distilling(scheme="esci4", int8_agreement=agreement, int8_drop=drop)
        encoder = settings.encoders[0]
        start_encoder(encoder, judged["train"], settings.length, {}, 0, tmp_path / "start")
        model = load_encoder(tmp_path / "start", "cpu")
        rows: list[Any] = [list(found) for found in pairs.render(rendering_of(encoder))]
        folder = tmp_path / f"agreement-{agreement}"
        export = export_student(model, rendering_of(encoder), settings, scheme, judged["selection"], folder)
        scorer = Scorer(folder)
        score = partial(scorer.score, *texts, batch=BATCH)
        predict = partial(model.predict, rows, batch_size=BATCH, apply_softmax=True, show_progress_bar=False)
        difference = np.abs(score() - predict()).max()
        seconds, torch_seconds = least_times(score, predict, repeats=REPEATS)
        tokens = np.mean([len(found) for found in scorer._encode(scorer._render(*texts))])
        rate, torch_rate = len(pairs) / seconds, len(pairs) / torch_seconds
        print(
            f"{'8-bit' if export.int8_kept else '32-bit':8} {len(pairs):6} {tokens:7.1f} {rate:18,.0f} "
            f"{torch_rate:8,.0f} {rate / torch_rate:6.2f} {difference:11.1e}"
        )
        assert difference < (0.1 if export.int8_kept else 1e-3)
