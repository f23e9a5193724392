"""A shop of eight items for tests of serving, small enough to work every answer out by hand."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from index.artifact import write_artifact
from index.catalog.catalog import Catalog, Item, write_catalog
from index.catalog.popularity import count_popularity
from index.live.versions import build_index
from index.search.encoder import TitleEncoder
from index.workspace import ShopSettings, Workspace
from training.adapter import AdapterFacts, Decoding, GoldenPrompt, write_adapter_files
from training.base_model import BASE_KIND, BaseModel, locate_base
from training.prompt import PromptTemplate, TitleTokenizer

END = "<|end|>"

ITEMS = (
    Item("i1", "Tetris", "puzzle"),
    Item("i2", "Doom", "action|classic"),
    Item("i3", "TETRIS", "puzzle|classic"),  # another edition: the row of i1
    Item("i4", "Myst", "adventure"),
    Item("i5", "Portal", "puzzle|action"),
    Item("i6", "Quake", "action", available=False),
    Item("i7", "Zork", "adventure|classic"),
    Item("i8", "Pong", "classic"),
)

# (user, item, time): ann has seen i2, i4, i5 in this order; bob i5; nobody else is known. Popularity: i5 2, i2 and i4 1
LOG = (("ann", "i4", 20), ("ann", "i2", 10), ("ann", "i5", 30), ("bob", "i5", 5))

BASE_NATS = -2.0  # per token, of any completion that the fake engine is asked about
ADAPTER_NATS = -1.0
TEMPLATE = PromptTemplate(noun="game", verb="played", max_history=2, max_prompt_tokens=400, max_title_tokens=40)


def tiny_catalog() -> Catalog:
    return Catalog.from_items(ITEMS)


def write_tiny_tokenizer(folder: Path) -> TitleTokenizer:
    """One token per byte, and the end token."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: number for number, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    return TitleTokenizer.load(folder)


def write_tiny_base(workspace: Workspace) -> BaseModel:
    """A stand-in base without weights: enough for everything but a real engine."""
    with write_artifact(workspace.base_dir, kind=BASE_KIND) as draft:
        write_tiny_tokenizer(draft.path)
        (draft.path / "config.json").write_text(json.dumps({"eos_token_id": 256}))
        draft.body.update(training_data="")
    return locate_base(workspace)


def write_tiny_adapter(workspace: Workspace, name: str, base: BaseModel, catalog: Catalog, **golden: float) -> None:
    """An adapter without weights, whose golden values are the fake engine's (or those given)."""
    renderer = base.renderer(TEMPLATE)
    completion = renderer.completion_ids("Doom")
    values = {"log_prob": len(completion) * ADAPTER_NATS, "base_log_prob": len(completion) * BASE_NATS} | golden
    facts = AdapterFacts(
        method=name,
        base_name=base.name,
        base_digest=base.digest,
        tokenizer_digest=base.tokenizer.digest,
        catalog_digest=catalog.digest,
        training_data="",
        split="time",
        template=TEMPLATE,
        decoding=Decoding("greedy", renderer.max_new_tokens),
        lora_rank=8,
        code_version="test",
        parents=(),
        settings={},
        metrics={},
    )
    with write_artifact(workspace.adapter_dir(name), kind="adapter") as draft:
        (draft.path / "adapter_model.safetensors").write_text(name)
        write_adapter_files(draft, facts, [GoldenPrompt(renderer.render(["Doom"]).ids, completion, **values)])


def write_tiny_index(workspace: Workspace, catalog: Catalog, encoder: TitleEncoder) -> None:
    build_index(workspace.index_dir, catalog, encoder, count_popularity(catalog, [item for _, item, _ in LOG]))


def write_tiny_log(path: Path) -> None:
    users, items, times = zip(*LOG, strict=True)
    columns = {"user_id": users, "item_id": items, "timestamp": times, "rating": np.full(len(LOG), np.nan, np.float32)}
    pq.write_table(pa.table(columns), path)


def make_tiny_shop(root: Path, encoder: TitleEncoder) -> Workspace:
    """A whole workspace: base, adapters `sft` and `soft`, index, log."""
    root.mkdir(parents=True, exist_ok=True)
    workspace = Workspace.create(root, ShopSettings(noun="game", verb="played"))
    catalog = tiny_catalog()
    write_catalog(workspace.catalog_path, catalog)
    base = write_tiny_base(workspace)
    for name in ("sft", "soft"):
        write_tiny_adapter(workspace, name, base, catalog)
    write_tiny_index(workspace, catalog, encoder)
    write_tiny_log(workspace.interactions_path)
    return workspace
