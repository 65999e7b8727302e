"""Dashboard: runs in a browser, from one process on this machine.

`endpoints/` answers in JSON and needs no page; `page` is the NiceGUI page over it; `assets/` is what a browser loads.
Needs the extra `dashboard`.
"""

__all__ = [
    "access",
    "api",
    "assets",
    "atlas",
    "attention",
    "attention_page",
    "attention_picture",
    "bench",
    "chat",
    "chat_options",
    "chat_requests",
    "checkpoint_models",
    "endpoints",
    "export",
    "export_models",
    "gauge_cards",
    "logit_lens",
    "page",
    "selection",
    "server",
    "shown_run",
    "text_lens",
    "widget",
]
