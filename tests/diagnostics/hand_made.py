"""Diagnoses written by hand, after the docstring of syre.diagnostics.diagnosis: no part that measures is needed."""

import math

import numpy as np

from syre.diagnostics import Diagnosis


def units(name, count, symmetric=0, kind="units", random=0.7, made_by=None, dead=0, seed=0, **more):
    noise = np.random.default_rng(seed)
    healthy = np.clip(noise.normal(random, 0.06, count - symmetric), 0.05, 1)
    distances = noise.permutation(np.concatenate([np.abs(noise.normal(0, 1e-3, symmetric)), healthy]))
    twins = symmetric - dead
    return {
        "name": name,
        "kind": kind,
        "count": count,
        "entries": 12,
        "symmetry": ["permutation"],
        "made_by": made_by or [f"{name}.weight[0]", f"{name}.bias[0]"],
        "read_by": ["next.weight[1]"],
        "twins": twins,
        "sign_twins": 0,
        "duplicates": twins,
        "dead": dead,
        "symmetric": symmetric,
        "groups": [list(range(min(twins, 32)))] if twins > 1 else [],
        "distances": [float(value) for value in distances],
        "nearest": {"min": float(distances.min()), "median": float(np.median(distances)), "random": random},
        **more,
    }


def weight(name, *shape, rank=None, seed=0):
    """A Gaussian matrix, or one of that rank and a little noise."""
    rows, columns = shape[0], math.prod(shape[1:])
    small = min(rows, columns)
    size = min(small, 64)
    quantile = np.linspace(0, 1, size)
    singular = 1 - quantile * (1 - 1 / max(small, 2)) if rank is None else np.where(quantile * small < rank, 1.0, 1e-6)
    effective = 0.8 * small
    return {
        "name": name,
        "shape": list(shape),
        "rows": rows,
        "columns": columns,
        "rank": small if rank is None else rank,
        "rank/effective": effective if rank is None else 0.9 * rank,
        "rank/stable": small / 4 if rank is None else 0.8 * rank,
        "random": {"rank/effective": effective, "rank/stable": small / 4},
        "dead_rows": 0,
        "dead_columns": 0,
        "singular": [float(value) for value in singular],
        "norm": 3.21,
    }


def feature(name, width, samples=512, rank=None, dead=0):
    full = min(width, samples)
    rank = full if rank is None else rank
    eigenvalues = np.where(np.arange(min(full, 64)) < rank, 0.8 ** np.arange(min(full, 64)), 1e-9)
    return {
        "name": name,
        "width": width,
        "samples": samples,
        "rank": rank,
        "rank/effective": 0.6 * rank,
        "rank/stable": 0.2 * rank,
        "full": full,
        "dead": dead,
        "duplicates": 0,
        "low": float((eigenvalues < 1e-3).mean()),
        "eigenvalues": [float(value) for value in eigenvalues],
    }


def pull(name, decay, gradient, inward):
    common = {"decay": decay / 3, "gradient": gradient * 2, "inward": 0.5}
    broken = {"decay": decay, "gradient": gradient, "inward": inward}
    return {"name": name, "lambda": 0.01, "symmetric": common, "broken": broken}


def collapsed_mlp():
    sets = [units("layers.0", 64, 52, dead=3), units("layers.2", 64, 20, seed=1), units("layers.4", 32, seed=2)]
    return Diagnosis(
        model={"class": "MLP", "parameters": 57_770, "tensors": 8},
        structure={"source": "batches", "inputs": "[128, 784]", "why": None, "unread": []},
        units=sets,
        weights=[
            weight("layers.0.weight", 64, 784, rank=9),
            weight("layers.2.weight", 64, 64, rank=30),
            weight("layers.4.weight", 32, 64),
            weight("head.weight", 10, 32),
        ],
        heads=[],
        features=[feature("layers.0", 64, rank=9, dead=3), feature("layers.2", 64, rank=40), feature("layers.4", 32)],
        training={
            "decay": 0.01,
            "coupled": False,
            "batches": 4,
            "units": [
                pull("layers.0", 3e-3, 2e-5, 0.94),
                pull("layers.2", 2e-3, 4e-3, 0.4),
                pull("layers.4", 1e-3, 0.02, 0.02),
            ],
        },
        verdict={
            "collapsed": True,
            "score": 0.81,
            "threshold": 0.2,
            "because": [
                "52 of the 64 units of layers.0 are twins or dead; a random network has none.",
                "The features of layers.0 have rank 9 of 64.",
            ],
            "by_decay": True,
            "sure": "Of 120 networks this rule found 97 % of the collapsed ones and called 2 % of the others so.",
        },
        advice=[
            {
                "do": "Attach syre with sigma = 1, in units of 1/sqrt(fan_in): syre.attach(optimizer, model, sigma=1).",
                "because": "Weight decay is the stronger pull on what tells the units of layers.0 apart.",
                "evidence": [
                    "Figure 5: accuracy 0.94 with syre at σ = 1 against 0.61 with plain decay at γ = 0.3 (10 seeds)."
                ],
                "sure": "Measured on MLPs and ResNets at this strength of decay; not on recurrent networks.",
            },
            {
                "do": "Or take the weight decay away.",
                "because": "Without decay nothing pulls the units together.",
                "evidence": ["Figure 5: accuracy 0.95 without decay.", "Table 1: the same on four data sets."],
                "sure": "It does not undo a collapse: train again from the start.",
            },
        ],
    )


def transformer_parts(layers=2, heads=8, width=128):
    sets, weights, attentions, features = [], [weight("embed.weight", 1000, width)], [], []
    sets.append(units("stream", width, made_by=["embed.weight[1]"], random=0.71))
    for layer in range(layers):
        name = f"blocks.{layer}"
        sets += [
            units(
                f"{name}.attn", heads, kind="heads", made_by=[f"{name}.attn.in_proj_weight[0]"], random=0.69, seed=layer
            ),
            units(f"{name}.mlp.fc1", 4 * width, seed=layer),
        ]
        weights += [
            weight(f"{name}.attn.in_proj_weight", 3 * width, width),
            weight(f"{name}.attn.out_proj.weight", width, width),
            weight(f"{name}.mlp.fc1.weight", 4 * width, width),
            weight(f"{name}.mlp.fc2.weight", width, 4 * width),
        ]
        size = width // heads
        effective = [size * (0.5 + 0.4 * math.sin(layer + head)) for head in range(heads)]
        ranks = {"rank/effective": effective, "rank": [size] * heads, "full": size}
        attentions.append(
            {
                "name": f"{name}.attn",
                "count": heads,
                "size": size,
                "equal": [],
                "query_key": ranks,
                "output_value": ranks,
            }
        )
        features += [feature(f"{name}.attn", width), feature(f"{name}.mlp", width)]
    return sets, weights, attentions, features


def healthy_transformer(layers=2, heads=8, width=128):
    sets, weights, attentions, features = transformer_parts(layers, heads, width)
    return Diagnosis(
        model={"class": "Transformer", "parameters": 12_345_678, "tensors": 12 * layers + 4},
        structure={
            "source": "guessed inputs",
            "inputs": "int64 [2, 16]",
            "why": None,
            "unread": ["pooler.weight", "pooler.bias"],
        },
        units=sets,
        weights=weights,
        heads=attentions,
        features=features,
        training=None,
        verdict={
            "collapsed": False,
            "score": 0.0,
            "threshold": 0.2,
            "because": ["No unit is symmetric."],
            "by_decay": False,
            "sure": "Of 120 networks 2 % of the healthy ones are called collapsed.",
        },
        advice=[
            {
                "do": "Nothing is wrong: change nothing.",
                "because": "No unit is symmetric, and no rank is low.",
                "evidence": [],
                "sure": "See above.",
            }
        ],
    )


def nothing_known():
    return Diagnosis(
        model={"class": "Thing", "parameters": 0, "tensors": 0},
        structure={
            "source": "none",
            "inputs": "",
            "why": "the forward pass asks for arguments that could not be guessed",
            "unread": [],
        },
        units=[],
        weights=[],
        heads=[],
        features=None,
        training=None,
        verdict={
            "collapsed": None,
            "score": 0.0,
            "threshold": 0.2,
            "because": [],
            "by_decay": None,
            "sure": "Nothing was measured.",
        },
        advice=[],
    )


EVIL = (
    "</title></svg><script>document.title='broken out'</script><img src=x onerror=alert(1)>\"'&\u2028\ud800\x00\x1b[31m"
)


def _replaced(value):
    """The same entry with names that want to break out, and numbers that are none."""
    if isinstance(value, dict):
        return {key: _replaced(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_replaced(entry) for entry in value]
    if isinstance(value, str):
        return EVIL
    if isinstance(value, bool) or value is None:
        return value
    return [math.nan, math.inf, None, -math.inf][int(abs(value) * 1000) % 4] if isinstance(value, float) else value


def evil():
    diagnosis = collapsed_mlp() | {"heads": healthy_transformer()["heads"]}
    kept = {"structure": diagnosis["structure"] | {"unread": [EVIL], "why": EVIL}}
    return Diagnosis(_replaced(diagnosis) | kept)


def large(count=54, width=512):
    """As many parts as a ResNet50 has."""
    names = [f"layer{1 + place // 12}.{place}.conv{1 + place % 3}" for place in range(count)]
    symmetric = [place * 7 % min(60, width) if place % 5 == 0 else 0 for place in range(count)]
    return Diagnosis(
        collapsed_mlp()
        | {
            "units": [
                units(name, width, some, seed=place)
                for place, (name, some) in enumerate(zip(names, symmetric, strict=True))
            ],
            "weights": [
                weight(f"{name}.weight", width, 64, 3, 3, rank=None if place % 4 else 20 + place)
                for place, name in enumerate(names)
            ],
            "features": [feature(name, width, rank=width - 5 * place % width or 1) for place, name in enumerate(names)],
            "heads": healthy_transformer(layers=12, heads=12, width=768)["heads"],
            "training": collapsed_mlp()["training"]
            | {"units": [pull(name, 1e-3, 10 ** (-1 - place % 4), place / count) for place, name in enumerate(names)]},
        }
    )


def damaged():
    """Small diagnoses, in each of which one entry, however deep, is None or missing."""
    whole = collapsed_mlp() | {"heads": healthy_transformer()["heads"]}
    return list(_damaged({key: entry[:1] if isinstance(entry, list) else entry for key, entry in whole.items()}))


def _damaged(value):
    if isinstance(value, list) and value:
        yield [None, *value[1:]] if isinstance(value[0], int | float) else []
        yield from ([changed, *value[1:]] for changed in _damaged(value[0]))
    if isinstance(value, dict):
        for key, entry in value.items():
            yield {**value, key: None}
            yield {name: other for name, other in value.items() if name != key}
            yield from ({**value, key: changed} for changed in _damaged(entry))
