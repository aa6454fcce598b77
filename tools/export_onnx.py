"""Export a network to ONNX, checked against PyTorch with onnxruntime.

    pip install -r tools/requirements.txt
    python tools/export_onnx.py --weights weights/petrichor.safetensors --output petrichor.onnx
    python tools/export_onnx.py --weights model_best.pth --model nerd_rain --output nerd_rain.onnx

The file maps "rainy", (1, 3, H, W) float32 RGB in [0, 1], to "restored" of the same shape, not
clipped. H and W are fixed (--size, by default 256 x 256): pad smaller images and cut larger ones
into tiles, as utils/inference/restorer.py does. With --any-size they are free within what the
network takes; PyTorch's exporter cannot follow every network that far, and says so.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from models import load_published, load_weights
from models.network import DerainingNetwork
from utils.errors import UserError, run_main
from utils.files import atomic_write

OPSET = 20  # the first with a DFT whose axis is an input, which PyTorch's exporter writes
TOLERANCE = 1e-4


class Restoring(nn.Module):
    """A network's ``restore`` as the ``forward`` that exporters look for."""

    def __init__(self, network: DerainingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: Tensor) -> Tensor:
        return self.network.restore(rainy)


def main() -> None:
    args = parse_arguments()
    require_packages()
    network = load_published(args.model, args.weights) if args.model else load_weights(args.weights)
    check_size(network, args.size)
    sizes = [args.size]
    if args.any_size:  # an odd number of steps away, where halvings may round differently
        step = network.size_multiple
        sizes.append((args.size[0] + 3 * step, args.size[1] + 5 * step))

    def write(temporary: Path) -> None:
        export(network, temporary, args.size, any_size=args.any_size)
        for size in sizes:
            error = largest_difference(network, temporary, size)
            print(f"{size[0]} x {size[1]}: at most {error:.1e} from PyTorch")
            if not error <= TOLERANCE:
                raise UserError(
                    f"The exported network is up to {error:.1e} from PyTorch's, more than "
                    f"{TOLERANCE:.0e}; nothing was written."
                )

    atomic_write(args.output, write)
    print(f"written to {args.output}")


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
    parser.add_argument(
        "--any-size", action="store_true", help="leave H and W free; takes longer to export"
    )
    args = parser.parse_args()
    args.size = tuple(args.size)
    if args.output.suffix != ".onnx":
        parser.error(f"--output is {args.output}; its suffix must be .onnx")
    return args


def require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"Exporting needs the package {error.name}: pip install -r tools/requirements.txt"
        ) from error


def check_size(network: DerainingNetwork, size: tuple[int, int]) -> None:
    multiple, smallest = network.size_multiple, network.min_size
    if any(side % multiple or side < smallest for side in size):
        raise UserError(
            f"--size is {size[0]} x {size[1]}; this network takes multiples of {multiple} from "
            f"{-(-smallest // multiple) * multiple} on."
        )


def export(network: DerainingNetwork, path: Path, size: tuple[int, int], *, any_size: bool) -> None:
    """Write the network as ONNX. Raises UserError where the exporter cannot."""
    rainy = torch.rand(1, 3, *size)
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # what it could not simplify
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch about itself
        try:
            program = torch.onnx.export(
                Restoring(network),
                (rainy,),
                dynamo=True,
                dynamic_shapes={"rainy": free} if any_size else None,
                input_names=["rainy"],
                output_names=["restored"],
                opset_version=OPSET,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            hint = "try a fixed size, without --any-size" if any_size else "run it with test.py"
            raise UserError(
                f"PyTorch {torch.__version__} cannot export {type(network).__name__} to ONNX; "
                f"{hint}. Its reason: {_first_line(error)}"
            ) from error
    assert program is not None  # it is None only for the exporter of TorchScript
    program.save(path)


def _first_line(error: BaseException) -> str:
    """What an exporter's pages of advice are about."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def largest_difference(network: DerainingNetwork, path: Path, size: tuple[int, int]) -> float:
    """The largest difference of the exported network from PyTorch's on random pixels."""
    import onnxruntime

    rainy = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (exported,) = session.run(["restored"], {"rainy": rainy.numpy()})
    with torch.inference_mode():
        expected = network.restore(rainy).numpy()
    return float(np.abs(exported - expected).max())


if __name__ == "__main__":
    run_main(main)
