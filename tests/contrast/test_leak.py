"""No secret gets out to a writer, and none into a reference, in any listed form; and almost all else does get out."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import pytest

from helpers import subword_chats
from helpers.group import call, rollout, run, siblings
from helpers.planted import FIRST, SECOND, THIRD, Planted, Secret, plant, secret
from helpers.searched_text import SearchedText
from sgcd.contrast.reference import ReferenceResult, build_reference
from sgcd.contrast.trace import Trace, render_trace
from sgcd.records import Group, Rollout

CHAT = subword_chats.chat()
SECRETS = 40
"""In one group of siblings."""
PARTS = "what successful attempts check : find_user .\nthen they do : {} .\nkeep masked : hidden ."
WORDS = """the booking of this customer was made before its flight could leave and nobody has seen them since then
because luggage arrived late after midnight while cabin crew helped everyone find another hotel near our airport please
look again status delayed confirmed cancelled refund upgrade seat window aisle economy business voucher insurance policy
allowed""".split()


@dataclass
class Repeats:
    """A writer that keeps what it reads, and gives away what it was told to."""

    text: str
    name: str = "repeats"
    reads_steps: bool = True
    asked: list[str] = field(default_factory=list[str])

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        self.asked += [text for trace in traces for text in (render_trace(trace), repr(trace))]
        return self.text


@dataclass
class Story:
    """Siblings with secrets all over, and what of their words is no secret."""

    group: Group
    planted: list[Planted]
    harmless: Counter[str]


def told(rng: random.Random, planted: Sequence[Planted], harmless: Counter[str]) -> str:
    """Secrets among harmless words, in one of the shapes in which tools answer."""
    parts = list[str]()
    for one in planted:
        some = rng.choices(WORDS, k=rng.randint(6, 12))
        harmless.update(some)
        parts += [*some, rng.choice(["{}", "({})", "is: {} ,", "<p>{}</p>", '"{}"', "id={} ;", "{}."]).format(one.form)]
    return rng.choice(["{}", '{{"result": "{}"}}', "<div>{}</div>", "- {}\n- end"]).format(" ".join(parts))


def story(rng: random.Random) -> Story:
    secrets = [secret(rng) for _ in range(SECRETS)]
    planted = [plant(one, rng) for one in secrets]
    harmless: Counter[str] = Counter()
    shares = [planted[at::10] for at in range(10)]  # six observations, two turns' words, two calls
    attempts = [attempt(rng, shares[at::2], harmless, at == 0) for at in range(2)]
    shaped = [one for one in secrets if one.kind == "card"][:1]
    ending = replace(attempts[1].turns[-1].calls[0], arguments={"code": secrets[0].value, "of": [secrets[1].value]})
    last = replace(attempts[1].turns[-1], calls=(ending,))
    attempts[1] = replace(attempts[1], turns=(*attempts[1].turns[:-1], last), end_reason="ended")
    for one in shaped:  # nobody declared it, and once it looks like what it is
        attempts[0] = heard(attempts[0], {1: f"card number {one.value}"})
    undeclared = {*secrets[:2], *shaped}
    known = {one.value: one.kind for one in secrets if one not in undeclared}
    attempts[0] = replace(attempts[0], private=tuple(known), private_kinds=known)
    return Story(siblings(*attempts), planted, harmless)


def attempt(rng: random.Random, shares: Sequence[list[Planted]], harmless: Counter[str], success: bool) -> Rollout:
    """Three observations, words of the policy, and a call; of five shares of the secrets."""
    said = told(rng, shares[3], harmless)
    calls = [call("find_user", "name", "x"), said + " " + call("get_booking", "booking", "x"), call("end", "a", "x")]
    played = rollout([*calls, call("end", "b", "x")], ["x"] * 3, success, chat=CHAT)
    asked = {"note": told(rng, shares[4], harmless)}
    first = replace(played.turns[0], calls=(replace(played.turns[0].calls[0], arguments=asked),))
    played = replace(played, turns=(first, *played.turns[1:]))
    return heard(played, {at: told(rng, shares[at], harmless) for at in range(3)})


def heard(played: Rollout, more: dict[int, str]) -> Rollout:
    """What tools said, with more behind it."""
    messages, number = list[Any](), -1
    for message in played.messages:
        number += message["role"] == "tool"
        here = message["role"] == "tool" and number in more
        messages.append({**message, "content": f"{message['content']} {more[number]}"} if here else message)
    return replace(played, messages=tuple(messages))


def intact(harmless: Counter[str], asked: str) -> tuple[int, int]:
    """Characters of the harmless words that came through, and all of them."""
    through = Counter(re.findall(r"[a-z]+", asked))
    return (
        sum(min(count, through[word]) * len(word) for word, count in harmless.items()),
        sum(count * len(word) for word, count in harmless.items()),
    )


@dataclass
class Counted:
    secrets: int = 0
    forms: Counter[str] = field(default_factory=Counter[str])
    leaks: list[str] = field(default_factory=list[str])
    through: int = 0
    harmless: int = 0
    references: int = 0
    slips: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])


def let_out(groups: int, seed: int) -> Counted:
    """Play it, `groups` times, and hold everything that got out against everything that was planted."""
    counted = Counted()
    for number in range(groups):
        rng = random.Random(f"{seed} {number}")
        made = story(rng)
        slips = [plant(one, rng) for one in rng.sample([each.secret for each in made.planted], rng.choice([0, 2, 4]))]
        writer = Repeats(PARTS.format(" , ".join(one.form for one in slips)))
        found: ReferenceResult = run(build_reference(made.group, CHAT, writer, budget=10**9))
        assert writer.asked, found.cause
        kept = json.dumps(found.to_json(), ensure_ascii=False) + (found.reference.text if found.reference else "")
        out, stored = SearchedText("\n".join(writer.asked[::3])), SearchedText(kept)
        again = "\n".join(writer.asked)
        counted.leaks += [
            f"group {number}: {one.secret} as {one.form!r} ({one.how}) in {where}: {how}"
            for where, suspect, some in (("a request", out, made.planted), ("a reference", stored, slips))
            for one in some
            if (how := suspect.find_planted(one) or (one.form in again and len(one.form) > 3 and "in another view"))
        ]
        through, harmless = intact(made.harmless, "\n".join(writer.asked[::3]))
        counted.through, counted.harmless = counted.through + through, counted.harmless + harmless
        counted.secrets += len(made.planted)
        counted.forms.update(name for one in [*made.planted, *slips] for name in one.how.split("+"))
        counted.references += found.reference is not None
        counted.slips += len(slips)
        counted.refused.update([found.cause] if found.cause else [])
    return counted


def show(counted: Counted, seconds: float) -> str:
    return (
        f"\n{counted.secrets} secrets in {len(counted.forms)} kinds of forms and their combinations: "
        f"{len(counted.leaks)} in a request or a reference; {100 * counted.through / counted.harmless:.2f} % of "
        f"{counted.harmless} other characters intact; {counted.slips} slips of the writer, {counted.references} "
        f"references kept, refused {dict(counted.refused)}; {seconds:.0f} s"
    )


def judge(counted: Counted) -> None:
    assert not counted.leaks, "\n".join(counted.leaks[:20])
    assert counted.through >= 0.95 * counted.harmless
    assert counted.references >= 0.95 * counted.secrets / SECRETS
    assert set(counted.forms) >= {
        name for stage in (FIRST, SECOND, THIRD) for some in stage.values() for name in some
    } - {""}


def test_no_secret_gets_out(capsys: pytest.CaptureFixture[str]) -> None:
    before = perf_counter()
    counted = let_out(30, seed=1)
    with capsys.disabled():
        print(show(counted, perf_counter() - before))
    judge(counted)


@pytest.mark.slow
def test_no_secret_gets_out_of_a_hundred_thousand(capsys: pytest.CaptureFixture[str]) -> None:
    before = perf_counter()
    counted = let_out(100_000 // SECRETS, seed=2)
    with capsys.disabled():
        print(show(counted, perf_counter() - before))
    judge(counted)


def test_the_checker_sees_what_is_not_masked() -> None:
    rng = random.Random(3)
    seen = Counter[bool]()
    for _ in range(400):
        one = plant(secret(rng), rng)
        seen[bool(SearchedText(f"it is {one.form} .").find_planted(one))] += 1
        assert not SearchedText("it is hidden .").find_planted(one)
    assert seen[False] == 0


def test_the_checker_sees_the_secret_itself_however_it_is_written() -> None:
    rng = random.Random(4)
    for _ in range(400):
        one = plant(secret(rng), rng)
        other = Planted(Secret(one.secret.value, one.secret.kind), "nothing that stands there", "")
        assert SearchedText(f"it is {one.form} .").find_planted(other), one
