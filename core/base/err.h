/*
 * The one result type. Every function that can fail returns enum err and is marked MUST_USE; what it produces goes
 * through out parameters, which are untouched on failure unless the function says otherwise.
 */
#ifndef ADIT_ERR_H
#define ADIT_ERR_H

#define ERR_LIST(X)                                        \
    X(OK, "ok")                                            \
    X(TRUNCATED, "input ends too early")                   \
    X(SYNTAX, "input is malformed")                        \
    X(RANGE, "value out of range")                         \
    X(NOMEM, "out of memory")                              \
    X(FULL, "no room left")                                \
    X(EXISTS, "already there")                             \
    X(NOTFOUND, "not found")                               \
    X(UNSUPPORTED, "not supported")                        \
    X(AUTH, "authentication failed")                       \
    X(REPLAY, "replayed or too old")                       \
    X(EXPIRED, "hard limit reached")                       \
    X(STATE, "not possible in this state")                 \
    X(MISMATCH, "nothing in common")                       \
    X(CRITICAL, "unknown payload with the critical bit")   \
    X(PERM, "not permitted")                               \
    X(SYSTEM, "system call failed") /* errno tells more */ \
    X(CRYPTO, "crypto library failed")                     \
    X(TIMEOUT, "no answer in time")

enum err {
#define ERR_ENUM(name, text) ERR_##name,
    ERR_LIST(ERR_ENUM)
#undef ERR_ENUM
};
#define OK ERR_OK

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/* Returns from the calling function when expr fails, and only then. */
#define TRY(expr)                  \
    do {                           \
        enum err try_err = (expr); \
        if (try_err != OK)         \
            return try_err;        \
    } while (0)

/* A static text for a person; never NULL. */
const char *err_text(enum err e);

#endif
