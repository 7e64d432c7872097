# SPDX-License-Identifier: MIT
# measure.bats: how large an image would be, to the byte.

load helpers

required() { vdtool measure --output json "$@" | jq .required; }
full() { vdtool measure --output json "$@" | jq '.["fully-allocated"]'; }

# Every kind of image that can be streamed and whose length does not depend on packing.
kinds() {
        printf '%s\n' \
                'raw' \
                'qcow2' \
                'qcow2 -o cluster_size=512' \
                'qcow2 -o cluster_size=2M' \
                'qcow2 -o extended_l2=on,refcount_bits=64' \
                'qcow2 -o compat=0.10' \
                'qcow2 -o preallocation=metadata' \
                'qcow2 -o preallocation=full' \
                'vhd' \
                'vhd -o block_size=512k' \
                'vhd --type fixed' \
                'vhdx' \
                'vhdx --type fixed' \
                'vdi' \
                'vdi --type fixed' \
                'qed' \
                'qcow' \
                'parallels' \
                'vmdk --type monolithicSparse'
}

@test "measure: the required size is what a stream has, to the byte, for every format" {
        disk_image disk.raw
        while read -r -a kind; do
                vdtool convert -O "${kind[@]}" disk.raw - | cat >stream
                same "$(required -O "${kind[@]}" disk.raw)" "$(size_of stream)" || say "${kind[*]}" || return 1
        done < <(kinds)
}

@test "measure: the fully allocated size is that of a disk without holes, for every format" {
        head -c 5244416 /dev/zero | openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00 >disk.raw
        truncate -s 5244416 hole.raw
        while read -r -a kind; do
                vdtool convert -q -O "${kind[@]}" disk.raw - | cat >stream
                same "$(full -O "${kind[@]}" hole.raw)" "$(size_of stream)" || say "${kind[*]}" || return 1
        done < <(kinds)
}

@test "measure: an empty disk takes what create makes, for every format" {
        while read -r -a kind; do
                rm -f new
                vdtool create -q -f "${kind[@]}" new 300M
                same "$(required -O "${kind[@]}" --size 300M)" "$(size_of new)" || say "${kind[*]}" || return 1
        done < <(kinds)
}

@test "measure: compressed sizes are found by compressing" {
        disk_image disk.raw
        vdtool convert -q -c -O qcow2 disk.raw disk.qcow2
        same "$(required -c -O qcow2 disk.raw)" "$(size_of disk.qcow2)"
        vdtool convert -q --type streamOptimized disk.raw disk.vmdk
        same "$(required -O vmdk --type streamOptimized disk.raw)" "$(size_of disk.vmdk)"
        # units that are copied as they are
        same "$(required -O qcow2 disk.qcow2)" "$(vdtool convert -O qcow2 disk.qcow2 - | wc -c)"
        [ "$(full -O vmdk --type streamOptimized disk.raw)" -gt 5244416 ]
}

@test "measure: images of several files count all of them" {
        disk_image disk.raw
        mkdir made
        vdtool convert --type twoGbMaxExtentSparse -O vmdk -S 0 disk.raw made/measured.vmdk
        same "$(full -O vmdk --type twoGbMaxExtentSparse disk.raw)" "$(cat made/* | wc -c)"
        vdtool create -q --type twoGbMaxExtentFlat made/flat.vmdk 5M
        same "$(required -O vmdk --type monolithicFlat --size 5G)" "$(full -O vmdk --type monolithicFlat --size 5G)"
}

@test "measure: prints as qemu-img does" {
        requires qemu-img
        truncate -s 10M disk.raw
        same "$(vdtool measure disk.raw)" "$(qemu-img measure disk.raw)"
        same "$(vdtool measure --size 1G)" "$(qemu-img measure --size 1G)"
        same "$(vdtool measure --output json --size 1G | jq -S .)" \
                "$(qemu-img measure --output json --size 1G | jq -S .)"
        # what is full is the same to the byte
        same "$(full -O qcow2 --size 1G)" \
                "$(qemu-img measure -O qcow2 --output json --size 1G | jq '.["fully-allocated"]')"
}

@test "measure: a snapshot is measured with -l" {
        requires qemu-img
        disk_image disk.raw
        vdtool convert disk.raw disk.qcow2
        qemu-img snapshot -c before disk.qcow2
        qemu-io -c 'write -z -u 0 5M' disk.qcow2 >/dev/null
        same "$(required -O qcow2 -l before disk.qcow2)" "$(required -O qcow2 disk.raw)"
        [ "$(required -O qcow2 disk.qcow2)" -lt "$(required -O qcow2 disk.raw)" ]
}

@test "measure: a large disk costs little time, and nothing is written" {
        succeeds timeout 20 "$VDTOOL" measure -O qcow2 --size 1T
        export TMPDIR=$PWD/none                 # below that not even a temporary file
        succeeds timeout 20 "$VDTOOL" measure -O qcow2 --size 100G
        succeeds timeout 20 "$VDTOOL" measure -O vhdx --size 16T
        only_files
}

@test "measure: an image that cannot hold all of its disk has no fully allocated size" {
        capture vdtool measure -O vmdk --output json --size 4T
        same "$status" 0
        [[ $stderr == *"no fully allocated size"* ]]
        same "$(jq -c keys <<<"$output")" '["required"]'
}

@test "measure: what contradicts itself is refused" {
        truncate -s 1M disk.raw
        fails_with "not both" vdtool measure --size 1M disk.raw
        fails_with "measure needs" vdtool measure
        fails_with "unknown format" vdtool measure -O none disk.raw
}
