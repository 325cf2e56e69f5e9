"""A pool's settings for pictures reach its workers, and a picture leaves nothing in their logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from shoal.client import Client
from shoal.errors import InvalidRequest
from support.jpegs import Jpeg, ycc
from support.pictures import encode, quadrants
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RGB = np.asarray(quadrants(64, 48))
WARNED = bytes(Jpeg(planes=ycc(RGB), tail=b"\x55" * 700))
WHOLE = encode(quadrants(320, 240))
TRUNCATED = WHOLE[: len(WHOLE) * 3 // 4]


SERVICE = """
pools:
  strict: {models: [strict], jpeg_strictness: strict, decoding: fast}
  lenient: {models: [lenient], jpeg_strictness: lenient, decoding: fast}
"""


def add_models(store: Path) -> None:
    for name in ("strict", "lenient"):
        add_tiny_classifier(store, name)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A pool of each kind, with a model of its name."""
    with running_stack(tmp_path_factory.mktemp("settings") / "home", models=add_models, service=SERVICE) as running:
        yield running


@pytest.mark.parametrize(("pool", "shown", "refused"), [
    ("strict", [WHOLE], [WARNED, TRUNCATED]),
    ("lenient", [WHOLE, WARNED, TRUNCATED], []),
])  # fmt: skip
def test_strictness_is_the_pools(stack: Stack, pool: str, shown: list[bytes], refused: list[bytes]) -> None:
    log = stack.home.logs / f"worker-{pool}-1.log"
    before = log.read_text()
    with Client(stack.target, api_key=stack.api_key) as client:
        for data in shown:
            assert client.classify(client.upload(data), model=pool).classes
        for data in refused:
            with pytest.raises(InvalidRequest, match="strict"):
                client.classify(client.upload(data), model=pool)
    assert log.read_text() == before
