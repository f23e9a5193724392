"""The report of an offline comparison as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clients.pages.pages import render_page
from index.artifact import write_file
from training.measure.comparison import Comparison
from training.measure.evaluation import Evaluation


def write_report(path: Path, comparisons: Sequence[Comparison], first: Evaluation, second: Evaluation) -> None:
    """Write the report. The chart's scale is the largest end of any interval."""
    ends = [abs(end) for row in comparisons for end in (row.difference.low, row.difference.high)]
    page = render_page(
        "compare.html",
        first=first.method,
        second=second.method,
        windows=len(first.positions),
        users=len(set(first.users)),
        rows=comparisons,
        reach=max(ends, default=0.0) or 1.0,
        methods=[first, second],
    )
    write_file(path, page)
