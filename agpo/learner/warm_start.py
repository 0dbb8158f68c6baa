"""The base policy: made from scratch on demonstrations, or an existing model, optionally trained on gold first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from agpo.learner.hub import download_model
from agpo.learner.policy import copy_policy, load_policy, make_model, save_policy
from agpo.learner.supervised import train_supervised
from agpo.problems import encode_prompts, encode_texts
from agpo.settings import CountdownProblems, FolderBase, ScratchBase, WarmStart
from agpo.stages import Work


def warm_start(settings: WarmStart, work: Work) -> dict[str, Any]:
    """Stage: problems → base policy, an ordinary Hugging Face folder."""
    problems = work.inputs["problems"]
    base = settings.base
    if isinstance(base, ScratchBase):
        from agpo.problems.tokenizer import countdown_tokenizer

        assert isinstance(settings.problems, CountdownProblems)  # refused when settings load
        tokenizer = countdown_tokenizer(settings.problems)
        pairs = pl.read_parquet(problems / "demonstrations.parquet")
        prompts, responses = _encode(tokenizer, pairs, settings.chat_template)
        longest = max(map(len, prompts)) + max(settings.tokens, *map(len, responses))
        model = make_model(base.model, tokenizer, positions=longest, seed=work.seed).to(work.device)
    else:
        folder = Path(base.path) if isinstance(base, FolderBase) else download_model(base)
        if base.training is None or not base.training.steps:
            copy_policy(folder, work.out)
            return {"rows": 1, "metrics": {}}
        model, tokenizer = load_policy(folder, work.device)
        prompts, responses = _encode(tokenizer, _gold_pairs(problems), settings.chat_template)
    metrics = train_supervised(model, tokenizer, prompts, responses, base.training, work.seed, work.partial)
    save_policy(model, tokenizer, work.out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"rows": parameters, "metrics": {"warm_start/parameters": float(parameters), **metrics}}


def _encode(tokenizer: Any, pairs: pl.DataFrame, chat_template: str) -> tuple[list[list[int]], list[list[int]]]:
    prompts = encode_prompts(tokenizer, pairs["prompt"].to_list(), chat_template)
    responses = encode_texts(tokenizer, pairs["response"].to_list(), special_tokens=False)
    return prompts, [[*ids, tokenizer.eos_token_id] for ids in responses]


def _gold_pairs(problems: Path) -> pl.DataFrame:
    """Worked answers where the source has them, else the bare gold of the training problems."""
    file = problems / "demonstrations.parquet"
    if file.is_file():
        return pl.read_parquet(file)
    rows = pl.read_parquet(problems / "problems.parquet").filter(pl.col("split") == "train")
    return rows.select("prompt", response="gold")
