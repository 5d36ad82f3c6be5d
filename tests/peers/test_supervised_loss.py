"""TRL's SFTTrainer as an oracle: the same model and conversations have the same loss on assistant turns alone."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not in this environment; `make integration` runs tests/peers in .venv-trl")
from helpers.tiny_policy import CHAT, model
from sgcd.lab.policy import LAB_CHAT_TEMPLATE, build_lab_tokenizer
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.supervised.conversations import Conversation, GivenMessage
from sgcd.learn.supervised.encode import encode_conversation
from sgcd.learn.supervised.trainer import accumulate_supervised

TURN = "{{ message.content }}{% if not message.unfinished %} <|end|>"
"""The tokens of a turn in the lab's template, which TRL's mask needs marked."""
TALKS = [
    [("system", "cabin"), ("user", "please cancel it"),
     ("assistant", "one moment please <call> find_user name mia </call>"),
     ("tool", "user : mia"), ("assistant", "it is done thank you and goodbye")],
    [("user", "hello"), ("assistant", "hello")],
    [("user", "hello i am mia"), ("assistant", "one moment please"), ("user", "please"), ("assistant", "it is done")],
]  # fmt: skip

FIND_USER = (
    {"type": "function", "function": {"name": "find_user", "parameters": {"type": "object", "properties": {}}}},
)


def test_the_loss_and_the_gradient_are_those_of_trls_trainer(tmp_path: Path) -> None:
    trl: Any = import_module("trl")
    rows: Any = import_module("datasets").Dataset
    assert TURN in LAB_CHAT_TEMPLATE
    tokenizer = build_lab_tokenizer()
    tokenizer.chat_template = LAB_CHAT_TEMPLATE.replace(
        f"<|assistant|> {TURN}\n", f"<|assistant|> {{% generation %}}{TURN}{{% endgeneration %}}\n"
    ).replace("<|end|>{% endgeneration %}", "<|end|>{% endif %}{% endgeneration %}{% if not message.unfinished %}")
    talks = [[{"role": role, "content": content} for role, content in talk] for talk in TALKS]
    policy = model()
    config = trl.SFTConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=len(TALKS),
        assistant_only_loss=True,
        max_length=None,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    trainer = trl.SFTTrainer(
        model=policy,
        args=config,
        train_dataset=rows.from_list([{"messages": talk, "tools": json.dumps(FIND_USER)} for talk in talks]),
        processing_class=tokenizer,
    )
    theirs = trainer.compute_loss(policy, next(iter(trainer.get_train_dataloader())))
    theirs.backward()
    gradients = [parameter.grad.clone() for parameter in policy.parameters()]
    policy.zero_grad()
    rollouts = [
        encode_conversation(
            Conversation(tuple(GivenMessage.model_validate(message) for message in talk), FIND_USER, f"talk {number}"),
            CHAT,
        )
        for number, talk in enumerate(talks)
    ]
    ours = accumulate_supervised(policy, rollouts, ForwardConfig())
    assert ours.loss == pytest.approx(float(theirs.detach()), abs=1e-5)
    for parameter, gradient in zip(policy.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5)
