/* How a program without a libc asks the kernel: call(name, arguments...) gives the result or -errno,
 * call_thread() starts a thread, _start hands the initial stack to enter(). x86_64 and aarch64. */
#ifndef GATE_CALLS_H
#define GATE_CALLS_H

#include <asm/unistd.h>
#include <linux/types.h>

/* What older headers lack; the numbers are the same on every architecture. */
#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434
#endif
#ifndef __NR_close_range
#define __NR_close_range 436
#endif
#ifndef __NR_openat2
#define __NR_openat2 437
#endif

#if defined(__x86_64__)
static long call6(long n, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
             : "=a"(result)
             : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
             : "rcx", "r11", "memory");
    return result;
}

/* clone() onto `stack`, whose top two words are the thread's argument and function. */
static long call_thread(long flags, long *stack)
{
    long result;
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = 0;
    __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\txor %%ebp, %%ebp\n\t"
             "pop %%rdi\n\tpop %%rax\n\tcall *%%rax\n\tud2\n1:"
             : "=a"(result)
             : "a"(__NR_clone), "D"(flags), "S"(stack), "d"(0), "r"(r10), "r"(r8)
             : "rcx", "r11", "memory");
    return result;
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall enter\n\tud2\n");
#elif defined(__aarch64__)
static long call6(long n, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
             : "+r"(x0)
             : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
             : "memory");
    return x0;
}

static long call_thread(long flags, long *stack)
{
    register long x8 __asm__("x8") = __NR_clone;
    register long x0 __asm__("x0") = flags;
    register long *x1 __asm__("x1") = stack;
    register long x2 __asm__("x2") = 0;
    register long x3 __asm__("x3") = 0;
    register long x4 __asm__("x4") = 0;
    __asm__ volatile("svc 0\n\tcbnz x0, 1f\n\tldp x0, x9, [sp], #16\n\tblr x9\n\tbrk #1\n1:"
             : "+r"(x0)
             : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
             : "memory");
    return x0;
}

__asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tmov x30, xzr\n\tmov x0, sp\n\tbl enter\n\tbrk #1\n");
#else
#error "the gate knows x86_64 and aarch64"
#endif

#define PICK(_1, _2, _3, _4, _5, _6, NAME, ...) NAME
#define C1(n, a) call6(n, (long)(a), 0, 0, 0, 0, 0)
#define C2(n, a, b) call6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define C3(n, a, b, c) call6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define C4(n, a, b, c, d) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define C5(n, a, b, c, d, e) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define C6(n, a, b, c, d, e, f) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define call(name, ...) PICK(__VA_ARGS__, C6, C5, C4, C3, C2, C1, )(__NR_##name, __VA_ARGS__)
#define prctl(...) call(prctl, __VA_ARGS__)

/* The compiler may ask for these two however freestanding the code is. */
void *memcpy(void *to, const void *from, __SIZE_TYPE__ size)
{
    for (volatile __u8 *t = to; size--; from = (const __u8 *)from + 1)
        *t++ = *(const __u8 *)from;
    return to;
}

void *memset(void *to, int value, __SIZE_TYPE__ size)
{
    for (volatile __u8 *t = to; size--;)
        *t++ = (__u8)value;
    return to;
}

#endif
