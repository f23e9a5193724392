"""`softrec index` and its verbs, as `clients.cli` has the others."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clients.options import Json, Shop


class SearchChoice(StrEnum):
    """The names of `index.search.kind.SearchKind`."""

    AUTO = "auto"
    FLAT = "flat"
    PQ = "pq"


class _BuildsByDefault(TyperGroup):
    """`softrec index SHOP` is `softrec index build SHOP`; a shop in a folder named as a command is ./doctor."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["build", *args]
        return super().parse_args(ctx, args)


index_app = typer.Typer(cls=_BuildsByDefault, no_args_is_help=True)


@index_app.command("build")
def index(
    shop: Shop,
    keep: Annotated[int, typer.Option(min=1, help="How many versions to keep, the new one included.")] = 3,
    kind: Annotated[
        SearchChoice, typer.Option(help="How titles are searched; auto: exactly (flat) up to 200,000 titles.")
    ] = SearchChoice.AUTO,
    recall_floor: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the ten nearest titles that pq must find.")
    ] = 0.98,
) -> None:
    """Embed the catalog's titles and make them searchable: `softrec index SHOP` does it, too."""
    from clients.commands.index import index_shop

    index_shop(shop, keep=keep, kind=kind.value, recall_floor=recall_floor)


@index_app.command("doctor")
def index_doctor(shop: Shop, json: Json = None) -> None:
    """Say whether the index finds what it holds and is this shop's. Exits with 1 when something is wrong."""
    from clients.commands.index_doctor import examine_index

    if not examine_index(shop, json_path=json):
        raise typer.Exit(1)


@index_app.command("versions")
def index_versions(shop: Shop, json: Json = None) -> None:
    """List the versions that are kept, and which is active."""
    from clients.commands.index_versions import show_versions

    show_versions(shop, json_path=json)


@index_app.command("rollback")
def index_rollback(
    shop: Shop, version: Annotated[str, typer.Argument(metavar="VERSION", help="As `softrec index versions` lists it.")]
) -> None:
    """Make an older version the active one. Changes of the catalog stay: it undoes a bad build."""
    from clients.commands.index_versions import roll_back

    roll_back(shop, version)


@index_app.command("change")
def index_change(
    shop: Shop,
    changes: Annotated[
        Path, typer.Argument(metavar="CHANGES.jsonl", help="Lines with op (put, patch, remove), item_id, title, ...")
    ],
    max_reject_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Bad lines tolerated, as a share.")] = 0.01,
) -> None:
    """Add, change and remove many items at once: all lines or none."""
    from clients.commands.index_change import change_items

    change_items(shop, changes, max_reject_share=max_reject_share)
