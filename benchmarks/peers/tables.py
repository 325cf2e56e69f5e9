"""The results as tables for the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.common.chapter import markdown, ranged
from benchmarks.peers.cells import CEILING, DECODERS, OURS, SHOAL, SHOAL_WITH_UPLOAD
from benchmarks.peers.pictures import Size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Result = Mapping[str, Any]
    Row = Mapping[str, Any]

SIZES = {Size.SMALL: "small pictures", Size.LARGE: "12 megapixels"}
_TITLES = {CEILING: "ceiling", SHOAL: "Shoal", SHOAL_WITH_UPLOAD: "Shoal, with upload"}
_NO = ""
DECODER_NAMES = {"shoal": "Shoal's decoder", "shown": "Pillow"}


def label(result: Result, row: Row) -> str:
    """A row's name for a reader."""
    title = _TITLES.get(row["way"]) or result["peers"][row["way"]]["title"]
    if row["way"] in (SHOAL, SHOAL_WITH_UPLOAD):
        return title
    return f"{title}, {DECODER_NAMES[row['decoder']]}"


def rows_of(result: Result, size: Size) -> list[Row]:
    """The rows of one picture size: ours, then each peer with both decoders."""
    ways = (*OURS, *result["peers"])
    order = {(way, decoder): number for number, (way, decoder) in enumerate((w, d) for w in ways for d in DECODERS)}
    found = [row for row in result["rows"] if row["size"] == size]
    return sorted(found, key=lambda row: order[row["way"], row["decoder"]])


def speed(result: Result, size: Size) -> str:
    """Images a second at saturation."""
    head = (
        SIZES[size],
        "images/s, median (range)",
        "to the ceiling",
        "to the ceiling of its decoder",
        "mean batch",
        "failed",
        "cores busy with other work",
    )
    return markdown(head, [_speed(result, row) for row in rows_of(result, size)])


def _speed(result: Result, row: Row) -> tuple[str, ...]:
    return (
        label(result, row),
        ranged(row["images_per_s"], ".1f"),
        _ratio(row, "ceiling"),
        _ratio(row, "own_ceiling"),
        _number(row["mean_batch_size"], ".1f"),
        _failed(row["errors"], row["images"]),
        f"{row['other_cores']['median']:.2f}",
    )


def _ratio(row: Row, name: str) -> str:
    return ranged(row["ratio"][name], ".2f") if name in row["ratio"] else _NO


def latency(result: Result, size: Size) -> str:
    """At half of each one's own rate at saturation."""
    head = (SIZES[size], "offered/s", "p50, ms", "p99, ms", "answers", "mean batch", "failed")
    rows = [(row, row["half"]) for row in rows_of(result, size) if row["half"]]
    return markdown(head, [_latency(result, row, half) for row, half in rows])


def _latency(result: Result, row: Row, half: Row) -> tuple[str, ...]:
    return (
        label(result, row),
        f"{half['rate_per_s']:.1f}",
        _number(half["p50_ms"], ".0f"),
        _number(half["p99_ms"], ".0f"),
        f"{half['answers']:,}",
        _number(half["mean_batch_size"], ".1f"),
        _failed(half["errors"], half["answers"]),
    )


def cpu(result: Result, size: Size) -> str:
    """CPU milliseconds an image, at saturation."""
    head = (f"CPU ms an image, {SIZES[size]}", "server", "store", "client", "all")
    return markdown(head, [_cpu(result, row) for row in rows_of(result, size)])


def _cpu(result: Result, row: Row) -> tuple[str, ...]:
    found = row["cpu_ms_per_image"]
    parts = [_number(found.get(name), ".2f") for name in ("server", "store", "client")]
    return (label(result, row), *parts, f"{sum(found.values()):.2f}")


def aims(result: Result) -> str:
    """Shoal's images a second over each peer's, within a round."""
    columns = ((Size.SMALL, "shoal"), (Size.LARGE, "shoal"), (Size.LARGE, "shoal_with_upload"))
    head = ("Shoal's images/s over those of", "small, in the store", "12 MP, in the store", "12 MP, upload counted")
    by_place = {(row["way"], row["decoder"], row["size"]): row for row in result["rows"]}
    rows = []
    for name, peer in result["peers"].items():
        for decoder in DECODERS:
            title = f"{peer['title']}, {DECODER_NAMES[decoder]}"
            rows.append((title, *(_lead(by_place.get((name, decoder, size)), base) for size, base in columns)))
    return markdown(head, rows)


def _lead(row: Row | None, base: str) -> str:
    if row is None or base not in row["lead"]:
        return _NO
    lead = row["lead"][base]
    shown = ranged(lead, ".2f")
    return shown if lead["median"] > 1 else f"**{shown}**"


def chosen(result: Result) -> str:
    """What was chosen for each peer."""
    head = (
        "",
        *(f"{SIZES[size]}, {DECODER_NAMES[decoder]}" for size, decoder in _PLACES),
    )
    by_place = {(row["way"], row["size"], row["decoder"]): row for row in result["rows"]}
    rows = [
        (peer["title"], *(_choice(by_place.get((name, size, decoder))) for size, decoder in _PLACES))
        for name, peer in result["peers"].items()
    ]
    return markdown(head, rows)


_PLACES = tuple((size, decoder) for size in Size for decoder in DECODERS)


def _choice(row: Row | None) -> str:
    return row["choice"] if row else _NO


def versions(result: Result) -> str:
    """What ran."""
    names: dict[str, None] = dict.fromkeys(name for peer in result["peers"].values() for name in peer["versions"])
    head = ("", "Shoal", *(peer["title"] for peer in result["peers"].values()))
    ours = result["versions"]
    rows = [
        (name, *_versions(name, [ours, *(peer["versions"] for peer in result["peers"].values())])) for name in names
    ]
    return markdown(head, rows)


def _versions(name: str, of: Iterable[Mapping[str, str]]) -> list[str]:
    return [one.get(name, "") for one in of]


def _failed(errors: Mapping[str, int], good: int) -> str:
    count = sum(errors.values())
    if not count:
        return "0"
    return f"**{count}** of {good + count:,}: {', '.join(errors)}"


def _number(value: float | None, form: str) -> str:
    return _NO if value is None else f"{value:{form}}"


BLOCKS: dict[str, Callable[[Result, Size], str]] = {"speed": speed, "latency": latency, "cpu": cpu}
WHOLE: dict[str, Callable[[Result], str]] = {"aims": aims, "chosen": chosen, "versions": versions}


def blocks(result: Result) -> dict[str, str]:
    """By the name of the chapter's block."""
    of_sizes = {f"{name}-{size}": make(result, size) for name, make in BLOCKS.items() for size in Size}
    return {**of_sizes, **{name: make(result) for name, make in WHOLE.items()}}
