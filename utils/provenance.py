"""Where a result comes from: date, command, commit and versions, for tables and for runs."""

from __future__ import annotations

import contextlib
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("numpy", "opencv-python-headless", "pyiqa", "torch")


def provenance(**more: Any) -> dict[str, Any]:
    """What a result file records about its origin, followed by ``more``."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        **more,
    }


def commit() -> str | None:
    """The commit of this code, with a plus if files differ from it; None outside a clone."""
    try:
        done = [
            subprocess.run(
                ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.CalledProcessError):  # no git, or not a clone
        return None
    return done[0] + "+" * bool(done[1])


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
