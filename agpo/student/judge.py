"""Stage: a student, the pairs that measure it and the champion, if there is one → the gate's decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from agpo.artifacts.table import read_table
from agpo.records import Predictions
from agpo.relevance import Scheme, find_scheme
from agpo.settings import StudentJudging
from agpo.stages import Work
from agpo.student.card import report
from agpo.student.examples import Examples, FloatArray, read_judged
from agpo.student.gate import decide
from agpo.student.scorer import Scorer
from agpo.student.scores import StudentScores, label_pairs


def judge(settings: StudentJudging, work: Work) -> dict[str, Any]:
    """Inputs ``student``, ``problems`` and, where there is one, ``champion`` (a student) → ``decision.json``
    (`StudentDecision`) and ``card.md``.

    The student and its baselines come with their predictions on the confirmation pairs; the champion, which may be of
    another night, is scored on these pairs here. ValueError where the student was measured on other pairs than those of
    ``problems``, or where the champion's labels are of another scheme.
    """
    folder = work.inputs["student"]
    scheme = find_scheme(Scorer(folder).scheme)
    confirmation = read_judged(work.inputs["problems"], scheme)["confirmation"]
    probabilities = _read_predictions(folder, confirmation)
    if "champion" in work.inputs:
        probabilities["champion"] = _score_champion(work.inputs["champion"], confirmation, scheme)
    labelled = {name: label_pairs(found, confirmation, scheme) for name, found in probabilities.items()}
    decision = decide(labelled, confirmation.pairs["case"].to_list(), settings, work.seed)
    scores = StudentScores.model_validate_json((folder / "scores.json").read_text(encoding="utf-8"))
    (work.out / "decision.json").write_text(decision.model_dump_json(indent=1), encoding="utf-8")
    (work.out / "card.md").write_text(report(decision, scores, scheme, work.keys), encoding="utf-8")
    metrics = {
        f"student/{name}/macro_f1": found.macro_f1.value for name, found in decision.scores.items() if name != "student"
    }
    metrics |= {
        "student/macro_f1": decision.scores["student"].macro_f1.value,
        "student/ahead": decision.macro_f1.value,
        "student/ahead_lower": decision.macro_f1.lower,
        "student/ahead_upper": decision.macro_f1.upper,
    }
    return {"rows": len(confirmation), "metrics": metrics, "outcome": decision.outcome}


def _read_predictions(folder: Path, confirmation: Examples) -> dict[str, FloatArray]:
    """Probabilities of every model that is known to the student's folder, in the order of the confirmation pairs."""
    table = read_table(folder, "predictions.parquet", Predictions)
    found = {}
    for (model,), rows in table.partition_by("model", as_dict=True).items():
        measured, wanted = set(rows["pair_id"]), set(confirmation.pairs["id"])
        if measured != wanted:
            raise ValueError(
                f"{model} was measured on other pairs than the problems' confirmation split: "
                f"{len(measured - wanted)} of its {len(measured)} pairs are not in the split, "
                f"{len(wanted - measured)} of the split's {len(wanted)} pairs are missing"
            )
        ordered = confirmation.pairs.select(pair_id="id").join(rows, on="pair_id", how="left", maintain_order="left")
        found[str(model)] = np.array(ordered["probabilities"].to_list(), dtype=np.float64)
    return found


def _score_champion(folder: Path, confirmation: Examples, scheme: Scheme) -> FloatArray:
    champion = Scorer(folder)
    if champion.scheme != scheme.name:
        raise ValueError(
            f"the champion's labels are of scheme {champion.scheme}, the student's of {scheme.name}: they cannot be "
            "compared; give the run another family"
        )
    texts = {name: confirmation.pairs[name].to_list() for name in ("query", "title", "attributes")}
    return champion.score(texts["query"], texts["title"], texts["attributes"])
