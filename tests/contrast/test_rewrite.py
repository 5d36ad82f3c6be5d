"""Siblings written of in other ways."""

from helpers.group import DONE, LAB, SORRY, Says, call, pair, rollout, run, siblings
from sgcd.contrast.refer import Contrast
from sgcd.contrast.rewrite import Causes, left_out, rewritten
from sgcd.contrast.rewrite import pair as one_pair
from sgcd.contrast.write import BuiltIn
from sgcd.records import Siblings

CONTRAST = Contrast(BuiltIn(), LAB, 10**6, 1)


def three() -> Siblings:
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
    own = [run(CONTRAST.refer(group)).reference.text for group in groups]
    arms, causes = run(rewritten(groups, own, CONTRAST, seed=0))
    assert not causes
    assert arms["rewritten"] == [[text] for text in own]
    assert "built-in" not in arms
    assert arms["shuffled"] == [[own[1]], [own[0]]]
    assert arms["what to do"][0] == ["\n".join(own[0].splitlines()[:2])]
    assert arms["deviations"][1] == [own[1].splitlines()[3]]
    assert [len(texts) for texts in arms["leave one out"]] == [2, 0]  # the only failure cannot be left out
    assert [name for name in arms if name.startswith("errors")] == [
        "errors 10%", "errors 25%", "errors 50%", "errors 100%",
    ]  # fmt: skip


def test_another_writer_stands_beside_the_built_in_one() -> None:
    contrast = Contrast(Says(["look first"]), LAB, 10**6, 1)
    arms, _ = run(rewritten([three()], ["own"], contrast, seed=0))
    assert arms["rewritten"] == [["look first"]]
    assert arms["built-in"][0][0].startswith("what successful attempts check")
    assert arms["shuffled"] == [[]]


def test_the_pair_is_the_shortest_success_and_the_longest_failure() -> None:
    assert one_pair(three()) == [0, 2]


def test_who_reads_fewer_siblings_sees_the_literals_of_none() -> None:
    writer = Says([...])
    texts = run(left_out(Contrast(writer, LAB, 10**6, 1), [three()], Causes()))
    assert len(texts[0]) == 2
    assert all(not trace.turns or "b12" not in str(trace) for trace in writer.heard)
