from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from agpo.learner import supervised
from agpo.learner.policy import load_policy, save_policy
from agpo.learner.warm_start import warm_start
from agpo.problems.countdown import generate_countdown
from agpo.settings import (
    CountdownProblems,
    FolderBase,
    HubBase,
    ModelShape,
    ScratchBase,
    Supervised,
    TableProblems,
    WarmStart,
)
from agpo.stages import WARM_START
from tests.agpo.learner.conftest import MakeWork
from tests.agpo.learner.models import tiny_model

COUNTDOWN = CountdownProblems(numbers=2, highest=5, largest=10, train=8, selection=2, confirmation=2, demonstrations=60)
SHAPE = ModelShape(width=16, layers=1, heads=2, feed_forward=24)
TRAINING = Supervised(steps=12, batch=8, rate=0.01, warm_up=2)


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def scratch(**changes: Any) -> WarmStart:
    base = ScratchBase(model=SHAPE, training=TRAINING.model_copy(update=changes))
    return WarmStart(problems=COUNTDOWN, base=base, chat_template="none", tokens=6)


def on(base: FolderBase | HubBase) -> WarmStart:
    return WarmStart(problems=TableProblems(path="rows.jsonl"), base=base, chat_template="none", tokens=6)


@pytest.fixture
def countdown(tmp_path: Path) -> Path:
    """The problems artifact of a small Countdown."""
    folder = tmp_path / "countdown"
    folder.mkdir()
    for name, table in zip(("problems", "demonstrations"), generate_countdown(COUNTDOWN, seed=0), strict=True):
        table.write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture
def rows(tmp_path: Path, doubling: pl.DataFrame) -> Path:
    """The problems artifact of rows with worked answers, whose held-out problems have another gold."""
    folder = tmp_path / "rows"
    folder.mkdir()
    doubling.write_parquet(folder / "demonstrations.parquet")
    train = doubling.select("id", "prompt", gold="response").with_columns(split=pl.lit("train"))
    train.vstack(train.with_columns(gold=pl.lit("9 9 9 9"), split=pl.lit("selection"))).write_parquet(
        folder / "problems.parquet"
    )
    return folder


@pytest.fixture
def model_folder(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    save_policy(tiny_model("llama", torch.float32, width=32), tokenizer, tmp_path / "model")
    return tmp_path / "model"


def test_the_stage_names_this_function() -> None:
    assert WARM_START.load() is warm_start


class TestScratch:
    def test_makes_a_policy_for_the_problems(self, countdown: Path, make_work: MakeWork) -> None:
        work = make_work(problems=countdown)
        made = warm_start(scratch(), work)
        model, tokenizer = load_policy(work.out, "cpu")
        assert made["rows"] == sum(parameter.numel() for parameter in model.parameters())
        assert made["metrics"]["supervised/steps"] == 12
        assert made["metrics"]["warm_start/parameters"] == made["rows"]
        assert tokenizer.decode(tokenizer("3 4 : 7")["input_ids"]) == "<bos> 3 4 : 7"
        assert model.config.max_position_embeddings == 5 + 6  # <bos> a b : t, and a + b = t <eos>

    def test_leaves_room_for_the_longest_answer(self, countdown: Path, make_work: MakeWork) -> None:
        work = make_work(problems=countdown)
        warm_start(scratch(steps=0).model_copy(update={"tokens": 20}), work)
        assert load_policy(work.out, "cpu")[0].config.max_position_embeddings == 5 + 20

    def test_gives_the_same_bytes_every_time(self, countdown: Path, make_work: MakeWork) -> None:
        works = [make_work(problems=countdown) for _ in range(2)]
        for work in works:
            warm_start(scratch(), work)
        assert read_folder(works[0].out) == read_folder(works[1].out)

    def test_after_a_kill_it_ends_in_the_same_bytes(
        self, countdown: Path, make_work: MakeWork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, killed, again = (make_work(problems=countdown) for _ in range(3))
        warm_start(scratch(), whole)
        assert not whole.partial.exists("checkpoint.json")
        monkeypatch.setattr(supervised, "_CHECKPOINT_EVERY", 5)
        with monkeypatch.context() as patch:
            schedule = supervised._schedule
            patch.setattr(supervised, "_schedule", lambda step, settings: schedule(step, settings) / (step < 8))
            with pytest.raises(ZeroDivisionError):
                warm_start(scratch(), killed)
        assert killed.partial.exists("checkpoint.json")
        assert not list(killed.out.iterdir())
        warm_start(scratch(), again)
        assert read_folder(again.out) == read_folder(whole.out)


class TestFolder:
    def test_without_training_is_copied_as_it_is(self, rows: Path, model_folder: Path, make_work: MakeWork) -> None:
        (model_folder / "modeling.py").write_text("raise RuntimeError")
        for training in (None, TRAINING.model_copy(update={"steps": 0})):
            work = make_work(problems=rows)
            warm_start(on(FolderBase(path=str(model_folder), training=training)), work)
            expected = read_folder(model_folder)
            del expected["modeling.py"]
            assert read_folder(work.out) == expected

    def test_is_trained_on_worked_answers(self, rows: Path, model_folder: Path, make_work: MakeWork) -> None:
        assert self.train(rows, model_folder, make_work) < 0.5

    def test_is_trained_on_the_gold_of_the_training_split(
        self, rows: Path, model_folder: Path, make_work: MakeWork
    ) -> None:
        (rows / "demonstrations.parquet").unlink()
        assert self.train(rows, model_folder, make_work) < 0.5

    def train(self, rows: Path, model_folder: Path, make_work: MakeWork) -> float:
        """Loss on the pairs to learn after some steps."""
        before, work = read_folder(model_folder), make_work(problems=rows)
        training = Supervised(steps=150, batch=20, rate=0.01, warm_up=10)
        metrics = warm_start(on(FolderBase(path=str(model_folder), training=training)), work)["metrics"]
        assert read_folder(model_folder) == before
        model, tokenizer = load_policy(work.out, "cpu")
        ids = torch.tensor(
            [tokenizer("3 7")["input_ids"] + tokenizer("3 3 7 7", add_special_tokens=False)["input_ids"]]
        )
        predicted = model(input_ids=ids).logits.argmax(-1)[0, 2:]
        assert tokenizer.decode(predicted) == "3 3 7 7 <eos>"
        return float(metrics["supervised/loss"])

    def test_without_weights_that_are_read_is_refused(
        self, rows: Path, model_folder: Path, make_work: MakeWork
    ) -> None:
        (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
        with pytest.raises(FileNotFoundError, match=r"holds no \.safetensors weights"):
            warm_start(on(FolderBase(path=str(model_folder))), make_work(problems=rows))

    def test_without_pairs_to_learn_from_is_refused(self, rows: Path, model_folder: Path, make_work: MakeWork) -> None:
        (rows / "demonstrations.parquet").unlink()
        table = pl.read_parquet(rows / "problems.parquet")
        table.filter(pl.col("split") != "train").write_parquet(rows / "problems.parquet")
        with pytest.raises(ValueError, match=r"base\.training: the training problems have no answer"):
            warm_start(on(FolderBase(path=str(model_folder), training=TRAINING)), make_work(problems=rows))


def test_a_model_of_the_hub_comes_from_its_local_copy(
    rows: Path, model_folder: Path, make_work: MakeWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(model_folder))
    work = make_work(problems=rows)
    warm_start(on(HubBase(model="owner/model", revision="0" * 40)), work)
    assert read_folder(work.out) == read_folder(model_folder)


def test_a_hub_without_network_is_a_connection_error(rows: Path, make_work: MakeWork) -> None:
    with pytest.raises(ConnectionError, match=r"base\.model = 'owner/model'"):
        warm_start(on(HubBase(model="owner/model")), make_work(problems=rows))
