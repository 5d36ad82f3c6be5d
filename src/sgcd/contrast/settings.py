"""Settings of the contrast room: how siblings become a reference."""

from sgcd.settings import Settings


class ReferenceSettings(Settings):
    """How siblings become a reference. GRPO needs none, so there is nothing to set yet."""
