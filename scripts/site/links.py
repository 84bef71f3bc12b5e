"""Text of the repository as text of the site: links lead to pages of the site, lists are read as GitHub reads them.

A file of the repository that no page shows is named, not linked: the site stands alone, and knows no host of the code.
"""

import posixpath
import re
from collections.abc import Callable, Mapping

FENCE = re.compile(r"(^```.*?^```[^\S\n]*$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[((?:!\[[^\]]*\]\([^)]*\)|`[^`]*`|[^\[\]`])*)\]\(([^()\s]+)\)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^()\s]+)\)")
ATTRIBUTE = re.compile(r'(<(?:a|img|source)\b[^>]*?\b(href|src|srcset)=")([^"]+)"')
ITEM = re.compile(r"^(\s*)(?:[-*+]|\d+\.)\s")


def page_of(path: str, pages: Mapping[str, str]) -> str | None:
    """The page, or the file, of the site that shows a file or a folder of the repository; None where there is none.

    `pages`: file of the repository -> page of the site, of those that have one of their own.
    """
    path = path.removesuffix("/")
    return pages.get(path) or pages.get(f"{path}/report.md") or pages.get(f"{path}/__init__.py")


def rewritten(text: str, source: str, page: str, pages: Mapping[str, str]) -> str:
    """The Markdown of `source`, a file of the repository, as it stands on `page` of the site: links and lists."""
    return _outside_code(text, lambda part: _spaced(_relinked(part, source, page, pages)))


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    parts = FENCE.split(text)
    return "".join(part if place % 2 else change(part) for place, part in enumerate(parts))


def _relinked(text: str, source: str, page: str, pages: Mapping[str, str]) -> str:
    def where(link: str) -> str | None:
        """The link on the site; None for a file that the site has not."""
        if re.match(r"[a-z]+:|#|//", link):
            return link
        path, _, anchor = link.partition("#")
        found = page_of(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)), pages)
        if found is None:
            return None
        # a page that shows several files may have a place for each, and then no other
        found, _, place = found.partition("#")
        to = posixpath.relpath(found, posixpath.dirname(page) or ".")
        return to + (f"#{place or anchor}" if place or anchor else "")

    def link(found: re.Match[str]) -> str:
        words, path = found.group(1), found.group(2)
        if (to := where(path)) is not None:
            return f"[{words}]({to})"
        if words.startswith("!["):
            return words
        named = posixpath.normpath(posixpath.join(posixpath.dirname(source), path.partition("#")[0]))
        return f"`{named}`" if words.strip("`") in (path, named) else f"{words} (`{named}`)"

    def picture(found: re.Match[str]) -> str:
        return f"![{found.group(1)}]({where(found.group(2)) or found.group(2)})"

    def attribute(found: re.Match[str]) -> str:
        to = where(found.group(3)) or "#"
        return f'{found.group(1)}{re.sub(r"[.]md(?=#|$)", ".html", to)}"'

    text = LINK.sub(link, text)
    return ATTRIBUTE.sub(attribute, PICTURE.sub(picture, text))


def _spaced(text: str) -> str:
    """A blank line before each list that begins within a paragraph, for Python-Markdown needs one; GitHub does not."""
    lines: list[str] = []
    for line in text.split("\n"):
        item = ITEM.match(line)
        before = lines[-1] if lines else ""
        if item and before.strip() and not ITEM.match(before) and not _within_item(lines):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def _within_item(lines: list[str]) -> bool:
    """Whether the paragraph that the last line belongs to began as an item of a list."""
    for line in reversed(lines):
        if not line.strip():
            return False
        if ITEM.match(line):
            return True
    return False
