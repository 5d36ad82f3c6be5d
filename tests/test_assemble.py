"""No key of a recipe is dead: changing it changes a living object, and a run looks at it."""

import asyncio
import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import sgcd.assemble
from sgcd.act.settings import (
    AirlineSettings,
    AppWorldSettings,
    BfclSettings,
    OpenenvSettings,
    RecordedSettings,
    TextWorldSettings,
)
from sgcd.assemble import assemble, build_method, collect_facts
from sgcd.build_tasks import build_endpoint_evaluation
from sgcd.credit.signal_settings import ByTurnSettings
from sgcd.learn.policy import load as policy
from sgcd.learn.settings import SupervisedSettings, VerlSettings
from sgcd.learn.training.context import TrainConfig
from sgcd.learn.training.trainer import Trainer
from sgcd.recipe.keys import RecipeKey, list_keys
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import Recipe, dump_recipe
from sgcd.settings import Settings
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.provenance import environment_changes
from sgcd.storage.run_folder import RunFolder

BASES = {
    "own": ["environment.test=dev.jsonl"],
    "lora": ["policy.lora={rank: 2, targets: [q_proj, v_proj]}"],
    "lab": ["environment={name: lab, chatty: own}", "siblings.limits.turns=2"],
    "long_desk": ["environment={name: long_desk}", "siblings.limits.turns=2"],
    "llm": [
        "method={name: sgcd}",
        "reference.writer={name: llm, base_url: http://127.0.0.1:9/v1, model: m, pause: 0.001, retries: 1}",
        "reference.writer.prices.prompt=1.0",
    ],
    "user": [
        "environment={name: own, class: 'front:Desk', tasks: users.jsonl, dev: users.jsonl, user: {base_url: "
        "'http://127.0.0.1:9/v1', model: m, pause: 0.001, retries: 1, prices: {prompt: 1.0}}}",
    ],
    "rewards": [
        "environment={name: own, class: 'front:Desk', tasks: unjudged.jsonl, rewards: {one: 'rules:reward'}, "
        "categories: {order: {needs_tool: true}}}",
        "method={name: own, class: 'rules:Plain'}",
    ],
    "covariance": ["surrogate={trust_region: clip_cov, covariance: {}}", "optimizer.updates=2"],
    "overlong": ["surrogate.overlong={}"],
    "model": [
        "evaluation.model={base_url: 'http://127.0.0.1:9/v1', model: m, pause: 0.001, retries: 1, prices: {prompt: 1}}"
    ],
}
LEARNT = [
    "environment={name: lab}",
    "policy.start=lab:plain",
    "method={name: sgcd}",
    "siblings={groups: 2, group_size: 8}",
]
"""A policy that has learnt to heed a reference: without one there are no segments, and nobody asks how they are cut."""
RULES = """
import numpy as np

def reward(environment, row):
    return 1.0

class Plain:
    def signal(self, inputs):
        return np.ones(len(inputs.rollout.response))

class Other(Plain):
    pass
"""
"""Judges and credit rules of a user's own."""
TEXTS = {
    "policy.start": "other",
    "environment.thinking": 16,
    "environment.class": "front:Unjudged",
    "environment.tasks": "dev.jsonl",
    "environment.dev": "train.jsonl",
    "environment.test": "train.jsonl",
    "environment.system": "please be kind",
    "environment.reward": "rules:reward",
    "environment.rewards": {"one": "rules:reward"},
    "environment.reward_weights": {"one": 0.5},
    "method.class": "rules:Other",
    "teacher.start": "other",
    "teacher.skill": "skill.txt",
    "scoring.logits_bytes": 2**20,
    "surrogate.trust_region": "kl_cov",
    "surrogate.covariance.high": 6.0,
    "reference.writer.base_url": "http://127.0.0.1:10/v1",
    "reference.writer.model": "other",
    "reference.writer.key_env": "OTHER",
    "reference.writer.cache": "other.db",
    **{
        f"{section}.{name}": value
        for section in ("environment.user", "evaluation.model")
        for name, value in (
            ("base_url", "http://127.0.0.1:10/v1"),
            ("model", "other"),
            ("key_env", "OTHER"),
            ("cache", "other.db"),
        )
    },
}


class Nobody:
    def on_phase(self, name: str) -> None: ...
    def on_step(self, row: StepMetrics) -> None: ...
    def on_evaluation(self, summary: Mapping[str, Any]) -> None: ...


@pytest.fixture(scope="module", autouse=True)
def _in_one_folder(built_desk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing here changes a policy, so each is read once; `other` is a second one."""
    here = tmp_path_factory.mktemp("assembled")
    shutil.copytree(built_desk, here, dirs_exist_ok=True)
    other = policy.load_policy(here / "policy", "float32")
    with torch.no_grad():
        next(other.model.parameters()).add_(0.125)
    policy.save_policy(other, here / "other", {})
    rows = [json.loads(line) for line in (here / "train.jsonl").read_text().splitlines()]
    (here / "rules.py").write_text(RULES)
    (here / "skill.txt").write_text("look first")
    unjudged = [
        {name: value for name, value in row.items() if name != "verifier"} | {"category": "order"} for row in rows
    ]
    (here / "unjudged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in unjudged))
    (here / "users.jsonl").write_text("".join(json.dumps({**row, "user": "mia"}) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(here)
        patched.setattr(sgcd.assemble, "load_trainable_policy", cache(policy.load_trainable_policy))
        yield


def another(schema: Mapping[str, Any], path: str, value: Any) -> Any:
    """A valid value that is not `value`."""
    if path in TEXTS:
        return TEXTS[path]
    if "anyOf" in schema:
        return None if value is not None else another(schema["anyOf"][0], path, None)
    if "enum" in schema:
        return next(choice for choice in schema["enum"] if choice != value)
    match schema["type"]:
        case "boolean":
            return not value
        case "array" if "items" in schema:
            return value[1:]
        case "array":
            return [0.5 * item for item in value]
        case "integer":
            low, high = schema.get("minimum", 0), schema.get("maximum", 2**31)
            return next(n for n in (low + 1, low) if n != value and n <= high)
        case _:
            low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            high = schema.get("maximum", schema.get("exclusiveMaximum", low + 1))
            return next(x for x in (low + (high - low) / 4, low + (high - low) / 2) if x != value)


def at(recipe: Recipe, path: str) -> Any:
    value: Any = recipe.model_dump(mode="json", by_alias=True)
    for part in path.split("."):
        value = value[part]
    return value


def changed(recipe: Recipe, path: str, value: Any) -> Recipe:
    data = recipe.model_dump(mode="json", by_alias=True)
    *sections, last = path.split(".")
    inner = data
    for section in sections:
        inner = inner[section]
    inner[last] = value
    return Recipe.model_validate(data)


def fingerprint(recipe: Recipe) -> dict[str, str]:
    """What the living objects hold, each walked by itself; of the recipe only what the trainer declares to read."""
    context = assemble(recipe)
    trainer = Trainer(recipe, context, Nobody(), folder=RunFolder(Path("nowhere"), {}))
    declared = [name for name, value in vars(TrainConfig).items() if isinstance(value, property)]
    living: dict[str, Any] = {
        "splits": context.task_suite.splits,
        "environment": context.task_suite.environment_factory(),
        "model": context.policy.model,
        "sampler": context.sampler,
        "method": context.method,
        "contrast": context.reference_builder,
        "plan": {name: getattr(trainer.config, name) for name in declared},
    }
    return {name: hashlib.sha256("\n".join(told(thing)).encode()).hexdigest() for name, thing in living.items()}


def told(thing: Any, depth: int = 0) -> Iterator[str]:
    """Every number and word that can be reached from an object, in a fixed order."""
    yield type(thing).__name__
    if isinstance(thing, torch.nn.Module):
        config: Any = thing.config
        again = [getattr(each, "gradient_checkpointing", False) for each in thing.modules()]
        yield f"{config._attn_implementation} {any(again)}"
        yield from (f"{name} {each.scaling}" for name, each in thing.named_modules() if hasattr(each, "lora_A"))
        for name, weight in thing.state_dict().items():
            yield f"{name} {weight.dtype} {weight.float().sum().item()}"
    elif thing is None or isinstance(thing, str | int | float | type | np.dtype | Enum | torch.dtype):
        yield repr(thing)
    elif depth > 6 or isinstance(thing, Recipe):
        return
    elif isinstance(thing, Mapping):
        for key, value in thing.items():
            yield repr(key)
            yield from told(value, depth + 1)
    elif isinstance(thing, Sequence):
        for value in thing:
            yield from told(value, depth + 1)
    else:
        for name, value in sorted(inside(thing).items()):
            yield name
            yield from told(value, depth + 1)


def inside(thing: Any) -> dict[str, Any]:
    if type(thing).__module__.partition(".")[0] != "sgcd":
        return {}
    if dataclasses.is_dataclass(thing):
        return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
    return dict(vars(thing))


@cache
def fingerprint_of_base(base: str) -> dict[str, str]:
    return fingerprint(load_recipe(Path("recipe.yaml"), BASES[base]))


BESIDE = ("airline", "appworld", "bfcl", "openenv", "recorded", "textworld")
"""Environments that other processes or other files play; tests in folders of these names assemble them."""


def live_keys() -> list[Any]:
    """Every key that can have another value, with the base recipe in which it exists."""
    wanted: list[Any] = []
    for key in list_keys(Recipe):
        base = key.variant[1] if key.variant and key.variant[0] == "environment.name" else "own"
        base = "lora" if key.path.startswith("policy.lora.") else base
        base = "llm" if key.path.startswith("reference.writer.") else base
        base = "user" if key.path.startswith("environment.user.") else base
        base = "covariance" if key.path.startswith(("surrogate.covariance.", "surrogate.trust_region")) else base
        base = "overlong" if key.path.startswith("surrogate.overlong.") else base
        base = "model" if key.path.startswith("evaluation.model.") else base
        # which ask for another machine, another template or other tasks, or are read where the run starts
        elsewhere = key.path in (
            "policy.device", "policy.tool_instruction", "environment.categories", "engine", "trackers",
        )  # fmt: skip
        elsewhere |= key.path.startswith(("method.", "supervised.", "verl."))  # others read the last two
        elsewhere |= base in BESIDE
        if not key.is_section and "const" not in key.schema and not elsewhere:
            wanted.append(pytest.param(base, key, id=key.path))
    return wanted


@pytest.mark.parametrize(("base", "key"), live_keys())
def test_changing_any_key_changes_a_living_object(base: str, key: RecipeKey):
    recipe = load_recipe(Path("recipe.yaml"), BASES[base])
    other = changed(recipe, key.path, another(key.schema, key.path, at(recipe, key.path)))
    assert other != recipe
    assert fingerprint(other) != fingerprint_of_base(base)


def test_the_fingerprint_of_a_recipe_is_always_the_same():
    recipe = load_recipe(Path("recipe.yaml"), BASES["own"])
    assert fingerprint(recipe) == fingerprint(load_recipe(dump_recipe(recipe)))
    assert fingerprint_of_base("own") == fingerprint(recipe)


def method_keys() -> list[Any]:
    return [
        pytest.param(key, id=key.path)
        for key in list_keys(Recipe)
        if key.path.startswith("method.") and not key.is_section and "const" not in key.schema
    ]


@pytest.mark.parametrize("key", method_keys())
def test_changing_any_key_of_a_method_changes_the_method(key: RecipeKey):
    assert key.variant is not None
    rule = ", class: 'rules:Plain'" if key.variant[1] == "own" else ""
    recipe = load_recipe(Path("recipe.yaml"), [f"method={{name: {key.variant[1]}{rule}}}"])
    other = changed(recipe, key.path, another(key.schema, key.path, at(recipe, key.path)))
    assert list(told(build_method(other.method))) != list(told(build_method(recipe.method)))


def fields_of(model: type[Settings]) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        inner = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        sections = [each for each in inner if issubclass(each, Settings)]
        if sections:
            for section in sections:
                yield from fields_of(section)
        else:
            yield model.__name__, name


@pytest.mark.slow
def test_a_run_looks_at_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: set[tuple[str, str]] = set()

    def spy(self: Settings, name: str) -> Any:
        seen.add((type(self).__name__, name))
        return object.__getattribute__(self, name)

    names = {key.variant[1] for key in list_keys(Recipe) if key.variant and key.variant[0] == "method.name"}
    others = {name: [*LEARNT, f"method={{name: {name}}}"] for name in names - {"own", "sgcd", "by_turn"}}
    others["outside"] = [*LEARNT, "method={name: opd, teacher: outside}", "teacher.start=lab:plain-grpo"]
    others["skill"] = [*LEARNT, "method={name: opd, context: skill}", "teacher.skill=skill.txt"]
    others["kl_cov"] = [*BASES["covariance"], "surrogate.trust_region=kl_cov", "surrogate.kl=0.001"]
    for base, overrides in {**BASES, "sgcd": LEARNT, **others}.items():
        recipe = load_recipe(Path("recipe.yaml"), [*overrides, "steps=1", "evaluation.tasks=1", "siblings.rounds=2"])
        with monkeypatch.context() as patched:
            patched.setattr(
                sgcd.assemble, "load_trainable_policy", policy.load_trainable_policy
            )  # one of its own, since it is trained
            patched.setattr(Settings, "__getattribute__", spy)
            built = assemble(recipe)
            folder = RunFolder.create(tmp_path / base, "", collect_facts(recipe, built))
            asyncio.run(Trainer(recipe, built, Nobody(), folder=folder).run())
            if recipe.evaluation.model:
                asyncio.run(build_endpoint_evaluation(recipe).evaluate())
    one_value = {
        key.path.rpartition(".")[2] for key in list_keys(Recipe) if "const" in key.schema
    }  # checked, then known
    expected = {(owner, name) for owner, name in fields_of(Recipe) if name not in one_value}
    expected -= {*fields_of(SupervisedSettings), *fields_of(AirlineSettings)}  # sgcd sft and tests/airline read these
    expected -= {
        *fields_of(AppWorldSettings),
        *fields_of(BfclSettings),
        *fields_of(OpenenvSettings),
        *fields_of(TextWorldSettings),
    }  # folders of tests
    # sgcd credit reads recorded rollouts; tests/cli/test_graded_rewards.py has an environment with verdicts by turn
    expected -= {*fields_of(RecordedSettings), *fields_of(ByTurnSettings)}
    expected -= {*fields_of(VerlSettings), ("Recipe", "engine"), ("Recipe", "trackers")}  # sgcd train reads these first
    expected -= {("SurrogateSettings", "preset")}  # it sets other keys while a recipe is read
    assert sorted(expected - seen) == []


def test_facts_say_what_it_takes_to_repeat_a_run_and_nothing_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A_SECRET", "hunter2")
    recipe = load_recipe(Path("recipe.yaml"))
    built = assemble(recipe)
    facts = collect_facts(recipe, built)
    assert set(facts) == {"versions", "commit", "seed", "machine", "policy", "tasks"}
    assert facts["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert facts["machine"]["threads"] == torch.get_num_threads()
    assert re.fullmatch("[0-9a-f]{12}", facts["policy"].pop("template"))
    assert facts["policy"] == {"start": "policy", "parameters": sum(p.numel() for p in built.policy.model.parameters())}
    assert facts["tasks"] == {"train": 12, "dev": 6}
    text = repr(facts)
    assert "hunter2" not in text
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text


def test_a_run_keeps_the_number_of_threads_that_it_was_started_with():
    before = torch.get_num_threads()
    try:
        recipe = load_recipe(Path("recipe.yaml"))
        facts = collect_facts(recipe, assemble(recipe, threads=before + 1))
        assert facts["machine"]["threads"] == before + 1
    finally:
        torch.set_num_threads(before)


def test_what_has_changed_since_a_run_was_started_is_said():
    then = {"versions": {"python": "3.11.1", "torch": "2.12.0"}, "machine": {"processor": "A"}}
    now = {"versions": {"python": "3.11.1", "torch": "2.13.0"}, "machine": {"processor": "B"}}
    assert [line.split(" when")[0] for line in environment_changes(then, now)] == [
        "torch was 2.12.0",
        "processor was A",
    ]
    assert environment_changes(now, now) == []
