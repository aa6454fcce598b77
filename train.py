"""Train a network: python train.py --config configs/dmsr_rain13k.yml [KEY VALUE ...].

The run's folder, RUN.FOLDER/RUN.NAME, receives the resolved settings (config.yml), log.jsonl,
curves.png, TensorBoard events, sample pictures, latest.pth (to go on with --resume), previous.pth
(the one before) and best.safetensors (the weights to use).
"""

from __future__ import annotations

import utils.training.launcher  # noqa: F401  (before PyTorch, as it says itself)

# isort: split
import argparse
import contextlib
import dataclasses
import itertools
import math
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from yacs.config import CfgNode

from configs import changed_settings, load_config, loss_recipe, shipped_recipes
from data.datasets import Ahead
from data.loaders import Loaders, build_loaders
from losses import build_criterion
from losses.criteria import Criterion
from models import NETWORKS, build_model, load_initial
from utils.devices import bf16_warning
from utils.errors import run_main
from utils.files import write_text
from utils.inference.restorer import Restorer
from utils.metrics import score
from utils.training.checks import check_all_are_trained, check_best, check_patches, refuse_step
from utils.training.data_identity import check_same_files, stamp_files, write_list
from utils.training.distributed import Processes, destroy_distributed, init_distributed
from utils.training.ema import ModelEma
from utils.training.graphs import GraphedCompute, check_graph
from utils.training.logs import RunLog, say, summary
from utils.training.optim import (
    PRECISIONS,
    build_optimizer,
    checkpoint_blocks,
    gradient_norm,
    set_backends,
)
from utils.training.plan import Pace, RunPlan, is_every, peak_memory
from utils.training.run_folder import RunFolder
from utils.training.schedule import Schedule
from utils.training.state import Record, TrainingState, read_state, seed_everything
from utils.training.stopping import EXIT_STOPPED, RunStopped, StopSignal, explained_failures

DRY_STEPS = 3


@dataclass(frozen=True)
class Run:
    """What ``main`` builds and the functions below share."""

    cfg: CfgNode
    folder: RunFolder
    processes: Processes
    stop: StopSignal
    loaders: Loaders
    model: nn.Module  # the network, behind DistributedDataParallel where there are several
    criterion: Criterion
    schedule: Schedule
    state: TrainingState
    pace: Pace
    graphs: GraphedCompute | None = None  # forward_backward, recorded
    log: RunLog | None = None  # of the main process


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a deraining network.",
        epilog="All settings with their defaults are listed in configs/__init__.py. "
        "A run that SIGINT, SIGTERM or SIGUSR1 ends is saved and exits with status "
        f"{EXIT_STOPPED}: the same command with --resume goes on. Mistakes exit with 1.",
    )
    default = Path(__file__).with_name("training.yml")
    parser.add_argument("--config", type=Path, default=default, help="YAML file of settings")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", action="store_true", help="go on with the run, or start it if it never began"
    )
    start.add_argument(
        "--resume-from", type=Path, metavar="CHECKPOINT", help="go on from another latest.pth"
    )
    start.add_argument(
        "--dry-run", action="store_true", help="take a few steps, print the plan, write nothing"
    )
    parser.add_argument(
        "--accept-changed-data",
        action="store_true",
        help="resume although files have changed; with more or fewer of them the epoch under way "
        "may show an image twice or not at all",
    )
    parser.add_argument(
        "--stop-after-epoch", action="store_true", help="end after the epoch under way"
    )
    parser.add_argument("settings", nargs="*", metavar="KEY VALUE", help="OPTIM.BATCH_SIZE 8 ...")
    return parser.parse_intermixed_args()


def main() -> int | None:
    args = parse_arguments()
    cfg = load_config(args.config, args.settings)
    checked: Path | None = Path(cfg.RUN.FOLDER) / ".checked"
    if args.dry_run:  # writes nothing
        cfg, checked = load_config(args.config, [*args.settings, "DATA.CACHE", ""]), None
    processes = init_distributed(cfg.RUN.BACKEND)
    if processes.is_main:
        note_other_recipe(args, cfg)
    folder = RunFolder(Path(cfg.RUN.FOLDER) / cfg.RUN.NAME)
    explained = explained_failures(processes.world_size > 1, folder.way_on)
    with explained, StopSignal(processes.is_main) as stop:
        try:
            checkpoint = None
            with processes.all_or_none():
                if processes.is_main and not args.dry_run:
                    checkpoint = folder.checkpoint_to_resume(args.resume, args.resume_from)
            checkpoint = processes.gather(checkpoint)[0]
            with processes.all_or_none():
                run = build_run(cfg, folder, processes, stop, checkpoint is not None, checked)
            run = dataclasses.replace(run, model=processes.in_step(run.model))
            if cfg.OPTIM.CUDA_GRAPH:
                graphs = GraphedCompute(partial(forward_backward, run), run.state.network)
                run = dataclasses.replace(run, graphs=graphs)
            if args.dry_run:
                dry_run(run)
            else:
                with processes.all_or_none():
                    run = begin(run, checkpoint, args.accept_changed_data)
                train(run, args.stop_after_epoch)
        except RunStopped:
            return EXIT_STOPPED
        finally:
            folder.unlock()
    destroy_distributed()
    return 0


def note_other_recipe(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Say so where loss, rate and patch were chosen for a network of another kind."""

    def kind(name: str) -> type | None:
        return NETWORKS[name][0] if name in NETWORKS else None

    name, found = cfg.MODEL.NAME, loss_recipe(args.config, args.settings)
    if found and kind(found[1]) is not kind(name):
        fitting = [path for path, model in shipped_recipes() if kind(model) is kind(name)]
        advice = f"; take one of its own, such as configs/{fitting[0].name}" if fitting else ""
        print(
            f"note: MODEL.NAME is {name}, but loss, learning rate and patch are those of "
            f"{found[0]} for {found[1]}{advice}"
        )


def build_run(
    cfg: CfgNode,
    folder: RunFolder,
    processes: Processes,
    stop: StopSignal,
    is_resumed: bool,
    checked: Path | None,
) -> Run:
    """Everything that training needs, at its start; ``checked`` remembers sound images."""
    device = processes.device
    if cfg.OPTIM.PRECISION == "bf16" and processes.is_main and (warning := bf16_warning(device)):
        print(warning)
    check_graph(cfg, device, processes.world_size)
    set_backends(cfg)
    seed_everything(cfg.RUN.SEED)
    network = build_model(cfg.MODEL.NAME, cfg.MODEL.OPTIONS)
    check_patches(cfg, network)
    criterion = build_criterion(cfg.LOSS, network.implicit_outputs)
    check_outputs(cfg, criterion)
    loaders = build_loaders(cfg, processes.rank, processes.world_size, index=checked)
    check_best(cfg, list(loaders.validation))
    if cfg.MODEL.INIT and not is_resumed:
        node = cfg.MODEL
        left = load_initial(network, node.NAME, node.INIT, node.INIT_PARTIAL, node.OPTIONS)
        if left and processes.is_main:
            print(f"note: MODEL.INIT gave {left}")
    if processes.world_size > 1 and device.type == "cuda":  # PyTorch has it for GPUs alone
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    network.to(device)
    if cfg.OPTIM.CHANNELS_LAST:
        network.to(memory_format=torch.channels_last)
    ema = ModelEma(network, cfg.OPTIM.EMA)
    if cfg.OPTIM.GRADIENT_CHECKPOINTING:
        checkpoint_blocks(network, network.checkpointed_blocks)
    if cfg.OPTIM.COMPILE:
        network.compile_for_training()
    optimizer = build_optimizer(cfg, network)
    plan = RunPlan(cfg, loaders.sampler.num_samples)
    scaler = torch.amp.GradScaler(device.type, enabled=cfg.OPTIM.PRECISION == "fp16")
    files = {}
    if processes.is_main:  # the one that writes checkpoints
        sets = {"TRAIN": loaders.train_pairs, **{n: s.pairs for n, s in loaders.validation.items()}}
        if loaders.layer_pairs:
            sets["LAYERS"] = loaders.layer_pairs
        for name, pairs in sets.items():
            files[name] = stamp_files(path for pair in pairs for path in (pair.rainy, pair.clean))
    return Run(
        cfg=cfg,
        folder=folder,
        processes=processes,
        stop=stop,
        loaders=loaders,
        model=network,
        criterion=criterion,
        schedule=Schedule(optimizer, cfg.SCHEDULE, cfg.OPTIM.EPOCHS, plan.total_steps),
        state=TrainingState(cfg, network, ema, optimizer, scaler, plan, files),
        pace=Pace(plan),
    )


def check_outputs(cfg: CfgNode, criterion: Criterion) -> None:
    """Refuse outputs that the loss cannot take, before any data are read.

    The network runs on the meta device: shapes without values.
    """
    with torch.device("meta"):
        network = build_model(cfg.MODEL.NAME, cfg.MODEL.OPTIONS)
        rainy = torch.empty(1, 3, cfg.AUGMENT.PATCH, cfg.AUGMENT.PATCH)
    criterion.check(network(rainy), rainy)


def begin(run: Run, checkpoint: Path | None, accept_changed_data: bool) -> Run:
    """Take the run's folder, take up the run from ``checkpoint`` where there is one."""
    cfg, state, folder = run.cfg, run.state, run.folder
    if run.processes.is_main:
        folder.lock(is_new=checkpoint is None)
    if checkpoint is not None:
        saved = read_state(checkpoint)
        state.load(saved, checkpoint)
        if run.processes.is_main:
            changes = check_same_files(
                checkpoint.parent, saved["data"], state.files, accept_changed_data
            )
            state.check_same_epoch(saved, checkpoint, same_files=not changes)
            if changes:
                print(f"note: going on with changed data: {changes}")
            for line in changed_settings(CfgNode.load_cfg(saved["config"]), cfg):
                print(f"changed setting {line}")
            progress = state.progress
            progress.kept = folder.take_best(checkpoint.parent, progress.best_psnr, progress.kept)
            if progress.best_epoch and not folder.best.exists():
                print(
                    f"note: the weights of the best epoch, {progress.best_epoch}, lie neither in "
                    f"{folder.path} nor beside {checkpoint}; only better ones will be kept"
                )
            say(f"resuming {checkpoint} in epoch {progress.epoch}")
    if not run.processes.is_main:
        return run
    write_text(folder.config, cfg.dump())
    write_list(folder.path, state.files)
    return dataclasses.replace(
        run, log=RunLog(folder.path, cfg, state.progress.history, state.progress.step)
    )


def train(run: Run, is_one_epoch: bool) -> None:
    """All epochs that are left, or the one under way, then a summary.

    Raises RunStopped after a signal, when everything is saved.
    """
    cfg, progress = run.cfg, run.state.progress
    if run.log:
        count = sum(p.numel() for p in run.state.network.parameters())
        say(f"{cfg.MODEL.NAME}: {count:,} parameters on {run.processes.device}")
        say(run.loaders.description)
    run.stop.begin("finishing the step or image under way, then saving; go on with --resume")
    for epoch in range(progress.epoch, cfg.OPTIM.EPOCHS + 1):
        if progress.is_early(cfg.VALIDATION.PATIENCE):
            break
        started = time.perf_counter()
        train_one_epoch(run)
        # The last step's rate; a run resumed behind it has not set it yet.
        lr = run.schedule.set(epoch, progress.step - 1)
        record: Record = {"kind": "epoch", "epoch": epoch, "step": progress.step, "at": epoch}
        record |= {"lr": lr} | progress.means()
        if is_every(cfg.VALIDATION.EVERY, epoch) or epoch == cfg.OPTIM.EPOCHS:
            record |= validate(run)
        record["seconds"] = time.perf_counter() - started
        progress.history.append(record)
        if run.log and is_every(cfg.CHECKPOINT.SNAPSHOT_EVERY, epoch):
            run.folder.keep_snapshot(run.state.weights({}), epoch)
        progress.end_epoch()
        save(run)  # before the log tells of the epoch; a resume writes a line that is missing
        if run.log:
            run.log.add(record)
            run.log.draw(progress.history, f"{cfg.RUN.NAME}: {cfg.MODEL.NAME}")
        if is_one_epoch:
            break
    if run.log:
        run.log.close()
        pairs = [*(s.pairs for s in run.loaders.validation.values()), run.loaders.train_pairs][0]
        say(summary(progress, cfg, run.folder, pairs[0].rainy.parent))


def train_one_epoch(run: Run) -> None:
    """The steps that are left of the epoch, with the checkpoints and validations among them."""
    cfg, progress, state = run.cfg, run.state.progress, run.state
    stage, steps = state.plan.stage(progress.epoch), state.plan.steps(progress.epoch)
    run.loaders.sampler.set_epoch(
        progress.epoch,
        patch=stage.patch,
        batch_size=stage.batch_size,
        first_step=progress.step_in_epoch,
    )
    micro_batches = Ahead(iter(run.loaders.train))
    state.network.train()
    run.pace.start()
    with tqdm(
        total=steps,
        initial=progress.step_in_epoch,
        desc=f"epoch {progress.epoch}/{cfg.OPTIM.EPOCHS}",
        unit="step",
        leave=False,
        disable=None if run.log else True,  # None: no bar where the output is no terminal
    ) as bar:
        while progress.step_in_epoch < steps:
            if is_every(cfg.VALIDATION.EVERY_STEPS, progress.step, progress.validated_step):
                validate_within_epoch(run, progress.step_in_epoch / steps)
            lr = run.schedule.set(progress.epoch, progress.step)
            values, is_stopped = train_one_step(run, micro_batches)
            progress.add_step(values)
            state.ema.update(progress.step)
            run.pace.count(stage)
            hours = run.pace.hours_left(progress.epoch, progress.step_in_epoch)
            bar.set_postfix_str(f"loss {values['loss']:.4f}, {hours:.1f} h left", refresh=False)
            bar.update()
            if run.log and is_every(cfg.LOG.EVERY_STEPS, progress.step):
                record = {"kind": "step", "epoch": progress.epoch, "step": progress.step, "lr": lr}
                record |= {"images_per_second": run.pace.images_per_second(), "hours_left": hours}
                run.log.add(record | values | {"memory_gib": peak_memory(run.processes.device)})
            if is_stopped or is_every(cfg.CHECKPOINT.EVERY_STEPS, progress.step):
                save(run)
            if is_stopped:
                run.processes.barrier()  # the others would be killed with the first one to end
                raise RunStopped


def forward_backward(run: Run, rainy: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """A micro-batch's loss and its parts; its gradients are added to the network's."""
    optim, device = run.cfg.OPTIM, run.processes.device
    dtype = PRECISIONS[optim.PRECISION]
    # A graph casts the weights anew at each replay; nothing may outlive its recording.
    is_cached = not optim.CUDA_GRAPH
    with torch.autocast(device.type, dtype, dtype != torch.float32, cache_enabled=is_cached):
        outputs = run.model(rainy)
    loss, parts = run.criterion(outputs, clean)
    run.state.scaler.scale(loss / optim.ACCUMULATE).backward()
    return {"loss": loss.detach()} | parts


def train_one_step(run: Run, micro_batches: Ahead) -> tuple[dict[str, float], bool]:
    """One step over ACCUMULATE micro-batches: its values, and whether a signal asks for the end.

    The values are loss, its parts and the gradient norm, means over all processes. The host waits
    for the device once, after the gradients.
    """
    optim, state, device = run.cfg.OPTIM, run.state, run.processes.device
    layout = torch.channels_last if optim.CHANNELS_LAST else torch.preserve_format
    losses: list[dict[str, Tensor]] = []
    indices = []
    for number in range(1, optim.ACCUMULATE + 1):
        rainy, clean, which = next(micro_batches)
        indices += which.tolist()
        rainy = rainy.to(device, non_blocking=True, memory_format=layout)
        clean = clean.to(device, non_blocking=True)
        exchange: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if number < optim.ACCUMULATE and isinstance(run.model, DistributedDataParallel):
            exchange = run.model.no_sync()  # only a step's last micro-batch exchanges gradients
        with exchange:
            losses.append((run.graphs or partial(forward_backward, run))(rainy, clean))
    micro_batches.fetch()  # while the device computes
    if run.processes.world_size > 1:
        check_all_are_trained(state.network)
    state.scaler.unscale_(state.optimizer)
    norm = gradient_norm(state.network)
    # A signal may reach the processes at different steps; they stop together.
    is_stopped = torch.tensor([float(bool(run.stop.received))]).to(device, non_blocking=True)
    sums = torch.stack([torch.stack([*values.values()]) for values in losses])
    means = torch.cat([sums.mean(0), norm.reshape(1), is_stopped])
    *numbers, stopped = run.processes.mean_tensor(means).tolist()
    values = dict(zip((*losses[0], "grad_norm"), numbers, strict=True))
    # In fp16 an overflow of the gradients is expected now and then; the scaler skips that step.
    is_finite = math.isfinite(values["grad_norm"]) or state.scaler.is_enabled()
    if not (math.isfinite(values["loss"]) and is_finite):
        where = f"step {state.progress.step + 1} (epoch {state.progress.epoch})"
        everywhere = [i for share in run.processes.gather(indices) for i in share]
        images = [run.loaders.train_pairs[i].rainy for i in everywhere]
        refuse_step(where, values, state.network, images, run.cfg, run.folder.way_on())
    if optim.CLIP_NORM:  # not before: a norm that is not finite would spoil all gradients
        nn.utils.clip_grads_with_norm_(state.network.parameters(), optim.CLIP_NORM, norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    return values, stopped > 0


def validate_within_epoch(run: Run, fraction: float) -> None:
    """A validation between two steps, with a record of its own."""
    progress = run.state.progress
    record: Record = {"kind": "validation", "epoch": progress.epoch, "step": progress.step}
    record |= {"at": progress.epoch - 1 + fraction} | validate(run)
    progress.history.append(record)
    if run.log:
        run.log.add(record)
    save(run)
    run.state.network.train()
    run.pace.start()


def validate(run: Run) -> Record:
    """PSNR (dB) and SSIM of each validation set, and of what VALIDATION.BEST says of them.

    Empty without validation data. Keeps the weights where they are among the best. Raises
    RunStopped after a signal; what was trained is on the disk before it begins.
    """
    sets, decides, network = run.loaders.validation, run.cfg.VALIDATION.BEST, run.state.ema.network
    if not sets:
        return {}
    save(run)
    network.eval()
    restorer = Restorer(network, device=run.processes.device)  # as test.py with its defaults
    scores = {name: score_set(run, restorer, name) for name in sets}
    deciding = scores.values() if decides == "mean" else [scores[decides]]
    psnr, ssim = (statistics.mean(values) for values in zip(*deciding, strict=True))
    record = {"psnr": psnr, "ssim": ssim}
    if len(sets) > 1:
        record |= {f"psnr_{name}": values[0] for name, values in scores.items()}
        record |= {f"ssim_{name}": values[1] for name, values in scores.items()}
    if run.log:
        weights, keep = run.state.weights(record), run.cfg.CHECKPOINT.KEEP_BEST
        run.state.progress.kept = run.folder.keep_best(weights, run.state.progress.kept, keep)
    return record | {"is_best": run.state.progress.note_validation(psnr)}


@torch.inference_mode()
def score_set(run: Run, restorer: Restorer, name: str) -> tuple[float, float]:
    """Mean PSNR and SSIM of a set's whole images, scored as evaluate.py scores files."""
    node, epoch = run.cfg.VALIDATION, run.state.progress.epoch
    pairs, images = run.loaders.validation[name].pairs, iter(run.loaders.validation[name].loader)
    # All processes take the same number of rounds; in the last one some may have no image left.
    rounds = range(math.ceil(len(pairs) / run.processes.world_size))
    sums = [0.0, 0.0, 0.0]  # PSNR, SSIM, images
    for number in tqdm(rounds, name, unit="image", leave=False, disable=None if run.log else True):
        for rainy, clean in itertools.islice(images, 1):
            restored = restorer(rainy.numpy())
            result = score(restored, clean.numpy(), node.PROTOCOL)
            sums = [a + b for a, b in zip(sums, (result.psnr, result.ssim, 1), strict=True)]
            if run.log and not number and is_every(node.SAMPLES_EVERY, epoch):
                prefix = f"{name}_" if len(run.loaders.validation) > 1 else ""
                pictures = [rainy.numpy(), restored, clean.numpy()]
                run.log.add_sample(f"{prefix}{pairs[0].rainy.stem}", pictures, epoch)
        if run.processes.any(bool(run.stop.received)):
            raise RunStopped
    psnr, ssim, count = run.processes.sum(sums)
    return psnr / count, ssim / count


def save(run: Run) -> None:
    """Write latest.pth, from the one process that writes."""
    if run.log:
        run.state.save(run.folder.latest)


def dry_run(run: Run) -> None:
    """Take a few steps of every stage, keep nothing, and print what the whole run would be."""
    plan, seconds = run.state.plan, {}
    run.state.network.train()
    for stage in plan.stages:
        run.loaders.sampler.set_epoch(
            stage.first_epoch, patch=stage.patch, batch_size=stage.batch_size
        )
        micro_batches = Ahead(iter(run.loaders.train))
        times = []
        for _ in range(min(1 + DRY_STEPS, plan.steps(stage.first_epoch))):
            started = time.perf_counter()
            train_one_step(run, micro_batches)
            times.append(time.perf_counter() - started)
        # The first step also starts workers and compiles.
        seconds[stage] = statistics.mean(times[1:] or times)
    if run.processes.is_main:
        print(run.loaders.description)
        num = run.processes.world_size
        print(f"network  {run.cfg.MODEL.NAME} on {run.processes.device}, {num} process(es)")
        print(plan.report(seconds, peak_memory(run.processes.device)))


if __name__ == "__main__":
    run_main(main)
