#include "tun/rp_filter.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CONF "/proc/sys/net/ipv4/conf"
#define STRICT '1'
#define LOOSE '2'

static bool setting_path(char *path, size_t size, const char *interface, const char *key)
{
    int n = snprintf(path, size, CONF "/%s/%s", interface, key);
    return n > 0 && (size_t)n < size;
}

/* The setting's one digit, or 0. */
static char setting_read(const char *interface, const char *key)
{
    char path[128], value = 0;
    if (!setting_path(path, sizeof path, interface, key))
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (read(fd, &value, 1) != 1)
        value = 0;
    (void)close(fd);
    return value;
}

static bool setting_write(const char *interface, const char *key, char value)
{
    char path[128];
    if (!setting_path(path, sizeof path, interface, key))
        return false;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool ok = write(fd, &value, 1) == 1;
    (void)close(fd);
    return ok;
}

static bool is_noted(const struct rp_filter *r, const char *interface)
{
    for (unsigned i = 0; i < r->count; i++)
        if (strcmp(r->names[i], interface) == 0)
            return true;
    return false;
}

static bool loosen_one(struct rp_filter *r, const char *interface)
{
    size_t len = strlen(interface);
    bool noted = is_noted(r, interface);
    if ((!noted && r->count == RP_FILTER_MAX) || len >= IFNAMSIZ || setting_read(interface, "rp_filter") != STRICT ||
        !setting_write(interface, "rp_filter", LOOSE))
        return false;
    if (!noted)
        memcpy(r->names[r->count++], interface, len + 1);
    return true;
}

bool rp_filter_loosen(struct rp_filter *r)
{
    /* The greater of "all" and the interface's own value counts: a loose "all" is enough for every interface. */
    bool changed = loosen_one(r, "all");
    if (setting_read("all", "rp_filter") != LOOSE) {
        DIR *d = opendir(CONF);
        for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
            if (e->d_name[0] != '.' && strcmp(e->d_name, "default") != 0)
                changed |= loosen_one(r, e->d_name);
        if (d)
            (void)closedir(d);
    }
    if (r->count && setting_read("all", "src_valid_mark") == '0' && setting_write("all", "src_valid_mark", '1'))
        r->mark = changed = true;
    return changed;
}

void rp_filter_restore(struct rp_filter *r)
{
    if (r->mark)
        (void)setting_write("all", "src_valid_mark", '0');
    while (r->count)
        (void)setting_write(r->names[--r->count], "rp_filter", STRICT);
    r->mark = false;
}
