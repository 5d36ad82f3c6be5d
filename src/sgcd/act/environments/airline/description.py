"""What `sgcd setup airline` wrote down about the benchmark: prompts, tools, tasks with their gold calls and hashes."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from sgcd.act.environments.benchmark_process import BenchmarkProcess, ServerCommand
from sgcd.errors import EnvironmentFault
from sgcd.records import Category

DESCRIPTION_FILE = "benchmark.json"
DESCRIPTION_FORMAT = 1
SOURCE_FOLDER = "tau2-bench"
"""The benchmark's source and data, inside the folder of its environment."""
DATA_CHECKSUMS: Mapping[str, str] = {
    "domains/airline/db.json": "1af9fea6e03ca7ca15a22bb3fcaf3e351393e3fc9070b6777947da8996f7531b",
    "domains/airline/policy.md": "10dc0525421521208be39cee235bba84a16e2bcba9899eb93d92cd81d2f62fc4",
    "domains/airline/split_tasks.json": "b22ced4d9a9850ac9aea31c53bdcb6d6009058140bd9acc7db37c1d36222ba8b",
    "domains/airline/tasks.json": "ccd8ba737b4cc371415af70151187788f728d6108d0916e73bb4317b40542052",
    "domains/retail/db.json": "413a65160adbdb5fde0ffc0015c49b6d70250b10c18128de169b597af7766765",
    "domains/retail/policy.md": "2c9652afbce57d6e087768d37cda64d31c53d50b3e3225cfdb791bac66466467",
    "domains/retail/split_tasks.json": "ed0580ec52575b63fbf76568af42490da6ee7783ecb4aa81af46961291358f20",
    "domains/retail/tasks.json": "8e03ebce7901bd6218e7a7dc3105faa9324091a68058f7fe61c65262868812e8",
    "user_simulator/simulation_guidelines.md": "740a29dfa64d7bc08eea3bf7493575b914a63f744acbaf7f199ee07eddaf72d3",
}
"""SHA-256 of the data of v1.0.1, under data/tau2/. Results on other data are results of another benchmark."""
TRANSFER_TOOL = "transfer_to_human_agents"
_ID = re.compile(r"(?=.*\d).{4,}")
"""Ids, dates, numbers of flights, sums; not words such as economy."""


@dataclass(frozen=True, slots=True)
class BenchmarkTask:
    """A task of the benchmark, and what is known about it before it is played."""

    id: str
    """The benchmark's own number."""
    split: str
    category: Category
    user_prompt: str
    """The system message of the simulated user."""
    first_words: str
    """What the scripted user says."""
    gold_calls: Sequence[Mapping[str, Any]]
    communicate: Sequence[str]
    """Texts that the agent's messages must contain."""
    gold_hash: str
    """Hash of the database after the gold calls."""
    floor: float
    """The reward of an agent that does nothing."""

    def private_literals(self) -> dict[str, list[str]]:
        """Ids, dates and sums in the gold calls, and the texts that the answer must contain.

        >>> calls = [{"name": "send", "arguments": {"to": ["mia_li_7"], "cabin": "economy", "amount": 150}}]
        >>> BenchmarkTask("8", "test", "action", "", "", calls, ["327"], "", 0.0).private_literals()
        {'value': ['mia_li_7'], 'answer': ['327']}
        """
        values = [value for call in self.gold_calls for value in _leaves(call["arguments"]) if _ID.fullmatch(value)]
        return {"value": [*dict.fromkeys(values)], "answer": [*dict.fromkeys(self.communicate)]}


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain of the benchmark."""

    name: str
    system: str
    """The system message of the benchmark's own agent, with the policy."""
    greeting: str
    """The agent's first message, which is the benchmark's and not the policy's."""
    tools: tuple[Mapping[str, Any], ...]
    tasks: Mapping[str, BenchmarkTask]


def parse_domain(name: str, description: Mapping[str, Any]) -> Domain:
    """The domain as the server describes it, with the hashes and floors that the setup measured."""
    write_tools = frozenset(description["write_tools"])
    tasks = [
        BenchmarkTask(
            id=task["id"],
            split=task["split"],
            category=categorise(task["gold_calls"], write_tools),
            user_prompt=task["user_prompt"],
            first_words=task["first_words"],
            gold_calls=task["gold_calls"],
            communicate=task["communicate"],
            gold_hash=task["gold_hash"],
            floor=task["floor"],
        )
        for task in description["tasks"]
        if not task["is_judged_by_model"]
    ]
    tools = tuple(description["tools"])
    by_id = {f"{name}-{task.id}": task for task in tasks}
    return Domain(name, description["system"], description["greeting"], tools, by_id)


def categorise(gold_calls: Sequence[Mapping[str, Any]], write_tools: frozenset[str]) -> Category:
    """The paper's category of a task, by its gold calls.

    >>> categorise([{"name": "get_user_details"}, {"name": "cancel_reservation"}], frozenset({"cancel_reservation"}))
    'action'
    """
    names = [call["name"] for call in gold_calls]
    if write_tools.intersection(names):
        return "action"
    if TRANSFER_TOOL in names:
        return "transfer"
    return "information" if names else "no_action"


def airline_process(folder: Path, domain: str) -> BenchmarkProcess:
    """The server of one domain."""
    script = Path(__file__).with_name("benchmark_server.py")
    command = ServerCommand(folder, script, "Tau2Domain", setup_command(folder), (domain,), server_variables(folder))
    return BenchmarkProcess(command)


def server_variables(folder: Path) -> dict[str, str]:
    """Variables for the benchmark's Python: its own source before any package of that name; no network at import."""
    return {
        "PYTHONPATH": str(folder.resolve() / "tau2-bench/src"),
        "TAU2_DATA_DIR": str(folder.resolve() / "tau2-bench/data"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def setup_command(folder: Path) -> str:
    return f"sgcd setup airline --from DIR_OR_ARCHIVE --folder {folder}"


def load_domain(folder: Path, name: str) -> Domain:
    """Load a domain from the folder that `sgcd setup airline` made, and check that its data are what they were."""
    again = setup_command(folder)
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        raise EnvironmentFault(f"environment.folder: {folder} holds no benchmark; make it: {again}")
    for problem in find_wrong_data(folder / SOURCE_FOLDER / "data/tau2", name):
        raise EnvironmentFault(f"environment.folder: {problem}; make it anew: {again}")
    description = json.loads(path.read_text(encoding="utf-8"))
    if description.get("format") != DESCRIPTION_FORMAT or name not in description["domains"]:
        raise EnvironmentFault(f"environment.folder: {path} is of another version of sgcd; make it anew: {again}")
    return parse_domain(name, description["domains"][name])


def find_wrong_data(data: Path, domain: str) -> Iterator[str]:
    """Files of a domain that are missing, or are not those of the known version."""
    for name, checksum in DATA_CHECKSUMS.items():
        if name.startswith((f"domains/{domain}/", "user_simulator/")):
            path = data / name
            if not path.is_file():
                yield f"{path} does not exist; expected the data of tau2-bench v1.0.1"
            elif sha256(path.read_bytes()).hexdigest() != checksum:
                yield f"{path} is of another version; expected the data of tau2-bench v1.0.1"


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        nested = cast("dict[str, Any] | list[Any]", value)
        for part in nested.values() if isinstance(nested, dict) else nested:
            yield from _leaves(part)
    else:
        yield str(value)
