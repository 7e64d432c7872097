#!/bin/bash
# SPDX-License-Identifier: MIT
# bench.sh: what vdtool costs next to qemu-img, cp and the floor (floor.c), as ratios of medians of interleaved runs.
#
# BENCH_DIR   where the files go (default: a directory under /var/tmp; its file system decides much)
# BENCH_MIB   size of the disk (default 1024)
# BENCH_RUNS  runs of each program (default 5)
# BENCH_SCATTERED  clusters of the scattered disk (default 10000)
# BENCH_ONLY  a pattern (grep -E): only the jobs whose names it finds
# A job over its target is marked "over"; the exit status stays 0, since machines differ.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${VDTOOL:=$here/../vdtool}" "${FLOOR:=$here/../build/floor}" "${BENCH_ONLY:=.}" "${BENCH_SCATTERED:=10000}" "${BENCH_DIR:=/var/tmp}" "${BENCH_MIB:=1024}" "${BENCH_RUNS:=5}"
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

# row NAME TARGET VALUE PEER-VALUE PEER UNIT-FORMAT
row() {
        awk -v name="$1" -v t="$2" -v a="$3" -v b="$4" -v peer="$5" -v form="$6" 'BEGIN {
                ratio = b ? a / b : 0
                printf "%-32s " form " " form "  %-9s %6.2f %7.2f  %s\n", name, a, b, peer, ratio, t,
                       ratio <= t ? "ok" : "over" }'
}

# job NAME TARGET OURS -- THEIRS: commands write to "out", which is removed before each run.  Slow peers run once when
# RUNS says so.
job() {
        local name=$1 target=$2 ours=() i
        shift 2
        grep -qE -- "$BENCH_ONLY" <<<"$name" || return 0
        while [ "$1" != -- ]; do
                ours+=("$1")
                shift
        done
        shift
        : >ours.times
        : >theirs.times
        for ((i = 0; i < ${RUNS:-$BENCH_RUNS}; i++)); do
                rm -f out
                seconds "${ours[@]}" >>ours.times
                ours_size=$(stat -c %s out 2>/dev/null || echo 0)
                rm -f out
                seconds "$@" >>theirs.times
                theirs_size=$(stat -c %s out 2>/dev/null || echo 0)
        done
        rm -f out
        row "$name" "$target" "$(median <ours.times)" "$(median <theirs.times)" "${1##*/}" %9.3f
}

# sizes NAME TARGET: the lengths of what the job before wrote
sizes() {
        grep -qE -- "$BENCH_ONLY" <<<"$1" || return 0
        row "$1, length" "$2" "$ours_size" "$theirs_size" bytes %9d
}

# Targets: plain copies are bound by the file system; tmpfs leaves less to win than ext4.
plain=0.60
[ "$(stat -f -c %T .)" != tmpfs ] || plain=0.85

make_disk
truncate -s $((BENCH_MIB * 16))M islands.raw
for ((i = 0; i < BENCH_MIB; i++)); do
        dd if=disk.raw of=islands.raw bs=64k count=1 skip=$((i * 16 % (BENCH_MIB * 8))) seek=$((i * 256)) conv=notrunc status=none
done
head -c "$((BENCH_MIB / 2))M" /dev/zero >zeros.raw
"$VDTOOL" convert -q -f raw disk.raw disk.qcow2
"$VDTOOL" convert -q -f raw disk.raw disk.vhd
"$VDTOOL" convert -q -f raw disk.raw disk.vmdk
"$VDTOOL" convert -q -f raw -c disk.raw zlib.qcow2
"$VDTOOL" convert -q -f raw -c -o compression_type=zstd disk.raw zstd.qcow2
"$VDTOOL" convert -q -f raw --type streamOptimized disk.raw stream.vmdk

printf 'disk of %s MiB with %s MiB of data in %s (%s), median of %s runs\n' "$BENCH_MIB" \
        "$(du -m disk.raw | cut -f1)" "$BENCH_DIR" "$(stat -f -c %T .)" "$BENCH_RUNS"
printf '%-32s %9s %9s  %-9s %6s %7s\n' job vdtool peer "" ratio target
us() { job "$1" "$2" "$VDTOOL" convert -q "${@:3}" out -- qemu-img convert "${@:3}" out; }
us 'vhd -> qcow2' $plain -f vpc -O qcow2 disk.vhd
us 'raw -> qcow2' $plain -f raw -O qcow2 disk.raw
us 'qcow2 -> raw' $plain -f qcow2 -O raw disk.qcow2
us 'raw -> vhdx' $plain -f raw -O vhdx disk.raw
us 'raw -> vdi' $plain -f raw -O vdi disk.raw
job 'raw -> vhd' $plain "$VDTOOL" convert -q -f raw -O vhd disk.raw out -- \
        qemu-img convert -f raw -O vpc -o force_size=on disk.raw out
us 'raw -> raw' $plain -f raw -O raw disk.raw
job 'raw -> raw, cp' 1.00 "$VDTOOL" convert -q -f raw -O raw disk.raw out -- cp --sparse=always disk.raw out
job 'raw -> raw, floor' 1.10 "$VDTOOL" convert -q -f raw -O raw disk.raw out -- "$FLOOR" disk.raw out
us 'islands -> qcow2' 0.60 -f raw -O qcow2 islands.raw
us 'zeros -> qcow2' 0.50 -f raw -O qcow2 zeros.raw
us 'raw -> vmdk' 0.25 -f raw -O vmdk disk.raw
us 'vmdk -> qcow2' 0.45 -f vmdk -O qcow2 disk.vmdk
us 'qcow2 zlib -> raw' 0.50 -f qcow2 -O raw zlib.qcow2
us 'qcow2 zstd -> raw' 0.65 -f qcow2 -O raw zstd.qcow2
job 'zlib -> zlib, cp' 1.30 "$VDTOOL" convert -q -O qcow2 zlib.qcow2 out -- cp zlib.qcow2 out
RUNS=1
us 'streamOptimized -> raw' 0.30 -f vmdk -O raw stream.vmdk
us 'raw -> qcow2 -c zlib' 0.10 -c -f raw -O qcow2 disk.raw
sizes 'raw -> qcow2 -c zlib' 1.06
us 'raw -> qcow2 -c zstd' 0.40 -c -f raw -O qcow2 -o compression_type=zstd disk.raw
sizes 'raw -> qcow2 -c zstd' 1.00
job 'zlib -> zlib' 0.03 "$VDTOOL" convert -q -O qcow2 zlib.qcow2 out -- qemu-img convert -c -O qcow2 zlib.qcow2 out
us 'raw -> streamOptimized' 0.10 -f raw -O vmdk -o subformat=streamOptimized disk.raw
unset RUNS

# A disk of 1 TiB with clusters that lie far apart: what looking costs.  Each cluster takes 64 KiB of space.
if grep -qE -- "$BENCH_ONLY" <<<'scattered'; then
        rm -f ./*.raw ./*.vhd ./*.vmdk ./*.qcow2
        qemu-img create -q -f qcow2 scattered.qcow2 1T
        awk -v n="$BENCH_SCATTERED" 'BEGIN {
                for (i = 0; i < n; i++) printf "write -q -P 1 %.0f 4k\n", int(i * 16777215 / n) * 65536 }' |
                qemu-io --cache=unsafe scattered.qcow2 >/dev/null
fi
job 'scattered: info' 0.33 "$VDTOOL" info scattered.qcow2 -- qemu-img info scattered.qcow2
job 'scattered: map' 0.33 "$VDTOOL" map --output json scattered.qcow2 -- qemu-img map --output json scattered.qcow2
job 'scattered: check' 0.33 "$VDTOOL" check scattered.qcow2 -- qemu-img check scattered.qcow2
job 'scattered: compare' 0.33 "$VDTOOL" compare scattered.qcow2 scattered.qcow2 -- \
        qemu-img compare scattered.qcow2 scattered.qcow2
