"""Settings of the credit room: which method says what a token deserves."""

from typing import Literal

from sgcd.settings import Settings


class Grpo(Settings):
    """Every token of a rollout carries the rollout's advantage (2402.03300)."""

    name: Literal["grpo"]


Method = Grpo
