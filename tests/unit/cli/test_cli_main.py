from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer

from shoal.cli import COMMANDS, lazy, main, serve
from shoal.cli.lazy import Command, load_command
from shoal.errors import ConfigurationError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def code_of(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Puts a command named ``up`` in place that raises."""

    def install(error: BaseException) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setattr(lazy, "load_command", lambda _: make_command(fail))

    return install


def make_command(function: Callable[[], None]) -> object:
    app = typer.Typer()
    app.command("up")(function)
    return typer.main.get_command(app)


def test_help_lists_every_command_and_imports_none() -> None:
    program = (
        "import sys; from shoal.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print([m for m in sys.modules if m in {'grpc', 'numpy', 'psutil', 'pydantic', 'aiohttp'}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("[]")
    for name, listed in COMMANDS.items():
        assert name in done.stdout
        assert listed.summary in done.stdout


def every_command() -> Iterator[tuple[str, ...]]:
    """The words that call it."""
    for name, listed in COMMANDS.items():
        yield (name,)
        for part in getattr(load_command(listed.target), "commands", ()):
            yield name, part


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_every_command_says_what_it_does(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(*words, "--help") == 0
    assert "--help" in capsys.readouterr().out


@pytest.mark.parametrize("target", [each.target for each in (*COMMANDS.values(), *serve.COMMANDS.values())])
def test_every_command_exists(target: str) -> None:
    assert load_command(target)


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--version") == 0
    assert capsys.readouterr().out.startswith("shoal ")


def test_an_unknown_command_suggests_a_known_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("statos") == 2
    assert "Did you mean 'status'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigurationError("shoal.yaml:3: unknown key"), 2, "shoal: shoal.yaml:3: unknown key\n"),
        (NotFound("no such model"), 1, "shoal: no such model\n"),
        (PermissionError(13, "Permission denied", "/reef"), 1, "shoal: /reef: Permission denied\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_expected_error_is_one_message_and_a_code(
    command: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    text: str,
) -> None:
    command(error)
    assert code_of("up") == code
    assert capsys.readouterr().err == text


def test_a_missing_extra_is_named(command: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]) -> None:
    command(ModuleNotFoundError("No module named 'psutil'", name="psutil"))
    assert code_of("up") == 2
    assert "'psutil', which isn't installed: pip install 'shoal[local]'" in capsys.readouterr().err


@pytest.mark.parametrize(("part", "extra"), [("batcher", "batcher"), ("worker", "worker"), ("--help", "local")])
def test_a_part_of_the_service_needs_its_own_extra_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str, extra: str
) -> None:
    def fail(_: str) -> object:
        raise ModuleNotFoundError("No module named 'uvloop'", name="uvloop")

    monkeypatch.setattr(lazy, "load_command", fail)
    assert code_of("serve", part) == 2
    assert f"pip install 'shoal[{extra}]'" in capsys.readouterr().err


def test_a_missing_module_of_our_own_is_a_fault(command: Callable[[BaseException], None]) -> None:
    command(ModuleNotFoundError("No module named 'shoal.cli.nothing'", name="shoal.cli.nothing"))
    with pytest.raises(ModuleNotFoundError):
        main(["up"])


def test_the_client_needs_no_extra() -> None:
    needing_none = [name for name, each in COMMANDS.items() if not each.extra]
    assert needing_none == ["classify", "detect", "analyze", "segment", "explain", "render", "bench"]
    assert isinstance(COMMANDS["up"], Command)
