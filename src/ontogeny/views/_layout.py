"""Charts, and charts in layers, rows, columns and grids, without the work that Altair does again for each of them.

Altair copies the parts of a compound chart, with all that they contain, each time it is made, changed or written, because
it moves interactive parameters to the top. Parts without parameters need none of this. And for each channel that is given
as text it hashes the schemas of its 500 classes to find that of the channel, which its name says.
"""

from typing import Any

import altair as alt
from altair.vegalite.v6.schema import core


class _Unchecked:
    """Properties without a look at their schema: the contract of views checks whole charts."""

    @classmethod
    def validate_property(cls, name: str, value: Any, schema: dict[str, Any] | None = None) -> None:
        pass


class Chart(_Unchecked, alt.Chart):
    """A single chart."""

    def encode(self, *channels: Any, **named: Any) -> Any:
        return super().encode(*channels, **{name: _channel(name, value) for name, value in named.items()})


def _channel(name: str, value: Any) -> Any:
    """The object of a channel that is given as text, or by `alt.condition`; anything else as it is."""
    if isinstance(value, list):
        return [_channel(name, item) for item in value]
    kind = name[0].upper() + name[1:]
    if isinstance(value, dict) and "value" in value:
        return getattr(alt, f"{kind}Value")(**value)
    return getattr(alt, kind)(value) if isinstance(value, str) else value


class _Layers(_Unchecked, alt.LayerChart):
    def __init__(self, data: Any = alt.Undefined, layer: Any = (), **properties: Any) -> None:
        core.TopLevelLayerSpec.__init__(self, data=data, layer=list(layer), **properties)


class _Row(_Unchecked, alt.HConcatChart):
    def __init__(self, data: Any = alt.Undefined, hconcat: Any = (), **properties: Any) -> None:
        core.TopLevelHConcatSpec.__init__(self, data=data, hconcat=list(hconcat), **properties)


class _Column(_Unchecked, alt.VConcatChart):
    def __init__(self, data: Any = alt.Undefined, vconcat: Any = (), **properties: Any) -> None:
        core.TopLevelVConcatSpec.__init__(self, data=data, vconcat=list(vconcat), **properties)


class _Grid(_Unchecked, alt.ConcatChart):
    def __init__(
        self, data: Any = alt.Undefined, concat: Any = (), columns: Any = alt.Undefined, **properties: Any
    ) -> None:
        core.TopLevelConcatSpec.__init__(self, data=data, concat=list(concat), columns=columns, **properties)


def overlay(*charts: Any) -> Any:
    """Charts drawn over each other, as `alt.layer`."""
    # Altair also moves the size of a layer to the whole.
    has_size = any(_is_set(chart, name) for chart in charts for name in ("width", "height", "view"))
    return alt.layer(*charts) if has_size or _any_has_parameters(charts) else _Layers(layer=charts)


def hconcat(*charts: Any, **properties: Any) -> Any:
    """Charts beside each other, as `alt.hconcat`."""
    return alt.hconcat(*charts, **properties) if _any_has_parameters(charts) else _Row(hconcat=charts, **properties)


def vconcat(*charts: Any, **properties: Any) -> Any:
    """Charts below each other, as `alt.vconcat`."""
    return alt.vconcat(*charts, **properties) if _any_has_parameters(charts) else _Column(vconcat=charts, **properties)


def concat(*charts: Any, **properties: Any) -> Any:
    """Charts in a grid, as `alt.concat`."""
    return alt.concat(*charts, **properties) if _any_has_parameters(charts) else _Grid(concat=charts, **properties)


def _any_has_parameters(charts: Any) -> bool:
    return any(_is_set(chart, "params") for chart in charts)


def _is_set(chart: Any, name: str) -> bool:
    return getattr(chart, name, alt.Undefined) is not alt.Undefined
