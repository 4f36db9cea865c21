/* main() of every fuzz target that is not built with libFuzzer; fuzz.h says how it is used. */
#include "test/fuzz/fuzz.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SEEDS_MAX 256
#define HANG_SECONDS 20
#define DEFAULT_SECONDS 3
#define DEFAULT_INPUTS 100000

/* A target that leaves an optional part out leaves these at NULL. */
extern const struct fuzz_seed fuzz_seeds[] __attribute__((weak));
extern const unsigned fuzz_seed_count __attribute__((weak));
size_t fuzz_make_seed(unsigned i, uint8_t *out, size_t cap) __attribute__((weak));
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
/* The sanitizers end a process by _exit: this is how to hear of it. NULL without them. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

/* What the crash handlers need, and they alone: they have no argument to carry it. */
static struct {
    const uint8_t *data;
    size_t len;
    unsigned long long seed, number;
} running;

static struct {
    struct fuzz_seed v[SEEDS_MAX];
    unsigned n;
} seeds;

/* -- crashes -- */

static void write_out(int fd, const void *p, size_t n)
{
    const char *at = p;
    while (n > 0) {
        ssize_t done = write(fd, at, n);
        if (done <= 0)
            return;
        at += done;
        n -= (size_t)done;
    }
}

static void save_crash(void)
{
    if (!running.data)
        return;
    char name[80], line[160];
    snprintf(name, sizeof name, "fuzz-crash-%llu-%llu.bin", running.seed, running.number);
    FILE *f = fopen(name, "wb");
    if (f) {
        fwrite(running.data, 1, running.len, f);
        fclose(f);
    }
    int n = snprintf(line, sizeof line, "fuzz: seed %llu input %llu (%zu bytes) is in %s\n", running.seed,
                     running.number, running.len, name);
    write_out(2, line, (size_t)n);
    running.data = NULL;
}

static void on_signal(int sig)
{
    if (sig == SIGALRM)
        write_out(2, "fuzz: an input takes too long\n", 30);
    save_crash();
    signal(sig == SIGALRM ? SIGABRT : sig, SIG_DFL);
    raise(sig == SIGALRM ? SIGABRT : sig);
}

static void catch_crashes(void)
{
    static const int fatal[] = {SIGABRT, SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    bool sanitized = __sanitizer_set_death_callback != NULL;
    if (sanitized)
        __sanitizer_set_death_callback(save_crash);
    /* A sanitizer reports memory faults itself, in more words than we could. */
    for (size_t i = 0; i < (sanitized ? 2 : sizeof fatal / sizeof *fatal); i++)
        signal(fatal[i], on_signal);
}

/* -- random numbers: xorshift64*, seeded anew for each input -- */

static uint64_t next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545F4914F6CDD1D);
}

static size_t below(uint64_t *state, size_t n)
{
    return n ? (size_t)((next(state) >> 16) % n) : 0;
}

static uint64_t input_state(uint64_t seed, uint64_t number)
{
    uint64_t z = seed * UINT64_C(0x9E3779B97F4A7C15) + number * UINT64_C(0xBF58476D1CE4E5B9) + 1;
    z = (z ^ (z >> 30)) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    return z ? z : 1;
}

/* -- mutation -- */

struct input {
    uint8_t b[FUZZ_INPUT_MAX];
    size_t len;
};

static void set_number(struct input *in, uint64_t *r)
{
    unsigned width = 1u << below(r, 3); /* 1, 2 or 4 bytes, big-endian, as lengths and counts are */
    if (in->len < width)
        return;
    size_t at = below(r, in->len - width + 1);
    uint32_t old = 0, v;
    for (unsigned i = 0; i < width; i++)
        old = old << 8 | in->b[at + i];
    switch (below(r, 6)) {
    case 0:
        v = 0;
        break;
    case 1:
        v = UINT32_MAX;
        break;
    case 2:
        v = old + 1;
        break;
    case 3:
        v = old - 1;
        break;
    case 4:
        v = (uint32_t)(in->len - at);
        break;
    default:
        v = (uint32_t)below(r, 300);
        break;
    }
    for (unsigned i = width; i-- > 0; v >>= 8)
        in->b[at + i] = (uint8_t)v;
}

static void insert_bytes(struct input *in, uint64_t *r, const uint8_t *from, size_t n)
{
    if (n > sizeof in->b - in->len)
        n = sizeof in->b - in->len;
    size_t at = below(r, in->len + 1);
    memmove(in->b + at + n, in->b + at, in->len - at);
    for (size_t i = 0; i < n; i++)
        in->b[at + i] = from ? from[i] : (uint8_t)next(r);
    in->len += n;
}

static void remove_bytes(struct input *in, uint64_t *r)
{
    if (in->len == 0)
        return;
    size_t at = below(r, in->len), n = 1 + below(r, in->len - at < 64 ? in->len - at : 64);
    if (n > in->len - at)
        n = in->len - at;
    memmove(in->b + at, in->b + at + n, in->len - at - n);
    in->len -= n;
}

/* A piece of another seed, put over what is here. */
static void splice(struct input *in, uint64_t *r)
{
    const struct fuzz_seed *s = &seeds.v[below(r, seeds.n)];
    if (s->len == 0)
        return;
    size_t from = below(r, s->len), n = 1 + below(r, s->len - from);
    if (below(r, 2)) {
        insert_bytes(in, r, s->data + from, n < s->len - from ? n : s->len - from);
        return;
    }
    size_t at = below(r, in->len + 1);
    if (n > s->len - from)
        n = s->len - from;
    if (n > sizeof in->b - at)
        n = sizeof in->b - at;
    memcpy(in->b + at, s->data + from, n);
    if (at + n > in->len)
        in->len = at + n;
}

static void mutate(struct input *in, uint64_t *r)
{
    for (size_t n = 1 + below(r, 6); n > 0; n--) {
        switch (below(r, 8)) {
        case 0:
        case 1:
            if (in->len)
                in->b[below(r, in->len)] ^= (uint8_t)(1u << below(r, 8));
            break;
        case 2:
            if (in->len)
                in->b[below(r, in->len)] = (uint8_t)next(r);
            break;
        case 3:
            in->len = below(r, in->len + 1);
            break;
        case 4:
            insert_bytes(in, r, NULL, 1 + below(r, 32));
            break;
        case 5:
            remove_bytes(in, r);
            break;
        case 6:
            splice(in, r);
            break;
        default:
            set_number(in, r);
            break;
        }
    }
}

/* -- running -- */

static void run_one(const uint8_t *data, size_t len, uint64_t number)
{
    /* An allocation of its own, and of exactly this size; malloc(0) may be NULL, which no target need bear. */
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy)
        abort();
    if (len)
        memcpy(copy, data, len);
    running.data = copy;
    running.len = len;
    running.number = number;
    alarm(HANG_SECONDS);
    LLVMFuzzerTestOneInput(copy, len);
    running.data = NULL;
    free(copy);
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static unsigned long long run_mutations(uint64_t seed, unsigned long long inputs, double seconds)
{
    struct input *in = malloc(sizeof *in);
    if (!in)
        abort();
    double end = seconds_now() + seconds;
    unsigned long long i = 0;
    for (; i < inputs && seconds_now() < end; i++) {
        uint64_t r = input_state(seed, i);
        const struct fuzz_seed *s = &seeds.v[below(&r, seeds.n)];
        in->len = s->len;
        memcpy(in->b, s->data, s->len);
        mutate(in, &r);
        run_one(in->b, in->len, i);
    }
    free(in);
    return i;
}

/* -- seeds -- */

static void add_seed(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy)
        abort();
    if (len)
        memcpy(copy, data, len);
    if (seeds.n == SEEDS_MAX || len > FUZZ_INPUT_MAX) {
        free(copy);
        return;
    }
    seeds.v[seeds.n++] = (struct fuzz_seed){copy, len};
}

static bool add_file(const char *name, uint8_t *room)
{
    FILE *f = fopen(name, "rb");
    if (!f) {
        fprintf(stderr, "fuzz: %s: %s\n", name, strerror(errno));
        return false;
    }
    add_seed(room, fread(room, 1, FUZZ_INPUT_MAX, f));
    fclose(f);
    return true;
}

static bool collect_seeds(char **files, int n, bool only_files)
{
    uint8_t *room = malloc(FUZZ_INPUT_MAX);
    if (!room)
        abort();
    if (!only_files && &fuzz_seed_count != NULL)
        for (unsigned i = 0; i < fuzz_seed_count; i++)
            add_seed(fuzz_seeds[i].data, fuzz_seeds[i].len);
    if (!only_files && fuzz_make_seed != NULL) {
        size_t len;
        for (unsigned i = 0; (len = fuzz_make_seed(i, room, FUZZ_INPUT_MAX)) != 0; i++)
            add_seed(room, len);
    }
    bool good = true;
    for (int i = 0; i < n && good; i++)
        good = add_file(files[i], room);
    if (seeds.n == 0 && !only_files)
        add_seed(room, 0);
    free(room);
    return good;
}

static void free_seeds(void)
{
    while (seeds.n > 0)
        free((void *)(uintptr_t)seeds.v[--seeds.n].data);
}

struct options {
    double seconds;
    unsigned long long inputs, seed;
    bool replay;
};

static bool read_options(int argc, char **argv, struct options *o)
{
    bool t = false, n = false;
    for (int c; (c = getopt(argc, argv, "t:n:s:r")) != -1;) {
        if (c == 't') {
            o->seconds = strtod(optarg, NULL);
            t = true;
        } else if (c == 'n') {
            o->inputs = strtoull(optarg, NULL, 10);
            n = true;
        } else if (c == 's') {
            o->seed = strtoull(optarg, NULL, 10);
        } else if (c == 'r') {
            o->replay = true;
        } else {
            return false;
        }
    }
    /* One limit given alone lifts the other's default. */
    if (t && !n)
        o->inputs = UINT64_MAX;
    if (n && !t)
        o->seconds = 1e9;
    return true;
}

int main(int argc, char **argv)
{
    struct options o = {.seconds = DEFAULT_SECONDS, .inputs = DEFAULT_INPUTS, .seed = 1};
    if (!read_options(argc, argv, &o)) {
        fprintf(stderr, "usage: %s [-t SECONDS] [-n INPUTS] [-s SEED] [-r] [FILE...]\n", argv[0]);
        return 2;
    }
    if (LLVMFuzzerInitialize != NULL && LLVMFuzzerInitialize(&argc, &argv) != 0)
        return 1;
    if (!collect_seeds(argv + optind, argc - optind, o.replay))
        return 1;
    running.seed = o.seed;
    catch_crashes();
    for (unsigned i = 0; i < seeds.n; i++)
        run_one(seeds.v[i].data, seeds.v[i].len, i);
    unsigned long long done = o.replay ? 0 : run_mutations(o.seed, o.inputs, o.seconds);
    alarm(0);
    printf("%s: seed %llu, %u seeds replayed, %llu mutated inputs, no fault\n", argv[0], o.seed, seeds.n, done);
    free_seeds();
    return 0;
}
