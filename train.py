"""Train a network: python train.py --config configs/dmsr_rain13k.yml [KEY VALUE ...].

The run's folder, RUN.FOLDER/RUN.NAME, receives the resolved settings (config.yml), log.jsonl,
curves.png, TensorBoard events, sample pictures, latest.pth (to go on with --resume), previous.pth
(the one before) and best.safetensors (the weights to use).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from yacs.config import CfgNode

from configs import load_config
from data import Loaders, build_loaders
from losses import build_criterion
from losses.criteria import Criterion
from models import build_model, load_state
from models.network import DerainingNetwork
from utils.checkpoints import Weights, read_checkpoint, write_checkpoint, write_weights
from utils.ema import WeightAverage
from utils.errors import UserError, run_main
from utils.files import write_text
from utils.images import to_float, to_uint8
from utils.logs import Record, RunLog
from utils.metrics import score
from utils.processes import (
    Processes,
    StopSignal,
    random_states,
    seed_everything,
    set_random_states,
    start_processes,
    stop_processes,
)
from utils.restore import restore_tensor
from utils.schedule import Schedule

AUTOCAST = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Progress:
    """How far a run is; all that a checkpoint holds besides tensors."""

    epoch: int = 1  # the one under way, counted from 1
    step_in_epoch: int = 0  # steps of it that are done
    step: int = 0  # steps of the whole run that are done
    sums: dict[str, float] = field(default_factory=dict)  # loss and parts of the epoch under way
    best_psnr: float = -math.inf
    best_epoch: int = 0
    history: list[Record] = field(default_factory=list)


@dataclass
class Run:
    """What ``main`` builds and the functions below share."""

    config: CfgNode
    folder: Path
    processes: Processes
    loaders: Loaders
    network: DerainingNetwork
    parallel: nn.Module  # the network, or what keeps its copies in all processes equal
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    average: WeightAverage
    progress: Progress


def main() -> None:
    args = parse_arguments()
    config = load_config(args.config, args.settings)
    processes = start_processes()
    try:
        run = build_run(config, processes)
        if args.dry_run:
            dry_run(run)
            return
        if args.resume or args.resume_from:
            resume(run, args.resume_from or run.folder / "latest.pth")
        elif processes.is_main:
            start_folder(run)
        train(run)
    finally:
        stop_processes()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a deraining network.")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(__file__).with_name("training.yml"),
        help="YAML file of settings (default: training.yml)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run that exists from its latest.pth"
    )
    parser.add_argument(
        "--resume-from",
        type=Path,
        metavar="CHECKPOINT",
        help="the same from another checkpoint, such as previous.pth",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check data and shapes, take a few steps, print the plan; writes nothing",
    )
    parser.add_argument(
        "settings", nargs="*", metavar="KEY VALUE", help="settings such as OPTIM.BATCH_SIZE 8"
    )
    # Settings may stand before, between and behind the options.
    return parser.parse_intermixed_args()


def build_run(config: CfgNode, processes: Processes) -> Run:
    """Everything that training needs, at its start."""
    if config.OPTIM.PRECISION not in AUTOCAST:
        raise UserError(
            f"OPTIM.PRECISION is {config.OPTIM.PRECISION!r}; it must be one of "
            f"{', '.join(AUTOCAST)}."
        )
    device, on_cuda = processes.device, processes.device.type == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.OPTIM.TF32
    seed_everything(config.RUN.SEED)
    network = build_model(config.MODEL.NAME, config.MODEL.OPTIONS)
    criterion = build_criterion(config.LOSS)
    loaders = build_loaders(config, processes.rank, processes.world_size)
    if config.MODEL.INIT:
        load_state(network, config.MODEL.INIT)
    if processes.world_size > 1 and on_cuda:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    network.to(device)
    if config.OPTIM.CHANNELS_LAST:
        network.to(memory_format=torch.channels_last)
    average = WeightAverage(network, config.OPTIM.EMA)
    if config.OPTIM.COMPILE:
        network.compile()
    parallel: nn.Module = network
    if processes.world_size > 1:
        parallel = DistributedDataParallel(network, device_ids=[device.index] if on_cuda else None)
    optimizer = torch.optim.Adam(
        network.parameters(),
        lr=config.OPTIM.LR,
        betas=tuple(config.OPTIM.BETAS),
        eps=config.OPTIM.EPS,
        fused=on_cuda,
    )
    total_steps = sum(steps_of_epoch(config, loaders, e) for e in epochs_from(config, 1))
    return Run(
        config=config,
        folder=Path(config.RUN.FOLDER) / config.RUN.NAME,
        processes=processes,
        loaders=loaders,
        network=network,
        parallel=parallel,
        criterion=criterion,
        optimizer=optimizer,
        schedule=Schedule(optimizer, config.SCHEDULE, config.OPTIM.EPOCHS, total_steps),
        scaler=torch.amp.GradScaler(device.type, enabled=config.OPTIM.PRECISION == "fp16"),
        average=average,
        progress=Progress(),
    )


def epochs_from(config: CfgNode, first: int) -> range:
    """The epochs of a run from ``first`` on."""
    return range(first, config.OPTIM.EPOCHS + 1)


def patch_and_batch(config: CfgNode, epoch: int) -> tuple[int, int]:
    """Patch and batch size of an epoch: the last stage of AUGMENT.PROGRESSIVE that has begun."""
    patch, batch = config.AUGMENT.PATCH, config.OPTIM.BATCH_SIZE
    for first_epoch, stage_patch, stage_batch in sorted(config.AUGMENT.PROGRESSIVE):
        if epoch >= first_epoch:
            patch, batch = stage_patch, stage_batch
    return patch, batch


def steps_of_epoch(config: CfgNode, loaders: Loaders, epoch: int) -> int:
    """Optimiser steps of an epoch; an incomplete last batch is left out."""
    return loaders.batches.num_samples // patch_and_batch(config, epoch)[1]


def start_folder(run: Run) -> None:
    """Make a new run's folder; never write into an old one."""
    if (run.folder / "config.yml").exists():
        raise UserError(
            f"The run {run.folder} exists; go on with it by --resume, or choose another RUN.NAME."
        )
    write_text(run.folder / "config.yml", run.config.dump())


def resume(run: Run, path: Path) -> None:
    """Take up a run where a checkpoint left it."""
    if not path.exists():
        raise UserError(f"There is no {path} to resume from; start the run without --resume.")
    try:
        checkpoint = read_checkpoint(path)
    except UserError as error:
        hint = ""
        if path.name == "latest.pth" and path.with_name("previous.pth").exists():
            hint = f" Take the one before it with --resume-from {path.with_name('previous.pth')}."
        raise UserError(f"{error}{hint}") from error
    model = (run.config.MODEL.NAME, dict(run.config.MODEL.OPTIONS))
    if model != (checkpoint["model"], checkpoint["options"]):
        raise UserError(
            f"{path} holds {checkpoint['model']} {checkpoint['options']}, not {model[0]} "
            f"{model[1]}; resume with the run's own settings."
        )
    run.network.load_state_dict(checkpoint["network"])
    if run.average.decay:
        run.average.network.load_state_dict(checkpoint["ema"] or checkpoint["network"])
    fused = run.optimizer.param_groups[0]["fused"]
    run.optimizer.load_state_dict(checkpoint["optimizer"])
    for group in run.optimizer.param_groups:
        group["fused"] = fused  # of this device, not of the one that saved
    if run.scaler.is_enabled() and checkpoint["scaler"]:
        run.scaler.load_state_dict(checkpoint["scaler"])
    set_random_states(checkpoint["random"])
    run.progress = Progress(**checkpoint["progress"])
    if not run.processes.is_main:
        run.progress.sums = {}  # the saved sums are those of all processes
    if run.processes.is_main:
        report_changes(CfgNode.load_cfg(checkpoint["config"]), run.config)
        write_text(run.folder / "config.yml", run.config.dump())
        print(f"resuming {path} in epoch {run.progress.epoch}, step {run.progress.step}")


def report_changes(old: CfgNode, new: CfgNode, prefix: str = "") -> None:
    """Say which settings differ from those that the run was saved with."""
    for key in new:
        if isinstance(new[key], CfgNode):
            report_changes(old.get(key, CfgNode()), new[key], f"{prefix}{key}.")
        elif key in old and old[key] != new[key]:
            print(f"changed setting {prefix}{key}: {old[key]!r} -> {new[key]!r}")


def train(run: Run) -> None:
    """All epochs that are left, then a summary."""
    config, progress, is_main = run.config, run.progress, run.processes.is_main
    stop = StopSignal()
    log = RunLog(run.folder, progress.history) if is_main else None
    if is_main:
        count = sum(p.numel() for p in run.network.parameters())
        print(f"{config.MODEL.NAME}: {count:,} parameters on {run.processes.device}")
        print(run.loaders.description)
    for epoch in epochs_from(config, progress.epoch):
        if is_early(run):
            break
        started = time.perf_counter()
        if not train_one_epoch(run, stop):
            save(run)
            if is_main:
                print(f"{stop.received}: saved {run.folder / 'latest.pth'}; go on with --resume")
            return
        record = epoch_record(run)
        if run.loaders.validation and (
            epoch % config.VALIDATION.EVERY == 0 or epoch == config.OPTIM.EPOCHS
        ):
            record.update(validate(run, epoch, log))
            if record["psnr"] > progress.best_psnr:
                progress.best_psnr, progress.best_epoch = record["psnr"], epoch
                if is_main:
                    write_weights(run.folder / "best.safetensors", weights(run, record))
        record["seconds"] = time.perf_counter() - started
        if log:
            log.add(record)
            print(epoch_line(run, record), flush=True)
        progress.epoch, progress.step_in_epoch, progress.sums = epoch + 1, 0, {}
        save(run)
    if log:
        log.close()
        print(summary(run))


def train_one_epoch(run: Run, stop: StopSignal) -> bool:
    """The steps that are left of the epoch; False where a signal ended it before."""
    config, progress = run.config, run.progress
    device = run.processes.device
    accumulate, epoch = config.OPTIM.ACCUMULATE, progress.epoch
    patch, batch_size = patch_and_batch(config, epoch)
    run.loaders.batches.start(epoch, progress.step_in_epoch, patch, batch_size)
    bar = tqdm(
        total=steps_of_epoch(config, run.loaders, epoch),
        initial=progress.step_in_epoch,
        desc=f"epoch {epoch}/{config.OPTIM.EPOCHS}",
        unit="step",
        leave=False,
        disable=not run.processes.is_main,
    )
    memory_format = torch.channels_last if config.OPTIM.CHANNELS_LAST else torch.preserve_format
    run.network.train()
    rate = run.schedule.set(epoch, progress.step)
    for number, (rainy, clean, which) in enumerate(run.loaders.train, start=1):
        rainy = rainy.to(device, non_blocking=True, memory_format=memory_format)
        clean = clean.to(device, non_blocking=True)
        is_last_pass = number % accumulate == 0
        loss = backward(run, rainy, clean, which, is_last_pass)
        if not is_last_pass:
            continue
        step(run, loss, which)
        progress.step += 1
        progress.step_in_epoch += 1
        run.average.update(run.network, progress.step)
        bar.set_postfix(loss=f"{loss:.4f}", rate=f"{rate:.2e}", refresh=False)
        bar.update()
        if run.processes.sum([bool(stop.received)])[0]:
            bar.close()
            return False
        if config.CHECKPOINT.EVERY_STEPS and progress.step % config.CHECKPOINT.EVERY_STEPS == 0:
            save(run)
        rate = run.schedule.set(epoch, progress.step)
    bar.close()
    return True


def backward(run: Run, rainy: Tensor, clean: Tensor, which: Tensor, is_last_pass: bool) -> float:
    """One pass of a step: add its share to the gradients and return its loss."""
    device_type, dtype = run.processes.device.type, AUTOCAST[run.config.OPTIM.PRECISION]
    several = run.processes.world_size > 1
    # Only the last pass of a step exchanges gradients between processes.
    waiting = run.parallel.no_sync() if several and not is_last_pass else contextlib.nullcontext()
    with waiting:
        with torch.autocast(device_type, dtype, enabled=dtype != torch.float32):
            outputs = run.parallel(rainy)
        loss, parts = run.criterion(outputs, clean)
        run.scaler.scale(loss / run.config.OPTIM.ACCUMULATE).backward()
    value = loss.item()
    if not math.isfinite(value):
        refuse_step(run, f"The loss is {value}", which)
    for name, part in {"loss": loss, **parts}.items():
        share = part.item() / run.config.OPTIM.ACCUMULATE
        run.progress.sums[name] = run.progress.sums.get(name, 0.0) + share
    return value


def step(run: Run, loss: float, which: Tensor) -> None:
    """Move the weights along the gradients of the step's passes."""
    run.scaler.unscale_(run.optimizer)
    norm = nn.utils.clip_grad_norm_(
        run.network.parameters(), run.config.OPTIM.CLIP_NORM or math.inf
    ).item()
    # In fp16 an overflow is expected now and then; the scaler skips that step.
    if not math.isfinite(norm) and not run.scaler.is_enabled():
        refuse_step(run, f"The loss is {loss}, but the gradient norm {norm}", which)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)


def refuse_step(run: Run, what: str, which: Tensor) -> None:
    """Stop at a value that is not finite, before it reaches the weights."""
    largest = {
        name: p.grad.abs().nan_to_num(math.inf).max().item()
        for name, p in run.network.named_parameters()
        if p.grad is not None
    }
    worst = max(largest, key=largest.__getitem__)
    files = ", ".join(str(run.loaders.train_pairs[i].rainy) for i in which.tolist())
    raise UserError(
        f"{what} in step {run.progress.step + 1} (epoch {run.progress.epoch}); the images are "
        f"{files}; the largest gradient, {largest[worst]:g}, is that of {worst}. "
        "The last checkpoint is untouched; try a lower OPTIM.LR or OPTIM.CLIP_NORM."
    )


def epoch_record(run: Run) -> Record:
    """Means of the finished epoch over all processes."""
    progress = run.progress
    names = sorted(progress.sums)
    totals = run.processes.sum([progress.sums[name] for name in names])
    count = progress.step_in_epoch * run.processes.world_size
    record: Record = {
        "epoch": progress.epoch,
        "step": progress.step,
        "rate": run.optimizer.param_groups[0]["lr"],
    }
    return record | {name: total / count for name, total in zip(names, totals, strict=True)}


@torch.inference_mode()
def validate(run: Run, epoch: int, log: RunLog | None) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM of whole validation images, scored as evaluate.py scores files."""
    config, network, device = run.config, run.average.network, run.processes.device
    every = config.VALIDATION.SAMPLES_EVERY
    network.eval()
    sums = [0.0, 0.0, 0.0]  # PSNR, SSIM, images
    loader = tqdm(run.loaders.validation, "validation", unit="image", leave=False, disable=not log)
    for number, (rainy, clean) in enumerate(loader):
        image = torch.from_numpy(to_float(rainy.numpy())).permute(2, 0, 1)[None]
        restored = restore_tensor(network, image.to(device))[0].permute(1, 2, 0)
        restored = to_uint8(restored.float().cpu().numpy())
        result = score(restored, clean.numpy(), config.VALIDATION.PROTOCOL)
        sums = [a + b for a, b in zip(sums, (result.psnr, result.ssim, 1), strict=True)]
        if log and number == 0 and every and epoch % every == 0:
            name = run.loaders.validation_pairs[0].rainy.stem
            log.add_sample(name, [rainy.numpy(), restored, clean.numpy()], epoch)
    psnr, ssim, count = run.processes.sum(sums)
    return {"psnr": psnr / count, "ssim": ssim / count}


def save(run: Run) -> None:
    """Write latest.pth; the one before becomes previous.pth."""
    names = sorted(run.progress.sums)
    totals = run.processes.sum([run.progress.sums[name] for name in names])
    if not run.processes.is_main:
        return
    sums = dict(zip(names, totals, strict=True))
    checkpoint: dict[str, Any] = {
        "model": run.config.MODEL.NAME,
        "options": dict(run.config.MODEL.OPTIONS),
        "network": run.network.state_dict(),
        "ema": run.average.network.state_dict() if run.average.decay else None,
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "random": random_states(),
        "progress": dataclasses.asdict(run.progress) | {"sums": sums},
        "config": run.config.dump(),
    }
    write_checkpoint(run.folder / "latest.pth", checkpoint, keep=run.folder / "previous.pth")


def weights(run: Run, record: Record) -> Weights:
    """The weights to use, with where they come from."""
    info = {key: record[key] for key in ("epoch", "step", "psnr", "ssim")}
    return Weights(
        model=run.config.MODEL.NAME,
        options=dict(run.config.MODEL.OPTIONS),
        state=run.average.network.state_dict(),
        info=info | {"config": run.config.dump()},
    )


def is_early(run: Run) -> bool:
    """Whether PATIENCE epochs have passed without a better PSNR."""
    patience, progress = run.config.VALIDATION.PATIENCE, run.progress
    return bool(patience) and progress.epoch - 1 - progress.best_epoch >= patience


def epoch_line(run: Run, record: Record) -> str:
    line = f"epoch {record['epoch']}/{run.config.OPTIM.EPOCHS}  loss {record['loss']:.4f}"
    if "psnr" in record:
        line += f"  PSNR {record['psnr']:.2f} dB  SSIM {record['ssim']:.4f}"
        line += "  (best)" if run.progress.best_epoch == record["epoch"] else ""
    return f"{line}  rate {record['rate']:.1e}  {record['seconds']:.0f} s"


def summary(run: Run) -> str:
    progress = run.progress
    done = f"{len(progress.history)} epochs, {progress.step} steps: {run.folder}"
    if is_early(run):
        done += f"\nstopped early: no better PSNR in {run.config.VALIDATION.PATIENCE} epochs"
    if not progress.best_epoch:
        return f"{done}\nwithout validation there is no best epoch; test {run.folder}/latest.pth"
    return (
        f"{done}\nbest epoch {progress.best_epoch}: {progress.best_psnr:.2f} dB; test it with\n"
        f"  python test.py --weights {run.folder}/best.safetensors "
        f"--input {run.config.DATA.VAL}/input --output results/{run.config.RUN.NAME}"
    )


def dry_run(run: Run) -> None:
    """Take a few steps without keeping anything and print what the whole run would be."""
    config, device = run.config, run.processes.device
    times = []
    patch, batch_size = patch_and_batch(config, 1)
    run.loaders.batches.start(1, 0, patch, batch_size)
    run.schedule.set(1, 0)
    run.network.train()
    started = time.perf_counter()
    for number, (rainy, clean, which) in enumerate(run.loaders.train, start=1):
        last = number % config.OPTIM.ACCUMULATE == 0
        loss = backward(run, rainy.to(device), clean.to(device), which, last)
        if last:
            step(run, loss, which)
            times.append(time.perf_counter() - started)
            started = time.perf_counter()
        if len(times) == 3:
            break
    if not run.processes.is_main:
        return
    epochs = epochs_from(config, 1)
    steps = sum(steps_of_epoch(config, run.loaders, epoch) for epoch in epochs)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**30
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(run.loaders.description)
    print(f"network     {config.MODEL.NAME} on {device}, {run.processes.world_size} process(es)")
    print(f"a step      {batch_size} patches of {patch}: {min(times):.2f} s, loss {loss:.4f}")
    hours = steps * min(times) / 3600
    print(f"the run     {len(epochs)} epochs, {steps:,} steps, {hours:.1f} h without validation")
    print(f"memory      {memory:.1f} GiB at most in this process")


if __name__ == "__main__":
    run_main(main)
