from __future__ import annotations

import pytest

from shoal.cli import main

LISTEN = ("serve", "batcher", "--listen", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "give either --worker, once for each, or --balancer"),
        (("--worker", "127.0.0.1:1", "--balancer", "127.0.0.1:2"), "give either --worker"),
        (("--worker", "nowhere"), "expected HOST:PORT"),
        (("--worker", "one:1", "--worker", "two:1"), "by IP addresses of one kind"),
        (("--worker", "127.0.0.1:1", "--metrics", "x"), "expected HOST:PORT"),
        (("--worker", "127.0.0.1:1", "--max-message-bytes", "9999999"), "3145728"),
    ],
)
def test_a_wrong_command_line_is_told(
    arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*LISTEN, *arguments])
    assert ended.value.code == 2
    assert text in " ".join(capsys.readouterr().err.split())
