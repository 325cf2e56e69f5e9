from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from shoal.errors import ConfigurationError
from shoal.router.certificate import CertificateFiles, check
from shoal.service.spec import Tls
from support.certificates import self_signed
from support.mounted import Mounted

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    self_signed().write(tmp_path)
    return Tls(certificate_file=str(tmp_path / "tls.crt"), key_file=str(tmp_path / "tls.key"))


def test_a_certificate_with_its_key_is_good(tls: Tls) -> None:
    check(tls)
    check(None)


def test_so_is_one_in_a_mounted_secret(tmp_path: Path) -> None:
    made = self_signed()
    Mounted(tmp_path / "tls").update({"tls.crt": made.certificate, "tls.key": made.key})
    check(Tls(certificate_file=str(tmp_path / "tls" / "tls.crt"), key_file=str(tmp_path / "tls" / "tls.key")))


@pytest.mark.parametrize("name", ["tls.crt", "tls.key"])
def test_a_missing_file_is_named(tls: Tls, tmp_path: Path, name: str) -> None:
    (tmp_path / name).unlink()
    with pytest.raises(ConfigurationError, match=rf"{name}: can't be read: No such file"):
        check(tls)


def test_a_key_that_others_can_read_is_refused(tls: Tls, tmp_path: Path) -> None:
    (tmp_path / "tls.key").chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"tls\.key: mode 0644 lets others read it"):
        check(tls)


def test_another_certificates_key_is_refused(tls: Tls, tmp_path: Path) -> None:
    (tmp_path / "tls.key").write_bytes(self_signed().key)
    with pytest.raises(ConfigurationError, match=r"router\.tls: .*tls\.crt and .*tls\.key"):
        check(tls)


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(tls: Tls, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key((tmp_path / "tls.key").read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"hush")
    )
    (tmp_path / "tls.key").write_bytes(locked)
    with pytest.raises(ConfigurationError, match="passphrase"):
        check(tls)


def test_paths_are_absolute_for_envoy() -> None:
    assert all(path.is_absolute() for path in CertificateFiles.of(Tls(certificate_file="a.crt", key_file="~/a.key")))
