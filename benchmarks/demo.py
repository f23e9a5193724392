"""`softrec demo --no-serve` in a new folder: seconds and memory. The budget is 8 minutes and 6 GB on two cores.

    python -m benchmarks.demo [--quick]

`--quick` is the same run: the demo has one size.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.stages import report, run_stage


def main() -> None:
    """Run the demo and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        shop, table = str(Path(temporary) / "shop"), Path(temporary) / "evaluation.json"
        stage = run_stage("demo", ["demo", shop, "--no-serve", "--json", str(table)])
        rows = json.loads(table.read_bytes())
        report([stage], hr10={f"{row['method']} {row['ranking']}": round(row["HR@10"], 4) for row in rows})


if __name__ == "__main__":
    main()
