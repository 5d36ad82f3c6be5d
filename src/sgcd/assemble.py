"""Builds the objects of a run from its recipe: the only place where all rooms meet."""

from typing import Any

import torch

from sgcd.build_tasks import build_task_suite, build_user_endpoint
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.contrast.settings import LlmWriterSettings
from sgcd.contrast.writers import Writer
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.contrast.writers.llm import LanguageModelWriter
from sgcd.contrast.writers.trace import TraceWriter
from sgcd.credit.methods import Method, build_method
from sgcd.endpoint.client import Endpoint
from sgcd.learn.policy.head import check_head, get_head
from sgcd.learn.policy.load import load_trainable_policy
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.scoring.logits.chunks import check_logits_bytes
from sgcd.learn.training.context import RunContext
from sgcd.learn.training.timers import ModelThread
from sgcd.recipe.schema import Recipe
from sgcd.storage.provenance import collect_provenance


def assemble(recipe: Recipe, threads: int | None = None) -> RunContext:
    """The objects of a run.

    The number of threads decides the order of the additions in a matrix product, and so its last bits. A resumed run
    passes the number in its facts as `threads`; None keeps torch's choice.
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    user_endpoint = build_user_endpoint(recipe)
    task_suite = build_task_suite(recipe, user_endpoint)
    policy = load_trainable_policy(recipe.policy, recipe.seed)
    check_head(policy.model)
    check_logits_bytes(get_head(policy.model).vocab_size, recipe.scoring.logits_bytes)
    model_thread = ModelThread()
    method, writer_endpoint = build_method(recipe.method), build_writer_endpoint(recipe)
    return RunContext(
        task_suite=task_suite,
        policy=policy,
        sampler=TorchSampler(policy.model, policy.chat, recipe.sampler, model_thread),
        method=method,
        reference_builder=ReferenceBuilder(
            build_writer(recipe, method, writer_endpoint),
            policy.chat,
            recipe.reference.budget,
            recipe.reference.min_tokens,
            recipe.siblings.min_reward_gap,
        ),
        model_thread=model_thread,
        writer_endpoint=writer_endpoint if method.needs and method.needs.needs_references else None,
        user_endpoint=user_endpoint,
    )


def build_writer(recipe: Recipe, method: Method, endpoint: Endpoint | None) -> Writer:
    """Failures are named only where the divergence is taken between two teachers that both read of them."""
    names_failures = method.needs is not None and method.needs.against == "swapped"
    if endpoint:
        return LanguageModelWriter(endpoint, names_failures)
    return TraceWriter() if recipe.reference.writer.name == "trace" else BuiltInWriter(names_failures)


def build_writer_endpoint(recipe: Recipe) -> Endpoint | None:
    writer = recipe.reference.writer
    return Endpoint(writer, "reference.writer") if isinstance(writer, LlmWriterSettings) else None


def collect_facts(recipe: Recipe, context: RunContext) -> dict[str, Any]:
    """All facts that a repetition of the run needs; facts.json holds them."""
    num_parameters = sum(parameter.numel() for parameter in context.policy.model.parameters())
    user = context.user_endpoint
    return {
        **collect_provenance(torch.get_num_threads()),
        "seed": recipe.seed,
        "policy": {
            "start": recipe.policy.start,
            "parameters": num_parameters,
            "template": context.policy.chat.template_hash,
        },
        "tasks": {split: len(tasks) for split, tasks in context.task_suite.splits.items()},
        **({"user": {"model": user.settings.model}} if user else {}),
    }
