/* Reading the ini file: what inih is given, what it gives back, and loading as a whole. Values: config_value.c. */
#include "policy/config.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "policy/config_internal.h"

#define SECTION_NAME_MAX 49 /* inih cuts longer ones silently */

/* -- complaints -- */

static void collect(struct loading *l, unsigned line, bool warning, const char *fmt, va_list args)
{
    struct complaint c = {.line = line, .warning = warning};
    l->errors += !warning;
    if (l->n == COMPLAINTS_MAX || vasprintf(&c.text, fmt, args) < 0) {
        l->left_out++;
        return;
    }
    for (char *tab = c.text; (tab = strchr(tab, '\t')) != NULL;)
        *tab = ' '; /* the one control character that a line may hold */
    unsigned at = l->n++;
    for (; at > 0 && l->complaints[at - 1].line > line; at--)
        l->complaints[at] = l->complaints[at - 1];
    l->complaints[at] = c;
}

void complain(struct loading *l, unsigned line, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    collect(l, line, false, fmt, args);
    va_end(args);
}

void warn(struct loading *l, unsigned line, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    collect(l, line, true, fmt, args);
    va_end(args);
}

static void report_all(struct loading *l)
{
    char text[64];
    for (unsigned i = 0; i < l->n; i++) {
        struct complaint *c = &l->complaints[i];
        (c->warning ? l->report->warning : l->report->error)(l->report->ctx, l->file, c->line, c->text);
        free(c->text);
    }
    if (l->left_out) {
        snprintf(text, sizeof(text), "%u more that are not shown", l->left_out);
        (l->errors ? l->report->error : l->report->warning)(l->report->ctx, l->file, 0, text);
    }
    l->n = l->left_out = 0;
}

/* -- reading: one line at a time, checked before inih sees it -- */

struct source {
    struct loading *load;
    struct ini *ini;
    const char *text;
    size_t len, at;
    unsigned line;
    struct section *section; /* where keys go; NULL: nowhere yet */
    bool section_refused;    /* keys of a section with a wrong header are passed over: one complaint is enough */
    int key;                 /* the row that an indented line would extend; -1: none */
    bool key_refused;        /* the key above was: its indented lines are passed over */
    bool continuing;         /* the present line is an indented one */
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_comment(const char *s, size_t len)
{
    return len == 0 || s[0] == ';' || s[0] == '#';
}

static size_t trimmed(const char *s, size_t len)
{
    while (len > 0 && (is_space(s[len - 1]) || s[len - 1] == '\r'))
        len--;
    return len;
}

/* The length of a line up to its inline comment, as inih sees it: a semicolon after white space. */
static size_t without_comment(const char *s, size_t len)
{
    for (size_t i = 1; i < len; i++)
        if (s[i] == ';' && is_space(s[i - 1]))
            return trimmed(s, i);
    return len;
}

static bool check_characters(struct source *src, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            complain(src->load, src->line, "found %s (0x%02x), expected text",
                     c == 0 ? "a NUL byte" : "a control character", c);
            return false;
        }
    }
    return true;
}

/* What inih would cut without a word: " ;" in quotes; and what it would take as part of the value: " #". */
static bool check_comments(struct source *src, const char *s, size_t len)
{
    bool quoted = false;
    for (size_t i = 1; i < len; i++) {
        if (s[i] == '"')
            quoted = !quoted;
        if (!is_space(s[i - 1]))
            continue;
        if (s[i] == ';' && !quoted)
            return true;
        if (s[i] == ';') {
            complain(src->load, src->line,
                     "found ' ;' in quotes, which begins a comment all the same, expected a value without it "
                     "(secrets: file:PATH, 0x… or base64:…)");
            return false;
        }
        if (s[i] == '#' && !quoted) {
            complain(src->load, src->line, "found ' #' after a value, expected ' ;' to begin a comment there");
            return false;
        }
    }
    return true;
}

/* "[kind name]": the name, checked. */
static bool section_name(struct source *src, const char *s, size_t len, struct section *out)
{
    size_t n = 0;
    if (len >= sizeof(out->name))
        return false;
    for (; n < len; n++) {
        char c = s[n];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._-", c);
        if (!good) {
            complain(src->load, src->line, "found '%.*s' as a name, expected letters, digits, '.', '_' and '-'",
                     (int)len, s);
            return false;
        }
        out->name[n] = c;
    }
    return true;
}

/* Between the brackets. */
static bool parse_section(struct source *src, const char *s, size_t len, struct section *out)
{
    static const char expected[] = "expected [host], [peer NAME] or [policy NAME]";
    const enum section_kind kinds[] = {SECTION_HOST, SECTION_PEER, SECTION_POLICY};
    size_t word = 0, name;
    if (len > SECTION_NAME_MAX) {
        complain(src->load, src->line, "found a section header of %zu characters, expected at most %d", len,
                 SECTION_NAME_MAX);
        return false;
    }
    while (len > 0 && is_space(*s))
        s++, len--;
    len = trimmed(s, len);
    while (word < len && !is_space(s[word]))
        word++;
    for (name = word; name < len && is_space(s[name]);)
        name++;
    for (unsigned i = 0; i < 3; i++)
        if (strlen(section_kind_name(kinds[i])) == word && memcmp(s, section_kind_name(kinds[i]), word) == 0)
            out->kind = kinds[i];
    if (!out->kind || (out->kind == SECTION_HOST) != (name == len)) {
        complain(src->load, src->line, "found [%.*s], %s", (int)len, s, expected);
        return false;
    }
    return section_name(src, s + name, len - name, out);
}

/* As many as there are brackets, at most. */
static unsigned count_headers(struct span text)
{
    unsigned n = 0;
    for (size_t i = 0; i < text.len && n < CONFIG_SECTIONS; i++)
        n += text.data[i] == '[';
    return n;
}

/* A section of that kind and name, or NULL. */
static const struct section *find_section(const struct ini *ini, const struct section *s)
{
    for (const struct hash_link *l = hash_find(&ini->names, hash_text(s->name)); l; l = hash_next(l)) {
        const struct section *other = CONTAINER_OF(l, struct section, by_name);
        if (other->kind == s->kind && strcmp(other->name, s->name) == 0)
            return other;
    }
    return NULL;
}

static bool add_section(struct source *src, const char *s, size_t len)
{
    struct section section = {.line = src->line};
    if (!parse_section(src, s, len, &section))
        return false;
    const struct section *other = find_section(src->ini, &section);
    if (other) {
        complain(src->load, src->line, "found [%.*s] again, expected it once: the first is on line %u", (int)len, s,
                 other->line);
        return false;
    }
    if (src->ini->n == CONFIG_SECTIONS) {
        complain(src->load, src->line, "found more than %d sections", CONFIG_SECTIONS);
        return false;
    }
    src->section = &src->ini->sections[src->ini->n++];
    *src->section = section;
    hash_add(&src->ini->names, &src->section->by_name, hash_text(section.name));
    return true;
}

static bool check_section(struct source *src, const char *s, size_t len)
{
    const char *end = memchr(s, ']', len);
    src->section = NULL;
    src->key = -1;
    src->key_refused = false;
    src->section_refused = true;
    if (!end) {
        complain(src->load, src->line, "found '[' without ']', expected [host], [peer NAME] or [policy NAME]");
        return false;
    }
    if (without_comment(end, len - (size_t)(end - s)) != 1) {
        complain(src->load, src->line, "found text after ']', expected the end of the line");
        return false;
    }
    if (!add_section(src, s + 1, (size_t)(end - s) - 1))
        return false;
    src->section_refused = false;
    return true;
}

/* A line that begins with white space extends the list above, and nothing else. */
static bool check_continuation(struct source *src, const char *s, size_t len)
{
    if (src->section_refused || src->key_refused)
        return false;
    if (src->key < 0 || s[0] == '[' || memchr(s, '=', len)) {
        complain(src->load, src->line,
                 "found an indented line, which continues the list above it, expected sections and keys at the "
                 "beginning of the line");
        return false;
    }
    const struct key *key = key_at((unsigned)src->key);
    if (!key->list) {
        complain(src->load, src->line, "found an indented line after '%s', expected one value: it is not a list",
                 key->name);
        return false;
    }
    src->continuing = true;
    return check_comments(src, s, len);
}

/* A refused line was meant for that key, which is not missing then: one complaint is enough. */
static void meant(struct source *src, const char *s, size_t n)
{
    char name[SECTION_NAME_MAX + 1];
    if (!src->section || n >= sizeof name)
        return;
    memcpy(name, s, n);
    name[n] = '\0';
    int key = key_find(src->section->kind, name);
    if (key >= 0 && !src->section->line_of[key])
        src->section->line_of[key] = src->line;
}

/* How much of a line's beginning can be a key. */
static size_t key_length(const char *s, size_t len)
{
    size_t n = 0;
    while (n < len && ((s[n] >= 'a' && s[n] <= 'z') || (s[n] >= 'A' && s[n] <= 'Z') || s[n] == '-' || s[n] == '_'))
        n++;
    return n;
}

static bool check_assignment(struct source *src, const char *s, size_t len)
{
    size_t n = key_length(s, len);
    src->key = -1;
    src->key_refused = true;
    if (src->section_refused)
        return false;
    size_t equal = n;
    while (equal < len && is_space(s[equal]))
        equal++;
    if (n == 0 || equal == len || s[equal] != '=') {
        /* Only the word: what follows may be a secret. */
        complain(src->load, src->line, "found '%.*s' without ' = ' behind it, expected KEY = VALUE",
                 (int)(n < 40 ? n : 40), s);
        meant(src, s, n);
        return false;
    }
    if (!src->section) {
        complain(src->load, src->line, "found '%.*s' before any section, expected [host], [peer NAME] or [policy NAME]",
                 (int)n, s);
        return false;
    }
    if (n > SECTION_NAME_MAX) {
        complain(src->load, src->line, "found a key of %zu characters, expected at most %d", n, SECTION_NAME_MAX);
        return false;
    }
    if (check_comments(src, s + equal, len - equal))
        return true;
    meant(src, s, n);
    return false;
}

/* True if inih may see the line. Its limits are known from its buffer: room for the line, a newline and the NUL. */
static bool check_line(struct source *src, const char *s, size_t len, size_t room)
{
    size_t indent = 0;
    while (indent < len && is_space(s[indent]))
        indent++;
    src->continuing = false;
    if (is_comment(s + indent, trimmed(s + indent, len - indent)))
        return false;
    len = trimmed(s, len);
    if (!check_characters(src, s, len))
        return false;
    if (len > room) {
        complain(
            src->load, src->line,
            "found a line of %zu bytes, expected at most %zu: lists go on in indented lines, long secrets in a file",
            len, room);
        src->key = -1;
        src->key_refused = true;
        meant(src, s, key_length(s, len));
        return false;
    }
    if (indent)
        return check_continuation(src, s + indent, len - indent);
    return s[0] == '[' ? check_section(src, s, len) : check_assignment(src, s, len);
}

/* inih's reader, like fgets: refused lines reach it as empty ones. Its buffer is wiped of every line it has seen. */
static char *read_line(char *str, int num, void *stream)
{
    struct source *src = stream;
    secret_wipe(str, (size_t)num);
    if (src->at == src->len)
        return NULL;
    const char *s = src->text + src->at, *newline = memchr(s, '\n', src->len - src->at);
    size_t len = newline ? (size_t)(newline - s) : src->len - src->at, used = 0;
    src->at += len + (newline != NULL);
    src->line++;
    if (check_line(src, s, len, (size_t)num - 2)) {
        used = trimmed(s, len);
        memcpy(str, s, used);
    }
    str[used] = '\n';
    return str;
}

/* Puts a value, or what extends the last one, into the arena. */
static bool store(struct ini *ini, const char *value, size_t len, bool extend, const char **out)
{
    const char *glue = "";
    if (extend) {
        ini->used--; /* the NUL of the last value */
        glue = ini->arena[ini->used - 1] == ',' ? " " : ", ";
        if (ini->arena + ini->used == *out)
            glue = "";
    }
    size_t glue_len = strlen(glue);
    if (ini->size - ini->used < glue_len + len + 1)
        return false;
    char *at = ini->arena + ini->used;
    memcpy(at, glue, glue_len);
    memcpy(at + glue_len, value, len);
    at[glue_len + len] = '\0';
    ini->used += glue_len + len + 1;
    if (!extend)
        *out = at;
    return true;
}

static int handle(void *user, const char *section, const char *name, const char *value)
{
    struct source *src = user;
    (void)section; /* ours is the one with a line number */
    if (src->continuing) {
        size_t len = without_comment(value, strlen(value)); /* inih leaves comments in these lines */
        if (!store(src->ini, value, len, true, &src->section->value[src->key]))
            complain(src->load, src->line, "out of memory");
        return 1;
    }
    int key = key_find(src->section->kind, name);
    if (key < 0) {
        const char *near = key_unknown(src->load, src->section->kind, name, src->line);
        if (near)
            meant(src, near, strlen(near));
        return 1;
    }
    if (src->section->value[key]) {
        complain(src->load, src->line, "found '%s' again, expected it once: the first is on line %u", name,
                 src->section->line_of[key]);
        return 1;
    }
    if (!store(src->ini, value, strlen(value), false, &src->section->value[key]))
        complain(src->load, src->line, "out of memory");
    src->section->line_of[key] = src->line;
    src->key = key;
    src->key_refused = false;
    return 1;
}

enum err ini_read(struct loading *l, struct span text, struct ini *out)
{
    struct source src = {.load = l, .ini = out, .text = (const char *)text.data, .len = text.len, .key = -1};
    *out = (struct ini){.size = text.len * 2 + 64}; /* values, their NULs, and ", " where lines were joined */
    out->sections = calloc(count_headers(text) + 1, sizeof(*out->sections));
    out->arena = secret_alloc(out->size);
    if (!out->arena || !out->sections)
        return ERR_NOMEM;
    if (text.len >= 3 && memcmp(text.data, "\xef\xbb\xbf", 3) == 0)
        src.at = 3; /* a byte order mark */
    int refused = ini_parse_stream(read_line, &src, handle, &src);
    if (refused && l->errors == 0)
        complain(l, refused > 0 ? (unsigned)refused : 0, "found a line that the ini reader refuses");
    return OK;
}

void ini_free(struct ini *ini)
{
    hash_free(&ini->names);
    free(ini->sections);
    secret_free(ini->arena);
}

/* -- loading -- */

static void free_loading(struct loading *l)
{
    report_all(l);
    free(l);
}

/* Errors: NOMEM, RANGE (the name of the file). */
static enum err new_loading(const char *file, bool exposed, const struct config_report *report, struct loading **out)
{
    const char *slash = strrchr(file, '/');
    size_t folder = slash ? (size_t)(slash - file) + 1 : 0;
    if (strlen(file) >= sizeof(((struct config *)0)->file))
        return ERR_RANGE;
    struct loading *l = calloc(1, sizeof(*l));
    struct config *c = calloc(1, sizeof(*c));
    if (!l || !c) {
        free(l);
        free(c);
        return ERR_NOMEM;
    }
    memcpy(c->file, file, strlen(file));
    memcpy(l->folder, file, folder);
    l->report = report;
    l->file = c->file;
    l->exposed = exposed;
    l->config = c;
    *out = l;
    return OK;
}

static enum err load_text(struct loading *l, struct span text)
{
    struct ini ini = {0};
    enum err e = ini_read(l, text, &ini);
    if (e == OK)
        e = config_apply(l, &ini);
    ini_free(&ini);
    if (e == OK)
        config_check(l);
    return e != OK ? e : l->errors ? ERR_SYNTAX : OK;
}

/* Hands the configuration out, or frees it; reports. */
static enum err finish(struct loading *l, enum err e, struct config **out)
{
    struct config *c = l->config;
    free_loading(l);
    if (e == OK)
        *out = c;
    else
        config_free(c);
    return e;
}

enum err config_parse(struct span text, const char *file, bool exposed, const struct config_report *report,
                      struct config **out)
{
    struct loading *l;
    TRY(new_loading(file, exposed, report, &l));
    return finish(l, load_text(l, text), out);
}

/* Twice the room, with what is there already. */
static bool grow_text(char **text, size_t *room, size_t used)
{
    size_t more = *room ? *room * 2 : 64 * 1024;
    char *larger = secret_alloc(more);
    if (larger && used)
        memcpy(larger, *text, used);
    secret_free(*text);
    *text = larger;
    *room = more;
    return larger;
}

enum err read_file(int fd, char **out, size_t *len)
{
    char *text = NULL;
    size_t used = 0, room = 0;
    ssize_t n = 1;
    while (n && used <= CONFIG_FILE_MAX) {
        if (used == room && !grow_text(&text, &room, used))
            return ERR_NOMEM;
        n = read(fd, text + used, room - used);
        if (n < 0 && errno != EINTR)
            break;
        used += n > 0 ? (size_t)n : 0;
    }
    if (n < 0 || used > CONFIG_FILE_MAX) {
        secret_free(text);
        return n < 0 ? ERR_SYSTEM : ERR_RANGE;
    }
    *out = text;
    *len = used;
    return OK;
}

static void report_file(const struct config_report *report, const char *file, const char *problem)
{
    char text[128];
    snprintf(text, sizeof(text), "can't be read: %s", problem);
    report->error(report->ctx, file, 0, text);
}

enum err config_load(const char *file, const struct config_report *report, struct config **out)
{
    struct stat st = {0};
    char *text = NULL;
    size_t len = 0;
    struct loading *l;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        report_file(report, file, strerror(errno));
        if (fd >= 0)
            close(fd);
        return ERR_NOTFOUND;
    }
    enum err e = read_file(fd, &text, &len);
    int cause = errno;
    close(fd);
    if (e == OK)
        e = new_loading(file, S_ISREG(st.st_mode) && (st.st_mode & (S_IRGRP | S_IROTH)), report, &l);
    if (e != OK) {
        secret_free(text);
        report_file(report, file, e == ERR_SYSTEM ? strerror(cause) : e == ERR_RANGE ? "too large" : err_text(e));
        return e == ERR_NOMEM ? e : ERR_NOTFOUND;
    }
    e = load_text(l, span_of(text, len));
    secret_free(text);
    return finish(l, e, out);
}

void config_free(struct config *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < c->peer_count; i++) {
        auth_free(&c->peers[i]->auth, &c->host.auth);
        secret_free(c->peers[i]);
    }
    auth_free(&c->host.auth, NULL);
    for (unsigned i = 0; i < c->policy_count; i++)
        free(c->policies[i]);
    free(c->peers);
    free(c->policies);
    hash_free(&c->peer_names);
    hash_free(&c->policy_names);
    free(c);
}

const struct peer *config_peer(const struct config *c, const char *name)
{
    for (const struct hash_link *l = hash_find(&c->peer_names, hash_text(name)); l; l = hash_next(l)) {
        const struct peer *p = CONTAINER_OF(l, struct peer, by_name);
        if (strcmp(p->name, name) == 0)
            return p;
    }
    if (c->peer_names.count)
        return NULL;
    for (unsigned i = 0; i < c->peer_count; i++)
        if (strcmp(c->peers[i]->name, name) == 0)
            return c->peers[i];
    return NULL;
}

const struct policy *config_policy(const struct config *c, const char *name)
{
    for (const struct hash_link *l = hash_find(&c->policy_names, hash_text(name)); l; l = hash_next(l)) {
        const struct policy *p = CONTAINER_OF(l, struct policy, by_name);
        if (strcmp(p->name, name) == 0)
            return p;
    }
    if (c->policy_names.count)
        return NULL;
    for (unsigned i = 0; i < c->policy_count; i++)
        if (strcmp(c->policies[i]->name, name) == 0)
            return c->policies[i];
    return NULL;
}
