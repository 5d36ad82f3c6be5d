"""Settings of the policy, its sampler, its scoring, its surrogate, its optimizer and its checkpoints."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from sgcd.settings import Count, NonNegative, NonNegativeCount, Positive, Settings, Share, ShareBelowOne

MAX_MICRO_BATCH_TOKENS = 32768
"""The limit where memory has room for more, and where none was derived."""
MAX_TREE_SHARE = 0.85
"""A tree of prefixes is computed where it has at most this share of the padded tokens: its attention costs a little
more."""


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
    lookahead: NonNegativeCount = 0
    """Tokens of a turn that are guessed and checked in one forward pass. What is sampled is the same but for rounding,
    as each token keeps its random number; it is faster where a token hardly depends on the one before."""
    temperature: Positive = 1.0
    """Divides the logits when sampling, and again when the ratio is computed."""
    top_p: Share = 1.0
    """Nucleus; below one the sampler's distribution is no longer the policy's."""


class TeacherSettings(Settings):
    """What teachers are made of, besides the policy and its references. A method says which one it reads."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of itself that the moving average of the policy's weights keeps in a step (method.teacher=average)."""
    start: str | None = None
    """Another policy with the same tokenizer, named as in policy.start (method.teacher=outside)."""
    skill: str | None = None
    """A file with one text for all tasks (method.context=skill)."""


class ScoringSettings(Settings):
    """Forward passes without gradient over finished rollouts."""

    micro_batch_tokens: Count | None = None
    """Tokens in one forward pass, padding included. null: as many as memory has room for, at most 32768; `sgcd check`
    says how many, and the run's recipe keeps the number."""
    share: bool = True
    """Compute what siblings have in common, token by token, once: their prompt, and equal first turns; also in
    training. It changes nothing beyond rounding; false gives the bits of a run without it."""
    logits_bytes: Count = 2**30
    """Memory for logits and their intermediate results, also in training; it sets how many tokens one chunk has."""
    reading_every: NonNegativeCount = 10
    """In the first step and every so many, rollouts are also scored under the next group's reference, and under their
    own with success and failure exchanged, to measure whether the policy reads its references and how much of the
    credit is due to them; it costs two more forward passes; 0 is never."""


Preset = Literal["grpo", "grpo_kl", "dapo", "dr_grpo", "gspo", "loop"]
PRESETS: dict[str, dict[str, Any]] = {
    "grpo": {"average": "sequence_mean"},
    "grpo_kl": {"average": "sequence_mean", "kl": 0.001},
    "dapo": {"clip": 0.2, "clip_high": 0.28, "overlong": {}},
    "dr_grpo": {"average": "constant", "scale_by_std": False},
    "gspo": {"ratio": "sequence", "clip": 3e-4, "clip_high": 4e-4, "average": "sequence_mean"},
    "loop": {"clip": 1 / 11, "clip_high": 0.1, "baseline": "leave_one_out", "scale_by_std": False},
}
"""What each preset changes about the defaults of `SurrogateSettings`."""


class CovarianceSettings(Settings):
    """Which tokens clip_cov and kl_cov choose, by the covariance of log-probability and advantage over the batch's
    tokens (2505.22617)."""

    share: Share = 2e-4
    """Share of the batch's tokens that are chosen, at least one."""
    low: float = 1.0
    """clip_cov chooses by chance among tokens whose covariance is above this."""
    high: float = 5.0
    """clip_cov chooses by chance among tokens whose covariance is below this."""
    kl_coefficient: NonNegative = 1.0
    """kl_cov adds this times |log ratio| to the loss of the tokens of highest covariance."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.high <= self.low:
            raise ValueError(f"high: expected more than low, {self.low:g}, got {self.high:g}")
        return self


class OverlongSettings(Settings):
    """Overlong shaping (2503.14476): a long response loses reward before advantages are taken."""

    share: Share = 0.2
    """The last share of siblings.limits.tokens, over which the penalty rises linearly from zero."""
    penalty: Positive = 1.0
    """Reward that a response loses at the limit."""


class SurrogateSettings(Settings):
    """The policy gradient: ratio, trust region, averaging, baseline and KL. It combines with every method. With one
    update a batch (`optimizer.updates`) the ratio is one and no bound is reached."""

    preset: Preset | None = None
    """A published set of values for the other keys of this section; a key that is given wins over it. On the command
    line it comes instead of the whole section of the file."""
    ratio: Literal["token", "sequence", "none"] = "token"
    """Ratio of new to old probability: of each token; of a rollout, as the geometric mean over its tokens (GSPO,
    2507.18071); or none, log-probability times advantage without any bound (GPG, 2504.02546)."""
    trust_region: Literal["clip", "dppo_tv", "dppo_kl", "clip_cov", "kl_cov"] = "clip"
    """clip: the ratio stays between bounds (1707.06347). dppo_tv, dppo_kl: a token on its way out has no gradient once
    the token's total variation or KL exceeds clip, or upwards clip_high (2602.04879). clip_cov: clip, and a few tokens
    have no gradient; kl_cov: no bound, and a few tokens have a penalty (both 2505.22617, see covariance)."""
    clip: ShareBelowOne = 0.2
    """Trust region below one: the ratio counts down to 1 - clip."""
    clip_high: Positive | None = None
    """Trust region above one: the ratio counts up to 1 + clip_high (clip-higher); the same as clip when not given."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Cap on the loss of a negative advantage, in advantages; null is no cap."""
    covariance: CovarianceSettings | None = None
    """The tokens of clip_cov and kl_cov; null: the defaults."""
    average: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    """token_mean: over all policy tokens of the whole batch, however the batch is split; sequence_mean: over rollouts,
    each the mean over its tokens; constant: the sum over tokens, divided by rollouts times siblings.limits.tokens."""
    baseline: Literal["group_mean", "leave_one_out"] = "group_mean"
    """The value subtracted from a reward: the mean of its group, or of its siblings alone."""
    scale_by_std: bool = True
    """Divide advantages by the group's sample standard deviation."""
    overlong: OverlongSettings | None = None
    """Take reward from long responses; null: none."""
    kl: NonNegative = 0.0
    """Coefficient of the KL to the initial policy in the loss; never multiplied by a weight."""
    kl_estimate: Literal["k1", "k2", "k3"] = "k3"
    """Estimate of that KL, with u = log p_initial - log p: k1 is -u, k2 u^2 / 2, k3 exp(u) - u - 1. On average the
    gradient of k1 is zero."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, data: Any) -> Any:
        """Take from the preset what is not given. An unknown preset is left for the field to refuse."""
        if not isinstance(data, Mapping):
            return data
        given = cast(Mapping[str, Any], data)
        preset = given.get("preset")
        return {**PRESETS.get(preset, {}), **given} if isinstance(preset, str) else data

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuse keys that contradict each other."""
        clip_high = self.highest_clip
        if self.dual_clip is not None and self.dual_clip <= 1 + clip_high:
            raise ValueError(f"dual_clip: expected more than 1 + clip_high, {1 + clip_high:g}, got {self.dual_clip:g}")
        if self.dual_clip is not None and self.trust_region != "clip":
            raise ValueError(f"dual_clip: only goes with trust_region=clip, got {self.trust_region}")
        if self.ratio != "token" and self.trust_region != "clip":
            raise ValueError(f"trust_region={self.trust_region}: only goes with ratio=token, got {self.ratio}")
        if self.ratio == "none" and self.dual_clip is not None:
            raise ValueError("dual_clip: ratio=none has no ratio to bound; leave dual_clip out")
        if self.covariance is not None and not self.chooses_tokens:
            raise ValueError(f"covariance: only goes with trust_region=clip_cov or kl_cov, got {self.trust_region}")
        return self

    @property
    def highest_clip(self) -> float:
        """Trust region above one, given or not."""
        return self.clip if self.clip_high is None else self.clip_high

    @property
    def chooses_tokens(self) -> bool:
        """Whether the trust region is one of those that choose tokens by covariance."""
        return self.trust_region in ("clip_cov", "kl_cov")


class OptimizerSettings(Settings):
    """AdamW, one or more updates a batch."""

    updates: Count = 1
    """Updates of the policy in a step, each over its whole batch. Teachers score once, and the ratio is to the policy
    before the first update: only from the second on can a bound be reached."""

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
    micro_batch_tokens: Count | None = None
    """Tokens in one micro-batch, what siblings share once and padding included; the loss does not depend on it. null:
    as many as memory has room for, at most 32768; `sgcd check` says how many, and the run's recipe keeps the number."""


class CheckpointSettings(Settings):
    """When a run saves itself for a resume."""

    every: Count = 10
    """Steps between checkpoints; the last step always has one."""
    keep: Count = 2
    """How many of the newest checkpoints a run keeps, besides the best."""


class VerlSettings(Settings):
    """Machines, servers and verl's own keys, where the engine is verl (docs/scale.md)."""

    nodes: Count = 1
    """Machines of the Ray cluster."""
    gpus: Count = 8
    """GPUs of each."""
    rollout: str = "vllm"
    """verl's server: vllm or sglang."""
    tensor_parallel: Count = 1
    """GPUs that one server spreads the model over."""
    agent_loops: Count = 8
    """Processes that play environments."""
    prompt_tokens: Count = 16384
    """Room for a task's prompt in the server's window, beside siblings.limits.tokens for what follows."""
    keys: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Further keys of verl's configuration by their dotted names; they win over what the recipe translates to."""


class SupervisedSettings(Settings):
    """What `sgcd sft` learns from, and how. The number of its steps follows from data, epochs and batch size."""

    data: Annotated[tuple[str, ...], Field(min_length=1)]
    """Files of JSON lines with messages and tools, or folders that sgcd collect has made."""
    dev: tuple[str, ...] = ()
    """The same, held out: the loss on them is measured with every evaluation, and nothing is learned from them."""
    pairs: tuple[str, ...] = ()
    """Runs of sgcd train whose mixed siblings teach the policy to read references: with the siblings' reference in its
    prompt it learns from one that succeeded, and with success and failure exchanged from one that failed."""
    pairs_in_batch: Count = 2
    """Pairs in a step, besides its conversations; pairs begin anew as often as the conversations need them."""
    epochs: Count = 2
    """How often each conversation is learned from."""
    batch_size: Count = 8
    """Conversations in a step. Batches are of similar lengths."""
    window: Count = 32768
    """Tokens of the longest conversation; a longer one is left out and counted, never cut."""
    lr: Positive = 1e-5
    """Learning rate after warm-up; constant from then on. All else about AdamW is in the section optimizer."""
    warmup: NonNegativeCount = 0
    """Steps over which the learning rate rises linearly."""
