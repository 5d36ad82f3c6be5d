"""Settings of the policy, its sampler, its scoring, its surrogate, its optimizer and its checkpoints."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.settings import Count, NonNegative, NonNegativeCount, Positive, Settings, Share, ShareBelowOne


class LoraSettings(Settings):
    """Train small matrices beside frozen weights (LoRA, by peft). The run's policy is merged, the adapter beside it.
    There is no dropout: log-probabilities before and after an update have to be of one distribution."""

    rank: NonNegativeCount = 0
    """Rank of the matrices; 0 trains all weights, and no adapter is made."""
    alpha: Positive = 32.0
    """Scale: what the matrices add is multiplied by alpha / rank."""
    targets: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Names of linear layers, as they end: q_proj, or self_attn.q_proj. None named: all but the head."""


class PolicySettings(Settings):
    """Where the policy starts, and how it is loaded."""

    start: str
    """A folder with weights, tokenizer and chat template; or the name of such a model on the Hugging Face hub
    (OWNER/NAME, taken from the cache when the hub is out of reach); or lab:NAME for a warm start that ships with the
    package."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of weights and activations. Below float32 the optimiser keeps float32 copies of the trained weights."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """The attention kernel; null leaves the choice to transformers. flash_attention_2 reads no masks, so the sampler
    uses sdpa beside it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The model's device; auto is cuda where there is one."""
    gradient_checkpointing: bool = False
    """Keep only each layer's input for the backward pass and compute the rest again: less memory, a third more time."""
    tool_instruction: str | None = None
    """The text that lists the tools where the model's template cannot; null: the one in docs/templates.md. {tools}
    stands for their schemas, {call} for an example of a call. Refused where the template lists tools itself."""
    lora: LoraSettings = LoraSettings()


class SamplerSettings(Settings):
    """How rollouts are sampled."""

    mode: Literal["lockstep", "continuous"] = "lockstep"
    """lockstep: batches follow from the seed alone, exact to the bit; continuous: slots are refilled as they become
    free."""
    slots: Count = 128
    """Rollouts that the sampler holds at the same time."""
    temperature: Positive = 1.0
    """Divides the logits when sampling, and again when the ratio is computed."""
    top_p: Share = 1.0
    """Nucleus; below one the sampler's distribution is no longer the policy's."""


class ScoringSettings(Settings):
    """Forward passes without gradient over finished rollouts."""

    micro_batch_tokens: Count = 32768
    """Padded tokens in one forward pass."""
    logits_bytes: Count = 2**30
    """Memory for logits and their intermediate results, also in training; it sets how many tokens one chunk has."""
    reading_every: NonNegativeCount = 10
    """In the first step and every so many, rollouts are also scored under the next task's reference, and under their
    own with success and failure exchanged, to measure whether the policy reads its references and how much of the
    credit is due to them; it costs two more forward passes; 0 is never."""


class SurrogateSettings(Settings):
    """The policy gradient: ratio, trust region, averaging, baseline and KL. It combines with every method. A batch has
    one update, from the policy that sampled it, so the ratio is one and no bound is reached."""

    ratio: Literal["token"] = "token"
    """Ratio of new to old probability, token by token."""
    clip: ShareBelowOne = 0.2
    """Trust region below one: the ratio counts down to 1 - clip."""
    clip_high: Positive | None = None
    """Trust region above one: the ratio counts up to 1 + clip_high (clip-higher); the same as clip when not given."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Cap on the loss of a negative advantage, in advantages; null is no cap."""
    average: Literal["token_mean"] = "token_mean"
    """Mean over all policy tokens of the whole batch, however the batch is split."""
    baseline: Literal["group_mean", "leave_one_out"] = "group_mean"
    """The value subtracted from a reward: the mean of its group, or of its siblings alone."""
    scale_by_std: bool = True
    """Divide advantages by the group's sample standard deviation."""
    kl: NonNegative = 0.0
    """Coefficient of the k3 estimate of KL to the initial policy; never multiplied by a weight."""


class OptimizerSettings(Settings):
    """AdamW, one step per batch."""

    lr: Positive = 1e-6
    """Learning rate after warm-up; constant from then on, so that a longer run begins like a shorter one."""
    warmup: NonNegativeCount = 0
    """Steps over which the learning rate rises linearly."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    """Adam's decay rates."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    clip_norm: Positive = 1.0
    """The gradient is scaled down to this norm."""
    micro_batch_tokens: Count = 32768
    """Padded tokens in one micro-batch; the loss does not depend on it."""


class CheckpointSettings(Settings):
    """When a run saves itself for a resume."""

    every: Count = 10
    """Steps between checkpoints; the last step always has one."""
    keep: Count = 2
    """How many of the newest checkpoints a run keeps, besides the best."""
