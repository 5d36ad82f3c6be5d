"""A recipe in verl's words: its configuration, and the keys that have no counterpart there."""

from typing import Any

from sgcd.assemble import build_controlled_method
from sgcd.build_tasks import first_prompt_tokens
from sgcd.errors import RecipeError
from sgcd.learn.policy.load import get_context_window, read_policy_config, resolve_model
from sgcd.learn.settings import MAX_MICRO_BATCH_TOKENS
from sgcd.recipe.schema import Recipe

_LOSS_AVERAGE = {
    "token_mean": "token-mean",
    "sequence_mean": "seq-mean-token-mean",
    "constant": "seq-mean-token-sum-norm",
}
_KL_ESTIMATE = {"k1": "kl", "k2": "mse", "k3": "low_var_kl"}


def translate(recipe: Recipe, model_path: str, recipe_path: str, folder: str) -> dict[str, Any]:
    """verl's keys and their values: all that differ from verl's own configuration of a GRPO run."""
    siblings, verl = recipe.siblings, recipe.verl
    window = verl.prompt_tokens + siblings.limits.tokens
    return {
        "trainer.use_v1": True,
        "trainer.v1.trainer_mode": "sync",
        "trainer.nnodes": verl.nodes,
        "trainer.n_gpus_per_node": verl.gpus,
        "trainer.total_epochs": 1,
        "trainer.total_training_steps": recipe.steps,
        "trainer.val_before_train": True,
        "trainer.test_freq": recipe.evaluation.every,
        "trainer.save_freq": recipe.checkpoint.every,
        "trainer.max_actor_ckpt_to_keep": recipe.checkpoint.keep,
        "trainer.default_local_dir": f"{folder}/verl",
        "trainer.logger": ["console"],
        "trainer.project_name": "sgcd",
        "trainer.experiment_name": folder,
        "data.train_batch_size": siblings.groups,
        "data.max_prompt_length": verl.prompt_tokens,
        "data.max_response_length": siblings.limits.tokens,
        "data.seed": recipe.seed,
        "algorithm.adv_estimator": "rloo" if recipe.surrogate.baseline == "leave_one_out" else "grpo",
        "algorithm.norm_adv_by_std_in_grpo": recipe.surrogate.scale_by_std,
        **_translate_actor(recipe, model_path, window),
        "actor_rollout_ref.rollout.name": verl.rollout,
        "actor_rollout_ref.rollout.n": siblings.group_size,
        "actor_rollout_ref.rollout.temperature": recipe.sampler.temperature,
        "actor_rollout_ref.rollout.top_p": recipe.sampler.top_p,
        "actor_rollout_ref.rollout.top_k": -1,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": verl.tensor_parallel,
        "actor_rollout_ref.rollout.max_model_len": window,
        "actor_rollout_ref.rollout.calculate_log_probs": True,
        "actor_rollout_ref.rollout.agent.default_agent_loop": "sgcd",
        "+sgcd.recipe": recipe_path,
        "+sgcd.folder": folder,
        **verl.keys,
    }


def list_no_counterpart(recipe: Recipe) -> list[str]:
    """The keys whose value verl cannot execute, each with what is expected."""
    surrogate, sampler = recipe.surrogate, recipe.sampler
    leave_one_out = surrogate.baseline == "leave_one_out"
    checks = {
        "control=permuted: expected none or a control on weights": recipe.control == "permuted",
        "reference.writer.name=oracle: expected built-in, trace or llm": recipe.reference.writer.name == "oracle",
        "surrogate.ratio=none: expected token or sequence": surrogate.ratio == "none",
        f"surrogate.trust_region={surrogate.trust_region}: expected clip": surrogate.trust_region != "clip",
        "surrogate.overlong: expected null": surrogate.overlong is not None,
        "surrogate.scale_by_std=true with baseline=leave_one_out: expected false": leave_one_out
        and surrogate.scale_by_std,
        f"sampler.lookahead={sampler.lookahead}: expected 0": sampler.lookahead > 0,
        "trackers: expected none": bool(recipe.trackers),
        **_check_method(recipe),
    }
    return [problem for problem, is_found in checks.items() if is_found]


async def check_for_verl(recipe: Recipe) -> int:
    """Refuse a recipe that verl cannot execute as it says; returns the tokens of the first task's prompt."""
    check_counterparts(recipe)
    config, chat = read_policy_config(resolve_model(recipe.policy.start), recipe.policy.tool_instruction)
    num_tokens = await first_prompt_tokens(recipe, chat)
    check_server_window(recipe, num_tokens, get_context_window(config))
    return num_tokens


def check_server_window(recipe: Recipe, prompt_tokens: int, window: int) -> None:
    """Refuse a first task, or a window of the model, that the server's window cannot hold or pass."""
    longest, response = recipe.verl.prompt_tokens, recipe.siblings.limits.tokens
    if prompt_tokens > longest:
        raise RecipeError(
            f"verl.prompt_tokens: the first task's prompt has {prompt_tokens} tokens, more than {longest}; expected at "
            "least as many as the longest prompt of all tasks has"
        )
    if longest + response > window:
        raise RecipeError(
            f"verl.prompt_tokens: {longest} tokens of prompt and {response} of siblings.limits.tokens do not fit the "
            f"policy's window of {window}; lower one of them"
        )


def _check_method(recipe: Recipe) -> dict[str, bool]:
    """Teachers that verl's workers cannot be: other models, or comparisons among teachers."""
    needs, name = build_controlled_method(recipe).needs, recipe.method.name
    if needs is None:
        return {}
    return {
        f"method.name={name}: it imitates a teacher in the loss; expected credit or pull": needs.imitated is not None,
        f"method.name={name}: its teacher is another model; expected the current policy": any(
            teacher.model != "current" for teacher in needs.teachers
        ),
        f"method.name={name}: it reads a skill text; expected another context": any(
            teacher.context == "skill" for teacher in needs.teachers
        ),
        f"method.name={name}: it compares two teachers; expected one that is compared with the student": (
            needs.compare_with != "student" or needs.support != "teacher"
        ),
    }


def check_counterparts(recipe: Recipe) -> None:
    """Refuse a recipe that verl would execute otherwise than it says."""
    if problems := list_no_counterpart(recipe):
        raise RecipeError(f"engine=verl has no counterpart of {'; of '.join(problems)}; or take engine=local")


def _translate_actor(recipe: Recipe, model_path: str, window: int) -> dict[str, Any]:
    surrogate, optimizer, verl = recipe.surrogate, recipe.optimizer, recipe.verl
    actor, attention = "actor_rollout_ref.actor", recipe.policy.attn_implementation or "sdpa"
    precision = {"float32": "fp32", "bfloat16": "bf16"}[recipe.policy.dtype]
    tokens = max(optimizer.micro_batch_tokens or MAX_MICRO_BATCH_TOKENS, window)
    scored_tokens = max(recipe.scoring.micro_batch_tokens or MAX_MICRO_BATCH_TOKENS, window + recipe.reference.budget)
    return {
        "actor_rollout_ref.model.path": model_path,
        "actor_rollout_ref.model.lora_rank": recipe.policy.lora.rank,
        "actor_rollout_ref.model.enable_gradient_checkpointing": recipe.policy.gradient_checkpointing,
        "actor_rollout_ref.model.use_remove_padding": attention == "flash_attention_2",
        "+actor_rollout_ref.model.override_config.attn_implementation": attention,
        "actor_rollout_ref.rollout.dtype": recipe.policy.dtype,
        f"{actor}.fsdp_config.dtype": recipe.policy.dtype,
        f"+{actor}.fsdp_config.mixed_precision.param_dtype": precision,
        "+actor_rollout_ref.ref.fsdp_config.mixed_precision.param_dtype": precision,
        f"{actor}.strategy": "fsdp2",
        f"{actor}.optim.lr": optimizer.lr,
        f"{actor}.optim.lr_warmup_steps": optimizer.warmup,
        f"{actor}.optim.zero_indexed_step": False,
        f"{actor}.optim.betas": list(optimizer.betas),
        f"{actor}.optim.weight_decay": optimizer.weight_decay,
        f"{actor}.grad_clip": optimizer.clip_norm,
        f"{actor}.ppo_mini_batch_size": recipe.siblings.groups,
        f"{actor}.ppo_epochs": optimizer.updates,
        f"{actor}.use_dynamic_bsz": True,
        f"{actor}.ppo_max_token_len_per_gpu": tokens,
        "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz": True,
        "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu": scored_tokens,
        f"{actor}.clip_ratio": surrogate.clip,
        f"{actor}.clip_ratio_low": surrogate.clip,
        f"{actor}.clip_ratio_high": surrogate.highest_clip,
        f"{actor}.clip_ratio_c": surrogate.dual_clip or 1e9,
        f"{actor}.loss_agg_mode": _LOSS_AVERAGE[surrogate.average],
        f"{actor}.loss_scale_factor": recipe.siblings.limits.tokens if surrogate.average == "constant" else None,
        f"{actor}.use_kl_loss": surrogate.kl > 0,
        f"{actor}.kl_loss_coef": surrogate.kl,
        f"{actor}.kl_loss_type": _KL_ESTIMATE[surrogate.kl_estimate],
        f"{actor}.entropy_coeff": 0,
        f"{actor}.policy_loss.loss_mode": "gspo" if surrogate.ratio == "sequence" else "vanilla",
        f"{actor}.data_loader_seed": recipe.seed,
        f"{actor}.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        "reward.num_workers": 1,
        "actor_rollout_ref.rollout.agent.num_workers": verl.agent_loops,
    }
