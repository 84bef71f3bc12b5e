"""Augmentation: torchvision's operations, but each image by its own draw."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import RandAugment as OfTorchvision
from torchvision.transforms.v2 import functional as F

from syre.data import augment
from syre.data.augment import AUGMENTATIONS, JITTER, RANDAUGMENT, CropFlip, Draws, RandAugment, SimClr
from syre.seeding import generator

torch.set_num_threads(1)
RANDOM = [name for name in AUGMENTATIONS if name != "none"]
GEOMETRY = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def images(
    n: int = 64, channels: int = 3, height: int = 32, width: int = 32, dtype: torch.dtype = torch.float32
) -> Tensor:
    return torch.rand(n, channels, height, width, generator=generator(0, "images"), dtype=dtype)


def affine(x: Tensor, **changes: list[float]) -> Tensor:
    return F.affine(x, **{"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **changes})


def degrees(tangent: float) -> float:
    return math.degrees(math.atan(tangent))


REFERENCE: dict[str, Callable[[Tensor, float], Tensor]] = {  # an operation on one image, by torchvision
    "Identity": lambda x, v: x,
    "ShearX": lambda x, v: affine(x, shear=[degrees(v), 0.0], center=[0, 0]),
    "ShearY": lambda x, v: affine(x, shear=[0.0, degrees(v)], center=[0, 0]),
    "TranslateX": lambda x, v: affine(x, translate=[int(v * x.shape[-1]), 0]),
    "TranslateY": lambda x, v: affine(x, translate=[0, int(v * x.shape[-2])]),
    "Rotate": lambda x, v: F.rotate(x, angle=v),
    "Brightness": F.adjust_brightness,
    "Color": F.adjust_saturation,
    "Contrast": F.adjust_contrast,
    "Sharpness": F.adjust_sharpness,
    "Posterize": lambda x, v: F.posterize(x, round(v)),
    "Solarize": F.solarize,
    "AutoContrast": lambda x, v: F.autocontrast(x),
    "Equalize": lambda x, v: F.equalize(x),
    "Hue": F.adjust_hue,
    "Gray": lambda x, v: F.rgb_to_grayscale(x, num_output_channels=x.shape[-3]),
}
JITTERED = ("Brightness", "Contrast", "Color", "Hue", "Identity", "Gray")  # the names of augment.JITTER


def one_by_one(x: Tensor, names: list[str], values: Tensor) -> Tensor:
    return torch.stack([REFERENCE[name](y, v) for y, name, v in zip(x, names, values.tolist(), strict=True)])


def span(name: str) -> tuple[float, float]:
    if name in ("Hue", "Gray"):
        return -0.5, 0.5
    _, start, change, signed = RANDAUGMENT[name]
    return start - (change if signed else 0), start + change


# The operations.


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 20, 36)])
@pytest.mark.parametrize("name", REFERENCE)
def test_an_operation_does_to_each_image_what_torchvision_does_to_it_alone_with_the_same_value(name, shape):
    x = images(16, *shape)
    low, high = span(name)
    values = low + (high - low) * torch.rand(16, generator=generator(0, "values"))
    values = values.round() if name == "Posterize" else values
    operation = {"Hue": augment.hue, "Gray": augment.gray}.get(name) or RANDAUGMENT[name].function
    expected, found = one_by_one(x, [name] * 16, values), operation(x, values.view(-1, 1, 1, 1))
    if name in GEOMETRY:  # the nearest pixel may be another where rounding decides
        assert ((expected - found).abs().amax(1) > 0).float().mean() < 1e-3
    else:
        torch.testing.assert_close(found, expected, atol=5e-6, rtol=0)
    changed = (found - x).abs().flatten(1).amax(1) > 1e-3
    still = name == "Identity" or (shape[0] == 1 and name in ("Color", "Hue", "Gray"))
    assert changed.sum() == 0 if still else changed.float().mean() > 0.7


def test_a_channel_without_range_is_left_alone_and_a_gray_pixel_has_no_hue():
    flat = torch.full((2, 3, 8, 8), 0.4)
    value = torch.full((2, 1, 1, 1), 0.3)
    for operation in (augment.auto_contrast, augment.hue, augment.sharpness):
        torch.testing.assert_close(operation(flat, value), flat)


def test_hue_by_a_whole_turn_is_none_and_two_half_turns_are_none():
    x, turn = images(dtype=torch.float64), torch.ones(64, 1, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(augment.hue(augment.hue(x, turn / 2), turn / 2), x)
    assert (augment.hue(x, turn / 2) - x).abs().mean() > 0.1


@pytest.mark.parametrize("magnitude", range(31))
def test_the_values_of_randaugment_are_torchvisions(magnitude):
    draws = RandAugment(magnitude=magnitude).draw(400, generator(0))
    values: dict[str, set[float]] = {name: set() for name in RANDAUGMENT}
    for operation, value in zip(draws["operations"].flatten(), draws["values"].flatten(), strict=True):
        values[list(RANDAUGMENT)[operation]].add(value.item())
    assert list(OfTorchvision._AUGMENTATION_SPACE) == list(RANDAUGMENT)
    for name, (bins, signed) in OfTorchvision._AUGMENTATION_SPACE.items():
        strengths = bins(31, 1, 1)  # translation in sides
        if strengths is None:
            continue
        strength, centre = float(strengths[magnitude]), float(name in ("Brightness", "Color", "Contrast", "Sharpness"))
        found = {round(v) for v in values[name]} if name == "Posterize" else values[name]
        expected = {centre + strength, centre - strength} if signed else {strength}
        assert sorted(found) == pytest.approx(sorted(expected), abs=1e-6)


# The augmentations, image by image.


def test_none_is_the_image_itself():
    x, none = images(), AUGMENTATIONS["none"]
    assert none.apply(x, none.draw(64, generator(0))) is x


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (2, 9, 16), (3, 7, 7)])
def test_crop_flip_is_padding_by_an_eighth_a_crop_and_a_flip(shape):
    x, draws = images(64, *shape), CropFlip().draw(64, generator(0))
    down, across = (side // 8 for side in shape[1:])
    for image, corner, flip, found in zip(x, draws["crop"], draws["flip"], CropFlip().apply(x, draws), strict=True):
        top, left = int(corner[0] * (2 * down + 1)), int(corner[1] * (2 * across + 1))
        expected = F.crop(F.pad(image, [across, down]), top, left, *shape[1:])
        assert torch.equal(found, F.hflip(expected) if flip else expected)


def test_crop_flip_takes_every_crop_and_flips_equally_often():
    draws = CropFlip().draw(81 * 100, generator(0))
    counts = ((draws["crop"] * 9).long() @ torch.tensor([9, 1])).bincount()
    assert len(counts) == 81
    assert 60 < counts.min() < counts.max() < 140
    assert abs(draws["flip"].float().mean() - 0.5) < 0.03


def test_randaugment_is_crop_flip_and_then_each_images_operations():
    x, draws = images(128), RandAugment(operations=1).draw(128, generator(0))
    names = [list(RANDAUGMENT)[k] for k in draws["operations"][:, 0]]
    expected = one_by_one(CropFlip().apply(x, draws), names, draws["values"][:, 0])
    found = RandAugment(operations=1).apply(x, draws)
    assert ((found - expected).abs() > 5e-6).float().mean() < 1e-5
    assert set(names) == set(RANDAUGMENT)


def test_randaugment_operations_follow_one_another():
    x, draws = images(128), RandAugment(operations=2).draw(128, generator(0))
    first, second = ({**draws, **{key: draws[key][:, k : k + 1] for key in ("operations", "values")}} for k in (0, 1))
    second |= {"crop": torch.full((128, 2), 0.5), "flip": torch.zeros(128, dtype=torch.bool)}  # 0.5: where it was
    once = RandAugment().apply(x, first)
    assert torch.equal(RandAugment().apply(x, draws), RandAugment().apply(once, second))


def test_randaugment_draws_all_operations_and_both_signs_equally_often():
    draws = RandAugment().draw(14000, generator(0))
    assert (draws["operations"].flatten().bincount() / 28000 * 14 - 1).abs().max() < 0.1
    rotations = draws["values"][draws["operations"] == list(RANDAUGMENT).index("Rotate")]
    assert torch.equal(rotations.abs().unique(), torch.tensor([14.0]))
    assert abs((rotations > 0).float().mean() - 0.5) < 0.05


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 20, 36)])
def test_a_view_of_simclr_is_resized_crop_flip_jitter_in_its_order_and_gray(shape, antialias):
    x, draws = images(48, *shape), SimClr().draw(48, generator(0))
    views = SimClr().apply(x, draws).unflatten(0, (2, 48))
    for view, found in enumerate(views):
        own = {name: draw[:, view] for name, draw in draws.items()}
        for i, box in enumerate(augment.boxes(own["shape"], own["crop"], *shape[1:]).int().tolist()):
            y = F.resized_crop(x[i], *box, size=list(shape[1:]), antialias=antialias).clamp(0, 1)
            y = F.hflip(y) if own["flip"][i] else y
            for operation, value in zip(own["operations"][i], own["values"][i].tolist(), strict=True):
                y = REFERENCE[JITTERED[operation]](y, value)
            torch.testing.assert_close(found[i], y, atol=1e-4, rtol=0)


def test_the_two_views_of_simclr_have_their_own_draws():
    draws = SimClr().draw(64, generator(0))
    first, second = SimClr().apply(images(), draws).chunk(2)
    assert ((first - second).flatten(1).norm(dim=1) > 1).all()
    same = {name: draw[:, :1].repeat_interleave(2, 1) for name, draw in draws.items()}  # the control
    assert torch.equal(*SimClr().apply(images(), same).chunk(2))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_draws_of_simclr_have_the_frequencies_and_ranges_of_the_paper(strength):
    draws = SimClr(strength=strength).draw(4000, generator(0))
    order, gray = draws["operations"].flatten(0, 1).split([4, 1], dim=1)
    assert [f.__name__ for f in JITTER] == ["brightness", "contrast", "saturation", "hue", "identity", "gray"]
    jittered = order[(order != augment.IDENTITY).any(1)]
    assert torch.equal(jittered.sort(1).values, torch.arange(4).expand(len(jittered), 4))
    assert len(jittered.unique(dim=0)) == 24
    assert abs(len(jittered) / 8000 - 0.8) < 0.02
    assert abs((gray == augment.GRAY).float().mean() - 0.2) < 0.02
    assert abs(draws["flip"].float().mean() - 0.5) < 0.02
    for k, (centre, change) in enumerate([(1, 0.8), (1, 0.8), (1, 0.8), (0, 0.2)]):
        values = draws["values"][draws["operations"] == k]
        assert values.min().item() == pytest.approx(centre - strength * change, abs=5e-3)
        assert values.max().item() == pytest.approx(centre + strength * change, abs=5e-3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 36), (8, 64), (64, 8), (3, 3)])
def test_crop_boxes_are_those_of_torchvisions_loop_over_attempts(height, width):
    draws = SimClr().draw(200, generator(0))
    shape, corner = draws["shape"].flatten(0, 1).double(), draws["crop"].flatten(0, 1).double()
    found = augment.boxes(shape, corner, height, width)
    for attempts, (down, across), box in zip(shape.tolist(), corner.tolist(), found.tolist(), strict=True):
        for u, v in attempts:
            area = height * width * (0.08 + (1 - 0.08) * u)
            ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * v)
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                expected = [int(down * (height - h + 1)), int(across * (width - w + 1)), h, w]
                break
        else:
            w, h = width, height
            if width / height < 3 / 4:
                h = round(width / (3 / 4))
            elif width / height > 4 / 3:
                w = round(height * (4 / 3))
            expected = [(height - h) // 2, (width - w) // 2, h, w]
        assert box == expected
    assert found.min() >= 0
    assert (found[:, :2] + found[:, 2:] <= torch.tensor([height, width])).all()
    assert len(found.unique(dim=0)) > 20


# What holds for every augmentation.


def variety(pixels: Tensor) -> int:
    """How many different images there are."""
    return len(pixels.unique(dim=0))


@pytest.mark.parametrize("name", RANDOM)
def test_every_image_has_its_own_draw(name):
    augmentation = AUGMENTATIONS[name]
    same = images(1).expand(64, -1, -1, -1).contiguous()
    draws = augmentation.draw(64, generator(0))
    assert variety(augmentation.apply(same, draws)) > 0.7 * 64 * augmentation.views
    batchwise = {
        key: draw[:1].expand_as(draw).contiguous() for key, draw in draws.items()
    }  # the control: one draw for all
    assert variety(augmentation.apply(same, batchwise)) == augmentation.views


@pytest.mark.parametrize("name", RANDOM)
def test_draws_come_from_the_generator_alone(name):
    def drawn(seed: int) -> Draws:
        return AUGMENTATIONS[name].draw(32, generator(seed, "augment", 3))

    torch.manual_seed(0)
    state, first = torch.get_rng_state(), drawn(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert all(torch.equal(draw, first[key]) for key, draw in drawn(0).items())
    assert not any(torch.equal(draw, first[key]) for key, draw in drawn(1).items())
    assert all(len(draw) == 32 and draw.device.type == "cpu" for draw in first.values())


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_ranks_that_share_images_and_draws_do_together_what_one_process_does(name):
    augmentation, x = AUGMENTATIONS[name], images(96)
    draws = augmentation.draw(96, generator(0))
    whole = augmentation.apply(x, draws).unflatten(0, (augmentation.views, 96))
    for rank in range(3):
        own = slice(32 * rank, 32 * (rank + 1))
        part = augmentation.apply(x[own], {key: draw[own] for key, draw in draws.items()})
        torch.testing.assert_close(part, whole[:, own].flatten(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 20, 36), (2, 9, 16), (4, 2, 2)])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_pixels_stay_in_the_unit_interval_and_the_images_keep_their_shape(name, shape):
    augmentation = AUGMENTATIONS[name]
    for x in (images(32, *shape), torch.ones(32, *shape), torch.zeros(32, *shape)):
        before, draws = x.clone(), augmentation.draw(32, generator(0))
        y = augmentation.apply(x, draws)
        assert (y.shape, y.dtype) == ((32 * augmentation.views, *shape), x.dtype)
        assert 0 <= y.min() <= y.max() <= 1
        assert torch.equal(x, before)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_memory_format_and_the_precision_change_nothing(name):
    augmentation, x = AUGMENTATIONS[name], images()
    draws = augmentation.draw(64, generator(0))
    y = augmentation.apply(x, draws)
    torch.testing.assert_close(augmentation.apply(x.contiguous(memory_format=torch.channels_last), draws), y)
    exact = augmentation.apply(x.double(), draws)
    assert exact.dtype == torch.float64
    assert ((exact - y).abs() > 1e-4).double().mean() < 1e-4  # a threshold or a nearest pixel, here and there


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_apply_runs_on_the_pixels_device_and_waits_for_no_value_there(name):
    augmentation = AUGMENTATIONS[name]
    pixels = torch.empty(64, 3, 32, 32, device="meta")  # has no values: to read one is an error, as is a CPU operand
    assert augmentation.apply(pixels, augmentation.draw(64, generator(0))).is_meta
    with pytest.raises(RuntimeError):  # the control
        augment.brightness(pixels, torch.ones(64, 1, 1, 1))


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_changes_nothing(name):
    augmentation, x = AUGMENTATIONS[name], images()
    draws = augmentation.draw(64, generator(0))
    y = augmentation.apply(x.cuda(), draws)
    assert y.is_cuda
    assert ((y.cpu() - augmentation.apply(x, draws)).abs() > 1e-4).float().mean() < 1e-4


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (RandAugment, {"operations": -1}, "augment.operations must be a number >= 0, got -1"),
        (RandAugment, {"magnitude": 31}, r"augment.magnitude must be one of 0, ..., 30 \(bins - 1\), got 31"),
        (RandAugment, {"magnitude": -1}, r"augment.magnitude must be one of 0, ..., 30 \(bins - 1\), got -1"),
        (RandAugment, {"bins": 1}, "augment.bins must be a number >= 2, got 1"),
        (SimClr, {"strength": -0.1}, r"augment.strength must be in \[0, 2.5\], got -0.1"),
        (SimClr, {"strength": 2.6}, r"augment.strength must be in \[0, 2.5\], got 2.6"),
        (SimClr, {"strength": math.nan}, r"augment.strength must be in \[0, 2.5\], got nan"),
    ],
)
def test_settings_out_of_range_are_refused(cls, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        cls(**settings)


def test_an_augmentation_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SimClr().strength = 0.5
