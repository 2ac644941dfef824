/* The gate: what a created container, a foreground `run` and an `exec` wait in, and what then becomes
 * the user's program. No libc, no data segment, no interpreter: init execveat()s it from a sealed,
 * unreadable memfd, so what a container can reach through /proc/PID is these few KiB.
 *
 * AT_EXECFN says "/dev/fd/E"; fd E is gone by then (close-on-exec), fd E+1 is the record
 * (gate_record.h), fd E+2 the channel to main. argv and envp are already the user's.
 *
 *   gate → main   "P"+u32 pid  "R" ready  "F"+u8 step+i32 errno
 *   main → gate   "C" commit   "G" go
 *   start → gate  "S" on the container's socket; back comes EOF (the program runs) or "F"
 *
 * Built by native/build.py. -z noseparate-code there makes it one segment, that is two pages.
 */
#include <asm/ioctls.h>
#include <asm/poll.h>
#include <asm/signal.h>
#include <linux/auxvec.h>
#include <linux/capability.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched.h>
#include <linux/seccomp.h>

#include "gate_calls.h"
#include "gate_record.h"

#ifndef SECCOMP_FILTER_FLAG_NEW_LISTENER
#define SECCOMP_FILTER_FLAG_NEW_LISTENER (1UL << 3)
#endif

/* From headers that need a libc. */
enum { SOL_SOCKET_ = 1, SO_PEERCRED_ = 17, SCM_RIGHTS_ = 1 };
enum { MSG_DONTWAIT_ = 0x40, MSG_NOSIGNAL_ = 0x4000 };
enum { PROC_MAGIC = 0x9fa0, RANGE_CLOEXEC = 4, NO_XDEV_NO_MAGICLINKS = 3, KEEP_OPEN_MAX = 1024 };
#define SOCK_CLOEXEC_ O_CLOEXEC

/* The names of these for people: STEPS in processes/gate.py. */
enum {
    STEP_RECORD = 1, STEP_CLONE, STEP_TERMINAL, STEP_HOOK, STEP_HOOK_TIMEOUT, STEP_LABEL,
    STEP_NOFILE,
    STEP_BOUNDING, STEP_GROUPS, STEP_GID, STEP_UID, STEP_CAPABILITIES, STEP_AMBIENT, STEP_CWD,
    STEP_NO_NEW_PRIVS, STEP_SECCOMP, STEP_LISTENER, STEP_EXECVE, STEP_CLIENT,
};

struct gate {
    struct record record;
    struct blob listener_state; /* the JSON that goes with the seccomp listener */
    char **argv, **envp;
    int report;   /* where failures are told: the channel, later start's connection */
    int filtered; /* the user's filter is loaded: only calls that it is likely to allow */
};

struct listener { /* shared with the helper thread */
    struct gate *gate;
    volatile long fd;   /* one more than the fd; 0 while there is none */
    volatile long sent; /* 1 or -errno once the helper is through */
};

static _Noreturn void leave(int code)
{
    call(exit_group, code);
    call(exit, code); /* a filter may know only this one */
    for (;;)
        __builtin_trap();
}

static long tell(struct gate *g, const void *message, long size)
{
    if (g->filtered) /* a profile that lets a program run lets it write, sendto less surely */
        return call(write, g->report, message, size);
    return call(sendto, g->report, message, size, MSG_NOSIGNAL_, 0, 0);
}

/* result: -errno; for a hook that ran, its exit code or 128+signal. */
static void tell_failure(struct gate *g, __u8 step, long result)
{
    __s32 error = (__s32)-result;
    __u8 message[6] = { 'F', step };
    memcpy(message + 2, &error, 4);
    tell(g, message, sizeof message);
}

static _Noreturn void fail(struct gate *g, __u8 step, long result)
{
    tell_failure(g, step, result);
    leave(step != STEP_EXECVE ? 1 : result == -ENOENT ? 127 : 126);
}

static long must(struct gate *g, __u8 step, long result)
{
    if (result < 0)
        fail(g, step, result);
    return result;
}

/* Every fd from `first` on goes with the next execve. Before 5.11: one by one, as far as usual. */
static void cloexec_from(long first)
{
    if (call(close_range, first, ~0U, RANGE_CLOEXEC) == 0)
        return;
    for (long fd = first; fd < first + KEEP_OPEN_MAX; fd++)
        call(fcntl, fd, F_SETFD, FD_CLOEXEC);
}

static void set_action(int signal, void *handler)
{
    struct { void *handler; unsigned long flags; void *restorer; __u64 mask; } action = { 0 };
    action.handler = handler;
    call(rt_sigaction, signal, &action, 0, 8);
}

static void reset_signals(void)
{
    __u64 none = 0;
    for (int signal = 1; signal <= 64; signal++)
        set_action(signal, SIG_DFL);
    call(rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
}

static void *map(unsigned long size, int flags)
{
    long at = call(mmap, 0, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    return at < 0 && at > -4096 ? 0 : (void *)at;
}

/* ---- life before the start ---- */

static __u64 capabilities(__u64 *inheritable)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2] = { { 0, 0, 0 }, { 0, 0, 0 } };
    call(capget, &header, data);
    *inheritable = data[0].inheritable | (__u64)data[1].inheritable << 32;
    return data[0].permitted | (__u64)data[1].permitted << 32;
}

static long set_capabilities(__u64 effective, __u64 permitted, __u64 inheritable)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2] = {
        { (__u32)effective, (__u32)permitted, (__u32)inheritable },
        { (__u32)(effective >> 32), (__u32)(permitted >> 32), (__u32)(inheritable >> 32) },
    };
    return call(capset, &header, data);
}

/* All of a memfd, which is closed. */
static struct blob read_memfd(struct gate *g, long fd)
{
    long size = call(lseek, fd, 0, 2 /* SEEK_END */), done = 0;
    __u8 *bytes = size > 0 && size <= GATE_MAX_SIZE ? map(size, MAP_PRIVATE) : 0;

    while (bytes && done < size) {
        long n = call(pread64, fd, bytes + done, size - done, done);
        if (n <= 0 && n != -EINTR)
            break;
        done += n > 0 ? n : 0;
    }
    if (!bytes || done != size)
        fail(g, STEP_RECORD, -EINVAL);
    call(close, fd);
    return (struct blob){ bytes, (__u32)size };
}

/* A process that joined a pid namespace stays outside; its child is inside and main's child like it. */
static void enter_pid_namespace(struct gate *g)
{
    int order[2]; /* the child says READY only after P was sent */
    __u8 message[5] = { 'P' };
    char nothing;

    must(g, STEP_CLONE, call(pipe2, order, O_CLOEXEC));
    __s32 pid = must(g, STEP_CLONE, call(clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0));
    if (pid) {
        memcpy(message + 1, &pid, 4);
        leave(tell(g, message, sizeof message) < 0);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    call(close, order[1]);
    call(read, order[0], &nothing, 1);
    call(close, order[0]);
}

/* Waits for one byte from main; when main is gone, so are we, and nobody is left to be told. */
static void await(struct gate *g, char wanted)
{
    char byte = 0;
    long n;
    do
        n = call(read, g->record.fixed.channel, &byte, 1);
    while (n == -EINTR);
    if (n != 1 || byte != wanted)
        leave(1);
    prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
}

static long poll_one(long fd, int events, long milliseconds)
{
    struct pollfd wait = { (int)fd, (short)events, 0 };
    long time[2] = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
    return call(ppoll, &wait, 1, time, 0, 8);
}

/* 0, or -errno where this is nobody who may say start, or somebody who does not. */
static long hear_start(struct gate *g, long client)
{
    struct { __s32 pid; __u32 uid, gid; } peer = { 0, 0, 0 };
    __u32 size = sizeof peer, uid;
    char bytes[2] = { 0, 0 };
    struct blob peers = g->record.peers;

    if (call(getsockopt, client, SOL_SOCKET_, SO_PEERCRED_, &peer, &size) < 0)
        return -EPERM;
    do
        if (!take_u32(&peers, &uid))
            return -EPERM;
    while (uid != peer.uid);
    if (poll_one(client, POLLIN, g->record.fixed.deadline_ms) != 1)
        return -ETIMEDOUT;
    long n = call(recvfrom, client, bytes, 2, MSG_DONTWAIT_, 0, 0);
    return n == 1 && bytes[0] == 'S' ? 0 : -EPROTO;
}

/* One client at a time. The one that says "S" in time is told how it went; the others are told that
 * it was not them, since a bare end of file would mean success. */
static void await_start(struct gate *g)
{
    for (;;) {
        long client = call(accept4, g->record.fixed.socket, 0, 0, SOCK_CLOEXEC_);
        if (client == -ENOMEM || client == -ENOBUFS || client == -EMFILE || client == -ENFILE ||
            client == -EAGAIN)
            poll_one(-1, 0, 10); /* passes: not ours to die of */
        else if (client < 0 && client != -EINTR && client != -ECONNABORTED)
            leave(1);
        if (client < 0)
            continue;
        g->report = (int)client;
        long result = hear_start(g, client);
        if (!result)
            break;
        call(shutdown, client, 0 /* SHUT_RD */);
        tell_failure(g, STEP_CLIENT, result);
        call(recvfrom, client, &result, sizeof result, MSG_DONTWAIT_, 0, 0); /* or close resets it */
        call(close, client);
    }
    call(close, g->record.fixed.socket);
}

/* ---- startContainer hooks ---- */

static long count_texts(struct blob texts)
{
    long count = 0;
    for (__u32 i = 0; i < texts.size; i++)
        count += !texts.at[i];
    return count;
}

/* Fills `to` with pointers to the strings and a NULL; returns the slot after it. */
static const __u8 **point(const __u8 **to, struct blob texts)
{
    for (__u32 i = 0; i < texts.size; i++)
        if (!i || !texts.at[i - 1])
            *to++ = texts.at + i;
    *to++ = 0;
    return to;
}

static __s64 now_ms(void)
{
    long time[2];
    call(clock_gettime, 1 /* CLOCK_MONOTONIC */, time);
    return time[0] * 1000 + time[1] / 1000000;
}

/* In the hook's process: stdin is the state, capabilities are the gate's without inheritable ones. */
static _Noreturn void become_hook(struct hook *hook, long input, const __u8 **argv,
                                  const __u8 **envp, volatile long *error)
{
    __u64 inheritable, permitted = capabilities(&inheritable);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    set_capabilities(permitted, permitted, 0);
    call(dup3, input, 0, 0);
    call(chdir, "/");
    reset_signals();
    cloexec_from(3);
    *error = call(execve, hook->path.at, argv, envp);
    leave(127);
}

/* Writes the state while the hook lives (it may be longer than a pipe holds); 0 when time was up. */
static int feed(struct gate *g, struct hook *hook, long pidfd, long output)
{
    struct blob rest = g->record.state;
    __s64 end = now_ms() + hook->timeout * 1000LL;
    struct pollfd wait[2] = { { (int)pidfd, POLLIN, 0 }, { (int)output, POLLOUT, 0 } };

    for (;;) {
        if (!rest.size && wait[1].fd >= 0) { /* end of file for the hook */
            call(close, output);
            wait[1].fd = -1;
        }
        __s64 left = end - now_ms();
        long time[2] = { left / 1000, left % 1000 * 1000000 };
        int over = hook->timeout && left <= 0;
        long ready = over ? 0 : call(ppoll, wait, 2, hook->timeout ? time : 0, 0, 8);
        if (over || (ready > 0 && wait[0].revents)) {
            if (wait[1].fd >= 0)
                call(close, output);
            return !over;
        }
        if (ready <= 0 || !wait[1].revents)
            continue;
        long n = call(write, output, rest.at, rest.size);
        if (n == -EAGAIN || n == -EINTR)
            continue;
        n = n > 0 ? n : rest.size; /* EPIPE: the hook does not want to know */
        rest.at += n;
        rest.size -= n;
    }
}

static void run_hook(struct gate *g, struct hook *hook)
{
    struct blob args = hook->args.size ? hook->args : hook->path;
    unsigned long size = 8 * (count_texts(args) + count_texts(hook->env) + 3);
    volatile long *error = map(size, MAP_SHARED); /* the hook's process writes why execve failed */
    int input[2], status = 0;

    if (!error)
        fail(g, STEP_HOOK, -ENOMEM);
    const __u8 **argv = (const __u8 **)(error + 1), **envp = point(argv, args);
    point(envp, hook->env);
    must(g, STEP_HOOK, call(pipe2, input, O_CLOEXEC | O_NONBLOCK));
    call(fcntl, input[0], F_SETFL, 0);
    long pid = must(g, STEP_HOOK, call(clone, SIGCHLD, 0, 0, 0, 0));
    if (!pid)
        become_hook(hook, input[0], argv, envp, error);
    call(close, input[0]);
    long pidfd = call(pidfd_open, pid, 0);
    int in_time = pidfd >= 0 && feed(g, hook, pidfd, input[1]);
    if (!in_time)
        call(kill, pid, SIGKILL);
    while (call(wait4, pid, &status, 0, 0) == -EINTR)
        ;
    must(g, STEP_HOOK, pidfd);
    if (!in_time)
        fail(g, STEP_HOOK_TIMEOUT, -ETIMEDOUT);
    must(g, STEP_HOOK, *error);
    if (status)
        fail(g, STEP_HOOK, status & 0x7f ? 128 + (status & 0x7f) : status >> 8);
    call(close, pidfd);
    call(munmap, error, size);
}

static void run_hooks(struct gate *g)
{
    struct blob rest = g->record.hooks;
    struct hook hook;
    set_action(SIGPIPE, SIG_IGN);
    while (take_hook(&rest, &hook))
        run_hook(g, &hook);
}

/* ---- from the gate to the user's program ---- */

/* The label is written to procfs and nothing else: no mount below proc_dir is crossed (CVE-2019-16884). */
static void set_label(struct gate *g)
{
    struct record *r = &g->record;
    struct { __u64 flags, mode, resolve; } how = { O_WRONLY | O_CLOEXEC, 0, NO_XDEV_NO_MAGICLINKS };
    char path[24] = "self/attr/";
    long filesystem[16];

    if (!r->label_name.size)
        return;
    memcpy(path + 10, r->label_name.at, r->label_name.size);
    long fd = call(openat2, r->fixed.proc_dir, path, &how, sizeof how);
    if (fd == -ENOSYS || fd == -EPERM)
        fd = call(openat, r->fixed.proc_dir, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    must(g, STEP_LABEL, fd);
    must(g, STEP_LABEL, call(fstatfs, fd, filesystem));
    if (filesystem[0] != PROC_MAGIC)
        fail(g, STEP_LABEL, -EXDEV);
    long n = must(g, STEP_LABEL, call(write, fd, r->label.at, r->label.size));
    if (n != r->label.size)
        fail(g, STEP_LABEL, -EIO);
    call(close, fd);
}

static void set_identity(struct gate *g)
{
    struct fixed *f = &g->record.fixed;

    for (int cap = 0; cap < 64; cap++)
        if (!(f->bounding >> cap & 1) && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
            must(g, STEP_BOUNDING, prctl(PR_CAPBSET_DROP, cap, 0, 0, 0));
    if (f->flags & FLAG_GROUPS)
        must(g, STEP_GROUPS, call(setgroups, g->record.groups.size / 4, g->record.groups.at));
    must(g, STEP_CAPABILITIES, prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
    must(g, STEP_GID, call(setresgid, f->gid, f->gid, f->gid));
    must(g, STEP_UID, call(setresuid, f->uid, f->uid, f->uid));
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* new ids brought fs.suid_dumpable */
}

/* The directory is below the root that we see: "(unreachable)..." is not (CVE-2024-21626). */
static void set_cwd(struct gate *g)
{
    char path[4096];
    if (g->record.cwd.size)
        must(g, STEP_CWD, call(chdir, g->record.cwd.at));
    must(g, STEP_CWD, call(getcwd, path, sizeof path));
    if (path[0] != '/')
        fail(g, STEP_CWD, -ENOENT);
}

/* The helper thread has no filter, so it can send the listener whatever the filter stops. It shares the
 * fds, and as a thread it leaves no zombie; the gate makes no call until it is through. */
static _Noreturn void send_listener(struct listener *l)
{
    struct blob state = l->gate->listener_state;
    struct { __u64 length; __s32 level, type, fd, pad; } control = { 20, SOL_SOCKET_, SCM_RIGHTS_, 0, 0 };
    struct { const void *at; unsigned long size; } data = { state.at, state.size };
    struct { void *name; __u64 name_size; void *data; __u64 count; void *control; __u64 size, flags; }
        message = { 0, 0, &data, 1, &control, sizeof control, 0 };
    long n = 0;

    while (!__atomic_load_n(&l->fd, __ATOMIC_ACQUIRE))
        call(sched_yield, 0); /* the filter is the gate's very next call */
    control.fd = (__s32)l->fd - 1;
    while (data.size) {
        n = call(sendmsg, l->gate->record.fixed.listener, &message, MSG_NOSIGNAL_);
        if (n <= 0 && n != -EINTR)
            break;
        data.at = (const __u8 *)data.at + (n > 0 ? n : 0);
        data.size -= n > 0 ? n : 0;
        message.size = n > 0 ? 0 : message.size;
    }
    call(close, l->gate->record.fixed.listener); /* the agent may wait for the end before it answers */
    call(close, l->fd - 1);
    __atomic_store_n(&l->sent, n < 0 ? n : 1, __ATOMIC_RELEASE);
    for (;;)
        call(exit, 0);
}

static void load_filter(struct gate *g)
{
    struct record *r = &g->record;
    struct { __u16 count; const void *code; } program = { (__u16)(r->filter.size / 8), r->filter.at };
    unsigned long flags = r->fixed.filter_flags;
    struct listener l = { g, 0, 0 };
    __u64 stack[256] __attribute__((aligned(16)));

    if (r->fixed.listener >= 0) {
        flags = (flags | SECCOMP_FILTER_FLAG_NEW_LISTENER) & ~(unsigned long)SECCOMP_FILTER_FLAG_TSYNC;
        stack[254] = (__u64)&l;
        stack[255] = (__u64)send_listener;
        must(g, STEP_LISTENER, call_thread(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD,
                           (long *)&stack[254]));
    }
    long fd = call(seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    must(g, STEP_SECCOMP, fd);
    g->filtered = 1;
    if (r->fixed.listener < 0)
        return;
    __atomic_store_n(&l.fd, fd + 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&l.sent, __ATOMIC_ACQUIRE))
        ;
    must(g, STEP_LISTENER, l.sent);
}

static _Noreturn void become_program(struct gate *g)
{
    struct record *r = &g->record;
    struct fixed *f = &r->fixed;
    __u64 inheritable, extra = 0;

    run_hooks(g);
    set_label(g);
    if (f->flags & FLAG_NOFILE) /* while CAP_SYS_RESOURCE is held, after the last open */
        must(g, STEP_NOFILE, call(prlimit64, 0, RLIMIT_NOFILE, &f->nofile_soft, 0));
    set_identity(g);
    if (r->filter.size && !(f->flags & FLAG_NO_NEW_PRIVILEGES))
        extra = capabilities(&inheritable) & 1ULL << CAP_SYS_ADMIN;
    must(g, STEP_CAPABILITIES, set_capabilities(f->effective | extra, f->permitted | extra, f->inheritable));
    for (int cap = 0; cap < 64; cap++)
        if (f->ambient >> cap & 1)
            must(g, STEP_AMBIENT, prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0));
    set_cwd(g);
    reset_signals();
    cloexec_from(3 + f->preserve);
    if (f->flags & FLAG_NO_NEW_PRIVILEGES)
        must(g, STEP_NO_NEW_PRIVS, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));

    /* From here on the filter judges us: capset and execve are all that it has to allow. */
    if (r->filter.size)
        load_filter(g);
    if (extra & ~(f->effective & f->permitted))
        must(g, STEP_CAPABILITIES, set_capabilities(f->effective, f->permitted, f->inheritable));
    fail(g, STEP_EXECVE, call(execve, r->path.at, g->argv, g->envp));
}

/* E from "/dev/fd/E", or -1: nobody but init has any business to start this. */
static long own_fd(const char *name)
{
    const char *prefix = "/dev/fd/";
    long fd = 0;
    while (*prefix)
        if (!name || *name++ != *prefix++)
            return -1;
    for (; *name >= '0' && *name <= '9' && fd < 1 << 24; name++)
        fd = fd * 10 + *name - '0';
    return *name || fd < 3 ? -1 : fd;
}

/* stack: argc, argv..., NULL, envp..., NULL, pairs of the auxiliary vector up to AT_NULL. */
_Noreturn void enter(long *stack)
{
    struct gate gate, *g = &gate;
    struct fixed *f = &g->record.fixed;
    const char *name = 0;

    g->argv = (char **)(stack + 1);
    g->envp = g->argv + stack[0] + 1;
    long *pair = (long *)g->envp;
    while (*pair++)
        ;
    for (; *pair != AT_NULL; pair += 2)
        if (*pair == AT_EXECFN)
            name = (const char *)pair[1];
    long own = own_fd(name);
    if (own < 0)
        leave(1);
    g->report = (int)own + 2;
    g->filtered = 0;

    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    prctl(PR_SET_NAME, "pyoki:[2:GATE]", 0, 0, 0);
    struct blob bytes = read_memfd(g, own + 1);
    if (!parse_record(bytes.at, bytes.size, &g->record))
        fail(g, STEP_RECORD, -EINVAL);
    g->report = f->channel;
    cloexec_from(3 + f->preserve);
    reset_signals(); /* main or init may have blocked what shall be able to end a waiting gate */

    if (f->flags & FLAG_FORK)
        enter_pid_namespace(g);
    if (f->flags & FLAG_SESSION)
        call(setsid, 0); /* EPERM: leads one already */
    if (f->flags & FLAG_TERMINAL)
        must(g, STEP_TERMINAL, call(ioctl, 0, TIOCSCTTY, 0));
    if (tell(g, "R", 1) != 1)
        leave(1);

    if (f->mode != MODE_EXEC)
        await(g, 'C');
    if (f->mode != MODE_CREATE)
        await(g, 'G');
    if (f->listener >= 0) /* main, which alone knows our pid as the agent sees it, has written it */
        g->listener_state = read_memfd(g, f->listener_state);
    if (f->mode == MODE_CREATE) {
        call(close, f->channel);
        await_start(g);
    }
    become_program(g);
}
