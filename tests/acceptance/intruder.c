/* Run inside a container: everything that could reach the first process, and what the kernel says. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static void say(const char *what, long result)
{
	printf("%s %s\n", what, result < 0 ? strerrorname_np(errno) : "POSSIBLE");
}

int main(void)
{
	char buffer[64];
	struct iovec local = { buffer, sizeof buffer }, remote = { (void *)0x400000, sizeof buffer };
	say("ptrace-attach", ptrace(PTRACE_ATTACH, 1, 0, 0));
	say("ptrace-seize", ptrace(PTRACE_SEIZE, 1, 0, 0));
	say("process_vm_readv", process_vm_readv(1, &local, 1, &remote, 1, 0));
	say("mem", open("/proc/1/mem", O_RDWR));
	say("environ", open("/proc/1/environ", O_RDONLY));
	say("maps", open("/proc/1/maps", O_RDONLY));
	say("auxv", open("/proc/1/auxv", O_RDONLY));
	say("fd", open("/proc/1/fd/0", O_RDONLY));
	say("fd-link", readlink("/proc/1/fd/0", buffer, sizeof buffer));
	say("exe", open("/proc/1/exe", O_RDONLY));
	say("exe-link", readlink("/proc/1/exe", buffer, sizeof buffer));
	say("root", open("/proc/1/root", O_RDONLY));
	say("cwd", open("/proc/1/cwd", O_RDONLY));
	int pidfd = syscall(SYS_pidfd_open, 1, 0);
	for (int fd = 0; fd < 16; fd++)
		if (syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0 || errno != EPERM)
			printf("pidfd_getfd %d POSSIBLE\n", fd);
	return 0;
}
