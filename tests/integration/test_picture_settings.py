"""A pool's settings for pictures reach its workers, and a picture leaves nothing in their logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from shoal.client import Client
from shoal.errors import InvalidRequest
from support.jpegs import Jpeg, ycc
from support.pictures import encode, quadrants
from support.stack import running_stack
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from pathlib import Path

RGB = np.asarray(quadrants(64, 48))
WARNED = bytes(Jpeg(planes=ycc(RGB), tail=b"\x55" * 700))
WHOLE = encode(quadrants(320, 240))
TRUNCATED = WHOLE[: len(WHOLE) * 3 // 4]


@pytest.mark.parametrize(("strictness", "shown", "refused"), [
    ("strict", [WHOLE], [WARNED, TRUNCATED]),
    ("lenient", [WHOLE, WARNED, TRUNCATED], []),
])  # fmt: skip
def test_strictness_is_the_pools(tmp_path: Path, strictness: str, shown: list[bytes], refused: list[bytes]) -> None:
    service = f"pools: {{default: {{jpeg_strictness: {strictness}, decoding: fast}}}}"
    with running_stack(tmp_path / "home", models=add_tiny_classifier, service=service) as stack:
        log = stack.home.logs / "worker-default-1.log"
        before = log.read_text()
        with Client(stack.target, api_key=stack.api_key) as client:
            for data in shown:
                assert client.classify(client.upload(data), model="tiny").classes
            for data in refused:
                with pytest.raises(InvalidRequest, match="strict"):
                    client.classify(client.upload(data), model="tiny")
        assert log.read_text() == before
