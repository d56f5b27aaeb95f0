/* lwIP as fast as its options make it, with the buffers that the other stacks of the comparison
 * have: polled by hand, its raw interface, no locks, no assertions, no statistics. */
#ifndef ROCEWAY_LWIPOPTS_H
#define ROCEWAY_LWIPOPTS_H

/* One thread at a time, which polls. */
#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_NOASSERT 1
#define LWIP_STATS 0

#define LWIP_IPV4 1
#define LWIP_IPV6 0
#define LWIP_ARP 1
#define LWIP_TCP 1
#define LWIP_UDP 1
#define LWIP_DHCP 0
#define LWIP_DNS 0
#define LWIP_RAW 0
#define IP_FRAG 0
#define IP_REASSEMBLY 0

/* Left out or computed, by interface. The sum with the most arithmetic at once of its three. */
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define LWIP_CHKSUM_ALGORITHM 3

/* A window and a send buffer of 1 MiB. The MSS is the largest; an interface with a smaller MTU
 * makes it smaller. */
#define TCP_MSS 3960
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 5
#define TCP_WND (1 << 20)
#define TCP_SND_BUF (1 << 20)
#define TCP_SND_QUEUELEN 4096
#define TCP_SNDLOWAT 16384
#define TCP_SNDQUEUELOWAT 64
#define LWIP_TCP_TIMESTAMPS 0

/* As much memory as all of that can want. */
#define MEM_ALIGNMENT 8
#define MEM_SIZE (16 << 20)
#define MEMP_NUM_TCP_SEG 8192
#define MEMP_NUM_PBUF 4096
#define PBUF_POOL_SIZE 2048
#define PBUF_POOL_BUFSIZE 4096

#endif
