"""`softrec rebase`: fold the changes of the catalog into the imported catalog, which training sees."""

from __future__ import annotations

from pathlib import Path

from clients.commands.index import open_shop_encoder
from clients.tables import say
from index.live.rebase import rebase_catalog
from index.workspace import Workspace
from training.adapter import read_adapters

_SHOWN = 5


def rebase_shop(root: Path, *, keep: int) -> None:
    """Fold the changes, and say what to run next.

    Raises:
        SoftrecError: see `index.live.rebase.rebase_catalog`.
    """
    workspace = Workspace.open(root)
    done = rebase_catalog(workspace, open_shop_encoder(workspace), keep=keep)
    if not done.folded:
        say(f"rebase: no changes since the import; index version {done.version} is active")
        return
    say(
        f"rebase: {done.folded} changes are part of the imported catalog now: {len(done.catalog.items)} items under "
        f"{len(done.catalog)} distinct titles",
        f"index: version {done.version} is active; running servers take it up at their next request",
    )
    if done.hidden:
        listed = ", ".join(done.hidden[:_SHOWN]) + (", ..." if len(done.hidden) > _SHOWN else "")
        say(f"  removed items that the log names stay in the catalog, hidden: {len(done.hidden)} ({listed})")
    methods = sorted({adapter.facts.method for adapter in read_adapters(workspace.adapters_dir).values()})
    if methods:
        say("adapters: served as before; evaluate and compare refuse them until they are trained again")
    base = [] if workspace.settings.base_model else [f"softrec base {root}"]
    commands = [*base, *(f"softrec train {method} {root}" for method in methods)]
    if commands:
        say(f"to train on the new catalog: {'; '.join(commands)}")
