"""The lab's environment: an airline with a database, typed tools, a written policy and an exact verifier."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sgcd.act.environment import InitialMessages, Reply
from sgcd.lab import words
from sgcd.records import Call, Category, ParsedTurn, Task, Verdict


@dataclass(frozen=True, slots=True)
class Booking:
    """One row of the database: a customer and the customer's only trip.

    >>> Booking("mia", "b12", "silver", "economy", "no", "punctual", "rome").tier
    'silver'
    """

    name: str
    booking: str
    tier: str
    cabin: str
    insured: str
    status: str
    city: str
    day: str = ""
    bags: str = ""
    voucher: str = ""
    open: str = "yes"


@dataclass(frozen=True, slots=True)
class Request:
    """The intent of a user, and its value: a day, a cabin, or a number of bags."""

    intent: str
    value: str = ""


READ_TOOL_OF = {
    **dict.fromkeys(("cancel", "change", "ask_cabin", "ask_insured", "ask_city"), "get_booking"),
    **dict.fromkeys(("voucher", "ask_status"), "get_flight"),
}
"""The tool that returns the deciding fact of a request, in addition to find_user."""
WRITE_TOOL_OF = {
    "cancel": "cancel_booking",
    "change": "change_day",
    "upgrade": "upgrade_cabin",
    "bags": "add_bags",
    "voucher": "send_voucher",
}
TRANSFER_INTENTS = ("pet", "group", "lost")
_POSSIBLE_ANSWERS = {
    "ask_cabin": words.CABINS,
    "ask_insured": words.INSURED,
    "ask_status": words.STATUSES,
    "ask_tier": words.TIERS,
    "ask_city": words.CITIES,
}


def is_allowed(request: Request, row: Booking) -> bool:
    """The written policy (`words.POLICY_TEXT`), as the verifier applies it."""
    match request.intent:
        case "cancel":
            return row.insured == "yes"
        case "change":
            return row.cabin != "basic"
        case "upgrade":
            return row.tier != "regular"
        case "bags":
            return words.COUNTS.index(request.value) <= words.TIERS.index(row.tier)
        case "voucher":
            return row.status != "punctual"
        case _:
            return False


def apply_write(tool: str, row: Booking, value: str) -> Booking:
    """The row after a write tool."""
    match tool:
        case "cancel_booking":
            return replace(row, open="")
        case "change_day":
            return replace(row, day=value)
        case "upgrade_cabin":
            return replace(row, cabin=value)
        case "add_bags":
            return replace(row, bags=value)
        case _:
            return replace(row, voucher="sent")


def category_of(request: Request, row: Booking) -> Category:
    """The category of a task whose first request is `request`."""
    if request.intent.startswith("ask_"):
        return "information"
    if request.intent in TRANSFER_INTENTS:
        return "transfer"
    return "action" if is_allowed(request, row) else "no_action"


def expected_outcome(requests: tuple[Request, ...], row: Booking) -> tuple[Booking, bool, tuple[str, ...]]:
    """The final row, whether a human was called, and the phrase that each answer must contain."""
    is_transferred, phrases = False, list[str]()
    for request in requests:
        if request.intent.startswith("ask_"):
            attribute = request.intent.removeprefix("ask_")
            phrases.append(f"{attribute} is {getattr(row, attribute)}")
        elif request.intent in TRANSFER_INTENTS:
            is_transferred = True
            phrases.append("")
        elif is_allowed(request, row):
            row = apply_write(WRITE_TOOL_OF[request.intent], row, request.value)
            phrases.append("")
        else:
            phrases.append("not allowed")
    return row, is_transferred, tuple(phrases)


def booking_from_json(values: Mapping[str, Any]) -> Booking:
    return Booking(**values)


class Airline:
    """One play of one task, with its own database and a scripted user.

    In a chatty world every turn begins with thinking: one word from each pool of `thoughts`, in order. Any other
    thinking fails the task, so that thinking less gains nothing. Without `thoughts` thinking is not checked.
    """

    def __init__(self, thoughts: words.ThoughtPools | None = None) -> None:
        self.thoughts = thoughts
        self.has_valid_thoughts = True
        self.rows: dict[str, Booking] = {}
        self.requests: tuple[Request, ...] = ()
        self.task: Mapping[str, Any] = {}
        self.is_transferred = False
        self.answers: list[str] = []

    async def open(self, task: Task, seed: int) -> InitialMessages:
        self.task = task.row
        self.rows = {values["booking"]: booking_from_json(values) for values in task.row["rows"]}
        self.requests = tuple(Request(**request) for request in task.row["requests"])
        messages = ({"role": "system", "content": words.POLICY_TEXT}, {"role": "user", "content": task.row["said"][0]})
        return InitialMessages(messages, TOOL_SCHEMAS)

    async def reply(self, turn: ParsedTurn) -> Reply:
        thinking = turn.thinking.split()
        if self.thoughts is not None:
            self.has_valid_thoughts &= len(thinking) == len(self.thoughts)
            self.has_valid_thoughts &= all(word in pool for word, pool in zip(thinking, self.thoughts, strict=False))
        if turn.calls:
            results = [self.call_tool(call) for call in turn.calls]
            failed = tuple(result.startswith("error") for result in results)
            return Reply(tuple({"role": "tool", "content": result} for result in results), call_errors=failed)
        self.answers.append(turn.text)
        if len(self.answers) == len(self.requests):
            return Reply(done=True)
        return Reply(({"role": "user", "content": self.task["said"][len(self.answers)]},))

    async def verify(self) -> Verdict:
        customer = booking_from_json(self.task["rows"][0])
        row, is_transferred, phrases = expected_outcome(self.requests, customer)
        others_unchanged = all(
            self.rows[values["booking"]] == booking_from_json(values) for values in self.task["rows"][1:]
        )
        state_matches = (
            self.rows[customer.booking] == row and others_unchanged and self.is_transferred == is_transferred
        )
        phrases_match = len(self.answers) == len(phrases) and all(
            f" {phrase} " in f" {answer} " for phrase, answer in zip(phrases, self.answers, strict=True) if phrase
        )
        success = state_matches and phrases_match and self.has_valid_thoughts
        return Verdict(
            float(success), success, {"state": state_matches, "told": phrases_match, "thought": self.has_valid_thoughts}
        )

    def private(self) -> tuple[str, ...]:
        row = booking_from_json(self.task["rows"][0])
        answers = [value for request in self.requests for value in _POSSIBLE_ANSWERS.get(request.intent, ())]
        return tuple(dict.fromkeys([row.name, row.booking, *answers, *(r.value for r in self.requests if r.value)]))

    async def close(self) -> None:
        self.rows = {}

    def call_tool(self, call: Call) -> str:
        """A tool's answer; the answer to a wrong call is an error message."""
        if call.name not in words.TOOLS:
            return f"error : unknown tool {call.name}"
        arguments = [*words.TOOLS[call.name][0]]
        for argument in arguments:
            if argument not in call.arguments:
                return f"error : {call.name} needs {argument}"
        for argument in call.arguments:
            if argument not in arguments:
                return f"error : {call.name} takes no {argument}"
        if call.name == "find_user":
            customer = next((row for row in self.rows.values() if row.name == call.arguments["name"]), None)
            return (
                f"user : {customer.name} , tier : {customer.tier} , booking : {customer.booking}"
                if customer
                else "error : no such customer"
            )
        if call.name == "transfer_to_human":
            self.is_transferred = True
            return "done transferred"
        row = self.rows.get(str(call.arguments["booking"]))
        if row is None or not row.open:
            return "error : no such booking"
        if call.name == "get_booking":
            return f"booking : {row.booking} , cabin : {row.cabin} , insured : {row.insured} , city : {row.city}"
        if call.name == "get_flight":
            return f"booking : {row.booking} , status : {row.status}"
        value = str(call.arguments[arguments[1]]) if len(arguments) > 1 else ""
        valid_values = {"change_day": words.DAYS, "upgrade_cabin": words.CABINS, "add_bags": words.COUNTS}.get(
            call.name
        )
        if valid_values and value not in valid_values:
            return f"error : wrong value for {arguments[1]}"
        self.rows[row.booking] = apply_write(call.name, row, value)
        return f"done {call.name}"


TOOL_SCHEMAS: tuple[Mapping[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {a: {"type": "string"} for a in arguments},
                "required": list(arguments),
            },
        },
    }
    for name, (arguments, description) in words.TOOLS.items()
)
