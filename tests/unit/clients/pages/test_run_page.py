from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from clients.pages.run_page import describe_run, write_run_page
from index.catalog.catalog import Catalog, Item
from index.workspace import ShopSettings, Workspace
from tests.finished_runs import publish, sft_run, soft_run
from training.recipes.soft.signs import explain_soft
from training.report.diagnosis import diagnose
from training.report.distilled_signs import describe_distilled
from training.report.finished_run import FinishedRun

CATALOG = Catalog.from_items([Item("a", "Doom"), Item("b", "<Myst>")])
SIGNS = describe_distilled(["Doom", "Doom", "<Myst>"], ["Doom", "<Myst>", "Doom"], CATALOG)


class Page(HTMLParser):
    """What a page shows, what it would load, and the rows of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value) for name, value in attributes if name in ("src", "href", "srcset")]
        assert tag not in ("script", "link", "iframe")
        self._cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        if self._cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.rows[-1][-1] += data.strip()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path, ShopSettings())


def write(workspace: Workspace, run: FinishedRun, **known: object) -> Page:
    adapter = publish(workspace, run.method, run, parents=("sft@1",) if run.method == "soft" else ())
    diagnosis = explain_soft(run, **known) if run.method == "soft" else diagnose(run, **known)
    path = workspace.reports_dir / "page.html"
    write_run_page(path, adapter, run, diagnosis, shop="'my <shop>'", light=b"light", dark=b"dark")
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_holds_the_card_the_shares_the_signs_and_the_epochs(workspace: Workspace):
    """Distilled: 2 of 3 titles distinct, 1 of 3 true; loss ratio 1.0 / 2.0; tau 0.95 is stuck, alpha 10 helps."""
    run = soft_run((1.0, 1.0, 0.1), (0.94, 0.95, 0.3), (0.94, 0.95, 0.2))
    page = write(workspace, run, parent=sft_run(0.1, 0.2), distilled=SIGNS)
    assert ["distinct titles", "0.6667", "3"] in [row[:3] for row in page.rows]
    assert ["equal to the true title", "0.3333", "3"] in [row[:3] for row in page.rows]
    assert ["nats per token", "1.0000", "2.0000", "0.500"] in page.rows
    assert ["1", "4", "1", "1", "1"] in [row[:5] for row in page.rows]
    assert "random pair" in page.text
    assert "warning: tau stuck." in page.text
    assert "softrec train soft 'my <shop>' --preset tiny --set curriculum_alpha=10" in page.text


def test_nothing_is_loaded_from_elsewhere_and_everything_is_escaped(workspace: Workspace):
    page = write(workspace, sft_run(0.2, 0.1), unknown=["<script>alert(1)</script>", "more: `softrec base SHOP`"])
    assert page.loads == ["data:image/png;base64,ZGFyaw==", "data:image/png;base64,bGlnaHQ="]
    assert "<script>alert(1)</script>" in page.text
    assert "more: softrec base 'my <shop>'" in page.text
    assert "No known sign of failure." in page.text


def test_sft_has_no_distilled_titles(workspace: Workspace):
    page = write(workspace, sft_run(0.2, 0.1))
    assert "The distilled titles" not in page.text


def test_the_card_says_what_the_run_was_made_of(workspace: Workspace):
    run = sft_run(0.1, 0.3, 0.2, seed=5, max_epochs=9)
    card = describe_run(publish(workspace, "sft", run), run)
    assert card["unlike preset tiny"] == "seed 5, max_epochs 9"
    assert card["windows"] == "train 400, validation 100, test 100, split by time"
    assert card["epochs"] == "2 of 3 is published"
    assert card["time"].startswith("30 s of updates")
    assert card["parents"] == "none"
    run = FinishedRun("sft", "sft", {"preset": "tiny"}, run.history, windows={"train": 4, "train_available": 9})
    assert describe_run(publish(workspace, "sft", run), run)["windows"] == "train 4 of 9, split by time"
