#!/bin/bash
# SPDX-License-Identifier: MIT
# bench.sh: what a conversion costs next to qemu-img (and cp), as ratios of medians of interleaved runs.
#
# BENCH_DIR   where the files go (default: a directory under /var/tmp; its file system decides much)
# BENCH_MIB   size of the disk (default 1024)
# BENCH_RUNS  runs of each program (default 5)
# A job over its target is marked "over"; the exit status stays 0, since machines differ.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${VDTOOL:=$here/../vdtool}" "${BENCH_DIR:=/var/tmp}" "${BENCH_MIB:=1024}" "${BENCH_RUNS:=5}"
work=$(mktemp -d "$BENCH_DIR/vdtool-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

# A disk like that of an installed system: ext4 filled from /usr to about two thirds, the rest holes.
make_disk() {
        local budget=$((BENCH_MIB * 1024 * 2 / 3)) used=0 file size
        mkdir tree
        while read -r size file; do
                [ $((used + size)) -le $budget ] || break
                used=$((used + size))
                mkdir -p "tree${file%/*}"
                cp --reflink=auto "$file" "tree$file"
        done < <(find /usr -xdev -type f -size -65536k -printf '%k %p\n' 2>/dev/null | sort -k2)
        truncate -s "${BENCH_MIB}M" disk.raw
        mke2fs -q -t ext4 -d tree disk.raw
        rm -rf tree
}

# seconds COMMAND...: wall-clock time of one run
seconds() {
        local start=$EPOCHREALTIME end
        "$@" >/dev/null
        end=$EPOCHREALTIME
        awk -v a="$start" -v b="$end" 'BEGIN { printf "%.4f\n", b - a }'
}
median() { sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# job NAME TARGET OURS -- THEIRS: commands write to "out", which is removed before each run
job() {
        local name=$1 target=$2 ours=() i
        shift 2
        while [ "$1" != -- ]; do
                ours+=("$1")
                shift
        done
        shift
        : >ours.times
        : >theirs.times
        for ((i = 0; i < BENCH_RUNS; i++)); do
                rm -f out
                seconds "${ours[@]}" >>ours.times
                rm -f out
                seconds "$@" >>theirs.times
        done
        rm -f out
        awk -v name="$name" -v a="$(median <ours.times)" -v b="$(median <theirs.times)" -v peer="${1##*/}" -v t="$target" 'BEGIN {
                ratio = a / b
                printf "%-22s %9.3f %9.3f  %-9s %6.2f %7.2f  %s\n", name, a, b, peer, ratio, t, ratio <= t ? "ok" : "over" }'
}

make_disk
qemu-img convert -f raw -O vpc -o subformat=dynamic,force_size=on disk.raw disk.vhd
qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2
printf 'disk of %s MiB with %s MiB of data in %s, median of %s runs\n' "$BENCH_MIB" \
        "$(du -m disk.raw | cut -f1)" "$BENCH_DIR" "$BENCH_RUNS"
printf '%-22s %9s %9s  %-9s %6s %7s\n' job vdtool peer "" ratio target
job 'vhd -> qcow2' 1.00 "$VDTOOL" convert -O qcow2 disk.vhd out -- qemu-img convert -O qcow2 disk.vhd out
job 'raw -> qcow2' 1.00 "$VDTOOL" convert -f raw -O qcow2 disk.raw out -- qemu-img convert -f raw -O qcow2 disk.raw out
job 'qcow2 -> raw' 1.00 "$VDTOOL" convert -O raw disk.qcow2 out -- qemu-img convert -O raw disk.qcow2 out
job 'raw -> vhd' 1.00 "$VDTOOL" convert -f raw -O vhd disk.raw out -- \
        qemu-img convert -f raw -O vpc -o force_size=on disk.raw out
job 'raw -> raw' 1.00 "$VDTOOL" convert -f raw -O raw disk.raw out -- qemu-img convert -f raw -O raw disk.raw out
job 'raw -> raw, cp' 1.00 "$VDTOOL" convert -f raw -O raw disk.raw out -- cp --sparse=always disk.raw out
