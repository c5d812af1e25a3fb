"""Claims about the command as a whole: its table, its help, its exit status, its common options."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import scep_ra as package
from scep_ra.cli import main as cli_main
from scep_ra.cli.main import COMMANDS, cli, exit_status
from scep_ra.errors import ConfigurationError, Misconfigured, Refused, ScepRaError, Unavailable
from scep_ra.identity.errors import InvalidDeviceID
from tests.support.command_line import CommandLine


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, by the words that call it."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {word}", each) for word, each in command.commands.items())
        else:
            yield name, command


def test_help_lists_every_command_with_its_summary(scep_ra: CommandLine) -> None:
    """The table's words are those of the commands themselves."""
    out = scep_ra.ok("--help").out
    context = click.Context(cli)
    for name, (_, summary) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert (command.help or "").partition("\n")[0] == summary
        assert f"{name} " in out


@pytest.mark.parametrize(("words", "command"), list(all_commands()), ids=str)
def test_every_command_shows_an_example_of_itself(words: str, command: click.Command) -> None:
    """--help ends with a line to copy, and every option says what it is."""
    assert (command.epilog or "").startswith(f"Example:  scep-ra {words}")
    assert command.help
    assert all(option.help or option.type for option in command.params if isinstance(option, click.Option))


def test_help_of_the_whole_imports_no_command() -> None:
    """What is not called costs nothing: neither models nor cryptography are loaded."""
    program = "import sys, scep_ra.cli.main as m\ntry: m.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pydantic", "aiohttp", "cryptography", "scep_ra.config"} & set(done.stdout.split())


def test_adding_a_device_loads_no_web_server() -> None:
    """Commands that only need the store start without aiohttp."""
    program = "import sys, scep_ra.cli.device, scep_ra.cli.challenge, scep_ra.cli.ca; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "aiohttp" not in done.stdout.split()


def test_the_module_is_the_command() -> None:
    """`python -m scep_ra` works like the console script."""
    done = subprocess.run([sys.executable, "-m", "scep_ra", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"scep-ra, version {package.__version__}\n"


def test_an_unknown_command_is_a_usage_error(scep_ra: CommandLine) -> None:
    """The status is that of every wrong command line."""
    outcome = scep_ra("frobnicate")
    assert (outcome.status, "frobnicate" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigurationError(), 2),
        (Misconfigured(), 2),
        (InvalidDeviceID(), 2),
        (Unavailable(), 3),
        (Refused(), 1),
        (ScepRaError(), 1),
    ],
)
def test_the_exit_status_tells_the_kind_of_error(error: ScepRaError, status: int) -> None:
    """Scripts can tell what to repeat from what to mend."""
    assert exit_status(error) == status


def test_an_error_is_one_line_without_traceback(scep_ra: CommandLine) -> None:
    """Somebody who mistyped needs no stack."""
    scep_ra.data.mkdir(mode=0o700)
    outcome = scep_ra("device", "show", "X1")
    assert outcome.status == 1
    assert outcome.err == "scep-ra: no device 'X1' is registered; `scep-ra device list` shows those that are\n"


def test_verbose_shows_where_an_error_came_from(scep_ra: CommandLine) -> None:
    """The traceback is there for who asks."""
    assert "Traceback" in scep_ra("device", "show", "X1", "--verbose").err


def test_common_options_stand_before_or_after_the_command(scep_ra: CommandLine, tmp_path: Path) -> None:
    """What stands last wins."""
    scep_ra.ok("device", "add", "X1", "--data", str(tmp_path / "other"))
    assert not scep_ra.data.exists()
    assert "X1" in scep_ra.ok("device", "--data", str(tmp_path / "other"), "list").out


def test_a_missing_configuration_file_ends_with_status_2(scep_ra: CommandLine) -> None:
    """The message names the file."""
    outcome = scep_ra("device", "list", "--config", "/nowhere.toml")
    assert (outcome.status, outcome.err) == (2, "scep-ra: /nowhere.toml: cannot be read: No such file or directory\n")


def test_the_process_arguments_are_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The console script calls main without arguments."""
    monkeypatch.setattr(sys, "argv", ["scep-ra", "--version"])
    with pytest.raises(SystemExit):
        cli_main.main()
    assert package.__version__ in capsys.readouterr().out


def test_a_group_says_of_its_commands_whole_sentences(scep_ra: CommandLine) -> None:
    """Click would end each where the line does."""
    listed = scep_ra.ok("request", "--help").out.partition("Commands:")[2]
    assert " ".join(listed.split()).startswith(
        "approve Approve a request that waits, if AAA says yes to it now; the device gets its certificate when it asks"
    )
    assert "..." not in listed


@pytest.mark.parametrize("command", [("device", "list"), ("db", "upgrade")])
def test_a_command_that_makes_the_data_directory_says_so_once(scep_ra: CommandLine, command: tuple[str, ...]) -> None:
    """In the wrong place there would seem to be no devices at all."""
    assert scep_ra.ok(*command).err == f"making a new data directory, {scep_ra.data}; --data names another\n"
    assert scep_ra.ok(*command).err == ""
