from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from agpo.artifacts.table import write_table
from agpo.records import Annotations, Rollouts
from agpo.verify import VerifierPool
from agpo.verify.review import read_annotations
from agpo.verify.rollouts import audit_rollouts, verify_rollouts

TEXTS = ["\\boxed{7}", "\\boxed{8}", "\\boxed{7 apples}", "no idea"]


class Words:
    """Token ``i`` is the whole text ``i``."""

    def batch_decode(self, rows: list[list[int]], skip_special_tokens: bool) -> list[str]:
        return [TEXTS[row[0]] for row in rows]


def problems(verifier: str = "math") -> pl.DataFrame:
    return pl.DataFrame({"id": ["a", "b"], "gold": ["7", "8"], "verifier": [verifier, verifier]})


def rollouts() -> pl.DataFrame:
    answers = [(problem, token) for problem in ("a", "b") for token in range(len(TEXTS))]
    return pl.DataFrame(
        {
            "id": [f"0/{problem}/{token}" for problem, token in answers],
            "problem_id": [problem for problem, _ in answers],
            "sample": [token for _, token in answers],
            "prompt_ids": [[1]] * len(answers),
            "response_ids": [[token] for _, token in answers],
            "logprobs": [[-0.1]] * len(answers),
            "truncated": [False] * len(answers),
            "policy": ["p"] * len(answers),
            "seed": [0] * len(answers),
        },
        schema=Rollouts.create_empty().schema,
    )


@pytest.fixture(scope="module")
def pool() -> VerifierPool:
    return VerifierPool(1, 5.0, 1024)


def test_people_decide_in_the_place_of_the_verifier(pool: VerifierPool, tmp_path: Path) -> None:
    plain = verify_rollouts(rollouts(), problems(), Words(), pool)
    assert dict(plain.select("id", "verdict").iter_rows())["0/b/0"] == "wrong"
    decided = pl.DataFrame(
        [{"problem_id": "b", "gold": "8", "extracted": "7", "decision": "correct"}],
        schema=Annotations.create_empty().schema,
    )
    write_table(tmp_path, "decided.parquet", decided, Annotations)
    annotations = read_annotations(str(tmp_path / "decided.parquet"))
    changed = verify_rollouts(rollouts(), problems(), Words(), pool, annotations=annotations)
    differing = plain.filter(plain["verdict"] != changed["verdict"])
    assert differing["id"].to_list() == ["0/b/0"]
    assert changed.filter(pl.col("id") == "0/b/0")["verifier"].item() == "annotation"
    assert read_annotations("") is None


def test_an_audit_reads_a_sample_again(pool: VerifierPool) -> None:
    verdicts = verify_rollouts(rollouts(), problems(), Words(), pool)
    audit = audit_rollouts(rollouts(), verdicts, problems(), Words(), sample=6, seed=0)
    assert audit is not None
    assert audit.disagreement.cases == 6
    forged = verdicts.with_columns(
        verdict=pl.when(pl.col("id") == "0/a/0").then(pl.lit("wrong")).otherwise(pl.col("verdict").cast(pl.String))
    )
    found = audit_rollouts(rollouts(), forged, problems(), Words(), sample=8, seed=0)
    assert found is not None
    assert "0/a/0" in found.disagreements["id"].to_list()
    assert found.metrics()["verify/false_negative_rate"] > 0


def test_there_is_no_audit_of_other_verifiers(pool: VerifierPool) -> None:
    verdicts = verify_rollouts(rollouts(), problems("countdown"), Words(), pool)
    assert audit_rollouts(rollouts(), verdicts, problems("countdown"), Words(), sample=8, seed=0) is None
    mathematical = verify_rollouts(rollouts(), problems(), Words(), pool)
    assert audit_rollouts(rollouts(), mathematical, problems(), Words(), sample=0, seed=0) is None
