"""The `softrec` command: one function per verb, which names its options and calls `clients.commands`, no more.

Nothing heavy is imported before a verb is chosen. Our own errors, and the system's about files, print one line to
standard error and exit with 2 (a signal: 128 + its number); anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from clients.http.address import DEFAULT_URL, HOST, PORT
from clients.index_cli import index_app
from clients.options import Json, Shop
from index.errors import SoftrecError
from training.errors import StoppedError
from training.recipes.methods import METHODS, method_names


class _OneLineErrors(TyperGroup):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # bars are ours; this silences transformers' as well
        try:
            return super().main(*args, **kwargs)
        except StoppedError as error:
            _exit_with(str(error), code=error.exit_code)
        except SoftrecError as error:
            _exit_with(str(error))
        except OSError as error:  # an unwritable folder, a full disk, no network: nothing that a traceback explains
            _exit_with(_describe(error))


def _exit_with(message: str, *, code: int = 2) -> NoReturn:
    typer.echo(f"softrec: {' '.join(message.splitlines())}", err=True)
    sys.exit(code)


def _describe(error: OSError) -> str:
    place = "" if error.filename is None else f"{error.filename}: "
    remedy = {
        errno.EACCES: "; choose a folder you may write to, or change its permissions",
        errno.ENOTDIR: "; choose a folder",
        errno.EROFS: "; choose a folder that can be written to",
        errno.ENOSPC: "; free some space and run it again",
    }.get(error.errno or 0, "")
    return f"{place}{error.strerror or str(error) or type(error).__name__}{remedy}"


app = typer.Typer(
    cls=_OneLineErrors,
    help="Train, serve, ground and compare a recommender whose model is a language model.",
    epilog="Begin with: softrec demo",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class SplitChoice(StrEnum):
    """How `softrec init` may divide the log."""

    AUTO = "auto"
    TIME = "time"
    LEAVE_LAST_OUT = "leave-last-out"


def _ablations() -> str:
    """Every method's ablations, for help."""
    return "; ".join(
        f"{', '.join(part.name for part in method.ablations(1))} ({method.name})"
        for method in METHODS
        if method.ablations is not None
    )


Varied = Annotated[str, typer.Option(help="Which method. By default the last one that has something to vary.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeatable.")]
Preset = Annotated[str | None, typer.Option(help="tiny (default for the stand-in) or paper (for any other).")]
Url = Annotated[str, typer.Option("--url", metavar="URL", help="The server's address.")]
K = Annotated[int, typer.Option("-k", min=1, max=100, help="How many items.")]


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where; going on from what is there.")] = Path(
        "demo-shop"
    ),
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Keep serving at the end, or stop.")] = True,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = PORT,
    json: Json = None,
) -> None:
    """The whole story on a small made-up shop: train, evaluate, serve, ask."""
    from serving.settings import read_settings
    from training.generation.vllm.environment import prepare_environment, runs_on_cpu

    prepare_environment(os.environ, on_cpu=runs_on_cpu())  # torch reads some of it, and training imports torch
    from clients.commands.demo import run_demo

    run_demo(folder, read_settings(os.environ), keep_serving=serve, host=host, port=port, json_path=json)


@app.command()
def init(
    shop: Shop,
    items: Annotated[Path, typer.Option(help="The catalog: item_id, title and optionally category, available.")],
    interactions: Annotated[Path, typer.Option(help="The log: user_id, item_id, timestamp and optionally rating.")],
    noun: Annotated[str | None, typer.Option(help="What the shop offers, singular: movie. By default item.")] = None,
    verb: Annotated[
        str | None, typer.Option(help="What users did with it, past participle: watched. By default bought.")
    ] = None,
    split: Annotated[SplitChoice | None, typer.Option(help="How test data is set apart. By default auto.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="minilm (default), base, or a sentence-transformers name or folder.")
    ] = None,
    max_reject_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Bad rows tolerated, as a share.")] = 0.01,
    force: Annotated[
        bool, typer.Option("--force", help="Import again over a workspace; what is not given stays as it was.")
    ] = False,
) -> None:
    """Make a workspace of a catalog and an interaction log (CSV, JSONL, Parquet, raw MovieLens, raw Amazon)."""
    from clients.commands.init import init_shop

    init_shop(
        shop,
        items=items,
        interactions=interactions,
        noun=noun,
        verb=verb,
        split=None if split is None else split.value,
        encoder=encoder,
        max_reject_share=max_reject_share,
        force=force,
    )


@app.command()
def base(shop: Shop, assignments: Set = None) -> None:
    """Train the stand-in base: a small Llama on the catalog's own text. No download, no GPU."""
    from clients.commands.base import train_base

    train_base(shop, assignments or [])


@app.command()
def train(
    method: Annotated[
        str,
        typer.Argument(
            metavar="|".join(method_names()),
            help="; ".join(f"{method.name} {method.summary}" for method in METHODS)
            + ". Missing prerequisites are made first.",
        ),
    ],
    shop: Shop,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A Hugging Face base, kept in softrec.toml.")
    ] = None,
    preset: Preset = None,
    assignments: Set = None,
    generator: Annotated[
        str | None, typer.Option(metavar="torch|vllm", help="What writes titles inside training. By default torch.")
    ] = None,
    report_to: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Trackers: tensorboard, mlflow, wandb. By default none.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show samples, lengths, time and memory; train and write nothing.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="With --dry-run: write its figures as JSON too.")
    ] = None,
) -> None:
    """Train an adapter and publish it with its proof."""
    changes = [*(assignments or [])]
    changes += [f"generator={generator}"] if generator is not None else []
    changes += [f"report_to={report_to}"] if report_to is not None else []
    if dry_run:
        from clients.commands.dry_run import look_ahead

        look_ahead(shop, method, base_model=base, preset=preset, assignments=changes, json_path=json)
        return
    if json is not None:
        from clients.errors import RefusedError

        raise RefusedError("--json holds the figures of a dry run", remedy="add --dry-run")
    from clients.commands.train import train_adapter

    train_adapter(shop, method, base_model=base, preset=preset, assignments=changes)


@app.command()
def sweep(
    shop: Shop,
    values: Annotated[
        str, typer.Option(metavar="A,B,...", help="Values to try. By default those of the method's paper.")
    ] = "",
    method: Varied = "",
    preset: Preset = None,
    assignments: Set = None,
    json: Json = None,
) -> None:
    """Train a method once per value of one setting, keep each, and publish the best by validation under its name."""
    from clients.commands.sweep import sweep_method

    sweep_method(shop, values, name=method, preset=preset, assignments=assignments or [], json_path=json)


@app.command()
def ablate(
    shop: Shop,
    only: Annotated[str, typer.Option(metavar="A,B,...", help=f"Of {_ablations()}; by default all.")] = "",
    method: Varied = "",
    preset: Annotated[str | None, typer.Option(help="By default the settings of the shop's own adapter.")] = None,
    assignments: Set = None,
    json: Json = None,
) -> None:
    """Measure a method beside itself without its parts."""
    from clients.commands.ablate import ablate_method

    ablate_method(shop, only, name=method, preset=preset, assignments=assignments or [], json_path=json)


@app.command()
def diagnose(
    shop: Shop,
    adapter: Annotated[str, typer.Argument(metavar="[ADAPTER]", help="By default the last method's.")] = "",
    json: Json = None,
) -> None:
    """Explain a training run: signs of failure with remedies, chance levels, curves, one offline page."""
    from clients.commands.diagnose import diagnose_adapter

    diagnose_adapter(shop, adapter, json_path=json)


@app.command()
def rebase(
    shop: Shop,
    keep: Annotated[int, typer.Option(min=1, help="How many versions of the index to keep, the new one included.")] = 3,
) -> None:
    """Fold the changes of the catalog into the imported catalog, so that training sees today's items."""
    from clients.commands.rebase import rebase_shop

    rebase_shop(shop, keep=keep)


app.add_typer(index_app, name="index", help="Embed the catalog's titles; look at the index; change the catalog.")


@app.command()
def evaluate(
    shop: Shop,
    adapters: Annotated[
        list[str] | None, typer.Argument(metavar="[ADAPTER]...", help="By default all there are.")
    ] = None,
    decoding: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="Of greedy, beam, sample_n, constrained_beam, exact. By default greedy for l2, else constrained_beam.",
        ),
    ] = "",
    ranking: Annotated[
        str, typer.Option(metavar="A,B,...", help="Of l2, likelihood, fusion; by default all of them.")
    ] = "",
    assignments: Set = None,
    json: Json = None,
) -> None:
    """HR and NDCG over the full catalog, by distance, likelihood and both, beside popularity."""
    from clients.commands.evaluate import evaluate_shop

    evaluate_shop(
        shop, adapters or [], decoding=decoding, ranking=ranking, assignments=assignments or [], json_path=json
    )


@app.command()
def compare(
    shop: Shop,
    first: Annotated[str, typer.Argument(metavar="A", help="The adapter to compare with.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The adapter in question.")],
    assignments: Set = None,
    json: Json = None,
) -> None:
    """Offline A/B: both adapters on the same test windows, paired intervals of B minus A."""
    from clients.commands.compare import compare_adapters

    compare_adapters(shop, first, second, assignments=assignments or [], json_path=json)


@app.command()
def serve(
    shop: Shop,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = PORT,
) -> None:
    """Serve every adapter of the shop over HTTP, until SIGINT or SIGTERM."""
    from clients.commands.serve import serve_shop

    serve_shop(shop, host=host, port=port)


@app.command()
def recommend(
    user: Annotated[str | None, typer.Option("--user", help="The user's id.")] = None,
    history: Annotated[list[str] | None, typer.Option(help="An item id or title, oldest first; repeatable.")] = None,
    k: K = 10,
    adapter: Annotated[str | None, typer.Option(help="Use this adapter and leave the experiment.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only items of this category; repeatable.")] = None,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Recommend items of the history too.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = None,
) -> None:
    """Ask a running server what comes next for a user, or after a history."""
    from clients.commands.recommend import recommend_online

    recommend_online(
        url,
        user_id=user,
        history=history,
        k=k,
        adapter=adapter,
        categories=category,
        include_seen=include_seen,
        json_path=json,
    )


@app.command()
def score(
    shop: Shop,
    users: Annotated[Path, typer.Argument(metavar="USERS.parquet", help="user_id, and optionally history (item ids).")],
    output: Annotated[Path, typer.Argument(metavar="RECS.parquet", help="Where the recommendations go.")],
    adapter: Annotated[
        str | None, typer.Option(help="Score all with this one; by default each user's own arm.")
    ] = None,
    k: K = 10,
    concurrency: Annotated[int, typer.Option(min=1, help="Users in work at once.")] = 64,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away an unfinished run of other settings.")] = False,
) -> None:
    """Score a whole file of users through the serving path, without HTTP. Killed, it goes on where it stopped."""
    from clients.commands.score import score_users

    score_users(shop, users, output, adapter=adapter, k=k, concurrency=concurrency, restart=restart)


@app.command()
def doctor(
    shop: Annotated[Path | None, typer.Argument(metavar="[SHOP]", help="A workspace to look at too.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Import nothing heavy, load no weights.")] = False,
    json: Json = None,
) -> None:
    """Say what is installed, what is wrong and what to do. Exits with 1 when something is missing or wrong."""
    from clients.commands.doctor import examine

    if not examine(shop, quick=quick, json_path=json):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; `clients.__main__` calls it once it knows that typer is there."""
    app()
