"""sgcd.trl where TRL is missing or another one: one line that says what to install."""

from importlib import import_module, metadata

import pytest


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "sgcd.trl needs TRL 1.16, and none is installed here; in an environment of its own: pip install 'trl"),
        ("1.20.1", "sgcd.trl overrides two private methods of TRL 1.16, and TRL 1.20.1 is installed; expected pip"),
    ],
)
def test_trl_missing_or_of_another_version_is_one_line(
    found: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.delitem(__import__("sys").modules, "sgcd.trl", raising=False)
    with pytest.raises(ImportError, match=f"^{message}"):
        import_module("sgcd.trl")
