#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# cloop: blocks, index, damage
load helpers
# shellcheck source=tests/images/dmg.bash
source "$BATS_TEST_DIRNAME/images/dmg.bash"

# cloop_file FILE RAW BLOCK [VERSION]: as create_compressed_fs writes it
cloop_file() {
        local file=$1 raw=$2 block=$3 blocks at i
        blocks=$((($(size_of "$raw") + block - 1) / block))
        at=$((136 + 8 * (blocks + 1)))
        truncate -s 0 "$file"
        truncate -s 128 "$file"
        printf '#!/bin/sh\n#V%s Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n' "${4:-2.0}" |
                dd of="$file" conv=notrunc status=none
        poke "$file" 128 "$(b32 "$block")$(b32 $blocks)"
        : >packed
        for ((i = 0; i < blocks; i++)); do
                poke "$file" $((136 + 8 * i)) "$(b64 $((at + $(size_of packed))))"
                { dd if="$raw" bs="$block" skip=$i count=1 status=none && cat /dev/zero; } | head -c "$block" >piece
                zlib_of piece >>packed
        done
        poke "$file" $((136 + 8 * i)) "$(b64 $((at + $(size_of packed))))"
        cat packed >>"$file"
        rm packed piece
}

small_disk() {
        truncate -s 40960 disk.raw
        seq 1 4000 | dd of=disk.raw conv=notrunc status=none
}

@test "blocks unpack to the disk, for qemu-img too" {
        small_disk
        cloop_file disk.cloop disk.raw 4096
        qemu-img compare -q -f cloop -F raw disk.cloop disk.raw
        same "$(content disk.cloop)" "$(sha256 disk.raw)"
        same "$(vdtool info --field format disk.cloop)" cloop
        same "$(vdtool info --field format-specific.data.version disk.cloop)" 2.0
        succeeds vdtool check --data disk.cloop
        same "$(vdtool map disk.cloop | grep -c compressed)" 1
}

@test "the index: entries that fall, point outside or at the index are errors" {
        small_disk
        cloop_file good disk.raw 4096
        local change
        # entry 3 (at 160) below entry 2, behind the end, in the index; the first; the last
        for change in '160 0000000000000001' '160 00000000ffffffff' '160 8000000000000000' '136 0000000000000008' \
                '216 0000000000000100' '216 7fffffffffffffff'; do
                cp good disk.cloop
                # shellcheck disable=SC2086
                poke disk.cloop $change
                fails_with index vdtool convert -O raw disk.cloop out || say "$change" || return 1
        done
        cp good disk.cloop
        poke disk.cloop 160 00000000ffffffff
        capture vdtool check disk.cloop
        [[ $status == 2 && $output == *cloop-index-entry* ]] || told
        [ ! -e out ]
}

@test "damaged blocks: found by check --data with their place, refused by convert" {
        small_disk
        cloop_file disk.cloop disk.raw 4096
        poke disk.cloop 300 ffffffff
        succeeds vdtool check disk.cloop
        capture vdtool check --data disk.cloop
        [[ $status == 2 && $output == *packed-data* ]] || told
        fails_with 'compressed unit' vdtool convert -O raw disk.cloop out
        [ ! -e out ]
}

@test "numbers of the header" {
        small_disk
        cloop_file good disk.raw 4096
        local change
        for change in '128 00000000' '128 00000201' '128 80000000' '132 00000000' '132 ffffffff' '132 04000001'; do
                cp good disk.cloop
                # shellcheck disable=SC2086
                poke disk.cloop $change
                fails_with header vdtool info disk.cloop || say "$change" || return 1
        done
}

@test "version 4 is refused by name; shell scripts are no cloop" {
        small_disk
        cloop_file disk.cloop disk.raw 4096 4.0
        poke disk.cloop 136 1000000000000100
        fails_with 'version 4' vdtool info disk.cloop
        printf '#!/bin/sh\n#Very plain script\necho hello\n' >script
        same "$(vdtool info --field format script)" raw
}

@test "cut anywhere, a cloop is refused" {
        small_disk
        cloop_file whole disk.raw 4096
        local at size
        size=$(size_of whole)
        for at in 0 1 100 128 135 136 200 $(seq 224 997 "$size") $((size - 1)); do
                head -c "$at" whole >disk.cloop
                fails_cleanly vdtool convert -O raw disk.cloop out || say "cut at $at" || return 1
        done
        [ ! -e out ]
}

@test "images by create_compressed_fs have the content of the manifest, damaged ones are refused" {
        requires corpus
        local file name
        for file in $(corpus_known cloop); do
                name=$(corpus "$file")
                same "$(content "$name")" "$(corpus_fact "$file" content_sha256)" || say "$file" || return 1
                succeeds vdtool check --data "$name" || say "$file" || return 1
        done
        for file in bad-compressed-size blocksize-unaligned blocksize-zero too-many-offsets; do
                name=$(corpus hostile/cloop-$file.cloop.xz)
                fails_cleanly vdtool convert -O raw "$name" out || return 1
        done
        [ ! -e out ]
}
