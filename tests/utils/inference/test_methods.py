"""The methods of test.py --config: weights, sets, folders, and options that contradict."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configs import load_config
from utils.errors import UserError
from utils.inference.methods import Method, read_methods
from utils.inference.tiling import Tile


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_run(name: str, *lines: str, weights: bytes = b"w") -> Path:
    """A run's folder with the settings ``lines`` and a file of weights."""
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    (folder / "best.safetensors").write_bytes(weights)
    path = folder / "config.yml"
    path.write_text("\n".join([f"RUN: {{NAME: {name}}}", *lines]))
    return path


def read(paths: list[Path], overrides: tuple[str, ...] = (), weights: tuple = ()) -> list[Method]:
    return read_methods(paths, [load_config(path, list(overrides)) for path in paths], weights)


def test_a_method_is_built_from_its_settings() -> None:
    path = write_run(
        "mine",
        "MODEL: {NAME: dmsr_s}",
        "DATA: {VAL: datasets/val, MATCH: '(\\d+)', RAINY_HALF: left}",
        "TEST: {SETS: [a/Rain12/test, [b, wet]], OUTPUT: out, SCORES: tables, PROTOCOL: did,",
        "       TILE: 64x96, OVERLAP: 0, ENSEMBLE: 8, PRECISION: bf16}",
    )
    (method,) = read([path])
    assert method == Method(
        name="mine",
        model="dmsr_s",
        model_options={},
        weights=Path("runs/mine/best.safetensors"),
        output=Path("out/mine"),
        scores=Path("tables"),
        sets={"Rain12": Path("a/Rain12/test"), "wet": Path("b")},
        protocol="did",
        tile=Tile("", 64, 96),
        overlap=0,
        ensemble=8,
        precision="bf16",
        match=r"(\d+)",
        rainy_half="left",
    )
    (method,) = read([path], ("TEST.SETS", "", "TEST.OVERLAP", "-1", "TEST.METHOD", "ours"))
    assert method.sets == {"val": Path("datasets/val")} and method.overlap is None
    assert (method.name, method.output) == ("ours", Path("out/ours"))


def test_the_weights_are_the_best_of_the_run_or_those_given() -> None:
    first, second = write_run("first"), write_run("second")
    assert [m.weights.parent.name for m in read([first, second])] == ["first", "second"]
    given = (Path("x.pth"), Path("y.pth"))
    assert [m.weights for m in read([first, second], weights=given)] == list(given)
    with pytest.raises(UserError, match="2 --config and 1 --weights"):
        read([first, second], weights=given[:1])
    # a recipe names its run's folder; a moved run has its weights beside its config.yml
    recipe = Path("recipe.yml")
    recipe.write_text("RUN: {NAME: second}")
    assert read([recipe])[0].weights == Path("runs/second/best.safetensors")
    Path("runs/second").rename("archive")
    assert read([Path("archive/config.yml")])[0].weights == Path("archive/best.safetensors")
    with pytest.raises(UserError, match=r"no runs/second/best\.safetensors\. Train it by"):
        read([recipe])
    write_run("second")  # another run with the same name
    assert read([Path("archive/config.yml")])[0].weights == Path("archive/best.safetensors")


def test_methods_or_sets_that_would_be_mixed_are_refused() -> None:
    first, second = write_run("first"), write_run("second", "TEST: {SETS: [[elsewhere, val]]}")
    with pytest.raises(UserError, match=r"first/config.yml and .*second/config.yml would both"):
        read([first, second], ("TEST.METHOD", "m", "TEST.SETS", "a"))
    # networks with one name, each on a different set, share one row
    third = write_run("third", "TEST: {SETS: data/wet}")
    assert [m.name for m in read([first, third], ("TEST.METHOD", "m"))] == ["m", "m"]
    with pytest.raises(UserError, match=r"Two sets are called val, datasets/val and elsewhere"):
        read([first, second])
    fourth = write_run("fourth", "TEST: {PROTOCOL: did}")
    with pytest.raises(UserError, match="val has two protocols, its own and did"):
        read([first, fourth])
    with pytest.raises(UserError, match="a set 'a/b'; a name of a set holds no slash"):
        read([first], ("TEST.SETS", "[[x, a/b]]"))
    with pytest.raises(UserError, match="names no set"):
        read([first], ("DATA.VAL", ""))


def test_the_fingerprint_depends_on_content_and_options() -> None:
    path = write_run("mine", "MODEL: {NAME: dmsr_s}")
    before = read([path])[0].fingerprint()
    os.utime("runs/mine/best.safetensors", ns=(0, 0))
    assert read([path])[0].fingerprint() == before
    assert read([path], ("TEST.OUTPUT", "elsewhere", "TEST.SETS", "x"))[0].fingerprint() == before
    for change in (("TEST.TILE", "64"), ("TEST.OVERLAP", "8"), ("TEST.ENSEMBLE", "8"),
                   ("TEST.PRECISION", "bf16"), ("MODEL.OPTIONS.width", "8")):  # fmt: skip
        assert read([path], change)[0].fingerprint() != before, change
    Path("runs/mine/best.safetensors").write_bytes(b"v")
    assert read([path])[0].fingerprint() != before
    # a TensorFlow checkpoint consists of several files with one prefix
    for name in ("epoch4.index", "epoch4.data-00000-of-00001", "epoch44.index"):
        Path(name).write_bytes(name.encode())
    found = read([path], weights=(Path("epoch4"),))[0].fingerprint()
    Path("epoch44.index").write_bytes(b"another checkpoint")
    assert read([path], weights=(Path("epoch4"),))[0].fingerprint() == found
    Path("epoch4.data-00000-of-00001").write_bytes(b"changed")
    assert read([path], weights=(Path("epoch4"),))[0].fingerprint() != found
    with pytest.raises(UserError, match=r"no file nothing\.pth"):
        read([path], weights=(Path("nothing.pth"),))[0].fingerprint()
