"""Tables are a faithful, stable and atomic record of the runs."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from experiments.analysis import results as R
from experiments.engine.store import RunStore


def run_id(number):
    return f"{number:012x}"


def write_run(
    outputs, number, *, scale="cpu", seed=0, name="syre", sigma=0.1, status="done", values=(1.0, 2.0), **origin
):
    """A run directory as training leaves it; `values` are the test losses at steps 0, 100, ..."""
    folder = outputs / "fig0" / "runs" / run_id(number)
    folder.mkdir(parents=True)
    regularizer = {"name": name, "sigma": sigma, "weight_decay": 0.01}
    config = {"experiment": "fig0", "recipe": 1, "scale": scale, "seed": seed, "regularizer": regularizer}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"model": {"name": "mlp", "widths": [8, 8]}}))
    rows = [f"{100 * step},test,loss,{value}\n" for step, value in enumerate(values)]
    (folder / "metrics.csv").write_text("step,split,metric,value\n" + "".join(rows))
    record = {"id": run_id(number), "experiment": "fig0", "scale": scale, "status": status, "error": "", "seconds": 1.5}
    record |= {"git_sha": "0123456", "dirty": False, "versions": {"torch": "2.10", "python": "3.10"}, "device": "cpu"}
    (folder / "run.json").write_text(json.dumps(record | {"threads": 1, "group": "g"} | origin))
    (folder / "done").touch()
    return run_id(number)


def tables(folder):
    return tuple((folder / "fig0" / name).read_bytes() for name in ("runs.csv", "metrics.csv"))


def collect(tmp_path, ids, scale="cpu"):
    RunStore(tmp_path / "outputs/fig0").collect(tmp_path / "results/fig0", scale, ids)
    return tmp_path / "results/fig0"


def test_every_run_is_a_row_with_its_config_and_its_final_value(tmp_path):
    ids = [write_run(tmp_path / "outputs", k, seed=k, values=(1, 2 + k)) for k in range(3)]
    folder = collect(tmp_path, ids)
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.csv", "runs.csv"]
    results = R.load(tmp_path / "results", "fig0")
    final = results.final("loss")
    assert list(final["id"]) == ids
    assert list(final["loss"]) == [2, 3, 4]
    assert final.loc[0, ["regularizer.name", "regularizer.sigma", "model.widths", "versions.torch"]].tolist() == [
        *("syre", 0.1, "[8, 8]", "2.10")  # a version is text, not the number 2.1
    ]
    assert results.curve("loss").query("seed == 1")[["step", "loss"]].to_numpy().tolist() == [[0, 1], [100, 3]]


def test_ids_that_look_like_numbers_stay_text(tmp_path):
    ids = [write_run(tmp_path / "outputs", number) for number in (0x123456789012, 0x1234567E1012, 0)]
    collect(tmp_path, ids)
    assert set(R.load(tmp_path / "results", "fig0").runs["id"]) == {"123456789012", "1234567e1012", "000000000000"}


def test_tables_do_not_depend_on_the_order_of_the_runs(tmp_path):
    ids = [write_run(tmp_path / "outputs", 99 - k, seed=k % 5, sigma=10.0 ** (k // 5)) for k in range(20)]
    collect(tmp_path, ids)
    first = tables(tmp_path / "results")
    collect(tmp_path, ids[::-1])
    assert tables(tmp_path / "results") == first
    runs = R.load(tmp_path / "results", "fig0").runs
    assert runs["regularizer.sigma"].is_monotonic_increasing  # by value: as text, 10 would precede 2


def test_tables_without_provenance_are_equal_for_equal_runs_elsewhere(tmp_path):
    for name, origin in (("a", {}), ("b", {"git_sha": "fffffff", "dirty": True, "seconds": 9.0, "device": "cuda"})):
        collect(tmp_path / name, [write_run(tmp_path / name / "outputs", k, seed=k, **origin) for k in range(3)])
    a, b = (R.load(tmp_path / name / "results", "fig0") for name in "ab")
    assert R.without_provenance(a.runs).to_csv() == R.without_provenance(b.runs).to_csv()
    assert a.runs.to_csv() != b.runs.to_csv()  # control
    assert tables(tmp_path / "a" / "results")[1] == tables(tmp_path / "b" / "results")[1]


def test_collecting_a_scale_replaces_its_rows_and_keeps_the_others(tmp_path):
    cpu = [write_run(tmp_path / "outputs", k, seed=k) for k in range(3)]
    paper = [write_run(tmp_path / "outputs", 10 + k, seed=k, scale="paper") for k in range(2)]
    collect(tmp_path, cpu)
    collect(tmp_path, paper, scale="paper")
    both = tables(tmp_path / "results")
    collect(tmp_path, cpu)
    assert tables(tmp_path / "results") == both
    collect(tmp_path, cpu[:1])
    rows = pd.read_csv(tmp_path / "results/fig0/runs.csv", dtype={"id": str})
    assert sorted(rows["id"]) == sorted([cpu[0], *paper])
    assert set(pd.read_csv(tmp_path / "results/fig0/metrics.csv", dtype={"id": str})["id"]) == set(rows["id"])
    results = R.load(tmp_path / "results", "fig0")
    assert (results.scale, list(results.runs["id"])) == ("paper", paper)


# ---- trained again -------------------------------------------------------------------------------------------------

ELSEWHERE = {"git_sha": "fffffff", "dirty": True, "seconds": 9.0, "device": "cuda"}
ELSEWHERE |= {"versions": {"torch": "2.11", "x": 1}}


def rows_by_id(folder):
    runs = pd.read_csv(folder / "fig0/runs.csv", dtype=str, keep_default_na=False)
    return runs.set_index("id").to_dict("index")


@pytest.fixture
def again(tmp_path):
    """Tables of four runs, of which `collect` then finds others, trained elsewhere, in place of the old ones."""
    ids = [write_run(tmp_path / "outputs", k, seed=k) for k in range(4)]
    collect(tmp_path, ids)

    def call(**changes):
        shutil.rmtree(tmp_path / "outputs")
        for k in range(4):
            write_run(tmp_path / "outputs", k, **({"seed": k} | ELSEWHERE | changes.get(f"run{k}", {})))
        collect(tmp_path, ids)
        return ids

    return call


def test_the_same_numbers_from_elsewhere_leave_the_files_as_they_are(tmp_path, again):
    before = tables(tmp_path / "results")
    again()
    assert tables(tmp_path / "results") == before


def test_a_run_whose_numbers_changed_has_a_new_origin_and_the_others_keep_theirs(tmp_path, again):
    before = rows_by_id(tmp_path / "results")
    ids = again(run1={"values": (1.0, 2.5)}, run2={"status": "nan"})
    after = rows_by_id(tmp_path / "results")
    assert [after[name]["git_sha"] for name in ids] == ["0123456", "fffffff", "fffffff", "0123456"]
    assert [after[name]["seconds"] for name in ids] == ["1.500", "9.000", "9.000", "1.500"]
    assert [after[name]["versions.x"] for name in ids] == ["", "1", "1", ""]
    assert after[ids[0]] == before[ids[0]] | {"versions.x": ""}
    np.testing.assert_array_equal(R.load(tmp_path / "results", "fig0").final("loss")["loss"], [2, 2.5, np.nan, 2])


def test_runs_that_are_new_or_gone_change_the_tables(tmp_path, again):
    ids = again()
    before = tables(tmp_path / "results")
    collect(tmp_path, ids[:3])
    assert set(rows_by_id(tmp_path / "results")) == set(ids[:3])
    collect(tmp_path, ids)
    assert {row["git_sha"] for row in rows_by_id(tmp_path / "results").values()} == {"0123456", "fffffff"}
    assert tables(tmp_path / "results")[1] == before[1]


def test_a_table_older_than_a_setting_stays_until_a_number_changes(tmp_path, again):
    """What has the same id is the same run: a setting that came later has the value at which nothing changes."""
    place = tmp_path / "results/fig0/runs.csv"
    table = pd.read_csv(place, dtype=str, keep_default_na=False).drop(columns="regularizer.weight_decay")
    table.to_csv(place, index=False)
    before = tables(tmp_path / "results")
    again()
    assert tables(tmp_path / "results") == before
    again(run0={"values": (1.0, 3.0)})
    rows = rows_by_id(tmp_path / "results").values()
    assert {row["regularizer.weight_decay"] for row in rows} == {"0.01"}
    assert sorted(row["git_sha"] for row in rows) == ["0123456"] * 3 + ["fffffff"]


def test_a_setting_that_was_changed_by_hand_is_put_right_though_no_number_has_changed(tmp_path, again):
    place = tmp_path / "results/fig0/runs.csv"
    before = place.read_bytes()
    for column, cell in (("regularizer.sigma", "0.2"), ("regularizer.sigma", ""), ("model.name", "cnn")):
        table = pd.read_csv(place, dtype=str, keep_default_na=False)
        table.loc[1, column] = cell
        table.to_csv(place, index=False)
        assert place.read_bytes() != before
        again()
        assert place.read_bytes() == before, column


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """Groups of which some members have settings that came later."""
    for name, text in {
        "regularizer/syre": "name: syre\nsigma: 0.01\nunit: relative\ngains: 0\n_later_: {unit: relative, gains: 0}\n",
        "regularizer/decay": "name: weight_decay\nscope: all\n_later_: {scope: all}\n",
        "regularizer/vanilla": "name: vanilla\n",
        "regularizer/empty": "# _later_: nothing yet\n",
        "model/mlp": "name: mlp\nnorm: none\nbias: true\n_later_: {norm: none, bias: true}\n",
        "train/default": "steps: 1\naccumulate: 1\n_later_: {accumulate: 1}\n",
    }.items():
        (tmp_path / "configs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "configs" / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(R, "CONFIGS", tmp_path / "configs")
    return tmp_path / "configs"


def test_runs_older_than_a_setting_have_the_value_at_which_it_changes_nothing(tmp_path, configs):
    names = ("syre", "syre", "weight_decay", "vanilla")
    collect(tmp_path, [write_run(tmp_path / "outputs", k, seed=k, name=name) for k, name in enumerate(names)])
    place = tmp_path / "results/fig0/runs.csv"
    bytes_before = place.read_bytes()
    runs = R.load(tmp_path / "results", "fig0").runs.sort_values("seed").convert_dtypes()
    assert runs["regularizer.unit"].tolist() == ["relative", "relative", pd.NA, pd.NA]
    assert runs["regularizer.gains"].tolist() == [0, 0, pd.NA, pd.NA]
    assert runs["regularizer.scope"].tolist() == [pd.NA, pd.NA, "all", pd.NA]
    assert runs["model.norm"].tolist() == ["none"] * 4
    assert runs["train.accumulate"].tolist() == [1] * 4  # a group whose members have no names
    assert len(R.select(runs, **{"regularizer.unit": "relative", "model.bias": True})) == 2
    assert place.read_bytes() == bytes_before

    table = pd.read_csv(place, dtype=str, keep_default_na=False)
    later = {"regularizer.unit": ["absolute", "", "", ""], "regularizer.gains": ["1", "", "", ""]}
    table.sort_values("seed").assign(**later, **{"model.bias": ["false", "", "", ""]}).to_csv(place, index=False)
    runs = R.load(tmp_path / "results", "fig0").runs
    assert runs["regularizer.unit"].fillna("").tolist() == ["absolute", "relative", "", ""]  # what is said stays
    assert runs["regularizer.gains"].fillna(-1).tolist() == [1, 0, -1, -1]
    for value, seeds in ((False, [0]), (True, [1, 2, 3])):
        assert R.select(runs, **{"model.bias": value})["seed"].tolist() == seeds


def test_the_committed_settings_that_came_later_are_those_of_the_yaml():
    settings = {(group, name): values for group, name, values in R.later(R.CONFIGS)}
    assert settings["train", ""] == {"accumulate": 1, "restart": False}
    assert settings["regularizer", "syre"]["unit"] == "relative"
    assert ("regularizer", "vanilla") not in settings


def test_a_damaged_configuration_is_one_line(tmp_path, configs):
    (configs / "regularizer/syre.yaml").write_text("name: syre\n_later_: {unit: relative\n")
    collect(tmp_path, [write_run(tmp_path / "outputs", 0)])
    with pytest.raises(R.ResultsError, match=r"regularizer/syre\.yaml: .*expected") as info:
        R.load(tmp_path / "results", "fig0")
    assert "\n" not in str(info.value)


def test_failed_and_nan_runs_are_rows_without_a_final_value(tmp_path):
    ids = [
        write_run(tmp_path / "outputs", 0, values=(1, 2)),
        write_run(tmp_path / "outputs", 1, seed=1, status="nan", values=(1, float("nan"))),
        write_run(tmp_path / "outputs", 2, seed=2, status="failed", values=()),
        write_run(tmp_path / "outputs", 3, seed=3, status="nan", values=(1, 0.5)),  # its last finite loss is no result
    ]
    collect(tmp_path, ids)
    results = R.load(tmp_path / "results", "fig0")
    assert list(results.runs["status"]) == ["done", "nan", "failed", "nan"]
    np.testing.assert_array_equal(results.final("loss")["loss"], [2, np.nan, np.nan, np.nan])


def test_missing_runs_are_one_error_that_counts_them_and_writes_nothing(tmp_path):
    ids = [write_run(tmp_path / "outputs", k) for k in range(5)]
    for unfinished in ids[3:]:
        (tmp_path / "outputs/fig0/runs" / unfinished / "done").unlink()
    with pytest.raises(
        R.ResultsError, match=r"fig0: 2 of 5 runs at scale cpu are missing.*make fig0 SCALE=cpu"
    ) as info:
        collect(tmp_path, ids)
    assert "\n" not in str(info.value)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "metrics.csv"])
def test_a_damaged_run_is_named(tmp_path, name):
    ids = [write_run(tmp_path / "outputs", k, seed=k) for k in range(2)]
    (tmp_path / "outputs/fig0/runs" / ids[1] / name).write_text("step,value\n1,{\n")
    with pytest.raises(R.ResultsError, match=f"{ids[1]} is damaged") as info:
        collect(tmp_path, ids)
    assert "\n" not in str(info.value)


def test_a_full_disk_leaves_both_old_tables_and_one_line(tmp_path, monkeypatch):
    ids = [write_run(tmp_path / "outputs", k, seed=k) for k in range(4)]
    collect(tmp_path, ids[:2])
    before = tables(tmp_path / "results")
    synced, fsync = [], os.fsync

    def second_one_fails(descriptor):
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", second_one_fails)
    with pytest.raises(R.ResultsError, match=r"cannot write .*No space left on device"):
        collect(tmp_path, ids)
    assert tables(tmp_path / "results") == before
    assert len(list((tmp_path / "results/fig0").iterdir())) == 2  # no temporary file stays
    monkeypatch.setattr(os, "fsync", fsync)
    collect(tmp_path, ids)
    assert tables(tmp_path / "results") != before  # control


def test_a_results_path_whose_parent_is_a_file_is_one_line(tmp_path):
    ids = [write_run(tmp_path / "outputs", 0)]
    (tmp_path / "results").write_text("a file")
    with pytest.raises(R.ResultsError, match="cannot write"):
        collect(tmp_path, ids)
    assert (tmp_path / "results").read_text() == "a file"


def test_loading_what_is_not_there_says_which_command_makes_it(tmp_path):
    with pytest.raises(R.ResultsError, match="`make fig0` trains"):
        R.load(tmp_path, "fig0")


def test_tables_that_do_not_match_are_refused(tmp_path):
    collect(tmp_path, [write_run(tmp_path / "outputs", 0)])
    with (tmp_path / "results/fig0/metrics.csv").open("a") as file:
        file.write("ffffffffffff,0,test,loss,1\n")
    with pytest.raises(R.ResultsError, match="do not match"):
        R.load(tmp_path / "results", "fig0")


def test_an_unknown_metric_lists_those_there_are(tmp_path):
    collect(tmp_path, [write_run(tmp_path / "outputs", 0)])
    with pytest.raises(R.ResultsError, match=re.escape("no metric test/lss; there are: test/loss")):
        R.load(tmp_path / "results", "fig0").final("lss")


def test_select_compares_numbers_by_value_and_words_by_letter():
    df = pd.DataFrame(
        {
            "regularizer.name": ["syre", "syre", "vanilla", "syre"],
            "regularizer.sigma": [0.1, 0.1 + 1e-12, np.nan, 0.2],
            "on": [True, False, True, False],
            "seed": [0, 1, 2, 3],
        }
    )
    assert list(R.select(df, **{"regularizer.name": "syre", "regularizer.sigma": "1e-1"})["seed"]) == [0, 1]
    assert list(R.select(df, **{"regularizer.sigma": 0.1}, seed=[1, 2])["seed"]) == [1]
    assert list(R.select(df, **{"regularizer.sigma": None})["seed"]) == [2]
    assert list(R.select(df, on=False)["seed"]) == [1, 3]
    assert list(R.select(df, on="TRUE")["seed"]) == []
    assert list(R.select(df.assign(on=[True, None, "false", None]), on=False)["seed"]) == [2]
    assert R.select(df, **{"regularizer.sigma": 0.3}).empty
    assert list(R.select(df, unit=["relative", None])["seed"]) == [0, 1, 2, 3]  # a column that is not there is empty
    assert list(R.select(df.assign(unit=["a", "relative", None, ""]), unit=["relative", None])["seed"]) == [1, 2]
    with pytest.raises(R.ResultsError, match="no column 'sigma'"):
        R.select(df, sigma=0.1)


def test_an_arm_with_a_setting_that_no_run_has_yet_is_not_there():
    df = pd.DataFrame({"regularizer.name": ["vanilla", "syre"]})
    assert R.there(df, {"regularizer.name": "syre", "regularizer.sigma": 1}).empty
    assert R.there(df, {"regularizer.name": "vanilla", "regularizer.sigma": None}).index.tolist() == [0]
    with pytest.raises(R.ResultsError, match=r"no column 'regularizer\.sigma'"):
        R.select(df, **{"regularizer.sigma": 1})  # control


def test_the_runs_of_an_arm_are_found_by_its_settings_and_their_ends_by_seed(tmp_path):
    ids = [
        write_run(tmp_path / "outputs", 2 * k + j, seed=3 - k, sigma=s) for k in range(3) for j, s in enumerate((1, 2))
    ]
    results = R.load(collect(tmp_path, ids).parent, "fig0")
    arm = {"regularizer.sigma": 2, "regularizer.name": "syre"}
    assert set(results.final("loss", **arm)["regularizer.sigma"]) == {2}
    assert len(results.curve("loss", **arm, step=100)) == len(results.final("loss", **arm)) == 3
    assert results.by_seed("loss", arm).to_dict() == {1: 2, 2: 2, 3: 2}
    with pytest.raises(R.ResultsError, match=r"an arm leaves regularizer\.sigma open"):
        results.by_seed("loss", {})


def test_the_table_to_figure_side_never_imports_torch():
    modules = "results, stats, claims, remaining, arms, plotting, pages, statements, overview"
    heavy = ("torch", "syre", "hydra", "omegaconf", "wandb", "matplotlib.pyplot")
    code = f"import sys; from experiments.analysis import {modules}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_of_metrics_that_are_no_curves_the_tables_have_the_last_record():
    steps = ["100", "20", "3"]  # as text, and in no order
    records = [
        {"id": "a", "step": step, "split": split, "metric": metric, "value": f"{metric} {step}"}
        for split, metric in (("test", "loss"), ("test", "rank"), ("train", "loss"))
        for step in steps
    ]
    kept = R.thinned(records, ["rank"])
    assert [(row["split"], row["value"]) for row in kept] == [
        *(("test", "loss 100"), ("test", "rank 100"), ("test", "rank 20"), ("test", "rank 3"), ("train", "loss 100"))
    ]
    assert R.thinned(kept, ["rank"]) == kept  # as of rows that were adopted from tables
    assert R.thinned(records, []) == records  # control
