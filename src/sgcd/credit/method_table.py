"""The table of all methods, from the facts that each declares: `sgcd methods` and docs/methods.md."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

from sgcd.credit.methods import find_method_class
from sgcd.credit.settings import MethodSettings, RuleSettings

METHOD_COLUMNS = ("method", "role", "teacher", "signal", "keeps sign", "reads direction", "source", "compared with")
METHODS_WITHOUT_FORMULA: Mapping[str, str] = {
    "ATOD (2606.27814)": "A mix of distillation and reward that is annealed; turns weigh by disagreement and "
    "uncertainty. Neither the weight of a turn nor the schedule is public.",
    "PaW (2606.02388)": "The reward's loss, and predicting the next observation as a second one, on transitions that "
    "the entropy of the action chooses. The loss and its balance are not public.",
    "TRIAGE (2606.32017)": "A judge labels each segment as progress, exploration, infrastructure or regression, and a "
    "label has a constant reward. The constants are not public.",
}
"""What is known of methods that are not here, because an invention must not bear their name."""
METHODS_BY_SETTINGS: Mapping[str, str] = {
    "GRPO + OPSD": "`{name: sdar, sharpness: 0}`: the gate is 1/2 everywhere, as in the repository of 2605.15155",
    "uncapped SD (2606.12634)": "`{name: direct_sd}`: the paper has one arm, direct or uncapped, without a bound",
    "SGCD with a direction gate": "`{name: sgcd, direction_gate: true}`; `direction_gate` alone has no segments",
}
"""Methods of other papers that are a setting of one that is here."""
_INTRODUCTION = """# Methods

Written by `python -m sgcd.credit.method_table > docs/methods.md` from what each method declares; a test compares.
`sgcd methods` prints the same table.

A method is one line of a recipe: `method: {name: entropy}`. Its keys are in [recipe.md](recipe.md), its formula is at
the head of its file in `src/sgcd/credit/methods/`.

- **role**: `credit` is a positive, bounded weight on the advantage. `pull` is a signed number added to it. `imitate` is
  a divergence in the loss.
- **keeps sign**: no token's advantage can have another sign than its rollout's.
- **reads direction**: whether the teacher makes the sampled token likelier or less likely counts. Such a rule can learn
  from the teacher alone; `control: permuted` shows how much.
- **compared with**: what its numbers agree with in the tests. All methods are also tested for bounds, sign and
  detachment, for being GRPO at their zero, and for ending with the same bytes after a stop.
"""


def list_methods() -> list[dict[str, Any]]:
    """A row for each method of the recipe, in the order of its union."""
    settings_classes: Sequence[type[RuleSettings]] = get_args(get_args(MethodSettings)[0])
    rows: list[dict[str, Any]] = []
    for settings in settings_classes:
        facts = asdict(find_method_class(settings).facts)
        name = get_args(settings.model_fields["name"].annotation)[0]
        rows.append({"method": name, "role": settings.role, **facts})
    return rows


def table_cells(row: Mapping[str, Any]) -> list[str]:
    """The cells of a row, in the order of `METHOD_COLUMNS`."""
    keys = ("method", "role", "teacher", "signal", "keeps_sign", "reads_direction", "source", "verified")
    return [str({True: "yes", False: "no"}.get(row[key], row[key])) for key in keys]


def document_methods() -> str:
    """The text of docs/methods.md."""
    lines = [_INTRODUCTION, _markdown_row(METHOD_COLUMNS), "|---" * len(METHOD_COLUMNS) + "|"]
    for row in list_methods():
        name, *others = table_cells(row)
        lines.append(_markdown_row([f"`{name}`", *others]))
    lines += ["", "## By a setting", "", "| method | recipe |", "|---|---|"]
    lines += [_markdown_row(item) for item in METHODS_BY_SETTINGS.items()]
    lines += ["", "## Not here", "", "| method | what is known |", "|---|---|"]
    lines += [_markdown_row(item) for item in METHODS_WITHOUT_FORMULA.items()]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(document_methods(), end="")
