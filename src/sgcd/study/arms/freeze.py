"""Keeps a study's file as it was before its first fresh seed, and refuses the study once the file differs."""

import json
from collections.abc import Mapping
from typing import Any

from sgcd.errors import StudyError
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import KeyDifference, Recipe, dump_recipe, recipe_differences
from sgcd.settings import flatten_mapping
from sgcd.storage.atomic import SCHEMA, Row, check_schema, write_atomic
from sgcd.storage.provenance import committed_version
from sgcd.study.arms.plan import StudyPlan
from sgcd.study.arms.study_file import Keys, Study

STUDY_FILE = "study.json"
"""In the folder of a study, from its first fresh seed on: the file and its recipe, and what tuning chose."""


def read_frozen(plan: StudyPlan) -> Row | None:
    """What was written before the first fresh seed; None before that. Refuses a study whose file has changed since."""
    path = plan.folder / STUDY_FILE
    if not path.exists():
        return None
    frozen: Row = json.loads(path.read_text(encoding="utf-8"))
    check_schema(frozen, path)
    before, now = _study_keys(Study.model_validate(frozen["study"])), _study_keys(plan.study)
    changes = [
        *recipe_differences(load_recipe(frozen["recipe"], is_supervised=False), _load_recipe(plan)),
        *(
            KeyDifference(key, before.get(key), now.get(key))
            for key in dict.fromkeys([*before, *now])
            if before.get(key) != now.get(key)
        ),
    ]
    if changes:
        described = ", ".join(f"{change.key} (was {change.old}, is {change.new})" for change in changes)
        raise StudyError(
            f"{plan.path}: changed after its first fresh seed: {described}; put it back, or give the changed study "
            "fresh seeds and another folder (--runs)"
        )
    return frozen


def freeze(plan: StudyPlan, chosen: Mapping[str, Keys]) -> Row:
    """Write down the study before its first fresh seed runs."""
    frozen: Row = {
        "schema": SCHEMA,
        "committed": committed_version(plan.path),
        "chosen": dict(chosen),
        "study": plan.study.model_dump(mode="json"),
        "recipe": dump_recipe(_load_recipe(plan)),
    }
    write_atomic(plan.folder / STUDY_FILE, json.dumps(frozen, indent=1).encode() + b"\n")
    return frozen


def _load_recipe(plan: StudyPlan) -> Recipe:
    """The recipe that all arms share."""
    return load_recipe(plan.recipe_path, is_supervised=False)


def _study_keys(study: Study) -> dict[str, Any]:
    return flatten_mapping(study.model_dump(mode="json"))
