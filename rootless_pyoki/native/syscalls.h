/* What Python sees of syscalls.c: cffi reads this file (no preprocessor), the compiler checks it.
 * Every function returns a result >= 0, or -errno. Nothing here keeps state. */

/* processes */
long pk_clone(unsigned long flags, int cgroup);
int pk_unshare(int flags);
int pk_setns(int fd, int nstype);
int pk_ns_type(int fd);
int pk_prlimit(int pid, int resource, const uint64_t *limits, uint64_t *old);
int pk_wait4(int pid, int options, int *status, uint64_t *usage);
int pk_prctl(int option, unsigned long a2, unsigned long a3, unsigned long a4, unsigned long a5);
int pk_capget(uint64_t *sets);
int pk_capset(const uint64_t *sets);
int pk_personality(unsigned long persona);
int pk_sched_setattr(int pid, unsigned int policy, uint64_t flags, int nice, unsigned int priority,
                     const uint64_t *times);
int pk_ioprio_set(int which, int who, int ioprio);
int pk_set_mempolicy(int mode, const uint64_t *nodes, unsigned long maxnode);
int pk_pidfd_send_signal(int pidfd, int signo);
int pk_execveat(int fd, const char *path, char **argv, char **envp, int flags);
int pk_bpf(int command, const char *attr, unsigned int size);
int pk_seccomp(unsigned int operation, unsigned int flags, const char *program, size_t size);

/* spawn: see syscalls.c. numbers = {stdin, stdout, stderr, cwd fd, status fd, argc, envc, preserved fds...} */
int pk_spawn(const int *numbers, size_t count, const char *strings, size_t size, uint64_t *memory);
int pk_spawn_free(uint64_t *memory);

/* mounts */
int pk_mount(const char *source, const char *target, const char *fstype, unsigned long flags,
             const char *data);
int pk_umount2(const char *target, int flags);
int pk_pivot_root(const char *new_root, const char *put_old);
int pk_open_tree(int dirfd, const char *path, unsigned int flags);
int pk_move_mount(int from_dirfd, const char *from_path, int to_dirfd, const char *to_path,
                  unsigned int flags);
int pk_fsopen(const char *fsname, unsigned int flags);
int pk_fsconfig(int fd, unsigned int cmd, const char *key, const char *value, int aux);
int pk_fsmount(int fd, unsigned int flags, unsigned int attributes);
int pk_mount_setattr(int dirfd, const char *path, unsigned int flags, const uint64_t *attributes);
int pk_statfs(const char *path, uint64_t *out);
int pk_fstatfs(int fd, uint64_t *out);

/* files */
int pk_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
int pk_fchownat(int dirfd, const char *path, unsigned int uid, unsigned int gid,
                int flags);
int pk_fcntl(int fd, int cmd, long arg);
int pk_flock(int fd, int operation);
int pk_close_range(unsigned int first, unsigned int last, unsigned int flags);

/* AF_UNIX sockets */
int pk_socket(int type);
int pk_socketpair(int type, int *ends);
int pk_bind(int fd, const char *path, size_t size);
int pk_connect(int fd, const char *path, size_t size);
int pk_listen(int fd, int backlog);
int pk_accept(int fd);
int pk_peer_pid(int fd);
long pk_sendmsg(int fd, const char *data, size_t size, const int *fds, size_t count);
long pk_recvmsg(int fd, char *data, size_t size, int *fds, size_t *count);

/* waiting and signals */
int pk_poll(int *pairs, size_t count, int timeout_ms);
int pk_sigprocmask(int how, uint64_t mask, uint64_t *old);
int pk_signalfd(uint64_t mask);
int pk_signal(int signo, int ignore);

/* terminals */
int pk_termios_size(void);
int pk_tcgetattr(int fd, char *out);
int pk_tcsetattr(int fd, const char *in);
int pk_make_raw(char *termios);
int pk_get_window(int fd, int *rows_columns);
int pk_set_window(int fd, int rows, int columns);
int pk_pty_peer(int fd, int flags);
int pk_pty_unlock(int fd);
int pk_pty_number(int fd);

/* the rest */
int pk_sethostname(const char *name, size_t size);
int pk_setdomainname(const char *name, size_t size);
int pk_interface_up(const char *name);
int pk_keyctl(int operation, unsigned long a2, unsigned long a3);
