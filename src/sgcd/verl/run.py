"""Starts a run on verl: the recipe in verl's words, then verl's own task runner on Ray."""

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf, open_dict
from transformers import AutoModelForCausalLM

from sgcd.build_tasks import build_task_suite
from sgcd.errors import EngineError, RecipeError, SgcdError
from sgcd.learn.policy.load import read_policy_config, resolve_model
from sgcd.recipe.schema import Recipe
from sgcd.storage.atomic import SCHEMA, atomic_folder
from sgcd.storage.manifest import write_folder_manifest
from sgcd.storage.provenance import collect_provenance
from sgcd.storage.run_folder import TRAINED_FILE, RunFolder
from sgcd.text import cut_middle
from sgcd.verl.hooks import TaskRunnerV1, run_ppo, validate_config
from sgcd.verl.plugin import check_registered
from sgcd.verl.translate import translate


class SiblingTaskRunner(TaskRunnerV1.__ray_metadata__.modified_class):
    """verl's, which first makes sure that verl has loaded us in its process."""

    def run(self, config: Any) -> None:
        check_registered()
        super().run(config)


def compose_config(values: Mapping[str, Any]) -> Any:
    """verl's configuration of a run with these keys; refuses a key that verl does not have."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer")
    if unknown := [key for key in values if not key.startswith("+") and not has_key(config, key)]:
        raise RecipeError(f"verl.keys: verl has no {', '.join(unknown)}; to add a key write + before it")
    with open_dict(config):
        for key, value in values.items():
            OmegaConf.update(config, key.removeprefix("+"), value, force_add=True)
    return config


def has_key(config: Any, key: str) -> bool:
    """Whether verl's configuration has this key, with a value or without."""
    section, _, name = key.rpartition(".")
    found = OmegaConf.select(config, section)
    return found is not None and name in list(found)


def collect_verl_facts(recipe: Recipe) -> dict[str, Any]:
    """All facts that a repetition of the run needs; the weights are not read."""
    config, chat = read_policy_config(resolve_model(recipe.policy.start), recipe.policy.tool_instruction)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    suite = build_task_suite(recipe)
    return {
        **collect_provenance(torch.get_num_threads()),
        "seed": recipe.seed,
        "policy": {
            "start": recipe.policy.start,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "template": chat.template_hash,
        },
        "tasks": {split: len(tasks) for split, tasks in suite.splits.items()},
        "engine": {name: version(name) for name in ("verl", "ray", "TransferQueue")},
    }


def export_policy(recipe: Recipe, folder: Path) -> None:
    """verl's newest weights as the run's policy, with the template that the rollouts were rendered with."""
    steps = _checkpoint_steps(folder)
    if steps and (weights := folder / "verl" / f"global_step_{steps[-1]}" / "actor" / "huggingface").is_dir():
        with atomic_folder(folder / "policy") as target:
            shutil.copytree(weights, target, dirs_exist_ok=True)
            _, chat = read_policy_config(resolve_model(recipe.policy.start), recipe.policy.tool_instruction)
            chat.save(target)
            (target / TRAINED_FILE).write_text(json.dumps({"schema": SCHEMA, "step": steps[-1]}) + "\n")
            write_folder_manifest(target)


def resume_on_verl(recipe: Recipe, folder: RunFolder) -> None:
    """Go on after verl's newest checkpoint; rows of later steps are dropped, for they are trained again."""
    folder.rewind(max(_checkpoint_steps(folder.path), default=0))
    train_on_verl(recipe, folder.path)


def _checkpoint_steps(folder: Path) -> list[int]:
    """verl's checkpoints that are whole: it names the newest whole one in a file."""
    newest = folder / "verl" / "latest_checkpointed_iteration.txt"
    return [int(newest.read_text())] if newest.is_file() else []


def describe_ray_error(error: ray.exceptions.RayError, folder: Path) -> Exception:
    """Our own errors and lost processes in one line, without the processes that they passed through."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    if isinstance(cause, SgcdError):
        return EngineError(str(cause))
    if isinstance(cause, ModuleNotFoundError):
        return cause  # the command names the extra that has it
    if isinstance(cause, (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError)):
        reason = " ".join(str(cause).split())
        return EngineError(
            f"engine: a process of verl was lost ({cut_middle(reason, 300)}); the steps since the last checkpoint are "
            f"trained again: sgcd train --run {folder} --resume"
        )
    return error


def train_on_verl(recipe: Recipe, folder: Path) -> None:
    """Train to the end, or go on from verl's newest checkpoint in the folder. `folder` holds the recipe."""
    check_registered()
    values = translate(
        recipe, str(resolve_model(recipe.policy.start)), str((folder / "recipe.yaml").resolve()), str(folder.resolve())
    )
    config = compose_config(values)
    validate_config(config=config, use_reference_policy=recipe.surrogate.kl > 0, use_critic=False)
    try:
        run_ppo(config, task_runner_class=ray.remote(num_cpus=1)(SiblingTaskRunner))
    except ray.exceptions.RayError as error:
        raise describe_ray_error(error, folder) from None
    finally:
        ray.shutdown()
    export_policy(recipe, folder)
