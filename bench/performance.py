"""What scoring costs, on one page: figures are measured and kept, and docs/performance.md is made of what is kept.

    python bench/performance.py [--rounds 5] [--tokens 512] [--from FILE] [--latency | --page]

`sgcd bench` goes into docs/performance.json; ten minutes on an idle machine; --from takes what `sgcd bench --json`
printed instead. --latency measures B8 (bench/latency.py) into docs/latency.json; bench/peers.py keeps B6 itself, in
docs/peers.json. --page measures nothing.
"""

import argparse
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from performance_table import TOKENS, page

from sgcd.cli.benching import machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "docs/performance.json", ROOT / "docs/performance.md"
PEERS, LATENCY = ROOT / "docs/peers.json", ROOT / "docs/latency.json"

Json = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--from", dest="file", type=Path, help="instead of measuring")
    apart = parser.add_mutually_exclusive_group()
    apart.add_argument("--latency", action="store_true", help="measure B8 alone")
    apart.add_argument("--page", action="store_true", help="measure nothing")
    told = parser.parse_args()
    if told.latency:
        keep(LATENCY, waited())
    elif not told.page:
        keep(RESULTS, json.loads(told.file.read_text(encoding="utf-8")) if told.file else measured(told))
    made = page(*(kept(file) for file in (RESULTS, PEERS, LATENCY)))
    PAGE.write_text(made, encoding="utf-8")
    print(made)
    return 0


def measured(told: argparse.Namespace) -> Json:
    sgcd = [sys.executable, "-c", "import sys; from sgcd.cli import main; sys.exit(main())", "bench", "--json"]
    words = ["--rounds", str(told.rounds), "--tokens", str(told.tokens)]
    return json.loads(subprocess.run([*sgcd, *words], stdout=subprocess.PIPE, text=True, check=True).stdout)


def waited() -> Json:
    """A figure beyond its target is a figure too."""
    command = [sys.executable, ROOT / "bench/latency.py", "--json"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout)
    return {"schema": found["schema"], "machine": machine(), "date": date.today().isoformat(), **found}


def keep(file: Path, found: Json) -> None:
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def kept(file: Path) -> Any:
    """None where nothing was measured."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
