"""A run's folder: what goes in comes out, what a stop has torn never was, and what is no run is refused."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from sgcd.credit_records import Credit, CreditRecord, Features
from sgcd.errors import FolderError, RecordError
from sgcd.records import Call, Group, Rollout, Task, Turn, Verdict
from sgcd.storage.atomic import atomic_folder, remove, write_atomic
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.record_files import credit_from_bytes, credit_to_bytes, groups_from_bytes, groups_to_bytes
from sgcd.storage.rows import append_rows, read_rows
from sgcd.storage.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "version: 1\n", {"seed": 3})


def rollout(sibling: int, broken: str = "", **changes: Any) -> Rollout:
    told: dict[str, Any] = {
        "task": "t-1",
        "category": "transfer",
        "sibling": sibling,
        "seed": 2**62 + sibling,
        "prompt": np.array([1, 2, 3], np.int32),
        "reference_position": 2,
        "response": np.array([5, 6, 70000, 8], np.int32),
        "response_mask": np.array([1, 1, 0, 1], bool),
        "token_kinds": np.array([1, 2, 0, 3], np.uint8),
        "sampling_logprobs": np.array([-0.1, -1e-30, 0, -7.25], np.float32),
        "turns": (
            Turn(0, 2, (Call("book", {"seat": 3, "to": ["a", None]}, is_error=True), Call("find", {}))),
            Turn(3, 4, malformed="the call is empty"),
        ),
        "messages": (
            {"role": "user", "content": "über\u2028 <|end|> \ud800"},
            {"role": "assistant", "unfinished": True},
        ),
        "tools": ({"type": "function", "function": {"name": "book"}},),
        "end_reason": "token_limit",
        "verdict": Verdict(0.1 + 0.2, False, {"state": True, "told": None, "share": 1e-300}),
        "truncations": {"tokens": 1, "observation": 2},
        "private": ("secret", ""),
        "private_kinds": {"secret": "password"},
    }
    if broken:
        told |= {"broken": broken, "verdict": None, "end_reason": "broken"}
    return Rollout(**{**told, **changes})


def same(a: Any, b: Any) -> None:
    """Equal in every field, in type, and for arrays in dtype and bits."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
    elif isinstance(a, Rollout | Group | Task | Turn | Call | Verdict | Credit | Features | CreditRecord):
        for field in fields(a):
            same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, tuple | list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    else:
        assert a == b


def groups() -> list[Group]:
    task, other = Task("t-1", "transfer", {"seed": 7, "nested": {"a": [1]}}), Task("t-2", "action", {})
    none = np.zeros(0, np.int32)
    nothing = rollout(
        0, "open: RuntimeError: no", task="t-2", prompt=none, reference_position=0, response=none,
        response_mask=none.astype(bool),
        token_kinds=none.astype(np.uint8), sampling_logprobs=none.astype(np.float32), turns=(), messages=(), tools=(),
    )  # fmt: skip
    longer = rollout(
        2, prompt=np.arange(9, dtype=np.int32), tools=(), verdict=Verdict(1.0, True), end_reason="answered"
    )
    return [
        Group(task, (rollout(0), longer), (rollout(1, "open: OSError: no \udcff"),)),
        Group(other, (), (nothing,)),
    ]


def test_rollouts_come_back_without_loss(folder: RunFolder) -> None:
    folder.write_rollouts(3, groups(), [True, False])
    read = folder.read_rollouts(3)
    assert [group.is_kept for group in read] == [True, False]
    for got, expected in zip(read, groups(), strict=True):
        same(got.group, expected)
    folder.write_rollouts(4, [], [])
    assert folder.read_rollouts(4) == []


def test_rollouts_of_sgcd_0_1_are_read() -> None:
    """Their fields had other names, and turns had neither a text nor, at first, a flag for their ids."""
    lines, arrays = groups_to_bytes(3, groups(), [True, False])
    old_names = {
        "reference_position": "insert_at", "end_reason": "ending", "truncations": "cuts", "is_error": "failed",
        "response_mask": "mask", "token_kinds": "kinds", "sampling_logprobs": "sampled_logp",
    }  # fmt: skip

    def old(row: Any) -> Any:
        if isinstance(row, dict):
            kept = {name: value for name, value in row.items() if name not in ("text", "roundtrips")}
            return {old_names.get(name, name): old(value) for name, value in kept.items()}
        return [old(value) for value in row] if isinstance(row, list) else row

    old_lines = "".join(json.dumps(old(json.loads(line))) + "\n" for line in lines.splitlines()).encode()
    old_arrays = save({old_names.get(name, name): array for name, array in load(arrays).items()}, {"schema": "1"})
    for got, expected in zip(groups_from_bytes(old_lines, old_arrays, "here"), groups(), strict=True):
        same(got.group, expected)


def test_the_same_rollouts_are_the_same_bytes(folder: RunFolder) -> None:
    names = ("rollouts/0003.jsonl", "rollouts/0003.safetensors", "credit/0003.safetensors")

    def written() -> list[bytes]:
        folder.write_rollouts(3, groups(), [True, False])
        folder.write_credit(3, {f"t/{n}": CreditRecord(Credit(0.5, np.ones(n, np.float32))) for n in range(9)})
        return [(folder.path / name).read_bytes() for name in names]

    assert written() == written()


def test_credit_comes_back_without_loss(folder: RunFolder) -> None:
    few, none = np.array([0.1, -1e-30, np.nan], np.float32), np.zeros(0, np.float32)
    scored = {
        "t-1/0": CreditRecord(
            Credit(-0.3, np.array([1, 1.5, 2], np.float32), cap=2.0),
            Features(few, few * 2, few * 3, few * 4),
            np.array([1, 0, 1], bool),
            np.array([0, 0.5, 1], np.float32),
        ),
        "t-1/1": CreditRecord(Credit(2.47487, none), Features(none, none, none, none)),
        "ü/2": CreditRecord(
            Credit(1 / 3, np.array([0.25], np.float32), cap=1.0, floor=0.2), outside_literals=np.array([False])
        ),
        "t-1/3": CreditRecord(Credit(-0.3, few[:2] * 0 + 1)),
    }
    folder.write_credit(12, scored)
    read = folder.read_credit(12)
    assert list(read) == list(scored)
    for name, each in scored.items():
        same(read[name], each)
    folder.write_credit(13, {})
    assert folder.read_credit(13) == {}
    arrays = load(credit_to_bytes(scored))
    for old_name in ("creditable", "unmasked"):
        old_names = {"teacher_entropy": "entropy", "outside_literals": old_name}
        old_names |= {f"has_{new}": f"has_{old}" for new, old in old_names.items()}
        old = save({old_names.get(name, name): array for name, array in arrays.items()}, {"schema": "1"})
        for name, each in credit_from_bytes(old, "here").items():
            same(scored[name], each)


def test_scores_are_one_for_each_token() -> None:
    credit = Credit(1.0, np.ones(3, np.float32))
    with pytest.raises(RecordError, match="credit record: saliency must have 3 entries"):
        CreditRecord(credit, saliency=np.ones(2, np.float32))
    with pytest.raises(RecordError, match="credit record: features must have 3 entries"):
        CreditRecord(credit, Features(*[np.ones(4, np.float32)] * 3))


def test_references_come_back_and_a_method_without_them_has_none(folder: RunFolder) -> None:
    told = [{"task": "t-1", "text": "a\u2028b", "cause": ""}, {"task": "t-2", "text": "", "cause": "writer: timed out"}]
    folder.write_references(3, told)
    assert folder.read_references(3) == [{"schema": 1, "step": 3, **row} for row in told]
    assert folder.read_references(4) == []


def test_the_steps_that_were_played_are_known(folder: RunFolder) -> None:
    assert folder.steps_with_rollouts() == []
    for step in (10, 2):
        folder.write_rollouts(step, [], [])
    assert folder.steps_with_rollouts() == [2, 10]


def test_what_is_no_json_is_named(folder: RunFolder) -> None:
    strange = rollout(0, verdict=Verdict(1.0, True, {"seen": {1, 2}}))
    with pytest.raises(RecordError, match=r"\{1, 2\}, a set; expected plain JSON"):
        folder.write_rollouts(1, [Group(Task("t-1", "transfer", {}), (strange,))], [False])


def test_a_step_that_was_not_played_is_named(folder: RunFolder) -> None:
    folder.write_rollouts(2, [], [])
    with pytest.raises(FolderError, match=r"0005\.jsonl: no rollouts of step 5; this run has those of steps 2 to 2"):
        folder.read_rollouts(5)
    with pytest.raises(FolderError, match="no credit of step 5; this run has that of no step"):
        folder.read_credit(5)


def test_arrays_of_other_rollouts_are_refused(folder: RunFolder) -> None:
    folder.write_rollouts(2, groups(), [True, True])
    folder.write_rollouts(3, groups()[:1], [True])
    arrays = (folder.path / "rollouts" / "0003.safetensors").read_bytes()
    (folder.path / "rollouts" / "0002.safetensors").write_bytes(arrays)
    with pytest.raises(FolderError, match="tells of 4 rollouts, but the arrays beside it are of 3"):
        folder.read_rollouts(2)


# -- the folder itself ------------------------------------------------------------------------------------------------


def test_a_new_run_is_opened_again(folder: RunFolder) -> None:
    again = RunFolder.open(folder.path)
    assert again.recipe_text == "version: 1\n"
    assert again.facts == folder.facts == {"schema": 1, "checksums": "sha256", "seed": 3}
    assert (again.read_metrics(), again.read_evaluations(), again.checkpoint_steps()) == ([], [], [])
    again.replace_recipe("version: 1\nsteps: 9\n")
    assert RunFolder.open(folder.path).recipe_text == "version: 1\nsteps: 9\n"


def test_an_occupied_folder_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    for path in (folder.path, tmp_path / "notes", tmp_path / "file"):
        with pytest.raises(FolderError, match="not empty"):
            RunFolder.create(path, "", {})
    assert (tmp_path / "notes" / "thesis.txt").exists()


def test_a_run_that_died_before_it_was_born_can_be_created(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "facts.json").write_text("{}")
    (path / ".recipe.yaml.new").write_text("vers")
    with pytest.raises(FolderError, match="is not a run's folder"):
        RunFolder.open(path)
    RunFolder.create(path, "version: 1\n", {})
    assert RunFolder.open(path).recipe_text == "version: 1\n"


def test_what_is_no_run_is_refused(tmp_path: Path, folder: RunFolder) -> None:
    with pytest.raises(FolderError, match=f"{tmp_path}: is not a run's folder"):
        RunFolder.open(tmp_path)
    with pytest.raises(FolderError, match="does not exist"):
        RunFolder.open(tmp_path / "nowhere")
    (folder.path / "facts.json").write_text('{"schema": 2}')
    with pytest.raises(FolderError, match=r"facts\.json: schema 2, expected 1"):
        RunFolder.open(folder.path)


def test_rewinding_drops_what_came_after(folder: RunFolder) -> None:
    for step in range(5):
        folder.append_metrics(StepMetrics(step=step))
        trial = dict.fromkeys(["seed", "split", "mode", "task", "category", "success", "broken"], 0) | {"step": step}
        folder.append_evaluation([{**trial, "trial": 0}, {**trial, "trial": 1}])
        folder.write_rollouts(step, [], [])
        folder.write_credit(step, {})
    (folder.path / "rollouts" / ".0005.jsonl.new").write_text("torn")
    (folder.path / "checkpoints" / ".0004.next.new").mkdir(parents=True)
    (folder.path / ".policy.last.new").mkdir()
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"schema": 1, "st')
    folder.rewind(2)
    assert [row.step for row in folder.read_metrics()] == [0, 1, 2]
    assert [(row["step"], row["trial"]) for row in folder.read_evaluations()] == [
        (s, t) for s in range(3) for t in range(2)
    ]
    for name in ("rollouts", "credit"):
        assert sorted({file.name[:4] for file in (folder.path / name).iterdir()}) == ["0000", "0001", "0002"]
    assert not list(folder.path.rglob(".*"))
    folder.rewind(-1)
    assert folder.read_metrics() == []
    assert not list((folder.path / "rollouts").iterdir())


def test_steps_of_any_number_keep_their_order(folder: RunFolder) -> None:
    for step in (9, 10, 9999, 10000, 123456):
        folder.checkpoint_path(step).mkdir(parents=True)
    folder.best_path.mkdir()
    (folder.path / "checkpoints" / ".0011.next.new").mkdir()
    assert folder.checkpoint_steps() == [9, 10, 9999, 10000, 123456]
    folder.write_rollouts(10000, [], [])
    folder.rewind(9999)
    with pytest.raises(FolderError):
        folder.read_rollouts(10000)


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", ["", "{", '{"schema": 1, "step": 2}', "\x00" * 9])
def test_a_torn_last_line_never_was(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    append_rows(path, [{"step": 0}, {"step": 1, "text": "a\nb\r\x85\u2028"}])
    with path.open("a") as file:
        file.write(torn)
    assert [row["step"] for row in read_rows(path)] == [0, 1]
    append_rows(path, [{"step": 2}])
    assert [row["step"] for row in read_rows(path)] == [0, 1, 2]
    assert path.read_bytes().count(b"\n") == 3


def test_a_torn_line_longer_than_a_block_and_a_file_with_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"schema": 1}\n' + b"x" * 200_000)
    assert read_rows(path) == [{"schema": 1}]
    path.write_bytes(b"x" * 200_000)
    assert read_rows(path) == []
    append_rows(path, [{"step": 0}])
    assert read_rows(path) == [{"schema": 1, "step": 0}]
    assert read_rows(tmp_path / "none.jsonl") == []


def test_a_spoilt_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"schema": 1}\nspoilt\n{"schema": 1}\n')
    with pytest.raises(FolderError, match=r"metrics\.jsonl, line 2: not JSON"):
        read_rows(path)
    path.write_text('{"schema": 1}\n{"schema": 9}\n')
    with pytest.raises(FolderError, match=r"line 2: schema 9, expected 1"):
        read_rows(path)


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "facts.json"
    write_atomic(path, b"one")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"two")
    assert path.read_bytes() == b"one"


def stopped_halfway(final: Path) -> None:
    with atomic_folder(final) as place:
        (place / "half").touch()
        raise KeyboardInterrupt


def test_a_folder_is_whole_or_as_it_was(tmp_path: Path) -> None:
    final = tmp_path / "policy"
    for content in ("one", "two"):
        with atomic_folder(final) as place:
            (place / "weights").write_text(content)
            assert not final.exists() or (final / "weights").read_text() == "one"
    assert (final / "weights").read_text() == "two"
    with pytest.raises(KeyboardInterrupt):
        stopped_halfway(final)
    assert [file.name for file in final.iterdir()] == ["weights"]
    with atomic_folder(final) as place:
        (place / "weights").write_text("three")
    assert [file.name for file in final.iterdir()] == ["weights"]
    assert list(tmp_path.iterdir()) == [final]


def test_a_folder_loses_its_name_before_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "0010"
    path.mkdir()
    seen: list[bool] = []
    monkeypatch.setattr(
        "sgcd.storage.atomic.shutil.rmtree", lambda gone: seen.append(path.exists() or not gone.exists())
    )
    remove(path)
    assert seen == [False]


def test_rows_are_json_anyone_can_read(folder: RunFolder) -> None:
    folder.append_metrics(StepMetrics(step=1, loss=0.5))
    row = json.loads((folder.path / "metrics.jsonl").read_text())
    assert {"schema": 1, "step": 1, "loss": 0.5, "kl": None}.items() <= row.items()
