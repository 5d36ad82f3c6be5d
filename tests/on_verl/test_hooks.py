"""The functions of verl that sgcd relies on look as they did in the version that was tested."""

import pytest

pytest.importorskip("verl", reason="verl is not in this environment; `make test-verl` runs these tests in .venv-verl")
from sgcd.errors import EngineError
from sgcd.verl import hooks, plugin


def test_no_function_of_verl_has_changed():
    assert hooks.describe_changes() == []
    plugin.check_registered()


def test_a_changed_function_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hooks.SIGNATURES, hooks.PPOTrainerSync.prepare_step, "self, batch")
    with pytest.raises(EngineError, match=r"PPOTrainer.prepare_step: expected \(self, batch\), got \(self\)"):
        plugin.check_registered()


def test_a_trainer_that_another_plugin_has_replaced_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hooks.TRAINER_REGISTRY, hooks.TRAINER_MODE, hooks.PPOTrainerSync)
    with pytest.raises(EngineError, match="another plugin has replaced it"):
        plugin.check_registered()
