/*
 * protocol.h - the one place where the shim and the launcher meet.
 *
 * Why: two programs in two languages speak over one socket. Each constant and each field here has a
 * twin in rtlaunch/core/protocol.py; a test compares them. Nothing else may be assumed by either side.
 *
 * It must not hold anything that only one side needs.
 *
 * The conversation, one per image that the shim is loaded into:
 *
 *   shim      ENTERED   on the channel named by _RTL_CHANNEL, with one end of a fresh socketpair (SCM_RIGHTS)
 *   launcher  LOCK | SKIP | REFUSE       on that pair, as everything that follows
 *   shim      RECORD    prefaulted and locked, or the errno of why not
 *   launcher  NOTIFY                     after it read the kernel's books, with a socket (SCM_RIGHTS); if asked for
 *   shim      NOTIFIED  it has said that the program is ready, or the errno of why not
 *   launcher  GO | REFUSE
 *
 * The pair exists because the channel is shared by every process that inherited it: a reply on it
 * could be read by another. Who speaks is told by the kernel (SCM_CREDENTIALS), never by the message.
 *
 * Where no pair can be had (EMFILE, ETOOMANYREFS), the first and only word of the shim is RECORD on the
 * channel, with that errno and no descriptor; GO | REFUSE is awaited on the channel.
 */
#ifndef RTLAUNCH_PROTOCOL_H
#define RTLAUNCH_PROTOCOL_H

#include <stdint.h>

#define RTL_PROTOCOL 3

/* _RTL_CHANNEL=FD:DEV:INO:PID, four lower-case hexadecimal numbers. DEV and INO are what fstat says of FD:
 * the descriptor is used only while it is that very socket. PID is the process that is meant, 0 for all. */
#define RTL_CHANNEL_VARIABLE "_RTL_CHANNEL"

/* _RTL_HEAP=FIRST:BYTES:FLAGS:PID, four lower-case hexadecimal numbers: what the heap guest takes from malloc
 * in PID, FIRST and then BYTES more, and gives back to it. */
#define RTL_HEAP_VARIABLE "_RTL_HEAP"

/* In FLAGS: put it in memory at once, because no mlockall will. */
#define RTL_HEAP_POPULATE 0x1

/* What NOTIFY has the program say on the datagram socket that comes along (sd_notify(3)). A service manager goes by
 * who sent it, so nobody else can. */
#define RTL_READY "READY=1"

/* What the shim exits with when it is refused, and when the launcher dies between LOCK and GO. */
#define RTL_EXIT_REFUSED 125

enum rtl_kind {
    RTL_ENTERED = 1,
    RTL_LOCK = 2,
    RTL_SKIP = 3,
    RTL_REFUSE = 4,
    RTL_RECORD = 5,
    RTL_GO = 6,
    RTL_FAILED = 7, /* from the launcher's own child, before exec: action `flags` failed with `error` */
    RTL_NOTIFY = 8,
    RTL_NOTIFIED = 9,
};

/* In `flags` of RTL_LOCK, beside the MCL_* bits. */
#define RTL_STRICT 0x10000 /* a lock that fails, or a launcher that dies before GO, ends the image with 125 */
#define RTL_DEATHSIG 0x20000 /* at GO, set PR_SET_PDEATHSIG to `error` (0: none) */

/* In `flags` of RTL_GO: keep the pair open, close-on-exec and out of the way. Its end of file is then an
 * exec (or the end), which the launcher cannot learn otherwise where perf is forbidden. */
#define RTL_KEEP 0x40000

/* One size for all messages; a field that a kind does not name is 0. */
struct rtl_message {
    uint32_t protocol;    /* RTL_PROTOCOL */
    uint32_t kind;        /* enum rtl_kind */
    uint32_t flags;       /* LOCK: MCL_* | RTL_*; RECORD: MCL_* as tried last; GO: RTL_KEEP or 0;
                           * FAILED: index of the action */
    int32_t error;        /* RECORD, NOTIFIED, FAILED: errno or 0; LOCK: the signal for RTL_DEATHSIG */
    uint64_t time_ns;     /* ENTERED, RECORD, NOTIFIED: CLOCK_MONOTONIC */
    uint64_t stack_low;   /* LOCK: lowest address that may be touched; RECORD: lowest that was */
    uint64_t stack_bytes; /* LOCK: bytes below the frame to touch; RECORD: bytes touched */
    uint64_t lock_ns;     /* RECORD: what mlockall took, ns */
    uint64_t stack_limit; /* LOCK: soft RLIMIT_STACK to set first, 0: leave it, ~0: unlimited */
};

#endif
