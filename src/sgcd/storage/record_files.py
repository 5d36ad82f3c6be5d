"""Records as bytes, and back without loss: texts as JSON lines, one for each group; token arrays as safetensors."""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from sgcd.credit_records import Credit, CreditRecord, Features
from sgcd.errors import DamageError, FolderError, RecordError
from sgcd.records import Group, Rollout, Task
from sgcd.storage.atomic import SCHEMA, Row, check_schema
from sgcd.storage.metrics import StepMetrics
from sgcd.text import get_first_line

ArrayMap = dict[str, NDArray[Any]]
_PROMPT_ARRAYS = ("prompt",)
_RESPONSE_ARRAYS = ("response", "response_mask", "token_kinds", "sampling_logprobs")
_ARRAYS = (*_PROMPT_ARRAYS, *_RESPONSE_ARRAYS)
_FIRST_KEYS = (
    "task",
    "category",
    "sibling",
    "seed",
    "reference_position",
    "end_reason",
    "broken",
    "verdict",
    "truncations",
    "turns",
    "messages",
    "private",
    "private_kinds",
    "tools",
)
"""The order of a rollout's keys in sgcd 0.1; other fields follow in the order of the class."""
_TRIAL_KEYS = frozenset("seed step split mode task category trial success broken".split())
"""Keys that every row of evaluation.jsonl has; measure/trial_rows.py knows them all."""
_FEATURE_ARRAYS = ("divergence", "teacher_entropy", "teacher_logprob_gap", "student_entropy")
_OLD_NAMES = {
    "insert_at": "reference_position",
    "ending": "end_reason",
    "cuts": "truncations",
    "failed": "is_error",
    "exact": "roundtrips",
    "entropy": "teacher_entropy",
    "has_entropy": "has_teacher_entropy",
    "creditable": "outside_literals",
    "unmasked": "outside_literals",
    "has_unmasked": "has_outside_literals",
    "has_creditable": "has_outside_literals",
    "mask": "response_mask",
    "kinds": "token_kinds",
    "sampled_logp": "sampling_logprobs",
    "gap": "teacher_logprob_gap",
    "has_gap": "has_teacher_logprob_gap",
}
"""Fields and arrays by the names that they had in run folders of sgcd 0.1: such folders are read as well."""

_ROLLOUT = TypeAdapter(Rollout)


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """One group as a step played it, and whether the step learnt from it."""

    group: Group
    is_kept: bool


@contextmanager
def reading(path: Path) -> Generator[None, None, None]:
    """Turn whatever a damaged file makes a reader raise into one line."""
    try:
        yield
    except (RecordError, SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError) as problem:
        raise DamageError(f"{path}: cannot be read ({get_first_line(problem)})") from problem


def groups_to_bytes(step: int, groups: Sequence[Group], kept: Sequence[bool]) -> tuple[bytes, bytes]:
    """JSON lines and safetensors. The arrays of all rollouts stand end to end, in the order of the lines."""
    lines: list[str] = []
    for group, is_kept in zip(groups, kept, strict=True):
        tools: list[Any] = []
        row = {
            "schema": SCHEMA,
            "step": step,
            "kept": is_kept,
            "task": {field.name: getattr(group.task, field.name) for field in fields(group.task)},
            "rollouts": [_rollout_to_json(rollout, tools) for rollout in group.rollouts],
            "broken": [_rollout_to_json(rollout, tools) for rollout in group.broken],
            "tools": tools,
        }
        lines.append(json.dumps(row, default=_refuse_value) + "\n")
    rollouts = [rollout for group in groups for rollout in (*group.rollouts, *group.broken)]
    arrays: ArrayMap = {name: _concatenate(getattr(rollout, name) for rollout in rollouts) for name in _ARRAYS}
    arrays["prompt_lengths"] = _array_lengths(rollout.prompt for rollout in rollouts)
    arrays["response_lengths"] = _array_lengths(rollout.response for rollout in rollouts)
    return "".join(lines).encode(), save(arrays, {"schema": str(SCHEMA)})


def groups_from_bytes(lines: bytes, arrays: bytes, where: str) -> list[StoredGroup]:
    rows: list[Row] = [json.loads(line) for line in lines.splitlines()]
    flat = _with_new_names(load(arrays))
    entries = [entry for row in rows for entry in (*row["rollouts"], *row["broken"])]
    if len(entries) != len(flat["response_lengths"]):
        stored = len(flat["response_lengths"])
        raise FolderError(f"{where}: tells of {len(entries)} rollouts, but the arrays beside it are of {stored}")
    parts = {name: iter(_split_arrays(flat[name], flat["prompt_lengths"])) for name in _PROMPT_ARRAYS}
    parts |= {name: iter(_split_arrays(flat[name], flat["response_lengths"])) for name in _RESPONSE_ARRAYS}

    def rollout(entry: Row, tools: Sequence[Any]) -> Rollout:
        return _rollout_from_json(entry, tools, {name: next(part) for name, part in parts.items()})

    groups: list[StoredGroup] = []
    for number, row in enumerate(rows, start=1):
        check_schema(row, f"{where}, line {number}")
        task = Task(**row["task"])
        played = tuple(rollout(entry, row["tools"]) for entry in row["rollouts"])
        broken = tuple(rollout(entry, row["tools"]) for entry in row["broken"])
        groups.append(StoredGroup(Group(task, played, broken), row["kept"]))
    return groups


def _rollout_to_json(rollout: Rollout, tools: list[Any]) -> Row:
    """A rollout without its arrays; its tools are an index into those of the group."""
    rollout_tools = list(rollout.tools)
    if rollout_tools not in tools:
        tools.append(rollout_tools)
    # Without warnings: a value that is no JSON is refused when the line is written, with a message of its own.
    columns: Row = _ROLLOUT.dump_python(rollout, exclude={*_ARRAYS, "tools"}, warnings=False)
    return {**dict.fromkeys(_FIRST_KEYS), **columns, "tools": tools.index(rollout_tools)}


def _rollout_from_json(entry: Row, tools: Sequence[Any], arrays: ArrayMap) -> Rollout:
    fields = _with_new_names(entry)
    turns = [_with_new_names(turn) for turn in fields["turns"]]
    for turn in turns:
        turn["calls"] = [_with_new_names(call) for call in turn["calls"]]
    return _ROLLOUT.validate_python({**fields, **arrays, "turns": turns, "tools": tools[fields["tools"]]})


def credit_to_bytes(records: Mapping[str, CreditRecord]) -> bytes:
    """Credit of rollouts and what it was read from, by their names; the arrays stand end to end.

    Of the optional arrays, only those that some rollout has are stored, each beside a flag for every rollout.
    """
    rollout_credits = [record.credit for record in records.values()]
    arrays: ArrayMap = {
        "weight": _concatenate(credit.weight for credit in rollout_credits),
        "lengths": _array_lengths(credit.weight for credit in rollout_credits),
    }
    for name in ("advantage", "cap", "floor"):
        arrays[name] = np.array([getattr(credit, name) for credit in rollout_credits], np.float64)
    # Names are an array too: a header with several entries comes out in any order, and records are exact to the byte.
    arrays["names"] = np.frombuffer(json.dumps(list(records)).encode(), np.uint8)
    optional: dict[str, list[NDArray[Any] | None]] = {
        name: [record.features and getattr(record.features, name) for record in records.values()]
        for name in _FEATURE_ARRAYS
    }
    optional |= {
        name: [getattr(record, name) for record in records.values()] for name in ("outside_literals", "saliency")
    }
    for name, parts in optional.items():
        present = [part for part in parts if part is not None]
        if present:
            arrays[name] = _concatenate(present)
            arrays[f"has_{name}"] = np.array([part is not None for part in parts])
    return save(arrays, {"schema": str(SCHEMA)})


def credit_from_bytes(data: bytes, where: str) -> dict[str, CreditRecord]:
    metadata: Row = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    check_schema({"schema": int(metadata["schema"])}, where)
    flat = _with_new_names(load(data))
    names: list[str] = json.loads(flat["names"].tobytes())
    optional = {name: _optional_arrays(flat, name) for name in (*_FEATURE_ARRAYS, "outside_literals", "saliency")}
    records: dict[str, CreditRecord] = {}
    for index, weight in enumerate(_split_arrays(flat["weight"], flat["lengths"])):
        advantage, cap, floor = (float(flat[name][index]) for name in ("advantage", "cap", "floor"))
        record_arrays = {name: parts[index] for name, parts in optional.items()}
        features = {name: record_arrays.pop(name) for name in _FEATURE_ARRAYS}
        records[names[index]] = CreditRecord(
            Credit(advantage, weight, cap, floor),
            None if features["divergence"] is None else Features(**cast("ArrayMap", features)),
            **record_arrays,
        )
    return records


def parse_metrics(rows: Iterable[Row], path: Path) -> list[StepMetrics]:
    """The rows of metrics.jsonl; refuses one that no version of sgcd wrote."""
    try:
        return [StepMetrics.from_json(row) for row in rows]
    except ValidationError as problem:
        error = problem.errors()[0]
        key = ".".join(map(str, error["loc"]))
        raise FolderError(f"{path}: {key}: {error['msg']}; the row is not one that sgcd wrote") from problem


def find_foreign_trials(rows: Iterable[Row], path: Path) -> Iterator[str]:
    """Rows of evaluation.jsonl that are no trials, as a run without checksums may have."""
    for number, row in enumerate(rows, start=1):
        for missing in _TRIAL_KEYS - row.keys():
            yield f"{path}, line {number}: has no {missing}; expected a trial"
            break


def _optional_arrays(flat: ArrayMap, name: str) -> list[NDArray[Any] | None]:
    """The array of each rollout, None for those that have none."""
    if name not in flat:
        return [None] * len(flat["lengths"])
    is_present = flat[f"has_{name}"]
    parts = iter(_split_arrays(flat[name], flat["lengths"][is_present]))
    return [next(parts) if present else None for present in is_present]


def _concatenate(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
    parts = list(arrays)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _array_lengths(arrays: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
    return np.array([len(array) for array in arrays], np.int64)


def _split_arrays(array: NDArray[Any], lengths: NDArray[np.int64]) -> list[NDArray[Any]]:
    return np.split(array, np.cumsum(lengths)[:-1]) if len(lengths) else []


def _with_new_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {_OLD_NAMES.get(name, name): value for name, value in stored.items()}


def _refuse_value(value: object) -> Any:
    raise RecordError(
        f"a rollout holds {value!r}, a {type(value).__name__}; expected plain JSON in rows, messages, tools and facts"
    )
