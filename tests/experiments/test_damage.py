"""Files that were damaged by hand, by a merge or by a disk: one line that names the file, and none of them is lost."""

import io
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

import experiments.figures
from experiments import report
from experiments import status as status_door
from experiments.analysis import results
from experiments.engine import training
from experiments.engine.config import Run, identity
from experiments.engine.errors import ConfigError
from experiments.engine.expand import Group
from experiments.engine.progress import status
from experiments.engine.store import Outcome, RunStore
from tests.experiments.analysis.test_results import write_run
from tests.experiments.conftest import CONFIGS, experiment_of
from tests.experiments.test_report import MODULE, state, write_results

pytestmark = pytest.mark.usefixtures("trains_here")

NOT_TEXT = b"\xff\xfe\x00PK\x03\x04"
SMALL = ("model.hidden=[4]", "train.epochs=1", "train.evaluations=1")

# ---- tables ----------------------------------------------------------------------------------------------------------


def cut(column):
    """A table without one of its columns."""

    def edit(content):
        header, *lines = content.decode().splitlines()
        place = header.split(",").index(column)
        rows = [line.split(",") for line in (header, *lines)]
        return "\n".join(",".join(row[:place] + row[place + 1 :]) for row in rows).encode()

    return edit


def put(column, cell):
    """A table with another cell in its third row."""

    def edit(content):
        rows = [line.split(",") for line in content.decode().splitlines()]
        rows[3][rows[0].index(column)] = cell
        return "\n".join(map(",".join, rows)).encode()

    return edit


def conflict(content):
    lines = content.decode().splitlines()
    return "\n".join([*lines[:4], "<<<<<<< HEAD", lines[4], "=======", lines[5], ">>>>>>> theirs"]).encode()


DAMAGES = [
    *(("runs.csv", cut(name), f"no column {name}") for name in ("id", "scale", "status", "seed", "seconds", "git_sha")),
    *(("metrics.csv", cut(name), f"no column {name}") for name in results.METRICS),
    *((name, lambda _: b"", "the file is empty") for name in results.TABLES),
    *((name, lambda _: NOT_TEXT, "'utf-8' codec can't decode byte 0xff") for name in results.TABLES),
    *((name, lambda content: content + b"a\x00b\n", "cells, not") for name in results.TABLES),
    *((name, lambda content: content + b'"', "not a CSV file") for name in results.TABLES),
    *((name, conflict, "line 5 is a conflict marker of git") for name in results.TABLES),
    *((name, lambda content: content[:-12], "cells, not") for name in results.TABLES),
    ("runs.csv", put("scale", "huge"), "scale is 'huge', not one of smoke, cpu, paper"),
    ("runs.csv", put("status", "fine"), "status is 'fine', not one of done, nan, failed"),
    ("runs.csv", put("seed", "a"), "seed is 'a', not an integer"),
    ("runs.csv", put("seconds", ""), "seconds is '', not a number"),
    ("runs.csv", put("id", "000000000001"), "run 000000000001 has 2 rows"),
    ("metrics.csv", put("value", "1,5"), "the row .* has 6 cells, not 5"),
    ("metrics.csv", put("value", "high"), "value is 'high', not a number, in the row '000000000002,100,"),
    ("metrics.csv", put("value", "1_000"), "value is '1_000', not a number"),
    ("metrics.csv", put("step", "end"), "step is 'end', not a number"),
    ("metrics.csv", lambda content: content.replace(b"\n", b",more\n"), "unknown column more"),
]


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """The folder of the figure `fig0`, with tables."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/fig0.py").write_text(MODULE)
    monkeypatch.setattr(experiments.figures, "__path__", [*experiments.figures.__path__, str(tmp_path / "modules")])
    monkeypatch.delitem(sys.modules, "experiments.figures.fig0", raising=False)
    write_results(tmp_path / "results/fig0")
    return tmp_path / "results/fig0"


@pytest.mark.parametrize(("name", "edit", "what"), DAMAGES)
def test_a_damaged_table_is_named_with_what_is_wrong_by_all_that_read_it(tables, capsys, name, edit, what):
    file = tables / name
    file.write_bytes(edit(file.read_bytes()))
    before, line = state(tables.parent), f"{re.escape(str(file))}: .*{what}.*; mend it, or delete it and run its sweep"
    assert report.main(["fig0", "--results", str(tables.parent)]) == 2
    err = capsys.readouterr().err
    assert re.match(f"error: {line}", err), err
    assert err.count("\n") == 1
    outputs = tables.parents[1] / "outputs"
    with pytest.raises(results.ResultsError, match=line):
        RunStore(outputs / "fig0").collect(tables, "cpu", [write_run(outputs, 99)])
    if name == "runs.csv":
        with pytest.raises(results.ResultsError, match=line):
            status(experiment_of([], outputs / "fig0", tables.parent))
    assert state(tables.parent) == before


def test_control_whole_tables_are_read(tables):
    assert report.main(["fig0", "--results", str(tables.parent)]) == 0
    assert len(results.read_table(tables / "runs.csv")) == 30
    assert results.read_table(tables / "none/runs.csv") == []
    outputs = tables.parents[1] / "outputs"
    RunStore(outputs / "fig0").collect(tables, "smoke", [write_run(outputs, 99, scale="smoke")])
    assert status(experiment_of([], outputs / "fig0", tables.parent)).tabled == 0
    assert len(results.read_table(tables / "runs.csv")) == 31


@pytest.mark.parametrize("column", ["optim.lr", "regularizer.name", "regularizer.sigma"])
def test_a_setting_that_a_figure_needs_and_the_table_lacks_is_named(tables, capsys, column):
    file = tables / "runs.csv"
    file.write_bytes(cut(column)(file.read_bytes()))
    before = state(tables.parent)
    assert report.main(["fig0", "--results", str(tables.parent)]) == 2
    err = capsys.readouterr().err
    assert (err.count("\n"), column in err) == (1, True), err
    assert state(tables.parent) == before


def test_control_another_key_error_of_a_figure_is_not_taken_for_it(tables, monkeypatch):
    wrong = MODULE.replace("figure, (ax,) =", "{}['optim.lr']\n    figure, (ax,) =")  # a column that there is
    (tables.parents[1] / "modules/fig0.py").write_text(wrong)
    with pytest.raises(KeyError, match=re.escape("optim.lr")):
        report.main(["fig0", "--results", str(tables.parent)])


def test_the_command_line_says_it_too_and_before_it_trains(tmp_path, command, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "outputs/run/results-custom/run/metrics.csv"
    table.parent.mkdir(parents=True)
    table.write_bytes(b"")
    outcome = command("-m", *SMALL, "seed=0,1", "outputs=outputs")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert outcome.err.startswith("error: outputs/run/results-custom/run/metrics.csv: the file is empty; ")
    assert list(state(tmp_path)) == [table]
    assert table.read_bytes() == b""
    (tmp_path / "results/fig4").mkdir(parents=True)
    (tmp_path / "results/fig4/runs.csv").write_bytes(NOT_TEXT)
    assert status_door.main(["fig4", "--scale", "smoke"]) == 2
    err = capfd.readouterr().err
    assert (err.startswith("error: results/fig4/runs.csv: 'utf-8' codec"), err.count("\n")) == (True, 1)


# ---- run.json --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "JSONDecodeError"),
        (b'{"status": "do', "JSONDecodeError"),
        (b"[]", "run.json has no status"),
        (b"7", "TypeError"),
        (b"{}", "run.json has no status"),
        (b'{"status": "fine"}', "status in run.json is 'fine', not one of done, nan, failed"),
        (NOT_TEXT, "UnicodeDecodeError"),
        (None, "FileNotFoundError"),
    ],
)
def test_a_damaged_run_json_is_named_with_what_to_do(tmp_path, command, content, what):
    words = (*SMALL, f"outputs={tmp_path / 'outputs'}")
    assert command(*words).code == 0
    (place,) = (tmp_path / "outputs/run/runs").iterdir()
    if content is None:
        (place / "run.json").unlink()
    else:
        (place / "run.json").write_bytes(content)
    before = state(tmp_path)
    for more in ((), ("-m", "seed=0,1")):
        outcome = command(*more, *words)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert outcome.err.startswith(f"error: run {place} is damaged (")
        assert what in outcome.err
        assert outcome.err.endswith("): delete it and run again\n")
        assert state(tmp_path) == before
    run = Run(config=yaml.safe_load((place / "config.yaml").read_text()))
    with pytest.raises(results.ResultsError, match=f"{re.escape(str(place))} is damaged"):
        status(experiment_of([run], tmp_path / "outputs/run"))


def test_a_run_json_without_its_seconds_is_damaged_to_status_alone(tmp_path, composed):
    run = Run(config=identity(composed()))
    place = tmp_path / "runs" / run.id
    place.mkdir(parents=True)
    (place / "done").touch()
    for content, what in (('{"status": "done"}', "no seconds"), ('{"status": "done", "seconds": "x"}', "not a number")):
        (place / "run.json").write_text(content)
        with pytest.raises(results.ResultsError, match=what):
            status(experiment_of([run], tmp_path))


# ---- groups ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, runs):
    """What the two runs record, trained as one without an interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert train(folder, plan_of(folder, runs)) is Outcome.done
    return recorded(folder)


@pytest.fixture(scope="module")
def runs():
    """Two runs with dropout, which train as one."""
    leaf = lambda group, name: yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())  # noqa: E731
    config = {
        "experiment": "run", "recipe": 1, "scale": "smoke",
        **{"model": leaf("model", "mlp") | {"hidden": [8]}, "data": leaf("data", "digits")},
        **{"regularizer": leaf("regularizer", "dropout"), "optim": leaf("optim", "adam")},
        "task": leaf("task", "classification"),
        "train": {"epochs": 0, "steps": 60, "batch_size": 32, "evaluations": 3},
        "compute": {"device": "cpu", "threads": 1, "precision": "fp32", "compile": False},
    }  # fmt: skip
    return [Run(config=config | {"seed": seed}) for seed in (0, 1)]


def plan_of(folder, runs, size=2):
    (group, *rest) = experiment_of(runs, folder, size=size).plan(runs)
    return group if not rest else Group(runs=[run for one in (group, *rest) for run in one.runs])


def train(folder, group, until=None):
    """Train a group, to its end or to a step."""
    stop = None if until is None else lambda step, total: step == until
    return training.train_group(group, RunStore(folder), data_root=None, alone=False, stop=stop)


def recorded(folder):
    return {path.parent.name: path.read_bytes() for path in folder.glob("runs/*/metrics.csv")}


@pytest.fixture
def interrupted(tmp_path, runs):
    """A folder with the group, its checkpoint of step 30, and the group."""
    group = plan_of(tmp_path, runs)
    assert train(tmp_path, group, until=30) is Outcome.stopped
    return tmp_path, group


OTHERS = b'[{"seed": 0}]'


@pytest.mark.parametrize("content", [b"", b"[{", b"{}", b"[1, 2]", b"7", OTHERS, NOT_TEXT], ids=repr)
def test_a_damaged_groups_file_is_set_aside_and_its_runs_go_on_from_their_checkpoint(
    interrupted, runs, undisturbed, capsys, content
):
    folder, group = interrupted
    file = RunStore(folder).file(group.id)
    for number, aside in enumerate((f"{file.name}.damaged", f"{file.name}.damaged1")):
        file.write_bytes(content)
        again = plan_of(folder, runs)
        err = capsys.readouterr().err
        assert (err.startswith(f"{file} is damaged ("), err.count("\n")) == (True, 1), err
        assert err.endswith(f"): it is now {aside}, and its runs are packed anew\n")
        assert file.with_name(aside).read_bytes() == content
        assert len(list(file.parent.glob("*.damaged*"))) == number + 1
    assert again == group
    assert RunStore(folder).load(group.id) == group
    assert torch.load(file.with_suffix(".pt"), weights_only=True)["state"]["step"] == 30
    assert train(folder, again) is Outcome.done
    assert recorded(folder) == undisturbed


def test_a_groups_file_with_the_runs_of_another_group_is_not_used(interrupted, runs, capsys):
    folder, group = interrupted
    file, other = RunStore(folder).file(group.id), plan_of(folder / "other", runs[:1])
    file.write_bytes(RunStore(folder / "other").file(other.id).read_bytes())
    assert plan_of(folder, runs) == group
    assert "these are not the runs of that group" in capsys.readouterr().err


def test_packed_otherwise_its_runs_start_over_and_the_checkpoint_stays(interrupted, runs, capsys):
    folder, group = interrupted
    kept = RunStore(folder).file(group.id, ".pt").read_bytes()
    RunStore(folder).file(group.id).write_bytes(b"")
    assert plan_of(folder, runs, size=1) == group  # of two groups
    assert RunStore(folder).file(group.id, ".pt").read_bytes() == kept
    assert "are packed anew" in capsys.readouterr().err


def test_nothing_is_set_aside_where_a_run_cannot_be_run(interrupted, runs):
    folder, group = interrupted
    RunStore(folder).file(group.id).write_bytes(b"")
    before = state(folder)
    wrong = Run(config=runs[0].config | {"optim": runs[0].config["optim"] | {"lr": -1}})
    with pytest.raises(ConfigError, match=re.escape("optim.lr")):
        experiment_of([], folder).plan([*runs, wrong])
    assert state(folder) == before


def test_a_group_that_is_asked_for_and_damaged_or_not_there_is_one_line(tmp_path, command):
    folder = tmp_path / "outputs/run/groups"
    folder.mkdir(parents=True)
    (folder / "0123456789ab.json").write_bytes(b"[{")
    before = state(tmp_path)
    for name, what in (("0123456789ab", "is damaged ("), ("ba9876543210", "no group ba9876543210: there is no ")):
        outcome = command(f"group='{name}'", f"outputs={tmp_path / 'outputs'}")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert what in outcome.err
        assert str(folder / f"{name}.json") in outcome.err
        assert state(tmp_path) == before


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def edited(kept, edit):
    """The bytes of a checkpoint whose content was changed."""
    content = torch.load(io.BytesIO(kept), weights_only=True)
    edit(content)
    return saved(content)


UNUSABLE = {
    "empty": lambda kept: b"",
    "truncated": lambda kept: kept[: len(kept) // 2],
    "cut at the end": lambda kept: kept[:-1],
    "garbage": lambda kept: NOT_TEXT * 100,
    "text": lambda kept: b"<<<<<<< HEAD\n",
    "a list": lambda kept: saved([1, 2]),
    "without rows": lambda kept: edited(kept, lambda content: content.pop("rows")),
    "of another group": lambda kept: edited(kept, lambda content: content.update(group="0123456789ab")),
    "without a step": lambda kept: edited(kept, lambda content: content["state"].pop("step")),
    "of another model": lambda kept: edited(
        kept, lambda content: content["state"]["learner"].update(flat=torch.ones(2, 5))
    ),
    "of one run": lambda kept: edited(kept, lambda content: content["state"]["learner"]["noise"].pop()),
}


@pytest.mark.parametrize("damage", UNUSABLE)
def test_a_checkpoint_that_cannot_be_used_is_set_aside_and_its_runs_start_over(
    interrupted, undisturbed, capsys, damage
):
    folder, group = interrupted
    file = RunStore(folder).file(group.id, ".pt")
    content = UNUSABLE[damage](file.read_bytes())
    for aside in (f"{file.name}.damaged", f"{file.name}.damaged1"):
        file.write_bytes(content)
        assert train(folder, group, until=10) is Outcome.stopped
        err = capsys.readouterr().err
        assert (err.startswith(f"{file} is damaged ("), err.count("\n")) == (True, 1), err
        assert err.endswith(f"): it is now {aside}, and its runs start over\n")
        assert file.with_name(aside).read_bytes() == content
    assert train(folder, group) is Outcome.done
    assert recorded(folder) == undisturbed
    assert {path.name for path in file.parent.iterdir()} == {
        *(f"{file.name}.damaged{k}" for k in ("", 1)), f"{group.id}.json"
    }  # fmt: skip


def test_control_a_whole_checkpoint_is_gone_on_from(interrupted, undisturbed, capsys):
    folder, group = interrupted
    assert train(folder, group) is Outcome.done
    assert recorded(folder) == undisturbed
    assert capsys.readouterr().err == ""


def test_a_checkpoint_that_cannot_be_read_just_now_stays(interrupted, monkeypatch):
    folder, group = interrupted
    file = RunStore(folder).file(group.id, ".pt")
    kept = file.read_bytes()

    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(results.ResultsError, match=f"cannot read {re.escape(str(file))}: Input/output error"):
        train(folder, group)
    monkeypatch.undo()
    assert file.read_bytes() == kept


# ---- checkpoints of another kind of device ---------------------------------------------------------------------------


def foreign(kept, known=True):
    """As a GPU would have written it: the state of its generators is 16 bytes, that of a CPU's some thousands."""

    def edit(content):
        learner = content["state"]["learner"]
        of_cuda = [torch.arange(k, k + 16, dtype=torch.uint8) for k in range(2)]
        learner["noise"] = of_cuda if isinstance(learner["noise"], list) else of_cuda[0]
        if known:
            content["device"] = "cuda"
        else:
            del content["device"], content["group"]  # as it was written before these were kept

    return edited(kept, edit)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [1, 2])
def test_a_checkpoint_of_another_device_is_gone_on_from_with_noise_of_its_own(
    tmp_path, runs, undisturbed, capsys, size, known
):
    tables = []
    for name, written in (("a", foreign), ("b", foreign), ("control", lambda kept, _: kept)):
        group = plan_of(tmp_path / name, runs[:size], size)
        assert train(tmp_path / name, group, until=30) is Outcome.stopped
        file = RunStore(tmp_path / name).file(group.id, ".pt")
        file.write_bytes(written(file.read_bytes(), known))
        assert train(tmp_path / name, group, until=40) is Outcome.stopped
        err = capsys.readouterr().err
        assert err.count("\n") == (name != "control" and known)
        assert ("was made on cuda, and goes on on cpu" in err) == (name != "control" and known)
        assert torch.load(file, weights_only=True)["device"] == "cpu"
        assert train(tmp_path / name, group) is Outcome.done
        assert not list(file.parent.glob("*.damaged*"))
        tables.append(recorded(tmp_path / name))
    assert tables[0] == tables[1]
    for run in runs[:size]:
        before, after = (table[run.id].decode().split("\n") for table in (tables[2], tables[0]))
        until = [line for line in before if line.startswith(("step", "0,", "20,"))]
        assert after[: len(until)] == until  # as it was, up to the checkpoint
        assert after != before
    assert size == 1 or tables[2] == undisturbed


def test_a_generator_goes_on_from_its_own_state_exactly_and_from_another_by_that_state_alone():
    from syre.seeding import generator, restore_generator

    one, two = generator(0, "noise"), generator(1, "noise")
    torch.rand(5, generator=one)
    restore_generator(two, one.get_state())
    assert torch.equal(torch.rand(9, generator=one), torch.rand(9, generator=two))
    streams = []
    for stream, number in ((one, 1), (two, 1), (two, 2)):
        restore_generator(stream, torch.full((16,), number, dtype=torch.uint8))
        streams.append(torch.rand(9, generator=stream))
    assert torch.equal(streams[0], streams[1])
    assert not torch.equal(streams[1], streams[2])
