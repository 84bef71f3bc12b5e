"""The stock PyBullet ant with rl-baselines3-zoo's hyperparameters, beside the returns that are published for it."""

from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import final, grown, look
from experiments.analysis.claims import Claim, NonInferiority, Superiority
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Results
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, mean

TITLE = "the stock PyBullet ant under PPO, beside published returns"

# Published returns of PPO with these hyperparameters after 2 million steps, and the spread that is given with each.
BASELINES = (2364, 120)  # stable-baselines3, issue 48, as it is given there
ZOO = (2866, 56)  # rl-baselines3-zoo, benchmark.md: one run, over its episodes


def _reaches(key: str, source: str, level: int, spread: int, note: str = "") -> NonInferiority:
    """The final return of the mean action."""
    samples, paper = final("return/final", {}, less=level), f"{level} ± {spread}{note}"
    text = f"The final return of the mean action is not below the published {level} by more than {spread}."
    return NonInferiority(key, text, source, samples, margin=spread, paper=paper, argued="the spread published with it")


LEARNS = "PPO learns to walk with the stock PyBullet ant: its return rises by more than 1000."
CLAIMS: tuple[Claim, ...] = (
    Superiority("learns", LEARNS, "ours", grown("return", {}), margin=1000, argued="a third of what others reach"),
    _reaches("baselines", "stable-baselines3, issue 48", *BASELINES),
    _reaches("zoo", "rl-baselines3-zoo, benchmark.md", *ZOO, " (one run)"),
)


def notes(results: Results) -> str:
    say, returns = Numbers(results), final("return/final", {})
    each = say.told(lambda results: ", ".join(mean([value]) for value in returns(results).sort_index()))
    return f"""
**What it shows.** After 2 million steps the mean action returns {say.interval(returns)} over three seeds ({each}):
*at* both published means, stable-baselines3's 2364 ± 120, whose lower end it exceeds, and rl-baselines3-zoo's
2866 ± 56, which is one run. So this PyBullet ant, read in fewer calls than the stock one, and PPO on it do what others
have published. Three seeds are too few to tell more: the interval is wide.

**How it is judged.** One-sided: a higher return than the published one is fine. The margins are the spreads that are
published with the returns.

**What it is for.** No figure of the paper: a check of environment and algorithm, before anything is said about slippery
ants. The hyperparameters are those of rl-baselines3-zoo for AntBulletEnv-v0: 16 environments, rollouts of 512 steps, 20
epochs of batches of 128, lr 3e-5, gSDE, normalised observations and rewards, 2 million steps (as are both published
numbers). Rollouts are collected by stable-baselines3's own loop; the update is ours (tested against its own). The
final return is that of the mean action over 20 episodes, with the normalisation of training.

**Cost.** The recorded seconds of two of the seeds are upper bounds: three processes shared two cores.
"""


def draw(results: Results) -> Figure:
    figure, (ax,) = plotting.panels(1, 1, width=4.6, height=3.2)
    plotting.line_with_band(ax, results.curve("return"), "step", "return", look("vanilla"))
    ax.lines[0].set_label("training episodes")
    final = plotting.t_interval(results.final("return/final")["return/final"].dropna())
    label = f"final, mean action: {final.mean:.0f} [{final.low:.0f}, {final.high:.0f}]"
    end, bar = results.metrics["step"].max(), (final.high - final.low) / 2
    ax.errorbar(end, final.mean, yerr=bar, color=look("vanilla").color, marker="D", label=label)
    sources = {BASELINES: ("#999933", "stable-baselines3, issue 48"), ZOO: ("#44AA99", "rl-baselines3-zoo")}
    for (level, spread), (color, source) in sources.items():
        ours = "below" if final.high < level else "above" if final.low > level else "at"
        ax.axhline(level, color=color, linewidth=0.9, label=f"{level} ± {spread}, {source}: ours is {ours} it")
        ax.axhspan(level - spread, level + spread, color=color, alpha=0.15, linewidth=0)
    ax.set(xlabel="steps of the environment", ylabel="return", title="AntBulletEnv, PPO, no change of friction")
    return plotting.with_legend(figure, loc="outside lower center", ncols=1)


def finding(results: Results) -> Finding:
    """The return of PPO beside the two that are published."""
    returns = final("return/final", {})(results)
    ends = [f"{level:,} ± {spread}" for level, spread in (BASELINES, ZOO)]
    return Finding(
        f"PPO on the stock PyBullet ant ends at a return of {interval(returns)}; others have published {ends[0]} "
        f"(stable-baselines3) and {ends[1]} (rl-baselines3-zoo, one run) for the same settings.",
        "",
        interval(returns),
    )
