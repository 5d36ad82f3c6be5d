"""A real OpenAI-compatible server, `transformers serve`, with a policy of the lab: writer, plain model and user."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.simulated_users import DOOR
from sgcd.cli import main
from sgcd.learn.policy.load import resolve_model

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).parents[2] / "recipes/lab/sgcd-llm.yaml"
PATIENCE = 180


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of a server that has loaded the lab's policy, and the policy's name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    policy = str(resolve_model("lab:plain"))
    command = [str(Path(sys.executable).parent / "transformers"), "serve", policy, "--port", str(port)]
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--device", "cpu"], stdout=out, stderr=out, env=quiet
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1", policy
    finally:
        process.terminate()
        process.wait(30)


def test_the_labs_policy_answers_and_every_answer_is_counted_as_malformed(
    served: tuple[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url, model = served
    told = {
        "name": "llm",
        "base_url": url,
        "model": model,
        "structure": "none",
        "tokens": 32,
        "concurrency": 1,
        "retries": 0,
    }
    keys = ("steps=1", "siblings.groups=2", "evaluation.tasks=1", "evaluation.trials=0", "evaluation.every=9")
    run = tmp_path / "run"
    assert main(["train", str(RECIPE), *keys, "reference.writer=" + json.dumps(told), "--run", str(run)]) == 0
    [row] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    said = "".join(capfd.readouterr())
    with capfd.disabled():
        print(f"\ntransformers serve: {row['endpoint']['calls']} calls, {row['endpoint']['seconds']}")
        print(
            f"answers refused: {row['reference']['refused']}; groups without a reference: {row['reference']['causes']}"
        )
    assert row["endpoint"]["failures"].keys() <= {"cancelled"}, "it answered all but a group that was not needed"
    assert row["endpoint"]["tokens"]["answer"] > 0
    assert row["reference"]["written"] == 0
    assert row["reference"]["groups"] > 0
    assert all(cause.startswith("malformed") for cause in row["reference"]["causes"])
    assert sum(row["reference"]["refused"].values()) == 3 * row["reference"]["groups"]
    assert "without a reference: malformed" in said
    assert not row["skipped"]


def test_the_labs_policy_is_evaluated_as_a_plain_model(
    served: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Its calls are words that this server does not take for calls, so it answers at once; tools and seed are taken."""
    url, model = served
    told = {"base_url": url, "model": model, "concurrency": 1, "retries": 0, "tokens": 32}
    recipe = str(RECIPE.with_name("grpo.yaml"))
    typed = ("evaluation.model=" + json.dumps(told), "--tasks", "8", "--trials", "1", "--json")
    assert main(["evaluate", recipe, *typed]) == 0
    found = json.loads(capfd.readouterr().out)
    with capfd.disabled():
        print(f"\ntransformers serve, played: {found['modes']['greedy']['endings']}, {found['endpoints']['model']}")
    for mode in ("greedy", "sampled"):
        assert found["modes"][mode]["broken"]["trials"] == 0
        assert sum(found["modes"][mode]["endings"].values()) == 8
    assert found["endpoints"]["model"]["failures"] == {}


def test_the_labs_policy_plays_a_user(
    served: tuple[str, str], at_desk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url, model = served
    (at_desk / "door.py").write_text(DOOR)
    rows = [{"word": "yes", "verifier": "door:heard", "user": f"mia {n} wants a voucher"} for n in range(4)]
    for split in ("train", "dev"):
        (at_desk / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    user = {"base_url": url, "model": model, "concurrency": 1, "retries": 0, "tokens": 48}
    keys = (
        *("environment.class=door:Door", "environment.system=please be kind", "environment.user=" + json.dumps(user)),
        *("siblings.rounds=1", "siblings.limits={turns: 2, tokens: 200}", "steps=1", "evaluation.every=9"),
    )
    assert main(["train", "recipe.yaml", *keys, "--run", "run"]) in (0, 1)  # 1: no group was mixed
    [row] = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    with capfd.disabled():
        print(f"\ntransformers serve as user: {row['user']}, broken: {row['causes']}")
    assert row["user"]["failures"] == {}
    assert row["user"]["calls"] >= row["rollouts"]
    assert {cause.split(": ")[1] for cause in row["causes"]} <= {"length", "empty"}
