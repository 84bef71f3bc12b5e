"""A diagnosis as one HTML page that needs nothing else: no network, no script, no font or picture of others."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syre.diagnostics import charts, sections, words
from syre.diagnostics.charts import escaped
from syre.diagnostics.markup import LISTED, bullets, facts, paragraph, prose, section, unfold
from syre.diagnostics.sections import worst_first
from syre.diagnostics.style import STYLE
from syre.diagnostics.words import counted, finite, number, part, percent

EVIDENCE = 3  # sentences of an advice's evidence that stand open

# The browser itself sees to it that nothing is fetched or run, whatever a parameter may be called.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
HEAD = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<style>{STYLE}</style>
"""


def write(diagnosis: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page to `path`, whole or not at all, and return it.

    Raises FileNotFoundError if the folder is not there, IsADirectoryError if `path` is one, FileExistsError if it is a
    pipe or a device.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: a page is written to a file, such as {path / 'diagnosis.html'}")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is no file but a pipe or a device, which would be replaced: name a file")
    content = page(diagnosis).encode("utf-8", "replace")  # a name may hold half of a surrogate pair
    target = Path(os.path.realpath(path))  # a link stays one
    temporary = target.with_name(f".{secrets.token_hex(8)}.html")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # some file systems report a full disk only here
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def page(diagnosis: Mapping[str, Any]) -> str:
    """The page as text."""
    title = f"{words.headline(diagnosis)}: {part(diagnosis, 'model').get('class') or 'a model'}"
    parts = (
        *(_verdict, _advice, sections.overview, sections.units, sections.heads, sections.weights),
        *(sections.features, sections.training, _reading, _glossary),
    )
    body = "\n".join(write_part(diagnosis) for write_part in parts)
    return f"{HEAD}<title>{escaped(title)}</title>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"


# ---- verdict and advice ----------------------------------------------------------------------------------------------


def _verdict(diagnosis: Mapping[str, Any]) -> str:
    verdict = part(diagnosis, "verdict")
    collapsed, score = verdict.get("collapsed"), finite(verdict.get("score"))
    css, sign = ("unknown", "?") if collapsed is None else ("bad", "!") if collapsed else ("good", "✓")
    known = collapsed is not None and score is not None
    return "\n".join(
        [
            f'<header id="verdict" class="verdict {css}">',
            paragraph(f"{words.model(diagnosis)}; {words.reading(diagnosis)}.", "kicker"),
            f'<h1><span class="sign" aria-hidden="true">{sign}</span> {escaped(words.headline(diagnosis))}</h1>',
            bullets(verdict.get("because"), "because"),
            charts.gauge(score, finite(verdict.get("threshold"))) if known and score is not None else "",
            paragraph(verdict.get("sure"), "sure"),
            _tiles(diagnosis),
            "</header>",
        ]
    )


def _tiles(diagnosis: Mapping[str, Any]) -> str:
    """The numbers to see first."""
    sets, tiles = words.rows(diagnosis, "units"), []
    if sets:
        symmetric, count = (sum(words.finites(entry.get(key) for entry in sets)) for key in ("symmetric", "count"))
        tiles.append((f"{number(symmetric)} of {number(count)}", "units are twins, sign-twins or dead"))
    for entry in worst_first(diagnosis, "weights")[:1]:
        share = percent(words.against_random(entry))
        tiles.append((share, f"of a random matrix's rank at {entry.get('name')}, the lowest weight"))
    for entry in worst_first(diagnosis, "features")[:1]:
        share = percent(words.of_full(entry))
        tiles.append((share, f"of the rank possible at {entry.get('name')}, the lowest features"))
    for entry in worst_first(diagnosis, "training")[:1]:
        share = percent(finite(part(entry, "broken").get("inward")))
        tiles.append((share, f"of the units of {entry.get('name')} are on their way into symmetry"))
    items = "".join(f"<li><b>{escaped(number)}</b> <span>{escaped(what, 90)}</span></li>" for number, what in tiles)
    return f'<ul class="tiles">{items}</ul>' if items else ""


def _advice(diagnosis: Mapping[str, Any]) -> str:
    entries, items = words.rows(diagnosis, "advice"), []
    for place, entry in enumerate(entries):
        evidence = _evidence(list(entry.get("evidence") or ()))
        content = [
            '<p class="tag">Try this first</p>' if place == 0 and len(entries) > 1 else "",
            f"<h3>{prose(entry.get('do') or '-')}</h3>",
            paragraph(entry.get("because")),
            evidence,
            paragraph(f"How sure: {entry['sure']}" if entry.get("sure") else "", "sure"),
        ]
        items.append(f"<li>{''.join(content)}</li>")
    advice = f'<ol class="advice">{"".join(items)}</ol>' if items else paragraph("There is no advice.", "quiet")
    return section("advice", "What to do", advice)


def _evidence(sentences: list[Any]) -> str:
    """What was measured; of a long list, most unfolds."""
    shown = len(sentences) if len(sentences) <= EVIDENCE else EVIDENCE - 1
    more = unfold(f"{number(len(sentences) - shown)} more", bullets(sentences[shown:]))
    inside = f"<h4>What was measured</h4>{bullets(sentences[:shown])}{more}"
    return f'<div class="evidence">{inside}</div>' if sentences else ""


# ---- what it rests on ------------------------------------------------------------------------------------------------


def _reading(diagnosis: Mapping[str, Any]) -> str:
    structure, model = part(diagnosis, "structure"), part(diagnosis, "model")
    unread = [str(name) for name in structure.get("unread") or ()]
    pairs = [
        ("Model", model.get("class") or "not known"),
        ("Parameters", f"{number(model.get('parameters'))} numbers in {counted(model.get('tensors'), 'tensor')}"),
        ("Structure", words.reading(diagnosis)),
        *((f"Not looked at: {what}", why) for what, why in words.not_looked_at(diagnosis)),
        ("Not in the forward pass", counted(len(unread), "parameter")),
    ]
    names = unfold(f"Names of {counted(len(unread), 'parameter')} not in the forward pass", bullets(unread[:LISTED]))
    return section("reading", "How the model was read", facts(pairs), names if unread else "")


GLOSSARY = (
    ("Twins", "two units with equal incoming and equal outgoing weights: gradients treat them alike, they stay equal."),
    ("Sign-twins", "the same but for the sign of one of them, where the activation function is odd."),
    ("Dead", "a unit whose incoming or outgoing weights are 0: nothing passes through it."),
    ("Symmetric", "twins, sign-twins and dead units together: each costs some of what the model can express."),
    ("Random network", "one of the same shape with independent Gaussian weights: what chance alone gives."),
    ("Effective rank", "how many directions carry a matrix: the exponential of the entropy of its spectrum."),
    ("Stable rank", "the sum of the squared singular values over the square of the largest one."),
    ("syre", "weight decay towards a small random point that stays, instead of 0: it removes the symmetries."),
)


def _glossary(diagnosis: Mapping[str, Any]) -> str:
    return section("words", "Words", facts(GLOSSARY))
