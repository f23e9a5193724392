"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Shop = Annotated[Path, typer.Argument(metavar="SHOP", help="The workspace's folder.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the table as JSON too.")]
