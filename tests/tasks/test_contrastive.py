"""NT-Xent is its formula, and the ranks and probes of projections are those of what was planted in them."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from syre import distributed, metrics
from syre.batches import Batches
from syre.data import Dataset
from syre.data.augment import AUGMENTATIONS
from syre.learners import Replica, Single
from syre.tasks import Contrastive
from syre.tasks.contrastive import nt_xent

torch.set_num_threads(1)
TAU, IMAGES, DIMS = 0.3, 5, 4


def views(seed: int = 0, *leading: int, images: int = IMAGES) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(*leading, 2 * images, DIMS, generator=stream, dtype=torch.float64)


def by_loops(z: Tensor, tau: float) -> float:
    """Eq. 1 of Chen et al., term by term."""
    rows, total = z.tolist(), 0.0
    cosine = lambda a, b: sum(p * q for p, q in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))  # noqa: E731
    for i, row in enumerate(rows):
        partner = (i + len(rows) // 2) % len(rows)
        others = sum(math.exp(cosine(row, other) / tau) for k, other in enumerate(rows) if k != i)
        total -= math.log(math.exp(cosine(row, rows[partner]) / tau) / others)
    return total / len(rows)


# ---- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
def test_the_loss_is_its_formula(tau):
    z = views()
    assert nt_xent(z, tau).item() == pytest.approx(by_loops(z, tau), rel=1e-12)
    assert abs(nt_xent(z, 1.1 * tau).item() - by_loops(z, tau)) > 1e-3  # control


def test_views_that_agree_of_images_at_right_angles_have_the_loss_in_closed_form():
    z = torch.eye(DIMS, dtype=torch.float64).repeat(2, 1)
    expected = math.log(math.exp(1 / TAU) + 2 * DIMS - 2) - 1 / TAU
    assert nt_xent(z, TAU).item() == pytest.approx(expected, rel=1e-12)


def test_the_two_views_may_be_swapped_and_the_images_reordered_but_pairs_not_shuffled():
    z = views()
    first, second = z.chunk(2)
    order = torch.tensor([3, 0, 4, 1, 2])
    plain = nt_xent(z, TAU)
    torch.testing.assert_close(nt_xent(torch.cat([second, first]), TAU), plain)
    torch.testing.assert_close(nt_xent(torch.cat([first[order], second[order]]), TAU), plain)
    assert (nt_xent(torch.cat([first, second[order]]), TAU) - plain).abs() > 1e-2  # control


def test_rotations_and_rescalings_of_the_last_layer_are_symmetries():
    z, plain = views(), nt_xent(views(), TAU)
    rotation = torch.linalg.qr(views(1)[:DIMS]).Q
    torch.testing.assert_close(nt_xent(z @ rotation, TAU), plain)
    torch.testing.assert_close(nt_xent(z * torch.arange(1.0, 2 * IMAGES + 1)[:, None], TAU), plain)
    assert (nt_xent(z @ views(1)[:DIMS], TAU) - plain).abs() > 1e-2  # controls: no rotation, a shift
    assert (nt_xent(z + 1, TAU) - plain).abs() > 1e-2


def test_replicas_have_a_loss_each():
    z = views(0, 3, 2)
    losses = nt_xent(z, TAU)
    assert losses.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            torch.testing.assert_close(losses[i, j], nt_xent(z[i, j], TAU))


def test_under_autocast_the_loss_is_computed_in_float32():
    z = views(images=64).bfloat16()
    exact = nt_xent(z.double(), TAU)
    with torch.autocast("cpu", torch.bfloat16):
        loss = Contrastive(temperature=TAU).loss(z, z, torch.zeros(64))
        rough = (torch.nn.functional.normalize(z.float(), dim=-1) @ torch.eye(DIMS)).dtype
    assert loss.dtype == torch.float32
    assert rough == torch.bfloat16  # control: autocast was on
    assert abs(loss.item() - exact.item()) < 1e-5


def test_a_run_over_several_processes_has_the_negatives_of_all(monkeypatch):
    z, task = views(images=6), Contrastive(temperature=TAU)
    both = z.unflatten(0, (2, 6))
    shares = [both[:, :3].flatten(0, 1), both[:, 3:].flatten(0, 1)]  # of two ranks
    whole = task.loss(z, z, torch.zeros(6))
    assert all((task.loss(share, share, torch.zeros(3)) - whole).abs() > 1e-2 for share in shares)  # control
    for share in shares:
        gathered = iter(both)
        monkeypatch.setattr(distributed, "gather", lambda view, gathered=gathered: next(gathered))
        torch.testing.assert_close(task.loss(share, share, torch.zeros(3)), whole)


def test_one_view_of_each_image_is_too_few():
    with pytest.raises(ValueError, match=r"needs two views of each image, .*; got 5 views of 5 images"):
        Contrastive().loss(views()[:5], views()[:5], torch.zeros(5))
    with pytest.raises(ValueError, match=rf"needs two views of each image, .*; got {TEST} views of {TEST} images"):
        measured(4, data=replace(images(), augmentation=AUGMENTATIONS["crop_flip"]))


# ---- what is measured ------------------------------------------------------------------------------------------------

CLASSES, TRAIN, TEST = 3, 150, 130


class Planted(nn.Module):
    """Features: a linear map of the pixels; projections: one of rank `rank` of the features."""

    def __init__(self, rank: int, dims: int = 10) -> None:
        super().__init__()
        stream = torch.Generator().manual_seed(2)
        draw = lambda *shape: torch.randn(*shape, generator=stream, dtype=torch.float64)  # noqa: E731
        self.first = nn.Parameter(draw(3 * 8 * 8, 12))
        self.second = nn.Parameter(torch.linalg.qr(draw(12, rank)).Q @ torch.linalg.qr(draw(dims, rank)).Q.mT)

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        h = x.double().flatten(1) @ self.first
        return (h @ self.second, h) if features else h @ self.second


def images() -> Dataset:
    """Noise, brighter by class."""
    stream = torch.Generator().manual_seed(0)
    labels = [torch.randint(CLASSES, (n,), generator=stream) for n in (TRAIN, TEST)]
    pixels = [torch.randint(100, (len(y), 3, 8, 8), generator=stream) + 60 * y.view(-1, 1, 1, 1) for y in labels]
    return Dataset(
        train_inputs=pixels[0].byte(),
        train_targets=labels[0],
        test_inputs=pixels[1].byte(),
        test_targets=labels[1],
        num_classes=CLASSES,
        mean=(0.5,),
        std=(0.25,),
        augmentation=AUGMENTATIONS["simclr"],
    )


def measured(rank: int, *, final: bool = True, data: Dataset | None = None, **settings: object) -> dict[str, float]:
    module = Planted(rank)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    alone = Single(Replica(model=module, optimizer=optimizer, noise=torch.Generator()))
    batches = Batches([data or images()], scales=[1.0], seeds=[0], batch_size=32)
    values = Contrastive(**settings).evaluate(alone, batches, final=final)
    assert all(value.shape == (1,) for value in values.values())
    return {name: value.item() for name, value in values.items()}


@pytest.mark.parametrize("rank", [1, 4, 10])
def test_low_rankness_is_the_share_of_the_dimensions_that_are_not_in_use(rank):
    values = measured(rank)
    assert values["low_rankness"] == values["low_rankness/1e-06"] == pytest.approx(1 - rank / 10)
    assert values["rank"] == rank
    assert values["penultimate/rank"] == 12
    assert values["penultimate/rank/effective"] > values["rank/effective"]


def test_low_rankness_grows_with_its_threshold_and_one_of_them_is_called_by_its_name():
    values = measured(10, thresholds=[1e-1, 1e-2, 1e-3], threshold=1e-2, spectrum=[1, 2, 10, 11])
    shares = [values[f"low_rankness/{t:g}"] for t in (1e-3, 1e-2, 1e-1)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]  # control
    assert values["low_rankness"] == values["low_rankness/0.01"]
    assert values["eigenvalue/1"] >= values["eigenvalue/2"] >= values["eigenvalue/10"] > 0
    assert "eigenvalue/11" not in values
    kept = [values[f"eigenvalue/{i}"] > 1e-2 * values["eigenvalue/1"] for i in (1, 2, 10)]
    assert kept == sorted(kept, reverse=True)


def test_probes_are_trained_at_the_end_only_and_see_what_the_layer_shows():
    assert not any("accuracy" in name or "eigenvalue" in name for name in measured(4, final=False, spectrum=[1]))
    values = measured(4)
    assert values["accuracy/penultimate"] > values["accuracy"] > 0.5  # the projections keep 4 dimensions of 12
    data, module = images(), Planted(4)
    inputs = [(x.float() / 255 - 0.5) / 0.25 for x in (data.train_inputs, data.test_inputs)]
    layers = [[f.detach() for f in module(x, features=True)] for x in inputs]
    for layer, name in enumerate(("accuracy", "accuracy/penultimate")):
        probe = metrics.linear_probe(layers[0][layer], data.train_targets, layers[1][layer], data.test_targets)
        assert values[name] == probe.item()


def test_the_test_loss_is_that_of_training_on_batches_of_the_same_size():
    task, module, data = Contrastive(temperature=TAU), Planted(4), images()
    batches = Batches([data], scales=[1.0], seeds=[0], batch_size=32)
    (chunk,) = list(batches.evaluation("test", augmented=True))
    first, second = chunk[0][0].unflatten(0, (2, TEST)).unbind(0)
    losses = [
        task.loss(module(torch.cat([first[part], second[part]])), chunk[0], torch.zeros(32))
        for part in (slice(k, k + 32) for k in range(0, TEST - 31, 32))
    ]
    assert len(losses) == TEST // 32 > 1
    assert measured(4, temperature=TAU)["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)
    assert (
        abs(task.loss(module(chunk[0][0]), chunk[0], torch.zeros(TEST)).item() - measured(4)["loss"]) > 0.1
    )  # control


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "task.temperature must be a number > 0"),
        ({"thresholds": [0.1, 1.0]}, r"task.thresholds must be fractions in \(0, 1\), got \[0.1, 1.0\]"),
        ({"threshold": 0.0}, r"task.threshold must be a fraction in \(0, 1\), got 0.0"),
        ({"spectrum": [0]}, "task.spectrum must list integers >= 1"),
        ({"probe_decay": -1.0}, "task.probe_decay must be a number >= 0"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Contrastive(**settings)
