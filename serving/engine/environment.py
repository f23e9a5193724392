"""Environment of the engine's process alone: its threads, and a folder for its sockets."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path


def engine_threads(environ: Mapping[str, str]) -> int:
    """Return the number of OpenMP threads of the engine's process on the CPU; it leaves one core to the server.

    With a thread on every core they spin-wait for each other and for the server: on two busy cores a request took 300
    to 1500 ms with two threads and 67 with one. vLLM tries to set one thread itself, but its call has no effect in a
    single engine process. A smaller `OMP_NUM_THREADS` wins.
    """
    most = max(1, len(os.sched_getaffinity(0)) - 1)
    asked = environ.get("OMP_NUM_THREADS", "")
    return min(int(asked), most) if asked.isdigit() and int(asked) > 0 else most


@contextmanager
def starting_engine(environ: MutableMapping[str, str], *, threads: int | None) -> Iterator[Path]:
    """Set the variables that only the engine's process inherits, while the context is open.

    They are its number of threads, vLLM's first model runner (on a GPU the second would not run
    `serving.engine.logits`), and a folder for vLLM's sockets, which vLLM never removes. Yields the folder. After an
    error it removes the folder, else the caller does.
    """
    folder = Path(tempfile.mkdtemp(prefix="softrec-vllm-"))
    inherited = {"VLLM_RPC_BASE_PATH": str(folder), "VLLM_USE_V2_MODEL_RUNNER": "0"} | (
        {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    )
    before = {name: environ.get(name) for name in inherited}
    environ.update(inherited)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        for name, value in before.items():
            if value is None:
                del environ[name]
            else:
                environ[name] = value
