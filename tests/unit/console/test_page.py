"""The page's files: what they load, and what a browser is told that they may do."""

from __future__ import annotations

import re

import pytest

from shoal.console.page import FOLDER, files, headers, store_origins
from shoal.service.spec import ObjectStore

LOADED = re.compile(r"(?:src|href)=\"([^\"]+)\"|from \"([^\"]+)\"|url\(([^)]+)\)")


def policy(store: ObjectStore) -> dict[str, str]:
    told = headers(store)["content-security-policy"]
    return dict(rule.split(" ", 1) for rule in told.split("; "))


def test_whatever_a_file_loads_is_there_and_from_nowhere_else() -> None:
    assert "/" in files()
    for path, file in files().items():
        for names in LOADED.findall(file.text):
            name = next(filter(None, names))
            if not name.startswith(("data:", "#")):
                assert name.replace("./", FOLDER) in files(), f"{path} loads {name}"
        assert not re.search(r"\bon[a-z]+=|<style|style=|javascript:", file.text), f"{path} has what the policy forbids"
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", file.text), path
        assert not re.search(r"localStorage|sessionStorage|document\.cookie|indexedDB", file.text), path


def test_nothing_unsafe_is_allowed() -> None:
    told = policy(ObjectStore())
    assert "unsafe" not in str(told)
    assert (told["default-src"], told["script-src"], told["connect-src"]) == ("'none'", "'self'", "'self'")
    assert (told["frame-ancestors"], told["form-action"], told["base-uri"]) == ("'none'", "'none'", "'none'")


@pytest.mark.parametrize(
    ("store", "origins"),
    [
        (ObjectStore(), ()),
        (ObjectStore(endpoint="http://minio.example:9000/s3"), ("http://minio.example:9000",)),
        (
            ObjectStore(url="s3://pictures/all", managed=False, region="eu-west-1"),
            ("https://s3.eu-west-1.amazonaws.com", "https://pictures.s3.eu-west-1.amazonaws.com"),
        ),
        (ObjectStore(url="gs://pictures"), ("https://storage.googleapis.com",)),
        (ObjectStore(url="az://pictures"), ("https://*.blob.core.windows.net",)),
        (ObjectStore(url="file:///pictures"), ()),
    ],
)
def test_the_page_may_put_pictures_where_urls_will_lead(store: ObjectStore, origins: tuple[str, ...]) -> None:
    assert store_origins(store) == origins
    assert policy(store)["connect-src"] == " ".join(("'self'", *origins))
