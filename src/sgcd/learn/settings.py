"""Settings of the learn room: the policy, how it is sampled, scored and moved, and when it is saved."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.settings import Settings

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class LoraSettings(Settings):
    """Train small matrices beside frozen weights (LoRA, by peft). The run's policy is merged, the adapter beside it.
    There is no dropout: log-probabilities before and after an update have to be of one distribution."""

    rank: Annotated[int, Field(ge=0)] = 0
    """Rank of the matrices; 0 trains all weights, and no adapter is made."""
    alpha: Positive = 32.0
    """Scale: what the matrices add is multiplied by alpha / rank."""
    targets: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Names of linear layers, as they end: q_proj, or self_attn.q_proj. None named: all but the head."""


class PolicySettings(Settings):
    """Where the policy starts, and how it is held."""

    start: str
    """A folder with weights, tokenizer and chat template; or the name of such a model on the Hugging Face hub
    (OWNER/NAME, taken from the cache when the hub is out of reach); or lab:NAME for a warm start that ships with the
    package."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The type that weights and activations are computed in. Below float32 the optimiser keeps float32 copies of what
    it moves."""
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """The kernel of the attention; what transformers takes for the model when not given. flash_attention_2 reads no
    masks, so the sampler uses sdpa beside it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model lives; auto is cuda where there is one."""
    checkpointing: bool = False
    """Keep only each layer's input for the backward pass and compute the rest again: less memory, a third more time."""
    lora: LoraSettings = LoraSettings()


class SamplerSettings(Settings):
    """How rollouts are sampled."""

    mode: Literal["lockstep", "free"] = "lockstep"
    """lockstep: batches are a function of the seed alone, exact to the bit; free: slots are refilled as they come."""
    slots: Count = 128
    """Rollouts sampled at the same time."""
    temperature: Positive = 1.0
    """Divides the logits when sampling, and again when the ratio is computed."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus; below one the sampler's distribution is no longer the policy's."""


class ScoringSettings(Settings):
    """Forward passes without gradient over finished rollouts."""

    tokens: Count = 32768
    """Padded tokens in one forward pass."""
    bytes: Count = 2**30
    """Memory for logits and what is made of them, also in training; how many rows are worked on at a time follows."""
    shuffled: Annotated[int, Field(ge=0)] = 10
    """Every so many steps, rollouts that have a reference are also scored under a neighbour's, to see how much of
    their credit is the reference's own; costs a forward pass more; 0 is never."""


class SurrogateSettings(Settings):
    """The policy gradient: ratio, trust region, averaging, baseline and KL. Combines with every method. Here a batch
    has one update, which starts from the policy that it moves: the ratio is one, and no bound is reached."""

    ratio: Literal["token"] = "token"
    """Ratio of new to old probability, token by token."""
    clip: Share = 0.2
    """Trust region below one: the ratio counts down to 1 - clip."""
    clip_high: Annotated[float, Field(gt=0)] | None = None
    """Trust region above one: the ratio counts up to 1 + clip_high (clip-higher); the same as clip when not given."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Cap on the loss of a negative advantage, in advantages; off when not given."""
    average: Literal["token_mean"] = "token_mean"
    """Mean over all tokens that the policy wrote in the whole batch, however the batch is split."""
    baseline: Literal["group_mean", "leave_one_out"] = "group_mean"
    """What a reward is compared with: the mean of its group, or of its siblings alone."""
    std: bool = True
    """Divide advantages by the group's sample standard deviation."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Coefficient of the k3 estimate of KL to the initial policy; never multiplied by a weight."""


class OptimizerSettings(Settings):
    """AdamW, one step for each batch."""

    lr: Positive = 1e-6
    """Learning rate after warm-up; constant from then on, so that a longer run begins like a shorter one."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises linearly."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Adam's decay rates."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    clip_norm: Positive = 1.0
    """The gradient is scaled down to this norm."""
    tokens: Count = 32768
    """Padded tokens in one micro-batch; the loss does not depend on it."""


class CheckpointSettings(Settings):
    """When the run is saved for resuming."""

    every: Count = 10
    """Steps between checkpoints; the last step is always saved."""
    keep: Count = 2
    """How many of the newest checkpoints stay, besides the best."""
