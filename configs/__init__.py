"""The settings of a training run: every key with its default, and reading them from YAML.

A YAML file holds only what differs from the defaults below (or from the file named by its ``BASE``
key), the command line what differs from the YAML. Unknown keys and wrong types are refused.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from configs.limits import check_values
from utils.errors import UserError
from utils.wording import did_you_mean

# Settings that hold a text or a list; on the command line a list is written as in YAML.
TEXT_OR_LIST = ("DATA.TRAIN", "DATA.VAL", "TEST.SETS")


def default_config() -> CfgNode:
    """Every setting with its default; the comments are the reference of the keys."""
    c = CfgNode()

    c.RUN = CfgNode()
    c.RUN.NAME = "run"  # the run's folder is FOLDER/NAME
    c.RUN.FOLDER = "runs"
    c.RUN.SEED = 0  # of weights, order and augmentation; reproducible to the last bit on a CPU
    c.RUN.DETERMINISTIC = False  # reproducible on CUDA too, but slower
    c.RUN.TIMEOUT = 10.0  # minutes that processes wait for a missing one
    c.RUN.BACKEND = "auto"  # of several processes: NCCL on CUDA; or gloo, for processes on one GPU

    c.MODEL = CfgNode()
    c.MODEL.NAME = "dmsr"  # a name of models/registry.py
    c.MODEL.OPTIONS = CfgNode(new_allowed=True)  # fields of its configuration, e.g. width: 32
    c.MODEL.INIT = ""  # initial weights, a file of this project or the authors; empty: random
    c.MODEL.INIT_PARTIAL = False  # load what fits of INIT and report the rest, instead of refusing

    c.DATA = CfgNode()
    # A folder of pairs, or a list of folders and of [folder, weight]: 2 = twice per epoch. A text
    # file with a rainy and a clean file in each line can replace a folder.
    c.DATA.TRAIN = "datasets/train"
    # A folder, or a list of folders and of [folder, name]; empty: no validation and no `best`.
    c.DATA.VAL = "datasets/val"
    c.DATA.LAYOUT = "auto"  # recognised; or folders, one_folder, side_by_side
    c.DATA.MATCH = ""  # a regular expression; its groups hold what the names of a pair share
    c.DATA.RAINY_HALF = "auto"  # of side-by-side files: found by the images; or left, right
    # Training images whose scene is in a set of DATA.VAL or TEST.SETS: warn, refuse, drop, ignore.
    c.DATA.LEAKS = "warn"
    c.DATA.REPEAT = 1  # visits of each pair per epoch; raise it for small sets
    c.DATA.CACHE = ""  # folder for decoded images, memory-mapped; empty: decode every time
    c.DATA.WORKERS = 2  # loader processes per training process
    # Rain drawn on clean photographs while loading, instead of the pairs in TRAIN. Every SHARE is a
    # share of all patches, or of the synthetic rain where the comment says so.
    c.DATA.SYNTHESIS = CfgNode()
    c.DATA.SYNTHESIS.CLEAN = ""  # folder of clean photographs; empty: no synthesis
    c.DATA.SYNTHESIS.HOLD_OUT = 0  # as `make_rain.py --hold-out`: photographs and layers left out
    c.DATA.SYNTHESIS.LAYERS = ""  # pairs whose rain is added, or gray images of rain alone
    c.DATA.SYNTHESIS.SKIP_LAYERS = []  # stems in LAYERS that are left out
    c.DATA.SYNTHESIS.SHARE_LAYERS = 0.0  # with rain from LAYERS
    c.DATA.SYNTHESIS.SHARE_LIGHT = 0.1  # with light rain, 24 to 30 dB
    c.DATA.SYNTHESIS.SHARE_DRY = 0.05  # without rain; the remaining patches get synthetic rain
    c.DATA.SYNTHESIS.SHARE_DOWNPOURS = 0.0  # of the synthetic rain: like the heaviest in data sets
    c.DATA.SYNTHESIS.SHARE_FAINT = 0.0  # of the synthetic rain: finer or softer than in data sets
    c.DATA.SYNTHESIS.HARVEST = ""  # folder of crops of real rain, from tools/harvest_rain.py
    c.DATA.SYNTHESIS.SHARE_HARVEST = 0.0  # with rain composed from HARVEST
    c.DATA.SYNTHESIS.SHARE_PROCESSED = 0.0  # blurred, resized or compressed after the rain
    c.DATA.SYNTHESIS.SHARE_RELIT = 0.0  # with the scene's light or colours changed first
    c.DATA.SYNTHESIS.SHARE_DIM = 0.0  # with a dark or misty scene, where faint rain shows
    c.DATA.SYNTHESIS.SHARE_PATTERNS = 0.0  # with lattices, blinds, fur or text; half of them dry

    c.AUGMENT = CfgNode()
    c.AUGMENT.PATCH = 64  # pixels
    # Stages of larger patches: a list of [first epoch, patch, batch], epochs counted from 1.
    c.AUGMENT.PROGRESSIVE = []
    # The eight flips and rotations; dihedral9: the identity twice as often, as in two releases;
    # dihedral_batch: the same for all images of a step, as in MSPFN's; or hflip, none.
    c.AUGMENT.GEOMETRY = "dihedral"
    c.AUGMENT.SATURATION = [1.0, 1.0]  # factor, drawn uniformly
    c.AUGMENT.SATURATION_PROBABILITY = 0.0
    c.AUGMENT.CROP = []  # [smallest, largest] height and width of a crop, resized to PATCH
    c.AUGMENT.ROTATION = 0.0  # degrees, drawn from -ROTATION to ROTATION
    c.AUGMENT.BLACK_CORNERS = False  # keep the black corners of a rotation, as in DCSFN's release

    c.LOSS = CfgNode()
    c.LOSS.TERMS = CfgNode()  # weight of each term, 0 = off
    c.LOSS.TERMS.L1 = 0.0  # (DMSR)
    c.LOSS.TERMS.CHARBONNIER = 0.0  # a smooth L1 (NeRD-Rain, MSPFN)
    c.LOSS.TERMS.FFT_STACKED = 0.0  # L1 of stacked real and imaginary parts (DMSR)
    c.LOSS.TERMS.FFT_COMPLEX = 0.0  # mean modulus of the spectra's difference (NeRD-Rain)
    c.LOSS.TERMS.EDGE = 0.0  # Charbonnier of the Laplacian pyramid's finest level (NeRD-Rain)
    c.LOSS.TERMS.LAPLACIAN = 0.0  # Charbonnier of the 8-neighbour Laplacian (MSPFN)
    c.LOSS.TERMS.NEGATIVE_SSIM = 0.0  # minus the SSIM (DCSFN)
    c.LOSS.SCALES = 1  # how many outputs are compared, each half the size of the one before
    c.LOSS.PYRAMID = "bilinear"  # how the clean image is halved: bilinear or gaussian
    c.LOSS.IMPLICIT = 0.0  # weight of L1 on a network's implicit images (NeRD-Rain)
    c.LOSS.RANGE = [0.0, 1.0]  # of the images that the terms see

    c.OPTIM = CfgNode()
    c.OPTIM.BATCH_SIZE = 12  # images per step, over all processes and ACCUMULATE
    c.OPTIM.ACCUMULATE = 1  # micro-batches per step, which share BATCH_SIZE
    c.OPTIM.EPOCHS = 300
    c.OPTIM.NAME = "adam"  # or adamw
    c.OPTIM.LR = 2e-4
    c.OPTIM.BETAS = [0.9, 0.999]
    c.OPTIM.EPS = 1e-8
    c.OPTIM.WEIGHT_DECAY = 0.0  # of convolutions and linear layers, not of biases and norms
    c.OPTIM.CLIP_NORM = 0.0  # largest gradient norm, 0 = off
    c.OPTIM.EMA = 0.0  # decay of the averaged weights per step, 0 = off
    c.OPTIM.PRECISION = "float32"  # or bf16, fp16: autocast; Fourier parts stay in float32
    c.OPTIM.TF32 = False  # faster but less exact float32 products on CUDA
    c.OPTIM.CHANNELS_LAST = False  # memory format of the weights; on CUDA always
    c.OPTIM.COMPILE = False  # torch.compile for the network; for NeRD-Rain its layer norms only
    c.OPTIM.CUDA_GRAPH = False  # replay a step's kernels without Python's overhead; one GPU only
    c.OPTIM.GRADIENT_CHECKPOINTING = False  # recompute blocks in the backward pass to save memory

    c.SCHEDULE = CfgNode()
    c.SCHEDULE.NAME = "warmup_cosine"  # or multi_step, exponential
    c.SCHEDULE.WARMUP_EPOCHS = 3  # warmup_cosine
    c.SCHEDULE.LR_MIN = 1e-6  # the cosine's last rate; exponential adds it to every rate
    c.SCHEDULE.MILESTONES = [0.6, 0.8]  # multi_step: fractions of all steps
    c.SCHEDULE.GAMMA = 0.1  # multi_step: factor per milestone; exponential: per DECAY_STEPS
    c.SCHEDULE.DECAY_STEPS = 20000

    c.VALIDATION = CfgNode()
    c.VALIDATION.EVERY = 1  # epochs between validations
    c.VALIDATION.EVERY_STEPS = 0  # steps between validations in an epoch of days; 0 = none
    c.VALIDATION.BEST = "mean"  # PSNR by which weights are the best: mean, or a set's name
    c.VALIDATION.PROTOCOL = "rain13k"  # as in evaluate.py
    c.VALIDATION.PATIENCE = 0  # epochs without a better PSNR before stopping, 0 = never
    c.VALIDATION.SAMPLES_EVERY = 10  # epochs between sample pictures in the run folder, 0 = none

    # What `test.py --config` does: restores these sets and scores them. For it, MODEL.NAME may also
    # be spandrel: a network of another project, which that package recognises in --weights FILE.
    c.TEST = CfgNode()
    c.TEST.SETS = ""  # as DATA.VAL; empty: the sets of DATA.VAL
    c.TEST.METHOD = ""  # the method's name in tables and folders; empty: RUN.NAME
    c.TEST.OUTPUT = "results"  # restored images go to OUTPUT/METHOD/SET/
    c.TEST.SCORES = "evaluation"  # folder of the table and the page
    c.TEST.PROTOCOL = ""  # of all sets, as evaluate.py's; empty: each set's own
    c.TEST.TILE = "auto"  # as test.py's --tile: auto, whole, released, 256 or 256x384
    c.TEST.OVERLAP = -1  # pixels over which tiles are blended; -1: test.py's default
    c.TEST.ENSEMBLE = 1  # 8: average over flips and quarter turns, in eight times the time
    c.TEST.PRECISION = "float32"  # or bf16, fp16

    c.CHECKPOINT = CfgNode()
    c.CHECKPOINT.EVERY_STEPS = 0  # steps between checkpoints within an epoch; 0 = none
    c.CHECKPOINT.KEEP_BEST = 1  # best weights kept; from 2 on also in best/, named by step and PSNR
    c.CHECKPOINT.SNAPSHOT_EVERY = 0  # epochs between weights kept forever in snapshots/, 0 = none

    c.LOG = CfgNode()
    c.LOG.EVERY_STEPS = 50  # steps between lines in log.jsonl and, without a bar, on the console
    c.LOG.WANDB = False  # also to Weights & Biases (needs its package; WANDB_MODE=offline works)
    c.LOG.WANDB_PROJECT = "petrichor"
    return c


def settings_help() -> str:
    """Every setting with its default and comment, by group, in lines of 80 columns."""
    cfg, lines, comments = default_config(), [], []
    for line in inspect.getsource(default_config).splitlines():
        text = line.strip()
        if text.startswith("# "):
            comments.append(text[2:])
            continue
        found = re.match(r"c\.([A-Z0-9_.]+) = .*?(?:  # (.*))?$", text)
        if found is None:
            continue
        key, comment = found.groups()
        words = " ".join([*comments, *([comment] if comment else [])])
        comments = []
        default = _default_of(key, cfg)
        if isinstance(default, CfgNode) and default:
            lines += ["", *textwrap.wrap(f"{key}: {words}" if words else key, 80)]
            continue
        value = default if isinstance(default, str) and default else repr(default)
        value = "{}" if isinstance(default, CfgNode) else value
        head = f"  {key} {value}"
        lines += textwrap.wrap(f"{head:38}  {words}", 80, subsequent_indent=" " * 8)
    return "\n".join(lines).strip()


def load_config(path: Path, overrides: list[str] | None = None) -> CfgNode:
    """The defaults, then the file that BASE names, then ``path``, then KEY VALUE ``overrides``.

    MODEL.OPTIONS belong to MODEL.NAME: if a file or the command line names another network than the
    files before it, their options are dropped.

    Returns a frozen configuration. Raises UserError for an unknown key (with the nearest one), a
    value of a wrong type or out of its limits, and a file that is missing or not YAML.
    """
    cfg = default_config()
    for source, values in _read_with_bases(Path(path), ()):
        _merge_source(cfg, values, source)
    overrides = overrides or []
    if len(overrides) % 2:
        raise UserError(
            f"Settings on the command line come as KEY VALUE pairs; {overrides[-1]} has no value."
        )
    pairs = zip(overrides[::2], overrides[1::2], strict=True)
    for key, value in sorted(pairs, key=lambda pair: pair[0] != "MODEL.NAME"):  # before its options
        nested: Any = value if isinstance(_default_of(key), str) else _literal(value)
        if key in TEXT_OR_LIST and value.startswith("["):
            nested = _yaml_list(key, value)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge_source(cfg, nested, "the command line")
    check_values(cfg)
    cfg.freeze()
    return cfg


def changed_settings(old: CfgNode, new: CfgNode, prefix: str = "") -> list[str]:
    """The settings that differ between two configurations, as lines ``KEY: old -> new``."""
    lines = []
    for key, value in new.items():
        if isinstance(value, CfgNode):
            lines += changed_settings(old.get(key, CfgNode()), value, f"{prefix}{key}.")
        elif old.get(key) != value:
            lines.append(f"{prefix}{key}: {old.get(key)!r} -> {value!r}")
    return lines


def loss_recipe(path: Path, overrides: list[str]) -> tuple[str, str] | None:
    """The file that decides the loss of a run, and the network that the file is for.

    None if the command line sets a part of the loss.
    """
    if any(key.startswith("LOSS.") for key in overrides[::2]):
        return None
    cfg, found = default_config(), None
    for source, values in _read_with_bases(Path(path), ()):
        _merge_source(cfg, values, source)
        if "LOSS" in values:
            found = (source, cfg.MODEL.NAME)
    return found


def shipped_recipes() -> list[tuple[Path, str]]:
    """The recipes in this folder and the names of their networks."""
    paths = sorted(Path(__file__).parent.glob("*_*.yml"))
    return [(path, load_config(path).MODEL.NAME) for path in paths]


class _StrictLoader(yaml.SafeLoader):
    """YAML without repeated keys, of which PyYAML would silently use the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key} occurs twice; put its settings together", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _read_with_bases(path: Path, above: tuple[Path, ...]) -> list[tuple[str, Mapping[str, Any]]]:
    """The values of the files that a YAML file builds on, then its own; ``above`` build on it."""
    if path.resolve() in above:
        raise UserError(f"{path} builds on itself; look at BASE in {above[-1]}.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader) or {}
    except OSError as error:
        raise UserError(f"Cannot read the settings {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} contains no settings; write lines such as 'MODEL:'.")
    base = values.pop("BASE", None)
    if base is not None and not isinstance(base, str):
        raise UserError(f"{path}: BASE is {base!r}; it must name a YAML file.")
    before = _read_with_bases(path.parent / base, (*above, path.resolve())) if base else []
    return [*before, (str(path), values)]


def _merge_source(cfg: CfgNode, values: Mapping[str, Any], source: str) -> None:
    """Merge a file or a setting of the command line; drop the options of another network."""
    model = values.get("MODEL")
    if isinstance(model, dict) and model.get("NAME", cfg.MODEL.NAME) != cfg.MODEL.NAME:
        cfg.MODEL.OPTIONS = CfgNode(new_allowed=True)
    _merge(cfg, values, source)


def _merge(node: CfgNode, values: Mapping[str, Any], source: str, prefix: str = "") -> None:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in node and not node.is_new_allowed():
            hint = did_you_mean(name, _all_keys(default_config()), cutoff=0.4)
            raise UserError(f"{source}: there is no setting {name}.{hint}")
        if isinstance(node.get(key), CfgNode):
            if not isinstance(value, dict):
                raise UserError(
                    f"{source}: {name} is a group of settings "
                    f"({', '.join(node[key]) or 'of the network'}), not the value {value!r}."
                )
            _merge(node[key], value, source, f"{name}.")
        elif key in node:
            node[key] = _of_type(value, node[key], name, source)
        else:
            node[key] = value  # MODEL.OPTIONS, which build_model checks


def _of_type(value: Any, default: Any, name: str, source: str) -> Any:
    """``value``, if it has the default's type; whole numbers and '1e-4' become floats."""
    wanted = type(default)
    if wanted is float and type(value) in (int, str):
        try:
            return float(value)
        except ValueError:
            pass  # refused below
    if wanted is list and isinstance(value, tuple):
        value = list(value)
    if wanted is str and type(value) is int:  # a name or a tile such as 128
        value = str(value)
    if isinstance(value, (str, list)) and name in TEXT_OR_LIST:
        return value
    if type(value) is not wanted:
        raise UserError(
            f"{source}: {name} is {value!r}, of type {type(value).__name__}; it must be of type "
            f"{wanted.__name__}, such as {default!r}."
        )
    return value


def _default_of(name: str, defaults: CfgNode | None = None) -> Any:
    """The default of a setting, or None if there is no such setting."""
    node: Any = default_config() if defaults is None else defaults
    for part in name.split("."):
        node = node.get(part) if isinstance(node, CfgNode) else None
    return node


def _literal(text: str) -> Any:
    """A command line value: a Python literal (numbers, lists, True) or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)


def _yaml_list(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{name} is {text!r}; write a list such as [a, b].") from error


def _all_keys(node: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        keys.append(prefix + key)
        if isinstance(value, CfgNode):
            keys += _all_keys(value, f"{prefix}{key}.")
    return keys
