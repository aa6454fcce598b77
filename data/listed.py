"""Text files that list pairs: a rainy and a clean file in each line, as SPA-Data has them."""

from __future__ import annotations

import codecs
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from data.names import composed
from utils.errors import UserError
from utils.images import SUFFIXES

ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",  # PowerShell's redirection
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class ListedPair:
    """A line's files; their names as listed, without suffix, are those of the pair."""

    name: str
    rainy: Path
    clean_name: str
    clean: Path


def read_list(path: Path) -> list[ListedPair]:
    """The pairs of a text file: two names per line, rainy one first, from the file's folder on.

    A leading slash counts as from that folder too, as SPA-Data writes it; backslashes separate
    folders as well. Byte order marks are accepted, and names in any encoding. Raises UserError for
    a line that does not name two files that exist, and for an empty list.
    """
    pairs = []
    for number, line in enumerate(_lines(path), start=1):
        names = _names(line)
        if not names:
            continue
        if len(names) != 2:
            raise UserError(
                f"{path}, line {number} is {line!r}; a line names a rainy and a clean image, with "
                "a tab between them where names hold spaces."
            )
        files = []
        for name in names:
            file = _file(path.parent, name)
            if file is None:
                missing = path.parent / name.replace("\\", "/").lstrip("/")
                raise UserError(f"{path}, line {number}: there is no file {missing}.")
            files.append(file)
        pairs.append(ListedPair(_stem(names[0]), files[0], _stem(names[1]), files[1]))
    if not pairs:
        raise UserError(f"The list of pairs {path} is empty.")
    return pairs


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


def _file(folder: Path, name: str) -> Path | None:
    """The file that a list in ``folder`` names, or None."""
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        for form in (spelling, *(unicodedata.normalize(f, spelling) for f in ("NFC", "NFD"))):
            inside = folder / form.lstrip("/")
            if inside.is_file():
                return inside
            if form.startswith("/") and Path(form).is_file():
                return Path(form)
    return None


def _stem(name: str) -> str:
    return composed(os.path.splitext(name.replace("\\", "/").lstrip("/"))[0])
