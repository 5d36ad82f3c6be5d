"""sgcd bench: measures the cost of scoring against targets."""

import os
import platform
from typing import Annotated, Any

import typer

from sgcd.cli.options import TYPER_OPTIONS, JsonFlag
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.storage.atomic import SCHEMA

bench_app = typer.Typer(**TYPER_OPTIONS)


@bench_app.command()
def bench(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count, after three warm-up rounds.")] = 5,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of B1 and B2.")] = 512,
    json: JsonFlag = False,
) -> None:
    """Measure what scoring costs, as ratios in one run.

    Takes about ten minutes on an idle machine, needs 8 GB of memory, and trains nothing.
    """
    from datetime import date

    results = measure_scoring_costs(rounds, tokens)
    conditions = {"date": date.today().isoformat(), "rounds": rounds, "tokens": tokens}
    answer = {
        "schema": SCHEMA,
        "machine": describe_machine(),
        **conditions,
        **{name: results[name] for name in sorted(results)},
    }
    if json:
        print_json(answer)
        return
    for name, figure in answer.items():
        if isinstance(figure, dict) and "cases" in figure:
            results_console().print(f"{name} {figure['title']}", style="bold")
            for case in figure["cases"]:
                results_console().print("   " + format_case(case), soft_wrap=True)
            if figure["note"]:
                results_console().print("   " + figure["note"], soft_wrap=True)


def measure_scoring_costs(rounds: int, tokens: int) -> dict[str, Any]:
    import torch

    from sgcd.bench.scoring import measure_errors, measure_memory, measure_speed
    from sgcd.bench.sharing import measure_sharing
    from sgcd.bench.step import measure_overhead

    torch.set_num_threads(1)
    console, results = progress_console(), dict[str, Any]()
    for title, measure in (
        ("B3, memory", measure_memory),
        ("B4, errors", measure_errors),
        ("B5, a step", lambda: measure_overhead(rounds)),
        ("B7, shared prefixes", lambda: measure_sharing(rounds)),
        ("B1 and B2, the head", lambda: measure_speed(rounds, tokens)),
    ):
        console.print(f"measuring {title}")
        results |= measure()
    return results


def describe_machine() -> dict[str, Any]:
    """The machine on which the benchmarks run."""
    import torch

    from sgcd.storage.provenance import package_version, processor_name

    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "torch": package_version("torch"),
    }


def format_case(case: dict[str, Any]) -> str:
    target_text = f"{'at least' if case['least'] else 'at most'} {case['target']:g} wanted"
    if case["figure"] is None:
        return f"{case['name']}: not measured ({target_text})"
    return f"{case['name']}: {case['figure']:.3g} ({target_text}) {'pass' if case['pass'] else 'FAIL'}"
