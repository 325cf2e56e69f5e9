from __future__ import annotations

import os
from typing import TYPE_CHECKING

import obstore
import pytest
from obstore.exceptions import GenericError

from shoal.errors import ConfigurationError, NotFound, Unavailable
from shoal.modelstore import repository
from shoal.modelstore.publishing import fetch_model
from shoal.modelstore.publishing.manifest import digest, manifest_key
from shoal.modelstore.publishing.pull import pull
from shoal.modelstore.publishing.snapshot import snapshot
from support.published import Bucket, Silent, onnx_with_doc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Count(Silent):
    """Adds up what was announced and what was done."""

    def __init__(self) -> None:
        self.expected = 0
        self.done = 0

    def expect(self, size: int) -> None:
        self.expected += size

    def advance(self, size: int) -> None:
        self.done += size


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "local")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "other"


async def pulled(bucket: Bucket, store: Path, model: str = "tiny", *, every: bool = False, force: bool = False) -> int:
    """Pulls; answers the bytes that were fetched."""
    published = await bucket.remote.published()
    count = Count()
    await pull(bucket.remote, model, published[model], store, count, every=every, force=force)
    assert count.expected == count.done
    return count.done


async def test_what_was_pushed_is_pulled(bucket: Bucket, store: Path) -> None:
    await bucket.publish()
    assert await pulled(bucket, store)
    assert snapshot(store / "tiny") == snapshot(bucket.local / "tiny")
    assert repository.read_model(store, "tiny").version == 1
    assert await pulled(bucket, store) == 0
    assert repository.names(store) == ["tiny"]


async def test_a_push_sends_what_is_missing_and_nothing_twice(bucket: Bucket) -> None:
    await bucket.publish(1)
    before = bucket.keys()
    assert await bucket.push() == []
    assert bucket.keys() == before
    await bucket.publish(2)
    assert len(set(bucket.keys()) - set(before)) == 2  # a graph and a manifest
    assert set(await bucket.remote.published()) == {"tiny"}


async def test_a_push_that_was_cut_off_goes_on(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    await bucket.publish()
    whole = bucket.keys()
    await obstore.delete_async(bucket.objects, [manifest_key("tiny", 1), bucket.content_of("tiny/1/model.onnx")])
    assert await bucket.remote.published() == {}
    assert await bucket.push() == [1]
    assert bucket.keys() == whole


async def test_a_truncated_content_is_sent_again(bucket: Bucket, store: Path) -> None:
    await bucket.publish()
    await obstore.put_async(bucket.objects, bucket.content_of("tiny/labels.txt"), b"re")
    await bucket.push()
    assert await pulled(bucket, store)


async def test_a_file_that_changes_on_its_way_is_not_published(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    await bucket.publish()
    entry = snapshot(bucket.local / "tiny")["labels.txt"]
    (bucket.local / "tiny" / "labels.txt").write_text("a\nb\nc\nd\n")
    await obstore.delete_async(bucket.objects, bucket.content_of("tiny/config.pbtxt"))
    fresh = entry.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ConfigurationError, match="changed while it was pushed"):
        await bucket.remote.upload("tiny", bucket.local / "tiny" / "labels.txt", fresh, Silent())
    assert "0" * 64 not in str(bucket.keys())


async def test_nothing_broken_is_published(bucket: Bucket) -> None:
    await bucket.publish()
    before = bucket.keys()
    (bucket.local / "tiny" / "labels.txt").write_text("one\n")
    with pytest.raises(ConfigurationError, match="names 1 labels for 4 classes"):
        await bucket.push()
    with pytest.raises(NotFound, match="'nope'"):
        await bucket.push("nope")
    assert bucket.keys() == before


async def test_the_policy_says_which_versions_come(bucket: Bucket, store: Path) -> None:
    for version in (1, 2, 3):
        await bucket.publish(version)
    await pulled(bucket, store)
    assert {path for path in snapshot(store / "tiny") if path.endswith("onnx")} == {"3/model.onnx"}
    await pulled(bucket, store, every=True)
    assert len(snapshot(store / "tiny")) == 5
    with (bucket.local / "tiny" / "config.pbtxt").open("a") as file:
        file.write("version_policy { specific { versions: [1, 3] } }\n")
    await bucket.push()
    await pulled(bucket, store, force=True)
    assert {path for path in snapshot(store / "tiny") if path.endswith("onnx")} == {"1/model.onnx", "3/model.onnx"}


async def test_what_differs_here_is_kept_unless_forced(bucket: Bucket, store: Path) -> None:
    await bucket.publish()
    await pulled(bucket, store)
    config = store / "tiny" / "config.pbtxt"
    config.write_text(config.read_text() + "# mine\n")
    (store / "tiny" / "7").mkdir()
    (store / "tiny" / "7" / "model.onnx").write_bytes((store / "tiny" / "1" / "model.onnx").read_bytes())
    with pytest.raises(ConfigurationError, match=r"config\.pbtxt differs.*--force"):
        await pulled(bucket, store)
    assert "# mine" in config.read_text()
    await pulled(bucket, store, force=True)
    assert snapshot(store / "tiny") == snapshot(bucket.local / "tiny")


async def test_a_new_version_leaves_those_that_are_only_here(bucket: Bucket, store: Path) -> None:
    await bucket.publish(1)
    await pulled(bucket, store)
    await bucket.publish(2)
    size = snapshot(bucket.local / "tiny")["2/model.onnx"].size
    assert await pulled(bucket, store) == size
    assert "1/model.onnx" in snapshot(store / "tiny")


async def test_a_pull_that_was_cut_off_goes_on(bucket: Bucket, store: Path) -> None:
    await bucket.publish()
    key = bucket.content_of("tiny/1/model.onnx")
    graph = (bucket.local / "tiny" / "1" / "model.onnx").read_bytes()
    await obstore.delete_async(bucket.objects, key)
    with pytest.raises(NotFound, match=key):
        await pulled(bucket, store)
    assert not (store / "tiny").exists()
    await obstore.put_async(bucket.objects, key, graph)
    for name in ("config.pbtxt", "labels.txt"):  # which of them came before the error is chance
        staged = store / ".tiny.pull" / "tiny" / name
        staged.write_bytes((bucket.local / "tiny" / name).read_bytes())
    assert await pulled(bucket, store) == len(graph)


@pytest.mark.parametrize("how", [lambda graph: graph[:-1], lambda graph: bytes(len(graph))])
async def test_a_damaged_content_is_refused(bucket: Bucket, store: Path, how: Callable[[bytes], bytes]) -> None:
    await bucket.publish()
    key = bucket.content_of("tiny/1/model.onnx")
    graph = (bucket.local / "tiny" / "1" / "model.onnx").read_bytes()
    await obstore.put_async(bucket.objects, key, how(graph))
    with pytest.raises(ConfigurationError, match=f"{key} (has|is damaged).*--again"):
        await pulled(bucket, store)
    assert not (store / "tiny").exists()
    await bucket.push(again=True)
    assert await pulled(bucket, store)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"format":', '"fromat":1,"format":2,"x":', "not a manifest: format"),
        ("labels.txt", "../../etc/passwd", "relative path"),
        ("labels.txt", "/etc/passwd", "relative path"),
        ("config.pbtxt", "confg.pbtxt", "lacks config.pbtxt"),
        ('"version": 1', '"version": 2', "is the manifest of tiny version 2"),
        ("labels.txt", "config.pbtxt/labels.txt", "names config.pbtxt/labels.txt"),
        ("{", "", "not a manifest"),
    ],
)
async def test_a_wrong_manifest_is_named(bucket: Bucket, store: Path, old: str, new: str, reason: str) -> None:
    await bucket.publish()
    key = manifest_key("tiny", 1)
    text = bytes(await (await bucket.objects.get_async(key)).bytes_async()).decode()
    assert old in text
    await obstore.put_async(bucket.objects, key, text.replace(old, new, 1).encode())
    with pytest.raises(ConfigurationError, match=f"{key}.*{reason}"):
        await pulled(bucket, store)


async def test_other_objects_are_no_models(bucket: Bucket) -> None:
    for key in ("manifests/tiny/1.txt", "manifests/Bad Name/1.json", "manifests/tiny/0.json", "manifests/1.json"):
        await obstore.put_async(bucket.objects, key, b"{}")
    assert await bucket.remote.published() == {}


async def test_a_full_disk(bucket: Bucket, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await bucket.publish()
    monkeypatch.setattr(fetch_model, "_RESERVE_BYTES", 2**60)
    with pytest.raises(Unavailable, match="bytes are needed"):
        await pulled(bucket, store)


def test_the_digest_is_of_paths_and_contents(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / ".hidden").write_bytes(b"1")
    one = snapshot(tmp_path)
    assert list(one) == ["a"]
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest(one) != digest(snapshot(tmp_path))
    assert onnx_with_doc(b"", "x") != onnx_with_doc(b"", "y")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda model: (model / "1" / "notes.txt").symlink_to("/etc/hostname"), "leads out of the model's folder"),
        (lambda model: (model / "extra").symlink_to("/etc"), "leads out of the model's folder"),
        (lambda model: (model / "up").symlink_to("../secret.txt"), "leads out of the model's folder"),
        (lambda model: (model / "2").symlink_to("1"), "is a link to a folder"),
        (lambda model: (model / "gone").symlink_to("nothing"), "is a link to nothing"),
        (lambda model: (model / "loop").symlink_to("loop"), "leads out"),
        (lambda model: os.mkfifo(model / "1" / "pipe"), "is a pipe"),
        (lambda model: (model / "1" / ("n" * 210)).touch(), "is too long.*rename it"),
        (lambda model: (model / "LABELS.txt").touch(), "are the same name.*rename it"),
    ],
)
async def test_what_is_not_the_models_own_is_not_pushed(
    bucket: Bucket, make: Callable[[Path], None], reason: str
) -> None:
    await bucket.publish()
    before = bucket.keys()
    (bucket.local / "secret.txt").write_text("secret")
    make(bucket.local / "tiny")
    with pytest.raises(ConfigurationError, match=reason):
        await bucket.push(again=True)
    assert bucket.keys() == before


async def test_a_link_to_another_file_of_the_model_is_that_file(bucket: Bucket, store: Path) -> None:
    await bucket.publish()
    (bucket.local / "tiny" / "names.txt").symlink_to("labels.txt")
    await bucket.push()
    await pulled(bucket, store)
    assert not (store / "tiny" / "names.txt").is_symlink()
    assert (store / "tiny" / "names.txt").read_bytes() == (bucket.local / "tiny" / "labels.txt").read_bytes()


async def test_a_model_whose_list_of_files_nobody_could_read_is_not_pushed(bucket: Bucket) -> None:
    await bucket.publish()
    before = bucket.keys()
    for number in range(8000):
        (bucket.local / "tiny" / f"{number}-{'n' * 60}").touch()
    with pytest.raises(ConfigurationError, match=r"has 8,003 files, whose list is over 1,048,576 bytes"):
        await bucket.push()
    assert bucket.keys() == before


async def test_a_pull_by_force_replaces_what_cannot_be_told(bucket: Bucket, store: Path) -> None:
    await bucket.publish()
    await pulled(bucket, store)
    (store / "tiny" / "link").symlink_to("/etc/hostname")
    with pytest.raises(ConfigurationError, match="leads out"):
        await pulled(bucket, store)
    await pulled(bucket, store, force=True)
    assert snapshot(store / "tiny") == snapshot(bucket.local / "tiny")


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("403 Forbidden: <Code>RequestTimeTooSkewed</Code>", ConfigurationError, "clock"),
        ("Received redirect without LOCATION", ConfigurationError, "another region"),
        ("status code: 400 Bad Request: AuthorizationHeaderMalformed", ConfigurationError, "another region"),
        ("status code: 403 Forbidden: <Code>AccessDenied</Code>", ConfigurationError, "let these credentials list"),
        ("status code: 404 Not Found: <html>", ConfigurationError, "says 404 to list; is it an S3 API"),
        ("status code: 404 Not Found: <Code>NoSuchBucket</Code>", NotFound, "no such bucket"),
        ("status code: 429 Too Many Requests", Unavailable, "is away"),
        ("error sending request: dns error: failed to lookup address", Unavailable, "name can't be found"),
        ("invalid peer certificate: UnknownIssuer", Unavailable, "certificate isn't trusted"),
        ("tcp connect error: Connection refused (os error 111) s3cr3t", Unavailable, "connection is refused"),
        ("something else s3cr3t", Unavailable, "GenericError"),
    ],
)
async def test_a_store_that_cannot_be_used_is_told_by_its_cause(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, text: str, kind: type[Exception], reason: str
) -> None:
    def fail(*_: object) -> None:
        raise GenericError(text)

    monkeypatch.setattr(obstore, "list", fail)
    with pytest.raises(kind, match=f"memory://models: .*{reason}") as error:
        await bucket.remote.published()
    assert "s3cr3t" not in str(error.value)
