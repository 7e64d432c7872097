#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Real images: each becomes raw with the hash of the manifest
load helpers

# Formats that this vdtool does not read yet are left out by its own list.
reads_right() {
        local file=$1 options=${2:-} name
        case $(dirname "$file") in
        */*) corpus_directory "$(dirname "$file")"; name=${file##*/}; name=${name%.xz}; name=${name%.bz2}; name=${name%.gz} ;;
        *) name=$(corpus "$file") ;;
        esac
        rm -f out.raw
        # shellcheck disable=SC2086
        vdtool convert $options -O raw "$name" out.raw || say "$file cannot be read" || return 1
        same "$(size_of out.raw)" "$(corpus_fact "$file" virtual_size)" || say "size of $file" || return 1
        same "$(sha256 out.raw)" "$(corpus_fact "$file" content_sha256)" || say "content of $file" || return 1
        find . -mindepth 1 -delete
}

known_in() { corpus_known vhd qcow2 raw | grep -E "^$1"; }

all_of() {
        requires corpus
        local file count=0
        for file in $(known_in "$1"); do
                case $file in
                # encrypted images are refused by name
                *luks* | *aes*) continue ;;
                # needs its VDI parent
                *chain-vdi*) vdtool formats --names | grep -qx vdi || continue ;;
                esac
                reads_right "$file" || return 1
                count=$((count + 1))
        done
        [ "$count" -ge "$2" ] || say "only $count images"
}

@test "VHDs by Windows, Virtual PC, disk2vhd, VirtualBox and FreeBSD" {
        all_of 'vhd/[^/]*$' 14
}

@test "VHD chains by XenServer, and one on a raw parent" {
        all_of 'vhd/xen-(chain|on-raw)/' 4
}

@test "a differencing VHD by Windows" {
        all_of 'vhd/win-diff' 1
}

@test "VHDs by qemu-img and bximage" {
        all_of '(qemu72/vpc|othertools/)' 4
}

@test "qcow2 images of many makers" {
        all_of 'qcow/' 11
}

@test "qcow2 images with every feature" {
        all_of 'qemu72/qcow2' 15
}

@test "qcow2 chains" {
        all_of 'qemu72/chain' 2
}

@test "raw disks" {
        all_of 'sources/' 2
}

@test "snapshots of a qcow2 have the content that the manifest's notes tell" {
        requires corpus
        local name notes
        name=$(corpus qemu72/qcow2v3-snapshots.qcow2.xz)
        notes=$(corpus_fact qemu72/qcow2v3-snapshots.qcow2.xz notes)
        local snapshot
        for snapshot in first third; do
                rm -f out.raw
                vdtool convert -l $snapshot -O raw "$name" out.raw
                # the snapshot's own size may be smaller than the disk's today; qemu-img reads it at today's size
                truncate -s 25165824 out.raw
                [[ $notes == *"snapshot $snapshot: size 25165824 sha256 $(sha256 out.raw)"* ]] || say "$snapshot: $(sha256 out.raw)"
        done
}

@test "a 127 GiB disk of Virtual PC is empty and has Virtual PC's size" {
        requires corpus
        local name
        name=$(corpus vhd/virtualpc-dynamic.vhd.bz2)
        vdtool convert -O raw "$name" out.raw
        same "$(size_of out.raw)" 136363130880
        [ "$(blocks_of out.raw)" -le 64 ]
}

@test "an 8 TiB qcow2 has the content that qemu-img finds" {
        requires corpus
        local name
        name=$(corpus qemu72/qcow2v3-8T.qcow2.xz)
        bounded vdtool convert -O raw "$name" out.raw
        same "$(size_of out.raw)" 8796093022208
        qemu-img compare -q -F raw "$name" out.raw
}

@test "encrypted images are refused by name" {
        requires corpus
        local name
        name=$(corpus qemu72/qcow2v3-luks.qcow2.xz)
        fails_with LUKS vdtool convert -O raw "$name" out.raw
        name=$(corpus qemu72/qcow2v3-aes.qcow2.xz)
        fails_with AES vdtool convert -O raw "$name" out.raw
        [ ! -e out.raw ]
}

@test "images whose parent is nowhere are refused, by convert; info still works" {
        requires corpus
        corpus_directory qcow/cdi-missing-backing
        fails_cleanly vdtool convert -O raw cirros-snapshot1.qcow2 out.raw
        succeeds vdtool info cirros-snapshot1.qcow2
        corpus_directory vhd/win-differencing
        fails_with fat-parent.vhd vdtool convert -O raw fat-differential.vhd out.raw
        succeeds vdtool info fat-differential.vhd
        [ ! -e out.raw ]
}

@test "info agrees with the manifest about format and size" {
        requires corpus
        local file name
        for file in $(corpus_known vhd qcow2); do
                [ "$(corpus_fact "$file" virtual_size)" -lt 2000000000 ] || continue
                name=$(corpus "$file")
                same "$file $(vdtool info --field format "$name")" "$file $(qemu_name "$(corpus_fact "$file" format)")" || return 1
                same "$file $(vdtool info --field virtual-size "$name")" "$file $(corpus_fact "$file" virtual_size)" || return 1
                rm -f "$name"
        done
}

@test "check finds nothing wrong in images that are not damaged" {
        requires corpus
        local file name theirs
        for file in $(corpus_known vhd qcow2 | grep -vE 'chain|xen-on-raw|win-diff|datafile|luks|aes'); do
                name=$(corpus "$file")
                theirs=0
                qemu-img check -q "$name" >/dev/null 2>&1 || theirs=$?
                capture vdtool check -q "$name"
                case $(corpus_fact "$file" format) in
                qcow2) same "$file $status" "$file $theirs" || told || return 1 ;;
                *) [[ $status == [03] ]] || say "$file" || told || return 1 ;;
                esac
                rm -f "$name"
        done
}
