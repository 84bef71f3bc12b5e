"""Models of torchvision and timm as they come, with random weights."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from syre.checks import Rule, among, at_least, check
from syre.extras import extra, needed
from syre.models.base import Architecture, Model
from syre.models.layers import channels_last


class StockModule(Model):
    """A network of a library that ends in a linear layer, its parameters under the names that they have there.

    Args:
        net: takes images and gives logits.
        outputs: how many logits.
        size: pixels of each side, to which images are enlarged first; 0: they stay as they are.
    """

    gives = "logits"

    def __init__(self, net: nn.Module, outputs: int, size: int) -> None:
        super().__init__()
        self.net, self.size, self.last = net, size, last_layer(net, outputs)
        for module in net.modules():
            silence(module)

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [batch, outputs] of images [batch, channels, height, width]; with `features`, also what the last
        layer reads [batch, width]."""
        if self.size:
            x = nn.functional.interpolate(x, size=(self.size, self.size), mode="bilinear")
        if not features:
            return self.net(x)
        read: list[Tensor] = []
        hook = self.net.get_submodule(self.last).register_forward_pre_hook(lambda layer, inputs: read.append(inputs[0]))
        try:
            return self.net(x), read[-1]
        finally:
            hook.remove()


def last_layer(net: nn.Module, outputs: int) -> str:
    """The name of the linear layer that gives the logits. Raises: ValueError for a network that ends otherwise."""
    widths = {name: module.out_features for name, module in net.named_modules() if isinstance(module, nn.Linear)}
    last = list(widths)[-1] if widths else ""
    wrong = f"model.network must end in a linear layer, and give nothing but logits: {type(net).__name__} does not"
    check(widths.get(last) == outputs and not getattr(net, "aux_logits", False), wrong)
    return last


def silence(module: nn.Module) -> None:
    """Switch dropout and the like off: it draws from torch's global generator, which no run may do."""
    drops = any(word in type(module).__name__.lower() for word in ("drop", "stochastic"))
    for name, value in vars(module).items():
        if isinstance(value, float) and ("drop" in name or (drops and name == "p")):
            setattr(module, name, 0.0)


def _torchvision(network: str, channels: int, outputs: int, size: int) -> nn.Module:
    with extra("repro"):
        from torchvision import models

    known = models.list_models(models)
    check(network in known, f"model.network must be one of {', '.join(known)}, got {network!r}")
    check(channels == 3, f"a model of torchvision takes images of 3 channels, not {channels}")
    return _sized(models.get_model, network, {"image_size": size}, weights=None, num_classes=outputs)


def _timm(network: str, channels: int, outputs: int, size: int) -> nn.Module:
    with needed("`make diagnostics` builds .venv-frameworks, which has it, and runs there"):
        import timm

    check(timm.is_model(network), f"model.network must be one of timm.list_models(), got {network!r}")
    settings = {"pretrained": False, "num_classes": outputs, "in_chans": channels}
    return _sized(timm.create_model, network, {"img_size": size}, **settings)


def _sized(create: Any, network: str, size: dict[str, int], **settings: Any) -> nn.Module:
    """A network for images of a size; one that takes no size takes images of any."""
    try:
        return create(network, **size, **settings)
    except TypeError:
        return create(network, **settings)


LIBRARIES = {"torchvision": _torchvision, "timm": _timm}


@dataclass(frozen=True, kw_only=True)
class Stock(Architecture):
    """A model of torchvision or timm by its name there, without pretrained weights and without dropout."""

    library: str = "torchvision"
    network: str = "resnet18"
    size: int = 0
    ranges: ClassVar[dict[str, Rule]] = {"library": among(*LIBRARIES), "size": at_least}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> StockModule:
        square = len(input_shape) == 3 and input_shape[1] == input_shape[2]
        check(square, f"a model of {self.library} takes square images, not inputs of shape {input_shape}")
        channels, size = input_shape[0], self.size or input_shape[-1]
        net = LIBRARIES[self.library](self.network, channels, outputs, size)
        return StockModule(channels_last(net), outputs, self.size)
