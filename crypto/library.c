#include "crypto/library.h"

#include <mbedtls/version.h>
#include <sodium.h>
#include <stdio.h>
#ifdef HAVE_IPSEC_MB
#include <intel-ipsec-mb.h>
#endif

const char *library_text(unsigned i, char *text, size_t size)
{
    char version[18]; /* what mbedtls_version_get_string_full asks for */
    switch (i) {
    case 0:
        snprintf(text, size, "libsodium %s", sodium_version_string());
        return text;
    case 1:
        mbedtls_version_get_string(version);
        snprintf(text, size, "mbedTLS %s", version);
        return text;
#ifdef HAVE_IPSEC_MB
    case 2:
        snprintf(text, size, "intel-ipsec-mb %s", imb_get_version_str());
        return text;
#endif
    default:
        return NULL;
    }
}
