"""Linear probes: the minimum that scikit-learn finds, planted rules, and chance."""

import math

import pytest
import torch

from syre.metrics import linear_probe
from syre.metrics.probe import logistic_regression

torch.set_num_threads(1)
N, D, CLASSES = 400, 6, 4


def planted(seed: int = 0, n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian features, and labels that are a linear rule of them (of a rule of its own for all seeds)."""
    rule = torch.randn(D, CLASSES, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, (x @ rule).argmax(-1)


def shuffled(labels: torch.Tensor) -> torch.Tensor:
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]


def test_it_is_the_minimum_that_scikit_learn_finds():
    x, y = planted()
    decay = 0.01
    weight, bias = logistic_regression(x, y, decay=decay)
    linear_model = pytest.importorskip("sklearn.linear_model")
    theirs = linear_model.LogisticRegression(C=1 / (decay * N), tol=1e-10, max_iter=10_000).fit(x.numpy(), y.numpy())
    torch.testing.assert_close(weight, torch.tensor(theirs.coef_), rtol=0, atol=1e-4)
    intercept = torch.tensor(theirs.intercept_)
    torch.testing.assert_close(bias - bias.mean(), intercept - intercept.mean(), rtol=0, atol=1e-4)
    other, _ = logistic_regression(x, y, decay=2 * decay)
    assert (other - weight).abs().max() > 0.1  # control: the decay matters


def test_it_recovers_a_planted_rule_and_is_at_chance_on_shuffled_labels():
    (x, y), (unseen, truth) = planted(0, 2000), planted(1, 2000)
    assert linear_probe(x, y, unseen, truth, decay=1e-4) > 0.97
    chance = truth.bincount().max() / len(truth)
    assert linear_probe(x, shuffled(y), unseen, truth) < chance + 0.05
    assert linear_probe(x[:, :1], y, unseen[:, :1], truth) < 0.7  # control: one feature is not enough


def test_each_unit_is_standardised_so_its_scale_and_offset_do_not_matter():
    (x, y), (unseen, truth) = planted(0), planted(1)
    scale, offset = 2.0 ** torch.arange(-3.0, 3.0).double(), torch.arange(6.0).double()
    plain = linear_probe(x, y, unseen, truth, decay=0.1)
    torch.testing.assert_close(linear_probe(x * scale + offset, y, unseen * scale + offset, truth, decay=0.1), plain)
    by_hand = [logistic_regression(data, y, decay=0.1)[0].norm() for data in (x, x * scale)]
    assert abs(by_hand[0] - by_hand[1]) > 0.1  # control: without it, they would


def test_units_that_do_not_vary_are_left_out_and_a_collapsed_representation_is_at_chance():
    (x, y), (unseen, truth) = planted(0), planted(1)
    plain = linear_probe(x, y, unseen, truth)
    noise = 1 + 1e-9 * torch.randn(N, 1, dtype=torch.float64)  # rounding
    assert linear_probe(torch.cat([x, noise], 1), y, torch.cat([unseen, 1e3 * noise], 1), truth) == plain
    ones = torch.ones(N, D, dtype=torch.float64)
    assert linear_probe(ones, y, ones, truth) == (truth == y.bincount().argmax()).double().mean()


def test_replicas_have_a_probe_each_and_a_diverged_one_disturbs_no_other():
    pairs = [planted(k) for k in range(3)]
    x, y = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    alone = [linear_probe(*pair, *planted(7)) for pair in pairs]
    unseen, truth = (tensor.expand(3, *tensor.shape) for tensor in planted(7))
    torch.testing.assert_close(linear_probe(x, y, unseen, truth), torch.stack(alone), rtol=0, atol=0)
    x[1, 3, 2] = math.nan
    accuracy = linear_probe(x, y, unseen, truth)
    assert accuracy[1].isnan()
    assert (accuracy[0], accuracy[2]) == (alone[0], alone[2])


@pytest.mark.parametrize("grad", [True, False])
def test_it_works_within_no_grad_and_leaves_no_gradient(grad):
    x, y = planted()
    x.requires_grad_()
    with torch.set_grad_enabled(grad):
        accuracy = linear_probe(x, y, x, y)
    assert accuracy > 0.9
    assert x.grad is None
    assert not accuracy.requires_grad
