"""Export a network to ONNX, checked against PyTorch with onnxruntime.

    pip install -r tools/requirements.txt
    python tools/export_onnx.py --weights weights/petrichor.safetensors --output petrichor.onnx
    python tools/export_onnx.py --weights model_best.pth --model nerd_rain --output nerd_rain.onnx

The file maps "rainy", (1, 3, H, W) float32 RGB in [0, 1], to "restored" of the same shape, not
clipped. H and W are fixed (--size, by default 256 x 256). With --any-size they are free, as long as
they are multiples of a number that the command prints, usually 32. Pad smaller images and cut
larger ones into tiles, as utils/inference/restorer.py does. The command also prints the CPU times
of onnxruntime and of PyTorch.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from models import load_published, load_weights
from models.fast import reference_ops
from models.network import DerainingNetwork
from tools import onnx_spectra
from utils.errors import UserError, run_main
from utils.files import atomic_write

T = TypeVar("T")
TOLERANCE = 1e-4  # largest difference from PyTorch, in values from 0 to 1


class Restoring(nn.Module):
    """Makes a network's ``restore`` the ``forward`` that PyTorch exports."""

    def __init__(self, network: DerainingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: Tensor) -> Tensor:
        return self.network.restore(rainy)


def main() -> None:
    args = parse_arguments()
    require_packages()
    network = load_published(args.model, args.weights) if args.model else load_weights(args.weights)
    check_size(network, args.size, any_size=args.any_size)
    sizes = [args.size]
    if args.any_size:  # also sizes that are odd multiples, whose halves may round differently
        step = free_step(network)
        sizes.append((args.size[0] + 3 * step, args.size[1] + 5 * step))
        print(f"height and width: any multiples of {step}")

    def write(temporary: Path) -> None:
        print(f"exporting {type(network).__name__} for {args.size[0]} x {args.size[1]} ...")
        start = time.perf_counter()
        export(network, temporary, args.size, any_size=args.any_size)
        print(f"exported in {time.perf_counter() - start:.0f} s; checking with onnxruntime ...")
        for size in sizes:
            check(network, temporary, size)

    atomic_write(args.output, write)
    print(f"wrote {args.output}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", metavar="NAME", help="network of an authors' checkpoint")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument(
        "--size", nargs=2, type=int, default=(256, 256), metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument("--any-size", action="store_true", help="leave height and width free")
    args = parser.parse_args()
    args.size = tuple(args.size)
    if args.output.suffix != ".onnx":
        parser.error(f"--output is {args.output}; it must end in .onnx")
    return args


def require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"Exporting needs the package {error.name}: pip install -r tools/requirements.txt"
        ) from error


def free_step(network: DerainingNetwork) -> int:
    """Free heights and widths are multiples of this, so that every halving is exact."""
    return math.lcm(network.size_multiple, network.tile_step)


def check_size(network: DerainingNetwork, size: tuple[int, int], *, any_size: bool) -> None:
    multiple = free_step(network) if any_size else network.size_multiple
    smallest = -(-network.min_size // multiple) * multiple
    if any(side % multiple or side < smallest for side in size):
        raise UserError(
            f"--size is {size[0]} x {size[1]}; this network takes multiples of {multiple}, at "
            f"least {smallest}."
        )


def export(network: DerainingNetwork, path: Path, size: tuple[int, int], *, any_size: bool) -> None:
    """Write the network as ONNX. Raises UserError if PyTorch cannot export it.

    Uses PyTorch's TorchScript exporter, because the newer one takes minutes for these networks and
    cannot leave the sizes of most of them free.
    """
    onnx_spectra.register()
    free = {2: "height", 3: "width"}
    with warnings.catch_warnings(), torch.no_grad(), reference_ops():
        warnings.simplefilter("ignore")  # deprecations inside PyTorch
        try:
            torch.onnx.export(
                Restoring(network).eval(),
                (torch.rand(1, 3, *size),),
                path,
                dynamo=False,
                dynamic_axes={"rainy": free, "restored": free} if any_size else None,
                input_names=["rainy"],
                output_names=["restored"],
                opset_version=onnx_spectra.OPSET,
            )
        except torch.onnx.OnnxExporterError as error:
            hint = "try a fixed size, without --any-size" if any_size else "restore with test.py"
            raise UserError(
                f"PyTorch {torch.__version__} cannot export {type(network).__name__} to ONNX; "
                f"{hint}. PyTorch's reason: {_first_line(error)}"
            ) from error


def _first_line(error: BaseException) -> str:
    """The first line of the original error; the exporter adds pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def check(network: DerainingNetwork, path: Path, size: tuple[int, int]) -> None:
    """Compare with PyTorch on random pixels, and print both times on one thread.

    Raises UserError if the values differ by more than TOLERANCE.
    """
    import onnxruntime

    rainy = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    torch.set_num_threads(1)
    with torch.inference_mode():
        expected, seconds = timed(lambda: network.restore(rainy).numpy())
    (exported,), their_seconds = timed(lambda: session.run(["restored"], {"rainy": rainy.numpy()}))
    error = float(np.abs(exported - expected).max())
    if not error <= TOLERANCE:
        raise UserError(
            f"The exported network differs from PyTorch by up to {error:.1e}, more than "
            f"{TOLERANCE:.0e}; nothing was written."
        )
    print(
        f"{size[0]} x {size[1]}: differs by at most {error:.1e}; onnxruntime takes "
        f"{their_seconds:.2f} s on one core, PyTorch {seconds:.2f} s"
    )


def timed(compute: Callable[[], T]) -> tuple[T, float]:
    """A result, and the shorter CPU time of two calls."""
    times = []
    for _ in range(2):
        start = time.process_time()
        result = compute()
        times.append(time.process_time() - start)
    return result, min(times)


if __name__ == "__main__":
    run_main(main)
