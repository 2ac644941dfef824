/* Thin system calls for rootless_pyoki.kernel, compiled by cffi into rootless_pyoki.native._syscalls.
 *
 * Each function makes one call and returns its result or -errno: the caller in Python must not look
 * at errno, since cffi takes the GIL again in between. No policy, no retry. Two are more than a call:
 * pk_clone() forks the interpreter properly, pk_spawn() starts a helper without stopping the caller.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/nsfs.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "syscalls.h"

/* Numbers since Linux 5.1 are the same on every architecture but alpha; old headers lack them. */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

#define KERNEL_SIGSET 8 /* bytes; 64 signals on both architectures */
#define INTO_CGROUP 0x200000000ULL /* CLONE_INTO_CGROUP, Linux 5.7 */
#define MAX_FDS 253     /* SCM_MAX_FD */

static long result(long value)
{
    return value < 0 ? -errno : value;
}

/* ---- processes ---- */

/* fork(2) with namespaces, and into a cgroup if that is a descriptor. cffi gave the GIL away: take
 * it back, so that the child finds the interpreter as PyOS_AfterFork_Child wants it. tls and
 * child_tid, whose order differs between architectures, are zero. */
long pk_clone(unsigned long flags, int cgroup)
{
    struct { /* clone_args of <linux/sched.h>, which may be older than the last members */
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack[2], tls, tids[2], cgroup;
    } into = {.flags = flags | INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)cgroup};
    PyGILState_STATE gil = PyGILState_Ensure();
    PyOS_BeforeFork();
    long pid = cgroup < 0 ? syscall(SYS_clone, flags | SIGCHLD, 0UL, 0UL, 0UL, 0UL)
                          : syscall(SYS_clone3, &into, sizeof into);
    int error = errno;
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
    PyGILState_Release(gil);
    return pid < 0 ? -error : pid;
}

int pk_unshare(int flags)
{
    return (int)result(unshare(flags));
}

int pk_setns(int fd, int nstype)
{
    return (int)result(setns(fd, nstype));
}

int pk_ns_type(int fd)
{
    return (int)result(ioctl(fd, NS_GET_NSTYPE));
}

/* limits and old: {soft, hard}; limits may be NULL. */
int pk_prlimit(int pid, int resource, const uint64_t *limits, uint64_t *old)
{
    return (int)result(syscall(SYS_prlimit64, pid, resource, limits, old));
}

/* usage: {user, system} time in microseconds */
int pk_wait4(int pid, int options, int *status, uint64_t *usage)
{
    struct rusage spent = {0};
    int r = (int)result(wait4(pid, status, options, &spent));
    usage[0] = (uint64_t)spent.ru_utime.tv_sec * 1000000 + (uint64_t)spent.ru_utime.tv_usec;
    usage[1] = (uint64_t)spent.ru_stime.tv_sec * 1000000 + (uint64_t)spent.ru_stime.tv_usec;
    return r;
}

int pk_prctl(int option, unsigned long a2, unsigned long a3, unsigned long a4, unsigned long a5)
{
    return (int)result(prctl(option, a2, a3, a4, a5));
}

/* sets: {effective, permitted, inheritable} */
int pk_capget(uint64_t *sets)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2] = {0};
    long r = result(syscall(SYS_capget, &header, data));
    sets[0] = data[0].effective | (uint64_t)data[1].effective << 32;
    sets[1] = data[0].permitted | (uint64_t)data[1].permitted << 32;
    sets[2] = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
    return (int)r;
}

int pk_capset(const uint64_t *sets)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2];
    for (int i = 0; i < 2; i++) {
        data[i].effective = (uint32_t)(sets[0] >> 32 * i);
        data[i].permitted = (uint32_t)(sets[1] >> 32 * i);
        data[i].inheritable = (uint32_t)(sets[2] >> 32 * i);
    }
    return (int)result(syscall(SYS_capset, &header, data));
}

int pk_personality(unsigned long persona)
{
    return (int)result(personality(persona));
}

/* times: {runtime, deadline, period} in ns. The clamps of utilisation are 0. */
int pk_sched_setattr(int pid, unsigned int policy, uint64_t flags, int nice, unsigned int priority,
                     const uint64_t *times)
{
    struct { /* struct sched_attr of <linux/sched/types.h>, which glibc 2.41 defines as well */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
        uint32_t util_min, util_max;
    } attributes = {.size = sizeof attributes, .policy = policy, .flags = flags, .nice = nice,
                    .priority = priority, .runtime = times[0], .deadline = times[1],
                    .period = times[2]};
    return (int)result(syscall(SYS_sched_setattr, pid, &attributes, 0));
}

int pk_ioprio_set(int which, int who, int ioprio)
{
    return (int)result(syscall(SYS_ioprio_set, which, who, ioprio));
}

/* nodes: a bit for each, maxnode of them (and one more: the kernel takes one away) */
int pk_set_mempolicy(int mode, const uint64_t *nodes, unsigned long maxnode)
{
    return (int)result(syscall(SYS_set_mempolicy, mode, nodes, maxnode));
}

/* attr: the members of union bpf_attr that the command reads */
int pk_bpf(int command, const char *attr, unsigned int size)
{
    return (int)result(syscall(SYS_bpf, command, attr, size));
}

int pk_pidfd_send_signal(int pidfd, int signo)
{
    return (int)result(syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0));
}

int pk_execveat(int fd, const char *path, char **argv, char **envp, int flags)
{
    return (int)result(syscall(SYS_execveat, fd, path, argv, envp, flags));
}

/* program: struct sock_filter[] as bytes, used by SECCOMP_SET_MODE_FILTER; NULL otherwise. */
int pk_seccomp(unsigned int operation, unsigned int flags, const char *program, size_t size)
{
    if (!program)
        return (int)result(syscall(SYS_seccomp, operation, flags, NULL));
    if (operation == SECCOMP_GET_ACTION_AVAIL) /* takes a 32-bit action instead of a program */
        return (int)result(syscall(SYS_seccomp, operation, flags, size == 4 ? program : NULL));
    struct sock_filter filter[BPF_MAXINSNS];
    if (size > sizeof filter || size % sizeof *filter)
        return -EINVAL;
    memcpy(filter, program, size);
    struct sock_fprog fprog = {.len = (unsigned short)(size / sizeof *filter), .filter = filter};
    return (int)result(syscall(SYS_seccomp, operation, flags, &fprog));
}

/* ---- spawn ----
 * A helper such as newuidmap is a setuid program, and vfork(2) keeps its caller stopped until such
 * an exec is over. So: CLONE_VM without CLONE_VFORK. The child runs beside us in our own memory and
 * with our own thread pointer; it may touch nothing but its stack and its job, so libc (errno!) is
 * out of bounds from child_main() on. All that it needs is one mapping, kept until it has exec'ed or
 * exited, which the end of file on the status pipe tells (close-on-exec comes after the switch of
 * address spaces). Only our thread's copy of the descriptor table is changed.
 */

/* no_sanitize: a sanitizer would write to shadow memory for a stack it does not know */
#define CHILD_CODE __attribute__((no_sanitize("address", "undefined"), noinline))

#if defined(__x86_64__)
CHILD_CODE static long raw_syscall(long number, long a, long b, long c, long d, long e)
{
    long r;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return r;
}

/* clone(2); the child calls main(argument) on the given stack and never returns from it. */
static long raw_clone(unsigned long flags, void *stack, void (*main)(void *), void *argument)
{
    long r;
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = 0;
    register void (*r9)(void *) __asm__("r9") = main;
    register void *r12 __asm__("r12") = argument;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %%r12, %%rdi\n\t"
                     "call *%%r9\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(r)
                     : "a"(SYS_clone), "D"(flags), "S"(stack), "d"(0), "r"(r10), "r"(r8), "r"(r9), "r"(r12)
                     : "rcx", "r11", "memory");
    return r;
}
#elif defined(__aarch64__)
CHILD_CODE static long raw_syscall(long number, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}

static long raw_clone(unsigned long flags, void *stack, void (*main)(void *), void *argument)
{
    register long x8 __asm__("x8") = SYS_clone;
    register long x0 __asm__("x0") = (long)flags;
    register void *x1 __asm__("x1") = stack;
    register long x2 __asm__("x2") = 0;
    register long x3 __asm__("x3") = 0;
    register long x4 __asm__("x4") = 0;
    register void (*x5)(void *) __asm__("x5") = main;
    register void *x6 __asm__("x6") = argument;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x30, xzr\n\t"
                     "mov x0, x6\n\t"
                     "blr x5\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5), "r"(x6)
                     : "memory");
    return x0;
}
#else
#error "spawn() knows x86_64 and aarch64 only"
#endif

enum { STDIO = 3, CWD = 3, STATUS = 4, ARGC = 5, ENVC = 6, PRESERVED = 7 };
enum { STEP_FCHDIR = 1, STEP_OPEN_NULL, STEP_DUP, STEP_EXECVE };

struct job {
    int stdio[STDIO]; /* -1: /dev/null */
    int cwd;          /* -1: stay */
    int status;       /* where {step, errno} goes when it fails */
    int *preserved;
    size_t preserved_count;
    char *path;
    char **argv;
    char **envp;
};

CHILD_CODE static void child_fail(struct job *job, int step, long error)
{
    int words[2] = {step, (int)-error};
    raw_syscall(SYS_write, job->status, (long)words, sizeof words, 0, 0);
    for (;;)
        raw_syscall(SYS_exit_group, 127, 0, 0, 0, 0);
}

CHILD_CODE static int above_stdio(struct job *job, int fd)
{
    if (fd >= STDIO)
        return fd;
    long moved = raw_syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, STDIO, 0, 0);
    if (moved < 0)
        child_fail(job, STEP_DUP, moved);
    return (int)moved;
}

CHILD_CODE static void child_descriptors(struct job *job)
{
    job->status = above_stdio(job, job->status);
    if (job->cwd >= 0) {
        long r = raw_syscall(SYS_fchdir, job->cwd, 0, 0, 0, 0);
        if (r < 0)
            child_fail(job, STEP_FCHDIR, r);
    }
    for (int i = 0; i < STDIO; i++) {
        long fd = job->stdio[i];
        if (fd < 0)
            fd = raw_syscall(SYS_openat, AT_FDCWD, (long)"/dev/null", O_RDWR | O_CLOEXEC, 0, 0);
        if (fd < 0)
            child_fail(job, STEP_OPEN_NULL, fd);
        job->stdio[i] = above_stdio(job, (int)fd);
    }
    for (int i = 0; i < STDIO; i++) {
        long r = raw_syscall(SYS_dup3, job->stdio[i], i, 0, 0, 0);
        if (r < 0)
            child_fail(job, STEP_DUP, r);
    }
    /* CLOSE_RANGE_CLOEXEC = 4, Linux 5.11; before that, mark what the limit allows one by one */
    if (raw_syscall(SYS_close_range, STDIO, ~0U, 4, 0, 0) < 0) {
        uint64_t limit[2] = {1024, 1024};
        raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)limit, 0);
        for (int fd = STDIO; fd < (1 << 20) && (uint64_t)fd < limit[0]; fd++)
            raw_syscall(SYS_ioctl, fd, FIOCLEX, 0, 0, 0);
    }
    for (size_t i = 0; i < job->preserved_count; i++) {
        long r = raw_syscall(SYS_fcntl, job->preserved[i], F_SETFD, 0, 0, 0);
        if (r < 0)
            child_fail(job, STEP_DUP, r);
    }
}

CHILD_CODE static void child_main(void *argument)
{
    struct job *job = argument;
    uint64_t action[4] = {0}; /* the kernel's struct sigaction: SIG_DFL, no flags, empty mask */
    for (int signo = 1; signo <= 64; signo++)
        raw_syscall(SYS_rt_sigaction, signo, (long)action, 0, KERNEL_SIGSET, 0);
    child_descriptors(job);
    raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)action, 0, KERNEL_SIGSET, 0);
    long r = raw_syscall(SYS_execve, (long)job->path, (long)job->argv, (long)job->envp, 0, 0);
    child_fail(job, STEP_EXECVE, r);
}

static char *take_strings(char **out, size_t count, char *next, const char *end)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = next;
        size_t left = (size_t)(end - next);
        next += strnlen(next, left ? left - 1 : 0) + (left ? 1 : 0);
    }
    out[count] = NULL;
    return next;
}

/* numbers: as in syscalls.h; strings: path, argv..., envp..., each ended by NUL, size bytes together.
 * Returns the child's pid; memory becomes {address, size} for pk_spawn_free(). */
int pk_spawn(const int *numbers, size_t count, const char *strings, size_t size, uint64_t *memory)
{
    const size_t guard = 65536, stack = 65536; /* multiples of any page size */
    if (count < PRESERVED || numbers[ARGC] < 0 || numbers[ENVC] < 0 || !size || strings[size - 1])
        return -EINVAL;
    size_t argc = (size_t)numbers[ARGC], envc = (size_t)numbers[ENVC], extra = count - PRESERVED;
    size_t total = guard + stack + sizeof(struct job) + (argc + envc + 2) * sizeof(char *) +
                   extra * sizeof(int) + size;
    char *base = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return -errno;
    memory[0] = (uint64_t)(uintptr_t)base;
    memory[1] = total;
    mprotect(base, guard, PROT_NONE);

    char *top = base + guard + stack;
    struct job *job = (struct job *)(void *)top;
    *job = (struct job){.stdio = {numbers[0], numbers[1], numbers[2]},
                        .cwd = numbers[CWD],
                        .status = numbers[STATUS],
                        .argv = (char **)(void *)(job + 1),
                        .preserved_count = extra};
    job->envp = job->argv + argc + 1;
    job->preserved = (int *)(void *)(job->envp + envc + 1);
    memcpy(job->preserved, numbers + PRESERVED, extra * sizeof(int));
    job->path = (char *)(job->preserved + extra);
    memcpy(job->path, strings, size);
    const char *end = job->path + size;
    char *next = take_strings(job->argv, argc, job->path + strlen(job->path) + 1, end);
    take_strings(job->envp, envc, next, end);

    uint64_t all = ~(uint64_t)0, old = 0; /* no handler of ours may run in the child */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, KERNEL_SIGSET);
    long pid = raw_clone(CLONE_VM | SIGCHLD, top, child_main, job);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, KERNEL_SIGSET);
    if (pid < 0)
        munmap(base, total);
    return (int)pid;
}

int pk_spawn_free(uint64_t *memory)
{
    return (int)result(munmap((void *)(uintptr_t)memory[0], memory[1]));
}

/* ---- mounts ---- */

int pk_mount(const char *source, const char *target, const char *fstype, unsigned long flags,
             const char *data)
{
    return (int)result(mount(source, target, fstype, flags, data));
}

int pk_umount2(const char *target, int flags)
{
    return (int)result(umount2(target, flags));
}

int pk_pivot_root(const char *new_root, const char *put_old)
{
    return (int)result(syscall(SYS_pivot_root, new_root, put_old));
}

int pk_open_tree(int dirfd, const char *path, unsigned int flags)
{
    return (int)result(syscall(SYS_open_tree, dirfd, path, flags));
}

int pk_move_mount(int from_dirfd, const char *from_path, int to_dirfd, const char *to_path,
                  unsigned int flags)
{
    return (int)result(syscall(SYS_move_mount, from_dirfd, from_path, to_dirfd, to_path, flags));
}

int pk_fsopen(const char *fsname, unsigned int flags)
{
    return (int)result(syscall(SYS_fsopen, fsname, flags));
}

int pk_fsconfig(int fd, unsigned int cmd, const char *key, const char *value, int aux)
{
    return (int)result(syscall(SYS_fsconfig, fd, cmd, key, value, aux));
}

int pk_fsmount(int fd, unsigned int flags, unsigned int attributes)
{
    return (int)result(syscall(SYS_fsmount, fd, flags, attributes));
}

/* attributes: {attr_set, attr_clr, propagation, userns_fd}, which is struct mount_attr */
int pk_mount_setattr(int dirfd, const char *path, unsigned int flags, const uint64_t *attributes)
{
    return (int)result(syscall(SYS_mount_setattr, dirfd, path, flags, attributes, 4 * sizeof *attributes));
}

/* out: {f_type, f_flags} */
int pk_statfs(const char *path, uint64_t *out)
{
    struct statfs buffer = {0};
    long r = result(statfs(path, &buffer));
    out[0] = (uint64_t)buffer.f_type;
    out[1] = (uint64_t)buffer.f_flags;
    return (int)r;
}

int pk_fstatfs(int fd, uint64_t *out)
{
    struct statfs buffer = {0};
    long r = result(fstatfs(fd, &buffer));
    out[0] = (uint64_t)buffer.f_type;
    out[1] = (uint64_t)buffer.f_flags;
    return (int)r;
}

/* ---- files ---- */

int pk_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    uint64_t how[3] = {flags, mode, resolve}; /* struct open_how */
    return (int)result(syscall(SYS_openat2, dirfd, path, how, sizeof how));
}

int pk_fchownat(int dirfd, const char *path, unsigned int uid, unsigned int gid,
                int flags)
{
    return (int)result(fchownat(dirfd, path, (uid_t)uid, (gid_t)gid, flags));
}

int pk_fcntl(int fd, int cmd, long arg)
{
    return (int)result(fcntl(fd, cmd, arg));
}

int pk_flock(int fd, int operation)
{
    return (int)result(flock(fd, operation));
}

int pk_close_range(unsigned int first, unsigned int last, unsigned int flags)
{
    return (int)result(syscall(SYS_close_range, first, last, flags));
}

/* ---- AF_UNIX sockets ---- */

int pk_socket(int type)
{
    return (int)result(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
}

int pk_socketpair(int type, int *ends)
{
    return (int)result(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends));
}

static int unix_address(struct sockaddr_un *address, const char *path, size_t size)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (size >= sizeof address->sun_path)
        return -ENAMETOOLONG;
    memcpy(address->sun_path, path, size);
    return 0;
}

int pk_bind(int fd, const char *path, size_t size)
{
    struct sockaddr_un address;
    int r = unix_address(&address, path, size);
    return r < 0 ? r : (int)result(bind(fd, (struct sockaddr *)&address, sizeof address));
}

int pk_connect(int fd, const char *path, size_t size)
{
    struct sockaddr_un address;
    int r = unix_address(&address, path, size);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + size; /* every byte of an abstract name */
    return r < 0 ? r : (int)result(connect(fd, (struct sockaddr *)&address, length));
}

int pk_listen(int fd, int backlog)
{
    return (int)result(listen(fd, backlog));
}

int pk_accept(int fd)
{
    return (int)result(accept4(fd, NULL, NULL, SOCK_CLOEXEC));
}

/* SO_PEERCRED: who listens there, as our pid namespace counts; 0 for somebody outside it */
int pk_peer_pid(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    int r = (int)result(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size));
    return r < 0 ? r : peer.pid;
}

long pk_sendmsg(int fd, const char *data, size_t size, const int *fds, size_t count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > MAX_FDS)
        return -EINVAL;
    if (count) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    }
    return result(sendmsg(fd, &message, MSG_NOSIGNAL));
}

/* count: in, room in fds; out, how many came. A message or fds cut short: -EMSGSIZE, nothing kept. */
long pk_recvmsg(int fd, char *data, size_t size, int *fds, size_t *count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
    } control;
    size_t room = *count, came = 0;
    struct iovec part = {.iov_base = data, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    *count = 0;
    if (room > MAX_FDS)
        return -EINVAL;
    if (room) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(room * sizeof(int));
    }
    long r = result(recvmsg(fd, &message, MSG_CMSG_CLOEXEC));
    if (r < 0)
        return r;
    int excess = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t here = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < here; i++) {
            int one;
            memcpy(&one, CMSG_DATA(h) + i * sizeof(int), sizeof one);
            if (came < room && !excess)
                fds[came++] = one;
            else {
                close(one); /* padding of the control buffer let one more in than was asked for */
                excess = 1;
            }
        }
    }
    if (excess) {
        while (came)
            close(fds[--came]);
        return -EMSGSIZE;
    }
    *count = came;
    return r;
}

/* ---- waiting and signals ---- */

/* pairs: {fd, events} count times; events become revents. */
int pk_poll(int *pairs, size_t count, int timeout_ms)
{
    struct pollfd fds[256];
    if (count > sizeof fds / sizeof *fds)
        return -EINVAL;
    for (size_t i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = pairs[2 * i], .events = (short)pairs[2 * i + 1]};
    long r = result(poll(fds, count, timeout_ms));
    for (size_t i = 0; i < count; i++)
        pairs[2 * i + 1] = (unsigned short)fds[i].revents;
    return (int)r;
}

/* The kernel's own call, so that the two signals which libc hides can be (un)blocked too. */
int pk_sigprocmask(int how, uint64_t mask, uint64_t *old)
{
    return (int)result(syscall(SYS_rt_sigprocmask, how, &mask, old, KERNEL_SIGSET));
}

int pk_signalfd(uint64_t mask)
{
    return (int)result(syscall(SYS_signalfd4, -1, &mask, KERNEL_SIGSET, SFD_CLOEXEC | SFD_NONBLOCK));
}

int pk_signal(int signo, int ignore)
{
    return signal(signo, ignore ? SIG_IGN : SIG_DFL) == SIG_ERR ? -errno : 0;
}

/* ---- terminals: a struct termios travels through Python as opaque bytes ---- */

int pk_termios_size(void)
{
    return (int)sizeof(struct termios);
}

int pk_tcgetattr(int fd, char *out)
{
    struct termios attributes = {0};
    long r = result(tcgetattr(fd, &attributes));
    memcpy(out, &attributes, sizeof attributes);
    return (int)r;
}

int pk_tcsetattr(int fd, const char *in)
{
    struct termios attributes;
    memcpy(&attributes, in, sizeof attributes);
    return (int)result(tcsetattr(fd, TCSANOW, &attributes));
}

int pk_make_raw(char *termios)
{
    struct termios attributes;
    memcpy(&attributes, termios, sizeof attributes);
    cfmakeraw(&attributes);
    memcpy(termios, &attributes, sizeof attributes);
    return 0;
}

int pk_get_window(int fd, int *rows_columns)
{
    struct winsize size = {0};
    long r = result(ioctl(fd, TIOCGWINSZ, &size));
    rows_columns[0] = size.ws_row;
    rows_columns[1] = size.ws_col;
    return (int)r;
}

int pk_set_window(int fd, int rows, int columns)
{
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
    return (int)result(ioctl(fd, TIOCSWINSZ, &size));
}

int pk_pty_peer(int fd, int flags)
{
    return (int)result(ioctl(fd, TIOCGPTPEER, flags | O_CLOEXEC));
}

int pk_pty_unlock(int fd)
{
    int locked = 0;
    return (int)result(ioctl(fd, TIOCSPTLCK, &locked));
}

int pk_pty_number(int fd)
{
    int number = 0;
    long r = result(ioctl(fd, TIOCGPTN, &number));
    return r < 0 ? (int)r : number;
}

/* ---- the rest ---- */

int pk_sethostname(const char *name, size_t size)
{
    return (int)result(sethostname(name, size));
}

int pk_setdomainname(const char *name, size_t size)
{
    return (int)result(setdomainname(name, size));
}

int pk_interface_up(const char *name)
{
    struct ifreq request = {0};
    if (strlen(name) >= IFNAMSIZ)
        return -ENAMETOOLONG;
    memcpy(request.ifr_name, name, strlen(name));
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    long r = result(ioctl(fd, SIOCGIFFLAGS, &request));
    if (r >= 0) {
        request.ifr_flags |= IFF_UP;
        r = result(ioctl(fd, SIOCSIFFLAGS, &request));
    }
    close(fd);
    return (int)r;
}

int pk_keyctl(int operation, unsigned long a2, unsigned long a3)
{
    return (int)result(syscall(SYS_keyctl, operation, a2, a3));
}

/* What cffi writes below is not ours. */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wcast-function-type"
