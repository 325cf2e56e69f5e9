"""A progress bar for ``map()``."""

from __future__ import annotations

from collections.abc import Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from shoal.client.results import Outcome


@contextmanager
def tracked(
    images: Iterable[object], progress: Progress | bool, description: str
) -> Iterator[Callable[[Outcome[object]], None]]:
    """Shows how many of ``images`` are done: on a bar of its own (True), as a task of a caller's one, or not at all.

    Yields:
        What to call with each outcome.
    """
    if progress is False:
        yield lambda _outcome: None
        return
    bar = _new_bar() if progress is True else progress
    total = len(images) if isinstance(images, Sized) else None
    task = bar.add_task(description, total=total, failed="")
    failed = 0

    def advance(outcome: Outcome[object]) -> None:
        nonlocal failed
        failed += outcome.error is not None
        bar.update(task, advance=1, failed=f"{failed} failed" if failed else "")

    if progress is not True:
        yield advance
        return
    with bar:
        yield advance


def _new_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failed]}"),
        console=Console(stderr=True),
    )
