"""PPO: what is collected, the update against stable-baselines3's own, syre on its optimizer, and exact resume."""

import copy
import math

import numpy as np
import pytest
import stable_baselines3
import torch

from syre.learners import Replica
from syre.optim import Adam
from syre.regularizers import Syre, WeightDecay
from syre.rl import PPO, ActorCritic, SlipperyAnt
from syre.rl.agent import Batch, _gradients_by_autograd, gradients
from syre.seeding import derive_seed
from syre.trainer import Record, Snapshot, Training
from tests.physics import BACKENDS, needs_bullet

SMALL = PPO(rollout=256, epochs=2)
STOCK = PPO(rollout=64, epochs=2, collector="stock", environments=2, normalize_advantage="batch", final_episodes=1)
SETTINGS = Training(steps=1024, batch_size=64, evaluations=2, checkpoints=1)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ant(backend="mujoco", change_every=300):
    return SlipperyAnt(backend=backend, change_every=change_every)


def replica(regularizer=None, backend="mujoco", seed=0, **model):
    regularizer, env = regularizer or WeightDecay(weight_decay=0.0), ant(backend).load(seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = ActorCritic(**{"hidden": [32, 16], **model}).build(env.input_shape, env.num_classes)
    optimizer = Adam(lr=1e-3).build(policy, regularizer.weight_decay)
    handle = regularizer.attach(optimizer, policy, seed)
    return Replica(model=policy, optimizer=optimizer, handle=handle, noise=torch.Generator().manual_seed(seed))


def agent(task=SMALL, settings=SETTINGS, backend="mujoco", **options):
    return task.agent(replica(backend=backend, **options), lambda: ant(backend).load(seed=0), settings, seed=0)


def events(task, backend="mujoco", resume=None, stop=None, seed=0, **options):
    start = replica(backend=backend, seed=seed, **options)
    return list(
        task.interact(start, lambda: ant(backend).load(seed=seed), SETTINGS, seed=seed, resume=resume, stop=stop)
    )


def rows(found):
    return [(e.step, e.split, name, v.tolist()) for e in found if isinstance(e, Record) for name, v in e.values.items()]


# ---- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1.0, 0.5])
@pytest.mark.parametrize("clip", [0.2, 0.02, None])
def test_the_written_out_gradients_are_those_of_autograd(clip, value):
    policy = replica(hidden=[32, 16]).model
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        policy.log_std.copy_(0.3 * torch.randn(8, generator=draw))
    normal = lambda *shape: torch.randn(*shape, generator=draw)  # noqa: E731
    observations, actions = normal(64, 27), normal(64, 8)
    with torch.no_grad():
        now = policy.evaluate_actions(observations, actions)[1]
    batch = Batch(observations, actions, now + 0.2 * normal(64), normal(64), normal(64))
    if clip is None:  # the ratio of one step lies on the edge
        ratio = (now - batch.log_probs).exp()
        edge = ratio.sort().values[50]
        batch.advantages[ratio == edge], clip = 1.0, edge.item() - 1
    found = []
    for compute in (gradients, _gradients_by_autograd):
        policy.zero_grad()
        row = compute(policy, batch, clip=clip, value=value, entropy=0.0)
        found.append([row, *(parameter.grad.clone() for parameter in policy.parameters())])
    assert 0.1 < found[0][0][4] < 1  # some ratios are clipped, and some are not
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)
        assert its.abs().max() > 1e-4  # control: none of them is all but zero


@pytest.mark.parametrize(("model", "entropy"), [({"gsde": True}, 0.0), ({}, 0.01)])
def test_what_the_written_out_gradients_leave_out_goes_through_autograd(model, entropy, monkeypatch):
    called = []
    monkeypatch.setattr("syre.rl.agent._gradients_by_autograd", lambda *_, **options: called.append(options["entropy"]))
    gradients(replica(**model).model, None, clip=0.2, value=1.0, entropy=entropy)
    assert called == [entropy]


# ---- the networks ----------------------------------------------------------------------------------------------------


def test_the_networks_start_as_the_borrowed_code_starts_its_own():
    policy = ActorCritic().build((27,), 8)
    layers = [m for m in policy.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [
        (27, 256),
        (256, 256),
        (27, 256),
        (256, 256),
        (256, 8),
        (256, 1),
    ]
    for layer in layers:
        assert layer.weight.abs().max() <= math.sqrt(3 / layer.in_features)
        assert not layer.bias.any()
    assert layers[1].weight.std().item() == pytest.approx(1 / 16, rel=0.02)  # LeCun's variance, 1 / fan_in
    assert not policy.log_std.any()
    other = ActorCritic(init="torch").build((27,), 8)  # control
    assert other.mlp_extractor.policy_net[2].weight.std().item() == pytest.approx(1 / 16 / math.sqrt(3), rel=0.02)


def test_syre_anchors_every_parameter_of_the_policy_and_of_the_value_function():
    start = replica(Syre(weight_decay=0.002, sigma=0.5), hidden=[256, 256])
    names = dict(start.model.named_parameters())
    assert set(start.handle.anchors) == set(names)
    assert start.handle.anchors["log_std"].std().item() == pytest.approx(0.5 / math.sqrt(8), rel=0.6)
    assert start.handle.anchors["mlp_extractor.policy_net.2.weight"].std().item() == pytest.approx(0.5 / 16, rel=0.02)


# ---- a rollout -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rollout_is_what_its_policy_did(backend):
    one = agent(backend=backend)
    noise = copy.deepcopy(one.noise.get_state())
    one.collect()
    buffer, policy = one.rollout_buffer, one.policy
    observations, actions = (torch.from_numpy(a[:, 0]).float() for a in (buffer.observations, buffer.actions))
    with torch.no_grad():
        values, log_probs, _ = policy.evaluate_actions(observations, actions)
        drawn = torch.randn(256, 8, generator=torch.Generator().set_state(noise)) * policy.log_std.exp()
        mean = policy.get_distribution(observations).distribution.mean
        assert torch.allclose(actions, mean + drawn, atol=1e-5)  # as drawn: not clipped
        assert (actions.abs() > 1).any()
    assert np.allclose(buffer.values[:, 0], values[:, 0], atol=1e-5)
    assert np.allclose(buffer.log_probs[:, 0], log_probs, atol=1e-5)

    replayed = ant(backend).load(seed=0)  # the environment, played by hand
    observation, _ = replayed.reset(seed=derive_seed(0, "environment", 0))
    for t in range(256):
        assert np.array_equal(observation, buffer.observations[t, 0])
        observation, reward, terminated, truncated, _ = replayed.step(buffer.actions[t, 0])
        assert buffer.rewards[t, 0] == np.float32(reward)
        if terminated or truncated:
            observation, _ = replayed.reset()


def test_the_time_limit_is_an_end_and_nothing_is_bootstrapped_past_it():
    """GAE by its definition, A_t = sum_k (gamma lambda)^k delta_{t+k} up to the episode's end."""
    one = agent()
    one.environments[0].max_episode_steps = 10
    one.collect()
    buffer, gamma, lam = one.rollout_buffer, 0.99, 0.95
    ends = np.append(buffer.episode_starts[1:, 0], one._last_episode_starts[0])
    assert ends[9] == 1
    with torch.no_grad():
        last = one.policy.predict_values(torch.from_numpy(one._last_obs).float()).item()
    values = np.append(buffer.values[:, 0], last)
    for t in (0, 5, 9, 10, 200, 255):
        advantage, weight = 0.0, 1.0
        for k in range(t, 256):
            advantage += weight * (buffer.rewards[k, 0] + gamma * values[k + 1] * (1 - ends[k]) - values[k])
            if ends[k]:
                break
            weight *= gamma * lam
        assert buffer.advantages[t, 0] == pytest.approx(advantage, rel=1e-4, abs=1e-4)
    assert buffer.returns[9, 0] == pytest.approx(buffer.rewards[9, 0], rel=1e-5)  # no value past the limit


# ---- the update ------------------------------------------------------------------------------------------------------


def test_the_update_is_that_of_stable_baselines3(tmp_path, monkeypatch):
    task = PPO(rollout=256, epochs=3, normalize_advantage="batch", value_coef=0.5, entropy_coef=0.01)
    settings = Training(steps=1024, batch_size=64, clip=0.5)
    ours = agent(task, settings)
    ours.collect()
    theirs = agent(task, settings)
    theirs.collect()
    orders = iter([torch.randperm(256, generator=ours.noise).numpy() for _ in range(3)])
    ours.noise.set_state(theirs.noise.get_state())
    before = [parameter.detach().clone() for parameter in ours.policy.parameters()]
    ours.update()

    monkeypatch.setattr(np.random, "permutation", lambda size: next(orders))
    theirs.clip_range, theirs.lr_schedule = (lambda _: 0.2), (lambda _: 1e-3)
    theirs.set_logger(stable_baselines3.common.logger.configure(str(tmp_path), []))
    stable_baselines3.PPO.train(theirs)
    pairs = list(zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True))
    assert max((mine - other).abs().max() for mine, other in pairs) < 1e-5
    moved = max((mine - old).abs().max() for mine, old in zip(ours.policy.parameters(), before, strict=True))
    assert moved > 1e-3  # control: the update did something


@pytest.mark.slow
def test_syre_decays_towards_its_anchors_and_not_to_zero():
    """With no advantage, no value error and no entropy the gradient is 0, and Adam follows the decay alone."""
    for regularizer, centre in ((Syre(weight_decay=0.1, sigma=1.0), True), (WeightDecay(weight_decay=0.1), False)):
        one = agent(PPO(rollout=64, epochs=1500, value_coef=0.0), regularizer=regularizer)
        one.collect()
        one.rollout_buffer.advantages[:] = 0.0
        one.update()
        name = "mlp_extractor.policy_net.0.weight"
        weight = dict(one.policy.named_parameters())[name].detach()
        anchor = replica(Syre(weight_decay=0.1, sigma=1.0)).handle.anchors[name]
        near, far = (anchor, 0 * anchor) if centre else (0 * anchor, anchor)
        assert (weight - near).abs().max() < 0.02
        assert (weight - far).abs().max() > 0.1  # control


# ---- records and resume ----------------------------------------------------------------------------------------------


def test_records_hold_return_rank_and_all_else_that_is_asked():
    found = events(SMALL)
    records = [event for event in found if isinstance(event, Record)]
    assert [(r.step, r.split) for r in records] == [(512, "train"), (512, "test"), (1024, "train"), (1024, "test")]
    assert {"loss", "loss/policy", "loss/value", "kl", "clipped"} == set(records[0].values)
    assert {
        "return",
        "length",
        "episodes",
        "friction",
        "rank",
        "rank/effective",
        "rank/stable",
        "rank/99",
        "dead",
        "weight/norm",
        "weight/mean",
        "weight/change",
    } == set(records[1].values)
    assert all(value.shape == (1,) and value.isfinite() for record in records for value in record.values.values())
    assert 0 < records[1].values["rank/99"] <= 16
    assert records[1].values["weight/change"] > 0
    assert [event.step for event in found if isinstance(event, Snapshot)] == [512]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "backend", "options"),
    [
        (SMALL, "mujoco", {"regularizer": Syre(weight_decay=0.01, sigma=0.1)}),
        pytest.param(SMALL, "pybullet", {"regularizer": Syre(weight_decay=0.01, sigma=0.1)}, marks=needs_bullet),
        pytest.param(STOCK, "pybullet", {"gsde": True, "init": "torch", "log_std": -1.0}, marks=needs_bullet),
        (STOCK, "mujoco", {}),
    ],
)
def test_four_rollouts_are_two_and_a_resume_and_two(task, backend, options, tmp_path):
    whole = events(task, backend, **options)
    first = events(task, backend, stop=lambda step, total: step >= 512, **options)
    assert isinstance(first[-1], Snapshot)
    torch.save(first[-1].state, tmp_path / "saved.pt")
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    rest = events(task, backend, resume=saved, **options)
    assert rows(first) + rows(rest) == rows(whole)
    assert rows(events(task, backend, seed=1, **options)) != rows(whole)  # control


def test_training_that_is_no_longer_finite_ends_with_a_record_that_says_so():
    start = replica()
    with torch.no_grad():
        start.model.value_net.weight.fill_(math.nan)
    found = list(SMALL.interact(start, lambda: ant().load(seed=0), SETTINGS, seed=0))
    assert [type(event) for event in found] == [Record, Record]
    assert found[0].step == 256
    assert found[0].values["loss"].isnan().all()


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"collector": "duo"}, "task.collector must be one of solo, stock, got 'duo'"),
        ({"environments": 2}, "task.environments > 1 needs task.collector=stock"),
        ({"gamma": 1.0}, r"task.gamma must be a fraction in \[0, 1\), got 1.0"),
        ({"rollout": 0}, "task.rollout must be a number > 0, got 0"),
        ({"normalize_advantage": "no"}, "task.normalize_advantage must be one of rollout, batch, got 'no'"),
    ],
)
def test_bad_settings_are_named(settings, line):
    with pytest.raises(ValueError, match=line):
        PPO(**settings)


def test_what_the_loop_does_not_do_is_refused():
    env = ant().load()
    with pytest.raises(ValueError, match=r"model.gsde=true needs task.collector=stock"):
        SMALL.accept(replica(gsde=True).model, env, SETTINGS)
    STOCK.accept(replica(gsde=True).model, env, SETTINGS)  # control
    with pytest.raises(ValueError, match=r"PPO has train.schedule=constant only, got cosine"):
        SMALL.accept(replica().model, env, Training(steps=1, schedule="cosine"))
    with pytest.raises(ValueError, match=r"PPO takes train.steps, .* with train.epochs=0"):
        SMALL.accept(replica().model, env, Training(epochs=1))
    SMALL.accept(replica().model, env, SETTINGS)  # control
