"""``docs/batch-your-own-service.md`` shows the example's worker, every setting and every option of the batcher."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from shoal.cli import serve
from shoal.cli.lazy import load_command
from shoal.modelconfig.batching import BatchingSettings

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = (ROOT / "docs" / "batch-your-own-service.md").read_text(encoding="utf-8")
TRITONS_ALONE = {"default_timeout_microseconds"}


def test_the_worker_and_a_stream_of_calls_are_shown_whole_and_short() -> None:
    programs = [(ROOT / "examples" / "nearest" / name).read_text("utf-8") for name in ("worker.py", "ask_many.py")]
    assert re.findall(r"```python\n(.*?)```", CHAPTER, re.DOTALL) == programs
    assert all(len(program.splitlines()) < 40 for program in programs)


def test_every_setting_and_its_default() -> None:
    told = re.findall(r"^\| `(\w+)` \| [^,|]+, `([^`]+)`", CHAPTER, re.MULTILINE)
    fields = {field.name: str(field.default) for field in dataclasses.fields(BatchingSettings)}
    assert dict(told) == {name: default for name, default in fields.items() if name not in TRITONS_ALONE}


def test_every_option_of_the_front() -> None:
    told = re.findall(r"^\| `(--[\w-]+)` \|", CHAPTER, re.MULTILINE)
    command = load_command(serve.COMMANDS["batcher"].target)
    assert sorted(told) == sorted(option for each in command.params for option in each.opts if option != "--help")
