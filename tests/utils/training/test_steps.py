"""Steps that are read later: what reaches the weights, what is refused, and nothing waits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import train
from tests.runs import progress, saved
from tests.tiny_network import TinyNetwork
from utils.errors import UserError
from utils.training.failures import explained_failures
from utils.training.logs import read_log
from utils.training.optim import match_layout
from utils.training.state import Progress
from utils.training.steps import TakenStep, gradient_norms, take_guarded_step


@pytest.fixture
def settings(settings: list[str]) -> list[str]:
    """Two epochs of four steps, without validation; the last of an epoch is logged."""
    more = ["DATA.REPEAT", "2", "OPTIM.BATCH_SIZE", "3", "DATA.VAL", "", "LOG.EVERY_STEPS", "50"]
    settings += [*more, "OPTIM.CLIP_NORM", "0.05"]
    return settings


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
    run_train, monkeypatch, precision: str
) -> None:
    """The condition is patched: one step stays unread on a CPU too, as on CUDA."""
    more = ["OPTIM.PRECISION", precision, "LOG.EVERY_STEPS", "3"]
    at_once = run_train(*more, name="at_once")
    monkeypatch.setattr(train, "steps_ahead", lambda device: 1)
    later = run_train(*more, name="later")
    logs = [read_log(folder / "log.jsonl") for folder in (at_once, later)]
    assert [line["step"] for line in logs[1]] == [3, 4, 6, 8]
    for one, other in zip(*logs, strict=True):
        for key in ("step", "loss", "L1", "grad_norm", "lr"):
            assert one[key] == other[key]
    one, other = saved(at_once), saved(later)
    for part in ("network", "ema"):
        assert all(torch.equal(one[part][name], x) for name, x in other[part].items())


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_step_that_is_not_finite_reaches_neither_weights_nor_disk(
    run_train, tmp_path, monkeypatch, ahead: int, step: int
) -> None:
    before = spoil_step(monkeypatch, step)
    monkeypatch.setattr(train, "steps_ahead", lambda device: ahead)
    with pytest.raises(UserError, match=rf"In step {step} \(epoch 1\) the loss is nan") as caught:
        run_train("CHECKPOINT.EVERY_STEPS", "2", "OPTIM.EPOCHS", "1")
    assert str(caught.value).count(".png") == 3
    network = before.pop("network")
    if ahead == 0 or step in (2, 4):  # else one more, sound step was taken
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name
    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert (tmp_path / "run" / "latest.pth").exists() == (step > 2)
    if step > 2:
        before = progress(tmp_path / "run")
        assert before["step"] == 2 and math.isfinite(before["sums"]["loss"])


def test_nothing_in_a_step_waits_for_its_values(run_train, monkeypatch) -> None:
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
    run_train()
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


def test_validation_runs_without_the_autotuner_and_training_with_it(
    run_train, tiny_data, monkeypatch
) -> None:
    real, seen = TinyNetwork.forward, []

    def forward(self: TinyNetwork, rainy: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if rainy.device.type != "meta":
            seen.append((self.training, torch.backends.cudnn.benchmark))
        return real(self, rainy)

    monkeypatch.setattr(TinyNetwork, "forward", forward)
    run_train("DATA.VAL", f"{tiny_data}/val", "OPTIM.EMA", "0")
    steps, images = [(True, True)] * 4, [(False, False)] * 2
    assert seen == [*steps, *images, *steps, *images]  # of both epochs


def test_tf32_on_a_cpu_is_reported(run_train, capsys) -> None:
    run_train("OPTIM.TF32", "True", "--stop-after-epoch")
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


def test_a_sound_step_ends_a_row_of_skipped_ones() -> None:
    found = Progress()
    for norm in (math.inf, math.inf, 2.0, math.inf):
        found.add_values({"loss": 0.5, "grad_norm": norm})
    assert (found.skipped_steps, found.skipped_in_a_row) == (3, 1)
    assert found.sums["loss"] == 2.0


@pytest.mark.slow
def test_compiling_without_a_compiler_is_a_sentence(run_train, tmp_path, monkeypatch) -> None:
    """The condition is patched: the compiler that PyTorch is to take does not exist."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/nowhere/g++"))
    with pytest.raises(UserError, match=r"OPTIM\.COMPILE needs a C\+\+ compiler.* no checkpoint"):
        run_train("OPTIM.COMPILE", "True")


@pytest.mark.parametrize(
    "message",
    [
        "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx",
        "Failed to find C compiler. Please specify via CC environment variable",
        "Cannot find a working triton installation.",
    ],
)
def test_what_pytorch_says_of_a_missing_compiler_is_a_sentence(message: str) -> None:
    refused = pytest.raises(UserError, match=r"OPTIM\.COMPILE needs .* Resume\.")
    with refused, explained_failures(False, lambda: "Resume."):
        raise RuntimeError(message)
