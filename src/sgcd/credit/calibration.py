"""The spike's threshold, chosen once on the first batch so that credit stays localised, then frozen and recorded."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from sgcd.credit.settings import Scale, SegmentSettings

SPIKE_CANDIDATES: dict[Scale, tuple[float, ...]] = {"published": (3.0, 4.0, 5.0, 6.0), "absolute": (0.3, 0.4, 0.5, 0.6)}
_MAX_CREDITED_SHARE = 0.15
"""Share of the response tokens that may be credited."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The spike that was chosen, and the share of response tokens that it credits.

    >>> Calibration(spike=4.0, share=0.14).state()
    {'spike': 4.0, 'share': 0.14}
    """

    spike: float
    share: float

    def to_json(self) -> dict[str, float]:
        """Plain JSON for the checkpoint; Calibration(**state) restores it."""
        return asdict(self)

    def apply_to(self, settings: SegmentSettings) -> SegmentSettings:
        """The settings with this spike (z_hi), saliency one at twice it (z_sat = 2 z_hi)."""
        return settings.model_copy(update={"spike": self.spike, "saturation": 2 * self.spike})


def calibrate(credited_share: Callable[[SegmentSettings], float], settings: SegmentSettings) -> Calibration:
    """The smallest candidate under which at most 15 % of the response tokens are credited, or the largest of all.

    `credited_share` segments the first batch under the settings that it is given.
    """
    calibration = Calibration(0.0, 1.0)
    for spike in SPIKE_CANDIDATES[settings.scale]:
        calibration = Calibration(spike, credited_share(Calibration(spike, 0.0).apply_to(settings)))
        if calibration.share <= _MAX_CREDITED_SHARE:
            break
    return calibration
