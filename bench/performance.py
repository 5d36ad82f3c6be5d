"""Measures the cost of scoring, keeps the figures, and renders docs/performance.md from the kept figures.

    python bench/performance.py [--rounds 5] [--tokens 512] [--from FILE] [--latency | --page]

`sgcd bench` goes into docs/performance.json; ten minutes on an idle machine; --from takes what `sgcd bench --json`
printed instead. --latency measures B8 (bench/latency.py) into docs/latency.json; bench/peers.py keeps B6 itself, in
docs/peers.json; bench/trainers keeps B11, in docs/trainers.json. --page measures nothing.
"""

import argparse
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from performance_table import DEFAULT_BENCH_TOKENS, page

from sgcd.cli.commands.bench import describe_machine

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS, PAGE = DOCS / "performance.json", DOCS / "performance.md"
PEERS, LATENCY = DOCS / "peers.json", DOCS / "latency.json"
CURVES, SAMPLING, REAL_STEP = DOCS / "curves.json", DOCS / "sampling.json", DOCS / "real-step.json"
TRAINERS = DOCS / "trainers.json"

Json = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=DEFAULT_BENCH_TOKENS)
    parser.add_argument("--from", dest="file", type=Path, help="instead of measuring")
    mode_group = parser.add_mutually_exclusive_group()
    mode_group.add_argument("--latency", action="store_true", help="measure B8 alone")
    mode_group.add_argument("--page", action="store_true", help="measure nothing")
    args = parser.parse_args()
    if args.latency:
        write_json(LATENCY, run_latency_bench())
    elif not args.page:
        write_json(RESULTS, json.loads(args.file.read_text(encoding="utf-8")) if args.file else run_sgcd_bench(args))
    print(write_page())
    return 0


def write_page() -> str:
    text = build_page()
    PAGE.write_text(text, encoding="utf-8")
    return text


def build_page() -> str:
    """The page from all kept figures; what was never measured is left open."""
    scoring, peers, latency = (read_json(file) for file in (RESULTS, PEERS, LATENCY))
    kept = {
        "B9": read_json(REAL_STEP),
        "B10": read_json(SAMPLING),
        "B11": read_json(TRAINERS),
        "curves": read_json(CURVES),
    }
    return page(scoring, peers, latency, kept)


def run_sgcd_bench(args: argparse.Namespace) -> Json:
    sgcd = [sys.executable, "-c", "import sys; from sgcd.cli import main; sys.exit(main())", "bench", "--json"]
    options = ["--rounds", str(args.rounds), "--tokens", str(args.tokens)]
    return json.loads(subprocess.run([*sgcd, *options], stdout=subprocess.PIPE, text=True, check=True).stdout)


def run_latency_bench() -> Json:
    """Runs bench/latency.py; its exit status does not matter, because a missed target is a result too."""
    command = [sys.executable, Path(__file__).with_name("latency.py"), "--json"]
    result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout)
    return {"schema": result["schema"], "machine": describe_machine(), "date": date.today().isoformat(), **result}


def keep_trainer_figures(**figures: float) -> None:
    """Put figures of B11 beside those that were measured apart, each with its day."""
    kept, today = read_json(TRAINERS) or {}, date.today().isoformat()
    kept |= {name: {"figure": figure, "date": today} for name, figure in figures.items()}
    write_json(TRAINERS, kept | {"machine": describe_machine(), "date": today})


def write_json(file: Path, result: Json) -> None:
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def read_json(file: Path) -> Any:
    """None where nothing was measured."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
