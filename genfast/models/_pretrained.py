"""Model folders: config.json and model.safetensors, as on the Hugging Face Hub."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

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
            raise ValueError(f"{folder / CONFIG}: expected model {cls.name!r}; got {name!r}")
        known = {field.name for field in fields(cls.config_type)}
        if unknown := sorted(set(config) - known):
            expected = f"fields of {cls.config_type.__name__}"
            raise ValueError(f"{folder / CONFIG}: expected {expected}; got {', '.join(unknown)}")
        try:
            model = cls(cls.config_type(**config))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder / CONFIG}: {error}") from None
        state = _read_weights(member(folder, WEIGHTS))
        _check_weights(folder / WEIGHTS, state, model.state_dict())
        dtype = next(value.dtype for value in state.values() if value.is_floating_point())
        model.to(dtype).load_state_dict(state)
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
        raise ValueError(f"{path}: expected the config of a genfast model; got no field 'model'")
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
        raise FileNotFoundError(f"model: expected {expected}; got {folder}, not a folder")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FileNotFoundError(
            f"model: expected {expected}, or huggingface_hub for a model id; got {folder}, not a folder"
        ) from None
    try:
        return Path(snapshot_download(str(folder), revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(f"model: expected a folder or a model id; got {folder} ({reason})") from None


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"model: expected a file {path}; got none")
    from_bytes = _safetensors().load
    from safetensors import SafetensorError

    try:
        return from_bytes(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a whole safetensors file; got {error}") from None


def _check_weights(path: Path, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unknown:
        raise ValueError(f"{path}: expected the tensors of its config; got missing {missing}, unknown {unknown}")
    # Counts, such as the number of batches of a batch norm, keep their integer dtype.
    counts = {key for key, value in expected.items() if not value.is_floating_point()}
    dtypes = {value.dtype for key, value in state.items() if key not in counts}
    if len(dtypes) != 1 or not next(iter(dtypes)).is_floating_point:
        raise ValueError(f"{path}: expected one floating-point dtype; got {', '.join(sorted(map(str, dtypes)))}")
    for key, value in state.items():
        if key in counts and value.dtype != expected[key].dtype:
            raise ValueError(f"{path}: {key} must have dtype {expected[key].dtype}; got {value.dtype}")
        if value.shape != expected[key].shape:
            shape = tuple(expected[key].shape)
            raise ValueError(f"{path}: {key} must have shape {shape}; got {tuple(value.shape)}")
        if bad := int((~value.isfinite()).sum()):
            raise ValueError(f"{path}: {key} must be finite; got {bad} values that are not")
