"""A bank. Attempts part in the final answer."""


class Bank:
    def reset(self, account: str, balance: int, limit: int) -> str:
        self.account, self.balance, self.limit = account, balance, limit
        return f"How much money is in account {account}?"

    def get_account(self, account: str) -> dict[str, int]:
        """Look up an account.

        Args:
            account: its name
        """
        if account != self.account:
            raise KeyError("there is no such account")
        return {"balance": self.balance, "limit": self.limit}


def judge(bank: Bank, answer: str) -> float:
    return float(str(bank.balance) in answer.split())
