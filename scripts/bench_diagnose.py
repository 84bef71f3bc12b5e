"""How long `syre.diagnose` takes, as so many training steps of the model that it looks at."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor, nn

import syre
from scripts.bench_table import Effort, Row
from syre.extras import extra


def resnet50() -> nn.Module:
    with extra("repro"):
        from torchvision.models import resnet50

        return resnet50()


class LanguageModel(nn.Module):
    """A decoder of GPT-2's sizes: 12 layers of width 768, 12 heads, 50,257 tokens, the output tied to the embedding."""

    def __init__(self, layers: int = 12, width: int = 768, tokens: int = 50_257) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(1024, width)
        layer = nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers, self.norm = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False), nn.LayerNorm(width)

    def forward(self, words: Tensor) -> Tensor:
        x = self.tokens(words) + self.places(torch.arange(words.shape[1], device=words.device))
        mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
        return self.norm(self.layers(x, mask=mask, is_causal=True)) @ self.tokens.weight.mT


def diagnoses(effort: Effort) -> Iterator[Row]:
    """Without batches, as often as the effort says but at most three times: seconds, not milliseconds."""
    few = replace(effort, rounds=min(3, effort.rounds), seconds=0.0)
    small = {"layers": 2, "width": 128, "tokens": 1000} if effort.quick else {}
    words = torch.randint(1000, (4, 16 if effort.quick else 128))
    images, batch = torch.randn(2 if effort.quick else 8, 3, 224, 224), 2 if effort.quick else 8
    settings: list[tuple[str, nn.Module, Tensor]] = [
        (f"ResNet50, batch {batch}", resnet50(), images),
        ("GPT-2 sized, 4 x 128 words", LanguageModel(**small), words),
    ]
    for what, model, inputs in settings:
        diagnose: Callable[[], object] = lambda model=model: syre.diagnose(model)  # type: ignore[misc] # noqa: E731
        taken = few.times({"step": training_step(model, inputs), "diagnose": diagnose})
        seconds = f"{median(taken['diagnose']):.1f} s, a step {median(taken['step']):.1f} s"
        yield Row(f"syre.diagnose / a training step: {what}", taken["diagnose"] / taken["step"], "", seconds)


def training_step(model: nn.Module, inputs: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, weight_decay=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()

    return step
