"""Hits and false alarms: labels, halves, the choice of a score and what is said of it, on networks made up for it."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import plotting
from experiments.analysis.claims import INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED, evaluate
from experiments.analysis.results import Results, load, select
from experiments.engine.expand import expand
from experiments.figures import diagnostics
from experiments.figures.diagnostics import CLAIMS, FIGURES, FRESH, STOCK, WAYS, calibrations, choose, networks
from syre.diagnostics import advice
from tests.experiments.conftest import CONFIGS

RESULTS = CONFIGS.parent / "results"
GAMMAS = (0.01, 0.02, 0.03, 0.04, 1.0, 2.0, 3.0, 4.0)  # harmless; and above 0.5 one collapses
SEEDS = range(5)


def reached(model, gamma):
    """What a network ends with: accuracy, or the loss of the VAE."""
    well = 0.95 - 0.001 * (gamma or 0) if gamma is None or gamma < 0.5 else 0.2
    return 40 - 30 * well if model == "beta_vae" else well


def made(score, fresh=lambda rng: rng.uniform(0, 0.2), accuracy=reached):
    """Results of all sources: `score(collapsed, rng)` of the networks after training, `fresh(rng)` before it."""
    rng, runs, metrics = np.random.default_rng(0), [], []

    def add(seed, collapsed, end, **settings):
        run = f"{rng.integers(1 << 48):012x}"
        runs.append({"id": run, "scale": "cpu", "status": "done", "seed": seed, "seconds": 1.0, **settings})
        metric = "reconstruction/mean" if settings["model.name"] == "beta_vae" else "accuracy"
        last, first = score(collapsed, rng), fresh(rng)
        for step, value, known in ((0, 0.1, first), (9, end, last)):
            values = {metric: value, "score/noise": rng.random()}
            values |= dict.fromkeys(("score/good", "score/features", "score/weights-alone/good"), known)
            at = {"id": run, "step": step, "split": "test"}
            metrics.extend({**at, "metric": name, "value": value} for name, value in values.items())

    for model, seed, gamma in itertools.product(FIGURES, SEEDS, (None, *GAMMAS)):
        arm = {"regularizer.name": "vanilla" if gamma is None else "weight_decay", "regularizer.weight_decay": gamma}
        settings = {"model.name": model, "data.name": "digits", "data.input_scale": 1.0, **arm}
        add(seed, gamma is not None and gamma > 0.5, accuracy(model, gamma), **settings)
    for number, seed, data in itertools.product(range(20), SEEDS, ("cifar10", "rgb_digits")):
        settings = {"model.name": "stock", "model.network": f"net{number}", "data.name": data, "data.input_scale": 1.0}
        arm = {"regularizer.name": "weight_decay", "regularizer.weight_decay": 0.01}
        add(seed, False, 0.8 if number else 0.12, **settings, **arm)  # the first one does not learn
    frame = pd.DataFrame(runs)
    return Results(experiment="diagnostics", scale="cpu", runs=frame, metrics=pd.DataFrame(metrics))


def clear(collapsed, rng):
    return rng.uniform(0.7, 1) if collapsed else rng.uniform(0, 0.3)


GOOD = made(clear)
HARMLESS = len([gamma for gamma in GAMMAS if gamma < 0.5])


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", FIGURES.values())
def test_a_network_that_lost_a_third_of_the_way_is_collapsed_and_one_that_lost_a_twentieth_healthy(source):
    rows = select(networks(GOOD), source=source)
    strong = rows["regularizer.weight_decay"] > 0.5
    assert rows["collapsed"].tolist() == strong.astype(float).tolist()
    assert rows["lost"][~strong].between(0, 0.01).all()
    expected = 1.0 if source == "fig. 9" else (0.95 - 0.2) / (0.95 - 0.1)  # of the VAE the worst arm is chance
    assert rows["lost"][strong].tolist() == pytest.approx([expected] * int(strong.sum()))


@pytest.mark.parametrize(
    ("source", "lost", "label"),
    [
        ("fig. 5", -0.1, 0), ("fig. 5", 0.049, 0), ("fig. 5", 0.051, None), ("fig. 5", 0.33, None),
        ("fig. 5", 0.34, 1), ("fig. 5", 1.0, 1), (STOCK, 0.49, 0), (STOCK, 0.51, None), (STOCK, 1.0, None),
    ],
)  # fmt: skip
def test_between_the_two_it_is_neither_and_a_stock_model_is_healthy_or_did_not_learn(source, lost, label):
    given = diagnostics._label(source, lost)
    assert np.isnan(given) if label is None else given == label


def test_stock_models_that_did_not_learn_are_left_out():
    rows = select(networks(GOOD), source=STOCK)
    assert rows["collapsed"].isna().tolist() == (rows["model.network"] == "net0").tolist()


def test_the_best_arm_is_one_without_syre():
    better = GOOD.runs[GOOD.runs["model.name"] == "mlp"].iloc[[0]].assign(id="f" * 12)
    better["regularizer.name"] = "syre"
    of_it = GOOD.metrics[GOOD.metrics["id"] == GOOD.runs[GOOD.runs["model.name"] == "mlp"]["id"].iloc[0]]
    of_it = of_it.assign(id="f" * 12, value=of_it["value"].where(of_it["metric"] != "accuracy", 1.0))
    more = replace(GOOD, runs=pd.concat([GOOD.runs, better]), metrics=pd.concat([GOOD.metrics, of_it]))
    before, after = (networks(results).set_index(["id", "source"])["lost"] for results in (GOOD, more))
    pd.testing.assert_series_equal(after.loc[before.index], before)
    assert after["f" * 12, "fig. 5"] < 0


def test_a_run_that_went_nan_is_no_network():
    runs = GOOD.runs.assign(status=["nan", *GOOD.runs["status"][1:]])
    assert GOOD.runs["id"][0] not in set(networks(replace(GOOD, runs=runs))["id"])


def test_each_start_is_counted_once_and_no_start_with_copies_of_a_neuron():
    fresh = select(networks(GOOD), source=FRESH)
    assert len(fresh) == len(FIGURES) * len(SEEDS) + 20 * len(SEEDS) * 2
    assert (fresh["collapsed"] == 0).all()
    at_start = GOOD.metrics[(GOOD.metrics["metric"] == "score/good") & (GOOD.metrics["step"] == 0)]
    assert fresh.set_index("id")["score/good"].to_dict().items() <= at_start.set_index("id")["value"].to_dict().items()
    runs = GOOD.runs.assign(**{"model.identical": (GOOD.runs["model.name"] == "collapsed_mlp") * 0.5})
    fewer = select(networks(replace(GOOD, runs=runs)), source=FRESH)
    assert len(fresh) - len(fewer) == len(SEEDS)
    settings = {"regularizer.start": "shift", "regularizer.unit": "relative"}
    shifted = GOOD.runs.assign(**{"regularizer.sigma": GOOD.runs["regularizer.weight_decay"].fillna(0), **settings})
    assert len(select(networks(replace(GOOD, runs=shifted)), source=FRESH)) > len(fresh)
    kept = replace(GOOD, runs=shifted.assign(**{"regularizer.start": "keep"}))
    assert len(select(networks(kept), source=FRESH)) == len(fresh)


# ---- halves ----------------------------------------------------------------------------------------------------------


def test_no_setting_and_no_stock_model_is_in_both_halves_and_each_source_is_halved():
    trained = networks(GOOD)[lambda table: table["source"] != FRESH]
    families = {"model.name", "regularizer.weight_decay", "model.network"}
    halves = trained.groupby(sorted(families), dropna=False)["judged"]
    assert (halves.nunique() == 1).all()
    counts = halves.first().groupby("model.name").agg(["sum", "size"])
    assert (abs(counts["size"] - 2 * counts["sum"]) <= 1).all()


def test_halves_do_not_depend_on_the_order_of_the_rows_or_on_where_they_were_trained():
    other = GOOD.runs.sample(frac=1, random_state=1).assign(seconds=2.0, git_sha="x")
    before, after = (networks(r).set_index(["id", "source"])["judged"] for r in (GOOD, replace(GOOD, runs=other)))
    trained = [index for index in before.index if index[1] != FRESH]
    assert before[trained].to_dict() == after[trained].to_dict()


# ---- score and threshold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_the_score_that_tells_them_apart_is_chosen_with_a_threshold_between_them(way):
    choice = choose(networks(GOOD), way)
    assert choice.score in ("good", "features")  # which are one here
    assert 0.3 < choice.threshold < 0.7
    assert set(diagnostics.scores(networks(GOOD), way)) == (
        {"good", "noise", "features"} if way == "with batches" else {"good"}
    )


def test_it_is_chosen_on_one_half_and_judged_on_the_other():
    table = networks(GOOD)
    choice = choose(table, "weights alone")
    for half, same in ((table["judged"], True), (~table["judged"], False)):
        changed = table.assign(**{choice.column: table[choice.column].where(~half, 1 - table[choice.column])})
        assert (choose(changed, "weights alone") == choice) is same
    said = calibrations(GOOD)["weights alone"]
    judged = table[table["judged"]]
    count = {1: int((judged["collapsed"] == 1).sum()), 0: int((judged["collapsed"] == 0).sum())}
    assert said == {
        **{"score": choice.score, "threshold": choice.threshold},
        **{"collapsed": count[1], "hits": count[1], "healthy": count[0], "false_alarms": 0},
    }
    assert min(count.values()) > 20


def test_hits_and_false_alarms_are_counted_at_or_above_the_threshold():
    judged = GOOD.metrics["id"].isin(networks(GOOD)[lambda table: table["judged"]]["id"])
    of_it = judged & (GOOD.metrics["metric"] == "score/weights-alone/good") & (GOOD.metrics["step"] == 9)
    turned = GOOD.metrics.assign(value=GOOD.metrics["value"].where(~of_it, 1 - GOOD.metrics["value"]))
    said = calibrations(replace(GOOD, metrics=turned))["weights alone"]
    assert said["hits"] == 0
    trained = networks(GOOD)[lambda table: (table["source"] != FRESH) & table["judged"] & (table["collapsed"] == 0)]
    assert said["false_alarms"] == len(trained)
    table = networks(GOOD).head(3)
    choice = diagnostics.Choice(score="x", threshold=0.5, column="x")
    assert diagnostics.called(table.assign(x=[0.5, 0.499, np.nan]), choice).tolist() == [1, 0, 0]


def test_the_table_for_the_docs_counts_what_the_evidence_counts():
    for way, said in calibrations(GOOD).items():
        (line,) = [line for line in diagnostics.rates(GOOD).splitlines() if line.startswith(f"| {way} |")]
        _, score, *cells = line.strip("|").split("|")
        assert f"`{said['score']}` ≥ {said['threshold']:.2g}" in score
        counts = [tuple(map(int, cell.split("(")[0].split(" of "))) for cell in cells]
        assert counts[0] == (said["hits"], said["collapsed"])
        assert tuple(map(sum, zip(*counts[1:], strict=True))) == (said["false_alarms"], said["healthy"])
    assert f"0 of {counts[1][1]} (0% to " in line


@pytest.mark.skipif(not (RESULTS / "diagnostics").exists(), reason="no results yet")
def test_the_docs_have_the_table_of_the_results():
    assert diagnostics.rates(load(RESULTS, "diagnostics")) in (RESULTS.parent / "docs/diagnose.md").read_text()


@pytest.mark.parametrize(("wrong", "threshold"), [(1, 0.25), (2, 0.55)])
def test_each_kind_of_healthy_network_counts_as_much_as_the_others_however_many_there_are(wrong, threshold):
    """A lower threshold has one hit more. One false alarm of ten runs is a thirtieth; two of them, in 112, too many."""
    kinds = ["fig. 5"] * 10 + [STOCK] * 2 + [FRESH] * 100 + ["fig. 5"] * 4
    score = [0.5] * wrong + [0.1] * (112 - wrong) + [0.4, *[0.6] * 3]
    labels = [0.0] * 112 + [1.0] * 4
    table = pd.DataFrame({"source": kinds, "collapsed": labels, "judged": False, "score/x": score})
    assert choose(table, "with batches").threshold == pytest.approx(threshold)


def test_what_sees_one_kind_of_collapse_alone_is_not_chosen():
    values = {"score/shrunk": [0.1, 0.9, 0.9], "score/either": [0.2, 0.3, 0.9]}
    table = pd.DataFrame({"source": "fig. 5", "collapsed": [0.0, 1.0, 1.0], "judged": False, **values})
    assert choose(table, "with batches").score == "either"


def test_where_one_kind_of_network_is_missing_nothing_is_chosen():
    healthy = made(clear, accuracy=lambda model, gamma: reached(model, None))
    assert calibrations(healthy) == dict.fromkeys(WAYS)
    assert {evaluate(claim, healthy).verdict for claim in CLAIMS} == {NOT_TESTED}
    plotting.style()
    assert len(diagnostics.draw(healthy).axes) == 4


# ---- claims and picture ----------------------------------------------------------------------------------------------


def verdicts(results):
    return {claim.id: evaluate(claim, results).verdict for claim in CLAIMS}


def test_of_a_score_that_tells_them_apart_all_is_reproduced_and_of_swapped_labels_nothing():
    assert set(verdicts(GOOD).values()) == {REPRODUCED}
    assert not {evaluate(replace(claim, opposite=True), GOOD).verdict for claim in CLAIMS} & {REPRODUCED}
    swapped = made(lambda collapsed, rng: clear(not collapsed, rng), fresh=lambda rng: rng.uniform(0.7, 1))
    said = verdicts(swapped)
    assert REPRODUCED not in {said[name] for name in said if name.startswith("area")}
    assert not any({said[f"misses-{key}"], said[f"alarms-runs-{key}"]} == {REPRODUCED} for key in ("batches", "alone"))


def test_a_score_of_noise_is_not_reproduced():
    noise = made(lambda collapsed, rng: rng.random(), fresh=lambda rng: rng.random())
    said = verdicts(noise)
    assert {said["area-batches"], said["area-alone"]} == {NOT_REPRODUCED}
    assert not any({said[f"misses-{key}"], said[f"alarms-runs-{key}"]} == {REPRODUCED} for key in ("batches", "alone"))


def test_false_alarms_on_stock_models_are_their_own_claim():
    """The control of the rate: of the stock models that are judged, 100, so many are called collapsed."""
    table = networks(GOOD)
    stock = table[(table["source"] == STOCK) & table["judged"] & (table["collapsed"] == 0)]
    for alarms, verdict in ((0, REPRODUCED), (len(stock) // 10, INCONCLUSIVE), (len(stock) // 2, NOT_REPRODUCED)):
        rows = GOOD.metrics["id"].isin(stock["id"].head(alarms)) & (
            GOOD.metrics["metric"] == "score/weights-alone/good"
        )
        loud = GOOD.metrics.assign(value=GOOD.metrics["value"].mask(rows & (GOOD.metrics["step"] == 9), 0.9))
        said = verdicts(replace(GOOD, metrics=loud))
        assert said["alarms-stock-alone"] == verdict
        assert said["alarms-runs-alone"] == said["alarms-fresh-alone"] == REPRODUCED


def test_the_picture_has_a_curve_for_each_score_and_a_point_for_each_network():
    plotting.style()
    axes = diagnostics.draw(GOOD).axes
    table = networks(GOOD)
    assert [len(ax.lines) for ax in axes[:2]] == [1 + 3 + 1, 1 + 1 + 1]  # chance, curves, the threshold
    drawn = sum(len(line.get_xdata()) for line in axes[2].lines[:-1])
    assert drawn == table["judged"].sum()
    assert len(axes[3].containers) == 2 * 4


# ---- the experiment --------------------------------------------------------------------------------------------------

SOURCES = {"collapsed_mlp": "fig1", "mlp": "fig5", "beta_vae": "fig9", "continual_cnn": "fig11", "vit": "fig12"}
FREE = ("experiment", "recipe", "task")  # the task of a figure is wrapped: tests/tasks/test_diagnosed.py


def settings(run):
    """What decides how a run trains."""
    train = {key: value for key, value in run.config["train"].items() if key not in ("evaluations", "checkpoints")}
    kept = {key: value for key, value in run.config.items() if key not in FREE}
    beta = float(run.config["task"].get("beta", 0))
    return json.dumps(kept | {"train": train, "beta": beta}, sort_keys=True)


def runs_of(composed, name):
    overrides = (f"experiment={name}", "scale=cpu")
    return expand(composed(*overrides), lambda members: composed(*overrides, *members))


@pytest.mark.slow
def test_its_runs_are_those_of_the_figures(composed):
    known = {figure: {settings(run) for run in runs_of(composed, figure)} for figure in SOURCES.values()}
    own = [run for run in runs_of(composed, "diagnostics") if run.config["model"]["name"] in SOURCES]
    assert len(own) > 200
    assert not [run.id for run in own if settings(run) not in known[SOURCES[run.config["model"]["name"]]]]
    other = own[0].config | {"optim": own[0].config["optim"] | {"lr": 0.5}}
    assert settings(replace(own[0], config=other)) not in known[SOURCES[own[0].config["model"]["name"]]]  # control


def plain(setting):
    """A setting as it is written in whatever table: 1 is 1.0."""
    try:
        return str(float(str(setting)))
    except ValueError:
        return str(setting)


@pytest.mark.skipif(not (RESULTS / "diagnostics").exists(), reason="no results yet")
def test_trained_again_the_runs_of_the_figures_end_as_they_did():
    again, apart, others = load(RESULTS, "diagnostics"), {}, {}
    same = ["seed", "model.", "data.", "regularizer.", "optim.", "train.epochs", "train.batch_size", "task.beta"]
    for model, figure in SOURCES.items():
        metric = "reconstruction/mean" if model == "beta_vae" else "accuracy"
        tables = [select(again.final(metric), **{"model.name": model}), load(RESULTS, figure).final(metric)]
        columns = sorted({c for c in map(str, tables[1]) if c.startswith(tuple(same)) and c in tables[0]})
        words = [table[columns].apply(lambda row: json.dumps([*map(plain, row)]), axis=1) for table in tables]
        before = dict(zip(words[1], tables[1][metric], strict=True))
        values, known = tables[0][metric].to_numpy(), np.array([before[key] for key in words[0]])
        apart[figure] = abs(values - known)
        others[figure] = abs(values - known[np.random.default_rng(0).permutation(len(known))])  # control
    close = {figure: f"{sum(d <= 1e-3 for d in of)} of {len(of)}" for figure, of in apart.items()}
    said = " ".join(diagnostics.notes(again).split())
    assert f"{', '.join([*close.values()][:-1])} and {[*close.values()][-1]} end within 0.001" in said
    # Rounding differs between CPUs, and a run at the edge of a collapse may end on the other side: not most of them.
    assert all(np.median(of) <= 0.005 for of in apart.values()), close
    assert all(np.median(others[figure]) > 5 * max(np.median(of), 1e-3) for figure, of in apart.items())


def test_the_largest_of_several_scores_is_that_of_the_library():
    assert diagnostics.COMBINED == advice.COMBINED
    results = made(clear)
    wanted = ("shrunk", "symmetric/mean", "narrow/last")
    parts = {f"score/{name}": np.arange(len(results.runs)) % (3 + k) / 10 for k, name in enumerate(wanted)}
    rows = [
        {"id": run, "step": step, "split": "test", "metric": name, "value": values[k]}
        for k, run in enumerate(results.runs["id"])
        for step in (0, 9)
        for name, values in parts.items()
    ]
    table = networks(replace(results, metrics=pd.concat([results.metrics, pd.DataFrame(rows)])))
    assert (table["score/any"] == table[list(parts)].max(axis=1)).all()
    assert (table["score/either"] == table[list(parts)[:2]].max(axis=1)).all()
    assert "score/weights-alone/any" not in table
