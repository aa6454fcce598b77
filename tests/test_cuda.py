"""Training and restoring on CUDA: `make test-gpu` on a machine with one GPU."""

from __future__ import annotations

import json
import linecache
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from configs import load_config
from data.batches import to_unit_range
from data.loaders import build_loaders
from models import build_model
from tests.helpers import ROOT, run_script, write_pairs
from tests.reference import RELEASED, golden_images, golden_network
from tests.runs import train_here
from tests.tiny_network import register
from utils.checkpoints import read_checkpoint
from utils.inference.restorer import Restorer

pytestmark = pytest.mark.gpu

# The smallest variant of each network, and a recipe of it.
TINY = {
    "dmsr_s": "dmsr_rain13k",
    "nerd_rain_t": "nerd_rain_rain200l",
    "nerd_rain_cnn_t": "nerd_rain_cnn_rain200h",
    "dcsfn_t": "dcsfn_rain100h",
    "mspfn_t": "mspfn_rain13k",
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 8)


def settings_of(network: str, pairs: Path, *more: str) -> list[str]:
    """The network's own recipe at its smallest, two epochs of four steps."""
    return [
        "--config",
        str(ROOT / "configs" / f"{TINY[network]}.yml"),
        *f"""
        MODEL.NAME {network} DATA.TRAIN {pairs} DATA.VAL {pairs} DATA.WORKERS 0 DATA.REPEAT 1
        AUGMENT.PATCH 64 OPTIM.BATCH_SIZE 2 OPTIM.EPOCHS 2 SCHEDULE.WARMUP_EPOCHS 0
        VALIDATION.PATIENCE 0 VALIDATION.SAMPLES_EVERY 0 LOG.EVERY_STEPS 1 OPTIM.LR 1e-3
        """.split(),
        *more,
    ]


def epochs_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "epoch"]


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("network", TINY)
def test_every_network_trains(pairs, tmp_path, network, precision) -> None:
    """With finite losses that fall; those of half precision are within 10% of float32's."""
    folder = train_here(tmp_path, "run", *settings_of(network, pairs, "OPTIM.PRECISION", precision))
    losses = [line["loss"] for line in epochs_of(folder)]
    assert all(math.isfinite(loss) for loss in losses) and losses[1] < losses[0]
    assert all(
        value.isfinite().all()
        for value in read_checkpoint(folder / "latest.pth")["network"].values()
    )
    if precision != "float32":
        exact = train_here(tmp_path, "exact", *settings_of(network, pairs))
        assert losses[0] == pytest.approx(epochs_of(exact)[0]["loss"], rel=0.1)


@pytest.mark.parametrize(
    ("network", "keys"),
    [
        ("nerd_rain_t", ["COMPILE"]),
        ("nerd_rain_t", ["CUDA_GRAPH"]),
        ("nerd_rain_t", ["COMPILE", "CUDA_GRAPH"]),
        ("dmsr_s", ["CUDA_GRAPH"]),  # its batch norms must not count the warm-up
        ("nerd_rain_t", ["CHANNELS_LAST"]),
        ("nerd_rain_t", ["GRADIENT_CHECKPOINTING"]),
    ],
)
def test_settings_for_speed_and_memory_take_the_same_steps(pairs, tmp_path, network, keys) -> None:
    switches = [part for key in keys for part in (f"OPTIM.{key}", "True")]
    plain = train_here(tmp_path, "plain", *settings_of(network, pairs))
    other = train_here(tmp_path, "other", *settings_of(network, pairs, *switches))
    for a, b in zip(epochs_of(plain), epochs_of(other), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    states = (read_checkpoint(folder / "latest.pth")["network"] for folder in (plain, other))
    for a, b in zip(*(state.items() for state in states), strict=True):
        if "running" in a[0]:
            torch.testing.assert_close(a[1], b[1], rtol=1e-2, atol=1e-3)


SHIPPED = """
    OPTIM.PRECISION bf16 OPTIM.COMPILE True OPTIM.CUDA_GRAPH True OPTIM.CLIP_NORM 0.05 OPTIM.EMA 0.9
""".split()  # noqa: SIM905


@pytest.mark.parametrize(
    "more",
    [
        SHIPPED,
        ["OPTIM.PRECISION", "fp16", "OPTIM.CUDA_GRAPH", "True"],
        # the graph is recorded again in epoch 2, for larger patches
        ["AUGMENT.PROGRESSIVE", "[[2, 96, 1]]", "OPTIM.CUDA_GRAPH", "True"],
        ["OPTIM.GRADIENT_CHECKPOINTING", "True", "OPTIM.CUDA_GRAPH", "True"],
    ],
    ids=["shipped", "fp16", "progressive", "checkpointing"],
)
def test_graphs_take_the_same_steps_in_combination(pairs, tmp_path, more) -> None:
    plain = [*more, "OPTIM.CUDA_GRAPH", "False", "OPTIM.COMPILE", "False"]
    folders = [
        train_here(tmp_path, name, *settings_of("nerd_rain_t", pairs, *switches))
        for name, switches in (("plain", plain), ("graph", more))
    ]
    for a, b in zip(*map(epochs_of, folders), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-2)
        assert a["psnr"] == pytest.approx(b["psnr"], abs=0.2)
    one, other = (read_checkpoint(folder / "latest.pth") for folder in folders)
    assert one["scaler"] == other["scaler"]


def test_the_fused_optimiser_takes_the_steps_of_the_plain_one() -> None:
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        layer = torch.nn.Linear(8, 8).cuda()
        optimizer = torch.optim.Adam(layer.parameters(), 1e-2, fused=fused)
        for _ in range(5):
            optimizer.zero_grad()
            layer(torch.ones(2, 8, device="cuda")).square().mean().backward()
            optimizer.step()
        results.append(layer.weight.detach())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_a_resumed_run_ends_like_an_uninterrupted_one(pairs, tmp_path, precision) -> None:
    more = ["RUN.DETERMINISTIC", "True", "OPTIM.PRECISION", precision, "OPTIM.EMA", "0.9"]
    settings = settings_of("dcsfn_t", pairs, *more)
    straight = train_here(tmp_path, "straight", *settings)
    halves = train_here(tmp_path, "halves", *settings, "--stop-after-epoch")
    train_here(tmp_path, "halves", *settings, "--resume")
    one, other = (read_checkpoint(folder / "latest.pth") for folder in (straight, halves))
    for part in ("network", "ema"):
        for name, value in one[part].items():
            torch.testing.assert_close(other[part][name], value, rtol=1e-4, atol=1e-6)
    assert one["scaler"] == other["scaler"]


def test_the_host_waits_for_the_device_once_per_step(pairs, tmp_path, monkeypatch) -> None:
    """With all losses of NeRD-Rain, whose kernels are moved before the first step."""
    waits = []
    one_step = train.train_one_step

    def watched(*args: object) -> object:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return one_step(*args)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                waits.append(sum("synchronizing" in str(w.message) for w in caught))

    monkeypatch.setattr(train, "train_one_step", watched)
    for precision in ("float32", "fp16"):
        more = ["OPTIM.PRECISION", precision, "OPTIM.CLIP_NORM", "1", "OPTIM.EMA", "0.9"]
        train_here(tmp_path, precision, *settings_of("nerd_rain_t", pairs, *more))
    assert len(waits) == 16
    assert max(waits[1:8] + waits[9:]) <= 1  # the first steps set up libraries


def test_batches_are_bytes_in_page_locked_memory(pairs) -> None:
    cfg = load_config(ROOT / "training.yml", settings_of("dmsr_s", pairs)[2:])
    loaders = build_loaders(cfg)
    loaders.sampler.set_epoch(1, patch=64, batch_size=2)
    rainy, clean, _ = next(iter(loaders.train))
    for images in (rainy, clean):
        assert images.dtype == torch.uint8 and images.is_pinned()
        floats = to_unit_range(images.cuda())
        torch.testing.assert_close(floats.cpu(), images / 255, rtol=0, atol=1e-7)


@pytest.mark.parametrize("checkpointing", ["False", "True"])
def test_two_processes_on_one_gpu_equal_one(pairs, tmp_path, checkpointing) -> None:
    """Through gloo, and with batch norms, whose statistics SyncBatchNorm joins."""
    settings = settings_of("dmsr_s", pairs, "RUN.FOLDER", str(tmp_path), "OPTIM.BATCH_SIZE", "4")
    settings += ["OPTIM.GRADIENT_CHECKPOINTING", checkpointing]
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    one = run_script("train.py", *settings, "RUN.NAME", "one")
    two = run_script(
        "train.py", *settings, "RUN.NAME", "two", "RUN.BACKEND", "gloo", launcher=launcher
    )
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    for a, b in zip(epochs_of(tmp_path / "one"), epochs_of(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-3)
        assert a["psnr"] == pytest.approx(b["psnr"], abs=0.1)


@pytest.mark.parametrize("name", [name for name in RELEASED if name != "mspfn"])  # as mspfn_n1
def test_golden_outputs_in_float32_without_tf32(name) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network = golden_network(name).eval().cuda()
    rainy, outputs = golden_images(name)
    with torch.inference_mode():
        restored = network.restore(rainy.cuda()).cpu()
    torch.testing.assert_close(restored, outputs[0], rtol=0, atol=5e-5)


def test_restoring_waits_for_the_gpu_once_per_image(monkeypatch) -> None:
    register(monkeypatch)
    network = build_model("tiny", {}).eval().cuda()
    image = np.random.default_rng(0).integers(0, 256, (500, 700, 3), np.uint8)
    restorer = Restorer(network, device="cuda", tile=128)
    expected = Restorer(network.cpu(), tile=128)(image)
    network.cuda()
    restorer(image)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            restored = restorer(image)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # Indices and weights of the tiles are uploaded before the first computation.
    lines = [linecache.getline(warning.filename, warning.lineno) for warning in caught]
    assert len([line for line in lines if "from_numpy(values)" not in line]) <= 1, lines
    assert np.abs(restored.astype(int) - expected).max() <= 1


def test_restoring_falls_back_to_smaller_tiles_if_out_of_memory(monkeypatch) -> None:
    register(monkeypatch)
    network = build_model("tiny", {"width": 64}).eval()
    image = np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), np.uint8)
    expected = Restorer(network, device=torch.device("cpu"))(image)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * 2**30 / total)
    try:
        restored = Restorer(network, device=torch.device("cuda"))(image)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.abs(restored.astype(int) - expected).max() <= 1
