"""Records as bytes, and back without loss: texts as JSON lines, one for each group; token arrays as safetensors."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from sgcd.errors import FolderError, RecordError
from sgcd.files import SCHEMA, Row, check_schema
from sgcd.records import Call, Credit, Features, Rollout, Scored, Siblings, Task, Turn, Verdict

Arrays = dict[str, NDArray[Any]]
PROMPT = ("prompt",)
RESPONSE = ("response", "mask", "kinds", "sampled_logp")
FEATURES = ("divergence", "entropy", "gap")


@dataclass(frozen=True, slots=True)
class Group:
    """One group as a step played it, and whether the step learnt from it."""

    siblings: Siblings
    kept: bool


def groups_to_bytes(step: int, groups: Sequence[Siblings], kept: Sequence[bool]) -> tuple[bytes, bytes]:
    """JSON lines and safetensors. The arrays of all rollouts stand end to end, in the order of the lines."""
    lines: list[str] = []
    for group, flag in zip(groups, kept, strict=True):
        tools: list[Any] = []
        row = {
            "schema": SCHEMA,
            "step": step,
            "kept": flag,
            "task": {"id": group.task.id, "category": group.task.category, "row": group.task.row},
            "rollouts": [_texts(rollout, tools) for rollout in group.rollouts],
            "broken": [_texts(rollout, tools) for rollout in group.broken],
            "tools": tools,
        }
        lines.append(json.dumps(row, default=_refused) + "\n")
    rollouts = [rollout for group in groups for rollout in (*group.rollouts, *group.broken)]
    arrays: Arrays = {name: _joined(getattr(rollout, name) for rollout in rollouts) for name in PROMPT + RESPONSE}
    arrays["prompt_lengths"] = _lengths(rollout.prompt for rollout in rollouts)
    arrays["response_lengths"] = _lengths(rollout.response for rollout in rollouts)
    return "".join(lines).encode(), save(arrays, {"schema": str(SCHEMA)})


def groups_from_bytes(lines: bytes, arrays: bytes, where: str) -> list[Group]:
    rows: list[Row] = [json.loads(line) for line in lines.splitlines()]
    flat = load(arrays)
    told = [text for row in rows for text in (*row["rollouts"], *row["broken"])]
    if len(told) != len(flat["response_lengths"]):
        stored = len(flat["response_lengths"])
        raise FolderError(f"{where}: tells of {len(told)} rollouts, but the arrays beside it are of {stored}")
    parts = {name: iter(_parted(flat[name], flat["prompt_lengths"])) for name in PROMPT}
    parts |= {name: iter(_parted(flat[name], flat["response_lengths"])) for name in RESPONSE}

    def rollout(text: Row, tools: Sequence[Any]) -> Rollout:
        return _rollout(text, tools, {name: next(part) for name, part in parts.items()})

    groups: list[Group] = []
    for number, row in enumerate(rows, start=1):
        check_schema(row, f"{where}, line {number}")
        task = Task(**row["task"])
        played = tuple(rollout(text, row["tools"]) for text in row["rollouts"])
        broken = tuple(rollout(text, row["tools"]) for text in row["broken"])
        groups.append(Group(Siblings(task, played, broken), row["kept"]))
    return groups


def _texts(rollout: Rollout, tools: list[Any]) -> Row:
    """All of a rollout but its arrays and its task; its tools by their place among the group's."""
    own = list(rollout.tools)
    if own not in tools:
        tools.append(own)
    return {
        "task": rollout.task,
        "category": rollout.category,
        "sibling": rollout.sibling,
        "seed": rollout.seed,
        "insert_at": rollout.insert_at,
        "ending": rollout.ending,
        "broken": rollout.broken,
        "verdict": _verdict(rollout.verdict),
        "cuts": dict(rollout.cuts),
        "turns": [_turn(turn) for turn in rollout.turns],
        "messages": list(rollout.messages),
        "private": list(rollout.private),
        "private_kinds": dict(rollout.private_kinds),
        "tools": tools.index(own),
    }


def _verdict(verdict: Verdict | None) -> Row | None:
    if verdict is None:
        return None
    return {"reward": verdict.reward, "success": verdict.success, "facts": dict(verdict.facts)}


def _turn(turn: Turn) -> Row:
    calls = [{"name": call.name, "arguments": dict(call.arguments), "failed": call.failed} for call in turn.calls]
    return {"start": turn.start, "stop": turn.stop, "calls": calls, "malformed": turn.malformed, "exact": turn.exact}


def _rollout(text: Row, tools: Sequence[Any], arrays: Arrays) -> Rollout:
    turns: list[Turn] = []
    for turn in text["turns"]:
        calls = tuple(Call(**call) for call in turn["calls"])
        turns.append(Turn(turn["start"], turn["stop"], calls, turn["malformed"], turn.get("exact", True)))
    whole: Row = {
        **text,
        **arrays,
        "verdict": None if text["verdict"] is None else Verdict(**text["verdict"]),
        "turns": tuple(turns),
        "messages": tuple(text["messages"]),
        "private": tuple(text["private"]),
        "tools": tuple(tools[text["tools"]]),
    }
    return Rollout(**whole)


def credit_to_bytes(scored: Mapping[str, Scored]) -> bytes:
    """Credit of rollouts and what it was read from, by their names; the arrays stand end to end.

    Of the optional arrays, only those that some rollout has are stored, each beside a flag for every rollout.
    """
    credit = [each.credit for each in scored.values()]
    arrays: Arrays = {
        "weight": _joined(one.weight for one in credit),
        "lengths": _lengths(one.weight for one in credit),
    }
    for name in ("advantage", "cap", "floor"):
        arrays[name] = np.array([getattr(one, name) for one in credit], np.float64)
    # Names are an array too: a header with several entries comes out in any order, and records are exact to the byte.
    arrays["names"] = np.frombuffer(json.dumps(list(scored)).encode(), np.uint8)
    optional: dict[str, list[NDArray[Any] | None]] = {
        name: [each.features and getattr(each.features, name) for each in scored.values()] for name in FEATURES
    }
    optional |= {name: [getattr(each, name) for each in scored.values()] for name in ("creditable", "saliency")}
    for name, parts in optional.items():
        some = [part for part in parts if part is not None]
        if some:
            arrays[name] = _joined(some)
            arrays[f"has_{name}"] = np.array([part is not None for part in parts])
    return save(arrays, {"schema": str(SCHEMA)})


def credit_from_bytes(data: bytes, where: str) -> dict[str, Scored]:
    told: Row = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    check_schema({"schema": int(told["schema"])}, where)
    flat = load(data)
    names: list[str] = json.loads(flat["names"].tobytes())
    optional = {name: _optional(flat, name) for name in (*FEATURES, "creditable", "saliency")}
    scored: dict[str, Scored] = {}
    for index, weight in enumerate(_parted(flat["weight"], flat["lengths"])):
        advantage, cap, floor = (float(flat[name][index]) for name in ("advantage", "cap", "floor"))
        own = {name: parts[index] for name, parts in optional.items()}
        features = {name: own.pop(name) for name in FEATURES}
        scored[names[index]] = Scored(
            Credit(advantage, weight, cap, floor),
            None if features["divergence"] is None else Features(**cast("Arrays", features)),
            **own,
        )
    return scored


def _optional(flat: Arrays, name: str) -> list[NDArray[Any] | None]:
    """The array of each rollout, None for those that have none."""
    if name not in flat:
        return [None] * len(flat["lengths"])
    has = flat[f"has_{name}"]
    parts = iter(_parted(flat[name], flat["lengths"][has]))
    return [next(parts) if here else None for here in has]


def _joined(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
    parts = list(arrays)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _lengths(arrays: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
    return np.array([len(array) for array in arrays], np.int64)


def _parted(array: NDArray[Any], lengths: NDArray[np.int64]) -> list[NDArray[Any]]:
    return np.split(array, np.cumsum(lengths)[:-1]) if len(lengths) else []


def _refused(value: object) -> Any:
    raise RecordError(
        f"a rollout holds {value!r}, a {type(value).__name__}; expected plain JSON in rows, messages, tools and facts"
    )
