"""Tables and the plot of docs/gpu-decoding.md, from the results.

python -m benchmarks.gpu.report
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.common.bars import stack
from benchmarks.common.chapter import markdown, update
from benchmarks.common.files import DOCS, IMAGES, read_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Result = Mapping[str, Any]
    Rounds = Sequence[Mapping[str, Any]]

CHAPTER = DOCS / "gpu-decoding.md"
PLOT = IMAGES / "gpu-end-to-end.png"
PARTS = {
    "decode": ("worker: decode", "#8fb0d3"),
    "fetch": ("worker: fetch", "#c9d9ea"),
    "rest": ("worker: rest", "#d1495b"),
    "triton": ("Triton and runner", "#4c6a92"),
    "batcher": ("batcher", "#edae49"),
    "router": ("router", "#e07b39"),
    "store": ("store", "#7a9e7e"),
    "client": ("client", "#b5b5b5"),
}
"""Of the CPU time: label and colour."""
_MIX = "mix"
_OF_SERVICE = [name for name in PARTS if name not in {"store", "client"}]


def main() -> None:
    """Brings the chapter up to date."""
    result, pixels = read_result("gpu_end_to_end"), read_result("gpu_pixels")
    blocks = {
        "gpu-ceilings": ceilings(result),
        "gpu-end-to-end": end_to_end(result),
        "gpu-cpu": cpu(result),
        "gpu-sizing": sizing(result),
        "gpu-pixels": frames(pixels),
    }
    update(CHAPTER, blocks)
    plot(result, PLOT)


def ceilings(result: Result) -> str:
    """What the GPU does without a service."""
    rows = []
    for name, of in result["sets"].items():
        figures = [
            _median([each[what]["images_per_s"] for each in of["ceilings"]]) for what in ("model", "decode", "both")
        ]
        spent = _median([each["both"]["cpu_ms_per_image"] for each in of["ceilings"]])
        rows.append((name, *(f"{figure:,.0f}" for figure in figures), f"{spent:.2f}"))
    head = ("pictures", "model alone, images/s", "decoding alone", "both, in the runner", "both, CPU ms/image")
    return f"{circumstances(result)}\n\n{markdown(head, rows)}"


def end_to_end(result: Result) -> str:
    """From the store to the client, each way."""
    rows = []
    for name, of in result["sets"].items():
        for way, rounds in _ways(of):
            decode, calls = way.split("_")
            rate = _median([one["images_per_s"] for one in rounds])
            over = [_median([one[key] for one in rounds]) for key in ("over_model", "end_to_end_over_ceiling")]
            latency = [_median([one["latency_ms"][quantile] for one in rounds]) for quantile in ("p50", "p99")]
            refused = sum(sum(one["errors"].values()) for one in rounds)
            rows.append(
                (
                    f"{name}, `{decode}`",
                    calls,
                    f"{rate:,.0f}",
                    f"{over[0]:.2f}",
                    # Its ceiling has what the GPU can't decode in it.
                    "-" if name == _MIX else f"{over[1]:.2f}",
                    *(f"{figure:,.0f}" for figure in latency),
                    f"{_median([one['cores_used'] for one in rounds]):.1f}",
                    f"{refused:,}" if refused else "0",
                )
            )
    head = (
        "pictures, `decode`",
        "calls",
        "images/s",
        "over the model",
        "over both",
        "p50, ms",
        "p99, ms",
        "cores used",
        "refused",
    )
    return markdown(head, rows)


def cpu(result: Result) -> str:
    """CPU milliseconds an image, by component."""
    rows = []
    for name, of in result["sets"].items():
        for way, rounds in _ways(of):
            if "stream" in way:
                spent = [_spent(rounds, part) for part in PARTS]
                rows.append((f"{name}, `{way.split('_')[0]}`", *(f"{each:.2f}" for each in (*spent, sum(spent)))))
    return markdown(("CPU ms/image", *(label for label, _ in PARTS.values()), "in all"), rows)


def sizing(result: Result) -> str:
    """Cores that a GPU needs to be as busy as ``both`` was; computed."""
    rows = []
    for name, of in result["sets"].items():
        if name == _MIX:
            continue
        target = _median([each["both"]["images_per_s"] for each in of["ceilings"]])
        for way, rounds in _ways(of):
            if way not in {"gpu_stream", "cpu_stream"}:
                continue
            ways = (_OF_SERVICE, list(PARTS))
            rows.append(
                (
                    f"{name}, `{way.split('_')[0]}`",
                    f"{target:,.0f}",
                    *(f"{1000 / sum(_spent(rounds, part) for part in parts):,.0f}" for parts in ways),
                    *(f"{cores_of_a_gpu(of, way, parts):.0f}" for parts in ways),
                )
            )
    head = (
        "pictures, `decode`",
        "images/s of one GPU",
        "images/s of a core: service",
        "with store and client",
        "cores a GPU: service",
        "with store and client",
    )
    return markdown(head, rows)


def cores_of_a_gpu(of: Mapping[str, Any], way: str, parts: Sequence[str]) -> float:
    """Cores that keep ``parts`` of one set going at the rate of ``both``; computed."""
    target = _median([each["both"]["images_per_s"] for each in of["ceilings"]])
    rounds = dict(_ways(of))[way]
    return target * sum(_spent(rounds, part) for part in parts) / 1000


def frames(result: Result) -> str:
    """How far the GPU's frames are from the worker's."""
    kinds: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in result["rows"]:
        kinds.setdefault(row["kind"], {})[row["filter"]] = row
    rows = []
    for kind, filters in kinds.items():
        cells = []
        for name in ("bilinear", "bicubic"):
            row = filters[name]
            if row["decoded_by_the_gpu"]:
                cells += [f"{row['largest']}", f"{row['mean']:.3f}", "yes" if row["same_top_5"] else "no"]
            else:
                cells += ["left to the worker", "", ""]
        rows.append((kind, *cells))
    head = ("picture", "bilinear: largest", "mean", "same top 5", "bicubic: largest", "mean", "same top 5")
    return markdown(head, rows)


def circumstances(result: Result) -> str:
    """Where and how it was measured."""
    machine, settings = result["machine"], result["settings"]
    return (
        f"Measured {result['date'][:10]}: {machine['gpus'][0]}, {machine['cores_used']} cores ({machine['cpu']}), "
        f"{settings['network']}, batches of {settings['batch']}, {settings['lanes']} lanes, "
        f"{settings['workers']} worker processes, {settings['processes']} load generators, "
        f"everything on that machine."
    )


def plot(result: Result, path: Path) -> None:
    """CPU time an image by component, stacked, of each set and way."""
    from matplotlib import pyplot as plt

    bars = {
        f"{name}, {way.split('_')[0]}: {_median([one['images_per_s'] for one in rounds]):,.0f} images/s": rounds
        for name, of in result["sets"].items()
        for way, rounds in _ways(of)
        if "stream" in way and name != "4000x3000"
    }
    figure, axes = plt.subplots(figsize=(11, 0.4 * len(bars) + 1.6), layout="constrained")
    parts = {label: [_spent(rounds, part) for rounds in bars.values()] for part, (label, _) in PARTS.items()}
    stack(axes, list(bars), parts, dict(PARTS.values()))
    axes.set_xlabel("CPU milliseconds an image")
    axes.margins(y=0.01)
    figure.suptitle("From JPEG to label on one H100: where the CPU time of a picture goes")
    figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    figure.savefig(path, dpi=120)


def _ways(of: Mapping[str, Any]) -> list[tuple[str, Rounds]]:
    return list(of["ways"].items())


def _spent(rounds: Rounds, part: str) -> float:
    return _median([one["cpu_ms_per_image"].get(part, 0.0) for one in rounds])


def _median(values: Sequence[float]) -> float:
    return float(median(values))


if __name__ == "__main__":
    main()
