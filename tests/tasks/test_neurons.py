"""The symmetry of a hidden layer: planted duplicates and dead units are counted, in each replica alone."""

import pytest
import torch

from syre.batches import Batches
from syre.data import TeacherStudent
from syre.learners import Replica, learner
from syre.models import MLP
from syre.regularizers import Syre, WeightDecay
from syre.tasks import Classification, NeuronSymmetry
from syre.tasks.neurons import hidden_units

torch.set_num_threads(1)

DATA = TeacherStudent(inputs=6, samples=50, test_samples=50)
TASK = NeuronSymmetry(tolerances=[0.1, 0.01])


def student(seed: int = 0):
    torch.manual_seed(seed)
    return MLP(hidden=[12], activation="tanh").build((6,), 10)


@torch.no_grad()
def plant(model, duplicates: int = 0, dead: int = 0, noise: float = 0.0):
    """Units 1, ..., `duplicates` made equal to unit 0 up to `noise`, and the last `dead` ones 0."""
    first, second = model.layers
    for k in range(1, duplicates + 1):
        for part, own in ((first.weight, first.weight[0]), (second.weight.T, second.weight[:, 0])):
            part[k] = own * (1 + noise * k)
        first.bias[k] = first.bias[0] * (1 + noise * k)
    for part in (first.weight, first.bias, second.weight.T):
        part[len(part) - dead :] = 0
    return model


def measure(*models):
    data = DATA.load(seed=0)
    batches = Batches([data] * len(models), scales=[1.0] * len(models), seeds=[0] * len(models), batch_size=0)
    replicas = [
        Replica(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), noise=torch.Generator())
        for model in models
    ]
    return TASK.evaluate(learner(replicas), batches, final=True)


def test_planted_duplicates_and_dead_units_are_counted_in_each_replica_and_in_one_alone():
    cases = [
        student(),
        plant(student(1), duplicates=3),
        plant(student(2), duplicates=2, dead=1),
        plant(student(3), dead=2),
    ]
    values = measure(*cases)
    assert values["duplicated/0.01"].tolist() == [0, 4, 3, 2]  # two rows of zeros are duplicates, one is none
    assert values["symmetry/0.01"].tolist() == [0, 4, 4, 2]
    for k, model in enumerate(cases):
        alone = measure(model)
        for name in values:
            torch.testing.assert_close(alone[name][0], values[name][k], rtol=1e-4, atol=1e-5)


def test_the_tolerance_decides_which_units_count_as_equal():
    values = measure(plant(student(), duplicates=3, noise=0.02))
    assert values["symmetry/0.1"] == 4
    assert values["symmetry/0.01"] == 0


def test_duplicates_must_agree_in_what_goes_out_as_well_as_in_what_comes_in():
    """The control: with other outgoing weights, swapping the two units changes the network."""
    model = plant(student(), duplicates=1)
    assert measure(model)["symmetry/0.01"] == 2
    with torch.no_grad():
        model.layers[1].weight[:, 1] += 0.3
    assert measure(model)["symmetry/0.1"] == 0


def test_all_that_classification_measures_is_measured_too():
    values = measure(student(), student(1))
    data = DATA.load(seed=0)
    batches = Batches([data] * 2, scales=[1.0] * 2, seeds=[0] * 2, batch_size=0)
    replicas = [
        Replica(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), noise=torch.Generator())
        for model in (student(), student(1))
    ]
    plain = Classification().evaluate(learner(replicas), batches, final=True)
    assert set(values) - set(plain) == {f"{name}/{t}" for name in ("duplicated", "symmetry") for t in (0.1, 0.01)}
    assert all(torch.equal(values[name], plain[name]) for name in plain)


def test_duplicates_stay_so_under_decay_and_are_parted_by_syre():
    """Proposition 3 and Corollary 1, read off the metric itself."""
    data, loss = DATA.load(seed=0), torch.nn.functional.cross_entropy
    left = {}
    for regularizer in (WeightDecay(weight_decay=0.05), Syre(weight_decay=0.05, sigma=1.0, start="keep")):
        model = plant(student(), duplicates=5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.05)
        regularizer.attach(optimizer, model, 0)
        for _ in range(100):
            optimizer.zero_grad()
            loss(model(data.train_inputs), data.train_targets).backward()
            optimizer.step()
        left[regularizer.name] = measure(model)["duplicated/0.01"].item()
    assert left["weight_decay"] >= 6
    assert left["syre"] == 0


def test_a_network_with_two_hidden_layers_is_refused():
    deep = MLP(hidden=[4, 4]).build((6,), 10)
    with pytest.raises(ValueError, match="task=neuron_symmetry needs a network with one hidden layer"):
        hidden_units({name: weight.unsqueeze(0) for name, weight in deep.named_parameters()})


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"task.tolerances must be fractions in \(0, 1\)"):
        NeuronSymmetry(tolerances=[1.0])
    with pytest.raises(ValueError, match=r"task\.thresholds must be"):
        NeuronSymmetry(thresholds=[0.0])
