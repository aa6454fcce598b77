"""Rain drawn while loading: what a sample depends on, shares, and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from configs import load_config
from data.datasets import Draw
from data.loaders import Loaders, build_loaders
from data.synthesis import (
    Mixture,
    SceneVariety,
    SyntheticPatches,
    find_layers,
    hold_out,
    layers_of,
    make_rainy,
    read_layers,
)
from data.transforms import Augmentation
from tests.helpers import ROOT, smooth_image, write_damaged_jpeg, write_pairs
from utils.errors import UserError
from utils.images import write_png

PLAIN = Augmentation(geometry="none")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five photographs of different sizes; the darkest is the first."""
    for index in range(5):
        image = smooth_image(index, 60 + index, 90 - index) // 2
        write_png(tmp_path / "photos" / f"{index}.png", image)
    return tmp_path / "photos"


def patches(photos: Path, mixture: Mixture, seed: int = 0, **varied: float) -> SyntheticPatches:
    """With one layer that is 0.2 everywhere and one crop that is 0.1 everywhere."""
    return SyntheticPatches(
        sorted(photos.iterdir()),
        [np.full((70, 80), 0.2, np.float32)],
        mixture,
        PLAIN,
        seed,
        variety=SceneVariety(**varied),
        crops=[np.full((64, 64), 0.1, np.float32)],
    )


def load(photos: Path, *settings: object, **processes: int) -> Loaders:
    base = ["DATA.VAL", "", "DATA.WORKERS", 0, "DATA.SYNTHESIS.CLEAN", photos]
    base += ["OPTIM.BATCH_SIZE", 2, "AUGMENT.PATCH", 32, "DATA.REPEAT", 2]
    words = [str(word) for word in (*base, *settings)]
    return build_loaders(load_config(ROOT / "training.yml", words), **processes)


def epoch(loaders: Loaders, number: int, step: int = 0) -> list[tuple[Tensor, ...]]:
    loaders.sampler.set_epoch(number, patch=32, batch_size=2, first_step=step)
    return [(rainy, clean) for rainy, clean, _ in loaders.train]


def same(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_sample_depends_on_seed_epoch_and_number_alone(photos: Path) -> None:
    def sample(seed: int, number: int, index: int) -> tuple[Tensor, ...]:
        return patches(photos, Mixture(), seed=seed)[Draw(number, index, 32)][:2]

    once = sample(0, 1, 3)
    assert same(once, sample(0, 1, 3))
    for other in (sample(1, 1, 3), sample(0, 2, 3), sample(0, 1, 8)):
        assert not torch.equal(once[0], other[0])


def test_the_same_photograph_never_meets_the_same_rain(photos: Path) -> None:
    # patches as large as the photograph: every time the same scene, but other rain
    write_png(photos / "0.png", smooth_image(0, 32, 32) // 2)
    drawn = patches(photos, Mixture())
    samples = [drawn[Draw(number, 0, 32)] for number in range(1, 6)]
    for index, (rainy, clean, which) in enumerate(samples):
        assert which == 0
        for earlier_rainy, earlier_clean, _ in samples[:index]:
            assert torch.equal(clean, earlier_clean) and not torch.equal(rainy, earlier_rainy)


def test_a_resumed_epoch_and_two_processes_see_the_same_patches(photos: Path) -> None:
    whole = epoch(load(photos), 3)
    assert len(whole) == 5
    for resumed, undisturbed in zip(epoch(load(photos), 3, step=2), whole[2:], strict=True):
        assert same(resumed, undisturbed)
    shares = [epoch(load(photos, rank=rank, world_size=2), 3) for rank in range(2)]
    for first, second, both in zip(*shares, whole, strict=True):
        parts = tuple(torch.cat(pair) for pair in zip(first, second, strict=True))
        assert same(parts, both)


def test_loader_processes_draw_what_one_process_draws(photos: Path) -> None:
    for one, other in zip(
        epoch(load(photos), 1), epoch(load(photos, "DATA.WORKERS", 2), 1), strict=True
    ):
        assert same(one, other)


def test_downpours_are_a_share_of_the_synthetic_rain(photos: Path) -> None:
    def wetness(share: float) -> float:
        drawn = patches(photos, Mixture(downpours=share, fixed={"veil": 0.0}))
        gains = [drawn[Draw(1, index, 32)] for index in range(60)]
        return float(
            np.median([(rainy - clean > 0.04).float().mean() for rainy, clean, _ in gains])
        )

    assert wetness(1) > 0.7 > wetness(0)


def test_harvested_rain_has_its_share(photos: Path) -> None:
    """An even crop brightens an even scene evenly."""
    for path in photos.iterdir():
        write_png(path, np.full((60, 60, 3), 51, np.uint8))
    mixture = Mixture(harvested=0.3, dry=0.25, light=0.1, layers=0.35, fixed={"density": 0.3})
    drawn = patches(photos, mixture)
    harvested = dry = layers = 0
    for index in range(240):
        rainy, clean, _ = drawn[Draw(1, index, 24)]
        gain = (rainy.int() - clean.int()).float()
        even = gain.min() > 0 and np.ptp(gain.numpy()) <= 1.5
        dry += bool((gain == 0).all())
        # the layer is varied from 0.6 to 1.25 times 51; light rain of it stays below 17
        layers += bool(even and 29 < gain.mean() < 66 and gain.mean() == gain.flatten()[0])
        harvested += bool(even)
    assert dry / 240 == pytest.approx(0.25, abs=0.07)
    # even: harvested, layers, and light rain of layers
    assert harvested / 240 == pytest.approx(0.3 + 0.35 + 0.1 * 0.35 / 0.45, abs=0.07)


def test_all_shares_at_once_are_as_configured(photos: Path) -> None:
    """Light rain is recognised by its PSNR, layers because they are even, dry pairs by both."""
    for path in photos.iterdir():
        write_png(path, np.full((60, 60, 3), (30, 20, 45), np.uint8))
    heavy = {"density": 1.0, "brightness": 0.7, "veil": 0.0, "unevenness": 0.0, "screen": 0.0}
    mixture = Mixture(layers=0.4, light=0.25, dry=0.15, fixed=heavy)
    drawn = patches(photos, mixture, relit=0.35)
    counts = dict.fromkeys(("dry", "light", "layers", "synthetic", "relit"), 0)
    for index in range(400):
        rainy, clean, _ = drawn[Draw(1, index, 48)]
        counts["relit"] += clean[:, 0, 0].tolist() != [30, 20, 45]
        gain = (rainy.int() - clean.int()).float()
        psnr = 10 * np.log10(255**2 / max(float(gain.square().mean()), 1e-9))
        even = np.ptp(gain.numpy()) <= 1.5
        kind = "dry" if psnr > 80 else "light" if psnr > 23 else "layers" if even else "synthetic"
        counts[kind] += 1
    expected = {"dry": 0.15, "light": 0.25, "layers": 0.4, "synthetic": 0.2, "relit": 0.35}
    for kind, share in expected.items():
        assert counts[kind] / 400 == pytest.approx(share, abs=0.06), counts


def test_faint_rain_is_a_share_of_the_synthetic_rain(photos: Path) -> None:
    """Fine and soft rain is fainter in the middle: half of it adds less than 18 gray levels."""
    for path in photos.iterdir():
        write_png(path, np.full((60, 60, 3), 20, np.uint8))

    def peaks(share: float) -> float:
        fixed = {"veil": 0.0, "density": 0.3, "num_layers": 1}
        drawn = patches(photos, Mixture(faint=share, fixed=fixed))
        samples = [drawn[Draw(1, index, 48)] for index in range(60)]
        return float(
            np.median([int((rainy.int() - clean.int()).max()) for rainy, clean, _ in samples])
        )

    assert peaks(0.0) > 1.6 * peaks(1.0)


def test_dim_scenes_are_darkened_for_both_images(photos: Path) -> None:
    plain, dim = patches(photos, Mixture(dry=1)), patches(photos, Mixture(dry=1), dim=1.0)
    for index in range(20):
        rainy, clean, _ = dim[Draw(1, index, 32)]
        assert torch.equal(rainy, clean)
        before = plain[Draw(1, index, 32)][1].float()
        assert clean.float().std() < 0.85 * before.std()


def test_processing_changes_both_images_after_the_rain(photos: Path) -> None:
    mixture = Mixture(dry=0.5)
    plain, processed = patches(photos, mixture), patches(photos, mixture, processed=1.0)
    changed = 0
    for index in range(40):
        rainy, clean, _ = processed[Draw(1, index, 32)]
        rainy_before, clean_before, _ = plain[Draw(1, index, 32)]
        assert torch.equal(rainy, clean) or not torch.equal(rainy_before, clean_before)
        changed += not torch.equal(clean, clean_before)
    assert changed > 25


def test_rain_falls_downwards_whatever_the_scene_is_turned_to(photos: Path) -> None:
    for path in photos.iterdir():
        write_png(path, np.full((80, 80, 3), 40, np.uint8))
    fixed = {"angle": 0.0, "spread": 0.0, "density": 0.2, "veil": 0.0, "unevenness": 0.0}
    drawn = patches(photos, Mixture(fixed=fixed))
    drawn.augmentation = Augmentation(geometry="dihedral")
    for index in range(20):
        rainy = drawn[Draw(1, index, 64)][0][0].numpy()
        down, across = (np.abs(np.diff(rainy, axis=axis)).mean() for axis in (0, 1))
        assert down < across


def test_patterns_belong_to_the_scene_and_half_of_them_stay_dry(photos: Path) -> None:
    plain, drawn = patches(photos, Mixture()), patches(photos, Mixture(), patterns=1.0)
    changed = dry = 0
    for index in range(60):
        rainy, clean, _ = drawn[Draw(1, index, 32)]
        changed += not torch.equal(clean, plain[Draw(1, index, 32)][1])
        dry += torch.equal(rainy, clean)
    assert changed >= 57
    assert 18 <= dry <= 42


def test_16_bit_photographs_are_read(photos: Path) -> None:
    import cv2

    eight = smooth_image(3, 40, 40)
    cv2.imwrite(str(photos / "0.png"), eight.astype(np.uint16)[..., ::-1] * 257)
    clean = patches(photos, Mixture(dry=1))[Draw(1, 0, 40)][1]
    assert torch.equal(clean, torch.from_numpy(eight.transpose(2, 0, 1)))


def test_held_out_photographs_and_layers_are_left_out(photos: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", 10)
    synthesis = [f"DATA.SYNTHESIS.{key}" for key in ("LAYERS", "SHARE_LAYERS", "HOLD_OUT")]
    layers, share, held = synthesis
    every = load(photos, layers, pairs, share, 0.5)
    part = load(photos, layers, pairs, share, 0.5, held, 2)
    assert "5 photographs" in every.description and "10 layers" in every.description
    assert "3 photographs" in part.description and "8 layers" in part.description
    left_out = hold_out([str(i) for i in range(5)], 2)
    assert {pair.rainy.stem for pair in part.train_pairs} == {"0", "1", "2", "3", "4"} - left_out
    skipped = load(photos, layers, pairs, share, 0.5, "DATA.SYNTHESIS.SKIP_LAYERS", "['3']")
    assert "9 layers" in skipped.description


def test_damaged_photographs_and_layers_are_refused(photos: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", 2)
    layers = ["DATA.SYNTHESIS.LAYERS", pairs, "DATA.SYNTHESIS.SHARE_LAYERS", 0.5]
    load(photos, *layers)
    (pairs / "input" / "2.png").unlink()
    damaged = write_damaged_jpeg(pairs / "input" / "2.jpg", smooth_image(2, 72, 88))
    with pytest.raises(UserError, match=r"input/2\.jpg is damaged"):
        load(photos, *layers)
    shutil.move(damaged, photos / "5.jpg")
    with pytest.raises(UserError, match=r"photos/5\.jpg is damaged"):
        load(photos)


def test_a_folder_of_gray_images_holds_layers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (2, 30, 41), dtype=np.uint8)
    for name, gray in zip("ab", values, strict=True):
        write_png(tmp_path / "layers" / f"{name}.png", gray)
    pairs = find_layers(tmp_path / "layers", ["a"], "--skip-layers")
    (layer,) = read_layers(pairs)
    assert layer.dtype == np.float32
    assert np.array_equal(layer, values[1].astype(np.float32) / 255)
    # with a colour image among them, the folder is expected to hold pairs
    write_png(tmp_path / "layers" / "c.png", smooth_image(0, 30, 41))
    with pytest.raises(UserError, match="holds no pairs"):
        find_layers(tmp_path / "layers", [], "--skip-layers")


def test_harvested_crops_are_read_beside_the_layers_of_pairs(photos: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "crops" / "x_0.png", np.full((64, 64), 50, np.uint8))
    write_png(tmp_path / "crops" / "x_1.png", np.full((96, 96), 50, np.uint8))
    key = "DATA.SYNTHESIS."
    pairs = write_pairs(tmp_path / "pairs", 3)
    settings = [f"{key}HARVEST", tmp_path / "crops", f"{key}SHARE_HARVEST", 0.5]
    settings += [f"{key}LAYERS", pairs, f"{key}SHARE_LAYERS", 0.2, f"{key}SHARE_DIM", 0.3]
    found = load(photos, *settings)
    assert "3 layers, 2 crops of real rain and drawn rain on 5" in found.description
    # a resume compares everything that samples are drawn from
    assert [pair.rainy.stem for pair in found.layer_pairs] == ["1", "2", "3", "x_0", "x_1"]
    drawn = found.train.dataset
    assert isinstance(drawn, SyntheticPatches)
    assert [crop.shape for crop in drawn.crops] == [(64, 64), (96, 96)] and len(drawn.layers) == 3
    assert (drawn.mixture.harvested, drawn.mixture.layers, drawn.variety.dim) == (0.5, 0.2, 0.3)


def test_layers_of_training_and_validation_are_disjoint() -> None:
    layers = [np.full((2, 2), value, np.float32) for value in range(11)]
    train, val = ({int(x[0, 0]) for x in layers_of(part, layers)} for part in ("train", "val"))
    assert train | val == set(range(11)) and not train & val


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("DATA.SYNTHESIS.SHARE_LAYERS", 0.5), "go together"),
        (("DATA.SYNTHESIS.LAYERS", "somewhere"), "go together"),
        (("DATA.SYNTHESIS.HARVEST", "somewhere"), "SHARE_HARVEST above 0 go together"),
        (
            ("DATA.SYNTHESIS.SHARE_FAINT", 0.7, "DATA.SYNTHESIS.SHARE_DOWNPOURS", 0.4),
            "0.4 and 0.7 of downpours and of faint rain add up to more than 1",
        ),
        (("DATA.SYNTHESIS.HOLD_OUT", 5), "leaves none of the 5"),
        (("DATA.SYNTHESIS.SHARE_DRY", 0.95), "add up to more than 1"),
        (("DATA.SYNTHESIS.SHARE_DRY", 1.5), r"SHARE_DRY is 1\.5; it must be from 0 to 1"),
        (("DATA.SYNTHESIS.CLEAN", "/nowhere"), "nowhere"),
        (("OPTIM.BATCH_SIZE", 12), "gives 10 patches"),
    ],
)
def test_mistakes_get_one_sentence(photos: Path, settings: tuple, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load(photos, *settings)


def test_a_dry_mixture_returns_the_photograph() -> None:
    clean = smooth_image(0, 20, 30)
    assert make_rainy(clean, Mixture(dry=1), [], np.random.default_rng(0)) is clean


@pytest.mark.parametrize(
    ("seed", "mean", "moment", "following"),
    [
        (0, 36.017, 168332.0, 845480),
        (1, 23.659, 111409.7, 725875),
        (3, 0.0, 0.0, 179440),
        (4, 3.11, 17550.2, 500226),
        (5, 10.317, 42201.9, 454766),
        (11, 86.76, 453691.5, 368993),
    ],
)
def test_a_seed_gives_the_mixture_that_it_has_always_given(
    seed: int, mean: float, moment: float, following: int
) -> None:
    """Resumed trainings rely on it: figures of version 0.2.0."""
    clean = np.random.default_rng(9).integers(0, 200, (50, 60, 3), dtype=np.uint8)
    layer = np.outer(np.linspace(0.1, 0.4, 40), np.linspace(0, 1, 70)).astype(np.float32)
    mixture = Mixture(layers=0.3, light=0.2, dry=0.1, downpours=0.3, harvested=0.2, faint=0.3)
    rng = np.random.default_rng(seed)
    gain = make_rainy(clean, mixture, [layer], rng, [layer]).astype(float) - clean
    assert gain.mean() == pytest.approx(mean, abs=0.01)
    assert (gain.ravel() * np.arange(9000)).mean() == pytest.approx(moment, rel=1e-3)
    assert rng.integers(10**6) == following
