"""Splits a causal language model into backbone and head, so that logits need not be held for a whole rollout."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgcd.errors import PolicyError

_NUM_PROBE_TOKENS = 4
"""Tokens on which `check_head` compares the model's logits with those of its head."""


@dataclass(frozen=True, slots=True)
class Head:
    """Turns a hidden state h into logits: cap tanh(scale (W h + b) / cap), or scale (W h + b) without a cap."""

    weight: Tensor
    """[vocabulary, hidden]; shared with the embedding if the model ties them."""
    bias: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    @property
    def vocab_size(self) -> int:
        return self.weight.shape[0]

    def project(self, hidden: Tensor, out: Tensor) -> None:
        """Write W h + b of some tokens into `out`, which may be float32 on CUDA whatever the type of the weights is."""
        if out.dtype != hidden.dtype:
            torch.mm(hidden, self.weight.t(), out_dtype=out.dtype, out=out)
        else:
            torch.mm(hidden, self.weight.t(), out=out)
        if self.bias is not None:
            out += self.bias

    def project_at(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """W h + b at `ids` [tokens, K] only, in float32 or more: gathers rows of the weight."""
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        gathered = self.weight.index_select(0, ids.flatten()).to(dtype).unflatten(0, ids.shape)
        raw = gathered.mul_(hidden.to(dtype).unsqueeze(1)).sum(-1)
        return raw if self.bias is None else raw + self.bias[ids]

    def to_logits(self, raw: Tensor, temperature: float, out: Tensor) -> Tensor:
        """Logits divided by the temperature: written to `out`, or `raw` itself if it has them already."""
        if raw.dtype == out.dtype and self.cap is None and self.scale == temperature:
            return raw
        out.copy_(raw)
        if self.cap is None:
            return out.mul_(self.scale / temperature)
        return out.mul_(self.scale / self.cap).tanh_().mul_(self.cap / temperature)

    def logits_at(self, hidden: Tensor, ids: Tensor, temperature: float) -> Tensor:
        """Logits divided by the temperature at `ids` [tokens, K] only."""
        raw = self.project_at(hidden, ids)
        return self.to_logits(raw, temperature, torch.empty_like(raw))


def unwrap_adapter(model: Any) -> Any:
    """The model without the wrapper of an adapter; the layers of the adapter stay in it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def get_backbone(model: Any) -> Any:
    """The model without its head."""
    return getattr(unwrap_adapter(model), "base_model", model)


def get_head(model: Any) -> Head:
    """The head of a model, with the scale and the soft cap of its config."""
    layer = unwrap_adapter(model).get_output_embeddings()
    if type(layer) is not torch.nn.Linear:
        raise PolicyError(
            f"policy: the head has to be a plain linear layer, got {type(layer).__name__}; "
            "do not put an adapter on the head"
        )
    config = unwrap_adapter(model).config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    scale *= getattr(config, "lm_head_multiplier", None) or 1.0
    return Head(layer.weight, layer.bias, float(scale), getattr(config, "final_logit_softcapping", None))


@torch.no_grad()
def check_head(model: Any) -> None:
    """Refuse a model whose logits are not finite, or differ from those that `get_head` computes."""
    device = next(model.parameters()).device
    ids = torch.arange(_NUM_PROBE_TOKENS, device=device)[None] % get_head(model).vocab_size
    expected = model(input_ids=ids, use_cache=False).logits[0].float()
    if not expected.isfinite().all():
        raise PolicyError(
            "policy: its logits are not finite (NaN or infinity) on its very first ids; the weights are broken, or "
            "too large for their type: take another checkpoint, or policy.dtype=float32"
        )
    hidden = get_backbone(model)(input_ids=ids, use_cache=False).last_hidden_state[0]
    computed = get_head(model).logits_at(
        hidden, torch.arange(get_head(model).vocab_size, device=device).expand(_NUM_PROBE_TOKENS, -1), 1.0
    )
    tolerance = 0.05 if hidden.dtype in (torch.bfloat16, torch.float16) else 1e-3
    if not torch.allclose(computed.float(), expected, atol=tolerance * max(1.0, float(expected.abs().max()))):
        raise PolicyError(
            f"policy: what {type(unwrap_adapter(model)).__name__} does to its logits after the head is not known here; "
            "expected a soft cap, a scale, a bias or nothing"
        )
