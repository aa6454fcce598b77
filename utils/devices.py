"""Devices, precisions, and the memory that a process has used."""

from __future__ import annotations

import argparse
import platform
import sys

import torch

from utils.errors import UserError

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def add_device_option(parser: argparse._ActionsContainer) -> None:
    """``--device``: cpu, or a GPU that PyTorch finds; by default the first CUDA device, if any.

    Apple's GPU (mps) is accepted but untested.
    """
    parser.add_argument(
        "--device",
        type=_device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu, cuda, cuda:1, ..., mps (Apple's, untested) (default: cuda if available)",
    )


def find_device(device: torch.device | str) -> torch.device:
    """The device of that name. Raises UserError for an unknown name and an absent device."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"{str(device)!r} is not a device; use cpu, cuda, cuda:1 or mps.")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("This PyTorch finds no Apple GPU; use cpu.")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(f"This PyTorch finds no device {found}; use cpu.")
    return found


def check_precision(precision: str, device: torch.device) -> None:
    """Raise UserError for a precision that the device does not support."""
    if precision not in PRECISIONS:
        raise UserError(f"The precision is {precision!r}; known are {', '.join(PRECISIONS)}.")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("The precision fp16 is for GPUs; use bf16 or float32 on a CPU.")
    if (
        precision == "bf16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        name = torch.cuda.get_device_name(device)
        raise UserError(f"{name} does not support bf16; use fp16.")


def bf16_warning(device: torch.device) -> str:
    """A sentence for a CPU that emulates bf16, else "".

    x86 processors without AVX-512 take 20 times as long as in float32.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if device.type != "cpu" or not _is_x86() or capability.startswith("AVX512"):
        return ""
    return f"note: this processor ({capability}) emulates bf16; float32 is many times as fast."


def has_native_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16.

    Of x86 processors, those with AVX512-BF16 or AMX have them; ARM's are assumed to.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if not _is_x86():
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def peak_memory(device: torch.device) -> int:
    """The peak memory of this process so far in bytes: of the GPU, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows, where photos can be restored

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux


def device_name(device: torch.device) -> str:
    """The maker's name of a GPU, or the kind of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"


def tf32_note(device: torch.device) -> str:
    """A sentence for a user who asks for TF32 on a device without it, else ""."""
    if device.type == "cuda":
        return ""
    return f"note: OPTIM.TF32 has no effect on {device}; products are computed in float32."


def _device(text: str) -> torch.device:
    try:
        return find_device(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
