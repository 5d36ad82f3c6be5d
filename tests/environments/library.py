"""A library. Attempts part where a lookup is left out."""


class Library:
    def reset(self, member: str, book: str, fees: int) -> str:
        self.member, self.book, self.fees, self.lent = member, book, fees, False
        return f"I am member {member} and want to borrow {book}."

    def check_fees(self, member: str) -> str:
        """The fees that a member still has to pay.

        Args:
            member: number of the member
        """
        return f"member {member} owes {self.fees} euros"

    def find_book(self, title: str) -> str:
        """Where a book stands.

        Args:
            title: of the book
        """
        return f"{title} stands in hall 3"

    def lend(self, member: str, title: str) -> str:
        """Lend a book.

        Args:
            member: number of the member
            title: of the book
        """
        self.lent = True
        return "lent"

    def get_reward(self) -> float:
        return float(self.lent == (self.fees == 0))
