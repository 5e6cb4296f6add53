#!/usr/bin/env bash
# Whole models on this machine's cores, beside onnxruntime with one single-threaded session per tenant: one table.
#
#   bench/cpu.sh OUT [ROUNDS]      writes OUT/table.txt, OUT/rounds.tsv, OUT/steps-MODEL.txt and OUT/machine.txt
#
# 8 tenants, batch 1. Rounds (default 3) of the two alternate; a figure is the median, with the least and the most beside it. Both take all cores, so
# nothing else may run. TESSERA_BIN is the binary (default target/release/tessera), PYTHON one that has onnxruntime and numpy (default python3).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: bench/cpu.sh OUT [ROUNDS]} rounds=${2:-3} tenants=8 seconds=${SECONDS_EACH:-4}
mkdir -p "$out"
tessera=${TESSERA_BIN:-target/release/tessera} python=${PYTHON:-python3}
command -v "$tessera" >/dev/null || { echo "$tessera is not there; build it (cargo build --release), or name another by TESSERA_BIN" >&2; exit 2; }
models=$(mktemp -d)
trap 'rm -rf "$models"' EXIT
{ date -u +%FT%TZ; git rev-parse HEAD 2>/dev/null || true; lscpu; uptime; "$python" -c 'import onnxruntime; print("onnxruntime", onnxruntime.__version__)'; } >"$out/machine.txt"
: >"$out/rounds.tsv"

ours() {
    "$tessera" bench tenants --device cpu --tenants $tenants --policy space-time --seconds "$seconds" --rounds 1 --json - "$@" 2>>"$out/log.txt" |
        "$python" -c 'import json, sys; print(json.load(sys.stdin)["policies"][0]["inferences_per_s"]["median"])'
}
peer() {
    "$python" bench/peers/ort_tenants.py "$1" --tenants $tenants --seconds "$seconds" --way spread 2>>"$out/log.txt" |
        "$python" -c 'import json, sys; print(json.load(sys.stdin)["inferences_per_s"])'
}

while read -r model size; do
    # Words of $size are flags.
    # shellcheck disable=SC2086
    "$tessera" zoo "$model" $size --tenants 1 --out "$models" >>"$out/log.txt" 2>&1
    for _ in $(seq "$rounds"); do
        # shellcheck disable=SC2086
        printf '%s\ttessera\t%s\n' "$model" "$(ours --model "$model" $size)" >>"$out/rounds.tsv"
        printf '%s\tonnxruntime\t%s\n' "$model" "$(peer "$models/$model-0.onnx")" >>"$out/rounds.tsv"
    done
    # shellcheck disable=SC2086
    "$tessera" bench tenants --device cpu --model "$model" $size --tenants 1 --in-flight 1 --policy space-time --seconds 1 --rounds 1 \
        --steps >"$out/steps-$model.txt" 2>>"$out/log.txt"
    rm -f "$models/$model-0.onnx"
done <<'MODELS'
resnet-50
resnet-18
mobilenet-v2
vit-ti
bert-small --tokens 32
minilm --tokens 32
MODELS

"$python" - "$out/rounds.tsv" <<'TABLE' | tee "$out/table.txt"
import statistics, sys
rows = {}
for line in open(sys.argv[1]):
    model, who, rate = line.rstrip("\n").split("\t")
    rows.setdefault(model, {}).setdefault(who, []).append(float(rate))
print(f"{'model':<14} {'tessera/s':>10} {'min':>8} {'max':>8} {'onnxruntime/s':>14} {'min':>8} {'max':>8} {'ratio':>7} {'min':>7} {'max':>7}")
for model, of in rows.items():
    ours, peer = of["tessera"], of["onnxruntime"]
    ratios = [a / b for a, b in zip(ours, peer)]  # of neighbours in time
    spread = lambda x, w, d: f"{statistics.median(x):>{w}.{d}f} {min(x):>{8 if w != 7 else 7}.{d}f} {max(x):>{8 if w != 7 else 7}.{d}f}"
    print(f"{model:<14} {spread(ours, 10, 1)} {spread(peer, 14, 1)} {spread(ratios, 7, 2)}")
TABLE
