/* sd_notify(3) in small: each argument is a message to $NOTIFY_SOCKET; "BARRIER=1" goes with a pipe, and
 * is waited for, as systemd-notify does. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    const char *path = getenv("NOTIFY_SOCKET");
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    if (!path || fd < 0)
        return 3;
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    for (int i = 1; i < argc; i++) {
        union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } control = { 0 };
        struct iovec part = { argv[i], strlen(argv[i]) };
        struct msghdr message = { &to, sizeof to, &part, 1, 0, 0, 0 };
        int pair[2] = { -1, -1 };
        if (!strcmp(argv[i], "BARRIER=1")) {
            if (pipe(pair))
                return 4;
            message.msg_control = control.bytes;
            message.msg_controllen = sizeof control.bytes;
            control.header = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
            memcpy(CMSG_DATA(&control.header), &pair[1], sizeof(int));
        }
        if (sendmsg(fd, &message, 0) < 0) {
            perror(argv[i]);
            return 5;
        }
        if (pair[0] >= 0) {
            struct pollfd end = { pair[0], 0, 0 };
            close(pair[1]);
            if (poll(&end, 1, 10000) != 1)
                return 6;
        }
    }
    return 0;
}
