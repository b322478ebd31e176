"""Model folders: config.json and model.safetensors, as on the Hugging Face Hub."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from genfast._config import from_json
from genfast._defaults import plain_defaults
from genfast._state import running_state
from genfast._tensors import Kind, TensorFile, tensor_file
from genfast._text import first_line, shown
from genfast.folders import member, read_whole, write_together
from genfast.io import json_bytes, read_json

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SHIPPED = Path(__file__).parent / "weights"


class Pretrained(nn.Module):
    """Base class of modules with a dataclass `config`: `save_pretrained`, `from_pretrained` and `push_to_hub`.

    A subclass sets `name` and `config_type`. Model ids of the Hugging Face Hub need the package huggingface_hub. It is
    imported only when it is used: a base class of it would slow every command down by half a second.
    """

    name: ClassVar[str]
    config_type: ClassVar[Any]
    config: Any

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write config.json and model.safetensors into a folder, both at once: a kill leaves both or none of them."""
        state = {key: value.detach().cpu().contiguous() for key, value in self.state_dict().items()}
        weights = _safetensors().save(state, metadata={"format": "pt"})
        config = json_bytes({"model": self.name, **asdict(self.config)})
        write_together(save_directory, {WEIGHTS: weights, CONFIG: config})

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Model of genfast",
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
    ) -> str:
        """Upload config.json and model.safetensors to the Hugging Face Hub, and return the URL of the commit.

        Args:
            repo_id: "owner/name"; the repository is created if it does not exist.
            commit_message: of the commit.
            private: whether a created repository is private; None: the default of its owner.
            token: access token; None: the one that is stored on this machine.
            revision: branch; None: the main branch.
        Raises: ImportError without huggingface_hub; the errors of huggingface_hub if the upload fails.
        """
        try:
            from huggingface_hub import HfApi
        except ImportError:
            raise ImportError(
                "push_to_hub: expected the package huggingface_hub; pip install huggingface_hub"
            ) from None
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=Path(folder), revision=revision, commit_message=commit_message
            )
            return str(commit)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, revision: str | None = None) -> Self:
        """Load a model from a folder, or by its Hub model id `owner/name` if huggingface_hub is installed.

        The weights keep their dtype. The model is in evaluation mode, on the CPU.

        Raises: FileNotFoundError for a missing folder or file; ValueError for a config or weights that are corrupt, of
            another model, or not finite.
        """
        there = local_folder(folder, revision)
        return read_whole(there, lambda: cls._read(there))

    @classmethod
    def _read(cls, folder: Path) -> Self:
        config = read_config(folder)
        name = config.pop("model")
        if name != cls.name:
            raise ValueError(f"{shown(folder / CONFIG)}: expected model {cls.name!r}; got {shown(repr(name))}")
        settings = from_json(cls.config_type, config, shown(folder / CONFIG))
        expected = f"{shown(folder / CONFIG)}: expected the settings of a {cls.name}"
        with tensor_file(member(folder, WEIGHTS), "model") as weights, plain_defaults():
            model = weights.fill(lambda: cls(settings), expected)
            running = running_state(model)
            model.to(dtype := _dtype_of(weights, model, running))
            # Counts, such as the number of batches of a batch norm, keep their integer dtype; running state is float32.
            kinds = {key: Kind.of(value) for key, value in model.state_dict().items()}
            for key in running & weights.kinds.keys():  # in a file of genfast 0.1 it is of the dtype of the weights
                if weights.kinds[key].dtype == dtype:
                    kinds[key] = replace(kinds[key], dtype=dtype)
            weights.check(kinds)
            with torch.no_grad():  # one after the other, so that they are not all there twice
                for key, value in model.state_dict().items():
                    value.copy_(weights.read(key))
        return model.eval()

    @classmethod
    def pretrained(cls, name: str) -> Self:
        """Load weights that are part of the package: `PixelRNN.pretrained("mnist")`.

        Raises: FileNotFoundError for an unknown name.
        """
        prefix = f"{cls.name}-"
        folders = SHIPPED.glob(f"{prefix}*/")
        shipped = sorted(path.name.removeprefix(prefix) for path in folders if (path / CONFIG).is_file())
        if name not in shipped:
            raise FileNotFoundError(f"{cls.__name__}.pretrained: expected one of {shipped} in {SHIPPED}; got {name!r}")
        return cls.from_pretrained(SHIPPED / f"{prefix}{name}")


def read_config(folder: str | Path) -> dict[str, Any]:
    """The contents of config.json in a model folder, with the name of the model as `model`."""
    path = member(Path(folder), CONFIG)
    config = read_json(path, "model")
    if not isinstance(config.get("model"), str):
        raise ValueError(f"{shown(path)}: expected the config of a genfast model; got no text as its 'model'")
    return config


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError:
        raise ImportError("model files: expected the package safetensors; pip install safetensors") from None
    return safetensors.torch


def local_folder(folder: str | Path, revision: str | None = None) -> Path:
    """The path of an existing folder, or of the download of a Hub model id."""
    path = Path(folder)
    if path.is_dir():
        return path
    # If the parent exists, a misspelt path is more likely than a model id: do not ask the network.
    is_model_id = re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder)) and not path.parent.exists()
    expected = f"a folder with {CONFIG} and {WEIGHTS}"
    if not is_model_id:
        raise FileNotFoundError(f"model: expected {expected}; got {shown(folder)}, not a folder")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FileNotFoundError(
            f"model: expected {expected}, or huggingface_hub for a model id; got {shown(folder)}, not a folder"
        ) from None
    try:
        return Path(snapshot_download(str(folder), revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise FileNotFoundError(
            f"model: expected a folder or a model id; got {shown(folder)} ({shown(reason)})"
        ) from None


def _dtype_of(weights: TensorFile, model: nn.Module, running: set[str]) -> torch.dtype:
    """The one dtype of the weights that are no counts and no running state; float32 if the model has none."""
    floats = {key for key, value in model.state_dict().items() if value.is_floating_point()} - running
    dtypes = {kind.dtype for key, kind in weights.kinds.items() if key in floats}
    if len(dtypes) > 1 or not all(dtype.is_floating_point for dtype in dtypes):
        got = ", ".join(sorted(map(str, dtypes)))
        raise ValueError(f"{shown(weights.path)}: expected one floating-point dtype; got {got}")
    return next(iter(dtypes), torch.float32)
