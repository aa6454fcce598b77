"""How scripts end: messages, exit statuses, outputs without a reader."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

BEGIN = "import sys; from utils.errors import UserError, run_main"


def ended(code: str, **streams: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"{BEGIN}\n{code}"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run(command, cwd=ROOT, text=True, timeout=60, **options)


def test_a_mistake_is_its_sentence_and_a_bug_keeps_its_traceback() -> None:
    done = ended("def main(): raise UserError('no such thing')\nrun_main(main)")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: no such thing\n")
    done = ended("run_main(lambda: 1 / 0)")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    assert ended("run_main(lambda: None)").returncode == 0
    assert ended("run_main(lambda: 7)").returncode == 7


@pytest.mark.parametrize(
    "main",
    ["print('much ' * 100_000)", "print('little')", "sys.exit(print('as argparse helps'))"],
    ids=["much", "little", "help"],
)
def test_a_script_without_a_reader_ends_without_a_traceback(main: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = ended(f"run_main(lambda: {main})", stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("main", ["print('little')", "sys.exit(print('as argparse helps'))"])
def test_output_to_a_full_disk_is_a_failure(main: str) -> None:
    with open("/dev/full", "w") as full:
        done = ended(f"run_main(lambda: {main})", stdout=full)
    expected = "error: Cannot write the output: No space left on device.\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_a_mistake_that_cannot_be_printed_is_a_failure() -> None:
    with open("/dev/full", "w") as full:
        done = ended("def main(): raise UserError('no')\nrun_main(main)", stderr=full)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_script_runs_with_a_closed_output(closed: str) -> None:
    """As with ``2>&-``, or if a program without a console starts the script."""
    other = "stderr" if closed == "stdout" else "stdout"
    code = (
        "def main():\n"
        f"    print('lost', file=sys.{closed}, flush=True)\n"
        f"    print('done', file=sys.{other})\n"
        "run_main(main)"
    )
    number = {"stdout": 1, "stderr": 2}[closed]
    done = ended(code, **{closed: None}, preexec_fn=lambda: os.close(number))
    assert (done.returncode, getattr(done, other)) == (0, "done\n")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_names_outside_the_encoding_are_printed_escaped(encoding: str) -> None:
    """In an ASCII locale, and for names that are not UTF-8, as in old archives."""
    code = (
        "import os\n"
        "def main():\n"
        "    print(os.fsdecode(b'rain-\\xff.png'), '\\u96e8')\n"
        "    raise UserError(os.fsdecode(b'\\xfe'))\n"
        "run_main(main)"
    )
    done = ended(code, env={**os.environ, "PYTHONIOENCODING": encoding}, encoding=encoding)
    rain = "\u96e8" if encoding == "utf-8" else "\\u96e8"
    assert done.stdout == f"rain-\\udcff.png {rain}\n"
    assert (done.returncode, done.stderr) == (1, "error: \\udcfe\n")
