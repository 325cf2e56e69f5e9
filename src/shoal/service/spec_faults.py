"""What is wrong with a service file, in one line a fault: file, line, key and reason."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from shoal.service.section import Section


def describe(root: type[Section], tree: CommentedMap, fault: Any, source: str) -> str:  # pydantic's ErrorDetails
    """A line for one of pydantic's faults.

    Args:
        root: What the file was meant as.
        tree: The file, with its line numbers.
        fault: One of ``ValidationError.errors()``.
        source: The file's name.
    """
    path = [part for part in fault["loc"] if part != "[key]"]
    key = ".".join(str(part) for part in path)
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "unknown key" + _suggestion(root, path)
    line = _line(tree, path or _named(tree, message.partition(": ")[0]))
    return f"{source}:{line}: {key + ': ' if key else ''}{message}"


def line_of(tree: Any, dotted: str) -> int:  # YAML is any tree
    """Where the key stands, as far as it is there; its names may have dots, and numbers are places in a list."""
    return _line(tree, _named(tree, dotted))


def _named(tree: Any, dotted: str) -> list[Any]:
    """The path of a key that a fault of the whole file begins with; as far as there is one. Names may have dots."""
    path: list[Any] = []
    node = tree
    while dotted and isinstance(node, CommentedMap | CommentedSeq):
        keys = range(len(node)) if isinstance(node, CommentedSeq) else node
        fitting = [key for key in keys if f"{dotted}.".startswith(f"{key}.")]
        if not fitting:
            break
        path.append(key := max(fitting, key=lambda each: len(str(each))))
        dotted, node = dotted[len(str(key)) + 1 :], node[key]
    return path


def _suggestion(root: type[Section], path: list[Any]) -> str:
    known = [field.alias or name for name, field in _section(root, path).model_fields.items()]
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"


def _section(root: type[Section], path: list[Any]) -> type[Section]:
    """The section that the last part of ``path`` was meant as a key of."""
    kind: Any = root
    for part in path[:-1]:
        # In a section the part is a key, in a table such as pools a name.
        kind = _without_none(kind.model_fields[part].annotation if _is_section(kind) else get_args(kind)[-1])
    return kind if _is_section(kind) else root


def _is_section(kind: Any) -> bool:  # a type, or what stands for one
    return isinstance(kind, type) and issubclass(kind, Section)


def _without_none(kind: Any) -> Any:  # a type, or what stands for one
    arguments = get_args(kind)
    return arguments[0] if type(None) in arguments else kind


def _line(tree: CommentedMap, path: list[Any]) -> int:
    node: Any = tree
    line = 1
    for part in path:
        try:
            line = (node.lc.key(part) if isinstance(node, CommentedMap) else node.lc.item(part))[0] + 1
            node = node[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line
