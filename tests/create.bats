#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# vdtool create
load helpers

@test "create makes an empty disk that foreign readers open" {
        local format
        truncate -s 10M empty.raw
        for format in vhd qcow2; do
                vdtool create -f $format disk.$format 10M
                judge $format disk.$format empty.raw
        done
}

@test "create works as in the manual: --type dynamic disk.vhd 10G" {
        vdtool create --type dynamic disk.vhd 10G
        same "$(vdtool info --field virtual-size disk.vhd)" 10737418240
        same "$(qemu-img info --output=json disk.vhd | jq '."virtual-size"')" 10737418240
}

@test "create takes the format from the extension" {
        vdtool create disk.qcow2 1M
        vdtool create disk.vhd 1M
        vdtool create disk.raw 1M
        qemu-img info disk.qcow2 | grep -q 'format: qcow2'
        qemu-img info disk.vhd | grep -q 'format: vpc'
        same "$(size_of disk.raw)" 1048576
}

@test "create refuses an existing file, and replaces it with --force" {
        echo precious >disk.qcow2
        fails_with 'exists' vdtool create disk.qcow2 1M
        same "$(cat disk.qcow2)" precious
        vdtool create --force disk.qcow2 1M
        qemu-img check -q disk.qcow2
}

@test "create without a size is an error, unless a base gives it" {
        fails_cleanly vdtool create disk.qcow2
        only_files
        truncate -s 3M base.raw
        vdtool create -b base.raw -F raw disk.qcow2
        same "$(vdtool info --field virtual-size disk.qcow2)" 3145728
}

@test "an empty dynamic VHD of 100 MiB is 2560 bytes long" {
        vdtool create disk.vhd 100M
        same "$(size_of disk.vhd)" 2560
}

@test "an empty fixed VHD is its size and a footer, and needs no space" {
        vdtool create --type fixed disk.vhd 100M
        same "$(size_of disk.vhd)" $((104857600 + 512))
        [ "$(blocks_of disk.vhd)" -lt 1000 ]
        same "$(tail -c 512 disk.vhd | head -c 8)" conectix
        vhdiinfo disk.vhd | grep -q Fixed
}

@test "VHDs from one sector to 2040 GiB have their exact size for every reader" {
        local size
        for size in 512 1024 1049088 10485760 136365211648 2190433320960; do
                vdtool create --type dynamic disk.vhd $size
                same "$(vdtool info --field virtual-size disk.vhd)" $size
                same "$(qemu-img info --output=json disk.vhd | jq '."virtual-size"')" $size
                vhdiinfo disk.vhd | grep -q "($size bytes)\|: $size bytes"
                same "$(7zz l -tvhd -slt disk.vhd | sed -n 's/^Size = //p' | head -n 1)" $size
                rm disk.vhd
        done
}

@test "a VHD of more than 2040 GiB is an error that names the limit" {
        fails_with 2040 vdtool create disk.vhd 2041G
        fails_with 2040 vdtool create disk.vhd 2190433321472
        fails_cleanly vdtool create --type fixed disk.vhd 4T
        only_files
}

@test "VHD sizes round to sectors, never down" {
        vdtool create disk.vhd 1000
        same "$(vdtool info --field virtual-size disk.vhd)" 1024
}

@test "VHD chs=compat makes the size a geometry, as Virtual PC wants it" {
        vdtool create -o chs=compat disk.vhd 10M
        local size
        size=$(vdtool info --field virtual-size disk.vhd)
        [ "$size" -ge 10485760 ]
        same $(($(peek_number disk.vhd 56 2) * $(peek_number disk.vhd 58 1) * $(peek_number disk.vhd 59 1) * 512)) "$size"
        same "$(qemu-img info --output=json disk.vhd | jq '."virtual-size"')" "$size"
}

@test "VHD force_size is accepted as qemu-img spells it" {
        vdtool create -f vpc -o subformat=dynamic,force_size=on disk.vhd 10M
        same "$(vdtool info --field virtual-size disk.vhd)" 10485760
}

@test "VHD block sizes from 4 KiB to 16 MiB" {
        local block
        disk_image disk.raw
        for block in 4k 64k 512k 1M 2M 16M; do
                vdtool convert -f raw -O vhd -o block_size=$block disk.raw disk.vhd
                same "$(peek_number disk.vhd 544 4)" "$(numfmt --from=iec "${block^^}")"
                vdtool convert -O raw disk.vhd back.raw
                cmp disk.raw back.raw
                same "$(content_7z disk.vhd)" "$(sha256 disk.raw)"
                rm disk.vhd back.raw
        done
        fails_cleanly vdtool create -o block_size=3000 bad.vhd 10M
        fails_cleanly vdtool create -o block_size=0x bad.vhd 10M
        [ ! -e bad.vhd ]
}

@test "VHD uuid and creator can be given" {
        vdtool create -o uuid=00112233-4455-6677-8899-aabbccddeeff,creator=abcd disk.vhd 10M
        vhdiinfo disk.vhd | grep -qi 00112233-4455-6677-8899-aabbccddeeff
        same "$(dd if=disk.vhd bs=1 skip=28 count=4 status=none)" abcd
        fails_cleanly vdtool create -o uuid=nonsense bad.vhd 10M
        [ ! -e bad.vhd ]
}

@test "a differencing VHD is created from its parent, with size and identity" {
        fixture good-vhd-parent parent.vhd
        vdtool create -f vhd -b parent.vhd child.vhd
        same "$(vdtool info --field virtual-size child.vhd)" 3147264
        same "$(peek child.vhd 552 16)" "$(peek parent.vhd 68 16)"
        same "$(peek_number child.vhd 60 4)" 4
        same "$(content child.vhd)" "$(content parent.vhd)"
        same "$(content_7z child.vhd)" "$(content parent.vhd)"
}

@test "qcow2 options give what qemu-img's give" {
        local options key
        for options in cluster_size=512 cluster_size=2M compat=0.10 compat=1.1 refcount_bits=1 refcount_bits=64 \
                       lazy_refcounts=on extended_l2=on compression_type=zstd cluster_size=4k,refcount_bits=8; do
                vdtool create -f qcow2 -o $options ours.qcow2 10M || say "$options"
                qemu-img create -q -f qcow2 -o $options theirs.qcow2 10M
                qemu-img check -q ours.qcow2
                for key in .\"cluster-size\" .\"virtual-size\" .\"format-specific\"; do
                        same "$(qemu-img info --output=json ours.qcow2 | jq -S "$key")" \
                                "$(qemu-img info --output=json theirs.qcow2 | jq -S "$key")"
                done
                rm ours.qcow2 theirs.qcow2
        done
}

@test "qcow2 preallocation off, metadata, falloc and full" {
        local how
        truncate -s 3M empty.raw
        for how in off metadata falloc full; do
                vdtool create -q -f qcow2 -o preallocation=$how disk.qcow2 3M
                judge qcow2 disk.qcow2 empty.raw
                echo "$how $(($(blocks_of disk.qcow2) * 512)) $(vdtool map --output json disk.qcow2 | jq -c 'map(has("offset")) | all')"
                rm disk.qcow2
        done >found
        awk '$1 == "off" { off = $2 } $1 == "full" { full = $2 } $1 == "falloc" { falloc = $2 }
             END { exit !(off < 1000000 && full >= 3145728 && falloc >= 3145728) }' found
        same "$(awk '{ print $3 }' found | tail -n +2 | sort -u)" true
}

@test "qcow2 with an external data file" {
        vdtool create -f qcow2 -o data_file=disk.data disk.qcow2 2M
        [ -f disk.data ]
        qemu-img check -q disk.qcow2
        same "$(qemu-img info --output=json disk.qcow2 | jq -r '."format-specific".data."data-file"')" disk.data
        qemu-io -c 'write -P 0x55 64k 64k' disk.qcow2 >/dev/null
        vdtool convert -O raw disk.qcow2 back.raw
        qemu-img compare -q -F raw disk.qcow2 back.raw
}

@test "qcow2 with a backing file records its name and format" {
        fixture good-raw-chain-base base.raw
        vdtool create -f qcow2 -b base.raw -F raw top.qcow2
        qemu-img info --output=json top.qcow2 | jq -e '."backing-filename" == "base.raw" and ."backing-filename-format" == "raw"'
        same "$(content_qemu qcow2 top.qcow2)" "$(sha256 base.raw)"
        vdtool create -f qcow2 -o backing_file=base.raw,backing_fmt=raw other.qcow2
        same "$(content_qemu qcow2 other.qcow2)" "$(sha256 base.raw)"
}

@test "a backing file that does not exist is an error" {
        fails_with nowhere.raw vdtool create -f qcow2 -b nowhere.raw -F raw top.qcow2
        only_files
}

@test "a backing file in a directory is found beside the new image, not beside the user" {
        mkdir images
        fixture good-raw-chain-base images/base.raw
        vdtool create -f qcow2 -b base.raw -F raw images/top.qcow2
        same "$(content_qemu qcow2 images/top.qcow2)" "$(sha256 images/base.raw)"
}

@test "options that a format does not have are errors that name them" {
        fails_with cluster_size vdtool create -f vhd -o cluster_size=64k disk.vhd 1M
        fails_with block_size vdtool create -f qcow2 -o block_size=64k disk.qcow2 1M
        fails_with sideways vdtool create --type sideways disk.vhd 1M
        fails_with 1000 vdtool create -o cluster_size=1000 disk.qcow2 1M
        fails_cleanly vdtool create -o cluster_size=4M disk.qcow2 1M
        fails_cleanly vdtool create -o refcount_bits=3 disk.qcow2 1M
        fails_cleanly vdtool create -o compat=0.10,compression_type=zstd disk.qcow2 1M
        fails_cleanly vdtool create -o compat=0.10,lazy_refcounts=on disk.qcow2 1M
        fails_cleanly vdtool create -o extended_l2=on,cluster_size=4k disk.qcow2 1M
        only_files
}

@test "-o help lists the options of a format" {
        local format name
        succeeds vdtool create -f qcow2 -o help disk.qcow2 1M
        for name in cluster_size compat refcount_bits compression_type lazy_refcounts extended_l2 backing_file data_file preallocation; do
                [[ $output == *$name* ]] || say "no $name"
        done
        succeeds vdtool create -f vhd -o help disk.vhd 1M
        for name in subformat block_size chs force_size uuid creator; do
                [[ $output == *$name* ]] || say "no $name"
        done
        only_files
}

@test "a qcow2 of 64 TiB is created small" {
        vdtool create disk.qcow2 64T
        qemu-img check -q disk.qcow2
        [ $(($(blocks_of disk.qcow2) * 512)) -lt 2000000 ]
}

@test "a size that the cluster size cannot address is an error" {
        fails_cleanly vdtool create -o cluster_size=512 disk.qcow2 1P
        only_files
}

@test "create in a directory that does not exist or cannot be written" {
        fails_with 'No such file' vdtool create nowhere/disk.qcow2 1M
        only_files
}

@test "with SOURCE_DATE_EPOCH the same command makes the same bytes" {
        local format
        export SOURCE_DATE_EPOCH=1700000000
        for format in vhd qcow2 raw; do
                vdtool create -f $format one.$format 10M
                vdtool create -f $format two.$format 10M
                cmp one.$format two.$format
        done
}

@test "without SOURCE_DATE_EPOCH two VHDs have different identifiers" {
        vdtool create one.vhd 10M
        vdtool create two.vhd 10M
        [ "$(peek one.vhd 68 16)" != "$(peek two.vhd 68 16)" ]
        [ "$(peek one.vhd 68 16)" != 00000000000000000000000000000000 ]
}

@test "a new image has the permissions that umask leaves" {
        (umask 027 && vdtool create disk.qcow2 1M)
        same "$(stat -c %a disk.qcow2)" 640
}
