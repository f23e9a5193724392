"""`softrec score`: a file of users through the serving path, without HTTP."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from clients.batch.batch import BatchReport, BatchSettings, score_file
from clients.batch.users_file import open_users
from clients.progress import open_progress
from clients.tables import say
from index.workspace import Workspace
from serving.schema import RecommendRequest, RecommendResponse
from serving.service import EngineOpener, open_service, open_vllm
from serving.settings import ServingSettings, read_settings


def score_users(
    root: Path,
    users: Path,
    output: Path,
    *,
    adapter: str | None,
    k: int,
    concurrency: int,
    restart: bool,
    open_engine: EngineOpener = open_vllm,
) -> BatchReport:
    """Recommend to every user of a Parquet file; nothing is recorded in the event store, because nobody is shown it.

    Args:
        root: the workspace.
        users: see `clients.batch.users_file`.
        output: see `clients.batch.batch`.
        adapter: score all with this one; None: each user's own arm.
        k: items per user.
        concurrency: users in work at once; also what the engine runs at once.
        restart: throw an unfinished run of other settings away.
        open_engine: starts the engine.

    Raises:
        SoftrecError: the users' file or the workspace cannot be used, or the engine failed; finished shards stay.
    """
    workspace = Workspace.open(root)
    open_users(users).close()  # refused before the engine starts, not after
    settings = read_settings(
        os.environ,
        adapters=None if adapter is None else (adapter.partition("@")[0],),
        experiment=None if adapter is None else "",  # a named adapter answers all
        allow_adapter_override=True,
        max_running=concurrency,
    )
    progress = open_progress()

    async def run() -> BatchReport:
        async with open_service(workspace, settings, open_engine=open_engine, note=progress.note) as service:

            async def recommend(request: RecommendRequest, request_id: str) -> RecommendResponse:
                return await service.recommender.recommend(request, request_id=request_id, record=False)

            ready = await service.ready()
            served = {
                "index": ready.index.version,
                "adapters": ready.adapters,
                "decoding": [settings.decoding, settings.width],
                "ranking": settings.ranking,
                **describe_experiment(settings),
            }
            return await score_file(
                users,
                output,
                recommend,
                BatchSettings(k=k, adapter=adapter),
                served=served,
                concurrency=concurrency,
                restart=restart,
                progress=progress,
            )

    report = asyncio.run(run())
    resumed = f" ({report.resumed_shards} shards were there already)" if report.resumed_shards else ""
    say(f"scored: {report.scored} users into {output}{resumed}")
    if report.rejected:
        say(f"  rejected: {report.rejected} rows; each with its reason in {output.with_suffix('.rejects.csv')}")
    return report


def describe_experiment(settings: ServingSettings) -> dict[str, object]:
    """Return what decides each user's arm, as JSON has it: a run goes on only under the same."""
    return {"experiment": settings.experiment, "arms": list(settings.arms), "weights": list(settings.weights)}
