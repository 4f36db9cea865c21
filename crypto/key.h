/* Keys of a link as a person handles them: base64 text of 32 bytes, as wg prints them. */
#ifndef ADIT_KEY_H
#define ADIT_KEY_H

#include "core/base/cursor.h"
#include "core/base/err.h"

#define KEY_TEXT 45 /* base64 of 32 bytes with its NUL */

void key_generate(char text[KEY_TEXT]); /* an Ed25519 seed: `adit genkey` */
void psk_generate(char text[KEY_TEXT]); /* 32 random bytes: `adit genpsk` */

/* Standard base64 with padding; out_cap bytes at most. Errors: SYNTAX, FULL. */
MUST_USE enum err base64_decode(const char *text, size_t len, uint8_t *out, size_t out_cap, size_t *out_len);
void base64_encode(struct span in, char *out, size_t out_size); /* out_size >= 4 * ((len + 2) / 3) + 1 */

#endif
