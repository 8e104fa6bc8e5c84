"""The Hugging Face Hub: a repository as a folder of this machine, and a folder as a repository.

A folder and a repository have the same files under the same names. What was downloaded is read as any file is, as one
that may be damaged or made to do harm; no other file of a repository is looked at.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from wsflow.exceptions import InvalidInputError, OutputError

# kind -> the names of its file, of which the first that is there is read, and the patterns of all its files
FILES = {
    "model": (("model.safetensors",), ["model.safetensors"]),
    "population": (
        ("population.safetensors.index.json", "population.safetensors"),
        ["population.safetensors", "population.safetensors.index.json", "population-*.safetensors"],
    ),
}
CARD = "README.md"
REPOSITORIES = {"model": "model", "population": "dataset"}
# Path makes one slash of two
ADDRESS = re.compile(r"hf:/{1,2}(datasets/)?([\w.-]+/[\w.-]+)(?:@([^@\s]+))?")
NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_address(path: str | Path) -> bool:
    """Whether a path is an address on the hub."""
    return str(path).startswith("hf:/")


def local_file(path: str | Path, kind: str | None = None, **options: Any) -> Path:
    """Return the file that is meant by a path, by a folder, or by an address ``hf://owner/name@revision``.

    Without a kind it is that of the address, or of what there is in the folder. Options are those of `download`.
    """
    if is_address(path):
        found = ADDRESS.fullmatch(str(path))
        if found is None:
            raise InvalidInputError(
                f"{path}: this is no address on the Hugging Face Hub. Write hf://owner/name, or with a revision "
                "hf://owner/name@revision."
            )
        is_population, repo_id, revision = found.groups()
        kind = kind or ("population" if is_population else "model")
        if is_population and kind == "model":
            raise InvalidInputError(f"{path}: this is a repository of data, where no models are. Leave datasets/ out.")
        arguments: dict[str, Any] = {"revision": revision} | options
        path = download(repo_id, kind, **arguments)
    path = Path(path)
    # Path.is_dir raises where a name is too long
    return _file_in(path, (kind,) if kind else tuple(FILES)) if os.path.isdir(path) else path


def _file_in(folder: Path, kinds: tuple[str, ...]) -> Path:
    names = [name for kind in kinds for name in FILES[kind][0]]
    found = next((folder / name for name in names if (folder / name).exists()), None)
    if found is None:
        raise InvalidInputError(
            f"{folder}: this is a folder, expected a file. Name a file in it, or call that {names[-1]}."
        )
    return found


def download(
    repo_id: str,
    kind: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the folder of this machine with the files of a repository, downloaded where they are not there yet."""
    library = _library()
    try:
        folder = library.snapshot_download(
            repo_id,
            repo_type=REPOSITORIES[kind],
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=FILES[kind][1],
        )
    # the classes of its errors are of several libraries, which differ between its versions
    except Exception as error:
        raise InvalidInputError(
            f"hf://{repo_id}: it could not be downloaded ({_reason(error)}). Check the name, the network, and where "
            "it is private the token (hf auth login)."
        ) from error
    return Path(folder)


def upload(
    folder: Path,
    repo_id: str,
    kind: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    message: str | None = None,
) -> None:
    """Make a repository, if it is not there, and commit a folder to it, in place of such files as there were."""
    library = _library()
    repository: dict[str, Any] = {"repo_id": repo_id, "repo_type": REPOSITORIES[kind]}
    try:
        api = library.HfApi(token=token)
        api.create_repo(**repository, private=private, exist_ok=True)
        api.upload_folder(
            **repository,
            folder_path=str(folder),
            revision=revision,
            commit_message=message or f"Upload a {kind} with wsflow",
            delete_patterns=FILES[kind][1],
        )
    except Exception as error:
        raise OutputError(
            f"hf://{repo_id}: it could not be uploaded ({_reason(error)}). Check the name, the network, and that "
            "the token may write there (hf auth login)."
        ) from error


def check_name(repo_id: str) -> str:
    """Refuse what is no name of a repository, before any work is done for it."""
    if not isinstance(repo_id, str) or not NAME.fullmatch(repo_id):
        raise InvalidInputError(f"A repository of the Hugging Face Hub is named 'owner/name', got {repo_id!r}.")
    return repo_id


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InvalidInputError(
            "The Hugging Face Hub needs huggingface_hub, which is not installed. Install it with "
            "pip install 'wsflow[hub]'."
        ) from error
    return huggingface_hub
