"""The report follows from the tables alone: the same tables, the same files; without tables, one line."""

import csv
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

import experiments.figures
from experiments import report
from experiments.analysis import pages, plotting
from experiments.analysis import report as redrawn

MODULE = """
from experiments.analysis.arms import POINT, arm, beats, by_arm, costs, curves, rises, same
from experiments.analysis.plotting import panels, with_legend

TITLE = "a synthetic figure"
NOTES = '''
    The paper does not say | how.
'''
AT = {"optim.lr": 0.1}
SYRE, DECAY, DROPOUT = {"regularizer.name": "syre"}, {"regularizer.name": "weight_decay"}, arm("dropout")
CLAIMS = (
    beats("C1", "syre keeps the rank", "6.3", "rank", SYRE | AT, DECAY | AT, margin=1, paper="42 %"),
    same("C2", "accuracy is the same", "6.3", "accuracy", SYRE | AT, DECAY | AT, 0.05),
    rises("C3", "rank falls with lr", "6.3", "rank", SYRE, "optim.lr"),
    beats("C4", "dropout is worse", "B", "rank", DECAY | AT, DROPOUT, arms=(DECAY | AT, DROPOUT)),
    beats("C5", "decay keeps the rank", "ours", "rank", DECAY | AT, SYRE | AT, margin=5, argued="a jump"),
    costs("C6", "syre is as accurate", "5.4", "accuracy", SYRE | AT, DECAY | AT, POINT),
    beats("C7", "decay is better in the long run", "ours", "rank", DECAY | AT, SYRE | AT, scale="paper"),
)
RETIRED = {"old": "repeats C1"}


def draw(results):
    figure, (ax,) = panels()
    curves(ax, by_arm(results.final("rank")), "optim.lr", "rank")
    ax.set(xscale="log", xlabel="lr", ylabel="rank")
    return with_legend(figure)
"""


def write_results(folder, seeds=5):
    """Tables as `collect` writes them."""
    folder.mkdir(parents=True)
    head = "id,scale,status,seed,optim.lr,regularizer.name,regularizer.sigma,git_sha,dirty,device,threads,seconds"
    runs, metrics = [head + ",versions.torch"], ["id,step,split,metric,value"]
    for name, sigma in (("syre", "0.1"), ("weight_decay", "")):
        for k, lr in enumerate((0.01, 0.1, 1)):
            for seed in range(seeds):
                run_id = f"{len(runs):012x}"
                runs.append(f"{run_id},cpu,done,{seed},{lr},{name},{sigma},abc123,false,cpu,1,10.25,2.15.0")
                rank = (90 if name == "syre" else 40) + k + 0.1 * seed
                metrics += [f"{run_id},100,test,rank,{rank}", f"{run_id},100,test,accuracy,{0.9 + 0.001 * seed}"]
    (folder / "runs.csv").write_text("\n".join(runs) + "\n")
    (folder / "metrics.csv").write_text("\n".join(metrics) + "\n")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder with two figures, `synth2` and `synth10`, whose modules are importable."""
    for name in ("synth2", "synth10"):
        (tmp_path / "modules").mkdir(exist_ok=True)
        (tmp_path / "modules" / f"{name}.py").write_text(MODULE)
        write_results(tmp_path / "results" / name)
        monkeypatch.delitem(sys.modules, f"experiments.figures.{name}", raising=False)
    monkeypatch.setattr(experiments.figures, "__path__", [*experiments.figures.__path__, str(tmp_path / "modules")])
    return tmp_path / "results"


def state(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_figure_gets_its_pictures_its_report_and_its_line_in_the_overview(results, capsys):
    assert report.main(["synth2", "--results", str(results)]) == 0
    assert {path.name for path in (results / "synth2").iterdir()} == {
        *("runs.csv", "metrics.csv", "figure.pdf", "figure.png", "report.md")
    }
    assert not (results / "synth10/report.md").exists()  # not asked for
    text = (results / "synth2/report.md").read_text()
    for part in (
        "# synth2: a synthetic figure",
        "Scale `cpu`: 30 runs over 5 seeds, 0 failed, 0 went NaN; 308 s of training.",
        "| **C1** syre keeps the rank (6.3) | reproduced | +50 [+50, +50] > 1 | 5 | 42 % |",
        "| **C2** accuracy is the same (6.3) | reproduced | +0 [+0, +0] ≈ 0 ± 0.05 | 5 |  |",
        "| **C3** rank falls with lr (6.3) | reproduced | +1 [+1, +1] > 0.5 | 5 |  |",
        "| **C4** dropout is worse (B) | not tested at this scale | – | 0 |  |",
        "| **C5** decay keeps the rank (ours; a jump) | not reproduced | -50 [-50, -50] > 5 | 5 |  |",
        "| **C6** syre is as accurate (5.4) | reproduced | +0 [+0, +0] > -0.01 | 5 |  |",
        "| **C7** decay is better in the long run (ours) | contrary at this scale | -50 [-50, -50] > 0 | 5 |  |",
        "\n## What is still open\n\nA run is taken to cost 0.0028 core-hours",
        "| **C4** | 3 seeds | 3 | 0.0085 |",
        "\nThe paper does not say | how.\n",
        "- git: abc123\n",
        "- torch: 2.15.0\n",
    ):
        assert part in text, part
    failures_first = ["C7", "C5", "C1", "C2", "C3", "C6", "C4"]
    judged, _, still_open = text.partition("## What is still open")
    assert re.findall(r"^\| \*\*(C\d)\*\*", judged, re.MULTILINE) == failures_first
    assert re.findall(r"^\| \*\*(C\d)\*\*", still_open, re.MULTILINE) == ["C4"]  # which states its arms
    assert "## Earlier claims" not in text
    overview = (results / "REPORT.md").read_text()
    assert overview.index("[synth2](synth2/report.md)") < overview.index("[synth10](synth10/report.md)")
    counts = "8 reproduced, 2 not reproduced, 2 not tested at this scale, 2 contrary at this scale."
    assert counts in overview
    assert re.findall(r"\*\*(C\d)\*\*", overview) == failures_first * 2
    printed = capsys.readouterr().out
    assert re.findall(r"^  (C\d)", printed, re.MULTILINE) == failures_first
    assert "C1  reproduced" in printed
    assert "-50 [-50, -50] > 5" in printed
    assert "paper: 42 %" in printed


EARLIER = """\
figure,id,text,source,kind,margin,verdict,effect,low,high,n
synth2,C1,syre keeps the rank,6.3,superiority,1,reproduced,50,50,50,5
synth2,C2,"accuracy is the same, nearly",6.3,equivalence,0.05,reproduced,0,0,0,5
synth2,C3,rank falls with lr,6.3,monotone,0,reproduced,1,1,1,5
synth2,C4,dropout is worse,B,superiority,0,inconclusive,nan,nan,nan,0
synth2,C6,syre is as accurate,5.4,equivalence,0.01,reproduced,0,-0.001,0.001,5
synth2,old,syre has more | rank,6.3,superiority,0,reproduced,50.1,49,51.5,5
synth10,C1,another,6.3,superiority,1,reproduced,50,50,50,5
"""


def test_earlier_claims_that_changed_are_listed_with_their_verdicts(results):
    """Each of the sentence, the kind, the margin and the verdict; what is as it was is not said again."""
    (results / "earlier.csv").write_text(EARLIER)
    assert report.main(["synth2", "--results", str(results)]) == 0
    _, _, section = (results / "synth2/report.md").read_text().partition("## Earlier claims")
    assert [line for line in section.splitlines() if line.startswith("| **")] == [
        "| **C2** accuracy is the same, nearly (6.3) | reproduced, +0 [+0, +0] | reproduced, +0 [+0, +0] ≈ 0 ± 0.05 |",
        "| **C3** rank falls with lr (6.3) | reproduced, +1 [+1, +1] | reproduced, +1 [+1, +1] > 0.5 |",
        "| **C4** dropout is worse (B) | inconclusive, – | not tested at this scale, – |",
        "| **C6** syre is as accurate (5.4) | reproduced, +0 [-0.001, +0.001] | reproduced, +0 [+0, +0] > -0.01 |",
        "| **old** syre has more \\| rank (6.3) | reproduced, +50.1 [+49, +51.5] | repeats C1 |",
    ]


def test_a_damaged_file_of_earlier_claims_is_one_line_and_nothing_is_written(results, capsys):
    (results / "earlier.csv").write_text(EARLIER.replace(",verdict,", ",verdikt,"))
    before = state(results)
    assert report.main(["--results", str(results)]) == 2
    line = capsys.readouterr().err
    assert line == f"error: {results}/earlier.csv: no column verdict; `git checkout` restores it\n"
    assert state(results) == before


def test_a_figure_of_several_experiments_is_drawn_when_all_of_them_are_there(results):
    source = MODULE.replace("TITLE =", 'EXPERIMENT = ("synth2", "synth10")\nTITLE =')
    source = source.replace('{"regularizer.name"', '{"experiment": "synth2", "regularizer.name"')
    (results.parent / "modules/table77.py").write_text(source)
    assert pages.available(results) == ["synth2", "synth10", "table77"]
    verdicts = {v.claim.id: v for v in pages.judge("table77", results).verdicts}
    assert (verdicts["C1"].verdict, verdicts["C1"].n) == ("reproduced", 5)
    assert len(pages.judge("table77", results).results.runs) == 60
    (results / "synth10/runs.csv").unlink()
    assert pages.available(results) == ["synth2"]  # control


def test_a_figure_that_draws_runs_of_another_too_waits_for_them():
    assert pages.lacking("fig4_scale", {"fig4_scale"}) == {"fig4"}
    assert pages.lacking("fig4_scale", {"fig4_scale", "fig4"}) == set()
    assert pages.lacking("sigma_map", set()) == {"fig2", "fig5", "fig9", "fig11", "fig13"}
    assert pages.lacking("mine", {"mine"}) == set()  # no figure of ours


def test_without_names_every_figure_is_drawn_and_a_second_time_nothing_is_touched(results):
    assert report.main(["--results", str(results)]) == 0
    before = state(results)
    assert len(before) == 2 * 5 + 4
    assert report.main(["--results", str(results)]) == 0
    assert state(results) == before
    table = results / "synth2/metrics.csv"
    table.write_text(table.read_text().replace(",rank,9", ",rank,8"))
    assert report.main(["--results", str(results)]) == 0
    changed = {path.relative_to(results).as_posix() for path, now in state(results).items() if now != before[path]}
    assert changed == {f"synth2/{name}" for name in ("metrics.csv", "figure.pdf", "figure.png", "report.md")} | {
        *("REPORT.md", "claims.csv", redrawn.MEMORY)
    }  # control


def test_only_what_has_changed_is_judged_and_drawn(results, monkeypatch):
    made = []
    monkeypatch.setattr(redrawn, "_in_parallel", lambda call, each: made.append(each) or [call(*one) for one in each])

    def again(*words):
        made.clear()
        assert report.main([*words, "--results", str(results)]) == 0
        return [(name, drawn) for each in made for name, _, drawn in each]

    assert again("synth2") == [("synth2", True), ("synth10", False)]  # whose verdicts the overview has too
    assert again("synth2") == []
    assert again() == [("synth10", True)]
    assert again() == []
    (results / "synth2/figure.png").write_bytes(b"")
    assert again("synth10") == []
    assert again() == [("synth2", True)]
    table = results / "synth2/runs.csv"
    table.write_text(table.read_text().replace(",cpu,1,", ",cpu,2,"))
    assert again("synth10") == [("synth2", False)]
    assert again() == [("synth2", True)]
    monkeypatch.setattr(redrawn, "version", lambda _: "99")
    assert again() == [("synth2", True), ("synth10", True)]
    (results / "earlier.csv").write_text(EARLIER)
    assert again() == [("synth2", True), ("synth10", True)]
    monkeypatch.setattr(redrawn, "CONFIGS", results.parent / "configs")
    (results.parent / "configs/regularizer").mkdir(parents=True)
    (results.parent / "configs/regularizer/syre.yaml").write_text("_later_: {unit: relative}")
    assert again() == [("synth2", True), ("synth10", True)]
    assert again() == []
    (results / redrawn.MEMORY).write_text("{")
    assert again() == [("synth2", True), ("synth10", True)]
    shutil.rmtree(results / "synth2")
    assert again() == [("synth10", True)]  # the memory is of other experiments


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("synth3", "error: no results for synth3 in {}/synth3: `make synth3` trains and collects them\n"),
        ("fig99", "error: no figure 'fig99': there is no experiments/figures/fig99.py\n"),
    ],
)
def test_a_figure_that_is_not_there_is_one_line_and_exit_2_and_nothing_is_written(results, capsys, name, line):
    (results.parent / "modules/synth3.py").write_text(MODULE)
    before = state(results)
    assert report.main(["synth2", name, "--results", str(results)]) == 2
    assert capsys.readouterr().err == line.format(results)
    assert state(results) == before


def test_an_import_that_fails_inside_a_figure_is_not_mistaken_for_a_missing_figure(results):
    (results.parent / "modules/synth2.py").write_text("import no_such_module")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        report.main(["synth2", "--results", str(results)])


def test_an_empty_results_folder_is_one_line(tmp_path, capsys):
    assert report.main(["--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_drawing_needs_no_torch(results):
    code = f"""
        import sys, experiments.figures
        experiments.figures.__path__.append({str(results.parent / "modules")!r})
        for name in ("torch", "syre", "hydra", "wandb"):
            sys.modules[name] = None  # importing it raises
        from experiments.report import main
        sys.exit(main(["--results", {str(results)!r}]))
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.DEVNULL).returncode == 0
    assert (results / "synth10/figure.png").is_file()


BESIDE = """
BESIDE = ("synth10",)


def draw(results, *others):
    figure, (ax,) = panels()
    ax.set_title(" ".join(other.experiment for other in others))
    for other in others:
        curves(ax, by_arm(other.final("rank")), "optim.lr", "rank")
    return figure
"""


def test_runs_of_another_figure_are_drawn_beside_its_own_where_they_are_and_not_judged(results, monkeypatch):
    module = MODULE.partition("def draw")[0] + BESIDE
    drawn, files = [], plotting.files
    monkeypatch.setattr(redrawn, "_in_parallel", lambda call, each: [call(*one) for one in each])
    monkeypatch.setattr(plotting, "files", lambda figure, folder: drawn.append(figure) or files(figure, folder))
    (results.parent / "modules/synth2.py").write_text(module)

    def title():
        drawn.clear()
        assert report.main(["synth2", "--results", str(results)]) == 0
        return [figure.axes[0].get_title() for figure in drawn]

    assert title() == ["synth10"]
    assert "Scale `cpu`: 30 runs" in (results / "synth2/report.md").read_text()  # its own alone
    assert title() == []
    table = results / "synth10/metrics.csv"
    table.write_text(table.read_text().replace(",rank,9", ",rank,8"))
    assert title() == ["synth10"]  # what is beside it is another
    shutil.rmtree(results / "synth10")
    assert title() == [""]


def test_a_table_of_the_paper_stands_above_the_picture(results):
    module = results.parent / "modules/synth2.py"
    module.write_text(MODULE + "\n\ndef paper_table(results):\n    return f'| {len(results.runs)} runs |'\n")
    assert report.main(["--results", str(results)]) == 0
    first, second = ((results / name / "report.md").read_text() for name in ("synth2", "synth10"))
    assert first.split("\n\n")[1:3] == ["| 30 runs |", "![the figure](figure.png)"]
    assert second.split("\n\n")[1] == "![the figure](figure.png)"


def test_what_was_learnt_and_what_else_a_figure_says_stand_in_report_overview_and_readme(results):
    module = results.parent / "modules" / "synth2.py"
    module.write_text(MODULE + "\n\ndef learnt(results):\n    return f'Learnt on {len(results.runs)} runs.'\n"
                      "\n\ndef further(results):\n    return '## A further table'\n")  # fmt: skip
    readme = results.parent / "README.md"
    readme.write_text("before\n<!-- beyond -->\nold\n<!-- /beyond -->\nafter\n")
    assert report.main(["--results", str(results)]) == 0
    said = "Learnt on 30 runs. ([synth2]({}synth2/report.md))"
    assert readme.read_text() == f"before\n<!-- beyond -->\n- {said.format('results/')}\n<!-- /beyond -->\nafter\n"
    assert f"## Beyond the paper\n\n- {said.format('')}\n" in (results / "REPORT.md").read_text()
    pages_of = {name: (results / name / "report.md").read_text() for name in ("synth2", "synth10")}
    assert "## A further table" in pages_of["synth2"]
    assert "A further table" not in pages_of["synth10"]  # the control: a figure that says no more


def test_notes_are_typed_or_made_of_the_results_and_stand_in_the_report_without_what_is_missing(results):
    say = "    from experiments.analysis.notes import Numbers\n    rank = Numbers(results).final('rank', 1)\n"
    said = "The rank of syre is {rank(SYRE | AT)}.\n\nThat of dropout is {rank(DROPOUT)}.\n\nThe end."
    module = results.parent / "modules" / "synth2.py"
    module.write_text(MODULE + f'\n\ndef notes(results):\n{say}    return f"""\n{said}\n"""\n')
    assert report.main(["--results", str(results)]) == 0
    made, typed = (
        (results / name / "report.md").read_text().split("## Deviations and unknowns\n\n")[1].split("\n\n## ")[0]
        for name in ("synth2", "synth10")
    )
    assert made == "The rank of syre is 91.2.\n\nThe end."
    assert typed == "The paper does not say | how."


def test_the_listings_have_a_row_a_claim_and_a_row_a_figure_with_its_finding(results):
    module = results.parent / "modules" / "synth2.py"
    module.write_text(MODULE + "\n\ndef finding(results):\n    from experiments.analysis.summaries import Finding\n"
                      "    return Finding(f'{len(results.runs)} runs,  seen', '42 %', '43 %')\n")  # fmt: skip
    assert report.main(["--results", str(results)]) == 0
    listed = {}
    for name in ("claims", "figures"):
        with (results / f"{name}.csv").open(newline="") as file:
            listed[name] = list(csv.DictReader(file))
    assert [(row["figure"], row["id"]) for row in listed["claims"]][:3] == [("synth2", id) for id in ("C7", "C5", "C1")]
    assert len(listed["claims"]) == 14
    row = next(row for row in listed["claims"] if row["id"] == "C5")
    assert [row[key] for key in ("verdict", "effect", "low", "high", "n", "kind", "margin", "against", "scale")] == [
        *("not reproduced", "-50", "-50", "-50", "5", "superiority", "5", "> 5", "cpu")
    ]
    untested = next(row for row in listed["claims"] if row["id"] == "C4")
    assert [untested[key] for key in ("effect", "low", "high", "n", "p")] == ["", "", "", "0", ""]
    found = [[row[key] for key in ("figure", "runs", "seeds", "finding", "paper", "ours")] for row in listed["figures"]]
    assert found == [["synth2", "30", "5", "30 runs, seen", "42 %", "43 %"], ["synth10", "30", "5", "", "", ""]]
