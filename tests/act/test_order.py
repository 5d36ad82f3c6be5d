import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sgcd.act.task_order import TaskCursor, TaskOrder
from sgcd.records import Task

TASKS = [Task(name, "action", {}) for name in "abcdefg"]


def test_each_epoch_has_every_task_in_an_order_of_its_own():
    order = TaskOrder(TASKS, seed=1)
    epochs = ["".join(order[place].id for place in range(start, start + 7)) for start in (0, 7, 14)]
    assert epochs == [
        "".join(TaskOrder(TASKS, seed=1)[place].id for place in range(start, start + 7)) for start in (0, 7, 14)
    ]
    assert all(sorted(epoch) == list("abcdefg") for epoch in epochs)
    assert len({*epochs, "".join(TaskOrder(TASKS, seed=2)[place].id for place in range(7))}) == 4


def test_a_cursor_survives_json_whole():
    cursor = TaskCursor(12, (3, 5), 40, 11)
    assert TaskCursor.from_json(json.loads(json.dumps(cursor.to_json()))) == cursor


def test_the_share_is_one_before_anything_was_seen_and_never_zero():
    assert TaskCursor().mixed_share == 1
    assert TaskCursor(num_groups=9, num_mixed=4).mixed_share == 0.5
    assert TaskCursor().count_groups(99, 0).mixed_share == 0.01


def test_tasks_that_were_passed_over_come_first_next_time():
    order = TaskOrder(TASKS[:2], seed=0)
    first = order.next(TaskCursor(), (), 1)
    assert first == [0]
    cursor = TaskCursor().advance(0, first)
    assert cursor == TaskCursor(position=1)
    two = order.next(cursor, (), 5)
    assert sorted(order[place].id for place in two) == ["a", "b"]
    cursor = cursor.advance(max(two), two)
    assert set(cursor.skipped) == set(range(1, cursor.position)) - set(two)
    assert order.next(cursor, (), 1) == [*cursor.skipped, cursor.position][:1]


@given(st.integers(0, 99), st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=20, max_size=60))
def test_no_task_loses_or_gains_a_turn_however_steps_cross_the_ends_of_epochs(seed: int, steps: list[tuple[int, int]]):
    """Each step takes some tasks and is done with the first few of them."""
    order, cursor, done = TaskOrder(TASKS, seed), TaskCursor(), Counter[int]()
    for take, finish in steps:
        places = order.next(cursor, (), take)
        assert len({order[place].id for place in places}) == len(places) == min(take, len(TASKS))
        last = places[min(finish, len(places)) - 1] if finish else -1
        done.update(place for place in places if place <= last)
        cursor = cursor.advance(last, places)
    assert set(done.values()) <= {1}
    assert set(done) == set(range(cursor.position)) - set(cursor.skipped)
    assert len(cursor.skipped) < len(TASKS)
