"""One domain of tau2-bench for `fork_server.py`. Runs in the benchmark's own Python, without sgcd."""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

_Json = dict[str, Any]
_RunLimited = Callable[[Callable[[], Any]], Any]


class Tau2Domain:
    """One domain: its environment as an episode begins, and its tasks."""

    def __init__(self, domain: str) -> None:
        import_module("loguru").logger.remove()  # the benchmark logs every call
        registry = import_module("tau2.registry").registry
        self.domain = domain
        self.environment: Any = registry.get_env_constructor(domain)()
        self.tasks: dict[str, Any] = {task.id: task for task in registry.get_tasks_loader(domain)(None)}
        self.splits: dict[str, list[str]] = registry.get_task_splits_loader(domain)()

    def open_episode(self, run_limited: _RunLimited) -> "Tau2Episode":
        return Tau2Episode(self, run_limited)

    def describe(self) -> _Json:
        """What a policy and a simulated user see, as the benchmark's own agent and user have it, and the tasks."""
        tools = self.environment.get_tools()
        agent = import_module("tau2.agent.llm_agent").LLMAgent(
            tools=tools, domain_policy=self.environment.get_policy(), llm=""
        )
        greeting = import_module("tau2.orchestrator.orchestrator").DEFAULT_FIRST_AGENT_MESSAGE
        tool_types = import_module("tau2.environment.toolkit").get_tool_types(self.environment.tools)
        return {
            "system": agent.system_prompt,
            "greeting": greeting.content,
            "tools": [tool.openai_schema for tool in tools],
            "write_tools": [name for name, kind in tool_types.items() if kind.value == "write"],
            "tasks": [self._describe_task(task) for task in self.tasks.values()],
        }

    def _describe_task(self, task: Any) -> _Json:
        user = import_module("tau2.user.user_simulator").UserSimulator(llm="", instructions=str(task.user_scenario))
        wish, criteria = task.user_scenario.instructions, task.evaluation_criteria
        first_words = [wish] if isinstance(wish, str) else [wish.reason_for_call, wish.known_info]
        return {
            "id": task.id,
            "split": next((split for split in ("train", "test") if task.id in self.splits[split]), ""),
            "user_prompt": user.system_prompt,
            "first_words": "\n".join(words for words in first_words if words),
            "gold_calls": [{"name": call.name, "arguments": call.arguments} for call in gold_calls(task)],
            "communicate": criteria.communicate_info or [],
            "is_judged_by_model": bool(criteria.nl_assertions) and "NL_ASSERTION" in reward_basis(task),
        }


class Tau2Episode:
    """One conversation: the environment that it changes, and what the agent wrote, whole."""

    def __init__(self, benchmark: Tau2Domain, run_limited: _RunLimited) -> None:
        self.benchmark = benchmark
        self.run_limited = run_limited
        self.agent_messages: list[Any] = []
        self.num_errors = 0

    def answer(self, request: _Json) -> _Json:
        """Carry out one request: describe, turn, gold_hash or verdict."""
        match request["request"]:
            case "describe":
                return self.benchmark.describe()
            case "turn":
                return self._take_turn(request["text"], request["calls"])
            case "gold_hash":
                return {"hash": self._replay_gold(request["task"])}
            case "verdict":
                return self._verdict(request["task"], request["gold_hash"])
            case unknown:
                raise ValueError(f"unknown request {unknown}")

    def _take_turn(self, text: str, calls: list[_Json]) -> _Json:
        message_types = import_module("tau2.data_model.message")
        tool_calls = [message_types.ToolCall(id=str(number), **call) for number, call in enumerate(calls)]
        message = message_types.AssistantMessage(role="assistant", content=text, tool_calls=tool_calls or None)
        self.agent_messages.append(message)
        answers = [self._call_tool(call) for call in tool_calls]
        self.num_errors += sum(answer["is_error"] for answer in answers)
        return {"answers": answers, "has_too_many_errors": self.num_errors >= max_errors()}

    def _call_tool(self, call: Any) -> _Json:
        try:
            answer = self.run_limited(lambda: self.benchmark.environment.get_response(call))
            return {"content": answer.content, "is_error": bool(answer.error)}
        except Exception as error:  # get_response answers what a tool raises; this is raised by it
            return {"content": f"Error: {error}", "is_error": True}

    def _replay_gold(self, task: str) -> str:
        """The hash of the database after the gold calls. Calls that fail do not count, as in its evaluator."""
        for call in gold_calls(self.benchmark.tasks[task]):
            with suppress(Exception):
                self.benchmark.environment.make_tool_call(
                    tool_name=call.name, requestor=call.requestor, **call.arguments
                )
        return self.benchmark.environment.get_db_hash()

    def _verdict(self, task: str, gold_hash: str) -> _Json:
        """The reward by the parts that the task names. The benchmark compares the same hashes, and replays for both."""
        parts: dict[str, float] = {}
        basis = reward_basis(self.benchmark.tasks[task])
        if "DB" in basis:
            parts["DB"] = float(self.benchmark.environment.get_db_hash() == gold_hash)
        if "COMMUNICATE" in basis:
            evaluator = import_module("tau2.evaluator.evaluator_communicate").CommunicateEvaluator
            parts["COMMUNICATE"] = evaluator.calculate_reward(
                task=self.benchmark.tasks[task], full_trajectory=self.agent_messages
            ).reward
        reward = 0.0 if self.num_errors >= max_errors() else float(all(parts.values()))
        return {"reward": reward, "parts": parts}


def gold_calls(task: Any) -> list[Any]:
    return task.evaluation_criteria.actions or []


def reward_basis(task: Any) -> set[str]:
    return {part.value for part in task.evaluation_criteria.reward_basis}


def max_errors() -> int:
    """Errors of tools that end a conversation of the benchmark with reward 0."""
    return import_module("tau2.config").DEFAULT_MAX_ERRORS
