"""Which device a command line means."""

from __future__ import annotations

import argparse

import torch


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """``--device``: cpu, or a GPU that PyTorch finds; by default the first CUDA device if any.

    Apple's GPU (mps) is let through, but has not been tested here.
    """
    parser.add_argument(
        "--device",
        type=_device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu, cuda, cuda:1, ..., mps (Apple's, untested) (default: cuda where there is one)",
    )


def _device(text: str) -> torch.device:
    device: torch.device | None
    try:
        device = torch.device(text)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise argparse.ArgumentTypeError(f"{text!r} is no device; take cpu, cuda, cuda:1 or mps")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise argparse.ArgumentTypeError("this PyTorch finds no GPU of Apple's; take cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"this PyTorch finds no device {text}; take cpu")
    return device
