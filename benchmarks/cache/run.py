"""The result cache: what hits and misses cost a worker, what repeats bring a service, and what memory it takes.

python -m benchmarks.cache.run [costs] [repeats] [memory] [--quick]

Each part prints a Markdown table. What is compared is measured in turns, in one run.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

import uvloop

from benchmarks.cache import costs, memory, repeats
from benchmarks.common.about import use_cores
from benchmarks.common.options import add_names

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

PARTS: Final[dict[str, Callable[[bool], Coroutine[Any, Any, None]]]] = {
    "costs": costs.show,
    "repeats": repeats.show,
    "memory": memory.show,
}


def main() -> None:
    """Runs the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_names(parser, "part", PARTS)
    parser.add_argument("--quick", action="store_true", help="short windows, for a look")
    arguments = parser.parse_args()
    use_cores()
    for name in arguments.parts:
        uvloop.run(PARTS[name](arguments.quick))


if __name__ == "__main__":
    main()
