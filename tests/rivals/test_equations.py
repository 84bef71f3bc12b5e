"""Each rival does what its paper's equation says, computed here once more and by itself; each with a control."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from syre.models import MLP, ContinualCNN
from syre.regularizers import Regularizer
from syre.rivals import ContinualBackprop, Noisy, Redo, SelfNormalizedResets, Spectral, WeightClipping
from syre.seeding import generator

torch.set_num_threads(1)
SHAPE, CLASSES, BATCH = (2, 8, 8), 3, 16
CNN = ContinualCNN(channels=[3, 4], kernel=3, padding=1, hidden=9)
NETWORKS = {
    "mlp": MLP(hidden=[7, 5]),
    "cnn": CNN,
    "cnn with norms": ContinualCNN(channels=[3, 4], kernel=3, padding=1, hidden=9, norm="layer"),
}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


def resting(parameters: Any) -> Optimizer:
    """It leaves the weights where they are."""
    return torch.optim.SGD(parameters, lr=0.0, momentum=0.9)


def network(name: str = "mlp") -> nn.Module:
    torch.manual_seed(0)
    if name == "one layer":
        return MLP(hidden=[5]).build(SHAPE, CLASSES).double()
    return NETWORKS[name].build(SHAPE, CLASSES).double()


def batch(step: int, size: int = BATCH) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(step)
    x = torch.randn(size, *SHAPE, generator=stream, dtype=torch.float64)
    return x, torch.randint(CLASSES, (size,), generator=stream)


def gradients(model: nn.Module, step: int) -> None:
    x, y = batch(step)
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()


def stepped(model: nn.Module, optimizer: Optimizer, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        gradients(model, step)
        optimizer.step()


def attached(rival: Regularizer, model: nn.Module, make: Callable[..., Optimizer] = resting) -> tuple[Optimizer, Any]:
    rival.prepare(model, 0)
    optimizer = make(model.parameters())
    return optimizer, rival.attach(optimizer, model, 0)


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What the units put out, layer by layer, [batch, units, positions], by hand."""
    if hasattr(model, "layers"):
        h, found = x.flatten(1), []
        for layer in model.layers[:-1]:
            h = (h @ layer.weight.T + layer.bias).relu()
            found.append(h.unsqueeze(2))
        return found
    found = []
    for block in model.blocks:
        x = nn.functional.max_pool2d(block.norm(block.conv(x)), 2).relu()
        found.append(x.flatten(2))
    return [*found, model.norm(model.hidden(x.flatten(1))).relu().unsqueeze(2)]


def layers(model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Each hidden layer and the one that reads it."""
    if hasattr(model, "layers"):
        return list(zip(model.layers[:-1], model.layers[1:], strict=True))
    convolutions = [block.conv for block in model.blocks]
    return list(zip([*convolutions, model.hidden], [*convolutions[1:], model.hidden, model.output], strict=True))


def outgoing(reader: nn.Module, count: int) -> Tensor:
    """The weights that read each unit, [units, ...]."""
    if isinstance(reader, nn.Conv2d):
        return reader.weight.detach().transpose(0, 1).flatten(1)
    return reader.weight.detach().T.reshape(count, -1)


def replaced(model: nn.Module) -> list[list[int]]:
    """The units of each layer that nothing reads."""
    pairs = [(layer.weight.shape[0], reader) for layer, reader in layers(model)]
    return [(outgoing(reader, n) == 0).all(1).nonzero().flatten().tolist() for n, reader in pairs]


# ---- what a replacement does ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_replaced_units_are_drawn_anew_and_nothing_else_is_touched(name, make):
    plain, model = network(name), network(name)
    optimizers = [make(plain.parameters()), attached(Redo(threshold=0.7, period=3), model, make)[0]]
    for one, optimizer in zip((plain, model), optimizers, strict=True):
        stepped(one, optimizer, 3)
    touched = {path: torch.zeros_like(p, dtype=torch.bool) for path, p in model.named_parameters()}
    units_of = replaced(model)
    assert any(units_of)
    for k, ((layer, reader), units) in enumerate(zip(layers(model), units_of, strict=True)):
        paths = {module: path for path, module in model.named_modules()}
        written = [paths[layer]]
        if name == "cnn with norms":
            written.append(f"blocks.{k}.norm" if k < 2 else "norm")
            norm = model.get_submodule(written[-1])
            assert (norm.weight[units] == 1).all()
            assert (norm.bias[units] == 0).all()
        for path in written:
            touched[f"{path}.weight"][units] = touched[f"{path}.bias"][units] = True
        columns = torch.arange(reader.weight.shape[1]).view(len(layer.weight), -1)[units].flatten()
        touched[f"{paths[reader]}.weight"][:, columns] = True
        assert (layer.weight[units].abs() <= layer.weight[0].numel() ** -0.5).all()
        assert (reader.weight[:, columns] == 0).all()
        assert (layer.weight[units] != 0).flatten(1).any(1).all()
    for path, weight in model.named_parameters():
        mine, changed = plain.get_parameter(path), touched[path]
        assert torch.equal(weight[~changed], mine[~changed])
        assert (weight[changed] != mine[changed]).all()
        for state in optimizers[1].state[weight].values():
            if torch.is_tensor(state) and state.shape == weight.shape:
                assert (state[changed] == 0).all()
                assert (state[~changed] != 0).any() or changed.all()  # control


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rival", [Redo(threshold=0.0, period=1), SelfNormalizedResets(window=1)], ids=["redo", "snr"])
def test_a_dead_unit_is_replaced_and_the_function_stays_but_for_a_layer_norm(rival, name):
    model, x = network(name), batch(0)[0]
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d) and len(layer.weight) > CLASSES:
                layer.weight[1], layer.bias[1] = 0.0, -1.0  # dead
        if "norms" in name:
            for norm in [model.norm, *(block.norm for block in model.blocks)]:
                norm.weight[1], norm.bias[1] = 0.0, -1.0
    weights, before = copies(model), model(x)
    optimizer, _ = attached(rival, model)
    stepped(model, optimizer, 1)
    sizes = [len(layer.weight) for layer, _ in layers(model)]
    assert all(1 in units for units, size in zip(replaced(model), sizes, strict=True) if size > CLASSES)
    if "norms" in name:  # whose means are over all units, the new ones too
        assert (model(x) - before).abs().max() > 1e-3
        return
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-12)
    layer, reader = layers(model)[-1]
    assert (layer.weight[1] != 0).any()  # alive again
    alive = outputs(network(name), x)[-1].mean((0, 2)).argmax()
    model.load_state_dict(weights, strict=False)
    with torch.no_grad():
        reader.weight[:, alive] = 0
    assert (model(x) - before).abs().max() > 1e-3  # control: of a live one


# ---- redo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("threshold", [0.2, 0.7])
def test_redo_replaces_the_units_below_the_threshold_in_every_period_th_step(name, threshold):
    model = network(name)
    optimizer, _ = attached(Redo(threshold=threshold, period=4), model)
    stepped(model, optimizer, 3)
    assert not any(replaced(model))  # control: not due
    activity = [h.abs().mean((0, 2)) for h in outputs(model, batch(3)[0])]
    expected = [(s / s.mean() <= threshold).nonzero().flatten().tolist() for s in activity]
    stepped(model, optimizer, 1, first=3)
    assert replaced(model) == expected
    assert any(expected) or threshold < 0.5
    assert expected != [(s / s.mean() <= 1.0).nonzero().flatten().tolist() for s in activity]  # control


def test_redo_looks_at_all_parts_of_a_batch_and_at_no_evaluation():
    expected, model = network(), network()
    stepped(expected, attached(Redo(threshold=0.7, period=1), expected)[0], 1)
    optimizer, handle = attached(Redo(threshold=0.7, period=1), model)
    model(batch(5)[0].mul(0).requires_grad_())  # control: this would count, were it not taken back
    handle._seen, handle._samples = [None] * 2, [0] * 2
    model.eval()(batch(6)[0])
    with torch.no_grad():
        model.train()(batch(7)[0])
    x, y = batch(0)
    for part in (slice(0, 4), slice(4, BATCH)):  # parts of unequal size
        nn.functional.cross_entropy(model(x[part]), y[part]).backward()
    optimizer.step()
    assert replaced(model) == replaced(expected) != [[], []]


# ---- continual backprop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("rate", "maturity"), [(0.1, 2), (0.03, 0)])
def test_continual_backprop_replaces_the_least_useful_mature_units(name, rate, maturity):
    """Its numbers once more, in plain loops, from what the units put out and the weights after each step."""
    model, decay = network(name), 0.9
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    after: dict[int, list[Tensor]] = {}  # of each layer: what reads it, [units, pixels, readers], and the reader's bias

    def keep(*_: object) -> None:
        for k, (layer, reader) in enumerate(layers(model)):
            n, weight = len(layer.weight), reader.weight.detach().transpose(0, 1)
            by_pixel = weight.reshape(n, -1, weight.shape[1]) if weight.dim() == 2 else weight.flatten(1).unsqueeze(1)
            after[k] = [by_pixel.clone(), reader.bias.detach().clone()]

    optimizer.register_step_post_hook(keep)  # before the rival's own, which follows it
    ContinualBackprop(rate=rate, maturity=maturity, decay=decay).attach(optimizer, model, 0)
    sizes = [len(layer.weight) for layer, _ in layers(model)]
    utility, age = [[0.0] * n for n in sizes], [[0] * n for n in sizes]
    mean: list[Any] = [[0.0] * n for n in sizes]
    owed, ever, most = [0.0] * len(sizes), 0, 0.0
    for step in range(24):
        seen = [h.detach() for h in outputs(model, batch(step)[0])]
        stepped(model, optimizer, 1, first=step)
        for k, (_, reader) in enumerate(layers(model)):
            pixels = isinstance(reader, nn.Linear)  # whether its reader tells the pixels of a channel apart
            h = seen[k] if pixels else seen[k].mean(2, keepdim=True)
            size = seen[k].abs() if pixels else seen[k].abs().mean(2, keepdim=True)
            weights, bias = after[k]
            for i in range(sizes[k]):
                contribution = sum(float(size[:, i, p].mean() * weights[i, p].abs().sum()) for p in range(h.shape[2]))
                utility[k][i] = decay * utility[k][i] + (1 - decay) * contribution
                mean[k][i] = decay * mean[k][i] + (1 - decay) * h[:, i].mean(0)
                age[k][i] += 1
            mature = [i for i in range(sizes[k]) if age[k][i] > maturity]
            owed[k] += rate * len(mature)
            number = int(owed[k])
            owed[k] -= number
            corrected = {i: utility[k][i] / (1 - decay ** age[k][i]) for i in mature}
            least = sorted(mature, key=corrected.__getitem__)[:number]
            now = outgoing(reader, sizes[k])
            were = {i for i in range(sizes[k]) if (after[k][0][i] == 0).all()}
            assert {i for i in range(sizes[k]) if (now[i] == 0).all()} == were | set(least)
            if least:
                moved = torch.zeros_like(bias)
                for i in least:
                    corrected_mean = mean[k][i] / (1 - decay ** age[k][i])
                    for p in range(h.shape[2]):
                        read = weights[i, p].view(len(bias), -1).sum(1)
                        moved += corrected_mean[p] * read
                    utility[k][i], age[k][i], mean[k][i] = 0.0, 0, 0.0
                later = replaced(model)[k + 1] if k + 1 < len(sizes) else []
                kept = [j for j in range(len(bias)) if j not in later]
                torch.testing.assert_close(reader.bias.detach()[kept], (bias + moved)[kept], rtol=0, atol=1e-10)
                most = max(most, float(moved.abs().max()))
                ever += len(least)
    assert ever > 3
    assert most > 1e-4  # control


def test_what_a_constant_unit_gave_moves_to_the_next_bias():
    """So the function stays; without it, it would not."""
    model, x = network("one layer"), batch(100)[0]
    with torch.no_grad():
        ((layer, reader),) = layers(model)
        layer.weight[2], layer.bias[2] = 0.0, 3.0
        reader.weight[:, 2] = 1e-3
    before, bias = model(x), reader.bias.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    ContinualBackprop(rate=0.05, maturity=2).attach(optimizer, model, 0)
    while not any(replaced(model)):
        stepped(model, optimizer, 1)
    assert replaced(model) == [[2]]
    torch.testing.assert_close(reader.bias - bias, torch.full_like(bias, 3e-3), rtol=1e-9, atol=0)  # control: not 0
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-10)


# ---- self-normalized resets ------------------------------------------------------------------------------------------


class Firing:
    """A network whose hidden unit i fires if, and only if, input i is positive; set so again before each step."""

    def __init__(self, units: int) -> None:
        self.model = MLP(hidden=[units]).build((units,), 2).double()
        self.restore()

    def restore(self) -> None:
        with torch.no_grad():
            self.model.layers[0].weight.copy_(torch.eye(len(self.model.layers[0].weight)))
            self.model.layers[0].bias.zero_()
            self.model.layers[1].weight.fill_(1.0)

    def step(self, optimizer: Optimizer, fires: Tensor) -> list[int]:
        """The units that were replaced, after a batch in which unit i fires, or not, for one sample."""
        x = -torch.ones(3, len(fires), dtype=torch.float64)
        x[1] = torch.where(fires, 1.0, -1.0)
        self.model(x).sum().backward()
        optimizer.step()
        found = replaced(self.model)[0]
        self.restore()
        return found


@pytest.mark.parametrize("rejection", [0.05, 0.3])
def test_self_normalized_resets_replace_what_is_silent_for_too_long(rejection):
    """The same in lists: every silence, percentiles by counting."""
    window, units = 20, 12
    rates = torch.linspace(0.02, 0.95, units)
    network = Firing(units)
    optimizer = torch.optim.SGD(network.model.parameters(), lr=0.0)
    SelfNormalizedResets(rejection=rejection, window=window).attach(optimizer, network.model, 0)
    age, limit, noted = [0] * units, [window] * units, [[] for _ in range(units)]
    total, fixed = 0, 0
    for step in range(1, 15 * window + 1):
        fires = torch.rand(units) < rates
        expected = []
        for i in range(units):
            if fires[i]:
                noted[i].append(age[i])
                age[i] = 0
            else:
                age[i] += 1
            if age[i] >= limit[i]:
                expected.append(i)
                noted[i].append(age[i])
                age[i] = 0
        assert network.step(optimizer, fires) == expected
        total += len(expected)
        fixed += sum(a >= window for a in age)
        if step % window == 0:
            for i in range(units):
                times = sorted(t for t in noted[i] if t > 0)
                rank = next((k for k in range(1, len(times) + 1) if k >= (1 - rejection) * len(times)), 0)
                percentile = times[rank - 1] if times else 1
                limit[i] = min(max(percentile if percentile < limit[i] else 2 * limit[i], 1), 2 * window)
            noted = [[] for _ in range(units)]
    assert total > 20
    assert len(set(limit)) > 3  # control: each has its own


# ---- weight clipping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_weight_clipping_clips_weights_and_biases_by_their_fan_in(name, make):
    model, bound = network(name), 0.7
    optimizer = make(model.parameters())
    kept: dict[str, Tensor] = {}
    optimizer.register_step_post_hook(lambda *_: kept.update(copies(model)))
    WeightClipping(bound=bound).attach(optimizer, model, 0)
    stepped(model, optimizer, 3)
    clipped = 0
    for part, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            expected = kept[f"{part}.{leaf}"]
            if isinstance(module, nn.Linear | nn.Conv2d):
                limit = bound / module.weight[0].numel() ** 0.5
                clipped += int((expected.abs() > limit).sum())
                expected = expected.clamp(-limit, limit)
            torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=0)
    assert clipped > 20  # control


def test_a_wide_bound_clips_nothing():
    plain, model = network(), network()
    stepped(plain, OPTIMIZERS["sgd"](plain.parameters()), 5)
    stepped(model, attached(WeightClipping(bound=1e3), model, OPTIMIZERS["sgd"])[0], 5)
    torch.testing.assert_close(copies(model), copies(plain), rtol=0, atol=0)


# ---- spectral regularization -----------------------------------------------------------------------------------------


def penalty(model: nn.Module, k: int) -> Tensor:
    """By singular values."""
    total = torch.zeros((), dtype=torch.float64)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            sigma = torch.linalg.svdvals(module.weight.flatten(1))[0]
            total = total + (sigma**k - 1) ** 2 + module.bias.norm() ** (2 * k)
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            sigma = torch.linalg.svdvals(module.weight.diag())[0]
            total = total + (sigma**k - 1) ** 2 + module.bias.norm() ** (2 * k)
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_spectral_adds_the_gradient_of_its_penalty(name):
    model, strength = network(name), 0.3
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm | nn.GroupNorm):
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    optimizer, _ = attached(Spectral(strength=strength), model)
    stepped(model, optimizer, 400)  # of the power iteration: the weights stay
    gradients(model, 7)
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    optimizer.step()
    added = {name: parameter.grad - plain[name] for name, parameter in model.named_parameters()}
    for k, right in ((2, True), (1, False)):  # the other is a control
        expected = torch.autograd.grad(strength * penalty(model, k), list(model.parameters()))
        close = [torch.allclose(a, b, rtol=0, atol=1e-7) for a, b in zip(added.values(), expected, strict=True)]
        assert all(close) if right else not any(close)


def test_its_first_step_knows_the_singular_vectors_already():
    """To a per mille, of the matrix whose first two singular values are the nearest."""
    model = network()
    optimizer, _ = attached(Spectral(strength=1.0), model)
    gradients(model, 0)
    plain = model.layers[1].weight.grad.clone()
    optimizer.step()
    u, s, v = torch.linalg.svd(model.layers[1].weight.detach())
    expected = 4 * s[0] * (s[0] ** 2 - 1) * torch.outer(u[:, 0], v[0])
    assert (model.layers[1].weight.grad - plain - expected).norm() < 0.05 * expected.norm()


def test_spectral_brings_the_largest_singular_values_to_one_and_the_biases_to_zero():
    model = network("cnn")
    optimizer, _ = attached(Spectral(strength=1.0), model, lambda p: torch.optim.SGD(p, lr=0.02))
    before = penalty(model, 2).item()
    for _ in range(600):
        optimizer.zero_grad(set_to_none=False)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert before > 0.1  # control
    assert penalty(model, 2).item() < 1e-3


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_noisy_adds_a_stream_of_its_own_to_every_gradient():
    model, std = network("cnn"), 0.3
    optimizer, _ = attached(Noisy(std=std), model)
    stream = generator(0, "noisy")
    found = []
    for step in range(3):
        gradients(model, step)
        plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        optimizer.step()
        for name, parameter in model.named_parameters():
            xi = torch.randn(parameter.shape, generator=stream, dtype=torch.float64)
            torch.testing.assert_close(parameter.grad, plain[name] + std * xi, rtol=0, atol=1e-15)
        found.append(torch.cat([(p.grad - plain[name]).flatten() for name, p in model.named_parameters()]))
    assert not torch.equal(found[0], found[1])  # control
    xi = torch.cat(found) / std
    assert abs(xi.mean()) < 4 / len(xi) ** 0.5
    assert abs(xi.std() - 1) < 4 / (2 * len(xi)) ** 0.5


@pytest.mark.parametrize("rival", [Noisy(std=0.0), Spectral(strength=0.0)], ids=["noisy", "spectral"])
def test_at_strength_zero_nothing_is_added(rival):
    plain, model = network(), network()
    stepped(plain, OPTIMIZERS["adam"](plain.parameters()), 3)
    stepped(model, attached(rival, model, OPTIMIZERS["adam"])[0], 3)
    torch.testing.assert_close(copies(model), copies(plain), rtol=0, atol=0)


@pytest.mark.parametrize("rival", [Noisy(std=0.1), Spectral(strength=0.1)], ids=["noisy", "spectral"])
def test_a_step_with_a_closure_adds_it_too(rival):
    plain, model = network(), network()
    optimizer, _ = attached(rival, plain, OPTIMIZERS["adam"])
    stepped(plain, optimizer, 3)
    optimizer, _ = attached(rival, model, OPTIMIZERS["adam"])
    for step in range(3):

        def closure(step: int = step) -> None:
            gradients(model, step)

        optimizer.step(closure)
    torch.testing.assert_close(copies(model), copies(plain), rtol=0, atol=0)
    bare = network()
    stepped(bare, OPTIMIZERS["adam"](bare.parameters()), 3)
    assert any(not torch.equal(w, copies(bare)[name]) for name, w in copies(model).items())  # control


@pytest.mark.parametrize("rival", [Noisy(), Spectral()], ids=["noisy", "spectral"])
def test_an_optimizer_that_climbs_is_refused(rival):
    model = network()
    with pytest.raises(ValueError, match="maximize=True climbs"):
        rival.attach(torch.optim.SGD(model.parameters(), lr=0.1, maximize=True), model, 0)


@pytest.mark.parametrize("rival", [Noisy(std=0.1), Spectral(strength=0.1), WeightClipping(bound=0.1)])
def test_the_scope_says_on_what_it_acts(rival):
    kind = type(rival)
    settings = {name: getattr(rival, name) for name in ("std", "strength", "bound") if hasattr(rival, name)}
    whole, matrices, plain = network("cnn"), network("cnn"), network("cnn")
    for model, scope in ((whole, "all"), (matrices, "matrices")):
        optimizer, _ = attached(kind(**settings, scope=scope), model, OPTIMIZERS["sgd"])
        gradients(model, 0)
        optimizer.step()
    stepped(plain, OPTIMIZERS["sgd"](plain.parameters()), 1)
    for name, weight in copies(matrices).items():
        assert torch.equal(weight, copies(plain)[name]) == (weight.dim() < 2)
        assert not torch.equal(copies(whole)[name], copies(plain)[name])


def test_copies_of_a_unit_come_apart_under_noise_alone():
    """Joudaki et al.: on the manifold of equal units a gradient holds them; noise does not."""
    distances = []
    for rival in (Noisy(std=0.0), Noisy(std=0.1)):
        torch.manual_seed(0)
        model = MLP(hidden=[6]).build(SHAPE, CLASSES).double()
        model.collapse(3)
        stepped(model, attached(rival, copy.copy(model), OPTIMIZERS["sgd"])[0], 5)
        distances.append((model.layers[0].weight[0] - model.layers[0].weight[1]).norm().item())
    assert distances[0] < 1e-12 < 1e-3 < distances[1]
