"""Other names of recipe keys and values: an old one still works and says its new name; TRL's are named in refusals."""

from collections.abc import Mapping
from typing import Any, cast

from sgcd.errors import RecipeError
from sgcd.storage.yaml import YamlData

RENAMED_KEYS = {
    "policy.attention": "policy.attn_implementation",
    "policy.checkpointing": "policy.gradient_checkpointing",
    "siblings.size": "siblings.group_size",
    "reference.least": "reference.min_tokens",
    "method.against": "method.compare_with",
    "method.segments.full": "method.segments.saturation",
    "method.segments.least": "method.segments.min_divergence",
    "method.segments.reset": "method.segments.quiet_tokens",
    "method.segments.longest": "method.segments.max_tokens",
    "method.segments.rise": "method.segments.entropy_rise",
    "method.segments.confident": "method.segments.entropy_quantile",
    "method.segments.tokens": "method.segments.min_tokens",
    "surrogate.std": "surrogate.scale_by_std",
    "optimizer.tokens": "optimizer.micro_batch_tokens",
    "scoring.tokens": "scoring.micro_batch_tokens",
    "scoring.bytes": "scoring.logits_bytes",
    "scoring.shuffled": "scoring.reading_every",
    "scoring.shuffled_every": "scoring.reading_every",
}
"""Old key -> new key. Both are in the same section."""
RENAMED_VALUES = {("sampler.mode", "free"): "continuous", ("method.compare_with", "foreign"): "next_reference"}
"""A key and its old value -> its new value."""
TRL_KEYS = {
    "model": "policy.start",
    "bf16": "policy.dtype",
    "use_cpu": "policy.device",
    "gradient_checkpointing": "policy.gradient_checkpointing",
    "peft_config": "policy.lora",
    "train_dataset": "environment.tasks",
    "eval_dataset": "environment.dev",
    "environment_factory": "environment.class",
    "reward_funcs": "environment.reward",
    "reward_weights": "environment.reward_weights",
    "num_generations": "siblings.group_size",
    "generation_batch_size": "siblings.groups",
    "max_completion_length": "siblings.limits.tokens",
    "max_tool_calling_iterations": "siblings.limits.turns",
    "temperature": "sampler.temperature",
    "top_p": "sampler.top_p",
    "beta": "surrogate.kl",
    "epsilon": "surrogate.clip",
    "epsilon_high": "surrogate.clip_high",
    "delta": "surrogate.dual_clip",
    "importance_sampling_level": "surrogate.ratio",
    "loss_type": "surrogate.average",
    "scale_rewards": "surrogate.scale_by_std",
    "num_iterations": "optimizer.updates",
    "learning_rate": "optimizer.lr",
    "warmup_steps": "optimizer.warmup",
    "adam_beta1": "optimizer.betas",
    "adam_beta2": "optimizer.betas",
    "weight_decay": "optimizer.weight_decay",
    "max_grad_norm": "optimizer.clip_norm",
    "per_device_train_batch_size": "optimizer.micro_batch_tokens",
    "max_steps": "steps",
    "eval_steps": "evaluation.every",
    "num_generations_eval": "evaluation.trials",
    "save_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
}
"""An argument of TRL's GRPOConfig or GRPOTrainer -> the recipe's key for it. docs/from-trl.md has the differences."""


def rename_override(override: str, notices: list[str]) -> str:
    """Give a `key=value` its new key. Its value may still hold old names."""
    old, equals, value = override.partition("=")
    if not equals or old not in RENAMED_KEYS:
        return override
    notices.append(_notice(old, RENAMED_KEYS[old]))
    return f"{RENAMED_KEYS[old]}={value}"


def rename_old_names(data: YamlData, where: str, notices: list[str]) -> None:
    """Give every old key and value in `data` its new name, and add a notice for each."""
    for old, new in RENAMED_KEYS.items():
        section, old_name, new_name = _section_of(data, old), _last_word(old), _last_word(new)
        if old_name not in section:
            continue
        if new_name in section:
            raise RecipeError(f"{where}: {old} and {new} are the same key; keep {new} and remove {old}")
        section[new_name] = section.pop(old_name)
        notices.append(_notice(old, new))
    for (path, old_value), new_value in RENAMED_VALUES.items():
        section, name = _section_of(data, path), _last_word(path)
        if section.get(name) == old_value:
            section[name] = new_value
            notices.append(_notice(f"{path}={old_value}", f"{path}={new_value}"))


def _section_of(data: YamlData, path: str) -> YamlData:
    """The section that holds the key `path`; an empty one where the recipe has none."""
    section: Any = data
    for part in path.split(".")[:-1]:
        section = cast(Mapping[str, Any], section).get(part) if isinstance(section, Mapping) else None
    return cast(YamlData, section) if isinstance(section, dict) else {}


def _last_word(path: str) -> str:
    return path.rpartition(".")[2]


def _notice(old: str, new: str) -> str:
    return f"{old} is now {new}"
