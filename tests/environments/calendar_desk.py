"""A calendar. Attempts part where a tool complains."""


class CalendarDesk:
    def reset(self, person: str, day: str, taken: str, free: str) -> str:
        self.taken, self.free, self.booked = taken, free, ""
        return f"Book a meeting with {person} on {day} at {taken}, or at the next time that is free."

    def book(self, person: str, day: str, time: str) -> str:
        """Book a meeting.

        Args:
            person: whom to meet
            day: the day of the week
            time: when it begins
        """
        if time != self.free:
            raise ValueError(f"{time} is taken; the next free time is {self.free}")
        self.booked = time
        return "booked"

    def get_reward(self) -> float:
        return float(self.booked == self.free)
