"""Pair results with the clean images or clips of a data set, in any layout that training reads.

A result is named like its rainy image (test.py keeps the name), or in a way that ``pair_names``
recognises. A clip is a video file or a folder of frames, which are paired like the images of a
nested data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from natsort import natsorted, ns
from PIL import Image

from data.layouts import Sides
from data.layouts.folders import images_by_name
from data.layouts.halves import rainy_half
from data.layouts.recognise import find_sides, side_folders
from data.names import pair_names
from data.pairs import pair_sides
from utils.errors import UserError
from utils.evaluation.scoring import NIQE, ClipResult, ImageResult, JobResult, ScoringJob
from utils.folder_words import read_side
from utils.folders import dead_link_sentence, scan_folder
from utils.images import is_image
from utils.inference.video import is_video
from utils.wording import composed

Named = dict[str, Path]


def set_folders(folder: Path, match: str = "") -> tuple[Path | None, Path | None]:
    """The folders of the rainy and of the clean images of a data set, None for a missing side.

    If ``folder`` holds both, or files with both side by side, it is returned for both. Any other
    images and videos in it count as rainy.
    """
    rainy, clean = side_folders(folder, match)
    if (rainy and clean) or not folder.is_dir():
        return rainy, clean
    below = [path for path in scan_folder(folder).folders if holds_videos(path)]
    videos = {read_side(path.name).role: path for path in below}
    if not rainy and not clean and holds_videos(folder):
        rainy = folder
    return rainy or videos.get("rainy"), clean or videos.get("clean")


def holds_videos(path: Path) -> bool:
    """Whether a path is a video, or a folder that holds videos and no images."""
    if not path.is_dir():
        return is_video(path)
    files = scan_folder(path).files
    return any(map(is_video, files)) and not any(map(is_image, files))


def pair_results(job: ScoringJob, match: str = "", half: str = "auto") -> JobResult:
    """Pair every image of a job with its partner; an image without a partner is a problem.

    ``match`` is the user's pattern for names, as in ``pair_names``; ``half`` says which half of
    side-by-side files is rainy, as in ``find_sides``.
    """
    if problem := _against_itself(job):
        return JobResult(job, problem=problem)
    try:
        sides = _sides(job, match, half)
        is_side = job.is_input and sides.rainy
        results = sides.rainy if is_side else images_by_name(job.results)
        if job.protocol == NIQE:
            return _without_clean(job, results, sides.rainy)
        if sides.rainy and sides.clean:
            by_rainy = _by_rainy(job, results, sides, match)
            if by_rainy is not None:
                return by_rainy
        return _by_clean(job, results, sides.clean, match, half)
    except UserError as error:
        return JobResult(job, problem=str(error))


def are_clips(jobs: Sequence[ScoringJob], frames: bool) -> bool:
    """Whether the jobs score clips: always if ``frames`` is set, otherwise if they hold videos.

    Raises UserError if some sets hold videos and others images, which cannot share a table.
    """
    if frames:
        return True
    videos = {
        job.dataset: path
        for job in jobs
        for path in (job.results, job.clean)
        if path and holds_videos(path)
    }
    others = [job for job in jobs if job.dataset not in videos]
    if videos and others:
        raise UserError(
            f"{next(iter(videos.values()))} holds videos, {others[0].results} does not; one table "
            "cannot hold both: choose with --sets, or score folders of frames as clips with "
            "--clips."
        )
    return bool(videos)


def pair_clips(job: ScoringJob, match: str = "", half: str = "auto") -> JobResult:
    """Pair every clip of a job with its partner; clips and frames without one are problems.

    The frames of two folders are paired by name, as in ``pair_results``. Each subfolder is then a
    clip; frames without subfolders are a single clip. A video is paired with a video or a folder by
    the name of the clip; its frames are paired when they are read.
    """
    if not any(path and holds_videos(path) for path in (job.results, job.clean)):
        return _by_folder(pair_results(job, match, half))
    if problem := _against_itself(job):
        return JobResult(job, problem=problem, unit="clip")
    try:
        clips = _named_clips(job.results, job.dataset)
        reference = job.clean or job.rainy
        expected = _named_clips(reference, job.dataset) if reference else clips
        partners = pair_names(list(clips), list(expected), match)
        clean: dict[str, Path | None] = {n: p if job.clean else None for n, p in expected.items()}
        paired = _one_each(job, clips, partners, clean, expected)
    except UserError as error:
        return JobResult(job, problem=str(error), unit="clip")
    paired.unit = "clip"
    paired.images = [_as_clip(clip, job, match, half) for clip in paired.images]
    return paired


def _against_itself(job: ScoringJob) -> str:
    """A sentence if the results are the clean images themselves, else ""."""
    if job.clean and not job.is_input and job.results.resolve() == job.clean.resolve():
        return f"{job.results} would be scored against itself; --target must be the clean set."
    return ""


def _named_clips(path: Path, name: str) -> Named:
    """The videos and folders of frames in ``path`` by name; ``path`` as ``name`` if it is a clip.

    Raises UserError if there is no clip, or if two have the same name.
    """
    if path.is_file():
        return {name: path}
    if not path.is_dir():
        raise UserError(f"There is no folder {path}.")
    content = scan_folder(path)
    if content.dead_links:
        raise UserError(dead_link_sentence(content.dead_links[0]))
    if any(map(is_image, content.files)):
        return {name: path}
    found: Named = {}
    for clip in [*filter(is_video, content.files), *content.folders]:
        if clip.is_dir() and not any(map(is_image, scan_folder(clip).files)):
            continue
        called = composed(clip.name if clip.is_dir() else clip.stem)
        if called in found:
            raise UserError(
                f"{clip} and {found[called]} are clips with the same name; keep only one."
            )
        found[called] = clip
    if not found:
        raise UserError(f"The folder {path} holds no clips, neither videos nor folders of frames.")
    return {clip: found[clip] for clip in natsorted(found, alg=ns.IGNORECASE)}


def _as_clip(image: ImageResult, job: ScoringJob, match: str, half: str) -> ClipResult:
    """A clip from its paths; the frames of folders are paired here."""
    clip = ClipResult(image.stem, image.restored, image.clean, problem=image.problem)
    folders = [path for path in (clip.restored, clip.clean) if path and path.is_dir()]
    if not clip.problem and len(folders) == (2 if job.clean else 1):
        frames = replace(job, results=folders[0], clean=clip.clean, rainy=None, is_input=False)
        paired = pair_results(frames, match, half)
        clip.frames, clip.problem = paired.images, paired.problem
    return clip


def _by_folder(paired: JobResult) -> JobResult:
    """Group paired frames into clips, one for each folder in the frames' names."""
    clips: dict[str, ClipResult] = {}
    for frame in paired.images:
        name = frame.stem.rpartition("/")[0] or paired.job.dataset
        clip = clips.setdefault(name, ClipResult(name))
        clip.frames.append(frame)
        clip.restored = clip.restored or (frame.restored and frame.restored.parent)
        clip.clean = clip.clean or (frame.clean and frame.clean.parent)
    expected = sum(bool(clip.clean or not paired.job.clean) for clip in clips.values())
    return replace(paired, images=list(clips.values()), num_expected=expected, unit="clip")


def _sides(job: ScoringJob, match: str, half: str) -> Sides:
    target = job.clean
    if target and job.rainy in (None, target) and side_folders(target, match) == (target, target):
        try:
            sides = find_sides(target, match=match, half=half)
        except UserError:
            if job.rainy or target.is_file():
                raise
        else:
            if job.rainy or sides.layout != "side_by_side":
                return sides
        # Clean images whose halves look alike, or pairs side by side: the results' size decides.
    rainy, clean = (images_by_name(f) if f else {} for f in (job.rainy, job.clean))
    return Sides("folders", rainy, clean)


def _without_clean(job: ScoringJob, results: Named, rainy: Named) -> JobResult:
    """Results scored without clean images: one for each rainy image, or all if none are given."""
    if not rainy:
        images = [ImageResult(name, path) for name, path in results.items()]
        return JobResult(job, images, num_expected=len(images))
    partners = pair_names(list(results), list(rainy))
    return _one_each(job, results, partners, dict.fromkeys(rainy), rainy)


def _by_rainy(job: ScoringJob, results: Named, sides: Sides, match: str) -> JobResult | None:
    """Pair the results of a set by the names of its rainy images, one result for each.

    Returns None if these names do not decide, so that the clean ones must (``_by_clean``).
    """
    pairs, problems, _ = pair_sides(sides, match)
    clean: dict[str, Path | None] = {name: pair.clean for name, pair in pairs.items()}
    if job.is_input and pairs:
        paired = _one_each(job, results, {name: name for name in pairs}, clean, sides.rainy)
        used = set(clean.values())
        paired.images += [
            ImageResult(name, clean=path, problem=f"missing: there is no rainy image for {path}")
            for name, path in sides.clean.items()
            if path not in used
        ]
    else:
        if sides.layout == "one_folder":  # test.py restores the clean images there as well
            results = {name: path for name, path in results.items() if name not in sides.clean}
        partners = pair_names(list(results), list(sides.rainy))
        is_known = any(partner is not None for partner in partners.values())
        is_one_to_one = len(pairs) == len(sides.clean)
        if problems or not (is_known or (not match and not is_one_to_one)):
            return None
        paired = _one_each(job, results, partners, clean, sides.rainy)
    for image in paired.images:
        image.rainy_half = sides.rainy_half
    return paired


def _by_clean(job: ScoringJob, results: Named, clean: Named, match: str, half: str) -> JobResult:
    """Pair the results of a set by the names of its clean images, one or more for each."""
    partners = pair_names(list(results), list(clean), match)
    counts = Counter(partner for partner in partners.values() if partner is not None)
    most = max(counts.values(), default=0)
    if most <= 1:
        paired = _one_each(job, results, partners, dict(clean), clean)
    else:
        images = []
        for name, path in results.items():
            partner = partners[name]
            image = ImageResult(name, path, None if partner is None else clean[partner])
            image.problem = "" if partner else _extra(path, job)
            images.append(image)
        for name, path in clean.items():
            if counts[name] < most:
                few = f"{counts[name] or 'no'} result{'' if counts[name] == 1 else 's'}"
                problem = f"missing: {job.results} has {few} for {path}, up to {most} for others"
                images.append(ImageResult(name, clean=path, problem=problem))
        paired = JobResult(job, images, num_expected=most * len(clean))
    both = next((i for i in paired.images if i.restored and i.clean), None)
    if both and _is_half_as_wide(both.restored, both.clean):
        decided = rainy_half(list(clean.values()), half)
        for image in paired.images:
            image.rainy_half = decided
    return paired


def _one_each(
    job: ScoringJob,
    results: Named,
    partners: dict[str, str | None],
    clean: dict[str, Path | None],
    expected: Named,
) -> JobResult:
    """One result for each of ``expected``, found by ``partners`` and compared with ``clean``.

    Images are named like the expected ones, however a method names its results, so that all
    methods of a table share the names.
    """
    result_of: dict[str, str] = {}
    extra = []
    for name, path in results.items():
        partner = partners.get(name)
        if partner is None or partner not in clean:
            extra.append(ImageResult(name, path, problem=_extra(path, job)))
        elif partner in result_of:
            also = results[result_of[partner]].name
            problem = f"extra: {path} and {also} both belong to {expected[partner]}"
            extra.append(ImageResult(name, path, problem=problem))
        else:
            result_of[partner] = name
    images = []
    for name in clean:
        image = ImageResult(name, clean=clean[name])
        if name in result_of:
            image.restored = results[result_of[name]]
        else:
            image.problem = (
                f"missing: {job.results} has no result named {name} (for {expected[name]})"
            )
        images.append(image)
    paired = JobResult(job, images + extra, num_expected=len(images))
    if not result_of:
        paired.problem = (
            f"no name in common: {job.results} holds images like {_first(results)}, "
            f"{_first_folder(expected)} like {_first(expected)}; state with --match PATTERN what "
            "the names share"
        )
    return paired


def _extra(path: Path, job: ScoringJob) -> str:
    return f"extra: {path} has no partner in {job.clean or job.rainy}"


def _first(names: Iterable[str]) -> str:
    return next(iter(names))


def _first_folder(files: Named) -> Path:
    return next(iter(files.values())).parent


def _is_half_as_wide(result: Path | None, clean: Path | None) -> bool:
    """Whether the clean file is as large as two results side by side."""
    try:
        sizes = [Image.open(path).size for path in (result, clean) if path]
    except OSError:
        return False  # reported when the files are read
    (width, height), both = sizes
    return both == (2 * width, height)
