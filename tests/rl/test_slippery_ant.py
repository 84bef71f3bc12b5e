"""The environments: what gymnasium asks of them, friction as physics says, and a life that goes on exactly."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from syre.data import DataError
from syre.rl import Friction, SlipperyAnt
from syre.rl.slippery_ant import BACKENDS as IDS
from tests.physics import BACKENDS, needs_bullet

GRAVITY = {"mujoco": 9.81, "pybullet": 9.8}


def play(env, steps, rng):
    """Observations, rewards, ends and friction over so many steps, resets included."""
    seen = []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 8).astype(np.float32))
        seen.append([*observation.tolist(), reward, terminated, truncated, env.coefficient])
        if terminated or truncated:
            seen.append(env.reset()[0].tolist())
    return seen


# ---- gymnasium -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(
    "ignore:.*observation space m.*imum value:UserWarning", "ignore:.*seed. function:UserWarning"
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gymnasium_accepts_the_registered_environments(backend):
    env = gymnasium.make(IDS[backend], friction=Friction(change_every=100))
    check_env(env.unwrapped, skip_render_check=True)


def test_the_mujoco_ant_is_the_stock_one_bit_for_bit():
    from gymnasium.envs.mujoco.ant_v4 import AntEnv

    ours, stock = SlipperyAnt(backend="mujoco", change_every=0).load(), AntEnv()
    rng, ended = np.random.default_rng(0), 0
    for episode in range(3):
        first = ours.reset(seed=episode)[0]
        assert np.array_equal(first, stock.reset(seed=episode)[0])
        for _ in range(200):
            action = rng.uniform(-1.5, 1.5, 8).astype(np.float32)
            mine, theirs = ours.step(action), stock.step(action)
            assert np.array_equal(mine[0], theirs[0])
            assert mine[1:3] == theirs[1:3]
            assert mine[4] == theirs[4]
            if mine[2]:
                ended += 1
                assert np.array_equal(ours.reset()[0], stock.reset()[0])
        assert not np.array_equal(mine[0], first)  # control: what is observed does change
    assert ended  # control: some episodes end early


@needs_bullet
def test_the_bullet_ant_is_the_stock_one_bit_for_bit():
    from pybullet_envs_gymnasium.gym_locomotion_envs import AntBulletEnv

    ours, stock = SlipperyAnt(backend="pybullet", change_every=0).load(), AntBulletEnv()
    stock.reset(seed=0)  # its first episode, whose scene has no floor yet, differs from all others
    rng = np.random.default_rng(0)
    for episode in range(3):
        first = ours.reset(seed=episode)[0]
        assert np.array_equal(first, stock.reset(seed=episode)[0])
        for _ in range(200):
            action = rng.uniform(-1.5, 1.5, 8).astype(np.float32)
            mine, theirs = ours.step(action), stock.step(action)
            assert np.array_equal(mine[0], theirs[0])
            assert mine[1:3] == theirs[1:3]
        assert not np.array_equal(mine[0], first)  # control: what is observed does change


# ---- friction --------------------------------------------------------------------------------------------------------


def test_friction_is_log_uniform_and_a_function_of_seed_and_number():
    friction = Friction(seed=3, low=0.02, high=2, change_every=1)
    drawn = np.log([friction.coefficient(k) for k in range(2000)])
    uniform = (drawn - np.log(0.02)) / np.log(100)
    assert uniform.min() >= 0
    assert uniform.max() <= 1
    assert np.allclose(np.quantile(uniform, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.04)
    assert friction.coefficient(7) == Friction(seed=3, low=0.02, high=2, change_every=1).coefficient(7)
    assert friction.coefficient(7) != Friction(seed=4, low=0.02, high=2, change_every=1).coefficient(7)  # control


@pytest.mark.parametrize("backend", BACKENDS)
def test_friction_changes_at_the_first_end_of_an_episode_after_its_time_and_survives_reset(backend):
    env, rng = SlipperyAnt(backend=backend, change_every=120).load(seed=1), np.random.default_rng(0)
    env.max_episode_steps, changed, inside = 50, [], []
    env.reset(seed=0)
    for _ in range(1000):
        before = env.coefficient
        _, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 8))
        inside.append(env.coefficient == before)
        if terminated or truncated:
            env.reset()
            if env.coefficient != before:
                changed.append(env.steps)
        assert touching(env) == pytest.approx(env.coefficient)
    assert all(inside)
    gaps = np.diff([0, *changed])
    assert len(changed) >= 5
    assert gaps.min() > 120
    assert gaps.max() <= 120 + 50
    assert env.changes == len(changed)


def touching(env):
    """The friction of the ant on the ground, by the rule of its physics."""
    if hasattr(env, "model"):
        return env.model.geom_friction[:, 0].max()  # of two that touch MuJoCo takes the larger
    (ground,), robot = env.ground_ids, env.robot.objects[0]
    floor = env._p.getDynamicsInfo(*ground)[1]
    links = {env._p.getDynamicsInfo(robot, link)[1] for link in range(-1, env._p.getNumJoints(robot))}
    assert len(links) == 1
    return floor * links.pop()  # Bullet multiplies


def slide(backend, coefficient, seconds, push=3.0):
    """Push an ant at rest; distance, time until it stops, and tangential over normal force while it slides."""
    env = SlipperyAnt(backend=backend, change_every=1, low=coefficient, high=coefficient).load()
    env.reset(seed=0)
    dt, advance = (_mujoco if backend == "mujoco" else _bullet)(env, push)
    rows = np.array([advance() for _ in range(round(seconds / dt))])
    distance, speed, normal, tangential = rows.T
    sliding = speed > 0.1 * push
    end = len(speed) if sliding.all() else int(np.argmin(sliding))
    return distance[-1], end * dt, tangential[:end].sum() / normal[:end].sum()


def _mujoco(env, push):
    import mujoco

    model, data, force = env.model, env.data, np.zeros(6)
    mujoco.mj_step(model, data, nstep=300)  # it comes to rest
    data.qvel[:] = 0
    data.qvel[0], start = push, data.subtree_com[1][0]

    def advance():
        mujoco.mj_step(model, data)
        mujoco.mj_subtreeVel(model, data)
        normal = tangential = 0.0
        for contact in range(data.ncon):
            mujoco.mj_contactForce(model, data, contact, force)
            normal, tangential = normal + force[0], tangential + np.hypot(force[1], force[2])
        return data.subtree_com[1][0] - start, data.subtree_linvel[1][0], normal, tangential

    return model.opt.timestep, advance


def _bullet(env, push):
    p, robot = env._p, env.robot.objects[0]
    links = range(p.getNumJoints(robot))
    mass = np.array([p.getDynamicsInfo(robot, link)[0] for link in (-1, *links)])
    for _ in range(150):  # it comes to rest
        p.stepSimulation()
    for joint in env.robot.ordered_joints:
        p.resetJointState(robot, joint.jointIndex, joint.get_position(), 0)
    p.resetBaseVelocity(robot, [push, 0, 0], [0, 0, 0])

    def centre():
        states = p.getLinkStates(robot, list(links), computeLinkVelocity=1)
        at = [p.getBasePositionAndOrientation(robot)[0][0], *(state[0][0] for state in states)]
        speed = [p.getBaseVelocity(robot)[0][0], *(state[6][0] for state in states)]
        return mass @ at / mass.sum(), mass @ speed / mass.sum()

    start = centre()[0]

    def advance():
        p.stepSimulation()
        at, speed = centre()
        contacts = p.getContactPoints(robot, next(iter(env.ground_ids))[0])
        return at - start, speed, sum(c[9] for c in contacts), sum(np.hypot(c[10], c[12]) for c in contacts)

    return env.scene.dt, advance


@pytest.mark.parametrize("backend", BACKENDS)
def test_friction_slides_as_physics_says(backend):
    """Coulomb: the tangential force is mu times the normal one, and a push of v ends after v^2 / (2 mu g)."""
    g, push = GRAVITY[backend], 3.0
    icy, _, ratio = slide(backend, 0.02, seconds=1.0)
    assert ratio == pytest.approx(0.02, rel=0.02)
    assert icy == pytest.approx(push - 0.02 * g / 2, rel=0.15)  # after a second still on its way
    rough, stopped, _ = slide(backend, 2.0, seconds=2.0)
    assert rough == pytest.approx(push**2 / (2 * 2.0 * g), rel=0.25)  # the legs give way a little
    assert stopped == pytest.approx(push / (2.0 * g), rel=0.5)
    assert icy > 5 * rough  # control


# ---- a life that goes on exactly -------------------------------------------------------------------------------------

RESUME = """
import json, sys
import numpy as np
from syre.rl import SlipperyAnt
from tests.rl.test_slippery_ant import play
backend, file = sys.argv[1:]
env = SlipperyAnt(backend=backend, change_every=300).load(seed=1)
saved = json.load(open(file))
env.load_state_dict(saved["state"])
rng = np.random.default_rng()
rng.bit_generator.state = saved["rng"]
print("\\n" + json.dumps(play(env, 400, rng)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_saved_life_goes_on_bit_for_bit_in_another_process(backend, tmp_path):
    env, rng = SlipperyAnt(backend=backend, change_every=300).load(seed=1), np.random.default_rng(0)
    env.reset(seed=5)
    play(env, 777, rng)
    assert env.elapsed > 0  # in the middle of an episode
    saved = {"state": env.state_dict(), "rng": rng.bit_generator.state}
    (tmp_path / "saved.json").write_text(json.dumps(saved))
    expected = play(env, 400, rng)
    done = subprocess.run(
        [sys.executable, "-c", RESUME, backend, str(tmp_path / "saved.json")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads(json.dumps(expected))

    other = SlipperyAnt(backend=backend, change_every=300).load(seed=1)  # control: without its physics it does not
    other.reset(seed=5)
    rng.bit_generator.state = saved["rng"]
    assert play(other, 400, rng) != expected


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"backend": "brax"}, r"data.backend must be one of mujoco, pybullet, got 'brax'"),
        ({"low": 0.0}, r"0 < low <= high, got 0.0 and 2.0"),
        ({"low": 3.0}, r"0 < low <= high, got 3.0 and 2.0"),
        ({"change_every": -1}, r"data.change_every must be a number >= 0, got -1"),
    ],
)
def test_bad_settings_are_named(settings, line):
    with pytest.raises(ValueError, match=line):
        SlipperyAnt(**settings)


def test_physics_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pybullet", None)
    monkeypatch.delitem(sys.modules, "syre.rl.bullet_ant", raising=False)
    with pytest.raises(DataError, match=r"data.backend=pybullet is not installed here.*data.backend=mujoco"):
        SlipperyAnt(backend="pybullet").load()
