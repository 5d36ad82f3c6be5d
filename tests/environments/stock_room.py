"""A stock room. Attempts part where a number is copied from the wrong text."""

import json


class StockRoom:
    def reset(self, item: str, count: int, shelf: str, stock: int) -> str:
        self.item, self.count, self.shelf, self.stock = item, count, shelf, stock
        self.taken: tuple[str, int] | None = None
        return f"Please take {count} {item} for the workshop."

    def find(self, item: str) -> str:
        """Find an item.

        Args:
            item: its name
        """
        if item != self.item:
            raise KeyError("there is no such item")
        return json.dumps({"shelf": self.shelf, "stock": self.stock})

    def take(self, shelf: str, count: int) -> str:
        """Take things from a shelf.

        Args:
            shelf: where they are
            count: how many
        """
        self.taken = (shelf, count)
        return "taken"

    def get_reward(self) -> float:
        return float(self.taken == (self.shelf, self.count))
