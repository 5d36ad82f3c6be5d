"""Registers trainer and agent loop in each process of verl, which loads this module (entry point `verl.plugins`)."""

from sgcd.errors import EngineError
from sgcd.verl.agent_loop import SiblingAgentLoop
from sgcd.verl.hooks import AGENT_LOOP, TRAINER_MODE, TRAINER_REGISTRY, describe_changes, register_agent_loop
from sgcd.verl.trainer import SiblingTrainer

register_agent_loop(AGENT_LOOP)(SiblingAgentLoop)
TRAINER_REGISTRY.update({TRAINER_MODE: SiblingTrainer})


def check_registered() -> None:
    """Refuse to start where verl would train without us: it logs a plugin that fails to load, and goes on."""
    if changes := describe_changes():
        raise EngineError(f"engine: verl is not the one that was tested: {'; '.join(changes)}")
    if TRAINER_REGISTRY.get(TRAINER_MODE) is not SiblingTrainer:
        raise EngineError(
            f"engine: verl's trainer {TRAINER_MODE!r} is {TRAINER_REGISTRY.get(TRAINER_MODE)}, and not sgcd's; another "
            "plugin has replaced it: name the plugins in VERL_USE_EXTERNAL_PLUGINS"
        )
