"""train.py against a plain training loop that knows nothing of it."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data.datasets import DecodedPairs, Draw, TrainingPatches
from data.pairs import Pair, find_pairs
from data.transforms import Augmentation
from models import build_model
from tests.helpers import write_pairs
from tests.runs import log_of, saved
from utils.checkpoints import read_weights

SEED, BATCH, PASSES, EPOCHS, LR = 7, 4, 2, 2, 0.02
BETAS, EPS = (0.8, 0.95), 1e-4


def psnr(network: torch.nn.Module, pairs: list[Pair]) -> float:
    """The mean over whole images, rounded to 8 bits, of all three channels."""
    values = []
    for pair in pairs:
        rainy, clean = pair.read_uint8()
        with torch.no_grad():
            restored = network(torch.from_numpy(rainy / np.float32(255)).permute(2, 0, 1)[None])[0]
        restored = restored[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().double().numpy()
        values.append(10 * math.log10(255**2 / np.square(restored - clean).mean()))
    return sum(values) / len(values)


def reference(
    train: list[Pair], val: list[Pair], decay: float, clip: float, dtype: torch.dtype
) -> dict:
    """The whole training, written down plainly."""
    torch.manual_seed(SEED)
    network = build_model("tiny").train()
    ema = copy.deepcopy(network).eval() if decay else network
    optimizer = torch.optim.Adam(network.parameters(), LR, BETAS, EPS)
    patches = TrainingPatches(DecodedPairs(train), Augmentation(geometry="dihedral"), SEED)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    step, losses, scores, best = 0, [], [], None
    for epoch in range(1, EPOCHS + 1):
        order, epoch_loss = np.random.default_rng((SEED, epoch)).permutation(12), 0.0
        for first in range(0, 12, BATCH):
            for group in optimizer.param_groups:
                group["lr"] = LR * 0.8 ** (step / 2) + 1e-6
            optimizer.zero_grad()
            for part in np.split(order[first : first + BATCH], PASSES):
                samples = [patches[Draw(epoch, int(i), 32)] for i in part]
                rainy, clean = (torch.stack([s[i] for s in samples]) for i in (0, 1))
                if rainy.dtype == torch.uint8:
                    rainy, clean = rainy / 255, clean / 255
                with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                    restored = network(rainy)[0].float()
                loss = 0.5 * F.l1_loss(restored, clean) / PASSES
                scaler.scale(loss).backward()
                epoch_loss += loss.item()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), clip or math.inf)
            scaler.step(optimizer)
            scaler.update()
            step += 1
            d = min(decay, step / (step + 9))
            for name, value in network.state_dict().items() if decay else ():
                average = ema.state_dict()[name]
                average.copy_(d * average + (1 - d) * value if value.is_floating_point() else value)
        losses.append(epoch_loss / 3)
        scores.append(psnr(ema.eval(), val))
        if scores[-1] == max(scores):
            best = copy.deepcopy(ema.state_dict())
        network.train()
    return {"losses": losses, "scores": scores, "best": best, "network": network.state_dict()}


@pytest.mark.parametrize(
    ("decay", "clip", "precision"),
    [
        (0.0, 0.0, "float32"),
        (0.3, 0.05, "float32"),  # reached after the third step
        (0.3, 0.05, "bf16"),
        (0.3, 0.05, "fp16"),
    ],
)
def test_two_epochs_equal_a_plain_loop(run_train, tmp_path, decay, clip, precision) -> None:
    train, val = (write_pairs(tmp_path / name, n, 40, 48) for name, n in (("a", 12), ("b", 2)))
    folder = run_train(
        *f"""
        DATA.TRAIN {train} DATA.VAL {val} RUN.SEED {SEED} AUGMENT.GEOMETRY dihedral
        OPTIM.EPOCHS {EPOCHS} OPTIM.BATCH_SIZE {BATCH} OPTIM.ACCUMULATE {PASSES}
        OPTIM.LR {LR} OPTIM.BETAS {list(BETAS)!s} OPTIM.EPS {EPS} OPTIM.CLIP_NORM {clip}
        OPTIM.EMA {decay} OPTIM.PRECISION {precision} LOSS.TERMS.L1 0.5
        SCHEDULE.NAME exponential SCHEDULE.DECAY_STEPS 2 SCHEDULE.GAMMA 0.8
        VALIDATION.PROTOCOL rgb
        """.replace(", ", ",").split()
    )
    dtype = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    expected = reference(find_pairs(train).pairs, find_pairs(val).pairs, decay, clip, dtype)
    epochs = log_of(folder, "epoch")
    assert [line["loss"] for line in epochs] == pytest.approx(expected["losses"], rel=1e-5)
    assert [line["psnr"] for line in epochs] == pytest.approx(expected["scores"], rel=1e-5)
    assert [line["lr"] for line in epochs] == pytest.approx(
        [LR * 0.8 ** (step / 2) + 1e-6 for step in (2, 5)]
    )
    latest, best = saved(folder), read_weights(folder / "best.safetensors")
    for name, value in expected["network"].items():
        torch.testing.assert_close(latest["network"][name], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(best.state[name], expected["best"][name], rtol=1e-4, atol=1e-6)
    assert best.info["psnr"] == pytest.approx(max(expected["scores"]), rel=1e-5)
