"""The environment variables that vLLM reads, set before it is imported. Nothing else of ours touches them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import MutableMapping

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
