"""The process in which `training.generation.vllm.writer` keeps its vLLM engine.

vLLM runs inside this process and starts no other: what it does to its environment, its threads and its process group
stays here. The writer sees to it that this process ends with training's (`index.kill_with_parent`).
"""

from __future__ import annotations

import logging
import os
import signal
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from training.generation.vllm.engine import EngineOptions, TaskEngine


@dataclass(frozen=True)
class Done:
    """So many more prompts are done."""

    prompts: int


@dataclass(frozen=True)
class Failure:
    """The engine failed and the process ends."""

    reason: str


def serve(connection: Connection, base: Path, options: EngineOptions) -> None:
    """Start an engine and send None; answer each Task with some Done and its list[Generation]; end when hung up on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for training
    warnings.simplefilter("ignore")  # of torch and vllm, about themselves
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # while it is imported, too
    try:
        engine = TaskEngine(base, options)
        connection.send(None)
        while True:
            connection.send(engine.write(connection.recv(), advance=lambda prompts: connection.send(Done(prompts))))
    except (EOFError, BrokenPipeError):
        return  # hung up on
    except Exception as error:
        traceback.print_exc()
        connection.send(Failure(" ".join(f"{type(error).__name__}: {error}".split())))
