"""The results as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks.common.chapter import ranged
from benchmarks.common.cpu import COMPONENTS
from benchmarks.performance.tables import WAYS, caution, component, label_of, memory_cells, total

if TYPE_CHECKING:
    from collections.abc import Mapping

    Result = Mapping[str, Any]


def end_to_end_table(result: Result) -> Table:
    """The end-to-end figures for a terminal."""
    table = Table(title=f"{result['settings']['model']}, {result['machine']['cores_used']} cores")
    table.add_column("median (range)")
    for label in WAYS.values():
        table.add_column(label, justify="right")
    table.add_row("images/s", *(ranged(result[way]["images_per_s_spread"], ".1f") for way in WAYS))
    table.add_row("to the ceiling", "1", *(ranged(result["ratio_to_ceiling"][way], ".3f") for way in list(WAYS)[1:]))
    table.add_row(
        "cores busy with other work", *(ranged(result[way]["other_cores"], ".2f") for way in WAYS), end_section=True
    )
    for name in COMPONENTS:
        table.add_row(f"{label_of(name)}, CPU ms", *(component(result[way], name) for way in WAYS))
    table.add_row("all, CPU ms", *(total(result[way], COMPONENTS) for way in WAYS), end_section=True)
    overhead = ranged(result["overhead_cpu_ms_per_image"], ".3f")
    table.add_row("router + batcher + worker: rest, CPU ms", "", overhead, "")
    table.caption = caution(result).replace("*", "")
    return table


def footprint_table(result: Result) -> Table:
    """The footprint for a terminal."""
    table = Table(title=f"ready after {ranged(result['start_s'], '.2f')} s")
    for column in ("part", "idle, % of a core", "RSS, MiB", "PSS, MiB", "RSS after load", "PSS after load"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for name, share in result["idle_cpu_percent"].items():
        table.add_row(name, f"{share:.2f}", *memory_cells(result["memory_mib"], name))
    return table
