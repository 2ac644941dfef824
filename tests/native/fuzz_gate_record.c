/* Feeds gate_record.h mutated records: fuzz_gate_record ROUNDS SEED FILE...
 * Each input lies in a heap block of its exact size, so that a sanitizer sees the first byte too far.
 * Prints "accepted refused"; every accepted record is walked to its last byte, as the gate would. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../rootless_pyoki/native/gate_record.h"

static unsigned long long seed;

static unsigned pick(unsigned below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 11) % below);
}

static unsigned long touch(struct blob blob)
{
    unsigned long sum = 0;
    for (__u32 i = 0; i < blob.size; i++)
        sum += blob.at[i];
    return sum;
}

/* 1 if accepted. Aborts where an accepted record breaks what the gate relies on. */
static int feed(const unsigned char *bytes, unsigned size)
{
    unsigned char *exact = malloc(size ? size : 1);
    volatile unsigned long sum = 0;
    struct record r;
    struct hook hook;
    __u32 hooks = 0;

    memcpy(exact, bytes, size);
    int accepted = parse_record(exact, size, &r);
    if (accepted) {
        struct blob all[] = { r.path, r.cwd, r.groups, r.filter, r.peers, r.label_name, r.label, r.state };
        struct blob rest = r.hooks;
        for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
            sum += touch(all[i]);
        while (take_hook(&rest, &hook)) {
            hooks++;
            sum += touch(hook.path) + touch(hook.args) + touch(hook.env);
            if (strlen((const char *)hook.path.at) + 1 != hook.path.size)
                abort();
        }
        if (hooks != r.fixed.hooks || rest.size || r.path.at[0] != '/' ||
            strlen((const char *)r.path.at) + 1 != r.path.size || r.label_name.size > 14)
            abort();
    }
    free(exact);
    return accepted;
}

static unsigned mutate(unsigned char *bytes, unsigned size, unsigned room)
{
    static const unsigned edges[] = { 0, 1, 3, 4, 0x7f, 0xff, 0x7fffffff, 0x80000000, 0xfffffffc, 0xffffffff };
    for (unsigned changes = 1 + pick(4); changes; changes--) {
        unsigned at = size ? pick(size) : 0, value = edges[pick(10)], length;
        switch (pick(6)) {
        case 0:
            if (size)
                bytes[at] ^= (unsigned char)(1u << pick(8));
            break;
        case 1:
            if (size)
                bytes[at] = (unsigned char)pick(256);
            break;
        case 2:
            if (at + 4 <= size)
                memcpy(bytes + at, &value, 4);
            break;
        case 3: /* a length or count, a little off */
            if (at + 4 <= size) {
                memcpy(&value, bytes + at, 4);
                value += pick(9) - 4;
                memcpy(bytes + at, &value, 4);
            }
            break;
        case 4:
            size = at;
            break;
        case 5: /* doubled piece */
            length = size - at < room - size ? size - at : room - size;
            memmove(bytes + at + length, bytes + at, size - at < room - at - length ? size - at : room - at - length);
            size += length;
            break;
        }
    }
    if (pick(3) && size >= 12) /* mostly with a `size` that is right, or nothing else is looked at */
        memcpy(bytes + 8, &size, 4);
    return size;
}

int main(int argc, char **argv)
{
    static unsigned char original[64][1 << 16], bytes[1 << 17];
    unsigned sizes[64], files = 0;
    unsigned long accepted = 0, rounds = strtoul(argv[1], 0, 0);

    seed = strtoull(argv[2], 0, 0) * 2654435769u + 1;
    for (int i = 3; i < argc && files < 64; i++, files++) {
        FILE *file = fopen(argv[i], "rb");
        sizes[files] = (unsigned)fread(original[files], 1, sizeof original[0], file);
        fclose(file);
        if (!feed(original[files], sizes[files])) {
            fprintf(stderr, "%s: refused as it is\n", argv[i]);
            return 1;
        }
        for (unsigned size = 0; size < sizes[files]; size++) { /* every truncation, `size` corrected */
            memcpy(bytes, original[files], size);
            if (size >= 12)
                memcpy(bytes + 8, &size, 4);
            if (feed(bytes, size))
                return 2;
        }
    }
    for (unsigned long round = 0; round < rounds; round++) {
        unsigned which = pick(files);
        memcpy(bytes, original[which], sizes[which]);
        accepted += feed(bytes, mutate(bytes, sizes[which], sizeof bytes));
    }
    printf("%lu %lu\n", accepted, rounds - accepted);
    return 0;
}
