"""The order of training, its independence of processes, and the cache."""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from configs import load_config
from data.batches import PatchLoader, Prefetcher, to_unit_range, validation_loader
from data.cache import open_cache
from data.datasets import BatchSampler, DecodedPairs, Draw, Share, TrainingPatches, pair_of
from data.loaders import Loaders, build_loaders
from data.pairs import Pair, find_pairs
from data.settings import training_folders
from data.transforms import Augmentation
from tests.helpers import ROOT, smooth_image, write_pairs
from utils.errors import UserError
from utils.set_names import named_folders


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    return find_pairs(write_pairs(tmp_path / "pairs", 5))[1]


def sampler_of(
    num_samples: int, batch_size: int, *, patch: int = 16, seed: int = 0
) -> BatchSampler:
    """The sampler of the first epoch of one process."""
    sampler = BatchSampler(num_samples, seed, accumulate=1, rank=0, world_size=1)
    sampler.set_epoch(1, patch=patch, batch_size=batch_size)
    return sampler


def load(*settings: object, rank: int = 0, world_size: int = 1, **options: Path) -> Loaders:
    """The loaders of training.yml with other settings."""
    cfg = load_config(ROOT / "training.yml", ["DATA.WORKERS", "0", *map(str, settings)])
    return build_loaders(cfg, rank, world_size, **options)


def batches_of(epoch: int, step: int = 0, rank: int = 0, world: int = 1, passes: int = 1) -> list:
    sampler = BatchSampler(30, seed=7, accumulate=passes, rank=rank, world_size=world)
    sampler.set_epoch(epoch, patch=16, batch_size=8, first_step=step)
    assert len(list(sampler)) == len(sampler)
    return list(sampler)


def test_each_epoch_visits_samples_once_in_another_order() -> None:
    first, second = batches_of(1), batches_of(2)
    visited = [draw.number for batch in first for draw in batch]
    assert len(visited) == 24 == len(set(visited))  # three batches of 8; the last 6 are left out
    assert visited != sorted(visited)
    assert [d.number for b in second for d in b] != visited
    assert batches_of(1) == first


def test_processes_and_passes_share_each_batch() -> None:
    whole = batches_of(1)
    shares = [batches_of(1, rank=rank, world=2, passes=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        parts = [draw for share in shares for p in share[2 * step : 2 * step + 2] for draw in p]
        assert parts == batch


def test_a_resumed_epoch_continues_where_it_stopped() -> None:
    assert batches_of(3, step=2) == batches_of(3)[2:]


def test_a_sample_depends_only_on_seed_epoch_and_number(pairs) -> None:
    def sample(seed: int, epoch: int, index: int) -> torch.Tensor:
        twice = [Share(0, len(pairs), 2 * len(pairs))]
        patches = TrainingPatches(DecodedPairs(pairs), Augmentation(), seed, twice)
        return patches[Draw(epoch, index, 32)][0]

    once = sample(0, 1, 3)
    assert torch.equal(once, sample(0, 1, 3))
    assert not torch.equal(once, sample(0, 2, 3))
    assert not torch.equal(once, sample(1, 1, 3))
    assert not torch.equal(once, sample(0, 1, 3 + len(pairs)))  # the same pair, drawn again


def test_workers_deliver_what_one_process_does(pairs) -> None:
    patches = TrainingPatches(DecodedPairs(pairs), Augmentation(), 0, [Share(0, 5, 10)])
    one, two = (PatchLoader(patches, sampler_of(10, 2, patch=32), workers) for workers in (0, 2))
    for (rainy, _, _), (expected, _, _) in zip(two, one, strict=True):
        assert torch.equal(rainy, expected)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("saturation", [0.0, 1.0])
def test_a_micro_batch_is_the_images_in_0_to_1(pairs, workers: int, saturation: float) -> None:
    """Whole square images as patches: each value is the file's divided by 255, uint8 or float."""
    images = [tuple(x[:64, :64] for x in pair.read_uint8()) for pair in pairs]
    # saturation by a factor of 1 changes nothing, but needs floats
    how = Augmentation(geometry="none", saturation_probability=saturation)
    patches = TrainingPatches(images, how, 0)
    ((rainy, clean, which),) = PatchLoader(patches, sampler_of(5, 5, patch=64), workers)
    assert sorted(which) == [0, 1, 2, 3, 4]
    # A quarter of the bytes travels if no augmentation needs floats.
    assert rainy.dtype == clean.dtype == (torch.float32 if saturation else torch.uint8)
    for side, batch in enumerate(map(to_unit_range, (rainy, clean))):
        assert batch.dtype == torch.float32
        expected = np.stack([images[i][side] for i in which]).transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(batch.numpy(), expected, rtol=0, atol=1e-6 * saturation + 1e-7)


def test_the_cache_holds_what_the_files_hold(pairs, tmp_path) -> None:
    cache = pickle.loads(pickle.dumps(open_cache(pairs, tmp_path / "cache")))  # as in a worker
    assert len(cache) == len(pairs)
    for pair, (rainy, clean) in zip(pairs, cache, strict=False):
        expected_rainy, expected_clean = pair.read_uint8()
        assert np.array_equal(rainy, expected_rainy) and np.array_equal(clean, expected_clean)


def test_the_cache_is_built_once_and_again_when_a_file_changes(pairs, tmp_path) -> None:
    open_cache(pairs, tmp_path / "cache")
    (pixels,) = (tmp_path / "cache").glob("*.uint8")
    built = pixels.stat().st_mtime_ns
    open_cache(pairs, tmp_path / "cache")
    assert pixels.stat().st_mtime_ns == built
    image = smooth_image(99, 72, 88)
    cv2.imwrite(str(pairs[2].rainy), image)
    os.utime(pairs[2].rainy, ns=(built + 10**9, built + 10**9))
    assert np.array_equal(open_cache(pairs, tmp_path / "cache")[2][0], image[..., ::-1])


def test_one_cache_serves_a_set_however_its_folder_is_called(pairs, tmp_path, monkeypatch) -> None:
    open_cache(pairs, tmp_path / "cache")
    (pixels,) = (tmp_path / "cache").glob("*.uint8")
    built = pixels.stat().st_mtime_ns
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("pairs")
    for folder in ("pairs", "link", "link/../pairs"):
        open_cache(find_pairs(Path(folder))[1], Path("cache"))
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cache").glob("*.uint8")] == [built]


def test_two_sets_of_equal_names_keep_a_cache_each(pairs, tmp_path) -> None:
    others = find_pairs(write_pairs(tmp_path / "others", 5, 40, 40))[1]
    open_cache(pairs, tmp_path / "cache")
    open_cache(others, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.uint8"))) == 2
    for some in (pairs, others):
        assert open_cache(some, tmp_path / "cache")[3][1].shape == some[3].read_uint8()[1].shape


def test_a_truncated_cache_is_rebuilt(pairs, tmp_path) -> None:
    open_cache(pairs, tmp_path / "cache")
    (pixels,) = (tmp_path / "cache").glob("*.uint8")
    pixels.write_bytes(pixels.read_bytes()[:-100])
    rainy, _ = open_cache(pairs, tmp_path / "cache")[4]
    assert np.array_equal(rainy, pairs[4].read_uint8()[0])


@pytest.mark.parametrize("content", ["", '{"version"', "[]", '{"shapes": 3}', '{"shapes": [[1]]}'])
def test_a_cut_index_of_the_cache_is_rebuilt(pairs, tmp_path, content: str) -> None:
    open_cache(pairs, tmp_path / "cache")
    (index,) = (tmp_path / "cache").glob("*.json")
    index.write_text(content)
    assert np.array_equal(open_cache(pairs, tmp_path / "cache")[0][1], pairs[0].read_uint8()[1])


def test_the_size_of_a_cache_is_printed_and_refused_if_the_disk_is_too_small(
    pairs, tmp_path, capsys, monkeypatch
) -> None:
    open_cache(pairs, tmp_path / "cache")
    assert "a cache of about 0.0 GiB in" in capsys.readouterr().out
    open_cache(pairs, tmp_path / "cache")
    assert not capsys.readouterr().out  # already built
    needed = 5 * 2 * 3 * 72 * 88
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match=r"cache of 5 pairs would take about 0\.0 GiB, and .* free"):
        open_cache(pairs, tmp_path / "other")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=needed))
    open_cache(pairs, tmp_path / "other")


def test_processes_that_start_together_build_one_cache(pairs, tmp_path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        caches = list(pool.map(open_cache, [pairs] * 3, [tmp_path / "cache"] * 3))
    for cache in caches:
        assert np.array_equal(cache[1][1], pairs[1].read_uint8()[1])
    assert len(list((tmp_path / "cache").glob("*.uint8"))) == 1


def test_batches_that_cannot_be_made_are_refused(tmp_path) -> None:
    settings = ["DATA.TRAIN", write_pairs(tmp_path / "pairs", 3), "DATA.VAL", ""]
    with pytest.raises(UserError, match=r"gives 3 patches .* batch of 12 .*DATA\.REPEAT"):
        load(*settings)
    load(*settings, "DATA.REPEAT", 4)
    with pytest.raises(UserError, match=r"batches of 12; .* a multiple of 5"):
        load(*settings, "DATA.REPEAT", 4, world_size=5)
    with pytest.raises(UserError, match="must be one of dihedral"):
        load(*settings, "AUGMENT.GEOMETRY", "upside-down")


@pytest.mark.parametrize("cache", ["", "cache"])
@pytest.mark.parametrize("broken", ["train", "val"])
def test_a_broken_image_is_found_before_training(tmp_path, cache: str, broken: str) -> None:
    for name in ("train", "val"):
        write_pairs(tmp_path / name, 3, 40, 40)
    # The rainy image: the search for leaks decodes the clean ones.
    path = tmp_path / broken / "input" / "2.png"
    path.write_bytes(path.read_bytes()[:-100])
    settings = f"DATA.TRAIN {tmp_path}/train DATA.VAL {tmp_path}/val OPTIM.BATCH_SIZE 1".split()
    settings += ["DATA.CACHE", cache and str(tmp_path / cache)]
    with pytest.raises(UserError, match=rf"{broken}/input/2\.png is not a readable image"):
        load(*settings, index=tmp_path / "checked")


def test_validation_images_need_no_shared_memory(pairs, monkeypatch) -> None:
    """PyTorch's sharing is patched to fail, as it does if /dev/shm is too small.

    Its thread in the loader process would drop the image, and the trainer would wait forever.
    """

    def refuse(*_: object) -> None:
        raise RuntimeError("unable to allocate shared memory")

    for name in ("_share_fd_cpu_", "_share_filename_cpu_"):
        monkeypatch.setattr(torch.UntypedStorage, name, refuse)
    loader = validation_loader(pairs, num_workers=1)
    loader.timeout = 20  # seconds, instead of forever
    for pair, (rainy, clean) in zip(pairs, loader, strict=True):
        for image, expected in zip((rainy, clean), pair.read_uint8(), strict=True):
            assert np.array_equal(image, expected)


def test_a_sampler_without_an_epoch_is_refused(pairs) -> None:
    sampler = BatchSampler(10, seed=0, accumulate=1, rank=0, world_size=1)
    loader = PatchLoader(TrainingPatches(DecodedPairs(pairs), Augmentation(), 0), sampler, 0)
    with pytest.raises(RuntimeError, match=r"call set_epoch\(\.\.\.\)"):
        next(iter(loader))
    with pytest.raises(RuntimeError, match=r"call set_epoch\(\.\.\.\)"):
        len(loader)


def test_the_order_depends_on_the_seed() -> None:
    def order(seed: int) -> list[int]:
        return [draw.number for batch in sampler_of(100, 10, seed=seed) for draw in batch]

    assert order(0) != order(1) and order(0) == order(0)
    # The order of a seed's epoch must not change, because resumed runs continue in it.
    assert order(0) == np.random.default_rng((0, 1)).permutation(100).tolist()


def test_a_weight_is_the_number_of_visits_of_each_pair() -> None:
    shares = [Share(0, 4, 4), Share(4, 3, 6), Share(7, 10, 5)]  # weights 1, 2 and 0.5
    counts = np.zeros((2, 17), int)
    for epoch in (1, 2):
        for number in range(15):
            counts[epoch - 1, pair_of(shares, epoch, number)] += 1
    assert counts.tolist() == [[1] * 4 + [2] * 3 + [1] * 5 + [0] * 5,
                               [1] * 4 + [2] * 3 + [0] * 5 + [1] * 5]  # fmt: skip
    with pytest.raises(IndexError):
        pair_of(shares, 1, 15)


def test_several_training_and_validation_sets(tmp_path) -> None:
    for name, count in (("a", 3), ("b", 4), ("v/Rain100H", 1), ("v/Rain100L", 2)):
        write_pairs(tmp_path / name, count, 40, 40)
    settings = [
        *("DATA.TRAIN", f"[{tmp_path}/a, [{tmp_path}/b, 2]]"),
        *("DATA.VAL", f"[{tmp_path}/v/Rain100H, [{tmp_path}/v/Rain100L, light]]"),
        *("OPTIM.BATCH_SIZE", 11, "AUGMENT.PATCH", 16),
    ]
    loaders = load(*settings)
    loaders.sampler.set_epoch(1, patch=16, batch_size=11)
    ((rainy, _, which),) = loaders.train
    assert rainy.shape == (11, 3, 16, 16)
    assert sorted(which) == [0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert [p.rainy.parents[1].name for p in loaders.train_pairs] == ["a"] * 3 + ["b"] * 4
    sizes = {name: (len(s.pairs), len(s.loader)) for name, s in loaders.validation.items()}
    assert sizes == {"Rain100H": (1, 1), "light": (2, 2)}
    second = load(*settings, "OPTIM.BATCH_SIZE", 10, rank=1, world_size=2)
    sizes = {name: (len(s.pairs), len(s.loader)) for name, s in second.validation.items()}
    assert sizes == {"Rain100H": (1, 0), "light": (2, 1)}  # an empty share stays a loader


def test_malformed_lists_of_folders_are_refused() -> None:
    assert training_folders("a") == [("a", 1)] and named_folders("", "DATA.VAL") == {}
    assert training_folders(["a", ["b", 2]]) == [("a", 1), ("b", 2)]
    for wrong in ([["a", 0]], [["a", "b"]], [["a"]], [7], []):
        with pytest.raises(UserError, match=r"DATA\.TRAIN"):
            training_folders(wrong)
    with pytest.raises(UserError, match=r"DATA\.VAL holds \['a', 2\]"):
        named_folders([["a", 2]], "DATA.VAL")
    with pytest.raises(UserError, match="two sets called Rain12, x/Rain12/test and y/Rain12"):
        named_folders(["x/Rain12/test", "y/Rain12"], "DATA.VAL")


def test_one_flip_for_all_images_of_a_step() -> None:
    image = smooth_image(1, 16, 16)
    patches = TrainingPatches(
        [(image, image)] * 8, Augmentation(geometry="dihedral_batch"), 0, [Share(0, 8, 96)]
    )

    def drawn(rank: int, world: int, passes: int) -> list[list[bytes]]:
        sampler = BatchSampler(96, 0, passes, rank, world)
        sampler.set_epoch(1, patch=16, batch_size=4)
        return [[patches[draw][0].numpy().tobytes() for draw in batch] for batch in sampler]

    steps = drawn(0, 1, 1)
    assert all(len(set(step)) == 1 for step in steps)
    assert 6 <= len({step[0] for step in steps}) <= 8
    assert drawn(1, 2, 2)[::2] == [step[:1] for step in steps]  # every process, every micro-batch


def test_prefetched_batches_are_complete_and_in_order() -> None:
    """However often and whenever ``fetch`` is called, even after the last batch."""
    for early in ((), (0,), (1, 1, 2), (0, 1, 2, 3)):
        batches = [(torch.tensor(i), torch.tensor(-i), torch.tensor(10 * i)) for i in range(3)]
        ahead, seen = Prefetcher(iter(batches)), []
        for step in range(4):
            for _ in range(early.count(step)):
                ahead.fetch()
            seen += [int(batch[0]) for batch in itertools.islice(ahead, 1)]
        assert seen == [0, 1, 2]


def test_more_workers_than_cores_give_one_note(tmp_path, capsys) -> None:
    folder = write_pairs(tmp_path / "pairs", 2, 40, 40)
    settings = ["DATA.TRAIN", folder, "DATA.VAL", "", "OPTIM.BATCH_SIZE", 1, "DATA.WORKERS"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # as on import
        load(*settings, 4096)
        assert "note: DATA.WORKERS is 4096, more than the" in capsys.readouterr().out
        load(*settings, 1)
        load(*settings, 4096, rank=1)
        assert "note" not in capsys.readouterr().out


def test_notes_on_a_training_set_are_printed_with_a_cache_too(tmp_path, capsys) -> None:
    folder = write_pairs(tmp_path / "pairs", 2, 40, 40)
    write_pairs(folder / "old", 1, 40, 40)
    settings = ["DATA.TRAIN", folder, "DATA.VAL", "", "OPTIM.BATCH_SIZE", 1]
    for cache in ("", tmp_path / "cache"):
        load(*settings, "DATA.CACHE", cache)
        assert f"{folder}: left out: {folder}/old (2 images)" in capsys.readouterr().out
