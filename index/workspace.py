"""The workspace: one folder per shop, and where everything in it lies.

It lives in the lowest room because all four read it. It knows paths and the shop's few settings, nothing of their
content.
"""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import tomli_w

from index.artifact import write_file
from index.errors import InputError, MissingArtifactError, Problem

Split = Literal["time", "leave-last-out"]
SETTINGS_FILE = "softrec.toml"


@dataclass(frozen=True)
class ShopSettings:
    """The shop's settings, from `softrec init` and `softrec train --base`.

    Attributes:
        noun: what the shop offers, singular: "movie".
        verb: what users did with it, past participle: "watched".
        split: "time" by a global time, or "leave-last-out" for a log that has only each user's order.
        encoder: the index's title encoder: "minilm", "base", a hub name or a folder.
        base_model: a pretrained base: a folder, or a hub name, to which its first use appends the commit, NAME@HASH;
            empty: the stand-in base under `base/`.
    """

    noun: str = "item"
    verb: str = "bought"
    split: Split = "time"
    encoder: str = "minilm"
    base_model: str = ""


@dataclass(frozen=True)
class Workspace:
    """A shop's folder. Open one with `Workspace.open`, make one with `Workspace.create`."""

    root: Path
    settings: ShopSettings

    @classmethod
    def create(cls, root: Path, settings: ShopSettings) -> Workspace:
        """Write `softrec.toml` with the settings that differ from the defaults. Touches nothing else."""
        workspace = cls(root, settings)
        workspace.write_settings(settings)
        return workspace

    @classmethod
    def open(cls, root: Path) -> Workspace:
        """Open the workspace at `root`.

        Raises:
            MissingArtifactError: there is no `softrec.toml`.
            InputError: `softrec.toml` is not TOML, or holds a setting that does not exist.
        """
        path = root / SETTINGS_FILE
        if not path.is_file():
            raise MissingArtifactError("workspace (softrec.toml)", root, command=init_command(root))
        return cls(root, _parse_settings(path))

    def write_settings(self, settings: ShopSettings) -> None:
        """Replace `softrec.toml`."""
        default = asdict(ShopSettings())
        changed = {name: value for name, value in asdict(settings).items() if value != default[name]}
        write_file(self.root / SETTINGS_FILE, tomli_w.dumps({"shop": changed}).encode())

    @property
    def catalog_path(self) -> Path:
        return self.root / "catalog.parquet"

    @property
    def changes_path(self) -> Path:
        """The journal of what was changed in the catalog since it was imported."""
        return self.root / "catalog_changes.db"

    @property
    def interactions_path(self) -> Path:
        return self.root / "interactions.parquet"

    @property
    def rejects_dir(self) -> Path:
        return self.root / "rejects"

    @property
    def base_dir(self) -> Path:
        """The stand-in base; unused when the shop names a `base_model`."""
        return self.root / "base"

    @property
    def base_digest_path(self) -> Path:
        """The digest of a named base, and the sizes and times of the files that it was computed from."""
        return self.root / "base_digest.json"

    @property
    def adapters_dir(self) -> Path:
        return self.root / "adapters"

    def adapter_dir(self, name: str) -> Path:
        return self.adapters_dir / name

    def run_dir(self, name: str) -> Path:
        """Where an unfinished run of that adapter keeps its checkpoint and its log."""
        return self.root / "runs" / name

    @property
    def distilled_path(self) -> Path:
        return self.root / "distilled.parquet"

    @property
    def index_dir(self) -> Path:
        return self.root / "index"

    @property
    def events_path(self) -> Path:
        return self.root / "events.db"

    @property
    def reports_dir(self) -> Path:
        return self.root / "reports"


def init_command(root: Path) -> str:
    """Return the command that makes a workspace's catalog and log, or makes them again, as a shell takes it."""
    force = " --force" if (root / SETTINGS_FILE).exists() else ""
    return f"softrec init {shlex.quote(str(root))} --items items.csv --interactions interactions.csv{force}"


def _parse_settings(path: Path) -> ShopSettings:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, [Problem(None, str(error))], remedy="mend the file") from error
    shop = content.get("shop", {})
    known = [setting.name for setting in fields(ShopSettings)]
    problems = [Problem(None, f"unknown section [{name}]") for name in content if name != "shop"]
    problems += [Problem(None, f"unknown setting shop.{name}") for name in shop if name not in known]
    problems += [
        Problem(None, f"shop.{name} must be text, got {value!r}")
        for name, value in shop.items()
        if name in known and not isinstance(value, str)
    ]
    if (split := shop.get("split", "time")) not in get_args(Split):
        problems.append(Problem(None, f"shop.split must be one of {', '.join(get_args(Split))}, got {split!r}"))
    if problems:
        raise InputError(path, problems, remedy=f"known settings of [shop]: {', '.join(known)}")
    return ShopSettings(**shop)
