# Everything here, with nothing but Docker on the machine. Two images:
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
# The second needs NVIDIA's driver and container toolkit; CUDA itself comes with PyTorch. Mount data
# sets and runs as above, and train with --shm-size=2g: PyTorch's and NCCL's processes share memory.

FROM python:3.12-slim-bookworm AS base
# No pinned versions: Debian removes the ones that its security updates replace.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /petrichor
# Packages change less often than the code, so their layer is reused when only the code changes.
COPY Makefile requirements.txt ./
COPY tests/requirements.txt tests/
ENV PIP_NO_CACHE_DIR=1 \
    PATH=/petrichor/.venv/bin:$PATH

# PyTorch without CUDA: a tenth of the size.
FROM base AS cpu
RUN python -m venv .venv \
    && .venv/bin/pip install --index-url https://download.pytorch.org/whl/cpu torch torchvision \
    && make setup
COPY . .
# Copied files look newer than the installation, which is up to date. Any user may write results and
# runs here.
RUN touch .venv/installed && chmod a+rwx .
ENV HOME=/tmp
CMD ["make", "demo"]

# PyTorch from PyPI, with CUDA.
FROM base AS cuda
RUN make setup
COPY . .
RUN touch .venv/installed && chmod a+rwx .
ENV HOME=/tmp
CMD ["make", "demo"]
