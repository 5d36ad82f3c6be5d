"""Where a policy starts: the hub's cache is read, and what cannot be had is said at once in one line."""

import shutil
import time
from pathlib import Path

import pytest

from sgcd.errors import PolicyError
from sgcd.learn.policy.load import load_policy, resolve_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(built_desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache with one model in it, and no network."""
    there = tmp_path / "hub" / "models--desk--small"
    shutil.copytree(built_desk / "policy", there / "snapshots" / COMMIT)
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return there


def test_a_model_of_the_hub_is_taken_from_its_cache(hub: Path) -> None:
    assert resolve_model("desk/small") == hub / "snapshots" / COMMIT
    assert load_policy("desk/small", "float32").chat.vocab_size > 0


def test_a_folder_comes_before_the_hub(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "desk" / "small").mkdir(parents=True)
    assert resolve_model("desk/small") == Path("desk/small")


def test_offline_what_is_not_in_the_cache_is_refused(hub: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        resolve_model("desk/large")
    assert str(caught.value) == (
        "policy.start: desk/large is neither a folder here nor in the hub's cache, and it could not be fetched "
        "(HF_HUB_OFFLINE forbids to fetch it); download it where there is a network, or give the path of a folder"
    )


def test_without_a_network_it_is_refused_at_once(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    begun = time.process_time()
    with pytest.raises(
        PolicyError, match=r"^policy\.start: desk/large .* could not be fetched \(.*onnect.*\)"
    ) as caught:
        resolve_model("desk/large")
    assert "\n" not in str(caught.value)
    assert time.process_time() - begun < 5
