"""Sessions that train an adapter: what is kept and published, and that they go on like those that train all weights."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from agpo.artifacts import ArtifactRef, Store
from agpo.journal import Journal, Update
from agpo.learner.policy import LogprobReader, load_policy
from agpo.recipe import Recipe
from agpo.session import Session
from agpo.settings import LearnerSettings, LoraSettings
from tests.agpo.session_start import RUN, Start, open_session, snapshot, start, store, take_step, train
from tests.chaos.crash import Crash, crash_after
from tests.chaos.snapshot import read_files

__all__ = ["open_session", "start", "store"]

LEARNER = LearnerSettings(lora=LoraSettings(rank=4, alpha=8), rate=1e-2)


@pytest.fixture(scope="module")
def trained(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The session of `RUN` with an adapter, after its end."""
    store = Store(shutil.copytree(start.folder, tmp_path_factory.mktemp("undisturbed") / "store"))
    session = Session(RUN.model_copy(update={"learner": LEARNER}), store, start.problems, start.base)
    train(session)
    return session


@torch.no_grad()
def read_answers(session: Session, model: Any) -> Tensor:
    """Log-probs of the last step's answers."""
    rollouts = session.journal.read_rollouts(RUN.steps - 1)
    texts = [torch.tensor([*prompt, *answer]) for prompt, answer in rollouts["prompt_ids", "response_ids"].iter_rows()]
    ids = pad_sequence(texts, batch_first=True)
    starts, ends = (torch.tensor(counts)[:, None] for counts in (rollouts["prompt_ids"].list.len(), [*map(len, texts)]))
    places = torch.arange(ids.shape[1])
    return LogprobReader(model).read(ids, (places >= starts) & (places < ends), 1.0)[0]


def test_the_engine_samples_the_policy_that_is_trained(trained: Session) -> None:
    for update in trained.journal.updates():
        assert update.refused is None
        assert update.metrics["policy/sampler_mismatch_largest"] < 1e-5
        assert update.metrics["policy/gradient_norm"] > 0
    assert update.metrics["policy/kl_to_base"] > 1e-4, "the adapter has moved from its base"


def test_a_checkpoint_holds_the_adapter_alone(trained: Session) -> None:
    assert trained.journal.checkpoints() == [2, 4]
    names = trained.journal.files.names("checkpoints/00000004")
    assert [name.rpartition("/")[2] for name in names] == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.safetensors",
    ]
    with trained.journal.open_checkpoint(4) as (_, folder):
        assert all("lora_" in name for name in load_file(folder / "optimizer.safetensors"))


def test_the_published_policy_is_the_base_with_the_adapter_beside_it(trained: Session) -> None:
    from peft import PeftModel

    ref = trained.find_published()
    assert ref is not None
    folder, base = trained.store.fetch(ref), trained.store.fetch(trained.base)
    assert set(read_files(trained.store.content(ref))) - set(read_files(trained.store.content(trained.base))) == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    merged, _ = load_policy(folder, "cpu")
    plain, _ = load_policy(base, "cpu")
    adapted = PeftModel.from_pretrained(load_policy(base, "cpu")[0], str(folder / "adapter")).get_base_model()
    found, expected, before = (read_answers(trained, model) for model in (merged, adapted, plain))
    assert (found - expected).abs().max() < 1e-5
    assert (found - before).abs().max() > 1e-2


@pytest.mark.parametrize("parts", [2, 3, 5, 8, 10])
def test_a_run_goes_on_where_it_was_left(parts: int, open_session: Callable[..., Session], trained: Session) -> None:
    """Left after ``parts`` parts of steps."""
    with open_session(learner=LEARNER) as session:
        for part in range(parts):
            (session.generate, session.verify, session.update)[part % 3](part // 3)
    session = open_session(learner=LEARNER)
    train(session)
    assert snapshot(session) == snapshot(trained)


def test_a_run_that_crashes_again_and_again_ends_the_same(
    open_session: Callable[..., Session], trained: Session
) -> None:
    draw, crashes = random.Random(0), 0
    while True:
        session = open_session(learner=LEARNER)
        try:
            with crash_after(draw.randint(1, 12), mlflow=False):
                train(session)
            break
        except Crash:
            crashes += 1
    assert snapshot(session) == snapshot(trained)
    assert crashes > 3


def train_and_be_killed(folder: Path, problems: ArtifactRef, base: ArtifactRef) -> None:
    """After the weights have moved in a step that no checkpoint follows, before it is journalled."""
    write = Journal.write_update

    def write_or_be_killed(journal: Journal, step: int, *arguments: Any) -> Update:
        if step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(journal, step, *arguments)

    Journal.write_update = write_or_be_killed  # type: ignore[method-assign]
    train(Session(RUN.model_copy(update={"learner": LEARNER}), Store(folder), problems, base))


def test_killed_in_a_step_it_ends_the_same(
    open_session: Callable[..., Session], store: Store, start: Start, tmp_path: Path, trained: Session
) -> None:
    session = open_session(learner=LEARNER)
    attempt = multiprocessing.get_context("spawn").Process(
        target=train_and_be_killed, args=(tmp_path / "store", start.problems, start.base)
    )
    attempt.start()
    attempt.join()
    assert attempt.exitcode == -signal.SIGKILL
    assert session.remaining() == range(2, 4)
    train(session)
    assert snapshot(session) == snapshot(trained)


def test_a_refused_update_leaves_the_adapter(open_session: Callable[..., Session]) -> None:
    guards = LEARNER.guards.model_copy(update={"kl": 1e-9})
    session = open_session(learner=LEARNER.model_copy(update={"guards": guards}))
    with session:
        take_step(session, 0)
        (update,) = session.journal.updates()
        assert update.refused is not None and "learner.guards.kl" in update.refused
        assert session._live is not None and session._live.adapter is not None
        weights = dict(session._live.model.named_parameters())
        assert all(not weights[name].any() for name in weights if "lora_B" in name)
        take_step(session, 1)
        *_, update = session.journal.updates()
        assert update.metrics["policy/sampler_mismatch_largest"] < 1e-5


def test_no_step_is_the_base(open_session: Callable[..., Session], store: Store, start: Start) -> None:
    result = train(open_session(steps=0, learner=LEARNER))
    assert read_files(store.content(result.ref)) == read_files(store.content(start.base))


@pytest.mark.parametrize("learner", [LEARNER, LearnerSettings()])
def test_no_step_on_a_policy_that_was_an_adapter_is_that_policy(trained: Session, learner: LearnerSettings) -> None:
    base = train(trained).ref
    run = RUN.model_copy(update={"learner": learner, "steps": 0})
    result = train(Session(run, trained.store, trained.problems, base))
    published = read_files(trained.store.content(base))
    assert read_files(trained.store.content(result.ref)) == {
        name: content for name, content in published.items() if not name.startswith("adapter/")
    }


def test_an_adapter_is_part_of_the_key_and_its_absence_is_not() -> None:
    plain = RUN.what_training_depends_on()
    assert "lora" not in plain["learner"]
    keys = {
        Recipe(RUN.model_copy(update={"learner": LearnerSettings(lora=lora)})).train_key("p", "b")
        for lora in (None, LoraSettings(), LoraSettings(rank=8), LoraSettings(alpha=8), LoraSettings(targets=("a",)))
    }
    assert len(keys) == 5
    assert LoraSettings(targets=("b", "a", "b")) == LoraSettings(targets=("a", "b"))


def test_a_target_that_the_model_lacks_is_named_before_anything_is_sampled(
    open_session: Callable[..., Session],
) -> None:
    session = open_session(learner=LearnerSettings(lora=LoraSettings(targets=("q_proj", "query"))))
    with pytest.raises(
        ValueError, match=r"learner\.lora\.targets: .* no linear map query; accepted: down_proj, .*q_proj"
    ):
        session.generate(0)
    assert not session.journal.files.names("steps")
