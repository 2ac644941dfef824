"""Names of users, as the C library's name service knows them (nsswitch.conf(5)): LDAP included."""

from __future__ import annotations


def user_name(uid: int) -> str:
    """The login name of a uid of this user namespace, "" when there is none (getpwuid(3))."""
    import pwd  # an extension in some builds of CPython: only who asks for a name pays for it

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""
