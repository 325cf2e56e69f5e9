"""Runs ``make test`` many times in a row beside busy loops, to show that the tests pass on a busy machine, too.

It prints a line a run and stops at the first that fails, with the end of what it said; all of it is in the log.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.runtime import tether

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / "build" / "repeat-tests.log"
_SUMMARY = re.compile(r"(\d+) (passed|failed|errors?|skipped)\b")
_END_SHOWN_LINES = 60


def main(argv: Sequence[str] | None = None) -> int:
    """Exits with 1 if a run fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="runs (default: 5)")
    parser.add_argument("--busy", type=int, default=2, help="busy loops beside them (default: 2)")
    parser.add_argument("target", nargs="*", default=["test"], help="what make makes (default: test)")
    asked = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    LOG.parent.mkdir(exist_ok=True)
    with busy_loops(asked.busy):
        for number in range(1, asked.times + 1):
            if not run(number, asked.target):
                print(f"{LOG} ends with:\n" + "\n".join(LOG.read_text().splitlines()[-_END_SHOWN_LINES:]))
                return 1
    return 0


def run(number: int, targets: Sequence[str]) -> bool:
    """Runs make once; whether all passed."""
    began = time.monotonic()
    with LOG.open("wb") as log:
        done = subprocess.run(["make", *targets], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False)
    told = counts(LOG.read_text(errors="replace"))
    words = ", ".join(f"{count} {what}" for what, count in told.items())
    seconds, load = time.monotonic() - began, os.getloadavg()[0]
    print(f"run {number}: {seconds:.0f} s, exit {done.returncode}, {words}, load {load:.1f}", flush=True)
    return done.returncode == 0


def counts(log: str) -> dict[str, int]:
    """What pytest's last lines in ``log`` count, over all its runs: ``passed`` and ``failed`` at least."""
    found = {"passed": 0, "failed": 0}
    for line in log.splitlines():
        if re.search(r"\d+ \w+.* in \d+\.\d+s\b", line):
            for count, what in _SUMMARY.findall(line):
                found[what] = found.get(what, 0) + int(count)
    return found


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes that each keep a core busy; they end with the block, or with this process."""
    tethered = [sys.executable, "-S", tether.__file__, str(os.getpid())]
    loops = [subprocess.Popen([*tethered, sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()


if __name__ == "__main__":
    sys.exit(main())
