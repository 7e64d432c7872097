#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The output transaction: all of the new file appears, or nothing; the old one stays as it was.
load helpers

# Noise and holes, enough for a few dozen writes.
long_source() {
        openssl enc -aes-128-ctr -K 04 -iv 00 -in /dev/zero 2>/dev/null | head -c 48M >"$1"
        truncate -s 96M "$1"
}

@test "SIGINT, SIGTERM and SIGHUP leave nothing and end by the same signal" {
        requires strace
        long_source big.raw
        local signal
        for signal in INT TERM HUP; do
                capture injected signal=SIG$signal:when=5 convert -f raw -O qcow2 big.raw out.qcow2
                same "$status" $((128 + $(kill -l $signal))) || told
                only_files big.raw
        done
}

@test "SIGINT stops create while it fills the image" {
        requires strace
        local format
        for format in raw qcow2 vhd vhdx; do
                capture injected signal=SIGINT:when=9 create -f $format -o preallocation=full \
                        $(case $format in vhd*) echo --type fixed ;; esac) out.$format 64M
                same "$status" 130 || told
                only_files
                [ "$(wc -l <"$BATS_TEST_TMPDIR/trace")" -lt 40 ] || say "$format: went on" || return 1
        done
}

@test "SIGINT while replacing leaves the old file as it was" {
        requires strace
        long_source big.raw
        echo old >out.qcow2
        capture injected signal=SIGINT:when=5 convert --force -f raw -O qcow2 big.raw out.qcow2
        same "$status" 130
        same "$(cat out.qcow2)" old
        only_files big.raw out.qcow2
}

@test "SIGKILL leaves nothing under the final name, and the next run works" {
        requires strace
        long_source big.raw
        local when
        for when in 1 3 10; do
                capture injected signal=SIGKILL:when=$when convert -f raw -O qcow2 big.raw out.qcow2
                same "$status" 137 || told
                [ ! -e out.qcow2 ]
                [ "$(find . -name '.out.qcow2.vdtool-*' | wc -l)" -le 1 ]
        done
        truncate -s 1M big.raw
        vdtool convert -f raw -O qcow2 big.raw out.qcow2
        qemu-img check -q out.qcow2
}

@test "SIGKILL while replacing leaves the old file as it was" {
        requires strace
        long_source big.raw
        echo old >out.qcow2
        capture injected signal=SIGKILL:when=4 convert --force -f raw -O qcow2 big.raw out.qcow2
        same "$status" 137
        same "$(cat out.qcow2)" old
}

@test "SIGUSR1 prints one line of progress and the job goes on" {
        requires strace
        long_source big.raw
        capture injected signal=SIGUSR1:when=5 convert -f raw -O qcow2 big.raw out.qcow2
        same "$status" 0
        grep -q '%' <<<"$stderr" || told
        qemu-img compare -q -F raw out.qcow2 big.raw
}

@test "a device that is full from the n-th write on is a clean failure, for every format and n" {
        requires strace
        disk_image disk.raw
        local format n
        for format in raw vhd qcow2; do
                for n in 1 2 3 5; do
                        capture injected error=ENOSPC:when=$n+ convert -f raw -O $format disk.raw out
                        if [ "$status" -eq 0 ]; then
                                # all calls that failed could be done without
                                vdtool compare -q -f $format -F raw out disk.raw
                                rm out
                        else
                                same "$status $(error_lines)" "1 1" || told
                                [[ $stderr == *'No space left'* ]] || told
                        fi
                        only_files disk.raw
                done
        done
}

@test "an input or output error at the n-th call never gives a wrong image with status 0" {
        requires strace
        disk_image disk.raw
        fixture good-qcow2-zlib
        local n
        for n in 1 2 3 4 6 8; do
                capture traced -e trace=pread64,preadv -e inject=pread64,preadv:error=EIO:when=$((n + 8)) -- convert good-qcow2-zlib out.raw
                if [ "$status" -eq 0 ]; then
                        same "$(sha256 out.raw)" "$(fixture_fact good-qcow2-zlib 4)"
                        rm out.raw
                fi
                capture injected error=EIO:when=$n convert -f raw -O qcow2 disk.raw out.qcow2
                if [ "$status" -eq 0 ]; then
                        qemu-img compare -q -F raw out.qcow2 disk.raw
                        rm out.qcow2
                fi
                only_files disk.raw good-qcow2-zlib
        done
}

@test "calls that a signal interrupts are repeated" {
        requires strace
        disk_image disk.raw
        capture traced -e trace=pread64,pwrite64 -e inject=pread64,pwrite64:error=EINTR:when=20+3 -- convert -f raw -O qcow2 disk.raw out.qcow2
        same "$status" 0 || told
        qemu-img compare -q -F raw out.qcow2 disk.raw
}

@test "a failing fsync is a failure, and the new file is gone" {
        requires strace
        disk_image disk.raw
        echo old >old.qcow2
        capture traced -e trace=fsync,fdatasync -e inject=fsync,fdatasync:error=EIO:when=1 -- \
                convert --fsync -f raw -O qcow2 disk.raw out.qcow2
        same "$status" 1
        capture traced -e trace=fsync,fdatasync -e inject=fsync,fdatasync:error=EIO:when=1 -- \
                convert --force -f raw -O qcow2 disk.raw old.qcow2
        same "$status" 1
        same "$(cat old.qcow2)" old
        only_files disk.raw old.qcow2
}

@test "a file system without unnamed files is no hindrance" {
        requires strace
        disk_image disk.raw
        # every O_TMPFILE open fails, every other works: found by its number
        traced -e trace=openat -- convert -f raw -O qcow2 disk.raw first.qcow2
        local n
        n=$(grep -n O_TMPFILE "$BATS_TEST_TMPDIR/trace" | head -n 1 | cut -d: -f1)
        [ -n "$n" ]
        capture traced -e trace=openat -e inject=openat:error=EOPNOTSUPP:when="$n" -- convert -f raw -O qcow2 disk.raw out.qcow2
        same "$status" 0 || told
        grep -q 'vdtool-' "$BATS_TEST_TMPDIR/trace"
        qemu-img compare -q -F raw out.qcow2 disk.raw
        only_files disk.raw first.qcow2 out.qcow2
}

@test "somebody else's file that appears meanwhile is not replaced" {
        requires strace
        disk_image disk.raw
        stop_at $CHANGES 3 convert -f raw -O qcow2 disk.raw out.qcow2
        echo theirs >out.qcow2
        go_on
        same "$status" 1
        same "$(cat out.qcow2)" theirs
        only_files disk.raw out.qcow2
}

@test "a source that is cut short while it is read is an error" {
        requires strace
        long_source big.raw
        stop_at $CHANGES 4 convert -f raw -O qcow2 big.raw out.qcow2
        truncate -s 1M big.raw
        go_on
        same "$status $(error_lines)" '1 1'
        only_files big.raw
}

@test "a source that changes while it is read is an error" {
        requires strace
        long_source big.raw
        stop_at $CHANGES 4 convert -f raw -O qcow2 big.raw out.qcow2
        printf 'changed' | dd of=big.raw conv=notrunc status=none
        go_on
        same "$status $(error_lines)" '1 1'
        [[ $stderr == *changed* ]]
        only_files big.raw
}

# small_filesystem DIRECTORY OPTIONS: a file system of a few MiB there; false where nothing may be mounted.
small_filesystem() {
        mkdir -p "$1"
        mount -t tmpfs -o "$2" none "$1" 2>/dev/null
}

@test "a file size limit is a clean failure, for every format" {
        local format
        head -c 20M /dev/zero | tr '\0' 'z' >disk.raw
        for format in raw vhd qcow2; do
                limited() { (ulimit -f 4096; vdtool "$@"); }
                fails_with 'too large' limited convert -f raw -O $format disk.raw out.$format
                only_files disk.raw
        done
}

@test "a full file system is a clean failure, and --force keeps the old file" {
        local format left
        small_filesystem small size=4m || small_filesystem small size=4m,mode=700 || {
                # nothing may be mounted here: the tests that inject ENOSPC have to do
                injected error=ENOSPC:when=2+ create -f qcow2 x.qcow2 1M || [ ! -e x.qcow2 ]
                return
        }
        head -c 20M /dev/zero | tr '\0' 'z' >disk.raw
        echo old >small/old.qcow2
        for format in raw vhd qcow2; do
                capture vdtool convert -f raw -O $format disk.raw small/out.$format
                left="$status $(error_lines) $(ls -A small) $(grep -c 'No space' <<<"$stderr")"
                [ "$left" = '1 1 old.qcow2 1' ] || break
        done
        capture vdtool convert --force -f raw -O qcow2 disk.raw small/old.qcow2
        left+=" $status $(cat small/old.qcow2) $(ls -A small)"
        umount small
        same "$left" '1 1 old.qcow2 1 1 old old.qcow2'
}

@test "a read-only file system is a clean failure" {
        requires strace
        disk_image disk.raw 1048576
        traced -e trace=openat -- convert -f raw -O qcow2 disk.raw out.qcow2
        rm out.qcow2
        local n
        n=$(grep -n O_TMPFILE "$BATS_TEST_TMPDIR/trace" | head -n 1 | cut -d: -f1)
        capture traced -e trace=openat -e inject=openat:error=EROFS:when="$n"+ -- convert -f raw -O qcow2 disk.raw out.qcow2
        same "$status $(error_lines)" '1 1'
        [[ $stderr == *'Read-only'* ]] || told
        only_files disk.raw
}

@test "output that is the input is refused: by name, symbolic link, hard link and /proc/self/fd" {
        disk_image disk.raw 1048576
        ln -s disk.raw soft.raw
        ln disk.raw hard.raw
        local before
        before=$(sha256 disk.raw)
        fails_cleanly vdtool convert --force -f raw -O qcow2 disk.raw disk.raw
        fails_cleanly vdtool convert --force -f raw -O qcow2 disk.raw soft.raw
        fails_cleanly vdtool convert --force -f raw -O qcow2 disk.raw hard.raw
        fails_cleanly vdtool convert --force -f raw -O qcow2 soft.raw ./disk.raw
        fails_cleanly bash -c '"$0" convert --force -f raw -O qcow2 /proc/self/fd/3 disk.raw 3<disk.raw' "$VDTOOL"
        same "$(sha256 disk.raw)" "$before"
        [ -L soft.raw ]
        only_files disk.raw soft.raw hard.raw
}

@test "output that is a parent or data file of the input is refused" {
        fixture good-raw-chain-base chain-base.raw
        fixture good-qcow2-chain-middle chain-middle.qcow2
        fixture good-qcow2-chain-top chain-top.qcow2
        sha256sum chain-* >"$BATS_TEST_TMPDIR/sums"
        fails_cleanly vdtool convert --force -O raw chain-top.qcow2 chain-base.raw
        fails_cleanly vdtool convert --force -O qcow2 chain-top.qcow2 chain-middle.qcow2
        fixture good-raw-data-file
        fixture good-qcow2-data-file
        fails_cleanly vdtool convert --force -O raw good-qcow2-data-file good-raw-data-file
        fixture good-vhd-parent
        fixture good-vhd-child
        fails_cleanly vdtool convert --force -O raw good-vhd-child good-vhd-parent
        sha256sum -c --quiet "$BATS_TEST_TMPDIR/sums"
        same "$(content good-vhd-child)" "$(fixture_fact good-vhd-child 4)"
}

@test "the backing file of the output cannot be the output" {
        disk_image base.raw 1048576
        fails_cleanly vdtool convert --force -f raw -O qcow2 -B base.raw -F raw base.raw base.raw
        cp base.raw disk.raw
        fails_cleanly vdtool convert --force -f raw -O qcow2 -B base.raw -F raw disk.raw base.raw
        cmp base.raw disk.raw
}

@test "a symbolic link as output: the file behind it is written, the link stays" {
        disk_image disk.raw 1048576
        mkdir elsewhere
        ln -s elsewhere/real.qcow2 link.qcow2
        vdtool convert -f raw -O qcow2 disk.raw link.qcow2
        [ -L link.qcow2 ]
        qemu-img compare -q -F raw elsewhere/real.qcow2 disk.raw
        only_files disk.raw elsewhere elsewhere/real.qcow2 link.qcow2
        vdtool convert --force -f raw -O vhd disk.raw link.qcow2
        [ -L link.qcow2 ]
        same "$(vdtool info --field format elsewhere/real.qcow2)" vpc
}

@test "directories, devices, FIFOs and sockets are no outputs, even with --force" {
        disk_image disk.raw 1048576
        mkdir directory
        mkfifo fifo
        fails_cleanly vdtool convert --force -f raw -O qcow2 disk.raw directory
        fails_cleanly vdtool convert --force -f raw -O qcow2 disk.raw /dev/full
        # convert would wait for a reader, and stream to it
        fails_cleanly vdtool create --force -f qcow2 fifo 1M
        fails_cleanly vdtool create --force -f qcow2 /dev/full 1M
        [ -c /dev/full ]
        [ -p fifo ]
        [ -d directory ]
}

@test "an error while converting removes the output and its parts" {
        fixture bad-qcow2-packed-garbage
        local format
        for format in raw vhd qcow2; do
                # units that qcow2 can take as they are would not be unpacked: of another codec they are
                fails_cleanly vdtool convert -O $format $([ $format != qcow2 ] || echo -c -o compression_type=zstd) \
                        bad-qcow2-packed-garbage out.$format
        done
        fails_cleanly vdtool convert -O qcow2 -o data_file=out.data bad-qcow2-packed-garbage out.qcow2
        only_files bad-qcow2-packed-garbage
}

@test "an error while converting with --force keeps the old file" {
        fixture bad-qcow2-packed-garbage
        echo old >out.qcow2
        fails_cleanly vdtool convert --force -O raw bad-qcow2-packed-garbage out.qcow2
        same "$(cat out.qcow2)" old
        only_files bad-qcow2-packed-garbage out.qcow2
}

@test "the new file appears by linking or renaming, never by writing under its name" {
        requires strace
        disk_image disk.raw 1048576
        echo old >old.qcow2
        traced -e trace=openat,open,creat,linkat,renameat,renameat2,rename -- convert -f raw -O qcow2 disk.raw new.qcow2
        refute grep -E 'open.*"(.*/)?new\.qcow2".*O_(WRONLY|RDWR|CREAT|TRUNC)' "$BATS_TEST_TMPDIR/trace"
        grep -Eq '(link|rename).*new\.qcow2' "$BATS_TEST_TMPDIR/trace"
        traced -e trace=openat,open,creat,linkat,renameat,renameat2,rename,fsync,fdatasync -- convert --force -f raw -O qcow2 disk.raw old.qcow2
        refute grep -E 'open.*"(.*/)?old\.qcow2".*O_(WRONLY|RDWR|TRUNC)' "$BATS_TEST_TMPDIR/trace"
        grep -Eq 'rename.*old\.qcow2' "$BATS_TEST_TMPDIR/trace"
        # what replaces a file is on disk before it has the name
        awk '/fsync|fdatasync/ { synced = 1 } /rename.*old\.qcow2/ { exit !synced }' "$BATS_TEST_TMPDIR/trace"
}

@test "--fsync syncs file and directory" {
        requires strace
        disk_image disk.raw 1048576
        traced -e trace=fsync,fdatasync -- convert --fsync -f raw -O qcow2 disk.raw new.qcow2
        [ "$(grep -cE 'f(data)?sync\(' "$BATS_TEST_TMPDIR/trace")" -ge 2 ]
        traced -e trace=fsync,fdatasync -- convert -f raw -O qcow2 disk.raw other.qcow2
        refute grep -E 'f(data)?sync\(' "$BATS_TEST_TMPDIR/trace"
}

@test "an output in another directory leaves nothing in this one" {
        disk_image disk.raw 1048576
        mkdir out
        vdtool convert -f raw -O qcow2 disk.raw out/disk.qcow2
        only_files disk.raw out out/disk.qcow2
}

@test "a directory that is renamed meanwhile gets the file nevertheless" {
        requires strace
        long_source big.raw
        mkdir one
        stop_at $CHANGES 4 convert -f raw -O qcow2 big.raw one/out.qcow2
        mv one two
        go_on
        same "$status" 0
        only_files big.raw two two/out.qcow2
        qemu-img compare -q -F raw two/out.qcow2 big.raw
}

@test "threads that cannot be made are done without, with the same bytes" {
        requires strace
        export SOURCE_DATE_EPOCH=1700000000
        disk_image disk.raw
        vdtool convert -c -m 4 -f raw -O qcow2 disk.raw many.qcow2
        ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -o "$BATS_TEST_TMPDIR/trace" -e trace=clone,clone3 \
                -e inject=clone,clone3:error=EAGAIN "$VDTOOL" convert -c -m 4 -f raw -O qcow2 disk.raw none.qcow2
        grep -q INJECTED "$BATS_TEST_TMPDIR/trace"
        cmp many.qcow2 none.qcow2
}

@test "an empty environment changes nothing" {
        local program=$VDTOOL
        disk_image disk.raw
        SOURCE_DATE_EPOCH=1700000000 vdtool convert -f raw -O qcow2 disk.raw one.qcow2
        env -i SOURCE_DATE_EPOCH=1700000000 ${ASAN_OPTIONS:+ASAN_OPTIONS=$ASAN_OPTIONS} "$program" convert -f raw -O qcow2 disk.raw two.qcow2
        cmp one.qcow2 two.qcow2
        env -i SOURCE_DATE_EPOCH=1700000000 HOME=/nonexistent TMPDIR=/nonexistent LC_ALL=nonsense "$program" convert -f raw -O qcow2 disk.raw three.qcow2
        cmp one.qcow2 three.qcow2
}

@test "SOURCE_DATE_EPOCH that is no number is an error" {
        truncate -s 1M disk.raw
        export SOURCE_DATE_EPOCH=yesterday
        fails_with SOURCE_DATE_EPOCH vdtool convert -f raw -O vhd disk.raw disk.vhd
        only_files disk.raw
}

@test "a file system without locks: reading goes on, writing in place is refused" {
        requires strace
        fixture good-qcow2-v3 disk.qcow2
        disk_image new.raw 3147264
        local before n
        before=$(sha256 disk.qcow2)
        # the calls of fcntl that lock are found by their numbers; -y shows the file
        lock_of() { grep -n "$1.*F_OFD_SETLK" "$BATS_TEST_TMPDIR/trace" | head -n 1 | cut -d: -f1; }
        traced -y -e trace=fcntl -- convert -O raw disk.qcow2 out.raw
        n=$(lock_of disk.qcow2)
        [ -n "$n" ]
        capture traced -e trace=fcntl -e inject=fcntl:error=ENOLCK:when="$n" -- convert -O raw disk.qcow2 again.raw
        same "$status" 0 || told
        cmp out.raw again.raw
        cp disk.qcow2 other.qcow2
        traced -y -e trace=fcntl -- convert -n -f raw -O qcow2 new.raw other.qcow2
        n=$(lock_of other.qcow2)
        [ -n "$n" ]
        capture traced -e trace=fcntl -e inject=fcntl:error=ENOLCK:when="$n" -- convert -n -f raw -O qcow2 new.raw disk.qcow2
        same "$status $(error_lines)" '1 1' || told
        same "$(sha256 disk.qcow2)" "$before"
}

@test "--also writes all targets in one pass, and no two under one name" {
        disk_image disk.raw 1048576
        vdtool convert -f raw disk.raw a.qcow2 --also b.vhd --also c.image,fmt=raw
        qemu-img compare -q -f qcow2 -F raw a.qcow2 disk.raw
        qemu-img compare -q -f vpc -F raw b.vhd disk.raw
        cmp c.image disk.raw
        fails_with 'two targets' vdtool convert --force -f raw disk.raw d.qcow2 --also ./d.qcow2,fmt=raw
        echo old >e.v01
        fails_with 'two targets' vdtool convert --force -S 0 -f raw -o subformat=split,split_size=512k disk.raw e.vhd \
                --also e.v01,fmt=raw
        same "$(cat e.v01)" old
        only_files disk.raw a.qcow2 b.vhd c.image e.v01
}
