"""References of five small environments, each with a known place where attempts part."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from environments.bank import Bank
from environments.scripts import SCRIPTS, Script
from environments.stock_room import StockRoom
from helpers.group import LAB, run
from helpers.planted import Secret
from helpers.played_class import exchange, play
from helpers.searched_text import SearchedText
from sgcd.contrast.reference import ReferenceResult, build_reference
from sgcd.contrast.trace import Trace, render_trace
from sgcd.contrast.writers import Writer
from sgcd.contrast.writers.built_in import BuiltInWriter, compose_reference
from sgcd.contrast.writers.trace import TraceWriter
from sgcd.records import Group

EACH = pytest.mark.parametrize("script", [pytest.param(script, id=name) for name, script in SCRIPTS.items()])


@dataclass
class Recording:
    """The built-in writer, and all that it could read."""

    read: list[str] = field(default_factory=list[str])
    name: str = "recording"
    reads_steps: bool = True

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        self.read += [text for trace in traces for text in (render_trace(trace), repr(trace))]
        return compose_reference(traces, names_failures=True)


def written(group: Group, writer: Writer) -> str:
    found: ReferenceResult = run(build_reference(group, LAB, writer, budget=10**6))
    assert found.reference, found.cause
    assert found.num_replaced == 0
    return found.reference.text


@EACH
def test_the_reference_names_the_place_and_what_either_side_does_there(script: Script) -> None:
    group = play(script.cls, script.row, script.attempts)
    assert written(group, BuiltInWriter(names_failures=True)) == script.both_sides
    successes_only = [line for line in script.both_sides.splitlines() if not line.startswith("Failed")]
    assert written(group, BuiltInWriter()) == "\n".join(successes_only)


@EACH
def test_the_reference_is_another_when_successes_and_failures_are_exchanged(script: Script) -> None:
    group = exchange(play(script.cls, script.row, script.attempts))
    assert written(group, BuiltInWriter()) == script.exchanged != script.both_sides


@EACH
@pytest.mark.parametrize("is_declared", [True, False])
def test_no_value_of_the_task_gets_into_a_reference_nor_a_declared_one_to_a_writer(
    script: Script, is_declared: bool
) -> None:
    values = [str(value) for name, value in script.row.items() if name != "verifier"]
    group = play(script.cls, script.row, script.attempts)
    if is_declared:
        group = replace(group, rollouts=tuple(replace(one, private=tuple(values)) for one in group.rollouts))
    writer = Recording()
    text = SearchedText(written(group, writer))
    assert [value for value in values if text.find_secret(Secret(value, ""))] == []
    read = SearchedText("\n".join(writer.read))
    seen = [value for value in values if read.find_secret(Secret(value, ""))]
    assert seen == [] if is_declared else len(seen) >= len(values) - 2


class Door:
    """Attempts do the same as far as calls and values show; one that knocks twice leaves the door open."""

    facts: object = None

    def reset(self, seed: int = 0) -> str:
        self.knocks = 0
        return "Open the door."

    def knock(self) -> str:
        """Knock once."""
        self.knocks += 1
        return "You knocked."

    def get_public_facts(self) -> object:
        return {"door open": self.knocks == 2, "sky blue": True} if self.facts is None else self.facts

    def get_reward(self) -> float:
        return float(self.knocks == 2)


def test_public_facts_are_named_where_they_part_the_siblings() -> None:
    group = play(Door, {}, [[("knock", {}), ("knock", {}), "Done."], [("knock", {}), "Done."]])
    assert group.rollouts[0].verdict and group.rollouts[0].verdict.public_facts == {"door open": True, "sky blue": True}
    text = written(group, BuiltInWriter(names_failures=True))
    assert text.endswith(
        "Attempts also part at the end.\nSuccessful attempts end with door open.\n"
        "Failed attempts end without door open."
    )
    assert "sky" not in text
    swapped = written(exchange(group), BuiltInWriter())
    assert swapped.endswith("Successful attempts end without door open.")


@pytest.mark.parametrize("facts", [{"door open": 1}, {1: True}, "open", 3])
def test_facts_that_are_not_true_or_false_by_words_break_the_rollout(facts: object) -> None:
    with pytest.raises(AssertionError, match=r"get_public_facts\(\) returned .*, expected true or false by words"):
        play(type("Facts", (Door,), {"facts": facts}), {}, [["Done."], [("knock", {}), "Done."]])


@EACH
def test_the_trace_writer_shows_a_success_and_no_declared_value(script: Script) -> None:
    group = play(script.cls, script.row, script.attempts)
    values = [str(value) for name, value in script.row.items() if name != "verifier"]
    group = replace(group, rollouts=tuple(replace(one, private=tuple(values)) for one in group.rollouts))
    found: ReferenceResult = run(build_reference(group, LAB, TraceWriter(), budget=10**6))
    if not found.reference:  # only hidden values part them
        assert script.cls in (StockRoom, Bank)
        assert found.cause.startswith("nothing parts them: ")
        return
    text = found.reference.text
    lines = text.splitlines()
    success = next(one for one in group.rollouts if one.success)
    assert lines[0] == "An attempt that succeeded :"
    assert [line.split()[2] for line in lines if line.startswith("call :")] == [call.name for call in success.calls]
    assert [value for value in values if SearchedText(text).find_secret(Secret(value, ""))] == []
    assert written(exchange(group), TraceWriter()) != text
