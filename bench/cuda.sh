#!/usr/bin/env bash
# Whole models on a card, with one peer in the same run to calibrate it: what bench/results keeps.
#
#   bench/cuda.sh OUT [quick|full]      writes OUT/summary.txt, OUT/*.json and OUT/card.txt
#
# TESSERA_BIN is the binary to measure (default target/release/tessera). The peer needs PyTorch and is skipped by name without it. What
# `bench tenants` says comes after a check that each tenant answers alone as among all others, to the bit; rounds of what is compared alternate.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: bench/cuda.sh OUT [quick|full]} what=${2:-full}
mkdir -p "$out"
tessera=${TESSERA_BIN:-target/release/tessera}
command -v "$tessera" >/dev/null || { echo "$tessera is not there; build it (cargo build --release), or name another by TESSERA_BIN" >&2; exit 2; }
{ date -u +%FT%TZ; git rev-parse HEAD 2>/dev/null || true; nvidia-smi; } >"$out/card.txt" 2>&1

tenants() {
    local name=$1
    shift
    echo "== $name: tessera bench tenants $*" >>"$out/summary.txt"
    "$tessera" bench tenants --device cuda:0 --seconds 1 --rounds 3 --json "$out/$name.json" "$@" \
        >>"$out/summary.txt" 2>>"$out/log.txt" || echo "$name: did not run, see log.txt" | tee -a "$out/summary.txt"
    grep -E "^(space-time|space|time|exclusive) " "$out/summary.txt" | tail -n "${lines:-1}" | sed "s/^/$name  /" || true
}
peer() {
    if python3 -c "import torch, sys; sys.exit(not torch.cuda.is_available())" 2>/dev/null; then
        python3 bench/peers/torch_tenants.py "$@" 2>>"$out/log.txt" | tee -a "$out/peers.txt"
    else
        echo "skipped: torch_tenants.py $* (no PyTorch with CUDA here)"
    fi
}

peer --model resnet50 --precision bf16 --tenants 32 --peer time,space,exclusive
lines=4 tenants resnet-50-bf16-32 --model resnet-50 --tenants 32 --precision bf16 --policy all --steps
lines=4 tenants resnet-50-bf16-8 --model resnet-50 --tenants 8 --precision bf16 --policy all
tenants resnet-18-bf16-32 --model resnet-18 --tenants 32 --precision bf16 --policy space-time --steps
tenants mobilenet-v2-bf16-32 --model mobilenet-v2 --tenants 32 --precision bf16 --policy space-time --steps
tenants bert-base-bf16-16 --model bert-base --tenants 16 --precision bf16 --policy space-time --steps
tenants lstm-bf16-32 --model lstm --tenants 32 --precision bf16 --policy space-time
tenants resnet-50-tf32-32 --model resnet-50 --tenants 32 --precision tf32 --policy space-time
tenants resnet-50-fp32-32 --model resnet-50 --tenants 32 --precision fp32 --policy space-time
[ "$what" = full ] || exit 0
"$tessera" bench processes --model resnet-50 --tenants 8 --precision bf16 --device cuda:0 --seconds 2 --json "$out/processes.json" \
    2>>"$out/log.txt" | tee -a "$out/summary.txt" || echo "processes: did not run, see log.txt" | tee -a "$out/summary.txt"
lines=4 tenants resnet-50-bf16-120 --model resnet-50 --tenants 120 --precision bf16 --policy all
tenants resnet-50-bf16-128 --model resnet-50 --tenants 128 --precision bf16 --policy space-time
"$tessera" bench table1 --json "$out/table1.json" >"$out/table1.txt" 2>>"$out/log.txt"
