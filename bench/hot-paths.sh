#!/usr/bin/env bash
# The hot paths on this machine, measured by criterion: one table.
#
#   bench/hot-paths.sh OUT [WORD]      writes OUT/hot-paths.txt, of all benches or of those whose name has WORD in it
#
# The model road (import, plan, pack, a pack cache's hit), the wire, and each heavy step of the CPU device; decisions have a bench of their own,
# `cargo bench -p tessera-scheduler`. Takes two minutes once it is built; nothing else may run. A time is the median of one call, between the bounds
# of its 95 % confidence interval; a rate is what of the bench's work (bytes packed, elements on the wire, operations of a step) was done a second.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: bench/hot-paths.sh OUT [WORD]}
mkdir -p "$out"
target=${CARGO_TARGET_DIR:-target}
rm -rf "$target/criterion"
cargo bench -q -p tessera-hot-paths -- --noplot --warm-up-time 0.5 --measurement-time 1.5 ${2:+"$2"} >&2
{
    echo "$(date -u +%F), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(nproc) cores of $(lscpu | sed -n 's/^Model name: *//p'): bench/hot-paths.sh"
    echo
    "${PYTHON:-python3}" - "$target/criterion"
} <<'TABLE' | tee "$out/hot-paths.txt"
import json, pathlib, sys

def short(number, units, step):
    for unit in units:
        if number < step or unit == units[-1]:
            return f"{number:.3g} {unit}" if number < 1000 else f"{number:.0f} {unit}"
        number /= step

time = lambda ns: short(ns, ["ns", "µs", "ms", "s"], 1000)
rows = []
for path in sorted(pathlib.Path(sys.argv[1]).glob("**/new/benchmark.json")):
    bench = json.loads(path.read_text())
    median = json.loads(path.with_name("estimates.json").read_text())["median"]
    of = median["confidence_interval"]
    took, rate = median["point_estimate"], ""
    for kind, amount in (bench["throughput"] or {}).items():
        unit = "B/s" if kind == "Bytes" else "/s"
        rate = short(amount / took * 1e9, [unit, "k" + unit, "M" + unit, "G" + unit], 1000)
    rows.append((bench["full_id"], time(took), time(of["lower_bound"]), time(of["upper_bound"]), rate))
print(f"{'':<52} {'median':>10} {'from':>10} {'to':>10} {'rate':>12}")
for row in rows:
    print(f"{row[0]:<52} {row[1]:>10} {row[2]:>10} {row[3]:>10} {row[4]:>12}")
TABLE
