"""The label stage with a teacher that votes at random."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from transformers import AutoTokenizer

from agpo.artifacts import Files
from agpo.artifacts.table import read_table
from agpo.problems.decisions import apply_decisions
from agpo.records import Labels
from agpo.relevance import find_scheme
from agpo.relevance.answers import Answers
from agpo.relevance.label import label
from agpo.rollout import LocalEngine
from agpo.stages import LABEL, Work
from tests.agpo.relevance.voter import SETTINGS, make_pairs, open_again, open_work, read_bytes, write_voter

PAIRS = 12  # 11 of them unlabelled: 3 shards
FILES = {
    *(f"{kind}-0000{shard}.parquet" for kind in ("labels", "rollouts") for shard in range(3)),
    "audit.csv",
    "agreement.png",
    "quality.json",
}
LABEL_IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
import torch
from agpo.artifacts import Files
from agpo.relevance.label import label
from agpo.stages import Work
from tests.agpo.relevance.voter import SETTINGS

torch.set_num_threads(1)
root, policy = map(Path, sys.argv[1:])
inputs = {"policy": policy, "pairs": root / "pairs"}
keys = {"policy": "a" * 64, "pairs": "b" * 64}
label(SETTINGS.model_copy(update={"shard": 1}), Work(inputs, keys, root / "out", Files(root / "partial"), 0, "cpu"))
"""


@pytest.fixture(scope="module")
def voter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voter(tmp_path_factory.mktemp("voter"))


@pytest.fixture
def work(tmp_path: Path, voter: Path) -> Work:
    return open_work(tmp_path, voter, make_pairs(PAIRS))


def read_all(folder: Path, kind: str, schema: Any) -> pl.DataFrame:
    return pl.concat([read_table(folder, path.name, schema) for path in sorted(folder.glob(f"{kind}-*.parquet"))])


def test_the_stage_names_this_function() -> None:
    assert LABEL.load() is label


def test_votes_become_labels(work: Work) -> None:
    made = label(SETTINGS, work)
    assert {path.name for path in work.out.iterdir()} == FILES
    pairs = make_pairs(PAIRS).filter(pl.col("split") == "unlabelled")
    labels, answers = read_all(work.out, "labels", Labels), read_all(work.out, "rollouts", Answers)
    assert made["rows"] == len(labels) == 11
    assert labels["pair_id"].to_list() == pairs["id"].to_list()
    assert labels.select("query", "title", "attributes", "case").equals(
        pairs.select("query", "title", "attributes", "case")
    )
    assert labels["gold"].to_list() == [gold and gold.removeprefix("esci4:") for gold in pairs["gold"]]
    assert labels["id"].n_unique() == 11
    assert labels["id"].str.contains(r"^label-[0-9a-f]{16}$").all()
    assert set(labels["teacher"]) == {"a" * 64}
    assert labels["rollouts"].to_list() == [f"rollouts-0000{at // 4}.parquet" for at in range(11)]
    letters = [each.letter for each in find_scheme("esci4")]
    for row, votes in zip(labels.iter_rows(named=True), answers["vote"].reshape((11, 6)).to_list(), strict=True):
        assert row["votes"] == [votes.count(letter) for letter in letters]
        assert row["unread"] == votes.count(None)
        most = max(row["votes"])
        assert row["agreement"] == most / 6
        assert row["label"] == (letters[row["votes"].index(most)] if most else None)


def test_an_answer_votes_for_what_it_says_unless_it_was_cut_off(work: Work, voter: Path) -> None:
    label(SETTINGS, work)
    answers = read_all(work.out, "rollouts", Answers)
    assert answers["truncated"].any()
    assert answers.filter("truncated")["vote"].is_null().all()
    whole = answers.filter(~pl.col("truncated"))
    assert set(whole["vote"]) == {"E", "S", "C", "I", None}
    assert whole.group_by("vote").agg(pl.col("response_ids").n_unique())["response_ids"].to_list() == [1] * 5
    tokenizer = AutoTokenizer.from_pretrained(voter)
    texts = [text.strip() for text in tokenizer.batch_decode(whole["response_ids"].to_list(), skip_special_tokens=True)]
    assert whole["vote"].to_list() == [None if text == "x" else text for text in texts]


def test_metrics(work: Work) -> None:
    metrics = label(SETTINGS, work)["metrics"]
    labels, answers = read_all(work.out, "labels", Labels), read_all(work.out, "rollouts", Answers)
    assert metrics.pop("cost/tokens_per_cpu_second") > 0
    assert metrics["label/pairs"] == 11
    assert metrics["label/tokens"] == answers["response_ids"].list.len().sum()
    assert metrics["label/parse_failure_share"] == answers["vote"].null_count() / 66
    judged = answers.join(labels.select("pair_id", "gold"), left_on="problem_id", right_on="pair_id").drop_nulls("gold")
    right = (judged["vote"] == judged["gold"]).fill_null(False).mean()
    assert metrics["label/p_at_1"] == pytest.approx(right)
    again = label(SETTINGS, open_again(work))["metrics"]
    assert again == metrics  # nothing was generated, so no speed


def test_the_audit_queue_has_the_pairs_with_least_agreement(work: Work) -> None:
    label(SETTINGS, work)
    labels = read_all(work.out, "labels", Labels).sort("agreement", "id").head(3)
    with (work.out / "audit.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label_id"] for row in rows] == labels["id"].to_list()
    assert [row["attributes"] for row in rows] == labels["attributes"].to_list()
    assert [row["label"] for row in rows] == [each or "" for each in labels["label"]]
    assert {row["decision"] for row in rows} == {""}
    written = [dict(part.split() for part in row["votes"].split(", ")) for row in rows if row["votes"]]
    assert [sum(map(int, votes.values())) for votes in written] == [sum(v) for v in labels["votes"] if sum(v)]


def test_decisions_written_into_the_audit_queue_are_gold(work: Work) -> None:
    label(SETTINGS, work)
    queue = pl.read_csv(work.out / "audit.csv", infer_schema=False)
    queue.with_columns(decision=pl.Series(["C", None, "exact"])).write_csv(work.out / "decided.csv")
    pairs = make_pairs(PAIRS)
    decided = apply_decisions(pairs, str(work.out / "decided.csv"), find_scheme("esci4"), "plain-v1")
    assert decided.counts == {"read": 3, "empty": 1, "changed": 0, "moved": 2, "added": 0, "quarantined": 0}
    changed = decided.pairs.join(pairs, on="id").filter(pl.col("split") != pl.col("split_right"))
    golds = dict(changed.select("id", "gold").iter_rows())
    assert golds == {queue["pair_id"][0]: "esci4:C", queue["pair_id"][2]: "esci4:E"}
    assert set(changed["split"]) == {"train"}


def test_without_gold_there_is_no_quality(tmp_path: Path, voter: Path) -> None:
    work = open_work(tmp_path, voter, make_pairs(PAIRS, gold=None))
    metrics = label(SETTINGS, work)["metrics"]
    assert {path.name for path in work.out.iterdir()} == FILES - {"quality.json"}
    assert "label/accuracy" not in metrics
    assert "label/p_at_1" not in metrics


def test_gold_is_not_shown_to_the_teacher(tmp_path: Path, voter: Path) -> None:
    answers = []
    for gold in ("esci4:S", "esci4:E", None):
        work = open_work(tmp_path / str(gold), voter, make_pairs(PAIRS, gold))
        label(SETTINGS, work)
        answers.append({name: data for name, data in read_bytes(work.out).items() if name.startswith("rollouts")})
    assert answers[0] == answers[1] == answers[2]


def test_killed_between_any_two_writes(
    work: Work, tmp_path: Path, voter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(SETTINGS, work)
    wanted = read_bytes(work.out)
    write, generate = Files.write, LocalEngine.generate
    generated: list[str] = []

    def count_chunks(engine: LocalEngine, chunk: Any, *args: Any, **kwargs: Any) -> pl.DataFrame:
        generated.append(chunk.problem_ids[0])
        return generate(engine, chunk, *args, **kwargs)

    def fail_after(writes: int) -> Callable[..., None]:
        left = iter(range(writes))

        def write_or_fail(files: Files, name: str, data: bytes) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            write(files, name, data)

        return write_or_fail

    monkeypatch.setattr(LocalEngine, "generate", count_chunks)
    for writes in range(6):
        attempt = open_work(tmp_path / f"killed-{writes}", voter, make_pairs(PAIRS))
        generated.clear()
        monkeypatch.setattr(Files, "write", fail_after(writes))
        with pytest.raises(KeyboardInterrupt):
            label(SETTINGS, attempt)
        monkeypatch.setattr(Files, "write", write)
        before = set(generated[: -1 if writes % 2 == 0 else None])  # the last was lost if its answers were not written
        generated_before = len(generated)
        again = open_again(attempt)
        label(SETTINGS, again)
        assert not before & set(generated[generated_before:]), "no finished shard is generated again"
        assert read_bytes(again.out) == wanted


@pytest.mark.slow
def test_killed_by_the_system(tmp_path: Path, voter: Path) -> None:
    pairs = make_pairs(24)
    whole = open_work(tmp_path / "whole", voter, pairs)
    single = SETTINGS.model_copy(update={"shard": 1})
    label(single, whole)
    work = open_work(tmp_path / "killed", voter, pairs)
    command = [sys.executable, "-c", LABEL_IN_ANOTHER_PROCESS, str(tmp_path / "killed"), str(voter)]
    child = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[3])
    try:
        while len(work.partial.names()) < 5 and child.poll() is None:
            time.sleep(0.001)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "it was killed at work"
    assert 5 <= len(work.partial.names()) < 46
    again = open_again(work)
    label(single, again)
    assert read_bytes(again.out) == read_bytes(whole.out)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("selection", r"no pair in the selection split to label; give more problems\.selection"),
        ("unlabelled", r"no pair in the unlabelled split to label; give label\.path = a file of pairs"),
    ],
)
def test_a_split_without_a_pair(tmp_path: Path, voter: Path, split: str, message: str) -> None:
    work = open_work(tmp_path, voter, make_pairs(PAIRS).filter(pl.col("split") == "train"))
    with pytest.raises(ValueError, match=message):
        label(SETTINGS.model_copy(update={"split": split}), work)


def test_gold_of_another_scheme_is_refused(tmp_path: Path, voter: Path) -> None:
    work = open_work(tmp_path, voter, make_pairs(PAIRS, gold="binary:R"))
    with pytest.raises(ValueError, match=r"pair pair-\w+ has the gold 'binary:R'; accepted: a label of scheme esci4"):
        label(SETTINGS, work)


def test_in_an_object_store_too(work: Work, tmp_path: Path, voter: Path) -> None:
    label(SETTINGS, work)
    other = open_work(tmp_path / "other", voter, make_pairs(PAIRS))
    remote = Work(other.inputs, other.keys, other.out, Files("memory://label-stage-test"), 0, "cpu")
    label(SETTINGS, remote)
    assert read_bytes(remote.out) == read_bytes(work.out)
