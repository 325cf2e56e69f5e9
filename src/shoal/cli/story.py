"""How ``shoal explain`` draws where a request's time went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.table import Table

from shoal.explain.story import STAGES, milliseconds

if TYPE_CHECKING:
    from shoal.explain.explanation import Explanation

_BAR_COLUMNS = 40
_SHOWN_SECONDS = 0.00005


def timeline(each: Explanation) -> Table:
    """A row a stage, in order, and their sum."""
    shown = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column(no_wrap=True)
    shown.add_column(justify="right", no_wrap=True)
    shown.add_column()
    whole, begin = sum(each.stage_seconds.values()), 0.0
    for stage, seconds in each.stage_seconds.items():
        if seconds >= _SHOWN_SECONDS:
            bar = Bar(whole, begin, begin + seconds, width=_BAR_COLUMNS)
            shown.add_row(STAGES.get(stage, stage), milliseconds(seconds), bar)
        begin += seconds
    shown.add_row("sum", milliseconds(whole))
    return shown
