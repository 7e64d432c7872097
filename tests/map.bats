#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# vdtool map
load helpers

normal() { jq -c -S '.[] | del(.compressed)'; }

# map --output json has the content of qemu-img's: same_map FORMAT FILE [OPTIONS of vdtool]
same_map() {
        local format=$1 file=$2
        qemu-img map --output=json -f "$(qemu_name "$format")" "$file" | normal >"$BATS_TEST_TMPDIR/theirs" || return 1
        vdtool map --output json "$file" | normal >"$BATS_TEST_TMPDIR/ours" || return 1
        diff "$BATS_TEST_TMPDIR/theirs" "$BATS_TEST_TMPDIR/ours" || say "map of $file (< qemu-img, > vdtool)"
}

@test "map JSON equals qemu-img's for a sparse raw file" {
        disk_image disk.raw
        same_map raw disk.raw
}

@test "map JSON equals qemu-img's for qcow2 versions 2 and 3" {
        fixture good-qcow2-v2
        same_map qcow2 good-qcow2-v2
        fixture good-qcow2-v3
        same_map qcow2 good-qcow2-v3
}

@test "map JSON equals qemu-img's for packed qcow2 units" {
        fixture good-qcow2-zlib
        same_map qcow2 good-qcow2-zlib
        fixture good-qcow2-zstd
        same_map qcow2 good-qcow2-zstd
}

@test "map JSON equals qemu-img's for the smallest and the largest clusters" {
        fixture good-qcow2-cluster-512
        same_map qcow2 good-qcow2-cluster-512
        fixture good-qcow2-cluster-2m
        same_map qcow2 good-qcow2-cluster-2m
}

# Without the places of space that holds no data, and neighbours that are then alike made one.
merged() {
        jq -c 'reduce (.[] | if .data then . else del(.offset) end) as $e ([];
                if length > 0 and (.[-1] | del(.start, .length)) == ($e | del(.start, .length)) and ($e.data | not)
                then .[-1].length += $e.length else . + [$e] end)'
}

@test "map JSON has qemu-img's extents for extended L2 entries" {
        fixture good-qcow2-extended-l2
        qemu-img map --output=json good-qcow2-extended-l2 | jq 'map(del(.compressed))' | merged >theirs
        vdtool map --output json good-qcow2-extended-l2 | jq 'map(del(.compressed))' | merged >ours
        diff <(jq -S . theirs) <(jq -S . ours)
}

@test "map JSON equals qemu-img's for zero clusters" {
        fixture good-qcow2-zero-clusters
        same_map qcow2 good-qcow2-zero-clusters
}

@test "map JSON equals qemu-img's for preallocated metadata" {
        fixture good-qcow2-preallocated
        same_map qcow2 good-qcow2-preallocated
}

@test "map JSON equals qemu-img's for an external data file" {
        fixture good-raw-data-file
        fixture good-qcow2-data-file
        same_map qcow2 good-qcow2-data-file
}

@test "map JSON equals qemu-img's for a chain of three, with depths" {
        fixture good-raw-chain-base chain-base.raw
        fixture good-qcow2-chain-middle chain-middle.qcow2
        fixture good-qcow2-chain-top chain-top.qcow2
        same_map qcow2 chain-middle.qcow2
        same_map qcow2 chain-top.qcow2
        vdtool map --output json chain-top.qcow2 | jq -e '[.[].depth] | unique == [0, 1, 2]'
}

@test "map JSON covers the disk of a VHD without gap or overlap" {
        fixture good-vhd-odd-layout
        vdtool map --output json good-vhd-odd-layout >map.json
        jq -e '[.[0].start == 0] + [range(1; length) as $i | .[$i - 1].start + .[$i - 1].length == .[$i].start]
               + [(.[-1] | .start + .length) == 2097152] | all' map.json
}

@test "map offsets of a VHD are where the bytes lie" {
        fixture good-vhd-odd-layout
        vdtool convert -O raw good-vhd-odd-layout disk.raw
        vdtool map --output json good-vhd-odd-layout |
                jq -r '.[] | select(.data) | "\(.start) \(.length) \(.offset)"' >extents
        [ -s extents ]
        local start length offset
        while read -r start length offset; do
                cmp -n "$length" -i "$start:$offset" disk.raw good-vhd-odd-layout
        done <extents
}

@test "map offsets of a qcow2 are where the bytes lie" {
        fixture good-qcow2-cluster-512
        vdtool convert -O raw good-qcow2-cluster-512 disk.raw
        vdtool map --output json good-qcow2-cluster-512 |
                jq -r '.[] | select(.data) | "\(.start) \(.length) \(.offset)"' >extents
        [ -s extents ]
        local start length offset
        while read -r start length offset; do
                cmp -n "$length" -i "$start:$offset" disk.raw good-qcow2-cluster-512
        done <extents
}

@test "map of a differencing VHD tells the layers apart" {
        fixture good-vhd-parent
        fixture good-vhd-child
        vdtool map --output json good-vhd-child >map.json
        same "$(jq -c '[.[] | select(.depth == 0 and .data) | [.start, .length]]' map.json)" \
                '[[0,512],[4608,512],[2096640,512]]'
        jq -e 'any(.depth == 1)' map.json
}

@test "map -s and -l look at a part only" {
        fixture good-qcow2-v3
        qemu-img map --output=json --start-offset=65536 --max-length=1m good-qcow2-v3 | normal >theirs
        vdtool map --output json -s 65536 -l 1M good-qcow2-v3 | normal >ours
        diff theirs ours
        vdtool map --output json --start-offset 64k --max-length 1M good-qcow2-v3 | normal | diff theirs -
}

@test "map -s past the end of the disk shows nothing, as with qemu-img" {
        fixture good-qcow2-v3
        same "$(vdtool map --output json -s 1G good-qcow2-v3 | jq -c .)" '[]'
}

@test "map as a table has qemu-img's columns and rows" {
        fixture good-qcow2-v3
        qemu-img map good-qcow2-v3 | awk 'NR > 1 { print $1, $2, $3, $4 }' >theirs
        vdtool map good-qcow2-v3 >table
        grep -Eq '^Offset +Length +Mapped to +File' table
        awk 'NR > 1 { print $1, $2, $3, $4 }' table | diff theirs -
}

@test "map --picture is as wide as the terminal, 80 columns without one" {
        fixture good-vhd-os-disk
        vdtool map --picture good-vhd-os-disk >picture
        [ "$(wc -L <picture)" -le 80 ]
        grep -q '█' picture
        script -qc "stty cols 60; '$VDTOOL' map --picture good-vhd-os-disk" /dev/null | tr -d '\r' >narrow
        [ "$(grep -v data narrow | wc -L)" -eq 60 ] || cat narrow
        grep -q '█' narrow
}

@test "map --picture shows data and holes differently, at their places" {
        truncate -s 64M front.raw back.raw
        head -c 8M /dev/zero | tr '\0' x | tee >(dd of=front.raw conv=notrunc status=none) |
                dd of=back.raw bs=1M seek=56 conv=notrunc iflag=fullblock status=none
        vdtool map --picture front.raw | sed 's/^.\{10\}//' >front
        vdtool map --picture back.raw | sed 's/^.\{10\}//' >back
        head -n 1 front | grep -q '█'
        refute grep -q '█' <(head -n 1 back)
        refute cmp -s front back
}

@test "map of a 10 TiB disk that is empty is one line" {
        qemu-img create -q -f qcow2 big.qcow2 10T
        vdtool map --output json big.qcow2 | jq -e 'length == 1 and .[0].length == 10995116277760 and (.[0].data | not)'
}

@test "map of an empty file is an empty list" {
        : >empty
        same "$(vdtool map --output json empty | jq -c .)" '[]'
}

@test "map of an image whose parent is missing says so" {
        fixture bad-qcow2-backing-missing
        fails_with nowhere.raw vdtool map bad-qcow2-backing-missing
}

@test "map JSON is one entry a line, as qemu-img writes it" {
        fixture good-qcow2-v3
        vdtool map --output json good-qcow2-v3 >map.json
        same "$(wc -l <map.json)" "$(jq length map.json)"
        [[ $(head -n 1 map.json) =~ ^\[\{\ ?\"start\":\ 0,\ \"length\":\  ]]
}
