"""The Markdown of the pages: each says again what a file of the repository says, and says where it is from."""

import ast
import html
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.site.links import rewritten
from scripts.site.pictures import Picture
from scripts.site.tables import Figure, Row, label

FAILURES_FIRST = ("contrary at this scale", "not reproduced", "inconclusive", "reproduced", "not tested at this scale")
CLASSES = {  # of verdicts, and of the words on a statement: what the style sheet colours
    "reproduced": "yes",
    "not reproduced": "no",
    "contrary at this scale": "no",
    "inconclusive": "open",
    "not tested at this scale": "open",
    "contradicted": "no",
    "contrary so far": "no",
    "partly holds": "partly",
    "not shown here": "open",
    "not decided yet": "open",
    **dict.fromkeys(("holds, an identity", "holds at any σ", "holds as recommended", "holds at larger σ"), "yes"),
}
UNSOUGHT = " { data-search-exclude }"  # by the search of the site: the explorer has the claims
ASIDE = ("Earlier claims", "Provenance")  # folded at the end
WIDE = "---\nhide:\n  - navigation\n  - toc\n---\n\n"
# What of syre/ is offered, a page each: the title, and packages or modules.
API = {
    "index": ("syre", ("syre",)),
    "core": ("syre.core", ("syre.core",)),
    "diagnostics": ("syre.diagnostics", ("syre.diagnostics",)),
    "metrics": ("syre.metrics", ("syre.metrics",)),
    "regularizers": ("syre.regularizers", ("syre.regularizers",)),
    "rivals": ("syre.rivals", ("syre.rivals",)),
    "models": ("syre.models", ("syre.models",)),
    "data": ("syre.data", ("syre.data",)),
    "tasks": ("syre.tasks", ("syre.tasks",)),
    "learners": ("syre.learners", ("syre.learners",)),
    "trainer": ("syre.trainer and syre.optim", ("syre.trainer", "syre.optim")),
    "rl": ("syre.rl", ("syre.rl",)),
    "theory": ("syre.theory", ("syre.theory",)),
}


def badge(verdict: str) -> str:
    """A verdict in its colour."""
    return f'<span class="verdict {CLASSES.get(verdict, "open")}">{html.escape(verdict)}</span>'


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    cells = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in cells)


# ---- the front page and the statements -------------------------------------------------------------------------------


def opening(readme: str) -> str:
    """The opening of the README: up to `<!-- /opening -->`, or else up to the first heading after its code."""
    before, mark, _ = readme.partition("<!-- /opening -->")
    if mark:
        return before.strip()
    code = re.search(r"^```python\n.*?^```$", readme, re.MULTILINE | re.DOTALL)
    after = re.compile(r"^#{2,} ", re.MULTILINE).search(readme, code.end() if code else 0)
    return readme[: after.start() if after else None].strip()


def front(
    readme: str,
    figures: Sequence[Figure],
    claims: Sequence[Row],
    small: Mapping[str, Picture],
    large: Mapping[str, Picture],
    pages: Mapping[str, str],
) -> str:
    """The first page: the opening of the README, and the figures to choose from."""
    ways = "\n".join(
        f'<a class="way" href="{page}"><strong>{title}</strong><span>{said}</span></a>'
        for page, title, said in (
            ("statements.html", "The paper in 26 statements", "What holds, at which σ, and against which rival."),
            (
                "explorer.html",
                "Explorer",
                f"All {len(claims)} claims and every run behind them: filter, and click a point.",
            ),
            (
                "figures/index.html",
                f"{len(figures)} figures and tables",
                "Each with its picture, claims, settings, code and command.",
            ),
            ("api/index.html", "API reference", "What each function does, from its docstring."),
        )
    )
    cards = "\n".join(_card(figure, claims, small.get(figure.name), "figures/") for figure in figures)
    return "\n\n".join(
        (
            WIDE.strip(),
            with_pictures(rewritten(opening(readme), "README.md", "index.md", pages), large),
            f'<nav class="ways" aria-label="What is here">\n{ways}\n</nav>',
            "## Figures",
            f'<div class="cards">\n{cards}\n</div>',
        )
    )


def with_pictures(text: str, large: Mapping[str, Picture]) -> str:
    """The pictures of figures, in a text of the front page, by their copies that load fast."""

    def copied(found: re.Match[str]) -> str:
        picture = large.get(found.group(2))
        return picture.html("", " ".join(found.group(1).split()), lazy=False) if picture else found.group()

    return re.sub(r"!\[([^\]]*)\]\(pictures/(\w+)\.png\)", copied, text)


def gallery(figures: Sequence[Figure], claims: Sequence[Row], small: Mapping[str, Picture]) -> str:
    """All figures with their findings, in the order of the paper."""
    lines = [
        [
            f"[{label(f.name)}]({f.name}.md)",
            f.finding or f.title,
            f.paper,
            f.ours,
            f"{f.scale}, {f.judged_on}",
            f.cost,
        ]
        for f in figures
    ]
    header = ["figure", "finding", "the paper", "here", "scale", "training"]
    cards = "\n".join(_card(figure, claims, small.get(figure.name), "") for figure in figures)
    said = (
        "A page each: the picture, what it shows, every claim with its effect, the settings, the code and the command."
    )
    return "\n\n".join(
        (
            WIDE.strip(),
            "# Figures and tables",
            said,
            f'<div class="cards">\n{cards}\n</div>',
            "## In words",
            table(header, lines),
        )
    )


def _card(figure: Figure, claims: Sequence[Row], picture: Picture | None, folder: str) -> str:
    count = counted(figure, claims)
    marks = " ".join(f'<span class="verdict {CLASSES[verdict]}">{n} {verdict}</span>' for verdict, n in count.items())
    up = "" if folder else "../"
    shown = picture.html(up, f"Thumbnail of {label(figure.name)}") if picture else ""
    return (
        f'<a class="card" href="{folder}{figure.name}.html">{shown}<strong>{label(figure.name)}</strong>'
        f"<span>{html.escape(figure.finding or figure.title)}</span><span>{marks}</span></a>"
    )


def counted(figure: Figure, claims: Sequence[Row]) -> dict[str, int]:
    """How many claims of a figure have which verdict, failures first."""
    count = Counter(row["verdict"] for row in claims if row["figure"] == figure.name)
    return {verdict: count[verdict] for verdict in FAILURES_FIRST if count[verdict]}


def statements(report: str, pages: Mapping[str, str]) -> str:
    """The first screen of REPORT.md: the paper in 26 statements."""
    first = report.partition("\n## Every claim and its verdict")[0]
    words = "|".join(sorted(map(re.escape, CLASSES), key=len, reverse=True))
    first = re.sub(rf"\| ({words}) \|$", lambda found: f"| {badge(found.group(1))} |", first, flags=re.MULTILINE)
    before, rows, after = re.split(r"((?:^\|.*\n)+)", first, maxsplit=1, flags=re.MULTILINE)
    first = f"{before}{stack('statements', rows.strip())}\n{after}"
    further = (
        "Every claim, with its effect and interval: the [explorer](explorer.md). As tables for programs: "
        "[claims.csv](results/claims.csv), [figures.csv](results/figures.csv)."
    )
    return f"{WIDE}{rewritten(first, 'results/REPORT.md', 'statements.md', pages).strip()}\n\n{further}\n"


# ---- a figure --------------------------------------------------------------------------------------------------------


def figure_page(
    figure: Figure,
    claims: Sequence[Row],
    report: str,
    files: Mapping[str, str],
    picture: Picture | None,
    pages: Mapping[str, str],
    swept: Sequence[str],
) -> str:
    """The page of a figure. `files`: its YAML and its code by their paths; `swept`: what the explorer has runs of."""
    name, page, source = figure.name, f"figures/{figure.name}.md", f"results/{figure.name}/report.md"
    own = [row for row in claims if row["figure"] == name]
    sections = sections_of(report)
    notes = rewritten(sections.pop("Deviations and unknowns", ""), source, page, pages)
    shows, settings = split_notes(notes)
    lead = further_of(sections.pop("", ""))
    explore = '<a href="../explorer.html#{}">{}</a>'.format  # mkdocs would look for a heading of that name
    runs = [explore(f"view=runs&figure={s}", f"the runs of {label(s)}") for s in figure.sources if s in swept]
    blocks = [
        f"# {label(name)}: {figure.title}",
        f'<p class="finding" markdown>{rewritten(figure.finding, source, page, pages)}</p>' if figure.finding else "",
        table(["the paper", "here"], [[figure.paper or "–", figure.ours or "–"]])
        if figure.paper or figure.ours
        else "",
        _shown(figure, picture, pages),
        " ".join(f'<span class="verdict {CLASSES[v]}">{n} {v}</span>' for v, n in counted(figure, claims).items()),
        table(
            ["command", "scale", "seeds", "runs", "training"],
            [
                [
                    f"`make {name}`",
                    figure.scale,
                    figure.judged_on.removesuffix(" seeds").removesuffix(" seed"),
                    str(figure.runs),
                    figure.cost,
                ]
            ],
        ),
        f"In the explorer: {', '.join([explore(f'figure={name}', 'its claims')] * bool(own) + runs)}.",
        f"## What it shows\n\n{shows}" if shows else "",
        f"## Claims{UNSOUGHT}" if own else "",
        claims_table(own) if own else "",
        rewritten(lead, source, page, pages),
        f"## Settings: given by the paper, and chosen\n\n{settings}" if settings else "",
        *(
            f"## {title}\n\n{rewritten(text, source, page, pages)}"
            for title, text in sections.items()
            if title not in ASIDE
        ),
        f"## Configuration and code{UNSOUGHT}",
        *(f"Its runs are those of [{label(s)}]({s}.md#configuration-and-code)." for s in figure.sources if s != name),
        *(_code(path, text) for path, text in files.items()),
        *(_folded(title, rewritten(sections[title], source, page, pages)) for title in ASIDE if title in sections),
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def sections_of(report: str) -> dict[str, str]:
    """The sections of a report by their titles; what comes before the first has the title ""."""
    title, found = "", {"": ""}
    fenced = False
    for line in report.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            title = line.removeprefix("## ")
            found[title] = ""
        else:
            found[title] += f"{line}\n"
    return {title: text.strip() for title, text in found.items()}


def further_of(lead: str) -> str:
    """What a report says before its first section, less what a page says itself: title, picture, cost and claims."""
    blocks = [block for block in lead.split("\n\n") if block.strip()]
    own = ("# ", "![the figure]", "Scale `", "| claim | verdict |")
    return "\n\n".join(block for block in blocks if not block.startswith(own))


def split_notes(notes: str) -> tuple[str, str]:
    """What a figure shows, up to the next paragraph of the notes that has a name; and the rest, its settings."""
    found = re.search(r"^\*\*What it shows\.?\*\*\s*(.*?)(?=^\*\*|\Z)", notes, re.DOTALL | re.MULTILINE)
    if not found:
        return "", notes
    return found.group(1).strip(), f"{notes[: found.start()]}{notes[found.end() :]}".strip()


def _shown(figure: Figure, picture: Picture | None, pages: Mapping[str, str]) -> str:
    folder = f"results/{figure.name}"
    if picture is None:
        return ""
    large = [
        f'<a href="../{pages[f"{folder}/{file}"]}">{said}</a>'
        for file, said in (("figure.png", "PNG"), ("figure.pdf", "PDF"))
        if f"{folder}/{file}" in pages
    ]
    alt = f"{label(figure.name)}: {figure.title}"
    caption = f"Drawn by <code>make {figure.name}</code> from the committed tables. {', '.join(large)}"
    return f'<figure class="picture">{picture.html("../", alt, lazy=False)}<figcaption>{caption}</figcaption></figure>'


def claims_table(claims: Sequence[Row]) -> str:
    """The claims of a figure, failures first."""
    lines = [
        [f"**{row['id']}** {row['text']} ({row['source']})", badge(row["verdict"]), effect(row), row["n"], row["paper"]]
        for row in claims
    ]
    return stack("claims", table(["claim", "verdict", "effect [interval]", "seeds", "paper"], lines))


def stack(kind: str, text: str) -> str:
    """A table whose rows are cards on a narrow screen: see style.css."""
    return f'<div class="stack {kind}" markdown>\n\n{text}\n\n</div>'


def effect(row: Row) -> str:
    """`+0.31 [+0.2, +0.42] > 0.05`; a dash without data."""
    if not row["effect"]:
        return "–"
    numbers = [f"{float(row[key]):+.3g}" if row[key] else "" for key in ("effect", "low", "high")]
    interval = f" [{numbers[1]}, {numbers[2]}]" if numbers[1] else ""
    return f"{numbers[0]}{interval} {row['against']}".strip()


def _code(path: str, text: str) -> str:
    language = {"yaml": "yaml", "py": "python"}[path.rsplit(".", 1)[1]]
    return _folded(f"`{path}`", f"``` {language}\n{text.strip()}\n```")


def _folded(title: str, text: str) -> str:
    return f'??? abstract "{title}"\n\n{textwrap.indent(text, "    ")}'


# ---- the API ---------------------------------------------------------------------------------------------------------


def offered(root: Path, package: str) -> list[str]:
    """What the `__init__.py` of a package offers, each by the module that has it: `syre.core.attach.attach`."""
    found = []
    for node in ast.parse(_init(root, package)).body:
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("syre.")):
            module = f"{package}.{node.module}" if node.level else str(node.module)
            for alias in node.names:
                further = offered(root, module) if root.joinpath(*module.split(".")).is_dir() else []
                passed_on = [name for name in further if name.rpartition(".")[2] == alias.name]
                found += passed_on or [f"{module}.{alias.name}"]
    return [name for name in found if not name.rpartition(".")[2].startswith("_")]


def _init(root: Path, package: str) -> str:
    return root.joinpath(*package.split("."), "__init__.py").read_text(encoding="utf-8")


def api_page(page: str, root: Path) -> str:
    """The reference of some packages and modules of syre/, from their docstrings; each object has one page."""
    title, names = API[page]
    front_page = offered(root, "syre")
    blocks = [f"# {title}"]
    for name in names:
        if not root.joinpath(*name.split(".")).is_dir():
            heading = str(len(names) > 1).lower()
            blocks.append(f"::: {name}\n    options:\n      show_root_heading: {heading}")
            continue
        blocks.append(ast.get_docstring(ast.parse(_init(root, name))) or "")
        own = [each for each in offered(root, name) if each.startswith(f"{name}.")]
        elsewhere = [each for each in own if each in front_page and name != "syre"]
        if elsewhere:
            links = (f"[{each.rpartition('.')[2]}](index.md#{each})" for each in elsewhere)
            blocks.append(f"On the page of [syre](index.md): {', '.join(links)}.")
        blocks += [f"::: {each}" for each in own if each not in elsewhere]
    if page == "index":
        others = (f"[{said}]({other}.md)" for other, (said, _) in API.items() if other != page)
        blocks.append(f"The rest: {', '.join(others)}.")
    return "\n\n".join(blocks) + "\n"
