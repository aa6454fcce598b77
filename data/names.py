"""Which names belong together: ``1_1`` to ``1``, ``rain-001`` to ``norain-001``, ``001`` to ``1``.

A name is a file's path below its side's folder, without suffix: ``1`` or ``file1/a``. Only names
count, never positions in a sorted list. Folders pair with folders and file names with file names,
so a number in a folder's name never replaces one in a file's name. ``pair_names`` tries the ways in
which the field's data sets and programs name their files, the strictest first, and takes the first
by which most names find a partner; ``match`` is the user's own way. Names are compared in Unicode's
composed form (NFC), since macOS decomposes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from utils.errors import UserError
from utils.wording import composed

Tokens = tuple[str, ...]
Group = tuple[list[str], list[str]]  # names, and the partners that they may have

_TOKEN = re.compile(r"\d+|[^\W\d_]+|[\W_]+")  # digits, letters, separators

CLEAN_GROUP = "clean"  # (?P<clean>...) in a pattern marks the clean images


def pair_names(
    names: Sequence[str], partners: Sequence[str], match: str = ""
) -> dict[str, str | None]:
    """The partner of each of ``names``, or None; several may share a partner.

    ``match`` is a regular expression: names belong together if its groups (without groups, all that
    it matches) hold the same text. Raises UserError for an invalid pattern and for two partners
    that it does not tell apart.
    """
    if match:
        return _pair_by_pattern(names, partners, match)
    known = {composed(partner): partner for partner in partners}
    exact = {name: known.get(composed(name)) for name in names}
    if None not in exact.values():
        return exact
    groups = _groups(names, partners)
    for read in (_as_they_are, _without_affixes, _without_zeros):
        for by_start in (False, True):
            found = _read_groups(groups, read, by_start)
            if found is not None and 2 * len(found) > len(names):
                return {name: found.get(name) for name in names}
    return _by_folder(names, partners) or exact


def has_word(name: str, words: Iterable[str]) -> bool:
    """Whether a name holds one of ``words`` as a whole word: ``gt`` in ``1_GT``."""
    return not set(words).isdisjoint(_tokens(name.casefold()))


def digit_free(name: str) -> str:
    """A name with N for each number, which files of one kind share: ``rain-N``."""
    return re.sub(r"\d+", "N", name)


# --- folders -------------------------------------------------------------------------------------


def _groups(names: Sequence[str], partners: Sequence[str]) -> list[Group]:
    """Which names may belong to which partners by their folders.

    If the partners are in several folders, each folder of names belongs to one of them; names
    outside all folders may belong to any partner, provided that the partners' file names differ.
    """
    by_folder = _by_folder_of(names)
    partners_by_folder = _by_folder_of(partners)
    if len(partners_by_folder) <= 1:
        return [(group, list(partners)) for group in by_folder.values()]
    if list(by_folder) == [""]:
        is_unique = len({_stem(partner) for partner in partners}) == len(partners)
        return [(list(names), list(partners))] if is_unique else []
    partner_of = pair_names(
        [folder.replace("/", " ") for folder in by_folder],
        [folder.replace("/", " ") for folder in partners_by_folder],
    )
    spaced = {folder.replace("/", " "): found for folder, found in partners_by_folder.items()}
    return [
        (group, spaced[partner])
        for folder, group in by_folder.items()
        if (partner := partner_of[folder.replace("/", " ")]) is not None
    ]


def _by_folder(names: Sequence[str], partners: Sequence[str]) -> dict[str, str | None]:
    """The partners of names whose folders are named like them, as in ``1/a`` and ``1/b`` for ``1``.

    Empty unless that holds for all names.
    """
    by_folder = _by_folder_of(names)
    if "" in by_folder:
        return {}
    known = {composed(_stem(partner)): partner for partner in partners}
    found = {folder: known.get(composed(_stem(folder))) for folder in by_folder}
    if None in found.values():
        return {}
    return {name: found[folder] for folder, group in by_folder.items() for name in group}


def _by_folder_of(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition("/")[0], []).append(name)
    return groups


def _stem(name: str) -> str:
    return name.rpartition("/")[2]


# --- readings ------------------------------------------------------------------------------------


def _read_groups(
    groups: Sequence[Group], read: Callable[[Sequence[str]], list[Tokens]], by_start: bool
) -> dict[str, str] | None:
    """The pairs by one reading of the file names; None if it takes two names for one.

    ``by_start`` also pairs a name with a partner whose name it begins with.
    """
    found: dict[str, str] = {}
    for names, partners in groups:
        keys, partner_keys = (
            read([composed(_stem(name)) for name in side]) for side in (names, partners)
        )
        by_key = dict(zip(partner_keys, partners, strict=True))
        if len(by_key) < len(partners) or len(set(keys)) < len(names):
            return None
        partner_of = partial(_longest_start, by_key) if by_start else by_key.get
        for name, key in zip(names, keys, strict=True):
            partner = partner_of(key)
            if partner is not None:
                found[name] = partner
    return found


def _tokens(name: str) -> Tokens:
    return tuple(_TOKEN.findall(name))


def _as_they_are(names: Sequence[str]) -> list[Tokens]:
    return [_tokens(name) for name in names]


def _without_affixes(names: Sequence[str]) -> list[Tokens]:
    """Lower-case names without the words that all of them begin or end with.

    A beginning that is left out holds no digits (``rain-`` of ``rain-1``). An end may hold digits
    behind something else (``x2`` of ``norain-1x2``), so that no number is cut to pieces. At least
    one word of each name stays.
    """
    keys = [_tokens(name.casefold()) for name in names]
    start = _common(keys, lambda shared: all(not token.isdigit() for token in shared))
    rest = [key[start:] for key in keys]
    end = _common([key[::-1] for key in rest], lambda _: True)
    while end and rest[0][-end].isdigit():
        end -= 1
    return [key[: len(key) - end] for key in rest]


def _common(keys: Sequence[Tokens], allowed: Callable[[Tokens], bool]) -> int:
    """How many tokens all ``keys`` begin with, as far as ``allowed``, leaving one of each."""
    count = 0
    longest = min((len(key) for key in keys), default=0) - 1
    while count < longest:
        shared = {key[: count + 1] for key in keys}
        if len(shared) > 1 or not allowed(shared.pop()):
            break
        count += 1
    return count


def _without_zeros(names: Sequence[str]) -> list[Tokens]:
    """As ``_without_affixes``, and 001 is 1."""
    return [tuple(_number(token) for token in key) for key in _without_affixes(names)]


def _number(token: str) -> str:
    return token.lstrip("0") or "0" if token.isdigit() else token


def _longest_start(by_key: dict[Tokens, str], key: Tokens) -> str | None:
    """The partner whose key is the longest beginning of ``key``: ``1_derained`` goes to ``1``."""
    starts = (key[:length] for length in range(len(key), 0, -1))
    return next((by_key[start] for start in starts if start in by_key), None)


# --- the user's pattern --------------------------------------------------------------------------


class Pattern:
    """A regular expression that says which part of a name counts."""

    def __init__(self, match: str) -> None:
        """Raises UserError for an invalid regular expression."""
        try:
            self._pattern = re.compile(match)
        except re.error as error:
            raise UserError(
                f"The pattern '{match}' is not a regular expression ({error}); the group of one "
                "such as '(\\d+)' is what the names of a pair share."
            ) from error
        self.marks_clean = CLEAN_GROUP in self._pattern.groupindex

    def key(self, name: str) -> tuple[str | None, ...] | None:
        """The text of the groups, without ``(?P<clean>...)``; None if nothing matches."""
        found = self._pattern.search(composed(name))
        if found is None:
            return None
        mark = self._pattern.groupindex.get(CLEAN_GROUP)
        groups = tuple(
            text for number, text in enumerate(found.groups(), start=1) if number != mark
        )
        if groups or mark is None or found[mark] is None:
            return groups or (found[0],)
        before, after = found.string[found.start() : found.start(mark)], found.end(mark)
        return (before + found.string[after : found.end()],)

    def is_clean(self, name: str) -> bool:
        """Whether the group ``(?P<clean>...)`` takes part in the match."""
        found = self._pattern.search(composed(name))
        return self.marks_clean and found is not None and found[CLEAN_GROUP] is not None


def _pair_by_pattern(
    names: Sequence[str], partners: Sequence[str], match: str
) -> dict[str, str | None]:
    pattern = Pattern(match)
    by_key: dict[tuple[str | None, ...], str] = {}
    for partner in partners:
        key = pattern.key(partner)
        if key is None:
            continue
        if key in by_key:
            raise UserError(
                f"The pattern '{match}' takes {by_key[key]} and {partner} for one; it must tell "
                "all clean images apart."
            )
        by_key[key] = partner
    return {name: by_key.get(pattern.key(name) or ()) for name in names}
