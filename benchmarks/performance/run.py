"""Measures the ceiling, the service, CPU time by component and the footprint: 4 minutes.

python -m benchmarks.performance.run [--quick]

``end_to_end`` and ``footprint`` run alone, too, with options of their own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

QUICK = {"end_to_end": ("--seconds", "2", "--rounds", "1"), "footprint": ("--starts", "1", "--idle", "2")}


def main() -> None:
    """One after the other, each in a process of its own: what one leaves behind is in nobody's figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short windows, one round: to see that it works")
    quick = parser.parse_args().quick
    for name, options in QUICK.items():
        command = [sys.executable, "-m", f"{__package__}.{name}", *(options if quick else ())]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
