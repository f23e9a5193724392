"""What a caller or a light process imports stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "vllm", "peft", "accelerate", "sentence_transformers", "faiss")
MODULES = (
    "serving.schema",
    "training.prompt",
    "training.adapter",
    "training.base_model",
    "training.recipes.methods",
    "training.generation.vllm.environment",
    "clients.http.client",
    "clients.cli",
)


@pytest.mark.parametrize("module", MODULES)
def test_importing_it_loads_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["clients.http.client", "serving.schema"])
def test_the_client_needs_only_what_the_base_install_brings(module):
    """pydantic and httpx; numpy, pyarrow and the rest come with the extras."""
    unwanted = ("numpy", "pyarrow", "tokenizers", "redis")
    code = f"import sys, {module}; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
