"""The command line of train.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from utils.training.stopping import EXIT_STOPPED

DEFAULT_CONFIG = Path(__file__).parents[2] / "training.yml"


def parse_arguments(settings_help: str) -> argparse.Namespace:
    """Parse the options of train.py; ``settings_help`` describes the settings in --help."""
    parser = argparse.ArgumentParser(
        description="Train a deraining network.",
        epilog="SIGINT, SIGTERM, SIGUSR1 and SIGHUP save the run and end it with status "
        f"{EXIT_STOPPED}; the\nsame command with --resume continues it. A mistake ends it with 1.\n"
        f"\nThe settings and their defaults (configs/__init__.py):\n\n{settings_help}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help="YAML file with settings"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", action="store_true", help="continue the run, or start it if it is new"
    )
    start.add_argument(
        "--resume-from",
        type=Path,
        metavar="CHECKPOINT",
        help="continue from a run's latest.pth or previous.pth",
    )
    start.add_argument(
        "--dry-run", action="store_true", help="take a few steps, print the plan, write nothing"
    )
    parser.add_argument(
        "--accept-changed-data",
        action="store_true",
        help="resume although image files have changed; with more or fewer of them the current "
        "epoch may show an image twice or not at all",
    )
    parser.add_argument(
        "--stop-after-epoch", action="store_true", help="end after the current epoch"
    )
    parser.add_argument("settings", nargs="*", metavar="KEY VALUE", help="OPTIM.BATCH_SIZE 8 ...")
    return parser.parse_intermixed_args()
