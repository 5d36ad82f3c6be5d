"""Old names of recipe keys and values: they still work, and each says its new name."""

from collections.abc import Mapping
from typing import Any, cast

from sgcd.errors import RecipeError
from sgcd.storage.yaml import YamlData

RENAMED_KEYS = {
    "policy.attention": "policy.attn_implementation",
    "policy.checkpointing": "policy.gradient_checkpointing",
    "siblings.size": "siblings.group_size",
    "reference.least": "reference.min_tokens",
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
    "scoring.shuffled": "scoring.shuffled_every",
}
"""Old key -> new key. Both are in the same section."""
RENAMED_VALUES = {("sampler.mode", "free"): "continuous"}
"""A key and its old value -> its new value."""


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
