"""Replica k of an ensemble follows the trajectory of the same run trained alone."""

from dataclasses import replace

import pytest
import torch
from replicas import DEEP, INPUTS, TASK, WIDE, Run, assemble, build, gaussian, row, train_all
from torch import Tensor, nn

from syre.data import Dataset
from syre.learners import Ensemble, Replica, Single, learner, replicas_per_process
from syre.learners.batched import SMALL
from syre.learners.protocol import CACHE_BYTES, MOST_REPLICAS
from syre.models import MLP, Noisy, Pair, ResNet18
from syre.optim import SGD, Adam
from syre.regularizers import (
    Dropout,
    L2Init,
    Offset,
    SigmaAsym,
    Syre,
    SyreAdvanced,
    SyreLayers,
    Vanilla,
    WAsym,
    WeightDecay,
    WFix,
)
from syre.seeding import generator
from syre.tasks import ModeConnectivity
from syre.trainer import Training

SEVEN = [
    Vanilla(),
    WeightDecay(weight_decay=0.02),
    Syre(weight_decay=0.05, sigma=0.7),
    SyreAdvanced(weight_decay=0.03, sigma=0.3, sigma_d=0.2),
    L2Init(weight_decay=0.04),
    Dropout(rate=0.3, weight_decay=0.01),
    WFix(fraction=0.2, kappa=0.5, weight_decay=0.06),
]
OPTIMIZERS = {
    "sgd": SGD(lr=0.1),
    "nesterov": SGD(lr=0.05, momentum=0.9, nesterov=True),
    "adam": Adam(lr=0.01),
    "adamw": Adam(lr=0.01, decoupled=True),
}
PAIR_TASK = ModeConnectivity()
PLAIN = Training(steps=100, batch_size=8)
CLIPPED = Training(steps=100, batch_size=8, clip=0.3, schedule="cosine", warmup=0.1)


def alike(optim) -> list[Run]:
    """One run per regularizer, all else equal."""
    return [Run(regularizer=regularizer, optim=optim) for regularizer in SEVEN]


def unlike(optim) -> list[Run]:
    """Every run with its own learning rate, seed and input scale too, and a second dropout rate, decay and sigma."""
    some = SyreLayers(weight_decay=0.05, sigma=0.7, modules=["layers.1"])
    more = [*SEVEN, Dropout(rate=0.6), Syre(weight_decay=0.01, sigma=2.0), some]
    return [
        Run(regularizer=regularizer, optim=replace(optim, lr=optim.lr * (0.5 + 0.15 * k)), seed=k, scale=0.5 + k / 4)
        for k, regularizer in enumerate(more)
    ]


@pytest.mark.parametrize(
    "model", [pytest.param(DEEP, id="small"), pytest.param(WIDE, id="large", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("variety", "settings"), [(alike, PLAIN), (unlike, CLIPPED)], ids=["plain", "clipped"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_replica_is_the_run_trained_alone(name, variety, settings, model):
    runs, data = [replace(run, model=model) for run in variety(OPTIMIZERS[name])], gaussian()
    team, records = train_all(runs, data, settings)
    assert isinstance(team, Ensemble)
    for k, run in enumerate(runs):
        alone, its_records = train_all([run], data, settings)
        assert isinstance(alone, Single)
        torch.testing.assert_close(row(team, k), row(alone, 0), rtol=0, atol=1e-10)
        for record, its in zip(records, its_records, strict=True):  # the records it would have written
            assert (record.step, record.split, list(record.values)) == (its.step, its.split, list(its.values))
            for metric, values in record.values.items():
                torch.testing.assert_close(values[k], its.values[metric][0], rtol=1e-8, atol=1e-8, check_dtype=False)


@pytest.mark.parametrize(
    "regularizers",
    [
        [
            WeightDecay(weight_decay=0.02),
            Syre(weight_decay=0.05, sigma=0.7),
            Offset(sigma=1.0, weight_decay=0.1),
            WAsym(fixed=[2, 3, 4], kappa=[1.0, 0.5, 0.25], weight_decay=0.06),
        ],
        [SigmaAsym(weight_decay=0.02), SigmaAsym(weight_decay=0.3)],
    ],
    ids=["gelu", "figlu"],
)
@pytest.mark.parametrize("name", ["nesterov", "adamw"])
def test_a_replica_of_a_pair_is_the_pair_trained_alone(name, regularizers):
    model, x = Pair(hidden=[7, 8]), gaussian().test_inputs
    runs = [Run(regularizer=r, optim=OPTIMIZERS[name], seed=k, model=model) for k, r in enumerate(regularizers)]
    team, batches = assemble(runs, gaussian(), PLAIN)
    assert isinstance(team, Ensemble)
    for step in range(PLAIN.steps):
        team.step(PAIR_TASK.loss, batches.train(step), lr_factor=1.0, clip=None)
    for k, run in enumerate(runs):
        alone, its_batches = assemble([run], gaussian(), PLAIN)
        for step in range(PLAIN.steps):
            alone.step(PAIR_TASK.loss, its_batches.train(step), lr_factor=1.0, clip=None)
        torch.testing.assert_close(row(team, k), row(alone, 0), rtol=0, atol=1e-10)
        stacked, its = (who.forward(x.expand(who.size, -1, -1), at=0.3) for who in (team, alone))
        torch.testing.assert_close(stacked[k], its[0], rtol=0, atol=1e-10)


def test_the_two_sizes_take_the_two_paths_of_the_batched_optimizer():
    replicas = [build(Run(regularizer=Vanilla(), optim=SGD(lr=1.0), model=model)) for model in (DEEP, WIDE)]
    small, large = (sum(p.numel() for p in replica.model.parameters()) for replica in replicas)
    assert small < SMALL < large


@pytest.mark.parametrize(
    "change",
    [{"seed": 7}, {"scale": 0.9}, {"regularizer": Syre(weight_decay=0.05, sigma=0.71)}, {"optim": Adam(lr=0.0101)}],
)
def test_control_another_run_is_another_trajectory(change):
    run = Run(regularizer=Syre(weight_decay=0.05, sigma=0.7), optim=OPTIMIZERS["adam"])
    team, _ = train_all([run, run], gaussian(), PLAIN)
    other, _ = train_all([replace(run, **change)], gaussian(), PLAIN)
    its = row(other, 0)
    assert all((mine - its[name]).abs().max() > 1e-5 for name, mine in row(team, 0).items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_in_float32_a_replica_is_the_lone_run_up_to_rounding(name):
    """100 steps of rounding at 6e-8 each; weights are of order 1.

    A lone AdamW run gives its entries a pull below 2^-15 in turns, 64 steps of it at a time (`syre.core.forms`); a row
    has a part of it in every step. So they part by up to 64 * 2^-15 of an anchor, of which the largest is 2.
    """
    data, apart = gaussian(torch.float32), 2 * 64 * 2**-15 if name == "adamw" else 1e-4
    team, _ = train_all(unlike(OPTIMIZERS[name]), data, CLIPPED)
    for k, run in enumerate(unlike(OPTIMIZERS[name])):
        torch.testing.assert_close(row(team, k), row(train_all([run], data, CLIPPED)[0], 0), rtol=0, atol=apart)


def test_the_vmap_path_equals_the_direct_path(monkeypatch):
    runs, data = unlike(OPTIMIZERS["nesterov"]), gaussian()
    direct, _ = train_all(runs, data, CLIPPED)
    monkeypatch.setattr("syre.models.mlp.MLPModule.leading_dims", False)
    mapped, _ = train_all(runs, data, CLIPPED)
    assert (direct._direct, mapped._direct) == (True, False)
    torch.testing.assert_close(direct.flat, mapped.flat, rtol=0, atol=1e-12)


def test_nan_in_one_replica_leaves_the_others_untouched():
    runs, data = unlike(OPTIMIZERS["adam"]), gaussian()
    settings = replace(CLIPPED, steps=20)
    healthy, _ = train_all(runs, data, settings)
    team, batches = assemble(runs, data, settings)
    with torch.no_grad():
        team.flat[2] = torch.nan
    for step in range(20):
        losses = team.step(TASK.loss, batches.train(step), lr_factor=settings.lr_factor(step, 20), clip=settings.clip)
    assert losses.isnan().tolist() == [k == 2 for k in range(len(runs))]
    assert team.flat[2].isnan().any()
    others = [k for k in range(len(runs)) if k != 2]
    torch.testing.assert_close(team.flat[others], healthy.flat[others], rtol=0, atol=0)


def test_only_replicas_that_drop_out_draw_noise():
    runs = [Run(regularizer=Vanilla(), optim=SGD(lr=0.1)), Run(regularizer=Dropout(rate=0.5), optim=SGD(lr=0.1))]
    team, batches = assemble(runs, gaussian(), PLAIN)
    before = [replica.noise.get_state() for replica in team.replicas]
    team.step(TASK.loss, batches.train(0), lr_factor=1.0, clip=None)
    after = [replica.noise.get_state() for replica in team.replicas]
    assert [torch.equal(*states) for states in zip(before, after, strict=True)] == [True, False]


def test_evaluation_does_not_drop_out():
    run = Run(regularizer=Dropout(rate=0.5), optim=SGD(lr=0.1))
    team, batches = assemble([run, run], gaussian(), PLAIN)
    team.step(TASK.loss, batches.train(0), lr_factor=1.0, clip=None)
    x = gaussian().test_inputs.expand(2, -1, -1)
    torch.testing.assert_close(team.forward(x), team.forward(x), rtol=0, atol=0)
    assert not torch.equal(team.forward(x[:, :8]), team.forward(x[:, :8], train=True))  # control: with the last noise


# ---- what an ensemble refuses ----------------------------------------------------------------------------------------


def replica(model: nn.Module, optimizer: torch.optim.Optimizer | None = None, handle=None) -> Replica:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    return Replica(model=model, optimizer=optimizer, handle=handle, noise=torch.Generator())


def test_batch_norm_is_refused():
    models = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2)]
    with pytest.raises(ValueError, match="running statistics"):
        Ensemble([replica(model) for model in models])
    Ensemble([replica(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))) for _ in range(2)])  # control


def test_differing_structures_are_refused():
    with pytest.raises(ValueError, match="same parameters"):
        Ensemble([replica(nn.Linear(3, 4)), replica(nn.Linear(4, 3))])


def test_an_optimizer_that_does_not_step_the_parameters_in_order_is_refused():
    models = [nn.Linear(3, 4) for _ in range(2)]
    swapped = [replica(m, torch.optim.SGD([m.bias, m.weight], lr=0.1)) for m in models]
    partial = [replica(m, torch.optim.SGD([m.weight], lr=0.1)) for m in models]
    for replicas in (swapped, partial):
        with pytest.raises(ValueError, match="all its parameters, in the module's order"):
            Ensemble(replicas)


def test_a_lone_replica_is_a_plain_module_on_its_stock_optimizer():
    assert isinstance(learner([replica(nn.Linear(3, 4))]), Single)
    assert isinstance(learner([replica(nn.Linear(3, 4)) for _ in range(2)]), Ensemble)


# ---- how many to stack -----------------------------------------------------------------------------------------------


def test_the_rule_fills_the_cache_and_stacks_few_or_none_of_the_large():
    assert replicas_per_process(1_000, 110, 32) == MOST_REPLICAS
    assert replicas_per_process(10**7, 10, 1) == 1
    assert replicas_per_process(10**7, 10, 1, memory=10**10) == 41  # where there is room, as on a GPU
    chosen = [replicas_per_process(p, 110, 64) for p in range(100, 300_000, 5_000)]
    assert chosen == sorted(chosen, reverse=True)
    assert all(
        r == 1 or r * 4 * (6 * p + 3 * 64 * 110) <= CACHE_BYTES
        for p, r in zip(range(100, 300_000, 5_000), chosen, strict=True)
    )


def test_noise_has_the_shape_that_the_modules_ask_for():
    team, batches = assemble([Run(regularizer=Dropout(rate=0.5), optim=SGD(lr=0.1))] * 3, gaussian(), PLAIN)
    team.step(TASK.loss, batches.train(0), lr_factor=1.0, clip=None)
    features = [module.features for module in team.model.modules() if isinstance(module, Noisy)]
    noises = [buffer for name, buffer in team.buffers.items() if name.endswith("noise")]
    assert [tuple(noise.shape) for noise in noises] == [(3, 8, *shape) for shape in features]
    assert batches.train(0)[0].shape == (3, 8, INPUTS)


# ---- the large, alone: parts of a batch, mixed precision, compilation ------------------------------------------------


def one_step(data: Dataset, *, views: int = 1, **options) -> tuple[Tensor, Tensor]:
    """The loss and the weights after one step of 12 samples on a small MLP with syre."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MLP(hidden=[16]).build((INPUTS,), 4).double()
    optimizer = SGD(lr=0.1, momentum=0.9).build(model, 0.1)
    Syre(weight_decay=0.1).attach(optimizer, model, 0)
    single = Single(Replica(model=model, optimizer=optimizer, noise=generator(0, "noise")), **options)
    inputs, targets = data.train_inputs[:12], data.train_targets[:12]
    batch = [inputs.repeat(views, 1).unsqueeze(0), targets.unsqueeze(0)]
    loss_fn = lambda output, x, y: TASK.loss(output[: len(y)], x, y)  # noqa: E731
    loss = single.step(TASK.loss if views == 1 else loss_fn, batch, lr_factor=1.0, clip=1.0)
    return loss, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("parts", [2, 3, 12])
def test_a_batch_in_parts_takes_the_step_of_the_whole(parts, views):
    whole, inparts = (one_step(gaussian(), views=views, accumulate=n) for n in (1, parts))
    torch.testing.assert_close(inparts, whole, rtol=0, atol=1e-12)


def test_control_the_step_depends_on_the_whole_batch():
    fewer = replace(gaussian(), train_inputs=gaussian().train_inputs.clone())
    fewer.train_inputs[11] = 0
    assert (one_step(gaussian(), accumulate=3)[1] - one_step(fewer, accumulate=3)[1]).abs().max() > 1e-4


def test_a_batch_that_does_not_divide_into_the_parts_is_refused():
    with pytest.raises(ValueError, match=r"must be a multiple of train\.accumulate=5, got 12"):
        one_step(gaussian(), accumulate=5)


def test_autocast_trains_in_bf16_and_evaluates_in_the_precision_of_the_weights():
    seen = []
    model = MLP(hidden=[16]).build((INPUTS,), 4)
    model.layers[0].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    single = Single(replica(model), autocast=torch.bfloat16)
    x, y = torch.randn(1, 8, INPUTS), torch.randint(4, (1, 8))
    loss = single.step(TASK.loss, [x, y], lr_factor=1.0, clip=None)
    output = single.forward(x)
    assert seen == [torch.bfloat16, torch.float32]
    assert (loss.dtype, output.dtype) == (torch.float32, torch.float32)
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_a_failed_compilation_is_told_once_and_training_goes_on(monkeypatch):
    plain = one_step(gaussian())

    def compiler(model, options):
        def broken(*args):
            raise RuntimeError("no compiler here\nand more lines")

        return broken

    monkeypatch.setattr(torch, "compile", compiler)
    with pytest.warns(UserWarning, match="torch.compile failed, training goes on without it: no compiler here$"):
        compiled = one_step(gaussian(), compiled=True)
    torch.testing.assert_close(compiled, plain, rtol=0, atol=0)


def test_an_error_of_the_model_itself_is_no_failed_compilation(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, options: model)
    with pytest.warns(UserWarning, match="torch.compile failed"), pytest.raises(RuntimeError, match="shapes"):
        one_step(replace(gaussian(), train_inputs=torch.zeros(12, INPUTS + 1, dtype=torch.float64)), compiled=True)


@pytest.mark.parametrize(("width", "options"), [(16, None), (4, {"layout_optimization": False})])
def test_inductor_leaves_the_memory_of_narrow_strided_convolutions_as_it_is(width, options, monkeypatch):
    """It would make them channels-last, where the gradient of their weights writes past its workspace on a CPU."""
    seen = []
    monkeypatch.setattr(torch, "compile", lambda module, options: seen.append(options) or module)
    model = ResNet18(width=width).build((3, 8, 8), 2)
    Single(Replica(model=model, optimizer=SGD(lr=0.1).build(model, 0.0), noise=torch.Generator()), compiled=True)
    assert seen == [options]
