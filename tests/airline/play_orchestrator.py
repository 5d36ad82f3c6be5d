"""Runs in the benchmark's own Python: its orchestrator plays scripted turns, and its evaluator judges the outcome.

In: {"plays": [{"task": ..., "turns": [{"text": ..., "calls": [...]}, ...]}]}. Out: the reward and the tools' answers.
"""

import json
import sys
from importlib import import_module
from typing import Any


def play(task: Any, turns: list[dict[str, Any]]) -> dict[str, Any]:
    messages, users = import_module("tau2.data_model.message"), import_module("tau2.user.user_simulator")
    registry = import_module("tau2.registry").registry
    evaluator = import_module("tau2.evaluator.evaluator")
    environment = registry.get_env_constructor("airline")()
    waiting = list(turns)

    class ScriptedAgent(import_module("tau2.agent.llm_agent").LLMAgent):
        def generate_next_message(self, message: Any, state: Any) -> Any:
            turn = waiting.pop(0)
            calls = [messages.ToolCall(id=str(number), **call) for number, call in enumerate(turn["calls"])]
            return messages.AssistantMessage(
                role="assistant", content=turn["text"], tool_calls=calls or None, cost=0.0
            ), state

    class ScriptedUser(users.UserSimulator):
        def generate_next_message(self, message: Any, state: Any) -> Any:
            is_first = message.content == "Hi! How can I help you today?"
            return messages.UserMessage(role="user", content="hello" if is_first else "###STOP###", cost=0.0), state

    agent = ScriptedAgent(tools=environment.get_tools(), domain_policy=environment.get_policy(), llm="none")
    user = ScriptedUser(llm="none", instructions=str(task.user_scenario))
    orchestrator = import_module("tau2.orchestrator.orchestrator").Orchestrator(
        domain="airline", agent=agent, user=user, environment=environment, task=task, max_steps=200
    )
    simulation = orchestrator.run()
    reward = evaluator.evaluate_simulation(
        simulation=simulation,
        task=task,
        evaluation_type=evaluator.EvaluationType.ALL,
        solo_mode=False,
        domain="airline",
    )
    answers = [message.content for message in simulation.messages if message.role == "tool"]
    return {"reward": reward.reward, "answers": answers, "ending": simulation.termination_reason.value}


def main() -> None:
    import_module("loguru").logger.remove()
    tasks = {task.id: task for task in import_module("tau2.registry").registry.get_tasks_loader("airline")(None)}
    plays = json.load(sys.stdin)["plays"]
    print(json.dumps([play(tasks[each["task"]], each["turns"]) for each in plays]))


if __name__ == "__main__":
    main()
