#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# add-cow: the bitmap decides between image file and parent; create, convert, in place, damage
load helpers

# What a reader of the specification would find: read_add_cow FILE IMAGE [PARENT] >RAW (clusters of 4096 and a small disk).
read_add_cow() {
        local file=$1 image=$2 parent=${3:-} size c bit cluster=4096
        size=$(size_of "$image")
        for ((c = 0; c * cluster < size; c++)); do
                bit=$(($(peek_number "$file" $((4096 + c / 8)) 1) >> c % 8 & 1))
                if [ $bit = 1 ]; then
                        dd if="$image" bs=$cluster skip=$c count=1 status=none
                elif [ -n "$parent" ]; then
                        dd if="$parent" bs=$cluster skip=$c count=1 status=none
                else
                        head -c $cluster /dev/zero
                fi
        done | head -c "$size"
}

# A disk of 40 clusters and a half, and the same with changes.
two_disks() {
        truncate -s 165888 base.raw
        seq 1 9000 | dd of=base.raw conv=notrunc status=none
        printf end | dd of=base.raw bs=1 seek=165800 conv=notrunc status=none
        cp base.raw new.raw
        yes other | head -c 10000 | dd of=new.raw bs=1 seek=70001 conv=notrunc status=none
        dd if=/dev/zero of=new.raw bs=4096 seek=3 count=2 conv=notrunc status=none
}

@test "convert to add-cow: the image file is the disk, and the header says that it is all" {
        disk_image disk.raw
        vdtool convert disk.raw disk.add-cow
        only_files disk.raw disk.add-cow disk-image.raw
        cmp disk.raw disk-image.raw
        same "$(peek disk.add-cow 0 4)" 41434f57
        same "$(peek disk.add-cow 32 8)" 0100000000000000
        same "$(peek disk.add-cow 40 4)" 00000100
        same "$(peek disk.add-cow 60 4)" 72617700
        same "$(vdtool info --field format disk.add-cow)" add-cow
        same "$(vdtool info --field virtual-size disk.add-cow)" "$(size_of disk.raw)"
        same "$(content disk.add-cow)" "$(sha256 disk.raw)"
        succeeds vdtool check --data disk.add-cow
}

@test "convert with a parent: set bits are the image file's, clear ones the parent's" {
        two_disks
        vdtool create -f qcow2 -b base.raw -F raw over.qcow2
        vdtool convert -n new.raw over.qcow2
        vdtool convert -q -O add-cow -o cluster_size=4k,image_file=data.raw -B base.raw -F raw new.raw disk.add-cow
        same "$(content disk.add-cow)" "$(sha256 new.raw)"
        read_add_cow disk.add-cow data.raw base.raw >seen.raw
        cmp seen.raw new.raw
        succeeds vdtool check disk.add-cow
}

@test "create with a parent reads as the parent; writing in place sets bits and leaves the parent alone" {
        two_disks
        local before
        before=$(sha256 base.raw)
        vdtool create -q -f add-cow -o cluster_size=4096 -b base.raw -F raw disk.add-cow
        same "$(content disk.add-cow)" "$before"
        same "$(peek disk.add-cow 4096 6)" 000000000000
        same "$(vdtool info --field backing-filename disk.add-cow)" base.raw
        read_add_cow disk.add-cow disk-image.raw base.raw >seen.raw
        cmp seen.raw base.raw
        vdtool convert -n -O add-cow new.raw disk.add-cow
        same "$(content disk.add-cow)" "$(sha256 new.raw)"
        read_add_cow disk.add-cow disk-image.raw base.raw >seen.raw
        cmp seen.raw new.raw
        same "$(sha256 base.raw)" "$before"
        succeeds vdtool check --data disk.add-cow
}

@test "create takes a raw file that exists as it is" {
        disk_image disk.raw
        local before
        before=$(sha256 disk.raw)
        vdtool create -q -f add-cow -o image_file=disk.raw disk.add-cow "$(size_of disk.raw)"
        same "$(content disk.add-cow)" "$before"
        fails_with 'asked for are' vdtool create -f add-cow -o image_file=disk.raw other.add-cow 1M
        only_files disk.raw disk.add-cow
}

@test "create refuses image files outside of the directory, other formats, odd cluster sizes" {
        fails_with directory vdtool create -f add-cow -o image_file=../x.raw disk.add-cow 1M
        fails_with directory vdtool create -f add-cow -o image_file=/tmp/x.raw disk.add-cow 1M
        fails_with raw vdtool create -f add-cow -o image_fmt=qcow2 disk.add-cow 1M
        fails_with cluster_size vdtool create -f add-cow -o cluster_size=512 disk.add-cow 1M
        fails_with cluster_size vdtool create -f add-cow -o cluster_size=4M disk.add-cow 1M
        touch disk-image.raw
        fails_cleanly vdtool create -f add-cow disk.add-cow 1M
        only_files disk-image.raw
}

@test "the example of the specification: 8 GiB, 64 KiB clusters, both names in the header" {
        truncate -s 8G ubuntu.img
        vdtool create -q -f add-cow -o image_file=test.raw -b ubuntu.img -F raw disk.add-cow
        same "$(size_of disk.add-cow)" 131072
        same "$(peek disk.add-cow 0 94)" "$(printf %s 41434f574c0000000a00000056000000 08000000100000000000000000000000 \
                00000000000000000000010072617700 00000000000000000000000072617700 \
                0000000000000000000000007562756e 74752e696d67746573742e726177)"
        # cluster 81920 belongs to 5 GiB
        poke disk.add-cow $((0x10000 + 0x2800)) 01
        printf hello | dd of=test.raw bs=1M seek=5120 conv=notrunc status=none
        vdtool map --output json disk.add-cow >map.json
        jq -e 'any(.[]; .start == 5368709120 and .depth == 0)' map.json
}

@test "an image file outside of the directory is not opened, nor is one of another format" {
        two_disks
        mkdir inner
        vdtool create -q -f add-cow -o image_file=data.raw -b ../base.raw -F raw inner/disk.add-cow
        mv inner/data.raw data.raw
        ln -s ../data.raw inner/data.raw
        fails_with 'outside the image' vdtool convert -O raw inner/disk.add-cow out
        vdtool convert --references=any -O raw inner/disk.add-cow out
        cmp out base.raw
        rm inner/data.raw
        fails_cleanly vdtool info inner/disk.add-cow
        cp base.raw inner/data.raw
        poke inner/disk.add-cow 60 71636f7732
        fails_with qcow2 vdtool info inner/disk.add-cow
}

@test "image file and parent must be different files" {
        two_disks
        vdtool create -q -f add-cow -o image_file=data.raw -b base.raw -F raw disk.add-cow
        ln -f base.raw data.raw
        fails_with 'image file of the add-cow' vdtool convert -O raw disk.add-cow out
        ln -f disk.add-cow data.raw
        fails_with 'itself' vdtool convert -O raw disk.add-cow out
        [ ! -e out ]
}

@test "damaged headers are refused by name" {
        two_disks
        vdtool create -q -f add-cow -o image_file=data.raw -b base.raw -F raw good.add-cow
        local change
        # cluster bits 8 and 22, a feature, header size, names outside and inside of the fixed part, no image name
        for change in '20 08000000' '20 16000000' '24 01' '40 00020000' '12 ffffffff' '16 ffffffff' '12 08000000' '16 00000000' \
                '4 00000100' '8 ffff0000'; do
                cp good.add-cow disk.add-cow
                # shellcheck disable=SC2086
                poke disk.add-cow $change
                fails_with header vdtool convert -O raw disk.add-cow out || say "$change" || return 1
                fails_cleanly vdtool convert -f add-cow -O raw disk.add-cow out || return 1
        done
        [ ! -e out ]
}

@test "cut anywhere, an add-cow is refused or reads right; it is not written to" {
        two_disks
        vdtool convert -q -O add-cow -o cluster_size=4k,image_file=data.raw -B base.raw -F raw new.raw whole
        local at
        for at in 0 1 75 76 80 100 4095 4096 4097 4100 4101 4102 5000 8191; do
                head -c $at whole >disk.add-cow
                capture vdtool convert -O raw disk.add-cow out
                if [ "$status" -eq 0 ]; then
                        cmp out new.raw
                        rm out
                else
                        [ ! -e out ]
                fi
                [ $at -gt 4101 ] || fails_cleanly vdtool convert -n -O add-cow base.raw disk.add-cow || return 1
        done
        head -c 4098 whole >disk.add-cow
        capture vdtool check disk.add-cow
        [[ $status == 2 && $output == *add-cow-truncated* ]] || told
}

@test "check: bits behind the end, complete bitmaps, bytes behind the names, small clusters" {
        two_disks
        vdtool create -q -f add-cow -o cluster_size=4k,image_file=data.raw -b base.raw -F raw good.add-cow
        cp good.add-cow disk.add-cow
        poke disk.add-cow $((4096 + 5)) 40
        vdtool check disk.add-cow | grep -q add-cow-spare-bits
        cp good.add-cow disk.add-cow
        poke disk.add-cow 4096 ffffffffff ff
        vdtool check disk.add-cow | grep -q add-cow-complete
        cp good.add-cow disk.add-cow
        poke disk.add-cow 3000 01
        vdtool check disk.add-cow | grep -q add-cow-reserved
        printf more >>disk.add-cow
        vdtool check disk.add-cow | grep -q add-cow-trailing
        # 512-byte clusters of the first revision: a header of 4096 bytes
        cp good.add-cow disk.add-cow
        poke disk.add-cow 20 09000000
        vdtool check disk.add-cow | grep -q add-cow-cluster-bits
        succeeds vdtool compare disk.add-cow base.raw
}

@test "to add-cow and from it, every format" {
        two_disks
        local format
        for format in vhd vhdx vmdk vdi qcow qcow2 qed parallels; do
                vdtool convert -q -O $format new.raw disk.$format
                vdtool convert -q -O add-cow -o image_file=$format.raw disk.$format $format.add-cow
                vdtool convert -q -O raw -f add-cow $format.add-cow back.raw
                vdtool compare -q disk.$format back.raw || say $format || return 1
                rm back.raw
        done
}
