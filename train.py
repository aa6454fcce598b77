"""Train a network: python train.py --config configs/dmsr_rain13k.yml [KEY VALUE ...].

The run's folder, RUN.FOLDER/RUN.NAME, receives the resolved settings (config.yml), log.jsonl,
curves.png, TensorBoard events, sample pictures, latest.pth (to go on with --resume), previous.pth
(the one before) and best.safetensors (the weights to use).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from yacs.config import CfgNode

from configs import changed_settings, load_config
from data.loaders import Loaders, build_loaders
from losses import build_criterion
from losses.criteria import Criterion
from models import build_model, load_state
from models.network import DerainingNetwork
from utils.checkpoints import Weights, write_weights
from utils.errors import UserError, run_main
from utils.files import remove_unfinished, write_text
from utils.inference.restorer import Restorer
from utils.metrics import PROTOCOLS, score
from utils.training.distributed import (
    Processes,
    StopSignal,
    destroy_distributed,
    init_distributed,
    seed_everything,
)
from utils.training.ema import ModelEma
from utils.training.logs import Record, RunLog, epoch_line
from utils.training.schedule import Schedule
from utils.training.state import Progress, TrainingState

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DRY_STEPS = 3


@dataclass(frozen=True)
class Run:
    """What ``main`` builds and the functions below share."""

    config: CfgNode
    folder: Path
    processes: Processes
    loaders: Loaders
    parallel: nn.Module  # the network, or what keeps its copies in all processes equal
    criterion: Criterion
    schedule: Schedule
    state: TrainingState
    stop: StopSignal


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a deraining network.")
    default = Path(__file__).with_name("training.yml")
    parser.add_argument("--config", type=Path, default=default, help="YAML file of settings")
    parser.add_argument("--resume", action="store_true", help="go on from the run's latest.pth")
    parser.add_argument("--resume-from", type=Path, metavar="CHECKPOINT", help="or from another")
    parser.add_argument(
        "--dry-run", action="store_true", help="take a few steps, print the plan, write nothing"
    )
    parser.add_argument("settings", nargs="*", metavar="KEY VALUE", help="OPTIM.BATCH_SIZE 8 ...")
    args = parser.parse_intermixed_args()

    config = load_config(args.config, args.settings)
    if args.dry_run:
        config = load_config(args.config, [*args.settings, "DATA.CACHE", ""])
    processes = init_distributed()
    is_resumed = args.resume or args.resume_from is not None
    checked = None if args.dry_run else Path(config.RUN.FOLDER) / ".checked"
    run = build_run(config, processes, is_resumed, checked)
    if args.dry_run:
        dry_run(run)
    else:
        if is_resumed:
            resume(run, args.resume_from or run.folder / "latest.pth")
        elif processes.is_main:
            start_folder(run)
        train(run)
    destroy_distributed()


def build_run(config: CfgNode, processes: Processes, is_resumed: bool, checked: Path | None) -> Run:
    """Everything that training needs, at its start; ``checked`` remembers sound images."""
    optim = config.OPTIM
    if optim.PRECISION not in PRECISIONS:
        raise UserError(
            f"OPTIM.PRECISION is {optim.PRECISION!r}; it must be one of {', '.join(PRECISIONS)}."
        )
    if config.VALIDATION.PROTOCOL not in PROTOCOLS:
        raise UserError(
            f"VALIDATION.PROTOCOL is {config.VALIDATION.PROTOCOL!r}; it must be one of "
            f"{', '.join(PROTOCOLS)}."
        )
    device, on_cuda = processes.device, processes.device.type == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = optim.TF32
    seed_everything(config.RUN.SEED)
    network = build_model(config.MODEL.NAME, config.MODEL.OPTIONS)
    check_patches(config, network)
    criterion = build_criterion(config.LOSS, network.implicit_outputs)
    check_outputs(config, criterion)
    loaders = build_loaders(config, processes.rank, processes.world_size, index=checked)
    if config.MODEL.INIT and not is_resumed:
        load_state(network, config.MODEL.INIT)
    if processes.world_size > 1 and on_cuda:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    network.to(device)
    if optim.CHANNELS_LAST:
        network.to(memory_format=torch.channels_last)
    average = ModelEma(network, optim.EMA)
    if optim.COMPILE:
        network.compile()
    parallel: nn.Module = network
    if processes.world_size > 1:
        parallel = DistributedDataParallel(network, device_ids=[device.index] if on_cuda else None)
    optimizer = torch.optim.Adam(
        network.parameters(), optim.LR, tuple(optim.BETAS), optim.EPS, fused=on_cuda
    )
    schedule = Schedule(optimizer, config.SCHEDULE, optim.EPOCHS, total_steps(config, loaders))
    scaler = torch.amp.GradScaler(device.type, enabled=optim.PRECISION == "fp16")
    return Run(
        config=config,
        folder=Path(config.RUN.FOLDER) / config.RUN.NAME,
        processes=processes,
        loaders=loaders,
        parallel=parallel,
        criterion=criterion,
        schedule=schedule,
        state=TrainingState(network, average, optimizer, scaler, Progress()),
        stop=StopSignal(),
    )


def patch_and_batch(config: CfgNode, epoch: int) -> tuple[int, int]:
    """Patch and batch size of an epoch: the last stage of AUGMENT.PROGRESSIVE that has begun."""
    patch, batch = config.AUGMENT.PATCH, config.OPTIM.BATCH_SIZE
    for first_epoch, stage_patch, stage_batch in sorted(config.AUGMENT.PROGRESSIVE):
        if epoch >= first_epoch:
            patch, batch = stage_patch, stage_batch
    return patch, batch


def check_patches(config: CfgNode, network: DerainingNetwork) -> None:
    """Refuse patches that the network cannot take, also those of later epochs."""
    for patch in (config.AUGMENT.PATCH, *(stage[1] for stage in config.AUGMENT.PROGRESSIVE)):
        if patch < network.min_size or patch % network.size_multiple:
            raise UserError(
                f"{config.MODEL.NAME} cannot train on patches of {patch} pixels; it takes "
                f"multiples of {network.size_multiple} from {network.min_size} on."
            )


def check_outputs(config: CfgNode, criterion: Criterion) -> None:
    """Refuse outputs that the loss cannot take, before any data are read.

    The network runs on the meta device: shapes without values.
    """
    with torch.device("meta"):
        network = build_model(config.MODEL.NAME, config.MODEL.OPTIONS)
        rainy = torch.empty(1, 3, config.AUGMENT.PATCH, config.AUGMENT.PATCH)
    criterion.check(network(rainy), rainy)


def total_steps(config: CfgNode, loaders: Loaders) -> int:
    """Optimiser steps of the whole run; an epoch's incomplete last batch is left out."""
    epochs = range(1, config.OPTIM.EPOCHS + 1)
    return sum(loaders.sampler.num_samples // patch_and_batch(config, e)[1] for e in epochs)


def start_folder(run: Run) -> None:
    """Make a new run's folder; never write into one that holds results."""
    remove_unfinished(run.folder / "latest.pth")
    if any((run.folder / name).exists() for name in ("latest.pth", "previous.pth", "log.jsonl")):
        raise UserError(
            f"The run {run.folder} exists; go on with it by --resume, or choose another RUN.NAME."
        )
    write_text(run.folder / "config.yml", run.config.dump())


def resume(run: Run, path: Path) -> None:
    """Take up a run where a checkpoint left it, with the settings given now."""
    if not path.exists() and (run.folder / "config.yml").exists():
        if run.processes.is_main:
            print(f"{run.folder} has no checkpoint yet; starting from its beginning")
        return
    before = run.state.load(path, run.config, run.processes)
    if run.processes.is_main:
        remove_unfinished(run.folder / "latest.pth")
        for line in changed_settings(before, run.config):
            print(f"changed setting {line}")
        write_text(run.folder / "config.yml", run.config.dump())
        print(f"resuming {path} in epoch {run.state.progress.epoch}", flush=True)


def train(run: Run) -> None:
    """All epochs that are left, then a summary."""
    config, progress, is_main = run.config, run.state.progress, run.processes.is_main
    log = RunLog(run.folder, progress.history) if is_main else None
    if log:
        count = sum(p.numel() for p in run.state.network.parameters())
        print(f"{config.MODEL.NAME}: {count:,} parameters on {run.processes.device}")
        print(run.loaders.description, flush=True)
    for epoch in range(progress.epoch, config.OPTIM.EPOCHS + 1):
        if is_early(run):
            break
        started = time.perf_counter()
        if not train_one_epoch(run):
            run.state.save(run.folder, config, run.processes)
            if log:
                print(f"{run.stop.received}: saved {run.folder}/latest.pth; go on with --resume")
            return
        record = epoch_record(run)
        is_due = epoch % config.VALIDATION.EVERY == 0 or epoch == config.OPTIM.EPOCHS
        if run.loaders.validation and is_due:
            record |= validate(run, log)
            if record["psnr"] > progress.best_psnr:
                progress.best_psnr, progress.best_epoch = record["psnr"], epoch
                if log:
                    write_weights(run.folder / "best.safetensors", weights(run, record))
        record["seconds"] = time.perf_counter() - started
        if log:
            log.add(record)
            print(epoch_line(record, config.OPTIM.EPOCHS, progress.best_epoch), flush=True)
        else:
            progress.history.append(record)
        progress.epoch, progress.step_in_epoch, progress.sums = epoch + 1, 0, {}
        run.state.save(run.folder, config, run.processes)
    if log:
        log.close()
        print(summary(run))


def train_one_epoch(run: Run, limit: int | None = None) -> bool:
    """The steps that are left of the epoch, ``limit`` at most; False where a signal ended it."""
    config, progress, state = run.config, run.state.progress, run.state
    patch, batch_size = patch_and_batch(config, progress.epoch)
    run.loaders.sampler.set_epoch(
        progress.epoch, patch=patch, batch_size=batch_size, first_step=progress.step_in_epoch
    )
    bar = tqdm(
        total=run.loaders.sampler.num_samples // batch_size,
        initial=progress.step_in_epoch,
        desc=f"epoch {progress.epoch}/{config.OPTIM.EPOCHS}",
        unit="step",
        leave=False,
        disable=not run.processes.is_main,
    )
    state.network.train()
    rate = run.schedule.set(progress.epoch, progress.step)
    for number, (rainy, clean, which) in enumerate(run.loaders.train, start=1):
        is_last_pass = number % config.OPTIM.ACCUMULATE == 0
        loss = backward(run, rainy, clean, which, is_last_pass)
        if not is_last_pass:
            continue
        step(run, which)
        progress.step += 1
        progress.step_in_epoch += 1
        state.average.update(state.network, progress.step)
        bar.set_postfix(loss=f"{loss:.4f}", rate=f"{rate:.2e}", refresh=False)
        bar.update()
        if progress.step == limit:
            break
        # A signal may reach the processes at different steps; they stop together.
        if run.processes.sum([bool(run.stop.received)])[0]:
            bar.close()
            return False
        if config.CHECKPOINT.EVERY_STEPS and progress.step % config.CHECKPOINT.EVERY_STEPS == 0:
            state.save(run.folder, config, run.processes)
        rate = run.schedule.set(progress.epoch, progress.step)
    bar.close()
    return True


def backward(run: Run, rainy: Tensor, clean: Tensor, which: Tensor, is_last_pass: bool) -> float:
    """One pass of a step: add its share to the gradients and return its loss."""
    optim, device = run.config.OPTIM, run.processes.device
    layout = torch.channels_last if optim.CHANNELS_LAST else torch.preserve_format
    rainy = rainy.to(device, non_blocking=True, memory_format=layout)
    clean = clean.to(device, non_blocking=True)
    dtype = PRECISIONS[optim.PRECISION]
    # Only the last pass of a step exchanges gradients between processes.
    waits = run.processes.world_size > 1 and not is_last_pass
    with run.parallel.no_sync() if waits else contextlib.nullcontext():
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            outputs = run.parallel(rainy)
        loss, parts = run.criterion(outputs, clean)
        run.state.scaler.scale(loss / optim.ACCUMULATE).backward()
    # One transfer from the device for all values.
    values = torch.stack([loss.detach(), *parts.values()]).tolist()
    if not math.isfinite(values[0]):
        refuse_step(run, f"The loss is {values[0]}", which)
    share = 1 / (optim.ACCUMULATE * run.processes.world_size)
    names = ("loss", *parts)
    run.state.progress.add({name: share * v for name, v in zip(names, values, strict=True)})
    return values[0]


def step(run: Run, which: Tensor) -> None:
    """Move the weights along the gradients of the step's passes."""
    optimizer, scaler, network = run.state.optimizer, run.state.scaler, run.state.network
    unused = [name for name, p in network.named_parameters() if p.grad is None]
    if unused and run.processes.world_size > 1:
        raise UserError(
            f"The loss does not reach {len(unused)} parameters such as {unused[0]}, which several "
            "processes cannot train; set LOSS.SCALES to the network's number of outputs."
        )
    scaler.unscale_(optimizer)
    largest_norm = run.config.OPTIM.CLIP_NORM or math.inf
    norm = nn.utils.clip_grad_norm_(network.parameters(), largest_norm)
    # In fp16 an overflow is expected now and then; the scaler skips that step.
    if not norm.isfinite() and not scaler.is_enabled():
        refuse_step(run, f"The gradient's norm is {norm.item()}", which)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)


def refuse_step(run: Run, what: str, which: Tensor) -> None:
    """Stop at a value that is not finite, before it reaches the weights."""
    largest = {
        name: p.grad.abs().nan_to_num(math.inf).max().item()
        for name, p in run.state.network.named_parameters()
        if p.grad is not None
    }
    worst = max(largest, key=largest.__getitem__)
    files = ", ".join(str(run.loaders.train_pairs[i].rainy) for i in which.tolist())
    raise UserError(
        f"{what} in step {run.state.progress.step + 1} (epoch {run.state.progress.epoch}); the "
        f"images are {files}; the largest gradient, {largest[worst]:g}, is that of {worst}. "
        "The last checkpoint is untouched; try a lower OPTIM.LR or OPTIM.CLIP_NORM."
    )


def epoch_record(run: Run) -> Record:
    """The finished epoch's mean loss and parts over all steps and processes."""
    progress = run.state.progress
    totals = progress.total_sums(run.processes)
    means = {name: total / progress.step_in_epoch for name, total in totals.items()}
    rate = run.state.optimizer.param_groups[0]["lr"]
    return {"epoch": progress.epoch, "step": progress.step, "rate": rate} | means


@torch.inference_mode()
def validate(run: Run, log: RunLog | None) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM of whole validation images, scored as evaluate.py scores files."""
    node, network, epoch = (
        run.config.VALIDATION,
        run.state.average.network,
        run.state.progress.epoch,
    )
    network.eval()
    restorer = Restorer(network, device=run.processes.device)  # as test.py with its defaults
    sums = [0.0, 0.0, 0.0]  # PSNR, SSIM, images
    images = itertools.chain.from_iterable(s.loader for s in run.loaders.validation.values())
    loader = tqdm(images, "validation", unit="image", leave=False, disable=not log)
    for number, (rainy, clean) in enumerate(loader):
        restored = restorer(rainy.numpy())
        result = score(restored, clean.numpy(), node.PROTOCOL)
        sums = [a + b for a, b in zip(sums, (result.psnr, result.ssim, 1), strict=True)]
        if log and number == 0 and node.SAMPLES_EVERY and epoch % node.SAMPLES_EVERY == 0:
            name = next(iter(run.loaders.validation.values())).pairs[0].rainy.stem
            log.add_sample(name, [rainy.numpy(), restored, clean.numpy()], epoch)
    psnr, ssim, count = run.processes.sum(sums)
    return {"psnr": psnr / count, "ssim": ssim / count}


def weights(run: Run, record: Record) -> Weights:
    """The weights to use, with where they come from."""
    return Weights(
        model=run.config.MODEL.NAME,
        options=dict(run.config.MODEL.OPTIONS),
        state=run.state.average.network.state_dict(),
        info={key: record[key] for key in ("epoch", "step", "psnr", "ssim")}
        | {"config": run.config.dump()},
    )


def is_early(run: Run) -> bool:
    """Whether PATIENCE epochs have passed without a better PSNR."""
    patience, progress = run.config.VALIDATION.PATIENCE, run.state.progress
    validated = [record["epoch"] for record in progress.history if "psnr" in record]
    return bool(patience and validated) and validated[-1] - progress.best_epoch >= patience


def summary(run: Run) -> str:
    """The last words of a run: its best epoch and the command to test it."""
    progress, folder = run.state.progress, run.folder
    lines = [f"{len(progress.history)} epochs, {progress.step:,} steps: {folder}"]
    if is_early(run) and progress.epoch <= run.config.OPTIM.EPOCHS:
        lines.append(f"stopped early: no better PSNR in {run.config.VALIDATION.PATIENCE} epochs")
    best = folder / "latest.pth"
    sets = [validation.pairs for validation in run.loaders.validation.values()]
    source = [*sets, run.loaders.train_pairs][0][0].rainy.parent
    if progress.best_epoch:
        best = folder / "best.safetensors"
        lines.append(f"best epoch {progress.best_epoch}: {progress.best_psnr:.2f} dB")
    lines.append(f"test it: python test.py --weights {best} --input {source} --output results")
    return "\n".join(lines)


def dry_run(run: Run) -> None:
    """Take a few steps without keeping anything and print what the whole run would be."""
    config, device = run.config, run.processes.device
    train_one_epoch(run, limit=1)  # the first step also starts workers and compiles
    run.state.progress.step_in_epoch = 0  # an epoch may have one step only
    started = time.perf_counter()
    train_one_epoch(run, limit=DRY_STEPS)
    seconds = (time.perf_counter() - started) / max(run.state.progress.step - 1, 1)
    if not run.processes.is_main:
        return
    patch, batch_size = patch_and_batch(config, 1)
    steps = total_steps(config, run.loaders)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**30
    print(run.loaders.description)
    print(f"network  {config.MODEL.NAME} on {device}, {run.processes.world_size} process(es)")
    print(f"a step   {batch_size} patches of {patch} x {patch}: {seconds:.2f} s")
    hours = steps * seconds / 3600
    print(f"the run  {config.OPTIM.EPOCHS} epochs, {steps:,} steps, {hours:.1f} h, and validation")
    print(f"memory   {memory:.1f} GiB at most in this process")


if __name__ == "__main__":
    run_main(main)
