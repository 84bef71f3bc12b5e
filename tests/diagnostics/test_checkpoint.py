"""Checkpoints as people have them: every nesting and format, what can be said without code, and every bad input."""

import argparse
import json
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import syre
from syre.__main__ import main
from syre.diagnostics.checkpoint import CheckpointError, diagnose_state, load
from syre.diagnostics.files import WORDS


def network() -> nn.Sequential:
    """Of its 6 hidden units, 0 and 1 have equal incoming weights, 2 and 3 opposite ones, and 4 is dead."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        for rows in (net[0].weight, net[0].bias):
            rows[1], rows[3], rows[4] = rows[0], -rows[2], 0
    return net


def told(state: dict) -> dict:
    """What a diagnosis says of `network`."""
    diagnosis = diagnose_state(state)
    json.dumps(diagnosis, allow_nan=False)
    return {
        e["name"]: [e[k] for k in ("rank", "dead_rows", "duplicate_rows", "opposite_rows")]
        for e in diagnosis["weights"]
    }


TOLD = {"0.weight": [3.0, 1, 2, 2], "2.weight": [3.0, 0, 0, 0]}


def as_safetensors(state: dict[str, torch.Tensor], **more: dict) -> bytes:
    """The bytes of a .safetensors."""
    words = {dtype: word for word, dtype in WORDS.items()}
    header, data = dict(more), b""
    for name, tensor in state.items():
        raw = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        place = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": words[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        data += raw
    return framed(json.dumps(header).encode(), data)


def framed(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# ---- what a state dict tells -----------------------------------------------------------------------------------------


def test_dead_and_equal_rows_are_told_and_what_needs_the_code_is_not():
    diagnosis = diagnose_state(network().state_dict())
    assert told(network().state_dict()) == TOLD
    assert diagnosis["model"] == {"class": "state dict", "parameters": 57, "tensors": 4, "buffers": 0}
    assert diagnosis["structure"]["source"] == "none"
    assert "syre.diagnose(model, batches)" in diagnosis["structure"]["why"]
    assert (diagnosis["units"], diagnosis["heads"], diagnosis["features"], diagnosis["training"]) == (
        [],
        [],
        None,
        None,
    )
    assert {"verdict", "advice"} <= diagnosis.keys()


def test_equal_weights_with_another_bias_are_no_equal_rows():
    state = network().state_dict()
    state["0.bias"][0] += 1
    assert told(state)["0.weight"] == [3.0, 1, 0, 2]
    del state["0.bias"]
    assert told(state)["0.weight"] == [3.0, 1, 2, 2]  # control: without a bias they are


def test_the_order_of_the_rows_does_not_matter():
    state = network().state_dict()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    state["0.weight"], state["0.bias"] = state["0.weight"][order], state["0.bias"][order]
    assert told(state) == TOLD


def test_wrappers_buffers_and_ties_are_seen_through():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
    net[3].weight = net[2].weight
    state = {f"module._orig_mod.{name}": tensor for name, tensor in net.state_dict().items()}
    state["h.attn.bias"] = torch.ones(9, 9).tril().view(1, 1, 9, 9)  # GPT-2's causal mask
    diagnosis = diagnose_state(state)
    assert [e["name"] for e in diagnosis["weights"]] == ["0.weight", "2.weight"]
    assert diagnosis["model"] | {"class": ""} == {
        "class": "", "parameters": sum(p.numel() for p in net.parameters()), "tensors": 5, "buffers": 4,
    }  # fmt: skip
    clash = {"module.weight": torch.eye(3), "weight": torch.eye(4)}
    assert {e["name"]: e["rows"] for e in diagnose_state(clash)["weights"]} == {"module.weight": 3, "weight": 4}


def test_the_module_form_of_syre_and_pruned_weights_are_what_the_forward_pass_sees():
    net = network()
    syre.parametrize(net, sigma=0.5, start="keep")
    assert told(net.state_dict()) == TOLD
    assert told({name: t for name, t in net.state_dict().items() if "anchor" not in name}) != TOLD  # control
    pruned = nn.Linear(5, 6)
    prune.random_structured(pruned, "weight", 2, 0)
    (entry,) = diagnose_state(pruned.state_dict())["weights"]
    assert (entry["name"], entry["dead_rows"], entry["rank"]) == ("weight", 2, 4.0)
    other = {"w_orig": torch.eye(4), "w_mask": torch.ones(3, 3)}  # of another shape: no mask of it
    assert [entry["name"] for entry in diagnose_state(other)["weights"]] == ["w_orig", "w_mask"]


def test_tensors_that_are_no_real_matrix_are_named():
    packed = {f"packed{i}": torch.ones(4, 4, dtype=torch.int8) for i in range(5)}
    why = diagnose_state({"w": torch.eye(3), **packed})["structure"]["why"]
    assert why.endswith("left out, as no matrices of real numbers: packed0, packed1, packed2 and 2 more")
    assert "left out" not in diagnose_state({"w": torch.eye(3)})["structure"]["why"]


# ---- every way to save one -------------------------------------------------------------------------------------------


def train(net: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 5)).sum().backward()
    optimizer.step()
    return optimizer


def nestings() -> dict[str, dict]:
    net = network()
    state, optimizer = OrderedDict(net.state_dict()), train(network()).state_dict()
    attached = train(other := network())
    handle = syre.attach(attached, other, weight_decay=1e-2, start="keep")
    more = {"step": torch.tensor(3), "note": "text", "loss": 0.5, "sizes": [1, 2], "nothing": None}
    return {
        "plain": state,
        "with metadata": {**state, "epoch": 3},
        "Lightning": {"state_dict": state, "optimizer_states": [optimizer], "hyper_parameters": {"lr": 0.1}, **more},
        "timm": {
            "epoch": 1,
            "arch": "x",
            "state_dict": state,
            "optimizer": optimizer,
            "state_dict_ema": state,
            "version": 2,
        },
        "fairseq": {"args": None, "cfg": {"lr": [1]}, "model": state, "last_optimizer_state": optimizer, **more},
        "DeepSpeed": {"module": state, "buffer_names": [], "optimizer": None, "ds_config": {}, "ds_version": "0"},
        "examples": {"model_state_dict": state, "optimizer_state_dict": optimizer, **more},
        "model_state": {"model_state": state, **more},
        "network": {"network": state, "optimizer": optimizer},
        "params": {"params": state, "params_ema": {}},
        "twice": {"model": {"state_dict": state}, "optimizer": {"optimizer": optimizer}},
        "syre": {"model": state, "optimizer": attached.state_dict(), "syre": handle.state_dict()},
    }


@pytest.mark.parametrize("name", nestings())
def test_the_state_dict_is_found_inside_what_a_trainer_saves(name, tmp_path):
    for zipped in (True, False):
        torch.save(nestings()[name], tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
        state = load(tmp_path / "model.pt")
        assert same(state, dict(network().state_dict()))
    assert told(state) == TOLD


def test_several_networks_side_by_side_are_all_read(tmp_path):
    state, optimizer = network().state_dict(), train(network()).state_dict()
    torch.save({"actor": state, "critic": {"net": state}, "actor_optimizer": optimizer}, tmp_path / "agent.pt")
    names = {f"{prefix}.{name}" for prefix in ("actor", "critic.net") for name in state}
    assert load(tmp_path / "agent.pt").keys() == names


@pytest.mark.skipif(not hasattr(torch.serialization, "safe_globals"), reason="torch 2.5 and later")
def test_settings_and_numbers_of_numpy_beside_the_weights_are_read_and_no_other_object(tmp_path):
    beside = {"args": argparse.Namespace(lr=0.1, out=Path("here")), "best": np.float64(0.5), "epoch": np.int64(3)}
    torch.save({"model": network().state_dict(), **beside}, tmp_path / "model.pt")
    assert same(load(tmp_path / "model.pt"), network().state_dict())
    before = set(torch.serialization.get_safe_globals())
    torch.save({"model": network().state_dict(), "args": argparse.ArgumentParser}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"holds argparse.ArgumentParser, which needs weights_only=False"):
        load(tmp_path / "model.pt")
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_safetensors_file_is_read_in_every_type(tmp_path):
    every = {word: torch.arange(6).view(2, 3).to(dtype) for word, dtype in WORDS.items()}
    state = {**every, "empty": torch.empty(0, 3), "scalar": torch.tensor(2.5)}
    (tmp_path / "model.safetensors").write_bytes(as_safetensors(state, __metadata__={"format": "pt"}))
    read = load(tmp_path / "model.safetensors")
    assert [(t.dtype, t.shape) for t in read.values()] == [(t.dtype, t.shape) for t in state.values()]
    assert all(torch.equal(read[name].float(), state[name].float()) for name in state if name != "C64")
    assert torch.equal(read["C64"], state["C64"])
    read["F32"] += 1  # a copy: the file stays
    assert torch.equal(load(tmp_path / "model.safetensors")["F32"], state["F32"])


def in_shards(folder: Path, ending: str) -> Path:
    """A folder as transformers saves it, of a model in two files."""
    folder.mkdir()
    state = network().state_dict()
    parts = [{n: t for n, t in state.items() if n.startswith(first)} for first in ("0", "2")]
    stem = "model" if ending == "safetensors" else "pytorch_model"
    places = {}
    for number, part in enumerate(parts, 1):
        file = folder / f"{stem}-0000{number}-of-00002.{ending}"
        file.write_bytes(as_safetensors(part)) if ending == "safetensors" else torch.save(part, file)
        places |= dict.fromkeys(part, file.name)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 228}, "weight_map": places}))
    for name in ("config.json", "README.md"):
        (folder / name).write_text("{}")
    torch.save(train(network()).state_dict(), folder / "optimizer.pt")
    torch.save({}, folder / "training_args.bin")
    return index


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_are_read_by_their_index_and_by_their_folder(ending, tmp_path):
    index = in_shards(tmp_path / "model", ending)
    assert same(load(index), network().state_dict())
    assert same(load(tmp_path / "model"), network().state_dict())
    index.unlink()
    with pytest.raises(CheckpointError, match=r"holds several checkpoints, name one: .*-00001-of-00002"):
        load(tmp_path / "model")
    for file in tmp_path.glob("model/*-00002-*"):
        file.unlink()
    assert load(tmp_path / "model").keys() == {"0.weight", "0.bias"}


# ---- bad input -------------------------------------------------------------------------------------------------------


class Custom:
    """Not to be unpickled: it would write a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.write_text, (self.mark, "run"))


def bad(folder: Path) -> dict[str, tuple[Path, str]]:
    """Case -> a path and what the error says of it."""
    state, cases = network().state_dict(), {}

    def case(name: str, content: object, says: str) -> None:
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        cases[name] = (path, says)

    cases["missing"] = (folder / "missing.pt", "No such file")
    (folder / "empty folder").mkdir()
    cases["folder"] = (folder / "empty folder", r"holds no checkpoint: \*\.safetensors, .* or \*\.ckpt")
    (folder / "dcp").mkdir()
    (folder / "dcp/.metadata").touch()
    cases["distributed"] = (folder / "dcp", "dcp_to_torch")
    case("empty.pt", b"", "is empty")
    case("words.txt", b"hello world\n", "is no file of torch.save, or damaged; a checkpoint is one of")
    case("other pickle.pkl", pickle.dumps({"a": 1}), "is no file of torch.save")
    case("other zip.zip", b"PK\x03\x04" + bytes(99), "zip file that torch.save did not write")
    case(
        "module.pt",
        network(),
        r"holds torch\.nn\..*, which needs weights_only=False, .*save model.state_dict\(\) instead",
    )
    case("custom.pt", {**state, "x": Custom(folder / "was run")}, "weights_only=False")
    torch.jit.script(nn.Linear(2, 2)).save(folder / "script.pt")
    cases["script"] = (folder / "script.pt", "TorchScript")
    case("tensor.pt", torch.eye(3), "holds a Tensor, not a state dict")
    case("list.pt", [state], "holds a list, not a state dict")
    case("nothing.pt", {}, "holds no tensors of a model, but nothing")
    case("numbers.pt", {"epoch": 3, "lr": 0.1}, "holds no tensors of a model, but epoch, lr")
    case("optimizer.pt", train(network()).state_dict(), "is the state of an optimizer")
    case("optimizers.pt", {"optimizer": train(network()).state_dict()}, "holds no tensors of a model, but optimizer")
    case("buffers.pt", {"n.running_mean": torch.zeros(3)}, "1 tensors, and no parameter")
    nan = {**state, "0.weight": state["0.weight"].clone()}
    nan["0.weight"][0, 0], nan["0.weight"][1, 2] = torch.nan, torch.inf
    case("nan.pt", nan, "2 of the 30 numbers of 0.weight are NaN or infinite")
    for zipped in (True, False):
        torch.save(state, folder / "whole.pt", _use_new_zipfile_serialization=zipped)
        whole = (folder / "whole.pt").read_bytes()
        for share in (0.1, 0.5, 0.99):
            case(f"truncated {zipped} {share}.pt", whole[: int(len(whole) * share)], "damaged")
    return cases | bad_safetensors(folder) | bad_shards(folder)


def bad_safetensors(folder: Path) -> dict[str, tuple[Path, str]]:
    def about(**changes: object) -> bytes:
        return json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}).encode()

    whole = as_safetensors(network().state_dict())
    two = {"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}
    contents = {
        "short": (b"abc", "its header would have"),
        "long header": (b"\xff" * 8 + b"{}", "its header would have"),
        "text": (b"no safetensors at all, but text", "its header would have"),
        "no JSON": (framed(b"{abc"), "its header is no JSON"),
        "no words": (framed(b"\xff\xfe\xfd"), "its header is no JSON"),
        "deep": (framed(b"[" * 100000), "its header is no JSON"),
        "a list": (framed(b"[]"), "its header is no JSON object"),
        "no entry": (framed(b'{"w": 3}'), "w has no dtype, shape and data_offsets"),
        "no dtype": (framed(about(dtype=3), bytes(8)), "w has no dtype, shape and data_offsets"),
        "unknown dtype": (framed(about(dtype="F3"), bytes(8)), "the dtype of w is F3, which is none of BOOL, "),
        "negative": (framed(about(shape=[-2]), bytes(8)), "w has no dtype, shape and data_offsets"),
        "fraction": (framed(about(shape=[2.0]), bytes(8)), "w has no dtype, shape and data_offsets"),
        "three offsets": (framed(about(data_offsets=[0, 4, 8]), bytes(8)), "w has no dtype, shape and data_offsets"),
        "shape": (framed(about(shape=[3]), bytes(8)), r"w has 8 bytes for shape \[3\]"),
        "backwards": (framed(about(data_offsets=[8, 0]), bytes(8)), r"w has -8 bytes"),
        "behind": (framed(about(data_offsets=[8, 16]), bytes(8)), "w ends at byte"),
        "truncated": (whole[:-1], "ends at byte"),
        "too long": (whole + b"x", "leave bytes between or behind"),
        "overlap": (framed(json.dumps({**two, "b": two["a"]}).encode(), bytes(4)), "overlap"),
        "empty": (framed(b"{}"), "holds no tensors of a model, but nothing"),
    }
    for name, (content, _) in contents.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    return {f"{name}.safetensors": (folder / f"{name}.safetensors", says) for name, (_, says) in contents.items()}


def bad_shards(folder: Path) -> dict[str, tuple[Path, str]]:
    lost = in_shards(folder / "lost", "safetensors")
    (lost.parent / "model-00002-of-00002.safetensors").unlink()
    short = in_shards(folder / "short", "safetensors")
    (short.parent / "model-00002-of-00002.safetensors").write_bytes(as_safetensors({"x": torch.eye(2)}))
    outside = folder / "outside.safetensors.index.json"
    outside.write_text(json.dumps({"weight_map": {"w": "../secret.safetensors"}}))
    other = folder / "other.index.json"
    other.write_text("[1, 2]")
    return {
        "lost": (lost, "model-00002-of-00002.safetensors: No such file"),
        "short": (short.parent, "names tensors that its files do not have: 2.bias, 2 in all"),
        "outside": (outside, "is no index: it has no weight_map of tensors to files beside it"),
        "other": (other, "is no index"),
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_every_bad_checkpoint_is_one_line_and_exit_code_2_and_nothing_is_written(tmp_path, capfd):
    (tmp_path / "bad").mkdir()
    (tmp_path / "out").mkdir()
    page, numbers = tmp_path / "out/page.html", tmp_path / "out/numbers.json"
    page.write_text("an older page")
    cases = bad(tmp_path / "bad")
    assert len(cases) > 45
    for path, says in cases.values():
        code = main(["diagnose", str(path), "--html", str(page), "--json", str(numbers)])
        out, err = capfd.readouterr()
        assert (code, out) == (2, ""), path
        assert err.startswith("error: "), err
        assert err.count("\n") == 1, err
        assert str(path) in err or path.name in err or str(path.parent) in err, err
        with pytest.raises(AssertionError, match=says):
            raise AssertionError(err)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["page.html"]
    assert page.read_text() == "an older page"
    assert not (tmp_path / "bad/was run").exists()
    torch.load(tmp_path / "bad/custom.pt", weights_only=False)
    assert (tmp_path / "bad/was run").exists()  # control


def test_a_diagnosis_of_no_state_dict_or_of_parts_of_one_says_so():
    with pytest.raises(CheckpointError, match="maps names to tensors, and this is a Sequential"):
        diagnose_state(network())
    part = type("DTensor", (torch.Tensor,), {})
    with pytest.raises(CheckpointError, match="w is one process's part of a tensor"):
        diagnose_state({"w": torch.eye(3).as_subclass(part)})


# ---- the command line ------------------------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_writes_page_and_numbers(tmp_path, capfd):
    torch.save(network().state_dict(), tmp_path / "net.pt")
    page, numbers = tmp_path / "page.html", tmp_path / "numbers.json"
    assert main(["diagnose", str(tmp_path / "net.pt"), "--html", str(page), "--json", str(numbers)]) == 0
    out, err = capfd.readouterr()
    diagnosis = diagnose_state(load(tmp_path / "net.pt"))
    assert (out.strip(), err) == (str(diagnosis).strip(), "")
    assert json.loads(numbers.read_text()) == diagnosis
    assert "<html" in page.read_text()
    assert {file.name for file in tmp_path.iterdir()} == {"net.pt", "page.html", "numbers.json"}
    assert main(["diagnose", str(tmp_path / "net.pt")]) == 0
    assert capfd.readouterr().out == out


@pytest.mark.parametrize("option", ["--html", "--json"])
def test_a_link_stays_a_link_and_a_pipe_is_not_replaced(option, tmp_path, capfd):
    torch.save(network().state_dict(), tmp_path / "net.pt")
    link, file, pipe = tmp_path / "link", tmp_path / "file", tmp_path / "pipe"
    link.symlink_to(file)
    assert main(["diagnose", str(tmp_path / "net.pt"), option, str(link)]) == 0
    assert link.is_symlink()
    assert file.stat().st_size > 1000
    os.mkfifo(pipe)
    capfd.readouterr()
    assert main(["diagnose", str(tmp_path / "net.pt"), option, str(pipe)]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{option} {pipe} is no file but a pipe or a device" in err
    assert pipe.is_fifo()
    assert {one.name for one in tmp_path.iterdir()} == {"net.pt", "link", "file", "pipe"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--json", "{net}"], "--json {net} would replace a checkpoint"),
        (["--html", "{same}"], "--html {same} is the checkpoint itself"),
        (["--html", "{folder}"], "--html {folder} is a folder: name a file"),
        (["--html", "{folder}/none/page.html"], "there is no folder {folder}/none"),
        (["--html", "{folder}/x", "--json", "{folder}/x"], "--html and --json are both {folder}/x"),
        (["--pdf", "x"], "unrecognized arguments: --pdf x"),
        (["--html"], "argument --html: expected one argument"),
    ],
)
def test_what_cannot_be_written_is_one_line_before_anything_is_read(words, says, tmp_path, capfd):
    paths = {"net": tmp_path / "net.pt", "same": tmp_path / "same", "folder": tmp_path}
    torch.save(network().state_dict(), paths["net"])
    torch.save(network().state_dict(), paths["same"])
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    try:
        code = main(["diagnose", str(paths["same"]), *(word.format(**paths) for word in words)])
    except SystemExit as exit:
        code = exit.code
    out, err = capfd.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says.format(**paths) in err
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_page_that_cannot_be_written_leaves_the_numbers_unwritten_too(tmp_path, capfd, monkeypatch):
    torch.save(network().state_dict(), tmp_path / "net.pt")
    (tmp_path / "numbers.json").write_text("old")

    def full(diagnosis, path):
        Path(path).write_text("half a pa")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("syre.diagnostics.diagnosis.Diagnosis.save", full)
    words = ["--html", str(tmp_path / "page.html"), "--json", str(tmp_path / "numbers.json")]
    assert main(["diagnose", str(tmp_path / "net.pt"), *words]) == 2
    assert "No space left on device" in capfd.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"net.pt", "numbers.json"}
    assert (tmp_path / "numbers.json").read_text() == "old"


def test_alone_it_helps_and_it_says_its_version(capfd):
    assert main([]) == 0
    assert "diagnose" in capfd.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capfd.readouterr().out == f"syre {syre.__version__}\n"
    with pytest.raises(SystemExit, match="2"):
        main(["diagnoze"])
    assert "'diagnoze'" in capfd.readouterr().err


@pytest.mark.slow
def test_it_is_a_module_that_runs(tmp_path):
    torch.save(network().state_dict(), tmp_path / "net.pt")
    command = [sys.executable, "-m", "syre", "diagnose", str(tmp_path / "net.pt")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
