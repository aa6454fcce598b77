"""Train a network: python train.py --config configs/dmsr_rain13k.yml [KEY VALUE ...].

The run's folder, RUN.FOLDER/RUN.NAME, receives the resolved settings (config.yml), log.jsonl,
curves.png, TensorBoard events, sample pictures, latest.pth (for --resume), previous.pth (the one
before) and best.safetensors (the weights to use).
"""

from __future__ import annotations

import utils.training.launcher  # noqa: F401  (before PyTorch; its docstring says why)
from utils.training.stopping import end_at_signals

if __name__ == "__main__":
    end_at_signals()

# isort: split
import itertools
import math
import statistics
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from configs import load_config, settings_help
from data.batches import Prefetcher, to_unit_range
from utils.console import lossy_outputs, say
from utils.devices import PRECISIONS, peak_memory
from utils.errors import run_main
from utils.inference.restorer import Restorer
from utils.metrics import score
from utils.training.arguments import parse_arguments
from utils.training.build import Run, Start, build_run, note_other_recipe
from utils.training.checks import check_all_are_trained, check_skipped_steps, refuse_step
from utils.training.console import StepsBar, summary
from utils.training.distributed import alike_before_meeting, destroy_distributed, init_distributed
from utils.training.dry_run import dry_run
from utils.training.failures import explained_failures
from utils.training.optim import autotuner_off
from utils.training.plan import is_every
from utils.training.run_folder import RunFolder
from utils.training.state import Record
from utils.training.steps import (
    StepValues,
    TakenStep,
    gradient_norms,
    join_values,
    steps_ahead,
    take_guarded_step,
)
from utils.training.stopping import EXIT_STOPPED, RunStopped, StopSignal


@lossy_outputs()
def main() -> int:
    args = parse_arguments(settings_help())
    not_written = ["DATA.CACHE", ""] if args.dry_run else []  # a dry run writes nothing
    with alike_before_meeting():
        cfg = load_config(args.config, [*args.settings, *not_written])
    processes = init_distributed(cfg.RUN.BACKEND, cfg.RUN.TIMEOUT)
    if processes.is_main:
        note_other_recipe(cfg, args.config, args.settings)
    start = Start(args.resume, args.resume_from, args.accept_changed_data, args.dry_run)
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
        record: Record = {"kind": "epoch", "epoch": epoch, "step": progress.step, "at": epoch}
        # The last step's rate, which a run resumed after that step has not set yet.
        record["lr"] = run.schedule.set(epoch, progress.step - 1)
        record |= progress.means() | run.state.skipped_steps() | run.pace.recent()
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
    """Take the remaining steps of the epoch, with the checkpoints and validations between them."""
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
    with StepsBar(progress, cfg.OPTIM.EPOCHS, steps, is_shown=run.log is not None) as bar:
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
            # Equal on all processes, so all of them refuse the same step.
            is_due = is_logged or is_saved or is_validated or progress.step_in_epoch == steps
            is_stopped = False
            while len(unread) > (0 if is_due or is_stopped else steps_ahead(device)):
                values, is_stopped = read_step(run, unread.popleft())
            hours = run.pace.hours_left(progress.epoch, progress.step_in_epoch)
            bar.advance(values, hours)
            if run.log and is_logged:
                record = {"kind": "step", "epoch": progress.epoch, "step": progress.step, "lr": lr}
                record |= {"images_per_second": run.pace.images_per_second(), "hours_left": hours}
                record |= values | state.skipped_steps()
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
    # A graph casts the weights again at each replay; no cast may outlive its recording.
    is_cached = not optim.CUDA_GRAPH
    with torch.autocast(device.type, dtype, dtype != torch.float32, cache_enabled=is_cached):
        outputs = run.model(rainy)
    loss, parts = run.criterion(outputs, clean)
    run.state.scaler.scale(loss / optim.ACCUMULATE).backward()
    return {"loss": loss.detach()} | parts


def train_one_step(run: Run, micro_batches: Prefetcher) -> TakenStep:
    """Take one step over ACCUMULATE micro-batches. Only ``read_step`` waits for the device."""
    optim, state, device = run.cfg.OPTIM, run.state, run.processes.device
    layout = torch.channels_last if optim.CHANNELS_LAST else torch.preserve_format
    compute = partial(forward_backward, run)
    losses: list[dict[str, Tensor]] = []
    indices = []
    for number in range(1, optim.ACCUMULATE + 1):
        rainy, clean, which = next(micro_batches)
        indices += which
        rainy, clean = (to_unit_range(x.to(device, non_blocking=True)) for x in (rainy, clean))
        exchange: AbstractContextManager[object] = nullcontext()
        if number < optim.ACCUMULATE and isinstance(run.model, DistributedDataParallel):
            exchange = run.model.no_sync()  # the last micro-batch exchanges the gradients of all
        with exchange:
            losses.append(run.graphs(compute, rainy.to(memory_format=layout), clean))
    micro_batches.fetch()  # while the device computes
    if run.processes.world_size > 1:
        check_all_are_trained(state.network)  # processes may differ in it: each prints its own
    state.scaler.unscale_(state.optimizer)
    norms = gradient_norms(state.network)
    norm = torch.linalg.vector_norm(torch.stack([*norms.values()]))
    # A signal may reach the processes at different steps; they stop together.
    values = join_values(losses, norm, is_stopped=bool(run.stop.received))
    results = run.processes.mean_tensor(values)
    taken = TakenStep.queue(state.progress, indices, (*losses[0], "grad_norm"), results, norms)
    if optim.CLIP_NORM:
        nn.utils.clip_grads_with_norm_(state.network.parameters(), optim.CLIP_NORM, norm)
    take_guarded_step(state.optimizer, state.scaler, results.isfinite().all())
    state.optimizer.zero_grad(set_to_none=True)
    return taken


def read_step(run: Run, taken: TakenStep) -> StepValues:
    """Wait for a step's values and add them to the epoch's; refuse values that are not finite."""
    read, state = taken.read(), run.state
    with run.processes.alike():
        if not taken.is_sound(read.values, is_scaled=state.scaler.is_enabled()):
            everywhere = [i for share in run.processes.gather(taken.indices) for i in share]
            images = [run.loaders.train_pairs[i].rainy for i in everywhere]
            refuse_step(taken, images, run.cfg.OPTIM, run.folder.resume_hint())
        state.progress.add_values(read.values)
        check_skipped_steps(taken, state.progress, run.folder.resume_hint())
    return read


def finish_one_step(run: Run, micro_batches: Prefetcher) -> StepValues:
    """Take one step and wait for its values, to measure what a step takes."""
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
    RunStopped after a signal; everything trained is saved before it begins.
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
    node, progress = run.cfg.VALIDATION, run.state.progress
    pairs, images = run.loaders.validation[name].pairs, iter(run.loaders.validation[name].loader)
    # All processes take the same number of rounds; in the last one some may have no image left.
    rounds = range(math.ceil(len(pairs) / run.processes.world_size))
    sums = [0.0, 0.0, 0.0]  # PSNR, SSIM, images
    for number in tqdm(rounds, name, unit="image", leave=False, disable=None if run.log else True):
        for rainy, clean in itertools.islice(images, 1):
            restored = restorer(rainy)
            result = score(restored, clean, node.PROTOCOL)
            sums = [a + b for a, b in zip(sums, (result.psnr, result.ssim, 1), strict=True)]
            if run.log and number == 0 and is_every(node.SAMPLES_EVERY, progress.epoch):
                prefix = f"{name}_" if len(run.loaders.validation) > 1 else ""
                pictures, sample = [rainy, restored, clean], f"{prefix}{pairs[0].rainy.stem}"
                run.log.add_sample(sample, pictures, progress.epoch, progress.step)
        if run.processes.any(bool(run.stop.received)):
            raise RunStopped
    psnr, ssim, count = run.processes.sum(sums)
    return psnr / count, ssim / count


def save(run: Run) -> None:
    """Write latest.pth, in the main process only."""
    if run.log:
        run.folder.check_is_ours()
        run.state.save(run.folder.latest)


if __name__ == "__main__":
    run_main(main)
