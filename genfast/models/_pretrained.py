"""Models as a folder: config.json beside model.safetensors, the layout of the Hugging Face Hub."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import TemporaryDirectory

from genfast.io import read_json, writable_folder, write_bytes, write_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SHIPPED = Path(__file__).parent / "weights"


class Pretrained:
    """Gives a `torch.nn.Module` with a dataclass `config` its `save_pretrained`, `from_pretrained` and `push_to_hub`.

    A class sets `name` and `config_type`. Model ids of the Hugging Face Hub need the package huggingface_hub, which is
    imported where one is asked for: as a base class it would cost every command half a second.
    """

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write config.json and model.safetensors into a folder; each file is whole or not there."""
        folder = writable_folder(save_directory)
        state = {key: value.detach().cpu().contiguous() for key, value in self.state_dict().items()}
        write_bytes(folder / WEIGHTS, _safetensors().save(state, metadata={"format": "pt"}))
        write_json(folder / CONFIG, {"model": self.name, **asdict(self.config)})

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Model of genfast",
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
    ) -> str:
        """Upload config.json and model.safetensors to the Hugging Face Hub; returns the address of the commit.

        Args: repo_id ("owner/name", made if it is not there); private (of a repository that is made); token (None:
            that of the machine); revision (a branch).
        Raises: ImportError without huggingface_hub; its own errors where an upload fails.
        """
        try:
            from huggingface_hub import HfApi
        except ImportError:
            raise ImportError("push_to_hub: expected the package huggingface_hub; pip install huggingface_hub") from None
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            what = {"repo_id": repo_id, "folder_path": Path(folder), "revision": revision}
            return str(api.upload_folder(**what, commit_message=commit_message))

    @classmethod
    def from_pretrained(cls, folder, *, revision=None):
        """The model of a folder, or of a Hub model id `owner/name` where huggingface_hub is installed.

        The weights keep their dtype; the model is in evaluation mode, on the CPU.

        Raises: FileNotFoundError for a missing folder or file; ValueError for a config or weights that are
            broken, of another model, or not finite.
        """
        folder = local_folder(folder, revision)
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
        state = _read_weights(folder / WEIGHTS)
        _check_weights(folder / WEIGHTS, state, model.state_dict())
        dtype = next(value.dtype for value in state.values() if value.is_floating_point())
        model.to(dtype).load_state_dict(state)
        return model.eval()

    @classmethod
    def pretrained(cls, name):
        """The weights that come with the package: `PixelRNN.pretrained("mnist")`."""
        prefix = f"{cls.name}-"
        folders = SHIPPED.glob(f"{prefix}*/")
        shipped = sorted(path.name.removeprefix(prefix) for path in folders if (path / CONFIG).is_file())
        if name not in shipped:
            raise FileNotFoundError(f"{cls.__name__}.pretrained: expected one of {shipped} in {SHIPPED}; got {name!r}")
        return cls.from_pretrained(SHIPPED / f"{prefix}{name}")


def read_config(folder):
    """The dictionary in a model folder's config.json, which names its `model`."""
    path = Path(folder) / CONFIG
    config = read_json(path, "model")
    if not isinstance(config.get("model"), str):
        raise ValueError(f"{path}: expected the config of a genfast model; got no field 'model'")
    return config


def _safetensors():
    try:
        import safetensors.torch
    except ImportError:
        raise ImportError("model files: expected the package safetensors; pip install safetensors") from None
    return safetensors.torch


def local_folder(folder, revision=None):
    """A folder as it is; a Hub model id as the folder that its files were downloaded to."""
    path = Path(folder)
    if path.is_dir():
        return path
    # A path whose parent exists was meant as a path: do not ask the network for a misspelt run folder.
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


def _read_weights(path):
    if not path.is_file():
        raise FileNotFoundError(f"model: expected a file {path}; got none")
    from_bytes = _safetensors().load
    from safetensors import SafetensorError

    try:
        return from_bytes(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a whole safetensors file; got {error}") from None


def _check_weights(path, state, expected):
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unknown:
        raise ValueError(f"{path}: expected the tensors of its config; got missing {missing}, unknown {unknown}")
    # A count, as of the batches that a batch norm has seen, stays what it is.
    counts = {key for key, value in expected.items() if not value.is_floating_point()}
    found = {value.dtype for key, value in state.items() if key not in counts}
    if len(found) != 1 or not next(iter(found)).is_floating_point:
        raise ValueError(f"{path}: expected one floating-point dtype; got {', '.join(sorted(map(str, found)))}")
    for key, value in state.items():
        if key in counts and value.dtype != expected[key].dtype:
            raise ValueError(f"{path}: {key} must have dtype {expected[key].dtype}; got {value.dtype}")
        if value.shape != expected[key].shape:
            shape = tuple(expected[key].shape)
            raise ValueError(f"{path}: {key} must have shape {shape}; got {tuple(value.shape)}")
        if bad := int((~value.isfinite()).sum()):
            raise ValueError(f"{path}: {key} must be finite; got {bad} values that are not")
