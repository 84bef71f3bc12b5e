"""The receipt of a sweep tells what of it is as committed, and finds each change by hand."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import experiments.figures
from experiments.analysis import receipt
from experiments.analysis.receipt import Difference
from experiments.engine import sweep
from experiments.engine.config import Run, identity
from experiments.engine.experiment import Experiment
from experiments.engine.store import RunStore
from tests.experiments.test_report import MODULE

NAME = "synth77"
FACTS = {"device": "cpu", "threads": 1, "versions": {"torch": "2.15.0"}}


class Place:
    """A folder with results/ and outputs/, in which one figure is swept without training anything."""

    def __init__(self, root, runs, capfd):
        self.root, self.runs, self.capfd = root, runs, capfd
        self.store = RunStore(root / "outputs" / NAME)
        self.commits = 0

    def table(self, name, experiment=NAME):
        return self.root / "results" / experiment / name

    def train(self, change=lambda run, metric, value: value, only=lambda run: True, **facts):
        """The directories of runs as training leaves them."""
        for run in filter(only, self.runs):
            config, records = run.config, []
            lr, seed = config["optim"]["lr"], config["seed"]
            high = 90 if config["regularizer"]["name"] == "syre" else 40
            for metric, value in (("accuracy", 0.9 + 0.001 * seed), ("rank", high + lr + 0.1 * seed)):
                records.append((100, "test", metric, change(run, metric, value)))
            facts = {"status": "done", "git_sha": "abc", "dirty": False, "seconds": 1.0, "group": "g", **facts}
            self.store.write(run, records, FACTS | facts)

    def experiment(self, runs=None, scale="cpu", keys=()):
        settings = {"experiment": NAME, "scale": scale, "train_nothing": False, "curves": []}
        settings |= {"outputs": str(self.root / "outputs"), "results": str(self.root / "results")}
        return Experiment(config=OmegaConf.create(settings), runs=self.runs if runs is None else runs, keys=keys)

    def sweep(self, **asked):
        """What the end of a sweep prints, its errors with it, and receipt.json."""
        experiment = self.experiment(**asked)
        self.capfd.readouterr()
        assert sweep._tables(experiment)
        file = (experiment.place if experiment.custom else self.store.folder) / "receipt.json"
        said = "".join(self.capfd.readouterr()).replace(f"{self.root}/", "")
        return said, json.loads(file.read_text()) if file.exists() else None

    def git(self, *words):
        clean = {key: text for key, text in os.environ.items() if not key.startswith("GIT_")}
        env = clean | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        call = subprocess.run(["git", *who, *words], cwd=self.root, env=env, capture_output=True, text=True, check=True)
        return call.stdout.strip()

    def commit(self):
        if not self.commits:
            self.git("init", "-q")
        self.commits += 1
        self.git("add", "results")
        self.git("commit", "-qm", "results")
        return self.git("rev-parse", "HEAD")[:12]

    def edit(self, name, run, column, cell):
        """Change one cell of a run's (last) row by hand; what was there."""
        with self.table(name).open(newline="") as file:
            header, *rows = csv.reader(file)
        row = [row for row in rows if row[0] == run.id][-1]
        before, row[header.index(column)] = row[header.index(column)], cell
        with self.table(name).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
        return before


@pytest.fixture(scope="module")
def configs():
    """The configurations of an arm with syre and one with decay alone."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(Path(__file__).parents[2] / "configs"), version_base="1.3"):
        arms = (["regularizer=syre", "regularizer.sigma=0.1"], ["regularizer=weight_decay"])
        return [identity(compose("config", words)) | {"experiment": NAME} for words in arms]


@pytest.fixture
def place(tmp_path, configs, capfd, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{NAME}.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, f"experiments.figures.{NAME}", raising=False)
    monkeypatch.setattr(experiments.figures, "__path__", [*experiments.figures.__path__, str(tmp_path / "modules")])
    settings = [(config, lr, seed) for config in configs for lr in (0.01, 0.1, 1.0) for seed in range(5)]
    runs = [Run(config=config | {"optim": config["optim"] | {"lr": lr}, "seed": seed}) for config, lr, seed in settings]
    return Place(tmp_path, runs, capfd)


@pytest.fixture
def committed(place):
    """The same, its 30 runs trained, swept and committed."""
    place.train()
    place.sweep()
    place.head = place.commit()
    return place


def counts(part):
    return {kind: part[kind] for kind in ("runs", "equal", "rounding", "different", "new", "failed")}


ALL_EQUAL = {"runs": 30, "equal": 30, "rounding": 0, "different": 0, "new": 0, "failed": 0}


# ---- the same --------------------------------------------------------------------------------------------------------


def test_the_same_numbers_from_elsewhere_are_the_committed_ones(committed):
    committed.train(git_sha="def", seconds=9.0, versions={"torch": "3.0"})
    said, found = committed.sweep()
    assert said.splitlines() == [
        f"tables: results/{NAME}",
        f"{NAME}: a synthetic figure",
        "  Scale `cpu`: 30 runs over 5 seeds, 0 failed, 0 went NaN; 30 s of training.",
        "  contrary at this scale: C7",
        "  not reproduced: C5",
        "  verdicts: 4 reproduced, 1 not reproduced, 1 not tested at this scale, 1 contrary at this scale "
        f"(results/{NAME}/report.md has each claim)",
        f"  picture: results/{NAME}/figure.png",
        "receipt: 30 of 30 runs equal to the committed ones; 7 of 7 verdicts the same",
        f"  committed: results/{NAME} in git at {committed.head}",
        f"  as JSON: outputs/{NAME}/receipt.json",
    ]
    assert (found["experiment"], found["scale"]) == (NAME, "cpu")
    assert found["committed"]["commit"][:12] == committed.head
    assert counts(found["trained"]) == ALL_EQUAL
    assert found["adopted"]["runs"] == 0
    assert (found["missing"], found["changed_before"], found["trained"]["differing"]) == ([], [], [])
    assert found["verdicts"] == {"compared": 7, "same": 7, "changed": [], "new": [], "gone": []}
    assert found["figures"][0]["verdicts"]["reproduced"] == 4
    assert Path(found["figures"][0]["picture"]).is_file()


@pytest.mark.parametrize("git", [True, False], ids=["not committed", "no git"])
def test_without_committed_tables_they_are_compared_as_they_were(place, git, monkeypatch):
    """Which the receipt says; the first time there is nothing to compare with."""
    if git:
        (place.root / "results").mkdir()
        (place.root / "results/note").touch()
        place.commit()
    else:
        monkeypatch.setenv("PATH", str(place.root))  # where there is no git
    place.train()
    said, found = place.sweep()
    assert "receipt: nothing to compare, the earlier tables have none of 30 runs; no committed verdicts" in said
    assert counts(found["trained"]) == {**ALL_EQUAL, "equal": 0, "new": 30}
    place.edit("metrics.csv", place.runs[3], "value", "12")
    said, found = place.sweep()
    assert "receipt: 29 of 30 runs equal to the earlier ones, 1 different; 7 of 7 verdicts the same" in said
    why = "git does not have them" if git else "no git here"
    assert f"compared with the tables in results/{NAME} as they were before this sweep ({why})" in said
    assert f"1 different, run {place.runs[3].id}, test/rank at step 100: 12 earlier, 90.31 now" in said
    assert found["committed"]["commit"] is None


# ---- changes by hand -------------------------------------------------------------------------------------------------


def test_a_number_on_the_disk_that_is_not_the_committed_one_is_named_though_the_sweep_puts_it_right(committed):
    run = committed.runs[7]
    before = committed.edit("metrics.csv", run, "value", "12")
    said, found = committed.sweep()
    assert "receipt: 30 of 30 runs equal to the committed ones; 7 of 7 verdicts the same\n" in said
    assert (
        f"  before this sweep results/{NAME}/metrics.csv differed from the committed one in 1 cell (1 as committed "
        f"again), run {run.id}, test/rank at step 100: {before} committed, 12 on the disk, {before} now "
        "(relative difference 0.87)\n"
    ) in said
    (edit,) = found["changed_before"]
    assert (edit["cells"], edit["as_committed_now"], edit["still_so"]) == (1, 1, 0)
    assert edit["largest"]["run"] == run.id
    assert committed.sweep()[1]["changed_before"] == []  # control: it has been put right


def test_a_number_that_was_put_right_has_another_origin_and_that_is_said(committed):
    run = committed.runs[7]
    committed.edit("metrics.csv", run, "value", "12")
    committed.train(git_sha="def", only=lambda one: one is run)
    said, found = committed.sweep()
    assert counts(found["trained"]) == ALL_EQUAL
    assert found["not_as_committed"] == [str(committed.table("runs.csv"))]
    assert f"  results/{NAME}/runs.csv now differs from the committed file all the same: `git diff` shows" in said
    committed.git("checkout", "results")
    said, found = committed.sweep()  # control
    assert "all the same" not in said
    assert found["not_as_committed"] == []


def test_a_setting_on_the_disk_that_is_not_the_committed_one_is_named_and_put_right(committed):
    run = committed.runs[0]
    committed.edit("runs.csv", run, "seconds", "77.000")  # no result: it stays, and is no difference
    table = committed.table("runs.csv").read_bytes()
    committed.edit("runs.csv", run, "optim.lr", "0.02")
    said, found = committed.sweep()
    at = f"1 cell (1 as committed again), run {run.id}, optim.lr: 0.01 committed, 0.02 on the disk, 0.01 now"
    assert f"before this sweep results/{NAME}/runs.csv differed from the committed one in {at}" in said
    assert counts(found["trained"]) == ALL_EQUAL
    assert committed.table("runs.csv").read_bytes() == table
    assert committed.sweep()[1]["changed_before"] == []


def test_a_committed_number_that_is_not_the_trained_one_is_a_difference(committed):
    run = committed.runs[7]
    trained = committed.edit("metrics.csv", run, "value", "12")
    head = committed.commit()
    said, found = committed.sweep()
    assert "receipt: 29 of 30 runs equal to the committed ones, 1 different; 7 of 7 verdicts the same\n" in said
    assert f"  1 different, run {run.id}, test/rank at step 100: 12 committed, {trained} now (relative " in said
    assert "before this sweep" not in said
    assert f"in git at {head}" in said
    (one,) = found["trained"]["differing"]
    assert one["kind"] == "different"
    assert one["largest"] == {
        **{"run": run.id, "what": "test/rank", "step": "100", "committed": "12", "now": trained},
        "relative": pytest.approx(1 - 12 / float(trained)),
    }


def test_other_last_digits_are_told_from_other_numbers(committed):
    near, far = committed.runs[2], committed.runs[3]
    by = {near.id: 1 + 2e-6, far.id: 1 + 2e-4}
    committed.train(lambda run, metric, value: value * (by.get(run.id, 1) if metric == "rank" else 1))
    said, found = committed.sweep()
    line = "receipt: 28 of 30 runs equal to the committed ones, 1 equal within rounding, 1 different; 7 of 7 verdicts"
    assert line in said
    assert f"  1 equal within rounding, run {near.id}, test/rank at step 100: 90.21 committed, 90.2101" in said
    assert f"  1 different, run {far.id}, " in said
    assert [one["largest"]["run"] for one in found["trained"]["differing"]] == [far.id, near.id]  # the most first
    assert "before this sweep" not in said


def test_what_an_earlier_sweep_has_written_is_no_change_by_hand_that_is_put_right(committed):
    committed.train(lambda run, metric, value: value * (1 + 2e-4))
    committed.sweep()
    said, found = committed.sweep()
    assert "receipt: 0 of 30 runs equal to the committed ones, 30 different" in said
    assert f"results/{NAME}/metrics.csv differed from the committed one in 60 cells (60 still so), the most: " in said
    assert found["changed_before"][0]["as_committed_now"] == 0


def test_tables_that_were_gone_rows_that_were_gone_and_rows_of_other_scales(committed):
    lines = committed.table("runs.csv").read_text().splitlines(keepends=True)
    committed.table("runs.csv").write_text("".join(line for line in lines if committed.runs[4].id not in line))
    said, found = committed.sweep()
    assert f"before this sweep results/{NAME}/runs.csv lacked 1 committed run, {committed.runs[4].id} first\n" in said
    committed.table("metrics.csv").unlink()
    said, found = committed.sweep()
    assert f"results/{NAME}/metrics.csv, which is committed, was not there before this sweep\n" in said
    assert counts(found["trained"]) == ALL_EQUAL


# ---- runs that are not the committed ones ----------------------------------------------------------------------------


def test_runs_that_failed_are_new_or_are_gone_are_counted_by_themselves(committed):
    first, last = committed.runs[0], committed.runs[-1]
    other = Run(config=last.config | {"seed": 9})
    committed.runs[-1] = other
    committed.train(only=lambda run: run is other)
    committed.train(only=lambda run: run is first, status="failed")
    said, found = committed.sweep()
    assert "receipt: 28 of 29 runs equal to the committed ones, 1 failed, 1 new; " in said
    assert f"  not among these: 1 committed run, {last.id} first\n" in said
    assert counts(found["trained"]) == {**ALL_EQUAL, "equal": 28, "new": 1, "failed": 1}
    assert found["missing"] == [last.id]


def test_adopted_runs_are_not_called_trained(committed):
    for run in committed.runs[:28]:
        for path in committed.store.files(run.id):
            path.unlink()
    assert committed.store.adopt(committed.table(""), committed.runs) == 28
    said, found = committed.sweep()
    assert "receipt: 2 of 2 runs equal to the committed ones, 28 adopted from the tables, not trained; 7 of 7" in said
    assert (found["trained"]["equal"], found["adopted"]["equal"]) == (2, 28)

    for path in committed.store.files(committed.runs[1].id):
        path.unlink()
    committed.edit("metrics.csv", committed.runs[1], "value", "12")  # and then it is adopted
    committed.store.adopt(committed.table(""), committed.runs)
    said, found = committed.sweep()
    assert "28 adopted from the tables, not trained (1 of them different from the committed ones); 7 of 7" in said
    assert "in 1 cell (1 still so), run" in said


def test_a_sweep_of_ones_own_is_compared_where_it_has_committed_runs(committed):
    other = Run(config=committed.runs[0].config | {"seed": 9})
    here = committed.runs[::3]
    committed.runs.append(other)
    committed.train(only=lambda run: run is other)
    said, found = committed.sweep(runs=[*here, other], keys=["seed"])
    assert "receipt: 10 of 10 runs equal to the committed ones, 1 new; verdicts not compared, these are not the" in said
    assert f"as JSON: outputs/{NAME}/results-custom/receipt.json" in said
    assert (found["missing"], found["verdicts"]) == ([], None)
    said, _ = committed.sweep(runs=[other], keys=["seed"])
    assert "receipt: nothing to compare, the committed tables have none of 1 run; verdicts not compared" in said


def test_a_sweep_of_ones_own_of_which_nothing_is_committed_has_no_receipt(committed):
    said, found = committed.sweep(keys=["seed"])
    assert "receipt: 30 of 30 runs equal" in said
    (committed.root / f"outputs/{NAME}/results-custom/receipt.json").unlink()
    shutil.rmtree(committed.root / "results" / NAME)
    committed.commit()
    said, found = committed.sweep(keys=["seed"])
    assert "tables: " in said
    assert "receipt" not in said
    assert found is None


def test_smoke_has_no_receipt(committed):
    (committed.store.folder / "receipt.json").unlink()
    said, found = committed.sweep(scale="smoke")
    assert "receipt" not in said
    assert found is None


# ---- verdicts --------------------------------------------------------------------------------------------------------


def test_a_verdict_that_has_changed_is_named(committed):
    committed.train(lambda run, metric, value: 90 if metric == "rank" else value)
    said, found = committed.sweep()
    assert "receipt: 0 of 30 runs equal to the committed ones, 30 different; " in said
    changed = {one["claim"]: (one["committed"], one["now"]) for one in found["verdicts"]["changed"]}
    assert changed[f"{NAME}/C1"] == ("reproduced", "not reproduced")
    assert f"{NAME}/C2" not in changed
    assert f"  {NAME}/C1: reproduced -> not reproduced\n" in said
    same = found["verdicts"]["same"]
    assert same + len(changed) == 7
    assert f"; {same} of 7 verdicts the same, {len(changed)} changed\n" in said


def test_claims_that_are_new_or_gone_are_counted(committed):
    file = committed.root / "results/claims.csv"
    file.write_text(file.read_text().replace(f"{NAME},C1,", f"{NAME},C0,"))
    committed.commit()
    said, found = committed.sweep()
    assert "; 6 of 6 verdicts the same, 1 new, 1 gone\n" in said
    assert (found["verdicts"]["new"], found["verdicts"]["gone"]) == ([f"{NAME}/C1"], [f"{NAME}/C0"])


def test_tables_of_another_experiment_that_a_figure_draws_too_are_looked_at(committed):
    """Their numbers decide its verdicts: a change by hand there would be found nowhere else."""
    other = "synth78"
    modules = committed.root / "modules"
    (modules / f"{other}.py").write_text(MODULE)
    source = MODULE.replace("TITLE =", f'EXPERIMENT = ("{NAME}", "{other}")\nTITLE =')
    (modules / f"{NAME}.py").write_text(
        source.replace('{"regularizer.name"', f'{{"experiment": "{NAME}", "regularizer.name"')
    )
    sys.modules.pop(f"experiments.figures.{NAME}", None)
    committed.table("", other).mkdir()
    for name in ("runs.csv", "metrics.csv"):
        committed.table(name, other).write_bytes(committed.table(name).read_bytes())
    committed.commit()
    assert "differed" not in committed.sweep()[0]  # control
    table = committed.table("metrics.csv", other)
    table.write_text(table.read_text().replace(",test,rank,90", ",test,rank,91"))
    said, _ = committed.sweep()
    assert "receipt: 30 of 30 runs equal" in said
    assert f"before this sweep results/{other}/metrics.csv differed from the committed one in " in said
    assert " still so), the most: run " in said


# ---- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics.csv", "runs.csv"])
def test_a_damaged_committed_table_is_one_line_and_the_sweep_is_done(committed, name):
    whole = committed.table(name).read_bytes()
    committed.table(name).write_text("<<<<<<< HEAD\n")
    head = committed.commit()
    committed.table(name).unlink()
    (committed.store.folder / "receipt.json").unlink()
    said, found = committed.sweep()
    line = f"no receipt: results/{NAME}/{name}, as committed in git {head}: line 1 is a conflict marker of git\n"
    assert said.endswith(line)
    assert found is None
    assert committed.table(name).read_bytes() == whole


@pytest.mark.parametrize(
    ("step", "before", "now", "rounding"),
    [
        ("1", "1", "1.000009", True),
        ("1", "1", "1.00002", False),
        ("1", "-1", "1", False),
        ("1", "0", "-0", True),
        ("1", "3e-17", "-2e-38", True),  # neither is more than rounding
        ("1", "3e-17", "1e-9", False),
        ("1", "nan", "1", False),
        ("1", "inf", "-inf", False),
        ("1", None, "1", False),
        ("", "1", "1.000009", False),  # a setting
        ("", "syre", "", False),
    ],
)
def test_what_two_machines_may_differ_by(step, before, now, rounding):
    assert Difference("a", "x", step, before, now).rounding is rounding
    assert Difference("a", "x", step, now, before).rounding is rounding
    assert receipt.RELATIVE == 1e-5
