"""Finds, loads and saves a policy: a model and its chat, as a folder that transformers loads without sgcd."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from sgcd.chat import Chat
from sgcd.errors import PolicyError, SgcdError
from sgcd.learn.policy.lora import ADAPTER_FOLDER, add_adapter, has_adapter, merged_state_dict, save_adapter
from sgcd.learn.policy.model_card import build_model_card
from sgcd.learn.settings import PolicySettings
from sgcd.seeds import derive_seed
from sgcd.storage.manifest import check_folder
from sgcd.text import get_first_line

_LAB_PREFIX = "lab:"
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_POLICY_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""The files of a policy that are downloaded; none of them is code."""
_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, slots=True)
class Policy:
    """The model that acts and is trained, and its chat."""

    model: PreTrainedModel
    chat: Chat


def load_trainable_policy(settings: PolicySettings, seed: int = 0) -> Policy:
    """The policy of a recipe on its device, with its adapter if it has one, ready to be sampled and trained."""
    device = select_device(settings.device)
    policy = load_policy(
        settings.start, settings.dtype, settings.attn_implementation, tool_instruction=settings.tool_instruction
    )
    if settings.lora.rank:
        add_adapter(policy.model, settings.lora, derive_seed(seed, "lora"))
    if settings.gradient_checkpointing:
        if not policy.model.supports_gradient_checkpointing:
            model_type = policy.model.config.model_type
            raise PolicyError(
                f"policy.gradient_checkpointing: {model_type} cannot compute a layer again; leave it at false"
            )
        legacy_enable: Any = policy.model.gradient_checkpointing_enable
        getattr(policy.model, "activation_checkpointing_enable", legacy_enable)({"use_reentrant": False})
    policy.model.to(device)  # pyright: ignore[reportArgumentType]
    return policy


def select_device(device: str) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise PolicyError("policy.device: torch finds no cuda device here; expected auto or cpu, got cuda")
    return torch.device("cuda" if has_cuda and device != "cpu" else "cpu")


def get_context_window(config: Any) -> int:
    """The number of positions of a model; 2^31 if its config gives none."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 2**31))


def resolve_model(start: str | Path, key: str = "policy.start") -> Path:
    """The folder of `start`: a folder, a warm start of the lab, or a model of the hub, which is downloaded once.

    `key` is the recipe's key that named it.
    """
    if isinstance(start, str) and start.startswith(_LAB_PREFIX):
        return _resolve_warm_start(start, key)
    folder = Path(start).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(start, str) and _HUB_NAME.fullmatch(start):
        return _download_from_hub(start, key)
    raise PolicyError(
        f"{key}: {start} is not a folder here; give the path of one that save_pretrained wrote, lab:NAME, "
        "or OWNER/NAME of a model on the hub"
    )


def _resolve_warm_start(start: str, key: str) -> Path:
    starts = Path(str(files("sgcd"))) / "lab" / "starts"
    known = sorted(path.name for path in starts.iterdir()) if starts.is_dir() else []
    if (name := start.removeprefix(_LAB_PREFIX)) not in known:
        available = (
            ", ".join(_LAB_PREFIX + known_name for known_name in known) or "none; make them with `sgcd lab warm-start`"
        )
        raise PolicyError(f"{key}: the lab has no warm start {name!r}; there are: {available}")
    return starts / name


def _download_from_hub(name: str, key: str) -> Path:
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_POLICY_FILES), ignore_patterns=["original/*"]))
    except Exception as problem:  # of the hub's client, its transport or the disk
        cause = "HF_HUB_OFFLINE forbids to fetch it" if constants.is_offline_mode() else get_first_line(problem)
        raise PolicyError(
            f"{key}: {name} is neither a folder here nor in the hub's cache, and it could not be fetched "
            f"({cause}); download it where there is a network, or give the path of a folder"
        ) from problem


def load_policy(
    start: str | Path,
    dtype: str,
    attn_implementation: str | None = None,
    *,
    tool_instruction: str | None = None,
    key: str = "policy.start",
) -> Policy:
    """Load a policy from the folder that `resolve_model` returns. No code from the folder is run.

    The files that have a checksum in the folder's manifest are verified.
    """
    folder = resolve_model(start, key)
    check_folder(folder, needs_manifest=False, is_read=lambda name: _is_policy_file(folder / name))
    _, chat = read_policy_config(folder, tool_instruction)
    model = load_model(folder, dtype, attn_implementation)
    _add_end_token(model, chat)
    return Policy(model.eval(), chat)


def _is_policy_file(path: Path) -> bool:
    return path.is_file() and any(path.match(pattern) for pattern in _POLICY_FILES)


def read_policy_config(folder: Path, tool_instruction: str | None = None) -> tuple[Any, Chat]:
    """The config and the chat of a policy; refuses a folder as far as possible before its weights are read."""
    if not (folder / "config.json").is_file():
        raise PolicyError(f"{folder}: no config.json there; expected weights, config, tokenizer and chat template")
    if not any((folder / name).is_file() for name in _WEIGHT_FILES):
        raise PolicyError(f"{folder}: no weights there; expected model.safetensors, save it with model.save_pretrained")
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise PolicyError(f"{folder}: no tokenizer there; save it beside the weights with tokenizer.save_pretrained")
    chat = _load_chat(folder, tool_instruction)
    try:
        with _quiet_transformers():
            config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
            num_embeddings: int = config.get_text_config().vocab_size
    except Exception as problem:
        raise PolicyError(
            f"{folder}: no causal language model can be read there ({get_first_line(problem)})"
        ) from problem
    if chat.vocab_size > num_embeddings:
        raise PolicyError(
            f"{folder}: the tokenizer has {chat.vocab_size} ids, the weights only {num_embeddings}; "
            "take the tokenizer that these weights were trained with, or resize the model's embeddings"
        )
    return config, chat


def save_policy(policy: Policy, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write weights, config, tokenizer, template and a model card with `facts`; the same policy gives the same bytes.

    The adapter is merged into the weights, and saved in `adapter/` as well.
    The folder is written in place; the caller uses `atomic_folder` if it must be whole or absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet_transformers():
        state_dict = merged_state_dict(policy.model) if has_adapter(policy.model) else None
        policy.model.save_pretrained(folder, state_dict=state_dict, max_shard_size="1000TB")
    if has_adapter(policy.model):
        save_adapter(policy.model, folder / ADAPTER_FOLDER)
    policy.chat.save(folder)
    (folder / "README.md").write_text(build_model_card(policy.model, facts), encoding="utf-8")


def _load_chat(folder: Path, tool_instruction: str | None) -> Chat:
    try:
        with _quiet_transformers():
            return Chat.load(folder, tool_instruction)
    except SgcdError:
        raise
    except Exception as problem:
        raise PolicyError(f"{folder}: no tokenizer can be read there ({get_first_line(problem)})") from problem


def load_model(folder: Path, dtype: str, attn_implementation: str | None = None) -> PreTrainedModel:
    """The model alone, as transformers reads it; refused when a weight is missing or has another shape."""
    try:
        with _quiet_transformers():
            model_and_info: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                attn_implementation=attn_implementation,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # refused below, by name
                output_loading_info=True,
            )
    except ImportError as problem:
        raise PolicyError(
            f"policy.attn_implementation: {attn_implementation} cannot be used here ({get_first_line(problem)})"
        ) from problem
    except Exception as problem:  # transformers and safetensors raise a dozen types
        raise PolicyError(
            f"{folder}: no causal language model can be read there ({get_first_line(problem)})"
        ) from problem
    model, loading_info = model_and_info
    for info_key, description in (
        ("missing_keys", "missing"),
        ("mismatched_keys", "of another shape than config.json says"),
    ):
        names = sorted(str(key if isinstance(key, str) else key[0]) for key in loading_info[info_key])
        if names:
            raise PolicyError(
                f"{folder}: {len(names)} of the model's weights are {description}, the first is {names[0]}; "
                "weights and config.json have to come from one save_pretrained"
            )
    return model


def _add_end_token(model: PreTrainedModel, chat: Chat) -> None:
    """Let `generate` with the saved policy stop at the end of a turn."""
    generation = model.generation_config
    if generation is None:
        return
    end_ids = generation.eos_token_id
    end_ids = [] if end_ids is None else end_ids if isinstance(end_ids, list) else [end_ids]
    if chat.end_id not in end_ids:
        generation.eos_token_id = [chat.end_id, *end_ids] if end_ids else chat.end_id
        generation._from_model_config = False
    if generation.pad_token_id is None:
        generation.pad_token_id = chat.pad_id


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence progress bars and reports of transformers: errors are raised as `PolicyError`."""
    verbosity, has_progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_progress_bar:
            logging.enable_progress_bar()
