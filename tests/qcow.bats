#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154  # capture sets status, output and stderr
# qcow version 1: plain and packed clusters, backing files, damage
load helpers
load killed

@test "qcow: an empty image of 100 MiB has 448 bytes" {
        vdtool create -q disk.qcow 100M
        same "$(size_of disk.qcow)" 448
        qemu-img info disk.qcow | grep -q '100 MiB (104857600 bytes)'
        vdtool check -q disk.qcow
}

@test "qcow: plain images of each cluster size hold the disk, for qemu-img, 7-Zip and libqcow" {
        local size
        disk_image disk.raw
        for size in 512 1k 4k 16k 64k; do
                vdtool convert -q --force -o cluster_size=$size disk.raw disk.qcow
                judge qcow disk.qcow disk.raw
                same "$(content disk.qcow)" "$(sha256 disk.raw)"
                vdtool check -q --data disk.qcow
        done
        vdtool convert -q --force disk.raw disk.qcow
        same "$(content_7z disk.qcow qcow)" "$(sha256 disk.raw)"
        qcowinfo disk.qcow | grep -q '(5244416 bytes)'
}

@test "qcow: packed images hold the disk, and are smaller" {
        local size
        disk_image disk.raw
        vdtool convert -q disk.raw plain.qcow
        for size in 512 4k 64k; do
                vdtool convert -q --force -c -o cluster_size=$size disk.raw disk.qcow
                judge qcow disk.qcow disk.raw
                same "$(content disk.qcow)" "$(sha256 disk.raw)"
                vdtool check -q --data disk.qcow
                [ "$(size_of disk.qcow)" -lt "$(size_of plain.qcow)" ]
        done
}

@test "qcow: what qemu-img made is read, plain and packed" {
        disk_image disk.raw
        qemu-img convert -O qcow disk.raw disk.qcow
        same "$(content disk.qcow)" "$(sha256 disk.raw)"
        vdtool check -q disk.qcow
        qemu-img convert -c -O qcow disk.raw packed.qcow || true        # 7.2 says 1 although all is well
        same "$(content packed.qcow)" "$(sha256 disk.raw)"
        vdtool check -q --data packed.qcow
}

@test "qcow: map says what qemu-img map says" {
        disk_image disk.raw
        vdtool convert -q disk.raw disk.qcow
        diff <(vdtool map --output json disk.qcow | jq -c '.[] | [.start, .length, .data, .zero, .offset]') \
             <(qemu-img map --output json disk.qcow | jq -c '.[] | [.start, .length, .data, .zero, .offset]')
}

@test "qcow: backing files, ours and qemu-img's" {
        disk_image base.raw
        qemu-img create -q -f qcow -b base.raw -F raw child.qcow
        same "$(content child.qcow)" "$(sha256 base.raw)"
        vdtool create -q -b base.raw -F raw ours.qcow
        qemu-img compare -q -f qcow -F raw ours.qcow base.raw
        same "$(vdtool info --field backing-filename ours.qcow)" base.raw
        same "$(vdtool info --field cluster-size ours.qcow)" 512
        rm base.raw
        fails_cleanly vdtool convert -O raw child.qcow out.raw
}

@test "qcow: zeros over the backing file's data stay zeros" {
        disk_image base.raw
        vdtool create -q -b base.raw -F raw child.qcow
        truncate -s 5244416 zeros.raw
        vdtool convert -q -n -f raw -O qcow zeros.raw child.qcow
        judge qcow child.qcow zeros.raw
        same "$(content child.qcow)" "$(sha256 zeros.raw)"
}

@test "qcow: limits and options out of range are refused with what is allowed" {
        fails_with 'power of two' vdtool create -o cluster_size=128k disk.qcow 1M
        fails_with 'power of two' vdtool create -o cluster_size=1000 disk.qcow 1M
        fails_with 'L1 table would have' vdtool create disk.qcow 1P
        fails_with '0 bytes' vdtool create disk.qcow 0
        vdtool create -q -o cluster_size=64k disk.qcow 1P
        qemu-img info disk.qcow | grep -q 1125899906842624
}

@test "qcow: written in place, over nothing, over everything, over packed clusters and over a parent" {
        disk_image disk.raw
        yes 'old data that packs well' | head -c 5244416 >old.raw
        vdtool create -q one.qcow 5244416
        qemu-img convert -O qcow old.raw two.qcow
        vdtool convert -q -c old.raw three.qcow
        vdtool create -q -b old.raw -F raw four.qcow
        qemu-img create -q -f qcow -b old.raw -F raw five.qcow
        local name
        for name in one two three four five; do
                vdtool convert -q -n -f raw -O qcow disk.raw $name.qcow
                judge qcow $name.qcow disk.raw
                capture vdtool check $name.qcow
                [[ $status == [03] ]] || told
        done
}

@test "qcow: packed clusters are written into an existing image" {
        disk_image disk.raw
        vdtool create -q disk.qcow 5244416
        vdtool convert -q -n -c -f raw -O qcow disk.raw disk.qcow
        judge qcow disk.qcow disk.raw
        vdtool check -q --data disk.qcow
}

@test "qcow: killed at any write, every byte is the old or the new one" {
        requires strace
        killed_everywhere qcow cluster_size=4k
        killed_everywhere qcow cluster_size=512
}

@test "qcow: an encrypted image is described, and refused by name where data is needed" {
        qemu-img create -q -f qcow --object secret,id=s,data=abc -o encrypt.format=aes,encrypt.key-secret=s disk.qcow 1M
        same "$(vdtool info --field encrypted disk.qcow)" true
        fails_with 'is encrypted (AES)' vdtool convert -O raw disk.qcow out.raw
        truncate -s 1M zeros.raw
        fails_with 'is encrypted (AES)' vdtool convert -n -f raw -O qcow zeros.raw disk.qcow
        only_files disk.qcow zeros.raw
}

@test "qcow: L1 tables in the byte order of Xen's host are read, and not written" {
        disk_image disk.raw
        truncate -s 1M disk.raw
        vdtool convert -q disk.raw disk.qcow
        local entry l2
        l2=$(peek disk.qcow 48 8)
        { cat disk.qcow; head -c 16384 /dev/zero; } >xen.qcow
        local at=$(($(size_of xen.qcow) / 4096 * 4096 - 4096))
        entry=$(sed 's/\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)/\8\7\6\5\4\3\2\1/' <<<"$l2")
        poke xen.qcow $at "$entry"
        poke xen.qcow 40 "$(printf %016x $at)"
        poke xen.qcow 48 58454efb 00000000 00000000 00000001
        same "$(content xen.qcow)" "$(sha256 disk.raw)"
        fails_with "Xen's tapdisk" vdtool convert -n -f raw -O qcow disk.raw xen.qcow
        # with the flag the table is big-endian after all
        poke xen.qcow $at "$l2"
        poke xen.qcow 60 00000003
        same "$(content xen.qcow)" "$(sha256 disk.raw)"
}

@test "qcow: headers that break the rules are refused by name and value" {
        disk_image disk.raw
        vdtool convert -q disk.raw good.qcow
        while read -r at bytes text; do
                cp good.qcow bad.qcow
                poke bad.qcow $((at)) "$bytes"
                fails_with "$text" vdtool convert -O raw bad.qcow out.raw
        done < <(printf '%s\n' \
                '32 08 cluster bits 8' \
                '32 11 cluster bits 17' \
                '33 05 L2 bits 5' \
                '33 ff L2 bits 255' \
                '36 00000002 encryption method 2' \
                '24 0000000000000001 disk of 1 bytes' \
                '24 ffffffffffffffff disk of 18446744073709551615 bytes' \
                '24 00000fffffffffff do not fit the file' \
                '40 0000000000000010 L1 table at 16' \
                '40 00000000ffffffff L1 table at 4294967295' \
                '8 00000000000000300000ffff backing file name of 65535 bytes' \
                '8 0000ffffffffffff00000010 does not end before')
        only_files good.qcow bad.qcow disk.raw
}

@test "qcow: entries past the end, on the tables or of no length are errors with a place" {
        disk_image disk.raw
        vdtool convert -q -c disk.raw good.qcow
        local l2 entry
        l2=$(peek_number good.qcow 48 8)
        for entry in 000000ffffff0000 0000000000000001 0000000000000030 8000000000001000 8008ffffffffffff; do
                cp good.qcow bad.qcow
                poke bad.qcow $l2 $entry
                fails_cleanly vdtool convert -O raw bad.qcow out.raw
                capture vdtool check bad.qcow
                same "$status" 2
        done
        for entry in 000000ffffff0000 8000000000001000 0000000000001001 0000000000000010; do
                cp good.qcow bad.qcow
                poke bad.qcow 48 $entry
                fails_cleanly vdtool convert -O raw bad.qcow out.raw
                capture vdtool check bad.qcow
                same "$status" 2
        done
}

@test "qcow: check finds clusters used twice, packed data that does not unpack, and lost space" {
        disk_image disk.raw
        vdtool convert -q disk.raw good.qcow
        local l2 at
        l2=$(peek_number good.qcow 48 8)
        cp good.qcow bad.qcow
        poke bad.qcow $l2 "$(peek bad.qcow $((l2 + 8)) 8)"
        capture vdtool check bad.qcow
        same "$status" 2
        [[ $output == *overlap* ]]
        cp good.qcow bad.qcow
        poke bad.qcow $l2 0000000000000000
        capture vdtool check bad.qcow
        same "$status" 3
        [[ $output == *qcow-leak* ]]
        vdtool convert -q --force -c disk.raw bad.qcow
        l2=$(peek_number bad.qcow 48 8)
        at=$((16#$(peek bad.qcow $l2 8) & 0x7ffffffffffff))
        poke bad.qcow $at ffffffff
        vdtool check -q bad.qcow
        capture vdtool check --data bad.qcow
        same "$status" 2
        fails_with 'compressed unit' vdtool convert -O raw bad.qcow out.raw
}

@test "qcow: cut anywhere, convert fails or the content is right" {
        disk_image disk.raw 1500000
        vdtool convert -q disk.raw whole.qcow
        cut_everywhere whole.qcow "$(content whole.qcow)" 40
        vdtool convert -q --force -c disk.raw whole.qcow
        cut_everywhere whole.qcow "$(content whole.qcow)" 40
}

@test "qcow: every image of the corpus that is not encrypted reads as the manifest says and passes check" {
        requires corpus
        local file name
        corpus_directory qemu72/chain-qcow1
        for file in $(corpus_known qcow); do
                [[ $file != *-aes.* ]] || continue
                name=$(corpus "$file")
                same "$(content "$name")" "$(corpus_fact "$file" content_sha256)" || say "$file"
                vdtool check -q --data "$name" || say "$file"
        done
}
