"""Every notebook runs from top to bottom, what its text claims is so, and its committed copy is fit for a web page."""

import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Run as a last cell: the sentences of the notebook's text, in code.
CLAIMS = {
    "01_quickstart": """
final = {sigma: values[decays.index(0.1)].mean(0) for sigma, values in results.items()}  # accuracy, effective rank
assert final[None][0] < 0.2 and final[None][1] < 1.1, "weight decay alone collapses"
assert final[0.01][0] < 0.2, "sigma = 0.01 does not prevent it"
assert final[1.0][0] > 0.85 and final[1.0][1] > 12, "sigma = 1 does"
assert max(twins[None][2]) == 0, "twins stay twins under weight decay"
for sigma in (0.01, 0.1, 1.0):
    _, gap, distances = twins[sigma]
    assert abs(distances[0] / (LR * DECAY * gap) - 1) < 1e-2, "the first step is eta lambda |b_1 - b_2|"
    assert distances[-1] > 1, "and syre parts them"
""",
    "02_theory": """
ends = {name[:3]: f(paths[name][-1]).item() for name, (f, _) in losses.items()}
assert all(abs(ends[key] - 0.5) < 0.01 for key in ("(1)", "(2)", "(3)")), "on a mirror the path ends in the saddle"
assert ends["(4)"] < 0.1, "with both it leaves"
assert [max(gaps) < 1e-9 for gaps in broken.values()] == [True, True, True, False], "then alone no mirror is left"
assert all((max(values) < 1e-9) == (what != "both") for what, values in searched.items()), "as a blind search confirms"
plain, weak, strong = (arms[name][0] for name in list(arms)[1:])
assert max(plain[1]) == 0, "equal neurons stay equal under decay"
assert plain[0][-1] > 10 * weak[0][-1] > 0, "and syre goes on to a lower loss"
assert max(abs(m / p / 2 / 5**0.5 - 1) for m, p in zip(measured, products)) < 0.1, "the law of the gradient"
assert left_by[0] is None and abs(decade * rate / np.log(10) - 1) < 0.05, "the escape takes log(1 / sigma)"
last = torch.stack([-through[1], through[0]])[:, None]
assert [residual(f, last, points) < 1e-9 for f in rings.values()] == [1, 1, 0], "Eq. (7) breaks the mirror through b"
""",
    "03_results": """
assert len(fig5.runs) == 525 and len(mine.runs) == 20
assert abs(difference.mean() - 0.0856) < 1e-3
assert (ours - yours).abs().max() < 1e-3, "the committed numbers are found again"
alive = {name: both.by_seed("rank", arm).mean() for name, arm, _ in shown}
assert alive["weight decay"] + 20 < alive["σ = 0.3"] < alive["σ = 1"] < alive["no decay"]
""",
    "04_your_model": """
assert diagnosis["verdict"]["collapsed"] and not healthy["verdict"]["collapsed"]
assert "less weight decay" in diagnosis["advice"][0]["do"], "less decay comes first"
assert chosen == 1, "of the strengths"
means = {name: values.mean() for name, values in scores.items()}
assert means[strong_syre] > means[strong] + 0.05, "syre undoes most of what the decay has cost"
assert means[none] > means[strong_syre] and means[none] > means[mild_syre] - 0.05, "no decay at all does as well"
assert verdicts[strong]["collapsed"] and not verdicts[strong_syre]["collapsed"]
assert watch.history[-1]["syre/effective"] < 0.6 < watch.history[1]["syre/effective"]
""",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The notebooks' place in a checkout, which has all that is in this one and may be written to."""
    for path in ROOT.iterdir():
        if path.name not in ("notebooks", "outputs") and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "notebooks"


def run(path: Path, folder: Path, last: str = "") -> None:
    """Execute a copy of the notebook at `path` in `folder`, and `last` after it, with this interpreter's kernel."""
    notebook = nbformat.read(shutil.copy(path, folder), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()


def one_cell(source: str, path: Path) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    return path


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of this environment, and nobody's start-up scripts."""
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_what_it_says_is_so(path: Path, folder: Path) -> None:
    run(path, folder, CLAIMS[path.stem])


def test_a_failing_cell_and_a_false_claim_fail(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    fine = one_cell(f"import sys; assert sys.prefix == {sys.prefix!r}", tmp_path / "fine.ipynb")
    run(fine, tmp_path / "run")
    with pytest.raises(CellExecutionError, match="no such claim"):
        run(fine, tmp_path / "run", "assert False, 'no such claim'")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(one_cell("1 / 0", tmp_path / "broken.ipynb"), tmp_path / "run")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_committed_copy_was_run_in_order_is_small_and_names_no_machine(path: Path) -> None:
    assert path.stat().st_size < 300_000
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) > 1
    assert all(output.output_type in ("stream", "display_data", "execute_result") for output in outputs)
    for output in outputs:
        output.get("data", {}).pop("image/png", None)  # base64 may spell anything
        assert not any(word in str(output) for word in ("/home/", "/Users/", "/tmp/"))
    for place in (str(ROOT), str(Path.home()), sys.prefix, "site-packages", "ipykernel_"):
        assert place == "/" or place not in nbformat.writes(notebook)


def test_every_notebook_has_its_claims() -> None:
    assert set(CLAIMS) == {path.stem for path in NOTEBOOKS}
    assert len(NOTEBOOKS) > 3
