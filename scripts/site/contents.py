"""What is on the site: where each file of the repository is shown, the menu, and what the explorer begins with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.site import pages, tables

COLUMNS = ("figure", "id", "text", "source", "verdict", "effect", "low", "high", "against", "n", "paper", "scale")


def places(root: Path, figures: Sequence[tables.Figure], guides: Sequence[str]) -> dict[str, str]:
    """File of the repository -> the page of the site that shows it, or the file."""
    found = {"README.md": "index.md", "docs/PYPI.md": "index.md", "CHANGELOG.md": "changelog.md"}
    found |= {"results/REPORT.md": "statements.md", "results": "statements.md"}
    found |= {f"docs/{name}": name for name in guides}
    found |= {f"results/{name}": f"results/{name}" for name in ("claims.csv", "figures.csv")}
    for figure in figures:
        page = f"figures/{figure.name}.md"
        code = f"{page}#configuration-and-code"
        found[f"results/{figure.name}/report.md"] = page
        found |= {f"configs/experiment/{figure.name}.yaml": code, f"experiments/figures/{figure.name}.py": code}
    for path in sorted((root / "results").glob("*/figure.*")):
        found[path.relative_to(root).as_posix()] = f"pictures/{path.parent.name}{path.suffix}"
    for page, (_, names) in pages.API.items():
        for name in names:
            module = name.replace(".", "/")
            found |= {f"{module}.py": f"api/{page}.md", f"{module}/__init__.py": f"api/{page}.md"}
    return found


def nav(figures: Sequence[tables.Figure], guides: Sequence[str]) -> list[dict[str, object]]:
    """The menu."""
    return [
        {"Home": "index.md"},
        {"26 statements": "statements.md"},
        {"Explorer": "explorer.md"},
        {"Figures": ["figures/index.md", *({tables.label(f.name): f"figures/{f.name}.md"} for f in figures)]},
        {"Guides": [*guides, "changelog.md"]},
        {"API": [{title: f"api/{page}.md"} for page, (title, _) in pages.API.items()]},
    ]


def index(
    figures: Sequence[tables.Figure],
    claims: Sequence[tables.Row],
    swept: Sequence[str],
    looks: Mapping[str, Mapping[str, str]],
) -> dict[str, object]:
    """All claims in the order of the figures, the names of figures and of sweeps, and the looks of arms."""
    return {
        "figures": {figure.name: tables.label(figure.name) for figure in figures},
        "sweeps": {name: tables.label(name) for name in swept},
        "looks": looks,
        "claims": [
            {column: row[column] for column in COLUMNS}
            | {"shown": pages.effect(row), "sigmas": tables.sigmas(row["text"]), "gammas": tables.gammas(row["text"])}
            for row in sorted(claims, key=lambda row: tables.in_order(row["figure"]))
        ],
    }
