"""From a log to an evaluation: init, base, SFT, SOFT (distillation within), index, evaluate; seconds and memory of
each.

    python -m benchmarks.pipeline ml-100k [--quick]

The budget is 30 minutes and 6 GB on two cores for ml-100k with 4,096 training windows. `--quick` trains on 512 windows
for one epoch and is no measure of quality.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.stages import report, run_stage

WORDS = {
    "ml-100k": ("movie", "watched"),
    "movietweetings-100k": ("movie", "rated"),
    "amazon-games": ("video game product", "bought"),
    "amazon-office": ("office product", "bought"),
}
QUICK = ["--set", "train_windows=512", "--set", "test_windows=200", "--set", "max_epochs=1"]


def main() -> None:
    """Run the stages and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=WORDS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="where the data sets lie")
    parser.add_argument("--workspace", type=Path, help="keep the workspace here (default: a temporary folder)")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        shop = str(arguments.workspace or Path(temporary) / "shop")
        source = arguments.data / arguments.dataset
        noun, verb = WORDS[arguments.dataset]
        files = ["--items", str(source / "items.csv.gz"), "--interactions", str(source / "interactions.csv.gz")]
        quick = QUICK if arguments.quick else []
        table = Path(temporary) / "evaluation.json"
        stages = [
            run_stage("init", ["init", shop, *files, "--noun", noun, "--verb", verb]),
            run_stage("base", ["base", shop]),
            run_stage("index", ["index", shop]),
            run_stage("sft", ["train", "sft", shop, *quick]),
            run_stage("soft", ["train", "soft", shop, *quick]),
            run_stage("evaluate", ["evaluate", shop, "sft", "soft", "--json", str(table)]),
        ]
        rows = json.loads(table.read_bytes())
        report(
            stages,
            dataset=arguments.dataset,
            hr10={f"{row['method']} {row['ranking']}": round(row["HR@10"], 4) for row in rows},
        )


if __name__ == "__main__":
    main()
