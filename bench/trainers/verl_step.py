"""What SGCD adds to a step on verl, in forward passes of the teacher over the same rows: CPU seconds of one process.

Runs in .venv-verl: `.venv-verl/bin/python bench/trainers/verl_step.py [--rounds 5]`. It is verl's worker with its FSDP
engine, in this process, and what the driver does between the worker's calls. TransferQueue and Ray are not in it.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "bench")]
os.environ |= {"VERL_PLATFORM": "cpu", "VERL_ENGINE_DEVICE": "cpu", "WORLD_SIZE": "1", "RANK": "0"}
os.environ |= {"LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29571"}

import torch  # noqa: E402
from performance import keep_trainer_figures  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.workers.utils.padding import response_from_nested  # noqa: E402

import helpers.verl_cpu  # noqa: E402, F401 - the platform, before the rest of verl
from helpers.verl_runs import SHIM_KEYS  # noqa: E402
from sgcd.bench.step import (  # noqa: E402
    CHAT,
    TOP_K,
    FixedReferences,
    build_bench_contrast,
    build_bench_recipe,
    build_bench_references,
    build_random_groups,
    build_small_qwen,
)
from sgcd.bench.timing import min_cpu_seconds  # noqa: E402
from sgcd.credit.methods import build_method  # noqa: E402
from sgcd.credit.settings import SgcdSettings  # noqa: E402
from sgcd.learn.policy.teacher_policies import TeacherPolicies  # noqa: E402
from sgcd.learn.scoring.forward import ForwardConfig  # noqa: E402
from sgcd.learn.training.timers import ModelThread, StepTimer  # noqa: E402
from sgcd.recipe.load import load_recipe  # noqa: E402
from sgcd.verl.credit import (  # noqa: E402
    PreparedGroup,
    TeacherInputBuilder,
    build_prompt_fields,
    config_only,
    credit_groups,
    prepare_groups,
    read_row_scores,
    teacher_prompts,
)
from sgcd.verl.readers import FEATURES, ROW, TEACHER_PROMPT, feature_name  # noqa: E402
from sgcd.verl.run import compose_config  # noqa: E402
from sgcd.verl.translate import translate  # noqa: E402
from sgcd.verl.worker import CreditWorker, build_teacher_rows  # noqa: E402

GROUP_SIZE, TURNS = 4, 6


def jagged(rows: list[Any]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.as_tensor(row).long() for row in rows], layout=torch.jagged)


class Step:
    """One step over fixed rollouts, as verl's driver and worker take it together."""

    def __init__(self, folder: Path) -> None:
        self.groups = build_random_groups(1, GROUP_SIZE, TURNS)
        self.rollouts = [rollout for group in self.groups for rollout in group.rollouts]
        self.recipe = build_bench_recipe()
        self.method = build_method(SgcdSettings.model_validate({"name": "sgcd", "k": TOP_K}))
        model = build_small_qwen()
        model.save_pretrained(folder)
        CHAT.save(folder)
        self.model_config = model.config
        keys = ["engine=verl", "surrogate.kl=0", "siblings={groups: 1, group_size: 4, limits: {tokens: 1024}}"]
        recipe = load_recipe(ROOT / "recipes/lab/sgcd.yaml", [*keys, "verl={gpus: 1, rollout: model}"])
        values = translate(recipe, str(folder), "", "")
        config = compose_config({**values, **{key: SHIM_KEYS[key] for key in SHIM_KEYS if "actor" in key}})
        self.worker = CreditWorker(config.actor_rollout_ref, "actor")
        self.worker.init_model()

    def prepare(self) -> list[PreparedGroup]:
        """What the driver does before the worker's pass."""
        references: Any = FixedReferences(build_bench_references(self.groups))
        builder = TeacherInputBuilder(
            groups=self.groups,
            needs=self.method.needs,
            model=config_only(self.model_config),
            policies=TeacherPolicies(),
            references=references,
            reference_builder=build_bench_contrast(self.recipe),
            forward_config=ForwardConfig(),
            timer=StepTimer(ModelThread(), lambda _: None),
        )
        return asyncio.run(prepare_groups(builder))

    def rows(self, fields: dict[str, Any], **extra: Any) -> Any:
        """A batch as the worker gets it."""
        masks = jagged([one.response_mask for one in self.rollouts])
        whole = [torch.cat([torch.as_tensor(one.prompt), torch.as_tensor(one.response)]) for one in self.rollouts]
        tensors = {
            "input_ids": jagged(whole),
            "position_ids": jagged([torch.arange(len(ids)) for ids in whole]),
            "prompts": jagged([one.prompt for one in self.rollouts]),
            "responses": jagged([one.response for one in self.rollouts]),
            "response_mask": masks,
            "loss_mask": masks,
            **fields,
        }
        return tu.get_tensordict(tensors, non_tensor_dict={"temperature": 1.0, **extra})

    def read_student(self, fields: dict[str, Any]) -> Any:
        extra = {"calculate_entropy": True, "compute_loss": False, "sgcd_k": TOP_K, "sgcd_divergence": "reverse_kl"}
        return self.worker.compute_log_prob(self.rows(fields, **extra))

    def update(self, logprobs: Any, advantages: Any) -> None:
        size = len(self.rollouts)
        fields = {"old_log_probs": logprobs, "advantages": advantages}
        extra = {"global_batch_size": size, "mini_batch_size": size, "epochs": 1, "seed": 0}
        data = self.rows(fields, calculate_entropy=False, distillation_use_topk=False, distillation_only=False, **extra)
        tu.assign_non_tensor(data, dataloader_kwargs={"shuffle": False})
        self.worker.update_actor(data)

    def grpo(self) -> None:
        output = self.read_student({})
        mask = jagged([one.response_mask for one in self.rollouts])
        logprobs = response_from_nested(output["log_probs"], mask)
        self.update(logprobs, nested([torch.full((len(one.response),), sign(one)) for one in self.rollouts]))

    def sgcd(self) -> None:
        prepared = self.prepare()
        prompts = teacher_prompts(prepared, self.method.needs.teachers)
        keys = [(one.task, one.sibling) for one in self.rollouts]
        own = jagged([one.prompt for one in self.rollouts])
        output = self.read_student(build_prompt_fields([prompts[key] for key in keys], own, 1))
        mask = jagged([one.response_mask for one in self.rollouts])
        names = [feature_name(feature, 0) for feature in FEATURES]
        data = {name: response_from_nested(output[name], mask) for name in names}
        data["old_log_probs"] = response_from_nested(output["log_probs"], mask)
        data["entropy"] = response_from_nested(output["entropy"], mask)
        scores = dict(zip(keys, read_row_scores(data, mask, 1), strict=True))
        advantages = {key: sign(one) for key, one in zip(keys, self.rollouts, strict=True)}
        credited = credit_groups(self.method, prepared, scores=scores, advantages=advantages, step=1)
        assert any(entry.features is not None and entry.features.divergence.max() > 0 for entry in credited)
        token_advantages = [torch.from_numpy(entry.signal.token_advantage) for entry in credited]
        self.update(data["old_log_probs"], nested(token_advantages))

    def teacher(self) -> Callable[[], None]:
        """A pass of verl's over the teacher's rows: log-probabilities alone, and nothing is compared."""
        prompts = teacher_prompts(self.prepare(), self.method.needs.teachers)
        own = jagged([one.prompt for one in self.rollouts])
        rows = [prompts[one.task, one.sibling] for one in self.rollouts]
        fields = build_prompt_fields(rows, own, 1)

        def read() -> None:
            data = self.rows({**fields, ROW: torch.arange(len(rows))})
            teacher_rows = build_teacher_rows(data, f"{TEACHER_PROMPT}0")
            tu.assign_non_tensor(teacher_rows, compute_loss=False)
            self.worker.actor.infer_batch(teacher_rows)

        return read


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([row.float() for row in rows], layout=torch.jagged)


def sign(rollout: Any) -> float:
    return 1.0 if rollout.reward else -1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        step = Step(Path(folder))
        arms = {"grpo": step.grpo, "sgcd": step.sgcd, "teacher": step.teacher()}
        seconds = min_cpu_seconds(arms, rounds, warmup=1)
    overhead = (seconds["sgcd"] - seconds["grpo"]) / seconds["teacher"]
    print(json.dumps({"seconds": seconds, "verl_overhead": overhead}))
    keep_trainer_figures(verl_overhead=overhead)


if __name__ == "__main__":
    main()
