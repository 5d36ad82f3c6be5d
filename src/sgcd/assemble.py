"""Builds the objects of a run from its recipe: the only place where all rooms meet."""

from pathlib import Path
from typing import Any

import torch

from sgcd.build_tasks import build_task_suite, build_user_endpoint, build_writer, build_writer_endpoint
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.contrast.settings import OracleWriterSettings
from sgcd.credit.methods import Method, build_method
from sgcd.credit.weight_controls import ControlledWeights
from sgcd.errors import RecipeError
from sgcd.lab.oracle import OracleReferenceBuilder
from sgcd.lab.settings import LabSettings, LongDeskSettings
from sgcd.learn.policy.head import check_head, get_head
from sgcd.learn.policy.load import Policy, load_trainable_policy
from sgcd.learn.policy.teacher_policies import TeacherPolicies, load_outside_teacher
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.scoring.logits.chunks import check_logits_bytes
from sgcd.learn.training.context import RunContext
from sgcd.learn.training.timers import ModelThread
from sgcd.recipe.schema import Recipe
from sgcd.storage.provenance import collect_provenance


def assemble(recipe: Recipe, threads: int | None = None, *, trains: bool = True) -> RunContext:
    """The objects of a run.

    The number of threads decides the order of the additions in a matrix product, and so its last bits. A resumed run
    passes the number in its facts as `threads`; None keeps torch's choice. What only plays (`trains=False`) loads no
    other policy for the method's teachers.
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    user_endpoint = build_user_endpoint(recipe)
    task_suite = build_task_suite(recipe, user_endpoint)
    policy = load_trainable_policy(recipe.policy, recipe.seed)
    check_head(policy.model)
    check_logits_bytes(get_head(policy.model).vocab_size, recipe.scoring.logits_bytes)
    model_thread = ModelThread()
    method, writer_endpoint = build_controlled_method(recipe), build_writer_endpoint(recipe.reference.writer)
    return RunContext(
        task_suite=task_suite,
        policy=policy,
        sampler=TorchSampler(policy.model, policy.chat, recipe.sampler, model_thread),
        method=method,
        reference_builder=reference_builder_class(recipe)(
            build_writer(recipe.reference.writer, method, writer_endpoint),
            policy.chat,
            recipe.reference.budget,
            recipe.reference.min_tokens,
            recipe.siblings.min_reward_gap,
        ),
        model_thread=model_thread,
        teacher_policies=load_teacher_policies(recipe, method, policy) if trains else TeacherPolicies(),
        writer_endpoint=writer_endpoint if method.needs and method.needs.needs_references else None,
        user_endpoint=user_endpoint,
    )


def build_controlled_method(recipe: Recipe) -> Method:
    """The recipe's method, its weights controlled where the recipe says so."""
    method, control = build_method(recipe.method), recipe.control
    if control in ("none", "permuted"):
        return method
    return ControlledWeights(method, control, recipe.seed)


def load_teacher_policies(recipe: Recipe, method: Method, policy: Policy) -> TeacherPolicies:
    """The outside teacher and the skill text, where a teacher of the method is or reads them."""
    needs, settings, outside, skill = method.needs, recipe.teacher, None, ""
    if needs and needs.needs_model("outside"):
        if settings.start is None:
            raise RecipeError(
                "teacher.start: the method's teacher is another policy (outside), and none is named; expected a "
                "folder, lab:NAME or OWNER/NAME of a policy with the same tokenizer"
            )
        outside = load_outside_teacher(settings.start, recipe.policy, policy)
    if needs and any(teacher.context == "skill" for teacher in needs.teachers):
        skill = read_skill(settings.skill)
    return TeacherPolicies(outside=outside, skill=skill)


def read_skill(path: str | None) -> str:
    if path is None or not Path(path).is_file():
        found = "none is named" if path is None else f"{path} is no file"
        raise RecipeError(f"teacher.skill: the method's teacher reads a skill text; expected a text file, {found}")
    return Path(path).read_text(encoding="utf-8").strip()


def reference_builder_class(recipe: Recipe) -> type[ReferenceBuilder]:
    """The lab's own for its oracle."""
    if not isinstance(recipe.reference.writer, OracleWriterSettings):
        return ReferenceBuilder
    if not isinstance(recipe.environment, LabSettings | LongDeskSettings):
        raise RecipeError(
            f"reference.writer: oracle knows the truth of the lab alone; expected environment.name lab or long_desk, "
            f"got {recipe.environment.name}; take built-in, trace or llm"
        )
    return OracleReferenceBuilder


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
        **({"sharing": context.task_suite.sharing} if context.task_suite.sharing else {}),
    }
