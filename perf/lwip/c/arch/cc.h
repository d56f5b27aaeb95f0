/* What lwIP asks of a compiler and its library: gcc or clang, on Linux. */
#ifndef ROCEWAY_LWIP_CC_H
#define ROCEWAY_LWIP_CC_H

#include <stdlib.h>

#define LWIP_TIMEVAL_PRIVATE 0
#include <sys/time.h>

/* Ports and initial sequence numbers; both ends are ours. */
#define LWIP_RAND() ((u32_t)rand())

#endif
