from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from shoal.cli import main
from support.certificates import self_signed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Certificate


def code_of(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as raised:
        main(["health", *words])
    return raised.value.code


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return self_signed("localhost")


@pytest.fixture
def answers() -> HealthServicer:
    return HealthServicer()


@pytest.fixture
def ports(answers: HealthServicer, certificate: Certificate) -> Iterator[tuple[int, int]]:
    """Of a service, in plaintext and with TLS."""
    server = grpc.server(ThreadPoolExecutor(2))
    add_HealthServicer_to_server(answers, server)
    tls = grpc.ssl_server_credentials([(certificate.key, certificate.certificate)])
    plain, safe = server.add_insecure_port("localhost:0"), server.add_secure_port("localhost:0", tls)
    server.start()
    yield plain, safe
    server.stop(None).wait()


def test_a_service_that_serves(
    ports: tuple[int, int], answers: HealthServicer, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.set("", HealthCheckResponse.SERVING)
    assert code_of("--target", f"localhost:{ports[0]}") == 0
    assert capsys.readouterr().out == f"localhost:{ports[0]} serves\n"


def test_with_tls_the_authorities_are_those_that_are_given(
    ports: tuple[int, int], answers: HealthServicer, certificate: Certificate, tmp_path: Path
) -> None:
    answers.set("", HealthCheckResponse.SERVING)
    (tmp_path / "ca.crt").write_bytes(certificate.certificate)
    target = f"https://localhost:{ports[1]}"
    assert code_of("--target", target, "--ca", str(tmp_path / "ca.crt")) == 0
    assert code_of("--target", target, "--timeout", "0.2") == 1


@pytest.mark.parametrize(("service", "said"), [("", "NOT_SERVING"), ("other", "NOT_FOUND")])
def test_one_that_does_not_says_what_it_says(
    ports: tuple[int, int], answers: HealthServicer, capsys: pytest.CaptureFixture[str], service: str, said: str
) -> None:
    answers.set("", HealthCheckResponse.NOT_SERVING)
    assert code_of("--target", f"localhost:{ports[0]}", "--service", service, "--timeout", "0.3") == 1
    assert said in capsys.readouterr().err


def test_nobody_there_is_told(ports: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--target", "localhost:1", "--timeout", "0.3") == 1
    assert "localhost:1 doesn't serve after 0.3 s" in capsys.readouterr().err
