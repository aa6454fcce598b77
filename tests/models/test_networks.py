"""One set of checks for every network of the registry; a new one is checked without a line here.

What costs seconds at a published size (gradients, odd sizes) runs on each network's small variant,
which is the same code; names, shapes and golden outputs on the published ones.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models import NETWORKS, build_model, load_published
from models.fast import reference_ops
from models.network import DerainingNetwork
from models.published import FORMS, from_published, to_published
from models.registry import parse_options, register
from tests.reference import (
    GOLDEN_CHECKPOINTS,
    GOLDEN_OUTPUTS,
    golden_batch,
    golden_order,
    golden_weights,
    read_arrays,
    read_json,
)
from utils.errors import UserError

CLASSES = list(dict.fromkeys(network_class for network_class, _ in NETWORKS.values()))


def num_parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(name).parameters())


def family(name: str) -> tuple[object, ...]:
    """What a variant is beside its size: its class and the words in its configuration."""
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
    """The smallest size, and one that is larger by an odd number of multiples on each side."""
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
    """In both memory layouts: blocks sum in place here and there."""
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
    """Zero slopes, zero biases and unit gains, where some start, would hide what is behind them."""
    generator = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, -0.9, 0.9, generator=generator)
    return network


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(name: str) -> None:
    """A ReLU may hide a parameter from one random start, not from each of ten."""
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
    network = away_from_the_start(small_network(name)).eval()
    height, width = legal_sizes(network)[0]
    rainy = random_image(2, max(height, 80), width)  # high enough for more than one strip
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
    """Fourier parts, norms and softmaxes that need float32 take it by themselves."""
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
    """No tensor is made on a device of its own choosing, and no value decides the way."""
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


# The published networks against the authors' own figures


def test_every_golden_file_is_of_a_network_and_every_published_network_has_one() -> None:
    assert {*GOLDEN_CHECKPOINTS, *GOLDEN_OUTPUTS} <= set(NETWORKS)
    with_golden = {NETWORKS[name][0] for name in GOLDEN_OUTPUTS}
    assert FORMS.keys() == with_golden


@pytest.mark.parametrize("name", GOLDEN_CHECKPOINTS)
def test_names_and_shapes_are_those_of_the_published_checkpoint(name: str) -> None:
    with torch.device("meta"):
        ours = to_published(build_model(name))
    assert {key: list(value.shape) for key, value in ours.items()} == read_json(f"{name}_keys.json")


@pytest.mark.parametrize("name", GOLDEN_CHECKPOINTS)
def test_outputs_are_those_of_the_release(name: str, tmp_path) -> None:
    """Through the file that an author would hand over, with the prefix of parallel training."""
    weights = {f"module.{key}": value for key, value in golden_weights(name).items()}
    key = "net" if name == "dcsfn" else "state_dict"
    torch.save({key: weights, "clock_net": 3}, tmp_path / "published.pth")
    network = load_published(name, tmp_path / "published.pth")
    golden, order = read_arrays(f"{name}_forward.npz"), golden_order(name)
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


# Typed from the specs of the releases: multiple of H and W, least side, the window that the
# release cuts test images into, and the tile that our measurements prefer (for DMSR alone: its
# batch norms of spectra hold statistics of patches).
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
    with pytest.raises(UserError, match="must be even"):
        build_model("dmsr_s", {"width": 7})


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
    """By an exception, not an assert, which ``python -O`` removes."""
    before = dict(NETWORKS)
    network_class, config = NETWORKS["dmsr"]
    with pytest.raises(ValueError, match="'dmsr' is the name of two"):
        register(network_class, {"a_new_name": config, "dmsr": config})
    assert before == NETWORKS
