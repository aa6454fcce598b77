"""Convert weights between the authors' checkpoints and this project's files.

    python tools/convert_weights.py --model nerd_rain --weights nerd.pth --output nerd.safetensors
    python tools/convert_weights.py --to published --weights nerd.safetensors --output nerd.pth

The second makes a file that the authors' code loads: their names, their unused entries as zeros,
under the key and with the prefix of their own checkpoints. MSPFN's TensorFlow checkpoints can be
read but not written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from models import NETWORKS, load_published, load_weights
from models.dcsfn import DCSFN
from models.mspfn import MSPFN
from utils.checkpoints import Weights, read_weights, save_torch_file, write_weights
from utils.errors import UserError, run_main
from utils.files import atomic_write


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert weights from or to the authors' format.")
    parser.add_argument("--weights", type=Path, required=True, help="file, or TensorFlow prefix")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--model", help=f"network of published weights: {', '.join(NETWORKS)}")
    parser.add_argument("--to", choices=("project", "published"), default="project")
    args = parser.parse_args()
    if args.output.exists():
        raise UserError(f"{args.output} exists; choose another name or remove it first.")
    if args.to == "published":
        if args.model:
            raise UserError("Weights of this project know their network; leave out --model.")
        to_published(args.weights, args.output)
    else:
        to_project(args.model, args.weights, args.output)
    print(f"wrote {args.output}")


def to_project(model: str | None, source: Path, output: Path) -> None:
    """An author's checkpoint, or a training checkpoint of this project, as ``.safetensors``."""
    if output.suffix != ".safetensors":
        raise UserError(f"{output} must end in .safetensors, the format of this project's weights.")
    if model is None:
        write_weights(output, read_weights(source))
        return
    network = load_published(model, source)
    info = {"converted from": source.name}
    write_weights(output, Weights(model, {}, network.state_dict(), info))


def to_published(source: Path, output: Path) -> None:
    """This project's weights in their authors' names, wrapped as their checkpoints are."""
    network = load_weights(source)
    if isinstance(network, MSPFN):
        raise UserError("MSPFN's authors use TensorFlow checkpoints, which are not written here.")
    state = network.to_published()
    if isinstance(network, DCSFN):
        content = {"net": {f"module.{name}": value for name, value in state.items()}}
    else:
        content = {"state_dict": state}
    atomic_write(output, lambda file: save_torch_file(content, file))


if __name__ == "__main__":
    run_main(main)
