"""Which folders an evaluation compares: one pair of folders, or methods x data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from natsort import natsorted, ns

from utils.errors import UserError
from utils.evaluation.published import facts, known_name
from utils.evaluation.scoring import NIQE, ScoringJob
from utils.set_names import CONTAINERS, SPLITS, dataset_name, path_names

RAINY_INPUT = "rainy input"

Entry = TypeVar("Entry")

# The folders of a set's rainy and clean images, None for what is not there.
FindFolders = Callable[[Path], tuple[Path | None, Path | None]]


def single_jobs(
    results: Path,
    target: Path | None,
    rainy: Path | None,
    protocol: str | None,
    find_folders: FindFolders,
) -> list[ScoringJob]:
    """One folder of results, and the rainy images as a second row where they are given.

    ``target`` is a folder of clean images or a whole data set, whose folders ``find_folders``
    finds; it is None without clean images, where ``protocol`` is ``niqe``.
    """
    clean = target
    if target:
        found_rainy, found_clean = find_folders(target)
        if found_clean and found_clean != target:
            rainy, clean = rainy or found_rainy, found_clean
    dataset = dataset_name(clean or rainy or results)
    protocol = protocol or facts(dataset).protocol
    method = method_name(results, dataset)
    jobs = [ScoringJob(method, dataset, protocol, results, clean, rainy=rainy)]
    if rainy:
        job = ScoringJob(RAINY_INPUT, dataset, protocol, rainy, clean, is_input=True, rainy=rainy)
        jobs.insert(0, job)
    return jobs


def benchmark_jobs(
    results_root: Path,
    data_root: Path,
    protocol: str | None,
    find_folders: FindFolders,
    methods: list[str] | None = None,
    datasets: list[str] | None = None,
) -> tuple[list[ScoringJob], list[str]]:
    """All methods on all data sets, each set's rainy images first; and what fits nowhere.

    A method is a folder of ``results_root``. A data set is one of ``data_root`` in which, or in its
    ``test/``, ``find_folders`` finds clean images (for NIQE rainy ones). ``protocol`` is used for
    every set; None takes each set's own. ``methods`` and ``datasets`` choose some. Raises UserError
    where there is nothing to compare or a chosen name does not exist.
    """
    sets = {}
    for folder in _folders(data_root):
        for split in (folder, folder / "test"):
            rainy, clean = find_folders(split)
            if (rainy if protocol == NIQE else clean) and folder.name not in sets:
                sets[folder.name] = rainy, clean
    side = "input" if protocol == NIQE else "target"
    if not sets:
        raise UserError(
            f"{data_root} holds no data set; one is a folder NAME with {side}/ in it "
            f"({data_root}/NAME/{side})."
        )
    available = {folder.name: folder for folder in _folders(results_root)}
    if not available:
        raise UserError(
            f"{results_root} holds no folder of results; they are expected as METHOD/SET/."
        )
    chosen_sets = _choose(sets, datasets, "data set", data_root)
    chosen_methods = _choose(available, methods, "method", results_root)

    jobs = []
    for name, (rainy, clean) in chosen_sets.items():
        used = protocol or facts(name).protocol
        if rainy:
            jobs.append(
                ScoringJob(RAINY_INPUT, name, used, rainy, clean, is_input=True, rainy=rainy)
            )
        jobs += [
            ScoringJob(method, name, used, folder / name, clean, rainy=rainy)
            for method, folder in chosen_methods.items()
        ]
    unmatched = []
    if datasets is None:
        unmatched = [
            f"extra: {folder} has no data set {data_root / folder.name / side}"
            for method in chosen_methods.values()
            for folder in _folders(method)
            if folder.name not in sets
        ]
    return jobs, unmatched


def method_name(results: Path, dataset: str) -> str:
    """The method in ``results/dmsr/Rain100H/test`` or ``results/dmsr``.

    Its folder is the last but those of the set and its split; results that lie in no folder of a
    method's own are called "restored".
    """
    parts = path_names(results)
    own = known_name(dataset) or dataset
    while parts and (parts[-1].lower() in SPLITS or (known_name(parts[-1]) or parts[-1]) == own):
        parts.pop()
    return parts[-1] if parts and parts[-1].lower() not in CONTAINERS else "restored"


def _folders(root: Path) -> list[Path]:
    """The visible folders in ``root`` in natural order. Raises UserError where it is none."""
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.")
    found = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return natsorted(found, key=lambda path: path.name, alg=ns.IGNORECASE)


def _choose(
    available: dict[str, Entry], chosen: list[str] | None, what: str, root: Path
) -> dict[str, Entry]:
    """The chosen entries in the order they were named; all of them without a choice."""
    if chosen is None:
        return available
    for name in chosen:
        if name not in available:
            raise UserError(
                f"There is no {what} {name} in {root}; there are {', '.join(available)}."
            )
    return {name: available[name] for name in chosen}
