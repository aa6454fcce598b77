"""The folders that an evaluation compares: one pair of folders, or methods x data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from natsort import natsorted, ns

from utils.errors import UserError
from utils.evaluation.published import known_name, own_protocol
from utils.evaluation.scoring import NIQE, ScoringJob
from utils.folder_words import CONTAINERS, SPLITS
from utils.set_names import dataset_name, path_names
from utils.wording import did_you_mean

RAINY_INPUT = "rainy input"

Entry = TypeVar("Entry")

# Finds the folders of a set's rainy and clean images, None for a missing side.
FindFolders = Callable[[Path], tuple[Path | None, Path | None]]


def single_jobs(
    results: Path,
    target: Path | None,
    rainy: Path | None,
    protocol: str | None,
    find_folders: FindFolders,
) -> list[ScoringJob]:
    """The job of one folder of results, after that of the rainy images if they are known.

    ``target`` is a folder of clean images or a whole data set, whose folders ``find_folders``
    finds. Without clean images it is None, and ``protocol`` is ``niqe``.
    """
    clean = target
    if target:
        found_rainy, found_clean = find_folders(target)
        if found_clean and found_clean != target:
            rainy, clean = rainy or found_rainy, found_clean
    dataset = dataset_name(clean or rainy or results)
    protocol = protocol or own_protocol(dataset, published=False)
    method = method_name(results, dataset)
    jobs = [ScoringJob(method, dataset, protocol, results, clean, rainy=rainy)]
    return [*input_job(dataset, protocol, rainy, clean), *jobs]


def input_job(
    dataset: str, protocol: str, rainy: Path | None, clean: Path | None
) -> list[ScoringJob]:
    """The job of the rainy images themselves; an empty list if they are missing."""
    if not rainy:
        return []
    return [ScoringJob(RAINY_INPUT, dataset, protocol, rainy, clean, is_input=True, rainy=rainy)]


@dataclass
class Benchmark:
    """What ``benchmark_jobs`` found: jobs, a problem for each result without a data set, notes."""

    jobs: list[ScoringJob] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def benchmark_jobs(
    results_root: Path,
    data_roots: Sequence[Path],
    protocol: str | None,
    find_folders: FindFolders,
    methods: list[str] | None = None,
    datasets: list[str] | None = None,
    *,
    published: bool = True,
) -> Benchmark:
    """All methods on all data sets, each set's rainy images first.

    A method is a folder of ``results_root``; ``find_sets`` finds the data sets. ``protocol`` is
    used for every set; None uses each set's own, or that of the papers' rows if the table has them
    (``published``). ``methods`` and ``datasets`` select by name; without ``datasets``, sets without
    results are left out. Raises UserError if there is nothing to compare or a chosen name does not
    exist.
    """
    found = Benchmark()
    side = "input" if protocol == NIQE else "target"
    sets = find_sets(data_roots, find_folders, side, found.notes)
    roots = " and ".join(map(str, data_roots))
    if not sets:
        raise UserError(
            f"{roots} holds no data set; looked for {_searched(data_roots, 'NAME', side)}."
        )
    available = {folder.name: folder for folder in _folders(results_root)}
    if not available:
        raise UserError(
            f"{results_root} holds no folder of results; they are expected as METHOD/SET/."
        )
    where = f"{roots} (looked for {_searched(data_roots, 'NAME', side)})"
    chosen_sets = _choose(sets, datasets, "data set", where)
    chosen_methods = _choose(available, methods, "method", str(results_root))
    if datasets is None:
        unused = [
            name
            for name in chosen_sets
            if not any((folder / name).is_dir() for folder in chosen_methods.values())
        ]
        if len(unused) < len(chosen_sets):
            chosen_sets = {name: chosen_sets[name] for name in chosen_sets if name not in unused}
            if unused:
                found.notes.append(f"{results_root} holds no results for {', '.join(unused)}.")

    for name, (rainy, clean) in chosen_sets.items():
        used = protocol or own_protocol(name, published=published)
        found.jobs += input_job(name, used, rainy, clean)
        found.jobs += [
            ScoringJob(method, name, used, folder / name, clean, rainy=rainy)
            for method, folder in chosen_methods.items()
        ]
    if datasets is None:
        found.unmatched = [
            f"extra: {folder} has no data set; looked for "
            f"{_searched(data_roots, folder.name, side)}"
            for method in chosen_methods.values()
            for folder in _folders(method)
            if folder.name not in sets
        ]
    return found


def find_sets(
    roots: Sequence[Path], find_folders: FindFolders, side: str, notes: list[str]
) -> dict[str, tuple[Path | None, Path | None]]:
    """The folders of rainy and clean images of every data set below some roots, by its name.

    A set is ROOT/NAME, its split ROOT/NAME/test or ROOT/NAME/val, or one of several test sets of a
    training set, ROOT/*/test/NAME. It must have the ``side``, "target" or "input". The first set
    found under a name is used; ``notes`` receives a sentence about each other one.
    """
    found: dict[str, tuple[Path, tuple[Path | None, Path | None]]] = {}

    def add(folder: Path) -> None:
        for split in splits(folder):
            folders = find_folders(split)
            if folders[1] if side == "target" else folders[0]:
                first, _ = found.setdefault(folder.name, (split, folders))
                if first.resolve() != split.resolve():
                    notes.append(f"{folder.name} is {first}; {split} is left out.")
                return

    nested = []
    for root in roots:
        for folder in _folders(root):
            tests = _folders(folder / "test") if (folder / "test").is_dir() else []
            test_sets = [test_set for test_set in tests if find_folders(test_set)[1]]
            nested += test_sets
            if not test_sets:
                add(folder)
    for folder in nested:
        add(folder)
    return {name: folders for name, (_, folders) in found.items()}


def splits(folder: Path) -> tuple[Path, ...]:
    """The folders in which the test images of a data set may be, in order of preference."""
    return folder, folder / "test", folder / "val"


def _searched(roots: Sequence[Path], name: str, side: str) -> str:
    """The places in which ``find_sets`` looks."""
    return ", ".join(
        f"{root}/{place}/{side}"
        for root in roots
        for place in (name, f"{name}/test", f"{name}/val", f"*/test/{name}")
    )


def method_name(results: Path, dataset: str) -> str:
    """The method in ``results/dmsr/Rain100H/test`` or ``results/dmsr``.

    It is the last folder that names neither the set nor a split; "restored" if that is only a
    container such as ``results``, or missing.
    """
    parts = path_names(results)
    own = known_name(dataset) or dataset
    while parts and (parts[-1].lower() in SPLITS or (known_name(parts[-1]) or parts[-1]) == own):
        parts.pop()
    return parts[-1] if parts and parts[-1].lower() not in CONTAINERS else "restored"


def _folders(root: Path) -> list[Path]:
    """The visible folders in ``root`` in natural order. Raises UserError if it is not a folder."""
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.")
    found = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return natsorted(found, key=lambda path: path.name, alg=ns.IGNORECASE)


def _choose(
    available: dict[str, Entry], chosen: list[str] | None, what: str, where: str
) -> dict[str, Entry]:
    """The chosen entries in the given order; all of them if ``chosen`` is None."""
    if chosen is None:
        return available
    for name in chosen:
        if name not in available:
            raise UserError(
                f"There is no {what} {name} in {where}.{did_you_mean(name, available)} Choose "
                f"from {', '.join(available)}."
            )
    return {name: available[name] for name in chosen}
