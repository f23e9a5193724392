"""Where the base model of a shop lies, and what identifies it. Imports neither torch nor transformers."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from index.artifact import MANIFEST, file_digest, read_manifest, text_digest, write_file
from index.errors import CorruptArtifactError, MissingArtifactError, SoftrecError
from index.workspace import Workspace
from training.prompt import PromptRenderer, PromptTemplate, TitleTokenizer

BASE_KIND = "base"
STAND_IN = "stand-in"

_SHARDS = "model.safetensors.index.json"
_HUB_FILES = ["*.json", "*.safetensors", "*.model"]
_IDENTIFYING = ("*.safetensors", "config.json", "tokenizer.json")
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class BaseModel:
    """A Hugging Face causal language model in a folder.

    Attributes:
        name: what people call it: a hub name, or the folder's name.
        path: the folder.
        digest: SHA-256 over weights, configuration and tokenizer.
        revision: of a hub model, the commit hash; else empty.
        training_data: of a stand-in, `DataSplit.training_data` of the split it was trained on; empty for a named base.
    """

    name: str
    path: Path
    digest: str
    revision: str = ""
    training_data: str = ""

    @property
    def setting(self) -> str:
        """The `base_model` of softrec.toml that names exactly this model."""
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @cached_property
    def end_id(self) -> int:
        """The end-of-text token that closes a completion."""
        config = json.loads((self.path / "config.json").read_bytes())
        end = config.get("eos_token_id")
        end = end[0] if isinstance(end, list) else end
        if not isinstance(end, int):
            raise SoftrecError(f"{self.path}/config.json names no eos_token_id", remedy="choose a base that has one")
        return end

    @cached_property
    def tokenizer(self) -> TitleTokenizer:
        return TitleTokenizer.load(self.path)

    def renderer(self, template: PromptTemplate) -> PromptRenderer:
        """The prompt for this base's tokenizer."""
        return PromptRenderer(template, self.tokenizer, self.end_id)


def locate_base(workspace: Workspace) -> BaseModel:
    """Find the shop's base: the model it names, or else its stand-in.

    A hub name is fetched through the hub's cache; this is the one place that may reach the network, because the user
    named the model. Its commit hash is then written into softrec.toml: `NAME@HASH` is the same model everywhere, and
    found in the cache without the network.

    Raises:
        MissingArtifactError: no stand-in yet (`softrec base`), or the named folder lacks a file.
        CorruptArtifactError: the stand-in is incomplete or changed.
        SoftrecError: the hub has no such model, or cannot be reached.
    """
    named = workspace.settings.base_model
    if not named:
        command = f"softrec base {workspace.root}"
        manifest = read_manifest(workspace.base_dir, kind=BASE_KIND, command=command)
        if "training_data" not in manifest.body:
            raise CorruptArtifactError(
                workspace.base_dir, "does not say what it was trained on", remedy=f"make it again with `{command}`"
            )
        return BaseModel(STAND_IN, workspace.base_dir, manifest.digest, training_data=manifest.body["training_data"])
    if Path(named).is_dir():
        name, revision, path = named, "", Path(named)
    else:
        name, _, revision = named.partition("@")
        path = _fetch(name, revision)
        revision = path.name
    if missing := _missing_files(path):
        command = f"softrec train sft {workspace.root} --base MODEL"
        raise MissingArtifactError(f"base model ({', '.join(missing)})", path, command=command)
    base = BaseModel(name, path, _cached_digest(path, workspace.base_digest_path), revision)
    if base.setting != named:
        _pin(workspace, base.setting)
    return base


def _fetch(name: str, revision: str) -> Path:
    """Return the folder of a hub model in the hub's cache; its name is the commit hash."""
    from huggingface_hub import snapshot_download  # heavy, and only for a named hub model

    def find(*, local_only: bool) -> Path:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=_HUB_FILES, local_files_only=local_only)
        )

    if _COMMIT.fullmatch(revision):  # what it names never changes, so a whole copy in the cache will do
        with suppress(OSError, ValueError):
            if not _missing_files(path := find(local_only=True)):
                return path
    try:
        return find(local_only=False)
    except (OSError, ValueError) as error:  # no network, no such model, no permission, no possible name
        raise SoftrecError(
            f"base model {name!r} is not a folder, and the hub did not give it ({str(error).splitlines()[0]})",
            remedy="check the name, the network and HF_TOKEN, or name a folder that holds the model",
        ) from error


def _pin(workspace: Workspace, setting: str) -> None:
    """Write the commit hash into softrec.toml, if that names this very model without one."""
    written = Workspace.open(workspace.root).settings
    if written.base_model == workspace.settings.base_model:
        workspace.write_settings(replace(written, base_model=setting))


def _missing_files(path: Path) -> list[str]:
    """Name what a base needs and the folder lacks. Weights must be safetensors: a pickle could run code."""
    needed = {"config.json", "tokenizer.json"}
    if (path / _SHARDS).is_file():
        needed.update(json.loads((path / _SHARDS).read_bytes())["weight_map"].values())
    elif not any(path.glob("*.safetensors")):
        needed.add("model.safetensors")
    return sorted(name for name in needed if not (path / name).is_file())


def _cached_digest(path: Path, cache: Path) -> str:
    """Return the folder's digest; the files are read only if their names, sizes or times changed since the last call.

    A cache that cannot be read or written costs time, nothing else.
    """
    if (path / MANIFEST).is_file():
        return read_manifest(path, kind=BASE_KIND, command="softrec base SHOP").digest
    files = sorted(file for pattern in _IDENTIFYING for file in path.glob(pattern))
    states = [(file, file.stat()) for file in files]
    seen = [[str(file.absolute()), at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino] for file, at in states]
    with suppress(OSError, ValueError, KeyError, TypeError):
        cached = json.loads(cache.read_bytes())
        if cached["files"] == seen:
            return str(cached["digest"])
    digest = text_digest(*(part for file in files for part in (file.name, file_digest(file))))
    with suppress(OSError):
        write_file(cache, json.dumps({"files": seen, "digest": digest}, indent=2).encode())
    return digest
