"""Groups of random siblings with all that a method may read, for tests of methods."""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from pydantic import TypeAdapter

from helpers.training_runs import group
from sgcd.credit.advantage import advantages
from sgcd.credit.methods import CreditInputs, Method, build_method
from sgcd.credit.settings import MethodSettings
from sgcd.credit_records import Features, Teacher
from sgcd.records import Call, Group, Verdict

TEACHERS = (
    *(Teacher(context, model) for context in ("reference", "none") for model in ("current", "initial")),
    Teacher("neutral"),
)


def build_inputs(siblings: Group, seed: int, *, with_nan: bool = False, scored: bool = True) -> list[CreditInputs]:
    """Random features, entropies and masked literals for each rollout of a group."""
    rng = np.random.default_rng(seed)
    dealt = advantages([rollout.reward for rollout in siblings.rollouts]).tolist()
    built: list[CreditInputs] = []
    for rollout, advantage in zip(siblings.rollouts, dealt, strict=True):
        size = len(rollout.response)

        def numbers(scale: float, signed: bool = False, size: int = size) -> np.ndarray:
            values = rng.normal(0, scale, size) if signed else rng.exponential(scale, size)
            values *= rng.random(size) < 0.7
            if with_nan and size:
                values[rng.integers(size)] = rng.choice([np.nan, np.inf, -np.inf])
            return values.astype(np.float32)

        features = {
            teacher: Features(numbers(0.3), numbers(0.5), numbers(0.8, signed=True), numbers(0.4))
            for teacher in TEACHERS
        }
        built.append(
            CreditInputs(
                rollout,
                advantage,
                features if scored else {},
                rng.random(size) < 0.9,
                siblings,
                group_advantages=dealt,
                logprobs=-np.abs(numbers(1.0)),
                entropy=numbers(0.4),
                step=int(rng.integers(1, 60)),
            )
        )
    return built


@st.composite
def credit_cases(draw: st.DrawFn) -> list[CreditInputs]:
    """Two to four siblings with turns, calls and observations; some features are no numbers."""
    masks = draw(st.lists(st.text("x.", max_size=24), min_size=2, max_size=4))
    rewards = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(masks), max_size=len(masks)))
    ids, seed = draw(st.integers(2, 6)), draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    siblings = group(*masks)
    rollouts = tuple(
        replace(
            rollout,
            seed=index,
            response=rng.integers(0, ids, len(rollout.response)).astype(np.int32),
            token_kinds=(rollout.response_mask * rng.integers(1, 4, len(rollout.response))).astype(np.uint8),
            turns=tuple(
                replace(turn, calls=(Call("find", {"name": str(rng.integers(2))}),) * int(rng.integers(2)))
                for turn in rollout.turns
            ),
            messages=tuple(
                message
                for _ in rollout.turns
                for message in (
                    {"role": "assistant", "content": "call"},
                    {"role": "tool", "content": f"status {rng.integers(2)}"},
                )
            ),
            verdict=Verdict(
                reward, reward == 1, {"parts": [{"reward": float(rng.integers(2)), "turns": 1}] * int(rng.integers(3))}
            ),
        )
        for index, (rollout, reward) in enumerate(zip(siblings.rollouts, rewards, strict=True))
    )
    return build_inputs(
        replace(siblings, rollouts=rollouts), seed, with_nan=draw(st.booleans()), scored=draw(st.booleans())
    )


def three_siblings(wins: int = 1) -> list[CreditInputs]:
    """Several turns each, whose tokens have kinds, and observations that two of them share."""
    siblings, said = (
        group("xxx.xxxxx.xx", "xx.xxxx", ".xx..xxxx", wins=wins),
        [["late", "paid", ""], ["late", ""], ["paid", ""]],
    )
    rollouts = [
        replace(
            each,
            token_kinds=np.resize([1, 2, 3], len(each.response)) * each.response_mask,
            messages=tuple(
                message
                for text in said[index]
                for message in ({"role": "assistant", "content": "go"}, {"role": "tool", "content": text})
            ),
        )
        for index, each in enumerate(siblings.rollouts)
    ]
    return build_inputs(replace(siblings, rollouts=tuple(rollouts)), seed=5)


def build(name: str, **changes: Any) -> Method:
    return build_method(TypeAdapter[Any](MethodSettings).validate_python({"name": name, **changes}))


def pulls(name: str, case: list[CreditInputs], **changes: Any) -> list[list[float]]:
    method = build(name, **changes)
    if method.needs_whole_step:
        method.observe_step(case)
    signals = [method.assign_credit(inputs) for inputs in case]
    return [[] if signal.pull is None else signal.pull.tolist() for signal in signals]


def gaps_of(inputs: CreditInputs) -> list[float]:
    assert inputs.reference_features is not None
    return inputs.reference_features.teacher_logprob_gap.astype(float).tolist()


def turn_tokens(inputs: CreditInputs) -> list[list[int]]:
    return [[t for t in range(turn.start, turn.stop) if inputs.creditable_tokens[t]] for turn in inputs.rollout.turns]


def by_token(inputs: CreditInputs, values: list[float], elsewhere: float) -> list[float]:
    result = [elsewhere] * len(inputs.rollout.response)
    for tokens, value in zip(turn_tokens(inputs), values, strict=True):
        for t in tokens:
            result[t] = value
    return result


def between(inputs: CreditInputs, share: list[float], low: float, high: float, mean_one: bool) -> list[float]:
    mask = inputs.creditable_tokens
    weights = [low + (high - low) * min(1.0, max(0.0, s)) if on else 1.0 for s, on in zip(share, mask, strict=True)]
    mean = sum(w for w, on in zip(weights, mask, strict=True) if on) / max(1, int(mask.sum()))
    return [w / mean if on and mean_one else w for w, on in zip(weights, mask, strict=True)]
