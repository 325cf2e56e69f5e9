"""Who may call with a token (JWT, https://www.rfc-editor.org/rfc/rfc7519) in the place of an API key."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from shoal.service.rates import a_rate_that_envoy_takes
from shoal.service.section import HttpAddress, Name, Seconds, Section

Claim = Annotated[str, Field(min_length=1, max_length=200)]
"""A claim's name, as it stands at the top of a token."""
_LEAST_REFRESH_SECONDS = 1.0


class TokenIssuer(Section):
    """Somebody whose tokens are taken, and what their claims mean."""

    issuer: Annotated[str, Field(min_length=1)]
    """What a token's ``iss`` has to be, letter by letter."""
    audiences: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    """A token's ``aud`` has to name one of these, such as ``shoal``: one that was issued for another service is
    refused."""
    jwks_file: str | None = None
    """A JSON file with the issuer's public keys (JWKS). It is watched: new keys count within a second."""
    jwks_url: HttpAddress | None = None
    """Where the issuer publishes its public keys (JWKS), ``https://…``. Name this or ``jwks_file``."""
    ca_file: str | None = None
    """A PEM file with the authorities that vouch for ``jwks_url``. None: the system's."""
    refresh_seconds: Seconds = 300.0
    """How often ``jwks_url`` is read again: a new key counts, and a withdrawn one is refused, after so long."""
    owner: Name | None = None
    """Whose calls these are, all of them. None: ``owner_claim`` says."""
    owner_claim: Claim = "sub"
    """The claim that says whose calls these are: an owner as keys have one, 1 to 63 of ``a-z 0-9 . _ -``."""
    models_claim: Claim | None = None
    """The claim that lists the models that may be called: names, or beginnings such as ``resnet*``, as a list or as one
    text with spaces. A token without it may call none. None: all models."""
    priority_claim: Claim | None = None
    """The claim that makes calls ``bulk`` where it says so. None: all are interactive."""
    requests_per_second: float = Field(default=0.0, ge=0, le=1_000_000, allow_inf_nan=False)
    """Calls of each owner at each router, over all of its tokens; more get RESOURCE_EXHAUSTED. 0: no limit."""

    @field_validator("requests_per_second")
    @classmethod
    def _rate(cls, rate: float) -> float:
        return a_rate_that_envoy_takes(rate)

    @field_validator("refresh_seconds")
    @classmethod
    def _not_all_the_time(cls, every: float) -> float:
        if every < _LEAST_REFRESH_SECONDS:
            raise ValueError(f"must be {_LEAST_REFRESH_SECONDS:g} or more")
        return every

    @field_validator("jwks_url")
    @classmethod
    def _a_host(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        try:
            fits = bool(parts.hostname) and parts.port != 0
        except ValueError:  # no number, or too large
            fits = False
        if not fits or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("must be a URL with a host, such as https://issuer.example/.well-known/jwks.json")
        return url

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.jwks_file is None) == (self.jwks_url is None):
            raise ValueError("name jwks_file or jwks_url: one of them has the issuer's public keys")
        if self.ca_file is not None and not (self.jwks_url or "").startswith("https://"):
            raise ValueError("ca_file goes with a jwks_url that begins with https://")
        return self


def one_issuer_each(tokens: dict[str, TokenIssuer]) -> dict[str, TokenIssuer]:
    """``tokens``, if no two are of one issuer: a token has to lead to one of them.

    Raises:
        ValueError: two are.
    """
    names: dict[str, str] = {}
    for name, each in tokens.items():
        if each.issuer in names:
            raise ValueError(f"{names[each.issuer]} and {name} have the same issuer; one token would be of both")
        names[each.issuer] = name
    return tokens
