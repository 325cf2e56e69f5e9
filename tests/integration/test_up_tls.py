"""``shoal up`` with a certificate, and the command line as its client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from support.certificates import self_signed
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a certificate and a blue picture."""
    folder = tmp_path_factory.mktemp("tls")
    self_signed().write(folder)
    Image.new("RGB", (64, 48), (0, 0, 250)).save(folder / "blue.jpg")
    return folder


@pytest.fixture(scope="module")
def secure(folder: Path) -> Iterator[Stack]:
    settings = f"router: {{tls: {{certificate_file: {folder}/tls.crt, key_file: {folder}/tls.key}}}}"
    with running_stack(folder / "home", models=add_tiny_classifier, service=settings) as stack:
        yield stack


def test_the_local_service_is_trusted_by_its_own_certificate(secure: Stack, folder: Path) -> None:
    assert secure.target.startswith("https://localhost:")
    assert "blue" in secure.shoal("classify", folder / "blue.jpg", "--model", "tiny").stdout


def test_others_name_whom_they_trust(secure: Stack, folder: Path) -> None:
    there = ("--target", secure.target, "--api-key", secure.api_key, "--model", "tiny")
    picture = folder / "blue.jpg"
    assert "blue" in secure.shoal("classify", picture, *there, "--ca", folder / "tls.crt").stdout
    self_signed().write(folder / "other")
    strangers = secure.shoal("classify", picture, *there, "--ca", folder / "other" / "tls.crt", check=False)
    assert strangers.returncode == 1
    assert "no service answers" in strangers.stderr


def test_a_load_test_goes_over_tls_too(secure: Stack, folder: Path) -> None:
    done = secure.shoal("bench", "--images", folder, "--model", "tiny", "--duration", "0.5", "--warm-up", "0", "--json")
    assert '"errors": {}' in done.stdout


def test_a_certificate_that_is_none_keeps_the_service_from_starting(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("not PEM")
    settings = f"router: {{tls: {{certificate_file: {tmp_path}/tls.crt, key_file: {folder}/tls.key}}}}"
    with (
        pytest.raises(AssertionError, match=r"router\.tls: .*tls\.crt"),
        running_stack(tmp_path / "home", models=add_tiny_classifier, service=settings),
    ):
        pass
