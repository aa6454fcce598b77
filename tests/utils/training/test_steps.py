"""Steps that are read later: what reaches the weights, what is refused, and nothing waits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import train
from tests.helpers import write_pairs
from tests.ranks import train_here
from tests.tiny_network import TinyNetwork, register
from utils.checkpoints import read_checkpoint
from utils.errors import UserError
from utils.training.failures import explained_failures
from utils.training.logs import read_log
from utils.training.optim import match_layout
from utils.training.steps import TakenStep, gradient_norms, take_guarded_step


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two epochs of four steps of a tiny network, all of them logged at the end of an epoch."""
    register(monkeypatch)
    write_pairs(tmp_path / "train", 8, 40, 48)
    return f"""
        DATA.VAL [] MODEL.NAME tiny DATA.TRAIN {tmp_path}/train DATA.WORKERS 0 AUGMENT.PATCH 32
        OPTIM.EPOCHS 2 OPTIM.BATCH_SIZE 2 OPTIM.LR 0.02 OPTIM.EMA 0.9 OPTIM.CLIP_NORM 0.05
        LOSS.TERMS.L1 1 LOSS.TERMS.FFT_STACKED 0 LOSS.SCALES 1 SCHEDULE.WARMUP_EPOCHS 0
        """.split()


def spoil_step(monkeypatch: pytest.MonkeyPatch, step: int) -> dict[str, torch.Tensor]:
    """Make a step of a run NaN; returns its network and the weights that it began with."""
    real, before, count = TinyNetwork.forward, {}, 0

    def forward(self: TinyNetwork, rainy: torch.Tensor) -> tuple[torch.Tensor, ...]:
        nonlocal count
        count += rainy.device.type != "meta"  # where shapes alone are checked
        (restored,) = real(self, rainy)
        if count != step:
            return (restored,)
        before["network"] = self
        before.update({name: x.detach().clone() for name, x in self.state_dict().items()})
        return (restored * math.nan,)

    monkeypatch.setattr(TinyNetwork, "forward", forward)
    return before


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_steps_that_are_read_later_are_the_same_steps(
    settings, tmp_path, monkeypatch, precision: str
) -> None:
    """The condition is patched: one step stays unread on a CPU too, as on CUDA."""
    settings += ["OPTIM.PRECISION", precision, "LOG.EVERY_STEPS", "3"]
    at_once = train_here(tmp_path, "at_once", *settings)
    monkeypatch.setattr(train, "steps_ahead", lambda device: 1)
    later = train_here(tmp_path, "later", *settings)
    logs = [read_log(folder / "log.jsonl") for folder in (at_once, later)]
    assert [line["step"] for line in logs[1]] == [3, 4, 6, 8]
    for one, other in zip(*logs, strict=True):
        for key in ("step", "loss", "L1", "grad_norm", "lr"):
            assert one[key] == other[key]
    one, other = (read_checkpoint(folder / "latest.pth") for folder in (at_once, later))
    for part in ("network", "ema"):
        assert all(torch.equal(one[part][name], x) for name, x in other[part].items())


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_step_that_is_not_finite_reaches_neither_weights_nor_disk(
    settings, tmp_path, monkeypatch, ahead: int, step: int
) -> None:
    before = spoil_step(monkeypatch, step)
    monkeypatch.setattr(train, "steps_ahead", lambda device: ahead)
    settings += ["CHECKPOINT.EVERY_STEPS", "2", "OPTIM.EPOCHS", "1"]
    with pytest.raises(UserError, match=rf"In step {step} \(epoch 1\) the loss is nan") as caught:
        train_here(tmp_path, "run", *settings)
    assert str(caught.value).count(".png") == 2
    network = before.pop("network")
    if ahead == 0 or step in (2, 4):  # else one more, sound step was taken
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name
    assert all(value.isfinite().all() for value in network.state_dict().values())
    latest = tmp_path / "run" / "latest.pth"
    assert latest.exists() == (step > 2)
    if step > 2:
        saved = read_checkpoint(latest)
        assert saved["progress"]["step"] == 2 and math.isfinite(saved["progress"]["sums"]["loss"])


def test_nothing_in_a_step_waits_for_its_values(settings, tmp_path, monkeypatch) -> None:
    """On CUDA each of these calls would wait for the device; reading the step is one of them."""
    calls: list[str] = []
    taken = train.train_one_step

    def watched(run: train.Run, *arguments: object) -> object:
        if run.state.progress.step_in_epoch == 0:  # PyTorch draws a seed for the loaders
            return taken(run, *arguments)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("item", "tolist", "__bool__", "__float__", "__int__", "nonzero"):
                real = getattr(torch.Tensor, name)

                def call(self: torch.Tensor, *more: object, name=name, real=real) -> object:
                    calls.append(name)
                    return real(self, *more)

                patch.setattr(torch.Tensor, name, call)
            return taken(run, *arguments)

    monkeypatch.setattr(train, "train_one_step", watched)
    train_here(tmp_path, "run", *settings)
    assert calls == []


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_guard_leaves_weights_and_moments_alone(name: str) -> None:
    torch.manual_seed(0)
    layer, scaler = nn.Linear(3, 2), torch.amp.GradScaler("cpu", enabled=False)
    optimizer = getattr(torch.optim, name)(layer.parameters(), 0.1, weight_decay=0.1, fused=True)
    plain = nn.Linear(3, 2)
    plain.load_state_dict(layer.state_dict())
    reference = getattr(torch.optim, name)(plain.parameters(), 0.1, weight_decay=0.1, fused=False)
    for is_finite in (True, False, False, True):
        for network in (layer, plain):
            network.zero_grad()
            network(torch.tensor([[1.0, -2.0, 3.0]])).square().sum().backward()
        if not is_finite:
            layer.weight.grad.fill_(math.nan)
        take_guarded_step(optimizer, scaler, torch.tensor(is_finite))
        if is_finite:
            reference.step()
        torch.testing.assert_close(layer.weight, plain.weight, rtol=1e-6, atol=1e-7)
    for ours, theirs in zip(optimizer.state.values(), reference.state.values(), strict=True):
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-6, atol=1e-7)


def test_the_norms_are_those_of_each_gradient() -> None:
    layer = nn.Linear(2, 1)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert gradient_norms(layer) == {"weight": torch.tensor(5.0)}  # the bias has none
    layer.bias.grad = torch.tensor([-12.0])
    assert gradient_norms(layer) == {"weight": torch.tensor(5.0), "bias": torch.tensor(12.0)}


def test_moments_lie_in_memory_as_their_weights() -> None:
    """Against an optimiser that pairs elements by their place, not by their address."""
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        layer, images = nn.Conv2d(4, 6, 3), torch.randn(2, 4, 8, 8)
        layer.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(layer.parameters(), 1e-2, fused=fused)
        for step in range(3):
            optimizer.zero_grad()
            layer(images).square().mean().backward()
            optimizer.step()
            if step == 0:  # as from a checkpoint of a run without channels_last
                for moments in optimizer.state.values():
                    for name in ("exp_avg", "exp_avg_sq"):
                        moments[name] = moments[name].contiguous()
                match_layout(optimizer)
        results.append(layer.weight.detach())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


def test_a_resume_may_change_the_layout_of_the_weights(settings, tmp_path) -> None:
    changed, same = ("OPTIM.CHANNELS_LAST", "True"), ()
    states = []
    for name, more in (("changed", changed), ("same", same)):
        train_here(tmp_path, name, *settings, "--stop-after-epoch")
        folder = train_here(tmp_path, name, *settings, *more, "--resume")
        states.append(read_checkpoint(folder / "latest.pth")["network"])
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-4, atol=1e-5)


def test_validation_runs_without_the_autotuner_and_training_with_it(
    settings, tmp_path, monkeypatch
) -> None:
    real, seen = TinyNetwork.forward, []

    def forward(self: TinyNetwork, rainy: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if rainy.device.type != "meta":
            seen.append((self.training, torch.backends.cudnn.benchmark))
        return real(self, rainy)

    monkeypatch.setattr(TinyNetwork, "forward", forward)
    train_here(tmp_path, "run", *settings, "DATA.VAL", f"{tmp_path}/train", "OPTIM.EMA", "0")
    assert set(seen) == {(True, True), (False, False)}
    assert seen[-1] == (False, False) and seen[4 + 8] == (True, True)  # the second epoch's first


def test_tf32_on_a_cpu_is_reported(settings, tmp_path, capsys) -> None:
    train_here(tmp_path, "run", *settings, "OPTIM.TF32", "True", "--stop-after-epoch")
    assert "note: OPTIM.TF32 has no effect on cpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "is_sound", "is_sound_scaled"),
    [
        ({}, True, True),
        ({"grad_norm": math.inf}, False, True),  # the scaler skips such a step
        ({"loss": math.nan}, False, False),
        ({"L1": math.inf}, False, False),
    ],
)
def test_what_the_device_skips_is_what_the_host_refuses(changed, is_sound, is_sound_scaled) -> None:
    values = {"loss": 0.5, "L1": 0.25, "grad_norm": 2.0} | changed
    taken = TakenStep(1, 1, [], tuple(values), torch.tensor([*values.values(), 0]), None, {})
    assert taken.read() == (pytest.approx(values, nan_ok=True), False)
    assert taken.is_sound(values, is_scaled=False) == is_sound
    assert taken.is_sound(values, is_scaled=True) == is_sound_scaled


@pytest.mark.slow
def test_compiling_without_a_compiler_is_a_sentence(settings, tmp_path, monkeypatch) -> None:
    """The condition is patched: the compiler that PyTorch is to take does not exist."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/nowhere/g++"))
    with pytest.raises(UserError, match=r"OPTIM\.COMPILE needs a C\+\+ compiler.* no checkpoint"):
        train_here(tmp_path, "run", *settings, "OPTIM.COMPILE", "True")


@pytest.mark.parametrize(
    "message",
    [
        "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx",
        "Failed to find C compiler. Please specify via CC environment variable",
        "Cannot find a working triton installation.",
    ],
)
def test_what_pytorch_says_of_a_missing_compiler_is_a_sentence(message: str) -> None:
    refused = pytest.raises(UserError, match=r"OPTIM\.COMPILE needs .* Go on so\.")
    with refused, explained_failures(False, lambda: "Go on so."):
        raise RuntimeError(message)
