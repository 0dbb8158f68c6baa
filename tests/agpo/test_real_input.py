"""Real rows through the whole of a step: prepare → warm start → rollout → math verification → update."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from agpo.settings import FieldMap, FolderBase, RolloutSettings, Supervised, TableProblems, TrainRun, VerifySettings
from tests.agpo.session_start import train_all
from tests.tiny_model import write_tiny_model

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

SOURCES = {
    "gsm8k": TableProblems(path=str(DATA / "gsm8k/train.jsonl.gz"), gold_format="gsm8k"),
    "math": TableProblems(
        path=str(DATA / "math/train.parquet"),
        gold_format="boxed",
        prompt="plain-v1",
        fields=FieldMap(question="prompt.0.content", gold="reward_model.ground_truth.solution"),
    ),
}


def make_run(source: TableProblems, model: Path) -> TrainRun:
    return TrainRun(
        family="test",
        problems=source,
        base=FolderBase(path=str(model), training=Supervised(steps=2, batch=4, rate=1e-3, warm_up=1)),
        rollout=RolloutSettings(problems=3, samples=4, chunk=6, tokens=24, chat_template="model"),
        verify=VerifySettings(workers=1),
        loss={"kl": 0.01, "mask_truncated": False},
        steps=2,
        checkpoint_every=1,
        device="cpu",
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_a_table_of_real_problems_trains_a_model_folder(name: str, tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("shared/data is not beside the checkout")
    session = train_all(make_run(SOURCES[name], write_tiny_model(tmp_path / "model")), tmp_path / "store")

    problems = pl.read_parquet(session.store.fetch(session.problems) / "problems.parquet")
    assert {"train", "selection", "confirmation"} == set(problems["split"].cast(pl.String))
    for step in range(2):
        rollouts, verdicts = session.journal.read_rollouts(step), session.journal.read_verdicts(step)
        assert verdicts is not None
        assert verdicts["id"].to_list() == rollouts["id"].to_list()
        assert len(verdicts) == 12
        assert set(verdicts["verifier"]) == {"math"}
        # Random text is wrong, and whatever it holds, the verifier decides it.
        assert set(verdicts["verdict"].cast(pl.String)) == {"wrong"}
        update = session.journal.read_update(step)
        assert update is not None
        assert update.refused is None
        assert update.metrics["policy/gradient_norm"] > 0
    trained = session.find_published()
    assert trained is not None
    weights = [(session.store.fetch(ref) / "model.safetensors").read_bytes() for ref in (session.base, trained)]
    assert weights[0] != weights[1]
