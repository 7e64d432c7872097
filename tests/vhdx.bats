#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# VHDX: reading, the log, writing, differencing disks, damage
load helpers
# shellcheck source=tests/images/vhd.bash
source "$BATS_TEST_DIRNAME/images/vhd.bash"
# shellcheck source=tests/images/vhdx.bash
source "$BATS_TEST_DIRNAME/images/vhdx.bash"

SMALL=634f74ce383acb18ddb573fe270e029cdf6614e58c3564d3b88362a8896c302a
LOG=95e5076e2fe4e1ceeb68071866c0466a24b464a62d3111ed021b8631e1999273
MIB=1048576

# foreign_readers FILE RAW: qemu-img, 7-Zip and libvhdi find the disk, and nothing wrong.  7-Zip only takes disks whose
# number of sectors is a multiple of 8.
foreign_readers() {
        qemu-img compare -q -f vhdx -F raw "$1" "$2" || say "qemu-img compare: $1" || return 1
        qemu-img check -q -f vhdx "$1" || say "qemu-img check: $1" || return 1
        same "$(content_7z "$1" vhdx)" "$(sha256 "$2")" || say "7zz: $1" || return 1
        vhdiinfo "$1" | grep -q VHDX || say "vhdiinfo: $1"
}

# damaged FILE OFFSET HEX...: a fresh copy of the dynamic fixture with other bytes.
damaged() {
        fixture good-vhdx-dynamic "$1" >/dev/null
        poke "$@"
}

refused() { fails_with "$1" vdtool convert -O raw "$2" out.raw && [ ! -e out.raw ]; }

# --- reading ----------------------------------------------------------------------------------------------------------

@test "VHDX images of the corpus read as the manifest says" {
        requires corpus
        local file name count=0
        for file in $(corpus_known vhdx); do
                # the hash of 10 GiB takes its time
                [ "$(corpus_fact "$file" virtual_size)" -le $((1024 * MIB)) ] || continue
                name=$(corpus "$file")
                same "$(content "$name")" "$(corpus_fact "$file" content_sha256)" || say "$file" || return 1
                succeeds vdtool check "$name"
                rm "$name"
                count=$((count + 1))
        done
        [ "$count" -ge 7 ]
}

@test "a log of Hyper-V is replayed in memory as qemu-img replays it on disk" {
        requires corpus
        local name
        name=$(corpus vhdx/iotest-dirtylog-10G-4M.vhdx.bz2)
        cp "$name" replayed
        qemu-img check -q -r all replayed
        capture vdtool check "$name"
        same "$status" 2
        vdtool compare -q "$name" replayed
        same "$(vdtool info --field dirty-flag replayed)" false
}

@test "malformed VHDX images of the corpus are refused" {
        requires corpus
        local file name
        for file in vhdx-bat-past-eof vhdx-both-headers-bad vhdx-region-crc-bad vhdx-truncated; do
                name=$(corpus hostile/$file.vhdx.xz)
                fails_cleanly vdtool convert -O raw "$name" out.raw
                capture vdtool check --data "$name"
                no_sanitizer
                [[ $status == [12] ]] || told
        done
}

@test "fixtures read as README.md says" {
        local name
        for name in good-vhdx-dynamic good-vhdx-fixed good-vhdx-log good-vhdx-parent good-vhdx-child; do
                fixture $name
                same "$(content $name)" "$(fixture_fact $name 4)"
        done
}

@test "info tells the facts of a header" {
        fixture good-vhdx-dynamic
        vdtool info --output json good-vhdx-dynamic >info.json
        jq -e '."format-specific".data | .subformat == "dynamic" and ."block-size" == 1048576 and .creator == "QEMU v7.2.22"
                and ."log-pending" == false and ."bat-offset" == 2097152' info.json
        same "$(vdtool info --field format good-vhdx-dynamic)" vhdx
        same "$(vdtool info --field cluster-size good-vhdx-dynamic)" $MIB
}

@test "map shows blocks, sectors of partial blocks and the parent" {
        fixture good-vhdx-parent
        fixture good-vhdx-child
        same "$(vdtool map good-vhdx-child | tail -n +2 | tr -s ' ')" "0 0x200 0x900000 good-vhdx-child
0x200 0x1000 0x800200 good-vhdx-parent
0x1200 0x200 0x901200 good-vhdx-child
0x1400 0xfea00 0x801400 good-vhdx-parent
0xffe00 0x100200 0x9ffe00 good-vhdx-child
0x200000 0x100000 0x900000 good-vhdx-parent"
}

@test "either header and either region table will do, with a warning and a finding" {
        local at
        for at in 65536 131072; do
                damaged disk $((at + 100)) 01
                same "$(content disk)" $SMALL
                capture vdtool check disk
                same "$status" 2
                [[ $output == *vhdx-header* ]]
        done
        for at in 196608 262144; do
                damaged disk $((at + 65000)) 01
                same "$(content disk)" $SMALL
                capture vdtool convert -O raw --force disk out.raw
                # shellcheck disable=SC2154
                [[ $stderr == *"region table"*damaged* ]]
                capture vdtool check disk
                same "$status" 2
                [[ $output == *vhdx-region-table* ]]
        done
}

@test "two equal headers are one, two different ones with one number are refused" {
        damaged disk $((0x10200)) 00
        dd if=disk of=disk bs=65536 skip=1 seek=2 count=1 conv=notrunc status=none
        same "$(content disk)" $SMALL
        poke disk $((131072 + 32)) 77
        vhdx_seal disk 131072 4096
        refused 'same sequence number' disk
}

@test "every state of a block reads as it should" {
        fixture good-vhdx-dynamic disk >/dev/null
        local state
        vdtool convert -O raw disk want.raw
        dd if=/dev/zero of=want.raw bs=1M count=1 conv=notrunc status=none
        for state in 0 1 2 3 5; do
                vhdx_bat disk 0 $((0x800000 | state))
                same "$(content disk)" "$(sha256 want.raw)" || say "state $state"
        done
        vhdx_bat disk 0 $((0x800004))
        refused 'state 4 is not defined' disk
        vhdx_bat disk 0 $((0x800007))
        refused 'state 7 (partially present) in a disk without parent' disk
}

@test "two blocks in one place, on a table, past the end" {
        fixture good-vhdx-dynamic disk >/dev/null
        vhdx_bat disk 0 "$(vhdx_number disk $((0x200010)) 8)"
        refused 'lies on another block' disk
        capture vdtool check disk
        same "$status" 2
        vhdx_bat disk 0 $((0x200006))
        refused 'overlaps the BAT' disk
        vhdx_bat disk 0 $((0x100006))
        refused 'overlaps the log' disk
        vhdx_bat disk 0 $((0x7fffffff00006))
        refused 'past end of file' disk
        vhdx_bat disk 0 $((0x6))
        refused 'overlaps the header section' disk
}

# --- the log ----------------------------------------------------------------------------------------------------------

@test "a pending log is replayed in memory: the file does not change, info says so" {
        fixture good-vhdx-log
        local before
        before=$(sha256 good-vhdx-log)
        same "$(content good-vhdx-log)" $LOG
        same "$(vdtool info --field dirty-flag good-vhdx-log)" true
        same "$(vdtool info --field format-specific.data.log-entries-replayed good-vhdx-log)" 2
        capture vdtool check --data good-vhdx-log
        same "$status" 2
        [[ $output == *vhdx-log-pending* ]]
        same "$(sha256 good-vhdx-log)" "$before"
}

@test "a pending log is replayed on disk before the first write, with the same result" {
        fixture good-vhdx-log
        printf 'first sector' >one.raw
        truncate -s 512 one.raw
        vdtool convert -O raw good-vhdx-log want.raw
        dd if=one.raw of=want.raw conv=notrunc status=none
        vdtool convert -n -f raw -O vhdx want.raw good-vhdx-log
        same "$(content good-vhdx-log)" "$(sha256 want.raw)"
        qemu-img compare -q -f vhdx -F raw good-vhdx-log want.raw
        qemu-img check -q good-vhdx-log
        same "$(vdtool info --field format-specific.data.log-pending good-vhdx-log)" false
}

@test "a log that was never replayed, in a file that was cut, without entries, of another version" {
        fixture good-vhdx-log
        truncate -s 10M good-vhdx-log
        refused 'cut short' good-vhdx-log
        damaged disk 0 76
        vhdx_headers disk 48 00112233445566778899aabbccddeeff
        refused 'holds no valid entries' disk
        fixture good-vhdx-log disk >/dev/null
        vhdx_headers disk 64 0100
        refused 'log has version 1' disk
}

@test "a log cannot reach headers, itself or the whole disk space" {
        local change guid=00112233445566778899aabbccddeeff
        head -c 4096 /dev/zero >zeros
        for change in zero:65536:4096 data:0:zeros zero:$MIB:4096 zero:$((2 * MIB)):$((1 << 50)) zero:$((1 << 60)):4096; do
                damaged disk 0 76
                vhdx_headers disk 48 $guid
                vhdx_entry $guid 1 0 0 0 "$change" | vhdx_log disk 0
                refused 'the log wants to change' disk
        done
        damaged disk 0 76
        vhdx_headers disk 48 $guid
        vhdx_entry $guid 1 0 0 $((1 << 62)) data:$((3 * MIB)):zeros | vhdx_log disk 0
        refused 'at most' disk
        vhdx_entry $guid 1 $((7 * 4096)) 0 0 data:$((3 * MIB)):zeros | vhdx_log disk 0
        refused 'holds no valid entries' disk
}

@test "a log of nearly 4 GiB, most of it a hole" {
        local guid=00112233445566778899aabbccddeeff
        damaged disk 0 76
        vhdx_headers disk 48 $guid
        vhdx_headers disk 72 "$(l64 $((32 * MIB)))"
        vhdx_headers disk 68 "$(l32 $((4095 * MIB)))"
        truncate -s 5G disk
        refused 'holds no valid entries' disk
        head -c 4096 /dev/zero >zeros
        vhdx_entry $guid 1 $((4000 * MIB)) 0 0 data:$((0x201000)):zeros |
                dd of=disk bs=1M seek=4032 conv=notrunc status=none
        bounded vdtool convert -O raw disk out.raw
        same "$(sha256 out.raw)" $SMALL
}

@test "a log with an entry that changes nothing is as good as none" {
        local guid=00112233445566778899aabbccddeeff
        damaged disk 0 76
        vhdx_headers disk 48 $guid
        vhdx_entry $guid 5 4096 0 0 | vhdx_log disk 1
        same "$(content disk)" $SMALL
}

# --- tables -----------------------------------------------------------------------------------------------------------

@test "region tables that cannot be right are refused" {
        damaged disk 0 76
        vhdx_regions disk 32 "$(l64 $((0x380000)))"
        refused 'multiples of 1 MiB' disk
        vhdx_regions disk 32 "$(l64 $((0x300000)))"
        refused overlaps disk
        vhdx_regions disk 32 "$(l64 0)"
        refused 'past the first one' disk
        damaged disk 0 76
        vhdx_regions disk 16 ff
        refused 'names no BAT' disk
        vhdx_regions disk 44 01
        refused 'required, but not known' disk
        damaged disk 0 76
        vhdx_regions disk 8 00080000
        refused 'neither of the region tables' disk
}

@test "an optional region that nobody knows keeps its space" {
        damaged disk 0 76
        vhdx_regions disk 8 0300000000000000
        vhdx_regions disk 80 "0102030405060708090a0b0c0d0e0f10$(l64 $((16 * MIB)))$(l32 $MIB)00000000"
        truncate -s 17M disk
        printf 'somebody needs this' | dd of=disk bs=1M seek=16 conv=notrunc status=none
        same "$(content disk)" $SMALL
        capture vdtool check disk
        same "$status" 3 || told
        head -c 3147264 /dev/zero | tr '\0' n >new.raw
        vdtool convert -n -f raw -O vhdx new.raw disk
        same "$(content disk)" "$(sha256 new.raw)"
        same "$(dd if=disk bs=1M skip=16 status=none | head -c 19)" 'somebody needs this'
}

@test "metadata that cannot be right is refused" {
        local at
        damaged disk $((0x310000)) "$(l32 $((3 * MIB)))"
        refused 'block size 3145728' disk
        damaged disk $((0x310008)) "$(l64 $((3 * MIB + 1)))"
        refused 'not a multiple of the sector size' disk
        damaged disk $((0x310008)) "$(l64 $(((64 << 40) + 512)))"
        refused '64 TiB' disk
        damaged disk $((0x310008)) "$(l64 $((1 << 40)))"
        refused 'the BAT has' disk
        damaged disk $((0x310020)) "$(l32 1024)"
        refused 'is not 512 or 4096' disk
        damaged disk $((0x300000)) 00
        refused 'wrong signature' disk
        damaged disk $((0x30000a)) 0400
        refused 'is missing' disk
        damaged disk $((0x300020 + 16)) "$(l32 $((0x200000)))"
        refused 'metadata item 0' disk
        damaged disk $((0x300020 + 16)) "$(l32 $((0x10008)))"
        refused overlap disk
        fixture good-vhdx-dynamic disk >/dev/null
        at=$(peek disk $((0x300020)) 16)
        poke disk $((0x300040)) "$at"
        refused 'the same as item' disk
        damaged disk $((0x300020)) 00
        refused 'required, but not known' disk
}

@test "user metadata items are shown, and kept by writes in place" {
        damaged disk $((0x30000a)) 0600
        # the GUID of the disk's size, but a user's: it means something else
        poke disk $((0x3000c0)) 2442a52f1bcd7648b2115dbed83bf4b8 "$(l32 $((0x20000)))$(l32 11)$(l32 1)00000000"
        poke disk $((0x320000)) "$(ascii 'hello world')"
        same "$(content disk)" $SMALL
        same "$(vdtool info --field 'format-specific.data.user-metadata.0.length' disk)" 11
        head -c 3147264 /dev/zero | tr '\0' n >new.raw
        vdtool convert -n -f raw -O vhdx new.raw disk
        same "$(vdtool info --field 'format-specific.data.user-metadata.0.length' disk)" 11
        same "$(dd if=disk bs=65536 skip=50 count=1 status=none | head -c 11)" 'hello world'
        # a copy keeps them, and so does a child what belongs to the virtual disk
        vdtool convert disk copy.vhdx
        same "$(vdtool info --field 'format-specific.data.user-metadata.0.length' copy.vhdx)" 11
        same "$(vdtool info --field format-specific.data.virtual-disk-id copy.vhdx)" \
                "$(vdtool info --field format-specific.data.virtual-disk-id disk)"
        vdtool create -q -b copy.vhdx -F vhdx child.vhdx
        [[ $(vdtool info --output json child.vhdx) != *user-metadata* ]]
        poke copy.vhdx $((0x2000d8)) 03
        vdtool create -q -b copy.vhdx -F vhdx another.vhdx
        [[ $(vdtool info --output json another.vhdx) == *user-metadata* ]]
        poke disk $((0x3000d8)) 05000000
        refused 'required, but not known' disk
}

@test "VHDX cut at 30 places, also with a log to replay" {
        local name size want at
        for name in good-vhdx-dynamic good-vhdx-log; do
                fixture $name whole >/dev/null
                size=$(size_of whole)
                want=$(fixture_fact $name 4)
                for at in $(seq 8 $((size / 30)) $((size - 1))) $((size - 1)) $((size - 512)); do
                        head -c "$at" whole >cut.vhdx
                        rm -f out.raw
                        capture vdtool convert -f vhdx -O raw cut.vhdx out.raw
                        no_sanitizer
                        if [ "$status" -eq 0 ]; then
                                same "$(sha256 out.raw)" "$want" || say "$name cut at $at"
                        else
                                same "$status $(error_lines)" '1 1' || told
                        fi
                done
        done
}

# --- new images -------------------------------------------------------------------------------------------------------

@test "new disks of every kind hold the disk, for qemu-img, 7-Zip and libvhdi" {
        local options
        disk_image disk.raw $((21 * MIB + 4096))
        for options in '' subformat=fixed block_size=1M block_size=256M,log_size=3M block_state_zero=on \
                subformat=fixed,preallocation=falloc,block_size=2M subformat=fixed,preallocation=full,block_size=1M \
                physical_sector_size=512; do
                rm -f disk.vhdx
                vdtool convert ${options:+-o $options} disk.raw disk.vhdx
                foreign_readers disk.vhdx disk.raw || say "$options" || return 1
                same "$(content disk.vhdx)" "$(sha256 disk.raw)" || say "$options" || return 1
                succeeds vdtool check --data disk.vhdx
        done
}

@test "logical sectors of 4096 bytes" {
        disk_image disk.raw $((16 * MIB))
        vdtool convert -o logical_sector_size=4096 disk.raw disk.vhdx
        same "$(vdtool info --field format-specific.data.logical-sector-size disk.vhdx)" 4096
        same "$(content disk.vhdx)" "$(sha256 disk.raw)"
        same "$(content_7z disk.vhdx vhdx)" "$(sha256 disk.raw)"
        vhdiinfo disk.vhdx | grep -q 'Bytes per sector.*4096'
        vdtool create -q -o logical_sector_size=4096 odd.vhdx 1000000
        same "$(vdtool info --field virtual-size odd.vhdx)" 1003520
}

@test "sizes: nothing, one sector, a chunk and a sector, 64 TiB" {
        local size
        for size in 0 512 4294967296 4294967808 70368744177664; do
                rm -f disk.vhdx
                vdtool create -q -o block_size=1M disk.vhdx $size
                same "$(vdtool info --field virtual-size disk.vhdx)" $size
                [ $size -eq 0 ] || same "$(qemu-img info --output json disk.vhdx | jq '."virtual-size"')" $size
                succeeds vdtool check disk.vhdx
        done
        fails_with '64 TiB' vdtool create -q big.vhdx 70368744178176
        only_files disk.vhdx
}

@test "data around the border of two chunks" {
        truncate -s $((4096 * MIB + 3 * MIB)) disk.raw
        printf 'on both sides' | dd of=disk.raw bs=1 seek=$((4096 * MIB - 7)) conv=notrunc status=none
        printf 'last' | dd of=disk.raw bs=1 seek=$((4096 * MIB + 3 * MIB - 4)) conv=notrunc status=none
        vdtool convert -o block_size=1M disk.raw disk.vhdx
        qemu-img dd -f vhdx -O raw bs=1M skip=4095 if=disk.vhdx of=part.raw
        dd if=disk.raw bs=1M skip=4095 status=none | cmp - part.raw
        vdtool compare -q disk.vhdx disk.raw
        same "$(peek disk.vhdx $((0x300000 + 8 * 4096)) 8)" 0000000000000000
}

@test "options that make no sense are refused" {
        fails_with block_size vdtool create -q -o block_size=3M disk.vhdx 1G
        fails_with block_size vdtool create -q -o block_size=512k disk.vhdx 1G
        fails_with log_size vdtool create -q -o log_size=1500k disk.vhdx 1G
        fails_with logical_sector_size vdtool create -q -o logical_sector_size=1024 disk.vhdx 1G
        fails_with preallocation vdtool create -q -o preallocation=full disk.vhdx 1G
        fails_with backing vdtool create -q -o subformat=differencing disk.vhdx 1G
        fails_with uuid vdtool create -q -o uuid=1234 disk.vhdx 1G
        only_files
}

@test "the same input gives the same bytes, whatever the number of threads" {
        disk_image disk.raw $((21 * MIB))
        export SOURCE_DATE_EPOCH=1700000000
        vdtool convert -m 1 disk.raw a.vhdx
        vdtool convert -m 3 disk.raw b.vhdx
        cmp a.vhdx b.vhdx
        printf other | dd of=disk.raw conv=notrunc status=none
        vdtool convert disk.raw c.vhdx
        [ "$(vdtool info --field format-specific.data.data-write-guid a.vhdx)" != \
          "$(vdtool info --field format-specific.data.data-write-guid c.vhdx)" ]
}

# --- in place ---------------------------------------------------------------------------------------------------------

@test "-n into images of qemu-img and of vdtool, which qemu-img can then write" {
        local options
        disk_image disk.raw $((21 * MIB))
        for options in subformat=dynamic subformat=fixed subformat=fixed,block_state_zero=off,block_size=8M \
                subformat=dynamic,block_size=1M,log_size=2M; do
                rm -f disk.vhdx
                qemu-img create -q -f vhdx -o "$options" disk.vhdx 21M
                vdtool convert -n -O vhdx disk.raw disk.vhdx
                foreign_readers disk.vhdx disk.raw || say "$options" || return 1
                capture vdtool check --data disk.vhdx
                same "$status" 0 || told || return 1
                cp disk.raw more.raw
                qemu-io -f vhdx -c 'write -P 7 5M 1M' -c 'write -P 8 20M 512' disk.vhdx >/dev/null
                qemu-io -f raw -c 'write -P 7 5M 1M' -c 'write -P 8 20M 512' more.raw >/dev/null
                same "$(content disk.vhdx)" "$(sha256 more.raw)"
        done
}

@test "writes in place: new GUIDs, both headers fresh, no log left" {
        disk_image disk.raw $((5 * MIB))
        vdtool create -q disk.vhdx 5M
        local before first second
        before=$(vdtool info --field format-specific.data.data-write-guid disk.vhdx)
        vdtool convert -n -O vhdx disk.raw disk.vhdx
        [ "$before" != "$(vdtool info --field format-specific.data.data-write-guid disk.vhdx)" ]
        first=$(peek disk.vhdx 65552 48) second=$(peek disk.vhdx 131088 48)
        same "$first" "$second"
        same "${first:64}" "$(padded 16 "")"
}

@test "tables change only through the log: what qemu-img replays after a kill is the disk" {
        requires strace
        local n
        disk_image disk.raw $((9 * MIB))
        head -c $((9 * MIB)) /dev/zero | tr '\0' o >old.raw
        for n in 3 7 9 10 11 12 13 14 15; do
                truncate -s 0 half.raw
                head -c $((3 * MIB)) old.raw >half.raw
                truncate -s $((9 * MIB)) half.raw
                rm -f disk.vhdx
                qemu-img convert -f raw -O vhdx -o block_size=1M half.raw disk.vhdx
                capture env ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -o "$BATS_TEST_TMPDIR/trace" \
                        -e trace=pwrite64 -e inject=pwrite64:signal=SIGKILL:when=$n \
                        "$VDTOOL" convert -n -m 1 -f raw -O vhdx disk.raw disk.vhdx
                [[ $status == 137 || $status == 0 ]] || told
                vdtool convert -f vhdx --force -O raw disk.vhdx memory.raw
                # per byte: 'o' or zero before, the new disk after
                cmp -l memory.raw disk.raw | awk '{ if ($2 != 157 && $2 != 0) bad = 1 } END { exit bad }' || say "kill $n"
                capture qemu-img check -r all disk.vhdx
                same "$status" 0 || told
                qemu-img compare -q -f vhdx -F raw disk.vhdx memory.raw || say "kill $n"
        done
}

@test "an image whose table is damaged is not written" {
        local before
        fixture good-vhdx-dynamic disk >/dev/null
        vhdx_bat disk 0 $((0x7fffffff00006))
        before=$(sha256 disk)
        head -c 3147264 /dev/zero | tr '\0' n >new.raw
        fails_with 'past end of file' vdtool convert -n -f raw -O vhdx new.raw disk
        same "$(sha256 disk)" "$before"
}

# --- differencing disks -----------------------------------------------------------------------------------------------

@test "a differencing disk holds what differs from its parent; 7-Zip and libvhdi agree" {
        local size
        disk_image base.raw $((21 * MIB))
        cp base.raw disk.raw
        printf 'changed' | dd of=disk.raw bs=1 seek=5000000 conv=notrunc status=none
        dd if=/dev/zero of=disk.raw bs=1M seek=1 count=3 conv=notrunc status=none
        vdtool convert -o block_size=1M base.raw base.vhdx
        vdtool convert -q -o backing_fmt=vhdx -B base.vhdx -O vhdx disk.raw top.vhdx
        same "$(vdtool info --field format-specific.data.subformat top.vhdx)" differencing
        same "$(content top.vhdx)" "$(sha256 disk.raw)"
        same "$(content_7z top.vhdx vhdx)" "$(sha256 disk.raw)"
        vhdiinfo top.vhdx | grep -q Differential
        vdtool check -q --data top.vhdx
        same "$(vdtool info --field backing-filename top.vhdx)" base.vhdx
}

@test "partial writes into a differencing disk: sectors of the parent shine through" {
        local sector
        disk_image base.raw $((8 * MIB))
        for sector in 512 4096; do
                rm -f base.vhdx top.vhdx
                vdtool convert -o logical_sector_size=$sector base.raw base.vhdx
                vdtool create -q -o block_size=2M -b base.vhdx -F vhdx top.vhdx
                same "$(content top.vhdx)" "$(sha256 base.raw)"
                # nothing is written that is the same
                vdtool convert -n -O vhdx base.raw top.vhdx
                same "$(content top.vhdx)" "$(sha256 base.raw)"
                same "$(content_7z top.vhdx vhdx)" "$(sha256 base.raw)"
                vdtool check -q --data top.vhdx
        done
}

@test "a parent that is missing, another disk, changed, of another format, its own" {
        fixture good-vhdx-child
        refused 'parent image is missing' good-vhdx-child
        fixture good-vhdx-dynamic good-vhdx-parent
        refused 'has data write GUID' good-vhdx-child
        fixture good-vhd-dynamic good-vhdx-parent
        refused 'good-vhdx-parent' good-vhdx-child
        fixture good-vhdx-parent
        same "$(content good-vhdx-child)" "$(fixture_fact good-vhdx-child 4)"
        qemu-io -f vhdx -c 'write -P 1 0 512' good-vhdx-parent >/dev/null
        refused 'was changed since' good-vhdx-child
        fixture good-vhdx-parent elsewhere
        rm good-vhdx-parent
        same "$(content --parent elsewhere good-vhdx-child)" "$(fixture_fact good-vhdx-child 4)"
        fails_with 'comes back to' vdtool convert -O raw --parent good-vhdx-child good-vhdx-child out.raw
        succeeds vdtool info good-vhdx-child
        succeeds vdtool check good-vhdx-child
}

@test "parent_linkage2, paths of other machines, and a locator without any" {
        local guid
        fixture good-vhdx-parent
        qemu-img create -q -f vhdx -o block_size=1M empty 4M
        guid=$(vdtool info --field format-specific.data.data-write-guid good-vhdx-parent)
        cp empty a.vhdx
        vhdx_make_child a.vhdx "$(vhdx_locator parent_linkage '{00000000-0000-0000-0000-000000000001}' \
                parent_linkage2 "${guid^^}" volume_path '\\?\Volume{0123}\here\good-vhdx-parent')"
        same "$(content a.vhdx)" "$(fixture_fact good-vhdx-child 4)"
        cp empty b.vhdx
        vhdx_make_child b.vhdx "$(vhdx_locator parent_linkage "$guid" absolute_win32_path '\\server\share\good-vhdx-parent')"
        same "$(content b.vhdx)" "$(fixture_fact good-vhdx-child 4)"
        cp empty c.vhdx
        vhdx_make_child c.vhdx "$(vhdx_locator parent_linkage "$guid" nothing at)"
        refused 'no path' c.vhdx
        cp empty d.vhdx
        vhdx_make_child d.vhdx "$(vhdx_locator parent_linkage hello relative_path good-vhdx-parent)"
        refused 'not a GUID' d.vhdx
        cp empty e.vhdx
        vhdx_make_child e.vhdx "$(vhdx_locator relative_path good-vhdx-parent)"
        refused 'parent_linkage is missing' e.vhdx
        cp a.vhdx f.vhdx
        poke f.vhdx $((0x320012)) ffff
        refused 'do not fit' f.vhdx
        cp empty g.vhdx
        poke g.vhdx $((0x310004)) 02000000
        refused 'no parent locator' g.vhdx
}

@test "bitmap entries that cannot be right" {
        fixture good-vhdx-parent
        fixture good-vhdx-child disk >/dev/null
        vhdx_bat disk 4096 0
        refused 'no bitmap block' disk
        capture vdtool check disk
        same "$status" 2
        [[ $output == *vhdx-bitmap-missing* ]]
        vhdx_bat disk 4096 $((0x800007))
        refused 'only 0 and 6' disk
        vhdx_bat disk 4096 $((0x40000006))
        refused 'past end of file' disk
        vhdx_bat disk 4096 $((0x300006))
        refused 'overlaps the metadata region' disk
        vhdx_bat disk 4096 $((0xa00006))
        refused 'overlaps a sector bitmap block' disk
        capture vdtool check disk
        same "$status" 2
        [[ $output == *overlap* ]]
}
