"""Every model with every task and every kind of data: it trains, or it is one line, and then nothing is left."""

import itertools
import re
from functools import cache

import pytest
import torch
import yaml
from replicas import REGULARIZERS

from experiments.engine import build, training
from experiments.engine.config import Run
from experiments.engine.errors import ConfigError
from experiments.engine.expand import Group
from experiments.engine.store import RunStore
from syre.data import text
from syre.tasks import needs
from tests.experiments.conftest import CONFIGS

pytestmark = pytest.mark.usefixtures("trains_here")

MODELS = {
    "beta_vae": {"hidden": 8, "latent": 4},
    "collapsed_mlp": {"hidden": [8]},
    "continual_cnn": {"channels": [2, 3], "padding": 2, "hidden": 8},
    "diagonal_linear": {},
    "gpt": {"width": 8, "depth": 1, "heads": 2},
    "mlp": {"hidden": [8]},
    "pair": {"hidden": [8, 8, 8]},
    "point": {},
    "ppo": {"hidden": [8]},
    "resnet18": {"width": 2},
    "simclr": {"width": 2, "hidden": 8, "out": 12},
    "stock": {"network": "shufflenet_v2_x0_5"},
    "vit": {"dim": 8, "depth": 1, "heads": 2, "mlp": 8},
}
TASKS = {
    "classification": {},
    "collapsed_start": {},
    "contrastive": {},
    "diagnosed_autoencoder": {"diagnosed": 8},
    "diagnosed_classification": {"diagnosed": 8},
    "diagnosed_start": {"diagnosed": 8},
    "language": {"windows": 4},
    "matrix": {},
    "mode_connectivity": {"points": 3},
    "neuron_symmetry": {},
    "ppo": {"rollout": 8, "epochs": 1},
    "regression": {},
    "tangent_kernel": {"images": 3},
    "variational_autoencoder": {"components": 2, "images": [0]},
}
FEW = {"samples": 32, "test_samples": 16}
DATA = {  # one for each kind there is: what is different about a data set is no more than that
    "digits": {"_of": "digits"},
    "colour": {"_of": "rgb_digits", **FEW},
    "views": {"_of": "rgb_digits", "augment": "simclr", **FEW},
    "sequence": {"_of": "permuted_mnist", "base": "digits", "tasks": 2, **FEW},
    "relabelled": {"_of": "random_labels", "base": "digits", "tasks": 2, "samples": 32},
    "vectors": {"_of": "teacher_student", **FEW},
    "regression": {"_of": "linear_regression", "dims": 5, **FEW},
    "matrix": {"_of": "random_matrix", "size": 6},
    "text": {"_of": "text", "context": 16, "tasks": 2, **FEW},
    "environment": {"_of": "slippery_ant"},
}
IMAGES = ("digits", "colour", "sequence", "relabelled")
LABELS = (*IMAGES, "vectors")
NETWORKS = ("collapsed_mlp", "mlp")
CLASSIFY, STARTS = ("classification", "diagnosed_classification"), ("collapsed_start", "diagnosed_start")
ENCODE = ("variational_autoencoder", "diagnosed_autoencoder")
TRAINS = {
    *itertools.product(NETWORKS, (*CLASSIFY, *STARTS, "neuron_symmetry", "tangent_kernel"), LABELS),
    *itertools.product(("continual_cnn", "resnet18", "vit"), CLASSIFY, IMAGES),
    *itertools.product(("stock",), CLASSIFY, ("colour",)),
    *itertools.product(
        (*NETWORKS, "continual_cnn", "resnet18", "simclr", "stock", "vit"), ("contrastive",), ("views",)
    ),
    *itertools.product(("pair",), ("mode_connectivity",), LABELS),
    *itertools.product(("beta_vae",), ENCODE, {*DATA} - {"environment", "text"}),
    ("diagonal_linear", "regression", "regression"),
    ("gpt", "language", "text"),
    ("point", "matrix", "matrix"),
    ("ppo", "ppo", "environment"),
}
OWN = {"collapsed_mlp": ("collapsed_start", "digits"), "beta_vae": ("variational_autoencoder", "digits"),
       "pair": ("mode_connectivity", "digits"), "simclr": ("contrastive", "views"), "point": ("matrix", "matrix"),
       "stock": ("classification", "colour"), "gpt": ("language", "text"),
       "diagonal_linear": ("regression", "regression"), "ppo": ("ppo", "environment")}  # fmt: skip


@cache
def leaf(group, name):
    return yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())


def run_of(*triple, seed=0, **more):
    """A short run of a model, a task and data; `more` are settings by group, as in train={"batch_size": 8}."""
    model, task, data = (*triple, *("mlp", "classification", "digits")[len(triple) :])
    config = {
        "experiment": "fit", "recipe": 1, "scale": "smoke", "seed": seed,
        "model": leaf("model", model) | MODELS[model],
        "task": leaf("task", task) | TASKS[task],
        "data": leaf("data", DATA[data]["_of"]) | {key: value for key, value in DATA[data].items() if key != "_of"},
        "regularizer": leaf("regularizer", "weight_decay"),
        "optim": leaf("optim", "adam"),
        "train": {"epochs": 0, "steps": 2, "batch_size": 16, "evaluations": 1},
        "compute": {"device": "cpu", "threads": 1, "precision": "fp32", "compile": False},
    }  # fmt: skip
    for group, settings in more.items():
        config[group] = settings if "_target_" in settings else config[group] | settings
    run = Run(config=config)
    run.check()
    return run


def outcome(runs, folder):
    """None for runs that train as one, or the line that says why not; what a sweep says before and a run when it trains
    is the same, and nothing is left of what is refused."""
    group = Group(runs=runs)
    said = []
    for ask in (build.fitting(None), lambda g: training.train_group(g, RunStore(folder), data_root=None, alone=True)):
        try:
            ask(group)
        except ConfigError as error:
            said.append(str(error))
        else:
            said.append(None)
    assert said[0] == said[1]
    if said[0] is None:
        assert {RunStore(folder).facts(run.id)["status"] for run in runs} <= {"done", "nan"}
    else:
        assert "\n" not in said[0]
        assert not folder.exists()
    return said[0]


# ---- which model trains at which task on which data ------------------------------------------------------------------


def test_the_tables_here_are_of_all_models_tasks_and_kinds_of_data():
    names = lambda group: {path.stem for path in (CONFIGS / group).glob("*.yaml")}  # noqa: E731
    measured = {name for name in names("task") if "theory" in leaf("task", name)["_target_"]} | {"cost", "ridge"}
    assert names("model") == MODELS.keys()
    assert names("task") == TASKS.keys() | measured
    like = {"mnist": "digits", "fashion_mnist": "digits", "cifar10": "rgb_digits", "cifar100": "rgb_digits"}
    like |= {"diabetes": "linear_regression"}
    assert {like.get(name, name) for name in names("data")} == {settings["_of"] for settings in DATA.values()}


@pytest.mark.parametrize("model", MODELS)
def test_every_triple_trains_or_is_one_line_that_says_what_is_needed(tmp_path, model):
    trained, lines = set(), {}
    for number, (task, data) in enumerate(itertools.product(TASKS, DATA)):
        line = outcome([run_of(model, task, data)], tmp_path / str(number))
        if line is None:
            trained.add((model, task, data))
        else:
            lines[task, data] = line
    assert trained == {triple for triple in TRAINS if triple[0] == model}
    for (task, data), line in lines.items():
        named = f"task={task}" in line or "takes" in line  # or the model takes no such inputs
        assert named, (task, data, line)


@pytest.mark.parametrize("kind", needs.MODELS)
def test_the_models_that_a_line_lists_are_those_that_say_so_of_themselves(kind):
    saying = set()
    for model in MODELS:
        task, data = OWN.get(model, ("classification", "digits"))
        replica, _ = build.build(run_of(model, task, data), None, torch.device("cpu"))
        if getattr(replica.model, "gives", "") == kind:
            saying.add(model)
    assert saying == {*needs.MODELS[kind]}


@pytest.mark.parametrize(
    ("model", "task", "data"),
    [
        ("point", "classification", "digits"),
        ("beta_vae", "classification", "digits"),
        ("mlp", "variational_autoencoder", "digits"),
        ("mlp", "mode_connectivity", "digits"),
        ("mlp", "regression", "regression"),
        ("diagonal_linear", "regression", "digits"),
        ("point", "matrix", "digits"),
        ("mlp", "contrastive", "colour"),
        ("mlp", "classification", "views"),
        ("mlp", "ppo", "environment"),
        ("mlp", "language", "text"),
        ("gpt", "classification", "text"),
        ("gpt", "language", "vectors"),
        ("mlp", "classification", "text"),
        ("beta_vae", "variational_autoencoder", "text"),
    ],
    ids="-".join,
)
def test_control_what_is_refused_would_not_have_trained(tmp_path, monkeypatch, model, task, data):
    run = run_of(model, task, data)
    monkeypatch.setattr(type(run.task), "accept", lambda *_: None)
    with pytest.raises((TypeError, RuntimeError, ValueError, AttributeError, IndexError)):
        training.train_group(Group(runs=[run]), RunStore(tmp_path), data_root=None, alone=True)


@pytest.mark.parametrize("model", MODELS)
def test_every_regularizer_trains_on_every_model_or_is_one_line(tmp_path, model):
    task, data = OWN.get(model, ("classification", "digits"))
    trained = {
        regularizer.name
        for regularizer in REGULARIZERS
        if outcome(
            [run_of(model, task, data, regularizer=leaf("regularizer", regularizer.name))], tmp_path / regularizer.name
        )
        is None
    }
    assert trained >= {"vanilla", "weight_decay", "syre", "syre_advanced", "l2_init", "offset", "w_fix"}


# ---- single settings -------------------------------------------------------------------------------------------------


PAIR, VAE, PPO = ("pair", "mode_connectivity"), ("beta_vae", "variational_autoencoder"), ("ppo", "ppo", "environment")
STOCK, GPT = ("stock", "classification", "colour"), ("gpt", "language", "text")
COLOUR, SEQUENCE, RELABELLED = (("mlp", "classification", data) for data in ("colour", "sequence", "relabelled"))


@pytest.mark.parametrize(
    ("triple", "settings", "line"),
    [
        (["mlp", "neuron_symmetry"], {"model": {"hidden": [8, 8]}}, "task=neuron_symmetry needs .* one hidden layer"),
        (PAIR, {"train": {"batch_size": 15}}, "train.batch_size must be even for a pair"),
        (PAIR, {"train": {"batch_size": 30, "accumulate": 2}}, "must be even .* got 15 samples"),
        (["mlp"], {"train": {"batch_size": 16, "accumulate": 3}}, "16, must be a multiple of train.accumulate=3"),
        (VAE, {"task": {"images": [355]}}, "^task.images must .*, of which there are 355, from 0, got 355"),
        (["resnet18"], {"train": {"batch_size": 1}}, "^BatchNorm .*: raise train.batch_size"),
        (["resnet18"], {"train": {"batch_size": 16, "accumulate": 16}}, "or lower train.accumulate"),
        (STOCK, {"train": {"batch_size": 1}}, "^BatchNorm .*: raise train.batch_size"),
        (STOCK, {"model": {"network": "resnet"}}, "^model.network must be one of alexnet, .*, got 'resnet'"),
        (STOCK, {"model": {"network": "squeezenet1_1"}}, "^model.network must end in a linear layer, .* SqueezeNet"),
        (STOCK, {"model": {"network": "googlenet"}}, "give nothing but logits: GoogLeNet does not"),
        (COLOUR, {"data": {"samples": 100_000}}, "data.samples must be at most 1442, .* got 100000"),
        (SEQUENCE, {"data": {"test_samples": 999}}, "data.test_samples must be at most 355"),
        (RELABELLED, {"data": {"samples": 2000}}, "data.samples must be at most 1442, .* got 2000"),
        (["continual_cnn"], {"model": {"padding": 0}}, "^model.kernel 5 and model.padding 0 leave nothing"),
        (GPT, {"data": {"samples": 10**7}}, r"^data.samples must be at most \d+, the windows there are, got 10000000"),
        (["vit"], {"model": {"patch": 5}}, "^model.patch must divide the image size 8, got 5"),
        (["mlp"], {"regularizer": leaf("regularizer", "syre_layers")}, "^regularizer.modules: no 'head' in MLPModule"),
        (PAIR, {"regularizer": leaf("regularizer", "dropout")}, "^regularizer=dropout is not for a pair of networks"),
        (PPO, {"train": {"batch_size": 1}}, "train.batch_size > 1, or 0"),
        (PPO, {"task": {"rollout": 1}}, "task.rollout must be > 1"),
        (PPO, {"compute": {"precision": "bf16"}}, "compute.precision=bf16 .* not for PPO"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_do_not_fit_are_named(tmp_path, triple, settings, line):
    said = outcome([run_of(*triple, **settings)], tmp_path / "outputs")
    assert re.search(line, said or ""), said


def test_a_batch_of_one_image_trains_where_the_last_stage_has_more_than_one_pixel(tmp_path):
    assert outcome([run_of("resnet18", "classification", "colour", train={"batch_size": 1})], tmp_path / "one") is None


def test_a_run_on_text_says_which_text_that_was(tmp_path):
    text._read.cache_clear()
    text._cut.cache_clear()
    found = []
    for triple in ((), GPT):
        training.train_group(Group(runs=[run := run_of(*triple)]), RunStore(tmp_path), data_root=None, alone=True)
        found.append(RunStore(tmp_path).facts(run.id)["versions"].get("text"))
    assert found == [None, text._read(text.library()).what]


# ---- runs that are to train as one -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ([{"task": {"spectrum": [1]}}, {}], r"share their task: nothing of it can be in batched="),
        ([{"train": {"steps": 3}}, {}], "share their train"),
        ([{"compute": {"threads": 2}}, {}], "share their compute"),
        ([{"model": {"hidden": [9]}}, {}], "replicas of one ensemble must have the same parameters"),
        ([{"optim": leaf("optim", "sgd")}, {}], "an ensemble steps SGD, Adam or AdamW, all of one kind, got Adam, SGD"),
        ([{"optim": {"eps": 1e-3}}, {}], "replicas of one ensemble must share eps"),
        ([{"train": {"accumulate": 2}}] * 2, "are for lone runs: set replicas=1"),
        ([{"compute": {"precision": "bf16"}}] * 2, "are for lone runs: set replicas=1"),
        ([{"model": leaf("model", "resnet18") | MODELS["resnet18"]}] * 2, "running statistics .* train it alone"),
    ],
    ids=str,
)
def test_runs_that_cannot_train_as_one_are_one_line(tmp_path, settings, line):
    runs = [run_of(seed=seed, **more) for seed, more in enumerate(settings)]
    said = outcome(runs, tmp_path / "outputs")
    assert re.search(line, said or ""), said


def test_control_runs_that_differ_elsewhere_train_as_one(tmp_path):
    other = {"regularizer": leaf("regularizer", "dropout"), "optim": {"lr": 0.1}, "data": {"input_scale": 0.5}}
    assert outcome([run_of(seed=0), run_of(seed=1, **other)], tmp_path / "outputs") is None


def test_of_runs_that_differ_by_numbers_alone_one_is_built(monkeypatch):
    built, real = [], build.build
    monkeypatch.setattr(build, "build", lambda run, *rest: built.append(run.id) or real(run, *rest))
    ask = build.fitting(None)
    decays = [leaf("regularizer", name) for name in ("weight_decay", "weight_decay", "syre")]
    for seed, (number, decay) in itertools.product(range(4), enumerate(decays, 1)):
        ask(
            Group(
                runs=[run_of(seed=seed, regularizer=decay | {"weight_decay": 0.1 * number}, optim={"lr": 0.1 + seed})]
            )
        )
    assert len(built) == 2
    ask(Group(runs=[run_of(train={"batch_size": 8})]))
    assert len(built) == 3  # control


def test_a_model_that_is_too_large_is_left_for_its_run_to_say():
    build.fitting(None)(Group(runs=[run_of(model={"hidden": [10**12]})]))
