"""sgcd bench: what scoring costs, each figure with its target."""

import os
import platform
from datetime import date
from typing import Any

from sgcd.cli.answer import print_json, progress, results


def bench(rounds: int, tokens: int, as_json: bool) -> None:
    import torch

    from sgcd.bench.scoring import errors, memory, sharing, speed
    from sgcd.bench.step import overhead

    torch.set_num_threads(1)
    console, found = progress(), dict[str, Any]()
    for said, part in (
        ("B3, memory", memory),
        ("B4, errors", errors),
        ("B5, a step", lambda: overhead(rounds)),
        ("B1 and B2, the head", lambda: speed(rounds, tokens)),
    ):
        console.print(f"measuring {said}")
        found |= part()
    found |= sharing()
    taken = {"date": date.today().isoformat(), "rounds": rounds, "tokens": tokens}
    answer = {"schema": 1, "machine": machine(), **taken, **{name: found[name] for name in sorted(found)}}
    if as_json:
        print_json(answer)
        return
    for name, told in answer.items():
        if isinstance(told, dict) and "cases" in told:
            results().print(f"{name} {told['title']}", style="bold")
            for case in told["cases"]:
                results().print("   " + line(case), soft_wrap=True)
            if told["note"]:
                results().print("   " + told["note"], soft_wrap=True)


def machine() -> dict[str, Any]:
    """Where figures were taken."""
    import torch

    from sgcd.assemble import processor, version_of

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "torch": version_of("torch"),
    }


def line(case: dict[str, Any]) -> str:
    wanted = f"{'at least' if case['least'] else 'at most'} {case['target']:g} wanted"
    if case["figure"] is None:
        return f"{case['name']}: not measured ({wanted})"
    return f"{case['name']}: {case['figure']:.3g} ({wanted}) {'pass' if case['pass'] else 'FAIL'}"
