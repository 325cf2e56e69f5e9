"""Changes a few fields of a config.pbtxt as text: its comments, its order and everything else stay.

What came of it is parsed and held against the message that was meant, so a text that is put together in some unusual
way is refused rather than spoilt.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.protobuf import text_format

from shoal.errors import ConfigurationError
from shoal.modelconfig import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN: Final = re.compile(
    r"""\#[^\n]* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | [A-Za-z0-9_.+-]+ | [{}<>\[\]:,;]""", re.VERBOSE
)
_OPEN, _CLOSE = frozenset("{<["), frozenset("}>]")


class _Field(NamedTuple):
    """A field and its value, as places in the text."""

    name: str
    begin: int
    value: int
    """Where its value begins."""
    end: int


def with_batching(text: str, *, instances: int, batch: int) -> str:
    """The text of a config.pbtxt with so many instances and batches of that size.

    Sets ``max_batch_size``, the count of its one ``instance_group`` and, where it has any,
    ``dynamic_batching.preferred_batch_size``.

    Raises:
        ConfigurationError: it has several instance groups, or is written so that the change can't be made safely.
    """
    from tritonclient.grpc import model_config_pb2  # see pbtxt.load

    wanted = text_format.Parse(text, model_config_pb2.ModelConfig())
    if len(wanted.instance_group) > 1:
        raise ConfigurationError("it has several instance groups, and only you know which of them is to change")
    if keys.LANES in wanted.parameters:
        raise ConfigurationError(f"it has lanes: set max_batch_size {batch} and {keys.LANES} {instances} by hand")
    prefers = bool(wanted.dynamic_batching.preferred_batch_size)
    wanted.max_batch_size = batch
    (wanted.instance_group[0] if wanted.instance_group else wanted.instance_group.add()).count = instances
    if prefers:
        del wanted.dynamic_batching.preferred_batch_size[:]
        wanted.dynamic_batching.preferred_batch_size.append(batch)
    changed = _set(text, "max_batch_size", str(batch))
    changed = _set_inside(changed, "instance_group", "count", str(instances))
    if prefers:
        changed = _set_inside(changed, "dynamic_batching", "preferred_batch_size", f"[{batch}]")
    if not _means(changed, wanted):
        raise ConfigurationError(
            f"it is written in a way that can't be changed safely; set max_batch_size {batch} and instance_group count "
            f"{instances} by hand"
        )
    return changed


def _means(text: str, wanted: Any) -> bool:  # a protobuf message
    try:
        return bool(text_format.Parse(text, type(wanted)()) == wanted)
    except text_format.ParseError:
        return False


def _set(text: str, name: str, value: str) -> str:
    """With the field of the message that ``text`` is; added at its end where it is missing."""
    found = [field for field in _fields(text, 0, len(text)) if field.name == name]
    if not found:
        return f"{text.rstrip()}\n{name}: {value}\n"
    return f"{text[: found[0].value]}{value}{text[found[0].end :]}"


def _set_inside(text: str, message: str, name: str, value: str) -> str:
    """The same for a field of a message of it; repeated statements become one."""
    found = next((field for field in _fields(text, 0, len(text)) if field.name == message), None)
    if found is None:
        return f"{text.rstrip()}\n{message} {{ {name}: {value} }}\n"
    begin = text.find("{", found.value, found.end) + 1
    end = text.rfind("}", begin, found.end)
    if not begin or end < begin:
        return text  # written with < and >, say
    inside = [field for field in _fields(text, begin, end) if field.name == name]
    if not inside:
        return f"{text[:begin]} {name}: {value}{text[begin:]}"
    for extra in reversed(inside[1:]):
        text = f"{text[: extra.begin].rstrip()}{text[extra.end :]}"
    return f"{text[: inside[0].value]}{value}{text[inside[0].end :]}"


def _fields(text: str, begin: int, end: int) -> Iterator[_Field]:
    """The fields between two places, without those inside their values."""
    tokens = [token for token in _TOKEN.finditer(text, begin, end) if not token[0].startswith("#")]
    place = 0
    while place < len(tokens):
        name = tokens[place]
        place += 1
        if name[0] in {",", ";"}:
            continue
        if place < len(tokens) and tokens[place][0] == ":":
            place += 1
        if place == len(tokens):
            return
        value, depth = tokens[place], 0
        while place < len(tokens):
            depth += (tokens[place][0] in _OPEN) - (tokens[place][0] in _CLOSE)
            place += 1
            if depth == 0:
                break
        yield _Field(name[0], name.start(), value.start(), tokens[place - 1].end())
