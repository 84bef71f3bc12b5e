"""Figures look alike, tell the arms apart, and are the same bytes every time."""

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import plotting
from experiments.analysis.arms import by_arm, look
from experiments.analysis.results import write_files
from experiments.analysis.stats import t_interval


@pytest.fixture(autouse=True)
def _style():
    plotting.style()


def sweep(seeds=4):
    rng = np.random.default_rng(0)
    levels = [("vanilla", np.nan), ("weight_decay", np.nan), ("syre", 0.01), ("syre", 1.0)]
    return pd.DataFrame(
        [
            {"regularizer.name": name, "regularizer.sigma": s, "decay": d, "seed": k, "rank": rng.normal(d), "loss": d}
            for name, s in levels
            for d in (0.1, 1.0, 10.0)
            for k in range(seeds)
        ]
    )


def draw():
    figure, (left, right) = plotting.panels(2)
    for own, rows in by_arm(sweep()):
        plotting.line_with_band(left, rows, "decay", "rank", own)
        plotting.scatter_with_bars(right, rows, "loss", "rank", "decay", own)
    left.set(xscale="log", xlabel="γ", ylabel="rank")
    return plotting.with_legend(figure)


def test_the_band_is_the_t_interval_of_each_level():
    _, (ax,) = plotting.panels()
    df = sweep()[lambda d: d["regularizer.name"] == "vanilla"]
    assert plotting.line_with_band(ax, df, "decay", "rank", look("vanilla")) is ax
    expected = t_interval(df[df["decay"] == 1.0]["rank"])
    assert ax.lines[0].get_ydata()[1] == pytest.approx(expected.mean)
    band = ax.collections[0].get_paths()[0].vertices
    assert {expected.low, expected.high} <= set(band[band[:, 0] == 1.0][:, 1])
    assert len(ax.lines[1].get_xdata()) == 0  # no seed failed: no hollow marker


def test_a_band_ends_where_values_cannot_be():
    _, (free, cut) = plotting.panels(2)
    df = sweep()[lambda d: d["regularizer.name"] == "vanilla"]
    for ax, within in ((free, plotting.ANY), (cut, (0, 9.5))):
        plotting.line_with_band(ax, df, "decay", "rank", look("vanilla"), within=within)
    low, high = ([bound(ax.collections[0].get_paths()[0].vertices[:, 1]) for ax in (free, cut)] for bound in (min, max))
    assert (low[1], high[1]) == (0, 9.5)
    assert low[0] < 0 < 9.5 < high[0]  # control
    assert cut.lines[0].get_ydata().tolist() == free.lines[0].get_ydata().tolist()


def test_of_few_seeds_each_is_a_thin_line_instead_of_a_band():
    _, (few, many) = plotting.panels(2)
    for ax, seeds in ((few, plotting.FEW), (many, plotting.FEW + 1)):
        df = sweep(seeds)[lambda d: d["regularizer.name"] == "vanilla"]
        plotting.line_with_band(ax, df, "decay", "rank", look("vanilla"))
    mean, *seeds, _ = few.lines
    df = sweep(plotting.FEW)[lambda d: d["regularizer.name"] == "vanilla"]
    assert [line.get_ydata().tolist() for line in seeds] == [rows["rank"].tolist() for _, rows in df.groupby("seed")]
    assert all(line.get_linewidth() < mean.get_linewidth() for line in seeds)
    assert not few.collections
    assert len(many.lines) == 2  # the mean, and hollow markers
    assert len(many.collections) == 1
    assert few.get_legend_handles_labels()[1] == ["vanilla"]


def test_two_points_are_not_joined():
    _, axes = plotting.panels(2)
    for ax, least in zip(axes, (1, 0), strict=True):
        df = sweep().query(f"`regularizer.name` == 'vanilla' and decay >= {least}")
        plotting.line_with_band(ax, df, "decay", "rank", look("vanilla"))
    two, three = (ax.lines[0] for ax in axes)
    assert (two.get_linestyle(), len(two.get_xdata())) == ("None", 2)
    assert (three.get_linestyle(), len(three.get_xdata())) == ("-", 3)
    bars = axes[0].collections[0].get_segments()
    expected = t_interval(sweep().query("`regularizer.name` == 'vanilla' and decay == 1")["rank"])
    assert bars[0][:, 1].tolist() == pytest.approx([expected.low, expected.high])


def test_a_level_says_what_it_lacks_and_the_papers_numbers_are_hollow():
    _, (ax,) = plotting.panels()
    plotting.level(ax, 3.0, look("vanilla"), "γ")
    plotting.papers(ax, [1, 2], [5, 6], look("syre").color, "syre")
    level, theirs = ax.lines
    assert (level.get_ydata(), level.get_linestyle(), level.get_color()) == ([3.0, 3.0], ":", look("vanilla").color)
    assert (theirs.get_markerfacecolor(), theirs.get_markeredgecolor()) == ("none", look("syre").color)
    assert theirs.get_ydata().tolist() == [5, 6]
    assert ax.get_legend_handles_labels()[1] == ["vanilla (has no γ)", "syre, the paper's"]


def test_zero_stands_apart_on_a_logarithmic_axis():
    _, (ax,) = plotting.panels()
    plotting.zero_apart(ax, 0.003, (0.01, 1))
    assert [(tick, label.get_text()) for tick, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)] == [
        *((0.003, "0"), (0.01, "0.01"), (1, "1"))
    ]
    (mark,) = ax.texts
    assert 0.003 < mark.get_position()[0] < 0.01


def test_a_level_with_a_failed_seed_is_hollow():
    _, (ax,) = plotting.panels()
    df = sweep()[lambda d: d["regularizer.name"] == "vanilla"].copy()
    df.loc[(df["decay"] == 10.0) & (df["seed"] == 0), "rank"] = np.nan
    plotting.line_with_band(ax, df, "decay", "rank", look("vanilla"))
    assert ax.lines[1].get_xdata().tolist() == [10.0]


def test_seeds_are_thin_lines_and_of_several_a_mean_as_far_as_all_of_them_go():
    _, (several, alone) = plotting.panels(2)
    df = sweep(seeds=3)[lambda d: d["regularizer.name"] == "vanilla"]
    df = df[(df["decay"] < 10) | (df["seed"] > 0)]  # seed 0 ends early
    assert plotting.seed_lines(several, df, "decay", "rank", look("vanilla")) is several
    *seeds, mean = several.lines
    for seed, line in enumerate(seeds):
        own = df[df["seed"] == seed]
        drawn = pd.Series(line.get_ydata(), line.get_xdata()).dropna()
        assert drawn.to_dict() == dict(zip(own["decay"], own["rank"], strict=True))
    expected = df.groupby("decay")["rank"].mean()[[0.1, 1.0]]
    assert pd.Series(mean.get_ydata(), mean.get_xdata()).dropna().to_dict() == pytest.approx(expected.to_dict())
    assert mean.get_linewidth() > max(line.get_linewidth() for line in seeds)
    assert not several.collections  # no band
    plotting.seed_lines(alone, df[df["seed"] == 1], "decay", "rank", look("vanilla"))
    assert len(alone.lines) == 1  # its mean would be itself
    for ax in (several, alone):
        (handle,), labels = ax.get_legend_handles_labels()
        assert (handle.get_color(), handle.get_marker(), labels) == ("#000000", "o", ["vanilla"])


def test_the_markers_of_two_arms_on_one_curve_do_not_cover_each_other():
    _, (ax,) = plotting.panels()
    df = pd.DataFrame({"seed": 0, "step": range(100), "rank": 1.0})
    for name in ("vanilla", "weight_decay"):
        plotting.seed_lines(ax, df, "step", "rank", look(name))
    first, second = (set(range(100)[start::every]) for start, every in (line.get_markevery() for line in ax.lines))
    assert first
    assert second
    assert not first & second


def test_the_legend_names_each_arm_once():
    figure, axes = plotting.panels(2)
    for ax, label in zip([*axes, *axes], ["b", "a", "b", "c"], strict=True):
        ax.plot([0, 1], label=label)
    assert plotting.with_legend(figure) is figure
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b", "a", "c"]


def test_a_caption_heads_the_legend():
    figure, (ax,) = plotting.panels()
    ax.plot([0, 1], label="a")
    plotting.with_legend(figure, caption="a few words")
    assert figure.legends[0].get_title().get_text() == "a few words"


def test_the_legend_can_be_in_an_empty_panel():
    figure, (ax, empty) = plotting.panels(2)
    ax.plot([0, 1], label="a")
    assert plotting.with_legend(figure, empty) is figure
    assert not figure.legends
    assert [text.get_text() for text in empty.get_legend().get_texts()] == ["a"]
    assert not empty.axison


def test_saving_the_same_figure_twice_gives_the_same_small_files_and_touches_nothing(tmp_path):
    write_files(plotting.files(draw(), tmp_path / "a"))
    write_files(plotting.files(draw(), tmp_path / "b"))
    for name in ("figure.pdf", "figure.png"):
        data = (tmp_path / "a" / name).read_bytes()
        assert data == (tmp_path / "b" / name).read_bytes()
        assert len(data) < 300_000
        assert b"CreationDate" not in data
        assert b"Software" not in data
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    write_files(plotting.files(draw(), tmp_path / "a"))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()} == before
    other = draw()
    other.axes[0].set_title("changed")
    write_files(plotting.files(other, tmp_path / "a"))
    assert (tmp_path / "a/figure.png").read_bytes() != (tmp_path / "b/figure.png").read_bytes()  # control
