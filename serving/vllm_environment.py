"""The environment variables that vLLM reads, set before it is imported. Nothing else of ours touches them."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path

_ALWAYS = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_PLUGINS": "",  # load no third party's plug-in
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CONFIGURE_LOGGING": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore::FutureWarning:vllm.triton_utils.dispatcher",  # one of torch's, met by vllm's import
}

_ON_CPU = {
    # One engine process instead of an engine and a worker: the start takes 10 s instead of 28, and 0.7 GB less.
    # The price is vLLM's own thread binding, which would pin to one core of two; unset both to bind on a large host.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # vLLM compiles its log-probability kernels even under enforce_eager: 17 s within the first request, and a C++
    # compiler needed at run time.
    "TORCHDYNAMO_DISABLE": "1",
}


def runs_on_cpu() -> bool:
    """Tell whether the installed vLLM is the CPU build. Imports nothing heavy."""
    try:
        return "cpu" in importlib.metadata.version("vllm").split("+")[-1]
    except importlib.metadata.PackageNotFoundError:
        return True  # the CPU build's distribution is called vllm-cpu


def prepare_environment(environ: MutableMapping[str, str], *, on_cpu: bool) -> None:
    """Fill in vLLM's variables; what the operator set stays."""
    for name, value in {**_ALWAYS, **(_ON_CPU if on_cpu else {})}.items():
        environ.setdefault(name, value)


def engine_threads(environ: Mapping[str, str]) -> int:
    """Return how many OpenMP threads the engine's process should have on the CPU: one core is left to the server.

    With a thread on every core they spin-wait for each other and for the server: on two busy cores a request took 300
    to 1500 ms with two threads and 67 with one. vLLM means to use one thread itself, but its call to say so has no
    effect in a single engine process. A smaller `OMP_NUM_THREADS` is obeyed.
    """
    most = max(1, len(os.sched_getaffinity(0)) - 1)
    asked = environ.get("OMP_NUM_THREADS", "")
    return min(int(asked), most) if asked.isdigit() and int(asked) > 0 else most


@contextmanager
def starting_engine(environ: MutableMapping[str, str], *, threads: int | None) -> Iterator[Path]:
    """Set what only the engine's process shall inherit, while the context is open.

    That is its number of threads, and a folder of its own for vLLM's sockets, which vLLM never removes. The folder is
    given; it is removed if the context is left by an error, else it is the caller's.
    """
    folder = Path(tempfile.mkdtemp(prefix="softrec-vllm-"))
    inherited = {"VLLM_RPC_BASE_PATH": str(folder)} | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
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
