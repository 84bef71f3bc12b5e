"""Language modelling: the loss by hand, ranks of weights whose rank is known, and two texts one after the other."""

import math
from copy import deepcopy

import pytest
import torch

from syre.batches import Batches
from syre.data import Dataset, Digits, LinearRegression
from syre.learners import Replica, learner
from syre.models import GPT, MLP
from syre.models.gpt import GPTModule
from syre.optim import Adam
from syre.regularizers import Syre, Vanilla
from syre.seeding import generator
from syre.tasks import Classification, Language
from syre.trainer import Record, Snapshot, Training, train

torch.set_num_threads(1)
VOCABULARY, CONTEXT, WIDTH, HEADS, SIZE = 11, 6, 16, 2, 8


def text(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(VOCABULARY, (count, CONTEXT + 1), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1].int(), tokens[:, 1:]


ALPHABETS = torch.stack([torch.arange(VOCABULARY), torch.arange(VOCABULARY).roll(1)])
TEXT = Dataset.of(text(24, 0), text(10, 1), num_classes=VOCABULARY)
TWO = Dataset(**vars(TEXT) | {"alphabets": ALPHABETS})


def replica_of(regularizer=None, seed: int = 0) -> Replica:
    regularizer = regularizer or Vanilla()
    torch.manual_seed(seed)
    model = GPT(width=WIDTH, depth=2, heads=HEADS).build((CONTEXT,), VOCABULARY)
    optimizer = Adam(lr=0.01, decoupled=True).build(model, regularizer.weight_decay)
    handle = regularizer.attach(optimizer, model, seed)
    return Replica(model=model, optimizer=optimizer, handle=handle, noise=generator(seed, "noise"))


def batches_of(data: Dataset, replicas: int = 1) -> Batches:
    return Batches([data] * replicas, scales=[1.0] * replicas, seeds=[*range(replicas)], batch_size=8)


def measured(replica: Replica, data: Dataset = TEXT, windows: int = 4) -> dict[str, float]:
    values = Language(windows=windows).evaluate(learner([replica]), batches_of(data), final=True)
    assert all(value.shape == (1,) for value in values.values())
    return {name: value.item() for name, value in values.items()}


def test_the_loss_is_the_mean_over_all_tokens_in_nats_and_in_bits():
    replica = replica_of()
    inputs, targets = TEXT.test_inputs, TEXT.test_targets
    logits = replica.model(inputs)
    by_hand = -logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).mean().item()
    found = measured(replica)
    assert found["loss"] == pytest.approx(by_hand, rel=1e-6)
    assert found["bits"] == pytest.approx(by_hand / math.log(2), rel=1e-6)
    assert found["accuracy"] == pytest.approx((logits.argmax(-1) == targets).double().mean().item())
    length = sum(float(p.detach().double().square().sum()) for p in replica.model.parameters()) ** 0.5
    assert found["norm"] == pytest.approx(length)
    assert Language().loss(logits, inputs, targets).item() == pytest.approx(by_hand, rel=1e-6)


def test_a_split_in_several_parts_has_the_loss_of_the_whole(monkeypatch):
    replica = replica_of()
    whole = measured(replica)
    monkeypatch.setattr("syre.batches.EVALUATION_SAMPLES", 4 * CONTEXT)  # 4, 4 and 2 windows
    assert len([*batches_of(TEXT).evaluation()]) == 3
    parts = measured(replica)
    assert parts == pytest.approx(whole, rel=1e-5)


@torch.no_grad()
def weigh(model: GPTModule, block: int, rank: int, product: str) -> None:
    """Give the product of each head of a block so many equal singular values, and no others."""
    attention = model.blocks[block].attention
    q, k, v = attention.qkv.weight.unflatten(0, (3, HEADS, SIZE))
    pairs = (q, k) if product == "query_key" else (attention.out.weight.T.unflatten(0, (HEADS, SIZE)), v)
    for a, b in zip(*pairs, strict=True):
        bases = [torch.linalg.qr(torch.randn(WIDTH, rank)).Q for _ in range(2)]
        mixed = torch.linalg.qr(torch.randn(SIZE, SIZE)).Q[:, :rank]
        for half, basis in zip((a, b), bases, strict=True):
            half.copy_(mixed @ basis.T)


@pytest.mark.parametrize("product", ["query_key", "output_value"])
def test_ranks_of_heads_are_those_of_weights_of_known_rank(product):
    replica, other = replica_of(), {"query_key": "output_value", "output_value": "query_key"}[product]
    before = measured(replica)
    weigh(replica.model, 0, 3, product)
    weigh(replica.model, 1, 5, product)
    found = measured(replica)
    for name in ("rank", "rank/effective", "rank/stable"):
        assert found[f"{product}/{name}"] == pytest.approx(4, rel=1e-4)
        assert found[f"{other}/{name}"] == before[f"{other}/{name}"]  # control
    assert found[f"{product}/rank/effective/0"] == pytest.approx(3, rel=1e-4)
    assert found[f"{product}/rank/effective/1"] == pytest.approx(5, rel=1e-4)
    assert before[f"{product}/rank"] == SIZE


@torch.no_grad()
def test_the_rank_of_the_residual_stream_is_that_of_what_is_written_into_it():
    replica = replica_of()
    model = replica.model
    for name, parameter in model.named_parameters():
        if name.startswith("blocks"):
            parameter.zero_()
    model.positions.weight.zero_()
    model.tokens.weight.copy_(torch.randn(VOCABULARY, 3) @ torch.eye(3, WIDTH))
    first = measured(replica, windows=10)
    assert first["rank"] == 3
    assert 1 < first["rank/effective"] <= 3
    assert first["rank/effective/0"] == first["rank/effective/1"] == first["rank/effective"]
    model.blocks[1].mlp[2].bias.copy_(torch.eye(WIDTH)[5])  # the last block adds a direction of its own
    second = measured(replica, windows=10)
    assert second["rank"] == 4
    assert second["rank/effective/0"] == first["rank/effective/0"]


def test_a_network_that_diverged_has_nan_and_no_error():
    replica = replica_of()
    with torch.no_grad():
        replica.model.blocks[0].attention.qkv.weight.fill_(torch.nan)
    found = measured(replica)
    assert all(math.isnan(found[name]) for name in ("loss", "rank", "query_key/rank/effective", "norm"))


# ---- two texts, one after the other ----------------------------------------------------------------------------------

SETTINGS = Training(steps=12, batch_size=8, schedule="cosine", warmup=0.25, restart=True, evaluations=4, checkpoints=3)


def test_the_records_are_of_the_text_in_training():
    replica = replica_of()
    events = [*train(learner([replica]), Language(), batches_of(TWO), SETTINGS)]
    tests = [e for e in events if isinstance(e, Record) and e.split == "test"]
    assert [event.step for event in tests] == [0, 3, 6, 9, 12]
    batches = batches_of(TWO)
    batches.stage = 1
    value = Language().evaluate(learner([replica]), batches, final=True)["loss"]
    assert torch.equal(tests[-1].values["loss"], value)
    assert value != Language().evaluate(learner([replica]), batches_of(TWO), final=True)["loss"]  # control


@pytest.mark.parametrize("at", [3, 6, 9])
def test_a_run_resumes_bit_for_bit_before_at_and_after_the_second_text(at):
    syre = Syre(weight_decay=0.5, sigma=1.0)
    team, events = learner([replica_of(syre)]), []
    for event in train(team, Language(), batches_of(TWO), SETTINGS):
        events.append(deepcopy(event) if isinstance(event, Snapshot) else event)
    (snapshot,) = (e for e in events if isinstance(e, Snapshot) and e.step == at)
    again = learner([replica_of(syre)])
    rest = [*train(again, Language(), batches_of(TWO), SETTINGS, resume=snapshot.state)]
    records = [event for event in rest if isinstance(event, Record)]
    whole = [event for event in events if isinstance(event, Record)][-len(records) :]
    for mine, its in zip(whole, records, strict=True):
        assert all(torch.equal(mine.values[name], its.values[name]) for name in mine.values)
    assert all(torch.equal(weight, again.parameters()[name]) for name, weight in team.parameters().items())


# ---- what does not fit -----------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_one_line():
    gpt, mlp, settings = replica_of().model, MLP(hidden=[4]).build((CONTEXT,), VOCABULARY), Training(steps=1)
    Language().accept(gpt, TEXT, settings)
    for data in (Digits().load(), LinearRegression(samples=20, test_samples=10).load(), object()):
        with pytest.raises(ValueError, match=r"task=language needs text \(data=text\)"):
            Language().accept(gpt, data, settings)
    with pytest.raises(ValueError, match=r"needs a model that gives next tokens \(model=gpt\), MLPModule gives logits"):
        Language().accept(mlp, TEXT, settings)
    with pytest.raises(ValueError, match=r"needs one target a sample; text .* is for task=language"):
        Classification().accept(mlp, TEXT, settings)
