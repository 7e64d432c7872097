#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# vdtool compare
load helpers

@test "the same disk in three formats is identical" {
        disk_image disk.raw
        vdtool convert -f raw disk.raw disk.vhd
        vdtool convert -f raw disk.raw disk.qcow2
        local pair
        for pair in 'disk.raw disk.vhd' 'disk.vhd disk.qcow2' 'disk.qcow2 disk.raw'; do
                # shellcheck disable=SC2086
                capture vdtool compare $pair
                same "$status $output" '0 Images are identical.'
        done
}

@test "a difference is status 1 and its offset, as qemu-img says it" {
        local at
        disk_image disk.raw
        for at in 0 1 511 512 65535 65536 3000000 5244415; do
                cp disk.raw other.raw
                printf '\377' | dd of=other.raw bs=1 seek=$at conv=notrunc status=none
                capture vdtool compare -f raw -F raw disk.raw other.raw
                same "$status" 1
                qemu-img compare -f raw -F raw disk.raw other.raw >theirs || true
                # qemu-img names the sector or chunk, we may be exact
                [[ $output == 'Content mismatch at offset '*'!' ]] || told
                local found=${output//[^0-9]/}
                [ "$found" -le $at ] && [ $((at - found)) -lt 512 ]
        done
}

@test "compare stops at the first difference, --all lists every range" {
        disk_image disk.raw
        cp disk.raw other.raw
        printf 'X' | dd of=other.raw bs=1 seek=100000 conv=notrunc status=none
        printf 'Y' | dd of=other.raw bs=1 seek=4000000 conv=notrunc status=none
        capture vdtool compare -f raw -F raw disk.raw other.raw
        same "$(wc -l <<<"$output")" 1
        capture vdtool compare --all -f raw -F raw disk.raw other.raw
        same "$status" 1
        # sectors 195 and 7812
        [[ $output == *0x18600* && $output == *0x3d0800* ]] || told
}

@test "a longer disk is equal when its tail is zero, and not with -s" {
        disk_image short.raw 1049088
        cp short.raw long.raw
        truncate -s 3M long.raw
        capture vdtool compare -f raw -F raw short.raw long.raw
        same "$status" 0
        [[ $output == *'Warning: Image size mismatch!'*'Images are identical.'* ]] || told
        capture vdtool compare -f raw -F raw long.raw short.raw
        same "$status" 0
        capture vdtool compare -s -f raw -F raw short.raw long.raw
        same "$status" 1
        [[ $output == *'Strict mode: Image size mismatch!'* ]] || told
}

@test "a longer disk whose tail has data differs" {
        disk_image short.raw 1049088
        cp short.raw long.raw
        truncate -s 3M long.raw
        printf x | dd of=long.raw bs=1 seek=3000000 conv=notrunc status=none
        capture vdtool compare -f raw -F raw short.raw long.raw
        same "$status" 1
        [[ $output == *'Content mismatch at offset '* ]] || told
}

@test "an image that cannot be opened is status 2" {
        truncate -s 1M disk.raw
        fails_cleanly vdtool compare disk.raw nowhere
        same "$status" 2
        fixture bad-qcow2-l1-huge
        fails_cleanly vdtool compare bad-qcow2-l1-huge disk.raw
        same "$status" 2
}

@test "an image that cannot be read is status 3 or 4, never 0 or 1" {
        # what a reader sees before it meets the damage
        local name
        printf 'first' >disk.raw
        truncate -s 5M disk.raw
        for name in bad-qcow2-data-past-end bad-qcow2-l2-past-end bad-qcow2-packed-garbage bad-vhd-block-past-end; do
                fixture $name
                fails_cleanly vdtool compare $name disk.raw
                [[ $status == [234] ]] || told
        done
}

@test "wrong usage is status 1" {
        fails_cleanly vdtool compare onlyone
        same "$status" 1
}

@test "compare agrees with qemu-img on every pair of good qcow2 fixtures" {
        local names=(v3 zlib cluster-512 snapshots bitmaps zero-clusters) a b ours theirs
        for a in "${names[@]}"; do
                fixture "good-qcow2-$a" "$a"
        done
        for a in "${names[@]}"; do
                for b in "${names[@]}"; do
                        ours=0 theirs=0
                        vdtool compare -q "$a" "$b" >/dev/null 2>&1 || ours=$?
                        qemu-img compare -q "$a" "$b" >/dev/null 2>&1 || theirs=$?
                        same "$a $b $ours" "$a $b $theirs"
                done
        done
}

@test "two empty disks of 10 TiB compare by their maps" {
        qemu-img create -q -f qcow2 one.qcow2 10T
        truncate -s 10T two.raw
        bounded vdtool compare one.qcow2 two.raw
}

@test "-q prints nothing, the status says it" {
        truncate -s 1M one.raw
        cp one.raw two.raw
        printf x | dd of=two.raw conv=notrunc status=none
        capture vdtool compare -q -f raw -F raw one.raw two.raw
        same "$status$output$stderr" 1
}
