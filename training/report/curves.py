"""A run's curves as one picture.

matplotlib is imported when a picture is drawn, and without pyplot: nothing global, no window, any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from training.report.finished_run import FinishedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart with any colour vision; light enough on dark, dark enough on white
DISTILLED, REAL, OTHER = "#e69f00", "#0b7fbd", "#009e73"


@dataclass(frozen=True)
class Theme:
    """Colours of a page: what is written, what it is written on, and what should step back."""

    ink: str
    paper: str
    faint: str


LIGHT, DARK = Theme("#1b1b1f", "#ffffff", "#d5d5dc"), Theme("#ececf1", "#17171a", "#3a3a42")


def draw_curves(run: FinishedRun, theme: Theme = LIGHT) -> bytes:
    """Draw a run as PNG, 1100 pixels wide; the x-axis of every panel is the number of epochs done.

    Panels: training loss per update, distilled beside true titles ; d_t / d_0 and
    tau at every measurement; validation HR@10 with its standard error; validation loss. A panel without data is left
    out. The published epoch is ringed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: list[Callable[[Axes, FinishedRun, Theme], None]] = [_draw_training_loss]
    panels += [_draw_curriculum] if run.distances() else []
    panels += [_draw_hit_ratio]
    panels += [_draw_validation_loss] if any("validation_loss" in row for row in run.history) else []
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(10, 3.1 * rows), dpi=110, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)  # inches
    grid = figure.add_gridspec(rows, 2)
    for at, draw in enumerate(panels):
        is_alone = len(panels) % 2 == 1 and at == 0
        place = grid[0, :] if is_alone else grid[divmod(at + len(panels) % 2, 2)]
        axes = figure.add_subplot(place)
        _prepare(axes, run, theme)
        draw(axes, run, theme)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # the same run gives the same bytes
    return buffer.getvalue()


def _prepare(axes: Axes, run: FinishedRun, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.ink, labelsize=9, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.ink)
    for epoch in range(len(run.history) + 1):
        axes.axvline(epoch, color=theme.faint, linewidth=0.8, zorder=0)
    axes.set_xlim(-0.03 * len(run.history), 1.03 * len(run.history))
    axes.set_xlabel("epochs done", color=theme.ink, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _label(axes: Axes, theme: Theme, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=theme.ink)
    axes.set_ylabel(unit, color=theme.ink, fontsize=9)


def _explain(axes: Axes, theme: Theme, place: Literal["upper right", "best"]) -> None:
    legend = axes.legend(loc=place, fontsize=9, labelcolor=theme.ink, handlelength=1.6, facecolor=theme.paper)
    legend.get_frame().set_linewidth(0)


def _draw_training_loss(axes: Axes, run: FinishedRun, theme: Theme) -> None:
    updates = run.updates()
    _label(axes, theme, "Training loss" + (" per update" if updates else ", mean over each epoch"), "nats per token")
    # an epoch's mean stands in its middle
    rows = updates or [(float(row["epoch"]) - 0.5, row) for row in run.history]
    for name, label, color in (("loss_distilled", "distilled titles", DISTILLED), ("loss_real", "true titles", REAL)):
        points = [(at, float(row[name])) for at, row in rows if name in row]
        if not points:
            continue
        x, y = (np.array(values) for values in zip(*points, strict=True))
        if updates:
            axes.plot(x, y, color=color, linewidth=0.6, alpha=0.35)
            axes.plot(x, smooth(y), color=color, linewidth=1.8, label=label)
        else:
            axes.plot(x, y, color=color, linewidth=1.4, marker="o", markersize=5, label=label)
    _explain(axes, theme, "upper right")


def smooth(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Centred mean over a twentieth of the values, at least 5; shorter at the ends.

    Example:
        >>> smooth(np.array([0.0, 3.0, 0.0, 3.0, 9.0])).tolist()  # means of 3, 4, 5, 4, 3 values
        [1.0, 1.5, 3.0, 3.75, 4.0]
    """
    half = max(2, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.minimum(np.arange(len(values)) + half + 1, len(values))
    starts = np.maximum(np.arange(len(values)) - half, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def _draw_curriculum(axes: Axes, run: FinishedRun, theme: Theme) -> None:
    distances = run.distances()
    positions = [distance.position for distance in distances]
    _label(axes, theme, "Curriculum", "ratio, weight")
    axes.plot(
        positions,
        [distance.ratio for distance in distances],
        color=OTHER,
        linewidth=1.4,
        marker="o",
        markersize=5,
        label="$d_t$ / $d_0$",
    )
    # tau holds until the next measurement
    taus = [distance.tau for distance in distances]
    axes.step(
        [*positions, float(len(run.history))],
        [*taus, taus[-1]],
        where="post",
        color=DISTILLED,
        linewidth=1.8,
        label="τ, weight of the distilled titles",
    )
    axes.set_ylim(0, 1.08 * axes.get_ylim()[1])  # from 0: a curriculum that hardly moves looks like it
    _explain(axes, theme, "best")


def _draw_hit_ratio(axes: Axes, run: FinishedRun, theme: Theme) -> None:
    values = [float(row["validation_hr10"]) for row in run.history]
    n = run.windows.get("validation")
    over = "" if n is None else f", {n} windows, ± 1 standard error"
    _label(axes, theme, f"Validation HR@10{over}", "share of windows")
    errors = None if n is None else [float(np.sqrt(value * (1 - value) / n)) for value in values]
    axes.errorbar(
        range(1, len(values) + 1),
        values,
        yerr=errors,
        color=REAL,
        ecolor=(REAL, 0.35),
        elinewidth=2.5,
        linewidth=1.4,
        marker="o",
        markersize=5,
    )
    highest = max(value + error for value, error in zip(values, errors or [0.0] * len(values), strict=True))
    axes.set_ylim(0, 1.25 * highest or 1)  # room for the legend
    _ring_published(axes, run, values, theme)


def _draw_validation_loss(axes: Axes, run: FinishedRun, theme: Theme) -> None:
    values = [float(row.get("validation_loss", np.nan)) for row in run.history]
    _label(axes, theme, "Validation loss, true titles", "nats per token")
    axes.plot(range(1, len(values) + 1), values, color=REAL, linewidth=1.4, marker="o", markersize=5)
    _ring_published(axes, run, values, theme)


def _ring_published(axes: Axes, run: FinishedRun, values: Sequence[float], theme: Theme) -> None:
    at = run.best_epoch
    axes.plot(
        at,
        values[at - 1],
        linestyle="none",
        marker="o",
        markersize=12,
        markerfacecolor="none",
        markeredgecolor=theme.ink,
        label="published epoch",
    )
    _explain(axes, theme, "best")
