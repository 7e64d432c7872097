#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Reading and writing VHD
load helpers
# shellcheck source=tests/images/vhd.bash
source "$BATS_TEST_DIRNAME/images/vhd.bash"

@test "dynamic and fixed VHDs hold the disk, for qemu-img, 7-Zip and vhdiinfo" {
        local type
        disk_image disk.raw
        for type in dynamic fixed; do
                vdtool convert -f raw --type $type disk.raw $type.vhd
                judge vhd $type.vhd disk.raw
                same "$(vdtool info --field virtual-size $type.vhd)" "$(size_of disk.raw)"
                vhdiinfo $type.vhd | grep -qi $type
        done
}

@test "both footers of a dynamic VHD are alike and have right checksums" {
        disk_image disk.raw
        vdtool convert -f raw disk.raw disk.vhd
        same "$(peek disk.vhd 0 512)" "$(peek disk.vhd $(($(size_of disk.vhd) - 512)) 512)"
        cp disk.vhd sealed.vhd
        vhd_reseal sealed.vhd
        cmp disk.vhd sealed.vhd
}

@test "a fixed VHD is the raw disk and one sector" {
        disk_image disk.raw
        vdtool convert -f raw -O vhd --type fixed disk.raw disk.vhd
        same "$(size_of disk.vhd)" $(($(size_of disk.raw) + 512))
        cmp -n "$(size_of disk.raw)" disk.raw disk.vhd
        vhd_reseal_at disk.vhd "$(size_of disk.raw)" 512 64
        qemu-img info -f vpc disk.vhd >/dev/null
}

@test "sector bitmaps of a new dynamic VHD mark what is stored" {
        disk_image disk.raw
        vdtool convert -f raw disk.raw disk.vhd
        local table first
        table=$(peek_number disk.vhd 528 8)
        first=$(peek_number disk.vhd "$table" 4)
        [ "$(peek disk.vhd $((first * 512)) 1)" = ff ]
}

@test "a VHD with the exact size and one with a compatible geometry read alike, but for the end" {
        disk_image disk.raw 10485760
        vdtool convert -f raw disk.raw exact.vhd
        vdtool convert -f raw -o chs=compat disk.raw compat.vhd
        vdtool convert exact.vhd exact.raw
        vdtool convert compat.vhd compat.raw
        cmp disk.raw exact.raw
        cmp -n 10485760 disk.raw compat.raw
        [ "$(size_of compat.raw)" -ge 10485760 ]
        qemu-img compare -q -f vpc -F raw compat.vhd disk.raw
}

@test "the creator decides between geometry and size, as written down" {
        local creator
        truncate -s 10485760 disk.raw
        for creator in 'win ' 'CTXS' 'd2v '; do
                { cat disk.raw; bytes "$(vhd_footer 2 10485760 -1 0102 "$creator" 301 4 17)"; } >fixed.vhd
                same "$(vdtool info --field virtual-size fixed.vhd)" 10485760 || say "$creator"
        done
        # dynamic, without room for more than the geometry says
        for creator in 'vpc ' 'qemu'; do
                { bytes "$(vhd_footer 3 10485760 512 0102 "$creator" 301 4 17)"
                  bytes "$(vhd_header 1536 5 2097152)"
                  bytes "$(printf 'ff%.0s' {1..512})"
                  bytes "$(vhd_footer 3 10485760 512 0102 "$creator" 301 4 17)"; } >dynamic.vhd
                same "$(vdtool info --field virtual-size dynamic.vhd)" "$((301 * 4 * 17 * 512))" || say "$creator"
                same "$(qemu-img info -f vpc --output=json dynamic.vhd | jq '."virtual-size"')" "$((301 * 4 * 17 * 512))"
        done
}

@test "one good footer is enough, and the damage is told" {
        local name
        for name in good-vhd-end-footer-gone good-vhd-front-footer-damaged; do
                fixture $name
                capture vdtool convert $name out.raw
                same "$status" 0
                [[ $stderr == *footer* ]] || told
                same "$(sha256 out.raw)" "$(fixture_fact $name 4)"
                rm out.raw
        done
}

@test "a fixed VHD with a damaged footer is not silently a raw disk when asked for as vhd" {
        fixture good-vhd-fixed disk.vhd
        poke disk.vhd $(($(size_of disk.vhd) - 512 + 64)) 00000000
        fails_cleanly vdtool convert -f vhd -O raw disk.vhd out.raw
        only_files disk.vhd
}

@test "a block that lies past the end of the file is refused and leaves no output" {
        fixture bad-vhd-block-past-end
        fails_with 'block 2' vdtool convert bad-vhd-block-past-end out.raw
        only_files bad-vhd-block-past-end
}

@test "the message for a bad table entry says what was found" {
        fixture bad-vhd-block-past-end
        capture vdtool convert bad-vhd-block-past-end out.raw
        # the sector bitmap lies at sector 0x3000, the data behind it
        [[ $stderr == *$((0x3000 * 512))* || $stderr == *$((0x3000 * 512 + 512))* ]] || told
}

@test "blocks in any order, a table anywhere and other block sizes are read" {
        fixture good-vhd-odd-layout
        same "$(content good-vhd-odd-layout)" "$(content_7z good-vhd-odd-layout)"
}

@test "stale bits of a dynamic disk's bitmap change nothing" {
        fixture good-vhd-dynamic disk.vhd
        local table first want
        want=$(content disk.vhd)
        table=$(peek_number disk.vhd 528 8)
        first=$(peek_number disk.vhd "$table" 4)
        poke disk.vhd $((first * 512)) 00000000
        same "$(content disk.vhd)" "$want"
}

# split_vhd FILE SIZE...: cuts a VHD into FILE's base name .vhd, .v01, ... of these sizes
split_vhd() {
        local file=$1 base=${1%.vhd} position=0 number=0 size name
        shift
        mv "$file" whole
        for size in "$@" -; do
                name=$base.vhd
                [ $number -eq 0 ] || name=$(printf '%s.v%02d' "$base" $number)
                if [ "$size" = - ]; then
                        tail -c +$((position + 1)) whole >"$name"
                else
                        tail -c +$((position + 1)) whole | head -c "$size" >"$name"
                        position=$((position + size))
                fi
                number=$((number + 1))
        done
}

@test "a split VHD reads as one disk, wherever it was cut" {
        local type
        disk_image disk.raw
        for type in dynamic fixed; do
                vdtool convert -f raw --type $type disk.raw split.vhd
                split_vhd split.vhd 1000000 2000001 512
                vdtool convert -f vhd -O raw split.vhd back.raw
                cmp disk.raw back.raw || say "$type"
                rm -f split.* back.raw whole
        done
}

@test "a split VHD that lacks a part is an error, not a smaller disk" {
        disk_image disk.raw
        vdtool convert -f raw disk.raw split.vhd
        split_vhd split.vhd 1000000 1000000 1000000
        rm split.v02 whole
        fails_cleanly vdtool convert -O raw split.vhd back.raw
        only_files disk.raw split.vhd split.v01 split.v03
}

@test "a split set can be written and read back" {
        disk_image disk.raw
        vdtool convert -f raw -O vhd -o split_size=2M disk.raw set.vhd || vdtool create -f vhd -o help x.vhd 1M
        [ -f set.v01 ]
        vdtool convert -O raw set.vhd back.raw
        cmp disk.raw back.raw
        cat set.vhd set.v0? >whole.vhd
        judge vhd whole.vhd disk.raw
}

@test "a VHD in use by saved state or marked hidden still reads" {
        fixture good-vhd-dynamic disk.vhd
        local want
        want=$(content disk.vhd)
        poke disk.vhd 84 01
        poke disk.vhd $(($(size_of disk.vhd) - 512 + 84)) 01
        vhd_reseal disk.vhd
        same "$(content disk.vhd)" "$want"
}

@test "disk types other than 2, 3 and 4 are refused by number" {
        fixture bad-vhd-type-9
        fails_with 9 vdtool convert -O raw bad-vhd-type-9 out.raw
}

@test "VHDs that we write are read by qemu-img at each block border" {
        local size
        for size in 2096640 2097152 2097664 4194304 4194816; do
                disk_image disk.raw $((size + 3145728))
                vdtool convert -f raw disk.raw disk.vhd
                judge vhd disk.vhd disk.raw
                rm disk.vhd
        done
}
