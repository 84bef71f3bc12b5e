"""Batches: each sample once per epoch, in an order of (seed, epoch) alone."""

from dataclasses import replace

import pytest
import torch

from syre.batches import EVALUATION_SAMPLES, Batches
from syre.data import Dataset, RgbDigits
from syre.data.augment import AUGMENTATIONS

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


# ---- a sequence of tasks ---------------------------------------------------------------------------------------------

THREE = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2], [1, 2, 3, 0]])


def images(permutations: torch.Tensor | None = THREE) -> Dataset:
    """Image i has the pixels 10 i, ..., 10 i + 3, as [1, 2, 2]."""
    pixels = (10.0 * torch.arange(N)).unsqueeze(1) + torch.arange(4.0)
    inputs, targets = pixels.view(N, 1, 2, 2), torch.arange(N)
    return Dataset(
        train_inputs=inputs,
        train_targets=targets,
        test_inputs=inputs,
        test_targets=targets,
        num_classes=N,
        permutations=permutations,
    )


@pytest.mark.parametrize("batch_size", [5, 0])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_each_task_sees_its_permutation_in_training_and_evaluation(stage, batch_size):
    settings = {"scales": [2.0, 0.5], "seeds": [0, 1], "batch_size": batch_size}
    batches, plain = (Batches([data] * 2, **settings) for data in (images(), images(None)))
    assert (batches.stages, plain.stages, batches.stage) == (3, 1, 0)
    batches.stage = stage
    pairs = [(batches.train(7), plain.train(7)), *zip(batches.evaluation(), plain.evaluation(), strict=True)]
    for (mine, labels), (its, its_labels) in pairs:
        assert mine.shape == its.shape
        assert torch.equal(mine.flatten(2), its.flatten(2)[..., THREE[stage]])
        assert torch.equal(mine, its) == (stage == 0)  # control: the first task is the data set itself
        assert torch.equal(labels, its_labels)


def test_each_replica_sees_the_permutations_of_its_own_data_set():
    other = THREE[[0, 2, 1]]
    both = Batches([images(), images(other)], scales=[1.0, 1.0], seeds=[0, 0], batch_size=5)
    alone = [Batches([images(p)], scales=[1.0], seeds=[0], batch_size=5) for p in (THREE, other)]
    for batches in (both, *alone):
        batches.stage = 1
    for k, batches in enumerate(alone):
        assert torch.equal(both.train(2)[0][k], batches.train(2)[0][0])
    assert not torch.equal(both.train(2)[0][0], both.train(2)[0][1])  # control


def test_a_single_task_is_permuted_too():
    batches = Batches([images(THREE[1:2])], scales=[1.0], seeds=[0], batch_size=0)
    assert torch.equal(batches.train(0)[0].flatten(2)[0], images().train_inputs.flatten(1)[:, THREE[1]])


def test_replicas_need_the_same_number_of_tasks():
    for other in (images(THREE[:2]), images(None)):
        with pytest.raises(ValueError, match="the same number of tasks"):
            Batches([images(), other], scales=[1.0, 1.0], seeds=[0, 0], batch_size=5)
    with pytest.raises(ValueError, match="have permutations"):
        Batches([images(THREE[:1]), images(None)], scales=[1.0, 1.0], seeds=[0, 0], batch_size=5)


# ---- a sequence of labels --------------------------------------------------------------------------------------------


def relabelled(shift: int = 0) -> Dataset:
    """Image i of `images` has in task t the label i + 100 t + shift."""
    labels = torch.arange(N).unsqueeze(1) + 100 * torch.arange(3) + shift
    return replace(images(None), train_targets=labels, test_targets=labels, relabelled=True)


@pytest.mark.parametrize("batch_size", [5, 0])
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_each_task_has_its_labels_in_training_and_evaluation(stage, batch_size, shared):
    settings = {"scales": [2.0, 0.5], "seeds": [0, 1], "batch_size": batch_size}
    data = relabelled()
    batches, plain = (
        Batches(sets, **settings) for sets in ([data, data if shared else replace(data)], [images(None)] * 2)
    )
    assert (batches.stages, batches.stage, batches.shared) == (3, 0, shared)
    batches.stage = stage
    pairs = [(batches.train(7), plain.train(7)), *zip(batches.evaluation(), plain.evaluation(), strict=True)]
    for (inputs, labels), (same, numbers) in pairs:
        assert torch.equal(inputs, same)
        assert torch.equal(labels, numbers + 100 * stage)


def test_each_replica_has_the_labels_of_its_own_data_set():
    both = Batches([relabelled(), relabelled(7)], scales=[1.0, 1.0], seeds=[0, 0], batch_size=5)
    both.stage = 2
    _, labels = both.train(3)
    assert torch.equal(labels[1], labels[0] + 7)


def test_of_a_sequence_of_labels_each_rank_has_its_share():
    settings = {"scales": [1.0], "seeds": [0], "batch_size": 10}
    whole, *shares = [Batches([relabelled()], **settings, rank=k, world=n) for k, n in ((0, 1), (0, 2), (1, 2))]
    for batches in (whole, *shares):
        batches.stage = 1
    assert torch.equal(torch.cat([share.train(1)[1] for share in shares], 1), whole.train(1)[1])


def test_either_all_replicas_are_relabelled_or_none():
    labels = relabelled().train_targets[:, :1]
    one = replace(relabelled(), train_targets=labels, test_targets=labels)
    with pytest.raises(ValueError, match="new labels in each task or none"):
        Batches([one, images(None)], scales=[1.0, 1.0], seeds=[0, 0], batch_size=5)


# ---- pixels ----------------------------------------------------------------------------------------------------------


def pixels(augment: str, samples: int = 64) -> Dataset:
    return RgbDigits(augment=augment, samples=samples, test_samples=40).load(seed=0)


def lone(data: Dataset, seed: int = 0, **settings) -> Batches:
    return Batches([data], scales=[2.0], seeds=[seed], batch_size=16, **settings)


def test_pixels_become_standardised_floats_at_the_scale_of_the_run():
    data = pixels("none")
    for split, inputs in (("train", lone(data).evaluation("train")), ("test", lone(data).evaluation())):
        values = torch.cat([chunk for chunk, _ in inputs], 1)[0]
        expected = 2 * (getattr(data, f"{split}_inputs") / 255 - data.mean[0]) / data.std[0]
        torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("augment", ["crop_flip", "simclr"])
def test_a_training_batch_is_the_augmentation_of_its_pixels(augment):
    data, plain = pixels(augment), pixels("none")
    views = AUGMENTATIONS[augment].views
    inputs, targets = lone(data).train(5)
    originals, same = lone(plain).train(5)
    assert torch.equal(targets, same)
    assert inputs.shape == (1, views * 16, 3, 32, 32)
    assert not torch.equal(inputs[:, :16], originals)
    again = lone(data)
    for step in (9, 0, 5):  # whatever was drawn before
        last = again.train(step)
    assert torch.equal(last[0], inputs)
    assert not torch.equal(lone(data, seed=1).train(5)[0], inputs)  # control: another seed


def test_an_evaluation_is_augmented_when_asked_and_alike_for_all_runs():
    data = pixels("simclr")
    plain, _ = next(lone(data).evaluation())
    augmented = [next(lone(data, seed=seed).evaluation(augmented=True))[0] for seed in (0, 1)]
    assert plain.shape[1] == 40
    assert augmented[0].shape[1] == 80
    assert torch.equal(augmented[0], augmented[1])


def test_replicas_of_pixels_get_the_batches_of_their_lone_runs():
    data = pixels("crop_flip")
    both = Batches([data, data], scales=[2.0, 2.0], seeds=[0, 1], batch_size=16)
    for row in (0, 1):
        for mine, his in zip(both.train(3), lone(data, seed=row).train(3), strict=True):
            assert torch.equal(mine[row], his[0])


@pytest.mark.parametrize("batch_size", [16, 0])
def test_the_shares_of_all_ranks_are_the_batch_of_one_process(batch_size):
    data = pixels("simclr")
    settings = {"scales": [1.0], "seeds": [0], "batch_size": batch_size}
    inputs, targets = Batches([data], **settings).train(2)
    shares = [Batches([data], **settings, rank=rank, world=4).train(2) for rank in range(4)]
    assert torch.equal(torch.cat([labels for _, labels in shares], 1), targets)
    views = [share.unflatten(1, (2, -1)) for share, _ in shares]  # views first, then images
    assert torch.equal(torch.cat(views, 2).flatten(1, 2), inputs)


def test_a_batch_that_the_ranks_cannot_share_evenly_is_refused():
    with pytest.raises(ValueError, match=r"train\.batch_size must be a multiple of the 3 processes, got 16"):
        lone(pixels("none"), rank=0, world=3)


def worded(seed: int = 0) -> Dataset:
    """Twelve windows of four words of seven, each target the word after; two alphabets of the seed."""
    words = torch.arange(12).unsqueeze(1) + torch.arange(5)
    stream = torch.Generator().manual_seed(seed)
    alphabets = torch.stack([torch.arange(7), torch.randperm(7, generator=stream)])
    split = (words[:, :-1] % 7).int(), words[:, 1:] % 7
    return replace(Dataset.of(split, split, num_classes=7), alphabets=alphabets)


@pytest.mark.parametrize("seeds", [[0], [0, 1]], ids=["one", "two"])
def test_a_further_stage_renames_the_tokens_of_inputs_and_targets_alike(seeds):
    data = [worded(seed) for seed in seeds]
    batches = Batches(data, scales=[1.0] * len(seeds), seeds=seeds, batch_size=4)
    assert batches.stages == 2
    first = [batches.train(1), next(batches.evaluation())]
    batches.stage = 1
    second = [batches.train(1), next(batches.evaluation())]
    for before, after in zip(first, second, strict=True):
        for k, own in enumerate(data):
            for mine, its in zip(before, after, strict=True):
                assert torch.equal(own.alphabets[1][mine[k].long()], its[k])
    assert not torch.equal(first[0][1], second[0][1])  # control
    assert (first[0][0][..., 1:] == first[0][1][..., :-1]).all()
    assert (second[0][0][..., 1:] == second[0][1][..., :-1]).all()


def test_a_text_is_evaluated_by_tokens_in_parts_of_as_many_as_other_samples(monkeypatch):
    monkeypatch.setattr("syre.batches.EVALUATION_SAMPLES", 20)
    assert [len(x[0]) for x, _ in Batches([worded()], scales=[1.0], seeds=[0], batch_size=4).evaluation()] == [5, 5, 2]
    assert [len(x[0]) for x, _ in Batches([numbered(45)], scales=[1.0], seeds=[0], batch_size=4).evaluation()] == [
        20,
        20,
        5,
    ]
