from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidRequest
from shoal.pictures.reference import canonical_uuid, is_object_key, new_uuid, object_key, uuid_in

UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"


def test_key_is_prefix_and_uuid() -> None:
    assert object_key("team/", UUID) == f"team/{UUID}.jpg"
    assert object_key("", UUID) == f"{UUID}.jpg"


@pytest.mark.parametrize("image_uuid", [
    "", "../../etc/passwd", UUID.upper(), UUID.replace("-", ""), "{" + UUID + "}", "urn:uuid:" + UUID, UUID + "\n",
    " " + UUID, UUID + "/x", UUID.replace("6", "\N{FULLWIDTH DIGIT SIX}"),
])  # fmt: skip
def test_anything_but_a_uuid_is_refused(image_uuid: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a UUID"):
        object_key("team/", image_uuid)


@given(st.text(max_size=300))
def test_refusals_are_short_and_one_line(image_uuid: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        object_key("", image_uuid)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_picture_is_known_by_its_name() -> None:
    assert is_object_key(object_key("", UUID))
    assert is_object_key(object_key("a/b/", UUID))
    assert not is_object_key(f"{UUID}.jpg/")
    assert not is_object_key(f"x{UUID}.jpg")


@pytest.mark.parametrize("prefix", ["", "team/", "a/b/", "no-slash-"])
def test_the_uuid_in_a_key_is_found_again_without_the_prefix(prefix: str) -> None:
    assert uuid_in(object_key(prefix, UUID)) == UUID


def test_a_new_uuid_names_a_picture() -> None:
    assert is_object_key(object_key("", new_uuid()))


@pytest.mark.parametrize("text", [UUID, UUID.upper()])
def test_a_uuid_is_taken_in_either_case(text: str) -> None:
    assert canonical_uuid(text) == UUID


@pytest.mark.parametrize(
    "text", ["", "x", UUID[:-1], f"{{{UUID}}}", UUID.replace("-", ""), f"urn:uuid:{UUID}", "é" * 99]
)
def test_what_is_no_uuid_in_either_case_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not a UUID"):
        canonical_uuid(text)
