"""Average the weights of two runs of one network, the second of which continued the first.

    python tools/average_weights.py BEFORE.safetensors AFTER.safetensors --output MEAN.safetensors

Continued training gains on its new data and loses elsewhere; the mean of both weights often keeps
most of both (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from utils.checkpoints import read_weights, write_weights
from utils.errors import UserError, run_main


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the average that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="weights before the continued training")
    parser.add_argument("after", type=Path, help="weights after it")
    parser.add_argument("--output", type=Path, required=True, help="a new .safetensors file")
    parser.add_argument(
        "--share",
        type=float,
        default=0.5,
        help="weight of AFTER in the mean, 0 to 1 (default: 0.5)",
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.share <= 1:
        raise UserError(f"--share is {options.share:g}; it must be from 0 to 1.")
    if options.output.exists():
        raise UserError(f"{options.output} already exists; choose another --output.")

    before, after = read_weights(options.before), read_weights(options.after)
    if (before.model, before.options) != (after.model, after.options):
        raise UserError(f"{options.before} and {options.after} hold different networks.")
    if before.state.keys() != after.state.keys():
        raise UserError(f"{options.before} and {options.after} have different entries.")
    state = {
        name: value.lerp(after.state[name], options.share) if value.is_floating_point() else value
        for name, value in before.state.items()
    }
    info = {**after.info, "averaged_with": options.before.name, "share": options.share}
    write_weights(options.output, replace(after, state=state, info=info))


if __name__ == "__main__":
    run_main(main)
