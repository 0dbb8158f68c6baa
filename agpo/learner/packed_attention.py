"""Rows without padding for causal models of `transformers`: their own modules, with attention that works by rows.

What a model computes for each token alone it computes on one long row that holds all of them; only attention is told
where the rows end, as `transformers` tells it to flash attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from agpo.learner.packed import PackedRows
from agpo.learner.sharing import share_tensors

_NAME = "agpo_packed"  # of `attend_rows`, in the table of `transformers`
_LONGEST_PROBE = 64


class NotByRows(ValueError):
    """A model asks its attention for what `attend_rows` does not compute."""


def takes_rows(module: Any) -> bool:
    """Whether a model says that its attention can be replaced by one that gets no mask, as flash attention gets none.

    What it then computes is to be compared with what it computes on padded rows: see `probe_rows`.
    """
    return all(getattr(module, f"_supports_{name}", False) for name in ("flash_attn", "attention_backend"))


class PackedModel:
    """A model of `transformers`, or its body, over rows that lie one after another.

    It is a copy that shares its tensors with the model. Only the copy's configuration names `attend_rows`: who samples
    from the model or saves it finds it as it was, and a checkpointed layer finds the same attention in the backward
    pass.
    """

    def __init__(self, module: Any) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(_NAME, attend_rows)
        self.module = share_tensors(module)
        self.module.config._attn_implementation = _NAME

    def __call__(self, rows: PackedRows, output: str) -> Tensor:
        """The output of this name at the chosen tokens, [number chosen, …]. NotByRows is raised."""
        starts = rows.lengths.cumsum(0) - rows.lengths
        places = torch.arange(len(rows.ids)) - starts.repeat_interleave(rows.lengths)
        layout = RowLayout(rows.lengths, rows.ids.device)
        found = self.module(
            input_ids=rows.ids[None],
            position_ids=places[None].to(rows.ids.device),
            use_cache=False,
            packed_rows=layout,
        )
        window = _find_window(self.module.config.get_text_config())
        if window not in {None, *layout.windows}:  # some models put it into the mask only
            raise NotByRows(f"{type(self.module).__name__}: attention is not told of the window of {window} tokens")
        chosen: Tensor = getattr(found, output)[0][rows.chosen]
        return chosen


class RowLayout:
    """Where attention has the tokens of rows.

    Rows of like length share a grid [rows, longest]; beyond its end a row repeats its last token, which no token of the
    row sees, so that no gradient comes from there. ``padded`` [places]: the token of each place of all grids;
    ``packed`` [tokens]: the place of each token. ``ends`` [rows + 1]: where rows begin and end, from 0 (int32).
    """

    def __init__(self, lengths: Tensor, device: torch.device) -> None:
        self.windows: set[int | None] = set()  # that attention was told of
        self.longest = int(lengths.max())
        ends = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        order = lengths.argsort(descending=True, stable=True)
        self.grids: list[tuple[int, int]] = []
        padded, packed = list[Tensor](), torch.empty(int(ends[-1]), dtype=torch.long)
        size = 0
        while len(order):
            longest = int(lengths[order[0]])
            # At least three quarters as long: finer grids cost more calls than they save in padding (our choice).
            count = int((4 * lengths[order] >= 3 * longest).sum())
            rows, order = order[:count, None], order[count:]
            steps = torch.arange(longest)
            tokens = ends[rows] + torch.minimum(steps, lengths[rows] - 1)
            within = steps < lengths[rows]
            packed[tokens[within]] = size + within.flatten().nonzero()[:, 0]
            padded.append(tokens.flatten())
            self.grids.append((count, longest))
            size += count * longest
        self.padded, self.packed = torch.cat(padded).to(device), packed.to(device)
        self.ends = ends.to(device, torch.int32)


def attend_rows(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_rows: RowLayout | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    position_ids: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row, as an attention function of `transformers`.

    ``query`` [1, heads, tokens, width], ``key`` and ``value`` [1, key heads, tokens, width]; the result is
    [1, tokens, heads, width]. NotByRows where something else than ``sliding_window`` acts on it.
    """
    given = {"attention_mask": attention_mask, "dropout": dropout or None, **others}
    refused = [name for name, option in given.items() if option is not None and option is not False]
    if packed_rows is None or refused or not getattr(module, "is_causal", True):
        raise NotByRows(f"{type(module).__name__}: rows given {packed_rows is not None}, other options {refused}")
    packed_rows.windows.add(sliding_window)
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    attend = _attend_flash if _has_flash(query, value) else _attend_grids
    return attend(query, key, value, packed_rows, scaling, sliding_window)[None], None


def _attend_grids(
    query: Tensor, key: Tensor, value: Tensor, rows: RowLayout, scaling: float | None, window: int | None
) -> Tensor:
    """Each [tokens, heads, width]. A grid at a time."""
    if query.is_cuda:  # in fp32 only the kernel that makes all scores takes grouped queries there
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    sizes = [count * longest for count, longest in rows.grids]
    placed = [part.index_select(0, rows.padded).split(sizes) for part in (query, key, value)]  # type: ignore[no-untyped-call]
    found = []
    for grid, *parts in zip(rows.grids, *placed, strict=True):
        q, k, v = (part.view(*grid, *part.shape[1:]).transpose(1, 2) for part in parts)
        mask = _make_window(grid[1], window, query.device)
        mixed = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        found.append(mixed.transpose(1, 2).flatten(0, 1))
    return torch.cat(found).index_select(0, rows.packed)


def _make_window(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Which of the last ``window`` tokens each sees, bool [length, length]; None where that is all before it."""
    if window is None or length <= window:
        return None
    places = torch.arange(length, device=device)
    ago = places[:, None] - places
    return (ago >= 0) & (ago < window)


def _has_flash(query: Tensor, value: Tensor) -> bool:
    """Whether flash attention over rows can be had: half precision, from Ampere on, heads of one width up to 256."""
    return (
        value.is_cuda
        and value.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] == value.shape[-1] <= 256
        and torch.cuda.get_device_capability(value.device) >= (8, 0)
        and torch.__version__ >= "2.12"  # before, it took no grouped queries
    )


def _attend_flash(
    query: Tensor, key: Tensor, value: Tensor, rows: RowLayout, scaling: float | None, window: int | None
) -> Tensor:
    """Each [tokens, heads, width]. All rows at once; not run where there is no GPU."""
    from torch.nn.attention.varlen import varlen_attn

    query, key = query.to(value.dtype), key.to(value.dtype)  # autocast does not reach this function
    seen = (-1 if window is None else window - 1, 0)
    sizes = (rows.ends, rows.ends, rows.longest, rows.longest)
    found = varlen_attn(query, key, value, *sizes, scale=scaling, window_size=seen, enable_gqa=True)
    assert isinstance(found, Tensor)
    return found


def _find_window(config: Any) -> int | None:
    """The sliding window of a model's configuration, where a layer has one."""
    types = getattr(config, "layer_types", None)
    window: int | None = getattr(config, "sliding_window", None)
    return window if types is None or "sliding_attention" in types else None


def probe_rows(module: Any) -> PackedRows:
    """Short rows on which a model that cannot be read packed gives itself away, all their tokens chosen.

    One is longer than the model's sliding window, where that is short.
    """
    config = module.config
    beyond = (getattr(config, "sliding_window", None) or 0) + 4
    lengths = torch.tensor([3, beyond if 9 < beyond <= _LONGEST_PROBE else 9, 1, 5])
    lengths.clamp_(max=getattr(config, "max_position_embeddings", _LONGEST_PROBE))
    embeddings = module.get_input_embeddings().weight
    ids = torch.arange(int(lengths.sum()), device=embeddings.device) * 7 % len(embeddings)
    return PackedRows(ids, lengths, torch.ones_like(ids, dtype=torch.bool))
