"""Five tasks with scripted attempts, of which each parts in a known place, and the references that say so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from environments.archive import Archive
from environments.bank import Bank
from environments.calendar_desk import CalendarDesk
from environments.library import Library
from environments.stock_room import StockRoom
from helpers.played_class import Turn


@dataclass(frozen=True)
class Script:
    """A task of a class, its attempts, and the text of its reference: of both sides, and with outcomes exchanged."""

    cls: type[Any]
    row: dict[str, Any]
    attempts: Sequence[Sequence[Turn]]
    both_sides: str
    exchanged: str


FIND: Turn = ("find", {"item": "bolts"})


def take(count: int) -> Turn:
    return ("take", {"shelf": "C71-9", "count": count})


CHECK: Turn = ("check_fees", {"member": "m12093"})
LOOK: Turn = ("find_book", {"title": "Dune"})
LEND: Turn = ("lend", {"member": "m12093", "title": "Dune"})
COPY: Turn = ("copy_folder", {"folder": "photos-2019"})
DELETE: Turn = ("delete_folder", {"folder": "photos-2019"})


def book(time: str) -> Turn:
    return ("book", {"person": "Miranda", "day": "Monday", "time": time})


ACCOUNT: Turn = ("get_account", {"account": "savings-88"})
OWES = "You owe us 5120 euros, so I cannot lend it."

SCRIPTS = {
    "a wrong argument": Script(
        StockRoom,
        {"item": "bolts", "count": 41207, "shelf": "C71-9", "stock": 98431},
        [[FIND, take(41207), "Done."], [FIND, take(98431), "Done."], [FIND, take(41207), "It is done."]],
        "Successful attempts call find, then take.\n"
        "Attempts first part at the count of take.\n"
        "Successful attempts copy the count of take from the user's words.\n"
        "Failed attempts copy the count of take from the stock in the result of find.",
        "Successful attempts call find, then take.\n"
        "Attempts first part at the count of take.\n"
        "Successful attempts copy the count of take from the stock in the result of find.",
    ),
    "a lookup left out": Script(
        Library,
        {"member": "m12093", "book": "Dune", "fees": 5120},
        [[LOOK, CHECK, OWES], [LOOK, LEND, "Here it is."], [LOOK, LEND, "Enjoy it."]],
        "Successful attempts call find_book, then check_fees.\n"
        "Attempts first part after find_book.\n"
        "Successful attempts call check_fees.\n"
        "Failed attempts call lend.\n"
        "Attempts also part at the final answer.\n"
        "Successful attempts repeat the result of check_fees in the final answer.\n"
        "Failed attempts repeat no result of a tool in the final answer.",
        "Successful attempts call find_book, then lend.\n"
        "Attempts first part after find_book.\n"
        "Successful attempts call lend.\n"
        "Attempts also part at the final answer.\n"
        "Successful attempts repeat no result of a tool in the final answer.",
    ),
    "a wrong order": Script(
        Archive,
        {"folder": "photos-2019"},
        [[COPY, DELETE, "Done."], [DELETE, COPY, "Done."]],
        "Successful attempts call copy_folder, then delete_folder.\n"
        "Attempts first part at the first step.\n"
        "Successful attempts call copy_folder before delete_folder.\n"
        "Failed attempts call delete_folder before copy_folder.\n"
        "Attempts also part after delete_folder.\n"
        "Successful attempts answer right after delete_folder.\n"
        "Failed attempts call copy_folder right after delete_folder.",
        "Successful attempts call delete_folder, then copy_folder.\n"
        "Attempts first part at the first step.\n"
        "Successful attempts call delete_folder before copy_folder.\n"
        "Attempts also part after copy_folder.\n"
        "Successful attempts answer right after copy_folder.",
    ),
    "a complaint": Script(
        CalendarDesk,
        {"person": "Miranda", "day": "Monday", "taken": "14:05", "free": "15:35"},
        [
            [book("14:05"), book("15:35"), "Fine."],
            [book("14:05"), "Sorry, I cannot."],
            [book("14:05"), book("14:05"), "No."],
            [book("14:05"), "Sorry."],
        ],
        "Successful attempts call book.\n"
        "Attempts first part when book complains.\n"
        "Successful attempts call book again with another time when it complains.\n"
        "Failed attempts give up and answer when book complains.",
        "Successful attempts call book.\n"
        "Attempts first part when book complains.\n"
        "Successful attempts give up and answer when book complains.",
    ),
    "a wrong final answer": Script(
        Bank,
        {"account": "savings-88", "balance": 31077, "limit": 90555, "verifier": "environments.bank:judge"},
        [[ACCOUNT, "There are 31077 euros in it."], [ACCOUNT, "There are 90555 euros in it."]],
        "Successful attempts call get_account.\n"
        "Attempts first part at the final answer.\n"
        "Successful attempts repeat the balance in the result of get_account in the final answer.\n"
        "Failed attempts repeat the limit in the result of get_account in the final answer.",
        "Successful attempts call get_account.\n"
        "Attempts first part at the final answer.\n"
        "Successful attempts repeat the limit in the result of get_account in the final answer.",
    ),
}
