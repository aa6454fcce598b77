"""One set of checks for every network of the registry; a new one is checked without a line here.

What takes seconds at a published size (gradients, odd sizes) runs on the small variant of each
network, which is the same code; names, shapes and golden outputs on the published ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import NETWORKS, build_model, load_published
from models.fast import reference_ops
from models.network import DerainingNetwork
from models.published import FORMS, from_published, to_published
from models.registry import parse_options, register
from tests.reference import (
    RELEASED,
    RELEASED_IN_PYTORCH,
    golden_batch,
    golden_images,
    golden_shapes,
    golden_weights,
    mspfn_variables,
    read_arrays,
)
from utils.errors import UserError


def num_parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(name).parameters())


def family(name: str) -> tuple[object, ...]:
    """A variant without its size: its class and the words in its configuration."""
    network_class, config = NETWORKS[name]
    return network_class, *(word for word in vars(config).values() if isinstance(word, str))


FAMILIES = list(dict.fromkeys(map(family, NETWORKS)))
SMALL = [
    min((name for name in NETWORKS if family(name) == wanted), key=num_parameters)
    for wanted in FAMILIES
]


def small_network(name: str) -> DerainingNetwork:
    torch.manual_seed(0)
    return build_model(name)


def random_image(batch: int, height: int, width: int) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def legal_sizes(network: DerainingNetwork) -> list[tuple[int, int]]:
    """The smallest size, and one with one and three multiples more, odd if any size is legal."""
    multiple = network.size_multiple
    least = -(-network.min_size // multiple) * multiple
    return [(least, least), (least + multiple, least + 3 * multiple)]


@pytest.mark.parametrize("name", SMALL)
def test_there_is_a_small_variant_for_tests_and_first_trials(name: str) -> None:
    assert num_parameters(name) < 2_000_000, "add one to VARIANTS in the network's file"


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_a_tuple_of_images_and_the_first_has_the_size_of_the_input(name: str) -> None:
    network = small_network(name).eval()
    for height, width in legal_sizes(network):
        with torch.inference_mode():
            outputs = network(random_image(2, height, width))
        assert isinstance(outputs, tuple)
        assert outputs[0].shape == (2, 3, height, width)
        for output in outputs:
            assert output.shape[:2] == (2, 3)
            assert output.isfinite().all()
        for place, halvings in network.implicit_outputs:
            assert outputs[place].shape[2:] == (height // 2**halvings, width // 2**halvings)


@pytest.mark.parametrize("name", SMALL)
def test_the_input_stays_as_it_is(name: str) -> None:
    """In both memory layouts: some blocks add in place."""
    network = small_network(name)
    image = random_image(1, *legal_sizes(network)[1])
    for layout in (torch.contiguous_format, torch.channels_last):
        given = image.clone(memory_format=layout)
        network.train()(given)
        with torch.inference_mode():
            network.eval().restore(given)
        assert torch.equal(given, image)


@pytest.mark.parametrize("name", SMALL)
def test_restore_is_the_first_output(name: str) -> None:
    network = small_network(name).eval()
    image = random_image(2, *legal_sizes(network)[1])
    with torch.inference_mode():
        restored, outputs = network.restore(image), network(image)
    torch.testing.assert_close(restored, outputs[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_gives_what_its_images_give_alone(name: str) -> None:
    network = small_network(name).eval()
    images = random_image(2, *legal_sizes(network)[1])
    with torch.inference_mode():
        together = network.restore(images)
        alone = torch.cat([network.restore(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def away_from_the_start(network: DerainingNetwork) -> DerainingNetwork:
    """Random slopes, biases and gains: their start at 0 or 1 would hide mistakes."""
    generator = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, -0.9, 0.9, generator=generator)
    return network


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(name: str) -> None:
    """A ReLU may hide a parameter from one random start, but not from each of ten."""
    hidden = None
    for seed in range(10):
        torch.manual_seed(seed)
        network = away_from_the_start(build_model(name)).train()
        outputs = network(random_image(2, *legal_sizes(network)[1]))
        sum(output.square().mean() for output in outputs).backward()
        gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
        assert all(x is not None and x.isfinite().all() for x in gradients.values())
        zeros = {key for key, x in gradients.items() if x.abs().max() == 0}
        hidden = zeros if hidden is None else hidden & zeros
        if not hidden:
            break
    assert not hidden


@pytest.mark.parametrize("name", SMALL)
def test_fast_forms_give_the_values_and_gradients_of_the_plain_ones(name: str) -> None:
    """At an odd width if it is legal, and a height of several strips of NeRD-Rain."""
    network = away_from_the_start(small_network(name)).eval()
    height, width = legal_sizes(network)[1]
    rainy = random_image(2, max(height, 112), width)
    results = []
    for form in (torch.enable_grad, reference_ops):
        network.zero_grad()
        with form():
            outputs = network(rainy)
            sum(output.square().mean() for output in outputs).backward()
            with torch.inference_mode():
                restored = network.restore(rainy)
        gradients = {key: p.grad.clone() for key, p in network.named_parameters()}
        results.append((outputs, restored, gradients))
    (outputs, restored, gradients), (plain_outputs, plain_restored, plain_gradients) = results
    for output, plain in zip((*outputs, restored), (*plain_outputs, plain_restored), strict=True):
        torch.testing.assert_close(output, plain, rtol=0, atol=2e-5)
    for key, gradient in gradients.items():
        largest = plain_gradients[key].abs().max().item()
        torch.testing.assert_close(
            gradient, plain_gradients[key], rtol=0, atol=1e-3 * largest, msg=key
        )


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_autocast_stays_close_and_trains(name: str) -> None:
    """Fourier parts, norms and softmaxes that need float32 switch to it themselves."""
    network = small_network(name).train()
    image = random_image(2, *legal_sizes(network)[1])
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(image)
    sum(output.float().square().mean() for output in outputs).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    network.eval()
    for forms in (torch.inference_mode, reference_ops):
        with torch.inference_mode(), forms():
            exact = network.restore(image)
            with torch.autocast("cpu", torch.bfloat16):
                rough = network.restore(image)
        assert (rough.float() - exact).abs().mean() < 0.02


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_on_the_meta_device(name: str) -> None:
    """No tensor is created on another device, and no branch depends on a value."""
    with torch.device("meta"):
        network = build_model(name)
    height, width = legal_sizes(network)[1]
    outputs = network(torch.empty(1, 3, height, width, device="meta"))
    assert outputs[0].shape == (1, 3, height, width)


def options_of_all_kinds(name: str) -> list[dict]:
    """The variant as it is, and with its width doubled."""
    _, config = NETWORKS[name]
    return [{}, {"width": 2 * config.width}] if hasattr(config, "width") else [{}]


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name in SMALL for options in options_of_all_kinds(name)],
)
def test_published_names_and_back_are_bit_exact(name: str, options: dict) -> None:
    torch.manual_seed(0)
    network = build_model(name, options)
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    published = to_published(network)
    back = from_published(network, published)
    assert back.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        assert torch.equal(back[key], value), key


# The published networks against the releases' figures


def test_every_published_network_has_golden_figures() -> None:
    assert FORMS.keys() == {NETWORKS[name][0] for name in RELEASED}


# How many values of a release's checkpoint have no effect: DMSR's conv_mid and two biases; the
# merge of NeRD-Rain's third pass and 18 columns in each of its two MLPs; DCSFN's two fusions and
# eight convolutions of first cells; the recurrent kernels and forget gates of MSPFN's LSTMs.
UNUSED = {
    "dmsr": 2 * (24 * 49 + 48 * 97 + 96 * 193) + 96 + 192,
    "nerd_rain": 96 * 48 + 2 * 18 * 256,
    "nerd_rain_s": 64 * 32 + 2 * 18 * 256,
    "nerd_rain_cnn": 96 * 48 + 2 * 18 * 256,
    "dcsfn": 2 * (40 * 20 + 20) + 8 * (9 * 20 * 20 + 20),
    "mspfn": 3_226_048,
    "mspfn_n1": 3_226_048,
}


@pytest.mark.parametrize("name", RELEASED)
def test_outputs_and_names_are_those_of_the_release(name: str, tmp_path: Path) -> None:
    """Through a file as the authors' code writes it, and back to their names."""
    theirs = golden_weights(name)
    entries = {f"module.{key}": value for key, value in theirs.items()}
    if name not in RELEASED_IN_PYTORCH:
        entries = {f"generator/{key}": value for key, value in mspfn_variables(name).items()}
    key = "net" if name == "dcsfn" else "state_dict"
    torch.save({key: entries, "clock_net": 3}, tmp_path / "published.pth")
    network = load_published(name, tmp_path / "published.pth")
    assert not network.training

    rainy, expected = golden_images(name)
    with torch.inference_mode():
        outputs, restored = network(rainy), network.restore(rainy)
    assert len(outputs) == len(expected)
    for output, golden in zip((*outputs, restored), (*expected, expected[0]), strict=True):
        torch.testing.assert_close(output, golden, rtol=0, atol=1e-5)

    ours = to_published(network)
    assert {key: list(value.shape) for key, value in ours.items()} == golden_shapes(name)
    num_unused = 0
    for key, value in theirs.items():
        unused = ours[key] != value
        assert not ours[key][unused].any(), key
        num_unused += int(unused.sum())
    assert num_unused == UNUSED[name]


def test_the_golden_input_is_what_its_rule_says() -> None:
    """The same rule regenerates the batches of the golden training steps."""
    rainy, _ = golden_batch(0, 1, 64, 80)
    torch.testing.assert_close(rainy, read_arrays("dmsr_forward.npz")["input"], rtol=0, atol=1e-6)


# Typed from the releases: the multiple of H and W, the least side, the window that test images are
# cut into; and the tile that restores best by our measurements.
FACTS = {
    "dmsr": (16, 64, 128, 128),
    "nerd_rain": (16, 16, 256, None),
    "nerd_rain_s": (16, 16, 256, None),
    "nerd_rain_cnn": (16, 16, 256, None),
    "dcsfn": (1, 32, None, None),
    "mspfn": (4, 4, None, None),
    "mspfn_n1": (4, 4, None, None),
}


@pytest.mark.parametrize("name", FACTS)
def test_sizes_and_windows_are_those_of_the_release(name: str) -> None:
    c, _ = NETWORKS[name]
    assert (c.size_multiple, c.min_size, c.released_window, c.best_tile) == FACTS[name]


# The registry


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dmsr", {"width": 7}, "DMSR's width is 7; it must be even and at least 2"),
        ("dmsr", {"width": 0}, "DMSR's width is 0"),
        ("dmsr", {"num_blocks": 0}, "DMSR's num_blocks is 0; it must be at least 1"),
        ("nerd_rain", {"width": 7}, "NeRD-Rain's width is 7; it must be even and at least 2"),
        ("nerd_rain", {"width": 0}, "NeRD-Rain's width is 0"),
        ("nerd_rain", {"head_width": 0}, "NeRD-Rain's head_width is 0; it must be at least 1"),
        ("nerd_rain", {"num_blocks": (2, 3)}, r"num_blocks is \(2, 3\); it must be three whole"),
        ("nerd_rain", {"num_blocks": (2, 0, 3)}, "num_blocks is"),
        ("nerd_rain", {"block": "conv"}, "block is 'conv'; it must be transformer or cnn"),
        ("nerd_rain", {"block": "cnn", "width": 10}, "width is 10; with CNN blocks it must be"),
        ("dcsfn", {"width": 0}, "DCSFN's width is 0; it must be at least 1"),
        ("dcsfn", {"num_units": 0}, "DCSFN's num_units is 0; it must be at least 1"),
        ("mspfn", {"width": 0}, "MSPFN's width is 0; it must be a multiple of 4"),
        ("mspfn", {"width": 18}, "MSPFN's width is 18"),
        ("mspfn", {"num_units": 0}, "MSPFN's num_units is 0; it must be at least 1"),
        ("mspfn", {"num_attention": (1, 3)}, r"num_attention is \(1, 3\); it must be three whole"),
        ("mspfn", {"num_attention": (1, 0, 3)}, "num_attention is"),
        ("mspfn", {"num_attention": (1, 1.0, 1)}, "num_attention is"),
    ],
)
def test_impossible_sizes_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(name, options)


def test_an_unknown_name_lists_the_known_ones_and_says_where_one_is_added() -> None:
    with pytest.raises(
        UserError, match=r"no network 'dsmr'.*Did you mean dmsr\?.*dmsr_s.*models/registry\.py"
    ):
        build_model("dsmr")


def test_options_override_the_variant_and_are_checked() -> None:
    assert build_model("dmsr_s", {"width": 8}).stem[0].weight.shape[0] == 8
    with pytest.raises(UserError, match=r"no option 'widht'.*Did you mean width\?"):
        build_model("dmsr_s", {"widht": 8})
    with pytest.raises(UserError, match="must be of type int"):
        build_model("dmsr_s", {"width": "8"})


def test_options_of_a_command_line() -> None:
    parsed = parse_options(["width=16", "num_blocks=1,1,2"])
    assert parsed == {"width": 16, "num_blocks": (1, 1, 2)}
    build_model("nerd_rain_t", parsed)
    assert parse_options(["num_blocks=[1, 1, 2]"]) == {"num_blocks": [1, 1, 2]}
    with pytest.raises(UserError, match=r"'width' is not KEY=VALUE"):
        parse_options(["width"])
    with pytest.raises(UserError, match="width twice"):
        parse_options(["width=8", "width=16"])


def test_two_networks_cannot_share_a_name() -> None:
    """By an exception: ``python -O`` would remove an assert."""
    before = dict(NETWORKS)
    network_class, config = NETWORKS["dmsr"]
    with pytest.raises(ValueError, match="'dmsr' is the name of two"):
        register(network_class, {"a_new_name": config, "dmsr": config})
    assert before == NETWORKS
