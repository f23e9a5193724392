"""How a served adapter writes titles: greedily, or by a beam search inside the catalog.

Both modes end in `Written`: distinct titles with the model's own log-probabilities, most probable first.
`index.ranking.ranking` ranks items by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from index.catalog.catalog import Catalog
from index.ranking.ranking import POOL, Written
from index.ranking.ranking_spec import RankingMode, RankingSpec
from serving.engine.engine import Engine
from serving.engine.title_tries import StoredTitles
from serving.errors import SettingsError
from training.adapter import Decoding, DecodingMode
from training.prompt import PromptRenderer

# 20 beams inside the catalog find nearly all of the ten best titles, and faster than 4 free ones find one
# (benchmarks/results/decoding-speed.md)
USUAL_WIDTH: dict[DecodingMode, int] = {"greedy": 1, "constrained_beam": 20}


@dataclass(frozen=True)
class Decoded:
    """What was written for one prompt.

    Attributes:
        written: the titles; None where the model wrote none, or only blanks.
        ids: tokens of the best one, the end token included.
        completion_tokens: written in all, those of titles that are not listed too.
        is_proven: of a search inside the catalog: no allowed title is better than these; None of a greedy title.
        unconstrained: the search inside the catalog had nothing to find, and the title was written freely.
    """

    written: Written | None
    ids: tuple[int, ...]
    completion_tokens: int
    is_proven: bool | None = None
    unconstrained: bool = False


@dataclass(frozen=True)
class AdapterDecoder:
    """Writes with one adapter.

    Attributes:
        decoding: mode and width.
        titles_ranked: how many titles of a constrained search the ranking reads; None: as many items as are asked for.
    """

    engine: Engine
    adapter_id: str
    renderer: PromptRenderer
    decoding: Decoding
    titles_ranked: int | None = None

    async def write(
        self, prompt_ids: Sequence[int], *, k: int, catalog: Catalog, titles: StoredTitles | None, request_id: str
    ) -> Decoded:
        """Write titles after a prompt.

        Args:
            k: how many items the answer will have; a constrained search looks for no more, if no ranking reads more.
            titles: the allowed ones, for a constrained search. If all are too long to be written, or None is given, the
                mode is greedy, `unconstrained` says so, and distance ties its text to the catalog.

        Raises:
            UnknownAdapterError, EngineUnavailableError, ValueError: see `Engine.generate`.
        """
        if self.decoding.mode != "constrained_beam":
            return await self._write_freely(prompt_ids, request_id)
        if titles is not None:
            found = await self._write_in_catalog(prompt_ids, titles, k, catalog, request_id)
            if found.written is not None:
                return found
        return replace(await self._write_freely(prompt_ids, request_id), unconstrained=True)

    async def _write_freely(self, prompt_ids: Sequence[int], request_id: str) -> Decoded:
        generation = await self.engine.generate(
            prompt_ids, adapter_id=self.adapter_id, max_new_tokens=self.decoding.max_new_tokens, request_id=request_id
        )
        text = self.renderer.parse(generation.ids)
        written = Written((text,), (generation.log_prob,)) if text.strip() else None
        return Decoded(written, generation.ids, len(generation.ids))

    async def _write_in_catalog(
        self, prompt_ids: Sequence[int], titles: StoredTitles, k: int, catalog: Catalog, request_id: str
    ) -> Decoded:
        constrained = await self.engine.write_titles(
            prompt_ids,
            titles,
            adapter_id=self.adapter_id,
            width=self.decoding.width,
            k=self.titles_ranked or k,
            max_new_tokens=self.renderer.max_new_tokens,
            request_id=request_id,
        )
        found = constrained.found
        rows = [(row, title.log_prob) for title in found.titles for row in title.rows]
        if not rows:
            return Decoded(None, (), constrained.completion_tokens)
        written = Written(
            tuple(catalog.titles[row] for row, _ in rows),
            tuple(log_prob for _, log_prob in rows),
            tuple(row for row, _ in rows),
        )
        return Decoded(written, found.titles[0].token_ids, constrained.completion_tokens, is_proven=found.is_proven)


def choose_decoding(facts: Decoding, mode: DecodingMode | None, width: int | None) -> Decoding:
    """Return how an adapter decodes: as its manifest says, unless the settings say otherwise.

    Args:
        mode: of the settings; None: the manifest's.
        width: of the settings; None: the manifest's, or `USUAL_WIDTH` if the mode is another.
    """
    chosen = mode or facts.mode
    usual = facts.width if chosen == facts.mode else USUAL_WIDTH[chosen]
    return Decoding(chosen, facts.max_new_tokens, 1 if chosen == "greedy" else width or usual)


def choose_ranking(adapter_id: str, facts: RankingSpec, mode: RankingMode | None) -> RankingSpec:
    """Return how an adapter's titles are ranked; `mode` is of the settings, None: as its manifest says.

    Raises:
        SettingsError: a fusion is asked for, but the adapter has no weights for one.
    """
    if mode is None:
        return facts
    if mode == "fusion" and facts.weights is None:
        raise SettingsError(
            f"SOFTREC_RANKING={mode}, but the manifest of adapter {adapter_id} ranks by {facts.mode} and has no "
            "weights of a fusion",
            remedy="leave SOFTREC_RANKING empty, or set it to likelihood",
        )
    return facts.by(mode)


def titles_ranked(ranking: RankingSpec) -> int | None:
    """How many titles of a constrained search a ranking reads, if not as many as items are asked for.

    One for distances; for a fusion as many as its weights were fitted with (`training.generation.decoding` lists as
    many).
    """
    return {"l2": 1, "likelihood": None, "fusion": POOL}[ranking.mode]
