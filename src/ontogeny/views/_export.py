"""Pictures as files: PNG, SVG, PDF, HTML and JSON, with the title, the run and the caption inside."""

import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import altair as alt
import vl_convert

from ontogeny.errors import BadInput, escape_control
from ontogeny.storage.files import atomic_path
from ontogeny.views._page import chart_page
from ontogeny.views._size import Length, draw_size, outer_width, parse_length, resize, wrap_titles
from ontogeny.views._theme import MUTED_COLOUR

_ENDINGS = (".png", ".svg", ".pdf", ".html", ".json")
_TOP_LEVEL = ("$schema", "config", "params", "datasets", "usermeta", "description")
"""Keys that only the outermost chart may have."""
_SVG = "{http://www.w3.org/2000/svg}"
_PRINT_DPI = 300
"""Resolution of a PNG whose size is given in mm, cm, in or pt; one in px has two dots a px."""
_CLICK_HINT = " (click to single out)"
"""End of the title of a legend whose entries can be clicked."""
_CAPTION_LETTER = 5.5
"""Mean width of a letter of the caption, in px."""


def save_chart(
    chart: Any, path: str | Path, *, width: str | float | None = None, height: str | float | None = None
) -> Path:
    """Write a chart as .png, .svg, .pdf (with its fonts), .html (self-contained) or .json (without title and caption).

    Args:
        chart: A chart of a view.
        path: The file; its ending is the format.
        width: Width of the picture: px, or a length such as "85mm" or "3.3in". The panels are laid out for it.
        height: Height of the picture.

    Raises:
        BadInput: unknown file extension, or a size that no picture can have.
    """
    path = Path(path)
    if path.suffix not in _ENDINGS:
        raise BadInput(f"the name of a chart must end with {', '.join(_ENDINGS[:-1])} or .json, got {path.name!r}.")
    sides = tuple(
        None if side is None else parse_length(side, name) for side, name in ((width, "width"), (height, "height"))
    )
    spec = _visible(chart.to_dict())
    # With a full disk the previous file stays.
    with atomic_path(path) as temporary:
        temporary.write_bytes(_encode(spec, path, *sides))
    return path


def _encode(spec: dict[str, Any], path: Path, width: Length | None, height: Length | None) -> bytes:
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    if path.suffix == ".json":
        return json.dumps(spec if width is height is None else resize(spec, version, width, height), indent=2).encode()
    spec = _framed(spec, None if width is None else width.px)
    if path.suffix != ".html":
        spec = _without_hints(spec)
    scale, size = 1.0, (width, height)
    if width is not None or height is not None:
        spec = resize(spec, version, width, height)
        drawn = draw_size(spec, version)
        given = [(side.px / now) for side, now in zip(size, drawn, strict=True) if side is not None]
        scale = min(given)
        unit = next(side.unit for side in size if side is not None)
        size = Length(drawn[0] * scale, unit), Length(drawn[1] * scale, unit)
    match path.suffix:
        case ".png":
            printed = size[0] is not None and size[0].unit != "px"
            # The converter takes 72 px for an inch.
            dots, ppi = (0.75 * scale, _PRINT_DPI) if printed else (2 * scale, None)
            picture: bytes = vl_convert.vegalite_to_png(spec, vl_version=version, scale=dots, ppi=ppi)
            return picture
        case ".pdf":
            svg = vl_convert.vegalite_to_svg(spec, vl_version=version)
            pdf: bytes = vl_convert.svg_to_pdf(_flat(svg, 0.75 * scale))  # a PDF counts in points, 72 an inch
            return pdf
        case ".svg":
            return _sized(vl_convert.vegalite_to_svg(spec, vl_version=version), *size).encode()
        case _:
            return chart_page(spec, path.stem).encode()


def _sized(svg: str, width: Length | None, height: Length | None) -> str:
    """The SVG with these sides; what it shows is scaled to them."""
    if width is None or height is None:
        return svg
    sides = f'width="{width.attribute}" height="{height.attribute}"'
    return re.sub(r'(<svg[^>]*?) width="[\d.]+" height="[\d.]+"', rf"\1 {sides}", svg, count=1)


def _flat(svg: str, scale: float) -> str:
    """The SVG, scaled, without groups that change nothing: a PDF has a limit of nested groups."""
    root = ElementTree.fromstring(svg)
    parents = {child: parent for parent in root.iter() for child in parent}
    for group in [element for element in root.iter(f"{_SVG}g") if not _changes_drawing(element)]:
        parent = parents[group]
        at = list(parent).index(group)
        parent.remove(group)
        for child in reversed(list(group)):
            parent.insert(at, child)
            parents[child] = parent
    for side in ("width", "height"):
        root.set(side, f"{float(root.get(side, '0')) * scale:.3f}")
    ElementTree.register_namespace("", _SVG.strip("{}"))
    return ElementTree.tostring(root, encoding="unicode")


def _changes_drawing(group: ElementTree.Element) -> bool:
    names = ("class", "role", "aria-roledescription", "aria-label", "aria-hidden")
    return any(name not in names and (name, value) != ("transform", "translate(0,0)") for name, value in group.items())


def _framed(spec: Mapping[str, Any], width: float | None) -> dict[str, Any]:
    """The chart below its title and the name of the run, and above its caption."""
    about = spec.get("usermeta") or {}
    inner = {key: value for key, value in spec.items() if key not in _TOP_LEVEL}
    top = {key: spec[key] for key in _TOP_LEVEL if key in spec}
    title = {"text": about.get("title", ""), "fontSize": 16, "subtitle": about.get("run", ""), "subtitleFontSize": 12}
    room = outer_width(inner) if width is None else min(outer_width(inner), width)
    lines = textwrap.wrap(about.get("caption", ""), max(int(max(room, width or 420) / _CAPTION_LETTER), 30))
    caption = {
        "text": lines or "",
        "orient": "bottom",
        "anchor": "start",
        "fontSize": 10.5,
        "fontWeight": "normal",
        "color": MUTED_COLOUR,
        "lineHeight": 14,
        "offset": 16,
    }
    # The chart keeps its legends together.
    own = {"scale": dict.fromkeys(("color", "shape", "strokeDash", "size"), "independent")}
    headed = {"vconcat": [inner], "title": title | {"offset": 14}, "resolve": own}
    framed = {**top, "vconcat": [headed], "title": caption, "resolve": own}
    if width is None:
        wrap_titles(framed, max(room, 420))
    return framed


def _without_hints(value: Any) -> Any:
    """A specification without the hint to click, which a picture on paper does not answer."""
    if isinstance(value, dict):
        return {key: _without_hints(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_hints(item) for item in value]
    return value.removesuffix(_CLICK_HINT) if isinstance(value, str) else value


def _visible(value: Any) -> Any:
    """A specification whose texts have no control character, which would abort the drawing of a picture."""
    if isinstance(value, str):
        return escape_control(value)
    if isinstance(value, dict):
        return {_visible(k): _visible(v) for k, v in value.items()}
    return [_visible(v) for v in value] if isinstance(value, list | tuple) else value
