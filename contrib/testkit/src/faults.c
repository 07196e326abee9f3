// Runs a program whose file operations in one folder can be made to fail, and are recorded.
//
//     faults CONTROL LOG FOLDER PROGRAM ARGUMENT...
//
// The kernel asks a second process about each system call of the list below (seccomp, "user notification"), and that
// process lets it pass or has it fail. So a fault can begin and end while the program runs, whatever libraries it
// uses, and it needs no privilege. The program keeps the process id of this one.
//
// CONTROL has the current fault as `OPERATION ERRNO PREFIX`: calls of this operation on paths with this prefix fail
// with this number. An empty file means no fault. LOG gets a line `OPERATION PATH` for each call in FOLDER.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct operation {
    int number;
    const char *name;
    // The argument that is the new path; -1 for calls whose first argument is a descriptor.
    int path;
    // The argument with flags, if the call counts only with O_CREAT among them; 0 for all other calls.
    int flags;
};

static const struct operation OPERATIONS[] = {
    {__NR_read, "read", -1},
    {__NR_pread64, "read", -1},
    {__NR_readv, "read", -1},
    {__NR_preadv2, "read", -1},
    {__NR_getdents64, "list", -1},
    {__NR_write, "write", -1},
    {__NR_pwrite64, "write", -1},
    {__NR_writev, "write", -1},
    {__NR_fsync, "sync", -1},
    {__NR_fdatasync, "sync", -1},
#ifdef __NR_rename
    {__NR_rename, "rename", 1},
#endif
#ifdef __NR_renameat
    {__NR_renameat, "rename", 3},
#endif
    {__NR_renameat2, "rename", 3},
#ifdef __NR_mkdir
    {__NR_mkdir, "create", 0},
#endif
    {__NR_mkdirat, "create", 1},
#ifdef __NR_open
    {__NR_open, "create", 0, 1},
#endif
    {__NR_openat, "create", 1, 2},
};
#define COUNT (sizeof OPERATIONS / sizeof OPERATIONS[0])

static void die(const char *what) {
    perror(what);
    exit(127);
}

// The filter: notify about the listed calls, allow all others. Returns the descriptor of the notifications.
static int install_filter(void) {
    struct sock_filter code[COUNT + 3];
    size_t at = 0;
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < COUNT; i++)
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OPERATIONS[i].number, COUNT - i, 0);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {.len = at, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
    int listener = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0) die("seccomp");
    return listener;
}

// Sends a descriptor, or receives one if `descriptor` is -1.
static int pass(int channel, int descriptor) {
    char byte = 0, space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (descriptor < 0) {
        if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) <= 0 || !CMSG_FIRSTHDR(&message)) exit(127);
        memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof descriptor);
        return descriptor;
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    if (sendmsg(channel, &message, 0) < 0) die("sendmsg");
    return descriptor;
}

// The path that a call is about; empty if it cannot be told.
static void path_of(const struct seccomp_notif *call, const struct operation *operation, char *path, size_t size) {
    char link[64];
    ssize_t length = -1;
    if (operation->path < 0) {
        snprintf(link, sizeof link, "/proc/%u/fd/%d", call->pid, (int)call->data.args[0]);
        length = readlink(link, path, size - 1);
    } else {
        snprintf(link, sizeof link, "/proc/%u/mem", call->pid);
        int memory = open(link, O_RDONLY | O_CLOEXEC);
        if (memory >= 0) {
            length = pread(memory, path, size - 1, call->data.args[operation->path]);
            close(memory);
        }
    }
    path[length < 0 ? 0 : length] = 0;
}

// The number of the error with which the call must fail, or 0.
static int fault_of(const char *control, const char *operation, const char *path) {
    char text[4096] = "", name[32], prefix[4096];
    int number, file = open(control, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0 || sscanf(text, "%31s %d %4095s", name, &number, prefix) != 3) return 0;
    return strcmp(name, operation) == 0 && strncmp(path, prefix, strlen(prefix)) == 0 ? number : 0;
}

static void supervise(int listener, const char *control, const char *log, const char *folder) {
    struct seccomp_notif_sizes sizes;
    if (syscall(__NR_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes)) exit(127);
    struct seccomp_notif *call = malloc(sizes.seccomp_notif);
    struct seccomp_notif_resp *answer = malloc(sizes.seccomp_notif_resp);
    int record = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    struct pollfd wait = {.fd = listener, .events = POLLIN};
    for (;;) {
        if (poll(&wait, 1, -1) < 0 && errno == EINTR) continue;
        // The last process with the filter has ended.
        if (!(wait.revents & POLLIN)) exit(0);
        memset(call, 0, sizes.seccomp_notif);
        // The caller may have been killed meanwhile.
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, call)) continue;
        const struct operation *operation = OPERATIONS;
        while (operation->number != call->data.nr) operation++;
        char path[4096];
        path_of(call, operation, path, sizeof path);
        int fault = 0;
        int counts = !operation->flags || (call->data.args[operation->flags] & O_CREAT);
        if (counts && strncmp(path, folder, strlen(folder)) == 0) {
            dprintf(record, "%s %s\n", operation->name, path);
            fault = fault_of(control, operation->name, path);
        }
        memset(answer, 0, sizes.seccomp_notif_resp);
        answer->id = call->id;
        answer->error = -fault;
        answer->flags = fault ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, answer);
    }
}

int main(int count, char **arguments) {
    if (count < 5) return 127;
    int channel[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel)) die("socketpair");
    // The child of a child, so that the program has no child that it does not know.
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        if (fork() != 0) _exit(0);
        // The test reads the program's output to its end.
        for (int standard = 0; standard <= 2; standard++) close(standard);
        close(channel[0]);
        supervise(pass(channel[1], -1), arguments[1], arguments[2], arguments[3]);
    }
    waitpid(child, NULL, 0);
    close(channel[1]);
    int listener = install_filter();
    pass(channel[0], listener);
    close(listener);
    close(channel[0]);
    execvp(arguments[4], arguments + 4);
    die(arguments[4]);
}
