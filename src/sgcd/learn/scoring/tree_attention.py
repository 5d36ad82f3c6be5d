"""Attention over a row that is a tree of prefixes: each token sees its own prefix, at its own position.

A node and all that is below it read the node's keys in one kernel, and parts are joined by their log-sum-exp. So no
key is copied, no pair of tokens is computed that does not see each other, and no mask is made.
"""

import logging
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sgcd.learn.policy.attention_masks import FULL, MASKED_ATTENTION, SLIDING, TREE_ATTENTION, AttentionMasks
from sgcd.learn.policy.head import get_backbone, unwrap_adapter
from sgcd.learn.scoring.prefix_tree import PrefixTree, build_prefix_tree
from sgcd.text import get_first_line

_log = logging.getLogger(__name__)
_PROBE = tuple(np.array(ids, np.int32) for ids in ((1, 2, 3, 4), (1, 2, 5), (1, 2, 3)))
_probe_results: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
_aten: Any = torch.ops.aten


class TreeRow:
    """A tree on the model's device."""

    def __init__(self, tree: PrefixTree, device: torch.device) -> None:
        self.tree = tree
        self.nodes = tree.nodes()
        self.token_ids, self.positions, self.ends = (
            torch.from_numpy(array).to(device) for array in (tree.token_ids, tree.positions, tree.ends)
        )

    def sees(self, query: Tensor, key: Tensor, window: int | None) -> Tensor:
        """Whether a token sees another, by their places in the row."""
        seen = (key <= query) & (query < self.ends[key])
        return seen if window is None else seen & (self.positions[query] - self.positions[key] < window)

    def masked(self, window: int | None) -> Tensor:
        """[1, 1, queries, keys]: True where a token does not see another."""
        places = torch.arange(len(self.ends), device=self.ends.device)
        return ~self.sees(places[:, None], places, window)[None, None]

    @cached_property
    def block_mask(self) -> Any:
        """For flex_attention, without a window."""
        from torch.nn.attention.flex_attention import create_block_mask

        size = len(self.ends)
        return create_block_mask(
            lambda row, head, query, key: self.sees(query, key, None), None, None, size, size, self.ends.device
        )


def can_branch(config: Any, attn_implementation: str | None) -> bool:
    """Whether a config names nothing that keeps its model from reading trees of prefixes."""
    return not _stateful_layers(config) and (attn_implementation or "sdpa") in MASKED_ATTENTION


def _stateful_layers(config: Any) -> set[str]:
    layer_types: list[str] = getattr(config.get_text_config(), "layer_types", None) or []
    return {*layer_types} - {FULL, SLIDING}


def why_not_shared(model: Any) -> str:
    """Why a model does not read trees of prefixes, which is logged once; empty where it does."""
    config = unwrap_adapter(model).config
    if layer_types := _stateful_layers(config):
        reason = f"layers of {', '.join(sorted(layer_types))} keep a state that cannot branch"
    elif config._attn_implementation not in MASKED_ATTENTION:
        reason = f"{config._attn_implementation} takes no mask of a tree"
    else:
        return _probe_tree(model)
    return _note_reason(model, reason)


def _probe_tree(model: Any) -> str:
    """Compare a small tree with its sequences, once for each model."""
    if model in _probe_results:
        return _probe_results[model]
    try:
        error, tolerance = _measure_tree_error(model)
    except Exception as problem:  # what a model raises for a mask or an argument that it does not know
        return _note_reason(model, f"it takes no mask of a tree ({get_first_line(problem)})")
    return _note_reason(model, "" if error <= tolerance else "its hidden states differ in a tree")


def _note_reason(model: Any, reason: str) -> str:
    if reason and model not in _probe_results:
        _log.warning(
            "scoring.share: %s: %s; its prompts are computed for each sibling",
            unwrap_adapter(model).config.model_type,
            reason,
        )
    _probe_results[model] = reason
    return reason


@torch.no_grad()
def _measure_tree_error(model: Any) -> tuple[float, float]:
    """The largest difference of a hidden state, and how much rounding may make of it."""
    tree = build_prefix_tree(_PROBE)
    device = next(model.parameters()).device
    branching = forward_tree(model, tree).float()
    error = 0.0
    for sequence, places in zip(_PROBE, tree.places, strict=True):
        ids = torch.from_numpy(sequence.astype(np.int64)).to(device)[None]
        plain = get_backbone(model)(input_ids=ids, use_cache=False).last_hidden_state[0].float()
        error = max(error, float((branching[torch.from_numpy(places).to(device)] - plain).abs().max()))
    tolerance = 0.05 if model.dtype in (torch.bfloat16, torch.float16) else 1e-3
    return error, tolerance * max(1.0, float(branching.abs().max()))


def forward_tree(model: Any, tree: PrefixTree) -> Tensor:
    """Hidden states [tokens, hidden] of a tree, each as in a row of its own sequence."""
    row = TreeRow(tree, next(model.parameters()).device)
    return get_backbone(model)(
        input_ids=row.token_ids[None],
        position_ids=row.positions[None],
        attention_mask=_build_masks(model, row),
        use_cache=False,
        prefix_tree=row,
    ).last_hidden_state[0]


def _build_masks(model: Any, row: TreeRow) -> Any:
    """A mask for each type of layer; an empty one where `attend_to_tree` needs none."""
    config, masks = unwrap_adapter(model).config, AttentionMasks(model)
    if config._attn_implementation == "sdpa":
        config._attn_implementation = TREE_ATTENTION  # does the same wherever there is no tree
    by_type: dict[str, Tensor] = {}
    for layer_type in masks.layer_types & {FULL, SLIDING}:
        window = masks.window_of(layer_type)
        window = window if window and window < row.tree.max_length else None
        needs_mask = window or config._attn_implementation != TREE_ATTENTION
        by_type[layer_type] = (
            masks.to_additive(row.masked(window)) if needs_mask else torch.empty(1, 1, 0, 0, device=row.ends.device)
        )
    return masks.in_form(by_type)


def attend_to_tree(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    prefix_tree: TreeRow | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers. Without a tree, or with a mask that is not empty, it is `sdpa`."""
    if prefix_tree is None or (attention_mask is not None and attention_mask.numel()):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if query.is_cuda:
        mask = prefix_tree.block_mask
        return flex_attention_forward(module, query, key, value, mask, scaling=scaling)[0], None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attended: Any = NodeAttention.apply(query, key, value, (prefix_tree.nodes, scale))
    return attended.transpose(1, 2), None


class NodeAttention(torch.autograd.Function):
    """Softmax attention over a tree on the CPU: one flash kernel a node, forward and backward.

    Several heads of queries may share a head of keys: the kernel reads it in place, and no copy is kept.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor, row: tuple[list[tuple[int, int, int]], float]
    ) -> Tensor:
        """`row`: the nodes of the tree, and the scale of the queries."""
        rows, heads, size, width = query.shape
        dtype, root_end = torch.promote_types(query.dtype, torch.float32), 0
        out = query.new_empty((rows, size, heads, width), dtype=dtype).transpose(1, 2)
        log_sum = query.new_empty((rows, heads, size), dtype=dtype)
        nodes, scale = row
        for start, stop, end in nodes:
            own, keys = slice(start, end), slice(start, stop)
            # Causal in the node itself; the tokens below come after all of its keys and see them all.
            part, part_log_sum = _aten._scaled_dot_product_flash_attention_for_cpu(
                query[:, :, own], key[:, :, keys], value[:, :, keys], 0.0, True, scale=scale
            )
            if start >= root_end:  # a root: nothing is above
                out[:, :, own], log_sum[:, :, own], root_end = part, part_log_sum, end
                continue
            total = torch.logaddexp(log_sum[:, :, own], part_log_sum)
            out[:, :, own] *= (log_sum[:, :, own] - total).exp_().unsqueeze(-1)
            out[:, :, own] += part * (part_log_sum - total).exp_().unsqueeze(-1)
            log_sum[:, :, own] = total
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, log_sum)
        ctx.row = row  # pyright: ignore[reportAttributeAccessIssue]
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, log_sum = ctx.saved_tensors
        grad_query, grad_key, grad_value = (torch.zeros_like(tensor) for tensor in (query, key, value))
        nodes, scale = ctx.row
        for start, stop, end in nodes:
            own, keys = slice(start, end), slice(start, stop)
            grads = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad_out[:, :, own],
                query[:, :, own],
                key[:, :, keys],
                value[:, :, keys],
                out[:, :, own],
                log_sum[:, :, own],
                0.0,
                True,
                scale=scale,
            )
            grad_query[:, :, own] += grads[0]
            grad_key[:, :, keys] += grads[1]
            grad_value[:, :, keys] += grads[2]
        return grad_query, grad_key, grad_value, None


AttentionInterface.register(TREE_ATTENTION, attend_to_tree)
AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)
