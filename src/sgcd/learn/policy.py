"""A policy is a model and its chat: loaded from a folder, saved as a folder that plain transformers loads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from sgcd.act.rollout import seed_of
from sgcd.chat import Chat
from sgcd.errors import PolicyError, SgcdError
from sgcd.learn.card import card
from sgcd.learn.locate import first_line, locate
from sgcd.learn.lora import ADAPTER, adapt, adapted, merged, save_adapter
from sgcd.learn.settings import PolicySettings

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, slots=True)
class Policy:
    """What acts, and what is trained."""

    model: PreTrainedModel
    chat: Chat


def ready(told: PolicySettings, seed: int = 0) -> Policy:
    """The policy of a recipe, where it is to live, ready to be sampled and trained."""
    device = device_of(told.device)
    policy = load(told.start, told.dtype, told.attention)
    if told.lora.rank:
        adapt(policy.model, told.lora, seed_of(seed, "lora"))
    if told.checkpointing:
        if not policy.model.supports_gradient_checkpointing:
            kind = policy.model.config.model_type
            raise PolicyError(f"policy.checkpointing: {kind} cannot compute a layer again; leave it at false")
        before_v6: Any = policy.model.gradient_checkpointing_enable
        getattr(policy.model, "activation_checkpointing_enable", before_v6)({"use_reentrant": False})
    policy.model.to(device)  # pyright: ignore[reportArgumentType]
    return policy


def device_of(told: str) -> torch.device:
    here = torch.cuda.is_available()
    if told == "cuda" and not here:
        raise PolicyError("policy.device: torch finds no cuda device here; expected auto or cpu, got cuda")
    return torch.device("cuda" if here and told != "cpu" else "cpu")


def window_of(config: Any) -> int:
    """How many positions a model has; without a number, as many as anyone needs."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 2**31))


def load(start: str | Path, dtype: str, attention: str | None = None) -> Policy:
    """Read a policy from what `locate` makes of `start`. No code from the folder is run."""
    folder = locate(start)
    _, chat = survey(folder)
    model = weights(folder, dtype, attention)
    _stop_at(model, chat)
    return Policy(model.eval(), chat)


def survey(folder: Path) -> tuple[Any, Chat]:
    """A policy's config and chat; refuses what can be known to be wrong before the weights are read."""
    if not (folder / "config.json").is_file():
        raise PolicyError(f"{folder}: no config.json there; expected weights, config, tokenizer and chat template")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise PolicyError(f"{folder}: no weights there; expected model.safetensors, save it with model.save_pretrained")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise PolicyError(f"{folder}: no tokenizer there; save it beside the weights with tokenizer.save_pretrained")
    chat = _chat(folder)
    try:
        with _quiet():
            config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
            rows: int = config.get_text_config().vocab_size
    except Exception as problem:  # as below
        raise PolicyError(f"{folder}: no causal language model can be read there ({first_line(problem)})") from problem
    if chat.size > rows:
        raise PolicyError(
            f"{folder}: the tokenizer has {chat.size} ids, the weights only {rows}; "
            "take the tokenizer that these weights were trained with, or resize the model's embeddings"
        )
    return config, chat


def save(policy: Policy, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write weights, config, tokenizer, template and a model card with `facts`; the same policy gives the same bytes.

    Weights are merged with the adapter, which also stands beside them, in `adapter/`.
    The folder is written in place: where it must be whole or absent, the caller wraps it in `whole_folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet():
        plain = merged(policy.model) if adapted(policy.model) else None
        policy.model.save_pretrained(folder, state_dict=plain, max_shard_size="1000TB")
    if adapted(policy.model):
        save_adapter(policy.model, folder / ADAPTER)
    policy.chat.save(folder)
    (folder / "README.md").write_text(card(policy.model, facts), encoding="utf-8")


def _chat(folder: Path) -> Chat:
    try:
        with _quiet():
            return Chat.load(folder)
    except SgcdError:
        raise
    except Exception as problem:  # as below
        raise PolicyError(f"{folder}: no tokenizer can be read there ({first_line(problem)})") from problem


def weights(folder: Path, dtype: str, attention: str | None = None) -> PreTrainedModel:
    """The model alone, as transformers reads it; refused when a weight is missing or has another shape."""
    try:
        with _quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                attn_implementation=attention,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # told below, by name
                output_loading_info=True,
            )
    except ImportError as problem:
        raise PolicyError(f"policy.attention: {attention} cannot be used here ({first_line(problem)})") from problem
    except Exception as problem:  # transformers and safetensors raise a dozen kinds for what a folder can have wrong
        raise PolicyError(f"{folder}: no causal language model can be read there ({first_line(problem)})") from problem
    model, told = loaded
    for wrong, how in (("missing_keys", "missing"), ("mismatched_keys", "of another shape than config.json says")):
        names = sorted(str(key if isinstance(key, str) else key[0]) for key in told[wrong])
        if names:
            raise PolicyError(
                f"{folder}: {len(names)} of the model's weights are {how}, the first is {names[0]}; "
                "weights and config.json have to come from one save_pretrained"
            )
    return model


def _stop_at(model: PreTrainedModel, chat: Chat) -> None:
    """Whoever generates with the saved policy stops where a turn ends."""
    generation = model.generation_config
    if generation is None:
        return
    ends = generation.eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    if chat.end not in ends:
        generation.eos_token_id = [chat.end, *ends] if ends else chat.end
        generation._from_model_config = False
    if generation.pad_token_id is None:
        generation.pad_token_id = chat.pad


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no reports: what is wrong is said in an error of ours."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
