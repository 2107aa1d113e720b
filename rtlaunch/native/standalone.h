/*
 * standalone.h - what is written into a unit or a script for the guest that locks without a launcher.
 *
 * Why: `rtlaunch plan --as` writes it in one language and the guest reads it in another. Each constant here
 * has a twin in rtlaunch/core/standalone.py; a test compares them.
 */
#ifndef RTLAUNCH_STANDALONE_H
#define RTLAUNCH_STANDALONE_H

/* _RTL_STANDALONE=FLAGS:STACK:PID, three decimal numbers: the flags below, the bytes of main stack to touch,
 * and the process that is meant. PID 0 is the one that SYSTEMD_EXEC_PID names (systemd 248); where there is
 * no such variable, every process that inherits the guest is meant. */
#define RTL_STANDALONE_VARIABLE "_RTL_STANDALONE"

/* In FLAGS, beside the MCL_* bits 1, 2 and 4. */
#define RTL_STANDALONE_LENIENT 0x8 /* what could not be locked runs on */
#define RTL_STANDALONE_EVERY 0x10 /* every process that inherits the guest is meant, whatever PID says */

#endif
