/*
 * settings.h - how a guest reads what was written for it into the environment: numbers.
 *
 * Why it is shared: each guest is one file without a libc, and none may read a setting in a way of its own.
 * It must not look at anything but the list that it is given.
 */
#ifndef RTLAUNCH_SETTINGS_H
#define RTLAUNCH_SETTINGS_H

#include <stddef.h>
#include <stdint.h>

/* Return what follows `name` (which ends with `=`) in a list of variables, or NULL. */
static const char *setting_text(char **list, const char *name)
{
    for (char **entry = list; entry && *entry; entry++) {
        size_t same = 0;

        while (name[same] && (*entry)[same] == name[same])
            same++;
        if (!name[same])
            return *entry + same;
    }
    return NULL;
}

/* Return the value of a lower-case hexadecimal digit, or -1. */
static inline int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    return -1;
}

/* Read one number of at most 16 digits that ends with `end`; return what follows it, NULL if it is none. */
static inline const char *hex_number(const char *text, char end, uint64_t *number)
{
    const char *at = text;

    *number = 0;
    for (; hex_digit(*at) >= 0 && at - text < 16; at++)
        *number = *number << 4 | (uint64_t)hex_digit(*at);
    return at > text && *at == end ? at + 1 : NULL;
}

#endif
