"""Tasks of the lab: generated, four categories, three splits that share words and nothing else."""

from dataclasses import asdict
from functools import lru_cache

import numpy as np

from sgcd.lab import words
from sgcd.lab.world import Booking, Request, category_of, gold, row_of, split_of
from sgcd.records import CATEGORIES, Category, Task

SIZES = {"train": 2000, "dev": 400, "test": 400}
SHARES: dict[Category, float] = {"action": 0.4, "information": 0.25, "transfer": 0.15, "no_action": 0.2}
INTENTS = tuple(words.ASKS)
SALT = {"train": 1, "dev": 2, "test": 3}


@lru_cache(maxsize=16)
def tasks_of(split: str, horizon: int = 1) -> tuple[Task, ...]:
    """The tasks of a split, the same on every machine. The first n of them have the categories' shares for every n."""
    rng = np.random.Generator(np.random.Philox(key=SALT[split] * 100 + horizon))
    pairs = [(n, b) for n in words.NAMES for b in words.BOOKINGS if split_of("pair", n, b) == split]
    order = rng.permutation(len(pairs))
    tasks: list[Task] = []
    counts = dict.fromkeys(CATEGORIES, 0)
    while len(tasks) < SIZES[split]:
        category = max(CATEGORIES, key=lambda c: SHARES[c] * (len(tasks) + 1) - counts[c])
        mine = pairs[order[len(tasks) % len(pairs)]]
        row, requests, said = _draw(rng, split, category, mine, horizon)
        others = _others(rng, pairs, mine)
        counts[category] += 1
        tasks.append(
            Task(
                id=f"{split}-{len(tasks):04d}",
                category=category,
                row={
                    "rows": [asdict(one) for one in (row, *others)],
                    "requests": [asdict(request) for request in requests],
                    "said": said,
                },
            )
        )
    return tuple(tasks)


def structure(task: Task) -> tuple[tuple[object, ...], ...]:
    """What a task is, whoever asks and under which id: intent, wording and all attributes of each request."""
    row = row_of(task.row["rows"][0])
    found: list[tuple[object, ...]] = []
    for index, values in enumerate(task.row["requests"]):
        request = Request(**values)
        found.append(_structure(request, _wording(task, index), row))
        row, _, _ = gold((request,), row)
    return tuple(found)


def _wording(task: Task, index: int) -> int:
    request = Request(**task.row["requests"][index])
    forms = [
        form.format(day=request.value, cabin=request.value, bags=request.value) for form in words.ASKS[request.intent]
    ]
    return next(i for i, form in enumerate(forms) if form in task.row["said"][index])


def _structure(request: Request, wording: int, row: Booking) -> tuple[object, ...]:
    return (request.intent, wording, request.value, row.tier, row.cabin, row.insured, row.status)


def _draw(
    rng: np.random.Generator, split: str, category: Category, pair: tuple[str, str], horizon: int
) -> tuple[Booking, list[Request], list[str]]:
    """Draw until the first request has the category and every request's structure belongs to the split."""
    while True:
        row = Booking(*pair, *_attributes(rng))
        now, requests, said = row, list[Request](), list[str]()
        for _ in range(40 * horizon):
            if len(requests) == horizon:
                return row, requests, said
            request, wording = _request(rng), int(rng.integers(3))
            first = not requests
            if (
                split_of("structure", *_structure(request, wording, now)) != split
                or request.intent in {asked.intent for asked in requests}
                or (
                    request.intent == "upgrade" and now.cabin == request.value
                )  # what is asked for must change something
                or (first and category_of(request, now) != category)
                or not now.open
            ):
                continue
            ask = words.ASKS[request.intent][wording].format(day=request.value, cabin=request.value, bags=request.value)
            opening = words.GREETINGS[int(rng.integers(3))] if first else words.FURTHER[int(rng.integers(3))]
            requests.append(request)
            said.append(f"{opening.format(name=row.name)} {ask}")
            now, _, _ = gold((request,), now)


def _attributes(rng: np.random.Generator) -> list[str]:
    return [
        str(rng.choice(known)) for known in (words.TIERS, words.CABINS, words.INSURED, words.STATUSES, words.CITIES)
    ]


def _request(rng: np.random.Generator) -> Request:
    intent = INTENTS[int(rng.integers(len(INTENTS)))]
    values = {"change": words.DAYS, "upgrade": ("economy", "business"), "bags": words.COUNTS}.get(intent, ("",))
    return Request(intent, values[int(rng.integers(len(values)))])


def _others(rng: np.random.Generator, pairs: list[tuple[str, str]], mine: tuple[str, str]) -> list[Booking]:
    """Three more rows of the same split: a wrong id finds one of them, or nothing."""
    rows: list[Booking] = []
    while len(rows) < 3:
        name, booking = pairs[int(rng.integers(len(pairs)))]
        if name not in {mine[0], *(r.name for r in rows)} and booking not in {mine[1], *(r.booking for r in rows)}:
            rows.append(Booking(name, booking, *_attributes(rng)))
    return rows
