"""All words of the lab: names and values, requests and answers, and the thinking words of a chatty policy."""

CUSTOMER_NAMES = tuple(
    (
        "adam alba anna arno beth boris carla cleo dana david elena emil fay felix gina hugo ines ivan jana jonas "
        "karl kira lena leo lucy mara max mia nina noah olga oscar paul petra rosa ruben sara simon tara theo ulla "
        "vera viktor wanda yann yara zeno zoe"
    ).split()
)
BOOKING_IDS = tuple(f"b{number:02d}" for number in range(64))
TIERS = ("regular", "silver", "gold")
CABINS = ("basic", "economy", "business")
INSURED = ("no", "yes")
STATUSES = ("punctual", "delayed", "cancelled")
DAYS = ("monday", "friday", "sunday")
COUNTS = ("one", "two", "three")
CITIES = ("oslo", "rome", "paris", "lima", "cairo", "delhi", "quito", "perth")

TOOLS: dict[str, tuple[tuple[str, ...], str]] = {
    "find_user": (("name",), "tier and booking of a customer"),
    "get_booking": (("booking",), "cabin insurance and city of a booking"),
    "get_flight": (("booking",), "status of the flight of a booking"),
    "cancel_booking": (("booking",), "cancel a booking"),
    "change_day": (("booking", "day"), "move a booking to another day"),
    "upgrade_cabin": (("booking", "cabin"), "move a booking to another cabin"),
    "add_bags": (("booking", "bags"), "add bags to a booking"),
    "send_voucher": (("booking",), "send a voucher for a booking"),
    "transfer_to_human": ((), "hand over to a human agent"),
}
WRITE_TOOLS = ("cancel_booking", "change_day", "upgrade_cabin", "add_bags", "send_voucher")

POLICY_TEXT = (
    "cancel only when insured is yes . change day only when cabin is not basic . upgrade only when tier is not "
    "regular . bags up to one for regular two for silver three for gold . voucher only when status is not "
    "punctual . pets groups and lost items to a human . all else is not allowed ."
)

REQUEST_TEMPLATES: dict[str, tuple[str, ...]] = {
    "cancel": ("please cancel my booking", "i need to cancel my trip", "my plans fell through cancel it please"),
    "change": ("please move my trip to {day}", "i want to fly on {day} instead", "can you change my day to {day}"),
    "upgrade": ("please upgrade me to {cabin}", "i want a seat in {cabin}", "can you move me to {cabin}"),
    "bags": ("please add {bags} bags", "i travel with {bags} bags more", "can you add {bags} bags to my trip"),
    "voucher": (
        "my flight was bad i want a voucher",
        "please send a voucher for my flight",
        "can i have a voucher for the wait",
    ),
    "pet": ("i want to take my pet along", "can my pet fly with me", "please add my pet to the trip"),
    "group": ("please book for our group", "we are a group of many", "can you seat our group together"),
    "lost": ("i lost an item on board", "please find my lost item", "my item is lost can you help"),
    "ask_cabin": ("which cabin is my trip in", "please tell me my cabin", "what is my cabin"),
    "ask_insured": ("am i insured", "please tell me if my trip is insured", "is my booking insured"),
    "ask_status": ("what is the status of my flight", "please tell me the status", "which status has my flight"),
    "ask_tier": ("which tier am i", "please tell me my tier", "what is my tier"),
    "ask_city": ("which city do i fly to", "please tell me the city", "what is the city of my trip"),
}
GREETINGS = ("hello i am {name} .", "{name} here .", "my name is {name} .")
FOLLOW_UPS = ("thanks .", "good . next .", "and one thing more .")

BEFORE_CALL = "one moment please"
REFUSAL = "sorry this is not allowed by our policy"
CONFIRMATION = "it is done thank you and goodbye"
HANDOVER = "a human will help you thank you"
FACT_TEMPLATE = "your {attribute} is {value} thank you"

HARNESS_WORDS = (
    "error : unknown tool argument missing not known wrong value for the a call no such customer booking could "
    "be read is empty needs name and each of given twice never closed there too many tools are expected done "
    "transferred already . , an found only takes nothing such"
)
REFERENCE_WORDS = (
    "credit reference : end of . , successful failed attempts call no tool then first also part at the step after when "
    "complains final answer value before right again once twice three four more than times without any with first "
    "copy from user's words instructions result in choose its listed constants set to true false leave empty compute "
    "or invent give out larger smaller number as fewer entries earlier later repeat and up same it another arguments "
    "do nothing run into limit turns tokens is hidden user error"
)

ThoughtPools = tuple[tuple[str, ...], ...]
"""One pool per thinking word of a turn: the word is drawn from its pool."""
OWN_THOUGHT_POOLS: ThoughtPools = tuple(
    tuple(f"t{position:02d}{letter}" for letter in "abcd") for position in range(16)
)


def shared_thought_pools() -> ThoughtPools:
    """Four words per position, from tools, facts and arguments: they share parameters with the decisive tokens."""
    pool = [
        *TOOLS,
        *TIERS,
        *CABINS,
        *INSURED,
        *STATUSES,
        *DAYS,
        *COUNTS,
        *CITIES,
        *CUSTOMER_NAMES[:12],
        *BOOKING_IDS[:12],
    ]
    return tuple(tuple(pool[(position * 4 + offset * 17) % len(pool)] for offset in range(4)) for position in range(16))


def thought_pools(chatty: str, count: int) -> ThoughtPools:
    """The pools of a policy's thinking words; none in a plain world."""
    return {"no": (), "own": OWN_THOUGHT_POOLS, "shared": shared_thought_pools()}[chatty][:count]


SPECIAL_TOKENS = (
    "<pad>",
    "<unk>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<think>",
    "</think>",
    "<call>",
    "</call>",
)


def build_vocabulary() -> list[str]:
    """All words in a fixed order, special tokens first."""
    request_phrases = [phrase for phrases in REQUEST_TEMPLATES.values() for phrase in phrases]
    texts = [
        POLICY_TEXT,
        *request_phrases,
        *GREETINGS,
        *FOLLOW_UPS,
        BEFORE_CALL,
        REFUSAL,
        CONFIRMATION,
        HANDOVER,
        FACT_TEMPLATE,
        HARNESS_WORDS,
        REFERENCE_WORDS,
        "tools :",
    ]
    texts += [f"{description} {' '.join(arguments)}" for arguments, description in TOOLS.values()]
    texts += ["user tier booking cabin insured city status day bags voucher"]
    words = [word for text in texts for word in text.split() if not word.startswith("{")]
    thought_words = [word for position in OWN_THOUGHT_POOLS for word in position]
    facts = [*TOOLS, *TIERS, *CABINS, *INSURED, *STATUSES, *DAYS, *COUNTS, *CITIES, *CUSTOMER_NAMES, *BOOKING_IDS]
    return list(dict.fromkeys([*SPECIAL_TOKENS, *words, *facts, *thought_words]))
