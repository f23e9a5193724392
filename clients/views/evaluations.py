"""A table of evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clients.tables import say, show_table

SHOWN = ("HR@1", "HR@5", "HR@10", "HR@20", "HR@50", "NDCG@5", "NDCG@10", "NDCG@50")


def show_evaluations(evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Print what `Evaluation.to_json` gives, one line per method; all intervals but HR@10's are in the JSON alone."""
    show_table(
        [
            {
                **{name: evaluation[name] for name in ("method", "decoding", "ranking", *SHOWN)},
                "HR@10 95 %": f"{evaluation['HR@10_low']:.3f} to {evaluation['HR@10_high']:.3f}",
                "served": "yes" if evaluation["served"] else "",
            }
            for evaluation in evaluations
        ],
        title=f"Full catalog, {evaluations[0]['windows']} test windows of {evaluations[0]['users']} users",
    )
    for row in evaluations:
        if row["ranking"].startswith("l2") and "lost_in_grounding" in row:
            say(
                f"{row['method']} {row['decoding']} l2: 1 - HR@10 = {row['lost_in_generation']:.4f} lost in generation "
                f"(the model's own ranking misses it too) + {row['lost_in_grounding']:.4f} in grounding one title"
            )
