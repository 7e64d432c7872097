#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154  # capture sets status, output and stderr
# Parallels: both magics, the format extension, bundles, damage
load helpers
load killed

TOP=5fbaabe3-6958-40ff-92a7-860e329aab41
OTHER=aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee
NONE=00000000-0000-0000-0000-000000000000

field() { vdtool info --field "format-specific.data.$1" "$2"; }
le32() { printf '%02x%02x%02x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }

# storage START END GUID TYPE FILE [GUID TYPE FILE]...: sectors
storage() {
        printf '<Storage><Start>%s</Start><End>%s</End><Blocksize>128</Blocksize>' "$1" "$2"
        shift 2
        while [ $# -gt 0 ]; do
                printf '<Image><GUID>{%s}</GUID><Type>%s</Type><File>%s</File></Image>' "$1" "$2" "$3"
                shift 3
        done
        printf '</Storage>\n'
}

# bundle DIRECTORY SECTORS STORAGES [GUID PARENT]...: writes a descriptor
bundle() {
        local directory=$1 sectors=$2 storages=$3
        shift 3
        mkdir -p "$directory"
        {
                printf '<?xml version="1.0"?>\n<Parallels_disk_image Version="1.0">\n'
                printf '<Disk_Parameters><Disk_size>%s</Disk_size><Padding>0</Padding></Disk_Parameters>\n' "$sectors"
                printf '<StorageData>\n%s</StorageData>\n<Snapshots>' "$storages"
                while [ $# -gt 0 ]; do
                        printf '<Shot><GUID>{%s}</GUID><ParentGUID>{%s}</ParentGUID></Shot>' "$1" "$2"
                        shift 2
                done
                printf '</Snapshots>\n</Parallels_disk_image>\n'
        } >"$directory/DiskDescriptor.xml"
}

# snapshots: b.hdd with a plain base and an expanding child that changes 64 KiB at 1 MiB; before.raw and after.raw
snapshots() {
        disk_image before.raw
        cp before.raw after.raw
        head -c 65536 /dev/zero | tr '\0' c | dd of=after.raw bs=64k seek=16 conv=notrunc status=none
        bundle b.hdd 10243 "$(storage 0 10243 $OTHER Plain base.hds $TOP Compressed top.hds)" $OTHER $NONE $TOP $OTHER
        cp before.raw b.hdd/base.hds
        qemu-img create -q -f parallels -o cluster_size=64k b.hdd/top.hds 5244416
        qemu-io -f parallels -c 'write -P 99 1M 64k' b.hdd/top.hds >/dev/null
}

# --- single images ------------------------------------------------------------------------------------------------------

@test "parallels: each kind of new image holds the disk, for qemu-img" {
        local options
        disk_image disk.raw
        for options in subformat=expanding cluster_size=64k cluster_size=512 subformat=old \
                       subformat=old,cluster_size=4k cluster_size=64M; do
                vdtool convert -q --force -o $options disk.raw disk.hds
                judge parallels disk.hds disk.raw
                qemu-img check -q -f parallels disk.hds
                same "$(content disk.hds)" "$(sha256 disk.raw)"
                vdtool check -q --data disk.hds
        done
        same "$(vdtool info --field format disk.hds)" parallels
}

@test "parallels: what qemu-img made is read, with clusters of any number of sectors" {
        local size
        disk_image disk.raw
        for size in 1M 64k 32256 512; do
                qemu-img convert -O parallels -o cluster_size=$size disk.raw disk.hds
                same "$(content disk.hds)" "$(sha256 disk.raw)"
                vdtool check -q disk.hds
        done
}

@test "parallels: the older magic with clusters of 63 sectors that lie at any sector" {
        truncate -s $((191 * 512)) old.hds
        poke old.hds 0 "$(printf WithoutFreeSpace | od -An -tx1 | tr -d ' \n')" "$(le32 2)" "$(le32 16)" "$(le32 20)" \
                "$(le32 63)" "$(le32 163)" "$(le32 10243)"
        # the upper half of the size counts only with the newer magic
        poke old.hds 40 ffffffff
        poke old.hds 64 "$(le32 2)"
        poke old.hds $((64 + 97 * 4)) "$(le32 65)"
        poke old.hds $((64 + 162 * 4)) "$(le32 128)"
        printf 'five' | dd of=old.hds bs=1 seek=$((7 * 512)) conv=notrunc status=none
        printf 'sixty' | dd of=old.hds bs=1 seek=$((65 * 512)) conv=notrunc status=none
        same "$(vdtool info --field virtual-size old.hds)" 5244416
        vdtool convert -q -O raw old.hds out.raw
        same "$(dd if=out.raw bs=512 skip=5 count=1 status=none | tr -d '\0')" five
        same "$(dd if=out.raw bs=512 skip=6111 count=1 status=none | tr -d '\0')" sixty
        qemu-img compare -q -f parallels -F raw old.hds out.raw
        vdtool check -q old.hds
        disk_image disk.raw
        vdtool convert -q -n -f raw -O parallels disk.raw old.hds
        judge parallels old.hds disk.raw
        vdtool check -q old.hds
}

@test "parallels: map says what qemu-img map says" {
        disk_image disk.raw
        qemu-img convert -O parallels -o cluster_size=64k disk.raw disk.hds
        diff <(vdtool map --output json disk.hds | jq -c '.[] | [.start, .length, .data, .zero, .offset]') \
             <(qemu-img map --output json disk.hds | jq -c '.[] | [.start, .length, .data, .zero, .offset]')
}

@test "parallels: written in place, over nothing and over everything, ours and qemu-img's" {
        disk_image disk.raw
        head -c 5244416 /dev/zero | tr '\0' o >old.raw
        vdtool create -q one.hds 5244416
        vdtool convert -q old.raw two.hds
        qemu-img convert -O parallels -o cluster_size=64k old.raw three.hds
        vdtool create -q --type old four.hds 5244416
        local name
        for name in one two three four; do
                vdtool convert -q -n -f raw -O parallels disk.raw $name.hds
                judge parallels $name.hds disk.raw
                qemu-img check -q -f parallels $name.hds
                vdtool check -q $name.hds
                same "$(peek $name.hds 44 4)" 00000000
        done
}

@test "parallels: killed at any write, every byte is the old or the new one, and the mark tells" {
        requires strace
        killed_everywhere parallels cluster_size=4k
        killed_everywhere parallels subformat=old,cluster_size=4k
}

@test "parallels: the format extension stays where it is when the image is written, and is marked as stale" {
        requires corpus
        local name before
        name=$(corpus parallels/parallels-with-bitmap.hds.bz2)
        same "$(field extension-stale "$name")" false
        same "$(field bitmaps.0.granularity "$name")" 65536
        vdtool check -q "$name"
        before=$(dd if="$name" bs=1M skip=1 count=2 status=none | openssl dgst -sha256 -r)
        truncate -s 64G new.raw
        printf 'something' | dd of=new.raw bs=1 seek=123456789 conv=notrunc status=none
        vdtool convert -q -n --target-is-zero -f raw -O parallels new.raw "$name"
        same "$(dd if="$name" bs=1M skip=1 count=2 status=none | openssl dgst -sha256 -r)" "$before"
        same "$(field extension-stale "$name")" true
        same "$(field bitmaps.0.granularity "$name")" 65536
        qemu-img compare -q -f parallels -F raw "$name" new.raw
        # a checksum that is wrong is found while the extension counts
        name=$(corpus parallels/parallels-with-bitmap.hds.bz2)
        poke "$name" $((0x200000 + 100)) 55
        capture vdtool check "$name"
        [[ $output == *"checksum is wrong"* ]]
}

@test "parallels: headers that break the rules are refused by name and value" {
        disk_image disk.raw
        vdtool convert -q -o cluster_size=64k disk.raw good.hds
        while read -r at bytes text; do
                cp good.hds bad.hds
                poke bad.hds $((at)) "$bytes"
                fails_with "$text" vdtool convert -O raw bad.hds out.raw
        done < <(printf '%s\n' \
                '16 03000000 version 3' \
                '28 00000000 clusters of 0 sectors' \
                '28 ffffff7f at most' \
                '32 01000000 does not cover' \
                '32 ffffffff but the file at' \
                '36 ffffffffffffff00 a disk of' \
                '48 00000000 but the BAT ends at')
        only_files good.hds bad.hds disk.raw
}

@test "parallels: check finds entries that point nowhere, clusters used twice, lost ones and open images" {
        disk_image disk.raw
        vdtool convert -q -o cluster_size=64k disk.raw good.hds
        cp good.hds bad.hds
        poke bad.hds 64 "$(le32 100000)"
        capture vdtool check bad.hds
        same "$status" 2
        [[ $output == *parallels-bat-entry* ]]
        fails_with 'past end of file' vdtool convert -O raw bad.hds out.raw
        cp good.hds bad.hds
        poke bad.hds 64 "$(peek bad.hds $((64 + 17 * 4)) 4)"
        capture vdtool check bad.hds
        same "$status" 2
        [[ $output == *overlap* ]]
        cp good.hds bad.hds
        poke bad.hds 64 00000000
        capture vdtool check bad.hds
        same "$status" 3
        [[ $output == *parallels-leak* ]]
        cp good.hds bad.hds
        poke bad.hds 44 596e6f74
        capture vdtool check bad.hds
        [[ $output == *parallels-in-use* ]]
        same "$(vdtool info --field dirty-flag bad.hds)" true
        same "$(content bad.hds)" "$(sha256 disk.raw)"
        vdtool convert -q -n -f raw -O parallels disk.raw bad.hds
        same "$(peek bad.hds 44 4)" 596e6f74
}

@test "parallels: cut anywhere, convert fails or the content is right" {
        disk_image disk.raw 1500000
        vdtool convert -q -o cluster_size=64k disk.raw whole.hds
        mv whole.hds whole.parallels
        cut_everywhere whole.parallels "$(content whole.parallels)" 40
}

# --- bundles ------------------------------------------------------------------------------------------------------------

@test "parallels: a bundle of a plain file and a snapshot, by directory and by descriptor" {
        snapshots
        same "$(content b.hdd)" "$(sha256 after.raw)"
        same "$(content b.hdd/DiskDescriptor.xml)" "$(sha256 after.raw)"
        same "$(content -l $OTHER b.hdd)" "$(sha256 before.raw)"
        same "$(vdtool info --field snapshots.0.id b.hdd)" $OTHER
        vdtool check -q b.hdd
        vdtool check -q --data b.hdd
        fails_with 'there is no snapshot' vdtool convert -l nonsense -O raw b.hdd out.raw
}

@test "parallels: writing changes the current file only, and zeros hide what is below" {
        snapshots
        local base
        base=$(sha256 b.hdd/base.hds)
        truncate -s 5244416 zeros.raw
        vdtool convert -q -n -f raw -O parallels zeros.raw b.hdd
        same "$(content b.hdd)" "$(sha256 zeros.raw)"
        same "$(sha256 b.hdd/base.hds)" "$base"
        vdtool convert -q -n -f raw -O parallels before.raw b.hdd
        same "$(content b.hdd)" "$(sha256 before.raw)"
        vdtool check -q b.hdd
}

@test "parallels: new bundles, whole and split, hold the disk and are whole at once" {
        disk_image disk.raw
        vdtool convert -q -O parallels --type bundle disk.raw one.hdd
        same "$(content one.hdd)" "$(sha256 disk.raw)"
        qemu-img compare -q -f parallels -F raw "one.hdd/one.hdd.0.{$TOP}.hds" disk.raw
        vdtool convert -q -O parallels -o subformat=bundle,split_size=1M,cluster_size=64k disk.raw two.hdd
        same "$(content two.hdd)" "$(sha256 disk.raw)"
        same "$(find two.hdd -name '*.hds' | wc -l)" 6
        vdtool check -q two.hdd
        vdtool convert -q -n -f raw -O parallels one.hdd/one.hdd two.hdd 2>/dev/null || true
        vdtool compare -q one.hdd two.hdd || vdtool compare -q one.hdd disk.raw
        fails_with 'is a directory' vdtool convert -O parallels --type bundle disk.raw one.hdd
        fails_with 'is a directory' vdtool convert --force -O parallels --type bundle disk.raw one.hdd
        fails_with 'for bundles' vdtool create -f parallels -o split_size=1M three.hdd 10M
        fails_with 'multiple of' vdtool create -f parallels -o subformat=bundle,split_size=1000 three.hdd 10M
        [ ! -e three.hdd ]
}

@test "parallels: a bundle that cannot be finished leaves nothing" {
        disk_image disk.raw
        local unnamed
        for unnamed in 0 1; do
                (
                        ulimit -f 1200
                        VDTOOL_NO_TMPFILE=$unnamed fails_cleanly vdtool convert -O parallels --type bundle disk.raw new.hdd
                )
                only_files disk.raw
        done
}

@test "parallels: descriptors that break the rules are refused" {
        disk_image disk.raw
        qemu-img convert -O parallels disk.raw one.hds
        try() {
                local text=$1
                shift
                rm -rf b.hdd
                bundle b.hdd "$@"
                cp one.hds b.hdd/one.hds
                fails_with "$text" vdtool convert -O raw b.hdd out.raw
        }
        local whole
        whole=$(storage 0 10243 $TOP Compressed one.hds)
        try 'the disk has' 10244 "$whole" $TOP $NONE
        try 'expected one that begins at 0' 10243 "$(storage 1 10243 $TOP Compressed one.hds)" $TOP $NONE
        try 'expected one that begins at' 10243 "$(storage 0 5000 $TOP Compressed one.hds)$(storage 4999 10243 $TOP Compressed two.hds)"
        try 'has no image of snapshot' 10243 "$(storage 0 10243 $OTHER Compressed one.hds)" $OTHER $NONE
        try 'is named twice' 10243 "$(storage 0 5000 $TOP Compressed one.hds)$(storage 5000 10243 $TOP Compressed one.hds)"
        try 'is its own ancestor' 10243 "$(storage 0 10243 $TOP Compressed one.hds $OTHER Compressed two.hds)" $TOP $TOP
        try "image type 'Odd'" 10243 "$(storage 0 10243 $TOP Odd one.hds)" $TOP $NONE
        try 'is not a GUID' 10243 "$(storage 0 10243 x Compressed one.hds)" $TOP $NONE
        try 'number of sectors' ten "$whole" $TOP $NONE
        try 'piece of the disk' 102430 "$(storage 0 102430 $TOP Plain one.hds)" $TOP $NONE
        try 'is a plain file and has a parent' 5000 "$(storage 0 5000 $TOP Plain one.hds)" $TOP $OTHER
        try 'No such file' 10243 "$(storage 0 10243 $TOP Compressed three.hds)" $TOP $NONE
        try 'lies outside' 10243 "$(storage 0 10243 $TOP Compressed ../one.hds)" $TOP $NONE
        try 'lies outside' 10243 "$(storage 0 10243 $TOP Compressed "$PWD/one.hds")" $TOP $NONE
        try 'XML, line' 10243 '<Storage>' $TOP $NONE
        rm -rf b.hdd
        bundle b.hdd 10243 "$whole" $TOP $NONE
        sed -i '1a <!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>' b.hdd/DiskDescriptor.xml
        fails_with 'declares entities' vdtool info b.hdd
        bundle b.hdd 10243 "$whole" $TOP $NONE
        sed -i "s|<Padding>|<Encryption><Engine>{$OTHER}</Engine></Encryption><Padding>|" b.hdd/DiskDescriptor.xml
        fails_with 'is encrypted' vdtool convert -O raw b.hdd out.raw
        same "$(vdtool info --field encrypted b.hdd)" true
}

@test "parallels: check of a bundle names the file, and counts guest offsets from the disk's start" {
        disk_image disk.raw
        vdtool convert -q -O parallels -o subformat=bundle,split_size=1M,cluster_size=64k disk.raw b.hdd
        poke "b.hdd/b.hdd.1.{$TOP}.hds" 64 ffffff7f
        capture vdtool check --output json b.hdd
        same "$status" 2
        same "$(jq -r '.findings[0].guest // .findings[0]["guest-offset"]' <<<"$output")" 1048576
        [[ $output == *"b.hdd.1.{$TOP}.hds"* ]]
}

@test "parallels: info of a bundle opens no other file" {
        bundle b.hdd 10243 "$(storage 0 10243 $TOP Compressed missing.hds)" $TOP $NONE
        succeeds vdtool info b.hdd
        [[ $output == *missing.hds* ]]
        fails_with 'missing.hds' vdtool convert -O raw b.hdd out.raw
}

@test "parallels: every image and bundle of the corpus reads as the manifest says and passes check" {
        requires corpus
        local file name directory
        for directory in plain snap v1 v2 v2-64k v2-prealloc; do
                mkdir $directory.hdd
                (cd $directory.hdd && corpus_directory parallels/ploop-$directory.hdd)
        done
        for file in $(corpus_known parallels); do
                case $file in
                *.hdd/*) name=${file#parallels/ploop-} name=${name%.xz} ;;
                *) name=$(corpus "$file") ;;
                esac
                same "$(content "$name")" "$(corpus_fact "$file" content_sha256)" || say "$file"
                vdtool check -q "$name" || say "$file"
                case $file in
                *.hdd/*) same "$(content "${name%/*}")" "$(corpus_fact "$file" content_sha256)" || say "$file" ;;
                esac
        done
}
