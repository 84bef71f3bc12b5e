"""From the tables to figures and verdicts, of those figures whose tables, code or pictures have changed; no torch.

It leaves results/<name>/{figure.pdf, figure.png, report.md} and the overviews results/{REPORT.md, claims.csv,
figures.csv}, which depend on the tables only, and the README's table beside results/. What has not changed since it was
last judged and drawn here, its tables, the code and the pictures, is left as it is: `results/.drawn.json`, which is not
committed, remembers that.
"""

import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import experiments.analysis
import experiments.figures
from experiments.analysis.summaries import EARLIER, Summary, beyond, summary_table, terminal_table

MEMORY = ".drawn.json"
LOCK = ".drawn.lock"
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
        self.recall()

    def recall(self) -> None:
        """Read what is kept, which another command may have written since."""
        folder = self.folder
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

    def keep(self, name: str, sources: Sequence[str], tables: str, summary: Summary, drawn: bool) -> None:
        """Remember what was made of a figure's `tables`, as they were then; `drawn`: its pictures too, as they are."""
        files = self._files(name) if drawn else ""
        self.figures[name] = {"sources": list(sources), "tables": tables, "summary": summary, "files": files}

    def judged(self, name: str) -> bool:
        """Whether the summary that is kept is that of the tables as they are."""
        kept = self.figures.get(name)
        return kept is not None and kept["tables"] == self.tables(kept["sources"])

    def drawn(self, name: str) -> bool:
        """Whether the pictures are those of the tables as they are."""
        return self.judged(name) and self.figures[name]["files"] == self._files(name)

    def summaries(self, names: Sequence[str]) -> list[Summary]:
        """What is said of these figures."""
        return [self.figures[name]["summary"] for name in names]

    def drawn_from(self, experiment: str) -> list[str]:
        """The other figures that are drawn from the runs of this one."""
        return [name for name, kept in self.figures.items() if experiment in kept["sources"] and experiment != name]

    def tables(self, sources: Sequence[str]) -> str:
        """A digest of the tables of some experiments."""
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

    Raises: `ResultsError` when there is no such figure, or no results for it; then nothing has been written. And where
    another command has been drawing there for ten minutes.
    """
    from experiments.analysis import pages
    from experiments.analysis.locks import hold
    from experiments.analysis.results import ResultsError

    if not asked and not pages.available(memory.folder):
        raise ResultsError(f"no results in {memory.folder}: `make fig4`, say, trains and collects some")
    for name in asked:
        pages.module_of(name)
    with hold(memory.folder / LOCK, patience=600) if memory.folder.is_dir() else nullcontext(True) as ours:
        if not ours:
            raise ResultsError(f"another command has been drawing in {memory.folder} for ten minutes")
        memory.recall()
        return _renew(memory, asked)


def _renew(memory: Memory, asked: Sequence[str]) -> list[str]:
    from experiments.analysis import listing, pages
    from experiments.analysis.overview import found, overview
    from experiments.analysis.results import write_files

    folder, readme = memory.folder, memory.folder.parent / "README.md"
    there = pages.available(folder)
    wanted = [name for figure in asked for name in (figure, *sorted({*pages.drawn_from(figure)} & {*there}))]
    names = list(dict.fromkeys(wanted)) or there
    sources = {name: _all_sources(name) for name in dict.fromkeys([*names, *there])}
    stale = [name for name in sources if not (memory.drawn if name in names else memory.judged)(name)]
    before = {name: memory.tables(sources[name]) for name in stale}  # a sweep may write them meanwhile
    made = _in_parallel(_make, [(name, folder, name in names) for name in stale])
    write_files({path: content for _, drawn in made for path, content in drawn.items()})
    for name, (summary, drawn) in zip(stale, made, strict=True):
        memory.keep(name, sources[name], before[name], summary, bool(drawn))
    memory.figures = {name: memory.figures[name] for name in there}
    everything = [kept["summary"] for kept in memory.figures.values()]
    said = {"REPORT.md": overview, "claims.csv": listing.claims, "figures.csv": listing.figures}
    overviews = {folder / name: made(everything).encode() for name, made in said.items()}
    places = {
        "found": found(everything),
        "figures": summary_table(everything),
        "beyond": beyond(everything, f"{folder.name}/"),
    }
    if readme.is_file():
        overviews[readme] = _filled_in(readme.read_text(), places).encode()
    write_files(overviews)
    write_files({folder / MEMORY: memory.content()})  # last: what it knows is not done again
    return names


def _all_sources(name: str) -> list[str]:
    """The experiments whose tables a figure is made of, or shows something of beside its own."""
    from experiments.analysis import pages

    module = pages.module_of(name)
    return [*pages.sources(module, name), *pages.beside(module)]


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
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(cores, mp_context=forked, initializer=_end_with_its_parent) as pool:
        return [future.result() for future in [pool.submit(call, *each) for each in arguments]]


def _end_with_its_parent() -> None:
    """Let a forked process end when the one that forked it has been killed: it would wait for more work for ever."""

    def watch(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    if parent := multiprocessing.parent_process():
        threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


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
