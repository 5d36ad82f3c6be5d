"""The supply desk of an office: find an item, then hand out what was asked for, or what is left of it.

Attempts part in one place: the number that is handed out comes from the request or from the stock.
"""

import json
from typing import Any


class SupplyDesk:
    def reset(self, item: str, count: int, shelf: str, stock: int) -> None:
        self.item, self.shelf, self.stock = item, shelf, stock
        self.handed_out: list[tuple[str, int]] = []

    def find(self, item: str) -> str:
        """Find an item."""
        if item != self.item:
            raise KeyError("there is no such item")
        return json.dumps({"shelf": self.shelf, "stock": self.stock})

    def hand_out(self, shelf: str, count: int) -> str:
        """Hand out an item."""
        if shelf != self.shelf:
            raise KeyError("there is no such shelf")
        self.handed_out.append((shelf, count))
        return "handed out"


def judge(desk: SupplyDesk, row: dict[str, Any]) -> float:
    """What was asked for is handed out once, or all that is left of it; nothing where nothing is left."""
    count = min(row["count"], row["stock"])
    return float(desk.handed_out == ([(row["shelf"], count)] if count else []))
