"""A watched training is the training itself; what is measured, when, what it says, and what it leaves behind."""

import copy
import gc
import pickle
import warnings
import weakref

import pytest
import torch
from torch import nn

import syre
from syre.core import canonical_parameters
from syre.diagnostics import features
from syre.diagnostics import watch as module
from syre.diagnostics.watch import Collapsing, Watch, matrix_ranks
from syre.diagnostics.weights import gaussian
from syre.metrics import ranks


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


class Unknown(torch.optim.SGD):
    """Of a class that syre does not know: attached to in its shift form."""


def unknown(model: nn.Module) -> torch.optim.Optimizer:
    return Unknown(model.parameters(), lr=0.1, weight_decay=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 10, accumulate: int = 1) -> list[float]:
    losses = []
    for index in range(steps * accumulate):
        loss = model(torch.randn(7, 5)).square().mean()
        loss.backward()
        losses.append(loss.item())
        if (index + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return losses


@pytest.fixture
def sets(monkeypatch):
    """What `units.measure` finds: a list that a test fills."""
    found = []
    monkeypatch.setattr(module.units, "measure", lambda structure, parameters: [*found])
    return found


def entry(name: str, symmetric: int | None = 0, near: float | None = 0.4, median: float | None = 0.5) -> dict:
    return {
        "name": name,
        "count": 10,
        "symmetric": symmetric,
        "nearest": {"min": near, "median": median, "random": 0.5},
    }


class Clock:
    """Seconds that pass when a test says so, and while it is read."""

    def __init__(self) -> None:
        self.now, self.cost = 0.0, 0.0

    def __call__(self) -> float:
        return self.now


# ---- the training is the same ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attached", [None, "before", "after"])
@pytest.mark.parametrize("make", [sgd, adamw, unknown])
def test_a_watched_training_is_the_same_to_the_bit(make, attached):
    def run(watched: bool) -> tuple:
        model = network()
        optimizer = make(model)
        if attached == "before":
            syre.attach(optimizer, model, sigma=0.5)
        watch = Watch(optimizer, model, every=2, budget=None) if watched else None
        if attached == "after":
            syre.attach(optimizer, model, sigma=0.5)
        losses = train(model, optimizer, accumulate=2)
        assert watch is None or [one["syre/step"] for one in watch.history] == [0, 2, 4, 6, 8, 10]
        return losses, [t.tolist() for t in model.state_dict().values()], torch.get_rng_state().tolist()

    assert run(True) == run(False)


@pytest.mark.parametrize("attached", ["before", "after"])
@pytest.mark.parametrize("make", [adamw, unknown])
def test_the_numbers_are_those_of_the_weights_after_all_that_a_step_does(make, attached):
    model = network()
    optimizer = make(model)
    if attached == "before":
        syre.attach(optimizer, model, sigma=0.5)
    watch = Watch(optimizer, model, every=1, budget=None, layers="all")
    if attached == "after":
        syre.attach(optimizer, model, sigma=0.5)
    for _ in range(3):
        train(model, optimizer, steps=1)
        seen = watch.latest
        assert seen == {**watch.measure(), "syre/step": seen["syre/step"]}
    train(model, optimizer, steps=1)
    after = dict(watch.latest)
    with torch.no_grad():
        model[0].weight.sub_(0.01 * torch.randn(8, 5))  # control: a little off, and it is seen
    assert watch.measure() != after


def test_a_scaler_a_closure_and_a_scheduler_count_as_they_step():
    model = network()
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    watch, scaler = Watch(optimizer, model, every=1, budget=None), torch.amp.GradScaler("cpu", init_scale=2.0)
    for bad in (False, True, False):
        scaler.scale(model(torch.randn(7, 5)).square().mean() / (0.0 if bad else 1.0)).backward()
        scaler.step(optimizer)  # which leaves a step out whose gradients are not finite
        scaler.update()
        optimizer.zero_grad()
    schedule.step()
    assert (watch.step, len(watch.history)) == (2, 3)
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    watch = Watch(optimizer, model, every=1, budget=None)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(4, 5)).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert (watch.step, len(watch.history)) == (1, 2)


# ---- what is measured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(30, 70), (70, 30), (700, 40)])
def test_ranks_of_a_matrix_are_those_of_all_its_entries_over_a_gaussian_one(rows, columns):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    weight[:, : columns // 2] *= 0.1
    found, expected = matrix_ranks({"w": weight})["w"], ranks(weight.double())
    random = gaussian(rows, columns)
    for value, name in zip(found, ("rank/effective", "rank/stable"), strict=True):
        assert value == pytest.approx(float(expected[name]) / random[name], rel=1e-6)


def test_a_gaussian_matrix_has_about_1_and_one_of_low_rank_its_share_at_any_size():
    stream = torch.Generator().manual_seed(0)
    weights = {str(size): torch.randn(*size, generator=stream) for size in [(50, 80), (600, 5000), (40, 6, 3, 3)]}
    for effective, stable in matrix_ranks(weights).values():
        assert effective == pytest.approx(1, abs=0.03)
        assert stable == pytest.approx(1, abs=0.2)
    low = torch.randn(2000, 20, generator=stream) @ torch.randn(20, 900, generator=stream)
    effective, _ = matrix_ranks({"low": low})["low"]
    assert effective == pytest.approx(20 / gaussian(2000, 512)["rank/effective"], rel=0.05)
    zero = torch.zeros(6, 5)
    assert matrix_ranks({"zero": zero, "rank 1": zero + 1})["zero"] == (0, 0)
    assert matrix_ranks({"rank 1": zero + 1})["rank 1"][0] == pytest.approx(1 / gaussian(6, 5)["rank/effective"])
    bad = matrix_ranks({"bad": zero / 0, "good": torch.eye(5)})
    assert bad["bad"][0] != bad["bad"][0]
    assert bad["good"][0] > 1


def test_names_and_numbers_of_all_layers(sets):
    sets += [entry("0", symmetric=1, near=0.2, median=0.4), entry("none", None, None, None)]
    model = network()
    watch = Watch(sgd(model), model, layers="all", prefix="net")
    parameters = canonical_parameters(model)
    matrices = {f"net/{n}/{k}" for n in ("0.weight", "4.weight") for k in ("effective", "stable")}
    units = {"net/0/symmetric", "net/0/nearest", "net/0/distance"}
    over_all = {"net/step", "net/effective", "net/symmetric", "net/nearest", "net/distance"}
    assert watch.latest.keys() == matrices | units | over_all
    assert {type(value) for value in watch.latest.values()} <= {int, float}
    found = matrix_ranks({name: p.detach() for name, p in parameters.items() if p.dim() > 1})
    assert watch.latest["net/4.weight/stable"] == found["4.weight"][1]
    assert watch.latest["net/effective"] == min(pair[0] for pair in found.values())
    assert [watch.latest[f"net/{k}"] for k in ("symmetric", "nearest", "distance")] == [1 / 10, 0.2, 0.8]


def test_twins_and_dead_units_are_at_no_distance():
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))
    watch = Watch(sgd(model), model, layers="all", symmetric=None)
    assert watch.latest["syre/symmetric"] == 0
    assert watch.latest["syre/nearest"] > 0.1
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = model[0].weight[0], model[0].bias[0]
        model[2].weight[:, 1] = model[2].weight[:, 0]
        model[2].weight[:, 5] = 0
    numbers = watch.measure()
    assert numbers["syre/0/symmetric"] == numbers["syre/symmetric"] == 3 / 10
    assert numbers["syre/0/nearest"] == numbers["syre/nearest"] == 0
    assert numbers["syre/distance"] > 0  # the median: of the ten units three are at none
    with torch.no_grad():
        model[2].weight[:, 6:8] = 0
    assert watch.measure()["syre/distance"] == 0


def test_of_many_layers_the_summary_has_the_worst_and_stays_short(sets):
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(40)))
    with torch.no_grad():
        for index, rank in ((7, 1), (20, 2), (33, 3)):
            u, s, v = model[index].weight.svd()
            model[index].weight.copy_(u[:, :rank] @ s[:rank].diag() @ v[:, :rank].T)
    sets += [entry(f"set{index}", median=0.1 + 0.01 * index) for index in range(39)]
    optimizer = sgd(model)
    watch = Watch(optimizer, model)
    layers = {key.split("/")[1] for key in watch.latest if key.count("/") == 2}
    assert layers == {"7.weight", "20.weight", "33.weight", "set0", "set1", "set2"}
    assert len(watch.latest) == 5 + 3 * 2 + 3 * 3
    assert len(Watch(optimizer, model, layers="all").latest) == 5 + 40 * 2 + 39 * 3


def test_only_what_is_trained_and_has_a_rank_to_lose_is_watched(sets):
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 1), nn.LayerNorm(1))
    model[1].weight.requires_grad_(False)
    names = {key.split("/")[1] for key in Watch(sgd(model), model, layers="all").latest if key.count("/") == 2}
    assert names == {"0.weight"}


def test_wrapped_models_and_lists_of_models():
    model = network()
    optimizer = sgd(model)
    expected = Watch(optimizer, model).latest
    compiled = torch.compile(model, backend="eager")
    assert Watch(optimizer, compiled).latest == expected
    assert Watch(optimizer, nn.DataParallel(model)).latest == expected
    both = Watch(optimizer, [network(), network(1)], layers="all")
    assert {"syre/0.0.weight/stable", "syre/1.4.weight/stable"} <= both.latest.keys()
    gc.collect()
    assert both.measure()
    assert "pass batches" in both.why or "no input" in both.why


def test_a_batch_tells_what_the_forward_pass_takes_and_a_bad_one_is_one_line():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor, *, shift: torch.Tensor) -> torch.Tensor:
            return self.second(torch.tanh(self.first(x)) + shift)

    model = Two()
    batch = {"x": torch.randn(3, 4), "shift": torch.randn(3, 1), "labels": torch.zeros(3)}
    watch = Watch(sgd(model), model, batch=batch)
    assert watch.why is None
    assert "syre/distance" in watch.latest
    assert Watch(sgd(model), model).why
    with pytest.raises(ValueError, match="forward pass") as caught:
        Watch(sgd(model), model, batch={"x": torch.randn(3, 5), "shift": torch.randn(3, 1)})
    assert "\n" not in str(caught.value)


# ---- when ------------------------------------------------------------------------------------------------------------


def test_it_measures_at_every_nth_step_logs_and_keeps_the_last(monkeypatch):
    model, logged = network(), []
    optimizer = sgd(model)
    monkeypatch.setattr(module, "KEPT", 3)
    watch = Watch(optimizer, model, every=3, budget=None, log=logged.append)
    assert [one["syre/step"] for one in watch.history] == [0]
    assert logged == []  # the start: there may be nothing yet to log to
    train(model, optimizer, steps=10)
    assert [one["syre/step"] for one in logged] == [3, 6, 9]
    assert watch.measure() == logged[-1]
    assert [one["syre/step"] for one in watch.history] == [6, 9, 10]
    assert watch.latest == watch.history[-1]
    logged[-1].clear()  # what a logger does to its dict is its own
    assert watch.latest["syre/step"] == 10


def test_a_measurement_waits_until_the_one_before_is_paid_for(monkeypatch):
    model, clock = network(), Clock()
    optimizer = sgd(model)
    take = module.matrix_ranks

    def slow(matrices: dict) -> dict:
        clock.now += 2.0
        return take(matrices)

    monkeypatch.setattr(module, "matrix_ranks", slow)
    watch = Watch(optimizer, model, every=10, budget=0.01, clock=clock, distance=None, symmetric=None)
    for _ in range(100):
        clock.now += 1.0
        train(model, optimizer, steps=10)
    # 2 s cost 200 s: not before the 200th ten steps, of 1 s each
    assert [one["syre/step"] for one in watch.history] == [0]
    for _ in range(400):
        clock.now += 1.0
        watch.step += 9
        train(model, optimizer, steps=1)
    assert [one["syre/step"] for one in watch.history] == [0, 2000, 4000]
    assert sum(2.0 for _ in watch.history[1:]) <= 0.01 * clock.now


def test_without_a_budget_it_measures_whatever_it_costs(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "matrix_ranks", lambda matrices: setattr(clock, "now", clock.now + 9.0) or {})
    model = network()
    optimizer = sgd(model)
    watch = Watch(optimizer, model, every=1, budget=None, clock=clock)
    train(model, optimizer, steps=4)
    assert len(watch.history) == 5


def test_of_several_processes_the_first_measures(monkeypatch):
    model = network()
    optimizer = sgd(model)
    watch = Watch(optimizer, model, every=1, budget=None)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank, count in ((1, 1), (0, 3)):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        train(model, optimizer, steps=2)
        assert len(watch.history) == count
    assert watch.step == 4


# ---- warnings --------------------------------------------------------------------------------------------------------


def caught(run) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        run()
    assert all(one.category is Collapsing and one.filename == __file__ for one in found)
    return [str(one.message) for one in found]


def lose_rank(layer: nn.Linear, rank: int) -> None:
    with torch.no_grad():
        u, s, v = layer.weight.svd()
        layer.weight.copy_(u[:, :rank] @ s[:rank].diag() @ v[:, :rank].T)


def test_each_threshold_warns_once_and_names_layer_number_and_what_to_do(sets):
    sets += [entry("first"), entry("second")]
    model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 30))
    watch = Watch(sgd(model), model, rank=0.3, distance=0.25, symmetric=0.5)
    assert caught(watch.measure) == []
    lose_rank(model[2], 3)
    watch.step = 70
    (line,) = caught(watch.measure)
    value = watch.latest["syre/2.weight/effective"]
    assert line == (
        f"step 70: the effective rank of 2.weight has fallen to {value:.2g} of a Gaussian matrix's, below rank=0.3: "
        "call syre.diagnose(model, batches, optimizer)"
    )
    lose_rank(model[0], 2)
    assert caught(watch.measure) == []  # said once
    sets[1] = entry("second", symmetric=6, median=0.1)
    assert caught(watch.measure) == [
        "step 70: the units of second have come to 0.2 of the usual distance to symmetry, below distance=0.25: "
        "call syre.diagnose(model, batches, optimizer)",
        "step 70: 60% of the units of second are equal to another one or dead, above symmetric=0.5: "
        "call syre.diagnose(model, batches, optimizer)",
    ]
    assert caught(watch.measure) == []


def test_a_layer_that_starts_below_is_not_reported_until_it_has_been_above(sets):
    sets.append(entry("zero", symmetric=10, near=0.0, median=0.0))
    model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 30))
    with torch.no_grad():
        model[2].weight.zero_()
    watch = Watch(sgd(model), model)
    assert caught(watch.measure) == []
    nn.init.normal_(model[2].weight)
    sets[0] = entry("zero")
    assert caught(watch.measure) == []
    sets[0] = entry("zero", symmetric=10, near=0.0, median=0.0)
    lose_rank(model[2], 1)
    assert len(caught(watch.measure)) == 3


def test_the_hook_warns_from_the_line_of_the_step_and_without_thresholds_nothing_is_said(sets):
    for options, count in (({}, 1), ({"rank": None}, 0)):
        model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 30))
        optimizer = sgd(model)
        Watch(optimizer, model, every=1, budget=None, **options)
        lose_rank(model[2], 1)
        assert len(caught(lambda: [optimizer.step() for _ in range(3)])) == count  # noqa: B023


def test_numbers_that_are_not_finite_do_not_warn_or_stop(sets):
    model = network()
    watch = Watch(sgd(model), model, layers="all")
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    assert caught(watch.measure) == []
    assert watch.latest["syre/0.weight/effective"] != watch.latest["syre/0.weight/effective"]
    assert watch.latest["syre/effective"] == watch.latest["syre/4.weight/effective"]


def test_what_fails_in_the_middle_of_a_training_is_said_once_and_the_training_goes_on(monkeypatch):
    model = network()
    optimizer = sgd(model)
    watch = Watch(optimizer, model, every=1, budget=None)

    def fails(*_: object) -> None:
        raise RuntimeError("no convergence\nat all")

    monkeypatch.setattr(module.units, "measure", fails)
    with pytest.warns(UserWarning, match=r"^syre.Watch stops watching: RuntimeError: no convergence$") as found:
        train(model, optimizer, steps=3)
    assert len(found) == 1
    assert len(watch.history) == 1
    assert watch.step == 1


def test_it_can_be_removed_by_what_it_calls():
    model = network()
    optimizer = sgd(model)
    watch = Watch(optimizer, model, every=1, budget=None, log=lambda _: watch.remove())
    train(model, optimizer, steps=3)
    assert watch.step == 1


def test_an_error_of_the_logger_is_the_callers():
    model = network()
    optimizer = sgd(model)
    Watch(optimizer, model, every=1, budget=None, log=lambda numbers: numbers["missing"])
    with pytest.raises(KeyError, match="missing"):
        train(model, optimizer, steps=1)


# ---- what stays ------------------------------------------------------------------------------------------------------


def hooks(optimizer: torch.optim.Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def test_removed_it_is_gone_and_its_numbers_stay():
    model = network()
    optimizer = sgd(model)
    watch = Watch(optimizer, model, every=1, budget=None)
    train(model, optimizer, steps=2)
    watch.remove()
    watch.remove()
    assert hooks(optimizer) == 0
    train(model, optimizer, steps=2)
    assert (watch.step, len(watch.history)) == (2, 3)
    assert len(watch.measure()) > 3


def test_copies_of_the_optimizer_are_not_watched_and_copies_of_the_watch_hold_its_numbers():
    model = network()
    optimizer = sgd(model)
    watch = Watch(optimizer, model, every=1, budget=None, log=lambda _: None)  # no lambda can be pickled
    train(model, optimizer, steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
            assert hooks(twin) == 0
        for twin in (copy.deepcopy(watch), pickle.loads(pickle.dumps(watch))):
            assert (twin.step, twin.latest, twin.history) == (2, watch.latest, watch.history)
            twin.remove()
            with pytest.raises(RuntimeError, match=r"no model .*make one, syre.Watch\(optimizer, model\)"):
                twin.measure()
    assert hooks(optimizer) == 2
    assert optimizer.state_dict().keys() == {"state", "param_groups"}


def test_it_keeps_no_model_alive_and_needs_no_variable():
    model = network()
    optimizer = sgd(model)
    logged = []
    Watch(optimizer, model, every=1, budget=None, log=logged.append)
    gc.collect()
    train(model, optimizer, steps=2)
    assert len(logged) == 2
    held = weakref.ref(model)
    watch = Watch(optimizer, model)
    del model
    gc.collect()
    assert held() is None
    optimizer.step()
    assert len(logged) == 2
    with pytest.raises(RuntimeError, match="no model"):
        watch.measure()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"every": 0}, ValueError, "every must be an integer >= 1, got 0"),
        ({"every": 1.5}, TypeError, "every must be an integer, got 1.5"),
        ({"budget": 0}, ValueError, r"budget must be a share of the time in \(0, 1\], or None, got 0"),
        ({"budget": 2}, ValueError, "budget must be"),
        ({"layers": "some"}, ValueError, "layers must be 'summary' or 'all', got 'some'"),
        ({"log": "wandb"}, TypeError, "log must be a function of a dict, as wandb.log is, got str"),
        ({"rank": 1.5}, ValueError, r"rank must be a number in \(0, 1\), or None, got 1.5"),
        ({"symmetric": 0}, ValueError, "symmetric must be"),
    ],
)
def test_a_bad_setting_is_one_line_and_nothing_is_hooked(options, error, words):
    model = network()
    optimizer = sgd(model)
    with pytest.raises(error, match=words) as caught:
        Watch(optimizer, model, **options)
    assert "\n" not in str(caught.value)
    assert hooks(optimizer) == 0


def test_what_cannot_be_watched_is_one_line():
    model = network()
    with pytest.raises(TypeError, match="the optimizer comes first"):
        Watch(model, sgd(model))
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        Watch(sgd(model), model.parameters())
    for empty in (nn.LayerNorm(4), nn.Linear(4, 1)):
        with pytest.raises(ValueError, match="there is nothing to watch"):
            Watch(sgd(empty), empty)

    class FullyShardedDataParallel(nn.Sequential):
        pass

    sharded = FullyShardedDataParallel(nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"a watch reads whole parameters, and these are sharded \(FSDP"):
        Watch(sgd(sharded), sharded)


@pytest.mark.slow  # the import of DTensor is
def test_sharded_parameters_are_refused_at_the_start_and_end_the_watch_later(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/ranks", rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = sgd(model)
        watch = Watch(optimizer, model, every=1, budget=None)
        parallelize_module(model, init_device_mesh("cpu", (1,)), {"0": ColwiseParallel()})
        with pytest.warns(UserWarning, match=r"syre.Watch stops watching: ValueError: a watch reads whole parameters"):
            optimizer.step()
        assert len(watch.history) == 1
        with pytest.raises(ValueError, match=r"these are sharded \(FSDP, tensor parallel\)"):
            Watch(sgd(model), model)
        with pytest.raises(ValueError, match="features are of whole parameters, and these are sharded"):
            features.measure(model, torch.zeros(3, 4))
    finally:
        torch.distributed.destroy_process_group()


def test_ranks_on_a_device_are_read_in_one_go():
    pretend = pytest.importorskip("pretend_device", reason="of the checkout")
    with pretend.PretendDevice() as device:
        model = network().to("cuda")
        matrices = {name: p.detach() for name, p in canonical_parameters(model).items() if p.dim() > 1}
        matrix_ranks(matrices)
        device.take()
        found = matrix_ranks(matrices)
        assert device.take().get("read", 0) == 1
    assert found == matrix_ranks({name: p.detach() for name, p in network().named_parameters() if p.dim() > 1})
