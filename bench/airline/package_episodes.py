"""Runs in the benchmark's own Python: for each line it reads, one episode by the package itself; prints its seconds."""

import sys
import time
from importlib import import_module
from typing import Any


def play_episode(task: Any) -> float:
    """A new environment, one call, and the package's whole evaluation."""
    messages, simulations = import_module("tau2.data_model.message"), import_module("tau2.data_model.simulation")
    evaluator, registry = import_module("tau2.evaluator.evaluator"), import_module("tau2.registry").registry
    began = time.perf_counter()
    environment = registry.get_env_constructor("airline")()
    call = messages.ToolCall(id="0", name="list_all_airports", arguments={})
    agent_message = messages.AssistantMessage(role="assistant", content=None, tool_calls=[call])
    simulation = simulations.SimulationRun(
        id="0",
        task_id=task.id,
        start_time="",
        end_time="",
        duration=0.0,
        termination_reason="user_stop",
        messages=[agent_message, environment.get_response(call)],
    )
    evaluator.evaluate_simulation(
        simulation=simulation,
        task=task,
        evaluation_type=evaluator.EvaluationType.ALL,
        solo_mode=False,
        domain="airline",
    )
    return time.perf_counter() - began


def main() -> None:
    import_module("loguru").logger.remove()
    tasks = import_module("tau2.registry").registry.get_tasks_loader("airline")(None)
    for number, _ in enumerate(sys.stdin):
        print(play_episode(tasks[number % len(tasks)]), flush=True)


if __name__ == "__main__":
    main()
