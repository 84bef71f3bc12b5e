"""Pieces of HTML of which the page of a diagnosis is made. Whatever comes from a diagnosis is escaped here."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from syre.diagnostics.charts import escaped
from syre.diagnostics.words import counted, number

SHOWN = 9  # pictures of a part that stand open; the others unfold
DRAWN = 120  # pictures of a part at most
LISTED = 1000  # rows of a table at most
LONG = 4000  # letters of a sentence at most
Entry = Mapping[str, Any]


def section(key: str, title: str, *content: str) -> str:
    inside = "\n".join(filter(None, content))
    return f'<section id="{key}">\n<h2>{escaped(title)}</h2>\n{inside}\n</section>'


def prose(sentence: Any) -> str:
    """A sentence, in which what stands between backticks is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escaped(sentence, LONG))


def paragraph(sentence: Any, css: str = "") -> str:
    return f'<p class="{css}">{prose(sentence)}</p>' if sentence else ""


def bullets(sentences: Iterable[Any] | None, css: str = "") -> str:
    items = "".join(f"<li>{prose(sentence)}</li>" for sentence in sentences or ())
    return f'<ul class="{css}">{items}</ul>' if items else ""


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Terms and what is to be said of them."""
    return f"<dl>{''.join(f'<dt>{escaped(term)}</dt><dd>{escaped(fact, LONG)}</dd>' for term, fact in pairs)}</dl>"


def unfold(label: str, content: str) -> str:
    return f"<details><summary>{escaped(label)}</summary>\n{content}\n</details>" if content else ""


def figure(title: Any, aid: str, picture: str) -> str:
    """A picture with its title in words and a sentence on how to read it; it scrolls where the screen is narrower."""
    caption = f"<figcaption><b>{escaped(title)}</b> <span>{escaped(aid, LONG)}</span></figcaption>"
    return f'<figure class="wide">{caption}{scrolled(title, picture)}</figure>'


def small_figure(title: Any, sentence: str, picture: str) -> str:
    """One picture of a grid."""
    caption = f"<figcaption><b>{escaped(title)}</b> <span>{escaped(sentence, LONG)}</span></figcaption>"
    return f'<figure class="small">{caption}{picture}</figure>'


def scrolled(label: Any, content: str) -> str:
    """What may be wider than the screen scrolls by itself, by the keyboard too."""
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{escaped(label)}">{content}</div>'


def grid(entries: Sequence[Entry], draw: Callable[[Entry], str], what: str) -> str:
    """A picture for each entry: the first ones stand open, the others unfold."""
    drawn = [draw(entry) for entry in entries[:DRAWN]]
    first, others = (f'<div class="pictures">{"".join(some)}</div>' for some in (drawn[:SHOWN], drawn[SHOWN:]))
    more = unfold(f"{counted(len(drawn) - SHOWN, 'more picture')} of {what}", others) if drawn[SHOWN:] else ""
    left = len(entries) - len(drawn)
    return first + more + paragraph(f"{number(left)} more {what} are not drawn." if left else "", "quiet")


def table(label: str, columns: Mapping[str, Callable[[Entry], Any]], entries: Sequence[Entry]) -> str:
    """A table that unfolds, a row for each entry: its name, and a cell for each of `columns`."""
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in ("", *columns))
    body = "\n".join(
        f'<tr><th scope="row">{escaped(entry.get("name"))}</th>'
        + "".join(f"<td>{escaped(cell(entry))}</td>" for cell in columns.values())
        + "</tr>"
        for entry in entries[:LISTED]
    )
    left = len(entries) - LISTED
    note = paragraph(f"{counted(left, 'more row')} left out." if left > 0 else "", "quiet")
    inside = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return unfold(label, scrolled(label, inside) + note) if entries else ""
