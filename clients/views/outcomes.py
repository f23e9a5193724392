"""A table of a method's variants."""

from __future__ import annotations

from collections.abc import Sequence

from clients.tables import say, show_table
from training.adapter import GoldenPrompt
from training.recipes.variant_runs import Outcome


def show_outcomes(outcomes: Sequence[Outcome], *, title: str) -> None:
    """Print one line per variant."""
    show_table(
        [
            {
                "variant": outcome.variant.meaning,
                "adapter": outcome.adapter.adapter_id,
                "HR@10": outcome.validation_hr10,
                "loss": outcome.validation_loss,
                "published epoch": f"{outcome.epoch} of {outcome.epochs}",
                **{f"last {name}": value for name, value in outcome.figures.items()},
            }
            for outcome in outcomes
        ],
        title=title,
    )
    say("HR@10 and loss (nats per token of the true titles) are the published epoch's; figures called last, the last's")
    for alike in _find_alike(outcomes):
        say(f"{', '.join(alike)}: the same weights, since they learned alike up to the published epoch")


def _find_alike(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Names of the variants that give their golden prompts the same log-probabilities, to the last bit."""
    by_golden: dict[tuple[GoldenPrompt, ...], list[str]] = {}
    for outcome in outcomes:
        by_golden.setdefault(outcome.adapter.golden, []).append(outcome.variant.name)
    return [names for names in by_golden.values() if len(names) > 1]
