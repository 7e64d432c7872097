#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154  # capture sets status, output and stderr
# dd: against qemu-img dd and dd(1).

load helpers

@test "dd: blocks, counts and skips as qemu-img counts them" {
        requires qemu-img
        disk_image disk.raw
        for how in "" "count=3" "skip=7" "bs=1k count=20" "bs=700 count=9" "bs=1M skip=2" "bs=64k skip=70 count=100" \
                "count=1k bs=2k" "count=0"; do
                # shellcheck disable=SC2086
                qemu-img dd -f raw -O raw if=disk.raw of=expected.raw $how
                # shellcheck disable=SC2086
                vdtool dd --force -f raw -O raw if=disk.raw of=out.raw $how || say "$how" || return 1
                truncate -s %512 out.raw        # qemu-img rounds up
                cmp out.raw expected.raw || say "$how" || return 1
        done
}

@test "dd: skip and count together, seek, as dd counts them" {
        requires dd
        disk_image disk.raw
        for how in "count=3 skip=2" "bs=1000 skip=1111 count=200" "seek=3 count=1" "bs=4k seek=100 skip=600 count=300" \
                "seek=4 count=0"; do
                rm -f expected.raw
                # shellcheck disable=SC2086
                dd if=disk.raw of=expected.raw $how status=none
                # shellcheck disable=SC2086
                vdtool dd --force if=disk.raw of=out.raw $how || say "$how" || return 1
                cmp out.raw expected.raw || say "$how" || return 1
        done
}

@test "dd: from and into every format" {
        disk_image disk.raw 4194304
        dd if=disk.raw of=expected.raw bs=64k skip=3 count=30 seek=2 status=none
        vdtool convert -c disk.raw disk.qcow2
        for format in qcow2 vhd vhdx vdi vmdk; do
                vdtool dd -q -O "$format" bs=64k skip=3 count=30 seek=2 if=disk.qcow2 of="out.$format"
                vdtool check -q "out.$format"
                vdtool compare -q "out.$format" expected.raw || say "$format" || return 1
        done
}

@test "dd: conv=notrunc changes these blocks and no others" {
        requires qemu-img
        disk_image disk.raw 4194304
        head -c 4194304 /dev/urandom >old.raw
        for how in "seek=1 count=1" "bs=1000 seek=77 skip=5 count=300" "bs=64k seek=10 skip=2 count=50" \
                "bs=1M seek=1 skip=0 count=3" "bs=1M seek=3 count=1" "seek=9000 count=0"; do
                cp old.raw expected.raw
                # shellcheck disable=SC2086
                dd if=disk.raw of=expected.raw $how conv=notrunc status=none
                cp old.raw out.raw
                # shellcheck disable=SC2086
                vdtool dd if=disk.raw of=out.raw -O raw $how conv=notrunc || say "raw: $how" || return 1
                cmp out.raw expected.raw || say "raw: $how" || return 1
                for format in qcow2 vhd vhdx vdi; do
                        vdtool convert -q --force -O "$format" old.raw out
                        # shellcheck disable=SC2086
                        vdtool dd if=disk.raw of=out -O "$format" $how conv=notrunc,sparse || say "$how" || return 1
                        vdtool check -q out || say "$format: $how" || return 1
                        vdtool compare -q out expected.raw || say "$format: $how" || return 1
                done
                qemu-img convert -c -O qcow2 old.raw out.qcow2
                # shellcheck disable=SC2086
                vdtool dd -q -m 1 if=disk.raw of=out.qcow2 $how conv=notrunc
                qemu-img compare -q -f qcow2 -F raw out.qcow2 expected.raw || say "compressed: $how" || return 1
                qemu-img check -q out.qcow2
        done
}

@test "dd: conv=notrunc on an overlay leaves the rest to the parent" {
        requires qemu-img
        head -c 4194304 /dev/urandom >base.raw
        disk_image disk.raw 4194304
        cp base.raw expected.raw
        dd if=disk.raw of=expected.raw bs=1000 seek=333 count=500 conv=notrunc status=none
        qemu-img create -q -f qcow2 -b base.raw -F raw over.qcow2
        cp base.raw before.raw
        vdtool dd -q bs=1000 seek=333 count=500 conv=notrunc if=disk.raw of=over.qcow2
        qemu-img compare -q over.qcow2 expected.raw
        cmp base.raw before.raw
        [ "$(size_of over.qcow2)" -lt 1300000 ]
}

@test "dd: a raw file grows, another disk does not" {
        printf 'begin' >out.raw
        printf 'end' >in.raw
        vdtool dd -q bs=1 seek=10 conv=notrunc if=in.raw of=out.raw
        same "$(tr '\0' . <out.raw)" "begin.....end"
        vdtool create -q out.qcow2 1M
        fails_with "ends before" vdtool dd -q bs=1M seek=1 conv=notrunc if=in.raw of=out.qcow2
        # What is not there yet is made.
        vdtool dd if=in.raw of=new.raw conv=notrunc
        cmp new.raw in.raw
}

@test "dd: holes stay holes, zeros become holes with conv=sparse" {
        truncate -s 8M disk.raw
        head -c 1M /dev/zero | dd of=disk.raw bs=1M seek=2 conv=notrunc status=none
        printf x | dd of=disk.raw bs=1M seek=4 conv=notrunc status=none
        vdtool dd if=disk.raw of=out.raw
        cmp out.raw disk.raw
        [ "$(blocks_of out.raw)" -ge 2048 ] && [ "$(blocks_of out.raw)" -lt 3000 ]
        vdtool dd if=disk.raw of=sparse.raw conv=sparse
        cmp sparse.raw disk.raw
        [ "$(blocks_of sparse.raw)" -lt 200 ]
        truncate -s 8T huge.raw
        vdtool dd bs=1G skip=3 if=huge.raw of=huge.qcow2
        same "$(vdtool info --field virtual-size huge.qcow2)" $(((8192 - 3) << 30))
}

@test "dd: more to skip than there is makes an empty output, and says so" {
        printf abc >disk.raw
        succeeds vdtool dd skip=1 if=disk.raw of=out.raw
        [[ $stderr == *"nothing is copied"* ]] || told
        same "$(size_of out.raw)" 0
}

@test "dd: standard input and output" {
        disk_image disk.raw
        vdtool convert disk.raw disk.qcow2
        same "$(vdtool dd -O raw bs=1k count=20 if=disk.qcow2 of=- | openssl dgst -sha256 -r | cut -d' ' -f1)" \
                "$(head -c 20480 disk.raw | openssl dgst -sha256 -r | cut -d' ' -f1)"
        # shellcheck disable=SC2002
        cat disk.raw | vdtool dd -q -f raw bs=1k skip=4 if=- of=out.raw
        tail -c +4097 disk.raw | cmp - out.raw
}

@test "dd: mistakes are named" {
        printf abc >disk.raw
        fails_with "needs if= and of=" vdtool dd if=disk.raw
        fails_with "none of if=" vdtool dd if=disk.raw of=out.raw ibs=4
        fails_with "none of if=" vdtool dd disk.raw out.raw
        fails_with "bs=: 0" vdtool dd if=disk.raw of=out.raw bs=0
        fails_with "bs=: 4294967296" vdtool dd if=disk.raw of=out.raw bs=4G
        fails_with "count=" vdtool dd if=disk.raw of=out.raw count=x
        fails_with "did you mean sparse" vdtool dd if=disk.raw of=out.raw conv=sparce
        fails_with "seek=" vdtool dd if=disk.raw of=out.raw bs=1G seek=9E
        fails_with "also an input" vdtool dd -f raw if=disk.raw of=disk.raw conv=notrunc
        only_files disk.raw
        : >out.raw
        fails_with "exists" vdtool dd if=disk.raw of=out.raw
        fails_with "create options" vdtool dd -o size=1 if=disk.raw of=out.raw conv=notrunc
        only_files disk.raw out.raw
}
