# make demo   sets up .venv, makes pairs, trains dmsr_s for a few minutes, derains, scores
# make test   sets up .venv, checks the style, runs the tests

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

.PHONY: demo test test-slow setup clean-demo

setup: .venv/installed

.venv/installed: requirements.txt tests/requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check \
		-r requirements.txt -r tests/requirements.txt
	touch $@

# The photographs ship inside scikit-image: nothing is downloaded. Two of them are held out.
demo: setup clean-demo
	$(BIN)/python tools/make_rain.py --clean skimage --output $(DEMO)/pairs --variants 8 \
		--hold-out astronaut,chelsea \
		--density 0.35 --length 45 --width 1.6 --brightness 0.6 --veil 0
	$(BIN)/python train.py --config configs/demo.yml
	$(BIN)/python test.py --weights $(DEMO)/runs/demo/best.safetensors \
		--input $(DEMO)/pairs/val/input --output $(DEMO)/results/dmsr_s
	$(BIN)/python evaluate.py --results $(DEMO)/results/dmsr_s \
		--targets $(DEMO)/pairs/val/target --inputs $(DEMO)/pairs/val/input \
		--output $(DEMO)/scores
	$(BIN)/python tools/compare.py --rainy $(DEMO)/pairs/val/input \
		--results $(DEMO)/results/dmsr_s --clean $(DEMO)/pairs/val/target \
		--output $(DEMO)/comparison.png
	@echo "Look at $(DEMO)/comparison.png: rainy, derained, clean."

# Only what the demo itself writes.
clean-demo:
	rm -rf $(DEMO)

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow
