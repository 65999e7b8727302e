"""Rich display in notebooks: objects of all floors name the function in `ontogeny.report.notebook` that draws them as HTML."""

import importlib
from typing import Any


def rich_html(kind: str, value: Any) -> str:
    """The HTML of an object for `_repr_html_`; the report is on a floor above, so it is imported by name.

    Args:
        kind: Name of the object's function, `{kind}_html`, in `ontogeny.report.notebook`.
    """
    module = importlib.import_module("ontogeny.report.notebook")
    html: str = getattr(module, f"{kind}_html")(value)
    return html
