"""A run written by hand: two steps, one task with two siblings and a broken one, every number known."""

from pathlib import Path
from typing import Any

import numpy as np

from sgcd.credit_records import Credit, CreditRecord, Features
from sgcd.records import Call, Group, Rollout, Task, Turn, Verdict
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.run_folder import RunFolder

RECIPE = "version: 1\nsteps: 2\nmethod:\n  name: METHOD\nevaluation:\n  split: dev\nenvironment:\n  name: lab\n"
AUDIT: dict[str, Any] = {"successes": 0, "without_tool": 0, "without_tool_share": None, "tools_per_success": None}
ROW: dict[str, Any] = {
    "tasks": 3,
    "mixed": 1,
    "uniform_success": 1,
    "uniform_failure": 1,
    "rollouts": 9,
    "broken": 0,
    "causes": {},
    "endings": {"answered": 9},
    "truncations": {},
    "reward": 0.5,
    "success": 0.5,
    "calls": 4,
    "calls_in_error": 0.0,
    "malformed_turns": 0,
    "audit": {"information": AUDIT, "action": AUDIT},
    "skipped": "",
    "loss": 0.25,
    "grad_norm": 0.5,
    "kl": None,
    "clip_share": 0.0,
    "entropy": 0.1,
    "seconds": {"sampling": 3.0, "training": 1.0, "total": 4.0},
}

# Six tokens: the policy wrote three, the environment one, the policy two more.
IDS = np.array([10, 11, 12, 13, 14, 15], np.int32)
MASK = np.array([1, 1, 1, 0, 1, 1], bool)
KINDS = np.array([1, 2, 2, 0, 3, 3], np.uint8)
WORDS = [" so", " call", " b12", " done", " yes", "\n"]


def rollout(sibling: int, success: bool, task: str = "t-1", **changes: Any) -> Rollout:
    fields: dict[str, Any] = {
        "task": task,
        "category": "action",
        "sibling": sibling,
        "seed": sibling,
        "prompt": np.array([1, 2], np.int32),
        "reference_position": 1,
        "response": IDS,
        "response_mask": MASK,
        "token_kinds": KINDS,
        "sampling_logprobs": np.zeros(6, np.float32),
        "turns": (Turn(0, 3, (Call("cancel", {"booking": "b12"}),)), Turn(4, 6)),
        "messages": (
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "please cancel b12"},
            {"role": "assistant", "content": "so call b12"},
            {"role": "tool", "content": "done"},
            {"role": "assistant", "content": "yes"},
        ),
        "tools": (),
        "end_reason": "answered",
        "verdict": Verdict(float(success), success, {"state": success, "note": None}),
    }
    return Rollout(**{**fields, **changes})


def scored(advantage: float, task: str = "t-1") -> CreditRecord:
    """Weight 2 on the call, 1.5 on the answer; the third token is a masked literal; the last has no divergence."""
    return CreditRecord(
        Credit(advantage, np.array([1, 2, 1, 1, 1.5, 1], np.float32), cap=2.0),
        Features(*(np.array(x, np.float32) for x in ([0, 1, 0.15, 9, 0.02, np.nan], [0] * 6, [0, -1, 0.5, 9, 0, 0]))),
        np.array([1, 1, 0, 1, 1, 1], bool),
        np.array([0, 1, 0, 0, 0.5, 0], np.float32),
    )


def siblings(task: str = "t-1") -> Group:
    broken = rollout(2, False, task, verdict=None, broken="reply: timed out after 60 s", end_reason="broken")
    return Group(Task(task, "action", {}), (rollout(0, False, task), rollout(1, True, task)), (broken,))


def trial(step: int, task: int, mode: str, success: bool) -> dict[str, Any]:
    return {
        "seed": 0, "step": step, "split": "dev", "mode": mode, "temperature": 0.0, "trial": 0, "task": f"d-{task}",
        "category": ("action", "information")[task % 2], "success": success, "reward": float(success), "broken": "",
        "calls": 1, "failed_calls": 0, "malformed": 0, "looping": False, "turns": 2, "tokens": 5, "ending": "answered",
    }  # fmt: skip


def draw(path: Path, method: str = "sgcd", tasks: tuple[str, ...] = ("t-1",)) -> RunFolder:
    """The run of SGCD, or of GRPO: the same rollouts, every weight one, no features and no reference."""
    folder = RunFolder.create(path, RECIPE.replace("METHOD", method), {"seed": 3, "machine": {"cores": 2}})
    for step in (0, 2):
        folder.append_evaluation([trial(step, task, "greedy", task < 3 + step) for task in range(8)])
    for step in (1, 2):
        uniform = Group(Task("t-9", "action", {}), (rollout(0, True, "t-9"), rollout(1, True, "t-9")))
        folder.write_rollouts(step, [*map(siblings, tasks), uniform], [True] * len(tasks) + [False])
        ones = Credit(0.5, np.ones(6, np.float32))
        if method == "grpo":
            own = {f"{task}/{n}": CreditRecord(ones) for task in tasks for n in (0, 1)}
        else:
            own = {f"{task}/{n}": scored((-0.5, 0.5)[n], task) for task in tasks for n in (0, 1)}
            rows = [
                {"task": task, "text": "checks : none .", "writer": "built-in", "hash": "ab12", "siblings": [0, 1]}
                for task in tasks
            ]
            folder.write_references(step, rows)
        folder.write_credit(step, own)
        folder.append_metrics(StepMetrics.from_json({**ROW, "step": step, "loss": 0.25 * step}))
    return folder
