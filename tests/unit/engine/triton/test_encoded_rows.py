from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shoal.engine.triton import encoded_rows
from shoal.engine.triton.encoded_rows import JpegRow
from shoal.modelconfig import encoded
from shoal.modelconfig.model import ResizeFilter

FRAME = (4, 2)
PIXEL_BYTES = 4 * 2 * 3
PICTURE = JpegRow(6, 500, 375, 0.5, 1, 374.5, 499, 2, 4, 1)


def tensor(*entries: tuple[float, ...], size: int = 1024) -> np.ndarray:
    content = np.zeros(size, np.uint8)
    for row, entry in enumerate(entries):
        encoded_rows.table(content, len(entries))[row] = entry
    return content


def jpeg(offset: int = 128, length: int = 100, picture: JpegRow = PICTURE) -> tuple[float, ...]:
    return encoded_rows.jpeg_entry(offset, length, picture)


def test_what_was_written_is_read() -> None:
    content = tensor(jpeg(), encoded_rows.pixel_entry(256, PIXEL_BYTES))
    content[128:228] = 7
    first, second = encoded_rows.read(content.reshape(2, 512), 2, PIXEL_BYTES, FRAME)
    assert JpegRow(*(first[name].item() for name in JpegRow._fields)) == PICTURE
    assert (first["kind"], second["kind"]) == (encoded_rows.JPEG, encoded_rows.PIXELS)
    assert encoded_rows.content_of(content.reshape(2, 512), first).tolist() == [7] * 100
    assert encoded_rows.content_of(content, second).size == PIXEL_BYTES


def test_an_entry_lies_where_the_format_says() -> None:
    entry = np.array(encoded_rows.jpeg_entry(128, 100, PICTURE), encoded_rows.ENTRY).tobytes()
    assert np.frombuffer(entry, "<u4")[[0, 1, 2, 4, 6, 7, 12, 13, 14, 15]].tolist() == [
        1, 6, 128, 100, 500, 375, 2, 4, 1, 0,
    ]  # fmt: skip
    assert np.frombuffer(entry, "<f4")[8:12].tolist() == [0.5, 1, 374.5, 499]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ((2, *jpeg()[1:]), "its kind is unknown"),
        (jpeg(offset=64), "its bytes begin in the table"),
        (jpeg(offset=129), "its bytes aren't aligned"),
        (jpeg(offset=960), "its bytes end behind the tensor"),
        (jpeg(offset=128, length=2**64 - 64), "its bytes end behind the tensor"),
        (encoded_rows.pixel_entry(128, PIXEL_BYTES - 1), "its pixels are of another size"),
        (jpeg(picture=PICTURE._replace(orientation=9)), "its orientation is unknown"),
        (jpeg(picture=PICTURE._replace(height=0)), "it has no size"),
        (jpeg(picture=PICTURE._replace(left=float("nan"))), "its box is empty"),
        (jpeg(picture=PICTURE._replace(columns=4, rows=2)), "more than the frame"),
        (jpeg(picture=PICTURE._replace(columns=0)), "it becomes nothing"),
        (jpeg(picture=PICTURE._replace(filter=2)), "its filter is unknown"),
    ],
)
def test_what_leads_astray_is_refused(entry: tuple[float, ...], reason: str) -> None:
    good = encoded_rows.pixel_entry(256, PIXEL_BYTES)
    with pytest.raises(ValueError, match=f"row 1: .*{reason}"):
        encoded_rows.read(tensor(good, entry), 2, PIXEL_BYTES, FRAME)
    encoded_rows.read(tensor(good, jpeg()), 2, PIXEL_BYTES, FRAME)


def test_a_tensor_without_room_for_its_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no table of 3 rows"):
        encoded_rows.read(np.zeros((3, 63), np.uint8), 3, PIXEL_BYTES, FRAME)


@pytest.mark.parametrize(("rows", "total"), [(1, 64), (3, 100), (64, 4097)])
def test_the_tensor_holds_all_and_less_than_a_byte_a_row_more(rows: int, total: int) -> None:
    first, second = encoded_rows.shape(rows, total)
    assert first == rows
    assert total <= first * second < total + rows


def test_both_sides_use_the_same_words() -> None:
    assert (encoded_rows.INPUT, encoded_rows.REPORT) == (encoded.ENCODED_ROWS, encoded.ROW_REPORT)
    assert tuple(one.value for one in ResizeFilter) == encoded_rows.FILTERS


def test_the_file_works_alone_beside_a_runner(tmp_path: Path) -> None:
    source = Path(encoded_rows.__file__)
    (tmp_path / source.name).write_bytes(source.read_bytes())
    imported = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    }
    assert imported <= {"__future__", "collections.abc", "numpy", "numpy.typing", "typing"}
    code = "import encoded_rows; assert encoded_rows.shape(1, 64) == (1, 64)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
