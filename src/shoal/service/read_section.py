"""A file that is a section: read, checked, and refused with the file, line, key and reason of each fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from shoal.errors import ConfigurationError
from shoal.runtime import intake
from shoal.service import yaml_tree
from shoal.service.section import Section
from shoal.service.spec_faults import describe, line_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from shoal.service.pipelines import Fault

S = TypeVar("S", bound=Section)
_MOST_FAULTS = 50


def load(kind: type[S], path: Path) -> S:
    """Reads the file at ``path``.

    Raises:
        ConfigurationError: naming file, line and key of each fault.
    """
    try:
        text = intake.read_text(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: {intake.not_utf8(error)}") from error
    return parse(kind, text, str(path))


def parse(kind: type[S], text: str, source: str) -> S:
    """Reads ``text``, an empty one as a section without any key; ``source`` names it in errors.

    Raises:
        ConfigurationError: as ``load``.
    """
    tree = yaml_tree.load(text, source)
    if tree is None:
        tree = CommentedMap()
    try:
        return kind.model_validate(_plain(tree))
    except ValidationError as error:
        faults = error.errors()
        told = [describe(kind, tree, fault, source) for fault in faults[:_MOST_FAULTS]]
        more = len(faults) - len(told)
        raise ConfigurationError("\n".join(told + [f"{source}: and {more:,} more"] * bool(more))) from error


def with_lines(path: Path | None, faults: Iterable[Fault]) -> list[str]:
    """Each fault with the line of its key, where the file can be read."""
    told = list(faults)
    if path is None or not told:
        return [str(fault) for fault in told]
    try:
        tree = yaml_tree.load(intake.read_text(path), str(path))
    except (OSError, UnicodeDecodeError, ConfigurationError):  # another one than was read
        tree = None
    return [f"{path}:{line_of(tree, fault.key)}: {fault}" for fault in told]


def _plain(node: Any) -> Any:  # YAML is any tree of scalars
    if isinstance(node, CommentedMap):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(value) for value in node]
    return node
