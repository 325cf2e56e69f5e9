from __future__ import annotations

import http.server
import logging
import socket
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import pytest
from obstore.store import S3Store

from shoal.worker.store_faults import FaultLog, kind, told

if TYPE_CHECKING:
    from collections.abc import Iterator


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    body: ClassVar[bytes] = b"<Error><Code>SlowDown</Code><AWSAccessKeyId>AKIDSECRET</AWSAccessKeyId></Error>"

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if name == "short":
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.send_header("last-modified", "Thu, 26 Nov 2026 17:00:00 GMT")
            self.end_headers()
            self.wfile.write(b"abc")
            self.close_connection = True
            return
        self.send_response(int(name))
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def failure(endpoint: str, name: str) -> Exception:
    """What obstore really raises."""
    store = S3Store(
        "bucket",
        endpoint=endpoint,
        region="us-east-1",
        access_key_id="AKIDSECRET",
        secret_access_key="secret",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": timedelta(seconds=0.3)},
        retry_config={"max_retries": 0},
    )
    try:
        store.get(name).bytes()
    except Exception as error:
        return error
    raise AssertionError("it didn't fail")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("503", "503 Service Unavailable"),
        ("500", "500 Internal Server Error"),
        ("429", "429 Too Many Requests"),
        ("short", "connection lost"),
    ],
)
def test_what_a_server_answers(server: str, name: str, words: str) -> None:
    error = failure(server, name)
    assert kind(error) == words
    assert "AKIDSECRET" not in told(error)
    assert name == "short" or "(SlowDown)" in told(error)


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert kind(failure(address, "x")) == "connection refused"


def test_nobody_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        assert kind(failure(f"http://127.0.0.1:{silent.getsockname()[1]}", "x")) == "time-out"


def test_no_such_host() -> None:
    assert kind(failure("http://no-such-host.invalid", "x")) == "its name can't be resolved"


@pytest.mark.parametrize("error", [OSError(), ValueError(""), Exception("something\nelse")])
def test_anything_else_has_words_too(error: Exception) -> None:
    assert kind(error) == "the request failed"
    told(error)


def test_addresses_lose_their_secrets() -> None:
    line = told(Exception("GET https://user:pass@host/b/k.jpg?X-Amz-Signature=abc&X-Amz-Credential=d in 3 s"))
    assert line == "GET https://host/b/k.jpg in 3 s"


def test_each_kind_is_logged_once_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    faults = FaultLog()
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            assert faults.add(OSError("Connection refused")) == "connection refused"
        faults.add(OSError("timed out"))
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == ["connection refused", "time-out"]
