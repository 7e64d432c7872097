#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154  # capture sets status, output and stderr
# QED: all cluster and table sizes, backing files, marks, damage
load helpers
load killed

field() { vdtool info --field "format-specific.data.$1" "$2"; }

# An image that qemu-img made, with one cluster of data at 0 and one of zeros at 128 KiB; its L2 table is at 65536 * 6.
marked() {
        qemu-img create -q -f qed "$1" 4M
        qemu-io -f qed -c 'write -P 97 0 64k' -c 'write -z 128k 64k' "$1" >/dev/null
}

@test "qed: each cluster and table size holds the disk, for qemu-img" {
        local options
        disk_image disk.raw
        for options in cluster_size=64k cluster_size=4k cluster_size=4k,table_size=2 table_size=16 \
                       cluster_size=1M,table_size=8 cluster_size=2M,table_size=2; do
                vdtool convert -q --force -o $options disk.raw disk.qed
                judge qed disk.qed disk.raw
                qemu-img check -q disk.qed
                same "$(content disk.qed)" "$(sha256 disk.raw)"
                vdtool check -q --data disk.qed
                qemu-img convert -O qed -o $options disk.raw qemu.qed
                same "$(content qemu.qed)" "$(sha256 disk.raw)"
                vdtool check -q qemu.qed
        done
}

@test "qed: tables of one cluster, which QEMU makes but does not open" {
        disk_image disk.raw
        succeeds vdtool convert -o table_size=1,cluster_size=4k disk.raw disk.qed
        [[ $stderr == *"QEMU does not open"* ]]
        same "$(content disk.qed)" "$(sha256 disk.raw)"
        vdtool convert -q -n -f raw -O qed disk.raw disk.qed
        vdtool check -q disk.qed
        qemu-img create -q -f qed -o table_size=1,cluster_size=4k qemu.qed 4M
        vdtool convert -O raw qemu.qed out.raw
        same "$(size_of out.raw)" 4194304
}

@test "qed: limits and options out of range are refused with what is allowed" {
        fails_with 'QED ends at 70368744177664' vdtool create disk.qed 65T
        fails_with 'power of two' vdtool create -o cluster_size=5000 disk.qed 1M
        fails_with 'power of two' vdtool create -o cluster_size=128M disk.qed 1M
        fails_with '1, 2, 4, 8 or 16' vdtool create -o table_size=3 disk.qed 1M
        vdtool create -q disk.qed 64T
        qemu-img info disk.qed | grep -q 70368744177664
}

@test "qed: map says what qemu-img map says, zero clusters included" {
        marked disk.qed
        same "$(vdtool map --output json disk.qed | jq -c '[.[] | [.start, .length, .data, .zero, .present]]')" \
             "$(qemu-img map --output json disk.qed | jq -c '[.[] | [.start, .length, .data, .zero, .present]]')"
}

@test "qed: a backing file, raw and recorded as such, or probed" {
        disk_image base.raw
        qemu-img create -q -f qed -b base.raw -F raw child.qed
        same "$(content child.qed)" "$(sha256 base.raw)"
        same "$(field backing-is-raw child.qed)" true
        vdtool create -q -b base.raw -F raw ours.qed
        qemu-img compare -q -f qed -F raw ours.qed base.raw
        same "$(peek ours.qed 16 1)" 05
        vdtool convert -q base.raw base.qcow2
        vdtool create -q -b base.qcow2 -F qcow2 two.qed
        same "$(peek two.qed 16 1)" 01
        qemu-img compare -q -f qed -F raw two.qed base.raw
        same "$(content two.qed)" "$(sha256 base.raw)"
        rm base.raw
        fails_cleanly vdtool convert -O raw child.qed out.raw
}

@test "qed: written in place, over nothing, over everything and over a parent" {
        disk_image disk.raw
        head -c 5244416 /dev/zero | tr '\0' o >old.raw
        qemu-img create -q -f qed one.qed 5244416
        qemu-img convert -O qed -o cluster_size=4k,table_size=2 old.raw two.qed
        vdtool convert -q old.raw three.qed
        vdtool create -q -b old.raw -F raw -o cluster_size=4k four.qed
        qemu-img create -q -f qed -b old.raw -F raw five.qed
        local name
        for name in one two three four five; do
                vdtool convert -q -n -f raw -O qed disk.raw $name.qed
                judge qed $name.qed disk.raw
                qemu-img check -q $name.qed
                vdtool check -q $name.qed
                same "$(field need-check $name.qed)" false
        done
}

@test "qed: killed at any write, every byte is the old or the new one" {
        requires strace
        killed_everywhere qed cluster_size=4k,table_size=2
}

@test "qed: the mark of a writer that was killed is shown, kept by us, and no obstacle to reading" {
        disk_image disk.raw
        vdtool convert -q disk.raw disk.qed
        poke disk.qed 16 02
        same "$(content disk.qed)" "$(sha256 disk.raw)"
        same "$(vdtool info --field dirty-flag disk.qed)" true
        capture vdtool check disk.qed
        [[ $output == *qed-need-check* ]]
        vdtool convert -q -n -f raw -O qed disk.raw disk.qed
        same "$(field need-check disk.qed)" true
}

@test "qed: unknown features are refused, unknown compatible ones kept, unknown autoclear ones cleared" {
        disk_image disk.raw
        vdtool convert -q disk.raw disk.qed
        poke disk.qed 24 80
        poke disk.qed 32 40
        vdtool convert -q -n -f raw -O qed disk.raw disk.qed
        same "$(peek disk.qed 24 1) $(peek disk.qed 32 1)" '80 00'
        poke disk.qed 17 01
        fails_with 'unknown features 0x100' vdtool info disk.qed
}

@test "qed: headers that break the rules are refused by name and value" {
        marked good.qed
        while read -r at bytes text; do
                cp good.qed bad.qed
                poke bad.qed $((at)) "$bytes"
                fails_with "$text" vdtool convert -O raw bad.qed out.raw
        done < <(printf '%s\n' \
                '4 00000000 cluster size 0' \
                '4 00080000 cluster size 2048' \
                '4 00000008 cluster size 134217728' \
                '8 03000000 table size of 3' \
                '8 20000000 table size of 32' \
                '12 00000000 its 0 bytes' \
                '12 00ffffff do not fit the file' \
                '40 01000000 L1 table at' \
                '40 00000000 L1 table at 0' \
                '40 00000100ff000000 does not fit' \
                '48 01000000 not a multiple of 512' \
                '48 00000000ffffffff at most' \
                '16 01000000 backing file name')
        only_files good.qed bad.qed
}

@test "qed: entries past the end, unaligned and in the header are errors with a place" {
        local table entry
        marked good.qed
        table=$((0x$(peek good.qed 65536 8 | sed 's/\(..\)\(..\)\(..\)\(..\).*/\4\3\2\1/')))
        for entry in 0000001000000000 0002050000000000 0000000000000100 00000000000000ff; do
                cp good.qed bad.qed
                poke bad.qed $table $entry
                fails_cleanly vdtool convert -O raw bad.qed out.raw
                capture vdtool check bad.qed
                same "$status" 2
                [[ $output == *qed-entry* || $output == *out-of-file* ]]
                cp good.qed bad.qed
                poke bad.qed 65536 $entry
                fails_cleanly vdtool convert -O raw bad.qed out.raw
                capture vdtool check bad.qed
                same "$status" 2
        done
        fails_cleanly vdtool convert -n -f raw -O qed good.qed bad.qed
}

@test "qed: check finds what qemu-img check finds: leaks and clusters used twice" {
        local table
        marked good.qed
        table=$((0x$(peek good.qed 65536 8 | sed 's/\(..\)\(..\)\(..\)\(..\).*/\4\3\2\1/')))
        cp good.qed bad.qed
        poke bad.qed $table 0000000000000000
        capture vdtool check bad.qed
        same "$status" 3
        [[ $output == *qed-leak* ]]
        capture qemu-img check bad.qed
        same "$status" 3
        cp good.qed bad.qed
        poke bad.qed $((table + 16)) "$(peek bad.qed $table 8)"
        capture vdtool check bad.qed
        same "$status" 2
        [[ $output == *overlap* ]]
        capture qemu-img check bad.qed
        same "$status" 2
}

@test "qed: cut anywhere, convert fails or the content is right" {
        disk_image disk.raw 1500000
        vdtool convert -q -o cluster_size=4k,table_size=2 disk.raw whole.qed
        cut_everywhere whole.qed "$(content whole.qed)" 50
}

@test "qed: every image of the corpus reads as the manifest says and passes check" {
        requires corpus
        local file name
        corpus_directory qemu72/chain-qed
        for file in $(corpus_known qed); do
                name=$(corpus "$file")
                same "$(content "$name")" "$(corpus_fact "$file" content_sha256)" || say "$file"
                vdtool check -q "$name" || say "$file"
        done
}
