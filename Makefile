# make demo   sets up .venv, makes pairs, derains them with the shipped network and with one that it
#             trains in minutes, scores both
# make test   sets up .venv, checks the style, runs the tests

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow setup clean-demo

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
	$(BIN)/python test.py --input demo/pairs/val/input --output demo/results/petrichor/val
	$(BIN)/python train.py --config configs/demo.yml
	$(BIN)/python test.py --weights demo/runs/demo/best.safetensors \
		--input demo/pairs/val/input --output demo/results/dmsr_s/val
	$(BIN)/python evaluate.py --benchmark demo/results --datasets demo/pairs --sets val \
		--methods dmsr_s petrichor --output demo/scores
	$(BIN)/python tools/compare.py --rainy demo/pairs/val/input --clean demo/pairs/val/target \
		--results demo/results/dmsr_s/val demo/results/petrichor/val \
		--names "after minutes" "as shipped" --output demo/comparison.png
	@echo "Look at demo/comparison.png: rainy, minutes of training, the shipped network, clean."

# Only what the demo itself writes.
clean-demo:
	rm -rf demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow
