"""`ontogeny dashboard`: runs in a browser, from one process on this machine; needs no network."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._streams import raw
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.dashboard.chat_options import ChatOptions
    from ontogeny.dashboard.shown_run import ShownRuns
    from ontogeny.lineage import Lineage


def dashboard_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN …]", help="Run directories.")],
    port: Annotated[int, arg.output("Port on this machine; 0 for any that is free.", min=0, max=65535)] = 8017,
    no_browser: Annotated[bool, arg.output("Print the address, and open no browser.", "--no-browser")] = False,
    out: Annotated[
        Path | None,
        arg.output("Write one run into this folder, as a page that opens from disk, and start no server.", "--export"),
    ] = None,
    user: Annotated[
        list[str] | None,
        arg.texts(
            "Concept about the user, for the gauges of a chat; class names may follow: calling=farmer,sailor. Repeat.",
            "--user",
        ),
    ] = None,
    system: Annotated[list[str] | None, arg.texts("Likewise a concept about the system.", "--system")] = None,
    gauges: Annotated[
        Path | None,
        arg.texts("Gauge pack, as `ontogeny gauges` writes: its gauges take the place of those of the runs in a chat."),
    ] = None,
    lineage: Annotated[
        Path | None,
        arg.texts(
            "Lineage file: where checkpoints are that the runs name at places which are gone or remote.", "--lineage"
        ),
    ] = None,
    template: Annotated[
        str | None,
        arg.texts("Chat template in Jinja, or its file. Default: that of the lineage or the tokenizer.", "--template"),
    ] = None,
    chats: Annotated[
        list[str] | None,
        arg.texts("Chat that an export holds at every checkpoint: the user's turns, separated by |; repeat.", "--chat"),
    ] = None,
    texts: Annotated[
        list[str] | None,
        arg.texts("Text that an export reads at every checkpoint, for each concept of two classes; repeat.", "--text"),
    ] = None,
) -> None:
    """Show runs in a browser: any checkpoint, all views, records, texts that you type. Only this machine can reach the address."""
    from ontogeny.dashboard.shown_run import ShownRuns

    shown = ShownRuns(runs, _chat_options(user or (), system or (), template, gauges), _opened_lineage(lineage))
    if out is not None:
        _export(shown, out, texts or [], chats or [])
        return
    for name, given in (("texts", texts), ("chats", chats)):
        if given:
            raise BadInput(f"`{name}` are for an export: set `out`, or type them in the page.")

    from ontogeny.dashboard.server import make_server

    server = make_server(shown, port=port, ahead=True)

    def announce() -> None:
        # Commands print no token. This one is made for the address, and ends with the command.
        print(f"dashboard: {server.address}", file=raw(sys.stdout), flush=True)
        typer.echo("Ctrl-C ends it.", err=True)
        if not no_browser:
            import webbrowser

            webbrowser.open(server.address)

    server.serve(announce)


def _opened_lineage(lineage: Path | None) -> "Lineage | None":
    if lineage is None:
        return None
    if not lineage.exists():
        raise BadInput(
            f"`lineage` must be a lineage.toml or a folder of this machine, got {lineage}: correct the path."
        )
    from ontogeny.lineage import Lineage

    return Lineage.open(str(lineage))


def _chat_options(
    users: Sequence[str], systems: Sequence[str], template: str | None, gauges: Path | None
) -> "ChatOptions":
    from ontogeny.dashboard.chat_options import ChatOptions

    pack = None
    if gauges is not None:
        from ontogeny.gauges.pack import load_gauges

        pack = load_gauges(gauges)
    return ChatOptions(arg.given_chat_template(template), tuple(users), tuple(systems), pack)


def _export(shown: "ShownRuns", out: Path, texts: list[str], chats: list[str]) -> None:
    from ontogeny.dashboard.export import export_site
    from ontogeny.storage.files import disk_errors

    if len(shown.members) > 1:
        raise BadInput(f"an export must be of one run, got {len(shown.members)}: name one.")
    turns = [[turn.strip() for turn in chat.split("|")] for chat in chats]
    if not all(turn for chat in turns for turn in chat):
        raise BadInput(
            "`chats` must have words in each turn, got an empty one: write the user's turns, separated by |."
        )
    with disk_errors(out):
        typer.echo(export_site(shown.first, out, texts, turns, shown.chat))
