"""Which names belong together: ``1_3`` to ``1``, ``rain-001`` to ``norain-001``, ``001`` to ``1``.

Names are file names without suffix, with the subfolders before them where there are some. Only
names count, never positions in a sorted list. ``pair_names`` tries the ways in which the field's
data sets and programs name their files, from the strictest on, and takes the first by which most
names find a partner; ``match`` is the user's own way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from utils.errors import UserError

Tokens = tuple[str, ...]

_TOKEN = re.compile(r"\d+|[^\W\d_]+|[\W_]+")  # digits, letters, separators


def pair_names(
    names: Sequence[str], partners: Sequence[str], match: str = ""
) -> dict[str, str | None]:
    """The partner of each of ``names``, None where it has none; several may share a partner.

    ``match`` is a regular expression: names belong together where its groups (without groups, all
    that it matches) hold the same text. Raises UserError for a pattern that is none and for two
    partners which it does not tell apart.
    """
    if match:
        return _pair_by_pattern(names, partners, match)
    known = set(partners)
    if known.issuperset(names):
        return {name: name for name in names}
    for read in (_as_they_are, _without_affixes, _without_zeros):
        keys, partner_keys = read(names), read(partners)
        by_key = dict(zip(partner_keys, partners, strict=True))
        if len(by_key) < len(partners) or len(set(keys)) < len(names):
            continue  # this reading takes two names for one
        for partner_of in (by_key.get, partial(_longest_start, by_key)):
            found = {n: partner_of(key) for n, key in zip(names, keys, strict=True)}
            count = sum(partner is not None for partner in found.values())
            if 2 * count > len(names):
                return found
    return {name: name if name in known else None for name in names}


def has_word(name: str, words: Iterable[str]) -> bool:
    """Whether a name holds one of ``words`` as a word of its own: ``gt`` in ``1_GT``."""
    return not set(words).isdisjoint(_tokens(name.casefold()))


def _pair_by_pattern(
    names: Sequence[str], partners: Sequence[str], match: str
) -> dict[str, str | None]:
    try:
        pattern = re.compile(match)
    except re.error as error:
        raise UserError(
            f"The pattern '{match}' is no regular expression ({error}); one such as '(\\d+)' says "
            "with a group what the names of a pair share."
        ) from error

    def key(name: str) -> tuple[str | None, ...] | None:
        found = pattern.search(name)
        return None if found is None else found.groups() or (found[0],)

    by_key: dict[tuple[str | None, ...], str] = {}
    for partner in partners:
        partner_key = key(partner)
        if partner_key is None:
            continue
        if partner_key in by_key:
            raise UserError(
                f"The pattern '{match}' takes {by_key[partner_key]} and {partner} for one; it must "
                "tell all clean images apart."
            )
        by_key[partner_key] = partner
    return {name: by_key.get(key(name) or ()) for name in names}


def _tokens(name: str) -> Tokens:
    return tuple(_TOKEN.findall(name))


def _as_they_are(names: Sequence[str]) -> list[Tokens]:
    return [_tokens(name) for name in names]


def _without_affixes(names: Sequence[str]) -> list[Tokens]:
    """Lower-case names without the words that all of them begin or end with.

    A beginning holds no digits (``rain-`` of ``rain-1``); an end may, behind something else (``x2``
    of ``norain-1x2``), so that a number is never cut to pieces. Where nothing would be left of a
    name, it stays whole.
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
