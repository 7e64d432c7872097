#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Bochs: growing and sparse disks, sector bitmaps, damage
load helpers
# shellcheck source=tests/images/vmdk.bash
source "$BATS_TEST_DIRNAME/images/vmdk.bash"

# growing FILE: a disk of 160 KiB, extents of 64 KiB (bitmaps of 16 bytes), three entries, slot 0 for extent 1: its sector 5
# is "five", the others are stale.  The disk is in disk.raw.
growing() {
        truncate -s 0 "$1"
        truncate -s $((512 + 12 + 512 + 65536)) "$1"
        poke "$1" 0 "$(hex_of 'Bochs Virtual HD Image')"
        poke "$1" 32 "$(hex_of Redolog)"
        poke "$1" 48 "$(hex_of Growing)"
        poke "$1" 64 "$(l32 0x20000)$(l32 512)$(l32 3)$(l32 16)$(l32 65536)$(l32 0)$(l64 163840)"
        poke "$1" 512 "$(l32 0xffffffff)$(l32 0)$(l32 0xffffffff)"
        poke "$1" 524 20
        head -c 65536 /dev/zero | tr '\0' s | dd of="$1" bs=1 seek=1036 conv=notrunc status=none
        head -c 512 /dev/zero | tr '\0' 5 | dd of="$1" bs=1 seek=$((1036 + 5 * 512)) conv=notrunc status=none
        rm -f disk.raw
        truncate -s 163840 disk.raw
        head -c 512 /dev/zero | tr '\0' 5 | dd of=disk.raw bs=512 seek=$((128 + 5)) conv=notrunc status=none
}

@test "a growing disk: clear bits are zeros whatever lies there" {
        growing disk.img
        qemu-img compare -q -f bochs -F raw disk.img disk.raw
        same "$(content disk.img)" "$(sha256 disk.raw)"
        same "$(vdtool info --field format disk.img)" bochs
        same "$(vdtool info --field virtual-size disk.img)" 163840
        same "$(vdtool info --field format-specific.data.subformat disk.img)" Growing
        succeeds vdtool check --data disk.img
        vdtool map --output json disk.img | jq -e 'any(.[]; .start == 68096 and .length == 512 and .offset == 3596)'
}

@test "version 1 has its size elsewhere" {
        growing disk.img
        poke disk.img 64 "$(l32 0x10000)"
        poke disk.img 84 "$(l64 163840)$(l32 0)"
        same "$(content disk.img)" "$(sha256 disk.raw)"
}

@test "a sparse disk: pages behind a table, first page at a multiple of the page size" {
        truncate -s 0 disk.img
        truncate -s 12288 disk.img
        poke disk.img 0 "$(l32 0x02468ace)$(l32 2)$(l32 4096)$(l32 5)$(l64 20480)"
        poke disk.img 256 "$(l32 0xffffffff)$(l32 1)$(l32 0xffffffff)$(l32 0)$(l32 0xffffffff)"
        seq 1 2000 | head -c 8192 | dd of=disk.img bs=4096 seek=1 conv=notrunc status=none
        truncate -s 20480 disk.raw
        dd if=disk.img of=disk.raw bs=4096 skip=2 seek=1 count=1 conv=notrunc status=none
        dd if=disk.img of=disk.raw bs=4096 skip=1 seek=3 count=1 conv=notrunc status=none
        same "$(content disk.img)" "$(sha256 disk.raw)"
        same "$(vdtool info --field format-specific.data.subformat disk.img)" sparse
        succeeds vdtool check --data disk.img
        # version 1: as many pages as there are
        poke disk.img 4 "$(l32 1)$(l32 4096)$(l32 5)$(l64 0)"
        same "$(content disk.img)" "$(sha256 disk.raw)"
        poke disk.img 4 "$(l32 3)"
        fails_with 'version 3' vdtool info disk.img
}

@test "undoable and volatile redologs are refused by name" {
        local kind
        for kind in Undoable Volatile; do
                growing disk.img
                poke disk.img 48 "$(hex_of $kind)"
                fails_with $kind vdtool info disk.img
        done
}

@test "numbers of the header" {
        growing good.img
        local change
        # extent size 0, no power of two, huge; bitmap 0; catalog too small, too large; disk of 100 bytes, of 0
        for change in '80 00000000' '80 00300000' '80 00000080' '76 00000000' '72 01000000' '72 ffffffff' '88 64' \
                '88 0000000000000000' '64 00000300' '68 10000000' '68 ffffffff'; do
                cp good.img disk.img
                # shellcheck disable=SC2086
                poke disk.img $change
                fails_with header vdtool convert -O raw disk.img out || say "$change" || return 1
        done
        [ ! -e out ]
}

@test "the catalog: slots outside of the file and shared ones are errors, lost ones leaks" {
        growing good.img
        cp good.img disk.img
        poke disk.img 512 "$(l32 1)"
        fails_with 'past end of file' vdtool convert -O raw disk.img out
        capture vdtool check disk.img
        [[ $status == 2 && $output == *bochs-catalog-entry* ]] || told
        cp good.img disk.img
        poke disk.img 512 "$(l32 0)"
        fails_with 'another block' vdtool convert -O raw disk.img out
        capture vdtool check disk.img
        [[ $status == 2 && $output == *overlap* ]] || told
        cp good.img disk.img
        poke disk.img 516 "$(l32 0xffffffff)"
        capture vdtool check disk.img
        [[ $status == 3 && $output == *bochs-leak* ]] || told
        # a bit behind the end: the disk ends inside extent 2
        cp good.img disk.img
        poke disk.img 516 "$(l32 0xffffffff)$(l32 0)"
        poke disk.img $((524 + 15)) 80
        vdtool check disk.img | grep -q bochs-spare-bits
        [ ! -e out ]
}

@test "cut anywhere, it is refused or reads right" {
        growing whole
        local at
        for at in $(seq 30 3001 67000) 1 511 512 523 524 1035 1036 3596 4107 66571; do
                head -c "$at" whole >disk.bochs
                fails_cleanly vdtool convert -O raw disk.bochs out || say "cut at $at" || return 1
        done
        [ ! -e out ]
}

@test "images by bximage and QEMU's have the content of the manifest, damaged ones are refused" {
        requires corpus
        local file name
        for file in $(corpus_known bochs); do
                name=$(corpus "$file")
                same "$(content "$name")" "$(corpus_fact "$file" content_sha256)" || say "$file" || return 1
                succeeds vdtool check --data "$name" || say "$file" || return 1
        done
        for file in neg-catalog neg-extent small-catalog; do
                name=$(corpus hostile/bochs-$file.img.xz)
                fails_cleanly vdtool convert -O raw "$name" out || return 1
        done
        [ ! -e out ]
}
