"""Pictures of a given size: panels are laid out anew for the width, so that the text keeps its size.

The size of a Vega-Lite chart is known when it is drawn, so it is drawn at two sizes of its panels; between these its size is linear.
"""

import copy
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import vl_convert

from ontogeny.errors import BadInput

_PX = {"px": 1.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0, "pt": 96 / 72}
_LEAST_PANEL, _LEAST_PICTURE, _MOST_PICTURE = 50, 120, 10_000
_NARROW = 520
"""Below this width in px, legends are below their panels."""
_LETTER = 6.2
"""Mean width of a letter of 11 px, in px."""


@dataclass(frozen=True)
class Length:
    """A length in px, at 96 px an inch, and the unit in which it was given."""

    px: float
    unit: str = "px"

    @property
    def attribute(self) -> str:
        """The length as an attribute of an SVG."""
        number = f"{self.px / _PX[self.unit]:.3f}".rstrip("0").rstrip(".")
        return number if self.unit == "px" else f"{number}{self.unit}"


def parse_length(value: str | float, argument: str) -> Length:
    """A length such as 85mm, 3.3in or 600 (px).

    Raises:
        BadInput: it is not a length, or a picture cannot have it.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(px|mm|cm|in|pt)?\s*", str(value))
    if match is None:
        raise BadInput(
            f"`{argument}` must be a length such as 85mm, 3.3in or 600px, got {value!r}: give a number and a unit."
        )
    unit = match[2] or "px"
    px = float(match[1]) * _PX[unit]
    if not _LEAST_PICTURE <= px <= _MOST_PICTURE:
        raise BadInput(
            f"`{argument}` must be from {_LEAST_PICTURE} to {_MOST_PICTURE:,} px (32mm to 2.6 m), got {value}: give another length."
        )
    return Length(px, unit)


def draw_size(spec: dict[str, Any], version: str) -> tuple[float, float]:
    """Width and height of a chart in px, as it is drawn."""
    head = vl_convert.vegalite_to_svg(spec, vl_version=version)[:400]
    found = re.search(r'<svg[^>]* width="([\d.]+)" height="([\d.]+)"', head)
    assert found is not None, "an SVG has a size"
    return float(found[1]), float(found[2])


def resize(spec: dict[str, Any], version: str, width: Length | None, height: Length | None) -> dict[str, Any]:
    """The chart with panels laid out and stretched for a width and a height; a picture of it may differ by rounding."""
    if width is not None:
        spec = _laid_out(copy.deepcopy(spec), width.px)
        spec = _stretch(spec, "width", width.px, lambda s: draw_size(s, version)[0])
    if height is not None:
        spec = _stretch(spec, "height", height.px, lambda s: draw_size(s, version)[1])
    return spec


def outer_width(spec: dict[str, Any]) -> float:
    """Estimated width of a chart, with axes, in px."""
    if "hconcat" in spec:
        return sum(map(outer_width, spec["hconcat"])) + 20 * (len(spec["hconcat"]) - 1)
    if "vconcat" in spec:
        return max(map(outer_width, spec["vconcat"]), default=0)
    if "concat" in spec:
        widths, columns = list(map(outer_width, spec["concat"])), int(spec.get("columns", len(spec["concat"])))
        return max(sum(widths[i : i + columns]) for i in range(0, len(widths), columns))
    width = spec.get("width", 200)
    return (width if isinstance(width, int | float) else 200) + (0 if _is_legend(spec) else 50)


def wrap_titles(spec: dict[str, Any], width: float) -> None:
    """Break long titles and subtitles into lines, in place; `width` is that of a chart without one, in px."""
    title = spec.get("title")
    here = min(outer_width(spec), width)
    if isinstance(title, str):
        spec["title"] = textwrap.wrap(title, max(int(here / (1.15 * _LETTER)), 20)) or title
    elif isinstance(title, dict) and title.get("orient") != "bottom":
        for key, letter in (("text", 1.15 * _LETTER), ("subtitle", _LETTER)):
            given = title.get(key)
            lines = [given] if isinstance(given, str) else list(given or [])
            if key == "text":  # several lines of a title are one sentence
                lines = [" ".join(lines)]
            wrapped = [part for text in lines for part in textwrap.wrap(text, max(int(here / letter), 20)) or [text]]
            if wrapped:
                title[key] = wrapped
    for child in _children(spec):
        wrap_titles(child, width)


def _children(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key in ("hconcat", "vconcat", "concat"):
        yield from spec.get(key, ())


def _panels(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The charts that have a size of their own, without symbols of legends."""
    children = list(_children(spec))
    if not children and not _is_legend(spec):
        yield spec
    for child in children:
        yield from _panels(child)


def _is_legend(spec: dict[str, Any]) -> bool:
    return isinstance(spec.get("height"), int | float) and spec["height"] <= 14


def _laid_out(spec: dict[str, Any], width: float) -> dict[str, Any]:
    """Fewer panels beside each other, legends below, and lines of text that fit."""
    for key in ("hconcat", "concat"):
        if key not in spec:
            continue
        each = max(map(outer_width, spec[key]), default=1.0)
        legend = all(map(_is_legend, spec[key]))
        fitting = max(1, int((width - 50 if legend else width + 20) // (each + 10)))
        columns = min(int(spec.get("columns", len(spec[key]))), fitting)
        if key == "concat" or outer_width(spec) > width:
            spec["concat"] = spec.pop(key)
            spec["columns"] = columns
        if legend:
            spec["columns"] = columns
            return spec
        width = width / max(1, spec.get("columns", columns))
        break
    for child in _children(spec):
        _laid_out(child, width)
    if not list(_children(spec)) and isinstance(spec.get("width"), int | float):
        spec["width"] = (
            min(spec["width"], max(width - 60, _LEAST_PANEL)) if spec["width"] > width - 60 else spec["width"]
        )
    if not list(_children(spec)):
        _narrow(spec, width)
    wrap_titles(spec, width)
    return spec


def _narrow(spec: Any, width: float) -> None:
    """Legends below the panels, and labels of ticks that leave room for each other, in place."""
    if isinstance(spec, list):
        for item in spec:
            _narrow(item, width)
    if not isinstance(spec, dict):
        return
    for key, value in spec.items():
        if key == "legend" and isinstance(value, dict) and width < _NARROW:
            value |= {"orient": "bottom", "labelLimit": width / 2}
            if "gradientLength" not in value:
                value["columns"] = max(1, int((width - 50) // 140))
            if "gradientLength" in value:
                value |= {
                    "gradientLength": min(value["gradientLength"], max(width - 80, 60)),
                    "direction": "horizontal",
                }
        elif key == "x" and isinstance(value, dict):
            _narrow_axis(value, width)
        elif key not in ("data", "datasets", "values"):
            _narrow(value, width)


def _narrow_axis(x: dict[str, Any], width: float) -> None:
    """An axis along x whose title and labels fit, in place."""
    axis = x.get("axis")
    for place in (x, axis if isinstance(axis, dict) else {}):
        if isinstance(place.get("title"), str):
            place["title"] = textwrap.wrap(place["title"], max(int((width - 60) / _LETTER), 16)) or place["title"]
    if isinstance(axis, dict) and width < _NARROW:
        axis["labelOverlap"] = "greedy"


def _stretch(
    spec: dict[str, Any], side: Literal["width", "height"], target: float, measured: Callable[[dict[str, Any]], float]
) -> dict[str, Any]:
    """The chart with the sides of its panels multiplied so that the picture has the target."""
    sizes = [panel[side] for panel in _panels(spec) if isinstance(panel.get(side), int | float)]
    whole = measured(spec)
    if not sizes or abs(whole - target) < 1:
        return spec
    factor = 0.8 if whole > target else 1.25
    other = measured(_scaled(spec, side, factor))
    grown = (other - whole) / (factor - 1)
    share = 1 + (target - whole) / grown if abs(grown) > 1 else 1.0
    share = max(share, min(1.0, _LEAST_PANEL / min(sizes)))
    return _scaled(spec, side, share)


def _scaled(spec: dict[str, Any], side: str, factor: float) -> dict[str, Any]:
    spec = copy.deepcopy(spec)
    for panel in _panels(spec):
        if isinstance(panel.get(side), int | float):
            panel[side] = round(panel[side] * factor, 2)
    return spec
