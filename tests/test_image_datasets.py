"""MNIST and its like: idx files are read strictly, parts stay parts."""

from __future__ import annotations

import gzip
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given
from hypothesis import strategies as st

from wsflow.exceptions import InvalidInputError
from wsflow.populations import datasets
from wsflow.populations.datasets import load_task, task_from_source
from wsflow.populations.readers import read_idx


def idx(array: np.ndarray) -> bytes:
    """The bytes of an idx file."""
    lengths = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


def write(folder: Path, zipped: bool = True, n: int = 30) -> Path:
    """Four small files, the images 2 x 3."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, size in (("train", n), ("t10k", 12)):
        images, labels = rng.integers(256, size=(size, 2, 3)), rng.integers(10, size=size)
        labels[:10] = np.arange(10)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{part}-{kind}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    return folder


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("name", "subfolder"), [("mnist", "mnist"), ("fashion_mnist", "fashion")])
def test_the_folder_of_the_environment_variable_is_read(tmp_path, monkeypatch, name, subfolder, zipped):
    write(tmp_path / subfolder, zipped)
    monkeypatch.setenv("WSFLOW_DATA", str(tmp_path))
    task = load_task(name)
    assert [len(part.X) for part in (task, task.validation, task.test)] == [25, 5, 12]
    assert (task.n_inputs, task.n_outputs, task.X.dtype, task.loss) == (6, 10, np.float32, "cross_entropy")
    assert task.X.min() >= 0 and 0.9 < task.X.max() <= 1
    assert task_from_source(task.source, task.checksum).checksum == task.checksum
    assert load_task(name, seed=1).checksum != task.checksum


def test_validation_is_a_part_of_training_and_the_test_part_stays(tmp_path, monkeypatch):
    write(tmp_path / "mnist")
    monkeypatch.setenv("WSFLOW_DATA", str(tmp_path))
    one, two = load_task("mnist", seed=0), load_task("mnist", seed=1)
    np.testing.assert_array_equal(one.test.X, two.test.X)
    rows = [sorted(map(tuple, np.concatenate([task.X, task.validation.X]))) for task in (one, two)]
    assert rows[0] == rows[1]
    expected = read_idx(tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz", 3).reshape(12, 6) / np.float32(255)
    np.testing.assert_array_equal(one.test.X, expected)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=3), st.booleans())
def test_what_was_written_is_read(shape, zipped):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("idx.gz" if zipped else "idx")
        path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
        np.testing.assert_array_equal(read_idx(path, len(shape)), array)


GOOD = idx(np.arange(12).reshape(3, 2, 2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no idx file"),
        (b"\x00\x00\x0d\x03" + GOOD[4:], "begins with '00 00 0d 03'"),
        (b"\x00\x00\x08\x01" + GOOD[4:], "instead of '00 00 08 03'"),
        (GOOD[:9], "ends within its header"),
        (GOOD[:-1], "12 values of shape .*, but there are 11"),
        (GOOD + b"\x00", "but there are more"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "At most"),
        (b"\x00\x00\x08\x03" + bytes(4) + b"\xff" * 8, "At most"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_bad_idx_files_are_refused_by_name(tmp_path, content, message, zipped):
    path = tmp_path / ("bad-ubyte.gz" if zipped else "bad-ubyte")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_idx(path, 3)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_and_exploding_gzip_files_are_refused(tmp_path):
    path = tmp_path / "a.gz"
    packed = gzip.compress(GOOD)
    for content in (b"no gzip", packed[:-9], packed[:12] + b"\xff\xff\xff" + packed[15:]):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match="damaged"):
            read_idx(path, 3)
    shape = (10**4, 100, 100)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in shape) + bytes(10**6)))
    with pytest.raises(InvalidInputError, match="announces 100000000 bytes in a file of"):
        read_idx(path, 3)
    with pytest.raises(InvalidInputError, match="no such file"):
        read_idx(tmp_path / "gone", 3)


def test_missing_files_and_parts_that_do_not_go_together_are_named(tmp_path, monkeypatch):
    folder = write(tmp_path / "mnist")
    monkeypatch.setenv("WSFLOW_DATA", str(tmp_path))
    images, labels = (folder / f"t10k-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    images.write_bytes(gzip.compress(idx(np.zeros((12, 2, 0)))))
    with pytest.raises(InvalidInputError, match=r"images of 't10k' have the shape \(2, 0\), without pixels"):
        load_task("mnist")
    labels.write_bytes(gzip.compress(idx(np.zeros(5))))
    with pytest.raises(InvalidInputError, match="12 images and 5 labels of 't10k'"):
        load_task("mnist")
    labels.unlink()
    with pytest.raises(InvalidInputError, match=r"t10k-labels-idx1-ubyte: there is no such file, nor .*gz"):
        load_task("mnist")


def test_without_a_folder_the_data_come_from_openml(monkeypatch):
    monkeypatch.delenv("WSFLOW_DATA", raising=False)
    monkeypatch.setitem(datasets.DATASETS, "mnist", datasets.ImageDataset("mnist", 554, n_training=24))
    X, y = np.arange(36 * 4.0).reshape(36, 4), np.array([str(i % 10) for i in range(36)])
    asked = {}

    def fetch(**keywords):
        asked.update(keywords)
        return X, y

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    task = load_task("mnist")
    assert asked["data_id"] == 554 and (len(task.X), len(task.validation.X), len(task.test.X)) == (20, 4, 12)
    np.testing.assert_array_equal(task.test.y, [i % 10 for i in range(24, 36)])
    np.testing.assert_allclose(task.test.X, X[24:] / 255, rtol=1e-6)

    def offline(**keywords):
        raise OSError("no network")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
    with pytest.raises(InvalidInputError, match="Set the environment variable WSFLOW_DATA"):
        load_task("mnist")


@pytest.mark.skipif("WSFLOW_DATA" not in os.environ, reason="WSFLOW_DATA names no folder with the idx files")
def test_the_original_files():
    task = load_task("mnist")
    assert (len(task.X), len(task.validation.X), len(task.test.X), task.n_inputs) == (55000, 5000, 10000, 784)
    assert np.bincount(task.test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
