from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from shoal import cli
from shoal.local import state
from shoal.observe import dashboards, ruleset
from shoal.service.home import Home

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Home:
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "home"))
    return Home.default()


def shoal(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["render", *map(str, words)])
    return ended.value.code if isinstance(ended.value.code, int) else 0


def test_rules_are_printed_or_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert shoal("rules") == 0
    assert capsys.readouterr().out == ruleset.render()
    assert shoal("rules", "--output", tmp_path / "new" / "rules.yml") == 0
    assert (tmp_path / "new" / "rules.yml").read_text() == ruleset.render()


def test_runbooks_are_found_under_a_base(capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("rules", "--runbook-base", "https://git.example/shoal/") == 0
    assert "runbook_url: https://git.example/shoal/docs/alerts.md#shoaloverloaded\n" in capsys.readouterr().out
    assert shoal("rules", "--runbook-base", "git.example") == 2
    assert "--runbook-base git.example: must start with http:// or https://" in capsys.readouterr().err


def test_dashboards_are_a_file_each(tmp_path: Path) -> None:
    assert shoal("dashboards", "--output", tmp_path / "boards") == 0
    assert {path.name: path.read_text() for path in (tmp_path / "boards").iterdir()} == dashboards.render()
    assert all(json.loads(path.read_text())["uid"] for path in (tmp_path / "boards").iterdir())


def test_prometheus_is_told_of_the_service_that_runs(home: Home, tmp_path: Path) -> None:
    part = state.PartState(
        name="worker-default-1", role="worker", state="ready", pid=1, restarts=0, listen="", log="", group="default",
        metrics="http://127.0.0.1:7/metrics",
    )  # fmt: skip
    found = state.ServiceState(
        pid=os.getpid(), ready=True, target="t", store_url=None, models="", logs="", parts=(part,)
    )
    with state.exclusive(home):
        found.save(home)
        assert shoal("prometheus", "--output", tmp_path, "--scrape-interval", "2") == 0
    made = YAML(typ="safe").load((tmp_path / "prometheus.yml").read_text())
    assert made["global"]["scrape_interval"] == "2000ms"
    assert [job["job_name"] for job in made["scrape_configs"]] == ["worker-default-1"]
    assert made["rule_files"] == ["shoal-rules.yml"]
    assert (tmp_path / "shoal-rules.yml").read_text() == ruleset.render()


def test_without_a_service_there_is_nobody_to_ask(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shoal("prometheus", "--output", tmp_path) == 2
    assert "no service runs in" in capsys.readouterr().err
    assert not (tmp_path / "prometheus.yml").exists()


def test_a_folder_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert shoal("rules", "--output", tmp_path / "file" / "rules.yml") == 1
    assert str(tmp_path / "file") in capsys.readouterr().err
