"""Images of any size and type, tiles without seams, running out of memory, options."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers import random_image, smooth_image
from utils.errors import UserError
from utils.inference.options import RestoringOptions
from utils.inference.restorer import CPU_TILE_PIXELS, Restorer
from utils.inference.tiling import Grid, Tile, blended_spans, window_spans


class Identity:
    """Returns its input and records its height and width."""

    size_multiple = 16
    min_size = 64
    tile_step = 32
    released_window = 128
    best_tile = None

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def restore(self, rainy: Tensor) -> Tensor:
        height, width = rainy.shape[-2:]
        assert height % 16 == 0 and width % 16 == 0 and min(height, width) >= 64
        self.sizes.append((height, width))
        return rainy


class Mean(Identity):
    """The most global network: returns the mean colour of its input."""

    def restore(self, rainy: Tensor) -> Tensor:
        super().restore(rainy)
        return rainy.mean((2, 3), keepdim=True).expand_as(rainy)


KERNEL = torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6, 5]).reshape(1, 1, 3, 3).repeat(3, 1, 1, 1) / 36


class Blur(Identity):
    """A local network with zero padding."""

    def restore(self, rainy: Tensor) -> Tensor:
        super().restore(rainy)
        return F.conv2d(rainy, KERNEL, padding=1, groups=3)


def cpu_is_full() -> RuntimeError:
    """The error that PyTorch's CPU allocator raises."""
    return RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")


class SmallMemory(Blur):
    """A network that runs out of memory above ``pixels``."""

    def __init__(
        self, pixels: int, error: Callable[[], Exception] = torch.OutOfMemoryError
    ) -> None:
        super().__init__()
        self.pixels, self.error = pixels, error

    def restore(self, rainy: Tensor) -> Tensor:
        restored = super().restore(rainy)
        if rainy.shape[-2] * rainy.shape[-1] > self.pixels:
            raise self.error()
        return restored


SIZES = [(1, 1), (1, 9), (7, 3), (64, 64), (65, 200), (130, 97)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [(), (3,), (4,)], ids=["gray", "rgb", "rgba"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_an_identity_network_returns_every_size_and_type_unchanged(
    height: int, width: int, channels: tuple[int, ...], dtype: type
) -> None:
    image = random_image((height, width, *channels), dtype)
    for tile in ("whole", "auto", "released", 64, "64x96"):
        restored = Restorer(Identity(), tile=tile)(image)
        assert restored.dtype == dtype
        np.testing.assert_allclose(restored, image, atol=1e-6 if np.dtype(dtype).kind == "f" else 0)


def test_gray_is_averaged_over_the_three_channels() -> None:
    class Tint(Identity):
        def restore(self, rainy: Tensor) -> Tensor:
            return rainy + torch.tensor([0.0, 0.1, 0.2]).reshape(3, 1, 1)

    gray = np.full((70, 70), 100, np.uint8)
    assert np.unique(Restorer(Tint())(gray)).tolist() == [round(100 + 0.1 * 255)]


def test_results_are_clipped_and_rounded() -> None:
    class Shift(Identity):
        def restore(self, rainy: Tensor) -> Tensor:
            return rainy + 0.6 / 255

    image = np.array([[[0, 254, 255]]], np.uint8)
    assert Restorer(Shift())(image).tolist() == [[[1, 255, 255]]]


def test_alpha_does_not_reach_the_network() -> None:
    image = np.dstack([smooth_image(0, 64, 64), np.zeros((64, 64), np.uint8)])
    restored = Restorer(Mean())(image)
    assert (restored[..., 3] == 0).all()
    assert restored[0, 0, :3].tolist() == np.rint(image[..., :3].mean((0, 1))).tolist()


def test_tiles_of_a_local_network_equal_the_whole_image() -> None:
    image = random_image((300, 333, 3), np.float32)
    whole = Restorer(Blur(), tile="whole")(image)
    tiled = Restorer(Blur(), tile=96, overlap=32)(image)
    # Only a tile's outermost pixels see its zero padding, and their blending weight is almost 0.
    assert np.abs(tiled - whole).max() < 2e-3
    hard = Restorer(Blur(), tile=96, overlap=0)(image)
    assert np.abs(hard - whole).max() > 0.1


@pytest.mark.parametrize("tile", ["whole", 64, 96, "released"])
def test_constant_images_stay_constant(tile: int | str) -> None:
    image = np.full((210, 333, 3), (3, 77, 255), np.uint8)
    assert (Restorer(Mean(), tile=tile)(image) == image).all()


def test_no_step_at_the_borders_of_tiles() -> None:
    """On a gradient, neighbouring tiles have means that differ far more than adjacent pixels."""
    slope = np.linspace(0, 1, 640, dtype=np.float32)
    image = np.repeat(np.broadcast_to(slope[:, None], (640, 640))[..., None], 3, 2).copy()
    restored = Restorer(Mean(), tile=128, overlap=64)(image)
    steps = np.abs(np.diff(restored[:, 0, 0]))
    borders = [edge for span in blended_spans(640, 128, 64, 32) for edge in (span.start, span.stop)]
    at_borders = np.mean([steps[edge - 1] for edge in borders if 0 < edge < 640])
    beside = np.mean([steps[edge - 1 + k] for edge in borders if 0 < edge < 640 for k in (-4, 4)])
    assert at_borders <= beside
    assert steps.max() < 0.01
    windows = Restorer(Mean(), tile="released")(image)
    assert np.abs(np.diff(windows[:, 0, 0])).max() > 0.1


def test_released_windows() -> None:
    """Placed side by side from the top left; the last ones touch the edge and fill the rest."""
    image = random_image((300, 200, 3), np.float32)
    network = Mean()
    restored = Restorer(network, tile="released")(image)
    assert network.sizes == [(128, 128)] * 6
    # Start and stop of the part used in the result, and of the window in the image.
    rows = ((0, 128, 0, 128), (128, 256, 128, 256), (256, 300, 172, 300))
    columns = ((0, 128, 0, 128), (128, 200, 72, 200))
    for (top, bottom, *window_rows), (left, right, *window_columns) in product(rows, columns):
        part = restored[top:bottom, left:right]
        mean = image[slice(*window_rows), slice(*window_columns)].mean((0, 1))
        np.testing.assert_allclose(part, np.broadcast_to(mean, part.shape), atol=1e-5)
    assert [span.start for span in window_spans(256, 128)] == [0, 128]
    assert [(span.start, span.stop) for span in window_spans(100, 128)] == [(0, 128)]


def test_a_network_without_released_window_takes_whole_images() -> None:
    class WholeImages(Identity):
        released_window = None

    network = WholeImages()
    Restorer(network, tile="released")(smooth_image(0, 200, 300))
    assert network.sizes == [(208, 304)]


def test_memory_is_bounded_by_the_tile() -> None:
    network = Identity()
    done = []
    restorer = Restorer(network, tile=128, progress=lambda *step: done.append(step))
    restorer(smooth_image(0, 500, 900))
    assert set(network.sizes) == {(128, 128)}
    assert done == [(i, len(network.sizes)) for i in range(len(network.sizes) + 1)]


def test_tiles_are_used_if_the_image_does_not_fit() -> None:
    image = smooth_image(0, 900, 800)
    expected = Restorer(Blur(), tile="whole")(image)
    for memory, fits in ((8 * 2**30, True), (2**29 + 18 * 2**20, False)):
        network, messages = Blur(), []
        restored = Restorer(network, memory=memory, notify=messages.append)(image)
        network.sizes.pop(0)  # the probe
        (tile,) = set(network.sizes)
        assert len(messages) == (not fits)
        if fits:
            assert CPU_TILE_PIXELS / 2 < tile[0] * tile[1] <= CPU_TILE_PIXELS
        else:
            # Blur holds the tile and its result: 24 bytes per pixel, counted twice.
            assert messages[0].endswith(f"taking tiles of {tile[1]} x {tile[0]}.")
            room = memory - 2**29 - 5 * image.nbytes
            assert room / 4 < tile[0] * tile[1] * 48 <= room
        assert np.abs(restored.astype(int) - expected).max() <= 1


def test_an_image_not_larger_than_a_tile_is_not_divided() -> None:
    network = Blur()
    Restorer(network)(smooth_image(0, 321, 481))
    assert network.sizes[1:] == [(336, 496)]


def test_a_chosen_tile_is_reported_once_per_image_size() -> None:
    messages = []
    restorer = Restorer(Blur(), memory=2**29 + 18 * 2**20, notify=messages.append)
    for seed, height in ((0, 900), (1, 900), (2, 896)):
        restorer(smooth_image(seed, height, 800))
    assert [line.split(" pixels")[0] for line in messages] == ["800 x 900", "800 x 896"]


def test_without_memory_for_the_probe_the_smallest_tiles_are_used() -> None:
    network, image = SmallMemory(100 * 100), smooth_image(3, 300, 300)
    restored = Restorer(network, notify=lambda line: None)(image)
    assert set(network.sizes[1:]) == {(64, 64)}  # after the probe
    assert np.abs(restored.astype(int) - Restorer(Blur(), tile="whole")(image)).max() <= 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, cpu_is_full])
@pytest.mark.parametrize("tile", ["whole", "auto", 512])
def test_out_of_memory_halves_the_tile(tile: int | str, error: Callable[[], Exception]) -> None:
    image = smooth_image(3, 500, 700)
    network, messages = SmallMemory(200 * 200, error), []
    restorer = Restorer(network, tile=tile, notify=messages.append)
    expected = Restorer(Blur(), tile="whole")(image)
    assert np.abs(restorer(image).astype(int) - expected).max() <= 1
    assert messages and "out of memory" in messages[-1]
    assert max(height * width for height, width in network.sizes[-5:]) <= 200 * 200
    # The next image starts with the tile that fitted.
    network.sizes.clear()
    num_messages = len(messages)
    restorer(image)
    assert max(height * width for height, width in network.sizes) <= 200 * 200
    assert len(messages) == num_messages


@pytest.mark.parametrize("tile", ["whole", 64, "released"])
def test_out_of_memory_at_the_smallest_tile_is_one_sentence(tile: int | str) -> None:
    restorer = Restorer(SmallMemory(1000), tile=tile, notify=lambda line: None)
    with pytest.raises(UserError, match="take --device cpu"):
        restorer(smooth_image(3, 200, 200))


class Knight(Identity):
    """Shifts by (1, 2) like a chess knight: only rotations with flips average this out."""

    def restore(self, rainy: Tensor) -> Tensor:
        return rainy.roll((1, 2), dims=(2, 3))


def test_ensemble_averages_over_the_eight_symmetries() -> None:
    image = random_image((64, 80, 3), np.float32)
    single, ensemble = Restorer(Knight()), Restorer(Knight(), ensemble=8)
    expected = np.mean(
        [
            np.rot90(single(np.rot90(x, turns).copy()), -turns)[:, :: -1 if flip else 1]
            for flip in (False, True)
            for x in [image[:, :: -1 if flip else 1]]
            for turns in range(4)
        ],
        axis=0,
    )
    np.testing.assert_allclose(ensemble(image), expected, atol=1e-6)
    assert np.abs(single(image) - expected).max() > 0.05


def test_bf16_computes_in_bfloat16_and_is_close_to_float32() -> None:
    image = smooth_image(5, 64, 64).astype(np.float32) / 255
    error = np.abs(Restorer(Blur(), precision="bf16")(image) - Restorer(Blur())(image)).max()
    assert 1e-4 < error < 1e-2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tile": 63}, "at least 64"),
        ({"tile": "windows"}, "auto, whole, released, a number"),
        ({"tile": 128, "overlap": 65}, "0 to 64"),
        ({"overlap": -1}, "may not be negative"),
        ({"ensemble": 4}, "1 or 8"),
        ({"precision": "fp8"}, "float32, bf16, fp16"),
        ({"precision": "fp16"}, "fp16 is for GPUs"),
        ({"strength": -0.1}, "0 to 1"),
    ],
)
def test_impossible_options_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Restorer(Identity(), **options)


def test_a_network_with_a_best_tile_gets_tiles_of_about_that_size() -> None:
    class Bound(Blur):
        best_tile = 128
        tile_step = 16

    network, image = Bound(), smooth_image(7, 321, 481)
    restored = Restorer(network)(image)
    (size,) = set(network.sizes)
    assert 0.75 * 128**2 <= size[0] * size[1] <= 1.25 * 128**2
    # Hardly more pixels than the 12 windows of 128 that its authors compute.
    assert len(network.sizes) * size[0] * size[1] <= 1.05 * 12 * 128**2
    whole = Restorer(Bound(), tile="whole")(image)
    assert np.abs(restored.astype(int) - whole).max() <= 1
    network.sizes.clear()
    Restorer(network, tile="whole")(image)
    assert len(network.sizes) == 1


def test_tiles_in_batches_give_the_same_image() -> None:
    class ThreeAtATime(Restorer):  # as on a GPU
        def _tiles_at_a_time(self, grid: Grid) -> int:
            return 3

    image = smooth_image(6, 300, 500)
    done = []
    batched = ThreeAtATime(Blur(), tile=96, progress=lambda *step: done.append(step))(image)
    np.testing.assert_array_equal(batched, Restorer(Blur(), tile=96)(image))
    assert done[:4] == [(number, done[0][1]) for number in (0, 3, 6, 8)]
    assert done[-1][0] == done[-1][1]


class Reads(TorchDispatchMode):
    """Counts reads of values from tensors, each of which would synchronise a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        name = str(function).split(".")[1]
        self.count += name in ("is_nonzero", "item", "_local_scalar_dense")
        return function(*args, **(kwargs or {}))


def test_the_device_is_waited_for_only_once_per_image() -> None:
    restorer = Restorer(Blur(), tile=64, ensemble=8, strength=0.5)
    image = smooth_image(6, 300, 500)
    restorer(image)
    for many in (image, image[..., 0], image.astype(np.uint16), image.astype(np.float32) / 255):
        with Reads() as reads:
            restorer(many)
        assert reads.count == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 66, 70), (3, 66, 70), (4, 66, 70), (2, 3, 66, 70)])
def test_tensors_have_their_channels_first(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    largest = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * largest
    rainy = values.to(dtype)
    restored = Restorer(Blur())(rainy)
    assert (restored.shape, restored.dtype) == (rainy.shape, rainy.dtype)
    for one, other in zip(
        rainy.reshape(-1, *shape[-3:]), restored.reshape(-1, *shape[-3:]), strict=True
    ):
        array = one.permute(1, 2, 0).numpy()
        expected = Restorer(Blur())(np.ascontiguousarray(array))
        np.testing.assert_array_equal(other.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 8), np.int64),
        np.zeros((8, 8), bool),
        torch.zeros(8, 8),
        torch.zeros(3, 8, 8, dtype=torch.float16),
        torch.zeros(2, 8, 8),
        torch.zeros(8, 8, 3),
        torch.zeros(3, 0, 8),
        torch.zeros(0, 3, 8, 8),
        torch.zeros(3, 8, 8).to_sparse(),
        torch.zeros(3, 8, 8, device="meta"),
        torch.nested.nested_tensor([torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)]),
        np.ma.masked_array(np.zeros((8, 8)), mask=True),
        [[0.5]],
        None,
    ],
    ids=lambda image: str(image)[:40],
)
def test_what_is_not_an_image_is_refused_in_one_sentence(image: object) -> None:
    with pytest.raises(UserError, match=r"is not an image; it must hold uint8") as messages:
        Restorer(Identity())(image)
    assert "\n" not in str(messages.value)
    if isinstance(image, torch.Tensor) and not image.is_nested:
        assert f"A Tensor of {image.dtype} and shape {tuple(image.shape)}" in str(messages.value)


@pytest.mark.parametrize(
    "odd",
    [
        lambda image: image[::-1, ::-1],
        lambda image: image.swapaxes(0, 1),
        lambda image: np.asfortranarray(image),
        lambda image: image[::2, ::3],
        lambda image: np.broadcast_to(image[:1], image.shape),
        lambda image: np.frombuffer(b"0" + image.tobytes(), "u1")[1:].view("f4").reshape(70, 90, 3),
        lambda image: image.astype(">f4"),
        lambda image: np.matrix(image[..., 0]),
        lambda image: torch.from_numpy(image).permute(2, 1, 0),
        lambda image: torch.from_numpy(image[:1]).permute(2, 0, 1).expand(3, 70, 90),
        lambda image: torch.from_numpy(image).permute(2, 0, 1)[:, ::2, ::3],
        lambda image: torch.from_numpy(image).permute(2, 0, 1)[None].requires_grad_(),
    ],
)
def test_the_memory_layout_of_an_image_does_not_matter(odd: Callable) -> None:
    image = odd(random_image((70, 90, 3), np.float32))
    before = np.array(image.detach().numpy() if isinstance(image, torch.Tensor) else image)
    restored = Restorer(Identity(), tile=64)(image)
    assert restored.shape == image.shape
    after = restored.numpy() if isinstance(restored, torch.Tensor) else restored
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_in_images_are_refused(value: float) -> None:
    image = np.full((8, 8), 0.5)
    image[3, 4] = value
    with pytest.raises(UserError, match="NaN or infinite"):
        Restorer(Identity())(image)


def test_values_outside_0_to_1_are_reported_and_clipped() -> None:
    messages = []
    image = np.array([[-0.5, 0.5, 3.0]], np.float32)
    restored = Restorer(Identity(), notify=messages.append)(image)
    assert restored.tolist() == [[0, 0.5, 1]]
    assert messages == ["The image holds values from -0.5 to 3; those outside 0 to 1 are clipped."]


def test_strength_blends_result_and_input() -> None:
    image = random_image((70, 80, 3), np.float64)
    full = Restorer(Blur())(image)
    for strength in (0, 0.3, 1):
        blended = Restorer(Blur(), strength=strength, tile=64)(image)
        expected = image + strength * (full - image)
        np.testing.assert_allclose(blended[:-1, :-1], expected[:-1, :-1], atol=2e-3)
        np.testing.assert_allclose(
            Restorer(Blur(), strength=strength)(image), image + strength * (full - image), atol=1e-6
        )


def test_nan_and_infinity_in_results_are_refused() -> None:
    class Broken(Identity):
        def restore(self, rainy: Tensor) -> Tensor:
            return rainy / 0

    with pytest.raises(UserError, match=r"float32 is NaN or infinite; are these"):
        Restorer(Broken())(np.zeros((8, 8), np.uint8))


def test_other_errors_of_a_network_are_not_taken_for_out_of_memory() -> None:
    with pytest.raises(RuntimeError, match="another"):
        Restorer(SmallMemory(0, lambda: RuntimeError("another")))(np.zeros((8, 8), np.uint8))


class Normed(nn.Module):
    """In training mode its batch norms would use the image's statistics and update their own."""

    size_multiple = min_size = tile_step = 1
    released_window = best_tile = None

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval()
        self.norm.running_mean.fill_(0.25)

    def restore(self, rainy: Tensor) -> Tensor:
        return self.frozen(self.norm(rainy))


@pytest.mark.parametrize("training", [True, False])
def test_the_network_runs_in_eval_mode_and_keeps_its_mode(training: bool) -> None:
    network = Normed().train(training)
    network.frozen.eval()
    image = np.full((8, 8, 3), 0.75, np.float32)
    restored = Restorer(network)(image)
    np.testing.assert_allclose(restored, np.full_like(image, 0.5), atol=1e-4)  # 0.75 - 0.25
    assert [module.training for module in network.modules()] == [training, training, False]
    assert network.norm.running_mean.tolist() == [0.25] * 3
    with pytest.raises(UserError):
        Restorer(network)(image * np.nan)
    assert network.training == training


def test_options_by_name_or_as_one_object() -> None:
    image = smooth_image(2, 150, 170)
    options = RestoringOptions(tile="96x64", overlap=20, strength=0.75)
    expected = Restorer(Blur(), options)(image)
    named = Restorer(Blur(), tile="96x64", overlap=20, strength=0.75)
    np.testing.assert_array_equal(named(image), expected)
    assert named.options.tile.height == 96 and named.options.device == torch.device("cpu")
    changed = Restorer(Blur(), options, strength=0)
    np.testing.assert_array_equal(changed(image), image)
    with pytest.raises(TypeError, match="tiles"):
        Restorer(Blur(), tiles=96)


def test_replaced_options_apply_from_the_next_image_on() -> None:
    image = smooth_image(2, 150, 170)
    restorer = Restorer(Blur(), tile=96, overlap=40)
    restorer(image)
    for changes in ({"overlap": 0}, {"tile": Tile.parse(64)}, {"strength": 0.25}):
        restorer.options = replace(restorer.options, **changes)
        expected = Restorer(Blur(), restorer.options)(image)
        np.testing.assert_array_equal(restorer(image), expected)


def test_settings_include_everything_that_affects_the_pixels() -> None:
    size = (300, 400)
    options = {"tile": 96, "overlap": 20, "ensemble": 1, "strength": 0.75, "precision": "float32"}
    settings = Restorer(Blur(), **options).settings_for(*size)
    assert settings == Restorer(Blur(), **options, memory=2**33).settings_for(*size)
    others = {"tile": 128, "overlap": 24, "ensemble": 8, "strength": 0.5, "precision": "bf16"}
    for name, value in others.items():
        restorer = Restorer(Blur(), **{**options, name: value}, notify=lambda line: None)
        assert restorer.settings_for(*size) != settings, name
    auto = Restorer(Blur(), memory=2**29 + 40 * 2**20, notify=lambda line: None)
    assert auto.settings_for(900, 800) != Restorer(Blur()).settings_for(900, 800)  # other tiles


def test_numpy_scalars_are_accepted_as_numbers() -> None:
    image = smooth_image(2, 150, 170)
    options = {"tile": 96, "overlap": 20, "ensemble": 8, "strength": 0.75, "memory": 2**30}
    types = (np.int64, np.int32, np.int16, np.float32, np.float64)
    given = {name: kind(value) for (name, value), kind in zip(options.items(), types, strict=True)}
    np.testing.assert_array_equal(
        Restorer(Blur(), **given)(image), Restorer(Blur(), **options)(image)
    )


def test_a_restorer_can_be_pickled() -> None:
    """torch.multiprocessing and joblib pickle it for their processes."""
    image = smooth_image(2, 150, 170)
    restorer = Restorer(Blur(), tile=96)
    expected = restorer(image)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(restorer))(image), expected)


def test_tiles_are_blended_before_they_are_clipped() -> None:
    """Clipped first, 1.5 of one tile and 0.3 of the other would be 0.65 in the middle, not 0.9."""

    class Bright(Identity):
        tile_step = 16

        def restore(self, rainy: Tensor) -> Tensor:
            super().restore(rainy)
            return torch.full_like(rainy, 1.5 if rainy.max() > 0.5 else 0.3)

    image = np.zeros((64, 96, 3), np.float32)
    image[:, 64:] = 1  # covered by the second tile only
    restored = Restorer(Bright(), tile=64, overlap=32)(image)
    weight = 0.5 - 0.5 * np.cos(np.pi * (np.arange(32) + 0.5) / 32)  # weight of the second tile
    expected = np.minimum(0.3 * (1 - weight) + 1.5 * weight, 1)
    np.testing.assert_allclose(restored[7, :32, 1], 0.3, atol=1e-6)
    np.testing.assert_allclose(restored[7, 32:64, 1], expected, atol=1e-6)
    np.testing.assert_allclose(restored[7, 64:, 1], 1)


def test_the_memory_of_four_gib() -> None:
    """Half a GiB for the process, five images, and twice the bytes that Blur holds."""
    messages = []
    plan = Restorer(Blur(), notify=messages.append)._memory
    assert plan.bytes_per_pixel == 2 * 24  # the image and its result, three float32 channels each
    assert plan.pixels(0) == (4 * 1024**3 - 1024**3 / 2) / 48
    assert plan.pixels(10**8) == (4 * 1024**3 - 1024**3 / 2 - 5 * 10**8) / 48
    assert Restorer(Blur(), memory=3 * 1024**3)._memory.pixels(0) == 2.5 * 1024**3 / 48
