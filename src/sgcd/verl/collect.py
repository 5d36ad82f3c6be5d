"""Plays tasks through verl's agent loops until enough groups are mixed: our rule of refilling, in place of verl's."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import ray

from sgcd.act.settings import SiblingsSettings
from sgcd.errors import EngineError
from sgcd.records import Group, Task
from sgcd.verl.hooks import KVBatchMeta, tq, tu
from sgcd.verl.queue import take_rollouts

TRAIN = "train"
"""verl's partition of rows that are trained on."""
_POLL_SECONDS = 0.2
_PING_SECONDS = 30.0
"""How often the agent loops are asked whether they are still there, and how long they may take to answer."""


class QueuePlayer:
    """Submits tasks to the agent loops, and takes their rollouts from the queue as groups end."""

    def __init__(
        self, manager: Any, settings: SiblingsSettings, step: int, on_group_done: Callable[[Group], None]
    ) -> None:
        self._manager = manager
        self._settings = settings
        self._step = step
        self._on_group_done = on_group_done
        self.uids: dict[str, str] = {}
        """verl's id of each task that was played, by the task's."""

    async def play_tasks(self, tasks: Sequence[Task]) -> list[Group]:
        """All siblings of these tasks, side by side."""
        uids = {uuid4().hex: task for task in tasks}
        self.uids |= {task.id: uid for uid, task in uids.items()}
        groups: dict[str, Group] = {}
        rows = {uid: {"task_id": task.id} for uid, task in uids.items()}
        async for uid in play_rows(self._manager, rows, self._step):
            groups[uid] = await asyncio.to_thread(self._take_group, uid, uids[uid])
            self._on_group_done(groups[uid])
        return [groups[uid] for uid in uids]

    def take_batch(self, groups: Sequence[Group]) -> Any:
        """The rows of these groups as verl's batch, in their order; all other rows leave the queue."""
        tags = tq.kv_list(TRAIN)[TRAIN]
        keys = [key for group in groups for key in self.keys_of(group)]
        if unused := [key for key in tags if key not in set(keys)]:
            tq.kv_clear(keys=unused, partition_id=TRAIN)
        return KVBatchMeta(partition_id=TRAIN, keys=keys, tags=[tags[key] for key in keys])

    def keys_of(self, group: Group) -> list[str]:
        """verl's keys of the rows of a group."""
        uid = self.uids[group.task.id]
        return [f"{uid}_{rollout.sibling}_0" for rollout in group.rollouts]

    def _take_group(self, uid: str, task: Task) -> Group:
        rollouts = take_rollouts([f"{uid}_{sibling}" for sibling in range(self._settings.group_size)])
        return Group(
            task,
            tuple(rollout for rollout in rollouts if not rollout.broken),
            tuple(rollout for rollout in rollouts if rollout.broken),
        )


async def play_rows(manager: Any, rows: Mapping[str, Mapping[str, Any]], step: int) -> AsyncIterator[str]:
    """Submit rows to the agent loops, by verl's id of each; yields the ids as the rollouts of each have ended."""
    await asyncio.to_thread(submit_rows, manager, rows, step)
    running, pinged_at = list(rows), time.monotonic()
    while running:
        for uid in await asyncio.to_thread(find_ended, running):
            running.remove(uid)
            yield uid
        if time.monotonic() - pinged_at > _PING_SECONDS:
            await asyncio.to_thread(check_alive, manager.agent_loop_workers)
            pinged_at = time.monotonic()
        await asyncio.sleep(_POLL_SECONDS if running else 0)


def submit_rows(manager: Any, rows: Mapping[str, Mapping[str, Any]], step: int) -> None:
    """Each row is a prompt of verl's; all have the same fields."""
    tags = [{"is_prompt": True, "status": "pending", "global_steps": step} for _ in rows]
    tq.kv_batch_put(keys=list(rows), partition_id=TRAIN, tags=tags)
    fields = {name: [row[name] for row in rows.values()] for name in next(iter(rows.values()))}
    batch = tu.get_tensordict({"uid": list(rows), "index": list(range(len(rows))), **fields})
    tu.assign_non_tensor_data(batch, "global_steps", step)
    manager.generate_sequences(batch)


def find_ended(uids: Sequence[str]) -> list[str]:
    """Those whose last sibling has ended. A rollout that the server or the agent loop failed ends the run."""
    tags = tq.kv_list(TRAIN).get(TRAIN, {})
    if failed := [uid for uid in uids if tags[uid]["status"] == "failure"]:
        raise EngineError(
            f"engine: verl's server or agent loop failed while it played {len(failed)} tasks; its log has the error "
            "(Error in _run_prompt); resume the run once that is repaired"
        )
    return [uid for uid in uids if tags[uid]["status"] == "finished"]


def check_alive(workers: Sequence[Any]) -> None:
    """A lost agent loop ends the run: its rollouts would never end."""
    try:
        ray.get([worker.__ray_ready__.remote() for worker in workers], timeout=_PING_SECONDS)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
        raise EngineError(
            f"engine: an agent loop of verl was lost while it played ({type(error).__name__}); resume the run"
        ) from error
