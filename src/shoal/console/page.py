"""The page's files, as they are in ``static``, and the headers that bound what a browser does with them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from shoal.service.spec import ObjectStore

FOLDER: Final = "/console/"
"""Where the page's parts are; the page itself is at ``/``."""
_STATIC: Final = Path(__file__).parent / "static"
_INDEX: Final = "index.html"
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


class File(NamedTuple):
    """One of the page's files."""

    content_type: str
    text: str


@cache
def files() -> dict[str, File]:
    """Path to file."""
    found = sorted(path for path in _STATIC.iterdir() if path.suffix in _TYPES)
    return {
        "/" if path.name == _INDEX else FOLDER + path.name: File(
            f"{_TYPES[path.suffix]}; charset=utf-8", path.read_text(encoding="utf-8")
        )
        for path in found
    }


def headers(store: ObjectStore) -> dict[str, str]:
    """What goes with each file: nothing runs but its own scripts, and nobody else is told or shows it.

    https://www.w3.org/TR/CSP3/, https://www.w3.org/TR/trusted-types/
    """
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": " ".join(("'self'", *store_origins(store))),
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }


def store_origins(store: ObjectStore) -> tuple[str, ...]:
    """Where presigned URLs lead, as far as the service file tells: pictures go there from the page itself.

    To a store that ``shoal up`` runs they go through the router.
    """
    if store.runs_locally:
        return ()
    if store.endpoint is not None:
        url = urlsplit(store.endpoint)
        return (f"{url.scheme}://{url.netloc}",)
    match urlsplit(store.url).scheme:
        case "s3":
            bucket = urlsplit(store.url).netloc
            return (f"https://s3.{store.region}.amazonaws.com", f"https://{bucket}.s3.{store.region}.amazonaws.com")
        case "gs":
            return ("https://storage.googleapis.com",)
        case "az":
            return ("https://*.blob.core.windows.net",)
    return ()
