"""Commands that are listed in a table and imported only when they are called."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Command(NamedTuple):
    """Where a command lives, and the extra that brings what it imports."""

    target: str
    """``module:attribute``: a function, or a typer app with commands of its own."""
    extra: str
    summary: str


def load_command(target: str) -> Any:  # typer doesn't export its command's type
    """Imports a function or a typer app and makes it a command."""
    module, _, attribute = target.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    alone = typer.Typer(add_completion=False)
    alone.command(attribute)(found)
    return typer.main.get_command(alone)


class LazyGroup(TyperGroup):
    """A group that lists its commands from a table and imports the one that is called."""

    table: ClassVar[dict[str, Command]]

    def __init__(self, **options: Any) -> None:  # typer's own options
        super().__init__(**options)
        for name, command in self.table.items():
            self.add_command(TyperCommand(name, help=command.summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Finds the called command, and imports it."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(self.table[str(name)].target), rest
