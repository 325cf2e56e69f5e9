"""Renders the chart with the real helm, as `helm install` would before it asks a cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from shoal.service.spec import Service
from support.rendered import Rendered

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
HELM = ROOT / ".helm" / "helm"
CHART = ROOT / "deploy" / "helm" / "shoal"
SCENARIOS = sorted((ROOT / "deploy" / "scenarios").glob("*/values.yaml"))

_FILE = frozenset({"credentials.json"})
_ENVIRONMENT = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"})


def helm(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs helm, whatever it answers."""
    return subprocess.run([str(HELM), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=100)


def render(
    *files: Path, release: str = "shoal", chart: Path = CHART, settings: Mapping[str, Any] | None = None
) -> Rendered:
    """The objects of a release.

    Args:
        files: values files; the Secrets that they name are taken to be there.
        release: its name.
        chart: another version of the chart.
        settings: values over those of the files, by their dotted path.
    """
    done = template(*files, release=release, chart=chart, settings=settings)
    assert done.returncode == 0, done.stderr
    return Rendered.parse(done.stdout, **there(values_of(*files)))


def template(
    *files: Path, release: str = "shoal", chart: Path = CHART, settings: Mapping[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """``helm template``, whatever it answers."""
    options = [word for file in files for word in ("--values", str(file))]
    options += [
        word for path, value in (settings or {}).items() for word in ("--set-json", f"{path}={json.dumps(value)}")
    ]
    return helm("template", release, chart, "--namespace", "vision", "--kube-version", "1.35.0", *options)


def values_of(*files: Path) -> Service:
    """The values as the service file that they are, the last of several files."""
    tree = YAML(typ="safe").load(files[-1]) if files else {}
    return Service.model_validate(tree)


def there(service: Service) -> dict[str, Any]:
    """The Secrets and ServiceAccounts that the values expect."""
    cluster = service.kubernetes
    named = cluster.secrets
    secrets = {
        named.keys: frozenset({"keys.json"}),
        named.tls: frozenset({"tls.crt", "tls.key"}),
        named.object_store: _FILE,
        named.model_store: _FILE,
        named.object_store_environment: _ENVIRONMENT,
        named.model_store_environment: _ENVIRONMENT,
        cluster.test.key_secret: frozenset({"api_key"}),
        cluster.test.ca_secret: frozenset({"ca.crt"}),
    }
    parts = (cluster.router, cluster.batcher, cluster.worker, cluster.image_retention)
    accounts = frozenset(part.service_account.name for part in parts if part.service_account.name)
    return {"secrets": {name: keys for name, keys in secrets.items() if name}, "service_accounts": accounts}
