"""The base policy: made from scratch on demonstrations, or an existing model, optionally trained on gold first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from agpo.learner.hub import download_model
from agpo.learner.pairs import encode_pairs
from agpo.learner.policy import copy_policy, load_policy, make_model, save_policy
from agpo.learner.supervised import train_supervised
from agpo.settings import FolderBase, GeneratedProblems, ScratchBase, WarmStart
from agpo.stages import Work


def warm_start(settings: WarmStart, work: Work) -> dict[str, Any]:
    """Stage: problems → base policy, an ordinary Hugging Face folder."""
    problems = work.inputs["problems"]
    base, training = settings.base, settings.base.training
    if isinstance(base, ScratchBase):
        from agpo.problems.tokenizer import make_tokenizer

        assert isinstance(settings.problems, GeneratedProblems)  # refused when settings load
        training, tokenizer = base.training, make_tokenizer(settings.problems)
        pairs = encode_pairs(tokenizer, _read_demonstrations(problems), settings.chat_template)
        response = max(settings.tokens, int((pairs.lengths - pairs.prompts).max()))
        positions = int(pairs.prompts.max()) + response
        model = make_model(base.model, tokenizer, positions, seed=work.seed).to(work.device)
    else:
        folder = Path(base.path) if isinstance(base, FolderBase) else download_model(base)
        if training is None or not training.steps:
            copy_policy(folder, work.out)
            return {"rows": 1, "metrics": {}}
        model, tokenizer = load_policy(folder, work.device)
        pairs = encode_pairs(tokenizer, _gold_pairs(problems), settings.chat_template)
    metrics = train_supervised(model, tokenizer, pairs, training, work.seed, work.partial)
    save_policy(model, tokenizer, work.out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"rows": parameters, "metrics": {"warm_start/parameters": float(parameters), **metrics}}


def _gold_pairs(problems: Path) -> pl.DataFrame:
    """Worked answers where the source has them, else the bare gold of the training problems."""
    if (problems / "demonstrations.parquet").is_file():
        return _read_demonstrations(problems)
    rows = pl.read_parquet(problems / "problems.parquet").filter(pl.col("split") == "train")
    return rows.select("prompt", response="gold")


def _read_demonstrations(problems: Path) -> pl.DataFrame:
    return pl.read_parquet(problems / "demonstrations.parquet", columns=["prompt", "response"])
