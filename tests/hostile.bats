#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Images made to hurt: no crash, no hang, no memory, no file that the policy forbids
load helpers

# Every command on the image: ends in bounded time and space, by itself.
all_commands() {
        local file=$1 command
        for command in "info --output json" "map --output json" "check --data" "convert -O raw"; do
                rm -f out.raw
                # shellcheck disable=SC2086
                capture bounded timeout -k 5 60 "$VDTOOL" $command "$file" $([[ $command != convert* ]] || echo out.raw)
                no_sanitizer || say "$command $file" || return 1
                if [ "$status" -ge 124 ] || [ "$status" -eq 99 ]; then
                        say "$command $file" || told
                        return 1
                fi
                [[ $command != check* || $status =~ ^(0|1|2|3|63)$ ]] || say "$command $file" || told || return 1
        done
        rm -f out.raw
}

# random_bytes SEED COUNT: the same noise every time
random_bytes() {
        openssl enc -aes-128-ctr -K "$(printf %032x "$1")" -iv 00 -in /dev/zero 2>/dev/null | head -c "$2"
}

# mutate FIXTURE ROUNDS FROM LENGTH: overwrites a few bytes in the region, at places that the round's number decides
mutate() {
        local name=$1 rounds=$2 from=$3 length=$4 round at
        fixture "$name" original >/dev/null
        for ((round = 1; round <= rounds; round++)); do
                cp original mutant
                at=$((from + 16#$(random_bytes $round 4 | od -An -tx4 | tr -d ' \n') % length))
                random_bytes $((round + 1000)) $((1 + round % 8)) | dd of=mutant bs=1 seek=$at conv=notrunc status=none
                [ -z "${SEAL:-}" ] || vhd_reseal mutant
                all_commands mutant || say "$name, round $round, at $at" || return 1
        done
        rm -f original mutant
}

@test "qcow2 headers with changed bytes" {
        mutate good-qcow2-snapshots 40 0 112
}

@test "qcow2 header extensions with changed bytes" {
        mutate good-qcow2-bitmaps 30 104 520
}

@test "qcow2 tables with changed bytes" {
        fixture good-qcow2-cluster-512 original
        local l1
        l1=$(peek_number original 40 8)
        mutate good-qcow2-cluster-512 40 "$l1" 4096
}

@test "qcow2 refcounts and snapshots with changed bytes" {
        mutate good-qcow2-snapshots 40 65536 262144
}

@test "qcow2 deflate and zstd units with changed bytes" {
        mutate good-qcow2-zlib 25 327680 12000
        mutate good-qcow2-zstd 25 327680 11000
}

@test "VHD footers and headers with changed bytes, checksums made right again" {
        source "$IMAGES/vhd.bash"
        SEAL=1 mutate good-vhd-dynamic 40 0 1536
}

@test "VHD headers of differencing disks with changed bytes, checksums made right again" {
        source "$IMAGES/vhd.bash"
        fixture good-vhd-parent
        SEAL=1 mutate good-vhd-child 40 512 2560
}

@test "VHD block tables and bitmaps with changed bytes" {
        mutate good-vhd-dynamic 30 1536 1024
}

@test "noise is not an image of anything but raw" {
        local seed
        for seed in 1 2 3 4; do
                random_bytes $seed 70000 >noise
                same "$(vdtool info --field format noise)" raw
                all_commands noise
        done
}

@test "a qcow2 magic in front of noise is an error, not raw" {
        local seed
        for seed in 1 2 3 4 5 6 7 8; do
                { printf 'QFI\373\0\0\0\003'; random_bytes $seed 70000; } >noise
                all_commands noise
                fails_cleanly vdtool info noise
        done
}

@test "a VHD cookie in front of and behind noise is an error, not raw" {
        local seed
        for seed in 1 2 3 4; do
                { printf 'conectix'; random_bytes $seed 70000; } >front
                all_commands front
                fails_cleanly vdtool info front
                { random_bytes $seed 70144; printf 'conectix'; random_bytes $seed 504; } >behind
                all_commands behind
        done
}

@test "huge sizes in small files cost neither time nor memory" {
        local name
        for name in bad-qcow2-l1-huge bad-qcow2-size-huge bad-vhd-table-huge bad-vhd-block-huge bad-qcow2-header-length; do
                fixture $name
                all_commands $name
        done
        # 4 EiB of clusters of 2 MiB, table within a sparse file of 64 TiB
        fixture good-qcow2-cluster-2m disk.qcow2
        poke disk.qcow2 36 00ffffff
        truncate -s 8T disk.qcow2
        all_commands disk.qcow2
}

@test "all L1 entries that lead to one L2 table are walked in bounded time" {
        qemu-img create -q -f qcow2 -o cluster_size=64k disk.qcow2 4T
        qemu-io -c 'write 0 64k' disk.qcow2 >/dev/null
        local l1 entry
        l1=$(peek_number disk.qcow2 40 8)
        entry=$(peek disk.qcow2 "$l1" 8)
        for _ in {1..8192}; do printf '%s' "$entry"; done | sed 's/../\\x&/g' >escapes
        printf '%b' "$(cat escapes)" | dd of=disk.qcow2 bs=8 seek=$((l1 / 8)) conv=notrunc status=none
        capture bounded vdtool check disk.qcow2
        same "$status" 2
        capture bounded vdtool info disk.qcow2
        same "$status" 0
}

@test "an L2 table that is its own data or its L1 table" {
        fixture good-qcow2-v3 disk.qcow2
        local l1
        l1=$(peek_number disk.qcow2 40 8)
        poke disk.qcow2 "$l1" "$(printf %016x $((l1 | 1 << 63)))"
        all_commands disk.qcow2
        capture vdtool check disk.qcow2
        same "$status" 2
}

@test "a refcount table that points to the header, itself and nowhere" {
        fixture good-qcow2-v3 disk.qcow2
        local table value
        table=$(peek_number disk.qcow2 48 8)
        for value in 0000000000000000 0000000000010000 7fffffffffff0000 00000000000000ff; do
                poke disk.qcow2 "$table" $value
                all_commands disk.qcow2
                capture vdtool check disk.qcow2
                [ "$status" -ne 0 ] || told
        done
}

@test "snapshot tables with wild numbers and names" {
        fixture good-qcow2-snapshots original
        local table at
        table=$(peek_number original 64 8)
        for at in 0 8 12 14 32 36 40 48; do
                cp original disk.qcow2
                poke disk.qcow2 $((table + at)) ffffffff
                all_commands disk.qcow2
                survives vdtool convert -O raw -l first disk.qcow2 out.raw
                rm -f out.raw
        done
        cp original disk.qcow2
        poke disk.qcow2 60 ffffffff
        all_commands disk.qcow2
}

@test "names with control characters inside an image never reach the terminal as they are" {
        fixture good-qcow2-snapshots disk.qcow2
        local at
        at=$(grep -abo first disk.qcow2 | head -n 1 | cut -d: -f1)
        poke disk.qcow2 "$at" 1b5b33316d
        capture vdtool info disk.qcow2
        [[ $output$stderr != *$'\033'* ]]
        capture vdtool info --output json disk.qcow2
        jq -e . <<<"$output"
        [[ $output != *$'\033'* ]]
        poke disk.qcow2 "$at" fffec3280a
        capture vdtool info --output json disk.qcow2
        jq -e . <<<"$output"
}

@test "the corpus of hostile images: every command ends by itself" {
        requires corpus
        local file name
        for file in "$VDTOOL_CORPUS"/hostile/*; do
                name=$(corpus "hostile/${file##*/}")
                all_commands "$name" || say "$name" || return 1
                rm -f "$name"
        done
}

@test "hostile images that name other files of the machine are refused" {
        requires corpus
        local name
        name=$(corpus hostile/qcow2-datafile-etc-hosts.qcow2.xz)
        fails_cleanly vdtool convert -O raw "$name" out.raw
        name=$(corpus hostile/qcow2-backing-self.qcow2.xz)
        fails_cleanly vdtool convert -O raw "$name" out.raw
        [ ! -e out.raw ]
}

@test "hostile images that were cut are refused by convert" {
        requires corpus
        local file name
        for file in qcow2-truncated.qcow2.xz vhd-truncated.vhd.xz vhd-bat-past-eof.vhd.xz binwalk-header.qcow2 node-vhd-header.vhd \
                    vhd-bad-footer-checksum.vhd.xz vhd-bat-too-small.vhd.xz vhd-blocksize-zero.vhd.xz qcow2-bad-deflate.qcow2.xz; do
                name=$(corpus hostile/$file)
                fails_cleanly vdtool convert -f "$([[ $file == *vhd* ]] && echo vhd || echo qcow2)" -O raw "$name" out.raw || return 1
                [ ! -e out.raw ] || say "$file"
        done
}
