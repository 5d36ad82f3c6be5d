"""Continue a recorded lab rollout from inside: its tokens are replayed up to a point, then the policy samples.

Each play has its own lab world, which gets the same turns and so reaches the same state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from sgcd.act.environment import SampledTurn, Sampler, Session
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.siblings import PlayContext, play_cohort
from sgcd.chat import Chat, EncodedPrompt
from sgcd.lab.reference_effect import lab_context
from sgcd.records import Message, Rollout, Task, TokenIds
from sgcd.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class BranchPoint:
    """The state of a rollout after the first `num_kept` tokens of its response."""

    task: Task
    rollout: Rollout
    num_kept: int

    @property
    def key(self) -> tuple[str, bytes]:
        """Equal for all siblings that reached the same state; the environment's last reply adds nothing to it."""
        stops = [0, *(turn.stop for turn in self.rollout.turns if turn.stop <= self.num_kept)]
        policy_stop = self.num_kept if self.num_kept and self.rollout.response_mask[self.num_kept - 1] else stops[-1]
        return self.task.id, self.rollout.response[:policy_stop].tobytes()

    @property
    def is_over(self) -> bool:
        """No turn is left to sample."""
        return not self.rollout.turns or self.num_kept >= self.rollout.turns[-1].stop


@dataclass(slots=True)
class ReplaySession:
    """A session that replays the first `num_kept` tokens of a rollout, then samples from the inner session."""

    inner: Session
    rollout: Rollout
    num_kept: int
    num_replayed: int = 0
    """Turns replayed so far."""
    pending_ids: list[TokenIds] = field(default_factory=list[TokenIds])
    """The ids that the inner session gets before it samples its first token."""
    is_live: bool = False

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        if self.is_live:
            return await self.inner.sample(new_ids, max_new_tokens)
        self._check_replay(new_ids)
        turn = self.rollout.turns[self.num_replayed] if self.num_replayed < len(self.rollout.turns) else None
        start, stop = (turn.start, min(turn.stop, self.num_kept)) if turn else (0, 0)
        replayed_ids, replayed_logprobs = self.rollout.response[start:stop], self.rollout.sampling_logprobs[start:stop]
        self.pending_ids += [new_ids, replayed_ids]
        self.num_replayed += 1
        if turn and turn.stop <= self.num_kept:
            was_cut_off = turn is self.rollout.turns[-1] and self.rollout.messages[-1].get("unfinished", False)
            return SampledTurn(replayed_ids, replayed_logprobs, hit_end_token=not was_cut_off)
        self.is_live = True
        continuation = await self.inner.sample(
            np.concatenate(self.pending_ids).astype(np.int32), max_new_tokens - len(replayed_ids)
        )
        return SampledTurn(
            np.concatenate([replayed_ids, continuation.token_ids]),
            np.concatenate([replayed_logprobs, continuation.logprobs]),
            continuation.hit_end_token,
        )

    def close(self) -> None:
        self.inner.close()

    def _check_replay(self, new: TokenIds) -> None:
        """Refuse a reply of the world that differs from the recorded one."""
        turns, rollout = self.rollout.turns, self.rollout
        start = turns[self.num_replayed].start if self.num_replayed < len(turns) else len(rollout.response)
        expected = rollout.response[turns[self.num_replayed - 1].stop : start] if self.num_replayed else rollout.prompt
        if not np.array_equal(new, expected):
            raise RuntimeError(
                f"rollout {rollout.name}: turn {self.num_replayed} does not begin as it did when it was played"
            )


class CachedChat(Chat):
    """A chat that caches what it encodes: continuations render the same few messages many times."""

    def __init__(self, chat: Chat) -> None:
        super().__init__(chat.tokenizer, chat.name)
        self._prompt_cache: dict[str, EncodedPrompt] = {}
        self._cached_encode_reply = lru_cache(maxsize=4096)(self._uncached_encode_reply)

    def encode_prompt(self, messages: Sequence[Message], tools: Sequence[object]) -> EncodedPrompt:
        key = repr(messages)  # the lab's tools are always the same
        if key not in self._prompt_cache:
            self._prompt_cache[key] = super().encode_prompt(messages, tools)  # type: ignore[arg-type]
        return self._prompt_cache[key]

    def encode_reply(
        self, messages: Sequence[Message], add_generation_prompt: bool = True
    ) -> tuple[TokenIds, tuple[Message, ...]]:
        return self._cached_encode_reply(
            tuple((message["role"], message["content"]) for message in messages), add_generation_prompt
        )

    def _uncached_encode_reply(
        self, messages: tuple[tuple[str, str], ...], opens: bool
    ) -> tuple[TokenIds, tuple[Message, ...]]:
        return super().encode_reply([{"role": role, "content": content} for role, content in messages], opens)


async def play_continuations(
    states: Sequence[BranchPoint],
    num_plays: int,
    *,
    chat: Chat,
    sampler: Sampler,
    seed: int,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[int]:
    """How many of `num_plays` continuations of each state succeed. Equal states are played once."""
    unique_states = {state.key: state for state in states}
    successes = {key: num_plays * state.rollout.success for key, state in unique_states.items() if state.is_over}
    # States with as much behind them have about as much before them, and are sampled side by side.
    unfinished = sorted(
        (state for state in unique_states.values() if not state.is_over), key=lambda state: (state.num_kept, state.key)
    )
    successes |= {state.key: 0 for state in unfinished}
    plays = [(state, trial) for state in unfinished for trial in range(num_plays)]
    context = lab_context(CachedChat(chat), sampler)
    for start in range(0, len(plays), sampler.slots):
        chunk = plays[start : start + sampler.slots]
        for (state, _), rollout in zip(chunk, await _play_chunk(chunk, context, seed), strict=True):
            successes[state.key] += rollout.success
        if start // sampler.slots % 20 == 0:
            on_progress(f"{start + len(chunk)} of {len(plays)} continuations from {len(unfinished)} states")
    return [successes[state.key] for state in states]


async def _play_chunk(chunk: Sequence[tuple[BranchPoint, int]], context: PlayContext, seed: int) -> list[Rollout]:
    """Continue each state once, under the number of its trial. A broken rollout raises: the lab's world never fails."""

    def replay(index: int, session: Session) -> Session:
        state, _ = chunk[index]
        return ReplaySession(session, state.rollout, state.num_kept)

    def refuse_broken(index: int, rollout: Rollout) -> None:
        if rollout.broken:
            raise RuntimeError(f"rollout {rollout.name} broke: {rollout.broken}")

    recorders = [
        RolloutRecorder(state.task, trial, derive_seed(seed, "branch", state.task.id, state.key[1].hex(), trial))
        for state, trial in chunk
    ]
    return await play_cohort(recorders, context, temperature=1.0, wrap_session=replay, on_rollout_done=refuse_broken)
