from __future__ import annotations

import asyncio
import errno
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from shoal.local import turnover
from shoal.local.turnover import KEPT, old, turn_over

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LARGEST = 2**18

CHATTY = """
import os, pathlib, sys
def write(number):
    os.write(1, b"%d %s\\n" % (number, b"x" * 200))
for number in range(int(sys.argv[1])):
    write(number)
pathlib.Path(sys.argv[2]).touch()
sys.stdin.read()
write(int(sys.argv[1]))
"""
"""Writes its last line when it is told to: what it writes while its log is emptied may be lost."""


WHOLE = re.compile(rb"\d+ x{200}")


def _lines(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines() if log.exists() else []


def _numbers(log: Path) -> list[int]:
    """Those of the lines that the chatty part wrote; one that is being written while the log is emptied may be cut."""
    lines = [line for line in _lines(log) if not line.startswith(b"(")]
    cut = {number for number, line in enumerate(lines) if not WHOLE.fullmatch(line)}
    assert cut <= {0, len(lines) - 1}, "a line is cut in the middle of a log"
    return [int(line.split()[0]) for number, line in enumerate(lines) if number not in cut]


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    log.write_bytes(b"line\n" * 10)
    turn_over(log, 50)
    assert [path.name for path in tmp_path.iterdir()] == ["part.log"]


def test_old_files_are_kept_to_a_number_the_youngest_first(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    for number in range(KEPT + 3):
        with log.open("ab") as file:
            file.write(f"{number}\n".encode() * 20)
        turn_over(log, 30)
    assert log.read_bytes() == b""
    assert [_lines(old(log, number))[-1] for number in range(1, KEPT + 1)] == [b"4", b"3"]
    assert len(list(tmp_path.iterdir())) == KEPT + 1


def test_of_a_log_that_grew_far_too_large_the_end_is_kept_from_a_line_on(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    log.write_bytes(b"".join(b"line %05d\n" % number for number in range(10_000)))
    turn_over(log, 500)
    first, second, *_, last = _lines(old(log, 1))
    assert first == b"(109010 bytes before this were left out)"
    assert (second, last) == (b"line 09910", b"line 09999")


def test_a_chatty_part_writes_on_in_bounded_room(tmp_path: Path) -> None:
    """It writes through the descriptor that it was started with, as Envoy, Triton and rclone do."""
    log, count, done = tmp_path / "part.log", 60_000, tmp_path / "done"
    seen: list[int] = []
    largest = 0
    with log.open("ab") as output:
        command = [sys.executable, "-c", CHATTY, str(count), str(done)]
        part = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output)
    ended = False
    while not ended:
        ended = done.exists()
        assert part.poll() is None
        largest = max(largest, sum(path.stat().st_size for path in tmp_path.glob("part.log*")))
        if turn_over(log, LARGEST):
            seen += _numbers(old(log, 1))
    part.communicate()
    assert part.returncode == 0
    seen += _numbers(log)
    assert seen == sorted(set(seen)), "in order, none twice"
    assert seen[-1] == count
    assert b"\0" not in log.read_bytes() + old(log, 1).read_bytes()
    assert largest < (KEPT + 1) * (2 * LARGEST + turnover._CATCH_UP_BYTES) + 60_000 * 210


def test_of_what_was_written_before_a_turn_nothing_is_lost(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    asked = "import sys\nfor burst in sys.stdin: print(burst.strip(), 'x' * 1000, flush=True)\nprint('end')"
    seen: list[bytes] = []
    with log.open("ab") as output:
        part = subprocess.Popen([sys.executable, "-c", asked], stdin=subprocess.PIPE, stdout=output, text=True)
    assert part.stdin is not None
    for burst in range(100):
        part.stdin.write(f"{burst}\n")
        part.stdin.flush()
        while b"\n%d xxx" % burst not in b"\n" + log.read_bytes():
            assert part.poll() is None
        if turn_over(log, 3000):
            seen += _lines(old(log, 1))
    part.stdin.close()
    assert part.wait() == 0
    seen += _lines(log)
    assert [line.split()[0] for line in seen] == [b"%d" % burst for burst in range(100)] + [b"end"]


def _full(times: int) -> Any:
    write = turnover._copied
    left = [times]

    def copied(*arguments: Any) -> bool:
        if left[0]:
            left[0] -= 1
            return False
        return write(*arguments)

    return copied


def test_on_a_full_disk_older_files_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "part.log"
    for text in (b"old\n", b"new\n"):
        log.write_bytes(text * 20)
        if text == b"new\n":
            monkeypatch.setattr(turnover, "_copied", _full(1))
        turn_over(log, 40)
    assert _lines(old(log, 1))[-1] == b"new"
    assert not old(log, 2).exists()


def test_without_any_room_the_log_is_emptied_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "part.log"
    log.write_bytes(b"new\n" * 20)
    monkeypatch.setattr(turnover, "_copied", _full(2))
    turn_over(log, 40)
    assert [path.name for path in tmp_path.iterdir()] == ["part.log"]
    assert log.stat().st_size == 0
    assert "no room to keep its 80 bytes" in caplog.text


def test_a_copy_that_fails_leaves_nothing_of_it(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    log.write_bytes(b"new\n" * 20)
    (tmp_path / ".part.log.turning").symlink_to("/dev/full")
    turn_over(log, 40)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.log", "part.log.1"]


async def test_every_log_of_the_folder_is_looked_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnover, "LARGEST_BYTES", 100)
    monkeypatch.setattr(turnover, "LOOK_SECONDS", 0.0)
    turned: list[str] = []
    done = asyncio.Event()

    def turn(log: Path) -> None:
        log.write_bytes(b"")
        turned.append(log.name)
        if log.name == "broken.log":
            raise OSError(errno.EIO, "a fault of the disk")
        if len(turned) == 3:
            done.set()

    monkeypatch.setattr(turnover, "turn_over", turn)
    for name in ("broken.log", "router.log", "worker.log", "small.log", "worker.log.1"):
        (tmp_path / name).write_bytes(b"x" * (50 if name == "small.log" else 200))
    task = asyncio.create_task(turnover.keep_small(tmp_path))
    async with asyncio.timeout(60):
        await done.wait()
    task.cancel()
    assert turned == ["broken.log", "router.log", "worker.log"]
