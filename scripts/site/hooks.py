"""What mkdocs is told beyond mkdocs.yml: the pages made of results/, configs/, experiments/ and syre/, and its links."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from scripts.site import pages, pictures, tables
from scripts.site.links import rewritten

ROOT = Path(__file__).parents[2]
THEME = Path(__file__).parent / "theme"
SMALL, LARGE = 480, 1400  # pixels: of a thumbnail, and of a picture on its page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all that docs/ has not, and say what stands where."""
    results = ROOT / "results"
    figures, claims = tables.figures(results), tables.claims(results)
    guides = sorted(file.src_uri for file in files.documentation_pages(inclusion=InclusionLevel.is_included))
    where = places(figures, guides)
    config.extra["places"] = where

    def add(path: str, content: str | bytes) -> None:
        files.append(File.generated(config, path, content=content))

    for path, place in where.items():
        if path.startswith("results/") and not place.endswith(".md"):
            add(place, (ROOT / path).read_bytes())
    large, small = {}, {}
    for path in sorted(results.glob("*/figure.png")):
        name = path.parent.name
        large[name] = pictures.copy(path, f"pictures/{name}.webp", LARGE)
        small[name] = pictures.copy(path, f"pictures/{name}-small.webp", SMALL)
    for picture in (*large.values(), *small.values()):
        add(picture.path, picture.content)

    swept = add_explorer(add, figures, claims)
    add("index.md", pages.front(_read("README.md"), figures, claims, small, where))
    add("statements.md", pages.statements(_read("results/REPORT.md"), where))
    add("changelog.md", rewritten(_read("CHANGELOG.md"), "CHANGELOG.md", "changelog.md", where))
    add("figures/index.md", pages.gallery(figures, claims, small))
    for figure in figures:
        own = (f"configs/experiment/{figure.name}.yaml", f"experiments/figures/{figure.name}.py")
        code = {path: _read(path) for path in own if (ROOT / path).is_file()}
        report = _read(f"results/{figure.name}/report.md")
        page = pages.figure_page(figure, claims, report, code, large.get(figure.name), where, swept)
        add(f"figures/{figure.name}.md", page)
    for page in pages.API:
        add(f"api/{page}.md", pages.api_page(page, ROOT))
    config.nav = nav(figures, guides)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The links of docs/, which lead through the repository."""
    source = page.file.src_uri
    if page.file.generated_by:
        return markdown
    return rewritten(markdown, f"docs/{source}", source, config.extra["places"])


def places(figures: list[tables.Figure], guides: list[str]) -> dict[str, str]:
    """File of the repository -> page or file of the site."""
    found = {"README.md": "index.md", "docs/PYPI.md": "index.md", "CHANGELOG.md": "changelog.md"}
    found |= {"results/REPORT.md": "statements.md", "results": "statements.md"}
    found |= {f"docs/{name}": name for name in guides}
    found |= {f"results/{name}": f"results/{name}" for name in ("claims.csv", "figures.csv")}
    for figure in figures:
        name = figure.name
        page = f"figures/{name}.md"
        found[f"results/{name}/report.md"] = page
        code = f"{page}#configuration-and-code"
        found |= {f"configs/experiment/{name}.yaml": code, f"experiments/figures/{name}.py": code}
    for path in sorted((ROOT / "results").glob("*/figure.*")):
        found[path.relative_to(ROOT).as_posix()] = f"pictures/{path.parent.name}{path.suffix}"
    for page, (_, names) in pages.API.items():
        for name in names:
            path = name.replace(".", "/")
            found |= {f"{path}.py": f"api/{page}.md", f"{path}/__init__.py": f"api/{page}.md"}
    return found


def nav(figures: list[tables.Figure], guides: list[str]) -> list[dict[str, object]]:
    """What stands in the menu."""
    return [
        {"Home": "index.md"},
        {"26 statements": "statements.md"},
        {"Explorer": "explorer.md"},
        {"Figures": ["figures/index.md", *({tables.label(f.name): f"figures/{f.name}.md"} for f in figures)]},
        {"Guides": [*guides, "changelog.md"]},
        {"API": [{title: f"api/{page}.md"} for page, (title, _) in pages.API.items()]},
    ]


def add_explorer(add, figures, claims) -> list[str]:  # noqa: ANN001
    """The page, its scripts and its data; the experiments that it has."""
    added = tables.later(ROOT / "configs")
    folders = sorted((path.parent for path in (ROOT / "results").glob("*/runs.csv")), key=lambda f: tables.in_order(f.name))
    for folder in folders:
        add(f"data/{folder.name}.js", tables.script(f"runs/{folder.name}", tables.sweep(folder, added)))
    swept = [folder.name for folder in folders]
    looks = tables.looks(_read("experiments/analysis/arms.py"))
    add("data/index.js", tables.script("index", index(figures, claims, swept, looks)))
    add("explorer.md", _theme("explorer.md"))
    for name in ("accessible.js", "explorer.js", "iframe-worker.js", "style.css"):
        add(f"assets/{name}", _theme(name))
    return swept


def index(figures, claims, swept, looks) -> dict[str, object]:  # noqa: ANN001
    """What the explorer begins with: all claims, the names of figures and sweeps, and the looks of arms."""
    columns = ("figure", "id", "text", "source", "verdict", "effect", "low", "high", "against", "n", "paper", "scale")
    return {
        "figures": {figure.name: tables.label(figure.name) for figure in figures},
        "sweeps": {name: tables.label(name) for name in swept},
        "looks": looks,
        "claims": [
            {column: row[column] for column in columns}
            | {"shown": pages.effect(row), "sigmas": tables.sigmas(row["text"]), "gammas": tables.gammas(row["text"])}
            for row in sorted(claims, key=lambda row: tables.in_order(row["figure"]))
        ],
    }


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _theme(name: str) -> str:
    return (THEME / name).read_text(encoding="utf-8")
