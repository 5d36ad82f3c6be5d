"""The health of a run in words, from its rows of metrics: what stops it from learning, and what it is losing."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

# From where on something is said. They are rules of thumb; nothing but the words depends on them.
AGREE = 0.75
CUT = 1 / 3
GAP = 0.05
CLIPPED = 0.2
IN_ERROR = 0.5
UNREADABLE = 0.25
WITHOUT_TOOL = 0.5
FEW = 4
"""Successes below this number are no base for a share."""

# What makes a run invalid is judged over this many steps, or over the whole of a shorter run.
WINDOW = 10
INERT = 0.005
"""Below this share of creditable tokens above weight one, weights do nothing."""
EVERYWHERE = 0.4
"""Above this share they point at nothing; a warning, since such weights are still bounded and keep every sign."""


def of_step(row: Row) -> list[str]:
    """What is wrong with one step, the gravest first; empty when nothing is."""
    return [
        *(f"INVALID: {reason}" for reason in row.get("invalid", ())),
        *moved(row),
        *broken(row),
        *references(row),
        *calls([row]),
        *agreement(row),
        *endings(row),
        *trust(row),
        *tools(row),
    ]


def verdict(rows: Sequence[Row], last: bool) -> list[str]:
    """Why the newest of `rows` makes its run invalid: what it shows by itself, and what ten steps show together.

    `last` says that the run ends with it, so that a shorter run is judged as a whole.
    """
    window = rows[-WINDOW:]
    return [*alone(rows[-1]), *(together(window) if len(window) == WINDOW or last else ())]


def invalid(rows: Sequence[Row]) -> list[str]:
    """Why a run proves nothing: each reason once, with the steps at which it was first found; empty when it may."""
    said: dict[str, str] = {}
    for end in range(1, len(rows) + 1):
        window = rows[max(0, end - WINDOW) : end]
        reasons = [(reason, window[-1:]) for reason in alone(window[-1])]
        if end >= WINDOW or end == len(rows):
            reasons += [(reason, window) for reason in together(window)]
        for reason, where in reasons:
            said.setdefault(reason.partition(":")[0], f"{reason} ({_steps(where)})")
    return list(said.values())


def _steps(rows: Sequence[Row]) -> str:
    first, last = rows[0]["step"], rows[-1]["step"]
    return f"step {last}" if first == last else f"steps {first} to {last}"


def alone(row: Row) -> list[str]:
    """What must not happen once: the mask holds what the policy did not write, the teacher gets a gradient."""
    said: list[str] = []
    if row.get("foreign"):
        said.append(f"mask: it covers {counted(row['foreign'], 'token')} that the policy did not write")
    if row.get("in_graph"):
        said.append(f"graph: {counted(row['in_graph'], 'row')} of another context than the policy's in the loss")
    return said


def together(rows: Sequence[Row]) -> list[str]:
    """Dense features that are all zero, or weights that do nothing, where there were references and gamma is not 0."""
    credit = [row["credit"] for row in rows if row.get("credit")]
    judged = [told for told in credit if told["weighs"] and told["creditable"]]
    if not judged:
        return []
    if all(told["divergence"]["max"] == 0 for told in judged):
        return [f"features: the divergence of {counted(sum(told['tokens'] for told in judged), 'token')} is zero"]
    credited, creditable = (sum(told[name] for told in judged) for name in ("credited", "creditable"))
    if credited < INERT * creditable:
        share = f"{100 * credited / creditable:.2g} %"
        return [f"weights: inert, {share} of {counted(creditable, 'creditable token')} above weight one"]
    return []


def moved(row: Row) -> list[str]:
    return [f"step skipped: {row['skipped']}"] if row["skipped"] else []


def broken(row: Row) -> list[str]:
    if not row["broken"]:
        return []
    cause, *others = sorted(row["causes"], key=lambda cause: -row["causes"][cause])
    more = f", and {counted(len(others), 'other cause')}" if others else ""
    return [f"{row['broken']} of {counted(row['rollouts'], 'rollout')} broken: {cause}{more}"]


def references(row: Row) -> list[str]:
    """Groups and rollouts that had no reference, and features that were no numbers: these learn as GRPO does."""
    told, credit = row.get("reference"), row.get("credit")
    if not told or not credit:
        return []
    said: list[str] = []
    missing = told["groups"] - told["written"]
    if missing:
        said.append(f"{missing} of {counted(told['groups'], 'group')} without a reference: {told['example']}")
    if told["no_room"]:
        said.append(f"{counted(told['no_room'], 'rollout')} left the reference no room in the model's window")
    if credit["nonfinite"]:
        lost = credit["reasons"].get("nonfinite", 0)
        more = f", {counted(lost, 'rollout')} without credit for it" if lost else ""
        said.append(f"{counted(credit['nonfinite'], 'token')} with features that are not finite{more}")
    return said


ASKED = {"endpoint": "writer", "user": "user"}
"""Models over the network, by the key of a row that has their figures."""


def calls(rows: Sequence[Row]) -> list[str]:
    """Calls over the network that brought nothing, by kind, and other trouble with each model."""
    return [line for key, who in ASKED.items() for line in troubles([row[key] for row in rows if row.get(key)], who)]


def troubles(told: Sequence[Row], who: str) -> list[str]:
    """Of one model."""
    failures = Counter[str]()
    for each in told:
        failures.update(each["failures"])
    said: list[str] = []
    if failures:
        kinds = ", ".join(f"{kind} {count}" for kind, count in failures.most_common())
        made = counted(sum(each["calls"] for each in told), "call")
        said.append(f"{failures.total()} of {made} of the {who} failed: {kinds}")
    if forgotten := sum(each["forgotten"] for each in told):
        said.append(f"the cache of answers of the {who} could not be used {counted(forgotten, 'time')}")
    return said


def agreement(row: Row) -> list[str]:
    solved, failed, tasks = row["uniform_success"], row["uniform_failure"], row["tasks"]
    if not tasks or (solved + failed) / tasks < AGREE:
        return []
    why = (
        "all succeed" if not failed else "all fail" if not solved else f"all succeed in {solved}, all fail in {failed}"
    )
    return [f"{solved + failed} of {counted(tasks, 'task')}: siblings agree, nothing to learn ({why})"]


def endings(row: Row) -> list[str]:
    """How many rollouts a limit ended; broken ones have no ending of their own."""
    played = row["rollouts"] - row["broken"]
    said: list[str] = []
    for ending, limit in (("token_limit", "token limit"), ("turn_limit", "turn limit")):
        hit = row["endings"].get(ending, 0)
        if played and hit == played:
            said.append(f"every rollout hits the {limit}")
        elif played and hit / played >= CUT:
            said.append(f"{hit} of {counted(played, 'rollout')} hit the {limit}")
    cut = row["cuts"].get("observation", 0)
    if played and cut >= played:
        said.append(f"observations were cut {counted(cut, 'time')} in {counted(played, 'rollout')}")
    return said


def trust(row: Row) -> list[str]:
    """Whether the policy that learns is still the one that played."""
    said: list[str] = []
    gap, clipped = row.get("sampler_gap_mean"), row.get("clip_share")
    if gap is not None and gap >= GAP:
        said.append(f"sampler and trainer disagree by {gap:.2g} nats a token")
    if clipped is not None and clipped >= CLIPPED:
        said.append(f"clip share {percent(clipped)}")
    return said


def tools(row: Row) -> list[str]:
    said: list[str] = []
    if row["calls_in_error"] is not None and row["calls_in_error"] >= IN_ERROR:
        said.append(f"{percent(row['calls_in_error'])} of {counted(row['calls'], 'call')} in error")
    if row["rollouts"] and row["malformed_turns"] / row["rollouts"] >= UNREADABLE:
        turns, rollouts = counted(row["malformed_turns"], "turn"), counted(row["rollouts"], "rollout")
        said.append(f"{turns} in {rollouts} held a call that could not be read")
    for category, audit in row["audit"].items():
        bare, won = audit["without_tool"], audit["successes"]
        if won >= FEW and bare / won >= WITHOUT_TOOL:
            said.append(f"{bare} of {won} {category} successes called no tool")
    return said


def of_run(rows: Sequence[Row]) -> list[str]:
    """What went wrong over a whole run: steps without an update, and what its last quarter lost against its first."""
    return [
        *(f"INVALID: {reason}" for reason in invalid(rows)),
        *unmoved(rows),
        *machinery(rows),
        *unreferred(rows),
        *calls(rows),
        *scattered(rows),
        *losses(rows),
    ]


def scattered(rows: Sequence[Row]) -> list[str]:
    """Credit that is nearly everywhere, over the last steps that are judged together."""
    credit = [row["credit"] for row in rows[-WINDOW:] if row.get("credit")]
    credited, creditable = (sum(told[name] for told in credit) for name in ("credited", "creditable"))
    if not creditable or credited <= EVERYWHERE * creditable:
        return []
    return [f"credit is not localised: {percent(credited / creditable)} of creditable tokens above weight one"]


def unmoved(rows: Sequence[Row]) -> list[str]:
    reasons = Counter(str(row["skipped"]) for row in rows if row["skipped"])
    if not reasons:
        return []
    why = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    return [f"{reasons.total()} of {counted(len(rows), 'step')} moved nothing: {why}"]


def machinery(rows: Sequence[Row]) -> list[str]:
    causes: Counter[str] = Counter()
    for row in rows:
        causes.update(row["causes"])
    every = {"broken": sum(row["broken"] for row in rows), "rollouts": sum(row["rollouts"] for row in rows)}
    return broken({**every, "causes": causes})


def unreferred(rows: Sequence[Row]) -> list[str]:
    """Groups that learnt as with GRPO, for want of a reference."""
    told = [row["reference"] for row in rows if row.get("reference")]
    causes = Counter[str]()
    for each in told:
        causes.update(each["causes"])
    if not causes:
        return []
    why = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
    return [f"{causes.total()} of {counted(sum(each['groups'] for each in told), 'group')} without a reference: {why}"]


def losses(rows: Sequence[Row]) -> list[str]:
    """The last quarter against the first; fewer than eight steps have no quarters to speak of."""
    quarter = len(rows) // 4
    if quarter < 2:
        return []
    first, last = rows[:quarter], rows[-quarter:]

    def change(read: Callable[[Row], float | None]) -> tuple[float, float] | None:
        before, after = average(first, read), average(last, read)
        return None if before is None or after is None else (before, after)

    said: list[str] = []
    success = change(lambda row: row["success"])
    if success and success[1] < success[0] - 0.1:
        said.append(f"success in training fell from {percent(success[0])} to {percent(success[1])}")
    for category in ("information", "action"):
        used = change(lambda row, of=category: row["audit"][of]["tools_per_success"])
        if used and used[1] < used[0] / 2:
            said.append(f"calls per {category} success fell from {used[0]:.1f} to {used[1]:.1f}")
    errors = change(lambda row: row["calls_in_error"])
    if errors and errors[1] > errors[0] + 0.1:
        said.append(f"calls in error rose from {percent(errors[0])} to {percent(errors[1])}")
    entropy = change(lambda row: row["entropy"])
    if entropy and entropy[1] < entropy[0] / 10:
        said.append(f"entropy fell from {entropy[0]:.2g} to {entropy[1]:.2g} nats")
    return said


def average(rows: Sequence[Row], read: Callable[[Row], float | None]) -> float | None:
    """Mean over the rows in which there was something to measure."""
    values = [value for value in map(read, rows) if value is not None]
    return sum(values) / len(values) if values else None


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
