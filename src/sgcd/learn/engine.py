"""The sampler's engine: feeds new ids into the slot cache and draws one token for each active row."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from sgcd.errors import PolicyError
from sgcd.learn.draw import Uniforms, draw
from sgcd.learn.masks import MASKED, Masks
from sgcd.learn.slots import SlotCache
from sgcd.records import Ids

Indices = NDArray[np.int64]

PREFILL = 16384
"""Padded tokens in one prefill."""


@dataclass(eq=False, slots=True)
class Place:
    """One rollout in the engine: its row, how many of its tokens are cached, and the turn that is being sampled."""

    index: int
    temperature: float
    uniforms: Uniforms
    row: int = -1
    length: int = 0
    new: list[int] = field(default_factory=list)
    """Ids to feed before the turn's first draw. A turn's last sampled id is fed with the next turn."""
    limit: int = 0
    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    closed: bool = False

    def begin(self, new: Ids, limit: int) -> None:
        self.new = self.ids[-1:] + new.tolist()
        self.ids, self.logp, self.limit = [], [], limit


class Engine:
    """Rows 0 to n-1 of the cache belong to the n active places, so that decoding reads the cache without copying."""

    def __init__(self, model: PreTrainedModel, slots: int, ends: Collection[int], top_p: float) -> None:
        self._model = model
        self._masks = Masks(model)
        self._ends = ends
        self._top_p = top_p
        self._layers: int = model.config.get_text_config().num_hidden_layers
        self._cache = SlotCache(slots)
        self._tenants: list[Place | None] = [None] * slots
        self._active = 0

    @property
    def active(self) -> int:
        """How many places are in the middle of a turn."""
        return self._active

    def turn(self, places: Sequence[Place]) -> None:
        """One whole turn of all `places`: shapes and order follow from them and from what they sample, nothing else."""
        self.step(places, ())
        while self._active:
            self.step((), ())

    def step(self, joining: Sequence[Place], leaving: Sequence[Place]) -> list[Place]:
        """Take `leaving` out, feed `joining`, draw a token for every active place; return those whose turn is over."""
        with self._sampling():
            if leaving:
                self._settle(set(self._running()).difference(leaving))
            running = self._running()
            finished = self._advance(running, self._decode(running)) if running else []
            if joining:
                finished += self._advance(joining, self._prefill(joining))
            if joining or finished:
                self._settle(set(running).union(joining).difference(finished))
        return finished

    def clear(self) -> None:
        """Forget every place; what was cached is garbage from now on."""
        self._tenants = [None] * self._cache.slots
        self._active = 0

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        training = self._model.training
        if training:  # asked first: setting the mode walks over every module
            self._model.eval()
        kernel = str(self._model.config._attn_implementation)
        if kernel not in MASKED:
            self._model.set_attn_implementation("sdpa")
        try:
            with torch.inference_mode():
                yield
        finally:
            if training:
                self._model.train()
            if kernel not in MASKED:
                self._model.set_attn_implementation(kernel)

    def _running(self) -> list[Place]:
        return [place for place in self._tenants[: self._active] if place]

    def _advance(self, places: Sequence[Place], logits: Tensor) -> list[Place]:
        uniforms = [place.uniforms.next() for place in places]
        ids, logp = draw(logits, uniforms, [place.temperature for place in places], self._top_p)
        finished: list[Place] = []
        for place, token, value in zip(places, ids, logp, strict=True):
            place.ids.append(token)
            place.logp.append(value)
            if token in self._ends or len(place.ids) == place.limit:
                finished.append(place)
        return finished

    def _settle(self, active: set[Place]) -> None:
        """Move the active places to the first rows."""
        n = len(active)
        here = [row for row in range(n) if self._tenants[row] not in active]
        there = [row for row in range(n, self._cache.slots) if self._tenants[row] in active]
        if here:
            moved = [place for row in here + there if (place := self._tenants[row])]
            self._cache.swap(here, there, max(place.length for place in moved))
            for a, b in zip(here, there, strict=True):
                self._tenants[a], self._tenants[b] = self._tenants[b], self._tenants[a]
            for row in here + there:
                if place := self._tenants[row]:
                    place.row = row
        self._active = n

    def _decode(self, places: Sequence[Place]) -> Tensor:
        longest = max(place.length for place in places) + 1
        self._cache.reserve(longest)
        positions = np.array([[place.length] for place in places])
        ids = np.array([[place.ids[-1]] for place in places])
        cells = positions + np.arange(len(places))[:, None] * self._cache.capacity
        for place in places:
            place.length += 1
        return self._forward(len(places), ids, positions, cells, longest)

    def _prefill(self, places: Sequence[Place]) -> Tensor:
        """Feed what is new; the logits after each place's last id. Siblings share a prompt: it is computed once."""
        self._admit(places)
        leaders: dict[tuple[int, ...], Place] = {}
        follows: dict[Place, Place] = {}
        for place in places:
            if not place.length:
                follows[place] = leaders.setdefault(tuple(place.new), place)
        logits: dict[Place, Tensor] = {}
        for fed in self._passes([p for p in places if follows.get(p, p) is p]):
            logits |= zip(fed, self._feed(fed), strict=True)
        followers = [p for p, leader in follows.items() if leader is not p]
        if followers:
            for place in followers:
                place.length = follows[place].length
            rows = [follows[p].row for p in followers]
            self._cache.copy(rows, [p.row for p in followers], max(p.length for p in followers))
        return torch.stack([logits[follows.get(place, place)] for place in places])

    def _passes(self, places: Sequence[Place]) -> list[list[Place]]:
        """Of similar length together. Where rows have states, those that go on are fed with their equals only."""

        def kind(place: Place) -> int:
            return len(place.new) if self._masks.stateful and place.length else 0

        passes: list[list[Place]] = []
        for place in sorted(places, key=lambda each: (kind(each), len(each.new))):
            last = passes[-1] if passes else []
            if last and kind(last[0]) == kind(place) and (len(last) + 1) * len(place.new) <= PREFILL:
                last.append(place)
            else:
                passes.append([place])
        return passes

    def _admit(self, places: Sequence[Place]) -> None:
        """Give a row to every place that has none; rows of closed places are free."""
        for row in range(self._active, self._cache.slots):
            if (tenant := self._tenants[row]) and tenant.closed:
                self._tenants[row] = None
        free = [row for row, tenant in enumerate(self._tenants) if tenant is None]
        arriving = [place for place in places if place.row < 0]
        for row, place in zip(free[: len(arriving)], arriving, strict=True):
            self._tenants[row], place.row = place, row

    def _feed(self, places: Sequence[Place]) -> Tensor:
        """Padding stands on the left: every row's last id is in the last column, the only one that needs the head."""
        width = max(len(place.new) for place in places)
        fresh = not any(place.length for place in places)
        longest = max(place.length + len(place.new) for place in places)
        self._cache.reserve(longest)
        ids = np.zeros((len(places), width), np.int64)
        positions = np.zeros_like(ids)
        cells = np.full_like(ids, self._cache.dump)
        for i, place in enumerate(places):
            start = width - len(place.new)
            ids[i, start:] = place.new
            positions[i, start:] = np.arange(place.length, place.length + len(place.new))
            cells[i, start:] = place.row * self._cache.capacity + positions[i, start:]
            place.length += len(place.new)
        rows = torch.tensor([place.row for place in places], device=self._model.device)
        return self._forward(rows, ids, positions, cells, longest, fresh)

    def _forward(
        self, rows: int | Tensor, ids: Indices, positions: Indices, cells: Indices, longest: int, fresh: bool = False
    ) -> Tensor:
        device = self._model.device
        where = torch.from_numpy(positions).to(device)
        self._cache.aim(rows, torch.from_numpy(cells.ravel()).to(device), longest, fresh)
        written = torch.from_numpy(cells != self._cache.dump).to(device) if (cells == self._cache.dump).any() else None
        logits = self._model(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=self._masks.of(where, written, longest),
            position_ids=where,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        if self._cache.updates != self._layers:
            raise PolicyError(
                f"policy: {self._model.config.model_type} cached {self._cache.updates} of {self._layers} layers; "
                "only models that keep one memory in each layer can be sampled"
            )
        return logits[:, -1]
