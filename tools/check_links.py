"""Check every link and anchor of a built site: `python tools/check_links.py docs/_build/html`. Other hosts are not asked."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """Links, anchors and loaded files of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {"", "top"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := given.get(name))}
        if tag == "a" and (target := given.get("href")):
            self.links.append(target)
        wanted = tag != "link" or given.get("rel") in ("stylesheet", "preload", "icon")
        target = given.get("src") or (given.get("href") if tag == "link" else None)
        if target and wanted:
            self.loaded.append(target)


def read_page(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken_links(site: Path) -> list[str]:
    """Links whose file or anchor is not there, and files that a page loads from another host."""
    pages = {path.resolve(): read_page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    broken = []
    for path, page in pages.items():
        place = path.relative_to(site.resolve())
        broken += [f"{place} loads {target}" for target in page.loaded if urlsplit(target).netloc]
        for target in (*page.links, *page.loaded):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            other = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not other.exists():
                broken.append(f"{place} -> {target}")
            elif parts.fragment and other in pages and unquote(parts.fragment) not in pages[other].anchors:
                broken.append(f"{place} -> {target} (no such anchor)")
    return broken


def main() -> None:
    found = broken_links(Path(sys.argv[1]))
    print("\n".join(found) or "every link and anchor resolves; no page loads a file from another host")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
