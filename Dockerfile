# The two commands, and everything else, with nothing but Docker on the machine. Two images:
#
#   docker build --target cpu -t petrichor .
#   docker run --rm petrichor make demo
#   docker run --rm petrichor make test
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/photos" petrichor \
#       python test.py --input /photos/photo.jpg --output /photos/results
#
#   docker build --target cuda -t petrichor:cuda .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/photos" petrichor:cuda \
#       python test.py --device cuda --input /photos/photo.jpg --output /photos/results
#
# The second needs NVIDIA's driver and its container toolkit; CUDA itself comes with PyTorch. Data
# sets and runs are mounted, for training with --shm-size=2g: processes that load data share memory.

FROM python:3.12-slim-bookworm AS base
# No versions: those that Debian has replaced by security updates could not be found.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /petrichor
# Packages change less often than the code: their layer is kept when only the code has changed.
COPY Makefile requirements.txt ./
COPY tests/requirements.txt tests/
ENV PIP_NO_CACHE_DIR=1 \
    PATH=/petrichor/.venv/bin:$PATH

# PyTorch for processors alone: a tenth of the size.
FROM base AS cpu
RUN python -m venv .venv \
    && .venv/bin/pip install --index-url https://download.pytorch.org/whl/cpu torch torchvision \
    && make setup
COPY . .
# Copied files are newer than the installation, which is up to date; and whoever runs it may write
# results and runs here.
RUN touch .venv/installed && chmod a+rwx .
ENV HOME=/tmp
CMD ["make", "demo"]

# PyTorch as PyPI has it, with CUDA.
FROM base AS cuda
RUN make setup
COPY . .
RUN touch .venv/installed && chmod a+rwx .
ENV HOME=/tmp
CMD ["make", "demo"]
