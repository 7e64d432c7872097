#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Reading and writing qcow2
load helpers

# Converts disk.raw with options and lets others judge: writes_right OPTION...
writes_right() {
        rm -f out.qcow2 back.raw
        vdtool convert -f raw -O qcow2 "$@" disk.raw out.qcow2 || say "$*" || return 1
        qemu-img check -q out.qcow2 || say "check after $*" || return 1
        qemu-img compare -q -F raw out.qcow2 disk.raw || say "compare after $*" || return 1
        vdtool convert -O raw out.qcow2 back.raw || return 1
        cmp disk.raw back.raw || say "back after $*"
}

@test "qcow2 version 2 and 3" {
        disk_image disk.raw
        writes_right -o compat=0.10
        same "$(peek_number out.qcow2 4 4)" 2
        writes_right -o compat=1.1
        same "$(peek_number out.qcow2 4 4)" 3
        writes_right -o compat=v2
        same "$(peek_number out.qcow2 4 4)" 2
}

@test "every cluster size from 512 bytes to 2 MiB" {
        local size
        disk_image disk.raw
        for size in 512 1k 2k 4k 8k 16k 32k 64k 128k 256k 512k 1M 2M; do
                writes_right -o cluster_size=$size
        done
}

@test "every cluster size with packed units" {
        local size
        disk_image disk.raw
        for size in 512 4k 64k 256k 2M; do
                writes_right -c -o cluster_size=$size
                [ "$(qemu-img check --output=json out.qcow2 | jq '."compressed-clusters" // 0')" -gt 0 ]
        done
}

@test "every refcount width" {
        local bits
        disk_image disk.raw
        for bits in 1 2 4 8 16 32 64; do
                writes_right -o refcount_bits=$bits
        done
}

@test "extended L2 entries" {
        disk_image disk.raw
        writes_right -o extended_l2=on
        writes_right -o extended_l2=on,cluster_size=16k
        writes_right -o extended_l2=on,cluster_size=2M
}

@test "-c packs with deflate, in a form that every reader knows" {
        disk_image disk.raw
        writes_right -c
        judge qcow2 out.qcow2 disk.raw
        same "$(content_7z out.qcow2 qcow)" "$(sha256 disk.raw)"
        [ "$(size_of out.qcow2)" -lt "$(size_of disk.raw)" ]
}

@test "-c with zstd" {
        disk_image disk.raw
        writes_right -c -o compression_type=zstd
        same "$(qemu-img info --output=json out.qcow2 | jq -r '."format-specific".data."compression-type"')" zstd
}

@test "-c with a version 2 image" {
        disk_image disk.raw
        writes_right -c -o compat=0.10
        same "$(content_7z out.qcow2 qcow)" "$(sha256 disk.raw)"
}

@test "-c stores what does not become smaller as it is" {
        openssl enc -aes-128-ctr -K 01 -iv 00 -in /dev/zero 2>/dev/null | head -c 3M >disk.raw
        writes_right -c
        [ "$(size_of out.qcow2)" -lt 3700000 ]
}

@test "deflate units look back no further than 4096 bytes" {
        # 5000 bytes of noise, again and again: any match would have to reach back further
        openssl enc -aes-128-ctr -K 02 -iv 00 -in /dev/zero 2>/dev/null | head -c 5000 >noise
        for _ in {1..200}; do cat noise; done >disk.raw
        truncate -s 1000448 disk.raw
        writes_right -c
        [ "$(size_of out.qcow2)" -gt 900000 ]
}

@test "lazy refcounts and preallocation while converting" {
        disk_image disk.raw
        writes_right -o lazy_refcounts=on
        writes_right -o preallocation=metadata
        writes_right -o preallocation=falloc
        writes_right -o preallocation=full
}

@test "an external data file, raw or not" {
        disk_image disk.raw
        vdtool convert -f raw -O qcow2 -o data_file=one.data disk.raw one.qcow2
        qemu-img check -q one.qcow2
        qemu-img compare -q -F raw one.qcow2 disk.raw
        vdtool convert -f raw -O qcow2 -o data_file=two.data,data_file_raw=on disk.raw two.qcow2
        qemu-img check -q two.qcow2
        qemu-img compare -q -F raw two.qcow2 disk.raw
        qemu-img compare -q -f raw -F raw two.data disk.raw
        vdtool convert -O raw two.qcow2 back.raw
        cmp disk.raw back.raw
}

@test "an existing data file is not overwritten by accident" {
        disk_image disk.raw
        echo precious >one.data
        fails_cleanly vdtool convert -f raw -O qcow2 -o data_file=one.data disk.raw one.qcow2
        same "$(cat one.data)" precious
        only_files disk.raw one.data
}

@test "internal snapshots are read with -l, by name and by number" {
        fixture good-qcow2-snapshots
        vdtool convert -O raw -l first good-qcow2-snapshots first.raw
        same "$(sha256 first.raw)" 3eeff9e33c6bd6619d7c4ab4090779672d575529770737ed7a449e3cd2b03797
        vdtool convert -O raw -l 2 good-qcow2-snapshots second.raw
        same "$(sha256 second.raw)" 79026b6a5f2d2b998615964a1bf33a349134b63e15296889d00e051eafeb49b4
        vdtool convert -O raw -l snapshot.name=second good-qcow2-snapshots again.raw
        cmp second.raw again.raw
        fails_with third vdtool convert -O raw -l third good-qcow2-snapshots third.raw
        [ ! -e third.raw ]
}

@test "-B writes an overlay that holds what the source has above that base" {
        disk_image base.raw
        qemu-img create -q -f qcow2 -b base.raw -F raw source.qcow2
        qemu-io -c 'write -P 0x21 1M 1000' -c 'write -z 3M 128k' source.qcow2 >/dev/null
        vdtool convert -O qcow2 -B base.raw -F raw source.qcow2 top.qcow2
        qemu-img check -q top.qcow2
        qemu-img compare -q source.qcow2 top.qcow2
        [ "$(size_of top.qcow2)" -lt 600000 ] || say "$(size_of top.qcow2) bytes"
        qemu-img info --output=json top.qcow2 | jq -e '."backing-filename" == "base.raw" and ."backing-filename-format" == "raw"'
}

@test "-B of a chain keeps the lower layers where they are" {
        fixture good-raw-chain-base chain-base.raw
        fixture good-qcow2-chain-middle chain-middle.qcow2
        fixture good-qcow2-chain-top chain-top.qcow2
        vdtool convert -O qcow2 -B chain-middle.qcow2 -F qcow2 chain-top.qcow2 copy.qcow2
        qemu-img check -q copy.qcow2
        same "$(content_qemu qcow2 copy.qcow2)" "$(fixture_fact good-qcow2-chain-top 4)"
        [ "$(size_of copy.qcow2)" -lt 1000000 ]
}

@test "a chain of three becomes one image without backing file" {
        fixture good-raw-chain-base chain-base.raw
        fixture good-qcow2-chain-middle chain-middle.qcow2
        fixture good-qcow2-chain-top chain-top.qcow2
        vdtool convert -O qcow2 chain-top.qcow2 flat.qcow2
        rm chain-*
        qemu-img check -q flat.qcow2
        same "$(content_qemu qcow2 flat.qcow2)" "$(fixture_fact good-qcow2-chain-top 4)"
}

@test "a unit that unpacks to too little is an error, not zeros" {
        fixture bad-qcow2-packed-short
        fails_cleanly vdtool convert -O raw bad-qcow2-packed-short out.raw
        only_files bad-qcow2-packed-short
}

@test "a table entry past the end of the file is an error that says where" {
        fixture bad-qcow2-data-past-end
        fails_with 'L2' vdtool convert -O raw bad-qcow2-data-past-end out.raw
        [[ $stderr == *9437184* || $stderr == *0x900000* ]] || told
}

@test "deflate units with a window of 32 KiB are read" {
        # one cluster: 20000 bytes of noise twice, so that matches reach back 20000 bytes
        openssl enc -aes-128-ctr -K 03 -iv 00 -in /dev/zero 2>/dev/null | head -c 20000 >noise
        cat noise noise noise noise | head -c 65536 >disk.raw
        vdtool convert -c -f raw -O qcow2 disk.raw template.qcow2
        # gzip's stream, without header and trailer, in place of ours
        gzip -9nc disk.raw | tail -c +11 | head -c -8 >stream
        local l2 entry at
        l2=$(($(peek_number template.qcow2 "$(peek_number template.qcow2 40 8)" 8) & 0xfffffffffffe00))
        at=$(((65535 + $(size_of template.qcow2)) / 65536 * 65536))
        entry=$((1 << 62 | ((($(size_of stream) + 511) / 512 - 1) << 54) | at))
        truncate -s $at template.qcow2
        cat stream >>template.qcow2
        truncate -s $((at + 65536)) template.qcow2
        poke template.qcow2 "$l2" "$(printf %016x $entry)"
        vdtool convert -O raw template.qcow2 back.raw
        cmp disk.raw back.raw
}

@test "zero clusters hide what the base has" {
        fixture good-raw-chain-base chain-base.raw
        fixture good-qcow2-chain-middle chain-middle.qcow2
        vdtool convert -O raw chain-middle.qcow2 out.raw
        same "$(dd if=out.raw bs=1k skip=2100 count=64 status=none | tr -d '\0' | wc -c)" 0
        [ "$(dd if=chain-base.raw bs=1k skip=2100 count=64 status=none | tr -d '\0' | wc -c)" -gt 0 ]
}

@test "a base shorter than the image ends in zeros" {
        printf 'short' >base.raw
        qemu-img create -q -f qcow2 -b base.raw -F raw top.qcow2 1M
        vdtool convert -O raw top.qcow2 out.raw
        same "$(content_qemu qcow2 top.qcow2)" "$(sha256 out.raw)"
}

@test "a base without recorded format is probed" {
        fixture good-qcow2-v3 base.qcow2
        qemu-img create -q -f qcow2 -u -b base.qcow2 top.qcow2 3147264 2>/dev/null || {
                # qemu-img insists on a format: take it out again
                qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
                poke top.qcow2 112 00000001
        }
        same "$(content top.qcow2)" "$(content base.qcow2)"
}

@test "snapshots and bitmaps that cannot be carried over are named in a warning" {
        fixture good-qcow2-snapshots
        capture vdtool convert -O raw good-qcow2-snapshots out.raw
        same "$status" 0
        [[ $stderr == *snapshot* ]] || told
}

@test "qcow2 that we write opens in qcowinfo with the right size" {
        disk_image disk.raw
        vdtool convert -f raw -O qcow2 disk.raw disk.qcow2
        qcowinfo disk.qcow2 | grep -q 5244416
        same "$(content_7z disk.qcow2 qcow)" "$(sha256 disk.raw)"
}

@test "a disk that needs several L2 tables and refcount blocks" {
        truncate -s 600M disk.raw
        local at
        for at in 0 7 63 64 65 200 333 511 512 599; do
                printf 'at %d' $at | dd of=disk.raw bs=1M seek=$at conv=notrunc status=none
        done
        writes_right -o cluster_size=512
        writes_right -o cluster_size=4k,refcount_bits=64
        writes_right
}
