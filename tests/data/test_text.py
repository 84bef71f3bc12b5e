"""The text of the standard library: which files, how they are split and cut, and its bytes renamed."""

import pytest
import torch

from syre.data import DataError, Text, text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A library of forty modules, number k of 100 times the byte k + 100, and what is no part of it."""
    place = tmp_path / "python"
    (place / "email/tests").mkdir(parents=True)
    (place / "site-packages").mkdir()
    for k in range(40):
        (place / ("email" if k % 2 else ".") / f"m{k:02}.py").write_bytes(bytes([k + 100]) * 100)
    for other in ("email/tests/test_a.py", "site-packages/b.py", "c.txt"):
        (place / other).write_bytes(b"!" * 1000)
    monkeypatch.setattr(text, "library", lambda: place)
    text._read.cache_clear()
    text._cut.cache_clear()
    yield place
    text._read.cache_clear()
    text._cut.cache_clear()


def files_of(windows: torch.Tensor) -> set[int]:
    return {int(byte) - 100 for byte in windows.unique() if byte}


def test_one_file_in_twenty_is_held_out_and_none_is_in_both(folder):
    data = Text(context=8).load()
    train, test = (files_of(x) for x in (data.train_inputs, data.test_inputs))
    assert len(test) == 2
    assert train | test == {*range(40)}
    assert not train & test


def test_the_split_is_shuffled_and_the_same_for_all_seeds(folder):
    held = files_of(Text(context=8).load(seed=0).test_inputs)
    assert held == files_of(Text(context=8).load(seed=5).test_inputs)
    assert held != {38, 39}
    assert Text(context=8).load(seed=0) is Text(context=8).load(seed=5)


def test_each_target_is_the_byte_after_and_windows_cover_the_text_once(folder):
    data = Text(context=8).load()
    source = text._read(folder)
    assert torch.equal(data.train_inputs.flatten(), source.train[: data.train_inputs.numel()])
    assert torch.equal(data.train_targets.flatten(), source.train[1 : data.train_inputs.numel() + 1])
    assert len(source.train) - data.train_inputs.numel() <= 8
    assert (source.train == 0).sum() == 37  # between 38 files
    assert (data.train_inputs.dtype, data.train_targets.dtype) == (torch.int32, torch.int64)
    assert data.num_classes == 256


def test_fewer_windows_are_spread_over_the_text(folder):
    whole, few = Text(context=8).load(), Text(context=8, samples=40, test_samples=2).load()
    assert (len(few.train_inputs), len(few.test_inputs)) == (40, 2)
    places = (few.train_inputs[[0, -1]] == whole.train_inputs[[0, -1]]).all()
    assert places
    assert len(files_of(few.train_inputs)) > 30


def test_what_was_read_is_known_by_its_digest_in_whatever_order_files_are_listed(folder, monkeypatch):
    text._read.cache_clear()
    assert text.what_was_read() == {}
    Text(context=8).load()
    first = text.what_was_read()["text"]
    assert "40 files, 4000 bytes" in first
    listed = text._modules(folder)
    monkeypatch.setattr(text, "_modules", lambda _: listed[::-1])
    text._read.cache_clear()
    assert text._read(folder).what == first
    (folder / "m00.py").write_bytes(b"x" * 100)
    text._read.cache_clear()
    assert text._read(folder).what != first  # control


def test_each_further_task_renames_the_bytes_by_a_permutation_of_the_seed(folder):
    data, other = Text(context=8, tasks=3).load(seed=0), Text(context=8, tasks=3).load(seed=1)
    assert data.stages == 3
    assert data.alphabets[0].tolist() == list(range(256))
    assert (data.alphabets.sort(1).values == torch.arange(256)).all()
    assert len(data.alphabets.unique(dim=0)) == 3
    assert not torch.equal(data.alphabets[1:], other.alphabets[1:])
    assert Text(context=8, tasks=3).load(seed=0) is data
    assert data.train_inputs is other.train_inputs
    assert torch.equal(Text(context=8, tasks=2).load(seed=0).alphabets, data.alphabets[:2])


def test_the_library_of_this_python_is_read():
    data = Text(samples=1000, test_samples=100).load()
    assert data.input_shape == (128,)
    read = bytes(data.train_inputs.flatten().tolist())
    assert b"import" in read
    assert "blake2b" in text.what_was_read()["text"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": 0}, "data.context must be an integer > 0, got 0"),
        ({"tasks": 0}, "data.tasks must be an integer > 0, got 0"),
        ({"samples": -1}, "data.samples must be a number >= 0"),
        ({"test_samples": -1}, "data.test_samples must be a number >= 0"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Text(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 10**6}, r"data\.samples must be at most 479, the windows there are, got 1000000"),
        ({"test_samples": 99}, r"data\.test_samples must be at most 25, the windows there are, got 99"),
        ({"context": 300}, r"data\.context must be less than the 201 bytes there are, got 300"),
    ],
)
def test_more_than_there_is_is_refused(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        Text(**{"context": 8} | settings).load()


def test_a_library_without_source_is_one_line_that_names_it(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "library", lambda: tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"data=text reads .*, and .*nowhere has no \*\.py files: use a Python that"
    ) as e:
        Text().load()
    assert "\n" not in str(e.value)
