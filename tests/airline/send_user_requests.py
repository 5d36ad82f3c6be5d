"""Runs in the benchmark's own Python: its simulated user talks to a server, and answers the agent's texts in turn.

In: {"task": ..., "url": ..., "texts": [...]}. Out: what the user said.
"""

import json
import sys
from importlib import import_module


def main() -> None:
    import_module("loguru").logger.remove()
    request = json.load(sys.stdin)
    messages = import_module("tau2.data_model.message")
    greeting = import_module("tau2.orchestrator.orchestrator").DEFAULT_FIRST_AGENT_MESSAGE
    tasks = import_module("tau2.registry").registry.get_tasks_loader("airline")(None)
    task = next(task for task in tasks if task.id == request["task"])
    user = import_module("tau2.user.user_simulator").UserSimulator(
        llm="openai/u",
        instructions=str(task.user_scenario),
        llm_args={"api_base": request["url"], "api_key": "none", "temperature": 0.0, "num_retries": 0},
    )
    state, said = user.get_init_state(), []
    for text in [greeting.content, *request["texts"]]:
        message = messages.AssistantMessage(role="assistant", content=text)
        answer, state = user.generate_next_message(message, state)
        said.append(answer.content)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
