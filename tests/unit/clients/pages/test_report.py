from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from clients.pages.report import write_report
from training.measure.comparison import compare_evaluations
from training.measure.evaluation import Evaluation
from training.measure.metrics import UserBootstrap, metric_table


def evaluation(method: str, positions: list[int]) -> Evaluation:
    users = tuple(f"u{n}" for n in range(len(positions)))
    places = np.array(positions, dtype=np.int64)
    return Evaluation(
        method=method,
        adapter_id=f"{method}@1",
        decoding="greedy",
        ranking="l2",
        users=users,
        positions=places,
        metrics=metric_table(places, UserBootstrap(users)),
        on_catalog=1.0,
    )


class Cells(HTMLParser):
    """The table's cells as text, and every address that the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.loads: list[str | None] = []
        self._inside = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        if tag == "td":
            self.cells.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data.strip()


def test_the_report_shows_every_metric_escapes_names_and_loads_nothing(tmp_path: Path) -> None:
    """Of 8 windows the second method hits all at the first place and the first none: HR@1 is 0 and 1, 8 wins."""
    first, second = evaluation("<a>", [-1] * 8), evaluation("b", [0] * 8)
    comparisons = compare_evaluations(first, second)
    write_report(tmp_path / "report.html", comparisons, first, second)
    text = (tmp_path / "report.html").read_text()
    assert "<a>" not in text
    page = Cells()
    page.feed(text)
    assert page.loads == []
    assert len(page.cells) == 9 * len(comparisons)
    assert page.cells[:5] == ["HR@1", "0.0000", "1.0000", "+1.0000", "+1.0000 to +1.0000"]
    assert page.cells[6:9] == ["8", "0", "b better"]


def test_methods_that_do_not_differ_can_be_drawn(tmp_path: Path) -> None:
    first, second = evaluation("a", [0, 3]), evaluation("b", [0, 3])
    write_report(tmp_path / "report.html", compare_evaluations(first, second), first, second)
    assert "undecided" in (tmp_path / "report.html").read_text()
