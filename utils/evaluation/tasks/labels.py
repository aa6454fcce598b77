"""Read ground truth: boxes in COCO JSON, PASCAL VOC and YOLO files, and masks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml

from utils.errors import UserError
from utils.evaluation.tasks.boxes import Boxes
from utils.folders import scan_folder

# Names in VOC and BDD100K -> names in COCO, which torchvision's detectors use
SAME_OBJECT = {
    "aeroplane": "airplane",
    "bike": "bicycle",
    "diningtable": "dining table",
    "motor": "motorcycle",
    "motorbike": "motorcycle",
    "pedestrian": "person",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
FOLDERS = ("labels", "annotations", "masks")  # next to a data set's images; case-insensitive
CLASS_LISTS = ("classes.txt", "obj.names")  # names of YOLO's classes, one per line


@dataclass
class LabelSet:
    """The true boxes of a folder of label files, by the stem of their image.

    ``format`` is COCO, VOC or YOLO. ``left_out`` counts the objects of each name that the detector
    does not know.
    """

    format: str
    boxes: dict[str, Boxes]
    left_out: Counter[str] = field(default_factory=Counter)


def labels_beside(images: Path, masks: bool = False) -> Path | None:
    """The boxes or masks for a folder of images: in the folder or next to it."""
    return find_labels(images, masks) or find_labels(images.parent, masks)


def find_labels(dataset: Path, masks: bool = False) -> Path | None:
    """The boxes, or the masks, in a data set: a .json file or one of ``FOLDERS``, else None.

    Raises UserError if there are several, since any of them could be meant.
    """
    content = scan_folder(dataset)
    found = [path for path in content.files if path.suffix.lower() == ".json"]
    found += [path for path in content.folders if path.name.lower() in FOLDERS]
    found = [path for path in found if is_masks(path) == masks]
    if len(found) > 1:
        raise UserError(
            f"{dataset} holds several labels ({', '.join(path.name for path in found)}); choose "
            "with --labels."
        )
    return found[0] if found else None


def is_masks(path: Path) -> bool:
    """Whether labels are masks, for segmentation, rather than boxes."""
    return path.is_dir() and any(file.suffix.lower() == ".png" for file in scan_folder(path).files)


def read_boxes(
    path: Path, categories: Sequence[str], sizes: Mapping[str, Callable[[], tuple[int, int]]]
) -> LabelSet:
    """The true boxes in ``path``, a COCO JSON file or a folder of VOC or YOLO files.

    ``categories`` are the detector's, by number. ``sizes`` gives (height, width) of the images by
    stem, which YOLO's relative coordinates need. Raises UserError for a file that is neither.
    """
    numbers = {name.lower(): number for number, name in enumerate(categories)}
    files = [path] if path.is_file() else scan_folder(path).files
    by_suffix: dict[str, list[Path]] = {}
    for file in files:
        by_suffix.setdefault(file.suffix.lower(), []).append(file)
    if ".json" in by_suffix:
        if len(by_suffix[".json"]) > 1:
            raise UserError(f"{path} holds several JSON files; name one of them with --labels.")
        return _read_coco(by_suffix[".json"][0], numbers)
    if ".xml" in by_suffix:
        return _read_voc(by_suffix[".xml"], numbers)
    if ".txt" in by_suffix:
        return _read_yolo(path, by_suffix[".txt"], categories, numbers, sizes)
    raise UserError(f"{path} holds no labels: COCO JSON, VOC .xml or YOLO .txt files.")


class _Collector:
    """Gathers objects by image, and counts those that the detector does not know."""

    def __init__(self, format_name: str, numbers: Mapping[str, int]) -> None:
        self.numbers = numbers
        self.labels = LabelSet(format_name, {})
        self._objects: dict[str, list[tuple[list[float], int, bool]]] = {}

    def image(self, stem: str) -> None:
        """Register an image, which may have no objects."""
        self._objects.setdefault(stem, [])

    def add(self, stem: str, name: str, corners: list[float], ignored: bool) -> None:
        self.image(stem)
        name = name.strip().lower()
        number = self.numbers.get(SAME_OBJECT.get(name, name))
        if number is None:
            self.labels.left_out[name] += 1
        else:
            self._objects[stem].append((corners, number, ignored))

    def collected(self) -> LabelSet:
        for stem, objects in self._objects.items():
            corners, numbers, ignored = zip(*objects, strict=True) if objects else ((), (), ())
            self.labels.boxes[stem] = Boxes.of(list(corners), list(numbers), None, list(ignored))
        return self.labels


def _read_coco(path: Path, numbers: Mapping[str, int]) -> LabelSet:
    """COCO's JSON: images, categories, annotations with bbox = left, top, width, height."""
    collector = _Collector("COCO", numbers)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        stems = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        for stem in stems.values():
            collector.image(stem)
        for entry in content["annotations"]:
            left, top, width, height = map(float, entry["bbox"])
            corners = [left, top, left + width, top + height]
            is_crowd = bool(entry.get("iscrowd", 0))
            collector.add(stems[entry["image_id"]], names[entry["category_id"]], corners, is_crowd)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not hold annotations in COCO's JSON: {error}.") from error
    return collector.collected()


def _read_voc(paths: Sequence[Path], numbers: Mapping[str, int]) -> LabelSet:
    """PASCAL VOC's XML; its coordinates are pixel numbers from 1, the last pixel included."""
    collector = _Collector("VOC", numbers)
    for path in paths:
        collector.image(path.stem)
        try:
            root = ElementTree.fromstring(_without_entities(path))
            for entry in root.iter("object"):
                box = entry.find("bndbox")
                if box is None:
                    raise ValueError("an object has no bndbox")
                low = [float(box.findtext(key, "")) - 1 for key in ("xmin", "ymin")]
                high = [float(box.findtext(key, "")) for key in ("xmax", "ymax")]
                difficult = entry.findtext("difficult", "0").strip() == "1"
                collector.add(path.stem, entry.findtext("name", ""), low + high, difficult)
        except (OSError, ValueError, ElementTree.ParseError) as error:
            raise UserError(f"{path} is not an annotation in VOC's XML: {error}.") from error
    return collector.collected()


def _without_entities(path: Path) -> str:
    """The text of an XML file. A DOCTYPE, which could define endless entities, is refused."""
    text = path.read_text(encoding="utf-8-sig")
    if "<!DOCTYPE" in text:
        raise ValueError("it has a document type")
    return text


def _read_yolo(
    folder: Path,
    paths: Sequence[Path],
    categories: Sequence[str],
    numbers: Mapping[str, int],
    sizes: Mapping[str, Callable[[], tuple[int, int]]],
) -> LabelSet:
    """YOLO's lines: class, then centre and size as fractions of the image."""
    collector = _Collector("YOLO", numbers)
    names = _yolo_names(folder, categories)
    for path in paths:
        if path.name in CLASS_LISTS or path.stem not in sizes:
            continue
        collector.image(path.stem)
        height, width = sizes[path.stem]()
        try:
            for line in path.read_text(encoding="utf-8-sig").splitlines():
                if not line.strip():
                    continue
                number, *shares = line.split()
                x, y, w, h = map(float, shares[:4])
                corners = [(x - w / 2) * width, (y - h / 2) * height]
                corners += [(x + w / 2) * width, (y + h / 2) * height]
                collector.add(path.stem, names[int(number)], corners, False)
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{path} does not hold YOLO's labels: {error}.") from error
    return collector.collected()


def _yolo_names(folder: Path, categories: Sequence[str]) -> list[str]:
    """Names of YOLO's classes: from a list next to the labels, else COCO's 80 in order."""
    for place in (folder, folder.parent):
        for name in CLASS_LISTS:
            if (place / name).is_file():
                return (place / name).read_text(encoding="utf-8-sig").split("\n")
        if (place / "data.yaml").is_file():
            names: Any = (yaml.safe_load((place / "data.yaml").read_text()) or {}).get("names")
            if isinstance(names, dict):
                names = [names[key] for key in sorted(names)]
            if isinstance(names, list):
                return [str(name) for name in names]
    return [name for name in categories if name not in ("__background__", "N/A")]


def read_mask(path: Path, num_classes: int) -> np.ndarray:
    """A mask of class numbers, (H, W) uint8; 255 marks pixels that do not count.

    Palette and gray PNGs hold the numbers themselves. Raises UserError for other files and for
    numbers that the segmenter does not know.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            if file.mode not in ("P", "L"):
                raise UserError(
                    f"{path} is a mask in {file.mode}; masks must be palette or gray PNGs."
                )
            mask = np.asarray(file)
    except OSError as error:
        raise UserError(f"{path} is not a readable mask: {error}.") from error
    unknown = sorted({int(value) for value in np.unique(mask)} - {*range(num_classes), 255})
    if unknown:
        raise UserError(
            f"{path} holds the class {unknown[0]}; the segmenter has 0 to {num_classes - 1}, and "
            "255 marks pixels that do not count."
        )
    return mask
