/* One end: an interface whose frames go to and come from whoever calls, and one socket of lwIP's raw
 * interface. Compiled with lwIP into one object, which is linked twice under two names, since all of
 * lwIP's state is global.
 *
 * Every call takes `around`, which the two functions of `roceway_callbacks` get back while it lasts
 * and never after. */
#include "lwip/etharp.h"
#include "lwip/init.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/tcp.h"
#include "lwip/timeouts.h"
#include "lwip/udp.h"
#include "netif/ethernet.h"

#include <string.h>

#define PORT 7
#define PREFIX(host) LWIP_MAKEU32(10, 80, 0, host)
/* The most that one call gives to tcp_write, whose length has 16 bits. */
#define WRITE_MAX 32768

struct roceway_callbacks {
    /* Sends a frame that roceway_calls.copy copies out; 0: no room. */
    int (*send)(void *around, const struct pbuf *frame, uint32_t length);
    void (*received)(void *around, const uint8_t *bytes, uint32_t length);
};

struct roceway_options {
    uint16_t mtu;
    uint8_t host;
    uint8_t peer;
    uint8_t checksums;
    uint8_t udp;
    uint8_t listens;
};

static struct netif interface;
static struct tcp_pcb *listener, *connection;
static struct udp_pcb *datagrams;
static ip_addr_t asker;
static u16_t asker_port;
static int is_connected, is_started;
static u32_t now_ms;
static void *around_now;
static const struct roceway_callbacks *callbacks;

u32_t sys_now(void) { return now_ms; }

static err_t send_frame(struct netif *netif, struct pbuf *frame) {
    (void)netif;
    /* An error keeps a segment in its queue; it is tried again with the next call. */
    return callbacks->send(around_now, frame, frame->tot_len) ? ERR_OK : ERR_MEM;
}

static err_t initialise(struct netif *netif) {
    const struct roceway_options *options = netif->state;
    netif->name[0] = 'r';
    netif->name[1] = 'w';
    netif->mtu = options->mtu;
    netif->hwaddr_len = ETH_HWADDR_LEN;
    memset(netif->hwaddr, 0, ETH_HWADDR_LEN);
    netif->hwaddr[0] = 2;
    netif->hwaddr[5] = options->host;
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
    netif->output = etharp_output;
    netif->linkoutput = send_frame;
    NETIF_SET_CHECKSUM_CTRL(netif, options->checksums ? NETIF_CHECKSUM_ENABLE_ALL
                                                      : NETIF_CHECKSUM_DISABLE_ALL);
    return ERR_OK;
}

static void hand_over(const struct pbuf *frame) {
    for (const struct pbuf *one = frame; one != NULL; one = one->next)
        callbacks->received(around_now, one->payload, one->len);
}

static err_t on_bytes(void *argument, struct tcp_pcb *pcb, struct pbuf *bytes, err_t error) {
    (void)argument, (void)error;
    if (bytes == NULL) return ERR_OK;
    hand_over(bytes);
    tcp_recved(pcb, bytes->tot_len);
    pbuf_free(bytes);
    return ERR_OK;
}

static void on_error(void *argument, err_t error) {
    (void)argument, (void)error;
    /* lwIP has freed it. */
    connection = NULL;
    is_connected = 0;
}

static void adopt(struct tcp_pcb *pcb) {
    connection = pcb;
    tcp_nagle_disable(pcb);
    tcp_recv(pcb, on_bytes);
    tcp_err(pcb, on_error);
}

static err_t on_accept(void *argument, struct tcp_pcb *pcb, err_t error) {
    (void)argument;
    if (error != ERR_OK || pcb == NULL || connection != NULL) return ERR_ABRT;
    adopt(pcb);
    is_connected = 1;
    return ERR_OK;
}

static err_t on_connected(void *argument, struct tcp_pcb *pcb, err_t error) {
    (void)argument, (void)pcb;
    is_connected = error == ERR_OK;
    return ERR_OK;
}

static void on_datagram(void *argument, struct udp_pcb *pcb, struct pbuf *bytes,
                        const ip_addr_t *from, u16_t port) {
    (void)argument, (void)pcb;
    ip_addr_copy(asker, *from);
    asker_port = port;
    hand_over(bytes);
    pbuf_free(bytes);
}

static int open_tcp(const struct roceway_options *options, const ip4_addr_t *peer) {
    struct tcp_pcb *pcb = tcp_new();
    if (pcb == NULL) return 0;
    if (options->listens) {
        if (tcp_bind(pcb, IP4_ADDR_ANY, PORT) != ERR_OK) {
            tcp_abort(pcb);
            return 0;
        }
        listener = tcp_listen(pcb);
        if (listener == NULL) {
            tcp_abort(pcb);
            return 0;
        }
        tcp_accept(listener, on_accept);
        return 1;
    }
    adopt(pcb);
    return tcp_connect(pcb, peer, PORT, on_connected) == ERR_OK;
}

static void close_end(void) {
    /* The reset, which lwIP sends here, has no link to go to any more. */
    if (connection != NULL) tcp_abort(connection);
    if (listener != NULL) tcp_close(listener);
    if (datagrams != NULL) udp_remove(datagrams);
    connection = listener = NULL;
    datagrams = NULL;
    is_connected = 0;
    netif_remove(&interface);
}

static int send_nowhere(void *around, const struct pbuf *frame, uint32_t length) {
    (void)around, (void)frame, (void)length;
    return 1;
}

static void receive_nowhere(void *around, const uint8_t *bytes, uint32_t length) {
    (void)around, (void)bytes, (void)length;
}

static const struct roceway_callbacks nowhere = {send_nowhere, receive_nowhere};

static void finish(void) {
    callbacks = &nowhere;
    around_now = NULL;
    close_end();
}

static int start(void *around, const struct roceway_callbacks *to,
                 const struct roceway_options *options) {
    struct roceway_options own = *options;
    ip4_addr_t address, mask, peer;
    int is_open;
    around_now = around;
    callbacks = to;
    if (!is_started) {
        lwip_init();
        is_started = 1;
    }
    address.addr = PP_HTONL(PREFIX(0)) | lwip_htonl(options->host);
    peer.addr = PP_HTONL(PREFIX(0)) | lwip_htonl(options->peer);
    IP4_ADDR(&mask, 255, 255, 255, 0);
    memset(&interface, 0, sizeof interface);
    if (netif_add(&interface, &address, &mask, NULL, &own, initialise, ethernet_input) == NULL)
        return 0;
    interface.state = NULL;
    netif_set_default(&interface);
    netif_set_up(&interface);
    netif_set_link_up(&interface);
    if (options->udp) {
        datagrams = udp_new();
        ip4_addr_copy(asker, peer);
        asker_port = PORT;
        is_open = datagrams != NULL && udp_bind(datagrams, IP4_ADDR_ANY, PORT) == ERR_OK;
        if (is_open) udp_recv(datagrams, on_datagram, NULL);
    } else {
        is_open = open_tcp(options, &peer);
    }
    if (!is_open) finish();
    return is_open;
}

static int is_ready(void) { return datagrams != NULL || is_connected; }

static int input(void *around, const uint8_t *bytes, uint32_t length) {
    struct pbuf *frame;
    if (length > UINT16_MAX) return 0;
    frame = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_POOL);
    if (frame == NULL) return 0;
    around_now = around;
    pbuf_take(frame, bytes, (u16_t)length);
    if (interface.input(frame, &interface) != ERR_OK) pbuf_free(frame);
    return 1;
}

static void timers(void *around, uint32_t now) {
    around_now = around;
    now_ms = now;
    sys_check_timeouts();
    if (connection != NULL) tcp_output(connection);
}

static uint32_t room(void) {
    if (connection == NULL || !is_connected) return 0;
    if (tcp_sndqueuelen(connection) + 2 * WRITE_MAX / 1460 > TCP_SND_QUEUELEN) return 0;
    return tcp_sndbuf(connection);
}

static uint32_t write_bytes(void *around, const uint8_t *bytes, uint32_t length) {
    uint32_t taken = LWIP_MIN(LWIP_MIN(length, room()), WRITE_MAX);
    around_now = around;
    if (taken == 0 ||
        tcp_write(connection, bytes, (u16_t)taken, TCP_WRITE_FLAG_COPY) != ERR_OK)
        return 0;
    tcp_output(connection);
    return taken;
}

static int send_datagram(void *around, const uint8_t *bytes, uint32_t length) {
    struct pbuf *frame;
    err_t error;
    if (datagrams == NULL || length > UINT16_MAX) return 0;
    frame = pbuf_alloc(PBUF_TRANSPORT, (u16_t)length, PBUF_RAM);
    if (frame == NULL) return 0;
    around_now = around;
    pbuf_take(frame, bytes, (u16_t)length);
    error = udp_sendto(datagrams, frame, &asker, asker_port);
    pbuf_free(frame);
    return error == ERR_OK;
}

static uint32_t copy(const struct pbuf *frame, uint8_t *to, uint32_t length) {
    return pbuf_copy_partial(frame, to, (u16_t)LWIP_MIN(length, UINT16_MAX), 0);
}

struct roceway_calls {
    int (*start)(void *, const struct roceway_callbacks *, const struct roceway_options *);
    void (*finish)(void);
    int (*is_ready)(void);
    int (*input)(void *, const uint8_t *, uint32_t);
    void (*timers)(void *, uint32_t);
    uint32_t (*room)(void);
    uint32_t (*write)(void *, const uint8_t *, uint32_t);
    int (*send_datagram)(void *, const uint8_t *, uint32_t);
    uint32_t (*copy)(const struct pbuf *, uint8_t *, uint32_t);
};

/* The one name that is seen from outside. */
const struct roceway_calls roceway_calls = {
    start, finish, is_ready, input, timers, room, write_bytes, send_datagram, copy,
};
