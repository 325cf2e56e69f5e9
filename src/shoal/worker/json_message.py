"""Messages that came as JSON: the router passes all of it on, so that a misspelt field is refused and not dropped."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from shoal.errors import InvalidRequest
from shoal.v1 import json_pb2

_Message = TypeVar("_Message", bound=Message)
_QUOTED = 64
"""Characters of a caller's text that an answer quotes."""


def parse(kind: type[_Message], message: bytes, *, as_json: bool) -> _Message:
    """The message that a call brings.

    Args:
        kind: What it should be.
        message: As it came.
        as_json: The router says that it came as JSON. An older router has made it a ``kind`` by itself.

    Raises:
        InvalidRequest: it is none, or its JSON has a field that ``kind`` lacks, or a value of another type.
    """
    try:
        told = json_pb2.JsonMessage.FromString(message) if as_json else None
        if told is None or not told.HasField("json"):
            return kind.FromString(message)
    except DecodeError:
        raise InvalidRequest(f"the message is not a {kind.DESCRIPTOR.full_name}") from None
    return _of(kind, json_format.MessageToDict(told.json), told.model_name)


def _of(kind: type[_Message], fields: dict[str, Any], model: str) -> _Message:
    told: dict[str, Any] = {}
    for name, value in fields.items():
        field = _names(kind).get(name)
        if field is None:
            known = ", ".join(kind.DESCRIPTOR.fields_by_name)
            raise InvalidRequest(f"{kind.DESCRIPTOR.name} has no field {quoted(name)}; it has {known}")
        if field in told:
            raise InvalidRequest(f"the JSON has {field} twice, as {name} too")
        told[field] = value
    if model:
        told["model_name"] = told.get("model_name") or model
    try:
        return json_format.ParseDict(told, kind())
    except (json_format.ParseError, ValueError) as error:
        raise InvalidRequest(f"the JSON is no {kind.DESCRIPTOR.name}: {str(error)[:200]}") from None


def _names(kind: type[Message]) -> dict[str, str]:
    """The proto's own names of fields, and those of protobuf's JSON, to the proto's own."""
    return {name: field.name for field in kind.DESCRIPTOR.fields for name in (field.json_name, field.name)}


def quoted(text: str, limit: int = _QUOTED) -> str:
    """For an answer."""
    return json.dumps(text[:limit] + ("…" if len(text) > limit else ""), ensure_ascii=False)
