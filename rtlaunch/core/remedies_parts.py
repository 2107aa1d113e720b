"""What the remedy tables share: the shape of a row, and phrases that many rows are made of."""

from __future__ import annotations

Row = tuple[str, str, str]
Rows = dict[str, Row]

SYSTEMD_RUN = "%(sudo)ssystemd-run --pty --same-dir --uid=%(uid)s"
EDIT = "a drop-in (%(sudo)ssystemctl edit %(unit)s):\n[Service]\n"
EDIT_MANAGER = "a drop-in (%(sudo)ssystemctl edit user@.service):\n[Service]\n"
LIMITS_D = "| %(sudo)stee -a /etc/security/limits.d/50-rtlaunch.conf"
LOGIN_AGAIN = ", then log in again"
DROP_IN_CONTAINER = (
    "start the container as root with %(cap_flag)s, and let rtlaunch become the user: %(run_user)s"
)
POD_CAPABILITY = "in the container's spec:\nsecurityContext:\n  capabilities:\n    add: [%(cap)s]"
POD_PATCH = (
    "kubectl patch deployment NAME -p '"
    '{"spec":{"template":{"spec":{"containers":[{"name":"CONTAINER",'
    '"securityContext":{"capabilities":{"add":["%(cap)s"]}}}]}}}}'
    "'"
)
NO_CAPS_DOCKER = "docker gives a user who is not root no effective capabilities"
NO_CAPS_POD = "Kubernetes gives a user who is not root no effective capabilities"
