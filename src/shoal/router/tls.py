"""TLS, in Envoy's words: on the public listener, and towards those whom the router asks.

The certificate is named in a file of its own (SDS), which has Envoy watch the certificate's folder: it reads both files
anew after any move in there, and so follows Kubernetes' swap of a mounted Secret.
https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret#key-rotation
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.router.resources import config_file, extension, typed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.router.certificate import CertificateFiles
    from shoal.runtime.envoy_http2 import Json

_NAME = "public"


def transport_socket(secrets_file: str) -> Json:
    """The transport socket of a listener whose certificate ``secrets_file`` names. gRPC insists on ALPN."""
    return extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": [{"name": _NAME, "sds_config": config_file(secrets_file)}],
        },
    )


def secret(files: CertificateFiles) -> Json:
    """Where the certificate is. Of one folder both files are read in one step; of two, each when it changes."""
    folder = files.certificate.parent
    watched = {"watched_directory": {"path": str(folder)}} if files.key.parent == folder else {}
    return typed(
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        name=_NAME,
        tls_certificate={
            "certificate_chain": {"filename": str(files.certificate)},
            "private_key": {"filename": str(files.key)},
            **watched,
        },
    )


def upstream(host: str, authorities: str, *, alpn: Sequence[str] = ()) -> Json:
    """The transport socket of a cluster at ``host``, which has to show a certificate for that name.

    Args:
        host: A name or an address.
        authorities: Certificates in PEM that may vouch for it.
        alpn: What is spoken there; gRPC's servers insist on ``h2``.
    """
    kind = "IP_ADDRESS" if ":" in host or host.replace(".", "").isdecimal() else "DNS"
    return extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        sni=host if kind == "DNS" else "",
        common_tls_context={
            "alpn_protocols": list(alpn),
            "validation_context": {
                "trusted_ca": {"inline_string": authorities},
                "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": host}}],
            },
        },
    )
