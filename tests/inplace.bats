#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Writing into images that exist: convert -n
load helpers

# into FORMAT RAW TARGET: converts and lets others judge that TARGET now holds RAW
into() {
        vdtool convert -n -f raw -O "$1" "$2" "$3" || return 1
        case $1 in
        raw) cmp "$2" "$3" ;;
        *) judge "$1" "$3" "$2" ;;
        esac
}

@test "-n into a new empty image of each format" {
        local format
        disk_image disk.raw
        for format in raw vhd qcow2; do
                vdtool create -f $format target.$format 5244416
                into $format disk.raw target.$format
        done
}

@test "-n over an image that is full of something else" {
        local format
        disk_image disk.raw
        head -c 5244416 /dev/zero | tr '\0' 'o' >old.raw
        for format in raw vhd qcow2; do
                vdtool convert -f raw -O $format old.raw target.$format
                into $format disk.raw target.$format
        done
}

@test "-n into images that qemu-img made" {
        disk_image disk.raw
        head -c 5244416 /dev/zero | tr '\0' 'o' >old.raw
        local options
        qemu-img convert -f raw -O vpc -o force_size=on old.raw target.vhd
        into vhd disk.raw target.vhd
        for options in compat=0.10 cluster_size=512 cluster_size=2M refcount_bits=1 refcount_bits=64 extended_l2=on; do
                qemu-img convert -f raw -O qcow2 -o $options old.raw target.qcow2
                into qcow2 disk.raw target.qcow2 || say "$options"
                rm target.qcow2
        done
}

@test "-n over packed units" {
        local kind
        disk_image disk.raw
        yes 'old data that packs well' | head -c 5244416 >old.raw
        for kind in zlib zstd; do
                qemu-img convert -c -f raw -O qcow2 -o compression_type=$kind old.raw target.qcow2
                into qcow2 disk.raw target.qcow2
                rm target.qcow2
        done
}

@test "-n into a fixed VHD keeps footer and size" {
        disk_image disk.raw
        vdtool create --type fixed target.vhd 5244416
        tail -c 512 target.vhd >footer
        into vhd disk.raw target.vhd
        tail -c 512 target.vhd | cmp footer -
}

@test "-n leaves the content of snapshots alone" {
        fixture good-qcow2-snapshots disk.qcow2
        head -c 1M /dev/zero | tr '\0' 'n' >new.raw
        into qcow2 new.raw disk.qcow2
        qemu-img convert -l first -O raw disk.qcow2 first.raw
        same "$(sha256 first.raw)" 3eeff9e33c6bd6619d7c4ab4090779672d575529770737ed7a449e3cd2b03797
        qemu-img convert -l second -O raw disk.qcow2 second.raw
        same "$(sha256 second.raw)" 79026b6a5f2d2b998615964a1bf33a349134b63e15296889d00e051eafeb49b4
        qemu-img check -q disk.qcow2
}

@test "-n into an overlay leaves its base alone" {
        disk_image base.raw
        cp base.raw before.raw
        qemu-img create -q -f qcow2 -b base.raw -F raw top.qcow2
        head -c 5244416 /dev/zero | tr '\0' 'n' >new.raw
        into qcow2 new.raw top.qcow2
        cmp base.raw before.raw
}

@test "-n into a differencing VHD leaves its parent alone, and zeros hide the parent" {
        fixture good-vhd-parent
        fixture good-vhd-child
        local before
        before=$(sha256 good-vhd-parent)
        truncate -s 3147264 new.raw
        printf 'only this' | dd of=new.raw bs=1 seek=2000000 conv=notrunc status=none
        vdtool convert -n -f raw -O vhd new.raw good-vhd-child
        same "$(content good-vhd-child)" "$(sha256 new.raw)"
        same "$(content_7z good-vhd-child)" "$(sha256 new.raw)"
        same "$(sha256 good-vhd-parent)" "$before"
}

@test "-n into an image with bitmaps does not leave a wrong bitmap behind" {
        fixture good-qcow2-bitmaps disk.qcow2
        head -c 1M /dev/zero | tr '\0' 'n' >new.raw
        vdtool convert -n -f raw -O qcow2 new.raw disk.qcow2
        qemu-img compare -q -F raw disk.qcow2 new.raw
        # space of bitmaps that were given up may be left
        capture qemu-img check disk.qcow2
        [[ $status == [03] ]] || told
        # a bitmap that stays valid must know about the writes; else it must be gone or in use
        qemu-img info --output=json disk.qcow2 |
                jq -e '[."format-specific".data.bitmaps[]? | select(.flags | index("in-use") | not)] | length == 0'
}

@test "-n into a larger target writes the front and keeps its size" {
        disk_image disk.raw 1049088
        head -c 2M /dev/zero | tr '\0' 'o' >target.raw
        vdtool convert -n -f raw -O raw disk.raw target.raw
        cmp -n 1049088 disk.raw target.raw
        same "$(size_of target.raw)" 2097152
        qemu-img create -q -f qcow2 target.qcow2 2M
        vdtool convert -n -f raw -O qcow2 disk.raw target.qcow2
        qemu-img compare -q -F raw target.qcow2 disk.raw
        same "$(vdtool info --field virtual-size target.qcow2)" 2097152
}

@test "-n leaves alone what a larger target has behind the source's end" {
        disk_image disk.raw 1049088
        head -c 2M /dev/urandom >old.raw
        qemu-img create -q -f raw hole.raw 1049088
        for source in disk hole; do
                { cat $source.raw; tail -c +1049089 old.raw; } >expected-$source.raw
        done
        for format in raw qcow2 vhd; do
                for source in disk hole; do
                        vdtool convert --force -f raw old.raw target.$format
                        vdtool convert -n -f raw -O $format $source.raw target.$format
                        vdtool convert --force target.$format back.raw
                        cmp back.raw expected-$source.raw
                        [ $format = raw ] || vdtool check target.$format
                done
        done
        # one unit of the target is partly the source's and partly in compressed data
        vdtool convert --force -c -f raw old.raw target.qcow2
        vdtool convert -n -c -f raw -O qcow2 disk.raw target.qcow2
        qemu-img check -q target.qcow2
        qemu-img compare -q -F raw target.qcow2 expected-disk.raw
}

@test "-n refuses a target whose data file is the source, whatever the locks say" {
        disk_image disk.raw
        vdtool create -q -o data_file=data.raw target.qcow2 "$(size_of disk.raw)"
        cp disk.raw data.raw
        for option in -U --no-lock; do
                fails_with 'would change the input' vdtool convert -n $option -f raw -O qcow2 data.raw target.qcow2
                cmp disk.raw data.raw
        done
}

@test "-n into a target that is too small is refused before a byte is written" {
        disk_image disk.raw
        head -c 1M /dev/zero | tr '\0' 'o' >target.raw
        cp target.raw before.raw
        fails_cleanly vdtool convert -n -f raw -O raw disk.raw target.raw
        cmp target.raw before.raw
        vdtool create target.qcow2 1M
        cp target.qcow2 before.qcow2
        fails_cleanly vdtool convert -n -f raw -O qcow2 disk.raw target.qcow2
        cmp target.qcow2 before.qcow2
}

@test "-n into a file that does not exist is an error" {
        disk_image disk.raw 1048576
        fails_with 'No such file' vdtool convert -n -f raw -O qcow2 disk.raw nowhere.qcow2
        only_files disk.raw
}

@test "-n into the source itself is refused" {
        disk_image disk.raw 1048576
        local before
        before=$(sha256 disk.raw)
        fails_cleanly vdtool convert -n -f raw -O raw disk.raw disk.raw
        same "$(sha256 disk.raw)" "$before"
}

@test "-n into a damaged image is refused and changes nothing" {
        local name
        head -c 1M /dev/zero | tr '\0' 'n' >new.raw
        for name in bad-qcow2-data-past-end bad-qcow2-l2-past-end bad-qcow2-l1-huge bad-vhd-header-checksum; do
                fixture $name target
                cp target before
                fails_cleanly vdtool convert -n -f raw -O "$(cut -d- -f2 <<<$name)" new.raw target || [ "$status" -eq 0 ]
                [ "$status" -ne 0 ] || vdtool check target
        done
}

@test "-n into a window of a raw target" {
        disk_image disk.raw 65536
        head -c 1M /dev/zero | tr '\0' 'o' >target.raw
        vdtool convert -n -f raw -O raw --target-offset 128k --target-size 64k disk.raw target.raw
        cmp -n 65536 -i 0:131072 disk.raw target.raw
        same "$(head -c 131072 target.raw | tr -d o | wc -c)" 0
        same "$(tail -c +196609 target.raw | tr -d o | wc -c)" 0
        fails_cleanly vdtool convert -n -f raw -O raw --target-offset 128k --target-size 32k disk.raw target.raw
}

@test "-n into a full file system leaves an image that opens and reads old or new" {
        requires strace
        disk_image disk.raw
        head -c 5244416 /dev/zero | tr '\0' 'o' >old.raw
        local n
        for n in 1 2 3 5 7; do
                qemu-img convert -f raw -O qcow2 -c old.raw target.qcow2
                capture env ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -o "$BATS_TEST_TMPDIR/trace" \
                        -e trace=pwrite64,fallocate,ftruncate -e inject=pwrite64,fallocate,ftruncate:error=ENOSPC:when=$n+ \
                        "$VDTOOL" convert -n -m 1 -f raw -O qcow2 disk.raw target.qcow2
                same "$status" 1
                # leaks at worst
                capture qemu-img check target.qcow2
                [[ $status == [03] ]] || told
                vdtool convert -O raw target.qcow2 back.raw
                # each sector is the old one or the new one
                cmp -l back.raw disk.raw | awk '{ if ($2 != 157) bad = 1 } END { exit bad }'
                rm target.qcow2 back.raw
        done
}

@test "a kill at any write leaves an image that opens and reads old or new" {
        requires strace
        disk_image disk.raw 2097152
        head -c 2097152 /dev/zero | tr '\0' 'o' >old.raw
        local n format
        for format in qcow2 vhd; do
                for n in 1 2 3 4 5 6 8 10 12; do
                        truncate -s 2097152 half.raw
                        head -c 500000 old.raw | dd of=half.raw conv=notrunc status=none
                        vdtool convert -f raw -O $format half.raw target
                        capture env ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -o "$BATS_TEST_TMPDIR/trace" \
                                -e trace=pwrite64 -e inject=pwrite64:signal=SIGKILL:when=$n \
                                "$VDTOOL" convert -n -m 1 -f raw -O $format disk.raw target
                        [[ $status == 137 || $status == 0 ]] || told
                        vdtool convert -f $format -O raw target back.raw || say "$format $n"
                        # per byte: 'o' or zero before, the new disk after
                        cmp -l back.raw disk.raw | awk '{ if ($2 != 157 && $2 != 0) bad = 1 } END { exit bad }' || say "$format $n"
                        [ $format != qcow2 ] || { capture qemu-img check target; [[ $status == [03] ]] || told; }
                        rm target back.raw half.raw
                done
        done
}

@test "-n writes data, then syncs, then the table that points to it" {
        requires strace
        disk_image disk.raw 1048576
        vdtool create target.qcow2 1M
        ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -o "$BATS_TEST_TMPDIR/trace" -e trace=pwrite64,fdatasync,fsync \
                "$VDTOOL" convert -n -f raw -O qcow2 disk.raw target.qcow2
        [ "$(grep -cE 'f(data)?sync\(' "$BATS_TEST_TMPDIR/trace")" -ge 2 ]
        # nothing is written after the last sync
        tail -n 5 "$BATS_TEST_TMPDIR/trace" | grep -E 'sync|pwrite' | tail -n 1 | grep -q sync
}
