"""What a token's signature is checked with: issuers' key sets from files, and who vouches for those at a URL."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from shoal.errors import ConfigurationError
from shoal.runtime import intake

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from shoal.service.tokens import TokenIssuer

_PUBLIC: Final = {"RSA", "EC", "OKP"}
"""Kinds of keys (https://www.rfc-editor.org/rfc/rfc7518#section-6.1) that check what they can't sign."""


class KeySource(NamedTuple):
    """Of one issuer."""

    jwks: str = ""
    """Its key set; empty: Envoy fetches it."""
    authorities: str = ""
    """Certificates in PEM, by which its URL is trusted; empty: there is none, or it isn't https."""


def read(tokens: Mapping[str, TokenIssuer]) -> dict[str, KeySource]:
    """The source of each issuer.

    Raises:
        ConfigurationError: a file can't be read, or isn't what it should be. No key is in the text.
    """
    return {name: _source(f"router.tokens.{name}", issuer) for name, issuer in tokens.items()}


def files(tokens: Mapping[str, TokenIssuer]) -> Iterator[Path]:
    """Those that ``read`` reads and that may change."""
    for issuer in tokens.values():
        yield from (intake.expanded(file) for file in (issuer.jwks_file, issuer.ca_file) if file is not None)


def _source(where: str, issuer: TokenIssuer) -> KeySource:
    if issuer.jwks_file is not None:
        return KeySource(jwks=_key_set(f"{where}.jwks_file", intake.expanded(issuer.jwks_file)))
    if (issuer.jwks_url or "").startswith("https://"):
        return KeySource(authorities=authorities(f"{where}.ca_file", issuer.ca_file))
    return KeySource()


def _key_set(where: str, path: Path) -> str:
    text = _text(where, path)
    try:
        document = intake.parse_json(text, unique=True)
    except ValueError:
        raise ConfigurationError(f"{where}: {path}: not JSON, nested too deep, or with a name twice") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not keys:
        raise ConfigurationError(f'{where}: {path}: expected {{"keys": [...]}} with a key or more')
    for number, key in enumerate(keys, 1):
        if fault := _fault(key):
            raise ConfigurationError(f"{where}: {path}: key {number} {fault}")
    return json.dumps({"keys": keys})


def _fault(key: Any) -> str:  # any JSON value
    """What is wrong with a key, empty if nothing is."""
    kind = key.get("kty") if isinstance(key, dict) else None
    if kind == "oct":
        return "is a shared secret (kty oct): whoever checks with it can sign as well; name the issuer's public keys"
    if kind not in _PUBLIC:
        return f"has no kty that is known: {', '.join(sorted(_PUBLIC))}"
    return "is a private key: leave out d, and have the issuer change it, since it was here" if "d" in key else ""


def authorities(where: str, file: str | None) -> str:
    """The content of ``file``; None: of the system's.

    Raises:
        ConfigurationError: it can't be read, or the system has none.
    """
    if file is not None:
        return _text(where, intake.expanded(file))
    usual = ssl.get_default_verify_paths().cafile
    if usual is None:
        raise ConfigurationError(f"{where}: this system has no file of authorities; name one")
    return _text(where, intake.expanded(usual))


def _text(where: str, path: Path) -> str:
    try:
        return intake.read_text(path, intake.LIST_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{where}: {path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{where}: {path}: {intake.not_utf8(error)}") from None
