#include "core/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/daemon.h"
#include "policy/spelling.h"

enum option_bit {
    OPTION_SOCKET = 1,
    OPTION_JSON = 2,
    OPTION_WATCH = 4,
    OPTION_MS = 8,
    OPTION_PEM = 16,
    OPTION_PKI = 32,
    OPTION_CAPTURE = 64
};

static const struct {
    const char *text;
    unsigned bit;
} option_help[] = {
    {"  -s, --socket SOCKET  the daemon's control socket; default: the only one in /run/adit\n", OPTION_SOCKET},
    {"  --json               print the daemon's answer as one JSON object\n", OPTION_JSON},
    {"  --watch              show it anew every second, with rates\n", OPTION_WATCH},
    {"  --plain              what is inside the tunnel (default)\n", OPTION_CAPTURE},
    {"  --wire               what is on the wire\n", OPTION_CAPTURE},
    {"  -w, --write FILE     where the packets go; default: standard output\n", OPTION_CAPTURE},
    {"  -c, --count N        ends after that many packets; default: at an interrupt\n", OPTION_CAPTURE},
    {"  --time MS            milliseconds for each measurement; default: 200\n", OPTION_MS},
    {"  --pem                print PEM also for an Ed25519 key\n", OPTION_PEM},
    {"  --key KIND           ecdsa256 (default), ecdsa384 or rsa3072\n", OPTION_PKI},
    {"  --days N             how long it is valid; default: 3650 for a CA, 1095 for a certificate\n", OPTION_PKI},
    {"  --out DIR            where the files go; default: here\n", OPTION_PKI},
    {"  --ca DIR/ca          cert: the CA's files, without .crt and .key\n", OPTION_PKI},
    {"  --san ID             cert: one more name, an IP address, DNS name or mail address\n", OPTION_PKI},
};

static int cli_run(const struct cli *c)
{
    return daemon_run(c->args[0]);
}

static const struct command {
    const char *name, *args;
    int arg_count;
    unsigned options; /* enum option_bit */
    int (*fn)(const struct cli *c);
    const char *summary, *help;
} commands[] = {
    {"run", "FILE", 1, 0, cli_run, "run the daemon in the foreground",
     "Runs the daemon with this configuration, in the foreground, logging to stderr.\n"
     "SIGHUP loads the file anew; SIGTERM deletes the SAs at the peers, removes routes and TUN, and ends.\n"},
    {"check", "FILE", 1, 0, cli_check, "check a configuration",
     "Reads a configuration, resolves its names and prints the policy table that would be loaded, and every\n"
     "setting that differs from its default.\n"
     "Every error is printed as FILE:LINE: what is wrong, what was expected.\n"},
    {"status", "", 0, OPTION_SOCKET | OPTION_JSON | OPTION_WATCH, cli_status, "show peers, SAs, policies and counters",
     "Shows peers, IKE SAs, Child SAs, policies, counters and the reasons for drops.\n"},
    {"up", "PEER[/POLICY]", 1, OPTION_SOCKET, cli_act, "bring a peer or one policy up",
     "Sets up the SAs of a peer, or of one of its policies, and waits for the outcome.\n"},
    {"down", "PEER[/POLICY]", 1, OPTION_SOCKET, cli_act, "take a peer or one policy down",
     "Deletes the SAs of a peer, or of one of its policies, at both ends, and waits for the outcome.\n"},
    {"rekey", "PEER[/POLICY]", 1, OPTION_SOCKET, cli_act, "negotiate fresh keys",
     "Rekeys the IKE SA of a peer, or the Child SAs of one of its policies, and waits for the outcome.\n"},
    {"reload", "", 0, OPTION_SOCKET, cli_reload, "load the configuration anew",
     "Has the daemon read its file again. It is put in force whole or not at all; what is equal keeps its SAs.\n"},
    {"capture", "PEER", 1, OPTION_SOCKET | OPTION_CAPTURE, cli_capture, "write a peer's packets as pcapng",
     "Writes the packets of one peer as pcapng, for Wireshark, until it is interrupted.\n"},
    {"genkey", "", 0, 0, cli_genkey, "make a private key", "Prints a new private key (Ed25519) in base64.\n"},
    {"pubkey", "", 0, OPTION_PEM, cli_pubkey, "a private key's public key",
     "Reads a private key on stdin, the line of 'adit genkey' or PEM, and prints its public key: in base64 if it is "
     "an\n"
     "Ed25519 key, as PEM otherwise.\n"},
    {"genpsk", "", 0, 0, cli_genpsk, "make a pre-shared key", "Prints a new random pre-shared key in base64.\n"},
    {"pki", "ca|cert NAME", 2, OPTION_PKI, cli_pki, "make a CA, or a certificate",
     "ca: makes a certificate authority of this name: ca.key, which is secret, and ca.crt for all ends to trust.\n"
     "cert: makes NAME.key, which is secret, and NAME.crt, signed by a CA. NAME is what the end will be known by:\n"
     "its IP address, DNS name or mail address. Files that are there are never overwritten.\n"},
    {"bench", "", 0, OPTION_MS, cli_bench, "measure the crypto engines",
     "Measures every crypto engine of this machine with every suite, and says which one each suite will use.\n"},
    {"version", "", 0, 0, cli_version, "version, libraries, engines",
     "Prints the version, the libraries and crypto engines it has, and whether io_uring can be used here.\n"},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static void print_usage(FILE *out)
{
    fputs("usage: adit [-s SOCKET] COMMAND [ARGUMENT]\n\n", out);
    for (size_t i = 0; i < COMMANDS; i++) {
        char head[40];
        snprintf(head, sizeof head, "%s %s", commands[i].name, commands[i].args);
        fprintf(out, "  %-22s %s\n", head, commands[i].summary);
    }
    fputs("\n'adit COMMAND --help' says more; so do the man pages adit(8) and adit.ini(5).\n", out);
}

static void print_help(const struct command *c)
{
    printf("usage: adit %s%s%s%s\n\n%s", c->name, c->options ? " [OPTION...]" : "", c->args[0] ? " " : "", c->args,
           c->help);
    if (c->options)
        putchar('\n');
    for (size_t i = 0; i < sizeof option_help / sizeof option_help[0]; i++)
        if (c->options & option_help[i].bit)
            fputs(option_help[i].text, stdout);
}

static int usage_error(const char *what, const char *word)
{
    fprintf(stderr, "adit: %s%s%s\n", what, word ? ": " : "", word ? word : "");
    fputs("'adit --help' lists the commands\n", stderr);
    return EXIT_USAGE;
}

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int command_unknown(const char *name)
{
    struct spelling s = spelling_of(name, strlen(name));
    for (size_t i = 0; i < COMMANDS; i++)
        spelling_offer(&s, commands[i].name);
    char what[160];
    snprintf(what, sizeof what, "unknown command \"%.60s\"%s%s%s", name, s.nearest ? ", did you mean \"" : "",
             s.nearest ? s.nearest : "", s.nearest ? "\"?" : "");
    return usage_error(what, NULL);
}

struct parsed {
    struct cli cli;
    unsigned seen; /* enum option_bit */
    bool help, version;
};

static bool parse_ms(const char *text, unsigned *ms)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    *ms = (unsigned)v;
    return *text >= '0' && *text <= '9' && !*end && v >= 1 && v <= 60000;
}

/* Their values are judged by the command itself. */
static bool take_pki_option(int o, struct cli_pki *pki)
{
    switch (o) {
    case 'd':
        pki->days = optarg;
        return true;
    case 'k':
        pki->key = optarg;
        return true;
    case 'o':
        pki->out = optarg;
        return true;
    case 'C':
        pki->ca = optarg;
        return true;
    case 'n':
        if (pki->san_count == CLI_SAN_MAX) {
            fprintf(stderr, "adit: more than %d --san\n", CLI_SAN_MAX);
            return false;
        }
        pki->san[pki->san_count++] = optarg;
        return true;
    default:
        return false;
    }
}

static bool take_capture_option(int o, struct cli_capture *c)
{
    switch (o) {
    case 'P':
        c->plain = true;
        return true;
    case 'O':
        c->wire = true;
        return true;
    case 'w':
        c->file = optarg;
        return true;
    case 'c':
        c->count = optarg;
        return true;
    default:
        return false;
    }
}

/* getopt sorts options to the front, so they may stand before the command or after it. */
static int parse_options(int argc, char **argv, struct parsed *p)
{
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'},
        {"json", no_argument, NULL, 'j'},
        {"watch", no_argument, NULL, 'W'},
        {"time", required_argument, NULL, 't'},
        {"pem", no_argument, NULL, 'p'},
        {"days", required_argument, NULL, 'd'},
        {"key", required_argument, NULL, 'k'},
        {"out", required_argument, NULL, 'o'},
        {"ca", required_argument, NULL, 'C'},
        {"san", required_argument, NULL, 'n'},
        {"plain", no_argument, NULL, 'P'},
        {"wire", no_argument, NULL, 'O'},
        {"write", required_argument, NULL, 'w'},
        {"count", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    for (int o; (o = getopt_long(argc, argv, "s:w:c:hV", options, NULL)) != -1;) {
        switch (o) {
        case 's':
            p->cli.socket = optarg;
            p->seen |= OPTION_SOCKET;
            break;
        case 'j':
            p->cli.json = true;
            p->seen |= OPTION_JSON;
            break;
        case 'W':
            p->cli.watch = true;
            p->seen |= OPTION_WATCH;
            break;
        case 't':
            if (!parse_ms(optarg, &p->cli.ms))
                return usage_error("--time takes milliseconds from 1 to 60000", NULL);
            p->seen |= OPTION_MS;
            break;
        case 'p':
            p->cli.pem = true;
            p->seen |= OPTION_PEM;
            break;
        case 'h':
            p->help = true;
            break;
        case 'V':
            p->version = true;
            break;
        default:
            if (take_capture_option(o, &p->cli.capture)) {
                p->seen |= OPTION_CAPTURE;
                break;
            }
            if (!take_pki_option(o, &p->cli.pki)) {
                fputs("'adit --help' lists the commands\n", stderr);
                return EXIT_USAGE;
            }
            p->seen |= OPTION_PKI;
        }
    }
    return EXIT_DONE;
}

static int command_call(const struct command *command, struct parsed *p, char **args, int count)
{
    char what[160];
    if (count != command->arg_count) {
        snprintf(what, sizeof what, "%s takes %s", command->name, command->arg_count ? command->args : "no argument");
        return usage_error(what, NULL);
    }
    if (p->seen & ~command->options) {
        snprintf(what, sizeof what, "an option that %s does not take ('adit %s --help')", command->name, command->name);
        return usage_error(what, NULL);
    }
    p->cli.command = command->name;
    p->cli.arg_count = count;
    for (int i = 0; i < count; i++)
        p->cli.args[i] = args[i];
    return command->fn(&p->cli);
}

int cli_main(int argc, char **argv)
{
    struct parsed p = {.cli.ms = 200};
    int code = parse_options(argc, argv, &p);
    if (code != EXIT_DONE)
        return code;
    if (optind < argc && strcmp(argv[optind], "help") == 0) { /* as many know it from elsewhere */
        p.help = true;
        optind++;
    }
    if (optind == argc) {
        if (p.version)
            return cli_version(&p.cli);
        print_usage(p.help ? stdout : stderr);
        return p.help ? EXIT_DONE : EXIT_USAGE;
    }
    const struct command *command = command_find(argv[optind]);
    if (!command)
        return command_unknown(argv[optind]);
    if (p.help) {
        print_help(command);
        return EXIT_DONE;
    }
    code = command_call(command, &p, argv + optind + 1, argc - optind - 1);
    if (fflush(stdout) || ferror(stdout)) {
        perror("adit: stdout");
        return EXIT_FAILED;
    }
    return code;
}
