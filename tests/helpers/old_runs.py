"""Runs as sgcd 0.1 left them, without checksums: what is changed by hand is not taken for damage."""

import json
from pathlib import Path

from sgcd.storage.manifest import MANIFEST_FILE
from sgcd.storage.run_folder import RunFolder


def drop_checksums(run: Path) -> RunFolder:
    """Make a run one of sgcd 0.1."""
    for manifest in run.rglob(MANIFEST_FILE):
        manifest.unlink()
    facts = json.loads((run / "facts.json").read_text())
    del facts["checksums"]
    (run / "facts.json").write_text(json.dumps(facts))
    for path in run.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row.pop("check", None)
            row.pop("files", None)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunFolder.open(run)
