"""What PyPI gets: the wheel is the library, and works with torch and numpy alone; the source distribution is small.

Built without a network, by the setuptools and the uv of this environment.
"""

import ast
import email
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
VERSION = re.search(r'__version__ = "(.*)"', (ROOT / "syre/__init__.py").read_text())[1]
LIBRARY = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("__*__.py", "core/**/*.py", "metrics/**/*.py", "diagnostics/**/*.py", "diagnostics/*.json")
    for path in (ROOT / "syre").glob(pattern)
)
INFO = f"syre_torch-{VERSION}.dist-info"
PAPER = "https://arxiv.org/abs/2408.15495"


def text(name: str) -> str:
    return (ROOT / name).read_text()


def script(name: str) -> str:
    """The first Python script of a page."""
    return re.search(r"```python\n(.*?)```", text(name), re.DOTALL)[1]


# ---- what needs no build ---------------------------------------------------------------------------------------------


def test_the_citation_is_of_the_software_and_of_the_paper():
    software = yaml.safe_load(text("CITATION.cff"))
    assert (software["cff-version"], software["type"], software["version"]) == ("1.2.0", "software", VERSION)
    assert {"message", "title", "license", "authors"} <= software.keys()
    paper = software["preferred-citation"]
    assert (paper["type"], paper["year"], paper["url"]) == ("conference-paper", 2025, PAPER)
    assert [author["family-names"] for author in paper["authors"]] == ["Ziyin", "Xu", "Chuang"]
    assert f"*{paper['title']}*" in " ".join(text("README.md").split())


def test_the_page_on_pypi_has_the_script_of_the_readme_and_no_relative_link():
    page = text("docs/PYPI.md")
    relative = re.compile(r"\]\((?!https?://)|<img|^\[\w+\]:", re.MULTILINE)
    assert script("docs/PYPI.md") == script("README.md")
    assert relative.search(page) is None
    assert relative.search(text("README.md"))  # control
    assert "pip install syre-torch  # the name syre on PyPI belongs to another product" in page
    assert "pip install .  # in a checkout; on PyPI it will be syre-torch, not syre" in text("README.md")


# ---- the two distributions -------------------------------------------------------------------------------------------


class Built:
    """Both distributions, and an environment that has the wheel and nothing else."""

    def __init__(self, folder: Path) -> None:
        checkout, self.folder = folder / "checkout", folder
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in listed.stdout.splitlines():
            if (ROOT / name).exists() and not name.startswith(("results/", "notebooks/")):
                (checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, checkout / name)
        # What an older build may have left behind is not taken over.
        strangers = "syre/trainer.py\nresults/table.csv\n"
        for name, content in (("syre_torch.egg-info/SOURCES.txt", strangers), ("results/table.csv", "1" * 2**21)):
            (checkout / name).parent.mkdir()
            (checkout / name).write_text(content)
        self.run(UV, "build", "--offline", "--no-build-isolation", "--python", sys.executable, "-o", folder, checkout)
        (self.wheel,), (self.source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
        self.python = folder / "env/bin/python"
        self.run(UV, "venv", "--offline", "--python", sys.executable, folder / "env")
        self.run(UV, "pip", "install", "--offline", "--python", self.python, "--no-deps", self.wheel)

    def run(self, *command: str | Path, ok: bool = True, **environment: str) -> subprocess.CompletedProcess:
        own = {**os.environ, "PYTHONPATH": "", "PYTHONSAFEPATH": "1", **environment}
        done = subprocess.run(command, cwd=self.folder, env=own, capture_output=True, text=True)
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done

    def metadata(self) -> Message:
        with zipfile.ZipFile(self.wheel) as archive:
            return email.message_from_string(archive.read(f"{INFO}/METADATA").decode())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("package"))


pytestmark = [pytest.mark.xdist_group("package")]  # it is built once


@pytest.mark.slow
def test_the_wheel_is_the_library_and_nothing_else(built):
    with zipfile.ZipFile(built.wheel) as archive:
        names = archive.namelist()
        texts = {name: archive.read(name).decode() for name in names if name.endswith(".py")}
    about = [f"{INFO}/{name}" for name in ("licenses/LICENSE", "METADATA", "WHEEL", "top_level.txt", "RECORD")]
    assert sorted(names) == sorted([*LIBRARY, "syre/py.typed", *about])
    assert built.wheel.name == f"syre_torch-{VERSION}-py3-none-any.whl"
    here = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in texts}
    for name, source in texts.items():  # also what is imported inside a function
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.split(".")[0] == "syre":
                assert node.module in here, name


@pytest.mark.slow
def test_the_tests_of_the_source_distribution_ask_for_no_part_that_it_lacks(built):
    """Where one needs the checkout it is left out (`pytest.importorskip`), and the others run: `make matrix` does."""
    with tarfile.open(built.source) as archive:
        texts = {e.name: archive.extractfile(e).read() for e in archive if e.name.endswith(".py") and e.isfile()}
    tests = [name.partition("/")[2] for name in texts if "/tests/" in name]
    here = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in (*LIBRARY, *tests)}
    here |= {name.rpartition(".")[0] for name in here}  # folders
    asked, parts = {}, ("syre", "experiments", "scripts", "tests")
    for name, source in texts.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                asked.setdefault(node.module, name)
            elif isinstance(node, ast.Import):
                asked |= {alias.name: name for alias in node.names if alias.name not in asked}
    own = {module: name for module, name in asked.items() if module.split(".")[0] in parts}
    assert {module: name for module, name in own.items() if module not in here} == {}
    assert len(own) > 10


@pytest.mark.slow
def test_the_source_distribution_is_the_library_and_its_tests_and_small(built):
    with tarfile.open(built.source) as archive:
        names = [
            Path(entry.name).relative_to(f"syre_torch-{VERSION}").as_posix() for entry in archive if entry.isfile()
        ]
    tests = [path for name in ("core", "metrics", "diagnostics") for path in ROOT.glob(f"tests/{name}/*.*")]
    tests += [ROOT / "tests/browser.py", ROOT / "tests/conftest.py"]
    pages = ["README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "docs/PYPI.md", "MANIFEST.in", "pyproject.toml"]
    made = ["setup.py", "setup.cfg", "PKG-INFO", "syre_torch.egg-info/SOURCES.txt"]
    wanted = [*LIBRARY, "syre/py.typed", *(str(path.relative_to(ROOT)) for path in tests), *pages, *made]
    assert sorted(names) == sorted(wanted)
    assert built.source.stat().st_size < 2**20


@pytest.mark.slow
def test_no_field_of_the_metadata_is_missing(built):
    fields = built.metadata()
    assert (fields["Name"], fields["Version"], fields["License-Expression"]) == ("syre-torch", VERSION, "MIT")
    assert fields["License-File"] == "LICENSE"
    assert fields["Author"]
    assert fields["Summary"]
    assert fields["Keywords"]
    assert fields.get_all("Project-URL") == [f"Paper, {PAPER}"]
    assert sorted(fields["Requires-Python"].split(",")) == ["<3.14", ">=3.11"]
    needs = [line for line in fields.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(needs) == ["numpy>=1.26", "torch>=2.4"]
    assert {"repro", "rl"} <= set(fields.get_all("Provides-Extra"))
    kinds = fields.get_all("Classifier")
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(kinds)
    assert "Typing :: Typed" in kinds
    assert fields["Description-Content-Type"] == "text/markdown"
    assert fields.get_payload() == text("docs/PYPI.md")


# Of what is installed, only torch, numpy and what these need can be imported.
ALONE = r"""
import importlib, importlib.metadata as metadata, re, sys
from importlib.machinery import PathFinder
from pathlib import Path

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def needed(*names):
    found, names = set(), [*names]
    while names:
        name = plain(names.pop())
        if name not in found:
            found.add(name)
            try:
                lines = metadata.requires(name) or []
            except metadata.PackageNotFoundError:  # for another system
                continue
            names += [re.match(r"[\w.-]+", line)[0] for line in lines if "extra ==" not in line]
    return found

theirs = needed("torch", "numpy")
owners = metadata.packages_distributions().items()
others = {top for top, names in owners if top != "syre" and theirs.isdisjoint(map(plain, names))}

class Alone(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in others else PathFinder.find_spec(name, path, target)

sys.meta_path = [Alone if finder is PathFinder else finder for finder in sys.meta_path]
"""
LIBRARY_ALONE = """
for path in sorted(Path(sys.prefix).glob("lib/python*/site-packages/syre/**/*.py")):
    parts = path.with_suffix("").parts
    importlib.import_module(".".join(parts[parts.index("syre"):]).removesuffix(".__init__"))
import syre
assert Path(syre.__file__).is_relative_to(sys.prefix), syre.__file__
for other in ("pandas", "scipy", "syre.rl", "syre.trainer"):
    try:
        importlib.import_module(other)
    except ModuleNotFoundError as error:
        print(error)
"""


@pytest.mark.slow
def test_the_installed_wheel_needs_torch_and_numpy_alone_and_runs_the_script_of_the_readme(built):
    code = f"{ALONE}{LIBRARY_ALONE}{script('README.md')}\nprint(syre.__version__, float(loss) > 0)"
    done = built.run(built.python, "-c", code, PYTHONPATH=sysconfig.get_path("purelib"))
    missing = [f"No module named '{name}'" for name in ("pandas", "scipy", "syre.rl", "syre.trainer")]
    assert done.stdout.splitlines() == [*missing, f"{VERSION} True"]


@pytest.mark.slow
def test_the_installed_wheel_diagnoses_a_checkpoint_at_the_command_line(built):
    purelib = sysconfig.get_path("purelib")
    save = "import torch; torch.save(torch.nn.Linear(4, 3).state_dict(), 'linear.pt')"
    words = "['diagnose', 'linear.pt', '--html', 'linear.html', '--json', 'linear.json']"
    run = f"import runpy; sys.argv[1:] = {words}; runpy.run_module('syre', run_name='__main__', alter_sys=True)"
    said = built.run(built.python, "-c", f"{ALONE}\n{save}\n{run}", PYTHONPATH=purelib).stdout
    assert "weight" in said
    assert "weight" in (built.folder / "linear.html").read_text()
    (entry,) = json.loads((built.folder / "linear.json").read_text())["weights"]
    assert (entry["name"], entry["rank"]) == ("weight", 3)


@pytest.mark.slow
def test_mypy_sees_its_types_and_control_not_without_the_marker(built):
    (built.folder / "typed.py").write_text("import syre\n\nreveal_type(syre.attach)\nx: int = syre.attach(1, 2)\n")
    mypy = [sys.executable, "-m", "mypy", "--python-executable", built.python, "--cache-dir", built.folder / "mypy"]
    said = built.run(*mypy, "typed.py", ok=False).stdout
    assert re.search(r'Revealed type is "def \(optimizer: .*sigma: .*\) -> syre\.core\.\w+\.SyreHandle"', said)
    assert 'expression has type "SyreHandle", variable has type "int"' in said
    (marker,) = (built.folder / "env").rglob("py.typed")
    hidden = marker.rename(built.folder / "hidden")
    try:
        said = built.run(*mypy, "typed.py", ok=False).stdout
    finally:
        hidden.rename(marker)
    assert "missing library stubs or py.typed marker" in said


@pytest.mark.slow
def test_what_needs_an_extra_says_which(built):
    """In a checkout without the extras: the files of the checkout, with torch and numpy alone."""
    lines = {
        "import syre.rl": ("gymnasium", "rl"),
        "from syre.models import ResNet18; ResNet18().build((3, 8, 8), 2)": ("torchvision", "repro"),
        "import syre.no_such_part": ("syre.no_such_part", None),  # control: that is no package of an extra
    }
    tries = (f"try:\n    {line}\nexcept ModuleNotFoundError as error:\n    print(error)" for line in lines)
    paths = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    done = built.run(built.python, "-c", "\n".join([ALONE, *tries]), PYTHONPATH=paths)
    for said, (name, brought) in zip(done.stdout.splitlines(), lines.values(), strict=True):
        by_extra = f"{name} is not installed: pip install -e '.[{brought}]' in the checkout"
        assert said == (by_extra if brought else f"No module named '{name}'")
