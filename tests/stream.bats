# SPDX-License-Identifier: MIT
# stream.bats: images written to a pipe, and read from one.

load helpers

# Kinds that are laid out beforehand, with the name that foreign readers know them by ("-": no foreign reader).
streamed() {
        printf '%s\n' \
                'raw raw' \
                'qcow2 qcow2' \
                'qcow2 qcow2 -o cluster_size=512' \
                'qcow2 qcow2 -o extended_l2=on' \
                'qcow2 qcow2 -o compat=0.10,refcount_bits=16' \
                'vpc vhd -o force_size=on' \
                'vpc vhd --type fixed -o force_size=on' \
                'vhdx vhdx' \
                'vhdx vhdx --type fixed' \
                'vdi vdi' \
                'vdi vdi --type fixed' \
                'vmdk vmdk --type monolithicSparse' \
                'qed qed' \
                'qcow qcow' \
                'parallels parallels'
}

@test "stream: every format passes a foreign reader after a pipe" {
        requires qemu-img
        disk_image disk.raw 5242880
        while read -r foreign format rest; do
                # shellcheck disable=SC2086
                vdtool convert -O "$format" $rest disk.raw - | cat >out
                qemu-img compare -q -f "$foreign" -F raw out disk.raw || say "$format $rest" || return 1
                case $foreign in
                qcow2 | vhdx | vdi | vmdk | qed | parallels) qemu-img check -q -f "$foreign" out ;;
                esac
        done < <(streamed)
}

@test "stream: what has to be packed first goes through a temporary file, and says so" {
        requires qemu-img
        disk_image disk.raw 5242880
        vdtool convert -c -O qcow2 disk.raw - 2>note | cat >out
        grep -q 'note: stdout: the image is made in a temporary file' note
        vdtool convert -q -c -O qcow2 disk.raw - | cat >out
        qemu-img compare -q out disk.raw
        vdtool convert -q -c disk.raw file.qcow2
        cmp out file.qcow2
        vdtool convert -q -O vmdk --type streamOptimized disk.raw - | cat >out
        qemu-img compare -q out disk.raw
        7zz t out >/dev/null
}

@test "stream: packed units stay as they are" {
        disk_image disk.raw
        for type in zlib zstd; do
                rm -f packed.qcow2 file.qcow2
                vdtool convert -c -o compression_type=$type disk.raw packed.qcow2
                vdtool convert -O qcow2 -o compression_type=$type packed.qcow2 file.qcow2
                vdtool convert -v -O qcow2 -o compression_type=$type packed.qcow2 - 2>stats | cat >out
                cmp out file.qcow2
                grep -q 'copied as they are: *[1-9]' stats
        done
        # and what must be packed anew for the target is
        vdtool convert -O qcow2 packed.qcow2 - | cat >out
        vdtool compare out disk.raw
}

@test "stream: does not depend on the number of threads, and with SOURCE_DATE_EPOCH on nothing else" {
        disk_image disk.raw
        vdtool convert -c disk.raw packed.qcow2
        export SOURCE_DATE_EPOCH=1700000000
        for source in disk.raw packed.qcow2; do
                for format in qcow2 vhd vhdx vdi; do
                        vdtool convert -m 1 -O $format $source - | cat >one
                        vdtool convert -m 2 -O $format $source - | cat >two
                        vdtool convert -m 8 -O $format $source - | cat >eight
                        cmp one two
                        cmp one eight
                done
        done
        vdtool convert -O vhd disk.raw - | cat >one
        poke disk.raw 4096 00
        vdtool convert -O vhd disk.raw - | cat >two
        [ "$(peek one 68 16)" != "$(peek two 68 16)" ] || say "another content has the same id"
}

@test "stream: -S 0 writes zeros out" {
        truncate -s 4M disk.raw
        same "$(vdtool convert -S 0 -O qcow2 disk.raw - | wc -c)" "$(vdtool measure -O qcow2 --size 4M --output json |
                jq '.["fully-allocated"]')"
}

@test "stream: a parent and what it has are left out" {
        requires qemu-img
        disk_image base.raw 4194304
        vdtool create -q -b base.raw -F raw top.qcow2
        qemu-io -c 'write -P 7 1M 70000' top.qcow2 >/dev/null
        vdtool convert -O qcow2 -B base.raw -F raw top.qcow2 - | cat >out.qcow2
        [ "$(size_of out.qcow2)" -lt 600000 ]
        qemu-img compare -q out.qcow2 top.qcow2
        qemu-img check -q out.qcow2
}

@test "stream: several sources, a snapshot, and a window of one" {
        requires qemu-img
        disk_image a.raw 3145728
        disk_image b.raw 4194304
        vdtool convert -O qcow2 a.raw b.raw - | cat >out
        cat a.raw b.raw >both
        qemu-img compare -q -f qcow2 -F raw out both
        vdtool convert --offset 4096 --size 8192 -f raw -O raw a.raw - | cmp - <(tail -c +4097 a.raw | head -c 8192)
}

@test "stream: a named pipe is a target too" {
        disk_image disk.raw
        mkfifo pipe
        cat pipe >out &
        vdtool convert -O vhd disk.raw pipe
        wait
        vdtool compare -F raw out disk.raw
        [ -p pipe ]
}

@test "stream: a file opened by the shell is written in place, keeps its holes, and may be appended to" {
        truncate -s 8M disk.raw
        seq 20000 | head -c 100000 >first
        dd if=first of=disk.raw conv=notrunc status=none
        echo keep >out
        ln out same
        vdtool convert -O raw disk.raw - >out
        cmp out disk.raw
        cmp same disk.raw
        [ "$(blocks_of out)" -lt 1000 ]
        vdtool convert -O raw first - >>out
        same "$(size_of out)" $((8 * 1024 * 1024 + 100000))
        cmp <(tail -c 100000 out) first
}

@test "stream: the reader may go away, without a word" {
        disk_image disk.raw
        vdtool convert -S 0 -O raw disk.raw - 2>err | head -c 1000 >out || true
        same "$(cat err)" ""
        capture bash -c "'$VDTOOL' convert -S 0 -O raw disk.raw - | head -c 1000 >out; exit \${PIPESTATUS[0]}"
        same "$status" 1
}

@test "stream: a full disk is an error" {
        disk_image disk.raw
        fails_with "No space left" bash -c "'$VDTOOL' convert -O raw disk.raw - >/dev/full"
}

@test "stream: what no stream can be is refused" {
        disk_image disk.raw
        fails_with "several files" vdtool convert -O vmdk --type twoGbMaxExtentSparse disk.raw -
        fails_with "preallocation" vdtool convert -O raw -o preallocation=falloc disk.raw -
        fails_with "extension names no format" vdtool convert disk.raw -
        fails_with "exclude each other" vdtool convert -n -O raw disk.raw -
        fails_with "also an input" bash -c "'$VDTOOL' convert -O raw disk.raw - >>disk.raw"
        only_files disk.raw
}

@test "stream: a source that is damaged ends it with an error" {
        disk_image disk.raw
        vdtool convert -c disk.raw disk.qcow2
        truncate -s 300000 disk.qcow2
        fails_cleanly bash -c "'$VDTOOL' convert -O raw disk.qcow2 - >out"
        fails_cleanly bash -c "'$VDTOOL' convert -O qcow2 disk.qcow2 - >out"
}

@test "stream: raw from a pipe goes straight into a raw target, with its holes" {
        disk_image disk.raw
        export TMPDIR=$PWD/none
        vdtool convert -f raw - out.raw < <(cat disk.raw)
        cmp out.raw disk.raw
        [ "$(blocks_of out.raw)" -le "$(blocks_of disk.raw)" ]
        head -c 4096 /dev/zero | vdtool convert -q -m 1 -f raw -O raw - zeros
        same "$(size_of zeros)" 4096
        printf x | vdtool convert -f raw -O raw - small
        same "$(cat small)" x
}

@test "stream: every other source is kept in a temporary file first, and says so" {
        disk_image disk.raw
        while read -r _ format rest; do
                rm -f image out.raw
                # shellcheck disable=SC2086
                vdtool convert -q -O "$format" $rest disk.raw image
                # shellcheck disable=SC2002
                cat image | vdtool convert -O raw - out.raw 2>note
                cmp -n "$(size_of disk.raw)" out.raw disk.raw || say "$format $rest" || return 1
                grep -q 'note: -: is read into a temporary file' note
        done < <(streamed)
}

@test "stream: from a pipe into a pipe" {
        requires qemu-img
        disk_image disk.raw 5242880
        vdtool convert -O vhd disk.raw - | vdtool convert -q -O vmdk - - | vdtool convert -q -O qcow2 - - | cat >out
        qemu-img compare -q out disk.raw
}

@test "stream: a file opened by the shell is read where it is" {
        disk_image disk.raw
        vdtool convert disk.raw disk.vhd
        export TMPDIR=$PWD/none
        vdtool convert -O raw - out.raw <disk.vhd
        cmp out.raw disk.raw
        fails_with "also an input" vdtool convert --force -f raw - disk.raw <disk.raw
        fails_with "also an input" vdtool convert --force -O qcow2 - disk.vhd <disk.vhd
        cmp out.raw disk.raw
}

@test "stream: other commands read pipes too" {
        disk_image disk.raw
        vdtool convert disk.raw disk.qcow2
        # shellcheck disable=SC2002
        same "$(cat disk.qcow2 | vdtool info --field virtual-size - 2>/dev/null)" 5244416
        vdtool check -q - < <(cat disk.qcow2)
        vdtool compare -q <(cat disk.qcow2) disk.raw
        same "$(vdtool map --output json - 2>/dev/null < <(cat disk.qcow2) | jq '.[-1] | .start + .length')" 5244416
        same "$(vdtool measure -q -O raw - < <(cat disk.qcow2))" "$(vdtool measure -O raw disk.qcow2)"
}

@test "stream: a named pipe is a source too" {
        disk_image disk.raw
        mkfifo pipe
        cat disk.raw >pipe &
        vdtool convert -q -f raw -O vdi pipe out.vdi
        wait
        vdtool compare out.vdi disk.raw
}

@test "stream: a source that never sends a byte is an error, not an empty disk" {
        fails_with "nothing came" bash -c "true | '$VDTOOL' convert -f raw -O raw - out"
        fails_with "nothing came" bash -c "true | '$VDTOOL' convert -q -O qcow2 - out"
        fails_with "character device" bash -c "'$VDTOOL' convert -f raw -O raw - out </dev/null"
        only_files
}

@test "stream: a pipe cannot be read twice, or written in place" {
        disk_image disk.raw
        capture bash -c "cat disk.raw | '$VDTOOL' convert -q -O raw - - out"
        [ "$status" -ne 0 ]
        fails_with "only once" bash -c "cat disk.raw | '$VDTOOL' convert -q -f raw -O raw - - out"
        only_files disk.raw
}

@test "stream: no room for what comes leaves nothing behind" {
        local noise='ulimit -f 1000; head -c 4M /dev/urandom'
        fails_with "File too large" bash -c "$noise | '$VDTOOL' convert -f raw -O raw - out"
        fails_with "File too large" bash -c "$noise | '$VDTOOL' convert -q -O raw - out"
        only_files
}
