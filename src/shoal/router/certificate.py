"""The public listener's certificate: checked before Envoy is told of it, and served from its files as they are."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NamedTuple

from shoal.errors import ConfigurationError
from shoal.runtime import intake, private

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.service.spec import Tls


class CertificateFiles(NamedTuple):
    """Absolute paths."""

    certificate: Path
    key: Path

    @classmethod
    def of(cls, tls: Tls) -> CertificateFiles:
        """Those of a service file."""
        return cls(*(intake.expanded(file).absolute() for file in (tls.certificate_file, tls.key_file)))


def check(tls: Tls | None) -> None:
    """Makes sure that Envoy can serve with it; by itself it would log a line and leave the listener closed.

    Raises:
        ConfigurationError: a file can't be read, others may read the key, or the two don't fit.
    """
    if tls is None:
        return
    files = CertificateFiles.of(tls)
    try:
        private.read(files.key)
        intake.read(files.certificate)
    except OSError as error:
        raise ConfigurationError(f"router.tls: {error.filename}: can't be read: {error.strerror}") from error
    try:
        # Without a passphrase it would be asked for on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(
            f"router.tls: {files.certificate} and {files.key} are no PEM certificate with its own private key, "
            "or the key has a passphrase"
        ) from None
