"""Our conversation with a simulated user sends the requests that the benchmark's own simulator sends."""

import json
from typing import Any

import pytest

from helpers.misbehaving import Server
from helpers.simulated_users import says
from sgcd.act.environments.airline import AirlineEnvironment
from sgcd.act.environments.airline.description import Domain
from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import open_task, take_reply, verify_and_close
from sgcd.act.settings import Limits, UserSettings
from sgcd.act.user import EndpointUser
from sgcd.endpoint.client import Endpoint
from sgcd.records import Call, ParsedTurn, Task

pytestmark = pytest.mark.slow
TEXTS = ["May I have your user id?", "One moment. " * 80, "It is done."]
WORDS = ["hello, i am mia", "mia_li_3668 " * 60, "thank you", "###STOP###"]


def talk(number: int, request: dict[str, Any]) -> str:
    return says(WORDS[sum(message["role"] == "assistant" for message in request["messages"])])


def requests_of(server: Server) -> list[dict[str, Any]]:
    """The requests without what is our own: a seed for each rollout, and a limit of tokens."""
    bodies = [json.loads(body) for body in server.bodies]
    own = ("seed", "max_tokens", "max_completion_tokens", "stream")
    kept = [{key: value for key, value in body.items() if key not in own and value is not None} for body in bodies]
    return [
        {
            **body,
            "messages": [
                {key: value for key, value in message.items() if value is not None} for message in body["messages"]
            ],
        }
        for body in kept
    ]


async def test_requests_are_those_of_the_benchmark_s_simulator(
    domain: Domain, process: BenchmarkProcess, in_benchmark: Any
) -> None:
    task_id, tool = "airline-8", Call("list_all_airports", {})
    with Server(talk) as server:
        settings = UserSettings(base_url=server.url, model="u", temperature=0.0)
        endpoint = Endpoint(settings, "environment.user")
        environment = AirlineEnvironment(domain, process, EndpointUser(endpoint, 0.0))
        recorder, limits = RolloutRecorder(Task(task_id, "action", {}), 0, 7), Limits(turns=16, observation=512)
        async with endpoint.connect(), verify_and_close(recorder, environment, limits):
            initial, _ = await open_task(RolloutRecorder(recorder.task, 0, 7), environment, limits)
            recorder.add_prompt(initial)
            turns = [ParsedTurn("", "i look it up", (tool,)), *(ParsedTurn("", text, ()) for text in TEXTS)]
            for turn in turns:
                recorder.add_turn(turn, {"role": "assistant", "content": turn.text})
                _, messages = await take_reply(turn, initial.tool_names, recorder, environment, limits=limits)
                recorder.add_reply(messages)
        rollout, ours = recorder.build_rollout(), requests_of(server)
    with Server(talk) as server:
        said = in_benchmark("send_user_requests.py", task=domain.tasks[task_id].id, url=server.url, texts=TEXTS)
        theirs = requests_of(server)
    assert said == WORDS
    assert len(theirs) == 4
    assert ours == theirs
    assert (rollout.end_reason, rollout.broken) == ("answered", "")
    cut = [message for message in rollout.messages if "characters cut" in str(message["content"])]
    assert [message["role"] for message in cut] == ["tool", "user"], "long messages are cut in what the policy sees"
    assert "characters cut" not in json.dumps(ours), "and whole in what the user sees"
