"""Siblings written of in other ways."""

from dataclasses import replace

from helpers.group import DONE, LAB, SORRY, Says, call, pair, rollout, run, siblings
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.contrast.rewrite import CauseCounts, rewrite_references, write_without_each
from sgcd.contrast.rewrite import pick_pair as one_pair
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.records import Group, Verdict

CONTRAST = ReferenceBuilder(BuiltInWriter(), LAB, 10**6, 1)


def three() -> Group:
    good = [call("find_user", "name", "mia"), call("get_booking", "booking", "b12"), SORRY]
    other = [call("find_user", "name", "mia"), call("get_flight", "booking", "b12"), SORRY]
    bad = [call("cancel_booking", "booking", "b12"), DONE]
    return siblings(
        *(
            rollout(said, ["x"] * (len(said) - 1), said is not bad, private=("mia", "b12"))
            for said in (good, other, bad)
        )
    )


def test_every_arm_has_its_texts() -> None:
    groups = [three(), pair()]
    own = [run(CONTRAST.build(group)).reference.text for group in groups]
    arms, causes = run(rewrite_references(groups, own, CONTRAST, BuiltInWriter(), seed=0))
    assert not causes
    assert arms["rewritten"] == [[text] for text in own]
    assert "built-in" not in arms
    assert arms["shuffled"] == [[own[1]], [own[0]]]
    assert arms["what to do"][0] == ["\n".join(own[0].splitlines()[:1])]
    assert arms["deviations"][1] == ["\n".join(own[1].splitlines()[1:])]
    assert [len(texts) for texts in arms["leave one out"]] == [2, 0]  # the only failure cannot be left out
    assert [name for name in arms if name.startswith("errors")] == [
        "errors 10%", "errors 25%", "errors 50%", "errors 100%",
    ]  # fmt: skip


def test_another_writer_stands_beside_the_built_in_one() -> None:
    contrast = ReferenceBuilder(Says(["look first"]), LAB, 10**6, 1)
    arms, _ = run(rewrite_references([three()], ["own"], contrast, BuiltInWriter(), seed=0))
    assert arms["rewritten"] == [["look first"]]
    assert arms["built-in"][0][0].startswith("Successful attempts call")
    assert arms["shuffled"] == [[]]


def test_the_pair_is_the_shortest_success_and_the_longest_failure() -> None:
    assert one_pair(three()) == [0, 2]


def test_who_reads_fewer_siblings_sees_the_literals_of_none() -> None:
    writer = Says([...])
    texts = run(write_without_each(ReferenceBuilder(writer, LAB, 10**6, 1), [three()], CauseCounts()))
    assert len(texts[0]) == 2
    assert all(not trace.turns or "b12" not in str(trace) for trace in writer.traces)


def test_a_pair_of_graded_siblings_is_a_better_and_a_worse_one() -> None:
    rewards = (0.44, 0.89, 0.44)
    rollouts = [rollout(["done"], sibling=sibling) for sibling in range(3)]
    graded = [replace(each, verdict=Verdict(reward, False)) for each, reward in zip(rollouts, rewards, strict=True)]
    assert one_pair(siblings(*graded)) == [1, 0]
