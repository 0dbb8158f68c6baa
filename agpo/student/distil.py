"""Stage: labels and judged pairs → a student: trained, calibrated, exported, and measured beside its baselines."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from agpo.artifacts.table import write_table
from agpo.records import Predictions
from agpo.relevance import Scheme, compare_macro_f1, find_scheme, score_labels
from agpo.settings.distil import Distilling, Encoder
from agpo.stages import Work
from agpo.student.baselines import predict_baselines
from agpo.student.calibration import cool, fit_temperature, measure_calibration
from agpo.student.encoder import rendering_of, start_encoder
from agpo.student.examples import Examples, FloatArray, read_judged, read_voted, split_queries
from agpo.student.scores import StudentScores, label_pairs, macro_f1

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

STUDENT, GOLD_ONLY = "student", "gold_only"


def distil(settings: Distilling, work: Work) -> dict[str, Any]:
    """Write a student's folder (`agpo.student.scorer`), the encoder that it was exported from, ``predictions.parquet``
    (`records.Predictions`), ``scores.json`` (`StudentScores`) and pictures.

    Learns from ``labels`` where they are given and from the judged training pairs. The selection pairs' queries are
    halved: one half chooses the encoder, the other the temperature. The confirmation pairs only measure. Finished
    encoders and the last checkpoint of an unfinished one are durable: a killed distillation goes on from them.
    """
    from agpo.student.export import export_student, score, set_temperature
    from agpo.student.figures import draw_figures
    from agpo.student.training import predict

    scheme = find_scheme(settings.scheme)
    judged = read_judged(work.inputs["problems"], scheme)
    gold, selection, confirmation = (_need(judged, split) for split in ("train", "selection", "confirmation"))
    examples = learnt = gold
    if "labels" in work.inputs:
        learnt = gold if settings.gold_weight else gold.select(np.zeros(len(gold), dtype=bool))
        examples = read_voted(work.inputs["labels"], scheme, judged) + learnt
    elif not settings.gold_weight:
        raise ValueError("distil.gold_weight = 0 and no labels leave nothing to learn; accepted: above 0, or labels")
    choosing, calibrating = split_queries(selection)
    if not len(calibrating):
        raise ValueError("the selection pairs have one query; one chooses and one calibrates: raise problems.selection")

    choice: dict[str, float] = {}
    for encoder, name in zip(settings.encoders, _names(settings.encoders), strict=True):
        candidate = _train(name, encoder, examples, len(examples), settings, work)
        choice[name] = macro_f1(predict(candidate, choosing.render(rendering_of(encoder))), choosing, scheme)
        if name == max(choice, key=choice.__getitem__):  # of equals the first
            chosen, best, model = name, encoder, candidate

    export = export_student(model, rendering_of(best), settings, scheme, selection, work.out)
    temperature = fit_temperature(score(work.out, calibrating), calibrating.levels)
    set_temperature(work.out, temperature)
    student = score(work.out, confirmation)
    found = {STUDENT: student, **predict_baselines(gold, confirmation)}
    if len(examples) > len(learnt) > 0:
        lone = _train(GOLD_ONLY, best, gold, len(examples), settings, work)
        found[GOLD_ONLY] = predict(lone, confirmation.render(rendering_of(best)))

    cases = confirmation.pairs["case"].to_list()
    labelled = {name: label_pairs(probabilities, confirmation, scheme) for name, probabilities in found.items()}
    scores = StudentScores(
        encoder=chosen,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        labelled_pairs=len(examples) - len(learnt),
        gold_pairs=len(learnt),
        choice=choice,
        models={name: score_labels(labels, cases) for name, labels in labelled.items()},
        ahead={
            name: compare_macro_f1(labelled[STUDENT], labels) for name, labels in labelled.items() if name != STUDENT
        },
        temperature=temperature,
        calibration=measure_calibration(student, confirmation.levels),
        uncalibrated=measure_calibration(cool(student, 1 / temperature), confirmation.levels),
        export=export,
    )
    predictions = pl.concat([_tabulate(name, found[name], confirmation, scheme) for name in found])
    write_table(work.out, "predictions.parquet", predictions, Predictions)
    (work.out / "scores.json").write_text(scores.model_dump_json(indent=1), encoding="utf-8")
    draw_figures(scores, student, confirmation.levels, work.out)
    return {"rows": len(examples), "metrics": _describe(scores)}


def _need(judged: dict[str, Examples], split: str) -> Examples:
    if not len(judged[split]):
        raise ValueError(f"there is no judged pair in the {split} split; raise problems.{split}")
    return judged[split]


def _names(encoders: Sequence[Encoder]) -> list[str]:
    """Their kinds, numbered where one stands twice."""
    kinds = [encoder.kind for encoder in encoders]
    return [
        kind if kinds.count(kind) == 1 else f"{kind}-{kinds[: at + 1].count(kind)}" for at, kind in enumerate(kinds)
    ]


def _train(
    name: str, encoder: Encoder, examples: Examples, passes: int, settings: Distilling, work: Work
) -> CrossEncoder:
    """The trained encoder, from durable space where it is finished.

    ``passes``: pairs of one epoch; fewer examples are repeated, so that all encoders of a kind take as many steps.
    """
    from agpo.student.training import load_encoder, save_encoder, train_encoder

    kept = work.partial.child(name)
    with tempfile.TemporaryDirectory(prefix="agpo-student-") as folder:
        start, trained = Path(folder, "start"), Path(folder, "trained")
        if not kept.exists("finished"):
            start_encoder(encoder, examples, settings.length, work.inputs, work.seed, start)
            steps = encoder.training.epochs * math.ceil(passes / encoder.training.batch)
            save_encoder(train_encoder(start, examples, encoder, settings, steps, work, kept), trained)
            kept.put(trained, "trained")
            kept.write("finished", b"")  # written last
        kept.get("trained", trained)
        return load_encoder(trained, work.device)


def _tabulate(model: str, probabilities: FloatArray, examples: Examples, scheme: Scheme) -> pl.DataFrame:
    letters = [label.letter for label in scheme]
    return Predictions.cast(
        examples.pairs.select(
            pl.lit(model).alias("model"),
            pl.col("id").alias("pair_id"),
            "query_id",
            "case",
            pl.Series("gold", [letters[level] for level in examples.levels]),
            pl.Series("label", [letters[level] for level in probabilities.argmax(axis=1)]),
            pl.Series("probabilities", probabilities.tolist()),
        )
    )


def _describe(scores: StudentScores) -> dict[str, float]:
    student = scores.models[STUDENT]
    metrics = {
        "student/macro_f1": student.macro_f1.value,
        "student/accuracy": student.accuracy.value,
        "student/pairs": float(scores.labelled_pairs + scores.gold_pairs),
        "student/parameters": float(scores.parameters),
        "student/temperature": scores.temperature,
        "student/ece": scores.calibration.ece,
        "student/ece_uncalibrated": scores.uncalibrated.ece,
        "student/brier": scores.calibration.brier,
        "student/aurc": scores.calibration.aurc,
        "student/int8_kept": float(scores.export.int8_kept),
        "student/int8_agreement": scores.export.int8_agreement,
        "student/bytes": float(scores.export.bytes),
    }
    metrics |= {f"student/{name}/macro_f1": scores.models[name].macro_f1.value for name in scores.ahead}
    metrics |= {f"student/encoder/{name}/macro_f1": value for name, value in scores.choice.items()}
    return metrics | {f"student/case/{case}": share for case, share in student.by_case.items()}
