"""What mkdocs is told beyond mkdocs.yml: the pages made of results/, configs/, experiments/ and syre/, and links."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from scripts.site import contents, pages, pictures, tables
from scripts.site.links import rewritten

ROOT = Path(__file__).parents[2]
SMALL, LARGE = 480, 1400  # pixels: of a thumbnail, and of a picture on its page

Add = Callable[[str, str | bytes], None]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all that docs/ has not."""
    figures, claims = tables.figures(ROOT / "results"), tables.claims(ROOT / "results")
    guides = sorted(file.src_uri for file in files.documentation_pages(inclusion=InclusionLevel.is_included))
    where = config.extra["places"] = contents.places(ROOT, figures, guides)
    config.nav = contents.nav(figures, guides)

    def add(path: str, content: str | bytes) -> None:
        files.append(File.generated(config, path, content=content))

    for path, place in where.items():
        if path.startswith("results/") and not place.endswith(".md"):
            add(place, (ROOT / path).read_bytes())
    large, small = _pictures(add)
    swept = _explorer(add, figures, claims)
    add("index.md", pages.front(_read("README.md"), figures, claims, small, large, where))
    add("statements.md", pages.statements(_read("results/REPORT.md"), where))
    add("changelog.md", rewritten(_read("CHANGELOG.md"), "CHANGELOG.md", "changelog.md", where))
    add("figures/index.md", pages.gallery(figures, claims, small))
    for figure in figures:
        own = (f"configs/experiment/{figure.name}.yaml", f"experiments/figures/{figure.name}.py")
        code = {path: _read(path) for path in own if (ROOT / path).is_file()}
        report = _read(f"results/{figure.name}/report.md")
        add(
            f"figures/{figure.name}.md",
            pages.figure_page(figure, claims, report, code, large.get(figure.name), where, swept),
        )
    for page in pages.API:
        add(f"api/{page}.md", pages.api_page(page, ROOT))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The links of docs/, which lead through the repository."""
    source = page.file.src_uri
    if page.file.generated_by:
        return markdown
    return rewritten(markdown, f"docs/{source}", source, config.extra["places"])


def _pictures(add: Add) -> tuple[dict[str, pictures.Picture], dict[str, pictures.Picture]]:
    """The pictures of all figures by their names, as large as on a page, and small."""
    large, small = {}, {}
    for path in sorted((ROOT / "results").glob("*/figure.png")):
        name = path.parent.name
        large[name] = pictures.copy(path, f"pictures/{name}.webp", LARGE)
        small[name] = pictures.copy(path, f"pictures/{name}-small.webp", SMALL)
    for picture in (*large.values(), *small.values()):
        add(picture.path, picture.content)
    return large, small


def _explorer(add: Add, figures: Sequence[tables.Figure], claims: Sequence[tables.Row]) -> list[str]:
    """Add its page, its scripts and its data; the experiments that it has."""
    added = tables.later(ROOT / "configs")
    swept = sorted((path.parent.name for path in (ROOT / "results").glob("*/runs.csv")), key=tables.in_order)
    for name in swept:
        add(f"data/{name}.js", tables.script(f"runs/{name}", tables.sweep(ROOT / "results" / name, added)))
    looks = tables.looks(_read("experiments/analysis/arms.py"))
    add("data/index.js", tables.script("index", contents.index(figures, claims, swept, looks)))
    add("explorer.md", _read("scripts/site/theme/explorer.md"))
    for name in ("accessible.js", "explorer.js", "iframe-worker.js", "style.css"):
        add(f"assets/{name}", _read(f"scripts/site/theme/{name}"))
    return swept


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
