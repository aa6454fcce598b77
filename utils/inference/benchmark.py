"""``test.py --config``: restore the test sets of some methods, score them, write one table.

    settings -> methods (methods.py) -> the rainy images of every set, as training reads them
    -> OUTPUT/METHOD/SET/*.png -> the set's own protocol -> one table beside the published rows

It joins networks, data and scoring as a script does, so only test.py imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from configs import load_config
from data.layouts.folders import images_by_name
from data.layouts.recognise import find_sides
from data.leaks import overlap_sentence
from data.pairs import Pair, pair_sides
from data.results import pair_results, set_folders
from models import AnyNetwork, build_model, load_foreign, load_published, load_weights
from models.published import is_tensorflow_checkpoint
from utils.checkpoints import ForeignFileError
from utils.errors import UserError
from utils.evaluation.columns import Columns
from utils.evaluation.folders import input_job, splits
from utils.evaluation.outputs import TableOptions, write_evaluation
from utils.evaluation.published import own_protocol
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import NIQE, ScoringJob
from utils.files import remove_unfinished
from utils.inference.console import Problems, say
from utils.inference.finished import FinishedResults
from utils.inference.methods import SPANDREL, Method, read_methods
from utils.inference.plan import RestoringJob, check_output
from utils.inference.restorer import Restorer
from utils.inference.restoring import restore_images
from utils.training.distributed import Processes
from utils.wording import plural


@dataclass(frozen=True)
class RainySet:
    """A set to restore: the folders of its two sides, and its rainy images by name.

    ``rainy_folder`` and ``clean_folder`` come from ``set_folders``. ``rainy_half`` is the
    half that is restored of files with both images side by side, else "". ``pairs`` is empty
    without clean images.
    """

    rainy_folder: Path
    clean_folder: Path | None
    rainy: dict[str, Path]
    rainy_half: str = ""
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Work:
    """One method on one set: what this process has to restore, and the list of what is finished."""

    method: Method
    jobs: list[RestoringJob]
    finished: FinishedResults


def run_benchmark(
    configs: Sequence[Path],
    overrides: Sequence[list[str]],
    weights: Sequence[Path],
    make_restorer: Callable[[AnyNetwork, Method], Restorer],
    make_columns: Callable[..., Columns],
    processes: Processes,
) -> int:
    """Restore and score what ``configs`` name; returns the exit status.

    ``overrides`` are the KEY VALUE settings of each of them, ``weights`` as in ``read_methods``;
    ``make_restorer`` puts a network onto its device; ``make_columns`` is that of
    utils/evaluation/columns.py with the command's options. Each process restores its share of the
    images; the first one scores all of them. The status is 1 where a set, an image or a score is
    missing.
    """
    settings = [load_config(*given) for given in zip(configs, overrides, strict=True)]
    methods = read_methods(configs, settings, weights)
    problems = Problems()
    sets: dict[str, RainySet] = {}
    unreadable: set[str] = set()
    for method in methods:
        for name, folder in method.sets.items():
            if name in sets or name in unreadable:
                continue
            try:
                sets[name] = find_rainy_set(folder, method, notify=processes.is_main)
            except UserError as error:
                unreadable.add(name)
                if processes.is_main:
                    problems.add(f"{name} is left out: {error}")
    columns, refusal = None, None
    if processes.is_main:  # wrong ones are refused before the restoring
        folders = {name: one.clean_folder or one.rainy_folder for name, one in sets.items()}
        threads = torch.get_num_threads()
        try:
            cache = ScoreCache(methods[0].scores / "score_cache.jsonl")
            columns = make_columns(cache, folders, has_clean=methods[0].protocol != NIQE)
        except UserError as error:
            refusal = error
        torch.set_num_threads(threads)  # pyiqa left one, for it is given one image per core
    if any(processes.gather(refusal is not None)):  # or the others would wait for the first one
        if refusal is not None:
            raise refusal
        return 1
    networks = [load_network(method) for method in methods]
    works = plan_work(methods, sets, processes)
    check_output([job for work in works for job in work.jobs])
    for method, network in zip(methods, networks, strict=True):
        own = [work for work in works if work.method is method and work.jobs]
        if not own:
            continue
        restorer = make_restorer(network, method)
        for work in own:
            remove_unfinished(*(job.target for job in work.jobs))
            folder = work.finished.path.parent
            say(f"{folder}: {plural(len(work.jobs), 'image')} to restore")
            restore_images(
                work.jobs,
                restorer,
                problems,
                on_written=work.finished.add,
                is_shown=processes.is_main,
            )
        network.cpu()  # room for the next one

    of_all = processes.gather(problems.sentences)
    if columns is None:
        return int(any(of_all))
    found = list(dict.fromkeys(sentence for own_ones in of_all for sentence in own_ones))
    leaks = [
        sentence
        for method, network in zip(methods, networks, strict=True)
        for sentence in training_leaks(method, network, sets)
    ]
    if columns.scorers:
        torch.set_num_threads(1)
    return score_methods(methods, sets, columns, found, leaks)


def training_leaks(method: Method, network: AnyNetwork, sets: dict[str, RainySet]) -> list[str]:
    """A sentence for each set that shows scenes of the method's training set.

    Weights that record no training scenes give none.
    """
    packed = network.info.get("training_scenes", "")
    found = (
        overlap_sentence(method.name, packed, name, sets[name].pairs)
        for name in method.sets
        if name in sets
    )
    return [sentence for sentence in found if sentence]


def find_rainy_set(folder: Path, method: Method, *, notify: bool = True) -> RainySet:
    """The images of a set, in ``folder`` itself or in its test/ or val/, in any layout.

    ``notify`` prints what was left out. Raises UserError if no image is found, naming the folders
    that were searched, and if an image has no partner.
    """
    for place in splits(folder):
        rainy_folder, clean_folder = set_folders(place)
        if rainy_folder is None:
            continue
        if clean_folder is None:
            return RainySet(rainy_folder, None, images_by_name(rainy_folder))
        sides = find_sides(place, match=method.match, half=method.rainy_half)
        pairs, unpaired, notes = pair_sides(sides, method.match)
        if unpaired:
            more = f" (and {len(unpaired) - 1} more)" if len(unpaired) > 1 else ""
            raise UserError(f"{unpaired[0]}{more}; DATA.MATCH can say what of the names counts.")
        if notify:
            say(*(f"{place}: {note}" for note in notes))
        rainy = {name: pair.rainy for name, pair in pairs.items()}
        every = tuple(pairs.values())
        return RainySet(rainy_folder, clean_folder, rainy, sides.rainy_half, every)
    raise UserError(f"there are no rainy images in {', '.join(map(str, splits(folder)))}.")


def load_network(method: Method) -> AnyNetwork:
    """The network of a method with its weights: this project's file, the authors' or spandrel's.

    Raises UserError if a file of this project holds another network than the settings.
    """
    if method.model == SPANDREL:
        return load_foreign(method.weights, notify=say)
    try:
        if is_tensorflow_checkpoint(method.weights):
            raise ForeignFileError
        network = load_weights(method.weights)
    except ForeignFileError:
        return load_published(method.model, method.weights, method.model_options, notify=say)
    with torch.device("meta"):
        expected = build_model(method.model, method.model_options)
    if type(network) is not type(expected) or network.config != expected.config:
        raise UserError(
            f"{method.weights} holds another network than the settings of {method.name}, "
            f"{method.model} {method.model_options or ''}".rstrip()
            + "; give its own --config, or set MODEL.NAME and MODEL.OPTIONS."
        )
    return network


def plan_work(
    methods: Sequence[Method], sets: dict[str, RainySet], processes: Processes
) -> list[Work]:
    """What this process has to restore: its share of each set, without what is finished."""
    works = []
    inputs: dict[Path, str] = {}
    for method in methods:
        fingerprint = method.fingerprint()
        for name in method.sets:
            if name not in sets:
                continue
            folder = method.output / name
            finished = FinishedResults(folder, fingerprint, inputs)
            share = restoring_jobs(sets[name], folder)[processes.rank :: processes.world_size]
            jobs = finished.unfinished(share)
            if len(jobs) < len(share):
                say(f"{folder}: {len(share) - len(jobs)} of {len(share)} are finished.")
            if num_others := sum(job.target.exists() for job in jobs):
                say(
                    f"{folder}: {plural(num_others, 'result')} of other weights, options or inputs "
                    "will be replaced."
                )
            works.append(Work(method, jobs, finished))
    return works


def restoring_jobs(rainy_set: RainySet, folder: Path) -> list[RestoringJob]:
    """The images of a set and where their results go: ``folder``/NAME.png."""
    jobs = []
    for name, source in rainy_set.rainy.items():
        if ".." in PurePosixPath(name).parts:
            raise UserError(f"{source} is called {name}, outside of its set; move it inside.")
        jobs.append(RestoringJob(source, folder / f"{name}.png", rainy_set.rainy_half))
    return jobs


def score_methods(
    methods: Sequence[Method],
    sets: dict[str, RainySet],
    columns: Columns,
    problems: Sequence[str],
    leaks: Sequence[str],
) -> int:
    """Score all results as evaluate.py does and write everything; returns the exit status.

    ``problems`` are those of the restoring; ``leaks`` stand below the table.
    """
    found = list(problems)
    jobs, patterns = [], []
    for name in dict.fromkeys(name for method in methods for name in method.sets):
        if name not in sets:
            continue
        rainy, clean = sets[name].rainy_folder, sets[name].clean_folder
        of_set = [method for method in methods if name in method.sets]
        protocol = of_set[0].protocol or own_protocol(name, published=True)
        if clean is None and protocol != NIQE:
            found.append(
                f"{name} has no clean images, so its results are not scored; TEST.PROTOCOL niqe "
                "scores without them."
            )
            continue
        if protocol == NIQE:
            clean = None
        of_name = input_job(name, protocol, rainy, clean) + [
            ScoringJob(method.name, name, protocol, method.output / name, clean, rainy=rainy)
            for method in of_set
        ]
        jobs += of_name
        patterns += [(of_set[0].match, of_set[0].rainy_half)] * len(of_name)
    if not jobs:
        raise UserError(" ".join(found))
    paired = [pair_results(job, *how) for job, how in zip(jobs, patterns, strict=True)]
    results = columns.score(paired)
    options = TableOptions(
        notes=leaks,
        implementations=columns.implementations,
        weights={
            method.name: {"weights": str(method.weights), "sha256": method.fingerprint().split()[0]}
            for method in methods
        },
    )
    table = write_evaluation(methods[0].scores, results, options, found)
    return 1 if table.num_problems else 0
