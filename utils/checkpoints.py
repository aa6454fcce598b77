"""Reading and writing weights. Nothing here executes code from a file.

This project writes two kinds of files: ``NAME.safetensors``, weights for use, with the network's
name and options in the metadata; and ``latest.pth``, all that a training run needs to continue.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from utils.errors import UserError
from utils.files import UNFINISHED, atomic_write

FORMAT = "petrichor-1"
SEAL_LENGTH = 32  # bytes of a SHA-256


class ForeignFileError(UserError):
    """The file was not written by this project."""


@dataclass(frozen=True)
class Weights:
    """A network's weights together with what is needed to build it.

    ``model`` is a name for ``models.build_model``, ``options`` the overridden fields, ``state`` the
    state dict, ``info`` free facts about the origin of the weights.
    """

    model: str
    options: dict[str, Any]
    state: dict[str, Tensor]
    info: dict[str, Any]


def write_weights(path: Path, weights: Weights) -> None:
    """Write a ``.safetensors`` file whose metadata name its network."""
    metadata = {
        "format": FORMAT,
        "model": weights.model,
        "options": json.dumps(weights.options),
        "info": json.dumps(weights.info),
    }
    state = {name: value.detach().cpu().contiguous() for name, value in weights.state.items()}

    def write(file: Path) -> None:
        try:
            safetensors.torch.save_file(state, file, metadata)
            _sort_header(file)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error

    atomic_write(path, write)


def _sort_header(file: Path) -> None:
    """Sort the header of a safetensors file, so that equal weights give equal files.

    The header is JSON behind its length in 8 bytes.
    """
    with file.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        stream.seek(8)
        stream.write(text.encode().ljust(length))


def read_weights(path: Path) -> Weights:
    """Read what ``write_weights`` or ``write_checkpoint`` wrote.

    Raises UserError for a missing, truncated or foreign file.
    """
    read = _read_safetensors if path.suffix.lower() == ".safetensors" else _read_weights_of_training
    try:
        return read(path)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged: it does not say which network it holds.") from error


def _read_weights_of_training(path: Path) -> Weights:
    checkpoint = read_checkpoint(path)
    return Weights(
        model=checkpoint["model"],
        options=checkpoint["options"],
        state=checkpoint["ema"] or checkpoint["network"],
        info={"epoch": checkpoint["progress"]["epoch"]},
    )


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors, on the CPU, of a safetensors file by any program.

    Raises UserError for a missing, truncated or damaged file.
    """
    require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a complete safetensors file: {error}.") from error


def _read_safetensors(path: Path) -> Weights:
    metadata, state = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ForeignFileError(
            f"{path} was not written by this project; for an author's checkpoint name the network "
            "with --model."
        )
    options, info = json.loads(metadata["options"]), json.loads(metadata["info"])
    if not isinstance(options, dict) or not isinstance(info, dict):
        raise ValueError("options and info are not mappings")
    return Weights(model=metadata["model"], options=options, state=state, info=info)


def write_checkpoint(path: Path, checkpoint: dict[str, Any], keep: Path | None = None) -> None:
    """Write a training state of plain values and tensors, which a safe load can read.

    An existing checkpoint is kept as ``keep``, unless it is damaged.
    """

    def write(file: Path) -> None:
        save_torch_file({"format": FORMAT, **checkpoint}, file)
        _seal(file)
        # If ``path`` is damaged, ``keep`` may be the last sound checkpoint.
        if keep and path.exists() and _is_sealed(path):
            # A second name for the old file: renaming it would leave a moment without a checkpoint.
            link = keep.with_name(f"{UNFINISHED}{keep.name}")
            link.unlink(missing_ok=True)
            try:
                link.hardlink_to(path)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, link)
            link.replace(keep)

    atomic_write(path, write)


def save_torch_file(content: Any, file: Path) -> None:
    """``torch.save`` that raises OSError if the disk is full."""
    try:
        torch.save(content, file)
    except RuntimeError as error:  # raised by its zip writer
        if "DataLoader worker" in str(error):  # a killed loader process; raised at any point
            raise
        raise OSError(f"the disk is full or refuses ({error})") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``write_checkpoint`` wrote, tensors on the CPU.

    Raises UserError for a file that is missing, foreign, or not byte for byte what was written.
    """
    require_file(path)
    damaged = UserError(f"{path} is damaged, or of an older version of this project.")
    if _has_seal(path) and not _is_sealed(path):
        raise damaged
    checkpoint = read_torch_file(path)
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise ForeignFileError(
            f"{path} is not a checkpoint of this project; for an author's checkpoint name the "
            "network with --model."
        )
    if not _has_seal(path):
        raise damaged
    return checkpoint


def seal_of(path: Path) -> str:
    """The SHA-256 at the end of a checkpoint, in hexadecimal."""
    with path.open("rb") as file:
        file.seek(-SEAL_LENGTH, os.SEEK_END)
        return file.read().hex()


def _seal(path: Path) -> None:
    """Append the SHA-256 of the whole file, as the comment that a zip archive may end with."""
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)  # the length of the comment, 0 so far
        file.write(SEAL_LENGTH.to_bytes(2, "little"))
        file.seek(0)
        digest = _digest(file, path.stat().st_size)
        file.seek(0, os.SEEK_END)
        file.write(digest)


def _has_seal(path: Path) -> bool:
    """Whether a file ends with a seal, right or wrong."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < SEAL_LENGTH + 22:  # the size of an empty zip archive
            return False
        file.seek(-SEAL_LENGTH - 22, os.SEEK_END)
        end = file.read(22)
    return end.startswith(b"PK\5\6") and end.endswith(SEAL_LENGTH.to_bytes(2, "little"))


def _is_sealed(path: Path) -> bool:
    """Whether the seal at a file's end is right."""
    length = path.stat().st_size - SEAL_LENGTH
    with path.open("rb") as file:
        return _digest(file, length) == file.read()


def _digest(file: BinaryIO, length: int) -> bytes:
    """The SHA-256 of the next ``length`` bytes."""
    digest = hashlib.sha256()
    while length > 0 and (chunk := file.read(min(length, 1 << 20))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.digest()


# NumPy's scalars and their types, which training scripts store with weights (a best PSNR, say).
# Loading them calls NumPy's own constructors only. NumPy 1 and 2 name one of them differently.
_NUMPY_SCALARS: list[Any] = [
    np.dtype,
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    *((scalar, f"numpy.{core}.multiarray.scalar")
      for scalar in [np.float64(0).__reduce__()[0]] for core in ("core", "_core")),
]  # fmt: skip


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` stored, limited to tensors, plain values and NumPy's scalars, on the CPU.

    Raises UserError for a file that is missing, truncated, not a torch file, or that would execute
    code when loaded, as TorchScript archives do.
    """
    require_file(path)
    if _is_torchscript(path):
        raise UserError(
            f"{path} is a TorchScript archive, which is a program rather than weights, so it is "
            "refused; save the network's state_dict() with torch.save instead."
        )
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors, plain values and NumPy's scalars, or is not a torch "
            "file; loading it could execute code, so it is refused."
        ) from error
    # All errors that torch's readers were seen to raise for damaged files.
    except (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError,
            RuntimeError, TypeError, ValueError, struct.error) as error:  # fmt: skip
        raise UserError(f"{path} is truncated or not a torch file.") from error


def _is_torchscript(path: Path) -> bool:
    """Whether ``torch.jit.save`` wrote a file; only such archives hold constants.pkl."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(Path(name).name == "constants.pkl" for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def require_file(path: Path) -> None:
    """Raise UserError if there is no such file or it cannot be read."""
    try:
        with path.open("rb"):
            pass
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"There is no file {path}.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
