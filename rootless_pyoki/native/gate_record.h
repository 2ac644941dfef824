/* The gate's record: its layout and the parser, without a single system call, so that the same lines
 * are built hosted for sanitizers and fuzzing (tests/native). Written by processes/gate.py encode().
 *
 *   struct fixed (128 bytes, native byte order), then blobs, each u32 length + that many bytes:
 *   path, cwd, groups (u32 each), filter (struct sock_filter each), peer uids (u32 each), label's name,
 *   label's value, state; then for each hook: u32 timeout in seconds, path, args, env.
 *   path, cwd and the label's name carry their NUL; args and env are NUL-terminated strings in a row.
 */
#ifndef GATE_RECORD_H
#define GATE_RECORD_H

#include <linux/types.h>

#define GATE_MAGIC 0x65746147u /* "Gate" */
#define GATE_VERSION 2u
#define GATE_MAX_SIZE (16u << 20)

enum { MODE_CREATE = 1, MODE_RUN = 2, MODE_EXEC = 3 };
enum {
    FLAG_FORK = 1,
    FLAG_SESSION = 2,
    FLAG_TERMINAL = 4,
    FLAG_NO_NEW_PRIVILEGES = 8,
    FLAG_GROUPS = 16,
    FLAG_NOFILE = 32,
    FLAGS_KNOWN = 63,
};

struct fixed {
    __u32 magic, version, size, mode, flags, uid, gid, preserve, deadline_ms, filter_flags, hooks, zero;
    __s32 channel, socket, lock, proc_dir, listener, listener_state;
    __u64 bounding, effective, inheritable, permitted, ambient, nofile_soft, nofile_hard;
};
_Static_assert(sizeof(struct fixed) == 128, "processes/gate.py writes 128 bytes");

struct blob {
    const __u8 *at;
    __u32 size;
};

struct record {
    struct fixed fixed;
    struct blob path, cwd, groups, filter, peers, label_name, label, state, hooks;
};

struct hook {
    __u32 timeout;
    struct blob path, args, env;
};

static int take_u32(struct blob *rest, __u32 *value)
{
    if (rest->size < 4)
        return 0;
    __builtin_memcpy(value, rest->at, 4);
    rest->at += 4;
    rest->size -= 4;
    return 1;
}

static int take(struct blob *rest, struct blob *out)
{
    if (!take_u32(rest, &out->size) || out->size > rest->size)
        return 0;
    out->at = rest->at;
    rest->at += out->size;
    rest->size -= out->size;
    return 1;
}

/* Exactly one NUL, at the end. */
static int is_text(struct blob text)
{
    __u32 i = 0;
    while (i < text.size && text.at[i])
        i++;
    return text.size && i == text.size - 1;
}

static int is_absolute(struct blob text)
{
    return is_text(text) && text.at[0] == '/';
}

static int is_texts(struct blob texts)
{
    return !texts.size || !texts.at[texts.size - 1];
}

/* label_name is one of the two files below /proc/self/attr that act on the next execve. */
static int is_label_name(struct blob name)
{
    static const char names[2][14] = { "exec", "apparmor/exec" };
    for (int which = 0; which < 2; which++) {
        __u32 i = 0;
        while (i < name.size && i < sizeof names[0] && name.at[i] == (__u8)names[which][i])
            i++;
        if (is_text(name) && i == name.size)
            return 1;
    }
    return 0;
}

static int take_hook(struct blob *rest, struct hook *hook)
{
    return take_u32(rest, &hook->timeout) && take(rest, &hook->path) && take(rest, &hook->args) &&
           take(rest, &hook->env) && is_absolute(hook->path) && is_texts(hook->args) &&
           is_texts(hook->env);
}

/* Descriptors: the channel always, the socket in CREATE, the others where given (-1: not). */
static int fds_fit(const struct fixed *f)
{
    const __s32 fds[] = { f->channel, f->socket, f->lock, f->proc_dir, f->listener, f->listener_state };
    if (f->preserve > (1u << 20) || f->channel < 0 || (f->mode == MODE_CREATE && f->socket < 0))
        return 0;
    for (unsigned i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] < -1 || (fds[i] >= 0 && (__u32)fds[i] < 3 + f->preserve))
            return 0;
    return 1;
}

/* 1 and a filled record, or 0 where anything at all is not as it must be. */
static int parse_record(const __u8 *bytes, __u32 size, struct record *r)
{
    struct blob rest = { bytes, size };
    struct fixed *f = &r->fixed;
    struct hook hook;

    if (size < sizeof *f)
        return 0;
    __builtin_memcpy(f, bytes, sizeof *f);
    rest.at += sizeof *f;
    rest.size -= sizeof *f;
    if (f->magic != GATE_MAGIC || f->version != GATE_VERSION || f->size != size ||
        f->mode < MODE_CREATE || f->mode > MODE_EXEC || (f->flags & ~FLAGS_KNOWN) || f->zero ||
        !fds_fit(f))
        return 0;
    if (!take(&rest, &r->path) || !take(&rest, &r->cwd) || !take(&rest, &r->groups) ||
        !take(&rest, &r->filter) || !take(&rest, &r->peers) || !take(&rest, &r->label_name) ||
        !take(&rest, &r->label) || !take(&rest, &r->state))
        return 0;
    if (!is_absolute(r->path) || (r->cwd.size && !is_absolute(r->cwd)) || r->groups.size % 4 ||
        r->groups.size > 65536 * 4 || r->filter.size % 8 || r->filter.size > 4096 * 8 ||
        r->peers.size % 4 || (r->label_name.size && !is_label_name(r->label_name)) ||
        (r->label_name.size && f->proc_dir < 0) || (f->listener >= 0 && !r->filter.size) ||
        (f->listener >= 0) != (f->listener_state >= 0))
        return 0;
    r->hooks = rest;
    for (__u32 i = 0; i < f->hooks; i++)
        if (!take_hook(&rest, &hook))
            return 0;
    return !rest.size;
}

#endif
