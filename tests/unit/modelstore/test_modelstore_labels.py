from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.modelstore import labels

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfdaisy\r\nrose\r\ntulip\r\n", ("daisy", "rose", "tulip")),
        (b"daisy\nrose", ("daisy", "rose")),
        ("line\u2028one\nnext\x85two\nform\x0cthree\n".encode(), ("line\u2028one", "next\x85two", "form\x0cthree")),
        (b"a\n\nb\n\n\r\n", ("a", "", "b")),
        (" 猫 \nΩ\n".encode(), (" 猫 ", "Ω")),
        (b"", ()),
        (b"\n\n", ()),
    ],
)
def test_labels_are_the_lines_of_the_file(tmp_path: Path, content: bytes, expected: tuple[str, ...]) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(content)
    assert labels.read(file) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("fine\nmünchen\n".encode("latin-1"), r"not UTF-8 from byte 6 \(line 2\) on; save it as UTF-8"),
        ("cat\n".encode("utf-16"), "not UTF-8 from byte 0"),
        ("cat\ndog\n".encode("utf-16-le"), "NUL byte in line 1"),
    ],
)
def test_another_encoding_is_refused_with_its_place(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        labels.read(file)
