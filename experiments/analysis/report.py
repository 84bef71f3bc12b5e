"""From the tables to figures and verdicts, of those figures whose tables, code or pictures have changed; no torch.

It leaves results/<name>/{figure.pdf, figure.png, report.md} and the overviews results/{REPORT.md, claims.csv,
figures.csv}, which depend on the tables only, and the README's table beside results/. What has not changed since it was
last judged and drawn here, its tables, the code and the pictures, is left as it is: `results/.drawn.json`, which is not
committed, remembers that.
"""

import hashlib
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import experiments.analysis
import experiments.figures
from experiments.analysis.summaries import EARLIER, Summary, beyond, summary_table, terminal_table

MEMORY = ".drawn.json"
FILES = ("figure.pdf", "figure.png", "report.md")
TABLES = ("runs.csv", "metrics.csv")
CONFIGS = Path(__file__).parents[2] / "configs"

# pages, and pandas and matplotlib with it, is imported where something has changed: else all is said in half a second.


class Memory:
    """What was judged and drawn in a results folder: the summary of each figure, and digests of what it came from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rooms = [*experiments.analysis.__path__, *experiments.figures.__path__]
        modules = [path for room in rooms for path in sorted(Path(room).glob("*.py"))]
        said = [*sorted(CONFIGS.glob("*/*.yaml")), folder / EARLIER]  # settings that came later, and earlier claims
        self.code = _digest([*modules, *said], *map(version, ("matplotlib", "numpy", "pandas", "scipy")))
        self.trained = sorted(path.parent.name for path in folder.glob("*/runs.csv"))
        try:
            kept = json.loads((folder / MEMORY).read_text())
            current = (kept["code"], kept["trained"]) == (self.code, self.trained)
            self.figures: dict[str, dict[str, Any]] = kept["figures"] if current else {}
        except (OSError, ValueError, KeyError, TypeError):
            self.figures = {}

    def content(self) -> bytes:
        """The file."""
        return json.dumps({"code": self.code, "trained": self.trained, "figures": self.figures}).encode()

    def keep(self, name: str, sources: Sequence[str], summary: Summary, drawn: bool) -> None:
        """Remember a figure as it is now; `drawn`: its pictures too."""
        tables, files = self._tables(sources), self._files(name) if drawn else ""
        self.figures[name] = {"sources": list(sources), "tables": tables, "summary": summary, "files": files}

    def judged(self, name: str) -> bool:
        """Whether the summary that is kept is that of the tables as they are."""
        kept = self.figures.get(name)
        return kept is not None and kept["tables"] == self._tables(kept["sources"])

    def drawn(self, name: str) -> bool:
        """Whether the pictures are those of the tables as they are."""
        return self.judged(name) and self.figures[name]["files"] == self._files(name)

    def summaries(self, names: Sequence[str]) -> list[Summary]:
        """What is said of these figures."""
        return [self.figures[name]["summary"] for name in names]

    def drawn_from(self, experiment: str) -> list[str]:
        """The other figures that are drawn from the runs of this one."""
        return [name for name, kept in self.figures.items() if experiment in kept["sources"] and experiment != name]

    def _tables(self, sources: Sequence[str]) -> str:
        return _digest([self.folder / source / table for source in sources for table in TABLES])

    def _files(self, name: str) -> str:
        return _digest([self.folder / name / file for file in FILES])


def _digest(paths: Sequence[Path], *words: str) -> str:
    """blake2 of some files and words; a file that is not there counts as empty."""
    found = hashlib.blake2b(repr(words).encode(), digest_size=16)
    for path in paths:
        content = path.read_bytes() if path.is_file() else b""
        found.update(f"{path.name} {len(content)} ".encode() + content)
    return found.hexdigest()


def known(memory: Memory, asked: Sequence[str]) -> list[str] | None:
    """The names of the figures asked for (none: all there are), if nothing has to be done for them."""
    there = list(memory.figures)
    names = list(dict.fromkeys(name for figure in asked for name in (figure, *memory.drawn_from(figure)))) or there
    fresh = there and all(map(memory.judged, there)) and all(map(memory.drawn, names))
    return names if fresh else None


def renew(memory: Memory, asked: Sequence[str]) -> list[str]:
    """Judge and draw what has changed, and bring the overviews up to date; the names of the figures asked for.

    Raises: `ResultsError` when there is no such figure, or no results for it; then nothing has been written.
    """
    from experiments.analysis import listing, pages
    from experiments.analysis.overview import found, overview
    from experiments.analysis.results import ResultsError, write_files

    folder, readme = memory.folder, memory.folder.parent / "README.md"
    there = pages.available(folder)
    wanted = [name for figure in asked for name in (figure, *sorted({*pages.drawn_from(figure)} & {*there}))]
    names = list(dict.fromkeys(wanted)) or there
    if not names:
        raise ResultsError(f"no results in {folder}: `make fig4`, say, trains and collects some")
    sources = {name: pages.sources(pages.module_of(name), name) for name in dict.fromkeys([*names, *there])}
    stale = [name for name in sources if not (memory.drawn if name in names else memory.judged)(name)]
    made = _in_parallel(_make, [(name, folder, name in names) for name in stale])
    write_files({path: content for _, drawn in made for path, content in drawn.items()})
    for name, (summary, drawn) in zip(stale, made, strict=True):
        drawn_of = [*sources[name], *pages.beside(pages.module_of(name))]
        memory.keep(name, drawn_of, summary, bool(drawn))
    memory.figures = {name: memory.figures[name] for name in there}
    everything = [kept["summary"] for kept in memory.figures.values()]
    said = {"REPORT.md": overview, "claims.csv": listing.claims, "figures.csv": listing.figures}
    overviews = {folder / name: made(everything).encode() for name, made in said.items()}
    write_files(overviews | {folder / MEMORY: memory.content()})
    places = {
        "found": found(everything),
        "figures": summary_table(everything),
        "beyond": beyond(everything, f"{folder.name}/"),
    }
    if readme.is_file():
        write_files({readme: _filled_in(readme.read_text(), places).encode()})
    return names


def _filled_in(text: str, places: Mapping[str, str]) -> str:
    """A text with what stands between `<!-- name -->` and `<!-- /name -->` replaced, where it has such a place."""
    for name, said in places.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if end:
            text = f"{before}{mark}{said}\n{end}{after}"
    return text


def _make(name: str, folder: Path, draw: bool) -> tuple[Summary, dict[Path, bytes]]:
    """The summary of a figure, and its files if they are to be drawn."""
    from experiments.analysis import pages

    report = pages.judge(name, folder)
    return pages.summary(report), pages.pictures(report, folder) if draw else {}


def _in_parallel(call: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The results of several calls, on all cores where this process can be forked."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if min(cores, len(arguments)) < 2 or threading.active_count() > 1:
        return [call(*each) for each in arguments]
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("fork")) as pool:
        return [future.result() for future in [pool.submit(call, *each) for each in arguments]]


def show(asked: Sequence[str], folder: Path) -> None:
    """Bring the figures asked for (none: all there are) up to date, and print each claim. Raises: as `renew`."""
    memory = Memory(folder)
    for summary in memory.summaries(known(memory, asked) or renew(memory, asked)):
        print(terminal_table(summary))


def sketch(asked: Sequence[str], folder: Path) -> None:
    """Draw figures, and the others there that share their runs; nothing is judged or said. Raises: as `renew`."""
    from experiments.analysis import pages
    from experiments.analysis.results import write_files

    there = pages.available(folder)
    names = [name for figure in asked for name in (figure, *sorted({*pages.drawn_from(figure)} & {*there}))]
    for drawn in _in_parallel(pages.sketch, [(name, folder) for name in dict.fromkeys(names)]):
        write_files(drawn)
