"""sgcd init: an environment, its tasks and a recipe to start from."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from sgcd.cli.options import TYPER_OPTIONS
from sgcd.cli.output import results_console
from sgcd.errors import FolderError

init_app = typer.Typer(**TYPER_OPTIONS)
SCHEMA_FILE = "recipe.schema.json"
ENVIRONMENT = '''\
class Desk:
    """Vouchers for late flights, and for no others."""

    def reset(self, name: str, booking: str, status: str) -> None:
        self.name, self.booking, self.status, self.sent = name, booking, status, False

    def find_user(self, name: str) -> str:
        """Tier and booking of a customer."""
        return f"user {name} tier gold booking {self.booking}" if name == self.name else "error : no such customer"

    def get_flight(self, booking: str) -> str:
        """Status of the flight of a booking."""
        return f"booking {booking} status {self.status}" if booking == self.booking else "error : no such booking"

    def send_voucher(self, booking: str) -> str:
        """Send a voucher for a booking."""
        self.sent = booking == self.booking
        return "done send_voucher"

    def get_reward(self) -> float:
        return float(self.sent == (self.status != "punctual"))
'''
TASKS = (
    ("hello i am mia . please send a voucher for my flight", "mia", "b12", "delayed"),
    ("max here . my flight was bad i want a voucher", "max", "b07", "punctual"),
    ("my name is nina . can i have a voucher for the wait", "nina", "b31", "cancelled"),
    ("oscar here . please send a voucher for my flight", "oscar", "b40", "punctual"),
)
"""Prompt, name, booking and status; a flight that is punctual has no voucher."""
RECIPE = """\
version: 1
steps: 10
policy: {start: "lab:plain"}
environment:
  name: own
  class: desk:Desk
  tasks: tasks.jsonl
  system: >-
    cancel only when insured is yes . change day only when cabin is not basic . upgrade only when tier is not regular .
    bags up to one for regular two for silver three for gold . voucher only when status is not punctual .
    pets groups and lost items to a human . all else is not allowed .
siblings: {groups: 2, group_size: 8, limits: {turns: 6, tokens: 160}}
method: {name: grpo}
optimizer: {lr: 4e-4, clip_norm: 0.3}
"""


@init_app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder, or an empty one.")],
) -> None:
    """Write a small environment, its tasks and a recipe that trains on them in seconds, to start your own from.

    recipe.schema.json tells an editor every key of a recipe: editors with a YAML language server complete and check it.
    """
    from sgcd.storage.atomic import write_atomic, writing

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderError(f"{folder}: is not empty; expected a new folder, name another one")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in build_files().items():
        write_atomic(folder / name, text.encode())
        results_console().print(f"wrote {folder / name}", soft_wrap=True)
    results_console().print(f"next: cd {folder} && sgcd train desk.yaml --run runs/desk", soft_wrap=True)


def build_files() -> dict[str, str]:
    """Each file's text by its name."""
    return {
        "desk.py": ENVIRONMENT,
        "tasks.jsonl": "".join(f"{jsonlib.dumps(row)}\n" for row in map(build_task, TASKS)),
        "desk.yaml": f"# yaml-language-server: $schema={SCHEMA_FILE}\n{RECIPE}",
        SCHEMA_FILE: build_recipe_schema(),
    }


def build_task(task: tuple[str, str, str, str]) -> dict[str, str]:
    """One row of tasks.jsonl."""
    prompt, name, booking, status = task
    row = {"prompt": prompt, "name": name, "booking": booking, "status": status}
    return row | ({"category": "no_action"} if status == "punctual" else {})


def build_recipe_schema() -> str:
    """The recipe's JSON schema, with the documentation of each key."""
    from sgcd.recipe.schema import Recipe

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema(by_alias=True)}
    return jsonlib.dumps(schema, indent=1, ensure_ascii=False) + "\n"
