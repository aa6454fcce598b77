# make demo   sets up .venv, makes pairs, trains a small network for minutes, restores held-out pairs
#             with it and with the shipped network, and scores both
# make test   sets up .venv, checks style and types, runs the tests
#
# make test-extras, test-slow, test-gpu: the tests of optional parts, the slow tests, those for CUDA

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-extras test-slow test-gpu setup clean-demo

setup: .venv/installed

.venv/installed: requirements.txt tests/requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check \
		-r requirements.txt -r tests/requirements.txt
	touch $@

# The photographs ship inside scikit-image: nothing is downloaded. Two of them are held out.
demo: setup clean-demo
	$(BIN)/python tools/make_rain.py --clean skimage --output demo/pairs --variants 8 \
		--hold-out astronaut,chelsea \
		--density 0.35 --length 45 --width 1.6 --brightness 0.6 --veil 0
	$(BIN)/python train.py --config configs/demo.yml
	$(BIN)/python test.py --config configs/demo.yml --config configs/petrichor.yml \
		--weights demo/runs/demo/best.safetensors --weights weights/petrichor.safetensors \
		TEST.SETS "[[demo/pairs/val, val]]" TEST.OUTPUT demo/results TEST.SCORES demo/scores
	$(BIN)/python tools/compare.py --target demo/pairs/val \
		--results demo/results/dmsr_s/val demo/results/petrichor/val \
		--names "after minutes" "as shipped" --output demo/comparison.png
	@echo "Look at demo/comparison.png: rainy, minutes of training, the shipped network, clean."

# Everything that the demo writes.
clean-demo:
	rm -rf demo

# One process per core; the tests of a file stay together, because they share fixtures.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

# Python packages are installed in any case, programs only by root on a machine with apt-get.
test-extras: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -r tests/requirements-extras.txt
	@if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
			--no-install-recommends $(PROGRAMS) > /dev/null \
			|| echo "apt-get failed: tests that need $(PROGRAMS) are skipped"; \
	fi
	$(PYTEST) -m "extras and not slow"

PROGRAMS := chromium chromium-driver g++ octave octave-image poppler-utils \
	texlive-latex-base texlive-latex-recommended texlive-latex-extra

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-gpu: setup
	$(BIN)/python -m pytest -m gpu -v
