"""Command classes: old spellings still work and print the new one; errors of the library name options."""

from collections.abc import Iterable, Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ontogeny.errors import BadInput

OLD_COMMANDS = {"raise": "train"}
_OLD_COLUMNS = {"--text": "--text-column", "--label": "--label-column"}
OLD_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "compare": {"--views": "--studies", "--texts": "--neutral"},
    "evaluate": {"--alphas": "--alpha"},
    "monitor": {"--at": "--fpr", "--across": "--cross-concept", **_OLD_COLUMNS},
    "steer": {"--method": "--probe"},
    "trace": {"--fits": "--probes", **_OLD_COLUMNS},
    "train": {"--text": "--text-file"},
    "transfer": {"--from": "--run", "--into": "--target", "--onto": "--to-model", "--equal-cost": "--equal-kl"},
}
_OLD_FLAGS: Mapping[str, Mapping[str, str]] = {"trace": {"--template": "own"}}
"""By command: options that had no value, and the value that they stood for."""
OLD_VALUES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "compare": ("studies", {"truth": "truthfulness"}),
    "list": ("folder", {"fits": "probes", "lineages": "suites"}),
    "show": ("args", {"k_alpha": "alpha_grid"}),
}
"""By command: a parameter and its old values; of a list of arguments only the last one is a name."""
_ARGUMENT_OPTIONS = {
    "activations": "--activation",
    "alphas": "--alpha",
    "concepts": "--concept",
    "control_site": "--site",
    "equal_cost": "--equal-kl",
    "fits": "--probes",
    "ignore": "--ignore-column",
    "into": "--target",
    "ks": "--k",
    "layers": "--layer",
    "label": "--label-column",
    "methods": "--method",
    "most_texts": "--limit",
    "most_tokens": "--tokens",
    "penalties": "--penalty",
    "penalty": "--penalty",
    "phrases": "--phrase",
    "rates": "--fpr",
    "rule": "--scale",
    "text": "--text-column",
    "traced": "--run",
}
"""Arguments of the library whose option has another name; a command uses the pairs whose option it has."""

_options: dict[str, str] = {}


def with_options(message: str) -> str:
    """A message of the library, with the options of the running command in the place of Python's arguments."""
    return BadInput(message).spelled(_options)


class Command(TyperCommand):
    """A command that accepts its old options and values, and names its options in errors."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args, old = self._with_new_options(args)
        rest = super().parse_args(ctx, args)
        parameter, names = OLD_VALUES.get(self.name or "", ("", {}))
        if value := ctx.params.get(parameter):
            *others, last = [value] if isinstance(value, str) else value
            words = [word.strip() for word in last.split(",")] if isinstance(value, str) else [last]
            old |= {word: names[word] for word in words if word in names}
            last = ",".join(names.get(word, word) for word in words)
            ctx.params[parameter] = last if isinstance(value, str) else [*others, last]
        _announce(old.items())
        return rest

    def invoke(self, ctx: Any) -> Any:
        _options.clear()
        _options.update(self._option_names())
        try:
            return super().invoke(ctx)
        except BadInput as error:
            error.args = (with_options(str(error)),)
            raise

    def _with_new_options(self, args: list[str]) -> tuple[list[str], dict[str, str]]:
        """The arguments in today's spelling, and the old options among them."""
        renamed, flags = OLD_OPTIONS.get(self.name or "", {}), _OLD_FLAGS.get(self.name or "", {})
        old: dict[str, str] = {}
        new_args: list[str] = []
        with_value = {name for p in self.params if not getattr(p, "is_flag", True) for name in p.opts}
        is_value = False
        for place, arg in enumerate(args):
            if arg == "--" and not is_value:
                return [*new_args, *args[place:]], old
            name, equals, value = arg.partition("=")
            if name in renamed and not is_value:
                old[name] = renamed[name]
                arg = renamed[name] + equals + value
            is_value = not is_value and arg in with_value
            new_args.append(arg)
            if is_value and arg in flags and (place + 1 == len(args) or args[place + 1].startswith("-")):
                old[arg] = f"{arg} {flags[arg]}"
                new_args.append(flags[arg])
                is_value = False
        return new_args, old

    def _option_names(self) -> dict[str, str]:
        long = {p.name: [name for name in p.opts if name.startswith("--")] for p in self.params if p.name}
        own = {name: options[0] for name, options in long.items() if options}
        return {name: option for name, option in _ARGUMENT_OPTIONS.items() if option in own.values()} | own


class CommandGroup(TyperGroup):
    """The commands, by their old names too."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in OLD_COMMANDS:
            _announce([(f"ontogeny {args[0]}", f"ontogeny {OLD_COMMANDS[args[0]]}")])
            args = [OLD_COMMANDS[args[0]], *args[1:]]
        return super().resolve_command(ctx, args)


def _announce(renamed: Iterable[tuple[str, str]]) -> None:
    for old, new in renamed:
        typer.echo(f"ontogeny: {old} is now {new}.", err=True)
