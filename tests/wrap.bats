# SPDX-License-Identifier: MIT
# wrap.bats: images that are compressed as a whole: .gz, .bz2, .xz, .zst.

load helpers

# Wraps disk.vhd in every way that tools of others offer.
wrap_all() {
        gzip -k disk.vhd
        bzip2 -k disk.vhd
        xz -k disk.vhd
        xz -c --block-size=1M disk.vhd >blocks.vhd.xz
        { head -c 2M disk.vhd | xz && tail -c +2097153 disk.vhd | xz --check=sha256; } >streams.vhd.xz
        { head -c 2M disk.vhd | gzip && tail -c +2097153 disk.vhd | gzip; } >members.vhd.gz
        { head -c 2M disk.vhd | bzip2 && tail -c +2097153 disk.vhd | bzip2; } >streams.vhd.bz2
        zstd -q -k disk.vhd
        { head -c 2M disk.vhd | zstd -q && tail -c +2097153 disk.vhd | zstd -q --no-check; } >frames.vhd.zst
}

number_le() { printf '%b' "$(printf '%08x' "$1" | sed 's/\(..\)\(..\)\(..\)\(..\)/\\x\4\\x\3\\x\2\\x\1/')"; }

# The seekable format of zstd: frames of 1 MiB, and a table of their lengths: seekable FILE [WRONG-LENGTH]
seekable() {
        local at=0 size frames=0 table=
        size=$(size_of "$1")
        while [ "$at" -lt "$size" ]; do
                tail -c +$((at + 1)) "$1" | head -c 1M >part
                zstd -q -f --no-check part -o part.zst
                cat part.zst
                table+="$(size_of part.zst) ${2:-$(size_of part)} "
                frames=$((frames + 1)) at=$((at + 1048576))
        done
        number_le $((0x184D2A5E))
        number_le $((frames * 8 + 9))
        for n in $table; do number_le "$n"; done
        number_le "$frames"
        printf '\0'
        number_le $((0x8F92EAB1))
        rm -f part part.zst
}

@test "wrap: what is inside is found by content, whatever tool wrapped it, and whatever the name" {
        disk_image disk.raw
        vdtool convert disk.raw disk.vhd
        wrap_all
        for file in *.gz *.bz2 *.xz *.zst; do
                vdtool compare -q "$file" disk.raw || say "$file" || return 1
                mv "$file" image
                vdtool compare -q image disk.raw || say "$file, renamed" || return 1
        done
}

@test "wrap: info says so, and the other commands see through" {
        disk_image disk.raw
        vdtool convert disk.raw disk.vhd
        wrap_all
        for file in *.gz *.bz2 *.xz *.zst; do
                same "$(vdtool info --output json "$file" 2>/dev/null | jq -r '.format, .wrapper')" \
                        "vpc
$(case $file in *.gz) echo gzip ;; *.bz2) echo bzip2 ;; *.xz) echo xz ;; *) echo zstd ;; esac)"
                same "$(vdtool info --field virtual-size "$file" 2>/dev/null)" 5244416
                vdtool check -q "$file"
                same "$(vdtool map --output json "$file" 2>/dev/null | jq '.[-1] | .start + .length')" 5244416
                same "$(vdtool measure -O qcow2 -q "$file")" "$(vdtool measure -O qcow2 disk.vhd)"
                rm -f out.qcow2
                vdtool convert -q "$file" out.qcow2
                vdtool compare -q out.qcow2 disk.raw
        done
}

@test "wrap: blocks with an index are read where they are, the rest is unpacked into a temporary file" {
        disk_image disk.raw
        vdtool convert disk.raw disk.vhd
        wrap_all
        seekable disk.vhd >seekable.vhd.zst
        zstd -q -t seekable.vhd.zst
        for file in disk.vhd.gz disk.vhd.bz2 disk.vhd.xz disk.vhd.zst frames.vhd.zst; do
                vdtool info "$file" 2>&1 | grep -q 'unpacked into a temporary file' || say "$file" || return 1
        done
        export TMPDIR=$PWD/none
        for file in blocks.vhd.xz streams.vhd.xz seekable.vhd.zst; do
                vdtool compare -q "$file" disk.raw || say "$file" || return 1
                vdtool convert -m 4 -O raw "$file" out.raw
                cmp out.raw disk.raw
                rm out.raw
        done
        fails_with "a temporary file in $PWD/none" vdtool info disk.vhd.gz
}

@test "wrap: a stream through standard input is seen through too" {
        disk_image disk.raw
        xz --block-size=1M -c disk.raw | vdtool convert -q -O qcow2 - out.qcow2
        vdtool compare -q out.qcow2 disk.raw
        gzip -c disk.raw | vdtool convert -q -O vdi - - | cat >out.vdi
        vdtool compare -q out.vdi disk.raw
}

@test "wrap: what -f names is wrapped only if the file's name says so" {
        disk_image disk.raw
        gzip -c disk.raw >disk.raw.gz
        cp disk.raw.gz other.raw
        vdtool convert -q -f raw -O raw disk.raw.gz out
        cmp out disk.raw
        vdtool convert -q -f raw -O raw --force other.raw out
        cmp out other.raw
        vdtool convert -q -O raw --force other.raw out
        cmp out disk.raw
        # a fixed VHD whose disk begins like this is a VHD
        truncate -s 1M other.raw
        vdtool convert -f raw --type fixed other.raw fixed.vhd
        vdtool compare -q -f vhd -F raw fixed.vhd other.raw
        same "$(vdtool info --output json fixed.vhd | jq .wrapper)" null
}

@test "wrap: an image of which a damaged name or content is known stays an error inside" {
        disk_image disk.raw
        vdtool convert disk.raw disk.vhd
        head -c 300000 disk.vhd | tail -c 200000 | xz >cut.vhd.xz
        fails_cleanly vdtool info -q cut.vhd.xz
}

@test "wrap: no writing into one, and no parent" {
        disk_image disk.raw
        gzip -k disk.raw
        before=$(sha256 disk.raw.gz)
        fails_with "compressed as a whole" vdtool convert -n -O raw disk.raw disk.raw.gz
        fails_with "no parent can be" vdtool create -q -b disk.raw.gz child.qcow2
        same "$(sha256 disk.raw.gz)" "$before"
        only_files disk.raw disk.raw.gz
}

@test "wrap: the output is not an input" {
        disk_image disk.raw
        gzip -c disk.raw >disk.gz
        xz --block-size=1M -c disk.raw >disk.xz
        before=$(sha256 disk.gz)
        fails_with "also an input" vdtool convert --force -O raw disk.gz disk.gz
        fails_with "also an input" vdtool convert --force -O raw disk.xz disk.xz
        same "$(sha256 disk.gz)" "$before"
}

@test "wrap: cut short anywhere is an error" {
        disk_image disk.raw 1800000
        gzip -k disk.raw
        bzip2 -k disk.raw
        xz -k disk.raw
        xz -c --block-size=256k disk.raw >blocks.xz
        zstd -q -k disk.raw
        seekable disk.raw >seekable.zst
        for file in *.gz *.bz2 *.xz *.zst; do
                size=$(size_of "$file")
                for keep in 20 1000 $((size / 2)) $((size - 30)) $((size - 9)) $((size - 4)) $((size - 1)); do
                        head -c "$keep" "$file" >./cut
                        rm -f out
                        # without its table the frames of the seekable format are just frames
                        if [ "$file" = seekable.zst ] && [ "$keep" -gt $((size / 2)) ]; then
                                survives "$VDTOOL" convert -q -O raw cut out
                                [ "$status" -ne 0 ] || cmp out disk.raw || return 1
                        else
                                fails_cleanly vdtool convert -q -O raw cut out || say "$file $keep" || return 1
                                [ ! -e out ]
                        fi
                done
        done
}

@test "wrap: changed bytes are noticed" {
        disk_image disk.raw 1800000
        gzip -k disk.raw
        bzip2 -k disk.raw
        xz -k disk.raw
        xz -c --block-size=256k disk.raw >blocks.xz
        zstd -q -k --check disk.raw
        vdtool convert -f raw -O raw disk.raw ours.raw.zst
        vdtool convert -f raw -O raw disk.raw ours.raw.xz
        vdtool convert -f raw -O raw disk.raw ours.raw.gz
        for file in *.gz *.bz2 *.xz *.zst; do
                size=$(size_of "$file")
                for at in 7 13 40 $((size / 3)) $((size / 2)) $((size - 40)) $((size - 14)) $((size - 8)) $((size - 2)); do
                        cp "$file" changed
                        byte=$(peek_number changed $at 1)
                        poke changed "$at" "$(printf '%02x' $((byte ^ 0x41)))"
                        rm -f out
                        survives "$VDTOOL" convert -q -O raw changed out || say "$file $at" || return 1
                        # a header may hold what does not matter: a time, a system
                        [ "$status" -ne 0 ] || cmp out disk.raw || cmp out changed || say "$file $at" || return 1
                done
        done
}

@test "wrap: something behind the end is an error" {
        disk_image disk.raw
        for tool in gzip bzip2 xz zstd; do
                $tool -c disk.raw >wrapped
                echo more >>wrapped
                fails_cleanly vdtool convert -q -O raw wrapped out
        done
}

@test "wrap: indexes that lie are noticed" {
        disk_image disk.raw
        seekable disk.raw 1000000 >short
        fails_with "damaged" vdtool convert -q -O raw short out
        seekable disk.raw 1048577 >long
        fails_with "damaged" vdtool convert -q -O raw long out
        seekable disk.raw >good
        size=$(size_of good)
        for at in $((size - 9)) $((size - 17)); do              # number of frames, a packed length
                cp good bad
                poke bad "$at" ff ff ff 7f
                fails_cleanly vdtool convert -q -O raw bad out
        done
        # a length that no block may have: read as a stream, which the table has no part in
        cp good bad
        poke bad $((size - 13)) ff ff ff 7f
        vdtool convert -q -O raw bad out
        cmp out disk.raw
        rm out
        only_files disk.raw short long good bad
}

@test "wrap: a bomb costs nothing but time" {
        head -c 3000M /dev/zero | gzip -1 >bomb.gz
        vdtool info --field virtual-size bomb.gz 2>/dev/null >size
        same "$(cat size)" 3145728000
        head -c 300M /dev/zero | bzip2 >bomb.bz2
        same "$(vdtool info --field virtual-size bomb.bz2 2>/dev/null)" 314572800
}

@test "wrap: raw targets are read by the tools of others" {
        disk_image disk.raw
        vdtool convert disk.raw disk.qcow2
        for extension in gz xz zst; do
                vdtool convert --verify disk.qcow2 "out.raw.$extension"
                case $extension in
                gz) gzip -t out.raw.gz && gzip -dc out.raw.gz >back ;;
                xz) xz -t out.raw.xz && xz -dc out.raw.xz >back ;;
                zst) zstd -q -t out.raw.zst && zstd -q -dc out.raw.zst >back ;;
                esac
                cmp back disk.raw
                7zz t "out.raw.$extension" >/dev/null
                7zz e -so "out.raw.$extension" 2>/dev/null | cmp - disk.raw
                vdtool compare -q "out.raw.$extension" disk.raw
        done
        rm -f back
        only_files disk.raw disk.qcow2 out.raw.gz out.raw.xz out.raw.zst
}

@test "wrap: xz and zst targets have blocks of their own" {
        disk_image disk.raw 9000000
        vdtool convert -f raw -O raw disk.raw out.img.xz
        [ "$(xz --robot -l out.img.xz | awk '$1 == "file" { print $3 }')" -ge 3 ]
        vdtool convert disk.raw out.raw.zst
        same "$(tail -c 4 out.raw.zst | od -An -tx1 | tr -d ' \n')" b1ea928f
        export TMPDIR=$PWD/none
        vdtool compare -q out.img.xz disk.raw
        vdtool compare -q out.raw.zst disk.raw
}

@test "wrap: targets do not depend on the number of threads" {
        disk_image disk.raw 9000000
        for extension in gz xz zst; do
                for n in 1 2 8; do vdtool convert -m $n disk.raw $n.raw.$extension; done
                cmp 1.raw.$extension 2.raw.$extension
                cmp 1.raw.$extension 8.raw.$extension
        done
}

@test "wrap: compression_level, size, and what does not go together" {
        disk_image disk.raw
        for extension in gz xz zst; do
                vdtool convert -o compression_level=1 disk.raw fast.raw.$extension
                vdtool convert -o compression_level=9 disk.raw small.raw.$extension
                [ "$(size_of small.raw.$extension)" -lt "$(size_of fast.raw.$extension)" ] || say $extension
        done
        vdtool convert -o size=6M disk.raw large.raw.xz
        same "$(vdtool info --field virtual-size large.raw.xz 2>/dev/null)" 6291456
        vdtool compare -q large.raw.xz disk.raw
        : >empty.raw
        for extension in gz xz zst; do
                vdtool convert -f raw empty.raw empty.raw.$extension
                vdtool compare -q -f raw -F raw empty.raw.$extension empty.raw
        done
        fails_with "allowed are 1 to 9" vdtool convert -o compression_level=10 disk.raw out.raw.gz
        fails_with "only raw disks" vdtool convert disk.raw out.qcow2.gz
        fails_with "only raw disks" vdtool convert -O qcow2 disk.raw out.raw.gz
        fails_with "can be read but not written" vdtool convert disk.raw out.raw.bz2
        fails_with "extension names no format" vdtool convert disk.raw out.gz
        fails_with "exclude each other" vdtool convert -c disk.raw out.raw.gz
        fails_with "exclude each other" vdtool convert --also out.raw.gz disk.raw out.qcow2
        fails_with "only convert" vdtool create out.raw.gz 1M
        [ ! -e out.raw.gz ]
}

@test "wrap: targets appear whole or not at all" {
        disk_image disk.raw
        echo old >out.raw.xz
        fails_with "exist" vdtool convert disk.raw out.raw.xz
        for extension in gz xz zst; do
                fails_with "File too large" bash -c "ulimit -f 100; '$VDTOOL' convert -f raw disk.raw new.raw.$extension"
        done
        only_files disk.raw out.raw.xz
        vdtool convert --force disk.raw out.raw.xz
        vdtool compare -q out.raw.xz disk.raw
}
