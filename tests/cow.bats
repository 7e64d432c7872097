#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# cow of user-mode Linux and early QEMU: layouts, parents, damage
load helpers
# shellcheck source=tests/images/dmg.bash
source "$BATS_TEST_DIRNAME/images/dmg.bash"

text_hex() { printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n'; }

# A parent of 64 sectors and 3, with the time 1700000000; new.raw is the disk: sectors 1, 2 and 66 are this file's.
setup_files() {
        truncate -s $((67 * 512)) base.raw
        seq 1 5000 | dd of=base.raw bs=512 count=66 conv=notrunc status=none
        touch -d @1700000000 base.raw
        cp base.raw new.raw
        local sector
        for sector in 1 2 66; do
                head -c 512 /dev/zero | tr '\0' x | dd of=new.raw bs=512 seek=$sector conv=notrunc status=none
        done
}

# put FILE BITMAP DATA: bits and sectors of the disk of setup_files
put() {
        local file=$1 sector
        poke "$file" "$2" 060000000000000004
        for sector in 1 2 66; do
                dd if=new.raw of="$file" bs=1 skip=$((sector * 512)) seek=$(($3 + sector * 512)) count=512 conv=notrunc status=none
        done
}

SIZE=$((67 * 512))
TIME=1700000000

# cow_file LAYOUT FILE
cow_file() {
        local file=$2
        truncate -s 0 "$file"
        case $1 in
        qemu)
                poke "$file" 0 "4f4f4f4d$(b32 2)$(text_hex base.raw)"
                poke "$file" 1032 "$(b32 $TIME)$(b32 0)$(b64 $SIZE)$(b32 512)$(b32 0)"
                put "$file" 1056 1536
                ;;
        qemu32)
                poke "$file" 0 "4f4f4f4d$(b32 2)$(text_hex base.raw)"
                poke "$file" 1032 "$(b32 $TIME)$(b64 $SIZE)$(b32 512)"
                put "$file" 1048 1536
                ;;
        v2)
                poke "$file" 0 "4f4f4f4d$(b32 2)$(text_hex "$PWD/base.raw")"
                poke "$file" 4104 "$(b32 $TIME)$(b64 $SIZE)$(b32 512)"
                put "$file" 4120 4608
                ;;
        v2-64)
                poke "$file" 0 "4f4f4f4d$(b32 2)$(text_hex "$PWD/base.raw")"
                poke "$file" 4104 "$(b32 $TIME)$(b32 0)$(b64 $SIZE)$(b32 512)$(b32 0)"
                put "$file" 4128 4608
                ;;
        v3)
                poke "$file" 0 "4f4f4f4d$(b32 3)$(b32 $TIME)$(b64 $SIZE)$(b32 512)$(b32 4096)$(b32 0)$(text_hex "$PWD/base.raw")"
                put "$file" 8192 12288
                ;;
        v3-64)
                poke "$file" 0 "4f4f4f4d$(b32 3)$(b32 $TIME)$(b32 0)$(b64 $SIZE)$(b32 512)$(b32 4096)$(b32 0)$(text_hex "$PWD/base.raw")"
                put "$file" 8192 12288
                ;;
        v1)     # little-endian, as on a PC
                poke "$file" 0 "4d4f4f4f01000000$(text_hex base.raw)"
                poke "$file" 264 "00f15365" 0086000000000000 00020000
                put "$file" 280 512
                ;;
        esac
}

@test "every layout is told from the others and reads right" {
        setup_files
        local layout
        for layout in qemu qemu32 v2 v2-64 v3 v3-64 v1; do
                cow_file $layout disk.cow
                same "$(content disk.cow)" "$(sha256 new.raw)" || say "$layout" || return 1
                same "$(vdtool info --field format disk.cow)" cow
                same "$(vdtool info --field virtual-size disk.cow)" $SIZE
                same "$(vdtool info --field format-specific.data.backing-mtime disk.cow)" $TIME
                succeeds vdtool check --data disk.cow || say "$layout" || return 1
        done
}

@test "a parent that was changed later is a warning" {
        setup_files
        cow_file qemu disk.cow
        succeeds vdtool convert -O raw disk.cow out
        [[ $stderr != *changed* ]] || told
        touch -d @1700000002 base.raw
        rm out
        succeeds vdtool convert -O raw disk.cow out
        [[ $stderr == *'last changed'* ]] || told
        cmp out new.raw
}

@test "without its parent the disk is not read; info still tells" {
        setup_files
        cow_file qemu disk.cow
        rm base.raw
        fails_with base.raw vdtool convert -O raw disk.cow out
        succeeds vdtool info disk.cow
        # no name at all: zeros
        poke disk.cow 8 0000000000000000
        vdtool convert -O raw disk.cow out
        same "$(dd if=out bs=512 count=1 status=none | tr -d '\0' | wc -c)" 0
        cmp <(dd if=out bs=512 skip=1 count=2 status=none) <(dd if=new.raw bs=512 skip=1 count=2 status=none)
}

@test "headers that fit no layout, another kind, versions, alignment 0" {
        setup_files
        local change
        for change in '24 00000000' '20 00000003' '12 ffffffffffffffff' '12 0000000000000000' '20 00002000'; do
                cow_file v3 disk.cow
                # shellcheck disable=SC2086
                poke disk.cow $change
                fails_with header vdtool convert -O raw disk.cow out || say "$change" || return 1
        done
        cow_file v3 disk.cow
        poke disk.cow 28 00000001
        fails_with 'kind 1' vdtool convert -O raw disk.cow out
        cow_file qemu disk.cow
        poke disk.cow 4 00000007
        fails_cleanly vdtool convert -O raw disk.cow out
        fails_cleanly vdtool convert -n -O cow new.raw disk.cow
        [ ! -e out ]
}

@test "a path without its NUL is refused" {
        setup_files
        cow_file v3 disk.cow
        head -c 4096 /dev/zero | tr '\0' p | dd of=disk.cow bs=1 seek=32 conv=notrunc status=none
        fails_with header vdtool info disk.cow
}

@test "cut anywhere, a cow is refused or reads right" {
        setup_files
        local layout at size
        for layout in qemu v3; do
                cow_file $layout whole
                size=$(size_of whole)
                for at in $(seq 1 1499 "$size") 4127 4128 8191 8192 8193 8200 $((size - 1)) $((size - 513)); do
                        head -c "$at" whole >disk.cow
                        capture vdtool convert -O raw disk.cow out
                        no_sanitizer || return 1
                        if [ "$status" -eq 0 ]; then
                                cmp out new.raw || say "$layout cut at $at" || return 1
                                rm out
                        fi
                        [ ! -e out ] || return 1
                done
        done
        cow_file qemu whole
        head -c 3000 whole >disk.cow
        capture vdtool check disk.cow
        [[ $status == 2 && $output == *cow-truncated* ]] || told
}

@test "check: bits behind the last sector" {
        setup_files
        cow_file qemu disk.cow
        poke disk.cow $((1056 + 8)) 84
        vdtool check disk.cow | grep -q cow-spare-bits
}
