from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shoal import cli
from support.fake_service import serving_in_thread

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("part_code", "part_calls", "exit_code"),
    [(0, 1, None), (4, 1, 1), (4, 0, 1)],  # the last: there was no time to ask
)
def test_a_picture_that_lacks_a_part_is_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    part_code: int,
    part_calls: int,
    exit_code: int | None,
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    with serving_in_thread() as service:
        monkeypatch.setenv("SHOAL_TARGET", service.target)
        monkeypatch.setenv("SHOAL_API_KEY", "test-key")
        service.part_code, service.part_calls = part_code, part_calls
        with pytest.raises(SystemExit) as ended:
            cli.main(["analyze", str(tmp_path), "--pipeline", "street", "--json"])
    assert (ended.value.code or None) == exit_code
    (result,) = json.loads(capsys.readouterr().out)["findings"][0]["results"]
    assert ("error" in result) == bool(part_code)
