"""verl's worker, which also reads each rollout as its teachers do: one more forward pass for each teacher."""

from typing import Any

import torch

from sgcd.verl.hooks import ActorRolloutRefWorker, make_nd_compute_dataproto_dispatch_fn, register, tu
from sgcd.verl.readers import ROW, TEACHER_PROMPT, StudentReader, TeacherReader


class CreditWorker(ActorRolloutRefWorker):
    """verl's hybrid worker. Rows that name no teacher are read as verl reads them."""

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_log_prob(self, data: Any) -> Any:
        """Old log-probabilities and entropies, and where rows have teachers what these say of each token."""
        names = sorted(name for name in data.keys() if name.startswith(TEACHER_PROMPT))  # noqa: SIM118 - a TensorDict
        if not names:
            return super().compute_log_prob(data)
        data[ROW] = torch.arange(len(data))
        teachers: list[TeacherReader] = []
        for name in names:
            teachers.append(TeacherReader(int(data["sgcd_k"])))
            self._read(build_teacher_rows(data, name), teachers[-1])
        output = self._read(data, StudentReader(teachers, data["sgcd_divergence"]))
        return None if output is None else output.cpu()

    def _read(self, data: Any, reader: Any) -> Any:
        """One pass without a gradient, through the hook that verl has for losses on logits."""
        tu.assign_non_tensor(data, compute_loss=True, distillation_use_topk=True)
        loss_fn = self.actor.loss_fn
        self.actor.set_loss_fn(reader)
        try:
            return self.actor.infer_batch(data)
        finally:
            self.actor.set_loss_fn(loss_fn)


def build_teacher_rows(data: Any, name: str) -> Any:
    """The same responses after the prompts that a teacher reads."""
    prompts, responses = data[name].unbind(), data["responses"].unbind()
    input_ids = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    position_ids = [torch.arange(len(ids), device=ids.device) for ids in input_ids]
    jagged = {"input_ids": input_ids, "position_ids": position_ids}
    return tu.get_tensordict(
        {
            **{key: torch.nested.as_nested_tensor(rows, layout=torch.jagged) for key, rows in jagged.items()},
            "response_mask": data["response_mask"],
            "loss_mask": data["response_mask"],
            ROW: data[ROW],
        },
        non_tensor_dict={"temperature": data["temperature"], "calculate_entropy": False},
    )
