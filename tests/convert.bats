#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# vdtool convert: the options and what they promise, whatever the format
load helpers

@test "convert in.vhd out.qcow2 works as written" {
        fixture good-vhd-os-disk in.vhd
        vdtool convert in.vhd out.qcow2
        qemu-img convert -f vpc -O raw in.vhd want.raw
        judge qcow2 out.qcow2 want.raw
        only_files in.vhd out.qcow2 want.raw
}

@test "raw to each format, judged by foreign readers" {
        local format
        disk_image disk.raw
        for format in $(creatable); do
                vdtool convert -f raw -O "$format" disk.raw "disk.$format.out" || say "to $format"
                # The others have foreign judges of their own in the files named after them.
                ! qemu_knows "$format" || judge "$format" "disk.$format.out" disk.raw
                vdtool convert -f "$format" -O raw "disk.$format.out" back.raw
                cmp disk.raw back.raw
                rm back.raw
        done
}

@test "every format to every other and back to raw" {
        local from to
        disk_image disk.raw
        for from in $(creatable); do
                mkdir from
                vdtool convert -f raw -O "$from" disk.raw from/disk
                for to in $(creatable); do
                        mkdir to        # some formats put further files beside the image
                        vdtool convert -f "$from" -O "$to" from/disk to/disk
                        vdtool convert -f "$to" -O raw to/disk back
                        cmp disk.raw back || say "$from to $to"
                        rm -r to back
                done
                rm -r from
        done
}

@test "disks of odd sizes keep their size and bytes" {
        local size format
        for size in 512 1024 65024 65536 66048 1049088 2097152 2097664 3145216; do
                head -c "$size" /dev/zero | tr '\0' 'x' >disk.raw
                for format in vhd qcow2; do
                        vdtool convert -f raw -O $format disk.raw disk.$format
                        judge $format disk.$format disk.raw || say "$size bytes as $format"
                        vdtool convert -O raw disk.$format back.raw
                        cmp disk.raw back.raw
                        rm disk.$format back.raw
                done
        done
}

@test "a raw file whose length is no multiple of 512 becomes the next sector, with zeros" {
        head -c 1000 /dev/zero | tr '\0' 'y' >disk.raw
        vdtool convert -f raw -O qcow2 disk.raw disk.qcow2
        same "$(vdtool info --field virtual-size disk.qcow2)" 1024
        vdtool convert -O raw disk.qcow2 back.raw
        same "$(head -c 1000 back.raw | sha256sum)" "$(sha256sum <disk.raw)"
        same "$(tail -c 24 back.raw | tr -d '\0' | wc -c)" 0
}

@test "an empty disk becomes an empty disk" {
        : >empty.raw
        vdtool convert -f raw -O qcow2 empty.raw empty.qcow2
        same "$(vdtool info --field virtual-size empty.qcow2)" 0
        vdtool convert -O raw empty.qcow2 back.raw
        same "$(size_of back.raw)" 0
}

@test "holes stay holes and runs of zeros become holes" {
        head -c 20M /dev/zero >dense.raw
        printf x | dd of=dense.raw bs=1 seek=9000000 conv=notrunc status=none
        vdtool convert -f raw -O raw dense.raw sparse.raw
        cmp dense.raw sparse.raw
        [ "$(blocks_of sparse.raw)" -le 64 ] || say "$(blocks_of sparse.raw) blocks"
        vdtool convert -f raw -O qcow2 dense.raw sparse.qcow2
        [ "$(size_of sparse.qcow2)" -le 524288 ] || say "$(size_of sparse.qcow2) bytes"
        vdtool convert -f raw -O vhd dense.raw sparse.vhd
        [ "$(size_of sparse.vhd)" -le 2200000 ] || say "$(size_of sparse.vhd) bytes"
}

@test "-S 0 writes zeros out" {
        truncate -s 4M holes.raw
        vdtool convert -f raw -O raw -S 0 holes.raw dense.raw
        [ $(($(blocks_of dense.raw) * 512)) -ge 4194304 ] || say "$(blocks_of dense.raw) blocks"
        cmp holes.raw dense.raw
}

@test "-S takes only sizes that qemu-img takes" {
        truncate -s 1M disk.raw
        vdtool convert -f raw -O raw -S 64k disk.raw out.raw
        fails_cleanly vdtool convert -f raw -O raw -S 1000 disk.raw out2.raw
        fails_cleanly vdtool convert -f raw -O raw -S 1G disk.raw out2.raw
        [ ! -e out2.raw ]
}

@test "10 TiB of nothing convert, in little space and memory" {
        truncate -s 10T big.raw
        printf x | dd of=big.raw bs=1 seek=5000000000000 conv=notrunc status=none
        qemu-img create -q -f qcow2 big.qcow2 10T
        bounded vdtool convert -f raw -O qcow2 big.raw out.qcow2
        qemu-img check -q out.qcow2
        qemu-io -r -c 'read -v 5000000000000 1' out.qcow2 | grep -q ':  78 '
        [ $(($(blocks_of out.qcow2) * 512)) -lt 10000000 ]
        bounded vdtool convert -O raw big.qcow2 out.raw
        same "$(size_of out.raw)" 10995116277760
        [ "$(blocks_of out.raw)" -le 64 ]
}

@test "several sources become one disk, one after the other" {
        disk_image one.raw 1049088
        fixture good-vhd-dynamic two.vhd
        fixture good-qcow2-zlib three.qcow2
        vdtool convert -O qcow2 one.raw two.vhd three.qcow2 all.qcow2
        cat one.raw >want.raw
        xz -dc "$IMAGES/good-raw-chain-base.xz" >>want.raw
        xz -dc "$IMAGES/good-raw-chain-base.xz" >>want.raw
        judge qcow2 all.qcow2 want.raw
}

@test "an existing output is refused before anything is read" {
        disk_image disk.raw 1048576
        echo precious >out.qcow2
        fails_with exists vdtool convert -f raw disk.raw out.qcow2
        same "$(cat out.qcow2)" precious
        only_files disk.raw out.qcow2
}

@test "--force replaces a file with the new image" {
        disk_image disk.raw 1048576
        echo old >out.qcow2
        chmod 640 out.qcow2
        vdtool convert --force -f raw disk.raw out.qcow2
        judge qcow2 out.qcow2 disk.raw
        same "$(stat -c %a out.qcow2)" 640
        only_files disk.raw out.qcow2
}

@test "-p reports progress on standard error, never on standard output" {
        disk_image disk.raw
        capture vdtool convert -p -f raw disk.raw out.qcow2
        same "$status" 0
        [ -z "$output" ] || told
        [[ $stderr == *100* ]] || told
        [[ $stderr != *$'\r'* ]] || told
}

@test "--progress=json writes an object a line that ends at the total" {
        disk_image disk.raw
        capture vdtool convert --progress=json -f raw disk.raw out.qcow2
        same "$status" 0
        jq -s -e 'length > 0' <<<"$stderr"
        jq -e . <<<"$stderr" >/dev/null
}

@test "-q is silent" {
        disk_image disk.raw
        capture vdtool convert -q -p -f raw disk.raw out.qcow2
        same "$status$output$stderr" 0
}

@test "the number of threads does not change the output" {
        local threads format
        export SOURCE_DATE_EPOCH=1700000000
        disk_image disk.raw
        for format in raw vhd qcow2; do
                for threads in 1 2 8; do
                        vdtool convert -m $threads -f raw -O $format disk.raw out.$threads
                done
                cmp out.1 out.2
                cmp out.1 out.8
                rm out.*
        done
        vdtool convert -c -m 1 -f raw -O qcow2 disk.raw out.1
        vdtool convert -c -m 8 -f raw -O qcow2 disk.raw out.8
        cmp out.1 out.8
}

@test "SOURCE_DATE_EPOCH makes two conversions the same file" {
        local format
        export SOURCE_DATE_EPOCH=1700000000
        disk_image disk.raw
        for format in raw vhd qcow2; do
                vdtool convert -f raw -O $format disk.raw one
                vdtool convert -f raw -O $format disk.raw two
                cmp one two
                rm one two
        done
}

@test "the source is not changed, not even its times" {
        fixture good-vhd-dynamic disk.vhd
        fixture good-qcow2-dirty disk.qcow2
        sha256sum disk.vhd disk.qcow2 >sums
        stat -c '%y %z %s' disk.vhd disk.qcow2 >before
        vdtool convert disk.vhd a.raw
        vdtool convert disk.qcow2 b.raw
        sha256sum -c --quiet sums
        stat -c '%y %z %s' disk.vhd disk.qcow2 | diff before -
}

@test "a window of a raw file is a disk: --offset and --size" {
        disk_image disk.raw
        vdtool convert -f raw -O raw --offset 1M --size 512k disk.raw part.raw
        same "$(sha256 part.raw)" "$(dd if=disk.raw bs=512k skip=2 count=1 status=none | sha256sum | cut -d' ' -f1)"
        fails_cleanly vdtool convert -f raw -O raw --offset 5M --size 5M disk.raw bad.raw
        [ ! -e bad.raw ]
}

@test "-O of an unknown format says where the known ones stand" {
        truncate -s 1M disk.raw
        fails_with 'vdtool formats' vdtool convert -f raw -O nonsense disk.raw out
        only_files disk.raw
}

@test "options that contradict each other are refused" {
        disk_image disk.raw 1048576
        fails_cleanly vdtool convert -f raw -O vhd -c disk.raw out.vhd
        fails_cleanly vdtool convert -f raw -O raw -c disk.raw out.raw
        fails_cleanly vdtool convert -f raw -O qcow2 -n -o cluster_size=64k disk.raw out.qcow2
        only_files disk.raw
}

@test "a source that is missing, a directory or not readable" {
        mkdir directory
        fails_with 'No such file' vdtool convert nowhere out.raw
        fails_cleanly vdtool convert directory out.raw
        fails_cleanly vdtool convert -f raw directory out.raw
        only_files directory
}

@test "a block device is a source like a file" {
        requires root losetup
        disk_image disk.raw 4194304
        local device
        device=$(losetup -f --show disk.raw 2>/dev/null) || device=
        if [ -n "$device" ]; then
                vdtool convert -f raw -O qcow2 "$device" out.qcow2
                losetup -d "$device"
                judge qcow2 out.qcow2 disk.raw
        fi
}

@test "a huge sparse source file is not slower for its holes" {
        truncate -s 4T big.raw
        bounded vdtool convert -f raw -O qcow2 big.raw out.qcow2
        qemu-img check -q out.qcow2
        same "$(vdtool info --field virtual-size out.qcow2)" 4398046511104
}
