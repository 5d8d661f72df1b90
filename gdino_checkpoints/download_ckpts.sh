#!/bin/sh
# Fetch the official Grounding DINO checkpoints and the tokenizer they need into this folder, or what is named:
#   gdino_checkpoints/download_ckpts.sh
#   gdino_checkpoints/download_ckpts.sh groundingdino-swint bert-tokenizer
#   gdino_checkpoints/download_ckpts.sh IDEA-Research/grounding-dino-tiny
# Flags go to `python -m grounded_sam2.download` (--help shows them).
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
case ${1:--} in -*) set -- groundingdino-swint groundingdino-swinb bert-tokenizer "$@" ;; esac
exec "$python" -m grounded_sam2.download --folder gdino_checkpoints "$@"
