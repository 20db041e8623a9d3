"""The group of all commands: their common help, errors in one line, exit codes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module, metadata
from typing import Any, NoReturn

import click

from quelmdb.errors import QuelmdbError

from .endings import ending_in_order
from .render import say

NO = 1  # the answer is no: problems found, no such job
FAILED = 2  # bad usage, or the store cannot do it
INTERRUPTED = 130  # what a shell reports for SIGINT
PIPE_CLOSED = 141  # what a shell reports for SIGPIPE


class _OnDemand(Mapping[str, click.Command]):
    """The commands by their names. A module is imported when its command is asked for: all of
    them take as long as one command's work."""

    def __init__(self, places: Mapping[str, tuple[str, str]]) -> None:
        """`places`: the module of each, and what it is called there."""
        self._places = places

    def __getitem__(self, name: str) -> click.Command:
        module, attribute = self._places[name]
        command: click.Command = getattr(import_module(f".{module}", __package__), attribute)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


_COMMANDS = _OnDemand(
    {
        **{
            name: (name, "command")
            for name in (
                *("info", "list", "show", "dump", "load", "backup", "check", "compact", "top"),
                *("readers", "retry", "cancel", "requeue", "prune"),
            )
        },
        "pause": ("pausing", "pause"),
        "resume": ("pausing", "resume"),
        **{name: (name, "command") for name in ("run", "demo", "completion")},
    }
)


class Commands(click.Group):
    """A group whose errors are one line on stderr, without a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs["standalone_mode"] = False
        call = super().main
        sys.exit(_exit_code(lambda: call(*args, **kwargs)))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # before click turns it into exit code 1
            raise _PipeClosed from None
        return result


class _PipeClosed(Exception):
    """Whoever read our output has gone."""


def _exit_code(call: Callable[[], Any]) -> int:
    try:
        result = call()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
    except click.ClickException as error:
        _complain(error)
    except click.Abort:
        return INTERRUPTED
    except _PipeClosed:
        _drop_output()
        return PIPE_CLOSED
    except QuelmdbError as error:
        say(f"quelmdb: {error}")
    except OSError as error:
        say(f"quelmdb: {_in_words(error)}")
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
    else:
        return result if isinstance(result, int) else 0
    return FAILED


def _drop_output() -> None:
    """Python flushes stdout once more at exit, and would complain then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _in_words(error: OSError) -> str:
    """What the system says, without its number."""
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def _complain(error: click.ClickException) -> None:
    context = getattr(error, "ctx", None)
    name = context.command_path if context else "quelmdb"
    hint = f" (try: {name} --help)" if isinstance(error, click.UsageError) else ""
    say(f"{name}: {error.format_message()}{hint}")


class _ToStderr(logging.Handler):
    """What the library logs (a job that cannot be read), as a line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"quelmdb: {record.getMessage()}")


def _version() -> str:
    try:
        return metadata.version("quelmdb")
    except metadata.PackageNotFoundError:
        return "(a checkout, not installed)"


@click.group(
    cls=Commands,
    commands=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 the answer is no (check found problems, show found no job, "
    "dump left something out, retry, cancel or requeue could not change a job that was named, "
    "a question was answered with no, demo left files undone); 2 bad usage, or the store cannot be "
    "used; 130 interrupted, 143 by SIGTERM, 129 by SIGHUP; 141 the reader of the output has gone.",
)
@click.version_option(_version(), prog_name="quelmdb")
@click.pass_context
def commands(context: click.Context) -> None:
    """Looks after stores of jobs: directories that quelmdb keeps.

    Looking never writes. Tables are for terminals; into a pipe go lines with
    tabs between the fields, or JSON with --json.

    \b
    Examples:
      quelmdb demo                          see it work
      quelmdb run jobs.qdb mypackage.jobs   work on what is in a store
      quelmdb info jobs.qdb                 what is in a store
      quelmdb list jobs.qdb --status failed
      quelmdb top jobs.qdb                  what goes on in a store
      quelmdb retry jobs.qdb --status failed
    """
    if context.invoked_subcommand != "run":  # which has its own meaning of signals
        context.with_resource(ending_in_order())
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # text that the encoding lacks is escaped, no error
            reconfigure(errors="backslashreplace")
    logger = logging.getLogger("quelmdb")
    if not any(isinstance(handler, _ToStderr) for handler in logger.handlers):
        logger.addHandler(_ToStderr(logging.WARNING))
        logger.propagate = False
