"""The measuring functions of syre/theory: exact in float64, each with a control that must fail."""

from itertools import pairwise
from math import factorial, pi, sqrt

import pytest
import torch
from torch.func import grad

from syre.tasks.regression import ridge_solution
from syre.theory import (
    Corollary1,
    Equation13,
    Escape,
    Proposition1,
    Proposition2,
    Proposition3,
    Theorem1,
    Theorem2,
    Theorem3,
    Theorem3Minima,
    Theorem4,
    Theorem5,
)
from syre.theory.groups import (
    average,
    cyclic,
    generate,
    lattice,
    minimal_subspaces,
    pairs,
    regular,
    subgroups,
    symmetric,
)
from syre.theory.numerics import diagonal, gaussian, gradient, minimise
from syre.theory.propositions import copies_normals, gradient_descent, symmetric_function, with_copies
from syre.theory.removal import reparametrised, sphere
from syre.theory.strength import breaking, weakest
from syre.theory.symmetry import anchored, biased, project, random_normals, reflect, residual, search, teacher_student
from syre.theory.training import ridge

torch.set_num_threads(1)
TINY = 1e-12
NET = teacher_student(3, inputs=2, neurons=3, outputs=2, samples=16)
THETA, POINTS = gaussian(3, "theta", NET.dims), gaussian(3, "points", 20, NET.dims)
THETA_0 = 0.3 * gaussian(3, "theta_0", NET.dims)
SWAP = NET.swap(0, 2)


# ---- reflections -----------------------------------------------------------------------------------------------------


def test_a_reflection_is_an_involution_that_keeps_its_mirror_and_distances():
    normals, centre = random_normals(0, "n", 7, 3), gaussian(0, "c", 7)
    points = gaussian(0, "p", 9, 7)
    image = reflect(points, normals, centre)
    torch.testing.assert_close(reflect(image, normals, centre), points, rtol=0, atol=TINY)
    torch.testing.assert_close((image - centre).norm(dim=1), (points - centre).norm(dim=1), rtol=0, atol=TINY)
    torch.testing.assert_close(
        reflect(image - project(image - centre, normals), normals, centre),
        image - project(image - centre, normals),
        rtol=0,
        atol=TINY,
    )
    assert (image - points).norm() > 1  # control


def test_only_the_part_of_a_centre_in_the_range_of_p_matters():
    """A reviewer's question: with P = diag(1, 0) a mirror through (0, 1) is the mirror through 0."""
    plane, points = torch.eye(2, dtype=torch.float64)[:, :1], gaussian(0, "p", 5, 2)
    at = lambda *centre: reflect(points, plane, torch.tensor(centre, dtype=torch.float64))  # noqa: E731
    assert torch.equal(at(0, 1), at(0, 0))
    assert not torch.equal(at(1, 0), at(0, 0))  # control


def test_swaps_and_sign_flips_are_symmetries_of_the_network_and_other_reflections_are_not():
    for normals in (SWAP, NET.flip(1)):
        assert normals.shape == (NET.dims, NET.block)
        torch.testing.assert_close(normals.mT @ normals, torch.eye(NET.block, dtype=torch.float64))
        assert residual(NET.loss, normals, POINTS) < TINY
    neurons = THETA.view(3, NET.block)
    assert torch.allclose(reflect(THETA, SWAP).view(3, -1), neurons[[2, 1, 0]])
    assert torch.allclose(reflect(THETA, NET.flip(1)).view(3, -1), neurons * torch.tensor([[1.0], [-1.0], [1.0]]))
    assert residual(NET.loss, random_normals(0, "n", NET.dims, NET.block), POINTS) > 1e-3  # control


def test_the_even_part_of_a_function_has_the_symmetry_it_was_built_for():
    normals, centre, points = random_normals(1, "n", 6, 2), gaussian(1, "c", 6), gaussian(1, "p", 30, 6)
    f = symmetric_function(1, normals, centre)
    assert residual(f, normals, points, centre) < TINY
    assert residual(f, normals, points) > 1e-3  # control
    assert residual(f, random_normals(2, "n", 6, 2), points, centre) > 1e-3  # control


def test_the_bias_in_the_weights_is_the_anchor_in_the_decay():
    scales = diagonal(0, NET.dims, 0.3)
    letter, centred = (form(NET.loss, 0.1, THETA_0, scales) for form in (biased, anchored))
    torch.testing.assert_close(letter(POINTS), centred(POINTS + THETA_0), rtol=0, atol=TINY)
    assert (letter(POINTS) - centred(POINTS)).abs().min() > 1e-3  # control


def test_the_diagonal_has_mean_1_std_sigma_d_and_distinct_entries():
    d = diagonal(0, 20000, 0.2)
    assert abs(d.mean() - 1) < 0.01
    assert abs(d.std() - 0.2) < 0.01
    assert len(d.unique()) == len(d)


def test_minimise_finds_minima_and_leaves_saddles():
    f = lambda v: (v[0] ** 2 - 1) ** 2 + v[1] ** 2  # noqa: E731  # a saddle at 0, minima at (+-1, 0)
    start = torch.tensor([[1e-3, 0.5], [-0.2, 3.0], [2.0, -1.0]], dtype=torch.float64)
    expected = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(minimise(f, start, steps=40), expected, rtol=0, atol=1e-8)


def test_search_finds_a_planted_mirror_wherever_it_is():
    normal = random_normals(5, "n", 4, 1)
    f = symmetric_function(5, normal, gaussian(5, "c", 4))
    rms, n = search(f, gaussian(5, "p", 64, 4), gaussian(5, "s", 32, 4))
    assert rms < TINY
    assert abs(n @ normal[:, 0]) > 1 - 1e-9


# ---- sections 2 and 4 ------------------------------------------------------------------------------------------------


def test_proposition_1():
    found = Proposition1().measure(100)
    assert max(found[name] for name in ("part1", "part2", "question")) < TINY * 1e2
    assert found["old_centre"] > 1e-3
    assert found["decayed"] == pytest.approx(1, abs=1e-9)


def test_the_broken_directions_of_copies_are_their_differences():
    normals = copies_normals(NET, 3)
    assert normals.shape == (NET.dims, 2 * NET.block)
    assert project(with_copies(NET, THETA, 3), normals).norm() < TINY
    torch.testing.assert_close(copies_normals(NET, 2) @ copies_normals(NET, 2).mT, NET.swap(0, 1) @ NET.swap(0, 1).mT)
    assert project(THETA, normals).norm() > 1e-3  # control


def test_composed_steps_are_gradient_descent():
    root = gaussian(0, "root", 4, 6)  # singular: rank 4 of 6
    a, b = root.mT @ root, root.mT @ gaussian(0, "b", 4)
    u, rate = torch.zeros(6, dtype=torch.float64), 1 / torch.linalg.eigvalsh(a)[-1]
    for _ in range(5000):
        u = u - rate * (a @ u - b)
    torch.testing.assert_close(gradient_descent(a, b), u, rtol=0, atol=1e-9)


def test_proposition_2():
    found = Proposition2().measure(100)
    assert max(found[name] for name in ("masked", "solution", "moved")) < 1e-9
    assert found["rank"] == found["bound"] == 10
    assert found["rank/generic"] == 20
    assert min(found[name] for name in ("masked/generic", "moved/generic")) > 1e-3


def test_proposition_3():
    found = Proposition3(steps=50).measure(100)
    assert max(found[name] for name in ("spread/sgd", "spread/adam", "reduced")) < TINY
    assert found["parameters"] == found["bound"] == 10
    assert min(found[name] for name in ("spread/sgd/syre", "spread/adam/syre")) > 1e-6


# ---- sections 5.1 and 5.2 --------------------------------------------------------------------------------------------


def test_the_reparametrised_loss_has_its_reflections():
    loss, reflections = reparametrised(0)
    points = gaussian(0, "p", 10, 4)
    assert len(reflections) == 4
    assert max(residual(loss, normals, points) for normals in reflections) < TINY * 10
    assert residual(loss, random_normals(0, "n", 4, 1), points) > 1e-3  # control


@pytest.mark.parametrize(("gamma", "sigma"), [(0.1, 0.1), (0.1, 0.0), (0.0, 0.1)])
def test_theorem_1_needs_both_the_bias_and_weight_decay(gamma, sigma):
    found = Theorem1(gamma=gamma, sigma=sigma).measure(100)
    if gamma and sigma:
        assert min(found["known"], found["found"]) > 1e-6
        assert found["ratio"] == pytest.approx(1, abs=1e-9)
    else:
        assert max(found["known/max"], found["found"]) < TINY
    assert (found["origin"] > 1e-6) == (sigma > 0)


@pytest.mark.parametrize("sigma_d", [0.0, 0.01])
def test_theorem_2(sigma_d):
    found = Theorem2(sigma_d=sigma_d).measure(100)
    assert found["planted"] < TINY
    if sigma_d:
        assert min(found["orthogonal"], found["found"]) > 1e-9
        assert found["planted/entry"] == pytest.approx(1, abs=1e-9)
    else:
        assert max(found["orthogonal"], found["found"]) < TINY


def test_theorem_2_the_residual_of_a_unit_normal_in_closed_form():
    """`4 gamma [(m . phi)(n . phi) - (n . phi)(n . D theta_0)]`, m the part of D n orthogonal to n."""
    d, n = diagonal(7, 5, 0.3), random_normals(7, "n", 5, 1)
    theta_0, points = gaussian(7, "t", 5), gaussian(7, "p", 30, 5)
    f = anchored(sphere, 0.1, theta_0, d)
    m = d * n[:, 0] - (n[:, 0] * d) @ n[:, 0] * n[:, 0]
    along = points @ n[:, 0]
    expected = 4 * 0.1 * along * (points @ m - (d * theta_0) @ n[:, 0])
    torch.testing.assert_close(f(points) - f(reflect(points, n)), expected, rtol=0, atol=1e-11)


# ---- section 5.3 -----------------------------------------------------------------------------------------------------


def test_theorem_3_the_difference_across_a_mirror_is_four_gamma_times_the_bias_along_it():
    along = project(THETA, SWAP)
    expected = -4 * 0.1 * (THETA_0 @ along) / along.norm()
    delta = breaking(anchored(NET.loss, 0.1, THETA_0), THETA, SWAP)
    torch.testing.assert_close(delta, expected, rtol=0, atol=TINY)
    assert breaking(anchored(NET.loss, 0.1, 0.0), THETA, SWAP).abs() < TINY  # control: no bias
    assert breaking(anchored(NET.loss, 0.0, THETA_0), THETA, SWAP).abs() < TINY  # control: no decay
    found = Theorem3(draws=20000).measure(100)
    assert found["ratio"] == pytest.approx(1, abs=0.02)
    assert found["ratio/advanced"] == pytest.approx(1, abs=0.02)


def test_theorem_3_at_minima():
    found = Theorem3Minima(neurons=2, outputs=1, gamma=0.01, draws=32).measure(100)
    assert found["converged"] > 0.9
    assert 0.5 < found["rms"] < 2  # between the law of a given point and that of P phi parallel to P theta_0, sqrt(4)


def test_corollary_1_the_gradient_along_p_is_two_gamma_times_the_bias():
    symmetric_point = with_copies(NET, THETA, 2)
    normals = NET.swap(0, 1)
    along = project(gradient(anchored(NET.loss, 0.1, THETA_0), symmetric_point), normals)
    torch.testing.assert_close(along, -2 * 0.1 * project(THETA_0, normals), rtol=0, atol=TINY)
    assert project(gradient(NET.loss, symmetric_point), normals).norm() < TINY
    assert project(gradient(NET.loss, THETA), normals).norm() > 1e-3  # control
    found = Corollary1(draws=5000).measure(100)
    assert found["plain"] < TINY
    assert found["ratio"] == pytest.approx(1, abs=0.02)
    assert found["ratio/torch"] == pytest.approx(1, abs=0.15)  # 100 draws of rank 5: 3 %


@pytest.mark.parametrize("kind", ["flips", "swaps"])
def test_theorem_4_the_weakest_is_the_minimum_over_all_reflections(kind):
    phi, f = THETA, anchored(NET.loss, 0.1, THETA_0)
    all_normals = (
        [NET.flip(i) for i in range(3)] if kind == "flips" else [NET.swap(i, j) for i, j in ((0, 1), (0, 2), (1, 2))]
    )
    expected = min(breaking(f, phi, normals).abs() for normals in all_normals)
    smallest = weakest(phi.view(3, NET.block), THETA_0.view(1, 3, NET.block), kind)
    torch.testing.assert_close(0.1 * smallest[0], expected, rtol=0, atol=TINY)


@pytest.mark.parametrize("kind", ["flips", "swaps"])
def test_theorem_4_the_weakest_falls_as_one_over_n(kind):
    few, many = (Theorem4(kind=kind, neurons=n, draws=4000).measure(100) for n in (6, 24))
    slope = (many["median"] / few["median"]) ** -1 / (many["reflections"] / few["reflections"])
    assert slope == pytest.approx(1, abs=0.1)
    assert few["frequency"] < 0.12
    exact = sqrt(pi / 2) * 0.6931 / many["reflections"]
    assert many["median"] == pytest.approx(exact, rel=0.15)


@pytest.mark.parametrize(
    ("generators", "order", "count"),
    [
        (symmetric(3), 6, 6),
        (symmetric(4), 24, 30),
        (cyclic(6), 6, 4),
        (cyclic(2), 2, 2),
        (pairs(3), 8, 16),
        (regular(3), 8, 16),
    ],
)
def test_groups_and_their_subgroups_are_those_of_the_textbooks(generators, order, count):
    group = generate(generators)
    found = subgroups(group)
    assert len(group) == order
    assert len(found) == len(set(found)) == count - 1  # the trivial one is left out
    assert all(order % len(v) == 0 and generate(v) == v for v in found)
    assert found[-1] == group


def test_symmetric_groups_have_n_factorial_elements():
    assert [len(generate(symmetric(n))) for n in (2, 3, 4, 5)] == [factorial(n) for n in (2, 3, 4, 5)]


def test_averages_are_projections_that_shrink_with_the_subgroup():
    _, groups, broken = lattice("symmetric", 4)
    for p in broken:
        torch.testing.assert_close(p @ p, p, rtol=0, atol=TINY)
    for small, large in pairwise(groups):
        if small < large:
            p, q = average(small), average(large)
            torch.testing.assert_close(p @ q, q, rtol=0, atol=TINY)


@pytest.mark.parametrize(("kind", "size", "count"), [("pairs", 3, 3), ("regular", 2, 3), ("regular", 3, 7)])
def test_theorem_5_3_minimal_broken_subspaces(kind, size, count):
    """Z_2^k on itself has 2^k - 1 of them, not log2 |U| = k."""
    assert minimal_subspaces(lattice(kind, size)[2]) == count


def test_theorem_5():
    found = Theorem5(size=4, draws=4000).measure(100)
    assert (found["rank"], found["order"], found["subgroups"], found["minimal"]) == (15, 24, 29, 13)
    assert found["ratio"] == pytest.approx(1, abs=0.02)
    assert found["ratio/worst"] < 0.05
    assert found["violations"] == 0
    assert found["gap"] < TINY
    assert found["missed"] > 0.1  # control: S_4 is not abelian, and its generators are not enough


@pytest.mark.parametrize(("group", "size", "enough"), [("pairs", 2, True), ("cyclic", 6, True), ("regular", 2, False)])
def test_theorem_5_3_whether_generators_are_enough_depends_on_the_representation(group, size, enough):
    missed = Theorem5(group=group, size=size, draws=500).measure(100)["missed"]
    assert missed < TINY if enough else missed > 0.1


# ---- training --------------------------------------------------------------------------------------------------------


def test_equation_13_is_the_stationary_point_and_the_closed_form_of_figure_3():
    x, y, theta_0 = gaussian(0, "x", 30, 6), gaussian(0, "y", 30), gaussian(0, "t", 6)
    ones, scales = torch.ones(6, dtype=torch.float64), diagonal(0, 6, 0.3)
    for d in (ones, scales):
        loss = anchored(lambda w: (x @ w - y).square().mean(), 0.2, theta_0, d)
        assert grad(loss)(ridge(x, y, 0.2, theta_0, d)).norm() < TINY
    torch.testing.assert_close(ridge(x, y, 0.2, theta_0, ones), ridge_solution(x, y, 0.2, theta_0), rtol=0, atol=TINY)
    assert (ridge(x, y, 0.2, theta_0, ones) - ridge_solution(x, y, 0.2, -theta_0)).norm() > 1e-3  # control
    found = Equation13().measure(100)
    assert max(found["error"], found["error/advanced"]) < TINY
    assert 0 < found["relative"] < 1
    smaller = Equation13(sigma=0.001).measure(100)  # the distance from ridge regression is in proportion to sigma
    assert 100 * smaller["displacement"] == pytest.approx(found["displacement"], rel=1e-9)


def test_the_escape_takes_the_expected_time_and_without_a_bias_for_ever():
    found = {sigma: Escape(sigma=sigma).measure(100) for sigma in (0.0, 1e-4)}
    assert found[0.0]["escaped"] == 0
    assert found[1e-4]["escaped"] == 1
    assert found[1e-4]["curvature"] < 0
    assert found[1e-4]["steps"] == pytest.approx(found[1e-4]["expected"], rel=0.05)


def test_the_escape_starts_on_a_saddle():
    task = Escape()
    net = teacher_student(100, inputs=3, neurons=2, outputs=2)
    phi = task.saddle(100, net)
    assert project(phi, copies_normals(net, 2)).norm() < TINY
    assert gradient(anchored(net.loss, task.gamma, 0.0), phi).norm() < 1e-6


@pytest.mark.parametrize(
    ("task", "settings", "key"),
    [
        (Proposition1, {"rank": 8}, "task.rank"),
        (Proposition2, {"copies": 1}, "task.copies"),
        (Theorem1, {"sigma": -1.0}, "task.sigma"),
        (Theorem3, {"draws": 0}, "task.draws"),
        (Theorem4, {"kind": "turns"}, "task.kind"),
        (Theorem5, {"group": "monster"}, "task.group"),
        (Escape, {"lr": 0.0}, "task.lr"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(task, settings, key):
    with pytest.raises(ValueError, match=key):
        task(**settings)
