"""The stand-in base: a small Llama trained from scratch on the shop's own text, where no pretrained model can be had.

A byte-level BPE tokenizer whose prompt pieces are single tokens, and a Llama of a few million parameters. It reads
title/category lines, so that it can spell the catalog, and time-ordered training histories as plain lists in the
prompt's own punctuation, so that it knows what follows what; a few also as prompts with answers, so that the
prompt's own tokens mean something. Only the training part of the split is read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from index.artifact import write_artifact
from index.catalog.catalog import Catalog
from index.workspace import Workspace
from training.base_model import BASE_KIND, BaseModel, locate_base
from training.data.dataset import load_split, template_of
from training.data.windows import DataSplit
from training.errors import DivergedError
from training.progress import Progress
from training.prompt import PromptRenderer, PromptTemplate, TitleTokenizer
from training.settings import TrainSettings

BEGIN, END = "<|begin|>", "<|end|>"
CONTEXT = 1024  # positions the model is declared for


@dataclass(frozen=True)
class StandInSettings:
    """Size and training of the stand-in base.

    Attributes:
        vocabulary: tokens of the BPE at most; a small catalog gives fewer.
        hidden, layers, heads: of the Llama; the feed-forward is 2.75 times as wide as hidden.
        learning_rate: peak of AdamW, after a warm-up of 5 %, then a cosine down to a tenth.
        batch_tokens: tokens per update, about. Small on purpose: many updates matter more than large ones. One trial on
            the demo's shop, the same tokens read: HR@10 of SFT 0.14 with 4096 (3 epochs), 0.27 with 1024 (2 epochs).
        line_tokens: longest line; longer histories are cut into several.
        prompt_every: one in so many of these is also read as a prompt with its answer.
        passes: over the histories, but at least `min_tokens` and at most `max_tokens` are read in all. With a fifth of
            `min_tokens` a shop of 80 users got a base on which every adapter wrote empty titles.
    """

    vocabulary: int = 4096
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    learning_rate: float = 4e-3
    batch_tokens: int = 1024
    line_tokens: int = 192
    prompt_every: int = 4
    passes: float = 6.0
    min_tokens: int = 400_000
    max_tokens: int = 3_000_000
    seed: int = 0


def train_stand_in(
    workspace: Workspace, settings: TrainSettings, progress: Progress, *, stand_in: StandInSettings | None = None
) -> BaseModel:
    """Train tokenizer and model and write them to `base/`, a folder that transformers, PEFT and vLLM load.

    Args:
        settings: decide the split, so that no validation or test target is read.

    Raises:
        MissingArtifactError: no catalog or log yet.
        DivergedError: the loss stopped being a number.
    """
    stand_in = stand_in or StandInSettings()
    catalog, split = load_split(workspace, settings)
    template = template_of(workspace, settings)
    progress.note(f"tokenizer: byte-level BPE on {len(catalog)} titles")
    tokenizer = train_tokenizer(catalog, template, stand_in.vocabulary)
    with write_artifact(workspace.base_dir, kind=BASE_KIND) as draft:
        _write_tokenizer(draft.path, tokenizer)
        renderer = PromptRenderer(template, TitleTokenizer.load(draft.path), _id_of(tokenizer, END))
        lines = training_lines(catalog, split, renderer, stand_in)
        model = make_llama(stand_in, tokenizer)
        figures = _pretrain(model, lines, stand_in, pad_id=renderer.end_id, progress=progress)
        model.save_pretrained(draft.path)
        draft.body.update(
            catalog_digest=catalog.digest,
            training_data=split.training_data,
            split=workspace.settings.split,
            parameters=sum(weight.numel() for weight in model.parameters()),
            settings=vars(stand_in),
            metrics=figures,
        )
    return locate_base(workspace)


def train_tokenizer(catalog: Catalog, template: PromptTemplate, vocabulary: int) -> Tokenizer:
    """Byte-level BPE on titles and categories. The prompt's fixed pieces are special tokens, one each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    pieces = [AddedToken(piece, special=True, normalized=False) for piece in (BEGIN, END, *template.pieces)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=pieces,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*catalog.titles, *(item.category for item in catalog.items)], trainer)
    begin = _id_of(tokenizer, BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, begin)]
    )
    return tokenizer


def training_lines(
    catalog: Catalog, split: DataSplit, renderer: PromptRenderer, stand_in: StandInSettings
) -> list[list[int]]:
    """Token ids of every line: histories as plain lists, some also as prompts with answers; titles with categories.

    begin title separator title separator ... title end, cut where `line_tokens` is reached; the separator is the
    prompt's.
    """
    tokenizer = renderer.tokenizer
    start, separator, end = list(tokenizer.start_ids), tokenizer.piece_ids(renderer.template.separator), renderer.end_id
    titles = [renderer.title_ids(title) for title in catalog.titles]
    chunks = [chunk for history in split.histories for chunk in _chunks(history, titles, stand_in.line_tokens)]
    lines = []
    for chunk in chunks:
        line = list(start)
        for row in chunk:
            line.extend([*titles[row], *separator])
        lines.append([*line[: -len(separator)], end])
    # LoRA leaves embeddings alone: the prompt's own tokens have to be learned here, or an adapter cannot write them
    for chunk in chunks[:: stand_in.prompt_every]:
        *history, target = (catalog.titles[row] for row in chunk)
        prompt = renderer.render(history)
        if prompt.used:
            lines.append([*prompt.ids, *renderer.completion_ids(target)])
    for row, title in enumerate(titles):
        category = tokenizer.title_ids(catalog.category_of(row))
        lines.append([*start, *title, *separator, *category, end])
    return lines


def _chunks(history: Sequence[int], titles: Sequence[tuple[int, ...]], line_tokens: int) -> Iterator[tuple[int, ...]]:
    """Cut a history into runs of rows that take fewer than `line_tokens` tokens; a longer title stands alone."""
    chunk: list[int] = []
    room = line_tokens
    for row in history:
        if chunk and len(titles[row]) >= room:
            yield tuple(chunk)
            chunk, room = [], line_tokens
        chunk.append(row)
        room -= len(titles[row]) + 1
    if chunk:
        yield tuple(chunk)


def _id_of(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    assert found is not None  # it was trained with this token
    return found


def make_llama(stand_in: StandInSettings, tokenizer: Tokenizer) -> Any:
    """A randomly initialised Llama for this tokenizer, with tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(stand_in.seed)
    size = tokenizer.get_vocab_size()
    config = LlamaConfig(
        vocab_size=-(-size // 64) * 64,  # a multiple of 64 keeps matrix kernels on their fast path
        hidden_size=stand_in.hidden,
        intermediate_size=stand_in.hidden * 11 // 4,
        num_hidden_layers=stand_in.layers,
        num_attention_heads=stand_in.heads,
        num_key_value_heads=stand_in.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=_id_of(tokenizer, BEGIN),
        eos_token_id=_id_of(tokenizer, END),
        pad_token_id=None,
    )
    return LlamaForCausalLM(config)


def _write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END).save_pretrained(folder)


def _pretrain(
    model: Any, lines: Sequence[list[int]], stand_in: StandInSettings, *, pad_id: int, progress: Progress
) -> dict[str, float]:
    """Next-token training on the lines; returns the first and the last loss (nats per token)."""
    batches = _plan(lines, stand_in)
    optimizer = torch.optim.AdamW(model.parameters(), lr=stand_in.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    warmup = max(1, len(batches) // 20)

    def scale(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / max(1, len(batches) - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    model.train()
    losses: list[float] = []
    started = time.perf_counter()
    with progress.step("pre-train the stand-in base", len(batches)) as advance:
        for batch in batches:
            width = max(len(lines[at]) for at in batch)
            ids = torch.full((len(batch), width), pad_id)
            labels = torch.full((len(batch), width), -100)
            for row, at in enumerate(batch):
                ids[row, : len(lines[at])] = labels[row, : len(lines[at])] = torch.tensor(lines[at])
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            is_real = labels[:, 1:] != -100  # the head at real positions only
            loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[is_real]), labels[:, 1:][is_real])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise DivergedError(
                    f"pre-training: loss is {losses[-1]} at update {len(losses)}", remedy="lower its learning rate"
                )
            advance(1, loss=losses[-1])
    last = losses[-max(1, len(losses) // 20) :]
    return {
        "first_loss": losses[0],
        "last_loss": float(np.mean(last)),
        "updates": len(losses),
        "train_s": time.perf_counter() - started,
    }


def _plan(lines: Sequence[list[int]], stand_in: StandInSettings) -> list[list[int]]:
    """Batches of about `batch_tokens` tokens, lines of like length together, for all passes; shuffled."""
    draw = np.random.default_rng(stand_in.seed)
    total = sum(map(len, lines))
    budget = min(max(stand_in.passes * total, stand_in.min_tokens), stand_in.max_tokens)
    batches: list[list[int]] = []
    planned = 0
    while planned < budget:
        order = sorted(draw.permutation(len(lines)).tolist(), key=lambda at: len(lines[at]) // 16)
        one_pass: list[list[int]] = [[]]
        for at in order:
            if one_pass[-1] and (len(one_pass[-1]) + 1) * len(lines[at]) > stand_in.batch_tokens:
                one_pass.append([])
            one_pass[-1].append(at)
        for at in draw.permutation(len(one_pass)):
            if planned >= budget:
                break
            batches.append(one_pass[at])
            planned += sum(len(lines[line]) for line in one_pass[at])
    return batches
