"""Training of an encoder on soft and hard labels, resumable, by sentence-transformers."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback

from agpo.artifacts import Files
from agpo.learner.policy import save_policy
from agpo.progress import progress
from agpo.settings.distil import Distilling, Encoder
from agpo.stages import Work
from agpo.student.encoder import rendering_of
from agpo.student.examples import Examples, FloatArray
from agpo.student.quiet import quiet_libraries

_POINTER = "checkpoint.json"
_NOT_NEEDED = ("training_args.bin", "README.md")  # for going on


class VoteLoss(nn.Module):
    """Mean over the batch of, for a pair with votes, T² · KL(votes^(1/T) ‖ softmax(logits / T)) (Hinton et al., arXiv
    1503.02531, with votes in the teacher's place), and for a judged pair its weight times the cross-entropy with gold.

    A row's ``label`` is its targets and, last, its weight: 0 where the targets are votes.
    """

    def __init__(self, model: CrossEncoder, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, texts: list[list[str]], labels: list[Tensor], **_: Any) -> dict[str, Tensor]:
        """``texts``: one list a column, as the trainer gives them."""
        logits = read_logits(self.model, list(zip(*texts, strict=True)))
        targets = torch.stack(labels).to(logits.device)
        targets, weight = targets[:, :-1], targets[:, -1]
        softened = nn.functional.normalize(targets ** (1 / self.temperature), p=1, dim=-1)
        student = torch.log_softmax(logits / self.temperature, dim=-1)
        votes = self.temperature**2 * nn.functional.kl_div(student, softened, reduction="none").sum(-1)
        gold = nn.functional.cross_entropy(logits, targets, reduction="none")
        return {"votes": ((weight == 0) * votes).mean(), "gold": (weight * gold).mean()}

    def get_config_dict(self) -> dict[str, Any]:
        return {"temperature": self.temperature}


def train_encoder(
    start: Path, examples: Examples, encoder: Encoder, settings: Distilling, steps: int, work: Work, partial: Files
) -> CrossEncoder:
    """Train the encoder of a folder on examples and return it.

    After every ``epochs``-th part of the steps a checkpoint goes to ``partial``; a killed training continues from the
    last one and ends in the same weights. FloatingPointError where the loss is not finite.
    """
    from datasets import Dataset
    from transformers import set_seed

    training = encoder.training
    model = load_encoder(start, work.device)
    set_seed(work.seed)
    texts = zip(*examples.render(rendering_of(encoder)), strict=True)
    columns = {f"text {place}": list(column) for place, column in enumerate(texts)}
    weights = torch.from_numpy(examples.judged * settings.gold_weight)[:, None]
    labels = torch.cat([torch.from_numpy(examples.targets), weights], dim=1).float()
    with tempfile.TemporaryDirectory(prefix="agpo-student-") as name:
        checkpoint = _fetch_checkpoint(partial, Path(name))
        done = int(checkpoint.name.partition("-")[2]) if checkpoint else 0
        with progress(f"distil {encoder.kind}", steps, "steps", done) as advance:
            trainer = CrossEncoderTrainer(
                model=model,
                args=CrossEncoderTrainingArguments(
                    output_dir=name,
                    max_steps=steps,
                    per_device_train_batch_size=training.batch,
                    learning_rate=training.rate,
                    warmup_steps=training.warm_up,
                    weight_decay=training.weight_decay,
                    seed=work.seed,
                    use_cpu=work.device == "cpu",
                    dataloader_pin_memory=False,
                    save_strategy="steps",
                    save_steps=math.ceil(steps / training.epochs),
                    eval_strategy="no",
                    logging_strategy="no",
                    logging_nan_inf_filter=False,  # else a loss that is not finite would not show
                    report_to="none",
                    disable_tqdm=True,
                ),
                train_dataset=Dataset.from_dict({**columns, "label": labels.tolist()}),
                loss=VoteLoss(model, settings.temperature),
                callbacks=[_Keeper(partial, advance)],
            )
            trainer.remove_callback(PrinterCallback)
            with quiet_libraries():
                result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if not math.isfinite(result.training_loss):
        raise FloatingPointError(
            f"distil: the loss is {result.training_loss} with encoder {encoder.kind} and training.rate = "
            f"{training.rate}; lower it"
        )
    model.eval()
    return model


def read_logits(model: CrossEncoder, texts: Sequence[tuple[str, ...]]) -> Tensor:
    """Logits [pairs, labels] of the one or two texts of each pair."""
    rows: list[Any] = [text[0] if len(text) == 1 else text for text in texts]
    logits: Tensor = model(batch_to_device(model.preprocess(rows), model.device))["scores"]
    return logits


@torch.inference_mode()
def predict(model: CrossEncoder, texts: Sequence[tuple[str, ...]], batch: int = 64) -> FloatArray:
    """Probabilities [pairs, labels]; a batch has pairs in their order."""
    parts = [read_logits(model, texts[start : start + batch]) for start in range(0, len(texts), batch)]
    found: FloatArray = torch.cat(parts).double().softmax(-1).cpu().numpy()
    return found


def load_encoder(folder: Path, device: str) -> CrossEncoder:
    """A folder of `start_encoder`; the most tokens of a pair are its tokenizer's."""
    with quiet_libraries():
        model: CrossEncoder = CrossEncoder(str(folder), device=device, local_files_only=True)
    return model


def save_encoder(model: CrossEncoder, folder: Path) -> None:
    """An ordinary Hugging Face folder: model and tokenizer."""
    tokenizer = model.tokenizer
    tokenizer.backend_tokenizer.no_padding()  # else its file would hold what the last batch set
    tokenizer.backend_tokenizer.no_truncation()
    save_policy(model.transformers_model, tokenizer, folder)


class _Keeper(TrainerCallback):
    """Keeps the trainer's checkpoints in durable space, the last one only."""

    def __init__(self, partial: Files, advance: Callable[[int], None]) -> None:
        self.partial, self.advance = partial, advance

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.advance(1)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        kept = f"checkpoint-{state.global_step}"
        folder = Path(args.output_dir) / kept
        for name in Files(folder).names():
            if name not in _NOT_NEEDED:
                self.partial.copy(folder / name, f"{kept}/{name}")
        self.partial.write(_POINTER, json.dumps(kept).encode())  # written last
        for other in self.partial.folders():
            if other.startswith("checkpoint-") and other != kept:
                self.partial.remove(other)
        shutil.rmtree(folder)


def _fetch_checkpoint(partial: Files, folder: Path) -> Path | None:
    if not partial.exists(_POINTER):
        return None
    kept = json.loads(partial.read(_POINTER))
    partial.get(kept, folder / kept)
    return folder / str(kept)
