"""The shop through prepare, warm start and training, and the profile that does it at full size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from agpo.artifacts.table import read_table
from agpo.problems import encode_texts
from agpo.problems.prepare import prepare
from agpo.problems.shop import generate_shop
from agpo.problems.tokenizer import shop_tokenizer
from agpo.profile import load_settings
from agpo.records import Pairs
from agpo.settings import (
    FolderBase,
    ModelShape,
    NightlyRun,
    RolloutSettings,
    ScratchBase,
    ShopProblems,
    Supervised,
    TableProblems,
    TrainRun,
    VerifySettings,
)
from agpo.stages import Work
from tests.agpo.session_start import train_all

SMALL = ShopProblems(train=40, selection=10, confirmation=12, unlabelled=20, demonstrations=300)
RUN = TrainRun(
    family="shop",
    problems=SMALL,
    base=ScratchBase(
        model=ModelShape(width=16, layers=1, heads=2, feed_forward=32),
        training=Supervised(steps=6, batch=16, warm_up=1),
    ),
    rollout=RolloutSettings(problems=4, samples=4, chunk=16, tokens=23),
    verify=VerifySettings(workers=1),
    steps=2,
    checkpoint_every=2,
    device="cpu",
)


def test_prepare_writes_problems_pairs_and_demonstrations(work: Work, tmp_path: Path) -> None:
    made = prepare(SMALL, work)
    assert made["rows"] == 62
    metrics = made["metrics"]
    assert metrics["problems/train_plain"] + metrics["problems/train_hard"] == 40
    assert metrics["problems/demonstrations"] == 300
    assert read_table(work.out, "pairs.parquet", Pairs).equals(generate_shop(SMALL, 0).pairs)
    again = replace(work, out=tmp_path / "again")
    again.out.mkdir()
    prepare(SMALL, again)
    names = {path.name for path in work.out.iterdir()}
    assert names == {
        "problems.parquet", "pairs.parquet", "demonstrations.parquet", "quarantine.parquet", "receipt.json"
    }  # fmt: skip
    assert all((work.out / name).read_bytes() == (again.out / name).read_bytes() for name in names)


def test_a_teacher_trains_from_scratch(tmp_path: Path) -> None:
    session = train_all(RUN, tmp_path / "store")
    verdicts = session.journal.read_verdicts(1)
    assert verdicts is not None
    assert set(verdicts["verifier"]) == {"label"}
    assert set(verdicts["verdict"].cast(pl.String)) <= {"correct", "wrong"}
    assert session.find_published() is not None


def test_the_profile_is_complete() -> None:
    settings = load_settings(NightlyRun, "shop", [], {})
    assert isinstance(settings.problems, ShopProblems)
    assert isinstance(settings.base, ScratchBase)
    assert settings.base.training.steps * settings.base.training.batch <= 1.1 * settings.problems.demonstrations
    assert max(settings.evaluate.ks) == 4  # a guesser is right within 8 samples nine times out of ten
    assert settings.evaluate.samples >= 4 * max(settings.evaluate.ks)


def test_the_longest_answer_fits() -> None:
    settings = load_settings(NightlyRun, "shop", [], {})
    few = ShopProblems(train=1, selection=1, confirmation=1, unlabelled=0, demonstrations=10_000)
    responses = generate_shop(few, 0).demonstrations["response"].to_list()
    encoded = encode_texts(shop_tokenizer(), responses, special_tokens=False)
    longest = max(map(len, encoded)) + 1  # the end
    assert longest == settings.rollout.tokens


def test_a_base_from_scratch_needs_demonstrations() -> None:
    with pytest.raises(ValidationError, match=r"needs generated problems \(countdown, shop\), not problems.*table"):
        TrainRun(problems=TableProblems(path="rows.jsonl"), base=ScratchBase())
    assert TrainRun(problems=SMALL, base=FolderBase(path="model")).problems == SMALL
