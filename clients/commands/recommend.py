"""`softrec recommend`: one online call, shown with everything the answer says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from clients.errors import RefusedError
from clients.http.client import Client
from clients.tables import say, show_table, write_json
from serving.schema import Filters, RecommendRequest, RecommendResponse


def recommend_online(
    url: str,
    *,
    user_id: str | None,
    history: Sequence[str] | None,
    k: int,
    adapter: str | None = None,
    categories: Sequence[str] | None = None,
    include_seen: bool = False,
    json_path: Path | None = None,
) -> RecommendResponse:
    """Ask a running server; print the answer.

    Raises:
        RefusedError: neither a user nor a history, or a value that the API does not take.
        ClientError: no answer, or a problem.
    """
    if user_id is None and not history:
        raise RefusedError("nobody to recommend to", remedy="give --user ID, or --history TITLE once or more")
    try:
        request = RecommendRequest(
            user_id=user_id,
            history=list(history) if history else None,
            k=k,
            exclude_seen=not include_seen,
            filters=Filters(category=list(categories) if categories else None),
            adapter=adapter,
        )
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, at['loc']))}: {at['msg']}" for at in error.errors())
        raise RefusedError(f"the API does not take this ({problems})") from error
    with Client(url) as client:
        answer = client.recommend(request)
    show_answer(answer)
    write_json(json_path, answer.model_dump(mode="json"))
    return answer


def show_answer(answer: RecommendResponse) -> None:
    """Print the items, and below them how they came about."""
    shown = ["distance"]
    if any(item.grounding is not None and item.grounding.log_prob is not None for item in answer.items):
        shown.append("log_prob")
    show_table(
        [
            {
                "rank": item.rank,
                "title": item.title,
                "item_id": item.item_id,
                **{name: getattr(item.grounding, name, None) for name in shown},
                "source": item.source.value,
            }
            for item in answer.items
        ]
    )
    written = next((item.grounding for item in answer.items if item.grounding is not None), None)
    if written is not None:
        say(f"the model wrote: {written.generation} ({written.match.value})")
    experiment, history, timings = answer.experiment, answer.history, answer.timings_ms
    arm = experiment.arm_served or "none"
    if experiment.arm_assigned != experiment.arm_served:
        arm += f" (assigned {experiment.arm_assigned or 'none'})"
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in timings.model_dump().items() if name != "total")
    say(
        f"adapter: {answer.adapter or 'none'}   arm: {arm}, {experiment.reason.value}   index: {answer.index.version}",
        f"history ({history.source.value}): {history.used} used, {history.dropped} dropped, {history.unknown} unknown",
        f"degraded: {', '.join(answer.degraded) or 'nothing'}",
        f"time: {timings.total:.1f} ms ({stages})",
    )
