from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from shoal.batcher.compression import UnknownEncoding, decompress
from shoal.errors import InvalidRequest

MESSAGE = b"a reference" * 10
PACKED = gzip.compress(MESSAGE)


@pytest.mark.parametrize("level", [0, 1, 9])
def test_what_gzip_and_deflate_wrote_is_read(level: int) -> None:
    assert decompress(gzip.compress(MESSAGE, level), "gzip", len(MESSAGE)) == MESSAGE
    assert decompress(zlib.compress(MESSAGE, level), "deflate", len(MESSAGE)) == MESSAGE


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_empty_message_may_be_compressed(encoding: str) -> None:
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    assert decompress(compress(b""), encoding, 0) == b""


@pytest.mark.parametrize("encoding", ["br", "zstd", "GZIP", "gzip, identity", "x" * 10_000, "\x00"])
def test_another_encoding_is_unknown(encoding: str) -> None:
    with pytest.raises(UnknownEncoding, match="identity,deflate,gzip") as caught:
        decompress(MESSAGE, encoding, 1000)
    assert len(str(caught.value)) < 300


def test_a_bomb_takes_no_more_than_the_limit() -> None:
    bomb = gzip.compress(bytes(64 * 2**20))
    tracemalloc.start()
    with pytest.raises(InvalidRequest, match="larger than 65536 bytes"):
        decompress(bomb, "gzip", 65_536)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    "broken",
    [b"", b"x", PACKED[:-1], PACKED + b"x", gzip.compress(b"a") + gzip.compress(b"b")],
    ids=["nothing", "a letter", "cut short", "more than one", "two"],  # gzip writes down the time
)
def test_what_is_broken_is_refused(broken: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decompress(broken, "gzip", 1000)


def test_a_checksum_that_is_wrong_is_refused() -> None:
    packed = bytearray(PACKED)
    packed[-6] ^= 1
    with pytest.raises(InvalidRequest, match="is not gzip"):
        decompress(bytes(packed), "gzip", 1000)
