"""Trains the lab recipes with this checkout and with an older commit, and compares the policies byte by byte.

python bench/same_policy.py REVISION   (both recipes, 6 steps, seeds 1 and 2: about three minutes on one core)
"""

import argparse
import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_METHODS = ("grpo", "sgcd")


def train_policy(checkout: Path, run: Path, *, method: str, seed: int, steps: int) -> str:
    """The hash of the policy that a checkout's own code and recipe train."""
    keys = [f"steps={steps}", f"seed={seed}", f"evaluation.every={steps + 1}", "evaluation.tasks=2"]
    command = [sys.executable, "-m", "sgcd", "train", f"recipes/lab/{method}.yaml", "--run", str(run), *keys]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
    return sha256((run / "policy/model.safetensors").read_bytes()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", help="the commit to compare with")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    is_same = True
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "--detach", str(before), args.revision],
            check=True,
            capture_output=True,
        )
        try:
            for method in _METHODS:
                for seed in args.seeds:
                    hashes = [
                        train_policy(
                            checkout,
                            Path(folder) / f"{name}-{method}-{seed}",
                            method=method,
                            seed=seed,
                            steps=args.steps,
                        )
                        for name, checkout in (("before", before), ("after", ROOT))
                    ]
                    is_same = is_same and hashes[0] == hashes[1]
                    verdict = "same" if hashes[0] == hashes[1] else "DIFFERENT"
                    print(
                        f"{method} seed {seed}: {hashes[0][:16]} before, {hashes[1][:16]} after: {verdict}", flush=True
                    )
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(before)], check=True)
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
