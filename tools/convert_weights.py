"""Convert weights between the authors' checkpoints and this project's files.

    python tools/convert_weights.py --model nerd_rain --weights nerd.pth --output nerd.safetensors
    python tools/convert_weights.py --to published --weights nerd.safetensors --output nerd.pth

The second writes a file that the authors' code loads, with their names, keys and prefixes and with
zeros for their unused entries; for MSPFN a TensorFlow checkpoint, with --output as its prefix. Such
a file does not contain the network's options, so another size than the published one needs them to
be converted back:

    python tools/convert_weights.py --model nerd_rain --options width=16 head_width=64 \\
        num_blocks=1,1,2 --weights published.pth --output petrichor.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from models import NETWORKS, load_published, load_weights
from models.published import is_tensorflow_checkpoint, write_published
from models.registry import parse_options
from utils.checkpoints import Weights, read_weights, write_weights
from utils.errors import UserError, run_main


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", type=Path, required=True, help="file, or prefix of a TensorFlow checkpoint"
    )
    parser.add_argument("--output", type=Path, required=True, help="new file, or prefix")
    parser.add_argument(
        "--model", help=f"network whose authors wrote the file: {', '.join(NETWORKS)}"
    )
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of --model, such as width=16",
    )
    parser.add_argument("--to", choices=("project", "published"), default="project")
    args = parser.parse_args(arguments)
    if args.output.exists() or is_tensorflow_checkpoint(args.output):
        raise UserError(f"{args.output} already exists; choose another --output or delete it.")
    if args.to == "published" and (args.model or args.options):
        raise UserError(
            "Weights of this project name their network; leave out --model and --options."
        )
    if args.options and not args.model:
        raise UserError("--options need the network that they belong to; name it with --model.")
    if args.to == "published":
        weights = convert_to_published(args.weights, args.output)
        if weights.options:
            print(f"to convert it back, add {command_line_options(weights.options)}")
    else:
        convert_to_project(args.model, args.options, args.weights, args.output)
    print(f"wrote {args.output}")


def convert_to_project(
    model: str | None, settings: Sequence[str], source: Path, output: Path
) -> None:
    """Write an authors' checkpoint, or this project's training checkpoint, as ``.safetensors``."""
    if output.suffix != ".safetensors":
        raise UserError(f"{output} must end in .safetensors, the format of this project's weights.")
    if model is None:
        write_weights(output, read_weights(source))
        return
    options = parse_options(settings)
    network = load_published(model, source, options)
    info = {"converted from": source.name}
    write_weights(output, Weights(model, options, network.state_dict(), info))


def convert_to_published(source: Path, output: Path) -> Weights:
    """Write a file of this project for the authors' code; returns the weights of that file."""
    write_published(load_weights(source), output)
    return read_weights(source)


def command_line_options(options: dict) -> str:
    """``build_model`` options as ``--options``, without blanks, at which a shell would split."""
    return "--options " + " ".join(
        f"{key}={value}".replace(" ", "").replace("[", "").replace("]", "")
        for key, value in options.items()
    )


if __name__ == "__main__":
    run_main(main)
