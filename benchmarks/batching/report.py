"""Tables and plots of docs/batching.md, from the results.

python -m benchmarks.batching.report

Replaces what stands between ``<!-- figures: batching-NAME -->`` and ``<!-- end -->`` in the chapter, and its plots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.batching.options import read_result
from benchmarks.batching.plots import PLOTS
from benchmarks.batching.tables import SHEETS, aims
from benchmarks.common.chapter import update
from benchmarks.common.files import DOCS, IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

CHAPTER = DOCS / "batching.md"


def main() -> None:
    """Brings the chapter up to date."""
    results = {name: read_result(name) for name in SHEETS}
    blocks = {f"batching-{name}": block(name, result) for name, result in results.items()}
    update(CHAPTER, {"batching-aims": aims(results).markdown(), **blocks})
    for name, result in results.items():
        PLOTS[name](result, IMAGES / f"batching-{name}.png")


def block(name: str, result: Mapping[str, Any]) -> str:
    """Circumstances, settings, plot and tables."""
    machine = result["machine"]
    measured = (
        f"Measured {result['date'][:10]}: {machine['cpu']}, {machine['cores_used']} cores, load average "
        f"{result['load_average']:.1f} before it; `{result['command']}`. {settings(result['settings'])}"
    )
    plot = f"![{name.replace('_', ' ')}](images/batching-{name}.png)"
    return "\n\n".join([measured, plot, *(sheet.markdown() for sheet in SHEETS[name](result))])


def settings(told: Mapping[str, Any]) -> str:
    """One line."""
    return "Settings: " + ", ".join(f"{name} {_value(value)}" for name, value in told.items()) + "."


def _value(value: Any) -> str:  # any JSON value
    if isinstance(value, dict):
        return " and ".join(f"{name} {_value(one)}" for name, one in value.items())
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
