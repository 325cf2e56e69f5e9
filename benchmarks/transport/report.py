"""What the way in costs: tables and plots of docs/triton.md, from the results of ``transport.run``.

python -m benchmarks.transport.report [--gpu FILE]

FILE is what ``transport.run`` wrote on a GPU's machine; it becomes benchmarks/results/transport_gpu.json. Replaces what
stands between ``<!-- figures: transport-NAME -->`` and ``<!-- end -->`` in the chapter, and the plots.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common.bars import stack
from benchmarks.common.chapter import QUIET_CORES, markdown, ranged, update
from benchmarks.common.files import DOCS, IMAGES, RESULTS, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    Result = Mapping[str, Any]

CHAPTER = DOCS / "triton.md"
BLOCKS = {"cpu": "transport", "gpu": "transport_gpu"}
"""The name of a block, to that of its result."""
NONE = "No results yet."

CARRIED = {
    "memory": "tensors, shared memory",
    "message": "tensors, in the message",
    "jpeg": "JPEGs, in the message",
}
DECODES = {"nobody": "nobody", "client": "client", "server": "server", "nvjpeg": "server, nvJPEG"}
COLOURS = {"client": "#8fb0d3", "server": "#4c6a92"}


def main() -> None:
    """Brings the section up to date."""
    options = parser().parse_args()
    if options.gpu:
        shutil.copy(options.gpu, RESULTS / "transport_gpu.json")
    results = {name: read_json(RESULTS / f"{source}.json") for name, source in BLOCKS.items()}
    update(CHAPTER, {f"transport-{name}": block(name, result) if result else NONE for name, result in results.items()})
    for name, result in results.items():
        if result:
            plot(result, IMAGES / f"transport-{name}.png")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--gpu", type=Path, metavar="FILE")
    return made


def block(name: str, result: Result) -> str:
    """Circumstances, speed, bytes and plot."""
    image = f"![CPU ms an image of client and server](images/transport-{name}.png)"
    return "\n\n".join(filter(None, (circumstances(result), speed(result), traffic(result), image, left_out(result))))


def circumstances(result: Result) -> str:
    """Where, when and how."""
    machine, settings = result["machine"], result["settings"]
    where = ", ".join([machine["cpu"], *machine["gpus"]])
    return (
        f"Measured {result['date'][:10]}: {where}, {machine['cores_used']} cores for client and server, load average "
        f"{result['load_average']:.1f} before it; `network` is {settings['network']}; batches of {settings['batch']}, "
        f"{settings['rounds']} rounds of {settings['seconds']:g} s, {settings['decode_threads']} threads decode with "
        f"the decoder `{settings['decoder']}`. `take` answers 1000 numbers and does nothing. In italics: other work "
        "kept more than a tenth of a core busy, so images/s mean little."
    )


def speed(result: Result) -> str:
    """Images a second, latency and CPU time."""
    rows = [
        (
            *_subject(cell),
            _quiet(cell, ranged(cell["images_per_s_spread"], ",.0f")),
            _quiet(cell, f"{cell['p50_ms']['median']:.1f}"),
            f"{cell['cpu_ms_per_image']['client']:.2f}",
            f"{cell['cpu_ms_per_image']['server']:.2f}",
            ranged(cell["cpu_ms_per_image_in_all"], ".2f"),
        )
        for cell in result["cells"]
    ]
    head = (
        *("model", "pictures travel as", "who decodes", "in flight", "images/s, median (range)", "p50 of a batch, ms"),
        *("client, CPU ms/image", "server", "both (range)"),
    )
    return markdown(head, rows)


def traffic(result: Result) -> str:
    """Bytes a picture of each way; they are the same for all models and loads but for a few bytes."""
    ways = {cell["carried"]: cell["bytes_per_image"] for cell in result["cells"]}
    rows = [
        (
            CARRIED[carried],
            f"{moved['counted']['file']:,.0f}",
            f"{moved['counted']['request']:,.0f}",
            f"{moved['counted']['answer']:,.0f}",
            f"{moved['computed']['shared_memory']:,.0f}",
            f"{moved['computed']['backend']:,.0f}",
        )
        for carried, moved in ways.items()
    ]
    head = (
        *("bytes an image", "its JPEG", "request message", "answer message"),
        *("written to shared memory, computed", "copied by Triton to its Python backend, computed"),
    )
    return markdown(head, rows)


def left_out(result: Result) -> str:
    """What couldn't be measured there, and why."""
    return "\n".join(f"- Left out: {cell}: {reason}" for cell, reason in result["left_out"].items())


def plot(result: Result, path: Path) -> None:
    """CPU time an image of client and server, of batches that are decoded."""
    from matplotlib import pyplot as plt  # the benchmarks do without

    cells = [cell for cell in result["cells"] if cell["decodes"] != "nobody"]
    labels = [", ".join((cell["model"], CARRIED[cell["carried"]], f"{cell['in_flight']} in flight")) for cell in cells]
    labels = [
        label + (" (nvJPEG)" if cell["decodes"] == "nvjpeg" else "") for label, cell in zip(labels, cells, strict=True)
    ]
    figure, axes = plt.subplots(figsize=(10, 1 + 0.32 * len(cells)), layout="constrained")
    stack(axes, labels, {name: [cell["cpu_ms_per_image"][name] for cell in cells] for name in COLOURS}, COLOURS)
    axes.set_xlabel("CPU milliseconds an image, decoding included, median over the rounds")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _subject(cell: Mapping[str, Any]) -> tuple[str, ...]:
    return cell["model"], CARRIED[cell["carried"]], DECODES[cell["decodes"]], str(cell["in_flight"])


def _quiet(cell: Mapping[str, Any], text: str) -> str:
    return text if cell["other_cores"]["median"] < QUIET_CORES else f"*{text}*"


if __name__ == "__main__":
    main()
