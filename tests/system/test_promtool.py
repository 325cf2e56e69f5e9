"""The metrics of every service, as Prometheus' own checker sees them (Debian's package ``prometheus``)."""

from __future__ import annotations

import subprocess
import urllib.request
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from support.stack import Stack

_LINT = 3
"""promtool's exit code for metrics that parse but break a naming rule."""


@pytest.fixture(scope="module", autouse=True)
def _some_traffic(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    picture = tmp_path_factory.mktemp("pictures") / "blue.jpg"
    Image.new("RGB", (64, 48), (0, 0, 250)).save(picture)
    stack.shoal("classify", picture, "--model", "tiny")


def check(stack: Stack, part: str) -> subprocess.CompletedProcess[str]:
    """What ``promtool check metrics`` says of a part's metrics."""
    address = stack.part(part).metrics
    assert address
    with urllib.request.urlopen(address, timeout=60) as response:
        text = response.read()
    assert text
    return subprocess.run(
        ["promtool", "check", "metrics"], input=text.decode(), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("part", ["worker-default-1", "batcher-shared-1"])
def test_our_own_metrics_keep_every_rule(stack: Stack, part: str) -> None:
    done = check(stack, part)
    assert done.returncode == 0, done.stderr


def test_envoys_metrics_parse(stack: Stack) -> None:
    done = check(stack, "router")
    assert done.returncode in {0, _LINT}, done.stderr
