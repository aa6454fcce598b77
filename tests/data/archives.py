"""Tiny copies of the field's data sets, with the folders and names of their authors' archives.

Only the names are the authors'; the images are made here. For archives that were not seen, the
folders are those that loaders for the set expect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from tests.helpers import smooth_image, streaked

HEIGHT, WIDTH = 32, 44  # of one image


@dataclass(frozen=True)
class Archive:
    """``pairs`` of rainy and clean files below a folder, in which a user names ``root``.

    A pair of one file is side by side, with the rainy image in ``half``. ``extras`` are images
    without a pair, ``texts`` other files.
    """

    pairs: list[tuple[str, str]]
    layout: str = "folders"
    root: str = "."
    half: str = ""
    extras: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write the files below ``folder`` and return the folder that a user names."""
        scenes = list(dict.fromkeys(clean for _, clean in self.pairs))
        for number, (rainy, clean) in enumerate(self.pairs):
            scene = smooth_image(scenes.index(clean), HEIGHT, WIDTH)
            wet = streaked(scene, number)
            if rainy == clean:
                halves = [wet, scene] if self.half == "left" else [scene, wet]
                _write(folder / rainy, np.hstack(halves))
            else:
                _write(folder / rainy, wet)
                _write(folder / clean, scene)
        for number, name in enumerate(self.extras):
            _write(folder / name, smooth_image(100 + number, HEIGHT, WIDTH))
        for name, text in self.texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder / self.root


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])


def numbered(rainy: str, clean: str, numbers: tuple[int, ...] = (1, 2, 12)) -> list:
    """A pair for each number, which takes the place of ``{}``."""
    return [(rainy.format(i), clean.format(i)) for i in numbers]


def side_by_side(*names: str) -> list[tuple[str, str]]:
    return [(name, name) for name in names]


def _ordinary(rainy: str, clean: str, **options: str) -> Archive:
    return Archive(numbered(f"{rainy}/{{}}.png", f"{clean}/{{}}.png"), **options)


DENSITIES = ("Rain_Heavy", "Rain_Medium", "Rain_Light")

ARCHIVES = {
    "Rain200L": Archive(numbered("rain/X2/norain-{}x2.png", "norain/norain-{}.png")),
    "Rain200L, one scale more": Archive(
        [
            *numbered("rain/X2/norain-{}x2.png", "norain/norain-{}.png"),
            *numbered("rain/X4/norain-{}x4.png", "norain/norain-{}.png"),
        ]
    ),
    "Rain200H, its folder inside": Archive(
        numbered(
            "rain_data_test_Heavy/rain/X2/norain-{}x2.png",
            "rain_data_test_Heavy/norain/norain-{}.png",
        )
    ),
    "RainTrainL": Archive(
        numbered("rain-{}.png", "norain-{}.png"),
        layout="one_folder",
        extras=[f"{kind}-{i}.png" for kind in ("rainregion", "rainstreak") for i in (1, 2, 12)],
    ),
    "Rain100H, PReNet's page": Archive(numbered("rainy/rain-{:03}.png", "norain-{:03}.png")),
    "DID-MDN, training": Archive(
        side_by_side(*(f"{d}/train2018new/{i}.jpg" for d in DENSITIES for i in (1, 2, 12))),
        layout="side_by_side",
        half="left",
    ),
    "DID-MDN, one density": Archive(
        side_by_side(*(f"Rain_Light/train2018new/{i}.jpg" for i in (1, 2))),
        layout="side_by_side",
        half="left",
    ),
    "DID-MDN, test": Archive(
        side_by_side("test/1.jpg", "test/2.jpg", "test/12.jpg"),
        layout="side_by_side",
        root="test",
        half="left",
    ),
    "Rain800": Archive(
        side_by_side(*(f"{split}/{i}.jpg" for split in ("training", "test_syn") for i in (1, 2))),
        layout="side_by_side",
        root="training",
        half="right",
    ),
    "Rain100H, DCSFN's": Archive(
        side_by_side("1.png", "2.png", "12.png"), layout="side_by_side", half="right"
    ),
    "DDN-Data": Archive(
        [
            (f"rainy_image/{i}_{k}.jpg", f"ground_truth/{i}.jpg")
            for i in (1, 2, 12)
            for k in (1, 2, 14)
        ]
    ),
    "SPA-Data, training": Archive(
        [
            (f"real_world/{k:03}/{k:03}_{i}.png", f"real_world_gt/{k:03}/{k:03}.png")
            for k in (1, 12)
            for i in (1, 2)
        ],
        layout="list",
        texts={
            "real_world.txt": "".join(
                f"/real_world/{k:03}/{k:03}_{i}.png /real_world_gt/{k:03}/{k:03}.png\n"
                for k in (1, 12)
                for i in (1, 2)
            ),
            "readme.txt": "Spatial Attentive Single-Image Deraining\n",
        },
    ),
    "SPA-Data, test": Archive(numbered("rain/{:03}_rain.png", "gt/{:03}gt.png")),
    "Outdoor-Rain": Archive(
        [
            (f"in/im_{i:04}_s{s}_a{a}.png", f"gt/im_{i:04}.png")
            for i in (1, 2, 12)
            for s, a in ((80, "04"), (80, "05"), (100, "04"))
        ]
    ),
    "Raindrop": Archive(numbered("train/data/{}_rain.png", "train/gt/{}_clean.png"), root="train"),
    "Raindrop Clarity": Archive(
        [(f"Drop/{k:05}/{i:05}.png", f"Clear/{k:05}/{i:05}.png") for k in (1, 12) for i in (1, 2)],
        extras=[f"Blur/{k:05}/{i:05}.png" for k in (1, 12) for i in (1, 2)],
    ),
    "RainDS": Archive(
        [
            (f"{kind}/pie-{word}-{i}.png", f"gt/pie-norain-{i}.png")
            for kind, word in (
                ("raindrop", "rd"),
                ("rainstreak", "rain"),
                ("rainstreak_raindrop", "rd-rain"),
            )
            for i in (1, 2, 12)
        ]
    ),
    "GT-RAIN": Archive(
        [
            (f"{scene}/{scene}-Webcam-R-{i:03}.png", f"{scene}/{scene}-Webcam-C-000.png")
            for scene in ("Gurutto_1-2", "Table_Rock_A")
            for i in (0, 1, 17)
        ],
        layout="one_folder",
    ),
    "GTAV-NightRain": Archive(
        [(f"Rainy/{i:04}_{k:02}.png", f"GT/{i:04}.png") for i in (0, 1, 12) for k in (0, 1, 9)]
    ),
    "LHP-Rain": Archive(
        [(f"input/{k}/{i}.png", f"gt/{k}/{i}.png") for k in ("s1", "s12") for i in (1, 2)]
    ),
    "RealRain-1k": _ordinary("input", "target"),
    "HQ-RAIN": _ordinary("input", "target"),
    "4K-Rain13k": _ordinary("train/input", "train/target", root="train"),
    "UAV-Rain1k": _ordinary("train/input", "train/target", root="train"),
    "WeatherBench": Archive(
        [
            *numbered("train/rain/input/{}.png", "train/rain/target/{}.png"),
            *numbered("train/snow/input/{}.png", "train/snow/target/{}.png"),
        ],
        root="train/rain",
    ),
    "NTURain": Archive(
        [(f"{c}_Rain/{i:05}.jpg", f"{c}_GT/{i:05}.jpg") for c in ("a1", "b12") for i in (1, 2, 12)]
    ),
    "MSPFN's crops": Archive(
        [(f"inputcrop/file{k}/{i}.png", f"cleancrop/file{k}/{i}.png") for k in (1, 2) for i in (1,)]
    ),
    "MSPFN's samples": Archive(
        [
            (f"rainysamples/file{k}/{i}.png", f"cleansamples/file{k}/{i}.png")
            for k in (1, 2)
            for i in (1, 2)
        ]
    ),
    "super-resolution": Archive(numbered("lq/x4/{:04}x4.png", "gt/{:04}.png", (1, 2, 3, 4))),
    **{
        f"{rainy}, {clean}": _ordinary(rainy, clean)
        for rainy, clean in (
            ("lq", "gt"), ("LQ", "GT"), ("Input", "Target"), ("rainy", "gt"), ("rain", "clean"),
            ("in", "gt"), ("INPUT", "groundTruth"), ("Rainy_Images", "no-rain"), ("rain", "norain"),
            ("rain_L", "clean_L"), ("RainyImages", "CleanImages"),
        )
    },
}  # fmt: skip

# Folders of an archive that are not one set of pairs, and the reason.
REFUSED = {
    "WeatherBench": (
        "train",
        r"holds several data sets or parts of one; name one .*/rain, .*/snow\.",
    ),
    "Rain800": (".", r"holds several data sets .*/test_syn, .*/training\."),
    "RainDS": ("rainstreak", r"rainstreak holds one side of the pairs; name .* instead"),
    "Raindrop": ("train/data", r"data holds one side of the pairs; name .*/train instead"),
    "Rain200L": ("norain", r"norain holds one side of the pairs"),
}
