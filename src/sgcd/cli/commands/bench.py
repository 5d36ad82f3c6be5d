"""sgcd bench: what scoring costs, each figure with its target."""

import os
import platform
from datetime import date
from typing import Any

from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.storage.atomic import SCHEMA


def run_bench(rounds: int, tokens: int, as_json: bool) -> None:
    import torch

    from sgcd.bench.scoring import measure_errors, measure_memory, measure_speed, report_prefix_sharing
    from sgcd.bench.step import measure_overhead

    torch.set_num_threads(1)
    console, figures = progress_console(), dict[str, Any]()
    for title, measure in (
        ("B3, memory", measure_memory),
        ("B4, errors", measure_errors),
        ("B5, a step", lambda: measure_overhead(rounds)),
        ("B1 and B2, the head", lambda: measure_speed(rounds, tokens)),
    ):
        console.print(f"measuring {title}")
        figures |= measure()
    figures |= report_prefix_sharing()
    conditions = {"date": date.today().isoformat(), "rounds": rounds, "tokens": tokens}
    answer = {
        "schema": SCHEMA,
        "machine": describe_machine(),
        **conditions,
        **{name: figures[name] for name in sorted(figures)},
    }
    if as_json:
        print_json(answer)
        return
    for name, figure in answer.items():
        if isinstance(figure, dict) and "cases" in figure:
            results_console().print(f"{name} {figure['title']}", style="bold")
            for case in figure["cases"]:
                results_console().print("   " + format_case(case), soft_wrap=True)
            if figure["note"]:
                results_console().print("   " + figure["note"], soft_wrap=True)


def describe_machine() -> dict[str, Any]:
    """Where figures were taken."""
    import torch

    from sgcd.assemble import package_version, processor_name

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
