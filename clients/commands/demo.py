"""`softrec demo`: the whole story on a small made-up shop, and on from whatever of it is there already."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from clients.choices import settings_for
from clients.commands.evaluate import evaluate_shop
from clients.commands.init import init_shop
from clients.commands.recommend import show_answer
from clients.commands.train import ensure_adapter, prepare
from clients.demo_shop import write_demo_shop
from clients.http.client import AsyncClient
from clients.http.server import reserve_address, run_server
from clients.progress import open_progress
from clients.tables import say, write_json
from clients.views.evaluations import show_evaluations
from index.workspace import Workspace
from serving.schema import RecommendRequest
from serving.settings import ServingSettings
from training.adapter import Adapter
from training.parallel.processes import Processes
from training.progress import Progress
from training.recipes.methods import METHODS
from training.settings import TrainSettings

USER_ID = "42"


def run_demo(
    root: Path, settings: ServingSettings, *, keep_serving: bool, host: str, port: int, json_path: Path | None
) -> None:
    """Make the shop, train and index what is missing, evaluate, serve, ask; print the table and one answer at the end.

    Args:
        root: the workspace; run again in the same one, the demo goes on from what exists.
        settings: of the server.
        keep_serving: serve until SIGINT or SIGTERM, or stop after the answer.
        host: address to listen on.
        port: likewise.
        json_path: where the evaluation's table goes as JSON.
    """
    started = time.perf_counter()
    reserved = reserve_address(host, port if keep_serving else 0)
    progress = open_progress()
    workspace, adapters = _prepare(root, progress)
    _evaluate(workspace, adapters)

    async def ask(url: str) -> bool:
        async with AsyncClient(url) as client:
            answer = await client.recommend(RecommendRequest(user_id=USER_ID, k=5))
        evaluations = json.loads((workspace.reports_dir / "evaluation.json").read_bytes())
        write_json(json_path, evaluations)
        say("")
        show_evaluations(evaluations)
        say("", f"POST {url}/recommend for user {USER_ID}:")
        show_answer(answer)
        state = "serving, Ctrl-C stops it" if keep_serving else "stopped now, because of --no-serve"
        first = f"softrec recommend --user 7 -k 5 --url {url}" if keep_serving else f"softrec serve {root}"
        say("", f"server: {url} ({state})", f"whole story: {time.perf_counter() - started:.0f} s")
        compared = " ".join(adapter.name for adapter in adapters[-2:])
        say("try next:", f"  {first}", f"  softrec compare {root} {compared}")
        return keep_serving

    run_server(workspace, settings, reserved, on_ready=ask, note=progress.note)


def _prepare(root: Path, progress: Progress) -> tuple[Workspace, list[Adapter]]:
    """Make what serving requires and the folder lacks."""
    if not (root / "softrec.toml").is_file():
        items, interactions = root / "items.csv", root / "interactions.csv"
        if not (items.is_file() and interactions.is_file()):
            progress.note(f"making up a shop: {items}, {interactions}")
            write_demo_shop(root)
        init_shop(root, items=items, interactions=interactions, noun="title", verb="enjoyed")
    workspace = Workspace.open(root)
    settings = settings_for(TrainSettings, workspace, None, ())
    grounder, dataset = prepare(workspace, METHODS[0], settings, Processes(), progress)
    adapters = [ensure_adapter(workspace, method, settings, dataset, grounder, progress) for method in METHODS]
    return workspace, adapters


def _evaluate(workspace: Workspace, adapters: Sequence[Adapter]) -> None:
    """Evaluate, unless the report there is of these very adapters."""
    path = workspace.reports_dir / "evaluation.json"
    if path.is_file():
        measured = {evaluation["adapter_id"] for evaluation in json.loads(path.read_bytes())}
        if measured.issuperset(adapter.adapter_id for adapter in adapters):
            return
    evaluate_shop(workspace.root, [adapter.name for adapter in adapters])
