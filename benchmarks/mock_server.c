/* A precise stand-in for an LLM server: one thread, epoll, answers at exact times, and keeps account of
 * when it really sent what.
 *
 *   mock_server [--port N] [--ttft-us N] [--itl-us N] [--tokens N]
 *
 * Prints its port. Speaks /v1/completions and /v1/chat/completions, streaming: one HTTP chunk and one write a
 * token, shaped like vLLM's; token k is due at (request received) + TTFT + k * ITL, so lateness does not add
 * up. Without delays it goes round the connections, a token each. GET /truth gives what it did since the last
 * GET /reset; any other GET gives a list of one model.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FDS = 65536, REQUEST_BYTES = 1 << 20, SPIN_NS = 60000, CHUNK_BYTES = 640, MAX_TOKENS = 65536 };

typedef struct {
    int64_t received_ns, last_ns, due_ns;
    int heap_at;             /* -1: nothing is due */
    int sent, tokens, chat;  /* chunks written of the answer in progress */
    size_t have, unsent, unsent_at;
    char *request, *pending; /* pending: what the socket did not take */
} Connection;

static Connection *connections[MAX_FDS];
static int heap[MAX_FDS], heap_size;
static int64_t ttft_ns, itl_ns;
static int default_tokens = 64;
static float *ttft_us, *itl_us;
static size_t ttft_count, ttft_room, itl_count, itl_room;
static int poller;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* A heap of descriptors by due time. */

static void put(int at, int fd) { heap[at] = fd; connections[fd]->heap_at = at; }

static void sift(int at) {
    int fd = heap[at];
    int64_t due = connections[fd]->due_ns;
    while (at && connections[heap[(at - 1) / 2]]->due_ns > due) { put(at, heap[(at - 1) / 2]); at = (at - 1) / 2; }
    for (;;) {
        int child = 2 * at + 1;
        if (child >= heap_size) break;
        if (child + 1 < heap_size && connections[heap[child + 1]]->due_ns < connections[heap[child]]->due_ns) child++;
        if (connections[heap[child]]->due_ns >= due) break;
        put(at, heap[child]);
        at = child;
    }
    put(at, fd);
}

static void schedule(int fd, int64_t due) {
    Connection *c = connections[fd];
    c->due_ns = due;
    if (c->heap_at < 0) put(heap_size++, fd);
    sift(c->heap_at);
}

static void unschedule(int fd) {
    int at = connections[fd]->heap_at;
    if (at < 0) return;
    connections[fd]->heap_at = -1;
    if (at != --heap_size) { put(at, heap[heap_size]); sift(at); }
}

/* The account. */

static void note(float **list, size_t *count, size_t *room, int64_t ns) {
    if (*count == *room) *list = realloc(*list, (*room = *room ? 2 * *room : 65536) * sizeof(float));
    (*list)[(*count)++] = ns / 1e3f;
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int summary(char *out, const char *name, float *list, size_t count) {
    qsort(list, count, sizeof(float), by_size);
    return sprintf(out, "\"%s_p50_ms\": %.4f, \"%s_p99_ms\": %.4f, \"%s_count\": %zu", name,
                   count ? list[count / 2] / 1e3 : 0, name, count ? list[(size_t)(count * .99)] / 1e3 : 0, name, count);
}

/* Connections. */

static void drop(int fd) {
    Connection *c = connections[fd];
    unschedule(fd);
    free(c->request);
    free(c->pending);
    free(c);
    connections[fd] = NULL;
    close(fd);
}

static void want_write(int fd, int wanted) {
    struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_MOD, fd, &e);
}

/* Whether the connection is still there. */
static int send_all(int fd, const char *data, size_t size) {
    Connection *c = connections[fd];
    ssize_t done = 0;
    if (!c->unsent) {
        done = write(fd, data, size);
        if (done < 0 && errno != EAGAIN) { drop(fd); return 0; }
        if (done < 0) done = 0;
    }
    if ((size_t)done < size) {
        size_t rest = size - done;
        c->pending = realloc(c->pending, c->unsent_at + c->unsent + rest);
        memcpy(c->pending + c->unsent_at + c->unsent, data + done, rest);
        if (!c->unsent) want_write(fd, 1);
        c->unsent += rest;
    }
    return 1;
}

static void flush(int fd) {
    Connection *c = connections[fd];
    ssize_t done = write(fd, c->pending + c->unsent_at, c->unsent);
    if (done < 0) { if (errno != EAGAIN) drop(fd); return; }
    c->unsent -= done;
    c->unsent_at = c->unsent ? c->unsent_at + done : 0;
    if (!c->unsent) want_write(fd, 0);
}

static int framed(char *out, const char *event) { return sprintf(out, "%zx\r\n%s\r\n", strlen(event), event); }

static int token(char *out, Connection *c) {
    char event[CHUNK_BYTES];
    int made = c->sent + 1, last = made == c->tokens;
    const char *reason = last ? "\"length\"" : "null";
    if (c->chat)
        sprintf(event, "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
                "\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" a\"},\"logprobs\":null,\"finish_reason\":%s,"
                "\"token_ids\":[300]}],\"usage\":{\"prompt_tokens\":32,\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n",
                reason, 32 + made, made);
    else
        sprintf(event, "data: {\"id\":\"cmpl-0123456789abcdef\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"mock\","
                "\"choices\":[{\"index\":0,\"text\":\" a\",\"logprobs\":null,\"finish_reason\":%s,\"stop_reason\":null,\"token_ids\":[300]}],"
                "\"usage\":{\"prompt_tokens\":32,\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n", reason, 32 + made, made);
    int size = framed(out, event);
    if (last) {
        sprintf(event, "data: {\"id\":\"cmpl-0123456789abcdef\",\"object\":\"%s\",\"created\":1700000000,\"model\":\"mock\",\"choices\":[],"
                "\"usage\":{\"prompt_tokens\":32,\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n",
                c->chat ? "chat.completion.chunk" : "text_completion", 32 + made, made);
        size += framed(out + size, event);
        size += framed(out + size, "data: [DONE]\n\n");
        size += sprintf(out + size, "0\r\n\r\n");
    }
    return size;
}

static void send_token(int fd) {
    Connection *c = connections[fd];
    char out[4 * CHUNK_BYTES];
    int size = token(out, c);
    int64_t at = now_ns();
    if (c->sent) note(&itl_us, &itl_count, &itl_room, at - c->last_ns);
    else note(&ttft_us, &ttft_count, &ttft_room, at - c->received_ns);
    c->last_ns = at;
    if (!send_all(fd, out, size)) return;
    if (++c->sent == c->tokens) unschedule(fd);
    else schedule(fd, itl_ns ? c->received_ns + ttft_ns + c->sent * itl_ns : at);
}

static void answer_get(int fd, const char *request) {
    char body[1024], out[2048];
    int size;
    if (!strncmp(request, "GET /reset", 10)) { ttft_count = itl_count = 0; size = sprintf(body, "{}"); }
    else if (!strncmp(request, "GET /truth", 10)) {
        size = sprintf(body, "{");
        size += summary(body + size, "ttft", ttft_us, ttft_count);
        size += sprintf(body + size, ", ");
        size += summary(body + size, "itl", itl_us, itl_count);
        size += sprintf(body + size, "}");
    } else size = sprintf(body, "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"max_model_len\":65536}]}");
    size = sprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", size, body);
    send_all(fd, out, size);
}

static int asked_tokens(const char *body) {
    const char *names[] = {"\"max_tokens\"", "\"max_completion_tokens\""};
    for (int i = 0; i < 2; i++) {
        const char *at = strstr(body, names[i]);
        if (at && (at = strchr(at, ':'))) {
            int asked = atoi(at + 1);
            if (asked > 0 && asked <= MAX_TOKENS) return asked;
        }
    }
    return default_tokens;
}

static void take_request(int fd) {
    Connection *c = connections[fd];
    c->request[c->have] = 0;
    char *end = strstr(c->request, "\r\n\r\n");
    if (!end) return;
    char *length = strcasestr(c->request, "\r\ncontent-length:");
    size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    if (c->have < (size_t)(end + 4 - c->request) + body) return;
    c->have = 0;
    if (!strncmp(c->request, "GET", 3)) { answer_get(fd, c->request); return; }
    c->received_ns = now_ns();
    c->chat = strstr(c->request, "/chat/") && strstr(c->request, "/chat/") < end;
    c->tokens = asked_tokens(end);
    c->sent = 0;
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
    if (send_all(fd, head, sizeof head - 1)) schedule(fd, c->received_ns + ttft_ns);
}

static void read_some(int fd) {
    Connection *c = connections[fd];
    ssize_t got = read(fd, c->request + c->have, REQUEST_BYTES - 1 - c->have);
    if (got <= 0) { if (got == 0 || errno != EAGAIN) drop(fd); return; }
    c->have += got;
    take_request(fd);
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FDS) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connections[fd] = calloc(1, sizeof(Connection));
        connections[fd]->heap_at = -1;
        connections[fd]->request = malloc(REQUEST_BYTES);
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    }
}

static void serve(int listener) {
    struct epoll_event events[1024];
    for (;;) {
        int64_t wait_ns = heap_size ? connections[heap[0]]->due_ns - now_ns() - SPIN_NS : 1000000000;
        struct timespec wait = {wait_ns > 0 ? wait_ns / 1000000000 : 0, wait_ns > 0 ? wait_ns % 1000000000 : 0};
        int ready = epoll_pwait2(poller, events, 1024, &wait, NULL);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) { accept_all(listener); continue; }
            if (connections[fd] && events[i].events & EPOLLOUT) flush(fd);
            if (connections[fd] && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_some(fd);
        }
        /* All that is due now, but no more than one token a connection before the next look around. */
        int64_t at = now_ns();
        for (int budget = heap_size; budget && heap_size && connections[heap[0]]->due_ns <= at; budget--) send_token(heap[0]);
    }
}

int main(int argc, char **argv) {
    int port = 0, one = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        int64_t value = atoll(argv[i + 1]);
        if (!strcmp(argv[i], "--port")) port = value;
        else if (!strcmp(argv[i], "--ttft-us")) ttft_ns = value * 1000;
        else if (!strcmp(argv[i], "--itl-us")) itl_ns = value * 1000;
        else if (!strcmp(argv[i], "--tokens")) default_tokens = value;
        else { fprintf(stderr, "unknown option %s\n", argv[i]); return 2; }
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof where;
    if (bind(listener, (struct sockaddr *)&where, size) || listen(listener, 16384)) { perror("cannot listen"); return 1; }
    getsockname(listener, (struct sockaddr *)&where, &size);
    printf("%d\n", ntohs(where.sin_port));
    fflush(stdout);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    serve(listener);
}
