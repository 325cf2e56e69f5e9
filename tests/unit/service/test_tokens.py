from __future__ import annotations

import pytest

from shoal.errors import ConfigurationError
from shoal.service.spec import parse

GOOD = "issuer: https://i.example, audiences: [shoal]"


def of(issuer: str) -> str:
    return f"router:\n  tokens:\n    company: {{{issuer}}}\n"


def test_an_issuer_is_read() -> None:
    router = parse(of(f"{GOOD}, jwks_url: 'https://i.example:8443/keys?a=b'"), "s").router
    found = router.tokens["company"]
    assert (found.owner_claim, found.models_claim, found.refresh_seconds) == ("sub", None, 300)
    assert parse("", "s").router.tokens == {}


@pytest.mark.parametrize(
    ("issuer", "fault"),
    [
        ("audiences: [a], jwks_file: f", "router.tokens.company.issuer: Field required"),
        ("issuer: i, jwks_file: f", "router.tokens.company.audiences: Field required"),
        ("issuer: i, audiences: [], jwks_file: f", "router.tokens.company.audiences: List should have at least 1"),
        ("issuer: '', audiences: [a], jwks_file: f", "router.tokens.company.issuer: String should have at least 1"),
        (GOOD, "router.tokens.company: name jwks_file or jwks_url"),
        (f"{GOOD}, jwks_file: f, jwks_url: 'https://h/'", "router.tokens.company: name jwks_file or jwks_url"),
        (f"{GOOD}, jwks_url: ftp://h/", "router.tokens.company.jwks_url: must start with http"),
        (f"{GOOD}, jwks_url: 'https://u:p@h/'", "router.tokens.company.jwks_url: must not hold a user"),
        (f"{GOOD}, jwks_url: 'https:///keys'", "router.tokens.company.jwks_url: must be a URL with a host"),
        (f"{GOOD}, jwks_url: 'https://h:99999/'", "router.tokens.company.jwks_url: must be a URL with a host"),
        (f"{GOOD}, jwks_url: 'https://h/a b'", "router.tokens.company.jwks_url: must be a URL with a host"),
        (f"{GOOD}, jwks_file: f, ca_file: c", "router.tokens.company: ca_file goes with a jwks_url"),
        (f"{GOOD}, jwks_url: 'http://h/', ca_file: c", "router.tokens.company: ca_file goes with a jwks_url"),
        (f"{GOOD}, jwks_file: f, owner: A/b", "router.tokens.company.owner: String should match"),
        (f"{GOOD}, jwks_file: f, owner_claim: ''", "router.tokens.company.owner_claim: String should have"),
        (f"{GOOD}, jwks_file: f, requests_per_second: 0.0001", "company.requests_per_second: must be 0 (no limit) or"),
        (f"{GOOD}, jwks_file: f, refresh_seconds: 0.5", "router.tokens.company.refresh_seconds: must be 1 or more"),
        (f"{GOOD}, jwks_file: f, model_claim: m", "company.model_claim: unknown key; did you mean 'models_claim'?"),
    ],
)
def test_a_fault_is_told_with_its_line_and_key(issuer: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(of(issuer), "s")
    assert str(raised.value).startswith("s:3: ")
    assert fault in str(raised.value)


def test_two_names_for_one_issuer_are_refused() -> None:
    text = of(f"{GOOD}, jwks_file: f") + f"    other: {{{GOOD}, jwks_file: g}}\n"
    with pytest.raises(ConfigurationError, match=r"router\.tokens: company and other have the same issuer"):
        parse(text, "s")
