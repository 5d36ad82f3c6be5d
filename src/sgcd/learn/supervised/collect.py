"""Plays training tasks and keeps the successes as conversations; what is on disk is not played again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from typing import Any

from sgcd.act.siblings import PlayContext
from sgcd.chat import Chat
from sgcd.learn.supervised.conversations import DEMONSTRATIONS_FILE
from sgcd.measure.evaluate import Trial, evaluate_policy
from sgcd.measure.settings import EvaluationSettings
from sgcd.measure.summary import count_causes
from sgcd.measure.trial_rows import TrialRow
from sgcd.records import Message, Rollout, Turn
from sgcd.storage.run_folder import RunFolder

TRIALS_FILE = "trials.jsonl"
"""One row for each trial that was played."""
_TrialKey = tuple[str, int]


def collecting_settings(settings: EvaluationSettings) -> EvaluationSettings:
    """Of an evaluation the number of tasks and trials and the temperature; the tasks are those of training."""
    return settings.model_copy(update={"split": "train", "greedy": False})


@dataclass(slots=True)
class Collection:
    """The trials and the successes in a folder. A trial that broke is played again by a resumed collection."""

    folder: RunFolder
    chat: Chat | None = None
    """The chat of the policy that plays; None for a model behind an endpoint."""
    rows: dict[_TrialKey, TrialRow] = field(default_factory=dict[_TrialKey, TrialRow])

    def __post_init__(self) -> None:
        self.rows = {_trial_key(row): row for row in self.folder.row_files.read(TRIALS_FILE)}
        successes = self.folder.row_files.read(DEMONSTRATIONS_FILE)
        missing = [row["row"] for row in successes if _trial_key(row) not in self._done]
        if missing:  # stopped between the two files
            self.folder.row_files.append(TRIALS_FILE, missing)
            self.rows |= {_trial_key(row): row for row in missing}

    @property
    def _done(self) -> set[_TrialKey]:
        return {key for key, row in self.rows.items() if not row["broken"]}

    def select_missing(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials that are still to be played."""
        done = self._done
        return [trial for trial in trials if (trial.task.id, trial.number) not in done]

    def add(self, played: Sequence[tuple[TrialRow, Rollout]]) -> None:
        """Record trials: first the successes, then all rows, so that a success without its row is noticed."""
        successes = [
            {
                **{key: row[key] for key in ("task", "category", "trial")},
                "messages": list(write_messages(rollout, self.chat)),
                "tools": list(rollout.tools),
                "row": row,
            }
            for row, rollout in played
            if row["success"]
        ]
        if successes:
            self.folder.row_files.append(DEMONSTRATIONS_FILE, successes)
        self.folder.row_files.append(TRIALS_FILE, [row for row, _ in played])
        self.rows |= {_trial_key(row): row for row, _ in played}

    def counts(self) -> dict[str, Any]:
        """What was played and kept."""
        rows = [*self.rows.values()]
        return {
            "trials": len(rows),
            "successes": sum(bool(row["success"]) for row in rows),
            "tasks": len({row["task"] for row in rows}),
            "tasks_with_success": len({row["task"] for row in rows if row["success"]}),
            "broken": sum(bool(row["broken"]) for row in rows),
            "causes": count_causes(rows),
        }


def _trial_key(row: Mapping[str, Any]) -> _TrialKey:
    return str(row["task"]), int(row["trial"])


async def collect_with_policy(
    collection: Collection, context: PlayContext, settings: EvaluationSettings, *, seed: int
) -> None:
    """Play the missing trials, one cohort after the other; each is on disk before the next begins."""
    missing, add = collection.select_missing, collection.add
    await evaluate_policy(context, settings, seed=seed, step=0, select_trials=missing, on_trials=add)


def write_messages(rollout: Rollout, chat: Chat | None) -> Iterator[Message]:
    """A rollout as OpenAI's chat data: calls apart from the text, with ids that their answers repeat.

    A turn with a call that could not be read has weight 0: it is read by who learns from it, and not learned.
    """
    turns = iter(rollout.turns)
    num_given = sum(message["role"] == "assistant" for message in rollout.messages) - len(rollout.turns)
    call_ids: list[str] = []
    for message in rollout.messages:
        if message["role"] != "assistant":
            is_answer = message["role"] == "tool" and call_ids and "tool_call_id" not in message
            yield {**message, "tool_call_id": call_ids.pop(0)} if is_answer else dict(message)
        elif num_given:
            num_given -= 1
            yield {"role": "assistant", "content": message["content"]}
        else:
            turn = next(turns)
            written = _write_turn(rollout, turn, chat) if chat else dict(message)
            call_ids = [call["id"] for call in written.get("tool_calls", ())] if chat else []
            yield {**written, "weight": 0} if turn.malformed else written


def _write_turn(rollout: Rollout, turn: Turn, chat: Chat) -> Message:
    ids = rollout.response[turn.start : turn.stop]
    parsed, _ = chat.parse_turn(ids, rollout.tools)
    if turn.malformed:
        return {"role": "assistant", "content": str(chat.turn_message(ids, chat.has_end_token(ids))["content"])}
    calls = [
        {
            "id": f"call_{turn.start}_{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": dumps(dict(call.arguments), ensure_ascii=False)},
        }
        for number, call in enumerate(parsed.calls)
    ]
    return {
        "role": "assistant",
        "content": parsed.text,
        **({"reasoning_content": parsed.thinking} if parsed.thinking else {}),
        **({"tool_calls": calls} if calls else {}),
    }
