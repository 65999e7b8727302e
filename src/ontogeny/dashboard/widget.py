"""Widget: the one NiceGUI element of the dashboard, a part of dashboard.js with its options."""

from collections.abc import Callable
from typing import Any

from nicegui.element import Element
from nicegui.events import GenericEventArguments


class Widget(Element, component="widget.js"):
    """A part of dashboard.js on the page.

    Args:
        kind: chart, table, timeline, choice, navigation, findings, …
        options: What the part is drawn from; JSON.
        on_event: Called with the name and the value of each of its events.
    """

    def __init__(
        self, kind: str, options: dict[str, Any], on_event: Callable[[str, Any], None] = lambda name, value: None
    ) -> None:
        super().__init__()
        self.options = options
        self._props["kind"] = kind
        self._props["options"] = options

        def hear(event: GenericEventArguments) -> None:
            if isinstance(event.args, dict):
                on_event(str(event.args.get("name", "")), event.args.get("value"))

        self.on("said", hear)

    def show(self, options: dict[str, Any]) -> None:
        """Draw it from other options; nothing happens if they are the same."""
        if options != self.options:
            self.options = options
            self._props["options"] = options
            self.update()
