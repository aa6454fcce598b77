"""Which names belong together, in the ways of the field's data sets and programs."""

from __future__ import annotations

import pytest

from data.names import has_word, pair_names
from utils.errors import UserError

NUMBERS = range(1, 12)


@pytest.mark.parametrize(
    ("name", "partner"),
    [
        ("{}", "{}"),
        ("rain-{:03}", "norain-{:03}"),
        ("rain-{} x2", "norain-{}"),
        ("norain-{}x2", "norain-{}"),
        ("{}_DR", "{}_GT"),
        ("{:03}", "{}"),
        ("{}", "{:04}"),
        ("img_{:03}_rain", "img_{}_clean"),
        ("{}_derained", "{}"),
        ("DMSR_{}", "{}"),
        ("{}_of_dmsr_v2", "{}"),
        ("file{0}/{0}", "file{0}/{0}"),
    ],
)
@pytest.mark.parametrize("numbers", [NUMBERS, range(7, 8)])
def test_one_name_for_each(name: str, partner: str, numbers: range) -> None:
    expected = {name.format(i): partner.format(i) for i in numbers}
    partners = list(expected.values())[::-1]
    assert pair_names(list(expected), partners) == expected


@pytest.mark.parametrize(
    ("name", "partner"),
    [("{0}_{1}", "{0}"), ("rain-{0:03}-{1}", "norain-{0}"), ("{0}_{1}_x", "{0}")],
)
def test_many_names_for_one(name: str, partner: str) -> None:
    expected = {name.format(i, k): partner.format(i) for i in (1, 2, 10, 100) for k in (1, 2, 14)}
    assert pair_names(list(expected), ["1", "2", "10", "100"] if partner == "{0}" else
                      [partner.format(i) for i in (1, 2, 10, 100)]) == expected  # fmt: skip


def test_names_without_digits() -> None:
    names = ["lena_derained", "baboon_derained"]
    assert pair_names(names, ["lena", "baboon"]) == dict(
        zip(names, ["lena", "baboon"], strict=True)
    )
    assert pair_names(["lena_derained"], ["lena"]) == {"lena_derained": "lena"}


def test_a_stray_name_is_not_pressed_into_a_pair() -> None:
    names = [*map(str, NUMBERS), "3_old", "003"]
    found = pair_names(names, [*map(str, NUMBERS)])
    assert found.pop("3_old") is None and found.pop("003") is None
    assert found == {str(i): str(i) for i in NUMBERS}
    assert pair_names(["a", "b"], ["1", "2"]) == {"a": None, "b": None}
    assert pair_names(["a1", "b1"], ["a2", "b2"]) == {"a1": None, "b1": None}
    # 01 and 1 are one number, so nothing but the names themselves can be meant
    assert pair_names(["1", "01"], ["1", "2", "3"]) == {"1": "1", "01": None}


def test_a_pattern_says_what_counts() -> None:
    names, partners = ["a7-x1", "a7-x2", "a8-x1"], ["clean of 8", "clean of 7", "no number"]
    expected = dict(zip(names, ["clean of 7", "clean of 7", "clean of 8"], strict=True))
    assert pair_names(names, partners, r"^\D*(\d+)") == expected
    assert pair_names(["s1-2", "s2-1"], ["1x2", "2x1"], r"(\d)\D(\d)") == {
        "s1-2": "1x2",
        "s2-1": "2x1",
    }
    with pytest.raises(UserError, match=r"'\(\\d' is not a regular expression"):
        pair_names(names, partners, r"(\d")
    with pytest.raises(UserError, match="takes clean of 8 and clean of 7 for one"):
        pair_names(names, partners, "clean")


def test_words_in_names() -> None:
    assert has_word("1_GT", ["gt"]) and has_word("norain-1x2", ["norain"])
    assert not has_word("height", ["gt"]) and not has_word("rain-1", ["norain"])


def test_the_longest_beginning_wins() -> None:
    partners = ["1", "1_2", "3"]
    expected = {"1_2_derained": "1_2", "1_derained": "1", "3_derained": "3"}
    # read as they are: another reading would strip the common end and see no beginnings
    assert pair_names([*expected, "4"], partners) == expected | {"4": None}
