"""Text files that list pairs: a rainy and a clean file in each line, as SPA-Data has them."""

from __future__ import annotations

import codecs
import os
import unicodedata
from pathlib import Path

from data.layouts import Sides
from utils.errors import UserError
from utils.images import SUFFIXES
from utils.wording import composed, plural

ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",  # PowerShell's redirection
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_listed_sides(path: Path) -> Sides:
    """The pairs of a text file: two names per line, rainy one first, relative to the file's folder.

    A leading slash means that folder too, as SPA-Data writes it; backslashes separate folders as
    well. Byte order marks are accepted, and names in any encoding. The names of the sides' images
    are those in the file, without suffix. Raises UserError for a line that does not name two
    existing files, for a rainy image with two clean ones, and for an empty list.
    """
    rainy: dict[str, Path] = {}
    clean: dict[str, Path] = {}
    partners: dict[str, str] = {}
    num_repeated = 0
    for number, line in enumerate(_lines(path), start=1):
        names = _names(line)
        if not names:
            continue
        if len(names) != 2:
            raise UserError(
                f"{path}, line {number} is {line!r}; a line names a rainy and a clean image, with "
                "a tab between them if names hold spaces."
            )
        files = [_file(path, number, name) for name in names]
        stems = [_stem(name) for name in names]
        for side, stem, file in zip((rainy, clean), stems, files, strict=True):
            if side.setdefault(stem, file) != file:
                raise UserError(
                    f"{path} lists {side[stem]} and {file}, which have the same name but for the "
                    "suffix; rename one of them."
                )
        num_repeated += stems[0] in partners
        if partners.setdefault(*stems) != stems[1]:
            raise UserError(f"{path} lists {files[0]} with two clean images.")
    if not rainy:
        raise UserError(f"The list of pairs {path} is empty.")
    repeated = f"left out: {plural(num_repeated, 'line')} of {path} that repeat an earlier one"
    return Sides("list", rainy, clean, partners, notes=(repeated,) if num_repeated else ())


def is_list_of_pairs(path: Path) -> bool:
    """Whether the first lines of a text file name two images each, which a README does not."""
    try:
        lines = [line for line in _lines(path, most=10) if line.strip()]
    except UserError:
        return False
    return bool(lines) and all(
        len(names := _names(line)) == 2
        and all(os.path.splitext(name)[1].lower() in SUFFIXES for name in names)
        for line in lines
    )


def _lines(path: Path, most: int | None = None) -> list[str]:
    try:
        content = path.read_bytes()
        encoding = next((e for bom, e in ENCODINGS.items() if content.startswith(bom)), "utf-8")
        # Names that are not UTF-8 keep their bytes, as Python's own names of files do.
        text = content.decode(encoding, "surrogateescape" if encoding != "utf-16" else "strict")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the list of pairs {path}: {error}.") from error
    return [line.rstrip("\r") for line in text.split("\n")][:most]


def _names(line: str) -> list[str]:
    return [name.strip() for name in (line.split("\t") if "\t" in line else line.split())]


def _file(path: Path, number: int, name: str) -> Path:
    """The file that a line of a list names. Raises UserError if it does not exist."""
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        for form in (spelling, *(unicodedata.normalize(f, spelling) for f in ("NFC", "NFD"))):
            inside = path.parent / form.lstrip("/")
            if inside.is_file():
                return inside
            if form.startswith("/") and Path(form).is_file():
                return Path(form)
    missing = path.parent / name.replace("\\", "/").lstrip("/")
    raise UserError(f"{path}, line {number}: there is no file {missing}.")


def _stem(name: str) -> str:
    return composed(os.path.splitext(name.replace("\\", "/").lstrip("/"))[0])
