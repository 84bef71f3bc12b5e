"""A sweep is a union of products; its groups are packed once, and what is finished is not trained again."""

import json

import pytest

from experiments.engine.config import identity
from experiments.engine.errors import ConfigError
from experiments.engine.expand import Group, expand, pack, split
from experiments.engine.store import RunStore
from tests.experiments.conftest import experiment_of


@pytest.fixture
def runs_of(composed):
    """The runs of some blocks, as the command line would expand and check them."""

    def call(blocks, *words, seeds=None, scales=None):
        plain, fixed, axes = split(words)
        config = composed(*plain)
        config.runs, config.seeds, config.scales = blocks, seeds, scales or {}
        runs = expand(config, lambda members: composed(*plain, *members), fixed=fixed, axes=axes)
        for run in runs:
            run.check()
        return runs

    return call


def facts(runs, *keys):
    """The values of some dotted keys, run by run."""
    rows = []
    for run in runs:
        row = []
        for key in keys:
            node = run.config
            for part in key.split("."):
                node = node.get(part) if isinstance(node, dict) else None
            row.append(node)
        rows.append(tuple(row))
    return rows


NAME, GAMMA, SIGMA = "regularizer.name", "regularizer.weight_decay", "regularizer.sigma"
BLOCKS = [
    {"regularizer": "vanilla"},
    {"regularizer": "weight_decay", GAMMA: [0.1, 0.2]},
    {"regularizer": "syre", SIGMA: [1, 3], GAMMA: [0.1, 0.2]},
]


# ---- from blocks to runs ---------------------------------------------------------------------------------------------


def test_an_experiment_is_the_union_of_the_products_of_its_blocks(runs_of):
    assert facts(runs_of(BLOCKS), NAME, GAMMA, SIGMA) == [
        ("vanilla", None, None),
        *(("weight_decay", gamma, None) for gamma in (0.1, 0.2)),
        *(("syre", gamma, sigma) for sigma in (1, 3) for gamma in (0.1, 0.2)),
    ]


def test_without_blocks_there_is_the_one_run_that_the_configuration_describes(runs_of):
    assert facts(runs_of([]), NAME, "seed") == [("weight_decay", 0)]


@pytest.mark.parametrize(("seeds", "expected"), [(2, [0, 1]), ([5, 7], [5, 7]), ({"cpu": 1, "smoke": 3}, [0])])
def test_seeds_are_a_count_or_a_list_or_one_of_these_per_scale(runs_of, seeds, expected):
    assert [run.seed for run in runs_of([{"optim.lr": 0.1}], seeds=seeds)] == expected


def test_a_block_may_set_its_own_seeds(runs_of):
    assert [run.seed for run in runs_of([{"seed": [3, 4]}, {}], seeds=1)] == [3, 4, 0]


def test_a_value_may_differ_between_scales_and_must_be_given_for_the_one_asked_for(runs_of):
    blocks = [{"optim.lr": {"smoke": 0.5, "cpu": [0.1, 0.2]}}]
    assert facts(runs_of(blocks), "optim.lr") == [(0.1,), (0.2,)]
    assert facts(runs_of(blocks, "scale=smoke"), "optim.lr") == [(0.5,)]
    with pytest.raises(ConfigError, match="no value for scale paper"):
        runs_of(blocks, "scale=paper")


def test_a_scale_has_settings_of_its_own_a_choice_of_group_among_them(runs_of):
    scales = {"smoke": {"train.epochs": 1, "optim": "sgd"}}
    assert facts(runs_of([{}], scales=scales), "train.epochs", "optim.name") == [(5, "adam")]
    assert facts(runs_of([{}], "scale=smoke", scales=scales), "train.epochs", "optim.name") == [(1, "sgd")]
    assert facts(runs_of([{"train.epochs": 9}], "scale=smoke", scales=scales), "train.epochs") == [(9,)]  # blocks win


def test_a_group_may_be_null_where_the_task_only_measures_and_only_there(runs_of):
    none = dict.fromkeys(("model", "data", "regularizer", "optim"))
    (run,) = runs_of([{"task": "ridge", "task.sigma": 1, **none}])
    assert [getattr(run, group) for group in none] == [None] * 4
    assert run.task.sigma == 1
    with pytest.raises(ConfigError, match="model, data, regularizer, optim missing: task=regression trains a model"):
        runs_of([{"task": "regression", **none}])


def test_a_run_that_several_blocks_name_is_one_run(runs_of):
    assert len(runs_of([{"seed": [0, 1]}, {"seed": [1, 2]}])) == 3


@pytest.mark.parametrize("key", ["optim.lrr", "lr", "optim.lr.x", "scale", "experiment", "outputs"])
def test_a_key_that_is_not_a_runs_own_is_named(runs_of, key):
    with pytest.raises(ConfigError, match=f"unknown key {key} in"):
        runs_of([{key: 1}])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "a", "seed must be an integer, got 'a'"),
        ("compute.threads", -1, "compute.threads must be a number >= 0, got -1"),
        ("compute.precision", "fp8", r"compute.precision: Invalid value 'fp8', expected one of \[fp32, bf16, auto\]"),
        ("train.epochs", "x", "train.epochs: Value 'x' of type 'str' could not be converted to Integer"),
    ],
)
def test_a_value_of_a_block_is_checked_like_any_other(runs_of, key, value, message):
    with pytest.raises(ConfigError, match=message):
        runs_of([{key: value}])


# ---- the command line wins -----------------------------------------------------------------------------------------


def test_a_value_on_the_command_line_replaces_those_of_blocks_seeds_and_scales(runs_of):
    scales = {"cpu": {"train.epochs": 1}}
    runs = runs_of([{"optim.lr": [0.1, 0.2]}], "optim.lr=0.7", "seed=9", "train.epochs=2", seeds=3, scales=scales)
    assert facts(runs, "optim.lr", "seed", "train.epochs") == [(0.7, 9, 2)]


def test_values_swept_on_the_command_line_multiply_every_block(runs_of):
    runs = runs_of([{"optim.lr": [0.1, 0.2]}, {"optim.lr": 0.3}], "seed=4,5", "train.batch_size=8,16", seeds=3)
    assert set(facts(runs, "optim.lr", "seed", "train.batch_size")) == {
        (lr, seed, size) for lr in (0.1, 0.2, 0.3) for seed in (4, 5) for size in (8, 16)
    }
    assert len(runs) == 12


def test_a_choice_on_the_command_line_leaves_out_the_blocks_that_choose_otherwise(runs_of):
    everything = {run.id for run in runs_of(BLOCKS)}
    for word, names in (("syre", {"syre"}), ("syre,vanilla", {"syre", "vanilla"})):
        runs = runs_of(BLOCKS, f"regularizer={word}")
        assert {name for (name,) in facts(runs, NAME)} == names
        assert {run.id for run in runs} < everything
    assert facts(runs_of([{"seed": [1, 2]}], "optim=adam,sgd"), "optim.name", "seed") == [
        *(("adam", 1), ("sgd", 1), ("adam", 2), ("sgd", 2))  # no block chooses: the choice is an axis
    ]
    with pytest.raises(ConfigError, match="no runs"):
        runs_of(BLOCKS, "regularizer=l2_init")


@pytest.mark.parametrize("word", [f"{SIGMA}=7", f"{SIGMA}=7,7.0", f"{SIGMA}=choice(7)"])
def test_a_setting_is_for_the_blocks_whose_member_has_it(runs_of, word):
    assert set(facts(runs_of(BLOCKS, word), NAME, GAMMA, SIGMA)) == {
        ("vanilla", None, None),
        *(("weight_decay", gamma, None) for gamma in (0.1, 0.2)),
        *(("syre", gamma, 7) for gamma in (0.1, 0.2)),
    }
    assert len(runs_of(BLOCKS[:2])) == len(runs_of([*BLOCKS[:2]], f"{GAMMA}=0.1,0.2"))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("regularizer.sigm=1", "regularizer may have .*name, .*sigma, .*weight_decay"),
        ("regularizer.sigm=1,2", "unknown key regularizer.sigm"),
        ("data.root=x", "data may have"),
        ("sed=0,1", "no run has it"),
    ],
)
def test_a_setting_that_no_run_has_is_named_with_those_there_are(runs_of, word, says):
    with pytest.raises(ConfigError, match=says) as error:
        runs_of(BLOCKS, word)
    assert f"unknown key {word.split('=')[0]}; " in str(error.value)


@pytest.mark.parametrize(
    "word",
    [
        *(f"{GAMMA}=1e-3", "model.hidden=[8,16]", "model.activation='tanh'", "optim.betas=[0.5,0.9]"),
        *("optim.decoupled=true", "optim.eps=${optim.lr}"),
    ],
)
def test_a_setting_of_a_sweep_is_the_value_that_it_is_of_a_run(runs_of, composed, word):
    (run,) = runs_of([], word)
    assert run.config == identity(composed(word))
    assert run.config != identity(composed())


# ---- from runs to groups -------------------------------------------------------------------------------------------


def ids(groups):
    return [[run.id for run in group.runs] for group in groups]


def test_a_group_agrees_in_all_but_the_batched_keys_and_keeps_the_order(runs_of):
    runs = runs_of([{"optim.lr": [0.1, 0.2], **block} for block in BLOCKS], seeds=2)
    groups = pack(runs, batched=["seed", "regularizer"], size=lambda run: 100)
    assert [{lr for (lr,) in facts(group.runs, "optim.lr")} for group in groups] == [{0.1}, {0.2}]
    assert ids(groups) == [[run.id for run in runs if run.config["optim"]["lr"] == lr] for lr in (0.1, 0.2)]
    alone = pack(runs, batched=["seed"], size=lambda run: 100)
    assert len(alone) == 2 * 7
    assert all(len({r.config["seed"] for r in group.runs}) == 2 for group in alone)
    assert len(pack(runs, batched=["regularizer.sigma"], size=lambda run: 100)) < len(runs)  # a key below a group


def test_a_group_is_at_most_of_the_size_asked_for_its_kind(runs_of):
    runs = runs_of([{"optim.lr": [0.1, 0.2]}], seeds=5)
    size = lambda run: 2 if run.config["optim"]["lr"] == 0.1 else 0  # noqa: E731
    assert [len(group.runs) for group in pack(runs, batched=["seed"], size=size)] == [2, 2, 1, 1, 1, 1, 1, 1]


def test_groups_of_other_members_or_another_order_are_other_groups(runs_of):
    a, b, c = runs_of([{}], seeds=3)
    assert len({Group(runs=runs).id for runs in ([a, b], [b, a], [a, b, c], [a], [b])}) == 5
    assert Group(runs=[a, b]).id == Group(runs=[a, b]).id


# ---- what is still to train ----------------------------------------------------------------------------------------


def end(folder, run, status="done"):
    place = folder / "runs" / run.id
    place.mkdir(parents=True, exist_ok=True)
    (place / "run.json").write_text(json.dumps({"status": status}))
    (place / "done").touch()


@pytest.fixture
def planned(tmp_path):
    """`plan` in a folder, two runs a group."""
    return lambda runs, size=2: experiment_of(runs, tmp_path, size=size).plan(runs)


def test_a_finished_run_is_not_planned_and_a_failed_one_is_tried_again(runs_of, planned, tmp_path):
    runs = runs_of([{}], seeds=4)
    for run, status in zip(runs, ("done", "nan", "failed", None), strict=True):
        if status:
            end(tmp_path, run, status)
    assert [RunStore(tmp_path).finished(run.id) for run in runs] == [True, True, False, False]
    assert ids(planned(runs)) == [[run.id for run in runs[2:]]]


def test_a_run_without_its_done_mark_is_not_finished(runs_of, tmp_path):
    (run,) = runs_of([{}])
    end(tmp_path, run)
    assert RunStore(tmp_path).finished(run.id)
    (tmp_path / "runs" / run.id / "done").unlink()
    assert not RunStore(tmp_path).finished(run.id)


def test_a_group_is_written_down_and_read_back_as_it_was(runs_of, planned, tmp_path):
    runs = runs_of(BLOCKS, seeds=2)
    for group in planned(runs):
        again = RunStore(tmp_path).load(group.id)
        assert again == group
        assert again.id == group.id


def test_an_interrupted_group_is_resumed_whole_and_never_repacked(runs_of, planned, tmp_path):
    runs = runs_of([{}], seeds=4)
    first = planned(runs)
    assert [len(group.runs) for group in first] == [2, 2]
    assert sorted(ids(planned(runs))) == sorted(ids(first))  # nothing is trained yet
    assert sorted(ids(planned(runs, size=4))) == sorted(ids(first))
    end(tmp_path, runs[0])  # killed while the first group was being written
    assert sorted(ids(planned(runs))) == sorted(ids(first))
    end(tmp_path, runs[1])
    assert ids(planned(runs)) == ids(first[1:])
    for run in runs:
        end(tmp_path, run)
    assert planned(runs) == []


def test_new_runs_get_groups_of_their_own(runs_of, planned):
    few, more = runs_of([{}], seeds=2), runs_of([{}], seeds=5)
    (first,) = planned(few)
    assert ids(planned(more)) == [*ids([first]), [run.id for run in more[2:4]], [more[4].id]]


def test_a_group_with_members_that_are_not_asked_for_is_left_alone(runs_of, planned):
    runs = runs_of([{}], seeds=2)
    planned(runs)
    assert ids(planned(runs[:1])) == [[runs[0].id]]


def test_runs_of_two_interrupted_groups_train_once(runs_of, planned):
    runs = runs_of([{}], seeds=2)
    planned(runs[:1])
    planned(runs)  # packs the second run only
    assert sorted(run for group in ids(planned(runs)) for run in group) == sorted(run.id for run in runs)
