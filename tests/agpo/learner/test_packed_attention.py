from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from agpo.learner import packed_attention
from agpo.learner.packed import PackedRows, pack_padded
from agpo.learner.packed_attention import NotByRows, PackedModel, RowLayout, attend_rows
from agpo.learner.policy import LogprobReader
from agpo.learner.update import Learner
from tests.agpo.learner.models import dense_logprobs, exact, random_rows, tiny_model
from tests.agpo.learner.test_update import FREE, TEMPERATURE, WITH_ALL, assert_equal, gradients, make, reorder

LENGTHS = [(3, 9), (1, 6), (5, 1), (2, 20), (1, 1)]
PACKED = ["llama-biased", "qwen2", "qwen3", "mistral-window", "gpt2", "gpt_neox", "opt", "gemma3_text"]


def read_both(reader: LogprobReader) -> list[list[Tensor]]:
    """Log-probs, entropies and every gradient of their weighted sum: packed, then padded."""
    assert reader.packed is not None
    ids, chosen = random_rows(LENGTHS)
    parameters = list(reader.model.parameters())
    found = []
    for packed in (reader.packed, None):
        reader.packed = packed
        values = reader.read(ids, chosen, TEMPERATURE)
        factors = torch.randn(2, int(chosen.sum()), dtype=values[0].dtype, generator=torch.Generator().manual_seed(1))
        found.append([*values, *torch.autograd.grad(values, parameters, tuple(factors))])
    return found


@pytest.mark.parametrize(("kind", "width"), [*((kind, 16) for kind in PACKED), ("llama", 264)])
def test_values_and_every_gradient_are_those_of_padded_rows(kind: str, width: int) -> None:
    packed, padded = read_both(LogprobReader(exact(tiny_model(kind, width=width))))
    assert_equal(packed, padded)


@pytest.mark.parametrize("kind", ["qwen3", "mistral-window"])
@settings(max_examples=8, deadline=None)
@given(tokens=st.integers(1, 80), data=st.data())
def test_gradients_do_not_depend_on_micro_batches_or_row_order(kind: str, tokens: int, data: st.DataObject) -> None:
    def learner_of(tokens: int) -> Learner:
        model, reference = (exact(tiny_model(kind, seed=seed)) for seed in (0, 1))
        learner = Learner(
            model, reference, WITH_ALL, FREE.model_copy(update={"micro_tokens": tokens}), TEMPERATURE, seed=0
        )
        assert not learner.policy.padded
        return learner

    batch = make()
    order = data.draw(st.permutations(range(len(batch))))
    assert_equal(gradients(learner_of(tokens), reorder(batch, order)), gradients(learner_of(1000), batch))


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("gemma2", id="scores with a cap"),
        pytest.param("gpt_oss", id="sinks"),
        pytest.param("lfm2", id="convolutions"),
        pytest.param("qwen2_moe", id="a long window that attention is not told of"),
        pytest.param("mamba", id="no attention"),
        pytest.param("nemotron", id="attention that is not told where rows end"),
    ],
)
def test_models_that_are_not_exact_stay_padded(kind: str) -> None:
    model, rows = tiny_model(kind, torch.float32), random_rows(LENGTHS)
    reader = LogprobReader(model)
    assert reader.packed is None
    assert reader.padded
    for found, expected in zip(reader.read(*rows, 1.0), dense_logprobs(model, *rows, 1.0), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)


class TestProbe:
    def test_finds_a_window_that_attention_ignores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert LogprobReader(tiny_model("mistral-window")).packed is not None
        monkeypatch.setattr(packed_attention, "_make_window", lambda *_: None)
        assert LogprobReader(tiny_model("mistral-window")).packed is None

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_finds_rows_that_see_each_other(self, precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        assert LogprobReader(tiny_model("qwen3", torch.float32), precision).packed is not None
        whole = RowLayout(torch.tensor([3 + 9 + 1 + 5]), torch.device("cpu"))
        monkeypatch.setattr(packed_attention, "RowLayout", lambda *_: whole)
        assert LogprobReader(tiny_model("qwen3", torch.float32), precision).packed is None

    def test_stays_within_the_positions_that_a_model_has(self) -> None:
        model = tiny_model("gpt2")
        model.config.max_position_embeddings = 4
        assert packed_attention.probe_rows(model).lengths.max() == 4


class TestTheModel:
    def test_keeps_its_attention_and_is_saved_with_its_own_settings(self, tmp_path: Path) -> None:
        model = tiny_model("qwen3", torch.float32)
        ids, chosen = random_rows(LENGTHS)
        before = model(input_ids=ids).logits
        reader = LogprobReader(model)
        reader.read(ids, chosen, 1.0)
        assert model.config._attn_implementation == "eager"
        assert torch.equal(model(input_ids=ids).logits, before)
        model.save_pretrained(tmp_path)
        assert "packed" not in (tmp_path / "config.json").read_text()

    def test_is_read_with_the_weights_it_has(self) -> None:
        model = exact(tiny_model("qwen3"))
        reader = LogprobReader(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        assert_equal(*read_both(reader))

    def test_stays_without_dropout_when_it_trains(self) -> None:
        model = tiny_model("gpt2")
        reader = LogprobReader(model)
        before = reader.read(*random_rows(LENGTHS), 1.0)[0]
        model.train()
        assert torch.equal(reader.read(*random_rows(LENGTHS), 1.0)[0], before)

    def test_of_rows_that_are_alike_reads_them_as_they_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls, call = list[int](), PackedModel.__call__

        def count(packed: PackedModel, rows: PackedRows, output: str) -> Tensor:
            calls.append(len(rows.lengths))
            return call(packed, rows, output)

        reader = LogprobReader(tiny_model("qwen3"))
        monkeypatch.setattr(PackedModel, "__call__", count)
        reader.read(*random_rows([(2, 18), (3, 17), (5, 16)]), 1.0)
        assert calls == []
        reader.read(*random_rows([(2, 18), (3, 3)]), 1.0)
        assert calls == [2]


class _Largest(TorchDispatchMode):
    """Numbers in the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for part in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(part, Tensor):
                self.numbers = max(self.numbers, part.numel())
        return found


@pytest.mark.parametrize("kind", ["qwen3", "mistral-window"])
def test_nothing_grows_with_the_square_of_all_tokens(kind: str) -> None:
    reader = LogprobReader(tiny_model(kind))
    rows = random_rows([(2, 8 + row % 5) for row in range(80)])
    with _Largest() as largest:
        reader.read(*rows, 1.0)
    tokens = len(pack_padded(*rows).ids)
    assert 0 < largest.numbers < tokens**2 / 10


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_a_layout_has_every_token_once_in_a_row_of_its_grid(lengths: list[int]) -> None:
    layout = RowLayout(torch.tensor(lengths), torch.device("cpu"))
    tokens = sum(lengths)
    assert torch.equal(layout.padded[layout.packed], torch.arange(tokens))
    owner = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    rows = []
    for grid in layout.padded.split([count * longest for count, longest in layout.grids]):  # type: ignore[no-untyped-call]
        shape = layout.grids[len(rows)]
        rows.append(owner[grid].view(shape))
        assert (rows[-1] == rows[-1][:, :1]).all()
    assert sorted(int(row[0]) for grid in rows for row in grid) == list(range(len(lengths)))
    assert len(layout.padded) <= tokens * 4 / 3
    assert layout.ends.tolist() == [sum(lengths[:row]) for row in range(len(lengths) + 1)]


def heads(*counts: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, count, 12, 4, dtype=torch.float64, generator=generator) for count in counts]


@pytest.mark.parametrize("options", [{"softcap": 5.0}, {"s_aux": torch.ones(2)}, {"dropout": 0.1}, {"strange": True}])
def test_what_attention_does_not_compute_is_refused(options: dict[str, Any]) -> None:
    layout = RowLayout(torch.tensor([5, 7]), torch.device("cpu"))
    query, key, value = heads(2, 2, 2)
    with pytest.raises(NotByRows, match=rf"Identity: .*{next(iter(options))}"):
        attend_rows(torch.nn.Identity(), query, key, value, None, layout, **options)


@pytest.mark.parametrize("window", [None, 3])
def test_flash_attention_is_told_the_same(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flash attention itself needs a GPU: a row at a time takes its place."""

    def varlen_attn(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> Tensor:
        assert cu_seq_q.dtype == torch.int32
        assert torch.equal(cu_seq_q, cu_seq_k)
        assert max_q == max_k == cu_seq_q.diff().max()
        sizes = cu_seq_q.diff().tolist()
        found = []
        for row in zip(*(part.split(sizes) for part in (query, key, value)), strict=True):  # type: ignore[no-untyped-call]
            q, k, v = (part.transpose(0, 1) for part in row)
            seen = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).tril(window_size[1])
            if window_size[0] >= 0:
                seen = seen.triu(-window_size[0])
            found.append(
                scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=enable_gqa).transpose(0, 1)
            )
        return torch.cat(found)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    layout = RowLayout(torch.tensor([5, 1, 6]), torch.device("cpu"))
    found = []
    for flash in (True, False):
        monkeypatch.setattr(packed_attention, "_has_flash", lambda *_, flash=flash: flash)
        query, key, value = heads(4, 2, 2)
        mixed, _ = attend_rows(torch.nn.Identity(), query, key, value, None, layout, scaling=0.3, sliding_window=window)
        found.append(mixed)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-14)
    assert found[0].shape == (1, 12, 4, 4)
