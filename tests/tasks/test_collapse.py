"""Collapsed starts: what is measured of them, and the ranks that Propositions 2 and 3 leave."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

import syre
from syre.batches import Batches
from syre.data import Dataset
from syre.learners import Replica, learner
from syre.models import CollapsedMLP
from syre.tasks import CollapsedStart, TangentKernel
from syre.tasks.classification import cross_entropy
from syre.tasks.collapse import gradients, jacobian

torch.set_num_threads(1)

M, N, CLASSES = 4, 8, 3  # inputs and neurons of the last hidden layer
TASK = TangentKernel(images=50)
STREAM = torch.Generator().manual_seed(0)
X = torch.randn(200, 6, generator=STREAM, dtype=torch.float64)
Y = torch.arange(200) % CLASSES
DATA = Dataset(train_inputs=X, train_targets=Y, test_inputs=X[:60], test_targets=Y[:60], num_classes=CLASSES)


def mlp(copies: int, activation: str = "tanh") -> CollapsedMLP:
    return CollapsedMLP(hidden=[M, N], activation=activation, identical=copies / N)


def build(spec: CollapsedMLP) -> nn.Module:
    torch.manual_seed(0)
    return spec.build((6,), CLASSES).double()


def measured(*modules: nn.Module, task: CollapsedStart = TASK) -> dict[str, torch.Tensor]:
    replicas = [
        Replica(model=module, optimizer=torch.optim.SGD(module.parameters(), lr=0.1), noise=STREAM)
        for module in modules
    ]
    batches = Batches([DATA] * len(modules), scales=[1.0] * len(modules), seeds=[0] * len(modules), batch_size=8)
    return task.evaluate(learner(replicas), batches, final=True)


def descend(module: nn.Module, decay: float) -> None:
    """50 full-batch steps of SGD."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=decay)
    for _ in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(X), Y).backward()
        optimizer.step()


# ---- how far copies have come apart ----------------------------------------------------------------------------------


def test_the_distance_is_the_part_of_the_neurons_that_the_group_average_takes_off():
    module = build(mlp(4))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    values = measured(module, task=CollapsedStart())
    incoming, outgoing = module.layers[1:]
    v = torch.cat([incoming.weight, incoming.bias[:, None], outgoing.weight.T], 1)[:4]
    projector = torch.eye(4, dtype=v.dtype) - 0.25
    torch.testing.assert_close(values["distance"][0], (projector @ v).norm() / v.norm())
    assert values["duplicated"] == 0


def test_copies_have_distance_0_and_are_counted_and_without_copies_there_is_no_distance():
    values = measured(*(build(mlp(copies)) for copies in (0, 1, 2, 8)), task=CollapsedStart())
    assert values["duplicated"].tolist() == [0, 0, 2, 8]
    assert values["distance"][:2].isnan().all()
    assert values["distance"][2:].tolist() == [0, 0]


# ---- ranks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [0, 2, 5, 8])
def test_ranks_are_those_of_the_parameters_that_the_symmetry_leaves(copies):
    """Exactly: (n - k + 1)(m + 1 + c) + c; the softmax takes one more off each neuron's gradient, and one in all."""
    values, distinct = measured(build(mlp(copies))), N - max(copies, 1) + 1
    assert values["rank/ntk"] == distinct * (M + 1 + CLASSES) + CLASSES
    assert values["rank/gradient"] == distinct * (M + CLASSES) + CLASSES - 1


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_training_does_not_raise_the_ranks_that_copies_leave_unless_their_anchors_differ(decay):
    """Proposition 3: copies stay equal, so that the gradient never has more directions than they leave it."""
    module, freed = build(mlp(5)), build(mlp(5))
    syre.parametrize(freed, sigma=0.5, seed=0, start="keep")
    start = module.layers[1].weight.detach().clone()
    for network, gamma in ((module, decay), (freed, 0.1)):
        descend(network, gamma)
    assert (module.layers[1].weight - start).abs().max() > 1e-2  # control: it was trained
    stuck, whole = (measured(network) for network in (module, freed))
    assert stuck["rank/ntk"] == (N - 4) * (M + 1 + CLASSES) + CLASSES < whole["rank/ntk"]
    assert stuck["rank/gradient"] == (N - 4) * (M + CLASSES) + CLASSES - 1 < whole["rank/gradient"]


def test_relu_takes_off_the_scale_of_each_neuron():
    values = measured(*(build(mlp(copies, "relu")) for copies in (0, 5)))
    for k, distinct in enumerate((N, N - 4)):
        assert values["rank/ntk"][k] <= distinct * (M + CLASSES) + CLASSES
        assert values["rank/gradient"][k] <= distinct * (M + CLASSES - 1) + CLASSES - 1


def test_the_jacobian_and_the_gradients_are_those_of_a_loop():
    module = build(mlp(3))
    weights, x, y = dict(module.named_parameters()), X[:5], Y[:5]
    last = [*module.layers[1].parameters(), *module.layers[2].parameters()]
    outputs = [
        parameters_to_vector(torch.autograd.grad(module(x[i])[o], last)) for i in range(5) for o in range(CLASSES)
    ]
    kernel = jacobian(module, weights, x)
    torch.testing.assert_close(kernel, torch.stack(outputs))
    losses = [
        parameters_to_vector(torch.autograd.grad(cross_entropy(module(x[i : i + 1]), y[i : i + 1]), last))
        for i in range(5)
    ]
    found = gradients(module, weights, x, y)
    torch.testing.assert_close(found, torch.stack(losses))
    residual = (module(x).softmax(1) - nn.functional.one_hot(y, CLASSES)).unsqueeze(1)
    torch.testing.assert_close(found.unsqueeze(1), residual @ kernel.view(5, CLASSES, -1))  # J^T (softmax - onehot)


@pytest.mark.parametrize("chunk", [1 << 16, 21], ids=["one_chunk", "several"])
def test_replicas_are_measured_as_each_alone(chunk, monkeypatch):
    alone = [measured(build(mlp(copies))) for copies in (0, 3, 8)]
    monkeypatch.setattr("syre.batches.EVALUATION_SAMPLES", chunk)
    together = measured(*(build(mlp(copies)) for copies in (0, 3, 8)))
    for name, values in together.items():
        torch.testing.assert_close(values, torch.cat([one[name] for one in alone]), equal_nan=True, msg=name)


def test_a_diverged_network_has_no_rank():
    modules = [build(mlp(3)), build(mlp(3))]
    modules[0].layers[1].weight.data.fill_(math.nan)
    values = measured(*modules)
    assert values["rank/ntk"].isnan().tolist() == [True, False]
    assert values["rank/gradient/effective"].isnan().tolist() == [True, False]


def test_images_must_be_positive():
    with pytest.raises(ValueError, match=r"task.images must be a number > 0"):
        TangentKernel(images=0)


# ---- the two-by-two of bias and decay --------------------------------------------------------------------------------


def test_from_the_same_weights_a_bias_without_decay_is_no_bias():
    """The cell sigma > 0, gamma = 0: `l(theta + b)` with `w_0 = init` steps w as `l(w)` does (Proposition 1)."""
    trained = []
    for sigma, decay in ((0.0, 0.0), (0.5, 0.0), (0.5, 0.1)):
        module = build(mlp(5))
        if sigma:
            syre.parametrize(module, sigma=sigma, seed=0, start="keep")
        descend(module, decay)
        trained.append(torch.cat([layer.weight.detach().flatten() for layer in module.layers]))
    vanilla, bias, both = trained
    torch.testing.assert_close(bias, vanilla, rtol=0, atol=1e-12)
    assert (both - vanilla).abs().max() > 1e-2  # control: with decay it matters
