"""Batches: each sample once per epoch, in an order of (seed, epoch) alone."""

from dataclasses import replace

import pytest
import torch

from syre.batches import EVALUATION_SAMPLES, Batches
from syre.data import Dataset

N = 20


def numbered(n: int = N) -> Dataset:
    """Sample i has input (i + 1, -(i + 1)) and target i."""
    x = torch.arange(1.0, n + 1)
    inputs, targets = torch.stack([x, -x], 1), torch.arange(n)
    return Dataset(train_inputs=inputs, train_targets=targets, test_inputs=inputs, test_targets=targets, num_classes=n)


def visited(batches: Batches, epoch: int) -> torch.Tensor:
    """[R, batches x batch]: the samples of one epoch, in order."""
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    return torch.cat([batches.train(step)[1] for step in steps], 1)


def test_an_epoch_visits_each_sample_once_and_leaves_out_a_partial_batch():
    batches = Batches([numbered()], scales=[1.0], seeds=[0], batch_size=5)
    assert batches.steps_per_epoch == 4
    for epoch in range(3):
        assert visited(batches, epoch)[0].sort().values.tolist() == list(range(N))
    batches = Batches([numbered()], scales=[1.0], seeds=[0], batch_size=6)
    assert batches.steps_per_epoch == 3
    assert visited(batches, 0)[0].unique().numel() == 18


def test_targets_stay_with_their_inputs():
    inputs, targets = Batches([numbered()] * 2, scales=[1.0, 1.0], seeds=[0, 1], batch_size=5).train(2)
    assert inputs.shape == (2, 5, 2)
    assert torch.equal(inputs[..., 0], targets + 1.0)


def test_the_order_depends_on_seed_and_epoch_only():
    one = Batches([numbered()], scales=[1.0], seeds=[3], batch_size=5)
    several = Batches([numbered()] * 3, scales=[0.1, 1.0, 2.0], seeds=[9, 3, 3], batch_size=5)
    for epoch in (4, 0, 1):  # in any order of asking
        orders = visited(several, epoch)
        assert torch.equal(visited(one, epoch)[0], orders[1])
        assert torch.equal(orders[1], orders[2])
        assert not torch.equal(orders[0], orders[1])  # control: another seed
    assert not torch.equal(visited(one, 0), visited(one, 1))  # control: another epoch


@pytest.mark.parametrize("batch_size", [5, 0])
def test_shared_and_stacked_data_give_equal_batches(batch_size):
    data = numbered()
    settings = {"scales": [0.5, 2.0], "seeds": [0, 1], "batch_size": batch_size}
    shared, stacked = Batches([data, data], **settings), Batches([data, replace(data)], **settings)
    assert (shared.shared, stacked.shared) == (True, False)
    for step in (0, 3, 9):
        for mine, its in zip(shared.train(step), stacked.train(step), strict=True):
            assert torch.equal(mine, its)
    for mine, its in zip(shared.evaluation(), stacked.evaluation(), strict=True):
        assert torch.equal(mine[0], its[0])
        assert torch.equal(mine[1], its[1])


def test_stacked_data_are_each_replicas_own():
    other = replace(numbered(), train_inputs=-numbered().train_inputs)
    inputs, targets = Batches([numbered(), other], scales=[1.0, 1.0], seeds=[0, 0], batch_size=5).train(0)
    assert torch.equal(inputs[0], -inputs[1])
    assert torch.equal(targets[0], targets[1])


@pytest.mark.parametrize("batch_size", [0, N, N + 1])
def test_a_batch_of_the_whole_set_is_the_set_in_order_at_every_step(batch_size):
    batches = Batches([numbered()] * 2, scales=[1.0, 1.0], seeds=[0, 1], batch_size=batch_size)
    assert (batches.full, batches.batch_size, batches.steps_per_epoch) == (True, N, 1)
    for step in (0, 7):
        assert batches.train(step)[1].tolist() == [list(range(N))] * 2


def test_inputs_are_scaled_per_replica_in_training_and_evaluation():
    batches = Batches([numbered()] * 2, scales=[0.5, 3.0], seeds=[0, 0], batch_size=5)
    inputs, targets = batches.train(0)
    assert torch.equal(inputs[:, :, 0], torch.tensor([[0.5], [3.0]]) * (targets + 1))
    ((inputs, targets),) = batches.evaluation()
    assert torch.equal(inputs[:, :, 0], torch.tensor([[0.5], [3.0]]) * (targets + 1))


def test_evaluation_covers_a_split_in_order_in_chunks_that_fit():
    n = EVALUATION_SAMPLES // 4
    batches = Batches([numbered(n)] * 8, scales=[1.0] * 8, seeds=[0] * 8, batch_size=5)
    chunks = list(batches.evaluation())
    assert len(chunks) == 2
    assert torch.equal(torch.cat([targets for _, targets in chunks], 1)[3], torch.arange(n))


def test_replicas_need_data_sets_of_one_shape():
    longer = numbered(N + 1)
    for other in (longer, replace(numbered(), test_inputs=longer.test_inputs, test_targets=longer.test_targets)):
        with pytest.raises(ValueError, match="data sets of the same shape"):
            Batches([numbered(), other], scales=[1.0, 1.0], seeds=[0, 0], batch_size=5)
