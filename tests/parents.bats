#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Parents: found, checked, never invented
load helpers
# shellcheck source=tests/images/vhd.bash
source "$BATS_TEST_DIRNAME/images/vhd.bash"

pair() {
        fixture good-vhd-parent >/dev/null
        fixture good-vhd-child >/dev/null
        want=$(fixture_fact good-vhd-child 4)
}

# locate CODE TEXT-AS-HEX: the child's only locator becomes this one, and the name in its header something else
locate() {
        poke good-vhd-child $((512 + 64)) "$(padded 512 "$(utf16be elsewhere.vhd)")"
        poke good-vhd-child $((512 + 576)) "$(padded 192 "$(vhd_locator "$1" 512 $((${#2} / 2)) 2048)")"
        poke good-vhd-child 2048 "$(padded 512 "$2")"
        vhd_reseal good-vhd-child
}

@test "a differencing VHD reads through its parent" {
        pair
        same "$(content good-vhd-child)" "$want"
}

@test "a differencing VHD from another directory finds its parent beside it" {
        mkdir images
        (cd images && pair)
        same "$(content images/good-vhd-child)" "$(fixture_fact good-vhd-child 4)"
}

@test "a missing parent is an error that names it, never zeros" {
        fixture bad-vhd-parent-missing
        fails_with nowhere.vhd vdtool convert -O raw bad-vhd-parent-missing out.raw
        only_files bad-vhd-parent-missing
}

@test "a parent with another identifier is refused, and both are named" {
        fixture good-vhd-parent
        fixture bad-vhd-parent-wrong
        fails_cleanly vdtool convert -O raw bad-vhd-parent-wrong out.raw
        [[ $stderr == *00000000-0000-0000-0000-000000000001* ]] || told
        local found
        found=$(peek good-vhd-parent 68 4)
        [[ $stderr == *$found* ]] || told
        only_files good-vhd-parent bad-vhd-parent-wrong
}

@test "an image that is its own parent is an error, not a loop" {
        fixture bad-vhd-parent-self
        fails_cleanly timeout 20 "$VDTOOL" convert -O raw bad-vhd-parent-self out.raw
        fixture bad-qcow2-backing-self
        fails_cleanly timeout 20 "$VDTOOL" convert -O raw bad-qcow2-backing-self out.raw
}

@test "a loop of two images is an error" {
        qemu-img create -q -f qcow2 -u -b b.qcow2 -F qcow2 a.qcow2 1M
        qemu-img create -q -f qcow2 -u -b a.qcow2 -F qcow2 b.qcow2 1M
        fails_cleanly timeout 20 "$VDTOOL" convert -O raw a.qcow2 out.raw
        fails_cleanly timeout 20 "$VDTOOL" info --backing-chain a.qcow2
        only_files a.qcow2 b.qcow2
}

@test "a chain that is too deep is an error" {
        truncate -s 1M 0.raw
        qemu-img create -q -f qcow2 -u -b 0.raw -F raw 1.qcow2 1M
        local i
        for i in {2..100}; do
                cp 1.qcow2 "$i.qcow2"
                qemu-img rebase -u -b "$((i - 1)).qcow2" -F qcow2 "$i.qcow2"
        done
        fails_cleanly vdtool convert -O raw 100.qcow2 out.raw
        succeeds vdtool convert -O raw 40.qcow2 out.raw
}

@test "locator W2ru: a relative path in UTF-16" {
        pair
        locate W2ru "$(utf16le '.\good-vhd-parent')"
        same "$(content good-vhd-child)" "$want"
}

@test "locator W2ru into another directory" {
        pair
        mkdir -p 'sub dir'
        mv good-vhd-parent 'sub dir/'
        locate W2ru "$(utf16le '.\sub dir\good-vhd-parent')"
        same "$(content good-vhd-child)" "$want"
}

@test "locator W2ku: an absolute Windows path, of which the file name is found beside the image" {
        pair
        locate W2ku "$(utf16le 'D:\VMs\disks\good-vhd-parent')"
        same "$(content good-vhd-child)" "$want"
}

@test "locator MacX: a URL in UTF-8 with escapes" {
        pair
        mv good-vhd-parent 'good parent'
        locate MacX "$(ascii "file://localhost$PWD/good%20parent")"
        same "$(content good-vhd-child)" "$want"
        locate MacX "$(ascii "file:///somewhere/else/good%20parent")"
        same "$(content good-vhd-child)" "$want"
}

@test "locators Wi2r and Wi2k: 8-bit paths of old" {
        pair
        locate Wi2r "$(ascii '.\good-vhd-parent')"
        same "$(content good-vhd-child)" "$want"
        locate Wi2k "$(ascii 'C:\old\good-vhd-parent')"
        same "$(content good-vhd-child)" "$want"
}

@test "the name in the dynamic header is enough" {
        pair
        poke good-vhd-child $((512 + 576)) "$(padded 192 "")"
        vhd_reseal good-vhd-child
        same "$(content good-vhd-child)" "$want"
}

@test "names in other scripts and with lone surrogates do no harm" {
        pair
        mv good-vhd-parent 'диск-磁盘-💾'
        locate W2ru "$(utf16le '.\диск-磁盘-💾')"
        same "$(content good-vhd-child)" "$want"
        locate W2ru 2e005c0000d841000000ffdf
        fails_cleanly vdtool convert -O raw good-vhd-child out.raw
        vdtool info --output json good-vhd-child | jq -e . >/dev/null
}

@test "a locator that counts its space in sectors is read like one in bytes" {
        pair
        local text
        text=$(utf16le '.\good-vhd-parent')
        locate W2ru "$text"
        poke good-vhd-child $((512 + 576 + 4)) 00000001
        vhd_reseal good-vhd-child
        same "$(content good-vhd-child)" "$want"
}

@test "locators that lie outside the file are ignored when another works, and never read" {
        pair
        local good
        good=$(vhd_locator W2ru 512 $((2 * 17)) 2560)
        poke good-vhd-child $((512 + 576)) "$(padded 192 "$(vhd_locator W2ku 4294966784 4294967295 9223372036854775296)$good")"
        vhd_reseal good-vhd-child
        same "$(content good-vhd-child)" "$want"
}

@test "--parent takes another file, which must still be the right one" {
        pair
        mv good-vhd-parent moved.vhd
        fails_cleanly vdtool convert -O raw good-vhd-child out.raw
        vdtool convert -O raw --parent moved.vhd good-vhd-child out.raw
        same "$(sha256 out.raw)" "$want"
        fixture good-vhd-dynamic-chs other.vhd
        fails_cleanly vdtool convert -O raw --parent other.vhd good-vhd-child out2.raw
        [ ! -e out2.raw ]
}

@test "a parent of another time is told, and read nevertheless" {
        pair
        touch -d 2001-01-01 good-vhd-parent
        poke good-vhd-child $((512 + 56)) 2d000000
        vhd_reseal good-vhd-child
        capture vdtool convert -O raw good-vhd-child out.raw
        same "$status" 0
        same "$(sha256 out.raw)" "$want"
}

@test "chains of differencing VHDs that we make read right in 7-Zip" {
        disk_image disk.raw
        vdtool convert -f raw disk.raw base.vhd
        vdtool create -b base.vhd middle.vhd
        cp disk.raw changed.raw
        printf 'middle' | dd of=changed.raw bs=1 seek=1000 conv=notrunc status=none
        vdtool convert -n -f raw -O vhd changed.raw middle.vhd
        vdtool create -b middle.vhd top.vhd
        printf 'top' | dd of=changed.raw bs=1 seek=3000000 conv=notrunc status=none
        vdtool convert -n -f raw -O vhd changed.raw top.vhd
        same "$(content top.vhd)" "$(sha256 changed.raw)"
        same "$(content_7z top.vhd)" "$(sha256 changed.raw)"
        vhdiinfo top.vhd | grep -qi differ
}

@test "convert -B writes a differencing VHD that holds what the source's upper layers hold" {
        pair
        vdtool convert -B good-vhd-parent -F vhd good-vhd-child top.vhd
        same "$(peek_number top.vhd 60 4)" 4
        same "$(content top.vhd)" "$want"
        same "$(content_7z top.vhd)" "$want"
        same "$(vdtool map --output json top.vhd | jq -c '[.[] | select(.depth == 0 and .data) | [.start, .length]]')" \
                '[[0,512],[4608,512],[2096640,512]]'
}

@test "convert -B with a base that the source does not stand on copies the whole disk" {
        disk_image disk.raw
        vdtool convert -f raw disk.raw base.vhd
        printf 'changed' | dd of=disk.raw bs=1 seek=1000 conv=notrunc status=none
        vdtool convert -f raw -B base.vhd disk.raw top.vhd
        same "$(content top.vhd)" "$(sha256 disk.raw)"
        same "$(content_7z top.vhd)" "$(sha256 disk.raw)"
}

@test "a differencing VHD can be converted to one that needs no parent" {
        pair
        vdtool convert -O vhd good-vhd-child flat.vhd
        rm good-vhd-parent good-vhd-child
        same "$(content_qemu vpc flat.vhd)" "$want"
}

@test "the locator of a child that we make leads to the parent from both sides" {
        mkdir -p base images
        truncate -s 4M disk.raw
        vdtool convert -f raw disk.raw base/parent.vhd
        (cd images && vdtool create -b ../base/parent.vhd child.vhd)
        same "$(content images/child.vhd)" "$(sha256 disk.raw)"
        mkdir moved
        mv base images moved/
        same "$(content moved/images/child.vhd)" "$(sha256 disk.raw)"
}

@test "a qcow2 overlay on a differencing VHD and on a fixed VHD" {
        pair
        fixture good-vhd-fixed
        qemu-img create -q -f qcow2 -u -b good-vhd-child -F vpc top.qcow2 3147264
        same "$(content top.qcow2)" "$want"
        qemu-img create -q -f qcow2 -u -b good-vhd-fixed -F vpc top2.qcow2 3147264
        same "$(content top2.qcow2)" "$(fixture_fact good-vhd-fixed 4)"
}
