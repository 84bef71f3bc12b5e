# The checkout and its environment, every version as in requirements.lock. More than 6 GB, most of it torch with CUDA.
#
#   docker build -t syre .
#   docker run --rm syre                                      make fig4: train, judge and draw figure 4 on the CPU
#   docker run --rm syre make fig5 SCALE=smoke                any other command of the README
#   docker run --rm -v "$PWD/outputs:/syre/outputs" -v "$PWD/results:/syre/results" syre     and keep what it leaves
#   docker run --rm --gpus all -v "$HOME/.cache/syre:/data" -e SYRE_DATA=/data syre make fig5       on a GPU
#
# The last one has the data sets that `make data` has fetched into ~/.cache/syre.
#
# Never built where it was written, for want of a Docker daemon. The tests check that its sources and commands exist;
# `make env`, all that it builds, is what every checkout runs.

# 3.11 is the last Python for which pybullet (make ant, and fig6 in PyBullet) has wheels.
FROM python:3.11-slim

# git: a run says which commit its numbers come from.
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*

WORKDIR /syre
COPY . .
RUN UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 make env
CMD ["make", "fig4"]
