"""What the command says where Ray lost a process, without Ray running."""

from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not in this environment; `make test-verl` runs these tests in .venv-verl")
from ray.exceptions import ActorDiedError, RayTaskError, WorkerCrashedError

from sgcd.errors import EngineError
from sgcd.verl.run import describe_ray_error

RUN = Path("runs/a")


@pytest.mark.parametrize("cause", [ActorDiedError(), WorkerCrashedError()])
def test_a_lost_process_is_one_line_that_says_how_to_go_on(cause: Exception) -> None:
    for error in (cause, RayTaskError("run", "Traceback", cause).as_instanceof_cause()):
        described = describe_ray_error(error, RUN)
        assert isinstance(described, EngineError)
        assert str(described).startswith("engine: a process of verl was lost (")
        assert str(described).endswith("sgcd train --run runs/a --resume") and "\n" not in str(described)


def test_a_module_that_is_missing_is_named_as_everywhere():
    missing = RayTaskError("run", "Traceback", ModuleNotFoundError("No module named 'openai'", name="openai"))
    described = describe_ray_error(missing.as_instanceof_cause(), RUN)
    assert type(described) is ModuleNotFoundError and described.name == "openai"


def test_our_own_errors_lose_their_way_through_processes_and_all_others_keep_it():
    ours = RayTaskError("run", "Traceback", EngineError("engine: every rollout broke")).as_instanceof_cause()
    assert str(describe_ray_error(ours, RUN)) == "engine: every rollout broke"
    other = RayTaskError("run", "Traceback", ValueError("x")).as_instanceof_cause()
    assert describe_ray_error(other, RUN) is other
