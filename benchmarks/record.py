"""Keep the record of a run: python benchmarks/record.py RUN NAME -> benchmarks/results/NAME.json"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

from kshot.files import write_json
from kshot.training import load_run

RESULTS = Path(__file__).parent / "results"


def main(run: str, name: str) -> None:
    """Write what the run folder says, without the weights."""
    folder = Path(run)
    loaded = load_run(folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    record = {
        "name": name,
        "config": loaded.config.model_dump(mode="json"),
        "meta_steps_run": rows[-1]["step"],
        "meta_steps_kept": loaded.meta_steps,
        "training_seconds": round(rows[-1]["seconds"]),
        "processor": platform.machine(),
        "validation": [r for r in rows if r["validation"] is not None][-30:],
        "results": json.loads((folder / "results.json").read_text()),
    }
    write_json(RESULTS / f"{name}.json", record)


if __name__ == "__main__":
    main(*sys.argv[1:])
