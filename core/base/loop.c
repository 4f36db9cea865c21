#include "core/base/loop.h"

#include "core/base/loop_msg.h"
#include <stdio.h>

enum err loop_init(struct loop *l, const struct loop_ops *ops, const struct loop_hooks *hooks)
{
    /* Pages come as they are touched, and the last slot given back is taken first: an idle loop costs no memory. */
    size_t size = (size_t)LOOP_SLOTS * LOOP_SLOT_SIZE;
    void *memory = msg_map(size);
    if (!memory)
        return ERR_NOMEM;
    *l = (struct loop){.ops = ops, .slot_memory = memory, .free_count = LOOP_SLOTS};
    if (hooks)
        l->hooks = *hooks;
    for (uint32_t i = 0; i < LOOP_SLOTS; i++) {
        l->slots[i] = (struct loop_slot){.data = l->slot_memory + (size_t)i * LOOP_SLOT_SIZE, .refs = 0, .index = i};
        l->free_list[i] = LOOP_SLOTS - 1 - i;
    }
    return OK;
}

void loop_fini(struct loop *l)
{
    msg_unmap(l->slot_memory, (size_t)LOOP_SLOTS * LOOP_SLOT_SIZE);
    l->slot_memory = NULL;
}

struct loop_slot *loop_slot_get(struct loop *l)
{
    if (l->free_count == 0)
        return NULL;
    struct loop_slot *s = &l->slots[l->free_list[--l->free_count]];
    s->refs = 1;
    return s;
}

void loop_slot_put(struct loop *l, struct loop_slot *s)
{
    if (--s->refs == 0)
        l->free_list[l->free_count++] = s->index;
}

enum err loop_new(enum loop_kind kind, const struct loop_hooks *hooks, struct loop **out, char *why, size_t why_size)
{
    char refusal[160] = "";
    if (kind != LOOP_EPOLL) {
        enum err e = loop_uring_new(hooks, out, refusal, sizeof refusal);
        if (e == OK || kind == LOOP_URING) {
            (void)snprintf(why, why_size, "%s", refusal);
            return e;
        }
    }
    TRY(loop_epoll_new(hooks, out));
    if (kind == LOOP_EPOLL)
        (void)snprintf(why, why_size, "epoll, as configured");
    else
        (void)snprintf(why, why_size, "epoll, since %s", refusal);
    return OK;
}
