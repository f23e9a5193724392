"""Serve an adapter only if it gives the log-probabilities that it gave in training.

LLM servers are known to answer with the bare base's output when an adapter's modules do not match its model (vLLM
#34186, #48019). Training therefore writes golden prompts with log-probabilities; a server asks its own engine for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from index.artifact import MANIFEST
from index.ranking.grounding import GroundedText
from index.ranking.ranking import Written
from index.ranking.ranking_spec import BY_DISTANCE, RankingSpec
from serving.engine.engine import Engine
from serving.errors import AdapterProofError, SettingsError
from training.adapter import Adapter, Decoding, read_adapter
from training.prompt import PromptRenderer
from training.recipes.methods import main_adapter

FLOAT32_TOLERANCE = 0.002  # measured between vLLM on the CPU and transformers + PEFT: 1e-5 per token
HALF_TOLERANCE = 0.05


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter as requests use it: how it writes titles and how they are ranked.

    Attributes:
        hallucination_distance: L2, in the served index; an unconstrained title farther than this from its nearest one
            counts as a hallucination. None: no title does.
    """

    name: str
    adapter_id: str
    renderer: PromptRenderer
    decoding: Decoding
    ranking: RankingSpec = BY_DISTANCE
    hallucination_distance: float | None = None

    @property
    def writes_in_catalog(self) -> bool:
        """Whether its decoding is constrained to the catalog, so that it needs the title tries."""
        return self.decoding.mode == "constrained_beam"

    def hallucinated(self, written: Written, grounding: GroundedText) -> bool:
        """Whether the best title probably means no item. A title of constrained decoding always means one."""
        limit = self.hallucination_distance
        return limit is not None and written.rows is None and grounding.distance > limit


@dataclass(frozen=True)
class Proof:
    """Measured differences, in nats per token of the golden completions.

    Attributes:
        gap: largest distance of the served adapter from its golden values.
        effect: largest distance of the served adapter from the served base.
    """

    adapter_id: str
    gap: float
    effect: float


async def prove_adapter(engine: Engine, adapter: Adapter, *, tolerance: float) -> Proof:
    """Compare an adapter with its golden prompts.

    For each golden prompt the engine's log-probability under the adapter may miss the golden one by at most `tolerance`
    per token, and the bare base's likewise; and on at least one the two must differ by more than twice that.

    Args:
        tolerance: nats per token; > 0.

    Raises:
        AdapterProofError: one of the three does not hold; both numbers are named.
    """
    gaps, effects = [], []
    command = f"softrec train {adapter.facts.method} {adapter.path.parent.parent}"
    again = f"train it again with `{command}`, or serve the base it was trained on"
    for golden in adapter.golden:
        tokens = len(golden.completion_ids)
        served = await engine.log_prob(golden.prompt_ids, golden.completion_ids, adapter_id=adapter.adapter_id)
        base = await engine.log_prob(golden.prompt_ids, golden.completion_ids, adapter_id=None)
        for what, found, expected in (
            (f"adapter {adapter.adapter_id}", served, golden.log_prob),
            (f"the base under adapter {adapter.adapter_id}", base, golden.base_log_prob),
        ):
            if not abs(found - expected) <= tolerance * tokens:  # also true for NaN
                raise AdapterProofError(
                    f"{what}: golden log-probability {expected:.4f}, served {found:.4f} "
                    f"({tokens} tokens, {tolerance} nats each allowed)",
                    remedy=again,
                )
        gaps.append(abs(served - golden.log_prob) / tokens)
        effects.append(abs(served - base) / tokens)
    if max(effects) <= 2 * tolerance:
        raise AdapterProofError(
            f"adapter {adapter.adapter_id} does nothing: its log-probabilities differ from the base's by at most "
            f"{max(effects):.4f} nats per token, and more than {2 * tolerance} is needed",
            remedy=again,
        )
    return Proof(adapter.adapter_id, max(gaps), max(effects))


def choose_adapters(adapters_dir: Path, names: Sequence[str]) -> list[Adapter]:
    """Read the named adapters, or all that are finished. It opens no others.

    Raises:
        SettingsError: a named adapter is missing, or none exists.
        ArtifactError: an adapter to serve is damaged.
    """
    manifests = sorted(adapters_dir.glob(f"*/{MANIFEST}"))
    found = [path.parent.name for path in manifests if not path.parent.name.startswith(".")]
    missing = [name for name in names if name not in found]
    if missing or not found:
        there = ", ".join(found) or "none"
        raise SettingsError(
            f"adapter {', '.join(missing)} not found; available: {there}" if missing else "no adapter to serve",
            remedy=f"train one with `softrec train {main_adapter(())} {adapters_dir.parent}`",
        )
    return [read_adapter(adapters_dir / name) for name in names or found]


def proof_tolerance(setting: float | None, *, dtype: str) -> float:
    """Return the tolerance of the settings, or the one that fits the dtype."""
    return setting or (FLOAT32_TOLERANCE if dtype == "float32" else HALF_TOLERANCE)
