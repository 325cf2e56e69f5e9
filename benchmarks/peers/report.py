"""Tables and plots of docs/how-it-compares.md, from the results.

python -m benchmarks.peers.report

Replaces what stands between ``<!-- figures: peers-NAME -->`` and ``<!-- end -->`` in the chapter, and its plots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.common.chapter import update
from benchmarks.common.files import DOCS, IMAGES, read_result
from benchmarks.peers.plots import draw
from benchmarks.peers.settings import RESULT
from benchmarks.peers.tables import blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

CHAPTER = DOCS / "how-it-compares.md"
_PLOTS = {
    "speed-small": "![images a second](images/peers-speed.png)",
    "latency-small": "![p50 and p99](images/peers-latency.png)",
    "cpu-small": "![CPU milliseconds an image](images/peers-cpu.png)",
}


def main() -> None:
    """Brings the chapter up to date."""
    result = read_result(RESULT.stem)
    made = {
        f"peers-{name}": f"{_PLOTS[name]}\n\n{block}" if name in _PLOTS else block
        for name, block in blocks(result).items()
    }
    update(CHAPTER, {"peers-measured": measured(result), **made})
    draw(result, IMAGES)


def measured(result: Mapping[str, Any]) -> str:
    """Circumstances and settings."""
    machine, settings = result["machine"], result["settings"]
    callers = " and ".join(f"{count} ({size})" for size, count in settings["callers"].items())
    return (
        f"Measured {result['date'][:10]} at commit {result['commit']}: {machine['cpu']}, "
        f"{machine['cores_used']} cores, load average {result['load_average']:.1f} before it; `{result['command']}`. "
        f"{settings['rounds']} rounds, windows of {settings['saturated_seconds']:g} s (12 megapixels: "
        f"{settings['longer']['12mp']:g} times as long), callers {callers}, model {settings['model']} in "
        f"{settings['precision']}."
    )


if __name__ == "__main__":
    main()
