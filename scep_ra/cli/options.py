"""The options that every command takes, and the classes that add them; only click may be imported here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click

_LONGEST_SENTENCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What the common options say; None = not given."""

    config: Path | None = None
    data: Path | None = None
    verbose: bool = False


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep the value in the context; what stands after a command's name wins over what stands before it."""
    invocation = context.ensure_object(Invocation)
    if value and parameter.name:
        given: dict[str, Any] = {parameter.name: value}
        context.obj = replace(invocation, **given)


def _common_options() -> list[click.Parameter]:
    file, directory = click.Path(path_type=Path), click.Path(file_okay=False, path_type=Path)
    return [
        click.Option(
            ["--config"],
            type=file,
            help="Configuration file.  [default: $SCEP_RA_CONFIG, or DATA/scep-ra.toml if it is there]",
            expose_value=False,
            callback=_remember,
        ),
        click.Option(
            ["--data"],
            type=directory,
            help="Data directory.  [default: $SCEP_RA_DATA, or ./var]",
            expose_value=False,
            callback=_remember,
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            help="Log everything, and show where an error came from.",
            expose_value=False,
            callback=_remember,
        ),
    ]


class Command(click.Command):
    """A command with the common options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options()


class Group(click.Group):
    """A group with the common options, and so are its commands."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first sentence of each command, whole: click cuts it off at the end of the line."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.commands[name].get_short_help_str(_LONGEST_SENTENCE)) for name in self.list_commands(ctx)]
            )
