from __future__ import annotations

import pytest

from shoal.errors import InvalidRequest
from shoal.worker.multipart import only_part

PICTURE = b"\xff\xd8\xff\r\n--x\r\n\r\nmore\r\n"
TYPE = "multipart/form-data; boundary=xyz"
HEAD = b'Content-Disposition: form-data; name="picture"; filename="cat.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'


def form(*parts: bytes, end: bytes = b"--xyz--\r\n") -> bytes:
    return b"".join(b"--xyz\r\n" + HEAD + part + b"\r\n" for part in parts) + end


def test_the_picture_is_what_its_part_holds_bytes_and_all() -> None:
    assert only_part(form(PICTURE), TYPE) == PICTURE


def test_a_boundary_may_be_quoted_and_have_a_preamble_before_it() -> None:
    assert only_part(b"hello\r\n" + form(PICTURE), 'multipart/form-data; charset=x; boundary="xyz"') == PICTURE


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (form(PICTURE), "multipart/form-data", "must name its boundary"),
        (form(PICTURE, PICTURE), TYPE, "it has 2"),
        (form(), TYPE, "it has 0"),
        (b"", TYPE, "it has 0"),
        (form(PICTURE, end=b""), TYPE, "it has 0"),
        (form(PICTURE), "multipart/form-data; boundary=other", "it has 0"),
        (b"--xyz\r\nno end\r\n--xyz--", TYPE, "no end of its headers"),
    ],
)
def test_what_is_no_form_of_one_picture_is_refused(body: bytes, kind: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        only_part(body, kind)
