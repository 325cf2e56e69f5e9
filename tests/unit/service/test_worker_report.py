from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.runtime.endpoint import Endpoint
from shoal.service.home import Home
from shoal.service.worker_report import ServedModel, WorkerReport, remove

if TYPE_CHECKING:
    from pathlib import Path


def test_a_report_is_found_by_the_workers_address(tmp_path: Path) -> None:
    home, worker = Home(tmp_path), Endpoint("127.0.0.1", 7)
    assert WorkerReport.load(home, worker) == WorkerReport()
    report = WorkerReport(ready=False, models=("a",), reasons=("model b: no",))
    report.save(home, worker)
    assert WorkerReport.load(home, worker) == report
    assert WorkerReport.load(home, worker._replace(port=8)) == WorkerReport()


def test_one_that_said_nothing_yet_is_starting_whatever_an_earlier_one_said(tmp_path: Path) -> None:
    home, worker = Home(tmp_path), Endpoint("127.0.0.1", 7)
    report = WorkerReport(models=("a",), served={"a": ServedModel(version=2, task="detection")}, troubles={"b": "no"})
    report.save(home, worker)
    assert WorkerReport.starting(home, worker) == report
    remove(home, worker)
    remove(home, worker)
    assert not WorkerReport.starting(home, worker).ready
