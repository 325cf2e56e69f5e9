"""Bars of a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes


def stack(axes: Axes, labels: Sequence[str], parts: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> None:
    """A bar a label, from top to bottom, each made of its ``parts`` side by side; these have a width a label."""
    left = [0.0] * len(labels)
    for name, widths in parts.items():
        axes.barh(labels, widths, left=left, color=colours[name], label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
