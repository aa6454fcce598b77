"""Show how a folder is read, before anything is trained on it or scored against it.

    python tools/check_dataset.py datasets/Rain200H/test

prints the layout, the pairs, their sizes, what is left out, and which known set has that many pairs
with its protocol and recipes; it draws the first three pairs (rainy left, clean right) too. The
exit status is 1 if images have no partner, a pair has two sizes, or files are unreadable.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from configs import load_config
from data.known_sets import KNOWN_SETS, known_set, sets_of
from data.layouts import LAYOUTS, Sides
from data.layouts.halves import RAINY_HALF
from data.layouts.recognise import find_sides
from data.pairs import Pair, pair_sides
from data.settings import training_folders
from utils.errors import UserError, run_main
from utils.evaluation.published import facts
from utils.images import stack_rows, write_png
from utils.set_names import dataset_name, named_folders
from utils.wording import plural

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SHOWN = 10  # problems
MOST_SIZES = 2000  # pairs whose sizes are read
ROW_HEIGHT = 200  # pixels of a pair in the picture
NUM_DRAWN = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and draw what the folder holds; return 1 if something is wrong with it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a data set, or a text file that lists pairs")
    parser.add_argument("--layout", choices=("auto", *LAYOUTS), default="auto")
    parser.add_argument("--match", default="", metavar="PATTERN", help="as in evaluate.py")
    parser.add_argument("--rainy-half", choices=RAINY_HALF, default="auto")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("dataset.png"),
        metavar="FILE.png",
        help="picture of the first three pairs (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    sides = find_sides(args.folder, args.layout, args.match, args.rainy_half)
    pairs_by_name, problems, notes = pair_sides(sides, args.match)
    pairs = list(pairs_by_name.values())

    print(f"{args.folder}: {describe_layout(sides)}")
    print(f"pairs: {describe_pairs(sides, pairs)}")
    sizes, more_problems = read_sizes(pairs)
    print(f"sizes: {sizes}")
    for note in notes:
        print(f"note: {note}")
    for line in describe_known(args.folder, len(pairs)):
        print(line)
    problems += more_problems
    if pairs and not more_problems:
        write_png(args.output, draw_pairs(pairs[:NUM_DRAWN]))
        print(f"Look at {args.output}: rainy left, clean right.")
    for problem in problems[:SHOWN]:
        print(f"error: {problem}", file=sys.stderr)
    if len(problems) > SHOWN:
        print(f"error: ... and {len(problems) - SHOWN} more", file=sys.stderr)
    return 1 if problems else 0


def describe_layout(sides: Sides) -> str:
    if sides.layout == "side_by_side":
        return f"{LAYOUTS[sides.layout]}, the {sides.rainy_half} half rainy"
    return LAYOUTS[sides.layout]


def describe_pairs(sides: Sides, pairs: Sequence[Pair]) -> str:
    """The number of pairs and the files of the first one."""
    count = f"{len(pairs)} ({len(sides.rainy)} rainy, {len(sides.clean)} clean images)"
    if not pairs:
        return count
    first = pairs[0]
    return f"{count}, the first is {first.rainy} with {first.clean}"


def read_sizes(pairs: Sequence[Pair]) -> tuple[str, list[str]]:
    """The most common sizes, from the files' headers; a sentence for each pair of two sizes."""
    some = pairs[:: -(-len(pairs) // MOST_SIZES)] if pairs else []
    counts: Counter[str] = Counter()
    problems = []
    for pair in some:
        try:
            rainy, clean = header_size(pair.rainy), header_size(pair.clean)
        except UserError as error:
            problems.append(str(error))
            continue
        counts[rainy] += 1
        if rainy != clean:
            problems.append(f"{pair.rainy} is {rainy} and {pair.clean} is {clean} pixels")
    common = ", ".join(f"{size} ({count})" for size, count in counts.most_common(3))
    more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
    share = f", of {len(some)} inspected pairs" if len(some) < len(pairs) else ""
    return f"{common}{more}{share}", problems


def header_size(path: Path) -> str:
    """Width and height of an image file, as ``481x321``, without decoding it."""
    try:
        with Image.open(path) as image:
            return f"{image.width}x{image.height}"
    except OSError as error:
        raise UserError(f"{path} is not a readable image.") from error


def describe_known(folder: Path, num_pairs: int) -> list[str]:
    """Lines on the known sets that the folder may hold, their protocols and recipes."""
    parts = list(reversed(folder.absolute().parts))
    called = next((name for part in parts if (name := known_set(part))), "")
    found = sets_of(num_pairs, parts)
    names = list(dict.fromkeys(name for name, _ in found))
    lines = []
    if called and called not in names:
        expected = KNOWN_SETS[called]
        counts = [f"{count:,}" for count in (*expected.train, *expected.test)]
        lines.append(
            f"set: called {called}, whose parts have {' or '.join(counts)} pairs, not {num_pairs:,}"
            if counts
            else f"set: {called}"
        )
        names = [called]
    elif called:
        part = next(part for name, part in found if name == called)
        lines.append(f"set: {called}, {part}, by its name and its {plural(num_pairs, 'pair')}")
        names = [called]
    elif found:
        could_be = ", ".join(f"{name} {part}" for name, part in found)
        lines.append(f"set: with {plural(num_pairs, 'pair')} this may be {could_be}")
    else:
        lines.append(f"set: no known set has {plural(num_pairs, 'pair')}")
    for name in names:
        recipes = ", ".join(recipes_of(name)) or "none; any network trains on DATA.TRAIN"
        lines.append(f"{name}: protocol {facts(name).protocol}, recipes {recipes}")
    if not names:
        lines.append(f"protocol: {facts(dataset_name(folder)).protocol}, as for any unknown set")
    return lines


def recipes_of(name: str) -> list[str]:
    """The files of configs/ that train, validate or test on a known set."""
    found = []
    for path in sorted(CONFIGS.glob("*.yml")):
        cfg = load_config(path)
        folders = [folder for folder, _ in training_folders(cfg.DATA.TRAIN)]
        folders += named_folders(cfg.DATA.VAL, "DATA.VAL").values()
        folders += named_folders(cfg.TEST.SETS, "TEST.SETS").values()
        if name in {known_set(dataset_name(Path(folder))) for folder in folders}:
            found.append(path.stem)
    return found


def draw_pairs(pairs: Iterable[Pair]) -> np.ndarray:
    """The pairs below one another, rainy left, clean right, (H, W, 3) uint8."""
    rows = []
    for pair in pairs:
        both = np.hstack(pair.read_uint8())
        width = max(1, round(both.shape[1] * ROW_HEIGHT / both.shape[0]))
        rows.append(cv2.resize(both, (width, ROW_HEIGHT), interpolation=cv2.INTER_AREA))
    return stack_rows(rows)


if __name__ == "__main__":
    run_main(main)
