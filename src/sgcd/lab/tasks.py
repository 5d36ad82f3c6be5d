"""Generates the lab's tasks: four categories, and three splits that share words and nothing else."""

from dataclasses import asdict
from functools import lru_cache
from hashlib import sha256

import numpy as np

from sgcd.act.environment import TaskSuite
from sgcd.lab import words
from sgcd.lab.settings import LabSettings
from sgcd.lab.world import Airline, Booking, Request, booking_from_json, category_of, expected_outcome
from sgcd.records import CATEGORIES, Category, Task

_SPLIT_SIZES = {"train": 2000, "dev": 400, "test": 400}
_CATEGORY_SHARES: dict[Category, float] = {"action": 0.3, "information": 0.25, "transfer": 0.15, "no_action": 0.3}
_INTENTS = tuple(words.REQUEST_TEMPLATES)
_SPLIT_SEEDS = {"train": 1, "dev": 2, "test": 3}


def build_lab_task_suite(settings: LabSettings) -> TaskSuite:
    """The three splits. They share every word, but no record, no pair of a name and an id, no structure of a task."""
    thoughts = words.thought_pools(settings.chatty, settings.thinking)
    splits = {split: generate_tasks(split, settings.horizon) for split in _SPLIT_SIZES}
    return TaskSuite(lambda: Airline(thoughts), splits)


@lru_cache(maxsize=16)
def generate_tasks(split: str, horizon: int = 1) -> tuple[Task, ...]:
    """The tasks of a split, equal on every machine. The first n tasks have the categories' shares, for every n."""
    rng = np.random.Generator(np.random.Philox(key=_SPLIT_SEEDS[split] * 100 + horizon))
    pairs = [(n, b) for n in words.CUSTOMER_NAMES for b in words.BOOKING_IDS if _assign_split("pair", n, b) == split]
    order = rng.permutation(len(pairs))
    tasks: list[Task] = []
    counts = dict.fromkeys(CATEGORIES, 0)
    while len(tasks) < _SPLIT_SIZES[split]:
        category = max(CATEGORIES, key=lambda c: _CATEGORY_SHARES[c] * (len(tasks) + 1) - counts[c])
        customer = pairs[order[len(tasks) % len(pairs)]]
        row, requests, utterances = _draw_requests(rng, split, category, customer, horizon)
        other_rows = _draw_other_rows(rng, pairs, customer)
        counts[category] += 1
        tasks.append(
            Task(
                id=f"{split}-{len(tasks):04d}",
                category=category,
                row={
                    "rows": [asdict(record) for record in (row, *other_rows)],
                    "requests": [asdict(request) for request in requests],
                    "said": utterances,
                },
            )
        )
    return tuple(tasks)


def task_structure(task: Task) -> tuple[tuple[object, ...], ...]:
    """A task without its names and ids: intent, wording and all attributes of each request."""
    row = booking_from_json(task.row["rows"][0])
    structures: list[tuple[object, ...]] = []
    for index, values in enumerate(task.row["requests"]):
        request = Request(**values)
        structures.append(_request_structure(request, _wording_index(task, index), row))
        row, _, _ = expected_outcome((request,), row)
    return tuple(structures)


def _wording_index(task: Task, index: int) -> int:
    request = Request(**task.row["requests"][index])
    forms = [
        form.format(day=request.value, cabin=request.value, bags=request.value)
        for form in words.REQUEST_TEMPLATES[request.intent]
    ]
    return next(i for i, form in enumerate(forms) if form in task.row["said"][index])


def _request_structure(request: Request, wording: int, row: Booking) -> tuple[object, ...]:
    return (request.intent, wording, request.value, row.tier, row.cabin, row.insured, row.status)


def _draw_requests(
    rng: np.random.Generator, split: str, category: Category, customer: tuple[str, str], horizon: int
) -> tuple[Booking, list[Request], list[str]]:
    """Draw until the first request has the category and every request's structure belongs to the split."""
    while True:
        row = Booking(*customer, *_draw_attributes(rng))
        current_row, requests, utterances = row, list[Request](), list[str]()
        for _ in range(40 * horizon):
            if len(requests) == horizon:
                return row, requests, utterances
            request, wording = _draw_request(rng), int(rng.integers(3))
            is_first = not requests
            changes_nothing = request.intent == "upgrade" and current_row.cabin == request.value
            if (
                _assign_split("structure", *_request_structure(request, wording, current_row)) != split
                or request.intent in {earlier.intent for earlier in requests}
                or changes_nothing
                or (is_first and category_of(request, current_row) != category)
                or not current_row.open
            ):
                continue
            request_text = words.REQUEST_TEMPLATES[request.intent][wording].format(
                day=request.value, cabin=request.value, bags=request.value
            )
            opening_text = words.GREETINGS[int(rng.integers(3))] if is_first else words.FOLLOW_UPS[int(rng.integers(3))]
            requests.append(request)
            utterances.append(f"{opening_text.format(name=row.name)} {request_text}")
            current_row, _, _ = expected_outcome((request,), current_row)


def _draw_attributes(rng: np.random.Generator) -> list[str]:
    return [
        str(rng.choice(values)) for values in (words.TIERS, words.CABINS, words.INSURED, words.STATUSES, words.CITIES)
    ]


def _draw_request(rng: np.random.Generator) -> Request:
    intent = _INTENTS[int(rng.integers(len(_INTENTS)))]
    values = {"change": words.DAYS, "upgrade": ("economy", "business"), "bags": words.COUNTS}.get(intent, ("",))
    return Request(intent, values[int(rng.integers(len(values)))])


def _draw_other_rows(
    rng: np.random.Generator, pairs: list[tuple[str, str]], customer: tuple[str, str]
) -> list[Booking]:
    """Three more rows of the same split, which a wrong id may find."""
    rows: list[Booking] = []
    while len(rows) < 3:
        name, booking = pairs[int(rng.integers(len(pairs)))]
        if name not in {customer[0], *(r.name for r in rows)} and booking not in {
            customer[1],
            *(r.booking for r in rows),
        }:
            rows.append(Booking(name, booking, *_draw_attributes(rng)))
    return rows


def _assign_split(kind: str, *parts: object) -> str:
    """The split of a pair or of a structure: it depends on the parts alone. Train has four of six buckets."""
    digest = sha256("/".join(map(str, (kind, *parts))).encode()).digest()
    return ("dev", "test", *["train"] * 4)[int.from_bytes(digest[:4], "big") % 6]
