"""Rollouts in verl's TransferQueue, beside the tensors of a batch: whole records, in a partition of their own."""

import pickle

import torch
from torch import Tensor

from sgcd.records import Rollout
from sgcd.verl.hooks import tq

ROLLOUTS = "sgcd_rollouts"
"""The partition; a key is {uid}_{sibling}."""


async def put_rollout(key: str, rollout: Rollout) -> None:
    """From the process that played it."""
    data = torch.frombuffer(bytearray(pickle.dumps(rollout)), dtype=torch.uint8)
    await tq.async_kv_put(key=key, partition_id=ROLLOUTS, fields={"rollout": data}, tag={"done": True})


def take_rollouts(keys: list[str]) -> list[Rollout]:
    """In the order of the keys; they leave the queue."""
    if not keys:
        return []
    data = tq.kv_batch_get(keys=keys, partition_id=ROLLOUTS, select_fields=["rollout"])["rollout"]
    rollouts = [_unpickle(one) for one in data.unbind()]
    tq.kv_clear(keys=keys, partition_id=ROLLOUTS)
    return rollouts


def _unpickle(data: Tensor) -> Rollout:
    return pickle.loads(data.numpy().tobytes())
