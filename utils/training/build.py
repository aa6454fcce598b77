"""Building a run from its settings: what ``train.py`` trains, reads and writes.

This file and ``dry_run.py`` combine the packages as the scripts do, for ``train.py`` only.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from yacs.config import CfgNode

from configs import changed_settings, loss_recipe, shipped_recipes
from data.leaks import write_leaks
from data.loaders import Loaders, build_loaders
from losses import build_criterion
from losses.criteria import Criterion
from models import NETWORKS, build_model, load_initial
from utils.checkpoints import seal_of
from utils.console import say
from utils.devices import bf16_warning, device_name, tf32_note
from utils.files import write_text
from utils.training.checkpointing import recompute_blocks
from utils.training.checks import (
    check_best,
    check_deterministic,
    check_is_unfinished,
    check_patches,
)
from utils.training.data_identity import FileStamps, check_same_files, identify_files, write_list
from utils.training.distributed import Processes
from utils.training.ema import ModelEma
from utils.training.graphs import GraphedCompute, check_graph
from utils.training.logs import RunLog, note_start
from utils.training.optim import build_optimizer, has_batch_norm, set_backends
from utils.training.plan import Pace, RunPlan
from utils.training.run_folder import RunFolder
from utils.training.same_start import data_facts, program_facts
from utils.training.schedule import Schedule
from utils.training.state import TrainingState, read_state, seed_everything
from utils.training.stopping import StopSignal


@dataclass(frozen=True)
class Run:
    """Everything that the functions of ``train.py`` work with."""

    cfg: CfgNode
    folder: RunFolder
    processes: Processes
    stop: StopSignal
    loaders: Loaders
    model: nn.Module  # the network; in DistributedDataParallel for several processes
    criterion: Criterion
    schedule: Schedule
    state: TrainingState
    pace: Pace
    graphs: GraphedCompute  # replays a micro-batch's computation with OPTIM.CUDA_GRAPH
    log: RunLog | None  # the main process's; None in a dry run


class Start(NamedTuple):
    """How a run begins: the command line's options besides the settings."""

    resume: bool
    resume_from: Path | None
    accept_changed_data: bool
    dry_run: bool


def build_run(
    cfg: CfgNode, start: Start, folder: RunFolder, processes: Processes, stop: StopSignal
) -> Run:
    """Build everything, and load the checkpoint if the run is resumed.

    All processes call this together: a UserError in one of them ends them all.
    """
    processes.check_same(program_facts(cfg))
    checkpoint = None
    with processes.all_or_none(stop):
        if processes.is_main and not start.dry_run:
            checkpoint = folder.checkpoint_to_resume(start.resume, start.resume_from)
    checkpoint = processes.gather(checkpoint)[0]
    with processes.all_or_none(stop):
        # Remembers which images were found sound; a dry run writes nothing.
        index = None if start.dry_run else Path(cfg.RUN.FOLDER) / ".checked"
        loaders, criterion, schedule, state = _build_parts(
            cfg, processes, index, checkpoint is not None
        )
    facts = data_facts(state.plan.num_samples, state.files)
    with processes.all_or_none(stop):
        if processes.is_main and not start.dry_run:
            folder.lock(is_new=checkpoint is None)
        if checkpoint is not None:
            facts |= _resume(state, folder, processes, checkpoint, start.accept_changed_data)
    processes.check_same(facts)
    model = processes.in_step(state.network)
    log = None
    with processes.all_or_none(stop):
        if processes.is_main and not start.dry_run:
            log = _open_log(state, folder, processes)
            for path in write_leaks(folder.path, loaders.leaks):
                say(f"wrote {path}")
    return Run(
        cfg=cfg,
        folder=folder,
        processes=processes,
        stop=stop,
        loaders=loaders,
        model=model,
        criterion=criterion,
        schedule=schedule,
        state=state,
        pace=Pace(state.plan),
        graphs=GraphedCompute(state.network, enabled=cfg.OPTIM.CUDA_GRAPH),
        log=log,
    )


def note_other_recipe(cfg: CfgNode, config: Path, settings: list[str]) -> None:
    """Print a note if loss, learning rate and patch come from another network's recipe."""

    def kind(name: str) -> type | None:
        return NETWORKS[name][0] if name in NETWORKS else None

    name, found = cfg.MODEL.NAME, loss_recipe(config, settings)
    if found and kind(found[1]) is not kind(name):
        fitting = [path for path, model in shipped_recipes() if kind(model) is kind(name)]
        advice = f"; its own recipes include configs/{fitting[0].name}" if fitting else ""
        say(
            f"note: MODEL.NAME is {name}, but loss, learning rate and patch come from "
            f"{found[0]}, a recipe for {found[1]}{advice}"
        )


def _build_parts(
    cfg: CfgNode, processes: Processes, index: Path | None, is_resumed: bool
) -> tuple[Loaders, Criterion, Schedule, TrainingState]:
    """The parts of a run at its start. Must not contain a collective operation."""
    device = processes.device
    if cfg.OPTIM.PRECISION == "bf16" and processes.is_main and (warning := bf16_warning(device)):
        say(warning)
    if cfg.OPTIM.TF32 and processes.is_main and (note := tf32_note(device)):
        say(note)
    check_graph(cfg, device, processes.world_size)
    set_backends(cfg)
    seed_everything(cfg.RUN.SEED)
    network = build_model(cfg.MODEL.NAME, cfg.MODEL.OPTIONS)
    check_patches(cfg, network)
    check_deterministic(cfg, device, network)
    criterion = build_criterion(cfg.LOSS, network.implicit_outputs).to(device)
    _check_outputs(cfg, criterion)
    loaders = build_loaders(cfg, processes.rank, processes.world_size, index=index)
    check_best(cfg, list(loaders.validation))
    if cfg.MODEL.INIT and not is_resumed:
        node = cfg.MODEL
        left = load_initial(network, node.NAME, node.INIT, node.INIT_PARTIAL, node.OPTIONS)
        if left and processes.is_main:
            say(f"note: MODEL.INIT gave {left}")
    if processes.world_size > 1 and device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    elif processes.world_size > 1 and processes.is_main and has_batch_norm(network):
        say(
            "note: PyTorch synchronises batch norms between GPUs only; here each process "
            "normalises its own share of a batch, and process 0's running averages are kept"
        )
    network.to(device)
    # On CUDA the features, whose layout the networks choose, are channels_last; cuDNN would convert
    # weights of another layout at every use.
    if cfg.OPTIM.CHANNELS_LAST or device.type == "cuda":
        network.to(memory_format=torch.channels_last)
    ema = ModelEma(network, cfg.OPTIM.EMA)
    if cfg.OPTIM.GRADIENT_CHECKPOINTING:
        recompute_blocks(network, network.checkpointed_blocks)
    if cfg.OPTIM.COMPILE:
        network.compile_for_training()
    optimizer = build_optimizer(cfg, network)
    plan = RunPlan(cfg, loaders.sampler.num_samples)
    scaler = torch.amp.GradScaler(device.type, enabled=cfg.OPTIM.PRECISION == "fp16")
    files = _identify_data(loaders)
    order, scenes = _order_of_samples(loaders), loaders.scenes
    state = TrainingState(cfg, network, ema, optimizer, scaler, plan, files, order, scenes)
    # Before a checkpoint is loaded: the base learning rate is this run's, not the saved one.
    schedule = Schedule(optimizer, cfg.SCHEDULE, cfg.OPTIM.EPOCHS, plan.total_steps)
    return loaders, criterion, schedule, state


def _check_outputs(cfg: CfgNode, criterion: Criterion) -> None:
    """Refuse a loss that does not fit the network's outputs, before any data are read.

    The network runs on the meta device, which computes shapes only.
    """
    with torch.device("meta"):
        network = build_model(cfg.MODEL.NAME, cfg.MODEL.OPTIONS)
        rainy = torch.empty(1, 3, cfg.AUGMENT.PATCH, cfg.AUGMENT.PATCH)
    criterion.check(network(rainy), rainy)


def _identify_data(loaders: Loaders) -> dict[str, FileStamps]:
    """All files' names, sizes and times, by TRAIN, LAYERS and the validation sets' names."""
    sets = {"TRAIN": loaders.train_pairs, **{n: s.pairs for n, s in loaders.validation.items()}}
    if loaders.layer_pairs:
        sets["LAYERS"] = loaders.layer_pairs
    return {
        name: identify_files(path for pair in pairs for path in (pair.rainy, pair.clean))
        for name, pairs in sets.items()
    }


def _order_of_samples(loaders: Loaders) -> str:
    """A digest of which sample of an epoch shows which pair; the same after a move of all data."""
    paths = [os.path.abspath(pair.rainy) for pair in loaders.train_pairs]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    order = ([os.path.relpath(path, root) for path in paths], loaders.shares)
    return hashlib.sha256(repr(order).encode(errors="surrogateescape")).hexdigest()


def _resume(
    state: TrainingState,
    folder: RunFolder,
    processes: Processes,
    checkpoint: Path,
    accept_changed_data: bool,
) -> dict[str, object]:
    """Load ``checkpoint``; returns what must be the same in all processes."""
    saved = read_state(checkpoint)
    state.load(saved, checkpoint)
    progress = state.progress
    if processes.is_main:
        changes = check_same_files(
            checkpoint.parent, saved["data"], state.files, accept_changed_data
        )
        state.check_same_epoch(saved, checkpoint, same_files=not changes)
        if changes:
            say(f"note: continuing with changed data: {changes}")
        changed = changed_settings(CfgNode.load_cfg(saved["config"]), state.cfg)
        check_is_unfinished(state, checkpoint, changed)
        for line in changed:
            say(f"changed setting {line}")
        count = state.cfg.CHECKPOINT.KEEP_BEST
        best, kept = progress.best_psnr, progress.kept
        progress.kept = folder.take_best(checkpoint.parent, best, kept, count)
        if progress.best_epoch and not folder.best.exists():
            say(
                f"note: the weights of the best epoch, {progress.best_epoch}, were not found "
                f"in {folder.path} or beside {checkpoint}; only better ones will be kept"
            )
        say(f"resuming {checkpoint} in epoch {progress.epoch}")
    return {
        "the number of steps done": progress.step,
        f"the digest of {checkpoint}": seal_of(checkpoint)[:12],
    }


def _open_log(state: TrainingState, folder: RunFolder, processes: Processes) -> RunLog:
    """Start writing to the run's folder."""
    write_text(folder.config, state.cfg.dump())
    write_list(folder.path, state.files)
    note_start(
        folder.path, device_name(processes.device), processes.world_size, state.progress.step
    )
    return RunLog(folder.path, state.cfg, state.progress.history, state.progress.step)
