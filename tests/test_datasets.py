"""Tasks: the table, the split, and the user's own files."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from wsflow.exceptions import InvalidInputError
from wsflow.populations.datasets import DATASETS, Dataset, load_task, split_task, task_from_source


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if isinstance(row, Dataset)])
def test_every_task_of_the_table(name):
    task = load_task(name)
    X, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    parts = (task, task.validation, task.test)
    assert sum(len(part.X) for part in parts) == len(X)
    assert (task.n_inputs, task.loss, task.X.dtype) == (X.shape[1], DATASETS[name].loss, np.float32)
    assert task.n_outputs == (y.max() + 1 if task.is_classification else y.reshape(len(y), -1).shape[1])
    deviation = task.X.std(axis=0)
    assert np.isclose(deviation, 1, atol=1e-3).mean() > 0.8 and np.isclose(deviation, 0, atol=1e-3).mean() < 0.2
    assert np.abs(task.X.mean(axis=0)).max() < 1e-3
    if not task.is_classification:
        np.testing.assert_allclose(task.y.mean(axis=0), 0, atol=1e-3)
        np.testing.assert_allclose(task.y.std(axis=0), 1, atol=1e-3)


def test_the_split_is_that_of_the_thesis():
    X, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    X_training, X_rest, y_training, y_rest = train_test_split(X, y, test_size=0.2, random_state=42)
    X_validation, X_test, y_validation, y_test = train_test_split(X_rest, y_rest, test_size=0.5, random_state=42)
    scaler = StandardScaler().fit(X_training)
    task = load_task("breast_cancer")
    expected = [(X_training, y_training), (X_validation, y_validation), (X_test, y_test)]
    for part, (inputs, targets) in zip((task, task.validation, task.test), expected, strict=True):
        np.testing.assert_allclose(part.X, scaler.transform(inputs), atol=1e-5)
        np.testing.assert_array_equal(part.y, targets)


def test_another_seed_is_another_split():
    assert load_task("iris").checksum == load_task("iris").checksum != load_task("iris", seed=0).checksum


@given(st.integers(10, 40), st.integers(0, 10))
def test_standardizing_uses_training_statistics_only(n, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, 2)), rng.normal(size=n)
    task = split_task(X, y, "mse", seed=seed)
    moved = X.copy()
    last = train_test_split(
        train_test_split(np.arange(n), test_size=0.2, random_state=seed)[1], test_size=0.5, random_state=seed
    )[1]
    moved[last] *= 100
    np.testing.assert_array_equal(split_task(moved, y, "mse", seed=seed).X, task.X)


def test_a_column_that_never_varies_in_training_is_zero_everywhere():
    X = np.column_stack([np.arange(20.0), np.zeros(20)])
    held_out = train_test_split(np.arange(20), test_size=0.2, random_state=42)[1]
    X[held_out, 1] = 5
    task = split_task(X, np.arange(20.0), "mse")
    assert not any(part.X[:, 1].any() for part in (task, task.validation, task.test))


def write_csv(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_csv_with_and_without_header_is_one_task(tmp_path):
    rows = [f"{i},{i * i % 7},{'ham' if i % 3 else 'eggs'}" for i in range(30)]
    bare = load_task(write_csv(tmp_path / "bare.csv", rows))
    headed = load_task(write_csv(tmp_path / "headed.csv", ["a,b,label", *rows]))
    assert bare.checksum == headed.checksum
    assert bare.n_outputs == 2
    # sorted labels: eggs is 0, a third of the rows
    assert sum((part.targets == 0).sum() for part in (bare, bare.validation, bare.test)) == 10


def test_csv_target_by_name_and_index(tmp_path):
    path = write_csv(tmp_path / "a.csv", ["y,a,b", *(f"{i % 2},{i},{i * i}" for i in range(20))])
    by_name, by_index = load_task(path, target="y"), load_task(path, target=0)
    assert by_name.checksum == by_index.checksum != load_task(path).checksum
    assert (by_name.loss, load_task(path).loss) == ("cross_entropy", "mse")


@pytest.mark.parametrize(
    ("targets", "loss"),
    [
        ([i % 3 for i in range(30)], "cross_entropy"),
        ([i % 3 + 0.5 for i in range(30)], "cross_entropy"),
        ([i / 7 for i in range(30)], "mse"),
        (list(range(30)), "mse"),
        ([f"label{i % 25}" for i in range(30)], "cross_entropy"),
    ],
)
def test_many_numbers_are_a_regression_everything_else_classes(tmp_path, targets, loss):
    task = load_task(write_csv(tmp_path / "a.csv", [f"{i},{i**2},{t}" for i, t in enumerate(targets)]))
    assert task.loss == loss


def test_loss_overrides_the_guess(tmp_path):
    path = write_csv(tmp_path / "a.csv", [f"{i},{i % 2}" for i in range(30)])
    assert load_task(path, loss="mse").n_outputs == 1
    assert load_task(path).n_outputs == 2


def test_semicolons_quotes_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + b'"a";"b"\n' + b"".join(b'"%d";"%d"\n\n' % (i, i % 2) for i in range(20)))
    assert load_task(path).n_inputs == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty"),
        (["1,2", "1,2,3"], "line 2 has 3 values"),
        (["1,2,0", "1,x,1", "1,2,0"], "line 2, column 1: 'x'"),
        (["a,b,y", "1,nan,0"], "line 2, column b: 'nan'"),
        (["a,b,y", "1,,0"], "column b: ''"),
        (["1,2,0", "1,2,"], "line 2 has no target"),
        (["1", "2"], "one input and one target"),
        (["a,b", "1,2"], "at least 10 examples"),
        ([f"{i},same" for i in range(20)], "at least two classes"),
        ([f"{i},inf" for i in range(20)], "not finite everywhere: infinity in row 0"),
        (['"1,2'], "no csv file"),
    ],
)
def test_bad_csv_files_are_refused_with_the_place(tmp_path, rows, message):
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(rows))
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_task(path)
    assert "bad.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [({"target": "z"}, "no column 'z'"), ({"target": 9}, "no column 9"), ({"loss": "mse", "target": "c"}, "labels")],
)
def test_wrong_columns_are_refused(tmp_path, keywords, message):
    path = write_csv(tmp_path / "a.csv", ["a,b,c", *(f"{i},{i},x{i % 2}" for i in range(20))])
    with pytest.raises(InvalidInputError, match=message):
        load_task(path, **keywords)


def test_binary_garbage_is_no_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(InvalidInputError, match="no csv file"):
        load_task(path)


def test_npz_classification_and_multi_output_regression(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    np.savez(tmp_path / "a.npz", X=X, y=np.array(["b", "a"] * 20))
    np.savez_compressed(tmp_path / "b.npz", X=X.astype(np.float32), y=rng.normal(size=(40, 2)))
    classes, reals = load_task(tmp_path / "a.npz"), load_task(tmp_path / "b.npz")
    assert (classes.loss, classes.n_outputs, reals.loss, reals.n_outputs) == ("cross_entropy", 2, "mse", 2)


@pytest.mark.parametrize("labels", [np.arange(40) % 2, np.array(["a", "b"] * 20), np.linspace(0, 1, 40)])
def test_one_column_of_targets_is_what_they_are(tmp_path, labels):
    X = np.random.default_rng(0).normal(size=(40, 3))
    np.savez(tmp_path / "column.npz", X=X, y=labels[:, None])
    np.savez(tmp_path / "plain.npz", X=X, y=labels)
    column, plain = (load_task(tmp_path / f"{name}.npz") for name in ("column", "plain"))
    assert column.loss == plain.loss and column.checksum == plain.checksum


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_decompression_bombs_and_lying_shapes_are_refused_before_loading(tmp_path):
    small = header((20,)) + bytes(160)
    bomb = npz(tmp_path / "bomb.npz", X=header((20, 10**7 // 20)) + bytes(8 * 10**7), y=small)
    with pytest.raises(InvalidInputError, match="would unpack from"):
        load_task(bomb)
    liar = npz(tmp_path / "liar.npz", X=header((20, 10**15)) + bytes(160), y=small)
    with pytest.raises(InvalidInputError, match="does not go with its size"):
        load_task(liar)


def test_npz_with_objects_is_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    np.savez(tmp_path / "a.npz", X=np.array([[Bomb()]], dtype=object), y=np.zeros(1))
    with pytest.raises(InvalidInputError, match="Python objects"):
        load_task(tmp_path / "a.npz")
    assert not (tmp_path / "exploded").exists()


def test_other_bad_npz_files(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 no archive")
    np.savez(tmp_path / "b.npz", inputs=np.eye(3), y=np.zeros(3))
    np.savez(tmp_path / "c.npz", X=np.ones(20), y=np.zeros(20))
    npz(tmp_path / "d.npz", X=b"nonsense", y=b"")
    # a bracket that is never closed
    npz(tmp_path / "e.npz", X=header((20,)).replace(b")", b" "), y=b"")
    messages = {"a": "no npz file", "b": "no array 'X', only inputs, y", "c": r"shape \(b, p\)", "d": "cannot be read"}
    messages["e"] = "'X' cannot be read: its header is damaged"
    for name, message in messages.items():
        with pytest.raises(InvalidInputError, match=message):
            load_task(tmp_path / f"{name}.npz")


def test_images_keep_their_shape(tmp_path):
    images = np.random.default_rng(0).normal(5, 3, size=(40, 1, 3, 2))
    np.savez(tmp_path / "images.npz", X=images, y=np.arange(40) % 2)
    task = load_task(tmp_path / "images.npz")
    assert task.X.shape == (32, 1, 3, 2) and task.n_inputs == 6
    np.testing.assert_allclose(task.X.mean(0), 0, atol=1e-6)


def test_unknown_tasks_are_answered_with_the_names(tmp_path):
    with pytest.raises(InvalidInputError, match="breast_cancer, china, diabetes, digit, digits"):
        load_task("brest_cancer")
    with pytest.raises(InvalidInputError, match="no such file"):
        load_task(tmp_path / "gone.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InvalidInputError, match="this is a folder"):
        load_task(tmp_path / "folder.csv")
    with pytest.raises(ValueError, match="'target' is for files"):
        load_task("iris", target="x")


def test_a_task_is_loaded_again_from_its_source(tmp_path):
    path = write_csv(tmp_path / "a.csv", ["y,a", *(f"{i % 2},{i}" for i in range(20))])
    task = load_task(path, target="y", seed=3)
    assert task_from_source(task.source, task.checksum).checksum == task.checksum
    path.write_text(path.read_text().replace("19", "20"))
    with pytest.raises(InvalidInputError, match="checksum differs"):
        task_from_source(task.source, task.checksum)
    path.unlink()
    with pytest.raises(InvalidInputError, match="no such file"):
        task_from_source(task.source, task.checksum)


def test_a_source_that_names_nothing_is_refused():
    for source in ({}, {"name": "../../etc/passwd"}, {"path": "/dev/zero"}):
        with pytest.raises(InvalidInputError):
            task_from_source(source)


def test_the_table_loads_neither_torch_nor_sklearn():
    program = "import sys, wsflow.populations; print({'torch', 'sklearn', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
