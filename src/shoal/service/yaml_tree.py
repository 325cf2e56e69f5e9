"""YAML from somebody else's hand: bounded in size, depth and in what its aliases stand for, before a tree is built.

A few hundred bytes of aliases of aliases stand for billions of nodes, and the parser's time grows with the square of
the depth. The events of the text tell of both, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

from shoal.errors import ConfigurationError
from shoal.runtime.intake import TEXT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_NODES: Final = 50_000
"""Keys and values, each alias counted as what it stands for."""
DEEPEST: Final = 32
"""Levels; a service file has ten."""


def load(text: str, source: str) -> CommentedMap | None:
    """The mapping that ``text`` is, with its lines; None if it is empty.

    Raises:
        ConfigurationError: it is no mapping or over a limit; the message names ``source`` and the line.
    """
    if len(text.encode()) > TEXT_BYTES:
        raise ConfigurationError(f"{source}: is larger than {TEXT_BYTES:,} bytes")
    try:
        _Bounds(source).check(YAML(typ="safe", pure=True).parse(text))
        reader = YAML(typ="rt")
        reader.composer.warn_double_anchors = False  # YAML lets an anchor be defined anew
        tree = reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigurationError(f"{where}: {(error.problem or 'not YAML').splitlines()[0]}") from error
    except YAMLError as error:
        raise ConfigurationError(f"{source}: not YAML: {error}") from error
    except ValueError as error:  # a scalar that is no date or number after all, such as 2026-13-01
        raise ConfigurationError(f"{source}: a value can't be read: {error}") from error
    if tree is not None and not isinstance(tree, CommentedMap):
        raise ConfigurationError(
            f"{source}:1: expected a mapping, such as the sections pools: and router: of a service file"
        )
    return tree


class _Size(NamedTuple):
    """What an anchor stands for."""

    nodes: int
    levels: int
    """0 for a scalar."""


@dataclass(slots=True)
class _Collection:
    """One that isn't at its end yet."""

    anchor: str | None
    before: int
    """Nodes before it."""
    levels: int = 1
    """Its own and those seen in it."""


class _Bounds:
    """Counts the nodes that a text stands for, as its events come."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._nodes = 0
        self._open: list[_Collection] = []
        self._sizes: dict[str, _Size] = {}

    def check(self, events: Iterable[Any]) -> None:
        """Raises ConfigurationError at the first event that is over a limit."""
        for event in events:
            if isinstance(event, CollectionEndEvent):
                ended = self._open.pop()
                self._seen(ended.anchor, _Size(self._nodes - ended.before, ended.levels))
            elif isinstance(event, NodeEvent):
                self._node(event)

    def _node(self, event: Any) -> None:  # ruamel.yaml's events are untyped
        size = self._alias(event) if isinstance(event, AliasEvent) else _Size(1, 0)
        opens = isinstance(event, CollectionStartEvent)
        if self._nodes + size.nodes > MOST_NODES:
            raise self._fault(event, f"more than {MOST_NODES:,} keys and values, what aliases stand for included")
        if len(self._open) + max(size.levels, opens) > DEEPEST:
            raise self._fault(event, f"nested deeper than {DEEPEST} levels")
        if opens:
            self._open.append(_Collection(event.anchor, self._nodes))
        self._nodes += size.nodes
        if not opens:
            self._seen(event.anchor, size)

    def _alias(self, event: Any) -> _Size:  # see above
        if any(collection.anchor == event.anchor for collection in self._open):
            raise self._fault(event, f"*{event.anchor} stands for something that it is in itself")
        return self._sizes.get(event.anchor, _Size(1, 0))  # the parser itself names one that was never defined

    def _seen(self, anchor: str | None, size: _Size) -> None:
        """A node is at its end."""
        if anchor is not None:
            self._sizes[anchor] = size
        if self._open:
            self._open[-1].levels = max(self._open[-1].levels, size.levels + 1)

    def _fault(self, event: Any, text: str) -> ConfigurationError:  # see above
        return ConfigurationError(f"{self._source}:{event.start_mark.line + 1}: {text}")
