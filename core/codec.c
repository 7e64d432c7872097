// SPDX-License-Identifier: MIT
/* codec.c: one table of (de)compressors, and the state that a thread keeps for them. */
#include "codec_private.h"

#include <errno.h>
#include <stdlib.h>

static const struct vd_codec_methods *const codecs[VD_CODEC_COUNT] = {
        [VD_CODEC_DEFLATE] = &vd_codec_deflate,
        [VD_CODEC_ZLIB] = &vd_codec_zlib,
        [VD_CODEC_ZSTD] = &vd_codec_zstd,
        [VD_CODEC_BZIP2] = &vd_codec_bzip2,
        [VD_CODEC_XZ] = &vd_codec_xz,
        [VD_CODEC_ADC] = &vd_codec_adc,
        [VD_CODEC_LZFSE] = &vd_codec_lzfse,
};

struct vd_codec_context {
        void *states[VD_CODEC_COUNT];   /* NULL until the codec is used */
};

struct vd_codec_context *vd_codec_context_new(void)
{
        return calloc(1, sizeof(struct vd_codec_context));
}

void vd_codec_context_free(struct vd_codec_context *context)
{
        if (!context)
                return;
        for (int i = 0; i < VD_CODEC_COUNT; i++) {
                if (context->states[i])
                        codecs[i]->free_state(context->states[i]);
        }
        free(context);
}

const char *vd_codec_name(enum vd_codec codec)
{
        return (unsigned)codec < VD_CODEC_COUNT && codecs[codec] ? codecs[codec]->name : "none";
}

const struct vd_codec_methods *vd_codec_use(struct vd_codec_context *context, enum vd_codec codec, struct vd_error *err)
{
        const struct vd_codec_methods *methods = (unsigned)codec < VD_CODEC_COUNT ? codecs[codec] : NULL;

        if (!methods) {
                vd_fail(err, VD_EUNSUPPORTED, "no compression method has number %d", (int)codec);
                return NULL;
        }
        if (!methods->new_state)
                return methods;
        if (!context->states[codec])
                context->states[codec] = methods->new_state();
        if (!context->states[codec]) {
                vd_codec_no_memory(methods, err);
                return NULL;
        }
        return methods;
}

void *vd_codec_state(struct vd_codec_context *context, enum vd_codec codec)
{
        return context->states[codec];
}

int vd_unpack(struct vd_codec_context *context, enum vd_codec codec, const void *packed, size_t packed_bytes,
              void *unpacked, size_t unpacked_bytes, struct vd_error *err)
{
        const struct vd_codec_methods *methods = vd_codec_use(context, codec, err);

        if (!methods)
                return err->code;
        return methods->unpack(context->states[codec], packed, packed_bytes, unpacked, unpacked_bytes, err);
}

int vd_pack(struct vd_codec_context *context, enum vd_codec codec, const struct vd_pack_settings *settings,
            const void *plain, size_t plain_bytes, void *packed, size_t room, size_t *packed_bytes,
            struct vd_error *err)
{
        const struct vd_codec_methods *methods = vd_codec_use(context, codec, err);

        *packed_bytes = 0;
        if (!methods)
                return err->code;
        if (!methods->pack)
                return vd_fail(err, VD_EUNSUPPORTED, "%s units can be read but not written", methods->name);
        return methods->pack(context->states[codec], settings, plain, plain_bytes, packed, room, packed_bytes, err);
}

int vd_codec_ends_early(const struct vd_codec_methods *codec, size_t got, size_t expected, struct vd_error *err)
{
        return vd_fail(err, VD_ECORRUPT, "%s stream ends after %zu of %zu bytes", codec->name, got, expected);
}

int vd_codec_gives_more(const struct vd_codec_methods *codec, size_t expected, struct vd_error *err)
{
        return vd_fail(err, VD_ECORRUPT, "%s stream gives more than the %zu bytes of its unit", codec->name, expected);
}

int vd_codec_broken(const struct vd_codec_methods *codec, size_t got, size_t expected, struct vd_error *err)
{
        return vd_fail(err, VD_ECORRUPT, "%s stream is damaged after %zu of %zu bytes", codec->name, got, expected);
}

int vd_codec_no_memory(const struct vd_codec_methods *codec, struct vd_error *err)
{
        return vd_fail(err, -ENOMEM, "%s", codec->name);
}
