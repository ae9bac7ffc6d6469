#!/usr/bin/env bash
# Collects what accelerator.py needs beside JAX's container image: Keras, pycocotools and what they need, under 40 MB.
#   benchmarks/accelerator_wheels.sh wheels            # for Python 3.12 on x86-64
#   benchmarks/accelerator_wheels.sh wheels 3.13
# There, with JAX and this checkout:
#   python3 -m pip install --no-index --no-deps --target site wheels/*.whl
#   PYTHONPATH=site KERAS_BACKEND=jax python3 benchmarks/accelerator.py --json gpu.json
set -euo pipefail
folder=${1:?the folder for the wheels}; version=${2:-3.12}; python=${PYTHON:-python3}
most=$((40 * 1024 * 1024))
packages=("keras>=3.7,<4" "pycocotools>=2.0.8,<3" absl-py h5py markdown-it-py mdurl namex optree packaging pygments rich typing_extensions)
mkdir -p "$folder"
platforms=()
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014; do platforms+=(--platform "${platform}_x86_64"); done
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
  "${platforms[@]}" -d "$folder" "${packages[@]}"
size=$(cat "$folder"/*.whl | wc -c)
echo "$(ls "$folder"/*.whl | wc -l) wheels, $((size / 1024 / 1024)) MB in $folder"
[ "$size" -le "$most" ] || { echo "more than 40 MB: remove what is older from $folder"; exit 1; }
