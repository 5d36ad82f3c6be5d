"""sgcd methods: the credit methods that a recipe can name, as a table."""

import typer

from sgcd.cli.options import TYPER_OPTIONS, JsonFlag
from sgcd.cli.output import print_json, results_console
from sgcd.storage.atomic import SCHEMA

methods_app = typer.Typer(**TYPER_OPTIONS)


@methods_app.command()
def methods(json: JsonFlag = False) -> None:
    """List the credit methods: role, teacher, signal, what each guarantees, and what it was compared with."""
    from rich.table import Table

    from sgcd.credit.method_table import (
        METHOD_COLUMNS,
        METHODS_BY_SETTINGS,
        METHODS_WITHOUT_FORMULA,
        list_methods,
        table_cells,
    )

    rows = list_methods()
    if json:
        others = {"by_setting": METHODS_BY_SETTINGS, "not_here": METHODS_WITHOUT_FORMULA}
        print_json({"schema": SCHEMA, "methods": rows, **others})
        return
    table = Table(*METHOD_COLUMNS, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*table_cells(row))
    results_console().print(table)
    for name, recipe in METHODS_BY_SETTINGS.items():
        results_console().print(f"by a setting: {name}. {recipe.replace('`', '')}", soft_wrap=True)
    for name, known in METHODS_WITHOUT_FORMULA.items():
        results_console().print(f"not here: {name}. {known}", soft_wrap=True)
