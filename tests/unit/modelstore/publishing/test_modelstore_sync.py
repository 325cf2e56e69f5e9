from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

import obstore
import onnx
import pytest

from shoal.errors import ConfigurationError, Unavailable
from shoal.modelstore import repository
from shoal.modelstore.publishing import fetch_model
from shoal.modelstore.publishing.mirror import Mirror
from shoal.modelstore.publishing.pull import pull
from shoal.modelstore.publishing.remote import Remote
from shoal.modelstore.publishing.sync import Synchronizer
from shoal.service.spec import ObjectStore
from shoal.triton.client import LoadedVersion
from support.published import Bucket, Silent
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class ScriptedTriton:
    """Loads what the repository holds when it is told to; refuses the digests in ``refuses``."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self.loaded: dict[str, str] = {}
        self.tried: list[str] = []
        self.refuses: set[str | None] = set()
        self.away = False

    async def index(self) -> dict[str, list[LoadedVersion]]:
        self._here()
        return {model: [LoadedVersion(1, "READY")] for model in self.loaded}

    async def load(self, model: str) -> None:
        self._here()
        self.tried.append(model)
        current = self._mirror.current(model)
        if current in self.refuses:
            raise ConfigurationError("out of memory")
        assert current
        self.loaded[model] = current

    async def unload(self, model: str) -> None:
        self._here()
        del self.loaded[model]

    def _here(self) -> None:
        if self.away:
            raise Unavailable("the Triton is away")


class AwayStore:
    """Stands for a store that can't be reached."""

    async def published(self) -> dict[str, dict[int, object]]:
        raise Unavailable("away")


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "local")


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "volume" / "models")


@pytest.fixture
def triton(mirror: Mirror) -> ScriptedTriton:
    return ScriptedTriton(mirror)


def everything(models: Iterable[str]) -> Iterable[str]:
    return models


@pytest.fixture
def sync(bucket: Bucket, mirror: Mirror) -> Synchronizer:
    return Synchronizer(bucket.remote, mirror, selects=everything)


@pytest.fixture
def controlled(bucket: Bucket, mirror: Mirror, triton: ScriptedTriton) -> Synchronizer:
    return Synchronizer(bucket.remote, mirror, selects=everything, control=triton, remove=True)


def served(mirror: Mirror) -> dict[str, int]:
    models, faults = repository.scan(mirror.repository)
    assert not faults
    return {name: config.version for name, config in models.items()}


async def test_versions_come_and_the_sets_stay_few(bucket: Bucket, mirror: Mirror, sync: Synchronizer) -> None:
    assert not mirror.complete
    for version in (1, 2, 3, 4):
        await bucket.publish(version)
        await sync.synchronize()
        assert served(mirror) == {"tiny": version}
    assert mirror.complete
    sets = [path for path in (mirror.sets / "tiny").iterdir() if path.is_dir()]
    assert len(sets) == 2
    assert sorted(path.name for path in mirror.repository.iterdir()) == ["tiny"]


async def test_what_did_not_change_is_neither_fetched_nor_copied(
    bucket: Bucket, mirror: Mirror, sync: Synchronizer
) -> None:
    await bucket.publish(1)
    await sync.synchronize()
    labels = (mirror.repository / "tiny" / "labels.txt").stat().st_ino
    await obstore.delete_async(bucket.objects, bucket.content_of("tiny/labels.txt"))
    await sync.synchronize()
    again = Synchronizer(bucket.remote, Mirror(mirror.repository), selects=everything)
    await again.synchronize()
    assert not again.refused
    await bucket.publish(2)
    await sync.synchronize()
    assert (mirror.repository / "tiny" / "labels.txt").stat().st_ino == labels


async def test_a_corrupt_version_is_refused_once_and_the_old_one_stays(
    bucket: Bucket, mirror: Mirror, sync: Synchronizer, caplog: pytest.LogCaptureFixture
) -> None:
    await bucket.publish(1)
    await sync.synchronize()
    await bucket.publish(2)
    key = bucket.content_of("tiny/2/model.onnx")
    await obstore.put_async(bucket.objects, key, bytes((await obstore.head_async(bucket.objects, key))["size"]))
    await sync.synchronize()
    await sync.synchronize()
    assert served(mirror) == {"tiny": 1}
    assert sync.refused == {"tiny"}
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "what is here stays" in record.message
    assert "damaged" in record.message
    await bucket.push(again=True)
    await sync.synchronize()
    assert (served(mirror), sync.refused) == ({"tiny": 2}, frozenset())


async def test_an_incomplete_upload_is_not_seen(bucket: Bucket, mirror: Mirror, sync: Synchronizer) -> None:
    await bucket.publish(1)
    await sync.synchronize()
    await obstore.put_async(bucket.objects, "files/tiny/" + "a" * 64, b"half of a new version")
    await sync.synchronize()
    assert served(mirror) == {"tiny": 1}
    assert not sync.refused


async def test_a_faulty_model_is_refused_and_others_come(bucket: Bucket, mirror: Mirror, sync: Synchronizer) -> None:
    await bucket.publish(1, "broken")
    await bucket.publish(1, "fine")
    key = bucket.content_of("broken/labels.txt")
    await obstore.delete_async(bucket.objects, key)
    await sync.synchronize()
    assert served(mirror) == {"fine": 1}
    assert sync.refused == {"broken"}
    assert mirror.complete


async def test_a_store_that_is_away_changes_nothing(bucket: Bucket, mirror: Mirror, sync: Synchronizer) -> None:
    await bucket.publish(1)
    await sync.synchronize()
    cut_off = Synchronizer(AwayStore(), Mirror(mirror.repository), selects=everything)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await cut_off.synchronize()
    assert served(mirror) == {"tiny": 1}
    assert Mirror(mirror.repository).complete


async def test_only_what_is_selected_comes(bucket: Bucket, mirror: Mirror) -> None:
    for model in ("a1", "a2", "b1"):
        await bucket.publish(1, model)
    sync = Synchronizer(bucket.remote, mirror, selects=lambda names: [name for name in names if name.startswith("a")])
    await sync.synchronize()
    assert set(served(mirror)) == {"a1", "a2"}


async def test_models_go_only_if_that_is_wanted(
    bucket: Bucket, mirror: Mirror, sync: Synchronizer, controlled: Synchronizer, triton: ScriptedTriton
) -> None:
    await bucket.publish(1)
    await controlled.synchronize()
    await obstore.delete_async(bucket.objects, bucket.keys("manifests"))
    await sync.synchronize()
    assert served(mirror) == {"tiny": 1}
    await controlled.synchronize()
    assert (served(mirror), triton.loaded) == ({}, {})
    assert not (mirror.sets / "tiny").exists()


async def test_a_folder_that_is_not_ours_is_left_alone(bucket: Bucket, mirror: Mirror, sync: Synchronizer) -> None:
    await bucket.publish(1)
    (mirror.repository / "tiny").mkdir()
    await sync.synchronize()
    assert sync.refused == {"tiny"}
    assert list((mirror.repository / "tiny").iterdir()) == []


async def test_triton_loads_what_comes(
    bucket: Bucket, mirror: Mirror, controlled: Synchronizer, triton: ScriptedTriton
) -> None:
    await bucket.publish(1)
    await controlled.synchronize()
    assert triton.loaded == {"tiny": mirror.current("tiny")}
    await controlled.synchronize()
    assert triton.tried == ["tiny"]
    await bucket.publish(2)
    await controlled.synchronize()
    assert triton.loaded == {"tiny": mirror.current("tiny")}
    assert triton.tried == ["tiny"] * 2


async def test_what_triton_refuses_is_taken_back(
    bucket: Bucket, mirror: Mirror, controlled: Synchronizer, triton: ScriptedTriton
) -> None:
    await bucket.publish(1)
    await controlled.synchronize()
    good = mirror.current("tiny")
    await bucket.publish(2)
    real, triton.load = triton.load, refuse  # type: ignore[method-assign]
    await controlled.synchronize()
    triton.load = real  # type: ignore[method-assign]
    assert (mirror.current("tiny"), served(mirror)) == (good, {"tiny": 1})
    assert controlled.refused == {"tiny"}
    assert triton.loaded == {"tiny": good}


async def test_what_triton_refused_for_a_passing_reason_is_tried_again(
    bucket: Bucket, mirror: Mirror, triton: ScriptedTriton
) -> None:
    clock = [0.0]
    sync = Synchronizer(bucket.remote, mirror, selects=everything, control=triton, now=lambda: clock[0])
    await bucket.publish(1)
    asked: list[float] = []

    async def refuse_for_now(model: str) -> None:
        asked.append(clock[0])
        await refuse(model)

    real, triton.load = triton.load, refuse_for_now  # type: ignore[method-assign]
    for clock[0] in (0.0, 5.0, 15.0, 44.0, 45.0):
        await sync.synchronize()
        assert (sync.refused, served(mirror)) == ({"tiny"}, {})
    assert asked == [0, 15, 45], "after 15, then 30 s"
    triton.load = real  # type: ignore[method-assign]
    await sync.synchronize()
    assert not triton.tried, "not before its pause is over"
    clock[0] = 105.0
    await sync.synchronize()
    assert (sync.refused, served(mirror), triton.loaded) == (set(), {"tiny": 1}, {"tiny": mirror.current("tiny")})


async def refuse(model: str) -> None:
    raise ConfigurationError(f"can't load {model}: out of memory")


async def test_a_triton_that_restarts_gets_its_models_again(
    bucket: Bucket, mirror: Mirror, controlled: Synchronizer, triton: ScriptedTriton
) -> None:
    await bucket.publish(1)
    await controlled.synchronize()
    triton.loaded.clear()
    triton.away = True
    with pytest.raises(Unavailable):
        await controlled.reload()
    await bucket.publish(2)
    with pytest.raises(Unavailable):
        await controlled.synchronize()
    assert served(mirror) == {"tiny": 2}
    triton.away = False
    await controlled.reload()
    assert triton.loaded == {"tiny": mirror.current("tiny")}


async def test_what_a_restarted_triton_refuses_is_taken_back(
    bucket: Bucket, mirror: Mirror, controlled: Synchronizer, triton: ScriptedTriton
) -> None:
    await bucket.publish(1)
    await controlled.synchronize()
    triton.loaded.clear()
    triton.away = True
    await bucket.publish(2)
    with pytest.raises(Unavailable):
        await controlled.synchronize()
    triton.away = False
    triton.refuses = {mirror.current("tiny")}
    await controlled.reload()
    assert served(mirror) == {"tiny": 1}
    assert triton.loaded == {"tiny": mirror.current("tiny")}


def test_the_remote_takes_no_secrets_in_its_url() -> None:
    with pytest.raises(ConfigurationError, match="no credentials") as caught:
        Remote.open(ObjectStore(url="s3://bucket/models?token=hunter2"))
    assert "hunter2" not in str(caught.value)


async def test_what_model_sync_keeps_is_not_edited_in_place(
    bucket: Bucket, mirror: Mirror, sync: Synchronizer, tmp_path: Path
) -> None:
    await bucket.publish(1)
    await sync.synchronize()
    with pytest.raises(ConfigurationError, match="is a link, as model-sync makes them"):
        add_tiny_classifier(mirror.repository, version=2)
    with pytest.raises(ConfigurationError, match="is a link"):
        await pull(bucket.remote, "tiny", [1], mirror.repository, Silent())


def _manifest(**files: object) -> dict[str, object]:
    entry = {"size": 1, "sha256": "0" * 64}
    listed = {"config.pbtxt": entry, "1/model.onnx": entry, **files}
    return {"format": 1, "model": "odd", "version": 1, "published": "now", "files": listed}


ENTRY = {"size": 1, "sha256": "0" * 64}
ODD: dict[str, object] = {
    "a name over the file system's": _manifest(**{f"1/{'n' * 250}": ENTRY}),
    "a long name in a script of three bytes": _manifest(**{f"1/{'猫' * 80}": ENTRY}),
    "a path over the file system's": _manifest(**{"1/" + "d/" * 1000 + "x": ENTRY}),
    "a parent folder": _manifest(**{"../x": ENTRY}),
    "an absolute path": _manifest(**{"/tmp/x": ENTRY}),
    "a NUL": _manifest(**{"1/a\0b": ENTRY}),
    "a line feed": _manifest(**{"1/a\nb": ENTRY}),
    "the same name in upper case": _manifest(**{"1/MODEL.onnx": ENTRY}),
    "a folder that is a file": _manifest(**{"1/model.onnx/x": ENTRY}),
    "a size beyond any disk": _manifest(**{"1/big": {**ENTRY, "size": 2**49}}),
    "a size beyond numbers": json.dumps(_manifest(**{"1/big": {**ENTRY, "size": 0}})).replace(" 0,", f" {'9' * 5000},"),
    "a negative size": _manifest(**{"1/big": {**ENTRY, "size": -1}}),
    "nested deep": "[" * 100_000 + "]" * 100_000,
    "a name twice": '{"format": 1, "format": 1}',
    "too large": " " * (2**20 + 1),
    "no text": b"\xff\xfe\0",
    "contents that are not there": _manifest(),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
async def test_an_odd_publication_is_refused_and_a_new_pod_serves_the_others(
    bucket: Bucket, mirror: Mirror, sync: Synchronizer, odd: object
) -> None:
    content = odd if isinstance(odd, bytes) else (odd if isinstance(odd, str) else json.dumps(odd)).encode()
    await bucket.publish()
    await obstore.put_async(bucket.objects, "manifests/odd/1.json", content)
    await sync.synchronize()
    assert served(mirror) == {"tiny": 1}
    assert mirror.complete
    assert sync.refused == {"odd"}
    assert not (mirror.repository / "odd").exists()


async def test_a_model_over_the_limit_is_refused_and_named(
    bucket: Bucket, mirror: Mirror, caplog: pytest.LogCaptureFixture
) -> None:
    await bucket.publish()
    sync = Synchronizer(bucket.remote, mirror, selects=everything, most=100)
    await sync.synchronize()
    assert (sync.refused, mirror.complete) == ({"tiny"}, True)
    assert "model_store.max_model_bytes is 100" in caplog.text


async def test_what_there_is_no_room_for_comes_once_there_is(
    bucket: Bucket,
    mirror: Mirror,
    sync: Synchronizer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await bucket.publish()
    with monkeypatch.context() as full:
        full.setattr(fetch_model, "_RESERVE_BYTES", 2**60)
        await sync.synchronize()
        await sync.synchronize()
        assert (served(mirror), sync.refused, mirror.complete) == ({}, {"tiny"}, True)
    assert caplog.text.count("are free") == 1
    await sync.synchronize()
    assert (served(mirror), sync.refused) == ({"tiny": 1}, set())


async def test_a_fault_of_the_machine_passes(
    bucket: Bucket,
    mirror: Mirror,
    sync: Synchronizer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await bucket.publish()

    def full(model: str, digest: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as machine:
        machine.setattr(mirror, "switch", full)
        await sync.synchronize()
        await sync.synchronize()
        assert sync.refused == {"tiny"}
    assert caplog.text.count("No space left") == 1
    await sync.synchronize()
    assert (served(mirror), sync.refused) == ({"tiny": 1}, set())


async def test_a_fault_of_ours_with_one_model_leaves_the_others_alone(
    bucket: Bucket, mirror: Mirror, sync: Synchronizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bucket.publish()
    await bucket.publish(model="other")
    accept = mirror.accept

    def broken(model: str, digest: str, files: Any) -> None:
        if model == "other":
            raise RecursionError("too deep")
        accept(model, digest, files)

    monkeypatch.setattr(mirror, "accept", broken)
    await sync.synchronize()
    assert (served(mirror), sync.refused) == ({"tiny": 1}, {"other"})


async def test_weights_beside_a_model_that_did_not_change_come_again_as_a_file_of_their_own(
    bucket: Bucket, mirror: Mirror, sync: Synchronizer
) -> None:
    """ONNX's reader refuses them where they have another link."""
    await bucket.publish()
    file = bucket.local / "tiny" / "1" / "model.onnx"
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="w.bin", size_threshold=0)
    await bucket.push(again=True)
    await sync.synchronize()
    (bucket.local / "tiny" / "labels.txt").write_text("a\nb\nc\nd\n")
    await bucket.push(again=True)
    await sync.synchronize()
    here = mirror.repository / "tiny"
    assert (here / "labels.txt").read_text() == "a\nb\nc\nd\n"
    assert (here / "1" / "w.bin").stat().st_nlink == 1
    assert (here / "1" / "model.onnx").stat().st_nlink == 2
    onnx.load(here / "1" / "model.onnx")
    assert not sync.refused
