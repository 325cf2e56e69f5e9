"""The right to follow the keys' Secret: asked for, as narrow as it can be, and with nobody who has no use for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shoal.router.secret import ACCOUNT
from support import chart
from support.rendered import Rendered, faults

if TYPE_CHECKING:
    from pathlib import Path

VALUES = """
object_store: {url: "s3://pictures", managed: false}
model_store: {url: "s3://models/prod"}
kubernetes:
  secrets: {keys: our-keys, object_store: o, model_store: m}
"""


@pytest.fixture
def values(tmp_path: Path) -> Path:
    file = tmp_path / "shoal.yaml"
    file.write_text(VALUES)
    return file


def of_kind(rendered: Rendered, kind: str) -> list[dict[str, Any]]:
    return [each for each in rendered.objects if each["kind"] == kind]


def mounts(container: dict[str, Any]) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


def test_nobody_gets_a_right_that_was_not_asked_for(values: Path) -> None:
    rendered = chart.render(values)
    assert not of_kind(rendered, "Role")
    assert not of_kind(rendered, "RoleBinding")
    assert "--keys-secret" not in str(rendered.objects)
    assert "serviceAccountToken" not in str(rendered.objects)


def test_the_router_may_watch_one_secret_and_envoy_has_no_token(values: Path) -> None:
    rendered = chart.render(values, settings={"kubernetes.router.watch_keys": True})
    assert not faults(rendered)
    (role,), (binding,) = of_kind(rendered, "Role"), of_kind(rendered, "RoleBinding")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["our-keys"], "verbs": ["watch"]}
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    for deployment in of_kind(rendered, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        is_router = pod["serviceAccountName"] == binding["subjects"][0]["name"]
        assert is_router == (deployment["metadata"]["name"] == "shoal-router")
        assert pod["automountServiceAccountToken"] is False
        has_token = {
            container["name"]
            for container in (*pod.get("initContainers", ()), *pod["containers"])
            if str(ACCOUNT) in mounts(container)
        }
        follows = {
            container["name"]
            for container in (*pod.get("initContainers", ()), *pod["containers"])
            if "--keys-secret our-keys" in " ".join(container["command"])
        }
        assert has_token == follows == ({"config-init", "config"} if is_router else set())
