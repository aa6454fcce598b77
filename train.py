"""Train a network: python train.py --config configs/dmsr_rain13k.yml [KEY VALUE ...].

The run's folder, RUN.FOLDER/RUN.NAME, receives the resolved settings (config.yml), log.jsonl,
curves.png, TensorBoard events, sample pictures, latest.pth (for --resume), previous.pth (the one
before) and best.safetensors (the weights to use).
"""

from __future__ import annotations

import utils.training.launcher  # noqa: F401  (before PyTorch, as it says itself)
from utils.training.stopping import end_at_signals

if __name__ == "__main__":
    end_at_signals()

# isort: split
import argparse
import contextlib
import itertools
import math
import statistics
import time
from collections import deque
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from configs import load_config, settings_help
from data.datasets import Prefetcher, to_unit_range
from utils.console import lossy_outputs, say
from utils.devices import PRECISIONS, peak_memory
from utils.errors import run_main
from utils.inference.restorer import Restorer
from utils.metrics import score
from utils.training.build import Run, Start, build_run, note_other_recipe
from utils.training.checks import check_all_are_trained, refuse_skipped_steps, refuse_step
from utils.training.distributed import destroy_distributed, init_distributed, mistakes_said_once
from utils.training.dry_run import dry_run
from utils.training.logs import summary, time_left
from utils.training.optim import autotuner_off
from utils.training.plan import is_every
from utils.training.run_folder import RunFolder
from utils.training.state import Record
from utils.training.steps import (
    StepValues,
    TakenStep,
    gradient_norms,
    steps_ahead,
    take_guarded_step,
    to_host,
)
from utils.training.stopping import EXIT_STOPPED, RunStopped, StopSignal, explained_failures


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a deraining network.",
        epilog="A run that SIGINT, SIGTERM, SIGUSR1 or SIGHUP ends is saved and exits with status\n"
        f"{EXIT_STOPPED}: the same command with --resume continues it. Mistakes exit with 1.\n\n"
        f"The settings and their defaults (configs/__init__.py):\n\n{settings_help()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Path(__file__).with_name("training.yml")
    parser.add_argument("--config", type=Path, default=default, help="YAML file of settings")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", action="store_true", help="continue the run, or start it if it never began"
    )
    start.add_argument(
        "--resume-from", type=Path, metavar="CHECKPOINT", help="continue from another latest.pth"
    )
    start.add_argument(
        "--dry-run", action="store_true", help="take a few steps, print the plan, write nothing"
    )
    parser.add_argument(
        "--accept-changed-data",
        action="store_true",
        help="resume although files have changed; with more or fewer of them the current epoch may "
        "show an image twice or not at all",
    )
    parser.add_argument(
        "--stop-after-epoch", action="store_true", help="end after the current epoch"
    )
    parser.add_argument("settings", nargs="*", metavar="KEY VALUE", help="OPTIM.BATCH_SIZE 8 ...")
    return parser.parse_intermixed_args()


@lossy_outputs()
def main() -> int | None:
    args = parse_arguments()
    not_written = ["DATA.CACHE", ""] if args.dry_run else []  # a dry run writes nothing
    with mistakes_said_once():
        cfg = load_config(args.config, [*args.settings, *not_written])
    start = Start(args.resume, args.resume_from, args.accept_changed_data, args.dry_run)
    processes = init_distributed(cfg.RUN.BACKEND, cfg.RUN.TIMEOUT)
    if processes.is_main:
        note_other_recipe(cfg, args.config, args.settings)
    folder = RunFolder(Path(cfg.RUN.FOLDER) / cfg.RUN.NAME)
    explained = explained_failures(processes.world_size > 1, folder.resume_hint)
    with explained, StopSignal(processes.is_main) as stop:
        try:
            run = build_run(cfg, start, folder, processes, stop)
            if args.dry_run:
                with stop.interruptible():
                    dry_run(run, finish_one_step)
            else:
                train(run, args.stop_after_epoch)
        except RunStopped:
            return EXIT_STOPPED
        finally:
            folder.unlock()
    destroy_distributed()
    return 0


def train(run: Run, is_one_epoch: bool) -> None:
    """Train the remaining epochs, or only the current one, and print a summary.

    Raises RunStopped after a signal, when everything is saved.
    """
    cfg, progress = run.cfg, run.state.progress
    if run.log:
        count = sum(p.numel() for p in run.state.network.parameters())
        say(f"{cfg.MODEL.NAME}: {count:,} parameters on {run.processes.device}")
        say(run.loaders.description)
    run.stop.begin("finishing the current step or image, then saving; continue with --resume")
    for epoch in range(progress.epoch, cfg.OPTIM.EPOCHS + 1):
        if progress.should_stop(cfg.VALIDATION.PATIENCE):
            break
        started = time.perf_counter()
        train_one_epoch(run)
        # The last step's rate, which a run resumed after that step has not set yet.
        lr = run.schedule.set(epoch, progress.step - 1)
        record: Record = {"kind": "epoch", "epoch": epoch, "step": progress.step, "at": epoch}
        record |= {"lr": lr} | progress.means() | skipped_steps(run) | run.pace.recent()
        if is_every(cfg.VALIDATION.EVERY, epoch) or epoch == cfg.OPTIM.EPOCHS:
            record |= validate(run)
        record["seconds"] = time.perf_counter() - started
        progress.history.append(record)
        if run.log and is_every(cfg.CHECKPOINT.SNAPSHOT_EVERY, epoch):
            run.folder.keep_snapshot(run.state.weights({}), epoch)
        progress.end_epoch()
        save(run)  # before the log has the epoch: a resume adds a missing line to it
        if run.log:
            run.log.add(record)
            run.log.draw(progress.history, f"{cfg.RUN.NAME}: {cfg.MODEL.NAME}")
        if is_one_epoch:
            break
    if run.log:
        run.log.close()
        pairs = [*(s.pairs for s in run.loaders.validation.values()), run.loaders.train_pairs][0]
        say(summary(progress, cfg, run.folder, pairs[0]))


def train_one_epoch(run: Run) -> None:
    """The remaining steps of the epoch, with the checkpoints and validations between them."""
    cfg, progress, state = run.cfg, run.state.progress, run.state
    device = run.processes.device
    stage, steps = state.plan.stage(progress.epoch), state.plan.steps(progress.epoch)
    run.loaders.sampler.set_epoch(
        progress.epoch,
        patch=stage.patch,
        batch_size=stage.batch_size,
        first_step=progress.step_in_epoch,
    )
    micro_batches = Prefetcher(iter(run.loaders.train))
    unread: deque[TakenStep] = deque()
    values: dict[str, float] = {}  # of the last step that was read
    state.network.train()
    run.pace.start()
    with tqdm(
        total=steps,
        initial=progress.step_in_epoch,
        desc=f"epoch {progress.epoch}/{cfg.OPTIM.EPOCHS}",
        bar_format="{desc} {n_fmt}/{total_fmt} |{bar}| {rate_fmt}{postfix}",  # fits 80 columns
        unit="step",
        leave=False,
        disable=None if run.log else True,  # None: no bar unless the output is a terminal
    ) as bar:
        while progress.step_in_epoch < steps:
            if is_every(cfg.VALIDATION.EVERY_STEPS, progress.step, progress.validated_step):
                validate_within_epoch(run, progress.step_in_epoch / steps)
            lr = run.schedule.set(progress.epoch, progress.step)
            unread.append(train_one_step(run, micro_batches))
            progress.count_step()
            state.ema.update(progress.step)
            run.pace.count(stage)
            is_logged = is_every(cfg.LOG.EVERY_STEPS, progress.step)
            is_saved = is_every(cfg.CHECKPOINT.EVERY_STEPS, progress.step)
            is_validated = is_every(cfg.VALIDATION.EVERY_STEPS, progress.step)
            # Equal on all processes: a step that is refused is refused by all of them.
            is_due = is_logged or is_saved or is_validated or progress.step_in_epoch == steps
            is_stopped = False
            while len(unread) > (0 if is_due or is_stopped else steps_ahead(device)):
                values, is_stopped = read_step(run, unread.popleft())
            hours = run.pace.hours_left(progress.epoch, progress.step_in_epoch)
            if values:
                left = time_left(hours)
                bar.set_postfix_str(f"loss {values['loss']:.4f}, {left}", refresh=False)
            bar.update()
            if run.log and is_logged:
                record = {"kind": "step", "epoch": progress.epoch, "step": progress.step, "lr": lr}
                record |= {"images_per_second": run.pace.images_per_second(), "hours_left": hours}
                record |= {**values, **skipped_steps(run)}
                run.log.add(record | {"memory_gib": peak_memory(device) / 2**30})
            if is_stopped or is_saved:
                save(run)
            if is_stopped:
                run.processes.barrier()  # a launcher kills the others when the first one ends
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


def train_one_step(run: Run, micro_batches: Prefetcher) -> TakenStep:
    """One step over ACCUMULATE micro-batches. Only ``read_step`` waits for the device."""
    optim, state, device = run.cfg.OPTIM, run.state, run.processes.device
    layout = torch.channels_last if optim.CHANNELS_LAST else torch.preserve_format
    compute = partial(forward_backward, run)
    losses: list[dict[str, Tensor]] = []
    indices = []
    for number in range(1, optim.ACCUMULATE + 1):
        rainy, clean, which = next(micro_batches)
        indices += which
        rainy, clean = (to_unit_range(x.to(device, non_blocking=True)) for x in (rainy, clean))
        exchange: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if number < optim.ACCUMULATE and isinstance(run.model, DistributedDataParallel):
            exchange = run.model.no_sync()  # the last micro-batch exchanges gradients
        with exchange:
            losses.append(run.graphs(compute, rainy.to(memory_format=layout), clean))
    micro_batches.fetch()  # while the device computes
    if run.processes.world_size > 1:
        check_all_are_trained(state.network)
    state.scaler.unscale_(state.optimizer)
    parameters = list(state.network.parameters())
    norms = gradient_norms(parameters)
    norm = torch.linalg.vector_norm(norms)
    # A signal may reach the processes at different steps; they stop together.
    is_stopped = torch.full((1,), float(bool(run.stop.received)), device=device)
    sums = torch.stack([torch.stack([*values.values()]) for values in losses])
    results = run.processes.mean_tensor(torch.cat([sums.mean(0), norm.reshape(1), is_stopped]))
    host_results, is_copied = to_host(results)
    taken = TakenStep(
        number=state.progress.step + 1,
        epoch=state.progress.epoch,
        indices=indices,
        names=(*losses[0], "grad_norm"),
        results=host_results,
        gradient_norms=norms,
        has_gradient=[parameter.grad is not None for parameter in parameters],
        is_copied=is_copied,
    )
    if optim.CLIP_NORM:
        nn.utils.clip_grads_with_norm_(parameters, optim.CLIP_NORM, norm)
    take_guarded_step(state.optimizer, state.scaler, results.isfinite().all())
    state.optimizer.zero_grad(set_to_none=True)
    return taken


def read_step(run: Run, taken: TakenStep) -> StepValues:
    """Wait for a step's values and add them to the epoch's; refuse values that are not finite."""
    read, state = taken.read(), run.state
    where = f"step {taken.number} (epoch {taken.epoch})"
    if not taken.is_sound(read.values, is_scaled=state.scaler.is_enabled()):
        everywhere = [i for share in run.processes.gather(taken.indices) for i in share]
        images = [run.loaders.train_pairs[i].rainy for i in everywhere]
        norms = taken.norms_by_name(state.network)
        refuse_step(where, read.values, norms, images, run.cfg, run.folder.resume_hint())
    state.progress.add_values(read.values)
    refuse_skipped_steps(where, state.progress, run.folder.resume_hint())
    return read


def skipped_steps(run: Run) -> Record:
    """What a record says of fp16: how many steps of the run had no effect."""
    is_scaled = run.state.scaler.is_enabled()
    return {"skipped_steps": run.state.progress.skipped_steps} if is_scaled else {}


def finish_one_step(run: Run, micro_batches: Prefetcher) -> StepValues:
    """One step and its values, for whoever measures what a step takes."""
    return read_step(run, train_one_step(run, micro_batches))


def validate_within_epoch(run: Run, fraction: float) -> None:
    """Validate between two steps and add a record of it."""
    progress = run.state.progress
    record: Record = {"kind": "validation", "epoch": progress.epoch, "step": progress.step}
    record |= {"at": progress.epoch - 1 + fraction} | run.pace.recent() | validate(run)
    progress.history.append(record)
    if run.log:
        run.log.add(record)
    save(run)
    run.state.network.train()
    run.pace.start()


def validate(run: Run) -> Record:
    """PSNR (dB) and SSIM of each validation set, and the values that VALIDATION.BEST selects.

    Empty without validation data. Keeps the weights if they are among the best. Raises
    RunStopped after a signal; what was trained is on the disk before it begins.
    """
    sets, decides, network = run.loaders.validation, run.cfg.VALIDATION.BEST, run.state.ema.network
    if not sets:
        return {}
    save(run)
    run.processes.share_buffers(network)
    network.eval()
    restorer = Restorer(network, device=run.processes.device)  # as test.py with its defaults
    with autotuner_off():  # sizes differ from image to image
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
    node, epoch, step = run.cfg.VALIDATION, run.state.progress.epoch, run.state.progress.step
    pairs, images = run.loaders.validation[name].pairs, iter(run.loaders.validation[name].loader)
    # All processes take the same number of rounds; in the last one some may have no image left.
    rounds = range(math.ceil(len(pairs) / run.processes.world_size))
    sums = [0.0, 0.0, 0.0]  # PSNR, SSIM, images
    for number in tqdm(rounds, name, unit="image", leave=False, disable=None if run.log else True):
        for rainy, clean in itertools.islice(images, 1):
            restored = restorer(rainy)
            result = score(restored, clean, node.PROTOCOL)
            sums = [a + b for a, b in zip(sums, (result.psnr, result.ssim, 1), strict=True)]
            if run.log and not number and is_every(node.SAMPLES_EVERY, epoch):
                prefix = f"{name}_" if len(run.loaders.validation) > 1 else ""
                pictures = [rainy, restored, clean]
                run.log.add_sample(f"{prefix}{pairs[0].rainy.stem}", pictures, epoch, step)
        if run.processes.any(bool(run.stop.received)):
            raise RunStopped
    psnr, ssim, count = run.processes.sum(sums)
    return psnr / count, ssim / count


def save(run: Run) -> None:
    """Write latest.pth, from the one process that writes."""
    if run.log:
        run.folder.check_is_ours()
        run.state.save(run.folder.latest)


if __name__ == "__main__":
    run_main(main)
