// SPDX-License-Identifier: MIT
/* ova.c: virtual appliances, and tar archives in general, as containers of disks (reference: docs/formats.md, "OVA and
 * tar"; DMTF DSP0243; POSIX.1-2017 pax).
 *
 *      [ NAME.ovf: XML ][ NAME.mf: digests ][ NAME-disk1.vmdk ]...  each behind a tar header
 *
 * Disks are read in place, as windows of the archive; all that is said of a disk comes from the driver of its own
 * format.  With several disks one has to be named, "appliance.ova:disk2.vmdk".  Writes an appliance with one disk.
 * Refused: compressed files inside (OVF compression="gzip"), disks that are differences to others of the appliance.
 * Cost: one read of 512 bytes for each member.
 *
 * ova_open.c members and disks; ova_descriptor.c OVF; ova_manifest.c digests; ova_check.c info and check;
 * ova_create.c writing.
 */
#include "ova.h"

static enum vd_match probe(const struct vd_probe *p, bool appliance)
{
        int like = vd_tar_recognise(p->head, p->head_bytes);
        char name[257];

        if (!like || (vd_tar_first_name(p->head, p->head_bytes, name) && ova_has_suffix(name, ".ovf")) != appliance)
                return VD_MATCH_NO;
        return like == 2 ? VD_MATCH_SURE : VD_MATCH_WEAK;
}

static enum vd_match ova_probe(const struct vd_probe *p)
{
        return probe(p, true);
}

static enum vd_match tar_probe(const struct vd_probe *p)
{
        return probe(p, false);
}

static const char *const ova_extensions[] = { "ova", NULL };
static const char *const tar_extensions[] = { "tar", NULL };

const struct vd_format vd_format_ova = {
        .name = "ova", .title = "OVF appliance", .extensions = ova_extensions, .caps = VD_CAP_CONTAINER,
        .probe = ova_probe, .open = ova_open, .close = ova_close, .map = ova_map, .describe = ova_describe,
        .walk = ova_walk, .check = ova_check, .verify = ova_verify,
        .params_size = sizeof(struct ova_params), .create_opts = ova_options, .create = ova_create,
        .place = ova_place, .settle = ova_settle, .publish = ova_publish, .flush = ova_flush, .finish = ova_finish,
};

const struct vd_format vd_format_tar = {
        .name = "tar", .title = "disks in a tar archive", .extensions = tar_extensions, .caps = VD_CAP_CONTAINER,
        .probe = tar_probe, .open = ova_open, .close = ova_close, .map = ova_map, .describe = ova_describe,
        .walk = ova_walk, .check = ova_check, .verify = ova_verify,
};
