"""Serves episodes of tau2-bench over a socket. Runs in the benchmark's own Python, without sgcd.

    python benchmark_server.py DOMAIN SOCKET

The process loads the domain once and forks a child for each connection, which is one episode on a database of its own.
Requests and answers are JSON, one a line. It ends when its standard input does, and a child when its connection does.
"""

import faulthandler
import gc
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Any

CALL_SECONDS = 2.0
"""Processor time that one call may take before it is answered with an error: `calculate` evaluates any arithmetic."""
HANG_SECONDS = 30.0
"""After this long in one call, a child that does not even react to its timer ends."""
MAX_CONNECTIONS = 1024

JsonObject = dict[str, Any]


class CallTimeout(Exception):
    """A call that took longer than `CALL_SECONDS`; the benchmark makes an error of it that the policy sees."""


class Benchmark:
    """One domain: its environment as an episode begins, and its tasks."""

    def __init__(self, domain: str) -> None:
        registry = import_module("tau2.registry").registry
        self.domain = domain
        self.environment: Any = registry.get_env_constructor(domain)()
        self.tasks: dict[str, Any] = {task.id: task for task in registry.get_tasks_loader(domain)(None)}
        self.splits: dict[str, list[str]] = registry.get_task_splits_loader(domain)()

    def describe(self) -> JsonObject:
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

    def _describe_task(self, task: Any) -> JsonObject:
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


class Episode:
    """One conversation: the environment that it changes, and what the agent wrote, whole."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self.agent_messages: list[Any] = []
        self.num_errors = 0

    def answer(self, request: JsonObject) -> JsonObject:
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

    def _take_turn(self, text: str, calls: list[JsonObject]) -> JsonObject:
        message_types = import_module("tau2.data_model.message")
        tool_calls = [message_types.ToolCall(id=str(number), **call) for number, call in enumerate(calls)]
        message = message_types.AssistantMessage(role="assistant", content=text, tool_calls=tool_calls or None)
        self.agent_messages.append(message)
        answers = [self._call_tool(call) for call in tool_calls]
        self.num_errors += sum(answer["is_error"] for answer in answers)
        return {"answers": answers, "has_too_many_errors": self.num_errors >= max_errors()}

    def _call_tool(self, call: Any) -> JsonObject:
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        signal.setitimer(signal.ITIMER_PROF, CALL_SECONDS)
        try:
            answer = self.benchmark.environment.get_response(call)
            return {"content": answer.content, "is_error": bool(answer.error)}
        except Exception as error:  # get_response answers what a tool raises; this is raised by it
            return {"content": f"Error: {error}", "is_error": True}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()

    def _replay_gold(self, task: str) -> str:
        """The hash of the database after the gold calls. Calls that fail do not count, as in its evaluator."""
        for call in gold_calls(self.benchmark.tasks[task]):
            with suppress(Exception):
                self.benchmark.environment.make_tool_call(
                    tool_name=call.name, requestor=call.requestor, **call.arguments
                )
        return self.benchmark.environment.get_db_hash()

    def _verdict(self, task: str, gold_hash: str) -> JsonObject:
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


def serve_episode(benchmark: Benchmark, connection: socket.socket) -> None:
    """Answer the requests of one connection until it ends."""
    signal.signal(signal.SIGPROF, stop_call)
    episode = Episode(benchmark)
    with connection.makefile("rwb") as lines:
        for line in lines:
            try:
                answer = episode.answer(json.loads(line))
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            lines.write(json.dumps(answer).encode() + b"\n")
            lines.flush()


def stop_call(number: int, frame: FrameType | None) -> None:
    raise CallTimeout(f"the call took more than {CALL_SECONDS:g} seconds of processor time")


def serve(benchmark: Benchmark, listener: socket.socket) -> None:
    """Fork a child for each connection, until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children that have ended leave nothing
    gc.collect()
    gc.freeze()  # a collection in a child would copy pages that it only reads
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            try:
                listener.close()
                os.close(sys.stdin.fileno())
                serve_episode(benchmark, connection)
            except (BrokenPipeError, ConnectionResetError):
                pass  # nobody waits for the answer
            finally:
                os._exit(0)
        connection.close()


def run_server(domain: str, path: str) -> None:
    import_module("loguru").logger.remove()  # the benchmark logs every call
    benchmark = Benchmark(domain)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(MAX_CONNECTIONS)
        print("ready", flush=True)
        serve(benchmark, listener)


if __name__ == "__main__":
    run_server(*sys.argv[1:])
