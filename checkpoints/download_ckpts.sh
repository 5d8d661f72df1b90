#!/bin/sh
# Fetch the official SAM 2.1 checkpoints into this folder, or those that are named:
#   checkpoints/download_ckpts.sh
#   checkpoints/download_ckpts.sh edgetam
#   checkpoints/download_ckpts.sh sam2.1-tiny --mirror https://mirror.example/sam
# Flags go to `python -m grounded_sam2.download` (--help shows them).
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
case ${1:--} in -*) set -- sam2.1-tiny sam2.1-small sam2.1-base-plus sam2.1-large "$@" ;; esac
exec "$python" -m grounded_sam2.download --folder checkpoints "$@"
