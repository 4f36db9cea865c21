#include "esp/tfc.h"

uint32_t tfc_padded(const struct tfc *t, uint32_t len, uint32_t mtu)
{
    for (unsigned i = 0; i < t->n; i++) {
        uint32_t size = t->size[i] < mtu ? t->size[i] : mtu;
        if (len <= size)
            return size;
    }
    return len;
}

uint32_t tfc_dummy(const struct tfc *t, uint64_t random, uint32_t mtu)
{
    if (mtu <= TFC_DUMMY_MIN)
        return TFC_DUMMY_MIN;
    if (t->n == 0)
        return TFC_DUMMY_MIN + (uint32_t)(random % (mtu - TFC_DUMMY_MIN + 1));
    uint16_t size = t->size[random % t->n];
    return size < mtu ? size : mtu;
}
