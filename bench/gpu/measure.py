"""All that is wanted of a GPU, within ten minutes, in order of worth: `make gpu`.

    python bench/gpu/measure.py [PART ...] [--out FOLDER] [--tiny]

Each part runs in a process of its own, under a limit of its own and the limit of all. What it measures is in
FOLDER/PART.jsonl as soon as it is known, and the last line says how the part ended. The folder is --out, else the
environment's OUT, else runs/gpu. --tiny runs every part in miniature, on any machine: no figures to be kept.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_PARTS_SCRIPT = Path(__file__).with_name("parts.py")
LIMITS = {"kernel": 90, "head": 60, "step": 30, "peers": 60, "sampling": 60, "long": 30, "real": 330}
"""Seconds of each part, in the order in which they run."""
TOTAL_LIMIT = 580
_TINY_LIMIT = 3600
_MIN_SECONDS = 10
"""A part is not started with less."""
_TAIL_CHARACTERS = 2000


def run_part(name: str, out: Path, limit: float, tiny: bool) -> dict[str, Any]:
    """How the part ended; its figures are in its file by then."""
    began = time.monotonic()
    command = [sys.executable, _PARTS_SCRIPT, name, *(["--tiny"] if tiny else [])]
    source = f"{_ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with (out / f"{name}.jsonl").open("w") as figures, (out / "errors.txt").open("a+") as errors:
        start = errors.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command, stdout=figures, stderr=errors, env=os.environ | {"PYTHONPATH": source}, start_new_session=True
        )
        try:
            status = "ended" if process.wait(limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = f"stopped after {limit:.0f} s"
        finally:
            end_group(process)
        errors.seek(start)
        ending = {"part": name, "status": status, "seconds": round(time.monotonic() - began, 1)}
        if status != "ended":
            ending["error"] = errors.read()[-_TAIL_CHARACTERS:]
        figures.write(json.dumps(ending) + "\n")
    return ending


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the part and what it has started."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        return
    process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(LIMITS)}; all without any")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", _ROOT / "runs/gpu")))
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if unknown := sorted({*args.parts} - {*LIMITS}):
        parser.error(f"unknown part {', '.join(unknown)}; expected {', '.join(LIMITS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    began, failed = time.monotonic(), 0
    for name in [name for name in LIMITS if name in (args.parts or LIMITS)]:
        left = (_TINY_LIMIT if args.tiny else TOTAL_LIMIT) - (time.monotonic() - began)
        if left < _MIN_SECONDS:
            ending: dict[str, Any] = {"part": name, "status": f"not run: {TOTAL_LIMIT} s are over"}
            (args.out / f"{name}.jsonl").write_text(json.dumps(ending) + "\n")
        else:
            ending = run_part(name, args.out, left if args.tiny else min(LIMITS[name], left), args.tiny)
        failed += ending["status"] != "ended"
        print(f"{name:9} {ending['status']}  {ending.get('seconds', 0)} s  {args.out / name}.jsonl", flush=True)
        if "error" in ending:
            print(f"          {(ending['error'].strip().splitlines() or ['no error was written'])[-1]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
