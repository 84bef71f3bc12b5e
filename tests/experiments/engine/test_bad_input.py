"""Bad input is one clear line on stderr and a non-zero exit, and nothing is half-written."""

import errno
import os
import resource
import subprocess
import sys

import pytest
import torch

SMALL = ("model.hidden=[8]", "train.epochs=1")
ANT = ("model=ppo", "data=slippery_ant", "task=ppo", "train.epochs=0", "train.steps=512", "compute.device=cpu")
FIGURE = ("-m", "experiment=fig5", "scale=smoke")


MISFITS = (  # a model, a task and data that do not fit one another; test_fit.py tries all of them
    (["model=point"], ["task=classification needs a model that gives logits", "mlp", "PointModule gives a point"]),
    (["model=mlp", "task=variational_autoencoder"], ["needs a model that gives an autoencoder (model=beta_vae)"]),
    (["model=diagonal_linear", "task=regression"], ["task=regression needs vectors", "data=linear_regression"]),
    (["data=rgb_digits", "data.samples=100000"], ["data.samples must be at most 1442", "100000"]),
    (["model=vit", "model.patch=3"], ["model.patch must divide the image size 8, got 3"]),
    (["model=gpt"], ["a GPT takes tokens [context], not inputs of shape (1, 8, 8)"]),
    (["data=text"], ["task=classification needs one target a sample", "text (data=text)", "task=language"]),
)


@pytest.fixture
def refused(tmp_path, command):
    """Run; check that it is refused in one line that has all the given words, and that nothing is written."""

    def call(*words, says):
        outcome = command(*words, f"outputs={tmp_path / 'outputs'}", f"results={tmp_path / 'results'}")
        assert outcome.code == 2
        assert outcome.err.startswith("error: ")
        assert outcome.err.count("\n") == 1
        assert [word for word in says if word not in outcome.err] == [], outcome.err
        assert [path for path in tmp_path.rglob("*") if path.name in ("outputs", "results")] == []

    return call


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian.epochs=1"], ["trian"]),  # a misspelt key
        (["train.epoch=1"], ["train.epoch"]),
        (["+train.epoch=1"], ["train.epoch", "epochs"]),
        (["regularizer=syre", "+regularizer.sigm=1"], ["regularizer.sigm", "Syre takes", "sigma"]),
        (["+compute.thread=1"], ["compute.thread", "threads"]),
        (["+sed=1"], ["sed"]),
        ([*FIGURE, "runs=[{regularizer: syre, regularizer.sigm: 1}]"], ["regularizer.sigm", "runs:", "fig5"]),
        ([*FIGURE, "runs=[{trian.epochs: 1}]"], ["trian.epochs"]),
        ([*FIGURE, "train.epoch=1"], ["train.epoch"]),
        (["-m", "experiment=fig4,fig5"], ["experiment"]),  # one sweep is one experiment
        (["regularizer=syre", "regularizer.sigma=abc"], ["regularizer.sigma", "abc", "Float"]),  # a wrong type
        (["seed=x"], ["seed", "x"]),
        (["-m", "seed=0,x"], ["seed", "x"]),
        (["model.hidden=[8,x]"], ["model.hidden[1]", "x"]),
        ([f"model.hidden=[8,{10**20}]"], ["model.hidden", "64 bits", str(10**20)]),
        ([f"train.batch_size={10**20}"], ["train.batch_size", "64 bits"]),
        (["compute.compile=perhaps"], ["compute.compile", "perhaps"]),
        ([*FIGURE, "runs=[{train.epochs: many}]"], ["train.epochs", "many"]),
        (["regularizer=syre", "regularizer.sigma=-1"], ["regularizer.sigma", ">= 0", "-1"]),  # out of range
        ([*FIGURE, "runs=[{regularizer: syre, regularizer.sigma: -1}]"], ["regularizer.sigma", ">= 0", "-1"]),
        (["regularizer=dropout", "regularizer.rate=1"], ["regularizer.rate", "[0, 1)"]),
        (["optim.lr=0"], ["optim.lr", "> 0"]),
        (["data.input_scale=nan"], ["data.input_scale", "> 0", "nan"]),
        (["train.schedule=jump"], ["train.schedule", "constant, cosine, linear", "jump"]),
        (["train.epochs=0"], ["train.epochs or train.steps"]),
        (["compute.threads=-1"], ["compute.threads", ">= 0"]),
        (["regularizer=syre", "regularizer.weight_decay=0"], ["regularizer.weight_decay", "> 0", "symmetry"]),
        (["regularizer=syre_advanced", "regularizer.sigma_d=0.6"], ["regularizer.sigma_d", "0.6"]),
        ([*ANT, "data.backend=brax"], ["data.backend", "mujoco, pybullet", "brax"]),
        ([*ANT, "task.collector=duo"], ["task.collector", "solo, stock", "duo"]),
        ([*ANT, "model.gsde=true"], ["model.gsde", "task.collector=stock"]),  # settings that do not fit one another
        ([*ANT, "train.warmup=0.1"], ["train.warmup=0 only", "0.1"]),
        ([*ANT, "train.restart=true"], ["train.restart=False only", "True"]),
        ([*ANT, "compute.compile=true"], ["compute.compile=true", "PPO"]),
        ([*ANT, "regularizer=dropout"], ["dropout", "ActorCriticPolicy"]),
        (["experiment=4"], ["experiment must be the name of one of configs/experiment (ant, ", "got 4"]),  # no names
        (["model=null"], ["model must be the name of one of configs/model (beta_vae, ", "got null"]),
        (["-m", "data=5", "seed=0,1"], ["data must be the name of one of configs/data (cifar10, ", "got 5"]),
        (["-m", "data=digits,5", "seed=0,1"], ["data must be the name of one of configs/data (cifar10, ", "got 5"]),
        (["data=true"], ["data must be the name", "got true"]),
        (["train=null"], ["train must be the name of one of configs/train (default), got null"]),
        (["~seed"], ["the configuration has no seed"]),
        (["~compute"], ["the configuration has no compute"]),
        (["model._target_=os.system"], ["model._target_ must name a class", "got os.system (a builtin_function"]),
        (["regularizer._target_=nope.x"], ["regularizer._target_ must name a class", "No module named 'nope'"]),
        (["task._target_=syre.Nope"], ["task._target_ must name a class, package.module.Class, got syre.Nope"]),
        ([*FIGURE, "batched=[nope]"], ["batched has nope, which no run has"]),
        ([*FIGURE, "replicas=-3"], ["replicas must be >= 0", "-3"]),
        ([*FIGURE, "seeds=0"], ["seeds must be a number >= 1", "got 0"]),
        ([*FIGURE, "train_nothing=true"], ["fig5: none of these ", "has ended: without train_nothing=true"]),
        (["data=diabetes"], ["needs data with classes", "task=regression", "task=matrix"]),
        (["optim=lion"], ["optim/lion", "adam adamw sgd"]),  # an unknown choice
        (["regularizer=magic"], ["regularizer/magic", "syre"]),
        ([*FIGURE, "runs=[{regularizer: magic}]"], ["regularizer/magic", "syre"]),
        (["-m", "experiment=fig99"], ["experiment/fig99", "fig5"]),
        (["-m", "experiment=fig99", "seed=0,1"], ["experiment/fig99", "fig5"]),  # like a figure: no name of one's own
        (["-m", "experiment=fig7", "seed=0,1"], ["experiment/fig7", "fig5"]),
        (["-m", "experiment=ablation", "seed=0,1"], ["experiment/ablation", "fig5"]),
        (["-m", "experiment=thoery", "scale=smoke"], ["experiment/thoery", "theory"]),  # says nothing of its own
        (["-m", "experiment=../mine", "seed=0,1"], ["mine"]),
        ([*FIGURE, "regularizer.sigm=1"], ["regularizer.sigm", "rate", "sigma"]),
        (["-m", "regularizer.sigma=1", "seed=0,1"], ["regularizer.sigma", "weight_decay"]),
        (["scale=huge"], ["scale", "huge", "smoke, cpu, paper"]),
        ([*FIGURE, "scale=huge"], ["scale", "huge", "smoke, cpu, paper"]),
        (["wandb.mode=on"], ["wandb.mode", "disabled, offline, online"]),
        (["compute.precision=fp8"], ["compute.precision", "fp32, bf16"]),
        *(([*words, f"compute.device={name}"], ["compute.device must be auto, cpu or cuda[:index]", name])
          for name in ("tpu", "meta", "mps", "cpu:0", "cuda:x", "''") for words in ([], FIGURE)),
        (["task=cost", "task.device=meta"], ["task.device must be auto, cpu or cuda[:index]", "meta"]),
        (["compute.threads=1000000"], ["compute.threads must be in 0, ..., ", "1000000"]),
        ([*FIGURE, "compute.threads=1000000"], ["compute.threads must be in 0, ..., ", "1000000"]),
        (["group=abc"], ["group must be 12 hex digits", "run/groups", "'abc'"]),
        (["group=../../x"], ["group must be 12 hex digits", "'../../x'"]),
        (["group=''"], ["group must be 12 hex digits", "''"]),
        (["group=0123456789abc"], ["group must be 12 hex digits"]),
        (["group=0123456789AB"], ["group must be 12 hex digits"]),
        (["group=a23456789abc"], ["no group a23456789abc", "run/groups/a23456789abc.json"]),
        *(([*sweep, *words], says) for sweep in ([], ["-m", "seed=0,1"], ["-m", "seed=0,1", "replicas=1"])
          for words, says in MISFITS),
        ([*FIGURE, "runs=[{}, {data: rgb_digits, data.augment: simclr}]"], ["task=classification takes 1 view", "2"]),
        (["-m", "batched=[task.spectrum]", "replicas=2", "task.spectrum=[1],[2]"], ["share their task", "batched="]),
        (["-m", "batched=[seed]", "replicas=2", "seed=0,1", "train.accumulate=2"], ["replicas=1"]),
        ([*FIGURE, "regularizer=l2_init"], ["no runs", "regularizer"]),  # no block of the figure has it
        (["regularizer=syre,vanilla"], ["regularizer", "--multirun"]),  # a sweep without -m
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_bad_setting_is_named_with_what_is_allowed(refused, words, says):
    refused(*words, says=says)


def test_control_a_good_setting_runs(tmp_path, command):
    assert command(f"outputs={tmp_path / 'outputs'}", *SMALL).code == 0
    assert len(list((tmp_path / "outputs/run/runs").iterdir())) == 1


def test_what_a_run_finds_out_as_it_begins_is_one_line_and_leaves_no_file(tmp_path, command):
    outcome = command("task=escape", "task.gamma=1", f"outputs={tmp_path / 'outputs'}")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert outcome.err.startswith("error: task.gamma=1.0 leaves no saddle to escape from")
    assert contents(tmp_path) == {}


# ---- data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sweep", [(), ("-m", "experiment=fig5", "scale=cpu")], ids=["run", "sweep"])
def test_missing_data_says_how_to_fetch_it(refused, tmp_path, sweep):
    root = tmp_path / "nothing"
    refused(*sweep, "data=mnist", f"data_root={root}", says=[str(root), "make data DATA=mnist", "data=digits"])


@pytest.mark.parametrize("sweep", [(), ("-m", "experiment=gpt", "scale=cpu")], ids=["run", "sweep"])
def test_a_python_without_source_says_so(refused, tmp_path, monkeypatch, sweep):
    from syre.data import text

    monkeypatch.setattr(text, "library", lambda: tmp_path / "lib")
    words = sweep or ("model=gpt", "data=text", "task=language")
    refused(*words, says=["data=text", f"{tmp_path / 'lib'} has no *.py files", "use a Python that is installed with"])


def test_a_damaged_file_of_data_is_named(refused, tmp_path):
    folder = tmp_path / "data/MNIST/raw"
    folder.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{name}-ubyte").write_bytes(b"damaged")
    file = folder / "train-images-idx3-ubyte"
    refused("data=mnist", f"data_root={tmp_path / 'data'}", says=[str(file), "damaged", "make data DATA=mnist"])


# ---- places that cannot be written -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=0,1")], ids=["run", "sweep"])
def test_an_output_path_below_a_file_is_found_before_training(tmp_path, command, monkeypatch, sweep):
    from experiments.engine import training

    monkeypatch.setattr(training, "train", None)  # not to be called
    (tmp_path / "file").write_text("mine")
    outcome = command(*sweep, *SMALL, f"outputs={tmp_path / 'file' / 'outputs'}")
    assert outcome.code == 2
    assert outcome.err.startswith("error: cannot write ")
    assert "Not a directory" in outcome.err
    assert outcome.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4, 5, 6])
def test_a_full_disk_is_one_line_leaves_every_file_whole_and_the_run_goes_on_when_there_is_room(
    tmp_path, command, monkeypatch, room
):
    """`room` files fit: the empty checkpoint, a checkpoint, another, then the four files of the run, all or none."""
    words = (*SMALL, "train.checkpoints=2", f"outputs={tmp_path / 'outputs'}")
    assert command(*words, "seed=1").code == 0
    old, fsync, written = contents(tmp_path), os.fsync, []

    def full(descriptor):
        if len(written) == room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    outcome = command(*words)
    assert outcome.code == 2
    assert outcome.err.startswith("error: cannot write ")
    assert "No space left on device" in outcome.err
    assert outcome.err.count("\n") == 1
    new = contents(tmp_path)
    assert {path: new[path] for path in old} == old
    fresh = {path.suffix for path in new.keys() - old.keys()}
    assert fresh <= {".pt", ".step", ".csv"}  # at most a checkpoint, and that whole, and how far it was

    monkeypatch.setattr(os, "fsync", fsync)
    assert command(*words).code == 0
    undisturbed = tmp_path / "undisturbed"
    assert command(*words[:-1], f"outputs={undisturbed}").code == 0
    (place,) = (undisturbed / "run/runs").iterdir()
    resumed = tmp_path / "outputs/run/runs" / place.name
    assert (resumed / "metrics.csv").read_bytes() == (place / "metrics.csv").read_bytes()


# ---- the same, from a shell ------------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path, environment):
    def call(*words, **options):
        command = [sys.executable, "-m", "experiments.run", *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, **options)

    return call


def test_a_misspelt_key_from_a_shell(tmp_path, shell):
    done = shell("train.epoch=1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "train.epoch" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_file_system_that_takes_no_more_from_a_shell(tmp_path, shell):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))  # noqa: E731  # bytes per file
    done = shell(*SMALL, preexec_fn=limit)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: cannot write ")
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert contents(tmp_path) == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("sweep", [(), FIGURE], ids=["run", "sweep"])
def test_cuda_asked_for_and_absent(refused, sweep):
    refused(*sweep, "compute.device=cuda", says=["compute.device=cuda", "0 CUDA devices"])
