#include "core/report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/daemon.h"
#include "core/flow_log.h"

static void audit_record(struct daemon *d, struct span record)
{
    struct audit_event e;
    char text[AUDIT_TEXT];
    memcpy(&e, record.data, sizeof e);
    const struct policy *policy = dataplane_policy(d->dataplane, e.policy_id);
    const struct sa *sa = e.spi ? sad_find_in(d->shared.sad, e.spi) : NULL;
    if (!sa && e.spi && policy)
        sa = sad_find_out(d->shared.sad, e.policy_id, 0);
    log_line(LOG_INFO, "audit", "%s",
             audit_format(&e, policy ? policy->name : NULL, sa ? &sa->params.local : NULL,
                          sa ? &sa->params.remote : NULL, text));
}

/* One write a line, so that whoever reads along never sees half of one. */
static void flow_write(struct daemon *d, char *text)
{
    size_t len = strlen(text);
    text[len] = '\n'; /* the NUL's place */
    if (write(d->flow_fd, text, len + 1) != (ssize_t)len + 1)
        log_limited(&d->limit, LOG_WARN, "core", "%s: a flow could not be written: %s", d->config->host.flow_log,
                    strerror(errno));
}

static void flow_record(struct daemon *d, struct span record)
{
    struct flow_record r;
    memcpy(&r, record.data, sizeof r);
    const struct policy *policy = dataplane_policy(d->dataplane, r.policy_id);
    char *text = flow_format(&r, policy ? policy->name : NULL, policy && policy->peer ? policy->peer->name : NULL,
                             clock_now(), clock_wall());
    if (text && d->flow_fd >= 0)
        flow_write(d, text);
    else if (text)
        log_line(LOG_INFO, "flow", "%s", text);
    free(text);
}

bool report_record(struct daemon *d, uint32_t type, struct span record)
{
    if (type == WORKER_AUDIT && record.len >= sizeof(struct audit_event))
        audit_record(d, record);
    else if (type == WORKER_FLOW && record.len >= sizeof(struct flow_record))
        flow_record(d, record);
    else
        return false;
    return true;
}

static void drain(struct daemon *d, struct worker *w)
{
    uint32_t type;
    struct span record;
    while (ring_peek(worker_ring(w), &type, &record)) {
        (void)report_record(d, type, record); /* nobody is there for the others any more */
        ring_pop(worker_ring(w));
    }
}

void report_last(struct daemon *d)
{
    for (unsigned i = 0; i < d->worker_count; i++) {
        drain(d, d->workers[i]);
        worker_flows_end(d->workers[i]);
        drain(d, d->workers[i]);
    }
}

enum err report_open(struct daemon *d)
{
    int fd = -1;
    const char *path = d->config->host.flow_log;
    if (path[0] && (fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600)) < 0)
        return ERR_SYSTEM;
    report_close(d);
    d->flow_fd = fd;
    return OK;
}

void report_close(struct daemon *d)
{
    if (d->flow_fd >= 0)
        close(d->flow_fd);
    d->flow_fd = -1;
}
