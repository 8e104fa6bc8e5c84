"""Repositories of the Hugging Face Hub: a stand-in keeps them in folders, and the library reads its own cache."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from saved import make_population

import wsflow
from wsflow.cli import main
from wsflow.exceptions import InvalidInputError, OutputError
from wsflow.persistence import describe
from wsflow.persistence.hub import FILES

MODEL = Path(__file__).parent / "data" / "0.1" / "pipeline.st"


class Hub:
    """What wsflow uses of huggingface_hub, with a folder for each repository and revision."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls, self.broken = folder, [], ""

    def repository(self, repo_id: str, repo_type: str = "model", revision: str | None = None) -> Path:
        return self.folder / repo_type / f"{repo_id}@{revision or 'main'}"

    def HfApi(self, token: Any = None) -> Hub:
        self.calls.append(("HfApi", token))
        return self

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool | None, exist_ok: bool) -> None:
        self.calls.append(("create_repo", private))
        assert exist_ok

    def upload_folder(
        self, *, repo_id: str, repo_type: str, folder_path: str, revision: str | None, commit_message: str,
        delete_patterns: list[str],
    ) -> None:  # fmt: skip
        if self.broken:
            raise RuntimeError(self.broken)
        assert commit_message
        target = self.repository(repo_id, repo_type, revision)
        target.mkdir(parents=True, exist_ok=True)
        for path in target.iterdir():
            if any(fnmatchcase(path.name, pattern) for pattern in delete_patterns):
                path.unlink()
        shutil.copytree(folder_path, target, dirs_exist_ok=True)

    def snapshot_download(
        self, repo_id: str, *, repo_type: str, revision: str | None, token: Any, cache_dir: Any, local_files_only: bool,
        allow_patterns: list[str],
    ) -> str:  # fmt: skip
        self.calls.append(("snapshot_download", token))
        found = self.repository(repo_id, repo_type, revision)
        if not found.exists():
            raise RuntimeError(f"404 Client Error: {repo_id} not found.\nRequest ID: 7")
        snapshot = self.folder / "cache"
        shutil.rmtree(snapshot, ignore_errors=True)
        snapshot.mkdir()
        for path in found.iterdir():
            if any(fnmatchcase(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, snapshot)
        return str(snapshot)


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Hub:
    made = Hub(tmp_path / "hub")
    made.folder.mkdir()
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    return made


@pytest.fixture(scope="module")
def model() -> Any:
    return wsflow.load_model(MODEL)


def drawn(model: Any) -> np.ndarray:
    return np.asarray(wsflow.sample(model, 3, random_state=0))


def test_a_model_is_the_same_in_a_repository_and_in_a_folder(hub, model):
    address = wsflow.push_to_hub(model, "owner/iris", license="mit", private=True, token="secret")
    assert address == "hf://owner/iris" and ("create_repo", True) in hub.calls and ("HfApi", "secret") in hub.calls
    folder = hub.repository("owner/iris")
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "README.md"}
    for loaded in (
        wsflow.load_model(address),
        wsflow.load_model(Path(address)),
        wsflow.load_model(folder),
        wsflow.from_pretrained(address),
        wsflow.from_pretrained("owner/iris"),
        wsflow.from_pretrained(folder),
    ):
        assert np.array_equal(drawn(loaded), drawn(model))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card and 'wsflow.load_model("hf://owner/iris")' in card
    assert describe(address)["checksum"] == describe(folder)["checksum"] and describe(address)["checksum"] in card


def test_a_file_is_sent_bit_by_bit(hub):
    wsflow.push_to_hub(MODEL, "owner/iris")
    assert (hub.repository("owner/iris") / "model.safetensors").read_bytes() == MODEL.read_bytes()


def test_revisions_and_tokens_are_passed_on(hub, model):
    wsflow.push_to_hub(model, "owner/iris", revision="draft")
    with pytest.raises(InvalidInputError, match="could not be downloaded"):
        wsflow.load_model("hf://owner/iris")
    assert len(wsflow.load_model("hf://owner/iris@draft")) == len(model)
    assert len(wsflow.from_pretrained("owner/iris", revision="draft", token="mine")) == len(model)
    assert hub.calls[-1] == ("snapshot_download", "mine")


@pytest.mark.parametrize("size", [2**27, 200])
def test_a_population_is_the_same_in_a_repository(hub, monkeypatch, size):
    monkeypatch.setattr("wsflow.persistence.sharing.SHARD_SIZE", size)
    population = make_population(7)
    address = wsflow.push_to_hub(population, "owner/zoo")
    files = {path.name for path in hub.repository("owner/zoo", "dataset").iterdir()}
    assert address == "hf://datasets/owner/zoo" and "README.md" in files
    assert ("population.safetensors.index.json" in files) == (size == 200)
    for place in (address, "hf://owner/zoo", hub.repository("owner/zoo", "dataset")):
        loaded = wsflow.load_population(place)
        assert np.array_equal(loaded.weights, population.weights)
        assert np.array_equal(loaded.weights.runs, population.weights.runs)
    assert describe(address)["networks"] == 7


def test_shards_of_before_are_gone(hub, tmp_path):
    index = tmp_path / "zoo.safetensors.index.json"
    folder = hub.repository("owner/zoo", "dataset")
    for n in (9, 3):
        wsflow.save_population(make_population(n), index)
        wsflow.push_to_hub(index, "owner/zoo")
        assert len(wsflow.load_population("hf://owner/zoo")) == n
        assert len([path for path in folder.iterdir() if path.suffix == ".safetensors"]) == 1


def test_the_card_beside_a_file_goes_with_it(hub, model, tmp_path):
    path, beside = tmp_path / "model.st", tmp_path / "model.md"
    wsflow.save_model(model, path, card=True)
    beside.write_text(beside.read_text(encoding="utf-8") + "\nWritten by hand.\n", encoding="utf-8")
    wsflow.push_to_hub(path, "owner/iris")
    sent = hub.repository("owner/iris") / "README.md"
    assert sent.read_text(encoding="utf-8").endswith("Written by hand.\n")
    wsflow.save_model(model[:-1], path)
    with pytest.raises(
        InvalidInputError, match=r"model\.md: this is not the card of .*model\.st: .* Write it again with"
    ):
        wsflow.push_to_hub(path, "owner/other")
    assert not hub.repository("owner/other").exists()


def test_what_a_repository_holds_is_not_trusted(hub, model):
    address = wsflow.push_to_hub(model, "owner/iris")
    file = hub.repository("owner/iris") / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match="damaged"):
        wsflow.load_model(address)
    file.write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(InvalidInputError, match=r"model\.safetensors"):
        wsflow.load_model(address)


def test_commands_take_addresses(hub, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wsflow.push_to_hub(model, "owner/iris")
    result = CliRunner().invoke(main, ["sample", "hf://owner/iris", "-n", "3", "-o", "new.safetensors", "-q"])
    assert result.exit_code == 0, result.output
    assert np.array_equal(np.asarray(wsflow.load_population("new.safetensors").weights), drawn(model))
    result = CliRunner().invoke(main, ["info", "hf://owner/iris"])
    assert result.exit_code == 0 and "12 networks of 12 runs" in result.output
    result = CliRunner().invoke(main, ["sample", "hf://owner/none", "-n", "3", "-o", "other.safetensors", "-q"])
    assert result.exit_code == InvalidInputError.exit_code and "404 Client Error" in result.output


@pytest.mark.parametrize("name", ["owner", "owner/a/b", "hf://owner/name", "a b/c", "", "/", None])
def test_names_that_are_none(hub, model, name):
    with pytest.raises(InvalidInputError, match="named 'owner/name', got"):
        wsflow.push_to_hub(model, name)
    assert not hub.calls


@pytest.mark.parametrize("address", ["hf://owner", "hf://a/b/c", "hf://a/b@", "hf://a b/c"])
def test_addresses_that_are_none(hub, address):
    with pytest.raises(InvalidInputError, match="no address on the Hugging Face Hub"):
        wsflow.load_model(address)
    assert not hub.calls


def test_a_repository_of_data_has_no_model(hub):
    with pytest.raises(InvalidInputError, match="Leave datasets/ out"):
        wsflow.load_model("hf://datasets/owner/zoo")


def test_a_folder_without_a_model(tmp_path):
    for load, name in ((wsflow.load_model, "model.safetensors"), (wsflow.load_population, "population.safetensors")):
        with pytest.raises(
            InvalidInputError, match=rf"a folder, expected a file\. Name a file in it, or call that {name}"
        ):
            load(tmp_path)


def test_failures_are_a_sentence_with_the_remedy(hub, model):
    hub.broken = "403 Forbidden: no.\nRequest ID: 7"
    with pytest.raises(OutputError, match=r"^hf://owner/iris: .*\(403 Forbidden: no\)\. Check .*hf auth login"):
        wsflow.push_to_hub(model, "owner/iris")
    with pytest.raises(InvalidInputError, match=r"\(404 Client Error: owner/none not found\)\. Check .*hf auth login"):
        wsflow.from_pretrained("owner/none")


def test_without_the_library_the_remedy_is_named(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (lambda: wsflow.from_pretrained("a/b"), lambda: wsflow.push_to_hub(model, "a/b")):
        with pytest.raises(InvalidInputError, match=r"pip install 'wsflow\[hub\]'"):
            use()


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("huggingface_hub")


def test_the_library_takes_what_it_is_called_with(library):
    for name in ("create_repo", "upload_folder"):
        known = inspect.signature(getattr(library.HfApi, name)).parameters
        assert set(inspect.signature(getattr(Hub, name)).parameters) <= set(known)
    known = inspect.signature(library.snapshot_download).parameters
    assert set(inspect.signature(Hub.snapshot_download).parameters) - {"self"} <= set(known)


def test_the_library_reads_a_folder_that_was_downloaded_before(library, model, tmp_path):
    """A cache as the library lays it: snapshots are links to the content."""
    commit, repository = "0" * 40, tmp_path / "models--owner--iris"
    for folder in ("refs", "blobs", f"snapshots/{commit}"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    wsflow.save_model(model, repository / "blobs" / "content")
    os.symlink("../../blobs/content", repository / "snapshots" / commit / FILES["model"][0][0])
    options = {"cache_dir": tmp_path, "local_files_only": True}
    assert np.array_equal(drawn(wsflow.from_pretrained("owner/iris", **options)), drawn(model))
    with pytest.raises(InvalidInputError, match="hf://owner/other: it could not be downloaded"):
        wsflow.from_pretrained("owner/other", **options)


def test_the_library_reads_the_head_of_a_card(library, model):
    data = library.ModelCard(wsflow.model_card(model, license="cc-by-4.0")).data
    assert data.library_name == "wsflow" and data.license == "cc-by-4.0" and "weight-space-learning" in data.tags
