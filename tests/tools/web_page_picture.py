"""Make the README's picture of the local page: an example, derained by the shipped network.

    python tests/tools/web_page_picture.py tools/pictures/web_page.png

It needs Gradio, selenium and Chromium.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the root holds our packages

from tests.helpers import read_until, start_script
from tests.tools.test_web_page import derain, wait
from tests.utils.evaluation.browser import chromium, set_screen
from utils.files import atomic_write

WIDTH, HEIGHT = 1000, 760


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the README's picture of the local page.")
    parser.add_argument("output", type=Path, metavar="FILE", help="a .png")
    args = parser.parse_args()
    server = start_script("tools/web_page.py", "--port", 0, "--no-browser")
    try:
        address = read_until(server, "Open http://").split()[1]
        with chromium() as browser:
            set_screen(browser, WIDTH, HEIGHT)
            browser.get(address)
            wait(browser, "document.querySelectorAll('#examples img').length == 3")
            browser.find_element("css selector", "#examples button").click()
            wait(browser, "document.querySelector('#photo').innerText.includes('astronaut')")
            derain(browser, 480)
            wait(browser, "!document.querySelector('#download').disabled")
            # without focus marks and unfinished animations
            browser.execute_script("document.activeElement.blur()")
            wait(browser, "document.getAnimations().length == 0")
            atomic_write(args.output, lambda path: browser.save_screenshot(str(path)))
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


if __name__ == "__main__":
    main()
