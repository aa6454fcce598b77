"""What only MSPFN has: golden losses and gradients in double precision, padding, TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from losses.terms import Charbonnier, Laplacian
from models.fast import reference_ops
from models.mspfn import MSPFN, VARIANTS, Down, MSPFNConfig, Up
from models.published import from_published, load_published, to_published, write_published
from models.published.mspfn import MSPFNForm, published_names
from models.published.tensorflow import read_tensorflow_checkpoint
from tests.reference import (
    golden_images,
    golden_network,
    mspfn_batch,
    mspfn_variables,
    read_arrays,
    read_json,
    run_tensorflow,
)

RELEASED = ("mspfn", "mspfn_n1")
# Odd and even, down to a single pixel.
SIZES = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 5), (4, 4), (7, 6), (8, 9), (9, 9), (10, 12)]


def nhwc(features: Tensor) -> Tensor:
    return features.permute(0, 2, 3, 1)


@pytest.mark.parametrize("name", RELEASED)
def test_features_equal_the_release(name: str) -> None:
    network, golden = golden_network(name), read_arrays(f"{name}_forward.npz")
    rainy, _ = golden_images(name)
    features: dict[str, Tensor] = {}
    for key, unit in zip(("y_4", "y_2"), network.cfm.memory, strict=False):
        unit.lstm.register_forward_hook(lambda *args, key=key: features.update({key: args[2]}))
    with torch.inference_mode(), reference_ops():  # the fast form skips the hooks
        memories = network.cfm(2 * rainy - 1)
        features |= {"rmm_4": memories[0], "unit0_4": network.ffm[0](memories)[0]}
        rain = 2 * (rainy - network.restore(rainy)).flip(1)
    for key, value in features.items():
        torch.testing.assert_close(nhwc(value), golden[key], rtol=0, atol=1e-6)
    torch.testing.assert_close(nhwc(rain), golden["rain_res"], rtol=0, atol=1e-5)


def training_network(name: str) -> MSPFN:
    """The network with the golden weights of the training graph, in double precision."""
    variables = mspfn_variables(name, training_graph=True)
    network = MSPFN(VARIANTS[name])
    network.load_state_dict(from_published(network, variables))
    return network.double()


def training_losses(network: MSPFN, step: int) -> tuple[Tensor, Tensor]:
    """The release's total loss and its edge part, both on images in [-1, 1]."""
    rainy, clean = mspfn_batch(step)
    restored, clean = 2 * network(rainy)[0] - 1, 2 * clean - 1
    edge = Laplacian().double()(restored, clean)
    return Charbonnier()(restored, clean) + 0.05 * edge, edge


@pytest.mark.parametrize("name", RELEASED)
def test_loss_and_gradients_equal_the_release(name: str) -> None:
    golden = read_json(f"{name}_train.json")
    network = training_network(name)
    total, edge = training_losses(network, step=0)
    total.backward()

    expected = golden["steps"][0]
    assert total.item() == pytest.approx(expected["train_loss"], rel=1e-10)
    assert edge.item() == pytest.approx(expected["edge_loss"], rel=1e-10)
    gradients = {
        published: network.get_parameter(ours).grad.norm().item()
        for ours, published in published_names(network.config).items()
        if published in golden["grad_l2_step0"]
    }
    assert gradients == pytest.approx(golden["grad_l2_step0"], rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED)
def test_twelve_steps_of_adam_equal_the_release(name: str) -> None:
    network = training_network(name)
    optimizer = torch.optim.Adam(network.parameters())
    for expected in read_json(f"{name}_train.json")["steps"]:
        step = expected["step"]
        total, edge = training_losses(network, step)
        assert total.item() == pytest.approx(expected["train_loss"], rel=1e-9)
        assert edge.item() == pytest.approx(expected["edge_loss"], rel=1e-9)
        optimizer.zero_grad()
        total.backward()
        (group,) = optimizer.param_groups
        group["lr"] = 5e-4 * 0.8 ** (step / 20000) + 1e-6
        # TensorFlow adds epsilon outside the bias correction, PyTorch inside.
        group["eps"] = 1e-8 / (1 - 0.999 ** (step + 1)) ** 0.5
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("generator/rnn1/weight", "rnn1/weight"),
        ("model/URAB_3/group_4_RCAB2/conv2d_1/bias", "URAB_3/group_4_RCAB2/conv2d_1/bias"),
        ("generator/BCM2_16/upBCM4_2_16/alpha", "URAB2_16/upURAB4_2_16/alpha"),
        ("generator/BCM_0/upBCM4to1_0/weight", "URAB_0/upURAB4to1_0/weight"),
        ("MSPFN/strange", "MSPFN/strange"),  # reported as unexpected
    ],
)
def test_names_from_all_graphs(name: str, expected: str) -> None:
    assert MSPFNForm().name_from_file(name) == expected


@pytest.mark.parametrize("name", RELEASED)
def test_names_in_a_file_are_those_of_the_released_test_graph(name: str) -> None:
    with torch.device("meta"):
        network = MSPFN(VARIANTS[name])
    written = {MSPFNForm().name_in_file(network, key) for key in to_published(network)}
    assert written == {"generator/" + entry["name"] for entry in read_json(f"{name}_vars.json")}


def linear(block: Down | Up) -> Down | Up:
    """The block with the identity for its PReLU, in double precision."""
    torch.nn.init.ones_(block.prelu.weight)
    return block.double()


def test_down_reads_odd_and_even_sizes_as_tensorflow_does() -> None:
    """SAME pads odd sizes by (1, 1), even ones by (0, 1): windows centre on 0, 2, .. or 1, 3, .."""
    down = linear(Down(1))
    with torch.no_grad():
        down.conv.weight.zero_()[..., 1, 1] = 1
    for height, width in SIZES:
        image = torch.rand(1, 1, height, width, dtype=torch.double)
        expected = image[..., 1 - height % 2 :: 2, 1 - width % 2 :: 2]
        assert torch.equal(down(image), expected), (height, width)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_up_is_the_adjoint_of_down(size: tuple[int, int]) -> None:
    """A transposed convolution is the gradient of the plain one with the same kernel."""
    torch.manual_seed(0)
    down, up = linear(Down(3)), linear(Up(3, 3))
    up.conv.weight = down.conv.weight
    x = torch.rand(2, 3, *size, dtype=torch.double, requires_grad=True)
    y = down(x)
    g = torch.rand_like(y)
    (gradient,) = torch.autograd.grad(y, x, g)
    torch.testing.assert_close(up(g, x.shape[-2:]), gradient, rtol=0, atol=1e-14)


DOWN_AND_UP = """
import sys
import numpy, tensorflow
with numpy.load(sys.argv[1]) as file:
    arrays = dict(file)
out = {}
for i in range(int(arrays["count"])):
    x, kernel = arrays[f"x{i}"], arrays["kernel"]
    y = out[f"down{i}"] = tensorflow.nn.conv2d(x, kernel, 2, "SAME").numpy()
    up = tensorflow.nn.conv2d_transpose(y, arrays["up_kernel"], x.shape, 2, "SAME")
    out[f"up{i}"] = up.numpy()
numpy.savez(sys.argv[2], **out)
"""


@pytest.mark.extras
def test_down_and_up_equal_tensorflow(tmp_path: Path) -> None:
    torch.manual_seed(0)
    down, up = linear(Down(3)), linear(Up(3, 3))
    images = [torch.rand(2, 3, *size, dtype=torch.double) for size in SIZES]
    given = {f"x{i}": nhwc(x).numpy() for i, x in enumerate(images)}
    given["kernel"] = down.conv.weight.detach().permute(2, 3, 1, 0).numpy()
    given["up_kernel"] = up.conv.weight.detach().permute(2, 3, 1, 0).numpy()
    np.savez(tmp_path / "given.npz", count=len(SIZES), **given)
    run_tensorflow(DOWN_AND_UP, tmp_path / "given.npz", tmp_path / "expected.npz")
    with np.load(tmp_path / "expected.npz") as expected:
        for i, x in enumerate(images):
            y = down(x).detach()
            np.testing.assert_allclose(nhwc(y).numpy(), expected[f"down{i}"], rtol=0, atol=1e-14)
            ours = up(y, x.shape[-2:]).detach()
            np.testing.assert_allclose(nhwc(ours).numpy(), expected[f"up{i}"], rtol=0, atol=1e-14)


# As the authors' trainer saves: a TensorFlow 1 session and its Saver.
SAVE = """
import sys
import numpy
import tensorflow.compat.v1 as tf1
with numpy.load(sys.argv[1]) as variables, tf1.Graph().as_default(), tf1.Session() as session:
    for name in variables.files:
        tf1.get_variable(name, initializer=variables[name])
    tf1.get_variable("MSPFN/global_step", initializer=numpy.int64(7))
    session.run(tf1.global_variables_initializer())
    tf1.train.Saver().save(session, sys.argv[2], write_meta_graph=False)
"""


@pytest.mark.extras
def test_a_whole_tensorflow_checkpoint_restores_as_released_and_is_written_again(
    tmp_path: Path,
) -> None:
    """As the authors publish MSPFN-N1: the test graph's names and a training's step."""
    theirs = {f"generator/{name}": x for name, x in mspfn_variables("mspfn_n1").items()}
    np.savez(tmp_path / "given.npz", **{name: x.numpy() for name, x in theirs.items()})
    run_tensorflow(SAVE, tmp_path / "given.npz", tmp_path / "epoch44")

    network = load_published("mspfn_n1", tmp_path / "epoch44")
    rainy, (expected,) = golden_images("mspfn_n1")
    with torch.inference_mode():
        restored = network.restore(rainy)
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-5)

    write_published(network, tmp_path / "again" / "epoch1")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        "epoch1.index",
        "epoch1.data-00000-of-00001",
    }
    written = read_tensorflow_checkpoint(tmp_path / "again" / "epoch1")
    assert written.keys() == theirs.keys()
    for name, value in theirs.items():
        if "LSTM_conv" not in name:  # its unused parts are zeros
            assert torch.equal(written[name], value), name
    back = load_published("mspfn_n1", tmp_path / "again" / "epoch1").state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(back[name], value), name


def test_tanh_keeps_small_values_in_bfloat16() -> None:
    """The fast form of float32 would lose them."""
    torch.manual_seed(0)
    lstm = MSPFN(VARIANTS["mspfn_t"]).cfm.memory[0].lstm
    x = 0.1 * torch.rand(1, 16, 6, 6)
    with torch.no_grad():
        expected = lstm.double()(x.double())
        ours = lstm.bfloat16()(x.bfloat16())
    assert F.cosine_similarity(ours.double().flatten(), expected.flatten(), dim=0) > 0.999


def test_slopes_and_biases_start_at_zero() -> None:
    for name, parameter in MSPFN(VARIANTS["mspfn_t"]).named_parameters():
        assert (parameter.ndim == 1) == (parameter.abs().max() == 0), name


def test_kernels_start_uniform_after_glorot() -> None:
    """TensorFlow's default: up to sqrt(6 / (fan in + fan out)), in an LSTM of the whole kernel."""
    torch.manual_seed(0)
    network = MSPFN(MSPFNConfig(width=32, num_units=1))
    bounds = {}
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
            bounds[name] = (6 / fans) ** 0.5
    for level, hidden in enumerate((32, 64, 128)):
        # 16 channels and the state in, four gates out, as in the release
        fans = 9 * (16 + hidden + 4 * hidden)
        bounds[f"cfm.memory.{level}.lstm.gates.weight"] = (6 / fans) ** 0.5
    for name, bound in bounds.items():
        weight = network.get_parameter(name)
        assert weight.abs().max() <= bound, name
        # the largest of n uniform values is expected a share of 1/n below the bound
        assert weight.abs().max() > bound * (1 - 12 / weight.numel()), name
        assert weight.std().item() == pytest.approx(
            bound / 3**0.5, rel=6 / weight.numel() ** 0.5
        ), name
