"""`.ci/run` with a stand-in for make: what it starts, in which order, and what its closing lines say."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKE = """#!/bin/sh
case $1 in
  integration-learn) echo "SKIPPED [3] tests/learn/test_kernel.py: no triton"; echo "== 1 failed in 1s =="; exit 2;;
  integration-peers) echo "SKIPPED tests/peers: no TRL";;
  integration-lab) echo "== 9 deselected in 1s ==";;
  *) echo "== 2 passed in 1s ==";;
esac
"""
SUITES = {
    "runs",
    "learn",
    "endpoint",
    "contrast",
    "lab",
    "airline",
    "appworld",
    "bfcl",
    "textworld",
    "openenv",
    "peers",
    "verl",
    "trackers",
}


@pytest.fixture
def run(tmp_path: Path):
    """Runs a copy of `.ci/run` in a git repository whose only commit touches one file, with a clock that has run."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("make", MAKE), ("chromium", "#!/bin/sh\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", checkout / ".ci/run")
    (checkout / "src/sgcd/endpoint").mkdir(parents=True)
    (checkout / "src/sgcd/endpoint/cache.py").write_text("")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        names = ["-c", "user.name=n", "-c", "user.email=e@e"]
        subprocess.run(["git", *names, *command], cwd=checkout, check=True)

    def started(seconds: int) -> tuple[int, str]:
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SECONDS": str(seconds)}
        done = subprocess.run([".ci/run"], cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    return started


def test_suites_of_changed_subjects_start_first_and_each_has_a_verdict(run) -> None:
    status, output = run(0)
    order = re.findall(r"^=== make (\S+)", output, re.MULTILINE)
    assert order[:2] == ["test", "integration-endpoint"]
    assert set(order) == {"test", *(f"integration-{name}" for name in SUITES)}
    assert status == 1
    closing = output.split("=== suites\n")[1]
    for line in (
        r"PASSED   make test, \d+ s:  2 passed in 1s",
        r"FAILED   make integration-learn, \d+ s:  1 failed in 1s",
        r"NOT RUN  in make integration-learn: \[3\] tests/learn/test_kernel.py: no triton",
        r"NOT RUN  make integration-peers, \d+ s: no test ran",
        r"NOT RUN  in make integration-peers: tests/peers: no TRL",
        r"NOT RUN  make integration-lab, \d+ s:  9 deselected in 1s",
    ):
        assert re.search(f"^{line}", closing, re.MULTILINE), line


def test_no_suite_starts_after_fifty_minutes_and_each_is_named(run) -> None:
    status, output = run(3000)
    assert re.findall(r"^=== make (\S+)", output, re.MULTILINE) == ["test"]
    named = re.findall(r"^NOT RUN  make integration-(\w+): no suite starts after 50 minutes$", output, re.MULTILINE)
    assert set(named) == SUITES
    assert status == 0


def test_the_suites_are_targets_and_make_integration_has_them_all() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"^integration-(\w+): setup", makefile, re.MULTILINE)) == SUITES
    [whole] = re.findall(r"^integration: (.*)$", makefile, re.MULTILINE)
    assert set(whole.split()) == {f"integration-{name}" for name in SUITES}
