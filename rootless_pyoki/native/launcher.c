/*
 * pyoki: finds the interpreter and the hot bundle that belong to this very file, and becomes them.
 *
 *   PREFIX/bin/pyoki                        this file, wherever links to it lie
 *   PREFIX/lib/pyoki/CACHE_TAG/pyoki.pyc    the hot bundle; an editable install has none
 *
 *   bundle there:  pythonX.Y -X utf8 -I -S -c BOOTSTRAP BUNDLE arguments...
 *   else:          pythonX.Y -X utf8 -E -P -m rootless_pyoki arguments...
 *
 * The bootstrap does what the interpreter itself would do with `pythonX.Y BUNDLE`, in 3 system calls
 * instead of 34: that looks for a zip archive in the file, and opens it three times.
 *
 * The interpreter is PREFIX/bin/pythonX.Y, PREFIX/bin/python3 when that is the same X.Y, else the
 * one in /usr/bin or /usr/local/bin. Never PATH: callers such as podman pass no environment at all.
 * Its argv[0] is its full path, because CPython looks for pyvenv.cfg beside it.
 *
 * No libc: a dynamic one would cost half a millisecond, which each verb pays. The build says
 * -DCACHE_TAG="cpython-311" -DPYTHON="python3.11".
 */
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/poll.h>
#include <linux/time_types.h>

#define PATH_SIZE 4096
#define BUNDLE "lib/pyoki/" CACHE_TAG "/pyoki.pyc"

/* Makes sys.argv what it is for a script. A bundle that is gone, or for another Python: slow way. */
#define BOOTSTRAP \
    "import sys, posix as p, _frozen_importlib_external as e, marshal\n" \
    "del sys.argv[0]\n" \
    "try:\n" \
    " f = p.open(sys.argv[0], p.O_RDONLY | p.O_CLOEXEC)\n" \
    " b = p.read(f, 20480)\n" \
    " p.close(f)\n" \
    " assert b[:4] == e.MAGIC_NUMBER\n" \
    " b = marshal.loads(b[16:])\n" \
    "except Exception:\n" \
    " x = sys.executable\n" \
    " p.execv(x, [x, '-X', 'utf8', '-E', '-P', '-m', 'rootless_pyoki', *sys.argv[1:]])\n" \
    "exec(b)\n"

#if defined(__x86_64__)

__asm__(".globl _start\n_start:\n\txor %ebp,%ebp\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall begin\n");

static long call(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "+a"(number)
                     : "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return number;
}

#elif defined(__aarch64__)

__asm__(".globl _start\n_start:\n\tmov x29,#0\n\tmov x30,#0\n\tmov x0,sp\n\tbl begin\n");

static long call(long number, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}

#else
#error "pyoki's launcher knows x86_64 and aarch64 only"
#endif

struct text { /* a path or message under construction; `full` once something did not fit */
    char bytes[PATH_SIZE];
    unsigned long length;
    int full;
};

static void add(struct text *text, const char *more)
{
    for (; *more; more++) {
        if (text->length + 1 >= sizeof text->bytes) {
            text->full = 1;
            break;
        }
        text->bytes[text->length++] = *more;
    }
    text->bytes[text->length] = 0;
}

static void join(struct text *text, const char *folder, const char *name)
{
    text->length = 0;
    text->full = 0;
    add(text, folder);
    add(text, name);
}

__attribute__((noreturn)) static void fail(const char *why, const char *where)
{
    static struct text line;

    join(&line, "error: pyoki: ", why);
    add(&line, where);
    add(&line, "\n");
    call(__NR_write, 2, (long)line.bytes, (long)line.length, 0);
    for (;;)
        call(__NR_exit_group, 1, 0, 0, 0);
}

/* A closed fd 0, 1 or 2 would be given to the next file that is opened: fill the hole. */
static void fill_stdio(void)
{
    struct pollfd fds[] = {{0, 0, 0}, {1, 0, 0}, {2, 0, 0}};
    struct __kernel_timespec now = {0, 0};

    call(__NR_ppoll, (long)fds, 3, (long)&now, 0);
    for (int fd = 0; fd <= 2; fd++)
        if (fds[fd].revents & POLLNVAL)
            call(__NR_openat, AT_FDCWD, (long)"/dev/null", O_RDWR, 0);
}

/* Cut the last component: "/a/b/" and "/a/b" become "/a/". Returns 0 when there is none. */
static int cut(struct text *path)
{
    if (path->length && path->bytes[path->length - 1] == '/')
        path->length--;
    while (path->length && path->bytes[path->length - 1] != '/')
        path->length--;
    path->bytes[path->length] = 0;
    return path->length > 0;
}

/* The file behind a link, by /proc: its last component. "" when it cannot be told. */
static const char *real_name(const char *path, struct text *out)
{
    char link[] = "/proc/self/fd/\0\0\0\0\0\0\0\0\0\0";
    char digits[12];
    int count = 0, at = 14;
    long size, fd = call(__NR_openat, AT_FDCWD, (long)path, O_PATH | O_CLOEXEC, 0);
    const char *name = out->bytes;

    out->bytes[0] = 0;
    if (fd < 0)
        return name;
    for (long rest = fd; rest || !count; rest /= 10)
        digits[count++] = (char)('0' + rest % 10);
    while (count)
        link[at++] = digits[--count];
    size = call(__NR_readlinkat, AT_FDCWD, (long)link, (long)out->bytes, PATH_SIZE - 1);
    call(__NR_close, fd, 0, 0, 0);
    out->bytes[size > 0 ? size : 0] = 0;
    for (const char *byte = out->bytes; *byte; byte++)
        if (*byte == '/')
            name = byte + 1;
    return name;
}

static int same(const char *left, const char *right)
{
    while (*left && *left == *right)
        left++, right++;
    return *left == *right;
}

__attribute__((noreturn, used)) void begin(long *stack)
{
    static struct text prefix, bundle, python, real;
    long argc = stack[0];
    char **argv = (char **)(stack + 1), **envp = argv + argc + 1;
    const char *fast[] = {0, "-X", "utf8", "-I", "-S", "-c", BOOTSTRAP, bundle.bytes};
    const char *slow[] = {0, "-X", "utf8", "-E", "-P", "-m", "rootless_pyoki"};
    const char *folders[] = {0, 0, "/usr/bin/", "/usr/local/bin/"};
    const char **head = slow, **line;
    static struct text bin;
    long size, count = sizeof slow / sizeof *slow;

    fill_stdio();
    size = call(__NR_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)bin.bytes, PATH_SIZE - 1);
    if (size <= 0)
        fail("cannot read /proc/self/exe: is /proc mounted?", "");
    bin.length = (unsigned long)size;
    if (!cut(&bin))
        fail("/proc/self/exe holds no path: ", bin.bytes);
    join(&prefix, bin.bytes, "");
    cut(&prefix);
    join(&bundle, prefix.bytes, BUNDLE);
    if (!bundle.full && call(__NR_faccessat, AT_FDCWD, (long)bundle.bytes, 4 /* R_OK */, 0) == 0) {
        head = fast;
        count = sizeof fast / sizeof *fast;
    }

    /* the interpreter's argv: room on our own stack, for ours and the caller's without its first */
    line = __builtin_alloca((unsigned long)(count + argc + 1) * sizeof *line);
    for (long i = 0; i < count; i++)
        line[i] = head[i];
    for (long i = 1; i < argc; i++)
        line[count++] = argv[i];
    line[count] = 0;

    folders[0] = folders[1] = bin.bytes;
    for (int i = 0; i < 4; i++) {
        join(&python, folders[i], i == 1 ? "python3" : PYTHON);
        if (python.full || (i == 1 && !same(real_name(python.bytes, &real), PYTHON)))
            continue;
        line[0] = python.bytes;
        call(__NR_execve, (long)python.bytes, (long)line, (long)envp, 0); /* returns on failure only */
    }
    fail("no " PYTHON " in /usr/bin, /usr/local/bin or ", bin.bytes);
}
