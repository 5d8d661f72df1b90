#!/usr/bin/env bash
# Everything that needs a GPU, in one go, meant for ten minutes of a bare machine with PyTorch for CUDA and nvcc:
# builds the deformable attention, runs the tests marked `gpu`, and prints what tracking and detection take.
#
#     make peers && benchmarks/gpu.sh | tee gpu.txt
#
# For comparison, Meta's figures for SAM 2.1 on an A100, compiled, one object: T 91, B+ 64, L 40 frames a second.
set -euo pipefail
cd "$(dirname "$0")/.."
PY=${PY:-.venv/bin/python}
export PYTHONPATH=.

"$PY" -c 'import torch; p = torch.cuda.get_device_properties(0); print(p.name, p.total_memory >> 30, "GiB", torch.__version__)'

echo "== tests on the GPU, with the kernel that is built first"
GROUNDED_SAM2_BUILD_EXT=1 timeout 240 "$PY" -m pytest -q -p no:cacheprovider -m "gpu and not network" tests || echo "tests failed: $?"

echo "== stages of a frame over the card's rates"
for objects in 1 16; do
    timeout 60 "$PY" benchmarks/stages.py --device cuda --num-objects $objects || echo "failed: $?"
done

echo "== frames a second: seconds per frame, ours beside sam2==1.1.0 compiled"
for config in sam2.1_hiera_t sam2.1_hiera_b+ sam2.1_hiera_l edgetam; do
    timeout 150 "$PY" benchmarks/sam2_speed.py --device cuda --config $config --image-size 1024 \
        --num-objects 1 4 16 64 --num-frames 30 --rounds 1 || echo "failed: $?"
done

echo "== Grounding DINO with our kernel and without"
timeout 120 "$PY" benchmarks/gdino_speed.py --device cuda --dtypes float32 bfloat16 --ext --images 5 --rounds 1 || echo "failed: $?"
