#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# VMDK: every kind read, five kinds written, in place, chains, damage
load helpers
# shellcheck source=tests/images/vmdk.bash
source "$BATS_TEST_DIRNAME/images/vmdk.bash"

SUBFORMATS="monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat streamOptimized"

# foreign_readers FILE RAW: qemu-img, 7-Zip and libvmdk find the disk, and nothing wrong
foreign_readers() {
        qemu-img compare -q -f vmdk -F raw "$1" "$2" || say "qemu-img compare: $1" || return 1
        qemu-img check -q -f vmdk "$1" || say "qemu-img check: $1" || return 1
        same "$(content_7z "$1" vmdk)" "$(sha256 "$2")" || say "7zz: $1" || return 1
        vmdkinfo "$1" | grep -q "Media size" || say "vmdkinfo: $1"
}

# --- writing ----------------------------------------------------------------------------------------------------------

@test "each kind of new VMDK holds the disk, for qemu-img, 7-Zip and libvmdk" {
        local type
        disk_image disk.raw
        for type in $SUBFORMATS; do
                mkdir $type
                vdtool convert -q --type $type disk.raw $type/disk.vmdk
                foreign_readers $type/disk.vmdk disk.raw
                same "$(vdtool info --field format-specific.data.create-type $type/disk.vmdk)" $type
                same "$(content $type/disk.vmdk)" "$(sha256 disk.raw)"
                vdtool check -q --data $type/disk.vmdk
        done
}

@test "sizes: one sector, a table, a table and a sector, no multiple of a sector" {
        local type size
        for size in 512 33554432 33554944 70000; do
                truncate -s 0 disk.raw
                truncate -s $size disk.raw
                printf x | dd of=disk.raw bs=1 seek=$((size - 1)) conv=notrunc status=none
                for type in $SUBFORMATS; do
                        vdtool convert -q --force --type $type disk.raw disk.vmdk
                        same "$(vdtool info --field virtual-size disk.vmdk)" $(((size + 511) / 512 * 512))
                        qemu-img compare -q -f vmdk -F raw disk.vmdk disk.raw
                        rm -f disk*.vmdk
                done
        done
}

@test "a split disk of 5 GiB: three extents of at most 2047 MiB, data across the seams" {
        local type
        truncate -s 5G disk.raw
        printf 'across the seam' | dd of=disk.raw bs=1 seek=$((2047 * 1048576 - 7)) conv=notrunc status=none
        printf 'and the other' | dd of=disk.raw bs=1 seek=$((4094 * 1048576 - 3)) conv=notrunc status=none
        for type in twoGbMaxExtentSparse twoGbMaxExtentFlat; do
                mkdir $type
                vdtool convert -q --type $type disk.raw $type/disk.vmdk
                same "$(find $type -name 'disk-[sf]00[123].vmdk' | wc -l)" 3
                grep -q '^RW 4192256 [A-Z]* "disk-[sf]002.vmdk"' $type/disk.vmdk
                qemu-img compare -q -f vmdk -F raw $type/disk.vmdk disk.raw
                vdtool compare -q $type/disk.vmdk disk.raw
        done
}

@test "streamOptimized as ESXi takes it: version 3, markers, directory at the end, footer, end of stream last" {
        disk_image disk.raw 70001152
        vdtool convert -q --type streamOptimized disk.raw disk.vmdk
        local size footer directory
        size=$(size_of disk.vmdk)
        same "$(peek disk.vmdk 4 8)" 0300000001000300
        same "$(peek disk.vmdk 56 8)" ffffffffffffffff
        same "$(peek disk.vmdk 77 2)" 0100
        # the end: marker 3 of 1 sector, footer, end of stream
        footer=$((size - 1024))
        same "$(peek disk.vmdk $((size - 1536)) 16)" 01000000000000000000000003000000
        same "$(peek disk.vmdk $footer 4)" 4b444d56
        same "$(peek disk.vmdk $((size - 512)) 512 | tr -d 0)" ''
        directory=$((16#$(peek disk.vmdk $((footer + 56)) 4 | sed 's/\(..\)\(..\)\(..\)\(..\)/\4\3\2\1/')))
        same "$(peek disk.vmdk $((directory * 512 - 512)) 16)" 01000000000000000000000002000000
        # the last grain is a whole one: 7-Zip insists
        same "$(content_7z disk.vmdk vmdk)" "$(sha256 disk.raw)"
}

@test "streamOptimized: noise does not fit a grain and is stored, zeros are left out" {
        openssl enc -aes-128-ctr -K 01 -iv 00 -in /dev/zero 2>/dev/null | head -c 300000 >disk.raw
        truncate -s 200M disk.raw
        vdtool convert -q --type streamOptimized disk.raw disk.vmdk
        [ "$(size_of disk.vmdk)" -lt 600000 ]
        foreign_readers disk.vmdk disk.raw
}

@test "streamOptimized: the same bytes whatever the number of threads" {
        export SOURCE_DATE_EPOCH=1700000000
        disk_image disk.raw 20000256
        vdtool convert -q -m 1 --type streamOptimized disk.raw one.vmdk
        mkdir other && cd other
        vdtool convert -q -m 4 --type streamOptimized ../disk.raw one.vmdk
        cmp ../one.vmdk one.vmdk
}

@test "packed grains move verbatim between streamOptimized disks" {
        disk_image disk.raw 8388608
        vdtool convert -q --type streamOptimized disk.raw a.vmdk
        vdtool convert -q --type streamOptimized a.vmdk b.vmdk
        cmp <(tail -c +65537 a.vmdk) <(tail -c +65537 b.vmdk)
        foreign_readers b.vmdk disk.raw
}

@test "the create options end up in the descriptor" {
        vdtool create -q -f vmdk -o adapter_type=lsilogic,hwversion=14,toolsversion=11360 disk.vmdk 10M
        same "$(vdtool info --field format-specific.data.adapter-type disk.vmdk)" lsilogic
        same "$(vdtool info --field format-specific.data.hw-version disk.vmdk)" 14
        same "$(vdtool info --field format-specific.data.tools-version disk.vmdk)" 11360
        same "$(vdtool info --field format-specific.data.geometry disk.vmdk)" 1/255/63
        vdtool create -q -f vmdk -o compat6 six.vmdk 10M
        same "$(vdtool info --field format-specific.data.hw-version six.vmdk)" 6
        vdtool create -q -f vmdk -o zeroed_grain=on zeroed.vmdk 10M
        same "$(peek zeroed.vmdk 4 8)" 0200000007000000
        qemu-img check -q zeroed.vmdk
}

@test "a copy keeps adapter, hardware and tools versions of its source" {
        vdtool create -q -f vmdk -o adapter_type=buslogic,hwversion=14,toolsversion=11360 disk.vmdk 1M
        vdtool convert -q --type streamOptimized disk.vmdk stream.vmdk
        same "$(vdtool info --field format-specific.data.adapter-type stream.vmdk)" buslogic
        same "$(vdtool info --field format-specific.data.hw-version stream.vmdk)" 14
        same "$(vdtool info --field format-specific.data.tools-version stream.vmdk)" 11360
        vdtool convert -q -o hwversion=7 disk.vmdk seven.vmdk
        same "$(vdtool info --field format-specific.data.hw-version seven.vmdk)" 7
}

@test "create options that contradict each other or ask for the impossible" {
        fails_with compat6 vdtool create -f vmdk -o compat6,hwversion=7 x.vmdk 1M
        fails_with zeroed_grain vdtool create -f vmdk -o subformat=monolithicFlat,zeroed_grain=on x.vmdk 1M
        fails_with zeroed_grain vdtool create -f vmdk -o subformat=streamOptimized,zeroed_grain=on x.vmdk 1M
        fails_with number vdtool create -f vmdk -o hwversion=new x.vmdk 1M
        fails_with quote vdtool create -f vmdk 'a"b.vmdk' 1M
        fails_with '64 TiB' vdtool create -f vmdk x.vmdk 65T
        only_files
}

@test "all files of a set appear, or none" {
        truncate -s 3G disk.raw
        : >disk-s002.vmdk
        fails_with disk-s002.vmdk vdtool convert -q --type twoGbMaxExtentSparse disk.raw disk.vmdk
        only_files disk-s002.vmdk disk.raw
        rm disk-s002.vmdk
        (ulimit -f 2000 && fails_cleanly vdtool convert -q -S 0 --type twoGbMaxExtentFlat disk.raw disk.vmdk)
        only_files disk.raw
}

@test "a set whose extents are also the source is refused" {
        vdtool create -q -f vmdk --type monolithicFlat disk.vmdk 1M
        fails_cleanly vdtool convert -f raw --force --type monolithicFlat disk-flat.vmdk disk.vmdk
        vdtool check -q disk.vmdk
}

# --- reading ----------------------------------------------------------------------------------------------------------

@test "every kind that qemu-img writes" {
        local type options
        disk_image disk.raw
        for type in $SUBFORMATS; do
                for options in "" ,adapter_type=lsilogic ,compat6=on; do
                        rm -rf $type && mkdir $type
                        qemu-img convert -f raw -O vmdk -o subformat=$type$options disk.raw $type/disk.vmdk
                        same "$(content $type/disk.vmdk)" "$(sha256 disk.raw)"
                        vdtool check -q --data $type/disk.vmdk
                done
        done
}

@test "zeroed grains that qemu-io wrote" {
        qemu-img create -q -f vmdk -o zeroed_grain=on disk.vmdk 10M
        qemu-io -c 'write -P 5 0 1M' -c 'write -z 64k 128k' disk.vmdk >/dev/null
        same "$(content disk.vmdk)" "$(content_qemu vmdk disk.vmdk)"
        vdtool map --output json disk.vmdk | jq -e 'map(select(.zero and .present)) | length > 0'
}

@test "descriptors with blanks, CRLF, other case, no quotes, no comments, and NULs at the end" {
        printf 'x%.0s' {1..1024} >disk-flat.vmdk
        vmdk_descriptor disk.vmdk monolithicFlat 12345678 ffffffff 'RW 2 FLAT "disk-flat.vmdk" 0'
        local want
        want=$(sha256 disk-flat.vmdk)
        same "$(content disk.vmdk)" "$want"
        sed 's/$/ /' disk.vmdk >blanks.vmdk && same "$(content blanks.vmdk)" "$want"
        sed 's/$/\r/' disk.vmdk >crlf.vmdk && same "$(content crlf.vmdk)" "$want"
        sed 's/=/ = /; s/"//g' disk.vmdk >bare.vmdk && same "$(content bare.vmdk)" "$want"
        sed 's/^RW/rw/; s/FLAT/flat/; s/createType/CREATETYPE/' disk.vmdk >case.vmdk
        same "$(content case.vmdk)" "$want"
        grep -v '^#' disk.vmdk >comments.vmdk && same "$(content comments.vmdk)" "$want"
        { cat disk.vmdk && head -c 700 /dev/zero; } >nul.vmdk && same "$(content nul.vmdk)" "$want"
        same "$(vdtool info --field format-specific.data.cid crlf.vmdk)" $((16#12345678))
}

@test "file names in the encoding of the descriptor" {
        local name
        printf 'k%.0s' {1..512} >'가나-flat.vmdk'
        vmdk_descriptor disk.vmdk monolithicFlat 00000001 ffffffff 'RW 1 FLAT "가나-flat.vmdk" 0'
        same "$(content disk.vmdk)" "$(sha256 가나-flat.vmdk)"
        { printf 'encoding="windows-949-2000"\n' | cat disk.vmdk -; } | iconv -f UTF-8 -t CP949 >korean.vmdk
        same "$(content korean.vmdk)" "$(sha256 가나-flat.vmdk)"
        # bytes as they are, when there is such a file
        name=$(printf '\xb0\xa1-flat.vmdk') && cp 가나-flat.vmdk "$name"
        vmdk_descriptor bytes.vmdk monolithicFlat 1 ffffffff "RW 1 FLAT \"$name\" 0"
        printf 'encoding="GBK"\n' >>bytes.vmdk
        same "$(content bytes.vmdk)" "$(sha256 가나-flat.vmdk)"
}

@test "RDONLY and ZERO lines count, NOACCESS is refused" {
        head -c 1024 /dev/zero | tr '\0' a >a.bin
        head -c 512 /dev/zero | tr '\0' b >b.bin
        vmdk_descriptor disk.vmdk custom 00000001 ffffffff 'RW 1 FLAT "a.bin" 1' 'RW 3 ZERO' 'RDONLY 1 FLAT "b.bin" 0' \
                'RW 1 FLAT "a.bin" 0'
        { head -c 512 a.bin && head -c 1536 /dev/zero && cat b.bin && head -c 512 a.bin; } >want.raw
        same "$(content disk.vmdk)" "$(sha256 want.raw)"
        sed -i 's/RDONLY/NOACCESS/' disk.vmdk
        fails_with access vdtool convert disk.vmdk out.raw
}

@test "vmfs: flat extents without an offset" {
        disk_image disk-flat.vmdk
        vmdk_descriptor disk.vmdk vmfs 12345678 ffffffff 'RW 10243 VMFS "disk-flat.vmdk"'
        same "$(content disk.vmdk)" "$(sha256 disk-flat.vmdk)"
        qemu-img compare -q disk.vmdk disk-flat.vmdk
}

@test "vmfsSparse: a COWD child over its parent, as qemu-img reads it" {
        disk_image base-flat.vmdk 8389120
        local sectors=16385
        vmdk_descriptor base.vmdk vmfs 12345678 ffffffff "RW $sectors VMFS \"base-flat.vmdk\""
        cowd child-delta.vmdk $sectors 1
        cowd_grain child-delta.vmdk $sectors 1 0 c
        cowd_grain child-delta.vmdk $sectors 1 5000 d
        cowd_grain child-delta.vmdk $sectors 1 16384 e
        PARENT=base.vmdk vmdk_descriptor child.vmdk vmfsSparse 00000002 12345678 \
                "RW $sectors VMFSSPARSE \"child-delta.vmdk\""
        same "$(content child.vmdk)" "$(content_qemu vmdk child.vmdk)"
        vdtool check -q child.vmdk
        vdtool info child.vmdk | grep -q vmfsSparse
        fails_with descriptor vdtool info child-delta.vmdk
        poke child-delta.vmdk 28 01000000
        capture vdtool check child.vmdk
        same "$status" 2
}

@test "seSparse: allocated, zero, unmapped and absent grains, as qemu-img reads them" {
        disk_image base-flat.vmdk 20971520
        vmdk_descriptor base.vmdk vmfs 12345678 ffffffff 'RW 40960 VMFS "base-flat.vmdk"'
        sesparse child-sesparse.vmdk 40960
        sesparse_entry child-sesparse.vmdk 0 0x3000000000000000
        sesparse_entry child-sesparse.vmdk 1 0x2000000000000000
        sesparse_entry child-sesparse.vmdk 2 0x1000000000000000
        sesparse_entry child-sesparse.vmdk 4097 0x3001000000000000
        grain child-sesparse.vmdk 256 8 g
        grain child-sesparse.vmdk 264 8 h
        PARENT=base.vmdk vmdk_descriptor child.vmdk seSparse 00000002 12345678 'RW 40960 SESPARSE "child-sesparse.vmdk"'
        same "$(content child.vmdk)" "$(content_qemu vmdk child.vmdk)"
        vdtool check -q child.vmdk
        sesparse_entry child-sesparse.vmdk 3 0x7000000000000000
        fails_with 'no known kind' vdtool convert child.vmdk out.raw
        sesparse_entry child-sesparse.vmdk 3 0x3000100000000000
        fails_cleanly vdtool convert child.vmdk out.raw
        sesparse_entry child-sesparse.vmdk 3 0
        poke child-sesparse.vmdk 536 01
        fails_with journal vdtool convert child.vmdk out.raw
}

@test "a stream as ovftool writes it: blanks in the descriptor, one sector of it, an RDONLY extent, a short table" {
        local next
        head -c 65536 /dev/zero | tr '\0' A >a.raw
        truncate -s 64K disk.vmdk
        poke disk.vmdk 0 "$(hex_of KDMV)$(l32 3)$(l32 $((0x30001)))$(l64 131072)$(l64 128)$(l64 1)$(l64 1)$(l32 512)" \
                "$(l64 0)ffffffffffffffff$(l64 128)000a200d0a$(l16 1)"
        vmdk_descriptor text streamOptimized 7e5b80a7 ffffffff 'RDONLY 131072 SPARSE "generated-stream.vmdk"'
        sed 's/$/ /' text |
                dd of=disk.vmdk bs=512 seek=1 conv=notrunc status=none
        next=$((128 + $(stream_grain disk.vmdk 128 65536 a.raw)))       # the first grain of the second table
        stream_marker disk.vmdk $next 4 1
        poke disk.vmdk $(((next + 1) * 512)) "$(l32 128)"
        truncate -s $(((next + 5) * 512)) disk.vmdk
        stream_marker disk.vmdk $((next + 5)) 1 2
        poke disk.vmdk $(((next + 6) * 512)) "00000000$(l32 $((next + 1)))"
        truncate -s $(((next + 7) * 512)) disk.vmdk
        stream_marker disk.vmdk $((next + 7)) 1 3
        dd if=disk.vmdk of=disk.vmdk bs=512 count=1 seek=$((next + 8)) conv=notrunc status=none
        poke disk.vmdk $(((next + 8) * 512 + 56)) "$(l64 $((next + 6)))"
        truncate -s $(((next + 10) * 512)) disk.vmdk
        truncate -s 64M want.raw
        dd if=a.raw of=want.raw bs=64K seek=512 conv=notrunc status=none
        truncate -s 64M want.raw
        same "$(content disk.vmdk)" "$(sha256 want.raw)"
        qemu-img compare -q disk.vmdk want.raw
        # a tar's padding behind it does no harm, a missing end does
        head -c 10240 /dev/zero >>disk.vmdk
        same "$(content disk.vmdk)" "$(sha256 want.raw)"
        truncate -s $(((next + 8) * 512)) disk.vmdk
        fails_with incomplete vdtool info disk.vmdk
}

@test "one extent of a set is read with a warning, and never written" {
        disk_image disk.raw
        vdtool convert -q --type twoGbMaxExtentSparse disk.raw disk.vmdk
        capture vdtool convert disk-s001.vmdk out.raw
        same "$status" 0
        # shellcheck disable=SC2154
        grep -q 'may be disk.vmdk' <<<"$stderr"
        same "$(sha256 out.raw)" "$(sha256 disk.raw)"
        fails_with disk.vmdk vdtool convert -q -n disk.raw disk-s001.vmdk
}

@test "a disk that VMware may be using is read with a warning" {
        vdtool create -q -f vmdk disk.vmdk 1M
        mkdir disk.vmdk.lck
        succeeds vdtool info disk.vmdk
        # shellcheck disable=SC2154
        same "$stderr" ''
        : >disk.vmdk.lck/M12345.lck
        succeeds vdtool info disk.vmdk
        grep -q VMware <<<"$stderr"
}

@test "devices and objects of a host are recognised and refused by name" {
        local type
        vmdk_descriptor full.vmdk fullDevice 1 ffffffff 'RW 2048 FLAT "/dev/zero" 0'
        vmdk_descriptor part.vmdk partitionedDevice 1 ffffffff 'RW 1 FLAT "part-pt.vmdk" 0' 'RW 2047 ZERO'
        vmdk_descriptor rdm.vmdk vmfsRawDeviceMap 1 ffffffff 'RW 2048 VMFSRDM "rdm-rdm.vmdk"'
        vmdk_descriptor vsan.vmdk vsanSparse 1 ffffffff 'RW 2048 VSANSPARSE "x"'
        for type in full:fullDevice part:partitionedDevice rdm:'raw device map' vsan:vsanSparse; do
                fails_with "${type#*:}" vdtool convert "${type%%:*}.vmdk" out.raw
                vdtool info "${type%%:*}.vmdk" | grep -q 'not readable'
        done
}

# --- chains -----------------------------------------------------------------------------------------------------------

@test "a child finds its parent by name and content id, for qemu-img too" {
        disk_image disk.raw
        vdtool convert -q disk.raw base.vmdk
        vdtool create -q -f vmdk -b base.vmdk -F vmdk child.vmdk
        qemu-io -c 'write -P 7 1M 300k' child.vmdk >/dev/null
        same "$(content child.vmdk)" "$(content_qemu vmdk child.vmdk)"
        [ "$(content child.vmdk)" != "$(sha256 disk.raw)" ]
        vdtool convert -q -B base.vmdk -O vmdk child.vmdk copy.vmdk
        vdtool compare -q child.vmdk copy.vmdk
        qemu-img compare -q child.vmdk copy.vmdk
}

@test "a parent that was written to since, or is another disk, is refused" {
        vdtool create -q -f vmdk base.vmdk 4M
        vdtool create -q -f vmdk -b base.vmdk -F vmdk child.vmdk
        vdtool convert -q child.vmdk out.raw
        disk_image new.raw 4194304
        vdtool convert -q -n new.raw base.vmdk
        fails_with 'content id' vdtool convert --force child.vmdk out.raw
        rm base.vmdk
        fails_with missing vdtool convert --force child.vmdk out.raw
        vdtool info child.vmdk | grep -q 'backing file: base.vmdk'
}

@test "hints of other hosts: Windows and ESXi paths" {
        disk_image disk.raw
        vdtool convert -q disk.raw base.vmdk
        vdtool create -q -f vmdk -b base.vmdk -F vmdk child.vmdk
        local hint
        for hint in 'C:\\VMs\\a\\base.vmdk' '/vmfs/volumes/5f/vm/base.vmdk'; do
                cp child.vmdk moved.vmdk
                dd if=child.vmdk bs=512 skip=1 count=20 status=none | tr -d '\0' |
                        sed "s|^parentFileNameHint=.*|parentFileNameHint=\"$hint\"|" >text
                truncate -s 10240 text
                dd if=text of=moved.vmdk bs=512 seek=1 conv=notrunc status=none
                same "$(content moved.vmdk)" "$(sha256 disk.raw)"
        done
}

@test "a child without a name of its parent, or with a flat extent, is refused" {
        : >flat.bin && truncate -s 512 flat.bin
        vmdk_descriptor a.vmdk monolithicFlat 2 12345678 'RW 1 FLAT "flat.bin" 0'
        fails_with flat vdtool convert a.vmdk out.raw
        kdmv e.vmdk 1024 3 1
        vmdk_descriptor b.vmdk twoGbMaxExtentSparse 2 12345678 'RW 1024 SPARSE "e.vmdk"'
        fails_with missing vdtool convert b.vmdk out.raw
        PARENT=flat.bin vmdk_descriptor c.vmdk twoGbMaxExtentSparse 2 ffffffff 'RW 1024 SPARSE "e.vmdk"'
        fails_with parentCID vdtool convert c.vmdk out.raw
}

# --- in place ---------------------------------------------------------------------------------------------------------

@test "writing over old disks of every kind that can be written, by anybody" {
        local type
        disk_image old.raw
        seq 1 900000 | head -c 5244416 >new.raw
        for type in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
                mkdir $type
                qemu-img convert -O vmdk -o subformat=$type old.raw $type/disk.vmdk
                vdtool convert -q -n new.raw $type/disk.vmdk
                foreign_readers $type/disk.vmdk new.raw
                vdtool check -q --data $type/disk.vmdk
        done
}

@test "a write in place changes the content id and nothing else in the descriptor" {
        vdtool create -q -f vmdk --type monolithicFlat disk.vmdk 1M
        sed -i 's/^#DDB/#DDB\nddb.longContentID = "00112233445566778899aabbccddeeff"\nddb.own = "kept"/' disk.vmdk
        cp disk.vmdk before
        seq 1 200000 | head -c 1M >new.raw
        vdtool convert -q -n new.raw disk.vmdk
        same "$(diff before disk.vmdk | grep -c '^>')" 2
        grep -q 'ddb.own = "kept"' disk.vmdk
        same "$(sed -n 's/^CID=//p' disk.vmdk)" "$(sed -n 's/.*longContentID = ".\{24\}\(.*\)"/\1/p' disk.vmdk)"
        cmp new.raw disk-flat.vmdk
}

@test "compressed and ESX extents, RDONLY extents and damaged tables are not written in place" {
        disk_image disk.raw
        vdtool convert -q --type streamOptimized disk.raw stream.vmdk
        fails_with 'in place' vdtool convert -q -n disk.raw stream.vmdk
        vdtool convert -q disk.raw sparse.vmdk
        cp sparse.vmdk before
        kdmv e.vmdk 10243 3 1
        kdmv_entry e.vmdk 3 128
        kdmv_entry e.vmdk 4 128
        truncate -s 128K e.vmdk
        vmdk_descriptor twice.vmdk twoGbMaxExtentSparse 2 ffffffff 'RW 10243 SPARSE "e.vmdk"'
        cp e.vmdk e.before
        fails_with damaged vdtool convert -q -n disk.raw twice.vmdk
        cmp e.vmdk e.before
        cp disk.raw flat.bin
        vmdk_descriptor ro.vmdk monolithicFlat 2 ffffffff 'RDONLY 10243 FLAT "flat.bin" 0'
        fails_with RDONLY vdtool convert -q -n disk.raw ro.vmdk
}

@test "a table that the writer left out is added before its first grain" {
        kdmv e.vmdk 10243 3 1
        poke e.vmdk 3072 00000000
        poke e.vmdk 512 00000000
        vmdk_descriptor disk.vmdk twoGbMaxExtentSparse 2 ffffffff 'RW 10243 SPARSE "e.vmdk"'
        disk_image disk.raw
        truncate -s $((10243 * 512)) disk.raw
        vdtool convert -q -n disk.raw disk.vmdk
        vdtool compare -q disk.vmdk disk.raw
        vdtool check -q disk.vmdk
        qemu-img compare -q disk.vmdk disk.raw
}

# --- damage -----------------------------------------------------------------------------------------------------------

@test "check finds what is wrong in tables" {
        kdmv e.vmdk 10243 3 1
        vmdk_descriptor disk.vmdk twoGbMaxExtentSparse 2 ffffffff 'RW 10243 SPARSE "e.vmdk"'
        truncate -s 256K e.vmdk
        finds() {
                capture vdtool check --output json disk.vmdk
                jq -e --arg code "$1" '[.findings[] | select(.code == $code)] | length > 0' <<<"$output" >/dev/null ||
                        say "no finding $1" || told
        }
        kdmv_entry e.vmdk 0 128
        finds vmdk-leak
        kdmv_entry e.vmdk 1 384 && kdmv_entry e.vmdk 2 256
        vdtool check -q disk.vmdk
        kdmv_entry e.vmdk 3 128 && finds overlap
        kdmv_entry e.vmdk 3 100000 && finds out-of-file
        kdmv_entry e.vmdk 3 3 && finds vmdk-table-entry
        kdmv_entry e.vmdk 3 1 && finds vmdk-table-entry
        kdmv_entry e.vmdk 3 0
        poke e.vmdk 1024 00000000 && finds vmdk-redundant-table
        kdmv_entry e.vmdk 0 128
        poke e.vmdk 512 00000000 && finds vmdk-redundant-directory
        poke e.vmdk 512 02000000
        poke e.vmdk 72 01 && finds vmdk-unclean
        poke e.vmdk 72 00
        kdmv_entry e.vmdk 100 256 && finds vmdk-entry-past-end
        kdmv_entry e.vmdk 100 0
        sed -i 's/twoGbMaxExtentSparse/monolithicFlat/' disk.vmdk && finds vmdk-create-type
}

@test "headers that cannot be: refused with the field, by info and convert" {
        disk_image disk.raw
        vdtool convert -q disk.raw good.vmdk
        refused() {
                cp good.vmdk bad.vmdk
                poke bad.vmdk "$1" "$2"
                fails_with "$3" vdtool info bad.vmdk
                fails_cleanly vdtool convert --force bad.vmdk out.raw
        }
        refused 0 6b646d76 'did not finish'
        refused 4 04000000 version
        refused 10 08 'unknown flags'
        refused 10 02 markers
        refused 12 ffffffffffffffff capacity
        refused 20 0300000000000000 grains
        refused 20 0000000000000000 grains
        refused 44 00000000 'grain tables'
        refused 44 01020000 'grain tables'
        refused 56 ffffffffffffff7f directory
        refused 56 ffff0f0000000000 directory
        refused 56 ffffffffffffffff footer
        refused 64 ffffff0000000000 'grains begin'
        refused 73 0a200a0a 'line ends'
}

@test "a grain past the end of the file, in the header, or of another place is an error, never zeros" {
        kdmv e.vmdk 10243 3 1
        vmdk_descriptor disk.vmdk twoGbMaxExtentSparse 2 ffffffff 'RW 10243 SPARSE "e.vmdk"'
        kdmv_entry e.vmdk 3 128
        fails_with 'which ends at' vdtool convert disk.vmdk out.raw
        kdmv_entry e.vmdk 3 1
        fails_with 'header and tables' vdtool convert disk.vmdk out.raw
        disk_image disk.raw
        vdtool convert -q --type streamOptimized disk.raw stream.vmdk
        poke stream.vmdk 65536 80
        fails_with 'guest sector' vdtool convert stream.vmdk out.raw
        poke stream.vmdk 65536 00
        poke stream.vmdk 65544 ffffff00
        fails_with 'packed bytes' vdtool convert stream.vmdk out.raw
        capture vdtool check stream.vmdk
        same "$status" 2
}

@test "descriptors that contradict themselves or name what they may not" {
        truncate -s 4096 flat.bin
        bad() {
                local text=$1
                shift
                vmdk_descriptor bad.vmdk monolithicFlat 00000001 ffffffff "$@"
                fails_with "$text" vdtool convert bad.vmdk out.raw
        }
        bad 'no extent' '# none'
        bad 'number of sectors' 'RW 0 FLAT "flat.bin" 0'
        bad 'number of sectors' 'RW 99999999999999999999 FLAT "flat.bin" 0'
        bad 'number of sectors' 'RW 1 FLAT "flat.bin" -1'
        bad 'unknown type' 'RW 1 LINEAR "flat.bin" 0'
        bad 'file name' 'RW 1 FLAT'
        bad 'file ends' 'RW 9 FLAT "flat.bin" 0'
        bad 'file ends' 'RW 8 FLAT "flat.bin" 1'
        bad 'no offset' 'RW 1 VMFS "flat.bin" 1'
        bad 'larger than any disk' 'RW 18014398509481983 ZERO' 'RW 18014398509481983 ZERO'
        bad 'outside' 'RW 1 FLAT "/etc/passwd" 0'
        bad 'outside' 'RW 1 FLAT "../../../../../../etc/passwd" 0'
        bad 'not opened' 'RW 1 FLAT "json:{}" 0'
        bad 'not opened' 'RW 1 FLAT "nbd://localhost/x" 0'
        bad 'file ends' 'RW 1 SPARSE "bad.vmdk"'
        bad 'both' 'CID=00000002' 'RW 1 FLAT "flat.bin" 0'
        printf '# Disk DescriptorFile\nversion=1\nCID=xyz\nRW 1 FLAT "flat.bin" 0\n' >bad.vmdk
        fails_with hexadecimal vdtool info bad.vmdk
        printf '# Disk DescriptorFile\nversion=9\nRW 1 FLAT "flat.bin" 0\n' >bad.vmdk
        fails_with version vdtool info bad.vmdk
}

@test "cut anywhere, a VMDK fails or reads right" {
        local type at size want failed=0
        disk_image disk.raw
        want=$(sha256 disk.raw)
        for type in monolithicSparse streamOptimized; do
                vdtool convert -q --type $type disk.raw whole.vmdk
                size=$(size_of whole.vmdk)
                for at in $(seq 0 $((size / 25 + 1)) $((size - 1))) 511 512 513 $((size - 1)) $((size - 512)); do
                        head -c "$at" whole.vmdk >cut.vmdk
                        rm -f out.raw
                        capture vdtool convert -f vmdk -O raw cut.vmdk out.raw
                        if [ "$status" -eq 0 ]; then
                                same "$(sha256 out.raw)" "$want"
                        else
                                failed=$((failed + 1))
                                same "$status $(error_lines)" '1 1' || told || return 1
                        fi
                done
                rm whole.vmdk
        done
        [ $failed -gt 30 ]
}

@test "plain text that begins like a descriptor is raw" {
        printf 'version=1\nname = something else\n%600s\n' x >notes.txt
        same "$(vdtool info --field format notes.txt)" raw
        printf 'COWboys and\n%600s\n' x >cow.txt
        same "$(vdtool info --field format cow.txt)" raw
}

# --- cost -------------------------------------------------------------------------------------------------------------

@test "a sparse disk of 2 TiB costs its tables' directory, 64 TiB still work" {
        vdtool create -q -f vmdk big.vmdk 2T
        [ "$(blocks_of big.vmdk)" -lt 2000 ]
        succeeds timeout 20 "$VDTOOL" map big.vmdk
        vdtool create -q -f vmdk huge.vmdk 64T
        same "$(vdtool info --field virtual-size huge.vmdk)" $((64 << 40))
        vdtool create -q -f vmdk --type streamOptimized stream.vmdk 64T
        same "$(vdtool info --field virtual-size stream.vmdk)" $((64 << 40))
}

@test "a disk of a thousand extents, although few files may be open by default" {
        vdtool create -q -f vmdk --type twoGbMaxExtentSparse disk.vmdk 2100G
        same "$(find . -name 'disk-s*.vmdk' | wc -l)" 1051
        ulimit -Sn 100
        succeeds vdtool map disk.vmdk
        vdtool check -q disk.vmdk
}

# --- the corpus -------------------------------------------------------------------------------------------------------

@test "VMDKs of many makers" {
        requires corpus
        local file name count=0
        for file in $(corpus_known vmdk | tr ' ' '?'); do
                file=$(cd "$VDTOOL_CORPUS" && compgen -G "$file")
                [ "$(corpus_fact "$file" virtual_size)" -le 1073741824 ] || continue
                case $(dirname "$file") in
                */*) corpus_directory "$(dirname "$file")"; name=${file##*/}; name=${name%.xz}; name=${name%.bz2} ;;
                *) name=$(corpus "$file") ;;
                esac
                same "$(content "$name")" "$(corpus_fact "$file" content_sha256)" || say "$file" || return 1
                count=$((count + 1))
                find . -mindepth 1 -delete
        done
        [ $count -ge 20 ] || say "only $count"
}
