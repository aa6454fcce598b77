"""Which folders an evaluation compares: one pair of folders, or methods x data sets."""

from __future__ import annotations

from pathlib import Path

from natsort import natsorted, ns

from utils.errors import UserError
from utils.evaluation.published import facts
from utils.evaluation.scoring import NIQE, ScoringJob

RAINY_INPUT = "rainy input"

# Folder names that say nothing about the data set they belong to.
_ROLES = ("target", "input", "test", "val", "gt", "clean", "norain", "rain", "ground_truth")


def single_jobs(
    results: Path, targets: Path | None, inputs: Path | None, protocol: str | None
) -> list[ScoringJob]:
    """One folder of results, and the rainy images as a second row where they are given.

    ``targets`` is None without clean images, where ``protocol`` is ``niqe``.
    """
    expected = targets or inputs
    dataset = dataset_name(expected or results)
    protocol = protocol or facts(dataset).protocol
    jobs = [ScoringJob(method_name(results, dataset), dataset, protocol, results, expected)]
    if inputs:
        jobs.insert(0, ScoringJob(RAINY_INPUT, dataset, protocol, inputs, expected, is_input=True))
    return jobs


def benchmark_jobs(
    results_root: Path,
    data_root: Path,
    protocol: str | None,
    methods: list[str] | None = None,
    datasets: list[str] | None = None,
) -> tuple[list[ScoringJob], list[str]]:
    """All methods on all data sets, each set's rainy images first; and what fits nowhere.

    A method is a folder of ``results_root``, a data set one of ``data_root`` with ``target/`` (for
    NIQE ``input/``) in it or in its ``test/``. ``protocol`` is used for every set; None takes each
    set's own. ``methods`` and ``datasets`` choose some. Raises UserError where there is nothing to
    compare or a chosen name does not exist.
    """
    side = "input" if protocol == NIQE else "target"
    sets = {folder.name: _split(folder, side) for folder in _folders(data_root)}
    sets = {name: split for name, split in sets.items() if split is not None}
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
    for name, split in chosen_sets.items():
        used = protocol or facts(name).protocol
        expected = split / side
        if (split / "input").is_dir():
            jobs.append(
                ScoringJob(RAINY_INPUT, name, used, split / "input", expected, is_input=True)
            )
        jobs += [
            ScoringJob(method, name, used, folder / name, expected)
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


def dataset_name(folder: Path) -> str:
    """The data set that a folder such as ``data/Rain100H/test/target`` belongs to."""
    names = [part for part in folder.resolve().parts[1:] if part.lower() not in _ROLES]
    return names[-1] if names else folder.name


def method_name(results: Path, dataset: str) -> str:
    """The method in ``results/dmsr/Rain100H`` or ``results/dmsr``: the last name but the set's."""
    results = results.resolve()
    return results.parent.name if results.name == dataset else results.name


def _split(dataset: Path, side: str) -> Path | None:
    """The folder that holds a data set's test images, if it has any."""
    return next((path for path in (dataset, dataset / "test") if (path / side).is_dir()), None)


def _folders(root: Path) -> list[Path]:
    """The visible folders in ``root`` in natural order. Raises UserError where it is none."""
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.")
    found = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return natsorted(found, key=lambda path: path.name, alg=ns.IGNORECASE)


def _choose(
    available: dict[str, Path], chosen: list[str] | None, what: str, root: Path
) -> dict[str, Path]:
    """The chosen entries in the order they were named; all of them without a choice."""
    if chosen is None:
        return available
    for name in chosen:
        if name not in available:
            raise UserError(
                f"There is no {what} {name} in {root}; there are {', '.join(available)}."
            )
    return {name: available[name] for name in chosen}
