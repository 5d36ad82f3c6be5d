"""Builds a data root with six tasks of our own, through AppWorld's own model classes. Runs in AppWorld's Python.

    python build_root.py ROOT

Two scenarios of three tasks: write a note of a given title and content, and find out what a note says. Everything in it
is made up here; it has the form of the official data and none of its content.
"""

import json
import os
import sys
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

CLOCK = datetime(2023, 5, 18, 12, 0, 0)
PERSON = {
    "first_name": "Mia",
    "last_name": "Lindt",
    "email": "mia@example.com",
    "phone_number": "5551234567",
    "birthday": "1990-01-02",
    "sex": "female",
}
PASSWORD = "violet-harbour"
WRITE = [("Shopping", "milk and bread"), ("Packing", "two shirts"), ("Books", "a short history")]
READ = [("Door code", "4711"), ("Gate", "blue seven"), ("Locker", "93 left")]
SPLITS = {
    "train": ("mini0001", "mini0002"),
    "dev": ("mini0002",),
    "test_normal": ("mini0001", "mini0002"),
    "test_challenge": (),
}

WRITE_EVALUATION = """
def evaluate(test, public_data, private_data, main_user, models, ground_truth_answer):
    with test("the answer is the expected one"):
        test.answer(models.end.supervisor.Task.find_one(id=1).answer.strip('"').replace("null", "None"), "None")
    with test("one note was added"):
        added, updated, deleted = models.changed_records("simple_note.Note")
        test.case([len(added), len(updated), len(deleted)], "==", [1, 0, 0])
    with test("the note has the title and the content"):
        added, _, _ = models.changed_records("simple_note.Note")
        test.case([(note.title, note.content) for note in added], "==", [(public_data.title, private_data.content)])
"""
READ_EVALUATION = """
import json


def evaluate(test, public_data, private_data, main_user, models, ground_truth_answer):
    with test("the answer is the expected one"):
        test.answer(json.loads(models.end.supervisor.Task.find_one(id=1).answer), ground_truth_answer)
    with test("no note was changed"):
        test.case("simple_note.Note" in models.changed_model_names(), "==", False)
"""
WRITE_TESTS = [
    {"requirement": "the answer is the expected one", "label": "no_op_fail"},
    {"requirement": "one note was added", "label": "no_op_fail"},
    {"requirement": "the note has the title and the content", "label": "no_op_fail"},
]
READ_TESTS = [
    {"requirement": "the answer is the expected one", "label": "no_op_fail"},
    {"requirement": "no note was changed", "label": "no_op_pass"},
]


def build_root(root: Path) -> None:
    os.environ["APPWORLD_ROOT"] = str(root)
    os.chdir(root)
    vars(import_module("appworld.ground_truth"))["run_ruff"] = lambda *args, **kwargs: None  # it only formats files
    collections = import_module("appworld.collections.models")
    write_api_documents(root / "data/api_docs/standard")
    base = build_base(collections, root / "data/base_dbs")
    for number in range(3):
        title, content = WRITE[number]
        add_task(
            base,
            f"mini0001_{number + 1}",
            f"Write a note titled '{title}' that says '{content}' and nothing else.",
            truth(WRITE_EVALUATION, WRITE_TESTS, {"title": title}, {"content": content}, None, 1),
        )
        title, content = READ[number]
        add_task(
            base,
            f"mini0002_{number + 1}",
            f"What does my note titled '{title}' say?",
            truth(READ_EVALUATION, READ_TESTS, {"title": title}, {}, content, 2),
        )
    folder = root / "data/datasets"
    folder.mkdir()
    for split, scenarios in SPLITS.items():
        ids = [f"{scenario}_{number}" for scenario in scenarios for number in (1, 2, 3)]
        (folder / f"{split}.txt").write_text("\n".join(ids) + "\n")


def write_api_documents(folder: Path) -> None:
    """The documents of all APIs, made from the package's own code."""
    folder.mkdir(parents=True)
    canary = import_module("appworld.common.constants").CANARY_STRING
    apps = tuple(import_module("appworld.apps").get_all_apps(skip_admin=True))
    documents = import_module("appworld.collections.api_docs").ApiDocCollection.build(apps)
    for app, apis in documents.items():
        marked = {name: {**document, "canary_string": canary} for name, document in apis.items()}
        (folder / f"{app}.json").write_text(json.dumps(marked))


def build_base(collections: Any, folder: Path) -> Path:
    """The data of all apps before any task: one person, an account, three notes and a card."""
    apps = import_module("appworld.apps").get_all_apps()
    home = ":memory:base"
    models = collections.ModelCollection.load(home, home, load_apps=apps, create_db=True)
    freezer = import_module("appworld.apps.api_lib").set_local_date_and_time(CLOCK)
    models.admin.MainUser.create_save(**PERSON)
    owner = models.supervisor.Supervisor.create_save(**PERSON)
    models.supervisor.AccountPassword.create_save(supervisor_id=owner.id, account_name="simple_note", password=PASSWORD)
    models.supervisor.PaymentCard.create_save(
        supervisor_id=owner.id, owner_name="Mia Lindt", card_name="Visa", card_number=4_111_222_233_334_444,
        expiry_year=2030, expiry_month=4, cvv_number=321,
    )  # fmt: skip
    user = models.simple_note.User.create_save(
        first_name="Mia", last_name="Lindt", email=PERSON["email"], password=PASSWORD, verified=True
    )
    for title, content in READ:
        models.simple_note.Note.create_save(user_id=user.id, title=title, content=content)
    freezer.stop()
    models.save(str(folder), format="full", app_names=[*apps], save_model_hashes=True)
    models.close()
    return folder


def truth(
    evaluation: str, tests: list[Any], public: dict[str, Any], private: dict[str, Any], answer: Any, difficulty: int
) -> dict[str, Any]:
    return {
        "required_apps": ["simple_note"],
        "public_data": public,
        "private_data": private,
        "answer": answer,
        "evaluation_code": evaluation,
        "solution_code": "",
        "compiled_solution_code": "",
        "generator_code": "",
        "test_data": tests,
        "metadata": {"difficulty": difficulty, "mode": "minimal", "num_solution_code_lines": 1},
    }


def add_task(base: Path, task_id: str, instruction: str, ground_truth: dict[str, Any]) -> None:
    task_module = import_module("appworld.task")
    apps = import_module("appworld.apps").get_all_apps(skip_admin=True)
    models = import_module("appworld.collections.models").ModelCollection.load(
        f":memory:task_input-{task_id}", str(base), load_apps=[*apps, "admin"]
    )
    freezer = import_module("appworld.apps.api_lib").set_local_date_and_time(CLOCK)
    models.start_db_tracker()
    models.supervisor.Task.create_save(supervisor_id=1, instruction=instruction)
    freezer.stop()
    munch = import_module("appworld.apps.admin.models").MainUserMunch
    task = task_module.Task(
        id=task_id,
        instruction=instruction,
        supervisor=munch(**{key: PERSON[key] for key in ("first_name", "last_name", "email", "phone_number")}),
        datetime=CLOCK,
        allowed_apps=apps,
        db_version=import_module("appworld.common.constants").DB_VERSION,
        model_collection=models,
    )
    task.ground_truth = import_module("appworld.ground_truth").GroundTruth(task_id=task_id, **ground_truth)
    task.save(model_collection_format="changes")
    task.close()


if __name__ == "__main__":
    build_root(Path(sys.argv[1]).resolve())
