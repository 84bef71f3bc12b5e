"""`syre.diagnose` as a whole: what it holds, what it leaves alone, and what it says to bad input."""

import copy
import json

import pytest
import torch
from torch import nn

import syre
from syre.diagnostics import diagnose as same

X, Y = torch.linspace(-2, 2, 64 * 5).reshape(64, 5).sin(), torch.arange(64) % 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), lr=0.1, **{"weight_decay": 0.1, **options})


def planted(count):
    model = network()
    with torch.no_grad():
        model[0].weight[:count], model[0].bias[:count] = model[0].weight[0], model[0].bias[0]
        model[2].weight[:, :count] = model[2].weight[:, :1]
    return model


def test_it_is_a_plain_dict_with_all_entries_that_prints_and_saves(tmp_path):
    model = network()
    diagnosis = syre.diagnose(model, [(X, Y)], sgd(model))
    assert isinstance(diagnosis, dict)
    assert same is syre.diagnose
    assert list(diagnosis) == [
        "model", "structure", "units", "weights", "heads", "features", "training", "verdict", "advice",
    ]  # fmt: skip
    assert json.loads(json.dumps(diagnosis, allow_nan=False)) == diagnosis
    assert "Sequential" in str(diagnosis)
    assert diagnosis.save(tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_each_argument_adds_what_it_is_needed_for():
    model = network()
    alone, seen, trained = syre.diagnose(model), syre.diagnose(model, X), syre.diagnose(model, [(X, Y)], sgd(model))
    assert alone["structure"]["source"] == "guessed inputs"
    assert seen["structure"]["source"] == "batches"
    assert alone["units"] == seen["units"] == trained["units"]
    assert alone["weights"] == trained["weights"]
    assert (alone["features"], alone["training"], seen["training"]) == (None, None, None)
    assert seen["features"] == trained["features"]
    assert trained["training"]["decay"] == 0.1


@pytest.mark.parametrize("count", [2, 9, 16])
def test_planted_twins_are_counted(count):
    assert syre.diagnose(planted(count), X)["units"][0]["twins"] == count
    assert syre.diagnose(network(), X)["units"][0]["twins"] == 0


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))
    model[1].eval()
    optimizer = sgd(model)
    handle = syre.attach(optimizer, model, sigma=0.1)
    nn.functional.cross_entropy(model(X), Y).backward()
    state, grads = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    flags, random = [module.training for module in model.modules()], torch.get_rng_state()
    saved, hooks = copy.deepcopy(optimizer.state_dict()), [len(m._forward_hooks) for m in model.modules()]
    syre.diagnose(model, [(X, Y)], optimizer)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))
    assert [module.training for module in model.modules()] == flags
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), random)
    assert optimizer.state_dict().keys() == saved.keys()
    handle.detach()


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_wrapped_model_is_looked_at_itself(wrap):
    model = network()
    assert syre.diagnose(wrap(model), [(X, Y)], sgd(model)) == syre.diagnose(model, [(X, Y)], sgd(model))


def test_an_iterator_of_batches_is_read_as_far_as_needed():
    taken = []

    def stream():
        for k in range(10_000):
            taken.append(k)
            yield X, Y

    diagnosis = syre.diagnose(network(), stream())
    assert len(taken) <= 2048 // 64
    assert diagnosis["features"][0]["samples"] == 2048


def test_networks_that_have_diverged_are_named_and_not_refused():
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    diagnosis = syre.diagnose(model, [(X, Y)], sgd(model))
    assert diagnosis["training"] is None
    assert diagnosis["verdict"]["collapsed"] is None
    assert "diverged" in diagnosis["verdict"]["because"][0]
    json.dumps(diagnosis, allow_nan=False)


def test_a_model_whose_input_cannot_be_guessed_says_so():
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 5)

        def forward(self, first, second):
            return self.layer(first) + second

    diagnosis = syre.diagnose(Strange())
    assert diagnosis["structure"]["source"] == "none"
    assert diagnosis["units"] == []
    assert "pass batches" in diagnosis["structure"]["why"]
    assert len(diagnosis["weights"]) == 1


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        raise RuntimeError("out of ideas\nand a second line")


MODEL = network()
BAD = {
    "no module": (lambda: syre.diagnose("x"), TypeError, "must be a torch.nn.Module"),
    "a state dict": (lambda: syre.diagnose(MODEL.state_dict()), TypeError, "has no forward pass"),
    "an optimizer first": (lambda: syre.diagnose(sgd(MODEL), X), TypeError, "must be a torch.nn.Module"),
    "no parameters": (lambda: syre.diagnose(nn.ReLU()), ValueError, "ReLU has no parameters"),
    "no numbers": (lambda: syre.diagnose(nn.Linear(3, 3, device="meta")), ValueError, "meta device"),
    "no batches": (lambda: syre.diagnose(MODEL, None, sgd(MODEL)), ValueError, "pass them too"),
    "empty batches": (lambda: syre.diagnose(MODEL, []), ValueError, "batches are empty"),
    "words": (lambda: syre.diagnose(MODEL, "abc"), TypeError, "must be tensors"),
    "an array": (lambda: syre.diagnose(MODEL, X.numpy()), TypeError, "must be tensors"),
    "another shape": (lambda: syre.diagnose(MODEL, X[:, :4]), ValueError, "fails on the batch"),
    "a failing model": (lambda: syre.diagnose(Fails(), X), ValueError, "out of ideas"),
    "no targets": (lambda: syre.diagnose(MODEL, X, sgd(MODEL)), ValueError, "the gradient needs a loss"),
    "a loss for each": (
        lambda: syre.diagnose(MODEL, [(X, Y)], sgd(MODEL), nn.CrossEntropyLoss(reduction="none")),
        ValueError,
        "one finite number",
    ),
    "no optimizer": (lambda: syre.diagnose(MODEL, [(X, Y)], "sgd"), TypeError, "is no torch.optim.Optimizer"),
    "another optimizer": (
        lambda: syre.diagnose(MODEL, [(X, Y)], sgd(network())),
        ValueError,
        "steps none of the parameters",
    ),
    "tolerance": (lambda: syre.diagnose(MODEL, X, tolerance=1.5), ValueError, r"in \(0, 1\), got 1.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_in_one_line_and_changes_nothing(case):
    call, kind, words = BAD[case]
    before = copy.deepcopy(MODEL.state_dict())
    with pytest.raises(kind, match=words) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert all(torch.equal(value, before[name]) for name, value in MODEL.state_dict().items())
    assert all(module.training for module in MODEL.modules())


def test_sharded_parameters_are_refused(monkeypatch):
    monkeypatch.setattr("syre.diagnostics.features.is_sharded", lambda parameter: True)
    with pytest.raises(ValueError, match="whole parameters, and these are sharded"):
        syre.diagnose(network())
