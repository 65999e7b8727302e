"""The command line: one file a command. Importing it loads neither torch nor transformers, so `--help` answers at once."""

import errno
import os
import sys
from typing import Annotated

import typer

from ontogeny.cli import (
    audit,
    compare,
    demo,
    evaluate,
    list,
    monitor,
    query,
    report,
    show,
    steer,
    trace,
    train,
    transfer,
)
from ontogeny.errors import BadInput

__all__ = ["app", "main"]

app = typer.Typer(
    name="ontogeny",
    help="See when, where and how concepts form inside a language model while it is trained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("trace")(trace.trace_command)
app.command("audit")(audit.audit_command)
app.command("steer")(steer.steer_command)
app.command("evaluate")(evaluate.evaluate_command)
app.command("compare")(compare.compare_command)
app.command("report")(report.report_command)
app.command("show")(show.show_command)
app.command("query")(query.query_command)
app.command("monitor")(monitor.monitor_command)
app.command("list")(list.list_command)
app.command("demo")(demo.demo_command)
app.command("raise")(train.train_command)
app.command("transfer")(transfer.transfer_command)


@app.callback(invoke_without_command=True)
def print_version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version, where it is asked for."""
    if show:
        import ontogeny

        typer.echo(f"ontogeny {ontogeny.__version__}")
        raise typer.Exit


def main() -> None:
    """Run a command; what is wrong with its input is said in one line. Exit codes: 0, 1 (some units failed), 2 (bad input)."""
    # Threads that wait for each other spin for a while before they sleep: too long a while takes the cores that others need, none at
    # all costs a wake-up at every small product (docs/log.md). Read by OpenMP when torch is loaded, so it is set before.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except BadInput as error:
        print(f"ontogeny: {_shorten(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        print(
            f"ontogeny: the name {str(error.filename)[:60]}… is too long for a file. Give a shorter one.",
            file=sys.stderr,
        )
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C, without a word
            print(
                "ontogeny: interrupted. Start the same command again: what is finished is not done twice.",
                file=sys.stderr,
            )
        raise
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _shorten(message: str, most: int = 900) -> str:
    """A message that repeats an endless input, without its middle."""
    return message if len(message) <= most else f"{message[: most // 2]} … {message[-most // 3 :]}"
