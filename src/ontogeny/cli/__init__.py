"""The command line, one file per command. Importing it loads neither torch nor transformers, so `--help` is fast."""

import errno
import gc
import os
import re
import sys
from typing import Annotated, NoReturn

import typer

from ontogeny.cli import (
    attribute,
    audit,
    compare,
    dashboard,
    demo,
    doctor,
    drift,
    edit,
    evaluate,
    gauges,
    geometry,
    lens,
    list,
    monitor,
    query,
    report,
    sae,
    show,
    steer,
    study,
    trace,
    train,
    transfer,
    watch,
)
from ontogeny.cli._command import Command, CommandGroup
from ontogeny.cli._streams import visible_streams
from ontogeny.errors import BadInput

__all__ = ["app", "main"]

app = typer.Typer(
    name="ontogeny",
    cls=CommandGroup,
    help="See when, where and how concepts form inside a language model while it is trained.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _module in (
    trace,
    watch,
    doctor,
    audit,
    steer,
    edit,
    evaluate,
    compare,
    transfer,
    attribute,
    monitor,
    lens,
    sae,
    drift,
    geometry,
    gauges,
    report,
    dashboard,
    show,
    query,
    list,
    train,
    demo,
):
    _name = _module.__name__.rpartition(".")[2]
    app.command(_name, cls=Command)(getattr(_module, f"{_name}_command"))

app.add_typer(study.study_app, name="study")


@app.callback(invoke_without_command=True)
def print_version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version if `--version` is given."""
    if show:
        import ontogeny

        typer.echo(f"ontogeny {ontogeny.__version__}")
        raise typer.Exit


_NEW_OBJECTS = 10_000
"""New objects before the garbage collector runs."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """Run a command. Exit codes: 0, 1 (some units failed), 2 (bad input, printed as one line), 130 (interrupted), 143 (terminated)."""
    # OpenMP threads spin before they sleep. Spinning for long takes cores from others; not spinning adds a wake-up to every small
    # matrix product (docs/log.md). OpenMP reads this when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Python looks for cycles after each 700 new objects, and imports make millions: a sixth of the time of a short command.
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    with visible_streams():
        _run()


def _run() -> None:
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BadInput as error:
        _fail(str(error))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _fail(f"the name {str(error.filename)[:60]}… is too long for a file. Give a shorter one.")
        if not isinstance(error, BrokenPipeError) and (error.filename or error.errno not in _FULL):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it closes stdout
        if isinstance(error, BrokenPipeError):  # the reader (head, less) has closed the pipe
            sys.exit(0)
        _fail(f"the output cannot be written ({error.strerror}): write it to another disk.")
    except SystemExit as end:
        # typer's exit code for Ctrl-C, and that of a trace on Ray for SIGTERM
        what = {130: "interrupted", 143: "terminated"}.get(end.code) if isinstance(end.code, int) else None
        if what:
            print(f"ontogeny: {what}. Start the same command again: finished work is kept.", file=sys.stderr)
        raise


def _fail(message: str) -> NoReturn:
    """Print the message on one line and exit; endless words and messages lose their middle."""
    line = re.sub(r"\S{300,}", lambda word: f"{word[0][:100]}…{word[0][-50:]}", " ".join(message.split()))
    print(f"ontogeny: {line if len(line) <= 900 else f'{line[:450]} … {line[-300:]}'}", file=sys.stderr)
    sys.exit(2)
