/*
 * `adit capture`: a client of the control socket gets a line of JSON, and after it the packets of one peer as pcapng, until
 * it closes its direction or has as many as it wanted. Control thread.
 */
#ifndef ADIT_CAPTURE_H
#define ADIT_CAPTURE_H

#include "core/control.h"

struct daemon;

/* {"command": "capture", "peer": NAME, "side": "plain" | "wire", "count": N}; without count there is no end. */
void capture_request(struct daemon *d, struct control_client *client, const json_t *request);
/* Between turns: hands on what the workers have copied meanwhile. */
void captures_turn(struct daemon *d);

#endif
