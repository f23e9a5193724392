"""Where the base model of a shop lies, and what identifies it. Imports neither torch nor transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from index.artifact import MANIFEST, file_digest, read_manifest, text_digest
from index.errors import CorruptArtifactError, MissingArtifactError, SoftrecError
from index.workspace import Workspace
from training.prompt import PromptRenderer, PromptTemplate, TitleTokenizer

BASE_KIND = "base"


@dataclass(frozen=True)
class BaseModel:
    """A Hugging Face causal language model in a folder.

    Attributes:
        name: what people call it: a hub name, or the folder's name.
        path: the folder.
        digest: SHA-256 over weights, configuration and tokenizer.
        training_data: of a stand-in, `DataSplit.training_data` of the split it was trained on; empty for a named base.
    """

    name: str
    path: Path
    digest: str
    training_data: str = ""

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
    named the model.

    Raises:
        MissingArtifactError: no stand-in yet (`softrec base`).
        CorruptArtifactError: the stand-in is incomplete or changed.
    """
    named = workspace.settings.base_model
    if not named:
        command = f"softrec base {workspace.root}"
        manifest = read_manifest(workspace.base_dir, kind=BASE_KIND, command=command)
        if "training_data" not in manifest.body:
            raise CorruptArtifactError(
                workspace.base_dir, "does not say what it was trained on", remedy=f"make it again with `{command}`"
            )
        return BaseModel("stand-in", workspace.base_dir, manifest.digest, str(manifest.body["training_data"]))
    path = Path(named) if Path(named).is_dir() else _fetch(named)
    if not (path / "config.json").is_file():
        raise MissingArtifactError(
            "base model (config.json)", path, command=f"softrec train sft {workspace.root} --base MODEL"
        )
    return BaseModel(named, path, _folder_digest(path))


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download  # heavy, and only for a named hub model

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model"]))
    except (OSError, ValueError) as error:  # no network, no such model, no permission, no possible name
        raise SoftrecError(
            f"base model {name!r} is neither a folder nor to be had from the hub ({str(error).splitlines()[0]})",
            remedy="check the name, the network and HF_TOKEN, or name a folder that holds the model",
        ) from error


def _folder_digest(path: Path) -> str:
    if (path / MANIFEST).is_file():
        return read_manifest(path, kind=BASE_KIND, command="softrec base SHOP").digest
    files = sorted(
        file for pattern in ("*.safetensors", "config.json", "tokenizer.json") for file in path.glob(pattern)
    )
    return text_digest(*(part for file in files for part in (file.name, file_digest(file))))
