#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# ASIF: by the published description, strictly
load helpers
# shellcheck source=tests/images/dmg.bash
source "$BATS_TEST_DIRNAME/images/dmg.bash"
# shellcheck source=tests/images/asif.bash
source "$BATS_TEST_DIRNAME/images/asif.bash"

TABLE=$((2 * 1048576))

@test "whole chunks, chunks in part, two groups, and what is not there" {
        asif_file disk.asif
        asif_disk disk.raw
        vdtool convert -O raw disk.asif out.raw
        same "$(size_of out.raw)" $((2051 * 1048576))
        vdtool compare -q -f raw -F raw out.raw disk.raw
        [ "$(blocks_of out.raw)" -lt 8192 ]
        same "$(vdtool info --field format disk.asif)" asif
        same "$(vdtool info --field format-specific.data.uuid disk.asif)" 00112233-4455-6677-8899-aabbccddeeff
        same "$(vdtool info --field format-specific.data.active-directory disk.asif)" B
        same "$(vdtool info --field 'format-specific.data.metadata.stable uuid' disk.asif)" ABC
        succeeds vdtool check --data disk.asif
        [[ $output != *asif-* ]] || told
}

@test "map: runs of chunks that follow each other are one" {
        asif_file disk.asif
        vdtool map --output json disk.asif >map.json
        same "$(jq -c '[.[] | select(.data) | [.start, .length, .offset]]' map.json)" \
                '[[0,2097152,3145728],[2098176,1536,5243904],[2100736,512,5246464],[2148532224,1048576,7340032]]'
}

@test "the directory with the higher sequence number rules" {
        asif_file disk.asif
        poke disk.asif 512 "$(b64 5)"
        vdtool convert -O raw disk.asif out.raw
        same "$(blocks_of out.raw)" 0
        poke disk.asif 512 "$(b64 4)"
        fails_with 'sequence number' vdtool info disk.asif
}

@test "what is not known is refused: versions, flags, block and chunk sizes" {
        local change
        asif_file good.asif
        for change in '4 00000002' '8 00000400' '12 00000001' '64 00100001' '64 00004000' '64 00000000' '68 0400' '68 0000' \
                '48 0000000000000000' '48 7fffffffffffffff' '56 ffffffffffffffff' '16 ffffffffffffff00' '16 0000000000000000' \
                '24 0000000000001001'; do
                cp good.asif disk.asif
                # shellcheck disable=SC2086
                poke disk.asif $change
                fails_with header vdtool convert -O raw disk.asif out || say "$change" || return 1
        done
        [ ! -e out ]
}

@test "entries: unknown states, reserved bits, chunks outside of the file" {
        local change
        asif_file good.asif
        # state 10, a reserved bit, index without state, chunk 0, chunk 9, 2^54
        for change in 8000000000000003 4080000000000003 0000000000000003 4000000000000000 4000000000000009 4040000000000000; do
                cp good.asif disk.asif
                poke disk.asif $TABLE $change
                fails_with 'guest offset 0' vdtool convert -O raw disk.asif out || say "$change" || return 1
                capture vdtool check disk.asif
                [[ $status == 2 && $output == *asif-entry* ]] || told || return 1
        done
        # the table itself
        cp good.asif disk.asif
        poke disk.asif 4104 "$(b64 9)"
        fails_with 'table 0' vdtool convert -O raw disk.asif out
        capture vdtool check disk.asif
        [[ $status == 2 && $output == *asif-table* ]] || told
        # two uses of a chunk
        cp good.asif disk.asif
        poke disk.asif $((TABLE + 8)) 4000000000000003
        capture vdtool check disk.asif
        [[ $status == 2 && $output == *overlap* ]] || told
        [ ! -e out ]
}

@test "bitmaps: missing, of an unknown state" {
        asif_file good.asif
        cp good.asif disk.asif
        poke disk.asif $((TABLE + 8 * 2048)) 0000000000000000
        fails_with bitmap vdtool convert -O raw disk.asif out
        capture vdtool check disk.asif
        [[ $status == 2 && $output == *asif-bitmap-missing* ]] || told
        cp good.asif disk.asif
        poke disk.asif $((6 * 1048576 + 1024)) 70
        fails_with 'state 3' vdtool convert -O raw disk.asif out
        capture vdtool check disk.asif
        [[ $status == 2 && $output == *asif-bitmap-state* ]] || told
        [ ! -e out ]
}

@test "metadata that is no property list is a warning" {
        asif_file disk.asif
        poke disk.asif $((8 * 1048576 + 520)) 3c3c3c
        capture vdtool check disk.asif
        [[ $status == 0 && $output == *asif-metadata* ]] || told
}

@test "a directory of many tables that are one is checked once" {
        asif_file disk.asif
        poke disk.asif 56 "$(b64 $((63 * 2048 * 2048 * 40)))"
        truncate -s $((9 * 1048576)) disk.asif
        local i
        for i in $(seq 40); do poke disk.asif $((4096 + 8 * i)) "$(b64 2)"; done
        capture timeout 20 "$VDTOOL" check disk.asif
        [[ $status == 2 && $output == *overlap* ]] || told
}

@test "cut anywhere, an ASIF is refused" {
        asif_file whole
        local at
        for at in 1 100 107 108 511 512 4095 4096 4104 5000 $((2 * 1048576)) $((3 * 1048576)) $((4 * 1048576 - 1)) $((7 * 1048576)) \
                $((8 * 1048576 - 1)); do
                head -c $at whole >disk.asif
                fails_cleanly vdtool convert -O raw disk.asif out || say "cut at $at" || return 1
        done
        [ ! -e out ]
}
