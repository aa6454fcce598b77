"""One set of checks for every network that can be built by name.

What costs seconds at a published size (gradients, odd sizes) runs on the tiny variants, which are
the same code; names, shapes and golden outputs on the published ones.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models import NETWORKS, build_model, load_published
from models.network import DerainingNetwork
from tests.reference import golden_batch, golden_weights, read_arrays, read_json
from utils.errors import UserError

TINY = ["dmsr_s", "nerd_rain_t", "dcsfn_t", "mspfn_t"]
# Released in PyTorch, with names, shapes and outputs of their checkpoints in tests/golden.
PUBLISHED = ["dmsr", "nerd_rain", "nerd_rain_s", "dcsfn"]


def small_network(name: str) -> DerainingNetwork:
    torch.manual_seed(0)
    return build_model(name)


def random_image(batch: int, height: int, width: int) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def legal_sizes(network: DerainingNetwork) -> list[tuple[int, int]]:
    """The smallest size, and one that is larger by an odd number of multiples on each side."""
    multiple = network.size_multiple
    least = -(-network.min_size // multiple) * multiple
    return [(least, least), (least + multiple, least + 3 * multiple)]


@pytest.mark.parametrize("name", TINY)
def test_restored_image_has_the_size_of_the_input(name: str) -> None:
    network = small_network(name).eval()
    for height, width in legal_sizes(network):
        with torch.inference_mode():
            outputs = network(random_image(1, height, width))
        assert outputs[0].shape == (1, 3, height, width)
        assert all(output.isfinite().all() for output in outputs)


@pytest.mark.parametrize("name", TINY)
def test_restore_is_the_first_output(name: str) -> None:
    network = small_network(name).eval()
    image = random_image(2, *legal_sizes(network)[1])
    with torch.inference_mode():
        restored, outputs = network.restore(image), network(image)
    torch.testing.assert_close(restored, outputs[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_a_batch_gives_what_its_images_give_alone(name: str) -> None:
    network = small_network(name).eval()
    images = random_image(2, *legal_sizes(network)[1])
    with torch.inference_mode():
        together = network.restore(images)
        alone = torch.cat([network.restore(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(name: str) -> None:
    network = small_network(name).train()
    for parameter in network.parameters():
        # Zero slopes and zero biases, where some start, would hide a parameter behind them.
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, -0.9, 0.9)
    outputs = network(random_image(2, *legal_sizes(network)[1]))
    sum(output.square().mean() for output in outputs).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", TINY)
def test_bfloat16_autocast_stays_close_and_trains(name: str) -> None:
    """Fourier parts, norms and softmaxes that need float32 take it by themselves."""
    network = small_network(name).train()
    image = random_image(2, *legal_sizes(network)[1])
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(image)
    sum(output.float().square().mean() for output in outputs).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    network.eval()
    with torch.inference_mode():
        exact = network.restore(image)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network.restore(image)
    assert (rough.float() - exact).abs().mean() < 0.02


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_on_the_meta_device(name: str) -> None:
    """No tensor is made on a device of its own choosing, and no value decides the way."""
    with torch.device("meta"):
        network = build_model(name)
    height, width = legal_sizes(network)[1]
    outputs = network(torch.empty(1, 3, height, width, device="meta"))
    assert outputs[0].shape == (1, 3, height, width)


@pytest.mark.parametrize("name", TINY)
def test_published_names_and_back_are_bit_exact(name: str) -> None:
    network = small_network(name)
    back = network.from_published(network.to_published())
    assert back.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        assert torch.equal(back[key], value), key


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_those_of_the_published_checkpoint(name: str) -> None:
    with torch.device("meta"):
        ours = build_model(name).to_published()
    assert {key: list(value.shape) for key, value in ours.items()} == read_json(f"{name}_keys.json")


@pytest.mark.parametrize("name", PUBLISHED)
def test_outputs_are_those_of_the_release(name: str, tmp_path) -> None:
    """Through the file that an author would hand over, with the prefix of parallel training."""
    key = "net" if name == "dcsfn" else "state_dict"
    weights = {f"module.{name}": value for name, value in golden_weights(name).items()}
    torch.save({key: weights, "clock_net": 3}, tmp_path / "published.pth")
    network = load_published(name, tmp_path / "published.pth")
    golden = read_arrays(f"{name}_forward.npz")
    # DCSFN's release reads images with OpenCV: BGR.
    order = [2, 1, 0] if name == "dcsfn" else [0, 1, 2]
    with torch.inference_mode():
        outputs = network(golden["input"][:, order])
        restored = network.restore(golden["input"][:, order])
    assert not network.training
    assert len(outputs) == len(golden) - 1
    for i, output in enumerate(outputs):
        torch.testing.assert_close(output[:, order], golden[f"output{i}"], rtol=0, atol=1e-5)
    torch.testing.assert_close(restored[:, order], golden["output0"], rtol=0, atol=1e-5)


def test_the_golden_input_is_what_its_rule_says() -> None:
    """The batches of the training goldens are regenerated by the rule that is checked here."""
    rainy, _ = golden_batch(0, 1, 64, 80)
    torch.testing.assert_close(rainy, read_arrays("dmsr_forward.npz")["input"], rtol=0, atol=1e-6)


def test_missing_unexpected_and_misshapen_entries_are_reported_together(tmp_path) -> None:
    weights = golden_weights("dcsfn")
    del weights["merge.0.0.bias" if "merge.0.0.bias" in weights else "merge.2.bias"]
    weights["stray"] = torch.zeros(1)
    weights["convert.0.weight"] = torch.zeros(20, 3, 5, 5)
    torch.save({"net": weights}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=r"1 missing \(merge.*1 unexpected \(stray\).*convert\.0"):
        load_published("dcsfn", tmp_path / "wrong.pth")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="no network 'dsmr'; known are dmsr, dmsr_s, nerd_rain"):
        build_model("dsmr")


def test_options_override_the_variant_and_are_checked() -> None:
    assert build_model("dmsr_s", {"width": 8}).stem[0].weight.shape[0] == 8
    with pytest.raises(UserError, match=r"no option 'widht'.*Did you mean width\?"):
        build_model("dmsr_s", {"widht": 8})
    with pytest.raises(UserError, match="must be of type int"):
        build_model("dmsr_s", {"width": "8"})
    with pytest.raises(UserError, match="must be even"):
        build_model("dmsr_s", {"width": 7})
