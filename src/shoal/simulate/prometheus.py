"""What a Prometheus knows, by its HTTP API: https://prometheus.io/docs/prometheus/latest/querying/api/."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

from shoal.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_SECONDS = 30
_MOST_BYTES = 2**26


def is_address(text: str) -> bool:
    """Whether it is a URL that ``get`` takes."""
    return urlsplit(text).scheme in {"http", "https"}


def get(url: str, option: str) -> bytes:
    """What answers at a URL; ``option`` is the one that named it, for errors.

    Raises:
        ConfigurationError: the URL is none, or answers an error.
        Unavailable: nothing answers there.
    """
    if not is_address(url):
        raise ConfigurationError(f"{option}: must start with http:// or https://")
    try:
        with urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - http and https alone, see above
            body: bytes = answer.read(_MOST_BYTES)
    except HTTPError as error:
        raise ConfigurationError(f"{option}: {_reason(error)}") from error
    except (URLError, OSError) as error:
        raise Unavailable(f"{option}: nothing answers: {getattr(error, 'reason', error)}") from error
    return body


def ask(url: str, option: str, kind: str, question: Mapping[str, object]) -> bytes:
    """The answer to a query; ``kind`` is ``query`` or ``query_range``. Raises as ``get``."""
    return get(f"{url.rstrip('/')}/api/v1/{kind}?{urlencode(question)}", option)


def series(body: bytes, option: str, wanted: str) -> list[Any]:
    """The series of an answer; ``wanted`` is its type, ``vector`` or ``matrix``.

    Raises:
        ConfigurationError: it is none, or tells of an error.
    """
    try:
        answer = json.loads(body)
        if answer["status"] != "success":
            raise ConfigurationError(f"{option}: {answer.get('error', 'the query failed')}")
        if answer["data"]["resultType"] != wanted:
            raise ConfigurationError(f"{option}: answered a {answer['data']['resultType']}, expected a {wanted}")
        return list(answer["data"]["result"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise foreign(option) from error


def foreign(option: str) -> ConfigurationError:
    """What answered is something else."""
    return ConfigurationError(f"{option}: the answer is none of Prometheus' HTTP API")


def _reason(error: HTTPError) -> str:
    try:
        told = str(json.loads(error.read(_MOST_BYTES))["error"])
    except (ValueError, KeyError, TypeError):
        told = error.reason
    return f"answers {error.code}: {told}"
