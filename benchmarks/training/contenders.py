"""Who is measured: our update, the plain update, transformers' Trainer. Each trains on updates and says how long.

An update is collation, forward, backward, clipping and AdamW, with the same settings for all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.training.clock import seconds
from benchmarks.training.oracle import plain_batch, plain_soft_loss, plain_title_loss
from benchmarks.training.shapes import Shape
from training.loop.update import Updater
from training.model.batches import Sample
from training.model.language_model import CompletionScorer
from training.parallel.processes import Processes
from training.recipes.sft.recipe import sft_loss
from training.recipes.soft.recipe import DISTILLED, REAL, soft_loss

TAU = 0.6

Updates = Sequence[Sequence[Sample]]
Contender = Callable[[Updates], float]  # trains on the updates; returns seconds for all of them


def our_soft(shape: Shape, device: str = "cpu") -> Contender:
    """`training.loop.update` with SOFT's loss: one forward for both titles."""
    return _ours(shape, partial(soft_loss, tau=TAU), (DISTILLED, REAL), device)


def our_sft(shape: Shape, device: str = "cpu") -> Contender:
    """`training.loop.update` with SFT's loss."""
    return _ours(shape, sft_loss, (0,), device)


def _ours(shape: Shape, loss: Any, slots: tuple[int, ...], device: str) -> Contender:
    processes = Processes(Accelerator(mixed_precision="no", cpu=device == "cpu"))
    updater = Updater(processes, CompletionScorer(shape.make_model(device)), shape.settings)
    return _timed(lambda samples: updater.update(loss, slots, samples, step=1))


def plain_soft(shape: Shape, device: str = "cpu") -> Contender:
    """The oracle's two forwards with SOFT's loss."""
    return _plain(shape, partial(plain_soft_loss, tau=TAU), device)


def plain_sft(shape: Shape, device: str = "cpu") -> Contender:
    """The oracle's one forward with SFT's loss."""
    return _plain(shape, partial(plain_title_loss, slot=0), device)


def _plain(shape: Shape, loss: Callable[..., Any], device: str) -> Contender:
    settings, model = shape.settings, shape.make_model(device).train()
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=settings.learning_rate, weight_decay=0.0)

    def update(samples: Sequence[Sample]) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(model, samples).backward()
        torch.nn.utils.clip_grad_norm_(learning, settings.max_grad_norm)
        optimizer.step()

    return _timed(update)


def _timed(update: Callable[[Sequence[Sample]], object]) -> Contender:
    def train(updates: Updates) -> float:
        started = seconds()
        for samples in updates:
            update(samples)
        return seconds() - started

    return train


def trainer_sft(shape: Shape, device: str = "cpu") -> Contender:
    """transformers' Trainer on the same samples in the same order; its logging, saving and evaluation off.

    Timed from `on_train_begin`, when its preparations are over, to the end of the last step.
    """
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.started = seconds()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.taken = seconds() - self.started

    settings, model = shape.settings, shape.make_model(device)

    def train(updates: Updates) -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                model=model,
                args=TrainingArguments(
                    output_dir=folder,
                    per_device_train_batch_size=shape.micro_batch,
                    max_steps=len(updates),
                    learning_rate=settings.learning_rate,
                    lr_scheduler_type="constant",
                    weight_decay=0.0,
                    max_grad_norm=settings.max_grad_norm,
                    train_sampling_strategy="sequential",
                    remove_unused_columns=False,
                    logging_strategy="no",
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    use_cpu=device == "cpu",
                ),
                train_dataset=[sample for samples in updates for sample in samples],
                data_collator=partial(plain_batch, slot=0),
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return clock.taken

    return train
