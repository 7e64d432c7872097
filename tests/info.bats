#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# vdtool info
load helpers

# What qemu-img's JSON says about an image; values that both print must agree.
qemu_info() { qemu-img info --output=json "$@"; }

agrees_with_qemu() {
        local key ours theirs format=$1 file=$2
        shift 2
        vdtool info --output json "$file" >ours.json || return 1
        qemu_info -f "$(qemu_name "$format")" "$file" >theirs.json || return 1
        for key; do
                ours=$(jq -c -S "$key" ours.json)
                theirs=$(jq -c -S "$key" theirs.json)
                same "$ours" "$theirs" || say "$key" || return 1
        done
}

@test "info --output json has qemu-img's values for a qcow2" {
        fixture good-qcow2-v3
        agrees_with_qemu qcow2 good-qcow2-v3 .filename .format '."virtual-size"' '."actual-size"' '."cluster-size"' \
                '."dirty-flag"' '."format-specific".type' '."format-specific".data.compat' \
                '."format-specific".data."refcount-bits"' '."format-specific".data."lazy-refcounts"' \
                '."format-specific".data."compression-type"' '."format-specific".data."extended-l2"' \
                '."format-specific".data.corrupt'
}

@test "info --output json has qemu-img's values for a version 2 qcow2" {
        fixture good-qcow2-v2
        agrees_with_qemu qcow2 good-qcow2-v2 .format '."virtual-size"' '."cluster-size"' '."format-specific".data.compat' \
                '."format-specific".data."refcount-bits"' '."format-specific".data."compression-type"'
}

@test "info --output json has qemu-img's values for zstd, extended L2, lazy refcounts and narrow refcounts" {
        local name
        for name in zstd extended-l2 lazy refcount-1 refcount-64 cluster-512 cluster-2m dirty; do
                fixture good-qcow2-$name
                agrees_with_qemu qcow2 good-qcow2-$name '."virtual-size"' '."cluster-size"' '."dirty-flag"' \
                        '."format-specific".data.compat' '."format-specific".data."compression-type"' \
                        '."format-specific".data."extended-l2"' '."format-specific".data."lazy-refcounts"' \
                        '."format-specific".data."refcount-bits"'
        done
}

@test "info --output json lists snapshots as qemu-img does" {
        fixture good-qcow2-snapshots
        agrees_with_qemu qcow2 good-qcow2-snapshots '[.snapshots[] | {id, name, "vm-state-size", "date-sec", "date-nsec",
                "vm-clock-sec", "vm-clock-nsec"}]'
}

@test "info --output json lists bitmaps as qemu-img does" {
        fixture good-qcow2-bitmaps
        agrees_with_qemu qcow2 good-qcow2-bitmaps '."format-specific".data.bitmaps'
}

@test "info --output json names the backing file as qemu-img does" {
        fixture good-raw-chain-base chain-base.raw
        fixture good-qcow2-chain-middle chain-middle.qcow2
        agrees_with_qemu qcow2 chain-middle.qcow2 '."backing-filename"' '."full-backing-filename"' \
                '."backing-filename-format"'
}

@test "info --output json names the external data file as qemu-img does" {
        fixture good-raw-data-file
        fixture good-qcow2-data-file
        agrees_with_qemu qcow2 good-qcow2-data-file '."format-specific".data."data-file"' \
                '."format-specific".data."data-file-raw"'
}

@test "info --output json calls a VHD vpc, with qemu-img's size" {
        fixture good-vhd-dynamic
        agrees_with_qemu vhd good-vhd-dynamic .format '."virtual-size"' '."cluster-size"' '."actual-size"'
        fixture good-vhd-dynamic-chs
        agrees_with_qemu vhd good-vhd-dynamic-chs '."virtual-size"'
}

@test "info --output json gives every format a format-specific part with its type" {
        fixture good-vhd-dynamic
        same "$(vdtool info --output json good-vhd-dynamic | jq -r '."format-specific".type')" vpc
        vdtool info --output json good-vhd-dynamic | jq -e '."format-specific".data | length > 3'
        truncate -s 1M disk.raw
        vdtool info --output json disk.raw | jq -e '.format == "raw" and ."virtual-size" == 1048576'
}

@test "info tells the subformat of a VHD" {
        fixture good-vhd-dynamic
        fixture good-vhd-fixed
        fixture good-vhd-child
        [[ $(vdtool info good-vhd-dynamic) == *dynamic* ]]
        [[ $(vdtool info good-vhd-fixed) == *fixed* ]]
        [[ $(vdtool info good-vhd-child) == *differencing* ]]
}

@test "info says which of a VHD's two sizes was used" {
        fixture good-vhd-fixed-hyperv
        same "$(vdtool info --field virtual-size good-vhd-fixed-hyperv)" 3147264
        succeeds vdtool info good-vhd-fixed-hyperv
        [[ $output == *90*4*17* ]] || told
        fixture good-vhd-dynamic-chs
        same "$(vdtool info --field virtual-size good-vhd-dynamic-chs)" 3168256
}

@test "info prints the lines that scripts look for" {
        fixture good-qcow2-v3
        succeeds vdtool info good-qcow2-v3
        grep -Eq '^image: +good-qcow2-v3$' <<<"$output"
        grep -Eq '^file format: +qcow2$' <<<"$output"
        grep -Eq '^virtual size: +3 MiB \(3147264 bytes\)$' <<<"$output"
        grep -Eq '^disk size: ' <<<"$output"
        grep -Eq '^cluster_size: +65536$' <<<"$output"
        grep -Eq '^Format specific information:$' <<<"$output"
}

@test "info --field prints one bare value" {
        fixture good-qcow2-v3
        same "$(vdtool info --field virtual-size good-qcow2-v3)" 3147264
        same "$(vdtool info --field format good-qcow2-v3)" qcow2
        same "$(vdtool info --field format-specific.data.compat good-qcow2-v3)" 1.1
}

@test "info --field of something that is not there is an error" {
        fixture good-qcow2-v3
        fails_with no-such-thing vdtool info --field no-such-thing good-qcow2-v3
}

@test "info describes several files" {
        fixture good-qcow2-v3
        fixture good-vhd-dynamic
        succeeds vdtool info good-qcow2-v3 good-vhd-dynamic
        [[ $output == *good-qcow2-v3*good-vhd-dynamic* ]]
        vdtool info --output json good-qcow2-v3 good-vhd-dynamic | jq -e 'length == 2 and .[1].format == "vpc"'
}

@test "info --backing-chain describes every layer, top first" {
        fixture good-raw-chain-base chain-base.raw
        fixture good-qcow2-chain-middle chain-middle.qcow2
        fixture good-qcow2-chain-top chain-top.qcow2
        vdtool info --backing-chain --output json chain-top.qcow2 >chain.json
        same "$(jq -r 'map(.format) | join(" ")' chain.json)" "qcow2 qcow2 raw"
        same "$(jq -c 'map(."virtual-size")' chain.json)" "[5242880,3147264,3147264]"
}

@test "info --backing-chain of a chain that lacks a layer fails" {
        fixture good-qcow2-chain-top chain-top.qcow2
        fails_with chain-middle.qcow2 vdtool info --backing-chain chain-top.qcow2
}

@test "info without --backing-chain opens no parent, data file or other reference" {
        requires strace
        fixture good-qcow2-chain-top chain-top.qcow2
        fixture good-qcow2-data-file
        fixture good-vhd-child
        fixture bad-qcow2-backing-device
        local name
        for name in chain-top.qcow2 good-qcow2-data-file good-vhd-child bad-qcow2-backing-device; do
                ASAN_OPTIONS=detect_leaks=0 strace -f -e trace=open,openat,openat2 -o trace "$VDTOOL" info "$name"
                refute grep -E 'chain-middle|good-raw-data-file|good-vhd-parent|/dev/zero' trace
        done
}

@test "info works on images whose parent is missing or forbidden" {
        local name
        for name in bad-qcow2-backing-missing bad-qcow2-backing-device bad-qcow2-backing-self bad-vhd-parent-missing; do
                fixture $name
                succeeds vdtool info $name
        done
        vdtool info --output json bad-qcow2-backing-missing | jq -e '."backing-filename" == "nowhere.raw"'
}

@test "info knows encrypted images and says so" {
        fixture unsupported-qcow2-aes
        fixture unsupported-qcow2-luks
        vdtool info --output json unsupported-qcow2-aes | jq -e '.encrypted == true'
        vdtool info --output json unsupported-qcow2-luks | jq -e '.encrypted == true'
        same "$(vdtool info unsupported-qcow2-luks | grep -Ec '^encrypted: +yes')" 1
}

@test "info of a damaged footer warns and goes on with the copy" {
        fixture good-vhd-end-footer-gone
        succeeds vdtool info good-vhd-end-footer-gone
        [[ $stderr$output == *footer* ]]
        fixture good-vhd-front-footer-damaged
        succeeds vdtool info good-vhd-front-footer-damaged
        [[ $stderr$output == *footer* ]]
}

@test "info -f reads the image as the given format" {
        fixture good-qcow2-v3
        same "$(vdtool info -f raw --field virtual-size good-qcow2-v3)" "$(size_of good-qcow2-v3)"
        fails_cleanly vdtool info -f vhd good-qcow2-v3
        fails_with 'nonsense' vdtool info -f nonsense good-qcow2-v3
}

@test "info of a file that does not exist, a directory and an empty file" {
        fails_with 'No such file' vdtool info nowhere
        mkdir directory
        fails_cleanly vdtool info directory
        : >empty
        succeeds vdtool info empty
        same "$(vdtool info --field virtual-size empty)" 0
}

@test "info prints control characters of names escaped, in text and JSON" {
        local name=$'a\033[31mred\nline.qcow2'
        fixture good-qcow2-v3 "$name"
        succeeds vdtool info -- "$name"
        [[ $output != *$'\033'* ]]
        same "$(vdtool info --output json -- "$name" | jq -r .filename)" "$name"
        fails_cleanly vdtool info -- $'nowhere\033[31m'
        [[ $stderr != *$'\033'* ]]
}

@test "info escapes names from inside an image" {
        qemu-img create -q -f qcow2 -u -b $'evil\033]0;title\007\nx' -F raw top.qcow2 1M
        succeeds vdtool info top.qcow2
        [[ $output != *$'\033'* && $output != *$'\007'* ]]
        same "$(vdtool info --output json top.qcow2 | jq -r '."backing-filename"')" $'evil\033]0;title\007\nx'
}

@test "info JSON keys stand in the same order every time" {
        fixture good-qcow2-snapshots
        same "$(vdtool info --output json good-qcow2-snapshots)" "$(vdtool info --output json good-qcow2-snapshots)"
}

@test "info of an 8 TiB disk reads little of it" {
        requires strace
        qemu-img create -q -f qcow2 big.qcow2 8T
        ASAN_OPTIONS=detect_leaks=0 strace -f -e trace=read,pread64,preadv -o trace "$VDTOOL" info big.qcow2
        local bytes
        bytes=$(awk '/big|pread|read\(/ { n = $NF; if (n ~ /^[0-9]+$/) sum += n } END { print sum + 0 }' trace)
        [ "$bytes" -lt 1048576 ]
}
