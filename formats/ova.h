// SPDX-License-Identifier: MIT
/* ova.h: private to formats/ova*.c: disks in tar archives, with an OVF descriptor (ova) or without (tar). */
#ifndef VD_FORMATS_OVA_H
#define VD_FORMATS_OVA_H

#include <nettle/nettle-meta.h>

#include "core/check.h"
#include "formats/shared/tar.h"
#include "formats/shared/xml.h"

extern const struct vd_format vd_format_ova, vd_format_tar;

enum {
        OVA_DIGEST_MOST = 64,           /* bytes: SHA-512 */
        OVA_DISKS_MOST = 256,
};

/* ---- the descriptor (ova_descriptor.c); texts belong to the tree ---- */

struct ovf_file {                       /* References/File */
        const char *id, *href;
        uint64_t size, chunk;           /* chunk: the file is cut into members of this size; 0: it is not */
        bool has_size, packed;
};

struct ovf_disk {                       /* DiskSection/Disk */
        const char *id, *file, *format, *parent;
        uint64_t capacity, unit;        /* unit 0: the descriptor does not say how large */
};

struct ovf_item {                       /* VirtualHardwareSection/Item and what OVF 2 has in its place */
        const char *instance, *parent, *address, *subtype, *resource, *quantity, *units;
        unsigned type;                  /* ResourceType of CIM; 0: none */
};

enum ovf_type {
        OVF_CPU = 3, OVF_MEMORY = 4, OVF_IDE = 5, OVF_SCSI = 6, OVF_NETWORK = 10, OVF_DISK = 17, OVF_SATA = 20,
};

struct ovf {
        struct vd_xml *root;
        unsigned version;               /* 1 or 2; 0: a namespace that we do not know */
        const char *name, *hardware, *os, *product, *product_version;
        unsigned systems;               /* virtual machines described; the first one is told about */
        struct ovf_file *files;
        struct ovf_disk *disks;
        struct ovf_item *items;
        size_t file_count, disk_count, item_count;
};

int ovf_parse(struct ovf **, const void *text, size_t length, struct vd_error *);
void ovf_free(struct ovf *);
/* NULL when there is none. */
const struct ovf_file *ovf_find_file(const struct ovf *, const char *id);
const struct ovf_disk *ovf_find_disk(const struct ovf *, const char *id);
/* The id in a HostResource, "ovf:/disk/vmdisk1"; NULL when it is of another kind. */
const char *ovf_resource_disk(const char *resource);
/* The controller and unit that the disk is attached to, "scsi 0:1"; empty when nothing says so. */
void ovf_attachment(const struct ovf *, const char *disk_id, char text[64]);
/* Sum of the quantities of all items of a type, in units; 0: none. */
uint64_t ovf_quantity(const struct ovf *, enum ovf_type);

/* ---- the manifest (ova_manifest.c) ---- */

struct ova_digest {
        char *name;                     /* of the file */
        char algorithm[16];             /* as written */
        const struct nettle_hash *hash; /* NULL: unknown */
        uint8_t bytes[OVA_DIGEST_MOST];
        unsigned line;
};

struct ova_manifest {
        bool exists;
        struct ova_digest *digests;
        size_t count;
        unsigned bad_line;              /* the first one that cannot be read; 0: none */
};

int ova_manifest_parse(struct ova_manifest *, char *text, struct vd_error *);
void ova_manifest_free(struct ova_manifest *);
/* By its name in a manifest, "SHA256"; NULL: unknown. */
const struct nettle_hash *ova_hash(const char *algorithm);
int ova_hash_file(const struct nettle_hash *, struct vd_file *, uint64_t position, uint64_t length,
                  const volatile int *stop, uint8_t digest[OVA_DIGEST_MOST], struct vd_error *);
int ova_verify(struct vd_image *, struct vd_findings *, const volatile int *stop, struct vd_error *);

/* ---- an open archive ---- */

struct ova_disk {
        const char *id;                 /* in the descriptor; NULL: not mentioned there */
        const struct ovf_disk *ovf;     /* the same */
        const struct ovf_file *reference;
        char *name;                     /* of its file */
        size_t member, members;         /* the first, and how many follow it as further pieces */
        struct vd_file *file;           /* window into the archive */
        struct vd_image *image;         /* NULL: cannot be opened ... */
        char *fault;                    /* ... for this reason */
        uint64_t start;                 /* guest offset of its first byte here */
};

struct ova_new;

struct ova {
        struct vd_tar tar;
        size_t descriptor;              /* index of the .ovf; SIZE_MAX: none */
        struct ovf *ovf;
        struct ova_manifest manifest;
        bool has_certificate;
        struct ova_disk *disks;         /* all of them, or the one asked for */
        size_t disk_count;
        struct ova_new *fresh;          /* while it is created */
};

int ova_open(struct vd_image *, struct vd_error *);
void ova_close(struct vd_image *);
int ova_map(struct vd_image *, uint64_t offset, uint64_t max, struct vd_extent *, struct vd_error *);
/* Members by name: the first one, and how many have it. */
size_t ova_find_member(const struct ova *, const char *name, size_t *count);
bool ova_has_suffix(const char *name, const char *suffix);

void ova_describe(struct vd_image *, struct vd_report *);
int ova_walk(struct vd_image *, struct vd_check *, struct vd_error *);
int ova_check(struct vd_image *, struct vd_check *, struct vd_error *);

/* ---- creating (ova_create.c) ---- */

struct ova_params {
        const char *digest, *hardware;
        uint64_t cpus, memory, compression_level;
};

extern const struct vd_opt ova_options[];
int ova_create(struct vd_image *, const struct vd_create *, struct vd_error *);
int ova_place(struct vd_image *, const struct vd_request *, struct vd_place *, struct vd_error *);
int ova_settle(struct vd_image *, struct vd_error *);
int ova_publish(struct vd_image *, const struct vd_place *, struct vd_error *);
int ova_flush(struct vd_image *, struct vd_error *);
int ova_finish(struct vd_image *, struct vd_error *);
void ova_new_free(struct ova_new *);

#endif
