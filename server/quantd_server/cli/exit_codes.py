"""How commands end: one code a kind of outcome, one message, never a stack trace."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

import typer

OK = 0
JOB_FAILED = 1
USAGE = 2
REFUSED = 3
UNREACHABLE = 4
INTERRUPTED = 130

TRACEBACK = "QUANTD_TRACEBACK"
"""Environment variable that lets stack traces through, for those who mend the program."""

EXPLANATION = """\
Exit codes: 0 done; 1 the job failed, or the server had a fault; 2 the command is wrong;
3 the server refused the request and said why; 4 the server could not be reached;
130 interrupted or cancelled."""

Arguments = ParamSpec("Arguments")


class ServerUnreachableError(Exception):
    """A private server did not come up, or there is none where one is needed."""


class CommandEndedError(Exception):
    """The command is over; everything has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def ends_with_exit_code(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Makes a command report every error in words and exit with its code."""

    @functools.wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except CommandEndedError as end:
            raise typer.Exit(end.code) from None
        except ServerUnreachableError as error:
            _leave(str(error), UNREACHABLE)
        except KeyboardInterrupt:
            _leave("interrupted", INTERRUPTED)
        except BrokenPipeError:
            # The reader of our output is gone, as with `| head`; nor can the rest be flushed to it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(OK) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours must not show its insides either
            _report(error, as_json=bool(kwargs.get("as_json")))

    return run


def _report(error: Exception, *, as_json: bool) -> NoReturn:
    import quantd

    if not isinstance(error, quantd.QuantdError):
        if os.environ.get(TRACEBACK):
            raise error
        what = f"{type(error).__name__}: {error}"
        _leave(f"a fault of this program: {what} (set {TRACEBACK}=1 to see where)", JOB_FAILED)
    if as_json:
        from quantd_server.cli import printing

        printing.print_json(printing.error_as_dict(error))
        raise typer.Exit(code_of(error)) from None
    _leave(str(error), code_of(error))


def code_of(error: Exception) -> int:
    """The exit code for an error."""
    import quantd

    if isinstance(error, CommandEndedError):
        return error.code
    if isinstance(error, quantd.UnavailableError | quantd.DeadlineExceededError):
        return UNREACHABLE
    if isinstance(error, quantd.JobCancelled):
        return INTERRUPTED
    if isinstance(error, quantd.JobFailed | quantd.InternalError):
        return JOB_FAILED
    return REFUSED


def _leave(message: str, code: int) -> NoReturn:
    typer.secho(f"quantd: {message}", err=True)
    raise typer.Exit(code) from None
