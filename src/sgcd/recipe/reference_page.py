"""Writes docs/recipe.md: every key of the recipe with its type, its default and its documentation."""

import json

from sgcd.recipe.aliases import RENAMED_KEYS, RENAMED_VALUES
from sgcd.recipe.keys import RecipeKey, list_keys
from sgcd.recipe.schema import RESUMABLE_KEYS, Recipe

_TABLE_HEAD = ("| key | expects | default | what it is |", "|---|---|---|---|")


def document_recipe() -> str:
    """The text of docs/recipe.md."""
    known = list_keys(Recipe)
    lines = [*_introduction(), *_TABLE_HEAD]
    for key in known:
        if key.is_section and "." not in key.path:
            has_keys = any(other_key.path.startswith(f"{key.path}.") for other_key in known)
            lines += [
                "",
                f"## {key.path}",
                *(["", key.description] if key.description else []),
                *(["", *_TABLE_HEAD] if has_keys else []),
            ]
        elif key.is_optional or not key.is_section:
            is_inside_optional = any(
                other_key.is_optional and key.path.startswith(f"{other_key.path}.") for other_key in known
            )
            lines.append(_table_row(key, "required there" if is_inside_optional else "required"))
    return "\n".join([*lines, *_old_names()]) + "\n"


def _old_names() -> list[str]:
    values = {f"{path}: {old}": f"{path}: {new}" for (path, old), new in RENAMED_VALUES.items()}
    rows = [f"| `{old}` | `{new}` |" for old, new in {**RENAMED_KEYS, **values}.items()]
    heading = ["", "## Old names", "", "They still work; the program says the new name.", ""]
    return [*heading, "| old | new |", "|---|---|", *rows]


def _introduction() -> list[str]:
    return [
        "# The recipe, key by key",
        "",
        "Written by `python -m sgcd.recipe.reference_page > docs/recipe.md` from the strings under the fields; a test "
        "compares.",
        "",
        "Any key can be set on the command line by its full path: `optimizer.lr=1e-4`, `policy.start=lab:plain`,",
        "`siblings.limits={turns: 8, tokens: 224}`. Texts need no quotes there.",
        "",
        f"A resumed run may change {', '.join(f'`{key}`' for key in sorted(RESUMABLE_KEYS))}, and nothing else.",
        "",
    ]


def _table_row(key: RecipeKey, required: str) -> str:
    default = required if key.is_required else "none" if key.default is None else f"`{json.dumps(key.default)}`"
    condition = (
        f" Only with `{key.variant[0]}: {key.variant[1]}`." if key.variant and key.variant[0] != key.path else ""
    )
    cells = [f"`{key.path}`", key.expected.split(" (")[0], default, key.description + condition]
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    print(document_recipe(), end="")
